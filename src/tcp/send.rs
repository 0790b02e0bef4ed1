//! The sending half of a connection: what is queued, what is in flight, and what the peer's window allows (RFC 9293 3.8.6).
//!
//! Nagle's algorithm is off: what passes here are whole TLS records and relayed bytes, and whoever writes has already gathered them.

use crate::base::Piece;
use crate::tcp::buffer::{Buffer, Payload};
use crate::tcp::memory::Memory;
use crate::wire::Seq;

/// A segment that could leave now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) seq: Seq,
    pub(super) len: u32,
    pub(super) fin: bool,
}

#[derive(Debug)]
pub(super) struct Sender {
    pub(super) iss: Seq,
    pub(super) snd_una: Seq,
    /// Next to send. A timeout takes it back to SND.UNA.
    pub(super) snd_nxt: Seq,
    /// One past the highest ever sent.
    pub(super) snd_max: Seq,
    /// SND.WND, scaled.
    pub(super) snd_wnd: u32,
    /// MAX.SND.WND (RFC 5961 5).
    pub(super) max_window: u32,
    /// SND.WL1.
    wl1: Seq,
    /// Most payload bytes a segment.
    pub(super) mss: u32,
    buffer: Buffer,
    pub(super) capacity: u32,
    /// The sequence number of the buffer's first byte.
    pub(super) first: Seq,
    pub(super) shift: u8,
    /// FIN follows the buffer's last byte.
    pub(super) fin: bool,
    /// The writer has been turned away.
    pub(super) blocked: bool,
}

impl Sender {
    pub(super) fn new(iss: Seq, capacity: usize, mss: u32) -> Self {
        Self {
            iss,
            snd_una: iss,
            snd_nxt: iss,
            snd_max: iss,
            snd_wnd: 0,
            max_window: 0,
            wl1: Seq(0),
            mss,
            buffer: Buffer::default(),
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX).min(1 << 30),
            first: iss + 1,
            shift: 0,
            fin: false,
            blocked: false,
        }
    }

    pub(super) fn room(&self, memory: Memory) -> usize {
        let limit = memory.limit(self.capacity, self.mss) as usize;
        if self.fin { 0 } else { limit.saturating_sub(self.buffer.len()) }
    }

    pub(super) fn write(&mut self, bytes: &[u8], memory: Memory) -> usize {
        let taken = bytes.get(..self.room(memory).min(bytes.len())).unwrap_or_default();
        self.buffer.push(taken, memory);
        self.blocked |= taken.len() < bytes.len();
        taken.len()
    }

    /// Room for a piece of up to `wanted` bytes that is to be taken whole: all of them, or a quarter of what the writer may use at least. If there is neither, the
    /// writer is turned away.
    pub(super) fn room_for(&mut self, wanted: usize, memory: Memory) -> usize {
        let room = self.room(memory);
        let is_enough = room >= wanted || room >= memory.limit(self.capacity, self.mss) as usize / 4;
        self.blocked |= !is_enough;
        if is_enough { room.min(wanted) } else { 0 }
    }

    /// Takes a piece for which there is room.
    pub(super) fn append(&mut self, piece: Piece, memory: Memory) -> Result<(), Piece> {
        if piece.len() > self.room(memory) {
            return Err(piece);
        }
        self.buffer.append(piece);
        Ok(())
    }

    /// Room has come back to a writer that was turned away, a quarter of what it may use at least.
    pub(super) fn unblock(&mut self, memory: Memory) -> bool {
        let enough = memory.limit(self.capacity, self.mss) as usize / 4;
        let unblocked = self.blocked && self.room(memory) >= enough;
        self.blocked &= !unblocked;
        unblocked
    }

    /// One past the last byte queued.
    fn end(&self) -> Seq {
        self.first + u32::try_from(self.buffer.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn queued(&self) -> usize {
        self.buffer.len()
    }

    /// Sequence space sent and not acknowledged, as far as it counts against the congestion window.
    pub(super) fn flight(&self) -> u32 {
        self.snd_nxt.since(self.snd_una)
    }

    /// Whether something sent has not been acknowledged.
    pub(super) fn outstanding(&self) -> bool {
        self.snd_max != self.snd_una
    }

    /// Where a segment without data begins: behind everything sent, but not beyond the peer's window, where it would not be heard (RFC 9293 3.10.7.4). A
    /// window probe may have gone there.
    pub(super) fn seq_without_data(&self) -> Seq {
        self.snd_max.min(self.snd_una + self.snd_wnd).max(self.iss + 1)
    }

    /// Whether a segment that begins here has been sent and not acknowledged.
    pub(super) fn is_under_way(&self, seq: Seq) -> bool {
        seq.at_or_after(self.snd_una) && seq.before(self.snd_max)
    }

    /// Whether something has not been sent.
    pub(super) fn unsent(&self) -> bool {
        self.snd_nxt.before(self.end()) || (self.fin && self.snd_nxt == self.end())
    }

    pub(super) fn fin_acknowledged(&self) -> bool {
        self.fin && self.snd_una.after(self.end())
    }

    fn chunk(&self, seq: Seq, len: u32) -> Chunk {
        let left = if seq.before(self.end()) { self.end().since(seq) } else { 0 };
        let len = len.min(left).min(self.mss);
        Chunk { seq, len, fin: self.fin && seq + len == self.end() }
    }

    /// The oldest segment in flight, once more.
    pub(super) fn lost(&self) -> Option<Chunk> {
        let out = self.snd_max.since(self.snd_una);
        let mut chunk = self.chunk(self.snd_una, out);
        chunk.fin &= chunk.len < out;
        (chunk.len > 0 || chunk.fin).then_some(chunk)
    }

    /// What was sent from `start` to `end`, once more.
    pub(super) fn again(&self, (start, end): (Seq, Seq)) -> Chunk {
        let mut chunk = self.chunk(start, end.since(start));
        chunk.fin &= chunk.len < end.since(start);
        chunk
    }

    /// The next segment, if the peer's window lets it go and congestion control allows `budget` bytes.
    pub(super) fn next(&self, budget: u32) -> Option<Chunk> {
        if !self.unsent() {
            return None;
        }
        let flight = self.flight();
        let by_peer = self.snd_wnd.saturating_sub(flight);
        let usable = by_peer.min(budget);
        let left = self.end().since(self.snd_nxt);
        let mut chunk = self.chunk(self.snd_nxt, usable);
        // FIN takes a place in the window too.
        chunk.fin &= chunk.len < usable;
        // RFC 9293 3.8.6.2.1: a full segment, all there is, or half of the largest window.
        let worthwhile =
            chunk.len == self.mss || chunk.len == left || (chunk.len > 0 && chunk.len >= self.max_window / 2);
        ((chunk.len > 0 && worthwhile) || chunk.fin).then_some(chunk)
    }

    /// The next segment and those that may leave right behind it, up to `room` bytes: full ones, and a last one that is all there is.
    pub(super) fn train(&self, first: Chunk, budget: u32, room: u32) -> Chunk {
        let usable = self.snd_wnd.saturating_sub(self.flight()).min(budget);
        let left = self.end().since(first.seq);
        let most = usable.min(room).min(left);
        let len = if most == left { most } else { most - most % self.mss };
        let fin = self.fin && len == left && len < usable;
        if len > first.len { Chunk { len, fin, ..first } } else { first }
    }

    /// A segment of `len` new bytes, whatever the others may have, if as many as `more` may follow it.
    pub(super) fn larger(&self, len: u32, more: u32, budget: u32) -> Option<Chunk> {
        let left = if self.snd_nxt.before(self.end()) { self.end().since(self.snd_nxt) } else { 0 };
        let room = self.snd_wnd.saturating_sub(self.flight()).min(budget).min(left);
        (room >= len.saturating_add(more)).then_some(Chunk { seq: self.snd_nxt, len, fin: false })
    }

    /// What probes a window that lets nothing go (RFC 9293 3.8.6.1): one byte at least, or what the window allows; no more than `most`.
    pub(super) fn probe(&self, most: u32) -> Option<Chunk> {
        self.unsent().then(|| self.chunk(self.snd_nxt, self.snd_wnd.saturating_sub(self.flight()).min(most).max(1)))
    }

    pub(super) fn payload(&self, chunk: Chunk) -> Payload<'_> {
        self.buffer.payload(chunk.seq.since(self.first) as usize, chunk.len as usize)
    }

    /// Whether nothing lies behind this chunk.
    pub(super) fn is_last(&self, chunk: Chunk) -> bool {
        chunk.len > 0 && chunk.seq + chunk.len == self.end()
    }

    /// An acceptable acknowledgement that moves SND.UNA.
    pub(super) fn on_ack(&mut self, ack: Seq) {
        let bytes = if ack.after(self.first) { (ack.since(self.first) as usize).min(self.buffer.len()) } else { 0 };
        self.buffer.advance(bytes);
        self.first = self.first + u32::try_from(bytes).unwrap_or(u32::MAX);
        self.snd_una = ack;
        self.snd_nxt = self.snd_nxt.max(ack);
    }

    /// RFC 9293 3.10.7.4: old segments must not change the window. `ack` is SND.UNA or beyond, and SND.WL2 was never beyond it, so SND.WL1 tells. Gives whether
    /// the window changed.
    ///
    /// By the RFC's rule a retransmission, whose number is old, could not say how much smaller the window is behind what it is the first to acknowledge, and we
    /// would send beyond it. Acknowledgements only grow, so whatever acknowledges more is newer, whatever its number.
    pub(super) fn on_window(&mut self, seq: Seq, ack: Seq, window: u16) -> bool {
        if !ack.after(self.snd_una) && seq.before(self.wl1) {
            return false;
        }
        // What was sent before and comes late must not look newer than it is.
        self.set_window(seq.max(self.wl1), u32::from(window) << self.shift)
    }

    /// The first window.
    pub(super) fn set_window(&mut self, seq: Seq, window: u32) -> bool {
        let changed = window != self.snd_wnd;
        self.snd_wnd = window;
        self.max_window = self.max_window.max(window);
        self.wl1 = seq;
        changed
    }

    /// Reads where the bytes are that are to be sent.
    pub(super) fn touch(&self) -> u64 {
        self.buffer.memory() as u64
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.buffer.memory()
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.first = self.end();
        self.buffer = Buffer::default();
    }
}
