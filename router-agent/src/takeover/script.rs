//! Scripts in the calling form of heartbeat and LSB: `NAME ARGUMENT… start|stop|status`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};
use router_common::identity::Epoch;
use tracing::{info, warn};

use super::command::{Call, Ended, check_executable};
use crate::config::ScriptCall;

/// Where heartbeat looked for resources, in its order.
const HEARTBEAT: &str = "/etc/ha.d/resource.d";
const LSB: &str = "/etc/init.d";

const START_LIMIT: Duration = Duration::from_secs(30);
const STATUS_LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Start,
    Stop,
    Status,
}

impl Verb {
    const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Status => "status",
        }
    }

    const fn limit(self) -> Duration {
        match self {
            Self::Start | Self::Stop => START_LIMIT,
            Self::Status => STATUS_LIMIT,
        }
    }
}

/// The script of this name, in the first of the directories that has one.
pub fn find(call: &ScriptCall) -> Result<PathBuf> {
    let Some(path) = present(call) else {
        bail!(
            "there is no script {name} in {HEARTBEAT} or {LSB}; a systemd unit is written with its suffix, \
             {name}.service",
            name = call.name
        )
    };
    check_executable(&path)?;
    Ok(path)
}

fn present(call: &ScriptCall) -> Option<PathBuf> {
    let mut paths = [HEARTBEAT, LSB]
        .map(|directory| Path::new(directory).join(&call.name))
        .into_iter();
    paths.find(|path| path.exists())
}

/// Starts it; it may run already.
pub async fn start(call: &ScriptCall, group: &str, epoch: Epoch) -> Result<()> {
    run(call, Verb::Start, group, epoch).await
}

/// Stops it; it may have stopped already. What has no script any more cannot be stopped, now or later.
pub async fn stop(call: &ScriptCall, group: &str, epoch: Epoch) -> Result<()> {
    if present(call).is_none() {
        warn!(
            group,
            epoch = epoch.0,
            "{call} has no script any more: see that nothing is left that it started"
        );
        return Ok(());
    }
    run(call, Verb::Stop, group, epoch).await
}

async fn run(call: &ScriptCall, verb: Verb, group: &str, epoch: Epoch) -> Result<()> {
    let (path, ended) = ask(call, verb, group, epoch).await?;
    if !ended.status.success() {
        bail!("{} {}: {ended}", path.display(), verb.word());
    }
    info!(group, epoch = epoch.0, "{call} {}: {ended}", verb.word());
    Ok(())
}

/// Whether what it started is running. Heartbeat's scripts say so in words, those of LSB by their exit
/// status.
pub async fn is_running(call: &ScriptCall, group: &str, epoch: Epoch) -> Result<bool> {
    let (path, ended) = ask(call, Verb::Status, group, epoch).await?;
    Ok(if path.starts_with(HEARTBEAT) {
        says_running(&ended.output.0)
    } else {
        ended.status.success()
    })
}

fn says_running(text: &str) -> bool {
    let lower = text.to_lowercase();
    let says_no = ["stopped", "not running"]
        .iter()
        .any(|no| lower.contains(no));
    !says_no && (text.contains("OK") || lower.contains("running"))
}

async fn ask(
    script: &ScriptCall,
    verb: Verb,
    group: &str,
    epoch: Epoch,
) -> Result<(PathBuf, Ended)> {
    let path = find(script)?;
    let mut arguments = script.arguments.clone();
    arguments.push(verb.word().to_owned());
    let call = Call {
        program: path.clone(),
        arguments,
        environment: vec![
            ("ROUTER_GROUP", group.to_owned()),
            ("ROUTER_EPOCH", epoch.0.to_string()),
        ],
        limit: verb.limit(),
    };
    Ok((path, call.run().await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_words() {
        for yes in ["running\n", "OK", "httpd (pid 7) is running..."] {
            assert!(says_running(yes), "{yes}");
        }
        for no in [
            "stopped",
            "is not running",
            "",
            "Resource is stopped, OK",
            "broken",
        ] {
            assert!(!says_running(no), "{no}");
        }
    }
}
