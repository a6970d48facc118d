use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Barrier, mpsc},
    time::Duration,
};

use super::*;
use crate::{
    agent::words::{finding_word, state_word},
    cluster::{PeerFinding, State},
    control::{
        protocol::GroupStatus,
        server::SharedSource,
        testing::{Fixed, fixed},
    },
    metrics::server,
};

#[test]
fn every_metric_is_described_and_ends_well() {
    let text = text(&*fixed()).unwrap();
    for Metric { name, help, .. } in METRICS {
        assert!(text.contains(&format!("# HELP {name} {help}\n")), "{name}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert!(
        text.contains("router_tunnel_up{tunnel=\"tun00\"} 0.0\n"),
        "{text}"
    );
}

/// What the metric of this name says of a group, by its label's value.
fn of_group(name: &str, group: GroupStatus) -> Vec<(String, f64)> {
    let mut snapshot = Snapshot::of(&*fixed());
    snapshot.status.groups = vec![group];
    let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
    let samples = (metric.samples)(&snapshot).into_iter();
    samples
        .map(|Sample { labels, value }| (labels[1].1.clone(), value))
        .collect()
}

/// Of these samples one is 1, and it is `word`'s.
fn only(samples: &[(String, f64)], word: &str) {
    let that_are: Vec<_> = samples.iter().filter(|(_, value)| *value != 0.0).collect();
    assert_eq!(that_are, [&(word.to_owned(), 1.0)], "{samples:?}");
}

#[test]
fn whatever_a_group_is_one_state_and_one_finding_hold() {
    for word in State::ALL.map(state_word) {
        let group = GroupStatus {
            state: word.to_owned(),
            ..GroupStatus::default()
        };
        only(&of_group("router_group_state", group), word);
    }
    for word in PeerFinding::ALL.map(finding_word) {
        let group = GroupStatus {
            peer_finding: word.to_owned(),
            ..GroupStatus::default()
        };
        only(&of_group("router_group_peer", group), word);
    }
}

#[test]
fn names_follow_the_conventions() {
    let histograms = HISTOGRAMS.iter().map(|histogram| histogram.name);
    for name in METRICS.iter().map(|metric| metric.name).chain(histograms) {
        assert!(name.starts_with("router_"), "{name}");
        assert!(!name.ends_with("_total"), "{name}: the library adds that");
        for unit in ["_ms", "_us", "_ns", "percent"] {
            assert!(!name.contains(unit), "{name} has no base unit");
        }
    }
}

/// Starts a server; where.
fn serve(source: SharedSource) -> SocketAddr {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            server::serve(listener, source).await;
        });
    });
    receiver.recv().unwrap()
}

fn ask(server: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What a server of its own answers.
fn asked(request: &str) -> String {
    answer(ask(serve(fixed()), request))
}

#[test]
fn a_scrape_that_takes_its_time_holds_up_no_other() {
    let server = serve(Arc::new(Fixed {
        meeting: Some(Barrier::new(2)),
    }));
    let scrapes = [(); 2].map(|()| ask(server, "GET /metrics HTTP/1.1\r\nHost: router\r\n\r\n"));
    for scrape in scrapes {
        let answer = answer(scrape);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[test]
fn who_goes_before_the_answer_makes_no_room_for_more() {
    let request = "GET /metrics HTTP/1.1\r\nHost: router\r\n\r\n";
    // What is written for one of eight ends when a ninth comes to be written.
    let server = serve(Arc::new(Fixed {
        meeting: Some(Barrier::new(9)),
    }));
    drop([(); 8].map(|()| ask(server, request)));
    let mut ninth = ask(server, request);
    let patience = Duration::from_secs(1);
    ninth.set_read_timeout(Some(patience)).unwrap();
    let mut some = [0];
    assert!(ninth.read(&mut some).is_err(), "it is written");
}

#[test]
fn a_scrape_is_answered_and_nothing_else() {
    let answer = asked("GET /metrics HTTP/1.1\r\nHost: router\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("content-type: application/openmetrics-text"));
    assert!(answer.contains("router_agent_info{node=\"vyatta-a\""));
    let other = asked("GET / HTTP/1.1\r\nHost: router\r\n\r\n");
    assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
    let post = asked("POST /metrics HTTP/1.1\r\nHost: router\r\nContent-Length: 0\r\n\r\n");
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    let nonsense = asked("\x16\x03\x01\r\n\r\n");
    assert!(nonsense.starts_with("HTTP/1.1 400 "), "{nonsense}");
}
