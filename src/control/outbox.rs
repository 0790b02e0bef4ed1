//! Orders on their way to one lane. A newer configuration or ring replaces one that still waits, so that an outbox never grows.

use std::sync::Arc;

use crate::lane::capture::Tap;
use crate::lane::{Inbox, Order, Snapshot};
use crate::ticket::Ring;

/// What a lane has not been told yet: one configuration, one ring, as many captures as there may be and the word to drain at most.
#[derive(Debug, Default)]
pub struct Outbox {
    ring: Option<Arc<Ring>>,
    configuration: Option<Box<Snapshot>>,
    captures: Vec<Arc<Tap>>,
    drain: bool,
}

impl Outbox {
    /// A configuration for the lane.
    pub fn configure(&mut self, snapshot: Snapshot) {
        self.configuration = Some(Box::new(snapshot));
    }

    /// A key ring for the lane.
    pub fn ring(&mut self, ring: Arc<Ring>) {
        self.ring = Some(ring);
    }

    /// A capture for the lane. Control has so many at most.
    pub fn capture(&mut self, tap: Arc<Tap>) {
        self.captures.push(tap);
    }

    /// No more connections for the lane.
    pub fn drain(&mut self) {
        self.drain = true;
    }

    /// Puts into `inbox` what it has room for, keys first. Gives whether everything went.
    pub fn flush(&mut self, inbox: &Inbox) -> bool {
        if let Some(ring) = self.ring.take()
            && let Err(Order::Ring(ring)) = inbox.push(Order::Ring(ring))
        {
            self.ring = Some(ring);
            return false;
        }
        if let Some(configuration) = self.configuration.take()
            && let Err(Order::Configure(configuration)) = inbox.push(Order::Configure(configuration))
        {
            self.configuration = Some(configuration);
            return false;
        }
        while let Some(tap) = self.captures.pop() {
            if let Err(Order::Capture(tap)) = inbox.push(Order::Capture(tap)) {
                self.captures.push(tap);
                return false;
            }
        }
        if self.drain {
            self.drain = inbox.push(Order::Drain).is_err();
        }
        !self.drain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Random, UnixTime};
    use crate::lane::inbox::{ORDERS_MAX, inbox};

    fn snapshot(version: u64) -> Snapshot {
        Snapshot { version, ports: Vec::new(), services: Vec::new(), pools: Vec::new(), targets: Vec::new() }
    }

    #[test]
    fn keys_go_before_the_configuration_and_the_drain_goes_last() {
        let (mut outbox, inbox) = (Outbox::default(), inbox());
        outbox.drain();
        outbox.configure(snapshot(1));
        outbox.ring(Arc::new(Ring::generate(UnixTime(0), &mut Random::from_seed(1))));
        assert!(outbox.flush(&inbox));
        assert!(matches!(inbox.pop(), Some(Order::Ring(_))));
        assert!(matches!(inbox.pop(), Some(Order::Configure(_))));
        assert!(matches!(inbox.pop(), Some(Order::Drain)));
        assert!(outbox.flush(&inbox) && inbox.pop().is_none());
    }

    #[test]
    fn a_full_inbox_gets_the_newest_configuration_once_there_is_room() {
        let (mut outbox, inbox) = (Outbox::default(), inbox());
        while inbox.push(Order::Drain).is_ok() {}
        assert_eq!(inbox.len(), ORDERS_MAX);
        for version in [1, 2] {
            outbox.configure(snapshot(version));
            assert!(!outbox.flush(&inbox));
        }
        while inbox.pop().is_some() {}
        assert!(outbox.flush(&inbox));
        assert!(matches!(inbox.pop(), Some(Order::Configure(snapshot)) if snapshot.version == 2));
        assert!(inbox.pop().is_none());
    }
}
