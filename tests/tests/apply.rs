//! Configurations applied to running agents: what changes, what must not, and what comes back.

use std::{
    fs::{self, File, Permissions},
    io::Write as _,
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context as _, Result, ensure};
use router_agent::control::protocol::ConfigurationStatus;
use router_tests::{
    agent::{self, Agent},
    article::{self, FASTEST_TIMING, ROUTERS, Router, SERVER_ADDRESS},
    cluster::{Cluster, PATIENCE},
    lab::Node,
    poll,
    replacing::{self, Lasting, PACKETS, none_lost, tunnels, under_packets, under_traffic},
};
use rustix::process::Signal;
use serde::Deserialize;

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];

/// So many packets pass at least while intervals change on both nodes.
const TIMED: usize = 50_000;

/// However slow this machine is, an agent begins anew before its peer takes it for dead.
fn config(router: Router) -> String {
    replacing::config(router) + "set cluster agent-dead-interval 60000\n"
}

fn formed() -> Cluster {
    replacing::formed_with(config)
}

/// Writes a configuration that is not the one that the agent starts with.
fn candidate(node: &Node, text: &str) -> PathBuf {
    let path = node.directory().join("candidate.conf");
    fs::write(&path, text).unwrap();
    path
}

fn started_with(node: &Node) -> String {
    fs::read_to_string(node.directory().join("router.conf")).unwrap()
}

fn apply_output(node: &Node, text: &str, options: &[&str]) -> Output {
    let path = candidate(node, text);
    let mut words = vec!["configure", "apply", path.to_str().unwrap()];
    words.extend(options);
    agent::routerctl_output(node, &words).unwrap()
}

/// What `configure apply` prints; it must succeed.
fn apply(node: &Node, text: &str, options: &[&str]) -> String {
    let output = apply_output(node, text, options);
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        agent::log(node)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What `configure apply` says when it fails, which it must.
fn refused(node: &Node, text: &str) -> String {
    let output = apply_output(node, text, &[]);
    assert!(!output.status.success(), "it was applied");
    String::from_utf8(output.stderr).unwrap()
}

fn status(node: &Node) -> Result<ConfigurationStatus> {
    #[derive(Deserialize)]
    struct Document {
        configuration: ConfigurationStatus,
    }
    let text = agent::routerctl(node, &["show", "configuration", "--origin", "--json"])?;
    let Document { configuration } = serde_json::from_str(&text)?;
    Ok(configuration)
}

fn description(node: &Node) -> String {
    let tunnels = tunnels(node).unwrap();
    tunnels.first().unwrap().description.clone()
}

fn with_timing(router: Router, keepalive_ms: u32, dead_ms: u32) -> String {
    config(router)
        + &format!(
            "set cluster keepalive-interval {keepalive_ms}\nset cluster dead-interval {dead_ms}\n"
        )
}

#[test]
fn a_change_loses_no_packet_and_concerns_nothing_else() {
    let mut cluster = formed();
    let before = ROUTERS.map(|router| Lasting::of(&cluster, router).unwrap());
    let processes = ROUTERS.map(|router| cluster.agent(router).unwrap().id());
    let new = |router: Router| {
        let (Router { underlay, .. }, remote) = (router, router.peer().underlay);
        config(router)
            + &format!(
                "set interfaces tunnel tun7 encapsulation gre
set interfaces tunnel tun7 local-ip {underlay}
set interfaces tunnel tun7 remote-ip {remote}
set interfaces tunnel tun7 parameters ip key 7
set interfaces tunnel tun00 description 'to the other zone'
set cluster group aws monitor {SERVER_ADDRESS}
"
            )
    };
    let report = under_traffic(&mut cluster, &ROUTERS, &|cluster, router| {
        let changes = apply(cluster.node(router), &new(router), &[]);
        ensure!(
            changes.contains("+ interfaces tunnel tun00 description 'to the other zone'\n"),
            "{changes}"
        );
        ensure!(changes.lines().count() == 6, "{changes}");
        Ok(())
    });
    none_lost(&report, &cluster);
    assert!(report.sent() >= PACKETS, "{} sent", report.sent());
    assert_eq!(
        ROUTERS.map(|router| Lasting::of(&cluster, router).unwrap()),
        before
    );
    assert_eq!(
        ROUTERS.map(|router| cluster.agent(router).unwrap().id()),
        processes
    );
    for router in ROUTERS {
        let node = cluster.node(router);
        node.interface_index("tun7").unwrap();
        assert_eq!(description(node), "to the other zone");
        // The next start begins with it.
        assert_eq!(started_with(node), new(router));
        let comm = format!("/proc/{}/comm", cluster.agent(router).unwrap().id());
        assert_eq!(fs::read_to_string(comm).unwrap(), "router-agent\n");
    }
}

/// Has both nodes take another configuration, one after the other: no packet is lost, and what lasts is as `before`.
fn changes_without_loss(
    cluster: &mut Cluster,
    first: Router,
    new: &dyn Fn(Router) -> String,
    before: &[Lasting; 2],
) {
    let routers = [first, first.peer()];
    let report = under_packets(TIMED, cluster, &routers, &|cluster, router| {
        apply(cluster.node(router), &new(router), &[]);
        Ok(())
    });
    println!("{} first", first.name);
    none_lost(&report, cluster);
    assert_eq!(
        ROUTERS.map(|router| Lasting::of(cluster, router).unwrap()),
        *before,
        "{} first\n{}\n{}",
        first.name,
        new(first),
        cluster.logs()
    );
}

/// Slower, faster, and back: the first node to change has another timing than its peer meanwhile.
#[test]
fn timing_changes_in_either_order_of_nodes() {
    let mut cluster = formed();
    let before = ROUTERS.map(|router| Lasting::of(&cluster, router).unwrap());
    for (first, keepalive, dead) in [
        (PRIMARY, 500, 2_000),
        (SECONDARY, 50, 200),
        (SECONDARY, 400, 1_600),
        (PRIMARY, 50, 200),
    ] {
        println!("{keepalive}/{dead}");
        let new = |router| with_timing(router, keepalive, dead);
        changes_without_loss(&mut cluster, first, &new, &before);
    }
}

/// The same by the peer's grants: until the group has moved the owner counts on the shorter of the two lengths, and
/// its peer grants the longer; then both go by what both say.
#[test]
fn timing_of_grants_changes_in_either_order_of_nodes() {
    const SHORT_US: u64 = 150_000;
    const LONG_US: u64 = 1_500_000;
    let of = |router: Router, keepalive: u32, dead: u32, agent_dead: u32| {
        replacing::by_grants(router)
            + &format!(
                "set cluster keepalive-interval {keepalive}
set cluster dead-interval {dead}
set cluster agent-dead-interval {agent_dead}
"
            )
    };
    let mut cluster = replacing::formed_with(move |router| of(router, 50, 200, 60_000));
    let lengths_us = |cluster: &Cluster| {
        let counted = cluster.session(PRIMARY).unwrap().fence.lease_us;
        (counted, cluster.session(SECONDARY).unwrap().granting_us)
    };
    for (first, keepalive, dead, agent_dead, both_us) in [
        (PRIMARY, 500, 2_000, 90_000, LONG_US),
        (PRIMARY, 50, 200, 60_000, SHORT_US),
        (SECONDARY, 500, 2_000, 90_000, LONG_US),
        (SECONDARY, 50, 200, 60_000, SHORT_US),
    ] {
        let before = ROUTERS.map(|router| Lasting::of(&cluster, router).unwrap());
        println!("{keepalive}/{dead}");
        let new = |router| of(router, keepalive, dead, agent_dead);
        changes_without_loss(&mut cluster, first, &new, &before);
        assert_eq!(lengths_us(&cluster), (SHORT_US, LONG_US));
        for router in [PRIMARY, SECONDARY] {
            agent::routerctl(cluster.node(router), &["force", "cluster", "standby"]).unwrap();
            cluster.settle(router.peer()).unwrap();
        }
        assert_eq!(lengths_us(&cluster), (both_us, both_us));
    }
}

/// Which would tick too seldom for the peer, or not wait for the peer's ticks.
#[test]
fn an_agent_that_one_would_take_for_dead_meanwhile_is_refused() {
    let of = |keepalive: u32, dead: u32, agent_dead: u32| {
        with_timing(PRIMARY, keepalive, dead)
            + &format!("set cluster agent-dead-interval {agent_dead}\n")
    };
    let (quick, slow) = (of(1, 4, 100), of(500, 2_000, 3_000));
    for (present, next, why) in [
        (&quick, &slow, "this one would tick each 500ms"),
        (&slow, &quick, "its agent ticks each 500ms"),
    ] {
        let (lab, agent) = alone_with(present);
        let node = lab.node(PRIMARY.name);
        let said = refused(node, next);
        assert!(said.contains(why), "{said}");
        assert_eq!(&started_with(node), present);
        assert!(agent.terminate().unwrap().success());
    }
}

/// By its own word an active forwards for as long as its own configuration says.
#[test]
fn which_node_an_agents_interval_belongs_on_first_is_told() {
    let (lab, _agent) = alone();
    let node = lab.node(PRIMARY.name);
    let told = |agent_dead: u32| {
        let new = config(PRIMARY) + &format!("set cluster agent-dead-interval {agent_dead}\n");
        let output = apply_output(node, &new, &["--dry-run"]);
        let said = String::from_utf8(output.stderr).unwrap();
        let line = said.lines().find(|line| line.starts_with("note: "));
        line.unwrap_or_default().to_owned()
    };
    poll::until(PATIENCE, || {
        let said = told(90_000);
        ensure!(said.contains("90s instead of 60s belongs first on the node that stands by"));
        Ok(())
    })
    .unwrap();
    assert_eq!(told(30_000), "", "first on the one that is active");
    assert_eq!(told(60_000), "");
}

#[test]
fn what_is_wrong_changes_nothing() {
    let cluster = formed();
    let node = cluster.node(PRIMARY);
    let before = Lasting::of(&cluster, PRIMARY).unwrap();
    let present = config(PRIMARY);
    for (lines, words) in [
        ("set cluster dead-interval 60\nset clutser\n", "2 errors"),
        (
            "set interfaces ethernet eth9 fast-path enable\n",
            "interface eth9 does not exist",
        ),
        ("set cluster heartbeat-port 7000\n", "at 7000"),
        (
            "set cluster pre-shared-secret another\n",
            "previous-pre-shared-secret",
        ),
    ] {
        let said = refused(node, &(present.clone() + lines));
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("another"), "{said}");
    }
    assert_eq!(started_with(node), present);
    assert_eq!(Lasting::of(&cluster, PRIMARY).unwrap(), before);
    assert_eq!(status(node).unwrap().last_change, None);
    // Nor does what says the same.
    let same = apply(node, &(present.clone() + "# nothing\n"), &[]);
    assert_eq!(same, "nothing changes\n");
    assert_eq!(status(node).unwrap().last_change, None);
    assert!(started_with(node).ends_with("# nothing\n"));
}

/// The default said aloud changes nothing of what the router does, and is known from then on all the same.
#[test]
fn what_is_stated_to_no_effect_is_taken_in() {
    let (lab, agent) = alone();
    let node = lab.node(PRIMARY.name);
    let origin = || {
        let words = ["show", "configuration", "commands", "--origin"];
        let text = agent::routerctl(node, &words).unwrap();
        let line = text.lines().find(|line| line.contains("dead-interval 200"));
        line.map(ToOwned::to_owned)
    };
    let stated = "set cluster dead-interval 200";
    assert_eq!(origin().unwrap(), format!("{stated}  # default"));
    let new = config(PRIMARY) + stated + "\n";
    let said = apply(node, &new, &["--confirm-within", "600"]);
    assert!(said.contains("+ cluster dead-interval 200\n"), "{said}");
    assert!(said.contains("nothing to confirm"), "{said}");
    assert_eq!(origin().unwrap(), stated);
    assert_eq!(started_with(node), new);
    assert_eq!(status(node).unwrap().unconfirmed_for_ms, None);
    assert_eq!(apply(node, &new, &[]), "nothing changes\n");
    // It is what a change that fails goes back to.
    let _taken = node.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4_754)));
    let failed = refused(node, &(new.clone() + &tunnel_in_udp(PRIMARY)));
    assert!(failed.contains("went back"), "{failed}");
    assert_eq!(origin().unwrap(), stated);
    assert!(agent.terminate().unwrap().success());
}

/// Has the node's agent start with a file in a directory of its own; that directory.
fn apart(node: &Node) -> PathBuf {
    let directory = node.directory().join("apart");
    fs::create_dir(&directory).unwrap();
    symlink(
        directory.join("router.conf"),
        node.directory().join("router.conf"),
    )
    .unwrap();
    directory
}

/// Whether the agent, which has given up to read and write what is not for it, may write there.
fn let_write(directory: &Path, may: bool) {
    let mode = if may { 0o755 } else { 0o555 };
    fs::set_permissions(directory, Permissions::from_mode(mode)).unwrap();
}

/// The file would be written when all is done, which is too late.
#[test]
fn a_file_that_cannot_be_replaced_is_told_before_anything_changes() {
    let lab = article::lab().unwrap();
    let node = lab.node(PRIMARY.name);
    let directory = apart(node);
    let agent = alone_in(node, &config(PRIMARY));
    let_write(&directory, false);
    let new = config(PRIMARY) + "set interfaces tunnel tun00 description other\n";
    let said = refused(node, &new);
    assert!(said.contains("could not be replaced"), "{said}");
    assert_eq!(status(node).unwrap().last_change, None);
    assert_eq!(description(node), "");
    let_write(&directory, true);
    apply(node, &new, &[]);
    assert_eq!(started_with(node), new);
    assert!(agent.terminate().unwrap().success());
}

/// What lies beside it is not the agent's, and who might not read it may not.
#[test]
fn nothing_but_the_text_of_the_file_changes() {
    let lab = article::lab().unwrap();
    let node = lab.node(PRIMARY.name);
    let directory = apart(node);
    let agent = alone_in(node, &config(PRIMARY));
    let file = directory.join("router.conf");
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let of = |path: &Path| {
        let file = fs::metadata(path).unwrap();
        (file.uid(), file.gid(), file.mode() & 0o777)
    };
    let before = of(&file);
    let neighbour = directory.join("router.conf.new");
    let drafted = config(PRIMARY) + "set interfaces tunnel tun00 description drafted\n";
    fs::write(&neighbour, &drafted).unwrap();

    let given = config(PRIMARY) + "set interfaces tunnel tun00 description given\n";
    apply(node, &given, &[]);
    assert_eq!(started_with(node), given);
    assert_eq!(of(&file), before);
    let path = neighbour.to_str().unwrap();
    agent::routerctl(node, &["configure", "apply", path]).unwrap();
    assert_eq!(started_with(node), drafted);
    assert_eq!(fs::read_to_string(&neighbour).unwrap(), drafted);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);

    // A group that the agent may not give it to: better nobody than its own.
    let (uid, ..) = before;
    chown(&file, None, Some(4321)).unwrap();
    apply(node, &given, &[]);
    let (.., mode) = of(&file);
    assert_eq!((of(&file).0, mode), (uid, 0o600));
    assert!(agent.terminate().unwrap().success());
}

/// The way back is no reason not to route, but one not to leave.
#[test]
fn without_a_way_back_the_agent_runs_and_stays_as_it_is() {
    let lab = article::lab().unwrap();
    let node = lab.node(PRIMARY.name);
    let namespace = node
        .exec(&["stat", "-Lc", "%i", "/proc/self/ns/net"])
        .unwrap();
    let last_good = format!("/run/router/netns-{}.last-good", namespace.trim());
    node.run(|| fs::create_dir_all(&last_good))
        .unwrap()
        .unwrap();
    let agent = alone_in(node, &config(PRIMARY));
    let new = config(PRIMARY) + "set interfaces tunnel tun00 description other\n";
    let said = refused(node, &new);
    node.run(|| fs::remove_dir(&last_good)).unwrap().unwrap();
    assert!(said.contains("no way back"), "{said}");
    assert_eq!(description(node), "");
    assert!(agent::log(node).contains("no other configuration can be applied"));
    apply(node, &new, &[]);
    assert_eq!(description(node), "other");
    assert!(agent.terminate().unwrap().success());
}

fn tunnel_in_udp(router: Router) -> String {
    let (Router { underlay, .. }, remote) = (router, router.peer().underlay);
    format!(
        "set interfaces tunnel tun8 encapsulation gre-udp
set interfaces tunnel tun8 local-ip {underlay}
set interfaces tunnel tun8 remote-ip {remote}
"
    )
}

/// All checks pass, but the UDP port of the new tunnel is taken.
#[test]
fn a_start_that_fails_brings_the_last_good_configuration_back() {
    let mut cluster = formed();
    let before = Lasting::of(&cluster, PRIMARY).unwrap();
    let _taken = cluster
        .node(PRIMARY)
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4_754)))
        .unwrap()
        .unwrap();
    let report = under_traffic(&mut cluster, &[PRIMARY], &|cluster, router| {
        let node = cluster.node(router);
        let lines = tunnel_in_udp(router);
        let said = refused(node, &(config(router) + &lines));
        ensure!(said.contains("went back"), "{said}");
        ensure!(said.contains("in use"), "{said}");
        Ok(())
    });
    none_lost(&report, &cluster);
    assert_eq!(Lasting::of(&cluster, PRIMARY).unwrap(), before);
    let node = cluster.node(PRIMARY);
    assert_eq!(started_with(node), config(PRIMARY));
    let last = status(node).unwrap().last_change.unwrap();
    assert!(last.rolled_back.is_some());
    // It failed before the kernel was asked to check programs again, which takes the longest.
    let log = agent::log(node);
    assert!(!log.contains("tunnel=\"tun8\""), "{log}");
}

/// A start needs more than two thirds of five milliseconds.
#[test]
fn a_start_that_leaves_no_time_for_the_way_back_is_given_up() {
    let quick = config(PRIMARY) + FASTEST_TIMING + "set cluster agent-dead-interval 5\n";
    let (lab, agent) = alone_with(&quick);
    let node = lab.node(PRIMARY.name);
    let said = refused(
        node,
        &(quick.clone() + "set interfaces tunnel tun00 description late\n"),
    );
    assert!(said.contains("two thirds of agent-dead-interval"), "{said}");
    assert_eq!(description(node), "");
    assert_eq!(started_with(node), quick);
    assert!(agent.terminate().unwrap().success());
}

/// The kernel's number for the XDP program of an interface.
fn program_id(node: &Node, interface: &str) -> u32 {
    let link = node.exec(&["ip", "link", "show", interface]).unwrap();
    let (_, rest) = link
        .split_once("prog/xdp id ")
        .unwrap_or_else(|| panic!("no program on {interface}: {link}"));
    let id = rest.split_whitespace().next().unwrap();
    id.parse().unwrap()
}

/// Checking them takes the kernel most of the time that a start takes.
#[test]
fn a_change_goes_on_with_the_programs_that_there_are() {
    let (lab, agent) = alone();
    let node = lab.node(PRIMARY.name);
    let before = program_id(node, "eth0");
    let mut text = config(PRIMARY) + "set interfaces tunnel tun00 description other\n";
    apply(node, &text, &[]);
    assert_eq!(program_id(node, "eth0"), before);

    let taken = node.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4_754)));
    let said = refused(node, &(text.clone() + &tunnel_in_udp(PRIMARY)));
    assert!(said.contains("went back"), "{said}");
    drop(taken);
    assert_eq!(program_id(node, "eth0"), before);

    // One that none had before comes to those that there are.
    text += "set interfaces ethernet eth1 fast-path enable\n";
    apply(node, &text, &[]);
    assert_eq!(program_id(node, "eth0"), before);
    let lan = program_id(node, "eth1");
    assert_ne!(lan, before);
    apply(
        node,
        &(text + "# the same\nset interfaces tunnel tun00 description again\n"),
        &[],
    );
    assert_eq!(program_id(node, "eth1"), lan);
    assert!(agent.terminate().unwrap().success());
}

fn alone() -> (router_tests::lab::Lab, Agent) {
    alone_with(&config(PRIMARY))
}

fn alone_with(config: &str) -> (router_tests::lab::Lab, Agent) {
    let lab = article::lab().unwrap();
    let agent = alone_in(lab.node(PRIMARY.name), config);
    (lab, agent)
}

fn alone_in(node: &Node, config: &str) -> Agent {
    let agent = Agent::start(node, config).unwrap();
    poll::until(PATIENCE, || status(node)).unwrap();
    agent
}

#[test]
fn what_is_not_confirmed_is_taken_back() {
    let (lab, agent) = alone();
    let node = lab.node(PRIMARY.name);
    let present = config(PRIMARY);
    let new = |text: &str| {
        present.clone() + &format!("set interfaces tunnel tun00 description '{text}'\n")
    };
    let goes_back = || {
        poll::until(PATIENCE, || {
            let status = status(node)?;
            let last = status.last_change.context("no change")?;
            last.rolled_back.context("it still runs")
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", agent::log(node)))
    };
    apply(node, &new("once"), &["--confirm-within", "1"]);
    assert_eq!(goes_back(), "it was not confirmed in time");
    assert_eq!(description(node), "");
    assert_eq!(started_with(node), present);

    apply(node, &new("twice"), &["--confirm-within", "600"]);
    assert_eq!(description(node), "twice");
    assert!(status(node).unwrap().unconfirmed_for_ms.unwrap() > 500_000);
    assert_eq!(started_with(node), present);
    let said = refused(node, &new("meanwhile"));
    assert!(said.contains("waits to be confirmed"), "{said}");
    agent::routerctl(node, &["configure", "rollback"]).unwrap();
    assert_eq!(goes_back(), "an operator took it back");
    assert_eq!(description(node), "");

    apply(node, &new("thrice"), &["--confirm-within", "600"]);
    agent::routerctl(node, &["configure", "confirm"]).unwrap();
    assert_eq!(status(node).unwrap().unconfirmed_for_ms, None);
    assert_eq!(description(node), "thrice");
    assert_eq!(started_with(node), new("thrice"));

    // A process that dies while it waits is started again with what was good.
    apply(node, &new("too often"), &["--confirm-within", "600"]);
    agent.kill().unwrap();
    let again = Agent::start(node, &started_with(node)).unwrap();
    poll::until(PATIENCE, || status(node)).unwrap();
    assert_eq!(description(node), "thrice");
    assert!(again.terminate().unwrap().success());
}

#[test]
fn a_hangup_has_the_file_read_again() {
    let lab = article::lab().unwrap();
    let node = lab.node(PRIMARY.name);
    let directory = apart(node);
    let agent = alone_in(node, &config(PRIMARY));
    let wrong = config(PRIMARY) + "set clutser\n";
    agent::write_config(node, &wrong).unwrap();
    agent.signal(Signal::HUP).unwrap();
    poll::until(PATIENCE, || {
        let log = agent::log(node);
        ensure!(log.contains("the configuration stays as it is"), "{log}");
        Ok(())
    })
    .unwrap();
    assert_eq!(started_with(node), wrong);

    // The file says it already: nothing is written, also where nothing can be.
    let_write(&directory, false);
    let new = config(PRIMARY) + "set interfaces tunnel tun00 description again\n";
    agent::write_config(node, &new).unwrap();
    agent.signal(Signal::HUP).unwrap();
    poll::until(PATIENCE, || {
        let last = status(node)?.last_change.context("not yet")?;
        ensure!(last.rolled_back.is_none());
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent::log(node)));
    assert_eq!(description(node), "again");
    assert!(agent.terminate().unwrap().success());
}

#[test]
fn who_asks_need_not_wait_until_the_file_is_read() {
    let (lab, agent) = alone();
    let node = lab.node(PRIMARY.name);
    let path = node.directory().join("router.conf");
    let text = started_with(node);
    fs::remove_file(&path).unwrap();
    node.exec(&["mkfifo", path.to_str().unwrap()]).unwrap();
    agent.signal(Signal::HUP).unwrap();
    // It is open when the agent reads.
    let mut pipe = File::options().write(true).open(&path).unwrap();
    agent::routerctl(node, &["show", "cluster", "status"]).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, &text).unwrap();
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    poll::until(PATIENCE, || {
        let log = agent::log(node);
        ensure!(log.contains("router.conf changes nothing"), "{log}");
        Ok(())
    })
    .unwrap();
}

/// A file that was cut off, or a pipe by which nothing came.
#[test]
fn what_states_nothing_ends_no_router() {
    let (lab, agent) = alone();
    let node = lab.node(PRIMARY.name);
    let present = started_with(node);
    for nothing in ["", "# set cluster interface tun00\n", "/* nothing */\n"] {
        let said = refused(node, nothing);
        assert!(said.contains("candidate.conf states nothing"), "{said}");
    }
    assert_eq!(started_with(node), present);
    agent::write_config(node, "").unwrap();
    agent.signal(Signal::HUP).unwrap();
    poll::until(PATIENCE, || {
        let log = agent::log(node);
        ensure!(log.contains("states nothing"), "{log}");
        Ok(())
    })
    .unwrap();
    assert!(!status(node).unwrap().statements.is_empty());
}

#[test]
fn the_running_configuration_is_shown_without_its_secret() {
    let (lab, _agent) = alone();
    let node = lab.node(PRIMARY.name);
    let show = |options: &[&str]| {
        let words = [&["show", "configuration"], options].concat();
        agent::routerctl(node, &words).unwrap()
    };
    let text = show(&[]);
    assert!(
        text.contains("    tunnel tun00 {\n        address 169.254.0.1/24\n"),
        "{text}"
    );
    assert!(text.contains("    pre-shared-secret \"***\"\n"), "{text}");
    assert!(!text.contains("cloudpack"));
    assert!(show(&["--secrets"]).contains("    pre-shared-secret cloudpack\n"));
    let commands = show(&["commands", "--origin"]);
    for line in [
        "set cluster interface tun00",
        "set cluster dead-interval 200  # default",
    ] {
        assert!(commands.lines().any(|l| l == line), "{line} in\n{commands}");
    }
    // What is shown can be applied again, and changes nothing.
    let again = apply(node, &show(&["--secrets"]), &["--dry-run"]);
    assert_eq!(again, "nothing changes\n");
    let masked = refused(node, &text);
    assert!(
        masked.contains("stands for a secret that is not shown"),
        "{masked}"
    );
}
