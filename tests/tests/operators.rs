//! What operators may do and see: groups of users, the log, colours, and names that a shell completes.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Instant,
};

use anyhow::ensure;
use router_agent::control::protocol::{LogLine, LogSeverity};
use router_tests::{
    agent::{self, Agent},
    article::{self, ROUTERS, Router},
    cluster::{Cluster, PATIENCE},
    lab::{Lab, Node},
    poll,
    replacing::tunnels,
};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::Deserialize;

const PRIMARY: Router = ROUTERS[0];
const ADMINS: u32 = 4_242;
const READERS: u32 = 4_243;
const NOBODY: u32 = 65_534;
const SOCKET: &str = "/run/router/control.sock";
const GROUPS: &str = "set service control socket-group netadmin
set service control read-only-group netread
";

/// However slow this machine is, an agent begins anew before its peer takes it for dead.
fn config(router: Router) -> String {
    router.article_config() + "set cluster agent-dead-interval 60000\n"
}

/// One agent, whose system has the groups `netadmin` and `netread`.
struct Alone {
    // Before the lab, so that the agent ends before the network does.
    _agent: Agent,
    lab: Lab,
}

impl Alone {
    fn start(config: &str) -> Self {
        let lab = article::lab().unwrap();
        let node = lab.node(PRIMARY.name);
        let groups = node.directory().join("group");
        let text = format!("root:x:0:\nnetadmin:x:{ADMINS}:\nnetread:x:{READERS}:\n");
        fs::write(&groups, text).unwrap();
        let groups = groups.to_str().unwrap();
        node.exec(&["mount", "--bind", groups, "/etc/group"])
            .unwrap();
        let agent = Agent::start(node, config).unwrap();
        agent::await_running(node, PATIENCE).unwrap();
        Self { _agent: agent, lab }
    }

    fn node(&self) -> &Node {
        self.lab.node(PRIMARY.name)
    }
}

/// `routerctl` where any user can reach it, wherever the build is.
fn reachable_routerctl(node: &Node) -> PathBuf {
    let program = node.directory().join("routerctl");
    fs::copy(agent::binary("routerctl").unwrap(), &program).unwrap();
    program
}

/// A user of these groups.
#[derive(Clone, Copy)]
struct User {
    gid: u32,
    further: &'static str,
}

const ADMIN: User = User {
    gid: NOBODY,
    further: "4242",
};
const READER: User = User {
    gid: NOBODY,
    further: "5,4243",
};
const READER_FIRST: User = User {
    gid: READERS,
    further: "5",
};
const STRANGER: User = User {
    gid: NOBODY,
    further: "5",
};

fn as_user(node: &Node, user: User, words: &[&str]) -> Output {
    let program = node.directory().join("routerctl");
    let User { gid, further } = user;
    let [uid, gid, further] = [
        format!("--reuid={NOBODY}"),
        format!("--regid={gid}"),
        format!("--groups={further}"),
    ];
    let mut command = vec!["setpriv", &uid, &gid, &further, program.to_str().unwrap()];
    command.extend(words);
    node.output(&command).unwrap()
}

fn may(node: &Node, user: User, words: &[&str]) {
    let output = as_user(node, user, words);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {text}");
}

fn may_not(node: &Node, user: User, words: &[&str], remedy: &str) {
    let output = as_user(node, user, words);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {text}");
    assert!(text.contains(remedy), "no {remedy:?} in: {text}");
}

fn mode(node: &Node) -> u32 {
    let file = node.run(|| fs::metadata(SOCKET)).unwrap().unwrap();
    file.mode() & 0o7777
}

const LOOKS: [&[&str]; 4] = [
    &["show", "cluster", "status"],
    &["show", "configuration"],
    &["show", "log"],
    &["show", "interfaces", "tunnel", "--json"],
];
const CHANGES: [&[&str]; 7] = [
    &["log", "level", "debug"],
    &["clear", "interfaces", "tunnel", "counters"],
    &["clear", "heartbeat", "counters"],
    &["show", "configuration", "--secrets"],
    &["force", "cluster", "standby"],
    &["rotate-secret", "--finish"],
    &["configure", "rollback"],
];

#[test]
fn members_of_the_two_groups_may_what_they_are_for() {
    let alone = Alone::start(&(config(PRIMARY) + GROUPS));
    let node = alone.node();
    reachable_routerctl(node);
    assert_eq!(mode(node), 0o666);
    for words in LOOKS {
        may(node, READER, words);
        may(node, READER_FIRST, words);
        may_not(node, STRANGER, words, "join netadmin or netread");
    }
    for words in CHANGES {
        may_not(node, READER, words, "join netadmin");
        may_not(node, STRANGER, words, "join netadmin or netread");
    }
    let candidate = node.directory().join("candidate.conf");
    let described = "set interfaces tunnel tun00 description theirs\n";
    fs::write(&candidate, config(PRIMARY) + GROUPS + described).unwrap();
    let apply = ["configure", "apply", candidate.to_str().unwrap()];
    may_not(node, READER, &apply, "join netadmin");
    assert_eq!(tunnels(node).unwrap()[0].description, "");
    for words in &CHANGES[..4] {
        may(node, ADMIN, words);
    }
    may(node, ADMIN, &apply);
    assert_eq!(tunnels(node).unwrap()[0].description, "theirs");
    let secrets = as_user(node, ADMIN, &["show", "configuration", "--secrets"]);
    assert!(String::from_utf8_lossy(&secrets.stdout).contains("cloudpack"));
    let masked = as_user(node, READER, &["show", "configuration"]);
    assert!(!String::from_utf8_lossy(&masked.stdout).contains("cloudpack"));
}

/// Connects until it is turned away, and holds on to all that it was given.
fn occupy() -> Vec<UnixStream> {
    let [nobody, readers] = [NOBODY, READERS];
    let (uid, gid) = (Uid::from_raw(nobody), Gid::from_raw(readers));
    // Of this thread, which ends with this.
    set_thread_groups(&[]).unwrap();
    set_thread_res_gid(gid, gid, gid).unwrap();
    set_thread_res_uid(uid, uid, uid).unwrap();
    let mut held = Vec::new();
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "it is not turned away");
        let mut stream = UnixStream::connect(SOCKET).unwrap();
        stream.set_nonblocking(true).unwrap();
        // A request that does not end keeps its place for five seconds. Who is turned away does not hear it.
        let _ = stream.write(b"{");
        let turned_away = |stream: &mut UnixStream| {
            let mut answer = [0; 1024];
            let length = stream.read(&mut answer).unwrap_or_default();
            String::from_utf8_lossy(&answer[..length]).contains("busy")
        };
        let is_over = held.iter_mut().any(turned_away);
        held.push(stream);
        if is_over {
            return held;
        }
    }
}

#[test]
fn who_may_only_look_keeps_nobody_out_who_may_do_more() {
    let alone = Alone::start(&(config(PRIMARY) + GROUPS));
    let node = alone.node();
    reachable_routerctl(node);
    let held = node.run(occupy).unwrap();
    assert!(held.len() > 64 + 128, "{} are enough", held.len());
    for _ in 0..3 {
        agent::routerctl(node, LOOKS[0]).unwrap();
        may(node, ADMIN, CHANGES[0]);
    }
    drop(held);
    poll::until(PATIENCE, || {
        let output = as_user(node, READER, LOOKS[0]);
        ensure!(output.status.success());
        Ok(())
    })
    .unwrap();
}

#[test]
fn warnings_of_the_configuration_are_lines_of_the_log_and_of_its_form() {
    let lab = article::lab().unwrap();
    let node = lab.node(PRIMARY.name);
    let config = config(PRIMARY) + "set system time-zone UTC\n";
    let path = agent::write_config(node, &config).unwrap();
    let log = fs::File::create(node.directory().join("agent.log")).unwrap();
    let mut command = Command::new(agent::binary("router-agent").unwrap());
    command
        .args(["--log-format", "json", "run", "--config"])
        .arg(path)
        .arg("--history")
        .arg(node.directory().join("history"))
        .stdin(Stdio::null())
        .stderr(log);
    let _agent = node.spawn("router-agent", &mut command).unwrap();
    agent::await_running(node, PATIENCE).unwrap();
    let log = agent::log(node);
    let is_warning = |line: &serde_json::Value| {
        let text = line["message"].as_str().unwrap();
        line["level"] == "WARN" && text.contains("router.conf:") && text.contains("system")
    };
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    assert_eq!(
        lines.iter().filter(|line| is_warning(line)).count(),
        1,
        "{log}"
    );
    let kept = agent::log_about(node, "router_agent").unwrap();
    assert!(
        kept.iter()
            .any(|line| line.message.contains("router.conf:"))
    );
}

#[test]
fn one_group_is_enough_and_groups_change_with_the_configuration() {
    let alone = Alone::start(&config(PRIMARY));
    let node = alone.node();
    reachable_routerctl(node);
    assert_eq!(mode(node), 0o660);
    let status = LOOKS[0];
    may_not(node, ADMIN, status, "member of the group root");
    let apply = |lines: &str| {
        let candidate = node.directory().join("candidate.conf");
        fs::write(&candidate, config(PRIMARY) + lines).unwrap();
        let words = ["configure", "apply", candidate.to_str().unwrap()];
        agent::routerctl_output(node, &words).unwrap()
    };
    let applied = |lines: &str| {
        let output = apply(lines);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}\n{}", agent::log(node));
    };
    applied("set service control socket-group netadmin\n");
    assert_eq!(mode(node), 0o666);
    may(node, ADMIN, CHANGES[0]);
    may_not(node, READER, status, "join netadmin");

    applied("set service control read-only-group netread\n");
    may(node, READER, status);
    may_not(node, READER, CHANGES[0], "`service control socket-group`");
    may_not(node, ADMIN, status, "join netread");

    let refused = apply("set service control socket-group no-such-group\n");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("there is no group no-such-group"), "{text}");
    assert!(text.contains("groupadd"), "{text}");
    may(node, READER, status);
}

/// As where the system's groups come from elsewhere, and later than the agent.
#[test]
fn a_group_that_there_is_not_keeps_no_agent_down() {
    let alone = Alone::start(
        &(config(PRIMARY)
            + "set service control socket-group no-such-group
set service control read-only-group netread
"),
    );
    let node = alone.node();
    reachable_routerctl(node);
    poll::until(PATIENCE, || {
        let log = agent::log(node);
        ensure!(log.contains("there is no group no-such-group"), "{log}");
        Ok(())
    })
    .unwrap();
    may_not(node, ADMIN, LOOKS[0], "join no-such-group or netread");
    poll::until(PATIENCE, || {
        let output = as_user(node, READER, LOOKS[0]);
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_secret_that_is_too_long_is_not_cut() {
    let alone = Alone::start(&config(PRIMARY));
    let node = alone.node();
    reachable_routerctl(node);
    let path = node.directory().join("secret");
    fs::write(&path, "s".repeat(4_097)).unwrap();
    let path = path.to_str().unwrap();
    let output = agent::routerctl_output(node, &["rotate-secret", "--file", path]).unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(path) && text.contains("4096 bytes"), "{text}");
}

fn log_lines(node: &Node, words: &[&str]) -> Vec<LogLine> {
    #[derive(Deserialize)]
    struct Document {
        log: Vec<LogLine>,
    }
    let words = [&["show", "log", "--json"], words].concat();
    let text = agent::routerctl(node, &words).unwrap();
    let Document { log } = serde_json::from_str(&text).unwrap();
    log
}

#[test]
fn the_agent_shows_its_log() {
    let cluster = Cluster::start(config).unwrap();
    cluster.settle(PRIMARY).unwrap();
    let node = cluster.node(PRIMARY);
    let text = agent::routerctl(node, &["show", "log", "--lines", "500"]).unwrap();
    assert!(
        text.lines().any(|line| line.ends_with(": running")),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text}");
    let newest = agent::routerctl(node, &["show", "log", "--lines", "2"]).unwrap();
    assert_eq!(newest.lines().count(), 2);
    assert!(text.ends_with(&newest), "{newest}\nin\n{text}");

    let decisions = log_lines(node, &["cluster"]);
    let is_decision = |line: &&LogLine| line.message.contains(" to Active");
    let activation = decisions.iter().find(is_decision).unwrap();
    assert_eq!(activation.fields["group"], "aws");
    assert!(activation.fields.contains_key("epoch"), "{activation:?}");
    assert!(decisions.iter().all(|line| line.fields["group"] == "aws"));
    let is_debug = |line: &LogLine| line.level == LogSeverity::Debug;
    assert!(!log_lines(node, &[]).iter().any(is_debug));

    // What is logged, however much, has no secret in it; not even that of a change.
    agent::routerctl(node, &["log", "level", "trace"]).unwrap();
    let candidate = node.directory().join("candidate.conf");
    let secret = "set cluster previous-pre-shared-secret an0ther\n";
    fs::write(&candidate, config(PRIMARY) + secret + "set clutser\n").unwrap();
    let apply = ["configure", "apply", candidate.to_str().unwrap()];
    assert!(
        !agent::routerctl_output(node, &apply)
            .unwrap()
            .status
            .success()
    );
    let all = agent::routerctl(node, &["show", "log", "--lines", "1000"]).unwrap();
    for word in ["cloudpack", "an0ther"] {
        assert!(!all.contains(word), "{word} in {all}");
    }

    let warnings = log_lines(node, &["--level", "warn", "--lines", "1000"]);
    assert!(warnings.iter().all(|line| line.level >= LogSeverity::Warn));
}

#[test]
fn a_log_that_is_followed_goes_on_with_the_next_agent() {
    let alone = Alone::start(&config(PRIMARY));
    let node = alone.node();
    let mut command = Command::new(agent::binary("routerctl").unwrap());
    command
        .args(["show", "log", "--follow", "--lines", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut following = node.run(|| command.spawn()).unwrap().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut until = |words: &str| -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let line = lines.next().expect("it goes on").unwrap();
            let is_last = line.contains(words);
            seen.push(line);
            if is_last {
                return seen;
            }
        }
    };
    until("");
    agent::routerctl(node, &["log", "level", "info,mark=debug"]).unwrap();
    until("mark=debug");
    let candidate = node.directory().join("candidate.conf");
    let described = "set interfaces tunnel tun00 description new\n";
    fs::write(&candidate, config(PRIMARY) + described).unwrap();
    agent::routerctl(node, &["configure", "apply", candidate.to_str().unwrap()]).unwrap();
    let seen = until("the new configuration runs");
    let again = seen.iter().any(|line| line.contains("mark=debug"));
    assert!(!again, "{seen:?}");
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn a_terminal_has_colours_and_lines_that_fit() {
    const RED: &str = "\x1b[31m";
    let alone = Alone::start(&config(PRIMARY));
    let node = alone.node();
    let program = agent::binary("routerctl").unwrap();
    let program = program.to_str().unwrap();
    let status = format!("{program} show cluster status");
    let terminal = |before: &str, options: &str| {
        let line = format!("stty cols 50; {before} {status} {options}");
        let output = node
            .output(&["env", "TERM=xterm", "script", "-qec", &line, "/dev/null"])
            .unwrap();
        String::from_utf8(output.stdout).unwrap().replace('\r', "")
    };
    let piped = |options: &[&str]| {
        let words = [&["show", "cluster", "status"], options].concat();
        agent::routerctl(node, &words).unwrap()
    };
    let coloured = terminal("", "");
    assert!(coloured.contains(RED), "{coloured:?}");
    for plain in [terminal("NO_COLOR=1", ""), terminal("", "--color never")] {
        assert!(!plain.contains('\x1b'), "{plain:?}");
        let longest = plain.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(50), "{plain}");
    }
    let plain = piped(&[]);
    assert!(!plain.contains('\x1b'), "{plain:?}");
    let longest = plain.lines().map(|line| line.chars().count()).max();
    assert!(longest > Some(50), "{plain}");
    assert!(piped(&["--color", "always"]).contains(RED));
    assert!(!piped(&["--color", "always", "--json"]).contains('\x1b'));
}

/// What bash offers for the last of these words.
fn offered(node: &Node, words: &[&str]) -> Vec<String> {
    let program = agent::binary("routerctl").unwrap();
    let directory = program.parent().unwrap().to_str().unwrap();
    let script = format!(
        "PATH={directory}:$PATH
source <(COMPLETE=bash routerctl)
COMP_WORDS=(routerctl \"$@\")
COMP_CWORD=$#
COMP_TYPE=9
_clap_complete_routerctl routerctl
printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut command = vec!["bash", "-c", &script, "bash"];
    command.extend(words);
    let text = node.exec(&command).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// What the script of another shell asks the program for, and gets.
fn answered(node: &Node, shell: &str, words: &[&str]) -> Vec<String> {
    let program = agent::binary("routerctl").unwrap();
    let program = program.to_str().unwrap();
    let shell = format!("COMPLETE={shell}");
    let index = format!("_CLAP_COMPLETE_INDEX={}", words.len());
    let mut command = vec!["env", &shell, &index, program, "--", "routerctl"];
    command.extend(words);
    let text = node.exec(&command).unwrap();
    // Behind a name may come what it means.
    let names = text.lines().map(|line| line.split([':', '\t']).next());
    names
        .map(|name| name.unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn shells_complete_the_names_of_what_there_is() {
    let alone = Alone::start(&config(PRIMARY));
    let node = alone.node();
    for (words, expected) in [
        (&["show", "interfaces", "tunnel", ""][..], "tun00"),
        (&["clear", "interfaces", "tunnel", "tu"], "tun00"),
        (&["clear", "interfaces", "tunnel", "tun00", "c"], "counters"),
        (&["clear", "h"], "heartbeat"),
        (&["force", "cluster", "active", "group", ""], "aws"),
        (&["maps", "dump", "tunn"], "tunnels"),
        (&["show", "log", "--level", "w"], "warn"),
        (&["show", "lo"], "log"),
        (&["configure", "help", "clu"], "cluster"),
        (&["configure", "help", "interfaces", "tunnel", ""], "tun00"),
        (
            &["configure", "help", "interfaces", "tunnel", "tun7", "par"],
            "parameters",
        ),
        (&["configure", "help", "cluster", "group", "a"], "aws"),
        (
            &["configure", "help", "cluster", "group", "aws", "prefer", ""],
            "availability",
        ),
    ] {
        let offered = offered(node, words);
        assert!(
            offered.iter().any(|o| o == expected),
            "{words:?}: {offered:?}"
        );
        for shell in ["zsh", "fish"] {
            let answered = answered(node, shell, words);
            let is_there = answered.iter().any(|o| o == expected);
            assert!(is_there, "{shell} {words:?}: {answered:?}");
        }
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = node
            .exec(&[
                "env",
                &format!("COMPLETE={shell}"),
                agent::binary("routerctl").unwrap().to_str().unwrap(),
            ])
            .unwrap();
        assert!(script.contains("COMPLETE"), "{shell}: {script}");
    }
}
