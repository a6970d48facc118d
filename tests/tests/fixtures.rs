//! Single frames through the loaded programs: what goes in, the verdict, what comes out.

use aya::{
    Ebpf, TestRunOptions,
    maps::{Array, HashMap, PerCpuArray},
    programs::{TestRun as _, Xdp},
};
use bytemuck::bytes_of;
use router_agent::dataplane::{OBJECT, program};
use router_common::{
    gre::{GreBase, TunnelKey},
    heartbeat::{Content, Heartbeat, Kind},
    identity::{Claim, Epoch, Flags, NodeId},
    kdf::{direction_key, session_number},
    map::{
        Handover, LocalState, Reason, SessionConfig, SessionKey, SessionState, TunnelCounters,
        TunnelIngress, name,
    },
    net::{ETH_P_IPV4, ETH_P_IPV6, Ethernet, Ipv4, Mac, PROTO_GRE, PROTO_UDP, Udp},
    siphash::Key,
    time::BootTime,
};
use router_tests::clock;

const LOCAL: [u8; 4] = [10, 0, 1, 10];
const REMOTE: [u8; 4] = [10, 0, 2, 10];
const INNER_LOCAL: [u8; 4] = [169, 254, 0, 1];
const INNER_REMOTE: [u8; 4] = [169, 254, 0, 2];
const UNDERLAY_MACS: [Mac; 2] = [[2, 0, 0, 0, 1, 10], [2, 0, 0, 0, 1, 1]];
const USER_MAC: Mac = [2, 0, 0, 0, 0xaa, 1];
const DATAPLANE_MAC: Mac = [2, 0, 0, 0, 0xaa, 2];
const KEY: u32 = 0x0102_0304;
const PLAIN_TUNNEL: u32 = 3;
const KEYED_TUNNEL: u32 = 4;
const DATAPLANE_IFINDEX: u32 = 77;
const PORT: u16 = 6940;
const GROUP: &str = "aws";
const SESSION_SLOT: u32 = 5;
const OUR_GENERATION: u32 = 1000;
const PEER_GENERATION: u32 = 2000;

const PASS: u32 = verdict::PASS;
const DROP: u32 = verdict::DROP;
const TX: u32 = verdict::TX;

/// `enum xdp_action` of linux/bpf.h.
mod verdict {
    pub const DROP: u32 = 1;
    pub const PASS: u32 = 2;
    pub const TX: u32 = 3;
}

/// One row of a table.
struct Case {
    description: &'static str,
    input: Vec<u8>,
    verdict: u32,
    output: Output,
}

enum Output {
    /// The frame as it came.
    Untouched,
    /// Exactly these bytes: metadata for the hand-over, then the frame.
    Delivered(Vec<u8>),
    /// Dropped frames have none worth looking at.
    Any,
}

struct Kernel {
    programs: Ebpf,
}

impl Kernel {
    /// The programs with two tunnels between the same addresses, one of them keyed, and a session
    /// in the plain one.
    fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests load BPF programs, which needs root"
        );
        let mut kernel = Self {
            programs: Ebpf::load(OBJECT).unwrap(),
        };
        for (index, key) in [(PLAIN_TUNNEL, None), (KEYED_TUNNEL, Some(KEY))] {
            let ingress = TunnelIngress {
                index,
                dataplane_ifindex: DATAPLANE_IFINDEX + index,
                user_mac: USER_MAC,
                dataplane_mac: DATAPLANE_MAC,
                heartbeat_port: PORT,
                padding: [0; 2],
            };
            let map = kernel.programs.map_mut(name::TUNNELS).unwrap();
            HashMap::<_, TunnelKey, TunnelIngress>::try_from(map)
                .unwrap()
                .insert(TunnelKey::new(LOCAL, REMOTE, key), ingress, 0)
                .unwrap();
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
        let underlay: &mut Xdp = kernel.program();
        underlay.load().unwrap();
        kernel
    }

    fn program(&mut self) -> &mut Xdp {
        let program = self.programs.program_mut(program::UNDERLAY).unwrap();
        program.try_into().unwrap()
    }

    /// Verdict and frame that come out; metadata lies before the frame.
    fn run(&mut self, input: &[u8]) -> (u32, Vec<u8>) {
        let mut output = vec![0; 2048];
        let result = self
            .program()
            .test_run(TestRunOptions {
                data_in: Some(input),
                data_out: Some(&mut output),
                ..TestRunOptions::default()
            })
            .unwrap();
        output.truncate(usize::try_from(result.data_size_out).unwrap());
        (result.return_value, output)
    }

    fn check(&mut self, case: &Case) {
        let Case {
            description,
            input,
            verdict,
            output,
        } = case;
        let (actual_verdict, actual) = self.run(input);
        assert_eq!(actual_verdict, *verdict, "verdict of: {description}");
        match output {
            Output::Untouched => assert_eq!(&actual, input, "frame of: {description}"),
            Output::Delivered(bytes) => assert_eq!(&actual, bytes, "frame of: {description}"),
            Output::Any => {}
        }
    }

    fn reason(&self, reason: Reason) -> u64 {
        let map = self.programs.map(name::REASONS).unwrap();
        let reasons = PerCpuArray::<_, u64>::try_from(map).unwrap();
        reasons.get(&(reason as u32), 0).unwrap().iter().sum()
    }

    fn counter(&self, index: u32, of: impl Fn(&TunnelCounters) -> u64) -> u64 {
        let map = self.programs.map(name::COUNTERS).unwrap();
        let counters = PerCpuArray::<_, TunnelCounters>::try_from(map).unwrap();
        counters.get(&index, 0).unwrap().iter().map(of).sum()
    }

    fn session(&self) -> SessionState {
        let map = self.programs.map(name::SESSIONS).unwrap();
        let sessions = Array::<_, SessionState>::try_from(map).unwrap();
        sessions.get(&SESSION_SLOT, 0).unwrap()
    }
}

fn from_peer(secret: &[u8]) -> Key {
    direction_key(secret, GROUP, "vyatta-c", "vyatta-a")
}

fn to_peer() -> Key {
    direction_key(b"cloudpack", GROUP, "vyatta-a", "vyatta-c")
}

fn our_claim() -> Claim {
    Claim {
        epoch: Epoch(6),
        owner: NodeId(1),
    }
}

/// An Ethernet frame with an IPv4 packet of `protocol` from the tunnel's far end.
fn underlay(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(Ipv4::LEN + payload.len()).unwrap();
    let [destination, source] = UNDERLAY_MACS;
    let ethernet = Ethernet::new(destination, source, ETH_P_IPV4);
    let ip = Ipv4::new(protocol, REMOTE, LOCAL, 0, 255, length);
    [bytes_of(&ethernet), bytes_of(&ip), payload].concat()
}

/// A frame with a GRE packet.
fn gre(protocol: u16, key: Option<u32>, inner: &[u8]) -> Vec<u8> {
    let base = GreBase::new(protocol, key.is_some());
    let key = key.map_or(Vec::new(), |key| key.to_be_bytes().to_vec());
    underlay(PROTO_GRE, &[bytes_of(&base), &key, inner].concat())
}

fn inner_udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(Udp::LEN + payload.len()).unwrap();
    let udp = Udp::without_checksum(PORT, port, udp_length);
    let length = u16::try_from(Ipv4::LEN).unwrap() + udp_length;
    let ip = Ipv4::new(PROTO_UDP, INNER_REMOTE, INNER_LOCAL, 0, 255, length);
    [bytes_of(&ip), bytes_of(&udp), payload].concat()
}

/// An IPv6 packet without a payload (next header 59, RFC 8200 §4.7).
fn inner_ipv6(destination: [u8; 16]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(destination);
    packet
}

fn delivered(tunnel: u32, protocol: u16, destination: Mac, inner: &[u8]) -> Output {
    let handover = Handover::to(DATAPLANE_IFINDEX + tunnel);
    let ethernet = Ethernet::new(destination, DATAPLANE_MAC, protocol);
    Output::Delivered([bytes_of(&handover), bytes_of(&ethernet), inner].concat())
}

fn probe() -> Content {
    let now = clock::now();
    Content {
        kind: Kind::Probe,
        flags: Flags::ELIGIBLE,
        session: session_number(GROUP),
        sender: NodeId(2),
        generation: PEER_GENERATION,
        sequence: 1,
        tx: BootTime::from_ns(123),
        echo_tx: now,
        echo_generation: OUR_GENERATION,
        claim: our_claim(),
        agent_age_us: 10,
    }
}

fn heartbeat(content: &Content, key: &Key) -> Vec<u8> {
    let message = Heartbeat::signed(content, key);
    gre(ETH_P_IPV4, None, &inner_udp(PORT, bytes_of(&message)))
}

fn unicast_ipv6() -> [u8; 16] {
    let mut address = [0; 16];
    address[0] = 0xfe;
    address[1] = 0x80;
    address[15] = 1;
    address
}

#[test]
fn packets_of_a_tunnel_are_delivered_as_they_were() {
    let ipv4 = inner_udp(9, b"payload");
    let mut group = inner_udp(9, b"payload");
    group[16..20].copy_from_slice(&[239, 251, 252, 253]);
    let ipv6 = inner_ipv6(unicast_ipv6());
    let mut all_nodes = [0; 16];
    (all_nodes[0], all_nodes[1], all_nodes[15]) = (0xff, 2, 1);
    let all_nodes = inner_ipv6(all_nodes);
    let mut kernel = Kernel::new();
    for case in [
        Case {
            description: "IPv4",
            input: gre(ETH_P_IPV4, None, &ipv4),
            verdict: PASS,
            output: delivered(PLAIN_TUNNEL, ETH_P_IPV4, USER_MAC, &ipv4),
        },
        Case {
            description: "IPv4 to a group, with the group's Ethernet address",
            input: gre(ETH_P_IPV4, None, &group),
            verdict: PASS,
            output: delivered(
                PLAIN_TUNNEL,
                ETH_P_IPV4,
                [1, 0, 0x5e, 123, 252, 253],
                &group,
            ),
        },
        Case {
            description: "IPv6",
            input: gre(ETH_P_IPV6, None, &ipv6),
            verdict: PASS,
            output: delivered(PLAIN_TUNNEL, ETH_P_IPV6, USER_MAC, &ipv6),
        },
        Case {
            description: "IPv6 to a group, with the group's Ethernet address",
            input: gre(ETH_P_IPV6, None, &all_nodes),
            verdict: PASS,
            output: delivered(
                PLAIN_TUNNEL,
                ETH_P_IPV6,
                [0x33, 0x33, 0, 0, 0, 1],
                &all_nodes,
            ),
        },
        Case {
            description: "keyed",
            input: gre(ETH_P_IPV4, Some(KEY), &ipv4),
            verdict: PASS,
            output: delivered(KEYED_TUNNEL, ETH_P_IPV4, USER_MAC, &ipv4),
        },
    ] {
        kernel.check(&case);
    }
    assert_eq!(kernel.counter(PLAIN_TUNNEL, |c| c.rx_packets), 4);
    assert_eq!(kernel.counter(KEYED_TUNNEL, |c| c.rx_packets), 1);
    let length = u64::try_from(ipv4.len()).unwrap();
    assert_eq!(kernel.counter(KEYED_TUNNEL, |c| c.rx_bytes), length);
}

#[test]
fn what_is_not_ours_goes_to_the_stack_untouched() {
    let inner = inner_udp(9, b"payload");
    let with = |change: fn(&mut Vec<u8>)| {
        let mut frame = gre(ETH_P_IPV4, None, &inner);
        change(&mut frame);
        frame
    };
    let mut kernel = Kernel::new();
    for (description, input) in [
        ("not GRE", underlay(PROTO_UDP, &[0; 40])),
        ("ARP", with(|f| f[12..14].copy_from_slice(&[8, 6]))),
        ("unknown key", gre(ETH_P_IPV4, Some(KEY + 1), &inner)),
        ("unknown source", with(|f| f[29] ^= 1)),
        ("unknown destination", with(|f| f[33] ^= 1)),
        ("version 1", with(|f| f[35] |= 1)),
        ("checksum bit", with(|f| f[34] |= 0x80)),
        ("routing bit", with(|f| f[34] |= 0x40)),
        ("sequence bit", with(|f| f[34] |= 0x10)),
        ("a reserved bit", with(|f| f[34] |= 4)),
        ("outer options", with(|f| f[14] = 0x46)),
        ("first fragment", with(|f| f[20] |= 0x20)),
        ("later fragment", with(|f| f[21] = 1)),
    ] {
        kernel.check(&Case {
            description,
            input,
            verdict: PASS,
            output: Output::Untouched,
        });
    }
    assert_eq!(kernel.reason(Reason::NoTunnel), 3);
    assert_eq!(kernel.reason(Reason::NotFast), 8);
    assert_eq!(kernel.counter(PLAIN_TUNNEL, |c| c.rx_packets), 0);
}

#[test]
fn a_packet_cut_anywhere_is_passed_or_counted() {
    let frames = [
        ("IPv4", gre(ETH_P_IPV4, None, &inner_udp(9, b"payload"))),
        ("IPv6", gre(ETH_P_IPV6, None, &inner_ipv6(unicast_ipv6()))),
        ("a heartbeat", heartbeat(&probe(), &from_peer(b"cloudpack"))),
    ];
    let headers = Ethernet::LEN + Ipv4::LEN + GreBase::LEN;
    for (description, whole) in frames {
        let mut kernel = Kernel::new();
        let mut dropped = 0;
        // The kernel's test run takes no frame shorter than an Ethernet header.
        for cut in Ethernet::LEN..whole.len() {
            let (verdict, output) = kernel.run(&whole[..cut]);
            if cut < headers {
                assert_eq!(verdict, PASS, "{description} cut at {cut}");
                assert_eq!(output, &whole[..cut], "{description} cut at {cut}");
            } else {
                assert_eq!(verdict, DROP, "{description} cut at {cut}");
                dropped += 1;
            }
        }
        let counted = kernel.counter(PLAIN_TUNNEL, |c| c.rx_errors);
        assert_eq!(counted, dropped, "{description}");
    }
}

#[test]
fn an_inner_protocol_that_we_do_not_carry_is_dropped_and_counted() {
    let mut kernel = Kernel::new();
    kernel.check(&Case {
        description: "MPLS",
        input: gre(0x8847, None, &[0; 40]),
        verdict: DROP,
        output: Output::Any,
    });
    assert_eq!(kernel.counter(PLAIN_TUNNEL, |c| c.rx_unsupported), 1);
}

#[test]
fn a_probe_is_answered_where_it_came_from() {
    let mut kernel = Kernel::new();
    let sent = probe();
    let input = heartbeat(&sent, &from_peer(b"cloudpack"));
    let before = clock::now();
    let (verdict, output) = kernel.run(&input);
    assert_eq!(verdict, TX);
    assert_eq!(output.len(), input.len());

    let read = |offset, length| &output[offset..offset + length];
    let ethernet: Ethernet = bytemuck::pod_read_unaligned(read(0, Ethernet::LEN));
    let [ours, theirs] = UNDERLAY_MACS;
    assert_eq!(ethernet, Ethernet::new(theirs, ours, ETH_P_IPV4));
    let outer: Ipv4 = bytemuck::pod_read_unaligned(read(14, Ipv4::LEN));
    assert!(outer.checksum_is_valid());
    assert_eq!((outer.source, outer.destination), (LOCAL, REMOTE));
    assert_eq!(outer.ttl, 255);
    let inner: Ipv4 = bytemuck::pod_read_unaligned(read(38, Ipv4::LEN));
    assert!(inner.checksum_is_valid());
    assert_eq!(
        (inner.source, inner.destination),
        (INNER_LOCAL, INNER_REMOTE)
    );

    let message: Heartbeat = bytemuck::pod_read_unaligned(read(66, Heartbeat::LEN));
    assert!(message.is_authentic(&to_peer()));
    let content = message.content().unwrap();
    assert_eq!(content.kind, Kind::Reply);
    assert_eq!(content.sender, NodeId(1));
    assert_eq!(content.generation, OUR_GENERATION);
    assert_eq!(content.sequence, sent.sequence);
    assert_eq!(content.echo_tx, sent.tx);
    assert_eq!(content.echo_generation, PEER_GENERATION);
    assert_eq!(content.claim, our_claim());

    let state = kernel.session();
    assert!(state.last_heard() >= before);
    assert_eq!(state.peer_generation, u64::from(PEER_GENERATION));
    assert_eq!(state.probes, 1);
}

#[test]
fn a_probe_that_proves_nothing_is_answered_but_not_believed() {
    let mut kernel = Kernel::new();
    let stranger = Content {
        echo_generation: OUR_GENERATION - 1,
        ..probe()
    };
    let (verdict, _) = kernel.run(&heartbeat(&stranger, &from_peer(b"cloudpack")));
    assert_eq!(verdict, TX);
    let state = kernel.session();
    assert_eq!(state.unproven, 1);
    assert!(state.last_heard().is_never());
}

#[test]
fn heartbeats_that_cannot_be_believed_are_dropped_and_counted() {
    let key = from_peer(b"cloudpack");
    let mut kernel = Kernel::new();
    let mut refused = |description, content: &Content, key: &Key| {
        kernel.check(&Case {
            description,
            input: heartbeat(content, key),
            verdict: DROP,
            output: Output::Any,
        });
    };
    refused("wrong secret", &probe(), &from_peer(b"clodpack"));
    refused("our own key, reflected", &probe(), &to_peer());
    let elsewhere = Content {
        session: 1,
        ..probe()
    };
    refused("unknown session", &elsewhere, &key);
    let ours = Content {
        sender: NodeId(1),
        ..probe()
    };
    refused("wrong sender", &ours, &key);
    assert_eq!(kernel.session().mac_failures, 2);
    assert_eq!(kernel.session().wrong_sender, 1);
    assert_eq!(kernel.reason(Reason::NoSession), 1);

    let short = gre(ETH_P_IPV4, None, &inner_udp(PORT, &[0; 20]));
    assert_eq!(kernel.run(&short).0, DROP);
    assert_eq!(kernel.reason(Reason::NotHeartbeat), 1);
    assert!(kernel.session().last_heard().is_never());
}

#[test]
fn a_replayed_heartbeat_is_dropped_and_counted() {
    let mut kernel = Kernel::new();
    let input = heartbeat(&probe(), &from_peer(b"cloudpack"));
    assert_eq!(kernel.run(&input).0, TX);
    let heard = kernel.session().last_heard();
    assert_eq!(kernel.run(&input).0, DROP);
    assert_eq!(kernel.session().stale, 1);
    assert_eq!(kernel.session().last_heard(), heard);
}

#[test]
fn a_closed_session_answers_nobody() {
    let mut kernel = Kernel::new();
    let closed = LocalState::default();
    let map = kernel.programs.map_mut(name::LOCAL).unwrap();
    Array::<_, LocalState>::try_from(map)
        .unwrap()
        .set(SESSION_SLOT, closed, 0)
        .unwrap();
    let (verdict, _) = kernel.run(&heartbeat(&probe(), &from_peer(b"cloudpack")));
    assert_eq!(verdict, DROP);
    assert_eq!(kernel.reason(Reason::NoSession), 1);
}
