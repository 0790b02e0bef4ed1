//! A token bucket: at most so many a second, and no more than so many at once.

use crate::base::time::Instant;

const SECOND: u64 = 1_000_000_000;

/// Allows `rate` takes a second on average, and `burst` after a pause.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Nanoseconds that one take costs.
    cost: u64,
    /// Most nanoseconds saved up.
    full: u64,
    saved: u64,
    at: Instant,
}

impl Bucket {
    /// A full bucket. A rate of zero allows nothing.
    pub const fn new(rate: u32, burst: u32) -> Self {
        let (cost, full) = match SECOND.checked_div(rate as u64) {
            Some(cost) => (cost, cost * burst as u64),
            None => (1, 0),
        };
        Self { cost, full, saved: full, at: Instant::START }
    }

    /// Takes one if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.full == 0 {
            return false;
        }
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
    fn a_rate_of_zero_allows_nothing() {
        let mut bucket = Bucket::new(0, 1);
        assert!(!bucket.take(Instant::START));
        assert!(!bucket.take(Instant::from_nanos(3600 * SECOND)));
    }

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
