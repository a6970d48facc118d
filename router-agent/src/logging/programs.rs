//! The lines of the log that the programs' records become: their targets, levels and words.

use std::net::{IpAddr, Ipv4Addr};

use router_common::{
    gre,
    log::Matter,
    net::{ETH_P_IPV4, ETH_P_IPV6, Ipv4, Ipv6},
    packet::Packet as _,
};
use tracing::{Level, enabled, event, field::display};

/// What a line is about, by name. What is not known is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names<'a> {
    pub group: Option<&'a str>,
    /// Of the session.
    pub path: Option<&'a str>,
    pub tunnel: Option<&'a str>,
    /// By which the packet came, or was about to leave.
    pub interface: Option<&'a str>,
}

/// What a line tells of the packet: addresses and key, and never what it carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Addresses of the outer IP header.
    pub from: Option<IpAddr>,
    pub to: Option<IpAddr>,
    /// The key of GRE.
    pub key: Option<u32>,
    /// The source of the IPv4 packet inside.
    pub inner_from: Option<Ipv4Addr>,
}

impl Headers {
    /// Reads the first bytes of a frame; what is not whole in them is left out.
    pub fn of(head: &[u8]) -> Self {
        let Some(link) = gre::link(head) else {
            return Self::default();
        };
        let (from, to): (Option<IpAddr>, Option<IpAddr>) = match link.ether_type {
            ETH_P_IPV4 => head
                .read(link.offset)
                .map(|header: Ipv4| (header.source.into(), header.destination.into()))
                .unzip(),
            ETH_P_IPV6 => head
                .read(link.offset)
                .map(|header: Ipv6| (header.source.into(), header.destination.into()))
                .unzip(),
            _ => (None, None),
        };
        let gre = gre::parse(head).ok().map(|(_, gre)| gre);
        Self {
            from,
            to,
            key: gre.and_then(|gre| gre.label.key()),
            inner_from: gre
                .filter(|gre| gre.header.protocol == ETH_P_IPV4)
                .and_then(|gre| head.read(gre.inner_offset))
                .map(|header: Ipv4| header.source.into()),
        }
    }
}

// Each is a place of its own in the code for `tracing`, of which target and level do not change.
macro_rules! lines {
    ($($matter:ident $level:ident $target:literal $text:literal)+) => {
        /// Whether lines about `matter` are wanted in the log, as its level is now.
        pub fn is_wanted(matter: Matter) -> bool {
            match matter {
                $(Matter::$matter => enabled!(target: $target, Level::$level),)+
            }
        }

        /// Says what the programs said.
        pub fn tell(matter: Matter, names: &Names<'_>, headers: &Headers) {
            let Names { group, path, tunnel, interface } = *names;
            let Headers { from, to, key, inner_from } = *headers;
            let (from, to) = (from.map(display), to.map(display));
            let inner_from = inner_from.map(display);
            match matter {
                $(Matter::$matter => event!(
                    target: $target,
                    Level::$level,
                    group,
                    path,
                    tunnel,
                    interface,
                    from,
                    to,
                    key,
                    inner_from,
                    $text
                ),)+
            }
        }

        /// Says of how many more packets nothing was said.
        pub fn tell_suppressed(matter: Matter, suppressed: u64) {
            match matter {
                $(Matter::$matter => event!(
                    target: $target,
                    Level::$level,
                    suppressed,
                    concat!("as often again, without a line for each: ", $text)
                ),)+
            }
        }
    };
}

lines! {
    Forged WARN "bpf::heartbeat" "a heartbeat was refused: its MAC is wrong, or made with a secret that this node does not have"
    NotUnderstood WARN "bpf::heartbeat" "a heartbeat was refused: it is of another version of the protocol"
    Stale DEBUG "bpf::heartbeat" "a heartbeat was refused: it came before, or is older than one that did"
    WrongSender WARN "bpf::heartbeat" "a heartbeat was refused: it is not from the session's peer"
    NoSession DEBUG "bpf::heartbeat" "a heartbeat was refused: no session of this node is open for it"
    NotHeartbeat DEBUG "bpf::heartbeat" "a packet to the heartbeat port was dropped: it is no heartbeat"
    LeaseGranted DEBUG "bpf::lease" "the peer was granted a lease"
    LeaseRenewed DEBUG "bpf::lease" "the peer granted a lease"
    NoTunnel DEBUG "bpf::gre" "GRE was left to the stack: no tunnel has its addresses and key"
    Version DEBUG "bpf::gre" "GRE was left to the stack: its version is not 0"
    Truncated DEBUG "bpf::gre" "GRE was left to the stack: its lengths contradict each other"
    Malformed WARN "bpf::gre" "a packet was dropped: its GRE header is illegal, or lengths contradict each other"
    Unsupported DEBUG "bpf::gre" "a packet was dropped: the tunnel does not carry its protocol"
    Checksum WARN "bpf::gre" "a packet was dropped: it has a GRE checksum and the tunnel has none, or the other way round"
    Sequence DEBUG "bpf::gre" "a packet was dropped: its sequence number is old, or missing"
    Epoch WARN "bpf::gre" "a packet was dropped: its epoch has passed, the router that sent it has been deposed"
    Congestion DEBUG "bpf::gre" "a packet was dropped: congestion is marked on it, and its sender would not understand that"
    NoHeadroom WARN "bpf::gre" "a packet was dropped: the driver did not let its start be moved"
    Impostor WARN "bpf::gre" "a frame was dropped: it came from outside with the mark of decapsulated packets"
    Fenced DEBUG "bpf::fence" "a protected packet was dropped: the fence of its group is closed"
    NoEgress DEBUG "bpf::gre" "a packet was dropped: it came to a dataplane end of no tunnel"
    UnsupportedSent DEBUG "bpf::gre" "a packet was not sent: the tunnel does not carry its protocol"
    NoRoom WARN "bpf::gre" "a packet was not sent: there was no room for the outer headers"
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;
    use tracing_subscriber::{EnvFilter, Layer as _, Registry, layer::SubscriberExt as _};

    use super::*;
    use crate::{control::protocol::LogWanted, logging::Recent};

    /// Ethernet, IPv4, GRE with key 7, IPv4.
    const FRAME: [u8; 62] = {
        let mut frame = [0; 62];
        frame[12] = 0x08;
        frame[14] = 0x45;
        frame[17] = 48;
        frame[23] = 47;
        let mut at = 0;
        while at < 4 {
            frame[26 + at] = [192, 0, 2, 1][at];
            frame[30 + at] = [192, 0, 2, 2][at];
            frame[34 + at] = [0x20, 0, 0x08, 0][at];
            frame[38 + at] = [0, 0, 0, 7][at];
            frame[54 + at] = [10, 9, 8, 7][at];
            at += 1;
        }
        frame[42] = 0x45;
        frame
    };

    #[test]
    fn addresses_and_key_are_read_as_far_as_they_go() {
        let whole = Headers {
            from: Some([192, 0, 2, 1].into()),
            to: Some([192, 0, 2, 2].into()),
            key: Some(7),
            inner_from: Some([10, 9, 8, 7].into()),
        };
        assert_eq!(Headers::of(&FRAME), whole);
        let outer = Headers {
            inner_from: None,
            ..whole
        };
        assert_eq!(Headers::of(&FRAME[..61]), outer);
        assert_eq!(Headers::of(&FRAME[..41]), Headers { key: None, ..outer });
        assert_eq!(Headers::of(&FRAME[..33]), Headers::default());
        assert_eq!(Headers::of(&[]), Headers::default());
    }

    fn lines(level: &str, work: impl FnOnce()) -> Vec<String> {
        let recent = Recent::default();
        let filter = EnvFilter::new(level);
        let subscriber = Registry::default().with(recent.clone().with_filter(filter));
        with_default(subscriber, work);
        let lines = recent.lines(&LogWanted::default()).into_iter();
        lines
            .map(|line| format!("{} {:?} {}", line.target, line.fields, line.message))
            .collect()
    }

    #[test]
    fn a_line_has_names_and_addresses_and_no_more_than_is_known() {
        let lines = lines("info", || {
            let names = Names {
                group: Some("east"),
                tunnel: Some("tun0"),
                ..Names::default()
            };
            tell(Matter::Forged, &names, &Headers::of(&FRAME));
            tell(Matter::Impostor, &Names::default(), &Headers::default());
            tell_suppressed(Matter::Forged, 12);
        });
        assert_eq!(
            lines,
            [
                "bpf::heartbeat {\"from\": \"192.0.2.1\", \"group\": \"east\", \"inner_from\": \"10.9.8.7\", \"key\": \"7\", \"to\": \"192.0.2.2\", \"tunnel\": \"tun0\"} a heartbeat was refused: its MAC is wrong, or made with a secret that this node does not have",
                "bpf::gre {} a frame was dropped: it came from outside with the mark of decapsulated packets",
                "bpf::heartbeat {\"suppressed\": \"12\"} as often again, without a line for each: a heartbeat was refused: its MAC is wrong, or made with a secret that this node does not have",
            ]
        );
    }

    #[test]
    fn the_level_decides_of_what_the_programs_speak() {
        let wanted = |level: &str| {
            let mut wanted = Vec::new();
            lines(level, || {
                wanted = Matter::ALL.into_iter().filter(|m| is_wanted(*m)).collect();
            });
            wanted
        };
        assert_eq!(wanted("off"), []);
        assert_eq!(wanted("debug"), Matter::ALL);
        let usual = wanted("info");
        assert!(usual.contains(&Matter::Forged) && !usual.contains(&Matter::Fenced));
        assert_eq!(
            wanted("error,bpf::lease=debug"),
            [Matter::LeaseGranted, Matter::LeaseRenewed]
        );
        assert_eq!(wanted("off,bpf=debug"), Matter::ALL);
    }
}
