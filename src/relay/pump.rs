//! The bytes between a relay's legs, each way with the other's back-pressure.

use std::rc::Rc;

use crate::balance::Backend;
use crate::base::{Instant, UnixTime};
use crate::relay::End;
use crate::relay::legs::{Next, Relay};
use crate::relay::server_leg::Heard;
use crate::tcp::{ConnectionId, Readable, Stack};
use crate::tls::cipher::{OVERHEAD_MAX, PLAINTEXT_MAX};
use crate::tls::{Desk, Failure};

/// Most bytes that one call of [`Relay::work`] moves in each direction, so that one bulk transfer does not hold up a breath.
pub const WORK_MAX: usize = 64 * 1024;

impl Relay {
    /// Moves bytes both ways.
    pub(super) fn pump(
        &mut self,
        stack: &mut Stack,
        desk: &mut Box<Desk>,
        backend: &Rc<Backend>,
        now: Instant,
    ) -> Next {
        let (moved, unix) = ((self.received, self.sent), desk.now());
        let pumped = self
            .pump_upstream(stack, desk, backend, now)
            .and_then(|upstream| Ok((upstream, self.pump_downstream(stack, unix, now)?)));
        if moved != (self.received, self.sent) {
            self.moved = now;
        }
        match pumped {
            Ok((Next::Again, _)) => Next::Again,
            Ok((_, downstream)) => downstream,
            Err(end @ (End::ServerTls(_) | End::ServerTruncated)) => {
                self.fail_server(end, stack, now);
                Next::Again
            }
            Err(end) => {
                self.fail(end, stack, now);
                Next::Again
            }
        }
    }

    /// Client to server.
    fn pump_upstream(
        &mut self,
        stack: &mut Stack,
        desk: &mut Box<Desk>,
        backend: &Rc<Backend>,
        now: Instant,
    ) -> Result<Next, End> {
        let enough = self.received + WORK_MAX as u64;
        loop {
            if !self.deliver(stack, now)? {
                return Ok(Next::Wait);
            }
            if self.session.peer_has_closed() && !self.upstream_closed {
                self.close_upstream(stack, now);
            }
            if self.upstream_closed {
                drop_input(self.client, stack, now);
                return Ok(Next::Wait);
            }
            if self.received >= enough {
                return Ok(Next::Again);
            }
            let taken = match read(stack, self.client) {
                Readable::Data(bytes) => self.session.on_data(bytes).map_err(End::Tls)?,
                Readable::Empty => return Ok(Next::Wait),
                // RFC 8446 6.1: without close_notify the stream may have been cut short by anyone on the way. Once the server has said all that it
                // had to say nothing can be cut; before, the server must not take it for the end.
                Readable::Finished if self.downstream_closed => {
                    self.close_upstream(stack, now);
                    continue;
                }
                Readable::Finished => return Err(End::ClientTruncated),
            };
            let Some(client) = self.client.filter(|_| taken > 0) else { return Ok(Next::Wait) };
            stack.consume(client, taken, now);
            self.session.advance(desk, backend).map_err(End::Tls)?;
            self.flush(stack, now);
        }
    }

    /// Hands plaintext to the server's leg; whether all of it found room.
    fn deliver(&mut self, stack: &mut Stack, now: Instant) -> Result<bool, End> {
        let Some(server) = self.server else { return Ok(true) };
        let session = &mut self.session;
        while session.readable() > 0 {
            let waiting = session.readable();
            let taken = match &mut self.secured {
                Some(secured) => secured.send(server, waiting, |most| session.take(most), stack, now)?,
                None => {
                    let room = stack.room_for(server, waiting);
                    let Some(plaintext) = session.take(room) else { return Ok(false) };
                    let taken = plaintext.len();
                    // There is room for it.
                    if stack.append(server, plaintext, now).is_err() { 0 } else { taken }
                }
            };
            self.received += taken as u64;
            if taken == 0 {
                return Ok(false);
            }
            self.patience.on_asked(now);
            self.timing.on_asked(now);
        }
        Ok(true)
    }

    fn close_upstream(&mut self, stack: &mut Stack, now: Instant) {
        self.upstream_closed = true;
        self.moved = now;
        match (self.server, &mut self.secured) {
            (Some(server), Some(secured)) => secured.close(server, stack, now),
            (Some(server), None) => stack.shutdown(server, now),
            (None, _) => {}
        }
    }

    /// Server to client.
    fn pump_downstream(&mut self, stack: &mut Stack, unix: UnixTime, now: Instant) -> Result<Next, End> {
        let enough = self.sent + WORK_MAX as u64;
        loop {
            self.flush(stack, now);
            if self.session.has_output() || self.downstream_closed {
                return Ok(Next::Wait);
            }
            if self.sent >= enough {
                return Ok(Next::Again);
            }
            match self.hear(stack, unix, now)? {
                Heard::Data(len) => {
                    if !self.send(len.min(PLAINTEXT_MAX) + OVERHEAD_MAX, stack, now)? {
                        return Ok(Next::Wait);
                    }
                }
                Heard::Other => {}
                Heard::Nothing => return Ok(Next::Wait),
                Heard::Finished => {
                    self.session.close();
                    self.flush(stack, now);
                    self.downstream_closed = true;
                    self.moved = now;
                }
            }
        }
    }

    /// What there is of the server's.
    fn hear(&mut self, stack: &mut Stack, unix: UnixTime, now: Instant) -> Result<Heard, End> {
        match &mut self.secured {
            Some(secured) => secured.hear(self.server, stack, unix, now),
            None => Ok(match read(stack, self.server) {
                Readable::Data(bytes) => Heard::Data(bytes.len()),
                Readable::Empty => Heard::Nothing,
                Readable::Finished => Heard::Finished,
            }),
        }
    }

    /// Seals what the server has sent into a record of at most `wanted` bytes, which the client's connection keeps until it is acknowledged; whether there is
    /// something new to flush or more to send.
    fn send(&mut self, wanted: usize, stack: &mut Stack, now: Instant) -> Result<bool, End> {
        let (Some(client), Some(server)) = (self.client, self.server) else { return Ok(false) };
        let room = stack.room_for(client, wanted);
        let secured = &mut self.secured;
        let sealed = self.session.seal(room, |most| match secured {
            Some(secured) => secured.take(most),
            None => stack.take(server, most, now),
        });
        let Some((taken, record)) = sealed.map_err(End::Tls)? else { return Ok(self.session.has_output()) };
        stack.append(client, record, now).map_err(|_| End::Tls(Failure::Internal))?;
        self.sent += taken as u64;
        self.patience.on_answered(now);
        self.timing.on_answered(now);
        Ok(true)
    }

    /// Hands handshake messages and alerts to the connections of both, and to the client's FIN behind the last of them.
    pub(super) fn flush(&mut self, stack: &mut Stack, now: Instant) {
        if let (Some(server), Some(secured)) = (self.server, &mut self.secured) {
            secured.flush(server, stack, now);
            if self.downstream_closed {
                drop_input(Some(server), stack, now);
            }
        }
        let Some(client) = self.client else { return };
        self.session.poll_transmit(|bytes| stack.write(client, bytes, now));
        if self.downstream_closed && !self.session.has_output() {
            stack.shutdown(client, now);
        }
    }
}

/// Reads and forgets what a peer still sends after it has nothing to say any more.
pub(super) fn drop_input(leg: Option<ConnectionId>, stack: &mut Stack, now: Instant) {
    let Some(leg) = leg else { return };
    while let Readable::Data(bytes) = stack.readable(leg) {
        let len = bytes.len();
        stack.consume(leg, len, now);
    }
}

/// What there is to read on a leg. One that TCP has closed in order, which it does when everything has been read, has finished.
pub(super) fn read(stack: &Stack, leg: Option<ConnectionId>) -> Readable<'_> {
    leg.map_or(Readable::Finished, |leg| stack.readable(leg))
}
