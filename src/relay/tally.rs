//! What a lane counts of one virtual service, in a row of its own: control makes one a lane and service, and reads all of them.

use std::array;

use crate::base::Counter;
use crate::relay::End;

crate::counters! {
    /// Numbers of one virtual service on one lane.
    pub struct Counters {
        /// Connections accepted from clients
        counter connections,
        /// Connections that are open
        gauge open,
        /// Full TLS handshakes
        counter handshakes_full,
        /// Resumed TLS handshakes
        counter handshakes_resumed,
        /// Bytes of application data from clients, counted in steps of 64 KiB and at a connection's end
        counter bytes_received,
        /// Bytes of application data to clients, counted so, too
        counter bytes_sent,
    }
}

/// What a lane counts of one virtual service.
#[derive(Debug, Default)]
pub struct Tally {
    /// Single numbers.
    pub counters: Counters,
    /// How connections ended.
    pub ended: Ends,
    /// How those ended whose TLS handshake never did.
    pub failed: Ends,
}

impl Tally {
    /// Counts a TLS handshake that has ended well.
    pub fn on_handshake(&self, resumed: bool) {
        let counters = &self.counters;
        let handshakes = if resumed { &counters.handshakes_resumed } else { &counters.handshakes_full };
        handshakes.increment();
    }
}

/// A counter for each way in which a connection may end.
#[derive(Debug)]
pub struct Ends([Counter; End::ALL.len()]);

impl Default for Ends {
    fn default() -> Self {
        Self(array::from_fn(|_| Counter::default()))
    }
}

impl Ends {
    /// Counts an end. Only the owning lane may call this.
    pub fn count(&self, end: End) {
        if let Some(counter) = End::ALL.iter().position(|one| *one == end).and_then(|place| self.0.get(place)) {
            counter.increment();
        }
    }

    /// Every end with its count, as any thread sees it.
    pub fn read(&self) -> impl Iterator<Item = (End, u64)> + '_ {
        End::ALL.into_iter().zip(self.0.iter().map(Counter::value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_counter_of_its_own() {
        let ends = Ends::default();
        for (times, end) in (1..).zip(End::ALL) {
            for _ in 0..times {
                ends.count(end);
            }
        }
        assert!(ends.read().map(|(_, count)| count).eq(1..=u64::try_from(End::ALL.len()).unwrap()));
    }
}
