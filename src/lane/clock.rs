//! A lane's clock: the only place in a lane that reads time, once a breath, and the only one that sleeps.

use crate::base::{Duration, Instant, UnixTime};

/// Where a lane's time comes from.
pub trait Clock {
    /// Monotonic and wall time, read together.
    fn read(&mut self) -> (Instant, UnixTime);

    /// Lets the core rest for at most `rest`.
    fn sleep(&mut self, rest: Duration);
}

/// How long a reading of the wall clock is used: tickets count in seconds.
const WALL_CLOCK_KEPT: Duration = Duration::from_millis(100);

/// The machine's clocks. All lanes of an engine share one start.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: std::time::Instant,
    epoch: u64,
    wall: UnixTime,
    wall_read: Option<Instant>,
}

impl SystemClock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the lane clock")]
    pub fn start() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let epoch = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        Self { start: std::time::Instant::now(), epoch, wall: UnixTime(0), wall_read: None }
    }

    /// When it started, in nanoseconds since 1970. The monotonic clock does not follow a wall clock that is set later.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the lane clock")]
    fn read(&mut self) -> (Instant, UnixTime) {
        let now = Instant::START + self.start.elapsed();
        if self.wall_read.is_none_or(|read| now - read >= WALL_CLOCK_KEPT) {
            let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            self.wall = UnixTime(since_epoch.as_secs());
            self.wall_read = Some(now);
        }
        (now, self.wall)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the lane clock")]
    fn sleep(&mut self, rest: Duration) {
        std::thread::sleep(rest);
    }
}
