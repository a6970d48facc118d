//! Agents that end and are started again, under traffic: what the kernel does goes on.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type::BPF_MAP_TYPE_ARRAY};
use router_agent::{
    control::protocol::{MonitorState, Transition},
    dataplane::{DEFAULT_BPFFS, Former, MappedArray},
};
use router_common::{
    identity::{Claim, Epoch, Flags, NodeId},
    map::{LAYOUT_VERSION, name},
};
use router_tests::{
    agent::{self, Agent},
    article::{self, CLIENT, ROUTERS, Router, SERVER_ADDRESS, SERVICES},
    cluster::{Cluster, PATIENCE},
    lab::{Directory, Node},
    other_build::{self, program_tag},
    poll,
    replacing::{
        Lasting, PACKETS, PATIENT, Replace, by_grants, config, formed, formed_with, map_ids,
        none_lost, tunnel, tunnels, under_traffic,
    },
    status::{activation_after, is_active},
};

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];

/// What both nodes have been, and since when. The history outlives their agents; what is done for a state
/// goes on to be added to it.
fn transitions(cluster: &Cluster) -> [Vec<(u64, String, u32)>; 2] {
    ROUTERS.map(|router| {
        let transitions = cluster.group(router).unwrap().transitions.into_iter();
        transitions
            .map(
                |Transition {
                     at_ns, to, epoch, ..
                 }| (at_ns, to, epoch),
            )
            .collect()
    })
}

fn hitless(replace: Replace) {
    hitless_as(config, replace);
}

fn hitless_as(config: fn(Router) -> String, replace: Replace) {
    let mut cluster = formed_with(config);
    let before = ROUTERS.map(|router| Lasting::of(&cluster, router).unwrap());
    let moved = transitions(&cluster);
    let counted = ROUTERS.map(|router| tunnel(cluster.node(router)).unwrap());
    let report = under_traffic(&mut cluster, &ROUTERS, replace);
    none_lost(&report, &cluster);
    assert!(report.sent() >= PACKETS, "{} sent", report.sent());
    nothing_missed_of_the_last_to_be_replaced(&cluster);

    // Nothing has moved, and the group is as it was.
    assert_eq!(transitions(&cluster), moved);
    assert_eq!(
        ROUTERS.map(|router| Lasting::of(&cluster, router).unwrap()),
        before
    );
    // Nothing has begun anew that counts.
    let [a, c] = ROUTERS.map(|router| tunnel(cluster.node(router)).unwrap());
    let sent = report.sent() as u64;
    assert!(a.counter("tx_packets") >= counted[0].counter("tx_packets") + sent);
    assert!(c.counter("rx_packets") >= counted[1].counter("rx_packets") + sent);
    assert!(is_active(&cluster.group(PRIMARY).unwrap()));
}

/// That was the secondary, and the primary's new agent was there to see it. On a slow machine it may have
/// found that the agent was dead for a while; the kernel it has heard all the time.
fn nothing_missed_of_the_last_to_be_replaced(cluster: &Cluster) {
    let findings = cluster.group(PRIMARY).unwrap().findings;
    let misses = |text: &str| text.contains("is silent") || text.contains("does not hear us");
    assert!(
        !findings.iter().any(|finding| misses(&finding.text)),
        "{findings:#?}"
    );
    let session = cluster.session(PRIMARY).unwrap();
    assert_eq!(session.inbound_loss_percent, Some(0.0));
}

#[test]
fn a_killed_agent_that_is_started_again_costs_no_packet_by_grants() {
    hitless_as(by_grants, &|cluster, router| {
        cluster.take_agent(router)?.kill()?;
        cluster.start_agent(router)
    });
}

/// The kernel of a standby whose agent is dead goes on granting, however long.
#[test]
fn the_active_goes_on_by_grants_of_a_standby_without_agent() {
    let mut cluster = formed_with(|router| by_grants(router).replace(PATIENT, ""));
    let before = cluster.group(PRIMARY).unwrap();
    let report = under_traffic(&mut cluster, &[SECONDARY], &|cluster, router| {
        cluster.take_agent(router)?.kill()?;
        poll::until(PATIENCE, || {
            let finding = cluster.group(PRIMARY)?.peer_finding;
            ensure!(finding == "agent-dead", "the peer is {finding}");
            Ok(())
        })?;
        // Many leases.
        thread::sleep(Duration::from_secs(1));
        cluster.start_agent(router)
    });
    none_lost(&report, &cluster);
    let after = cluster.group(PRIMARY).unwrap();
    assert_eq!(after.epoch, before.epoch);
    assert_eq!(after.transitions.len(), before.transitions.len());
}

/// Its fence stays as it is while another of its paths goes on.
#[test]
fn a_group_gets_and_loses_a_heartbeat_path_without_a_lost_packet() {
    let more = Arc::new(Mutex::new(String::new()));
    let of_now = Arc::clone(&more);
    let mut cluster = formed_with(move |router| config(router) + &of_now.lock().unwrap());
    let second = tunnel_lines("tun1", 1, "192.168.1.1/24")
        + "set interfaces tunnel tun1 multicast enable
set cluster interface tun1
";
    let report = under_traffic(&mut cluster, &[PRIMARY, PRIMARY], &|cluster, router| {
        cluster.take_agent(router)?.detach()?;
        let mut more = more.lock().unwrap();
        *more = if more.is_empty() {
            second.clone()
        } else {
            String::new()
        };
        drop(more);
        cluster.start_agent(router)
    });
    none_lost(&report, &cluster);
}

#[test]
fn an_agent_that_detaches_and_is_started_again_costs_no_packet() {
    hitless(&|cluster, router| {
        let status = cluster.take_agent(router)?.detach()?;
        ensure!(status.success(), "{status}");
        cluster.start_agent(router)
    });
}

/// With other programs, which then are the only ones.
fn hitless_by_another_build(config: fn(Router) -> String) {
    let directory = Directory::new().unwrap();
    let program = other_build::write(directory.path()).unwrap();
    hitless_as(config, &|cluster, router| {
        let before = program_tag(cluster.node(router))?;
        let status = cluster.take_agent(router)?.detach()?;
        ensure!(status.success(), "{status}");
        cluster.start_agent_program(&program, router)?;
        cluster.settle(PRIMARY)?;
        let now = program_tag(cluster.node(router))?;
        ensure!(now != before, "the same programs: {now}");
        // Nothing is kept of the other build's.
        let list = "ls -d /sys/fs/bpf/router/v*/programs-*";
        let builds = cluster.node(router).exec(&["sh", "-c", list])?;
        ensure!(builds.lines().count() == 1, "{builds}");
        Ok(())
    });
}

#[test]
fn an_agent_of_another_build_goes_on_without_a_lost_packet() {
    hitless_by_another_build(config);
}

/// The programs that give grants and take them change under the lease.
#[test]
fn an_agent_of_another_build_goes_on_without_a_lost_packet_by_grants() {
    hitless_by_another_build(by_grants);
}

/// Whatever a crash leaves half done, the next one finishes.
#[test]
fn agents_that_are_killed_while_they_start_cost_no_packet() {
    hitless(&|cluster, router| {
        cluster.take_agent(router)?.kill()?;
        for milliseconds in [30, 60, 90, 120, 180, 240] {
            cluster.start_agent(router)?;
            thread::sleep(Duration::from_millis(milliseconds));
            cluster.take_agent(router)?.kill()?;
        }
        cluster.start_agent(router)
    });
}

/// The planted bug: an agent that finds nothing of the one before it, as if it had removed the pins
/// to begin with.
#[test]
fn a_restart_that_begins_anew_loses_packets_and_is_seen() {
    let mut cluster = formed();
    let before = Lasting::of(&cluster, PRIMARY).unwrap();
    let moved = transitions(&cluster);
    let report = under_traffic(&mut cluster, &[PRIMARY], &|cluster, router| {
        cluster.take_agent(router)?.kill()?;
        cluster
            .node(router)
            .exec(&["rm", "-r", "/sys/fs/bpf/router"])?;
        cluster.start_agent(router)
    });
    println!("{} of {} lost", report.missing().len(), report.sent());
    assert!(report.lost() > 0);
    let after = Lasting::of(&cluster, PRIMARY).unwrap();
    assert_ne!(after.maps, before.maps);
    assert_ne!(after.device, before.device);
    assert_ne!(transitions(&cluster), moved);
}

/// Until its monitors have answered, a new agent takes the word of the one before it.
#[test]
fn a_group_with_monitors_stays_where_it_is() {
    let monitor = format!("set cluster group aws monitor {SERVER_ADDRESS}\n");
    let mut cluster = Cluster::start(move |router| config(router) + &monitor).unwrap();
    let active = cluster.settle_any().unwrap();
    let before = transitions(&cluster);
    cluster.take_agent(active).unwrap().kill().unwrap();
    cluster.start_agent(active).unwrap();
    poll::until(PATIENCE, || {
        let group = cluster.group(active)?;
        let state = group.monitors.first().context("no monitor")?.state;
        ensure!(state == MonitorState::Reachable, "the monitor is {state}");
        Ok(())
    })
    .unwrap();
    cluster.settle(active).unwrap();
    assert_eq!(transitions(&cluster), before);
}

/// A tunnel beside the article's.
fn tunnel_lines(name: &str, key: u32, address: &str) -> String {
    let Router { underlay, .. } = PRIMARY;
    let remote = SECONDARY.underlay;
    format!(
        "set interfaces tunnel {name} address '{address}'
set interfaces tunnel {name} encapsulation 'gre'
set interfaces tunnel {name} local-ip '{underlay}'
set interfaces tunnel {name} remote-ip '{remote}'
set interfaces tunnel {name} parameters ip key {key}
"
    )
}

#[test]
fn a_restart_with_another_configuration_changes_what_differs() {
    let lab = article::lab().unwrap();
    let node = lab.node(PRIMARY.name);
    let base = PRIMARY.tunnel_config();
    let before = base.clone()
        + &tunnel_lines("tun1", 1, "192.168.1.1/24")
        + &tunnel_lines("tun2", 2, "192.168.2.1/24")
        + &tunnel_lines("tun3", 3, "192.168.3.1/24")
        + "set interfaces tunnel tun3 parameters ip sequence\n";
    let running = |config: &str| {
        let agent = Agent::start(node, config).unwrap();
        poll::until(PATIENCE, || {
            agent::routerctl(node, &["show", "version"])?;
            tunnels(node)
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", agent::log(node)));
        agent
    };
    let agent = running(&before);
    node.exec(&["ip", "address", "add", "192.168.22.1/24", "dev", "tun2"])
        .unwrap();
    // Counted in tun1, whose place another tunnel gets.
    for tunnel in ["tun00", "tun1"] {
        let _ = node.output(&["ping", "-c1", "-W1", "-I", tunnel, "192.168.1.2"]);
    }
    let counted = counters(node);
    assert!(counted["tun00"] > 0 && counted["tun1"] > 0, "{counted:?}");
    let index = |name| node.interface_index(name);
    let devices = ["tun00", "tun2", "tun3"].map(|name| index(name).unwrap());
    agent.detach().unwrap();

    // What is counted in a new device then is not what its own kernel has to say.
    node.run(|| fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"))
        .unwrap()
        .unwrap();
    let after = base
        + &tunnel_lines("tun2", 20, "192.168.20.1/24")
        + &tunnel_lines("tun3", 3, "192.168.3.1/24")
        + &tunnel_lines("tun4", 4, "192.168.4.1/24");
    let agent = running(&after);
    assert_eq!(index("tun00").unwrap(), devices[0]);
    assert_eq!(index("tun2").unwrap(), devices[1]);
    assert_ne!(
        index("tun3").unwrap(),
        devices[2],
        "it needs another device"
    );
    assert!(index("tun1").is_err());
    let now = counters(node);
    assert!(now["tun00"] >= counted["tun00"], "{now:?}");
    assert_eq!(now["tun4"], 0);
    let text = node.exec(&["ip", "-4", "-brief", "address"]).unwrap();
    for (address, is_there) in [
        ("192.168.1.1/24", false),
        ("192.168.2.1/24", false),
        ("192.168.20.1/24", true),
        ("192.168.22.1/24", true),
        ("192.168.4.1/24", true),
    ] {
        assert_eq!(text.contains(address), is_there, "{address} in {text}");
    }
    for (map, elements) in [("tunnels", 4), ("ends", 8)] {
        let text = agent::routerctl(node, &["maps", "dump", map, "--json"]).unwrap();
        let dump: serde_json::Value = serde_json::from_str(&text).unwrap();
        let entries = dump["entries"].as_array().unwrap();
        assert_eq!(entries.len(), elements, "{map}: {text}");
    }
    let status = agent.terminate().unwrap();
    assert!(status.success(), "{status}");
    for left in ["tun00", "tun2", "tun3", "tun4"] {
        assert!(index(left).is_err(), "{left} is left");
    }
}

#[test]
fn a_service_that_is_not_configured_any_more_is_removed() {
    let mut cluster = formed();
    cluster.take_agent(PRIMARY).unwrap().detach().unwrap();
    let [lan, servers] = SERVICES;
    let line = format!("set cluster group aws service {servers}\n");
    let node = cluster.node(PRIMARY);
    let _agent = Agent::start(node, &config(PRIMARY).replace(&line, "")).unwrap();
    poll::until(PATIENCE, || {
        let text = node.exec(&["ip", "-4", "-brief", "address"])?;
        for (service, is_there) in [(lan, true), (servers, false)] {
            let address = service.rsplit_once('/').context("an interface")?.0;
            ensure!(text.contains(address) == is_there, "{service} in {text}");
        }
        ensure!(agent::log(node).contains("is no service any more"));
        ensure!(is_active(&cluster.group(PRIMARY)?));
        Ok(())
    })
    .unwrap();
}

fn counters(node: &Node) -> BTreeMap<String, u64> {
    let tunnels = tunnels(node).unwrap().into_iter();
    tunnels
        .map(|tunnel| (tunnel.name.clone(), tunnel.counter("tx_packets")))
        .collect()
}

fn pins() -> PathBuf {
    format!("/sys/fs/bpf/router/v{LAYOUT_VERSION}").into()
}

/// The primary's agent is killed, `spoil` happens to what it left, and another one starts. It says
/// `words`, and the pair works.
fn starts_anew(spoil: impl FnOnce(&Node) -> Result<()>, words: &str) {
    let mut cluster = formed();
    let maps = map_ids(cluster.node(PRIMARY)).unwrap();
    cluster.take_agent(PRIMARY).unwrap().kill().unwrap();
    spoil(cluster.node(PRIMARY)).unwrap();
    let began = router_tests::clock::now();
    cluster.start_agent(PRIMARY).unwrap();
    let active = cluster
        .settle_any()
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    let log = agent::log(cluster.node(PRIMARY));
    assert!(log.contains(words), "no {words:?} in {log}");
    assert_ne!(map_ids(cluster.node(PRIMARY)).unwrap(), maps);
    let versions = cluster
        .node(PRIMARY)
        .exec(&["ls", "/sys/fs/bpf/router"])
        .unwrap();
    assert_eq!(versions.trim(), format!("fences\nv{LAYOUT_VERSION}"));
    // The peer was told, and did not have to find out.
    assert_eq!(active, SECONDARY);
    let group = cluster.group(SECONDARY).unwrap();
    let activation = activation_after(&group, began).unwrap();
    assert!(activation.cause.contains("left"), "{}", activation.cause);
    let client = cluster.lab.node(CLIENT);
    poll::until(PATIENCE, || {
        client.exec(&["ping", "-c1", "-W1", SERVER_ADDRESS])?;
        client.exec(&["ping", "-c1", "-W1", PRIMARY.tunnel])
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
}

#[test]
fn pins_of_another_layout_are_given_up_in_order() {
    let other = "/sys/fs/bpf/router/v1000";
    starts_anew(
        |node| node.run(|| fs::rename(pins(), other))?.context("no rename"),
        &format!("it is of layout v1000, and this version has v{LAYOUT_VERSION}"),
    );
}

/// As agents of other versions left them: with other elements, and without what was not yet then.
#[test]
fn what_is_said_in_another_layout_is_taken_back() {
    let lab = article::lab().unwrap();
    let claim = Claim {
        epoch: Epoch(9),
        owner: NodeId::PRIMARY,
    };
    let forwards = Flags::FORWARDING.with(Flags::ELIGIBLE);
    // Claim, generation with flags, sign of life, and whatever else a version had.
    let said = [claim.to_word(), 7 << 32 | u64::from(forwards.0), 1_000];
    let taken_back = [
        Claim {
            owner: NodeId::NONE,
            ..claim
        }
        .to_word(),
        7 << 32,
        1_000,
    ];
    for others in [&[][..], &[5_000], &[5_000, 6, 7]] {
        let elements = u32::try_from(said.len() + others.len()).unwrap();
        lab.node(PRIMARY.name)
            .run(|| -> Result<()> {
                let maps = Path::new(DEFAULT_BPFFS).join("router/v1000/maps");
                fs::create_dir_all(&maps)?;
                let kind = BPF_MAP_TYPE_ARRAY as u32;
                let definition =
                    aya_obj::Map::new_from_params(kind, 4, 8 * elements, 4, BPF_F_MMAPABLE);
                MapData::create(definition, name::LOCAL, None)?.pin(maps.join(name::LOCAL))?;
                let map = MapData::from_pin(maps.join(name::LOCAL))?;
                let words = MappedArray::<u64>::read_write(&map, 4 * elements)?;
                let of_session = |element: u32| element * elements..(element + 1) * elements;
                for (word, value) in of_session(2).zip(said.iter().chain(others)) {
                    words.write(word, value);
                }

                let former = Former::find(Path::new(DEFAULT_BPFFS))?;
                let obstacle = former.obstacle().unwrap_or_default();
                ensure!(obstacle.contains("of layout v1000"), "{obstacle:?}");
                ensure!(former.withdraw()?, "nothing was found");
                let now: Vec<_> = of_session(2).map(|word| words.read(word)).collect();
                ensure!(now[..said.len()] == taken_back, "{now:x?}");
                ensure!(now[said.len()..].iter().all(|word| *word == 0), "{now:x?}");
                ensure!(of_session(1).all(|word| words.read(word) == 0));
                Ok(fs::remove_dir_all(maps)?)
            })
            .unwrap()
            .unwrap();
    }
}

#[test]
fn what_others_put_beside_our_pins_stays() {
    let mut cluster = formed();
    let top = Path::new(DEFAULT_BPFFS).join("router");
    let theirs = [top.join("theirs"), top.join("view")];
    let node = cluster.node(SECONDARY);
    node.run(|| -> Result<()> {
        let kind = BPF_MAP_TYPE_ARRAY as u32;
        let map = aya_obj::Map::new_from_params(kind, 4, 8, 1, 0);
        MapData::create(map, "THEIRS", None)?.pin(&theirs[0])?;
        Ok(fs::create_dir(&theirs[1])?)
    })
    .unwrap()
    .unwrap();
    cluster.take_agent(SECONDARY).unwrap().kill().unwrap();
    for _ in 0..2 {
        cluster.start_agent(SECONDARY).unwrap();
        cluster.settle(PRIMARY).unwrap();
        let agent = cluster.take_agent(SECONDARY).unwrap();
        let status = agent.terminate().unwrap();
        assert!(status.success(), "{status}\n{}", cluster.logs());
    }
    for path in &theirs {
        let words = ["test", "-e", path.to_str().unwrap()];
        cluster.node(SECONDARY).exec(&words).unwrap();
    }
}

#[test]
fn pins_of_another_network_namespace_make_all_anew() {
    starts_anew(
        |node| {
            let script = "cd /sys/fs/bpf/router/v* && mv netns-* netns-1";
            node.exec(&["sh", "-c", script]).map(drop)
        },
        "it is of another network namespace",
    );
}

#[test]
fn a_map_of_another_definition_makes_all_anew() {
    starts_anew(
        |node| {
            node.run(|| {
                let pin = pins().join("maps").join(name::COUNTERS);
                fs::remove_file(&pin)?;
                let kind = BPF_MAP_TYPE_ARRAY as u32;
                let other = aya_obj::Map::new_from_params(kind, 4, 8, 1, 0);
                MapData::create(other, name::COUNTERS, None)?.pin(&pin)?;
                Ok(())
            })?
        },
        "map COUNTERS has another type",
    );
}

#[test]
fn pins_of_which_half_are_missing_make_all_anew() {
    starts_anew(
        |node| {
            node.run(|| {
                for map in name::ALL
                    .into_iter()
                    .filter(|map| *map != name::LOCAL)
                    .step_by(2)
                {
                    fs::remove_file(pins().join("maps").join(map))?;
                }
                Ok(())
            })?
        },
        " is missing",
    );
}

/// A version that was given up long ago, beside the pins that are in use.
#[test]
fn old_pins_beside_ours_are_cleaned_up() {
    let mut cluster = formed();
    let before = Lasting::of(&cluster, PRIMARY).unwrap();
    let node = cluster.node(PRIMARY);
    node.exec(&["mkdir", "-p", "/sys/fs/bpf/router/v1/maps"])
        .unwrap();
    cluster.take_agent(PRIMARY).unwrap().kill().unwrap();
    cluster.start_agent(PRIMARY).unwrap();
    cluster.settle(PRIMARY).unwrap();
    let versions = cluster
        .node(PRIMARY)
        .exec(&["ls", "/sys/fs/bpf/router"])
        .unwrap();
    assert_eq!(versions.trim(), format!("fences\nv{LAYOUT_VERSION}"));
    assert_eq!(Lasting::of(&cluster, PRIMARY).unwrap(), before);
}
