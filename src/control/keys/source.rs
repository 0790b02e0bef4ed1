//! Where the engine's ring comes from: its own rotation, a key file that somebody else replaces, or etcd, which all engines of a cluster share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::alarm::{Alarm, Alarms};
use super::etcd;
use super::file::{self, Stamp};
use super::finding::{Error, Finding};
use super::mirror::Report;
use crate::base::{Random, UnixTime};
use crate::ticket::life::Refused;
use crate::ticket::ring::Fitness;
use crate::ticket::{KeyId, Ring, Schedule, vault};

/// How long after a failed rotation the next is tried.
const RETRY: Duration = Duration::from_secs(60);

/// Why control cannot change a ring at an operator's word.
#[derive(Debug, thiserror::Error)]
pub enum Unchangeable {
    /// Whoever has made the file changes it, for all engines that read it.
    #[error(
        "the keys are those of the file {0}, which this engine only reads; run `sealane keys` on it, and every engine that reads it follows"
    )]
    File(PathBuf),
    /// The elected engine rotates, and purges are for etcd.
    #[error(
        "the keys are the cluster's: the engine that leads rotates them, and `sealane keys purge --config FILE --key ID` purges one everywhere"
    )]
    Cluster,
    /// The ring forbids it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The state file cannot be written.
    #[error(transparent)]
    Failed(#[from] Error),
}

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
    /// etcd. One engine of the cluster rotates.
    Etcd(Box<etcd::Settings>),
}

/// A source of rings. Give it the time a few times a second with [`poll`](Self::poll).
#[derive(Debug)]
pub struct Source {
    kind: Kind,
    schedule: Schedule,
    /// As it came.
    newest: Ring,
    /// What of it is used.
    current: Arc<Ring>,
    /// Whether what came last was refused.
    refused: bool,
    random: Random,
}

#[derive(Debug)]
enum Kind {
    Own { state_file: Option<Watched>, not_before: UnixTime },
    File(Watched),
    Etcd(Box<Mirrored>),
}

/// The cluster's ring, and what was last heard of it.
#[derive(Debug)]
struct Mirrored {
    keeper: etcd::Keeper,
    report: Report,
    refusals: u64,
}

/// A file, and what it was when it was last read or written.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    seen: Option<Stamp>,
}

impl Watched {
    fn read(path: PathBuf) -> Result<(Self, Ring), Error> {
        // The stamp first: a file replaced between the two is read once more, never missed.
        let seen = Stamp::of(&path);
        let ring = file::read(&path)?;
        Ok((Self { path, seen }, ring))
    }

    fn write(&mut self, ring: &Ring) -> Result<(), Error> {
        file::write(&self.path, ring, true)?;
        self.seen = Stamp::of(&self.path);
        Ok(())
    }

    /// What is in it, if it was touched.
    fn poll(&mut self, newest: &Ring) -> Option<Result<Ring, Error>> {
        let stamp = Stamp::of(&self.path);
        if stamp == self.seen {
            return None;
        }
        self.seen = stamp;
        Some(file::read(&self.path).and_then(|ring| accept(&self.path, newest, ring)))
    }
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
        let (kind, newest) = match settings {
            SourceSettings::Own { state_file } => {
                let (state_file, ring) = match state_file {
                    Some(path) if path.try_exists().unwrap_or(true) => {
                        let (watched, ring) = Watched::read(path)?;
                        (Some(watched), ring)
                    }
                    Some(path) => {
                        let ring = Ring::generate(now, &mut random);
                        file::write(&path, &ring, false)?;
                        (Some(Watched { seen: Stamp::of(&path), path }), ring)
                    }
                    None => (None, Ring::generate(now, &mut random)),
                };
                (Kind::Own { state_file, not_before: UnixTime(0) }, ring)
            }
            SourceSettings::File { path } => {
                let (watched, ring) = Watched::read(path)?;
                (Kind::File(watched), ring)
            }
            SourceSettings::Etcd(settings) => {
                let keeper = etcd::Keeper::start(*settings, schedule, random.fork())?;
                let report = keeper.report();
                // It has started, so that there is one, but for an etcd that is away and a state file: then the thread has not looked yet.
                let ring = report.ring.as_deref().cloned();
                let ring = ring.ok_or_else(|| keeper.unstarted("has no ring"))?;
                (Kind::Etcd(Box::new(Mirrored { keeper, report, refusals: 0 })), ring)
            }
        };
        let current = Arc::new(newest.in_force(now, &schedule));
        Ok((Self { kind, schedule, newest, current: Arc::clone(&current), refused: false, random }, current))
    }

    /// A ring for the lanes if it is another one than before, or why there should be one and is not. The ring of before stays good then; each failure is
    /// told once.
    pub fn poll(&mut self, now: UnixTime) -> Option<Result<Arc<Ring>, Error>> {
        match self.news(now) {
            None => {}
            Some(Ok(ring)) => {
                self.newest = ring;
                self.refused = false;
            }
            Some(Err(error)) => {
                self.refused = true;
                return Some(Err(error));
            }
        }
        // Keys end, and a ring becomes stale, with time alone.
        let ring = self.newest.in_force(now, &self.schedule);
        let is_same = ring.version() == self.current.version()
            && ring.entries().len() == self.current.entries().len()
            && ring.active().is_some() == self.current.active().is_some();
        (!is_same).then(|| {
            self.current = Arc::new(ring);
            Ok(Arc::clone(&self.current))
        })
    }

    fn news(&mut self, now: UnixTime) -> Option<Result<Ring, Error>> {
        let (state_file, not_before) = match &mut self.kind {
            Kind::File(watched) => return watched.poll(&self.newest),
            Kind::Etcd(mirrored) => {
                let Mirrored { keeper, report, refusals } = &mut **mirrored;
                *report = keeper.report();
                if report.refusals > *refusals {
                    *refusals = report.refusals;
                    let remedy = "nothing, if an engine of the cluster leads: it writes its own there again";
                    let why = report.last_refusal.clone();
                    return Some(Err(Finding::error(&keeper.settings().place(), why, remedy).into()));
                }
                let ring = report.ring.as_deref().filter(|ring| ring.version() != self.newest.version());
                return ring.cloned().map(Ok);
            }
            Kind::Own { state_file, not_before } => (state_file, not_before),
        };
        // `sealane keys` may have purged or rotated. A file that is gone is written again at the next rotation.
        let state_file_is_there = state_file.as_ref().is_some_and(|watched| Stamp::of(&watched.path).is_some());
        if state_file_is_there && let Some(news) = state_file.as_mut().and_then(|watched| watched.poll(&self.newest)) {
            return Some(news);
        }
        let is_early = self.newest.fitness(now, &self.schedule) == Fitness::FromTheFuture;
        let is_due = now >= self.newest.rotation_due(&self.schedule);
        // Not for longer than that: the clock may have been put back.
        let waits = now < *not_before && not_before.since(now) <= RETRY;
        if (!is_early && !is_due) || waits {
            return None;
        }
        *not_before = now + RETRY;
        let ring = if is_early {
            // K5 is about engines that disagree. Here a clock was put back, and this engine's is the only one.
            self.newest.settled(now)
        } else {
            self.newest.rotate(now, &mut self.random, &self.schedule)
        };
        // Written before it seals: a ticket under a key that a restart forgets would be lost.
        if let Some(Err(error)) = state_file.as_mut().map(|watched| watched.write(&ring)) {
            return Some(Err(error));
        }
        *not_before = now;
        Some(Ok(ring))
    }

    /// Rotates now, as at an operator's word. Gives the ring for the lanes.
    ///
    /// # Errors
    /// [`Unchangeable`] says why not.
    pub fn rotate(&mut self, now: UnixTime) -> Result<Arc<Ring>, Unchangeable> {
        let next = self.newest.rotate(now, &mut self.random, &self.schedule);
        self.replace(next, now)
    }

    /// K8: takes a key out before its time, and for good. Gives the ring for the lanes.
    ///
    /// # Errors
    /// [`Unchangeable`] says why not.
    pub fn purge(&mut self, id: KeyId, now: UnixTime) -> Result<Arc<Ring>, Unchangeable> {
        let next = self.newest.purged_of(id, now, &mut self.random);
        // Whose ring it is comes first: who may not change it need not look for the key.
        self.prove_own()?;
        self.replace(next?, now)
    }

    fn prove_own(&self) -> Result<(), Unchangeable> {
        match &self.kind {
            Kind::Own { .. } => Ok(()),
            Kind::File(watched) => Err(Unchangeable::File(watched.path.clone())),
            Kind::Etcd(_) => Err(Unchangeable::Cluster),
        }
    }

    fn replace(&mut self, ring: Ring, now: UnixTime) -> Result<Arc<Ring>, Unchangeable> {
        self.prove_own()?;
        // Written before it seals: a ticket under a key that a restart forgets would be lost.
        if let Kind::Own { state_file: Some(watched), .. } = &mut self.kind {
            watched.write(&ring)?;
        }
        self.current = Arc::new(ring.in_force(now, &self.schedule));
        self.newest = ring;
        Ok(Arc::clone(&self.current))
    }

    /// The ring that is in use.
    pub fn current(&self) -> &Arc<Ring> {
        &self.current
    }

    /// What is wrong at `now`.
    pub fn alarms(&self, now: UnixTime) -> Alarms {
        let fitness = match self.newest.fitness(now, &self.schedule) {
            Fitness::Seals => None,
            Fitness::Stale => Some(Alarm::Stale),
            Fitness::FromTheFuture => Some(Alarm::FromTheFuture),
        };
        let refused = self.refused.then_some(Alarm::Refused);
        let unlocked = (vault::unlocked() > 0).then_some(Alarm::Unlocked);
        let refused = refused.filter(|_| !matches!(self.kind, Kind::Etcd(_)));
        let mut alarms: Alarms = [fitness, refused, unlocked].into_iter().flatten().collect();
        if let Kind::Etcd(mirrored) = &self.kind {
            alarms.extend(mirrored.report.alarms());
        }
        alarms
    }

    /// What more is known of an alarm.
    pub fn detail(&self, alarm: Alarm) -> Option<&str> {
        let Kind::Etcd(mirrored) = &self.kind else { return None };
        mirrored.report.alarms.iter().find(|(other, _)| *other == alarm).map(|(_, detail)| detail.as_str())
    }

    /// Whether this engine rotates the keys of a cluster, and how many engines of it live; `None` where there is none.
    pub fn cluster(&self) -> Option<(bool, usize)> {
        match &self.kind {
            Kind::Etcd(mirrored) => Some((mirrored.report.leads, mirrored.report.engines)),
            Kind::Own { .. } | Kind::File(_) => None,
        }
    }

    /// Tells the source which version every lane has in force.
    pub fn on_lanes(&self, version: u64) {
        if let Kind::Etcd(mirrored) = &self.kind {
            mirrored.keeper.on_lanes(version);
        }
    }

    /// Where it comes from: a reload that changes nothing here keeps the source, and with it the keys.
    pub fn settings(&self) -> SourceSettings {
        match &self.kind {
            Kind::Own { state_file, .. } => {
                SourceSettings::Own { state_file: state_file.as_ref().map(|watched| watched.path.clone()) }
            }
            Kind::File(watched) => SourceSettings::File { path: watched.path.clone() },
            Kind::Etcd(mirrored) => SourceSettings::Etcd(Box::new(mirrored.keeper.settings().clone())),
        }
    }

    /// Takes a schedule that a reload changed.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        self.schedule = schedule;
        if let Kind::Etcd(mirrored) = &self.kind {
            mirrored.keeper.set_schedule(schedule);
        }
    }
}

/// A ring from a file, if it follows the one in use or is the same.
fn accept(path: &Path, current: &Ring, ring: Ring) -> Result<Ring, Error> {
    let (old, new) = (current.version(), ring.version());
    if let Some(id) = ring.purged_by(current) {
        let remedy = "remove the key, and keep the [[purged]] of the file that was there before";
        return Err(Finding::error(path, format!("brings back key {id}, which was purged"), remedy).into());
    }
    if new < old {
        let what = format!("is stale: its version is {new}, and version {old} is in use");
        let remedy = "put the newest file back, or give this one a version above that";
        return Err(Finding::error(path, what, remedy).into());
    }
    if new > old || *file::render(current) == *file::render(&ring) {
        return Ok(ring);
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
        for turn in 5..=6 {
            source.poll(UnixTime(turn * 6 * HOUR)).unwrap().unwrap();
        }
        assert!(!opens(&source.poll(UnixTime(7 * 6 * HOUR)).unwrap().unwrap(), &ticket), "it expired");
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
        assert!(
            ring.version() == 2 && ring.active().is_none(),
            "nothing is sealed under a key that is two rotations old"
        );
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
    fn k7_a_file_that_nobody_renews_is_not_sealed_with_and_opens_until_its_end() {
        let (_directory, path, mut source, ring) = watched();
        let ticket = ticket(&ring);
        assert!(source.poll(UnixTime(12 * HOUR)).is_none() && source.alarms(UnixTime(12 * HOUR)).is_empty());
        let stale = source.poll(UnixTime(12 * HOUR + 1)).unwrap().unwrap();
        assert!(stale.active().is_none() && opens(&stale, &ticket));
        assert_eq!(source.alarms(UnixTime(12 * HOUR + 1)), Alarms::from([Alarm::Stale]));
        assert!(source.poll(UnixTime(100 * HOUR)).is_none());
        let next = ring.rotate(UnixTime(100 * HOUR), &mut Random::from_seed(4), &Schedule::default());
        file::write(&path, &next, true).unwrap();
        let fresh = source.poll(UnixTime(100 * HOUR)).unwrap().unwrap();
        assert!(fresh.active().is_some() && source.alarms(UnixTime(100 * HOUR)).is_empty());
        let end = next.entries()[0].not_after.unwrap();
        assert!(opens(&fresh, &ticket));
        // Two rotations later it is not sealed with, either; and then its first key ends.
        assert!(source.poll(end).unwrap().unwrap().active().is_none());
        assert!(!opens(&source.poll(UnixTime(end.0 + 1)).unwrap().unwrap(), &ticket));
    }

    #[test]
    fn k5_a_file_from_the_future_is_an_alarm_and_seals_when_its_time_comes() {
        let (_directory, path, mut source, ring) = watched();
        let next = ring.rotate(UnixTime(1000), &mut Random::from_seed(4), &Schedule::default());
        file::write(&path, &next, true).unwrap();
        assert!(source.poll(UnixTime(939)).unwrap().unwrap().active().is_none());
        assert_eq!(source.alarms(UnixTime(939)), Alarms::from([Alarm::FromTheFuture]));
        assert!(source.poll(UnixTime(940)).unwrap().unwrap().active().is_some());
        assert!(source.alarms(UnixTime(940)).is_empty());
    }

    #[test]
    fn k5_an_engine_alone_whose_clock_was_put_back_goes_on_with_the_keys_that_it_has() {
        let settings = SourceSettings::Own { state_file: None };
        let (mut source, ring) = opened(&settings, 9 * HOUR, 1).unwrap();
        let settled = source.poll(UnixTime(HOUR)).unwrap().unwrap();
        assert_eq!(settled.active().unwrap().key.id(), ring.active().unwrap().key.id());
        assert!(source.alarms(UnixTime(HOUR)).is_empty() && source.poll(UnixTime(HOUR)).is_none());
        assert_eq!(source.poll(UnixTime(7 * HOUR)).unwrap().unwrap().version(), 3, "rotations go on");
    }

    #[test]
    fn k8_a_purged_key_comes_back_under_no_version() {
        let (_directory, path, mut source, ring) = watched();
        let (mut random, schedule) = (Random::from_seed(4), Schedule::default());
        let two = ring.rotate(UnixTime(1), &mut random, &schedule);
        let id = ring.active().unwrap().key.id();
        file::write(&path, &two.purged_of(id, UnixTime(2), &mut random).unwrap(), true).unwrap();
        let purged = source.poll(UnixTime(2)).unwrap().unwrap();
        assert!(!opens(&purged, &ticket(&ring)));
        // Somebody goes on from a file of before the purge.
        let mut other = two;
        for _ in 0..5 {
            other = other.rotate(UnixTime(3), &mut random, &schedule);
        }
        file::write(&path, &other, true).unwrap();
        let refused = source.poll(UnixTime(3)).unwrap().unwrap_err().to_string();
        assert!(refused.contains(&format!("brings back key {id}")), "{refused}");
        assert_eq!(source.alarms(UnixTime(3)), Alarms::from([Alarm::Refused]));
        assert_eq!(source.current().version(), purged.version());
    }

    #[test]
    fn k8_an_engine_alone_takes_what_is_purged_from_its_state_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.toml");
        let (mut source, ring) = opened(&SourceSettings::Own { state_file: Some(path.clone()) }, 0, 1).unwrap();
        let id = ring.active().unwrap().key.id();
        let purged = file::read(&path).unwrap().purged_of(id, UnixTime(5), &mut Random::from_seed(7)).unwrap();
        file::write(&path, &purged, true).unwrap();
        let taken = source.poll(UnixTime(5)).unwrap().unwrap();
        assert!(taken.find(id).is_none() && taken.active().is_some());
        let rotated = source.poll(UnixTime(7 * HOUR)).unwrap().unwrap();
        assert_eq!((rotated.version(), file::read(&path).unwrap().purged()), (3, purged.purged()));
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
