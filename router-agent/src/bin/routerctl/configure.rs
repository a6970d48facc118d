//! `configure`: what the running agent does, by another configuration.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use clap_complete::ArgValueCandidates;
use router_agent::{
    config::{LARGEST_FILE, Possible, Secret, possible, text_of},
    control::{
        client::Client,
        protocol::{Configuring, LastChange},
    },
    terminal,
    views::{self, json::View},
};
use zeroize::Zeroizing;

use crate::{names, output::Asking};

#[derive(Debug, Subcommand)]
pub enum Configure {
    /// Check a configuration, show what it changes, and have the agent run by it: wholly, or not at
    /// all.
    ///
    /// No session, lease or packet is lost that the change does not concern. What runs becomes the
    /// file that the agent starts with.
    Apply {
        /// The whole configuration, in either form; - is the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Go back to the present configuration unless `routerctl configure confirm` comes in time.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
        confirm_within: Option<u32>,
        /// Only check it and show what it would change.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Keep what was applied with --confirm-within.
    Confirm(Asking),
    /// Take back what was applied with --confirm-within.
    Rollback(Asking),
    /// What may come behind a path of the configuration; needs no agent.
    Help {
        /// For example: interfaces tunnel tun00 parameters
        #[arg(value_name = "PATH", add = ArgValueCandidates::new(names::nodes))]
        path: Vec<String>,
    },
}

/// What checking the largest configuration may take.
const LONGEST_CHECK: Duration = Duration::from_mins(1);

pub fn carry_out(configure: Configure) -> Result<()> {
    let (step, asking) = match configure {
        Configure::Apply {
            file,
            confirm_within,
            dry_run,
            asking,
        } => {
            let step = Configuring::Apply {
                name: file.display().to_string(),
                text: read_configuration(&file)?,
                confirm_within_s: confirm_within,
                dry_run,
            };
            (step, asking)
        }
        Configure::Confirm(asking) => (Configuring::Confirm, asking),
        Configure::Rollback(asking) => (Configuring::RollBack, asking),
        Configure::Help { path } => return help(&path),
    };
    let is_way_back = step == Configuring::RollBack;
    let is_confirmation = step == Configuring::Confirm;
    let confirm_within = match &step {
        Configuring::Apply {
            confirm_within_s,
            dry_run: false,
            ..
        } => *confirm_within_s,
        Configuring::Apply { .. } | Configuring::Confirm | Configuring::RollBack => None,
    };
    let agent = asking.agent().with_timeout(LONGEST_CHECK);
    let configured = agent.configure(step)?;
    terminal::complain(&configured.warnings);
    let rolled_back = match configured.ticket {
        Some(ticket) => outcome(&asking.agent(), ticket, is_way_back)?,
        None => None,
    };
    asking.print_whole(View::Configured(&configured), || {
        if is_confirmation {
            "the configuration is kept\n".to_owned()
        } else if is_way_back {
            "the configuration before runs again\n".to_owned()
        } else {
            let unconfirmed_s = confirm_within.filter(|_| rolled_back.is_none());
            views::applied(&configured, unconfirmed_s)
        }
    })?;
    match rolled_back {
        Some(reason) if !is_way_back => {
            bail!("the agent went back to the configuration before: {reason}")
        }
        Some(_) | None => Ok(()),
    }
}

/// Waits for the agent that begins anew; why it is back at the configuration before, if it is.
fn outcome(agent: &Client, ticket: u32, is_way_back: bool) -> Result<Option<String>> {
    /// More than an agent may take that tries a configuration, and one that goes back.
    const LONGEST: Duration = Duration::from_mins(1);
    const PAUSE: Duration = Duration::from_millis(50);
    let deadline = Instant::now() + LONGEST;
    loop {
        let answer = agent.configuration(false, false);
        if let Ok(status) = &answer
            && let Some(LastChange {
                ticket: last,
                rolled_back,
            }) = &status.last_change
            && *last == ticket
            && rolled_back.is_some() >= is_way_back
        {
            return Ok(rolled_back.clone());
        }
        if Instant::now() >= deadline {
            answer?;
            bail!("the agent did not begin anew: see its log");
        }
        sleep(PAUSE);
    }
}

fn read_configuration(file: &Path) -> Result<Secret> {
    let mut bytes = Vec::new();
    // One more, which is too large.
    let mut limited = |from: &mut dyn io::Read| from.take(LARGEST_FILE + 1).read_to_end(&mut bytes);
    if file == Path::new("-") {
        limited(&mut io::stdin()).context("cannot read the standard input")?;
    } else {
        File::open(file)
            .and_then(|mut file| limited(&mut file))
            .with_context(|| format!("cannot read {}", file.display()))?;
    }
    let text = Zeroizing::new(text_of(&file.display().to_string(), bytes)?);
    Ok(Secret::new(text.as_str()))
}

fn help(path: &[String]) -> Result<()> {
    let possible = possible(path)?;
    let width = possible.iter().map(|p| p.word.len()).max().unwrap_or(0);
    for Possible { word, help } in possible {
        terminal::print(&format!("  {word:width$}  {help}\n"))?;
    }
    Ok(())
}
