//! The lab itself, on plain kernel forwarding: what it measures and breaks is what it says.

use std::time::Duration;

use router_tests::{
    article,
    lab::{Lab, Node},
    poll,
    traffic::Traffic,
};

const SECOND: Duration = Duration::from_secs(1);

/// The article's network with the gateways' addresses on the primary, by hand.
fn plain_lab() -> Lab {
    let lab = article::lab().unwrap();
    take_over(&lab, article::PRIMARY);
    lab
}

fn take_over(lab: &Lab, router: &str) {
    lab.node(router)
        .ip_batch(&[
            "address add 10.0.0.254/24 dev eth1".into(),
            "address add 10.0.9.254/24 dev eth2".into(),
        ])
        .unwrap();
}

fn ping(lab: &Lab, from: &str, to: &str) -> anyhow::Result<String> {
    lab.node(from).exec(&["ping", "-c", "1", "-W", "1", to])
}

#[test]
fn packets_cross_and_the_report_adds_up() {
    let lab = plain_lab();
    ping(&lab, article::CLIENT, article::SERVER_ADDRESS).unwrap();
    ping(&lab, article::PRIMARY, "10.0.2.10").unwrap();
    let traffic = Traffic::start(
        lab.node(article::CLIENT),
        lab.node(article::SERVER),
        article::SERVER_ADDRESS,
        Duration::from_millis(1),
    )
    .unwrap();
    std::thread::sleep(SECOND / 2);
    let report = traffic.finish().unwrap();
    assert!(report.sent() > 100, "{} sent", report.sent());
    assert_eq!(report.lost(), 0);
    let [a, c] = article::ROUTERS;
    assert!(report.last_from(a.server_side_mac).is_some());
    assert!(report.last_from(c.server_side_mac).is_none());
}

#[test]
fn a_killed_node_is_gone_and_comes_back_empty() {
    let mut lab = plain_lab();
    lab.kill_node(article::PRIMARY).unwrap();
    assert!(ping(&lab, article::CLIENT, "10.0.0.11").is_err());
    assert!(lab.node(article::PRIMARY).exec(&["true"]).is_err());
    lab.reboot(article::PRIMARY).unwrap();
    ping(&lab, article::CLIENT, "10.0.0.11").unwrap();
    ping(&lab, article::SECONDARY, "10.0.1.10").unwrap();
    assert!(ping(&lab, article::CLIENT, "10.0.0.254").is_err());
}

#[test]
fn a_cut_tunnel_cuts_gre_and_nothing_else() {
    let lab = plain_lab();
    let [from, to] = article::ROUTERS;
    let gre_arrives = || {
        let mut capture = lab
            .node(to.name)
            .spawn(
                "tcpdump",
                std::process::Command::new("timeout")
                    .args(["3", "tcpdump", "-ni", "eth0", "-c1", "ip proto 47"])
                    .stderr(std::process::Stdio::null())
                    .stdout(std::process::Stdio::null()),
            )
            .unwrap();
        poll::until(5 * SECOND, || {
            // A raw packet without an inner one: enough to be forwarded.
            send_gre(&lab, from.name, to.underlay);
            anyhow::ensure!(!capture.is_running()?, "tcpdump still waits");
            Ok(())
        })
        .unwrap();
        capture.wait_within(SECOND).unwrap().success()
    };
    assert!(gre_arrives());
    article::cut_tunnel(&lab).unwrap();
    assert!(!gre_arrives());
    ping(&lab, from.name, to.underlay).unwrap();
    article::heal_tunnel(&lab).unwrap();
    article::cut_tunnel_from(&lab, to.name).unwrap();
    assert!(gre_arrives(), "only the other direction is cut");
}

fn send_gre(lab: &Lab, from: &str, to: &str) {
    use rustix::net::{
        AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
    };
    let target = std::net::SocketAddrV4::new(to.parse().unwrap(), 0);
    lab.node(from)
        .run(|| {
            let socket = socket_with(
                AddressFamily::INET,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                Some(ipproto::GRE),
            )?;
            sendto(&socket, &[0, 0, 8, 0], SendFlags::empty(), &target)
        })
        .unwrap()
        .unwrap();
}

#[test]
fn nothing_stays_behind() {
    let lab = plain_lab();
    let directory = lab.directory().to_path_buf();
    let holders: Vec<String> = lab.nodes().map(Node::enter_command).collect();
    drop(lab);
    assert!(!directory.exists());
    for command in holders {
        let pid = command.split_whitespace().nth(2).unwrap();
        assert!(
            !std::path::Path::new("/proc").join(pid).exists(),
            "{command}"
        );
    }
}
