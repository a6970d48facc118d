//! Heartbeats of a running pair: the secret changes under them, and what was said once is not believed
//! again.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use router_agent::control::protocol::{GateState, HeartbeatStatus, Transition};
use router_tests::{
    agent,
    article::{self, CLOUD, ROUTERS, Router},
    capture::Capture,
    cluster::{Cluster, PATIENCE},
    poll,
    talk::send_frame,
};

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];
const TIMING: &str = "
set cluster keepalive-interval 10
set cluster dead-interval 100
";
const NEW: &str = "a-new-secret-of-both";

fn config(router: Router) -> String {
    router.article_config() + TIMING
}

fn formed(config: impl Fn(Router) -> String + 'static) -> Cluster {
    let cluster = Cluster::start(config).unwrap();
    cluster.settle(PRIMARY).unwrap();
    cluster
}

fn transitions(cluster: &Cluster) -> Vec<Vec<Transition>> {
    ROUTERS
        .map(|router| cluster.group(router).unwrap().transitions)
        .to_vec()
}

fn rotate(cluster: &Cluster, router: Router, words: &[&str]) -> Result<String> {
    agent::routerctl(cluster.node(router), &[&["rotate-secret"], words].concat())
}

/// Begins the change on a router.
fn begin(cluster: &Cluster, router: Router) -> Result<String> {
    let file = cluster.node(router).directory().join("secret");
    fs::write(&file, format!("{NEW}\n"))?;
    rotate(
        cluster,
        router,
        &["--file", file.to_str().context("UTF-8")?],
    )
}

/// The configuration with other secrets and some more lines.
fn stating(router: Router, secrets: &str, lines: &str) -> String {
    config(router).replace("set cluster pre-shared-secret cloudpack", secrets) + lines
}

fn both_secrets() -> String {
    format!("set cluster pre-shared-secret {NEW}\nset cluster previous-pre-shared-secret cloudpack")
}

fn apply(cluster: &Cluster, router: Router, text: &str) -> Result<String> {
    let file = cluster.node(router).directory().join("candidate.conf");
    fs::write(&file, text)?;
    let path = file.to_str().context("UTF-8")?;
    agent::routerctl(cluster.node(router), &["configure", "apply", path])
}

fn progress(cluster: &Cluster, router: Router, expected: &str) {
    poll::until(PATIENCE, || {
        let session = cluster.session(router)?;
        ensure!(
            session.secret_rotation == expected,
            "{} is at {}",
            router.name,
            session.secret_rotation
        );
        Ok(())
    })
    .unwrap();
}

#[test]
fn each_node_shows_what_it_grants_and_what_the_other_says() {
    let cluster = formed(|router| config(router) + "set cluster group aws prefer consistency\n");
    let epoch = cluster.group(PRIMARY).unwrap().epoch;
    poll::until(PATIENCE, || {
        let active = cluster.session(PRIMARY)?;
        let standby = cluster.session(SECONDARY)?;
        for (of, epoch_heard) in [(&active, active.peer_epoch), (&standby, standby.peer_epoch)] {
            ensure!(epoch_heard == epoch, "{of:?}");
            ensure!(of.peer_owner.as_deref() == Some(PRIMARY.name), "{of:?}");
        }
        ensure!(
            standby.peer_flags.contains(&"forwarding".into()),
            "{standby:?}"
        );
        ensure!(
            !active.peer_flags.contains(&"forwarding".into()),
            "{active:?}"
        );
        // The standby grants, and is bound by it; the active counts that.
        ensure!(
            standby.granting_us > 0 && standby.promised_ms > 0.0,
            "{standby:?}"
        );
        ensure!(standby.grants_given > 0, "{standby:?}");
        ensure!(active.granting_us == 0, "{active:?}");
        ensure!(active.fence.gate == GateState::Open, "{active:?}");
        ensure!(active.fence.epoch == epoch, "{active:?}");
        ensure!(active.fence.grants_counted > 0, "{active:?}");
        ensure!(standby.fence.gate == GateState::Closed, "{standby:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_secret_changes_on_both_nodes_without_a_missed_heartbeat() {
    for order in [[PRIMARY, SECONDARY], [SECONDARY, PRIMARY]] {
        let [first, second] = order;
        let cluster = formed(config);
        let before = transitions(&cluster);
        begin(&cluster, first).unwrap();
        progress(&cluster, first, "peer-lacks-it");
        let refusal = rotate(&cluster, first, &["--finish"]).unwrap_err();
        assert!(
            format!("{refusal:#}").contains("does not use the new secret yet"),
            "{refusal:#}"
        );
        let status = cluster.status_text(first).unwrap();
        assert!(status.contains("two secrets are accepted"), "{status}");

        let text = begin(&cluster, second).unwrap();
        assert!(text.contains("previous-pre-shared-secret"), "{text}");
        for router in order {
            progress(&cluster, router, "both-use-it");
        }
        for router in order {
            let refusal = rotate(&cluster, router, &["--finish"]).unwrap_err();
            let refusal = format!("{refusal:#}");
            assert!(
                refusal.contains("does not state the new secret"),
                "{refusal}"
            );
            apply(&cluster, router, &stating(router, &both_secrets(), "")).unwrap();
            rotate(&cluster, router, &["--finish"]).unwrap();
            progress(&cluster, router, "none");
            let alone = format!("set cluster pre-shared-secret {NEW}");
            apply(&cluster, router, &stating(router, &alone, "")).unwrap();
        }
        // Some more under the new one alone.
        for router in order {
            let replies = cluster.session(router).unwrap().replies_received;
            poll::until(PATIENCE, || {
                ensure!(cluster.session(router)?.replies_received > replies + 20);
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(transitions(&cluster), before, "nobody noticed");
        for router in order {
            let session = cluster.session(router).unwrap();
            assert_eq!(session.mac_failures, 0, "{}", router.name);
            assert_eq!(session.inbound_loss_percent, Some(0.0), "{}", router.name);
            assert_eq!(
                session.round_trip_loss_percent,
                Some(0.0),
                "{}",
                router.name
            );
            let dump = agent::routerctl(cluster.node(router), &["maps", "dump", "session_config"]);
            let said = agent::log(cluster.node(router)) + &dump.unwrap();
            assert!(
                said.contains("pre-shared secret is being changed"),
                "{said}"
            );
            assert!(!said.contains(NEW), "{said}");
        }
    }
}

#[test]
fn an_agent_may_restart_in_the_middle_of_the_change() {
    let stated = Arc::new(Mutex::new(String::new()));
    let of_now = Arc::clone(&stated);
    let mut cluster = formed(move |router| match &**of_now.lock().unwrap() {
        "" => config(router),
        changed => config(router).replace("set cluster pre-shared-secret cloudpack", changed),
    });
    for router in ROUTERS {
        begin(&cluster, router).unwrap();
    }
    progress(&cluster, PRIMARY, "both-use-it");
    for secrets in [
        // The operator had not written it down yet: the peer goes back to what this one has.
        "set cluster pre-shared-secret cloudpack".to_owned(),
        both_secrets(),
    ] {
        stated.lock().unwrap().clone_from(&secrets);
        cluster.take_agent(SECONDARY).unwrap().terminate().unwrap();
        cluster.start_agent(SECONDARY).unwrap();
        cluster.settle(PRIMARY).unwrap();
    }
    for router in ROUTERS {
        progress(&cluster, router, "both-use-it");
        apply(&cluster, router, &stating(router, &both_secrets(), "")).unwrap();
        rotate(&cluster, router, &["--finish"]).unwrap();
    }
    cluster.settle(PRIMARY).unwrap();
}

/// Whatever the configuration stated when the agent started.
#[test]
fn a_change_goes_by_the_secret_that_is_in_force() {
    const OTHER: &str = "set interfaces tunnel tun00 description other\n";
    let cluster = formed(config);
    let before = transitions(&cluster);
    for router in ROUTERS {
        begin(&cluster, router).unwrap();
    }
    for router in ROUTERS {
        progress(&cluster, router, "both-use-it");
        rotate(&cluster, router, &["--finish", "--force"]).unwrap();
    }
    let alone = format!("set cluster pre-shared-secret {NEW}");
    for router in ROUTERS {
        let refused = |text: &str, why: &str| {
            let refusal = format!("{:#}", apply(&cluster, router, text).unwrap_err());
            assert!(refusal.contains(why), "{refusal}");
            assert!(!refusal.contains(NEW), "{refusal}");
        };
        // The file still states the old one, which the peer has given up.
        refused(&(config(router) + OTHER), "would not understand");
        refused(&config(router), "would not understand");
        refused(&stating(router, &alone, OTHER), "nothing else changed");
        apply(&cluster, router, &stating(router, &alone, "")).unwrap();
        apply(&cluster, router, &stating(router, &alone, OTHER)).unwrap();
        cluster.settle(PRIMARY).unwrap();
    }
    for router in ROUTERS {
        let session = cluster.session(router).unwrap();
        assert_eq!(session.mac_failures, 0, "{}", router.name);
        assert_eq!(session.secret_rotation, "none", "{}", router.name);
    }
    let epoch = |of: &[Vec<Transition>]| of[0].last().map(|last| last.epoch);
    let known = cluster.group(PRIMARY).unwrap().epoch;
    assert_eq!(Some(known), epoch(&before), "nobody noticed");
}

#[test]
fn only_root_changes_the_secret() {
    let cluster = formed(config);
    let node = cluster.node(PRIMARY);
    let routerctl = agent::binary("routerctl").unwrap();
    // A member of the socket's group, who may ask. The program may lie where only root can go.
    let run = |words: &str| {
        let script = format!(
            "exec setpriv --reuid=65534 --regid=0 --clear-groups /proc/self/fd/9 {words} 9<{}",
            routerctl.display()
        );
        node.exec(&["sh", "-c", &script])
    };
    run("show version").unwrap();
    let refusal = run("rotate-secret --finish").unwrap_err();
    let refusal = format!("{refusal:#}");
    assert!(refusal.contains("only root"), "{refusal}");
}

/// The heartbeats that were on their way to a router.
fn bound_for(frames: &[Vec<u8>], router: Router) -> Vec<Vec<u8>> {
    const HEARTBEAT: usize = 146;
    let zone = if router == PRIMARY { 1 } else { 2 };
    let mac = [2, 0, 0, 0, zone, 0x0a];
    frames
        .iter()
        .filter(|frame| frame.starts_with(&mac) && frame.len() == HEARTBEAT)
        .cloned()
        .collect()
}

fn refused(session: &HeartbeatStatus) -> u64 {
    session.stale + session.unproven
}

#[test]
fn a_recorded_session_is_not_believed_after_either_agent_restarted() {
    const FRAMES: u32 = 120;
    let mut cluster = formed(config);
    let captures = ROUTERS.map(|router| {
        let cloud = cluster.lab.node(CLOUD);
        Capture::start(
            cloud,
            article::cloud_interface(router.name),
            "ip proto 47",
            FRAMES,
        )
        .unwrap()
    });
    let recorded = captures.map(|mut capture| {
        capture.wait_within(PATIENCE).unwrap();
        capture.finish().unwrap()
    });
    let recorded = [
        bound_for(&recorded[0], PRIMARY),
        bound_for(&recorded[1], SECONDARY),
    ];
    for restarted in ROUTERS {
        cluster.take_agent(restarted).unwrap().kill().unwrap();
        cluster.start_agent(restarted).unwrap();
        cluster.settle_any().unwrap();
        let before = transitions(&cluster);
        for (router, frames) in ROUTERS.into_iter().zip(&recorded) {
            assert!(frames.len() > 40, "{} frames", frames.len());
            let known = cluster.session(router).unwrap();
            let interface = article::cloud_interface(router.name);
            for frame in frames {
                send_frame(cluster.lab.node(CLOUD), interface, frame).unwrap();
            }
            poll::until(PATIENCE, || {
                let now = cluster.session(router)?;
                let more = refused(&now) - refused(&known);
                ensure!(
                    more >= frames.len() as u64,
                    "{more} of {} refused",
                    frames.len()
                );
                Ok(())
            })
            .unwrap();
            let after = cluster.session(router).unwrap();
            assert_eq!(after.peer_generation, known.peer_generation);
            assert_eq!(after.mac_failures, 0);
        }
        poll::throughout(Duration::from_millis(300), || {
            ensure!(transitions(&cluster) == before, "there was a transition");
            Ok(())
        })
        .unwrap();
        for router in ROUTERS {
            assert_eq!(cluster.group(router).unwrap().peer_finding, "alive");
        }
    }
}
