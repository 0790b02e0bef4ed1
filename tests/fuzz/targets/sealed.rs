//! Feeds `control::keys::sealed` arbitrary bytes, altered sealed rings, and arbitrary plaintexts.
//!
//! Only an unaltered ring opens, under its own key and for its own cluster. A plaintext that is decoded encodes to itself.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sealane::base::{Random, UnixTime};
use sealane::control::keys::sealed::{KeyEncryptionKey, SIZE_MAX, decode, encode, open, seal};
use sealane::ticket::{Ring, Schedule};

#[derive(Arbitrary, Debug)]
enum Input {
    /// What etcd may hold.
    Bytes(Vec<u8>),
    /// A sealed ring after so many rotations, and what is done to it.
    Sealed { rotations: u8, at: u16, bits: u8, cut: Option<u16>, extra: Vec<u8> },
    /// What may be inside.
    Plain(Vec<u8>),
    /// The inside of a ring, with one byte changed.
    Changed { rotations: u8, at: u16, to: u8 },
}

static KEY: LazyLock<KeyEncryptionKey> = LazyLock::new(|| KeyEncryptionKey::generate(&mut Random::from_seed(1)));
const CLUSTER: [u8; 32] = [7; 32];

fn ring(rotations: u8) -> Ring {
    let mut random = Random::from_seed(2);
    let mut ring =
        Ring::generate(UnixTime(1_700_000_000), &mut random).with_pending(UnixTime(1_700_000_000), &mut random);
    for turn in 0..rotations % 70 {
        let now = UnixTime(1_700_000_000 + u64::from(turn) * 3600);
        ring = ring.rotate(now, &mut random, &Schedule::default());
        if turn % 5 == 4 {
            let id = ring.entries()[0].key.id();
            ring = ring.purged_of(id, now, &mut random).expect("it is there");
        }
    }
    ring
}

fn check_plain(plain: &[u8]) {
    if let Some(ring) = decode(plain) {
        let mut again = Vec::new();
        encode(&ring, &mut again);
        assert_eq!(again, plain);
    }
}

fuzz_target!(|input: Input| {
    match input {
        Input::Bytes(bytes) => assert!(open(&bytes, &KEY, &CLUSTER).is_err()),
        Input::Sealed { rotations, at, bits, cut, extra } => {
            let ring = ring(rotations);
            let whole = seal(&ring, &KEY, &CLUSTER, &mut Random::from_seed(3));
            assert!(whole.len() <= SIZE_MAX);
            let mut altered = whole.clone();
            let at = usize::from(at) % altered.len();
            altered[at] ^= bits;
            altered.truncate(cut.map_or(usize::MAX, usize::from));
            altered.extend_from_slice(&extra);
            match open(&altered, &KEY, &CLUSTER) {
                Ok(opened) => assert!(altered == whole && opened.version() == ring.version()),
                Err(_) => assert_ne!(altered, whole),
            }
        }
        Input::Plain(plain) => check_plain(&plain),
        Input::Changed { rotations, at, to } => {
            let mut plain = Vec::new();
            encode(&ring(rotations), &mut plain);
            let at = usize::from(at) % plain.len();
            plain[at] = to;
            check_plain(&plain);
        }
    }
});
