//! The article's routers as instances at AWS, which moto plays in the cloud's node.

pub mod requests;

use anyhow::{Result, ensure};

use crate::{
    article::{self, CLOUD, ROUTERS, Router},
    cluster::Cluster,
    moto::{self, METADATA, Made, Moto, REGION, Targets},
};

/// The secondary private address that moves.
pub const MOVING: &str = "10.0.1.77";

/// The network interface of a router.
pub fn interface(made: &Made, router: Router) -> &str {
    let [first, second] = &made.interfaces;
    if router == ROUTERS[0] { first } else { second }
}

/// Everything that can move at AWS does, but for a prefix list, which moto does not show. The credentials come from the instance's role.
pub fn config(made: &Made, router: Router) -> String {
    let Made {
        route_table,
        elastic_ip,
        interfaces: _,
    } = made;
    let interface = interface(made, router);
    router.tunnel_config()
        + &format!(
            "
set cluster interface tun00
set cluster pre-shared-secret cloudpack
set cluster keepalive-interval 10
set cluster dead-interval 50
set cluster group aws primary vyatta-a
set cluster group aws secondary vyatta-c
set cluster group aws auto-failback true
set cluster group aws service 10.0.0.254/24/eth1
set cluster group aws aws route-table {route_table} destination 0.0.0.0/0
set cluster group aws aws route-table {route_table} destination ::/0
set cluster group aws aws elastic-ip {elastic_ip}
set cluster group aws aws private-ip {MOVING}
set cluster group aws aws interface {interface}
set cluster group aws aws region {REGION}
set cluster group aws aws endpoint http://{METADATA}
set cluster group aws aws verify-interval 1
"
        )
}

/// A pair of routers, and what plays AWS for them.
pub struct Cloud {
    // Before the lab, where it runs.
    pub moto: Moto,
    pub made: Made,
    pub cluster: Cluster,
}

impl Cloud {
    /// Starts moto, makes what the routers have there, and starts their agents.
    pub fn start(config: impl Fn(&Made, Router) -> String + 'static) -> Result<Self> {
        let lab = article::lab()?;
        let moto = Moto::start(lab.node(CLOUD))?;
        let made = moto::make(lab.node(CLOUD), ROUTERS.map(|router| router.underlay))?;
        let known = made.clone();
        let cluster = Cluster::start_in(lab, move |router| config(&known, router))?;
        Ok(Self {
            moto,
            made,
            cluster,
        })
    }

    pub fn targets(&self) -> Result<Targets> {
        let node = self.cluster.lab.node(CLOUD);
        moto::targets(node, &self.made, MOVING)
    }

    /// Fails unless all leads to `router`.
    pub fn all_lead_to(&self, router: Router) -> Result<Targets> {
        let targets = self.targets()?;
        let interface = interface(&self.made, router);
        ensure!(targets.all_lead_to(interface), "{interface}: {targets:?}");
        Ok(targets)
    }
}
