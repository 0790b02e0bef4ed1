//! All monitors of an engine: when each server is probed, and what its probes come to.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::balance::{Board, Health, Pool, ServerIndex, Slot, State};
use crate::base::{Duration, Instant, Random};
use crate::health::streak::Streak;
use crate::health::{Cause, Counters, Monitor, Probe, ProbeId, Verdict};

/// Most probes under way at once. Beyond it probes that are due wait, first come first served, and are counted.
pub const PROBES_MAX: usize = 1024;

/// Most timers that one [`Monitors::on_timeout`] takes. [`Monitors::poll_at`] stays in the past while there are more.
pub const TIMERS_MAX: usize = 256;

/// All first probes of new servers are sent within this time.
const FIRST_ROUND: Duration = Duration::from_secs(1);

/// The shortest interval and timeout, so that time goes on between two events of one server.
const TIME_MIN: Duration = Duration::from_millis(1);

/// All monitors of an engine.
///
/// What waits for `poll_probe` and `poll_verdict` is bounded by [`PROBES_MAX`] and [`TIMERS_MAX`] as long as both are drained
/// after each call. Every call but `configure` costs the logarithm of the number of servers for each timer or probe it moves.
#[derive(Debug)]
pub struct Monitors {
    board: Arc<Board>,
    random: Random,
    counters: Arc<Counters>,
    /// Ordered, so that a simulation repeats.
    watched: BTreeMap<Slot, Watched>,
    /// When each server that is not in `waiting` wants attention: one entry a server.
    timers: BTreeSet<(Instant, Slot)>,
    /// Servers whose probe is due and finds [`PROBES_MAX`] under way. Empty unless so many are.
    waiting: VecDeque<Slot>,
    running: HashMap<ProbeId, Slot>,
    next_probe: u32,
    probes: VecDeque<Probe>,
    verdicts: VecDeque<Verdict>,
    tally: Tally,
}

/// A server with a monitor.
#[derive(Debug)]
struct Watched {
    pool: Arc<Pool>,
    index: ServerIndex,
    address: SocketAddr,
    monitor: Arc<Monitor>,
    streak: Streak,
    /// Its first probe has not ended yet.
    first: bool,
    phase: Phase,
}

/// Where a server is between two probes. `due` is when the probe should have begun.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Until `due`.
    Resting { due: Instant },
    /// For another server's probe to end.
    Waiting { due: Instant },
    /// A probe is under way.
    Probing { probe: ProbeId, due: Instant, deadline: Instant },
}

/// Monitored servers by verdict.
#[derive(Debug, Default)]
struct Tally {
    up: u64,
    down: u64,
    unknown: u64,
}

impl Monitors {
    /// No monitors yet. The board's one writer is this.
    pub fn new(board: Arc<Board>, random: Random, counters: Arc<Counters>) -> Self {
        Self {
            board,
            random,
            counters,
            watched: BTreeMap::new(),
            timers: BTreeSet::new(),
            waiting: VecDeque::new(),
            running: HashMap::new(),
            next_probe: 0,
            probes: VecDeque::new(),
            verdicts: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    /// Takes over the pools of a new configuration with the monitor of each; servers that stay keep their state.
    ///
    /// A server stays when its slot and its address do. With another monitor it keeps its verdict, so that a reload does not send
    /// clients to a server that is known to be down; its counts begin anew. Probes of servers that left are abandoned, and their
    /// slots become [`Health::Unknown`]. Costs a pass over all servers.
    pub fn configure(&mut self, pools: &[(Arc<Pool>, Option<Monitor>)], now: Instant) {
        let mut old = std::mem::take(&mut self.watched);
        for (pool, monitor) in pools {
            let Some(monitor) = monitor else { continue };
            let monitor = Arc::new(monitor.clone());
            for (index, server) in (0..=u16::MAX).map(ServerIndex).zip(&pool.servers) {
                if server.state == State::Disabled || self.watched.contains_key(&server.slot) {
                    continue;
                }
                let (pool, monitor, address) = (Arc::clone(pool), Arc::clone(&monitor), server.address);
                let watched = match old.remove(&server.slot) {
                    Some(watched) if watched.address == address => {
                        self.keep(watched, pool, index, monitor, server.slot, now)
                    }
                    gone => {
                        if let Some(gone) = gone {
                            self.forget(server.slot, &gone);
                        }
                        let due = self.first_due(&monitor, now);
                        let phase = self.rest_until(server.slot, due);
                        Watched { pool, index, address, monitor, streak: Streak::NEW, first: true, phase }
                    }
                };
                self.watched.insert(server.slot, watched);
            }
        }
        for (slot, gone) in &old {
            self.forget(*slot, gone);
        }
        let kept = &self.watched;
        self.waiting.retain(|slot| kept.get(slot).is_some_and(|server| matches!(server.phase, Phase::Waiting { .. })));
        self.tally = Tally::default();
        for server in self.watched.values() {
            *self.tally.of(server.streak.health()) += 1;
        }
        self.start_waiting(now);
        self.show_gauges();
    }

    /// A probe's connection is established. The lane closes it.
    pub fn on_connected(&mut self, probe: ProbeId, now: Instant) {
        self.on_answer(probe, Ok(()), now);
    }

    /// A probe's connection failed.
    pub fn on_failed(&mut self, probe: ProbeId, cause: Cause, now: Instant) {
        self.on_answer(probe, Err(cause), now);
    }

    /// Starts and times out the probes that are due, at most [`TIMERS_MAX`].
    pub fn on_timeout(&mut self, now: Instant) {
        for _ in 0..TIMERS_MAX {
            if self.poll_at().is_none_or(|at| at > now) {
                break;
            }
            let Some((_, slot)) = self.timers.pop_first() else { break };
            match self.watched.get(&slot).map(|server| server.phase) {
                Some(Phase::Resting { due }) => self.on_due(slot, due, now),
                Some(Phase::Probing { probe, .. }) => {
                    self.probes.push_back(Probe::Abandon(probe));
                    self.on_result(slot, Err(Cause::TimedOut), now);
                }
                Some(Phase::Waiting { .. }) | None => debug_assert!(false, "{slot:?} has a timer"),
            }
        }
        self.show_gauges();
    }

    /// When [`on_timeout`](Self::on_timeout) is wanted next.
    pub fn poll_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next thing to do.
    pub fn poll_probe(&mut self) -> Option<Probe> {
        self.probes.pop_front()
    }

    /// The next change of state.
    pub fn poll_verdict(&mut self) -> Option<Verdict> {
        self.verdicts.pop_front()
    }

    fn on_answer(&mut self, probe: ProbeId, result: Result<(), Cause>, now: Instant) {
        let Some(&slot) = self.running.get(&probe) else {
            self.counters.answers_late.increment();
            return;
        };
        self.on_result(slot, result, now);
        self.show_gauges();
    }

    /// A probe of the server at `slot` is over: judges, rests, and lets the next one begin.
    fn on_result(&mut self, slot: Slot, result: Result<(), Cause>, now: Instant) {
        let Some(server) = self.watched.get_mut(&slot) else { return };
        let Phase::Probing { probe, due, deadline } = server.phase else { return };
        self.running.remove(&probe);
        self.timers.remove(&(deadline, slot));
        match result {
            Ok(()) => self.counters.successes.increment(),
            Err(Cause::Refused) => self.counters.failures_refused.increment(),
            Err(Cause::TimedOut) => self.counters.failures_timed_out.increment(),
            Err(Cause::Unreachable) => self.counters.failures_unreachable.increment(),
            Err(Cause::NoResources) => self.counters.failures_no_resources.increment(),
        }

        let before = server.streak.health();
        let change = match result {
            Err(Cause::NoResources) => None,
            Ok(()) | Err(Cause::Refused | Cause::TimedOut | Cause::Unreachable) => {
                server.streak.on_result(result.is_ok(), &server.monitor)
            }
        };
        let interval = server.monitor.interval.max(TIME_MIN);
        let next = if std::mem::take(&mut server.first) {
            // All first probes were close together. From the second on they spread over the whole interval.
            due + interval / 2 + below(&mut self.random, interval)
        } else {
            due + interval
        };
        // Rounds that were missed are not made up for.
        let due = next.max(now);
        server.phase = Phase::Resting { due };
        self.timers.insert((due, slot));

        if let Some(health) = change {
            self.publish(slot, before, health, result.err());
        }
        self.start_waiting(now);
    }

    fn publish(&mut self, slot: Slot, before: Health, health: Health, cause: Option<Cause>) {
        self.board.publish(slot, health);
        *self.tally.of(before) -= 1;
        *self.tally.of(health) += 1;
        let up = health.is_usable();
        if up {
            self.counters.went_up.increment()
        } else {
            self.counters.went_down.increment()
        }
        let Some(Watched { pool, index, .. }) = self.watched.get(&slot) else { return };
        let server = pool.server(*index).map(|server| server.name.clone()).unwrap_or_default();
        self.verdicts.push_back(Verdict { pool: pool.name.clone(), server, up, cause });
    }

    fn on_due(&mut self, slot: Slot, due: Instant, now: Instant) {
        if self.running.len() < PROBES_MAX {
            self.start(slot, due, now);
        } else {
            self.counters.probes_delayed.increment();
            self.waiting.push_back(slot);
            if let Some(server) = self.watched.get_mut(&slot) {
                server.phase = Phase::Waiting { due };
            }
        }
    }

    fn start_waiting(&mut self, now: Instant) {
        while self.running.len() < PROBES_MAX {
            let Some(slot) = self.waiting.pop_front() else { return };
            if let Some(Phase::Waiting { due }) = self.watched.get(&slot).map(|server| server.phase) {
                self.start(slot, due, now);
            }
        }
    }

    fn start(&mut self, slot: Slot, due: Instant, now: Instant) {
        let probe = self.fresh_probe();
        let Some(server) = self.watched.get_mut(&slot) else { return };
        let deadline = now + server.monitor.timeout.max(TIME_MIN);
        server.phase = Phase::Probing { probe, due, deadline };
        self.timers.insert((deadline, slot));
        self.running.insert(probe, slot);
        self.probes.push_back(Probe::Connect(probe, server.address));
        self.counters.probes.increment();
    }

    /// A number that no probe under way has. Comes back after 4 billion others.
    fn fresh_probe(&mut self) -> ProbeId {
        loop {
            let probe = ProbeId(self.next_probe);
            self.next_probe = self.next_probe.wrapping_add(1);
            if !self.running.contains_key(&probe) {
                return probe;
            }
        }
    }

    fn keep(
        &mut self,
        mut server: Watched,
        pool: Arc<Pool>,
        index: ServerIndex,
        monitor: Arc<Monitor>,
        slot: Slot,
        now: Instant,
    ) -> Watched {
        if *server.monitor != *monitor {
            server.streak.restart();
            if let Phase::Resting { due } = server.phase {
                // A shorter interval begins now, not after the longer one.
                self.timers.remove(&(due, slot));
                let due = self.first_due(&monitor, now).min(due);
                server.phase = self.rest_until(slot, due);
                server.first = true;
            }
        }
        Watched { pool, index, monitor, ..server }
    }

    /// A server left the configuration, was disabled, or moved to another address.
    fn forget(&mut self, slot: Slot, server: &Watched) {
        self.board.publish(slot, Health::Unknown);
        match server.phase {
            Phase::Resting { due } => {
                self.timers.remove(&(due, slot));
            }
            Phase::Waiting { .. } => {}
            Phase::Probing { probe, deadline, .. } => {
                self.timers.remove(&(deadline, slot));
                self.running.remove(&probe);
                self.probes.push_back(Probe::Abandon(probe));
                self.counters.probes_dropped.increment();
            }
        }
    }

    fn rest_until(&mut self, slot: Slot, due: Instant) -> Phase {
        self.timers.insert((due, slot));
        Phase::Resting { due }
    }

    fn first_due(&mut self, monitor: &Monitor, now: Instant) -> Instant {
        now + below(&mut self.random, monitor.interval.clamp(TIME_MIN, FIRST_ROUND))
    }

    fn show_gauges(&self) {
        self.counters.servers_up.set(self.tally.up);
        self.counters.servers_down.set(self.tally.down);
        self.counters.servers_unknown.set(self.tally.unknown);
        self.counters.probes_running.set(self.running.len().try_into().unwrap_or(u64::MAX));
        self.counters.probes_waiting.set(self.waiting.len().try_into().unwrap_or(u64::MAX));
    }
}

impl Tally {
    fn of(&mut self, health: Health) -> &mut u64 {
        match health {
            Health::Up => &mut self.up,
            Health::Down => &mut self.down,
            Health::Unknown => &mut self.unknown,
        }
    }
}

/// A random time below `bound`, which is not zero.
fn below(random: &mut Random, bound: Duration) -> Duration {
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random.below(nanos))
}
