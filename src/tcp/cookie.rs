//! SYN cookies (RFC 4987 3.6): a full half-open table is replaced by what a client's own acknowledgement brings back.
//!
//! The initial sequence number that a client must acknowledge holds what its SYN offered, and a keyed hash of that, of the flow and of the client's
//! sequence number: 1 bit of time, 3 of MSS, 4 of window scale, 1 of SACK, 23 of hash. A guess is right once in eight million times; where the client
//! offers timestamps it must echo ours from the last two minutes besides, whose start depends on the flow, so one bit of the hash can say whether it
//! offered ECN: then a guess is right once in 2^37.

use crate::base::{Duration, Instant, Random};
use crate::tcp::isn::{self, Keyed, Origin};
use crate::wire::{Seq, Timestamp};

/// A cookie is good for one to two of these.
const PERIOD: Duration = Duration::from_secs(64);
/// What three bits say: the largest that the client accepts.
const SIZES: [u16; 8] = [64, 216, 536, 1220, 1360, 1440, 1460, 8940];
/// No window scale.
const UNSCALED: u8 = 15;
const HASH_BITS: u32 = 23;
/// With timestamps, the uppermost of them.
const ECN: u32 = 1 << (HASH_BITS - 1);

/// What a client's SYN offered, as far as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) mss: u16,
    pub(super) window_scale: Option<u8>,
    pub(super) sack: bool,
    /// Kept only beside timestamps.
    pub(super) ecn: bool,
}

impl Offer {
    /// Eight bits, or `None` when the client takes less than any size that can be said.
    fn encode(self) -> Option<u8> {
        let size = SIZES.iter().rposition(|size| *size <= self.mss)?;
        let scale = self.window_scale.map_or(UNSCALED, |shift| shift.min(14));
        Some((u8::try_from(size).ok()? << 5) | (scale << 1) | u8::from(self.sack))
    }

    fn decode(bits: u8) -> Self {
        let scale = (bits >> 1) & 15;
        Self {
            mss: SIZES.get(usize::from(bits >> 5)).copied().unwrap_or(536),
            window_scale: (scale != UNSCALED).then_some(scale),
            sack: bits & 1 == 1,
            ecn: false,
        }
    }
}

/// Bakes and checks.
#[derive(Debug)]
pub(super) struct Cookies {
    key: Keyed,
    /// When the last cookie that was sent is stale. After it nothing is taken for one.
    good_until: Instant,
}

impl Cookies {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { key: Keyed::new(random), good_until: Instant::START }
    }

    /// The initial sequence number to answer a SYN with number `irs`.
    pub(super) fn bake(
        &mut self,
        origin: Origin,
        irs: Seq,
        offer: Offer,
        timestamps: bool,
        now: Instant,
    ) -> Option<Seq> {
        let bits = offer.encode()?;
        self.good_until = now + PERIOD * 2;
        Some(self.cookie(origin, irs, bits, timestamps.then_some(offer.ecn), period(now)))
    }

    /// Whether cookies may be out.
    pub(super) fn are_out(&self, now: Instant) -> bool {
        now < self.good_until
    }

    /// What the SYN had offered, if `iss` is the answer that it got.
    pub(super) fn check(
        &self,
        origin: Origin,
        irs: Seq,
        iss: Seq,
        timestamp: Option<Timestamp>,
        now: Instant,
    ) -> Option<Offer> {
        let period = period(now);
        // The bit says whether it is of this period or of the one before.
        let age = (period ^ u64::from(iss.0 >> 31)) & 1;
        let period = period.checked_sub(age)?;
        let bits = u8::try_from((iss.0 >> HASH_BITS) & 0xff).ok()?;
        let fresh = timestamp.is_none_or(|timestamp| {
            let age = isn::timestamp(origin.timestamp_offset(), now).wrapping_sub(timestamp.echo);
            Duration::from_millis(age.into()) <= PERIOD * 2
        });
        let ecn = timestamp.map(|_| iss.0 & ECN != 0);
        let right = self.cookie(origin, irs, bits, ecn, period) == iss;
        (right && fresh).then(|| Offer { ecn: ecn == Some(true), ..Offer::decode(bits) })
    }

    /// `ecn` is none where there are no timestamps. The flow enters by its origin, which is a keyed hash of it already: whoever finds two flows of one origin
    /// gains a cookie of one for the other.
    fn cookie(&self, origin: Origin, irs: Seq, bits: u8, ecn: Option<bool>, period: u64) -> Seq {
        use std::hash::BuildHasher;
        let options = u64::from(bits) | ecn.map_or(0, |offered| 0x100 | u64::from(offered) << 9);
        let hash = self.key.hash_one((origin, u64::from(irs.0) << 32 | options, period));
        let hash = u32::try_from(hash & ((1 << HASH_BITS) - 1)).unwrap_or_default();
        let hash = match ecn {
            Some(offered) => (hash & (ECN - 1)) | if offered { ECN } else { 0 },
            None => hash,
        };
        let parity = u32::from(period & 1 == 1);
        Seq((parity << 31) | (u32::from(bits) << HASH_BITS) | hash)
    }
}

fn period(now: Instant) -> u64 {
    now.since(Instant::START).as_secs() / PERIOD.as_secs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::Flow;
    use crate::tcp::isn::Isn;

    fn flow(port: u16) -> Origin {
        let flow = Flow::new(([198, 18, 0, 1], 443).into(), ([198, 18, 0, 2], port).into());
        Isn::new(&mut Random::from_seed(7)).origin(&flow)
    }

    proptest! {
        #[test]
        fn what_a_syn_offered_comes_back_for_a_minute_and_not_for_three(
            mss in 64u16.., scale in prop::option::of(0u8..15), sack: bool, irs: u32, start in 0u64..100_000, wait in 0u64..300,
        ) {
            let mut cookies = Cookies::new(&mut Random::from_seed(1));
            let offer = Offer { mss, window_scale: scale, sack, ecn: false };
            let now = Instant::START + Duration::from_secs(start);
            let iss = cookies.bake(flow(1), Seq(irs), offer, false, now).unwrap();
            let later = now + Duration::from_secs(wait);
            match cookies.check(flow(1), Seq(irs), iss, None, later) {
                Some(back) => {
                    prop_assert!(wait <= 128);
                    prop_assert_eq!(back, Offer { mss: back.mss, ..offer });
                    prop_assert!(back.mss <= mss && SIZES.iter().all(|size| *size > mss || *size <= back.mss));
                }
                None => prop_assert!(wait > 64),
            }
        }
    }

    #[test]
    fn a_cookie_is_bound_to_its_flow_its_number_and_its_key() {
        let mut cookies = Cookies::new(&mut Random::from_seed(1));
        let (now, irs) = (Instant::START + Duration::from_secs(1000), Seq(5));
        let offer = Offer { mss: 1460, window_scale: Some(7), sack: true, ecn: false };
        let iss = cookies.bake(flow(1), irs, offer, false, now).unwrap();
        assert_eq!(cookies.check(flow(1), irs, iss, None, now), Some(offer));
        assert_eq!(cookies.check(flow(2), irs, iss, None, now), None);
        assert_eq!(cookies.check(flow(1), Seq(6), iss, None, now), None);
        assert_eq!(cookies.check(flow(1), irs, iss + 1, None, now), None);
        // Another offer cannot be put in.
        assert_eq!(cookies.check(flow(1), irs, Seq(iss.0 ^ (1 << HASH_BITS)), None, now), None);
        let other = Cookies::new(&mut Random::from_seed(2));
        assert_eq!(other.check(flow(1), irs, iss, None, now), None);
    }

    #[test]
    fn timestamps_must_echo_ours_from_the_last_two_minutes() {
        let mut cookies = Cookies::new(&mut Random::from_seed(1));
        let now = Instant::START + Duration::from_secs(1000);
        let offer = Offer { mss: 1460, window_scale: None, sack: false, ecn: false };
        let iss = cookies.bake(flow(1), Seq(5), offer, true, now).unwrap();
        let check = |echo: u32| cookies.check(flow(1), Seq(5), iss, Some(Timestamp { value: 1, echo }), now);
        let clock = isn::timestamp(flow(1).timestamp_offset(), now);
        assert_eq!(check(clock), Some(offer));
        assert_eq!(check(clock - 127_000), Some(offer));
        assert_eq!(check(clock - 129_000), None);
        assert_eq!(check(clock + 1), None);
        // Timestamps that were offered cannot be left away.
        assert_eq!(cookies.check(flow(1), Seq(5), iss, None, now), None);
    }

    #[test]
    fn ecn_comes_back_where_there_are_timestamps() {
        let mut cookies = Cookies::new(&mut Random::from_seed(1));
        let now = Instant::START + Duration::from_secs(1000);
        let timestamp = Timestamp { value: 1, echo: isn::timestamp(flow(1).timestamp_offset(), now) };
        for ecn in [false, true] {
            let offer = Offer { mss: 1460, window_scale: Some(7), sack: true, ecn };
            let iss = cookies.bake(flow(1), Seq(5), offer, true, now).unwrap();
            assert_eq!(cookies.check(flow(1), Seq(5), iss, Some(timestamp), now), Some(offer));
            // It cannot be put in or left away.
            let forged = Seq(iss.0 ^ ECN);
            assert_eq!(cookies.check(flow(1), Seq(5), forged, Some(timestamp), now), None);
            let iss = cookies.bake(flow(1), Seq(5), offer, false, now).unwrap();
            assert_eq!(cookies.check(flow(1), Seq(5), iss, None, now), Some(Offer { ecn: false, ..offer }));
        }
    }

    #[test]
    fn guesses_are_not_taken() {
        let mut cookies = Cookies::new(&mut Random::from_seed(3));
        let mut random = Random::from_seed(4);
        let now = Instant::START + Duration::from_secs(1000);
        cookies.bake(flow(1), Seq(5), Offer { mss: 1460, window_scale: None, sack: false, ecn: false }, false, now);
        let taken = (0..100_000).filter(|_| {
            let (irs, iss) = (Seq(random.next_u32()), Seq(random.next_u32()));
            cookies.check(flow(9), irs, iss, None, now).is_some()
        });
        assert_eq!(taken.count(), 0);
    }
}
