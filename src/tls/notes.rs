//! What is noted while rustls shakes hands, on the desk that is laid out: what the client asks for, and the keys that are agreed on.
//!
//! rustls gives its keys away only at the price of deriving them again, some 10 µs. So its cipher suites are wrapped: they do what they do, and what passes through
//! them is noted. The last keys of a handshake are those of the session's data; what made them (for KeyUpdate) comes by the key log.

use rustls::crypto::CipherSuiteCommon;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter,
    OutboundOpaqueMessage, OutboundPlainMessage, Tls12AeadAlgorithm, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::tls13::OkmBlock;
use rustls::{ConnectionTrafficSecrets, Error, KeyLog, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite};

use crate::tls::cipher::Material;
use crate::tls::desk;

/// What is noted of one session's handshake.
#[derive(Default)]
pub(super) struct Notes {
    /// Its ClientHello, until the session has read it.
    pub(super) hello: Option<Hello>,
    /// To seal with, and how many records have been.
    pub(super) seal: Material,
    pub(super) sealed: u64,
    /// To open with, and how many records have been.
    pub(super) open: Material,
    pub(super) opened: u64,
    /// The traffic secrets of TLS 1.3, ours and the client's.
    pub(super) server_secret: Option<OkmBlock>,
    pub(super) client_secret: Option<OkmBlock>,
}

/// What counts of a ClientHello.
#[derive(Debug)]
pub(super) struct Hello {
    /// Server name that the client asks for.
    pub(super) server_name: Option<Box<str>>,
    pub(super) admission: Admission,
    /// Whether it can verify a signature by the key of the certificate that it is shown.
    pub(super) can_verify_us: bool,
}

/// What a service does with a server name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Shows its certificate, or the default one to a client that names no server.
    Known,
    /// Shows the default certificate all the same.
    Unknown,
    /// Ends the handshake.
    Refused,
}

impl std::fmt::Debug for Notes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notes").finish_non_exhaustive()
    }
}

/// A cipher suite that notes its keys. It is for ever, as rustls wants it: once a process is enough.
pub(super) fn noting(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    match suite {
        SupportedCipherSuite::Tls13(suite) => SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
            common: common_of(&suite.common),
            hkdf_provider: suite.hkdf_provider,
            aead_alg: Box::leak(Box::new(Noting13(suite.aead_alg))),
            quic: None,
        }))),
        SupportedCipherSuite::Tls12(suite) => SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
            common: common_of(&suite.common),
            prf_provider: suite.prf_provider,
            kx: suite.kx,
            sign: suite.sign,
            aead_alg: Box::leak(Box::new(Noting12(suite.aead_alg))),
        }))),
    }
}

fn common_of(common: &CipherSuiteCommon) -> CipherSuiteCommon {
    let CipherSuiteCommon { suite, hash_provider, confidentiality_limit } = *common;
    CipherSuiteCommon { suite, hash_provider, confidentiality_limit }
}

fn note(what: impl FnOnce(&mut Notes)) {
    desk::with(|papers| papers.notes.as_deref_mut().map(what));
}

/// Notes a ClientHello; the second of a handshake says no more than the first.
pub(super) fn note_hello(hello: Hello) {
    note(|notes| notes.hello = Some(hello));
}

fn note_seal(key: &AeadKey, iv: &[&[u8]]) {
    note(|notes| (notes.seal, notes.sealed) = (Material::new(key.as_ref(), iv), 0));
}

fn note_open(key: &AeadKey, iv: &[u8]) {
    note(|notes| (notes.open, notes.opened) = (Material::new(key.as_ref(), &[iv]), 0));
}

struct Noting13(&'static dyn Tls13AeadAlgorithm);

impl Tls13AeadAlgorithm for Noting13 {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        note_seal(&key, &[iv.as_ref()]);
        Box::new(Counting(self.0.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        note_open(&key, iv.as_ref());
        Box::new(Counting(self.0.decrypter(key, iv)))
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
}

struct Noting12(&'static dyn Tls12AeadAlgorithm);

impl Tls12AeadAlgorithm for Noting12 {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        note_seal(&key, &[iv, extra]);
        Box::new(Counting(self.0.encrypter(key, iv, extra)))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        note_open(&key, iv);
        Box::new(Counting(self.0.decrypter(key, iv)))
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        self.0.key_block_shape()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv, explicit)
    }
}

/// A cipher that notes how many records it has done.
struct Counting<T>(T);

impl MessageEncrypter for Counting<Box<dyn MessageEncrypter>> {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, Error> {
        note(|notes| notes.sealed = seq + 1);
        self.0.encrypt(message, seq)
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.0.encrypted_payload_len(payload_len)
    }
}

impl MessageDecrypter for Counting<Box<dyn MessageDecrypter>> {
    fn decrypt<'a>(&mut self, message: InboundOpaqueMessage<'a>, seq: u64) -> Result<InboundPlainMessage<'a>, Error> {
        note(|notes| notes.opened = seq + 1);
        self.0.decrypt(message, seq)
    }
}

/// Notes the traffic secrets of TLS 1.3. It logs nothing.
#[derive(Debug)]
pub(super) struct SecretsNoted;

impl SecretsNoted {
    fn place<'a>(label: &str, notes: &'a mut Notes) -> Option<&'a mut Option<OkmBlock>> {
        match label {
            "SERVER_TRAFFIC_SECRET_0" => Some(&mut notes.server_secret),
            "CLIENT_TRAFFIC_SECRET_0" => Some(&mut notes.client_secret),
            _ => None,
        }
    }
}

impl KeyLog for SecretsNoted {
    fn will_log(&self, label: &str) -> bool {
        label.ends_with("_TRAFFIC_SECRET_0")
    }

    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        note(|notes| {
            if let Some(place) = Self::place(label, notes).filter(|_| secret.len() <= OkmBlock::MAX_LEN) {
                *place = Some(OkmBlock::new(secret));
            }
        });
    }
}
