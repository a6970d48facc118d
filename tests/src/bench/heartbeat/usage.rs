//! What is asked of the machine: busy processes, and what agents and programs use.

use std::{
    fs,
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{
    maps::{Array, Map, MapData},
    programs::loaded_programs,
};
use router_agent::dataplane::Pins;
use router_common::map::{SessionState, name};

use crate::lab::Node;

/// Of the times in /proc, a second: the same on all of our architectures.
const USER_HZ: u64 = 100;

/// Processes that compute for nothing: two for each CPU. They end with this, and by themselves.
pub struct Busy(Vec<Child>);

impl Busy {
    pub fn start(longest: Duration) -> Result<Self> {
        let mut busy = Self(Vec::new());
        for _ in 0..2 * std::thread::available_parallelism()?.get() {
            let child = Command::new("timeout")
                .arg(longest.as_secs().to_string())
                .args(["sh", "-c", "while :; do :; done"])
                .spawn()
                .context("cannot start a busy process")?;
            busy.0.push(child);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let pid = i32::try_from(child.id()).ok();
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                // `timeout` passes it on; SIGKILL it could not.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _ = child.wait();
        }
    }
}

/// What a process and a program have used so far.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    at: Instant,
    user: Duration,
    system: Duration,
    program: Program,
}

/// What the kernel counted of a program while statistics were on.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    pub runs: u64,
    pub time: Duration,
}

/// In parts of one core, since an earlier look.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Shares {
    pub user: f64,
    pub system: f64,
    pub program: f64,
    pub program_runs_per_second: f64,
}

impl Usage {
    /// Of the agent with this process id, and of the underlay program of its node.
    pub fn of(node: &Node, agent: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{agent}/stat"))?;
        // proc(5): the name, in parentheses, may hold anything; utime and stime are fields 14, 15.
        let (_, fields) = text.rsplit_once(')').context("a name in parentheses")?;
        let mut times = fields.split_ascii_whitespace().skip(11).map(|ticks| {
            let ticks: u64 = ticks.parse()?;
            anyhow::Ok(Duration::from_millis(ticks * 1000 / USER_HZ))
        });
        Ok(Self {
            at: Instant::now(),
            user: times.next().context("no utime")??,
            system: times.next().context("no stime")??,
            program: underlay(node)?,
        })
    }

    pub fn since(&self, before: &Self) -> Shares {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let share =
            |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() / seconds;
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let runs = (self.program.runs - before.program.runs) as f64;
        Shares {
            user: share(self.user, before.user),
            system: share(self.system, before.system),
            program: share(self.program.time, before.program.time),
            program_runs_per_second: runs / seconds,
        }
    }

    pub fn program(&self) -> Program {
        self.program
    }
}

/// The program at the node's underlay, `eth0`.
fn underlay(node: &Node) -> Result<Program> {
    let text = node.exec(&["ip", "-json", "link", "show", "dev", "eth0"])?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    let id = links[0]["xdp"]["prog"]["id"]
        .as_u64()
        .with_context(|| format!("{}: no program at eth0: {text}", node.name()))?;
    for program in loaded_programs() {
        let program = program?;
        if u64::from(program.id()) == id {
            return Ok(Program {
                runs: program.run_count(),
                time: program.run_time(),
            });
        }
    }
    anyhow::bail!("{}: program {id} has gone", node.name())
}

/// Kilobytes of memory that a process has in use.
pub fn resident_kb(process: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// What the node's kernel has heard in its first `count` sessions.
pub fn sessions(node: &Node, count: u32) -> Result<Vec<SessionState>> {
    node.run(|| {
        let pins = Pins::below(std::path::Path::new("/sys/fs/bpf"));
        let map = Map::Array(MapData::from_pin(pins.map(name::SESSIONS))?);
        let sessions = Array::<_, SessionState>::try_from(map)?;
        (0..count)
            .map(|index| Ok(sessions.get(&index, 0)?))
            .collect()
    })?
}
