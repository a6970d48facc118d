use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    time::{Duration, Instant},
};

use super::{Client, ClientError};
use crate::control::{
    server::Limits,
    testing::{Scratch, Serving},
};

#[test]
fn each_question_gets_its_answer() {
    let scratch = Scratch::new();
    let _serving = Serving::at(scratch.socket(), Limits::default());
    let client = Client::new(scratch.socket());
    assert_eq!(client.status().unwrap().node, "vyatta-a");
    assert_eq!(client.tunnels().unwrap()[0].name, "tun00");
    assert_eq!(client.heartbeat().unwrap().len(), 1);
    assert_eq!(client.version().unwrap().protocol, 1);
}

#[test]
fn without_an_agent_the_error_says_how_to_start_it() {
    let scratch = Scratch::new();
    let missing = Client::new(scratch.path().join("missing"));
    let refused = scratch.path().join("refused");
    drop(UnixListener::bind(&refused).unwrap());
    for client in [missing, Client::new(refused)] {
        let error = client.status().unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }));
        assert!(error.to_string().contains("router-agent run --config FILE"));
    }
}

/// An agent that takes one connection and answers with `answer`.
fn impostor(socket: &Path, answer: &'static [u8]) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all(answer).unwrap();
    });
}

fn error_for(answer: &'static [u8]) -> ClientError {
    let scratch = Scratch::new();
    let socket = scratch.path().join("socket");
    impostor(&socket, answer);
    Client::new(socket).status().unwrap_err()
}

#[test]
fn answers_of_others_are_named() {
    let error = error_for(b"{\"version\":2,\"ok\":null}\n");
    assert!(matches!(error, ClientError::OtherVersion { theirs: 2 }));
    assert!(error.to_string().contains("speaks version 2"));

    let error =
        error_for(b"{\"version\":1,\"error\":{\"code\":\"odd\",\"message\":\"no luck\"}}\n");
    assert!(matches!(&error, ClientError::Refused { message } if message == "no luck"));

    for answer in [
        b"HTTP/1.1 400\n".as_slice(),
        b"{\"version\":1,\"ok\":{\"tunnels\":[]}}\n",
        b"{\"version\":1,\"ok\":{\"status\":{}}}\n",
    ] {
        let error = error_for(answer);
        assert!(
            matches!(error, ClientError::NotUnderstood { .. }),
            "{error}"
        );
    }
    for answer in [b"".as_slice(), b"{\"version\":1,\"ok\""] {
        let error = error_for(answer);
        assert!(matches!(error, ClientError::ConnectionClosed), "{error}");
    }
}

#[test]
fn a_silent_agent_is_given_up() {
    let scratch = Scratch::new();
    let socket = scratch.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    // Once while it listens without accepting, once with a full backlog.
    rustix::net::listen(&listener, 0).unwrap();
    let client = Client::new(&socket).with_timeout(Duration::from_millis(100));
    let begun = Instant::now();
    let _waiting = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    for _ in 0..2 {
        let error = client.status().unwrap_err();
        assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}
