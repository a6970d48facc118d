//! What moves with a group, of whatever kind: how it is taken, seen to, and released.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Error;
use futures::future::{BoxFuture, FutureExt as _};
use router_common::identity::Epoch;
use tokio::time::timeout;
use tracing::warn;

use super::{
    ServiceTarget,
    conntrack::Conntrackd,
    journal::{Entry, Started},
    plan::{Deed, Outcome, Spec},
    route::RouteTarget,
    script, unit,
};
use crate::{
    cloud::{Cloud, CloudError},
    config::{AwsResource, ScriptCall},
    net::{Netlink, announce::Announcer},
};

/// The kernel answers at once or not at all.
const KERNEL_LIMIT: Duration = Duration::from_secs(2);
/// A script has a limit of its own, and a unit one that its own file may change; this is for what
/// comes on top.
const SERVICE_LIMIT: Duration = Duration::from_mins(2);

/// systemd answers a question at once, other than a job.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// Several requests, each with a limit of its own.
const CLOUD_LIMIT: Duration = Duration::from_secs(20);
/// Several requests, likewise.
const CONNECTIONS_LIMIT: Duration = Duration::from_secs(5);

const VERIFY_KERNEL: Duration = Duration::from_secs(5);
const VERIFY_SERVICE: Duration = Duration::from_secs(10);

pub enum Resource {
    Connections(Conntrackd),
    Address(ServiceTarget),
    Route(RouteTarget),
    Aws(AwsTarget),
    Unit(String),
    Script(Script),
}

/// Something at AWS.
pub struct AwsTarget {
    /// All of a group's share it.
    pub cloud: Arc<Cloud>,
    pub resource: AwsResource,
}

/// A script, and what was learnt of it.
pub struct Script {
    pub call: ScriptCall,
    /// Its `status` has said once that it runs: then it means something if it does not.
    tells_status: AtomicBool,
}

/// What a resource is moved with.
pub struct Tools {
    pub netlink: Netlink,
    pub announcer: Announcer,
}

/// For whom a deed is done.
#[derive(Clone, Copy, Debug)]
pub struct Errand<'a> {
    pub deed: Deed,
    pub group: &'a str,
    pub epoch: Epoch,
}

/// How a deed went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    AsExpected,
    /// Somebody had taken it away, or changed it; it is held again.
    Lost,
}

#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    /// It does not lie with this node: another one could not do it now either.
    pub is_everywhere: bool,
}

impl Failure {
    pub fn outcome(&self) -> Outcome {
        if self.is_everywhere {
            Outcome::Unavailable
        } else {
            Outcome::Failed
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            is_everywhere: false,
        }
    }
}

/// Of connections that are not told of: the peer knows of no more.
fn of_connections(error: Error) -> Failure {
    Failure {
        error,
        is_everywhere: true,
    }
}

impl From<CloudError> for Failure {
    fn from(error: CloudError) -> Self {
        Self {
            is_everywhere: error.is_everywhere(),
            error: error.into(),
        }
    }
}

impl Resource {
    pub fn script(call: ScriptCall) -> Self {
        Self::Script(Script {
            call,
            tells_status: AtomicBool::new(false),
        })
    }

    /// What it is, in a word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Route(_) => "route",
            Self::Aws(_) => "aws",
            Self::Unit(_) => "unit",
            Self::Script(_) => "script",
            Self::Connections(_) => "connections",
        }
    }

    /// How the journal notes it; none if the kernel keeps a mark.
    pub fn entry(&self, group: &str) -> Option<Entry> {
        let started = match self {
            Self::Connections(_) | Self::Address(_) | Self::Route(_) | Self::Aws(_) => return None,
            Self::Unit(name) => Started::Unit(name.clone()),
            Self::Script(Script { call, .. }) => Started::Script {
                name: call.name.clone(),
                arguments: call.arguments.clone(),
            },
        };
        Some(Entry {
            group: group.to_owned(),
            started,
        })
    }

    /// `place` is its place among the group's resources: units and scripts start one after the other,
    /// when the rest has been tried. Connections are there before an address draws their packets.
    pub fn spec(&self, place: usize) -> Spec {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        match self {
            Self::Connections(_) => Spec {
                rank: 0,
                verify: VERIFY_KERNEL,
            },
            Self::Address(_) => Spec {
                rank: 1,
                verify: VERIFY_KERNEL,
            },
            Self::Route(_) => Spec {
                rank: 2,
                verify: VERIFY_KERNEL,
            },
            Self::Aws(target) => Spec {
                rank: 2,
                verify: target.cloud.verify_interval(),
            },
            Self::Unit(_) | Self::Script(_) => Spec {
                rank: place.saturating_add(3),
                verify: VERIFY_SERVICE,
            },
        }
    }

    /// For how long a deed may take.
    const fn limit(&self) -> Duration {
        match self {
            Self::Address(_) | Self::Route(_) => KERNEL_LIMIT,
            Self::Aws(_) => CLOUD_LIMIT,
            Self::Connections(_) => CONNECTIONS_LIMIT,
            Self::Unit(_) | Self::Script(_) => SERVICE_LIMIT,
        }
    }

    pub async fn carry_out(&self, errand: Errand<'_>, tools: &Tools) -> Result<Found, Failure> {
        let work = async {
            match errand.deed {
                Deed::Take => self.take(errand, tools).await.map(|()| Found::AsExpected),
                Deed::Release => self
                    .release(errand, tools)
                    .await
                    .map(|()| Found::AsExpected),
                Deed::Verify if self.is_held(errand, tools).await? => Ok(Found::AsExpected),
                Deed::Verify => self.take(errand, tools).await.map(|()| Found::Lost),
            }
        };
        self.within(self.limit(), work.boxed()).await
    }

    /// What it takes to ask AWS is much for the stack, and for each future around it.
    async fn within<T>(
        &self,
        limit: Duration,
        work: BoxFuture<'_, Result<T, Failure>>,
    ) -> Result<T, Failure> {
        timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(self.out_of_time(limit)))
    }

    /// Who is asked elsewhere, or for the peer's sake, would not be quicker for another node.
    fn out_of_time(&self, limit: Duration) -> Failure {
        Failure {
            error: Error::msg(format!("nothing came of it within {limit:?}")),
            is_everywhere: match self {
                Self::Aws(_) | Self::Connections(_) => true,
                Self::Address(_) | Self::Route(_) | Self::Unit(_) | Self::Script(_) => false,
            },
        }
    }

    async fn take(&self, errand: Errand<'_>, tools: &Tools) -> Result<(), Failure> {
        match self {
            Self::Connections(daemon) => {
                daemon.take(errand.epoch).await.map_err(of_connections)?;
            }
            Self::Address(target) => {
                target.take(&tools.netlink).await?;
                self.announce(tools);
            }
            Self::Route(target) => target.take(&tools.netlink).await?,
            Self::Aws(AwsTarget { cloud, resource }) => cloud.take(resource).await?,
            Self::Unit(name) => unit::start(name).await?,
            Self::Script(Script { call, .. }) => {
                script::start(call, errand.group, errand.epoch).await?;
            }
        }
        Ok(())
    }

    async fn release(&self, errand: Errand<'_>, tools: &Tools) -> Result<(), Failure> {
        match self {
            Self::Connections(daemon) => daemon.release().await.map_err(of_connections)?,
            Self::Address(target) => target.release(&tools.netlink).await?,
            Self::Route(target) => target.release(&tools.netlink).await?,
            // It stays until the successor takes it: better a way to a router that is about to go than
            // none.
            Self::Aws(_) => {}
            Self::Unit(name) => unit::stop(name).await?,
            Self::Script(Script { call, .. }) => {
                script::stop(call, errand.group, errand.epoch).await?;
            }
        }
        Ok(())
    }

    async fn is_held(&self, errand: Errand<'_>, tools: &Tools) -> Result<bool, Failure> {
        Ok(match self {
            Self::Connections(daemon) => daemon.is_held().await.map_err(of_connections)?,
            Self::Address(target) => target.is_held(tools).await?,
            Self::Route(target) => target.is_held(&tools.netlink).await?,
            Self::Aws(AwsTarget { cloud, resource }) => cloud.is_held(resource).await?,
            Self::Unit(name) => unit::is_active(name).await?,
            Self::Script(Script { call, tells_status }) => {
                if script::is_running(call, errand.group, errand.epoch).await? {
                    tells_status.store(true, Ordering::Relaxed);
                    true
                } else {
                    !tells_status.load(Ordering::Relaxed)
                }
            }
        })
    }

    /// Says on the LAN where an address is now.
    pub fn announce(&self, tools: &Tools) {
        if let Self::Address(target) = self
            && let Err(error) = target.announce(&tools.announcer)
        {
            warn!(%target, "cannot announce: {error}");
        }
    }

    /// Whether this node could take it, as far as that can be told without doing it. Connections must be
    /// told of before.
    pub async fn check(&self) -> Result<(), Failure> {
        let limit = match self {
            Self::Unit(_) => QUESTION_LIMIT,
            _ => self.limit(),
        };
        let work = async {
            match self {
                Self::Connections(daemon) => daemon.stand_by().await.map_err(of_connections),
                Self::Address(_) | Self::Route(_) => Ok(()),
                Self::Aws(AwsTarget { cloud, resource }) => Ok(cloud.check(resource).await?),
                Self::Unit(name) => Ok(unit::check(name).await?),
                Self::Script(Script { call, .. }) => Ok(script::find(call).map(drop)?),
            }
        };
        self.within(limit, work.boxed()).await
    }
}

impl From<&Started> for Resource {
    fn from(started: &Started) -> Self {
        match started.clone() {
            Started::Unit(name) => Self::Unit(name),
            Started::Script { name, arguments } => Self::script(ScriptCall { name, arguments }),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connections(_) => f.write_str("conntrack-sync"),
            Self::Address(target) => target.fmt(f),
            Self::Route(target) => target.fmt(f),
            Self::Aws(target) => target.resource.fmt(f),
            Self::Unit(name) => f.write_str(name),
            Self::Script(script) => script.call.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Aws;

    #[test]
    fn an_api_that_takes_too_long_moves_no_group_and_a_unit_does() {
        let aws = Aws {
            resources: Vec::new(),
            interface: None,
            region: None,
            endpoint: None,
            verify_interval: Duration::from_secs(10),
        };
        let elastic_ip = Resource::Aws(AwsTarget {
            cloud: Arc::new(Cloud::new(aws)),
            resource: AwsResource::ElasticIp("eipalloc-1".to_owned()),
        });
        let outcome = |resource: &Resource| resource.out_of_time(CLOUD_LIMIT).outcome();
        assert_eq!(outcome(&elastic_ip), Outcome::Unavailable);
        let unit = Resource::Unit("x.service".to_owned());
        assert_eq!(outcome(&unit), Outcome::Failed);
    }
}
