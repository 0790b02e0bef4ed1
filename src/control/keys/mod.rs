//! Ticket key rings outside the lanes: files, sources that watch or rotate them, and the command line over both.
//!
//! [`Source`] is what the engine runs; [`command`] is `sealane keys`, [`inspect`] is `sealane ticket inspect`.

pub mod alarm;
pub mod client;
pub mod command;
pub mod etcd;
pub mod file;
pub mod finding;
pub mod inspect;
pub mod lint;
pub mod mirror;
pub mod sealed;
pub mod source;

pub use alarm::{Alarm, Alarms};
pub use command::{KeysCommand, run};
pub use finding::{Error, Finding, Severity};
pub use inspect::{InspectArgs, Names, TicketCommand};
pub use source::{Source, SourceSettings};
