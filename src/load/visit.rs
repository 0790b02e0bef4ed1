//! One connection of one client: connects, shakes hands, asks, and counts what comes back.
//!
//! ```text
//! Connecting ─▶ Shaking ─▶ Asking ─▶ Parting ─▶ Closing ─▶ over
//!                          ▲    │ ├─▶ Holding ────▲
//!                          └────┘ └───────────────┘
//! ```

use std::io::{BufRead, Write};
use std::sync::Arc;

use rustls::{ClientConnection, HandshakeKind};

use crate::base::Instant;
use crate::load::clients::{Client, Clients};
use crate::load::http;
use crate::load::tally::Tally;
use crate::load::transport::Output;
use crate::load::{Failure, Mode, Plan, Taken, Transport};
use crate::tcp::Event;

/// Most bytes that a visit moves in one turn.
const WORK_MAX: usize = 256 * 1024;

/// What uploads are made of.
static BODY: [u8; 16 * 1024] = [b'x'; 16 * 1024];

/// What is the same for all visits.
#[derive(Debug)]
pub(super) struct Errand {
    mode: Mode,
    clients: Clients,
    request: String,
    /// Bytes of an upload.
    upload: u64,
    /// Bytes of an answer.
    answer: u64,
    /// Nothing new is to be begun.
    pub(super) stopping: bool,
}

impl Errand {
    pub(super) fn new(plan: &Plan, clients: Clients) -> Self {
        let (upload, answer) = match plan.mode {
            Mode::Upload => (plan.bytes, 0),
            Mode::Full | Mode::Resumed | Mode::Requests | Mode::Download | Mode::Idle => (0, plan.bytes),
        };
        let request = http::request(clients.host(), answer, upload, plan.mode.is_one_request());
        Self { mode: plan.mode, clients, request, upload, answer, stopping: false }
    }

    /// The client of this number, of the kind that the mode takes.
    pub(super) fn client(&self, number: usize) -> Client {
        if self.mode == Mode::Resumed { self.clients.returning() } else { self.clients.forgetful(number) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// TCP shakes hands.
    Connecting,
    /// TLS does.
    Shaking,
    /// A request is on its way, or its answer is.
    Asking,
    /// All has been said; the connection is kept.
    Holding,
    /// All has been said; the server is to close.
    Parting,
    /// We have closed.
    Closing,
}

/// What a visit wants after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Something must happen first.
    Wait,
    /// There is more to do at once.
    Again,
    /// It is over, and its connection gone.
    Over(Result<(), Failure>),
}

/// One connection of one client.
#[derive(Debug)]
pub(super) struct Visit<I> {
    connection: I,
    stage: Stage,
    tls: Option<Box<ClientConnection>>,
    /// It brings a ticket.
    returns: bool,
    began: Instant,
    connected: Instant,
    asked: Instant,
    /// When something last came or went.
    moved: Instant,
    upload_left: u64,
    head: Vec<u8>,
    /// Of the answer's body, once its head has been read.
    body_left: Option<u64>,
    /// The server closes behind the answer.
    closes: bool,
    /// The server has sent its close_notify.
    is_let_go: bool,
    /// We have sent ours.
    has_let_go: bool,
    answers: u64,
    failure: Option<Failure>,
    /// TCP says that the connection is over.
    ended: Option<Result<(), Failure>>,
}

impl<I: Copy> Visit<I> {
    /// A visit over a connection that is being opened, by a client who came at `began`.
    pub(super) fn new(connection: I, began: Instant, now: Instant) -> Self {
        Self {
            connection,
            stage: Stage::Connecting,
            tls: None,
            returns: false,
            began,
            connected: began,
            asked: began,
            moved: now,
            upload_left: 0,
            head: Vec::new(),
            body_left: None,
            closes: false,
            is_let_go: false,
            has_let_go: false,
            answers: 0,
            failure: None,
            ended: None,
        }
    }

    pub(super) fn connection(&self) -> I {
        self.connection
    }

    /// Whether its next turn may cost some 100 µs.
    pub(super) fn is_shaking(&self) -> bool {
        matches!(self.stage, Stage::Connecting | Stage::Shaking)
    }

    /// Whether it does nothing but be there.
    pub(super) fn is_holding(&self) -> bool {
        self.stage == Stage::Holding
    }

    /// Answers that have come.
    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    /// When something last came or went.
    pub(super) fn moved(&self) -> Instant {
        self.moved
    }

    /// Takes an event of its connection, as of `now`. A turn is wanted after it.
    pub(super) fn on_event(&mut self, event: Event, tally: &mut Tally, now: Instant) {
        match event {
            Event::Connected => {
                tally.connected(self.began, now);
                self.connected = now;
                self.stage = Stage::Shaking;
            }
            Event::Closed(close) => {
                // Who has been served does not care how it ends.
                let served = matches!(self.stage, Stage::Parting | Stage::Closing);
                self.ended = Some(if served { Ok(()) } else { Err(close.into()) });
            }
            Event::Accepted | Event::Readable | Event::Writable => {}
        }
    }

    /// Does what can be done now, at most one step of a handshake.
    pub(super) fn work<T: Transport<Connection = I>>(
        &mut self,
        errand: &Errand,
        client: &Client,
        transport: &mut T,
        tally: &mut Tally,
        now: Instant,
    ) -> Next {
        if let Some(end) = self.ended {
            return Next::Over(self.failure.map_or(end, Err));
        }
        if self.stage == Stage::Shaking && self.tls.is_none() {
            self.greet(errand, client);
        }
        let mut budget = WORK_MAX;
        while budget > 0 {
            budget = budget.saturating_sub(self.send(transport, tally, now, budget));
            let taken = transport.read(self.connection, now, &mut |bytes| {
                budget = budget.saturating_sub(bytes.len());
                self.moved = now;
                self.take(bytes, errand, client, tally, now);
            });
            if let Some(failure) = self.failure {
                self.send(transport, tally, now, WORK_MAX);
                transport.abort(self.connection, now);
                return Next::Over(Err(failure));
            }
            if self.is_let_go && self.stage == Stage::Parting {
                // A server may keep its half of TCP open until it has the client's close_notify, as nginx does for 3 s (RFC 8446 6.1).
                self.let_go();
                self.send(transport, tally, now, WORK_MAX);
            }
            if taken == Taken::Empty || self.stage == Stage::Connecting {
                if self.stage == Stage::Holding && errand.stopping {
                    self.close(transport, tally, now);
                } else if self.stage == Stage::Holding && errand.clients.is_crowd() {
                    (self.tls, self.head) = (None, Vec::new());
                }
                // What has been sent may have been all that a turn may, and not all that there is room for.
                return if budget > 0 { Next::Wait } else { Next::Again };
            }
            if taken == Taken::Finished {
                return self.finish(transport, tally, now);
            }
        }
        Next::Again
    }

    fn greet(&mut self, errand: &Errand, client: &Client) {
        self.returns = client.has_ticket();
        match ClientConnection::new(Arc::clone(&client.config), errand.clients.name().clone()) {
            Ok(tls) => self.tls = Some(Box::new(tls)),
            Err(_) => self.failure = Some(Failure::Tls),
        }
    }

    /// The server has closed.
    fn finish<T: Transport<Connection = I>>(&mut self, transport: &mut T, tally: &mut Tally, now: Instant) -> Next {
        match self.stage {
            Stage::Parting => self.close(transport, tally, now),
            Stage::Closing => {}
            Stage::Connecting | Stage::Shaking | Stage::Asking | Stage::Holding => {
                transport.abort(self.connection, now);
                return Next::Over(Err(Failure::Ended));
            }
        }
        Next::Wait
    }

    fn close<T: Transport<Connection = I>>(&mut self, transport: &mut T, tally: &mut Tally, now: Instant) {
        self.let_go();
        self.send(transport, tally, now, WORK_MAX);
        transport.shutdown(self.connection, now);
        self.stage = Stage::Closing;
    }

    fn let_go(&mut self) {
        if let Some(tls) = &mut self.tls
            && !std::mem::replace(&mut self.has_let_go, true)
        {
            tls.send_close_notify();
        }
    }

    /// Takes ciphertext.
    fn take(&mut self, mut bytes: &[u8], errand: &Errand, client: &Client, tally: &mut Tally, now: Instant) {
        if self.stage == Stage::Closing {
            return;
        }
        while !bytes.is_empty() && self.failure.is_none() {
            let Some(tls) = &mut self.tls else { return };
            match tls.read_tls(&mut bytes) {
                // It reads nothing behind a close_notify.
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => return self.fail(Failure::Tls),
            }
            match tls.process_new_packets() {
                Ok(state) => self.is_let_go |= state.peer_has_closed(),
                Err(error) => {
                    tally.first_tls_error.get_or_insert_with(|| error.to_string());
                    return self.fail(Failure::Tls);
                }
            }
            if self.stage == Stage::Shaking && !tls.is_handshaking() {
                self.on_shaken(errand, tally, now);
            }
            self.take_plaintext(errand, client, tally, now);
        }
        if self.is_let_go && matches!(self.stage, Stage::Shaking | Stage::Asking | Stage::Holding) {
            self.failure.get_or_insert(Failure::Ended);
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failure = Some(failure);
    }

    fn on_shaken(&mut self, errand: &Errand, tally: &mut Tally, now: Instant) {
        let kind = self.tls.as_ref().and_then(|tls| tls.handshake_kind());
        let resumed = kind == Some(HandshakeKind::Resumed);
        tally.shaken(resumed, self.connected, now);
        if self.returns && !resumed {
            return self.fail(Failure::NotResumed);
        }
        self.ask(errand, now);
    }

    fn ask(&mut self, errand: &Errand, now: Instant) {
        let Some(tls) = &mut self.tls else { return };
        self.stage = Stage::Asking;
        self.asked = now;
        self.upload_left = errand.upload;
        // rustls keeps 64 KiB, and has nothing else to send now.
        if tls.writer().write_all(errand.request.as_bytes()).is_err() {
            self.fail(Failure::Tls);
        }
    }

    /// Gives rustls more of an upload, and TCP what rustls has made: some `most` bytes.
    fn send<T: Transport<Connection = I>>(
        &mut self,
        transport: &mut T,
        tally: &mut Tally,
        now: Instant,
        most: usize,
    ) -> usize {
        let Some(tls) = &mut self.tls else { return 0 };
        let mut sent = 0;
        while sent < most {
            while self.upload_left > 0 {
                let len = usize::try_from(self.upload_left).unwrap_or(usize::MAX).min(BODY.len());
                let taken = tls.writer().write(BODY.get(..len).unwrap_or_default()).unwrap_or(0) as u64;
                if taken == 0 {
                    break;
                }
                self.upload_left -= taken;
                tally.moved(0, taken);
            }
            if !tls.wants_write() {
                break;
            }
            let mut output = Output { transport: &mut *transport, connection: self.connection, now };
            match tls.write_tls(&mut output) {
                Ok(taken) if taken > 0 => sent += taken,
                // No room: TCP says when there is.
                Ok(_) | Err(_) => break,
            }
        }
        if sent > 0 {
            self.moved = now;
        }
        sent
    }

    fn take_plaintext(&mut self, errand: &Errand, client: &Client, tally: &mut Tally, now: Instant) {
        while self.failure.is_none() {
            let Some(mut tls) = self.tls.take() else { return };
            let len = match tls.reader().fill_buf() {
                Ok(bytes) => {
                    self.on_answer(bytes, errand, tally, now);
                    bytes.len()
                }
                Err(_) => 0,
            };
            tls.reader().consume(len);
            self.tls = Some(tls);
            if len == 0 {
                return;
            }
            self.next(errand, client, tally, now);
        }
    }

    /// Takes a part of an answer.
    fn on_answer(&mut self, mut bytes: &[u8], errand: &Errand, tally: &mut Tally, now: Instant) {
        if bytes.is_empty() {
            return;
        }
        if self.stage != Stage::Asking {
            return self.fail(Failure::WrongAnswer);
        }
        if self.body_left.is_none() {
            if self.head.is_empty() && self.answers == 0 {
                tally.first_byte(self.began, now);
            }
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            match http::read_answer(&self.head) {
                Ok(None) => return,
                Ok(Some(answer)) if answer.status == 200 && answer.body == errand.answer => {
                    self.body_left = Some(answer.body);
                    self.closes = answer.closes;
                    bytes = bytes.get(answer.head - before..).unwrap_or_default();
                }
                Ok(Some(_)) | Err(http::Malformed) => return self.fail(Failure::WrongAnswer),
            }
        }
        let len = bytes.len() as u64;
        tally.moved(len, 0);
        match self.body_left.and_then(|left| left.checked_sub(len)) {
            Some(left) => self.body_left = Some(left),
            None => self.fail(Failure::WrongAnswer),
        }
    }

    /// Goes on after an answer that is complete.
    fn next(&mut self, errand: &Errand, client: &Client, tally: &mut Tally, now: Instant) {
        if self.body_left != Some(0) || self.stage != Stage::Asking || self.failure.is_some() {
            return;
        }
        if self.upload_left > 0 {
            return self.fail(Failure::WrongAnswer);
        }
        tally.answered(self.asked, now);
        self.answers += 1;
        self.head.clear();
        self.body_left = None;
        if errand.mode == Mode::Resumed && !client.has_ticket() {
            return self.fail(Failure::NoTicket);
        }
        if errand.mode.is_one_request() || self.closes {
            self.stage = Stage::Parting;
        } else if errand.stopping || errand.mode == Mode::Idle {
            self.stage = Stage::Holding;
        } else {
            self.ask(errand, now);
        }
    }
}
