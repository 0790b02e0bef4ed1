//! What part of its ratio each server gets: slow start, passive health, and the speed of its answers.
//!
//! Sans-IO, on the lane that runs the monitors, which is the board's one writer: call [`Shares::on_timeout`] when [`Shares::poll_at`] has come. Lanes note how their
//! connections fare, each in its own row; this sums them up and publishes shares, which every algorithm multiplies with the ratio. A share never falls below
//! [`Share::LEAST`]: a server that is lowered goes on to get a trickle, by which it proves itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::balance::evidence::Evidence;
use crate::balance::{Algorithm, Board, Loads, Pool, Share, Slot, State};
use crate::base::{Duration, Instant, PoolId};

/// What lowers the shares of a pool's servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// How long the share of a server that came up, or that a reload brought, takes to grow from the least to the whole.
    pub slow_start: Option<Duration>,
    /// What failures of live connections do.
    pub passive: Passive,
}

/// What failures of live connections do to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passive {
    /// Nothing.
    #[default]
    Off,
    /// They lower its share.
    Share,
    /// They do, and take the server out for a time when it has hardly any left.
    Down(Ejection),
}

/// How a server is taken out by failures of live connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// For how long; so much more each time in a row, up to [`TIMES_MAX`] times as long.
    pub time: Duration,
    /// What part of the pool's enabled servers may be out at once, in percent, rounded down.
    pub percent_max: u8,
}

/// A server that was taken out often is out for so many times as long as at first.
pub const TIMES_MAX: u32 = 10;

/// How often shares follow what was seen.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// Most rows of servers that one call looks at, over all lanes; the next call goes on. Some 20 µs.
const ROWS_MAX: usize = 2048;

/// So many connections weigh as much as all that was known of a server before.
const MEMORY: f64 = 4.0;

/// So many answers weigh as much as the time that was known before.
const ANSWERS_MEMORY: f64 = 16.0;

/// Without a failure for so long, trust grows by itself, from nothing to all within [`RECOVERY`].
const QUIET: Duration = Duration::from_secs(10);
const RECOVERY: Duration = Duration::from_secs(60);

/// At this much trust a server that may be is taken out: seven failures in a row without a success, where all was well before.
const TRUST_OUT: f64 = 0.25;
/// How much it has when it is back.
const TRUST_BACK: f64 = 0.5;

/// All servers' shares.
#[derive(Debug)]
pub struct Shares {
    board: Arc<Board>,
    loads: Arc<Loads>,
    pools: HashMap<PoolId, Watch>,
    servers: Vec<Watched>,
    /// The one to look at next, in this round.
    next: usize,
    /// When the round began, or when the next one begins.
    round: Instant,
    is_configured: bool,
}

/// A pool whose servers' shares change.
#[derive(Debug)]
struct Watch {
    sharing: Sharing,
    by_speed: bool,
    /// The shortest time to an answer, in microseconds, of the last round and of this one so far.
    fastest: f64,
    fastest_next: f64,
    /// Servers that may be out at once, and that are.
    out_max: usize,
    out: usize,
}

/// A server whose share changes.
#[derive(Debug)]
struct Watched {
    pool: PoolId,
    slot: Slot,
    seen: Evidence,
    looked_at: Instant,
    was_down: bool,
    /// Since when it warms up.
    warms_since: Option<Instant>,
    /// The part of its connections that went well, the last ones counting most.
    trust: f64,
    failed_at: Option<Instant>,
    /// Microseconds to an answer, averaged.
    answer: Option<f64>,
    out_until: Option<Instant>,
    times_out: u32,
}

impl Shares {
    /// No servers yet. The board's one writer, beside the monitors of the same lane, is this.
    pub fn new(board: Arc<Board>, loads: Arc<Loads>) -> Self {
        let (pools, servers) = (HashMap::new(), Vec::new());
        Self { board, loads, pools, servers, next: 0, round: Instant::START, is_configured: false }
    }

    /// Takes over the pools of a new configuration; servers that stay keep what is known of them. One that is new, but for the first configuration, or enabled
    /// anew begins its slow start. Costs a pass over all servers.
    pub fn configure<'a>(&mut self, pools: impl Iterator<Item = &'a Arc<Pool>>, now: Instant) {
        let mut old: HashMap<Slot, Watched> = self.servers.drain(..).map(|server| (server.slot, server)).collect();
        let mut fastest: HashMap<PoolId, f64> = self.pools.drain().map(|(id, pool)| (id, pool.fastest)).collect();
        let mut known = HashSet::new();
        for pool in pools {
            let watch = Watch::of(pool, fastest.remove(&pool.id));
            if !watch.has_use() {
                continue;
            }
            for server in pool.servers.iter().filter(|server| server.state == State::Enabled) {
                if !known.insert(server.slot) {
                    continue;
                }
                let watched = old.remove(&server.slot).unwrap_or_else(|| {
                    let warms = self.is_configured && watch.sharing.slow_start.is_some();
                    Watched::new(pool.id, server.slot, self.loads.evidence(server.slot), warms, now)
                });
                self.servers.push(watched);
            }
            self.pools.insert(pool.id, watch);
        }
        for slot in old.keys() {
            self.board.publish_share(*slot, Share::FULL);
            self.board.publish_out(*slot, false);
        }
        for server in &self.servers {
            if let Some(pool) = self.pools.get_mut(&server.pool) {
                pool.out += usize::from(server.out_until.is_some());
            }
        }
        self.is_configured = true;
        (self.next, self.round) = (0, now);
        // Lanes may be about to use what is new: it has its little share from the beginning.
        for at in 0..self.servers.len() {
            self.look(at, now);
        }
        self.round = now + INTERVAL;
    }

    /// When [`on_timeout`](Self::on_timeout) is wanted next; never where no share changes.
    pub fn poll_at(&self) -> Option<Instant> {
        (!self.servers.is_empty()).then_some(self.round)
    }

    /// Looks at some servers; when all have been looked at, the next round is due after [`INTERVAL`].
    pub fn on_timeout(&mut self, now: Instant) {
        if self.poll_at().is_none_or(|at| at > now) {
            return;
        }
        let some = (ROWS_MAX / self.loads.lanes().max(1)).max(1);
        let end = (self.next + some).min(self.servers.len());
        for at in self.next..end {
            self.look(at, now);
        }
        self.next = end;
        if end == self.servers.len() {
            (self.next, self.round) = (0, now + INTERVAL);
            for pool in self.pools.values_mut() {
                pool.fastest = std::mem::replace(&mut pool.fastest_next, f64::INFINITY);
            }
        }
    }

    /// Follows what was seen of one server, and publishes its share.
    fn look(&mut self, at: usize, now: Instant) {
        let Some(server) = self.servers.get_mut(at) else { return };
        let Some(pool) = self.pools.get_mut(&server.pool) else { return };
        let sum = self.loads.evidence(server.slot);
        let new = sum.since(&server.seen);
        server.seen = sum;
        let lasted = now - server.looked_at;
        server.looked_at = now;
        server.on_answers(&new);
        if !self.board.verdict(server.slot).is_usable() {
            server.was_down = true;
            // What comes up begins with little, before anybody can see that it is up.
            let share = if pool.sharing.slow_start.is_some() { Share::LEAST } else { Share::FULL };
            self.board.publish_share(server.slot, share);
            return;
        }
        if std::mem::take(&mut server.was_down) {
            server.begin_anew(pool, now);
            // A monitor's word is newer than what failed before.
            server.trust = 1.0;
        }
        match pool.sharing.passive {
            Passive::Off => server.trust = 1.0,
            Passive::Share => server.judge(&new, lasted, now),
            Passive::Down(ejection) => server.judge_and_eject(&new, lasted, ejection, pool, now),
        }
        if pool.sharing.passive == Passive::Off || pool.sharing.passive == Passive::Share {
            pool.out -= usize::from(server.out_until.take().is_some());
        }
        let share = server.warmth(pool, now) * server.trust * server.trust * server.speed(pool);
        self.board.publish_share(server.slot, Share::of(share));
        self.board.publish_out(server.slot, server.out_until.is_some());
    }
}

impl Watch {
    fn of(pool: &Pool, fastest: Option<f64>) -> Self {
        let enabled = pool.servers.iter().filter(|server| server.state == State::Enabled).count();
        let out_max = match pool.sharing.passive {
            Passive::Off | Passive::Share => 0,
            Passive::Down(ejection) => enabled * usize::from(ejection.percent_max) / 100,
        };
        Self {
            sharing: pool.sharing,
            by_speed: pool.algorithm == Algorithm::Fastest,
            fastest: fastest.unwrap_or(f64::INFINITY),
            fastest_next: f64::INFINITY,
            out_max,
            out: 0,
        }
    }

    /// Whether any share of it can change.
    fn has_use(&self) -> bool {
        self.by_speed || self.sharing != Sharing::default()
    }
}

impl Watched {
    fn new(pool: PoolId, slot: Slot, seen: Evidence, warms: bool, now: Instant) -> Self {
        Self {
            pool,
            slot,
            seen,
            looked_at: now,
            was_down: false,
            warms_since: warms.then_some(now),
            trust: 1.0,
            failed_at: None,
            answer: None,
            out_until: None,
            times_out: 0,
        }
    }

    /// It has come up, or is back.
    fn begin_anew(&mut self, pool: &mut Watch, now: Instant) {
        self.warms_since = pool.sharing.slow_start.is_some().then_some(now);
        self.failed_at = None;
        pool.out -= usize::from(self.out_until.take().is_some());
    }

    fn on_answers(&mut self, new: &Evidence) {
        if new.answers == 0 {
            return;
        }
        let answers = new.answers as f64;
        let mean = (new.answer_micros as f64 / answers).max(1.0);
        let before = self.answer.unwrap_or(mean);
        self.answer = Some(before + (mean - before) * answers / (answers + ANSWERS_MEMORY));
    }

    /// What part went well, and what time makes good.
    fn judge(&mut self, new: &Evidence, lasted: Duration, now: Instant) {
        let all = (new.successes + new.failures) as f64;
        if all > 0.0 {
            let part = new.successes as f64 / all;
            self.trust += (part - self.trust) * all / (all + MEMORY);
        }
        if new.failures > 0 {
            self.failed_at = Some(now);
        } else if self.failed_at.is_none_or(|failed_at| now - failed_at >= QUIET) {
            self.trust += lasted.as_secs_f64() / RECOVERY.as_secs_f64();
        }
        self.trust = self.trust.clamp(0.0, 1.0);
        // What an average only comes near to.
        if self.trust > 0.99 && new.failures == 0 {
            self.trust = 1.0;
            self.times_out = 0;
        }
    }

    fn judge_and_eject(
        &mut self,
        new: &Evidence,
        lasted: Duration,
        ejection: Ejection,
        pool: &mut Watch,
        now: Instant,
    ) {
        match self.out_until {
            Some(until) if until > now => {}
            Some(_) => {
                self.begin_anew(pool, now);
                self.trust = TRUST_BACK;
                self.failed_at = Some(now);
            }
            None => {
                self.judge(new, lasted, now);
                if new.failures > 0 && self.trust <= TRUST_OUT && pool.out < pool.out_max {
                    self.times_out = (self.times_out + 1).min(TIMES_MAX);
                    self.out_until = Some(now + ejection.time.saturating_mul(self.times_out));
                    pool.out += 1;
                }
            }
        }
    }

    /// How far its slow start has come.
    fn warmth(&mut self, pool: &Watch, now: Instant) -> f64 {
        let (Some(since), Some(time)) = (self.warms_since, pool.sharing.slow_start) else { return 1.0 };
        let part = (now - since).as_secs_f64() / time.as_secs_f64().max(0.001);
        if part >= 1.0 {
            self.warms_since = None;
        }
        part.min(1.0)
    }

    /// The fastest server's time to an answer by its own, where the pool goes by that: who answers in half the time gets twice as many. So nobody is stampeded for
    /// being the fastest by little.
    fn speed(&self, pool: &mut Watch) -> f64 {
        let Some(answer) = self.answer.filter(|_| pool.by_speed) else { return 1.0 };
        pool.fastest_next = pool.fastest_next.min(answer);
        (pool.fastest.min(answer) / answer).min(1.0)
    }
}

#[cfg(test)]
mod tests;
