//! The command line.

#[cfg(feature = "dpdk")]
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use sealane::control::capture::command::{self as capture, CaptureArgs};
use sealane::control::config::{self, Configuration, Machine};
use sealane::control::ctl::{self, CtlArgs};
use sealane::control::doctor::{self, DoctorArgs};
use sealane::control::keys::{self, KeysCommand, inspect};
use sealane::control::top::{self, TopArgs};
use sealane::control::trace::command::{self as trace, TraceArgs};
use sealane::load::command::{self as make_load, LoadArgs};

/// What the kernel has given is kept: glibc's allocator gives it back and asks again, a page fault for every few segments.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A TLS-terminating load balancer that bypasses the kernel
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the engine. SIGTERM drains and exits, SIGHUP reloads the configuration
    Run {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Prove a configuration: every error with its line, its key and what to write instead
    Check {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Make, show, rotate and check ticket key files
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Look into session tickets
    #[command(subcommand)]
    Ticket(inspect::TicketCommand),
    /// Show what connections of an engine have just done: each segment of a sample of them, timeouts and resets of all
    Trace(TraceArgs),
    /// Capture frames of a running engine, for tcpdump, tshark and Wireshark
    Capture(Box<CaptureArgs>),
    /// Show and change a running engine: servers, pools, services, certificates, keys
    Ctl(CtlArgs),
    /// Show a running engine live in this terminal: rates, lanes, servers, services, keys
    Top(TopArgs),
    /// Make load: handshakes, requests, bulk and idle connections, over a DPDK port or kernel sockets, with the answering servers
    Load(Box<LoadArgs>),
    /// Look at this machine, and at what a configuration wants of it: what is wrong, and the command that mends it
    Doctor(DoctorArgs),
    /// Print completions for a shell: `sealane completions bash > /etc/bash_completion.d/sealane`
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one a command
    Manual {
        /// Into this directory
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run { config } => run::run(&config),
        Command::Check { config } => check(&config),
        Command::Keys(command) => keys::run(command),
        Command::Ticket(inspect::TicketCommand::Inspect(inspect)) => inspect_ticket(&inspect),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Capture(arguments) => capture::run(&arguments),
        Command::Ctl(arguments) => ctl::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Load(arguments) => make_load::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Completions { shell } => Ok(complete(shell)),
        Command::Manual { directory } => write_manual(&directory),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

/// The configuration in `file`; what forbids nothing is told on standard error.
fn load(file: &Path) -> Result<Configuration, config::Errors> {
    let configuration = config::load(file, &Machine::this())?;
    for warning in &configuration.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(configuration)
}

fn check(file: &Path) -> anyhow::Result<ExitCode> {
    match load(file) {
        Ok(configuration) => {
            println!("{}: no errors\n{configuration}", file.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            let count = errors.faults().len();
            eprintln!("{errors}\n{}: {count} error{}", file.display(), if count == 1 { "" } else { "s" });
            Ok(ExitCode::FAILURE)
        }
    }
}

fn inspect_ticket(arguments: &inspect::InspectArgs) -> anyhow::Result<ExitCode> {
    let configurations = arguments.config.iter().map(|file| load(file)).collect::<Result<Vec<_>, _>>()?;
    inspect::run(arguments, &configurations)
}

fn complete(shell: clap_complete::Shell) -> ExitCode {
    clap_complete::generate(shell, &mut Arguments::command(), "sealane", &mut std::io::stdout());
    ExitCode::SUCCESS
}

fn write_manual(directory: &Path) -> anyhow::Result<ExitCode> {
    // Subcommands of subcommands have pages, too: sealane-keys-rotate(1).
    clap_mangen::generate_to(Arguments::command(), directory)
        .with_context(|| format!("manual pages cannot be written into {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(not(feature = "dpdk"))]
mod run {
    //! Without DPDK there is nothing to run.

    pub(crate) fn run(_: &std::path::Path) -> anyhow::Result<std::process::ExitCode> {
        anyhow::bail!(
            "this sealane was built without the dpdk feature: `cargo build --release` builds one that runs engines"
        )
    }
}
