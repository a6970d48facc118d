//! systemd's units, over D-Bus (org.freedesktop.systemd1(5)).

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use zbus::{Connection, proxy, proxy::CacheProperties, zvariant::OwnedObjectPath};

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

#[proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1"
)]
trait Unit {
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn load_state(&self) -> zbus::Result<String>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Start,
    Stop,
}

/// Starts the unit and waits until systemd says that it is.
pub async fn start(name: &str) -> Result<()> {
    run(name, Job::Start).await
}

/// Stops the unit; it may be stopped already, or unknown, as one that does not run and has no file.
pub async fn stop(name: &str) -> Result<()> {
    run(name, Job::Stop).await
}

pub async fn is_active(name: &str) -> Result<bool> {
    let bus = connect().await?;
    let state = unit(&bus, name).await?.active_state().await?;
    Ok(matches!(&*state, "active" | "reloading" | "activating"))
}

/// Whether systemd knows the unit and could start it.
pub async fn check(name: &str) -> Result<()> {
    let bus = connect().await?;
    match &*unit(&bus, name).await?.load_state().await? {
        "loaded" => Ok(()),
        "not-found" => {
            bail!("systemd knows no unit {name}: `systemctl list-unit-files` shows them")
        }
        "masked" => bail!("the unit {name} is masked: `systemctl unmask {name}`"),
        other => bail!("the unit {name} is {other}: `systemctl status {name}` says why"),
    }
}

async fn run(name: &str, job: Job) -> Result<()> {
    let bus = connect().await?;
    let manager = ManagerProxy::new(&bus).await?;
    manager
        .subscribe()
        .await
        .context("systemd does not answer")?;
    // Before the job begins: it may be over at once.
    let mut removed = manager.receive_job_removed().await?;
    let begun = match job {
        Job::Start => manager.start_unit(name, "replace").await,
        Job::Stop => manager.stop_unit(name, "replace").await,
    };
    if job == Job::Stop && begun.as_ref().is_err_and(is_unknown) {
        return Ok(());
    }
    let path = begun.with_context(|| format!("systemd refuses to {} {name}", job.word()))?;
    while let Some(signal) = removed.next().await {
        let ended = signal.args()?;
        if ended.job != path {
            continue;
        }
        return match ended.result {
            "done" | "skipped" => Ok(()),
            result => bail!(
                "cannot {} {name}: {result}; `journalctl -u {name}` says more",
                job.word()
            ),
        };
    }
    bail!("the connection to systemd has ended")
}

fn is_unknown(error: &zbus::Error) -> bool {
    const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
    matches!(error, zbus::Error::MethodError(name, ..) if *name == NO_SUCH_UNIT)
}

impl Job {
    const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// Anew each time, so that a bus that was started again is no trouble.
async fn connect() -> Result<Connection> {
    Connection::system()
        .await
        .context("cannot reach systemd by the system's D-Bus: is dbus installed and running?")
}

async fn unit<'a>(bus: &Connection, name: &str) -> Result<UnitProxy<'a>> {
    let path = ManagerProxy::new(bus).await?.load_unit(name).await;
    let path = path.with_context(|| format!("systemd does not load the unit {name}"))?;
    let unit = UnitProxy::builder(bus)
        .path(path)?
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    Ok(unit)
}
