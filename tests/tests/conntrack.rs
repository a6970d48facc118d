//! A TCP connection through address translation outlives its router where conntrackd tells the other
//! router of it, and does not where nobody does. Not run by default: it needs the real conntrackd.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use router_agent::takeover::conntrack::heard;
use router_tests::{
    agent,
    article::{self, CLIENT, CLIENT_ADDRESS, ROUTERS, Router, SERVER, SERVER_ADDRESS},
    cluster::{Cluster, Fault, PATIENCE},
    lab::{Node, Process},
    poll,
};
use rustix::process::Signal;

const PORT: u16 = 5001;
const NAMESPACE: &str = "/proc/self/ns/net";

/// By multicast in the tunnel.
const BY_TUNNEL: &str = "set service conntrack-sync failover-mechanism cluster group aws
set service conntrack-sync interface tun00
set service conntrack-sync accept-protocol tcp,udp,icmp
";

/// From the one underlay to the other.
fn by_underlay(router: Router) -> String {
    format!(
        "set service conntrack-sync failover-mechanism cluster group aws
set service conntrack-sync interface eth0 peer {}
",
        router.peer().underlay
    )
}

fn config(router: Router, connections: &str) -> String {
    router.article_with_services()
        + &format!(
            "set cluster keepalive-interval 20
set cluster dead-interval 100
set cluster agent-dead-interval 1000
{connections}"
        )
}

/// A cluster whose routers hide the client behind the servers' gateway, and which of them is active.
fn formed(connections: impl Fn(Router) -> String + 'static) -> (Cluster, Router) {
    let cluster = Cluster::start(move |router| config(router, &connections(router))).unwrap();
    let active = cluster
        .settle_any()
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    cluster.await_active(active, PATIENCE).unwrap();
    for router in ROUTERS {
        hide_the_client(cluster.node(router));
    }
    (cluster, active)
}

/// Behind a port that only the router which chose it can know.
fn hide_the_client(router: &Node) {
    let rules = "add table ip nat
add chain ip nat out { type nat hook postrouting priority srcnat; }
add rule ip nat out oifname eth2 ip saddr 10.0.0.0/24 snat to 10.0.9.254 fully-random";
    router.exec(&["nft", rules]).unwrap();
}

/// A connection by which client and server speak in turn, until it breaks or is ended.
struct Talk {
    turns: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Talk {
    fn begin(cluster: &Cluster) -> Self {
        let [client, server] = [CLIENT, SERVER].map(|name| cluster.lab.node(name));
        let listener = server.run(|| TcpListener::bind(("0.0.0.0", PORT)));
        let listener = listener.unwrap().unwrap();
        let asking = client
            .run(|| TcpStream::connect((SERVER_ADDRESS, PORT)))
            .unwrap()
            .unwrap();
        let (answering, hidden) = listener.accept().unwrap();
        assert_eq!(hidden.ip().to_string(), "10.0.9.254");
        let (turns, end) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (turns, end) = (Arc::clone(&turns), Arc::clone(&end));
            move || speak(asking, answering, &turns, &end)
        });
        let talk = Self { turns, end, thread };
        talk.goes_on(cluster);
        talk
    }

    /// Sees it take many more turns.
    fn goes_on(&self, cluster: &Cluster) {
        let begun = self.turns.load(Ordering::Relaxed);
        poll::until(PATIENCE, || {
            let turns = self.turns.load(Ordering::Relaxed) - begun;
            ensure!(turns > 100, "{turns} turns");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    }

    fn end(self) -> Result<()> {
        self.end.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the talk panicked"))?
    }
}

fn speak(
    mut asking: TcpStream,
    mut answering: TcpStream,
    turns: &AtomicU64,
    end: &AtomicBool,
) -> Result<()> {
    for socket in [&asking, &answering] {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
    }
    while !end.load(Ordering::Relaxed) {
        let said = [turns.load(Ordering::Relaxed).to_be_bytes(); 100];
        let said = said.as_flattened();
        pass(&mut asking, &mut answering, said)?;
        pass(&mut answering, &mut asking, said)?;
        turns.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, said: &[u8]) -> Result<()> {
    let mut heard = vec![0; said.len()];
    from.write_all(said)?;
    to.read_exact(&mut heard)?;
    ensure!(heard == said, "something else arrived");
    Ok(())
}

/// The configuration of the conntrackd of a network namespace.
fn file_of(node: &Node, namespace: &str) -> String {
    let words = ["stat", "--dereference", "--format=%i", namespace];
    let inode = node.exec(&words).unwrap();
    format!("/run/router/netns-{}.conntrackd.conf", inode.trim())
}

fn conntrackd(node: &Node, request: &str) -> Result<String> {
    let config = file_of(node, NAMESPACE);
    node.exec(&["/usr/sbin/conntrackd", "-C", &config, request])
}

/// Waits until the conntrackd of a standby has heard of the connection.
fn await_known(cluster: &Cluster, standby: Router) {
    poll::until(PATIENCE, || {
        let known = conntrackd(cluster.node(standby), "-e")?;
        let is_ours = |line: &str| {
            line.contains("ESTABLISHED") && line.contains(&format!("src={CLIENT_ADDRESS} "))
        };
        ensure!(known.lines().any(is_ours), "it knows only: {known}");
        let statistics = conntrackd(cluster.node(standby), "-s")?;
        ensure!(heard(&statistics) > Some(0), "it has none: {statistics}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
}

fn outlives_its_router(connections: impl Fn(Router) -> String + 'static) {
    let (mut cluster, active) = formed(connections);
    let successor = active.peer();
    let talk = Talk::begin(&cluster);
    await_known(&cluster, successor);
    cluster.inject(Fault::KillNode, active).unwrap();
    cluster.await_active(successor, PATIENCE).unwrap();
    talk.goes_on(&cluster);

    // And moves back in order: the successor has told what it had committed.
    cluster.heal(Fault::KillNode, active).unwrap();
    hide_the_client(cluster.node(active));
    cluster.settle(successor).unwrap();
    await_known(&cluster, active);
    agent::routerctl(cluster.node(successor), &["force", "cluster", "standby"]).unwrap();
    cluster.await_active(active, PATIENCE).unwrap();
    cluster.settle(active).unwrap();
    talk.goes_on(&cluster);
    talk.end().unwrap();
}

#[test]
fn a_connection_outlives_its_router_by_the_tunnel() {
    outlives_its_router(|_| BY_TUNNEL.to_owned());
}

#[test]
fn a_connection_outlives_its_router_by_the_underlay() {
    outlives_its_router(by_underlay);
}

#[test]
fn a_connection_that_nobody_tells_of_breaks() {
    let (mut cluster, active) = formed(|_| String::new());
    let talk = Talk::begin(&cluster);
    cluster.inject(Fault::KillNode, active).unwrap();
    cluster.await_active(active.peer(), PATIENCE).unwrap();
    poll::until(2 * PATIENCE, || {
        talk.thread
            .is_finished()
            .then_some(())
            .context("it goes on")
    })
    .unwrap();
    let broken = talk.end().unwrap_err().to_string();
    println!("without conntrack-sync: {broken}");
}

/// The process ids of all daemons that run in a node, in that node. Who asks them has the same name.
fn processes(node: &Node) -> Result<Vec<String>> {
    let daemon = "^/usr/sbin/conntrackd -C .* -d$";
    let ids = node.exec(&["pgrep", "--full", "--runstates", "RSDT", daemon])?;
    Ok(ids.lines().map(ToOwned::to_owned).collect())
}

fn process(node: &Node) -> Result<String> {
    let mut ids = processes(node)?;
    ensure!(ids.len() == 1, "there are several: {ids:?}");
    ids.pop().context("there is one")
}

#[test]
fn the_daemon_lives_on_without_an_agent_and_not_after_one_that_leaves() {
    let (mut cluster, _) = formed(|_| BY_TUNNEL.to_owned());
    let before = ROUTERS.map(|router| process(cluster.node(router)).unwrap());
    for router in ROUTERS {
        cluster.take_agent(router).unwrap().kill().unwrap();
        cluster.start_agent(router).unwrap();
        cluster.settle_any().unwrap();
    }
    let after = ROUTERS.map(|router| process(cluster.node(router)).unwrap());
    assert_eq!(after, before);

    let active = cluster.settle_any().unwrap();
    let node = cluster.node(active);
    let died = process(node).unwrap();
    node.exec(&["kill", "-KILL", &died]).unwrap();
    poll::until(PATIENCE, || {
        ensure!(process(cluster.node(active))? != died, "it is the same");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));

    let agent = cluster.take_agent(active.peer()).unwrap();
    assert!(agent.terminate().unwrap().success());
    let node = cluster.node(active.peer());
    process(node).unwrap_err();
    let config = file_of(node, NAMESPACE);
    node.exec(&["test", "!", "-e", &config]).unwrap();
}

/// Another network namespace of a node's, at a path.
const SECOND: &str = "/run/second";
/// Its agent's bpffs.
const SECOND_BPFFS: &str = "/run/second-bpffs";

/// A lone router of another cluster, in another network namespace of a node, of which it shares the rest.
fn start_second(node: &Node) -> Process {
    let make = format!(
        "touch {SECOND}
unshare --net={SECOND} true
mkdir {SECOND_BPFFS}
mount -t bpf bpf {SECOND_BPFFS}
nsenter --net={SECOND} ip link add eth0 type veth peer name far
nsenter --net={SECOND} ip address add 192.0.2.1/24 dev eth0
nsenter --net={SECOND} ip link set far up
nsenter --net={SECOND} ip link set eth0 up"
    );
    node.exec(&["sh", "-e", "-c", &make]).unwrap();
    let text = format!(
        "set system host-name {name}
set interfaces tunnel tun00 address 169.254.9.1/24
set interfaces tunnel tun00 encapsulation gre
set interfaces tunnel tun00 local-ip 192.0.2.1
set interfaces tunnel tun00 remote-ip 192.0.2.2
set interfaces tunnel tun00 multicast enable
set cluster interface tun00
set cluster pre-shared-secret another
set cluster group aws primary {name}
set cluster group aws secondary vyatta-x
{BY_TUNNEL}",
        name = node.name()
    );
    let file = |name| node.directory().join(name);
    fs::write(file("second.conf"), text).unwrap();
    let log = fs::File::create(file("second.log")).unwrap();
    let mut agent = Command::new("nsenter");
    agent
        .arg(format!("--net={SECOND}"))
        .arg(agent::binary("router-agent").unwrap())
        .args(["run", "--control-socket", "/run/router/second.sock"])
        .args(["--bpffs", SECOND_BPFFS, "--config"])
        .arg(file("second.conf"))
        .arg("--history")
        .arg(file("second-history"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    node.spawn("the second router-agent", &mut agent).unwrap()
}

#[test]
fn agents_of_two_network_namespaces_have_a_daemon_each() {
    let (cluster, active) = formed(|_| BY_TUNNEL.to_owned());
    let node = cluster.node(active);
    let first = process(node).unwrap();
    let mut agent = start_second(node);
    let config = file_of(node, SECOND);
    let namespace = format!("--net={SECOND}");
    let ask = ["/usr/sbin/conntrackd", "-C", &config, "-s"];
    let ask = [&["nsenter", &namespace], &ask[..]].concat();
    poll::until(PATIENCE, || node.exec(&ask)).unwrap_or_else(|error| {
        let log = fs::read_to_string(node.directory().join("second.log"));
        panic!("{error:#}\n{}", log.unwrap_or_default())
    });
    let both = processes(node).unwrap();
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both.contains(&first), "{both:?}");

    agent.signal(Signal::TERM).unwrap();
    assert!(agent.wait_within(PATIENCE).unwrap().success());
    node.exec(&["test", "!", "-e", &config]).unwrap();
    assert_eq!(process(node).unwrap(), first);
    conntrackd(node, "-s").unwrap();
}

/// The process ids of those that wait in a node until its conntrackd has committed.
fn committing(node: &Node) -> Result<String> {
    let config = file_of(node, NAMESPACE);
    let command = format!("^/usr/sbin/conntrackd -C {config} -c$");
    node.exec(&["pgrep", "--full", &command])
}

/// Waits until a router holds its services although its conntrackd has kept it waiting so often.
fn await_held_without(cluster: &Cluster, router: Router, waits: usize) {
    poll::until(PATIENCE, || {
        let group = cluster.group(router)?;
        let [addresses @ .., connections] = group.services.as_slice() else {
            unreachable!("there are three");
        };
        ensure!(addresses.iter().all(|it| it.held), "{addresses:?}");
        let error = connections.error.as_deref().unwrap_or_default();
        ensure!(error.contains("has not answered `-c`"), "{connections:?}");
        let said = agent::log(cluster.node(router));
        let times = said.matches("has not answered `-c`").count();
        ensure!(times >= waits, "it was waited for {times} times");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
}

/// A successor whose daemon hangs, and that daemon's process id.
fn taken_over_amid_a_commit() -> (Cluster, Router, String) {
    let (mut cluster, active) = formed(|_| BY_TUNNEL.to_owned());
    let successor = active.peer();
    let daemon = process(cluster.node(successor)).unwrap();
    cluster
        .node(successor)
        .exec(&["kill", "-STOP", &daemon])
        .unwrap();
    cluster.inject(Fault::KillNode, active).unwrap();
    await_held_without(&cluster, successor, 1);
    (cluster, successor, daemon)
}

/// Waits until a router's daemon, going on, has committed.
fn await_committed(cluster: &Cluster, router: Router, daemon: &str) {
    let node = cluster.node(router);
    node.exec(&["kill", "-CONT", daemon]).unwrap();
    poll::until(PATIENCE, || {
        let services = cluster.group(router)?.services;
        let connections = services.last().context("there are three")?;
        ensure!(connections.held, "{connections:?}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    committing(node).unwrap_err();
    assert_eq!(process(node).unwrap(), daemon);
}

#[test]
fn a_daemon_that_hangs_keeps_nobody_from_taking_over() {
    let (cluster, successor, daemon) = taken_over_amid_a_commit();
    let group = cluster.group(successor).unwrap();
    assert_eq!(group.state, "active");
    assert_eq!(group.services.len(), article::SERVICES.len() + 1);

    // It is asked once, and does that when it goes on.
    let node = cluster.node(successor);
    let client = committing(node).unwrap();
    assert_eq!(client.lines().count(), 1, "{client}");
    await_held_without(&cluster, successor, 3);
    assert_eq!(committing(node).unwrap(), client);
    await_committed(&cluster, successor, &daemon);
}

#[test]
fn an_agent_killed_amid_a_commit_is_made_up_for_by_the_next() {
    let (mut cluster, successor, daemon) = taken_over_amid_a_commit();
    committing(cluster.node(successor)).unwrap();
    cluster.take_agent(successor).unwrap().kill().unwrap();
    cluster.start_agent(successor).unwrap();
    // It has asked anew.
    await_held_without(&cluster, successor, 1);
    await_committed(&cluster, successor, &daemon);
}
