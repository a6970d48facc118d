//! The operator's tool: shows what the agent does and what the kernel's maps hold.

mod clear;
mod configure;
mod force;
mod log;
mod names;
mod output;
mod secret;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::{ArgValueCandidates, CompleteEnv};
use router_agent::{
    config::Form,
    control::{
        DEFAULT_SOCKET, SOCKET_VARIABLE,
        client::Client,
        protocol::{AgentVersion, TunnelStatus},
    },
    live,
    maps::{self, KernelInterfaces, PinnedMaps},
    terminal,
    views::{
        self,
        json::{History, Versions, View},
    },
};

use crate::{
    clear::Clear,
    configure::Configure,
    force::Forcing,
    log::Log,
    output::{Asking, Looking, text_of},
    secret::Rotate,
};

/// Shows what a redundant router does.
///
/// Exits with 0 on success, 1 on failure, 2 when called wrongly.
#[derive(Debug, Parser)]
#[command(name = "routerctl", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    color: colorchoice_clap::Color,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask the running agent.
    #[command(subcommand)]
    Show(Show),
    /// Forget what the kernel has learnt, or begin to count anew.
    #[command(subcommand)]
    Clear(Clear),
    /// Change the pre-shared secret of the running agent, without a missed heartbeat.
    ///
    /// The secret is one line of the standard input or of a file. The agent forgets it when it stops, so the
    /// configuration must state it, too. In this order, each step on both nodes:
    ///
    /// 1. `routerctl rotate-secret --file FILE`, with the same secret
    ///
    /// 2. `routerctl configure apply` with it as `pre-shared-secret`, and the old one as
    ///    `previous-pre-shared-secret`
    ///
    /// 3. `routerctl rotate-secret --finish`, once `routerctl show heartbeat` says that both use it
    ///
    /// 4. `routerctl configure apply` without `previous-pre-shared-secret`
    RotateSecret(Rotate),
    /// Move a group of the running agent by hand.
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
    /// How much the running agent logs.
    #[command(subcommand)]
    Log(Log),
    /// Write the man pages into a directory.
    #[command(hide = true)]
    Man { directory: PathBuf },
}

#[derive(Debug, Subcommand)]
enum Monitor {
    /// Changes of state, their steps, and findings. With --json an object a line.
    Cluster(Asking),
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
    /// What the agent logged last.
    Log(log::Excerpt),
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
        /// Also the secrets, to whom may change the configuration.
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
        #[arg(value_name = "TUNNEL|brief|detail", add = ArgValueCandidates::new(names::tunnels_and_extents))]
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

#[derive(Debug, Subcommand)]
enum Maps {
    /// Every map of this version: type, sizes, whether it is pinned.
    List(Looking),
    /// What a map holds, decoded. Secrets are masked.
    Dump {
        /// As `maps list` shows it, in upper or lower case.
        #[arg(add = ArgValueCandidates::new(names::maps))]
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
        #[arg(add = ArgValueCandidates::new(names::maps))]
        name: String,
        /// Seconds between two looks.
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=3_600))]
        interval: u64,
        #[command(flatten)]
        looking: Looking,
    },
}

fn main() -> ExitCode {
    CompleteEnv::with_factory(Arguments::command).complete();
    let Arguments { command, color } = Arguments::parse();
    color.write_global();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&format!("routerctl: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Show(what) => show(what),
        Command::Configure(configure) => configure::carry_out(configure),
        Command::Clear(clear) => clear::clear(clear),
        Command::RotateSecret(rotate) => secret::rotate(rotate),
        Command::Force(forcing) => force::force(forcing),
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
        Command::Log(log) => log::set(log),
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
        Show::Log(lines) => log::show(lines),
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
            asking.print_whole(view, || form.print(&configuration.statements))?;
            if let Some(ms) = configuration.unconfirmed_for_ms {
                terminal::complain(&format!(
                    "not confirmed: the configuration before comes back in {} s, unless `routerctl configure \
                     confirm` keeps this one\n",
                    ms / 1_000
                ));
            }
            Ok(())
        }
    }
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
