//! Reads whole maps.

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapError, PerCpuArray},
};
use router_common::map::{FenceCounters, Traffic, TunnelEvents};

/// Every entry of a hash map.
pub fn hash<K: Pod, V: Pod>(map: Map) -> Result<Vec<(K, V)>, MapError> {
    HashMap::<_, K, V>::try_from(map)?.iter().collect()
}

/// Every entry of an array.
pub fn array<V: Pod>(map: Map) -> Result<Vec<(u32, V)>, MapError> {
    let array = Array::<_, V>::try_from(map)?;
    (0..array.len())
        .map(|index| Ok((index, array.get(&index, 0)?)))
        .collect()
}

/// Every entry of an array that has a value for each CPU, summed.
pub fn per_cpu<V: Pod + Total>(map: Map) -> Result<Vec<(u32, V)>, MapError> {
    let array = PerCpuArray::<_, V>::try_from(map)?;
    (0..array.len())
        .map(|index| Ok((index, V::total(&array.get(&index, 0)?))))
        .collect()
}

/// Values whose sum over the CPUs is what counts.
pub trait Total: Sized {
    fn total(each_cpu: &[Self]) -> Self;
}

impl Total for u64 {
    fn total(each_cpu: &[Self]) -> Self {
        each_cpu
            .iter()
            .fold(0, |sum, value| sum.wrapping_add(*value))
    }
}

macro_rules! field_by_field {
    ($($counters:ty),+) => {
        $(
            impl Total for $counters {
                fn total(each_cpu: &[Self]) -> Self {
                    let mut total = Self::default();
                    for counters in each_cpu {
                        total += counters;
                    }
                    total
                }
            }
        )+
    };
}
field_by_field!(FenceCounters, Traffic, TunnelEvents);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_summed_field_by_field() {
        assert_eq!(u64::total(&[1, u64::MAX, 3]), 3);
        let one = TunnelEvents {
            rx_errors: 1,
            keepalives_heard: 2,
            ..TunnelEvents::default()
        };
        let total = TunnelEvents::total(&[one, TunnelEvents::default(), one]);
        let expected = TunnelEvents {
            rx_errors: 2,
            keepalives_heard: 4,
            ..TunnelEvents::default()
        };
        assert_eq!(total, expected);
    }
}
