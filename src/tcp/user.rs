//! What the user of a connection does with it: read, write, close.

use crate::base::{Instant, Piece};
use crate::tcp::stack::{Reply, Stack, account};
use crate::tcp::state::{State, Step};
use crate::tcp::{ConnectionId, Readable};
use crate::wire::{Flags, SegmentOptions};

impl Stack {
    /// What there is to read. An unknown connection has finished.
    pub fn readable(&self, id: ConnectionId) -> Readable<'_> {
        self.find(id).map_or(Readable::Finished, |connection| connection.receiver.readable())
    }

    /// Takes `len` bytes that [`readable`](Self::readable) showed out of the receive buffer; the peer's window opens accordingly.
    pub fn consume(&mut self, id: ConnectionId, len: usize, now: Instant) {
        let Some(index) = self.connections.find(id) else { return };
        let memory = self.memory();
        let Some(connection) = self.connections.at_mut(index) else { return };
        connection.receiver.consume(len, connection.state.receives(), memory);
        // A window to tell of and an end that has waited for the reader: nothing else follows.
        if connection.receiver.ack_wanted() || connection.over.is_some() {
            self.settle(index, now);
        } else {
            account(&mut self.buffered, connection);
        }
    }

    /// Takes at most `most` bytes that [`readable`](Self::readable) shows out of the receive buffer, without a copy if that is all of them.
    pub fn take(&mut self, id: ConnectionId, most: usize, now: Instant) -> Option<Piece> {
        let connection = self.connections.find(id).and_then(|index| self.connections.at_mut(index))?;
        let piece = connection.receiver.take(most)?;
        // What is left to do is to open the window.
        self.consume(id, 0, now);
        Some(piece)
    }

    /// How many bytes [`write`](Self::write) would take now.
    pub fn writable(&self, id: ConnectionId) -> usize {
        self.find(id)
            .filter(|connection| connection.over.is_none())
            .map_or(0, |connection| connection.sender.room(self.memory()))
    }

    /// Queues bytes to send and gives how many it took; less than all asks for an [`Event::Writable`] later. Before the handshake has ended they wait.
    pub fn write(&mut self, id: ConnectionId, bytes: &[u8], now: Instant) -> usize {
        let Some(index) = self.connections.find(id) else { return 0 };
        let memory = self.memory();
        let Some(connection) = self.connections.at_mut(index) else { return 0 };
        if connection.over.is_some() {
            return 0;
        }
        let taken = connection.sender.write(bytes, memory);
        self.settle(index, now);
        taken
    }

    /// How long a piece for [`append`](Self::append) may be: up to `wanted` bytes, but no less than a quarter of what the connection may queue. Zero asks for an
    /// [`Event::Writable`] later.
    pub fn room_for(&mut self, id: ConnectionId, wanted: usize) -> usize {
        let memory = self.memory();
        self.connections
            .find(id)
            .and_then(|index| self.connections.at_mut(index))
            .filter(|connection| connection.over.is_none())
            .map_or(0, |connection| connection.sender.room_for(wanted, memory))
    }

    /// Queues a piece as it is, without a copy: it is kept until all of it is acknowledged.
    ///
    /// # Errors
    /// The piece comes back if it is longer than [`writable`](Self::writable) says.
    pub fn append(&mut self, id: ConnectionId, piece: Piece, now: Instant) -> Result<(), Piece> {
        let Some(index) = self.connections.find(id) else { return Err(piece) };
        let memory = self.memory();
        let Some(connection) = self.connections.at_mut(index).filter(|connection| connection.over.is_none()) else {
            return Err(piece);
        };
        connection.sender.append(piece, memory)?;
        self.settle(index, now);
        Ok(())
    }

    /// Bytes written and not yet acknowledged.
    pub fn unacknowledged(&self, id: ConnectionId) -> usize {
        self.find(id).map_or(0, |connection| connection.sender.queued())
    }

    /// Sends FIN behind what is queued. Reading goes on; a peer that never closes keeps the connection in FIN-WAIT-2 for as long as the user likes.
    pub fn shutdown(&mut self, id: ConnectionId, now: Instant) {
        let Some(index) = self.connections.find(id) else { return };
        let Some(connection) = self.connections.at_mut(index) else { return };
        if connection.over.is_some() || connection.sender.fin {
            return;
        }
        connection.sender.fin = true;
        connection.step(Step::Shutdown);
        self.settle(index, now);
    }

    /// Sends RST and forgets the connection at once. No event follows.
    pub fn abort(&mut self, id: ConnectionId, now: Instant) {
        let Some(index) = self.connections.find(id) else { return };
        let env = self.env(now);
        let Some(connection) = self.connections.at(index) else { return };
        // RFC 9293 3.10.5: in SYN-SENT there is nobody to tell.
        if connection.over.is_none() && connection.state != State::SynSent {
            let (seq, ack) = connection.last_numbers();
            let options = SegmentOptions { timestamp: connection.timestamp(env), ..SegmentOptions::default() };
            let flags = Flags { rst: true, ..Flags::default() };
            let flow = connection.flow;
            self.tracer.aborted(connection, now);
            self.counters.resets_sent.increment();
            self.reply(Reply { flow, seq, ack: Some(ack), flags, window: 0, options });
        }
        let source = self.connections.at_mut(index).and_then(|connection| connection.source.take());
        self.leave_source(source, now);
        self.release(index);
    }
}
