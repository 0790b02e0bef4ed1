//! Loss detection and congestion control: RFC 5681 with NewReno (RFC 6582), limited transmit (RFC 3042) and an initial window of ten segments (RFC 6928).
//!
//! The window grows and shrinks as NewReno's or, by default, as `cubic` and `hystart` say.
//! [`Recovery`] says how much may be in flight; nothing else knows cwnd. Losses are found here where there is no SACK, and by `selective` where there is.

use crate::base::{Duration, Instant};
use crate::tcp::Congestion;
use crate::tcp::cubic::Cubic;
use crate::tcp::hystart::HyStart;
use crate::wire::Seq;

/// RFC 6928 2.
const INITIAL_SEGMENTS: u32 = 10;
/// RFC 5681 3.2.
const DUPLICATES: u8 = 3;

/// RFC 3465 2.2 and RFC 9406 4.2: segments that an acknowledgement adds at most in slow start, so that a lost one causes no burst.
const LIMIT_RENO: u32 = 2;
const LIMIT_HYSTART: u32 = 8;

/// How CUBIC's window has come to be what it is.
#[derive(Clone, Copy, Debug)]
struct Curve {
    cubic: Cubic,
    hystart: HyStart,
}

impl Curve {
    fn new() -> Self {
        Self { cubic: Cubic::default(), hystart: HyStart::new() }
    }
}

/// What an acknowledgement says about losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Nothing,
    /// The segment at SND.UNA is lost: send it again.
    Retransmit,
}

/// Everything that a reduction changes, for taking it back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    curve: Option<Curve>,
    cwnd: u32,
    ssthresh: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Recovery {
    /// From the first growth or reduction on: most connections have little to say and never come to either.
    curve: Option<Box<Curve>>,
    mss: u32,
    cwnd: u32,
    ssthresh: u32,
    /// Bytes acknowledged since cwnd last grew in congestion avoidance.
    acknowledged: u32,
    /// SND.MAX when the last loss was noticed (RFC 6582's "recover").
    recover: Option<Seq>,
    duplicates: u8,
    congestion: Congestion,
    fast: bool,
    /// `recover` ends a window that was reduced for a mark, and in which nothing was sent twice.
    marked: bool,
    /// The window has been reduced, and the peer has not been told (CWR).
    reduced: bool,
}

impl Recovery {
    pub(super) fn new(mss: u32, congestion: Congestion) -> Self {
        Self {
            curve: None,
            mss,
            cwnd: initial_window(mss),
            ssthresh: u32::MAX,
            acknowledged: 0,
            recover: None,
            duplicates: 0,
            congestion,
            fast: false,
            marked: false,
            reduced: false,
        }
    }

    fn curve(&mut self) -> &mut Curve {
        self.curve.get_or_insert_with(|| Box::new(Curve::new()))
    }

    /// Bytes that may be in flight.
    pub(super) fn window(&self) -> u32 {
        // RFC 3042: the first two duplicates each let one new segment out without growing cwnd.
        if self.fast { self.cwnd } else { self.cwnd + u32::from(self.duplicates.min(DUPLICATES - 1)) * self.mss }
    }

    /// cwnd and ssthresh, for whoever looks.
    pub(super) fn windows(&self) -> (u32, u32) {
        (self.cwnd, self.ssthresh)
    }

    /// The window cannot shrink.
    pub(super) fn is_smallest(&self) -> bool {
        self.cwnd <= self.mss
    }

    /// An acknowledgement moved SND.UNA to `ack`: `newly` bytes more, of `flight` that were out. With `echo`, it tells of a router's mark.
    pub(super) fn on_ack(
        &mut self,
        ack: Seq,
        newly: u32,
        flight: u32,
        srtt: Option<Duration>,
        echo: bool,
        now: Instant,
    ) -> Verdict {
        self.duplicates = 0;
        if self.fast {
            let Some(recover) = self.recover else { return Verdict::Nothing };
            if ack.before(recover) {
                // RFC 6582 3.2 step 3, partial acknowledgement: deflate by what left the network, add back one segment.
                self.cwnd = self.cwnd.saturating_sub(newly).max(self.mss);
                if newly >= self.mss {
                    self.cwnd += self.mss;
                }
                return Verdict::Retransmit;
            }
            // Full acknowledgement, option 1: no burst.
            self.fast = false;
            self.cwnd = self.ssthresh.min(flight.saturating_sub(newly).max(self.mss) + self.mss);
            return Verdict::Nothing;
        }
        // A number that is left standing looks like one to come half the sequence space later.
        if self.recover.is_some_and(|recover| ack.after(recover)) {
            (self.recover, self.marked) = (None, false);
        }
        // RFC 3168 6.1.2.
        if !echo {
            self.grow(newly, flight, srtt, now);
        }
        Verdict::Nothing
    }

    /// The acknowledgement up to `ack` tells of a router's mark, while everything up to `snd_max` is out, `flight` bytes before it came. Gives whether the
    /// window is reduced: once for a window of data, and not where a loss has reduced it (RFC 3168 6.1.2).
    pub(super) fn on_echo(&mut self, ack: Seq, snd_max: Seq, flight: u32) -> bool {
        if flight == 0 || self.fast || self.recover.is_some_and(|recover| ack.at_or_before(recover)) {
            return false;
        }
        let target = self.reduce_for_mark(flight);
        self.cwnd = self.cwnd.min(target);
        (self.recover, self.marked) = (Some(snd_max), true);
        true
    }

    /// `newly` bytes have arrived, of `flight` that were out: cwnd grows, unless it was not used.
    pub(super) fn grow(&mut self, newly: u32, flight: u32, srtt: Option<Duration>, now: Instant) {
        // RFC 7661: a window that was not used proves nothing, so it does not grow.
        if flight.saturating_add(self.mss) <= self.cwnd / 2 {
            return;
        }
        let slow_start = self.cwnd < self.ssthresh;
        match self.congestion {
            Congestion::NewReno if slow_start => {
                self.cwnd = self.cwnd.saturating_add(newly.min(LIMIT_RENO * self.mss));
            }
            Congestion::NewReno => {
                self.acknowledged = self.acknowledged.saturating_add(newly);
                if self.acknowledged >= self.cwnd {
                    self.acknowledged -= self.cwnd;
                    self.cwnd = self.cwnd.saturating_add(self.mss);
                }
            }
            Congestion::Cubic if slow_start => {
                let newly = newly.min(LIMIT_HYSTART * self.mss);
                self.cwnd = self.cwnd.saturating_add(self.curve().hystart.growth(newly));
            }
            Congestion::Cubic => {
                let (cwnd, mss) = (self.cwnd, self.mss);
                self.cwnd = self.curve().cubic.grow(cwnd, newly, mss, srtt.unwrap_or_default(), now);
            }
        }
    }

    /// An acknowledgement outside recovery up to `ack`, while everything up to `snd_max` is out, and what it says about the round trip.
    pub(super) fn on_round_trip(&mut self, ack: Seq, snd_max: Seq, round_trip: Option<Duration>) {
        // A window that has never been used has no curve, and needs no end of slow start.
        if self.cwnd < self.ssthresh
            && let Some(curve) = &mut self.curve
            && curve.hystart.on_ack(ack, snd_max, round_trip)
        {
            self.ssthresh = self.cwnd;
        }
    }

    /// Something was lost of `flight` bytes that were out: sets ssthresh and gives it.
    pub(super) fn reduce(&mut self, flight: u32) -> u32 {
        self.lower(flight).max(2 * self.mss)
    }

    /// A router has marked one of `flight` bytes that were out: sets ssthresh and gives what cwnd comes to, which may be one segment (RFC 9438 4.6).
    pub(super) fn reduce_for_mark(&mut self, flight: u32) -> u32 {
        self.lower(flight).max(self.mss)
    }

    fn lower(&mut self, flight: u32) -> u32 {
        let target = match self.congestion {
            Congestion::NewReno => flight / 2,
            Congestion::Cubic => {
                let cwnd = self.cwnd;
                let curve = self.curve();
                curve.hystart = HyStart::new();
                curve.cubic.on_congestion(cwnd, flight)
            }
        };
        self.ssthresh = target.max(2 * self.mss);
        self.acknowledged = 0;
        self.reduced = true;
        target
    }

    /// Whether the peer should be told of a reduction (RFC 3168 6.1.2: whatever its reason).
    pub(super) fn is_reduced(&self) -> bool {
        self.reduced
    }

    /// The peer is being told.
    pub(super) fn on_reduction_told(&mut self) {
        self.reduced = false;
    }

    /// Sets cwnd, to one segment at least.
    pub(super) fn set_cwnd(&mut self, cwnd: u32) {
        self.cwnd = cwnd.max(self.mss);
    }

    /// The loss window after a timeout (RFC 5681 3.1): one segment beyond what is still under way.
    pub(super) fn collapse(&mut self, pipe: u32) {
        self.set_cwnd(pipe.saturating_add(self.mss));
    }

    /// What a reduction is about to change.
    pub(super) fn before(&self) -> Before {
        Before { curve: self.curve.as_deref().copied(), cwnd: self.cwnd, ssthresh: self.ssthresh }
    }

    /// The reduction was wrong: the curve goes on, too, as if it had not been (RFC 9438 4.9).
    pub(super) fn restore(&mut self, Before { curve, cwnd, ssthresh }: Before) {
        (self.curve, self.cwnd, self.ssthresh) = (curve.map(Box::new), cwnd.max(self.cwnd), ssthresh);
    }

    pub(super) fn mss(&self) -> u32 {
        self.mss
    }

    /// A duplicate acknowledgement (RFC 5681 2) of `una`.
    pub(super) fn on_duplicate(&mut self, una: Seq, snd_max: Seq, flight: u32) -> Verdict {
        if self.fast {
            self.cwnd = self.cwnd.saturating_add(self.mss);
            return Verdict::Nothing;
        }
        self.duplicates = self.duplicates.saturating_add(1);
        // RFC 6582 3.2 step 2: these may be echoes of what an earlier recovery sent twice.
        let covered = self.recover.is_some_and(|recover| una.before(recover));
        if self.duplicates != DUPLICATES || (covered && !self.marked) {
            return Verdict::Nothing;
        }
        // RFC 3168 6.1.2: the window in which a loss follows a mark is reduced once.
        if !covered {
            self.reduce(flight);
        }
        self.marked = false;
        self.cwnd = self.ssthresh + u32::from(DUPLICATES) * self.mss;
        self.recover = Some(snd_max);
        self.fast = true;
        Verdict::Retransmit
    }

    /// The retransmission timer fired; `first` when it did so for the first time for this segment.
    pub(super) fn on_timeout(&mut self, snd_max: Seq, flight: u32, first: bool) {
        if first {
            self.reduce(flight);
        }
        self.cwnd = self.mss;
        self.acknowledged = 0;
        self.duplicates = 0;
        self.recover = Some(snd_max);
        self.fast = false;
        self.marked = false;
    }

    /// Nothing was sent for longer than the retransmission timeout (RFC 5681 4.1).
    pub(super) fn on_idle(&mut self) {
        self.restart();
        self.cwnd = self.cwnd.min(initial_window(self.mss));
    }

    fn restart(&mut self) {
        if let Some(curve) = &mut self.curve {
            curve.cubic.restart();
            curve.hystart = HyStart::new();
        }
    }

    /// The segment size has become known.
    pub(super) fn set_mss(&mut self, mss: u32) {
        *self = Self::new(mss, self.congestion);
    }

    /// Segments have another size from now on. That is no congestion: the window stays, in bytes.
    pub(super) fn resize(&mut self, mss: u32) {
        self.mss = mss;
        self.cwnd = self.cwnd.max(mss);
        self.ssthresh = self.ssthresh.max(2 * mss);
    }

    /// RFC 6928 2, for the segments that there are now: nothing has been sent yet.
    pub(super) fn limit_to_initial_window(&mut self) {
        self.cwnd = self.cwnd.min(initial_window(self.mss));
    }

    /// Everything up to `snd_max` is sent again, for no congestion. The duplicates that it brings are none of losses (RFC 6582 3.2 step 2).
    pub(super) fn on_resent(&mut self, snd_max: Seq) {
        if std::mem::take(&mut self.fast) {
            self.cwnd = self.cwnd.min(self.ssthresh);
        }
        self.duplicates = 0;
        (self.recover, self.marked) = (Some(snd_max), false);
    }

    /// RFC 6298 5.7 and RFC 5681 3.1: a lost SYN costs the initial window.
    pub(super) fn on_syn_lost(&mut self) {
        self.cwnd = self.mss;
    }
}

fn initial_window(mss: u32) -> u32 {
    (INITIAL_SEGMENTS * mss).min(14_600.max(2 * mss))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    #[test]
    fn slow_start_doubles_and_avoidance_adds_one_segment_a_window() {
        let mut recovery = Recovery::new(MSS, Congestion::NewReno);
        assert_eq!(recovery.window(), 10 * MSS);
        for i in 1..=10 {
            recovery.on_ack(Seq(i * MSS), MSS, recovery.window(), None, false, Instant::START);
        }
        assert_eq!(recovery.window(), 20 * MSS);
        recovery.ssthresh = 20 * MSS;
        for i in 11..=30 {
            recovery.on_ack(Seq(i * MSS), MSS, recovery.window(), None, false, Instant::START);
        }
        assert_eq!(recovery.window(), 21 * MSS);
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut recovery = Recovery::new(MSS, Congestion::NewReno);
        recovery.on_ack(Seq(100), 100, 100, None, false, Instant::START);
        assert_eq!(recovery.window(), 10 * MSS);
    }

    #[test]
    fn three_duplicates_halve_and_a_full_acknowledgement_ends_it() {
        let mut recovery = Recovery::new(MSS, Congestion::NewReno);
        let (una, max) = (Seq(0), Seq(10 * MSS));
        assert_eq!(recovery.on_duplicate(una, max, 10 * MSS), Verdict::Nothing);
        assert_eq!(recovery.on_duplicate(una, max, 10 * MSS), Verdict::Nothing);
        assert_eq!(recovery.window(), 12 * MSS);
        assert_eq!(recovery.on_duplicate(una, max, 10 * MSS), Verdict::Retransmit);
        assert_eq!(recovery.window(), 8 * MSS);
        assert_eq!(recovery.on_ack(Seq(5 * MSS), 5 * MSS, 10 * MSS, None, false, Instant::START), Verdict::Retransmit);
        assert_eq!(recovery.on_ack(max, 5 * MSS, 5 * MSS, None, false, Instant::START), Verdict::Nothing);
        assert!(recovery.window() <= 5 * MSS);
    }

    #[test]
    fn duplicates_after_a_timeout_start_no_fast_retransmit() {
        let mut recovery = Recovery::new(MSS, Congestion::NewReno);
        recovery.on_timeout(Seq(10 * MSS), 10 * MSS, true);
        assert_eq!(recovery.window(), MSS);
        for _ in 0..5 {
            assert_eq!(recovery.on_duplicate(Seq(0), Seq(10 * MSS), MSS), Verdict::Nothing);
        }
    }

    #[test]
    fn a_mark_reduces_once_a_window_of_data() {
        for (congestion, target) in [(Congestion::NewReno, 5 * MSS), (Congestion::Cubic, 7 * MSS)] {
            let mut recovery = Recovery::new(MSS, congestion);
            let max = Seq(10 * MSS);
            assert!(recovery.on_echo(Seq(MSS), max, 10 * MSS) && recovery.is_reduced());
            recovery.on_reduction_told();
            assert_eq!(recovery.windows(), (target, target));
            assert!(!recovery.on_echo(Seq(5 * MSS), max, 8 * MSS) && !recovery.on_echo(max, max + 1, 3 * MSS));
            assert!(!recovery.is_reduced());
            // What was sent after the reduction has been marked as well.
            recovery.on_ack(max + 1, 1, 5 * MSS, None, true, Instant::START);
            assert_eq!(recovery.windows(), (target, target));
            assert!(recovery.on_echo(max + 1, max + 5 * MSS, 5 * MSS));
        }
    }

    #[test]
    fn a_loss_in_the_window_of_a_mark_is_repaired_and_reduces_no_further() {
        let mut recovery = Recovery::new(MSS, Congestion::NewReno);
        let (una, max) = (Seq(MSS), Seq(10 * MSS));
        recovery.on_echo(una, max, 10 * MSS);
        assert_eq!(recovery.on_duplicate(una, max, 9 * MSS), Verdict::Nothing);
        assert_eq!(recovery.on_duplicate(una, max, 9 * MSS), Verdict::Nothing);
        assert_eq!(recovery.on_duplicate(una, max, 9 * MSS), Verdict::Retransmit);
        assert_eq!(recovery.windows(), (8 * MSS, 5 * MSS));
        assert!(!recovery.on_echo(una + MSS, max, 9 * MSS), "a mark in the window of a loss");
    }

    #[test]
    fn a_reduction_that_was_wrong_leaves_nothing_behind() {
        let mut recovery = Recovery::new(MSS, Congestion::Cubic);
        recovery.ssthresh = 0;
        let grow = |recovery: &mut Recovery, from: u64, until: u64| {
            for millis in (from..until).step_by(10) {
                recovery.grow(MSS, u32::MAX, Some(Duration::from_millis(100)), Instant::from_nanos(millis * 1_000_000));
            }
        };
        recovery.set_cwnd(100 * MSS);
        recovery.reduce(100 * MSS);
        recovery.set_cwnd(70 * MSS);
        grow(&mut recovery, 0, 2000);
        let mut reduced = recovery.clone();
        let before = reduced.before();
        let flight = reduced.windows().0;
        reduced.reduce(flight);
        reduced.collapse(0);
        reduced.restore(before);
        assert_eq!(reduced.windows(), recovery.windows());
        // W_max, K and the epoch are what they were: the same acknowledgements lead to the same window.
        grow(&mut recovery, 2000, 6000);
        grow(&mut reduced, 2000, 6000);
        assert_eq!(reduced.windows(), recovery.windows());
        assert!(reduced.windows().0 > 90 * MSS);
    }

    #[test]
    fn marks_take_the_window_down_to_one_segment() {
        let mut recovery = Recovery::new(MSS, Congestion::NewReno);
        for round in 1..=5 {
            let (cwnd, _) = recovery.windows();
            assert!(recovery.on_echo(Seq(round * 10), Seq(round * 10 + 5), cwnd));
        }
        assert_eq!(recovery.windows(), (MSS, 2 * MSS));
    }

    #[test]
    fn a_recovery_of_long_ago_does_not_forbid_the_next() {
        let mut recovery = Recovery::new(MSS, Congestion::NewReno);
        recovery.on_timeout(Seq(10 * MSS), 10 * MSS, true);
        recovery.on_ack(Seq(11 * MSS), MSS, MSS, None, false, Instant::START);
        let una = Seq(10 * MSS + (1 << 31) + 1);
        let verdicts = [(); 3].map(|()| recovery.on_duplicate(una, una + 10 * MSS, 10 * MSS));
        assert_eq!(verdicts[2], Verdict::Retransmit);
    }
}
