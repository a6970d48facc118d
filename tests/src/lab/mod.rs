//! Nodes, cables between them, and faults.

mod directory;
mod namespaces;
mod process;
mod topology;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use router_agent::dataplane::attach_pass;
use router_common::time::BootTime;

pub use self::{
    directory::{Directory, remove_kept, sweep},
    namespaces::{Namespaces, with_a_bpffs_of_its_own},
    process::Process,
    topology::{Cable, End, NodeSpec, Topology},
};
use crate::clock;

/// How long a command in a node may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);

/// A running topology. Dropping it takes down everything in it.
pub struct Lab {
    topology: Topology,
    nodes: BTreeMap<String, Node>,
    directory: Directory,
}

/// A machine of the lab.
pub struct Node {
    name: String,
    namespaces: Namespaces,
    directory: PathBuf,
}

impl Lab {
    /// Builds `topology`, after sweeping away what runs left whose owner is gone.
    pub fn new(topology: Topology) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a lab needs root: it makes namespaces and loads BPF programs"
        );
        sweep()?;
        let mut lab = Self {
            topology,
            nodes: BTreeMap::new(),
            directory: Directory::new()?,
        };
        for spec in lab.topology.nodes.clone() {
            lab.boot(&spec)?;
        }
        for cable in lab.topology.cables.clone() {
            lab.plug(&cable)?;
        }
        for spec in &lab.topology.nodes {
            lab.node(&spec.name).ip_batch(&spec.routes)?;
        }
        Ok(lab)
    }

    /// The node called `name`.
    ///
    /// # Panics
    ///
    /// If the topology has none.
    pub fn node(&self, name: &str) -> &Node {
        self.nodes
            .get(name)
            .unwrap_or_else(|| panic!("the topology has no node {name:?}"))
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Where configurations and logs of this lab lie.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Power failure: the node's links go down and its processes die in the same instant, which
    /// is returned.
    pub fn kill_node(&mut self, name: &str) -> Result<BootTime> {
        let links = self
            .topology
            .neighbours(name)
            .map(|far| self.node(&far.node).link_flags(&far.interface))
            .collect::<Result<Vec<_>>>()?;
        let instant = clock::now();
        for mut link in links {
            link.take_down()?;
        }
        self.nodes
            .get_mut(name)
            .with_context(|| format!("no node {name:?}"))?
            .namespaces
            .kill()?;
        Ok(instant)
    }

    /// Boots a killed node afresh and plugs its cables in again. What ran on it is not started.
    pub fn reboot(&mut self, name: &str) -> Result<()> {
        self.reboot_as(name, |spec| spec)
    }

    /// As [`Self::reboot`], but it forwards nothing until [`Node::start_forwarding`].
    pub fn reboot_without_forwarding(&mut self, name: &str) -> Result<()> {
        self.reboot_as(name, |spec| NodeSpec {
            forwards: false,
            ..spec
        })
    }

    fn reboot_as(&mut self, name: &str, change: impl FnOnce(NodeSpec) -> NodeSpec) -> Result<()> {
        let spec = self
            .topology
            .nodes
            .iter()
            .find(|spec| spec.name == name)
            .with_context(|| format!("no node {name:?}"))?
            .clone();
        let spec = change(spec);
        // What it was made of goes first.
        self.nodes.remove(name);
        for far in self.topology.neighbours(name) {
            // The kernel takes a dead node's links away in its own time; this may come after it.
            let _ = self
                .node(&far.node)
                .exec(&["ip", "link", "delete", &far.interface]);
        }
        self.boot(&spec)?;
        for cable in self.topology.cables.clone() {
            if cable.ends.iter().any(|end| end.node == name) {
                self.plug(&cable)?;
            }
        }
        self.node(name).ip_batch(&spec.routes)
    }

    /// Makes the cable at an interface of a node anew, whose interfaces have been deleted.
    pub fn replug(&self, node: &str, interface: &str) -> Result<()> {
        let is_here = |end: &End| end.node == node && end.interface == interface;
        let cable = self
            .topology
            .cables
            .iter()
            .find(|cable| cable.ends.iter().any(is_here))
            .with_context(|| format!("no cable at {interface} of {node}"))?;
        self.plug(cable)?;
        for spec in &self.topology.nodes {
            if cable.ends.iter().any(|end| end.node == spec.name) {
                self.node(&spec.name).ip_batch(&spec.routes)?;
            }
        }
        Ok(())
    }

    /// Leaves the lab running for a person; returns where its files are.
    pub fn keep(self) -> Result<PathBuf> {
        let Self {
            topology: _,
            nodes,
            directory,
        } = self;
        let holders = nodes
            .into_values()
            .map(|node| node.namespaces.keep())
            .collect::<Result<Vec<_>>>()?;
        directory.keep(&holders)
    }

    fn boot(&mut self, spec: &NodeSpec) -> Result<()> {
        let directory = self.directory.path().join(&spec.name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let node = Node {
            name: spec.name.clone(),
            namespaces: Namespaces::new(&spec.name)
                .with_context(|| format!("cannot boot node {}", spec.name))?,
            directory,
        };
        if spec.forwards {
            node.start_forwarding()?;
        }
        node.ip_batch(&spec.setup)?;
        self.nodes.insert(spec.name.clone(), node);
        Ok(())
    }

    fn plug(&self, cable: &Cable) -> Result<()> {
        let [near, far] = &cable.ends;
        let (near_node, far_node) = (self.node(&near.node), self.node(&far.node));
        let mac = |end: &End| {
            end.mac
                .as_ref()
                .map_or(String::new(), |mac| format!("address {mac}"))
        };
        let line = format!(
            "link add {} {} type veth peer name {} {} netns {}",
            near.interface,
            mac(near),
            far.interface,
            mac(far),
            far_node.namespaces.network_path().display(),
        );
        // The path of the far namespace is one of the outside.
        let output = near_node
            .namespaces
            .run_in_network(|| Command::new("ip").args(line.split_whitespace()).output())??;
        near_node.expect_success(&line, output)?;
        for (node, end) in [(near_node, near), (far_node, far)] {
            node.ip_batch(&end.setup_lines())
                .with_context(|| format!("cannot set up {} of {}", end.interface, end.node))?;
            if end.pass {
                node.attach_pass(&end.interface)?;
            }
        }
        Ok(())
    }
}

impl Node {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where configuration and logs of this node lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Has the kernel forward packets from one interface to another.
    pub fn start_forwarding(&self) -> Result<()> {
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            self.run(|| fs::write(Path::new("/proc/sys/net").join(switch), "1"))?
                .with_context(|| format!("cannot turn on {switch}"))?;
        }
        Ok(())
    }

    /// How a person enters the node.
    pub fn enter_command(&self) -> String {
        format!("nsenter -t {} -a", self.namespaces.holder())
    }

    /// Does `work` in the node, on a thread of its own. A socket opened there stays there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespaces
            .run(work)
            .with_context(|| format!("cannot enter node {}", self.name))
    }

    /// Starts `command` in the node.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let child = self
            .run(|| command.spawn())?
            .with_context(|| format!("cannot start {name} on {}", self.name))?;
        Ok(Process::new(name, child))
    }

    /// Runs a command to its end; its output, however it ended.
    pub fn output(&self, words: &[&str]) -> Result<Output> {
        let output = self
            .run(|| {
                Command::new("timeout")
                    .arg("--kill-after=1")
                    .arg(COMMAND_TIMEOUT.as_secs_f64().to_string())
                    .args(words)
                    .output()
            })?
            .with_context(|| format!("{}: cannot run {words:?}", self.name))?;
        if output.status.code() == Some(124) {
            bail!(
                "{}: {words:?} did not end within {COMMAND_TIMEOUT:?}",
                self.name
            );
        }
        Ok(output)
    }

    /// Runs a command that must succeed; its standard output.
    pub fn exec(&self, words: &[&str]) -> Result<String> {
        let output = self.output(words)?;
        self.expect_success(&words.join(" "), output)
    }

    /// Applies lines of `ip -batch`.
    pub fn ip_batch(&self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        // A file, because standard input would need a writer beside the reader.
        let path = self.directory.join("ip-batch");
        fs::write(&path, lines.join("\n") + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.exec(&["ip", "-batch", &path.to_string_lossy()])
            .with_context(|| format!("ip lines were:\n  {}", lines.join("\n  ")))
            .map(drop)
    }

    /// Lets a native XDP program at the interface's other end transmit: the veth driver drops
    /// what it sends back unless this end runs a program too.
    pub fn attach_pass(&self, interface: &str) -> Result<()> {
        let pin = format!("/sys/fs/bpf/pass-{interface}");
        self.run(|| {
            // Of a cable that was there before.
            let _ = fs::remove_file(&pin);
            attach_pass(interface, Path::new(&pin))
        })?
        .with_context(|| format!("cannot attach a pass program to {interface}"))
    }

    /// The interface's flags as a file that can be written without entering the node.
    fn link_flags(&self, interface: &str) -> Result<LinkFlags> {
        LinkFlags::open(
            &self
                .namespaces
                .root()
                .join(format!("sys/class/net/{interface}/flags")),
        )
    }

    fn expect_success(&self, what: &str, output: Output) -> Result<String> {
        let Output {
            status,
            stdout,
            stderr,
        } = output;
        let text = String::from_utf8_lossy(&stdout).into_owned();
        if !status.success() {
            bail!(
                "{}: `{what}` failed ({status}): {}{text}",
                self.name,
                String::from_utf8_lossy(&stderr),
            );
        }
        Ok(text)
    }
}

/// An interface that can be taken down with one write.
struct LinkFlags {
    file: fs::File,
    flags: u32,
}

impl LinkFlags {
    const UP: u32 = 1;

    fn open(path: &Path) -> Result<Self> {
        let context = || format!("cannot open {}", path.display());
        let text = fs::read_to_string(path).with_context(context)?;
        let flags = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16)?;
        let file = fs::File::options()
            .write(true)
            .open(path)
            .with_context(context)?;
        Ok(Self { file, flags })
    }

    fn take_down(&mut self) -> Result<()> {
        // In one write: the file takes each as a whole number.
        let flags = format!("{:#x}", self.flags & !Self::UP);
        self.file
            .write_all(flags.as_bytes())
            .context("cannot take a link down")
    }
}
