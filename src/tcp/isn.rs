//! Initial sequence numbers (RFC 6528) and timestamp offsets (RFC 7323 5.4): a clock plus a keyed hash of the flow, so that outsiders cannot guess them.

use std::hash::{BuildHasher, Hash, Hasher};

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

    fn hash(&self, flow: &Flow) -> u64 {
        let mut hasher = self.build_hasher();
        flow.hash(&mut hasher);
        hasher.finish()
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

    /// RFC 6528 3: ISN = M + F(flow, secret), M counting every 4 microseconds.
    pub(super) fn sequence(&self, flow: &Flow, now: Instant) -> Seq {
        Seq(low(self.0.hash(flow)).wrapping_add(low(now.as_nanos() / 4000)))
    }

    /// What the flow's timestamp clock shows at the start of time.
    pub(super) fn timestamp_offset(&self, flow: &Flow) -> u32 {
        low(self.0.hash(flow) >> 32)
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
        let first = isn.sequence(&flow(1), Instant::START);
        assert_eq!(isn.sequence(&flow(1), Instant::START + Duration::from_millis(1)).since(first), 250);
        assert_ne!(isn.sequence(&flow(2), Instant::START), first);
        assert_ne!(Isn::new(&mut Random::from_seed(2)).sequence(&flow(1), Instant::START), first);
    }
}
