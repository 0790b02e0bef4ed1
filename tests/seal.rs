//! The seal against the vectors of tests/seal, which another implementation made after the document there.
#![allow(clippy::unwrap_used, reason = "a test")]

use sealane::base::{EngineId, Generation, PoolId, Random, ServerId, UnixTime};
use sealane::control::identity;
use sealane::ticket::ring::{Entry, State};
use sealane::ticket::{
    CertificateId, Credential, Envelope, Key, KeyId, Mapping, Refusal, Ring, Scope, TlsVersion, open, seal,
};
use serde::Deserialize;
use zeroize::Zeroizing;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    comes_to: String,
    ring: Vec<VectorKey>,
    cluster: String,
    service: String,
    policy: String,
    ticket: String,
    envelope: Option<VectorEnvelope>,
    seed: Option<u64>,
}

#[derive(Deserialize)]
struct VectorKey {
    id: String,
    secret: String,
}

#[derive(Deserialize)]
struct VectorEnvelope {
    version: String,
    mapping: Option<VectorMapping>,
    session: String,
    original_handshake: u64,
    issued: u64,
    issuer: u64,
    client: Option<VectorClient>,
}

#[derive(Deserialize)]
struct VectorClient {
    not_after: u64,
    certificates: Vec<VectorCertificate>,
}

#[derive(Deserialize)]
struct VectorCertificate {
    issuer: String,
    serial: String,
}

impl VectorClient {
    fn credential(&self) -> Credential {
        let bytes = |text: &str| hex::decode(text).unwrap().try_into().unwrap();
        let id = |said: &VectorCertificate| CertificateId { issuer: bytes(&said.issuer), serial: bytes(&said.serial) };
        Credential { not_after: UnixTime(self.not_after), certificates: self.certificates.iter().map(id).collect() }
    }
}

#[derive(Deserialize)]
struct VectorMapping {
    pool: u64,
    server: u64,
    generation: u32,
    assigned: u64,
}

impl Vector {
    fn all() -> Vec<Self> {
        serde_json::from_str(include_str!("seal/vectors.json")).unwrap()
    }

    fn ring(&self) -> Ring {
        let entry = |(place, key): (usize, &VectorKey)| Entry {
            key: Key::new(key.id.parse::<KeyId>().unwrap(), &hex::decode(&key.secret).unwrap()).unwrap(),
            state: if place == 0 { State::Active } else { State::Pending },
            created: UnixTime(0),
            not_before: UnixTime(0),
            activated: (place == 0).then_some(UnixTime(0)),
            not_after: None,
        };
        Ring::new(1, self.ring.iter().enumerate().map(entry).collect(), Vec::new()).unwrap()
    }

    fn scope(&self) -> Scope {
        Scope {
            cluster: identity::cluster(&self.cluster),
            service: identity::service(&self.service),
            policy: hex::decode(&self.policy).unwrap().try_into().unwrap(),
        }
    }

    fn envelope(&self) -> Option<Envelope> {
        self.envelope.as_ref().map(|said| Envelope {
            version: match said.version.as_str() {
                "1.2" => TlsVersion::Tls12,
                "1.3" => TlsVersion::Tls13,
                other => panic!("there is no TLS {other}"),
            },
            mapping: said.mapping.as_ref().map(|mapping| Mapping {
                pool: PoolId(mapping.pool),
                server: ServerId(mapping.server),
                generation: Generation(mapping.generation),
                assigned: UnixTime(mapping.assigned),
            }),
            original_handshake: UnixTime(said.original_handshake),
            issued: UnixTime(said.issued),
            issuer: EngineId(said.issuer),
            client: said.client.as_ref().map(VectorClient::credential),
            session: Zeroizing::new(hex::decode(&said.session).unwrap()),
        })
    }
}

fn name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Length => "length",
        Refusal::Version => "version",
        Refusal::UnknownKey => "unknown-key",
        Refusal::Forged => "forged",
        Refusal::Envelope => "envelope",
    }
}

#[test]
fn s1_every_vector_comes_to_what_it_says() {
    let mut seen = std::collections::BTreeSet::new();
    for vector in Vector::all() {
        let keys = vector.ring().for_service(&vector.scope());
        let opened = open(&keys, &hex::decode(&vector.ticket).unwrap());
        let came_to = opened.as_ref().map_or_else(|refusal| name(*refusal), |_| "opens");
        assert_eq!(came_to, vector.comes_to, "{}", vector.name);
        assert_eq!(opened.ok().map(|(envelope, _)| envelope), vector.envelope(), "{}", vector.name);
        seen.insert(came_to);
    }
    assert_eq!(seen.len(), 6, "no way to end is left out: {seen:?}");
}

#[test]
fn s1_what_is_sealed_here_is_what_the_document_makes_of_it() {
    let mut sealed = 0;
    for vector in Vector::all() {
        let Some(seed) = vector.seed else { continue };
        let nonce = hex::encode(Random::from_seed(seed).array::<24>());
        assert_eq!(nonce, vector.ticket[18..66], "{}: the nonce of seed {seed}", vector.name);
        let keys = vector.ring().for_service(&vector.scope());
        let ticket = seal(&keys, &vector.envelope().unwrap(), &mut Random::from_seed(seed)).unwrap();
        assert_eq!(hex::encode(ticket), vector.ticket, "{}", vector.name);
        sealed += 1;
    }
    assert_eq!(sealed, 4);
}

#[test]
fn h6_a_certificate_is_known_as_the_document_says() {
    let id = |serial: &[u8]| CertificateId::new(b"\x30\x0b issuer", serial);
    let said = Vector::all().into_iter().find_map(|vector| vector.envelope?.client).unwrap();
    assert_eq!(said.credential().certificates.as_slice(), [id(&[1]), id(&[0, 0x80, 2])]);
}
