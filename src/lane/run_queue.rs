//! Connections that have something to do, each at most once, in the order in which they began to.

use std::collections::VecDeque;

/// A queue of slab indices. Who pushes makes sure that an index waits in one queue only.
#[derive(Debug, Default)]
pub(super) struct RunQueue(VecDeque<usize>);

impl RunQueue {
    pub(super) fn push(&mut self, index: usize) {
        self.0.push_back(index);
    }

    pub(super) fn pop(&mut self) -> Option<usize> {
        self.0.pop_front()
    }

    /// Who will have a turn, the next one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
