//! Control's clocks: the only place in control where time is read.

use std::sync::LazyLock;

use crate::base::{Instant, UnixTime};

static STARTED: LazyLock<std::time::Instant> = LazyLock::new(read);

#[expect(clippy::disallowed_methods, reason = "control reads the clock; what it drives takes time as an argument")]
fn read() -> std::time::Instant {
    std::time::Instant::now()
}

/// Time since control first asked.
pub fn now() -> Instant {
    let nanos = read().saturating_duration_since(*STARTED).as_nanos();
    Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "control reads the clock; what it drives takes time as an argument")]
pub fn unix_time() -> UnixTime {
    let now = std::time::SystemTime::now();
    UnixTime(now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
