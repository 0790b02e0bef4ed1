//! SYN-RECEIVED of passive opens (RFC 9293 3.5): small entries, bounded. Beyond the bound SYNs are answered by cookies.

use slab::Slab;

use crate::base::{Duration, Flow, Instant, TimerId};
use crate::tcp::Token;
use crate::tcp::index::Key;
use crate::tcp::source::SourceId;
use crate::wire::{SegmentOptions, Seq, Timestamp};

/// How often SYN-ACK is sent again, after 1, 2, 4, 8 and 16 s, before the entry is given up after 32 s more.
pub(super) const RETRIES: u32 = 5;

/// A connection that a peer has begun to open.
#[derive(Clone, Debug)]
pub(super) struct HalfOpen {
    pub(super) flow: Flow,
    /// The flow's, as the index has it: of its handshake's two segments each would hash it again several times.
    pub(super) key: Key,
    pub(super) token: Token,
    pub(super) iss: Seq,
    pub(super) irs: Seq,
    /// The peer's, already clamped.
    pub(super) mss: u16,
    pub(super) window: u16,
    /// The peer's window scale; with `None` neither side scales.
    pub(super) window_scale: Option<u8>,
    /// The peer permits SACK, and so do we.
    pub(super) sack: bool,
    /// The peer understands marks of congestion, and so do we.
    pub(super) ecn: bool,
    /// TS.Recent.
    pub(super) timestamp: Option<u32>,
    /// What our own timestamp clock started at.
    pub(super) timestamp_offset: u32,
    pub(super) retries: u32,
    /// When SYN-ACK left, if that is known.
    pub(super) sent_at: Option<Instant>,
    pub(super) timer: Option<TimerId>,
    /// The source that it counts against, if handshakes are.
    pub(super) source: Option<SourceId>,
}

impl HalfOpen {
    /// The options of our SYN-ACK: only what the peer offered too.
    pub(super) fn options(&self, mss: u16, shift: u8, clock: u32) -> SegmentOptions {
        SegmentOptions {
            mss: Some(mss),
            window_scale: self.window_scale.map(|_| shift),
            sack_permitted: self.sack,
            timestamp: self.timestamp.map(|echo| Timestamp { value: clock, echo }),
            ..SegmentOptions::default()
        }
    }

    /// When SYN-ACK is due again.
    pub(super) fn next_retry(&self, now: Instant) -> Instant {
        now + Duration::from_secs(1 << self.retries)
    }
}

pub(super) type HalfOpens = Slab<HalfOpen>;
