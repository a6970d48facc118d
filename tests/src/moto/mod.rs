//! moto, an emulator of AWS, in a node of a lab: the EC2 API and the instances' metadata service. What
//! `cargo xtask test --peers` installs is found beside the executable, as the binaries are.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{
    lab::{Node, Process},
    poll,
};

/// The metadata service's address, at every instance.
pub const METADATA: &str = "169.254.169.254";
pub const REGION: &str = "eu-west-1";
/// Python on a busy machine.
const START: Duration = Duration::from_mins(1);
/// Makes what a pair of routers needs, asks what leads where, and plays somebody who interferes.
const CLIENT: &str = include_str!("client.py");

pub struct Moto {
    python: PathBuf,
    server: Process,
}

/// Identifiers of what was made.
#[derive(Clone, Debug, Deserialize)]
pub struct Made {
    pub route_table: String,
    pub elastic_ip: String,
    /// Of each router.
    pub interfaces: [String; 2],
    pub prefix_list: String,
}

/// Where everything leads: a network interface, or nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Targets {
    pub ipv4: Option<String>,
    pub ipv6: Option<String>,
    pub prefix_list: Option<String>,
    pub elastic_ip: Option<String>,
    pub private_ip: Option<String>,
    /// Entries of the route table that the configuration does not name.
    pub others: Vec<String>,
}

impl Targets {
    /// Whether all leads to this interface.
    pub fn all_lead_to(&self, interface: &str) -> bool {
        let Self {
            ipv4,
            ipv6,
            prefix_list,
            elastic_ip,
            private_ip,
            others: _,
        } = self;
        let all = [ipv4, ipv6, prefix_list, elastic_ip, private_ip];
        all.iter().all(|to| to.as_deref() == Some(interface))
    }
}

impl Moto {
    /// Starts it in `node`, at port 80 of all its addresses and of the metadata service's.
    pub fn start(node: &Node) -> Result<Self> {
        let python = python()?;
        node.ip_batch(&[format!("address add {METADATA}/32 dev lo")])?;
        let log = File::create(node.directory().join("moto.log"))?;
        let mut command = Command::new(&python);
        command
            .args(["-m", "moto.server", "-H", "0.0.0.0", "-p", "80"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let server = node.spawn("moto", &mut command)?;
        let moto = Self { python, server };
        poll::until(START, || moto.client(node, &["ready"]))?;
        Ok(moto)
    }

    /// Makes two network interfaces with these addresses, a route table, an elastic IP and a prefix
    /// list.
    pub fn make(&self, node: &Node, private: [&str; 2]) -> Result<Made> {
        let [one, other] = private;
        let text = self.client(node, &["make", one, other])?;
        serde_json::from_str(&text).with_context(|| text)
    }

    pub fn targets(&self, node: &Node, made: &Made, moving: &str) -> Result<Targets> {
        let text = self.client(
            node,
            &["targets", &made.route_table, &made.elastic_ip, moving],
        )?;
        serde_json::from_str(&text).with_context(|| text)
    }

    /// Somebody else lets the default route lead to `interface`.
    pub fn interfere(&self, node: &Node, made: &Made, interface: &str) -> Result<()> {
        self.client(node, &["interfere", &made.route_table, interface])
            .map(drop)
    }

    /// The API is out of reach from now on.
    pub fn kill(mut self) -> Result<()> {
        self.server.kill()
    }

    /// Lets it outlive this process.
    pub fn keep(self) {
        self.server.keep();
    }

    fn client(&self, node: &Node, words: &[&str]) -> Result<String> {
        let python = self.python.to_str().context("a path in UTF-8")?;
        let mut command = vec![python, "-c", CLIENT, REGION];
        command.extend(words);
        node.exec(&command)
    }
}

fn python() -> Result<PathBuf> {
    let executable = env::current_exe().context("cannot find this executable")?;
    let above = executable.ancestors().skip(1);
    let found = above
        .map(|directory| directory.join("moto/bin/python"))
        .find(|path| Path::new(path).exists());
    match found {
        Some(path) => Ok(path),
        None => bail!("moto is not installed: `cargo xtask setup --peers` does"),
    }
}
