//! etcd as the arbiter: what its client makes of each way in which it can fail, and what routers do
//! then, with real members on a node of their own.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use etcd_client::{Client, ConnectOptions, Permission, PermissionType};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use router_agent::{
    arbiter::{self, Kind, Reply},
    cluster::{Answer, Mode, Record, Request, Revision},
    config,
};
use router_common::identity::{Claim, Epoch, NodeId};
use router_tests::{
    etcd::{Certificates, Etcd},
    lab::{Lab, Node, NodeSpec, Topology},
    poll,
};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(2);
const ADDRESS: &str = "127.0.0.1";
const HOST: &str = "arbiter";
const KEY: &str = "/router/vyatta-a+vyatta-c/aws";

/// One node, which only has itself.
fn lab() -> Lab {
    Lab::new(Topology::default().node(NodeSpec::new(HOST))).unwrap()
}

fn config(endpoints: Vec<String>) -> config::Etcd {
    config::Etcd {
        endpoints,
        tls: None,
        user: None,
        prefix: "/router".to_owned(),
        term: 3 * TIMEOUT,
        timeout: TIMEOUT,
    }
}

fn record(epoch: u32) -> Record {
    Record {
        claim: Claim {
            epoch: Epoch(epoch),
            owner: NodeId::PRIMARY,
        },
        mode: Mode::Paired,
    }
}

fn swap(expected: Option<Revision>, epoch: u32) -> Request {
    Request::Swap {
        expected,
        record: record(epoch),
    }
}

/// Does `work` with a runtime in `node`.
fn within<T: Send>(node: &Node, work: impl AsyncFnOnce() -> T + Send) -> T {
    node.run(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(work())
    })
    .unwrap()
}

/// What requests come to, put one after the other by one client.
fn asked(node: &Node, config: &config::Etcd, requests: &[Request]) -> Vec<Reply> {
    let client = arbiter::client(config).unwrap();
    within(node, async || {
        let mut replies = Vec::new();
        for request in requests {
            replies.push(client.ask(KEY, request).await);
        }
        replies
    })
}

fn ask(node: &Node, config: &config::Etcd, request: &Request) -> Result<Answer> {
    let reply = asked(node, config, std::slice::from_ref(request)).remove(0);
    let failure = |failure: arbiter::Failure| anyhow::anyhow!("{failure:?}");
    reply.outcome.map_err(failure)
}

fn kind(node: &Node, config: &config::Etcd) -> Option<Kind> {
    let reply = asked(node, config, &[Request::Read]).remove(0);
    reply.outcome.err().map(|failure| failure.kind)
}

fn swapped(answer: Answer) -> Revision {
    match answer {
        Answer::Swapped(revision) => revision,
        other => panic!("{other:?}"),
    }
}

/// Puts and empties keys, and does what only an administrator does.
fn administer(node: &Node, url: &str, user: Option<&str>, work: impl AsyncFnOnce(Client) + Send) {
    let options = user.map(|name| ConnectOptions::new().with_user(name, "secret of root"));
    within(node, async || {
        work(Client::connect([url], options).await.unwrap()).await;
    });
}

#[test]
fn a_swap_is_done_once_and_tells_what_stood_in_its_way() {
    let lab = lab();
    let node = lab.node(HOST);
    let mut etcd = Etcd::start(node, ADDRESS, 3).unwrap();
    let config = config(etcd.endpoints());
    let ask = |request: &Request| ask(node, &config, request).unwrap();

    assert_eq!(ask(&Request::Read), Answer::Found(None));
    let first = swapped(ask(&swap(None, 1)));
    assert_eq!(ask(&swap(None, 2)), Answer::Found(Some((first, record(1)))));
    let second = swapped(ask(&swap(Some(first), 1)));
    assert_ne!(first, second, "the same content, written anew");
    assert_eq!(
        ask(&swap(Some(first), 2)),
        Answer::Found(Some((second, record(1))))
    );
    let third = swapped(ask(&swap(Some(second), 2)));
    assert_eq!(ask(&Request::Read), Answer::Found(Some((third, record(2)))));

    // Compaction takes what was before, and nothing of what is.
    administer(node, &etcd.endpoints()[0], None, async |mut client| {
        let now = i64::try_from(third.0.get()).unwrap();
        client.compact(now, None).await.unwrap();
    });
    assert_eq!(ask(&Request::Read), Answer::Found(Some((third, record(2)))));
    assert_eq!(
        ask(&swap(Some(second), 3)),
        Answer::Found(Some((third, record(2))))
    );
    let fourth = swapped(ask(&swap(Some(third), 3)));

    // After a restart of all members it is as it was.
    etcd.kill_all().unwrap();
    assert_eq!(kind(node, &config), Some(Kind::Unreachable));
    etcd.start_all(node).unwrap();
    etcd.await_health(node).unwrap();
    assert_eq!(
        ask(&Request::Read),
        Answer::Found(Some((fourth, record(3))))
    );

    // Whoever loses all it had says so; what that means the core knows.
    etcd.wipe().unwrap();
    etcd.start_all(node).unwrap();
    etcd.await_health(node).unwrap();
    assert_eq!(ask(&Request::Read), Answer::Found(None));

    administer(node, &etcd.endpoints()[0], None, async |mut client| {
        client.put(KEY, "something else", None).await.unwrap();
    });
    assert_eq!(kind(node, &config), Some(Kind::Garbled));
}

#[test]
fn as_long_as_most_members_run_it_answers_and_else_it_says_why_not() {
    let lab = lab();
    let node = lab.node(HOST);
    let mut etcd = Etcd::start(node, ADDRESS, 3).unwrap();
    let config = config(etcd.endpoints());
    let first = swapped(ask(node, &config, &swap(None, 1)).unwrap());

    // Whichever it is, also the leader, and the one that is asked first: it hangs, and then it is dead.
    for member in 0..3 {
        etcd.signal(member, Signal::STOP).unwrap();
        poll::until(PATIENCE, || ask(node, &config, &Request::Read)).unwrap();
        etcd.signal(member, Signal::CONT).unwrap();
        etcd.kill_member(member).unwrap();
        poll::until(PATIENCE, || ask(node, &config, &Request::Read)).unwrap();
        etcd.start_member(node, member).unwrap();
        etcd.await_health(node).unwrap();
    }

    // A minority has no leader.
    etcd.kill_member(0).unwrap();
    etcd.kill_member(1).unwrap();
    poll::until(PATIENCE, || {
        let kind = kind(node, &config);
        ensure!(kind == Some(Kind::NoLeader), "{kind:?}");
        Ok(())
    })
    .unwrap();
    etcd.start_member(node, 0).unwrap();
    let found = poll::until(PATIENCE, || ask(node, &config, &Request::Read)).unwrap();
    assert_eq!(found, Answer::Found(Some((first, record(1)))));
}

#[test]
fn a_slow_one_is_waited_for_and_a_stopped_one_is_not() {
    let lab = lab();
    let node = lab.node(HOST);
    let etcd = Etcd::start(node, ADDRESS, 3).unwrap();
    let config = config(etcd.endpoints());
    let first = swapped(ask(node, &config, &swap(None, 1)).unwrap());

    etcd.signal_all(Signal::STOP).unwrap();
    assert_eq!(kind(node, &config), Some(Kind::TimedOut));
    let replies = std::thread::scope(|scope| {
        let asking = scope.spawn(|| asked(node, &config, &[swap(Some(first), 2)]));
        sleep(TIMEOUT / 4);
        etcd.signal_all(Signal::CONT).unwrap();
        asking.join().unwrap()
    });
    // It may have gone to two members: then one did it, and the other may tell first what it found.
    match replies[0].outcome {
        Ok(Answer::Swapped(_)) => {}
        Ok(Answer::Found(Some((_, found)))) if found == record(2) => {}
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn who_may_not_write_is_refused_and_told_so() {
    let lab = lab();
    let node = lab.node(HOST);
    let mut etcd = Etcd::start(node, ADDRESS, 1).unwrap();
    let url = etcd.endpoints().remove(0);
    administer(node, &url, None, async |client| {
        let mut auth = client.auth_client();
        for (user, password) in [
            ("root", "secret of root"),
            ("router", "secret of router"),
            ("stranger", "secret of stranger"),
        ] {
            auth.user_add(user, password, None).await.unwrap();
        }
        auth.user_grant_role("root", "root").await.unwrap();
        auth.role_add("router").await.unwrap();
        auth.role_grant_permission(
            "router",
            Permission::new(PermissionType::Readwrite, "/router/").with_prefix(),
        )
        .await
        .unwrap();
        auth.user_grant_role("router", "router").await.unwrap();
        auth.auth_enable().await.unwrap();
    });
    let with = |name: &str, password: &str| {
        let file = node.directory().join(format!("password-of-{name}"));
        fs::write(&file, format!("{password}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        config::Etcd {
            user: Some(config::EtcdUser {
                name: name.to_owned(),
                password_file: file,
            }),
            ..config(vec![url.clone()])
        }
    };
    let right = with("router", "secret of router");
    let first = swapped(ask(node, &right, &swap(None, 1)).unwrap());
    for wrong in [
        config(vec![url.clone()]),
        with("router", "a guess"),
        with("nobody", "secret of router"),
        with("stranger", "secret of stranger"),
    ] {
        let reply = asked(node, &wrong, &[Request::Read]).remove(0);
        let failure = reply.outcome.unwrap_err();
        assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
        assert!(!failure.detail.contains("secret of"), "{failure:?}");
    }

    // A token does not outlive the member that gave it; the client asks for another.
    let right = with("router", "secret of router");
    let client = arbiter::client(&right).unwrap();
    let before = within(node, async || client.ask(KEY, &Request::Read).await);
    before.outcome.unwrap();
    etcd.kill_all().unwrap();
    etcd.start_all(node).unwrap();
    etcd.await_health(node).unwrap();
    let found = poll::until(PATIENCE, || ask(node, &right, &Request::Read)).unwrap();
    assert_eq!(found, Answer::Found(Some((first, record(1)))));

    // Who else may read the password is told before anything is asked.
    let file = &right.user.as_ref().unwrap().password_file;
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    let Err(unusable) = arbiter::client(&right) else {
        panic!("a password for everybody is used");
    };
    let words = format!("{unusable}; {}", unusable.remedy());
    assert!(
        words.contains("may be read by everybody; chmod o="),
        "{words}"
    );
}

/// Certificates and keys of one signer, in a directory.
struct Signer {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Signer {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    fn issue(&self, directory: &Path) -> Certificates {
        let mut params = CertificateParams::new(vec![ADDRESS.to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        fs::create_dir_all(directory).unwrap();
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        Certificates {
            ca: write("ca.pem", self.issuer.pem()),
            cert: write("cert.pem", cert.pem()),
            key: write("key.pem", key.serialize_pem()),
        }
    }
}

#[test]
fn by_tls_both_ends_know_whom_they_talk_to() {
    let lab = lab();
    let node = lab.node(HOST);
    let ours = Signer::new();
    let directory = node.directory();
    let server = ours.issue(&directory.join("server"));
    let client = ours.issue(&directory.join("client"));
    let other = Signer::new().issue(&directory.join("other"));
    let etcd = Etcd::start_with_tls(node, ADDRESS, server).unwrap();
    let with = |ca: &Path, identity: Option<&Certificates>| config::Etcd {
        tls: Some(config::Tls {
            ca: ca.to_owned(),
            identity: identity.map(|it| (it.cert.clone(), it.key.clone())),
        }),
        ..config(etcd.endpoints())
    };
    let right = with(&client.ca, Some(&client));
    poll::until(PATIENCE, || ask(node, &right, &Request::Read)).unwrap();
    swapped(ask(node, &right, &swap(None, 1)).unwrap());
    let another_server = with(&other.ca, Some(&client));
    assert_eq!(kind(node, &another_server), Some(Kind::Refused));
    // A server that does not like the client hangs up, as a rule before it has said why.
    for (what, wrong) in [
        ("another client", with(&client.ca, Some(&other))),
        ("a client without a name", with(&client.ca, None)),
    ] {
        let kind = kind(node, &wrong);
        let hung_up = [Some(Kind::Refused), Some(Kind::Unreachable)];
        assert!(hung_up.contains(&kind), "{what}: {kind:?}");
    }
    let plain = config(
        etcd.endpoints()
            .iter()
            .map(|url| url.replace("https", "http"))
            .collect(),
    );
    let failed = kind(node, &plain).context("plain text is taken").unwrap();
    assert_eq!(failed, Kind::Unreachable);
}
