//! A group's fence as an operator sees it.

use router_common::{
    identity::Claim,
    lease::{self, Gate},
    map::{Fence, FenceCounters, Lease},
    time::BootTime,
};

use crate::control::protocol::{Authority, FenceStatus, GateState};

/// What the kernel would do with a protected packet at `now`, and did with those before.
pub fn status(
    fence: &Fence,
    lease: &Lease,
    counters: &FenceCounters,
    now: BootTime,
) -> FenceStatus {
    let own = fence.authority_end_ns;
    let lease_end = lease::lease_end(fence, lease).as_ns();
    let (authority, end_ns) = if fence.opened_ns == 0 {
        (None, 0)
    } else if fence.lease_ns == 0 || own > lease_end {
        (Some(Authority::OwnAgent), own)
    } else {
        (Some(Authority::Grants), lease_end)
    };
    let FenceCounters {
        dropped_in,
        dropped_out,
        dropped_transit,
    } = *counters;
    FenceStatus {
        gate: match lease::gate(fence, lease, now) {
            Gate::Open => GateState::Open,
            Gate::Closed => GateState::Closed,
            Gate::Expired => GateState::Expired,
        },
        authority,
        end_ns,
        first_passed_ns: if lease.first_passed_ns >= fence.opened_ns {
            lease.first_passed_ns
        } else {
            0
        },
        epoch: Claim::from_word(fence.claim).epoch.0,
        lease_us: if fence.opened_ns == 0 {
            0
        } else {
            fence.lease_ns / 1_000
        },
        grants_counted: lease.renewals,
        grants_not_for_us: lease.not_for_us,
        grants_too_short: lease.too_short,
        dropped_in,
        dropped_out,
        dropped_transit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BootTime = BootTime::from_ns(10_000);

    fn of(fence: Fence, granted_tx_ns: u64) -> FenceStatus {
        let lease = Lease {
            granted_tx_ns,
            first_passed_ns: 5,
            ..Lease::default()
        };
        status(&fence, &lease, &FenceCounters::default(), NOW)
    }

    #[test]
    fn by_whose_word_and_until_when() {
        let own = Fence {
            authority_end_ns: 12_000,
            opened_ns: 4,
            ..Fence::default()
        };
        let leased = Fence {
            lease_ns: 1_000,
            opened_ns: 9_000,
            ..Fence::default()
        };
        for (status, gate, authority, end_ns) in [
            (of(Fence::default(), 9_999), GateState::Closed, None, 0),
            (
                of(own, 0),
                GateState::Open,
                Some(Authority::OwnAgent),
                12_000,
            ),
            (
                of(leased, 9_500),
                GateState::Open,
                Some(Authority::Grants),
                10_500,
            ),
            (
                of(leased, 9_000),
                GateState::Expired,
                Some(Authority::Grants),
                10_000,
            ),
            (
                of(leased, 8_999),
                GateState::Expired,
                Some(Authority::Grants),
                0,
            ),
        ] {
            assert_eq!(
                (status.gate, status.authority, status.end_ns),
                (gate, authority, end_ns)
            );
        }
        assert_eq!(of(own, 0).first_passed_ns, 5);
        assert_eq!(of(leased, 0).first_passed_ns, 0, "of an earlier opening");
    }
}
