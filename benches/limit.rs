//! The limit: what rustls itself does on one core, in memory, with a certificate that is given. Measured by `scripts/bench`, in turn with what is compared.
//!
//! Client and server take turns on one thread; only the server's calls are timed, in CPU time of the thread. Tickets are not sealed at all: sealing is a
//! part of what a proxy adds. It prints how many handshakes, or bytes of answers, a second of that time is good for.

#[path = "common/cpu.rs"]
mod cpu;
#[path = "common/meet.rs"]
mod meet;
#[path = "common/unsealed.rs"]
mod unsealed;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{
    CipherSuite, ClientConfig, HandshakeKind, NamedGroup, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use cpu::cpu;
use meet::{Met, meet, rustls_of};
use unsealed::Unsealed;

/// Bytes that the server answers with at once.
const ANSWER: usize = 64 * 1024;

#[derive(Debug, Parser)]
struct Arguments {
    /// The server's certificate chain, PEM
    #[arg(long, requires_all = ["key", "roots"])]
    certificate: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, default_value = "")]
    key: PathBuf,
    /// The roots that the client trusts, PEM
    #[arg(long, default_value = "")]
    roots: PathBuf,
    /// 1.2 or 1.3
    #[arg(long, default_value = "1.3")]
    tls: String,
    /// full, resumed or download
    #[arg(long, default_value = "full")]
    mode: String,
    /// engine, aws-lc-rs, ring or graviola
    #[arg(long, default_value = "engine")]
    provider: String,
    /// Tickets of a TLS 1.3 handshake
    #[arg(long, default_value_t = 1)]
    tickets: usize,
    /// Seconds of the server's time
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// What cargo bench says
    #[arg(long)]
    bench: bool,
}

impl Arguments {
    fn provider(&self) -> CryptoProvider {
        match self.provider.as_str() {
            "engine" => sealane::tls::provider::provider(),
            "aws-lc-rs" => rustls::crypto::aws_lc_rs::default_provider(),
            "ring" => rustls::crypto::ring::default_provider(),
            "graviola" => rustls_graviola::default_provider(),
            other => panic!("there is no provider {other}"),
        }
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
        static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self.tls.as_str() {
            "1.2" => &TLS12,
            "1.3" => &TLS13,
            other => panic!("there is no TLS {other}"),
        }
    }

    fn server(&self, certificate: &Path) -> Arc<ServerConfig> {
        let chain = CertificateDer::pem_file_iter(certificate).expect("the certificate can be read");
        let chain = chain.collect::<Result<_, _>>().expect("it is a certificate");
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("the key can be read");
        let mut config = ServerConfig::builder_with_provider(Arc::new(self.provider()))
            .with_protocol_versions(self.versions())
            .expect("the provider speaks it")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key is the certificate's");
        config.send_tls13_tickets = self.tickets;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(Unsealed);
        Arc::new(config)
    }

    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(&self.roots).expect("the roots can be read") {
            roots.add(root.expect("it is a certificate")).expect("it is a root");
        }
        // The client that the load generator is.
        let mut provider = sealane::tls::provider::provider();
        provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
        let suites = [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ];
        provider.cipher_suites.retain(|suite| suites.contains(&suite.suite()));
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(self.versions())
            .expect("the provider speaks it")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let resumes = self.mode == "resumed";
        config.resumption = if resumes { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
        Arc::new(config)
    }
}

/// Sends answers and gives what the server's part of that took.
fn answer(met: &mut Met<ServerConnection>, body: &[u8], ciphertext: &mut Vec<u8>, plaintext: &mut [u8]) -> u64 {
    ciphertext.clear();
    let begin = cpu();
    met.server.writer().write_all(body).expect("it fits the buffer");
    while met.server.wants_write() {
        met.server.write_tls(ciphertext).expect("a Vec takes all");
    }
    let nanos = cpu() - begin;
    let mut input = ciphertext.as_slice();
    while !input.is_empty() {
        met.client.read_tls(&mut input).expect("there is room");
        met.client.process_new_packets().expect("the server is well-behaved");
        while met.client.reader().read(plaintext).is_ok_and(|len| len > 0) {}
    }
    nanos
}

fn main() {
    let arguments = Arguments::parse();
    let Some(certificate) = &arguments.certificate else {
        return println!("scripts/bench limit runs this, with a certificate for it");
    };
    let (server, client) = (arguments.server(certificate), arguments.client());
    let wanted = std::time::Duration::from_secs_f64(arguments.seconds).as_nanos();
    let (mut nanos, mut count) = (0, 0u64);
    // The first handshake of a client that returns is a full one, and the first of a process gathers entropy.
    let mut first = meet(&client, || rustls_of(&server));
    if arguments.mode == "download" {
        let body = vec![b'x'; ANSWER];
        let (mut ciphertext, mut plaintext) = (Vec::new(), vec![0; ANSWER]);
        while u128::from(nanos) < wanted {
            nanos += answer(&mut first, &body, &mut ciphertext, &mut plaintext);
            count += ANSWER as u64;
        }
    } else {
        let kind = if arguments.mode == "resumed" { HandshakeKind::Resumed } else { HandshakeKind::Full };
        while u128::from(nanos) < wanted {
            let met = meet(&client, || rustls_of(&server));
            assert_eq!(met.client.handshake_kind(), Some(kind));
            nanos += met.nanos;
            count += 1;
        }
    }
    println!("{}", count as f64 * 1e9 / nanos as f64);
}
