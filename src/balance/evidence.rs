//! How live connections to each server fared: every lane writes its own row, the lane that runs the monitors sums them up.

use crossbeam::utils::CachePadded;

use crate::balance::Slot;
use crate::base::{Counter, Duration, LaneId};

/// What a connection says of its server. Each says one thing, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has sent its first byte. The client has waited so long for the server: for its SYN, and from the last of what it was sent to this byte.
    Answered(Duration),
    /// It has taken the connection and ended it in order, without a byte.
    Finished,
    /// It could not be connected to, or the connection broke before its first byte.
    Failed,
    /// It was asked something and the connection ended without an answer, for a reason of the client's or by a timeout, after so long.
    Unanswered(Duration),
}

/// Sums of what was seen, which only ever grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Connections that the server answered or ended in order.
    pub successes: u64,
    /// Connections that failed by the server.
    pub failures: u64,
    /// Times to the first byte that were measured.
    pub answers: u64,
    /// Their sum, in microseconds.
    pub answer_micros: u64,
}

impl Evidence {
    /// What has come since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            successes: self.successes.wrapping_sub(before.successes),
            failures: self.failures.wrapping_sub(before.failures),
            answers: self.answers.wrapping_sub(before.answers),
            answer_micros: self.answer_micros.wrapping_sub(before.answer_micros),
        }
    }
}

/// Whoever was not answered for less than this was impatient: nothing is known of the server.
const UNANSWERED_MIN: Duration = Duration::from_secs(1);

/// A longer time counts as this, so that one connection does not say more than all others.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// One lane's counts of one server.
#[derive(Debug, Default)]
struct Counts {
    successes: Counter,
    failures: Counter,
    answers: Counter,
    answer_micros: Counter,
}

/// Servers whose counts fill a cache line and the one that is fetched with it.
const BLOCK: usize = 4;

type Row = Box<[CachePadded<[Counts; BLOCK]>]>;

/// The table: 32 bytes a lane and slot. No two lanes write to the same cache line.
#[derive(Debug)]
pub(super) struct Table(Box<[Row]>);

impl Table {
    pub(super) fn new(lanes: usize, slots: usize) -> Self {
        let row = || (0..slots.div_ceil(BLOCK)).map(|_| CachePadded::default()).collect();
        Self((0..lanes).map(|_| row()).collect())
    }

    /// Notes what a connection of `lane` says of the server at `slot`.
    pub(super) fn note(&self, lane: LaneId, slot: Slot, outcome: Outcome) {
        let Some(counts) = self.0.get(usize::from(lane.0)).and_then(|row| counts_of(row, slot)) else { return };
        let answered_in = |time: Duration| {
            let micros = u64::try_from(time.min(ANSWER_MAX).as_micros()).unwrap_or(u64::MAX);
            counts.answer_micros.add(micros);
            counts.answers.increment();
        };
        match outcome {
            Outcome::Answered(time) => {
                counts.successes.increment();
                answered_in(time);
            }
            Outcome::Finished => counts.successes.increment(),
            Outcome::Failed => counts.failures.increment(),
            Outcome::Unanswered(time) if time >= UNANSWERED_MIN => answered_in(time),
            Outcome::Unanswered(_) => {}
        }
    }

    /// The sums over all lanes. Costs a read a lane, of lines that lanes may be writing.
    pub(super) fn sum(&self, slot: Slot) -> Evidence {
        self.0.iter().filter_map(|row| counts_of(row, slot)).fold(Evidence::default(), |sum, counts| Evidence {
            successes: sum.successes.wrapping_add(counts.successes.value()),
            failures: sum.failures.wrapping_add(counts.failures.value()),
            answers: sum.answers.wrapping_add(counts.answers.value()),
            answer_micros: sum.answer_micros.wrapping_add(counts.answer_micros.value()),
        })
    }
}

fn counts_of(row: &Row, slot: Slot) -> Option<&Counts> {
    let slot = usize::try_from(slot.0).ok()?;
    row.get(slot / BLOCK)?.get(slot % BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lanes_have_seen_adds_up_and_only_times_that_say_something_count() {
        let table = Table::new(2, 6);
        let millis = Duration::from_millis;
        for (lane, outcome) in [
            (0, Outcome::Answered(millis(2))),
            (1, Outcome::Answered(millis(4))),
            (1, Outcome::Finished),
            (0, Outcome::Failed),
            (0, Outcome::Unanswered(millis(999))),
            (1, Outcome::Unanswered(millis(1000))),
            (1, Outcome::Unanswered(Duration::MAX)),
        ] {
            table.note(LaneId(lane), Slot(5), outcome);
        }
        let seconds = 61_000_000;
        let all = Evidence { successes: 3, failures: 1, answers: 4, answer_micros: 6000 + seconds };
        assert_eq!(table.sum(Slot(5)), all);
        assert_eq!(all.since(&all), Evidence::default());
        assert_eq!(table.sum(Slot(4)), Evidence::default());
        table.note(LaneId(2), Slot(5), Outcome::Failed);
        table.note(LaneId(0), Slot(u32::MAX), Outcome::Failed);
        assert_eq!((table.sum(Slot(5)), table.sum(Slot(u32::MAX))), (all, Evidence::default()));
    }

    #[test]
    fn rows_of_two_lanes_share_no_cache_line() {
        let table = Table::new(2, 1);
        let [first, second] = [0, 1].map(|lane| std::ptr::from_ref(counts_of(&table.0[lane], Slot(0)).unwrap()).addr());
        assert!(first.abs_diff(second) >= 128, "{first:#x} {second:#x}");
    }
}
