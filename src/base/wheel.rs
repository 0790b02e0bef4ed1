//! A hierarchical timer wheel: arming, cancelling and firing cost O(1), however many timers are waiting.
#![expect(clippy::indexing_slicing, reason = "every index is a node or a slot that this file made")]

use crate::base::time::{Duration, Instant};

/// Resolution. Timers never fire early, and at most this much late.
const TICK: Duration = Duration::from_millis(1);
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 6;
/// The farthest deadline, in ticks from now: two years. Later ones fire then.
const HORIZON: u64 = 1 << (SLOT_BITS * 6);
const NONE: u32 = u32::MAX;
/// The list of timers whose time has come, behind those of the slots.
const DUE: usize = SLOTS * LEVELS;
const FREE: usize = DUE + 1;

/// Names an armed timer until it fires or is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(u32);

#[derive(Debug)]
struct Node<K> {
    previous: u32,
    next: u32,
    list: u32,
    deadline: u64,
    key: K,
}

/// Timers that carry a key each.
///
/// A timer lies on the level of the highest bit in which its deadline differs from `now`, so all timers of a level lie before those of the next one,
/// and a slot's timers move down when time reaches the slot's beginning: at most six moves a timer.
#[derive(Debug)]
pub struct Wheel<K> {
    now: u64,
    occupied: [u64; LEVELS],
    heads: [u32; DUE + 2],
    nodes: Vec<Node<K>>,
    len: usize,
}

impl<K: Copy> Default for Wheel<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy> Wheel<K> {
    /// A wheel without timers, at the start of time.
    pub fn new() -> Self {
        Self { now: 0, occupied: [0; LEVELS], heads: [NONE; DUE + 2], nodes: Vec::new(), len: 0 }
    }

    /// A wheel at the start of time with room for so many timers, which is address space until they are armed: growing would hold up whoever is in turn.
    pub fn with_room(timers: usize) -> Self {
        Self { nodes: Vec::with_capacity(timers), ..Self::new() }
    }

    /// Timers armed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Arms a timer that fires at `deadline`, or at once if that has passed.
    pub fn arm(&mut self, deadline: Instant, key: K) -> TimerId {
        let deadline = deadline.as_nanos().div_ceil(nanos(TICK)).min(self.now + HORIZON - 1);
        let index = match self.heads[FREE] {
            NONE => {
                let index = u32::try_from(self.nodes.len()).expect("fewer than 2^32 timers");
                self.nodes.push(Node { previous: NONE, next: NONE, list: NONE, deadline, key });
                index
            }
            index => {
                self.unlink(index);
                let node = &mut self.nodes[index as usize];
                (node.deadline, node.key) = (deadline, key);
                index
            }
        };
        self.place(index);
        self.len += 1;
        TimerId(index)
    }

    /// Disarms a timer, which must not have fired or been cancelled.
    pub fn cancel(&mut self, timer: TimerId) {
        self.unlink(timer.0);
        self.link(timer.0, FREE);
        self.len -= 1;
    }

    /// When a timer fires, and its key, while it is armed.
    pub fn armed(&self, timer: TimerId) -> Option<(Instant, K)> {
        let node = self.nodes.get(timer.0 as usize).filter(|node| node.list as usize != FREE)?;
        Some((Instant::from_nanos(node.deadline.saturating_mul(nanos(TICK))), node.key))
    }

    /// When [`expire`](Self::expire) has work next: a timer to fire, or timers to move down.
    pub fn poll_at(&self) -> Option<Instant> {
        let tick = if self.heads[DUE] == NONE { self.next_slot()?.0 } else { self.now };
        Some(Instant::from_nanos(tick.saturating_mul(nanos(TICK))))
    }

    /// Takes one timer that is due.
    pub fn expire(&mut self, now: Instant) -> Option<K> {
        let target = now.as_nanos() / nanos(TICK);
        while self.heads[DUE] == NONE {
            match self.next_slot() {
                Some((begins, list)) if begins <= target => {
                    self.now = begins;
                    while self.heads[list] != NONE {
                        let index = self.heads[list];
                        self.unlink(index);
                        self.place(index);
                    }
                }
                _ => {
                    self.now = self.now.max(target);
                    return None;
                }
            }
        }
        let index = self.heads[DUE];
        self.unlink(index);
        self.link(index, FREE);
        self.len -= 1;
        Some(self.nodes[index as usize].key)
    }

    /// The first occupied slot: the tick at which it begins, and its list.
    fn next_slot(&self) -> Option<(u64, usize)> {
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = SLOT_BITS * u32::try_from(level).expect("a few levels");
        let block = self.now >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
        Some((block | ((slot as u64) << shift), level * SLOTS + slot))
    }

    fn place(&mut self, index: u32) {
        let deadline = self.nodes[index as usize].deadline;
        if deadline <= self.now {
            return self.link(index, DUE);
        }
        let level = ((63 - (deadline ^ self.now).leading_zeros()) / SLOT_BITS) as usize;
        // Near the end of a block of the top level a deadline inside the horizon may lie in the next block: look again when this one ends.
        let (level, slot) = if level >= LEVELS {
            (LEVELS - 1, SLOTS - 1)
        } else {
            let shift = SLOT_BITS * u32::try_from(level).expect("a few levels");
            (level, usize::try_from((deadline >> shift) % SLOTS as u64).expect("below 64"))
        };
        self.link(index, level * SLOTS + slot);
    }

    fn link(&mut self, index: u32, list: usize) {
        let head = self.heads[list];
        let node = &mut self.nodes[index as usize];
        node.previous = NONE;
        node.next = head;
        node.list = u32::try_from(list).expect("a few hundred lists");
        if head != NONE {
            self.nodes[head as usize].previous = index;
        }
        self.heads[list] = index;
        if list < DUE {
            self.occupied[list / SLOTS] |= 1 << (list % SLOTS);
        }
    }

    fn unlink(&mut self, index: u32) {
        let Node { previous, next, list, .. } = self.nodes[index as usize];
        let list = list as usize;
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
        } else {
            self.heads[list] = next;
            if next == NONE && list < DUE {
                self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
            }
        }
    }
}

const fn nanos(duration: Duration) -> u64 {
    duration.subsec_nanos() as u64 + duration.as_secs() * 1_000_000_000
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_timer_fires_at_its_time_and_once() {
        let mut wheel = Wheel::new();
        wheel.arm(at(100_000), 'a');
        assert_eq!(wheel.expire(at(99_999)), None);
        assert_eq!(wheel.expire(at(100_000)), Some('a'));
        assert_eq!((wheel.expire(at(100_000)), wheel.poll_at(), wheel.len()), (None, None, 0));
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_once() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.expire(at(50)), None::<u8>);
        wheel.arm(at(10), 1);
        assert_eq!(wheel.poll_at(), Some(at(50)));
        assert_eq!(wheel.expire(at(50)), Some(1));
    }

    #[test]
    fn a_fraction_of_a_tick_rounds_up() {
        let mut wheel = Wheel::new();
        wheel.arm(Instant::from_nanos(1_000_001), 1);
        assert_eq!(wheel.expire(Instant::from_nanos(1_999_999)), None);
        assert_eq!(wheel.expire(at(2)), Some(1));
    }

    #[test]
    fn a_cancelled_timer_does_not_fire() {
        let mut wheel = Wheel::new();
        let first = wheel.arm(at(5), 1);
        wheel.arm(at(5), 2);
        wheel.cancel(first);
        assert_eq!((wheel.expire(at(9)), wheel.expire(at(9))), (Some(2), None));
    }

    proptest! {
        #[test]
        fn fires_like_a_sorted_map(steps in prop::collection::vec((0u64..300_000, 0u64..40_000, any::<bool>()), 1..200)) {
            let (mut wheel, mut model, mut now) = (Wheel::new(), BTreeMap::new(), 0);
            for (key, (ahead, passed, cancel)) in steps.into_iter().enumerate() {
                let timer = wheel.arm(at(now + ahead), key);
                if cancel {
                    wheel.cancel(timer);
                } else {
                    model.insert((now + ahead, key), ());
                }
                now += passed;
                if let Some(((first, _), ())) = model.first_key_value() {
                    prop_assert!(wheel.poll_at().unwrap() <= at(*first).max(wheel.poll_at().unwrap().min(at(now))));
                }
                let mut fired: Vec<usize> = std::iter::from_fn(|| wheel.expire(at(now))).collect();
                let later = model.split_off(&(now + 1, 0));
                let mut due: Vec<usize> = model.keys().map(|(_, key)| *key).collect();
                model = later;
                fired.sort_unstable();
                due.sort_unstable();
                prop_assert_eq!(fired, due);
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
