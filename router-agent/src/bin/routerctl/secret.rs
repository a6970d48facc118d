//! `rotate-secret`: the pre-shared secret of the running agent.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use router_agent::{
    config::{HIDDEN, Secret},
    control::protocol::Rotation,
    views::{self, json::View},
};
use zeroize::Zeroizing;

use crate::output::Asking;

/// Bytes; what is longer would not fit a request.
const LONGEST_SECRET: u64 = 4096;

#[derive(Debug, Args)]
pub struct Rotate {
    /// Read the new secret from here.
    #[arg(long, value_name = "FILE", conflicts_with = "finish")]
    file: Option<PathBuf>,
    /// Accept the old secret no more.
    #[arg(long)]
    finish: bool,
    /// Although the peer may not have the new one, or the file that the agent starts with does not state it.
    #[arg(long, requires = "finish")]
    force: bool,
    #[command(flatten)]
    asking: Asking,
}

pub fn rotate(rotate: Rotate) -> Result<()> {
    let Rotate {
        file,
        finish,
        force,
        asking,
    } = rotate;
    let rotation = if finish {
        Rotation::Finish { force }
    } else {
        Rotation::Begin(read_secret(file.as_deref())?)
    };
    let sessions = asking.agent().rotate(rotation)?;
    let view = View::Rotation(&sessions);
    asking.print(view, || views::rotation(&sessions))
}

/// One line. It never comes by the command line, which others can read.
fn read_secret(file: Option<&Path>) -> Result<Secret> {
    let mut text = Zeroizing::new(String::new());
    match file {
        Some(file) => {
            File::open(file)
                .and_then(|file| file.take(LONGEST_SECRET + 1).read_to_string(&mut text))
                .with_context(|| format!("cannot read {}", file.display()))?;
        }
        None if io::stdin().is_terminal() => {
            bail!("the secret would be shown: name a --file, or send it to the standard input");
        }
        None => {
            io::stdin()
                .take(LONGEST_SECRET + 1)
                .read_to_string(&mut text)
                .context("cannot read the standard input")?;
        }
    }
    if text.len() as u64 > LONGEST_SECRET {
        let from = file.map_or("the standard input".into(), Path::to_string_lossy);
        bail!("{from} has more than the {LONGEST_SECRET} bytes that a secret may have");
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    if line.is_empty() {
        bail!("there is no secret on the first line");
    }
    if line.contains(['\n', '\'', '"']) {
        bail!(
            "a secret is one line without quotation marks, so that the configuration can state it"
        );
    }
    if line.ends_with('\r') {
        bail!("the line ends in a carriage return, which would be part of the secret: take it out");
    }
    if line == HIDDEN {
        bail!("{HIDDEN} stands for a secret that is not shown: state the secret itself");
    }
    Ok(Secret::new(line))
}
