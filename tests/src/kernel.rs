//! The underlay program with two tunnels and a session, for runs of single frames. It serves tests
//! and the benchmark, for which a failing kernel is the end: they panic.

use std::time::Duration;

use aya::{
    Ebpf, TestRunOptions,
    maps::{Array, HashMap, PerCpuArray},
    programs::{SchedClassifier, TestRun as _, Xdp},
};
use router_agent::dataplane::{OBJECT, program};
use router_common::{
    gre::{AnyKey, Format, Label, TunnelKey, TunnelKey6},
    identity::Flags,
    kdf::session_number,
    map::{
        LocalState, Reason, SessionConfig, SessionKey, SessionState, Settings, TunnelCounters,
        TunnelIngress, name,
    },
};

use crate::{
    clock,
    frames::{
        GROUP, INNER_LOCAL, KEY, KEYED_TUNNEL, LOCAL, OUR_GENERATION, PLAIN_TUNNEL, PORT, REMOTE,
        SESSION_SLOT, SETTINGS, USER_IFINDEX, USER_MAC, from_peer, our_claim, to_peer,
    },
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
        padding: [0; 2],
    }
}

/// The loaded programs.
#[derive(Debug)]
pub struct Kernel {
    pub programs: Ebpf,
}

impl Kernel {
    /// The programs with two tunnels between the same addresses, one of them keyed, and a session
    /// in the plain one.
    pub fn with_tunnels_and_session() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests load BPF programs, which needs root"
        );
        let mut kernel = Self {
            programs: Ebpf::load(OBJECT).unwrap(),
        };
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
        let session = SessionKey {
            tunnel_index: PLAIN_TUNNEL,
            session: session_number(GROUP),
        };
        let config = SessionConfig {
            rx_key: from_peer(b"cloudpack"),
            tx_key: to_peer(),
            session: session.session,
            local_node: 1,
            peer_node: 2,
            local_address: INNER_LOCAL,
        };
        let local = LocalState::new(our_claim(), OUR_GENERATION, Flags::ELIGIBLE, clock::now());
        let map = kernel.programs.map_mut(name::SESSION_INDEX).unwrap();
        HashMap::<_, SessionKey, u32>::try_from(map)
            .unwrap()
            .insert(session, SESSION_SLOT, 0)
            .unwrap();
        let map = kernel.programs.map_mut(name::SESSION_CONFIG).unwrap();
        Array::<_, SessionConfig>::try_from(map)
            .unwrap()
            .set(SESSION_SLOT, config, 0)
            .unwrap();
        let map = kernel.programs.map_mut(name::LOCAL).unwrap();
        Array::<_, LocalState>::try_from(map)
            .unwrap()
            .set(SESSION_SLOT, local, 0)
            .unwrap();
        for program in [program::UNDERLAY, program::PASS] {
            kernel.xdp(program).load().unwrap();
        }
        for program in [program::UNDERLAY_HANDOVER, program::TUNNEL_EGRESS] {
            let program = kernel.programs.program_mut(program).unwrap();
            let program: &mut SchedClassifier = program.try_into().unwrap();
            program.load().unwrap();
        }
        kernel
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
            }
            AnyKey::Ipv6(key) => {
                let map = self.programs.map_mut(name::TUNNELS6).unwrap();
                HashMap::<_, TunnelKey6, TunnelIngress>::try_from(map)
                    .unwrap()
                    .insert(key, ingress, 0)
                    .unwrap();
            }
        }
    }

    fn xdp(&mut self, name: &str) -> &mut Xdp {
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

    /// Packets counted for a reason.
    pub fn reason(&self, reason: Reason) -> u64 {
        let map = self.programs.map(name::REASONS).unwrap();
        let reasons = PerCpuArray::<_, u64>::try_from(map).unwrap();
        reasons.get(&(reason as u32), 0).unwrap().iter().sum()
    }

    /// A counter of tunnel `index`, summed over the CPUs.
    pub fn counter(&self, index: u32, of: impl Fn(&TunnelCounters) -> u64) -> u64 {
        let map = self.programs.map(name::COUNTERS).unwrap();
        let counters = PerCpuArray::<_, TunnelCounters>::try_from(map).unwrap();
        counters.get(&index, 0).unwrap().iter().map(of).sum()
    }

    /// What the kernel keeps of the session.
    pub fn session(&self) -> SessionState {
        let map = self.programs.map(name::SESSIONS).unwrap();
        let sessions = Array::<_, SessionState>::try_from(map).unwrap();
        sessions.get(&SESSION_SLOT, 0).unwrap()
    }
}
