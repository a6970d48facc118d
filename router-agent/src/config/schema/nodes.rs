//! The nodes themselves.

use super::{Kind, Node, Status, Type, Word};

const fn node(name: &'static str, kind: Kind, help: &'static str) -> Node {
    Node {
        name,
        kind,
        help,
        default: None,
        status: Status::Supported,
        required: None,
    }
}

const fn branch(name: &'static str, help: &'static str, children: &'static [Node]) -> Node {
    node(name, Kind::Branch(children), help)
}

const fn tag(name: &'static str, of: Type, help: &'static str, children: &'static [Node]) -> Node {
    node(name, Kind::Tag(of, children), help)
}

const fn leaf(name: &'static str, of: Type, help: &'static str) -> Node {
    node(name, Kind::Leaf(of), help)
}

const fn multi(name: &'static str, of: Type, help: &'static str) -> Node {
    node(name, Kind::Multi(of), help)
}

const fn flag(name: &'static str, help: &'static str) -> Node {
    node(name, Kind::Flag, help)
}

/// A node of ours that is still to come, with all below it.
const fn later(name: &'static str, help: &'static str) -> Node {
    Node {
        status: Status::Later,
        ..node(name, Kind::Branch(&[]), help)
    }
}

/// A node of Vyatta's that is not ours, with all below it.
const fn foreign(name: &'static str) -> Node {
    Node {
        status: Status::Foreign,
        ..node(name, Kind::Branch(&[]), "")
    }
}

impl Node {
    const fn default(self, value: &'static str) -> Self {
        Self {
            default: Some(value),
            ..self
        }
    }

    /// Its parent must have it; `example` is a value to show.
    const fn required(self, example: &'static str) -> Self {
        Self {
            required: Some(example),
            ..self
        }
    }
}

const fn word(word: &'static str) -> Word {
    Word {
        word,
        status: Status::Supported,
    }
}

const fn later_word(word: &'static str) -> Word {
    Word {
        word,
        status: Status::Later,
    }
}

const fn foreign_word(word: &'static str) -> Word {
    Word {
        word,
        status: Status::Foreign,
    }
}

const fn milliseconds(min: u32, max: u32) -> Type {
    Type::Number {
        min,
        max,
        unit: "milliseconds",
    }
}

/// A byte of the outer header.
const HEADER_BYTE: Type = Type::NumberOr {
    min: 0,
    max: 255,
    words: &[word("inherit")],
};

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
    later("control", "The control socket"),
    later("metrics", "Metrics for Prometheus"),
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

static INTERFACES: &[Node] = &[
    tag(
        "tunnel",
        Type::TunnelName,
        "A tunnel to another router",
        TUNNEL,
    ),
    foreign("adsl"),
    foreign("bonding"),
    foreign("bridge"),
    foreign("dummy"),
    foreign("ethernet"),
    foreign("input"),
    foreign("loopback"),
    foreign("multilink"),
    foreign("openvpn"),
    foreign("pseudo-ethernet"),
    foreign("serial"),
    foreign("virtual-ethernet"),
    foreign("vti"),
    foreign("wireless"),
    foreign("wirelessmodem"),
];

static TUNNEL: &[Node] = &[
    multi(
        "address",
        Type::Prefix,
        "Address of this host in the tunnel, with its network's length",
    ),
    leaf("description", Type::Text(256), "Free text"),
    flag("disable", "Keep the interface down; no packet passes"),
    leaf(
        "encapsulation",
        Type::Choice(&[
            word("gre"),
            later_word("gre-bridge"),
            later_word("gre-udp"),
            foreign_word("ipip"),
            foreign_word("ipip6"),
            foreign_word("ip6ip6"),
            foreign_word("sit"),
        ]),
        "How packets are wrapped",
    )
    .required("gre"),
    leaf("local-ip", Type::Endpoint, "Outer address of this end").required("ADDRESS"),
    leaf("remote-ip", Type::Endpoint, "Outer address of the far end").required("ADDRESS"),
    leaf(
        "mtu",
        Type::Number {
            min: 64,
            max: 65_511,
            unit: "bytes",
        },
        "Largest packet within the tunnel; the underlay's less the overhead if not stated",
    ),
    leaf(
        "multicast",
        Type::Choice(&[word("enable"), word("disable")]),
        "Whether the tunnel carries multicast",
    )
    .default("disable"),
    branch("parameters", "The outer header", PARAMETERS),
    foreign("disable-link-detect"),
    foreign("firewall"),
    foreign("ip"),
    foreign("ipv6"),
    foreign("policy"),
    foreign("qos-policy"),
    foreign("redirect"),
    foreign("traffic-policy"),
];

static PARAMETERS: &[Node] = &[
    branch("ip", "The outer IPv4 header, and GRE's", PARAMETERS_IP),
    later("ipv6", "The outer IPv6 header"),
];

static PARAMETERS_IP: &[Node] = &[
    leaf(
        "key",
        Type::NumberOr {
            min: 0,
            max: u32::MAX,
            words: &[later_word("cluster-epoch")],
        },
        "GRE key; packets carry none if not stated",
    ),
    leaf("tos", HEADER_BYTE, "Type of service byte").default("inherit"),
    leaf("ttl", HEADER_BYTE, "Time to live; 0 is the same as inherit").default("255"),
    later(
        "adjust-mss",
        "Lower the segment size of TCP to what fits the tunnel",
    ),
    later("bridge-group", "Make the tunnel a port of a bridge"),
];

static CLUSTER: &[Node] = &[
    multi("interface", Type::InterfaceName, "Tunnel that carries the heartbeats").required("tunN"),
    leaf("pre-shared-secret", Type::Secret, "Secret that both nodes share").required("'TEXT'"),
    leaf(
        "mcast-group",
        Type::McastGroup,
        "Accepted for old configurations; heartbeats are unicast inside the tunnel",
    )
    .default("239.251.252.253"),
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
    leaf("keepalive-interval", milliseconds(1, 14_999), "Time between heartbeats").default("50"),
    leaf(
        "dead-interval",
        milliseconds(1, 29_999),
        "Silence after which a node is dead; more than twice keepalive-interval",
    )
    .default("200"),
    leaf(
        "agent-dead-interval",
        milliseconds(1, 300_000),
        "Silence after which a node's agent is dead; at least dead-interval",
    )
    .default("3000"),
    leaf(
        "monitor-dead-interval",
        milliseconds(4, 29_999),
        "Silence after which a monitored address is unreachable; more than twice keepalive-interval",
    )
    .default("1000"),
    tag("group", Type::Name, "What moves together, and between whom", GROUP).required("NAME"),
    later("arbiter", "A third party that decides when the nodes cannot"),
];

static GROUP: &[Node] = &[
    leaf("primary", Type::HostName, "Node that is active at first").required("HOST"),
    multi("secondary", Type::HostName, "Node that takes over").required("HOST"),
    leaf(
        "auto-failback",
        Type::Bool,
        "Whether the primary takes the group back when it returns",
    )
    .default("false"),
    multi(
        "monitor",
        Type::Address,
        "Address that must answer for a node to be fit",
    ),
    multi(
        "service",
        Type::Service,
        "Address that belongs to the active node",
    ),
    later("prefer", "Availability or consistency, without an arbiter"),
    later("priority", "Order among several nodes"),
    later("aws", "Routes and addresses of a cloud"),
    later(
        "protect",
        "Interfaces whose transit traffic only the active node forwards",
    ),
];
