//! What an agent before this one left pinned: whether this one can go on with it, and if not, how
//! it is given up in order.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{MapData, MapInfo};
use aya_obj::Object;
use router_common::{
    identity::{Claim, Epoch, Flags, NodeId},
    map::{LAYOUT_VERSION, name},
};

use super::{OBJECT, mapped::MappedArray, pins::Pins};

/// The locked pins below a BPF file system, before anything of them is changed.
pub struct Former {
    pub(super) pins: Pins,
    pub(super) lock: OwnedFd,
    pub(super) legacy: Legacy,
    pub(super) newest_epoch: Epoch,
}

/// What there is to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Legacy {
    Nothing,
    /// All maps, as this program's object defines them.
    Maps,
    /// Pins that are of no use to this program, and why.
    Unfit(String),
}

impl Former {
    /// Locks the pins below `bpffs` and looks at them.
    pub fn find(bpffs: &Path) -> Result<Self> {
        let pins = Pins::below(bpffs);
        let lock = pins.lock()?;
        let legacy = examine(&pins)?;
        let mut former = Self {
            pins,
            lock,
            legacy,
            newest_epoch: Epoch::default(),
        };
        former.newest_epoch = former
            .locals()?
            .iter()
            .map(Local::newest_epoch)
            .max()
            .unwrap_or_default();
        Ok(former)
    }

    /// Makes [`Dataplane::load`](super::Dataplane::load) replace what there is.
    #[must_use]
    pub fn given_up(self) -> Self {
        Self {
            legacy: Legacy::Nothing,
            ..self
        }
    }

    /// Why this program cannot go on with what there is; `None` if it can, or there is nothing.
    pub fn obstacle(&self) -> Option<&str> {
        match &self.legacy {
            Legacy::Unfit(why) => Some(why),
            Legacy::Nothing | Legacy::Maps => None,
        }
    }

    /// Closes the former agent's fences, and takes back what the kernel says in its name: from now on
    /// its replies tell the peers that this node is out. Whether there was anything to take back.
    pub fn withdraw(&self) -> Result<bool> {
        close_fences(&self.pins)?;
        let mut any = false;
        for local in self.locals()? {
            any |= local.withdraw();
        }
        Ok(any)
    }

    /// What is said in the sessions, in whatever layout.
    fn locals(&self) -> Result<Vec<Local>> {
        let versions = self.pins.versions()?;
        Ok(versions
            .iter()
            .filter_map(|version| Local::open(&version.join("maps").join(name::LOCAL)))
            .collect())
    }
}

/// Compares what is pinned with what this program would pin.
fn examine(pins: &Pins) -> Result<Legacy> {
    let versions = pins.versions()?;
    if versions.is_empty() {
        return Ok(Legacy::Nothing);
    }
    if !versions.iter().any(|version| version == pins.own()) {
        let names: Vec<_> = versions
            .iter()
            .filter_map(|path| path.file_name()?.to_str())
            .collect();
        return Ok(Legacy::Unfit(format!(
            "it is of layout {}, and this version has v{LAYOUT_VERSION}",
            names.join(", ")
        )));
    }
    if !pins.namespace()?.exists() {
        let why = "it is of another network namespace, or was not finished";
        return Ok(Legacy::Unfit(why.to_owned()));
    }
    let object = Object::parse(OBJECT).context("the object of the programs is damaged")?;
    for name in name::ALL {
        let defined = object
            .maps
            .get(name)
            .ok_or_else(|| anyhow!("the object has no map {name}"))?;
        let Ok(pinned) = MapInfo::from_pin(pins.map(name)) else {
            return Ok(Legacy::Unfit(format!("map {name} is missing")));
        };
        let differs = [
            (
                "type",
                defined.map_type(),
                pinned.map_type().map_or(0, |kind| kind as u32),
            ),
            ("key size", defined.key_size(), pinned.key_size()),
            ("value size", defined.value_size(), pinned.value_size()),
            (
                "number of entries",
                defined.max_entries(),
                pinned.max_entries(),
            ),
            ("flags", defined.map_flags(), pinned.map_flags()),
        ]
        .into_iter()
        .find(|(_, ours, theirs)| ours != theirs);
        if let Some((what, ours, theirs)) = differs {
            return Ok(Legacy::Unfit(format!(
                "map {name} has another {what}: {theirs}, and not {ours}"
            )));
        }
    }
    Ok(Legacy::Maps)
}

/// Closes the fences of agents of every layout.
pub(super) fn close_fences(pins: &Pins) -> Result<()> {
    for version in pins.versions()? {
        close_all(&version.join("maps").join(name::FENCES));
    }
    Ok(())
}

/// Zero closes a fence in every layout. There may be none.
fn close_all(path: &Path) {
    let Ok(map) = MapData::from_pin(path) else {
        return;
    };
    let Ok(info) = map.info() else {
        return;
    };
    let words = (info.value_size() / 8).checked_mul(info.max_entries());
    let Some(words) = words else {
        return;
    };
    if let Ok(fences) = MappedArray::<u64>::read_write(&map, words) {
        for word in 0..words {
            fences.write(word, &0);
        }
    }
}

/// Map `LOCAL` of any layout, as words.
struct Local {
    words: MappedArray<u64>,
    elements: u32,
    words_each: u32,
}

/// Claim, generation and flags, sign of life, as `router_common::map::LocalState` has them.
const HEAD: u32 = 3;

impl Local {
    /// `None` if there is no such map, or it is not what it should be.
    fn open(path: &Path) -> Option<Self> {
        let map = MapData::from_pin(path).ok()?;
        let info = map.info().ok()?;
        let words_each = info.value_size() / 8;
        if words_each < HEAD || !info.value_size().is_multiple_of(8) {
            return None;
        }
        let elements = info.max_entries();
        let words = MappedArray::read_write(&map, elements.checked_mul(words_each)?).ok()?;
        Some(Self {
            words,
            elements,
            words_each,
        })
    }

    fn claim(&self, element: u32) -> Claim {
        Claim::from_word(self.words.read(element * self.words_each))
    }

    fn newest_epoch(&self) -> Epoch {
        let epochs = (0..self.elements).map(|element| self.claim(element).epoch);
        epochs.max().unwrap_or_default()
    }

    fn withdraw(&self) -> bool {
        const FLAGS: u64 = 0xffff;
        let mut any = false;
        for element in 0..self.elements {
            let first = element * self.words_each;
            let generation_flags = self.words.read(first + 1);
            let is_closed = generation_flags >> 32 == 0;
            if is_closed {
                continue;
            }
            any = true;
            self.words.write(first + 1, &(generation_flags & !FLAGS));
            // What it grants, in the layouts that have that.
            for word in HEAD..self.words_each {
                self.words.write(first + word, &0);
            }
            if generation_flags & u64::from(Flags::FORWARDING.0) != 0 {
                let nobodys = Claim {
                    owner: NodeId::NONE,
                    ..self.claim(element)
                };
                self.words.write(first, &nobodys.to_word());
            }
        }
        any
    }
}

/// The files in a directory of pins; none if there is no such directory.
pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}
