//! `service conntrack-sync`, in Vyatta's words and in those of its successor for what is new there.

use super::build::{branch, foreign, later, leaf, multi, tag, word};
use super::{Node, Type};

const MEGABYTES: Type = Type::Number {
    min: 1,
    max: 1_024,
    unit: "megabytes",
};

pub(super) static CONNTRACK_SYNC: &[Node] = &[
    branch(
        "failover-mechanism",
        "What decides who commits the connections",
        FAILOVER_MECHANISM,
    )
    .required("cluster group NAME"),
    tag(
        "interface",
        Type::InterfaceName,
        "Interface by which the nodes tell each other of connections",
        INTERFACE,
    )
    .required("tunN")
    .rule("A tunnel with multicast, or one with a `peer`"),
    multi(
        "accept-protocol",
        Type::Choices(&[
            word("tcp"),
            word("udp"),
            word("icmp"),
            word("icmp6"),
            word("sctp"),
            word("dccp"),
        ]),
        "Protocols whose connections are told; without it: all",
    ),
    multi(
        "ignore-address",
        Type::Address,
        "Address whose connections are not told",
    )
    .rule("Those of 127.0.0.1, `::1`, the tunnels' ends and the interfaces named here never are"),
    leaf(
        "mcast-group",
        Type::Ipv4Group,
        "Multicast group, by interfaces without a peer",
    )
    .default("225.0.0.50"),
    leaf(
        "event-listen-queue-size",
        MEGABYTES,
        "Room for the kernel's events that wait to be read",
    )
    .default("8"),
    leaf(
        "sync-queue-size",
        MEGABYTES,
        "Room for messages of the nodes that wait to be sent, or read",
    )
    .default("1"),
    later(
        "disable-external-cache",
        "Commit at once what the peer tells",
    ),
    later("expect-sync", "Helpers whose expectations are told"),
    foreign("disable-syslog"),
    foreign("listen-address"),
    foreign("purge-timeout"),
    foreign("startup-resync"),
];

static FAILOVER_MECHANISM: &[Node] = &[
    branch("cluster", "A group of the cluster", CLUSTER).required("group NAME"),
    foreign("vrrp"),
];

static CLUSTER: &[Node] = &[leaf(
    "group",
    Type::Name,
    "Group whose active node commits the connections",
)
.required("NAME")];

static INTERFACE: &[Node] = &[
    leaf(
        "peer",
        Type::Ipv4Address,
        "The other node's address; without it they are told by multicast",
    ),
    leaf(
        "port",
        Type::Number {
            min: 1,
            max: 65_535,
            unit: "",
        },
        "UDP port",
    )
    .rule("Without it: 3780, and one more for each interface that stands before"),
];
