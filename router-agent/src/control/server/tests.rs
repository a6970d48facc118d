use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    num::NonZeroUsize,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    sync::Barrier,
    time::Duration,
};

use super::{Limits, bind};
use crate::config::Secret;
use crate::control::{
    client::Client,
    permission::Access,
    protocol::{Body, Configuring, FailureCode, Outcome, Response},
    testing::{Scratch, Serving},
};

const SHORT: Duration = Duration::from_millis(150);

fn connect(scratch: &Scratch) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(scratch.socket()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    BufReader::new(stream)
}

fn ask(stream: &mut BufReader<UnixStream>, request: &[u8]) -> Response {
    stream.get_mut().write_all(request).unwrap();
    read(stream)
}

fn read(stream: &mut BufReader<UnixStream>) -> Response {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn code(response: &Response) -> FailureCode {
    match &response.outcome {
        Outcome::Ok(body) => panic!("not refused: {body:?}"),
        Outcome::Error(failure) => failure.code,
    }
}

fn is_status(response: &Response) -> bool {
    matches!(&response.outcome, Outcome::Ok(Body::Status(status)) if status.node == "vyatta-a")
}

const STATUS: &[u8] = b"{\"version\":1,\"command\":\"status\"}\n";

#[test]
fn one_connection_takes_many_requests() {
    let scratch = Scratch::new();
    let _serving = Serving::at(scratch.socket(), Limits::default());
    let mut stream = connect(&scratch);
    for _ in 0..3 {
        assert!(is_status(&ask(&mut stream, STATUS)));
    }
    // Requests that arrive together are answered in order.
    let both = [STATUS, b"{\"version\":1,\"command\":\"version\"}\n"].concat();
    assert!(is_status(&ask(&mut stream, &both)));
    assert!(matches!(
        read(&mut stream).outcome,
        Outcome::Ok(Body::Version(_))
    ));
}

#[test]
fn what_changes_something_says_what_it_did_or_why_not_and_never_the_secret() {
    let scratch = Scratch::new();
    let _serving = Serving::at(scratch.socket(), Limits::default());
    let mut stream = connect(&scratch);
    let mut asked = |rotation: &str| {
        let request =
            format!(r#"{{"version":1,"command":"rotate-secret","rotation":{rotation}}}"#) + "\n";
        ask(&mut stream, request.as_bytes())
    };
    assert!(matches!(
        asked(r#"{"begin":"s3cr3t"}"#).outcome,
        Outcome::Ok(Body::RotateSecret(_))
    ));
    let refused = asked(r#"{"finish":{"force":false}}"#);
    assert_eq!(code(&refused), FailureCode::Impossible);
    for wrong in [
        r#"{"began":"s3cr3t"}"#,
        r#""s3cr3t""#,
        r#"{"begin":["s3cr3t"]}"#,
    ] {
        let response = asked(wrong);
        assert_eq!(code(&response), FailureCode::BadRequest);
        assert!(!format!("{response:?}").contains("s3cr3t"), "{response:?}");
    }
}

#[test]
fn a_configuration_is_shown_and_changed_without_telling_its_text() {
    let scratch = Scratch::new();
    let _serving = Serving::at(scratch.socket(), Limits::default());
    let client = Client::new(scratch.socket()).with_timeout(Duration::from_mins(1));
    for (secrets, value) in [(false, "***"), (true, "s3cr3t")] {
        let status = client.configuration(secrets, false).unwrap();
        assert_eq!(status.statements[0].value.as_deref(), Some(value));
    }
    let apply = |text: String| {
        client.configure(Configuring::Apply {
            name: "router.conf".to_owned(),
            text: Secret::new(text),
            confirm_within_s: None,
            dry_run: false,
        })
    };
    // Longer than any other request.
    apply("\"".repeat(500_000)).unwrap();
    client.configure(Configuring::Confirm).unwrap_err();
    let mut stream = connect(&scratch);
    let request =
        br#"{"version":1,"command":"configure","configuring":{"aply":{"text":"s3cr3t"}}}"#;
    let response = ask(&mut stream, &[&request[..], b"\n"].concat());
    assert_eq!(code(&response), FailureCode::BadRequest);
    assert!(!format!("{response:?}").contains("s3cr3t"), "{response:?}");
}

#[test]
fn the_log_level_is_changed_or_refused() {
    let scratch = Scratch::new();
    let _serving = Serving::at(scratch.socket(), Limits::default());
    let client = Client::new(scratch.socket());
    assert_eq!(client.set_log_level("debug").unwrap(), "debug");
    let refused = client.set_log_level("loud").unwrap_err().to_string();
    assert!(refused.contains("loud is no level"), "{refused}");
    let mut stream = connect(&scratch);
    let without = ask(&mut stream, b"{\"version\":1,\"command\":\"log-level\"}\n");
    assert_eq!(code(&without), FailureCode::BadRequest);
}

#[test]
fn mistakes_are_named_and_the_connection_goes_on() {
    let scratch = Scratch::new();
    let _serving = Serving::at(scratch.socket(), Limits::default());
    let mut stream = connect(&scratch);
    let cases: [(&[u8], FailureCode); 9] = [
        (b"\n", FailureCode::BadRequest),
        (b"status\n", FailureCode::BadRequest),
        (b"\xff\xfe\x00\n", FailureCode::BadRequest),
        (b"[1,\"status\"]\n", FailureCode::BadRequest),
        (b"{\"version\":1}\n", FailureCode::BadRequest),
        (
            b"{\"version\":-1,\"command\":\"status\"}\n",
            FailureCode::BadRequest,
        ),
        (b"{\"version\":1,\"command\":7}\n", FailureCode::BadRequest),
        (
            b"{\"version\":1,\"command\":\"reboot\"}\n",
            FailureCode::UnknownCommand,
        ),
        // Of a later version only the version is looked at.
        (
            b"{\"version\":2,\"command\":{\"status\":true}}\n",
            FailureCode::UnsupportedVersion,
        ),
    ];
    for (request, expected) in cases {
        let response = ask(&mut stream, request);
        assert_eq!(code(&response), expected, "{}", request.escape_ascii());
    }
    let nested = [b"[".repeat(10_000), b"\n".to_vec()].concat();
    assert_eq!(code(&ask(&mut stream, &nested)), FailureCode::BadRequest);
    assert!(is_status(&ask(&mut stream, STATUS)));
}

#[test]
fn an_oversized_request_is_refused() {
    let scratch = Scratch::new();
    // The test's user may change the configuration.
    let limits = Limits {
        change_bytes: 64 * 1024,
        ..Limits::default()
    };
    let _serving = Serving::at(scratch.socket(), limits);
    let mut stream = connect(&scratch);
    let response = ask(&mut stream, &vec![b'x'; 64 * 1024 + 1]);
    assert_eq!(code(&response), FailureCode::TooLong);
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "the connection is closed: {ended:?}");

    // The longest that is taken: blanks are part of JSON.
    let mut request = vec![b' '; 64 * 1024 + 1 - STATUS.len()];
    request.extend_from_slice(STATUS);
    assert!(is_status(&ask(&mut connect(&scratch), &request)));
}

#[test]
fn a_slow_request_is_cut_off() {
    let scratch = Scratch::new();
    let limits = Limits {
        read: SHORT,
        ..Limits::default()
    };
    let _serving = Serving::at(scratch.socket(), limits);
    let mut stream = connect(&scratch);
    // A byte now and then does not prolong it.
    for byte in STATUS.iter().take(8) {
        if stream.get_mut().write_all(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(SHORT / 5);
    }
    assert_eq!(code(&read(&mut stream)), FailureCode::TimedOut);
    // A silent one is closed without a word.
    let mut rest = Vec::new();
    connect(&scratch).read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn further_clients_wait_for_a_place() {
    let scratch = Scratch::new();
    let limits = Limits {
        clients: NonZeroUsize::new(2).unwrap(),
        ..Limits::default()
    };
    let _serving = Serving::at(scratch.socket(), limits);
    let mut first = connect(&scratch);
    let mut second = connect(&scratch);
    assert!(is_status(&ask(&mut first, STATUS)));
    assert!(is_status(&ask(&mut second, STATUS)));

    let mut third = connect(&scratch);
    third.get_mut().set_read_timeout(Some(SHORT)).unwrap();
    third.get_mut().write_all(STATUS).unwrap();
    let mut line = String::new();
    let waiting = third.read_line(&mut line).unwrap_err();
    assert_eq!(waiting.kind(), ErrorKind::WouldBlock);
    third
        .get_mut()
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    drop(first);
    assert!(is_status(&read(&mut third)));
}

#[test]
fn clients_that_vanish_free_their_place() {
    let scratch = Scratch::new();
    let limits = Limits {
        clients: NonZeroUsize::new(1).unwrap(),
        ..Limits::default()
    };
    let _serving = Serving::at(scratch.socket(), limits);
    for request in [b"".as_slice(), b"{\"ver", STATUS, b"garbage\ngarbage\n"] {
        for _ in 0..10 {
            let mut stream = connect(&scratch);
            stream.get_mut().write_all(request).unwrap();
        }
    }
    assert_eq!(
        Client::new(scratch.socket()).status().unwrap().node,
        "vyatta-a"
    );
}

#[test]
fn a_request_may_end_with_the_input() {
    let scratch = Scratch::new();
    let _serving = Serving::at(scratch.socket(), Limits::default());
    let mut stream = connect(&scratch);
    stream.get_mut().write_all(STATUS.trim_ascii_end()).unwrap();
    stream
        .get_mut()
        .shutdown(std::net::Shutdown::Write)
        .unwrap();
    assert!(is_status(&read(&mut stream)));
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let _listener = bind(&socket, &Access::default()).unwrap();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    let directory = std::fs::metadata(socket.parent().unwrap()).unwrap();
    assert_eq!(directory.permissions().mode() & 0o022, 0);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let living = bind(&socket, &Access::default()).unwrap();
    let error = bind(&socket, &Access::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains("another agent listens on"));
    drop(living);
    bind(&socket, &Access::default()).unwrap();
}

#[tokio::test]
async fn a_file_in_the_sockets_place_is_left_alone() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    std::fs::create_dir(socket.parent().unwrap()).unwrap();
    std::fs::write(&socket, "precious").unwrap();
    assert_eq!(
        bind(&socket, &Access::default()).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(std::fs::read(&socket).unwrap(), b"precious");
}

#[test]
fn a_thousand_clients_at_once_are_all_answered_beside_some_who_stall() {
    /// Each keeps a place until the limit.
    const STALLED: usize = 16;
    const CLIENTS: usize = 1_000;
    let scratch = Scratch::new();
    let limits = Limits {
        read: Duration::from_mins(1),
        ..Limits::default()
    };
    let _serving = Serving::at(scratch.socket(), limits);
    let stalled: Vec<_> = (0..STALLED)
        .map(|_| {
            let mut stream = connect(&scratch);
            stream.get_mut().write_all(b"{\"ver").unwrap();
            stream
        })
        .collect();
    let start = Barrier::new(CLIENTS);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            std::thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn_scoped(scope, || {
                    let client = Client::new(scratch.socket()).with_timeout(Duration::from_mins(1));
                    start.wait();
                    assert_eq!(client.status().unwrap().node, "vyatta-a");
                })
                .unwrap();
        }
    });
    drop(stalled);
}
