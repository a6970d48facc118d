//! Against a server on loopback that answers as EC2 documents its errors. How things go when they go
//! well is tested against moto, in tests/tests/aws.rs.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::{Duration, SystemTime},
};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::{
    credentials::tests::{Later, Provider},
    session::Failed,
    *,
};
use crate::config::RouteDestination;

const SECRET: &str = "the-secret-of-the-key";
const LIMIT: Duration = Duration::from_millis(500);

/// What the server says next.
#[derive(Clone)]
enum Reply {
    Xml(u16, String),
    /// An error document, sent at so many seconds from now.
    ErrorAt(&'static str, i64),
    Silence,
}

fn error(status: u16, code: &str) -> Reply {
    Reply::Xml(
        status,
        format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>the message</Message></Error></Errors></Response>"
        ),
    )
}

fn good(body: &str) -> Reply {
    Reply::Xml(200, format!("<R>{body}</R>"))
}

/// Gives the replies in their order, and notes the requests.
struct Server {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&requests);
        let mut replies: VecDeque<_> = replies.into_iter().collect();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let reply = replies.pop_front().expect("no more requests are expected");
                serve(stream, reply, &noted).await;
            }
        });
        Self { endpoint, requests }
    }

    fn cloud(&self) -> Cloud {
        cloud(&self.endpoint)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The actions that were asked for, in their order.
    fn actions(&self) -> Vec<String> {
        let action = |request: &String| {
            let (_, rest) = request.split_once("Action=").unwrap();
            rest.split('&').next().unwrap().to_owned()
        };
        self.requests().iter().map(action).collect()
    }
}

async fn serve(mut stream: TcpStream, reply: Reply, noted: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    let mut some = [0; 4096];
    loop {
        let length = stream.read(&mut some).await.unwrap();
        request.extend_from_slice(&some[..length]);
        let text = String::from_utf8_lossy(&request);
        if length == 0 || is_whole(&text) {
            break;
        }
    }
    noted
        .lock()
        .unwrap()
        .push(String::from_utf8(request).unwrap());
    let now = SystemTime::now();
    let (status, body, date) = match reply {
        Reply::Xml(status, body) => (status, body, now),
        Reply::ErrorAt(code, ahead_s) => {
            let Reply::Xml(status, body) = error(400, code) else {
                unreachable!("an error is a document");
            };
            let ahead = Duration::from_secs(ahead_s.unsigned_abs());
            (
                status,
                body,
                if ahead_s < 0 {
                    now - ahead
                } else {
                    now + ahead
                },
            )
        }
        Reply::Silence => {
            sleep(LIMIT * 20).await;
            return;
        }
    };
    let date = httpdate::fmt_http_date(date);
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    // Who has read enough goes.
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let lower = head.to_lowercase();
    let (_, rest) = lower.split_once("content-length: ").unwrap();
    let length: usize = rest.lines().next().unwrap().parse().unwrap();
    body.len() >= length
}

/// Of a node that has seen its interface forward.
fn cloud(endpoint: &str) -> Cloud {
    let aws = Aws {
        resources: vec![route()],
        interface: Some("eni-here".into()),
        region: Some("eu-west-1".into()),
        endpoint: Some(endpoint.into()),
        verify_interval: Duration::from_secs(10),
    };
    let credentials = Credentials::new("the-key", SECRET, None, None, "test");
    let session = session(endpoint, SharedCredentialsProvider::new(credentials));
    Cloud {
        session: OnceCell::new_with(Some(session)),
        forwards: AtomicBool::new(true),
        ..Cloud::new(aws)
    }
}

fn session(endpoint: &str, provider: SharedCredentialsProvider) -> Session {
    Session::new("eu-west-1".into(), endpoint.into(), provider, LIMIT)
}

fn route() -> AwsResource {
    AwsResource::Route {
        table: "rtb-1".into(),
        destination: RouteDestination::Network("0.0.0.0/0".parse().unwrap()),
    }
}

async fn failure(reply: Reply) -> CloudError {
    let server = Server::start([reply]).await;
    server.cloud().take(&route()).await.unwrap_err()
}

#[tokio::test]
async fn what_passes_by_itself_is_everywhere() {
    let busy = failure(error(503, "RequestLimitExceeded")).await;
    assert!(
        matches!(busy, CloudError::Busy { .. }) && busy.is_everywhere(),
        "{busy}"
    );
    let proxy = failure(Reply::Xml(502, "<html>Bad Gateway</html>".into())).await;
    assert!(matches!(proxy, CloudError::Busy { .. }), "{proxy}");
    let silent = failure(Reply::Silence).await;
    assert!(
        matches!(silent, CloudError::TimedOut { .. }) && silent.is_everywhere(),
        "{silent}"
    );
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = cloud(&format!("http://{free}"))
        .take(&route())
        .await
        .unwrap_err();
    assert!(
        matches!(nobody, CloudError::Unreachable { .. }) && nobody.is_everywhere(),
        "{nobody}"
    );
}

#[tokio::test]
async fn what_is_wrong_here_is_said_with_its_remedy() {
    for (reply, words) in [
        (error(403, "UnauthorizedOperation"), "ec2:ReplaceRoute"),
        (
            error(400, "InvalidRouteTableID.NotFound"),
            "the message (region eu-west-1)",
        ),
        (error(401, "AuthFailure"), "region eu-west-1 is enabled"),
        (error(400, "InvalidParameterValue"), "the message"),
    ] {
        let error = failure(reply).await;
        assert!(
            error.to_string().contains(words) && !error.is_everywhere(),
            "{error}"
        );
    }
    let server = Server::start([interface(false), good("<routeTableSet/>")]).await;
    let error = server.cloud().is_held(&route()).await.unwrap_err();
    assert!(matches!(error, CloudError::NotFound { .. }), "{error}");
    let server = Server::start([interface(false), good("<routeTableSet><item>")]).await;
    let error = server.cloud().is_held(&route()).await.unwrap_err();
    assert!(matches!(error, CloudError::NotUnderstood { .. }), "{error}");
}

/// A page of a proxy's may be long, and need never end.
#[tokio::test]
async fn of_an_answer_that_is_none_of_ec2s_little_is_kept() {
    let page = format!("<html>\n  Forbidden\n{}", "ö\n".repeat(10_000));
    let refused = failure(Reply::Xml(403, page)).await;
    let CloudError::Refused { code, message, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(code, "HTTP 403");
    assert!(message.starts_with("<html> Forbidden ö ö"), "{message}");
    assert!(message.ends_with('…') && message.chars().count() == 301);
    assert!(!message.contains('\n'), "{message}");
    let server = Server::start([Reply::Xml(200, "ö".repeat(1 << 20))]).await;
    let credentials =
        SharedCredentialsProvider::new(Credentials::new("x", "x", None, None, "test"));
    let patient = Duration::from_mins(1);
    let session = Session::new("x".into(), server.endpoint.clone(), credentials, patient);
    let cloud = Cloud {
        session: OnceCell::new_with(Some(session)),
        ..server.cloud()
    };
    let endless = cloud.take(&route()).await.unwrap_err();
    assert!(
        matches!(&endless, CloudError::NotUnderstood { reason, .. } if reason.contains("longer")),
        "{endless}"
    );
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_made_up_for_and_else_named() {
    let skewed = Reply::ErrorAt("RequestExpired", 900);
    let server = Server::start([skewed.clone(), good("")]).await;
    server.cloud().take(&route()).await.unwrap();
    let stamps: Vec<_> = server
        .requests()
        .iter()
        .map(|request| {
            let (_, rest) = request.split_once("x-amz-date: ").unwrap();
            rest[.."20260101T000000Z".len()].to_owned()
        })
        .collect();
    assert!(stamps[0] < stamps[1], "{stamps:?}");
    let server = Server::start([skewed.clone(), skewed]).await;
    let error = server.cloud().take(&route()).await.unwrap_err();
    assert!(error.to_string().contains("behind that of AWS"), "{error}");
}

/// Whole seconds are told: the same clock is found now so far off, now a second more.
#[tokio::test]
async fn a_clock_that_is_made_up_for_is_not_made_up_for_again_and_again() {
    let at = |ahead_s| Reply::ErrorAt("DryRunOperation", ahead_s);
    for (later_s, times) in [(899, 1), (901, 1), (1_800, 2)] {
        let server = Server::start([at(900), at(900), at(later_s), at(later_s)]).await;
        let credentials = Credentials::new("x", "x", None, None, "test");
        let session = session(
            &server.endpoint,
            SharedCredentialsProvider::new(credentials),
        );
        for _ in 0..2 {
            let answer = session.ask("ReplaceRoute", &[]).await;
            assert!(matches!(answer, Err(Failed::Rejected(_))));
        }
        assert_eq!(server.requests().len(), 2 + times, "{later_s} s");
    }
}

/// Those of an instance are told to expire by the API's time.
#[tokio::test]
async fn whether_credentials_are_good_is_told_by_the_apis_clock() {
    for (ahead_s, expected) in [(900, 2), (-900, 1)] {
        let server = Server::start([Reply::ErrorAt("DryRunOperation", ahead_s), good("")]).await;
        let asked = Arc::<AtomicUsize>::default();
        let provider = Provider {
            expire_in_s: 600,
            later: Later::Answers,
            asked: Arc::clone(&asked),
        };
        let session = session(&server.endpoint, SharedCredentialsProvider::new(provider));
        session.ask("ReplaceRoute", &[]).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), expected, "{ahead_s} s");
    }
}

/// There are no others to be had.
#[tokio::test]
async fn credentials_are_thrown_away_if_they_are_refused_and_not_for_a_wrong_clock() {
    for (ahead_s, is_good) in [(900, true), (0, false)] {
        let skewed = Reply::ErrorAt("RequestExpired", ahead_s);
        let server = Server::start([skewed, good("")]).await;
        let provider = Provider {
            expire_in_s: 3600,
            later: Later::Fails,
            asked: Arc::default(),
        };
        let provider = SharedCredentialsProvider::new(provider);
        let session = session(&server.endpoint, provider);
        let cloud = Cloud {
            session: OnceCell::new_with(Some(session)),
            ..server.cloud()
        };
        if is_good {
            cloud.take(&route()).await.unwrap();
            continue;
        }
        let refused = cloud.take(&route()).await.unwrap_err();
        assert!(
            matches!(refused, CloudError::CredentialsRefused { .. }),
            "{refused}"
        );
        let none = cloud.take(&route()).await.unwrap_err();
        assert!(matches!(none, CloudError::NoCredentials(_)), "{none}");
    }
}

#[tokio::test]
async fn a_missing_entry_is_created_and_one_that_came_meanwhile_replaced() {
    let missing = || {
        let message = "There is no route defined for '0.0.0.0/0' in the route table.";
        let text = format!(
            "<Response><Errors><Error><Code>InvalidParameterValue</Code><Message>{message}</Message></Error></Errors></Response>"
        );
        Reply::Xml(400, text)
    };
    let server = Server::start([missing(), good("")]).await;
    server.cloud().take(&route()).await.unwrap();
    assert_eq!(server.actions(), ["ReplaceRoute", "CreateRoute"]);
    let server = Server::start([missing(), error(400, "RouteAlreadyExists"), good("")]).await;
    server.cloud().take(&route()).await.unwrap();
    assert_eq!(
        server.actions(),
        ["ReplaceRoute", "CreateRoute", "ReplaceRoute"]
    );
}

fn interface(check: bool) -> Reply {
    good(&format!(
        "<networkInterfaceSet><item><privateIpAddress>10.0.1.10</privateIpAddress><sourceDestCheck>{check}</sourceDestCheck></item></networkInterfaceSet>"
    ))
}

fn table(leads_to: &str) -> Reply {
    good(&format!(
        "<routeTableSet><item><routeSet><item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><networkInterfaceId>{leads_to}</networkInterfaceId></item></routeSet></item></routeTableSet>"
    ))
}

#[tokio::test]
async fn a_check_changes_nothing_even_where_dry_runs_are_not_known() {
    for answer in [error(412, "DryRunOperation"), good("")] {
        let server = Server::start([interface(false), table("eni-there"), answer]).await;
        server.cloud().check(&route()).await.unwrap();
        let asked = server.requests().pop().unwrap();
        assert!(
            asked.contains("DryRun=true") && asked.contains("NetworkInterfaceId=eni-there"),
            "{asked}"
        );
    }
    let refused = error(403, "UnauthorizedOperation");
    let server = Server::start([interface(false), table("eni-there"), refused]).await;
    let error = server.cloud().check(&route()).await.unwrap_err();
    assert_eq!(
        error,
        CloudError::NotPermitted {
            action: "ReplaceRoute"
        }
    );
}

#[tokio::test]
async fn what_leads_nowhere_yet_is_tried_by_a_dry_run_where_the_api_knows_them() {
    let no_entry = good("<routeTableSet><item/></routeTableSet>");
    let to_a_gateway = good(
        "<routeTableSet><item><routeSet><item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><gatewayId>igw-1</gatewayId></item></routeSet></item></routeTableSet>",
    );
    let free = good("<addressesSet><item/></addressesSet>");
    let elastic_ip = AwsResource::ElasticIp("eipalloc-1".into());
    for (resource, now, described, changed) in [
        (route(), no_entry, "DescribeRouteTables", "CreateRoute"),
        (route(), to_a_gateway, "DescribeRouteTables", "ReplaceRoute"),
        (elastic_ip, free, "DescribeAddresses", "AssociateAddress"),
    ] {
        let dry = error(412, "DryRunOperation");
        let replies = [interface(false), now.clone(), dry.clone(), dry.clone()];
        let server = Server::start(replies).await;
        server.cloud().check(&resource).await.unwrap();
        assert_eq!(server.actions()[2..], [described, changed]);
        let asked = server.requests().pop().unwrap();
        assert!(
            asked.contains("DryRun=true") && asked.contains("NetworkInterfaceId=eni-here"),
            "{asked}"
        );

        // The active was faster.
        if changed == "CreateRoute" {
            let there = error(400, "RouteAlreadyExists");
            let replies = [interface(false), now.clone(), dry.clone(), there];
            let server = Server::start(replies).await;
            server.cloud().check(&resource).await.unwrap();
        }
        let refused = error(403, "UnauthorizedOperation");
        let server = Server::start([interface(false), now.clone(), dry, refused]).await;
        let error = server.cloud().check(&resource).await.unwrap_err();
        assert_eq!(error, CloudError::NotPermitted { action: changed });

        // It carries out what is only to be tried: the description alone.
        let server = Server::start([interface(false), now.clone(), now]).await;
        server.cloud().check(&resource).await.unwrap();
        assert_eq!(server.actions()[2..], [described]);
    }
}

#[tokio::test]
async fn the_source_and_destination_check_is_disabled_or_the_error_says_how() {
    let server = Server::start([
        interface(true),
        good(""),
        table("eni-there"),
        error(412, "DryRunOperation"),
    ])
    .await;
    server.cloud().check(&route()).await.unwrap();
    assert_eq!(server.actions()[1], "ModifyNetworkInterfaceAttribute");
    let server = Server::start([interface(true), error(403, "UnauthorizedOperation")]).await;
    let text = server
        .cloud()
        .check(&route())
        .await
        .unwrap_err()
        .to_string();
    assert!(text.contains("--no-source-dest-check"), "{text}");
}

#[tokio::test]
async fn what_leads_elsewhere_is_not_held() {
    for (leads_to, held) in [("eni-here", true), ("eni-there", false)] {
        let server = Server::start([interface(false), table(leads_to)]).await;
        assert_eq!(server.cloud().is_held(&route()).await.unwrap(), held);
    }
}

#[tokio::test]
async fn a_route_whose_packets_the_interface_drops_is_not_held_until_it_drops_none() {
    let server = Server::start([
        interface(true),
        good(""),
        interface(true),
        good(""),
        interface(false),
        table("eni-here"),
    ])
    .await;
    let cloud = server.cloud();
    assert!(!cloud.is_held(&route()).await.unwrap());
    cloud.take(&route()).await.unwrap();
    assert!(cloud.is_held(&route()).await.unwrap());
    assert_eq!(
        server.actions(),
        [
            "DescribeNetworkInterfaces",
            "ReplaceRoute",
            "DescribeNetworkInterfaces",
            "ModifyNetworkInterfaceAttribute",
            "DescribeNetworkInterfaces",
            "DescribeRouteTables",
        ]
    );
}

/// As when the API was busy at each check before.
#[tokio::test]
async fn who_never_saw_its_interface_has_it_forward_as_it_takes_a_route() {
    let busy = error(503, "RequestLimitExceeded");
    let server = Server::start([
        busy.clone(),
        good(""),
        busy,
        good(""),
        interface(true),
        good(""),
        good(""),
    ])
    .await;
    let cloud = Cloud {
        forwards: AtomicBool::new(false),
        ..server.cloud()
    };
    assert!(cloud.check(&route()).await.unwrap_err().is_everywhere());
    // The route leads here, and it is not known through here: it is tried again.
    assert!(cloud.take(&route()).await.unwrap_err().is_everywhere());
    cloud.take(&route()).await.unwrap();
    // Known now, it is not asked for in the way of a takeover.
    cloud.take(&route()).await.unwrap();
    assert_eq!(
        server.actions(),
        [
            "DescribeNetworkInterfaces",
            "ReplaceRoute",
            "DescribeNetworkInterfaces",
            "ReplaceRoute",
            "DescribeNetworkInterfaces",
            "ModifyNetworkInterfaceAttribute",
            "ReplaceRoute",
        ]
    );
}

/// moto's descriptions show no such route.
#[tokio::test]
async fn a_prefix_list_is_checked_taken_and_verified_by_its_own_name() {
    let route = AwsResource::Route {
        table: "rtb-1".into(),
        destination: RouteDestination::PrefixList("pl-1".into()),
    };
    let table = |list: &str, leads_to: &str| {
        good(&format!(
            "<routeTableSet><item><routeSet>\
             <item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><networkInterfaceId>eni-here</networkInterfaceId></item>\
             <item><destinationPrefixListId>{list}</destinationPrefixListId><networkInterfaceId>{leads_to}</networkInterfaceId></item>\
             </routeSet></item></routeTableSet>"
        ))
    };
    for (list, leads_to, held) in [
        ("pl-1", "eni-here", true),
        ("pl-1", "eni-there", false),
        ("pl-2", "eni-here", false),
    ] {
        let server = Server::start([interface(false), table(list, leads_to)]).await;
        let found = server.cloud().is_held(&route).await.unwrap();
        assert_eq!(found, held, "{list} {leads_to}");
    }
    let server = Server::start([
        interface(false),
        table("pl-1", "eni-there"),
        error(412, "DryRunOperation"),
        good(""),
    ])
    .await;
    let cloud = server.cloud();
    cloud.check(&route).await.unwrap();
    cloud.take(&route).await.unwrap();
    let requests = server.requests();
    for (request, target) in [(&requests[2], "eni-there"), (&requests[3], "eni-here")] {
        for part in [
            "Action=ReplaceRoute",
            "DestinationPrefixListId=pl-1",
            &format!("NetworkInterfaceId={target}"),
        ] {
            assert!(request.contains(part), "no {part} in {request}");
        }
        assert!(!request.contains("CidrBlock"), "{request}");
    }
    assert!(requests[2].contains("DryRun=true") && !requests[3].contains("DryRun"));
}

#[tokio::test]
async fn a_secret_is_in_no_request_and_no_error() {
    let server = Server::start([error(403, "UnauthorizedOperation")]).await;
    let error = server.cloud().take(&route()).await.unwrap_err();
    for text in [
        server.requests().concat(),
        format!("{error:?} {error}"),
        format!("{:?}", server.cloud()),
    ] {
        assert!(!text.contains(SECRET), "{text}");
    }
}
