//! The key ring: an immutable snapshot of the keys that seal and open tickets. How one ring becomes the next is in [`life`](super::life).
//!
//! ```text
//! pending ──────────> active ──────────> retiring ──────────> destroyed
//! opens only          seals and opens    opens only           once no ticket under it can be valid, or purged before
//! ```
//!
//! A key waits as pending until every engine has it, so that a ticket sealed under it opens everywhere. One engine alone needs no pending key.

use std::time::Duration;

use crate::base::UnixTime;
use crate::ticket::vault::Vault;
use crate::ticket::{Key, KeyId, Schedule, Scope, ServiceKeys};

/// Most keys in a ring. A ring that would grow beyond it at a rotation loses its oldest retiring key.
pub const KEYS_MAX: usize = 64;

/// Most purged keys that a ring remembers; the oldest is forgotten for one more.
pub const PURGED_MAX: usize = 64;

/// How far two engines' clocks may be apart.
pub const SKEW: Duration = Duration::from_secs(60);

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Opens only, until every engine has it.
    Pending,
    /// Seals and opens.
    Active,
    /// Opens only, until no ticket under it is valid any more.
    Retiring,
}

/// A key and where it is in its life.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// What it may do.
    pub state: State,
    /// When it was made.
    pub created: UnixTime,
    /// When it may begin to seal.
    pub not_before: UnixTime,
    /// When it began to seal; `None` while it is pending.
    pub activated: Option<UnixTime>,
    /// When it may be destroyed; `None` until it retires.
    pub not_after: Option<UnixTime>,
}

impl Entry {
    /// Since when it is in its state, as far as it tells: a retiring key tells until when, not since when.
    pub fn since(&self) -> UnixTime {
        self.activated.unwrap_or(self.created)
    }

    /// K5: made or activated by a clock that is ahead of this one by more than two clocks may be apart.
    fn is_from_the_future(&self, now: UnixTime) -> bool {
        self.created > now + SKEW || self.activated.is_some_and(|activated| activated > now + SKEW)
    }
}

/// K8: a key that was taken out before its time, and must not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// The key.
    pub id: KeyId,
    /// When.
    pub at: UnixTime,
}

/// Whether a ring may seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// It may.
    Seals,
    /// K7: its active key has sealed for two rotation periods, so that whoever rotates has not been heard of for one.
    Stale,
    /// K5: a key of it was made or activated more than [`SKEW`] after now: one of two clocks is wrong.
    FromTheFuture,
}

/// Why keys are no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// None, or more than one.
    #[error("{0} keys are active; exactly one must be")]
    Active(usize),
    /// More than [`KEYS_MAX`].
    #[error("it has {0} keys, more than {KEYS_MAX}")]
    TooMany(usize),
    /// More than [`PURGED_MAX`].
    #[error("it has {0} purged keys, more than {PURGED_MAX}")]
    TooManyPurged(usize),
    /// Two keys have one id.
    #[error("two keys have the id {0}")]
    DuplicateId(KeyId),
    /// Two ids have one key.
    #[error("keys {0} and {1} have the same secret")]
    DuplicateSecret(KeyId, KeyId),
    /// A purged key is back.
    #[error("it holds key {0}, which was purged")]
    Purged(KeyId),
}

/// Keys, exactly one of which is active.
#[derive(Clone, Debug)]
pub struct Ring {
    pub(super) version: u64,
    pub(super) entries: Vec<Entry>,
    pub(super) purged: Vec<Purged>,
    pub(super) began: Option<UnixTime>,
    pub(super) may_seal: bool,
}

impl Ring {
    /// A ring of these keys, in this order, without those that were purged.
    ///
    /// # Errors
    /// [`Invalid`] says why not.
    pub fn new(version: u64, entries: Vec<Entry>, purged: Vec<Purged>) -> Result<Self, Invalid> {
        if entries.len() > KEYS_MAX {
            return Err(Invalid::TooMany(entries.len()));
        }
        if purged.len() > PURGED_MAX {
            return Err(Invalid::TooManyPurged(purged.len()));
        }
        for (index, a) in entries.iter().enumerate() {
            if purged.iter().any(|purged| purged.id == a.key.id()) {
                return Err(Invalid::Purged(a.key.id()));
            }
            for b in entries.iter().skip(index + 1) {
                if a.key.id() == b.key.id() {
                    return Err(Invalid::DuplicateId(a.key.id()));
                }
                if a.key.secret() == b.key.secret() {
                    return Err(Invalid::DuplicateSecret(a.key.id(), b.key.id()));
                }
            }
        }
        match entries.iter().filter(|entry| entry.state == State::Active).count() {
            1 => Ok(Self { version, entries, purged, began: None, may_seal: true }),
            count => Err(Invalid::Active(count)),
        }
    }

    /// The same ring, which was begun at `began`: since then no key has been lost but those that are [purged](Self::purged) or were destroyed in time.
    #[must_use]
    pub fn begun(self, began: Option<UnixTime>) -> Self {
        Self { began, ..self }
    }

    /// The same keys, none of which seals: what an engine goes on with when it knows that its ring is stale.
    #[must_use]
    pub fn opening_only(&self) -> Self {
        Self { may_seal: false, ..self.clone() }
    }

    /// What of this ring is used at `now`: no key whose end has come, and the active one only if the ring is fit to seal.
    #[must_use]
    pub fn in_force(&self, now: UnixTime, schedule: &Schedule) -> Self {
        let mut ring = self.clone();
        ring.entries.retain(|entry| entry.not_after.is_none_or(|end| now <= end));
        ring.may_seal = self.may_seal && self.fitness(now, schedule) == Fitness::Seals;
        ring
    }

    /// Whether this ring may seal at `now`.
    pub fn fitness(&self, now: UnixTime, schedule: &Schedule) -> Fitness {
        if self.entries.iter().any(|entry| entry.is_from_the_future(now)) {
            Fitness::FromTheFuture
        } else if now > self.sealing_since() + schedule.sealing_max() {
            Fitness::Stale
        } else {
            Fitness::Seals
        }
    }

    /// Grows with each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The key that seals; `None` when the ring may only open.
    pub fn active(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| self.may_seal && entry.state == State::Active)
    }

    /// The key of this id.
    pub fn find(&self, id: KeyId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.id() == id)
    }

    /// All keys.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Keys that were purged, the oldest purge first.
    pub fn purged(&self) -> &[Purged] {
        &self.purged
    }

    /// When the first version was made, if that is known.
    pub fn began(&self) -> Option<UnixTime> {
        self.began
    }

    /// A key of this ring that `other` has purged.
    pub fn purged_by(&self, other: &Self) -> Option<KeyId> {
        let ids = self.entries.iter().map(|entry| entry.key.id());
        ids.into_iter().find(|id| other.purged.iter().any(|purged| purged.id == *id))
    }

    /// When the active key has sealed for a whole rotation period.
    pub fn rotation_due(&self, schedule: &Schedule) -> UnixTime {
        self.sealing_since() + schedule.rotation()
    }

    fn sealing_since(&self) -> UnixTime {
        let active = self.entries.iter().find(|entry| entry.state == State::Active);
        active.and_then(|entry| entry.activated).unwrap_or(UnixTime(0))
    }

    /// The keys of one virtual service, derived from these (K10). It costs microseconds a key: do it once a ring and service, not once a ticket.
    pub fn for_service(&self, scope: &Scope) -> ServiceKeys {
        ServiceKeys::derive(self, scope, None)
    }

    /// The same in memory that is there: without system calls, if it has the room.
    pub fn for_service_in(&self, scope: &Scope, vault: Vault) -> ServiceKeys {
        ServiceKeys::derive(self, scope, Some(vault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Random;

    const HOUR: u64 = 3600;

    fn ring() -> (Ring, Random) {
        let mut random = Random::from_seed(1);
        (Ring::generate(UnixTime(0), &mut random), random)
    }

    fn pending(random: &mut Random) -> Entry {
        let time = UnixTime(0);
        Entry {
            key: Key::generate(random),
            state: State::Pending,
            created: time,
            not_before: time,
            activated: None,
            not_after: None,
        }
    }

    #[test]
    fn k1_duplicate_keys_are_refused_by_id_and_by_secret() {
        let (ring, mut random) = ring();
        let first = ring.entries()[0].clone();
        let mut same_id = pending(&mut random);
        same_id.key = Key::new(first.key.id(), same_id.key.secret()).unwrap();
        let duplicate = Ring::new(1, vec![first.clone(), same_id], vec![]);
        assert_eq!(duplicate.unwrap_err(), Invalid::DuplicateId(first.key.id()));
        let mut same_secret = pending(&mut random);
        same_secret.key = Key::new(same_secret.key.id(), first.key.secret()).unwrap();
        let other = same_secret.key.id();
        let duplicate = Ring::new(1, vec![first.clone(), same_secret], vec![]);
        assert_eq!(duplicate.unwrap_err(), Invalid::DuplicateSecret(first.key.id(), other));
    }

    #[test]
    fn k2_exactly_one_key_is_active() {
        let (ring, mut random) = ring();
        let first = ring.entries()[0].clone();
        let mut second = pending(&mut random);
        assert_eq!(Ring::new(1, vec![second.clone()], vec![]).unwrap_err(), Invalid::Active(0));
        assert_eq!(Ring::new(1, vec![], vec![]).unwrap_err(), Invalid::Active(0));
        second.state = State::Active;
        assert_eq!(Ring::new(1, vec![first, second], vec![]).unwrap_err(), Invalid::Active(2));
    }

    #[test]
    fn a_ring_holds_at_most_its_bounds() {
        let (ring, mut random) = ring();
        let mut entries = ring.entries().to_vec();
        entries.resize_with(KEYS_MAX, || pending(&mut random));
        assert!(Ring::new(1, entries.clone(), vec![]).is_ok());
        entries.push(pending(&mut random));
        assert_eq!(Ring::new(1, entries, vec![]).unwrap_err(), Invalid::TooMany(KEYS_MAX + 1));
        let purged = vec![Purged { id: KeyId([9; 8]), at: UnixTime(0) }; PURGED_MAX + 1];
        let too_many = Ring::new(1, ring.entries().to_vec(), purged);
        assert_eq!(too_many.unwrap_err(), Invalid::TooManyPurged(PURGED_MAX + 1));
    }

    #[test]
    fn k8_a_ring_does_not_hold_what_it_has_purged() {
        let (ring, _) = ring();
        let id = ring.entries()[0].key.id();
        let purged = vec![Purged { id, at: UnixTime(5) }];
        assert_eq!(Ring::new(1, ring.entries().to_vec(), purged).unwrap_err(), Invalid::Purged(id));
    }

    #[test]
    fn k5_a_ring_from_the_future_does_not_seal_until_its_time_comes() {
        let mut random = Random::from_seed(1);
        let schedule = Schedule::default();
        let ring = Ring::generate(UnixTime(1000), &mut random);
        let sealing = |now| ring.in_force(UnixTime(now), &schedule).active().is_some();
        assert_eq!(ring.fitness(UnixTime(939), &schedule), Fitness::FromTheFuture);
        assert_eq!(ring.fitness(UnixTime(940), &schedule), Fitness::Seals, "60 s are tolerated");
        assert_eq!([939, 940, 1000].map(sealing), [false, true, true]);
        let staged = ring.staged(UnixTime(2000), None, &mut random).unwrap();
        assert_eq!(staged.fitness(UnixTime(1000), &schedule), Fitness::FromTheFuture, "its pending key is");
    }

    #[test]
    fn k7_a_ring_seals_for_two_rotations_and_then_only_opens() {
        let (ring, mut random) = ring();
        let schedule = Schedule::default();
        let id = ring.active().unwrap().key.id();
        assert!(ring.in_force(UnixTime(12 * HOUR), &schedule).active().is_some());
        let stale = ring.in_force(UnixTime(12 * HOUR + 1), &schedule);
        assert_eq!(ring.fitness(UnixTime(12 * HOUR + 1), &schedule), Fitness::Stale);
        assert!(stale.active().is_none() && stale.find(id).is_some());
        let next = ring.rotate(UnixTime(13 * HOUR), &mut random, &schedule);
        assert!(next.in_force(UnixTime(13 * HOUR), &schedule).active().is_some(), "a new ring ends it");
        assert!(ring.opening_only().active().is_none());
    }

    #[test]
    fn k2_a_key_whose_end_has_come_is_not_in_force() {
        let (ring, mut random) = ring();
        let schedule = Schedule::default();
        let id = ring.active().unwrap().key.id();
        let ring = ring.rotate(UnixTime(6 * HOUR), &mut random, &schedule);
        let end = ring.find(id).unwrap().not_after.unwrap();
        assert!(ring.in_force(end, &schedule).find(id).is_some());
        assert!(ring.in_force(UnixTime(end.0 + 1), &schedule).find(id).is_none());
    }

    #[test]
    fn a_rotation_is_due_one_period_after_the_last() {
        let (ring, mut random) = ring();
        let schedule = Schedule::default();
        assert_eq!(ring.rotation_due(&schedule), UnixTime(6 * HOUR));
        let ring = ring.rotate(UnixTime(7 * HOUR), &mut random, &schedule);
        assert_eq!(ring.rotation_due(&schedule), UnixTime(13 * HOUR));
    }
}
