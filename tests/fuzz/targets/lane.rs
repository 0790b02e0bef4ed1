//! Feeds a lane with a virtual service arbitrary frames, segments that are nearly right, and a real client's and server's frames altered, lost
//! and doubled.
//!
//! Every breath returns and the lane comes to rest, what it sends are right frames of its own, tables and packet buffers keep their bounds,
//! every relayed connection ends when everybody is silent, and no buffer is lost.

#![no_main]

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use sealane::balance::{Board, Loads};
use sealane::base::{Duration, EngineId, Flow, Instant, LaneId, Random, ServiceId};
use sealane::health::{Monitor, MonitoredPool, Monitors};
use sealane::lane::{self, Handle, Lane, Order, Poll, Snapshot, Station, Steering};
use sealane::link;
use sealane::nic::FRAME_MAX;
use sealane::nic::memory::{self, Queue, Wire};
use sealane::relay::{Service, Timeouts};
use sealane::sim::clock::Clock;
use sealane::sim::server::Server;
use sealane::tcp::{self, ConnectionId, Readable, Token};
use sealane::ticket::Schedule;
use sealane::wire::{Ecn, Flags, Frame, Outgoing, Segment, SegmentOptions, Seq};
use sealane_fuzz::{Host, IDENTITY, NAME, frame, pool, ring, tls_service};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

const ENGINE: u8 = 0;
const CLIENT: u8 = 1;
const SERVER: u8 = 2;
/// Whoever the fuzzer pretends to be.
const FORGER: u8 = 3;
const FORGER_IP: [u8; 4] = [198, 18, 0, 30];
const SERVICE: &str = "198.18.0.10:443";
const CONNECTIONS_MAX: u64 = 16;
const BUFFERS: usize = 128;
/// Far more breaths than there is work for.
const BREATHS_MAX: u32 = 5000;
/// Longer than any timeout of the service.
const SILENCE: Duration = Duration::from_secs(200);

#[derive(Arbitrary, Debug)]
enum Action {
    Frame(Vec<u8>),
    Segment {
        port: u8,
        seq: Near,
        ack: Option<Near>,
        flags: u8,
        window: u16,
        payload: Payload,
    },
    /// The real client connects.
    Visit {
        tls12: bool,
    },
    /// The real client asks the server for so many bytes back, or writes so many.
    ClientAsks(u16),
    ClientWrites(u16),
    ClientCloses,
    ClientAborts,
    /// What the next frame to the lane suffers.
    Suffer(Fault),
    Wait {
        millis: u16,
    },
    Rotate,
    Configure,
    Drain,
}

#[derive(Arbitrary, Debug)]
enum Near {
    Right,
    Off(i16),
    Anywhere(u32),
}

#[derive(Arbitrary, Debug)]
enum Payload {
    Bytes(Vec<u8>),
    /// A part of a ClientHello, by its ends.
    Hello(u16, u16),
}

#[derive(Arbitrary, Debug)]
enum Fault {
    Lost,
    Twice,
    Altered { at: u16, bits: u8 },
    Cut { to: u16 },
}

static CLIENTS: LazyLock<[Arc<ClientConfig>; 2]> = LazyLock::new(|| {
    [&rustls::version::TLS13, &rustls::version::TLS12].map(|version| {
        let mut roots = RootCertStore::empty();
        roots.add(IDENTITY.der.clone()).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[version]).expect("the provider speaks it");
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    })
});

/// The ClientHello of a real client.
static HELLO: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut hello = Vec::new();
    while new_client(false).write_tls(&mut hello).expect("a vector takes everything") == 0 {}
    hello
});

fn new_client(tls12: bool) -> ClientConnection {
    let name = ServerName::try_from(NAME).expect("it is a name");
    ClientConnection::new(Arc::clone(&CLIENTS[usize::from(tls12)]), name).expect("the configuration is complete")
}

/// A simulated host on the same wire.
struct Peer {
    station: Station<Queue>,
    wire: Wire,
}

struct Bench {
    clock: Clock,
    lane: Lane<Queue, Clock>,
    handle: Handle,
    wire: Wire,
    service: Arc<Service>,
    client: Peer,
    server: Peer,
    serving: Server,
    visit: Option<(ConnectionId, ClientConnection)>,
    faults: Vec<Fault>,
    /// What the lane has last said to each port of the forger's: its next sequence number, and what it has acknowledged.
    said: BTreeMap<u16, (Seq, Seq)>,
    /// Whether anybody but the lane still answers.
    silent: bool,
}

fuzz_target!(|actions: Vec<Action>| {
    let mut bench = Bench::new();
    bench.run_for(Duration::from_secs(2));
    for action in actions {
        bench.act(action);
        bench.settle();
    }
    bench.end();
});

fn addresses(number: u8, network: &str) -> link::Settings {
    link::Settings {
        mac: Host::mac_of(number),
        addresses: vec![network.parse().expect("it is a network")],
        virtual_addresses: Vec::new(),
        gateways: Vec::new(),
        neighbours_max: 16,
        pending_max: 4,
    }
}

fn tcp_settings() -> tcp::Settings {
    tcp::Settings {
        connections_max: usize::try_from(CONNECTIONS_MAX).expect("few"),
        half_open_max: 4,
        time_wait_max: 4,
        receive_buffer: 8192,
        send_buffer: 8192,
        user_timeout: Duration::from_secs(20),
        ..tcp::Settings::default()
    }
}

impl Peer {
    fn new(number: u8, network: &str) -> Self {
        let (mut queues, wire) = memory::port(1, Host::mac_of(number), 1500);
        let handle = Handle::new(LaneId(0), 1);
        let steering = Steering::between(1).remove(0);
        let random = Random::from_seed(number.into());
        let mut station = Station::new(&handle, steering, vec![queues.remove(0)], tcp_settings(), random);
        station.configure(vec![addresses(number, network)]);
        Self { station, wire }
    }

    fn receive(&mut self, now: Instant) -> bool {
        let due = self.station.poll_at().is_some_and(|at| at <= now);
        if due {
            self.station.fire_timers(now);
        }
        self.station.receive(now) | due
    }
}

impl Bench {
    fn new() -> Self {
        let clock = Clock::default();
        let port = memory::Settings {
            buffers: BUFFERS,
            queue_len: 64,
            ..memory::Settings::new(1, Host::mac_of(ENGINE), 1500)
        };
        let (queues, wire) = port.port();
        let handle = Handle::new(LaneId(0), 1);
        let board = Arc::new(Board::new(3));
        let monitors = Monitors::new(Arc::clone(&board), Random::from_seed(2), Arc::clone(&handle.counters.health));
        let settings = lane::Settings {
            engine: EngineId(1),
            poll: Poll::Busy,
            tcp: tcp_settings(),
            ring: Arc::new(ring()),
            board: Arc::clone(&board),
            loads: Arc::new(Loads::new(1, 3)),
            monitors: Some(monitors),
        };
        let steering = Steering::between(1).remove(0);
        let lane = Lane::new(settings, handle.clone(), steering, queues, clock.clone(), Random::from_seed(1));
        // Nobody listens at the third.
        let pool = pool([8000, 8001, 8002].map(|port| ([198, 18, 0, 2], port).into()));
        let seconds = Duration::from_secs;
        let service = Arc::new(Service {
            id: ServiceId(1),
            name: "shop".into(),
            addresses: vec![SERVICE.parse().expect("an address")],
            tls: tls_service(&pool),
            proxy_protocol: None,
            timeouts: Timeouts {
                handshake: seconds(10),
                connect: seconds(5),
                idle: seconds(60),
                half_closed: seconds(30),
            },
            tally: Arc::default(),
        });
        let mut server = Peer::new(SERVER, "198.18.0.2/24");
        for port in [8000, 8001] {
            server.station.stack.listen(([198, 18, 0, 2], port).into(), Token(0)).expect("nobody listens yet");
        }
        let bench = Self {
            clock,
            lane,
            handle,
            wire,
            service,
            client: Peer::new(CLIENT, "198.18.0.1/24"),
            server,
            serving: Server::new(7),
            visit: None,
            faults: Vec::new(),
            said: BTreeMap::new(),
            silent: false,
        };
        bench.configure();
        bench
    }

    fn configure(&self) {
        let mut port = addresses(ENGINE, "198.18.0.9/24");
        port.virtual_addresses = vec!["198.18.0.10".parse().expect("an address")];
        let monitor = Monitor {
            interval: Duration::from_secs(20),
            timeout: Duration::from_secs(1),
            successful_checks: 1,
            failed_checks: 3,
            ..Monitor::connect("connect")
        };
        let pool = Arc::clone(self.service.tls.pool());
        let snapshot = Snapshot {
            version: 1,
            ports: vec![port],
            services: vec![Arc::clone(&self.service)],
            pools: vec![MonitoredPool::by_all(pool, vec![Arc::new(monitor)])],
            targets: Vec::new(),
        };
        assert!(self.handle.inbox.push(Order::Configure(Box::new(snapshot))).is_ok(), "the inbox is emptied");
    }

    fn act(&mut self, action: Action) {
        let now = self.clock.now();
        match action {
            Action::Frame(bytes) => drop(self.wire.push(&bytes, 0)),
            Action::Segment { port, seq, ack, flags, window, payload } => {
                self.forge(port, &seq, ack.as_ref(), flags, window, &payload);
            }
            Action::Visit { tls12 } => {
                let service = SERVICE.parse().expect("an address");
                if let Ok(connection) = self.client.station.open_connection(service, Token(1), now) {
                    self.leave(now);
                    self.visit = Some((connection, new_client(tls12)));
                }
            }
            Action::ClientAsks(len) => self.write(&[0u32.to_be_bytes(), u32::from(len).to_be_bytes()].concat()),
            Action::ClientWrites(len) => self.write(&vec![0x5a; len.into()]),
            Action::ClientCloses => {
                if let Some((_, tls)) = &mut self.visit {
                    tls.send_close_notify();
                }
            }
            Action::ClientAborts => self.leave(now),
            Action::Suffer(fault) => self.faults.push(fault),
            Action::Wait { millis } => self.run_for(Duration::from_millis(millis.into())),
            Action::Rotate => {
                let mut random = Random::from_seed(3);
                let ring = ring().rotate(self.clock.unix(), &mut random, &Schedule::default());
                assert!(self.handle.inbox.push(Order::Ring(Arc::new(ring))).is_ok(), "the inbox is emptied");
            }
            Action::Configure => self.configure(),
            Action::Drain => assert!(self.handle.inbox.push(Order::Drain).is_ok(), "the inbox is emptied"),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some((_, tls)) = self.visit.as_mut().filter(|(_, tls)| !tls.is_handshaking()) {
            let _ = tls.writer().write(bytes);
        }
    }

    fn leave(&mut self, now: Instant) {
        if let Some((connection, _)) = self.visit.take() {
            self.client.station.stack.abort(connection, now);
        }
    }

    fn forge(&mut self, port: u8, seq: &Near, ack: Option<&Near>, flags: u8, window: u16, payload: &Payload) {
        let port = u16::from(port % 4) + 1;
        let flow = Flow::new((FORGER_IP, port).into(), SERVICE.parse().expect("an address"));
        let (next, acknowledged) = self.said.get(&port).copied().unwrap_or_default();
        let bytes = match payload {
            Payload::Bytes(bytes) => bytes.as_slice(),
            Payload::Hello(from, to) => HELLO.get(usize::from(*from)..usize::from(*to)).unwrap_or(&HELLO),
        };
        let bytes = &bytes[..bytes.len().min(1400)];
        let segment = Outgoing {
            flow: &flow,
            seq: seq.to(acknowledged),
            ack: ack.map(|ack| ack.to(next)),
            flags: Flags { syn: flags & 3 == 3, fin: flags & 12 == 12, rst: flags & 48 == 48, ..Flags::default() },
            window,
            options: SegmentOptions::default(),
            ecn: Ecn::of(flags >> 6),
            payload: &[bytes],
        };
        let mut room = [0; 1500];
        let len = segment.emit(&mut room, false).expect("it fits");
        self.wire.push(&frame(Host::mac_of(ENGINE), Host::mac_of(FORGER), &room[..len]), 0);
    }

    /// Lets everybody work until there is nothing to do.
    fn settle(&mut self) {
        let now = self.clock.now();
        for _ in 0..BREATHS_MAX {
            let mut any = self.lane.breath();
            self.check();
            any |= self.switch();
            if !self.silent {
                any |= self.client.receive(now);
                self.browse(now);
                any |= self.client.station.transmit(now);
                any |= self.server.receive(now);
                any |= self.serving.work(&mut self.server.station, now);
                any |= self.server.station.transmit(now);
            }
            if !any {
                return;
            }
        }
        panic!("the lane does not come to rest");
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        loop {
            self.settle();
            let now = self.clock.now();
            if now >= end {
                return;
            }
            let hosts = [&self.client, &self.server].into_iter().filter_map(|host| host.station.poll_at());
            let next = hosts.filter(|_| !self.silent).chain(self.lane.poll_at()).min().unwrap_or(end);
            self.clock.turn(next.clamp(now + Duration::from_nanos(1), end));
        }
    }

    /// Carries frames; those to the lane may suffer.
    fn switch(&mut self) -> bool {
        let mut any = false;
        while let Some(bytes) = self.wire.pop() {
            any = true;
            self.note(&bytes);
            self.client.wire.push(&bytes, 0);
            self.server.wire.push(&bytes, 0);
        }
        for number in [CLIENT, SERVER] {
            let wire = if number == CLIENT { self.client.wire.clone() } else { self.server.wire.clone() };
            while let Some(mut bytes) = wire.pop() {
                any = true;
                match self.faults.pop() {
                    None => {}
                    Some(Fault::Lost) => continue,
                    Some(Fault::Twice) => drop(self.wire.push(&bytes, 0)),
                    Some(Fault::Altered { at, bits }) => {
                        let at = usize::from(at) % bytes.len();
                        bytes[at] ^= bits;
                    }
                    Some(Fault::Cut { to }) => bytes.truncate(usize::from(to) % bytes.len()),
                }
                if !self.silent {
                    self.wire.push(&bytes, 0);
                }
            }
        }
        any
    }

    /// A frame that the lane sent: it must be right, and the forger answers questions for its address.
    fn note(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= FRAME_MAX);
        assert_eq!(bytes.get(6..12), Some(Host::mac_of(ENGINE).as_bytes()));
        match Frame::parse(bytes, false).expect("it sends right frames") {
            Frame::Ip { packet, .. } => {
                if let Ok((flow, segment)) = Segment::parse(&packet, false)
                    && flow.local().ip() == std::net::IpAddr::from(FORGER_IP)
                {
                    let port = flow.local().port();
                    let (_, acknowledged) = self.said.get(&port).copied().unwrap_or_default();
                    let next = segment.seq + segment.sequence_len();
                    self.said.insert(port, (next, segment.ack.unwrap_or(acknowledged)));
                }
            }
            Frame::Arp(ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Request,
                source_protocol_addr,
                target_protocol_addr,
                ..
            }) if target_protocol_addr.octets() == FORGER_IP && !self.silent => {
                let reply = ArpRepr::EthernetIpv4 {
                    operation: ArpOperation::Reply,
                    source_hardware_addr: Host::mac_of(FORGER),
                    source_protocol_addr: target_protocol_addr,
                    target_hardware_addr: Host::mac_of(ENGINE),
                    target_protocol_addr: source_protocol_addr,
                };
                let mut body = [0; 28];
                reply.emit(&mut ArpPacket::new_unchecked(&mut body[..]));
                let EthernetAddress(to) = Host::mac_of(ENGINE);
                let EthernetAddress(from) = Host::mac_of(FORGER);
                self.wire.push(&[&to[..], &from, &[0x08, 0x06], &body].concat(), 0);
            }
            Frame::Arp(_) => {}
        }
    }

    /// The real client's TLS.
    fn browse(&mut self, now: Instant) {
        while self.client.station.stack.poll_event().is_some() {}
        let Some((connection, tls)) = &mut self.visit else { return };
        let stack = &mut self.client.station.stack;
        while let Readable::Data(mut bytes) = stack.readable(*connection) {
            let taken = tls.read_tls(&mut bytes).unwrap_or(0);
            stack.consume(*connection, taken, now);
            if taken == 0 || tls.process_new_packets().is_err() {
                break;
            }
            let mut reader = tls.reader();
            while let Ok(len @ 1..) = reader.fill_buf().map(<[u8]>::len) {
                reader.consume(len);
            }
        }
        let mut bytes = Vec::new();
        while tls.wants_write() && stack.writable(*connection) > 0 {
            bytes.clear();
            if !tls.write_tls(&mut bytes).is_ok_and(|len| len > 0) {
                return;
            }
            // What has no room is lost: the lane must bear that, too.
            stack.write(*connection, &bytes, now);
        }
    }

    fn check(&self) {
        let buffers = self.wire.buffers();
        assert!(buffers.in_use <= buffers.capacity && buffers.capacity == BUFFERS);
        let tcp = &self.handle.counters.tcp;
        assert!(tcp.connections.value() <= CONNECTIONS_MAX && tcp.half_open.value() <= 4 && tcp.time_wait.value() <= 4);
        assert!(self.lane.open() as u64 <= CONNECTIONS_MAX, "a relayed connection without a client's");
    }

    fn end(mut self) {
        self.silent = true;
        self.run_for(SILENCE);
        assert_eq!(self.lane.open(), 0, "a relayed connection does not end");
        let Self { lane, wire, .. } = self;
        drop(lane);
        while wire.pop().is_some() {}
        assert_eq!(wire.buffers().in_use, 0, "a packet buffer is lost");
    }
}

impl Near {
    fn to(&self, right: Seq) -> Seq {
        match self {
            Self::Right => right,
            Self::Off(by) => Seq(right.0.wrapping_add_signed((*by).into())),
            Self::Anywhere(seq) => Seq(*seq),
        }
    }
}
