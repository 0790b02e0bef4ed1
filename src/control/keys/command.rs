//! `sealane keys`: makes, shows, rotates and checks ticket key files.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::finding::Severity;
use super::{file, lint};
use crate::base::{Random, UnixTime};
use crate::ticket::{Ring, Schedule};

/// `sealane keys …`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum KeysCommand {
    /// Write a new key file: one key that seals, and one that the first rotation activates
    New {
        /// The key file, made with mode 0600
        file: PathBuf,
        /// Replace an existing file; all tickets under its keys are lost
        #[arg(long)]
        force: bool,
    },
    /// Show the keys of a file
    List {
        /// The key file
        file: PathBuf,
        /// Show the secrets too
        #[arg(long)]
        show_secrets: bool,
    },
    /// Activate the pending key, retire the active one, drop those whose tickets have expired
    Rotate {
        /// The key file
        file: PathBuf,
        /// The engines' schedule
        #[command(flatten)]
        schedule: ScheduleArgs,
    },
    /// Find what is wrong with a key file; exit code 1 on errors
    Check {
        /// The key file
        file: PathBuf,
        /// The engines' schedule
        #[command(flatten)]
        schedule: ScheduleArgs,
    },
}

/// How the engines use the keys, as in their configuration.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ScheduleArgs {
    /// How long a ticket is honoured, at most 7 days
    #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
    pub lifetime: Duration,
    /// How often keys rotate
    #[arg(long, default_value = "6h", value_parser = humantime::parse_duration)]
    pub rotation: Duration,
}

/// Runs a command: prints to standard output and gives the exit code.
///
/// # Errors
/// When a file cannot be read, proven or written.
pub fn run(command: KeysCommand) -> anyhow::Result<ExitCode> {
    #[expect(clippy::disallowed_methods, reason = "a command reads the clock where it starts")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let mut random = Random::from_os()?;
    let clean = execute(command, UnixTime(now.as_secs()), &mut random, &mut std::io::stdout().lock())?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a command at a given time; false when `check` found errors.
fn execute(command: KeysCommand, now: UnixTime, random: &mut Random, out: &mut dyn Write) -> anyhow::Result<bool> {
    match command {
        KeysCommand::New { file: path, force } => {
            let mut ring = Ring::generate(now, random).with_pending(now, random);
            // An engine that watches the file takes a ring only if its version grows.
            if let Some(old) = file::read(&path).ok().filter(|_| force) {
                ring = Ring::new(old.version().saturating_add(1), ring.entries().to_vec())?;
            }
            file::write(&path, &ring, force)?;
            writeln!(out, "wrote {} with mode 0600", path.display())?;
            list(&ring, false, out)?;
        }
        KeysCommand::List { file: path, show_secrets } => list(&file::read(&path)?, show_secrets, out)?,
        KeysCommand::Rotate { file: path, schedule } => {
            let schedule = Schedule::new(schedule.rotation, schedule.lifetime)?;
            let ring = file::read(&path)?.rotate(now, random, &schedule);
            file::write(&path, &ring, true)?;
            list(&ring, false, out)?;
        }
        KeysCommand::Check { file: path, schedule } => {
            let schedule = Schedule::new(schedule.rotation, schedule.lifetime)?;
            let findings = lint::lint(&path, &schedule, now);
            for finding in &findings {
                writeln!(out, "{finding}")?;
            }
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
            let warnings = findings.len() - errors;
            writeln!(out, "{}: {}, {}", path.display(), counted(errors, "error"), counted(warnings, "warning"))?;
            return Ok(errors == 0);
        }
    }
    Ok(true)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn list(ring: &Ring, show_secrets: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "version {}", ring.version())?;
    writeln!(out, "{:<16}  {:<8}  {:<20}  {:<20}  {:<20}", "id", "state", "created", "activated", "not after")?;
    for entry in ring.entries() {
        let [activated, not_after] = [entry.activated, entry.not_after].map(|time| time.map_or("-".into(), file::date));
        let (state, created) = (file::state_name(entry.state), file::date(entry.created));
        write!(out, "{:<16}  {state:<8}  {created:<20}  {activated:<20}  {not_after:<20}", entry.key.id())?;
        if show_secrets {
            write!(out, "  {}", *zeroize::Zeroizing::new(hex::encode(entry.key.secret())))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: KeysCommand,
    }

    /// Runs a command line at a time; gives whether it was clean and what it printed.
    fn typed(line: &str, file: &Path, now: u64) -> anyhow::Result<(bool, String)> {
        let words = line.split(' ').map(|word| if word == "FILE" { file.as_os_str() } else { word.as_ref() });
        let command = Line::try_parse_from(std::iter::once("keys".as_ref()).chain(words))?.command;
        let mut out = Vec::new();
        let clean = execute(command, UnixTime(now), &mut Random::from_seed(now), &mut out)?;
        Ok((clean, String::from_utf8(out)?))
    }

    #[test]
    fn a_key_file_is_made_listed_rotated_and_clean() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        typed("new FILE", &path, 1000).unwrap();
        assert!(typed("new FILE", &path, 1000).is_err());
        let (_, listed) = typed("list FILE", &path, 1000).unwrap();
        assert!(listed.contains("active    1970-01-01T00:16:40Z") && listed.contains("pending"), "{listed}");
        let before = file::read(&path).unwrap();
        let (_, rotated) = typed("rotate FILE --lifetime 1h --rotation 30m", &path, 2000).unwrap();
        assert!(rotated.contains("retiring"), "{rotated}");
        let after = file::read(&path).unwrap();
        assert_eq!(after.version(), before.version() + 1);
        let first = before.active().unwrap().key.id();
        assert_eq!(after.find(first).unwrap().not_after, Some(UnixTime(2000 + 3600 + 60)));
        let (clean, checked) = typed("check FILE --lifetime 1h --rotation 30m", &path, 2001).unwrap();
        assert!(clean && checked.ends_with("0 errors, 0 warnings\n"), "{checked}");
        typed("new FILE --force", &path, 3000).unwrap();
        let forced = file::read(&path).unwrap();
        assert!(forced.find(first).is_none());
        assert_eq!(forced.version(), after.version() + 1, "an engine that watches the file takes it");
    }

    #[test]
    fn secrets_are_shown_only_when_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        let (_, made) = typed("new FILE", &path, 1000).unwrap();
        let secret = hex::encode(file::read(&path).unwrap().entries()[0].key.secret());
        assert!(!made.contains(&secret));
        assert!(!typed("list FILE", &path, 1000).unwrap().1.contains(&secret));
        assert!(typed("list FILE --show-secrets", &path, 1000).unwrap().1.contains(&secret));
    }

    #[test]
    fn check_fails_on_errors_and_not_on_warnings() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        typed("new FILE", &path, 1000).unwrap();
        let (clean, warned) = typed("check FILE", &path, 1_000_000).unwrap();
        assert!(clean && warned.contains("warning: a rotation was due"), "{warned}");
        assert!(warned.ends_with(": 0 errors, 1 warning\n"), "{warned}");
        std::fs::write(&path, "version = 1\n").unwrap();
        let (clean, failed) = typed("check FILE", &path, 1000).unwrap();
        assert!(!clean && failed.contains("error:") && failed.contains(": 1 error, 0 warnings"), "{failed}");
    }

    #[test]
    fn k4_a_schedule_beyond_the_cap_is_refused_on_the_command_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        typed("new FILE", &path, 1000).unwrap();
        assert!(typed("check FILE --lifetime 8days", &path, 1000).is_err());
        assert!(typed("rotate FILE --lifetime 7days --rotation 1h", &path, 1000).is_err());
        assert_eq!(file::read(&path).unwrap().version(), 1);
    }
}
