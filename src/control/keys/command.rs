//! `sealane keys`: makes, shows, stages, activates, rotates, purges and checks ticket key files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::finding::Severity;
use super::sealed::KeyEncryptionKey;
use super::{etcd, file, lint};
use crate::base::{Random, UnixTime};
use crate::control::config::{self, KeySource, Machine};
use crate::ticket::life::Refused;
use crate::ticket::ring::{Purged, State};
use crate::ticket::{KeyId, Ring, Schedule};

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
    /// Make a key-encryption key, under which etcd holds the ring; every engine of the cluster has the same
    NewKek {
        /// The file, made with mode 0600
        file: PathBuf,
    },
    /// Show the keys of a file, or of etcd
    List {
        /// The key file
        #[arg(required_unless_present = "config")]
        file: Option<PathBuf>,
        /// An engine's configuration instead, whose source of keys is etcd or a file
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        config: Option<PathBuf>,
        /// Show the secrets too
        #[arg(long)]
        show_secrets: bool,
    },
    /// Add a pending key, which engines open tickets with and seal none until it is activated
    Stage {
        /// The key file
        file: PathBuf,
        /// When it may be activated at the earliest, as in 2026-01-31T18:00:00Z; now, if left out
        #[arg(long, value_parser = time)]
        not_before: Option<UnixTime>,
    },
    /// Let a pending key seal, and retire the active one. Every engine should have the file with the pending key before
    Activate {
        /// The key file
        file: PathBuf,
        /// The key; the oldest one that may, if left out
        #[arg(long)]
        key: Option<KeyId>,
        /// The engines' schedule
        #[command(flatten)]
        schedule: ScheduleArgs,
    },
    /// Destroy a key at once, and for good: tickets under it are refused, connections go on. If it was active, the pending one seals, or a new one
    Purge {
        /// The key file
        #[arg(required_unless_present = "config")]
        file: Option<PathBuf>,
        /// An engine's configuration instead, whose source of keys is etcd or a file
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        config: Option<PathBuf>,
        /// The key
        #[arg(long)]
        key: KeyId,
    },
    /// Activate the pending key, retire the active one, drop those whose tickets have expired
    Rotate {
        /// The key file
        file: PathBuf,
        /// The engines' schedule
        #[command(flatten)]
        schedule: ScheduleArgs,
    },
    /// Find what is wrong with a key file, and tell how much of what a key may seal is used; exit code 1 on errors
    Check {
        /// The key file
        file: PathBuf,
        /// Tickets that all engines together seal in a second, at most
        #[arg(long, default_value_t = 1_000_000)]
        tickets_per_second: u64,
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

/// A time as RFC 3339 has it.
fn time(text: &str) -> Result<UnixTime, String> {
    let time =
        humantime::parse_rfc3339_weak(text).map_err(|error| format!("{error}; write it as 2026-01-31T18:00:00Z"))?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| "it is before 1970".to_owned())?;
    Ok(UnixTime(since.as_secs()))
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
                let version = old.version().saturating_add(1);
                ring = Ring::new(version, ring.entries().to_vec(), old.purged().to_vec())?.begun(Some(now));
            }
            file::write(&path, &ring, force)?;
            writeln!(out, "wrote {} with mode 0600", path.display())?;
            list(&ring, false, out)?;
        }
        KeysCommand::NewKek { file: path } => {
            KeyEncryptionKey::generate(random).write(&path)?;
            writeln!(out, "wrote {} with mode 0600: bring it to every engine, and to nobody else", path.display())?;
        }
        KeysCommand::List { file, config, show_secrets } => {
            let ring = match Place::of(file, config)? {
                Place::File(path) => file::read(&path)?,
                Place::Etcd(settings) => etcd::read(&settings, random)?,
            };
            list(&ring, show_secrets, out)?;
        }
        KeysCommand::Stage { file: path, not_before } => {
            replace(
                &path,
                &file::read(&path)?.staged(now, not_before, random).map_err(|refused| explained(refused, &path))?,
                out,
            )?;
        }
        KeysCommand::Activate { file: path, key, schedule } => {
            let schedule = Schedule::new(schedule.rotation, schedule.lifetime)?;
            let next = file::read(&path)?.activated(key, now, &schedule);
            replace(&path, &next.map_err(|refused| explained(refused, &path))?, out)?;
        }
        KeysCommand::Purge { file, config, key } => match Place::of(file, config)? {
            Place::File(path) => {
                let next = file::read(&path)?.purged_of(key, now, random);
                replace(&path, &next.map_err(|refused| explained(refused, &path))?, out)?;
            }
            Place::Etcd(settings) => list(&etcd::purge(&settings, key, now, random)?, false, out)?,
        },
        KeysCommand::Rotate { file: path, schedule } => {
            let schedule = Schedule::new(schedule.rotation, schedule.lifetime)?;
            let ring = file::read(&path)?;
            // A rotation without a pending key activates a new one, which is nothing to do behind the back of one that waits for its time.
            let waits = ring.entries().iter().any(|entry| entry.state == State::Pending);
            if let Err(refused) = ring.activated(None, now, &schedule)
                && waits
            {
                return Err(explained(refused, &path));
            }
            replace(&path, &ring.rotate(now, random, &schedule), out)?;
        }
        KeysCommand::Check { file: path, tickets_per_second, schedule } => {
            let schedule = Schedule::new(schedule.rotation, schedule.lifetime)?;
            let budget = lint::Budget::new(&schedule, tickets_per_second);
            let mut findings = lint::lint(&path, &schedule, now);
            findings.extend(budget.finding(&path));
            for finding in &findings {
                writeln!(out, "{finding}")?;
            }
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
            let warnings = findings.len() - errors;
            writeln!(out, "seal budget: {budget}")?;
            writeln!(out, "{}: {}, {}", path.display(), counted(errors, "error"), counted(warnings, "warning"))?;
            return Ok(errors == 0);
        }
    }
    Ok(true)
}

/// Where a ring is.
enum Place {
    File(PathBuf),
    Etcd(Box<etcd::Settings>),
}

impl Place {
    fn of(file: Option<PathBuf>, configuration: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(file) = file {
            return Ok(Self::File(file));
        }
        let path = configuration.context("name a key file, or a configuration with --config")?;
        match config::load(&path, &Machine::this())?.ticket_keys.source {
            KeySource::File(file) | KeySource::Own(Some(file)) => Ok(Self::File(file)),
            KeySource::Etcd(settings) => Ok(Self::Etcd(settings)),
            KeySource::Own(None) => {
                anyhow::bail!(
                    "{}: ticket_keys: the engine makes keys of its own and keeps them in no file; add `file`",
                    path.display()
                )
            }
        }
    }
}

/// Puts `ring` in the place of the file's, and shows it.
fn replace(path: &Path, ring: &Ring, out: &mut dyn Write) -> anyhow::Result<()> {
    file::write(path, ring, true)?;
    list(ring, false, out)
}

/// Why a step was refused, with what to do instead.
fn explained(refused: Refused, path: &Path) -> anyhow::Error {
    let path = path.display();
    let remedy = match refused {
        Refused::NonePending => format!("run `sealane keys stage {path}`, and wait until every engine has the file"),
        Refused::NotPending(_) | Refused::NoSuchKey(_) => format!("choose from `sealane keys list {path}`"),
        Refused::TooEarly(_, time) => format!("wait until {}", file::date(time)),
        Refused::Full => "wait until the oldest key has expired, or purge one".to_owned(),
    };
    anyhow::anyhow!("{path}: {refused}; {remedy}")
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
    for Purged { id, at } in ring.purged() {
        writeln!(out, "{id}  purged    {}", file::date(*at))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
        assert_eq!(after.find(first).unwrap().not_after, Some(UnixTime(1000 + 2 * 1800 + 3600 + 60)));
        let (clean, checked) = typed("check FILE --lifetime 1h --rotation 30m", &path, 2001).unwrap();
        assert!(clean && checked.ends_with("0 errors, 0 warnings\n"), "{checked}");
        typed("new FILE --force", &path, 3000).unwrap();
        let forced = file::read(&path).unwrap();
        assert!(forced.find(first).is_none());
        assert_eq!(forced.version(), after.version() + 1, "an engine that watches the file takes it");
    }

    #[test]
    fn k2_a_key_is_staged_and_activated_by_hand() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        typed("new FILE", &path, 1000).unwrap();
        typed("activate FILE", &path, 1001).unwrap();
        let none = typed("activate FILE", &path, 1002).unwrap_err().to_string();
        assert!(none.contains("no key is pending; run `sealane keys stage"), "{none}");
        typed("stage FILE --not-before 1970-01-01T00:33:20Z", &path, 1003).unwrap();
        for line in ["activate FILE", "rotate FILE"] {
            let early = typed(line, &path, 1999).unwrap_err().to_string();
            assert!(
                early.contains("may not seal before") && early.contains("wait until 1970-01-01T00:33:20Z"),
                "{early}"
            );
        }
        let (_, listed) = typed("activate FILE", &path, 2000).unwrap();
        assert!(listed.contains("version 4"), "{listed}");
        let wrong = typed("activate FILE --key 0102030405060708", &path, 2000).unwrap_err().to_string();
        assert!(wrong.contains("there is no key 0102030405060708 in the ring; choose from"), "{wrong}");
        assert!(
            typed("activate FILE --key xyz", &path, 2000).unwrap_err().to_string().contains("16 hexadecimal digits")
        );
        assert!(typed("stage FILE --not-before soon", &path, 2000).is_err());
    }

    #[test]
    fn k8_a_key_is_purged_by_hand_and_stays_purged_when_the_file_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        typed("new FILE", &path, 1000).unwrap();
        let ring = file::read(&path).unwrap();
        let [active, pending] = [0, 1].map(|index| ring.entries()[index].key.id());
        let (_, listed) = typed(&format!("purge FILE --key {active}"), &path, 1001).unwrap();
        assert!(listed.contains(&format!("{active}  purged    1970-01-01T00:16:41Z")), "{listed}");
        let purged = file::read(&path).unwrap();
        assert_eq!((purged.version(), purged.active().unwrap().key.id()), (2, pending));
        let again = typed(&format!("purge FILE --key {active}"), &path, 1002).unwrap_err().to_string();
        assert!(again.contains("there is no key"), "{again}");
        typed("new FILE --force", &path, 1003).unwrap();
        assert_eq!(file::read(&path).unwrap().purged(), purged.purged());
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
        assert!(clean && warned.contains("warning: no engine seals with it: a rotation was due"), "{warned}");
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
