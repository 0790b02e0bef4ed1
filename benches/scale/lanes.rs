//! Two real lanes on two threads beside one, each with a load of its own on its thread, by the machine's clock.
//!
//! A thread gives its load and its lane turns; only the lane's breaths are timed, in CPU time, so that neither the load nor other processes are in it.
//! A lane has a port in memory to itself, as a queue of a NIC is; frames are put to the port of the lane that RSS would choose, or to any.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use sealane::balance::{Board, Failover, Loads, Sharing};
use sealane::base::{Duration, EngineId, LaneId, Random, UnixTime};
use sealane::lane::{self, Clock, Handle, Lane, Order, Poll, Steering, SystemClock};
use sealane::load::{Arrivals, Cipher, Clients, Generator, Group, Identity, Mode, Packets, Plan};
use sealane::nic::memory::{self, Frame, Queue, Wire};
use sealane::persistence::{Method, OnLimit, SelectNewServer};
use sealane::sim;
use sealane::sim::engine::{IDLE, Site, SiteServer, service_address};
use sealane::sim::host::{addresses, mac};
use sealane::tcp;
use sealane::ticket::Ring;

use crate::cpu::cpu;
use crate::world::NAME;
use crate::{HANDSHAKES, Handshake, Pair};

/// Clients of each lane at once.
const CLIENTS: usize = 64;

/// A lane's CPU time of one measurement.
const NANOSECONDS: u64 = 200_000_000;

/// Turns after which a measurement is given up: minutes.
const TURNS_MAX: u64 = 1_000_000_000;

const UNIT: &str = "handshakes per lane-second";

/// On which lane frames arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arrival {
    /// On the one that owns their flow, as a NIC with RSS sees to
    Right,
    /// On each in turn, so that every other frame is handed over
    Any,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    /// One lane, and nobody on the other core.
    Alone,
    /// Two engines of one lane: what the machine does to two that share nothing.
    Apart,
    /// One engine of two lanes.
    Together(Arrival),
}

/// Two lanes beside one, and beside two engines of one.
pub(crate) fn measure(identity: &sim::Identity, rounds: u32) {
    for round in 0..rounds {
        for handshake in HANDSHAKES {
            let core = usize::try_from(round % 2).unwrap_or(0);
            let alone = rate(identity, handshake, Setup::Alone, core);
            let apart = rate(identity, handshake, Setup::Apart, core);
            let right = rate(identity, handshake, Setup::Together(Arrival::Right), core);
            let any = rate(identity, handshake, Setup::Together(Arrival::Any), core);
            for (name, value, against, other) in [
                ("2 engines of 1 lane", apart, "1 lane", alone),
                ("2 lanes", right, "1 lane", alone),
                ("2 lanes", right, "2 engines", apart),
                ("2 lanes, frames on any", any, "1 lane", alone),
                ("2 lanes, frames on any", any, "2 engines", apart),
            ] {
                let name = format!("{}, {name}", handshake.name);
                Pair { round, name, unit: UNIT, value, against, other, less_is_better: false }.say();
            }
        }
    }
}

/// Where threads meet.
struct Meeting {
    /// All have warmed up.
    warm: Barrier,
    threads: usize,
    /// Threads that have measured.
    done: AtomicUsize,
    handshakes: AtomicU64,
    nanoseconds: AtomicU64,
}

/// Handshakes a second of the lanes' busy time. `core` is that of the first.
fn rate(identity: &sim::Identity, handshake: Handshake, setup: Setup, core: usize) -> f64 {
    let mut benches = match setup {
        Setup::Alone => engine(identity, 1, Arrival::Right),
        Setup::Apart => (0..2).flat_map(|_| engine(identity, 1, Arrival::Right)).collect(),
        Setup::Together(arrival) => engine(identity, 2, arrival),
    };
    let threads = benches.len();
    let meeting = Meeting {
        warm: Barrier::new(threads),
        threads,
        done: AtomicUsize::new(0),
        handshakes: AtomicU64::new(0),
        nanoseconds: AtomicU64::new(0),
    };
    let cores = core_affinity::get_core_ids().expect("the cores can be counted");
    let clock = SystemClock::start();
    thread::scope(|scope| {
        for (number, parts) in benches.drain(..).enumerate() {
            let own = cores.get((core + number) % cores.len()).copied();
            let meeting = &meeting;
            scope.spawn(move || {
                assert!(own.is_some_and(core_affinity::set_for_current), "a thread cannot be pinned");
                take_part(parts.start(handshake, CLIENTS, clock), meeting);
            });
        }
    });
    let (handshakes, nanoseconds) = (meeting.handshakes.into_inner(), meeting.nanoseconds.into_inner());
    handshakes as f64 / nanoseconds as f64 * 1e9
}

/// One lane's part of a measurement.
fn take_part(mut bench: Bench<SystemClock>, meeting: &Meeting) {
    let warm = 2 * CLIENTS as u64;
    let mut turns = 0..TURNS_MAX;
    while turns.next().is_some() && bench.done() < warm {
        for _ in 0..64 {
            bench.turn();
        }
    }
    meeting.warm.wait();
    let (begin, mut spent) = (bench.done(), 0);
    while turns.next().is_some() && spent < NANOSECONDS {
        spent += bench.turn();
    }
    meeting.handshakes.fetch_add(bench.done() - begin, Ordering::Relaxed);
    meeting.nanoseconds.fetch_add(spent, Ordering::Relaxed);
    // The other lane may still need us for what arrives here and is its.
    meeting.done.fetch_add(1, Ordering::Release);
    while turns.next().is_some() && meeting.done.load(Ordering::Acquire) < meeting.threads {
        bench.turn();
    }
    assert!(turns.next().is_some(), "the lane does not get on");
    let report = bench.generator.report();
    assert_eq!(report.failed, 0, "{report}");
}

/// What a lane's thread makes its lane and its load of. All of it is made by one thread, as control does.
pub(crate) struct Parts {
    number: u16,
    lanes: u16,
    handle: Handle,
    steering: Steering<Frame>,
    queue: Queue,
    /// The ports of all lanes of the engine.
    ports: Vec<Wire>,
    board: Arc<Board>,
    loads: Arc<Loads>,
    ring: Arc<Ring>,
    load: Queue,
    load_wire: Wire,
    arrival: Arrival,
    random: Random,
}

/// The parts of an engine with so many lanes.
pub(crate) fn engine(identity: &sim::Identity, lanes: u16, arrival: Arrival) -> Vec<Parts> {
    let mut random = Random::from_seed(1);
    let (_, unix) = SystemClock::start().read();
    let board = Arc::new(Board::new(usize::from(lanes)));
    let loads = Arc::new(Loads::new(usize::from(lanes), usize::from(lanes)));
    let ring = Arc::new(Ring::generate(UnixTime(unix.0), &mut random));
    let (queues, ports): (Vec<_>, Vec<_>) = (0..lanes)
        .map(|_| {
            let (mut queues, wire) = memory::port(1, mac(0), 1500);
            (queues.remove(0), wire)
        })
        .unzip();
    let mut parts = Vec::new();
    for ((number, queue), steering) in (0..).zip(queues).zip(Steering::between(lanes)) {
        let handle = Handle::new(LaneId(number), 1);
        let mut port = addresses(0, &["198.18.0.2/15"]);
        port.virtual_addresses = vec![service_address(0).ip()];
        let site = Site {
            identity: identity.clone(),
            method: Method::Tls,
            policy: SelectNewServer::Immediate,
            on_limit: OnLimit::Switch,
            servers: vec![SiteServer::new(number, server(number))],
            failover: Failover::default(),
            sharing: Sharing::default(),
            is_reencrypting: false,
            port,
            services: 1,
            idle: IDLE,
            probes: (Duration::from_secs(4), Duration::from_secs(4)),
        };
        handle.inbox.push(Order::Configure(Box::new(site.snapshot(1)))).expect("the inbox is empty");
        let (mut load, load_wire) = memory::port(1, mac(1 + number), 1500);
        parts.push(Parts {
            number,
            lanes,
            handle,
            steering,
            queue,
            ports: ports.clone(),
            board: Arc::clone(&board),
            loads: Arc::clone(&loads),
            ring: Arc::clone(&ring),
            load: load.remove(0),
            load_wire,
            arrival,
            random: random.fork(),
        });
    }
    parts
}

/// The server of a lane's load, its own one: loads have nothing to do with each other.
fn server(number: u16) -> SocketAddr {
    ([198, 18, 1, 1 + u8::try_from(number).expect("there are few lanes")], 8000).into()
}

impl Parts {
    /// Control's end of the lane.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The lane and its load.
    pub(crate) fn start<C: Clock + Clone>(self, handshake: Handshake, clients: usize, clock: C) -> Bench<C> {
        let Self { number, lanes, handle, steering, queue, ports, .. } = self;
        let Self { board, loads, ring, load, load_wire, arrival, mut random, .. } = self;
        let settings = lane::Settings {
            engine: EngineId(1),
            poll: Poll::Busy,
            tcp: tcp::Settings::default(),
            ring,
            board,
            loads,
            monitors: None,
        };
        let lane = Lane::new(settings, handle.clone(), steering, vec![queue], clock.clone(), random.fork());
        let address = format!("198.18.1.{}/15", 1 + number).parse().expect("an address");
        let packets = Packets::new(load, address, Vec::new(), Vec::new(), random).reaching(LaneId(number), lanes);
        let identity = Identity {
            name: NAME.into(),
            version: handshake.version,
            group: Group::X25519,
            cipher: Cipher::Aes128,
            roots: None,
        };
        let for_ever = Duration::from_secs(100_000);
        let plan = Plan {
            mode: handshake.mode,
            service: service_address(0),
            sources: Vec::new(),
            connections: clients,
            rate: None,
            arrivals: Arrivals::Even,
            patience: for_ever,
            warm_up: Duration::ZERO,
            duration: for_ever,
            timeout: Duration::from_secs(30),
            bytes: 1,
            serve: vec![server(number)],
            allow_failures: false,
            progress: false,
        };
        let clients = Clients::new(&identity).expect("it is a client");
        let generator = Generator::new(plan, clients, packets, clock).expect("nothing can be refused");
        let own = usize::from(number);
        Bench { lane, handle, own, ports, generator, load_wire, arrival, mode: handshake.mode, next: own }
    }
}

/// A lane and its load, on the lane's thread.
pub(crate) struct Bench<C: Clock> {
    lane: Lane<Queue, C>,
    handle: Handle,
    own: usize,
    ports: Vec<Wire>,
    pub(crate) generator: Generator<Packets<Queue>, C>,
    load_wire: Wire,
    arrival: Arrival,
    mode: Mode,
    /// The lane that gets the next frame if any may.
    next: usize,
}

impl<C: Clock> Bench<C> {
    /// The turns of the load and of the lane; what the lane's breath took, if it had anything to do.
    fn turn(&mut self) -> u64 {
        self.load();
        let begin = cpu();
        let was_busy = self.breathe();
        let spent = cpu() - begin;
        self.deliver();
        if was_busy { spent } else { 0 }
    }

    /// The load's turn. What it sends arrives at a lane.
    pub(crate) fn load(&mut self) {
        self.generator.breath();
        let Self { load_wire, ports, arrival, next, own, .. } = self;
        while load_wire.pop_with(|frame| ports.get(*next).map(|port| port.push(frame, 0))).is_some() {
            *next = if *arrival == Arrival::Any { (*next + 1) % ports.len() } else { *own };
        }
    }

    /// The lane's turn.
    pub(crate) fn breathe(&mut self) -> bool {
        self.lane.breath()
    }

    /// What the lane has sent arrives at its load. Nobody reads its records.
    pub(crate) fn deliver(&mut self) {
        if let Some(port) = self.ports.get(self.own) {
            while port.pop_with(|frame| self.load_wire.push(frame, 0)).is_some() {}
        }
        while self.handle.records.pop().is_some() {}
    }

    /// Handshakes of the kind that is measured.
    pub(crate) fn done(&self) -> u64 {
        let report = self.generator.report();
        if self.mode == Mode::Full { report.full_handshakes } else { report.resumed_handshakes }
    }
}
