//! Random faults of routers, paths and etcd, under traffic that both routers are offered. `cargo xtask
//! test --chaos` runs many rounds, the ordinary run a few.

use std::{env, thread::sleep, time::Duration};

use anyhow::ensure;
use fastrand::Rng;
use router_tests::{
    article::{self, ROUTERS},
    chaos::{ARBITER_TIMES, Round, Scene, Verdict, config},
    cluster::PATIENCE,
    poll,
    status::is_active,
};

const FEW_ROUNDS: u32 = 6;

/// From the environment, if it names one.
fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_packet_of_an_epoch_follows_the_first_of_a_newer_one() {
    let rounds = number("ROUTER_CHAOS_ROUNDS").unwrap_or(FEW_ROUNDS);
    let seed = number("ROUTER_CHAOS_SEED").unwrap_or_else(|| Rng::new().u64(..));
    println!("chaos: {rounds} rounds, ROUTER_CHAOS_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let mut scene = Scene::with_arbiter(|router| config(router) + ARBITER_TIMES).unwrap();
    let mut outages = Vec::new();
    let mut packets = 0;
    let mut bad = Vec::new();
    for number in 1..=rounds {
        let round = scene.round(&mut random);
        let Round {
            faults,
            verdict,
            without_service,
        } = round.unwrap_or_else(|error| panic!("round {number} of seed {seed}: {error:#}"));
        let names: Vec<_> = faults.iter().map(ToString::to_string).collect();
        let what = names.join(", ");
        println!(
            "{number:4}  {:8.1} ms without service  {what}",
            without_service.as_secs_f64() * 1e3
        );
        packets += verdict.packets;
        outages.push(without_service);
        let Verdict {
            packets: _,
            out_of_turn,
            violations: _,
            unexplained,
        } = verdict;
        if out_of_turn + unexplained > 0 {
            bad.push(format!("round {number}: {what}: {verdict:?}"));
        }
    }
    outages.sort_unstable();
    let at = |percent: usize| outages[(outages.len() - 1) * percent / 100];
    println!(
        "chaos: {packets} packets; without service: median {:?}, 90 % {:?}, longest {:?}",
        at(50),
        at(90),
        at(100)
    );
    assert!(
        packets > 100 * rounds as usize,
        "the oracle saw {packets} packets"
    );
    assert!(
        bad.is_empty(),
        "seed {seed}\n{}\n{}",
        bad.join("\n"),
        scene.cluster.logs()
    );
}

/// The planted defect: without an arbiter both are active while the path between them is cut, and both
/// forward.
#[test]
fn two_that_forward_at_once_are_noticed() {
    let mut scene = Scene::without_arbiter(config).unwrap();
    let traffic = scene.traffic().unwrap();
    sleep(Duration::from_millis(200));
    article::cut_tunnel(&scene.cluster.lab).unwrap();
    poll::until(PATIENCE, || {
        for router in ROUTERS {
            ensure!(
                is_active(&scene.cluster.group(router)?),
                "{} waits",
                router.name
            );
        }
        Ok(())
    })
    .unwrap();
    sleep(Duration::from_millis(300));
    scene.note_epochs();
    let report = traffic.finish().unwrap();
    let verdict = scene.judge(&report);
    assert!(verdict.out_of_turn > 100, "{verdict:?}");
}
