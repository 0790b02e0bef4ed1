//! All monitors of an engine: when each looks at a server, and what its probes come to.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::balance::{Board, Health, ServerIndex, Slot, State};
use crate::base::{Duration, Instant, Random, UnixTime};
use crate::health::checks::{Check, CheckId, Phase, Watched, joined};
use crate::health::probe::Machine;
use crate::health::streak::Streak;
use crate::health::{Answer, Cause, Counters, Kind, Monitor, MonitoredPool, Outcome, Ping, Probe, ProbeId, Verdict};

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
/// What waits for `poll_probe` is bounded by [`PROBES_MAX`] and [`TIMERS_MAX`] as long as it is drained after each call. Verdicts may wait: there is one a server
/// at most, the newest. Every call but `configure` costs the logarithm of the number of servers and monitors for each timer or probe it moves.
#[derive(Debug)]
pub struct Monitors {
    board: Arc<Board>,
    random: Random,
    counters: Arc<Counters>,
    /// Ordered, so that a simulation repeats.
    watched: BTreeMap<Slot, Watched>,
    /// Servers that are watched no more, until that has been told.
    pub(super) gone: BTreeMap<Slot, Watched>,
    pub(super) checks: HashMap<CheckId, Check>,
    next_check: u64,
    /// When each check that is not in `waiting` wants attention: one entry a check.
    timers: BTreeSet<(Instant, CheckId)>,
    /// Checks whose probe is due and finds [`PROBES_MAX`] under way. Empty unless so many are.
    waiting: VecDeque<CheckId>,
    running: HashMap<ProbeId, Running>,
    next_probe: u32,
    probes: VecDeque<Probe>,
    /// Servers of which there is something new, each once.
    pub(super) news: VecDeque<Slot>,
    tally: Tally,
}

/// A probe under way.
#[derive(Debug)]
struct Running {
    check: CheckId,
    machine: Machine,
    is_connected: bool,
}

/// Monitored servers by verdict.
#[derive(Debug, Default)]
struct Tally {
    up: u64,
    maintenance: u64,
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
            gone: BTreeMap::new(),
            checks: HashMap::new(),
            next_check: 0,
            timers: BTreeSet::new(),
            waiting: VecDeque::new(),
            running: HashMap::new(),
            next_probe: 0,
            probes: VecDeque::new(),
            news: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    /// Takes over the pools of a new configuration with the monitors of each; servers that stay keep their state.
    ///
    /// A server stays when its slot and its address do. With other monitors it keeps its verdict until they have decided, so that a reload does not send
    /// clients to a server that is known to be down. A monitor stays by its name; with other settings it keeps its verdict and counts anew. Probes of servers
    /// and monitors that left or changed are abandoned, and slots of servers that left become [`Health::Unknown`]. Costs a pass over all servers.
    pub fn configure(&mut self, pools: &[MonitoredPool], now: Instant) {
        let mut old = std::mem::take(&mut self.watched);
        for monitored in pools.iter().filter(|monitored| !monitored.monitors.is_empty()) {
            for (index, server) in (0..=u16::MAX).map(ServerIndex).zip(&monitored.pool.servers) {
                if server.state == State::Disabled || self.watched.contains_key(&server.slot) {
                    continue;
                }
                let slot = server.slot;
                let known = old.remove(&slot).or_else(|| self.gone.remove(&slot));
                let is_new = known.is_none();
                let mut watched =
                    known.unwrap_or_else(|| Watched::new(Arc::clone(&monitored.pool), index, server.address, now));
                let has_moved = watched.address != server.address;
                if has_moved {
                    self.clear(slot, &mut watched, now);
                    watched.address = server.address;
                }
                watched.pool = Arc::clone(&monitored.pool);
                watched.index = index;
                watched.monitors_up_min = monitored.monitors_up_min;
                let before = std::mem::take(&mut watched.checks);
                watched.checks = self.look(slot, before, &monitored.monitors, now);
                self.watched.insert(slot, watched);
                if is_new || has_moved {
                    self.tell(slot);
                }
            }
        }
        for (slot, mut gone) in old {
            self.clear(slot, &mut gone, now);
            if !std::mem::replace(&mut gone.is_news, true) {
                self.news.push_back(slot);
            }
            self.gone.insert(slot, gone);
        }
        let checks = &self.checks;
        self.waiting.retain(|id| checks.get(id).is_some_and(|check| matches!(check.phase, Phase::Waiting { .. })));
        self.tally = Tally::default();
        for server in self.watched.values() {
            *self.tally.of(server.health) += 1;
        }
        let slots: Vec<Slot> = self.watched.keys().copied().collect();
        for slot in slots {
            self.judge(slot, now);
        }
        self.start_waiting(now);
        self.show_gauges();
    }

    /// A probe's connection is established.
    pub fn on_connected(&mut self, probe: ProbeId, now: Instant, unix: UnixTime) {
        let Some(running) = self.find(probe) else { return };
        running.is_connected = true;
        if let Some(outcome) = running.machine.on_open(unix) {
            self.on_answer(probe, outcome, now);
        }
    }

    /// An echo has come from this address, to what a probe of ours said, or seems to.
    pub fn on_echo(&mut self, from: IpAddr, ping: Ping, now: Instant) {
        // Its lower half says which probe it is.
        let probe = ProbeId(u32::try_from(ping.token & u64::from(u32::MAX)).unwrap_or_default());
        let Some(running) = self.find(probe) else { return };
        if let Some(outcome) = running.machine.on_echo(from, ping) {
            self.on_answer(probe, outcome, now);
        }
    }

    /// The server has said something.
    pub fn on_data(&mut self, probe: ProbeId, bytes: &[u8], now: Instant, unix: UnixTime) {
        let Some(running) = self.find(probe) else { return };
        if let Some(outcome) = running.machine.on_data(bytes, unix) {
            self.on_answer(probe, outcome, now);
        }
    }

    /// The server says no more.
    pub fn on_end(&mut self, probe: ProbeId, now: Instant) {
        let Some(running) = self.find(probe) else { return };
        let outcome = running.machine.on_end();
        self.on_answer(probe, outcome, now);
    }

    /// Hands what a probe says to `take`, which gives how many bytes it took; for less than all come again when there is room.
    pub fn poll_transmit(&mut self, probe: ProbeId, now: Instant, take: impl FnMut(&[u8]) -> usize) {
        let Some(running) = self.running.get_mut(&probe).filter(|running| running.is_connected) else { return };
        if let Err(cause) = running.machine.poll_transmit(take) {
            self.on_answer(probe, Err(cause), now);
        }
    }

    /// A probe's connection failed.
    pub fn on_failed(&mut self, probe: ProbeId, cause: Cause, now: Instant) {
        if self.find(probe).is_some() {
            self.on_answer(probe, Err(cause), now);
        }
    }

    /// Whether a probe has come to no outcome yet. The lane closes the connection of one that has.
    pub fn is_running(&self, probe: ProbeId) -> bool {
        self.running.contains_key(&probe)
    }

    /// Starts and times out the probes that are due, at most [`TIMERS_MAX`].
    pub fn on_timeout(&mut self, now: Instant) {
        for _ in 0..TIMERS_MAX {
            if self.poll_at().is_none_or(|at| at > now) {
                break;
            }
            let Some((_, check)) = self.timers.pop_first() else { break };
            match self.checks.get(&check).map(|check| check.phase) {
                Some(Phase::Resting { due }) => self.on_due(check, due, now),
                Some(Phase::Probing { probe, .. }) => {
                    let connected = self.running.get(&probe).filter(|running| running.is_connected);
                    let cause = connected.map_or(Cause::TimedOut, |running| running.machine.on_timeout());
                    self.probes.push_back(Probe::Abandon(probe));
                    self.on_outcome(check, Err(cause), now);
                }
                Some(Phase::Waiting { .. }) | None => debug_assert!(false, "{check:?} has a timer"),
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

    /// What is new of a server, the one whose news has waited longest. What changed again since then is told once, as it is now.
    pub fn poll_verdict(&mut self, now: Instant) -> Option<Verdict> {
        let slot = self.news.pop_front()?;
        let mut gone = self.gone.remove(&slot);
        let server = self.watched.get_mut(&slot).or(gone.as_mut())?;
        server.is_news = false;
        let before = std::mem::replace(&mut server.told, server.health);
        let findings = server.checks.iter().filter_map(|check| Some(self.checks.get(check)?.finding(now)));
        Some(Verdict {
            pool: server.pool.name.clone(),
            server: server.pool.server(server.index).map(|server| server.name.clone()).unwrap_or_default(),
            slot,
            health: server.health,
            before,
            lasted: now.since(server.since),
            findings: findings.collect(),
        })
    }

    /// A probe under way; counts what concerns none.
    fn find(&mut self, probe: ProbeId) -> Option<&mut Running> {
        let running = self.running.get_mut(&probe);
        if running.is_none() {
            self.counters.answers_late.increment();
        }
        running
    }

    fn on_answer(&mut self, probe: ProbeId, outcome: Outcome, now: Instant) {
        let Some(check) = self.running.get(&probe).map(|running| running.check) else { return };
        self.on_outcome(check, outcome, now);
        self.show_gauges();
    }

    /// A probe is over: judges, rests, and lets the next one begin.
    fn on_outcome(&mut self, id: CheckId, outcome: Outcome, now: Instant) {
        let Some(check) = self.checks.get_mut(&id) else { return };
        let Phase::Probing { probe, due, deadline } = check.phase else { return };
        self.running.remove(&probe);
        self.timers.remove(&(deadline, id));
        self.counters.on_outcome(outcome);

        let is_news = check.note(outcome, now);
        // That says nothing of the server.
        let is_ours = outcome == Err(Cause::NoResources);
        let change = if is_ours { None } else { check.streak.on_result(outcome, &check.monitor) };
        let interval = check.monitor.interval.max(TIME_MIN);
        let next = if std::mem::take(&mut check.first) {
            // All first probes were close together. From the second on they spread over the whole interval.
            due + interval / 2 + below(&mut self.random, interval)
        } else {
            due + interval
        };
        // Rounds that were missed are not made up for.
        let due = next.max(now);
        check.phase = Phase::Resting { due };
        let slot = check.slot;
        self.timers.insert((due, id));

        if is_news {
            self.tell(slot);
        }
        if change.is_some() {
            self.judge(slot, now);
        }
        self.start_waiting(now);
    }

    /// Publishes what the server at `slot` is by its monitors, if that has changed.
    fn judge(&mut self, slot: Slot, now: Instant) {
        let Some(server) = self.watched.get_mut(&slot) else { return };
        let found = server.checks.iter().filter_map(|check| Some(self.checks.get(check)?.streak.health()));
        let Some(health) = joined(found, server.monitors_up_min).filter(|health| *health != server.health) else {
            return;
        };
        let before = std::mem::replace(&mut server.health, health);
        server.since = now;
        self.board.publish(slot, health);
        *self.tally.of(before) -= 1;
        *self.tally.of(health) += 1;
        match health {
            Health::Up => self.counters.went_up.increment(),
            Health::Maintenance => self.counters.went_into_maintenance.increment(),
            Health::Down => self.counters.went_down.increment(),
            Health::Unknown => {}
        }
        self.tell(slot);
    }

    /// There is something new of a server.
    fn tell(&mut self, slot: Slot) {
        let Some(server) = self.watched.get_mut(&slot) else { return };
        if !std::mem::replace(&mut server.is_news, true) {
            self.news.push_back(slot);
        }
    }

    fn on_due(&mut self, id: CheckId, due: Instant, now: Instant) {
        if self.running.len() < PROBES_MAX {
            self.start(id, due, now);
        } else {
            self.counters.probes_delayed.increment();
            self.waiting.push_back(id);
            if let Some(check) = self.checks.get_mut(&id) {
                check.phase = Phase::Waiting { due };
            }
        }
    }

    fn start_waiting(&mut self, now: Instant) {
        while self.running.len() < PROBES_MAX {
            let Some(id) = self.waiting.pop_front() else { return };
            if let Some(Phase::Waiting { due }) = self.checks.get(&id).map(|check| check.phase) {
                self.start(id, due, now);
            }
        }
    }

    fn start(&mut self, id: CheckId, due: Instant, now: Instant) {
        let probe = self.fresh_probe();
        let Some(check) = self.checks.get_mut(&id) else { return };
        let Some(server) = self.watched.get(&check.slot) else { return };
        let deadline = now + check.monitor.timeout.max(TIME_MIN);
        check.phase = Phase::Probing { probe, due, deadline };
        self.timers.insert((deadline, id));
        let target = check.monitor.target(server.address);
        let random = self.random.next_u64();
        let [high, low] = [48, 32].map(|shift| random >> shift & 0xffff);
        let ping = Ping { sequence: u16::try_from(high).unwrap_or_default(), token: low << 32 | u64::from(probe.0) };
        let machine = Machine::new(&check.monitor, target, ping);
        let asked = match check.monitor.kind {
            Kind::Ping => Probe::Ping(probe, target.ip(), ping),
            Kind::Tcp(_) | Kind::Http(_) => Probe::Connect(probe, target),
        };
        self.running.insert(probe, Running { check: id, machine, is_connected: false });
        self.probes.push_back(asked);
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

    /// The checks of a server by its monitors: those of `before` that stay, and new ones. Forgets the others.
    fn look(&mut self, slot: Slot, mut before: Vec<CheckId>, monitors: &[Arc<Monitor>], now: Instant) -> Vec<CheckId> {
        let mut after = Vec::with_capacity(monitors.len());
        for monitor in monitors {
            let is_same = |id: &CheckId| self.checks.get(id).is_some_and(|check| check.monitor.name == monitor.name);
            let id = match before.iter().position(is_same) {
                Some(at) => before.swap_remove(at),
                None => self.fresh_check(slot, monitor, now),
            };
            self.keep(id, monitor, now);
            after.push(id);
        }
        for gone in before {
            self.forget_check(gone);
        }
        after
    }

    fn fresh_check(&mut self, slot: Slot, monitor: &Arc<Monitor>, now: Instant) -> CheckId {
        let id = CheckId(self.next_check);
        self.next_check += 1;
        let due = self.first_due(monitor, now);
        let phase = self.rest_until(id, due);
        let (monitor, streak) = (Arc::clone(monitor), Streak::NEW);
        self.checks.insert(id, Check { slot, monitor, streak, first: true, phase, last: None, since: now });
        id
    }

    /// A monitor that has other settings now looks anew, at once: not after an interval that may have been longer.
    fn keep(&mut self, id: CheckId, monitor: &Arc<Monitor>, now: Instant) {
        let Some(check) = self.checks.get_mut(&id).filter(|check| check.monitor != *monitor) else { return };
        check.monitor = Arc::clone(monitor);
        check.streak.restart();
        check.first = true;
        let phase = check.phase;
        let first_due = self.first_due(monitor, now);
        let due = match phase {
            Phase::Resting { due } => {
                self.timers.remove(&(due, id));
                first_due.min(due)
            }
            Phase::Waiting { .. } => return,
            Phase::Probing { .. } => {
                self.give_up(id);
                first_due
            }
        };
        let phase = self.rest_until(id, due);
        if let Some(check) = self.checks.get_mut(&id) {
            check.phase = phase;
        }
    }

    /// A server left the configuration, was disabled, or moved to another address: nothing is known of it.
    fn clear(&mut self, slot: Slot, server: &mut Watched, now: Instant) {
        self.board.publish(slot, Health::Unknown);
        server.health = Health::Unknown;
        server.since = now;
        for check in std::mem::take(&mut server.checks) {
            self.forget_check(check);
        }
    }

    fn forget_check(&mut self, id: CheckId) {
        match self.checks.get(&id).map(|check| check.phase) {
            Some(Phase::Resting { due }) => {
                self.timers.remove(&(due, id));
            }
            Some(Phase::Probing { .. }) => self.give_up(id),
            // Its place among those that wait goes when all of the configuration is taken over.
            Some(Phase::Waiting { .. }) | None => {}
        }
        self.checks.remove(&id);
    }

    /// Ends a check's probe without an outcome.
    fn give_up(&mut self, id: CheckId) {
        if let Some(Phase::Probing { probe, deadline, .. }) = self.checks.get(&id).map(|check| check.phase) {
            self.timers.remove(&(deadline, id));
            self.running.remove(&probe);
            self.probes.push_back(Probe::Abandon(probe));
            self.counters.probes_dropped.increment();
        }
    }

    fn rest_until(&mut self, id: CheckId, due: Instant) -> Phase {
        self.timers.insert((due, id));
        Phase::Resting { due }
    }

    fn first_due(&mut self, monitor: &Monitor, now: Instant) -> Instant {
        now + below(&mut self.random, monitor.interval.clamp(TIME_MIN, FIRST_ROUND))
    }

    fn show_gauges(&self) {
        self.counters.servers_up.set(self.tally.up);
        self.counters.servers_in_maintenance.set(self.tally.maintenance);
        self.counters.servers_down.set(self.tally.down);
        self.counters.servers_unknown.set(self.tally.unknown);
        self.counters.probes_running.set(self.running.len().try_into().unwrap_or(u64::MAX));
        self.counters.probes_waiting.set(self.waiting.len().try_into().unwrap_or(u64::MAX));
    }
}

impl Counters {
    fn on_outcome(&self, outcome: Outcome) {
        let counter = match outcome {
            Ok(Answer::Normal) => &self.successes,
            Ok(Answer::Maintenance) => &self.maintenances,
            Err(Cause::NoAnswer) => &self.failures_no_answer,
            Err(Cause::Closed) => &self.failures_closed,
            Err(Cause::WrongCode(_)) => &self.failures_code,
            Err(Cause::TextMissing) => &self.failures_text,
            Err(Cause::NotHttp) => &self.failures_not_http,
            Err(Cause::Tls(_)) => &self.failures_tls,
            Err(Cause::Refused) => &self.failures_refused,
            Err(Cause::TimedOut) => &self.failures_timed_out,
            Err(Cause::Unreachable) => &self.failures_unreachable,
            Err(Cause::NoResources) => &self.failures_no_resources,
        };
        counter.increment();
    }
}

impl Tally {
    fn of(&mut self, health: Health) -> &mut u64 {
        match health {
            Health::Up => &mut self.up,
            Health::Maintenance => &mut self.maintenance,
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
