//! Connections by number, each where it was put until it is gone.

use crate::tcp::ConnectionId;

/// Slots that are made at a time: what a table with one connection takes, and how seldom one that grows asks for memory.
const CHUNK: usize = 64;

/// On cache lines of its own, so that what a value keeps first is in as few as can be.
#[derive(Debug)]
#[repr(C, align(64))]
struct Slot<T> {
    value: Option<T>,
    generation: u32,
}

impl<T> Slot<T> {
    const EMPTY: Self = Self { value: None, generation: 0 };
}

/// Values in numbered slots. A slot's generation grows with each use, so that an old id names nothing. A table that grows moves nothing.
#[derive(Debug)]
pub(super) struct Table<T> {
    chunks: Vec<Box<[Slot<T>]>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// Bytes that a value takes with its slot.
    pub(super) const fn slot_bytes() -> usize {
        size_of::<Slot<T>>()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        let index = index as usize;
        self.chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
    }

    fn grow(&mut self) {
        let number = |slots: usize| u32::try_from(slots).expect("fewer than 2^32 connections");
        let first = number(self.chunks.len() * CHUNK);
        self.chunks.push(std::iter::repeat_with(|| Slot::EMPTY).take(CHUNK).collect());
        self.free.extend((first..number(self.chunks.len() * CHUNK)).rev());
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        if self.free.is_empty() {
            self.grow();
        }
        let index = self.free.pop().expect("it has just grown");
        if let Some(slot) = self.slot_mut(index) {
            slot.value = Some(value);
        }
        self.len += 1;
        index
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slot_mut(index)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.len -= 1;
        Some(value)
    }

    pub(super) fn at(&self, index: u32) -> Option<&T> {
        self.slot(index)?.value.as_ref()
    }

    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slot_mut(index)?.value.as_mut()
    }

    /// The numbers of the slots that are taken.
    pub(super) fn indices(&self) -> Vec<u32> {
        let slots = self.chunks.iter().flatten();
        (0..).zip(slots).filter(|(_, slot)| slot.value.is_some()).map(|(index, _)| index).collect()
    }

    /// The id of what is at `index` now.
    pub(super) fn id(&self, index: u32) -> Option<ConnectionId> {
        let slot = self.slot(index)?;
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
        assert_eq!(table.remove(first), Some('a'));
        assert_eq!((table.find(id), table.len()), (None, 0));
        let second = table.insert('b');
        assert_eq!(second, first);
        assert_eq!((table.find(id), table.at(second)), (None, Some(&'b')));
    }

    #[test]
    fn a_table_that_grows_moves_nothing() {
        let mut table = Table::new();
        let first = table.insert(0);
        let place = std::ptr::from_ref(table.at(first).unwrap());
        let rest: Vec<u32> = (1..1000).map(|value| table.insert(value)).collect();
        assert_eq!(std::ptr::from_ref(table.at(first).unwrap()), place);
        assert_eq!((table.len(), table.indices().len()), (1000, 1000));
        assert!(rest.iter().zip(1..).all(|(index, value)| table.at(*index) == Some(&value)));
    }
}
