//! Routers and their arbiter under random faults, and an oracle over every packet that came through.
//!
//! Each packet is offered to both routers, whoever is active, so that one which forwards out of turn is
//! seen. Which epoch a packet is of follows from who forwarded it, and from the routers' histories.

use std::{collections::BTreeMap, fmt, thread::sleep, time::Duration};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use router_common::time::BootTime;
use rustix::process::Signal;

use crate::{
    article::{
        self, ARBITER, ARBITER_ADDRESS, CLIENT, CLOUD, PROTECT, ROUTERS, Router, SERVER,
        SERVER_ADDRESS,
    },
    cluster::{Cluster, Fault as NodeFault, PATIENCE},
    etcd::Etcd,
    poll,
    traffic::{Report, Traffic},
};

/// Between packets.
const PACE: Duration = Duration::from_micros(500);
/// The server's second address, to which the client's way leads through the secondary.
const OTHER_ADDRESS: &str = "10.0.9.101";
const ETCD_MEMBERS: usize = 3;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    KillNode(Router),
    KillAgent(Router),
    StopAgent(Router),
    /// The agent ends in order, and another one comes.
    RestartAgent(Router),
    /// The agent leaves everything to its successor.
    ReplaceAgent(Router),
    /// The path between the routers.
    Cut,
    /// What this router sends to the other.
    CutFrom(Router),
    /// Of the path between the routers, so many of a hundred packets.
    Loss(u32),
    StopEtcd,
    KillEtcdMember(usize),
    CutFromArbiter(Router),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillNode(router) => write!(f, "kill {}", router.name),
            Self::KillAgent(router) => write!(f, "kill the agent of {}", router.name),
            Self::StopAgent(router) => write!(f, "stop the agent of {}", router.name),
            Self::RestartAgent(router) => write!(f, "restart the agent of {}", router.name),
            Self::ReplaceAgent(router) => write!(f, "replace the agent of {}", router.name),
            Self::Cut => f.write_str("cut the path"),
            Self::CutFrom(router) => write!(f, "cut the path from {}", router.name),
            Self::Loss(percent) => write!(f, "lose {percent} % on the path"),
            Self::StopEtcd => f.write_str("stop etcd"),
            Self::KillEtcdMember(member) => write!(f, "kill etcd member {member}"),
            Self::CutFromArbiter(router) => write!(f, "cut {} from etcd", router.name),
        }
    }
}

impl Fault {
    fn draw(random: &mut Rng) -> Self {
        let router = ROUTERS[random.usize(..ROUTERS.len())];
        match random.u8(..11) {
            0 => Self::KillNode(router),
            1 => Self::KillAgent(router),
            2 => Self::StopAgent(router),
            3 => Self::RestartAgent(router),
            4 => Self::ReplaceAgent(router),
            5 => Self::Cut,
            6 => Self::CutFrom(router),
            7 => Self::Loss(random.u32(10..60)),
            8 => Self::StopEtcd,
            9 => Self::KillEtcdMember(random.usize(..ETCD_MEMBERS)),
            _ => Self::CutFromArbiter(router),
        }
    }

    /// Whether both can happen at once: no two to the same agent, none twice.
    fn goes_with(self, other: Self) -> bool {
        match (self.agent(), other.agent()) {
            (Some(one), Some(another)) => one != another,
            (None, None) => self.is_of_path() != other.is_of_path(),
            (Some(_), None) | (None, Some(_)) => true,
        }
    }

    fn agent(self) -> Option<Router> {
        match self {
            Self::KillNode(router)
            | Self::KillAgent(router)
            | Self::StopAgent(router)
            | Self::RestartAgent(router)
            | Self::ReplaceAgent(router) => Some(router),
            Self::Cut
            | Self::CutFrom(_)
            | Self::Loss(_)
            | Self::StopEtcd
            | Self::KillEtcdMember(_)
            | Self::CutFromArbiter(_) => None,
        }
    }

    fn is_of_path(self) -> bool {
        matches!(self, Self::Cut | Self::CutFrom(_) | Self::Loss(_))
    }
}

/// The lab in which it happens. Agents end before etcd does.
pub struct Scene {
    pub cluster: Cluster,
    etcd: Option<Etcd>,
    /// When each epoch began and whose it is, as far as any history tells.
    epochs: BTreeMap<u32, (Router, BootTime)>,
}

/// What came of a round.
#[derive(Debug)]
pub struct Round {
    pub faults: Vec<Fault>,
    pub verdict: Verdict,
    /// The longest time in which nothing came through.
    pub without_service: Duration,
}

/// What the oracle says of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Packets that came through.
    pub packets: usize,
    /// Of them, those that were sent after a packet of a newer epoch had arrived.
    pub out_of_turn: usize,
    /// The first and the last of these.
    pub violations: Option<[Violation; 2]>,
    /// Of the packets, those of routers that were never active, as far as is known.
    pub unexplained: usize,
}

/// A packet that came through out of turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    pub router: &'static str,
    pub epoch: u32,
    pub sent: BootTime,
    pub newer: u32,
    /// When the first packet of that had arrived.
    pub since: BootTime,
}

impl Scene {
    /// With an arbiter: its lines of configuration are added to those that `config` gives.
    pub fn with_arbiter(config: impl Fn(Router) -> String + 'static) -> Result<Self> {
        let lab = article::lab_with_arbiter()?;
        let etcd = Etcd::start(lab.node(ARBITER), ARBITER_ADDRESS, ETCD_MEMBERS)?;
        let lines = etcd.config();
        let cluster = Cluster::start_in(lab, move |router| config(router) + &lines)?;
        Self::prepared(cluster, Some(etcd))
    }

    pub fn without_arbiter(config: impl Fn(Router) -> String + 'static) -> Result<Self> {
        Self::prepared(Cluster::start(config)?, None)
    }

    fn prepared(cluster: Cluster, etcd: Option<Etcd>) -> Result<Self> {
        let client = cluster.lab.node(CLIENT);
        for (host, way) in [(SERVER_ADDRESS, 11), (OTHER_ADDRESS, 12)] {
            client.ip_batch(&[
                format!("neigh replace 10.0.0.{way} lladdr 02:00:00:00:00:{way:02x} dev eth0 nud permanent"),
                format!("route replace {host}/32 via 10.0.0.{way}"),
            ])?;
        }
        let address = format!("address add {OTHER_ADDRESS}/24 dev eth0");
        cluster.lab.node(SERVER).ip_batch(&[address])?;
        let mut scene = Self {
            cluster,
            etcd,
            epochs: BTreeMap::new(),
        };
        let settled = scene.cluster.settle_any();
        settled.with_context(|| format!("the pair did not form\n{}", scene.cluster.logs()))?;
        scene.note_epochs();
        Ok(scene)
    }

    /// Traffic through both routers.
    pub fn traffic(&self) -> Result<Traffic> {
        let lab = &self.cluster.lab;
        let addresses = [SERVER_ADDRESS, OTHER_ADDRESS];
        Traffic::start_by_ways(lab.node(CLIENT), lab.node(SERVER), &addresses, PACE)
    }

    /// One or two faults, and the way back to a pair that is well.
    pub fn round(&mut self, random: &mut Rng) -> Result<Round> {
        let mut faults = vec![Fault::draw(random)];
        if random.bool() {
            let second = Fault::draw(random);
            if faults[0].goes_with(second) {
                faults.push(second);
            }
        }
        let pause = |random: &mut Rng| sleep(Duration::from_millis(random.u64(20..900)));
        let traffic = self.traffic()?;
        sleep(Duration::from_millis(200));
        for &fault in &faults {
            self.note_epochs();
            self.inject(fault).with_context(|| fault.to_string())?;
            pause(random);
        }
        let mut order = faults.clone();
        random.shuffle(&mut order);
        for fault in order {
            self.note_epochs();
            self.heal(fault)
                .with_context(|| format!("the end of: {fault}"))?;
            pause(random);
        }
        let settled = self.cluster.settle_any();
        settled.with_context(|| format!("after {faults:?}\n{}", self.cluster.logs()))?;
        sleep(Duration::from_millis(200));
        self.note_epochs();
        let report = traffic.finish()?;
        Ok(Round {
            faults,
            verdict: self.judge(&report),
            without_service: report
                .longest_gap()
                .map_or(Duration::MAX, |gap| gap.to.since(gap.from)),
        })
    }

    fn inject(&mut self, fault: Fault) -> Result<()> {
        let lab = &self.cluster.lab;
        match fault {
            Fault::KillNode(router) => self.cluster.inject(NodeFault::KillNode, router).map(drop),
            Fault::KillAgent(router) => self.cluster.inject(NodeFault::KillAgent, router).map(drop),
            Fault::StopAgent(router) => self.cluster.inject(NodeFault::StopAgent, router).map(drop),
            Fault::RestartAgent(router) => {
                self.cluster.take_agent(router)?.terminate()?;
                self.cluster.start_agent(router)
            }
            Fault::ReplaceAgent(router) => {
                self.cluster.take_agent(router)?.detach()?;
                self.cluster.start_agent(router)
            }
            Fault::Cut => article::cut_tunnel(lab),
            Fault::CutFrom(router) => article::cut_tunnel_from(lab, router.name),
            Fault::Loss(percent) => lose(&self.cluster, percent),
            Fault::StopEtcd => self.etcd()?.signal_all(Signal::STOP),
            Fault::KillEtcdMember(member) => {
                let etcd = self.etcd.as_mut().context("there is an etcd")?;
                etcd.kill_member(member)
            }
            Fault::CutFromArbiter(router) => article::cut_from_arbiter(lab, router.name),
        }
    }

    fn heal(&mut self, fault: Fault) -> Result<()> {
        let lab = &self.cluster.lab;
        match fault {
            Fault::KillNode(router) => self.boot(router),
            Fault::KillAgent(router) => self.cluster.heal(NodeFault::KillAgent, router).map(drop),
            Fault::StopAgent(router) => self.cluster.heal(NodeFault::StopAgent, router).map(drop),
            Fault::RestartAgent(_) | Fault::ReplaceAgent(_) => Ok(()),
            Fault::Cut | Fault::CutFrom(_) => article::heal_tunnel(lab),
            Fault::Loss(_) => lab
                .node(CLOUD)
                .exec(&["nft", "delete", "table", "ip", "chaos"])
                .map(drop),
            Fault::StopEtcd => self.etcd()?.signal_all(Signal::CONT),
            Fault::KillEtcdMember(member) => {
                let etcd = self.etcd.as_mut().context("there is an etcd")?;
                etcd.start_member(lab.node(ARBITER), member)
            }
            Fault::CutFromArbiter(router) => article::heal_to_arbiter(lab, router.name),
        }
    }

    /// As the documentation has it: without fences the kernel forwards nothing yet.
    fn boot(&mut self, router: Router) -> Result<()> {
        self.cluster.lab.reboot_without_forwarding(router.name)?;
        self.cluster.start_agent(router)?;
        poll::until(PATIENCE, || self.cluster.group(router))?;
        self.cluster.node(router).start_forwarding()
    }

    fn etcd(&self) -> Result<&Etcd> {
        self.etcd.as_ref().context("there is an etcd")
    }

    /// Asks the routers that answer for their activations.
    pub fn note_epochs(&mut self) {
        for router in ROUTERS {
            let Ok(group) = self.cluster.group(router) else {
                continue;
            };
            for change in group
                .transitions
                .iter()
                .filter(|change| change.to == "active")
            {
                let at = BootTime::from_ns(change.at_ns);
                self.epochs.insert(change.epoch, (router, at));
            }
        }
    }

    /// Whether what came through came in turn.
    pub fn judge(&self, report: &Report) -> Verdict {
        let mut verdict = Verdict {
            packets: report.arrivals().len(),
            ..Verdict::default()
        };
        // The newest epoch of which a packet has arrived, and when the first one did.
        let mut newest: Option<(u32, BootTime)> = None;
        for arrival in report.arrivals() {
            let Some(epoch) = self.epoch_of(arrival.from, arrival.at) else {
                verdict.unexplained += 1;
                continue;
            };
            match newest {
                Some((known, since)) if epoch < known => {
                    if arrival.sent >= since {
                        verdict.out_of_turn += 1;
                        let violation = Violation {
                            router: Router::by_mac(arrival.from).map_or("?", |it| it.name),
                            epoch,
                            sent: arrival.sent,
                            newer: known,
                            since,
                        };
                        let first = verdict.violations.map_or(violation, |[first, _]| first);
                        verdict.violations = Some([first, violation]);
                    }
                }
                Some((known, _)) if epoch == known => {}
                Some(_) | None => newest = Some((epoch, arrival.at)),
            }
        }
        verdict
    }

    /// Under which epoch the router of this address forwarded what arrived then.
    fn epoch_of(&self, mac: [u8; 6], at: BootTime) -> Option<u32> {
        let router = Router::by_mac(mac)?;
        let of_it =
            |(_, (owner, began)): &(&u32, &(Router, BootTime))| *owner == router && *began <= at;
        self.epochs.iter().rfind(of_it).map(|(epoch, _)| *epoch)
    }
}

/// Loses packets where the cloud forwards them between the routers.
fn lose(cluster: &Cluster, percent: u32) -> Result<()> {
    let rules = format!(
        "add table ip chaos; \
         add chain ip chaos forward {{ type filter hook forward priority 0; }}; \
         add rule ip chaos forward ip protocol gre numgen random mod 100 < {percent} drop"
    );
    cluster.lab.node(CLOUD).exec(&["nft", &rules]).map(drop)
}

/// The configuration that all rounds run with: fences at both sides, and timing that makes much happen in
/// little time.
pub fn config(router: Router) -> String {
    router.article_config()
        + PROTECT
        + "set cluster keepalive-interval 10
set cluster dead-interval 100
set cluster agent-dead-interval 500
"
}

/// The arbiter's times for that.
pub const ARBITER_TIMES: &str = "set cluster arbiter etcd term 900
set cluster arbiter etcd timeout 100
";
