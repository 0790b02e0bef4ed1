//! What connections have just done, after the fact: a ring of fixed binary records a lane, cheap enough to be always on.
//!
//! The lane writes through its `Tracer` every segment of the connections in the sample (one in so many, by the keyed hash of the flow, so that a
//! connection is seen whole and both ways) and, of any connection, what is rare and matters. Whoever holds the [`Trace`] reads it at any time:
//!
//! - `record`: what is kept of a segment or an event, and its 128 bytes.
//! - `ring`: the records of a lane; one writer, any readers, no lock.
//! - `tracer`: the lane's side, called where segments come in and leave, where a timer fires and where a connection ends.
//! - `document`: the rings of an engine as bytes, and back.
//! - `show`: a record as a line of text, in the words of the dialogues in `tests/tcp`, and as the packet that it was.
//!
//! Headers only: no record holds a byte of payload, or anything secret.

mod document;
mod record;
mod ring;
mod show;
mod tracer;

pub use document::{DOCUMENT_MAX, Document, LaneTrace, Unreadable};
pub use record::{Cause, Inside, Kind, Reason, Record};
pub use ring::{Reading, Trace};
pub use show::{Headers, Show};

pub(super) use tracer::{Header, Tracer};

/// What is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// One connection in so many is traced; 1 for all, 0 for none and no events either.
    pub one_in: u32,
    /// Records that a lane keeps, 128 bytes each; rounded up to a power of two. 0 for none: then nothing can be traced.
    pub records: usize,
}

impl Default for Settings {
    /// One connection in 64; 8,192 records, 1 MiB. A record costs about 80 ns, so that one in 64 is lost in the noise of `benches/tcp.rs`.
    fn default() -> Self {
        Self { one_in: 64, records: 8192 }
    }
}
