//! Monitors in virtual time, against servers that answer, refuse or stay silent by script, and against a model of the verdicts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::*;
use crate::balance::testing::{pool, server};
use crate::balance::{Algorithm, Board, Health, Pool, Server, Slot, State};
use crate::base::{Counter, Generation, Instant, PoolId, Random, ServerId, UnixTime};

mod answers;
mod several;

const WALL: UnixTime = UnixTime(1_800_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn monitor() -> Monitor {
    Monitor {
        interval: 4 * SECOND,
        timeout: 2 * SECOND,
        successful_checks: 2,
        failed_checks: 3,
        ..Monitor::connect("tcp")
    }
}

/// How a server takes a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Answers,
    Refuses,
    Unreachable,
    Silent,
    /// The engine is out of ports.
    Starved,
    /// Connects, and says this once it has been asked something.
    Says(&'static str),
    /// The same, and ends the connection.
    SaysAndCloses(&'static str),
}

/// A lane that runs the monitors, and the servers that it reaches.
struct World {
    now: Instant,
    board: Arc<Board>,
    counters: Arc<Counters>,
    monitors: Monitors,
    manners: HashMap<SocketAddr, Manner>,
    /// How long an answer takes.
    delay: Duration,
    /// Answers under way.
    answers: BTreeMap<(Instant, u32), Manner>,
    /// Connections open for probes.
    open: HashMap<ProbeId, SocketAddr>,
    open_max: usize,
    /// Every probe's address with its time, in order.
    begun: Vec<(Instant, SocketAddr)>,
    /// Every change of state, with the first cause if it went down.
    verdicts: Vec<(String, Health, Option<Cause>)>,
    told: Vec<Verdict>,
    /// Every echo that was asked for.
    pings: Vec<(ProbeId, IpAddr, Ping)>,
    /// What each probe has said.
    said: HashMap<ProbeId, Vec<u8>>,
    /// Every result by address, as the model counts them.
    results: HashMap<SocketAddr, Vec<bool>>,
}

impl World {
    fn new(seed: u64, slots: usize) -> Self {
        let (board, counters) = (Arc::new(Board::new(slots)), Arc::new(Counters::default()));
        Self {
            now: Instant::START,
            monitors: Monitors::new(Arc::clone(&board), Random::from_seed(seed), Arc::clone(&counters)),
            board,
            counters,
            manners: HashMap::new(),
            delay: Duration::from_millis(1),
            answers: BTreeMap::new(),
            open: HashMap::new(),
            open_max: 0,
            begun: Vec::new(),
            verdicts: Vec::new(),
            told: Vec::new(),
            pings: Vec::new(),
            said: HashMap::new(),
            results: HashMap::new(),
        }
    }

    fn configure(&mut self, pool: &Pool, monitor: Option<Monitor>) {
        self.configure_with(pool, Vec::from_iter(monitor), 1);
    }

    fn configure_with(&mut self, pool: &Pool, monitors: Vec<Monitor>, monitors_up_min: usize) {
        let monitors = monitors.into_iter().map(Arc::new).collect();
        self.monitors.configure(&[MonitoredPool { pool: Arc::new(pool.clone()), monitors, monitors_up_min }], self.now);
        self.drain();
    }

    /// Does what the monitors ask for.
    fn drain(&mut self) {
        while let Some(probe) = self.monitors.poll_probe() {
            match probe {
                Probe::Ping(id, to, ping) => {
                    assert!(self.open.insert(id, SocketAddr::new(to, 0)).is_none(), "{id:?} is taken");
                    self.pings.push((id, to, ping));
                }
                Probe::Connect(id, address) => {
                    self.said.insert(id, Vec::new());
                    self.begun.push((self.now, address));
                    assert!(self.open.insert(id, address).is_none(), "{id:?} is taken");
                    self.open_max = self.open_max.max(self.open.len());
                    let manner = self.manners.get(&address).copied().unwrap_or(Manner::Answers);
                    if manner != Manner::Silent {
                        self.answers.insert((self.now + self.delay, id.0), manner);
                    }
                }
                Probe::Abandon(id) => {
                    let address = self.open.remove(&id).expect("what is abandoned is open");
                    self.results.entry(address).or_default().push(false);
                }
            }
        }
        while let Some(verdict) = self.monitors.poll_verdict(self.now) {
            assert_eq!(verdict.health, self.board.health(verdict.slot), "the board says the same");
            assert!(verdict.findings.iter().all(|finding| finding.lasted <= self.now.since(Instant::START)));
            if verdict.health != verdict.before && verdict.health != Health::Unknown {
                let cause = verdict.findings.iter().find_map(|finding| finding.last?.err());
                let cause = cause.filter(|_| verdict.health == Health::Down);
                self.verdicts.push((verdict.server.clone(), verdict.health, cause));
            }
            self.told.push(verdict);
        }
    }

    /// Lets time pass, event by event.
    fn run_until(&mut self, end: Instant) {
        for _ in 0..1_000_000 {
            let answer = self.answers.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = [self.monitors.poll_at(), answer].into_iter().flatten().min().filter(|at| *at <= end)
            else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if answer.is_some_and(|at| at <= self.now) {
                let ((_, id), manner) = self.answers.pop_first().unwrap();
                self.answer(ProbeId(id), manner);
            } else {
                self.monitors.on_timeout(self.now);
            }
            self.drain();
        }
        panic!("time does not pass");
    }

    fn run(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    fn answer(&mut self, id: ProbeId, manner: Manner) {
        if let Manner::Says(text) | Manner::SaysAndCloses(text) = manner {
            self.converse(id, text, matches!(manner, Manner::SaysAndCloses(_)));
            return;
        }
        let address = self.open.remove(&id);
        if let Some(address) = address.filter(|_| manner != Manner::Starved) {
            self.results.entry(address).or_default().push(manner == Manner::Answers);
        }
        match manner {
            Manner::Answers => self.monitors.on_connected(id, self.now, WALL),
            Manner::Refuses => self.monitors.on_failed(id, Cause::Refused, self.now),
            Manner::Unreachable => self.monitors.on_failed(id, Cause::Unreachable, self.now),
            Manner::Starved => self.monitors.on_failed(id, Cause::NoResources, self.now),
            Manner::Says(_) | Manner::SaysAndCloses(_) => unreachable!("it has been spoken to"),
            Manner::Silent => unreachable!("it does not answer"),
        }
    }

    /// A probe connects, says what it has to, hears this byte by byte, and that this was all, if it was.
    fn converse(&mut self, id: ProbeId, text: &str, closes: bool) {
        self.monitors.on_connected(id, self.now, WALL);
        let said = self.said.entry(id).or_default();
        for _ in 0..1000 {
            // A connection that takes two bytes at a time.
            self.monitors.poll_transmit(id, self.now, |bytes| {
                let taken = bytes.len().min(2);
                said.extend_from_slice(&bytes[..taken]);
                taken
            });
        }
        for byte in text.bytes() {
            if self.monitors.is_running(id) {
                self.monitors.on_data(id, &[byte], self.now, WALL);
            }
        }
        if closes && self.monitors.is_running(id) {
            self.monitors.on_end(id, self.now);
        }
        if !self.monitors.is_running(id) {
            self.open.remove(&id);
        }
    }

    fn set(&mut self, server: u16, manner: Manner) {
        self.manners.insert(address(server), manner);
    }

    fn health(&self, slot: u32) -> Health {
        self.board.health(Slot(slot))
    }

    fn probes_of(&self, server: u16) -> Vec<Instant> {
        self.begun.iter().filter(|(_, to)| *to == address(server)).map(|(at, _)| *at).collect()
    }

    fn value(&self, counter: fn(&Counters) -> &Counter) -> u64 {
        counter(&self.counters).value()
    }
}

fn address(n: u16) -> SocketAddr {
    server(n, 1).address
}

fn went_up(server: u16) -> (String, Health, Option<Cause>) {
    (format!("s{server}"), Health::Up, None)
}

fn went_down(server: u16, cause: Cause) -> (String, Health, Option<Cause>) {
    (format!("s{server}"), Health::Down, Some(cause))
}

/// The rule of a verdict, told over the whole history: what the model says.
fn model(results: &[bool], monitor: &Monitor) -> Health {
    let mut health = Health::Unknown;
    // Results before the last change count no more.
    let mut since = 0;
    for end in 1..=results.len() {
        let (wanted, count) = match (health, results[end - 1]) {
            (Health::Unknown, true) => (Health::Up, 1),
            (Health::Unknown, false) => (Health::Down, 1),
            (_, true) => (Health::Up, monitor.successful_checks),
            (_, false) => (Health::Down, monitor.failed_checks),
        };
        let row = results[since..end].iter().rev().take_while(|result| **result == results[end - 1]).count();
        if wanted != health && row >= usize::try_from(count).unwrap() {
            health = wanted;
            since = end;
        }
    }
    health
}

#[test]
fn every_server_has_a_verdict_soon_after_the_start() {
    let mut world = World::new(1, 3);
    world.set(1, Manner::Refuses);
    world.set(2, Manner::Silent);
    world.configure(&pool(Algorithm::RoundRobin, &[1, 1, 1]), Some(monitor()));
    assert_eq!(world.value(|c| &c.servers_unknown), 3);
    world.run(SECOND + Duration::from_millis(1));
    assert_eq!([0, 1, 2].map(|slot| world.health(slot)), [Health::Up, Health::Down, Health::Unknown]);
    world.run(2 * SECOND);
    assert_eq!(world.health(2), Health::Down);
    assert_eq!(world.verdicts.len(), 3);
    assert!(world.verdicts.contains(&went_up(0)));
    assert!(world.verdicts.contains(&went_down(1, Cause::Refused)));
    assert!(world.verdicts.contains(&went_down(2, Cause::TimedOut)));
    assert_eq!((world.value(|c| &c.servers_up), world.value(|c| &c.servers_down)), (1, 2));
    assert_eq!((world.value(|c| &c.went_up), world.value(|c| &c.went_down)), (1, 2));
}

#[test]
fn a_verdict_changes_after_the_monitors_number_of_results_in_a_row() {
    let mut world = World::new(2, 1);
    world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(monitor()));
    world.run(20 * SECOND);
    world.set(0, Manner::Refuses);
    let (probes, verdicts) = (world.begun.len(), world.verdicts.len());
    while world.begun.len() < probes + 2 {
        world.run(Duration::from_millis(100));
    }
    assert_eq!(world.health(0), Health::Up, "two failures are not enough");
    world.run(4 * SECOND);
    assert_eq!(world.health(0), Health::Down);
    world.set(0, Manner::Answers);
    world.run(4 * SECOND);
    assert_eq!(world.health(0), Health::Down, "one success is not enough");
    world.run(4 * SECOND);
    assert_eq!(world.health(0), Health::Up);
    assert_eq!(world.verdicts[verdicts..], [went_down(0, Cause::Refused), went_up(0)]);
}

#[test]
fn probes_keep_their_interval_and_spread_over_it() {
    let mut world = World::new(3, 200);
    world.configure(&pool(Algorithm::RoundRobin, &[1; 200]), Some(monitor()));
    world.run(100 * SECOND);
    let mut quarters = [0; 4];
    for server in 0..200 {
        let times = world.probes_of(server);
        assert!(times[0] <= Instant::START + SECOND, "the first round is quick");
        assert!((2 * SECOND..6 * SECOND).contains(&times[1].since(times[0])));
        assert!(times[1..].windows(2).all(|pair| pair[1].since(pair[0]) == 4 * SECOND), "{times:?}");
        let phase = times[5].since(Instant::START).as_millis() % 4000;
        quarters[usize::try_from(phase / 1000).unwrap()] += 1;
    }
    assert!(quarters.into_iter().all(|count| count > 25), "{quarters:?}");
}

#[test]
fn each_cause_is_counted_and_named() {
    for (manner, cause, counter) in [
        (Manner::Refuses, Cause::Refused, (|c| &c.failures_refused) as fn(&Counters) -> &Counter),
        (Manner::Silent, Cause::TimedOut, |c| &c.failures_timed_out),
        (Manner::Unreachable, Cause::Unreachable, |c| &c.failures_unreachable),
    ] {
        let mut world = World::new(4, 1);
        world.set(0, manner);
        world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(monitor()));
        world.run(4 * SECOND - Duration::from_millis(500));
        assert_eq!(world.verdicts, [went_down(0, cause)]);
        assert!(counter(&world.counters).value() >= 1);
        assert_eq!(
            counter(&world.counters).value(),
            world.value(|c| &c.probes) - u64::try_from(world.open.len()).unwrap()
        );
    }
}

#[test]
fn an_engine_without_ports_blames_no_server() {
    let mut world = World::new(5, 1);
    world.set(0, Manner::Starved);
    world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(monitor()));
    world.run(60 * SECOND);
    assert_eq!(world.health(0), Health::Unknown);
    assert!(world.value(|c| &c.failures_no_resources) > 10);
    world.set(0, Manner::Answers);
    world.run(10 * SECOND);
    world.set(0, Manner::Starved);
    world.run(60 * SECOND);
    assert_eq!(world.health(0), Health::Up);
    assert_eq!(world.verdicts, [went_up(0)]);
}

#[test]
fn an_answer_after_the_timeout_is_ignored() {
    let mut world = World::new(6, 1);
    world.delay = 3 * SECOND;
    world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(monitor()));
    world.run(30 * SECOND);
    assert_eq!(world.health(0), Health::Down);
    assert_eq!(world.value(|c| &c.successes), 0);
    assert!(world.value(|c| &c.answers_late) >= 5);
    let strangers = world.value(|c| &c.answers_late);
    world.monitors.on_failed(ProbeId(u32::MAX), Cause::Refused, world.now);
    assert_eq!(world.value(|c| &c.answers_late), strangers + 1);
}

#[test]
fn an_answer_counts_once() {
    let mut world = World::new(7, 1);
    world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(monitor()));
    world.run(10 * SECOND);
    let successes = world.value(|c| &c.successes);
    world.monitors.on_connected(ProbeId(0), world.now, WALL);
    assert_eq!(world.value(|c| &c.successes), successes);
}

#[test]
fn disabled_servers_and_pools_without_a_monitor_are_never_probed() {
    let mut world = World::new(8, 3);
    let mut one = pool(Algorithm::RoundRobin, &[1, 1]);
    one.servers[0].state = State::Disabled;
    let bare = Pool::new(PoolId(2), "bare".into(), Algorithm::RoundRobin, vec![server(2, 1)]);
    world.monitors.configure(
        &[MonitoredPool::by_all(Arc::new(one), vec![Arc::new(monitor())]), MonitoredPool::unmonitored(Arc::new(bare))],
        world.now,
    );
    world.run(60 * SECOND);
    assert!(world.probes_of(0).is_empty() && world.probes_of(2).is_empty() && !world.probes_of(1).is_empty());
    assert_eq!([0, 1, 2].map(|slot| world.health(slot)), [Health::Unknown, Health::Up, Health::Unknown]);
}

#[test]
fn without_servers_there_is_nothing_to_wait_for() {
    let mut world = World::new(9, 1);
    assert_eq!(world.monitors.poll_at(), None);
    world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(monitor()));
    assert!(world.monitors.poll_at().is_some());
    world.configure(&pool(Algorithm::RoundRobin, &[1]), None);
    assert_eq!(world.monitors.poll_at(), None);
}

#[test]
fn a_server_that_stays_keeps_its_state_over_a_reload() {
    let mut world = World::new(10, 4);
    let three = pool(Algorithm::RoundRobin, &[1, 1, 1]);
    world.set(1, Manner::Refuses);
    world.configure(&three, Some(monitor()));
    world.run(30 * SECOND);
    let (at, verdicts) = (world.monitors.poll_at(), world.verdicts.len());

    // Another order, another ratio, one server more.
    let mut servers = three.servers.clone();
    servers.reverse();
    servers[0].ratio = 7;
    servers.push(server(3, 1));
    let four = Pool::new(three.id, "pool".into(), Algorithm::RoundRobin, servers);
    world.configure(&four, Some(monitor()));
    assert_eq!([0, 1, 2, 3].map(|slot| world.health(slot)), [Health::Up, Health::Down, Health::Up, Health::Unknown]);
    assert!(world.monitors.poll_at() <= at);
    world.run(30 * SECOND);
    assert_eq!(world.verdicts[verdicts..], [went_up(3)]);
    for server in [0, 1, 2] {
        let times = world.probes_of(server);
        assert!(times[1..].windows(2).all(|pair| pair[1].since(pair[0]) == 4 * SECOND), "the reload is not felt");
    }
    world.set(1, Manner::Answers);
    world.run(10 * SECOND);
    assert_eq!(world.verdicts.last(), Some(&went_up(1)), "names follow the new order");
}

#[test]
fn a_server_that_leaves_is_forgotten_and_starts_unknown_when_it_returns() {
    let mut world = World::new(11, 2);
    world.set(1, Manner::Silent);
    let two = pool(Algorithm::RoundRobin, &[1, 1]);
    world.configure(&two, Some(monitor()));
    for _ in 0..1000 {
        if world.open.values().any(|to| *to == address(1)) && world.health(1) == Health::Down {
            break;
        }
        world.run(Duration::from_millis(50));
    }
    let mut without = two.clone();
    without.servers[1].state = State::Disabled;
    world.configure(&without, Some(monitor()));
    assert!(world.open.is_empty(), "its probe is abandoned");
    assert_eq!(world.value(|c| &c.probes_dropped), 1);
    assert_eq!(world.health(1), Health::Unknown);
    assert_eq!((world.value(|c| &c.servers_up), world.value(|c| &c.servers_down)), (1, 0));
    let probes = world.probes_of(1).len();
    world.run(30 * SECOND);
    assert_eq!(world.probes_of(1).len(), probes);

    world.configure(&two, Some(monitor()));
    assert_eq!(world.health(1), Health::Unknown);
    world.run(4 * SECOND);
    assert_eq!(world.health(1), Health::Down, "the first result decides again");
}

#[test]
fn a_server_that_moves_to_another_address_is_judged_anew() {
    let mut world = World::new(12, 1);
    world.set(0, Manner::Refuses);
    let mut one = pool(Algorithm::RoundRobin, &[1]);
    world.configure(&one, Some(monitor()));
    world.run(10 * SECOND);
    assert_eq!(world.health(0), Health::Down);
    one.servers[0].address = address(9);
    world.configure(&one, Some(monitor()));
    assert_eq!(world.health(0), Health::Unknown);
    world.run(2 * SECOND);
    assert_eq!(world.health(0), Health::Up);
    assert!(!world.probes_of(9).is_empty());
}

#[test]
fn another_monitor_keeps_the_verdict_and_takes_its_own_interval_at_once() {
    let mut world = World::new(13, 1);
    world.set(0, Manner::Refuses);
    let one = pool(Algorithm::RoundRobin, &[1]);
    let slow = Monitor { interval: 1000 * SECOND, ..monitor() };
    world.configure(&one, Some(slow));
    world.run(10 * SECOND);
    assert_eq!(world.health(0), Health::Down);
    world.configure(&one, Some(monitor()));
    assert_eq!(world.health(0), Health::Down);
    let probes = world.begun.len();
    world.run(20 * SECOND);
    assert!(world.begun.len() >= probes + 3);
}

fn crowd(servers: u32) -> Pool {
    let one = |n: u32| Server {
        id: ServerId(n.into()),
        generation: Generation(0),
        address: ([198, 18, n.to_be_bytes()[2], n.to_be_bytes()[3]], 80).into(),
        slot: Slot(n),
        ..server(0, 1)
    };
    Pool::new(PoolId(1), "crowd".into(), Algorithm::RoundRobin, (0..servers).map(one).collect())
}

#[test]
fn probes_beyond_the_bound_wait_in_order_and_all_are_made() {
    let servers = 3 * u32::try_from(PROBES_MAX).unwrap();
    let mut world = World::new(14, usize::try_from(servers).unwrap());
    let crowd = crowd(servers);
    for server in &crowd.servers {
        world.manners.insert(server.address, Manner::Silent);
    }
    world.configure(&crowd, Some(monitor()));
    world.run(SECOND);
    assert_eq!(world.open.len(), PROBES_MAX);
    assert_eq!(world.value(|c| &c.probes_running), u64::try_from(PROBES_MAX).unwrap());
    assert_eq!(world.value(|c| &c.probes_waiting), u64::from(servers) - u64::try_from(PROBES_MAX).unwrap());
    assert_eq!(world.value(|c| &c.probes_delayed), world.value(|c| &c.probes_waiting));
    world.run(60 * SECOND);
    assert_eq!(world.open_max, PROBES_MAX);
    assert!(crowd.servers.iter().all(|server| world.board.health(server.slot) == Health::Down));
    // Nobody overtakes: by the time that one server is probed a second time, every server was probed.
    let mut seen = std::collections::HashSet::new();
    assert!(world.begun.iter().take(crowd.servers.len()).all(|(_, to)| seen.insert(*to)));

    // A reload that takes all of them away leaves nothing behind.
    world.configure(&pool(Algorithm::RoundRobin, &[]), Some(monitor()));
    assert!(world.open.is_empty() && world.monitors.poll_at().is_none());
    assert_eq!(world.value(|c| &c.probes_waiting) + world.value(|c| &c.probes_running), 0);
    assert!(crowd.servers.iter().all(|server| world.board.health(server.slot) == Health::Unknown));
}

#[test]
fn a_call_takes_a_bounded_number_of_timers_and_says_that_there_are_more() {
    let servers = u32::try_from(TIMERS_MAX).unwrap() + 10;
    let mut world = World::new(15, usize::try_from(servers).unwrap());
    world.configure(&crowd(servers), Some(monitor()));
    world.now = world.now + 2 * SECOND;
    world.monitors.on_timeout(world.now);
    world.drain();
    assert_eq!(world.begun.len(), TIMERS_MAX);
    assert!(world.monitors.poll_at().unwrap() <= world.now);
    world.monitors.on_timeout(world.now);
    world.drain();
    assert_eq!(world.begun.len(), TIMERS_MAX + 10);
    assert!(world.monitors.poll_at().unwrap() > world.now);
}

#[test]
fn a_long_pause_is_not_made_up_for_by_a_burst() {
    let mut world = World::new(16, 1);
    world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(monitor()));
    world.run(10 * SECOND);
    let probes = world.begun.len();
    world.now = world.now + 1000 * SECOND;
    world.run(9 * SECOND);
    assert!((2..=4).contains(&(world.begun.len() - probes)), "{} probes", world.begun.len() - probes);
}

#[test]
fn times_and_counts_of_zero_do_not_stop_time() {
    let mut world = World::new(17, 2);
    world.set(1, Manner::Silent);
    world.delay = Duration::ZERO;
    let zero = Monitor {
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
        successful_checks: 0,
        failed_checks: 0,
        ..Monitor::connect("z")
    };
    world.configure(&pool(Algorithm::RoundRobin, &[1, 1]), Some(zero));
    world.run(Duration::from_millis(100));
    assert_eq!([0, 1].map(|slot| world.health(slot)), [Health::Up, Health::Down]);
}

#[test]
fn equal_seeds_probe_at_equal_times() {
    let history = |seed| {
        let mut world = World::new(seed, 20);
        world.configure(&pool(Algorithm::RoundRobin, &[1; 20]), Some(monitor()));
        world.run(30 * SECOND);
        world.begun
    };
    assert_eq!(history(18), history(18));
    assert_ne!(history(18), history(19));
}

/// Servers that flap at random under random monitors: after every event the board says what the model says, and the verdicts
/// tell every change.
#[test]
fn flapping_servers_always_agree_with_the_model() {
    for seed in 0..150 {
        let mut random = Random::from_seed(1_000_000 + seed);
        let mut pick = |bound| random.below(bound);
        let count = u16::try_from(1 + pick(6)).unwrap();
        let monitor = Monitor {
            interval: Duration::from_millis(200 + pick(5000)),
            timeout: Duration::from_millis(50 + pick(3000)),
            successful_checks: u32::try_from(1 + pick(4)).unwrap(),
            failed_checks: u32::try_from(1 + pick(4)).unwrap(),
            ..Monitor::connect("m")
        };
        let mut world = World::new(seed, count.into());
        world.delay = Duration::from_millis(pick(100));
        world.configure(&pool(Algorithm::RoundRobin, &vec![1; count.into()]), Some(monitor.clone()));
        for _ in 0..200 {
            let manners = [
                Manner::Answers,
                Manner::Answers,
                Manner::Refuses,
                Manner::Silent,
                Manner::Unreachable,
                Manner::Starved,
            ];
            let manner = manners[usize::try_from(pick(6)).unwrap()];
            world.set(u16::try_from(pick(count.into())).unwrap(), manner);
            world.run(Duration::from_millis(pick(2000)));
            for server in 0..count {
                let results = world.results.get(&address(server)).map_or(&[][..], Vec::as_slice);
                let expected = model(results, &monitor);
                assert_eq!(world.health(server.into()), expected, "seed {seed}: server {server}: {results:?}");
                let told = world.verdicts.iter().rev().find(|(name, ..)| *name == format!("s{server}"));
                assert_eq!(
                    told.map(|(_, health, _)| *health),
                    Some(expected).filter(|health| *health != Health::Unknown)
                );
            }
            let with = |health| (0..count).filter(|server| world.health((*server).into()) == health).count();
            assert_eq!(world.value(|c| &c.servers_up), u64::try_from(with(Health::Up)).unwrap(), "seed {seed}");
            assert_eq!(world.value(|c| &c.servers_down), u64::try_from(with(Health::Down)).unwrap(), "seed {seed}");
            assert_eq!(
                world.value(|c| &c.servers_unknown),
                u64::try_from(with(Health::Unknown)).unwrap(),
                "seed {seed}"
            );
        }
        for server in 0..count {
            let mut last = None;
            for (_, health, cause) in world.verdicts.iter().filter(|(name, ..)| *name == format!("s{server}")) {
                assert_ne!(last, Some(*health), "seed {seed}: a verdict that changes nothing");
                assert_eq!(*health == Health::Up, cause.is_none(), "seed {seed}");
                last = Some(*health);
            }
        }
    }
}
