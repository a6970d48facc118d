//! GRE packets from sockets, as the slow path decapsulates them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use router_common::{
    gre::Format,
    identity::Epoch,
    map::{Sequence, TunnelDevice, TunnelIngress},
    net::{Ethernet, Vlan},
};

// These files alone: the agent around it would want the kernel programs built first.
#[path = "../../router-agent/src/slow_path/decapsulate.rs"]
mod decapsulate;
#[path = "../../router-agent/src/slow_path/segments.rs"]
mod segments;

/// What of the agent's module they know.
mod tunnel {
    use router_common::map::{TunnelDevice, TunnelIngress};

    pub struct Entries {
        pub ingress: TunnelIngress,
        pub device: TunnelDevice,
    }
}

use decapsulate::{Addresses, Datagram, Outcome};

const MTU: u32 = 1476;

fuzz_target!(|input: &[u8]| {
    let Some((&[format, flags, tos], gre)) = input.split_first_chunk() else {
        return;
    };
    // Of any bytes; what it finds is no longer than they are.
    if let Some(datagram) = Datagram::in_ipv4(gre) {
        assert!(datagram.gre.len() < gre.len());
    }
    let entries = tunnel::Entries {
        ingress: TunnelIngress {
            format: Format(u32::from(format)),
            flags: u32::from(flags),
            ..bytemuck::Zeroable::zeroed()
        },
        device: TunnelDevice {
            mtu: MTU,
            mss_ipv4: 1400,
            mss_ipv6: 1400,
            ..TunnelDevice::default()
        },
    };
    let datagram = Datagram {
        addresses: Addresses::Ipv4 {
            local: [10, 0, 1, 10],
            remote: [10, 0, 2, 10],
        },
        tos,
        udp: entries.ingress.format.has(Format::UDP),
        gre,
    };
    let Some((header, _)) = datagram.header() else {
        return;
    };
    let mut sequence = Sequence::default();
    let raise = |_| Epoch::default();
    match decapsulate::decapsulate(&datagram, &header, &entries, &mut sequence, raise) {
        Ok(Outcome::Deliver {
            frame,
            inner_length,
            offload,
            ..
        }) => {
            let fits = frame.len() <= MTU as usize + Ethernet::LEN + Vlan::LEN;
            assert!(fits || offload.is_some());
            assert!(inner_length < gre.len() && inner_length <= frame.len());
        }
        Ok(Outcome::GiveBack { packet, .. }) => assert!(packet.len() < gre.len()),
        Ok(Outcome::KeepaliveHeard) | Err(_) => {}
    }
});
