//! The seal: version(1) | key id(8) | nonce(24) | ciphertext | tag(16), by XAES-256-GCM.
//!
//! The key is the virtual service's own: HKDF-SHA256 (RFC 5869) of the ring's key, with the service id as info. The tag also covers the version, the key id and
//! the [`Scope`], which are not in the ciphertext. The plaintext is an [`Envelope`] filled up with zeros to a multiple of [`BUCKET`], and a mapping is as
//! long as none, so that a ticket's length tells at most how long rustls's own ticket is, in steps of 128.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::base::{Random, ServiceId};
use crate::ticket::vault::Vault;
use crate::ticket::xaes::{self, Xaes};
use crate::ticket::{Envelope, Key, KeyId, Ring};

/// The longest ticket that is sealed or looked at, in bytes. A TLS 1.2 ticket's length field allows 65,535.
pub const TICKET_MAX: usize = 16_384;

/// A plaintext's length is a multiple of this.
pub const BUCKET: usize = 128;

/// The seal version that is written, and the only one that is read.
const VERSION: u8 = 1;
const HEADER_SIZE: usize = 1 + 8 + xaes::NONCE_SIZE;
/// The shortest ticket: one bucket.
const TICKET_MIN: usize = HEADER_SIZE + BUCKET + xaes::TAG_SIZE;

/// Where a ticket is valid: authenticated with it, not carried in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// SHA-256 of the cluster's name.
    pub cluster: [u8; 32],
    /// The virtual service.
    pub service: ServiceId,
    /// Hash of the service's TLS security policy.
    pub policy: [u8; 32],
}

/// Why a ticket was not opened. To the client they all look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Longer than [`TICKET_MAX`] or shorter than the shortest ticket.
    Length,
    /// A seal version that this engine does not read.
    Version,
    /// No such key in the ring.
    UnknownKey,
    /// Not sealed with that key for this scope, or altered.
    Forged,
    /// Sealed rightly but not an envelope that this version reads.
    Envelope,
}

/// One virtual service's keys, derived from a ring. Nothing in it is printed; all of it is zeroized when dropped.
pub struct ServiceKeys {
    ring_version: u64,
    scope: Scope,
    active: Option<KeyId>,
    /// At most [`KEYS_MAX`](crate::ticket::ring::KEYS_MAX), the active one first: most tickets are under it.
    keys: Vec<ServiceKey>,
    vault: Vault,
}

struct ServiceKey {
    id: KeyId,
    /// Which of the secrets in the vault is its own.
    place: usize,
    additional: [u8; ADDITIONAL_SIZE],
}

/// What the vault holds of each key: the key, then the subkey.
const SECRET_SIZE: usize = xaes::KEY_SIZE + xaes::SUBKEY_SIZE;

/// version | key id | cluster | service | policy.
const ADDITIONAL_SIZE: usize = 1 + 8 + 32 + 8 + 32;

impl ServiceKeys {
    /// See [`Ring::for_service_in`].
    pub(super) fn derive(ring: &Ring, scope: &Scope, vault: Option<Vault>) -> Self {
        let active = ring.active().map(|entry| entry.key.id());
        let size = ring.entries().len() * SECRET_SIZE;
        let mut vault = match vault {
            Some(vault) => vault.cleared(size),
            None => Vault::new(size),
        };
        let places = vault.bytes_mut().chunks_exact_mut(SECRET_SIZE);
        let entries = ring.entries().iter().zip(places).enumerate();
        let mut keys: Vec<_> =
            entries.map(|(place, (entry, secret))| ServiceKey::derive(&entry.key, scope, place, secret)).collect();
        keys.sort_by_key(|key| Some(key.id) != active);
        Self { ring_version: ring.version(), scope: *scope, active, keys, vault }
    }

    /// The memory, to derive others in.
    pub fn into_vault(self) -> Vault {
        self.vault.cleared(0)
    }

    /// What seals and opens with `key`.
    fn cipher(&self, key: &ServiceKey) -> Option<Xaes> {
        let mut places = self.vault.bytes().chunks_exact(SECRET_SIZE);
        let (secret, subkey) = places.nth(key.place)?.split_first_chunk()?;
        Some(Xaes::with_subkey(secret, subkey.first_chunk()?))
    }

    /// The version of the ring from which they were derived.
    pub fn ring_version(&self) -> u64 {
        self.ring_version
    }

    /// The scope for which they were derived.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The key that seals; `None` when the ring may only open. A ticket under another key is one to issue anew.
    pub fn active(&self) -> Option<KeyId> {
        self.active
    }

    fn find(&self, id: KeyId) -> Option<&ServiceKey> {
        self.keys.iter().find(|key| key.id == id)
    }
}

impl fmt::Debug for ServiceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceKeys")
            .field("ring_version", &self.ring_version)
            .field("service", &self.scope.service)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

impl ServiceKey {
    fn derive(key: &Key, scope: &Scope, place: usize, secret: &mut [u8]) -> Self {
        let (derived, subkey) = secret.split_at_mut(xaes::KEY_SIZE);
        Hkdf::<Sha256>::new(Some(b"sealane ticket"), key.secret())
            .expand(&scope.service.0.to_be_bytes(), derived)
            .expect("32 bytes are within RFC 5869's limit");
        let cipher = Xaes::new(derived.first_chunk().expect("it was split there"));
        subkey.copy_from_slice(&*cipher.subkey());
        let mut additional = [0; ADDITIONAL_SIZE];
        additional[0] = VERSION;
        additional[1..9].copy_from_slice(&key.id().0);
        additional[9..41].copy_from_slice(&scope.cluster);
        additional[41..49].copy_from_slice(&scope.service.0.to_be_bytes());
        additional[49..].copy_from_slice(&scope.policy);
        Self { id: key.id(), place, additional }
    }
}

/// Seals an envelope with the active key; `None` when the ring may not seal or the ticket would be longer than [`TICKET_MAX`].
///
/// Allocates the ticket and nothing else.
pub fn seal(keys: &ServiceKeys, envelope: &Envelope, random: &mut Random) -> Option<Vec<u8>> {
    let key = keys.find(keys.active?)?;
    let body_end = HEADER_SIZE + envelope.encoded_size().next_multiple_of(BUCKET);
    let size = body_end + xaes::TAG_SIZE;
    if size > TICKET_MAX {
        return None;
    }
    let nonce = random.array();
    // The plaintext is written where the ciphertext replaces it: no copy is left to zeroize.
    let mut ticket = Vec::with_capacity(size);
    ticket.push(VERSION);
    ticket.extend_from_slice(&key.id.0);
    ticket.extend_from_slice(&nonce);
    envelope.encode(&mut ticket)?;
    ticket.resize(body_end, 0);
    let (_, body) = ticket.split_at_mut_checked(HEADER_SIZE)?;
    let tag = keys.cipher(key)?.seal(&nonce, &key.additional, body);
    ticket.extend_from_slice(&tag);
    Some(ticket)
}

/// What a ticket says in the clear, if it is as long as a ticket and of a version that is read.
///
/// # Errors
/// [`Refusal::Length`] and [`Refusal::Version`].
pub fn key_id(ticket: &[u8]) -> Result<KeyId, Refusal> {
    Parts::parse(ticket).map(|parts| parts.id)
}

/// Opens a ticket and says which key it was under.
///
/// # Errors
/// [`Refusal`] says why not. Only [`Refusal::Forged`] and [`Refusal::Envelope`] have cost any cryptography.
pub fn open(keys: &ServiceKeys, ticket: &[u8]) -> Result<(Envelope, KeyId), Refusal> {
    let parts = Parts::parse(ticket)?;
    let key = keys.find(parts.id).ok_or(Refusal::UnknownKey)?;
    let mut plaintext = Zeroizing::new(parts.ciphertext.to_vec());
    let cipher = keys.cipher(key).ok_or(Refusal::UnknownKey)?;
    if !cipher.open(parts.nonce, &key.additional, &mut plaintext, parts.tag) {
        return Err(Refusal::Forged);
    }
    let envelope = Envelope::decode(&plaintext).ok_or(Refusal::Envelope)?;
    Ok((envelope, parts.id))
}

struct Parts<'a> {
    id: KeyId,
    nonce: &'a [u8; xaes::NONCE_SIZE],
    ciphertext: &'a [u8],
    tag: &'a [u8; xaes::TAG_SIZE],
}

impl<'a> Parts<'a> {
    fn parse(ticket: &'a [u8]) -> Result<Self, Refusal> {
        if ticket.len() < TICKET_MIN || ticket.len() > TICKET_MAX {
            return Err(Refusal::Length);
        }
        let (&[version], rest) = ticket.split_first_chunk().ok_or(Refusal::Length)?;
        if version != VERSION {
            return Err(Refusal::Version);
        }
        let (id, rest) = rest.split_first_chunk().ok_or(Refusal::Length)?;
        let (nonce, rest) = rest.split_first_chunk().ok_or(Refusal::Length)?;
        let (ciphertext, tag) = rest.split_last_chunk().ok_or(Refusal::Length)?;
        Ok(Self { id: KeyId(*id), nonce, ciphertext, tag })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::base::UnixTime;
    use crate::ticket::Schedule;
    use crate::ticket::envelope::tests::sample;

    const SCOPE: Scope = Scope { cluster: [1; 32], service: ServiceId(2), policy: [3; 32] };

    fn ring() -> Ring {
        Ring::generate(UnixTime(0), &mut Random::from_seed(1))
    }

    fn keys() -> ServiceKeys {
        ring().for_service(&SCOPE)
    }

    fn sealed(keys: &ServiceKeys) -> Vec<u8> {
        seal(keys, &sample(145), &mut Random::from_seed(2)).unwrap()
    }

    #[test]
    fn s1_a_ticket_is_version_key_id_nonce_ciphertext_tag() {
        let ring = ring();
        let ticket = sealed(&ring.for_service(&SCOPE));
        let key = &ring.active().unwrap().key;
        assert_eq!(ticket[0], 1);
        assert_eq!(ticket[1..9], key.id().0);
        assert_eq!(ticket[9..33], Random::from_seed(2).array::<24>());
        assert_eq!(key_id(&ticket), Ok(key.id()));
        // By hand, from the parts and the specification alone.
        let mut secret = [0; 32];
        let info = SCOPE.service.0.to_be_bytes();
        Hkdf::<Sha256>::new(Some(b"sealane ticket"), key.secret()).expand(&info, &mut secret).unwrap();
        let additional = [&[1], &key.id().0[..], &SCOPE.cluster, &info, &SCOPE.policy].concat();
        let (body, tag) = ticket[33..].split_last_chunk::<16>().unwrap();
        let mut body = body.to_vec();
        assert!(Xaes::new(&secret).open(ticket[9..33].try_into().unwrap(), &additional, &mut body, tag));
        assert_eq!(Envelope::decode(&body), Some(sample(145)));
    }

    #[test]
    fn s1_unknown_versions_and_key_ids_are_refused_by_name() {
        let keys = keys();
        let mut ticket = sealed(&keys);
        for version in (0..=255).filter(|version| *version != VERSION) {
            ticket[0] = version;
            assert_eq!(open(&keys, &ticket), Err(Refusal::Version));
        }
        ticket[0] = VERSION;
        ticket[1] ^= 1;
        assert_eq!(open(&keys, &ticket), Err(Refusal::UnknownKey));
    }

    #[test]
    fn s2_what_was_sealed_opens() {
        let keys = keys();
        for size in [0, 1, 53, 54, 55, 145, 1000, 16_000] {
            let envelope = sample(size);
            let ticket = seal(&keys, &envelope, &mut Random::from_seed(3)).unwrap();
            assert_eq!(open(&keys, &ticket), Ok((envelope, keys.active().unwrap())));
        }
    }

    #[test]
    fn s3_ticket_of_another_cluster_is_refused() {
        let foreign = ring().for_service(&Scope { cluster: [9; 32], ..SCOPE });
        assert_eq!(open(&foreign, &sealed(&keys())), Err(Refusal::Forged));
    }

    #[test]
    fn s3_ticket_of_another_service_is_refused() {
        let foreign = ring().for_service(&Scope { service: ServiceId(9), ..SCOPE });
        assert_eq!(open(&foreign, &sealed(&keys())), Err(Refusal::Forged));
    }

    #[test]
    fn s3_ticket_from_before_a_policy_change_is_refused() {
        let changed = ring().for_service(&Scope { policy: [9; 32], ..SCOPE });
        assert_eq!(open(&changed, &sealed(&keys())), Err(Refusal::Forged));
    }

    #[test]
    fn s3_a_ticket_under_the_id_of_another_key_is_refused() {
        let mut random = Random::from_seed(5);
        let ring = ring().with_pending(UnixTime(0), &mut random);
        let keys = ring.for_service(&SCOPE);
        let mut ticket = sealed(&keys);
        ticket[1..9].copy_from_slice(&ring.entries()[1].key.id().0);
        assert_eq!(open(&keys, &ticket), Err(Refusal::Forged));
    }

    #[test]
    fn s5_length_is_checked_before_all_else() {
        let keys = keys();
        let shortest = seal(&keys, &sample(0), &mut Random::from_seed(2)).unwrap();
        assert_eq!(shortest.len(), TICKET_MIN);
        for length in 0..TICKET_MIN {
            assert_eq!(open(&keys, &shortest[..length]), Err(Refusal::Length));
        }
        let mut long = vec![0; TICKET_MAX + 1];
        assert_eq!(open(&keys, &long), Err(Refusal::Length));
        long.truncate(TICKET_MAX);
        assert_eq!(open(&keys, &long), Err(Refusal::Version));
    }

    #[test]
    fn s5_no_ticket_is_sealed_beyond_the_maximum() {
        let keys = keys();
        let overhead = sample(0).encoded_size();
        let most = (TICKET_MAX - HEADER_SIZE - xaes::TAG_SIZE) / BUCKET * BUCKET - overhead;
        let longest = seal(&keys, &sample(most), &mut Random::from_seed(2)).unwrap();
        assert!(longest.len() <= TICKET_MAX && open(&keys, &longest).is_ok());
        assert_eq!(seal(&keys, &sample(most + 1), &mut Random::from_seed(2)), None);
        assert_eq!(seal(&keys, &sample(100_000), &mut Random::from_seed(2)), None);
    }

    #[test]
    fn s6_length_says_nothing_of_the_mapping_and_little_of_the_session() {
        let keys = keys();
        let length = |envelope: &Envelope| seal(&keys, envelope, &mut Random::from_seed(2)).unwrap().len();
        assert_eq!(length(&sample(145)), length(&Envelope { mapping: None, ..sample(145) }));
        let lengths: HashSet<_> = (0..1024).map(|size| length(&sample(size))).collect();
        assert!(lengths.iter().all(|length| (length - HEADER_SIZE - xaes::TAG_SIZE) % BUCKET == 0));
        assert_eq!(lengths.len(), 9);
    }

    #[test]
    fn s7_a_sealed_envelope_with_an_unknown_field_opens() {
        let keys = keys();
        let key = &keys.keys[0];
        let mut body = Vec::new();
        sample(10).encode(&mut body).unwrap();
        body.extend_from_slice(&[99, 0, 2, 7, 7]);
        body.resize(BUCKET, 0);
        let tag = keys.cipher(key).unwrap().seal(&[4; 24], &key.additional, &mut body);
        let ticket = [&[VERSION][..], &key.id.0, &[4; 24], &body, &tag].concat();
        assert_eq!(open(&keys, &ticket), Ok((sample(10), key.id)));
    }

    #[test]
    fn s7_what_is_sealed_rightly_but_no_envelope_is_refused_as_such() {
        let keys = keys();
        let key = &keys.keys[0];
        let mut body = [0; BUCKET];
        let tag = keys.cipher(key).unwrap().seal(&[4; 24], &key.additional, &mut body);
        let ticket = [&[VERSION][..], &key.id.0, &[4; 24], &body, &tag].concat();
        assert_eq!(open(&keys, &ticket), Err(Refusal::Envelope));
    }

    #[test]
    fn s8_nonces_of_lanes_seeded_by_the_system_never_repeat() {
        let keys = keys();
        let mut seen = HashSet::new();
        // Two lanes, or an engine before and after a restart: same ring, own generators.
        for mut random in [Random::from_os().unwrap(), Random::from_os().unwrap()] {
            for _ in 0..500 {
                let ticket = seal(&keys, &sample(1), &mut random).unwrap();
                assert!(seen.insert(ticket[9..33].to_vec()));
            }
        }
    }

    #[test]
    fn s9_every_flipped_bit_is_refused() {
        let keys = keys();
        let ticket = sealed(&keys);
        for bit in 0..ticket.len() * 8 {
            let mut altered = ticket.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0 => Refusal::Version,
                1..=8 => Refusal::UnknownKey,
                _ => Refusal::Forged,
            };
            assert_eq!(open(&keys, &altered), Err(expected), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn s9_any_bytes_are_refused(mut bytes: Vec<u8>, right_header: bool) {
            let keys = keys();
            if right_header && bytes.len() >= 9 {
                bytes[..9].copy_from_slice(&sealed(&keys)[..9]);
                bytes.extend_from_slice(&[0; TICKET_MIN]);
            }
            prop_assert!(open(&keys, &bytes).is_err());
        }

        #[test]
        fn s9_any_cut_or_extended_ticket_is_refused(cut in 0..400_usize, extra in proptest::collection::vec(any::<u8>(), 1..300)) {
            let keys = keys();
            let mut ticket = sealed(&keys);
            prop_assert!(cut >= ticket.len() || open(&keys, &ticket[..cut]).is_err());
            ticket.extend_from_slice(&extra);
            prop_assert!(open(&keys, &ticket).is_err());
        }
    }

    #[test]
    fn s10_two_tickets_of_one_client_share_only_version_and_key_id() {
        let keys = keys();
        let mut random = Random::from_seed(6);
        let [a, b] = [(); 2].map(|()| seal(&keys, &sample(145), &mut random).unwrap());
        assert_eq!(a[..9], b[..9]);
        // Any four bytes at one place: by chance equal once in 10^7 runs of all other seeds, and the seed is fixed.
        assert!(a[9..].windows(4).zip(b[9..].windows(4)).all(|(a, b)| a != b));
    }

    #[test]
    fn k2_pending_and_retiring_keys_open_and_do_not_seal() {
        let mut random = Random::from_seed(7);
        let old = ring();
        let ticket = sealed(&old.for_service(&SCOPE));
        let rotated = old.rotate(UnixTime(10), &mut random, &Schedule::default()).for_service(&SCOPE);
        assert_eq!(open(&rotated, &ticket).unwrap().1, old.active().unwrap().key.id());
        assert_ne!(rotated.active(), Some(old.active().unwrap().key.id()));
        // An engine that has the next ring early seals under what is still pending elsewhere.
        let ahead = old.with_pending(UnixTime(0), &mut random);
        let early = sealed(&ahead.rotate(UnixTime(10), &mut random, &Schedule::default()).for_service(&SCOPE));
        assert!(open(&ahead.for_service(&SCOPE), &early).is_ok());
    }

    #[test]
    fn k3_no_valid_ticket_loses_its_key() {
        let schedule = Schedule::new(Duration::from_secs(7), Duration::from_secs(30)).unwrap();
        let mut random = Random::from_seed(8);
        let mut ring = ring();
        let mut issued = Vec::new();
        for now in 0..200 {
            if UnixTime(now) >= ring.rotation_due(&schedule) {
                ring = ring.rotate(UnixTime(now), &mut random, &schedule);
            }
            let keys = ring.for_service(&SCOPE);
            issued.push((now, sealed(&keys)));
            for (at, ticket) in &issued {
                assert!(now > at + 30 || open(&keys, ticket).is_ok(), "issued at {at}, lost at {now}");
            }
        }
    }

    #[test]
    fn k7_a_stale_ring_opens_and_does_not_seal() {
        let stale = ring().opening_only().for_service(&SCOPE);
        assert_eq!(seal(&stale, &sample(1), &mut Random::from_seed(2)), None);
        assert!(open(&stale, &sealed(&keys())).is_ok());
    }

    #[test]
    fn k10_each_service_seals_with_a_key_of_its_own() {
        let ring = ring();
        let other = ring.for_service(&Scope { service: ServiceId(9), ..SCOPE });
        // The same nonce and plaintext: equal keys would give equal ciphertexts, whatever the additional data.
        let (a, b) = (sealed(&ring.for_service(&SCOPE)), sealed(&other));
        assert_eq!(a[..33], b[..33]);
        assert_ne!(a[33..49], b[33..49]);
        // And neither is the ring's own key.
        let (_, tag) = a.split_last_chunk().unwrap();
        let mut body = a[33..a.len() - 16].to_vec();
        let additional = ring.for_service(&SCOPE).keys[0].additional;
        let master = Xaes::new(ring.entries()[0].key.secret());
        assert!(!master.open(a[9..33].try_into().unwrap(), &additional, &mut body, tag));
    }

    #[test]
    fn k6_a_services_keys_are_locked_left_out_of_core_dumps_and_use_their_memory_again() {
        let keys = keys();
        let address = keys.vault.bytes().as_ptr();
        let flags = crate::ticket::vault::page_flags(address.addr());
        assert!(flags.contains(&"lo".to_owned()) && flags.contains(&"dd".to_owned()), "{flags:?}");
        let again = ring().for_service_in(&SCOPE, keys.into_vault());
        assert_eq!(again.vault.bytes().as_ptr(), address);
        assert!(open(&again, &sealed(&again)).is_ok());
        // The bytes behind the one key are what `cleared` left.
        assert!(again.vault.bytes()[SECRET_SIZE..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn debug_of_keys_shows_no_secret() {
        let ring = ring();
        let shown = format!("{:?} {ring:?}", ring.for_service(&SCOPE));
        assert!(!shown.contains(&hex::encode(ring.entries()[0].key.secret())) && !shown.contains("secret"), "{shown}");
    }
}
