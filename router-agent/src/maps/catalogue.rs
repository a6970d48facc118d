//! What each map holds, so that bytes are never taken for another type's.

use aya::maps::{MapInfo, MapType};
use router_common::{
    log::Gate,
    map::{
        EpochSlot, Fence, FenceCounters, Granted, Interface, Lease, LocalState, RoundTrips,
        Sequence, SessionConfig, SessionKey, SessionState, Settings, Traffic, TunnelDevice,
        TunnelEgress, TunnelEvents, TunnelIngress, TunnelKey, TunnelKey6, name,
    },
    slot::{TunnelSlot, TunnelSlot6},
};

use super::MapsError;

/// The maps of this layout, and those of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Tunnels,
    Tunnels6,
    Slots,
    Slots6,
    Devices,
    Ends,
    Egress,
    Interfaces,
    Sequences,
    Traffic,
    Counters,
    Reasons,
    Settings,
    SessionIndex,
    SessionConfig,
    Sessions,
    RoundTrips,
    Local,
    Granted,
    Fences,
    Leases,
    FenceCounters,
    Protected,
    Epochs,
    LogGates,
    LogSuppressed,
}

impl Known {
    pub const ALL: [Self; 26] = [
        Self::Tunnels,
        Self::Tunnels6,
        Self::Slots,
        Self::Slots6,
        Self::Devices,
        Self::Ends,
        Self::Egress,
        Self::Interfaces,
        Self::Sequences,
        Self::Traffic,
        Self::Counters,
        Self::Reasons,
        Self::Settings,
        Self::SessionIndex,
        Self::SessionConfig,
        Self::Sessions,
        Self::RoundTrips,
        Self::Local,
        Self::Granted,
        Self::Fences,
        Self::Leases,
        Self::FenceCounters,
        Self::Protected,
        Self::Epochs,
        Self::LogGates,
        Self::LogSuppressed,
    ];

    /// The names of all.
    pub fn names() -> [&'static str; Self::ALL.len()] {
        Self::ALL.map(Self::name)
    }

    pub fn from_name(name: &str) -> Result<Self, MapsError> {
        Self::ALL
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| MapsError::NoSuchMap {
                name: name.to_owned(),
            })
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tunnels => name::TUNNELS,
            Self::Tunnels6 => name::TUNNELS6,
            Self::Slots => name::SLOTS,
            Self::Slots6 => name::SLOTS6,
            Self::Devices => name::DEVICES,
            Self::Ends => name::ENDS,
            Self::Egress => name::EGRESS,
            Self::Interfaces => name::INTERFACES,
            Self::Sequences => name::SEQUENCES,
            Self::Traffic => name::TRAFFIC,
            Self::Counters => name::COUNTERS,
            Self::Reasons => name::REASONS,
            Self::Settings => name::SETTINGS,
            Self::SessionIndex => name::SESSION_INDEX,
            Self::SessionConfig => name::SESSION_CONFIG,
            Self::Sessions => name::SESSIONS,
            Self::RoundTrips => name::ROUND_TRIPS,
            Self::Local => name::LOCAL,
            Self::Granted => name::GRANTED,
            Self::Fences => name::FENCES,
            Self::Leases => name::LEASES,
            Self::FenceCounters => name::FENCE_COUNTERS,
            Self::Protected => name::PROTECTED,
            Self::Epochs => name::EPOCHS,
            Self::LogGates => name::LOG_GATES,
            Self::LogSuppressed => name::LOG_SUPPRESSED,
        }
    }

    /// Bytes of a key.
    const fn key_size(self) -> usize {
        match self {
            Self::Tunnels => size_of::<TunnelKey>(),
            Self::Tunnels6 => size_of::<TunnelKey6>(),
            Self::SessionIndex => size_of::<SessionKey>(),
            Self::Slots
            | Self::Slots6
            | Self::Devices
            | Self::Ends
            | Self::Egress
            | Self::Interfaces
            | Self::Sequences
            | Self::Traffic
            | Self::Counters
            | Self::Reasons
            | Self::Settings
            | Self::SessionConfig
            | Self::Sessions
            | Self::RoundTrips
            | Self::Local
            | Self::Granted
            | Self::Fences
            | Self::Leases
            | Self::FenceCounters
            | Self::Protected
            | Self::Epochs
            | Self::LogGates
            | Self::LogSuppressed => size_of::<u32>(),
        }
    }

    /// Bytes of a value, on one CPU.
    const fn value_size(self) -> usize {
        match self {
            Self::Tunnels | Self::Tunnels6 => size_of::<TunnelIngress>(),
            Self::Slots => size_of::<TunnelSlot>(),
            Self::Slots6 => size_of::<TunnelSlot6>(),
            Self::Devices => size_of::<TunnelDevice>(),
            Self::Egress => size_of::<TunnelEgress>(),
            Self::Interfaces => size_of::<Interface>(),
            Self::Sequences => size_of::<Sequence>(),
            Self::Settings => size_of::<Settings>(),
            Self::Traffic => size_of::<Traffic>(),
            Self::Counters => size_of::<TunnelEvents>(),
            Self::Reasons | Self::LogSuppressed => size_of::<u64>(),
            Self::Ends | Self::SessionIndex | Self::Protected => size_of::<u32>(),
            Self::SessionConfig => size_of::<SessionConfig>(),
            Self::Sessions => size_of::<SessionState>(),
            Self::RoundTrips => size_of::<RoundTrips>(),
            Self::Local => size_of::<LocalState>(),
            Self::Granted => size_of::<Granted>(),
            Self::Fences => size_of::<Fence>(),
            Self::Leases => size_of::<Lease>(),
            Self::FenceCounters => size_of::<FenceCounters>(),
            Self::Epochs => size_of::<EpochSlot>(),
            Self::LogGates => size_of::<Gate>(),
        }
    }

    const fn map_type(self) -> MapType {
        match self {
            Self::Tunnels
            | Self::Tunnels6
            | Self::Ends
            | Self::Interfaces
            | Self::SessionIndex
            | Self::Protected => MapType::Hash,
            Self::Traffic
            | Self::Counters
            | Self::Reasons
            | Self::FenceCounters
            | Self::LogSuppressed => MapType::PerCpuArray,
            Self::Slots
            | Self::Slots6
            | Self::Devices
            | Self::Egress
            | Self::Sequences
            | Self::Settings
            | Self::SessionConfig
            | Self::Sessions
            | Self::RoundTrips
            | Self::Local
            | Self::Granted
            | Self::Fences
            | Self::Leases
            | Self::Epochs
            | Self::LogGates => MapType::Array,
        }
    }

    /// Refuses a map of another layout.
    pub fn check(self, info: &MapInfo) -> Result<(), MapsError> {
        let name = self.name();
        let expected = self.map_type();
        match info.map_type() {
            Ok(actual) if actual == expected => {
                self.check_sizes(info.key_size(), info.value_size())
            }
            Ok(actual) => Err(MapsError::OtherType {
                name,
                actual,
                expected,
            }),
            Err(source) => Err(MapsError::Read { name, source }),
        }
    }

    fn check_sizes(self, key: u32, value: u32) -> Result<(), MapsError> {
        for (what, actual, expected) in [
            ("keys", key, self.key_size()),
            ("values", value, self.value_size()),
        ] {
            if usize::try_from(actual) != Ok(expected) {
                return Err(MapsError::OtherLayout {
                    name: self.name(),
                    what,
                    actual,
                    expected,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_is_known_by_its_name() {
        let mut names = [&name::ALL[..], &name::OF_LOG].concat();
        names.retain(|name| *name != name::LOG);
        assert_eq!(Known::names().to_vec(), names);
        assert_eq!(Known::from_name("sessions").unwrap(), Known::Sessions);
        let error = Known::from_name("TUNNEL").unwrap_err().to_string();
        assert!(error.contains("there are: TUNNELS, TUNNELS6,"), "{error}");
    }

    #[test]
    fn another_layout_is_refused() {
        Known::Local.check_sizes(4, 32).unwrap();
        let error = Known::Local.check_sizes(4, 24).unwrap_err().to_string();
        assert!(
            error.contains("values of 24 bytes where 32 are expected"),
            "{error}"
        );
        let error = Known::Tunnels.check_sizes(12, 24).unwrap_err().to_string();
        assert!(
            error.contains("keys of 12 bytes where 16 are expected"),
            "{error}"
        );
    }
}
