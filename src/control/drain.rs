//! The end of an engine: it goes on taking connections while its neighbours learn of it, then takes no more, and waits for those that are open.
//!
//! ```text
//!         asked to stop             drain_delay is over             none is open, or drain_timeout is over
//! Serving ─────────────▶ Announced ────────────────────▶ Closed ─────────────────────────────────────────▶ stopped
//!                            └────────────────asked again─┴──────────────────────────────────────────────────▲
//! ```

use crate::base::{Duration, Instant};

/// A drain lasts so long at least, so that a lane's gauge is not read before the lane has heard of the drain.
const DRAIN_MIN: Duration = Duration::from_millis(200);

/// A drain under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    closes_at: Instant,
    /// Lanes have been told to take no more connections.
    closed: Option<Instant>,
    at_once: bool,
}

impl Drain {
    /// The engine is asked to stop, and takes connections for `delay` more.
    pub(super) fn new(now: Instant, delay: Duration) -> Self {
        Self { closes_at: now + delay, closed: None, at_once: false }
    }

    /// It is asked again.
    pub(super) fn hurry(&mut self) {
        self.at_once = true;
    }

    /// Whether lanes are to be told now. Said once.
    pub(super) fn closes(&mut self, now: Instant) -> bool {
        let closes = self.closed.is_none() && now >= self.closes_at;
        if closes {
            self.closed = Some(now);
        }
        closes
    }

    /// Whether lanes may be stopped, of which so many connections are open.
    pub(super) fn is_over(&self, open: u64, timeout: Duration, now: Instant) -> bool {
        let lasted = self.closed.map(|closed| now.since(closed));
        self.at_once || lasted.is_some_and(|lasted| lasted >= timeout || (lasted >= DRAIN_MIN && open == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn at(milliseconds: u64) -> Instant {
        Instant::START + Duration::from_millis(milliseconds)
    }

    #[test]
    fn connections_are_taken_until_the_delay_is_over_and_waited_for_from_then_on() {
        let mut drain = Drain::new(at(0), Duration::from_secs(5));
        assert!(!drain.closes(at(4999)));
        assert!(!drain.is_over(0, TIMEOUT, at(60_000)), "lanes do not know yet");
        assert!(drain.closes(at(5000)));
        assert!(!drain.closes(at(5001)), "once");
        assert!(!drain.is_over(0, TIMEOUT, at(5199)), "lanes may not have heard");
        assert!(drain.is_over(0, TIMEOUT, at(5200)));
        assert!(!drain.is_over(1, TIMEOUT, at(34_999)));
        assert!(drain.is_over(1, TIMEOUT, at(35_000)));
    }

    #[test]
    fn whoever_asks_twice_waits_for_nothing() {
        let mut drain = Drain::new(at(0), TIMEOUT);
        drain.hurry();
        assert!(drain.is_over(9, TIMEOUT, at(0)));
    }
}
