//! The engine of a world: its real lanes over a port in memory, and what it is configured with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::balance::{Algorithm, Board, Loads, Pool, Server as PoolServer, Slot};
use crate::base::{Duration, EngineId, Generation, LaneId, PoolId, Random, ServerId, ServiceId};
use crate::health::{Monitor, Monitors};
use crate::lane::{self, Clock, Handle, Lane, Order, Poll, Snapshot, Steering};
use crate::link;
use crate::nic::Offload;
use crate::nic::memory::{self, Wire};
use crate::persistence::{Method, Profile, SelectNewServer};
use crate::relay::{Service, Timeouts};
use crate::sim::host::{addresses, mac};
use crate::tcp;
use crate::ticket::{Ring, Scope};
use crate::tls::certificate::Certificate;
use crate::tls::service::{Settings as TlsSettings, Tickets, policy_hash};
use crate::tls::{self, Versions};

/// Where the engine's service listens.
pub const SERVICE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 10));
/// The service's port.
pub const SERVICE_PORT: u16 = 443;

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
                    engine: EngineId(1),
                    poll: Poll::Busy,
                    tcp: tcp.clone(),
                    ring: Arc::clone(&backing.ring),
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
            board: Arc::new(Board::new(1)),
            loads: Arc::new(Loads::new(1, 1)),
            ring: Arc::new(Ring::generate(unix, random)),
        };
        let engine = Self::new(1, Offload::default(), tcp, clock, &backing, random);
        let mut port = addresses(0, &["198.18.0.2/24"]);
        port.virtual_addresses = vec![SERVICE_ADDRESS];
        port.gateways = gateways;
        let site = Site {
            identity: identity.clone(),
            policy: SelectNewServer::Immediate,
            board: backing.board,
            servers: vec![(0, server, Generation(0))],
            port,
            has_service: true,
            probes: (Duration::from_secs(4), Duration::from_secs(4)),
        };
        for handle in &engine.handles {
            handle.inbox.push(Order::Configure(Box::new(site.snapshot(1)))).expect("the inbox is empty");
        }
        engine
    }
}

/// What the engine is configured with: one service, its pool, one port.
#[derive(Clone, Debug)]
pub struct Site {
    /// The service's certificate.
    pub identity: Identity,
    /// What happens to a client whose server is down.
    pub policy: SelectNewServer,
    /// Which servers are up.
    pub board: Arc<Board>,
    /// The servers: number, address, generation.
    pub servers: Vec<(u16, SocketAddr, Generation)>,
    /// The port; it answers for the service's address if that is in it.
    pub port: link::Settings,
    /// Whether there is a service at all.
    pub has_service: bool,
    /// How often its monitor looks at a server, and how long it waits for it.
    pub probes: (Duration, Duration),
}

impl Site {
    /// The configuration for one lane.
    ///
    /// # Panics
    /// When the identity is not a certificate with its key.
    pub fn snapshot(&self, version: u64) -> Snapshot {
        let pool = Arc::new(self.pool());
        let monitor = Monitor {
            name: "connect".into(),
            interval: self.probes.0,
            timeout: self.probes.1,
            successful_checks: 1,
            failed_checks: 3,
        };
        let services = if self.has_service { vec![Arc::new(self.service(&pool))] } else { Vec::new() };
        Snapshot { version, ports: vec![self.port.clone()], services, pools: vec![(pool, Some(monitor))] }
    }

    fn service(&self, pool: &Arc<Pool>) -> Service {
        let certificate = Certificate::from_pem(self.identity.chain.as_bytes(), self.identity.key.as_bytes())
            .expect("the world's own certificate");
        let profile = Profile {
            name: "sticky".into(),
            method: Method::Tls,
            select_new_server_when_persistent_server_down: self.policy,
            max_mapping_age: None,
        };
        let versions = Versions::Tls12And13;
        let day = Duration::from_secs(24 * 3600);
        let tls = tls::Service::new(TlsSettings {
            certificates: vec![Arc::new(certificate)],
            strict_sni: false,
            versions,
            ciphers: Vec::new(),
            alpn: Vec::new(),
            tickets: Tickets {
                scope: Scope { cluster: [7; 32], service: ServiceId(1), policy: policy_hash(versions) },
                count: 2,
                tls12: true,
                lifetime: day,
                session_max: 7 * day,
                session_max_tls12: day / 2,
            },
            pool: Arc::clone(pool),
            profile: Some(Arc::new(profile)),
            board: Arc::clone(&self.board),
        });
        let seconds = Duration::from_secs;
        Service {
            id: ServiceId(1),
            name: "shop".into(),
            addresses: vec![(SERVICE_ADDRESS, SERVICE_PORT).into()],
            tls: Arc::new(tls.expect("the settings are complete")),
            proxy_protocol: None,
            timeouts: Timeouts {
                handshake: seconds(60),
                connect: seconds(20),
                idle: seconds(120),
                half_closed: seconds(60),
            },
        }
    }

    fn pool(&self) -> Pool {
        let servers = self.servers.iter().map(|(number, address, generation)| PoolServer {
            id: ServerId(u64::from(*number) + 100),
            generation: *generation,
            name: format!("server-{number}"),
            address: *address,
            ratio: 1,
            enabled: true,
            slot: Slot(u32::from(*number)),
        });
        Pool::new(PoolId(1), "web".into(), Algorithm::RoundRobin, servers.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::Clock as VirtualClock;

    #[test]
    fn a_breath_takes_256_frames_from_a_port_and_leaves_the_rest() {
        let (mut random, clock) = (Random::from_seed(1), VirtualClock::default());
        let ring = Arc::new(Ring::generate(clock.unix(), &mut random));
        let backing = Backing { board: Arc::new(Board::new(1)), loads: Arc::new(Loads::new(1, 1)), ring };
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
}
