//! One TLS session with a server, client side.
//!
//! ```text
//! Begin ──advance: ClientHello──▶ Handshake ──Finished──▶ Open
//!                                     └────────▶ Over ◀────┘
//! ```

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::{Error, HandshakeKind};

use crate::base::{Piece, UnixTime};
use crate::ticket::TlsVersion;
use crate::tls::channel::Channel;
use crate::tls::client::{Failure, Name, Target};
use crate::tls::notes::{self, Notes};
use crate::tls::record::{Alert, Broken, RECORD_MAX, Records, Side};
use crate::tls::service::iana_name;
use crate::tls::turn::{self, Turn, first_record, version_of};

/// Most bytes that an established session keeps of what it was given: the longest record.
pub const INPUT_MAX: usize = RECORD_MAX;

/// Most bytes that it keeps during the handshake: rustls refuses longer messages, and one record more may have come.
pub const HANDSHAKE_MAX: usize = 64 * 1024 + RECORD_MAX;

/// The content types that a server may begin with: it answers, or refuses to (RFC 8446 5.1).
const FIRST: [u8; 2] = [22, 21];

/// A TLS session with a server.
///
/// What it keeps is bounded: [`INPUT_MAX`] bytes of records and plaintext, [`HANDSHAKE_MAX`] during the handshake, and its own handshake messages and alerts until
/// they are transmitted. Until the server has sent a ticket or data it also keeps what rustls makes a session of that can be resumed, the server's certificates among
/// it. An idle session keeps its keys and nothing else. Data for the server is not kept here: [`seal`](Self::seal) gives it away.
pub struct Session {
    target: Arc<Target>,
    /// What is offered instead of the target's application protocols.
    alpn: Option<Box<[u8]>>,
    pub(super) state: State,
    has_heard: bool,
    channel: Channel,
}

pub(super) enum State {
    /// Nothing has been said.
    Begin,
    /// Messages of the handshake flow. rustls has been shown so many bytes of the input.
    Handshake { connection: Box<UnbufferedClientConnection>, shown: usize, notes: Option<Box<Notes>> },
    /// Application data flows. A ticket of TLS 1.3 is still awaited, or none.
    Open(Option<Box<KernelConnection<ClientConnectionData>>>),
    /// The alert is among the output, and what was decrypted before may still be read.
    Over(Failure),
}

/// What [`Session::advance`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The handshake goes on: transmit, then wait for the server.
    Handshaking,
    /// The handshake has just ended. Said once.
    ///
    /// In TLS 1.3 the server has not seen our certificate then: should it refuse it, that comes as a [`Failure`] later.
    Established(Handshake),
    /// Application data flows.
    Open,
}

/// What is known once a handshake has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// Protocol version.
    pub version: TlsVersion,
    /// Cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// Application protocol that was agreed on.
    pub alpn: Option<Box<[u8]>>,
}

impl Session {
    /// A session that has said nothing yet.
    pub fn new(target: &Arc<Target>) -> Self {
        Self::offering(target, None)
    }

    /// The same that offers this application protocol instead of the target's own, if there is one: that of a client whose data it will carry.
    pub fn offering(target: &Arc<Target>, alpn: Option<&[u8]>) -> Self {
        Self {
            target: Arc::clone(target),
            alpn: alpn.map(Box::from),
            state: State::Begin,
            has_heard: false,
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
        let is_first = !std::mem::replace(&mut self.has_heard, true);
        match &self.state {
            // Whoever begins otherwise does not read alerts either.
            State::Begin | State::Handshake { .. } if is_first && !FIRST.contains(first) => {
                Err(self.over(Failure::NotTls))
            }
            State::Begin | State::Handshake { .. } => Ok(self.channel.input.take(bytes, HANDSHAKE_MAX)),
            State::Open(_) => Ok(self.channel.take_records(bytes)),
            State::Over(failure) => Err(*failure),
        }
    }

    /// Works on what it was given: at most one flight of a handshake, or one buffer full of records. By `now` certificates are verified and tickets aged.
    ///
    /// # Errors
    /// [`Failure`] when the session is over; [`poll_transmit`](Self::poll_transmit) then still has the alert to send.
    pub fn advance(&mut self, now: UnixTime) -> Result<Progress, Failure> {
        match &self.state {
            State::Begin => self.begin(now),
            State::Handshake { .. } => self.shake_hands(now),
            State::Open(_) => self.open_records(now).map(|()| Progress::Open),
            State::Over(failure) => Err(*failure),
        }
    }

    /// Whether the handshake has not ended yet.
    pub fn is_handshaking(&self) -> bool {
        match &self.state {
            State::Begin | State::Handshake { .. } => true,
            State::Open(_) | State::Over(_) => false,
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

    /// Encrypts data for the server, which `take` gives: at most as many bytes as it is told, so that the record has at most `room`. Gives how many bytes that were and
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

    /// Whether the server has sent close_notify. Without it, the end of its stream is a truncation.
    pub fn peer_has_closed(&self) -> bool {
        self.channel.peer_has_closed
    }

    fn begin(&mut self, now: UnixTime) -> Result<Progress, Failure> {
        let (config, Name(name)) = (Arc::clone(&self.target.config), self.target.name.clone());
        let alpn = self.alpn.take().map_or_else(|| config.alpn_protocols.clone(), |alpn| vec![alpn.into_vec()]);
        let mut notes = Some(Box::new(Notes { now: Some(now), ..Notes::default() }));
        // rustls makes the ClientHello at once, and looks for a ticket for it.
        match notes::during(&mut notes, || UnbufferedClientConnection::new_with_alpn(config, name, alpn)) {
            Ok(connection) => {
                self.state = State::Handshake { connection: Box::new(connection), shown: 0, notes };
                self.shake_hands(now)
            }
            Err(error) => Err(self.over(Failure::of(&error))),
        }
    }

    /// Lets rustls work on the records that have come.
    ///
    /// It is shown one more only when it has no use for those before: what comes behind the Finished message is for [`Records`].
    fn shake_hands(&mut self, now: UnixTime) -> Result<Progress, Failure> {
        loop {
            let State::Handshake { connection, shown, notes } = &mut self.state else {
                return Err(self.over(Failure::Internal));
            };
            if let Some(notes) = notes {
                notes.now = Some(now);
            }
            let (input, output) = (&mut self.channel.input.bytes, &mut self.channel.output);
            let (discard, took) = notes::during(notes, || turn::take(&mut **connection, input, *shown, output));
            input.drain(..discard.min(input.len()));
            *shown = shown.saturating_sub(discard);
            let is_done = !connection.is_handshaking();
            match took {
                Ok(Turn::Again) => {}
                Ok(Turn::Idle) if is_done => return self.establish(now),
                Ok(Turn::Idle) if self.show_another() => {}
                Ok(Turn::Idle) => return Ok(Progress::Handshaking),
                Err(error) => return Err(self.give_up(&error)),
            }
        }
    }

    /// Shows rustls another record; whether there is a whole one.
    fn show_another(&mut self) -> bool {
        let State::Handshake { shown, .. } = &mut self.state else { return false };
        let next = first_record(self.channel.input.bytes.get(*shown..).unwrap_or_default());
        *shown += next.unwrap_or(0);
        next.is_some()
    }

    /// rustls has failed; says why, with an alert for the server among the output.
    fn give_up(&mut self, error: &Error) -> Failure {
        if let State::Handshake { connection, shown, notes } = &mut self.state {
            let (input, output) = (&mut self.channel.input.bytes, &mut self.channel.output);
            notes::during(notes, || turn::collect_alert(&mut **connection, input, *shown, output));
        }
        self.over(Failure::of(error))
    }

    /// The handshake has ended: from here on the records are ours.
    fn establish(&mut self, now: UnixTime) -> Result<Progress, Failure> {
        let handshake = std::mem::replace(&mut self.state, State::Over(Failure::Internal));
        let State::Handshake { connection, notes: Some(notes), .. } = handshake else {
            return Err(Failure::Internal);
        };
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let alpn = connection.alpn_protocol().map(Box::from);
        let version = version_of(&connection);
        let suite = connection.negotiated_cipher_suite();
        let Some((version, suite)) = version.zip(suite) else { return Err(Failure::Internal) };
        // In TLS 1.2 the ticket has come with the handshake.
        let wants_ticket = self.target.resumption && version == TlsVersion::Tls13;
        let side = Side::Client { wants_ticket };
        let records = Records::new(suite, version, *notes, side).ok_or(Failure::Internal)?;
        let awaiting = match wants_ticket.then(|| connection.dangerous_into_kernel_connection()) {
            Some(Ok((_, kernel))) => Some(Box::new(kernel)),
            Some(Err(_)) => return Err(Failure::Internal),
            None => None,
        };
        self.state = State::Open(awaiting);
        self.channel.begin_records(records);
        // Data or a ticket may have come with the Finished message.
        self.open_records(now)?;
        Ok(Progress::Established(Handshake { resumed, version, cipher: iana_name(suite.suite()), alpn }))
    }

    /// Opens all whole records that have come.
    fn open_records(&mut self, now: UnixTime) -> Result<(), Failure> {
        self.channel.open_records().map_err(|broken| self.fail(broken))?;
        self.keep_ticket(now)
    }

    /// Gives rustls the first ticket that has come. OpenSSL, BoringSSL, GnuTLS and rustls send tickets before any data, so none is awaited behind it.
    fn keep_ticket(&mut self, now: UnixTime) -> Result<(), Failure> {
        let State::Open(awaiting @ Some(_)) = &mut self.state else { return Ok(()) };
        let has_data = !self.channel.input.plaintext().is_empty();
        let Some(messages) = self.channel.records().and_then(Records::messages) else { return Ok(()) };
        let Some(ticket) = messages.take_ticket() else {
            if has_data {
                messages.forget_tickets();
                *awaiting = None;
            }
            return Ok(());
        };
        let Some(mut kernel) = awaiting.take() else { return Ok(()) };
        let mut notes = Some(Box::new(Notes { now: Some(now), ..Notes::default() }));
        match notes::during(&mut notes, || kernel.handle_new_session_ticket(&ticket)) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.fail(Broken::by_peer(Alert::DecodeError))),
        }
    }

    /// A record has ended the session.
    fn fail(&mut self, broken: Broken) -> Failure {
        let alert = self.channel.records().and_then(|records| records.alert_received());
        self.channel.fail(broken);
        let failure = Failure::from(broken.failure);
        self.over(match (failure, alert) {
            (Failure::AlertReceived, Some(description)) => Failure::of_alert(description),
            (failure, _) => failure,
        })
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
            State::Begin => "Begin".to_owned(),
            State::Handshake { .. } => "Handshake".to_owned(),
            State::Open(_) => "Open".to_owned(),
            State::Over(failure) => format!("Over({failure:?})"),
        };
        f.debug_struct("client::Session")
            .field("state", &state)
            .field("name", &self.target.name)
            .finish_non_exhaustive()
    }
}
