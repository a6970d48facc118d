//! The running agent's log: what it said, and how much it says.

use std::num::NonZeroUsize;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use router_agent::{
    control::protocol::{LogSeverity, LogWanted},
    live,
    views::{self, json::View},
};

use crate::output::Asking;

#[derive(Debug, Subcommand)]
pub enum Log {
    /// Change what is logged until the agent ends.
    Level {
        /// Such as debug, or `info,router_agent::takeover=debug`.
        level: String,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Debug, Args)]
pub struct Excerpt {
    /// Only what is about a group.
    #[arg(value_name = "cluster")]
    cluster: Option<About>,
    /// So many of the newest.
    #[arg(long, value_name = "NUMBER", default_value = "100")]
    lines: NonZeroUsize,
    /// Only what weighs as much, or more.
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "trace")]
    level: LogSeverity,
    /// Go on with what is logged from now on, until it is interrupted. With --json an object a line.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum About {
    Cluster,
}

pub fn show(excerpt: Excerpt) -> Result<()> {
    let Excerpt {
        cluster,
        lines,
        level,
        follow,
        asking,
    } = excerpt;
    let wanted = LogWanted {
        after_ns: 0,
        lines: Some(lines.get()),
        level,
        cluster: cluster.is_some(),
    };
    if follow {
        return live::follow_log(&asking.agent(), wanted, asking.json);
    }
    let lines = asking.agent().log(wanted)?;
    asking.print(View::Log(&lines), || views::log(&lines))
}

pub fn set(log: Log) -> Result<()> {
    let Log::Level { level, asking } = log;
    let level = asking.agent().set_log_level(&level)?;
    asking.print(View::LogLevel(&level), || {
        format!("the agent logs {level}\n")
    })
}
