//! Which tunnels a router's word on the path is about.

use std::{collections::HashMap, net::IpAddr};

use crate::{
    config::{self, Tunnel},
    path_mtu::icmp::{Encapsulation, PathMtu, QuotedKey},
};

/// Tunnels by their outer addresses.
#[derive(Debug, Default)]
pub struct ByAddresses {
    positions: HashMap<(IpAddr, IpAddr), Vec<usize>>,
}

impl ByAddresses {
    pub fn of<'a>(tunnels: impl IntoIterator<Item = &'a Tunnel>) -> Self {
        let mut positions: HashMap<_, Vec<_>> = HashMap::new();
        for (position, tunnel) in tunnels.into_iter().enumerate() {
            let addresses = (tunnel.local_ip, tunnel.remote_ip);
            positions.entry(addresses).or_default().push(position);
        }
        Self { positions }
    }

    /// Positions of the tunnels between the addresses of `path`.
    pub fn between(&self, path: &PathMtu) -> &[usize] {
        self.positions
            .get(&(path.local, path.remote))
            .map_or(&[], Vec::as_slice)
    }
}

/// Whether a packet as `path` quotes it may be of `tunnel`, which has its addresses.
pub fn may_be_of(path: &PathMtu, tunnel: &Tunnel) -> bool {
    let is_udp = tunnel.encapsulation == config::Encapsulation::GreUdp;
    let key = match path.encapsulation {
        Encapsulation::Gre(key) if !is_udp => key,
        Encapsulation::GreUdp(key) if is_udp => key,
        Encapsulation::Gre(_) | Encapsulation::GreUdp(_) => return false,
    };
    match key {
        QuotedKey::NotQuoted => true,
        QuotedKey::Absent => tunnel.key.is_none(),
        QuotedKey::Present(quoted) => tunnel
            .key
            .is_some_and(|key| key.fixed().is_none_or(|fixed| fixed == quoted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GreKey;
    use crate::tunnel::testing::tunnel;

    #[test]
    fn by_addresses_encapsulation_and_key() {
        let keyed = Tunnel {
            key: Some(GreKey::Fixed(7)),
            ..tunnel()
        };
        let udp = Tunnel {
            encapsulation: config::Encapsulation::GreUdp,
            ..tunnel()
        };
        let elsewhere = Tunnel {
            remote_ip: "10.0.3.10".parse().unwrap(),
            ..tunnel()
        };
        let tunnels = [tunnel(), elsewhere, keyed, udp];
        let by_addresses = ByAddresses::of(&tunnels);
        let gre_udp = Encapsulation::GreUdp;
        for (encapsulation, expected) in [
            (Encapsulation::Gre(QuotedKey::NotQuoted), &[0, 2][..]),
            (Encapsulation::Gre(QuotedKey::Absent), &[0]),
            (Encapsulation::Gre(QuotedKey::Present(7)), &[2]),
            (Encapsulation::Gre(QuotedKey::Present(8)), &[]),
            (gre_udp(QuotedKey::NotQuoted), &[3]),
            (gre_udp(QuotedKey::Absent), &[3]),
            (gre_udp(QuotedKey::Present(7)), &[]),
        ] {
            let path = PathMtu {
                local: tunnel().local_ip,
                remote: tunnel().remote_ip,
                encapsulation,
                mtu: 1400,
            };
            let mut found = by_addresses.between(&path).to_vec();
            found.retain(|&position| may_be_of(&path, &tunnels[position]));
            assert_eq!(found, expected, "{encapsulation:?}");
        }
    }
}
