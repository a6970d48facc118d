use super::*;
use crate::{
    control::protocol::{
        ArbiterStatus, ArbiterTimes, Authority, DuplicateStatus, FenceStatus, GateState,
        MonitorState, MonitorStatus, Priorities, Step,
    },
    views::golden,
};

const SECOND: u64 = 1_000_000_000;

fn node(name: &str, this_node: bool, state: NodeState) -> NodeStatus {
    NodeStatus {
        name: name.to_owned(),
        this_node,
        state,
    }
}

fn transition(from: &str, to: &str, epoch: u32, cause: &str) -> Transition {
    Transition {
        at_ns: 100 * SECOND,
        group: "aws".to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        epoch,
        cause: cause.to_owned(),
        last_heard_ns: 99 * SECOND,
        decided_ns: 100 * SECOND,
        steps: vec![Step::default()],
        boot_id: "b".to_owned(),
        ..Transition::default()
    }
}

/// The article's pair, as its primary sees it when all is well.
fn pair() -> Status {
    Status {
        node: "vyatta-a".to_owned(),
        generation: 7,
        agent_uptime_ms: 3_725_000,
        now_ns: 101 * SECOND + 532_400_000,
        clock_source: "kvm-clock".to_owned(),
        clock_may_stop: false,
        virtual_machine: true,
        boot_id: "b".to_owned(),
        groups: vec![GroupStatus {
            group: "aws".to_owned(),
            this_node: "vyatta-a".to_owned(),
            primary: node("vyatta-a", true, NodeState::Active),
            secondary: node("vyatta-c", false, NodeState::ActiveStandby),
            state: "active".to_owned(),
            epoch: 3,
            owner: Some("vyatta-a".to_owned()),
            peer_finding: "alive".to_owned(),
            prefer: "availability".to_owned(),
            transitions: vec![transition(
                "candidate",
                "active",
                3,
                "nobody owns the group",
            )],
            ..GroupStatus::default()
        }],
        paths: vec![PathStatus {
            group: "aws".to_owned(),
            interface: "tun00".to_owned(),
            peer: "vyatta-c".to_owned(),
            session_up: true,
            note: None,
        }],
    }
}

/// The same as its secondary sees it.
fn pair_on_secondary() -> Status {
    let mut status = pair();
    status.node = "vyatta-c".to_owned();
    status.paths[0].peer = "vyatta-a".to_owned();
    let group = &mut status.groups[0];
    group.this_node = "vyatta-c".to_owned();
    group.primary.this_node = false;
    group.secondary.this_node = true;
    group.state = "standby".to_owned();
    group.transitions = vec![transition(
        "initializing",
        "standby",
        3,
        "the peer was heard",
    )];
    status
}

fn with_services(mut status: Status, held: bool) -> Status {
    let group = &mut status.groups[0];
    group.monitors = ["10.0.0.1", "10.0.0.2"]
        .map(|address| MonitorStatus {
            address: address.to_owned(),
            state: MonitorState::Reachable,
            ..MonitorStatus::default()
        })
        .to_vec();
    group.services = ["10.0.0.254/24/eth1", "squid"]
        .map(|service| ServiceStatus {
            service: service.to_owned(),
            held,
            error: None,
            duplicates: Vec::new(),
        })
        .to_vec();
    status
}

fn resources_line(status: &Status) -> String {
    let text = cluster_status(status);
    let mut lines = text
        .lines()
        .skip_while(|line| !line.contains("Resources ["));
    lines.nth(1).unwrap().trim().to_owned()
}

#[test]
fn the_articles_pair() {
    golden::check("cluster-pair", &cluster_status(&pair()));
}

#[test]
fn the_secondarys_view() {
    golden::check("cluster-secondary", &cluster_status(&pair_on_secondary()));
}

#[test]
fn the_peer_is_down() {
    let mut status = pair_on_secondary();
    status.paths[0].session_up = false;
    status.paths[0].note = Some("nothing heard for 1532 ms".to_owned());
    let group = &mut status.groups[0];
    group.primary.state = NodeState::Down;
    group.secondary.state = NodeState::Active;
    group.state = "active".to_owned();
    group.epoch = 4;
    group.owner = Some("vyatta-c".to_owned());
    group.peer_finding = "kernel-silent".to_owned();
    group.transitions = vec![transition(
        "standby",
        "active",
        4,
        "the peer was silent for 200 ms",
    )];
    golden::check("cluster-peer-down", &cluster_status(&status));
}

#[test]
fn with_monitors_and_services() {
    let mut status = with_services(pair(), true);
    let group = &mut status.groups[0];
    group.monitors[1].state = MonitorState::Unreachable;
    group.monitors.push(MonitorStatus {
        address: "interface eth2".to_owned(),
        state: MonitorState::Unreachable,
        why: Some("it has no carrier".to_owned()),
        weight: -20,
    });
    group.priorities = Some(Priorities {
        own: 80,
        peer: Some(100),
    });
    group.services[0].duplicates.push(DuplicateStatus {
        mac: "02:00:00:00:00:0c".to_owned(),
        claims: 3,
        last_ns: 99 * SECOND,
    });
    group.prefer = "consistency".to_owned();
    golden::check("cluster-services", &cluster_status(&status));
}

#[test]
fn a_starting_node() {
    let mut status = with_services(pair(), false);
    status.paths[0].session_up = false;
    let group = &mut status.groups[0];
    group.primary.state = NodeState::StartedWaitingForSecondary;
    group.secondary.state = NodeState::Initializing;
    group.state = "initializing".to_owned();
    group.epoch = 0;
    group.owner = None;
    group.peer_finding = "never-heard".to_owned();
    group.transitions.clear();
    for monitor in &mut group.monitors {
        monitor.state = MonitorState::Initializing;
    }
    group.notes = vec!["MAC failures: pre-shared-secret differs".to_owned()];
    golden::check("cluster-initializing", &cluster_status(&status));
}

#[test]
fn two_groups() {
    let mut status = pair();
    let mut lan = pair_on_secondary().groups.remove(0);
    lan.group = "lan".to_owned();
    lan.this_node = "vyatta-a".to_owned();
    lan.primary.name = "vyatta-c".to_owned();
    lan.secondary.name = "vyatta-a".to_owned();
    lan.owner = Some("vyatta-c".to_owned());
    status.groups.push(lan);
    let mut path = status.paths[0].clone();
    path.group = "lan".to_owned();
    status.paths.push(path);
    golden::check("cluster-two-groups", &cluster_status(&status));
}

#[test]
fn no_group() {
    let mut status = pair();
    status.groups.clear();
    golden::check("cluster-none", &cluster_status(&status));
}

#[test]
fn resources_are_where_they_are() {
    assert_eq!(
        resources_line(&with_services(pair(), true)),
        "Active on primary vyatta-a (this node)"
    );
    assert_eq!(
        resources_line(&with_services(pair_on_secondary(), false)),
        "Active on primary vyatta-a"
    );
    // Active, but not all services have started.
    assert_eq!(
        resources_line(&with_services(pair(), false)),
        "Resource status in transition"
    );
    // Standby, but not all services have stopped.
    assert_eq!(
        resources_line(&with_services(pair_on_secondary(), true)),
        "Resource status in transition"
    );
    let mut both_well = with_services(pair_on_secondary(), false);
    both_well.groups[0].primary.state = NodeState::ActiveStandby;
    assert_eq!(resources_line(&both_well), "Unknown");
}

#[test]
fn an_arbiter_tells_how_it_answers() {
    let asked = |arbiter: ArbiterStatus| {
        let mut status = pair();
        status.groups[0].arbiter = Some(arbiter);
        cluster_status(&status)
    };
    let connected = ArbiterStatus {
        state: "connected".to_owned(),
        endpoint: "http://10.0.4.10:2379".to_owned(),
        key: "/router/vyatta-a+vyatta-c/aws".to_owned(),
        record: Some("epoch 3, vyatta-a, paired".to_owned()),
        answered_ns: pair().now_ns - SECOND,
        answers: 12,
        times: Some(ArbiterTimes {
            last_us: 1_200,
            min_us: 800,
            avg_us: 1_150,
            max_us: 9_000,
        }),
        wanted_us: 1_000,
        term_ms: 3_000,
        timeout_ms: 500,
        ..ArbiterStatus::default()
    };
    golden::check("cluster-arbiter", &asked(connected.clone()));
    let refused = ArbiterStatus {
        state: "refused".to_owned(),
        detail: Some("etcdserver: permission denied".to_owned()),
        remedy: Some("see that the user may write".to_owned()),
        answered_ns: 0,
        failures: 3,
        times: None,
        ..connected
    };
    golden::check("cluster-arbiter-refused", &asked(refused));
}

#[test]
fn a_fence_tells_by_whose_word_it_is_open() {
    let fenced = |fence: FenceStatus| {
        let mut status = pair();
        let group = &mut status.groups[0];
        group.protected = vec!["eth1".to_owned(), "eth2".to_owned()];
        group.prefer = "consistency".to_owned();
        group.fence = fence;
        cluster_status(&status)
    };
    let open = FenceStatus {
        gate: GateState::Open,
        authority: Some(Authority::Grants),
        end_ns: pair().now_ns + 143_700_000,
        ..FenceStatus::default()
    };
    golden::check("cluster-fence-open", &fenced(open.clone()));
    let ended = FenceStatus {
        gate: GateState::Expired,
        end_ns: pair().now_ns - 2 * SECOND,
        grants_too_short: 3,
        dropped_in: 10,
        dropped_out: 2,
        ..open
    };
    golden::check("cluster-fence-ended", &fenced(ended));
}
