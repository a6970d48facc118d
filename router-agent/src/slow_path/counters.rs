//! What became of the slow path's packets; written by its thread, read by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};

use super::decapsulate::Refusal;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! tunnel_counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Of one tunnel; packets, unless named bytes.
        #[derive(Debug, Default)]
        pub struct TunnelCounters {
            $($(#[$doc])* pub $name: Counter,)+
        }

        impl TunnelCounters {
            /// Each counter with the name that operators see.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((concat!("slow_", stringify!($name)), self.$name.get())),+].into_iter()
            }
        }
    };
}

tunnel_counters! {
    /// Put into the tunnel device.
    packets,
    /// Of the inner packets in it.
    bytes,
    /// Headers illegal, or lengths that contradict each other.
    malformed,
    /// Checksum wrong, missing, or there against the configuration.
    checksum_errors,
    /// Sequence number old or missing.
    sequence_errors,
    /// Of an epoch lower than one that came before.
    epoch_errors,
    /// Of an epoch higher than all before.
    epoch_raises,
    /// Of a protocol that the tunnel does not carry.
    unsupported,
    /// Congestion marked on the way for a sender that does not know of it (RFC 6040 §4.2).
    ecn_errors,
    /// Longer than the tunnel device's MTU.
    too_long,
    /// Heartbeats, which only the programs may answer.
    heartbeats,
    /// More in a second than the slow path takes of a tunnel.
    rate_limited,
    /// The kernel did not take what was to go into the tunnel device, or back to the far end.
    send_errors,
    /// The far end's keepalives, answered.
    keepalives_answered,
    /// Our own keepalives, come back.
    keepalives_heard,
}

impl TunnelCounters {
    pub fn refused(&self, refusal: Refusal) {
        let counter = match refusal {
            Refusal::Malformed => &self.malformed,
            Refusal::Checksum => &self.checksum_errors,
            Refusal::Sequence => &self.sequence_errors,
            Refusal::Epoch => &self.epoch_errors,
            Refusal::Unsupported => &self.unsupported,
            Refusal::Congestion => &self.ecn_errors,
            Refusal::TooLong => &self.too_long,
            Refusal::Heartbeat => &self.heartbeats,
        };
        counter.add(1);
    }
}

/// Of no tunnel; packets.
#[derive(Debug, Default)]
pub struct Totals {
    /// GRE for others, and what is no GRE that we speak.
    pub unknown: Counter,
    /// Lost at a full socket, which the kernel does when we read no more than our share.
    pub queue_drops: Counter,
    /// Messages about the path's MTU that nobody had room for.
    pub path_mtu_drops: Counter,
}
