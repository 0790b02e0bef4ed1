//! What our TLS sessions cost beside rustls alone: the distance to the limit.
//!
//! The limit is rustls in memory with the same provider, certificate and suites, and tickets that are not sealed at all. Ours adds the session's
//! bookkeeping, the desk, the decision and the seal. Both take turns, only the server's calls are timed, in CPU time of the thread.
//!
//! `cargo bench --no-default-features --bench tls`

#[path = "common/cpu.rs"]
mod cpu;
#[path = "common/meet.rs"]
mod meet;
#[path = "common/unsealed.rs"]
mod unsealed;

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use sealane::balance::{Algorithm, Backend, Board, LaneLoads, Loads, Pool, Server, ServerIndex, Slot, State};
use sealane::base::{Duration, EngineId, Generation, LaneId, PoolId, Random, ServerId, ServiceId, UnixTime};
use sealane::persistence::{Method, OnLimit, Profile, SelectNewServer};
use sealane::ticket::{Ring, Scope};
use sealane::tls::certificate::Certificate;
use sealane::tls::service::{Settings, Tickets, policy_hash};
use sealane::tls::ticketer::Counters;
use sealane::tls::{Desk, Progress, Service, Session, Versions};

use meet::{Answer, NAME, meet, rustls_of};
use unsealed::Unsealed;

const ROUNDS: usize = 9;

struct Ours<'a> {
    session: Session,
    desk: &'a mut Desk,
    backend: &'a Rc<Backend>,
}

impl Answer for Ours<'_> {
    fn answer(&mut self, flight: &[u8], answer: &mut Vec<u8>) {
        let taken = self.session.on_data(flight).expect("it is TLS");
        assert_eq!(taken, flight.len(), "a flight fits");
        if let Progress::Established(handshake) =
            self.session.advance(self.desk, self.backend).expect("the client is well-behaved")
        {
            assert_eq!(handshake.decision.server, Some(ServerIndex(0)));
        }
        self.session.poll_transmit(|chunk| {
            answer.extend_from_slice(chunk);
            chunk.len()
        });
    }
}

struct Bench {
    limit: Arc<ServerConfig>,
    service: Arc<Service>,
    backend: Rc<Backend>,
    desk: Desk,
    certificate: CertificateDer<'static>,
}

impl Bench {
    fn new(versions: &[&'static SupportedProtocolVersion]) -> Self {
        let key = rcgen::KeyPair::generate().expect("there is randomness");
        let params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).expect("it is a name");
        let certificate = params.self_signed(&key).expect("the key signs");
        let mut limit = ServerConfig::builder_with_provider(Arc::new(sealane::tls::provider::provider()))
            .with_protocol_versions(versions)
            .expect("the provider speaks it")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("it is PEM"),
            )
            .expect("the key is the certificate's");
        limit.send_tls13_tickets = 2;
        limit.session_storage = Arc::new(NoServerSessionStorage {});
        limit.ticketer = Arc::new(Unsealed);
        let settings = settings(
            Certificate::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).expect("it is valid"),
        );
        let mut random = Random::from_seed(1);
        let now = UnixTime(1_800_000_000);
        let ring = Arc::new(Ring::generate(now, &mut random));
        let mut desk = Desk::new(EngineId(1), ring, random, Arc::new(Counters::default()));
        desk.set_time(now);
        let loads = Rc::new(LaneLoads::new(Arc::new(Loads::new(1, 1)), LaneId(0)));
        let backend = Backend::new(Arc::clone(&settings.pool), Arc::new(Board::new(1)), loads, Random::from_seed(2));
        Self {
            limit: Arc::new(limit),
            service: Arc::new(Service::new(settings).expect("the settings are right")),
            backend: Rc::new(backend),
            desk,
            certificate: certificate.der().clone(),
        }
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion], resumes: bool) -> Arc<ClientConfig> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("the certificate parses");
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("the provider speaks it")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = if resumes { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
        Arc::new(config)
    }

    /// CPU nanoseconds a handshake: the limit's and ours.
    fn round(&mut self, versions: &[&'static SupportedProtocolVersion], resumes: bool, count: usize) -> (f64, f64) {
        let (limit_client, our_client) = (self.client(versions, resumes), self.client(versions, resumes));
        let (mut limit, mut ours) = (0, 0);
        for at in 0..=count {
            let theirs = meet(&limit_client, || rustls_of(&self.limit));
            let Self { service, desk, backend, .. } = self;
            let mine = meet(&our_client, || Ours {
                session: Session::new(service, Ipv4Addr::LOCALHOST.into()),
                desk,
                backend,
            });
            if at > 0 {
                let kind = Some(if resumes { HandshakeKind::Resumed } else { HandshakeKind::Full });
                assert_eq!((theirs.client.handshake_kind(), mine.client.handshake_kind()), (kind, kind));
                assert!(!mine.server.session.is_handshaking());
                limit += theirs.nanos;
                ours += mine.nanos;
            }
        }
        (limit as f64 / count as f64, ours as f64 / count as f64)
    }
}

fn settings(certificate: Certificate) -> Settings {
    let server = Server {
        id: ServerId(1),
        generation: Generation(1),
        name: "one".to_owned(),
        address: ([198, 18, 0, 1], 80).into(),
        ratio: 1,
        state: State::Enabled,
        max_connections: None,
        slot: Slot(0),
    };
    let hours = |hours: u64| Duration::from_secs(3600 * hours);
    Settings {
        certificates: vec![Arc::new(certificate)],
        strict_sni: false,
        client_certificates: None,
        versions: Versions::Tls12And13,
        ciphers: Vec::new(),
        alpn: Vec::new(),
        tickets: Tickets {
            scope: Scope { cluster: [1; 32], service: ServiceId(1), policy: policy_hash(Versions::Tls12And13, None) },
            count: 2,
            tls12: true,
            lifetime: hours(24),
            session_max: hours(72),
            session_max_tls12: hours(12),
        },
        pool: Arc::new(Pool::new(PoolId(1), "pool".to_owned(), Algorithm::RoundRobin, vec![server])),
        profile: Some(Arc::new(Profile {
            name: "tls".to_owned(),
            method: Method::Tls,
            select_new_server_when_persistent_server_down: SelectNewServer::Immediate,
            on_limit: OnLimit::Switch,
            max_mapping_age: None,
        })),
    }
}

fn main() {
    println!("limit / ours, 1.0 = our part costs nothing; {ROUNDS} rounds; in brackets the median times");
    for (name, versions, resumes, count) in [
        ("1.3 full", [&rustls::version::TLS13], false, 300),
        ("1.3 resumed", [&rustls::version::TLS13], true, 300),
        ("1.2 full", [&rustls::version::TLS12], false, 300),
        ("1.2 resumed", [&rustls::version::TLS12], true, 2000),
    ] {
        let mut bench = Bench::new(&versions);
        let mut rounds: Vec<_> = (0..ROUNDS).map(|_| bench.round(&versions, resumes, count)).collect();
        rounds.sort_by(|(limit, ours), (other_limit, others)| (limit / ours).total_cmp(&(other_limit / others)));
        if let (Some((limit, ours)), Some((best_limit, best_ours))) = (rounds.get(ROUNDS / 2), rounds.last()) {
            let (limit_us, ours_us) = (limit / 1000.0, ours / 1000.0);
            println!(
                "  {name:12} median {:.2}  best {:.2}  ({limit_us:.1} / {ours_us:.1} µs)",
                limit / ours,
                best_limit / best_ours
            );
        }
    }
    println!("a session takes {} bytes before it allocates", size_of::<Session>());
}
