//! Where the engine's ring comes from: its own rotation, or a key file that somebody else replaces.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::file::{self, Stamp};
use super::finding::{Error, Finding};
use crate::base::{Random, UnixTime};
use crate::ticket::{Ring, Schedule};

/// How long after a failed rotation the next is tried.
const RETRY: Duration = Duration::from_secs(60);

/// Which source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSettings {
    /// One engine makes and rotates keys of its own.
    Own {
        /// Where it keeps them, so that tickets outlive a restart.
        state_file: Option<PathBuf>,
    },
    /// A key file that an operator or a tool replaces; the engine only reads it.
    File {
        /// The file.
        path: PathBuf,
    },
}

/// A source of rings. Give it the time a few times a second with [`poll`](Self::poll).
#[derive(Debug)]
pub struct Source {
    kind: Kind,
    schedule: Schedule,
    current: Arc<Ring>,
    random: Random,
}

#[derive(Debug)]
enum Kind {
    Own { state_file: Option<PathBuf>, not_before: UnixTime },
    File { path: PathBuf, seen: Option<Stamp> },
}

impl Source {
    /// Opens a source and gives its first ring. `own` with a state file reads it, or makes it if there is none.
    ///
    /// # Errors
    /// [`Error`] when the file cannot be used or, for a state file, not be made.
    pub fn open(
        settings: SourceSettings,
        schedule: Schedule,
        now: UnixTime,
        mut random: Random,
    ) -> Result<(Self, Arc<Ring>), Error> {
        let (kind, ring) = match settings {
            SourceSettings::Own { state_file } => {
                let ring = match &state_file {
                    Some(path) if path.try_exists().unwrap_or(true) => file::read(path)?,
                    Some(path) => {
                        let ring = Ring::generate(now, &mut random);
                        file::write(path, &ring, false)?;
                        ring
                    }
                    None => Ring::generate(now, &mut random),
                };
                (Kind::Own { state_file, not_before: now }, ring)
            }
            SourceSettings::File { path } => {
                // The stamp first: a file replaced between the two is read once more, never missed.
                let seen = Stamp::of(&path);
                let ring = file::read(&path)?;
                (Kind::File { path, seen }, ring)
            }
        };
        let current = Arc::new(ring);
        Ok((Self { kind, schedule, current: Arc::clone(&current), random }, current))
    }

    /// A new ring if there is one, or why there should be one and is not. The ring of before stays good then; each failure is told once.
    pub fn poll(&mut self, now: UnixTime) -> Option<Result<Arc<Ring>, Error>> {
        let ring = match &mut self.kind {
            Kind::Own { state_file, not_before } => {
                if now < self.current.rotation_due(&self.schedule) || now < *not_before {
                    return None;
                }
                *not_before = now + RETRY;
                let ring = self.current.rotate(now, &mut self.random, &self.schedule);
                // Written before it seals: a ticket under a key that a restart forgets would be lost.
                match state_file.as_ref().map(|path| file::write(path, &ring, true)) {
                    Some(Err(error)) => Err(error),
                    Some(Ok(())) | None => {
                        *not_before = now;
                        Ok(ring)
                    }
                }
            }
            Kind::File { path, seen } => {
                let stamp = Stamp::of(path);
                if stamp == *seen {
                    return None;
                }
                *seen = stamp;
                match file::read(path).and_then(|ring| accept(path, &self.current, ring)) {
                    Ok(Some(ring)) => Ok(ring),
                    Ok(None) => return None,
                    Err(error) => Err(error),
                }
            }
        };
        Some(ring.map(|ring| {
            self.current = Arc::new(ring);
            Arc::clone(&self.current)
        }))
    }

    /// The ring that is in use.
    pub fn current(&self) -> &Arc<Ring> {
        &self.current
    }

    /// Where it comes from: a reload that changes nothing here keeps the source, and with it the keys.
    pub fn settings(&self) -> SourceSettings {
        match &self.kind {
            Kind::Own { state_file, .. } => SourceSettings::Own { state_file: state_file.clone() },
            Kind::File { path, .. } => SourceSettings::File { path: path.clone() },
        }
    }

    /// Takes a schedule that a reload changed.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        self.schedule = schedule;
    }
}

/// Whether a ring from a file follows the one in use; `None` when it is the same.
fn accept(path: &Path, current: &Ring, ring: Ring) -> Result<Option<Ring>, Error> {
    let (old, new) = (current.version(), ring.version());
    if new < old {
        let what = format!("is stale: its version is {new}, and version {old} is in use");
        let remedy = "put the newest file back, or give this one a version above that";
        return Err(Finding::error(path, what, remedy).into());
    }
    if new > old {
        return Ok(Some(ring));
    }
    if *file::render(current) == *file::render(&ring) {
        return Ok(None);
    }
    let what = format!("has other keys under the version {old} that is in use");
    Err(Finding::error(path, what, "raise `version` with each change, as `sealane keys rotate` does").into())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::base::ServiceId;
    use crate::ticket::envelope::tests::sample;
    use crate::ticket::{Scope, open, seal};

    const HOUR: u64 = 3600;
    const SCOPE: Scope = Scope { cluster: [1; 32], service: ServiceId(2), policy: [3; 32] };

    fn opened(settings: &SourceSettings, now: u64, seed: u64) -> Result<(Source, Arc<Ring>), Error> {
        Source::open(settings.clone(), Schedule::default(), UnixTime(now), Random::from_seed(seed))
    }

    fn ticket(ring: &Ring) -> Vec<u8> {
        seal(&ring.for_service(&SCOPE), &sample(100), &mut Random::from_seed(9)).unwrap()
    }

    fn opens(ring: &Ring, ticket: &[u8]) -> bool {
        open(&ring.for_service(&SCOPE), ticket).is_ok()
    }

    #[test]
    fn k4_own_ring_rotates_when_due_and_tickets_live_on() {
        let settings = SourceSettings::Own { state_file: None };
        let (mut source, ring) = opened(&settings, 0, 1).unwrap();
        assert_eq!(source.settings(), settings);
        let ticket = ticket(&ring);
        assert!(source.poll(UnixTime(6 * HOUR - 1)).is_none());
        for turn in 1..=4 {
            let ring = source.poll(UnixTime(turn * 6 * HOUR)).unwrap().unwrap();
            assert_eq!(ring.version(), turn + 1);
            assert!(opens(&ring, &ticket));
            assert!(source.poll(UnixTime(turn * 6 * HOUR)).is_none());
        }
        source.poll(UnixTime(5 * 6 * HOUR)).unwrap().unwrap();
        assert!(!opens(&source.poll(UnixTime(6 * 6 * HOUR)).unwrap().unwrap(), &ticket), "it expired");
    }

    #[test]
    fn own_ring_with_a_state_file_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let settings = SourceSettings::Own { state_file: Some(directory.path().join("state.toml")) };
        let (mut source, ring) = opened(&settings, 0, 1).unwrap();
        let before_rotation = ticket(&ring);
        let rotated = source.poll(UnixTime(6 * HOUR)).unwrap().unwrap();
        let after_rotation = ticket(&rotated);
        drop(source);
        // Another seed: only the file can know the keys. A day later a rotation is overdue, and due at once.
        let (mut source, ring) = opened(&settings, 20 * HOUR, 2).unwrap();
        assert_eq!(ring.version(), 2);
        let ring = source.poll(UnixTime(20 * HOUR)).unwrap().unwrap();
        assert!(opens(&ring, &before_rotation) && opens(&ring, &after_rotation));
    }

    #[test]
    fn a_rotation_that_cannot_be_kept_does_not_happen_and_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let settings = SourceSettings::Own { state_file: Some(directory.path().join("state.toml")) };
        let (mut source, ring) = opened(&settings, 0, 1).unwrap();
        let moved = directory.path().with_extension("moved");
        std::fs::rename(directory.path(), &moved).unwrap();
        assert!(source.poll(UnixTime(6 * HOUR)).unwrap().is_err());
        assert_eq!(source.current().version(), ring.version());
        assert!(source.poll(UnixTime(6 * HOUR + 59)).is_none(), "told once a minute");
        std::fs::rename(&moved, directory.path()).unwrap();
        assert!(source.poll(UnixTime(6 * HOUR + 60)).unwrap().is_ok());
    }

    #[test]
    fn a_state_file_that_cannot_be_used_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.toml");
        std::fs::write(&path, "version = 1\n").unwrap();
        assert!(opened(&SourceSettings::Own { state_file: Some(path.clone()) }, 0, 1).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "version = 1\n");
    }

    /// A key file and a source that watches it.
    fn watched() -> (tempfile::TempDir, PathBuf, Source, Arc<Ring>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        file::write(&path, &Ring::generate(UnixTime(0), &mut Random::from_seed(3)), false).unwrap();
        let (source, ring) = opened(&SourceSettings::File { path: path.clone() }, 0, 1).unwrap();
        (directory, path, source, ring)
    }

    #[test]
    fn k9_a_replaced_file_is_noticed_at_the_next_poll() {
        let (_directory, path, mut source, ring) = watched();
        assert!(source.poll(UnixTime(0)).is_none());
        let next = ring.rotate(UnixTime(1), &mut Random::from_seed(4), &Schedule::default());
        file::write(&path, &next, true).unwrap();
        let taken = source.poll(UnixTime(1)).unwrap().unwrap();
        assert_eq!(taken.version(), 2);
        assert!(opens(&taken, &ticket(&ring)));
        assert!(source.poll(UnixTime(1)).is_none());
        // The same ring, written again: nothing new.
        file::write(&path, &next, true).unwrap();
        assert!(source.poll(UnixTime(2)).is_none());
    }

    #[test]
    fn k7_a_ring_whose_version_went_back_is_refused_once() {
        let (_directory, path, mut source, ring) = watched();
        let next = ring.rotate(UnixTime(1), &mut Random::from_seed(4), &Schedule::default());
        file::write(&path, &next, true).unwrap();
        source.poll(UnixTime(1)).unwrap().unwrap();
        file::write(&path, &ring, true).unwrap();
        let refused = source.poll(UnixTime(2)).unwrap().unwrap_err().to_string();
        assert!(refused.contains("stale"), "{refused}");
        assert!(source.poll(UnixTime(2)).is_none());
        assert_eq!(source.current().version(), 2);
    }

    #[test]
    fn k7_other_keys_under_the_same_version_are_refused() {
        let (_directory, path, mut source, _) = watched();
        file::write(&path, &Ring::generate(UnixTime(0), &mut Random::from_seed(5)), true).unwrap();
        let refused = source.poll(UnixTime(2)).unwrap().unwrap_err().to_string();
        assert!(refused.contains("raise `version`"), "{refused}");
    }

    #[test]
    fn a_missing_broken_or_opened_up_file_keeps_the_old_ring_and_is_told_once() {
        let (_directory, path, mut source, ring) = watched();
        let breakages: [fn(&Path); 3] = [
            |path| std::fs::write(path, "version = ").unwrap(),
            |path| std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap(),
            |path| std::fs::remove_file(path).unwrap(),
        ];
        for break_it in breakages {
            break_it(&path);
            assert!(source.poll(UnixTime(0)).unwrap().is_err());
            assert!(source.poll(UnixTime(0)).is_none());
            assert_eq!(source.current().version(), ring.version());
        }
        file::write(&path, &ring.rotate(UnixTime(1), &mut Random::from_seed(4), &Schedule::default()), true).unwrap();
        assert!(source.poll(UnixTime(0)).unwrap().is_ok());
    }

    #[test]
    fn a_file_that_is_bad_from_the_start_does_not_open() {
        let directory = tempfile::tempdir().unwrap();
        let missing = SourceSettings::File { path: directory.path().join("none.toml") };
        assert!(opened(&missing, 0, 1).unwrap_err().to_string().contains("none.toml"));
    }
}
