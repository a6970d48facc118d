//! The product's binaries in a node.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use router_agent::{
    control::protocol::{LogLine, Status},
    views::json::SCHEMA_VERSION,
};
use rustix::process::Signal;
use serde::Deserialize;

use crate::{
    lab::{Node, Process},
    poll,
    status::Document,
};

const LOG: &str = "agent.log";

/// Path of one of the product's binaries: in `ROUTER_BIN_DIR`, else beside the running executable
/// or in the directory above it, where cargo leaves them.
pub fn binary(name: &str) -> Result<PathBuf> {
    let executable = env::current_exe().context("cannot find this executable")?;
    let candidates: Vec<PathBuf> = match env::var_os("ROUTER_BIN_DIR") {
        Some(directory) => vec![PathBuf::from(directory)],
        None => executable
            .ancestors()
            .skip(1)
            .take(2)
            .map(Path::to_path_buf)
            .collect(),
    };
    candidates
        .iter()
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("no {name} in {candidates:?}; build it, or set ROUTER_BIN_DIR to where it is")
        })
}

/// A running `router-agent`.
pub struct Agent {
    process: Process,
}

impl Agent {
    /// Starts an agent with `config` in `node`; its messages go to the node's log.
    pub fn start(node: &Node, config: &str) -> Result<Self> {
        Self::start_program(&binary("router-agent")?, node, config)
    }

    /// As [`Self::start`], of another build.
    pub fn start_program(program: &Path, node: &Node, config: &str) -> Result<Self> {
        Self::start_as(program, node, config, &[])
    }

    /// As [`Self::start`], with these variables beside those of the environment.
    pub fn start_with(node: &Node, config: &str, variables: &[(&str, &str)]) -> Result<Self> {
        Self::start_as(&binary("router-agent")?, node, config, variables)
    }

    fn start_as(
        program: &Path,
        node: &Node,
        config: &str,
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let path = write_config(node, config)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(node.directory().join(LOG))?;
        let mut command = Command::new(program);
        command
            .args(["run", "--config"])
            .arg(path)
            .arg("--history")
            .arg(node.directory().join("history"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Self {
            process: node.spawn("router-agent", &mut command)?,
        })
    }

    /// Its process id as seen from outside.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Orderly stop.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.wait_within(Duration::from_secs(10))
    }

    /// Stop that leaves everything to the next agent.
    pub fn detach(mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::USR2)?;
        self.process.wait_within(Duration::from_secs(10))
    }

    /// Asks for an orderly stop, or whatever `signal` means.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    pub fn wait_within(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.process.wait_within(timeout)
    }

    /// Sudden death.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// Stops it from being scheduled; it does not notice.
    pub fn stop(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Lets it outlive this process.
    pub fn keep(self) {
        self.process.keep();
    }

    pub fn cont(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }
}

/// Writes a configuration for `node`; its path is the same inside and outside.
pub fn write_config(node: &Node, config: &str) -> Result<PathBuf> {
    let path = node.directory().join("router.conf");
    fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// What the node's agents have said so far.
pub fn log(node: &Node) -> String {
    fs::read_to_string(node.directory().join(LOG)).unwrap_or_default()
}

/// What the running agent has of `target`, or below it, among its newest lines.
pub fn log_about(node: &Node, target: &str) -> Result<Vec<LogLine>> {
    #[derive(Deserialize)]
    struct Document {
        log: Vec<LogLine>,
    }
    let text = routerctl(node, &["show", "log", "--json", "--lines", "1000"])?;
    let Document { mut log } = serde_json::from_str(&text)?;
    log.retain(|line| line.target.starts_with(target));
    Ok(log)
}

/// The newest line of `show log cluster` that has `part` in it; it names its group and an epoch.
pub fn line_about_a_group(node: &Node, part: &str) -> Result<LogLine> {
    #[derive(Deserialize)]
    struct Document {
        log: Vec<LogLine>,
    }
    let words = ["show", "log", "cluster", "--json", "--lines", "1000"];
    let text = routerctl(node, &words)?;
    let Document { log } = serde_json::from_str(&text)?;
    let line = log.into_iter().rfind(|line| line.message.contains(part));
    let line = line.with_context(|| format!("no line has {part:?}: {text}"))?;
    ensure!(line.fields.contains_key("epoch"), "{line:?}");
    Ok(line)
}

/// Waits until the node's agent says that it runs.
pub fn await_running(node: &Node, timeout: Duration) -> Result<()> {
    poll::until(timeout, || {
        let log = log(node);
        ensure!(
            log.contains("running"),
            "{}: the agent does not run yet:\n{log}",
            node.name()
        );
        Ok(())
    })
}

/// `routerctl` with these words, however it ends.
pub fn routerctl_output(node: &Node, words: &[&str]) -> Result<Output> {
    let routerctl = binary("routerctl")?;
    let mut command = vec![routerctl.to_str().context("a path in UTF-8")?];
    command.extend(words);
    node.output(&command)
}

/// `routerctl` with these words, which must succeed; what it prints.
pub fn routerctl(node: &Node, words: &[&str]) -> Result<String> {
    let output = routerctl_output(node, words)?;
    ensure!(
        output.status.success(),
        "{}: routerctl {} failed: {}",
        node.name(),
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim(),
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The node's view of the cluster.
pub fn status(node: &Node) -> Result<Status> {
    let text = routerctl(node, &["show", "cluster", "status", "--json"])?;
    let document: Document = serde_json::from_str(&text)
        .with_context(|| format!("{}: status is not as agreed: {text}", node.name()))?;
    ensure!(
        document.schema_version == SCHEMA_VERSION,
        "the schema has version {}",
        document.schema_version
    );
    Ok(document.status)
}
