//! Initial sequence numbers (RFC 6528) and timestamp offsets (RFC 7323 5.4): a clock plus a keyed hash of the flow, so that outsiders cannot guess them.

use std::hash::BuildHasher;

use siphasher::sip::SipHasher13;

use crate::base::{Flow, Instant, Random};
use crate::wire::Seq;

/// A secret hash function over flows, different in each stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed(u64, u64);

impl Keyed {
    pub(super) fn new(random: &mut Random) -> Self {
        Self(random.next_u64(), random.next_u64())
    }

    pub(super) fn hash(&self, flow: &Flow) -> u64 {
        self.hash_one(flow)
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// Where sequence numbers and timestamps of new connections start.
#[derive(Debug)]
pub(super) struct Isn(Keyed);

impl Isn {
    pub(super) fn new(random: &mut Random) -> Self {
        Self(Keyed::new(random))
    }

    /// Where this flow starts.
    pub(super) fn origin(&self, flow: &Flow) -> Origin {
        Origin(self.0.hash(flow))
    }
}

/// F(flow, secret): where a flow's numbers start. It is hashed once for all that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin(u64);

impl Origin {
    /// RFC 6528 3: ISN = M + F(flow, secret), M counting every 4 microseconds.
    pub(super) fn sequence(self, now: Instant) -> Seq {
        Seq(low(self.0).wrapping_add(low(now.as_nanos() / 4000)))
    }

    /// What the flow's timestamp clock shows at the start of time.
    pub(super) fn timestamp_offset(self) -> u32 {
        low(self.0 >> 32)
    }
}

/// A flow's timestamp clock, in milliseconds.
pub(super) fn timestamp(offset: u32, now: Instant) -> u32 {
    offset.wrapping_add(low(now.as_nanos() / 1_000_000))
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Duration;

    #[test]
    fn one_flow_counts_on_and_others_are_unrelated() {
        let isn = Isn::new(&mut Random::from_seed(1));
        let flow = |port| Flow::new(([198, 18, 0, 1], 443).into(), ([198, 18, 0, 2], port).into());
        let first = isn.origin(&flow(1)).sequence(Instant::START);
        assert_eq!(isn.origin(&flow(1)).sequence(Instant::START + Duration::from_millis(1)).since(first), 250);
        assert_ne!(isn.origin(&flow(2)).sequence(Instant::START), first);
        assert_ne!(Isn::new(&mut Random::from_seed(2)).origin(&flow(1)).sequence(Instant::START), first);
    }
}
