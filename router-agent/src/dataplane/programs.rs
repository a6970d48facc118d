//! The programs in the kernel. Each that was loaded is pinned below the name of its build, beside the
//! maps that it works on: an agent of the same build goes on with the very same programs, and the
//! kernel has none to check again, which takes the most of a start.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, sync::LazyLock};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, SchedClassifier, Xdp},
};
use aya_obj::programs::XdpAttachType;
use router_common::map::name;
use sha2::{Digest as _, Sha256};
use tracing::{debug, info};

use super::{OBJECT, pins::Pins};

/// What tells the programs of [`OBJECT`], with their constants, from those of any other.
pub(super) static BUILD: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::digest(OBJECT);
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
});

/// Used by their pins, whoever has loaded them.
pub(super) struct Programs {
    pins: Pins,
    /// Where programs come from that are not pinned yet; read when the first of them is needed.
    object: Option<Ebpf>,
    xdp: BTreeMap<&'static str, Xdp>,
    tc: BTreeMap<&'static str, SchedClassifier>,
}

impl Programs {
    pub fn new(pins: Pins) -> Self {
        Self {
            pins,
            object: None,
            xdp: BTreeMap::new(),
            tc: BTreeMap::new(),
        }
    }

    /// Reads the object, and makes the maps that are not pinned yet.
    pub fn read_object(&mut self) -> Result<&mut Ebpf> {
        if self.object.is_none() {
            let mut loader = EbpfLoader::new();
            // The object holds others, of constants and of what lasts no longer than a packet.
            for name in name::ALL {
                loader.map_pin_path(name, self.pins.map(name));
            }
            for name in name::OF_LOG {
                loader.map_pin_path(name, self.pins.log_map(name));
            }
            let object = loader
                .load(OBJECT)
                .context("the kernel refused the programs' maps")?;
            self.object = Some(object);
        }
        self.object.as_mut().context("the object was read")
    }

    /// XDP program `name`, loaded.
    pub fn xdp(&mut self, name: &'static str) -> Result<&mut Xdp> {
        if !self.xdp.contains_key(name) {
            let open = |pin: &Path| Ok(Xdp::from_pin(pin, XdpAttachType::Interface)?);
            let program = self.open(name, open)?;
            self.xdp.insert(name, program);
        }
        self.xdp.get_mut(name).context("the program is open")
    }

    /// TC program `name`, loaded.
    pub fn tc(&mut self, name: &'static str) -> Result<&mut SchedClassifier> {
        if !self.tc.contains_key(name) {
            let open = |pin: &Path| Ok(SchedClassifier::from_pin(pin)?);
            let program = self.open(name, open)?;
            self.tc.insert(name, program);
        }
        self.tc.get_mut(name).context("the program is open")
    }

    /// The kernel's number for XDP program `name`, which is loaded.
    pub fn xdp_id(&self, name: &str) -> Result<u32> {
        let program = self.xdp.get(name).ok_or_else(|| not_loaded(name))?;
        Ok(program.info()?.id())
    }

    /// As [`Self::xdp_id`], of a TC program.
    pub fn tc_id(&self, name: &str) -> Result<u32> {
        let program = self.tc.get(name).ok_or_else(|| not_loaded(name))?;
        Ok(program.info()?.id())
    }

    /// The only place where it is decided whether a program is one of before.
    fn open<P>(&mut self, name: &str, open: impl Fn(&Path) -> Result<P>) -> Result<P> {
        let pin = self.pins.program(name);
        let cannot = || format!("cannot open program {name} at {}", pin.display());
        if pin.exists() {
            debug!(program = name, "as an agent of the same build loaded it");
            return open(&pin).with_context(cannot);
        }
        self.load(name, &pin)?;
        open(&pin).with_context(cannot)
    }

    fn load(&mut self, name: &str, pin: &Path) -> Result<()> {
        let program = self
            .read_object()?
            .program_mut(name)
            .ok_or_else(|| anyhow!("the object has no program {name}"))?;
        match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => bail!("program {name} is of no kind that is used"),
        }
        .with_context(|| format!("the kernel refused program {name}"))?;
        info!(program = name, "checked by the kernel, and loaded");
        program
            .pin(pin)
            .with_context(|| format!("cannot pin program {name} at {}", pin.display()))
    }
}

fn not_loaded(name: &str) -> anyhow::Error {
    anyhow!("program {name} is not loaded")
}
