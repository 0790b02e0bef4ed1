//! The receiving half of a connection: reassembly, the advertised window (RFC 9293 3.8.6), delayed acknowledgements (RFC 5681 4.2).

use crate::base::{Duration, Instant, Piece};
use crate::tcp::Readable;
use crate::tcp::buffer::Buffer;
use crate::tcp::memory::Memory;
use crate::tcp::reassembly::{Kept, Pieces};
use crate::wire::Seq;

/// RFC 5681 4.2 allows 500 ms. 40 ms is Linux's lower bound.
const ACK_DELAY: Duration = Duration::from_millis(40);

/// Segments that are acknowledged one by one after a gap: a sender whose window has just shrunk to one segment must not wait for [`ACK_DELAY`] (RFC 5681 4.2
/// lets us acknowledge more often). As many as Linux.
const QUICK: u8 = 16;

/// What became of a segment's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing was new.
    Nothing,
    /// There is more to read.
    InOrder,
    /// Kept for later.
    OutOfOrder,
    /// Too many gaps.
    Refused,
    /// There is no memory for it.
    Starved,
}

/// What only a connection with losses needs.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// What lies behind a gap.
    pub(super) pieces: Pieces,
    /// What came twice and has not been told (RFC 2883).
    duplicate: Option<(Seq, Seq)>,
    /// Where the peer's FIN is, if it came before its turn.
    fin: Option<Seq>,
}

impl Gaps {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.duplicate.is_none() && self.fin.is_none()
    }
}

#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) rcv_nxt: Seq,
    /// The right edge of the window that the peer has been told.
    pub(super) rcv_adv: Seq,
    /// Last.ACK.sent (RFC 7323 4.3).
    pub(super) last_ack_sent: Seq,
    pub(super) capacity: u32,
    /// What can be read.
    buffer: Buffer,
    pub(super) gaps: Option<Box<Gaps>>,
    pub(super) ack_at: Option<Instant>,
    mss: u16,
    pub(super) shift: u8,
    /// The FIN has been taken in order.
    pub(super) finished: bool,
    ack_now: bool,
    /// What is left of [`QUICK`].
    quick: u8,
}

impl Receiver {
    /// Nothing is known of the peer yet.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            rcv_nxt: Seq(0),
            rcv_adv: Seq(0),
            last_ack_sent: Seq(0),
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX).min(1 << 30),
            buffer: Buffer::default(),
            gaps: None,
            ack_at: None,
            mss: 536,
            shift: 0,
            finished: false,
            ack_now: false,
            quick: 0,
        }
    }

    /// The peer's SYN with sequence number `irs` has come. `window` bytes have been offered to it already.
    pub(super) fn open(&mut self, irs: Seq, window: u32, mss: u32) {
        self.rcv_nxt = irs + 1;
        self.rcv_adv = self.rcv_nxt + window;
        self.last_ack_sent = irs;
        self.mss = u16::try_from(mss).unwrap_or(u16::MAX);
        // More than the field can say is never offered, and must not look as if it could be.
        self.capacity = self.capacity.min(u32::from(u16::MAX) << self.shift);
    }

    /// RCV.WND as the peer knows it.
    pub(super) fn window(&self) -> u32 {
        self.rcv_adv.since(self.rcv_nxt)
    }

    fn mss(&self) -> u32 {
        self.mss.into()
    }

    /// Bytes that may wait for the reader now.
    fn limit(&self, memory: Memory) -> u32 {
        memory.limit(self.capacity, self.mss())
    }

    /// Bytes received since we last acknowledged.
    pub(super) fn unacknowledged(&self) -> u32 {
        self.rcv_nxt.since(self.last_ack_sent)
    }

    /// The window field of a segment that leaves now; remembers what it promises.
    pub(super) fn advertise(&mut self, scaled: bool, memory: Memory) -> u16 {
        let shift = if scaled { self.shift } else { 0 };
        let limit = self.limit(memory);
        let edge = self.edge(limit);
        // RFC 9293 3.8.6.2.2: the right edge moves by a segment or half the buffer, or not at all.
        let target = if edge.since(self.rcv_adv) >= self.mss().min(limit / 2) { edge } else { self.rcv_adv };
        let field = u16::try_from(target.since(self.rcv_nxt) >> shift).unwrap_or(u16::MAX);
        self.rcv_adv = self.rcv_adv.max(self.rcv_nxt + (u32::from(field) << shift));
        field
    }

    /// The right edge of what there is room for; never left of what was promised.
    fn edge(&self, limit: u32) -> Seq {
        (self.rcv_nxt + limit.saturating_sub(self.length())).max(self.rcv_adv)
    }

    fn length(&self) -> u32 {
        u32::try_from(self.buffer.len()).unwrap_or(u32::MAX)
    }

    /// Takes data at `seq`, whatever part of it lies in the window, and the FIN behind it.
    pub(super) fn on_data(&mut self, seq: Seq, payload: &[u8], fin: bool, now: Instant, memory: Memory) -> Taken {
        // Cut off what has been received already, and what is beyond the window.
        let old = if seq.before(self.rcv_nxt) { self.rcv_nxt.since(seq) } else { 0 };
        self.note_duplicate(seq, length(payload));
        let payload = payload.get(old as usize..).unwrap_or_default();
        let start = seq + old;
        let room = if start.at_or_before(self.rcv_adv) { self.rcv_adv.since(start) } else { 0 };
        let kept = payload.get(..payload.len().min(room as usize)).unwrap_or_default();
        let whole = kept.len() == payload.len();
        let end = start + length(kept);
        let ahead = self.gaps.as_ref().and_then(|gaps| gaps.fin);
        let here = fin && whole && end.at_or_after(self.rcv_nxt);
        let last = ahead.or(here.then_some(end));
        // Nothing can lie behind a FIN.
        if self.finished || last.is_some_and(|last| end.after(last)) {
            self.ack_now = true;
            return Taken::Nothing;
        }
        if kept.is_empty() && !fin {
            self.ack_now |= !payload.is_empty();
            return Taken::Nothing;
        }
        if memory == Memory::Exhausted && !self.is_needed(start, length(kept), memory) {
            return Taken::Starved;
        }
        if start != self.rcv_nxt {
            // RFC 5681 4.2: at once, so that the sender learns of the gap.
            self.ack_now = true;
            self.quick = QUICK;
            if last.is_some() {
                self.gaps.get_or_insert_default().fin = last;
            }
            return self.keep(start, kept);
        }
        self.buffer.push(kept, memory);
        let filled = self.gaps.as_ref().is_some_and(|gaps| !gaps.pieces.is_empty());
        self.proceed(end, memory);
        self.schedule_ack(filled, now);
        if last == Some(self.rcv_nxt) {
            self.finished = true;
            self.rcv_nxt = self.rcv_nxt + 1;
            self.rcv_adv = self.rcv_adv.max(self.rcv_nxt);
            self.ack_now = true;
            if let Some(gaps) = &mut self.gaps {
                gaps.fin = None;
            }
        }
        Taken::InOrder
    }

    /// Without this data the connection could not go on: it is next in order, and the reader waits for it.
    fn is_needed(&self, start: Seq, len: u32, memory: Memory) -> bool {
        len == 0 || (start == self.rcv_nxt && (self.buffer.is_empty() || self.length() + len <= self.limit(memory)))
    }

    fn keep(&mut self, start: Seq, bytes: &[u8]) -> Taken {
        if bytes.is_empty() {
            return Taken::Nothing;
        }
        let gaps = self.gaps.get_or_insert_default();
        match gaps.pieces.insert(start, bytes) {
            Kept::New => Taken::OutOfOrder,
            Kept::Old => {
                gaps.duplicate = Some((start, start + length(bytes)));
                Taken::Nothing
            }
            Kept::Refused => Taken::Refused,
        }
    }

    /// In-order data reaches up to `end` now: joins what was waiting behind it.
    fn proceed(&mut self, mut end: Seq, memory: Memory) {
        while let Some((bytes, stop)) = self.gaps.as_mut().and_then(|gaps| gaps.pieces.take(end)) {
            let (first, second) = bytes.as_slices();
            self.buffer.push(first, memory);
            self.buffer.push(second, memory);
            end = stop;
        }
        self.rcv_nxt = end;
        self.rcv_adv = self.rcv_adv.max(end);
        self.gaps.take_if(|gaps| gaps.is_empty());
    }

    fn schedule_ack(&mut self, filled_gap: bool, now: Instant) {
        // RFC 9293 3.8.6.3: at least every second full-sized segment, and at once while a gap is being filled.
        let quick = self.quick > 0;
        self.quick = self.quick.saturating_sub(1);
        if filled_gap || quick || self.unacknowledged() >= 2 * self.mss() || self.window() < self.mss() {
            self.ack_now = true;
        } else if self.ack_at.is_none() {
            self.ack_at = Some(now + ACK_DELAY);
        }
    }

    pub(super) fn readable(&self) -> Readable<'_> {
        let first = self.buffer.first();
        if !first.is_empty() {
            Readable::Data(first)
        } else if self.finished {
            Readable::Finished
        } else {
            Readable::Empty
        }
    }

    /// Takes bytes out of the buffer, at most so many and where they lie together; [`consume`](Self::consume) none after it.
    pub(super) fn take(&mut self, most: usize) -> Option<Piece> {
        self.buffer.take(most)
    }

    /// Bytes that wait for the reader.
    pub(super) fn ready(&self) -> usize {
        self.buffer.len()
    }

    /// The reader has taken bytes. `open` when the peer may still send.
    pub(super) fn consume(&mut self, len: usize, open: bool, memory: Memory) {
        self.buffer.advance(len);
        let limit = self.limit(memory);
        let grown = self.edge(limit).since(self.rcv_adv);
        // A window update is worth a packet when it lets the peer send two segments more (RFC 9293 3.8.6.2.2), and when the peer may be waiting for it:
        // while half the buffer is still on offer, the acknowledgement of what comes next says it as well.
        if open && !self.finished && grown >= (limit / 2).min(2 * self.mss()) && self.window() < limit / 2 {
            self.ack_now = true;
        }
    }

    /// RFC 2883 4.1: data below RCV.NXT came again.
    pub(super) fn note_duplicate(&mut self, seq: Seq, len: u32) {
        let end = (seq + len).min(self.rcv_nxt);
        if seq.before(end) {
            self.gaps.get_or_insert_default().duplicate = Some((seq, end));
            // Not whatever somebody makes up.
            if self.rcv_nxt.since(seq) <= self.capacity {
                self.quick = QUICK;
            }
        }
    }

    /// What a SACK option should say now, `room` blocks at most: first what came twice, then what waits behind gaps (RFC 2018 4, RFC 2883 4).
    pub(super) fn sack_blocks(&self, room: usize) -> [Option<(Seq, Seq)>; 4] {
        let mut blocks = [None; 4];
        if let Some(gaps) = &self.gaps {
            let ranges = gaps.duplicate.into_iter().chain(gaps.pieces.newest());
            for (block, range) in blocks.iter_mut().take(room).zip(ranges) {
                *block = Some(range);
            }
        }
        blocks
    }

    /// There is something that only a SACK option can say.
    pub(super) fn has_sack(&self) -> bool {
        self.gaps.as_ref().is_some_and(|gaps| gaps.duplicate.is_some() || !gaps.pieces.is_empty())
    }

    /// Acknowledge with the next packet, and do not wait for one.
    pub(super) fn request_ack(&mut self) {
        self.ack_now = true;
    }

    pub(super) fn ack_wanted(&self) -> bool {
        self.ack_now
    }

    /// The delayed acknowledgement's time has come.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        if self.ack_at.is_some_and(|at| at <= now) {
            self.ack_at = None;
            self.ack_now = true;
        }
    }

    /// A segment has left, and with it an acknowledgement.
    pub(super) fn on_acknowledged(&mut self) {
        self.last_ack_sent = self.rcv_nxt;
        self.ack_now = false;
        self.ack_at = None;
        if let Some(gaps) = &mut self.gaps {
            gaps.duplicate = None;
        }
        self.gaps.take_if(|gaps| gaps.is_empty());
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.buffer.memory() + self.gaps.as_ref().map_or(0, |gaps| gaps.pieces.memory())
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.buffer = Buffer::default();
        self.gaps = None;
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tcp::reassembly::PIECES_MAX;

    const START: Seq = Seq(u32::MAX - 500);

    fn receiver(capacity: usize) -> Receiver {
        let mut receiver = Receiver::new(capacity);
        receiver.open(START - 1, u32::try_from(capacity).unwrap(), 100);
        receiver
    }

    fn read_all(receiver: &mut Receiver) -> Vec<u8> {
        let mut all = Vec::new();
        while let Readable::Data(data) = receiver.readable() {
            all.extend(data);
            let len = data.len();
            receiver.consume(len, true, Memory::PLENTY);
        }
        all
    }

    proptest! {
        #[test]
        fn any_order_of_pieces_gives_the_stream(
            pieces in prop::collection::vec((0usize..1000, 0usize..200), 0..60), shift in 0usize..300,
        ) {
            let stream: Vec<u8> = (0..1000u32).map(|at| u8::try_from(((at * 31) >> 3) & 0xff).unwrap()).collect();
            let mut receiver = receiver(1000);
            let mut seen = Vec::new();
            // Some of it has been read already, so that the ring's seam is anywhere.
            receiver.on_data(START, &stream[..shift], false, Instant::START, Memory::PLENTY);
            seen.extend(read_all(&mut receiver));
            let mut have = [false; 1001];
            have[..shift].fill(true);
            for (at, len) in pieces {
                let end = (at + len).min(1000);
                let taken = receiver.on_data(START + u32::try_from(at).unwrap(), &stream[at..end], end == 1000, Instant::START, Memory::PLENTY);
                prop_assert_ne!(taken, Taken::Refused);
                have[at..end].fill(true);
                let expected = have.iter().position(|have| !have).unwrap();
                prop_assert!(receiver.rcv_nxt.since(START) as usize >= expected);
                prop_assert!(receiver.gaps.as_ref().is_none_or(|gaps| gaps.pieces.len() <= PIECES_MAX));
            }
            receiver.on_data(START, &stream, true, Instant::START, Memory::PLENTY);
            seen.extend(read_all(&mut receiver));
            prop_assert_eq!(&seen, &stream);
            prop_assert!(receiver.finished);
            prop_assert_eq!(receiver.readable(), Readable::Finished);
            prop_assert_eq!(receiver.memory(), 0);
            receiver.on_acknowledged();
            prop_assert!(receiver.gaps.is_none());
        }

        #[test]
        fn the_window_stays_inside_the_buffer(
            steps in prop::collection::vec((0u32..1500, 0usize..300, 0usize..400, any::<bool>()), 1..80), shift in 0u8..5,
        ) {
            let mut receiver = receiver(1000);
            receiver.shift = shift;
            let mut edge = receiver.rcv_nxt + 1000;
            for (at, len, read, send) in steps {
                receiver.on_data(receiver.rcv_nxt + at - 200, &vec![7; len], false, Instant::START, Memory::PLENTY);
                receiver.consume(read, true, Memory::PLENTY);
                if send {
                    let told = receiver.rcv_nxt + (u32::from(receiver.advertise(true, Memory::PLENTY)) << shift);
                    prop_assert!((told + (1 << shift)).after(edge), "the window shrinks");
                    edge = edge.max(told);
                    receiver.on_acknowledged();
                }
                prop_assert!(receiver.rcv_nxt.at_or_before(edge), "what was not offered is not taken");
                prop_assert!(edge.since(receiver.rcv_nxt) as usize + receiver.ready() <= 1000, "no room for what was offered");
                prop_assert!(receiver.buffer.len() <= 1000);
            }
        }
    }
}
