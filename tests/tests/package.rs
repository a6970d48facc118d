//! The package's life in a clean Debian under a real systemd, whose router is one of a pair. Not run by
//! default: it needs what `cargo xtask dist` makes.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use router_agent::control::protocol::GroupStatus;
use router_tests::{
    agent::{self, Agent},
    article::{self, CLIENT, ROUTERS, Router},
    clock,
    lab::Lab,
    machine::{self, Machine},
    other_build::program_tag,
    poll,
    status::{Document, activation_after, is_active, is_standby},
    traffic::Traffic,
};

const UNIT: &str = "router-agent.service";
const UNIT_FILE: &str = "/usr/lib/systemd/system/router-agent.service";
const CONFIGURATION: &str = "/etc/router/router.conf";
/// Here the package is installed; it is the pair's primary.
const PACKAGED: Router = ROUTERS[0];
const PEER: Router = ROUTERS[1];
const PATIENCE: Duration = Duration::from_mins(1);
/// What the kernel says of a process in the unit: eight capabilities of capabilities(7), as
/// docs/operations.md lists them, no way to more, and a filter of system calls.
const CONFINED: [&str; 3] = ["CapBnd:\t000000c000807420", "NoNewPrivs:\t1", "Seccomp:\t2"];
/// Tenths of what `systemd-analyze security` says, at most: as in docs/operations.md.
const EXPOSURE: &str = "--threshold=29";
/// 1,000 packets a second.
const INTERVAL: Duration = Duration::from_millis(1);

/// A restart may take a while here, so the peer is patient.
fn config(router: Router) -> String {
    router.tunnel_config()
        + "
set cluster interface tun00
set cluster pre-shared-secret cloudpack
set cluster agent-dead-interval 20000
set cluster group g primary vyatta-a
set cluster group g secondary vyatta-c
set cluster group g auto-failback true
set cluster group g service 10.0.0.254/24/eth1
"
}

struct Pair {
    // Before the lab, which they run in.
    machine: Machine,
    _peer: Agent,
    lab: Lab,
}

impl Pair {
    fn form() -> Self {
        let lab = article::lab().unwrap();
        let peer = Agent::start(lab.node(PEER.name), &config(PEER)).unwrap();
        let machine = Machine::boot(lab.node(PACKAGED.name)).unwrap();
        Self {
            machine,
            _peer: peer,
            lab,
        }
    }

    fn install(&self, package: &Path) -> String {
        let path = self.machine.hand_over(package).unwrap();
        // All that it depends on is there.
        let words = ["apt-get", "install", "--yes", &path];
        self.machine.exec(&words).unwrap()
    }

    fn start(&self) {
        self.configure(&config(PACKAGED));
        self.machine.exec(&["systemctl", "start", UNIT]).unwrap();
        self.until(|| self.settled(PACKAGED));
    }

    fn configure(&self, text: &str) {
        self.machine.write(CONFIGURATION, text).unwrap();
    }

    fn property(&self, name: &str) -> String {
        self.machine.property(UNIT, name).unwrap()
    }

    fn until<T>(&self, probe: impl FnMut() -> Result<T>) -> T {
        poll::until(PATIENCE, probe).unwrap_or_else(|error| panic!("{error:#}\n{}", self.journal()))
    }

    fn journal(&self) -> String {
        let words = ["journalctl", "--no-pager", "--unit", UNIT];
        self.machine
            .exec(&words)
            .unwrap_or_else(|error| error.to_string())
    }

    /// The group as each of the two sees it.
    fn groups(&self) -> Result<[GroupStatus; 2]> {
        let words = ["routerctl", "show", "cluster", "status", "--json"];
        let document: Document = serde_json::from_str(&self.machine.exec(&words)?)?;
        let mut here = document.status.groups;
        let mut there = agent::status(self.lab.node(PEER.name))?.groups;
        Ok([
            here.pop().context("a group")?,
            there.pop().context("a group")?,
        ])
    }

    fn settled(&self, active: Router) -> Result<[GroupStatus; 2]> {
        let groups = self.groups()?;
        let [here, there] = &groups;
        let (active, standby) = if active == PACKAGED {
            (here, there)
        } else {
            (there, here)
        };
        ensure!(
            is_active(active),
            "{} is {}",
            active.this_node,
            active.state
        );
        ensure!(
            is_standby(standby),
            "{} is {}",
            standby.this_node,
            standby.state
        );
        Ok(groups)
    }

    /// Sees another process take the active agent's place, and no packet lost: from a client by the
    /// service address, through the tunnel, to the peer.
    fn upgrade_under_traffic(&self, package: &Path) {
        let agent = self.property("MainPID");
        let detached = || self.journal().matches("asked to detach").count();
        let before = detached();
        let nodes = [CLIENT, PEER.name].map(|name| self.lab.node(name));
        let traffic = Traffic::start_by(nodes[0], nodes[1], "tun00", PEER.tunnel, INTERVAL);
        let traffic = traffic.unwrap();
        self.install(package);
        self.until(|| {
            let now = self.machine.property(UNIT, "MainPID")?;
            ensure!(now != agent && now != "0", "{now}");
            self.settled(PACKAGED)
        });
        let report = traffic.finish().unwrap();
        let missing = report.missing();
        assert!(
            missing.is_empty(),
            "{} of {} lost\n{}",
            missing.len(),
            report.sent(),
            self.journal()
        );
        let version = package.file_stem().unwrap().display();
        println!("{version}: {} sent meanwhile, 0 lost", report.sent());
        assert_eq!(detached(), before + 1, "{}", self.journal());
    }

    /// How often each of the two changed its state, by their histories.
    fn changes(&self) -> [usize; 2] {
        let settled = self.until(|| self.settled(PACKAGED));
        settled.map(|group| group.transitions.len())
    }
}

#[test]
fn what_is_installed_starts_nothing_until_it_is_configured() {
    let pair = Pair::form();
    let machine = &pair.machine;
    let said = pair.install(&machine::package().unwrap());
    assert_eq!(pair.property("ActiveState"), "inactive", "{said}");
    assert_eq!(pair.property("ConditionResult"), "no");
    assert_eq!(pair.property("UnitFileState"), "enabled");
    machine.exec(&["getent", "group", "router"]).unwrap();
    for command in ["router-agent", "routerctl"] {
        machine.exec(&[command, "--version"]).unwrap();
        assert!(
            machine
                .has(&format!("/usr/share/man/man1/{command}.1.gz"))
                .unwrap()
        );
    }
    let completion = "/usr/share/bash-completion/completions/routerctl";
    machine
        .exec(&["bash", "-c", &format!(". {completion}")])
        .unwrap();
    let verified = machine
        .exec(&["systemd-analyze", "verify", "--man=no", UNIT_FILE])
        .unwrap();
    assert!(!verified.contains("router-agent"), "{verified}");
    let security = ["systemd-analyze", "security", "--offline=yes", EXPOSURE];
    let security = [&security[..], &[UNIT_FILE]].concat();
    machine.exec(&security).unwrap();
    // Of the example only its host and its secret are missing.
    machine.exec(&["hostname", "router-a"]).unwrap();
    let example = "/usr/share/doc/router-agent/examples/router.conf";
    machine
        .write("/etc/router/secret", "long and random\n")
        .unwrap();
    machine.exec(&["router-agent", "check", example]).unwrap();
    let schema = "/usr/share/doc/router-agent/control-schema.json";
    assert!(machine.has(schema).unwrap());
}

#[test]
fn the_agent_runs_confined_and_is_replaced_under_traffic() {
    let pair = Pair::form();
    let first = machine::package().unwrap();
    pair.install(&first);
    pair.start();
    assert_eq!(pair.property("ActiveState"), "active");
    pair.until(|| {
        let status = pair.machine.property(UNIT, "StatusText")?;
        ensure!(status.starts_with("g: active, epoch "), "{status}");
        Ok(())
    });
    let before = pair.changes();
    let agent = pair.property("MainPID");
    let status = ["cat", &format!("/proc/{agent}/status")];
    let status = pair.machine.exec(&status).unwrap();
    for confined in CONFINED {
        assert!(status.contains(confined), "{status}");
    }

    // The same process, by another configuration.
    let other = config(PACKAGED) + "set cluster dead-interval 300\n";
    pair.configure(&other);
    pair.machine.exec(&["systemctl", "reload", UNIT]).unwrap();
    pair.until(|| {
        let words = ["routerctl", "show", "configuration"];
        let runs = pair.machine.exec(&words)?;
        ensure!(runs.contains("dead-interval 300"), "{runs}");
        Ok(())
    });
    assert_eq!(pair.changes(), before);
    assert_eq!(pair.property("MainPID"), agent);

    let node = pair.lab.node(PACKAGED.name);
    let programs = program_tag(node).unwrap();
    let client = pair.lab.node(CLIENT);
    let route = ["ip", "route", "add", PEER.tunnel, "via", "10.0.0.254"];
    client.exec(&route).unwrap();
    pair.upgrade_under_traffic(&machine::later_version(&first, pair.lab.directory()).unwrap());
    assert_eq!(program_tag(node).unwrap(), programs);
    pair.upgrade_under_traffic(&machine::later_build(&first, pair.lab.directory()).unwrap());
    assert_ne!(program_tag(node).unwrap(), programs);
    // Nothing is kept of the first build's.
    let builds = ["sh", "-c", "ls -d /sys/fs/bpf/router/v*/programs-*"];
    let builds = pair.machine.exec(&builds).unwrap();
    assert_eq!(builds.lines().count(), 1, "{builds}");
    assert_eq!(pair.changes(), before);

    // A crash.
    let agent = pair.property("MainPID");
    pair.machine.exec(&["kill", "-KILL", &agent]).unwrap();
    pair.until(|| {
        let now = pair.machine.property(UNIT, "MainPID")?;
        ensure!(now != agent && now != "0", "{now}");
        pair.settled(PACKAGED)
    });
    assert_eq!(pair.changes(), before);
}

#[test]
fn the_tarball_installs_the_same() {
    let pair = Pair::form();
    let tarball = pair
        .machine
        .hand_over(&machine::tarball().unwrap())
        .unwrap();
    // As docs/operations.md has it.
    for words in [
        &["tar", "-xzf", &tarball, "-C", "/", "--strip-components=1"][..],
        &["systemd-sysusers"],
        &["systemd-tmpfiles", "--create"],
        &["systemctl", "daemon-reload"],
    ] {
        pair.machine.exec(words).unwrap();
    }
    pair.start();
    assert_eq!(pair.property("ActiveState"), "active");
}

#[test]
fn a_version_that_refuses_the_configuration_replaces_no_agent() {
    let pair = Pair::form();
    let first = machine::package().unwrap();
    pair.install(&first);
    pair.start();
    let agent = pair.property("MainPID");
    let wrong = config(PACKAGED) + "set cluster keepalive-interval never\n";
    pair.configure(&wrong);
    let later = machine::later_version(&first, pair.lab.directory()).unwrap();
    let said = pair.install(&later);
    assert!(said.contains("mend the file"), "{said}");
    assert_eq!(pair.property("MainPID"), agent);
    pair.settled(PACKAGED).unwrap();
}

#[test]
fn an_upgrade_starts_no_agent_that_was_stopped() {
    let pair = Pair::form();
    let first = machine::package().unwrap();
    pair.install(&first);
    pair.start();
    pair.machine.exec(&["systemctl", "stop", UNIT]).unwrap();
    let later = machine::later_version(&first, pair.lab.directory()).unwrap();
    let said = pair.install(&later);
    assert_eq!(pair.property("ActiveState"), "inactive", "{said}");
    pair.machine.exec(&["systemctl", "start", UNIT]).unwrap();
    pair.until(|| pair.settled(PACKAGED));
}

/// As docs/operations.md has it.
#[test]
fn an_upgrade_reads_the_secret_that_systemd_hands_over() {
    let pair = Pair::form();
    let first = machine::package().unwrap();
    pair.install(&first);
    let machine = &pair.machine;
    machine.write("/etc/router/secret", "cloudpack\n").unwrap();
    let drop_in = "/etc/systemd/system/router-agent.service.d/secret.conf";
    let credential = "[Service]\nLoadCredential=cluster:/etc/router/secret\n";
    machine.write(drop_in, credential).unwrap();
    machine.exec(&["systemctl", "daemon-reload"]).unwrap();
    pair.configure(&config(PACKAGED).replace(
        "pre-shared-secret cloudpack",
        "pre-shared-secret-credential cluster",
    ));
    machine.exec(&["systemctl", "start", UNIT]).unwrap();
    pair.until(|| pair.settled(PACKAGED));
    let agent = pair.property("MainPID");
    let later = machine::later_version(&first, pair.lab.directory()).unwrap();
    let said = pair.install(&later);
    assert_ne!(pair.property("MainPID"), agent, "{said}");
    pair.until(|| pair.settled(PACKAGED));
}

/// A clean Debian has no root certificates.
#[test]
fn a_node_that_cannot_know_the_api_of_aws_is_no_standby_and_says_why() {
    let pair = Pair::form();
    pair.install(&machine::package().unwrap());
    let at_aws = "set cluster group g aws route-table rtb-1 destination 0.0.0.0/0\n";
    pair.configure(&(config(PACKAGED) + at_aws));
    pair.machine.exec(&["systemctl", "start", UNIT]).unwrap();
    pair.until(|| {
        let [here, _] = pair.groups()?;
        let errors = here.services.iter().filter_map(|s| s.error.as_deref());
        let errors: Vec<_> = errors.collect();
        let is_said = errors.iter().any(|e| e.contains("install ca-certificates"));
        ensure!(
            is_said && here.state == "fault",
            "{}: {errors:?}",
            here.state
        );
        Ok(())
    });
}

#[test]
fn a_machine_that_boots_takes_part_by_itself() {
    let mut pair = Pair::form();
    pair.install(&machine::package().unwrap());
    pair.configure(&config(PACKAGED));
    // The second time it hands the group over before it goes, and gets it back.
    for _ in 0..2 {
        let begun = clock::now();
        pair.machine.reboot(pair.lab.node(PACKAGED.name)).unwrap();
        pair.until(|| {
            let [here, _] = pair.settled(PACKAGED)?;
            activation_after(&here, begun).context("it was active before")?;
            Ok(())
        });
        // systemd believes that only when the agent has said that it runs.
        assert_eq!(pair.property("ActiveState"), "active");
        assert_eq!(pair.property("NRestarts"), "0");
        let owner = ["ip", "-brief", "address", "show", "eth1"];
        let owner = pair.lab.node(PACKAGED.name).exec(&owner).unwrap();
        assert!(owner.contains("10.0.0.254/24"), "{owner}");
    }
    let [_, there] = pair.groups().unwrap();
    let causes: Vec<_> = there.transitions.iter().map(|t| &*t.cause).collect();
    let handed_over = causes.iter().filter(|c| **c == "peer hands the group over");
    assert_eq!(handed_over.count(), 1, "{causes:?}");
}

#[test]
fn removal_leaves_the_cluster_and_purging_leaves_nothing() {
    let pair = Pair::form();
    pair.install(&machine::package().unwrap());
    pair.start();
    let machine = &pair.machine;
    let removed = clock::now();
    machine.exec(&["dpkg", "--remove", "router-agent"]).unwrap();
    let changes = pair.until(|| {
        let mut groups = agent::status(pair.lab.node(PEER.name))?.groups;
        let group = groups.pop().context("a group")?;
        activation_after(&group, removed).context("no takeover")?;
        Ok(group.transitions)
    });
    // The peer had not to miss it first.
    let mut causes = changes
        .iter()
        .filter(|change| change.at_ns >= removed.as_ns())
        .map(|change| &change.cause);
    assert!(
        causes.any(|cause| *cause == "peer hands the group over"),
        "{changes:#?}"
    );
    let interfaces = machine.exec(&["ls", "/sys/class/net"]).unwrap();
    assert!(!interfaces.contains("tun00"), "{interfaces}");
    // The kernel puts two of its own there.
    let pins = "find /sys/fs/bpf -mindepth 1 -not -name '*.debug'";
    assert_eq!(machine.exec(&["sh", "-c", pins]).unwrap(), "");
    let addresses = pair
        .lab
        .node(PACKAGED.name)
        .exec(&["ip", "-brief", "address"])
        .unwrap();
    assert!(!addresses.contains("10.0.0.254"), "{addresses}");
    for kept in [
        CONFIGURATION,
        "/var/lib/router/history",
        "/etc/default/router-agent",
    ] {
        assert!(machine.has(kept).unwrap(), "{kept}");
    }

    machine.exec(&["dpkg", "--purge", "router-agent"]).unwrap();
    let left =
        "find / /run -xdev \\( -name '*router-agent*' -o -path '*/router' \\) -not -path '/mnt/*'";
    assert_eq!(machine.exec(&["sh", "-c", left]).unwrap(), "");
}
