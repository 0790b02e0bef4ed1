//! A TLS service, clients and the pipe between them, in memory and in virtual time.

use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use crate::balance::testing::pool;
use crate::balance::{Algorithm, Backend, Board, LaneLoads, Loads, ServerIndex};
use crate::base::{Duration, EngineId, LaneId, Piece, Random, ServiceId, UnixTime};
use crate::persistence::{Method, OnLimit, Profile, SelectNewServer};
use crate::ticket::{Ring, Scope};
use crate::tls::certificate::Certificate;
use crate::tls::service::{Settings, Tickets, policy_hash};
use crate::tls::ticketer::Counters;
use crate::tls::{Desk, Failure, Handshake, Progress, Service, Session, Versions};

pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const NAME: &str = "shop.example";
pub(crate) const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
pub(crate) const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// A self-signed certificate: PEM chain and key.
pub(crate) struct Identity {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

impl Identity {
    pub(crate) fn ecdsa(names: &[&str]) -> Self {
        Self::new(names, &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    pub(crate) fn rsa(names: &[&str]) -> Self {
        static KEY: LazyLock<String> =
            LazyLock::new(|| KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem());
        Self::new(names, &KeyPair::from_pem(&KEY).unwrap())
    }

    fn new(names: &[&str], key: &KeyPair) -> Self {
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        let certificate = params.self_signed(key).unwrap();
        Self { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
    }

    pub(crate) fn certificate(&self) -> Arc<Certificate> {
        Arc::new(Certificate::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap())
    }
}

/// The identity that services have unless they are given others.
pub(crate) static SHOP: LazyLock<Identity> = LazyLock::new(|| Identity::ecdsa(&[NAME]));

pub(crate) fn profile(select: SelectNewServer) -> Arc<Profile> {
    Arc::new(Profile {
        name: "tls".to_owned(),
        method: Method::Tls,
        select_new_server_when_persistent_server_down: select,
        on_limit: OnLimit::Refuse,
        max_mapping_age: None,
    })
}

pub(crate) fn settings() -> Settings {
    let versions = Versions::Tls12And13;
    Settings {
        certificates: vec![SHOP.certificate()],
        strict_sni: false,
        client_certificates: None,
        versions,
        ciphers: Vec::new(),
        alpn: Vec::new(),
        tickets: Tickets {
            scope: Scope { cluster: [1; 32], service: ServiceId(2), policy: policy_hash(versions, None) },
            count: 2,
            tls12: true,
            lifetime: 24 * HOUR,
            session_max: 72 * HOUR,
            session_max_tls12: 12 * HOUR,
        },
        pool: Arc::new(pool(Algorithm::RoundRobin, &[1, 1, 1])),
        profile: Some(profile(SelectNewServer::Immediate)),
    }
}

/// Where all clients connect from.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));

/// A service on one lane of an engine.
pub(crate) struct Engine {
    pub(crate) service: Arc<Service>,
    pub(crate) desk: Box<Desk>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) board: Arc<Board>,
    /// Where clients may go. Nobody gives back a place.
    pub(crate) backend: Rc<Backend>,
}

impl Engine {
    pub(crate) fn new(settings: Settings, ring: &Arc<Ring>, id: u64) -> Self {
        Self::of(Service::new(settings).unwrap(), ring, id)
    }

    pub(crate) fn of(service: Service, ring: &Arc<Ring>, id: u64) -> Self {
        let counters = Arc::new(Counters::default());
        let mut desk =
            Box::new(Desk::new(EngineId(id), Arc::clone(ring), Random::from_seed(id), Arc::clone(&counters)));
        desk.set_time(NOW);
        let board = Arc::new(Board::new(3));
        let loads = Rc::new(LaneLoads::new(Arc::new(Loads::new(1, 3)), LaneId(0)));
        let backend =
            Rc::new(Backend::new(Arc::clone(service.pool()), Arc::clone(&board), loads, Random::from_seed(id)));
        Self { service: Arc::new(service), desk, counters, board, backend }
    }

    /// Has the next new client get this server.
    pub(crate) fn next_is(&mut self, server: ServerIndex) {
        let servers = self.service.pool().servers.len();
        let turns =
            (0..servers).find(|_| self.backend.next(CLIENT) == Some(server) || self.backend.choose(CLIENT).is_none());
        assert!(turns.is_some(), "{server:?} is never next");
    }

    /// The value of a counter.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let mut value = None;
        self.counters.read(&mut |reading| {
            if reading.name == name {
                value = Some(reading.value);
            }
        });
        value.unwrap_or_else(|| panic!("there is no counter {name}"))
    }

    /// A client's whole handshake, up to the tickets.
    pub(crate) fn visit(&mut self, client: &Arc<ClientConfig>) -> Handshake {
        self.connect(client, NAME).handshake.expect("the handshake succeeds")
    }

    pub(crate) fn connect(&mut self, client: &Arc<ClientConfig>, name: &str) -> Link {
        let mut link = Link::new(self, client, name);
        link.pump(self);
        link
    }
}

pub(crate) fn ring(seed: u64) -> Arc<Ring> {
    Arc::new(Ring::generate(NOW, &mut Random::from_seed(seed)))
}

/// A client that keeps its tickets from visit to visit, and trusts `identities`.
pub(crate) fn client_of(versions: &[&'static SupportedProtocolVersion], identities: &[&Identity]) -> ClientConfig {
    client_by(rustls::crypto::aws_lc_rs::default_provider(), versions, identities)
}

/// The same with a provider of its own.
pub(crate) fn client_by(
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
    identities: &[&Identity],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for identity in identities {
        roots.add(identity.der.clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(8);
    config.time_provider = Arc::new(StoppedClock);
    config
}

pub(crate) fn client(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    Arc::new(client_of(versions, &[&SHOP]))
}

/// A client's clock that stands still, so that the client never lets a ticket expire by itself.
#[derive(Debug)]
struct StoppedClock;

impl rustls::time_provider::TimeProvider for StoppedClock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(NOW.0)))
    }
}

/// A connection whose handshake is over.
pub(crate) fn established(versions: &[&'static SupportedProtocolVersion]) -> (Engine, Link) {
    let mut engine = Engine::new(settings(), &ring(1), 1);
    let link = engine.connect(&client(versions), NAME);
    assert!(link.handshake.is_some());
    (engine, link)
}

/// One connection.
pub(crate) struct Link {
    pub(crate) client: ClientConnection,
    pub(crate) session: Session,
    pub(crate) handshake: Option<Handshake>,
    pub(crate) failure: Option<Failure>,
    pub(crate) client_error: Option<rustls::Error>,
    /// Bytes that the client's segments have.
    pub(crate) segment: usize,
    /// What is on its way to the client.
    wire: Vec<u8>,
}

impl Link {
    pub(crate) fn new(engine: &Engine, client: &Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self {
            client: ClientConnection::new(Arc::clone(client), name).unwrap(),
            session: Session::new(&engine.service, CLIENT),
            handshake: None,
            failure: None,
            client_error: None,
            segment: 1460,
            wire: Vec::new(),
        }
    }

    /// Moves bytes both ways until nobody has any.
    pub(crate) fn pump(&mut self, engine: &mut Engine) {
        for _ in 0..1000 {
            let sent = self.carry_to_server(engine);
            let answered = self.carry_to_client();
            if !sent && !answered {
                return;
            }
        }
        panic!("the two talk without end");
    }

    /// Carries what the client has to send, and lets the session work after each segment.
    pub(crate) fn carry_to_server(&mut self, engine: &mut Engine) -> bool {
        let bytes = self.flight();
        for segment in bytes.chunks(self.segment) {
            if self.failure.is_none() {
                self.give(engine, segment);
            }
        }
        !bytes.is_empty()
    }

    /// What the client has to send.
    pub(crate) fn flight(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Gives the session one segment and lets it work.
    pub(crate) fn give(&mut self, engine: &mut Engine, segment: &[u8]) {
        let progress = self.session.on_data(segment).and_then(|taken| {
            assert_eq!(taken, segment.len(), "the session has no room");
            self.session.advance(&mut engine.desk, &engine.backend)
        });
        match progress {
            Ok(Progress::Established(handshake)) => {
                assert!(self.handshake.replace(handshake).is_none(), "established is said once");
            }
            Ok(Progress::Handshaking) => assert!(self.handshake.is_none()),
            Ok(Progress::Open) => assert!(self.handshake.is_some()),
            Err(failure) => self.failure = Some(failure),
        }
    }

    /// Puts what the session has to say on the wire.
    fn transmit(&mut self) {
        self.session.poll_transmit(|chunk| {
            self.wire.extend_from_slice(chunk);
            chunk.len()
        });
        assert!(!self.session.has_output());
    }

    /// Has the session seal as much of the data as a record of so many bytes has room for.
    pub(crate) fn seal(&mut self, data: &[u8], room: usize) -> Result<Option<(usize, Piece)>, Failure> {
        self.session.seal(room, |most| Some(Piece::from(&data[..most.min(data.len())])))
    }

    /// Has the session seal data for the client, and gives how much of it; all, if it may.
    pub(crate) fn write(&mut self, data: &[u8]) -> usize {
        let mut written = 0;
        while written < data.len() {
            self.transmit();
            match self.seal(&data[written..], usize::MAX) {
                Ok(Some((taken, record))) => {
                    written += taken;
                    self.wire.extend(record.bytes());
                }
                Ok(None) if self.session.has_output() => {}
                Ok(None) => break,
                Err(failure) => {
                    self.failure = Some(failure);
                    break;
                }
            }
        }
        written
    }

    /// Carries what the session has to send.
    pub(crate) fn carry_to_client(&mut self) -> bool {
        self.transmit();
        let bytes = std::mem::take(&mut self.wire);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && self.client_error.is_none() {
            if self.client.read_tls(&mut rest).unwrap() == 0 {
                break;
            }
            self.client_error = self.client.process_new_packets().err();
        }
        !bytes.is_empty()
    }

    /// All plaintext that the client has sent and the session has not handed out.
    pub(crate) fn received(&mut self) -> Vec<u8> {
        self.session.take(usize::MAX).unwrap_or_default().bytes().to_vec()
    }

    /// All that the client has received and its user has not read.
    pub(crate) fn read_all(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Ok(chunk @ [_, ..]) = self.client.reader().fill_buf() {
            let len = chunk.len();
            bytes.extend_from_slice(chunk);
            self.client.reader().consume(len);
        }
        bytes
    }
}
