//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sealane::control::config::{self, Machine};

/// A TLS-terminating load balancer that bypasses the kernel.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the engine. SIGTERM drains and exits, SIGHUP reloads the configuration.
    Run {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Prove a configuration: every error with its line, its key and what to write instead.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => run(&config),
        Command::Check { config } => check(&config),
    }
}

fn check(file: &Path) -> ExitCode {
    match config::load(file, &Machine::this()) {
        Ok(configuration) => {
            for warning in &configuration.warnings {
                eprintln!("warning: {warning}");
            }
            println!("{}: right\n{configuration}", file.display());
            ExitCode::SUCCESS
        }
        Err(errors) => {
            let count = errors.faults().len();
            eprintln!("{errors}\n{}: {count} error{}", file.display(), if count == 1 { "" } else { "s" });
            ExitCode::FAILURE
        }
    }
}

fn run(file: &Path) -> ExitCode {
    if let Err(errors) = config::load(file, &Machine::this()) {
        eprintln!("{errors}");
        return ExitCode::FAILURE;
    }
    eprintln!(
        "this sealane was built without the dpdk feature: build it with `cargo build --release` to run an engine"
    );
    ExitCode::FAILURE
}
