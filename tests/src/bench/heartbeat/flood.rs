//! Forged heartbeats as fast as a veth takes them, on the queue by which the real ones come.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Result;
use aya::sys::{Stats, enable_stats};
use router_common::bench::{Bench, HEADERS};
use serde::Serialize;

use super::{
    super::{rig::send_live, rounds},
    live, publish,
    usage::{Usage, sessions},
};
use crate::{
    article::{self, CLOUD, ROUTERS},
    cluster::Cluster,
    frames::{forged, heartbeat, probe},
    kernel::Kernel,
};

const DEAD_MS: u64 = 20;
/// Frames of one system call.
const CALL: u32 = 64 * 64;

#[derive(Debug, Serialize)]
struct Flood {
    seconds: f64,
    sent: u64,
    /// By the program, as its session's count of wrong MACs.
    refused: u64,
    refused_per_second: f64,
    /// Of the underlay program, real heartbeats among them, with the kernel's counting.
    program_ns_per_packet: f64,
    program_share_of_a_core: f64,
    /// Heartbeats of the real peer, as many as its sequence numbers grew, and those believed.
    peer_probes: u64,
    peer_probes_believed: u64,
    peer_replies: u64,
    peer_replies_believed: u64,
    false_failovers: u32,
}

pub fn measure(seconds: u64) -> Result<()> {
    let flood = flood(Duration::from_secs(seconds))?;
    println!("\nheartbeat, flood: {}", rounds::machine());
    println!(
        "  forged heartbeats by XDP live frames on one CPU; session of 1 ms / {DEAD_MS} ms on the same queue"
    );
    println!(
        "  refused {:.0} packets/s ({} of {} sent in {:.1} s), {:.0} ns each in the program",
        flood.refused_per_second,
        flood.refused,
        flood.sent,
        flood.seconds,
        flood.program_ns_per_packet,
    );
    println!(
        "  missed heartbeats: {} of {} probes, {} of {} replies; false failovers: {}",
        flood.peer_probes.saturating_sub(flood.peer_probes_believed),
        flood.peer_probes,
        flood
            .peer_replies
            .saturating_sub(flood.peer_replies_believed),
        flood.peer_replies,
        flood.false_failovers,
    );
    publish("heartbeat-flood", &flood)
}

fn flood(during: Duration) -> Result<Flood> {
    let cluster = Cluster::start(|router| live::config(router, DEAD_MS))?;
    cluster.settle_any()?;
    let target = ROUTERS[0];
    let node = cluster.node(target);
    let agent = cluster.agent(target)?.id();
    let cloud = cluster.lab.node(CLOUD);
    let path = format!(
        "/sys/class/net/{}/ifindex",
        article::cloud_interface(target.name)
    );
    let ifindex = cloud.run(|| fs::read_to_string(path))??.trim().parse()?;
    let frame = heartbeat(&probe(), &forged());
    let mut headers = [0; HEADERS];
    headers.copy_from_slice(&frame[..HEADERS]);
    let mut kernel = Kernel::for_benchmark()?;
    kernel.set_bench(&Bench {
        headers,
        removed: 0,
        number_offset: 0,
        first: 0,
        end: 0,
        next: 0,
        ifindex,
        step: 1,
        padding: 0,
    });

    let _statistics = enable_stats(Stats::RunTime)?;
    let look = || anyhow::Ok((Usage::of(node, agent)?, sessions(node, 1)?.remove(0)));
    let epoch = cluster.group(target)?.epoch;
    let (usage, before) = look()?;
    let start = Instant::now();
    let sent = cloud.run(|| -> Result<u64> {
        rounds::pin()?;
        send_live(&mut kernel, &frame, CALL, during)
    })??;
    let seconds = start.elapsed().as_secs_f64();
    let (used, after) = look()?;
    let shares = used.since(&usage);
    let runs = used.program().runs - usage.program().runs;
    let time = used.program().time.saturating_sub(usage.program().time);
    let refused = after.mac_failures - before.mac_failures;
    #[expect(clippy::cast_precision_loss, reason = "far fewer packets than 2^52")]
    Ok(Flood {
        seconds,
        sent,
        refused,
        refused_per_second: refused as f64 / seconds,
        program_ns_per_packet: time.as_secs_f64() * 1e9 / runs as f64,
        program_share_of_a_core: shares.program,
        peer_probes: after.probe_sequence - before.probe_sequence,
        peer_probes_believed: after.probes - before.probes,
        peer_replies: after.reply_sequence - before.reply_sequence,
        peer_replies_believed: after.replies - before.replies,
        false_failovers: cluster.group(target)?.epoch - epoch,
    })
}
