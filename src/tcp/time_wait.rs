//! TIME-WAIT (RFC 9293 3.6.1): what must be remembered of a finished connection for 2 MSL, in 64 bytes.

use slab::Slab;

use crate::base::{Duration, Flow, Instant};
use crate::tcp::queue::Queue;
use crate::wire::{Segment, Seq};

/// One finished connection: 56 bytes here and 8 in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeWait {
    pub(super) expires_at: Instant,
    pub(super) flow: Flow,
    pub(super) snd_nxt: Seq,
    pub(super) rcv_nxt: Seq,
    /// TS.Recent, zero for a connection without timestamps.
    pub(super) ts_recent: u32,
}

/// How a segment for a flow in TIME-WAIT is answered (RFC 9293 3.10.7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Not at all.
    Nothing,
    /// With an acknowledgement.
    Ack,
    /// With an acknowledgement, and 2 MSL begin again: the FIN came again, so our ACK was lost.
    AckAndRestart,
    /// The peer opens a new connection: forget this one and treat the SYN as any other.
    Reopen,
}

impl TimeWait {
    pub(super) fn answer(&self, segment: &Segment<'_>) -> Answer {
        // RFC 1337: a reset does not end TIME-WAIT, or old duplicates could.
        if segment.flags.rst {
            return Answer::Nothing;
        }
        if segment.flags.syn && segment.ack.is_none() {
            // RFC 6191: a larger timestamp or a larger sequence number proves that the SYN is new.
            let newer = match (segment.options.timestamp, self.ts_recent) {
                (Some(timestamp), 1..) if timestamp.value != self.ts_recent => {
                    Seq(timestamp.value).after(Seq(self.ts_recent))
                }
                _ => segment.seq.after(self.rcv_nxt),
            };
            return if newer { Answer::Reopen } else { Answer::Ack };
        }
        if segment.flags.fin && segment.seq + segment.sequence_len() == self.rcv_nxt {
            return Answer::AckAndRestart;
        }
        // An acknowledgement of our FIN that says nothing new needs no answer, or two ends in TIME-WAIT would talk for ever.
        if segment.sequence_len() == 0 && segment.seq == self.rcv_nxt { Answer::Nothing } else { Answer::Ack }
    }
}

/// All of them, in the order in which they expire: each waits equally long.
#[derive(Debug)]
pub(super) struct TimeWaits {
    entries: Slab<TimeWait>,
    order: Queue,
    lasts: Duration,
}

impl TimeWaits {
    pub(super) fn new(lasts: Duration) -> Self {
        Self { entries: Slab::new(), order: Queue::new(), lasts }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn at(&self, index: u32) -> Option<&TimeWait> {
        self.entries.get(index as usize)
    }

    pub(super) fn insert(&mut self, mut entry: TimeWait, now: Instant) -> u32 {
        entry.expires_at = now + self.lasts;
        let index = u32::try_from(self.entries.insert(entry)).expect("fewer than 2^32 entries");
        self.order.push(index);
        index
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<TimeWait> {
        self.order.remove(index);
        self.entries.try_remove(index as usize)
    }

    pub(super) fn restart(&mut self, index: u32, now: Instant) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.expires_at = now + self.lasts;
            self.order.rotate(index);
        }
    }

    /// The entries in the order in which they expire.
    pub(super) fn in_order(&self) -> impl Iterator<Item = u32> + '_ {
        self.order.iter()
    }

    /// The entry that expires first.
    pub(super) fn oldest(&self) -> Option<(u32, &TimeWait)> {
        let index = self.order.front()?;
        Some((index, self.at(index)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_no_more_than_64_bytes_with_its_place_in_the_queue() {
        assert!(size_of::<TimeWait>() + 2 * size_of::<u32>() <= 64);
    }
}
