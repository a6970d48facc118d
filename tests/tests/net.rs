//! Interfaces by netlink, in network namespaces of their own.

use std::{os::fd::AsFd as _, process::Command, slice, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{Ebpf, programs::SchedClassifier};
use ipnet::IpNet;
use router_agent::{
    dataplane::{OBJECT, program},
    net::{
        Address, BridgePortSpec, EgressProgram, Link, LinkEvent, LinkMonitor, Netlink, Offload,
        TunnelDevice,
        watch::{Change, Dependency, Finding, Watch},
    },
};
use router_tests::many_tunnels::{in_namespace, layer3, measure, names_and_addresses};
use tokio::time::timeout;

/// More than any of this takes, unless it hangs.
const LONG: Duration = Duration::from_mins(1);

/// Of the product's object, for as long as the descriptor is open.
fn egress_program() -> Result<EgressProgram> {
    let mut programs = Ebpf::load(OBJECT)?;
    let program = programs.program_mut(program::TUNNEL_EGRESS);
    let program: &mut SchedClassifier = program.context("no such program")?.try_into()?;
    program.load()?;
    Ok(EgressProgram {
        name: program::TUNNEL_EGRESS,
        id: program.info()?.id(),
        fd: program.fd()?.as_fd().try_clone_to_owned()?,
    })
}

/// What a command in this thread's namespace prints.
fn run(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().context("no command")?)
        .args(words)
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{line}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

async fn names(netlink: &Netlink) -> Result<Vec<String>> {
    let links = netlink.links().await?;
    Ok(links.into_iter().map(|link| link.name).collect())
}

#[test]
fn a_hundred_tunnels_come_and_go() {
    in_namespace(|| async {
        let netlink = Netlink::open()?;
        let wanted = names_and_addresses(100)?;
        let devices: Vec<_> = wanted
            .iter()
            .map(|(name, nets)| layer3(name, nets))
            .collect();
        let ends = netlink.create_tunnels(&devices).await?;
        assert_eq!(ends.len(), 100);
        let links = netlink.links().await?;
        let addresses = netlink.addresses().await?;
        for ((user, dataplane), (name, nets)) in ends.iter().zip(&wanted) {
            assert_eq!(user.name, *name);
            assert_eq!(dataplane.name, format!("{name}-dp"));
            for end in [user, dataplane] {
                let link = links.iter().find(|link| link.index == end.index).unwrap();
                assert_eq!((&link.name, link.mac), (&end.name, end.mac));
                assert_eq!(link.kind.as_deref(), Some("veth"));
                assert!(
                    link.is_up() && link.is_ours() && link.mtu == 1476,
                    "{link:?}"
                );
            }
            assert_eq!(user.parent, Some(dataplane.index));
            let address = Address {
                link_index: user.index,
                net: nets[0],
            };
            assert!(addresses.contains(&address), "{name}");
        }
        // Again, over what is there.
        let again = netlink.create_tunnels(&devices).await?;
        assert_ne!(again[0].0.index, ends[0].0.index);
        assert_eq!(netlink.links().await?.len(), 201);

        // One end in a group that somebody gave it.
        run("ip link set tun7 group 1380188160")?;
        let some: Vec<_> = wanted[..50].iter().map(|(name, _)| name.clone()).collect();
        netlink.remove_tunnels(&some).await?;
        assert_eq!(netlink.links().await?.len(), 101);
        netlink.remove_tunnels(&some).await?;
        run("ip link add other type veth peer name other-end")?;
        let removed = netlink.remove_all_tunnels().await?;
        assert_eq!(removed.len(), 50);
        assert!(removed.contains(&"tun99".to_owned()));
        assert_eq!(names(&netlink).await?, ["lo", "other-end", "other"]);
        Ok(())
    })
    .unwrap();
}

#[test]
fn devices_of_others_are_left_alone() {
    in_namespace(|| async {
        let netlink = Netlink::open()?;
        run("ip link add tun1 type veth peer name x")?;
        // In the group that deletion would take if it were free.
        run("ip link set x group 1380188160")?;
        let devices = [layer3("tun0", &[]), layer3("tun1", &[])];
        let error = netlink.create_tunnels(&devices).await.unwrap_err();
        assert!(format!("{error:#}").contains("tun1"), "{error:#}");
        assert_eq!(names(&netlink).await?, ["lo", "x", "tun1"]);

        netlink.create_tunnels(&devices[..1]).await?;
        let both = ["tun0".to_owned(), "tun1".to_owned()];
        let error = netlink.remove_tunnels(&both).await.unwrap_err();
        assert!(format!("{error:#}").contains("tun1"), "{error:#}");
        assert_eq!(names(&netlink).await?, ["lo", "x", "tun1"]);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_failure_takes_back_everything() {
    in_namespace(|| async {
        let netlink = Netlink::open()?;
        let wanted = names_and_addresses(20)?;
        let mut devices: Vec<_> = wanted
            .iter()
            .map(|(name, nets)| layer3(name, nets))
            .collect();
        // At creation: longer than a name may be.
        devices[11].name = "tun0123456789";
        let error = netlink.create_tunnels(&devices).await.unwrap_err();
        assert!(format!("{error:#}").contains("tun0123456789"), "{error:#}");
        assert_eq!(names(&netlink).await?, ["lo"]);
        // At set-up: no interface can have this address.
        let bad = nets(&["ff02::1/64"]);
        devices[11] = layer3("tun11", &bad);
        let error = netlink.create_tunnels(&devices).await.unwrap_err();
        assert!(format!("{error:#}").contains("tun11"), "{error:#}");
        assert_eq!(names(&netlink).await?, ["lo"]);
        Ok(())
    })
    .unwrap();
}

/// The programs' names at the ingress of a device, as `tc` lists them.
fn ingress_programs(device: &str) -> Result<Vec<String>> {
    let list = run(&format!("tc filter show dev {device} ingress"))?;
    let names = list.lines().filter(|line| line.contains("handle"));
    let names = names.map(|line| line.split_whitespace().nth(12).unwrap_or(line).to_owned());
    Ok(names.collect())
}

#[test]
fn one_program_is_at_every_dataplane_end() {
    in_namespace(|| async {
        let netlink = Netlink::open()?;
        let program = egress_program()?;
        let none = netlink.ensure_egress(&program).await.unwrap_err();
        assert!(format!("{none:#}").contains("block"), "{none:#}");

        let devices = [layer3("tun0", &[]), layer3("tun1", &[])];
        netlink.create_tunnels(&devices).await?;
        assert_eq!(ingress_programs("tun0-dp")?, [""; 0]);
        for is_new in [true, false] {
            assert_eq!(netlink.ensure_egress(&program).await?, is_new);
            assert_eq!(ingress_programs("tun0-dp")?, ["tunnel_egress"]);
            assert_eq!(ingress_programs("tun1-dp")?, ["tunnel_egress"]);
        }
        netlink.create_tunnels(&devices[..1]).await?;
        assert_eq!(ingress_programs("tun0-dp")?, ["tunnel_egress"], "made anew");
        netlink.remove_all_tunnels().await?;

        netlink.create_tunnels(&devices).await?;
        assert_eq!(ingress_programs("tun0-dp")?, [""; 0], "it had gone");
        let block = run("tc qdisc show dev tun0-dp")?;
        let mut words = block
            .split_whitespace()
            .skip_while(|word| *word != "ingress_block");
        let block = words.nth(1).context("no block")?;
        run(&format!(
            "tc filter add block {block} pref 7 u32 match u32 0 0"
        ))?;
        let error = netlink.ensure_egress(&program).await.unwrap_err();
        assert!(format!("{error:#}").contains("of others"), "{error:#}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_bridge_port_has_its_cost_and_priority() {
    in_namespace(|| async {
        let netlink = Netlink::open()?;
        let port = TunnelDevice {
            layer2: true,
            bridge: Some(BridgePortSpec {
                bridge: "br0",
                cost: Some(77),
                priority: Some(5),
            }),
            ..layer3("tun0", &[])
        };
        let error = netlink
            .create_tunnels(slice::from_ref(&port))
            .await
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("there is no bridge br0"),
            "{error:#}"
        );
        run("ip link add br0 type veth peer name br0-end")?;
        let error = netlink
            .create_tunnels(slice::from_ref(&port))
            .await
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("br0 is no bridge"),
            "{error:#}"
        );
        run("ip link del br0")?;
        run("ip link add br0 type bridge")?;
        netlink.create_tunnels(&[port]).await?;
        let bridge = netlink.link("br0").await?.unwrap();
        let tunnel = netlink.link("tun0").await?.unwrap();
        assert_eq!(tunnel.controller, Some(bridge.index));
        let shown = run("ip -details link show tun0")?;
        assert!(
            shown.contains("cost 77") && shown.contains("priority 5"),
            "{shown}"
        );
        assert!(!shown.contains("NOARP"), "{shown}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn ends_are_as_their_kind_wants_them() {
    in_namespace(|| async {
        let netlink = Netlink::open()?;
        let v4 = nets(&["10.0.0.1/30"]);
        let v6 = nets(&["10.0.0.5/30", "fd00::1/64"]);
        let devices = [
            TunnelDevice {
                checksums_in_software: true,
                ..layer3("tun0", &v4)
            },
            layer3("tun1", &v6),
            TunnelDevice {
                layer2: true,
                ..layer3("tun2", &[])
            },
            TunnelDevice {
                enabled: false,
                ..layer3("tun3", &[])
            },
            TunnelDevice {
                multicast: true,
                ..layer3("tun4", &[])
            },
        ];
        netlink.create_tunnels(&devices).await?;
        let shown = |name: &str| run(&format!("ip -details link show {name}"));
        let features = |name: &str| run(&format!("ethtool -k {name}"));
        let addresses = |name: &str| run(&format!("ip address show {name}"));

        assert!(shown("tun0")?.contains("NOARP") && !shown("tun0")?.contains("MULTICAST"));
        assert!(shown("tun0")?.contains("gso_max_size 65000"));
        assert!(features("tun0")?.contains("tx-checksumming: off"));
        assert!(features("tun0")?.contains("tx-tcp-segmentation: off"));
        assert!(features("tun0")?.contains("tx-vlan-offload: off"));
        assert!(!addresses("tun0")?.contains("fe80::"));
        assert!(features("tun1")?.contains("tx-checksumming: on"));
        assert!(addresses("tun1")?.contains("fe80::"));
        assert!(!shown("tun2")?.contains("NOARP"));
        assert!(features("tun2")?.contains("tx-vlan-offload: off"));
        assert!(!netlink.link("tun3").await?.unwrap().admin_up);
        assert!(shown("tun4")?.contains("ALLMULTI"));
        for device in devices {
            let end = format!("{}-dp", device.name);
            assert_eq!(run(&format!("ip -6 address show {end}"))?, "");
        }

        netlink.set_offloads("tun1", &[(Offload::Gro, true), (Offload::Tso, false)])?;
        assert!(features("tun1")?.contains("generic-receive-offload: on"));
        assert!(features("tun1")?.contains("tx-tcp-segmentation: off"));
        netlink.set_offloads("tun1", &[(Offload::Gro, false)])?;
        assert!(features("tun1")?.contains("generic-receive-offload: off"));
        assert!(
            netlink
                .set_offloads("nix", &[(Offload::Gro, true)])
                .is_err()
        );
        assert_eq!(netlink.driver("tun1")?, "veth");
        assert!(netlink.link("nix").await?.is_none());
        Ok(())
    })
    .unwrap();
}

/// The egress program has no room for its headers in these, or makes them longer than what is summed.
#[test]
fn what_cannot_be_done_later_is_done_before_it_is_sent() {
    const FEATURES: [&str; 10] = [
        "tx-gre-segmentation",
        "tx-gre-csum-segmentation",
        "tx-udp_tnl-segmentation",
        "tx-udp_tnl-csum-segmentation",
        "tx-ipxip4-segmentation",
        "tx-ipxip6-segmentation",
        "tx-esp-segmentation",
        "tx-sctp-segmentation",
        "tx-checksum-sctp",
        "tx-gso-list",
    ];
    in_namespace(|| async {
        let netlink = Netlink::open()?;
        let devices = [layer3("tun0", &[])];
        let on = || -> Result<Vec<&str>> {
            let shown = run("ethtool -k tun0")?;
            let is_on = |feature: &&str| {
                let line = shown
                    .lines()
                    .find(|line| line.trim().starts_with(&format!("{feature}:")));
                line.is_some_and(|line| !line.contains(": off"))
            };
            Ok(FEATURES.into_iter().filter(is_on).collect())
        };
        netlink.create_tunnels(&devices).await?;
        assert_eq!(on()?, [""; 0]);
        // By hand, while no agent runs.
        let by_hand = FEATURES.map(|feature| format!("{feature} on")).join(" ");
        run(&format!("ethtool -K tun0 {by_hand}"))?;
        assert!(on()?.len() > 5, "{:?}", on()?);
        let pairs = netlink.ensure_tunnels(&devices, |_, _, _| true).await?;
        assert!(pairs[0].kept);
        assert_eq!(on()?, [""; 0]);

        let devices = [TunnelDevice {
            checksums_in_software: true,
            ..layer3("tun0", &[])
        }];
        netlink.create_tunnels(&devices).await?;
        run("ethtool -K tun0 tx on txvlan on")?;
        let is_off = || -> Result<bool> {
            let shown = run("ethtool -k tun0")?;
            let lines = ["tx-checksumming: off", "tx-vlan-offload: off"];
            Ok(lines.iter().all(|line| shown.contains(line)))
        };
        assert!(!is_off()?);
        netlink.ensure_tunnels(&devices, |_, _, _| true).await?;
        assert!(is_off()?);
        Ok(())
    })
    .unwrap();
}

/// Reads changes into `watch` until `finding` is among the findings; all of them.
async fn findings_until(
    monitor: &mut LinkMonitor,
    watch: &mut Watch,
    change: impl Fn(&Change) -> bool,
) -> Result<Vec<Finding>> {
    let mut all = Vec::new();
    while !all.iter().any(|finding: &Finding| change(&finding.change)) {
        let event = timeout(LONG, monitor.next()).await??;
        assert_ne!(event, LinkEvent::Resync);
        all.extend(watch.observe(event));
    }
    Ok(all)
}

#[test]
fn changes_of_an_underlay_are_found() {
    in_namespace(|| async {
        run("ip link add eth0 type veth peer name far")?;
        run("ip link set far up")?;
        run("ip link set eth0 up")?;
        run("ip address add 10.0.1.10/24 dev eth0")?;
        run("ip link add br0 type bridge")?;
        let netlink = Netlink::open()?;
        let mut monitor = LinkMonitor::open()?;
        let dependencies = vec![
            Dependency::Holder("10.0.1.10".parse()?),
            Dependency::Named("tun0".into()),
        ];
        let (links, addresses) = (netlink.links().await?, netlink.addresses().await?);
        let mut watch = Watch::new(dependencies, links, &addresses);
        assert_eq!(watch.link(0).map(|link| &*link.name), Some("eth0"));
        assert_eq!(watch.link(1), None);
        let index = watch.link(0).unwrap().index;

        run("ip link set eth0 mtu 1400")?;
        let found = findings_until(&mut monitor, &mut watch, |change| {
            *change
                == Change::MtuChanged {
                    from: 1500,
                    to: 1400,
                }
        });
        assert_eq!(found.await?.len(), 1);

        // Leaving a bridge is not leaving the system, although the kernel calls both the same.
        run("ip link set eth0 master br0")?;
        run("ip link set eth0 nomaster")?;
        run("ip link set eth0 address 02:00:00:00:00:77")?;
        let found = findings_until(&mut monitor, &mut watch, |change| {
            *change
                == Change::MacChanged {
                    to: [2, 0, 0, 0, 0, 0x77],
                }
        });
        let found = found.await?;
        let (last, before) = found.split_last().context("nothing was found")?;
        assert!(matches!(last.change, Change::MacChanged { .. }));
        assert!(
            before
                .iter()
                .all(|it| it.change == Change::ControllerChanged),
            "{before:?}"
        );

        run("ip link set far down")?;
        findings_until(&mut monitor, &mut watch, |change| *change == Change::Down).await?;
        run("ip link set far up")?;
        findings_until(&mut monitor, &mut watch, |change| *change == Change::Up).await?;

        run("ip link set eth0 down")?;
        run("ip link set eth0 name wan0")?;
        let found = findings_until(
            &mut monitor,
            &mut watch,
            |change| matches!(change, Change::Renamed { from, to } if from == "eth0" && to == "wan0"),
        );
        assert!(found.await?.iter().all(|finding| finding.dependency == 0));

        run("ip link del wan0")?;
        findings_until(&mut monitor, &mut watch, |change| *change == Change::Gone).await?;
        assert_eq!(watch.link(0), None);
        run("ip link add eth0 type veth peer name far")?;
        run("ip address add 10.0.1.10/24 dev eth0")?;
        let found = findings_until(
            &mut monitor,
            &mut watch,
            |change| matches!(change, Change::Reappeared { index: new } if *new != index),
        );
        assert_eq!(found.await?.len(), 1);

        netlink.create_tunnels(&[layer3("tun0", &[])]).await?;
        let found = findings_until(&mut monitor, &mut watch, |change| *change == Change::Up);
        let found = found.await?;
        assert!(
            found.iter().all(|finding| finding.dependency == 1),
            "{found:?}"
        );
        assert!(matches!(found[0].change, Change::Reappeared { .. }));
        netlink.remove_all_tunnels().await?;
        findings_until(&mut monitor, &mut watch, |change| *change == Change::Gone).await?;
        assert_eq!(watch.link(1), None);
        Ok(())
    })
    .unwrap();
}

#[test]
fn changes_that_are_lost_are_not_lost_in_silence() {
    in_namespace(|| async {
        let netlink = Netlink::open()?;
        let mut monitor = LinkMonitor::open()?;
        let wanted = names_and_addresses(1_000)?;
        let devices: Vec<_> = wanted
            .iter()
            .map(|(name, nets)| layer3(name, nets))
            .collect();
        netlink.create_tunnels(&devices).await?;
        while timeout(LONG, monitor.next()).await?? != LinkEvent::Resync {}
        // And it hears again.
        run("ip link set tun0 mtu 1400")?;
        let is_last = |event: &LinkEvent| matches!(event, LinkEvent::New(Link { name, mtu: 1400, .. }) if name == "tun0");
        while !is_last(&timeout(LONG, monitor.next()).await??) {}
        Ok(())
    })
    .unwrap();
}

/// A figure, no verdict: `cargo test --release … -- --ignored --nocapture ten_thousand`.
#[test]
#[ignore = "takes long"]
fn ten_thousand() {
    eprintln!("{:?}", measure(10_000).unwrap());
}

#[test]
fn devices_that_fit_are_kept_and_changed_in_place() {
    in_namespace(|| async {
        let netlink = Netlink::open()?;
        run("ip link add br0 type bridge")?;
        let (a, b) = (nets(&["10.1.0.1/24"]), nets(&["10.2.0.1/24", "fd00::1/64"]));
        let first = [
            layer3("tun0", &a),
            layer3("tun1", &a[..0]),
            layer3("tun2", &[]),
        ];
        let made = netlink.ensure_tunnels(&first, |_, _, _| true).await?;
        assert!(made.iter().all(|pair| !pair.kept), "none was there");
        run("ip address add 10.9.0.1/24 dev tun0")?;
        run("ip link add other type veth peer name other-end")?;

        // tun2 is not named any more.
        let mut bridged = TunnelDevice {
            multicast: true,
            bridge: Some(BridgePortSpec {
                bridge: "br0",
                cost: Some(7),
                priority: None,
            }),
            ..layer3("tun1", &[])
        };
        bridged.enabled = false;
        let second = [layer3("tun0", &b), bridged];
        let mut asked = Vec::new();
        let kept = netlink
            .ensure_tunnels(&second, |position, user, dataplane| {
                asked.push((position, user.name.clone(), dataplane.name.clone()));
                true
            })
            .await?;
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[1], (1, "tun1".to_owned(), "tun1-dp".to_owned()));
        for (now, before) in kept.iter().zip(&made) {
            assert!(now.kept);
            assert_eq!(now.user.index, before.user.index);
            assert_eq!(now.dataplane.index, before.dataplane.index);
        }
        let addresses: Vec<_> = netlink
            .addresses()
            .await?
            .into_iter()
            .filter(|address| address.link_index == made[0].user.index)
            .map(|address| address.net.to_string())
            .filter(|net| !net.starts_with("fe80"))
            .collect();
        // What somebody else added stays.
        assert_eq!(addresses, ["10.9.0.1/24", "10.2.0.1/24", "fd00::1/64"]);
        let port = netlink.link("tun1").await?.unwrap();
        assert_eq!(
            port.controller,
            netlink.link("br0").await?.map(|link| link.index)
        );
        assert!(!port.admin_up);
        assert!(run("ip -details link show tun1")?.contains("ALLMULTI"));
        assert_eq!(
            names(&netlink).await?,
            [
                "lo",
                "br0",
                "tun0-dp",
                "tun0",
                "tun1-dp",
                "tun1",
                "other-end",
                "other"
            ]
        );

        // Out of the bridge and up again; tun0 does not fit any more.
        let third = [layer3("tun0", &a), layer3("tun1", &[])];
        let pairs = netlink
            .ensure_tunnels(&third, |position, _, _| position == 1)
            .await?;
        assert_eq!([pairs[0].kept, pairs[1].kept], [false, true]);
        assert_ne!(pairs[0].user.index, made[0].user.index);
        let port = netlink.link("tun1").await?.unwrap();
        assert_eq!((port.controller, port.admin_up), (None, true));
        Ok(())
    })
    .unwrap();
}
