//! A key's life as steps from one ring to the next: made, staged, activated, retired, destroyed, or purged before its time.
//!
//! Every step gives a ring of a higher version, and leaves the one of before as it is.

use crate::base::{Random, UnixTime};
use crate::ticket::ring::{Entry, KEYS_MAX, PURGED_MAX, Purged, SKEW, State};
use crate::ticket::{Key, KeyId, Ring, Schedule};

/// Why a step cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No key waits.
    #[error("no key is pending")]
    NonePending,
    /// The key seals, or has sealed.
    #[error("key {0} is not pending")]
    NotPending(KeyId),
    /// K2: engines may not have it yet.
    #[error("key {0} may not seal before its time, {time} s after 1970", time = .1.0)]
    TooEarly(KeyId, UnixTime),
    /// There is no such key.
    #[error("there is no key {0} in the ring")]
    NoSuchKey(KeyId),
    /// It holds as many as it may, and none that may go.
    #[error("the ring holds {KEYS_MAX} keys, and none of them has expired")]
    Full,
}

impl Ring {
    /// Version 1 of a ring, with one new key.
    pub fn generate(now: UnixTime, random: &mut Random) -> Self {
        let mut first = pending(now, None, random);
        activate(&mut first, now);
        Self { version: 1, entries: vec![first], purged: Vec::new(), began: Some(now), may_seal: true }
    }

    /// The same ring, and of the same version, with one more pending key: for a ring that nobody has seen yet. At [`KEYS_MAX`] keys the oldest retiring
    /// one goes.
    #[must_use]
    pub fn with_pending(&self, now: UnixTime, random: &mut Random) -> Self {
        let mut entries = self.entries.clone();
        entries.push(pending(now, None, random));
        Self { entries: bounded(entries), ..self.clone() }
    }

    /// The next version: one more key, which every engine opens with and none seals with until it is [activated](Self::activated), at `not_before` at the
    /// earliest.
    ///
    /// # Errors
    /// [`Refused::Full`].
    pub fn staged(&self, now: UnixTime, not_before: Option<UnixTime>, random: &mut Random) -> Result<Self, Refused> {
        let mut next = self.next(now);
        if next.entries.len() >= KEYS_MAX {
            return Err(Refused::Full);
        }
        next.entries.push(pending(now, not_before, random));
        Ok(next)
    }

    /// The next version: the pending key `id`, or else the oldest one that may, seals, and the active one retires.
    ///
    /// # Errors
    /// When there is no such key, or it may not seal yet.
    pub fn activated(&self, id: Option<KeyId>, now: UnixTime, schedule: &Schedule) -> Result<Self, Refused> {
        let id = self.next_to_seal(id, now)?;
        let mut next = self.next(now);
        next.retire(now, schedule);
        next.entries.iter_mut().filter(|entry| entry.key.id() == id).for_each(|entry| activate(entry, now));
        Ok(next)
    }

    fn next_to_seal(&self, id: Option<KeyId>, now: UnixTime) -> Result<KeyId, Refused> {
        let found = match id {
            Some(id) => self.find(id).ok_or(Refused::NoSuchKey(id))?,
            None => {
                let mut waiting = self.entries.iter().filter(|entry| entry.state == State::Pending);
                let first = waiting.next().ok_or(Refused::NonePending)?;
                std::iter::once(first).chain(waiting).find(|entry| entry.not_before <= now).unwrap_or(first)
            }
        };
        if found.state != State::Pending {
            return Err(Refused::NotPending(found.key.id()));
        }
        if found.not_before > now {
            return Err(Refused::TooEarly(found.key.id(), found.not_before));
        }
        Ok(found.key.id())
    }

    /// The next version: a new key seals, the old one retires, and keys whose tickets have all expired are gone.
    ///
    /// The oldest pending key becomes active and a new pending one takes its place; without any that may, a new key is active at once, which is right
    /// where one engine uses the ring. At least [`Schedule::retention`] keys stay as long as rotations come no faster than the schedule says.
    #[must_use]
    pub fn rotate(&self, now: UnixTime, random: &mut Random, schedule: &Schedule) -> Self {
        let waiting = self.activated(None, now, schedule);
        let had_pending = waiting.is_ok();
        let mut next = waiting.unwrap_or_else(|_| {
            let mut next = self.next(now);
            next.retire(now, schedule);
            next
        });
        let mut newest = pending(now, None, random);
        if !had_pending {
            activate(&mut newest, now);
        }
        next.entries.push(newest);
        next.entries = bounded(next.entries);
        next
    }

    /// The next version, without key `id`, and never with it again (K8): tickets under it are worth nothing from now on. If it was the active one, the
    /// oldest pending key seals at once, or else a new one.
    ///
    /// # Errors
    /// [`Refused::NoSuchKey`].
    pub fn purged_of(&self, id: KeyId, now: UnixTime, random: &mut Random) -> Result<Self, Refused> {
        self.find(id).ok_or(Refused::NoSuchKey(id))?;
        let mut next = self.next(now);
        next.entries.retain(|entry| entry.key.id() != id);
        next.purged.push(Purged { id, at: now });
        let excess = next.purged.len().saturating_sub(PURGED_MAX);
        next.purged.drain(..excess);
        if !next.entries.iter().any(|entry| entry.state == State::Active) {
            match next.entries.iter_mut().find(|entry| entry.state == State::Pending) {
                Some(waiting) => activate(waiting, now),
                None => {
                    let mut newest = pending(now, None, random);
                    activate(&mut newest, now);
                    next.entries.push(newest);
                    next.entries = bounded(next.entries);
                }
            }
        }
        Ok(next)
    }

    /// The next version, in which nothing is from the future: for a ring that nobody but this engine uses, and whose clock was put back.
    #[must_use]
    pub fn settled(&self, now: UnixTime) -> Self {
        let mut next = self.next(now);
        for entry in &mut next.entries {
            entry.created = entry.created.min(now);
            entry.not_before = entry.not_before.min(now);
            entry.activated = entry.activated.map(|activated| activated.min(now));
        }
        next
    }

    /// The same keys under a version above this one and `version`.
    #[must_use]
    pub fn reissued_above(&self, version: u64, now: UnixTime) -> Self {
        let next = self.next(now);
        Self { version: next.version.max(version.saturating_add(1)), ..next }
    }

    /// The same keys under the next version, but for those whose end has come.
    fn next(&self, now: UnixTime) -> Self {
        let mut next = Self { version: self.version.saturating_add(1), ..self.clone() };
        next.entries.retain(|entry| entry.not_after.is_none_or(|end| now <= end));
        next
    }

    fn retire(&mut self, now: UnixTime, schedule: &Schedule) {
        for entry in self.entries.iter_mut().filter(|entry| entry.state == State::Active) {
            entry.state = State::Retiring;
            entry.not_after = Some(keep_until(entry, now, schedule));
        }
    }
}

/// How long a key that retires at `now` is kept.
///
/// K7: an engine that does not hear of it goes on sealing with it for as long as a ring may seal. What it has sealed opens everywhere.
pub fn keep_until(entry: &Entry, now: UnixTime, schedule: &Schedule) -> UnixTime {
    let sealed_until = entry.activated.unwrap_or(now) + schedule.sealing_max();
    sealed_until.max(now) + schedule.lifetime() + SKEW
}

fn pending(now: UnixTime, not_before: Option<UnixTime>, random: &mut Random) -> Entry {
    Entry {
        key: Key::generate(random),
        state: State::Pending,
        created: now,
        not_before: not_before.unwrap_or(now),
        activated: None,
        not_after: None,
    }
}

fn activate(entry: &mut Entry, now: UnixTime) {
    entry.state = State::Active;
    entry.activated = Some(now);
    // An emergency does not wait for it.
    entry.not_before = entry.not_before.min(now);
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
    use std::time::Duration;

    use super::*;

    const HOUR: u64 = 3600;

    fn ring() -> (Ring, Random) {
        let mut random = Random::from_seed(1);
        (Ring::generate(UnixTime(0), &mut random), random)
    }

    fn states(ring: &Ring) -> Vec<State> {
        ring.entries().iter().map(|entry| entry.state).collect()
    }

    fn ids(ring: &Ring) -> Vec<KeyId> {
        ring.entries().iter().map(|entry| entry.key.id()).collect()
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
    fn k2_a_key_is_staged_then_activated_then_retires_and_is_destroyed() {
        let schedule = Schedule::default();
        let (ring, mut random) = ring();
        let staged = ring.staged(UnixTime(10), None, &mut random).unwrap();
        assert_eq!((states(&staged), staged.version()), (vec![State::Active, State::Pending], 2));
        assert_eq!(staged.active().unwrap().key.id(), ring.active().unwrap().key.id());
        let active = staged.activated(None, UnixTime(20), &schedule).unwrap();
        assert_eq!((states(&active), active.version()), (vec![State::Retiring, State::Active], 3));
        let end = active.entries()[0].not_after.unwrap();
        assert_eq!(active.staged(end, None, &mut random).unwrap().entries().len(), 3);
        let after = active.staged(UnixTime(end.0 + 1), None, &mut random).unwrap();
        assert_eq!(states(&after), [State::Active, State::Pending], "its end has come");
    }

    #[test]
    fn k2_a_key_does_not_seal_before_its_time() {
        let schedule = Schedule::default();
        let (ring, mut random) = ring();
        assert_eq!(ring.activated(None, UnixTime(0), &schedule).unwrap_err(), Refused::NonePending);
        let ring = ring.staged(UnixTime(0), Some(UnixTime(100)), &mut random).unwrap();
        let late = ids(&ring)[1];
        assert_eq!(ring.activated(None, UnixTime(99), &schedule).unwrap_err(), Refused::TooEarly(late, UnixTime(100)));
        let ring = ring.staged(UnixTime(0), Some(UnixTime(50)), &mut random).unwrap();
        let early = ids(&ring)[2];
        assert_eq!(ring.activated(None, UnixTime(99), &schedule).unwrap().active().unwrap().key.id(), early);
        assert_eq!(ring.activated(Some(late), UnixTime(100), &schedule).unwrap().active().unwrap().key.id(), late);
        let first = ids(&ring)[0];
        assert_eq!(ring.activated(Some(first), UnixTime(0), &schedule).unwrap_err(), Refused::NotPending(first));
        let unknown = KeyId([1; 8]);
        assert_eq!(ring.activated(Some(unknown), UnixTime(0), &schedule).unwrap_err(), Refused::NoSuchKey(unknown));
    }

    #[test]
    fn a_full_ring_stages_no_more() {
        let (mut ring, mut random) = ring();
        for _ in 1..KEYS_MAX {
            ring = ring.staged(UnixTime(0), None, &mut random).unwrap();
        }
        assert_eq!(ring.staged(UnixTime(0), None, &mut random).unwrap_err(), Refused::Full);
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
                // 6 hours on time, and 6 more on an engine that hears of no rotation.
                let alive = now <= began + 12 * HOUR + 24 * HOUR;
                assert_eq!(ring.find(*id).is_some(), alive, "turn {turn}, key active from {began}");
            }
            sealed_under.push((now, ring.active().unwrap().key.id()));
            let expected = schedule.retention().min(usize::try_from(turn).unwrap() + 1);
            assert!(ring.entries().len() >= expected);
        }
    }

    #[test]
    fn k3_a_schedule_that_is_accepted_never_loses_a_key_to_the_bound() {
        for (rotation, lifetime) in [(6 * HOUR, 24 * HOUR), (HOUR, 59 * HOUR), (1, 59), (7, 30), (24 * HOUR, HOUR)] {
            let schedule = Schedule::new(Duration::from_secs(rotation), Duration::from_secs(lifetime)).unwrap();
            let (ring, mut random) = ring();
            let mut ring = ring.with_pending(UnixTime(0), &mut random);
            let mut ends = Vec::new();
            for turn in 1..200 {
                let now = UnixTime(turn * rotation);
                let retires = ring.active().unwrap().key.id();
                ring = ring.rotate(now, &mut random, &schedule);
                ends.push((
                    retires,
                    UnixTime(turn * rotation - rotation) + schedule.sealing_max() + schedule.lifetime(),
                ));
                let lost = ends.iter().find(|(id, end)| *end >= now && ring.find(*id).is_none());
                assert_eq!(lost, None, "rotation {rotation} s, lifetime {lifetime} s, turn {turn}");
            }
        }
    }

    #[test]
    fn k7_what_an_engine_seals_that_hears_of_no_rotation_opens_everywhere() {
        let schedule = Schedule::default();
        let (ring, mut random) = ring();
        for rotated_at in [1, 6 * HOUR, 9 * HOUR, 40 * HOUR] {
            let next = ring.rotate(UnixTime(rotated_at), &mut random, &schedule);
            let last_sealed = (12 * HOUR).max(rotated_at);
            assert_eq!(next.entries()[0].not_after, Some(UnixTime(last_sealed + 24 * HOUR + 60)), "{rotated_at}");
        }
    }

    #[test]
    fn k8_a_purged_key_is_gone_at_once_and_the_next_pending_one_seals() {
        let (ring, mut random) = ring();
        let ring = ring.with_pending(UnixTime(0), &mut random).rotate(UnixTime(9), &mut random, &Schedule::default());
        let [retiring, active, waiting] = ids(&ring)[..] else { panic!() };
        let without = ring.purged_of(retiring, UnixTime(10), &mut random).unwrap();
        assert_eq!((ids(&without), without.version()), (vec![active, waiting], ring.version() + 1));
        assert_eq!(without.purged(), [Purged { id: retiring, at: UnixTime(10) }]);
        let without = ring.purged_of(active, UnixTime(10), &mut random).unwrap();
        assert_eq!(without.active().unwrap().key.id(), waiting);
        let alone = without.purged_of(waiting, UnixTime(11), &mut random).unwrap();
        let newest = alone.active().unwrap().key.id();
        assert!(![retiring, active, waiting].contains(&newest));
        assert_eq!(alone.purged().len(), 2);
        assert_eq!(alone.purged_of(active, UnixTime(12), &mut random).unwrap_err(), Refused::NoSuchKey(active));
    }

    #[test]
    fn k8_purges_are_remembered_up_to_a_bound_across_rotations() {
        let (mut ring, mut random) = ring();
        let mut last = None;
        for _ in 0..PURGED_MAX + 5 {
            let id = ring.active().unwrap().key.id();
            ring = ring.purged_of(id, UnixTime(1), &mut random).unwrap();
            last = Some(id);
        }
        ring = ring.rotate(UnixTime(2), &mut random, &Schedule::default());
        assert_eq!(ring.purged().len(), PURGED_MAX);
        assert_eq!(ring.purged().last().map(|purged| purged.id), last);
    }

    #[test]
    fn a_settled_ring_has_nothing_from_the_future() {
        let mut random = Random::from_seed(1);
        let schedule = Schedule::default();
        let ring = Ring::generate(UnixTime(9000), &mut random).staged(UnixTime(9000), None, &mut random).unwrap();
        let settled = ring.settled(UnixTime(100));
        assert_eq!(settled.fitness(UnixTime(100), &schedule), crate::ticket::ring::Fitness::Seals);
        assert_eq!((ids(&settled), settled.version()), (ids(&ring), ring.version() + 1));
    }
}
