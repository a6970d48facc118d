//! Where the API is, who asks, and one signed request to it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_config::{
    BehaviorVersion, Region,
    imds::{self, client::error::ImdsError},
    provider_config::ProviderConfig,
};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use aws_smithy_http_client::{
    Builder, Connector,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector as _, HttpConnectorSettings, SharedHttpClient},
    orchestrator::{HttpRequest, HttpResponse},
};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};
use rustls_native_certs::load_native_certs;
use tokio::time::timeout;
use tracing::warn;

use super::{
    credentials::Keyring,
    ec2,
    error::{CloudError, Rejection, TOLERATED_SKEW},
};
use crate::config::Aws;

/// In bytes. A route table has up to 1,000 entries, a few hundred bytes each.
const LONGEST_ANSWER: usize = 1 << 20;
/// Of a refusal's reason, in characters: it goes to log, status and history.
const LONGEST_MESSAGE: usize = 300;
const API_VERSION: &str = "2016-11-15";
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Looking for region and credentials, which asks the metadata service.
pub const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// Longer than the time between two checks or verifications: a takeover finds a connection open.
const IDLE_LIMIT: Duration = Duration::from_mins(2);
/// The same clock may be found to be so far off once and again: answers tell whole seconds, some time after
/// they were given.
const OFFSET_PRECISION: Duration = Duration::from_secs(10);

pub struct Session {
    pub region: String,
    endpoint: String,
    connector: Connector,
    keyring: Arc<Keyring>,
    /// For a request.
    limit: Duration,
    /// How far the API's clock is ahead of ours, once that matters. Seconds.
    clock_offset_s: Mutex<i64>,
}

/// An answer: the body of a good one.
type Answer = Result<String, Failed>;

#[derive(Debug)]
pub enum Failed {
    Rejected(Rejection),
    Error(CloudError),
}

impl From<CloudError> for Failed {
    fn from(error: CloudError) -> Self {
        Self::Error(error)
    }
}

impl Session {
    /// By the standard chain: environment, profile, web identity, container, instance role.
    pub async fn open(aws: &Aws) -> Result<Self, CloudError> {
        // The first client keeps what there is then, for all that come after it.
        if load_native_certs().certs.is_empty() {
            return Err(CloudError::NoRoots);
        }
        let mut chain = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client());
        if let Some(region) = &aws.region {
            chain = chain.region(Region::new(region.clone()));
        }
        let found = timeout(LOOK_LIMIT, chain.load()).await;
        let sdk = found.map_err(|_| CloudError::NoRegion)?;
        let region = sdk.region().ok_or(CloudError::NoRegion)?.to_string();
        let provider = sdk
            .credentials_provider()
            .ok_or_else(|| CloudError::NoCredentials("none are configured".to_owned()))?;
        let endpoint = aws
            .endpoint
            .clone()
            .or_else(|| sdk.endpoint_url().map(ToOwned::to_owned))
            .unwrap_or_else(|| regional_endpoint(&region));
        Ok(Self::new(region, endpoint, provider, REQUEST_LIMIT))
    }

    pub fn new(
        region: String,
        endpoint: String,
        provider: SharedCredentialsProvider,
        limit: Duration,
    ) -> Self {
        let settings = HttpConnectorSettings::builder()
            .connect_timeout(CONNECT_LIMIT)
            .build();
        let connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .connector_settings(settings)
            .pool_idle_timeout(IDLE_LIMIT)
            .build();
        Self {
            region,
            endpoint,
            connector,
            keyring: Arc::new(Keyring::new(provider)),
            limit,
            clock_offset_s: Mutex::default(),
        }
    }

    /// Asks the API. A request that the API refuses because of our clock is signed once more with
    /// its own.
    pub async fn ask(&self, action: &'static str, parameters: &[(&str, &str)]) -> Answer {
        let first = self.ask_once(action, parameters).await;
        let Err(Failed::Rejected(rejection)) = &first else {
            return first;
        };
        let skew = Duration::from_secs(rejection.skew_s.unsigned_abs());
        let offset_s = -rejection.skew_s;
        let change = Duration::from_secs(offset_s.abs_diff(self.offset_s()));
        if skew < TOLERATED_SKEW || change <= OFFSET_PRECISION {
            return first;
        }
        warn!(
            action,
            "this node's clock is {} s off that of AWS: requests are signed with its time",
            offset_s
        );
        *self.clock_offset_s() = offset_s;
        self.ask_once(action, parameters).await
    }

    async fn ask_once(&self, action: &'static str, parameters: &[(&str, &str)]) -> Answer {
        let credentials = self.keyring.get(self.now()).await?;
        let body = encode(action, parameters);
        let request = self.signed(action, &credentials, body)?;
        let unreachable = |reason: String| CloudError::Unreachable {
            endpoint: self.endpoint.clone(),
            reason,
        };
        let exchange = async {
            let response = self.connector.call(request).await;
            let response = response.map_err(|error| unreachable(chain(&error)))?;
            let status = response.status().as_u16();
            let skew_s = skew_s(&response);
            let mut parts = ByteStream::new(response.into_body());
            let mut body = Vec::new();
            while let Some(part) = parts.next().await {
                body.extend(part.map_err(|error| unreachable(chain(&error)))?);
                if body.len() > LONGEST_ANSWER {
                    let reason = format!("it is longer than {LONGEST_ANSWER} bytes");
                    return Err(CloudError::NotUnderstood { action, reason });
                }
            }
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok::<_, CloudError>((status, skew_s, body))
        };
        let answer = timeout(self.limit, exchange).await;
        let timed_out = CloudError::TimedOut {
            action,
            limit: self.limit,
        };
        let (status, skew_s, body) = answer.map_err(|_| timed_out)??;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        // An answer of something in between, such as a proxy, is not EC2's XML.
        let (code, message) = ec2::rejection(&body).unwrap_or((format!("HTTP {status}"), body));
        let rejection = Rejection {
            status,
            code,
            message: in_brief(&message),
            skew_s,
        };
        // A wrong clock is no fault of theirs.
        let is_late =
            rejection.code == "RequestExpired" && skew_s.unsigned_abs() < TOLERATED_SKEW.as_secs();
        if rejection.code == "ExpiredToken" || is_late {
            self.keyring.discard();
        }
        Err(Failed::Rejected(rejection))
    }

    fn signed(
        &self,
        action: &'static str,
        credentials: &Credentials,
        body: String,
    ) -> Result<HttpRequest, CloudError> {
        let wrong = |reason: String| CloudError::NotUnderstood { action, reason };
        let identity = credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("ec2")
            .time(self.now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| wrong(error.to_string()))?
            .into();
        let uri = format!("{}/", self.endpoint);
        let content_type = ("content-type", "application/x-www-form-urlencoded");
        let signable = SignableRequest::new(
            "POST",
            uri.as_str(),
            std::iter::once(content_type),
            SignableBody::Bytes(body.as_bytes()),
        );
        let signable = signable.map_err(|error| wrong(error.to_string()))?;
        let (instructions, _) = sign(signable, &parameters)
            .map_err(|error| wrong(error.to_string()))?
            .into_parts();
        let mut request = http::Request::post(uri)
            .header(content_type.0, content_type.1)
            .body(SdkBody::from(body))
            .map_err(|error| wrong(error.to_string()))?;
        instructions.apply_to_request_http1x(&mut request);
        HttpRequest::try_from(request).map_err(|error| wrong(error.to_string()))
    }

    /// By the API's clock, as far as it is known.
    fn now(&self) -> SystemTime {
        let offset_s = self.offset_s();
        let offset = Duration::from_secs(offset_s.unsigned_abs());
        let now = SystemTime::now();
        if offset_s < 0 {
            now - offset
        } else {
            now + offset
        }
    }

    fn offset_s(&self) -> i64 {
        *self.clock_offset_s()
    }

    fn clock_offset_s(&self) -> MutexGuard<'_, i64> {
        let offset = self.clock_offset_s.lock();
        offset.unwrap_or_else(PoisonError::into_inner)
    }
}

fn http_client() -> SharedHttpClient {
    Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https()
}

/// The identifier of the network interface with this hardware address, or of the primary one, as the
/// instance's metadata service tells it.
pub async fn interface_by_metadata(mac: Option<&str>) -> Result<String, CloudError> {
    let config = ProviderConfig::default().with_http_client(http_client());
    let metadata = imds::Client::builder().configure(&config).build();
    let ask = async |path: String| {
        let answer = timeout(LOOK_LIMIT, metadata.get(path)).await;
        let none = |reason| CloudError::NoInterface(reason);
        let answer = answer.map_err(|_| none("no answer in time".to_owned()))?;
        let answer = answer.map_err(|error| none(metadata_reason(&error)))?;
        Ok::<_, CloudError>(String::from(answer))
    };
    let primary;
    let mac = if let Some(mac) = mac {
        mac
    } else {
        primary = ask("/latest/meta-data/mac".to_owned()).await?;
        primary.trim()
    };
    let path = format!("/latest/meta-data/network/interfaces/macs/{mac}/interface-id");
    Ok(ask(path).await?.trim().to_owned())
}

/// Why the metadata service did not tell something; not the whole of an answer that says no.
fn metadata_reason(error: &ImdsError) -> String {
    match error {
        ImdsError::ErrorResponse(answer) => {
            let status = answer.response().status().as_u16();
            format!("the metadata service answers HTTP {status}")
        }
        other => chain(other),
    }
}

fn regional_endpoint(region: &str) -> String {
    let domain = if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    };
    format!("https://ec2.{region}.{domain}")
}

/// The body of a Query API request.
fn encode(action: &str, parameters: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("Action", action)
        .append_pair("Version", API_VERSION)
        .extend_pairs(parameters)
        .finish()
}

/// How far our clock is ahead of the answer's `Date`; zero if it has none.
fn skew_s(response: &HttpResponse) -> i64 {
    let date = response.headers().get("date");
    let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return 0;
    };
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(theirs) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

/// An error with what is behind it, in one line; the outer ones of these libraries say little.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    in_one_line(&text)
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One line of at most [`LONGEST_MESSAGE`].
fn in_brief(text: &str) -> String {
    let line = in_one_line(text);
    match line.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
