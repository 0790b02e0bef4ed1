//! Which SYNs a lane reads while more frames wait than it can answer: whoever is connected goes first, then whoever asks again.
//!
//! A flood of SYNs that comes faster than a lane can answer fills the receive queue, and a full queue loses everybody's frames. So a breath empties the
//! queue and reads what is no SYN. Where the breath before met too many SYNs, it reads only so many of them; the others it drops unread, which costs a
//! fraction of an answer. It remembers each that it drops: a client sends its SYN again after a second (RFC 6298 2), the same one, and then it is read
//! before others. Forged SYNs do not come again; who sends each of them twice for this, so far apart, has halved his flood.
//!
//! What is remembered is a tag and a time in a table of fixed size, in a place that a keyed hash of the SYN gives. A place that is taken is taken over: at
//! so many dropped in a second as there are places, a client's SYN is still remembered a second later with a chance of 37 %.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::base::{Instant, Random};
use crate::wire::Opening;

/// Most SYNs that a breath reads if there were more in the breath before, and most beside them that have been dropped before. A burst after which there
/// are fewer, as when many clients come at once or the lane has rested, is read whole.
const OPENINGS_MAX: usize = 128;
/// Places to remember dropped SYNs in, 2 bytes each, which are there from the first that is dropped.
const PLACES: usize = 1 << 22;
/// A place holds a tag of so many bits, and the time when it was written above it.
const TAG_BITS: u32 = 10;
const TAG: u64 = (1 << TAG_BITS) - 1;
/// Times count half seconds from 1 to 63 and begin again; zero is never.
const TICK_NANOS: u64 = 500_000_000;
const TICKS: u64 = 63;
/// When a SYN that was dropped is known: from half a second on, as a client waits longer, to 8 s, the third time that it is sent again. Half a minute later it seems to be fresh, until its place
/// is taken over: that is nobody's harm.
const REMEMBERED: std::ops::RangeInclusive<u64> = 2..=16;

/// What to do with a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Read it.
    Read,
    /// Read it: it was dropped before.
    ReadAgain,
    /// Drop it; it is remembered.
    Drop,
}

/// One lane's.
#[derive(Debug)]
pub(super) struct Admission {
    key: (u64, u64),
    places: Vec<u16>,
    /// SYNs of this breath so far, and how many of them it reads.
    met: usize,
    most: usize,
    read_again: usize,
    tick: u64,
}

impl Admission {
    pub(super) fn new(random: &mut Random) -> Self {
        Self {
            key: (random.next_u64(), random.next_u64()),
            places: Vec::new(),
            met: 0,
            most: usize::MAX,
            read_again: 0,
            tick: 1,
        }
    }

    /// A breath begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.most = if self.met > OPENINGS_MAX { OPENINGS_MAX } else { usize::MAX };
        (self.met, self.read_again) = (0, 0);
        self.tick = now.as_nanos() / TICK_NANOS % TICKS + 1;
    }

    /// A SYN has been taken out of the queue.
    pub(super) fn on_opening(&mut self, opening: &Opening<'_>) -> Verdict {
        self.met += 1;
        if self.met <= self.most {
            return Verdict::Read;
        }
        if self.places.is_empty() {
            self.places = vec![0; PLACES];
        }
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(opening.addresses);
        hasher.write(opening.numbers);
        let hash = hasher.finish();
        let tag = hash & TAG;
        let index = usize::try_from(hash >> TAG_BITS).unwrap_or_default() % PLACES;
        let Some(place) = self.places.get_mut(index) else { return Verdict::Read };
        let (was_tag, was) = (u64::from(*place) & TAG, u64::from(*place) >> TAG_BITS);
        let age = (self.tick + TICKS - was) % TICKS;
        if was != 0 && was_tag == tag && REMEMBERED.contains(&age) && self.read_again < OPENINGS_MAX {
            *place = 0;
            self.read_again += 1;
            return Verdict::ReadAgain;
        }
        *place = u16::try_from((self.tick << TAG_BITS) | tag).unwrap_or_default();
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Duration;

    fn ask(admission: &mut Admission, number: u64) -> Verdict {
        admission.on_opening(&Opening { addresses: &[198, 18, 0, 1, 198, 18, 0, 2], numbers: &number.to_be_bytes() })
    }

    /// What becomes of SYNs in one breath.
    fn breath(admission: &mut Admission, at: Duration, numbers: std::ops::Range<u64>) -> [usize; 3] {
        admission.begin(Instant::START + at);
        let mut counts = [0; 3];
        for number in numbers {
            counts[match ask(admission, number) {
                Verdict::Read => 0,
                Verdict::ReadAgain => 1,
                Verdict::Drop => 2,
            }] += 1;
        }
        counts
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// One that is under pressure: the next breath is the first to drop something.
    fn admission(at: Duration) -> Admission {
        let mut admission = Admission::new(&mut Random::from_seed(1));
        assert_eq!(breath(&mut admission, at, 9000..9129), [129, 0, 0]);
        admission
    }

    #[test]
    fn a_single_burst_is_read_whole_and_needs_no_memory() {
        let mut admission = Admission::new(&mut Random::from_seed(1));
        for _ in 0..3 {
            assert_eq!(breath(&mut admission, SECOND, 0..1000), [1000, 0, 0]);
            assert_eq!(breath(&mut admission, SECOND, 0..128), [128, 0, 0]);
        }
        assert!(admission.places.is_empty());
        assert_eq!(breath(&mut admission, SECOND, 0..129), [129, 0, 0]);
        assert_eq!(breath(&mut admission, SECOND, 0..129), [128, 0, 1]);
        assert_eq!(breath(&mut admission, SECOND, 0..130), [128, 0, 2], "the pressure lasts");
    }

    #[test]
    fn who_was_dropped_and_asks_again_is_read_before_others_once() {
        let mut admission = admission(SECOND);
        assert_eq!(breath(&mut admission, SECOND, 0..400), [128, 0, 272]);
        // 128 that nobody knows come first, and strangers behind.
        admission.begin(Instant::START + 2 * SECOND);
        let mut read =
            |numbers: std::ops::Range<u64>| numbers.map(|number| ask(&mut admission, number)).collect::<Vec<_>>();
        assert_eq!(read(1000..1128), [Verdict::Read; 128]);
        assert_eq!(read(1128..1130), [Verdict::Drop; 2]);
        assert_eq!(read(128..256), [Verdict::ReadAgain; 128]);
        assert_eq!(read(256..257), [Verdict::Drop], "there is a bound to them as well");
        // Read once, it is a stranger again.
        admission.begin(Instant::START + 3 * SECOND);
        let mut read = |number| ask(&mut admission, number);
        (2000..2128).for_each(|number| assert_eq!(read(number), Verdict::Read));
        assert_eq!((read(128), read(256)), (Verdict::Drop, Verdict::ReadAgain));
    }

    #[test]
    fn a_dropped_syn_is_remembered_from_half_a_second_to_eight() {
        let cases = [(0, false), (400, false), (1000, true), (3000, true), (7000, true), (8000, true), (9000, false)];
        for (after, known) in cases.into_iter().chain([(30_000, false)]) {
            // From several places of the clock, which begins again after 31.5 s.
            for start in [1, 20, 31, 1000] {
                let start = start * SECOND;
                let mut admission = admission(start);
                assert_eq!(breath(&mut admission, start, 0..129), [128, 0, 1]);
                let again = breath(&mut admission, start + Duration::from_millis(after), 1000..1128);
                assert_eq!(again, [128, 0, 0]);
                let verdict = ask(&mut admission, 128);
                assert_eq!(verdict == Verdict::ReadAgain, known, "after {after} ms from {start:?}");
            }
        }
    }
}
