//! One direction's keys: records sealed and opened under them (RFC 8446 5.2, RFC 5288, RFC 7905).

use std::ops::Range;

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::CipherSuite;

use crate::base::Piece;
use crate::ticket::TlsVersion;

/// Most plaintext in a record (RFC 8446 5.1).
pub const PLAINTEXT_MAX: usize = 16_384;

/// What a record adds to its plaintext at most: header, explicit nonce of TLS 1.2 or content type of TLS 1.3, tag.
pub const OVERHEAD_MAX: usize = HEADER + EXPLICIT + TAG;

/// Content type, version, length.
pub(super) const HEADER: usize = 5;

/// The part of a nonce of AES-GCM that each record of TLS 1.2 shows (RFC 5288 3), and the part that the handshake has fixed.
const EXPLICIT: usize = 8;
const FIXED: usize = NONCE_LEN - EXPLICIT;

const TAG: usize = 16;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    /// It was not sealed under these keys, or not as the next record.
    Forged,
    /// More plaintext than a record may have.
    TooLong,
    /// Nothing but padding.
    NoContentType,
}

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    ChangeCipherSpec = 20,
    Alert = 21,
    Handshake = 22,
    Data = 23,
}

impl Kind {
    pub(super) fn of(byte: u8) -> Option<Self> {
        [Self::ChangeCipherSpec, Self::Alert, Self::Handshake, Self::Data].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One direction of a session.
pub(super) struct Cipher {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    framing: Framing,
    /// The number of the next record.
    seq: u64,
}

/// How a record looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// The content type is sealed, too, and padding may follow it.
    Tls13,
    /// A part of the nonce is in front.
    Tls12Explicit,
    /// The nonce follows from the record's number.
    Tls12Implicit,
}

impl Cipher {
    /// `None` for a suite that we do not have, or a key of the wrong length. The pieces of `iv` are the whole nonce of record 0, as far as it is known: of a key
    /// that only opens, AES-GCM in TLS 1.2 fixes the first four bytes.
    pub(super) fn new(suite: CipherSuite, version: TlsVersion, key: &[u8], iv: &[&[u8]]) -> Option<Self> {
        let algorithm = algorithm_of(suite)?;
        let key = UnboundKey::new(algorithm, key).ok()?;
        let mut nonce = [0; NONCE_LEN];
        nonce.iter_mut().zip(iv.iter().copied().flatten()).for_each(|(to, from)| *to = *from);
        let framing = match version {
            TlsVersion::Tls13 => Framing::Tls13,
            TlsVersion::Tls12 if std::ptr::eq(algorithm, &raw const CHACHA20_POLY1305) => Framing::Tls12Implicit,
            TlsVersion::Tls12 => Framing::Tls12Explicit,
        };
        Some(Self { key: LessSafeKey::new(key), iv: nonce, framing, seq: 0 })
    }

    /// Records sealed or opened so far.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Makes at most [`PLAINTEXT_MAX`] bytes of plaintext a record, where they lie; `None` where the library cannot.
    pub(super) fn seal(&mut self, kind: Kind, mut plaintext: Piece) -> Option<Piece> {
        let nonce = self.nonce();
        let (front, back) = match self.framing {
            Framing::Tls13 => (0, 1),
            Framing::Tls12Explicit => (EXPLICIT, 0),
            Framing::Tls12Implicit => (0, 0),
        };
        let len = u16::try_from(front + plaintext.len() + back + TAG).ok()?.to_be_bytes();
        let aad_tls12 = self.aad_tls12(kind, plaintext.len())?;
        if back > 0 {
            plaintext.extend(&[kind as u8]);
        }
        let explicit = nonce.get(FIXED..FIXED + front)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = plaintext.bytes_mut();
        let tag = match self.framing {
            Framing::Tls13 => self.key.seal_in_place_separate_tag(nonce, Aad::from(aad_tls13(len)), sealed),
            Framing::Tls12Explicit | Framing::Tls12Implicit => {
                self.key.seal_in_place_separate_tag(nonce, Aad::from(aad_tls12), sealed)
            }
        };
        let mut record = plaintext;
        record.extend(tag.ok()?.as_ref());
        record.prepend(explicit);
        let outside = if self.framing == Framing::Tls13 { Kind::Data } else { kind };
        record.prepend(&[outside as u8, 3, 3, len[0], len[1]]);
        self.seq += 1;
        Some(record)
    }

    /// Opens in place what followed the header of a record, and says of which kind it is and where its plaintext.
    pub(super) fn open(&mut self, kind: Kind, body: &mut [u8]) -> Result<(Option<Kind>, Range<usize>), Unopened> {
        let opened = match self.framing {
            Framing::Tls13 => self.open_tls13(body),
            Framing::Tls12Explicit => {
                let (explicit, sealed) = body.split_first_chunk_mut::<EXPLICIT>().ok_or(Unopened::Forged)?;
                let mut nonce = self.iv;
                nonce.iter_mut().skip(FIXED).zip(explicit).for_each(|(to, from)| *to = *from);
                self.open_tls12(kind, nonce, sealed).map(|len| (Some(kind), EXPLICIT..EXPLICIT + len))
            }
            Framing::Tls12Implicit => self.open_tls12(kind, self.nonce(), body).map(|len| (Some(kind), 0..len)),
        }?;
        self.seq += 1;
        Ok(opened)
    }

    fn open_tls13(&self, body: &mut [u8]) -> Result<(Option<Kind>, Range<usize>), Unopened> {
        let len = u16::try_from(body.len()).map_err(|_| Unopened::TooLong)?.to_be_bytes();
        let nonce = Nonce::assume_unique_for_key(self.nonce());
        let inner = self.key.open_in_place(nonce, Aad::from(aad_tls13(len)), body).map_err(|_| Unopened::Forged)?;
        if inner.len() > PLAINTEXT_MAX + 1 {
            return Err(Unopened::TooLong);
        }
        let at = inner.iter().rposition(|byte| *byte != 0).ok_or(Unopened::NoContentType)?;
        if at > PLAINTEXT_MAX {
            return Err(Unopened::TooLong);
        }
        Ok((inner.get(at).and_then(|kind| Kind::of(*kind)), 0..at))
    }

    fn open_tls12(&self, kind: Kind, nonce: [u8; NONCE_LEN], sealed: &mut [u8]) -> Result<usize, Unopened> {
        let len = sealed.len().checked_sub(TAG).ok_or(Unopened::Forged)?;
        if len > PLAINTEXT_MAX {
            return Err(Unopened::TooLong);
        }
        let aad = Aad::from(self.aad_tls12(kind, len).ok_or(Unopened::TooLong)?);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_in_place(nonce, aad, sealed).map_err(|_| Unopened::Forged)?;
        Ok(len)
    }

    /// RFC 8446 5.3, RFC 7905 2: the number of the record, in the IV's last eight bytes. With AES-GCM in TLS 1.2 it is ours to choose.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        nonce.iter_mut().skip(FIXED).zip(self.seq.to_be_bytes()).for_each(|(to, from)| *to ^= from);
        nonce
    }

    /// RFC 5246 6.2.3.3.
    fn aad_tls12(&self, kind: Kind, len: usize) -> Option<[u8; 13]> {
        let [high, low] = u16::try_from(len).ok()?.to_be_bytes();
        let [a, b, c, d, e, f, g, h] = self.seq.to_be_bytes();
        Some([a, b, c, d, e, f, g, h, kind as u8, 3, 3, high, low])
    }
}

/// RFC 8446 5.2: the header.
fn aad_tls13([high, low]: [u8; 2]) -> [u8; HEADER] {
    [Kind::Data as u8, 3, 3, high, low]
}

fn algorithm_of(suite: CipherSuite) -> Option<&'static Algorithm> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the provider has no others")]
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Some(&AES_128_GCM),
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(&AES_256_GCM),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(&CHACHA20_POLY1305),
        _ => None,
    }
}
