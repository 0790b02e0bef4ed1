//! A clock that notices when it has jumped: the machine did something else meanwhile.

use serde::Serialize;

use crate::base::{Duration, Instant};
use crate::lane::Clock;

/// Longer than what the loop does between two looks at the clock, which is a step of a handshake or a full queue read. A long turn of bulk may look like a gap.
const GAP: Duration = Duration::from_micros(500);

/// Times between two looks at the clock that were longer than 500 µs, though there was nothing so long to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Gaps {
    /// How many.
    pub count: u64,
    /// How long they were together, in milliseconds.
    pub milliseconds: f64,
}

/// A clock, and what it has lost.
#[derive(Debug)]
pub(super) struct Watch<C> {
    clock: C,
    looked: Instant,
    count: u64,
    lost: Duration,
}

impl<C: Clock> Watch<C> {
    pub(super) fn new(mut clock: C) -> Self {
        let (now, _) = clock.read();
        Self { clock, looked: now, count: 0, lost: Duration::ZERO }
    }

    /// Reads the time in the midst of work.
    pub(super) fn look(&mut self) -> Instant {
        let (now, _) = self.clock.read();
        let passed = now - self.looked;
        if passed > GAP {
            self.count += 1;
            self.lost += passed;
        }
        self.looked = now;
        now
    }

    /// Goes on after a rest, which is no gap.
    pub(super) fn wake(&mut self) {
        (self.looked, _) = self.clock.read();
    }

    /// Forgets the gaps that there were.
    pub(super) fn forget(&mut self) {
        (self.count, self.lost) = (0, Duration::ZERO);
    }

    /// The gaps since then.
    pub(super) fn gaps(&self) -> Gaps {
        Gaps { count: self.count, milliseconds: self.lost.as_secs_f64() * 1e3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim;

    #[test]
    fn a_jump_of_the_clock_is_a_gap_and_a_rest_is_none() {
        let clock = sim::clock::Clock::default();
        let pass = |micros| clock.turn(clock.now() + Duration::from_micros(micros));
        let mut watch = Watch::new(clock.clone());
        pass(500);
        watch.look();
        assert_eq!(watch.gaps(), Gaps::default());
        pass(501);
        watch.look();
        pass(9_499);
        watch.look();
        assert_eq!(watch.gaps(), Gaps { count: 2, milliseconds: 10.0 });
        pass(10_000);
        watch.wake();
        watch.look();
        assert_eq!(watch.gaps().count, 2);
        watch.forget();
        assert_eq!(watch.gaps(), Gaps::default());
    }
}
