//! The receiving half of a connection: reassembly, the advertised window (RFC 9293 3.8.6), delayed acknowledgements (RFC 5681 4.2).

use smallvec::SmallVec;

use crate::base::{Duration, Instant};
use crate::tcp::Readable;
use crate::tcp::buffer::Buffer;
use crate::wire::Seq;

/// RFC 5681 4.2 allows 500 ms. 40 ms is Linux's lower bound.
const ACK_DELAY: Duration = Duration::from_millis(40);
/// Most gaps a connection keeps track of. A segment that would make one more is dropped and counted.
pub(super) const GAPS_MAX: usize = 32;

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
}

#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) rcv_nxt: Seq,
    /// The right edge of the window that the peer has been told.
    rcv_adv: Seq,
    pub(super) shift: u8,
    capacity: u32,
    mss: u32,
    buffer: Buffer,
    /// How much of the buffer can be read; out-of-order data lies behind.
    ready: u32,
    /// Out-of-order data: start and end, ascending, disjoint, not adjacent.
    ranges: SmallVec<[(Seq, Seq); 2]>,
    /// Where the peer's FIN is, once seen.
    fin: Option<Seq>,
    /// The FIN has been taken in order.
    pub(super) finished: bool,
    ack_now: bool,
    pub(super) ack_at: Option<Instant>,
    /// Bytes received since we last acknowledged.
    unacknowledged: u32,
}

impl Receiver {
    /// Nothing is known of the peer yet.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            rcv_nxt: Seq(0),
            rcv_adv: Seq(0),
            shift: 0,
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX).min(1 << 30),
            mss: 536,
            buffer: Buffer::default(),
            ready: 0,
            ranges: SmallVec::new(),
            fin: None,
            finished: false,
            ack_now: false,
            ack_at: None,
            unacknowledged: 0,
        }
    }

    /// The peer's SYN with sequence number `irs` has come. `window` bytes have been offered to it already.
    pub(super) fn open(&mut self, irs: Seq, window: u32, mss: u32) {
        self.rcv_nxt = irs + 1;
        self.rcv_adv = self.rcv_nxt + window;
        self.mss = mss;
    }

    /// RCV.WND as the peer knows it.
    pub(super) fn window(&self) -> u32 {
        self.rcv_adv.since(self.rcv_nxt)
    }

    /// The window field of a segment that leaves now; remembers what it promises.
    pub(super) fn advertise(&mut self, scaled: bool) -> u16 {
        let shift = if scaled { self.shift } else { 0 };
        let edge = self.edge();
        // RFC 9293 3.8.6.2.2: the right edge moves by a segment or half the buffer, or not at all.
        let target = if edge.since(self.rcv_adv) >= self.mss.min(self.capacity / 2) { edge } else { self.rcv_adv };
        let field = u16::try_from(target.since(self.rcv_nxt) >> shift).unwrap_or(u16::MAX);
        self.rcv_adv = self.rcv_adv.max(self.rcv_nxt + (u32::from(field) << shift));
        field
    }

    /// The right edge of what there is room for; never left of what was promised.
    fn edge(&self) -> Seq {
        (self.rcv_nxt + self.capacity.saturating_sub(self.ready)).max(self.rcv_adv)
    }

    /// Takes data at `seq`, whatever part of it lies in the window, and the FIN behind it.
    pub(super) fn on_data(&mut self, seq: Seq, payload: &[u8], fin: bool, now: Instant) -> Taken {
        // Cut off what has been received already, and what is beyond the window.
        let old = if seq.before(self.rcv_nxt) { self.rcv_nxt.since(seq) } else { 0 };
        let payload = payload.get(old as usize..).unwrap_or_default();
        let start = seq + old;
        let room = if start.at_or_before(self.rcv_adv) { self.rcv_adv.since(start) } else { 0 };
        let kept = payload.get(..payload.len().min(room as usize)).unwrap_or_default();
        let whole = kept.len() == payload.len();
        let end = start + length(kept);
        if fin && whole && (self.fin.is_none() || self.fin == Some(end)) && end.at_or_after(self.rcv_nxt) {
            self.fin = Some(end);
        }
        // Nothing can lie behind a FIN.
        if self.finished || self.fin.is_some_and(|fin| end.after(fin)) {
            self.ack_now = true;
            return Taken::Nothing;
        }
        if kept.is_empty() && !fin {
            self.ack_now |= !payload.is_empty();
            return Taken::Nothing;
        }
        if start != self.rcv_nxt {
            // RFC 5681 4.2: at once, so that the sender learns of the gap.
            self.ack_now = true;
            return self.keep(start, end, kept);
        }
        self.buffer.write_at(self.ready as usize, kept);
        let filled = !self.ranges.is_empty();
        self.proceed(end);
        self.schedule_ack(length(kept), filled, now);
        if self.fin == Some(self.rcv_nxt) {
            self.finished = true;
            self.rcv_nxt = self.rcv_nxt + 1;
            self.rcv_adv = self.rcv_adv.max(self.rcv_nxt);
            self.ack_now = true;
        }
        Taken::InOrder
    }

    fn keep(&mut self, start: Seq, end: Seq, bytes: &[u8]) -> Taken {
        if bytes.is_empty() {
            return Taken::Nothing;
        }
        let (mut left, mut right) = (start, end);
        let touching = |range: &(Seq, Seq)| range.0.at_or_before(end) && range.1.at_or_after(start);
        if self.ranges.len() >= GAPS_MAX && !self.ranges.iter().any(touching) {
            return Taken::Refused;
        }
        self.ranges.retain(|range| {
            let merge = touching(range);
            if merge {
                left = left.min(range.0);
                right = right.max(range.1);
            }
            !merge
        });
        let place = self.ranges.iter().position(|range| range.0.after(left)).unwrap_or(self.ranges.len());
        self.ranges.insert(place, (left, right));
        let offset = self.ready + start.since(self.rcv_nxt);
        self.buffer.write_at(offset as usize, bytes);
        Taken::OutOfOrder
    }

    /// In-order data reaches up to `end` now: joins what was waiting behind it.
    fn proceed(&mut self, mut end: Seq) {
        while let Some(&(left, right)) = self.ranges.first() {
            if left.after(end) {
                break;
            }
            end = end.max(right);
            self.ranges.remove(0);
        }
        self.ready += end.since(self.rcv_nxt);
        self.rcv_nxt = end;
        self.rcv_adv = self.rcv_adv.max(end);
    }

    fn schedule_ack(&mut self, received: u32, filled_gap: bool, now: Instant) {
        self.unacknowledged += received;
        // RFC 9293 3.8.6.3: at least every second full-sized segment, and at once while a gap is being filled.
        if filled_gap || self.unacknowledged >= 2 * self.mss || self.window() < self.mss {
            self.ack_now = true;
        } else if self.ack_at.is_none() {
            self.ack_at = Some(now + ACK_DELAY);
        }
    }

    pub(super) fn readable(&self) -> Readable<'_> {
        let (first, _) = self.buffer.slices(0, self.ready as usize);
        if !first.is_empty() {
            Readable::Data(first)
        } else if self.finished {
            Readable::Finished
        } else {
            Readable::Empty
        }
    }

    /// Bytes that wait for the reader.
    pub(super) fn ready(&self) -> usize {
        self.ready as usize
    }

    /// The reader has taken bytes. `open` when the peer may still send.
    pub(super) fn consume(&mut self, len: usize, open: bool) {
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(self.ready);
        self.ready -= len;
        self.buffer.advance(len as usize);
        let grown = self.edge().since(self.rcv_adv);
        // A window update is worth a packet when it lets the peer send two segments more (RFC 9293 3.8.6.2.2), and when the peer may be waiting for it:
        // while half the buffer is still on offer, the acknowledgement of what comes next says it as well.
        if open && !self.finished && grown >= (self.capacity / 2).min(2 * self.mss) && self.window() < self.capacity / 2
        {
            self.ack_now = true;
        }
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
        self.ack_now = false;
        self.ack_at = None;
        self.unacknowledged = 0;
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.buffer.memory()
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.buffer = Buffer::default();
        self.ranges = SmallVec::new();
        self.ready = 0;
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            receiver.consume(len, true);
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
            receiver.on_data(START, &stream[..shift], false, Instant::START);
            seen.extend(read_all(&mut receiver));
            let mut have = [false; 1001];
            have[..shift].fill(true);
            for (at, len) in pieces {
                let end = (at + len).min(1000);
                let taken = receiver.on_data(START + u32::try_from(at).unwrap(), &stream[at..end], end == 1000, Instant::START);
                prop_assert_ne!(taken, Taken::Refused);
                have[at..end].fill(true);
                let expected = have.iter().position(|have| !have).unwrap();
                prop_assert!(receiver.rcv_nxt.since(START) as usize >= expected);
                prop_assert!(receiver.ranges.len() <= GAPS_MAX);
            }
            receiver.on_data(START, &stream, true, Instant::START);
            seen.extend(read_all(&mut receiver));
            prop_assert_eq!(&seen, &stream);
            prop_assert!(receiver.finished);
            prop_assert_eq!(receiver.readable(), Readable::Finished);
            prop_assert_eq!(receiver.memory(), 0);
        }

        #[test]
        fn the_window_stays_inside_the_buffer(
            steps in prop::collection::vec((0u32..1500, 0usize..300, 0usize..400, any::<bool>()), 1..80), shift in 0u8..5,
        ) {
            let mut receiver = receiver(1000);
            receiver.shift = shift;
            let mut edge = receiver.rcv_nxt + 1000;
            for (at, len, read, send) in steps {
                receiver.on_data(receiver.rcv_nxt + at - 200, &vec![7; len], false, Instant::START);
                receiver.consume(read, true);
                if send {
                    let told = receiver.rcv_nxt + (u32::from(receiver.advertise(true)) << shift);
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
