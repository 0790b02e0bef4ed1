//! One ticket key.

/// Names a key in a ticket's header, in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

/// 32 secret bytes and their id. Never printed, zeroized when dropped.
pub struct Key {}
