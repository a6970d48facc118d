//! What a heartbeat costs in the underlay program, by the kernel's test run.
//!
//! `bench_heartbeat` makes the heartbeat new to its session and gives the frame its bytes back,
//! `bench_heartbeat_again` does that alone:
//!
//! ```text
//! heartbeat = pass + (bench_heartbeat − bench_heartbeat_again)
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use router_agent::dataplane::program;
use router_common::{
    bench::{BenchHeartbeat, HEARTBEAT_FRAME},
    heartbeat::{Content, Kind},
    identity::{Claim, Epoch, Flags, NodeId},
    lease::Length,
    map::{Fence, LocalState},
};

use super::super::{
    report::{Report, Row, Section},
    rounds::{self, Spread, combined, interleaved},
};
use crate::{
    clock,
    frames::{OUR_GENERATION, SESSION_SLOT, forged, from_peer, heartbeat, our_claim, probe},
    kernel::Kernel,
};

/// As for the other programs, see [`super::super::dataplane`].
const BATCH: u32 = 50_000;
const ROUNDS: usize = 25;

const HEARTBEAT: &str = "bench_heartbeat";
const AGAIN: &str = "bench_heartbeat_again";

/// `XDP_DROP`, `XDP_PASS` and `XDP_TX`.
const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;

/// The group that the session belongs to.
const GROUP: u32 = 0;
const LEASE: Length = Length::from_us(150_000);

pub fn measure() -> Result<()> {
    let cpu = rounds::pin()?;
    let mut subjects = subjects()?;
    let programs = [program::PASS, AGAIN, HEARTBEAT];
    let samples = interleaved(ROUNDS, subjects.len() * programs.len(), |index| {
        subjects[index / programs.len()].time(programs[index % programs.len()])
    })?;
    let (samples, _) = samples.as_chunks::<3>();
    let mut rows = Vec::new();
    let mut entry = 1.0;
    for (subject, [pass, again, heartbeat]) in subjects.iter().zip(samples) {
        if rows.is_empty() {
            let ns = Spread::of(pass.clone());
            entry = ns.median;
            rows.push(row("pass program", ns, entry));
        }
        let parts = [&pass[..], again, heartbeat];
        let ns = combined(parts, |[pass, again, heartbeat]| pass + heartbeat - again);
        rows.push(row(subject.name, ns, entry));
    }
    Report {
        benchmark: "heartbeat-programs",
        machine: rounds::machine(),
        conditions: vec![
            format!("the kernel's test run on CPU {cpu}, over IPv4, without key"),
            format!("batches of {BATCH} runs, {ROUNDS} rounds over all rows"),
            "goal, for information: verified and answered ≤ 300 ns where a pass costs 35".into(),
        ],
        sections: vec![Section {
            title: "heartbeats".into(),
            relative_to: "pass".into(),
            rows,
        }],
    }
    .publish()
}

fn row(name: &str, ns: Spread, pass: f64) -> Row {
    Row {
        name: name.into(),
        ns,
        ratio: ns.median / pass,
    }
}

/// A heartbeat, and programs in the state that it meets.
struct Subject {
    name: &'static str,
    kernel: Kernel,
    frame: Vec<u8>,
    expected: u32,
    /// How many times the programs have answered, taken or refused it as it should be.
    handled: fn(&Kernel) -> u64,
}

fn subjects() -> Result<[Subject; 5]> {
    let key = from_peer(b"cloudpack");
    let reply = Content {
        kind: Kind::Reply,
        ..probe()
    };
    let theirs = Claim {
        epoch: Epoch(6),
        owner: NodeId(2),
    };
    let granting = LocalState {
        grant_us: LEASE.as_us().into(),
        ..LocalState::new(theirs, OUR_GENERATION, Flags::ELIGIBLE, clock::now())
    };
    let granted = Content {
        claim: our_claim(),
        grant: LEASE,
        ..probe()
    };
    let held = Fence {
        opened_ns: granted.echo_tx.as_ns(),
        lease_ns: LEASE.as_ns(),
        claim: our_claim().to_word(),
        ..Fence::default()
    };
    let probes = |kernel: &Kernel| kernel.session().probes;
    let replies = |kernel: &Kernel| kernel.session().replies;
    let refusals = |kernel: &Kernel| kernel.session().mac_failures;
    let renewals = |kernel: &Kernel| kernel.lease(GROUP).renewals;
    let subject = |name, frame, expected, handled| -> Result<Subject> {
        let mut kernel = Kernel::for_benchmark()?;
        // So that the peer's generation is believed.
        ensure!(kernel.run(&heartbeat(&probe(), &key)).0 == TX, "no answer");
        Ok(Subject {
            name,
            kernel,
            frame,
            expected,
            handled,
        })
    };
    let mut subjects = [
        subject(
            "wrong MAC, refused",
            heartbeat(&probe(), &forged()),
            DROP,
            refusals,
        )?,
        subject("reply, taken", heartbeat(&reply, &key), DROP, replies)?,
        subject("probe, answered", heartbeat(&probe(), &key), TX, probes)?,
        subject(
            "probe, granted a lease",
            heartbeat(&probe(), &key),
            TX,
            probes,
        )?,
        subject(
            "probe, renews a lease",
            heartbeat(&granted, &key),
            TX,
            renewals,
        )?,
    ];
    subjects[3].kernel.set_local(&granting);
    subjects[4].kernel.set_fence(GROUP, &held);
    for subject in &mut subjects {
        let mut frame = [0; HEARTBEAT_FRAME];
        frame.copy_from_slice(&subject.frame);
        subject.kernel.set_bench_heartbeat(&BenchHeartbeat {
            frame,
            padding: [0; 2],
            session: SESSION_SLOT,
        });
    }
    Ok(subjects)
}

impl Subject {
    fn time(&mut self, program: &str) -> Result<Duration> {
        let before = (self.handled)(&self.kernel);
        let (verdict, _, time) = self.kernel.run_timed(program, &self.frame, BATCH);
        let handled = (self.handled)(&self.kernel) - before;
        let expected = if program == HEARTBEAT {
            (self.expected, u64::from(BATCH))
        } else {
            (PASS, 0)
        };
        ensure!(
            (verdict, handled) == expected,
            "{program} over {}: verdict {verdict}, {handled} of {BATCH} handled; the figures would \
             be of another thing",
            self.name,
        );
        Ok(time)
    }
}
