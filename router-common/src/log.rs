//! What the programs say of a packet to whoever keeps the log, and how often they may.

use bytemuck::{Pod, Zeroable};

/// What there is to say. The number that goes with it names the subject, see [`Subject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Matter {
    /// A heartbeat whose MAC is wrong, or made with a secret that we do not have; dropped.
    Forged = 0,
    /// An authentic heartbeat of a version or kind that we do not speak; dropped.
    NotUnderstood = 1,
    /// An authentic heartbeat that came before, or is older than one that did; dropped.
    Stale = 2,
    /// An authentic heartbeat of another node than the session's peer; dropped.
    WrongSender = 3,
    /// A heartbeat of a session that is not open; dropped.
    NoSession = 4,
    /// A packet on the heartbeat port that is no heartbeat by its length; dropped.
    NotHeartbeat = 5,
    /// The peer was granted a lease.
    LeaseGranted = 6,
    /// A lease of ours was granted anew.
    LeaseRenewed = 7,
    /// GRE that names no tunnel of ours by its addresses and key; left to the stack.
    NoTunnel = 8,
    /// GRE of another version than 0; left to the stack.
    Version = 9,
    /// GRE whose outer lengths contradict each other; left to the stack.
    Truncated = 10,
    /// For a tunnel, and its headers are illegal or contradict each other; dropped.
    Malformed = 11,
    /// For a tunnel, of a protocol that it does not carry; dropped.
    Unsupported = 12,
    /// For a tunnel, with a checksum against its configuration, or without; dropped.
    Checksum = 13,
    /// For a tunnel, without a sequence number or with an old one; dropped.
    Sequence = 14,
    /// For a tunnel, of an epoch that has passed; dropped.
    Epoch = 15,
    /// For a tunnel, congestion marked where nobody would understand it; dropped.
    Congestion = 16,
    /// The packet's start cannot be moved; dropped.
    NoHeadroom = 17,
    /// From outside, with the mark of decapsulated packets; dropped.
    Impostor = 18,
    /// Protected, and its group has no authority to forward; dropped.
    Fenced = 19,
    /// At a dataplane end of no tunnel; dropped.
    NoEgress = 20,
    /// Of the stack, for a tunnel that does not carry its protocol; dropped.
    UnsupportedSent = 21,
    /// Of the stack, and the outer headers could not be put before it; dropped.
    NoRoom = 22,
}

/// What the number that goes with a [`Matter`] is an index of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Session,
    Tunnel,
    Group,
    /// Of nothing.
    None,
}

impl Matter {
    pub const ALL: [Self; 23] = [
        Self::Forged,
        Self::NotUnderstood,
        Self::Stale,
        Self::WrongSender,
        Self::NoSession,
        Self::NotHeartbeat,
        Self::LeaseGranted,
        Self::LeaseRenewed,
        Self::NoTunnel,
        Self::Version,
        Self::Truncated,
        Self::Malformed,
        Self::Unsupported,
        Self::Checksum,
        Self::Sequence,
        Self::Epoch,
        Self::Congestion,
        Self::NoHeadroom,
        Self::Impostor,
        Self::Fenced,
        Self::NoEgress,
        Self::UnsupportedSent,
        Self::NoRoom,
    ];

    /// So many there are, for the maps that have an element for each.
    #[expect(clippy::cast_possible_truncation, reason = "a short list")]
    pub const COUNT: u32 = Self::ALL.len() as u32;

    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    pub const fn subject(self) -> Subject {
        match self {
            Self::Forged
            | Self::NotUnderstood
            | Self::Stale
            | Self::WrongSender
            | Self::LeaseGranted
            | Self::LeaseRenewed => Subject::Session,
            Self::NoSession
            | Self::NotHeartbeat
            | Self::Malformed
            | Self::Unsupported
            | Self::Checksum
            | Self::Sequence
            | Self::Epoch
            | Self::Congestion
            | Self::UnsupportedSent
            | Self::NoRoom => Subject::Tunnel,
            Self::Fenced => Subject::Group,
            Self::NoTunnel
            | Self::Version
            | Self::Truncated
            | Self::NoHeadroom
            | Self::Impostor
            | Self::NoEgress => Subject::None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::NotUnderstood => "not-understood",
            Self::Stale => "stale",
            Self::WrongSender => "wrong-sender",
            Self::NoSession => "no-session",
            Self::NotHeartbeat => "not-a-heartbeat",
            Self::LeaseGranted => "lease-granted",
            Self::LeaseRenewed => "lease-renewed",
            Self::NoTunnel => "no-tunnel",
            Self::Version => "version",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Checksum => "checksum",
            Self::Sequence => "sequence",
            Self::Epoch => "epoch",
            Self::Congestion => "congestion",
            Self::NoHeadroom => "no-headroom",
            Self::Impostor => "impostor",
            Self::Fenced => "fenced",
            Self::NoEgress => "no-egress",
            Self::UnsupportedSent => "unsupported-sent",
            Self::NoRoom => "no-room",
        }
    }
}

/// Whether a [`Matter`] is spoken of, and from when on again. Each has its own, so that a flood of one
/// hides no other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Gate {
    /// Zero unless it is; the agent writes it.
    pub is_open: u64,
    /// When as many records are due as have been sent, by the boottime clock in ns.
    pub due_ns: u64,
}

impl Gate {
    /// In the long run there is no more than one record of a matter in this time, on all CPUs.
    // The agent keeps its newest 1,000 lines: strangers who flood it with some matters shall not push out its
    // own within minutes.
    pub const INTERVAL_NS: u64 = 10_000_000_000;
    /// So many may come at once after a time without.
    pub const BURST: u64 = 5;

    /// Open, and nothing said yet.
    pub const fn of(is_open: bool) -> Self {
        Self {
            is_open: is_open as u64,
            due_ns: 0,
        }
    }

    /// What [`Gate::due_ns`] becomes of `due_ns` by a record at `now_ns`; `None` if there shall be none.
    /// The generic cell rate algorithm (ITU-T I.371), which is a token bucket in one word.
    #[inline(always)]
    pub const fn after(due_ns: u64, now_ns: u64) -> Option<u64> {
        let due_ns = if due_ns < now_ns { now_ns } else { due_ns };
        if due_ns - now_ns > (Self::BURST - 1) * Self::INTERVAL_NS {
            return None;
        }
        Some(due_ns + Self::INTERVAL_NS)
    }
}

/// What the programs say of one packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Record {
    /// A [`Matter`].
    pub matter: u32,
    /// Index of its [`Subject`].
    pub subject: u32,
    /// The interface by which the packet came, or was about to leave.
    pub ifindex: u32,
    /// Bytes of `head` that are the packet's; the others mean nothing.
    pub head_length: u32,
    /// How the packet began, from its Ethernet header.
    pub head: [u8; Record::HEAD],
}

impl Record {
    /// Room for Ethernet, a VLAN tag, IPv6, UDP and GRE with a key. The MAC of a heartbeat, which begins
    /// 64 bytes into a message behind other headers, is never in it.
    pub const HEAD: usize = 80;

    /// The packet's first bytes.
    pub fn head(&self) -> &[u8] {
        let length = usize::try_from(self.head_length).unwrap_or(Self::HEAD);
        &self.head[..length.min(Self::HEAD)]
    }
}

const _: () = {
    assert!(size_of::<Record>() == 96 && size_of::<Record>().is_multiple_of(8));
    assert!(size_of::<Gate>() == 16);
};

#[cfg(feature = "user")]
mod user {
    // SAFETY: as in `map`.
    unsafe impl aya::Pod for super::Gate {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of records at these times pass.
    fn passed(times: impl Iterator<Item = u64>) -> u64 {
        let mut due = 0;
        let mut passed = 0;
        for now in times {
            if let Some(next) = Gate::after(due, now) {
                due = next;
                passed += 1;
            }
        }
        passed
    }

    #[test]
    fn matters_are_numbered_as_listed() {
        for (index, matter) in (0_u32..).zip(Matter::ALL) {
            assert_eq!(matter as u32, index);
            assert_eq!(Matter::from_number(index), Some(matter));
        }
        assert_eq!(Matter::from_number(Matter::COUNT), None);
    }

    #[test]
    fn a_few_pass_at_once_and_then_one_in_an_interval() {
        let start = 1_000 * SECOND;
        assert_eq!(passed(std::iter::repeat_n(start, 1_000)), Gate::BURST);
        // A hundred seconds at a hundred thousand a second.
        let flood = (0..10_000_000).map(|number| start + number * 10_000);
        assert_eq!(passed(flood), Gate::BURST + 9);
    }

    #[test]
    fn who_is_slow_is_never_held_back() {
        let slow = (0..100).map(|number| SECOND + number * Gate::INTERVAL_NS);
        assert_eq!(passed(slow), 100);
    }

    #[test]
    fn after_a_pause_a_few_pass_again() {
        let start = 1_000 * SECOND;
        let later = start + Gate::BURST * Gate::INTERVAL_NS;
        let times = std::iter::repeat_n(start, 10).chain(std::iter::repeat_n(later, 10));
        assert_eq!(passed(times), 2 * Gate::BURST);
    }

    proptest! {
        /// Whatever the times, also if those of several CPUs are not in order.
        #[test]
        fn no_more_pass_than_the_rate_allows(
            times in prop::collection::vec(0..100 * SECOND, 0..500),
        ) {
            let allowed = Gate::BURST + 100 * SECOND / Gate::INTERVAL_NS;
            prop_assert!(passed(times.into_iter()) <= allowed);
        }
    }

    #[test]
    fn a_record_never_tells_more_than_it_has() {
        let mut record = Record::zeroed();
        assert_eq!(record.head(), [0_u8; 0]);
        record.head_length = u32::MAX;
        assert_eq!(record.head().len(), Record::HEAD);
    }
}
