//! TCP segments (RFC 9293 3.1) with the options of RFC 7323 and RFC 2018.

use crate::base::Flow;
use crate::wire::{Malformed, Packet};

/// A sequence number: arithmetic modulo 2^32, order by RFC 9293 3.4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq(pub u32);

/// The control bits that a segment carries beside ACK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Synchronize sequence numbers.
    pub syn: bool,
    /// No more data from sender.
    pub fin: bool,
    /// Reset the connection.
    pub rst: bool,
    /// Push.
    pub psh: bool,
    /// ECN echo (RFC 3168).
    pub ece: bool,
    /// Congestion window reduced (RFC 3168).
    pub cwr: bool,
}

/// The timestamps option (RFC 7323 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// TSval.
    pub value: u32,
    /// TSecr.
    pub echo: u32,
}

/// The options that the engine understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentOptions {
    /// Maximum segment size, on SYN only.
    pub mss: Option<u16>,
    /// Window scale shift, on SYN only.
    pub window_scale: Option<u8>,
    /// SACK permitted, on SYN only.
    pub sack_permitted: bool,
    /// SACK blocks: left edge, right edge (exclusive).
    pub sack: [Option<(Seq, Seq)>; 4],
    /// Timestamps.
    pub timestamp: Option<Timestamp>,
}

/// A TCP segment whose checksum and lengths have been proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// SEG.SEQ.
    pub seq: Seq,
    /// SEG.ACK, when the ACK bit is set.
    pub ack: Option<Seq>,
    /// The other control bits.
    pub flags: Flags,
    /// SEG.WND, unscaled.
    pub window: u16,
    /// Options.
    pub options: SegmentOptions,
    /// The data.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Parses the TCP segment in `packet` and the flow it belongs to, seen from this engine. With `verified`, the NIC has proven its checksum.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with it.
    pub fn parse(packet: &Packet<'a>, verified: bool) -> Result<(Flow, Self), Malformed> {
        let _ = (packet, verified);
        todo!()
    }
}
