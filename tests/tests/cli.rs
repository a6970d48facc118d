//! What the two programs say when something is not as it should be.

use std::{
    fs,
    io::{self, Write as _},
    process::{Command, Output, Stdio},
};

use router_tests::{
    agent::{self, Agent},
    article::{self, ROUTERS, Router},
    cluster::{Cluster, PATIENCE},
    lab::{Lab, Node, NodeSpec, Topology},
    poll,
};

const PRIMARY: Router = ROUTERS[0];

/// A node with nothing but itself.
fn bare() -> Lab {
    Lab::new(Topology::default().node(NodeSpec::new(article::PRIMARY))).unwrap()
}

fn router_agent(node: &Node, words: &[&str]) -> Output {
    let binary = agent::binary("router-agent").unwrap();
    node.output(&[&[binary.to_str().unwrap()], words].concat())
        .unwrap()
}

/// The program must fail with this code and say all of `expected`.
fn refuses(output: &Output, code: i32, expected: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in expected {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[test]
fn check_tells_all_errors_with_their_places() {
    let lab = bare();
    let node = lab.node(article::PRIMARY);
    let config = PRIMARY
        .article_config()
        .replace("remote-ip '10.0.2.10'", "remote-ip '10.0.2.300'")
        .replace("set cluster interface", "set cluster interfase");
    let path = agent::write_config(node, &config).unwrap();
    let path = path.to_str().unwrap();
    let output = router_agent(node, &["check", path]);
    let [address, word] = ["10.0.2.300", "interfase"].map(|wrong| {
        let (number, line) = (1..)
            .zip(config.lines())
            .find(|(_, line)| line.contains(wrong))
            .unwrap();
        (number, line.find(wrong).unwrap() + 1)
    });
    // The value's column may be that of its quote.
    let address = format!("{path}:{}:", address.0);
    let word = format!("{path}:{}:{}", word.0, word.1);
    refuses(&output, 2, &[&address, &word]);
}

#[test]
fn check_accepts_the_articles_configuration() {
    let lab = bare();
    let node = lab.node(article::PRIMARY);
    for config in [PRIMARY.article_config(), PRIMARY.service_config()] {
        let path = agent::write_config(node, &config).unwrap();
        let output = router_agent(node, &["check", path.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
    }
}

#[test]
fn run_needs_privileges_and_says_so() {
    let lab = bare();
    let node = lab.node(article::PRIMARY);
    let path = agent::write_config(node, &PRIMARY.article_config()).unwrap();
    // Where user nobody can reach it, wherever the build is.
    let directory = node.directory().join("bin");
    fs::create_dir(&directory).unwrap();
    let program = directory.join("router-agent");
    fs::copy(agent::binary("router-agent").unwrap(), &program).unwrap();
    let output = node
        .output(&[
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            program.to_str().unwrap(),
            "run",
            "--config",
            path.to_str().unwrap(),
        ])
        .unwrap();
    refuses(&output, 2, &["root"]);
}

#[test]
fn run_needs_a_bpf_file_system_and_says_so() {
    let lab = bare();
    let node = lab.node(article::PRIMARY);
    let path = agent::write_config(node, &PRIMARY.article_config()).unwrap();
    let path = path.to_str().unwrap();
    let output = router_agent(node, &["run", "--config", path, "--bpffs", "/run"]);
    refuses(&output, 2, &["/run", "mount"]);
}

#[test]
fn run_says_which_address_is_not_local() {
    let lab = bare();
    let node = lab.node(article::PRIMARY);
    let path = agent::write_config(node, &PRIMARY.article_config()).unwrap();
    let output = router_agent(node, &["run", "--config", path.to_str().unwrap()]);
    refuses(&output, 2, &["10.0.1.10", "remedy"]);
}

#[test]
fn a_host_name_that_is_not_the_real_one_is_refused_with_both() {
    let lab = bare();
    let node = lab.node(article::PRIMARY);
    let config = PRIMARY.peer().article_config();
    let path = agent::write_config(node, &config).unwrap();
    let output = router_agent(node, &["check", path.to_str().unwrap()]);
    refuses(&output, 2, &["`vyatta-c`", "`vyatta-a`"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("cloudpack"), "the secret is shown: {text}");
}

#[test]
fn routerctl_without_an_agent_tells_how_to_start_one() {
    let lab = bare();
    let node = lab.node(article::PRIMARY);
    let output = agent::routerctl_output(node, &["show", "cluster", "status"]).unwrap();
    refuses(&output, 1, &["router-agent run"]);
}

#[test]
fn maps_are_readable_when_the_agent_was_killed() {
    let mut cluster = Cluster::start(Router::article_config).unwrap();
    cluster.settle(PRIMARY).unwrap();
    cluster.take_agent(PRIMARY).unwrap().kill().unwrap();
    let node = cluster.node(PRIMARY);
    let list = agent::routerctl(node, &["maps", "list"]).unwrap();
    for name in router_common::map::name::ALL {
        assert!(list.contains(name), "no {name} in: {list}");
    }
    for map in ["tunnels", "slots"] {
        let tunnels = agent::routerctl(node, &["maps", "dump", map]).unwrap();
        assert!(tunnels.contains("10.0.2.10"), "{map}: {tunnels}");
    }
    let secrets = agent::routerctl(node, &["maps", "dump", "session_config"]).unwrap();
    assert!(!secrets.contains("cloudpack"), "{secrets}");
    // The kernel alone still answers the peer's probes.
    let peer = cluster.node(PRIMARY.peer());
    let heartbeat = agent::routerctl(peer, &["show", "heartbeat"]).unwrap();
    assert!(heartbeat.contains("vyatta-a: up"), "{heartbeat}");
}

#[test]
fn what_cannot_be_meant_as_a_secret_is_no_new_one() {
    for (text, reason) in [
        ("***\n", "stands for a secret"),
        ("s3cr3t\r\n", "carriage return"),
        ("s3cr3t\nmore\n", "one line"),
        ("\n", "no secret"),
    ] {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        drop(writer);
        let output = Command::new(agent::binary("routerctl").unwrap())
            .args(["rotate-secret", "--socket", "/nowhere"])
            .stdin(reader)
            .output()
            .unwrap();
        refuses(&output, 1, &[reason]);
    }
}

/// One end of a pipe that nobody reads, as `head` leaves it.
fn nobody() -> Stdio {
    let (_, writer) = io::pipe().unwrap();
    writer.into()
}

#[test]
fn a_reader_that_has_gone_ends_nothing_in_panic() {
    let lab = article::lab().unwrap();
    let node = lab.node(article::PRIMARY);
    let agent = Agent::start(node, &PRIMARY.article_config()).unwrap();
    agent::await_running(node, PATIENCE).unwrap();
    agent.kill().unwrap();
    let config = agent::write_config(node, &PRIMARY.article_config()).unwrap();
    let config = config.to_str().unwrap();
    for words in [
        &["router-agent", "reference"][..],
        &["router-agent", "check", config],
        &["router-agent", "import", "--secrets", config],
        &["routerctl", "configure", "help", "cluster"],
        &["routerctl", "clear", "interfaces", "tunnel", "epochs"],
        &["router-agent", "unload"],
        &["router-agent", "load", "--iface", "eth0"],
    ] {
        let mut command = Command::new(agent::binary(words[0]).unwrap());
        command.args(&words[1..]).stdout(nobody()).stderr(nobody());
        let status = node.run(move || command.status()).unwrap().unwrap();
        assert!(status.success(), "{words:?}: {status}");
    }
    let refused = Command::new(agent::binary("router-agent").unwrap())
        .args(["check", "/nowhere"])
        .stderr(nobody())
        .status();
    assert_eq!(refused.unwrap().code(), Some(2));
}

#[test]
fn a_second_agent_is_refused_and_the_first_lives_on() {
    let cluster = Cluster::start(Router::article_config).unwrap();
    cluster.settle(PRIMARY).unwrap();
    let node = cluster.node(PRIMARY);
    let path = node.directory().join("router.conf");
    let output = router_agent(node, &["run", "--config", path.to_str().unwrap()]);
    assert!(!output.status.success());
    cluster.settle(PRIMARY).unwrap();
}

#[test]
fn the_demo_leaves_nothing_when_it_is_killed() {
    let mut demo = Command::new(agent::binary("router-demo").unwrap())
        .args(["--scene", "article"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let prefix = format!("router-lab-{}-", demo.id());
    let directories = || {
        fs::read_dir(std::env::temp_dir())
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(&prefix))
            .count()
    };
    poll::until(PATIENCE, || {
        anyhow::ensure!(directories() == 1, "no lab yet");
        Ok(())
    })
    .unwrap();
    demo.kill().unwrap();
    demo.wait().unwrap();
    router_tests::lab::sweep().unwrap();
    assert_eq!(directories(), 0);
    let agents = || {
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
            .filter(|line| String::from_utf8_lossy(line).contains(&prefix))
            .count()
    };
    poll::until(PATIENCE, || {
        anyhow::ensure!(agents() == 0, "{} processes are left", agents());
        Ok(())
    })
    .unwrap();
}
