//! How a stack shares out the memory of its buffers when that becomes scarce.

/// Full-sized segments that a connection may buffer each way, however little memory there is: with fewer, delayed acknowledgements would stall it.
const SEGMENTS_MIN: u32 = 2;

/// How much of [`Settings::memory_max`](super::Settings::memory_max) is left for buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// Less than three quarters are taken, by so many bytes. A connection may use its buffers to their bounds.
    Plenty {
        /// Bytes until it becomes scarce.
        left: usize,
    },
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
        } else {
            match (max - max / 4).saturating_sub(taken) {
                0 => Self::Scarce,
                left => Self::Plenty { left },
            }
        }
    }

    /// Whether connections have to do with less than they would have.
    pub(super) fn is_short(self) -> bool {
        match self {
            Self::Plenty { .. } => false,
            Self::Scarce | Self::Exhausted => true,
        }
    }

    /// How many bytes a buffer may hold now.
    pub(super) fn limit(self, capacity: u32, mss: u32) -> u32 {
        match self {
            Self::Plenty { .. } => capacity,
            Self::Scarce | Self::Exhausted => capacity.min(SEGMENTS_MIN * mss),
        }
    }
}

#[cfg(test)]
impl Memory {
    /// More than a test needs.
    pub(super) const PLENTY: Self = Self::Plenty { left: usize::MAX };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scarcity_begins_at_three_quarters() {
        assert_eq!(Memory::of(74, 100), Memory::Plenty { left: 1 });
        assert_eq!(Memory::of(75, 100), Memory::Scarce);
        assert_eq!(Memory::of(99, 100), Memory::Scarce);
        assert_eq!(Memory::of(100, 100), Memory::Exhausted);
    }
}
