//! Two routers of the article's network with their agents, and what can happen to them.

use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use router_agent::control::protocol::{GroupStatus, HeartbeatStatus};
use router_common::time::BootTime;
use serde::Deserialize;

use crate::{
    agent::{self, Agent},
    article::{self, ROUTERS, Router},
    clock,
    lab::{Lab, Node},
    poll,
    status::{is_active, is_standby},
};

/// How long anything may take that is not bounded by the configuration's intervals.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// `cluster agent-dead-interval` where the configuration names none.
pub const AGENT_DEAD_INTERVAL: Duration = Duration::from_secs(3);

/// The ways to take a router away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Power failure of the node
    KillNode,
    /// The agent dies; the node's kernel lives on
    KillAgent,
    /// The agent is stopped and does not notice
    StopAgent,
    /// Only the path between the routers fails
    CutTunnel,
}

impl Fault {
    /// The router's kernel goes on forwarding, and the peer waits for the agent's interval.
    pub fn leaves_the_kernel_alive(self) -> bool {
        matches!(self, Self::KillAgent | Self::StopAgent)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillNode => "kill-node",
            Self::KillAgent => "kill-agent",
            Self::StopAgent => "stop-agent",
            Self::CutTunnel => "cut-tunnel",
        })
    }
}

/// A lab whose routers run agents.
pub struct Cluster {
    // Before the lab, so that agents end before the network does.
    agents: BTreeMap<&'static str, Agent>,
    pub lab: Lab,
    config: Box<dyn Fn(Router) -> String>,
}

impl Cluster {
    /// Builds the article's network and starts both agents.
    pub fn start(config: impl Fn(Router) -> String + 'static) -> Result<Self> {
        Self::start_in(article::lab()?, config)
    }

    /// Starts both agents in a lab that has the article's routers.
    pub fn start_in(lab: Lab, config: impl Fn(Router) -> String + 'static) -> Result<Self> {
        let mut cluster = Self {
            agents: BTreeMap::new(),
            lab,
            config: Box::new(config),
        };
        for router in ROUTERS {
            cluster.start_agent(router)?;
        }
        Ok(cluster)
    }

    pub fn node(&self, router: Router) -> &Node {
        self.lab.node(router.name)
    }

    pub fn start_agent(&mut self, router: Router) -> Result<()> {
        self.start_agent_program(&agent::binary("router-agent")?, router)
    }

    /// As [`Self::start_agent`], of another build.
    pub fn start_agent_program(&mut self, program: &Path, router: Router) -> Result<()> {
        let agent = Agent::start_program(program, self.node(router), &(self.config)(router))?;
        self.agents.insert(router.name, agent);
        Ok(())
    }

    /// The router's agent; it is to be started again by [`Self::start_agent`].
    pub fn take_agent(&mut self, router: Router) -> Result<Agent> {
        self.agents
            .remove(router.name)
            .with_context(|| format!("{} runs no agent", router.name))
    }

    /// The group as `router` sees it.
    pub fn group(&self, router: Router) -> Result<GroupStatus> {
        let mut status = agent::status(self.node(router))?;
        ensure!(status.groups.len() == 1, "one group is configured");
        Ok(status.groups.remove(0))
    }

    /// The router's only heartbeat session.
    pub fn session(&self, router: Router) -> Result<HeartbeatStatus> {
        #[derive(Deserialize)]
        struct Document {
            heartbeat: Vec<HeartbeatStatus>,
        }
        let text = agent::routerctl(self.node(router), &["show", "heartbeat", "--json"])?;
        let Document { mut heartbeat } = serde_json::from_str(&text)?;
        ensure!(heartbeat.len() == 1, "there is one session: {text}");
        heartbeat.pop().context("a session")
    }

    /// `show cluster status` of a router.
    pub fn status_text(&self, router: Router) -> Result<String> {
        agent::routerctl(self.node(router), &["show", "cluster", "status"])
    }

    /// Waits until `router` is active and holds the services, whatever its peer is.
    pub fn await_active(&self, router: Router, within: Duration) -> Result<GroupStatus> {
        poll::until(within, || {
            let group = self.in_state(router, is_active, "active")?;
            for service in &group.services {
                ensure!(
                    service.held,
                    "{} does not hold {}",
                    router.name,
                    service.service
                );
            }
            Ok(group)
        })
    }

    /// Waits until `active` is active, its peer standby, and each knows that the other lives.
    pub fn settle(&self, active: Router) -> Result<()> {
        poll::until(PATIENCE, || self.is_settled(active))
    }

    /// Waits as [`Self::settle`], whichever router is the active one; which.
    pub fn settle_any(&self) -> Result<Router> {
        poll::until(PATIENCE, || {
            let [a, c] = ROUTERS;
            let active = if is_active(&self.group(a)?) { a } else { c };
            self.is_settled(active).map(|()| active)
        })
    }

    /// Lets `fault` happen to `router`; when it did.
    pub fn inject(&mut self, fault: Fault, router: Router) -> Result<BootTime> {
        match fault {
            Fault::KillNode => {
                let instant = self.lab.kill_node(router.name)?;
                self.agents.remove(router.name);
                Ok(instant)
            }
            Fault::KillAgent => {
                let agent = self.take_agent(router)?;
                let instant = clock::now();
                agent.kill()?;
                Ok(instant)
            }
            Fault::StopAgent => {
                let instant = clock::now();
                self.agent(router)?.stop()?;
                Ok(instant)
            }
            Fault::CutTunnel => {
                article::cut_tunnel(&self.lab)?;
                Ok(clock::now())
            }
        }
    }

    /// Makes `router` well again after `fault`; when that began.
    pub fn heal(&mut self, fault: Fault, router: Router) -> Result<BootTime> {
        let instant = clock::now();
        match fault {
            Fault::KillNode => {
                self.lab.reboot(router.name)?;
                self.start_agent(router)?;
            }
            Fault::KillAgent => self.start_agent(router)?,
            Fault::StopAgent => self.agent(router)?.cont()?,
            Fault::CutTunnel => article::heal_tunnel(&self.lab)?,
        }
        Ok(instant)
    }

    /// What the routers' agents have said.
    pub fn logs(&self) -> String {
        ROUTERS
            .map(|router| {
                format!(
                    "--- log of the agent on {} ---\n{}",
                    router.name,
                    agent::log(self.node(router))
                )
            })
            .concat()
    }

    /// Leaves everything running for a person; how to enter, end and remove it.
    pub fn keep(self) -> Result<String> {
        use fmt::Write as _;

        let Self {
            agents,
            lab,
            config: _,
        } = self;
        let mut text = String::new();
        for node in lab.nodes() {
            writeln!(text, "  {:<10} {}", node.name(), node.enter_command())?;
        }
        let directory = lab.keep()?;
        for agent in agents.into_values() {
            agent.keep();
        }
        writeln!(text, "  {:<10} {}", "files", directory.display())?;
        Ok(text)
    }

    pub fn agent(&self, router: Router) -> Result<&Agent> {
        self.agents
            .get(router.name)
            .with_context(|| format!("{} runs no agent", router.name))
    }

    fn is_settled(&self, active: Router) -> Result<()> {
        let groups = [
            self.in_state(active, is_active, "active")?,
            self.in_state(active.peer(), is_standby, "standby")?,
        ];
        for GroupStatus {
            this_node,
            peer_finding,
            ..
        } in groups
        {
            ensure!(
                peer_finding == "alive",
                "{this_node} finds its peer {peer_finding}"
            );
        }
        Ok(())
    }

    fn in_state(
        &self,
        router: Router,
        is: fn(&GroupStatus) -> bool,
        name: &str,
    ) -> Result<GroupStatus> {
        let group = self.group(router)?;
        ensure!(
            is(&group),
            "{} is not {name} but {}: {}",
            router.name,
            group.state,
            group.notes.join("; ")
        );
        Ok(group)
    }
}
