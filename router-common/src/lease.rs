//! Leases: how long a grant lets its holder forward, and how long it binds who granted it.
//!
//! The holder's lease begins at its own transmit time which the grant echoes; the granter's promise
//! begins when it made the grant, or when that came which the grant answers. Either is later, and the
//! promise lasts longer than any clock within [`DRIFT`] needs to end the lease. So the lease is over
//! before the promise is, though no two clocks are compared: *stop early, grant late*.

use core::time::Duration;

use crate::{
    map::{Fence, Lease},
    time::BootTime,
};

/// Of this many nanoseconds the clocks of two nodes may differ by one: 1/500, twice what an
/// unsynchronised oscillator and NTP's slewing (500 ppm) come to at worst.
pub const DRIFT: u64 = 500;

/// What a packet may take from the gate that let it pass to the wire, and the granularity of a
/// lease's length in a message, twice.
pub const MARGIN: Duration = Duration::from_micros(500);

/// The unit of [`Length`], as messages tell it.
const GRANULARITY_NS: u64 = 1_000;

/// How long a grant holds: whole microseconds, so that both ends mean the same. Zero grants nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Length {
    us: u32,
}

impl Length {
    /// No grant.
    pub const NONE: Self = Self { us: 0 };

    pub const fn from_us(us: u32) -> Self {
        Self { us }
    }

    /// `length` without its fraction of a microsecond; at most 71 minutes.
    #[expect(clippy::cast_possible_truncation, reason = "compared before")]
    pub const fn of(length: Duration) -> Self {
        let us = length.as_micros();
        Self {
            us: if us > u32::MAX as u128 {
                u32::MAX
            } else {
                us as u32
            },
        }
    }

    /// What a lease is unless the configuration says otherwise: three quarters of the interval after
    /// which a silent peer is dead, so that the promise is over when it is declared so.
    pub fn by_default(dead_interval: Duration) -> Self {
        Self::of(dead_interval.saturating_mul(3) / 4)
    }

    pub const fn as_us(self) -> u32 {
        self.us
    }

    pub const fn as_ns(self) -> u64 {
        self.us as u64 * GRANULARITY_NS
    }

    pub const fn duration(self) -> Duration {
        Duration::from_nanos(self.as_ns())
    }

    pub const fn is_none(self) -> bool {
        self.us == 0
    }

    /// How long who granted this must not become active.
    pub const fn promise(self) -> Duration {
        outlasting(self.duration())
    }

    /// When a promise ends that was last made at `granted`; never, if none was.
    pub const fn promised_until(self, granted: BootTime) -> BootTime {
        if granted.is_never() {
            BootTime::NEVER
        } else {
            granted.after(self.promise())
        }
    }
}

/// How long one clock must run until `length` has surely passed on another that began no later, and
/// what its gate let pass is on the wire: length × (1 + drift) + margin.
#[expect(clippy::cast_possible_truncation, reason = "compared before")]
pub const fn outlasting(length: Duration) -> Duration {
    let ns = length.as_nanos();
    let ns = if ns > u64::MAX as u128 {
        u64::MAX
    } else {
        ns as u64
    };
    Duration::from_nanos(ns.saturating_add(ns.div_ceil(DRIFT))).saturating_add(MARGIN)
}

/// What lets protected packets pass now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Nobody opened it, or it was closed.
    Closed,
    /// Opened, but neither authority is in force: each has ended, or was not given since.
    Expired,
}

/// The fence's rule for one packet at `now`. It is open by an authority of the agent's own until
/// `authority_end_ns`, or by a lease; either suffices, each ends by itself.
#[inline(always)]
pub const fn gate(fence: &Fence, lease: &Lease, now: BootTime) -> Gate {
    if fence.opened_ns == 0 {
        return Gate::Closed;
    }
    if now.as_ns() < fence.authority_end_ns || now.as_ns() < lease_end(fence, lease).as_ns() {
        Gate::Open
    } else {
        Gate::Expired
    }
}

/// When the lease ends that was granted to this opening of the fence; never began, if none was.
///
/// Grants that echo what was sent before the fence opened are of an earlier activity and count for
/// nothing, whoever wrote them down, and however late.
#[inline(always)]
pub const fn lease_end(fence: &Fence, lease: &Lease) -> BootTime {
    if fence.opened_ns == 0 || fence.lease_ns == 0 || lease.granted_tx_ns < fence.opened_ns {
        return BootTime::NEVER;
    }
    BootTime::from_ns(lease.granted_tx_ns.saturating_add(fence.lease_ns))
}

/// A grant as a believed message brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// [`Claim::to_word`](crate::identity::Claim::to_word) that it is for.
    pub claim: u64,
    pub length: Length,
    /// Our own transmit time that it echoes.
    pub echo_tx: BootTime,
    /// Whether the echo is of this life of our agent.
    pub echoes_us: bool,
}

/// What becomes of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease runs from this transmit time of ours.
    From(BootTime),
    /// The message grants nothing.
    NotGranted,
    /// Not for what we hold, or of an earlier life or activity.
    NotForUs,
    /// For a shorter time than the fence counts on: the nodes' configurations differ.
    TooShort,
}

/// Whether `grant`, which came at `now`, renews the lease.
#[inline(always)]
pub fn renew(fence: &Fence, grant: &Grant, now: BootTime) -> Renewal {
    if grant.length.is_none() {
        return Renewal::NotGranted;
    }
    if fence.opened_ns == 0
        || fence.lease_ns == 0
        || fence.claim != grant.claim
        || !grant.echoes_us
        || grant.echo_tx.as_ns() < fence.opened_ns
        || grant.echo_tx > now
    {
        return Renewal::NotForUs;
    }
    if grant.length.as_ns() < fence.lease_ns {
        return Renewal::TooShort;
    }
    Renewal::From(grant.echo_tx)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::{Claim, Epoch, NodeId};

    const CLAIM: Claim = Claim {
        epoch: Epoch(3),
        owner: NodeId(1),
    };
    const L: Length = Length::from_us(3_000);

    fn at(us: u64) -> BootTime {
        BootTime::from_ns(us * 1_000)
    }

    fn fence() -> Fence {
        Fence {
            opened_ns: at(10_000).as_ns(),
            authority_end_ns: 0,
            lease_ns: L.as_ns(),
            claim: CLAIM.to_word(),
        }
    }

    fn lease(granted: BootTime) -> Lease {
        Lease {
            granted_tx_ns: granted.as_ns(),
            ..Lease::default()
        }
    }

    fn grant() -> Grant {
        Grant {
            claim: CLAIM.to_word(),
            length: L,
            echo_tx: at(11_000),
            echoes_us: true,
        }
    }

    #[test]
    fn unset_is_closed() {
        let unset = Fence::default();
        assert_eq!(
            gate(&unset, &lease(at(u64::MAX / 1_000)), at(1)),
            Gate::Closed
        );
        assert_eq!(
            gate(&unset, &Lease::default(), BootTime::NEVER),
            Gate::Closed
        );
        let claimless = Grant {
            claim: 0,
            ..grant()
        };
        assert_eq!(renew(&unset, &claimless, at(11_000)), Renewal::NotForUs);
    }

    #[test]
    fn a_lease_runs_from_our_transmit_time_and_ends_by_itself() {
        let held = lease(at(11_000));
        assert_eq!(lease_end(&fence(), &held), at(14_000));
        assert_eq!(gate(&fence(), &held, at(13_999)), Gate::Open);
        assert_eq!(gate(&fence(), &held, at(14_000)), Gate::Expired);
        assert_eq!(
            gate(&fence(), &held, BootTime::from_ns(u64::MAX)),
            Gate::Expired
        );
    }

    #[test]
    fn open_without_a_grant_is_not_open() {
        assert_eq!(gate(&fence(), &Lease::default(), at(10_000)), Gate::Expired);
        let of_before = lease(at(9_999));
        assert_eq!(gate(&fence(), &of_before, at(10_000)), Gate::Expired);
    }

    #[test]
    fn an_authority_of_its_own_needs_no_lease() {
        let own = Fence {
            authority_end_ns: at(20_000).as_ns(),
            lease_ns: 0,
            ..fence()
        };
        assert_eq!(gate(&own, &lease(at(11_000)), at(19_999)), Gate::Open);
        assert_eq!(gate(&own, &lease(at(19_000)), at(20_000)), Gate::Expired);
    }

    #[test]
    fn only_a_grant_for_this_opening_renews() {
        let now = at(11_100);
        assert_eq!(renew(&fence(), &grant(), now), Renewal::From(at(11_000)));
        let refused = |grant: Grant, why| assert_eq!(renew(&fence(), &grant, now), why);
        refused(
            Grant {
                length: Length::NONE,
                ..grant()
            },
            Renewal::NotGranted,
        );
        let other = Claim {
            epoch: Epoch(2),
            ..CLAIM
        };
        refused(
            Grant {
                claim: other.to_word(),
                ..grant()
            },
            Renewal::NotForUs,
        );
        refused(
            Grant {
                echo_tx: at(9_999),
                ..grant()
            },
            Renewal::NotForUs,
        );
        refused(
            Grant {
                echo_tx: now.after(Duration::from_nanos(1)),
                ..grant()
            },
            Renewal::NotForUs,
        );
        refused(
            Grant {
                echoes_us: false,
                ..grant()
            },
            Renewal::NotForUs,
        );
        refused(
            Grant {
                length: Length::from_us(2_999),
                ..grant()
            },
            Renewal::TooShort,
        );
    }

    #[test]
    fn a_promise_outlasts_its_lease_by_drift_and_margin() {
        assert_eq!(L.promise(), Duration::from_micros(3_000 + 6 + 500));
        assert_eq!(Length::NONE.promise(), MARGIN);
        assert_eq!(L.promised_until(BootTime::NEVER), BootTime::NEVER);
        assert_eq!(L.promised_until(at(1_000)), at(4_506));
        assert_eq!(
            outlasting(Duration::from_secs(3)),
            Duration::from_micros(3_000_000 + 6_000 + 500)
        );
        assert!(outlasting(Duration::MAX) > Duration::from_nanos(u64::MAX));
        let one = Length::from_us(1);
        assert_eq!(one.promise(), MARGIN + Duration::from_nanos(1_002));
        let longest = Length::of(Duration::MAX);
        assert_eq!(longest.as_us(), u32::MAX);
        assert_eq!(
            longest
                .promised_until(BootTime::from_ns(u64::MAX - 5))
                .as_ns(),
            u64::MAX,
            "saturates, so the promise does not end"
        );
    }

    #[test]
    fn by_default_the_promise_is_over_when_the_peer_is_dead() {
        for dead_ms in [3, 4, 20, 200, 29_999] {
            let dead = Duration::from_millis(dead_ms);
            assert!(Length::by_default(dead).promise() <= dead, "{dead_ms} ms");
        }
    }

    #[test]
    fn a_clock_that_goes_nowhere_ends_no_lease() {
        // Which is why the epoch travels with the packets, too: docs/safety.md.
        let held = lease(at(11_000));
        for _ in 0..3 {
            assert_eq!(gate(&fence(), &held, at(12_000)), Gate::Open);
        }
    }

    proptest! {
        /// Two clocks within the drift, of any offset: the holder's lease is over on its clock
        /// before the granter's promise is on the other.
        #[test]
        fn the_lease_ends_before_the_promise(
            sent_ns in 1_u64..1 << 60,
            flight_ns in 0_u64..10_000_000_000,
            offset_ns in 0_u64..1 << 60,
            length_us in 1_u32..=u32::MAX,
            slow_by in 0_u64..=1_000,
        ) {
            let length = Length::from_us(length_us);
            // The holder's clock runs at (1 - slow_by / 1000 / DRIFT) of the granter's.
            let holder_ns_in = |granter_ns: u128| {
                granter_ns - granter_ns * u128::from(slow_by) / (1_000 * u128::from(DRIFT + 1))
            };
            let granted_at = BootTime::from_ns(sent_ns + offset_ns + flight_ns);
            let promised = length.promised_until(granted_at);
            let passed = u128::from(promised.as_ns() - (sent_ns + offset_ns));
            let on_holders_clock = u128::from(sent_ns) + holder_ns_in(passed);
            prop_assert!(on_holders_clock >= u128::from(sent_ns + length.as_ns()));
        }

        /// What renews never lets a packet pass later than the length after the echo.
        #[test]
        fn no_packet_after_the_end(echo_us in 10_000_u64..20_000, now_us in 0_u64..40_000) {
            let arrived = grant();
            let arrived = Grant { echo_tx: at(echo_us), ..arrived };
            let Renewal::From(tx) = renew(&fence(), &arrived, at(20_000)) else {
                return Err(TestCaseError::fail("not renewed"));
            };
            let open = gate(&fence(), &lease(tx), at(now_us)) == Gate::Open;
            prop_assert_eq!(open, now_us < echo_us + 3_000);
        }
    }
}
