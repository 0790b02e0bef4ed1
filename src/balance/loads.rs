//! Connections open to each server: every lane writes its own row and reads all of them.

use crossbeam::utils::CachePadded;

use crate::balance::Slot;
use crate::base::{Counter, LaneId};

/// Counters that fill a cache line and the one that is fetched with it.
const BLOCK: usize = 16;

/// One lane's counters. Whole blocks of cache lines, so that no two lanes write to the same one.
type Row = Box<[CachePadded<[Counter; BLOCK]>]>;

/// The table. 8 bytes a lane and slot.
#[derive(Debug)]
pub struct Loads {
    rows: Box<[Row]>,
}

impl Loads {
    /// A table of zeros.
    pub fn new(lanes: usize, slots: usize) -> Self {
        let row = || (0..slots.div_ceil(BLOCK)).map(|_| CachePadded::default()).collect();
        Self { rows: (0..lanes).map(|_| row()).collect() }
    }

    /// A connection of `lane` to the server at `slot` begins. Only that lane may call this. Outside the table it counts nothing.
    pub fn open(&self, lane: LaneId, slot: Slot) {
        if let Some(counter) = self.counter(lane, slot) {
            counter.increment();
        }
    }

    /// One ends. Only that lane may call this. Outside the table, or without an open one, it counts nothing.
    pub fn close(&self, lane: LaneId, slot: Slot) {
        if let Some(counter) = self.counter(lane, slot) {
            counter.set(counter.value().saturating_sub(1));
        }
    }

    /// Connections open to the server at `slot`, over all lanes. Costs a read a lane, of a line that the lane may be writing.
    pub fn total(&self, slot: Slot) -> u64 {
        self.rows.iter().filter_map(|row| cell(row, slot)).fold(0, |sum, counter| sum.saturating_add(counter.value()))
    }

    fn counter(&self, lane: LaneId, slot: Slot) -> Option<&Counter> {
        cell(self.rows.get(usize::from(lane.0))?, slot)
    }
}

fn cell(row: &Row, slot: Slot) -> Option<&Counter> {
    let slot = usize::try_from(slot.0).ok()?;
    row.get(slot / BLOCK)?.get(slot % BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_load_is_the_sum_over_lanes() {
        let loads = Loads::new(2, 40);
        loads.open(LaneId(0), Slot(17));
        loads.open(LaneId(1), Slot(17));
        loads.open(LaneId(1), Slot(17));
        loads.open(LaneId(1), Slot(39));
        assert_eq!(loads.total(Slot(17)), 3);
        loads.close(LaneId(1), Slot(17));
        assert_eq!(loads.total(Slot(17)), 2);
        assert_eq!(loads.total(Slot(39)), 1);
        assert_eq!(loads.total(Slot(16)), 0);
    }

    #[test]
    fn a_close_too_many_does_not_make_a_server_look_busy() {
        let loads = Loads::new(1, 1);
        loads.close(LaneId(0), Slot(0));
        assert_eq!(loads.total(Slot(0)), 0);
    }

    #[test]
    fn lanes_and_slots_outside_the_table_count_nothing() {
        let loads = Loads::new(1, 1);
        loads.open(LaneId(1), Slot(0));
        loads.open(LaneId(0), Slot(u32::MAX));
        assert_eq!(loads.total(Slot(0)), 0);
        assert_eq!(loads.total(Slot(u32::MAX)), 0);
    }

    #[test]
    fn rows_of_two_lanes_share_no_cache_line() {
        let loads = Loads::new(2, 1);
        let [first, second] =
            [0, 1].map(|lane| std::ptr::from_ref(loads.counter(LaneId(lane), Slot(0)).unwrap()).addr());
        assert!(first.abs_diff(second) >= 128, "{first:#x} {second:#x}");
    }

    #[test]
    fn lanes_that_write_at_once_lose_nothing() {
        let loads = Loads::new(2, 4);
        std::thread::scope(|scope| {
            for lane in [LaneId(0), LaneId(1)] {
                let loads = &loads;
                scope.spawn(move || {
                    for n in 0..30_000 {
                        loads.open(lane, Slot(n % 4));
                        if n % 3 == 0 {
                            loads.close(lane, Slot(n % 4));
                        }
                    }
                });
            }
        });
        assert_eq!((0..4).map(|slot| loads.total(Slot(slot))).sum::<u64>(), 2 * (30_000 - 10_000));
    }
}
