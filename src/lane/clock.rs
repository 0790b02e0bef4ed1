//! A lane's clock: the only place in a lane that reads time, once a breath, and the only one that sleeps.

use crate::base::{Duration, Instant, UnixTime};

/// Where a lane's time comes from.
pub trait Clock {
    /// Monotonic and wall time, read together.
    fn read(&mut self) -> (Instant, UnixTime);

    /// Lets the core rest for at most `rest`.
    fn sleep(&mut self, rest: Duration);
}

/// The machine's clocks. All lanes of an engine share one start.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the lane clock")]
    pub fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the lane clock")]
    fn read(&mut self) -> (Instant, UnixTime) {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        (Instant::START + self.start.elapsed(), UnixTime(since_epoch.as_secs()))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the lane clock")]
    fn sleep(&mut self, rest: Duration) {
        std::thread::sleep(rest);
    }
}
