//! The scenes. Each fails as soon as the cluster does not behave.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use router_agent::control::protocol::{GroupStatus, Transition};
use router_common::time::BootTime;

use super::report::{self, Timeline};
use crate::{
    article::{CLIENT, ROUTERS, Router, SERVER, SERVER_ADDRESS},
    aws::{self, Cloud, requests::Requests},
    clock::{self, milliseconds_between},
    cluster::{AGENT_DEAD_INTERVAL, Cluster, Fault, PATIENCE},
    moto::Targets,
    status::{activation_after, release_after},
    traffic::{Arrival, Report, Traffic},
};

const PACKET_INTERVAL: Duration = Duration::from_millis(1);
/// Traffic before a fault and after what follows from it.
const MARGIN: Duration = Duration::from_millis(300);

/// The article's configuration: no service, so the routers' states are what there is to see.
pub fn article(cluster: &mut Cluster, faults: &[Fault]) -> Result<()> {
    form(cluster)?;
    let [a, c] = ROUTERS;
    let ping = ["ping", "-c", "5", "-i", "0.02", "-W", "1", c.tunnel];
    let output = cluster.node(a).exec(&ping)?;
    report::step(format_args!("A ping through the tunnel, from {}", a.name));
    report::quote(&ping.join(" "), &output);
    for &fault in faults {
        let active = cluster.settle_any()?;
        report::step(format_args!("{fault}: {}, the active router", active.name));
        let at = cluster.inject(fault, active)?;
        let group = cluster.await_active(active.peer(), patience(fault))?;
        let activation = activation(&group, at)?;
        timeline(at, fault, active, activation).print();
        expect_no_haste(fault, at, activation)?;
        show(cluster, active.peer())?;
        let after = heal(cluster, fault, active, None)?;
        show(cluster, after)?;
    }
    Ok(())
}

/// Service addresses and traffic that depends on them.
pub fn service(cluster: &mut Cluster, faults: &[Fault], rounds: u32) -> Result<()> {
    form(cluster)?;
    for &fault in faults {
        let mut to_first_packet = Vec::new();
        let mut to_decision = Vec::new();
        for round in 1..=rounds {
            if rounds > 1 {
                report::step(format_args!("{fault}: round {round} of {rounds}"));
            }
            let measured = fail_over(cluster, fault, round == 1)?;
            to_first_packet.extend(measured.to_first_packet);
            to_decision.extend(measured.to_decision);
        }
        if rounds > 1 {
            report::step(format_args!("{fault}, {rounds} rounds"));
            report::spread("fault to first packet by the new router", to_first_packet);
            report::spread("last heard to decided", to_decision);
        }
    }
    Ok(())
}

/// What leads where at AWS. The times of the requests are those of the router that sends them.
pub fn aws(cloud: &mut Cloud, faults: &[Fault]) -> Result<()> {
    let [primary, secondary] = ROUTERS;
    for &fault in faults {
        cloud.cluster.settle(primary)?;
        cloud.cluster.await_active(primary, PATIENCE)?;
        show(&cloud.cluster, primary)?;
        show_targets(cloud, primary)?;
        report::step(format_args!("{fault}: {}, the active router", primary.name));
        let requests = Requests::listen(&cloud.cluster.lab, secondary)?;
        let at = cloud.cluster.inject(fault, primary)?;
        let group = cloud.cluster.await_active(secondary, patience(fault))?;
        let requests = requests.finish()?;
        let activation = activation(&group, at)?;
        let mut rows = timeline(at, fault, primary, activation);
        add_steps(&mut rows, activation);
        let decided = BootTime::from_ns(activation.decided_ns);
        let ours = requests.iter().filter(|it| it.at >= decided && it.moves());
        for (number, request) in ours.enumerate() {
            rows.at(
                request.at,
                format!("request {} to EC2 on the cable", number + 1),
            );
        }
        rows.print();
        expect_no_haste(fault, at, activation)?;
        show_targets(cloud, secondary)?;
        heal(&mut cloud.cluster, fault, primary, None)?;
    }
    Ok(())
}

/// Shows what EC2 says of the route table and the addresses; all must lead to `router`.
fn show_targets(cloud: &Cloud, router: Router) -> Result<()> {
    let Targets {
        ipv4,
        ipv6,
        elastic_ip,
        private_ip,
        others: _,
    } = cloud.all_lead_to(router)?;
    report::step(format_args!(
        "EC2: {} is {}",
        aws::interface(&cloud.made, router),
        router.name
    ));
    for (what, to) in [
        ("route 0.0.0.0/0", ipv4),
        ("route ::/0", ipv6),
        ("elastic IP", elastic_ip),
        ("private address", private_ip.into_iter().next_back()),
    ] {
        report::fact(what, to.unwrap_or_default());
    }
    Ok(())
}

fn add_steps(rows: &mut Timeline, activation: &Transition) {
    for step in &activation.steps {
        match &step.error {
            None => rows.at(BootTime::from_ns(step.done_ns), step.step.clone()),
            Some(error) => report::fact(&step.step, error),
        }
    }
}

struct Measured {
    to_first_packet: Option<Duration>,
    to_decision: Option<Duration>,
}

/// One fault of the primary and its end.
fn fail_over(cluster: &mut Cluster, fault: Fault, in_full: bool) -> Result<Measured> {
    let [primary, _] = ROUTERS;
    let successor = primary.peer();
    cluster.settle(primary)?;
    report::step(format_args!(
        "Traffic from {CLIENT} to {SERVER}, a packet each ms; then {fault}: {}",
        primary.name
    ));
    let traffic = start_traffic(cluster)?;
    thread::sleep(MARGIN);
    let at = cluster.inject(fault, primary)?;
    let group = cluster.await_active(successor, patience(fault))?;
    thread::sleep(MARGIN);
    let packets = traffic.finish()?;

    let activation = activation(&group, at)?;
    let first = packets.first_from(successor.server_side_mac, at);
    let mut rows = timeline(at, fault, primary, activation);
    add_steps(&mut rows, activation);
    rows.at(
        instant(packets.last_from(primary.server_side_mac)),
        format!("last packet through {}", primary.name),
    );
    rows.at(
        instant(first),
        format!("first packet through {}", successor.name),
    );
    rows.print();
    count(&packets);
    expect_no_haste(fault, at, activation)?;
    if in_full {
        show(cluster, successor)?;
    }
    if fault.leaves_the_kernel_alive() {
        println!(
            "\n  The kernel of {} holds the addresses as well, until its agent is back: who was",
            primary.name
        );
        println!("  told of the new place goes there, and so nothing is lost.");
    }
    if fault == Fault::CutTunnel {
        // The client may rightly stay with the first router: both are active.
        both_active(cluster)?;
    } else {
        ensure!(first.is_some(), "no packet came through {}", successor.name);
    }
    heal(cluster, fault, primary, Some(primary))?;
    if in_full {
        show(cluster, primary)?;
    }
    Ok(Measured {
        to_first_packet: first.map(|arrival| arrival.at.since(at)),
        to_decision: decision(activation),
    })
}

/// Waits for the cluster to form and shows it.
fn form(cluster: &Cluster) -> Result<()> {
    let [primary, secondary] = ROUTERS;
    cluster
        .settle(primary)
        .context("the cluster did not form")?;
    show(cluster, primary)?;
    show(cluster, secondary)
}

fn show(cluster: &Cluster, router: Router) -> Result<()> {
    let text = cluster.status_text(router)?;
    report::quote(
        &format!("routerctl show cluster status   # on {}", router.name),
        &text,
    );
    Ok(())
}

fn start_traffic(cluster: &Cluster) -> Result<Traffic> {
    Traffic::start(
        cluster.lab.node(CLIENT),
        cluster.lab.node(SERVER),
        SERVER_ADDRESS,
        PACKET_INTERVAL,
    )
}

/// Undoes the fault and waits until exactly one router is active: `expected`, if the
/// configuration says which. The active one.
fn heal(
    cluster: &mut Cluster,
    fault: Fault,
    router: Router,
    expected: Option<Router>,
) -> Result<Router> {
    report::step(match fault {
        Fault::KillNode => format!("{} boots again", router.name),
        Fault::KillAgent => format!("The agent on {} is started again", router.name),
        Fault::StopAgent => format!("The agent on {} goes on", router.name),
        Fault::CutTunnel => "The path heals".into(),
    });
    let traffic = expected.map(|_| start_traffic(cluster)).transpose()?;
    let at = cluster.heal(fault, router)?;
    let active = match expected {
        Some(expected) => cluster.settle(expected).map(|()| expected),
        None => cluster.settle_any(),
    }
    .with_context(|| format!("after {fault} was healed"))?;
    report::fact("exactly one active, seen after", ms_since(at));
    report::fact("active", active.name);
    if fault == Fault::CutTunnel {
        dual_activity(cluster, at)?;
    }
    if let Some(traffic) = traffic {
        thread::sleep(MARGIN);
        let packets = traffic.finish()?;
        count(&packets);
        ensure!(
            packets.last_from(active.server_side_mac).is_some(),
            "no packet comes through {}",
            active.name
        );
    }
    Ok(active)
}

/// Both routers are active while only the path between them is cut: what `prefer availability`
/// means, and no secret.
fn both_active(cluster: &Cluster) -> Result<()> {
    for router in ROUTERS {
        cluster.await_active(router, PATIENCE)?;
    }
    println!("\n  Both routers are active now. Each is alive, neither can know that of the other,");
    println!("  and the default, `prefer availability`, rather has two than none.");
    Ok(())
}

/// How long both were active, by their own histories.
fn dual_activity(cluster: &Cluster, healed: BootTime) -> Result<()> {
    let groups = ROUTERS
        .into_iter()
        .map(|router| cluster.group(router))
        .collect::<Result<Vec<_>>>()?;
    let begin = groups
        .iter()
        .flat_map(|group| &group.transitions)
        .filter(|change| change.to == "active" && change.at_ns < healed.as_ns())
        .map(|change| change.at_ns)
        .max();
    let end = groups
        .iter()
        .filter_map(|group| release_after(group, healed))
        .map(|change| change.at_ns)
        .min();
    let label = "both were active for";
    match (begin, end) {
        (Some(begin), Some(end)) => {
            let span = BootTime::from_ns(end).since(BootTime::from_ns(begin));
            report::fact(label, format!("{:.1} ms", span.as_secs_f64() * 1e3));
        }
        _ => report::fact(label, "not measured"),
    }
    Ok(())
}

fn count(packets: &Report) {
    report::fact("packets sent", packets.sent());
    report::fact("packets received", packets.received());
    report::fact("packets lost", packets.lost());
    if let Some(gap) = packets.longest_gap() {
        let length = milliseconds_between(gap.from, gap.to);
        report::fact("longest silence", format!("{length:.2} ms"));
    }
}

fn timeline(at: BootTime, fault: Fault, router: Router, activation: &Transition) -> Timeline {
    let mut rows = Timeline::from(at, format!("{fault}: {}", router.name));
    rows.at(
        BootTime::from_ns(activation.last_heard_ns),
        format!("last heard by {}", router.peer().name),
    );
    rows.at(
        BootTime::from_ns(activation.decided_ns),
        format!("decided by {}", router.peer().name),
    );
    rows
}

fn decision(activation: &Transition) -> Option<Duration> {
    let heard = BootTime::from_ns(activation.last_heard_ns);
    (!heard.is_never()).then(|| BootTime::from_ns(activation.decided_ns).since(heard))
}

/// When a packet arrived; "never" if none did.
fn instant(arrival: Option<Arrival>) -> BootTime {
    arrival.map_or(BootTime::NEVER, |arrival| arrival.at)
}

fn activation(group: &GroupStatus, after: BootTime) -> Result<&Transition> {
    activation_after(group, after).context("the history does not tell of the activation")
}

/// While the kernel of a router whose agent is gone still forwards, nothing may move before
/// the agent's interval is over.
fn expect_no_haste(fault: Fault, at: BootTime, activation: &Transition) -> Result<()> {
    let took = BootTime::from_ns(activation.at_ns).since(at);
    ensure!(
        !fault.leaves_the_kernel_alive() || took + SLACK >= AGENT_DEAD_INTERVAL,
        "taken over {took:?} after the agent was gone, before {AGENT_DEAD_INTERVAL:?} had passed"
    );
    Ok(())
}

/// The agent's last sign of life may lie this long before the fault.
const SLACK: Duration = Duration::from_millis(100);

fn patience(fault: Fault) -> Duration {
    if fault.leaves_the_kernel_alive() {
        PATIENCE + AGENT_DEAD_INTERVAL
    } else {
        PATIENCE
    }
}

fn ms_since(instant: BootTime) -> String {
    format!("{:.1} ms", milliseconds_between(instant, clock::now()))
}
