//! Connections open to each server: every lane writes its own row and reads all of them. A server with a limit has a count that lanes share beside.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::OnceLock;

use crossbeam::utils::CachePadded;

use crate::balance::evidence::{self, Evidence, Outcome};
use crate::balance::traffic::{self, Fault, Traffic};
use crate::balance::{Pool, Slot};
use crate::base::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::base::{Counter, LaneId};

/// Counters that fill a cache line and the one that is fetched with it.
const BLOCK: usize = 16;

/// One lane's counters. Whole blocks of cache lines, so that no two lanes write to the same one.
type Row = Box<[CachePadded<[Counter; BLOCK]>]>;

/// The table: 8 bytes, 32 of evidence and 16 of traffic a lane and slot, 16 a slot, two cache lines for each server that has ever had a limit, and two a lane for each
/// that it has connected to.
#[derive(Debug)]
pub struct Loads {
    rows: Box<[Row]>,
    evidence: evidence::Table,
    traffic: traffic::Table,
    limits: Box<[OnceLock<Box<CachePadded<Limit>>>]>,
}

/// The places at one server with a limit. Both counts are one word, so that each step is one compare-and-swap: no lane ever sees a place twice, and nobody
/// overtakes a client that waits.
#[derive(Debug)]
struct Limit {
    /// How many places there are; [`UNLIMITED`] once a reload has lifted the limit.
    max: AtomicU32,
    /// Clients that wait for a place, in the upper half, and places that are taken.
    counts: AtomicU64,
}

const UNLIMITED: u32 = u32::MAX;
const ONE_WAITING: u64 = 1 << 32;

/// Both counts of a [`Limit`], apart.
fn apart(counts: u64) -> (u32, u32) {
    let low = |half: u64| u32::try_from(half & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (low(counts >> 32), low(counts))
}

impl Limit {
    fn new() -> Self {
        Self { max: AtomicU32::new(UNLIMITED), counts: AtomicU64::new(0) }
    }

    fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    fn counts(&self) -> (u32, u32) {
        apart(self.counts.load(Ordering::Relaxed))
    }

    /// Takes one step from the counts as they are, waiting first, unless `step` gives none.
    fn step(&self, step: impl Fn(u32, u32, u64) -> Option<u64>) -> bool {
        let update = |counts| {
            let (waiting, taken) = apart(counts);
            step(waiting, taken, counts)
        };
        self.counts.fetch_update(Ordering::AcqRel, Ordering::Acquire, update).is_ok()
    }

    /// Takes a place, if there is one and nobody waits for it.
    fn take(&self) -> bool {
        let max = self.max();
        self.step(|waiting, taken, counts| (waiting == 0 && taken < max).then(|| counts + 1))
    }

    /// Gives the place of one who waits.
    fn admit(&self) -> bool {
        let max = self.max();
        self.step(|waiting, taken, counts| (waiting > 0 && taken < max).then(|| counts - ONE_WAITING + 1))
    }

    fn give_back(&self, places: u32) {
        self.step(|_, taken, counts| Some(counts - u64::from(taken.min(places))));
    }
}

impl Loads {
    /// A table of zeros.
    pub fn new(lanes: usize, slots: usize) -> Self {
        let row = || (0..slots.div_ceil(BLOCK)).map(|_| CachePadded::default()).collect();
        Self {
            rows: (0..lanes).map(|_| row()).collect(),
            evidence: evidence::Table::new(lanes, slots),
            traffic: traffic::Table::new(lanes, slots),
            limits: (0..slots).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Sets the limit of the server at `slot`, or lifts it. Control's; lanes follow at once where they know of a limit already, else with their next configuration.
    pub fn set_limit(&self, slot: Slot, max: Option<u32>) {
        let Some(limit) = index(slot).and_then(|slot| self.limits.get(slot)) else { return };
        match max {
            Some(max) => {
                limit.get_or_init(|| Box::new(CachePadded::new(Limit::new()))).max.store(max, Ordering::Relaxed)
            }
            None => {
                if let Some(limit) = limit.get() {
                    limit.max.store(UNLIMITED, Ordering::Relaxed);
                }
            }
        }
    }

    /// The limit of the server at `slot`, if it has one.
    pub fn limit(&self, slot: Slot) -> Option<u32> {
        self.limit_at(slot).map(Limit::max).filter(|max| *max != UNLIMITED)
    }

    /// Clients that wait for a place at the server at `slot`, over all lanes.
    pub fn waiting(&self, slot: Slot) -> u32 {
        self.limit_at(slot).map_or(0, |limit| limit.counts().0)
    }

    /// Connections open to the server at `slot`, over all lanes. Costs a read a lane, of a line that the lane may be writing.
    pub fn total(&self, slot: Slot) -> u64 {
        self.rows.iter().filter_map(|row| cell(row, slot)).fold(0, |sum, counter| sum.saturating_add(counter.value()))
    }

    /// How many lanes have a row.
    pub fn lanes(&self) -> usize {
        self.rows.len()
    }

    /// How live connections to the server at `slot` fared, over all lanes. Costs a read a lane.
    pub fn evidence(&self, slot: Slot) -> Evidence {
        self.evidence.sum(slot)
    }

    /// What went to the server at `slot` and came from it, over all lanes. Costs a read a lane.
    pub fn traffic(&self, slot: Slot) -> Traffic {
        self.traffic.sum(slot)
    }

    /// Forgets the traffic of the server that had `slot`, so that the next one's begins anew. Control's, while no lane knows of the slot.
    pub fn forget(&self, slot: Slot) {
        self.traffic.forget(slot);
    }

    fn counter(&self, lane: LaneId, slot: Slot) -> Option<&Counter> {
        cell(self.rows.get(usize::from(lane.0))?, slot)
    }

    fn limit_at(&self, slot: Slot) -> Option<&Limit> {
        self.limits.get(index(slot)?)?.get().map(|limit| &***limit)
    }
}

fn index(slot: Slot) -> Option<usize> {
    usize::try_from(slot.0).ok()
}

fn cell(row: &Row, slot: Slot) -> Option<&Counter> {
    let slot = index(slot)?;
    row.get(slot / BLOCK)?.get(slot % BLOCK)
}

/// One lane's hand on the table: the only one that writes its row.
///
/// A connection to a server has a *place* from the decision for that server to the end of the server's leg. Where the configuration of the lane names a limit, the
/// place is counted among all lanes, too; a lane that learns of a limit adds those of its connections that are open already.
#[derive(Debug)]
pub struct LaneLoads {
    loads: Arc<Loads>,
    lane: LaneId,
    limited: Marks,
    /// Servers whose drain is over.
    drained: Marks,
}

impl LaneLoads {
    /// The hand of `lane`.
    pub fn new(loads: Arc<Loads>, lane: LaneId) -> Self {
        let slots = loads.limits.len();
        Self { loads, lane, limited: Marks::new(slots), drained: Marks::new(slots) }
    }

    /// Takes over which servers have a limit. Costs a pass over all slots.
    pub fn configure<'a>(&self, pools: impl Iterator<Item = &'a Pool>) {
        let mut limited = vec![false; self.loads.limits.len()];
        for server in pools.flat_map(|pool| &pool.servers) {
            if let Some(is_limited) = index(server.slot).and_then(|slot| limited.get_mut(slot)) {
                *is_limited = server.max_connections.is_some();
            }
        }
        for (slot, is_limited) in (0..).map(Slot).zip(limited) {
            let was_limited = self.limited.has(slot);
            if is_limited == was_limited {
                continue;
            }
            let Some(limit) = self.loads.limit_at(slot) else { continue };
            let own = self.own(slot);
            if is_limited {
                limit.step(|_, _, counts| Some(counts + u64::from(own)));
            } else {
                limit.give_back(own);
            }
            self.limited.set(slot, is_limited);
        }
    }

    /// Takes a place at the server at `slot`; whether there was one.
    pub fn take(&self, slot: Slot) -> bool {
        let has_place = self.limit(slot).is_none_or(Limit::take);
        if has_place {
            self.open(slot);
        }
        has_place
    }

    /// Gives a place back. Outside the table, or without an open one, it counts nothing.
    pub fn give_back(&self, slot: Slot) {
        let Some(counter) = self.loads.counter(self.lane, slot).filter(|counter| counter.value() > 0) else { return };
        counter.set(counter.value() - 1);
        if let Some(limit) = self.limit(slot) {
            limit.give_back(1);
        }
    }

    /// Joins those who wait for a place at the server at `slot`, unless `most` do so already.
    pub fn wait(&self, slot: Slot, most: u32) -> bool {
        self.limit(slot)
            .is_some_and(|limit| limit.step(|waiting, _, counts| (waiting < most).then(|| counts + ONE_WAITING)))
    }

    /// One who waits has gone.
    pub fn leave(&self, slot: Slot) {
        if let Some(limit) = self.loads.limit_at(slot) {
            limit.step(|waiting, _, counts| (waiting > 0).then(|| counts - ONE_WAITING));
        }
    }

    /// One who waits gets the place that has become free, if one has.
    pub fn admit(&self, slot: Slot) -> bool {
        let has_place = match self.limit(slot) {
            Some(limit) => limit.admit(),
            // The limit was lifted meanwhile.
            None => {
                self.leave(slot);
                true
            }
        };
        if has_place {
            self.open(slot);
        }
        has_place
    }

    /// Notes what a connection says of the server at `slot`.
    pub fn note(&self, slot: Slot, outcome: Outcome) {
        self.loads.evidence.note(self.lane, slot, outcome);
    }

    /// A connection to the server at `slot` has begun.
    pub fn connected(&self, slot: Slot) {
        self.loads.traffic.connected(self.lane, slot);
    }

    /// So many bytes have gone to the server at `slot` and have come from it.
    pub fn moved(&self, slot: Slot, to: u64, from: u64) {
        self.loads.traffic.moved(self.lane, slot, to, from);
    }

    /// The server at `slot` has failed a connection.
    pub fn failed(&self, slot: Slot, fault: Fault) {
        self.loads.traffic.failed(self.lane, slot, fault);
    }

    /// Whether the server at `slot` has no place for a client that does not wait.
    pub fn is_full(&self, slot: Slot) -> bool {
        self.limit(slot).is_some_and(|limit| {
            let (waiting, taken) = limit.counts();
            waiting > 0 || taken >= limit.max()
        })
    }

    /// Notes whether the drain of the server at `slot` is over.
    pub fn set_drained(&self, slot: Slot, is_drained: bool) {
        self.drained.set(slot, is_drained);
    }

    /// Whether it is.
    pub fn is_drained(&self, slot: Slot) -> bool {
        self.drained.has(slot)
    }

    /// Connections of all lanes to the server at `slot`.
    pub fn total(&self, slot: Slot) -> u64 {
        self.loads.total(slot)
    }

    /// Which lane's hand this is.
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    fn own(&self, slot: Slot) -> u32 {
        self.loads.counter(self.lane, slot).map_or(0, |counter| u32::try_from(counter.value()).unwrap_or(u32::MAX))
    }

    fn open(&self, slot: Slot) {
        if let Some(counter) = self.loads.counter(self.lane, slot) {
            counter.increment();
        }
    }

    /// The shared count, where this lane counts by it. Without a limit nothing that is shared is looked at.
    fn limit(&self, slot: Slot) -> Option<&Limit> {
        if self.limited.has(slot) { self.loads.limit_at(slot) } else { None }
    }
}

/// One bit a slot.
#[derive(Debug)]
struct Marks(Box<[Cell<u64>]>);

impl Marks {
    fn new(slots: usize) -> Self {
        Self((0..slots.div_ceil(64)).map(|_| Cell::new(0)).collect())
    }

    fn place(&self, slot: Slot) -> Option<(&Cell<u64>, u64)> {
        Some((self.0.get(index(slot)? / 64)?, 1 << (slot.0 % 64)))
    }

    fn has(&self, slot: Slot) -> bool {
        self.place(slot).is_some_and(|(word, bit)| word.get() & bit != 0)
    }

    fn set(&self, slot: Slot, value: bool) {
        if let Some((word, bit)) = self.place(slot) {
            word.set(if value { word.get() | bit } else { word.get() & !bit });
        }
    }
}

#[cfg(test)]
mod tests;
