//! Records of an established session (RFC 8446 5, RFC 5246 6.2): each is opened where it lies, and sealed into a buffer of its own that TCP keeps until it is
//! acknowledged.
//!
//! rustls shakes hands and then hands over the keys; its cipher suites do the cryptography here as there. What is allowed after a handshake, and how often, is what
//! rustls allows: application data, alerts, KeyUpdate in TLS 1.3, and one refused renegotiation in TLS 1.2.

use std::ops::Range;

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
    Tls12AeadAlgorithm,
};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, PeerMisbehaved, ProtocolVersion,
    SupportedCipherSuite,
};

use crate::ticket::TlsVersion;
use crate::tls::failure::Failure;

/// Most plaintext in a record (RFC 8446 5.1).
pub const PLAINTEXT_MAX: usize = 16_384;

/// What a record adds to its plaintext at most: header, explicit nonce of TLS 1.2 or content type of TLS 1.3, tag.
pub const OVERHEAD_MAX: usize = HEADER + 8 + 16;

/// Content type, version, length.
pub(super) const HEADER: usize = 5;

/// Most bytes behind a header (RFC 5246 6.2.3; TLS 1.3 allows fewer).
const BODY_MAX: usize = PLAINTEXT_MAX + 2048;

/// The longest record.
pub(super) const RECORD_MAX: usize = HEADER + BODY_MAX;

/// A KeyUpdate without its last byte, which is whether the peer is to answer with one (RFC 8446 4.6.3).
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

/// The handshake message that would begin a renegotiation.
const CLIENT_HELLO: u8 = 1;

/// Levels of alerts.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// No sequence number comes near its end, whatever a cipher allows.
const SEQ_MAX: u64 = 1 << 63;

/// KeyUpdates in a row without application data between them, as in BoringSSL.
const KEY_UPDATES_MAX: u8 = 32;

/// Records without content in a row, as in rustls.
const EMPTY_MAX: u8 = 32;

/// Alerts of level warning in a session, as in BoringSSL.
const WARNINGS_MAX: u8 = 4;

/// The alerts that are sent from here (RFC 8446 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Alert {
    CloseNotify = 0,
    UnexpectedMessage = 10,
    BadRecordMac = 20,
    RecordOverflow = 22,
    IllegalParameter = 47,
    DecodeError = 50,
    InternalError = 80,
    UserCanceled = 90,
    NoRenegotiation = 100,
}

/// Why a session cannot go on, and what the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) failure: Failure,
    /// None for a peer that has said by an alert of its own that it is gone.
    pub(super) alert: Option<Alert>,
}

impl Broken {
    const fn by_peer(alert: Alert) -> Self {
        Self { failure: Failure::Protocol, alert: Some(alert) }
    }

    fn of(error: &Error) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "all that rustls's ciphers say of a record is above it")]
        let alert = match error {
            Error::DecryptError => Alert::BadRecordMac,
            Error::PeerSentOversizedRecord => Alert::RecordOverflow,
            Error::PeerMisbehaved(
                PeerMisbehaved::IllegalMiddleboxChangeCipherSpec | PeerMisbehaved::IllegalTlsInnerPlaintext,
            ) => Alert::UnexpectedMessage,
            _ => Alert::InternalError,
        };
        Self { failure: Failure::of(error), alert: Some(alert) }
    }
}

/// Our own fault: keys of a kind that nobody has offered.
const NO_KEYS: Broken = Broken { failure: Failure::Internal, alert: None };

/// What a record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Application data: where in the record it is.
    Data(Range<usize>),
    /// The peer will send nothing more.
    Closed,
    /// The peer wants to shake hands again, and is to be told that it cannot.
    Renegotiation,
    /// Nothing that concerns anybody else.
    Nothing,
}

/// The length of the record that `bytes` begin with; `None` while its header is not whole.
pub(super) fn len(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let [kind, major, _, high, low, ..] = *bytes else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    let kind = ContentType::from(kind);
    let is_known = matches!(
        kind,
        ContentType::ApplicationData | ContentType::Handshake | ContentType::Alert | ContentType::ChangeCipherSpec
    );
    if !is_known || major != 3 || len > BODY_MAX || (len == 0 && kind != ContentType::ApplicationData) {
        return Err(Broken::by_peer(Alert::DecodeError));
    }
    Ok(Some(HEADER + len))
}

/// A session's keys in both directions.
pub(super) struct Records {
    suite: SupportedCipherSuite,
    /// Makes the keys that follow a KeyUpdate.
    keys: KernelConnection<ServerConnectionData>,
    sealer: Box<dyn MessageEncrypter>,
    opener: Box<dyn MessageDecrypter>,
    /// The sequence numbers of the next records.
    seal_seq: u64,
    open_seq: u64,
    /// How many records one key may seal.
    seal_max: u64,
    /// A KeyUpdate goes before the next record: asked for by the peer, or because the keys have sealed as much as they may.
    update_owed: bool,
    /// How much has come of a KeyUpdate that is not whole.
    message_len: usize,
    key_updates_left: u8,
    empty_left: u8,
    warnings_left: u8,
    renegotiations_left: u8,
}

impl Records {
    /// Takes over the keys of a session whose handshake has just ended.
    pub(super) fn new(secrets: ExtractedSecrets, keys: KernelConnection<ServerConnectionData>) -> Result<Self, Broken> {
        let suite = keys.negotiated_cipher_suite();
        let ExtractedSecrets { tx: (seal_seq, tx), rx: (open_seq, rx) } = secrets;
        Ok(Self {
            suite,
            keys,
            sealer: begun(sealer(suite, tx)?, seal_seq)?,
            opener: opener(suite, rx)?,
            seal_seq,
            open_seq,
            seal_max: seal_max(suite),
            update_owed: false,
            message_len: 0,
            key_updates_left: KEY_UPDATES_MAX,
            empty_left: EMPTY_MAX,
            warnings_left: WARNINGS_MAX,
            renegotiations_left: 1,
        })
    }

    fn version(&self) -> TlsVersion {
        match self.suite {
            SupportedCipherSuite::Tls12(_) => TlsVersion::Tls12,
            SupportedCipherSuite::Tls13(_) => TlsVersion::Tls13,
        }
    }

    /// Opens a whole record in place.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Content, Broken> {
        let Some(([kind, ..], body)) = record.split_first_chunk_mut::<HEADER>() else { return Ok(Content::Nothing) };
        let kind = ContentType::from(*kind);
        let is_allowed = match self.version() {
            // RFC 8446 5.2: from outside, everything is application data.
            TlsVersion::Tls13 => kind == ContentType::ApplicationData,
            TlsVersion::Tls12 => kind != ContentType::ChangeCipherSpec,
        };
        if !is_allowed {
            return Err(Broken::by_peer(Alert::UnexpectedMessage));
        }
        let message = InboundOpaqueMessage::new(kind, ProtocolVersion::TLSv1_2, body);
        let opened = self.opener.decrypt(message, self.open_seq).map_err(|error| Broken::of(&error))?;
        self.open_seq += 1;
        // RFC 8446 5.1: nothing comes between the pieces of a handshake message, and an empty record is of application data.
        let is_in_place = self.message_len == 0 || opened.typ == ContentType::Handshake;
        let payload = opened.payload;
        if !is_in_place || (payload.is_empty() && opened.typ != ContentType::ApplicationData) {
            return Err(Broken::by_peer(Alert::UnexpectedMessage));
        }
        if opened.typ == ContentType::ApplicationData {
            let begin = HEADER + explicit_nonce_len(self.suite);
            return self.on_data(begin..begin + payload.len());
        }
        self.empty_left = EMPTY_MAX;
        match (opened.typ, payload) {
            (ContentType::Handshake, _) => self.on_handshake(payload),
            (ContentType::Alert, &[level, description]) => self.on_alert(level, description),
            (ContentType::Alert, _) => Err(Broken::by_peer(Alert::DecodeError)),
            _ => Err(Broken::by_peer(Alert::UnexpectedMessage)),
        }
    }

    fn on_data(&mut self, content: Range<usize>) -> Result<Content, Broken> {
        if content.is_empty() {
            self.empty_left = spend(self.empty_left)?;
            return Ok(Content::Nothing);
        }
        self.empty_left = EMPTY_MAX;
        self.key_updates_left = KEY_UPDATES_MAX;
        Ok(Content::Data(content))
    }

    fn on_handshake(&mut self, payload: &[u8]) -> Result<Content, Broken> {
        match self.version() {
            TlsVersion::Tls13 => self.on_key_update(payload),
            TlsVersion::Tls12 => {
                let &[CLIENT_HELLO, a, b, c, ref rest @ ..] = payload else {
                    return Err(Broken::by_peer(Alert::UnexpectedMessage));
                };
                if u32::from_be_bytes([0, a, b, c]) as usize != rest.len() {
                    return Err(Broken::by_peer(Alert::UnexpectedMessage));
                }
                self.renegotiations_left = spend(self.renegotiations_left)?;
                Ok(Content::Renegotiation)
            }
        }
    }

    /// RFC 8446 4.6.3. It may come in pieces, but what ends a key's life ends its record, too.
    fn on_key_update(&mut self, payload: &[u8]) -> Result<Content, Broken> {
        let (head, last) = match payload.get(KEY_UPDATE.len() - self.message_len..) {
            Some(last) => (payload.get(..payload.len() - last.len()).unwrap_or_default(), last),
            None => (payload, &[][..]),
        };
        let expected = KEY_UPDATE.get(self.message_len..).unwrap_or_default();
        let request = match last {
            _ if !expected.starts_with(head) => return Err(Broken::by_peer(Alert::UnexpectedMessage)),
            [] => {
                self.message_len += head.len();
                return Ok(Content::Nothing);
            }
            [request] => *request,
            _ => return Err(Broken::by_peer(Alert::UnexpectedMessage)),
        };
        self.message_len = 0;
        self.key_updates_left = spend(self.key_updates_left)?;
        match request {
            UPDATE_NOT_REQUESTED => {}
            UPDATE_REQUESTED => self.update_owed = true,
            _ => return Err(Broken::by_peer(Alert::IllegalParameter)),
        }
        let (seq, secrets) = self.keys.update_rx_secret().map_err(|error| Broken::of(&error))?;
        (self.open_seq, self.opener) = (seq, opener(self.suite, secrets)?);
        Ok(Content::Nothing)
    }

    fn on_alert(&mut self, level: u8, description: u8) -> Result<Content, Broken> {
        let failed = |alert| Err(Broken { failure: Failure::AlertReceived, alert });
        if !(WARNING..=FATAL).contains(&level) {
            return failed(Some(Alert::IllegalParameter));
        }
        if description == Alert::CloseNotify as u8 {
            return Ok(Content::Closed);
        }
        if level == FATAL {
            return failed(None);
        }
        self.warnings_left = spend(self.warnings_left)?;
        // RFC 8446 6: there is only one warning left beside close_notify.
        if self.version() == TlsVersion::Tls13 && description != Alert::UserCanceled as u8 {
            return failed(Some(Alert::DecodeError));
        }
        Ok(Content::Nothing)
    }

    /// What must go before the next record of data: a KeyUpdate, if one is owed or the keys have sealed almost all that they may.
    ///
    /// The keys of TLS 1.2 cannot be changed, so such a session ends then (RFC 8446 5.5, RFC 9325 4.4).
    pub(super) fn update(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        // One record more is for an alert.
        let is_spent = self.seal_seq + 1 >= self.seal_max;
        match self.version() {
            TlsVersion::Tls12 if is_spent => {
                Err(Broken { failure: Failure::KeysSpent, alert: Some(Alert::CloseNotify) })
            }
            TlsVersion::Tls13 if is_spent || self.update_owed => {
                let [kind, a, b, c] = KEY_UPDATE;
                let sealed = self.seal(ContentType::Handshake, &[kind, a, b, c, UPDATE_NOT_REQUESTED])?;
                let (seq, secrets) = self.keys.update_tx_secret().map_err(|error| Broken::of(&error))?;
                (self.seal_seq, self.sealer) = (seq, sealer(self.suite, secrets)?);
                self.update_owed = false;
                Ok(Some(sealed))
            }
            TlsVersion::Tls12 | TlsVersion::Tls13 => Ok(None),
        }
    }

    /// A record of application data, at most [`PLAINTEXT_MAX`] bytes, once [`update`](Self::update) has nothing to send first.
    pub(super) fn seal_data(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, Broken> {
        self.seal(ContentType::ApplicationData, plaintext)
    }

    /// A record with an alert.
    pub(super) fn seal_alert(&mut self, alert: Alert) -> Result<Vec<u8>, Broken> {
        let level = match alert {
            Alert::CloseNotify | Alert::UserCanceled | Alert::NoRenegotiation => WARNING,
            Alert::UnexpectedMessage
            | Alert::BadRecordMac
            | Alert::RecordOverflow
            | Alert::IllegalParameter
            | Alert::DecodeError
            | Alert::InternalError => FATAL,
        };
        self.seal(ContentType::Alert, &[level, alert as u8])
    }

    fn seal(&mut self, typ: ContentType, plaintext: &[u8]) -> Result<Vec<u8>, Broken> {
        let payload = OutboundChunks::Single(plaintext);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let sealed = self.sealer.encrypt(message, self.seal_seq).map_err(|error| Broken::of(&error))?;
        self.seal_seq += 1;
        Ok(sealed.encode())
    }

    /// Has the keys seal no more than so many records.
    #[cfg(test)]
    pub(super) fn set_seal_max(&mut self, most: u64) {
        self.seal_max = most;
    }
}

/// A sealer that has sealed records already, before it came here.
///
/// aws-lc refuses nonces that do not ascend, and takes the first one that it sees for that of record 0. So it is shown that one; what it seals is thrown away.
fn begun(mut sealer: Box<dyn MessageEncrypter>, seal_seq: u64) -> Result<Box<dyn MessageEncrypter>, Broken> {
    if seal_seq > 0 {
        let (typ, payload) = (ContentType::Alert, OutboundChunks::Single(&[]));
        let nothing = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        sealer.encrypt(nothing, 0).map_err(|error| Broken::of(&error))?;
    }
    Ok(sealer)
}

/// One less of what a peer may do so many times.
fn spend(left: u8) -> Result<u8, Broken> {
    left.checked_sub(1).ok_or(Broken::by_peer(Alert::UnexpectedMessage))
}

/// How many records one key may seal.
fn seal_max(suite: SupportedCipherSuite) -> u64 {
    let common = match suite {
        SupportedCipherSuite::Tls12(suite) => &suite.common,
        SupportedCipherSuite::Tls13(suite) => &suite.common,
    };
    common.confidentiality_limit.min(SEQ_MAX)
}

fn explicit_nonce_len(suite: SupportedCipherSuite) -> usize {
    match suite {
        SupportedCipherSuite::Tls12(suite) => suite.aead_alg.key_block_shape().explicit_nonce_len,
        SupportedCipherSuite::Tls13(_) => 0,
    }
}

fn key_of(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), Broken> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        // Of a later rustls.
        _ => Err(NO_KEYS),
    }
}

fn sealer(suite: SupportedCipherSuite, secrets: ConnectionTrafficSecrets) -> Result<Box<dyn MessageEncrypter>, Broken> {
    let (key, iv) = key_of(secrets)?;
    match suite {
        SupportedCipherSuite::Tls13(suite) => Ok(suite.aead_alg.encrypter(key, iv)),
        SupportedCipherSuite::Tls12(suite) => {
            let (fixed, explicit) = split(suite.aead_alg, &iv)?;
            Ok(suite.aead_alg.encrypter(key, fixed, explicit))
        }
    }
}

fn opener(suite: SupportedCipherSuite, secrets: ConnectionTrafficSecrets) -> Result<Box<dyn MessageDecrypter>, Broken> {
    let (key, iv) = key_of(secrets)?;
    match suite {
        SupportedCipherSuite::Tls13(suite) => Ok(suite.aead_alg.decrypter(key, iv)),
        SupportedCipherSuite::Tls12(suite) => Ok(suite.aead_alg.decrypter(key, split(suite.aead_alg, &iv)?.0)),
    }
}

/// The part of a nonce that the handshake has fixed, and where the part begins that each record shows (RFC 5288 3).
fn split<'iv>(algorithm: &dyn Tls12AeadAlgorithm, iv: &'iv Iv) -> Result<(&'iv [u8], &'iv [u8]), Broken> {
    iv.as_ref().split_at_checked(algorithm.key_block_shape().fixed_iv_len).ok_or(NO_KEYS)
}
