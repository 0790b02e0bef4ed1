//! One client's TLS session, server side.
//!
//! ```text
//! Hello ──a whole record──▶ Handshake ──Finished──▶ Open
//!   └──────────────┴──────────────────▶ Over ◀───────────┘
//! ```

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::{Error, HandshakeKind};

use crate::balance::Backend;
use crate::base::{EngineId, Piece, ServerId};
use crate::persistence::{Decision, Reason};
use crate::ticket::{KeyId, TlsVersion};
use crate::tls::channel::Channel;
use crate::tls::clients::Client;
use crate::tls::desk::Step;
use crate::tls::failure::{ClientFault, Failure};
use crate::tls::notes::{Admission, Hello, Notes, Shown};
use crate::tls::record::{Alert, Broken, RECORD_MAX, Records, Side};
use crate::tls::service::iana_name;
use crate::tls::ticketer::Ledgers;
use crate::tls::turn::{self, Turn, first_record, version_of};
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
    channel: Channel,
}

enum State {
    /// A ClientHello is awaited.
    Hello,
    /// Messages of the handshake flow. rustls has been shown so many bytes of the input.
    Handshake { connection: Box<UnbufferedServerConnection>, shown: usize, notes: Option<Box<Notes>> },
    /// Application data flows.
    Open,
    /// The alert is among the output, and what was decrypted before may still be read.
    Over(Failure),
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
    /// A session that waits for a ClientHello. Its client connects from this address.
    pub fn new(service: &Arc<Service>, client: IpAddr) -> Self {
        Self {
            service: Arc::clone(service),
            state: State::Hello,
            step: Step::new(client),
            server_name: None,
            has_asked: false,
            channel: Channel::default(),
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
            State::Hello if self.channel.input.bytes.is_empty() && *first != HANDSHAKE_RECORD => {
                Err(self.over(Failure::NotTls))
            }
            State::Hello | State::Handshake { .. } => Ok(self.channel.input.take(bytes, HANDSHAKE_MAX)),
            State::Open => Ok(self.channel.take_records(bytes)),
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
            State::Open => self.channel.open_records().map(|()| Progress::Open).map_err(|broken| self.fail(broken)),
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
            State::Open | State::Over(_) => false,
        }
    }

    /// Whether nothing of the handshake has been worked on yet: what is most of its cost is still to come.
    pub fn awaits_hello(&self) -> bool {
        match &self.state {
            State::Hello => true,
            State::Handshake { .. } | State::Open | State::Over(_) => false,
        }
    }

    /// Hands handshake messages and alerts to `take`, which gives how many bytes it took, until it takes less than it is given or nothing is left.
    pub fn poll_transmit(&mut self, take: impl FnMut(&[u8]) -> usize) {
        self.channel.poll_transmit(take);
    }

    /// Whether something waits to be transmitted.
    pub fn has_output(&self) -> bool {
        self.channel.has_output()
    }

    /// Bytes of decrypted data that wait to be taken.
    pub fn readable(&self) -> usize {
        self.channel.input.plaintext().len()
    }

    /// Takes decrypted data, at most so many bytes and at least one: without a copy if that is all that waits.
    pub fn take(&mut self, most: usize) -> Option<Piece> {
        self.channel.input.take_plaintext(most)
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
        self.channel.seal(room, take).map_err(|broken| self.fail(broken))
    }

    /// Sends close_notify behind what was sealed. Once is enough, more does nothing.
    pub fn close(&mut self) {
        self.channel.close();
    }

    /// Ends an open session with a fatal internal_error alert: the client can be served by nobody.
    pub fn turn_away(&mut self) {
        if matches!(self.state, State::Open) {
            self.fail(Broken { failure: Failure::Internal, alert: Some(Alert::InternalError) });
        }
    }

    /// Whether the client has sent close_notify. Without it, the end of its stream is a truncation.
    pub fn peer_has_closed(&self) -> bool {
        self.channel.peer_has_closed
    }

    /// Server name that the client asked for, from its ClientHello to the end of the handshake, which then [has it](Handshake::server_name). Not known of a client
    /// that has no protocol version in common with us.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Begins a handshake once there is a whole record: until then, whoever connects costs no more than what it sends.
    fn begin(&mut self, desk: &mut Desk, backend: &Rc<Backend>) -> Result<Progress, Failure> {
        let Some(shown) = first_record(&self.channel.input.bytes) else { return Ok(Progress::Handshaking) };
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
            let input = &mut self.channel.input.bytes;
            let output = &mut self.channel.output;
            let (discard, took) =
                desk.during(&mut self.step, notes, backend, || turn::take(&mut **connection, input, *shown, output));
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
            self.channel.output.extend(UNRECOGNIZED_NAME);
            return self.over(Failure::UnknownServerName);
        }
        let said = self.channel.output.len();
        if let State::Handshake { connection, shown, notes } = &mut self.state {
            let (input, output) = (&mut self.channel.input.bytes, &mut self.channel.output);
            desk.during(&mut self.step, notes, backend, || {
                turn::collect_alert(&mut **connection, input, *shown, output)
            });
        }
        let failure = Failure::of(error);
        if (failure, self.step.version) == (Failure::Client(ClientFault::Missing), Some(TlsVersion::Tls12)) {
            // certificate_required is of TLS 1.3; RFC 5246 7.4.6 has handshake_failure for it. No key protects the alert yet.
            self.channel.output.truncate(said);
            self.channel.output.extend(HANDSHAKE_FAILURE);
        }
        if !has_nothing_in_common {
            return self.over(failure);
        }
        if self.channel.output.len() == said {
            self.channel.output.extend(HANDSHAKE_FAILURE);
        }
        self.over(Failure::NothingInCommon)
    }

    /// Shows rustls another record; whether there is a whole one.
    fn show_another(&mut self) -> bool {
        let State::Handshake { shown, .. } = &mut self.state else { return false };
        let next = first_record(self.channel.input.bytes.get(*shown..).unwrap_or_default());
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
        let records = Records::new(suite, version, *notes, Side::Server).ok_or(Failure::Internal)?;
        self.state = State::Open;
        self.channel.begin_records(records);
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
            true => {
                desk.counters().handshakes_resumed.increment();
                if let Some(issuer) = handshake.issuer {
                    desk.ledgers().issuers.count(issuer.0, Ledgers::RESUMED_OF);
                }
            }
            false => desk.counters().handshakes_full.increment(),
        }
        // Data may have come with the Finished message.
        self.channel.open_records().map_err(|broken| self.fail(broken))?;
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

    /// A record has ended the session.
    fn fail(&mut self, broken: Broken) -> Failure {
        self.channel.fail(broken);
        self.over(broken.failure)
    }

    /// Has the session's keys seal no more than so many records.
    #[cfg(test)]
    pub(super) fn set_seal_max(&mut self, most: u64) {
        if let Some(records) = self.channel.records() {
            records.set_seal_max(most);
        }
    }

    fn over(&mut self, failure: Failure) -> Failure {
        self.state = State::Over(failure);
        self.channel.end();
        failure
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            State::Hello => "Hello".to_owned(),
            State::Handshake { .. } => "Handshake".to_owned(),
            State::Open => "Open".to_owned(),
            State::Over(failure) => format!("Over({failure:?})"),
        };
        f.debug_struct("Session").field("state", &state).field("step", &self.step).finish_non_exhaustive()
    }
}
