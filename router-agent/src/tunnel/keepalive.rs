//! Cisco's keepalives: a GRE packet with a GRE packet in it that leads back to us. The far end need
//! know nothing of them. Pure: the kernel program counts those that come back.

use std::net::Ipv4Addr;

use router_common::{
    gre::{Format, GreBase},
    net::{ETH_P_IPV4, Ipv4, PROTO_GRE},
    time::BootTime,
};

use crate::config::{self, GreKey, Tunnel};

/// Protocol type of what comes back: no payload follows.
const PROTOCOL: u16 = 0;
/// Of what comes back, which may have as far to go as we have.
const INNER_TTL: u8 = 255;

/// Whether a tunnel answers, by the keepalives that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    config: config::Keepalive,
    /// How many had come back at the last look.
    heard: u64,
    /// Sent in a row without one that came back.
    unanswered: u32,
    is_up: bool,
    next: BootTime,
}

impl Keepalive {
    /// The tunnel counts as up until so many are lost. The first is due at once.
    pub const fn new(config: config::Keepalive, heard: u64, now: BootTime) -> Self {
        Self {
            config,
            heard,
            unanswered: 0,
            is_up: true,
            next: now,
        }
    }

    /// When the next is due.
    pub const fn next(&self) -> BootTime {
        self.next
    }

    pub const fn is_up(&self) -> bool {
        self.is_up
    }

    pub const fn config(&self) -> config::Keepalive {
        self.config
    }

    /// Sent in a row without one that came back, up to now.
    pub const fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Takes in that `heard` have come back since ever. Whether one is to be sent now.
    pub fn tick(&mut self, heard: u64, now: BootTime) -> bool {
        if heard != self.heard {
            self.heard = heard;
            self.unanswered = 0;
            self.is_up = true;
        }
        if now < self.next {
            return false;
        }
        if self.unanswered >= self.config.retries {
            self.is_up = false;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.next = now.after(self.config.interval);
        true
    }
}

/// What to send from `local_ip` to `remote_ip` as IP protocol 47. `None` where the kernel program
/// would refuse what comes back: over IPv6 and in UDP there are no such keepalives, and what is in
/// them has neither checksum nor sequence number nor an epoch.
pub fn packet(tunnel: &Tunnel) -> Option<Vec<u8>> {
    let format = super::format(tunnel);
    let plain = Format::default().with(Format::KEY, format.has(Format::KEY));
    if format != plain || tunnel.key == Some(GreKey::ClusterEpoch) {
        return None;
    }
    let local = ipv4(tunnel.local_ip)?;
    let remote = ipv4(tunnel.remote_ip)?;
    let key = tunnel.key.and_then(GreKey::fixed).map(u32::to_be_bytes);
    let gre = |protocol| {
        let base = GreBase::new(format.bits(), protocol);
        [
            bytemuck::bytes_of(&base),
            key.as_ref().map_or(&[], <[u8; 4]>::as_slice),
        ]
        .concat()
    };
    let inner_gre = gre(PROTOCOL);
    let length = u16::try_from(Ipv4::LEN + inner_gre.len()).ok()?;
    let inner = Ipv4::new(
        PROTO_GRE,
        remote.octets(),
        local.octets(),
        0,
        INNER_TTL,
        length,
    );
    Some([&gre(ETH_P_IPV4), bytemuck::bytes_of(&inner), &inner_gre].concat())
}

fn ipv4(address: std::net::IpAddr) -> Option<Ipv4Addr> {
    match address {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::tunnel::testing::tunnel;

    const CONFIG: config::Keepalive = config::Keepalive {
        interval: Duration::from_secs(10),
        retries: 3,
    };

    fn at(seconds: u64) -> BootTime {
        BootTime::from_ns(1).after(Duration::from_secs(seconds))
    }

    #[test]
    fn goes_down_after_the_retries_and_up_with_the_first_answer() {
        let mut keepalive = Keepalive::new(CONFIG, 7, at(0));
        for (seconds, heard, sends, is_up) in [
            (0, 7, true, true),
            (1, 7, false, true),
            (10, 8, true, true),
            (20, 8, true, true),
            (30, 8, true, true),
            // The one of 10, 20 and 30 are lost.
            (40, 8, true, false),
            (49, 8, false, false),
            (50, 8, true, false),
            // Seen at once, whenever one looks.
            (51, 9, false, true),
            (60, 9, true, true),
        ] {
            assert_eq!(keepalive.tick(heard, at(seconds)), sends, "{seconds}");
            assert_eq!(keepalive.is_up(), is_up, "{seconds}");
        }
    }

    #[test]
    fn a_look_that_comes_late_sends_one_and_not_several() {
        let mut keepalive = Keepalive::new(CONFIG, 0, at(0));
        assert!(keepalive.tick(0, at(0)));
        assert!(keepalive.tick(1, at(95)));
        assert_eq!(keepalive.next(), at(105));
        assert!(!keepalive.tick(1, at(96)));
        assert!(keepalive.is_up());
    }

    #[test]
    fn bytes_with_a_key_and_without() {
        let plain = packet(&tunnel()).unwrap();
        assert_eq!(plain[..4], [0, 0, 8, 0]);
        // IPv4 from the far end to us, protocol GRE, 24 bytes.
        assert_eq!(plain[4..8], [0x45, 0, 0, 24]);
        assert_eq!(plain[12..14], [255, 47]);
        assert_eq!(plain[16..], [10, 0, 2, 10, 10, 0, 1, 10, 0, 0, 0, 0]);

        let keyed = Tunnel {
            key: Some(GreKey::Fixed(0x0102_0304)),
            ..tunnel()
        };
        let keyed = packet(&keyed).unwrap();
        assert_eq!(keyed[..8], [0x20, 0, 8, 0, 1, 2, 3, 4]);
        assert_eq!(keyed[8..12], [0x45, 0, 0, 28]);
        assert_eq!(keyed[28..], [0x20, 0, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn none_where_none_would_come_back() {
        let checked = Tunnel {
            checksum: true,
            ..tunnel()
        };
        assert_eq!(packet(&checked), None);
        let numbered = Tunnel {
            sequence: true,
            ..tunnel()
        };
        assert_eq!(packet(&numbered), None);
        let of_an_epoch = Tunnel {
            key: Some(GreKey::ClusterEpoch),
            ..tunnel()
        };
        assert_eq!(packet(&of_an_epoch), None);
    }

    proptest! {
        #[test]
        fn down_means_that_so_many_were_sent_in_vain(
            looks in prop::collection::vec((0_u64..25, any::<bool>()), 0..60),
        ) {
            let mut keepalive = Keepalive::new(CONFIG, 0, at(0));
            let (mut now, mut heard, mut in_vain) = (0, 0, 0);
            for (wait, answered) in looks {
                now += wait;
                if answered {
                    heard += 1;
                    in_vain = 0;
                }
                let was_up = keepalive.is_up();
                let sent = keepalive.tick(heard, at(now));
                if answered {
                    prop_assert!(keepalive.is_up());
                } else if was_up && !keepalive.is_up() {
                    prop_assert!(in_vain >= CONFIG.retries);
                }
                in_vain += u32::from(sent);
                prop_assert!(keepalive.next() > at(now));
            }
        }
    }
}
