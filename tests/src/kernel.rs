//! The underlay program with two tunnels and a session, for runs of single frames. It serves tests
//! and the benchmark, for which a failing kernel is the end: they panic.

use std::{env, time::Duration};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, TestRunOptions,
    maps::{Array, HashMap, Map, PerCpuArray, PerCpuValues},
    programs::{Program, SchedClassifier, TestRun as _, Xdp},
    util::nr_cpus,
};
use bytemuck::Zeroable as _;
use router_agent::dataplane::{MappedArray, OBJECT, program};
use router_common::{
    bench::{self, Arrivals, Bench, BenchHeartbeat},
    gre::{Addresses6, AnyKey, Format, Label, TunnelKey, TunnelKey6},
    identity::Flags,
    kdf::session_number,
    keys::Keys,
    map::{
        EpochSlot, Fence, FenceCounters, Granted, Interface, Lease, LocalState, MAX_EPOCHS, Reason,
        Sequence, SessionConfig, SessionKey, SessionState, Settings, Traffic, TunnelCounters,
        TunnelDevice, TunnelEgress, TunnelEvents, TunnelIngress, name,
    },
    slot::{SLOTS, Slot, TunnelSlot, TunnelSlot6},
    time::BootTime,
};

use crate::{
    clock,
    frames::{
        GROUP, INNER_LOCAL, KEY, KEYED_TUNNEL, LOCAL, LOCAL6, OUR_GENERATION, PLAIN_TUNNEL, PORT,
        REMOTE, REMOTE6, SESSION_SLOT, SETTINGS, TUNNEL, USER_IFINDEX, USER_MAC, VLAN, keys,
        our_claim,
    },
};

/// Verdicts of TC programs: `TC_ACT_*` of linux/pkt_cls.h.
pub mod tc {
    /// Go on: -1.
    pub const UNSPEC: u32 = u32::MAX;
    pub const SHOT: u32 = 2;
    pub const REDIRECT: u32 = 7;
}

/// Index of the loopback device in every network namespace.
pub const LOOPBACK: u32 = 1;

/// Where packets of the tunnel enter that [`Kernel::with_tunnel_of`] makes.
pub const DEVICE: TunnelDevice = TunnelDevice {
    user_ifindex: LOOPBACK,
    dataplane_ifindex: LOOPBACK,
    mtu: 1476,
    mss_ipv4: 0,
    mss_ipv6: 0,
    vlan: 0,
    padding: [0; 6],
};

/// A tunnel of `format` with the heartbeat listener of these frames.
pub fn ingress(index: u32, format: Format) -> TunnelIngress {
    TunnelIngress {
        index,
        format,
        flags: 0,
        user_ifindex: USER_IFINDEX,
        user_mac: USER_MAC,
        vlan: 0,
        heartbeat_address: INNER_LOCAL,
        heartbeat_port: PORT,
        epoch_slot: 0,
    }
}

/// What tells the packets of the tunnel that [`Kernel::with_tunnel_of`] makes.
pub fn key(format: Format) -> AnyKey {
    let key = format.has(Format::KEY).then_some(KEY);
    between_the_ends(format, Label::new(key, format.has(Format::UDP)))
}

/// The other direction of the tunnel that [`Kernel::with_tunnel_of`] makes.
pub fn egress(format: Format) -> TunnelEgress {
    let mut addresses = [LOCAL6, REMOTE6];
    if !format.has(Format::IPV6) {
        addresses = [LOCAL, REMOTE].map(|address| {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address);
            octets
        });
    }
    let [local, remote] = addresses;
    TunnelEgress {
        index: TUNNEL,
        underlay_ifindex: LOOPBACK,
        format,
        flags: 0,
        local,
        remote,
        key: KEY.to_be_bytes(),
        flow_label: 0,
        ttl: 255,
        tos: 0,
        mss_ipv4: 0,
        mss_ipv6: 0,
        epoch_slot: 0,
    }
}

/// What a tunnel between the ends of these frames is found by.
pub fn between_the_ends(format: Format, label: Label) -> AnyKey {
    from_behind(format, label, 0)
}

/// As [`between_the_ends`], to the far end that comes so many addresses behind.
pub fn from_behind(format: Format, label: Label, number: u32) -> AnyKey {
    if format.has(Format::IPV6) {
        let local = LOCAL6;
        let remote = (u128::from_be_bytes(REMOTE6) + u128::from(number)).to_be_bytes();
        let addresses = Addresses6 { remote, local };
        AnyKey::Ipv6(TunnelKey6 { addresses, label })
    } else {
        AnyKey::Ipv4(TunnelKey {
            local: LOCAL,
            remote: (u32::from_be_bytes(REMOTE) + number).to_be_bytes(),
            label,
        })
    }
}

/// By which interfaces a frame passes a TC program: the one where that is, and the one by which the frame
/// came to this host. Zero: the loopback device, and none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passage {
    pub ifindex: u32,
    pub ingress_ifindex: u32,
}

/// The loaded programs.
#[derive(Debug)]
pub struct Kernel {
    pub programs: Ebpf,
}

impl Kernel {
    /// As [`Kernel::with_tunnels_and_session`], with a third tunnel, number [`TUNNEL`], of `format`
    /// and in VLAN 5, whose heartbeats have a session of their own. Its device is the loopback
    /// device, which a test run takes for the one that a packet comes by.
    pub fn with_tunnel_of(format: Format) -> Self {
        let mut kernel = Self::with_tunnels_and_session();
        let key = key(format);
        let ingress = TunnelIngress {
            vlan: VLAN,
            ..ingress(TUNNEL, format)
        };
        kernel.add_tunnel(key, &ingress);
        kernel.set_egress(&egress(format));
        kernel.set_device(TUNNEL, &DEVICE);
        kernel.add_session(TUNNEL);
        kernel
    }

    /// Makes the programs send by `egress` what the loopback device brings.
    pub fn set_egress(&mut self, egress: &TunnelEgress) {
        self.set_egress_of(LOOPBACK, egress);
    }

    /// Makes the programs send by `egress` what goes to the device of index `ifindex`.
    pub fn set_egress_of(&mut self, ifindex: u32, egress: &TunnelEgress) {
        let map = self.programs.map_mut(name::EGRESS).unwrap();
        Array::<_, TunnelEgress>::try_from(map)
            .unwrap()
            .set(egress.index, egress, 0)
            .unwrap();
        let map = self.programs.map_mut(name::ENDS).unwrap();
        HashMap::<_, u32, u32>::try_from(map)
            .unwrap()
            .insert(ifindex, egress.index, 0)
            .unwrap();
    }

    pub fn set_interface(&mut self, ifindex: u32, interface: Interface) {
        let map = self.programs.map_mut(name::INTERFACES).unwrap();
        HashMap::<_, u32, Interface>::try_from(map)
            .unwrap()
            .insert(ifindex, interface, 0)
            .unwrap();
    }

    pub fn set_sequence(&mut self, index: u32, sequence: Sequence) {
        let map = self.programs.map_mut(name::SEQUENCES).unwrap();
        Array::<_, Sequence>::try_from(map)
            .unwrap()
            .set(index, sequence, 0)
            .unwrap();
    }

    pub fn epochs(&self) -> MappedArray<EpochSlot> {
        let Some(Map::Array(data)) = self.programs.map(name::EPOCHS) else {
            panic!("the object has no array of epochs");
        };
        MappedArray::read_write(data, MAX_EPOCHS).unwrap()
    }

    pub fn set_device(&mut self, index: u32, device: &TunnelDevice) {
        let map = self.programs.map_mut(name::DEVICES).unwrap();
        Array::<_, TunnelDevice>::try_from(map)
            .unwrap()
            .set(index, device, 0)
            .unwrap();
    }

    /// The programs with two tunnels between the same addresses, one of them keyed, and a session
    /// in the plain one.
    pub fn with_tunnels_and_session() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests load BPF programs, which needs root"
        );
        Self::prepared(Ebpf::load(OBJECT).unwrap())
    }

    /// As [`Kernel::with_tunnels_and_session`], with the programs that a benchmark measures, from
    /// the object that `cargo xtask bench` built.
    pub fn for_benchmark() -> Result<Self> {
        let path = env::var_os("ROUTER_BENCH_OBJECT")
            .context("ROUTER_BENCH_OBJECT is not set; `cargo xtask bench` sets it")?;
        let programs = Ebpf::load_file(&path)
            .with_context(|| format!("cannot load {}; this needs root", path.display()))?;
        let mut kernel = Self::prepared(programs);
        for (_, program) in kernel.programs.programs_mut() {
            match program {
                Program::Xdp(program) if program.fd().is_err() => program.load()?,
                Program::SchedClassifier(program) if program.fd().is_err() => program.load()?,
                _ => {}
            }
        }
        Ok(kernel)
    }

    /// Tells the programs that are measured how to give a frame back its shape.
    pub fn set_bench(&mut self, bench: &Bench) {
        let map = self.programs.map_mut(bench::MAP).unwrap();
        Array::<_, Bench>::try_from(map)
            .unwrap()
            .set(0, bench, 0)
            .unwrap();
    }

    /// Begins to count IPv4 packets to `destination` where the counting program is attached.
    pub fn count_to(&mut self, destination: [u8; 4]) -> Result<()> {
        let none = Arrivals {
            packets: 0,
            destination,
            padding: [0; 4],
        };
        let map = self.programs.map_mut(bench::ARRIVALS).unwrap();
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        PerCpuArray::<_, Arrivals>::try_from(map).unwrap().set(
            0,
            PerCpuValues::try_from(vec![none; cpus])?,
            0,
        )?;
        Ok(())
    }

    /// Packets counted.
    pub fn arrived(&self) -> u64 {
        let map = self.programs.map(bench::ARRIVALS).unwrap();
        let arrivals = PerCpuArray::<_, Arrivals>::try_from(map).unwrap();
        let arrivals = arrivals.get(&0, 0).unwrap();
        arrivals.iter().map(|arrivals| arrivals.packets).sum()
    }

    /// Tells the programs that are measured which heartbeat arrives.
    pub fn set_bench_heartbeat(&mut self, bench: &BenchHeartbeat) {
        let map = self.programs.map_mut(bench::HEARTBEAT_MAP).unwrap();
        Array::<_, BenchHeartbeat>::try_from(map)
            .unwrap()
            .set(0, bench, 0)
            .unwrap();
    }

    fn prepared(programs: Ebpf) -> Self {
        let mut kernel = Self { programs };
        let map = kernel.programs.map_mut(name::SETTINGS).unwrap();
        Array::<_, Settings>::try_from(map)
            .unwrap()
            .set(0, SETTINGS, 0)
            .unwrap();
        for (index, key) in [(PLAIN_TUNNEL, None), (KEYED_TUNNEL, Some(KEY))] {
            let key = TunnelKey {
                local: LOCAL,
                remote: REMOTE,
                label: Label::new(key, false),
            };
            kernel.add_tunnel(AnyKey::Ipv4(key), &ingress(index, Format::default()));
        }
        let config = SessionConfig {
            keys: Keys::of(keys(b"cloudpack")),
            session: session_number(GROUP),
            local_node: 1,
            peer_node: 2,
            local_address: INNER_LOCAL,
            group: 0,
            padding: [0; 4],
        };
        let local = LocalState::new(our_claim(), OUR_GENERATION, Flags::ELIGIBLE, clock::now());
        kernel.add_session(PLAIN_TUNNEL);
        kernel.set_session(&config);
        kernel.set_local(&local);
        for program in [program::UNDERLAY, program::PASS] {
            kernel.xdp(program).load().unwrap();
        }
        for program in [
            program::UNDERLAY_HANDOVER,
            program::TUNNEL_EGRESS,
            program::FENCE_IN,
            program::FENCE_OUT,
        ] {
            let program = kernel.programs.program_mut(program).unwrap();
            let program: &mut SchedClassifier = program.try_into().unwrap();
            program.load().unwrap();
        }
        kernel
    }

    /// What the program is to know of the session.
    pub fn set_session(&mut self, config: &SessionConfig) {
        let map = self.programs.map_mut(name::SESSION_CONFIG).unwrap();
        Array::<_, SessionConfig>::try_from(map)
            .unwrap()
            .set(SESSION_SLOT, config, 0)
            .unwrap();
    }

    /// The session's keys are these from now on.
    pub fn set_keys(&mut self, keys: Keys) {
        let map = self.programs.map(name::SESSION_CONFIG).unwrap();
        let config = Array::<_, SessionConfig>::try_from(map)
            .unwrap()
            .get(&SESSION_SLOT, 0)
            .unwrap();
        self.set_session(&SessionConfig { keys, ..config });
    }

    /// Takes heartbeats of tunnel `index` for those of the session.
    fn add_session(&mut self, index: u32) {
        let key = SessionKey {
            tunnel_index: index,
            session: session_number(GROUP),
        };
        let map = self.programs.map_mut(name::SESSION_INDEX).unwrap();
        HashMap::<_, SessionKey, u32>::try_from(map)
            .unwrap()
            .insert(key, SESSION_SLOT, 0)
            .unwrap();
    }

    /// Makes the programs know a tunnel.
    pub fn add_tunnel(&mut self, key: AnyKey, ingress: &TunnelIngress) {
        match key {
            AnyKey::Ipv4(key) => {
                let map = self.programs.map_mut(name::TUNNELS).unwrap();
                HashMap::<_, TunnelKey, TunnelIngress>::try_from(map)
                    .unwrap()
                    .insert(key, ingress, 0)
                    .unwrap();
                self.take_slot::<TunnelSlot>(name::SLOTS, key, ingress);
            }
            AnyKey::Ipv6(key) => {
                let map = self.programs.map_mut(name::TUNNELS6).unwrap();
                HashMap::<_, TunnelKey6, TunnelIngress>::try_from(map)
                    .unwrap()
                    .insert(key, ingress, 0)
                    .unwrap();
                self.take_slot::<TunnelSlot6>(name::SLOTS6, key, ingress);
            }
        }
    }

    /// Puts `slot` where packets of `key` look first.
    pub fn set_slot<S: Slot + aya::Pod>(&mut self, map: &str, key: &S::Key, slot: S) {
        let map = self.programs.map_mut(map).unwrap();
        let mut slots = Array::<_, S>::try_from(map).unwrap();
        slots.set(S::number(key), slot, 0).unwrap();
    }

    /// Makes every packet be looked for in the hash, as that of a tunnel which found its slot taken.
    pub fn empty_slots(&mut self) {
        for number in 0..SLOTS {
            let map = self.programs.map_mut(name::SLOTS).unwrap();
            let mut slots = Array::<_, TunnelSlot>::try_from(map).unwrap();
            slots.set(number, TunnelSlot::zeroed(), 0).unwrap();
            let map = self.programs.map_mut(name::SLOTS6).unwrap();
            let mut slots = Array::<_, TunnelSlot6>::try_from(map).unwrap();
            slots.set(number, TunnelSlot6::zeroed(), 0).unwrap();
        }
    }

    /// Puts a tunnel into its slot, unless another has it.
    fn take_slot<S: Slot + aya::Pod>(&mut self, map: &str, key: S::Key, ingress: &TunnelIngress) {
        let map = self.programs.map_mut(map).unwrap();
        let mut slots = Array::<_, S>::try_from(map).unwrap();
        let number = S::number(&key);
        if slots.get(&number, 0).unwrap().is_for(&key) {
            slots.set(number, S::holding(key, *ingress), 0).unwrap();
        }
    }

    /// The XDP program called `name`.
    pub fn xdp(&mut self, name: &str) -> &mut Xdp {
        let program = self.programs.program_mut(name).unwrap();
        program.try_into().unwrap()
    }

    /// Verdict and frame that come out of the underlay program; metadata lies before the frame.
    pub fn run(&mut self, input: &[u8]) -> (u32, Vec<u8>) {
        let (verdict, output, _) = self.run_timed(program::UNDERLAY, input, 1);
        (verdict, output)
    }

    /// As [`Kernel::run`], of any XDP program, `repeat` times over the same frame, each time as the
    /// last left it; and the mean time of one run.
    pub fn run_timed(
        &mut self,
        program: &str,
        input: &[u8],
        repeat: u32,
    ) -> (u32, Vec<u8>, Duration) {
        let mut output = vec![0; 2048];
        let result = self
            .xdp(program)
            .test_run(TestRunOptions {
                data_in: Some(input),
                data_out: Some(&mut output),
                repeat,
                ..TestRunOptions::default()
            })
            .unwrap();
        output.truncate(usize::try_from(result.data_size_out).unwrap());
        (result.return_value, output, result.duration)
    }

    /// Verdict and frame of TC program `name` for a frame that comes by the loopback device.
    pub fn run_tc(&mut self, name: &str, input: &[u8]) -> (u32, Vec<u8>) {
        let (verdict, output, _) = self.run_tc_timed(name, input);
        (verdict, output)
    }

    /// As [`Kernel::run_tc`], and the time it took.
    pub fn run_tc_timed(&mut self, name: &str, input: &[u8]) -> (u32, Vec<u8>, Duration) {
        self.run_tc_at(name, input, Passage::default())
    }

    /// As [`Kernel::run_tc_timed`], for a frame that comes by interfaces of the calling thread's network
    /// namespace.
    pub fn run_tc_at(
        &mut self,
        name: &str,
        input: &[u8],
        passage: Passage,
    ) -> (u32, Vec<u8>, Duration) {
        let mut output = vec![0; 2048];
        // `struct __sk_buff` of linux/bpf.h, up to `ifindex`.
        let mut context = [0_u32; 11];
        context[9] = passage.ingress_ifindex;
        context[10] = passage.ifindex;
        let program = self.programs.program_mut(name).unwrap();
        let program: &mut SchedClassifier = program.try_into().unwrap();
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(input),
                data_out: Some(&mut output),
                ctx_in: Some(bytemuck::cast_slice(&context)),
                ..TestRunOptions::default()
            })
            .unwrap();
        output.truncate(usize::try_from(result.data_size_out).unwrap());
        (result.return_value, output, result.duration)
    }

    /// Packets counted for a reason.
    pub fn reason(&self, reason: Reason) -> u64 {
        let map = self.programs.map(name::REASONS).unwrap();
        let reasons = PerCpuArray::<_, u64>::try_from(map).unwrap();
        reasons.get(&(reason as u32), 0).unwrap().iter().sum()
    }

    /// A counter of tunnel `index`, summed over the CPUs.
    pub fn counter(&self, index: u32, of: impl Fn(&TunnelCounters) -> u64) -> u64 {
        let mut sum = TunnelCounters::default();
        let map = self.programs.map(name::TRAFFIC).unwrap();
        let traffic = PerCpuArray::<_, Traffic>::try_from(map).unwrap();
        for traffic in traffic.get(&index, 0).unwrap().iter() {
            sum += traffic;
        }
        let map = self.programs.map(name::COUNTERS).unwrap();
        let events = PerCpuArray::<_, TunnelEvents>::try_from(map).unwrap();
        for events in events.get(&index, 0).unwrap().iter() {
            sum += events;
        }
        of(&sum)
    }

    /// Says `local` of us in the session.
    pub fn set_local(&mut self, local: &LocalState) {
        let map = self.programs.map_mut(name::LOCAL).unwrap();
        Array::<_, LocalState>::try_from(map)
            .unwrap()
            .set(SESSION_SLOT, local, 0)
            .unwrap();
    }

    pub fn set_fence(&mut self, group: u32, fence: &Fence) {
        let map = self.programs.map_mut(name::FENCES).unwrap();
        Array::<_, Fence>::try_from(map)
            .unwrap()
            .set(group, fence, 0)
            .unwrap();
    }

    /// Has `group` protect an interface.
    pub fn protect(&mut self, ifindex: u32, group: u32) {
        let map = self.programs.map_mut(name::PROTECTED).unwrap();
        HashMap::<_, u32, u32>::try_from(map)
            .unwrap()
            .insert(ifindex, group, 0)
            .unwrap();
    }

    /// What a group's fence dropped.
    pub fn fence_counters(&self, group: u32) -> FenceCounters {
        let map = self.programs.map(name::FENCE_COUNTERS).unwrap();
        let counters = PerCpuArray::<_, FenceCounters>::try_from(map).unwrap();
        let mut sum = FenceCounters::default();
        for counters in counters.get(&group, 0).unwrap().iter() {
            sum += counters;
        }
        sum
    }

    /// What the kernel knows of a group's lease.
    pub fn lease(&self, group: u32) -> Lease {
        let map = self.programs.map(name::LEASES).unwrap();
        let leases = Array::<_, Lease>::try_from(map).unwrap();
        leases.get(&group, 0).unwrap()
    }

    /// When the session's peer was last granted a lease.
    pub fn granted(&self) -> BootTime {
        let map = self.programs.map(name::GRANTED).unwrap();
        let granted = Array::<_, Granted>::try_from(map).unwrap();
        BootTime::from_ns(granted.get(&SESSION_SLOT, 0).unwrap().granted_ns)
    }

    /// What the kernel keeps of the session.
    pub fn session(&self) -> SessionState {
        let map = self.programs.map(name::SESSIONS).unwrap();
        let sessions = Array::<_, SessionState>::try_from(map).unwrap();
        sessions.get(&SESSION_SLOT, 0).unwrap()
    }
}
