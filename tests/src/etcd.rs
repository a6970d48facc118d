//! An etcd of several members, all in one node of a lab.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use etcd_client::{Client, GetOptions};
use rustix::process::Signal;

use crate::{
    lab::{Node, Process},
    poll,
};

/// How long members may take to find each other and elect one of them.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of the first member; each of the others has the next but one.
const FIRST_PORT: u16 = 2379;

/// Files in PEM form that the members are told of.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Clients must have a certificate of its signer.
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Members that run or not. They are killed when this is dropped.
pub struct Etcd {
    address: String,
    directory: PathBuf,
    tls: Option<Certificates>,
    members: Vec<Option<Process>>,
}

impl Etcd {
    /// Starts `members` in `node`, which has `address`, and waits until they work.
    pub fn start(node: &Node, address: &str, members: usize) -> Result<Self> {
        let mut etcd = Self::prepared(node, address, members, None);
        etcd.start_all(node)?;
        etcd.await_health(node)?;
        Ok(etcd)
    }

    /// As [`Self::start`], with clients that come by TLS and have a certificate.
    pub fn start_with_tls(node: &Node, address: &str, tls: Certificates) -> Result<Self> {
        let mut etcd = Self::prepared(node, address, 1, Some(tls));
        etcd.start_all(node)?;
        Ok(etcd)
    }

    fn prepared(node: &Node, address: &str, members: usize, tls: Option<Certificates>) -> Self {
        Self {
            address: address.to_owned(),
            directory: node.directory().join("etcd"),
            tls,
            members: (0..members).map(|_| None).collect(),
        }
    }

    /// The URLs for clients.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len())
            .map(|member| self.client_url(member))
            .collect()
    }

    /// Lines of a router's configuration.
    pub fn config(&self) -> String {
        let lines = self.endpoints();
        let lines = lines
            .iter()
            .map(|url| format!("set cluster arbiter etcd endpoint {url}"));
        lines.collect::<Vec<_>>().join("\n") + "\n"
    }

    pub fn start_all(&mut self, node: &Node) -> Result<()> {
        for member in 0..self.members.len() {
            self.start_member(node, member)?;
        }
        Ok(())
    }

    /// Starts a member with what it has on disk.
    pub fn start_member(&mut self, node: &Node, member: usize) -> Result<()> {
        fs::create_dir_all(&self.directory)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))?;
        let cluster: Vec<_> = (0..self.members.len())
            .map(|member| format!("{}={}", name(member), self.peer_url(member)))
            .collect();
        let (client, peer) = (self.client_url(member), self.peer_url(member));
        let mut command = Command::new("etcd");
        command
            .args(["--name", &name(member)])
            .arg("--data-dir")
            .arg(self.data(member))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster.join(",")])
            // Members on one machine need not wait for each other as long as those of a wide network.
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(Certificates { ca, cert, key }) = &self.tls {
            command
                .arg("--client-cert-auth")
                .arg("--trusted-ca-file")
                .arg(ca)
                .arg("--cert-file")
                .arg(cert)
                .arg("--key-file")
                .arg(key);
        }
        self.members[member] = Some(node.spawn("etcd", &mut command)?);
        Ok(())
    }

    /// Sudden death of a member.
    pub fn kill_member(&mut self, member: usize) -> Result<()> {
        match self.members[member].take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    pub fn kill_all(&mut self) -> Result<()> {
        (0..self.members.len()).try_for_each(|member| self.kill_member(member))
    }

    /// Keeps a member from running, or lets it run on.
    pub fn signal(&self, member: usize, signal: Signal) -> Result<()> {
        let process = self.members[member].as_ref();
        process.context("the member runs")?.signal(signal)
    }

    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        (0..self.members.len()).try_for_each(|member| self.signal(member, signal))
    }

    /// All that it has stored is gone. It does not run meanwhile.
    pub fn wipe(&mut self) -> Result<()> {
        self.kill_all()?;
        for member in 0..self.members.len() {
            fs::remove_dir_all(self.data(member))?;
        }
        Ok(())
    }

    /// Waits until it has a leader, and each member that runs answers.
    pub fn await_health(&self, node: &Node) -> Result<()> {
        let running = (0..self.members.len()).filter(|&member| self.members[member].is_some());
        poll::until(PATIENCE, || {
            for member in running.clone() {
                let address = format!("{}:{}", self.address, port(member));
                let answer = node.run(|| health(&address))??;
                ensure!(answer.contains(r#""health":"true""#), "etcd says {answer}");
            }
            Ok(())
        })
        .with_context(|| fs::read_to_string(self.directory.join("log")).unwrap_or_default())
    }

    /// What `key` has held, the newest first, up to and with the first that is not `wanted`. Nothing may
    /// have been compacted.
    pub fn values_while(
        &self,
        node: &Node,
        key: &str,
        wanted: impl Fn(&str) -> bool + Send,
    ) -> Result<Vec<String>> {
        let url = self.client_url(0);
        block_on(node, read_back(&url, key, wanted))
    }

    /// Has `key` hold what no router has written.
    pub fn put(&self, node: &Node, key: &str, value: &str) -> Result<()> {
        let url = self.client_url(0);
        block_on(node, async {
            let mut client = Client::connect([&url], None).await?;
            client.put(key, value, None).await?;
            Ok(())
        })
    }

    pub fn delete(&self, node: &Node, key: &str) -> Result<()> {
        let url = self.client_url(0);
        block_on(node, async {
            let mut client = Client::connect([&url], None).await?;
            client.delete(key, None).await?;
            Ok(())
        })
    }

    fn data(&self, member: usize) -> PathBuf {
        self.directory.join(name(member))
    }

    fn client_url(&self, member: usize) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.address, port(member))
    }

    fn peer_url(&self, member: usize) -> String {
        format!("http://{}:{}", self.address, port(member) + 1)
    }
}

/// What `request` comes to, made from `node`.
fn block_on<T: Send>(node: &Node, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
    node.run(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(request)
    })?
}

async fn read_back(url: &str, key: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut client = Client::connect([url], None).await?;
    let mut values = Vec::new();
    let mut at = None;
    loop {
        let of = at.map(|revision| GetOptions::new().with_revision(revision));
        let found = client.get(key, of).await?;
        let Some(pair) = found.kvs().first() else {
            return Ok(values);
        };
        let value = pair.value_str()?.to_owned();
        let goes_on = wanted(&value) && pair.mod_revision() != pair.create_revision();
        values.push(value);
        if !goes_on {
            return Ok(values);
        }
        at = Some(pair.mod_revision() - 1);
    }
}

fn name(member: usize) -> String {
    format!("member-{member}")
}

fn port(member: usize) -> u16 {
    FIRST_PORT + 2 * u16::try_from(member).unwrap_or_default()
}

/// What a member says of its health, which it finds out by a read that needs a leader.
fn health(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
