//! Servers that are drained: when their time is up, and the resets of what is still open then. One that is disabled is one whose time is up at once.
//!
//! Until then a drain costs its lane nothing, and its connections know nothing of it. Then the lane looks at all its connections once, a few in each breath.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use crate::balance::{Slot, State};
use crate::base::{Duration, Instant};
use crate::health::MonitoredPool;
use crate::lane::Lane;
use crate::nic::QueuePair;
use crate::relay::End;

/// Most connections that a breath looks at: some 20 µs where none is in the cache, and at most as many resets.
const LOOKED_AT_MAX: usize = 128;

/// The drains that a lane knows of.
#[derive(Debug, Default)]
pub(super) struct Drains {
    /// When the lane learned of each. A reload that changes nothing does not begin it anew.
    began: HashMap<Slot, Instant>,
    /// When the time of each is up that has one.
    due: BTreeSet<(Instant, Slot)>,
    /// Those of them that are disabled.
    disabled: HashSet<Slot>,
    /// Connections from this one on, down to the first, are to be looked at.
    sweep: usize,
}

impl Drains {
    /// When something is to be done next; in the past while there is.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        let due = self.due.first().map(|(at, _)| *at);
        if self.sweep > 0 { Some(Instant::START) } else { due }
    }

    /// Takes over which servers are drained, and for how long.
    fn configure(&mut self, drained: &BTreeMap<Slot, Option<Duration>>, now: Instant) {
        let old = std::mem::take(&mut self.began);
        self.began = drained.keys().map(|slot| (*slot, old.get(slot).copied().unwrap_or(now))).collect();
        self.due =
            drained.iter().filter_map(|(slot, timeout)| Some((*self.began.get(slot)? + (*timeout)?, *slot))).collect();
    }

    /// The connections that this breath looks at.
    fn next_some(&mut self) -> Range<usize> {
        let end = self.sweep;
        self.sweep = end.saturating_sub(LOOKED_AT_MAX);
        self.sweep..end
    }

    /// The next server whose time is up.
    fn pop_due(&mut self, now: Instant) -> Option<Slot> {
        let (at, slot) = *self.due.first()?;
        (at <= now).then(|| {
            self.due.pop_first();
            slot
        })
    }
}

impl<Q: QueuePair, C> Lane<Q, C> {
    pub(super) fn begin_drains(&mut self, pools: &[MonitoredPool], now: Instant) {
        let mut drained = BTreeMap::new();
        self.drains.disabled.clear();
        for server in pools.iter().flat_map(|monitored| &monitored.pool.servers) {
            match server.state {
                State::Enabled => {}
                State::Draining(draining) => {
                    drained.insert(server.slot, draining.timeout);
                }
                State::Disabled => {
                    drained.insert(server.slot, Some(Duration::ZERO));
                    self.drains.disabled.insert(server.slot);
                }
            }
        }
        // A drain that was over may be called off, or last longer now. Those that are over all the same are found so within this breath.
        for slot in self.drains.began.keys() {
            self.loads.set_drained(*slot, false);
        }
        self.drains.configure(&drained, now);
    }

    /// Ends the drains whose time is up, and looks at a few connections for what is still open to their servers. Whether there was anything to do.
    pub(super) fn drain_servers(&mut self, now: Instant) -> bool {
        while let Some(slot) = self.drains.pop_due(now) {
            self.loads.set_drained(slot, true);
            // What comes later finds the server drained.
            self.drains.sweep = self.connections.capacity();
        }
        let some = self.drains.next_some();
        let any = !some.is_empty();
        for index in some {
            let server = self.connections.get(index).and_then(|connection| connection.claim.slot());
            if let Some(slot) = server.filter(|slot| self.loads.is_drained(*slot)) {
                let is_disabled = self.drains.disabled.contains(&slot);
                self.cut(index, if is_disabled { End::ServerDisabled } else { End::ServerDrained }, now);
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    #[test]
    fn p5_a_drain_counts_from_when_it_began_whatever_is_reloaded() {
        let mut drains = Drains::default();
        drains.configure(&[(Slot(1), Some(MINUTE)), (Slot(2), None)].into(), at(10));
        assert_eq!(drains.poll_at(), Some(at(70)));
        drains.configure(&[(Slot(1), Some(MINUTE)), (Slot(2), Some(2 * MINUTE))].into(), at(30));
        assert_eq!((drains.poll_at(), drains.pop_due(at(69))), (Some(at(70)), None));
        assert_eq!(drains.pop_due(at(70)), Some(Slot(1)));
        assert_eq!((drains.pop_due(at(70)), drains.poll_at()), (None, Some(at(130))));
        drains.configure(&[(Slot(2), Some(MINUTE))].into(), at(80));
        assert_eq!(drains.pop_due(at(80)), Some(Slot(2)), "a timeout that was made shorter");
        drains.configure(&BTreeMap::new(), at(90));
        drains.configure(&[(Slot(2), Some(MINUTE))].into(), at(100));
        assert_eq!(drains.poll_at(), Some(at(160)), "a drain that was called off begins anew");
    }

    #[test]
    fn p5_a_breath_looks_at_a_bounded_number_of_connections_and_all_are_looked_at_once() {
        let mut drains = Drains { sweep: 3 * LOOKED_AT_MAX + 7, ..Drains::default() };
        assert_eq!(drains.poll_at(), Some(Instant::START), "at once");
        let mut seen: Vec<usize> = Vec::new();
        while drains.poll_at().is_some() {
            let some = drains.next_some();
            assert!((1..=LOOKED_AT_MAX).contains(&some.len()));
            seen.extend(some);
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..3 * LOOKED_AT_MAX + 7));
        assert!(drains.next_some().is_empty());
    }

    #[test]
    fn p5_a_timeout_of_zero_is_up_at_once_and_none_never() {
        let mut drains = Drains::default();
        drains.configure(&[(Slot(1), Some(Duration::ZERO)), (Slot(2), None)].into(), at(10));
        assert_eq!(drains.pop_due(at(10)), Some(Slot(1)));
        assert_eq!(drains.poll_at(), None);
    }
}
