//! Feeds `ticket::open` arbitrary bytes and altered tickets, and `Envelope::decode` arbitrary bytes.
//!
//! Only an unaltered ticket opens, for its own scope alone, and gives back what was sealed. An envelope that is decoded encodes to one that
//! means the same.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sealane::base::{EngineId, Generation, PoolId, Random, ServerId, ServiceId, UnixTime};
use sealane::ticket::credential::CERTIFICATES_MAX;
use sealane::ticket::seal::{BUCKET, key_id};
use sealane::ticket::{
    CertificateId, Credential, Envelope, Mapping, Refusal, Scope, ServiceKeys, TICKET_MAX, TlsVersion, open, seal,
};
use sealane_fuzz::{SCOPE, ring};
use zeroize::Zeroizing;

#[derive(Arbitrary, Debug)]
enum Input {
    /// Bytes, and whether a right header is put before them.
    Bytes(bool, Vec<u8>),
    /// A sealed envelope, and what is done to the ticket.
    Sealed(Sealed, Vec<Alteration>),
    /// A ticket's plaintext.
    Envelope(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Sealed {
    tls12: bool,
    mapping: Option<(u64, u64, u32, u64)>,
    times: (u64, u64),
    issuer: u64,
    client: Option<(u64, ([u8; 16], [u8; 16]), Vec<([u8; 16], [u8; 16])>)>,
    session: Vec<u8>,
    seed: u64,
}

#[derive(Arbitrary, Debug)]
enum Alteration {
    Flip { at: u16, bits: u8 },
    Truncate { to: u16 },
    Extend(Vec<u8>),
    Swap { at: u16, with: u16 },
}

static KEYS: LazyLock<ServiceKeys> = LazyLock::new(|| ring().for_service(&SCOPE));
static OTHERS: LazyLock<Vec<ServiceKeys>> = LazyLock::new(|| {
    let others = [
        Scope { cluster: [9; 32], ..SCOPE },
        Scope { service: ServiceId(9), ..SCOPE },
        Scope { policy: [9; 32], ..SCOPE },
    ];
    others.iter().map(|scope| ring().for_service(scope)).collect()
});

fuzz_target!(|input: Input| {
    match input {
        Input::Bytes(with_header, bytes) => {
            let mut ticket = Vec::new();
            if with_header {
                ticket.push(1);
                ticket.extend(KEYS.active().expect("the ring may seal").0);
            }
            ticket.extend(bytes);
            assert!(open(&KEYS, &ticket).is_err(), "a forged ticket opens");
            let _ = key_id(&ticket);
        }
        Input::Sealed(sealed, alterations) => check_sealed(&sealed, &alterations),
        Input::Envelope(bytes) => check_envelope(&bytes),
    }
});

fn check_sealed(sealed: &Sealed, alterations: &[Alteration]) {
    let envelope = sealed.envelope();
    let Some(ticket) = seal(&KEYS, &envelope, &mut Random::from_seed(sealed.seed)) else {
        assert!(envelope.encoded_size() + BUCKET > TICKET_MAX - 49 - BUCKET, "what fits is not sealed");
        return;
    };
    assert!(ticket.len() <= TICKET_MAX && (ticket.len() - 49) % BUCKET == 0);
    let id = KEYS.active().expect("the ring may seal");
    assert_eq!(key_id(&ticket), Ok(id));
    assert_eq!(open(&KEYS, &ticket), Ok((envelope, id)));
    for keys in OTHERS.iter() {
        assert_eq!(open(keys, &ticket), Err(Refusal::Forged), "it opens in another scope");
    }
    let mut altered = ticket.clone();
    for alteration in alterations {
        alteration.apply(&mut altered);
    }
    assert!(altered == ticket || open(&KEYS, &altered).is_err(), "an altered ticket opens");
}

fn check_envelope(bytes: &[u8]) {
    let Some(envelope) = Envelope::decode(bytes) else { return };
    assert!(envelope.session.len() <= bytes.len());
    let mut encoded = Vec::new();
    envelope.encode(&mut encoded).expect("it has come from as long a field");
    assert_eq!(encoded.len(), envelope.encoded_size());
    encoded.extend([0; 9]);
    assert_eq!(Envelope::decode(&encoded), Some(envelope));
}

impl Sealed {
    fn envelope(&self) -> Envelope {
        Envelope {
            version: if self.tls12 { TlsVersion::Tls12 } else { TlsVersion::Tls13 },
            mapping: self.mapping.map(|(pool, server, generation, assigned)| Mapping {
                pool: PoolId(pool),
                server: ServerId(server),
                generation: Generation(generation),
                assigned: UnixTime(assigned),
            }),
            original_handshake: UnixTime(self.times.0),
            issued: UnixTime(self.times.1),
            issuer: EngineId(self.issuer),
            client: self.client.as_ref().map(|(not_after, own, path)| Credential {
                not_after: UnixTime(*not_after),
                certificates: std::iter::once(own)
                    .chain(path)
                    .take(CERTIFICATES_MAX)
                    .map(|(issuer, serial)| CertificateId { issuer: *issuer, serial: *serial })
                    .collect(),
            }),
            session: Zeroizing::new(self.session.clone()),
        }
    }
}

impl Alteration {
    fn apply(&self, ticket: &mut Vec<u8>) {
        let len = ticket.len().max(1);
        match self {
            Self::Flip { at, bits } => {
                if let Some(byte) = ticket.get_mut(usize::from(*at) % len) {
                    *byte ^= bits;
                }
            }
            Self::Truncate { to } => ticket.truncate(usize::from(*to) % len),
            Self::Extend(bytes) => ticket.extend(bytes),
            Self::Swap { at, with } => {
                if !ticket.is_empty() {
                    ticket.swap(usize::from(*at) % len, usize::from(*with) % len);
                }
            }
        }
    }
}
