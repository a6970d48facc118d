//! Our router and a Linux machine with the kernel's own tunnel, with two routers between them.
//!
//! ```text
//!  inside 10.1.0.100                                               10.2.0.1 service
//!     │                                                                │
//!  eth1 .1                                                            lo
//!   ours ═══════════════════ tun0  10.254.0.0/24 ═════════════════ theirs
//!  eth0 10.0.1.10 ── near ─────────── 10.0.3.0/24 ─────────── far ── eth0 10.0.2.10
//! ```
//!
//! The same in IPv6: `fd00:N::` where IPv4 has `10.0.N.0`, `fd00:10::` inside, `fd00:20::` behind
//! theirs, `fd00:254::` in the tunnel.

pub mod talk;
pub mod wire;

use std::{fs, net::IpAddr, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    agent::{self, Agent},
    capture::Capture,
    lab::{End, Lab, Node, NodeSpec, Topology},
    poll,
};

pub const OURS: &str = "ours";
pub const THEIRS: &str = "theirs";
pub const INSIDE: &str = "inside";
pub const NEAR: &str = "near";
pub const FAR: &str = "far";
const ROUTERS: [&str; 3] = [OURS, NEAR, FAR];

/// Kernels in software emulation are slow, and other programs may run beside them.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// The kernel's tunnels, what goes through them, and what the tests do to packets.
const MODULES: [&str; 8] = [
    "ip_gre",
    "ip6_gre",
    "fou",
    "sch_netem",
    "8021q",
    "bridge",
    "vrf",
    "sctp",
];

/// Addresses in the tunnel, of ours and of theirs.
pub const TUNNEL_V4: [&str; 2] = ["10.254.0.1", "10.254.0.2"];
pub const TUNNEL_V6: [&str; 2] = ["fd00:254::1", "fd00:254::2"];
/// Behind the Linux machine.
pub const SERVICE: [&str; 2] = ["10.2.0.1", "fd00:20::1"];
/// Behind our router.
pub const INSIDE_ADDRESSES: [&str; 2] = ["10.1.0.100", "fd00:10::100"];

/// What all outer headers of both ends have, where nothing is inherited.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// TTL or hop limit at the sender.
    pub hop_limit: u8,
    /// TOS or traffic class.
    pub traffic_class: u8,
    /// Not looked at in IPv4.
    pub flow_label: u32,
}

/// A tunnel and what it is to look like on the wire.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a feature that a tunnel has or has not, whatever the others are"
)]
pub struct Case {
    /// What `ip link add … type` calls it.
    pub kind: &'static str,
    pub key: Option<u32>,
    pub checksum: bool,
    pub sequence: bool,
    /// The outer TOS or traffic class is the inner packet's, and its TTL or hop limit too, but for what
    /// Linux sends over IPv6.
    pub inherit: bool,
    pub fixed: Option<Outer>,
    /// RFC 8086.
    pub in_udp: bool,
    /// What follows `set interfaces tunnel tun0`.
    pub ours: &'static [&'static str],
    /// More words for `ip link add`.
    pub theirs: &'static str,
    /// More lines of our configuration.
    pub more: &'static str,
}

impl Case {
    /// GRE over IPv4 with the four bytes that every GRE header has.
    pub const GRE: Self = Self {
        kind: "gre",
        key: None,
        checksum: false,
        sequence: false,
        inherit: false,
        fixed: None,
        in_udp: false,
        ours: &[],
        theirs: "",
        more: "",
    };

    /// Whether frames are carried, not packets.
    pub fn is_layer_2(&self) -> bool {
        self.kind.ends_with("gretap")
    }

    fn is_over_ipv6(&self) -> bool {
        self.kind.starts_with("ip6")
    }

    /// Addresses of the underlay, of ours and of theirs.
    pub fn underlay(&self) -> [&'static str; 2] {
        if self.is_over_ipv6() {
            ["fd00:1::10", "fd00:2::10"]
        } else {
            ["10.0.1.10", "10.0.2.10"]
        }
    }

    /// The configuration of our router.
    pub fn config(&self) -> String {
        let [local, remote] = self.underlay();
        let encapsulation = match (self.is_layer_2(), self.in_udp) {
            (true, _) => "gre-bridge",
            (false, true) => "gre-udp",
            (false, false) => "gre",
        };
        let mut lines = vec![
            format!("encapsulation {encapsulation}"),
            format!("local-ip {local}"),
            format!("remote-ip {remote}"),
            "multicast enable".to_owned(),
        ];
        if !self.ours.iter().any(|line| line.contains("bridge-group")) {
            lines.push(format!("address {}/24", TUNNEL_V4[0]));
            lines.push(format!("address {}/64", TUNNEL_V6[0]));
        }
        lines.extend(self.key.map(|key| format!("parameters ip key {key}")));
        if self.checksum {
            lines.push("parameters ip checksum".to_owned());
        }
        if self.sequence {
            lines.push("parameters ip sequence".to_owned());
        }
        if self.inherit {
            let [hops, class] = if self.is_over_ipv6() {
                ["ipv6 hoplimit", "ipv6 tclass"]
            } else {
                ["ip ttl", "ip tos"]
            };
            lines.extend([hops, class].map(|what| format!("parameters {what} inherit")));
        }
        if let Some(outer) = self.fixed {
            let (hops, class) = (outer.hop_limit, outer.traffic_class);
            lines.extend(if self.is_over_ipv6() {
                vec![
                    format!("parameters ipv6 hoplimit {hops}"),
                    format!("parameters ipv6 tclass {class}"),
                    format!("parameters ipv6 flowlabel {}", outer.flow_label),
                ]
            } else {
                vec![
                    format!("parameters ip ttl {hops}"),
                    format!("parameters ip tos {class}"),
                ]
            });
        }
        lines.extend(self.ours.iter().map(|&line| line.to_owned()));
        let tunnel = lines
            .iter()
            .map(|line| format!("set interfaces tunnel tun0 {line}\n"));
        format!(
            "set system host-name {OURS}\n{}{}",
            tunnel.collect::<String>(),
            self.more
        )
    }

    /// Lines of `ip -batch` that make the kernel's tunnel.
    fn device(&self) -> Vec<String> {
        let [remote, local] = self.underlay();
        let mut words = vec![format!(
            "link add tun0 type {} local {local} remote {remote}",
            self.kind
        )];
        words.extend(self.key.map(|key| format!("key {key}")));
        if let Some(outer) = self.fixed {
            let (hops, class) = (outer.hop_limit, outer.traffic_class);
            words.push(if self.is_over_ipv6() {
                let label = outer.flow_label;
                format!("hoplimit {hops} tclass {class:#x} flowlabel {label:#x}")
            } else {
                format!("ttl {hops} tos {class:#x}")
            });
        }
        for (wanted, word) in [
            (self.checksum, "csum"),
            (self.sequence, "seq"),
            (
                self.inherit && !self.is_over_ipv6(),
                "ttl inherit tos inherit",
            ),
            // Linux has no hop limit to inherit over IPv6.
            (self.inherit && self.is_over_ipv6(), "tclass inherit"),
            (self.in_udp, "encap fou encap-sport auto encap-dport 4754"),
            (true, self.theirs),
        ] {
            if wanted {
                words.push(word.to_owned());
            }
        }
        vec![
            words.join(" "),
            "link set tun0 up multicast on".to_owned(),
            format!("address add {}/24 dev tun0", TUNNEL_V4[1]),
            format!("address add {}/64 dev tun0 nodad", TUNNEL_V6[1]),
            format!("route add 10.1.0.0/24 via {} dev tun0", TUNNEL_V4[0]),
            format!("route add fd00:10::/64 via {} dev tun0", TUNNEL_V6[0]),
        ]
    }
}

/// The machines, with the tunnel between two of them.
pub struct Pair {
    // Before the lab, so that it ends before the network does.
    agent: Option<Agent>,
    pub lab: Lab,
    case: Case,
}

impl Pair {
    /// Builds the network and both ends of the tunnel. That packets pass is for
    /// [`Self::await_ping`] to see.
    pub fn new(case: &Case) -> Result<Self> {
        Self::prepared(case, |_| Ok(()))
    }

    /// As [`Self::new`], with something done to the network before the tunnel is made.
    pub fn prepared(case: &Case, prepare: impl FnOnce(&Lab) -> Result<()>) -> Result<Self> {
        load_modules()?;
        let lab = lab()?;
        prepare(&lab)?;
        for router in ROUTERS {
            lab.node(router)
                .run(|| fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1"))??;
        }
        // What is captured is then what a real wire would carry.
        for (node, interface) in [(OURS, "eth0"), (THEIRS, "eth0"), (INSIDE, "eth0")] {
            lab.node(node)
                .exec(&["ethtool", "-K", interface, "tx", "off"])?;
        }
        for interface in ["to-ours", "to-far"] {
            lab.node(NEAR)
                .exec(&["ethtool", "-K", interface, "gro", "off"])?;
        }
        let theirs = lab.node(THEIRS);
        if case.in_udp {
            theirs.exec(&["ip", "fou", "add", "port", "4754", "ipproto", "47"])?;
        }
        theirs.ip_batch(&case.device())?;
        let mut pair = Self {
            agent: None,
            lab,
            case: *case,
        };
        pair.start_agent()?;
        Ok(pair)
    }

    /// Returns when the agent runs and the tunnel is up. The device alone says nothing: an agent
    /// that died leaves one behind.
    pub fn start_agent(&mut self) -> Result<()> {
        let starts = || agent::log(self.ours()).matches(": running\n").count();
        let before = starts();
        let agent = Agent::start(self.ours(), &self.case.config())?;
        poll::until(PATIENCE, || {
            ensure!(starts() > before, "the agent does not run yet");
            let link = self.ours().exec(&["ip", "link", "show", "tun0", "up"])?;
            ensure!(!link.is_empty(), "tun0 is not up");
            Ok(())
        })
        .with_context(|| format!("the agent says:\n{}", agent::log(self.ours())))?;
        self.agent = Some(agent);
        Ok(())
    }

    /// Our agent, which is to be started again by [`Self::start_agent`].
    pub fn take_agent(&mut self) -> Result<Agent> {
        self.agent.take().context("no agent runs")
    }

    pub fn ours(&self) -> &Node {
        self.lab.node(OURS)
    }

    pub fn theirs(&self) -> &Node {
        self.lab.node(THEIRS)
    }

    pub fn inside(&self) -> &Node {
        self.lab.node(INSIDE)
    }

    /// Waits until a ping goes through the tunnel.
    pub fn await_ping(&self) -> Result<()> {
        poll::until(PATIENCE, || {
            ping(self.ours(), TUNNEL_V4[1], &["-c1", "-W2"])
        })
    }

    /// Lets our router and what is inside reach the service behind the tunnel.
    pub fn route_to_service(&self) -> Result<()> {
        self.ours().ip_batch(&[
            format!("route add {}/32 via {} dev tun0", SERVICE[0], TUNNEL_V4[1]),
            format!("route add {}/128 via {} dev tun0", SERVICE[1], TUNNEL_V6[1]),
        ])
    }

    /// Sets the MTU, in bytes, of the link between the two routers of the underlay.
    pub fn narrow(&self, mtu: u32) -> Result<()> {
        for (node, interface) in [(NEAR, "to-far"), (FAR, "to-near")] {
            let words = ["ip", "link", "set", interface, "mtu", &mtu.to_string()];
            self.lab.node(node).exec(&words)?;
        }
        Ok(())
    }

    /// Delays and drops packets between the two routers of the underlay; `netem` as tc-netem(8)
    /// has it.
    pub fn disturb(&self, netem: &str) -> Result<()> {
        for (node, interface) in [(NEAR, "to-far"), (FAR, "to-near")] {
            let words = format!("tc qdisc replace dev {interface} root netem {netem}");
            let words: Vec<&str> = words.split_whitespace().collect();
            self.lab.node(node).exec(&words)?;
        }
        Ok(())
    }

    /// Captures what goes between our router and the underlay.
    pub fn capture(&self) -> Result<Capture> {
        Capture::start(self.lab.node(NEAR), "to-ours", "not arp", 100_000)
    }

    /// Whether a captured packet was sent by our router.
    pub fn is_ours(&self, source: IpAddr) -> bool {
        source.to_string() == self.underlay()[0]
    }

    /// Addresses of the underlay, of ours and of theirs.
    pub fn underlay(&self) -> [&'static str; 2] {
        self.case.underlay()
    }
}

/// Pings `address` with more arguments of ping(8), once or as often as they say.
pub fn ping(node: &Node, address: &str, arguments: &[&str]) -> Result<()> {
    node.exec(&[&["ping", "-n"], arguments, &[address]].concat())
        .map(drop)
}

fn load_modules() -> Result<()> {
    let output = Command::new("modprobe")
        .arg("--all")
        .args(MODULES)
        .output()
        .context("cannot run modprobe; it is in the package kmod")?;
    ensure!(
        output.status.success(),
        "this kernel has not all of {MODULES:?}; run `cargo xtask test --vm`: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn lab() -> Result<Lab> {
    /// The host's part of an address in all networks of `/24` and `/64`.
    fn end(node: &str, interface: &str, network: u8, host: &str) -> End {
        End::new(node, interface)
            .address(&format!("10.0.{network}.{host}/24"))
            .address(&format!("fd00:{network}::{host}/64 nodad"))
    }
    let topology = Topology::default()
        .node(
            NodeSpec::new(OURS)
                .forwarding()
                .route("10.0.0.0/16", "10.0.1.1")
                .route("fd00:2::/64", "fd00:1::1")
                .route("fd00:3::/64", "fd00:1::1"),
        )
        .node(
            NodeSpec::new(NEAR)
                .forwarding()
                .route("10.0.2.0/24", "10.0.3.2")
                .route("fd00:2::/64", "fd00:3::2"),
        )
        .node(
            NodeSpec::new(FAR)
                .forwarding()
                .route("10.0.1.0/24", "10.0.3.1")
                .route("fd00:1::/64", "fd00:3::1"),
        )
        .node(
            NodeSpec::new(THEIRS)
                .route("10.0.0.0/16", "10.0.2.1")
                .route("fd00:1::/64", "fd00:2::1")
                .route("fd00:3::/64", "fd00:2::1"),
        )
        .node(
            NodeSpec::new(INSIDE)
                .route("default", "10.1.0.1")
                .route("default", "fd00:10::1"),
        )
        .cable(
            end(OURS, "eth0", 1, "10"),
            end(NEAR, "to-ours", 1, "1").pass(),
        )
        .cable(end(NEAR, "to-far", 3, "1"), end(FAR, "to-near", 3, "2"))
        .cable(end(FAR, "to-theirs", 2, "1"), end(THEIRS, "eth0", 2, "10"))
        .cable(
            End::new(OURS, "eth1")
                .address("10.1.0.1/24")
                .address("fd00:10::1/64 nodad"),
            End::new(INSIDE, "eth0")
                .address(&format!("{}/24", INSIDE_ADDRESSES[0]))
                .address(&format!("{}/64 nodad", INSIDE_ADDRESSES[1])),
        );
    let lab = Lab::new(topology)?;
    lab.node(THEIRS).ip_batch(&[
        format!("address add {}/32 dev lo", SERVICE[0]),
        format!("address add {}/128 dev lo nodad", SERVICE[1]),
    ])?;
    Ok(lab)
}
