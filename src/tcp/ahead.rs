//! Looking ahead: connections that are about to be used come from memory together, in loads that do not wait for each other.

use std::hint::black_box;

use smallvec::SmallVec;

use crate::tcp::connection::Connection;
use crate::tcp::{ConnectionId, Stack};

/// Connections that are brought into the cache together: a burst of the NIC.
pub const AHEAD: usize = 32;

/// So few connections, of six lines each, are in the core's own cache: looking ahead would cost more than there is to wait for.
const CACHED_MAX: usize = 512;

impl Stack {
    /// Brings connections that are about to be used into the cache, those that are live: loads that wait for none of the others, where one use after the
    /// other would wait for memory each time.
    pub fn look_ahead(&self, ids: impl Iterator<Item = ConnectionId>) {
        if self.should_look_ahead() {
            self.touch(ids.filter_map(|id| self.connections.find(id)));
        }
    }

    /// Whether there are more connections than the core's own cache holds.
    pub(super) fn should_look_ahead(&self) -> bool {
        self.connections.len() > CACHED_MAX
    }

    pub(super) fn touch(&self, connections: impl Iterator<Item = u32>) {
        let mut queues = 0;
        let connections: SmallVec<[&Connection; 2 * AHEAD]> = connections
            .filter_map(|index| {
                queues ^= self.news.touch(index) ^ self.sending.touch(index);
                self.connections.at(index)
            })
            .collect();
        // First the connections, then what they point to.
        black_box(connections.iter().fold(queues, |sum, connection| sum ^ connection.touch()));
        black_box(connections.iter().fold(0, |sum, connection| sum ^ connection.touch_further()));
    }
}
