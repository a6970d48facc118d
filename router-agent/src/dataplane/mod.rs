//! Loads the kernel programs, attaches and pins them, and speaks with them through their maps.

mod attach;
mod fences;
mod mapped;
mod pins;

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
    programs::{SchedClassifier, TcAttachType},
    sys::SyscallError,
};
use router_common::{
    gre::AnyKey,
    identity::Epoch,
    map::{
        Fence, FenceCounters, Granted, Interface, Lease, LocalState, MAX_GROUPS, MAX_SESSIONS,
        Reason, RoundTrips, SessionConfig, SessionKey, SessionState, Settings, TunnelCounters,
        TunnelDevice, TunnelEgress, TunnelIngress, TunnelKey, TunnelKey6, name,
    },
};

use crate::{
    net::{EgressProgram, Link},
    tunnel::{Entries, state::Device},
};

pub use self::{
    attach::{Mode, ModeChoice, attach_pass},
    mapped::MappedArray,
    pins::{BPFFS_VARIABLE, DEFAULT_BPFFS, Pins},
};

/// The object that holds the programs, as `cargo xtask build-ebpf` built it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("ROUTER_EBPF_OBJECT"));

/// Names of the programs in [`OBJECT`].
pub mod program {
    pub const UNDERLAY: &str = "underlay";
    pub const LAN: &str = "lan";
    pub const UNDERLAY_HANDOVER: &str = "underlay_handover";
    pub const TUNNEL_EGRESS: &str = "tunnel_egress";
    pub const FENCE_IN: &str = "fence_in";
    pub const FENCE_OUT: &str = "fence_out";
    pub const PASS: &str = "pass";
}

/// The programs of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    /// Of an underlay; they also do what the LANs' program does.
    Underlay,
    Lan,
}

impl Programs {
    const fn xdp(self) -> &'static str {
        match self {
            Self::Underlay => program::UNDERLAY,
            Self::Lan => program::LAN,
        }
    }

    /// The one at TC ingress.
    const fn tc(self) -> Option<&'static str> {
        match self {
            Self::Underlay => Some(program::UNDERLAY_HANDOVER),
            Self::Lan => None,
        }
    }
}

/// The loaded programs. They go on working when this is dropped, for their links and maps are
/// pinned; [`Dataplane::remove`] ends them.
pub struct Dataplane {
    programs: Ebpf,
    pins: Pins,
    newest_epoch: Epoch,
    /// No second agent may take these pins for left-overs.
    _lock: OwnedFd,
}

impl Dataplane {
    /// Loads the programs and pins the maps below `bpffs`, after removing what an earlier agent
    /// left there.
    pub fn load(bpffs: &Path) -> Result<Self> {
        let pins = Pins::below(bpffs);
        let lock = pins.lock()?;
        let newest_epoch = newest_epoch(&pins);
        pins.clear()?;
        let programs = EbpfLoader::new()
            .load(OBJECT)
            .context("the kernel refused the programs")?;
        let mut dataplane = Self {
            programs,
            pins,
            newest_epoch,
            _lock: lock,
        };
        match dataplane.prepare() {
            Ok(()) => Ok(dataplane),
            Err(error) => {
                // The first error is the one to tell.
                let _ = dataplane.remove();
                Err(error)
            }
        }
    }

    fn prepare(&mut self) -> Result<()> {
        self.pin_maps()?;
        let mut settings: Array<_, Settings> = self.map_mut(name::SETTINGS)?;
        settings.set(0, drawn_settings()?, 0)?;
        Ok(())
    }

    fn pin_maps(&self) -> Result<()> {
        self.pins.create()?;
        // The object holds others, of constants and of what lasts no longer than a packet.
        for name in name::ALL {
            let map = self
                .programs
                .map(name)
                .ok_or_else(|| anyhow!("the object has no map {name}"))?;
            let path = self.pins.map(name);
            map.pin(&path)
                .with_context(|| format!("cannot pin map {name} at {}", path.display()))?;
        }
        Ok(())
    }

    /// The newest epoch that an agent before this one, which died, knew; zero if it left none.
    pub fn newest_epoch(&self) -> Epoch {
        self.newest_epoch
    }

    /// Attaches `programs` to interface `name`; the mode that it got.
    pub fn attach(&mut self, programs: Programs, name: &str, choice: ModeChoice) -> Result<Mode> {
        if let Some(tc) = programs.tc() {
            attach::tc(&mut self.programs, tc, name, &self.pins)?;
        }
        attach::xdp(&mut self.programs, programs.xdp(), name, choice, &self.pins)
    }

    /// Takes `programs` off the interface of index `ifindex` called `name`, of which either may
    /// have changed or gone.
    pub fn detach(&mut self, programs: Programs, ifindex: u32, name: &str) -> Result<()> {
        // XDP first: nobody else would know what it marks.
        for program in [programs.xdp()].into_iter().chain(programs.tc()) {
            attach::detach(program, ifindex, name, &self.pins)?;
        }
        Ok(())
    }

    /// Whether `programs` are still on `link`.
    pub fn is_on(&self, programs: Programs, link: &Link) -> Result<bool> {
        let id = attach::xdp_id(&self.programs, programs.xdp())?;
        if !link.xdp_programs.contains(&id) {
            return Ok(false);
        }
        programs.tc().map_or(Ok(true), |tc| {
            attach::has_tc(&self.programs, tc, &link.name, TcAttachType::Ingress)
        })
    }

    /// Forgets a tunnel's device that is gone.
    pub fn forget_device(&mut self, device: &Device) -> Result<()> {
        let mut egresses: HashMap<_, u32, TunnelEgress> = self.map_mut(name::EGRESS)?;
        for ifindex in [device.dataplane_ifindex, device.user_ifindex] {
            gone(egresses.remove(&ifindex)).context("cannot forget a tunnel's device")?;
        }
        Ok(())
    }

    /// Tells the programs what part interface `index` has in forwarding without the stack.
    pub fn set_interface(&mut self, index: u32, interface: Interface) -> Result<()> {
        let mut interfaces: HashMap<_, u32, Interface> = self.map_mut(name::INTERFACES)?;
        interfaces.insert(index, interface, 0)?;
        Ok(())
    }

    /// Makes the programs forget an interface that takes no part any more.
    pub fn forget_interface(&mut self, index: u32) -> Result<()> {
        let mut interfaces: HashMap<_, u32, Interface> = self.map_mut(name::INTERFACES)?;
        gone(interfaces.remove(&index)).context("cannot forget an interface")
    }

    /// The program for the tunnels' dataplane ends.
    pub fn egress_program(&mut self) -> Result<EgressProgram> {
        let name = program::TUNNEL_EGRESS;
        let program: &mut SchedClassifier = attach::loaded(&mut self.programs, name)?;
        let fd = program.fd()?.as_fd().try_clone_to_owned()?;
        Ok(EgressProgram { name, fd })
    }

    /// Makes the programs carry a tunnel, or carry it as `entries` now says.
    pub fn set_tunnel(&mut self, entries: &Entries) -> Result<()> {
        let Entries {
            key,
            ingress,
            egress,
            device,
        } = *entries;
        let mut devices: Array<_, TunnelDevice> = self.map_mut(name::DEVICES)?;
        devices.set(ingress.index, device, 0)?;
        let mut egresses: HashMap<_, u32, TunnelEgress> = self.map_mut(name::EGRESS)?;
        egresses.insert(device.dataplane_ifindex, egress, 0)?;
        egresses.insert(device.user_ifindex, egress, 0)?;
        match key {
            AnyKey::Ipv4(key) => {
                let mut tunnels: HashMap<_, TunnelKey, TunnelIngress> =
                    self.map_mut(name::TUNNELS)?;
                tunnels.insert(key, ingress, 0)?;
            }
            AnyKey::Ipv6(key) => {
                let mut tunnels: HashMap<_, TunnelKey6, TunnelIngress> =
                    self.map_mut(name::TUNNELS6)?;
                tunnels.insert(key, ingress, 0)?;
            }
        }
        Ok(())
    }

    /// Makes the programs verify and answer a session's heartbeats. Until the agent writes the
    /// session's [`LocalState`] it stays closed.
    pub fn set_session(
        &mut self,
        index: u32,
        key: SessionKey,
        config: SessionConfig,
    ) -> Result<()> {
        let mut configs: Array<_, SessionConfig> = self.map_mut(name::SESSION_CONFIG)?;
        configs.set(index, config, 0)?;
        let mut indices: HashMap<_, SessionKey, u32> = self.map_mut(name::SESSION_INDEX)?;
        indices.insert(key, index, 0)?;
        Ok(())
    }

    /// What the programs know of the sessions, to be read by who sends probes.
    pub fn session_configs(&self) -> Result<MappedArray<SessionConfig>> {
        MappedArray::read_only(self.array(name::SESSION_CONFIG)?, MAX_SESSIONS)
    }

    /// The same, for the one who changes their keys.
    pub fn session_keys(&self) -> Result<MappedArray<SessionConfig>> {
        MappedArray::read_write(self.array(name::SESSION_CONFIG)?, MAX_SESSIONS)
    }

    /// How the round trips of each session are spread.
    pub fn round_trips(&self) -> Result<MappedArray<RoundTrips>> {
        MappedArray::read_only(self.array(name::ROUND_TRIPS)?, MAX_SESSIONS)
    }

    /// What the kernel heard, to be read without a system call.
    pub fn sessions(&self) -> Result<MappedArray<SessionState>> {
        MappedArray::read_only(self.array(name::SESSIONS)?, MAX_SESSIONS)
    }

    /// What the kernel shall say of us, to be written without a system call.
    pub fn local(&self) -> Result<MappedArray<LocalState>> {
        MappedArray::read_write(self.array(name::LOCAL)?, MAX_SESSIONS)
    }

    /// A reader of the tunnels' counters that lives on its own.
    pub fn counters(&self) -> Result<Counters> {
        let open = |name| -> Result<Map> {
            let data = MapData::from_pin(self.pins.map(name))
                .with_context(|| format!("cannot open map {name}"))?;
            Ok(Map::PerCpuArray(data))
        };
        Ok(Counters {
            tunnels: open(name::COUNTERS)?.try_into()?,
            fences: open(name::FENCE_COUNTERS)?.try_into()?,
            reasons: open(name::REASONS)?.try_into()?,
        })
    }

    /// When we last granted, in each session.
    pub fn granted(&self) -> Result<MappedArray<Granted>> {
        MappedArray::read_write(self.array(name::GRANTED)?, MAX_SESSIONS)
    }

    /// By what each group's protected packets pass, to be written without a system call.
    pub fn fences(&self) -> Result<MappedArray<Fence>> {
        MappedArray::read_write(self.array(name::FENCES)?, MAX_GROUPS)
    }

    /// What the kernel knows of the groups' leases.
    pub fn leases(&self) -> Result<MappedArray<Lease>> {
        MappedArray::read_only(self.array(name::LEASES)?, MAX_GROUPS)
    }

    /// Ends what an agent that died, or `load`, left below `bpffs`, but for fences.
    pub fn remove_left_over(bpffs: &Path) -> Result<()> {
        let pins = Pins::below(bpffs);
        let _lock = pins.lock()?;
        end(&pins)
    }

    /// As [`Dataplane::remove_left_over`], with the fences: what they protected passes again.
    pub fn remove_all(bpffs: &Path) -> Result<()> {
        let pins = Pins::below(bpffs);
        let _lock = pins.lock()?;
        fences::end_all(&pins)?;
        end(&pins)
    }

    /// Detaches the programs and removes the maps. Fences stay, and with nobody to open them they
    /// are closed.
    pub fn remove(self) -> Result<()> {
        end(&self.pins)
    }

    fn array(&self, name: &str) -> Result<&MapData> {
        match self.programs.map(name) {
            Some(Map::Array(data)) => Ok(data),
            _ => bail!("the object has no array {name}"),
        }
    }

    fn map_mut<'a, T>(&'a mut self, name: &str) -> Result<T>
    where
        T: TryFrom<&'a mut Map, Error = MapError>,
    {
        let map = self
            .programs
            .map_mut(name)
            .ok_or_else(|| anyhow!("the object has no map {name}"))?;
        T::try_from(map).with_context(|| format!("map {name}"))
    }
}

/// What a removal came to, if it is as well that there was nothing to remove.
fn gone(removal: Result<(), MapError>) -> Result<(), MapError> {
    match removal {
        Err(MapError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Settings with marks that nobody else can know.
fn drawn_settings() -> Result<Settings> {
    let drawn = || getrandom::u32().context("cannot draw a random number");
    let [a, b, c, _] = drawn()?.to_ne_bytes();
    Ok(Settings {
        // Locally administered and unicast (IEEE 802, clause 8.2.2); never all zeros.
        marker: [0x02, a, b, c],
        encapsulated_mark: drawn()? | 1,
    })
}

/// Detaches every program and removes every pin.
fn end(pins: &Pins) -> Result<()> {
    attach::detach_filters(&[(program::UNDERLAY_HANDOVER, TcAttachType::Ingress)])?;
    pins.remove()
}

/// What the pinned map of an agent that died says, if it has our layout.
fn newest_epoch(pins: &Pins) -> Epoch {
    let Ok(data) = MapData::from_pin(pins.map(name::LOCAL)) else {
        return Epoch::default();
    };
    let Ok(local) = Array::<_, LocalState>::try_from(Map::Array(data)) else {
        return Epoch::default();
    };
    let epochs = local.iter().flatten().map(|state| state.claim().epoch);
    epochs.max().unwrap_or_default()
}

/// Reads the tunnels' counters.
pub struct Counters {
    tunnels: PerCpuArray<MapData, TunnelCounters>,
    fences: PerCpuArray<MapData, FenceCounters>,
    reasons: PerCpuArray<MapData, u64>,
}

impl Counters {
    /// Packets counted for a reason that belongs to no tunnel.
    pub fn reason(&self, reason: Reason) -> Result<u64> {
        Ok(self.reasons.get(&(reason as u32), 0)?.iter().sum())
    }

    /// What the fence of group `index` dropped, summed over the CPUs.
    pub fn of_fence(&self, index: u32) -> Result<FenceCounters> {
        let mut sum = FenceCounters::default();
        for counters in self.fences.get(&index, 0)?.iter() {
            sum += counters;
        }
        Ok(sum)
    }

    /// The counters of tunnel `index`, summed over the CPUs.
    pub fn of(&self, index: u32) -> Result<TunnelCounters> {
        let mut sum = TunnelCounters::default();
        for counters in self.tunnels.get(&index, 0)?.iter() {
            sum += counters;
        }
        Ok(sum)
    }
}
