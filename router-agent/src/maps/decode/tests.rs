use bytemuck::{AnyBitPattern, Zeroable as _};
use router_common::{
    gre::Label,
    identity::{Claim, Epoch, Flags, NodeId},
    keys::{Keys, Named, Slot},
    map::{
        Format, Interface, LocalState, SessionConfig, SessionState, TunnelEgress, TunnelIngress,
        TunnelKey, TunnelKey6, egress_flag, ingress_flag, interface_flag,
    },
    net::ipv4_to_word,
    time::BootTime,
};

use super::*;

struct Known;

impl InterfaceNames for Known {
    fn name(&self, index: u32) -> Option<String> {
        (index == 7).then(|| "eth0".to_owned())
    }
}

fn text(value: &impl Decode) -> String {
    value.decode(&Known).to_string()
}

/// A value as its bytes lie in a map.
fn from_bytes<T: AnyBitPattern>(bytes: &[u8]) -> T {
    bytemuck::pod_read_unaligned(bytes)
}

#[test]
fn a_tunnels_key() {
    let key: TunnelKey = from_bytes(&[10, 0, 2, 10, 10, 0, 1, 10, 1, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(
        text(&key),
        "local 10.0.2.10, remote 10.0.1.10, key 256, encapsulation gre"
    );
    let labelled = |label| text(&TunnelKey { label, ..key });
    assert!(labelled(Label::new(None, false)).ends_with("key none, encapsulation gre"));
    assert!(labelled(Label::new(Some(0), true)).ends_with("key 0, encapsulation gre-udp"));

    assert!(labelled(Label::epoch(false)).ends_with("key cluster-epoch, encapsulation gre"));

    let mut bytes = [0; 40];
    (bytes[0], bytes[15]) = (0xfd, 2);
    (bytes[16], bytes[31]) = (0xfd, 1);
    let key: TunnelKey6 = from_bytes(&bytes);
    assert_eq!(
        text(&key),
        "local fd00::1, remote fd00::2, key none, encapsulation gre"
    );
}

#[test]
fn a_tunnels_directions() {
    let ingress = TunnelIngress {
        index: 3,
        format: Format::KEY,
        flags: ingress_flag::TRANSIT,
        user_ifindex: 7,
        user_mac: [2, 0, 0, 0, 0, 0xab],
        vlan: 0,
        heartbeat_address: [169, 254, 0, 1],
        heartbeat_port: 6940,
        epoch_slot: 0,
    };
    assert_eq!(
        text(&ingress),
        "tunnel_index 3, format key, flags transit, user_ifindex 7, user_interface eth0, \
         user_mac 02:00:00:00:00:ab, vlan none, \
         heartbeat_address 169.254.0.1, heartbeat_port 6940, epoch_slot none"
    );
    let mut egress = TunnelEgress {
        index: 3,
        underlay_ifindex: 8,
        format: Format::KEY,
        flags: egress_flag::TOS_INHERIT | 0x100,
        local: [0; 16],
        remote: [0; 16],
        key: 5_u32.to_be_bytes(),
        flow_label: 0,
        ttl: 255,
        tos: 0,
        mss_ipv4: 1436,
        mss_ipv6: 0,
        epoch_slot: 0,
    };
    egress.local[..4].copy_from_slice(&[10, 0, 1, 10]);
    egress.remote[..4].copy_from_slice(&[10, 0, 2, 10]);
    assert_eq!(
        text(&egress),
        "tunnel_index 3, underlay_ifindex 8, underlay_interface none, local 10.0.1.10, \
         remote 10.0.2.10, key 5, epoch_slot none, format key, ttl 255, tos inherit, flow_label 0, \
         mss_ipv4_bytes 1436, mss_ipv6_bytes none, flags tos-inherit+0x100"
    );
    egress.format = Format::IPV6;
    egress.local[15] = 1;
    assert!(
        text(&egress)
            .contains("local a00:10a::1, remote a00:20a::, key none, epoch_slot none, format ipv6")
    );
}

#[test]
fn an_interfaces_part() {
    let interface = Interface {
        flags: interface_flag::LAN | interface_flag::TRANSMIT | 0x100,
        mac: [2, 0, 0, 0, 0, 0xab],
        protected_by: 2,
    };
    assert_eq!(
        text(&interface),
        "mac 02:00:00:00:00:ab, flags lan+transmit+0x100, protected_by_group 1"
    );
}

#[test]
fn indices_have_names() {
    assert_eq!(text(&InterfaceIndex(7)), "ifindex 7, interface eth0");
    assert_eq!(text(&Index::Tunnel(1)), "tunnel_index 1");
    assert_eq!(text(&Index::Session(2)), "session_index 2");
    assert_eq!(text(&Index::Reason(1)), "reason outer-options");
    assert_eq!(text(&Index::Reason(999)), "reason 999");
    assert_eq!(text(&Index::Epoch(MAX_GROUPS - 1)), "group_index 1023");
    assert_eq!(text(&Index::Epoch(MAX_GROUPS)), "epoch_slot 1024");
}

#[test]
fn a_sessions_secrets_stay_secret() {
    let config = SessionConfig {
        keys: Keys::of(Slot {
            rx: [0x1111_1111_1111_1111; 2],
            tx: [0x2222_2222_2222_2222; 2],
            number: 0x3333,
        }),
        session: 0xbeef,
        local_node: 1,
        peer_node: 2,
        local_address: [169, 254, 0, 1],
        group: 3,
        padding: [0; 4],
    };
    let expected = "session 0x0000beef, local_node 1, peer_node 2, \
                    local_address 169.254.0.1, group_index 3, secrets 1, keys ***";
    assert_eq!(text(&config), expected);
}

#[test]
fn what_a_session_heard() {
    let state = SessionState {
        peer_address: ipv4_to_word(Ipv4Addr::new(169, 254, 0, 2)),
        peer_claim: Claim {
            epoch: Epoch(4),
            owner: NodeId(2),
        }
        .to_word(),
        peer_status: SessionState::status_word(Flags::FORWARDING.with(Flags::ELIGIBLE), 250),
        peer_keys: Named { used: 7, wanted: 9 }.to_word(),
        last_heard_ns: 5,
        ..SessionState::default()
    };
    let text = text(&state);
    assert!(
        text.starts_with(
            "peer_address 169.254.0.2, peer_generation 0, epoch 4, owner_node 2, \
             used_secret 7, wanted_secret 9, flags forwarding+eligible, agent_age_us 250, last_heard_ns 5, "
        ),
        "{text}"
    );
    let nothing = SessionState::zeroed().decode(&Known).to_string();
    assert!(
        nothing.starts_with(
            "peer_address none, peer_generation 0, epoch 0, owner_node none, \
             used_secret 0, wanted_secret 0, flags none, "
        ),
        "{nothing}"
    );
}

#[test]
fn what_a_node_says_of_itself() {
    let claim = Claim {
        epoch: Epoch(9),
        owner: NodeId::PRIMARY,
    };
    let local = LocalState::new(claim, 77, Flags::CANDIDATE, BootTime::from_ns(3));
    assert_eq!(
        text(&local),
        "generation 77, epoch 9, owner_node 1, flags candidate, agent_beat_ns 3, grant_us 0"
    );
}
