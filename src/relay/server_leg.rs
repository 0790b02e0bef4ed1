//! TLS on a relay's leg towards its server: re-encryption.
//!
//! The engine is the server's client here, and what it says of itself is the pool's business. What it tells the server of its client goes before, as a PROXY protocol
//! header in plain, and with the ALPN protocol that the client has got: it is the client that will speak it.

use std::sync::Arc;

use crate::base::{Instant, Piece, UnixTime};
use crate::relay::End;
use crate::tcp::{ConnectionId, Readable, Stack};
use crate::tls::cipher::{OVERHEAD_MAX, PLAINTEXT_MAX};
use crate::tls::client::{Failure, Progress, Session, Target};

/// The TLS session on a server's leg.
#[derive(Debug)]
pub(super) struct Secured {
    session: Session,
    /// FIN goes behind what is still to be transmitted.
    closes: bool,
}

/// What a step of the handshake came to.
#[derive(Debug)]
pub(super) enum Step {
    /// The server must say something first.
    Wait,
    /// There is more to work on.
    Again,
    /// Application data may flow.
    Established {
        /// Whether an earlier session was resumed.
        resumed: bool,
    },
}

/// What there is of the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing.
    Nothing,
    /// So many bytes wait to be taken.
    Data(usize),
    /// Something that is no data: ask again.
    Other,
    /// All that it had to say.
    Finished,
}

impl Secured {
    /// A session with a server, for a client that speaks this protocol over its own.
    pub(super) fn new(target: &Arc<Target>, alpn: Option<&[u8]>) -> Self {
        Self { session: Session::offering(target, alpn), closes: false }
    }

    /// One step of the handshake.
    pub(super) fn shake(
        &mut self,
        server: ConnectionId,
        stack: &mut Stack,
        unix: UnixTime,
        now: Instant,
    ) -> Result<Step, End> {
        let taken = match stack.readable(server) {
            Readable::Data(bytes) => {
                let taken = self.session.on_data(bytes).map_err(End::ServerTls)?;
                stack.consume(server, taken, now);
                // The session's buffer is full of a message that does not end in it: nothing that the server sends can help.
                if taken == 0 {
                    return Err(End::ServerTls(Failure::Protocol));
                }
                taken
            }
            Readable::Empty => 0,
            Readable::Finished => return Err(End::ServerTruncated),
        };
        let progress = self.session.advance(unix);
        self.flush(server, stack, now);
        match progress.map_err(End::ServerTls)? {
            Progress::Established(handshake) => Ok(Step::Established { resumed: handshake.resumed }),
            Progress::Handshaking | Progress::Open if taken == 0 => Ok(Step::Wait),
            Progress::Handshaking | Progress::Open => Ok(Step::Again),
        }
    }

    /// Seals for the server up to so many bytes of those that wait, which `take` gives: how many it took. None means that there is no room.
    pub(super) fn send(
        &mut self,
        server: ConnectionId,
        waiting: usize,
        mut take: impl FnMut(usize) -> Option<Piece>,
        stack: &mut Stack,
        now: Instant,
    ) -> Result<usize, End> {
        loop {
            self.flush(server, stack, now);
            let room = stack.room_for(server, waiting.min(PLAINTEXT_MAX) + OVERHEAD_MAX);
            match self.session.seal(room, &mut take).map_err(End::ServerTls)? {
                Some((taken, record)) => {
                    stack.append(server, record, now).map_err(|_| End::ServerTls(Failure::Internal))?;
                    return Ok(taken);
                }
                // New keys go first.
                None if self.session.has_output() && self.has_transmitted(server, stack, now) => {}
                None => return Ok(0),
            }
        }
    }

    /// Whether what is to be transmitted has found room.
    fn has_transmitted(&mut self, server: ConnectionId, stack: &mut Stack, now: Instant) -> bool {
        self.flush(server, stack, now);
        !self.session.has_output()
    }

    /// Works on what the server has sent, and says what there is of it.
    pub(super) fn hear(
        &mut self,
        server: Option<ConnectionId>,
        stack: &mut Stack,
        unix: UnixTime,
        now: Instant,
    ) -> Result<Heard, End> {
        if self.session.readable() > 0 {
            return Ok(Heard::Data(self.session.readable()));
        }
        if self.session.peer_has_closed() {
            return Ok(Heard::Finished);
        }
        let readable = server.map_or(Readable::Finished, |server| stack.readable(server));
        let taken = match readable {
            Readable::Data(bytes) => self.session.on_data(bytes).map_err(End::ServerTls)?,
            Readable::Empty => return Ok(Heard::Nothing),
            // RFC 8446 6.1: without close_notify its stream may have been cut short by anyone on the way, and its client must not take that for the end.
            Readable::Finished => return Err(End::ServerTruncated),
        };
        let Some(server) = server else { return Ok(Heard::Nothing) };
        stack.consume(server, taken, now);
        self.session.advance(unix).map_err(End::ServerTls)?;
        self.flush(server, stack, now);
        Ok(Heard::Other)
    }

    /// Takes what the server has said.
    pub(super) fn take(&mut self, most: usize) -> Option<Piece> {
        self.session.take(most)
    }

    /// The client has nothing more to say: close_notify, then FIN.
    pub(super) fn close(&mut self, server: ConnectionId, stack: &mut Stack, now: Instant) {
        self.session.close();
        self.closes = true;
        self.flush(server, stack, now);
    }

    /// The session has failed: its alert, then FIN.
    pub(super) fn give_up(&mut self, server: ConnectionId, stack: &mut Stack, now: Instant) {
        self.closes = true;
        self.flush(server, stack, now);
    }

    /// Transmits handshake messages and alerts, and FIN behind the last of them.
    pub(super) fn flush(&mut self, server: ConnectionId, stack: &mut Stack, now: Instant) {
        self.session.poll_transmit(|bytes| stack.write(server, bytes, now));
        if self.closes && !self.session.has_output() {
            stack.shutdown(server, now);
        }
    }
}
