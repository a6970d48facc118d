//! What of a host must be well for it to own a group: an interface, a process, what a script finds.

use std::time::Duration;

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use router_agent::control::protocol::{MonitorState, MonitorStatus, Priorities};
use router_tests::{
    agent,
    article::{ROUTERS, Router, SWITCH},
    cluster::{Cluster, PATIENCE},
    lab::Process,
    poll,
};

const TRACKS: [&str; 3] = ["interface eth2", "process tracked", "script fit"];
/// What the script looks for.
const FIT: &str = "/run/fit";

fn config(router: Router) -> String {
    router.group_config(&format!(
        "set cluster group g service 10.0.0.254/24/eth1
set cluster group g monitor 127.0.0.1
set cluster group g track interface eth2
set cluster group g track process tracked interval 100
set cluster group g track process tracked fall 2
set cluster group g track script fit command '/usr/bin/test -e {FIT}'
set cluster group g track script fit interval 100
"
    ))
}

/// What is tracked counts for the priority alone.
fn weighted(router: Router) -> String {
    router.group_config(&format!(
        "set cluster group g service 10.0.0.254/24/eth1
set cluster group g track interface eth2 weight -20
set cluster group g track script fit command '/usr/bin/test -e {FIT}'
set cluster group g track script fit interval 100
set cluster group g track script fit weight 10
"
    ))
}

/// A pair both of which are fit, and their tracked processes.
struct Pair {
    processes: [Option<Process>; 2],
    cluster: Cluster,
}

impl Pair {
    fn start() -> Self {
        Self::start_with(config)
    }

    fn start_with(config: fn(Router) -> String) -> Self {
        let lab = router_tests::article::lab().unwrap();
        let processes = ROUTERS.map(|router| {
            let node = lab.node(router.name);
            node.exec(&["touch", FIT]).unwrap();
            Some(node.spawn("tracked", &mut tracked()).unwrap())
        });
        let cluster = Cluster::start_in(lab, config).unwrap();
        Self { processes, cluster }
    }

    /// Takes away what `track` wants of a router.
    fn damage(&mut self, track: &str, router: Router) -> Result<()> {
        let node = self.cluster.node(router);
        match track {
            "interface eth2" => self.cable(router, "down"),
            "process tracked" => {
                let process = self.processes[place(router)].take();
                process.context("it has ended before")?.kill()
            }
            _ => node.exec(&["rm", FIT]).map(drop),
        }
    }

    fn mend(&mut self, track: &str, router: Router) -> Result<()> {
        let node = self.cluster.node(router);
        match track {
            "interface eth2" => self.cable(router, "up"),
            "process tracked" => {
                let process = node.spawn("tracked", &mut tracked())?;
                self.processes[place(router)] = Some(process);
                Ok(())
            }
            _ => node.exec(&["touch", FIT]).map(drop),
        }
    }

    /// Sets the other end of the router's eth2, at the switch.
    fn cable(&self, router: Router, state: &str) -> Result<()> {
        let end = ["srv-a", "srv-c"][place(router)];
        let switch = self.cluster.lab.node(SWITCH);
        switch.exec(&["ip", "link", "set", end, state]).map(drop)
    }

    /// Waits until a router tells these priorities, its own and its peer's.
    fn await_priorities(&self, router: Router, own: u8, peer: u8) {
        poll::until(PATIENCE, || {
            let told = self.cluster.group(router)?.priorities;
            ensure!(
                told == Some(Priorities {
                    own,
                    peer: Some(peer)
                }),
                "it tells {told:?}"
            );
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.cluster.logs()));
    }

    /// Longer than the hold after which who is better asks.
    fn stays_active(&self, router: Router) {
        poll::throughout(Duration::from_secs(3), || {
            let state = self.cluster.group(router)?.state;
            ensure!(state == "active", "it is {state}");
            Ok(())
        })
        .unwrap();
    }

    fn track(&self, track: &str, router: Router) -> Result<MonitorStatus> {
        let monitors = self.cluster.group(router)?.monitors;
        let found = monitors.into_iter().find(|it| it.address == track);
        found.with_context(|| format!("{track} is not in the status"))
    }
}

fn tracked() -> Command {
    let mut command = Command::new("/bin/bash");
    command.args(["-c", "exec -a tracked sleep 1000"]);
    command
}

fn place(router: Router) -> usize {
    usize::from(router != ROUTERS[0])
}

#[test]
fn a_node_that_loses_one_leaves_the_group_and_says_which() {
    let mut pair = Pair::start();
    for track in TRACKS {
        let active = pair.cluster.settle_any().unwrap();
        let successor = active.peer();
        for router in ROUTERS {
            let found = pair.track(track, router).unwrap();
            assert_eq!((found.state, found.why), (MonitorState::Reachable, None));
        }
        pair.damage(track, active).unwrap();
        pair.cluster
            .await_active(successor, PATIENCE)
            .unwrap_or_else(|error| panic!("{track}: {error:#}\n{}", pair.cluster.logs()));
        let why = match track {
            "interface eth2" => "it has no carrier",
            "process tracked" => "no process of this name runs",
            _ => "exit status 1",
        };
        poll::until(PATIENCE, || {
            let text = pair.cluster.status_text(active)?;
            for line in [
                "(this node): Down (at least 1 monitor not reachable)\n",
                &format!("  Monitor {track}: Unreachable\n"),
                &format!(" {track}: {why}\n"),
                "  Monitor 127.0.0.1: Reachable\n",
            ] {
                ensure!(text.contains(line), "no {line:?} in {text}");
            }
            Ok(())
        })
        .unwrap();
        let node = pair.cluster.node(active);
        let line = agent::line_about_a_group(node, &format!("{track} is not well: {why}")).unwrap();
        assert_eq!(line.fields["group"], "g");
        assert_ne!(line.fields["epoch"], "0");
        let others = TRACKS.into_iter().filter(|other| *other != track);
        for other in others {
            let found = pair.track(other, active).unwrap();
            assert_eq!(found.state, MonitorState::Reachable, "{other}");
        }
        pair.mend(track, active).unwrap();
        pair.cluster.settle(successor).unwrap();
    }
}

#[test]
fn two_nodes_that_lose_the_same_do_not_both_let_go() {
    let mut pair = Pair::start();
    let active = pair.cluster.settle_any().unwrap();
    let [interface, ..] = TRACKS;
    pair.damage(interface, active.peer()).unwrap();
    poll::until(PATIENCE, || {
        let state = pair.cluster.group(active.peer())?.state;
        ensure!(state == "fault", "it is {state}");
        Ok(())
    })
    .unwrap();
    pair.damage(interface, active).unwrap();
    poll::until(PATIENCE, || {
        let found = pair.track(interface, active)?;
        ensure!(found.state == MonitorState::Unreachable);
        Ok(())
    })
    .unwrap();
    // Who lets go does so after a request of the other's, in much less.
    poll::throughout(Duration::from_secs(1), || {
        let state = pair.cluster.group(active)?.state;
        ensure!(state == "active", "it is {state}");
        Ok(())
    })
    .unwrap();
    // The other one is the better one as soon as it is fit.
    pair.mend(interface, active.peer()).unwrap();
    pair.cluster.await_active(active.peer(), PATIENCE).unwrap();
}

#[test]
fn what_has_a_weight_moves_the_group_to_the_node_of_higher_priority_and_no_other() {
    let mut pair = Pair::start_with(weighted);
    let active = pair.cluster.settle_any().unwrap();
    let successor = active.peer();
    pair.await_priorities(active, 110, 110);
    let [interface, _, script] = TRACKS;
    // The one that stands by is worse: nothing moves.
    pair.damage(interface, successor).unwrap();
    pair.await_priorities(active, 110, 90);
    // So is the active then: they are equal, and it is fit.
    pair.damage(interface, active).unwrap();
    pair.await_priorities(active, 90, 90);
    pair.stays_active(active);
    // What fails last makes the difference.
    pair.damage(script, active).unwrap();
    pair.await_priorities(successor, 90, 80);
    pair.cluster
        .await_active(successor, PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", pair.cluster.logs()));
    pair.cluster.settle(successor).unwrap();
    let text = pair.cluster.status_text(active).unwrap();
    for line in ["(this node): Active (standby)\n", "80, the peer's is 90\n"] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    let transitions = pair.cluster.group(active).unwrap().transitions;
    assert!(
        transitions
            .iter()
            .any(|it| it.to == "draining" && it.cause == "priority 80, the peer's is 90"),
        "{transitions:#?}"
    );
    assert!(
        transitions.iter().all(|it| it.to != "fault"),
        "{transitions:#?}"
    );
    // Without auto-failback equals stay as they are.
    pair.mend(script, active).unwrap();
    pair.await_priorities(successor, 90, 90);
    pair.stays_active(successor);
}
