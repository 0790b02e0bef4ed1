//! `sealane keys check`: what is wrong with a key file, and what will be.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::file;
use super::finding::Finding;
use crate::base::UnixTime;
use crate::ticket::life::keep_until;
use crate::ticket::ring::{Fitness, SKEW, State};
use crate::ticket::xaes::MESSAGES_MAX_LOG2;
use crate::ticket::{Ring, Schedule};

/// Everything that is wrong with the file at `path` when tickets live and keys rotate as `schedule` says.
pub fn lint(path: &Path, schedule: &Schedule, now: UnixTime) -> Vec<Finding> {
    let (text, mode) = match file::read_text(path) {
        Ok(read) => read,
        Err(unreadable) => return vec![unreadable],
    };
    let mut findings: Vec<_> = mode.into_iter().collect();
    match file::parse(path, &text) {
        Ok(ring) => {
            findings.extend(ages(path, &ring, schedule, now));
            findings.extend(retention(path, &ring, schedule, now));
        }
        Err(error) => findings.extend(error.0),
    }
    findings
}

/// What a key seals in a rotation period when the engines together seal `rate` tickets a second, beside what it may.
pub struct Budget {
    /// Tickets, as a power of two.
    sealed_log2: f64,
    rate: u64,
    rotation: Duration,
}

impl Budget {
    /// For keys that rotate as `schedule` says.
    pub fn new(schedule: &Schedule, rate: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "the power of two is told to a tenth")]
        let sealed_log2 = (rate.max(1) as f64).log2() + schedule.rotation().as_secs_f64().log2();
        Self { sealed_log2, rate, rotation: schedule.rotation() }
    }

    /// What is wrong, if anything is.
    pub fn finding(&self, path: &Path) -> Option<Finding> {
        let what = format!("a key would seal 2^{:.1} tickets, more than it may", self.sealed_log2);
        (self.sealed_log2 > f64::from(MESSAGES_MAX_LOG2)).then(|| Finding::error(path, what, "rotate more often"))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sealed_log2, rate, rotation } = self;
        let left = f64::from(MESSAGES_MAX_LOG2) - sealed_log2;
        let rotation = humantime::format_duration(*rotation);
        write!(
            f,
            "2^{sealed_log2:.1} tickets at {rate} a second in {rotation}, of 2^{MESSAGES_MAX_LOG2} that XAES-256-GCM allows a key: 1 of 2^{left:.1}"
        )
    }
}

fn ages(path: &Path, ring: &Ring, schedule: &Schedule, now: UnixTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    for entry in ring.entries() {
        let id = entry.key.id();
        if entry.created > now + SKEW || entry.activated.is_some_and(|activated| activated > now + SKEW) {
            findings.push(Finding::warning(
                path,
                format!("key {id} is from the future"),
                "set this machine's clock, or that which made it",
            ));
        }
        if let Some(end) = entry.not_after.filter(|end| *end < now) {
            let what = format!("key {id} expired at {}", file::date(end));
            findings.push(Finding::warning(path, what, "run `sealane keys rotate`, which removes it"));
        }
    }
    if ring.fitness(now, schedule) == Fitness::Stale {
        let what = format!(
            "no engine seals with it: a rotation was due at {}, a whole period ago",
            file::date(ring.rotation_due(schedule))
        );
        findings.push(Finding::warning(path, what, "run `sealane keys rotate`"));
    } else if ring.rotation_due(schedule) < now {
        let what = format!("a rotation was due at {}", file::date(ring.rotation_due(schedule)));
        findings.push(Finding::warning(path, what, "run `sealane keys rotate`"));
    }
    if !ring.entries().iter().any(|entry| entry.state == State::Pending) {
        let what = "no key is pending, so the next rotation seals with a key that other engines may not have yet";
        findings.push(Finding::warning(
            path,
            what,
            "nothing, if one engine uses this file; else run `sealane keys stage` and wait until every engine has the file",
        ));
    }
    findings
}

/// K3: a key stays until the last ticket under it has expired, also that of an engine which does not hear of rotations (K7).
pub fn retention(path: &Path, ring: &Ring, schedule: &Schedule, now: UnixTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    let remedy =
        "keep retiring keys for a whole ticket lifetime; `sealane keys rotate` does when told the engine's --lifetime";
    let mut sealed: Vec<_> = ring.entries().iter().filter(|entry| entry.activated.is_some()).collect();
    sealed.sort_by_key(|entry| entry.activated);
    for (entry, successor) in sealed.iter().zip(sealed.iter().skip(1)) {
        let retired = successor.activated.unwrap_or(now);
        let (needed, partitioned) = (retired + schedule.lifetime(), keep_until(entry, retired, schedule));
        let Some(end) = entry.not_after else { continue };
        let id = entry.key.id();
        if end < needed && now < needed {
            let what = format!("key {id} may be destroyed before {}, when its last ticket expires", file::date(needed));
            findings.push(Finding::error(path, what, remedy));
        } else if end < partitioned && now < partitioned {
            let what = format!(
                "key {id} may be destroyed before {}, until when tickets live of an engine that does not hear of rotations",
                file::date(partitioned)
            );
            findings.push(Finding::warning(path, what, remedy));
        }
    }
    let oldest = sealed.first().and_then(|entry| entry.activated).unwrap_or(now);
    // Whoever purged a key knows what is lost.
    let is_cut = ring.purged().is_empty() && ring.began().is_some_and(|began| began < oldest);
    if is_cut && sealed.len() < schedule.retention() && now < oldest + schedule.lifetime() {
        let what = format!(
            "{} keys are kept where tickets need {}: tickets from before {} may be lost though they are still valid",
            sealed.len(),
            schedule.retention(),
            file::date(oldest)
        );
        let end = file::date(oldest + schedule.lifetime());
        let remedy = format!("{remedy}; if they were destroyed on purpose, nothing: no ticket needs them after {end}");
        findings.push(Finding::error(path, what, remedy));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::base::Random;
    use crate::control::keys::Severity;
    use crate::ticket::ring::Entry;

    const HOUR: u64 = 3600;
    const START: u64 = 1_700_000_000;

    /// A ring that was rotated on schedule `rotations` times since `START`.
    fn rotated(rotations: u64) -> Ring {
        let mut random = Random::from_seed(1);
        let mut ring = Ring::generate(UnixTime(START), &mut random).with_pending(UnixTime(START), &mut random);
        for turn in 1..=rotations {
            ring = ring.rotate(UnixTime(START + turn * 6 * HOUR), &mut random, &Schedule::default());
        }
        ring
    }

    fn linted(ring: &Ring, schedule: &Schedule, now: u64) -> Vec<(Severity, String)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        file::write(&path, ring, false).unwrap();
        let findings = lint(&path, schedule, UnixTime(now));
        assert!(findings.iter().all(|finding| !finding.remedy.is_empty()));
        findings.into_iter().map(|finding| (finding.severity, finding.what)).collect()
    }

    #[test]
    fn s8_a_keys_seals_stay_within_what_random_nonces_allow() {
        let day = Duration::from_secs(24 * HOUR);
        let schedule = Schedule::new(day, day).unwrap();
        let told = Budget::new(&schedule, 1_000_000).to_string();
        assert!(told.starts_with("2^36.3 tickets at 1000000 a second in 1day, of 2^80"), "{told}");
        let path = Path::new("keys.toml");
        // 86,400 is 2^16.4.
        assert!(Budget::new(&schedule, 1 << 63).finding(path).is_none());
        let week = Schedule::new(7 * day, 7 * day).unwrap();
        let finding = Budget::new(&week, u64::MAX).finding(path).unwrap();
        assert!(finding.severity == Severity::Error && finding.what.contains("2^83.2"), "{finding}");
        assert!(Budget::new(&schedule, 0).finding(path).is_none());
    }

    #[test]
    fn k3_rings_rotated_on_schedule_are_clean_at_every_age() {
        for rotations in 0..12 {
            let found = linted(&rotated(rotations), &Schedule::default(), START + rotations * 6 * HOUR + 1);
            assert_eq!(found, [], "after {rotations} rotations");
        }
    }

    #[test]
    fn k3_too_few_keys_are_an_error() {
        let ring = rotated(6);
        let kept: Vec<Entry> = ring.entries().iter().skip(2).cloned().collect();
        let kept = kept.into_iter().filter(|e| e.state != State::Retiring).collect();
        let short = Ring::new(ring.version(), kept, vec![]).unwrap().begun(ring.began());
        let found = linted(&short, &Schedule::default(), START + 36 * HOUR + 1);
        assert!(
            matches!(&found[..], [(Severity::Error, what)] if what.contains("1 keys are kept where tickets need 5")),
            "{found:?}"
        );
    }

    #[test]
    fn k3_a_ring_that_was_given_keys_that_end_too_soon_is_told() {
        for (end, expected) in
            [(24 * HOUR - 1, Some(Severity::Error)), (24 * HOUR, Some(Severity::Warning)), (30 * HOUR + 60, None)]
        {
            let mut entries = rotated(1).entries().to_vec();
            entries[0].not_after = Some(UnixTime(START + 6 * HOUR + end));
            let found = linted(&Ring::new(2, entries, vec![]).unwrap(), &Schedule::default(), START + 6 * HOUR + 1);
            assert_eq!(found.first().map(|(severity, _)| *severity), expected, "{found:?}");
        }
    }

    #[test]
    fn k8_a_purge_is_not_held_against_a_ring() {
        let ring = rotated(1);
        let id = ring.entries()[0].key.id();
        let purged = ring.purged_of(id, UnixTime(START + 7 * HOUR), &mut Random::from_seed(2)).unwrap();
        assert_eq!(linted(&purged, &Schedule::default(), START + 7 * HOUR), []);
    }

    #[test]
    fn k3_keys_that_end_before_their_tickets_are_an_error() {
        // Rotated for tickets of 24 hours, used with tickets of 48.
        let longer = Schedule::new(Duration::from_secs(6 * HOUR), Duration::from_secs(48 * HOUR)).unwrap();
        let found = linted(&rotated(3), &longer, START + 18 * HOUR + 1);
        assert_eq!(found.iter().filter(|(severity, _)| *severity == Severity::Error).count(), 3, "{found:?}");
    }

    #[test]
    fn what_is_overdue_expired_or_early_is_a_warning() {
        let found = linted(&rotated(1), &Schedule::default(), START + 100 * HOUR);
        assert!(found.iter().any(|(_, what)| what.contains("expired")), "{found:?}");
        assert!(found.iter().any(|(_, what)| what.contains("was due")), "{found:?}");
        let found = linted(&rotated(0), &Schedule::default(), START - HOUR);
        assert!(found.iter().any(|(_, what)| what.contains("future")), "{found:?}");
        let found = linted(&Ring::generate(UnixTime(START), &mut Random::from_seed(1)), &Schedule::default(), START);
        assert!(matches!(&found[..], [(Severity::Warning, what)] if what.contains("pending")), "{found:?}");
    }

    #[test]
    fn mode_and_content_are_told_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        std::fs::write(&path, "version = 1\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let found = lint(&path, &Schedule::default(), UnixTime(0));
        assert_eq!(found.len(), 2);
        assert!(found[0].to_string().contains("0644") && found[1].to_string().contains("0 keys are active"));
    }
}
