//! A token bucket: at most so many a second, and no more than so many at once.

use crate::base::Instant;

const SECOND: u64 = 1_000_000_000;

/// Allows `rate` takes a second on average, and `burst` after a pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// Nanoseconds that one take costs.
    cost: u64,
    /// Most nanoseconds saved up.
    full: u64,
    saved: u64,
    at: Instant,
}

impl Bucket {
    /// A full bucket. Neither number may be zero.
    pub(super) const fn new(rate: u32, burst: u32) -> Self {
        let cost = SECOND / rate as u64;
        let full = cost * burst as u64;
        Self { cost, full, saved: full, at: Instant::START }
    }

    /// Takes one if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let earned = now.as_nanos().saturating_sub(self.at.as_nanos());
        self.saved = self.saved.saturating_add(earned).min(self.full);
        self.at = self.at.max(now);
        match self.saved.checked_sub(self.cost) {
            Some(rest) => {
                self.saved = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Duration;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = Bucket::new(10, 3);
        let start = Instant::from_nanos(5 * SECOND);
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, start), 3);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(99)), 0);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(100)), 1);
        assert_eq!(taken(&mut bucket, start), 0, "a clock that goes back earns nothing");
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(3600)), 3, "no more than a burst is saved up");
    }
}
