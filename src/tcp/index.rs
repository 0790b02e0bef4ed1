//! Where each flow is: places behind a keyed hash, so that remote peers cannot aim at a bucket.
//!
//! An entry is 12 bytes and holds no flow: what is at the place knows its own. The table is as large as its bounds from the beginning, so that no
//! segment waits until a million entries have been moved.

use hashbrown::HashTable;

use crate::base::Flow;
use crate::tcp::isn::Keyed;

/// Flows for which there is room from the beginning, at most: 104 MiB of address space, of which the kernel gives what is used.
pub(super) const READY_MAX: usize = 7 << 20;

/// Where a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Connection(u32),
    HalfOpen(u32),
    TimeWait(u32),
}

/// A flow's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u32);

impl Key {
    /// The table takes buckets from the low bits and tells neighbours apart by the high ones.
    fn spread(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    place: Place,
}

/// Every flow that the stack knows.
#[derive(Debug)]
pub(super) struct Index {
    hash: Keyed,
    entries: HashTable<Entry>,
}

impl Index {
    /// An index with room for so many flows, or for [`READY_MAX`] and growing.
    pub(super) fn new(hash: Keyed, flows: usize) -> Self {
        Self { hash, entries: HashTable::with_capacity(flows.min(READY_MAX)) }
    }

    /// Bytes that an index for so many flows takes.
    pub(super) fn bound(flows: usize) -> usize {
        // The table is a power of two that is seven eighths full at most, with a byte beside each entry.
        let buckets = (flows.saturating_mul(8) / 7).checked_next_power_of_two().unwrap_or(usize::MAX);
        buckets.saturating_mul(size_of::<Entry>() + 1)
    }

    pub(super) fn key(&self, flow: &Flow) -> Key {
        Key(u32::try_from(self.hash.hash(flow) >> 32).unwrap_or_default())
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A place that may be the flow's: the first with this key.
    pub(super) fn guess(&self, key: Key) -> Option<Place> {
        self.find(key, |_| true)
    }

    /// The place with this key of which `is` says that it is the flow's.
    pub(super) fn find(&self, key: Key, is: impl Fn(Place) -> bool) -> Option<Place> {
        self.entries.find(key.spread(), |entry| entry.key == key && is(entry.place)).map(|entry| entry.place)
    }

    /// Takes note of a flow's place, which it has none of yet.
    pub(super) fn insert(&mut self, key: Key, place: Place) {
        self.entries.insert_unique(key.spread(), Entry { key, place }, |entry| entry.key.spread());
    }

    pub(super) fn remove(&mut self, key: Key, place: Place) {
        if let Ok(entry) = self.entries.find_entry(key.spread(), |entry| entry.place == place) {
            entry.remove();
        }
    }

    #[cfg(test)]
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Random;

    fn flow(port: u16) -> Flow {
        Flow::new(([198, 18, 0, 1], 443).into(), ([198, 18, 0, 2], port).into())
    }

    #[test]
    fn places_with_one_key_are_told_apart() {
        let mut index = Index::new(Keyed::new(&mut Random::from_seed(1)), 10);
        let key = index.key(&flow(1));
        for place in [Place::Connection(1), Place::HalfOpen(1), Place::TimeWait(2)] {
            index.insert(key, place);
        }
        assert_eq!(index.find(key, |place| place == Place::HalfOpen(1)), Some(Place::HalfOpen(1)));
        index.remove(key, Place::HalfOpen(1));
        index.remove(key, Place::HalfOpen(1));
        assert_eq!((index.find(key, |place| place == Place::HalfOpen(1)), index.len()), (None, 2));
        assert_eq!(index.find(index.key(&flow(2)), |_| true), None);
    }

    #[test]
    fn an_index_that_is_full_has_not_grown() {
        let mut index = Index::new(Keyed::new(&mut Random::from_seed(1)), 1000);
        let (capacity, memory) = (index.entries.capacity(), index.entries.allocation_size());
        for port in 0..1000 {
            index.insert(index.key(&flow(port)), Place::Connection(port.into()));
        }
        assert_eq!((index.entries.capacity(), index.entries.allocation_size()), (capacity, memory));
        // Beside what the table keeps for itself.
        assert!(memory <= Index::bound(1000) + 64 && size_of::<Entry>() == 12);
    }
}
