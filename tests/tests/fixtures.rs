//! Single frames through the loaded programs: what goes in, the verdict, what comes out.

use aya::maps::Array;
use bytemuck::bytes_of;
use router_common::{
    gre::GreBase,
    heartbeat::{Content, Heartbeat, Kind},
    identity::NodeId,
    map::{LocalState, Reason, name},
    net::{ETH_P_IPV4, ETH_P_IPV6, Ethernet, Ipv4, Mac, PROTO_UDP},
    siphash::Key,
};
use router_tests::{
    clock,
    frames::{
        INNER_LOCAL, INNER_REMOTE, KEY, KEYED_TUNNEL, LOCAL, OUR_GENERATION, PEER_GENERATION,
        PLAIN_TUNNEL, PORT, REMOTE, SESSION_SLOT, SETTINGS, UNDERLAY_MACS, USER_MAC, from_peer,
        gre, heartbeat, inner_ipv6, inner_udp, our_claim, probe, to_peer, underlay,
    },
    kernel::Kernel,
};

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
    /// Exactly these bytes: the inner packet behind an Ethernet header with the tunnel's mark.
    Delivered(Vec<u8>),
    /// Dropped frames have none worth looking at.
    Any,
}

fn delivered(tunnel: u32, protocol: u16, destination: Mac, inner: &[u8]) -> Output {
    let ethernet = Ethernet::new(destination, SETTINGS.marked(tunnel), protocol);
    Output::Delivered([bytes_of(&ethernet), inner].concat())
}

fn unicast_ipv6() -> [u8; 16] {
    let mut address = [0; 16];
    address[0] = 0xfe;
    address[1] = 0x80;
    address[15] = 1;
    address
}

fn check(kernel: &mut Kernel, case: &Case) {
    let Case {
        description,
        input,
        verdict,
        output,
    } = case;
    let (actual_verdict, actual) = kernel.run(input);
    assert_eq!(actual_verdict, *verdict, "verdict of: {description}");
    match output {
        Output::Untouched => assert_eq!(&actual, input, "frame of: {description}"),
        Output::Delivered(bytes) => assert_eq!(&actual, bytes, "frame of: {description}"),
        Output::Any => {}
    }
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
    let mut kernel = Kernel::with_tunnels_and_session();
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
        check(&mut kernel, &case);
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
    let mut kernel = Kernel::with_tunnels_and_session();
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
        check(
            &mut kernel,
            &Case {
                description,
                input,
                verdict: PASS,
                output: Output::Untouched,
            },
        );
    }
    assert_eq!(kernel.reason(Reason::NoTunnel), 3);
    assert_eq!(kernel.reason(Reason::OuterFragment), 2);
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
        let mut kernel = Kernel::with_tunnels_and_session();
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
    let mut kernel = Kernel::with_tunnels_and_session();
    check(
        &mut kernel,
        &Case {
            description: "MPLS",
            input: gre(0x8847, None, &[0; 40]),
            verdict: DROP,
            output: Output::Any,
        },
    );
    assert_eq!(kernel.counter(PLAIN_TUNNEL, |c| c.rx_unsupported), 1);
}

#[test]
fn a_probe_is_answered_where_it_came_from() {
    let mut kernel = Kernel::with_tunnels_and_session();
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
    let mut kernel = Kernel::with_tunnels_and_session();
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
    let mut kernel = Kernel::with_tunnels_and_session();
    let mut refused = |description, content: &Content, key: &Key| {
        check(
            &mut kernel,
            &Case {
                description,
                input: heartbeat(content, key),
                verdict: DROP,
                output: Output::Any,
            },
        );
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
    let mut kernel = Kernel::with_tunnels_and_session();
    let input = heartbeat(&probe(), &from_peer(b"cloudpack"));
    assert_eq!(kernel.run(&input).0, TX);
    let heard = kernel.session().last_heard();
    assert_eq!(kernel.run(&input).0, DROP);
    assert_eq!(kernel.session().stale, 1);
    assert_eq!(kernel.session().last_heard(), heard);
}

#[test]
fn a_closed_session_answers_nobody() {
    let mut kernel = Kernel::with_tunnels_and_session();
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
