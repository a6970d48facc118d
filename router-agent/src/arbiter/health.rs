//! How the arbiter has answered so far, for operators.

use std::time::Duration;

use router_common::time::BootTime;

use super::failure::{Failure, Kind};

/// A request that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub endpoint: String,
    pub sent: BootTime,
    pub ended: BootTime,
    pub failure: Option<Failure>,
}

/// All exchanges of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub last: Option<Exchange>,
    /// When the last answer came.
    pub answered: BootTime,
    pub answers: u64,
    pub failures: u64,
    times: Option<Times>,
}

/// From sending to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub last: Duration,
    pub min: Duration,
    pub max: Duration,
    sum: Duration,
}

impl Health {
    pub fn note(&mut self, exchange: Exchange) {
        if exchange.failure.is_none() {
            let took = exchange.ended.since(exchange.sent);
            self.answered = exchange.ended;
            self.answers += 1;
            self.times = Some(self.times.map_or(
                Times {
                    last: took,
                    min: took,
                    max: took,
                    sum: took,
                },
                |times| Times {
                    last: took,
                    min: times.min.min(took),
                    max: times.max.max(took),
                    sum: times.sum.saturating_add(took),
                },
            ));
        } else {
            self.failures += 1;
        }
        self.last = Some(exchange);
    }

    pub const fn times(&self) -> Option<Times> {
        self.times
    }

    pub fn average(&self) -> Option<Duration> {
        let answers = u32::try_from(self.answers).unwrap_or(u32::MAX).max(1);
        self.times.map(|times| times.sum / answers)
    }

    /// One word for programs.
    pub fn word(&self) -> &'static str {
        match &self.last {
            None => "not-asked",
            Some(Exchange { failure: None, .. }) => "connected",
            Some(Exchange {
                failure: Some(failure),
                ..
            }) => match failure.kind {
                Kind::Unreachable => "unreachable",
                Kind::NoLeader => "no-leader",
                Kind::TimedOut => "timed-out",
                Kind::Refused => "refused",
                Kind::Garbled => "garbled",
            },
        }
    }

    /// What an operator can do about the last failure.
    pub fn remedy(&self) -> Option<&'static str> {
        let failure = self.last.as_ref()?.failure.as_ref()?;
        Some(match failure.kind {
            Kind::Unreachable => {
                "see that etcd runs, that this node reaches its endpoints and, by TLS, that its certificate is accepted there: `etcdctl endpoint health` tells"
            }
            Kind::NoLeader => "most members of etcd are gone or cut off: start them again",
            Kind::TimedOut => {
                "etcd is slow or cut off: look at its disk and at the path to it, or raise `cluster arbiter etcd timeout`"
            }
            Kind::Refused => {
                "see that username, password-file, ca, cert and key are those of this etcd, and that the user may read and write the prefix"
            }
            Kind::Garbled => {
                "something else writes there: state another `cluster arbiter etcd prefix`, on both nodes, or delete the key; as there is no record then, see that one node at most forwards, and run `routerctl force cluster active --i-know` there"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(sent_ms: u64, took_ms: u64, kind: Option<Kind>) -> Exchange {
        let sent = BootTime::from_ns(sent_ms * 1_000_000);
        Exchange {
            endpoint: "http://10.0.0.5:2379".to_owned(),
            sent,
            ended: sent.after(Duration::from_millis(took_ms)),
            failure: kind.map(|kind| Failure::new(kind, "why")),
        }
    }

    #[test]
    fn answers_are_measured_and_failures_are_not() {
        let mut health = Health::default();
        assert_eq!((health.word(), health.remedy()), ("not-asked", None));
        health.note(exchange(10, 4, None));
        health.note(exchange(20, 2, None));
        health.note(exchange(30, 500, Some(Kind::TimedOut)));
        assert_eq!(health.word(), "timed-out");
        assert!(health.remedy().unwrap().contains("timeout"));
        let times = health.times().unwrap();
        let ms = Duration::from_millis;
        assert_eq!((times.last, times.min, times.max), (ms(2), ms(2), ms(4)));
        assert_eq!(health.average(), Some(ms(3)));
        assert_eq!((health.answers, health.failures), (2, 1));
        assert_eq!(health.answered, BootTime::from_ns(22_000_000));
        health.note(exchange(40, 6, None));
        assert_eq!((health.word(), health.remedy()), ("connected", None));
        assert_eq!(health.average(), Some(ms(4)));
    }
}
