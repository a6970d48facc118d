//! Monitors: addresses that must answer an ICMP echo for this node to be of use.

use std::{net::IpAddr, time::Duration};

use surge_ping::{Client, Config, ICMP, IcmpPacket, PingIdentifier, PingSequence};
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use crate::control::protocol::MonitorState;

/// What a monitor's change of state looks like to whoever started it.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub group: usize,
    /// Place among the group's monitors.
    pub index: usize,
    pub state: MonitorState,
    /// Why it is not reachable, if more is known than that.
    pub why: Option<String>,
}

/// An address that is asked again and again.
#[derive(Clone, Copy, Debug)]
pub struct Monitor {
    pub group: usize,
    pub index: usize,
    pub address: IpAddr,
    pub interval: Duration,
    /// Without an answer for this long the address is unreachable.
    pub dead: Duration,
}

impl Monitor {
    /// Asks for ever, and tells each change of the answer; the first verdict comes within `dead`.
    pub async fn run(self, verdicts: UnboundedSender<Verdict>) {
        let kind = match self.address {
            IpAddr::V4(_) => ICMP::V4,
            IpAddr::V6(_) => ICMP::V6,
        };
        let mut state = MonitorState::Initializing;
        let mut last_answer = Instant::now();
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sequence = 0_u16;
        let client = match Client::new(&Config::builder().kind(kind).build()) {
            Ok(client) => Some(client),
            Err(error) => {
                warn!(address = %self.address, %error, "cannot ask a monitor");
                None
            }
        };
        let identifier = PingIdentifier(u16::try_from(self.group).unwrap_or_default());
        loop {
            ticks.tick().await;
            let answered = match &client {
                Some(client) => {
                    sequence = sequence.wrapping_add(1);
                    let mut pinger = client.pinger(self.address, identifier).await;
                    pinger.timeout(self.interval);
                    let answer = pinger.ping(PingSequence(sequence), &[0; 16]).await;
                    debug!(address = %self.address, ?answer, "monitor");
                    answer.is_ok_and(|(packet, _)| is_reply_of(self.address, &packet))
                }
                None => false,
            };
            let next = if answered {
                last_answer = Instant::now();
                MonitorState::Reachable
            } else if last_answer.elapsed() >= self.dead {
                MonitorState::Unreachable
            } else {
                state
            };
            if next != state {
                state = next;
                let (group, index) = (self.group, self.index);
                if verdicts
                    .send(Verdict {
                        group,
                        index,
                        state,
                        why: None,
                    })
                    .is_err()
                {
                    return;
                }
            }
        }
    }
}

/// Whether `packet` is an echo reply of `address` itself: errors about an echo come as answers, too.
fn is_reply_of(address: IpAddr, packet: &IcmpPacket) -> bool {
    /// RFC 792.
    const ECHO_REPLY: u8 = 0;
    /// RFC 4443 §4.2.
    const ECHO_REPLY_V6: u8 = 129;
    match packet {
        IcmpPacket::V4(packet) => {
            packet.get_icmp_type().0 == ECHO_REPLY && address == packet.get_source()
        }
        IcmpPacket::V6(packet) => {
            packet.get_icmpv6_type().0 == ECHO_REPLY_V6 && address == packet.get_source()
        }
    }
}
