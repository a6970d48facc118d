//! `interfaces`.

use super::build::{SWITCH, branch, flag, foreign, foreign_word, leaf, multi, seconds, tag, word};
use super::{Node, Type, Word};

const INHERIT: &[Word] = &[word("inherit")];

/// A byte of the outer header.
const HEADER_BYTE: Type = Type::NumberOr {
    min: 0,
    max: 255,
    words: INHERIT,
};

const fn bits(width: u32) -> Type {
    Type::BitsOr {
        width,
        words: INHERIT,
    }
}

pub(super) static INTERFACES: &[Node] = &[
    tag(
        "tunnel",
        Type::TunnelName,
        "A tunnel to another router",
        TUNNEL,
    ),
    tag(
        "ethernet",
        Type::OtherInterface,
        "An interface that the host has",
        ETHERNET,
    ),
    foreign("adsl"),
    foreign("bonding"),
    foreign("bridge"),
    foreign("dummy"),
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

static ETHERNET: &[Node] = &[
    leaf(
        "fast-path",
        SWITCH,
        "Whether packets between this interface and the tunnels pass by the stack",
    )
    .default("disable")
    .rule("See [tunnel.md](tunnel.md#three-ways): past netfilter and all else in the stack"),
    leaf(
        "xdp-mode",
        Type::Choice(&[word("auto"), word("native"), word("generic")]),
        "Whether the driver runs the programs",
    )
    .default("auto")
    .rule("`--xdp-mode`, if not `auto`, goes before it"),
    foreign("address"),
    foreign("bond-group"),
    foreign("bridge-group"),
    foreign("description"),
    foreign("dhcp-options"),
    foreign("dhcpv6-options"),
    foreign("disable"),
    foreign("disable-flow-control"),
    foreign("disable-link-detect"),
    foreign("duplex"),
    foreign("firewall"),
    foreign("hw-id"),
    foreign("ip"),
    foreign("ipv6"),
    foreign("mac"),
    foreign("mirror"),
    foreign("mtu"),
    foreign("offload"),
    foreign("offload-options"),
    foreign("policy"),
    foreign("pppoe"),
    foreign("pseudo-ethernet"),
    foreign("qos-policy"),
    foreign("redirect"),
    foreign("ring-buffer"),
    foreign("smp-affinity"),
    foreign("smp_affinity"),
    foreign("speed"),
    foreign("traffic-policy"),
    foreign("vif"),
    foreign("vif-s"),
    foreign("vrrp"),
];

static TUNNEL: &[Node] = &[
    multi(
        "address",
        Type::Prefix,
        "Address of this host in the tunnel, with its network's length",
    )
    .rule("Networks of two tunnels must not overlap. Not for a port of a bridge"),
    leaf("description", Type::Text(256), "Free text"),
    flag("disable", "Keep the interface down; no packet passes")
    .rule("`local-ip` must be on this host all the same"),
    leaf(
        "encapsulation",
        Type::Choice(&[
            word("gre"),
            word("gre-bridge"),
            word("gre-udp"),
            foreign_word("ipip"),
            foreign_word("ipip6"),
            foreign_word("ip6ip6"),
            foreign_word("sit"),
        ]),
        "How packets are wrapped",
    )
    .required("gre")
    .rule("Packets in GRE, Ethernet frames in GRE, packets in GRE in UDP"),
    leaf(
        "fast-path",
        SWITCH,
        "Whether packets between the tunnel and other interfaces pass by the stack",
    )
    .default("enable")
    .rule("See [tunnel.md](tunnel.md#three-ways)"),
    branch(
        "keepalive",
        "Ask the far end whether it is there",
        KEEPALIVE,
    )
    .alone(),
    leaf("local-ip", Type::Endpoint, "Outer address of this end").required("ADDRESS")
    .rule("On an interface of this host, the underlay. If that is `lo` or a dummy, packets leave by the route to `remote-ip`"),
    leaf("remote-ip", Type::Endpoint, "Outer address of the far end").required("ADDRESS")
    .rule("Tunnels with both addresses equal need different keys, `gre` and `gre-bridge` too"),
    leaf(
        "mtu",
        Type::Number {
            min: 64,
            max: 65_511,
            unit: "bytes",
        },
        "Largest packet within the tunnel; the underlay's less the overhead if not stated",
    )
    .rule("1280 at least with an IPv6 address"),
    leaf("multicast", SWITCH, "Whether the tunnel carries multicast").default("disable")
    .rule("Must be enabled where heartbeats ride"),
    branch("parameters", "The headers", PARAMETERS),
    foreign("disable-link-detect"),
    foreign("firewall"),
    foreign("ip"),
    foreign("ipv6"),
    foreign("policy"),
    foreign("qos-policy"),
    foreign("redirect"),
    foreign("traffic-policy"),
];

static KEEPALIVE: &[Node] = &[
    leaf("interval", seconds(1, 32_767), "Time between keepalives")
        .default("10")
        .rule("Cisco's keepalives, only `gre` over IPv4; `keepalive` alone turns them on"),
    leaf(
        "retries",
        Type::Number {
            min: 1,
            max: 255,
            unit: "",
        },
        "Keepalives without an answer after which the tunnel is down",
    )
    .default("3"),
];

static PARAMETERS: &[Node] = &[
    branch("ip", "The outer IPv4 header, and GRE's", PARAMETERS_IP),
    branch("ipv6", "The outer IPv6 header", PARAMETERS_IPV6),
];

static PARAMETERS_IP: &[Node] = &[
    leaf(
        "adjust-mss",
        // 536 is what every TCP takes (RFC 9293 §3.7.1), 65495 what fits the largest IPv4 packet.
        Type::NumberOr {
            min: 536,
            max: 65_495,
            words: &[word("auto")],
        },
        "Lower the segment size of TCP, in bytes, or to what fits the tunnel",
    )
    .rule("Not with `gre-bridge`"),
    branch(
        "bridge-group",
        "Make the tunnel a port of a bridge",
        BRIDGE_GROUP,
    ),
    flag("checksum", "Send GRE checksums and require them")
    .rule("Not where heartbeats ride"),
    leaf(
        "key",
        Type::NumberOr {
            min: 0,
            max: u32::MAX,
            words: &[word("cluster-epoch")],
        },
        "GRE key, or the cluster's epoch in its place; packets carry none if not stated",
    )
    .rule("0 is a key. `cluster-epoch`: see [Epochs](tunnel.md#epochs); not where heartbeats ride, nor with `keepalive` or several groups"),
    leaf(
        "epoch-domain",
        Type::Name,
        "The cluster at the far end, where epochs of several clusters come in",
    )
    .rule("Only with `key cluster-epoch`; those without a name are of one cluster"),
    flag("sequence", "Send GRE sequence numbers and require them")
    .rule("Not where heartbeats ride"),
    leaf("tos", HEADER_BYTE, "Type of service byte").default("inherit")
    .rule("Over IPv4"),
    leaf("ttl", HEADER_BYTE, "Time to live; 0 is the same as inherit").default("255")
    .rule("Over IPv4"),
];

/// The bounds are those of the kernel's bridge.
static BRIDGE_GROUP: &[Node] = &[
    leaf("bridge", Type::OtherInterface, "Name of the bridge")
        .required("brN")
        .rule("Only with `gre-bridge`, which may be without"),
    leaf(
        "cost",
        Type::Number {
            min: 1,
            max: 65_535,
            unit: "",
        },
        "Cost of the port in the spanning tree",
    )
    .rule("The kernel's choice if not stated; it has no 0, which Vyatta had"),
    leaf(
        "priority",
        Type::Number {
            min: 0,
            max: 63,
            unit: "",
        },
        "Priority of the port in the spanning tree",
    )
    .rule("The kernel's choice and range; Vyatta had up to 255"),
];

static PARAMETERS_IPV6: &[Node] = &[
    leaf(
        "encaplimit",
        Type::NumberOr {
            min: 0,
            max: 255,
            words: &[word("none")],
        },
        "Encapsulation limit of RFC 2473; none is sent",
    )
    .default("none")
    .rule("Over IPv6; only `none` is carried out, and a limit from the far end accepted"),
    leaf("flowlabel", bits(20), "Flow label")
        .default("0")
        .rule("Over IPv6"),
    leaf(
        "hoplimit",
        HEADER_BYTE,
        "Hop limit; 0 is the same as inherit",
    )
    .default("64")
    .rule("Over IPv6"),
    leaf("tclass", bits(8), "Traffic class")
        .default("inherit")
        .rule("Over IPv6"),
];
