//! The daemon.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use router_agent::{
    agent::{
        self, Options, Outcome,
        configuration::{Beginning, way_back},
        preflight::{self, Problem, Unfit},
        privileges,
        succession::{self, Succession},
    },
    config::{self, Facts, Form, Imported, Refused, Secrets},
    control,
    dataplane::{BPFFS_VARIABLE, DEFAULT_BPFFS, Dataplane, Former, ModeChoice, Programs},
    history,
    logging::{self, Log, LogFormat},
    terminal,
};
use rustix::process::{WaitOptions, wait};
use tokio::runtime::{Builder, Runtime};
use tracing::warn;

/// How long work that blocks may hold up the end of an agent.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
        /// The configuration, in either form. SIGHUP has it read again.
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
        /// Keep the history of failovers here.
        #[arg(long, value_name = "DIRECTORY", default_value = history::DEFAULT_DIRECTORY)]
        history: PathBuf,
    },
    /// Check a configuration without touching anything.
    Check {
        #[arg(value_name = "FILE")]
        config: PathBuf,
        /// Refuse what the language knows and this router does not carry out.
        #[arg(long)]
        strict: bool,
    },
    /// Carry over a configuration of an old system: print it as this router has it, and on the standard
    /// error what is kept, changed and left out.
    ///
    /// Exits with 2 if what it prints has to be completed before it can run, be it by a secret that is
    /// masked.
    Import {
        #[arg(value_name = "FILE")]
        config: PathBuf,
        #[arg(long, value_name = "FORM", default_value = "brace")]
        form: FormArgument,
        /// Print secrets too, not what stands for them.
        #[arg(long)]
        secrets: bool,
    },
    /// Print the reference of the configuration language, in Markdown.
    Reference,
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

#[derive(Clone, Copy, ValueEnum)]
enum FormArgument {
    /// Nested, as config.boot is
    Brace,
    /// A line for each value
    Set,
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
    // Before there are threads: each has its own.
    let dropped = match command {
        Command::Run { .. } => privileges::drop_the_rest(),
        _ => Ok(()),
    };
    let (log, flushed_at_the_end) = logging::begin(log_format);
    let outcome = dropped
        .and_then(|()| carry_out(command, log))
        .and_then(|next| match next {
            Next::End => Ok(ExitCode::SUCCESS),
            Next::Incomplete => Ok(ExitCode::from(REFUSED)),
            Next::Agent { by, terminate } => {
                drop(flushed_at_the_end);
                match by.begin(terminate)? {}
            }
        });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let (text, code) = if let Some(refused) = error.downcast_ref::<Refused>() {
                let text = refused.render(std::io::stderr().is_terminal());
                (text, ExitCode::from(REFUSED))
            } else if let Some(unfit) = error.downcast_ref::<Unfit>() {
                (unfit.to_string(), ExitCode::from(REFUSED))
            } else {
                (format!("router-agent: {error:#}"), ExitCode::FAILURE)
            };
            terminal::complain(&format!("{text}\n"));
            code
        }
    }
}

/// What comes when a command has been carried out.
enum Next {
    End,
    /// Work for the operator.
    Incomplete,
    /// Another agent in this one's place.
    Agent {
        by: Succession,
        terminate: bool,
    },
}

fn carry_out(command: Command, log: Log) -> Result<Next> {
    match command {
        Command::Run {
            config,
            strict,
            control_socket,
            pins: PinArguments { bpffs },
            xdp_mode,
            history,
        } => {
            let options = Options {
                config,
                strict,
                control_socket,
                bpffs,
                xdp_mode,
                history,
                log,
            };
            run(options)
        }
        Command::Check { config, strict } => {
            check(&config, strict)?;
            Ok(Next::End)
        }
        Command::Import {
            config,
            form,
            secrets,
        } => {
            let secrets = if secrets {
                Secrets::Shown
            } else {
                Secrets::Masked
            };
            let form = match form {
                FormArgument::Brace => Form::Brace,
                FormArgument::Set => Form::Set,
            };
            let Imported {
                statements,
                account,
            } = config::import(&config, &facts(), secrets)?;
            terminal::print(&form.print(&statements))?;
            terminal::complain(&account.to_string());
            Ok(if account.incomplete.is_empty() {
                Next::End
            } else {
                Next::Incomplete
            })
        }
        Command::Reference => {
            terminal::print(&config::reference())?;
            Ok(Next::End)
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
            match dataplane.attach(Programs::Underlay, &iface, mode, None) {
                Ok(mode) => {
                    terminal::print(&format!(
                        "attached to {iface}, XDP mode {mode}; `routerctl maps list` shows the maps\n"
                    ))?;
                    Ok(Next::End)
                }
                Err(error) => {
                    dataplane.remove()?;
                    Err(error)
                }
            }
        }
        Command::Man { directory } => {
            clap_mangen::generate_to(Arguments::command(), &directory)
                .with_context(|| format!("cannot write to {}", directory.display()))?;
            Ok(Next::End)
        }
        Command::Unload {
            pins: PinArguments { bpffs },
        } => {
            refuse_if_unfit(preflight::system_problems(&bpffs))?;
            for tunnel in runtime()?.block_on(agent::remove_left_overs(&bpffs))? {
                terminal::print(&format!("removed {tunnel}\n"))?;
            }
            Ok(Next::End)
        }
    }
}

fn check(config: &Path, strict: bool) -> Result<()> {
    let loaded = config::load(config, &facts(), strict)?;
    if !loaded.warnings.is_empty() {
        let warnings = loaded.render_warnings(std::io::stderr().is_terminal());
        terminal::complain(&format!("{warnings}\n"));
    }
    let groups = loaded.config.cluster.as_ref().map_or(0, |c| c.groups.len());
    terminal::print(&format!(
        "configuration accepted: {} tunnel(s), {groups} cluster group(s), {} warning(s)\n",
        loaded.config.tunnels.len(),
        loaded.warning_count
    ))?;
    if let Some(cluster) = &loaded.config.cluster
        && let Some(etcd) = &cluster.arbiter
    {
        terminal::print(&format!(
            "arbiter: answers within {} ms keep forwarding going when the standby dies; \
             alone, a node is active for {} ms after a write, and waits {} ms for an answer\n",
            cluster.wanted_answer().as_secs_f64() * 1e3,
            etcd.term.as_millis(),
            etcd.timeout.as_millis()
        ))?;
    }
    Ok(())
}

/// Runs an agent; what is to come after it.
fn run(options: Options) -> Result<Next> {
    let succession = Succession::from_environment()?;
    if succession.is_some() {
        succession::restore_name()?;
    }
    let path = succession
        .as_ref()
        .map_or(&options.config, |s| &s.configuration);
    let facts = facts();
    let loaded = match (config::load(path, &facts, options.strict), &succession) {
        (Ok(loaded), _) => loaded,
        (Err(refused), Some(trial)) if trial.is_trial() => {
            return Ok(Next::Agent {
                by: way_back(trial, &refused.into())?,
                terminate: false,
            });
        }
        (Err(refused), _) => return Err(refused.into()),
    };
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    if succession.is_some() {
        reap_inherited();
    }
    let beginning = Beginning {
        loaded,
        facts,
        succession,
    };
    let runtime = runtime()?;
    let outcome = runtime.block_on(agent::run(beginning, options));
    // What blocks, such as a look at processes, holds up neither an end nor a successor.
    runtime.shutdown_timeout(LAST_WORDS);
    Ok(match outcome? {
        Outcome::Stopped => Next::End,
        Outcome::Succeeded { by, terminate } => Next::Agent { by, terminate },
    })
}

/// Children of the agent before this one, in the same process, that it killed and could not wait for any
/// more. This one has none yet.
fn reap_inherited() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
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

/// What the check must know of this system.
fn facts() -> Facts {
    let kernel_host_name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    Facts::of_host(kernel_host_name)
}
