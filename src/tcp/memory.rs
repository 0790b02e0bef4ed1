//! How a stack shares out the memory of its buffers when that becomes scarce.

/// Full-sized segments that a connection may buffer each way, however little memory there is: with fewer, delayed acknowledgements would stall it.
const SEGMENTS_MIN: u32 = 2;

/// How much of [`Settings::memory_max`](super::Settings::memory_max) is left for buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// Less than three quarters are taken. A connection may use its buffers to their bounds.
    Plenty,
    /// Three quarters are taken. Windows and writes go up to the least a connection needs; what was promised before is kept.
    Scarce,
    /// All of it is taken. There are no new connections, and received data beyond the least a connection needs is dropped.
    Exhausted,
}

impl Memory {
    /// What it means that `taken` of `max` bytes are in use.
    pub(super) fn of(taken: usize, max: usize) -> Self {
        if taken >= max {
            Self::Exhausted
        } else if taken >= max - max / 4 {
            Self::Scarce
        } else {
            Self::Plenty
        }
    }

    /// How many bytes a buffer may hold now.
    pub(super) fn limit(self, capacity: u32, mss: u32) -> u32 {
        match self {
            Self::Plenty => capacity,
            Self::Scarce | Self::Exhausted => capacity.min(SEGMENTS_MIN * mss),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scarcity_begins_at_three_quarters() {
        assert_eq!(Memory::of(74, 100), Memory::Plenty);
        assert_eq!(Memory::of(75, 100), Memory::Scarce);
        assert_eq!(Memory::of(99, 100), Memory::Scarce);
        assert_eq!(Memory::of(100, 100), Memory::Exhausted);
    }
}
