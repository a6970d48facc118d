//! `router-bench`: what a packet costs in the underlay program.
//!
//! The kernel's test run measures each program on one frame. What leaves its frame as it is runs over
//! it many times, with warm caches. A frame that was decapsulated or
//! answered is another frame, so each run gets a fresh one; that is timed with the cost of entering
//! the program, which the pass program shows, timed the same way. What is printed are medians and
//! ratios of one run; nothing is judged.

use std::time::Duration;

use router_agent::dataplane::program;
use router_common::{
    heartbeat::Content,
    net::{ETH_P_IPV4, ETH_P_IPV6},
};
use router_tests::{
    frames::{KEY, from_peer, gre, heartbeat, inner_ipv6, inner_udp, probe},
    kernel::Kernel,
};

const ROUNDS: u64 = 20_000;
/// For a program that leaves the frame as it is.
const STEADY_REPEAT: u32 = 1_000_000;

fn main() {
    let mut kernel = Kernel::with_tunnels_and_session();
    let plain = gre(ETH_P_IPV4, None, &inner_udp(9, &[0; 64]));
    let keyed = gre(ETH_P_IPV4, Some(KEY), &inner_udp(9, &[0; 64]));
    let ipv6 = gre(ETH_P_IPV6, None, &inner_ipv6([0xfd; 16]));
    let unknown = gre(ETH_P_IPV4, Some(KEY + 1), &inner_udp(9, &[0; 64]));
    let key = from_peer(b"cloudpack");

    let (_, _, steady) = kernel.run_timed(program::PASS, &plain, STEADY_REPEAT);
    let (_, _, foreign) = kernel.run_timed(program::UNDERLAY, &unknown, STEADY_REPEAT);
    let forged = heartbeat(&probe(), &from_peer(b"another secret"));
    let (_, _, refused) = kernel.run_timed(program::UNDERLAY, &forged, STEADY_REPEAT);
    println!("steady, {STEADY_REPEAT} runs over one frame (mean):");
    println!("  pass program                 {:>6} ns", steady.as_nanos());
    println!(
        "  GRE of no tunnel, left alone {:>6} ns",
        foreign.as_nanos()
    );

    println!(
        "  heartbeat, wrong MAC refused {:>6} ns",
        refused.as_nanos()
    );

    let entry = median(ROUNDS, |_| kernel.run_timed(program::PASS, &plain, 1).2);
    println!(
        "single, {ROUNDS} runs over fresh frames (median), and what is beyond the pass program:"
    );
    row("pass program", entry, entry);
    for (name, frame) in [
        ("decapsulate IPv4", &plain),
        ("decapsulate IPv4, keyed", &keyed),
        ("decapsulate IPv6", &ipv6),
    ] {
        let cost = median(ROUNDS, |_| kernel.run_timed(program::UNDERLAY, frame, 1).2);
        row(name, cost, entry);
    }
    let answered = median(ROUNDS, |round| {
        let content = Content {
            sequence: round + 1,
            ..probe()
        };
        kernel
            .run_timed(program::UNDERLAY, &heartbeat(&content, &key), 1)
            .2
    });
    row("heartbeat: verify and reply", answered, entry);
    let refused = median(ROUNDS, |_| {
        kernel.run_timed(program::UNDERLAY, &forged, 1).2
    });
    row("heartbeat: refuse a wrong MAC", refused, entry);
    assert_eq!(
        kernel.session().probes,
        ROUNDS,
        "some probes were not answered, so the figures are not what they say"
    );
}

fn row(name: &str, cost: Duration, entry: Duration) {
    println!(
        "  {name:<29}{:>6} ns   +{} ns",
        cost.as_nanos(),
        cost.saturating_sub(entry).as_nanos()
    );
}

fn median(rounds: u64, mut run: impl FnMut(u64) -> Duration) -> Duration {
    let mut times: Vec<_> = (0..rounds).map(&mut run).collect();
    times.sort_unstable();
    times[times.len() / 2]
}
