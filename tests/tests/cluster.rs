//! Two agents: how they find each other, and what they do when one is lost.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use router_agent::control::protocol::{GroupStatus, MonitorState};
use router_common::time::BootTime;
use router_tests::{
    agent,
    article::{self, CLIENT, CLIENT_ADDRESS, ROUTERS, Router, SERVER, SERVER_ADDRESS},
    cluster::{AGENT_DEAD_INTERVAL, Cluster, Fault, PATIENCE},
    poll,
    status::{activation_after, is_active, is_standby, release_after},
    traffic::Traffic,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];

/// A cluster in its normal state: the primary active, the secondary standby.
fn formed(config: impl Fn(Router) -> String + 'static) -> Cluster {
    let cluster = Cluster::start(config).unwrap();
    cluster.settle(PRIMARY).unwrap();
    cluster
}

fn holds_all(group: &GroupStatus) -> bool {
    group.services.len() == 2 && group.services.iter().all(|service| service.held)
}

/// Whether the client reaches the server through the service addresses.
fn client_reaches_server(cluster: &Cluster) {
    let words = ["ping", "-c1", "-W1", SERVER_ADDRESS];
    poll::until(PATIENCE, || cluster.lab.node(CLIENT).exec(&words)).unwrap();
}

/// Which of a router's own addresses are service addresses.
fn service_addresses(cluster: &Cluster, router: Router) -> usize {
    let text = cluster
        .node(router)
        .exec(&["ip", "-brief", "-4", "address"])
        .unwrap();
    ["10.0.0.254/24", "10.0.9.254/24"]
        .iter()
        .filter(|address| text.contains(**address))
        .count()
}

#[test]
fn the_articles_configuration_forms_a_cluster_as_it_stands() {
    let cluster = formed(Router::article_config);
    for (router, beginning) in [
        (
            PRIMARY,
            "=== Status report on primary node vyatta-a ===

  Primary vyatta-a (this node): Active

  Secondary vyatta-c: Active (standby)

",
        ),
        (
            SECONDARY,
            "=== Status report on secondary node vyatta-c ===

  Primary vyatta-a: Active

  Secondary vyatta-c (this node): Active (standby)

",
        ),
    ] {
        // What a node says of its peer comes with the peer's next message.
        poll::until(PATIENCE, || {
            let text = cluster.status_text(router)?;
            ensure!(text.starts_with(beginning), "{text}");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn services_are_where_the_active_is() {
    let cluster = formed(Router::service_config);
    let resources = "
  Resources [10.0.0.254/24/eth1 10.0.9.254/24/eth2]:
    Active on primary vyatta-a
";
    poll::until(PATIENCE, || {
        let group = cluster.group(PRIMARY)?;
        ensure!(holds_all(&group), "it holds not all: {:?}", group.services);
        ensure!(service_addresses(&cluster, PRIMARY) == 2);
        let text = cluster.status_text(SECONDARY)?;
        ensure!(text.contains(resources), "{text}");
        Ok(())
    })
    .unwrap();
    assert_eq!(service_addresses(&cluster, SECONDARY), 0);
    client_reaches_server(&cluster);
}

#[test]
fn a_killed_node_is_succeeded_and_gets_its_place_back() {
    let mut cluster = formed(Router::service_config);
    let at = cluster.inject(Fault::KillNode, PRIMARY).unwrap();
    succeeded(&cluster, at);
    client_reaches_server(&cluster);
    cluster.heal(Fault::KillNode, PRIMARY).unwrap();
    back_to_normal(&cluster);
}

#[test]
fn a_killed_agent_is_succeeded_when_its_interval_is_over() {
    let mut cluster = formed(Router::service_config);
    let at = cluster.inject(Fault::KillAgent, PRIMARY).unwrap();
    not_before_the_agents_interval(&succeeded(&cluster, at), at);
    cluster.heal(Fault::KillAgent, PRIMARY).unwrap();
    back_to_normal(&cluster);
}

#[test]
fn a_stopped_agent_is_succeeded_and_yields_when_it_goes_on() {
    let mut cluster = formed(Router::service_config);
    let at = cluster.inject(Fault::StopAgent, PRIMARY).unwrap();
    not_before_the_agents_interval(&succeeded(&cluster, at), at);
    cluster.heal(Fault::StopAgent, PRIMARY).unwrap();
    back_to_normal(&cluster);
}

#[test]
fn after_a_cut_of_the_tunnel_exactly_one_stays_active() {
    let began = router_tests::clock::now();
    let mut cluster = formed(Router::service_config);
    // A cut takes longer to make than to be found.
    let before = router_tests::clock::now();
    cluster.inject(Fault::CutTunnel, PRIMARY).unwrap();
    // `prefer availability`: neither can know that the other lives.
    for router in ROUTERS {
        cluster.await_active(router, PATIENCE).unwrap();
    }
    cluster.heal(Fault::CutTunnel, PRIMARY).unwrap();
    back_to_normal(&cluster);

    // Who yields says for how long both were, and so does the other if it still heard the claim.
    let [a, c] = ROUTERS.map(|router| cluster.group(router).unwrap());
    let joined = activation_after(&c, before).unwrap();
    let left = release_after(&a, before).unwrap();
    let both = Duration::from_nanos(left.at_ns - joined.at_ns);
    let [by_a, by_c] = [&a, &c].map(|group| {
        let findings = group.findings.iter();
        findings
            .filter(|it| it.kind == "dual-activity")
            .collect::<Vec<_>>()
    });
    assert!(by_a.len() == 1 && by_c.len() <= 1, "{by_a:?} {by_c:?}");
    for finding in [by_a, by_c].concat() {
        let (least, most) = bounds(&finding.text);
        let since_the_beginning = BootTime::from_ns(finding.at_ns).since(began);
        assert!(
            least <= both && both < most && most < since_the_beginning,
            "{both:?}: {}",
            finding.text
        );
    }
}

/// What a finding of dual activity says, and how much more than it says the upper bound may be.
fn bounds(text: &str) -> (Duration, Duration) {
    let said = text
        .split_once("at least ")
        .and_then(|(_, said)| said.split_once(" and at most "));
    let (least, most) = said.unwrap_or_else(|| panic!("no bounds in {text}"));
    let (least, _) = measured(least);
    let (most, cut_off) = measured(most);
    (least, most + cut_off)
}

/// A length as it is said, and the tenth that is cut off at most.
fn measured(text: &str) -> (Duration, Duration) {
    let mut words = text.split(' ');
    let number: f64 = words.next().unwrap().parse().unwrap();
    let unit = match words.next() {
        Some("s") => Duration::from_secs(1),
        Some("ms") => MILLISECOND,
        Some("µs") => MILLISECOND / 1_000,
        other => panic!("{other:?} is no unit: {text}"),
    };
    (unit.mul_f64(number), unit / 10)
}

/// The secondary becomes active after `at` and holds the services.
fn succeeded(cluster: &Cluster, at: BootTime) -> GroupStatus {
    poll::until(PATIENCE + AGENT_DEAD_INTERVAL, || {
        let group = cluster.group(SECONDARY)?;
        ensure!(is_active(&group), "it is {}", group.state);
        ensure!(holds_all(&group), "it holds not all: {:?}", group.services);
        ensure!(activation_after(&group, at).is_some(), "no activation");
        Ok(group)
    })
    .unwrap()
}

fn not_before_the_agents_interval(group: &GroupStatus, at: BootTime) {
    let activation = activation_after(group, at).unwrap();
    let took = BootTime::from_ns(activation.at_ns).since(at);
    // The last sign of life may be a little older than the fault.
    assert!(took + 100 * MILLISECOND >= AGENT_DEAD_INTERVAL, "{took:?}");
}

/// The primary alone is active again and holds the services alone.
fn back_to_normal(cluster: &Cluster) {
    cluster.settle(PRIMARY).unwrap();
    poll::until(PATIENCE, || {
        ensure!(
            holds_all(&cluster.group(PRIMARY)?),
            "the primary lacks some"
        );
        let left = service_addresses(cluster, SECONDARY);
        ensure!(left == 0, "the secondary still has {left}");
        Ok(())
    })
    .unwrap();
    client_reaches_server(cluster);
    // And so it stays.
    poll::throughout(Duration::from_millis(500), || {
        ensure!(is_active(&cluster.group(PRIMARY)?), "the primary");
        ensure!(!is_active(&cluster.group(SECONDARY)?), "the secondary");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_one_way_cut_is_found_and_healed() {
    let cluster = formed(Router::article_config);
    article::cut_tunnel_from(&cluster.lab, article::PRIMARY).unwrap();
    cluster.await_active(SECONDARY, PATIENCE).unwrap();
    article::heal_tunnel(&cluster.lab).unwrap();
    cluster.settle_any().unwrap();
}

/// The findings of `kind` that `router` has recorded, in order.
fn recorded(cluster: &Cluster, router: Router, kind: &str) -> Result<Vec<String>> {
    let findings = cluster.group(router)?.findings;
    let of_kind = findings.into_iter().filter(|finding| finding.kind == kind);
    Ok(of_kind.map(|finding| finding.text).collect())
}

/// Status names what `router` finds now, and history keeps it.
fn found(cluster: &Cluster, router: Router, finding: &str, text: &str) {
    poll::until(PATIENCE, || {
        let status = cluster.status_text(router)?;
        ensure!(status.contains(finding), "{finding} is not in: {status}");
        let node = cluster.node(router);
        let history = agent::routerctl(node, &["show", "cluster", "history"])?;
        ensure!(history.contains(text), "{text} is not in: {history}");
        let json = agent::routerctl(node, &["show", "cluster", "history", "--json"])?;
        ensure!(json.contains(text), "{text} is not in: {json}");
        Ok(())
    })
    .unwrap();
}

/// The other heartbeat path is cut from us to the peer, which hears us all the same.
#[test]
fn a_peer_that_hears_us_by_one_of_two_paths_is_not_deaf() {
    let cluster = formed(|router| {
        let number = if router == PRIMARY { 1 } else { 2 };
        let (local, remote) = (router.underlay, router.peer().underlay);
        router.article_config()
            + &format!(
                "set interfaces tunnel tun1 address 169.254.1.{number}/24
set interfaces tunnel tun1 encapsulation gre-udp
set interfaces tunnel tun1 multicast enable
set interfaces tunnel tun1 local-ip {local}
set interfaces tunnel tun1 remote-ip {remote}
set cluster interface tun1
set cluster keepalive-interval 10
set cluster dead-interval 100
"
            )
    });
    let both_paths = |router: Router| {
        let paths = agent::status(cluster.node(router))?.paths;
        let up = paths.iter().filter(|path| path.session_up).count();
        ensure!(up == 2, "{up} of two paths");
        Ok(())
    };
    for router in ROUTERS {
        poll::until(PATIENCE, || both_paths(router)).unwrap();
    }
    article::cut_tunnel_in_udp_from(&cluster.lab, article::PRIMARY).unwrap();
    poll::throughout(Duration::from_secs(1), || {
        let finding = cluster.group(PRIMARY)?.peer_finding;
        ensure!(finding == "alive", "the peer is {finding}");
        Ok(())
    })
    .unwrap();
    let found = recorded(&cluster, PRIMARY, "peer").unwrap();
    let deaf = |text: &String| text.contains("does not hear us");
    assert!(!found.iter().any(deaf), "{found:?}");
}

/// The standby's agent is no reason for anything, however long it is dead.
#[test]
fn a_standby_whose_agent_is_killed_moves_nothing() {
    let mut cluster = formed(Router::article_with_services);
    cluster.await_active(PRIMARY, PATIENCE).unwrap();
    let before = cluster.group(PRIMARY).unwrap();
    cluster.inject(Fault::KillAgent, SECONDARY).unwrap();
    found(&cluster, PRIMARY, "agent-dead", "alive without its agent");
    poll::throughout(Duration::from_millis(500), || {
        let now = cluster.group(PRIMARY)?;
        ensure!(now.transitions == before.transitions);
        ensure!(holds_all(&now), "it has let go: {:?}", now.services);
        Ok(())
    })
    .unwrap();
    client_reaches_server(&cluster);
    cluster.heal(Fault::KillAgent, SECONDARY).unwrap();
    cluster.settle(PRIMARY).unwrap();
    assert_eq!(cluster.group(PRIMARY).unwrap().epoch, before.epoch);
}

/// The four findings of a peer and of ourselves, each by its cause.
#[test]
fn each_finding_is_named_and_recorded() {
    let mut cluster = formed(Router::article_config);

    // The path, one way: who hears nothing cannot tell it from a death, who is not heard can.
    article::cut_tunnel_from(&cluster.lab, article::PRIMARY).unwrap();
    found(&cluster, SECONDARY, "kernel-silent", "and is silent");
    found(&cluster, PRIMARY, "alive-and-deaf", "and does not hear us");
    article::heal_tunnel(&cluster.lab).unwrap();
    let active = cluster.settle_any().unwrap();
    let standby = active.peer();
    for router in ROUTERS {
        found(
            &cluster,
            router,
            "Peer:             alive\n",
            "and is alive",
        );
    }

    // The agent of the standby, which moves nothing. When it goes on, it knows why it heard nothing.
    let before = cluster.group(active).unwrap().transitions;
    cluster.inject(Fault::StopAgent, standby).unwrap();
    found(&cluster, active, "agent-dead", "alive without its agent");
    cluster.heal(Fault::StopAgent, standby).unwrap();
    found(
        &cluster,
        standby,
        "last finding: this node's agent was stopped for",
        "agent was stopped for",
    );
    cluster.settle(active).unwrap();
    assert_eq!(cluster.group(active).unwrap().transitions, before);

    // The node.
    let earlier = recorded(&cluster, active, "peer").unwrap().len();
    cluster.inject(Fault::KillNode, standby).unwrap();
    found(&cluster, active, "kernel-silent", "and is silent");
    let later = recorded(&cluster, active, "peer").unwrap();
    assert!(
        later[earlier..]
            .iter()
            .any(|text| text.contains("and is silent")),
        "{later:?}"
    );
    assert_eq!(recorded(&cluster, active, "clock").unwrap(), [""; 0]);
}

#[test]
fn nodes_with_different_secrets_say_so_and_do_not_believe_each_other() {
    let cluster = Cluster::start(|router| {
        let config = router.article_config();
        if router == SECONDARY {
            config.replace("cloudpack", "clodpack")
        } else {
            config
        }
    })
    .unwrap();
    for router in ROUTERS {
        poll::until(PATIENCE, || {
            let text = agent::routerctl(cluster.node(router), &["show", "heartbeat"])?;
            ensure!(text.contains("pre-shared-secret"), "heartbeat is: {text}");
            let text = cluster.status_text(router)?;
            ensure!(text.contains("pre-shared-secret"), "status is: {text}");
            ensure!(text.contains("session with"), "status is: {text}");
            Ok(())
        })
        .unwrap();
        let group = cluster.group(router).unwrap();
        assert_eq!(group.peer_finding, "never-heard");
    }
}

/// Two groups, each at home on another router.
const AT_HOME: [(&str, Router); 2] = [("lan", PRIMARY), ("servers", SECONDARY)];

fn two_groups(router: Router) -> String {
    let groups = AT_HOME.into_iter().zip(article::SERVICES);
    let lines = groups.map(|((name, home), service)| {
        format!(
            "set cluster group {name} primary {}
set cluster group {name} secondary {}
set cluster group {name} service {service}
set cluster group {name} auto-failback true
",
            home.name,
            home.peer().name
        )
    });
    router.tunnel_config()
        + "set cluster interface tun00
set cluster pre-shared-secret cloudpack
" + &lines.collect::<String>()
}

/// The group called `name`, as `router` sees it.
fn group_named(cluster: &Cluster, router: Router, name: &str) -> Result<GroupStatus> {
    let groups = agent::status(cluster.node(router))?.groups;
    let found = groups.into_iter().find(|group| group.group == name);
    found.with_context(|| format!("{} has no group {name}", router.name))
}

/// Waits until `router` is active for the group and holds its service.
fn owns(cluster: &Cluster, router: Router, name: &str) -> GroupStatus {
    poll::until(PATIENCE, || {
        let group = group_named(cluster, router, name)?;
        let held = group.services.iter().all(|service| service.held);
        ensure!(is_active(&group) && held, "{name} is {group:?}");
        Ok(group)
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()))
}

/// Waits until each router is active for its own group, and standby for the other's.
fn all_are_at_home(cluster: &Cluster) {
    for (name, home) in AT_HOME {
        owns(cluster, home, name);
        poll::until(PATIENCE, || {
            let group = group_named(cluster, home.peer(), name)?;
            ensure!(is_standby(&group), "{name} is {}", group.state);
            ensure!(group.peer_finding == "alive", "{}", group.peer_finding);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    }
    assert_eq!(
        ROUTERS.map(|router| service_addresses(cluster, router)),
        [1, 1]
    );
    // One way through the one router, and back through the other.
    client_reaches_server(cluster);
}

#[test]
fn of_two_groups_with_homes_of_their_own_only_that_of_a_killed_node_moves() {
    let mut cluster = Cluster::start(two_groups).unwrap();
    all_are_at_home(&cluster);
    for [(moves, victim), (stays, survivor)] in [AT_HOME, [AT_HOME[1], AT_HOME[0]]] {
        let before = owns(&cluster, survivor, stays);
        let epoch = owns(&cluster, victim, moves).epoch;
        cluster.inject(Fault::KillNode, victim).unwrap();
        assert_eq!(owns(&cluster, survivor, moves).epoch, epoch + 1);
        assert_eq!(service_addresses(&cluster, survivor), 2);
        client_reaches_server(&cluster);

        cluster.heal(Fault::KillNode, victim).unwrap();
        all_are_at_home(&cluster);
        assert_eq!(owns(&cluster, victim, moves).epoch, epoch + 2);
        let after = owns(&cluster, survivor, stays);
        assert_eq!(after.transitions, before.transitions, "{}", cluster.logs());
    }
}

#[test]
fn an_orderly_stop_hands_over_and_leaves_nothing() {
    let mut cluster = formed(Router::service_config);
    let at = router_tests::clock::now();
    let agent = cluster.take_agent(PRIMARY).unwrap();
    let status = agent.terminate().unwrap();
    assert!(status.success(), "{status}");
    let group = succeeded(&cluster, at);
    // Told by the peer, not found by waiting for its agent.
    let took = BootTime::from_ns(activation_after(&group, at).unwrap().at_ns).since(at);
    assert!(took < AGENT_DEAD_INTERVAL, "{took:?}");
    let node = cluster.node(PRIMARY);
    assert_eq!(service_addresses(&cluster, PRIMARY), 0);
    assert!(node.exec(&["ip", "link", "show", "tun00"]).is_err());
    assert!(
        node.exec(&["test", "!", "-e", "/sys/fs/bpf/router"])
            .is_ok()
    );
    let link = node.exec(&["ip", "link", "show", "eth0"]).unwrap();
    assert!(!link.contains("xdp"), "{link}");
    client_reaches_server(&cluster);
    cluster.start_agent(PRIMARY).unwrap();
    back_to_normal(&cluster);
}

#[test]
fn a_standby_comes_and_goes_without_a_lost_packet() {
    let mut cluster = formed(Router::service_config);
    let epoch = cluster.group(PRIMARY).unwrap().epoch;
    client_reaches_server(&cluster);
    let traffic = Traffic::start(
        cluster.lab.node(CLIENT),
        cluster.lab.node(SERVER),
        SERVER_ADDRESS,
        5 * MILLISECOND,
    )
    .unwrap();
    let agent = cluster.take_agent(SECONDARY).unwrap();
    agent.terminate().unwrap();
    cluster.start_agent(SECONDARY).unwrap();
    cluster.settle(PRIMARY).unwrap();
    let report = traffic.finish().unwrap();
    assert_eq!(report.lost(), 0);
    assert_eq!(cluster.group(PRIMARY).unwrap().epoch, epoch);
}

/// The article's pair in which the primary monitors `addresses`.
fn with_monitors(addresses: &[&str]) -> impl Fn(Router) -> String + 'static {
    let lines = addresses
        .iter()
        .map(|address| format!("set cluster group aws monitor {address}\n"));
    let lines: String = lines.collect();
    move |router| {
        let config = router.article_config();
        if router.name == PRIMARY.name {
            config + &lines
        } else {
            config
        }
    }
}

fn monitor_states(cluster: &Cluster) -> Result<Vec<MonitorState>> {
    let monitors = cluster.group(PRIMARY)?.monitors.into_iter();
    Ok(monitors.map(|monitor| monitor.state).collect())
}

#[test]
fn a_monitor_that_answers_is_reachable() {
    let cluster = formed(with_monitors(&[SERVER_ADDRESS]));
    assert_eq!(monitor_states(&cluster).unwrap(), [MonitorState::Reachable]);
}

/// The cloud tells of an address that has gone, which is an answer and not the address's own.
#[test]
fn a_monitor_may_be_of_ipv6() {
    let address = "fd00:2::1";
    // While the router's own address is tentative nothing answers, and the secondary may go first.
    let monitored = with_monitors(&[address]);
    let cluster =
        formed(move |router| monitored(router) + "set cluster group aws auto-failback true\n");
    let states_become = |state: MonitorState| {
        poll::until(PATIENCE, || {
            let states = monitor_states(&cluster)?;
            ensure!(states == [state], "the monitors are {states:?}");
            Ok(())
        })
        .unwrap();
    };
    states_become(MonitorState::Reachable);
    let prefix = format!("{address}/64");
    let of_the_cloud = |words: &[&str]| {
        let words = [&["ip", "address"], words].concat();
        cluster.lab.node(article::CLOUD).exec(&words).unwrap();
    };
    let interface = article::cloud_interface(article::SECONDARY);
    of_the_cloud(&["delete", &prefix, "dev", interface]);
    cluster.await_active(SECONDARY, PATIENCE).unwrap();
    states_become(MonitorState::Unreachable);
    of_the_cloud(&["add", &prefix, "dev", interface, "nodad"]);
    states_become(MonitorState::Reachable);
    cluster.settle(PRIMARY).unwrap();
}

#[test]
fn a_node_does_with_most_of_its_monitors_and_names_those_that_are_missing() {
    use MonitorState::{Reachable, Unreachable};

    let nobody = "10.0.9.99";
    let cluster = formed(with_monitors(&[SERVER_ADDRESS, CLIENT_ADDRESS, nobody]));
    let states_become = |expected: [MonitorState; 3]| {
        poll::until(PATIENCE, || {
            let states = monitor_states(&cluster)?;
            ensure!(states == expected, "the monitors are {states:?}");
            Ok(())
        })
        .unwrap();
    };
    states_become([Reachable, Reachable, Unreachable]);
    poll::throughout(Duration::from_millis(500), || {
        let group = cluster.group(PRIMARY)?;
        ensure!(is_active(&group), "it is {}", group.state);
        Ok(())
    })
    .unwrap();
    let text = cluster.status_text(PRIMARY).unwrap();
    assert!(!text.contains("not well"), "{text}");

    let client = cluster.lab.node(CLIENT);
    let set_link = |state| client.exec(&["ip", "link", "set", "eth0", state]).unwrap();
    set_link("down");
    cluster.await_active(SECONDARY, PATIENCE).unwrap();
    states_become([Reachable, Unreachable, Unreachable]);
    let why = format!("monitors unreachable: {CLIENT_ADDRESS}, {nobody}");
    let down = "vyatta-a (this node): Down (at least 1 monitor not reachable)";
    poll::until(PATIENCE, || {
        let text = cluster.status_text(PRIMARY)?;
        ensure!(text.contains(down), "{text}");
        ensure!(
            text.contains(&format!("this node is not well: {why}")),
            "{text}"
        );
        Ok(())
    })
    .unwrap();
    let unanswered = format!("{CLIENT_ADDRESS} does not answer");
    agent::line_about_a_group(cluster.node(PRIMARY), &unanswered).unwrap();
    let history = cluster.group(PRIMARY).unwrap().transitions;
    let left = history.iter().rfind(|it| it.from == "active").unwrap();
    assert_eq!((&*left.to, &*left.cause), ("fault", &*why));
    assert_eq!(left.known.monitors_missing, [CLIENT_ADDRESS, nobody]);

    set_link("up");
    cluster.settle(SECONDARY).unwrap();
}

/// The router's own kernel answers for a neighbour that does not: with "host unreachable".
#[test]
fn a_node_whose_monitor_does_not_answer_leaves_the_group_to_its_peer() {
    let cluster = Cluster::start(with_monitors(&["10.0.9.99"])).unwrap();
    cluster.await_active(SECONDARY, PATIENCE).unwrap();
    poll::until(PATIENCE, || {
        let states = monitor_states(&cluster)?;
        ensure!(states == [MonitorState::Unreachable], "they are {states:?}");
        let text = cluster.status_text(PRIMARY)?;
        ensure!(text.contains("vyatta-a (this node): Down (at least 1 monitor not reachable)"));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_tunnel_device_that_was_set_down_is_told() {
    let cluster = formed(Router::article_config);
    let node = cluster.node(PRIMARY);
    node.exec(&["ip", "link", "set", "tun00", "down"]).unwrap();
    poll::until(PATIENCE, || {
        let text = cluster.status_text(PRIMARY)?;
        ensure!(text.contains("our probes cannot be sent: "), "{text}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_second_agent_is_refused_and_the_first_goes_on() {
    let cluster = formed(Router::article_config);
    let node = cluster.node(PRIMARY);
    let config = node.directory().join("second.conf");
    fs::write(&config, PRIMARY.article_config()).unwrap();
    let bpffs = node.directory().join("second-bpffs");
    fs::create_dir(&bpffs).unwrap();
    let (config, bpffs) = (config.to_str().unwrap(), bpffs.to_str().unwrap());
    let script = format!(
        "mount -t bpf bpf {bpffs}; exec {} run --config {config} --bpffs {bpffs} \
         --control-socket /run/second.sock",
        agent::binary("router-agent").unwrap().display()
    );
    let refusal = node.exec(&["sh", "-c", &script]).unwrap_err();
    let refusal = format!("{refusal:#}");
    assert!(
        refusal.contains("another router-agent runs in this network namespace"),
        "{refusal}"
    );
    cluster.settle(PRIMARY).unwrap();
    node.exec(&["ping", "-c1", "-W1", "169.254.0.2"]).unwrap();
}
