//! What a connection with SACK does about losses: proportional rate reduction (RFC 9937) after those that RACK finds, slow start after a timeout,
//! and taking it back when the echo of a timestamp shows that nothing was lost (RFC 3522, RFC 4015).

use crate::base::Duration;
use crate::tcp::connection::Env;
use crate::tcp::recovery::Recovery;
use crate::tcp::scoreboard::{Blocks, Scoreboard};
use crate::wire::Seq;

/// What made an episode begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// RACK found a loss.
    Loss,
    /// The retransmission timer fired.
    Timeout,
}

/// From a loss until everything that was in flight then has been acknowledged.
#[derive(Clone, Copy, Debug)]
struct Episode {
    cause: Cause,
    until: Seq,
    /// RecoverFS, prr_delivered and prr_out.
    flight: u32,
    delivered: u32,
    out: u32,
    /// cwnd and ssthresh as they were, until they are known to be rightly reduced.
    before: Option<(u32, u32)>,
    /// The first segment that was sent again, and by our clock when.
    first: Option<(Seq, u32)>,
}

/// An acknowledgement, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack<'a> {
    pub(super) ack: Seq,
    pub(super) blocks: &'a Blocks,
    /// It moves SND.UNA.
    pub(super) moves: bool,
    /// It repeats the one before and carries nothing, not even blocks.
    pub(super) bare: bool,
    /// The echoed timestamp, and how long ago our clock showed it.
    pub(super) echo: Option<u32>,
    pub(super) age: Option<Duration>,
    pub(super) srtt: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Selective {
    pub(super) board: Scoreboard,
    episode: Option<Episode>,
}

impl Selective {
    pub(super) fn new(una: Seq) -> Self {
        Self { board: Scoreboard::new(una), episode: None }
    }

    pub(super) fn is_recovering(&self) -> bool {
        self.episode.is_some()
    }

    /// Gives whether something was found lost.
    pub(super) fn on_ack(&mut self, ack: Ack<'_>, control: &mut Recovery, env: Env<'_>) -> bool {
        let out = self.board.out();
        let delivered = self.board.on_ack(ack.ack, ack.blocks, ack.age, env.now);
        self.board.probe_wanted = false;
        if delivered.duplicate.is_some() {
            env.counters.duplicate_data_reported.increment();
            self.board.on_duplicate();
        }
        if self.board.probe_repaired(ack.ack, delivered.duplicate, ack.bare) && self.episode.is_none() {
            // RFC 8985 7.4: the loss that the probe repaired counts like any other.
            let ssthresh = control.reduce(out);
            control.set_cwnd(ssthresh);
        }
        if ack.moves {
            self.judge(ack, control, env);
        }
        let lost = self.board.detect(self.episode.is_some(), ack.srtt, env.now);
        let finished = self.episode.is_some_and(|episode| ack.ack.at_or_after(episode.until));
        if finished {
            self.finish(control);
        }
        if lost > 0 && self.episode.is_none() {
            self.begin(Cause::Loss, out, control, env);
        }
        match &mut self.episode {
            Some(Episode { cause: Cause::Timeout, .. }) => control.grow(delivered.bytes, u32::MAX, ack.srtt, env.now),
            Some(episode) => {
                episode.delivered = episode.delivered.saturating_add(delivered.bytes);
                let safe = ack.moves && lost == 0;
                let allowance = episode.allowance(self.board.pipe(), delivered.bytes, safe, control);
                control.set_cwnd(self.board.pipe().saturating_add(allowance));
            }
            None if ack.moves && !finished => {
                control.grow(delivered.bytes, out, ack.srtt, env.now);
                control.on_round_trip(ack.ack, self.board.end(), delivered.round_trip);
            }
            None => {}
        }
        if self.episode.is_some() || self.board.has_holes() || self.board.is_empty() {
            // RFC 8985 7.2: where there are holes, RACK finds what is lost; where nothing is out, there is nothing to probe.
            self.board.probe_at = None;
        }
        lost > 0
    }

    /// The reordering timer fired. Gives whether something was found lost.
    pub(super) fn on_reordering_timeout(
        &mut self,
        srtt: Option<Duration>,
        control: &mut Recovery,
        env: Env<'_>,
    ) -> bool {
        let out = self.board.out();
        let lost = self.board.detect(self.episode.is_some(), srtt, env.now) > 0;
        if lost && self.episode.is_none() {
            self.begin(Cause::Loss, out, control, env);
        }
        if let Some(episode) = self.episode.filter(|episode| episode.cause == Cause::Loss) {
            let allowance = episode.allowance(self.board.pipe(), 0, false, control);
            control.set_cwnd(self.board.pipe().saturating_add(allowance));
        }
        lost
    }

    /// The retransmission timer fired; `first` when it did so for the first time for this segment.
    pub(super) fn on_timeout(&mut self, first: bool, srtt: Option<Duration>, control: &mut Recovery, env: Env<'_>) {
        let out = self.board.out();
        self.board.on_timeout(srtt, env.now);
        if first || self.episode.is_none_or(|episode| episode.cause == Cause::Loss) {
            self.begin(Cause::Timeout, out, control, env);
        }
        // RFC 5681 3.1: one segment. What is still thought to be under way does not keep it from leaving.
        control.collapse(self.board.pipe());
    }

    fn begin(&mut self, cause: Cause, out: u32, control: &mut Recovery, env: Env<'_>) {
        let before = Some(control.windows());
        // RFC 5681 3.1: a second loss in one episode is the same congestion.
        if self.episode.is_none() {
            control.reduce(out);
        }
        if cause == Cause::Loss {
            env.counters.fast_retransmits.increment();
        }
        let flight = out.max(1);
        let until = self.board.end();
        self.episode = Some(Episode { cause, until, flight, delivered: 0, out: 0, before, first: None });
    }

    fn finish(&mut self, control: &mut Recovery) {
        if self.episode.take().is_some_and(|episode| episode.cause == Cause::Loss) {
            let (_, ssthresh) = control.windows();
            control.set_cwnd(ssthresh);
        }
        self.board.on_recovered();
    }

    /// RFC 3522: the acknowledgement of what was sent again echoes a timestamp from before that, so the first transmission had arrived.
    fn judge(&mut self, ack: Ack<'_>, control: &mut Recovery, env: Env<'_>) {
        let Some(episode) = &mut self.episode else { return };
        let Some((start, clock)) = episode.first.filter(|(start, _)| ack.ack.after(*start)) else { return };
        let Some(before) = episode.before.take() else { return };
        if ack.echo.is_some_and(|echo| Seq(echo).before(Seq(clock))) {
            env.counters.spurious_recoveries.increment();
            control.restore(before);
            self.board.forgive();
            self.episode = None;
        } else {
            episode.first = Some((start, clock));
        }
    }

    /// `len` bytes have left, again if they begin at `again`; our clock shows `clock`.
    pub(super) fn on_sent(&mut self, len: u32, again: Option<Seq>, clock: u32) {
        if let Some(episode) = &mut self.episode {
            episode.out = episode.out.saturating_add(len);
            if let (Some(start), None) = (again, episode.first) {
                episode.first = Some((start, clock));
            }
        }
    }
}

impl Episode {
    /// RFC 9937 6: how many bytes may be sent in answer to an acknowledgement that delivered so many.
    fn allowance(&self, pipe: u32, delivered: u32, safe: bool, control: &Recovery) -> u32 {
        let (_, ssthresh) = control.windows();
        let mss = control.mss();
        let count = if pipe > ssthresh {
            let share = u64::from(self.delivered) * u64::from(ssthresh);
            let share = u32::try_from(share.div_ceil(self.flight.into())).unwrap_or(u32::MAX);
            share.saturating_sub(self.out)
        } else {
            let owed = self.delivered.saturating_sub(self.out).max(delivered);
            owed.saturating_add(if safe { mss } else { 0 }).min(ssthresh - pipe)
        };
        // The first segment goes at once.
        if self.out == 0 { count.max(mss) } else { count }
    }
}
