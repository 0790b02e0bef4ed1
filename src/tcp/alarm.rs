//! What time does to a connection: retransmission (RFC 6298), window probes (RFC 9293 3.8.6.1), keepalive (3.8.4), user timeout (3.8.3).

use crate::base::Instant;
use crate::tcp::Close;
use crate::tcp::connection::{Connection, Env};
use crate::tcp::rtt::RTO_MAX;
use crate::tcp::state::State;

/// The earlier of two deadlines.
fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Connection {
    /// Starts or stops probing, as the windows stand now.
    pub(super) fn watch_window(&mut self, env: Env<'_>) {
        let idle = self.sender.flight() == 0 && self.sender.unsent() && self.state.is_synchronized();
        if idle && self.over.is_none() && !self.ecn.is_held() && self.plan_is_blocked() {
            // Probing replaces retransmission: what is outstanding can only be an earlier probe.
            self.retransmit_at = None;
            let wait = self.rtt.rto().saturating_mul(1 << self.persist_backoff).min(RTO_MAX);
            self.persist_at.get_or_insert(env.now + wait);
        } else {
            self.persist_at = None;
        }
    }

    fn plan_is_blocked(&self) -> bool {
        self.sender.next(self.budget()).is_none() && !self.window_probe
    }

    /// When this connection wants [`on_timeout`](Self::on_timeout) next.
    pub(super) fn next_deadline(&self, env: Env<'_>) -> Option<Instant> {
        let user = self.unanswered_since.map(|since| since + env.settings.user_timeout);
        let board = self.selective.as_ref().map(|selective| &selective.board);
        let (reorder_at, probe_at) = board.map_or((None, None), |board| (board.reorder_at, board.probe_at));
        // One by one: after every segment and every call of the user, a loop over an array costs twice as much.
        let recovery = sooner(sooner(reorder_at, probe_at), sooner(self.retransmit_at, self.persist_at));
        sooner(recovery, sooner(self.receiver.ack_at, sooner(self.keepalive_at(env), user)))
    }

    fn keepalive_at(&self, env: Env<'_>) -> Option<Instant> {
        let idle = env.settings.keepalive?;
        let quiet = self.state.is_synchronized() && !self.sender.outstanding() && self.persist_at.is_none();
        (quiet && self.over.is_none()).then(|| {
            self.last_received + idle + env.settings.keepalive_interval.saturating_mul(self.keepalive_probes.into())
        })
    }

    pub(super) fn on_timeout(&mut self, env: Env<'_>) {
        let now = env.now;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.unanswered_since.map(|since| since + env.settings.user_timeout)) {
            env.counters.timed_out.increment();
            return self.end(Close::TimedOut);
        }
        self.receiver.on_timeout(now);
        self.on_selective_timeout(env);
        if due(self.retransmit_at) {
            self.on_retransmission_timeout(env);
        }
        if due(self.persist_at) {
            if env.memory.is_short() && self.has_been_shut_out(env) {
                env.counters.shut_windows_ended.increment();
                return self.end(Close::TimedOut);
            }
            self.persist_at = None;
            self.persist_backoff = (self.persist_backoff + 1).min(16);
            self.window_probe = true;
        }
        if due(self.keepalive_at(env)) {
            if u32::from(self.keepalive_probes) >= env.settings.keepalive_probes.min(u8::MAX.into()) {
                env.counters.timed_out.increment();
                return self.end(Close::TimedOut);
            }
            self.keepalive_probes += 1;
            self.keepalive_probe = true;
        }
    }

    /// Whether the peer has held its window shut for the user timeout, about, as the probes tell that have been answered.
    ///
    /// RFC 9293 3.8.6.1 lets such a connection live for as long as it answers, and so do we while there is memory for all. When it is scarce, whoever pins
    /// what was written for it is let go: RFC 6429 3 leaves that to us.
    fn has_been_shut_out(&self, env: Env<'_>) -> bool {
        let probed = self.rtt.rto().saturating_mul((1 << self.persist_backoff) - 1);
        probed >= env.settings.user_timeout
    }

    /// The timers of RFC 8985: reordering, then the probe of the tail, which puts off the retransmission timer.
    fn on_selective_timeout(&mut self, env: Env<'_>) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= env.now);
        let srtt = self.rtt.srtt();
        let Some(selective) = &mut self.selective else { return };
        if due(selective.board.reorder_at) {
            let answer = selective.on_reordering_timeout(srtt, self.path.probe(), &mut self.recovery, env);
            if answer.lost {
                self.timing = None;
                self.on_path_loss(answer.only_the_probe, env);
            }
        }
        let Some(selective) = &mut self.selective else { return };
        if due(selective.board.probe_at) {
            selective.board.probe_at = None;
            selective.board.probe_wanted = true;
            self.retransmit_at = Some(env.now + self.rtt.rto());
        }
    }

    fn on_retransmission_timeout(&mut self, env: Env<'_>) {
        if self.ecn.release() && !self.sender.outstanding() {
            // Nothing is lost: new data was waiting.
            self.retransmit_at = None;
            return;
        }
        env.counters.retransmission_timeouts.increment();
        let flight = self.sender.flight();
        self.timing = None;
        let first = self.rtt.back_off();
        if matches!(self.state, State::SynSent | State::SynReceived) {
            self.syn_wanted = true;
        } else {
            let explained = self.on_path_timeout(env);
            if let Some(selective) = &mut self.selective {
                if explained {
                    selective.on_explained_timeout(self.rtt.srtt(), &mut self.recovery, env);
                } else {
                    selective.on_timeout(first, self.rtt.srtt(), &mut self.recovery, env);
                }
            } else {
                self.recovery.on_timeout(self.sender.snd_max, flight, first && !explained);
                // Everything in flight is taken for lost and sent again as the window grows.
                self.sender.snd_nxt = self.sender.snd_una;
                self.retransmit = false;
            }
        }
        self.retransmit_at = Some(env.now + self.rtt.rto());
        env.tracer.timeout(self, flight, env.now);
    }
}
