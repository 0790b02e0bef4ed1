//! The machine's clock, which can be set ahead: what is forgotten after a minute need not be waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealane::base::{Duration, Instant, UnixTime};
use sealane::lane::{Clock, SystemClock};

#[derive(Clone)]
pub(crate) struct Ahead {
    clock: SystemClock,
    seconds: Arc<AtomicU64>,
}

impl Ahead {
    pub(crate) fn start() -> Self {
        Self { clock: SystemClock::start(), seconds: Arc::default() }
    }

    /// Sets this clock and all its clones ahead.
    pub(crate) fn skip(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(crate) fn now(&mut self) -> Instant {
        self.read().0
    }
}

impl Clock for Ahead {
    fn read(&mut self) -> (Instant, UnixTime) {
        let (now, unix) = self.clock.read();
        let ahead = Duration::from_secs(self.seconds.load(Ordering::Relaxed));
        (now + ahead, unix + ahead)
    }

    fn sleep(&mut self, rest: Duration) {
        self.clock.sleep(rest);
    }
}
