//! What a ticket says once it is open: the mapping, when it was made, and rustls's own ticket.
//!
//! Encoded, an envelope is `format(1) | oldest reader(1) | fields`, and a field is `kind(1) | length(2) | value`, big-endian. The rules that let engines of
//! two releases read each other's tickets:
//!
//! - A new fact is a new kind of field. A reader skips kinds that it does not know. The format number stays.
//! - Kinds are never used again for something else, and the meaning and length of a kind never change.
//! - When a field that readers rely on must go, the format number grows by one, and a release still reads the number before its own.
//! - `oldest reader` is the lowest format whose readers may read this envelope; a reader below it refuses. It lets format N+1 be written only for
//!   readers of N+1, or for those of N as well.
//! - Kind 0 ends the fields; zeros follow, up to the padded size.

use std::fmt;

use smallvec::SmallVec;
use zeroize::Zeroizing;

use crate::base::{EngineId, Generation, PoolId, ServerId, UnixTime};
use crate::ticket::credential::{CERTIFICATES_MAX, CertificateId, Credential};

/// Which server a client belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// The pool.
    pub pool: PoolId,
    /// The server.
    pub server: ServerId,
    /// Its incarnation.
    pub generation: Generation,
    /// When the client was first given this server.
    pub assigned: UnixTime,
}

/// The protocol version of the session that a ticket resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// A ticket's plaintext.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Protocol version of the session.
    pub version: TlsVersion,
    /// The mapping; `None` when the service has no persistence.
    pub mapping: Option<Mapping>,
    /// When the session's full handshake was.
    pub original_handshake: UnixTime,
    /// When this ticket was issued.
    pub issued: UnixTime,
    /// Who issued it.
    pub issuer: EngineId,
    /// The certificates that the client has shown, if it has shown any.
    pub client: Option<Credential>,
    /// rustls's own ticket: secrets. Zeroized when dropped.
    pub session: Zeroizing<Vec<u8>>,
}

/// The format that is written.
const FORMAT: u8 = 1;
/// The oldest format that is read: the one before, once there is one.
const FORMAT_OLDEST: u8 = 1;

const END: u8 = 0;
const TLS_VERSION: u8 = 1;
const MAPPING: u8 = 2;
const ORIGINAL_HANDSHAKE: u8 = 3;
const ISSUED: u8 = 4;
const ISSUER: u8 = 5;
const SESSION: u8 = 6;
const CLIENT: u8 = 7;

const TLS12: u8 = 2;
const TLS13: u8 = 3;

/// A mapping's value: whether there is one(1) | pool(8) | server(8) | generation(4) | assigned(8). Without a mapping the rest is zero, so that both are as long.
const MAPPING_SIZE: usize = 29;
/// A client's value: not after(8), then 1 to [`CERTIFICATES_MAX`] times issuer(16) | serial(16). Without certificates the field is absent: a ticket's length
/// tells that a client has shown some anyway, for rustls's own ticket has them whole.
const NOT_AFTER_SIZE: usize = 8;
const CERTIFICATE_SIZE: usize = 32;
/// What precedes a field's value.
const FIELD_HEADER: usize = 3;
/// Everything but the session's bytes and the client's field.
const FIXED_SIZE: usize = 2 + 6 * FIELD_HEADER + 1 + MAPPING_SIZE + 8 + 8 + 8;

impl Envelope {
    /// How many bytes [`encode`](Self::encode) appends.
    pub fn encoded_size(&self) -> usize {
        let client = self.client.as_ref().map_or(0, |client| FIELD_HEADER + client_size(client));
        FIXED_SIZE + client + self.session.len()
    }

    /// Appends the encoded envelope, without padding. `None` when the session is longer than its length field can say, or the client's certificates are more
    /// than [`CERTIFICATES_MAX`] or none; `out` then is of no use.
    ///
    /// Grows `out` at most once if it has no room: give it room, for a vector that moves leaves secrets behind.
    #[must_use]
    pub fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        let session_size = u16::try_from(self.session.len()).ok()?;
        out.reserve(self.encoded_size());
        out.extend_from_slice(&[FORMAT, FORMAT]);
        let version = match self.version {
            TlsVersion::Tls12 => TLS12,
            TlsVersion::Tls13 => TLS13,
        };
        field(out, TLS_VERSION, 1).push(version);
        let nothing =
            Mapping { pool: PoolId(0), server: ServerId(0), generation: Generation(0), assigned: UnixTime(0) };
        let mapping = self.mapping.unwrap_or(nothing);
        field(out, MAPPING, 29).push(u8::from(self.mapping.is_some()));
        out.extend_from_slice(&mapping.pool.0.to_be_bytes());
        out.extend_from_slice(&mapping.server.0.to_be_bytes());
        out.extend_from_slice(&mapping.generation.0.to_be_bytes());
        out.extend_from_slice(&mapping.assigned.0.to_be_bytes());
        field(out, ORIGINAL_HANDSHAKE, 8).extend_from_slice(&self.original_handshake.0.to_be_bytes());
        field(out, ISSUED, 8).extend_from_slice(&self.issued.0.to_be_bytes());
        field(out, ISSUER, 8).extend_from_slice(&self.issuer.0.to_be_bytes());
        field(out, SESSION, session_size).extend_from_slice(&self.session);
        if let Some(client) = &self.client {
            if client.certificates.is_empty() || client.certificates.len() > CERTIFICATES_MAX {
                return None;
            }
            let size = u16::try_from(client_size(client)).ok()?;
            field(out, CLIENT, size).extend_from_slice(&client.not_after.0.to_be_bytes());
            for certificate in &client.certificates {
                out.extend_from_slice(&certificate.issuer);
                out.extend_from_slice(&certificate.serial);
            }
        }
        Some(())
    }

    /// Reads an encoded envelope with its padding; `None` when this release cannot.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[format, oldest_reader], mut rest) = bytes.split_first_chunk()?;
        // A later format may still be written for readers of ours; its own number does not matter then.
        if format < FORMAT_OLDEST || oldest_reader > FORMAT {
            return None;
        }
        let (mut version, mut mapping, mut session) = (None, None, None);
        let (mut original_handshake, mut issued, mut issuer) = (None, None, None);
        let mut client = None;
        while let Some((&kind, after)) = rest.split_first() {
            if kind == END {
                break;
            }
            let (&length, after) = after.split_first_chunk()?;
            let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes(length)))?;
            match kind {
                TLS_VERSION => once(&mut version, read_version(value)?)?,
                MAPPING => once(&mut mapping, read_mapping(value)?)?,
                ORIGINAL_HANDSHAKE => once(&mut original_handshake, UnixTime(read_u64(value)?))?,
                ISSUED => once(&mut issued, UnixTime(read_u64(value)?))?,
                ISSUER => once(&mut issuer, EngineId(read_u64(value)?))?,
                SESSION => once(&mut session, value)?,
                CLIENT => once(&mut client, read_client(value)?)?,
                _unknown => {}
            }
            rest = after;
        }
        Some(Self {
            version: version?,
            mapping: mapping?,
            original_handshake: original_handshake?,
            issued: issued?,
            issuer: issuer?,
            client,
            session: Zeroizing::new(session?.to_vec()),
        })
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("version", &self.version)
            .field("mapping", &self.mapping)
            .field("original_handshake", &self.original_handshake)
            .field("issued", &self.issued)
            .field("issuer", &self.issuer)
            .field("client", &self.client)
            .field("session", &format_args!("[{} secret bytes]", self.session.len()))
            .finish()
    }
}

fn client_size(client: &Credential) -> usize {
    NOT_AFTER_SIZE + CERTIFICATE_SIZE * client.certificates.len()
}

fn read_client(value: &[u8]) -> Option<Credential> {
    let (not_after, mut rest) = value.split_first_chunk()?;
    let mut certificates = SmallVec::new();
    while let Some((certificate, after)) = rest.split_first_chunk::<CERTIFICATE_SIZE>() {
        let (issuer, serial) = certificate.split_first_chunk()?;
        certificates.push(CertificateId { issuer: *issuer, serial: serial.try_into().ok()? });
        rest = after;
    }
    let is_right = rest.is_empty() && (1..=CERTIFICATES_MAX).contains(&certificates.len());
    is_right.then(|| Credential { not_after: UnixTime(u64::from_be_bytes(*not_after)), certificates })
}

fn field(out: &mut Vec<u8>, kind: u8, length: u16) -> &mut Vec<u8> {
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out
}

/// Fills a slot that must be empty: a field that comes twice has two meanings.
fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

fn read_u64(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

fn read_version(value: &[u8]) -> Option<TlsVersion> {
    match value {
        [TLS12] => Some(TlsVersion::Tls12),
        [TLS13] => Some(TlsVersion::Tls13),
        _ => None,
    }
}

fn read_mapping(value: &[u8]) -> Option<Option<Mapping>> {
    let value: &[u8; MAPPING_SIZE] = value.try_into().ok()?;
    let (&[is_some], value) = value.split_first_chunk()?;
    let (pool, value) = value.split_first_chunk()?;
    let (server, value) = value.split_first_chunk()?;
    let (generation, assigned) = value.split_first_chunk()?;
    let mapping = Mapping {
        pool: PoolId(u64::from_be_bytes(*pool)),
        server: ServerId(u64::from_be_bytes(*server)),
        generation: Generation(u32::from_be_bytes(*generation)),
        assigned: UnixTime(read_u64(assigned)?),
    };
    match is_some {
        0 => Some(None),
        1 => Some(Some(mapping)),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An envelope with a session of `size` bytes.
    pub(crate) fn sample(size: usize) -> Envelope {
        Envelope {
            version: TlsVersion::Tls13,
            mapping: Some(Mapping {
                pool: PoolId(1),
                server: ServerId(2),
                generation: Generation(3),
                assigned: UnixTime(1_700_000_000),
            }),
            original_handshake: UnixTime(1_700_000_001),
            issued: UnixTime(1_700_000_002),
            issuer: EngineId(4),
            client: None,
            session: Zeroizing::new(vec![0x5a; size]),
        }
    }

    fn encoded(envelope: &Envelope) -> Vec<u8> {
        let mut bytes = Vec::new();
        envelope.encode(&mut bytes).unwrap();
        assert_eq!(bytes.len(), envelope.encoded_size());
        bytes
    }

    prop_compose! {
        fn any_envelope()(
            tls12: bool,
            mapping: Option<(u64, u64, u32, u64)>,
            times: (u64, u64),
            issuer: u64,
            client: Option<(u64, Vec<([u8; 16], [u8; 16])>)>,
            session: Vec<u8>,
        ) -> Envelope {
            Envelope {
                version: if tls12 { TlsVersion::Tls12 } else { TlsVersion::Tls13 },
                mapping: mapping.map(|(pool, server, generation, assigned)| Mapping {
                    pool: PoolId(pool),
                    server: ServerId(server),
                    generation: Generation(generation),
                    assigned: UnixTime(assigned),
                }),
                original_handshake: UnixTime(times.0),
                issued: UnixTime(times.1),
                issuer: EngineId(issuer),
                client: client.filter(|(_, certificates)| !certificates.is_empty()).map(|(not_after, certificates)| Credential {
                    not_after: UnixTime(not_after),
                    certificates: certificates
                        .into_iter()
                        .take(CERTIFICATES_MAX)
                        .map(|(issuer, serial)| CertificateId { issuer, serial })
                        .collect(),
                }),
                session: Zeroizing::new(session),
            }
        }
    }

    proptest! {
        #[test]
        fn s7_what_was_encoded_is_decoded(envelope in any_envelope(), padding in 0..300_usize) {
            let mut bytes = encoded(&envelope);
            bytes.resize(bytes.len() + padding, 0);
            prop_assert_eq!(Envelope::decode(&bytes), Some(envelope));
        }

        #[test]
        fn s9_any_bytes_are_decoded_or_refused_without_panic(bytes: Vec<u8>, cut in 0..100_usize) {
            let _ = Envelope::decode(&bytes);
            let mut real = encoded(&sample(20));
            real.truncate(cut);
            prop_assert!(cut >= real.len() || Envelope::decode(&real).is_none());
        }
    }

    #[test]
    fn s7_the_encoding_of_format_1_does_not_change() {
        let expected = concat!(
            "0101",
            "01000103",
            "02001d010000000000000001000000000000000200000003000000006553f100",
            "030008000000006553f101",
            "040008000000006553f102",
            "0500080000000000000004",
            "0600025a5a",
        );
        assert_eq!(hex::encode(encoded(&sample(2))), expected);
    }

    /// An envelope of a client with so many certificates.
    fn with_certificates(count: usize) -> Envelope {
        let certificates = std::iter::repeat_n(CertificateId { issuer: [0xaa; 16], serial: [0xbb; 16] }, count);
        let client = Credential { not_after: UnixTime(0x0102), certificates: certificates.collect() };
        Envelope { client: Some(client), ..sample(2) }
    }

    #[test]
    fn s7_the_encoding_of_a_clients_certificates_does_not_change() {
        let bytes = encoded(&with_certificates(1));
        let field = concat!(
            "070028",
            "0000000000000102",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        );
        assert_eq!(hex::encode(&bytes), hex::encode(encoded(&sample(2))) + field);
        assert_eq!(Envelope::decode(&bytes), Some(with_certificates(1)));
    }

    #[test]
    fn h6_no_envelope_has_more_certificates_than_the_bound_or_a_field_without_any() {
        for count in [1, CERTIFICATES_MAX] {
            assert_eq!(Envelope::decode(&encoded(&with_certificates(count))), Some(with_certificates(count)));
        }
        for count in [0, CERTIFICATES_MAX + 1] {
            assert_eq!(with_certificates(count).encode(&mut Vec::new()), None);
        }
        // Nor is one read that somebody else has written so, or with half a certificate.
        let size = |count: u16| 8 + 32 * count;
        for size in [0, 7, size(0), size(1) - 1, size(1) + 1, size(9)] {
            let mut bytes = encoded(&sample(1));
            field(&mut bytes, CLIENT, size).extend(std::iter::repeat_n(1, size.into()));
            assert_eq!(Envelope::decode(&bytes), None, "{size}");
        }
    }

    #[test]
    fn s7_an_envelope_with_unknown_fields_still_opens() {
        let envelope = sample(10);
        let mut bytes = encoded(&envelope);
        // One in front of what is known, one behind, one empty.
        bytes.splice(2..2, [200, 0, 3, 1, 2, 3]);
        bytes.extend_from_slice(&[201, 0, 1, 9, 255, 0, 0]);
        assert_eq!(Envelope::decode(&bytes), Some(envelope));
    }

    #[test]
    fn s7_a_later_format_is_read_only_if_it_was_written_for_us_too() {
        let envelope = sample(10);
        let mut bytes = encoded(&envelope);
        bytes[0] = FORMAT + 1;
        assert_eq!(Envelope::decode(&bytes), Some(envelope));
        bytes[1] = FORMAT + 1;
        assert_eq!(Envelope::decode(&bytes), None);
    }

    #[test]
    fn s7_a_missing_or_doubled_field_is_refused() {
        let bytes = encoded(&sample(1));
        let mut doubled = bytes.clone();
        doubled.extend_from_slice(&[SESSION, 0, 1, 1]);
        assert_eq!(Envelope::decode(&doubled), None);
        let without_session = &bytes[..bytes.len() - FIELD_HEADER - 1];
        assert_eq!(Envelope::decode(without_session), None);
    }

    #[test]
    fn s6_a_mapping_does_not_change_the_size() {
        let with = sample(100);
        let without = Envelope { mapping: None, ..with.clone() };
        assert_eq!(encoded(&with).len(), encoded(&without).len());
    }

    #[test]
    fn a_session_beyond_its_length_field_is_not_encoded() {
        assert_eq!(sample(65_535).encode(&mut Vec::new()), Some(()));
        assert_eq!(sample(65_536).encode(&mut Vec::new()), None);
    }

    #[test]
    fn debug_does_not_show_the_session() {
        let shown = format!("{:?}", sample(77));
        assert!(shown.contains("[77 secret bytes]") && !shown.contains("90, 90"), "{shown}");
    }
}
