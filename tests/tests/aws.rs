//! Two routers and moto, which plays EC2 and the instances' metadata service. Not run by default: it
//! needs moto.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use router_agent::control::protocol::{GroupStatus, MonitorState};
use router_tests::{
    agent::{self, Agent},
    article::{self, CLOUD, ROUTERS, Router},
    aws::{
        Cloud, MOVING, config, interface,
        requests::{Request, Requests},
    },
    cluster::{Fault, PATIENCE},
    lab::Node,
    moto::{self, Keys, Made, Moto, REGION},
    poll,
};
use serde_json::Value;

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];
/// moto is slow on a busy machine.
const SLOW: Duration = Duration::from_mins(1);

/// Longer than the agent takes from an address to its first request.
const UNDER_WAY: Duration = Duration::from_millis(500);

/// `verify-interval` of the configuration.
const VERIFY: Duration = Duration::from_secs(1);

fn formed() -> Cloud {
    formed_with(config)
}

fn formed_with(config: impl Fn(&Made, Router) -> String + 'static) -> Cloud {
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
fn the_source_and_destination_check_is_switched_off_again_while_a_route_is_held() {
    let cloud = formed();
    let node = cloud.cluster.lab.node(CLOUD);
    let own = interface(&cloud.made, PRIMARY);
    assert!(!moto::checks_destinations(node, own).unwrap());
    moto::check_destinations(node, own).unwrap();
    poll::until(SLOW, || {
        ensure!(!moto::checks_destinations(node, own)?, "it drops packets");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cloud.cluster.logs()));
}

/// Nobody stands in the way of its requests, and its agent lives.
#[test]
fn who_handed_over_takes_nothing_back() {
    let cloud = formed();
    let Cloud { cluster, .. } = &cloud;
    let away = ["force", "cluster", "standby"];
    agent::routerctl(cluster.node(PRIMARY), &away).unwrap();
    cluster.settle(SECONDARY).unwrap();
    lead_to(&cloud, SECONDARY);
    poll::throughout(VERIFY * 6, || cloud.all_lead_to(SECONDARY).map(drop))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    cluster.settle(SECONDARY).unwrap();
}

/// One by the name that its interface has here, one as the primary one of the instance.
#[test]
fn region_and_interface_are_found_out_from_the_metadata_service() {
    let found_out = |made: &Made, router| {
        let text = config(made, router);
        let is_stated = |line: &&str| !line.contains("aws aws region");
        let lines = text.lines().filter(is_stated).map(|line| {
            match line.starts_with("set cluster group aws aws interface") {
                true if router == PRIMARY => "set cluster group aws aws interface eth0",
                true => "",
                false => line,
            }
        });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    };
    let mut cloud = formed_with(found_out);
    cloud.cluster.inject(Fault::KillNode, PRIMARY).unwrap();
    lead_to(&cloud, SECONDARY);
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

/// Nobody knows which of its requests were heard.
#[test]
fn an_agent_killed_amid_its_requests_is_made_up_for_by_the_next() {
    let mut cloud = formed();
    cloud.moto.stop().unwrap();
    let cluster = &mut cloud.cluster;
    let requests = Requests::listen(&cluster.lab, SECONDARY).unwrap();
    cluster.inject(Fault::KillNode, PRIMARY).unwrap();
    poll::until(PATIENCE, || {
        let group = cluster.group(SECONDARY)?;
        let held = group.services.iter().filter(|service| service.held);
        ensure!(group.state == "active" && held.count() == 1, "{group:?}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    // They go to a server that stands still.
    sleep(UNDER_WAY);
    cluster.take_agent(SECONDARY).unwrap().kill().unwrap();
    let sent = requests.finish().unwrap();
    assert!(sent.iter().any(Request::moves), "{sent:?}");
    cloud.moto.go_on().unwrap();
    cluster.start_agent(SECONDARY).unwrap();
    lead_to(&cloud, SECONDARY);
    let cluster = &mut cloud.cluster;
    cluster.await_active(SECONDARY, PATIENCE).unwrap();

    // What an agent that died had asked for does not come back.
    cluster.heal(Fault::KillNode, PRIMARY).unwrap();
    lead_to(&cloud, PRIMARY);
    poll::throughout(VERIFY * 6, || cloud.all_lead_to(PRIMARY).map(drop))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cloud.cluster.logs()));
}

/// The policy of docs/aws.md, for any resource: moto does not look at which.
fn documented_policy() -> Value {
    let (_, policy) = include_str!("../../docs/aws.md")
        .split_once("```json\n")
        .unwrap();
    let (policy, _) = policy.split_once("```").unwrap();
    let mut policy: Value = serde_json::from_str(policy).unwrap();
    for statement in policy["Statement"].as_array_mut().unwrap() {
        statement["Resource"] = "*".into();
    }
    policy
}

/// A policy that permits one action less.
fn without(mut policy: Value, action: &str) -> Value {
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements.retain(|statement| statement["Action"] != action);
    for actions in statements.iter_mut().map(|one| &mut one["Action"]) {
        if let Some(actions) = actions.as_array_mut() {
            actions.retain(|permitted| permitted != action);
        }
    }
    policy
}

fn start_with(node: &Node, config: &str, keys: &Keys) -> Agent {
    let Keys { id, secret } = keys;
    let variables = [
        ("AWS_ACCESS_KEY_ID", &**id),
        ("AWS_SECRET_ACCESS_KEY", secret),
    ];
    Agent::start_with(node, config, &variables).unwrap()
}

fn group(node: &Node) -> Result<GroupStatus> {
    agent::status(node)?.groups.pop().context("a group")
}

/// Waits until the node of an agent is in fault for this reason.
fn in_fault(node: &Node, reason: &str) {
    poll::until(SLOW, || {
        let group = group(node)?;
        let errors = errors(&group);
        ensure!(group.state == "fault", "it is {}: {errors}", group.state);
        ensure!(errors.contains(reason), "{errors}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent::log(node)));
}

#[test]
fn the_documented_policy_is_enough_and_what_it_lacks_is_named() {
    let lab = article::lab().unwrap();
    let cloud = lab.node(CLOUD);
    let _moto = Moto::start(cloud).unwrap();
    let made = moto::make(cloud, ROUTERS.map(|router| router.underlay)).unwrap();
    let policy = documented_policy();
    let less = without(policy.clone(), "ec2:ReplaceRoute");
    let no_address = without(policy.clone(), "ec2:AssociateAddress");
    let no_address = moto::user(cloud, "no-address", &no_address.to_string()).unwrap();
    let all = moto::user(cloud, "all", &policy.to_string()).unwrap();
    let less = moto::user(cloud, "less", &less.to_string()).unwrap();
    moto::heed_policies(cloud, true).unwrap();

    let [primary, secondary] = ROUTERS.map(|router| lab.node(router.name));
    let text = config(&made, SECONDARY);
    // While the elastic IP is at nobody's.
    let agent = start_with(secondary, &text, &no_address);
    in_fault(secondary, "let the instance's role do ec2:AssociateAddress");
    assert!(agent.terminate().unwrap().success());

    let _agent = start_with(primary, &config(&made, PRIMARY), &all);
    poll::until(SLOW, || {
        let group = group(primary)?;
        let held = group.services.iter().filter(|service| service.held);
        ensure!(held.count() == 5, "{:?}", group.services);
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent::log(primary)));

    let agent = start_with(secondary, &text, &less);
    in_fault(secondary, "let the instance's role do ec2:ReplaceRoute");
    assert!(agent.terminate().unwrap().success());
    let wrong = Keys {
        secret: "wrong".to_owned(),
        ..all
    };
    let _agent = start_with(secondary, &text, &wrong);
    in_fault(secondary, "the credentials are refused (AuthFailure)");

    moto::heed_policies(cloud, false).unwrap();
    let targets = moto::targets(cloud, &made, MOVING).unwrap();
    assert!(
        targets.all_lead_to(interface(&made, PRIMARY)),
        "{targets:?}"
    );
}
