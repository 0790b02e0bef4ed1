//! What is in flight, segment by segment, and what of it is lost: a SACK scoreboard (RFC 2018, RFC 2883) with RACK-TLP (RFC 8985).
//!
//! `recovery` answers a loss by how much may be sent. Connections without SACK have no scoreboard; there `recovery` counts duplicates.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use crate::base::{Duration, Instant};
use crate::wire::Seq;

/// RFC 8985 6.2: segments that were selectively acknowledged before order is trusted.
const DUPLICATES: u32 = 3;
/// RFC 8985 7.2: worst case of a delayed acknowledgement.
const ACK_DELAY_MAX: Duration = Duration::from_millis(200);
/// RFC 8985 7.2: the probe timeout before a round trip has been measured.
const PROBE_INITIAL: Duration = Duration::from_secs(1);
/// RFC 8985 6.2: recoveries for which a wider reordering window is kept.
const PERSIST: u8 = 16;
/// How often the reordering window is widened. It is never wider than a round trip.
const WIDENED_MAX: u8 = 63;

/// SACK blocks as an option holds them.
pub(super) type Blocks = [Option<(Seq, Seq)>; 4];

/// One segment in flight. It begins where the one before it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    sent_at: Instant,
    pub(super) end: Seq,
    pub(super) sacked: bool,
    pub(super) lost: bool,
    /// It has been sent more than once.
    pub(super) again: bool,
}

/// What an acknowledgement has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivered {
    /// Bytes of sequence space that are newly known to have arrived.
    pub(super) bytes: u32,
    /// The first block of the option reported what came twice (RFC 2883).
    pub(super) duplicate: Option<(Seq, Seq)>,
    /// The shortest round trip of what was sent once.
    pub(super) round_trip: Option<Duration>,
}

/// What has been learned about the path and outlives what was in flight, in 8 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Learned {
    /// The shortest round trip, in microseconds.
    min_rtt: Option<NonZeroU32>,
    /// RFC 8985 6.2: RACK.reordering_seen, what widens the reordering window, and for how many recoveries yet.
    reordering: bool,
    widened: u8,
    persist: u8,
}

impl Learned {
    fn min_rtt(self) -> Option<Duration> {
        self.min_rtt.map(|micros| Duration::from_micros(micros.get().into()))
    }

    fn on_round_trip(&mut self, rtt: Duration) {
        // Rounded up, so that what took as long does not look faster.
        let micros = u32::try_from(rtt.as_nanos().div_ceil(1000)).unwrap_or(u32::MAX);
        let micros = NonZeroU32::new(micros).unwrap_or(NonZeroU32::MIN);
        self.min_rtt = Some(self.min_rtt.map_or(micros, |min| min.min(micros)));
    }
}

/// The acknowledgement at hand.
#[derive(Clone, Copy, Debug)]
struct Heard {
    now: Instant,
    /// The age of the timestamp that it echoes.
    echo: Option<Duration>,
    /// The shortest round trip that it shows.
    sample: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Scoreboard {
    pub(super) segments: VecDeque<Sent>,
    /// Where the first segment begins: SND.UNA.
    start: Seq,
    pub(super) sacked: u32,
    pub(super) sacked_count: u32,
    pub(super) lost: u32,
    /// Segments sent again and not acknowledged.
    pub(super) again: u32,

    /// RACK.xmit_ts, RACK.end_seq and RACK.rtt: the last sent of what has arrived.
    newest: Option<(Instant, Seq)>,
    round_trip: Duration,
    /// RACK.fack: the highest that has arrived.
    highest: Seq,
    pub(super) learned: Learned,
    duplicate_round: Option<Seq>,
    /// When segments that may only be late are taken for lost.
    pub(super) reorder_at: Option<Instant>,

    /// When the tail is probed.
    pub(super) probe_at: Option<Instant>,
    pub(super) probe_wanted: bool,
    /// TLP.end_seq, and whether the probe repeated what had been sent.
    probe: Option<(Seq, bool)>,
}

impl Scoreboard {
    pub(super) fn new(una: Seq, learned: Learned) -> Self {
        Self {
            segments: VecDeque::new(),
            start: una,
            sacked: 0,
            sacked_count: 0,
            lost: 0,
            again: 0,
            newest: None,
            round_trip: Duration::ZERO,
            highest: una,
            learned,
            duplicate_round: None,
            reorder_at: None,
            probe_at: None,
            probe_wanted: false,
            probe: None,
        }
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.segments.capacity() * size_of::<Sent>()
    }

    pub(super) fn start(&self) -> Seq {
        self.start
    }

    pub(super) fn end(&self) -> Seq {
        self.segments.back().map_or(self.start, |last| last.end)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Nothing is in flight, and nothing is to be heard of what was.
    pub(super) fn is_at_rest(&self) -> bool {
        self.segments.is_empty() && self.probe.is_none() && !self.probe_wanted && self.duplicate_round.is_none()
    }

    /// Reads something of each cache line, and the first segment.
    pub(super) fn touch(&self) -> u64 {
        let ends = u64::from(self.again) ^ u64::from(self.probe.is_some()) ^ u64::from(self.highest.0);
        self.segments.front().map_or(ends, |first| ends ^ u64::from(first.sacked))
    }

    /// RFC 6675 4: sequence space that is thought to be in the network.
    pub(super) fn pipe(&self) -> u32 {
        self.end().since(self.start) - self.sacked - self.lost
    }

    /// What has been selectively acknowledged or is lost.
    pub(super) fn has_holes(&self) -> bool {
        self.sacked > 0 || self.lost > 0
    }

    /// Sequence space that has left and of which nothing has been heard.
    pub(super) fn out(&self) -> u32 {
        self.end().since(self.start) - self.sacked
    }

    /// A segment up to `end` has left for the first time.
    pub(super) fn on_sent(&mut self, end: Seq, now: Instant) {
        if end.after(self.end()) {
            self.segments.push_back(Sent { sent_at: now, end, sacked: false, lost: false, again: false });
        }
    }

    /// The segment from `start` on has left again, up to `end`. Where segments have become smaller, the rest of it is one of its own from now on.
    pub(super) fn on_sent_again(&mut self, start: Seq, end: Seq, now: Instant) {
        let (place, left) = self.find(start);
        let Some(sent) = self.segments.get_mut(place) else { return };
        if end.after(left) && end.before(sent.end) {
            let rest = *sent;
            sent.end = end;
            self.again += u32::from(rest.again);
            self.sacked_count += u32::from(rest.sacked);
            self.segments.insert(place + 1, rest);
        }
        let Some(sent) = self.segments.get_mut(place) else { return };
        if std::mem::take(&mut sent.lost) {
            self.lost -= sent.end.since(left);
        }
        if !std::mem::replace(&mut sent.again, true) {
            self.again += 1;
        }
        sent.sent_at = now;
    }

    /// Which segment holds `seq`, and where it begins.
    fn find(&self, seq: Seq) -> (usize, Seq) {
        let place = self.segments.partition_point(|sent| sent.end.at_or_before(seq));
        let before = place.checked_sub(1).and_then(|before| self.segments.get(before));
        (place, before.map_or(self.start, |sent| sent.end))
    }

    /// Whether the segment that holds `seq` has been selectively acknowledged.
    pub(super) fn is_sacked(&self, seq: Seq) -> bool {
        self.segments.get(self.find(seq).0).is_some_and(|sent| sent.sacked)
    }

    /// Whether the segment that holds `seq` is lost.
    pub(super) fn is_lost(&self, seq: Seq) -> bool {
        self.segments.get(self.find(seq).0).is_some_and(|sent| sent.lost)
    }

    /// Whether this segment is lost and nothing else is.
    pub(super) fn is_lost_alone(&self, (start, end): (Seq, Seq)) -> bool {
        self.lost == end.since(start) && self.is_lost(start)
    }

    /// How long the first segment is.
    pub(super) fn first_len(&self) -> u32 {
        self.segments.front().map_or(0, |first| first.end.since(self.start))
    }

    /// No segment of more than `mss` bytes arrives: those that have not are lost, and no probe of the tail needs to find that out.
    pub(super) fn lose_larger(&mut self, mss: u32) {
        let mut left = self.start;
        for sent in &mut self.segments {
            let len = sent.end.since(std::mem::replace(&mut left, sent.end));
            if len > mss && !sent.sacked && !sent.lost {
                sent.lost = true;
                self.lost += len;
            }
        }
        (self.probe, self.probe_at, self.probe_wanted) = (None, None, false);
    }

    /// The first segment that is lost: start and end.
    pub(super) fn first_lost(&self) -> Option<(Seq, Seq)> {
        if self.lost == 0 {
            return None;
        }
        let mut left = self.start;
        for sent in &self.segments {
            if sent.lost {
                return Some((left, sent.end));
            }
            left = sent.end;
        }
        None
    }

    /// The last segment: start and end.
    pub(super) fn tail(&self) -> Option<(Seq, Seq)> {
        let mut backwards = self.segments.iter().rev();
        let last = backwards.next()?;
        Some((backwards.next().map_or(self.start, |before| before.end), last.end))
    }

    /// An acknowledgement that may move SND.UNA, its SACK blocks, and how long ago the timestamp that it echoes was sent.
    pub(super) fn on_ack(&mut self, ack: Seq, blocks: &Blocks, echo: Option<Duration>, now: Instant) -> Delivered {
        let mut heard = Heard { now, echo, sample: None };
        let mut delivered = Delivered::default();
        let mut given = blocks.iter().flatten().copied().peekable();
        if let Some(&(left, right)) = given.peek() {
            let second = blocks.get(1).copied().flatten();
            let inside = second.is_some_and(|(start, end)| left.at_or_after(start) && right.at_or_before(end));
            // RFC 2883 4.
            if right.at_or_before(ack.max(self.start)) || inside {
                delivered.duplicate = Some((left, right));
                given.next();
            }
        }
        delivered.bytes += self.on_cumulative(ack, &mut heard);
        for (left, right) in given {
            // Nobody can have received what was not sent, and nothing can be of use below SND.UNA.
            if left.before(right) && right.at_or_before(self.end()) && right.after(self.start) {
                delivered.bytes += self.on_block(left, right, &mut heard);
            }
        }
        delivered.round_trip = heard.sample;
        delivered
    }

    fn on_cumulative(&mut self, ack: Seq, heard: &mut Heard) -> u32 {
        let mut bytes = 0;
        while let Some(sent) = self.segments.front().copied() {
            if self.start.at_or_after(ack) {
                break;
            }
            let stop = sent.end.min(ack);
            let len = stop.since(self.start);
            self.start = stop;
            self.sacked -= if sent.sacked { len } else { 0 };
            self.lost -= if sent.lost { len } else { 0 };
            bytes += if sent.sacked { 0 } else { len };
            if stop == sent.end {
                self.segments.pop_front();
                self.again -= u32::from(sent.again);
                self.sacked_count -= u32::from(sent.sacked);
                if !sent.sacked {
                    self.on_arrived(sent, heard);
                }
            }
        }
        self.start = self.start.max(ack);
        self.highest = self.highest.max(self.start);
        if self.segments.is_empty() {
            // A connection at rest holds no list.
            self.segments = VecDeque::new();
        }
        bytes
    }

    fn on_block(&mut self, left: Seq, right: Seq, heard: &mut Heard) -> u32 {
        let (mut place, mut begin) = self.find(left);
        let mut bytes = 0;
        while let Some(sent) = self.segments.get_mut(place).filter(|sent| sent.end.at_or_before(right)) {
            // A segment of which only a part has arrived is not here yet.
            if !sent.sacked && begin.at_or_after(left) {
                let len = sent.end.since(begin);
                sent.sacked = true;
                self.lost -= if std::mem::take(&mut sent.lost) { len } else { 0 };
                self.sacked += len;
                self.sacked_count += 1;
                bytes += len;
                let sent = *sent;
                self.on_arrived(sent, heard);
            }
            place += 1;
            begin = self.segments.get(place - 1).map_or(right, |sent| sent.end);
        }
        bytes
    }

    /// RFC 8985 6.2 steps 1 to 3, for one segment.
    fn on_arrived(&mut self, sent: Sent, heard: &mut Heard) {
        let rtt = heard.now.since(sent.sent_at);
        if sent.again {
            // Faster than any, or with an echo from before: it answers the first transmission.
            let late = heard.echo.is_some_and(|age| age > rtt + Duration::from_millis(1));
            if late || self.learned.min_rtt().is_some_and(|min| rtt < min) {
                return;
            }
        } else {
            heard.sample = Some(heard.sample.map_or(rtt, |sample| sample.min(rtt)));
            self.learned.on_round_trip(rtt);
            if sent.end.before(self.highest) {
                self.learned.reordering = true;
            }
        }
        self.highest = self.highest.max(sent.end);
        if self.newest.is_none_or(|newest| is_after((sent.sent_at, sent.end), newest)) {
            self.newest = Some((sent.sent_at, sent.end));
            self.round_trip = rtt;
        }
    }

    /// RFC 8985 6.2 step 4: D-SACK widens the reordering window, and recoveries without it narrow it again.
    pub(super) fn on_duplicate(&mut self) {
        if self.duplicate_round.is_none() {
            self.duplicate_round = Some(self.end());
            self.learned.widened = (self.learned.widened + 1).min(WIDENED_MAX);
            self.learned.persist = PERSIST;
        }
    }

    /// A recovery has ended.
    pub(super) fn on_recovered(&mut self) {
        self.learned.persist = self.learned.persist.saturating_sub(1);
        if self.learned.persist == 0 {
            self.learned.widened = 0;
        }
    }

    fn reordering_window(&self, recovering: bool, srtt: Option<Duration>) -> Duration {
        if !self.learned.reordering && (recovering || self.sacked_count >= DUPLICATES) {
            return Duration::ZERO;
        }
        let (Some(min), Some(srtt)) = (self.learned.min_rtt(), srtt) else { return Duration::ZERO };
        (min / 4).saturating_mul(u32::from(self.learned.widened) + 1).min(srtt)
    }

    /// RFC 8985 6.2 step 5: marks what is lost, gives how many bytes that is, and sets [`reorder_at`](Self::reorder_at).
    pub(super) fn detect(&mut self, recovering: bool, srtt: Option<Duration>, now: Instant) -> u32 {
        if self.duplicate_round.is_some_and(|round| self.start.at_or_after(round)) {
            self.duplicate_round = None;
        }
        self.reorder_at = None;
        let Some(newest) = self.newest else { return 0 };
        let patience = self.round_trip + self.reordering_window(recovering, srtt);
        let mut newly = 0;
        let mut left = self.start;
        for sent in &mut self.segments {
            let begin = std::mem::replace(&mut left, sent.end);
            if !is_after(newest, (sent.sent_at, sent.end)) {
                // As long as nothing was sent twice, what follows was sent later still.
                if self.again == 0 {
                    break;
                }
                continue;
            }
            if sent.sacked || sent.lost {
                continue;
            }
            let due = sent.sent_at + patience;
            if due <= now {
                sent.lost = true;
                newly += sent.end.since(begin);
            } else {
                self.reorder_at = self.reorder_at.max(Some(due));
            }
        }
        self.lost += newly;
        newly
    }

    /// RFC 8985 6.3: the retransmission timer fired. The first segment is lost, and others that have been out too long.
    pub(super) fn on_timeout(&mut self, srtt: Option<Duration>, now: Instant) {
        self.probe = None;
        self.probe_at = None;
        self.probe_wanted = false;
        self.reorder_at = None;
        if self.segments.front().is_some_and(|first| first.sacked) {
            // RFC 2018 8: the receiver has thrown away what it had, or SND.UNA would have moved.
            for sent in &mut self.segments {
                sent.sacked = false;
            }
            (self.sacked, self.sacked_count) = (0, 0);
        }
        let patience = self.round_trip.max(srtt.unwrap_or_default()) + self.reordering_window(false, srtt);
        let mut left = self.start;
        for (place, sent) in self.segments.iter_mut().enumerate() {
            let begin = std::mem::replace(&mut left, sent.end);
            if !sent.sacked && !sent.lost && (place == 0 || sent.sent_at + patience <= now) {
                sent.lost = true;
                self.lost += sent.end.since(begin);
            }
        }
    }

    /// Nothing was lost after all.
    pub(super) fn forgive(&mut self) {
        for sent in &mut self.segments {
            sent.lost = false;
        }
        self.lost = 0;
    }

    /// RFC 8985 7.2: when the tail is to be probed, unless the retransmission timer comes first; then in its place.
    pub(super) fn schedule_probe(&mut self, recovering: bool, srtt: Option<Duration>, rto_at: Instant, now: Instant) {
        self.probe_at = None;
        if recovering || self.has_holes() || self.probe.is_some() || self.segments.is_empty() {
            return;
        }
        let alone = if self.segments.len() == 1 { ACK_DELAY_MAX } else { Duration::ZERO };
        let wait = srtt.map_or(PROBE_INITIAL, |srtt| srtt * 2 + alone);
        self.probe_at = Some(rto_at.min(now + wait));
    }

    /// The probe has left: up to `end`, and whether that had been sent before.
    pub(super) fn on_probed(&mut self, end: Seq, again: bool) {
        self.probe = Some((end, again));
        self.probe_wanted = false;
        self.probe_at = None;
    }

    /// RFC 8985 7.4: whether this acknowledgement proves that the probe has repaired a loss.
    pub(super) fn probe_repaired(&mut self, ack: Seq, duplicate: Option<(Seq, Seq)>, bare: bool) -> bool {
        let Some((end, again)) = self.probe.filter(|(end, _)| ack.at_or_after(*end)) else { return false };
        if !again || duplicate.is_some_and(|(_, right)| right == end) {
            self.probe = None;
            return false;
        }
        // Either acknowledges more than the probe, or repeats itself, which an answer to the first transmission does.
        if ack.after(end) || bare {
            self.probe = None;
        }
        ack.after(end)
    }
}

/// RFC 8985 6.2: sent later, or in the same moment and further on.
fn is_after(this: (Instant, Seq), other: (Instant, Seq)) -> bool {
    this.0 > other.0 || (this.0 == other.0 && this.1.after(other.1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tcp::audit::audit_scoreboard;

    const START: Seq = Seq(u32::MAX - 5000);

    proptest! {
        #[test]
        fn sums_are_those_of_the_segments(
            steps in prop::collection::vec((0u8..7, 0u32..30, 1u32..20, 0u64..30), 1..120),
        ) {
            let mut board = Scoreboard::new(START, Learned::default());
            let mut now = Instant::START;
            let srtt = Some(Duration::from_millis(10));
            for (what, from, len, wait) in steps {
                now = now + Duration::from_millis(wait);
                let (from, len) = (from * 500, len * 500);
                match what {
                    0 | 1 => board.on_sent(board.end() + len, now),
                    2 => if let Some((start, end)) = board.first_lost() {
                        board.on_sent_again(start, start + end.since(start).min(len), now);
                    },
                    6 => board.lose_larger(len),
                    3 => board.on_timeout(srtt, now),
                    _ => {
                        let ack = if what == 5 { (board.start() + from / 3).min(board.end()) } else { board.start() };
                        let left = board.start() + from;
                        let before = board.out();
                        let delivered = board.on_ack(ack, &[Some((left, left + len)), None, None, None], None, now);
                        prop_assert_eq!(delivered.bytes, before - board.out());
                        board.detect(wait % 2 == 0, srtt, now);
                    }
                }
                audit_scoreboard(&board).unwrap();
            }
            board.on_ack(board.end(), &[None; 4], None, now);
            audit_scoreboard(&board).unwrap();
            prop_assert_eq!((board.out(), board.pipe(), board.memory()), (0, 0, 0));
        }
    }

    #[test]
    fn a_segment_in_flight_takes_sixteen_bytes() {
        assert!(size_of::<Sent>() <= 16 && size_of::<Learned>() <= 8);
    }
}
