//! `sealane doctor`: looks at the machine, and at what a configuration wants of it, and says of each thing whether it is right and the command that mends it.
//!
//! It changes nothing and sends nothing but, for a ring in etcd, what a reader of that ring sends. [`Host`] is all that it sees of the machine,
//! so that tests show it machines that are not there.

mod crypto;
mod host;
mod keys;
mod machine;
mod ports;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::control::config::{self, Configuration, Machine};

pub use host::Host;

/// `sealane doctor …`
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// What an engine of this configuration would want of the machine, too
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Leave the measurements out, which take two seconds
    #[arg(long)]
    no_measure: bool,
}

/// How it is with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be, or a fact to know.
    Good,
    /// An engine runs, slower or with less protection than it could.
    Weak,
    /// An engine does not run, or should not.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about, in a word or two.
    pub about: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub what: String,
    /// The command that mends it, or what to do.
    pub remedy: Option<String>,
}

impl Finding {
    fn good(about: &'static str, what: impl Into<String>) -> Self {
        Self { about, verdict: Verdict::Good, what: what.into(), remedy: None }
    }

    fn weak(about: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { about, verdict: Verdict::Weak, what: what.into(), remedy: Some(remedy.into()) }
    }

    fn bad(about: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, ..Self::weak(about, what, remedy) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "good",
            Verdict::Weak => "weak",
            Verdict::Bad => "BAD",
        };
        write!(f, "{verdict:<5} {:<12} {}", self.about, self.what)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "\n{:>19}mend it: {remedy}", ""))
    }
}

/// Everything that there is to say of `host`, and of what `configuration` wants of it.
pub fn examine(host: &Host, configuration: Option<&Configuration>) -> Vec<Finding> {
    let mut findings = machine::examine(host, configuration);
    if let Some(configuration) = configuration {
        findings.extend(configuration.ports.iter().flat_map(|port| ports::examine(host, port, configuration)));
        findings.extend(keys::examine(host, configuration));
    }
    findings.extend(crypto::instructions(host));
    findings
}

/// Runs the command; its exit status says whether anything is bad.
///
/// # Errors
/// When standard output cannot be written to.
pub fn run(arguments: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut findings = Vec::new();
    let configuration = arguments.config.as_deref().and_then(|file| match config::load(file, &Machine::this()) {
        Ok(configuration) => {
            let warned = configuration
                .warnings
                .iter()
                .map(|warning| Finding::weak("config", warning.to_string(), format!("edit {}", file.display())));
            findings.extend(warned);
            Some(configuration)
        }
        Err(errors) => {
            let remedy = format!("edit {}, then `sealane check --config {0}`", file.display());
            findings.extend(errors.faults().iter().map(|fault| Finding::bad("config", fault.to_string(), &remedy)));
            None
        }
    });
    findings.extend(examine(&Host::this(), configuration.as_ref()));
    if let Some(configuration) = &configuration {
        findings.extend(keys::ask_etcd(configuration));
    }
    if !arguments.no_measure {
        findings.extend(crypto::measure());
    }
    print(&findings, arguments.json)?;
    let is_bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(findings: &[Finding], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(findings)?);
        return Ok(());
    }
    findings.iter().for_each(|finding| println!("{finding}"));
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    println!("{} good, {} weak, {} bad", count(Verdict::Good), count(Verdict::Weak), count(Verdict::Bad));
    Ok(())
}

#[cfg(test)]
mod tests;
