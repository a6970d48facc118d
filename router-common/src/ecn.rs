//! Explicit congestion notification through a tunnel (RFC 6040). A byte here is a whole type of
//! service octet or traffic class: six bits of DSCP, then two of ECN.

const MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The outer byte: DSCP of `outer`, ECN of `inner` (RFC 6040 §4.1, normal mode).
#[inline(always)]
pub const fn encapsulate(outer: u8, inner: u8) -> u8 {
    (outer & !MASK) | (inner & MASK)
}

/// The inner byte to send on, with its own DSCP (RFC 6040 §4.2). `None` if the packet must be
/// dropped: it met congestion, and its sender would not understand a mark.
#[inline(always)]
pub const fn decapsulate(outer: u8, inner: u8) -> Option<u8> {
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(inner),
        (_, CE) => Some(inner | CE),
        (ECT_0, ECT_1) => Some((inner & !MASK) | ECT_1),
        (_, _) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn figure_4_of_rfc_6040() {
        //  +---------+------------------------------------------------+
        //  |Arriving |            Arriving Outer Header               |
        //  |   Inner +---------+------------+------------+------------+
        //  |  Header | Not-ECT | ECT(0)     | ECT(1)     |     CE     |
        //  +---------+---------+------------+------------+------------+
        //  | Not-ECT | Not-ECT |Not-ECT(!!!)|Not-ECT(!!!)| <drop>(!!!)|
        //  |  ECT(0) |  ECT(0) | ECT(0)     | ECT(1)     |     CE     |
        //  |  ECT(1) |  ECT(1) | ECT(1) (!) | ECT(1)     |     CE     |
        //  |    CE   |      CE |     CE     |     CE(!!!)|     CE     |
        //  +---------+---------+------------+------------+------------+
        let outer = [NOT_ECT, ECT_0, ECT_1, CE];
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in rows {
            for (outer, expected) in outer.into_iter().zip(row) {
                assert_eq!(
                    decapsulate(outer, inner),
                    expected,
                    "inner {inner:02b}, outer {outer:02b}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn each_header_keeps_its_dscp(outer: u8, inner: u8) {
            prop_assert_eq!(encapsulate(outer, inner) >> 2, outer >> 2);
            if let Some(result) = decapsulate(outer, inner) {
                prop_assert_eq!(result >> 2, inner >> 2);
            }
        }

        #[test]
        fn without_congestion_a_packet_comes_out_as_it_went_in(dscp: u8, inner: u8) {
            prop_assert_eq!(decapsulate(encapsulate(dscp, inner), inner), Some(inner));
        }
    }
}
