//! The operator's tool: shows what the agent does and what the kernel's maps hold.

use std::{
    fs::File,
    io::{self, ErrorKind, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate};
use router_agent::{
    config::{Form, LARGEST_FILE, Possible, Secret, possible},
    control::{
        DEFAULT_SOCKET, SOCKET_VARIABLE,
        client::Client,
        protocol::{
            AgentVersion, Configured, Configuring, Force, ForceBegun, Forced, LastChange, Rotation,
            TunnelStatus,
        },
    },
    dataplane::{BPFFS_VARIABLE, DEFAULT_BPFFS},
    live,
    maps::{self, KernelInterfaces, PinnedMaps},
    views::{
        self, Moved,
        json::{Document, History, Versions, View},
    },
};
use serde::Serialize;
use zeroize::Zeroizing;

/// Bytes; what is longer would not fit a request.
const LONGEST_SECRET: u64 = 4096;

/// Shows what a redundant router does.
///
/// Exits with 0 on success, 1 on failure, 2 when called wrongly.
#[derive(Debug, Parser)]
#[command(name = "routerctl", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask the running agent.
    #[command(subcommand)]
    Show(Show),
    /// Forget what the kernel has learnt; needs no agent, but root.
    #[command(subcommand)]
    Clear(Clear),
    /// Change the pre-shared secret of the running agent, without a missed heartbeat.
    ///
    /// Run it on both nodes with the same secret, then, once both use it, with --finish on both. The
    /// secret is one line of the standard input or of a file. The agent forgets it when it stops:
    /// write it into the configuration, too.
    RotateSecret {
        /// Read the new secret from here.
        #[arg(long, value_name = "FILE", conflicts_with = "finish")]
        file: Option<PathBuf>,
        /// Accept the old secret no more.
        #[arg(long)]
        finish: bool,
        /// Although the peer may not have the new one.
        #[arg(long, requires = "finish")]
        force: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Move a group of the running agent by hand, as root.
    #[command(subcommand)]
    Force(Forcing),
    /// Look into the pinned maps; needs no agent.
    #[command(subcommand)]
    Maps(Maps),
    /// Change what the running agent does, by another configuration.
    // Its `help` is about the configuration.
    #[command(subcommand, disable_help_subcommand = true)]
    Configure(Configure),
    /// Print what happens, as it happens, until it is interrupted.
    #[command(subcommand)]
    Monitor(Monitor),
    /// The whole router on one screen: nodes, round trips, rates, last events.
    Top {
        /// The agent's control socket.
        #[arg(long, value_name = "PATH", env = SOCKET_VARIABLE, default_value = DEFAULT_SOCKET)]
        socket: PathBuf,
    },
    /// The log of the running agent.
    #[command(subcommand)]
    Log(Log),
    /// Write the man pages into a directory.
    #[command(hide = true)]
    Man { directory: PathBuf },
}

#[derive(Debug, Subcommand)]
enum Configure {
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
        #[arg(value_name = "PATH")]
        path: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Forcing {
    /// Make this node active, or standby, and its peer the other.
    ///
    /// The group is handed over as in any planned move. It is refused where it would leave the group
    /// without an owner, or go against what the arbiter holds.
    #[command(override_usage = "routerctl force cluster <active|standby> [group GROUP] [OPTIONS]")]
    Cluster {
        #[arg(value_name = "active|standby")]
        to: ForcedState,
        /// Which group, if there are several.
        #[arg(value_name = "group GROUP", num_args = 0..=2)]
        group: Vec<String>,
        /// Do it although it would be refused.
        #[arg(long)]
        i_know: bool,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ForcedState {
    Active,
    Standby,
}

#[derive(Debug, Subcommand)]
enum Monitor {
    /// Changes of state, their steps, and findings. With --json an object a line.
    Cluster(Asking),
}

#[derive(Debug, Subcommand)]
enum Log {
    /// Change what is logged until the agent ends.
    Level {
        /// Such as debug, or `info,router_agent::takeover=debug`.
        level: String,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Debug, Subcommand)]
enum Clear {
    /// Of interfaces.
    #[command(subcommand)]
    Interfaces(ClearInterfaces),
}

#[derive(Debug, Subcommand)]
enum ClearInterfaces {
    /// Of all tunnels.
    #[command(subcommand)]
    Tunnel(ClearTunnel),
}

#[derive(Debug, Subcommand)]
enum ClearTunnel {
    /// The newest epochs received by tunnels whose key they are: lower ones are taken again.
    Epochs(Clearing),
}

/// Where the pins are.
#[derive(Debug, Args)]
struct Clearing {
    /// Where the BPF file system is mounted.
    #[arg(long, value_name = "DIRECTORY", env = BPFFS_VARIABLE, default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Show {
    /// The cluster: nodes, resources, history.
    #[command(subcommand)]
    Cluster(Cluster),
    /// The interfaces by which packets reach the tunnels, or the tunnels.
    #[command(args_conflicts_with_subcommands = true)]
    Interfaces {
        #[command(subcommand)]
        which: Option<Interfaces>,
        #[command(flatten)]
        asking: Asking,
    },
    /// The heartbeat sessions: times, losses, what was refused.
    Heartbeat(Asking),
    /// This program's version and the agent's.
    Version(Asking),
    /// What the agent runs by, in brace form.
    Configuration {
        /// As `set` commands.
        #[arg(value_name = "commands")]
        commands: Option<Commands>,
        /// Also the defaults that hold, marked as such.
        #[arg(long)]
        origin: bool,
        /// Also the secrets, to root and the agent's own user.
        #[arg(long)]
        secrets: bool,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Commands {
    Commands,
}

#[derive(Debug, Subcommand)]
enum Cluster {
    /// Who is active, and why.
    Status(Asking),
    /// What changed, when, and how long each part took.
    History(Asking),
}

#[derive(Debug, Subcommand)]
enum Interfaces {
    /// The tunnels.
    #[command(
        override_usage = "routerctl show interfaces tunnel [TUNNEL] [brief|detail] [OPTIONS]"
    )]
    Tunnel {
        /// One tunnel, such as tun00; all if not given. Shown brief if all, in detail if one.
        #[arg(value_name = "TUNNEL|brief|detail", add = ArgValueCandidates::new(tunnel_names))]
        which: Option<String>,
        /// How much of it.
        #[arg(value_name = "brief|detail")]
        extent: Option<Extent>,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Extent {
    Brief,
    Detail,
}

/// How to reach the agent and what to print.
#[derive(Debug, Args)]
struct Asking {
    /// The agent's control socket.
    #[arg(long, value_name = "PATH", env = SOCKET_VARIABLE, default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Maps {
    /// Every map of this version: type, sizes, whether it is pinned.
    List(Looking),
    /// What a map holds, decoded. Secrets are masked.
    Dump {
        /// As `maps list` shows it, in upper or lower case.
        #[arg(add = ArgValueCandidates::new(map_names))]
        name: String,
        /// Also the unused entries of arrays.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        looking: Looking,
    },
    /// As `dump`, again and again.
    Watch {
        /// As `maps list` shows it, in upper or lower case.
        #[arg(add = ArgValueCandidates::new(map_names))]
        name: String,
        /// Seconds between two looks.
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=3_600))]
        interval: u64,
        #[command(flatten)]
        looking: Looking,
    },
}

/// Where the pins are and what to print.
#[derive(Debug, Args)]
struct Looking {
    /// Where the BPF file system is mounted.
    #[arg(long, value_name = "DIRECTORY", env = BPFFS_VARIABLE, default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// For completion.
fn map_names() -> Vec<CompletionCandidate> {
    let names = router_common::map::name::ALL.into_iter();
    names
        .map(|name| CompletionCandidate::new(name.to_lowercase()))
        .collect()
}

/// For completion: those of the agent, if it answers at once.
fn tunnel_names() -> Vec<CompletionCandidate> {
    /// An operator waits for it.
    const TIMEOUT: Duration = Duration::from_millis(300);
    let socket = std::env::var_os(SOCKET_VARIABLE).unwrap_or_else(|| DEFAULT_SOCKET.into());
    let agent = Client::new(socket).with_timeout(TIMEOUT);
    let tunnels = agent.tunnels().unwrap_or_default().into_iter();
    let words = ["brief", "detail"].map(ToOwned::to_owned);
    let names = tunnels.map(|tunnel| tunnel.name).chain(words);
    names.map(CompletionCandidate::new).collect()
}

fn main() -> ExitCode {
    CompleteEnv::with_factory(Arguments::command).complete();
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("routerctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Show(what) => show(what),
        Command::Configure(configure) => carry_out(configure),
        Command::Clear(Clear::Interfaces(ClearInterfaces::Tunnel(ClearTunnel::Epochs(
            Clearing { bpffs },
        )))) => {
            let cleared = maps::clear_epochs(&PinnedMaps::below(&bpffs)?)?;
            println!("{cleared} newest epochs forgotten");
            Ok(())
        }
        Command::RotateSecret {
            file,
            finish,
            force,
            asking,
        } => {
            let rotation = if finish {
                Rotation::Finish { force }
            } else {
                Rotation::Begin(read_secret(file.as_deref())?)
            };
            let sessions = asking.agent().rotate(rotation)?;
            let view = View::Rotation(&sessions);
            asking.print(view, || views::rotation(&sessions))
        }
        Command::Force(Forcing::Cluster {
            to,
            group,
            i_know,
            asking,
        }) => force(to, &group, i_know, &asking),
        Command::Maps(Maps::List(looking)) => {
            let maps = maps::list(&PinnedMaps::below(&looking.bpffs)?)?;
            looking.print(&maps, || maps::view::list(&maps))
        }
        Command::Maps(Maps::Dump { name, all, looking }) => {
            let pins = PinnedMaps::below(&looking.bpffs)?;
            let dump = maps::dump(&pins, &name, all, &KernelInterfaces::open())?;
            looking.print(&dump, || maps::view::dump(&dump))
        }
        Command::Maps(Maps::Watch {
            name,
            interval,
            looking,
        }) => live::repeat(Duration::from_secs(interval), || {
            let pins = PinnedMaps::below(&looking.bpffs)?;
            let dump = maps::dump(&pins, &name, false, &KernelInterfaces::open())?;
            text_of(looking.json, &dump, || maps::view::dump(&dump))
        }),
        Command::Monitor(Monitor::Cluster(asking)) => live::monitor(&asking.agent(), asking.json),
        Command::Top { socket } => live::top(&Client::new(socket)),
        Command::Log(Log::Level { level, asking }) => {
            let level = asking.agent().set_log_level(&level)?;
            asking.print(View::LogLevel(&level), || {
                format!("the agent logs {level}\n")
            })
        }
        Command::Man { directory } => clap_mangen::generate_to(Arguments::command(), &directory)
            .with_context(|| format!("cannot write to {}", directory.display())),
    }
}

fn show(what: Show) -> Result<()> {
    match what {
        Show::Cluster(Cluster::Status(asking)) => {
            let status = asking.agent().status()?;
            let view = View::Status(&status);
            asking.print(view, || views::cluster_status(&status))
        }
        Show::Cluster(Cluster::History(asking)) => {
            let status = asking.agent().status()?;
            let view = View::History(History::of(&status));
            asking.print(view, || views::history(&status))
        }
        Show::Interfaces {
            which: None,
            asking,
        } => {
            let interfaces = asking.agent().interfaces()?;
            let view = View::Interfaces(&interfaces);
            asking.print(view, || views::interfaces(&interfaces))
        }
        Show::Interfaces {
            which:
                Some(Interfaces::Tunnel {
                    which,
                    extent,
                    asking,
                }),
            asking: _,
        } => show_tunnels(which, extent, &asking),
        Show::Heartbeat(asking) => {
            let sessions = asking.agent().heartbeat()?;
            let view = View::Heartbeat(&sessions);
            asking.print(view, || views::heartbeat(&sessions))
        }
        Show::Version(asking) => show_version(&asking),
        Show::Configuration {
            commands,
            origin,
            secrets,
            asking,
        } => {
            let form = commands.map_or(Form::Brace, |Commands::Commands| Form::Set);
            let configuration = asking.agent().configuration(secrets, origin)?;
            let view = View::Configuration(&configuration);
            asking.print(view, || form.print(&configuration.statements))
        }
    }
}

/// Begins the move, and waits until it has come about.
fn force(to: ForcedState, group: &[String], i_know: bool, asking: &Asking) -> Result<()> {
    /// A handover takes as long as services take to be taken and released.
    const PATIENCE: Duration = Duration::from_secs(15);
    const INTERVAL: Duration = Duration::from_millis(50);
    let group = match group {
        [] => None,
        [word, name] if word == "group" => Some(name.clone()),
        other => bail!("write `group GROUP`, not `{}`", other.join(" ")),
    };
    let to = match to {
        ForcedState::Active => Forced::Active,
        ForcedState::Standby => Forced::Standby,
    };
    let agent = asking.agent();
    let ForceBegun { group, text } = agent.force(Force { group, to, i_know })?;
    let start = Instant::now();
    loop {
        let status = agent.status()?;
        let found = status.groups.into_iter().find(|known| known.group == group);
        let status = found.with_context(|| format!("the agent has no group {group} any more"))?;
        if let Some(moved) = Moved::of(&status, to, &text) {
            return asking.print(View::Force(&moved), || views::moved(&moved));
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

/// What checking the largest configuration may take.
const LONGEST_CHECK: Duration = Duration::from_mins(1);

fn carry_out(configure: Configure) -> Result<()> {
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
    let agent = asking.agent().with_timeout(LONGEST_CHECK);
    let configured = agent.configure(step)?;
    eprint!("{}", configured.warnings);
    let rolled_back = match configured.ticket {
        Some(ticket) => outcome(&asking.agent(), ticket, is_way_back)?,
        None => None,
    };
    asking.print(View::Configured(&configured), || changes(&configured))?;
    match rolled_back {
        Some(reason) if !is_way_back => {
            bail!("the agent went back to the configuration before: {reason}")
        }
        Some(_) | None => Ok(()),
    }
}

fn changes(configured: &Configured) -> String {
    let mut lines: Vec<_> = configured.changes.iter().map(ToString::to_string).collect();
    lines.push(String::new());
    lines.join("\n")
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
    let mut text = Zeroizing::new(String::new());
    let limited = |from: &mut dyn io::Read, text: &mut String| {
        // One more, so that the agent says that it is too large.
        from.take(LARGEST_FILE + 1).read_to_string(text)
    };
    if file == Path::new("-") {
        limited(&mut io::stdin(), &mut text).context("cannot read the standard input")?;
    } else {
        File::open(file)
            .and_then(|mut file| limited(&mut file, &mut text))
            .with_context(|| format!("cannot read {}", file.display()))?;
    }
    Ok(Secret::new(text.as_str()))
}

fn help(path: &[String]) -> Result<()> {
    let possible = possible(path).with_context(|| {
        format!(
            "there is no `{}` in the configuration; see what there is by leaving out words at the end",
            path.join(" ")
        )
    })?;
    let width = possible.iter().map(|p| p.word.len()).max().unwrap_or(0);
    for Possible { word, help } in possible {
        println!("  {word:width$}  {help}");
    }
    Ok(())
}

/// One line. It never comes by the command line, which others can read.
fn read_secret(file: Option<&Path>) -> Result<Secret> {
    let mut text = Zeroizing::new(String::new());
    match file {
        Some(file) => {
            File::open(file)
                .and_then(|file| file.take(LONGEST_SECRET).read_to_string(&mut text))
                .with_context(|| format!("cannot read {}", file.display()))?;
        }
        None if io::stdin().is_terminal() => {
            bail!("the secret would be shown: name a --file, or send it to the standard input");
        }
        None => {
            io::stdin()
                .take(LONGEST_SECRET)
                .read_to_string(&mut text)
                .context("cannot read the standard input")?;
        }
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
    Ok(Secret::new(line))
}

fn show_tunnels(which: Option<String>, extent: Option<Extent>, asking: &Asking) -> Result<()> {
    let (name, extent) = tunnel_words(which, extent);
    let tunnels = select(asking.agent().tunnels()?, name.as_deref())?;
    asking.print(View::Tunnels(&tunnels), || match extent {
        Extent::Brief => views::tunnels_brief(&tunnels),
        Extent::Detail => views::tunnels_detail(&tunnels),
    })
}

/// The two words after `tunnel`, either of which may be missing.
fn tunnel_words(which: Option<String>, extent: Option<Extent>) -> (Option<String>, Extent) {
    match (which, extent) {
        (None, extent) => (None, extent.unwrap_or(Extent::Brief)),
        (Some(word), None) => match Extent::from_str(&word, false) {
            Ok(extent) => (None, extent),
            Err(_) => (Some(word), Extent::Detail),
        },
        (Some(name), Some(extent)) => (Some(name), extent),
    }
}

fn select(mut tunnels: Vec<TunnelStatus>, name: Option<&str>) -> Result<Vec<TunnelStatus>> {
    let Some(name) = name else {
        return Ok(tunnels);
    };
    let names: Vec<String> = tunnels.iter().map(|tunnel| tunnel.name.clone()).collect();
    tunnels.retain(|tunnel| tunnel.name == name);
    if tunnels.is_empty() {
        let known = match names.len() {
            0 => "none is configured".to_owned(),
            1..=8 => format!("there are: {}", names.join(", ")),
            more => format!("see `routerctl show interfaces tunnel` for the {more} that there are"),
        };
        bail!("there is no tunnel {name}; {known}");
    }
    Ok(tunnels)
}

/// Shows this program's version even if the agent's cannot be had.
fn show_version(asking: &Asking) -> Result<()> {
    let own = AgentVersion::own();
    let answer = asking.agent().version();
    let agent = answer.as_ref().ok();
    let view = View::Version(Versions {
        routerctl: &own,
        agent,
    });
    asking.print(view, || views::version(&own, agent))?;
    answer?;
    Ok(())
}

impl Asking {
    fn agent(&self) -> Client {
        Client::new(&self.socket)
    }

    fn print(&self, view: View, text: impl FnOnce() -> String) -> Result<()> {
        print(self.json, view, text)
    }
}

impl Looking {
    fn print(&self, view: impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        print(self.json, view, text)
    }
}

fn print(json: bool, view: impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    let text = text_of(json, view, text)?;
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // The reader has had enough, such as `head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot write to the standard output"),
    }
}

fn text_of(json: bool, view: impl Serialize, text: impl FnOnce() -> String) -> Result<String> {
    Ok(if json {
        serde_json::to_string_pretty(&Document::of(view))? + "\n"
    } else {
        text()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn tunnels_are_named_as_in_vyatta() {
        let words = |line: &str| {
            let arguments = ["routerctl", "show", "interfaces", "tunnel"];
            let arguments = arguments.into_iter().chain(line.split_whitespace());
            let Command::Show(Show::Interfaces {
                which: Some(Interfaces::Tunnel { which, extent, .. }),
                ..
            }) = Arguments::parse_from(arguments).command
            else {
                panic!("another command");
            };
            tunnel_words(which, extent)
        };
        assert!(matches!(words(""), (None, Extent::Brief)));
        assert!(matches!(words("brief"), (None, Extent::Brief)));
        assert!(matches!(words("detail --json"), (None, Extent::Detail)));
        assert!(matches!(words("tun00"), (Some(name), Extent::Detail) if name == "tun00"));
        assert!(matches!(words("tun00 brief"), (Some(_), Extent::Brief)));
        assert!(matches!(words("tun00 detail"), (Some(_), Extent::Detail)));
    }

    #[test]
    fn without_a_word_all_interfaces_are_meant() {
        let words = ["routerctl", "show", "interfaces", "--json"];
        let command = Arguments::parse_from(words).command;
        let Command::Show(Show::Interfaces {
            which: None,
            asking,
        }) = command
        else {
            panic!("another command");
        };
        assert!(asking.json);
        let words = words.into_iter().chain(["tunnel"]);
        Arguments::try_parse_from(words).unwrap_err();
    }

    #[test]
    fn a_tunnel_that_is_not_there_is_an_error() {
        let tunnels = |count: usize| {
            let tunnel = |number| TunnelStatus {
                name: format!("tun{number:02}"),
                ..TunnelStatus::default()
            };
            (0..count).map(tunnel).collect::<Vec<_>>()
        };
        assert_eq!(select(tunnels(3), None).unwrap().len(), 3);
        assert_eq!(select(tunnels(3), Some("tun01")).unwrap().len(), 1);
        let message = |count| {
            select(tunnels(count), Some("tun99"))
                .unwrap_err()
                .to_string()
        };
        assert!(message(0).ends_with("none is configured"));
        assert!(message(2).ends_with("there are: tun00, tun01"));
        assert!(message(50).ends_with("for the 50 that there are"));
    }
}
