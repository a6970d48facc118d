//! Keys and values of the BPF maps. Integers and byte arrays only, explicit padding, so that every
//! bit pattern is a value and kernel and user see the same bytes.
//!
//! Values that lie in memory-mapped arrays consist of 64-bit words, each written whole: a reader
//! may see the words of two messages side by side, but never half a word.

use bytemuck::{Pod, Zeroable};

pub use self::{
    fence::{EpochSlot, Fence, FenceCounters, Lease},
    session::{Granted, LocalState, SessionConfig, SessionKey, SessionState},
};
use crate::net::Mac;
pub use crate::{
    gre::{Format, TunnelKey, TunnelKey6},
    histogram::RoundTrips,
};

// Counters, each with its name. Before the modules, which use it.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)+ }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: u64,)+
        }

        impl $name {
            /// Each counter with its name.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field)),+].into_iter()
            }
        }

        counters!(@sum $name += $name { $($field)+ });
    };
    (@sum $sum:ident += $part:ident { $($field:ident)+ }) => {
        impl core::ops::AddAssign<&$part> for $sum {
            fn add_assign(&mut self, other: &$part) {
                $(self.$field = self.$field.wrapping_add(other.$field);)+
            }
        }
    };
}

mod fence;
mod session;

/// Raised with every change of a map's layout; the pins of each layout live in a directory of
/// their own.
pub const LAYOUT_VERSION: u32 = 4;

pub const MAX_TUNNELS: u32 = 16_384;
pub const MAX_SESSIONS: u32 = 4_096;
pub const MAX_INTERFACES: u32 = 1_024;
pub const MAX_GROUPS: u32 = 1_024;
/// A place for each group, and behind those one for each tunnel.
pub const MAX_EPOCHS: u32 = MAX_GROUPS + MAX_TUNNELS;

/// Names of the maps, as in the object and as pinned.
pub mod name {
    /// [`TunnelKey`](super::TunnelKey) → [`TunnelIngress`](super::TunnelIngress).
    pub const TUNNELS: &str = "TUNNELS";
    /// [`TunnelKey6`](super::TunnelKey6) → [`TunnelIngress`](super::TunnelIngress).
    pub const TUNNELS6: &str = "TUNNELS6";
    /// Number of a slot → [`TunnelSlot`](crate::slot::TunnelSlot), memory-mapped, agent writes.
    pub const SLOTS: &str = "SLOTS";
    /// Number of a slot → [`TunnelSlot6`](crate::slot::TunnelSlot6), memory-mapped, agent writes.
    pub const SLOTS6: &str = "SLOTS6";
    /// Tunnel index → [`TunnelDevice`](super::TunnelDevice).
    pub const DEVICES: &str = "DEVICES";
    /// Interface index of either end of a tunnel's device → tunnel index.
    pub const ENDS: &str = "ENDS";
    /// Tunnel index → [`TunnelEgress`](super::TunnelEgress), memory-mapped, agent writes.
    pub const EGRESS: &str = "EGRESS";
    /// Interface index of an underlay or a LAN → [`Interface`](super::Interface).
    pub const INTERFACES: &str = "INTERFACES";
    /// Tunnel index → [`Sequence`](super::Sequence).
    pub const SEQUENCES: &str = "SEQUENCES";
    /// Tunnel index → [`Traffic`](super::Traffic), per CPU.
    pub const TRAFFIC: &str = "TRAFFIC";
    /// Tunnel index → [`TunnelEvents`](super::TunnelEvents), per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// [`Reason`](super::Reason) → packets, per CPU.
    pub const REASONS: &str = "REASONS";
    /// Zero → [`Settings`](super::Settings).
    pub const SETTINGS: &str = "SETTINGS";
    /// [`SessionKey`](super::SessionKey) → session index.
    pub const SESSION_INDEX: &str = "SESSION_INDEX";
    /// Session index → [`SessionConfig`](super::SessionConfig), memory-mapped, agent writes.
    pub const SESSION_CONFIG: &str = "SESSION_CONFIG";
    /// Session index → [`SessionState`](super::SessionState), memory-mapped, kernel writes.
    pub const SESSIONS: &str = "SESSIONS";
    /// Session index → [`RoundTrips`](super::RoundTrips), memory-mapped, kernel writes.
    pub const ROUND_TRIPS: &str = "ROUND_TRIPS";
    /// Session index → [`LocalState`](super::LocalState), memory-mapped, agent writes.
    pub const LOCAL: &str = "LOCAL";
    /// Session index → [`Granted`](super::Granted), memory-mapped, kernel and agent write.
    pub const GRANTED: &str = "GRANTED";
    /// Group index → [`Fence`](super::Fence), memory-mapped, agent writes.
    pub const FENCES: &str = "FENCES";
    /// Group index → [`Lease`](super::Lease), memory-mapped, kernel writes.
    pub const LEASES: &str = "LEASES";
    /// Group index → [`FenceCounters`](super::FenceCounters), per CPU.
    pub const FENCE_COUNTERS: &str = "FENCE_COUNTERS";
    /// Interface index → group index.
    pub const PROTECTED: &str = "PROTECTED";
    /// Epoch slot → [`EpochSlot`](super::EpochSlot), memory-mapped, kernel and agent write.
    pub const EPOCHS: &str = "EPOCHS";

    /// Number of a [`Matter`](crate::log::Matter) → [`Gate`](crate::log::Gate), memory-mapped, kernel
    /// and agent write.
    pub const LOG_GATES: &str = "LOG_GATES";
    /// Number of a [`Matter`](crate::log::Matter) → records that were held back, per CPU.
    pub const LOG_SUPPRESSED: &str = "LOG_SUPPRESSED";
    /// A ring of [`Record`](crate::log::Record)s, kernel writes. It has one reader.
    pub const LOG: &str = "LOG";

    /// Of the log: no part of the layout, but of the programs that write it; each build has its own.
    pub const OF_LOG: [&str; 3] = [LOG, LOG_GATES, LOG_SUPPRESSED];

    /// Of the layout: an agent goes on with those that another one left.
    pub const ALL: [&str; 24] = [
        TUNNELS,
        TUNNELS6,
        SLOTS,
        SLOTS6,
        DEVICES,
        ENDS,
        EGRESS,
        INTERFACES,
        SEQUENCES,
        TRAFFIC,
        COUNTERS,
        REASONS,
        SETTINGS,
        SESSION_INDEX,
        SESSION_CONFIG,
        SESSIONS,
        ROUND_TRIPS,
        LOCAL,
        GRANTED,
        FENCES,
        LEASES,
        FENCE_COUNTERS,
        PROTECTED,
        EPOCHS,
    ];
}

/// What packets of a tunnel must be like that arrive on the underlay, and where they go.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct TunnelIngress {
    /// Index into DEVICES, SEQUENCES and COUNTERS; also part of [`SessionKey`].
    pub index: u32,
    pub format: Format,
    /// Bits of [`ingress_flag`].
    pub flags: u32,
    /// The tunnel's device.
    pub user_ifindex: u32,
    pub user_mac: Mac,
    /// The VLAN by which the underlay is reached, which frames may be tagged with; zero if none.
    pub vlan: u16,
    /// Inner destination of the peer's heartbeats, but for those to a group address.
    pub heartbeat_address: [u8; 4],
    /// UDP port of the heartbeats, host order; 0 if none run in this tunnel.
    pub heartbeat_port: u16,
    /// Index into EPOCHS of the newest epoch that came from the far end's cluster, with
    /// [`ingress_flag::EPOCH`].
    pub epoch_slot: u16,
}

/// Bits of [`TunnelIngress::flags`].
pub mod ingress_flag {
    /// Packets may be forwarded without the stack.
    pub const TRANSIT: u32 = 1;
    /// The segment size that TCP announces is lowered on the way to the stack.
    pub const ADJUST_MSS: u32 = 1 << 1;
    /// As [`interface_flag::STRICT_REVERSE_PATH`](super::interface_flag::STRICT_REVERSE_PATH).
    pub const STRICT_REVERSE_PATH: u32 = 1 << 2;
    /// The key is an epoch: packets of an older one than came before are refused.
    pub const EPOCH: u32 = 1 << 3;
}

/// The device of a tunnel, as packets enter it from the underlay.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct TunnelDevice {
    /// The user's end of the veth pair; zero if there is no such tunnel.
    pub user_ifindex: u32,
    /// The other end, at which the TC program sits.
    pub dataplane_ifindex: u32,
    /// Bytes; what is longer enters past the dataplane end, which would drop it.
    pub mtu: u32,
    /// Largest TCP segment to announce, in bytes; zero to leave it as it is.
    pub mss_ipv4: u16,
    pub mss_ipv6: u16,
    /// As [`TunnelIngress::vlan`].
    pub vlan: u16,
    pub padding: [u8; 6],
}

/// How packets of a tunnel leave by the underlay. What may change while its packets are under way
/// lies in 64-bit words, none of which needs another to be true.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct TunnelEgress {
    /// Index into DEVICES, SEQUENCES and COUNTERS.
    pub index: u32,
    pub underlay_ifindex: u32,
    pub format: Format,
    /// Bits of [`egress_flag`].
    pub flags: u32,
    /// IPv4 in the first four bytes.
    pub local: [u8; 16],
    pub remote: [u8; 16],
    /// Unless [`egress_flag::EPOCH`].
    pub key: [u8; 4],
    /// 20 bits, host order; unless inherited.
    pub flow_label: u32,
    /// Outer TTL or hop limit, unless inherited.
    pub ttl: u8,
    /// Outer type of service or traffic class, unless inherited.
    pub tos: u8,
    /// Largest TCP segment to announce, in bytes; zero to leave it as it is.
    pub mss_ipv4: u16,
    pub mss_ipv6: u16,
    /// Index into EPOCHS of our own, which is the key, with [`egress_flag::EPOCH`].
    pub epoch_slot: u16,
}

impl TunnelEgress {
    /// Whether the two put on outer headers that differ in no more than may change under way.
    pub fn has_headers_of(&self, other: &Self) -> bool {
        let fixed = |egress: &Self| {
            let Self {
                format,
                flags,
                local,
                remote,
                key,
                epoch_slot,
                ..
            } = *egress;
            let has_epoch = flags & egress_flag::EPOCH != 0;
            (format, local, remote, key, has_epoch, epoch_slot)
        };
        fixed(self) == fixed(other)
    }
}

/// Bits of [`TunnelEgress::flags`].
pub mod egress_flag {
    pub const TTL_INHERIT: u32 = 1;
    pub const TOS_INHERIT: u32 = 1 << 1;
    pub const FLOW_LABEL_INHERIT: u32 = 1 << 2;
    /// The path's MTU is so small that routers on it may fragment outer packets.
    pub const MAY_FRAGMENT: u32 = 1 << 3;
    /// Packets may be forwarded without the stack.
    pub const TRANSIT: u32 = 1 << 4;
    /// The key is our epoch at the moment of sending.
    pub const EPOCH: u32 = 1 << 5;
}

/// An interface that takes part in forwarding without the stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Interface {
    /// Bits of [`interface_flag`].
    pub flags: u32,
    pub mac: Mac,
    /// One more than the index of the group that protects it; zero if none does.
    pub protected_by: u16,
}

/// Bits of [`Interface::flags`].
pub mod interface_flag {
    /// Packets between it and the tunnels may be forwarded without the stack.
    pub const LAN: u32 = 1;
    /// What XDP redirects to it is sent.
    pub const TRANSMIT: u32 = 1 << 1;
    /// The way back to the source of an IPv4 packet must be the way that it came (RFC 3704 §2.2).
    pub const STRICT_REVERSE_PATH: u32 = 1 << 2;
}

/// Sequence numbers of a tunnel (RFC 2890 §2.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Sequence {
    /// How many packets were sent; the next one's number is its lower half.
    pub sent: u64,
    /// The number after the newest received in the lower half, and 1 in the upper; zero if none was.
    /// One word, for several CPUs may receive at once.
    pub received: u64,
}

impl Sequence {
    /// What [`Sequence::received`] becomes of `received` by a number that arrives; `None` if that is
    /// older than what came before.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub const fn after(received: u64, number: u32) -> Option<u64> {
        const ANY: u64 = 1 << 32;
        if received != 0 && number.wrapping_sub(received as u32) > u32::MAX / 2 {
            return None;
        }
        Some(ANY | number.wrapping_add(1) as u64)
    }

    /// Takes in a received number; whether it is no older than what was received before.
    pub fn accept(&mut self, number: u32) -> bool {
        match Self::after(self.received, number) {
            Some(received) => {
                self.received = received;
                true
            }
            None => false,
        }
    }
}

/// What holds for all packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// How the Ethernet source begins that XDP gives a decapsulated packet, so that TC knows it;
    /// drawn at random. The tunnel's index follows, big-endian. Zero: nothing is decapsulated.
    pub marker: [u8; 4],
    /// The mark of a packet that has its outer headers and enters the dataplane end once more; drawn
    /// at random. Zero: none does.
    pub encapsulated_mark: u32,
}

impl Settings {
    /// The source address that marks a packet of tunnel `index`; `None` while there is no marker.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an index is below MAX_TUNNELS"
    )]
    pub fn marked(&self, index: u32) -> Option<Mac> {
        let [a, b, c, d] = self.marker;
        let [high, low] = (index as u16).to_be_bytes();
        (self.marker != [0; 4]).then_some([a, b, c, d, high, low])
    }

    /// The tunnel index that a source address marks.
    #[inline(always)]
    pub fn index_of(&self, source: Mac) -> Option<u32> {
        let [a, b, c, d, high, low] = source;
        (self.marker != [0; 4] && self.marker == [a, b, c, d])
            .then(|| u32::from(u16::from_be_bytes([high, low])))
    }
}

const _: () = assert!(MAX_TUNNELS <= 1 << 16, "an index fits the marked address");

macro_rules! tunnel_counters {
    (
        { $($(#[$traffic_doc:meta])* $traffic:ident,)+ }
        { $($(#[$event_doc:meta])* $event:ident,)+ }
    ) => {
        counters! {
            /// What each packet of a tunnel changes, apart from the rest, so that thousands of
            /// tunnels take few cache lines. Bytes are those of the inner packets.
            Traffic { $($(#[$traffic_doc])* $traffic,)+ }
        }
        counters! {
            /// What few packets of a tunnel change.
            TunnelEvents { $($(#[$event_doc])* $event,)+ }
        }
        counters! {
            /// All that is counted of a tunnel.
            TunnelCounters {
                $($(#[$traffic_doc])* $traffic,)+
                $($(#[$event_doc])* $event,)+
            }
        }
        counters!(@sum TunnelCounters += Traffic { $($traffic)+ });
        counters!(@sum TunnelCounters += TunnelEvents { $($event)+ });
    };
}

tunnel_counters! {
    {
        rx_packets,
        rx_bytes,
        tx_packets,
        tx_bytes,
    }
    {
        /// Arrived for this tunnel and could not be decapsulated.
        rx_errors,
        /// Could not be encapsulated.
        tx_errors,
        /// Of a protocol that the tunnel does not carry.
        rx_unsupported,
        tx_unsupported,
        /// Checksum wrong, missing, or there against the configuration.
        rx_checksum_errors,
        /// Sequence number old or missing.
        rx_sequence_errors,
        /// Congestion marked on the way for a sender that does not know of it (RFC 6040 §4.2).
        rx_ecn_errors,
        /// Of an epoch lower than one that came before: from a router that has been deposed.
        rx_epoch_errors,
        /// Of an epoch higher than all before, as the first packet after each takeover is.
        rx_epoch_raises,
        /// Left to the slow path.
        rx_slow,
        /// Of `rx_packets`, forwarded without the stack.
        rx_transit,
        /// Of `tx_packets`, forwarded without the stack.
        tx_transit,
        /// The far end's keepalives, answered.
        keepalives_answered,
        /// Our own keepalives, come back.
        keepalives_heard,
    }
}

/// Events that belong to no tunnel and no session; indices into REASONS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// A GRE packet whose addresses and key name no tunnel of ours; left to the stack.
    NoTunnel = 0,
    /// Options before GRE; left to the stack, and so to the slow path.
    OuterOptions = 1,
    /// A fragment; left to the stack, and so to the slow path.
    OuterFragment = 2,
    /// A GRE version other than 0; left to the stack.
    Version = 3,
    /// GRE in UDP with a UDP checksum; left to the stack, and so to the slow path.
    UdpChecksum = 4,
    /// Outer lengths that contradict each other; left to the stack.
    Truncated = 5,
    /// A heartbeat-sized message for a session that we do not have; dropped.
    NoSession = 6,
    /// A packet on the heartbeat port that is no heartbeat by its length; dropped.
    NotHeartbeat = 7,
    /// The driver could not move the packet's start; dropped.
    NoHeadroom = 8,
    /// A frame of a dataplane end, or marked for one, without a tunnel; dropped.
    NoEgress = 9,
    /// A frame from outside with the mark of decapsulated packets; dropped.
    Impostor = 10,
}

impl Reason {
    pub const ALL: [Self; 11] = [
        Self::NoTunnel,
        Self::OuterOptions,
        Self::OuterFragment,
        Self::Version,
        Self::UdpChecksum,
        Self::Truncated,
        Self::NoSession,
        Self::NotHeartbeat,
        Self::NoHeadroom,
        Self::NoEgress,
        Self::Impostor,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::NoTunnel => "no-tunnel",
            Self::OuterOptions => "outer-options",
            Self::OuterFragment => "outer-fragment",
            Self::Version => "version",
            Self::UdpChecksum => "udp-checksum",
            Self::Truncated => "truncated",
            Self::NoSession => "no-session",
            Self::NotHeartbeat => "not-a-heartbeat",
            Self::NoHeadroom => "no-headroom",
            Self::NoEgress => "no-egress",
            Self::Impostor => "impostor",
        }
    }
}

const _: () = {
    assert!(size_of::<TunnelIngress>() == 32);
    assert!(size_of::<TunnelDevice>() == 24);
    assert!(size_of::<TunnelEgress>() == 64);
    assert!(size_of::<Interface>() == 12);
    assert!(size_of::<Sequence>() == 16);
    assert!(size_of::<Settings>() == 8);
    assert!(size_of::<Traffic>() == 32);
    assert!(size_of::<TunnelEvents>() == 112);
    assert!(size_of::<RoundTrips>() == 98 * 8);
    assert!(MAX_EPOCHS <= 1 << 16, "a slot fits the tunnels' elements");
    assert!(MAX_GROUPS < u16::MAX as u32, "one more fits Interface");
};

#[cfg(feature = "user")]
mod user {
    use super::{
        EpochSlot, Fence, FenceCounters, Granted, Interface, Lease, LocalState, RoundTrips,
        Sequence, SessionConfig, SessionKey, SessionState, Settings, Traffic, TunnelDevice,
        TunnelEgress, TunnelEvents, TunnelIngress, TunnelKey, TunnelKey6,
    };

    macro_rules! pod {
        ($($type:ty),+ $(,)?) => {
            $(
                // SAFETY: `bytemuck::Pod` already demands what `aya::Pod` does: any bit pattern is
                // valid and there is no padding.
                unsafe impl aya::Pod for $type {}
            )+
        };
    }
    pod!(
        EpochSlot,
        Fence,
        FenceCounters,
        Granted,
        Interface,
        Lease,
        LocalState,
        RoundTrips,
        Sequence,
        SessionConfig,
        SessionKey,
        SessionState,
        Settings,
        Traffic,
        TunnelDevice,
        TunnelEgress,
        TunnelEvents,
        TunnelIngress,
        TunnelKey,
        TunnelKey6,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_sequence_numbers_are_refused() {
        let mut sequence = Sequence::default();
        assert!(sequence.accept(u32::MAX - 1));
        assert!(!sequence.accept(u32::MAX - 1), "again");
        assert!(sequence.accept(u32::MAX));
        assert!(sequence.accept(5), "after the wrap, with a gap");
        assert!(!sequence.accept(3), "from the gap");
        assert!(sequence.accept(6));
    }

    #[test]
    fn marked_addresses_tell_their_tunnel() {
        let settings = Settings {
            marker: [2, 3, 5, 7],
            encapsulated_mark: 0,
        };
        let marked = settings.marked(MAX_TUNNELS - 1).unwrap();
        assert_eq!(settings.index_of(marked), Some(MAX_TUNNELS - 1));
        assert_eq!(settings.index_of([2, 3, 5, 8, 0, 1]), None);
        assert_eq!(Settings::default().index_of([0; 6]), None, "unset");
        assert_eq!(Settings::default().marked(0), None, "unset");
    }

    #[test]
    fn reasons_are_numbered_as_listed() {
        for (index, reason) in (0_u32..).zip(Reason::ALL) {
            assert_eq!(reason as u32, index);
        }
    }
}
