//! How a seed decides.

use crate::base::{Duration, Random};

/// A random generator with the questions that a plan asks.
#[derive(Debug)]
pub(super) struct Dice(Random);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Random::from_seed(seed))
    }

    /// Dice whose throws do not depend on how often these here are thrown from now on.
    pub(super) fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }

    pub(super) fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// True once in `count` times.
    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.0.below(count) == 0
    }

    /// True in so many of a thousand cases.
    pub(super) fn permille(&mut self, share: u64) -> bool {
        // Where it never happens nothing is thrown.
        share > 0 && self.0.below(1000) < share
    }

    /// From `least` to `most`, both included.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.0.below(most - least + 1)
    }

    /// The same of sizes.
    pub(super) fn size(&mut self, least: usize, most: usize) -> usize {
        usize::try_from(self.between(least as u64, most as u64)).unwrap_or(most)
    }

    /// Small ones as often as large ones: each power of two is as likely as the next.
    pub(super) fn scale(&mut self, least: u64, most: u64) -> u64 {
        let shift = self.between(0, u64::from((most / least.max(1)).max(1).ilog2()));
        let low = least.max(1) << shift;
        self.between(low.min(most), (2 * low - 1).min(most))
    }

    pub(super) fn micros(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_micros(self.scale(least, most))
    }

    pub(super) fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.scale(least, most))
    }

    /// One of these.
    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let at = self.size(0, of.len() - 1);
        of.get(at).copied().expect("it is below the length")
    }
}
