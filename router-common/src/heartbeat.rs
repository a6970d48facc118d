//! The heartbeat on the wire, who may be believed, and how a probe is answered.
//!
//! docs/protocol.md describes the format and the rules.

use core::time::Duration;

use bytemuck::{Pod, Zeroable};

use crate::{
    identity::{Claim, Epoch, Flags, NodeId},
    keys::NumberedKey,
    lease::Length,
    map::{LocalState, SessionConfig},
    net::Udp,
    siphash::{Key, siphash_2_4_128, tags_equal},
    time::BootTime,
};

pub const VERSION: u8 = 1;
/// UDP port of the heartbeats unless the configuration says otherwise.
pub const DEFAULT_PORT: u16 = 6940;
/// A generation not yet known is believed only if the message echoes something of ours that is
/// not older than this.
pub const PROOF_WINDOW: Duration = Duration::from_secs(5);

const PROBE: u8 = 1;
const REPLY: u8 = 2;
const BODY_WORDS: usize = 8;

/// A heartbeat as it lies in the UDP payload: 64 bytes under the MAC and the MAC, 80 in all.
/// Numbers are big-endian, the MAC is two little-endian words as SipHash defines them.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Heartbeat {
    version: u8,
    kind: u8,
    flags: [u8; 2],
    session: [u8; 4],
    sender: [u8; 4],
    generation: [u8; 4],
    sequence: [u8; 8],
    tx_ns: [u8; 8],
    echo_tx_ns: [u8; 8],
    echo_generation: [u8; 4],
    epoch: [u8; 4],
    owner: [u8; 4],
    agent_age_us: [u8; 4],
    lease_us: [u8; 4],
    key: [u8; 2],
    wanted_key: [u8; 2],
    mac: [u8; 16],
}

const _: () = {
    assert!(Heartbeat::LEN == 80 && BODY_WORDS * 8 + 16 == Heartbeat::LEN);
    assert!(Heartbeat::UDP_LENGTH as usize == Udp::LEN + Heartbeat::LEN);
    assert!(Heartbeat::IPV4_LENGTH == 20 + Heartbeat::UDP_LENGTH);
};

/// Probe or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sent by a node's agent on its clock.
    Probe,
    /// Made out of a probe by the receiver's kernel.
    Reply,
}

/// What a sender puts into a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub kind: Kind,
    pub flags: Flags,
    pub session: u32,
    pub sender: NodeId,
    /// Drawn at random when the agent starts; never zero.
    pub generation: u32,
    /// Of a probe: grows by one. Of a reply: that of the probe which it answers.
    pub sequence: u64,
    pub tx: BootTime,
    /// The newest transmit time heard from the receiver, by the receiver's clock.
    pub echo_tx: BootTime,
    pub echo_generation: u32,
    pub claim: Claim,
    /// Microseconds since the sender's agent last gave a sign of life, at most what 32 bits hold.
    pub agent_age_us: u32,
    /// How long the owner of `claim` may forward, from its transmit time that this echoes.
    pub grant: Length,
    /// Number of the secret that the receiver shall sign with.
    pub wanted_key: u16,
}

impl Heartbeat {
    pub const LEN: usize = size_of::<Self>();
    /// Length of the UDP datagram, header included.
    pub const UDP_LENGTH: u16 = 88;
    /// Length of the inner IPv4 packet.
    pub const IPV4_LENGTH: u16 = 108;

    /// The message under the MAC of `key`.
    #[inline(always)]
    pub fn signed(content: &Content, key: &NumberedKey) -> Self {
        let Content {
            kind,
            flags,
            session,
            sender,
            generation,
            sequence,
            tx,
            echo_tx,
            echo_generation,
            claim,
            agent_age_us,
            grant,
            wanted_key,
        } = content;
        let mut message = Self {
            version: VERSION,
            kind: match kind {
                Kind::Probe => PROBE,
                Kind::Reply => REPLY,
            },
            flags: flags.0.to_be_bytes(),
            session: session.to_be_bytes(),
            sender: sender.0.to_be_bytes(),
            generation: generation.to_be_bytes(),
            sequence: sequence.to_be_bytes(),
            tx_ns: tx.as_ns().to_be_bytes(),
            echo_tx_ns: echo_tx.as_ns().to_be_bytes(),
            echo_generation: echo_generation.to_be_bytes(),
            epoch: claim.epoch.0.to_be_bytes(),
            owner: claim.owner.0.to_be_bytes(),
            agent_age_us: agent_age_us.to_be_bytes(),
            lease_us: grant.as_us().to_be_bytes(),
            key: key.number.to_be_bytes(),
            wanted_key: wanted_key.to_be_bytes(),
            mac: [0; 16],
        };
        let [first, second] = message.tag(&key.key);
        message.mac = bytemuck::must_cast([first.to_le_bytes(), second.to_le_bytes()]);
        message
    }

    /// Whether the message was made with `key`.
    #[inline(always)]
    pub fn is_authentic(&self, key: &NumberedKey) -> bool {
        let [first, second]: [[u8; 8]; 2] = bytemuck::must_cast(self.mac);
        let claimed = [u64::from_le_bytes(first), u64::from_le_bytes(second)];
        self.key_number() == key.number && tags_equal(&claimed, &self.tag(&key.key))
    }

    /// Number of the secret that it claims to be signed with; to be read before the MAC can be
    /// checked.
    #[inline(always)]
    pub const fn key_number(&self) -> u16 {
        u16::from_be_bytes(self.key)
    }

    /// Which session it claims to be of; to be read before the MAC can be checked.
    #[inline(always)]
    pub const fn session(&self) -> u32 {
        u32::from_be_bytes(self.session)
    }

    /// The message's content; `None` for a version or kind that we do not speak. Flags we do not
    /// know are kept: a newer peer may set them.
    #[inline(always)]
    pub fn content(&self) -> Option<Content> {
        let kind = match (self.version, self.kind) {
            (VERSION, PROBE) => Kind::Probe,
            (VERSION, REPLY) => Kind::Reply,
            (_, _) => return None,
        };
        Some(Content {
            kind,
            flags: Flags(u16::from_be_bytes(self.flags)),
            session: self.session(),
            sender: NodeId(u32::from_be_bytes(self.sender)),
            generation: u32::from_be_bytes(self.generation),
            sequence: u64::from_be_bytes(self.sequence),
            tx: BootTime::from_ns(u64::from_be_bytes(self.tx_ns)),
            echo_tx: BootTime::from_ns(u64::from_be_bytes(self.echo_tx_ns)),
            echo_generation: u32::from_be_bytes(self.echo_generation),
            claim: Claim {
                epoch: Epoch(u32::from_be_bytes(self.epoch)),
                owner: NodeId(u32::from_be_bytes(self.owner)),
            },
            agent_age_us: u32::from_be_bytes(self.agent_age_us),
            grant: Length::from_us(u32::from_be_bytes(self.lease_us)),
            wanted_key: u16::from_be_bytes(self.wanted_key),
        })
    }

    #[inline(always)]
    fn tag(&self, key: &Key) -> [u64; 2] {
        let words: &[[u8; 8]; BODY_WORDS + 2] = bytemuck::must_cast_ref(self);
        let mut body = [0; BODY_WORDS];
        for (word, bytes) in body.iter_mut().zip(words) {
            *word = u64::from_le_bytes(*bytes);
        }
        siphash_2_4_128(key, &body)
    }
}

/// What is known of the peer when a message comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The peer's generation that we believe; zero if none yet.
    pub generation: u32,
    /// The highest sequence of each kind heard in that generation.
    pub probe_sequence: u64,
    pub reply_sequence: u64,
    /// The newest transmit time of ours that a believed message echoed, in any generation.
    pub newest_echo: BootTime,
}

/// What to make of an authentic message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Newer than anything heard before, from the generation that we believe.
    Fresh,
    /// The first of a new generation that has proved to be live.
    NewGeneration,
    /// Of a generation that has not proved to be live. Evidence of nothing; a probe is answered,
    /// because the answer is what lets the peer prove itself.
    Unproven,
    /// Seen before, or older than something seen before.
    Stale,
    /// Not from this session's peer: the nodes disagree about who is primary.
    WrongSender,
}

/// Decides on an authentic message that came at `now`; `local_generation` is our own.
///
/// A replayed message fails on its sequence, and one of another generation on its echo: that must
/// be a transmit time of ours from within [`PROOF_WINDOW`], and newer than any that was echoed
/// before. All that a former life of the peer said echoes what we sent before its end.
#[inline(always)]
pub fn admit(
    peer: NodeId,
    local_generation: u32,
    known: &Known,
    message: &Content,
    now: BootTime,
) -> Admission {
    if message.sender != peer {
        return Admission::WrongSender;
    }
    let answers_us = message.echo_generation == local_generation;
    if message.generation == known.generation && known.generation != 0 {
        let fresh = match message.kind {
            Kind::Probe => message.sequence > known.probe_sequence,
            Kind::Reply => message.sequence > known.reply_sequence && answers_us,
        };
        return if fresh {
            Admission::Fresh
        } else {
            Admission::Stale
        };
    }
    let recent = message.echo_tx.as_ns() <= now.as_ns()
        && now.as_ns() - message.echo_tx.as_ns() <= PROOF_WINDOW_NS;
    let newer = message.echo_tx > known.newest_echo;
    if answers_us && recent && newer && message.generation != 0 {
        Admission::NewGeneration
    } else {
        Admission::Unproven
    }
}

#[expect(clippy::cast_possible_truncation, reason = "five seconds in ns")]
const PROOF_WINDOW_NS: u64 = PROOF_WINDOW.as_nanos() as u64;

/// The reply to `probe` at `now`: what the node says of itself, an echo of the probe, and what it
/// grants, which must have been noted before. `key` is for what the probe itself names, not for what
/// was believed before: its sender may have forgotten that with an earlier life.
#[inline(always)]
pub fn reply(
    probe: &Content,
    key: &NumberedKey,
    config: &SessionConfig,
    local: &LocalState,
    grant: Length,
    now: BootTime,
) -> Heartbeat {
    Heartbeat::signed(
        &Content {
            kind: Kind::Reply,
            flags: local.flags(),
            session: probe.session,
            sender: NodeId(config.local_node),
            generation: local.generation(),
            sequence: probe.sequence,
            tx: now,
            echo_tx: probe.tx,
            echo_generation: probe.generation,
            claim: local.claim(),
            agent_age_us: now.us_since(local.agent_beat()),
            grant,
            wanted_key: config.keys.wanted(),
        },
        key,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::{Keys, Slot};

    const KEY: NumberedKey = NumberedKey {
        number: 0xabcd,
        key: [1, 2],
    };
    const NOW: BootTime = BootTime::from_ns(100_000_000_000);
    const OURS: u32 = 7;

    fn probe() -> Content {
        Content {
            kind: Kind::Probe,
            flags: Flags::ELIGIBLE,
            session: 0xdead_beef,
            sender: NodeId(2),
            generation: 99,
            sequence: 10,
            tx: BootTime::from_ns(5),
            echo_tx: BootTime::from_ns(NOW.as_ns() - 1_000),
            echo_generation: OURS,
            claim: Claim {
                epoch: Epoch(3),
                owner: NodeId(1),
            },
            agent_age_us: 250,
            grant: Length::from_us(150_000),
            wanted_key: 0x1234,
        }
    }

    fn known() -> Known {
        Known {
            generation: 99,
            probe_sequence: 9,
            reply_sequence: 0,
            newest_echo: BootTime::from_ns(NOW.as_ns() - 2_000),
        }
    }

    fn judge(message: &Content, known: &Known) -> Admission {
        admit(NodeId(2), OURS, known, message, NOW)
    }

    #[test]
    fn layout_is_the_documented_one() {
        let message = Heartbeat::signed(&probe(), &KEY);
        let bytes = bytemuck::bytes_of(&message);
        assert_eq!(bytes[..8], [1, 1, 0, 2, 0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(bytes[8..16], [0, 0, 0, 2, 0, 0, 0, 99]);
        assert_eq!(bytes[16..24], 10_u64.to_be_bytes());
        assert_eq!(bytes[24..32], 5_u64.to_be_bytes());
        assert_eq!(bytes[40..52], [0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 1]);
        assert_eq!(bytes[52..56], 250_u32.to_be_bytes());
        assert_eq!(bytes[56..60], 150_000_u32.to_be_bytes());
        assert_eq!(bytes[60..64], [0xab, 0xcd, 0x12, 0x34]);
    }

    #[test]
    fn known_generation_must_grow() {
        assert_eq!(judge(&probe(), &known()), Admission::Fresh);
        let repeated = Content {
            sequence: 9,
            ..probe()
        };
        assert_eq!(judge(&repeated, &known()), Admission::Stale);
        let reply = Content {
            kind: Kind::Reply,
            sequence: 1,
            ..probe()
        };
        assert_eq!(judge(&reply, &known()), Admission::Fresh);
        let answers_our_predecessor = Content {
            echo_generation: OURS - 1,
            ..reply
        };
        assert_eq!(judge(&answers_our_predecessor, &known()), Admission::Stale);
    }

    #[test]
    fn a_new_generation_must_prove_itself() {
        let unknown = Known {
            generation: 0,
            probe_sequence: 0,
            reply_sequence: 0,
            newest_echo: BootTime::NEVER,
        };
        for known in [
            unknown,
            Known {
                generation: 98,
                ..known()
            },
        ] {
            assert_eq!(judge(&probe(), &known), Admission::NewGeneration);
            let replayed = Content {
                echo_tx: BootTime::from_ns(NOW.as_ns() - PROOF_WINDOW_NS - 1),
                ..probe()
            };
            assert_eq!(judge(&replayed, &known), Admission::Unproven);
            let from_the_future = Content {
                echo_tx: NOW.after(Duration::from_nanos(1)),
                ..probe()
            };
            assert_eq!(judge(&from_the_future, &known), Admission::Unproven);
            let of_another_generation = Content {
                echo_generation: OURS + 1,
                ..probe()
            };
            assert_eq!(judge(&of_another_generation, &known), Admission::Unproven);
        }
        let zero = Content {
            generation: 0,
            ..probe()
        };
        assert_eq!(judge(&zero, &unknown), Admission::Unproven);
    }

    #[test]
    fn a_former_life_of_the_peer_is_not_believed_again() {
        let recorded = probe();
        let after_a_restart = Known {
            generation: recorded.generation + 1,
            probe_sequence: 1,
            reply_sequence: 0,
            newest_echo: recorded.echo_tx.after(Duration::from_nanos(1)),
        };
        assert_eq!(judge(&recorded, &after_a_restart), Admission::Unproven);
    }

    #[test]
    fn our_own_message_come_back_is_not_the_peer() {
        let ours = Content {
            sender: NodeId(1),
            ..probe()
        };
        assert_eq!(judge(&ours, &known()), Admission::WrongSender);
    }

    #[test]
    fn a_reply_echoes_the_probe() {
        let config = SessionConfig {
            keys: Keys::of(Slot {
                rx: [0; 2],
                tx: KEY.key,
                number: KEY.number.into(),
            }),
            session: 0xdead_beef,
            local_node: 1,
            peer_node: 2,
            local_address: [169, 254, 0, 1],
            group: 0,
            padding: [0; 4],
        };
        let local = LocalState::new(
            Claim {
                epoch: Epoch(4),
                owner: NodeId(1),
            },
            OURS,
            Flags::FORWARDING,
            BootTime::from_ns(NOW.as_ns() - 2_000_000),
        );
        let message = reply(&probe(), &KEY, &config, &local, Length::from_us(7), NOW);
        assert!(message.is_authentic(&KEY));
        let content = message.content().unwrap();
        assert_eq!(content.kind, Kind::Reply);
        assert_eq!(content.sequence, 10);
        assert_eq!(
            (content.echo_tx, content.echo_generation),
            (BootTime::from_ns(5), 99)
        );
        assert_eq!(content.agent_age_us, 2_000);
        assert_eq!(content.grant, Length::from_us(7));
        assert_eq!(content.claim.epoch, Epoch(4));
        assert_eq!(content.flags, Flags::FORWARDING);
        assert_eq!(content.wanted_key, KEY.number);
    }

    #[test]
    fn other_versions_and_kinds_are_not_understood() {
        let mut message = Heartbeat::signed(&probe(), &KEY);
        message.version = 2;
        assert_eq!(message.content(), None);
        message.version = VERSION;
        message.kind = 3;
        assert_eq!(message.content(), None);
    }

    proptest! {
        #[test]
        fn content_survives_the_wire(
            session: u32, generation: u32, sequence: u64, tx: u64, epoch: u32, age_us: u32, flags: u16,
            grant_us: u32, wanted_key: u16,
        ) {
            let content = Content {
                session,
                generation,
                sequence,
                tx: BootTime::from_ns(tx),
                claim: Claim { epoch: Epoch(epoch), owner: NodeId(2) },
                agent_age_us: age_us,
                flags: Flags(flags),
                grant: Length::from_us(grant_us),
                wanted_key,
                ..probe()
            };
            let message = Heartbeat::signed(&content, &KEY);
            prop_assert!(message.is_authentic(&KEY));
            prop_assert_eq!(message.content(), Some(content));
        }

        #[test]
        fn no_bit_can_be_changed(bit in 0_usize..Heartbeat::LEN * 8) {
            let mut message = Heartbeat::signed(&probe(), &KEY);
            bytemuck::bytes_of_mut(&mut message)[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!message.is_authentic(&KEY));
        }

        #[test]
        fn another_key_does_not_open_it(key: [u64; 2]) {
            prop_assume!(key != KEY.key);
            let other = NumberedKey { key, ..KEY };
            prop_assert!(!Heartbeat::signed(&probe(), &KEY).is_authentic(&other));
        }
    }
}
