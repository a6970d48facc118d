//! A tunnel for tests.

use crate::config::{Encapsulation, FlowLabel, HeaderByte, Tunnel};

/// The article's tunnel, as its primary has it.
pub fn tunnel() -> Tunnel {
    Tunnel {
        name: "tun00".to_owned(),
        addresses: vec!["169.254.0.1/24".parse().unwrap()],
        description: None,
        enabled: true,
        encapsulation: Encapsulation::Gre,
        local_ip: "10.0.1.10".parse().unwrap(),
        remote_ip: "10.0.2.10".parse().unwrap(),
        mtu: None,
        multicast: true,
        key: None,
        epoch_domain: None,
        checksum: false,
        sequence: false,
        ttl: HeaderByte::Fixed(255),
        tos: HeaderByte::Inherit,
        flow_label: FlowLabel::Fixed(0),
        adjust_mss: None,
        bridge: None,
        keepalive: None,
        fast_path: true,
    }
}
