//! What moves with a group at AWS: route-table entries, elastic IPs, private addresses.

mod credentials;
mod ec2;
mod error;
mod session;

use std::{
    fmt, fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::sync::OnceCell;
use tracing::info;

use self::ec2::{NetworkInterface, Run, Write};
pub use self::{error::CloudError, session::Session};
use crate::config::{Aws, AwsResource};

/// A group's part of AWS, as this node sees it.
pub struct Cloud {
    aws: Aws,
    session: OnceCell<Session>,
    /// Of this node.
    interface: OnceCell<String>,
    /// When it was last seen, the interface let through what is not addressed to it.
    forwards: AtomicBool,
}

impl Cloud {
    /// Asks nobody yet.
    pub fn new(aws: Aws) -> Self {
        Self {
            aws,
            session: OnceCell::new(),
            interface: OnceCell::new(),
            forwards: AtomicBool::new(false),
        }
    }

    pub fn verify_interval(&self) -> Duration {
        self.aws.verify_interval
    }

    /// Lets the resource lead to this node. One request if all is as it usually is.
    pub async fn take(&self, resource: &AwsResource) -> Result<(), CloudError> {
        let (session, interface) = (self.session().await?, self.interface().await?);
        match resource {
            AwsResource::Route { table, destination } => {
                let write = async |write| {
                    ec2::write_route(session, write, table, destination, interface, Run::Real).await
                };
                let written = match write(Write::Replace).await {
                    Err(error) if ec2::is_missing_route(&error) => match write(Write::Create).await
                    {
                        // Somebody was faster.
                        Err(error) if error.has_code("RouteAlreadyExists") => {
                            write(Write::Replace).await
                        }
                        result => result,
                    },
                    result => result,
                };
                written?;
                if !self.forwards.load(Ordering::Relaxed)
                    && self.describe(session, interface).await?.source_dest_check
                {
                    self.let_forward(session, interface).await?;
                }
                Ok(())
            }
            AwsResource::ElasticIp(allocation) => {
                ec2::associate_address(session, allocation, interface, Run::Real).await
            }
            AwsResource::PrivateIp(address) => {
                ec2::assign_private_ip(session, *address, interface, Run::Real).await
            }
        }
    }

    /// Whether the resource leads to this node, and through it if it is a route.
    pub async fn is_held(&self, resource: &AwsResource) -> Result<bool, CloudError> {
        let (session, interface) = (self.session().await?, self.interface().await?);
        let leads_to = match resource {
            AwsResource::Route { table, destination } => {
                if self.describe(session, interface).await?.source_dest_check {
                    return Ok(false);
                }
                let route = ec2::route(session, table, destination).await?;
                route.and_then(|route| route.network_interface_id)
            }
            AwsResource::ElasticIp(allocation) => {
                let elastic = ec2::elastic_ip(session, allocation).await?;
                elastic.network_interface_id
            }
            AwsResource::PrivateIp(address) => {
                let described = ec2::network_interface(session, interface).await?;
                return Ok(described.has(*address));
            }
        };
        Ok(leads_to.as_deref() == Some(interface))
    }

    /// Whether this node may take the resource: all that it takes is there, and permitted. An API that
    /// knows no dry runs changes nothing: they name the present target, and where there is none yet, this
    /// node only once the API has shown that it knows them.
    pub async fn check(&self, resource: &AwsResource) -> Result<(), CloudError> {
        let (session, interface) = (self.session().await?, self.interface().await?);
        let described = self.describe(session, interface).await?;
        let harmless_target = async |now_at: Option<String>, description| match now_at {
            Some(now_at) => Ok(Some(now_at)),
            None if ec2::knows_dry_runs(session, description).await? => {
                Ok(Some(interface.to_owned()))
            }
            None => Ok::<_, CloudError>(None),
        };
        match resource {
            AwsResource::Route { table, destination } => {
                if described.source_dest_check {
                    self.let_forward(session, interface).await?;
                }
                let route = ec2::route(session, table, destination).await?;
                let write = match route {
                    Some(_) => Write::Replace,
                    None => Write::Create,
                };
                let now_at = route.and_then(|route| route.network_interface_id);
                let description = ec2::described_table(table);
                let Some(target) = harmless_target(now_at, description).await? else {
                    return Ok(());
                };
                let run = Run::Dry;
                match ec2::write_route(session, write, table, destination, &target, run).await {
                    // The active made it meanwhile.
                    Err(error) if error.has_code("RouteAlreadyExists") => Ok(()),
                    result => result,
                }
            }
            AwsResource::ElasticIp(allocation) => {
                let elastic = ec2::elastic_ip(session, allocation).await?;
                let now_at = elastic.network_interface_id;
                let description = ec2::described_elastic_ip(allocation);
                match harmless_target(now_at, description).await? {
                    Some(target) => {
                        ec2::associate_address(session, allocation, &target, Run::Dry).await
                    }
                    None => Ok(()),
                }
            }
            AwsResource::PrivateIp(_) => {
                let its_own = described.private_ip_address;
                ec2::assign_private_ip(session, its_own, interface, Run::Dry).await
            }
        }
    }

    /// How the interface is, and from then on known to be.
    async fn describe(
        &self,
        session: &Session,
        interface: &str,
    ) -> Result<NetworkInterface, CloudError> {
        let described = ec2::network_interface(session, interface).await?;
        let forwards = !described.source_dest_check;
        self.forwards.store(forwards, Ordering::Relaxed);
        Ok(described)
    }

    async fn let_forward(&self, session: &Session, interface: &str) -> Result<(), CloudError> {
        match ec2::disable_source_dest_check(session, interface).await {
            Ok(()) => {
                info!(interface, "its source/destination check is disabled now");
                self.forwards.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(CloudError::NotPermitted { .. }) => Err(CloudError::SourceDestCheck {
                interface: interface.to_owned(),
            }),
            Err(error) => Err(error),
        }
    }

    async fn session(&self) -> Result<&Session, CloudError> {
        self.session
            .get_or_try_init(|| Session::open(&self.aws))
            .await
    }

    async fn interface(&self) -> Result<&str, CloudError> {
        let find = async || match self.aws.interface.as_deref() {
            Some(id) if id.starts_with("eni-") => Ok(id.to_owned()),
            Some(name) => {
                let path = format!("/sys/class/net/{name}/address");
                let mac = fs::read_to_string(path)
                    .map_err(|error| CloudError::NoInterface(format!("{name}: {error}")))?;
                session::interface_by_metadata(Some(mac.trim())).await
            }
            None => session::interface_by_metadata(None).await,
        };
        let found = self.interface.get_or_try_init(find).await?;
        Ok(found)
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud")
            .field("aws", &self.aws)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
