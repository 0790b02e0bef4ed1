//! Control's register of slots: each incarnation of a server keeps its place on the health board across reloads.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};

use crate::balance::{Pool, Slot};
use crate::base::{Generation, PoolId, ServerId};

/// Gives out slots, the same one for the same incarnation for as long as any lane may still use it.
///
/// A lane holds an old snapshot's pool for as long as a connection that began with it lasts, so the slot of a server that left the configuration is given to
/// another one only when every pool that [had it](Self::publish) is gone.
#[derive(Debug)]
pub struct Slots {
    capacity: u32,
    taken: HashMap<(PoolId, ServerId, Generation), Slot>,
    /// Slots below this one were given out at some time.
    fresh: u32,
    free: BTreeSet<Slot>,
    /// Pools that lanes have or had, with the slots of each.
    published: Vec<(Weak<Pool>, Vec<Slot>)>,
}

/// Every slot is some server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "all {capacity} places on the health board are taken, by servers of this configuration or by servers that are gone and whose connections go on: \
     use fewer servers, or drain those that you remove"
)]
pub struct SlotsFull {
    /// How many places there are.
    pub capacity: u32,
}

impl Slots {
    /// A register of `capacity` slots, which is to be what the [`Board`](super::Board) and the [`Loads`](super::Loads) were made with.
    pub fn new(capacity: u32) -> Self {
        Self { capacity, taken: HashMap::new(), fresh: 0, free: BTreeSet::new(), published: Vec::new() }
    }

    /// The slot of an incarnation: its old one if it had one, else a new one.
    ///
    /// # Errors
    /// [`SlotsFull`] when there is none left. Nothing changes then.
    pub fn assign(&mut self, pool: PoolId, server: ServerId, generation: Generation) -> Result<Slot, SlotsFull> {
        let key = (pool, server, generation);
        if let Some(&slot) = self.taken.get(&key) {
            return Ok(slot);
        }
        let slot = match self.free.pop_first() {
            Some(slot) => slot,
            None if self.fresh < self.capacity => {
                self.fresh += 1;
                Slot(self.fresh - 1)
            }
            None => return Err(SlotsFull { capacity: self.capacity }),
        };
        self.taken.insert(key, slot);
        Ok(slot)
    }

    /// Notes a pool that is about to be given to a lane.
    pub fn publish(&mut self, pool: &Arc<Pool>) {
        self.published.push((Arc::downgrade(pool), pool.servers.iter().map(|server| server.slot).collect()));
    }

    /// Takes back the slots that no pool has any more, and says which. Costs a pass over all pools that lanes have.
    pub fn take_back(&mut self) -> Vec<Slot> {
        self.published.retain(|(pool, _)| pool.strong_count() > 0);
        let used: HashSet<Slot> = self.published.iter().flat_map(|(_, slots)| slots.iter().copied()).collect();
        let (free, mut taken_back) = (&mut self.free, Vec::new());
        self.taken.retain(|_, slot| {
            let is_used = used.contains(slot);
            if !is_used {
                free.insert(*slot);
                taken_back.push(*slot);
            }
            is_used
        });
        taken_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::server;
    use crate::balance::{Algorithm, Server};

    #[test]
    fn an_incarnation_keeps_its_slot_and_another_gets_its_own() {
        let mut slots = Slots::new(10);
        let first = slots.assign(PoolId(1), ServerId(1), Generation(0)).unwrap();
        let others = [
            slots.assign(PoolId(2), ServerId(1), Generation(0)).unwrap(),
            slots.assign(PoolId(1), ServerId(2), Generation(0)).unwrap(),
            slots.assign(PoolId(1), ServerId(1), Generation(1)).unwrap(),
        ];
        assert!(!others.contains(&first));
        assert_eq!(slots.assign(PoolId(1), ServerId(1), Generation(0)), Ok(first));
    }

    #[test]
    fn a_full_register_refuses_new_servers_and_still_knows_the_old() {
        let mut slots = Slots::new(2);
        let first = slots.assign(PoolId(1), ServerId(1), Generation(0)).unwrap();
        slots.assign(PoolId(1), ServerId(2), Generation(0)).unwrap();
        let full = slots.assign(PoolId(1), ServerId(3), Generation(0)).unwrap_err();
        assert!(full.to_string().contains("all 2 places"), "{full}");
        assert_eq!(slots.assign(PoolId(1), ServerId(1), Generation(0)), Ok(first));
    }

    fn pool_of(slots: &[Slot]) -> Arc<Pool> {
        let servers = slots.iter().map(|slot| Server { slot: *slot, ..server(0, 1) }).collect();
        Arc::new(Pool::new(PoolId(1), "p".into(), Algorithm::RoundRobin, servers))
    }

    #[test]
    fn a_slot_is_given_to_another_server_only_when_no_lane_has_a_pool_with_the_first() {
        let mut slots = Slots::new(2);
        let kept = slots.assign(PoolId(1), ServerId(1), Generation(0)).unwrap();
        let gone = slots.assign(PoolId(1), ServerId(2), Generation(0)).unwrap();
        let old = pool_of(&[kept, gone]);
        slots.publish(&old);
        let new = pool_of(&[kept]);
        slots.publish(&new);
        slots.take_back();
        assert!(slots.assign(PoolId(1), ServerId(3), Generation(0)).is_err(), "a connection may be at the second");
        assert_eq!(slots.assign(PoolId(1), ServerId(2), Generation(0)), Ok(gone), "it may come back");
        drop(old);
        slots.take_back();
        assert_eq!(slots.assign(PoolId(1), ServerId(3), Generation(0)), Ok(gone));
        assert_eq!(slots.assign(PoolId(1), ServerId(1), Generation(0)), Ok(kept));
        assert!(slots.assign(PoolId(1), ServerId(2), Generation(0)).is_err());
    }

    #[test]
    fn servers_may_come_and_go_without_end() {
        let mut slots = Slots::new(2);
        let mut _before = None;
        for generation in 0..1000 {
            slots.take_back();
            // The pool of before is there while the next one is made.
            let pool = pool_of(&[slots.assign(PoolId(1), ServerId(1), Generation(generation)).unwrap()]);
            slots.publish(&pool);
            _before = Some(pool);
        }
    }
}
