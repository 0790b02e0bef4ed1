//! How the configuration changes while the engine runs: its file is read again, or the API has changed the document that was read.
//!
//! Both go one way, [`Control::put_in_force`]: the text has been parsed into proof, must be able to follow what is in force, and is given to every
//! lane whole, under the next version. What is refused leaves everything as it was.

use std::fmt;
use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::base::UnixTime;
use crate::control::config::{self, Configuration, FILE_MAX};
use crate::control::records::Records;
use crate::control::run::{Control, Unstartable};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Configuration(#[from] config::Errors),
    #[error(transparent)]
    Start(#[from] Unstartable),
    #[error("the configuration would be longer than {FILE_MAX} bytes; take something out first")]
    Long,
}

/// Why the configuration was not written to its file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsaved {
    #[error(
        "{0} has changed since this engine has read it; reload it, or force the save and lose what was written there"
    )]
    Changed(PathBuf),
    #[error("{0} cannot be written ({1})")]
    File(PathBuf, io::Error),
}

/// What tells one text from another, and the same text as the same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// So much of it that no two texts of an engine's life are taken for each other by chance.
    fn short(&self) -> &[u8] {
        self.0.get(..8).unwrap_or_default()
    }
}

/// One state of the configuration. Two states of one engine differ, and those of an engine before and after a restart do unless they say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Revision {
    pub(super) version: u64,
    text: Fingerprint,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.version, hex::encode(self.text.short()))
    }
}

impl Control {
    /// What is in force.
    pub(super) fn revision(&self) -> Revision {
        Revision { version: self.version, text: Fingerprint::of(&self.configuration.text) }
    }

    /// Whether what is in force is not what the file said when it was read or written last.
    pub(super) fn has_unsaved_changes(&self) -> bool {
        Fingerprint::of(&self.configuration.text) != self.saved
    }

    /// Reads the file again. Gives whether changes were discarded that had not been saved.
    pub(super) fn reload(&mut self, wall: UnixTime) -> Result<bool, Refused> {
        self.machine.now = wall;
        let discards = self.has_unsaved_changes();
        match self.try_reload() {
            Ok(()) => {
                self.counters.reloads.increment();
                for warning in &self.configuration.warnings {
                    tracing::warn!("{warning}");
                }
                if discards {
                    tracing::warn!("changes that had not been saved are discarded: the file is in force");
                }
                tracing::info!(version = self.version, "configuration reloaded");
                Ok(discards)
            }
            Err(refused) => {
                self.counters.reloads_refused.increment();
                for line in refused.to_string().lines() {
                    tracing::error!("{line}");
                }
                tracing::error!(version = self.version, "reload refused: the configuration of before stays in force");
                Err(refused)
            }
        }
    }

    fn try_reload(&mut self) -> Result<(), Refused> {
        let configuration = config::load(&self.configuration.file, &self.machine)?;
        let saved = Fingerprint::of(&configuration.text);
        self.put_in_force(configuration)?;
        self.saved = saved;
        Ok(())
    }

    /// Puts a text in force that the API has made of the one before.
    pub(super) fn change(&mut self, text: &str, wall: UnixTime) -> Result<(), Refused> {
        self.machine.now = wall;
        match self.try_change(text) {
            Ok(()) => {
                self.counters.changes.increment();
                tracing::info!(version = self.version, "configuration changed over the API");
                Ok(())
            }
            Err(refused) => {
                self.counters.changes_refused.increment();
                Err(refused)
            }
        }
    }

    fn try_change(&mut self, text: &str) -> Result<(), Refused> {
        if text.len() > FILE_MAX {
            return Err(Refused::Long);
        }
        let configuration = config::parse(text, &self.configuration.file, &self.machine)?;
        self.put_in_force(configuration)
    }

    fn put_in_force(&mut self, configuration: Configuration) -> Result<(), Refused> {
        configuration.prove_successor_of(&self.configuration)?;
        // Opened anew also when nothing changes: a log that was rotated away is let go.
        let records = Records::open(&configuration.engine.log).map_err(Unstartable::Log)?;
        let old = std::mem::replace(&mut self.configuration, configuration);
        if let Err(error) = self.publish_configuration() {
            self.configuration = old;
            return Err(Unstartable::from(error).into());
        }
        self.records = records;
        self.traces().sample(self.configuration.engine.trace.rings.one_in);
        self.keys.set_schedule(self.configuration.ticket_keys.schedule);
        self.flush();
        Ok(())
    }

    /// Writes what is in force to its file, whole or not at all. Unless `force` says so, not over what this engine has not read.
    pub(super) fn save(&mut self, force: bool) -> Result<(), Unsaved> {
        let file = self.configuration.file.clone();
        // A link stays one: what it leads to is written.
        let place = file.canonicalize().unwrap_or(file);
        let text = &self.configuration.text;
        if !force && is_there_and_other(&place, self.saved).map_err(|error| Unsaved::File(place.clone(), error))? {
            return Err(Unsaved::Changed(place));
        }
        replace(&place, text).map_err(|error| Unsaved::File(place.clone(), error))?;
        self.saved = Fingerprint::of(text);
        tracing::info!(file = %place.display(), version = self.version, "configuration saved");
        Ok(())
    }
}

/// Whether the file says anything else than what was read. One that is gone says nothing.
fn is_there_and_other(file: &Path, read: Fingerprint) -> io::Result<bool> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(std::str::from_utf8(&bytes).map(Fingerprint::of) != Ok(read)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts a new file in the place of the old, with its mode and owner: whoever reads it finds one or the other.
fn replace(place: &Path, text: &str) -> io::Result<()> {
    let directory = place.parent().unwrap_or(Path::new("."));
    let mut fresh = tempfile::NamedTempFile::new_in(directory)?;
    fresh.write_all(text.as_bytes())?;
    if let Ok(old) = std::fs::metadata(place) {
        std::os::unix::fs::fchown(fresh.as_file(), Some(old.uid()), Some(old.gid()))?;
        fresh.as_file().set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
    }
    fresh.as_file().sync_all()?;
    fresh.persist(place)?;
    std::fs::File::open(directory)?.sync_all()
}
