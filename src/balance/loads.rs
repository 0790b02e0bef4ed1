//! Connections open to each server: every lane writes its own row and reads all of them.

use crate::balance::Slot;
use crate::base::LaneId;

/// The table.
#[derive(Debug)]
pub struct Loads {}

impl Loads {
    /// A table of zeros.
    pub fn new(lanes: usize, slots: usize) -> Self {
        let _ = (lanes, slots);
        todo!()
    }

    /// A connection of `lane` to the server at `slot` begins. Only that lane may call this.
    pub fn open(&self, lane: LaneId, slot: Slot) {
        let _ = (lane, slot);
        todo!()
    }

    /// One ends. Only that lane may call this.
    pub fn close(&self, lane: LaneId, slot: Slot) {
        let _ = (lane, slot);
        todo!()
    }

    /// Connections open to the server at `slot`, over all lanes.
    pub fn total(&self, slot: Slot) -> u64 {
        let _ = slot;
        todo!()
    }
}
