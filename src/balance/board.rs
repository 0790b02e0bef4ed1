//! The health board: each server's state, written by the lane that runs the monitors, read by all lanes without locks.

use std::sync::atomic::{AtomicU8, Ordering};

/// A server's place on the board, held for as long as any configuration names the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// What the monitors think of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not probed yet; treated as up, so that a pool without monitors works.
    Unknown,
    /// Answers.
    Up,
    /// Does not.
    Down,
}

impl Health {
    /// Whether clients may be sent there.
    pub fn is_usable(self) -> bool {
        match self {
            Self::Unknown | Self::Up => true,
            Self::Down => false,
        }
    }
}

/// The board. One byte a server: readers see every verdict whole, and the last one as soon as the cache line reaches them.
///
/// Verdicts are rare, so neighbours share cache lines and readers keep them.
#[derive(Debug)]
pub struct Board {
    states: Box<[AtomicU8]>,
}

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

impl Board {
    /// A board with room for `slots` servers, all [`Health::Unknown`].
    pub fn new(slots: usize) -> Self {
        Self { states: (0..slots).map(|_| AtomicU8::new(UNKNOWN)).collect() }
    }

    /// How many servers it has room for.
    pub fn slots(&self) -> usize {
        self.states.len()
    }

    /// The state of the server at `slot`; [`Health::Unknown`] for a slot that the board does not have.
    pub fn health(&self, slot: Slot) -> Health {
        match self.state(slot).map(|state| state.load(Ordering::Acquire)) {
            Some(UP) => Health::Up,
            Some(DOWN) => Health::Down,
            Some(_) | None => Health::Unknown,
        }
    }

    /// Publishes a verdict. One writer only. Does nothing for a slot that the board does not have.
    pub fn publish(&self, slot: Slot, health: Health) {
        let value = match health {
            Health::Unknown => UNKNOWN,
            Health::Up => UP,
            Health::Down => DOWN,
        };
        if let Some(state) = self.state(slot) {
            // Release, with the Acquire above: who sees a verdict also sees what its writer did before it.
            state.store(value, Ordering::Release);
        }
    }

    fn state(&self, slot: Slot) -> Option<&AtomicU8> {
        self.states.get(usize::try_from(slot.0).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_verdict_is_read_back_at_its_slot_and_nowhere_else() {
        let board = Board::new(3);
        assert_eq!(board.slots(), 3);
        for health in [Health::Up, Health::Down, Health::Unknown] {
            board.publish(Slot(1), health);
            assert_eq!(board.health(Slot(1)), health);
            assert_eq!(board.health(Slot(0)), Health::Unknown);
            assert_eq!(board.health(Slot(2)), Health::Unknown);
        }
    }

    #[test]
    fn slots_that_the_board_does_not_have_are_unknown_and_ignored() {
        let board = Board::new(1);
        board.publish(Slot(1), Health::Down);
        board.publish(Slot(u32::MAX), Health::Down);
        assert_eq!(board.health(Slot(1)), Health::Unknown);
        assert_eq!(board.health(Slot(u32::MAX)), Health::Unknown);
        assert_eq!(board.health(Slot(0)), Health::Unknown);
    }

    #[test]
    fn only_down_is_not_usable() {
        assert!(Health::Unknown.is_usable() && Health::Up.is_usable() && !Health::Down.is_usable());
    }

    /// The writer makes round `n` known, then publishes its verdict on a slot of its own for that round. A reader that sees the
    /// verdict must also see the round, and must see the last verdict in the end.
    #[test]
    fn readers_see_whole_verdicts_in_order_and_the_last_one_in_the_end() {
        const ROUNDS: u32 = 20_000;
        /// Turns of a reader before it gives up, far more than the writer needs.
        const TURNS_MAX: u64 = 200_000_000;
        let board = Board::new(usize::try_from(ROUNDS).unwrap());
        let round = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut next = 0;
                    for turn in 0..TURNS_MAX {
                        match board.health(Slot(next)) {
                            Health::Unknown => {
                                assert!(turn + 1 < TURNS_MAX, "round {next} never became visible");
                                if turn % 64 == 0 {
                                    std::thread::yield_now();
                                }
                                continue;
                            }
                            seen @ (Health::Up | Health::Down) => assert_eq!(seen, verdict(next), "round {next}"),
                        }
                        assert!(
                            round.load(Ordering::Relaxed) >= u64::from(next),
                            "a verdict overtook what came before it"
                        );
                        next += 1;
                        if next == ROUNDS {
                            return;
                        }
                    }
                });
            }
            for n in 0..ROUNDS {
                round.store(u64::from(n), Ordering::Relaxed);
                board.publish(Slot(n), verdict(n));
            }
        });
    }

    fn verdict(round: u32) -> Health {
        if round % 3 == 0 { Health::Down } else { Health::Up }
    }
}
