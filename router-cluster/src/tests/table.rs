//! The transition table as the machine acts it out, compared with `table.txt`.

use std::fmt::Write as _;

use super::{ASKING, Bench, DRAINING, FORCED, IMPAIRED, OUT, OWNER, READY, ms, policy};
use crate::{Event, Forced, State};

type Step = fn(&mut Bench);

/// The rows' starting points, each reached by the events that lead there in life.
const STARTS: [(&str, State, Step); 12] = [
    ("Initializing", State::Initializing, Bench::tick),
    ("Standby", State::Standby, |b| b.hears(OWNER, 5)),
    ("Candidate (vacancy)", State::Candidate, |b| {
        b.hears(READY, 5);
        // The primary asks at once, the secondary after patience.
        if b.core.state() == State::Standby {
            b.run(ms(120));
        }
    }),
    ("Candidate (relief)", State::Candidate, |b| {
        b.hears(IMPAIRED, 5);
    }),
    ("Candidate (failback)", State::Candidate, |b| {
        b.hears(OWNER, 5);
        b.run(ms(2000));
    }),
    ("Active", State::Active, |b| {
        b.hears(OWNER, 5);
        b.hears(IMPAIRED, 5);
        b.hears(OUT, 5);
    }),
    ("Active, not well", State::Active, |b| {
        b.hears(IMPAIRED, 5);
        b.hears(OUT, 5);
        b.handle(Event::Monitors { ok: false });
    }),
    ("Draining", State::Draining, |b| {
        b.hears(IMPAIRED, 5);
        b.hears(OUT, 5);
        b.hears(READY, 6);
        b.handle(Event::Force(Forced::Standby));
    }),
    ("Draining, leaving", State::Draining, |b| {
        b.hears(IMPAIRED, 5);
        b.hears(OUT, 5);
        b.hears(READY, 6);
        b.handle(Event::Stop);
    }),
    ("Fault", State::Fault, |b| {
        b.hears(OWNER, 5);
        b.handle(Event::Monitors { ok: false });
    }),
    ("Active, resumed", State::Active, |b| {
        b.resume(OWNER, ms(100));
    }),
    ("Standby, resumed", State::Standby, |b| {
        b.resume(READY, ms(100));
    }),
];

/// The columns: what the peer becomes, and stays.
const PEERS: [(&str, Step); 13] = [
    ("Unknown (we were stopped)", |b| {
        b.speaking = false;
        b.now = b.now.after(ms(1000));
        b.tick();
    }),
    ("Silent", |b| {
        b.speaking = false;
        b.run(ms(40));
    }),
    ("Headless", |b| {
        b.says(b.peer.flags, b.peer.claim);
        b.peer.agent_age = ms(300);
        b.tick();
    }),
    ("Out", |b| b.hears(OUT, b.newest())),
    ("Ready", |b| b.hears(READY, b.newest())),
    ("Asking", |b| b.hears(ASKING, b.newest())),
    ("Asking, unaware of us", |b| {
        b.hears(ASKING, b.newest().saturating_sub(1));
    }),
    ("Owner", |b| b.hears(OWNER, b.newest())),
    ("Owner, higher epoch", |b| b.hears(OWNER, b.newest() + 1)),
    ("Impaired", |b| b.hears(IMPAIRED, b.newest())),
    ("Draining", |b| b.hears(DRAINING, b.newest())),
    ("Asking, forced", |b| b.hears(FORCED, b.newest())),
    ("Outdated", |b| b.hears(OWNER, b.newest().saturating_sub(1))),
];

/// One line: every transition of the next 2.5 s, with the milliseconds after which it came and its
/// cause, the peer staying what it is.
fn acted_out(node: u32, start: Step, peer: Step) -> String {
    let mut bench = Bench::with_floor(policy(node), 5);
    start(&mut bench);
    let _ = bench.core.transitions().count();
    let before = bench.now;
    peer(&mut bench);
    bench.run(ms(2500));
    let line = bench.core.transitions().fold(String::new(), |mut line, t| {
        let cause = format!("{:?}", t.cause);
        let cause = cause.split(' ').next().unwrap_or_default();
        let _ = write!(
            line,
            "  {} {} ({cause})",
            t.at.since(before).as_millis(),
            t.to
        );
        line
    });
    if line.is_empty() { "  ·".into() } else { line }
}

#[test]
fn the_machine_acts_out_the_table() {
    let mut table = String::new();
    for (node, role) in [(1, "primary"), (2, "secondary")] {
        for (start_name, state, start) in STARTS {
            // Only the primary asks for failback.
            if node == 2 && start_name == "Candidate (failback)" {
                continue;
            }
            let mut bench = Bench::new(policy(node));
            start(&mut bench);
            assert_eq!(bench.core.state(), state, "{role} {start_name}");
            let _ = writeln!(table, "{role}, {start_name}");
            for (peer_name, peer) in PEERS {
                let line = acted_out(node, start, peer);
                let _ = writeln!(table, "    {peer_name:<26}{line}");
            }
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/table.txt");
    if std::env::var_os("UPDATE_TABLE").is_some() {
        std::fs::write(path, &table).expect("table.txt is writable");
    }
    let expected = std::fs::read_to_string(path).expect("table.txt is there");
    for (line, (got, want)) in table.lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, want, "table.txt:{}", line + 1);
    }
    assert_eq!(table.lines().count(), expected.lines().count());
}
