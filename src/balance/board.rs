//! The health board: each server's state, written by the lane that runs the monitors, read by all lanes without locks.

use crate::base::atomic::{AtomicU16, Ordering};

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
    /// Answers that it is in maintenance: it is drained.
    Maintenance,
    /// Does not answer.
    Down,
}

impl Health {
    /// Whether new clients may be sent there.
    pub fn is_usable(self) -> bool {
        match self {
            Self::Unknown | Self::Up => true,
            Self::Maintenance | Self::Down => false,
        }
    }
}

/// What part of its ratio a server gets of new clients, in 256ths: less than all of it while it warms up or has failed clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u16);

impl Share {
    /// All of it.
    pub const FULL: Self = Self(256);
    /// The least: a trickle, by which a server proves itself.
    pub const LEAST: Self = Self(16);

    /// The share nearest to `part` of the whole, between [`LEAST`](Self::LEAST) and [`FULL`](Self::FULL).
    pub fn of(part: f64) -> Self {
        let (least, full) = (f64::from(Self::LEAST.0), f64::from(Self::FULL.0));
        // Within 16 and 256; what is no number is nothing.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bounds of a share")]
        let share = (part * full).round().max(least).min(full) as u16;
        Self(share)
    }

    /// How many 256ths.
    pub fn parts(self) -> u16 {
        self.0
    }

    /// How many hundredths, whole ones.
    pub fn percent(self) -> u16 {
        // 256 at most.
        self.0 * 100 / 256
    }
}

/// The board. Two bytes a server: readers see every verdict whole, and the last one as soon as the cache line reaches them.
///
/// Verdicts are rare, so neighbours share cache lines and readers keep them.
#[derive(Debug)]
pub struct Board {
    states: Box<[AtomicU16]>,
}

/// The lowest two bits are the verdict, the next is set while the server is taken out, the others are what the share lacks, so that a server of which nothing is
/// known has the whole.
const VERDICT: u16 = 3;
const UNKNOWN: u16 = 0;
const UP: u16 = 1;
const DOWN: u16 = 2;
const MAINTENANCE: u16 = 3;
const OUT: u16 = 4;
const LACK: u16 = !(VERDICT | OUT);
const LACK_SHIFT: u32 = 3;

impl Board {
    /// A board with room for `slots` servers, all [`Health::Unknown`] and with [`Share::FULL`].
    pub fn new(slots: usize) -> Self {
        Self { states: (0..slots).map(|_| AtomicU16::new(UNKNOWN)).collect() }
    }

    /// How many servers it has room for.
    pub fn slots(&self) -> usize {
        self.states.len()
    }

    /// The state of the server at `slot`, which is [`Health::Down`] also while it is taken out; [`Health::Unknown`] for a slot that the board does not have.
    pub fn health(&self, slot: Slot) -> Health {
        let state = self.read(slot);
        let verdict = verdict_of(state);
        if state & OUT != 0 && verdict.is_usable() { Health::Down } else { verdict }
    }

    /// What the monitors think of it.
    pub fn verdict(&self, slot: Slot) -> Health {
        verdict_of(self.read(slot))
    }

    /// Whether it is taken out for failures of live connections.
    pub fn is_out(&self, slot: Slot) -> bool {
        self.read(slot) & OUT != 0
    }

    /// The share of the server at `slot`; all for a slot that the board does not have.
    pub fn share(&self, slot: Slot) -> Share {
        share_of(self.read(slot))
    }

    /// The share of the server at `slot` if clients may be sent there: both with one look.
    pub fn usable_share(&self, slot: Slot) -> Option<Share> {
        let state = self.read(slot);
        is_usable(state).then(|| share_of(state))
    }

    /// Publishes a verdict. One writer only, of verdicts and shares. Does nothing for a slot that the board does not have.
    pub fn publish(&self, slot: Slot, health: Health) {
        let value = match health {
            Health::Unknown => UNKNOWN,
            Health::Up => UP,
            Health::Down => DOWN,
            Health::Maintenance => MAINTENANCE,
        };
        self.write(slot, VERDICT, value);
    }

    /// Publishes a share. The same writer's.
    pub fn publish_share(&self, slot: Slot, share: Share) {
        self.write(slot, LACK, (Share::FULL.0 - share.0) << LACK_SHIFT);
    }

    /// Publishes whether the server is taken out. The same writer's.
    pub fn publish_out(&self, slot: Slot, is_out: bool) {
        self.write(slot, OUT, if is_out { OUT } else { 0 });
    }

    fn read(&self, slot: Slot) -> u16 {
        self.state(slot).map_or(UNKNOWN, |state| state.load(Ordering::Acquire))
    }

    fn write(&self, slot: Slot, mask: u16, value: u16) {
        if let Some(state) = self.state(slot) {
            // Nobody else writes: no step in between is lost.
            let before = state.load(Ordering::Relaxed);
            let after = before & !mask | value & mask;
            if after == before {
                // Readers keep the line.
                return;
            }
            // Release, with the Acquire above: who sees a verdict also sees what its writer did before it.
            state.store(after, Ordering::Release);
        }
    }

    fn state(&self, slot: Slot) -> Option<&AtomicU16> {
        self.states.get(usize::try_from(slot.0).ok()?)
    }
}

fn is_usable(state: u16) -> bool {
    state & OUT == 0 && ![DOWN, MAINTENANCE].contains(&(state & VERDICT))
}

fn verdict_of(state: u16) -> Health {
    match state & VERDICT {
        UP => Health::Up,
        DOWN => Health::Down,
        MAINTENANCE => Health::Maintenance,
        _ => Health::Unknown,
    }
}

fn share_of(state: u16) -> Share {
    Share(Share::FULL.0.saturating_sub(state >> LACK_SHIFT))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_verdict_is_read_back_at_its_slot_and_nowhere_else() {
        let board = Board::new(3);
        assert_eq!(board.slots(), 3);
        for health in [Health::Up, Health::Down, Health::Maintenance, Health::Unknown] {
            board.publish(Slot(1), health);
            assert_eq!(board.health(Slot(1)), health);
            assert_eq!(board.health(Slot(0)), Health::Unknown);
            assert_eq!(board.health(Slot(2)), Health::Unknown);
        }
    }

    #[test]
    fn verdict_and_share_change_apart_and_are_seen_together() {
        let board = Board::new(2);
        assert_eq!(board.share(Slot(1)), Share::FULL);
        for share in [Share::LEAST, Share::of(0.5), Share::FULL] {
            for health in [Health::Up, Health::Down, Health::Unknown] {
                board.publish_share(Slot(1), share);
                board.publish(Slot(1), health);
                assert_eq!((board.health(Slot(1)), board.share(Slot(1))), (health, share));
                assert_eq!(board.usable_share(Slot(1)), health.is_usable().then_some(share));
            }
        }
        assert_eq!((board.health(Slot(0)), board.share(Slot(0))), (Health::Unknown, Share::FULL));
        board.publish_share(Slot(2), Share::LEAST);
        assert_eq!(board.share(Slot(2)), Share::FULL, "a slot that it does not have");
    }

    #[test]
    fn a_server_that_is_taken_out_is_down_whatever_the_monitors_think() {
        let board = Board::new(1);
        board.publish_share(Slot(0), Share::LEAST);
        board.publish_out(Slot(0), true);
        for health in [Health::Up, Health::Down, Health::Unknown] {
            board.publish(Slot(0), health);
            assert_eq!((board.health(Slot(0)), board.verdict(Slot(0))), (Health::Down, health));
            assert_eq!((board.is_out(Slot(0)), board.usable_share(Slot(0))), (true, None));
        }
        board.publish_out(Slot(0), false);
        assert_eq!((board.health(Slot(0)), board.usable_share(Slot(0))), (Health::Unknown, Some(Share::LEAST)));
    }

    #[test]
    fn a_share_is_between_a_trickle_and_all() {
        for (part, parts) in [(1.0, 256), (0.5, 128), (0.0625, 16), (0.01, 16), (-3.0, 16), (7.0, 256), (f64::NAN, 16)]
        {
            assert_eq!(Share::of(part).parts(), parts, "{part}");
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
    fn who_is_down_or_in_maintenance_gets_no_new_clients() {
        assert!(Health::Unknown.is_usable() && Health::Up.is_usable());
        assert!(!Health::Down.is_usable() && !Health::Maintenance.is_usable());
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
                            seen @ (Health::Up | Health::Down | Health::Maintenance) => {
                                assert_eq!(seen, verdict(next), "round {next}")
                            }
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
