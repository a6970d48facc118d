//! What a lab is to look like: data only.

/// Nodes and the cables between them.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    pub nodes: Vec<NodeSpec>,
    pub cables: Vec<Cable>,
}

impl Topology {
    #[must_use]
    pub fn node(mut self, node: NodeSpec) -> Self {
        self.nodes.push(node);
        self
    }

    #[must_use]
    pub fn cable(mut self, near: End, far: End) -> Self {
        self.cables.push(Cable { ends: [near, far] });
        self
    }

    /// The far ends of the cables of the node called `name`.
    pub fn neighbours<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a End> {
        self.cables
            .iter()
            .filter_map(move |Cable { ends: [one, other] }| {
                if one.node == name {
                    Some(other)
                } else if other.node == name {
                    Some(one)
                } else {
                    None
                }
            })
    }
}

/// A machine.
#[derive(Clone, Debug, Default)]
pub struct NodeSpec {
    pub name: String,
    pub forwards: bool,
    /// Lines of `ip -batch` before the cables are plugged.
    pub setup: Vec<String>,
    /// Lines of `ip -batch` after that.
    pub routes: Vec<String>,
}

impl NodeSpec {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// It forwards packets from one interface to another.
    #[must_use]
    pub fn forwarding(mut self) -> Self {
        self.forwards = true;
        self
    }

    /// It has a bridge, for [`End::port_of`].
    #[must_use]
    pub fn bridge(mut self, name: &str) -> Self {
        self.setup
            .push(format!("link add {name} type bridge mcast_snooping 0"));
        self.setup.push(format!("link set {name} up"));
        self
    }

    #[must_use]
    pub fn route(mut self, destination: &str, via: &str) -> Self {
        self.routes
            .push(format!("route replace {destination} via {via}"));
        self
    }
}

/// A veth pair between two nodes.
#[derive(Clone, Debug)]
pub struct Cable {
    pub ends: [End; 2],
}

/// One end of a cable.
#[derive(Clone, Debug)]
pub struct End {
    pub node: String,
    pub interface: String,
    pub mac: Option<String>,
    pub pass: bool,
    setup: Vec<String>,
}

impl End {
    pub fn new(node: &str, interface: &str) -> Self {
        Self {
            node: node.into(),
            interface: interface.into(),
            mac: None,
            pass: false,
            setup: Vec::new(),
        }
    }

    /// Usable at once: an IPv6 address is not looked for on the cable first (RFC 4862 §5.4).
    #[must_use]
    pub fn address(mut self, prefix: &str) -> Self {
        let Self { interface, .. } = &self;
        let nodad = if prefix.contains(':') { "nodad" } else { "" };
        self.setup
            .push(format!("address add {prefix} dev {interface} {nodad}"));
        self
    }

    #[must_use]
    pub fn mac(mut self, mac: &str) -> Self {
        self.mac = Some(mac.into());
        self
    }

    #[must_use]
    pub fn port_of(mut self, bridge: &str) -> Self {
        let Self { interface, .. } = &self;
        self.setup
            .push(format!("link set {interface} master {bridge}"));
        self
    }

    /// The other end will run a native XDP program that transmits.
    #[must_use]
    pub fn pass(mut self) -> Self {
        self.pass = true;
        self
    }

    pub fn setup_lines(&self) -> Vec<String> {
        let up = format!("link set {} up", self.interface);
        self.setup.iter().cloned().chain([up]).collect()
    }
}
