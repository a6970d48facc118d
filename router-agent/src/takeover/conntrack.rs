//! Connections that outlive a failover: drives conntrackd, which tells the peer's of each connection
//! that the kernel tracks. What it is told to do, and when, is as in its own `primary-backup.sh`.
//!
//! The daemon is not a child of the agent: it lives on over an agent that dies or is replaced, and
//! with it what it knows of the peer's connections.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use router_common::identity::Epoch;
use thiserror::Error;
use tokio::{sync::Mutex, time::timeout};
use tracing::{info, warn};

use self::commit::Commits;
use super::command::{Call, CallError, Ended};
use crate::agent::lock;

mod commit;
mod text;

pub use commit::heard;
pub use text::Ways;

/// Where distributions have it.
const PROGRAMS: [&str; 3] = [
    "/usr/sbin/conntrackd",
    "/usr/local/sbin/conntrackd",
    "/sbin/conntrackd",
];
/// The daemon answers within milliseconds. One that hangs must not keep addresses from their turn.
const LIMIT: Duration = Duration::from_secs(1);
/// Of a commit that nothing waits for. Millions of connections take seconds.
const COMMIT_LIMIT: Duration = Duration::from_mins(10);

/// The remedy for one that does not answer.
const ENDS_IT: &str = "`pkill -KILL conntrackd` ends it, and it is started again";

/// Why connections cannot be told of here.
#[derive(Debug, Error)]
pub enum Unusable {
    #[error("conntrackd is not installed")]
    NotInstalled,
    #[error("there is no interface {0}")]
    NoInterface(String),
    #[error("interface {0} has no IPv4 address")]
    NoAddress(String),
    #[error("tunnel {0} carries no multicast, and no peer is stated")]
    NoMulticast(String),
}

impl Unusable {
    pub fn remedy(&self) -> String {
        match self {
            Self::NotInstalled => {
                "install it (`apt-get install conntrackd`), and leave its own service disabled"
                    .into()
            }
            Self::NoInterface(_) => "`ip link` shows what there is".into(),
            Self::NoAddress(name) => format!("`ip address show {name}` shows what it has"),
            Self::NoMulticast(name) => format!(
                "add `set interfaces tunnel {name} multicast enable`, or \
                 `set service conntrack-sync interface {name} peer ADDRESS`"
            ),
        }
    }
}

/// The conntrackd of this agent.
pub struct Conntrackd {
    program: PathBuf,
    files: Files,
    /// Its configuration.
    text: String,
    starting: Mutex<()>,
    commits: Commits,
    /// What was committed last is what the peer knows now.
    is_told: AtomicBool,
}

/// The daemon's of this network namespace. They do not outlive the system's run, as connections do not.
pub struct Files {
    config: PathBuf,
    lock: PathBuf,
    socket: PathBuf,
    /// Under which epoch connections were last committed, while they are this node's.
    epoch: PathBuf,
}

impl Files {
    pub fn of_namespace() -> Result<Self> {
        let file = |name| lock::file_of_namespace(&format!("conntrackd.{name}"));
        Ok(Self {
            config: file("conf")?,
            lock: file("lock")?,
            socket: file("ctl")?,
            epoch: file("epoch")?,
        })
    }
}

/// What the daemon is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Start,
    /// Whether it is there.
    Statistics,
    /// What the peer has told becomes what the kernel knows.
    Commit,
    FlushCaches,
    ReadKernel,
    TellAll,
    /// The kernel is to forget, after a while.
    Forget,
    AskPeer,
    Kill,
}

impl Request {
    const fn flag(self) -> &'static str {
        match self {
            Self::Start => "-d",
            Self::Statistics => "-s",
            Self::Commit => "-c",
            Self::FlushCaches => "-f",
            Self::ReadKernel => "-R",
            Self::TellAll => "-B",
            Self::Forget => "-t",
            Self::AskPeer => "-n",
            Self::Kill => "-k",
        }
    }
}

impl Conntrackd {
    /// Changes nothing.
    pub fn new(ways: &Ways, files: Files) -> Result<Self, Unusable> {
        Ok(Self {
            program: program().ok_or(Unusable::NotInstalled)?,
            text: ways.text(&files.lock, &files.socket),
            files,
            starting: Mutex::default(),
            commits: Commits::default(),
            is_told: AtomicBool::new(false),
        })
    }

    /// Commits what the peer has told of its connections; once under each epoch, because what is
    /// committed replaces what the kernel has, which is newer from then on.
    pub async fn take(&self, epoch: Epoch) -> Result<()> {
        self.is_told.store(false, Ordering::Relaxed);
        if self.committed_under() == Some(epoch) {
            return self.ensure_running().await;
        }
        // One that does not run has nothing to commit.
        if !self.commit(epoch).await?.status.success() {
            self.ensure_running().await?;
        }
        fs::write(&self.files.epoch, epoch.0.to_string())
            .with_context(|| format!("cannot write {}", self.files.epoch.display()))
    }

    /// Whether it runs. What was committed is told to the peer at the first look: nothing waits for
    /// that, as addresses do for the commit.
    pub async fn is_held(&self) -> Result<bool> {
        let statistics = self.ask(Request::Statistics).await?;
        if !statistics.status.success() {
            return Ok(false);
        }
        if !self.is_told.load(Ordering::Relaxed) {
            self.tell(heard(&statistics.output.0)).await?;
            self.is_told.store(true, Ordering::Relaxed);
        }
        Ok(true)
    }

    /// Tells the peer all that this node tracks now. `kept` are the connections that were heard of.
    async fn tell(&self, kept: Option<u64>) -> Result<()> {
        self.demand(Request::FlushCaches).await?;
        // While it commits, it keeps them and says nothing. A new agent does not know of a commit that
        // the one before it asked for: it is told at once that its own is done.
        let left = heard(&self.ask(Request::Statistics).await?.output.0);
        if kept > Some(0) && left >= kept {
            bail!(
                "conntrackd commits still what an agent before this one asked for; the peer is told of \
                 all connections when that is done"
            );
        }
        for request in [Request::ReadKernel, Request::TellAll] {
            self.demand(request).await?;
        }
        Ok(())
    }

    /// Leaves the connections to the peer. Of one that does not run there is nothing to leave.
    pub async fn release(&self) -> Result<()> {
        remove(&self.files.epoch)?;
        for request in [Request::Forget, Request::AskPeer] {
            self.ask(request).await?;
        }
        Ok(())
    }

    /// Hears what the peer tells, while the connections are not this node's.
    pub async fn stand_by(&self) -> Result<()> {
        // Epochs may begin anew.
        remove(&self.files.epoch)?;
        self.ensure_running().await
    }

    /// Starts it unless it runs, by this configuration.
    async fn ensure_running(&self) -> Result<()> {
        let _one_at_a_time = self.starting.lock().await;
        let Files {
            config,
            lock,
            socket: _,
            epoch: _,
        } = &self.files;
        if fs::read_to_string(config).is_ok_and(|text| text == self.text) {
            if self.ask(Request::Statistics).await?.status.success() {
                return Ok(());
            }
        } else {
            if config.exists() {
                self.ask(Request::Kill).await?;
            }
            let new = config.with_extension("new");
            fs::write(&new, &self.text)
                .and_then(|()| fs::rename(&new, config))
                .with_context(|| format!("cannot write {}", config.display()))?;
        }
        // Of one that died.
        remove(lock)?;
        self.demand(Request::Start).await?;
        info!("conntrackd is started");
        Ok(())
    }

    /// What it does must succeed.
    async fn demand(&self, request: Request) -> Result<()> {
        let ended = self.ask(request).await?;
        if !ended.status.success() {
            bail!("{} {}: {ended}", self.program.display(), request.flag());
        }
        Ok(())
    }

    /// Waits for it no longer than an address may be kept from its turn.
    async fn commit(&self, epoch: Epoch) -> Result<Ended> {
        let config = &self.files.config;
        let call = call(&self.program, config, Request::Commit, COMMIT_LIMIT);
        let Ok(ended) = timeout(LIMIT, self.commits.commit(epoch, call)).await else {
            bail!(
                "conntrackd has not answered `{}` within {LIMIT:?}, and goes on: it takes longer the more \
                 connections there are; if it hangs, {ENDS_IT}",
                Request::Commit.flag()
            );
        };
        ended
    }

    async fn ask(&self, request: Request) -> Result<Ended> {
        ask(&self.program, &self.files.config, request).await
    }

    fn committed_under(&self) -> Option<Epoch> {
        let text = fs::read_to_string(&self.files.epoch).ok()?;
        text.parse().ok().map(Epoch)
    }
}

/// Ends the daemon that an agent before this one, or this one, has started.
pub async fn end() {
    if let Err(error) = try_to_end().await {
        warn!("cannot end conntrackd: {error:#}");
    }
}

async fn try_to_end() -> Result<()> {
    let Files {
        config,
        lock,
        socket,
        epoch,
    } = Files::of_namespace()?;
    if !config.exists() {
        return Ok(());
    }
    let ended = match program() {
        Some(program) => ask(&program, &config, Request::Kill).await.map(drop),
        None => Err(Unusable::NotInstalled.into()),
    };
    for file in [config, lock, socket, epoch] {
        remove(&file)?;
    }
    ended?;
    info!("conntrackd is ended");
    Ok(())
}

fn program() -> Option<PathBuf> {
    let mut programs = PROGRAMS.iter().map(PathBuf::from);
    programs.find(|program| program.is_file())
}

fn call(program: &Path, config: &Path, request: Request, limit: Duration) -> Call {
    Call {
        program: program.to_owned(),
        arguments: ["-C", &config.to_string_lossy(), request.flag()]
            .map(ToOwned::to_owned)
            .to_vec(),
        environment: Vec::new(),
        limit,
    }
}

async fn ask(program: &Path, config: &Path, request: Request) -> Result<Ended> {
    match call(program, config, request, LIMIT).run().await {
        Err(CallError::TooLong { .. }) => bail!(
            "conntrackd has not answered `{}` within {LIMIT:?}: {ENDS_IT}",
            request.flag()
        ),
        result => Ok(result?),
    }
}

/// It may have gone already.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    /// It keeps what it has heard while there is a file `committing`, and notes what it is asked.
    const DAEMON: &str = r#"
cd "${0%/*}"
echo "$*" >> asked
case $1 in
    -s) printf 'cache external:\ncurrent active connections:\t%12u\n' "$(cat heard)" ;;
    -f) test -e committing || echo 0 >| heard ;;
esac
"#;

    #[tokio::test]
    async fn the_peer_is_told_when_a_commit_of_the_agent_before_is_done() {
        let directory = env::temp_dir().join(format!("router-conntrack-{}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = |name| directory.join(name);
        let daemon = Conntrackd {
            // `sh -C FILE -s` runs it, and overwrites nothing but by `>|`.
            program: "/bin/sh".into(),
            files: Files {
                config: file("daemon"),
                lock: file("lock"),
                socket: file("socket"),
                epoch: file("epoch"),
            },
            text: DAEMON.to_owned(),
            starting: Mutex::default(),
            commits: Commits::default(),
            is_told: AtomicBool::new(false),
        };
        fs::write(&daemon.files.config, DAEMON).unwrap();
        fs::write(file("heard"), "7").unwrap();
        fs::write(file("committing"), "").unwrap();
        daemon.take(Epoch(3)).await.unwrap();
        let told = || {
            let asked = fs::read_to_string(file("asked")).unwrap();
            asked.lines().filter(|flag| *flag == "-B").count()
        };
        let error = daemon.is_held().await.unwrap_err();
        assert!(error.to_string().contains("commits still"), "{error}");
        assert_eq!(told(), 0);
        fs::remove_file(file("committing")).unwrap();
        for _ in 0..2 {
            assert!(daemon.is_held().await.unwrap());
            assert_eq!(told(), 1);
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
