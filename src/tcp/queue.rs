//! A queue of slot numbers in which each is at most once, so that it cannot outgrow its table; leaving it from the middle costs O(1).
#![expect(clippy::indexing_slicing, reason = "every index has been pushed, and pushing makes room for it")]

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

/// Not in the queue. The last two numbers are never slots.
const OUT: Link = Link { previous: u32::MAX - 1, next: u32::MAX - 1 };

#[derive(Debug)]
pub(super) struct Queue {
    links: Vec<Link>,
    head: u32,
    tail: u32,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { links: Vec::new(), head: NONE, tail: NONE }
    }

    /// An empty queue with room for so many slots, which is address space until they are used: growing would hold up whoever is in turn.
    pub(super) fn with_room(slots: usize) -> Self {
        Self { links: Vec::with_capacity(slots), head: NONE, tail: NONE }
    }

    pub(super) fn contains(&self, slot: u32) -> bool {
        self.links.get(slot as usize).is_some_and(|link| link.next != OUT.next)
    }

    /// Reads what the other calls need to know of a slot.
    pub(super) fn touch(&self, slot: u32) -> u64 {
        self.links.get(slot as usize).map_or(0, |link| link.next.into())
    }

    pub(super) fn front(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    /// The slots in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.front(), |slot| Some(self.links[*slot as usize].next).filter(|next| *next != NONE))
    }

    /// Appends a slot unless it is queued already.
    pub(super) fn push(&mut self, slot: u32) {
        if self.contains(slot) {
            return;
        }
        if self.links.len() <= slot as usize {
            self.links.resize(slot as usize + 1, OUT);
        }
        self.links[slot as usize] = Link { previous: self.tail, next: NONE };
        match self.tail {
            NONE => self.head = slot,
            tail => self.links[tail as usize].next = slot,
        }
        self.tail = slot;
    }

    pub(super) fn remove(&mut self, slot: u32) {
        if !self.contains(slot) {
            return;
        }
        let Link { previous, next } = std::mem::replace(&mut self.links[slot as usize], OUT);
        match previous {
            NONE => self.head = next,
            previous => self.links[previous as usize].next = next,
        }
        match next {
            NONE => self.tail = previous,
            next => self.links[next as usize].previous = previous,
        }
    }

    /// Moves a slot to the end.
    pub(super) fn rotate(&mut self, slot: u32) {
        self.remove(slot);
        self.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue) -> Vec<u32> {
        std::iter::from_fn(|| queue.front().inspect(|slot| queue.remove(*slot))).collect()
    }

    #[test]
    fn slots_come_out_in_order_and_once() {
        let mut queue = Queue::new();
        for slot in [7, 3, 7, 0] {
            queue.push(slot);
        }
        assert!(queue.contains(3) && !queue.contains(1) && !queue.contains(100));
        assert_eq!(drain(&mut queue), [7, 3, 0]);
        assert_eq!(queue.front(), None);
    }

    #[test]
    fn a_slot_can_leave_from_anywhere_and_come_back() {
        let mut queue = Queue::new();
        for slot in 0..5 {
            queue.push(slot);
        }
        for slot in [0, 2, 4, 2] {
            queue.remove(slot);
        }
        queue.push(2);
        queue.rotate(1);
        assert_eq!(drain(&mut queue), [3, 2, 1]);
    }
}
