//! What a packet costs in the programs, by the kernel's test run.
//!
//! A test run times a program over one frame, many times, each time as the last left it. A program
//! that changes the frame therefore has a part that changes it back, and is measured as
//!
//! ```text
//! decapsulation = pass + (decapsulate and restore − move and restore) + move
//! move          = (move there and back − pass) / 2
//! ```
//!
//! where `pass` is the entry that every run pays, and `move` is that of the packet's start, which
//! the restoring program makes in decapsulation's place. What cannot be undone, because the kernel
//! does not (encapsulation), or changes with each frame (heartbeats), runs once over a fresh frame;
//! such figures have the clock's cost and cold caches in them and are compared with an empty
//! program run the same way.

mod transit;

use std::time::Duration;

use anyhow::{Result, ensure};
use router_agent::dataplane::program;
use router_common::{
    bench::{Bench, HEADERS},
    gre::{Format, Label},
    heartbeat::Content,
    map::Sequence,
    net::{ETH_P_IPV4, ETH_P_IPV6, Ethernet, PROTO_TCP},
};

use super::{
    report::{Report, Row, Section},
    rounds::{self, Spread, combined, interleaved},
};
use crate::{
    frames::{
        KEY, Outer, REMOTE, forged, from_peer, gre, heartbeat, inner_ipv6, inner_udp, probe,
        underlay,
    },
    kernel::{Kernel, egress, from_behind, ingress, tc},
};

/// Runs of a batch: enough that the system call and the clock do not matter, nor that the first way
/// round 10,000 tunnels finds cold caches. Each batch costs some milliseconds more, in which the
/// kernel makes ready to run the program over and over.
const BATCH: u32 = 500_000;
const ROUNDS: usize = 9;
/// Of single runs.
const SINGLE_ROUNDS: usize = 5_001;

/// A step through 10,000 tunnels that comes to each of them, and to none near the last.
const SCATTERED: u32 = 6_181;

const DECAPSULATE: &str = "bench_decapsulate";
const TO_LAN: &str = "bench_to_lan";
const FROM_LAN: &str = "bench_from_lan";
const RESTORE: &str = "bench_restore";
const ADJUST_HEAD: &str = "bench_adjust_head";
const PASS_TC: &str = "bench_pass_tc";

/// `XDP_PASS`.
const PASS: u32 = 2;
/// `XDP_TX`.
const TX: u32 = 3;
/// `XDP_DROP`.
const DROP: u32 = 1;

const INNER_PAYLOAD: usize = 64;

pub fn run() -> Result<()> {
    let cpu = rounds::pin()?;
    let (pass, formats) = formats()?;
    let sections = vec![
        steady(pass)?,
        formats,
        many()?,
        transit::section()?,
        single()?,
    ];
    Report {
        benchmark: "dataplane",
        machine: rounds::machine(),
        conditions: vec![
            format!("the kernel's test run on CPU {cpu}, inner payload {INNER_PAYLOAD} bytes"),
            format!("batches of {BATCH} runs, {ROUNDS} rounds over all rows of a section"),
            "goals, for information: decapsulation ≤ 3 × pass; 10,000 tunnels ≤ 1.15 × one".into(),
        ],
        sections,
    }
    .publish()
}

/// A packet of a format, and what changes in it from run to run.
struct Subject {
    name: String,
    kernel: Kernel,
    frame: Vec<u8>,
    bench: Bench,
    /// Does what is measured, and restores the frame.
    program: &'static str,
}

impl Subject {
    /// `count` tunnels of `format`, told apart by their remote addresses or, without a choice, by
    /// what `number` says of the format.
    fn new(name: &str, format: Format, protocol: u16, count: u32) -> Result<Self> {
        let mut kernel = Kernel::for_benchmark()?;
        let inner = if protocol == ETH_P_IPV6 {
            let mut packet = inner_ipv6([0xfd; 16]);
            packet.extend([0; INNER_PAYLOAD]);
            packet
        } else {
            inner_udp(9, &[0; INNER_PAYLOAD])
        };
        let frame = Outer::new(format).around(protocol, &inner);
        let key = format.has(Format::KEY).then_some(KEY);
        let label = Label::new(key, format.has(Format::UDP));
        // The last four bytes of the source address.
        let address = if format.has(Format::IPV6) { 34 } else { 26 };
        let first = u32::from_be_bytes(if format.has(Format::IPV6) {
            [0, 0, 0, 10]
        } else {
            REMOTE
        });
        for index in 0..count {
            let key = from_behind(format, label, index);
            kernel.add_tunnel(key, &ingress(index, format));
        }
        let outer_length = format.outer_length();
        let (number_offset, first, end) = if format.has(Format::SEQUENCE) {
            (Ethernet::LEN + outer_length - 4, 1, u32::MAX)
        } else {
            (address, first, first + count)
        };
        let mut headers = [0; HEADERS];
        headers.copy_from_slice(&frame[..HEADERS]);
        let bench = Bench {
            headers,
            removed: i32::try_from(outer_length)?,
            number_offset: u32::try_from(number_offset)?,
            first,
            end,
            next: first,
            step: 1,
            ifindex: 0,
            padding: 0,
        };
        Ok(Self {
            name: name.into(),
            kernel,
            frame,
            bench,
            program: DECAPSULATE,
        })
    }

    fn time(&mut self, program: &str) -> Result<Duration> {
        // Numbers that the last batch used up are old.
        self.kernel.set_bench(&self.bench);
        self.kernel.set_sequence(0, Sequence::default());
        let (verdict, output, time) = self.kernel.run_timed(program, &self.frame, BATCH);
        ensure!(
            verdict == PASS && output.len() == self.frame.len(),
            "{program} over {}: verdict {verdict}, {} bytes; the figures would be of another thing",
            self.name,
            output.len()
        );
        Ok(time)
    }
}

/// All of `subjects`, decapsulated; the first rows are the pass program, with which they are
/// compared, and the move of a packet's start.
fn decapsulation(subjects: &mut [Subject]) -> Result<Vec<Row>> {
    const PARTS: usize = 4;
    let samples = interleaved(ROUNDS, subjects.len() * PARTS, |index| {
        let subject = &mut subjects[index / PARTS];
        let programs = [program::PASS, ADJUST_HEAD, RESTORE, subject.program];
        subject.time(programs[index % PARTS])
    })?;
    let (samples, _) = samples.as_chunks::<PARTS>();
    let mut rows = Vec::new();
    for (subject, [pass, adjust_head, restore, decapsulate]) in subjects.iter().zip(samples) {
        let parts = [&pass[..], adjust_head, restore, decapsulate];
        let ns = combined(parts, |[pass, adjust_head, restore, decapsulate]| {
            pass + decapsulate - restore + (adjust_head - pass) / 2.0
        });
        if rows.is_empty() {
            let entry = Spread::of(pass.clone());
            rows.push(row("pass program", entry, 1.0));
            let ns = combined([pass, adjust_head], |[pass, adjust_head]| {
                (adjust_head - pass) / 2.0
            });
            rows.push(row("moving a packet's start", ns, ns.median / entry.median));
        }
        rows.push(row(
            &subject.name,
            ns,
            ns.median / Spread::of(pass.clone()).median,
        ));
    }
    Ok(rows)
}

fn row(name: &str, ns: Spread, ratio: f64) -> Row {
    Row {
        name: name.into(),
        ns,
        ratio,
    }
}

/// The median of the pass program, and each format with one tunnel.
fn formats() -> Result<(f64, Section)> {
    let ipv6_key = Format::IPV6.with(Format::KEY, true);
    let mut subjects = [
        ("decapsulate IPv4", Format::default(), ETH_P_IPV4),
        (
            "decapsulate IPv4, IPv6 inside",
            Format::default(),
            ETH_P_IPV6,
        ),
        ("decapsulate IPv4, keyed", Format::KEY, ETH_P_IPV4),
        ("decapsulate IPv4, sequence", Format::SEQUENCE, ETH_P_IPV4),
        ("decapsulate IPv4, in UDP", Format::UDP, ETH_P_IPV4),
        ("decapsulate IPv6", Format::IPV6, ETH_P_IPV4),
        ("decapsulate IPv6, keyed", ipv6_key, ETH_P_IPV4),
    ]
    .into_iter()
    .map(|(name, format, protocol)| Subject::new(name, format, protocol, 1))
    .collect::<Result<Vec<_>>>()?;
    let rows = decapsulation(&mut subjects)?;
    let pass = rows.first().map_or(1.0, |row| row.ns.median);
    let section = Section {
        title: "decapsulation, one tunnel".into(),
        relative_to: "pass".into(),
        rows,
    };
    Ok((pass, section))
}

/// Each packet is of the next tunnel.
fn many() -> Result<Section> {
    const ROWS_OF_A_FAMILY: usize = 5;
    let mut subjects = Vec::new();
    for (family, format) in [("IPv4", Format::default()), ("IPv6", Format::IPV6)] {
        for count in [1, 100, 10_000] {
            let name = format!("decapsulate {family}, {count} in turn");
            subjects.push(Subject::new(&name, format, ETH_P_IPV4, count)?);
        }
        let name = format!("decapsulate {family}, 10000 scattered");
        let mut subject = Subject::new(&name, format, ETH_P_IPV4, 10_000)?;
        subject.bench.step = SCATTERED;
        subjects.push(subject);
        let name = format!("decapsulate {family}, 10000 by the hash");
        let mut subject = Subject::new(&name, format, ETH_P_IPV4, 10_000)?;
        subject.kernel.empty_slots();
        subjects.push(subject);
    }
    let mut rows = decapsulation(&mut subjects)?;
    rows.retain(|row| row.name.starts_with("decapsulate"));
    let mut one = 1.0;
    for (index, row) in rows.iter_mut().enumerate() {
        if index % ROWS_OF_A_FAMILY == 0 {
            one = row.ns.median;
        }
        row.ratio = row.ns.median / one;
    }
    Ok(Section {
        title: "tunnels in the maps".into(),
        relative_to: "one tunnel".into(),
        rows,
    })
}

/// Programs that leave the frame as it is.
fn steady(pass: f64) -> Result<Section> {
    let mut kernel = Kernel::for_benchmark()?;
    let plain = gre(ETH_P_IPV4, None, &inner_udp(9, &[0; INNER_PAYLOAD]));
    let unknown = gre(
        ETH_P_IPV4,
        Some(KEY + 1),
        &inner_udp(9, &[0; INNER_PAYLOAD]),
    );
    let unknown6 = Outer::new(Format::IPV6).around(ETH_P_IPV4, &inner_udp(9, &[0; INNER_PAYLOAD]));
    let unknown_secret = heartbeat(&probe(), &from_peer(b"another secret"));
    let forged = heartbeat(&probe(), &forged());
    let subjects = [
        ("pass program", program::PASS, plain, PASS),
        (
            "TCP, left alone",
            program::UNDERLAY,
            underlay(PROTO_TCP, &[0; 64]),
            PASS,
        ),
        (
            "GRE of no tunnel over IPv4",
            program::UNDERLAY,
            unknown,
            PASS,
        ),
        (
            "GRE of no tunnel over IPv6",
            program::UNDERLAY,
            unknown6,
            PASS,
        ),
        (
            "heartbeat, wrong MAC, refused",
            program::UNDERLAY,
            forged,
            DROP,
        ),
        (
            "heartbeat, unknown secret, refused",
            program::UNDERLAY,
            unknown_secret,
            DROP,
        ),
    ];
    let samples = interleaved(ROUNDS, subjects.len(), |index| {
        let (name, program, frame, expected) = &subjects[index];
        let (verdict, _, time) = kernel.run_timed(program, frame, BATCH);
        ensure!(verdict == *expected, "{name}: verdict {verdict}");
        Ok(time)
    })?;
    let rows = subjects.iter().zip(samples).map(|((name, ..), samples)| {
        let ns = Spread::of(samples);
        row(name, ns, ns.median / pass)
    });
    Ok(Section {
        title: "frames left as they are".into(),
        relative_to: "pass".into(),
        rows: rows.collect(),
    })
}

/// What runs once over a fresh frame.
fn single() -> Result<Section> {
    let mut kernel = Kernel::for_benchmark()?;
    let plain = gre(ETH_P_IPV4, None, &inner_udp(9, &[0; INNER_PAYLOAD]));
    let from_stack = [
        &[2; 12][..],
        &ETH_P_IPV4.to_be_bytes(),
        &inner_udp(9, &[0; INNER_PAYLOAD]),
    ]
    .concat();
    let key = from_peer(b"cloudpack");
    let encapsulations = [
        ("encapsulate IPv4", Format::default()),
        ("encapsulate IPv4, keyed", Format::KEY),
        ("encapsulate IPv4, checksum", Format::CHECKSUM),
        ("encapsulate IPv4, in UDP", Format::UDP),
        ("encapsulate IPv6", Format::IPV6),
    ];
    let names = [
        "XDP program that passes",
        "heartbeat: verify and reply",
        "TC program that does nothing",
    ];
    let mut sequence = 0;
    let samples = interleaved(
        SINGLE_ROUNDS,
        names.len() + encapsulations.len(),
        |index| match index {
            0 => Ok(kernel.run_timed(program::PASS, &plain, 1).2),
            1 => {
                sequence += 1;
                let content = Content {
                    sequence,
                    ..probe()
                };
                let frame = heartbeat(&content, &key);
                let (verdict, _, time) = kernel.run_timed(program::UNDERLAY, &frame, 1);
                ensure!(verdict == TX, "a probe was not answered: verdict {verdict}");
                Ok(time)
            }
            2 => Ok(kernel.run_tc_timed(PASS_TC, &from_stack).2),
            _ => {
                let (name, format) = encapsulations[index - names.len()];
                kernel.set_egress(&egress(format));
                let (verdict, _, time) = kernel.run_tc_timed(program::TUNNEL_EGRESS, &from_stack);
                ensure!(verdict == tc::REDIRECT, "{name}: verdict {verdict}");
                Ok(time)
            }
        },
    )?;
    let all: Vec<&str> = names
        .into_iter()
        .chain(encapsulations.map(|(name, _)| name))
        .collect();
    let empty = [
        Spread::of(samples[0].clone()),
        Spread::of(samples[2].clone()),
    ];
    let rows = all
        .iter()
        .zip(samples)
        .enumerate()
        .map(|(index, (name, samples))| {
            let ns = Spread::of(samples);
            let [xdp, tc] = empty;
            let empty = if index < 2 { xdp } else { tc };
            row(name, ns, ns.median / empty.median)
        });
    Ok(Section {
        title: "one run over a fresh frame".into(),
        relative_to: "empty program".into(),
        rows: rows.collect(),
    })
}
