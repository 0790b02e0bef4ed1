//! A whole ring, sealed under a key-encryption key: what etcd and a state file hold of it (K7).
//!
//! ```text
//! format(1) | ring version(8) | nonce(24) | ciphertext | tag(16)          XAES-256-GCM; integers are big-endian
//! ```
//!
//! The tag also covers the cluster, so that no other cluster's ring is taken for this one's. Inside:
//!
//! ```text
//! ring version(8) | began(9) | keys(2) | each: id(8) secret(32) state(1) created(8) not before(8) activated(9) not after(9)
//!                            | purged(2) | each: id(8) at(8)
//! ```
//!
//! A time of nine bytes may be missing: a zero and eight more then, or else a one and the time.

use std::path::Path;

use zeroize::Zeroizing;

use super::file;
use super::finding::{Error, Finding};
use crate::base::{Random, UnixTime};
use crate::ticket::ring::{Entry, KEYS_MAX, PURGED_MAX, Purged, State};
use crate::ticket::xaes::{NONCE_SIZE, TAG_SIZE, Xaes};
use crate::ticket::{Key, KeyId, Ring};

/// The longest sealed ring that is looked at, in bytes.
pub const SIZE_MAX: usize = 8192;

const FORMAT: u8 = 1;
const HEADER_SIZE: usize = 1 + 8 + NONCE_SIZE;
const ENTRY_SIZE: usize = 8 + 32 + 1 + 8 + 8 + 9 + 9;
const PURGED_SIZE: usize = 8 + 8;
/// The longest plaintext.
const PLAIN_MAX: usize = 8 + 9 + 2 + KEYS_MAX * ENTRY_SIZE + 2 + PURGED_MAX * PURGED_SIZE;
const _: () = assert!(HEADER_SIZE + PLAIN_MAX + TAG_SIZE <= SIZE_MAX, "a full ring fits");

/// Why bytes are no ring. None of it says anything of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Shorter than the shortest, or longer than [`SIZE_MAX`].
    #[error("has {0} bytes, and a ring has 35 to {SIZE_MAX}")]
    Size(usize),
    /// A format that this version does not read.
    #[error("is of format {0}, and this version reads {FORMAT}")]
    Format(u8),
    /// Altered, or sealed under another key-encryption key or for another cluster.
    #[error("was altered, or sealed under another key-encryption key or for another cluster")]
    Forged,
    /// Sealed rightly, and no ring that this version reads.
    #[error("is sealed rightly, but what is inside is no ring")]
    Malformed,
}

/// The key that seals rings. It never enters etcd.
#[derive(Clone, Debug)]
pub struct KeyEncryptionKey(Key);

impl KeyEncryptionKey {
    /// Draws one.
    pub fn generate(random: &mut Random) -> Self {
        Self(Key::generate(random))
    }

    /// Reads one from a file of mode 0600 that holds 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`Error`] says what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let (text, mode) = file::read_text(path)?;
        if let Some(open_to_others) = mode {
            return Err(open_to_others.into());
        }
        let remedy = "make one with `sealane keys new-kek`, and bring the same file to every engine";
        let secret = hex::decode(text.trim()).map(Zeroizing::new);
        let secret = secret.map_err(|_| Finding::error(path, "is not 64 hexadecimal digits", remedy))?;
        // It has no name; nobody chooses between two.
        let key = Key::new(KeyId([0; 8]), &secret);
        key.map(Self).map_err(|weak| Finding::error(path, format!("is no key: {weak}"), remedy).into())
    }

    /// Writes it to a file of mode 0600 that must not be there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        // Its digits and the end of the line.
        let mut text = Zeroizing::new(vec![b'\n'; 65]);
        if let Some(digits) = text.get_mut(..64) {
            hex::encode_to_slice(self.0.secret(), digits).expect("32 bytes are 64 digits");
        }
        file::write_bytes(path, &text, false)
    }

    fn cipher(&self) -> Xaes {
        Xaes::new(self.0.secret())
    }
}

/// Seals a ring.
pub fn seal(ring: &Ring, key: &KeyEncryptionKey, cluster: &[u8; 32], random: &mut Random) -> Vec<u8> {
    let nonce = random.array();
    let mut sealed = Vec::with_capacity(SIZE_MAX);
    sealed.push(FORMAT);
    sealed.extend_from_slice(&ring.version().to_be_bytes());
    sealed.extend_from_slice(&nonce);
    // Written where the ciphertext replaces it: no copy is left to zeroize.
    encode(ring, &mut sealed);
    let (_, body) = sealed.split_at_mut(HEADER_SIZE);
    let tag = key.cipher().seal(&nonce, &additional(ring.version(), cluster), body);
    sealed.extend_from_slice(&tag);
    sealed
}

/// Opens a sealed ring. Its size is looked at first, then its format, and then all of it is authenticated before any of it is read.
///
/// # Errors
/// [`Refusal`] says why not.
pub fn open(sealed: &[u8], key: &KeyEncryptionKey, cluster: &[u8; 32]) -> Result<Ring, Refusal> {
    let size = Refusal::Size(sealed.len());
    if sealed.len() > SIZE_MAX {
        return Err(size);
    }
    let (&[format], rest) = sealed.split_first_chunk().ok_or(size)?;
    if format != FORMAT {
        return Err(Refusal::Format(format));
    }
    let (version, rest) = rest.split_first_chunk().ok_or(size)?;
    let (nonce, rest) = rest.split_first_chunk().ok_or(size)?;
    let (body, tag) = rest.split_last_chunk().ok_or(size)?;
    let version = u64::from_be_bytes(*version);
    let mut plain = Zeroizing::new(body.to_vec());
    if !key.cipher().open(nonce, &additional(version, cluster), &mut plain, tag) {
        return Err(Refusal::Forged);
    }
    decode(&plain).filter(|ring| ring.version() == version).ok_or(Refusal::Malformed)
}

fn additional(version: u64, cluster: &[u8; 32]) -> Vec<u8> {
    let mut additional = b"sealane key ring".to_vec();
    additional.push(FORMAT);
    additional.extend_from_slice(&version.to_be_bytes());
    additional.extend_from_slice(cluster);
    additional
}

/// Appends the plaintext of a ring.
pub fn encode(ring: &Ring, to: &mut Vec<u8>) {
    let time = |to: &mut Vec<u8>, time: Option<UnixTime>| {
        to.push(u8::from(time.is_some()));
        to.extend_from_slice(&time.unwrap_or(UnixTime(0)).0.to_be_bytes());
    };
    let count = |to: &mut Vec<u8>, count: usize| {
        to.extend_from_slice(&u16::try_from(count).expect("a ring has bounds").to_be_bytes());
    };
    to.extend_from_slice(&ring.version().to_be_bytes());
    time(to, ring.began());
    count(to, ring.entries().len());
    for entry in ring.entries() {
        to.extend_from_slice(&entry.key.id().0);
        to.extend_from_slice(entry.key.secret());
        to.push(match entry.state {
            State::Pending => 0,
            State::Active => 1,
            State::Retiring => 2,
        });
        to.extend_from_slice(&entry.created.0.to_be_bytes());
        to.extend_from_slice(&entry.not_before.0.to_be_bytes());
        time(to, entry.activated);
        time(to, entry.not_after);
    }
    count(to, ring.purged().len());
    for purged in ring.purged() {
        to.extend_from_slice(&purged.id.0);
        to.extend_from_slice(&purged.at.0.to_be_bytes());
    }
}

/// The ring of a plaintext, if it is one and nothing else.
pub fn decode(plain: &[u8]) -> Option<Ring> {
    let mut reader = Reader(plain);
    let version = reader.number()?;
    let began = reader.time()?;
    let keys = reader.count(KEYS_MAX)?;
    let entries = (0..keys).map(|_| reader.entry()).collect::<Option<Vec<_>>>()?;
    let count = reader.count(PURGED_MAX)?;
    let purged = (0..count).map(|_| Some(Purged { id: KeyId(reader.array()?), at: UnixTime(reader.number()?) }));
    let purged = purged.collect::<Option<Vec<_>>>()?;
    if !reader.0.is_empty() {
        return None;
    }
    Some(Ring::new(version, entries, purged).ok()?.begun(began))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn count(&mut self, max: usize) -> Option<usize> {
        let count = usize::from(u16::from_be_bytes(self.array()?));
        (count <= max).then_some(count)
    }

    /// A time that may be missing; `None` if it is neither.
    fn time(&mut self) -> Option<Option<UnixTime>> {
        let ([is_there], time) = (self.array()?, UnixTime(self.number()?));
        match (is_there, time) {
            (0, UnixTime(0)) => Some(None),
            (1, time) => Some(Some(time)),
            (_, _) => None,
        }
    }

    fn entry(&mut self) -> Option<Entry> {
        let id = KeyId(self.array()?);
        let secret = Zeroizing::new(self.array::<32>()?);
        let state = match self.array()? {
            [0] => State::Pending,
            [1] => State::Active,
            [2] => State::Retiring,
            [_] => return None,
        };
        let (created, not_before) = (UnixTime(self.number()?), UnixTime(self.number()?));
        let (activated, not_after) = (self.time()?, self.time()?);
        let fits = match state {
            State::Pending => activated.is_none() && not_after.is_none(),
            State::Active => activated.is_some() && not_after.is_none(),
            State::Retiring => activated.is_some() && not_after.is_some(),
        };
        fits.then_some(())?;
        Some(Entry { key: Key::new(id, &*secret).ok()?, state, created, not_before, activated, not_after })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;
    use crate::ticket::Schedule;

    const CLUSTER: [u8; 32] = [7; 32];

    /// A ring with keys in every state, rotated and purged by `steps`.
    fn ring(steps: &[bool], seed: u64) -> Ring {
        let mut random = Random::from_seed(seed);
        let mut ring = Ring::generate(UnixTime(1_700_000_000), &mut random);
        for (turn, purges) in (1..).zip(steps) {
            let now = UnixTime(1_700_000_000 + turn * 3600);
            let active = ring.active().unwrap().key.id();
            ring = match purges {
                true => ring.purged_of(active, now, &mut random).unwrap(),
                false => ring.rotate(now, &mut random, &Schedule::default()),
            };
        }
        ring
    }

    fn key(seed: u64) -> KeyEncryptionKey {
        KeyEncryptionKey::generate(&mut Random::from_seed(seed))
    }

    fn sealed(ring: &Ring) -> Vec<u8> {
        seal(ring, &key(1), &CLUSTER, &mut Random::from_seed(2))
    }

    proptest! {
        #[test]
        fn k7_what_is_sealed_opens_as_it_was(steps in proptest::collection::vec(any::<bool>(), 0..90), seed: u64) {
            let ring = ring(&steps, seed);
            let sealed = sealed(&ring);
            prop_assert!(sealed.len() <= SIZE_MAX);
            let opened = open(&sealed, &key(1), &CLUSTER).unwrap();
            prop_assert_eq!(&*file::render(&opened), &*file::render(&ring));
        }

        #[test]
        fn k7_any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), right_format: bool) {
            let mut bytes = bytes;
            if right_format && let Some(first) = bytes.first_mut() {
                *first = FORMAT;
            }
            prop_assert!(open(&bytes, &key(1), &CLUSTER).is_err());
        }

        #[test]
        fn k7_any_plaintext_is_a_ring_that_encodes_the_same_or_none(
            steps in proptest::collection::vec(any::<bool>(), 0..9), at: prop::sample::Index, to: u8, cut: prop::sample::Index
        ) {
            let mut plain = Vec::new();
            encode(&ring(&steps, 1), &mut plain);
            let at = at.index(plain.len());
            plain[at] = to;
            prop_assert!(decode(&plain[..cut.index(plain.len())]).is_none());
            if let Some(ring) = decode(&plain) {
                let mut again = Vec::new();
                encode(&ring, &mut again);
                prop_assert_eq!(again, plain);
            }
        }
    }

    #[test]
    fn k7_no_bit_can_be_changed_and_no_other_key_or_cluster_opens() {
        let whole = sealed(&ring(&[false], 1));
        for bit in 0..whole.len() * 8 {
            let mut altered = whole.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 8 { Refusal::Format(altered[0]) } else { Refusal::Forged };
            assert_eq!(open(&altered, &key(1), &CLUSTER).unwrap_err(), expected, "bit {bit}");
        }
        assert_eq!(open(&whole, &key(2), &CLUSTER).unwrap_err(), Refusal::Forged);
        assert_eq!(open(&whole, &key(1), &[8; 32]).unwrap_err(), Refusal::Forged);
        assert_eq!(open(&[], &key(1), &CLUSTER).unwrap_err(), Refusal::Size(0));
        let huge = vec![FORMAT; SIZE_MAX + 1];
        assert_eq!(open(&huge, &key(1), &CLUSTER).unwrap_err(), Refusal::Size(SIZE_MAX + 1));
    }

    #[test]
    fn k7_the_version_outside_is_the_version_inside() {
        let ring = ring(&[], 1);
        let (nonce, key) = ([1; 24], key(1));
        let mut forged = vec![FORMAT];
        forged.extend_from_slice(&9_u64.to_be_bytes());
        forged.extend_from_slice(&nonce);
        encode(&ring, &mut forged);
        let tag = key.cipher().seal(&nonce, &additional(9, &CLUSTER), &mut forged[HEADER_SIZE..]);
        forged.extend_from_slice(&tag);
        assert_eq!(open(&forged, &key, &CLUSTER).unwrap_err(), Refusal::Malformed);
    }

    #[test]
    fn k7_a_sealed_ring_shows_no_secret() {
        let ring = ring(&[false, false], 1);
        let sealed = sealed(&ring);
        for entry in ring.entries() {
            assert!(!sealed.windows(8).any(|window| entry.key.secret().starts_with(window)));
            assert!(!sealed.windows(8).any(|window| window == entry.key.id().0));
        }
    }

    #[test]
    fn k6_a_key_encryption_key_is_a_file_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kek");
        key(1).write(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(KeyEncryptionKey::read(&path).unwrap().0.secret(), key(1).0.secret());
        assert!(key(2).write(&path).unwrap_err().to_string().contains("--force"), "it is not written over");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(KeyEncryptionKey::read(&path).unwrap_err().to_string().contains("0640"));
        for (text, reason) in [("xyz", "64 hexadecimal"), ("00", "1 bytes"), (&"0".repeat(64), "zeros")] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let refused = KeyEncryptionKey::read(&path).unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
