//! Three nodes that contend for one record of a real etcd: by their transactions alone, and by the real core,
//! the real clock and the real way to the arbiter. They hear nothing of each other.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::{self, Receiver},
    },
    thread::{self, Scope, ScopedJoinHandle},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use router_agent::{
    agent::driver::Input,
    arbiter::{self, Desk, Question, record},
    clock,
    cluster::{
        Answer, ArbiterPolicy, Command, Core, Event, Mode, PeerReport, Policy, Prefer, Record,
        Request, State,
    },
    config,
};
use router_common::{
    identity::{Claim, Epoch, NodeId},
    lease::Length,
    time::BootTime,
};
use router_tests::{
    article::{ARBITER, RECORD},
    etcd::Etcd,
    lab::{Lab, Node, NodeSpec, Topology},
    poll,
};
use tokio::{
    runtime::{self, Runtime},
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

const ADDRESS: &str = "127.0.0.1";
const NODES: usize = 3;
const TERM: Duration = Duration::from_millis(600);
const TIMEOUT: Duration = Duration::from_millis(200);
const KEEPALIVE: Duration = Duration::from_millis(10);
const DEAD: Duration = Duration::from_millis(40);
const PATIENCE: Duration = Duration::from_secs(20);

fn lab() -> Lab {
    Lab::new(Topology::default().node(NodeSpec::new(ARBITER))).unwrap()
}

fn config(etcd: &Etcd) -> config::Etcd {
    config::Etcd {
        endpoints: etcd.endpoints(),
        tls: None,
        user: None,
        prefix: "/router".to_owned(),
        term: TERM,
        timeout: TIMEOUT,
    }
}

fn runtime() -> Runtime {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// Of the node at `place`.
fn id(place: usize) -> NodeId {
    NodeId(u32::try_from(place + 1).unwrap())
}

fn solo(epoch: Epoch, owner: NodeId) -> Record {
    Record {
        claim: Claim { epoch, owner },
        mode: Mode::Solo { term: TERM },
    }
}

/// All that the record has been, the oldest first.
fn history(node: &Node, etcd: &Etcd) -> Vec<Record> {
    let values = etcd.values_while(node, RECORD, |_| true).unwrap();
    let read = |value: &String| record::decode(value.as_bytes()).unwrap();
    values.iter().rev().map(read).collect()
}

#[test]
fn of_three_that_swap_at_once_one_owns_the_epoch_and_all_are_told_which() {
    let lab = lab();
    let node = lab.node(ARBITER);
    let etcd = Etcd::start(node, ADDRESS, 3).unwrap();
    let config = config::Etcd {
        timeout: PATIENCE,
        ..config(&etcd)
    };
    let race = async || {
        let clients = [(); NODES].map(|()| arbiter::client(&config).unwrap());
        let mut expected = None;
        let mut held = Vec::new();
        for epoch in (1..=100).map(Epoch) {
            let swap = |place: usize| {
                let record = solo(epoch, id(place));
                Request::Swap { expected, record }
            };
            let requests = [0, 1, 2].map(swap);
            let ask = |place: usize| clients[place].ask(RECORD, &requests[place]);
            let (a, b, c) = tokio::join!(ask(0), ask(1), ask(2));
            // A swap may have gone to two members, and the second may be the first to answer: then even the
            // winner is told by what was found.
            let told = [a, b, c].into_iter().enumerate().map(|(place, reply)| {
                match reply.outcome.unwrap() {
                    Answer::Swapped(revision) => (revision, solo(epoch, id(place))),
                    Answer::Found(Some(found)) => found,
                    other => panic!("{other:?}"),
                }
            });
            let mut told: Vec<_> = told.collect();
            told.dedup();
            let [(revision, record)] = told[..] else {
                panic!("nodes have been told different things: {told:?}");
            };
            expected = Some(revision);
            held.push(record);
        }
        held
    };
    let held = node.run(|| runtime().block_on(race())).unwrap();
    assert_eq!(history(node, &etcd), held);
}

/// For how long a node could have let packets pass.
#[derive(Clone, Copy, Debug)]
struct Authority {
    node: NodeId,
    epoch: Epoch,
    from: BootTime,
    until: BootTime,
}

/// What a test does to a node, and sees of it.
#[derive(Default)]
struct Control {
    dies: AtomicBool,
    is_stopped: AtomicBool,
    /// Under which epoch it is active; zero if it is not.
    active: AtomicU32,
}

impl Control {
    fn is_active(&self) -> bool {
        self.active.load(Ordering::SeqCst) != 0
    }
}

fn policy(place: usize) -> Policy {
    Policy {
        node: id(place),
        // Nobody that there is.
        peer: NodeId(9),
        keepalive: KEEPALIVE,
        dead: DEAD,
        prefer: Prefer::Availability,
        arbiter: Some(ArbiterPolicy {
            term: TERM,
            timeout: TIMEOUT,
            contenders: NODES,
        }),
        lease: Length::by_default(DEAD),
        agent_dead: 10 * DEAD,
        initial_wait: DEAD,
        auto_failback: false,
        failback_hold: DEAD,
        fault_hold: DEAD,
    }
}

/// A node's agent as far as it decides, until it dies; all the authority that it ever had. That of a node that
/// died or is stopped lasts as long as a kernel would let it.
fn lives(
    place: usize,
    control: &Control,
    ask: &UnboundedSender<Question>,
    inbox: &Receiver<Input>,
) -> Vec<Authority> {
    let mut core = Core::new(policy(place), clock::now());
    let mut had: Vec<Authority> = Vec::new();
    let mut holds = false;
    let mut next_tick = clock::now();
    while !control.dies.load(Ordering::SeqCst) {
        if control.is_stopped.load(Ordering::SeqCst) {
            thread::sleep(KEEPALIVE);
            continue;
        }
        let event = match inbox.recv_timeout(next_tick.since(clock::now())) {
            Ok(Input::Arbiter {
                group: _,
                number,
                sent,
                answer,
            }) => Event::Arbiter {
                number,
                sent,
                answer,
            },
            Ok(other) => panic!("the arbiter's desk says {other:?}"),
            Err(_) => {
                next_tick = clock::now().after(KEEPALIVE);
                Event::Tick(PeerReport::default())
            }
        };
        let begun = clock::now();
        for command in core.handle(event, begun) {
            if let Command::Ask { number, request } = command {
                let group = 0;
                // It has gone only if it has panicked, and then nobody comes to own the record.
                let _ = ask.send(Question {
                    group,
                    number,
                    request,
                });
            }
        }
        let epoch = core.own_epoch();
        match (core.mandate().opening, had.last_mut()) {
            (Some(opening), Some(last)) if holds && last.epoch == epoch => {
                last.until = opening.own_until;
            }
            (Some(opening), _) => had.push(Authority {
                node: id(place),
                epoch,
                from: begun,
                until: opening.own_until,
            }),
            (None, Some(last)) if holds => last.until = last.until.min(clock::now()),
            (None, _) => {}
        }
        holds = core.mandate().opening.is_some();
        let is_active = core.state() == State::Active;
        let active = if is_active { epoch.0 } else { 0 };
        control.active.store(active, Ordering::SeqCst);
    }
    control.active.store(0, Ordering::SeqCst);
    had
}

/// Starts the node at `place`.
fn born<'scope>(
    scope: &'scope Scope<'scope, '_>,
    node: &'scope Node,
    config: &'scope config::Etcd,
    place: usize,
    control: &'scope Control,
) -> ScopedJoinHandle<'scope, Vec<Authority>> {
    control.dies.store(false, Ordering::SeqCst);
    let (answers, inbox) = mpsc::channel();
    let (ask, questions) = unbounded_channel();
    let (reports, _unread) = unbounded_channel();
    let client = arbiter::client(config).unwrap();
    let desk = Desk::new(client, vec![RECORD.to_owned()], answers, reports);
    // It ends when nobody can ask any more.
    scope.spawn(move || node.run(|| runtime().block_on(desk.run(questions))));
    scope.spawn(move || lives(place, control, &ask, &inbox))
}

/// Waits until one node is active, and is not `other`; which.
fn successor_of(other: Option<usize>, controls: &[Control]) -> Result<usize> {
    poll::until(PATIENCE, || {
        let mut places = 0..controls.len();
        let found = places.find(|&place| Some(place) != other && controls[place].is_active());
        match found {
            Some(place) => Ok(place),
            None => bail!("none but {other:?} is active"),
        }
    })
}

#[test]
fn of_three_one_is_active_at_a_time_and_another_when_it_dies_or_stops() {
    let lab = lab();
    let node = lab.node(ARBITER);
    let etcd = Etcd::start(node, ADDRESS, 3).unwrap();
    let config = config(&etcd);
    let controls: [Control; NODES] = Default::default();
    let mut had: Vec<_> = thread::scope(|scope| {
        let mut lives = [0, 1, 2].map(|place| born(scope, node, &config, place, &controls[place]));
        let mut ended = Vec::new();
        let story = || -> Result<()> {
            let mut active = successor_of(None, &controls)?;
            for _ in 0..3 {
                let fallen = &controls[active];
                fallen.dies.store(true, Ordering::SeqCst);
                let next = successor_of(Some(active), &controls)?;
                let again = born(scope, node, &config, active, fallen);
                ended.push(std::mem::replace(&mut lives[active], again));
                active = next;

                let fallen = &controls[active];
                fallen.is_stopped.store(true, Ordering::SeqCst);
                let next = successor_of(Some(active), &controls)?;
                fallen.is_stopped.store(false, Ordering::SeqCst);
                poll::until(PATIENCE, || {
                    ensure!(
                        !fallen.is_active(),
                        "it does not see that it has been succeeded"
                    );
                    Ok(())
                })?;
                active = next;
            }
            Ok(())
        }();
        for control in &controls {
            control.dies.store(true, Ordering::SeqCst);
        }
        let had = ended.into_iter().chain(lives);
        let had = had.flat_map(|life| life.join().unwrap()).collect();
        story.unwrap();
        had
    });
    had.sort_by_key(|authority| authority.from);
    assert!(had.len() > 6, "it moved six times: {had:#?}");
    for pair in had.windows(2) {
        let [earlier, later] = pair else { continue };
        assert!(
            earlier.until <= later.from && earlier.epoch < later.epoch,
            "{earlier:?} and {later:?}"
        );
    }
    // What the nodes believe is what etcd has held: an epoch has one owner, and goes up by one.
    let held = history(node, &etcd);
    for pair in held.windows(2) {
        let [Claim { epoch, owner }, next] = [pair[0].claim, pair[1].claim];
        let renewed = next == Claim { epoch, owner };
        let claimed = Some(next.epoch) == epoch.next() && next.owner != NodeId::NONE;
        assert!(renewed || claimed, "{pair:?}");
    }
    for Authority { node, epoch, .. } in had {
        let record = solo(epoch, node);
        assert!(held.contains(&record), "{record:?} is in none of {held:#?}");
    }
}
