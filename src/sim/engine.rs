//! The engine of a world: its real lanes over a port in memory, and what it is configured with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::balance::{Algorithm, Board, Failover, Loads, Pool, Server as PoolServer, Sharing, Slot, State};
use crate::base::{Duration, EngineId, Generation, LaneId, PoolId, Random, ServerId, ServiceId};
use crate::health::{Monitor, MonitoredPool, Monitors};
use crate::lane::{self, Clock, Handle, Lane, Order, Poll, Snapshot, Steering};
use crate::link;
use crate::nic::Offload;
use crate::nic::memory::{self, Wire};
use crate::persistence::{Method, OnLimit, Profile, SelectNewServer};
use crate::relay::{Service, Timeouts};
use crate::sim::host::{addresses, mac};
use crate::tcp;
use crate::ticket::{Ring, Scope};
use crate::tls::certificate::Certificate;
use crate::tls::client::{self, Connector, Name, Target, Trust};
use crate::tls::clients::Authorities;
use crate::tls::service::{Settings as TlsSettings, Tickets, policy_hash};
use crate::tls::{self, Versions};

/// Where the engine's service listens.
pub const SERVICE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 10));
/// The service's port.
pub const SERVICE_PORT: u16 = 443;

/// How long a connection of a simulated service may be without a byte.
pub const IDLE: Duration = Duration::from_secs(120);

/// Where the service of this number listens: the first at [`SERVICE_ADDRESS`], the others from 198.19.128.1 on.
///
/// # Panics
/// When there are more services than addresses in 198.19.128.0/17.
pub fn service_address(number: u32) -> SocketAddr {
    let address = match number {
        0 => SERVICE_ADDRESS,
        1..0x7fff => IpAddr::V4(Ipv4Addr::from_bits(0xc613_8000 | number)),
        0x7fff.. => panic!("198.19.128.0/17 has no address for service {number}"),
    };
    (address, SERVICE_PORT).into()
}

/// The certificate of the service, and the root that clients trust.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM chain for `shop.example`. Ed25519 keeps signatures, and with them traces, of one length.
    pub chain: String,
    /// PEM key.
    pub key: String,
    /// DER certificate of the root.
    pub root: CertificateDer<'static>,
}

/// What an engine's lanes share with each other and with control.
#[derive(Clone, Debug)]
pub struct Backing {
    /// The engine, as its tickets name it.
    pub id: EngineId,
    /// Which servers are up.
    pub board: Arc<Board>,
    /// Connections open to each server.
    pub loads: Arc<Loads>,
    /// The ticket keys to begin with.
    pub ring: Arc<Ring>,
}

/// An engine that reads the time from clocks `C`.
pub struct Engine<C: Clock> {
    /// Its lanes.
    pub lanes: Vec<Lane<memory::Queue, C>>,
    /// Control's end of each.
    pub handles: Vec<Handle>,
    /// The outside end of its port.
    pub wire: Wire,
}

impl<C: Clock + Clone> Engine<C> {
    /// An engine with so many lanes, at port 0 of the network, whose NIC does so much. It does nothing until it is configured.
    pub fn new(
        lanes: u16,
        offload: Offload,
        tcp: &tcp::Settings,
        clock: &C,
        backing: &Backing,
        random: &mut Random,
    ) -> Self {
        let (queues, wire) = memory::Settings { offload, ..memory::Settings::new(lanes.into(), mac(0), 1500) }.port();
        let handles: Vec<_> = (0..lanes).map(|lane| Handle::new(LaneId(lane), 1)).collect();
        let lanes = queues
            .into_iter()
            .zip(Steering::between(lanes))
            .zip(&handles)
            .map(|((queue, steering), handle)| {
                let health = Arc::clone(&handle.counters.health);
                let board = Arc::clone(&backing.board);
                let monitors = (handle.lane == LaneId(0)).then(|| Monitors::new(board, random.fork(), health));
                let settings = lane::Settings {
                    engine: backing.id,
                    poll: Poll::Busy,
                    tcp: tcp.clone(),
                    ring: Arc::clone(&backing.ring),
                    board: Arc::clone(&backing.board),
                    loads: Arc::clone(&backing.loads),
                    monitors,
                };
                Lane::new(settings, handle.clone(), steering, vec![queue], clock.clone(), random.fork())
            })
            .collect();
        Self { lanes, handles, wire }
    }
}

impl<C: Clock + Clone> Engine<C> {
    /// An engine with one lane that is configured: one service, with one server and 198.18.0.2/24 as the engine's own address.
    ///
    /// # Panics
    /// When the identity is not a certificate with its key.
    pub fn serving(
        identity: &Identity,
        server: SocketAddr,
        gateways: Vec<IpAddr>,
        tcp: &tcp::Settings,
        clock: &C,
        random: &mut Random,
    ) -> Self {
        let (_, unix) = clock.clone().read();
        let backing = Backing {
            id: EngineId(1),
            board: Arc::new(Board::new(1)),
            loads: Arc::new(Loads::new(1, 1)),
            ring: Arc::new(Ring::generate(unix, random)),
        };
        let engine = Self::new(1, Offload::default(), tcp, clock, &backing, random);
        let site = site(identity, server, gateways);
        for handle in &engine.handles {
            handle.inbox.push(Order::Configure(Box::new(site.snapshot(1)))).expect("the inbox is empty");
        }
        engine
    }
}

/// One service with one server, and 198.18.0.2/24 as the engine's own address.
fn site(identity: &Identity, server: SocketAddr, gateways: Vec<IpAddr>) -> Site {
    let mut port = addresses(0, &["198.18.0.2/24"]);
    port.virtual_addresses = vec![SERVICE_ADDRESS];
    port.gateways = gateways;
    Site {
        identity: identity.clone(),
        method: Method::Tls,
        policy: SelectNewServer::Immediate,
        on_limit: OnLimit::Refuse,
        servers: vec![SiteServer::new(0, server)],
        failover: Failover::default(),
        sharing: Sharing::default(),
        is_reencrypting: false,
        port,
        services: 1,
        idle: IDLE,
        probes: (Duration::from_secs(4), Duration::from_secs(4)),
    }
}

/// Most servers of a world whose generations change: each incarnation has a slot of its own.
const NUMBERS_MAX: u32 = 32;

/// A server as an engine is configured with it.
#[derive(Clone, Copy, Debug)]
pub struct SiteServer {
    /// Its number.
    pub number: u16,
    /// Where it listens.
    pub address: SocketAddr,
    /// Incarnation.
    pub generation: Generation,
    /// What it may be used for.
    pub state: State,
    /// Most connections at once.
    pub max_connections: Option<u32>,
    /// It is in the backup pool.
    pub is_backup: bool,
}

/// The services' pool, and the one that [`Failover`] may name as its backup.
pub const POOL: PoolId = PoolId(1);
/// The same.
pub const BACKUP: PoolId = PoolId(2);

impl SiteServer {
    /// The first incarnation of a server, which may be used without bounds.
    pub fn new(number: u16, address: SocketAddr) -> Self {
        Self {
            number,
            address,
            generation: Generation(0),
            state: State::Enabled,
            max_connections: None,
            is_backup: false,
        }
    }

    /// Its place on the health board and in the loads.
    pub fn slot(&self) -> Slot {
        Slot(u32::from(self.number) + NUMBERS_MAX * self.generation.0)
    }
}

/// What the engine is configured with: services, their pool, one port.
#[derive(Clone, Debug)]
pub struct Site {
    /// The services' certificate.
    pub identity: Identity,
    /// How a client is recognised.
    pub method: Method,
    /// What happens to a client whose server is down.
    pub policy: SelectNewServer,
    /// What happens to a client whose server has no place.
    pub on_limit: OnLimit,
    /// The servers.
    pub servers: Vec<SiteServer>,
    /// What the services' pool does when they fail.
    pub failover: Failover,
    /// What lowers its servers' shares.
    pub sharing: Sharing,
    /// Whether they are spoken to in TLS, verified by the services' own certificate.
    pub is_reencrypting: bool,
    /// The port; it answers for the service's address if that is in it.
    pub port: link::Settings,
    /// How many services there are, each at an address of its own: see [`service_address`].
    pub services: u32,
    /// How long a connection may be without a byte.
    pub idle: Duration,
    /// How often its monitor looks at a server, and how long it waits for it.
    pub probes: (Duration, Duration),
}

impl Site {
    /// The configuration for one lane.
    ///
    /// # Panics
    /// When the identity is not a certificate with its key.
    pub fn snapshot(&self, version: u64) -> Snapshot {
        let pool = Arc::new(self.pool(POOL, false).failing_over(self.failover).sharing(self.sharing));
        let backup = Arc::new(self.pool(BACKUP, true));
        let monitor = Monitor {
            interval: self.probes.0,
            timeout: self.probes.1,
            successful_checks: 1,
            failed_checks: 3,
            ..Monitor::connect("connect")
        };
        let services = (0..self.services).map(|number| Arc::new(self.service(number, &pool))).collect();
        let monitors = vec![Arc::new(monitor)];
        let pools = [pool, backup].map(|pool| MonitoredPool::by_all(pool, monitors.clone())).into();
        Snapshot { version, ports: vec![self.port.clone()], services, pools, targets: self.targets() }
    }

    fn targets(&self) -> Vec<(Slot, Arc<Target>)> {
        if !self.is_reencrypting {
            return Vec::new();
        }
        let authorities = Authorities::from_pem(self.identity.chain.as_bytes()).expect("the world's own certificate");
        let connector = Connector::new(&client::Settings {
            trust: Trust::Authorities(Arc::new(authorities)),
            certificate: None,
            versions: Versions::Tls12And13,
            alpn: Vec::new(),
            resumption: true,
        });
        let connector = connector.expect("the settings are complete");
        let name = Name::parse("shop.example").expect("a DNS name");
        self.servers.iter().map(|server| (server.slot(), Arc::new(connector.target(&name)))).collect()
    }

    fn service(&self, number: u32, pool: &Arc<Pool>) -> Service {
        let id = ServiceId(u64::from(number) + 1);
        let certificate = Certificate::from_pem(self.identity.chain.as_bytes(), self.identity.key.as_bytes())
            .expect("the world's own certificate");
        let profile = Profile {
            name: "sticky".into(),
            method: self.method,
            select_new_server_when_persistent_server_down: self.policy,
            on_limit: self.on_limit,
            max_mapping_age: None,
        };
        let versions = Versions::Tls12And13;
        let day = Duration::from_secs(24 * 3600);
        let tls = tls::Service::new(TlsSettings {
            certificates: vec![Arc::new(certificate)],
            strict_sni: false,
            client_certificates: None,
            versions,
            ciphers: Vec::new(),
            alpn: Vec::new(),
            tickets: Tickets {
                scope: Scope { cluster: [7; 32], service: id, policy: policy_hash(versions, None) },
                count: 2,
                tls12: true,
                lifetime: day,
                session_max: 7 * day,
                session_max_tls12: day / 2,
            },
            pool: Arc::clone(pool),
            profile: Some(Arc::new(profile)),
        });
        let seconds = Duration::from_secs;
        Service {
            id,
            name: "shop".into(),
            addresses: vec![service_address(number)],
            tls: Arc::new(tls.expect("the settings are complete")),
            proxy_protocol: None,
            timeouts: Timeouts {
                handshake: seconds(60),
                connect: seconds(20),
                idle: self.idle,
                half_closed: seconds(60),
            },
            tally: Arc::default(),
        }
    }

    fn pool(&self, id: PoolId, is_backup: bool) -> Pool {
        let servers = self.servers.iter().filter(|member| member.is_backup == is_backup);
        let servers = servers.map(|member| PoolServer {
            id: ServerId(u64::from(member.number) + 100),
            generation: member.generation,
            name: format!("server-{}", member.number),
            address: member.address,
            ratio: 1,
            state: member.state,
            max_connections: member.max_connections,
            slot: member.slot(),
        });
        let name = if is_backup { "backup" } else { "web" };
        let pool = Pool::new(id, name.into(), Algorithm::RoundRobin, servers.collect()).looked_at_every(self.probes.0);
        if self.is_reencrypting { pool.secured() } else { pool }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Arrivals, Cipher, Clients, Generator, Group, Identity as Who, Mode, Packets, Plan, Version};
    use crate::sim::clock::Clock as VirtualClock;

    #[test]
    fn a_breath_takes_256_frames_from_a_port_and_leaves_the_rest() {
        let (mut random, clock) = (Random::from_seed(1), VirtualClock::default());
        let ring = Arc::new(Ring::generate(clock.unix(), &mut random));
        let backing =
            Backing { id: EngineId(1), board: Arc::new(Board::new(1)), loads: Arc::new(Loads::new(1, 1)), ring };
        let mut engine = Engine::new(1, Offload::default(), &tcp::Settings::default(), &clock, &backing, &mut random);
        let received = || engine.handles[0].counters.lane.frames_received.value();
        for _ in 0..300 {
            assert!(engine.wire.push(&[0; 60], 0));
        }
        assert!(engine.lanes[0].breath());
        assert_eq!(received(), 256);
        assert!(engine.lanes[0].breath());
        assert_eq!(received(), 300);
        assert!(!engine.lanes[0].breath());
    }

    /// An engine and sixteen clients who come at once, again and again. Clients and servers take no time: whatever is for the lane is there when it breathes.
    struct Crowd {
        clock: VirtualClock,
        engine: Engine<VirtualClock>,
        generator: Generator<Packets<memory::Queue>, VirtualClock>,
        wire: Wire,
        identity: Identity,
        server: SocketAddr,
    }

    /// What a breath did.
    struct Breath {
        waited: u64,
        answered: u64,
        finished: u64,
    }

    impl Crowd {
        fn new() -> Self {
            let (mut random, clock) = (Random::from_seed(1), VirtualClock::default());
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate =
                rcgen::CertificateParams::new(["shop.example".into()]).unwrap().self_signed(&key).unwrap();
            let identity =
                Identity { chain: certificate.pem(), key: key.serialize_pem(), root: certificate.der().clone() };
            let server = "198.18.0.1:8000".parse().unwrap();
            let engine = Engine::serving(&identity, server, Vec::new(), &tcp::Settings::default(), &clock, &mut random);
            let plan = Plan {
                mode: Mode::Full,
                service: (SERVICE_ADDRESS, SERVICE_PORT).into(),
                sources: Vec::new(),
                connections: 16,
                rate: None,
                arrivals: Arrivals::Random,
                patience: Duration::from_secs(5),
                warm_up: Duration::ZERO,
                duration: Duration::from_millis(10),
                timeout: Duration::from_secs(5),
                bytes: 1,
                serve: vec![server],
                allow_failures: false,
                progress: false,
            };
            let who = Who {
                name: "shop.example".into(),
                version: Version::Tls13,
                group: Group::X25519,
                cipher: Cipher::Aes128,
                roots: None,
            };
            let (mut queues, wire) = memory::port(1, mac(1), 1500);
            let address = "198.18.0.1/24".parse().unwrap();
            let transport = Packets::new(queues.remove(0), address, Vec::new(), Vec::new(), random);
            let generator = Generator::new(plan, Clients::new(&who).unwrap(), transport, clock.clone()).unwrap();
            Self { clock, engine, generator, wire, identity, server }
        }

        /// Everybody's turn, the lane's last.
        fn turn(&mut self) -> Breath {
            self.clock.turn(self.clock.now() + Duration::from_micros(100));
            for _ in 0..16 {
                self.generator.breath();
            }
            while self.wire.pop_with(|frame| self.engine.wire.push(frame, 0)).is_some() {}
            let counters = Arc::clone(&self.engine.handles[0].counters);
            let finished = counters.relay.handshakes_tls13_full.value();
            let waited = counters.lane.handshakes_waiting.value();
            self.engine.lanes[0].breath();
            let mut answered = 0;
            while let Some(frame) = self.engine.wire.pop() {
                answered += u64::from(is_server_hello(&frame));
                self.wire.push(&frame, 0);
            }
            Breath { waited, answered, finished: counters.relay.handshakes_tls13_full.value() - finished }
        }
    }

    /// RFC 8446 5.1: of what a server sends, the ServerHello alone is a handshake record (22) that anyone can read. In front of it: Ethernet, IPv4, TCP.
    fn is_server_hello(frame: &[u8]) -> bool {
        let header = frame.get(46).map_or(0, |offset| usize::from(offset >> 4) * 4);
        frame.get(34 + header) == Some(&22)
    }

    #[test]
    fn a_breath_answers_one_client_hello_and_finishes_what_the_one_before_has_answered() {
        let mut crowd = Crowd::new();
        let (mut answered_before, mut finished, mut most_waiting) = (0, 0, 0);
        while !crowd.generator.is_over() {
            let breath = crowd.turn();
            assert!(breath.answered <= 1, "{} at once", breath.answered);
            assert!(breath.waited == 0 || breath.answered + breath.finished > 0, "nobody was served");
            // Who has been answered does not wait for those who have not.
            assert_eq!(breath.finished, answered_before);
            answered_before = breath.answered;
            finished += breath.finished;
            most_waiting = most_waiting.max(breath.waited);
        }
        let report = crowd.generator.report();
        assert_eq!(report.failed, 0, "{report}");
        assert!(most_waiting >= 14 && finished > 50, "{most_waiting} waiting, {finished} finished: {report}");
    }

    #[test]
    fn clients_are_answered_in_the_order_in_which_they_came() {
        let mut crowd = Crowd::new();
        while !crowd.generator.is_over() {
            crowd.turn();
        }
        let report = crowd.generator.report();
        // Each waits for the fifteen others, and nobody for others to be served twice.
        assert!(report.handshake.max < 1.4 * report.handshake.p50, "{report}");
    }

    /// Whether a frame is a server's, and whether it is a ClientHello to one. Behind the Ethernet header come IPv4 and TCP.
    fn is_of_server(frame: &[u8]) -> bool {
        frame.get(34..36) == Some(&8000_u16.to_be_bytes()) && frame.get(12..14) == Some(&[8, 0])
    }

    fn is_hello_to_server(frame: &[u8]) -> bool {
        frame.get(36..38) == Some(&8000_u16.to_be_bytes()) && is_server_hello(frame)
    }

    #[test]
    fn a_breath_takes_one_step_of_a_handshake_with_a_server() {
        const TURNS: std::ops::Range<usize> = 30..60;
        let mut crowd = Crowd::new();
        // In the midst of it the server is to be spoken to in TLS, and what it answers is held back until many clients wait for that.
        let (mut held, mut hellos, mut most) = (Vec::new(), 0, 0);
        for turn in 0..100 {
            if turn == TURNS.start {
                let site = Site { is_reencrypting: true, ..site(&crowd.identity, crowd.server, Vec::new()) };
                let order = Order::Configure(Box::new(site.snapshot(2)));
                crowd.engine.handles[0].inbox.push(order).expect("there is room");
            }
            crowd.clock.turn(crowd.clock.now() + Duration::from_micros(100));
            for _ in 0..16 {
                crowd.generator.breath();
            }
            while let Some(frame) = crowd.wire.pop() {
                if is_of_server(&frame) && TURNS.contains(&turn) {
                    held.push(frame);
                } else {
                    crowd.engine.wire.push(&frame, 0);
                }
            }
            if turn == TURNS.end {
                assert!(held.len() >= 10, "{} answers", held.len());
                held.drain(..).for_each(|frame| assert!(crowd.engine.wire.push(&frame, 0)));
            }
            crowd.engine.lanes[0].breath();
            let mut said = 0;
            while let Some(frame) = crowd.engine.wire.pop() {
                said += usize::from(is_hello_to_server(&frame));
                crowd.wire.push(&frame, 0);
            }
            most = most.max(said);
            hellos += said;
        }
        assert_eq!(most, 1);
        assert!(hellos >= 10, "{hellos} in all");
    }
}
