//! What a connection with SACK does about losses and marks: proportional rate reduction (RFC 9937) after marks and losses that RACK finds, slow start
//! after a timeout, and taking it back when the echo of a timestamp shows that nothing was lost (RFC 3522, RFC 4015).

use crate::base::Duration;
use crate::tcp::connection::Env;
use crate::tcp::recovery::{Before, Recovery};
use crate::tcp::scoreboard::{Blocks, Learned, Scoreboard};
use crate::wire::Seq;

/// What made an episode begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// RACK found a loss.
    Loss,
    /// The retransmission timer fired.
    Timeout,
    /// A router has marked a segment (RFC 3168). Nothing is lost.
    Mark,
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
    /// What cwnd comes to.
    target: u32,
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
    /// It tells of a router's mark.
    pub(super) echo_of_mark: bool,
    /// A segment whose loss alone is no sign of congestion (RFC 4821 7.6.2): where it begins and ends.
    pub(super) probe: Option<(Seq, Seq)>,
}

/// What an acknowledgement has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Something was found lost.
    pub(super) lost: bool,
    /// That was nothing but the probe.
    pub(super) only_the_probe: bool,
    /// The window is reduced because of a mark.
    pub(super) marked: bool,
}

#[derive(Debug)]
pub(super) struct Selective {
    pub(super) board: Scoreboard,
    episode: Option<Episode>,
    /// Congestion control as it was before the episode, until it is known to be rightly reduced.
    before: Option<Box<Before>>,
    /// Marks up to here are part of a congestion that has been answered. They are told until what was sent after the answer has arrived.
    answered: Option<Seq>,
}

impl Selective {
    pub(super) fn new(una: Seq, learned: Learned) -> Self {
        Self { board: Scoreboard::new(una, learned), episode: None, before: None, answered: None }
    }

    /// Reads something of each cache line.
    pub(super) fn touch(&self) -> u64 {
        let episode = self.episode.map_or(0, |episode| u64::from(episode.flight));
        self.board.touch() ^ episode ^ u64::from(self.answered.is_some())
    }

    /// There is nothing to remember but what the board has learned.
    pub(super) fn is_at_rest(&self) -> bool {
        self.board.is_at_rest() && self.episode.is_none() && self.answered.is_none()
    }

    /// Something lost is being repaired.
    pub(super) fn is_recovering(&self) -> bool {
        self.episode.is_some_and(|episode| episode.cause != Cause::Mark)
    }

    pub(super) fn on_ack(&mut self, ack: Ack<'_>, control: &mut Recovery, env: Env<'_>) -> Answer {
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
            self.answered = Some(self.board.end());
        }
        if ack.moves {
            self.judge(ack, control, env);
        }
        let lost = self.board.detect(self.is_recovering(), ack.srtt, env.now);
        let finished = self.episode.is_some_and(|episode| ack.ack.at_or_after(episode.until));
        if finished {
            self.finish(control);
        }
        let only_the_probe = lost > 0 && ack.probe.is_some_and(|probe| self.board.is_lost_alone(probe));
        if lost > 0 && !only_the_probe && !self.is_recovering() {
            self.begin(Cause::Loss, out, control, env);
        }
        self.answered = self.answered.filter(|end| ack.ack.at_or_before(*end));
        let marked = ack.echo_of_mark && out > 0 && self.episode.is_none() && self.answered.is_none();
        if marked {
            self.begin(Cause::Mark, out, control, env);
        }
        match &mut self.episode {
            Some(Episode { cause: Cause::Timeout, .. }) if ack.echo_of_mark => {}
            Some(Episode { cause: Cause::Timeout, .. }) => control.grow(delivered.bytes, u32::MAX, ack.srtt, env.now),
            Some(episode) => {
                episode.delivered = episode.delivered.saturating_add(delivered.bytes);
                let safe = ack.moves && lost == 0;
                let allowance = episode.allowance(self.board.pipe(), delivered.bytes, safe, control.mss());
                control.set_cwnd(self.board.pipe().saturating_add(allowance));
            }
            None if ack.moves && !finished => {
                if !ack.echo_of_mark {
                    control.grow(delivered.bytes, out, ack.srtt, env.now);
                }
                control.on_round_trip(ack.ack, self.board.end(), delivered.round_trip);
            }
            None => {}
        }
        if self.is_recovering() || self.board.has_holes() || self.board.is_empty() {
            // RFC 8985 7.2: where there are holes, RACK finds what is lost; where nothing is out, there is nothing to probe.
            self.board.probe_at = None;
        }
        Answer { lost: lost > 0, only_the_probe, marked }
    }

    /// The reordering timer fired. `probe` as in [`Ack`].
    pub(super) fn on_reordering_timeout(
        &mut self,
        srtt: Option<Duration>,
        probe: Option<(Seq, Seq)>,
        control: &mut Recovery,
        env: Env<'_>,
    ) -> Answer {
        let out = self.board.out();
        let lost = self.board.detect(self.is_recovering(), srtt, env.now) > 0;
        let only_the_probe = lost && probe.is_some_and(|probe| self.board.is_lost_alone(probe));
        if lost && !only_the_probe && !self.is_recovering() {
            self.begin(Cause::Loss, out, control, env);
        }
        if let Some(episode) = self.episode.filter(|episode| episode.cause == Cause::Loss) {
            let allowance = episode.allowance(self.board.pipe(), 0, false, control.mss());
            control.set_cwnd(self.board.pipe().saturating_add(allowance));
        }
        Answer { lost, only_the_probe, marked: false }
    }

    /// The retransmission timer fired, and that is a sign of congestion; `first` when it did so for the first time for this segment.
    pub(super) fn on_timeout(&mut self, first: bool, srtt: Option<Duration>, control: &mut Recovery, env: Env<'_>) {
        let out = self.board.out();
        self.board.on_timeout(srtt, env.now);
        if first || self.episode.is_none_or(|episode| episode.cause != Cause::Timeout) {
            self.begin(Cause::Timeout, out, control, env);
        }
        // RFC 5681 3.1: one segment. What is still thought to be under way does not keep it from leaving.
        control.collapse(self.board.pipe());
    }

    /// The retransmission timer fired, and something else explains it: it takes the clock of acknowledgements, and nothing more.
    pub(super) fn on_explained_timeout(&mut self, srtt: Option<Duration>, control: &mut Recovery, env: Env<'_>) {
        self.board.on_timeout(srtt, env.now);
        control.collapse(self.board.pipe());
    }

    fn begin(&mut self, cause: Cause, out: u32, control: &mut Recovery, env: Env<'_>) {
        self.before = Some(Box::new(control.before()));
        let target = match (self.episode, cause) {
            // RFC 5681 3.1, RFC 3168 6.1.2: a second loss in one episode, or one that follows a mark, is the same congestion.
            (Some(episode), _) => episode.target,
            (None, Cause::Mark) => control.reduce_for_mark(out),
            (None, Cause::Loss | Cause::Timeout) => control.reduce(out),
        };
        match cause {
            Cause::Loss => env.counters.fast_retransmits.increment(),
            Cause::Mark => env.counters.mark_reductions.increment(),
            Cause::Timeout => {}
        }
        let flight = out.max(1);
        let until = self.board.end();
        self.answered = Some(until);
        self.episode = Some(Episode { cause, until, flight, delivered: 0, out: 0, target, first: None });
    }

    fn finish(&mut self, control: &mut Recovery) {
        let Some(episode) = self.episode.take() else { return };
        self.before = None;
        if episode.cause != Cause::Timeout {
            control.set_cwnd(episode.target);
        }
        if episode.cause != Cause::Mark {
            self.board.on_recovered();
        }
    }

    /// RFC 3522: the acknowledgement of what was sent again echoes a timestamp from before that, so the first transmission had arrived.
    fn judge(&mut self, ack: Ack<'_>, control: &mut Recovery, env: Env<'_>) {
        // What a mark has reduced was reduced rightly, whatever a probe of the tail finds.
        let Some(episode) = self.episode.as_mut().filter(|episode| episode.cause != Cause::Mark) else { return };
        let Some((start, clock)) = episode.first.filter(|(start, _)| ack.ack.after(*start)) else { return };
        let Some(before) = self.before.take() else { return };
        if ack.echo.is_some_and(|echo| Seq(echo).before(Seq(clock))) {
            env.counters.spurious_recoveries.increment();
            control.restore(*before);
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
    fn allowance(&self, pipe: u32, delivered: u32, safe: bool, mss: u32) -> u32 {
        let count = if pipe > self.target {
            let share = u64::from(self.delivered) * u64::from(self.target);
            let share = u32::try_from(share.div_ceil(self.flight.into())).unwrap_or(u32::MAX);
            share.saturating_sub(self.out)
        } else {
            let owed = self.delivered.saturating_sub(self.out).max(delivered);
            owed.saturating_add(if safe { mss } else { 0 }).min(self.target - pipe)
        };
        // What is lost is sent again at once.
        if self.out == 0 && self.cause == Cause::Loss { count.max(mss) } else { count }
    }
}
