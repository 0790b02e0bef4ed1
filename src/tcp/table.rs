//! Connections by number, and every flow by its keyed hash: remote peers cannot aim at a bucket.

use std::collections::HashMap;

use crate::base::Flow;
use crate::tcp::ConnectionId;
use crate::tcp::isn::Keyed;

/// Where a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Connection(u32),
    HalfOpen(u32),
    TimeWait(u32),
}

/// Every flow that the stack knows.
pub(super) type Index = HashMap<Flow, Place, Keyed>;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    // Boxed, so that a growing table moves pointers and not connections.
    value: Option<Box<T>>,
}

/// Values in numbered slots. A slot's generation grows with each use, so that an old id names nothing.
#[derive(Debug)]
pub(super) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        let value = Some(Box::new(value));
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.value = value;
            return index;
        }
        self.slots.push(Slot { generation: 0, value });
        u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 connections")
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Box<T>> {
        let slot = self.slots.get_mut(index as usize)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }

    pub(super) fn at(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.value.as_deref()
    }

    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.value.as_deref_mut()
    }

    /// The numbers of the slots that are taken.
    pub(super) fn indices(&self) -> Vec<u32> {
        (0..).zip(&self.slots).filter(|(_, slot)| slot.value.is_some()).map(|(index, _)| index).collect()
    }

    /// The id of what is at `index` now.
    pub(super) fn id(&self, index: u32) -> Option<ConnectionId> {
        let slot = self.slots.get(index as usize)?;
        slot.value.as_ref()?;
        Some(ConnectionId { slot: index, generation: slot.generation })
    }

    /// The slot of a live id.
    pub(super) fn find(&self, id: ConnectionId) -> Option<u32> {
        (self.id(id.slot)? == id).then_some(id.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_names_nothing() {
        let mut table = Table::new();
        let first = table.insert('a');
        let id = table.id(first).unwrap();
        assert_eq!(table.remove(first).as_deref(), Some(&'a'));
        assert_eq!((table.find(id), table.len()), (None, 0));
        let second = table.insert('b');
        assert_eq!(second, first);
        assert_eq!((table.find(id), table.at(second)), (None, Some(&'b')));
    }
}
