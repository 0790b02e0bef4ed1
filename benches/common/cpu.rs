//! CPU time of this thread: wall time means nothing on a shared machine.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of CPU that this thread has used.
pub(crate) fn cpu() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the clock exists");
    u64::try_from(now.tv_sec() * 1_000_000_000 + now.tv_nsec()).expect("time is positive")
}
