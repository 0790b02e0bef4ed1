//! What a handshake costs a whole lane, beside rustls alone: the distance to the limit without a NIC, and without a second core.
//!
//! The load generator and a lane take turns on one thread, with a wire in memory between them, in virtual time; only the lane's breaths are timed, in CPU time.
//! That is frames in, TCP on both sides, TLS, the ticket, the server's connection, records and frames out. The limit is rustls in memory with the same
//! provider, certificate and suites. Both take turns, so that a noisy machine is noisy for both.
//!
//! `cargo bench --no-default-features --bench lane`; `-- NAME` for the rows whose name has it, `-- --rounds N`
//!
//! `-- NAME --visits N` makes so many visits for callgrind, whose counts no other work on the machine spoils: of the lane's breaths, or with `--limit` of rustls
//! alone. `valgrind --tool=callgrind --collect-atstart=no '--toggle-collect=*counted*' target/release/deps/lane-… NAME --visits 1000`

#[path = "common/cpu.rs"]
mod cpu;
#[path = "common/meet.rs"]
mod meet;
#[path = "common/unsealed.rs"]
mod unsealed;

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{
    CipherSuite, ClientConfig, HandshakeKind, NamedGroup, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};
use sealane::base::{Duration, Random};
use sealane::lane::Lane;
use sealane::load::{Arrivals, Cipher, Clients, Generator, Group, Identity, Mode, Packets, Plan, Version};
use sealane::nic::memory::{self, Wire};
use sealane::sim;
use sealane::sim::clock::Clock;
use sealane::sim::engine::{Engine, SERVICE_ADDRESS, SERVICE_PORT};
use sealane::sim::host::mac;

use cpu::cpu;
use meet::{Answer, NAME, meet, rustls_of};
use unsealed::Unsealed;

// That of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ADDRESS: &str = "198.18.0.1/24";
const SERVER: &str = "198.18.0.1:8000";
/// Connections at once: more than a breath has handshake steps for.
const CONNECTIONS: usize = 64;
/// What a round of everybody takes.
const ROUND: Duration = Duration::from_micros(300);
/// The lane's CPU time, or the limit's, in a round.
const NANOSECONDS: u64 = 200_000_000;

struct Row {
    name: &'static str,
    version: Version,
    mode: Mode,
    bytes: u64,
}

const ROWS: [Row; 6] = [
    Row { name: "TLS 1.3 full P-256", version: Version::Tls13, mode: Mode::Full, bytes: 1 },
    Row { name: "TLS 1.3 resumed", version: Version::Tls13, mode: Mode::Resumed, bytes: 1 },
    Row { name: "TLS 1.2 full P-256", version: Version::Tls12, mode: Mode::Full, bytes: 1 },
    Row { name: "TLS 1.2 resumed", version: Version::Tls12, mode: Mode::Resumed, bytes: 1 },
    Row { name: "responses of 1 MiB", version: Version::Tls13, mode: Mode::Download, bytes: 1 << 20 },
    Row { name: "uploads of 1 MiB", version: Version::Tls13, mode: Mode::Upload, bytes: 1 << 20 },
];

/// An engine of one lane and a generator, with a wire between them.
struct Bench {
    clock: Clock,
    engine: Engine<Clock>,
    wire: Wire,
    generator: Generator<Packets<memory::Queue>, Clock>,
    /// What reading the clock twice costs.
    reading: u64,
}

impl Bench {
    fn new(row: &Row, identity: &sim::Identity) -> Self {
        let mut random = Random::from_seed(1);
        let clock = Clock::default();
        let server = SERVER.parse().expect("an address");
        let engine =
            Engine::serving(identity, server, Vec::new(), &sealane::tcp::Settings::default(), &clock, &mut random);
        let (mut queues, wire) = memory::port(1, mac(1), 1500);
        let address = ADDRESS.parse().expect("an address");
        let transport = Packets::new(queues.remove(0), address, Vec::new(), Vec::new(), random);
        let client = Identity {
            name: NAME.into(),
            version: row.version,
            group: Group::X25519,
            cipher: Cipher::Aes128,
            roots: None,
        };
        let clients = Clients::new(&client).expect("it is a client");
        let generator = Generator::new(plan(row), clients, transport, clock.clone()).expect("nothing can be refused");
        let reading = (0..1000).map(|_| cpu().abs_diff(cpu())).min().unwrap_or(0);
        Self { clock, engine, wire, generator, reading }
    }

    /// Everybody's turn; what the lane's breath took, if it had anything to do.
    fn turn(&mut self) -> u64 {
        let reading = self.reading;
        self.turn_with(|lane| {
            let begin = cpu();
            let was_busy = lane.breath();
            let spent = (cpu() - begin).saturating_sub(reading);
            if was_busy { spent } else { 0 }
        })
    }

    fn turn_with<R: Default>(&mut self, breath: impl FnOnce(&mut Lane<memory::Queue, Clock>) -> R) -> R {
        self.clock.turn(self.clock.now() + ROUND);
        self.generator.breath();
        while self.wire.pop_with(|frame| self.engine.wire.push(frame, 0)).is_some() {}
        let Some(lane) = self.engine.lanes.first_mut() else { return R::default() };
        let result = breath(lane);
        while self.engine.wire.pop_with(|frame| self.wire.push(frame, 0)).is_some() {}
        result
    }

    /// Handshakes or bytes so far.
    fn done(&self, row: &Row) -> u64 {
        let report = self.generator.report();
        match row.mode {
            Mode::Full => report.full_handshakes,
            Mode::Resumed => report.resumed_handshakes,
            Mode::Download | Mode::Upload | Mode::Requests | Mode::Idle => report.bytes_received + report.bytes_sent,
        }
    }

    /// Nanoseconds each.
    fn round(&mut self, row: &Row) -> f64 {
        let (begin, mut spent) = (self.done(row), 0);
        while spent < NANOSECONDS {
            spent += self.turn();
        }
        spent as f64 / (self.done(row) - begin) as f64
    }
}

fn plan(row: &Row) -> Plan {
    let for_ever = Duration::from_secs(100_000);
    Plan {
        mode: row.mode,
        service: (SERVICE_ADDRESS, SERVICE_PORT).into(),
        sources: Vec::new(),
        connections: if matches!(row.mode, Mode::Download | Mode::Upload) { 4 } else { CONNECTIONS },
        rate: None,
        arrivals: Arrivals::Random,
        patience: Duration::from_secs(5),
        warm_up: Duration::ZERO,
        duration: for_ever,
        timeout: Duration::from_secs(5),
        bytes: row.bytes,
        serve: vec![SERVER.parse().expect("an address")],
        allow_failures: false,
        progress: false,
    }
}

/// So many visits to a lane, and what they come to.
fn visit(bench: &mut Bench, row: &Row, visits: u64) {
    // With what only the first do: entropy, full handshakes of clients that then return, buffers.
    while bench.done(row) < 10 * CONNECTIONS as u64 {
        bench.turn();
    }
    let read = |bench: &Bench| {
        bench.engine.handles.first().map_or([0; 3], |handle| {
            let counters = &handle.counters.lane;
            [counters.breaths.value(), counters.frames_received.value(), counters.frames_sent.value()]
        })
    };
    let (begin, before) = (bench.done(row), read(bench));
    while bench.done(row) - begin < visits {
        bench.turn_with(counted_breath);
    }
    let (visits, after) = (bench.done(row) - begin, read(bench));
    let each = |at: fn(&[u64; 3]) -> u64| (at(&after) - at(&before)) as f64 / visits as f64;
    let (breaths, received, sent) =
        (each(|[breaths, ..]| *breaths), each(|[_, received, _]| *received), each(|[.., sent]| *sent));
    println!("  {:20} {visits} visits; each: {breaths:.2} breaths, {received:.2} frames in, {sent:.2} out", row.name);
}

/// What callgrind is to count.
#[inline(never)]
fn counted_breath(lane: &mut Lane<memory::Queue, Clock>) -> bool {
    lane.breath()
}

/// What callgrind is to count of the limit.
struct Counted(ServerConnection);

impl Counted {
    #[inline(never)]
    fn new(config: &Arc<ServerConfig>) -> Self {
        Self(rustls_of(config))
    }
}

impl Answer for Counted {
    #[inline(never)]
    fn answer(&mut self, flight: &[u8], answer: &mut Vec<u8>) {
        self.0.answer(flight, answer);
    }
}

/// rustls with itself.
struct Limit {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    kind: Option<HandshakeKind>,
}

impl Limit {
    fn new(row: &Row, identity: &sim::Identity) -> Self {
        let versions: &[&SupportedProtocolVersion] = match row.version {
            Version::Tls12 => &[&rustls::version::TLS12],
            Version::Tls13 => &[&rustls::version::TLS13],
        };
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("it is a key");
        let chain = vec![CertificateDer::from_pem_slice(identity.chain.as_bytes()).expect("it is a certificate")];
        let mut server = ServerConfig::builder_with_provider(Arc::new(sealane::tls::provider::provider()))
            .with_protocol_versions(versions)
            .expect("the provider speaks it")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key is the certificate's");
        // As many as the simulation's services.
        server.send_tls13_tickets = 2;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = Arc::new(Unsealed);
        let mut roots = RootCertStore::empty();
        roots.add(identity.root.clone()).expect("it is a certificate");
        // The client that the load generator is.
        let mut provider = sealane::tls::provider::provider();
        provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
        let suites = [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
        provider.cipher_suites.retain(|suite| suites.contains(&suite.suite()));
        let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("the provider speaks it")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let resumes = matches!(row.mode, Mode::Resumed);
        client.resumption = if resumes { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
        let kind = Some(if resumes { HandshakeKind::Resumed } else { HandshakeKind::Full });
        Self { server: Arc::new(server), client: Arc::new(client), kind }
    }

    /// So many handshakes.
    fn visit(&self, row: &Row, visits: u64) {
        meet(&self.client, || rustls_of(&self.server));
        for _ in 0..visits {
            meet(&self.client, || Counted::new(&self.server));
        }
        println!("  {:20} {visits} handshakes of rustls alone", row.name);
    }

    /// Nanoseconds each.
    fn round(&self) -> f64 {
        // The first of a client that returns is a full one.
        meet(&self.client, || rustls_of(&self.server));
        let (mut spent, mut count) = (0, 0u32);
        while spent < NANOSECONDS {
            let met = meet(&self.client, || rustls_of(&self.server));
            assert_eq!((met.client.handshake_kind(), met.server.handshake_kind()), (self.kind, self.kind));
            spent += met.nanos;
            count += 1;
        }
        spent as f64 / f64::from(count)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut arguments = arguments.iter();
    let (mut rounds, mut wanted, mut visits, mut of_limit) = (7, None, None, false);
    let number = |text: Option<&String>| text.and_then(|text| text.parse().ok()).expect("a number");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = number(arguments.next()),
            "--visits" => visits = Some(number(arguments.next())),
            "--limit" => of_limit = true,
            name => wanted = Some(name),
        }
    }
    let key = rcgen::KeyPair::generate().expect("there is randomness");
    let params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).expect("it is a name");
    let certificate = params.self_signed(&key).expect("the key signs");
    let identity =
        sim::Identity { chain: certificate.pem(), key: key.serialize_pem(), root: certificate.der().clone() };
    println!("{rounds} rounds, medians");
    for row in ROWS.iter().filter(|row| wanted.is_none_or(|wanted| row.name.contains(wanted))) {
        let (mut bench, limit) = (Bench::new(row, &identity), Limit::new(row, &identity));
        if let Some(visits) = visits {
            if of_limit {
                limit.visit(row, visits)
            } else {
                visit(&mut bench, row, visits)
            }
            continue;
        }
        // Its first handshakes gather entropy, and those of clients that return are full.
        bench.round(row);
        match row.mode {
            Mode::Full | Mode::Resumed => {
                let pairs: Vec<_> = (0..rounds).map(|_| (limit.round(), bench.round(row))).collect();
                let limit = median(pairs.iter().map(|(limit, _)| limit / 1e3));
                let lane = median(pairs.iter().map(|(_, lane)| lane / 1e3));
                let ratio = median(pairs.iter().map(|(limit, lane)| limit / lane));
                println!("  {:20} lane {lane:6.1} µs, limit {limit:6.1} µs, limit / lane {ratio:.2}", row.name);
            }
            Mode::Download | Mode::Upload | Mode::Requests | Mode::Idle => {
                let lane = median((0..rounds).map(|_| bench.round(row)));
                println!("  {:20} lane {lane:6.3} ns a byte, {:.2} GB/s", row.name, 1.0 / lane);
            }
        }
        let report = bench.generator.report();
        assert_eq!(report.failed, 0, "{report}");
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
