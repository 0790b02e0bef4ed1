//! An engine of one lane, loads that hold connections, and a load that shakes hands, in turn on one thread and in virtual time.

use std::io;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use sealane::balance::{Board, Failover, Loads, Sharing};
use sealane::base::{Duration, EngineId, Instant, Random};
use sealane::lane::{NoConnection, Order};
use sealane::load::{
    Arrivals, Cipher, Clients, Generator, Group, Identity, Mode, Packets, Plan, Taken, Transport, Version,
};
use sealane::nic::Offload;
use sealane::nic::memory::{self, Wire};
use sealane::persistence::{Method, OnLimit, SelectNewServer};
use sealane::sim;
use sealane::sim::clock::Clock;
use sealane::sim::engine::{Backing, Engine, Site, SiteServer, service_address};
use sealane::sim::host::{addresses, mac};
use sealane::tcp::{self, ConnectionId, Event, Token};
use sealane::ticket::Ring;

use crate::Handshake;
use crate::cpu::cpu;

/// Whom the certificate is for.
pub(crate) const NAME: &str = "shop.example";

/// What a turn of everybody takes.
const TURN: Duration = Duration::from_micros(300);

/// The lane's CPU time of one stretch of a measurement.
const NANOSECONDS: u64 = 20_000_000;

/// Longer than anything here lasts.
const FOR_EVER: Duration = Duration::from_secs(100_000);

/// When a held connection's timer has been armed for the last time: the handshake's is over after 60 s.
const SETTLED: Duration = Duration::from_secs(62);

/// Held connections of one address of clients: an address has 49,152 ports for the service, and they are to be easily found.
const HELD_BY_ADDRESS: usize = 15_000;

/// Most turns that opening a connection may take.
const TURNS_MAX: usize = 1000;

/// How large a configuration is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) services: u32,
    pub(crate) servers: u16,
}

/// A load with its end of the network.
struct Load {
    /// Its number among the loads of the world.
    port: u16,
    wire: Wire,
    generator: Generator<Spread, Clock>,
}

/// Clients that shake hands, and what that took so far.
pub(crate) struct Measurement {
    load: Load,
    handshake: Handshake,
    handshakes: u64,
    nanoseconds: u64,
}

impl Measurement {
    /// Handshakes of the kind that is measured, from the first on.
    fn done(&self) -> u64 {
        let report = self.load.generator.report();
        if self.handshake.mode == Mode::Full { report.full_handshakes } else { report.resumed_handshakes }
    }
}

/// An engine and its loads.
pub(crate) struct World {
    clock: Clock,
    engine: Engine<Clock>,
    services: u32,
    servers: Vec<SocketAddr>,
    /// Loads that hold connections. The first has the servers.
    holders: Vec<Load>,
    /// Loads that there have been.
    loads: u16,
    random: Random,
    /// What reading the clock twice costs.
    reading: u64,
}

impl World {
    /// An engine of this size, with so many connections open.
    pub(crate) fn new(identity: &sim::Identity, size: Size, held: usize) -> Self {
        let mut random = Random::from_seed(1);
        let clock = Clock::default();
        let slots = usize::from(size.servers);
        let backing = Backing {
            id: EngineId(1),
            board: Arc::new(Board::new(slots)),
            loads: Arc::new(Loads::new(1, slots)),
            ring: Arc::new(Ring::generate(clock.unix(), &mut random)),
        };
        // Two TCP connections each, and some to spare.
        let tcp = tcp::Settings { connections_max: 1 << 22, ..tcp::Settings::default() };
        let engine = Engine::new(1, Offload::default(), &tcp, &clock, &backing, &mut random);
        let mut port = addresses(0, &["198.18.0.2/15"]);
        port.virtual_addresses = (0..size.services).map(|number| service_address(number).ip()).collect();
        port.neighbours_max = 4096;
        let servers: Vec<_> =
            (0..size.servers).map(|number| SocketAddr::from(([198, 18, 1, 1], 8000 + number))).collect();
        let site = Site {
            identity: identity.clone(),
            method: Method::Tls,
            policy: SelectNewServer::Immediate,
            on_limit: OnLimit::Switch,
            servers: (0..).zip(&servers).map(|(number, server)| SiteServer::new(number, *server)).collect(),
            failover: Failover::default(),
            sharing: Sharing::default(),
            is_reencrypting: false,
            port,
            services: size.services,
            idle: FOR_EVER,
            probes: (Duration::from_secs(4), Duration::from_secs(4)),
        };
        for handle in &engine.handles {
            handle.inbox.push(Order::Configure(Box::new(site.snapshot(1)))).expect("the inbox is empty");
        }
        let reading = (0..1000).map(|_| cpu().abs_diff(cpu())).min().unwrap_or(0);
        let services = size.services;
        let mut world = Self { clock, engine, services, servers, holders: Vec::new(), loads: 0, random, reading };
        world.hold(held);
        world
    }

    /// Opens so many more connections, and waits until all is quiet.
    pub(crate) fn hold(&mut self, connections: usize) {
        let mut load = self.load(Mode::Idle, Version::Tls12, connections);
        for turn in 0.. {
            self.turn(Some(&mut load), TURN);
            // A report takes its time.
            if turn % 1024 == 0 {
                let report = load.generator.report();
                assert!(report.failed == 0 && turn < TURNS_MAX * connections, "they are not opened: {report}");
                if report.held == connections {
                    break;
                }
            }
        }
        self.holders.push(load);
        let quiet = self.clock.now() + SETTLED;
        while self.clock.now() < quiet {
            self.turn(None, Duration::from_millis(10));
        }
        assert_eq!(self.engine.lanes.first().map(sealane::lane::Lane::open), Some(self.held()), "connections are lost");
    }

    fn held(&self) -> usize {
        self.holders.iter().map(|load| load.generator.report().held).sum()
    }

    /// Clients that shake hands begin to come, and come until the measurement ends.
    pub(crate) fn begin(&mut self, handshake: Handshake, clients: usize) -> Measurement {
        let load = self.load(handshake.mode, handshake.version, clients);
        let mut measurement = Measurement { load, handshake, handshakes: 0, nanoseconds: 0 };
        // The first of each client that returns are full ones.
        let warm = 2 * clients as u64;
        while measurement.done() < warm {
            for _ in 0..64 {
                self.turn(Some(&mut measurement.load), TURN);
            }
        }
        measurement
    }

    /// A stretch of it: so short that whatever else the machine does falls upon this one and the one that it is compared with alike.
    pub(crate) fn go_on(&mut self, measurement: &mut Measurement) {
        let (begin, mut spent) = (measurement.done(), 0);
        while spent < NANOSECONDS {
            spent += self.turn(Some(&mut measurement.load), TURN);
        }
        measurement.handshakes += measurement.done() - begin;
        measurement.nanoseconds += spent;
    }

    /// Microseconds of the lane's time a handshake, with everything from the first SYN to the last ACK of its connection.
    pub(crate) fn end(&mut self, measurement: Measurement) -> f64 {
        let Measurement { mut load, handshakes, nanoseconds, .. } = measurement;
        load.generator.stop();
        // It gives what is open 3 s to end.
        while !load.generator.is_over() {
            self.turn(Some(&mut load), TURN);
        }
        let report = load.generator.report();
        assert_eq!((report.failed, report.unfinished), (0, 0), "{report}");
        nanoseconds as f64 / handshakes as f64 / 1e3
    }

    /// Everybody's turn; what the lane's breath took, if it had anything to do.
    fn turn(&mut self, load: Option<&mut Load>, lasts: Duration) -> u64 {
        self.clock.turn(self.clock.now() + lasts);
        let mut loads: Vec<&mut Load> = self.holders.iter_mut().chain(load).collect();
        for load in &mut loads {
            load.generator.breath();
            while load.wire.pop_with(|frame| self.engine.wire.push(frame, 0)).is_some() {}
        }
        let Some(lane) = self.engine.lanes.first_mut() else { return 0 };
        let begin = cpu();
        let was_busy = lane.breath();
        let spent = (cpu() - begin).saturating_sub(self.reading);
        while self.engine.wire.pop_with(|frame| deliver(frame, &loads)).is_some() {}
        // Nobody reads them here.
        for handle in &self.engine.handles {
            while handle.records.pop().is_some() {}
        }
        if was_busy { spent } else { 0 }
    }

    /// A new load, with addresses that nobody had before.
    fn load(&mut self, mode: Mode, version: Version, connections: usize) -> Load {
        self.loads += 1;
        let port = self.loads;
        let (mut queues, wire) = memory::port(1, mac(port), 1500);
        // 198.18.0.0/24 is the engine's, 198.19.128.0/17 is the services'.
        assert!(port < 384, "too many loads");
        let address = |host: u8| IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 | u32::from(port) << 8 | u32::from(host)));
        let sources: Vec<_> = (1..u8::MAX).map(address).take(connections.div_ceil(HELD_BY_ADDRESS)).collect();
        let own = IpNet::new(address(1), 15).expect("198.18.0.0/15 is a network");
        let more = sources.iter().copied().skip(1).collect();
        let packets = Packets::new(queues.remove(0), own, more, Vec::new(), self.random.fork());
        let clients = Clients::new(&Identity {
            name: NAME.into(),
            version,
            group: Group::X25519,
            cipher: Cipher::Aes128,
            roots: None,
        });
        let clients = clients.expect("it is a client");
        let holds = mode == Mode::Idle;
        // A ticket is one service's.
        let services = (0..if holds { 1 } else { self.services }).map(service_address).collect();
        let plan = Plan {
            mode,
            service: service_address(0),
            sources,
            connections,
            rate: None,
            arrivals: Arrivals::Even,
            patience: FOR_EVER,
            warm_up: Duration::ZERO,
            duration: FOR_EVER,
            timeout: if holds { FOR_EVER } else { Duration::from_secs(5) },
            bytes: 1,
            serve: if self.holders.is_empty() { self.servers.clone() } else { Vec::new() },
            allow_failures: false,
            progress: false,
        };
        let clients = if holds { clients.crowd(self.servers.len()) } else { clients };
        let generator = Generator::new(plan, clients, Spread { packets, services }, self.clock.clone());
        Load { port, wire, generator: generator.expect("nothing can be refused") }
    }
}

/// Gives a frame of the engine's to the load that it is for, or to all.
fn deliver(frame: &[u8], loads: &[&mut Load]) {
    let to = frame.get(..6).unwrap_or_default();
    for load in loads {
        if to == mac(load.port).as_bytes() || to == [0xff; 6] {
            load.wire.push(frame, 0);
        }
    }
}

/// Clients of many services: each of its own, always the same one.
struct Spread {
    packets: Packets<memory::Queue>,
    services: Vec<SocketAddr>,
}

impl Transport for Spread {
    type Connection = ConnectionId;

    fn listen(&mut self, local: SocketAddr, token: Token) -> io::Result<()> {
        self.packets.listen(local, token)
    }

    fn connect(
        &mut self,
        from: Option<IpAddr>,
        to: SocketAddr,
        token: Token,
        now: Instant,
    ) -> Result<ConnectionId, NoConnection> {
        // A client's number is its token without the last bit.
        let number = usize::try_from(token.0 >> 1).unwrap_or(0) % self.services.len();
        self.packets.connect(from, self.services.get(number).copied().unwrap_or(to), token, now)
    }

    fn receive(&mut self, now: Instant) -> bool {
        self.packets.receive(now)
    }

    fn poll_event(&mut self) -> Option<(ConnectionId, Token, Event)> {
        self.packets.poll_event()
    }

    fn transmit(&mut self, now: Instant) -> bool {
        self.packets.transmit(now)
    }

    fn rest(&mut self, at_most: Duration) {
        self.packets.rest(at_most);
    }

    fn set_token(&mut self, connection: ConnectionId, token: Token) {
        self.packets.set_token(connection, token);
    }

    fn read(&mut self, connection: ConnectionId, now: Instant, take: &mut dyn FnMut(&[u8])) -> Taken {
        self.packets.read(connection, now, take)
    }

    fn write(&mut self, connection: ConnectionId, parts: &[IoSlice<'_>], now: Instant) -> usize {
        self.packets.write(connection, parts, now)
    }

    fn shutdown(&mut self, connection: ConnectionId, now: Instant) {
        self.packets.shutdown(connection, now);
    }

    fn abort(&mut self, connection: ConnectionId, now: Instant) {
        self.packets.abort(connection, now);
    }
}
