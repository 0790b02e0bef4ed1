//! One client's TLS session, server side.

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{Error, HandshakeKind, ProtocolVersion, ServerConnection};

use crate::balance::ServerIndex;
use crate::base::{EngineId, ServerId};
use crate::persistence::Decision;
use crate::ticket::{KeyId, TlsVersion};
use crate::tls::desk::Step;
use crate::tls::failure::Failure;
use crate::tls::service::{Admission, iana_name};
use crate::tls::{Desk, Service};

/// Bytes of ciphertext that a session keeps before [`Session::write`] takes no more: two full records.
pub const OUTPUT_MAX: usize = 2 * RECORD_MAX;

/// The content type of a handshake record (RFC 8446 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// A fatal unrecognized_name alert (RFC 6066 3), in a record.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A fatal handshake_failure alert (RFC 8446 6.2), in a record.
const HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// Most plaintext in a record (RFC 8446 5.1).
const RECORD_MAX: usize = 16_384;

/// What a record adds to its plaintext at most: header, explicit nonce of TLS 1.2, tag, content type.
const RECORD_OVERHEAD: usize = 5 + 8 + 16 + 1;

/// Less room than this is not filled unless all data fits in it, so that a nearly full session makes no tiny records.
const ROOM_MIN: usize = 4096;

/// A client's TLS session.
///
/// What it keeps is bounded: up to 18 KiB of ciphertext that was not worked on yet (64 KiB while a handshake message is longer than a record; rustls
/// refuses longer ones), twice that in plaintext, and [`OUTPUT_MAX`] bytes of ciphertext to transmit beside its own handshake messages.
pub struct Session {
    service: Arc<Service>,
    state: State,
    step: Step,
    /// What the client asked for, from the ClientHello to the handshake's end.
    server_name: Option<Box<str>>,
    /// An estimate from above of the ciphertext that waits, as rustls does not tell.
    unsent: usize,
    peer_has_closed: bool,
    has_closed: bool,
}

enum State {
    /// A ClientHello is awaited, or what has come of it is kept.
    Hello { acceptor: Acceptor, has_begun: bool },
    /// rustls has taken over.
    Connected { connection: ServerConnection, phase: Phase },
    /// The session ended before that; what is left is an alert to send.
    Refused { failure: Failure, alert: Vec<u8>, sent: usize },
}

/// ```text
/// Handshake ──> Open
///     └──> Failed <─┘
/// ```
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Messages of the handshake flow.
    Handshake,
    /// Application data flows.
    Open,
    /// The alert is among the output, and what was decrypted before may still be read.
    Failed(Failure),
}

/// What [`Session::advance`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The handshake goes on: transmit, then wait for the client.
    Handshaking,
    /// The handshake has just ended. Said once.
    Established(Handshake),
    /// Application data flows.
    Open,
}

/// What is known once a handshake has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Whether the session was really resumed.
    pub resumed: bool,
    /// Protocol version.
    pub version: TlsVersion,
    /// Cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// Server name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// Application protocol that was agreed on.
    pub alpn: Option<Box<[u8]>>,
    /// Where the client goes, and why. Without a server it is refused: reset the connection.
    pub decision: Decision,
    /// The server that the resumed ticket's mapping names.
    pub wanted: Option<ServerId>,
    /// The key of the ticket that was resumed.
    pub key_id: Option<KeyId>,
    /// Who issued the ticket that was resumed.
    pub issuer: Option<EngineId>,
}

impl Session {
    /// A session that waits for a ClientHello.
    pub fn new(service: &Arc<Service>) -> Self {
        Self {
            service: Arc::clone(service),
            state: State::Hello { acceptor: Acceptor::default(), has_begun: false },
            step: Step::default(),
            server_name: None,
            unsent: 0,
            peer_has_closed: false,
            has_closed: false,
        }
    }

    /// Takes ciphertext and gives how many bytes it took; fewer than all while plaintext waits to be taken, or while
    /// [`advance`](Self::advance) has a buffer full to work on. What comes after close_notify is taken and ignored (RFC 8446 6.1).
    ///
    /// # Errors
    /// [`Failure`] when the session is over; [`poll_transmit`](Self::poll_transmit) then still has the alert to send.
    pub fn on_data(&mut self, mut bytes: &[u8]) -> Result<usize, Failure> {
        let given = bytes.len();
        let Some(first) = bytes.first() else { return Ok(0) };
        match &mut self.state {
            // RFC 8446 5.1: a stream begins with a handshake record. Whoever sends another first byte does not read alerts either.
            State::Hello { has_begun: false, .. } if *first != HANDSHAKE_RECORD => {
                return Err(self.refuse(Failure::NotTls, Vec::new()));
            }
            State::Hello { acceptor, has_begun } => {
                *has_begun = true;
                fill(&mut bytes, |input| acceptor.read_tls(input));
            }
            State::Connected { phase: Phase::Failed(failure), .. } | State::Refused { failure, .. } => {
                return Err(*failure);
            }
            State::Connected { .. } if self.peer_has_closed => return Ok(given),
            State::Connected { connection, .. } => fill(&mut bytes, |input| connection.read_tls(input)),
        }
        Ok(given - bytes.len())
    }

    /// Works on what it was given: at most one flight of a handshake, or one buffer full of records. `candidate` is the server that a new
    /// client would get now; see [`Handshake::decision`].
    ///
    /// # Errors
    /// [`Failure`] when the session is over; [`poll_transmit`](Self::poll_transmit) then still has the alert to send.
    pub fn advance(&mut self, desk: &mut Desk, candidate: Option<ServerIndex>) -> Result<Progress, Failure> {
        self.step.candidate = candidate;
        match &mut self.state {
            State::Hello { acceptor, .. } => match acceptor.accept() {
                Ok(None) => Ok(Progress::Handshaking),
                Ok(Some(accepted)) => self.accept(desk, accepted),
                Err((error, alert)) => Err(self.refuse(Failure::of(&error), drain(alert))),
            },
            State::Connected { phase: Phase::Handshake, .. } => self.shake_hands(desk),
            State::Connected { connection, phase: Phase::Open } => match connection.process_new_packets() {
                Ok(state) => {
                    self.peer_has_closed = state.peer_has_closed();
                    Ok(Progress::Open)
                }
                Err(error) => Err(self.fail(Failure::of(&error))),
            },
            State::Connected { phase: Phase::Failed(failure), .. } | State::Refused { failure, .. } => Err(*failure),
        }
    }

    /// Whether the handshake has not ended yet.
    pub fn is_handshaking(&self) -> bool {
        match &self.state {
            State::Hello { .. } | State::Connected { phase: Phase::Handshake, .. } => true,
            State::Connected { phase: Phase::Open | Phase::Failed(_), .. } | State::Refused { .. } => false,
        }
    }

    /// Hands ciphertext to `take`, which gives how many bytes it took, until it takes less than it is given or nothing is left.
    pub fn poll_transmit(&mut self, take: impl FnMut(&[u8]) -> usize) {
        let mut output = Output { take, taken: 0, is_full: false };
        match &mut self.state {
            State::Hello { .. } => {}
            State::Connected { connection, .. } => {
                while connection.wants_write() && !output.is_full {
                    // `Output` never errs.
                    if connection.write_tls(&mut output).is_err() {
                        break;
                    }
                }
                self.unsent = if connection.wants_write() { self.unsent.saturating_sub(output.taken) } else { 0 };
            }
            State::Refused { alert, sent, .. } => {
                if let Some(rest) = alert.get(*sent..).filter(|rest| !rest.is_empty()) {
                    *sent += output.offer(rest);
                }
            }
        }
    }

    /// Whether ciphertext waits to be transmitted.
    pub fn has_output(&self) -> bool {
        match &self.state {
            State::Hello { .. } => false,
            State::Connected { connection, .. } => connection.wants_write(),
            State::Refused { alert, sent, .. } => *sent < alert.len(),
        }
    }

    /// Hands decrypted data to `take`, which gives how many bytes it took, until it takes less than it is given or nothing is left.
    pub fn plaintext(&mut self, mut take: impl FnMut(&[u8]) -> usize) {
        let State::Connected { connection, .. } = &mut self.state else { return };
        let mut reader = connection.reader();
        // An error says that there is nothing now; whether there will be is for `peer_has_closed` to say.
        while let Ok(chunk) = reader.fill_buf() {
            let given = chunk.len();
            if given == 0 {
                return;
            }
            let taken = take(chunk).min(given);
            reader.consume(taken);
            if taken < given {
                return;
            }
        }
    }

    /// Encrypts data for the client and gives how many bytes it took: it keeps some [`OUTPUT_MAX`] bytes of ciphertext, and takes nothing
    /// before the handshake has ended or after [`close`](Self::close).
    pub fn write(&mut self, plaintext: &[u8]) -> usize {
        let State::Connected { connection, phase: Phase::Open } = &mut self.state else { return 0 };
        let room = OUTPUT_MAX.saturating_sub(self.unsent);
        if self.has_closed || (plaintext.len() > room && room < ROOM_MIN) {
            return 0;
        }
        let fits = plaintext.get(..room).unwrap_or(plaintext);
        // It errs only once the connection has failed.
        let taken = connection.writer().write(fits).unwrap_or(0);
        self.unsent += taken + taken.div_ceil(RECORD_MAX) * RECORD_OVERHEAD;
        taken
    }

    /// Sends close_notify behind what was written. Once is enough, more does nothing.
    pub fn close(&mut self) {
        if let State::Connected { connection, phase: Phase::Handshake | Phase::Open } = &mut self.state {
            self.has_closed = true;
            connection.send_close_notify();
        }
    }

    /// Whether the client has sent close_notify. Without it, the end of its stream is a truncation.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// Server name that the client asked for, known from its ClientHello on, also when the session has failed.
    pub fn server_name(&self) -> Option<&str> {
        match &self.state {
            State::Hello { .. } => None,
            State::Connected { connection, .. } => connection.server_name(),
            State::Refused { .. } => self.server_name.as_deref(),
        }
    }

    /// Goes on from a whole ClientHello: the service's rules first, then rustls's.
    fn accept(&mut self, desk: &mut Desk, accepted: Accepted) -> Result<Progress, Failure> {
        self.server_name = accepted.client_hello().server_name().map(Box::from);
        match self.service.admit(self.server_name.as_deref()) {
            Admission::Known => {}
            Admission::Unknown => desk.counters().server_names_unknown.increment(),
            Admission::Refused => {
                desk.counters().server_names_unknown.increment();
                return Err(self.refuse(Failure::UnknownServerName, UNRECOGNIZED_NAME.to_vec()));
            }
        }
        let config = Arc::clone(self.service.config());
        let can_verify_us = self.service.can_sign_for(&accepted.client_hello());
        match desk.during(&mut self.step, || accepted.into_connection(config)) {
            Ok(mut connection) => {
                connection.set_buffer_limit(Some(OUTPUT_MAX));
                self.state = State::Connected { connection, phase: Phase::Handshake };
                self.settle(desk)?;
                // Records that came behind the ClientHello wait in rustls.
                self.shake_hands(desk)
            }
            // rustls takes it for a fault of ours, without an alert, when a TLS 1.2 client knows ECDSA but not with our key's curve.
            Err((Error::General(_), alert)) if !can_verify_us => {
                let alert = Some(drain(alert)).filter(|alert| !alert.is_empty());
                Err(self.refuse(Failure::NothingInCommon, alert.unwrap_or_else(|| HANDSHAKE_FAILURE.to_vec())))
            }
            Err((error, alert)) => Err(self.refuse(Failure::of(&error), drain(alert))),
        }
    }

    /// Works on the messages after the ClientHello.
    fn shake_hands(&mut self, desk: &mut Desk) -> Result<Progress, Failure> {
        let State::Connected { connection, .. } = &mut self.state else { return Err(Failure::Internal) };
        let worked = desk.during(&mut self.step, || connection.process_new_packets());
        match worked {
            Ok(state) => self.peer_has_closed = state.peer_has_closed(),
            Err(error) => return Err(self.fail(Failure::of(&error))),
        }
        self.settle(desk)?;
        let State::Connected { connection, phase } = &mut self.state else { return Err(Failure::Internal) };
        if connection.is_handshaking() {
            return Ok(Progress::Handshaking);
        }
        let Some((version, suite)) = version_of(connection).zip(connection.negotiated_cipher_suite()) else {
            return Err(self.fail(Failure::Internal));
        };
        *phase = Phase::Open;
        let ticket = self.step.opened;
        let handshake = Handshake {
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            version,
            cipher: iana_name(suite.suite()),
            server_name: self.server_name.take(),
            alpn: connection.alpn_protocol().map(Box::from),
            // Only here where no ticket was issued that needed it earlier. Nobody connects to a server before (H2).
            decision: desk.decide(&mut self.step, self.service.terms()),
            wanted: ticket.and_then(|ticket| ticket.mapping).map(|mapping| mapping.server),
            key_id: ticket.map(|ticket| ticket.key_id),
            issuer: ticket.map(|ticket| ticket.issuer),
        };
        match handshake.resumed {
            true => desk.counters().handshakes_resumed.increment(),
            false => desk.counters().handshakes_full.increment(),
        }
        Ok(Progress::Established(handshake))
    }

    /// After each call into rustls: a ticket that opened counts only if it was selected (H1, H9).
    fn settle(&mut self, desk: &Desk) -> Result<(), Failure> {
        let State::Connected { connection, .. } = &self.state else { return Ok(()) };
        self.step.version = version_of(connection);
        if self.step.opened.is_none() || connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        desk.counters().opened_not_selected.increment();
        self.step.opened = None;
        // rustls decrypts and encrypts in one call only where it resumes TLS 1.2. Should that ever change, a ticket with a mapping that does not
        // count must not leave the engine.
        if self.step.decision.is_some() {
            return Err(self.fail(Failure::Internal));
        }
        Ok(())
    }

    fn refuse(&mut self, failure: Failure, alert: Vec<u8>) -> Failure {
        self.state = State::Refused { failure, alert, sent: 0 };
        failure
    }

    fn fail(&mut self, failure: Failure) -> Failure {
        if let State::Connected { phase, .. } = &mut self.state {
            *phase = Phase::Failed(failure);
        }
        failure
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            State::Hello { .. } => "Hello".to_owned(),
            State::Connected { phase, .. } => format!("{phase:?}"),
            State::Refused { failure, .. } => format!("Refused({failure:?})"),
        };
        f.debug_struct("Session").field("state", &state).field("step", &self.step).finish_non_exhaustive()
    }
}

/// Reads all of `bytes`, or as much as rustls has room for: its errors are two full buffers, which is back-pressure.
fn fill(bytes: &mut &[u8], mut read: impl FnMut(&mut dyn io::Read) -> io::Result<usize>) {
    // rustls takes a read of nothing for the end of the stream.
    while !bytes.is_empty() {
        match read(bytes) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// The alert that rustls left, a few bytes.
fn drain(mut alert: AcceptedAlert) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A `Vec` takes everything.
    let _ = alert.write_all(&mut bytes);
    bytes
}

fn version_of(connection: &ServerConnection) -> Option<TlsVersion> {
    let version = connection.protocol_version()?;
    if version == ProtocolVersion::TLSv1_3 {
        Some(TlsVersion::Tls13)
    } else if version == ProtocolVersion::TLSv1_2 {
        Some(TlsVersion::Tls12)
    } else {
        None
    }
}

/// Lets rustls write into `take` until that is full. It never errs.
struct Output<F> {
    take: F,
    taken: usize,
    is_full: bool,
}

impl<F: FnMut(&[u8]) -> usize> Output<F> {
    fn offer(&mut self, bytes: &[u8]) -> usize {
        // rustls counts on a writer that never takes more than it is given.
        let taken = (self.take)(bytes).min(bytes.len());
        self.taken += taken;
        self.is_full = taken < bytes.len();
        taken
    }
}

impl<F: FnMut(&[u8]) -> usize> io::Write for Output<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.offer(bytes))
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        for slice in slices {
            taken += self.offer(slice);
            if self.is_full {
                break;
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
