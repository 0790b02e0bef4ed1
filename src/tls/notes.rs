//! What is noted while rustls shakes hands: what a client asks for, and the keys that are agreed on.
//!
//! Whoever calls into rustls lays out the notes of one session for the length of the call, in a thread-local: rustls calls back without any context.
//!
//! rustls gives its keys away only at the price of deriving them again, some 10 µs. So its cipher suites are wrapped: where notes are laid out, a key becomes a
//! cipher of ours, which stays with the notes and is lent to rustls; anywhere else they do what they do. The last ciphers of a handshake are those of the session's
//! data; what made their keys (for KeyUpdate) comes by the key log.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::crypto::CipherSuiteCommon;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter,
    OutboundOpaqueMessage, OutboundPlainMessage, Tls12AeadAlgorithm, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::tls13::OkmBlock;
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, Error, KeyLog, PeerMisbehaved, ProtocolVersion, SupportedCipherSuite,
    Tls12CipherSuite, Tls13CipherSuite,
};

use crate::base::{Piece, UnixTime};
use crate::ticket::{Credential, TlsVersion};
use crate::tls::cipher::{Cipher, HEADER, Kind, OVERHEAD_MAX, Unopened};
use crate::tls::secrets::Secrets;

thread_local! {
    static LAID_OUT: RefCell<Option<Box<Notes>>> = const { RefCell::new(None) };
}

/// What is noted of one session's handshake.
#[derive(Default)]
pub(super) struct Notes {
    /// Its ClientHello, until the session has read it.
    pub(super) hello: Option<Hello>,
    /// The certificates that the client has shown, now or when it got the ticket that it brings.
    pub(super) client: Shown,
    /// To seal and to open with.
    pub(super) seal: Option<Cipher>,
    pub(super) open: Option<Cipher>,
    /// The traffic secrets of TLS 1.3.
    pub(super) server_secret: Option<OkmBlock>,
    pub(super) client_secret: Option<OkmBlock>,
    /// The wall clock by which a server's certificate is verified, where we are the client.
    pub(super) now: Option<UnixTime>,
}

/// What certificates a client has shown.
#[derive(Debug, Default)]
pub(super) enum Shown {
    /// None.
    #[default]
    Nothing,
    /// These, and they were right.
    Credential(Credential),
    /// More than a ticket can speak of: they were right, and there will be no ticket.
    TooMuch,
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
            aead_alg: Box::leak(Box::new(Noting13 { suite: suite.common.suite, inner: suite.aead_alg })),
            quic: None,
        }))),
        SupportedCipherSuite::Tls12(suite) => SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
            common: common_of(&suite.common),
            prf_provider: suite.prf_provider,
            kx: suite.kx,
            sign: suite.sign,
            aead_alg: Box::leak(Box::new(Noting12 { suite: suite.common.suite, inner: suite.aead_alg })),
        }))),
    }
}

fn common_of(common: &CipherSuiteCommon) -> CipherSuiteCommon {
    let CipherSuiteCommon { suite, hash_provider, confidentiality_limit } = *common;
    CipherSuiteCommon { suite, hash_provider, confidentiality_limit }
}

/// Runs `call` into rustls with the notes of a session laid out, if it has any. Only a pointer moves.
pub(super) fn during<R>(notes: &mut Option<Box<Notes>>, call: impl FnOnce() -> R) -> R {
    LAID_OUT.set(notes.take());
    let result = call();
    *notes = LAID_OUT.take();
    result
}

/// Gives `what` the notes of the session that shakes hands; `None` where there is none.
pub(super) fn note<R>(what: impl FnOnce(&mut Notes) -> R) -> Option<R> {
    LAID_OUT.with_borrow_mut(|notes| notes.as_deref_mut().map(what))
}

/// Notes a ClientHello; the second of a handshake says no more than the first.
pub(super) fn note_hello(hello: Hello) {
    note(|notes| notes.hello = Some(hello));
}

/// Notes the certificates of a client, which have just been verified.
pub(super) fn note_client(shown: Shown) {
    note(|notes| notes.client = shown);
}

/// Notes a cipher; what is lent to rustls instead, if there is somewhere to note it.
fn lend(
    version: TlsVersion,
    place: impl FnOnce(&mut Notes) -> &mut Option<Cipher>,
    cipher: impl FnOnce() -> Option<Cipher>,
) -> Option<Box<Lent>> {
    let noted = note(|notes| {
        let place = place(notes);
        *place = cipher();
        place.is_some()
    });
    noted.filter(|noted| *noted).map(|_| Box::new(Lent { version }))
}

struct Noting13 {
    suite: CipherSuite,
    inner: &'static dyn Tls13AeadAlgorithm,
}

impl Noting13 {
    fn cipher(&self, key: &AeadKey, iv: &Iv) -> Option<Cipher> {
        Cipher::new(self.suite, TlsVersion::Tls13, key.as_ref(), &[iv.as_ref()])
    }
}

impl Tls13AeadAlgorithm for Noting13 {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        match lend(TlsVersion::Tls13, |notes| &mut notes.seal, || self.cipher(&key, &iv)) {
            Some(lent) => lent,
            None => self.inner.encrypter(key, iv),
        }
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        match lend(TlsVersion::Tls13, |notes| &mut notes.open, || self.cipher(&key, &iv)) {
            Some(lent) => lent,
            None => self.inner.decrypter(key, iv),
        }
    }

    fn key_len(&self) -> usize {
        self.inner.key_len()
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.inner.extract_keys(key, iv)
    }
}

struct Noting12 {
    suite: CipherSuite,
    inner: &'static dyn Tls12AeadAlgorithm,
}

impl Noting12 {
    fn cipher(&self, key: &AeadKey, iv: &[&[u8]]) -> Option<Cipher> {
        Cipher::new(self.suite, TlsVersion::Tls12, key.as_ref(), iv)
    }
}

impl Tls12AeadAlgorithm for Noting12 {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        match lend(TlsVersion::Tls12, |notes| &mut notes.seal, || self.cipher(&key, &[iv, extra])) {
            Some(lent) => lent,
            None => self.inner.encrypter(key, iv, extra),
        }
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        match lend(TlsVersion::Tls12, |notes| &mut notes.open, || self.cipher(&key, &[iv])) {
            Some(lent) => lent,
            None => self.inner.decrypter(key, iv),
        }
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        self.inner.key_block_shape()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.inner.extract_keys(key, iv, explicit)
    }
}

/// What rustls seals and opens records of the handshake with: the cipher that is noted, so that no key is set up twice. rustls counts records as the cipher does.
struct Lent {
    version: TlsVersion,
}

impl MessageEncrypter for Lent {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, _seq: u64) -> Result<OutboundOpaqueMessage, Error> {
        let kind = Kind::of(message.typ.into()).ok_or(Error::EncryptError)?;
        let plaintext = Piece::from(&message.payload.to_vec()[..]);
        let record = note(|notes| notes.seal.as_mut()?.seal(kind, plaintext)).flatten();
        let record = record.ok_or(Error::EncryptError)?;
        let ([outside, ..], body) = record.bytes().split_first_chunk::<HEADER>().ok_or(Error::EncryptError)?;
        Ok(OutboundOpaqueMessage::new((*outside).into(), ProtocolVersion::TLSv1_2, body.into()))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len + OVERHEAD_MAX - HEADER
    }
}

impl MessageDecrypter for Lent {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        _seq: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let outside = Kind::of(message.typ.into()).ok_or(Error::DecryptError)?;
        let opened = note(|notes| notes.open.as_mut().map(|cipher| cipher.open(outside, &mut message.payload)));
        let (kind, range) = opened.flatten().ok_or(Error::DecryptError)?.map_err(|unopened| match unopened {
            Unopened::Forged => Error::DecryptError,
            Unopened::TooLong => Error::PeerSentOversizedRecord,
            Unopened::NoContentType => PeerMisbehaved::IllegalTlsInnerPlaintext.into(),
        })?;
        message.typ = match kind {
            // RFC 8446 5: nobody protects a change_cipher_spec record.
            Some(Kind::ChangeCipherSpec) => return Err(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into()),
            Some(kind) => (kind as u8).into(),
            None => return Err(PeerMisbehaved::IllegalTlsInnerPlaintext.into()),
        };
        if self.version == TlsVersion::Tls13 {
            // From outside every record is of TLS 1.2 (RFC 8446 5.2); rustls reads a Certificate message by what this says.
            message.version = ProtocolVersion::TLSv1_3;
        }
        Ok(message.into_plain_message_range(range))
    }
}

/// Notes the traffic secrets of TLS 1.3. It tells nobody, unless there is somebody to tell.
#[derive(Debug, Default)]
pub(super) struct SecretsNoted {
    told: Option<Arc<Secrets>>,
}

impl SecretsNoted {
    /// The same, which tells them besides.
    pub(super) fn telling(secrets: Arc<Secrets>) -> Self {
        Self { told: Some(secrets) }
    }

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
        self.told.is_some() || label.ends_with("_TRAFFIC_SECRET_0")
    }

    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if let Some(secrets) = &self.told {
            secrets.tell(label, client_random, secret);
        }
        note(|notes| {
            if let Some(place) = Self::place(label, notes).filter(|_| secret.len() <= OkmBlock::MAX_LEN) {
                *place = Some(OkmBlock::new(secret));
            }
        });
    }
}
