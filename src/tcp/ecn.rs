//! Explicit congestion notification (RFC 3168) of one connection, in a byte: what was negotiated, what the peer must be told, and what waits.
//!
//! What a mark does to the congestion window is in `recovery` and `selective`.

use crate::tcp::EcnMode;
use crate::wire::{Ecn, Flags, Segment};

/// An ECN-setup SYN has left.
const OFFERED: u8 = 1;
/// RFC 3168 6.1.1: a SYN without ECN has been sent or received besides, so that nothing is sent that routers may mark.
const UNMARKED: u8 = 2;
/// Both sides have said in their SYN that they understand marks.
const CAPABLE: u8 = 4;
/// A mark has come and CWR has not: every acknowledgement carries ECE.
const ECHOING: u8 = 8;
/// RFC 3168 6.1.2: the window cannot shrink below one segment, so new data waits for the retransmission timer.
const HELD: u8 = 16;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notification(u8);

impl Notification {
    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Our SYN is about to leave, `again` if not for the first time. Gives whether it offers ECN.
    pub(super) fn offer(&mut self, mode: EcnMode, again: bool) -> bool {
        // RFC 3168 6.1.1.1: there are middleboxes that drop what they do not know, so a SYN that had no answer does without.
        let offers = mode == EcnMode::Offer && !again;
        self.0 |= if offers { OFFERED } else { UNMARKED };
        offers
    }

    /// A passive open: our SYN-ACK has agreed.
    pub(super) fn agree(&mut self) {
        self.0 |= CAPABLE;
    }

    /// The peer's SYN or SYN-ACK has come.
    pub(super) fn on_syn(&mut self, segment: &Segment<'_>) {
        if self.has(OFFERED) {
            self.0 |= if is_setup(segment) { CAPABLE } else { UNMARKED };
        }
    }

    /// Marks are understood on both sides.
    pub(super) fn is_capable(self) -> bool {
        self.has(CAPABLE)
    }

    /// New data may say that it may be marked.
    pub(super) fn may_be_marked(self) -> bool {
        self.has(CAPABLE) && !self.has(UNMARKED)
    }

    /// The segment says that a mark has reached the peer.
    pub(super) fn is_echo(self, segment: &Segment<'_>) -> bool {
        self.may_be_marked() && segment.flags.ece && !segment.flags.syn
    }

    /// ECE goes with this acknowledgement.
    pub(super) fn echoes(self) -> bool {
        self.has(ECHOING)
    }

    /// The peer has reduced its window.
    pub(super) fn on_reduced(&mut self) {
        self.0 &= !ECHOING;
    }

    /// A mark has come. Gives whether that is news.
    pub(super) fn on_mark(&mut self) -> bool {
        let news = !self.has(ECHOING);
        self.0 |= ECHOING;
        news
    }

    /// New data waits for the retransmission timer.
    pub(super) fn hold(&mut self) {
        self.0 |= HELD;
    }

    pub(super) fn is_held(self) -> bool {
        self.has(HELD)
    }

    /// The timer has fired. Gives whether new data was waiting for it.
    pub(super) fn release(&mut self) -> bool {
        let held = self.has(HELD);
        self.0 &= !HELD;
        held
    }
}

/// Whether this SYN or SYN-ACK says that its sender understands marks (RFC 3168 6.1.1). A SYN-ACK that repeats both bits is none: there are hosts that
/// send back whatever they get.
pub(super) fn is_setup(segment: &Segment<'_>) -> bool {
    let Flags { ece, cwr, .. } = segment.flags;
    // A SYN must not be marked (RFC 3168 6.1.1). Where it is, somebody on the way writes the field, and marks mean nothing; Linux does the same.
    ece && cwr == segment.ack.is_none() && segment.ecn == Ecn::NotEct
}
