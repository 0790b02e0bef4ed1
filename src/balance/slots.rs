//! Control's register of slots: each incarnation of a server keeps its place on the health board across reloads.

use std::collections::HashMap;

use crate::balance::Slot;
use crate::base::{Generation, PoolId, ServerId};

/// Gives out slots, the same one for the same incarnation as long as the process lives.
///
/// A slot is never given to another server, not even when no configuration names the first one any more: a lane may hold an old
/// snapshot for as long as a connection lasts. So `capacity` bounds the incarnations seen in the life of the process.
#[derive(Debug)]
pub struct Slots {
    capacity: u32,
    taken: HashMap<(PoolId, ServerId, Generation), Slot>,
}

/// Every slot was given to some server already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "all {capacity} places on the health board were given to servers since the engine started: \
     use fewer servers, or restart the engine if many were added and removed by reloads"
)]
pub struct SlotsFull {
    /// How many places there are.
    pub capacity: u32,
}

impl Slots {
    /// A register of `capacity` slots, which is to be what the [`Board`](super::Board) and the [`Loads`](super::Loads) were made with.
    pub fn new(capacity: u32) -> Self {
        Self { capacity, taken: HashMap::new() }
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
        let full = SlotsFull { capacity: self.capacity };
        let next = u32::try_from(self.taken.len()).map_err(|_| full)?;
        if next >= self.capacity {
            return Err(full);
        }
        self.taken.insert(key, Slot(next));
        Ok(Slot(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(full.to_string().contains("all 2 places"));
        assert_eq!(slots.assign(PoolId(1), ServerId(1), Generation(0)), Ok(first));
    }
}
