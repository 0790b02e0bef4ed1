//! An IP address as the key of a table: 128 bits, IPv4-mapped where need be, and a hash of three multiplications.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;

/// An IP address of either family as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) u128);

impl From<IpAddr> for Key {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) => Self(v6.to_bits()),
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.0);
    }
}

/// Hashes [`Key`]s under two secret numbers, so that nobody outside can choose addresses that collide. SipHash costs more
/// on the way of every packet; the tables here are bounded, and strangers make few entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed {
    low: u64,
    high: u64,
}

impl Default for Keyed {
    fn default() -> Self {
        let random = RandomState::new();
        Self { low: random.hash_one(0), high: random.hash_one(1) }
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { keys: *self, hash: 0 }
    }
}

/// The high and low half of a 128-bit product, folded together.
#[derive(Debug)]
pub(super) struct Folded {
    keys: Keyed,
    hash: u64,
}

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.hash
    }

    fn write_u128(&mut self, number: u128) {
        let (high, low) = halves(number);
        let (a, b) = (low ^ self.keys.low ^ self.hash, high ^ self.keys.high);
        let (high, low) = halves(u128::from(a) * u128::from(b));
        self.hash = mixed(high ^ low);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u128(u128::from(*byte));
        }
    }
}

/// Spreads every bit over all others (the finalizer of SplitMix64): neighbouring addresses have one factor in common, and where that happens to have few
/// bits set, their products differ in few bits.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
fn halves(number: u128) -> (u64, u64) {
    ((number >> 64) as u64, number as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn neighbouring_addresses_spread_over_the_buckets_under_every_key() {
        let mut random = crate::base::Random::from_seed(1);
        let sparse = [Keyed { low: 0, high: 1 << 40 }, Keyed { low: 1, high: 3 }];
        let drawn = std::iter::repeat_with(|| Keyed { low: random.next_u64(), high: random.next_u64() }).take(300);
        for keyed in drawn.chain(sparse) {
            for base in ["198.18.0.0", "2001:db8::"] {
                let Key(base) = Key::from(base.parse::<IpAddr>().unwrap());
                // As hash tables use them: low bits for the bucket, the seven highest to tell entries apart.
                let low: HashSet<_> = (0..1024).map(|host| keyed.hash_one(Key(base + host)) & 0x3ff).collect();
                let high: HashSet<_> = (0..1024).map(|host| keyed.hash_one(Key(base + host)) >> 57).collect();
                // Chance fills 647 of 1,024 buckets, with a standard deviation of 12.
                assert!(low.len() > 570, "{} of about 647 buckets under {keyed:?}", low.len());
                assert!(high.len() > 120, "{} of 128 tags under {keyed:?}", high.len());
            }
        }
    }

    #[test]
    fn two_tables_hash_differently() {
        let key = Key::from("198.18.0.1".parse::<IpAddr>().unwrap());
        assert_ne!(Keyed::default().hash_one(key), Keyed::default().hash_one(key));
    }
}
