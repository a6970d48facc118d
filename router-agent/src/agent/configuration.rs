//! The configuration that runs, and the one that is to take its place.
//!
//! Three texts: the file that the agent starts with, the last good one, and a candidate. A change is
//! checked whole, then a new agent takes this one's place with the candidate. If it comes to run, and is
//! confirmed where that was asked for, the candidate becomes the file and the last good one. If not, an
//! agent with the last good one takes its place. A process that dies meanwhile is started again with
//! the file, which is untouched.

mod files;
mod peer;

use std::{
    fmt::Display,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures::future::{BoxFuture, FutureExt as _};
use router_common::time::BootTime;
use tokio::{
    sync::{mpsc::UnboundedSender, oneshot},
    task::spawn_blocking,
    time::timeout,
};
use tracing::{info, warn};

use super::{
    Options,
    board::{self, whole_ms},
    lock, setup,
    succession::{Purpose, Succession},
};
use crate::{
    clock,
    config::{self, Cluster, Config, Facts, Loaded, Secret, Secrets},
    control::{
        permission::Access,
        protocol::{ConfigurationStatus, Configured, Configuring, LastChange},
        server::Step,
    },
    net::Netlink,
};

/// Extension of the file that holds the last good configuration.
const LAST_GOOD: &str = "last-good";

/// How an agent begins.
pub struct Beginning {
    pub loaded: Loaded,
    /// What was known of the system when it was checked.
    pub facts: Facts,
    pub succession: Option<Succession>,
}

/// The configuration that the agent runs by.
pub struct Configuration {
    facts: Facts,
    options: Options,
    netlink: Netlink,
    last_good: PathBuf,
    candidate: PathBuf,
    /// Agents that are to take this one's place.
    successions: UnboundedSender<Succession>,
    /// Whether another agent is about to take this one's place. Changes are planned one at a time.
    is_ending: tokio::sync::Mutex<bool>,
    state: Mutex<State>,
}

struct State {
    running: Arc<Loaded>,
    /// When the last good one comes back; none if what runs is good.
    unconfirmed_until: Option<BootTime>,
    last_change: Option<LastChange>,
}

impl Configuration {
    pub fn new(
        beginning: Beginning,
        options: Options,
        netlink: Netlink,
        successions: UnboundedSender<Succession>,
    ) -> Result<Self> {
        let Beginning {
            loaded,
            facts,
            succession,
        } = beginning;
        Ok(Self {
            facts,
            options,
            netlink,
            last_good: lock::file_of_namespace(LAST_GOOD)?,
            candidate: lock::file_of_namespace("candidate")?,
            successions,
            is_ending: tokio::sync::Mutex::new(false),
            state: Mutex::new(State {
                running: Arc::new(loaded),
                unconfirmed_until: succession.as_ref().and_then(Succession::confirm_until),
                last_change: succession.map(|succession| LastChange {
                    ticket: succession.ticket,
                    rolled_back: match succession.purpose {
                        Purpose::Try { .. } => None,
                        Purpose::GoBack { reason } => Some(reason),
                    },
                }),
            }),
        })
    }

    /// The agent has come to run by it.
    pub fn begun(&self) -> Result<()> {
        let (until, last_change) = {
            let state = self.state();
            (state.unconfirmed_until, state.last_change.clone())
        };
        match (until, last_change) {
            (Some(until), _) => {
                let left = until.since(clock::now());
                info!(
                    "the new configuration waits to be confirmed within {} s",
                    left.as_secs()
                );
                Ok(())
            }
            (None, None) => {
                if let Err(error) = self.keep_as_last_good() {
                    warn!("{error:#}: until that is mended, no other configuration can be applied");
                }
                Ok(())
            }
            (
                None,
                Some(LastChange {
                    rolled_back: Some(reason),
                    ..
                }),
            ) => {
                warn!("the last good configuration runs again: {reason}");
                Ok(())
            }
            (None, Some(_)) => {
                info!("the new configuration runs");
                self.accept()
            }
        }
    }

    pub fn status(&self, secrets: Secrets, with_defaults: bool) -> ConfigurationStatus {
        let state = self.state();
        let left = |until: BootTime| whole_ms(until.since(clock::now()));
        ConfigurationStatus {
            file: self.options.config.display().to_string(),
            statements: if with_defaults {
                state.running.in_effect(secrets)
            } else {
                state.running.stated(secrets)
            },
            unconfirmed_for_ms: state.unconfirmed_until.map(left),
            last_change: state.last_change.clone(),
        }
    }

    /// Makes a step of a change.
    pub fn step<'a>(
        &'a self,
        step: Configuring,
        live: &'a board::Facts,
    ) -> BoxFuture<'a, Result<Step, String>> {
        async move {
            match step {
                Configuring::Apply {
                    name,
                    text,
                    confirm_within_s,
                    dry_run,
                } => {
                    let within = confirm_within_s.map(|s| Duration::from_secs(s.into()));
                    self.apply(name, text, within, dry_run, live).await
                }
                Configuring::Confirm => self.confirm(),
                Configuring::RollBack => self.roll_back(),
            }
            .map_err(|error| format!("{error:#}"))
        }
        .boxed()
    }

    /// The file may have been edited: applies what it says now.
    pub async fn reload(&self, live: &board::Facts) -> Result<Option<Succession>> {
        let path = &self.options.config;
        let new = self.load(path.clone()).await?;
        states_something(&new, &path.display())?;
        if let Some(order) = self.order_of_nodes(&new, live) {
            warn!("{order}");
        }
        let plan = self.plan(new, None, live).await?;
        for change in &plan.changes {
            info!("configuration: {change}");
        }
        if plan.succession.is_none() {
            info!("{} changes nothing", path.display());
        }
        Ok(plan.succession)
    }

    /// When the last good configuration comes back unless it is confirmed before.
    pub fn unconfirmed_until(&self) -> Option<BootTime> {
        self.state().unconfirmed_until
    }

    /// An agent that goes back to the last good configuration.
    pub fn way_back(&self, reason: impl Into<String>) -> Succession {
        Succession {
            ticket: self.state().last_change.as_ref().map_or(0, |l| l.ticket),
            configuration: self.last_good.clone(),
            purpose: Purpose::GoBack {
                reason: reason.into(),
            },
        }
    }

    async fn apply(
        &self,
        name: String,
        text: Secret,
        within: Option<Duration>,
        dry_run: bool,
        live: &board::Facts,
    ) -> Result<Step> {
        let (facts, strict) = (self.facts.clone(), self.options.strict);
        // A large one takes its time, in which the agent has other things to do.
        let check = move || {
            let new = config::parse(&name, text.expose(), &facts, strict)?;
            states_something(&new, &name)?;
            anyhow::Ok(new)
        };
        let new = spawn_blocking(check)
            .await
            .context("the check has failed")??;
        let order = self.order_of_nodes(&new, live);
        let note = order.map_or_else(String::new, |order| format!("note: {order}\n"));
        let warnings = new.render_warnings(false) + &note;
        if dry_run {
            return Ok(Step {
                configured: Configured {
                    changes: self.running().difference(&new),
                    warnings,
                    ticket: None,
                },
                afterwards: None,
            });
        }
        let Planned {
            changes,
            succession,
        } = self.plan(new, within, live).await?;
        let ticket = succession.as_ref().map(|succession| succession.ticket);
        Ok(Step {
            configured: Configured {
                changes,
                warnings,
                ticket,
            },
            afterwards: succession.map(|succession| self.later(succession)),
        })
    }

    /// Checks all that can be checked before anything is changed, and writes the candidate.
    async fn plan(
        &self,
        new: Loaded,
        within: Option<Duration>,
        live: &board::Facts,
    ) -> Result<Planned> {
        let mut is_ending = self.is_ending.lock().await;
        if *is_ending {
            bail!("another change is being made; try again when it is done");
        }
        if self.unconfirmed_until().is_some() {
            bail!(
                "a change waits to be confirmed: `routerctl configure confirm` keeps it, \
                 `routerctl configure rollback` takes it back"
            );
        }
        let running = self.running();
        let changes = running.difference(&new);
        let (old_cluster, new_cluster) = (&running.config.cluster, &new.config.cluster);
        peer::keeps_talking(old_cluster.as_ref(), new_cluster.as_ref(), live)?;
        if does_the_same(&running.config, &new.config, live) {
            self.take_in(new)?;
            return Ok(Planned {
                changes,
                succession: None,
            });
        }
        peer::keeps_ticking(old_cluster.as_ref(), new_cluster.as_ref())?;
        peer::has_way_back(old_cluster.as_ref(), live)?;
        setup::plan(&new.config, &self.options, &self.netlink).await?;
        find_groups(&new.config).await?;
        self.try_to_save(new.text())?;
        self.keep_as_last_good()
            .context("there would be no way back")?;
        let trial_start = Self::trial_start(&running.config, &new.config);
        let ticket = getrandom::u32().context("cannot draw a random number")?;
        files::write_private(&self.candidate, new.text())?;
        let confirm_until = within.map(|within| clock::now().after(within));
        *is_ending = true;
        Ok(Planned {
            changes,
            succession: Some(Succession {
                ticket,
                configuration: self.candidate.clone(),
                purpose: Purpose::Try {
                    run_by_ns: clock::now().after(trial_start).as_ns(),
                    confirm_until_ns: confirm_until.map(BootTime::as_ns),
                },
            }),
        })
    }

    /// How long a start with another configuration may take: of the time after which the peer takes this
    /// node's agent for dead, the third that is left is for the way back. The peer may have either of the two
    /// configurations.
    fn trial_start(old: &Config, new: &Config) -> Duration {
        /// Less than a supervisor's watchdog waits, and than routerctl does.
        const LONGEST: Duration = Duration::from_secs(20);
        let dead = |config: &Config| config.cluster.as_ref().map(|c| c.agent_dead_interval);
        let shortest = dead(old).into_iter().chain(dead(new)).min();
        shortest.map_or(LONGEST, |dead| (dead * 2 / 3).min(LONGEST))
    }

    fn confirm(&self) -> Result<Step> {
        if self.state().unconfirmed_until.is_none() {
            bail!("no change waits to be confirmed");
        }
        self.accept()?;
        self.state().unconfirmed_until = None;
        info!("the new configuration is confirmed");
        Ok(done(None))
    }

    fn roll_back(&self) -> Result<Step> {
        if self.unconfirmed_until().is_none() {
            bail!("no change waits to be confirmed");
        }
        let succession = self.way_back("an operator took it back");
        let ticket = succession.ticket;
        Ok(Step {
            afterwards: Some(self.later(succession)),
            ..done(Some(ticket))
        })
    }

    /// The text that runs is good: a start uses it from now on.
    fn accept(&self) -> Result<()> {
        self.save(self.running().text())?;
        self.keep_as_last_good()
    }

    /// What does the same runs already.
    fn take_in(&self, new: Loaded) -> Result<()> {
        self.save(new.text())?;
        self.state().running = Arc::new(new);
        self.keep_as_last_good()
    }

    fn keep_as_last_good(&self) -> Result<()> {
        files::replace(&self.last_good, self.running().text())
    }

    /// The cluster of the file that the agent starts with; none if it would not start.
    pub async fn next_cluster(&self) -> Option<Cluster> {
        self.load(self.saved_at()).await.ok()?.config.cluster
    }

    async fn load(&self, file: PathBuf) -> Result<Loaded> {
        let (facts, strict) = (self.facts.clone(), self.options.strict);
        let loaded = spawn_blocking(move || config::load(&file, &facts, strict))
            .await
            .context("the check has failed")??;
        Ok(loaded)
    }

    fn running(&self) -> Arc<Loaded> {
        Arc::clone(&self.state().running)
    }

    /// Writes the file that the agent starts with.
    fn save(&self, text: &str) -> Result<()> {
        files::replace(&self.saved_at(), text)
    }

    /// Whether the file can be written later on, when it would be too late to find that out.
    fn try_to_save(&self, text: &str) -> Result<()> {
        let path = self.saved_at();
        files::could_replace(&path, text).with_context(|| {
            format!(
                "{} could not be replaced, so that the next start would not have the change: let \
                 the agent's user write to its directory",
                path.display()
            )
        })
    }

    /// The file that the agent starts with. A link stays one.
    fn saved_at(&self) -> PathBuf {
        let path = &self.options.config;
        fs::canonicalize(path).unwrap_or_else(|_| path.clone())
    }

    fn order_of_nodes(&self, new: &Loaded, live: &board::Facts) -> Option<String> {
        let running = self.running();
        let (old, new) = (&running.config.cluster, &new.config.cluster);
        peer::order_of_nodes(old.as_ref(), new.as_ref(), live)
    }

    fn later(&self, succession: Succession) -> Box<dyn FnOnce() + Send> {
        let successions = self.successions.clone();
        Box::new(move || {
            // The receiver is gone only when the agent stops.
            let _ = successions.send(succession);
        })
    }

    /// A panic elsewhere leaves the state whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the agent does already what `new` says: it means the same, or states the secrets that were changed
/// meanwhile.
fn does_the_same(running: &Config, new: &Config, live: &board::Facts) -> bool {
    let mut with_old_secrets = new.clone();
    if let (Some(new), Some(old)) = (&mut with_old_secrets.cluster, &running.cluster) {
        new.secret.clone_from(&old.secret);
        new.previous_secret.clone_from(&old.previous_secret);
    }
    let has_secrets = new.cluster.as_ref().is_none_or(|c| live.has_secrets_of(c));
    running == new || (running == &with_old_secrets && has_secrets)
}

/// What was cut off while it was written, or never came by a pipe, must not end the router.
fn states_something(new: &Loaded, name: &dyn Display) -> Result<()> {
    if new.stated(Secrets::Masked).is_empty() {
        bail!(
            "{name} states nothing, and this router would do nothing any more: stop the agent if that is \
             what you mean"
        );
    }
    Ok(())
}

struct Planned {
    changes: Vec<config::Change>,
    /// None if there is nothing to carry out.
    succession: Option<Succession>,
}

fn done(ticket: Option<u32>) -> Step {
    Step {
        configured: Configured {
            ticket,
            ..Configured::default()
        },
        afterwards: None,
    }
}

/// An agent that goes back to the last good configuration, because this one could not begin.
pub fn way_back(trial: &Succession, error: &anyhow::Error) -> Result<Succession> {
    Ok(Succession {
        ticket: trial.ticket,
        configuration: lock::file_of_namespace(LAST_GOOD)?,
        purpose: Purpose::GoBack {
            reason: format!("{error:#}"),
        },
    })
}

/// Looks for the groups of the control socket. At a start they may come later, but an operator who names one
/// that there is not has mistaken it.
async fn find_groups(config: &Config) -> Result<()> {
    const LONGEST: Duration = Duration::from_secs(5);
    let access = Access::of(&config.control);
    let (found, answer) = oneshot::channel();
    // The runtime would wait for one of its own threads when it ends.
    thread::Builder::new()
        .name("groups".to_owned())
        .spawn(move || found.send(access.find()))
        .context("cannot start a thread")?;
    let remedy = "make it (`groupadd --system GROUP`), or name one that `getent group` shows";
    match timeout(LONGEST, answer).await {
        Ok(Ok(Err(error))) => bail!("service control: {error}: {remedy}"),
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Err(_)) | Err(_) => bail!(
            "service control: the groups could not be looked up within {LONGEST:?}: `getent group` \
             shows what the system's sources say"
        ),
    }
}
