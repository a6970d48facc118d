//! `force`: a group moved by hand.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Subcommand, ValueEnum};
use clap_complete::ArgValueCandidates;
use router_agent::{
    control::protocol::{DROPPED_ORDER, Finding, Force, ForceBegun, Forced, GroupStatus},
    views::{self, Moved, json::View},
};

use crate::{names, output::Asking};

#[derive(Debug, Subcommand)]
pub enum Forcing {
    /// Make this node active, or standby, and its peer the other.
    ///
    /// The group is handed over as in any planned move. It is refused where it would leave the group
    /// without an owner, and where the arbiter cannot be relied on.
    #[command(
        override_usage = "routerctl force cluster <active|standby> [group GROUP] [OPTIONS]\n       \
                          routerctl force cluster standby all [OPTIONS]"
    )]
    Cluster {
        #[arg(value_name = "active|standby")]
        to: ForcedState,
        /// Which group, if there are several; or `all` that are active here.
        #[arg(value_name = "group GROUP|all", num_args = 0..=2, add = ArgValueCandidates::new(names::groups))]
        group: Vec<String>,
        /// With active: also where the arbiter cannot be relied on.
        ///
        /// That is, it has not answered yet, its last request failed, or what it holds is older than
        /// what this node knows or names an owner that is not of this group. What it holds is replaced,
        /// on this node also if it is active already: see first that one node at most forwards. Nothing
        /// else that refuses a move is overridden.
        #[arg(long)]
        i_know: bool,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ForcedState {
    Active,
    Standby,
}

pub fn force(forcing: Forcing) -> Result<()> {
    let Forcing::Cluster {
        to,
        group,
        i_know,
        asking,
    } = forcing;
    let to = match to {
        ForcedState::Active => Forced::Active,
        ForcedState::Standby => Forced::Standby,
    };
    match (&group[..], to) {
        ([], _) => move_group(None, to, i_know, &asking),
        ([word, name], _) if word == "group" => move_group(Some(name.clone()), to, i_know, &asking),
        ([word], Forced::Standby) if word == "all" => make_way(i_know, &asking),
        (other, _) => bail!("write `group GROUP`, not `{}`", other.join(" ")),
    }
}

/// One group after the other: the next moves only if the one before has.
fn make_way(i_know: bool, asking: &Asking) -> Result<()> {
    let groups = asking.agent().status()?.groups;
    for group in groups.into_iter().filter(|group| group.state == "active") {
        move_group(Some(group.group), Forced::Standby, i_know, asking)?;
    }
    Ok(())
}

/// What became of orders that were not carried out.
fn dropped(group: &GroupStatus) -> impl Iterator<Item = &Finding> {
    let findings = group.findings.iter();
    findings.filter(|finding| finding.kind == DROPPED_ORDER)
}

/// Begins the move, and waits until it has come about, or been dropped.
fn move_group(group: Option<String>, to: Forced, i_know: bool, asking: &Asking) -> Result<()> {
    /// A handover takes as long as services take to be taken and released.
    const PATIENCE: Duration = Duration::from_secs(15);
    const INTERVAL: Duration = Duration::from_millis(50);
    let agent = asking.agent();
    let groups = agent.status()?.groups;
    let before: Vec<_> = groups.iter().flat_map(dropped).collect();
    let ForceBegun { group, text } = agent.force(Force { group, to, i_know })?;
    let start = Instant::now();
    loop {
        let status = agent.status()?;
        let found = status.groups.into_iter().find(|known| known.group == group);
        let status = found.with_context(|| format!("the agent has no group {group} any more"))?;
        if let Some(moved) = Moved::of(&status, to, &text) {
            return asking.print(View::Force(&moved), || views::moved(&moved));
        }
        if let Some(finding) = dropped(&status).find(|finding| !before.contains(finding)) {
            bail!("{text}; {}", finding.text);
        }
        if start.elapsed() > PATIENCE {
            bail!(
                "{text}; after {} s this node is still {}, see `routerctl show cluster history`",
                PATIENCE.as_secs(),
                status.state
            );
        }
        sleep(INTERVAL);
    }
}
