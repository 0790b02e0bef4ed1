//! The key ring: an immutable snapshot of the keys that seal and open tickets.
//!
//! ```text
//! pending ──────────> active ──────────> retiring ──────────> destroyed
//! opens only          seals and opens    opens only           once no ticket under it can be valid
//! ```
//!
//! A key waits as pending until every engine has it, so that a ticket sealed under it opens everywhere. One engine alone needs no pending key.

use std::time::Duration;

use crate::base::{Random, UnixTime};
use crate::ticket::{Key, KeyId, Schedule, Scope, ServiceKeys};

/// Most keys in a ring. A ring that would grow beyond it at a rotation loses its oldest retiring key.
pub const KEYS_MAX: usize = 64;

/// How far two engines' clocks may be apart.
pub const SKEW: Duration = Duration::from_secs(60);

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// When it began to seal; `None` while it is pending.
    pub activated: Option<UnixTime>,
    /// When it may be destroyed; `None` until it retires.
    pub not_after: Option<UnixTime>,
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
    /// Two keys have one id.
    #[error("two keys have the id {0}")]
    DuplicateId(KeyId),
    /// Two ids have one key.
    #[error("keys {0} and {1} have the same secret")]
    DuplicateSecret(KeyId, KeyId),
}

/// Keys, exactly one of which is active.
#[derive(Debug)]
pub struct Ring {
    version: u64,
    entries: Vec<Entry>,
    may_seal: bool,
}

impl Ring {
    /// A ring of these keys, in this order.
    ///
    /// # Errors
    /// [`Invalid`] says why not.
    pub fn new(version: u64, entries: Vec<Entry>) -> Result<Self, Invalid> {
        if entries.len() > KEYS_MAX {
            return Err(Invalid::TooMany(entries.len()));
        }
        for (index, a) in entries.iter().enumerate() {
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
            1 => Ok(Self { version, entries, may_seal: true }),
            count => Err(Invalid::Active(count)),
        }
    }

    /// Version 1 of a ring, with one new key.
    pub fn generate(now: UnixTime, random: &mut Random) -> Self {
        let mut first = pending(now, random);
        activate(&mut first, now);
        Self { version: 1, entries: vec![first], may_seal: true }
    }

    /// The same ring with one more pending key, which the next rotation activates. At [`KEYS_MAX`] keys the oldest retiring one goes.
    #[must_use]
    pub fn with_pending(&self, now: UnixTime, random: &mut Random) -> Self {
        let mut entries = self.entries.clone();
        entries.push(pending(now, random));
        Self { version: self.version, entries: bounded(entries), may_seal: self.may_seal }
    }

    /// The next version: a new key seals, the old one retires, and keys whose tickets have all expired are gone.
    ///
    /// The oldest pending key becomes active and a new pending one takes its place; without any, a new key is active at once, which is right where one
    /// engine uses the ring. At least [`Schedule::retention`] keys stay as long as rotations come no faster than the schedule says.
    #[must_use]
    pub fn rotate(&self, now: UnixTime, random: &mut Random, schedule: &Schedule) -> Self {
        let mut entries = self.entries.clone();
        entries.retain(|entry| entry.not_after.is_none_or(|end| now <= end));
        for entry in &mut entries {
            if entry.state == State::Active {
                entry.state = State::Retiring;
                entry.not_after = Some(now + schedule.lifetime() + SKEW);
            }
        }
        let next = entries.iter().position(|entry| entry.state == State::Pending);
        entries.push(pending(now, random));
        let next = next.and_then(|index| entries.get_mut(index));
        let had_pending = next.is_some();
        if let Some(next) = next {
            activate(next, now);
        }
        if !had_pending {
            entries.iter_mut().rev().take(1).for_each(|entry| activate(entry, now));
        }
        Self { version: self.version.saturating_add(1), entries: bounded(entries), may_seal: self.may_seal }
    }

    /// The same keys, none of which seals: what an engine goes on with when it knows that its ring is stale.
    #[must_use]
    pub fn opening_only(&self) -> Self {
        Self { version: self.version, entries: self.entries.clone(), may_seal: false }
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

    /// When the active key has sealed for a whole rotation period.
    pub fn rotation_due(&self, schedule: &Schedule) -> UnixTime {
        let active = self.entries.iter().find(|entry| entry.state == State::Active);
        active.and_then(|entry| entry.activated).unwrap_or(UnixTime(0)) + schedule.rotation()
    }

    /// The keys of one virtual service, derived from these (K10). It costs microseconds a key: do it once a ring and service, not once a ticket.
    pub fn for_service(&self, scope: &Scope) -> ServiceKeys {
        ServiceKeys::derive(self, scope)
    }
}

fn pending(now: UnixTime, random: &mut Random) -> Entry {
    Entry { key: Key::generate(random), state: State::Pending, created: now, activated: None, not_after: None }
}

fn activate(entry: &mut Entry, now: UnixTime) {
    entry.state = State::Active;
    entry.activated = Some(now);
}

/// Drops the retiring keys that end first until the bound is kept.
fn bounded(mut entries: Vec<Entry>) -> Vec<Entry> {
    while entries.len() > KEYS_MAX {
        let retiring = entries.iter().enumerate().filter(|(_, entry)| entry.state == State::Retiring);
        match retiring.min_by_key(|(_, entry)| entry.not_after).map(|(index, _)| index) {
            Some(oldest) => drop(entries.remove(oldest)),
            // Nothing but pending keys: the newest, which nobody relies on yet, goes.
            None => drop(entries.pop()),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn ring() -> (Ring, Random) {
        let mut random = Random::from_seed(1);
        (Ring::generate(UnixTime(0), &mut random), random)
    }

    fn states(ring: &Ring) -> Vec<State> {
        ring.entries().iter().map(|entry| entry.state).collect()
    }

    #[test]
    fn k1_duplicate_keys_are_refused_by_id_and_by_secret() {
        let (ring, mut random) = ring();
        let first = ring.entries()[0].clone();
        let mut same_id = pending(UnixTime(0), &mut random);
        same_id.key = Key::new(first.key.id(), same_id.key.secret()).unwrap();
        let duplicate = Ring::new(1, vec![first.clone(), same_id]);
        assert_eq!(duplicate.unwrap_err(), Invalid::DuplicateId(first.key.id()));
        let mut same_secret = pending(UnixTime(0), &mut random);
        same_secret.key = Key::new(same_secret.key.id(), first.key.secret()).unwrap();
        let other = same_secret.key.id();
        let duplicate = Ring::new(1, vec![first.clone(), same_secret]);
        assert_eq!(duplicate.unwrap_err(), Invalid::DuplicateSecret(first.key.id(), other));
    }

    #[test]
    fn k2_exactly_one_key_is_active() {
        let (ring, mut random) = ring();
        let first = ring.entries()[0].clone();
        let mut second = pending(UnixTime(0), &mut random);
        assert_eq!(Ring::new(1, vec![second.clone()]).unwrap_err(), Invalid::Active(0));
        assert_eq!(Ring::new(1, vec![]).unwrap_err(), Invalid::Active(0));
        activate(&mut second, UnixTime(0));
        assert_eq!(Ring::new(1, vec![first, second]).unwrap_err(), Invalid::Active(2));
    }

    #[test]
    fn a_ring_holds_at_most_its_bound() {
        let (ring, mut random) = ring();
        let mut entries = ring.entries().to_vec();
        entries.resize_with(KEYS_MAX, || pending(UnixTime(0), &mut random));
        assert!(Ring::new(1, entries.clone()).is_ok());
        entries.push(pending(UnixTime(0), &mut random));
        assert_eq!(Ring::new(1, entries).unwrap_err(), Invalid::TooMany(KEYS_MAX + 1));
    }

    #[test]
    fn a_ring_rotated_too_often_keeps_its_bound_and_its_newest_keys() {
        let (mut ring, mut random) = ring();
        let mut ids = Vec::new();
        for _ in 0..2 * KEYS_MAX {
            ids.push(ring.active().unwrap().key.id());
            ring = ring.rotate(UnixTime(1), &mut random, &Schedule::default());
        }
        assert_eq!(ring.entries().len(), KEYS_MAX);
        assert!(ring.find(ids[0]).is_none());
        assert!(ring.find(ids[2 * KEYS_MAX - 1]).is_some());
    }

    #[test]
    fn k2_a_pending_key_becomes_active_at_the_next_rotation_and_another_takes_its_place() {
        let (ring, mut random) = ring();
        let ring = ring.with_pending(UnixTime(5), &mut random);
        assert_eq!(states(&ring), [State::Active, State::Pending]);
        let next = ring.entries()[1].key.id();
        let ring = ring.rotate(UnixTime(9), &mut random, &Schedule::default());
        assert_eq!(states(&ring), [State::Retiring, State::Active, State::Pending]);
        let active = ring.active().unwrap();
        assert_eq!((active.key.id(), active.created, active.activated), (next, UnixTime(5), Some(UnixTime(9))));
        assert_eq!(ring.version(), 2);
    }

    #[test]
    fn k3_a_key_stays_as_long_as_a_ticket_under_it_lives() {
        let schedule = Schedule::default();
        let (mut ring, mut random) = ring();
        let mut sealed_under = vec![(0, ring.active().unwrap().key.id())];
        for turn in 1..20 {
            let now = turn * 6 * HOUR;
            ring = ring.rotate(UnixTime(now), &mut random, &schedule);
            for (began, id) in &sealed_under {
                let alive = now <= began + 6 * HOUR + 24 * HOUR;
                assert_eq!(ring.find(*id).is_some(), alive, "turn {turn}, key active from {began}");
            }
            sealed_under.push((now, ring.active().unwrap().key.id()));
            let expected = schedule.retention().min(usize::try_from(turn).unwrap() + 1);
            assert!(ring.entries().len() >= expected);
        }
    }

    #[test]
    fn k7_a_stale_ring_opens_and_does_not_seal() {
        let (ring, _) = ring();
        let id = ring.active().unwrap().key.id();
        let stale = ring.opening_only();
        assert!(stale.active().is_none());
        assert!(stale.find(id).is_some());
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
