//! The records of one lane: a ring with one writer and any readers, without a lock.
//!
//! Each slot is a seqlock of its own (Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012). Its first word is odd
//! while the slot is being written and tells afterwards which record is in it, so that a reader takes a record whole or not at all. All words are
//! atomics: a torn read is possible and noticed, a data race is not.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::record::WORDS;
use super::{Record, Settings};

/// One record on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Slot([AtomicU64; WORDS]);

/// What connections of one lane have just done. The lane writes, and anybody may read at any time.
#[derive(Debug)]
pub struct Trace {
    slots: Box<[Slot]>,
    /// A connection is in the sample when its hash is below this: 0 for none, 2³² for all.
    below: AtomicU64,
    written: AtomicU64,
    /// Nanoseconds from 1970 to the start of the lane's clock.
    epoch: u64,
}

/// What a reader found in a ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// How many records the lane had written when the reading began.
    pub written: u64,
    /// The last of them, oldest first. Those that the lane wrote over while they were read are missing.
    pub records: Vec<Record>,
}

impl Trace {
    /// An empty ring. `epoch` says when, in nanoseconds since 1970, the clock that the lane stamps records with was at its start.
    pub fn new(settings: Settings, epoch: u64) -> Self {
        let empty = || Slot(std::array::from_fn(|_| AtomicU64::new(0)));
        let len = if settings.records == 0 { 0 } else { settings.records.next_power_of_two() };
        let slots = (0..len).map(|_| empty()).collect();
        let trace = Self { slots, below: AtomicU64::new(0), written: AtomicU64::new(0), epoch };
        trace.sample(settings.one_in);
        trace
    }

    /// A ring that keeps nothing.
    pub fn off() -> Self {
        Self { slots: Box::default(), below: AtomicU64::new(0), written: AtomicU64::new(0), epoch: 0 }
    }

    /// Traces one connection in `one_in` from now on, those that are open included; 1 for all, 0 for none.
    pub fn sample(&self, one_in: u32) {
        let below = if self.slots.is_empty() { 0 } else { (1_u64 << 32).checked_div(u64::from(one_in)).unwrap_or(0) };
        self.below.store(below, Ordering::Relaxed);
    }

    /// Whether anything is traced.
    pub(super) fn is_on(&self) -> bool {
        self.below.load(Ordering::Relaxed) != 0
    }

    /// Whether a connection of this hash is traced.
    pub(super) fn takes(&self, hash: u32) -> bool {
        u64::from(hash) < self.below.load(Ordering::Relaxed)
    }

    /// When the lane's clock started, in nanoseconds since 1970.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Writes the next record over the oldest. Only the owning lane may call this.
    pub(super) fn write(&self, words: &[u64; WORDS - 1]) {
        let number = self.written.load(Ordering::Relaxed);
        let Some(Slot([mark, slot @ ..])) = self.slot(number) else { return };
        mark.store(number << 1 | 1, Ordering::Relaxed);
        // No word below is seen before the mark is odd.
        fence(Ordering::Release);
        for (word, value) in slot.iter().zip(words) {
            word.store(*value, Ordering::Relaxed);
        }
        // Not even the last one is seen after the mark is even.
        mark.store((number + 1) << 1, Ordering::Release);
        self.written.store(number + 1, Ordering::Release);
    }

    /// The last records, `most` at most.
    pub fn read(&self, most: usize) -> Reading {
        let written = self.written.load(Ordering::Acquire);
        let kept = u64::try_from(most.min(self.slots.len())).unwrap_or(u64::MAX).min(written);
        let records = (written - kept..written).filter_map(|number| self.record(number)).collect();
        Reading { written, records }
    }

    /// The record of this number, while it is there.
    fn record(&self, number: u64) -> Option<Record> {
        let Slot([mark, slot @ ..]) = self.slot(number)?;
        let whole = (number + 1) << 1;
        if mark.load(Ordering::Acquire) != whole {
            return None;
        }
        let words = std::array::from_fn(|at| slot.get(at).map_or(0, |word| word.load(Ordering::Relaxed)));
        // A word that a later record has already changed is seen with that record's odd mark.
        fence(Ordering::Acquire);
        (mark.load(Ordering::Relaxed) == whole).then(|| Record::decode(number, &words))?
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        let last = u64::try_from(self.slots.len().checked_sub(1)?).ok()?;
        self.slots.get(usize::try_from(number & last).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::base::Duration;
    use crate::base::{Flow, Instant};
    use crate::tcp::trace::{Inside, Kind};
    use crate::tcp::{Close, State};
    use crate::wire::{Flags, SegmentOptions, Seq, Timestamp};

    /// A record every word of which follows from its number.
    fn whole(number: u64) -> Record {
        let low = u32::try_from(number & 0xff_ffff).unwrap() + 1;
        let octets = low.to_be_bytes();
        Record {
            number,
            at: Instant::from_nanos(number),
            flow: Flow::new((octets, 1).into(), (octets, 2).into()),
            kind: if low % 2 == 0 { Kind::Received } else { Kind::Ended(Close::Reset) },
            seq: Seq(low),
            ack: Some(Seq(low)),
            flags: Flags::default(),
            window: 3,
            len: low & 0xff_ffff,
            options: SegmentOptions {
                sack: [Some((Seq(low), Seq(low))); 3].into_iter().chain([None]).collect::<Vec<_>>().try_into().unwrap(),
                timestamp: Some(Timestamp { value: low, echo: low }),
                ..SegmentOptions::default()
            },
            ecn: crate::wire::Ecn::Ce,
            inside: Some(Inside {
                state: State::Established,
                cwnd: low,
                ssthresh: low,
                flight: low,
                snd_wnd: low,
                srtt: Some(Duration::from_micros(low.into())),
                rto: Duration::from_micros(low.into()),
            }),
        }
    }

    fn ring(records: usize) -> Trace {
        Trace::new(Settings { one_in: 1, records }, 0)
    }

    #[test]
    fn the_last_records_are_kept_in_their_order() {
        let trace = ring(4);
        assert_eq!(trace.read(10), Reading::default());
        for number in 0..3 {
            trace.write(&whole(number).encode());
        }
        assert_eq!(trace.read(10), Reading { written: 3, records: (0..3).map(whole).collect() });
        for number in 3..11 {
            trace.write(&whole(number).encode());
        }
        assert_eq!(trace.read(10), Reading { written: 11, records: (7..11).map(whole).collect() });
        assert_eq!(trace.read(2), Reading { written: 11, records: (9..11).map(whole).collect() });
    }

    #[test]
    fn a_record_that_is_being_written_is_left_out() {
        let trace = ring(2);
        trace.write(&whole(0).encode());
        trace.write(&whole(1).encode());
        // As a writer that has just begun record 2 leaves it.
        trace.slots[0].0[0].store(2 << 1 | 1, Ordering::Relaxed);
        assert_eq!(trace.read(2).records, [whole(1)]);
    }

    #[test]
    fn one_in_so_many_is_sampled() {
        let trace = ring(1);
        assert!(trace.takes(0) && trace.takes(u32::MAX));
        trace.sample(4);
        assert!(trace.takes(0) && trace.takes((1 << 30) - 1) && !trace.takes(1 << 30));
        trace.sample(0);
        assert!(!trace.takes(0) && !trace.is_on());
        let off = Trace::off();
        off.sample(1);
        off.write(&whole(0).encode());
        assert!(!off.takes(0) && off.read(1) == Reading::default());
        let none = ring(0);
        assert!(!none.takes(0) && !none.is_on() && none.read(1) == Reading::default());
    }

    #[test]
    fn a_reader_beside_the_writer_sees_whole_records_only() {
        // So small a ring is written over all the time; the reader must be refused often, and never deceived.
        let trace = ring(8);
        let done = AtomicBool::new(false);
        let written = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                // However little of a processor either thread gets, both cases are met.
                let (mut seen, mut missed) = (0_u64, 0_u64);
                while seen < 200_000 || missed < 1000 {
                    let Reading { written, records } = trace.read(8);
                    missed += written.min(8) - records.len() as u64;
                    seen += records.len() as u64;
                    for record in records {
                        assert_eq!(record, whole(record.number));
                    }
                }
                done.store(true, Ordering::Relaxed);
            });
            let mut number = 0;
            while !done.load(Ordering::Relaxed) && !reader.is_finished() {
                trace.write(&whole(number).encode());
                number += 1;
            }
            reader.join().unwrap();
            number
        });
        assert_eq!(trace.read(8).records, (written - 8..written).map(whole).collect::<Vec<_>>());
    }
}
