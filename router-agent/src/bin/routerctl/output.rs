//! How to reach the agent or the maps, and what to print.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use router_agent::{
    control::{DEFAULT_SOCKET, SOCKET_VARIABLE, client::Client},
    dataplane::{BPFFS_VARIABLE, DEFAULT_BPFFS},
    terminal,
    views::json::{Document, View},
};
use serde::Serialize;

/// How to reach the agent and what to print.
#[derive(Debug, Args)]
pub struct Asking {
    /// The agent's control socket.
    #[arg(long, value_name = "PATH", env = SOCKET_VARIABLE, default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Where the pins are and what to print.
#[derive(Debug, Args)]
pub struct Looking {
    /// Where the BPF file system is mounted.
    #[arg(long, value_name = "DIRECTORY", env = BPFFS_VARIABLE, default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

impl Asking {
    pub fn agent(&self) -> Client {
        Client::new(&self.socket)
    }

    pub fn print(&self, view: View, text: impl FnOnce() -> String) -> Result<()> {
        print(self.json, view, text)
    }

    /// The same, in lines as they are: they are made to be copied.
    pub fn print_whole(&self, view: View, text: impl FnOnce() -> String) -> Result<()> {
        let text = if self.json { json(view)? } else { text() };
        terminal::print(&text)?;
        Ok(())
    }
}

impl Looking {
    pub fn print(&self, view: impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        print(self.json, view, text)
    }
}

fn print(json: bool, view: impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    terminal::print(&text_of(json, view, text)?)?;
    Ok(())
}

pub fn text_of(
    is_json: bool,
    view: impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<String> {
    if is_json {
        json(view)
    } else {
        Ok(terminal::fitted(text()))
    }
}

fn json(view: impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(&Document::of(view))? + "\n")
}
