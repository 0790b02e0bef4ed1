//! One core's run-to-completion pipeline. Control talks to it through its [`Inbox`]; it answers with counters and records only.

pub mod inbox;
pub mod record;

pub use inbox::{Inbox, Order, Snapshot};
pub use record::Record;
