//! A unit of a real systemd that moves with the group. Not run by default: it needs systemd and D-Bus.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::ensure;
use router_tests::{
    agent,
    article::{self, ROUTERS, Router},
    cluster::{Cluster, PATIENCE},
    lab::{Lab, Node, Process},
    poll,
};
use rustix::process::Signal;

const SECONDARY: Router = ROUTERS[1];
const BUS: &str = "/run/dbus/system_bus_socket";
const RUNTIME: &str = "/run/manager";
const UNIT: &str = "thing.service";
/// Its start and its stop last for as long as a file says so.
const UNIT_FILE: &str = r"[Service]
ExecStartPre=/bin/sh -c 'while test -e /run/hang-start; do touch /run/hangs; sleep 0.1; done'
SuccessExitStatus=SIGTERM
ExecStart=/bin/sleep 1000
ExecStop=/bin/sh -c 'while test -e /run/hang-stop; do touch /run/hangs; sleep 0.1; done'
";

fn config(router: Router) -> String {
    router.group_config(&format!("set cluster group g service {UNIT}\n"))
}

/// A node has no systemd of its own as process 1; a user's manager speaks the same interface, here at
/// the system bus's address, which is the node's alone.
fn start_manager(node: &Node) -> [Process; 2] {
    let units = format!("{RUNTIME}/systemd/user");
    let script = format!(
        "mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd/system /run/dbus {units}
cat > {units}/{UNIT} << 'END'
{UNIT_FILE}END
printf '[Unit]\\nDefaultDependencies=no\\n' > {units}/default.target
chmod 700 {RUNTIME}"
    );
    node.exec(&["sh", "-e", "-c", &script]).unwrap();
    let log = fs::File::create(node.directory().join("systemd.log")).unwrap();
    let start = |name: &str, command: &mut Command| {
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log.try_clone().unwrap());
        node.spawn(name, command).unwrap()
    };
    let address = format!("unix:path={BUS}");
    let mut bus = Command::new("dbus-daemon");
    bus.args(["--session", "--nofork", "--nopidfile", "--address"])
        .arg(&address);
    let bus = start("dbus-daemon", &mut bus);
    poll::until(PATIENCE, || node.exec(&["test", "-S", BUS])).unwrap();
    let mut manager = Command::new("/usr/lib/systemd/systemd");
    manager
        .arg("--user")
        .env("XDG_RUNTIME_DIR", RUNTIME)
        .env("DBUS_SESSION_BUS_ADDRESS", &address);
    let manager = start("systemd", &mut manager);
    poll::until(PATIENCE, || is_active(node, "default.target")).unwrap();
    // It has no unit for the bus that it is to be found at; this has it look for one, systemd(1).
    manager.signal(Signal::USR1).unwrap();
    let address = format!("--address={address}");
    let words = [
        "busctl",
        &address,
        "--auto-start=no",
        "status",
        "org.freedesktop.systemd1",
    ];
    poll::until(PATIENCE, || node.exec(&words)).unwrap();
    [manager, bus]
}

fn is_active(node: &Node, unit: &str) -> anyhow::Result<()> {
    systemctl(node, &["is-active", unit]).map(drop)
}

fn systemctl(node: &Node, words: &[&str]) -> anyhow::Result<String> {
    let address = format!("DBUS_SESSION_BUS_ADDRESS=unix:path={BUS}");
    let runtime = format!("XDG_RUNTIME_DIR={RUNTIME}");
    let before = ["env", &address, &runtime, "systemctl", "--user"];
    node.exec(&[&before, words].concat())
}

fn managed() -> (Lab, Vec<[Process; 2]>) {
    let lab = article::lab().unwrap();
    let managers = ROUTERS.map(|router| start_manager(lab.node(router.name)));
    (lab, managers.into())
}

#[test]
fn a_unit_runs_where_the_group_is_active() {
    let (lab, _managers) = managed();
    let mut cluster = Cluster::start_in(lab, config).unwrap();
    let active = cluster.settle_any().unwrap();
    let successor = active.peer();
    cluster.await_active(active, PATIENCE).unwrap();
    is_active(cluster.node(active), UNIT).unwrap();
    is_active(cluster.node(successor), UNIT).unwrap_err();

    let agent = cluster.take_agent(active).unwrap();
    assert!(agent.terminate().unwrap().success());
    is_active(cluster.node(active), UNIT).unwrap_err();
    cluster.await_active(successor, PATIENCE).unwrap();
    is_active(cluster.node(successor), UNIT).unwrap();
}

#[test]
fn an_agent_killed_while_systemd_starts_or_stops_a_unit_leaves_nothing_to_the_next() {
    for verb in ["start", "stop"] {
        let (lab, _managers) = managed();
        let mut cluster = Cluster::start_in(lab, config).unwrap();
        let active = cluster.settle_any().unwrap();
        cluster.await_active(active, PATIENCE).unwrap();
        // Who takes over starts it, who leaves stops it.
        let victim = match verb {
            "start" => active.peer(),
            _ => active,
        };
        let node = cluster.node(victim);
        let hang = format!("/run/hang-{verb}");
        node.exec(&["touch", &hang]).unwrap();
        let mut leaver = cluster.take_agent(active).unwrap();
        leaver.signal(Signal::TERM).unwrap();
        let node = cluster.node(victim);
        poll::until(PATIENCE, || node.exec(&["test", "-e", "/run/hangs"]))
            .unwrap_or_else(|error| panic!("{verb}: {error:#}\n{}", cluster.logs()));
        let other = victim.peer();
        if victim == active {
            leaver.kill().unwrap();
        } else {
            cluster.take_agent(victim).unwrap().kill().unwrap();
            assert!(leaver.wait_within(PATIENCE).unwrap().success());
            cluster.start_agent(other).unwrap();
        }
        cluster.await_active(other, PATIENCE).unwrap();
        is_active(cluster.node(other), UNIT).unwrap();

        // systemd is still at it: it breaks a start off when it is asked to stop, and a stop it ends.
        cluster.start_agent(victim).unwrap();
        let node = cluster.node(victim);
        if victim == active {
            poll::until(PATIENCE, || agent::status(node)).unwrap();
            node.exec(&["rm", &hang]).unwrap();
        }
        poll::until(PATIENCE, || {
            let noted = node.exec(&["sh", "-c", "cat /run/router/*.started.json"])?;
            ensure!(noted.trim() == "[]", "{noted}");
            let state = systemctl(node, &["show", "--property=ActiveState", UNIT])?;
            ensure!(state.trim() == "ActiveState=inactive", "{state}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{verb}: {error:#}\n{}", cluster.logs()));
        is_active(cluster.node(other), UNIT).unwrap();
    }
}

#[test]
fn a_unit_that_nobody_knows_any_more_is_released() {
    let (lab, _managers) = managed();
    let cluster = Cluster::start_in(lab, config).unwrap();
    let active = cluster.settle_any().unwrap();
    cluster.await_active(active, PATIENCE).unwrap();
    let node = cluster.node(active);
    let file = format!("{RUNTIME}/systemd/user/{UNIT}");
    node.exec(&["rm", &file]).unwrap();
    systemctl(node, &["daemon-reload"]).unwrap();
    systemctl(node, &["stop", UNIT]).unwrap();
    agent::routerctl(node, &["force", "cluster", "standby"]).unwrap();
    cluster.await_active(active.peer(), PATIENCE).unwrap();
    poll::until(PATIENCE, || {
        let noted = node.exec(&["sh", "-c", "cat /run/router/*.started.json"])?;
        ensure!(noted.trim() == "[]", "{noted}");
        let released = agent::line_about_a_group(node, "released")?;
        ensure!(released.fields["resource"] == UNIT, "{released:?}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
}

#[test]
fn a_node_whose_systemd_does_not_know_the_unit_is_no_standby() {
    let (lab, _managers) = managed();
    let unknown = |router| {
        let text = config(router);
        if router == SECONDARY {
            text.replace(UNIT, "other.service")
        } else {
            text
        }
    };
    let cluster = Cluster::start_in(lab, unknown).unwrap();
    poll::until(PATIENCE, || {
        let group = cluster.group(SECONDARY)?;
        ensure!(group.state == "fault", "it is {}", group.state);
        let error = group.services[0].error.clone().unwrap_or_default();
        ensure!(
            error.contains("systemd knows no unit other.service"),
            "{error}"
        );
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    let line = agent::line_about_a_group(cluster.node(SECONDARY), "could not be taken here");
    assert_eq!(line.unwrap().fields["resource"], "other.service");
}
