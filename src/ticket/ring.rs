//! The key ring: an immutable snapshot of the keys that seal and open tickets.

/// Keys, one of which seals.
#[derive(Debug)]
pub struct Ring {}
