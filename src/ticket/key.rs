//! One ticket key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::base::Random;
use crate::ticket::vault::Vault;

/// Bytes of a key.
pub const KEY_SIZE: usize = 32;

/// Fewer different bytes than this in a key is a pattern. 32 random bytes have 30 different ones on average, and fewer than 16 less than once in 10^14 keys.
const DIFFERENT_MIN: usize = 16;

/// Names a key in a ticket's header, in the clear. Random, so that it tells nothing; written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// Not 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id is 16 hexadecimal digits")]
pub struct NotAKeyId;

impl FromStr for KeyId {
    type Err = NotAKeyId;

    fn from_str(text: &str) -> Result<Self, NotAKeyId> {
        let mut id = [0; 8];
        hex::decode_to_slice(text, &mut id).map_err(|_| NotAKeyId)?;
        Ok(Self(id))
    }
}

/// Why bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weak {
    /// Not 32 bytes.
    #[error("it has {0} bytes, not {KEY_SIZE}")]
    Size(usize),
    /// All zero.
    #[error("it is all zeros")]
    Zero,
    /// Repeats itself, counts, is text, or uses few different bytes.
    #[error("it follows a pattern, so it was typed or made up rather than drawn at random")]
    Pattern,
}

/// 32 secret bytes and their id. Never printed; in a [`Vault`] that all clones share.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    vault: Arc<Vault>,
}

impl Key {
    /// Takes a key from outside.
    ///
    /// # Errors
    /// [`Weak`] says why these bytes cannot be random.
    pub fn new(id: KeyId, secret: &[u8]) -> Result<Self, Weak> {
        let key: &[u8; KEY_SIZE] = secret.try_into().map_err(|_| Weak::Size(secret.len()))?;
        if key.iter().all(|byte| *byte == 0) {
            return Err(Weak::Zero);
        }
        if is_patterned(key) {
            return Err(Weak::Pattern);
        }
        let mut vault = Vault::new(KEY_SIZE);
        vault.bytes_mut().iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        Ok(Self { id, vault: Arc::new(vault) })
    }

    /// Draws a key and its id. `random` must have been seeded by the operating system, except in tests and simulation.
    pub fn generate(random: &mut Random) -> Self {
        loop {
            let secret = Zeroizing::new(random.array::<KEY_SIZE>());
            // Ends: a random key looks patterned less than once in 10^13 draws.
            if let Ok(key) = Self::new(KeyId(random.array()), &*secret) {
                return key;
            }
        }
    }

    /// The name of the key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The secret, for deriving from it and for writing it to a key file.
    pub fn secret(&self) -> &[u8; KEY_SIZE] {
        self.vault.bytes().first_chunk().expect("new() made room for it")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

fn is_patterned(key: &[u8; KEY_SIZE]) -> bool {
    let repeats = (1..=KEY_SIZE / 2).any(|period| key.iter().zip(key.iter().skip(period)).all(|(a, b)| a == b));
    let mut steps = key.iter().zip(key.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a));
    let first_step = steps.next();
    let counts = steps.all(|step| Some(step) == first_step);
    let is_text = key.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let mut sorted = Zeroizing::new(*key);
    sorted.sort_unstable();
    let different = 1 + sorted.iter().zip(sorted.iter().skip(1)).filter(|(a, b)| a != b).count();
    repeats || counts || is_text || different < DIFFERENT_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: KeyId = KeyId([0xab; 8]);

    #[test]
    fn k1_zero_short_and_long_keys_are_refused() {
        assert_eq!(Key::new(ID, &[0; 32]).unwrap_err(), Weak::Zero);
        assert_eq!(Key::new(ID, &[7; 31]).unwrap_err(), Weak::Size(31));
        assert_eq!(Key::new(ID, &[7; 33]).unwrap_err(), Weak::Size(33));
        assert_eq!(Key::new(ID, &[]).unwrap_err(), Weak::Size(0));
    }

    #[test]
    fn k1_patterned_keys_are_refused() {
        let counting: Vec<u8> = (10..42).collect();
        let mut few_bytes = [0; 32];
        few_bytes[31] = 1;
        let repeated = Random::from_seed(1).array::<16>().repeat(2);
        let text = b"correct horse battery staple 123";
        for key in [&[0x55; 32][..], &counting, &few_bytes, &repeated, text] {
            assert_eq!(Key::new(ID, key).unwrap_err(), Weak::Pattern, "{key:02x?}");
        }
    }

    #[test]
    fn k1_random_keys_are_taken() {
        let mut random = Random::from_seed(2);
        for _ in 0..1000 {
            let bytes = random.array::<32>();
            assert_eq!(Key::new(ID, &bytes).unwrap().secret(), &bytes);
        }
    }

    #[test]
    fn k6_a_key_is_locked_and_left_out_of_core_dumps() {
        let key = Key::generate(&mut Random::from_seed(3));
        let flags = crate::ticket::vault::page_flags(key.clone().secret().as_ptr().addr());
        assert!(flags.contains(&"lo".to_owned()) && flags.contains(&"dd".to_owned()), "{flags:?}");
    }

    #[test]
    fn k6_debug_shows_the_id_and_no_secret() {
        let key = Key::generate(&mut Random::from_seed(3));
        assert_eq!(format!("{key:?}"), format!("Key({})", key.id()));
    }

    #[test]
    fn key_ids_are_read_as_they_are_printed() {
        let id = KeyId([0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff]);
        assert_eq!(id.to_string(), "00010203fcfdfeff");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "00", "00010203fcfdfefg", "00010203fcfdfeff00"] {
            assert_eq!(wrong.parse::<KeyId>(), Err(NotAKeyId));
        }
    }
}
