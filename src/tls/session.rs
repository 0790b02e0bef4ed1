//! One client's TLS session, server side.
//!
//! ```text
//! Hello ──a whole record──▶ Handshake ──Finished──▶ Open
//!   └──────────────┴──────────────────▶ Over ◀───────────┘
//! ```

use std::rc::Rc;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus};
use rustls::{CommonState, Error, HandshakeKind, ProtocolVersion};

use crate::balance::Backend;
use crate::base::{EngineId, Piece, ServerId};
use crate::persistence::{Decision, Reason};
use crate::ticket::{KeyId, TlsVersion};
use crate::tls::cipher::{HEADER, OVERHEAD_MAX, PLAINTEXT_MAX};
use crate::tls::clients::Client;
use crate::tls::desk::Step;
use crate::tls::failure::{ClientFault, Failure};
use crate::tls::input::Input;
use crate::tls::notes::{Admission, Hello, Notes, Shown};
use crate::tls::record::{Alert, Broken, Content, RECORD_MAX, Records};
use crate::tls::service::iana_name;
use crate::tls::{Desk, Service};

/// Most bytes that an established session keeps of what it was given: the longest record.
pub const INPUT_MAX: usize = RECORD_MAX;

/// Most bytes that it keeps during the handshake: rustls refuses longer messages, and one record more may have come.
pub const HANDSHAKE_MAX: usize = 64 * 1024 + RECORD_MAX;

/// A fatal unrecognized_name alert (RFC 6066 3), in a record.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A fatal handshake_failure alert (RFC 8446 6.2), in a record.
const HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// The content type of a handshake record (RFC 8446 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// A client's TLS session.
///
/// What it keeps is bounded: [`INPUT_MAX`] bytes of records and plaintext, [`HANDSHAKE_MAX`] during the handshake, and its own handshake messages and alerts until
/// they are transmitted. Data for the client is not kept here: [`seal`](Self::seal) gives it away.
pub struct Session {
    service: Arc<Service>,
    state: State,
    step: Step,
    /// What the client asked for, from the ClientHello to the handshake's end.
    server_name: Option<Box<str>>,
    has_asked: bool,
    input: Input,
    /// Handshake messages and alerts to transmit, and how much of them has been.
    output: Vec<u8>,
    transmitted: usize,
    peer_has_closed: bool,
    has_closed: bool,
}

enum State {
    /// A ClientHello is awaited.
    Hello,
    /// Messages of the handshake flow. rustls has been shown so many bytes of the input.
    Handshake { connection: Box<UnbufferedServerConnection>, shown: usize, notes: Option<Box<Notes>> },
    /// Application data flows.
    Open(Box<Records>),
    /// The alert is among the output, and what was decrypted before may still be read.
    Over(Failure),
}

/// What rustls wants after a step of the handshake.
enum Turn {
    /// Another step.
    Again,
    /// Nothing: it waits for a record, or the handshake has ended.
    Idle,
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
    /// Who the client has proven to be, now or when the session began.
    pub client: Option<Client>,
    /// Where the client goes, and why. Without a server it is refused: reset the connection. With one it has a place there, or waits for one, and whoever drives
    /// the session gives back either.
    pub decision: Decision,
    /// The server that the client's mapping names.
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
            state: State::Hello,
            step: Step::default(),
            server_name: None,
            has_asked: false,
            input: Input::default(),
            output: Vec::new(),
            transmitted: 0,
            peer_has_closed: false,
            has_closed: false,
        }
    }

    /// Takes ciphertext and gives how many bytes it took; fewer than all while plaintext waits to be taken, or while
    /// [`advance`](Self::advance) has a buffer full to work on. What comes after close_notify is taken and ignored (RFC 8446 6.1).
    ///
    /// # Errors
    /// [`Failure`] when the session is over; [`poll_transmit`](Self::poll_transmit) then still has the alert to send.
    pub fn on_data(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let Some(first) = bytes.first() else { return Ok(0) };
        match &mut self.state {
            // RFC 8446 5.1: a stream begins with a handshake record. Whoever sends another first byte does not read alerts either.
            State::Hello if self.input.bytes.is_empty() && *first != HANDSHAKE_RECORD => {
                Err(self.over(Failure::NotTls))
            }
            State::Hello | State::Handshake { .. } => Ok(self.input.take(bytes, HANDSHAKE_MAX)),
            State::Open(_) if self.peer_has_closed => Ok(bytes.len()),
            State::Open(_) => Ok(self.input.take_records(bytes)),
            State::Over(failure) => Err(*failure),
        }
    }

    /// Works on what it was given: at most one flight of a handshake, or one buffer full of records. `backend` is where the client may
    /// go now; see [`Handshake::decision`].
    ///
    /// # Errors
    /// [`Failure`] when the session is over; [`poll_transmit`](Self::poll_transmit) then still has the alert to send.
    pub fn advance(&mut self, desk: &mut Desk, backend: &Rc<Backend>) -> Result<Progress, Failure> {
        match &mut self.state {
            State::Hello => self.begin(desk, backend),
            State::Handshake { .. } => self.shake_hands(desk, backend),
            State::Open(_) => self.open_records().map(|()| Progress::Open).map_err(|broken| self.fail(broken)),
            State::Over(failure) => Err(*failure),
        }
    }

    /// Where the client goes, once that is decided. In TLS 1.2 a session that is resumed is decided for with the ClientHello, all others when the handshake ends.
    pub fn decision(&self) -> Option<Decision> {
        self.step.decision
    }

    /// Whether the handshake has not ended yet.
    pub fn is_handshaking(&self) -> bool {
        match &self.state {
            State::Hello | State::Handshake { .. } => true,
            State::Open(_) | State::Over(_) => false,
        }
    }

    /// Whether nothing of the handshake has been worked on yet: what is most of its cost is still to come.
    pub fn awaits_hello(&self) -> bool {
        match &self.state {
            State::Hello => true,
            State::Handshake { .. } | State::Open(_) | State::Over(_) => false,
        }
    }

    /// Hands handshake messages and alerts to `take`, which gives how many bytes it took, until it takes less than it is given or nothing is left.
    pub fn poll_transmit(&mut self, mut take: impl FnMut(&[u8]) -> usize) {
        let rest = self.output.get(self.transmitted..).unwrap_or_default();
        if !rest.is_empty() {
            self.transmitted += take(rest).min(rest.len());
        }
        if self.transmitted == self.output.len() {
            (self.output, self.transmitted) = (Vec::new(), 0);
        }
    }

    /// Whether something waits to be transmitted.
    pub fn has_output(&self) -> bool {
        self.transmitted < self.output.len()
    }

    /// Bytes of decrypted data that wait to be taken.
    pub fn readable(&self) -> usize {
        self.input.plaintext().len()
    }

    /// Takes decrypted data, at most so many bytes and at least one: without a copy if that is all that waits.
    pub fn take(&mut self, most: usize) -> Option<Piece> {
        self.input.take_plaintext(most)
    }

    /// Encrypts data for the client, which `take` gives: at most as many bytes as it is told, so that the record has at most `room`. Gives how many bytes that were and
    /// the record, which is where they were. Nothing, and nothing is taken, before the handshake has ended, after [`close`](Self::close), and while there is
    /// [output](Self::has_output), which goes first.
    ///
    /// # Errors
    /// [`Failure`] when the session is over; [`poll_transmit`](Self::poll_transmit) then still has the alert to send.
    pub fn seal(
        &mut self,
        room: usize,
        take: impl FnOnce(usize) -> Option<Piece>,
    ) -> Result<Option<(usize, Piece)>, Failure> {
        let fits = room.saturating_sub(OVERHEAD_MAX).min(PLAINTEXT_MAX);
        let State::Open(records) = &mut self.state else { return Ok(None) };
        if self.has_closed || fits == 0 || self.transmitted < self.output.len() {
            return Ok(None);
        }
        match records.update() {
            Ok(None) => {}
            Ok(Some(update)) => {
                self.output.extend(update.bytes());
                return Ok(None);
            }
            Err(broken) => return Err(self.fail(broken)),
        }
        let Some(plaintext) = take(fits).filter(|plaintext| !plaintext.is_empty()) else { return Ok(None) };
        let taken = plaintext.len();
        let sealed = records.seal_data(plaintext).map_err(|broken| self.fail(broken))?;
        Ok(Some((taken, sealed)))
    }

    /// Sends close_notify behind what was sealed. Once is enough, more does nothing.
    pub fn close(&mut self) {
        if let State::Open(records) = &mut self.state
            && !std::mem::replace(&mut self.has_closed, true)
        {
            // It errs only where no record can be sealed at all.
            self.output.extend(records.seal_alert(Alert::CloseNotify).unwrap_or_default().bytes());
        }
    }

    /// Whether the client has sent close_notify. Without it, the end of its stream is a truncation.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// Server name that the client asked for, from its ClientHello to the end of the handshake, which then [has it](Handshake::server_name). Not known of a client
    /// that has no protocol version in common with us.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Begins a handshake once there is a whole record: until then, whoever connects costs no more than what it sends.
    fn begin(&mut self, desk: &mut Desk, backend: &Rc<Backend>) -> Result<Progress, Failure> {
        let Some(shown) = first_record(&self.input.bytes) else { return Ok(Progress::Handshaking) };
        match UnbufferedServerConnection::new(Arc::clone(self.service.config())) {
            Ok(connection) => {
                let notes = Some(Box::default());
                self.state = State::Handshake { connection: Box::new(connection), shown, notes };
                self.shake_hands(desk, backend)
            }
            Err(error) => Err(self.over(Failure::of(&error))),
        }
    }

    /// Lets rustls work on the records that have come.
    ///
    /// It is shown one more only when it has no use for those before: what comes behind the Finished message is for [`Records`].
    fn shake_hands(&mut self, desk: &mut Desk, backend: &Rc<Backend>) -> Result<Progress, Failure> {
        loop {
            let State::Handshake { connection, shown, notes } = &mut self.state else {
                return Err(self.over(Failure::Internal));
            };
            let input = &mut self.input.bytes;
            let output = &mut self.output;
            let (discard, took) = desk.during(&mut self.step, notes, backend, || {
                let UnbufferedStatus { discard, state } =
                    connection.process_tls_records(input.get_mut(..*shown).unwrap_or_default());
                (discard, state.and_then(|state| take_turn(state, output)))
            });
            input.drain(..discard.min(input.len()));
            *shown = shown.saturating_sub(discard);
            let hello = notes.as_mut().and_then(|notes| notes.hello.take());
            let is_done = !connection.is_handshaking();
            let turn = match took {
                Ok(turn) => turn,
                Err(error) => return Err(self.give_up(desk, backend, &error, hello)),
            };
            if let Some(hello) = hello {
                self.on_hello(desk, hello);
            }
            self.settle(desk)?;
            match turn {
                Turn::Again => {}
                // RFC 8446 4.4.4: a server may send data before the client's Finished message has come. Ours wait for it.
                Turn::Idle if is_done => return self.establish(desk, backend),
                Turn::Idle if self.show_another() => {}
                Turn::Idle => return Ok(Progress::Handshaking),
            }
        }
    }

    /// What the client asks for is known. After a HelloRetryRequest it comes again.
    fn on_hello(&mut self, desk: &Desk, hello: Hello) {
        let is_first = !std::mem::replace(&mut self.has_asked, true);
        if is_first && hello.admission != Admission::Known {
            desk.counters().server_names_unknown.increment();
        }
        self.server_name = hello.server_name;
    }

    /// rustls has failed; says why, with an alert for the client among the output.
    fn give_up(&mut self, desk: &mut Desk, backend: &Rc<Backend>, error: &Error, hello: Option<Hello>) -> Failure {
        let admission = hello.as_ref().map(|hello| hello.admission);
        // rustls takes it for a fault of ours, without an alert, when a TLS 1.2 client knows ECDSA but not with our key's curve.
        let has_nothing_in_common =
            Failure::of(error) == Failure::Internal && hello.as_ref().is_some_and(|hello| !hello.can_verify_us);
        if let Some(hello) = hello {
            self.on_hello(desk, hello);
        }
        if admission == Some(Admission::Refused) {
            self.output.extend(UNRECOGNIZED_NAME);
            return self.over(Failure::UnknownServerName);
        }
        let said = self.output.len();
        if let State::Handshake { connection, shown, notes } = &mut self.state {
            let (input, output) = (&mut self.input.bytes, &mut self.output);
            desk.during(&mut self.step, notes, backend, || collect_alert(connection, input, *shown, output));
        }
        let failure = Failure::of(error);
        if (failure, self.step.version) == (Failure::Client(ClientFault::Missing), Some(TlsVersion::Tls12)) {
            // certificate_required is of TLS 1.3; RFC 5246 7.4.6 has handshake_failure for it. No key protects the alert yet.
            self.output.truncate(said);
            self.output.extend(HANDSHAKE_FAILURE);
        }
        if !has_nothing_in_common {
            return self.over(failure);
        }
        if self.output.len() == said {
            self.output.extend(HANDSHAKE_FAILURE);
        }
        self.over(Failure::NothingInCommon)
    }

    /// Shows rustls another record; whether there is a whole one.
    fn show_another(&mut self) -> bool {
        let State::Handshake { shown, .. } = &mut self.state else { return false };
        let next = first_record(self.input.bytes.get(*shown..).unwrap_or_default());
        *shown += next.unwrap_or(0);
        next.is_some()
    }

    /// The handshake has ended: from here on the records are ours.
    fn establish(&mut self, desk: &mut Desk, backend: &Backend) -> Result<Progress, Failure> {
        let handshake = std::mem::replace(&mut self.state, State::Over(Failure::Internal));
        let State::Handshake { connection, notes: Some(notes), .. } = handshake else {
            return Err(Failure::Internal);
        };
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let alpn = connection.alpn_protocol().map(Box::from);
        let client = connection.peer_certificates().and_then(Client::of);
        let version = version_of(&connection);
        let suite = connection.negotiated_cipher_suite();
        let Some((version, suite)) = version.zip(suite) else { return Err(Failure::Internal) };
        let records = Records::new(suite, version, *notes).ok_or(Failure::Internal)?;
        self.state = State::Open(Box::new(records));
        self.input.begin_records();
        let ticket = self.step.opened;
        // Only here where no ticket was issued that needed it earlier. Nobody connects to a server before (H2).
        let decision = desk.decide(&mut self.step, self.service.terms(), backend);
        let mapping = ticket.and_then(|ticket| ticket.mapping).filter(|_| decision.reason != Reason::Recalling);
        let handshake = Handshake {
            resumed,
            version,
            cipher: iana_name(suite.suite()),
            server_name: self.server_name.take(),
            alpn,
            client,
            decision,
            wanted: mapping.map(|mapping| mapping.server),
            key_id: ticket.map(|ticket| ticket.key_id),
            issuer: ticket.map(|ticket| ticket.issuer),
        };
        match handshake.resumed {
            true => desk.counters().handshakes_resumed.increment(),
            false => desk.counters().handshakes_full.increment(),
        }
        // Data may have come with the Finished message.
        self.open_records().map_err(|broken| self.fail(broken))?;
        Ok(Progress::Established(handshake))
    }

    /// After each call into rustls: a ticket that opened counts only if it was selected (H1, H9).
    fn settle(&mut self, desk: &Desk) -> Result<(), Failure> {
        let State::Handshake { connection, notes, .. } = &mut self.state else { return Ok(()) };
        self.step.version = version_of(connection);
        if self.step.opened.is_none() || connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        desk.counters().opened_not_selected.increment();
        self.step.opened = None;
        if let Some(notes) = notes {
            notes.client = Shown::Nothing;
        }
        // rustls decrypts and encrypts in one call only where it resumes TLS 1.2. Should that ever change, a ticket with a mapping that does not
        // count must not leave the engine.
        if self.step.decision.is_some() {
            return Err(self.over(Failure::Internal));
        }
        Ok(())
    }

    /// Opens all whole records that have come.
    fn open_records(&mut self) -> Result<(), Broken> {
        let State::Open(records) = &mut self.state else { return Ok(()) };
        while !self.peer_has_closed {
            let Some((content, at)) = self.input.open_next(records)? else { break };
            match content {
                Content::Data(range) => self.input.add_plaintext(at + range.start..at + range.end),
                Content::Closed => self.peer_has_closed = true,
                Content::Renegotiation => self.output.extend(records.seal_alert(Alert::NoRenegotiation)?.bytes()),
                Content::Nothing => {}
            }
        }
        if self.peer_has_closed {
            self.input.forget_records();
        }
        self.input.release();
        Ok(())
    }

    /// A record has ended the session: its alert goes out under the session's keys.
    fn fail(&mut self, broken: Broken) -> Failure {
        if let (State::Open(records), Some(alert)) = (&mut self.state, broken.alert) {
            self.output.extend(records.seal_alert(alert).unwrap_or_default().bytes());
        }
        self.over(broken.failure)
    }

    /// Has the session's keys seal no more than so many records.
    #[cfg(test)]
    pub(super) fn set_seal_max(&mut self, most: u64) {
        if let State::Open(records) = &mut self.state {
            records.set_seal_max(most);
        }
    }

    fn over(&mut self, failure: Failure) -> Failure {
        self.state = State::Over(failure);
        self.input.forget_records();
        failure
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            State::Hello => "Hello".to_owned(),
            State::Handshake { .. } => "Handshake".to_owned(),
            State::Open(_) => "Open".to_owned(),
            State::Over(failure) => format!("Over({failure:?})"),
        };
        f.debug_struct("Session").field("state", &state).field("step", &self.step).finish_non_exhaustive()
    }
}

/// Where the first record ends, if it is whole. What is wrong with it is for rustls to say, also when that is its length.
fn first_record(bytes: &[u8]) -> Option<usize> {
    let [_, _, _, high, low, ..] = *bytes else { return None };
    let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
    let end = if len > RECORD_MAX { HEADER } else { len };
    (end <= bytes.len()).then_some(end)
}

/// Does what rustls wants.
fn take_turn<D>(state: ConnectionState<'_, '_, D>, output: &mut Vec<u8>) -> Result<Turn, Error> {
    match state {
        ConnectionState::EncodeTlsData(data) => encode(data, output).map(|()| Turn::Again),
        // It goes out in order, behind what was encoded before.
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Turn::Again)
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Ok(Turn::Idle),
        // Early data is refused (H4), and no record behind the Finished message is shown to rustls.
        ConnectionState::ReadEarlyData(_)
        | ConnectionState::ReadTraffic(_)
        | ConnectionState::PeerClosed
        | ConnectionState::Closed
        | _ => Err(Error::General("a state that the handshake does not have".to_owned())),
    }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, output: &mut Vec<u8>) -> Result<(), Error> {
    let begin = output.len();
    match data.encode(&mut []) {
        Ok(_) | Err(EncodeError::AlreadyEncoded) => Ok(()),
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
            output.resize(begin + required_size, 0);
            let written = data.encode(output.get_mut(begin..).unwrap_or_default());
            written.map(|_| ()).map_err(|error| Error::General(error.to_string()))
        }
    }
}

/// The alert that rustls has for the client after an error. It wants to see the same input as before, though it works on it no more.
fn collect_alert(
    connection: &mut UnbufferedServerConnection,
    input: &mut Vec<u8>,
    mut shown: usize,
    output: &mut Vec<u8>,
) {
    while let UnbufferedStatus { discard, state: Ok(ConnectionState::EncodeTlsData(data)) } =
        connection.process_tls_records(input.get_mut(..shown).unwrap_or_default())
    {
        if encode(data, output).is_err() {
            return;
        }
        input.drain(..discard.min(input.len()));
        shown = shown.saturating_sub(discard);
    }
}

fn version_of(connection: &CommonState) -> Option<TlsVersion> {
    let version = connection.protocol_version()?;
    if version == ProtocolVersion::TLSv1_3 {
        Some(TlsVersion::Tls13)
    } else if version == ProtocolVersion::TLSv1_2 {
        Some(TlsVersion::Tls12)
    } else {
        None
    }
}
