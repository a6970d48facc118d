//! The daemon.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand};
use router_agent::{
    agent::{
        self, Options,
        preflight::{self, Problem, Unfit},
    },
    config::{self, Facts, Loaded, Refused},
    control,
    dataplane::{BPFFS_VARIABLE, DEFAULT_BPFFS, Dataplane, Former, ModeChoice, Programs},
    logging::{self, LogFormat, LogLevel},
};
use tokio::runtime::{Builder, Runtime};

/// Makes two routers act as one.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How the log on the standard error is written.
    #[arg(
        long,
        value_enum,
        global = true,
        value_name = "FORMAT",
        default_value = "human"
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run in the foreground until SIGTERM.
    Run {
        /// The configuration, in set form.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Refuse what the language knows and this router does not carry out.
        #[arg(long)]
        strict: bool,
        #[arg(long, value_name = "PATH", default_value = control::DEFAULT_SOCKET, env = control::SOCKET_VARIABLE)]
        control_socket: PathBuf,
        #[command(flatten)]
        pins: PinArguments,
        /// Where in the receive path the programs run.
        #[arg(long, value_name = "MODE", default_value = "auto")]
        xdp_mode: ModeChoice,
    },
    /// Check a configuration without touching anything.
    Check {
        #[arg(value_name = "FILE")]
        config: PathBuf,
        /// Refuse what the language knows and this router does not carry out.
        #[arg(long)]
        strict: bool,
    },
    /// Load the programs and attach them to an interface, without tunnels, for looking at them.
    Load {
        #[arg(long, value_name = "INTERFACE")]
        iface: String,
        #[arg(long, value_name = "MODE", default_value = "auto")]
        mode: ModeChoice,
        #[command(flatten)]
        pins: PinArguments,
    },
    /// Write the man pages into a directory.
    #[command(hide = true)]
    Man { directory: PathBuf },
    /// Detach and remove what `load`, or an agent that died, left: programs, maps and tunnels.
    Unload {
        #[command(flatten)]
        pins: PinArguments,
    },
}

#[derive(clap::Args)]
struct PinArguments {
    /// The mounted BPF file system.
    #[arg(long, value_name = "DIRECTORY", default_value = DEFAULT_BPFFS, env = BPFFS_VARIABLE)]
    bpffs: PathBuf,
}

/// The configuration or the system is at fault; nothing was changed.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let Arguments {
        log_format,
        command,
    } = Arguments::parse();
    let (log_level, _flushed_at_the_end) = logging::begin(log_format);
    match carry_out(command, log_level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(refused) = error.downcast_ref::<Refused>() {
                eprintln!("{}", refused.render(std::io::stderr().is_terminal()));
                ExitCode::from(REFUSED)
            } else if let Some(unfit) = error.downcast_ref::<Unfit>() {
                eprintln!("{unfit}");
                ExitCode::from(REFUSED)
            } else {
                eprintln!("router-agent: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}

fn carry_out(command: Command, log_level: LogLevel) -> Result<()> {
    match command {
        Command::Run {
            config,
            strict,
            control_socket,
            pins: PinArguments { bpffs },
            xdp_mode,
        } => {
            let Loaded { config, .. } = load(&config, strict)?;
            let options = Options {
                control_socket,
                bpffs,
                xdp_mode,
                log_level,
            };
            runtime()?.block_on(agent::run(config, options))
        }
        Command::Check { config, strict } => {
            let loaded = load(&config, strict)?;
            let groups = loaded.config.cluster.map_or(0, |c| c.groups.len());
            println!(
                "configuration accepted: {} tunnel(s), {groups} cluster group(s), {} warning(s)",
                loaded.config.tunnels.len(),
                loaded.warnings.len()
            );
            Ok(())
        }
        Command::Load {
            iface,
            mode,
            pins: PinArguments { bpffs },
        } => {
            let mut problems = preflight::system_problems(&bpffs);
            if !Path::new("/sys/class/net").join(&iface).exists() {
                problems.push(Problem::new(
                    format!("there is no interface {iface}"),
                    "`ip link` shows what there is",
                ));
            }
            refuse_if_unfit(problems)?;
            let mut dataplane = Dataplane::load(Former::find(&bpffs)?.given_up())?;
            match dataplane.attach(Programs::Underlay, &iface, mode) {
                Ok(mode) => {
                    println!(
                        "attached to {iface}, XDP mode {mode}; `routerctl maps list` shows the maps"
                    );
                    Ok(())
                }
                Err(error) => {
                    dataplane.remove()?;
                    Err(error)
                }
            }
        }
        Command::Man { directory } => clap_mangen::generate_to(Arguments::command(), &directory)
            .with_context(|| format!("cannot write to {}", directory.display())),
        Command::Unload {
            pins: PinArguments { bpffs },
        } => {
            refuse_if_unfit(preflight::system_problems(&bpffs))?;
            for tunnel in runtime()?.block_on(agent::remove_left_overs(&bpffs))? {
                println!("removed {tunnel}");
            }
            Ok(())
        }
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
}

fn refuse_if_unfit(problems: Vec<Problem>) -> Result<()> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Unfit(problems).into())
    }
}

/// Reads a configuration and shows its warnings.
fn load(path: &Path, strict: bool) -> Result<Loaded> {
    let kernel_host_name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let loaded = config::load(path, &Facts { kernel_host_name }, strict)?;
    if !loaded.warnings.is_empty() {
        eprintln!(
            "{}",
            loaded.render_warnings(std::io::stderr().is_terminal())
        );
    }
    Ok(loaded)
}
