//! One core's run-to-completion pipeline. Control holds a [`Handle`] of each lane: orders go in, counters and records come out.

pub mod handle;
pub mod inbox;
pub mod record;

pub use handle::{Counters, Handle, LaneCounters};
pub use inbox::{Inbox, Order, Snapshot};
pub use record::Record;
