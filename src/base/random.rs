//! A lane's random generator: ChaCha12, seeded once by the operating system, or by a number in tests and simulation.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

/// A cryptographically strong generator that one owner draws from without a system call.
///
/// It is not `Clone`: two generators of equal state would repeat each other's nonces.
pub struct Random(ChaCha12Rng);

impl Random {
    /// A generator with 256 bits of seed from the operating system.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn from_os() -> Result<Self, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(Self(ChaCha12Rng::from_seed(seed)))
    }

    /// A repeatable generator for tests and simulation.
    pub fn from_seed(seed: u64) -> Self {
        Self(ChaCha12Rng::seed_from_u64(seed))
    }

    /// Another generator, seeded by this one: what each of two owners draws says nothing of the other's.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(ChaCha12Rng::from_seed(self.array()))
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A number below `bound`, with a bias of less than `bound` / 2^64. `bound` must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below zero");
        // The high half of a 64 x 64 bit product is always below `bound`.
        u64::try_from((u128::from(self.next_u64()) * u128::from(bound)) >> 64).expect("a high half fits")
    }

    /// Random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// `N` random bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_stays_below_and_reaches_both_ends() {
        let mut random = Random::from_seed(7);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[usize::try_from(random.below(5)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 5]);
    }

    #[test]
    fn a_fork_draws_something_else() {
        let mut random = Random::from_seed(1);
        let mut fork = random.fork();
        assert_ne!(fork.array::<16>(), random.array::<16>());
    }

    #[test]
    fn equal_seeds_repeat_and_os_seeds_do_not() {
        assert_eq!(Random::from_seed(1).array::<16>(), Random::from_seed(1).array::<16>());
        assert_ne!(Random::from_os().unwrap().array::<16>(), Random::from_os().unwrap().array::<16>());
    }
}
