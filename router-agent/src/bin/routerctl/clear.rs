//! `clear`: what the kernel has learnt, and what was counted.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use router_agent::{
    dataplane::{BPFFS_VARIABLE, DEFAULT_BPFFS},
    maps::{self, PinnedMaps},
    terminal,
    views::json::View,
};

use crate::{names, output::Asking};

#[derive(Debug, Subcommand)]
pub enum Clear {
    /// Of interfaces.
    #[command(subcommand)]
    Interfaces(Interfaces),
    /// Of the heartbeat sessions.
    #[command(subcommand)]
    Heartbeat(OfHeartbeat),
}

#[derive(Debug, Subcommand)]
pub enum OfHeartbeat {
    /// What `show heartbeat` counts, with its losses: it begins at zero.
    ///
    /// Round trips and the worst lateness stay. Metrics and JSON go on as they were.
    Counters(Asking),
}

#[derive(Debug, Subcommand)]
pub enum Interfaces {
    /// Of one tunnel, or of all.
    #[command(
        override_usage = "routerctl clear interfaces tunnel [TUNNEL] counters [OPTIONS]\n       \
                          routerctl clear interfaces tunnel epochs [OPTIONS]"
    )]
    Tunnel {
        /// One tunnel, such as tun00; all if not given.
        #[arg(value_name = "TUNNEL", add = ArgValueCandidates::new(names::tunnels))]
        which: Option<String>,
        #[command(subcommand)]
        what: OfTunnel,
    },
}

#[derive(Debug, Subcommand)]
pub enum OfTunnel {
    /// What `show interfaces tunnel` counts: it begins at zero.
    ///
    /// Metrics and JSON go on as they were.
    Counters(Asking),
    /// The newest epochs received by tunnels whose key they are: lower ones are taken again. Needs no
    /// agent, but root.
    Epochs(Clearing),
}

/// Where the pins are.
#[derive(Debug, Args)]
pub struct Clearing {
    /// Where the BPF file system is mounted.
    #[arg(long, value_name = "DIRECTORY", env = BPFFS_VARIABLE, default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
}

pub fn clear(clear: Clear) -> Result<()> {
    match clear {
        Clear::Heartbeat(OfHeartbeat::Counters(asking)) => {
            let names = asking.agent().clear_heartbeat_counters()?;
            tell(&asking, &names, "no heartbeat session is configured")
        }
        Clear::Interfaces(Interfaces::Tunnel { which, what }) => match what {
            OfTunnel::Counters(asking) => {
                let names = asking.agent().clear_counters(which)?;
                tell(&asking, &names, "no tunnel is configured")
            }
            OfTunnel::Epochs(Clearing { bpffs }) => {
                if let Some(name) = which {
                    bail!("tunnels share their epochs: leave out {name}");
                }
                let cleared = maps::clear_epochs(&PinnedMaps::below(&bpffs)?)?;
                terminal::print(&format!("{cleared} newest epochs forgotten\n")).map(drop)
            }
        },
    }
}

fn tell(asking: &Asking, names: &[String], none: &str) -> Result<()> {
    asking.print(View::Cleared(names), || match names {
        [] => format!("{none}\n"),
        names => format!(
            "the counters of {} are shown from now on\n",
            names.join(", ")
        ),
    })
}
