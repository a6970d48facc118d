//! What a supervisor and the kernel see of an agent: what it says of itself, whether its loops go
//! round, which capabilities it has.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    thread,
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

const ROUTER: Router = ROUTERS[0];
/// capabilities(7): CAP_KILL, NET_BIND_SERVICE, NET_ADMIN, NET_RAW, IPC_LOCK, SYS_NICE, PERFMON, BPF.
const KEPT: [u32; 8] = [5, 10, 12, 13, 14, 23, 38, 39];

/// Fails unless each thread has these capabilities only.
fn expect_kept(process: u32) -> Result<()> {
    let kept = KEPT.iter().fold(0_u64, |mask, bit| mask | 1 << bit);
    for (thread, name) in threads(process) {
        let status = fs::read_to_string(format!("/proc/{process}/task/{thread}/status"))?;
        let mask = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            u64::from_str_radix(line.unwrap_or_default().trim(), 16)
        };
        for (field, expected) in [
            ("CapEff:", kept),
            ("CapPrm:", kept),
            ("CapInh:", 0),
            ("CapAmb:", 0),
        ] {
            let found = mask(field)?;
            ensure!(
                found == expected,
                "{name}: {field} {found:x}, not {expected:x}"
            );
        }
    }
    Ok(())
}

#[test]
fn an_agent_and_its_successor_have_only_the_capabilities_that_they_need() {
    let cluster = Cluster::start(Router::article_config).unwrap();
    cluster.settle_any().unwrap();
    let process = cluster.agent(ROUTER).unwrap().id();
    expect_kept(process).unwrap();

    let other = ROUTER.article_config() + "set cluster dead-interval 300\n";
    agent::write_config(cluster.node(ROUTER), &other).unwrap();
    cluster.agent(ROUTER).unwrap().signal(Signal::HUP).unwrap();
    poll::until(PATIENCE, || {
        let log = agent::log(cluster.node(ROUTER));
        ensure!(log.contains("the new configuration runs"), "{log}");
        Ok(())
    })
    .unwrap();
    expect_kept(process).unwrap();
    cluster.settle_any().unwrap();
    // A program on an interface is looked for by the kernel's numbers, which others may not open.
    let log = agent::log(cluster.node(ROUTER));
    assert!(!log.contains("Operation not permitted"), "{log}");
}

/// Where an agent says how it is.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn start(node: &Node, watchdog: Duration) -> (Self, Agent) {
        Self::start_with(node, watchdog, &ROUTER.article_config())
    }

    fn start_with(node: &Node, watchdog: Duration, config: &str) -> (Self, Agent) {
        let path = node.directory().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let microseconds = watchdog.as_micros().to_string();
        let variables = [
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", &*microseconds),
        ];
        let agent = Agent::start_with(node, config, &variables).unwrap();
        (Self(socket), agent)
    }

    /// What was said since it was last asked for.
    fn said(&self) -> String {
        let mut said = String::new();
        let mut message = [0; 4096];
        while let Ok(length) = self.0.recv(&mut message) {
            said += &String::from_utf8_lossy(&message[..length]);
        }
        said
    }

    /// Waits until `line` is said; all that was said until then.
    fn until(&self, line: &str) -> String {
        let mut said = String::new();
        let heard = poll::until(PATIENCE, || {
            said += &self.said();
            ensure!(said.lines().any(|other| other == line), "{line}: {said}");
            Ok(())
        });
        heard.unwrap();
        said
    }
}

#[test]
fn the_watchdog_is_fed_only_while_every_loop_goes_round() {
    const WATCHDOG: Duration = Duration::from_secs(2);
    let lab = article::lab().unwrap();
    let node = lab.node(ROUTER.name);
    let (supervisor, agent) = Supervisor::start(node, WATCHDOG);
    let said = supervisor.until("READY=1");
    assert!(said.contains("STATUS=aws: "), "{said}");

    for name in ["probe-clock", "takeover", "main"] {
        supervisor.said();
        supervisor.until("WATCHDOG=1");
        let process = i32::try_from(agent.id()).unwrap();
        let is_it = |(id, called): &&(i32, String)| match name {
            "main" => *id == process,
            _ => called == name,
        };
        let all = threads(agent.id());
        let (thread, _) = all
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{name}: {all:?}"));
        let halted = Halted::new(*thread).unwrap();
        let complaint = format!("{name} is stuck");
        poll::until(PATIENCE, || {
            let log = agent::log(node);
            ensure!(log.contains(&complaint), "{log}");
            Ok(())
        })
        .unwrap();
        supervisor.said();
        thread::sleep(WATCHDOG);
        let said = supervisor.said();
        assert!(!said.contains("WATCHDOG"), "{name}: {said}");
        drop(halted);
    }
    supervisor.said();
    supervisor.until("WATCHDOG=1");
}

#[test]
fn a_supervisor_hears_of_a_successor_and_of_the_end() {
    let lab = article::lab().unwrap();
    let node = lab.node(ROUTER.name);
    let (supervisor, agent) = Supervisor::start(node, Duration::from_mins(1));
    let said = supervisor.until("READY=1");
    assert!(!said.contains("RELOADING"), "{said}");
    supervisor.until("STATUS=aws: active, epoch 1");

    let other = ROUTER.article_config() + "set cluster dead-interval 300\n";
    agent::write_config(node, &other).unwrap();
    agent.signal(Signal::HUP).unwrap();
    supervisor.until("RELOADING=1");
    supervisor.until("READY=1");

    assert!(agent.terminate().unwrap().success());
    supervisor.until("STOPPING=1");
}

#[test]
fn a_stop_that_waits_for_a_service_asks_the_supervisor_for_more_time() {
    let lab = article::lab().unwrap();
    let node = lab.node(ROUTER.name);
    let scripts = node.directory().join("init.d");
    fs::create_dir(&scripts).unwrap();
    let script = scripts.join("slow");
    fs::write(&script, "#!/bin/sh\ntest $1 != stop || sleep 1000\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let scripts = scripts.to_str().unwrap();
    node.exec(&["mount", "--bind", scripts, "/etc/init.d"])
        .unwrap();
    let config = ROUTER.group_config("set cluster group g service slow\n");
    let (supervisor, agent) = Supervisor::start_with(node, Duration::from_mins(1), &config);
    poll::until(PATIENCE, || {
        let group = agent::status(node)?.groups.remove(0);
        ensure!(group.services[0].held, "{:?}", group.services);
        Ok(())
    })
    .unwrap();
    agent.signal(Signal::TERM).unwrap();
    let said = supervisor.until("STOPPING=1");
    assert!(!said.contains("EXTEND_TIMEOUT_USEC"), "{said}");
    for _ in 0..2 {
        supervisor.until("EXTEND_TIMEOUT_USEC=60000000");
    }
}
