//! What went to each server and came from it, and how its connections failed: every lane writes its own rows, control reads all of them.

use std::sync::OnceLock;

use crossbeam::utils::CachePadded;

use crate::balance::Slot;
use crate::base::atomic::{Ordering, fence};
use crate::base::{Counter, LaneId};

/// How a server failed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It answered the SYN with a reset.
    Refused,
    /// It did not answer.
    TimedOut,
    /// There was no way to it.
    Unreachable,
    /// It reset the connection.
    Reset,
    /// It cut its stream short.
    Truncated,
    /// TLS with it failed, by its doing.
    Tls,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Refused, Self::TimedOut, Self::Unreachable, Self::Reset, Self::Truncated, Self::Tls];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::Tls => "tls",
        }
    }
}

/// One server's numbers, which only ever grow while it has its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections begun to it, health probes not included.
    pub connections: u64,
    /// Bytes of clients that were given to it.
    pub bytes_to: u64,
    /// Bytes of it that were given to clients.
    pub bytes_from: u64,
    /// Connections that it failed, in the order of [`Fault::ALL`].
    pub faults: [u64; Fault::ALL.len()],
}

/// One lane's counts of one server.
#[derive(Debug, Default)]
struct Counts {
    connections: Counter,
    bytes_to: Counter,
    bytes_from: Counter,
    faults: [Counter; Fault::ALL.len()],
}

/// A lane's counts are made when it first connects to a server.
type Row = Box<[OnceLock<Box<CachePadded<Counts>>>]>;

/// The table: 16 bytes a lane and slot, and two cache lines for each server that a lane has ever connected to.
#[derive(Debug)]
pub(super) struct Table(Box<[Row]>);

impl Table {
    pub(super) fn new(lanes: usize, slots: usize) -> Self {
        Self((0..lanes).map(|_| (0..slots).map(|_| OnceLock::new()).collect()).collect())
    }

    /// A connection has begun. Makes the lane's counts of the server, once.
    pub(super) fn connected(&self, lane: LaneId, slot: Slot) {
        if let Some(place) = self.place(lane, slot) {
            place.get_or_init(Box::default).connections.increment();
        }
    }

    /// Bytes have gone both ways.
    pub(super) fn moved(&self, lane: LaneId, slot: Slot, to: u64, from: u64) {
        if let Some(counts) = self.place(lane, slot).and_then(OnceLock::get) {
            counts.bytes_to.add(to);
            counts.bytes_from.add(from);
        }
    }

    /// The server has failed a connection, or the attempt at one.
    pub(super) fn failed(&self, lane: LaneId, slot: Slot, fault: Fault) {
        let Some(place) = self.place(lane, slot) else { return };
        let counts = place.get_or_init(Box::default);
        let found = Fault::ALL.iter().zip(&counts.faults).find(|(one, _)| **one == fault);
        if let Some((_, counter)) = found {
            counter.increment();
        }
    }

    /// Nobody has the slot: what was counted there begins anew.
    pub(super) fn forget(&self, slot: Slot) {
        // Whoever counted last has let go of the pool since, which is how it is known that nobody has the slot.
        fence(Ordering::Acquire);
        for counts in self.counts(slot) {
            let singles = [&counts.connections, &counts.bytes_to, &counts.bytes_from];
            singles.into_iter().chain(&counts.faults).for_each(|counter| counter.set(0));
        }
    }

    /// The sums over all lanes. Costs a read a lane, of lines that lanes may be writing.
    pub(super) fn sum(&self, slot: Slot) -> Traffic {
        let mut sum = Traffic::default();
        for counts in self.counts(slot) {
            sum.connections = sum.connections.wrapping_add(counts.connections.value());
            sum.bytes_to = sum.bytes_to.wrapping_add(counts.bytes_to.value());
            sum.bytes_from = sum.bytes_from.wrapping_add(counts.bytes_from.value());
            for (sum, counter) in sum.faults.iter_mut().zip(&counts.faults) {
                *sum = sum.wrapping_add(counter.value());
            }
        }
        sum
    }

    fn counts(&self, slot: Slot) -> impl Iterator<Item = &Counts> {
        let slot = usize::try_from(slot.0).unwrap_or(usize::MAX);
        self.0.iter().filter_map(move |row| row.get(slot)?.get().map(|counts| &***counts))
    }

    fn place(&self, lane: LaneId, slot: Slot) -> Option<&OnceLock<Box<CachePadded<Counts>>>> {
        self.0.get(usize::from(lane.0))?.get(usize::try_from(slot.0).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lanes_count_adds_up_and_is_each_servers_own() {
        let table = Table::new(2, 3);
        table.moved(LaneId(0), Slot(1), 5, 5);
        assert_eq!(table.sum(Slot(1)), Traffic::default(), "nobody has connected to it");
        for lane in [0, 0, 1] {
            table.connected(LaneId(lane), Slot(1));
            table.moved(LaneId(lane), Slot(1), 10, 100);
        }
        table.failed(LaneId(1), Slot(1), Fault::Reset);
        table.failed(LaneId(1), Slot(2), Fault::Unreachable);
        let [mut first, mut second] = [[0; 6]; 2];
        (first[3], second[2]) = (1, 1);
        assert_eq!(table.sum(Slot(1)), Traffic { connections: 3, bytes_to: 30, bytes_from: 300, faults: first });
        assert_eq!(table.sum(Slot(2)), Traffic { faults: second, ..Traffic::default() });
        table.forget(Slot(2));
        assert_eq!(table.sum(Slot(2)), Traffic::default());
        table.connected(LaneId(2), Slot(1));
        table.failed(LaneId(0), Slot(u32::MAX), Fault::Tls);
        assert_eq!((table.sum(Slot(1)).connections, table.sum(Slot(u32::MAX))), (3, Traffic::default()));
    }
}
