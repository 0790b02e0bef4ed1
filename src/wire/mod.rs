//! What a lane needs of a frame, parsed once over `smoltcp::wire`. A value of these types has proven lengths and checksums.

pub mod frame;
pub mod icmp;
pub mod quote;
pub mod segment;

pub use frame::{Ecn, Frame, Malformed, Packet, Protocol};
pub use quote::Quote;
pub use segment::{Flags, Outgoing, Segment, SegmentOptions, Seq, Timestamp};
