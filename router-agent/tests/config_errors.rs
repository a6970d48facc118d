//! Configurations from files: the article's, which must be accepted as it stands, and broken
//! ones, whose diagnostics are compared with `fixtures/bad/NAME.stderr` to the letter.
//! `UPDATE_FIXTURES=1` writes those files anew; review them as the operator who will read them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use router_agent::config::{
    AdjustMss, BridgePort, Cluster, Config, Control, Encapsulation, Ethernet, Facts, FlowLabel,
    Form, GreKey, Group, HeaderByte, Keepalive, Loaded, Pace, Prefer, Refused, Role, Secret,
    Secrets, Severity, Track, Tracked, Tunnel, Weight, XdpMode, load, parse,
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn read(name: &str) -> String {
    fs::read_to_string(fixtures().join(name)).unwrap()
}

fn facts(host: &str) -> Facts {
    Facts::of_host(host)
}

fn accepted(text: &str) -> Loaded {
    parse("test.conf", text, &facts("vyatta-a"), false).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(text: &str) -> Refused {
    parse("test.conf", text, &facts("vyatta-a"), false).unwrap_err()
}

fn article(host: &str, address: &str, local: [u8; 4], remote: [u8; 4]) -> Config {
    Config {
        metrics: None,
        control: Control::default(),
        host_name: host.to_owned(),
        tunnels: vec![Tunnel {
            name: "tun00".to_owned(),
            addresses: vec![address.parse().unwrap()],
            description: None,
            enabled: true,
            encapsulation: Encapsulation::Gre,
            local_ip: local.into(),
            remote_ip: remote.into(),
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
        }],
        ethernets: vec![],
        cluster: Some(Cluster {
            interfaces: vec!["tun00".to_owned()],
            secret: Secret::new("cloudpack"),
            previous_secret: None,
            mcast_group: Ipv4Addr::new(239, 251, 252, 253),
            heartbeat_port: 6940,
            keepalive_interval: Duration::from_millis(50),
            dead_interval: Duration::from_millis(200),
            agent_dead_interval: Duration::from_secs(3),
            monitor_interval: Duration::from_millis(250),
            monitor_dead_interval: Duration::from_secs(1),
            arbiter: None,
            groups: vec![Group {
                name: "aws".to_owned(),
                primary: "vyatta-a".to_owned(),
                secondary: "vyatta-c".to_owned(),
                auto_failback: false,
                prefer: Prefer::Availability,
                protected: Vec::new(),
                monitors: vec![],
                tracks: vec![],
                services: vec![],
                routes: vec![],
                aws: None,
                conntrack_sync: None,
                notify: None,
            }],
        }),
    }
}

#[test]
fn the_articles_configuration_works_as_it_stands() {
    let (a, c) = ([10, 0, 1, 10], [10, 0, 2, 10]);
    for (file, host, address, local, remote, role) in [
        (
            "article-a.conf",
            "vyatta-a",
            "169.254.0.1/24",
            a,
            c,
            Role::Primary,
        ),
        (
            "article-c.conf",
            "vyatta-c",
            "169.254.0.2/24",
            c,
            a,
            Role::Secondary,
        ),
    ] {
        let loaded = load(&fixtures().join(file), &facts(host), false).unwrap();
        assert_eq!(loaded.config, article(host, address, local, remote));
        let [warning] = loaded.warnings.as_slice() else {
            panic!("{}", loaded.render_warnings(false));
        };
        assert_eq!(warning.severity, Severity::Warning);
        assert!(warning.message.contains("system time-zone"));
        let cluster = loaded.config.cluster.unwrap();
        assert_eq!(cluster.groups[0].role_of(host), Some(role));
        assert_eq!(cluster.groups[0].role_of("vyatta-x"), None);
    }
}

#[test]
fn an_old_config_boot_works_as_it_stands() {
    let loaded = load(
        &fixtures().join("article-a.boot"),
        &facts("vyatta-a"),
        false,
    )
    .unwrap();
    let (a, c) = ([10, 0, 1, 10], [10, 0, 2, 10]);
    assert_eq!(loaded.config, article("vyatta-a", "169.254.0.1/24", a, c));
    let warnings: Vec<_> = loaded.warnings.iter().map(|w| w.message.as_str()).collect();
    assert_eq!(
        warnings,
        [
            "`firewall` is not carried out by this router",
            "`interfaces ethernet eth0 address` is not carried out by this router",
            "`interfaces ethernet eth0 hw-id` is not carried out by this router",
            "`interfaces loopback` is not carried out by this router",
            "`mtu` is deactivated and has no effect",
            "`tunnel` is deactivated and has no effect",
            "`system login` is not carried out by this router",
            "`system time-zone` is not carried out by this router",
        ]
    );
}

#[test]
fn braces_divide_as_lines_do() {
    let nested = "cluster{group aws{primary vyatta-a\nsecondary vyatta-c}interface tun00
keepalive-interval 5000 /* slow */ dead-interval 20000
pre-shared-secret \"a \\\"b\\\" \\\\ {c}\" }\ninterfaces {
# Not indented.
tunnel tun00 {
address 169.254.0.1/24
encapsulation gre
local-ip 10.0.1.10
remote-ip 10.0.2.10
multicast enable
parameters {
}
}
}
";
    // Two values on one line are one too many.
    let refused = refused(nested);
    assert_eq!(refused.errors, 1, "{refused}");
    assert!(refused.to_string().contains("`dead-interval` follows"));
    let nested = nested.replace(" /* slow */ ", "\n");
    let cluster = accepted(&nested).config.cluster.unwrap();
    assert_eq!(cluster.secret.expose(), r#"a "b" \ {c}"#);
    assert_eq!(cluster.dead_interval, Duration::from_secs(20));
}

#[test]
fn a_script_takes_back_what_it_stated() {
    let text = read("article-a.conf")
        + "set interfaces tunnel tun1 mtu 70000
delete interfaces tunnel tun1
set interfaces tunnel tun00 address 169.254.9.1/24
set interfaces tunnel tun00 address 169.254.8.1/24
delete interfaces tunnel tun00 address 169.254.9.1/24
set interfaces tunnel tun00 address 169.254.9.1/24
set interfaces tunnel tun00 description gone
delete interfaces tunnel tun00 description
set cluster dead-interval 300
delete cluster dead-interval
comment cluster 'two zones'
";
    // What is wrong stays wrong, taken back or not.
    assert_eq!(refused(&text).errors, 1);
    let config = accepted(&text.replace("70000", "1400")).config;
    let [tunnel] = config.tunnels.as_slice() else {
        panic!("{config:?}");
    };
    assert_eq!(tunnel.description, None);
    let addresses: Vec<_> = tunnel.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        addresses,
        ["169.254.0.1/24", "169.254.8.1/24", "169.254.9.1/24"]
    );
    assert_eq!(
        config.cluster.unwrap().dead_interval,
        Duration::from_millis(200)
    );
}

#[test]
fn every_broken_file_is_explained() {
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let mut files: Vec<_> = fs::read_dir(fixtures().join("bad"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "conf"))
        .collect();
    files.sort();
    let mut different = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let strict = name.contains("strict");
        let refused = match load(&path, &facts("vyatta-a"), strict) {
            Ok(loaded) => panic!("{name} is accepted: {loaded:?}"),
            Err(refused) => refused,
        };
        // The rendered paths are those of the checkout.
        let prefix = format!("{}/", fixtures().join("bad").display());
        let text = refused.render(false).replace(&prefix, "");
        assert!(
            !text.contains("cloudpack"),
            "{name} shows the secret:\n{text}"
        );
        assert_eq!(text, refused.to_string().replace(&prefix, ""));
        let expected = path.with_extension("stderr");
        if update {
            fs::write(expected, text).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            different.push(format!("{name} gives\n{text}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// What is more than the maps of the programs hold is refused before they are loaded.
#[test]
fn more_than_there_is_room_for_is_refused() {
    let groups = |count: usize| -> String {
        let group = |number| {
            format!(
                "set cluster group g{number} primary vyatta-a
set cluster group g{number} secondary vyatta-c
"
            )
        };
        (1..count).map(group).collect()
    };
    let article = read("article-a.conf");
    // With the article's own.
    accepted(&(article.clone() + &groups(1024)));
    let refused_for = |text: &str, words: &str| {
        let refused = refused(text);
        assert_eq!(refused.errors, 1, "{refused}");
        assert!(refused.to_string().contains(words), "{refused}");
    };
    refused_for(
        &(article.clone() + &groups(1025)),
        "these are 1025 groups, and there is room for 1024",
    );
    let paths = |count: u32| -> String {
        let path = |number| {
            format!(
                "set interfaces tunnel tun{number} address 169.254.{number}.1/24
set interfaces tunnel tun{number} encapsulation gre
set interfaces tunnel tun{number} local-ip 10.0.1.10
set interfaces tunnel tun{number} remote-ip 10.0.2.10
set interfaces tunnel tun{number} parameters ip key {number}
set interfaces tunnel tun{number} multicast enable
set cluster interface tun{number}
"
            )
        };
        (1..=count).map(path).collect()
    };
    accepted(&(article.clone() + &paths(3) + &groups(1024)));
    refused_for(
        &(article + &paths(4) + &groups(1024)),
        "1024 groups on 5 interfaces have 5120 sessions, and there is room for 4096",
    );
}

#[test]
fn a_full_configuration_keeps_what_it_states() {
    let text = format!(
        "{}
set interfaces tunnel tun00 description \"to AZ c\" # both zones
set interfaces tunnel tun00 mtu 1400
set interfaces tunnel tun00 mtu 1450
set interfaces tunnel tun00 address fe80::1/64
set interfaces tunnel tun00 parameters ip key 0
set interfaces tunnel tun00 parameters ip ttl 0
set interfaces tunnel tun00 parameters ip tos 16
set interfaces tunnel tun1 encapsulation gre
set interfaces tunnel tun1 local-ip 10.0.1.10
set interfaces tunnel tun1 remote-ip 10.0.2.10
set interfaces tunnel tun1 address fe80::1/64
set interfaces tunnel tun1 parameters ip key 7
set interfaces tunnel tun1 disable
set cluster pre-shared-secret '  two  words '
set cluster keepalive-interval 5000
set cluster dead-interval 20000
set cluster group aws auto-failback true
set cluster group aws monitor 10.0.0.1
set cluster group aws monitor 2001:db8::1
set cluster group aws service 10.0.0.254/24/eth1
set cluster group b secondary vyatta-a
set cluster group b primary vyatta-c\r\n",
        read("article-a.conf")
    );
    let config = accepted(&text).config;
    let [tun00, tun1] = config.tunnels.as_slice() else {
        panic!("{config:?}");
    };
    assert_eq!(tun00.description.as_deref(), Some("to AZ c"));
    assert_eq!((tun00.mtu, tun00.key), (Some(1450), Some(GreKey::Fixed(0))));
    assert_eq!(
        (tun00.ttl, tun00.tos),
        (HeaderByte::Inherit, HeaderByte::Fixed(16))
    );
    assert_eq!(tun00.addresses[0].addr().to_string(), "169.254.0.1");
    assert_eq!(tun00.addresses.len(), 2);
    assert_eq!((tun1.enabled, tun1.key), (false, Some(GreKey::Fixed(7))));
    let cluster = config.cluster.unwrap();
    assert_eq!(cluster.secret.expose(), "  two  words ");
    // Vyatta's own intervals are fine; the agent is not declared dead before the node.
    assert_eq!(cluster.dead_interval, Duration::from_secs(20));
    assert_eq!(cluster.agent_dead_interval, Duration::from_secs(20));
    assert!(cluster.groups[0].auto_failback);
    assert_eq!(cluster.groups[0].monitors.len(), 2);
    assert_eq!(
        cluster.groups[0].services[0].to_string(),
        "10.0.0.254/24/eth1"
    );
    assert_eq!(cluster.groups[1].role_of("vyatta-a"), Some(Role::Secondary));
}

#[test]
fn monitors_are_pinged_as_stated_or_four_times_until_they_are_dead() {
    for (lines, interval_ms, dead_ms) in [
        ("", 250, 1_000),
        ("set cluster monitor-dead-interval 8000\n", 2_000, 8_000),
        ("set cluster monitor-interval 499\n", 499, 1_000),
        (
            "set cluster monitor-interval 100\nset cluster monitor-dead-interval 8000\n",
            100,
            8_000,
        ),
    ] {
        let config = accepted(&(read("article-a.conf") + lines)).config;
        let cluster = config.cluster.unwrap();
        let intervals = [cluster.monitor_interval, cluster.monitor_dead_interval];
        let stated = [interval_ms, dead_ms].map(Duration::from_millis);
        assert_eq!(intervals, stated, "{lines}");
    }
}

#[test]
fn tracks_keep_what_is_stated_and_have_defaults_besides() {
    let text = read("article-a.conf")
        + "set cluster group aws track script check command '/usr/local/bin/check  -x a'
set cluster group aws track script check timeout 500
set cluster group aws track script check fall 3
set cluster group aws track process bird
set cluster group aws track interface eth1
set cluster group aws track interface eth2
set cluster group aws track interface eth2 weight -20
set cluster group aws track process bird weight 10
";
    let config = accepted(&text).config;
    let second = Duration::from_secs(1);
    let usual = Pace {
        interval: second,
        rise: 1,
        fall: 1,
    };
    assert_eq!(
        config.cluster.unwrap().groups[0].tracks,
        [
            (Track::Interface("eth1".to_owned()), 0),
            (Track::Interface("eth2".to_owned()), -20),
            (
                Track::Process {
                    name: "bird".to_owned(),
                    pace: usual,
                },
                10
            ),
            (
                Track::Script {
                    name: "check".to_owned(),
                    program: "/usr/local/bin/check".into(),
                    arguments: vec!["-x".to_owned(), "a".to_owned()],
                    timeout: second / 2,
                    pace: Pace { fall: 3, ..usual },
                },
                0
            ),
        ]
        .map(|(track, weight)| Tracked {
            track,
            weight: Weight::new(weight).unwrap(),
        })
    );
}

#[test]
fn every_kind_of_tunnel_keeps_what_it_states() {
    let config = accepted(
        "set interfaces tunnel tun6 encapsulation gre
set interfaces tunnel tun6 local-ip 2001:db8::1
set interfaces tunnel tun6 remote-ip 2001:db8::2
set interfaces tunnel tun6 parameters ip key 6
set interfaces tunnel tun6 parameters ip checksum
set interfaces tunnel tun6 parameters ip sequence
set interfaces tunnel tun6 parameters ip adjust-mss 1220
set interfaces tunnel tun6 parameters ipv6 hoplimit 0
set interfaces tunnel tun6 parameters ipv6 tclass 0x2e
set interfaces tunnel tun6 parameters ipv6 flowlabel 0x12345
set interfaces tunnel tun6 parameters ipv6 encaplimit none
set interfaces tunnel tun6 address 2001:db8:1::1/64
set interfaces tunnel tun6 mtu 1280
set interfaces tunnel tun7 encapsulation gre-bridge
set interfaces tunnel tun7 local-ip 2001:db8::1
set interfaces tunnel tun7 remote-ip 2001:db8::3
set interfaces tunnel tun7 parameters ip bridge-group bridge br0
set interfaces tunnel tun7 parameters ip bridge-group cost 65535
set interfaces tunnel tun7 parameters ip bridge-group priority 63
set interfaces tunnel tun7 parameters ipv6 flowlabel inherit
set interfaces tunnel tun8 encapsulation gre-bridge
set interfaces tunnel tun8 local-ip 10.0.1.10
set interfaces tunnel tun8 remote-ip 10.0.2.10
set interfaces tunnel tun8 address 169.254.8.1/24
set interfaces tunnel tun8 parameters ip tos inherit
set interfaces tunnel tun9 encapsulation gre-udp
set interfaces tunnel tun9 local-ip 10.0.1.10
set interfaces tunnel tun9 remote-ip 10.0.2.10
set interfaces tunnel tun9 parameters ip adjust-mss auto
set interfaces tunnel tun9 fast-path disable
set interfaces tunnel tun9999 encapsulation gre
set interfaces tunnel tun9999 local-ip 10.0.1.10
set interfaces tunnel tun9999 remote-ip 10.0.2.11
set interfaces tunnel tun9999 keepalive
set interfaces ethernet ens5 fast-path enable
set interfaces ethernet eth0 address dhcp
set interfaces ethernet eth0.100 xdp-mode generic
",
    )
    .config;
    let [v6, port, frames, udp, alive] = config.tunnels.as_slice() else {
        panic!("{config:?}");
    };
    assert_eq!(v6.local_ip, "2001:db8::1".parse::<IpAddr>().unwrap());
    assert_eq!(v6.remote_ip, "2001:db8::2".parse::<IpAddr>().unwrap());
    assert_eq!(
        (v6.encapsulation, v6.key),
        (Encapsulation::Gre, Some(GreKey::Fixed(6)))
    );
    assert!(v6.checksum && v6.sequence);
    assert_eq!(v6.adjust_mss, Some(AdjustMss::Fixed(1220)));
    assert_eq!(
        (v6.ttl, v6.tos),
        (HeaderByte::Inherit, HeaderByte::Fixed(0x2e))
    );
    assert_eq!(v6.flow_label, FlowLabel::Fixed(0x1_2345));
    assert_eq!((v6.mtu, v6.fast_path), (Some(1280), true));

    assert_eq!(port.encapsulation, Encapsulation::GreBridge);
    let expected = BridgePort {
        bridge: "br0".to_owned(),
        cost: Some(65_535),
        priority: Some(63),
    };
    assert_eq!(port.bridge, Some(expected));
    assert_eq!(
        (port.ttl, port.tos, port.flow_label),
        (
            HeaderByte::Fixed(64),
            HeaderByte::Inherit,
            FlowLabel::Inherit
        )
    );
    assert!(!port.checksum && !port.sequence);

    assert_eq!(frames.encapsulation, Encapsulation::GreBridge);
    assert_eq!((&frames.bridge, frames.addresses.len()), (&None, 1));
    assert_eq!(udp.encapsulation, Encapsulation::GreUdp);
    assert_eq!(udp.adjust_mss, Some(AdjustMss::Auto));
    assert!(!udp.fast_path);
    assert_eq!(udp.keepalive, None);
    let expected = Keepalive {
        interval: Duration::from_secs(10),
        retries: 3,
    };
    assert_eq!(alive.keepalive, Some(expected));

    let ethernet = |name: &str, fast_path, xdp_mode| Ethernet {
        name: name.to_owned(),
        fast_path,
        xdp_mode,
    };
    assert_eq!(
        config.ethernets,
        [
            ethernet("ens5", true, XdpMode::Auto),
            ethernet("eth0.100", false, XdpMode::Generic),
        ]
    );
}

/// Ten lines each, as large as the tables of the programs are meant to get.
#[test]
fn ten_thousand_tunnels_are_one_configuration() {
    use std::fmt::Write as _;
    let mut text = String::new();
    for n in 0..10_000 {
        let (high, low) = (n / 250, n % 250);
        for line in [
            format!("address 10.{high}.{low}.1/24"),
            format!("address fd00:{n:x}::1/64"),
            format!("description 'to customer {n}'"),
            "encapsulation gre".to_owned(),
            "local-ip 192.0.2.1".to_owned(),
            format!("remote-ip 198.51.{}.{}", 100 + n % 50, 1 + n % 40),
            "mtu 1400".to_owned(),
            format!("parameters ip key {n}"),
            "parameters ip ttl 64".to_owned(),
            "parameters ip adjust-mss auto".to_owned(),
        ] {
            writeln!(text, "set interfaces tunnel tun{n} {line}").unwrap();
        }
    }
    let loaded = accepted(&text);
    assert!(loaded.warnings.is_empty());
    assert_eq!(loaded.config.tunnels.len(), 10_000);
    let last = &loaded.config.tunnels[9_999];
    assert_eq!(
        (last.name.as_str(), last.key),
        ("tun9999", Some(GreKey::Fixed(9_999)))
    );

    let again = text.replace("parameters ip key", "parameters ip ttl 1 #");
    let refused = refused(&again);
    // 200 pairs of addresses are different without their keys.
    assert_eq!(refused.errors, 9_800);
}

#[test]
fn an_empty_configuration_is_valid() {
    let config = accepted("# nothing yet\n\n").config;
    assert_eq!(config.host_name, "vyatta-a");
    assert!(config.tunnels.is_empty() && config.cluster.is_none());
}

#[test]
fn foreign_parts_warn_once_each() {
    let text = format!(
        "{}set firewall name A\nset firewall name B\nset interfaces ethernet eth0 address dhcp\n\
         set interfaces ethernet eth1 address 10.9.9.1/24\nset interfaces ethernet eth2\n\
         set cluster mcast-group 239.1.1.1\nset cluster interface tun00\n",
        read("article-a.conf")
    );
    let loaded = accepted(&text);
    let lines: Vec<_> = loaded
        .warnings
        .iter()
        .map(|w| w.position.unwrap().line)
        .collect();
    assert_eq!(
        lines,
        [2, 15, 17, 20, 21],
        "{}",
        loaded.render_warnings(false)
    );
    assert!(loaded.config.ethernets.is_empty());
}

#[test]
fn the_defaults_that_are_shown_are_those_that_run() {
    for (lines, agent_dead_ms, monitor_ms) in [
        ("", 3_000, 250),
        ("set cluster dead-interval 20000\n", 20_000, 250),
        ("set cluster monitor-dead-interval 6000\n", 3_000, 1_500),
        (
            "set cluster agent-dead-interval 5000\nset cluster monitor-interval 100\n",
            5_000,
            100,
        ),
    ] {
        let loaded = accepted(&(read("article-a.conf") + lines));
        let shown = |name: &str| {
            let statements = loaded.in_effect(Secrets::Masked);
            let statement = statements.iter().find(|s| s.path == ["cluster", name]);
            statement.and_then(|s| s.value.clone()).unwrap()
        };
        let cluster = loaded.config.cluster.as_ref().unwrap();
        for (name, runs, expected) in [
            (
                "agent-dead-interval",
                cluster.agent_dead_interval,
                agent_dead_ms,
            ),
            ("monitor-interval", cluster.monitor_interval, monitor_ms),
        ] {
            assert_eq!(runs.as_millis(), expected, "{name} after {lines}");
            assert_eq!(shown(name), expected.to_string(), "{name} after {lines}");
        }
    }
}

#[test]
fn columns_are_in_characters() {
    let refused = refused("set interfaces tunnel tun00 description 'é' mtü\n");
    let position = refused.diagnostics.last().unwrap().position.unwrap();
    assert_eq!((position.line, position.column), (1, 45));
}

#[test]
fn unreadable_and_oversized_files_are_refused() {
    let host = facts("vyatta-a");
    let missing = load(Path::new("/nonexistent/router.conf"), &host, false).unwrap_err();
    assert!(missing.render(false).contains("cannot be read"));
    let directory = load(&fixtures(), &host, false).unwrap_err();
    assert!(directory.render(false).contains("cannot be read"));
    let large = parse("x", &"#".repeat(10_000_001), &host, false).unwrap_err();
    assert!(large.render(false).contains("larger than 10000000 bytes"));
}

#[test]
fn colour_only_where_asked_for() {
    let refused = refused("set clutser\n");
    assert!(refused.render(true).contains('\u{1b}'));
    assert!(!refused.render(false).contains('\u{1b}'));
    let hostile = self::refused("set \u{1b}[2J\u{202e}x\n");
    assert!(!hostile.render(false).contains(['\u{1b}', '\u{202e}']));
}

#[test]
fn many_warnings_are_bounded() {
    let text = read("article-a.conf") + &"set cluster interface tun00\n".repeat(3_000);
    let loaded = accepted(&text);
    let warnings = &loaded.warnings;
    assert_eq!(warnings.len(), 52);
    assert_eq!(warnings[51].message, "2950 more warnings are not shown");
    assert_eq!(loaded.warning_count, 3_001);
}

/// Each once, behind however many others.
#[test]
fn all_foreign_parts_are_listed() {
    let below = [
        (
            "",
            "content-inspection custom-attack firewall load-balancing nat policy protocols \
             qos-policy test-definition traffic-policy vpn webproxy zone-policy",
        ),
        (
            "interfaces",
            "adsl bonding bridge dummy input loopback multilink openvpn pseudo-ethernet serial \
             virtual-ethernet vti wireless wirelessmodem",
        ),
        (
            "service",
            "dhcp-relay dhcp-server dhcpv6-relay dhcpv6-server dns https ids lldp nat snmp ssh \
             telnet webproxy",
        ),
        (
            "interfaces tunnel tun00",
            "disable-link-detect firewall ip ipv6 policy qos-policy redirect traffic-policy",
        ),
        (
            "system",
            "config-management conntrack console contact domain-name domain-search",
        ),
    ];
    let foreign = below.iter().flat_map(|(path, names)| {
        let names = names.split_whitespace();
        names.map(move |name| format!("set {path} {name} x\n"))
    });
    let foreign: Vec<_> = foreign.collect();
    let text =
        read("article-a.conf") + &"set cluster interface tun00\n".repeat(3_000) + &foreign.concat();
    for strict in [false, true] {
        let diagnostics = match parse("test.conf", &text, &facts("vyatta-a"), strict) {
            Ok(loaded) => loaded.warnings,
            Err(refused) => refused.diagnostics,
        };
        let last: Vec<_> = diagnostics
            .iter()
            .filter_map(|d| d.position)
            .filter(|position| position.line > 3_000)
            .collect();
        assert_eq!(last.len(), foreign.len(), "strict: {strict}");
    }
}

/// Half a megabyte of each kind of trouble. The bound is far above what is measured, and far below
/// what anything quadratic would take.
#[test]
fn time_is_linear_in_the_size() {
    let size = 500_000;
    let repeat = |unit: &str| unit.repeat(size / unit.len());
    let tunnels = |n: usize| {
        format!(
            "set interfaces tunnel tun{n} address 10.{}.{}.1/24\n",
            n / 250,
            n % 250
        )
    };
    let mut many = String::new();
    for n in (0..1_000).cycle().take(10_000) {
        many.push_str(&tunnels(n));
    }
    for (what, text) in [
        ("words", repeat("x\n")),
        ("one line", "set ".to_owned() + &repeat("cluster ")),
        ("one word", "set ".to_owned() + &repeat("x")),
        ("nodes", repeat("set clutser\n")),
        ("secrets", repeat("psk\n")),
        ("quote", repeat("set '\n")),
        (
            "open secret",
            "set cluster pre-shared-secret '\n".to_owned() + &repeat("ab\n"),
        ),
        ("tunnels", many),
        ("open braces", repeat("cluster {\n")),
        ("closed braces", "cluster {\n".to_owned() + &repeat("}\n")),
        (
            "foreign braces",
            "firewall {\n".to_owned() + &repeat("a {\n"),
        ),
        ("comments", "cluster {\n".to_owned() + &repeat("/* a */ ")),
        ("open comments", "cluster {\n".to_owned() + &repeat("/* ")),
        (
            "deleted",
            "set cluster interface a\n".to_owned()
                + &repeat("set cluster interface b\ndelete cluster interface b\n"),
        ),
        (
            "deleted comments",
            "set cluster interface a\n".to_owned()
                + &repeat(
                    "set cluster interface b\ncomment cluster interface b c\n\
                     delete cluster interface b\n",
                ),
        ),
        ("hashes", "set clutser\n".to_owned() + &repeat("# a\n")),
    ] {
        let start = Instant::now();
        let result = parse("x", &text, &facts("vyatta-a"), false);
        let shown = result.unwrap_err().render(false).len();
        let took = start.elapsed();
        assert!(took < Duration::from_secs(30), "{what} took {took:?}");
        assert!(shown < 60_000, "{what} shows {shown} bytes");
    }
}

/// What stands for the secret in the properties below, and occurs nowhere else.
const SECRET: &str = "Zq7Xw9Kd";

#[derive(Clone, Debug)]
enum Mutation {
    Insert(usize, String),
    Delete(usize, usize),
    Swap(usize, usize),
    Duplicate(usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let noise = prop_oneof![
        "[ \\t\\n'\"\\\\#{}/!]{1,3}",
        "\\PC{1,4}",
        Just("set ".to_owned()),
        // No statement is put between the secret's node and the secret: the secret would then stand
        // where a name stands, and nothing would tell it from one.
        Just("\n".to_owned()),
        Just(" pre-shared-secret ".to_owned()),
        Just("99999999999".to_owned()),
    ];
    prop_oneof![
        (any::<usize>(), noise).prop_map(|(at, text)| Mutation::Insert(at, text)),
        (any::<usize>(), 1..12_usize).prop_map(|(at, n)| Mutation::Delete(at, n)),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Mutation::Swap(a, b)),
        any::<usize>().prop_map(Mutation::Duplicate),
    ]
}

/// Keeps the secret whole, as any change to it would make it another one.
fn mutate(text: &str, mutation: &Mutation) -> String {
    // One private character stands for the secret meanwhile.
    const HOLD: char = '\u{e000}';
    let mut chars: Vec<char> = text.replace(SECRET, &HOLD.to_string()).chars().collect();
    let length = chars.len().max(1);
    match mutation {
        Mutation::Insert(at, noise) => {
            let at = at % length;
            chars.splice(at..at, noise.chars());
        }
        Mutation::Delete(at, n) => {
            let at = at % length;
            chars.drain(at..(at + n).min(chars.len()));
        }
        Mutation::Swap(a, b) => {
            let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
            let (a, b) = (a % lines.len(), b % lines.len());
            lines.swap(a, b);
            return lines.concat();
        }
        Mutation::Duplicate(at) => {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            return text.to_owned() + lines[at % lines.len()];
        }
    }
    String::from_iter(chars).replace(HOLD, SECRET)
}

/// Everything that is said about a text.
fn said(text: &str) -> String {
    match parse("test.conf", text, &facts("vyatta-a"), false) {
        Ok(loaded) => format!("{loaded:?}{}", loaded.render_warnings(true)),
        Err(refused) => format!(
            "{refused:?}{}{}",
            refused.render(true),
            refused.render(false)
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn arbitrary_text_never_panics(text in "(?s).{0,300}") {
        said(&text);
    }

    #[test]
    fn arbitrary_words_never_panic(
        words in prop::collection::vec(
            prop_oneof![
                "set|cluster|group|interfaces|tunnel|tun00|ethernet|eth0|keepalive|interval|parameters|ip|ipv6",
                "fast-path|encapsulation|gre-bridge|bridge-group|bridge|key|service|pre-shared-secret",
                "[ \\n\\r'\"\\\\#{}!]|/\\*|\\*/|\\{\\n|delete|comment",
                "[0-9]{1,12}|10.0.0.1/24/eth1|\\PC{0,3}",
            ],
            0..60,
        ),
    ) {
        said(&words.join(" "));
    }

    /// As the fuzz target `config` has it, from near what is accepted.
    #[test]
    fn a_mutated_configuration_is_printed_as_it_is_read(
        mutations in prop::collection::vec(mutation(), 1..4),
    ) {
        for article in ["article-a.conf", "article-a.boot"] {
            let text = mutations.iter().fold(read(article), |text, m| mutate(&text, m));
            let host = facts("vyatta-a");
            let Ok(loaded) = parse("test.conf", &text, &host, false) else {
                continue;
            };
            let statements = loaded.stated(Secrets::Shown);
            for form in [Form::Set, Form::Brace] {
                let printed = form.print(&statements);
                let again = parse("test.conf", &printed, &host, false)
                    .unwrap_or_else(|refused| panic!("{printed}\n{refused}"));
                prop_assert_eq!(&again.config, &loaded.config, "{}", printed);
                prop_assert_eq!(again.stated(Secrets::Shown), statements.clone(), "{}", printed);
            }
        }
    }

    #[test]
    fn a_mutated_configuration_neither_panics_nor_shows_its_secret(
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let set_form = read("article-a.conf").replace("cloudpack", &format!("'{SECRET}'"));
        let brace_form = read("article-a.boot").replace("cloudpack", SECRET);
        for article in [set_form, brace_form] {
            let text = mutations.iter().fold(article, |text, m| mutate(&text, m));
            let said = said(&text);
            prop_assert!(!said.contains(SECRET), "{text}\n----\n{said}");
        }
    }
}
