//! Two routers and moto, which plays EC2 and the instances' metadata service. Not run by default: it
//! needs moto.

use std::time::Duration;

use anyhow::ensure;
use router_agent::control::protocol::{GroupStatus, MonitorState};
use router_tests::{
    article::{CLOUD, ROUTERS, Router},
    aws::{Cloud, config, interface},
    cluster::{Fault, PATIENCE},
    moto::{self, REGION},
    poll,
};

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];
/// moto is slow on a busy machine.
const SLOW: Duration = Duration::from_mins(1);

fn formed() -> Cloud {
    let cloud = Cloud::start(config).unwrap();
    let settled = poll::until(SLOW, || {
        cloud.cluster.settle(PRIMARY)?;
        cloud.all_lead_to(PRIMARY)
    });
    settled.unwrap_or_else(|error| panic!("{error:#}\n{}", cloud.cluster.logs()));
    cloud
}

fn lead_to(cloud: &Cloud, router: Router) {
    poll::until(SLOW, || cloud.all_lead_to(router))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cloud.cluster.logs()));
}

fn errors(group: &GroupStatus) -> String {
    let errors = group.services.iter().filter_map(|s| s.error.clone());
    errors.collect::<Vec<_>>().join("\n")
}

#[test]
fn all_at_aws_follows_the_active() {
    let mut cloud = formed();
    let others = cloud.targets().unwrap().others;
    cloud.cluster.inject(Fault::KillNode, PRIMARY).unwrap();
    lead_to(&cloud, SECONDARY);
    let group = cloud.cluster.await_active(SECONDARY, PATIENCE).unwrap();
    assert_eq!(group.services.len(), 5, "{:?}", group.services);
    // What the configuration does not name stays as it is.
    assert_eq!(cloud.targets().unwrap().others, others);
}

#[test]
fn what_somebody_else_changes_is_taken_again() {
    let cloud = formed();
    let other = interface(&cloud.made, SECONDARY);
    let node = cloud.cluster.lab.node(CLOUD);
    moto::interfere(node, &cloud.made, other).unwrap();
    lead_to(&cloud, PRIMARY);
}

#[test]
fn a_node_that_could_not_take_over_is_no_standby_and_says_why() {
    let wrong_region = |made: &_, router| {
        let text = config(made, router);
        if router == SECONDARY {
            text.replace(REGION, "eu-west-2")
        } else {
            text
        }
    };
    let cloud = Cloud::start(wrong_region).unwrap();
    let refused = poll::until(SLOW, || {
        let group = cloud.cluster.group(SECONDARY)?;
        ensure!(
            group.state == "fault",
            "it is {}: {}",
            group.state,
            errors(&group)
        );
        let last = group.monitors.last().map(|monitor| monitor.state);
        ensure!(last == Some(MonitorState::Unreachable), "{last:?}");
        Ok(errors(&group))
    });
    let refused = refused.unwrap_or_else(|error| panic!("{error:#}\n{}", cloud.cluster.logs()));
    assert!(
        refused.contains("does not exist (region eu-west-2)"),
        "{refused}"
    );
    lead_to(&cloud, PRIMARY);
}

#[test]
fn an_api_out_of_reach_keeps_nobody_from_being_active() {
    let mut cloud = formed();
    cloud.moto.kill().unwrap();
    let cluster = &mut cloud.cluster;
    cluster.inject(Fault::KillNode, PRIMARY).unwrap();
    let active = poll::until(PATIENCE, || {
        let group = cluster.group(SECONDARY)?;
        ensure!(group.state == "active", "it is {}", group.state);
        let [address, at_aws @ ..] = &*group.services else {
            panic!("{:?}", group.services);
        };
        ensure!(address.held && at_aws.iter().all(|s| !s.held && s.error.is_some()));
        Ok(errors(&group))
    })
    .unwrap();
    assert!(active.contains("cannot be reached"), "{active}");
    poll::throughout(Duration::from_secs(2), || {
        let state = cluster.group(SECONDARY)?.state;
        ensure!(state == "active", "it is {state}");
        Ok(())
    })
    .unwrap();
}
