//! The nodes at the top, of the host and of the cluster.

use super::build::{branch, foreign, later, leaf, milliseconds, multi, seconds, tag, word};
use super::conntrack_sync::CONNTRACK_SYNC;
use super::interfaces::INTERFACES;
use super::{DefaultBy, Node, Type, Word};

pub(in crate::config) static ROOT: &[Node] = &[
    branch("cluster", "Which of two nodes is active", CLUSTER),
    branch("interfaces", "Network interfaces", INTERFACES),
    branch("system", "The host itself", SYSTEM),
    branch("service", "How the router is operated", SERVICE),
    foreign("content-inspection"),
    foreign("custom-attack"),
    foreign("firewall"),
    foreign("load-balancing"),
    foreign("nat"),
    foreign("policy"),
    foreign("protocols"),
    foreign("qos-policy"),
    foreign("test-definition"),
    foreign("traffic-policy"),
    foreign("vpn"),
    foreign("webproxy"),
    foreign("zone-policy"),
];

static SYSTEM: &[Node] = &[
    leaf(
        "host-name",
        Type::HostName,
        "Name of this host; must be the one that the kernel has",
    ),
    foreign("config-management"),
    foreign("conntrack"),
    foreign("console"),
    foreign("contact"),
    foreign("domain-name"),
    foreign("domain-search"),
    foreign("flow-accounting"),
    foreign("gateway-address"),
    foreign("ip"),
    foreign("ipv6"),
    foreign("login"),
    foreign("name-server"),
    foreign("ntp"),
    foreign("options"),
    foreign("package"),
    foreign("static-host-mapping"),
    foreign("syslog"),
    foreign("task-scheduler"),
    foreign("time-zone"),
];

static SERVICE: &[Node] = &[
    branch("control", "The control socket", CONTROL),
    branch(
        "conntrack-sync",
        "Connections that outlive a failover",
        CONNTRACK_SYNC,
    ),
    branch("metrics", "Metrics for Prometheus", METRICS),
    foreign("dhcp-relay"),
    foreign("dhcp-server"),
    foreign("dhcpv6-relay"),
    foreign("dhcpv6-server"),
    foreign("dns"),
    foreign("https"),
    foreign("ids"),
    foreign("lldp"),
    foreign("nat"),
    foreign("snmp"),
    foreign("ssh"),
    foreign("telnet"),
    foreign("webproxy"),
];

static CONTROL: &[Node] = &[
    leaf(
        "socket-group",
        Type::Name,
        "Group of users who may do all that routerctl does",
    )
    .rule(
        "As good as root: a configuration names scripts. Without it only root and the agent's user",
    ),
    leaf(
        "read-only-group",
        Type::Name,
        "Group of users who may look, but not at secrets",
    ),
];

static METRICS: &[Node] = &[leaf(
    "listen",
    Type::Listen,
    "Where http://ADDRESS:PORT/metrics is; a port alone is at 127.0.0.1",
)
.required("9430")];

static CLUSTER: &[Node] = &[
    multi("interface", Type::InterfaceName, "Tunnel that carries the heartbeats").required("tunN")
    .rule("`gre` or `gre-udp`, enabled, with an IPv4 address and multicast; several are several paths"),
    leaf("pre-shared-secret", Type::Secret, "Secret that both nodes share")
        .rule("Required, in one of these three ways"),
    leaf(
        "pre-shared-secret-file",
        Type::Path,
        "File with the secret on its one line",
    )
    .rule("Of root or the agent's user, and readable by nobody else"),
    leaf(
        "pre-shared-secret-credential",
        Type::Name,
        "The systemd credential that is the secret",
    ),
    leaf(
        "previous-pre-shared-secret",
        Type::Secret,
        "Secret that is still accepted while pre-shared-secret is being changed",
    )
    .rule("See [operations.md](operations.md#changing-the-secret)"),
    leaf(
        "previous-pre-shared-secret-file",
        Type::Path,
        "File with the secret that is still accepted",
    ),
    leaf(
        "previous-pre-shared-secret-credential",
        Type::Name,
        "The systemd credential that is the secret still accepted",
    ),
    leaf(
        "mcast-group",
        Type::McastGroup,
        "Accepted for old configurations; heartbeats are unicast inside the tunnel",
    )
    .default("239.251.252.253")
    .rule("Stating it is a warning"),
    leaf(
        "heartbeat-port",
        Type::Number {
            min: 1,
            max: 65_535,
            unit: "",
        },
        "UDP port of the heartbeats",
    )
    .default("6940"),
    leaf("keepalive-interval", milliseconds(1, 14_999), "Time between heartbeats")
        .default("50")
        .vyatta_default("5000"),
    leaf(
        "dead-interval",
        milliseconds(1, 29_999),
        "Silence after which a node is dead; more than twice keepalive-interval",
    )
    .default("200")
    .vyatta_default("20000"),
    leaf(
        "agent-dead-interval",
        milliseconds(1, 300_000),
        "Silence after which a node's agent is dead; at least dead-interval",
    )
    .default("3000")
    .default_by(DefaultBy::AtLeast("dead-interval")),
    leaf(
        "monitor-dead-interval",
        milliseconds(4, 29_999),
        "Silence after which a monitored address is unreachable; more than twice keepalive-interval",
    )
    .default("1000")
    .vyatta_default("20000"),
    leaf(
        "monitor-interval",
        milliseconds(1, 14_999),
        "Time between pings of a monitored address, each of which is answered before the next or not at all",
    )
    .rule("monitor-dead-interval is more than twice as long")
    .default("250")
    .default_by(DefaultBy::QuarterOf("monitor-dead-interval")),
    tag("group", Type::Name, "What moves together, and between whom", GROUP).required("NAME"),
    branch(
        "arbiter",
        "A third party that decides when the nodes cannot",
        ARBITER,
    ),
];

static ARBITER: &[Node] =
    &[branch("etcd", "etcd, version 3.4 or newer", ETCD).required("endpoint https://HOST:2379")];

static ETCD: &[Node] = &[
    multi(
        "endpoint",
        Type::Server,
        "Member of the etcd cluster; state all of them",
    )
    .required("https://HOST:2379"),
    leaf(
        "ca",
        Type::File,
        "Certificates that vouch for the endpoints, in PEM form",
    ),
    leaf("cert", Type::File, "This node's certificate, in PEM form"),
    leaf("key", Type::File, "The key of this node's certificate"),
    leaf("username", Type::Text(256), "User of etcd"),
    leaf(
        "password-file",
        Type::File,
        "File whose one line is that user's password",
    ),
    leaf(
        "prefix",
        Type::KeyPrefix,
        "Beginning of the keys; another one for each cluster of equal host names",
    )
    .default("/router"),
    leaf(
        "term",
        milliseconds(300, 60_000),
        "How long a node alone is active after a write to etcd; the same on both nodes",
    )
    .default("3000"),
    leaf(
        "timeout",
        milliseconds(10, 20_000),
        "Time for etcd to answer; at most a third of term",
    )
    .default("500"),
];

static GROUP: &[Node] = &[
    leaf("primary", Type::HostName, "Node that is active at first")
        .required("HOST")
        .rule("This host is the primary or the secondary"),
    multi("secondary", Type::HostName, "Node that takes over")
        .required("HOST")
        .rule("Exactly one in this version"),
    leaf(
        "auto-failback",
        Type::Bool,
        "Whether the primary takes the group back when it returns",
    )
    .default("false")
    .rule("Set it on both nodes"),
    multi(
        "monitor",
        Type::Address,
        "Address that must answer for a node to be fit",
    )
    .rule("It is pinged. Of several more than half must answer, so of two both"),
    branch(
        "track",
        "What of this host must be well for it to be fit, or preferred",
        TRACK,
    ),
    multi(
        "service",
        Type::Service,
        "Address, systemd unit or script that belongs to the active node",
    )
    .rule("An address without an interface is on the one whose network holds it, and must have no other use. Units and scripts start in this order. See [operations.md](operations.md#what-moves-with-a-group)"),
    tag(
        "route",
        Type::Network,
        "Route that only the active node's kernel has",
        ROUTE,
    ),
    leaf(
        "notify",
        Type::File,
        "Script that is told each change of state, as keepalived would call it",
    )
    .rule("See [operations.md](operations.md#what-moves-with-a-group)"),
    leaf(
        "prefer",
        Type::Choice(PREFER),
        "What counts more while the nodes do not hear each other",
    )
    .default("availability")
    .rule("See [failover.md](failover.md)"),
    later("priority", "Order among several nodes"),
    branch("aws", "What of AWS belongs to the active node", AWS),
    branch("protect", "What only the active node forwards", PROTECT),
];

static TRACK: &[Node] = &[
    tag(
        "interface",
        Type::InterfaceName,
        "Interface that must be up and have a carrier",
        INTERFACE,
    ),
    tag("process", Type::Name, "Process of which one must run", PACE),
    tag("script", Type::Name, "Script that must succeed", SCRIPT),
];

const INTERVAL: Node = leaf(
    "interval",
    milliseconds(100, 60_000),
    "Time between two looks",
)
.default("1000");
const RISE: Node = leaf(
    "rise",
    TIMES,
    "Looks in a row that must find it well, to count as well again",
)
.default("1");
const FALL: Node = leaf(
    "fall",
    TIMES,
    "Looks in a row that must find it not well, to count as such",
)
.default("1");
const WEIGHT: Node = leaf(
    "weight",
    Type::Weight,
    "What it counts for the node's priority, instead of for its fitness",
)
.default("0")
.rule("See [failover.md](failover.md#weights)");
const TIMES: Type = Type::Number {
    min: 1,
    max: 255,
    unit: "",
};

static INTERFACE: &[Node] = &[WEIGHT];

static PACE: &[Node] = &[INTERVAL, RISE, FALL, WEIGHT];

static SCRIPT: &[Node] = &[
    leaf(
        "command",
        Type::Command,
        "What is run; exit status 0 means well",
    )
    .required("/PATH/OF/FILE")
    .rule("Without a shell"),
    leaf(
        "timeout",
        milliseconds(100, 60_000),
        "Time after which it is killed, which counts as not well",
    )
    .default("1000"),
    INTERVAL,
    RISE,
    FALL,
    WEIGHT,
];

static PREFER: &[Word] = &[word("availability"), word("consistency")];

static PROTECT: &[Node] = &[multi(
    "interface",
    Type::OtherInterface,
    "Interface whose transit traffic only the active node forwards",
)
.required("ethN")
    .rule("See [safety.md](safety.md). Not part of a bridge, and of one group only. Protect both sides of the router")];

static ROUTE: &[Node] = &[
    leaf("next-hop", Type::Address, "Router that it leads to")
        .rule("Of the network's family. This or `interface`"),
    leaf(
        "interface",
        Type::InterfaceName,
        "Interface that it leads out of",
    ),
];

static AWS: &[Node] = &[
    tag(
        "route-table",
        Type::AwsId("rtb-"),
        "Route table whose entries lead to the active node",
        ROUTE_TABLE,
    ),
    multi(
        "elastic-ip",
        Type::AwsId("eipalloc-"),
        "Elastic IP address, by its allocation",
    ),
    multi(
        "private-ip",
        Type::Ipv4Address,
        "Secondary private address of the network interface",
    ),
    leaf(
        "interface",
        Type::AwsInterface,
        "Network interface that packets are to come to: its name here, or eni-…; else the primary",
    ),
    leaf("region", Type::Name, "Region; else the instance's"),
    leaf(
        "endpoint",
        Type::Url,
        "Address of the EC2 API; else the region's",
    ),
    leaf(
        "verify-interval",
        seconds(1, 3_600),
        "How often the active node sees whether all is still as it should be",
    )
    .default("10")
    .rule("See [aws.md](aws.md)"),
];

static ROUTE_TABLE: &[Node] = &[multi(
    "destination",
    Type::AwsDestination,
    "Network or prefix list that leads to the active node",
)
.required("NETWORK")];
