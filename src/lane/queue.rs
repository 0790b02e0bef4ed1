//! Clients that wait for a place at their server, in the order in which they began to; and what connections have at servers, taken and given back.

use std::collections::{BTreeMap, HashSet};

use crate::balance::{Admission, Pool, Slot, State};
use crate::base::Instant;
use crate::health::MonitoredPool;
use crate::lane::Lane;
use crate::lane::work::{Claim, Connection};
use crate::nic::QueuePair;
use crate::relay::End;

/// Who waits on a lane. How many wait for one server, over all lanes, is bounded by the profile; how many servers they wait for, by the configuration.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By server, then by number; only servers that somebody waits for.
    waiting: BTreeMap<Slot, BTreeMap<u64, usize>>,
    numbered: u64,
    count: u64,
}

impl Queue {
    fn join(&mut self, slot: Slot, index: usize) -> u64 {
        self.numbered += 1;
        self.count += 1;
        self.waiting.entry(slot).or_default().insert(self.numbered, index);
        self.numbered
    }

    fn leave(&mut self, slot: Slot, number: u64) {
        let Some(waiting) = self.waiting.get_mut(&slot) else { return };
        if waiting.remove(&number).is_some() {
            self.count -= 1;
        }
        if waiting.is_empty() {
            self.waiting.remove(&slot);
        }
    }

    /// Who has waited longest for this server.
    fn first(&self, slot: Slot) -> Option<(u64, usize)> {
        self.waiting.get(&slot)?.first_key_value().map(|(number, index)| (*number, *index))
    }

    /// The next server after this one that somebody waits for.
    fn server_after(&self, slot: Option<Slot>) -> Option<Slot> {
        let after = slot.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.waiting.range((after, std::ops::Bound::Unbounded)).next().map(|(slot, _)| *slot)
    }
}

impl<Q: QueuePair, C> Lane<Q, C> {
    /// Notes what a connection got when it was decided where its client goes, if it was.
    pub(super) fn claim(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let Some(decision) = connection.relay.decision() else { return };
        let server = decision.server.and_then(|server| connection.pool().server(server));
        connection.claim = match server.map(|server| server.slot) {
            None => Claim::Gone,
            Some(slot) if decision.must_wait() => Claim::Waiting(slot, self.queue.join(slot, index)),
            Some(slot) => Claim::Place(slot),
        };
        self.counters.relay.waiting.set(self.queue.count);
    }

    /// Notes what a connection has come to say of its server, if it has.
    pub(super) fn note_outcome(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        if let Claim::Place(slot) = connection.claim
            && let Some(outcome) = connection.relay.take_outcome()
        {
            self.loads.note(slot, outcome);
        }
    }

    /// Gives back what a connection has at its server. Whoever waits for it, on any lane, gets it in that lane's next breath.
    pub(super) fn release(&mut self, index: usize) {
        self.note_outcome(index);
        let Some(connection) = self.connections.get_mut(index) else { return };
        match connection.claim {
            Claim::Place(slot) => self.loads.give_back(slot),
            Claim::Waiting(slot, number) => {
                self.queue.leave(slot, number);
                self.loads.leave(slot);
                self.counters.relay.waiting.set(self.queue.count);
            }
            Claim::Undecided | Claim::Gone => return,
        }
        connection.claim = Claim::Gone;
    }

    /// Gives places that have become free to those who wait for them here. Costs nothing without any, else a look at each server that somebody waits for.
    pub(super) fn admit_waiting(&mut self, now: Instant) -> bool {
        let mut any = false;
        let mut server = self.queue.server_after(None);
        while let Some(slot) = server {
            while let Some((number, index)) = self.queue.first(slot) {
                if !self.loads.admit(slot) {
                    break;
                }
                any = true;
                self.queue.leave(slot, number);
                self.counters.relay.admitted.increment();
                if let Some(connection) = self.connections.get_mut(index) {
                    connection.claim = Claim::Place(slot);
                    connection.relay.on_admitted(now);
                }
                self.wake(index);
            }
            server = self.queue.server_after(Some(slot));
        }
        if any {
            self.counters.relay.waiting.set(self.queue.count);
        }
        any
    }

    /// Refuses those who wait for a server that their mapping may not reach any more (P6): one that a reload removed, disabled or drains.
    pub(super) fn turn_away_waiting(&mut self, pools: &[MonitoredPool], now: Instant) {
        if self.queue.count == 0 {
            return;
        }
        let takes_persisted = |state| match state {
            State::Enabled => true,
            State::Draining(draining) => draining.admission == Admission::AllowPersisted,
            State::Disabled => false,
        };
        let servers = pools.iter().flat_map(|monitored| &monitored.pool.servers);
        let open: HashSet<Slot> =
            servers.filter(|server| takes_persisted(server.state)).map(|server| server.slot).collect();
        let closed = self.queue.waiting.iter().filter(|(slot, _)| !open.contains(slot));
        let turned_away: Vec<usize> = closed.flat_map(|(_, waiting)| waiting.values().copied()).collect();
        for index in turned_away {
            self.cut(index, End::Refused, now);
        }
    }

    /// Resets a connection, both legs.
    pub(super) fn cut(&mut self, index: usize, end: End, now: Instant) {
        if let Some(connection) = self.connections.get_mut(index) {
            let end = connection.relay.abandon(end, &mut self.station.stack, now);
            self.finish(index, end, now);
        }
    }
}

impl Connection {
    fn pool(&self) -> &Pool {
        self.backend.pool()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_who_waits_for_a_server_is_the_first_and_who_leaves_leaves_nothing_behind() {
        let mut queue = Queue::default();
        let [a, b, c] = [(Slot(7), 10), (Slot(7), 11), (Slot(3), 12)].map(|(slot, index)| queue.join(slot, index));
        assert_eq!(queue.first(Slot(7)), Some((a, 10)));
        queue.leave(Slot(7), a);
        queue.leave(Slot(7), a);
        assert_eq!((queue.first(Slot(7)), queue.count), (Some((b, 11)), 2));
        assert_eq!(queue.server_after(None), Some(Slot(3)));
        assert_eq!(queue.server_after(Some(Slot(3))), Some(Slot(7)));
        queue.leave(Slot(7), b);
        assert_eq!((queue.server_after(Some(Slot(3))), queue.first(Slot(7))), (None, None));
        queue.leave(Slot(3), c);
        assert!(queue.waiting.is_empty() && queue.count == 0);
    }
}
