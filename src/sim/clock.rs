//! The one clock of a simulated world.

use std::cell::Cell;
use std::rc::Rc;

use crate::base::{Duration, Instant, UnixTime};
use crate::lane;

/// Wall time at the start of every world: 2030-01-01.
const EPOCH: UnixTime = UnixTime(1_893_456_000);

/// A clock that all parts of a world share and only the world turns.
#[derive(Clone, Debug, Default)]
pub struct Clock(Rc<Cell<Instant>>);

impl Clock {
    /// Monotonic time.
    pub fn now(&self) -> Instant {
        self.0.get()
    }

    /// Wall time.
    pub fn unix(&self) -> UnixTime {
        EPOCH + (self.now() - Instant::START)
    }

    /// Turns the clock forward to `now`.
    pub fn turn(&self, now: Instant) {
        self.0.set(self.0.get().max(now));
    }
}

impl lane::Clock for Clock {
    fn read(&mut self) -> (Instant, UnixTime) {
        (self.now(), self.unix())
    }

    /// Nothing: the world jumps to the next event by itself.
    fn sleep(&mut self, _: Duration) {}
}
