//! Routers with an arbiter: who is active when nodes, paths and etcd fail, and what the status says.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use router_agent::control::protocol::{ArbiterStatus, GroupStatus};
use router_tests::{
    agent,
    article::{self, ARBITER, ARBITER_ADDRESS, PROTECT, RECORD, ROUTERS, Router},
    cluster::{Cluster, Fault, PATIENCE},
    etcd::Etcd,
    poll,
    status::{is_active, is_standby},
};

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];

/// A pair with its arbiter. Dropped first, the agents' end is not waited for.
struct Trio {
    cluster: Cluster,
    etcd: Etcd,
}

/// The primary active, and etcd well.
fn formed(term_ms: u32) -> Trio {
    formed_with(term_ms, "")
}

/// As [`formed`], with `more` lines.
fn formed_with(term_ms: u32, more: &'static str) -> Trio {
    let lab = article::lab_with_arbiter().unwrap();
    let etcd = Etcd::start(lab.node(ARBITER), ARBITER_ADDRESS, 3).unwrap();
    let arbiter = etcd.config();
    let cluster = Cluster::start_in(lab, move |router| {
        pair_config(router)
            + &arbiter
            + &timing(term_ms)
            + "set cluster agent-dead-interval 1000\n"
            + more
    })
    .unwrap();
    cluster.settle(PRIMARY).unwrap();
    let trio = Trio { cluster, etcd };
    trio.await_arbiter(PRIMARY, "connected").unwrap();
    trio
}

/// All but the arbiter.
fn pair_config(router: Router) -> String {
    router.article_config()
        + PROTECT
        + "set cluster keepalive-interval 10
set cluster dead-interval 100
"
}

fn timing(term_ms: u32) -> String {
    format!("set cluster arbiter etcd term {term_ms}\nset cluster arbiter etcd timeout 100\n")
}

impl Trio {
    fn group(&self, router: Router) -> Result<GroupStatus> {
        self.cluster.group(router)
    }

    fn arbiter(&self, router: Router) -> Result<ArbiterStatus> {
        self.group(router)?.arbiter.context("it has an arbiter")
    }

    fn await_arbiter(&self, router: Router, state: &str) -> Result<ArbiterStatus> {
        poll::until(PATIENCE, || {
            let arbiter = self.arbiter(router)?;
            ensure!(arbiter.state == state, "{arbiter:?}");
            Ok(arbiter)
        })
    }

    fn await_record(&self, router: Router, mode: &str) -> Result<()> {
        poll::until(PATIENCE, || {
            let group = self.group(router)?;
            ensure!(is_active(&group), "{group:?}");
            ensure!(self.value()?.contains(mode), "{}", self.value()?);
            Ok(())
        })
    }

    /// What etcd holds.
    fn value(&self) -> Result<String> {
        let node = self.cluster.lab.node(ARBITER);
        let newest = self.etcd.values_while(node, RECORD, |_| false)?.pop();
        newest.context("there is no record")
    }

    /// Waits until both routers say that what etcd holds cannot be, and what to do.
    fn await_disbelief(&self) {
        for router in ROUTERS {
            poll::until(PATIENCE, || {
                let unsound = self.arbiter(router)?.unsound.context("it is believed")?;
                ensure!(unsound.contains("wiped"), "{unsound}");
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs()));
            let status = self.cluster.status_text(router).unwrap();
            assert!(status.contains("force cluster active --i-know"), "{status}");
        }
    }

    /// Has the primary, which is active, write the record anew; both believe it then.
    fn rewrite_record(&self) {
        let epoch = self.group(PRIMARY).unwrap().epoch;
        let active = self.cluster.node(PRIMARY);
        agent::routerctl(active, &["force", "cluster", "active", "--i-know"]).unwrap();
        poll::until(PATIENCE, || {
            let value = self.value()?;
            ensure!(value.contains(&format!(r#""epoch":{epoch}"#)), "{value}");
            ensure!(self.arbiter(SECONDARY)?.unsound.is_none(), "not believed");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs()));
        self.cluster.settle(PRIMARY).unwrap();
    }

    fn logs(&self) -> String {
        self.cluster.logs()
    }
}

#[test]
fn a_pair_lives_on_grants_and_one_alone_on_the_record() {
    let mut trio = formed(1_500);
    trio.await_record(PRIMARY, "paired").unwrap();
    let status = trio.cluster.status_text(PRIMARY).unwrap();
    assert!(
        status.contains("Arbiter:") && status.contains("etcd connected"),
        "{status}"
    );
    assert!(!status.contains("Prefer:"), "{status}");

    // The standby dies.
    let epoch = trio.group(PRIMARY).unwrap().epoch;
    trio.cluster.inject(Fault::KillNode, SECONDARY).unwrap();
    trio.await_record(PRIMARY, "solo").unwrap();
    assert_eq!(trio.group(PRIMARY).unwrap().epoch, epoch, "{}", trio.logs());
    trio.cluster.heal(Fault::KillNode, SECONDARY).unwrap();
    trio.cluster.settle(PRIMARY).unwrap();
    trio.await_record(PRIMARY, "paired").unwrap();

    // The active dies.
    trio.cluster.inject(Fault::KillNode, PRIMARY).unwrap();
    let group = trio.cluster.await_active(SECONDARY, PATIENCE).unwrap();
    assert_eq!(group.epoch, epoch + 1, "{}", trio.logs());
    let activation = group
        .transitions
        .iter()
        .rfind(|it| it.to == "active")
        .unwrap();
    assert!(activation.stages.arbiter_asked_ns >= activation.stages.suspected_ns);
    assert!(activation.stages.arbiter_answered_ns >= activation.stages.arbiter_asked_ns);
    assert!(activation.stages.fence_open_ns >= activation.stages.arbiter_answered_ns);
    assert!(activation.stages.grants_closed_ns > 0, "{activation:?}");
    assert_eq!(activation.known.peer_finding, "kernel-silent");
    trio.cluster.heal(Fault::KillNode, PRIMARY).unwrap();
    trio.cluster.settle(SECONDARY).unwrap();
}

/// The node that has this file is the better one.
const BETTER: &str = "/run/better";
const BY_WEIGHT: &str =
    "set cluster group aws track script better command '/usr/bin/test -e /run/better'
set cluster group aws track script better interval 100
set cluster group aws track script better weight 10
";
/// Longer than a better node waits before it asks, and than an owner lives that is granted nothing.
const LONG: Duration = Duration::from_secs(6);

/// An owner that let go to one who cannot have the record would leave nobody.
#[test]
fn a_planned_move_waits_for_an_arbiter_that_is_away() {
    let mut trio = formed_with(1_500, BY_WEIGHT);
    trio.await_record(PRIMARY, "paired").unwrap();
    trio.etcd.kill_all().unwrap();
    let before = trio.group(PRIMARY).unwrap();
    let better = trio.cluster.node(SECONDARY);
    // An order does not wait, and whoever gave it hears so at once.
    let dropped = agent::routerctl_output(better, &["force", "cluster", "active"]).unwrap();
    let words = String::from_utf8_lossy(&dropped.stderr).into_owned();
    assert!(!dropped.status.success());
    assert!(words.contains("the arbiter cannot be reached"), "{words}");
    better.exec(&["touch", BETTER]).unwrap();
    trio.await_arbiter(SECONDARY, "unreachable")
        .unwrap_or_else(|error| panic!("{error:#}\n{}", trio.logs()));
    sleep(LONG);
    let after = trio.group(PRIMARY).unwrap();
    assert!(is_active(&after), "{}", trio.logs());
    assert_eq!(after.epoch, before.epoch);
    assert_eq!(after.transitions.len(), before.transitions.len());
    let arbiter = trio.cluster.lab.node(ARBITER);
    trio.etcd.start_all(arbiter).unwrap();
    trio.cluster
        .await_active(SECONDARY, PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", trio.logs()));
    trio.cluster.settle(SECONDARY).unwrap();
}

#[test]
fn a_cut_between_the_nodes_leaves_one_of_them_active() {
    let mut trio = formed(1_500);
    trio.cluster.inject(Fault::CutTunnel, PRIMARY).unwrap();
    // Whichever asked first.
    let active = poll::until(PATIENCE, || {
        let [a, c] = [trio.group(PRIMARY)?, trio.group(SECONDARY)?];
        ensure!(
            trio.value()?.contains("solo"),
            "the record is of before the cut"
        );
        match (is_active(&a), is_active(&c)) {
            (true, false) => Ok(PRIMARY),
            (false, true) => Ok(SECONDARY),
            both => anyhow::bail!("{both:?}"),
        }
    })
    .unwrap();
    let other = active.peer();
    // And nobody joins it.
    poll::throughout(Duration::from_secs(2), || {
        let (mine, its) = (trio.group(active)?, trio.group(other)?);
        ensure!(is_active(&mine) && !is_active(&its), "{mine:?} {its:?}");
        Ok(())
    })
    .unwrap();

    // Without the arbiter too it stops, and the other takes over.
    article::cut_from_arbiter(&trio.cluster.lab, active.name).unwrap();
    trio.cluster.await_active(other, PATIENCE).unwrap();
    poll::until(PATIENCE, || {
        let group = trio.group(active)?;
        ensure!(!is_active(&group), "{} is still active", active.name);
        Ok(())
    })
    .unwrap();
    let words = trio.await_arbiter(active, "timed-out").unwrap();
    assert!(words.remedy.unwrap().contains("timeout"));
    article::heal_to_arbiter(&trio.cluster.lab, active.name).unwrap();
    trio.cluster.heal(Fault::CutTunnel, PRIMARY).unwrap();
    trio.cluster.settle(other).unwrap();
}

#[test]
fn without_etcd_a_pair_goes_on_and_says_what_is_wrong() {
    let mut trio = formed(1_500);
    trio.await_record(PRIMARY, "paired").unwrap();
    trio.etcd.kill_member(0).unwrap();
    trio.etcd.kill_member(1).unwrap();
    for router in ROUTERS {
        trio.await_arbiter(router, "no-leader").unwrap();
    }
    trio.etcd.kill_member(2).unwrap();
    for router in ROUTERS {
        let arbiter = trio.await_arbiter(router, "unreachable").unwrap();
        assert!(
            arbiter.failures > 0 && arbiter.times.is_some(),
            "{arbiter:?}"
        );
    }
    assert!(is_active(&trio.group(PRIMARY).unwrap()), "{}", trio.logs());

    // Then nobody may be alone: who loses its peer stops.
    trio.cluster.inject(Fault::KillNode, SECONDARY).unwrap();
    poll::until(PATIENCE, || {
        let group = trio.group(PRIMARY)?;
        ensure!(!is_active(&group), "{group:?}");
        Ok(())
    })
    .unwrap();
    let transitions = trio.group(PRIMARY).unwrap().transitions;
    let stop = transitions.iter().rfind(|it| it.from == "active").unwrap();
    assert!(stop.cause.contains("nor the arbiter's record"), "{stop:?}");
    let arbiter = trio.cluster.lab.node(ARBITER);
    trio.etcd.start_all(arbiter).unwrap();
    trio.etcd.await_health(arbiter).unwrap();
    trio.cluster.await_active(PRIMARY, PATIENCE).unwrap();
}

#[test]
fn an_etcd_that_has_forgotten_is_not_believed_until_an_operator_says_so() {
    let mut trio = formed(1_500);
    trio.await_record(PRIMARY, "paired").unwrap();
    trio.etcd.wipe().unwrap();
    let arbiter = trio.cluster.lab.node(ARBITER);
    trio.etcd.start_all(arbiter).unwrap();
    trio.etcd.await_health(arbiter).unwrap();
    trio.await_disbelief();
    assert!(
        is_active(&trio.group(PRIMARY).unwrap()),
        "its grants are good"
    );
    let active = trio.cluster.node(PRIMARY);
    let refused = agent::routerctl_output(active, &["force", "cluster", "standby"]).unwrap();
    assert!(!refused.status.success());
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("wiped"), "{words}");

    trio.rewrite_record();
}

#[test]
fn what_is_no_record_is_deleted_by_hand_and_written_anew_by_word() {
    let trio = formed(1_500);
    trio.await_record(PRIMARY, "paired").unwrap();
    let epoch = trio.group(PRIMARY).unwrap().epoch;
    let arbiter = trio.cluster.lab.node(ARBITER);
    trio.etcd.put(arbiter, RECORD, "something else").unwrap();
    for router in ROUTERS {
        let remedy = trio.await_arbiter(router, "garbled").unwrap().remedy;
        assert!(remedy.unwrap().contains("--i-know"));
    }
    trio.etcd.delete(arbiter, RECORD).unwrap();
    trio.await_disbelief();
    trio.rewrite_record();
    assert_eq!(trio.group(PRIMARY).unwrap().epoch, epoch, "{}", trio.logs());
}

#[test]
fn a_running_pair_is_given_an_arbiter_whose_record_it_writes_by_word() {
    let lab = article::lab_with_arbiter().unwrap();
    let etcd = Etcd::start(lab.node(ARBITER), ARBITER_ADDRESS, 1).unwrap();
    let config = |router| pair_config(router) + "set cluster agent-dead-interval 10000\n";
    let cluster = Cluster::start_in(lab, config).unwrap();
    let mut trio = Trio { cluster, etcd };
    trio.cluster.settle(PRIMARY).unwrap();
    let before = trio.group(PRIMARY).unwrap();
    for router in [SECONDARY, PRIMARY] {
        let node = trio.cluster.node(router);
        let path = node.directory().join("candidate.conf");
        fs::write(&path, config(router) + &trio.etcd.config() + &timing(1_500)).unwrap();
        agent::routerctl(node, &["configure", "apply", path.to_str().unwrap()]).unwrap();
        trio.cluster.settle(PRIMARY).unwrap();
    }
    trio.await_disbelief();
    trio.rewrite_record();
    let after = trio.group(PRIMARY).unwrap();
    assert_eq!(after.transitions, before.transitions, "{}", trio.logs());
    // From now on it decides.
    trio.cluster.inject(Fault::KillNode, SECONDARY).unwrap();
    trio.await_record(PRIMARY, "solo").unwrap();
    assert_eq!(trio.group(PRIMARY).unwrap().epoch, before.epoch);
}

#[test]
fn an_operator_moves_the_group_and_hears_why_not() {
    let trio = formed(1_500);
    let [primary, secondary] = ROUTERS.map(|router| trio.cluster.node(router));
    let refused = agent::routerctl_output(secondary, &["force", "cluster", "standby"]).unwrap();
    assert!(!refused.status.success());
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("this node is not active"), "{words}");
    let wrong = ["force", "cluster", "active", "group", "lan"];
    let words = agent::routerctl_output(secondary, &wrong).unwrap().stderr;
    let words = String::from_utf8_lossy(&words).into_owned();
    assert!(
        words.contains("there is no group lan; there are: aws"),
        "{words}"
    );

    let wrong = ["force", "cluster", "standby", "--i-know"];
    let words = agent::routerctl_output(primary, &wrong).unwrap().stderr;
    let words = String::from_utf8_lossy(&words).into_owned();
    assert!(words.contains("leave the flag out"), "{words}");

    let done = agent::routerctl(primary, &["force", "cluster", "standby"]).unwrap();
    assert!(done.contains("hands the group over to vyatta-c"), "{done}");
    trio.cluster.settle(SECONDARY).unwrap();
    let done = agent::routerctl(primary, &["force", "cluster", "active", "group", "aws"]).unwrap();
    assert!(
        done.contains("vyatta-a is active, vyatta-a owns it"),
        "{done}"
    );
    trio.cluster.settle(PRIMARY).unwrap();
    assert!(is_standby(&trio.group(SECONDARY).unwrap()));

    // All of that is known after a restart, too.
    let before = trio.group(PRIMARY).unwrap().transitions;
    assert!(before.iter().any(|it| it.to == "draining"), "{before:?}");
    let mut trio = trio;
    let agent = trio.cluster.take_agent(PRIMARY).unwrap();
    assert!(agent.terminate().unwrap().success());
    trio.cluster.start_agent(PRIMARY).unwrap();
    trio.cluster.settle_any().unwrap();
    let after = trio.group(PRIMARY).unwrap().transitions;
    assert_eq!(after[..before.len()], before[..], "{}", trio.logs());
}
