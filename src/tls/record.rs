//! Records of an established session (RFC 8446 5, RFC 5246 6.2): each is opened where it lies, and sealed into a buffer of its own that TCP keeps until it is
//! acknowledged.
//!
//! The keys are those that rustls's handshake has agreed on. What is allowed after a handshake, and how often, is what rustls allows: application data, alerts,
//! KeyUpdate in TLS 1.3, and one refused renegotiation in TLS 1.2. A server may send tickets besides.

use std::ops::Range;

use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock};
use rustls::{CipherSuite, SupportedCipherSuite};
use zeroize::Zeroizing;

use crate::base::Piece;
use crate::ticket::TlsVersion;
use crate::tls::cipher::{Cipher, HEADER, Kind, PLAINTEXT_MAX, Unopened};
use crate::tls::failure::Failure;
use crate::tls::messages::Messages;
use crate::tls::notes::Notes;

/// Most bytes behind a header (RFC 5246 6.2.3; TLS 1.3 allows fewer).
const BODY_MAX: usize = PLAINTEXT_MAX + 2048;

/// The longest record.
pub(super) const RECORD_MAX: usize = HEADER + BODY_MAX;

/// A KeyUpdate without its last byte, which is whether the peer is to answer with one (RFC 8446 4.6.3).
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

/// The handshake messages that would begin a renegotiation: a client's, with a body of any length, and a server's, without one.
const CLIENT_HELLO: u8 = 1;
const HELLO_REQUEST: [u8; 4] = [0; 4];

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
    pub(super) const fn by_peer(alert: Alert) -> Self {
        Self { failure: Failure::Protocol, alert: Some(alert) }
    }

    const fn of(unopened: Unopened) -> Self {
        Self::by_peer(match unopened {
            Unopened::Forged => Alert::BadRecordMac,
            Unopened::TooLong => Alert::RecordOverflow,
            Unopened::NoContentType => Alert::UnexpectedMessage,
        })
    }
}

/// Our own fault: a cipher that refuses to work. There is no alert without one.
const NO_CIPHER: Broken = Broken { failure: Failure::Internal, alert: None };

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
    let kind = Kind::of(kind);
    if kind.is_none() || major != 3 || len > BODY_MAX || (len == 0 && kind != Some(Kind::Data)) {
        return Err(Broken::by_peer(Alert::DecodeError));
    }
    Ok(Some(HEADER + len))
}

/// Which side of a session we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    /// We want a ticket, or none.
    Client {
        wants_ticket: bool,
    },
}

/// A session's keys in both directions.
pub(super) struct Records {
    version: TlsVersion,
    /// What a server sends behind its handshake; of a client nothing but KeyUpdates is taken.
    messages: Option<Box<Messages>>,
    is_client: bool,
    seal: Cipher,
    open: Cipher,
    /// How many records one key may seal.
    seal_max: u64,
    /// What the keys of TLS 1.3 were made from, and those that follow will be.
    secrets: Option<Box<Secrets>>,
    /// A KeyUpdate goes before the next record: asked for by the peer, or because the keys have sealed as much as they may.
    update_owed: bool,
    /// How much has come of a KeyUpdate that is not whole.
    message_len: usize,
    key_updates_left: u8,
    empty_left: u8,
    warnings_left: u8,
    renegotiations_left: u8,
    /// The alert by which the peer has ended the session.
    alert_received: Option<u8>,
}

struct Secrets {
    suite: CipherSuite,
    hkdf: &'static dyn Hkdf,
    key_len: usize,
    ours: OkmBlock,
    theirs: OkmBlock,
}

impl Records {
    /// Takes over the keys of a session whose handshake has just ended; `None` if there are none that we know.
    pub(super) fn new(suite: SupportedCipherSuite, version: TlsVersion, notes: Notes, side: Side) -> Option<Self> {
        let (ours, theirs) = match side {
            Side::Server => (notes.server_secret, notes.client_secret),
            Side::Client { .. } => (notes.client_secret, notes.server_secret),
        };
        let messages = match (side, version) {
            (Side::Client { wants_ticket }, TlsVersion::Tls13) => Some(Box::new(Messages::new(wants_ticket))),
            (Side::Client { .. }, TlsVersion::Tls12) | (Side::Server, _) => None,
        };
        let secrets = match suite {
            SupportedCipherSuite::Tls12(_) => None,
            SupportedCipherSuite::Tls13(suite) => Some(Box::new(Secrets {
                suite: suite.common.suite,
                hkdf: suite.hkdf_provider,
                key_len: suite.aead_alg.key_len(),
                ours: ours?,
                theirs: theirs?,
            })),
        };
        let limit = match suite {
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        };
        Some(Self {
            version,
            messages,
            is_client: side != Side::Server,
            seal: notes.seal?,
            open: notes.open?,
            seal_max: limit.min(SEQ_MAX),
            secrets,
            update_owed: false,
            message_len: 0,
            key_updates_left: KEY_UPDATES_MAX,
            empty_left: EMPTY_MAX,
            warnings_left: WARNINGS_MAX,
            renegotiations_left: 1,
            alert_received: None,
        })
    }

    /// Opens a whole record in place.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Content, Broken> {
        let unexpected = Err(Broken::by_peer(Alert::UnexpectedMessage));
        let Some(([kind, ..], body)) = record.split_first_chunk_mut::<HEADER>() else { return unexpected };
        let kind = match (self.version, Kind::of(*kind)) {
            // RFC 8446 5.2: from outside, everything is application data.
            (TlsVersion::Tls13, Some(Kind::Data)) => Kind::Data,
            (TlsVersion::Tls12, Some(kind @ (Kind::Data | Kind::Alert | Kind::Handshake))) => kind,
            (TlsVersion::Tls12 | TlsVersion::Tls13, _) => return unexpected,
        };
        let (kind, content) = self.open.open(kind, body).map_err(Broken::of)?;
        let payload = body.get(content.clone()).unwrap_or_default();
        match kind {
            // RFC 8446 5.1: nothing comes between the pieces of a handshake message, and an empty record is of application data.
            Some(Kind::Data | Kind::Alert) if self.is_within_message() => unexpected,
            Some(Kind::Alert | Kind::Handshake) if payload.is_empty() => unexpected,
            Some(Kind::Data) => self.on_data(HEADER + content.start..HEADER + content.end),
            Some(Kind::Handshake) => self.on_handshake(payload),
            Some(Kind::Alert) => self.on_alert(payload),
            Some(Kind::ChangeCipherSpec) | None => unexpected,
        }
    }

    fn on_data(&mut self, content: Range<usize>) -> Result<Content, Broken> {
        if content.is_empty() {
            self.empty_left = spend(self.empty_left)?;
            return Ok(Content::Nothing);
        }
        self.empty_left = EMPTY_MAX;
        self.key_updates_left = KEY_UPDATES_MAX;
        if let Some(messages) = &mut self.messages {
            messages.on_data();
        }
        Ok(Content::Data(content))
    }

    fn is_within_message(&self) -> bool {
        self.message_len > 0 || self.messages.as_ref().is_some_and(|messages| messages.is_within())
    }

    fn on_handshake(&mut self, payload: &[u8]) -> Result<Content, Broken> {
        self.empty_left = EMPTY_MAX;
        match (self.version, &mut self.messages) {
            (TlsVersion::Tls13, Some(messages)) => match messages.on_payload(payload)? {
                Some(request) => self.on_update(request),
                None => Ok(Content::Nothing),
            },
            (TlsVersion::Tls13, None) => self.on_key_update(payload),
            (TlsVersion::Tls12, _) if self.is_client => {
                if payload != HELLO_REQUEST {
                    return Err(Broken::by_peer(Alert::UnexpectedMessage));
                }
                self.renegotiations_left = spend(self.renegotiations_left)?;
                Ok(Content::Renegotiation)
            }
            (TlsVersion::Tls12, _) => {
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
        self.on_update(request)
    }

    fn on_update(&mut self, request: u8) -> Result<Content, Broken> {
        self.key_updates_left = spend(self.key_updates_left)?;
        match request {
            UPDATE_NOT_REQUESTED => {}
            UPDATE_REQUESTED => self.update_owed = true,
            _ => return Err(Broken::by_peer(Alert::IllegalParameter)),
        }
        self.open = self.secrets.as_mut().and_then(|secrets| secrets.next_of_theirs()).ok_or(NO_CIPHER)?;
        Ok(Content::Nothing)
    }

    fn on_alert(&mut self, payload: &[u8]) -> Result<Content, Broken> {
        let &[level, description] = payload else { return Err(Broken::by_peer(Alert::DecodeError)) };
        self.empty_left = EMPTY_MAX;
        let failed = |alert| Err(Broken { failure: Failure::AlertReceived, alert });
        if !(WARNING..=FATAL).contains(&level) {
            return failed(Some(Alert::IllegalParameter));
        }
        if description == Alert::CloseNotify as u8 {
            return Ok(Content::Closed);
        }
        self.alert_received = Some(description);
        if level == FATAL {
            return failed(None);
        }
        self.warnings_left = spend(self.warnings_left)?;
        // RFC 8446 6: there is only one warning left beside close_notify.
        if self.version == TlsVersion::Tls13 && description != Alert::UserCanceled as u8 {
            return failed(Some(Alert::DecodeError));
        }
        Ok(Content::Nothing)
    }

    /// What a server sends behind its handshake.
    pub(super) fn messages(&mut self) -> Option<&mut Messages> {
        self.messages.as_deref_mut()
    }

    /// The last alert of the peer's but close_notify.
    pub(super) fn alert_received(&self) -> Option<u8> {
        self.alert_received
    }

    /// What must go before the next record of data: a KeyUpdate, if one is owed or the keys have sealed almost all that they may.
    ///
    /// The keys of TLS 1.2 cannot be changed, so such a session ends then (RFC 8446 5.5, RFC 9325 4.4).
    pub(super) fn update(&mut self) -> Result<Option<Piece>, Broken> {
        // One record more is for an alert.
        let is_spent = self.seal.seq() + 1 >= self.seal_max;
        match self.version {
            TlsVersion::Tls12 if is_spent => {
                Err(Broken { failure: Failure::KeysSpent, alert: Some(Alert::CloseNotify) })
            }
            TlsVersion::Tls13 if is_spent || self.update_owed => {
                let [kind, a, b, c] = KEY_UPDATE;
                let message = Piece::from(&[kind, a, b, c, UPDATE_NOT_REQUESTED][..]);
                let sealed = self.seal(Kind::Handshake, message)?;
                self.seal = self.secrets.as_mut().and_then(|secrets| secrets.next_of_ours()).ok_or(NO_CIPHER)?;
                self.update_owed = false;
                Ok(Some(sealed))
            }
            TlsVersion::Tls12 | TlsVersion::Tls13 => Ok(None),
        }
    }

    /// A record of application data, at most [`PLAINTEXT_MAX`] bytes, once [`update`](Self::update) has nothing to send first.
    pub(super) fn seal_data(&mut self, plaintext: Piece) -> Result<Piece, Broken> {
        self.seal(Kind::Data, plaintext)
    }

    /// A record with an alert.
    pub(super) fn seal_alert(&mut self, alert: Alert) -> Result<Piece, Broken> {
        let level = match alert {
            Alert::CloseNotify | Alert::UserCanceled | Alert::NoRenegotiation => WARNING,
            Alert::UnexpectedMessage
            | Alert::BadRecordMac
            | Alert::RecordOverflow
            | Alert::IllegalParameter
            | Alert::DecodeError
            | Alert::InternalError => FATAL,
        };
        self.seal(Kind::Alert, Piece::from(&[level, alert as u8][..]))
    }

    fn seal(&mut self, kind: Kind, plaintext: Piece) -> Result<Piece, Broken> {
        self.seal.seal(kind, plaintext).ok_or(NO_CIPHER)
    }

    /// Has the keys seal no more than so many records.
    #[cfg(test)]
    pub(super) fn set_seal_max(&mut self, most: u64) {
        self.seal_max = most;
    }
}

impl Secrets {
    fn next_of_ours(&mut self) -> Option<Cipher> {
        self.ours = self.following(&self.ours)?;
        self.cipher_of(&self.ours)
    }

    fn next_of_theirs(&mut self) -> Option<Cipher> {
        self.theirs = self.following(&self.theirs)?;
        self.cipher_of(&self.theirs)
    }

    /// RFC 8446 7.2.
    fn following(&self, secret: &OkmBlock) -> Option<OkmBlock> {
        let expander = self.hkdf.expander_for_okm(secret);
        let mut next = Zeroizing::new([0; OkmBlock::MAX_LEN]);
        let next = next.get_mut(..expander.hash_len())?;
        expand_label(&*expander, b"traffic upd", next)?;
        Some(OkmBlock::new(next))
    }

    /// RFC 8446 7.3.
    fn cipher_of(&self, secret: &OkmBlock) -> Option<Cipher> {
        let expander = self.hkdf.expander_for_okm(secret);
        let (mut key, mut iv) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 12]));
        let key = key.get_mut(..self.key_len)?;
        expand_label(&*expander, b"key", key)?;
        expand_label(&*expander, b"iv", &mut *iv)?;
        Cipher::new(self.suite, TlsVersion::Tls13, key, &[&*iv])
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 7.1).
fn expand_label(expander: &dyn HkdfExpander, label: &[u8], output: &mut [u8]) -> Option<()> {
    const PREFIX: &[u8] = b"tls13 ";
    let output_len = u16::try_from(output.len()).ok()?.to_be_bytes();
    let label_len = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    expander.expand_slice(&[&output_len, &label_len, PREFIX, label, &[0]], output).ok()
}

/// One less of what a peer may do so many times.
fn spend(left: u8) -> Result<u8, Broken> {
    left.checked_sub(1).ok_or(Broken::by_peer(Alert::UnexpectedMessage))
}
