//! Which crypto library does what best: the measurement behind `sealane::tls::provider`.
//!
//! Each candidate is a rustls provider, pure or mixed. A server with it and a client that is the same for all talk in memory; only
//! the server's calls are timed, in CPU time of the thread. Candidates take turns within a round, and every figure is a ratio to `aws-lc-rs` within its round (more is
//! better), as median and best over the rounds.
//!
//! `cargo bench --no-default-features --bench provider`; `OPENSSL_ia32cap=':~0xC0030000'` in the environment hides AVX-512 from aws-lc-rs.

#[path = "common/cpu.rs"]
mod cpu;
#[path = "common/unsealed.rs"]
mod unsealed;

use std::io::Write;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};

use cpu::cpu;
use unsealed::Unsealed;

const ROUNDS: usize = 9;
const HANDSHAKES: usize = 150;
const RESUMED12: usize = 1000;
const RECORDS: usize = 2000;
const RECORD: usize = 16_384;

type Names = [&'static str; 9];
const CANDIDATES: Names = [
    "aws-lc-rs",
    "ring",
    "graviola",
    "aws kx+sign, ring suites",
    "aws kx+sign, graviola suites",
    "graviola kx+sign, aws suites",
    "graviola kx+sign, ring suites",
    "graviola kx, aws sign+suites",
    "ring kx, aws sign+suites",
];

fn candidates() -> Vec<CryptoProvider> {
    let (aws, ring, graviola) =
        (aws_lc_rs::default_provider(), ring::default_provider(), rustls_graviola::default_provider());
    let mix = |kx: &CryptoProvider, sign: &CryptoProvider, suites: &CryptoProvider| CryptoProvider {
        cipher_suites: suites.cipher_suites.clone(),
        kx_groups: kx.kx_groups.clone(),
        signature_verification_algorithms: sign.signature_verification_algorithms,
        // The operating system's or a generator over it: not what is compared.
        secure_random: aws.secure_random,
        key_provider: sign.key_provider,
    };
    vec![
        mix(&aws, &aws, &aws),
        mix(&ring, &ring, &ring),
        mix(&graviola, &graviola, &graviola),
        mix(&aws, &aws, &ring),
        mix(&aws, &aws, &graviola),
        mix(&graviola, &graviola, &aws),
        mix(&graviola, &graviola, &ring),
        mix(&graviola, &aws, &aws),
        mix(&ring, &aws, &aws),
    ]
}

struct Scenario {
    name: &'static str,
    version: &'static SupportedProtocolVersion,
    group: NamedGroup,
    kind: HandshakeKind,
    handshakes: usize,
}

const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "1.3 full",
        version: &rustls::version::TLS13,
        group: NamedGroup::X25519,
        kind: HandshakeKind::Full,
        handshakes: HANDSHAKES,
    },
    Scenario {
        name: "1.3 resumed",
        version: &rustls::version::TLS13,
        group: NamedGroup::X25519,
        kind: HandshakeKind::Resumed,
        handshakes: HANDSHAKES,
    },
    Scenario {
        name: "1.2 full",
        version: &rustls::version::TLS12,
        group: NamedGroup::X25519,
        kind: HandshakeKind::Full,
        handshakes: HANDSHAKES,
    },
    Scenario {
        name: "1.2 resumed",
        version: &rustls::version::TLS12,
        group: NamedGroup::X25519,
        kind: HandshakeKind::Resumed,
        handshakes: RESUMED12,
    },
    Scenario {
        name: "1.3 full, MLKEM",
        version: &rustls::version::TLS13,
        group: NamedGroup::X25519MLKEM768,
        kind: HandshakeKind::Full,
        handshakes: HANDSHAKES,
    },
];

struct Identity {
    certificate: rustls::pki_types::CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn server(provider: &CryptoProvider, scenario: &Scenario, identity: &Identity) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_protocol_versions(&[scenario.version])
        .expect("the provider speaks it")
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .expect("the key is the certificate's");
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(Unsealed);
    Arc::new(config)
}

fn client(scenario: &Scenario, identity: &Identity) -> Arc<ClientConfig> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups.retain(|group| group.name() == scenario.group);
    provider.cipher_suites.retain(|suite| {
        [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
            .contains(&suite.suite())
    });
    let mut roots = RootCertStore::empty();
    roots.add(identity.certificate.clone()).expect("the certificate parses");
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[scenario.version])
        .expect("the provider speaks it")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = match scenario.kind {
        HandshakeKind::Resumed => Resumption::in_memory_sessions(8),
        HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest => Resumption::disabled(),
    };
    Arc::new(config)
}

/// One handshake; the CPU time of the server's part of it.
fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> (u64, ServerConnection, ClientConnection) {
    let name = ServerName::try_from("bench.example").expect("it is a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("the client is configured");
    let mut buffer = Vec::with_capacity(65_536);
    let begin = cpu();
    let mut server = ServerConnection::new(Arc::clone(server)).expect("the server is configured");
    let mut spent = cpu() - begin;
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        buffer.clear();
        while client.wants_write() {
            client.write_tls(&mut buffer).expect("a Vec takes all");
        }
        let begin = cpu();
        let mut input = buffer.as_slice();
        while !input.is_empty() {
            server.read_tls(&mut input).expect("there is room");
            server.process_new_packets().expect("the client is well-behaved");
        }
        let mut output = Vec::with_capacity(4096);
        while server.wants_write() {
            server.write_tls(&mut output).expect("a Vec takes all");
        }
        spent += cpu() - begin;
        let mut input = output.as_slice();
        while !input.is_empty() {
            client.read_tls(&mut input).expect("there is room");
            client.process_new_packets().expect("the server is well-behaved");
        }
    }
    (spent, server, client)
}

/// CPU nanoseconds a handshake.
fn handshakes(provider: &CryptoProvider, scenario: &Scenario, identity: &Identity) -> f64 {
    let (server, client) = (server(provider, scenario, identity), client(scenario, identity));
    handshake(&server, &client);
    let mut spent = 0;
    for _ in 0..scenario.handshakes {
        let (time, connection, _) = handshake(&server, &client);
        assert_eq!(connection.handshake_kind(), Some(scenario.kind));
        spent += time;
    }
    spent as f64 / scenario.handshakes as f64
}

/// CPU nanoseconds to encrypt and to decrypt a full record.
fn records(provider: &CryptoProvider, identity: &Identity) -> (f64, f64) {
    let scenario = &SCENARIOS[0];
    let (_, mut server, mut client) = handshake(&server(provider, scenario, identity), &client(scenario, identity));
    let data = vec![7; RECORD];
    let mut wire = Vec::with_capacity(2 * RECORD);
    let (mut encrypting, mut decrypting) = (0, 0);
    for _ in 0..RECORDS {
        wire.clear();
        let begin = cpu();
        server.writer().write_all(&data).expect("there is room");
        while server.wants_write() {
            server.write_tls(&mut wire).expect("a Vec takes all");
        }
        encrypting += cpu() - begin;

        wire.clear();
        client.writer().write_all(&data).expect("there is room");
        while client.wants_write() {
            client.write_tls(&mut wire).expect("a Vec takes all");
        }
        let begin = cpu();
        let mut input = wire.as_slice();
        while !input.is_empty() {
            server.read_tls(&mut input).expect("there is room");
            server.process_new_packets().expect("the client is well-behaved");
        }
        let mut reader = server.reader();
        while let Ok(chunk @ [_, ..]) = std::io::BufRead::fill_buf(&mut reader) {
            let n = chunk.len();
            std::io::BufRead::consume(&mut reader, n);
        }
        decrypting += cpu() - begin;
    }
    (encrypting as f64 / RECORDS as f64, decrypting as f64 / RECORDS as f64)
}

/// Runs `measure` for each candidate in turn, round after round, and prints the ratios.
fn compare(title: &str, unit: &str, mut measure: impl FnMut(&CryptoProvider) -> Option<f64>) {
    let candidates = candidates();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(candidates.iter().map(&mut measure).collect::<Vec<_>>());
    }
    println!("\n{title}");
    for (at, name) in CANDIDATES.iter().enumerate() {
        let of = |round: &Vec<Option<f64>>, at: usize| round.get(at).copied().flatten();
        let mut times: Vec<f64> = rounds.iter().filter_map(|round| of(round, at)).collect();
        let mut ratios: Vec<f64> = rounds.iter().filter_map(|round| Some(of(round, 0)? / of(round, at)?)).collect();
        times.sort_by(f64::total_cmp);
        ratios.sort_by(f64::total_cmp);
        match (ratios.get(ratios.len() / 2), ratios.last(), times.get(times.len() / 2)) {
            (Some(median), Some(best), Some(time)) => {
                println!("  {name:32} median {median:5.2}  best {best:5.2}  ({:.1} {unit})", time / 1000.0);
            }
            _ => println!("  {name:32} -"),
        }
    }
}

fn main() {
    let key = rcgen::KeyPair::generate().expect("there is randomness");
    let certificate =
        rcgen::CertificateParams::new(vec!["bench.example".to_owned()]).expect("it is a name").self_signed(&key);
    let identity = Identity {
        certificate: certificate.expect("the key signs").der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).expect("it is PKCS#8"),
    };
    println!("ratio of handshakes or bytes a CPU-second to aws-lc-rs; {ROUNDS} rounds; in brackets the median time");
    for scenario in &SCENARIOS {
        compare(scenario.name, "µs", |provider| {
            provider
                .kx_groups
                .iter()
                .any(|group| group.name() == scenario.group)
                .then(|| handshakes(provider, scenario, &identity))
        });
    }
    compare("AES-128-GCM records, encrypt", "µs a record", |provider| Some(records(provider, &identity).0));
    compare("AES-128-GCM records, decrypt", "µs a record", |provider| Some(records(provider, &identity).1));
}
