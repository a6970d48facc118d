//! etcd as the arbiter: linearizable reads, and one transaction for each swap.
//!
//! Of its API only what versions 3.4 to 3.6 have in common: range, transaction and authenticate. Its
//! leases and locks are not used, because their times are the server's, not ours.

use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, KeyValue, ResponseHeader, Txn, TxnOp, TxnOpResponse,
};
use futures::stream::{FuturesUnordered, StreamExt as _};
use router_common::time::BootTime;
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep_until},
};

use super::{
    failure::{Failure, Kind},
    record,
};
use crate::{
    clock,
    cluster::{Answer, Record, Request, Revision},
};

/// What a request came to.
#[derive(Debug)]
pub struct Reply {
    /// Right before the request left.
    pub sent: BootTime,
    /// Which endpoint answered, or failed last.
    pub endpoint: String,
    pub outcome: Result<Answer, Failure>,
}

/// An endpoint that has not answered in this part of the timeout gets company.
const HEDGES: u32 = 10;

/// All endpoints of one etcd. A request goes to the one that answered last; if that one fails or takes
/// long, to the next one as well, within the same time.
pub struct Etcd {
    endpoints: Vec<Endpoint>,
    preferred: AtomicUsize,
    options: ConnectOptions,
    timeout: Duration,
}

struct Endpoint {
    url: String,
    client: OnceCell<Client>,
}

impl Etcd {
    /// Connects with the first request. `timeout` is for a request as a whole.
    pub fn new(urls: &[String], options: ConnectOptions, timeout: Duration) -> Self {
        Self {
            // At least one, as the configuration's check sees to.
            endpoints: urls
                .iter()
                .map(|url| Endpoint {
                    url: url.clone(),
                    client: OnceCell::new(),
                })
                .collect(),
            preferred: AtomicUsize::new(0),
            options: options
                .with_require_leader(true)
                .with_connect_timeout(timeout),
            timeout,
        }
    }

    /// Asks for the record at `key`. Ends within the timeout. A swap may reach several endpoints: only one
    /// of these can do it, and another one may then be the first to tell what it found.
    pub async fn ask(&self, key: &str, request: &Request) -> Reply {
        let start = Instant::now();
        let hedge = self.timeout / HEDGES;
        let mut hedge_at = start + hedge;
        let count = self.endpoints.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut places = (first..first + count).map(|place| place % count);
        let attempt = |place: usize| self.attempt(place, key, request);
        let mut attempts: FuturesUnordered<_> = places.next().map(attempt).into_iter().collect();
        let begun = clock::now();
        let mut telling = (first, Failure::new(Kind::Unreachable, "nobody was asked"));
        let mut note = |place, failure: Failure| {
            if failure.kind >= telling.1.kind {
                telling = (place, failure);
            }
        };
        loop {
            tokio::select! {
                biased;
                Some((place, reply)) = attempts.next() => {
                    match reply.outcome {
                        Err(failure) if failure.kind.is_of_one_endpoint() => note(place, failure),
                        Ok(_) | Err(_) => {
                            self.preferred.store(place, Ordering::Relaxed);
                            return reply;
                        }
                    }
                    match places.next() {
                        Some(place) => attempts.push(attempt(place)),
                        None if attempts.is_empty() => break,
                        None => {}
                    }
                }
                () = sleep_until(hedge_at), if places.len() > 0 => {
                    hedge_at += hedge;
                    attempts.extend(places.next().map(attempt));
                }
                () = sleep_until(start + self.timeout) => {
                    let detail = format!("no answer within {} ms", self.timeout.as_millis());
                    note(first, Failure::new(Kind::TimedOut, detail));
                    break;
                }
            }
        }
        self.preferred.store((first + 1) % count, Ordering::Relaxed);
        let (place, failure) = telling;
        Reply {
            sent: begun,
            endpoint: self.endpoints[place].url.clone(),
            outcome: Err(failure),
        }
    }

    async fn attempt(&self, place: usize, key: &str, request: &Request) -> (usize, Reply) {
        let endpoint = &self.endpoints[place];
        let sent = clock::now();
        let outcome = endpoint.ask(&self.options, key, request).await;
        let reply = Reply {
            sent,
            endpoint: endpoint.url.clone(),
            outcome,
        };
        (place, reply)
    }
}

impl Endpoint {
    async fn ask(
        &self,
        options: &ConnectOptions,
        key: &str,
        request: &Request,
    ) -> Result<Answer, Failure> {
        let connect = || Client::connect([&self.url], Some(options.clone()));
        let client = self.client.get_or_try_init(connect).await;
        let mut client = client.map_err(|error| Failure::of(&error))?.clone();
        match request {
            Request::Read => {
                let response = client.get(key, None).await;
                let response = response.map_err(|error| Failure::of(&error))?;
                found(response.kvs().first())
            }
            Request::Swap { expected, record } => {
                let response = client.txn(swap(key, *expected, record)?).await;
                let response = response.map_err(|error| Failure::of(&error))?;
                if response.succeeded() {
                    let written = response.header().map_or(0, ResponseHeader::revision);
                    return Ok(Answer::Swapped(revision(written)?));
                }
                match response.op_responses().first() {
                    Some(TxnOpResponse::Get(response)) => found(response.kvs().first()),
                    Some(_) | None => Err(Failure::new(
                        Kind::Garbled,
                        "the transaction was answered without what it found",
                    )),
                }
            }
        }
    }
}

/// If the record is still the one expected, the new one is written; else what there is is read.
fn swap(key: &str, expected: Option<Revision>, record: &Record) -> Result<Txn, Failure> {
    let value =
        record::encode(record).map_err(|error| Failure::new(Kind::Garbled, error.to_string()))?;
    // A key that does not exist has revision 0.
    let expected = expected.map_or(0, |revision| revision.0.get());
    let expected = i64::try_from(expected)
        .map_err(|_| Failure::new(Kind::Garbled, "a revision beyond 63 bits"))?;
    Ok(Txn::new()
        .when([Compare::mod_revision(key, CompareOp::Equal, expected)])
        .and_then([TxnOp::put(key, value, None)])
        .or_else([TxnOp::get(key, None)]))
}

fn found(pair: Option<&KeyValue>) -> Result<Answer, Failure> {
    let Some(pair) = pair else {
        return Ok(Answer::Found(None));
    };
    let record = record::decode(pair.value()).map_err(|error| {
        let key = String::from_utf8_lossy(pair.key());
        Failure::new(Kind::Garbled, format!("the value of {key}: {error}"))
    })?;
    Ok(Answer::Found(Some((
        revision(pair.mod_revision())?,
        record,
    ))))
}

fn revision(number: i64) -> Result<Revision, Failure> {
    u64::try_from(number)
        .ok()
        .and_then(NonZeroU64::new)
        .map(Revision)
        .ok_or_else(|| Failure::new(Kind::Garbled, format!("a revision of {number}")))
}
