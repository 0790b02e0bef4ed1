//! The health board: each server's state, written by the lane that runs the monitors, read by all lanes without locks.

/// A server's place on the board, held for as long as any configuration names the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// The board.
#[derive(Debug)]
pub struct Board {}

impl Board {
    /// A board with room for `slots` servers, all [`Health::Unknown`].
    pub fn new(slots: usize) -> Self {
        let _ = slots;
        todo!()
    }

    /// The state of the server at `slot`.
    pub fn health(&self, slot: Slot) -> Health {
        let _ = slot;
        todo!()
    }

    /// Publishes a verdict. One writer only.
    pub fn publish(&self, slot: Slot, health: Health) {
        let _ = (slot, health);
        todo!()
    }
}
