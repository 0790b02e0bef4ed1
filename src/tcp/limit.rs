//! A rate limit: a bucket that holds one second's worth of tokens.

use crate::base::Instant;

const SECOND: u64 = 1_000_000_000;

/// Lets at most `rate` things a second happen.
#[derive(Debug)]
pub(super) struct Limit {
    rate: u64,
    /// In billionths of a token.
    filled: u64,
    at: Instant,
}

impl Limit {
    pub(super) fn new(rate: u32) -> Self {
        Self { rate: rate.into(), filled: u64::from(rate) * SECOND, at: Instant::START }
    }

    /// Whether one more may happen now.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let passed = u64::try_from(now.since(self.at).as_nanos()).unwrap_or(u64::MAX);
        self.filled = self.filled.saturating_add(passed.saturating_mul(self.rate)).min(self.rate * SECOND);
        self.at = now;
        let allowed = self.filled >= SECOND;
        if allowed {
            self.filled -= SECOND;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Duration;

    #[test]
    fn a_second_holds_no_more_than_its_rate() {
        let mut limit = Limit::new(3);
        let now = Instant::START + Duration::from_secs(9);
        assert_eq!((0..5).filter(|_| limit.allows(now)).count(), 3);
        assert!(limit.allows(now + Duration::from_millis(334)));
        assert!(!limit.allows(now + Duration::from_millis(600)));
    }
}
