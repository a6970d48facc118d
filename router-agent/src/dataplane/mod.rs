//! Loads the kernel programs, attaches and pins them, and speaks with them through their maps.

mod attach;
mod elements;
mod fences;
mod former;
mod log;
mod mapped;
mod pins;
mod programs;
mod query;
mod slots;

use std::{
    borrow::BorrowMut,
    collections::{BTreeMap, BTreeSet, HashSet},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use bytemuck::Zeroable as _;
use router_common::{
    gre::{AnyKey, Label},
    identity::Epoch,
    map::{
        EpochSlot, Fence, FenceCounters, Granted, Interface, Lease, LocalState, MAX_EPOCHS,
        MAX_GROUPS, MAX_SESSIONS, MAX_TUNNELS, Reason, RoundTrips, Sequence, SessionConfig,
        SessionKey, SessionState, Settings, Traffic, TunnelCounters, TunnelDevice, TunnelEgress,
        TunnelEvents, TunnelIngress, TunnelKey, TunnelKey6, ingress_flag, name,
    },
    slot::{Slot, TunnelSlot, TunnelSlot6},
};

use crate::{
    net::{EgressProgram, Link},
    tunnel::{Entries, state::Device},
};

pub use self::{
    attach::{Mode, ModeChoice, attach_pass},
    former::Former,
    log::ProgramLog,
    mapped::MappedArray,
    pins::{BPFFS_VARIABLE, DEFAULT_BPFFS, Pins},
};
use self::{former::Legacy, programs::Programs as Loaded};

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
    const fn tc(self) -> Option<attach::Hook> {
        match self {
            Self::Underlay => Some(attach::HANDOVER),
            Self::Lan => None,
        }
    }
}

/// The loaded programs. They go on working when this is dropped, for their links and maps are
/// pinned; [`Dataplane::remove`] ends them.
pub struct Dataplane {
    programs: Loaded,
    maps: BTreeMap<&'static str, Map>,
    pins: Pins,
    adopts: bool,
    newest_epoch: Epoch,
    /// Whether a running program may read an element of a hash map that was replaced or removed.
    released: bool,
    /// No second agent may take these pins for left-overs.
    _lock: OwnedFd,
}

impl Dataplane {
    /// Opens the maps that an agent before this one left, if they are fit for that. Else what it left is
    /// removed, and maps are made anew. Programs are loaded when they are first needed.
    pub fn load(former: Former) -> Result<Self> {
        let Former {
            pins,
            lock,
            legacy,
            newest_epoch,
        } = former;
        let adopts = legacy == Legacy::Maps;
        if adopts {
            pins.clear_others()?;
        } else {
            former::close_fences(&pins)?;
            pins.clear()?;
        }
        pins.create()?;
        let mut programs = Loaded::new(pins.clone());
        let outcome = (|| {
            if !adopts || !pins.has_log() {
                programs.read_object()?;
            }
            let mut dataplane = Self {
                programs,
                maps: open_maps(&pins)?,
                pins: pins.clone(),
                adopts,
                newest_epoch,
                released: false,
                _lock: lock,
            };
            dataplane.prepare()?;
            Ok(dataplane)
        })();
        if outcome.is_err() && !adopts {
            // The first error is the one to tell.
            let _ = pins.clear();
        }
        outcome
    }

    /// The mark of packets under way stays.
    fn prepare(&mut self) -> Result<()> {
        let mut settings: Array<_, Settings> = self.map_mut(name::SETTINGS)?;
        if settings.get(&0, 0)?.marker == Settings::default().marker {
            settings.set(0, drawn_settings()?, 0)?;
        }
        Ok(())
    }

    /// Whether the maps are those of an agent before this one.
    pub fn adopts(&self) -> bool {
        self.adopts
    }

    /// The newest epoch that an agent before this one knew; zero if it left none.
    pub fn newest_epoch(&self) -> Epoch {
        self.newest_epoch
    }

    /// Attaches `programs` to interface `name`; the mode that it got. Where the mode is not chosen, the
    /// programs stay in generic mode if they are, as long as something is known `against_native`.
    pub fn attach(
        &mut self,
        programs: Programs,
        name: &str,
        choice: ModeChoice,
        against_native: Option<&str>,
    ) -> Result<Mode> {
        if let Some(tc) = programs.tc() {
            let path = self.pins.tc_link(tc.program, attach::index_of(name)?);
            attach::tc(&mut self.programs, tc, name, &path, None)?;
        }
        let xdp = programs.xdp();
        attach::xdp(
            &mut self.programs,
            xdp,
            name,
            choice,
            against_native,
            &self.pins,
        )
    }

    /// Takes `programs` off the interface of index `ifindex` called `name`, of which either may
    /// have changed or gone.
    pub fn detach(&mut self, programs: Programs, ifindex: u32, name: &str) -> Result<()> {
        // XDP first: nobody else would know what it marks.
        attach::end_xdp(programs.xdp(), ifindex, &self.pins)?;
        match programs.tc() {
            Some(hook) => attach::end_tc(hook, ifindex, name, &self.pins),
            None => Ok(()),
        }
    }

    /// Whether `programs` are still on `link`.
    pub fn is_on(&self, programs: Programs, link: &Link) -> Result<bool> {
        let id = self.programs.xdp_id(programs.xdp())?;
        if !link.xdp_programs.contains(&id) {
            return Ok(false);
        }
        programs.tc().map_or(Ok(true), |tc| {
            attach::has_tc(&self.programs, tc, &link.name)
        })
    }

    /// Ends all links but those of `interfaces`: indices, names, and what is on them.
    pub fn end_other_links(&self, interfaces: &[(u32, String, Programs)]) -> Result<()> {
        attach::end_others(interfaces, &self.pins)
    }

    /// What the programs know of the tunnels' devices, by interface index.
    pub fn egresses(&mut self) -> Result<BTreeMap<u32, TunnelEgress>> {
        let ends: HashMap<_, u32, u32> = self.map_mut(name::ENDS)?;
        let ends: Vec<(u32, u32)> = ends.iter().collect::<Result<_, _>>()?;
        let egresses: Array<_, TunnelEgress> = self.map_mut(name::EGRESS)?;
        ends.into_iter()
            .map(|(ifindex, index)| Ok((ifindex, egresses.get(&index, 0)?)))
            .collect()
    }

    /// Where tunnels that the programs know have received epochs, by the tunnels' indices.
    pub fn epoch_slots(&mut self) -> Result<BTreeMap<u32, u16>> {
        let over_ipv4: HashMap<_, TunnelKey, TunnelIngress> = self.map_mut(name::TUNNELS)?;
        let mut ingresses = values(&over_ipv4)?;
        let over_ipv6: HashMap<_, TunnelKey6, TunnelIngress> = self.map_mut(name::TUNNELS6)?;
        ingresses.extend(values(&over_ipv6)?);
        let by_epochs = ingresses
            .into_iter()
            .filter(|ingress| ingress.flags & ingress_flag::EPOCH != 0);
        Ok(by_epochs
            .map(|ingress| (ingress.index, ingress.epoch_slot))
            .collect())
    }

    /// Makes room for tunnels with the indices `new`, beside those that stay, which have the indices
    /// `kept`: whatever else there is forgotten, and nothing has been counted of them.
    pub fn make_room(&mut self, kept: &BTreeSet<u32>, new: &BTreeSet<u32>) -> Result<()> {
        if !self.adopts {
            return Ok(());
        }
        let is_gone = |index: u32| !kept.contains(&index);
        self.forget::<TunnelKey, TunnelIngress>(name::TUNNELS, |_, ingress| {
            is_gone(ingress.index)
        })?;
        self.forget::<TunnelKey6, TunnelIngress>(name::TUNNELS6, |_, ingress| {
            is_gone(ingress.index)
        })?;
        self.forget::<u32, u32>(name::ENDS, |_, index| is_gone(*index))?;
        let cpus = nr_cpus().map_err(|(path, error)| anyhow!("cannot read {path}: {error}"))?;
        for &index in new {
            let mut devices: Array<_, TunnelDevice> = self.map_mut(name::DEVICES)?;
            devices.set(index, TunnelDevice::default(), 0)?;
            let mut sequences: Array<_, Sequence> = self.map_mut(name::SEQUENCES)?;
            sequences.set(index, Sequence::default(), 0)?;
            let mut traffic: PerCpuArray<_, Traffic> = self.map_mut(name::TRAFFIC)?;
            let nothing = PerCpuValues::try_from(vec![Traffic::default(); cpus])?;
            traffic.set(index, nothing, 0)?;
            let mut events: PerCpuArray<_, TunnelEvents> = self.map_mut(name::COUNTERS)?;
            let nothing = PerCpuValues::try_from(vec![TunnelEvents::default(); cpus])?;
            events.set(index, nothing, 0)?;
        }
        slots::clear::<TunnelSlot>(self.array(name::SLOTS)?, |_, ingress| {
            is_gone(ingress.index)
        })?;
        slots::clear::<TunnelSlot6>(self.array(name::SLOTS6)?, |_, ingress| {
            is_gone(ingress.index)
        })
    }

    /// Makes the programs forget every tunnel but those of `known`, and every interface but
    /// `interfaces`.
    pub fn forget_others(&mut self, known: &[Entries], interfaces: &BTreeSet<u32>) -> Result<()> {
        let keys: HashSet<AnyKey> = known.iter().map(|entries| entries.key).collect();
        let devices: HashSet<u32> = known
            .iter()
            .flat_map(|entries| {
                [
                    entries.device.user_ifindex,
                    entries.device.dataplane_ifindex,
                ]
            })
            .collect();
        self.forget::<TunnelKey, TunnelIngress>(name::TUNNELS, |key, _| {
            !keys.contains(&AnyKey::Ipv4(*key))
        })?;
        self.forget::<TunnelKey6, TunnelIngress>(name::TUNNELS6, |key, _| {
            !keys.contains(&AnyKey::Ipv6(*key))
        })?;
        slots::clear::<TunnelSlot>(self.array(name::SLOTS)?, |key, _| {
            !keys.contains(&AnyKey::Ipv4(*key))
        })?;
        slots::clear::<TunnelSlot6>(self.array(name::SLOTS6)?, |key, _| {
            !keys.contains(&AnyKey::Ipv6(*key))
        })?;
        self.forget::<u32, u32>(name::ENDS, |ifindex, _| !devices.contains(ifindex))?;
        self.forget::<u32, Interface>(name::INTERFACES, |index, _| !interfaces.contains(index))
    }

    /// Forgets a tunnel's device that is gone.
    pub fn forget_device(&mut self, device: &Device) -> Result<()> {
        for ifindex in [device.dataplane_ifindex, device.user_ifindex] {
            self.remove_element::<u32, u32>(name::ENDS, &ifindex)?;
        }
        Ok(())
    }

    /// Tells the programs what part interface `index` has in forwarding without the stack.
    pub fn set_interface(&mut self, index: u32, interface: Interface) -> Result<()> {
        self.set_element(name::INTERFACES, index, interface)
    }

    /// Makes the programs forget an interface that takes no part any more.
    pub fn forget_interface(&mut self, index: u32) -> Result<()> {
        self.remove_element::<u32, Interface>(name::INTERFACES, &index)
    }

    /// The program for the tunnels' dataplane ends.
    pub fn egress_program(&mut self) -> Result<EgressProgram> {
        let name = program::TUNNEL_EGRESS;
        let fd = self.programs.tc(name)?.fd()?.as_fd().try_clone_to_owned()?;
        let id = self.programs.tc_id(name)?;
        Ok(EgressProgram { name, id, fd })
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
        self.set_egress(&egress, &device)?;
        match key {
            AnyKey::Ipv4(key) => self.set_ingress::<TunnelSlot>(
                (name::TUNNELS, name::SLOTS),
                key,
                key.label,
                ingress,
            ),
            AnyKey::Ipv6(key) => self.set_ingress::<TunnelSlot6>(
                (name::TUNNELS6, name::SLOTS6),
                key,
                key.label,
                ingress,
            ),
        }
    }

    /// Makes the programs send by `egress` what comes to either end of `device`.
    fn set_egress(&mut self, egress: &TunnelEgress, device: &TunnelDevice) -> Result<()> {
        let index = egress.index;
        let ends = [device.dataplane_ifindex, device.user_ifindex];
        let elements =
            MappedArray::<TunnelEgress>::around(self.array(name::EGRESS)?, index, MAX_TUNNELS)?;
        if !elements.read(index).has_headers_of(egress) {
            // No packet is to get parts of both.
            for ifindex in ends {
                self.remove_element::<u32, u32>(name::ENDS, &ifindex)?;
            }
            self.await_released()?;
        }
        elements.write(index, egress);
        for ifindex in ends {
            self.set_element(name::ENDS, ifindex, index)?;
        }
        Ok(())
    }

    /// Makes the programs take packets of `key` for those of the tunnel: by the hash map and by the
    /// table in front of it.
    fn set_ingress<S>(
        &mut self,
        (hash, slots): (&str, &str),
        key: S::Key,
        label: Label,
        ingress: TunnelIngress,
    ) -> Result<()>
    where
        S: Slot,
        S::Key: aya::Pod,
    {
        // The tunnel that takes any epoch is looked for in the hash alone.
        let is_read = label.is_epoch() || !slots::has::<S>(self.array(slots)?, &key)?;
        let released = self.write_element(hash, key, ingress)?;
        self.released |= released && is_read;
        slots::set::<S>(self.array(slots)?, key, ingress)
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
        // A message that is being verified should not meet half of it.
        if configs.get(&index, 0)? != config {
            configs.set(index, config, 0)?;
        }
        self.set_element(name::SESSION_INDEX, key, index)
    }

    /// The sessions that an agent before this one had, with their indices.
    pub fn former_sessions(&mut self) -> Result<Vec<(SessionKey, u32)>> {
        let indices: HashMap<_, SessionKey, u32> = self.map_mut(name::SESSION_INDEX)?;
        Ok(indices.iter().collect::<Result<_, _>>()?)
    }

    /// What the kernel knows of session `index`; zeros if there is none.
    pub fn session_config(&mut self, index: u32) -> Result<SessionConfig> {
        let configs: Array<_, SessionConfig> = self.map_mut(name::SESSION_CONFIG)?;
        Ok(configs.get(&index, 0)?)
    }

    /// Closes session `index` and forgets all that was heard in it, and its keys.
    pub fn clear_session(&mut self, index: u32) -> Result<()> {
        let mut locals: Array<_, LocalState> = self.map_mut(name::LOCAL)?;
        locals.set(index, LocalState::default(), 0)?;
        let mut configs: Array<_, SessionConfig> = self.map_mut(name::SESSION_CONFIG)?;
        configs.set(index, SessionConfig::zeroed(), 0)?;
        let mut sessions: Array<_, SessionState> = self.map_mut(name::SESSIONS)?;
        sessions.set(index, SessionState::default(), 0)?;
        let mut round_trips: Array<_, RoundTrips> = self.map_mut(name::ROUND_TRIPS)?;
        round_trips.set(index, RoundTrips::zeroed(), 0)?;
        Ok(())
    }

    /// Forgets every session but those of `known`.
    pub fn forget_other_sessions(&mut self, known: &HashSet<SessionKey>) -> Result<()> {
        for (key, index) in self.former_sessions()? {
            if !known.contains(&key) {
                self.remove_element::<SessionKey, u32>(name::SESSION_INDEX, &key)?;
                self.clear_session(index)?;
            }
        }
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
        let open = |name| open_map(&self.pins, name);
        Ok(Counters {
            traffic: open(name::TRAFFIC)?.try_into()?,
            events: open(name::COUNTERS)?.try_into()?,
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

    /// The epochs that tunnels send and have received, to be read and raised without a system call.
    pub fn epochs(&self) -> Result<MappedArray<EpochSlot>> {
        MappedArray::read_write(self.array(name::EPOCHS)?, MAX_EPOCHS)
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
        match self.maps.get(name) {
            Some(Map::Array(data)) => Ok(data),
            _ => bail!("there is no array {name}"),
        }
    }

    fn map_mut<'a, T>(&'a mut self, name: &str) -> Result<T>
    where
        T: TryFrom<&'a mut Map, Error = MapError>,
    {
        let map = self
            .maps
            .get_mut(name)
            .ok_or_else(|| anyhow!("there is no map {name}"))?;
        T::try_from(map).with_context(|| format!("map {name}"))
    }
}

/// All that are pinned.
fn open_maps(pins: &Pins) -> Result<BTreeMap<&'static str, Map>> {
    let open = |name| Ok((name, open_map(pins, name)?));
    name::ALL.into_iter().map(open).collect()
}

fn open_map(pins: &Pins, name: &str) -> Result<Map> {
    MapData::from_pin(pins.map(name))
        .and_then(Map::from_map_data)
        .with_context(|| format!("cannot open map {name}"))
}

fn values<T, K, V>(map: &HashMap<T, K, V>) -> Result<Vec<V>, MapError>
where
    T: BorrowMut<MapData>,
    K: aya::Pod,
    V: aya::Pod,
{
    map.iter().map(|element| Ok(element?.1)).collect()
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
    // The peers hear nothing from here on, and the fences' programs stay.
    former::close_fences(pins)?;
    attach::detach_filters(&[attach::HANDOVER], &HashSet::new())?;
    pins.remove()
}

/// Reads the tunnels' counters.
pub struct Counters {
    traffic: PerCpuArray<MapData, Traffic>,
    events: PerCpuArray<MapData, TunnelEvents>,
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
        for traffic in self.traffic.get(&index, 0)?.iter() {
            sum += traffic;
        }
        for events in self.events.get(&index, 0)?.iter() {
            sum += events;
        }
        Ok(sum)
    }
}
