//! Atomics of what lanes share. Named in this one place, so that tests/loom can put its own in theirs and try every order of steps.

pub use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
