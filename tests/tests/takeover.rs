//! What moves with a group besides addresses, and what is left when an agent dies amid a step.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    time::Duration,
};

use anyhow::{Result, ensure};
use router_tests::{
    agent::{self, Agent},
    article::{self, ROUTERS, Router},
    cluster::{Cluster, PATIENCE},
    lab::Node,
    poll,
    traced::{Halted, threads},
};
use rustix::process::Signal;

const ADDRESS: &str = "10.0.0.254/24";
const NETWORK: &str = "10.77.0.0/16";
/// The script notes how it was called, and stands still where a file tells it to.
const SCRIPT: &str = r#"#!/bin/sh
for verb; do :; done
mkdir -p /run/thing
echo "$@" >> /run/thing/calls
if test -e "/run/thing/hang-$1-$verb"; then
    echo > "/run/thing/hangs"
    sleep 1000
fi
case $verb in
    start) echo "$ROUTER_GROUP $ROUTER_EPOCH" > "/run/thing/up-$1" ;;
    stop) rm -f "/run/thing/up-$1" ;;
    status) test -e "/run/thing/up-$1" || exit 3 ;;
esac
"#;
const NOTIFY: &str = r#"#!/bin/sh
mkdir -p /run/thing
echo "$@ $ROUTER_STATE $ROUTER_FORMER_STATE" >> /run/thing/notified
"#;

fn config(router: Router) -> String {
    router.group_config(
        "set cluster agent-dead-interval 1000
set cluster group g service 10.0.0.254/24/eth1
set cluster group g service thing::one
set cluster group g service 'thing::two::a b; reboot'
set cluster group g route 10.77.0.0/16 next-hop 10.0.0.100
set cluster group g notify /etc/init.d/told
",
    )
}

/// The routers have the scripts, and nothing of the machine's own. Which of them is active is left to
/// them.
fn started() -> (Cluster, Router) {
    let lab = article::lab().unwrap();
    for router in ROUTERS {
        let node = lab.node(router.name);
        let scripts = node.directory().join("init.d");
        fs::create_dir_all(&scripts).unwrap();
        for (name, text) in [("thing", SCRIPT), ("told", NOTIFY)] {
            let path = scripts.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let scripts = scripts.to_str().unwrap();
        node.exec(&["mount", "--bind", scripts, "/etc/init.d"])
            .unwrap();
    }
    let cluster = Cluster::start_in(lab, config).unwrap();
    let active = cluster.settle_any().unwrap();
    cluster.await_active(active, PATIENCE).unwrap();
    (cluster, active)
}

fn shell(node: &Node, command: &str) -> Result<String> {
    node.exec(&["sh", "-c", command])
}

fn calls(cluster: &Cluster, router: Router) -> String {
    shell(
        cluster.node(router),
        "grep -v status /run/thing/calls || true",
    )
    .unwrap()
}

/// What of the group's resources is on a router.
fn held(cluster: &Cluster, router: Router) -> Result<Vec<&'static str>> {
    let node = cluster.node(router);
    let text = shell(
        node,
        "ip -brief address show eth1; ip route show proto 83; ls /run/thing 2>/dev/null || true",
    )?;
    let all = [ADDRESS, NETWORK, "up-one", "up-two"];
    Ok(all.into_iter().filter(|what| text.contains(what)).collect())
}

fn holds_all(cluster: &Cluster, router: Router) {
    poll::until(PATIENCE, || {
        let held = held(cluster, router)?;
        ensure!(held.len() == 4, "{} holds only {held:?}", router.name);
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
}

fn holds_nothing(cluster: &Cluster, router: Router) {
    poll::until(PATIENCE, || {
        let held = held(cluster, router)?;
        ensure!(held.is_empty(), "{} still holds {held:?}", router.name);
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
}

/// What keepalived's scripts would be told of a node's.
fn priority(router: Router) -> u8 {
    if router == ROUTERS[0] { 100 } else { 50 }
}

#[test]
fn all_kinds_move_in_order_and_back_in_reverse() {
    let (mut cluster, active) = started();
    let successor = active.peer();
    holds_all(&cluster, active);
    holds_nothing(&cluster, successor);
    assert_eq!(
        calls(&cluster, active),
        "one start\ntwo a b; reboot start\n"
    );
    let told = shell(cluster.node(active), "cat /run/thing/up-one").unwrap();
    assert!(told.starts_with("g "), "{told}");

    let agent = cluster.take_agent(active).unwrap();
    assert!(agent.terminate().unwrap().success());
    holds_nothing(&cluster, active);
    let calls_there = calls(&cluster, active);
    assert!(
        calls_there.ends_with("two a b; reboot stop\none stop\n"),
        "{calls_there}"
    );
    // It has heard of the stop before the agent ended.
    let told = shell(cluster.node(active), "cat /run/thing/notified").unwrap();
    let last = told.lines().last().unwrap();
    let expected = format!("GROUP g FAULT {} fault ", priority(active));
    assert!(last.starts_with(&expected), "{told}");
    holds_all(&cluster, successor);
    let priority = priority(successor);
    poll::until(PATIENCE, || {
        let told = shell(cluster.node(successor), "cat /run/thing/notified")?;
        let first = format!("GROUP g BACKUP {priority} ");
        let last = format!("GROUP g MASTER {priority} active candidate\n");
        ensure!(told.starts_with(&first) && told.ends_with(&last), "{told}");
        Ok(())
    })
    .unwrap();
}

/// A bus that lets everybody in and answers nobody.
#[test]
fn a_check_of_what_does_not_answer_ends() {
    const LONGEST: Duration = Duration::from_secs(30);
    let lab = article::lab().unwrap();
    let router = ROUTERS[0];
    let node = lab.node(router.name);
    node.exec(&["mkdir", "-p", "/run/dbus"]).unwrap();
    let bus = node.run(|| UnixListener::bind("/run/dbus/system_bus_socket"));
    let _bus = bus.unwrap().unwrap();
    let config = router.group_config("set cluster group g service thing.service\n");
    let _agent = Agent::start(node, &config).unwrap();
    poll::until(LONGEST, || {
        let group = agent::status(node)?.groups.remove(0);
        let error = group.services[0].error.clone().unwrap_or_default();
        ensure!(error.contains("nothing came of it within 10s"), "{error:?}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent::log(node)));
}

#[test]
fn what_others_take_away_is_taken_again() {
    let (cluster, active) = started();
    holds_all(&cluster, active);
    let node = cluster.node(active);
    shell(
        node,
        "ip address delete 10.0.0.254/24 dev eth1; ip route delete 10.77.0.0/16",
    )
    .unwrap();
    holds_all(&cluster, active);
}

/// As by a script of the operator's, or by hand.
#[test]
fn an_address_that_is_there_already_is_taken_and_released_as_any_other() {
    let (mut cluster, active) = started();
    let successor = active.peer();
    holds_all(&cluster, active);
    let words = ["ip", "address", "add", ADDRESS, "dev", "eth1"];
    cluster.node(successor).exec(&words).unwrap();
    let agent = cluster.take_agent(active).unwrap();
    assert!(agent.terminate().unwrap().success());
    cluster.await_active(successor, PATIENCE).unwrap();
    holds_all(&cluster, successor);
    let agent = cluster.take_agent(successor).unwrap();
    assert!(agent.terminate().unwrap().success());
    holds_nothing(&cluster, successor);
}

#[test]
fn what_has_no_script_any_more_is_released_all_the_same() {
    let (cluster, active) = started();
    holds_all(&cluster, active);
    let node = cluster.node(active);
    shell(node, "mv /etc/init.d/thing /run/thing/thing").unwrap();
    agent::routerctl(node, &["force", "cluster", "standby"]).unwrap();
    cluster.await_active(active.peer(), PATIENCE).unwrap();
    poll::until(PATIENCE, || {
        let line = agent::line_about_a_group(node, "thing::one has no script any more")?;
        ensure!(line.fields["group"] == "g");
        let noted = shell(node, "cat /run/router/*.started.json")?;
        ensure!(noted.trim() == "[]", "{noted}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
}

/// A place where an agent dies.
#[derive(Clone, Copy, Debug)]
enum Amid {
    Start(&'static str),
    Stop(&'static str),
}

const ALL: [Amid; 4] = [
    Amid::Start("one"),
    Amid::Start("two"),
    Amid::Stop("two"),
    Amid::Stop("one"),
];

/// Has the active leave, and kills an agent with SIGKILL amid a step of that; which one.
fn dies(cluster: &mut Cluster, active: Router, amid: Amid) -> Router {
    let victim = match amid {
        // It takes over from the one that leaves.
        Amid::Start(_) => active.peer(),
        Amid::Stop(_) => active,
    };
    let (name, verb) = match amid {
        Amid::Start(name) => (name, "start"),
        Amid::Stop(name) => (name, "stop"),
    };
    let node = cluster.node(victim);
    shell(
        node,
        &format!("mkdir -p /run/thing; touch /run/thing/hang-{name}-{verb}"),
    )
    .unwrap();
    let leaver = cluster.take_agent(active).unwrap();
    leaver.signal(Signal::TERM).unwrap();
    let node = cluster.node(victim);
    poll::until(PATIENCE, || shell(node, "cat /run/thing/hangs"))
        .unwrap_or_else(|error| panic!("{amid:?}: {error:#}\n{}", cluster.logs()));
    shell(node, "rm /run/thing/hang*").unwrap();
    match amid {
        Amid::Start(_) => {
            cluster.take_agent(victim).unwrap().kill().unwrap();
            drop(leaver);
        }
        Amid::Stop(_) => leaver.kill().unwrap(),
    }
    victim
}

#[test]
fn an_agent_killed_amid_a_step_is_made_up_for_by_the_next_that_goes_on() {
    for amid in [Amid::Start("one"), Amid::Start("two")] {
        let (mut cluster, active) = started();
        let victim = dies(&mut cluster, active, amid);
        // Nobody else is there.
        cluster.start_agent(victim).unwrap();
        cluster.await_active(victim, PATIENCE).unwrap();
        holds_all(&cluster, victim);
    }
}

#[test]
fn an_agent_killed_amid_a_step_leaves_nothing_to_the_next_that_starts_afresh() {
    for amid in ALL {
        let (mut cluster, active) = started();
        let victim = dies(&mut cluster, active, amid);
        let other = victim.peer();
        if let Amid::Start(_) = amid {
            cluster.start_agent(other).unwrap();
        }
        cluster.await_active(other, PATIENCE).unwrap();
        // The other has the group, so this one does not go on with it.
        cluster.start_agent(victim).unwrap();
        holds_nothing(&cluster, victim);
        holds_all(&cluster, other);
    }
}

/// Where something of a takeover begins: a message to the kernel or the network, a file, a process.
fn begins_something(call: i64) -> bool {
    [
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_openat,
        libc::SYS_clone,
        libc::SYS_clone3,
    ]
    .contains(&call)
}

/// Has the active leave, and kills an agent with SIGKILL when its takeover thread is about to begin its
/// `number`th such thing of that. Whether it came to it.
fn dies_at(cluster: &mut Cluster, active: Router, victim: Router, number: usize) -> bool {
    let process = cluster.agent(victim).unwrap().id();
    let all = threads(process);
    let of_takeover = |(_, name): &&(i32, String)| name == "takeover";
    let (thread, _) = all.iter().find(of_takeover).unwrap();
    let halted = Halted::new(*thread).unwrap();
    let mut leaver = cluster.take_agent(active).unwrap();
    leaver.signal(Signal::TERM).unwrap();
    let mut begun = 0;
    let comes_to_it = halted.runs_to_call(|call| {
        begun += usize::from(begins_something(call));
        begun == number
    });
    if comes_to_it.unwrap() {
        let dying = if victim == active {
            &leaver
        } else {
            cluster.agent(victim).unwrap()
        };
        dying.signal(Signal::KILL).unwrap();
        halted.await_end().unwrap();
        if victim != active {
            cluster.take_agent(victim).unwrap().kill().unwrap();
        }
        leaver.wait_within(PATIENCE).unwrap();
        return true;
    }
    leaver.wait_within(PATIENCE).unwrap();
    false
}

#[test]
fn an_agent_killed_between_any_two_steps_of_a_takeover_is_made_up_for() {
    /// More of these there are when all is taken: addresses are announced again.
    const THINGS: usize = 12;
    let (mut cluster, _) = started();
    let mut left = BTreeSet::new();
    for number in 1..=THINGS {
        let active = cluster.settle_any().unwrap();
        let victim = active.peer();
        assert!(dies_at(&mut cluster, active, victim, number), "{number}");
        left.insert(held(&cluster, victim).unwrap());
        if number % 2 == 0 {
            // Nobody else is there.
            cluster.start_agent(victim).unwrap();
            cluster.await_active(victim, PATIENCE).unwrap();
            holds_all(&cluster, victim);
            cluster.start_agent(active).unwrap();
        } else {
            cluster.start_agent(active).unwrap();
            cluster.await_active(active, PATIENCE).unwrap();
            cluster.start_agent(victim).unwrap();
            holds_nothing(&cluster, victim);
            holds_all(&cluster, active);
        }
    }
    for part in [&[][..], &[ADDRESS], &[ADDRESS, NETWORK]] {
        assert!(left.contains(part), "never {part:?}: {left:?}");
    }
}

#[test]
fn an_agent_killed_between_any_two_steps_of_a_release_leaves_nothing_to_the_next() {
    let (mut cluster, _) = started();
    let mut left = BTreeSet::new();
    for number in 1.. {
        let active = cluster.settle_any().unwrap();
        let dies = dies_at(&mut cluster, active, active, number);
        left.insert(held(&cluster, active).unwrap());
        let successor = active.peer();
        cluster.await_active(successor, PATIENCE).unwrap();
        if !dies {
            break;
        }
        cluster.start_agent(active).unwrap();
        holds_nothing(&cluster, active);
        holds_all(&cluster, successor);
    }
    for part in [&[][..], &[ADDRESS], &[ADDRESS, NETWORK]] {
        assert!(left.contains(part), "never {part:?}: {left:?}");
    }
}

#[test]
fn a_step_that_hangs_delays_neither_heartbeats_nor_the_way_back() {
    let (mut cluster, active) = started();
    let successor = active.peer();
    let node = cluster.node(successor);
    shell(node, "mkdir -p /run/thing; touch /run/thing/hang-one-start").unwrap();
    let leaver = cluster.take_agent(active).unwrap();
    assert!(leaver.terminate().unwrap().success());
    poll::until(PATIENCE, || {
        shell(cluster.node(successor), "cat /run/thing/hangs")
    })
    .unwrap();
    // The script may hang for longer than all of this may take.
    cluster.start_agent(active).unwrap();
    poll::until(PATIENCE, || {
        let group = cluster.group(active)?;
        ensure!(group.peer_finding == "alive", "{}", group.peer_finding);
        Ok(())
    })
    .unwrap();
    poll::throughout(Duration::from_secs(1), || {
        let group = cluster.group(active)?;
        ensure!(group.peer_finding == "alive", "{}", group.peer_finding);
        Ok(())
    })
    .unwrap();
    let agent = cluster.take_agent(successor).unwrap();
    assert!(agent.terminate().unwrap().success());
    holds_nothing(&cluster, successor);
    holds_all(&cluster, active);
    let left = shell(cluster.node(successor), "pgrep -x -r R,S,D sleep || true").unwrap();
    assert_eq!(left, "", "the script that hung is still there");
}
