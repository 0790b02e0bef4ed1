//! Feeds `tls::client::Session` arbitrary bytes, a real server's bytes altered, and, once there are keys, whatever a server without manners seals, cut into any chunks.
//!
//! A session ends in a failure that it repeats, or waits. It takes no more than it is given, keeps a bounded amount, hands out plaintext only that a server of an
//! established session has sent, and everything that it has to transmit ends.

#![no_main]

use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustls::crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ConnectionTrafficSecrets, ProtocolVersion, ServerConfig, ServerConnection, SupportedCipherSuite,
};
use sealane::base::Piece;
use sealane::tls::Versions;
use sealane::tls::cipher::OVERHEAD_MAX;
use sealane::tls::client::{
    Connector, Failure, HANDSHAKE_MAX, INPUT_MAX, Name, Progress, Session, Settings, Target, Trust,
};
use sealane::tls::clients::Authorities;
use sealane_fuzz::{IDENTITY, NAME, NOW, alter, flight, record};

#[derive(Arbitrary, Debug)]
struct Input {
    /// The server speaks TLS 1.2 only.
    tls12: bool,
    /// Bytes of each piece of what the session is given; used in turn.
    chunks: Vec<u16>,
    actions: Vec<Action>,
}

#[derive(Arbitrary, Debug)]
enum Action {
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// A record of this type.
    Record {
        kind: u8,
        bytes: Vec<u8>,
    },
    /// The server's next flight, with a byte altered.
    Server {
        alter: Option<(u16, u8)>,
    },
    /// The server writes so many bytes.
    ServerWrites(u16),
    ServerUpdatesKeys,
    ServerCloses,
    /// A record of this type sealed under the server's keys; from then on it says nothing else.
    Sealed {
        kind: u8,
        bytes: Vec<u8>,
    },
    /// A handshake message so sealed, with its length right.
    Message {
        kind: u8,
        body: Vec<u8>,
    },
    /// The engine writes so many bytes.
    Write(u16),
    Close,
    Plaintext(u16),
}

static SERVERS: LazyLock<[Arc<ServerConfig>; 2]> = LazyLock::new(|| {
    [&rustls::version::TLS13, &rustls::version::TLS12].map(|version| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[version]).expect("the provider speaks it");
        let chain = vec![CertificateDer::from_pem_slice(IDENTITY.chain.as_bytes()).expect("it is a certificate")];
        let key = PrivateKeyDer::from_pem_slice(IDENTITY.key.as_bytes()).expect("it is a key");
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).expect("it is the certificate's key");
        config.enable_secret_extraction = true;
        Arc::new(config)
    })
});

fn target() -> Arc<Target> {
    let authorities = Authorities::from_pem(IDENTITY.chain.as_bytes()).expect("it is a certificate");
    let settings = Settings {
        trust: Trust::Authorities(Arc::new(authorities)),
        certificate: None,
        versions: Versions::Tls12And13,
        alpn: Vec::new(),
        resumption: true,
    };
    let connector = Connector::new(&settings).expect("the settings are right");
    Arc::new(connector.target(&Name::parse(NAME).expect("it is a name")))
}

/// What it has done to the server that came before, it does to those after it: the tickets are the target's.
static TARGETS: LazyLock<[Arc<Target>; 2]> = LazyLock::new(|| [target(), target()]);

enum Server {
    Honest(Box<ServerConnection>),
    /// It has the keys and no manners.
    Forger { sealer: Box<dyn MessageEncrypter>, seq: u64 },
    Gone,
}

struct Bench {
    session: Session,
    server: Server,
    /// Records on their way to the server.
    wire: Vec<u8>,
    chunks: std::iter::Cycle<std::vec::IntoIter<u16>>,
    established: bool,
    failure: Option<Failure>,
    /// Whether the server's bytes came as it sent them.
    honest: bool,
    sent: usize,
    received: usize,
}

fuzz_target!(|input: Input| {
    let mut chunks = input.chunks;
    chunks.push(1460);
    let server = ServerConnection::new(Arc::clone(&SERVERS[usize::from(input.tls12)])).expect("it is a server");
    let mut bench = Bench {
        session: Session::new(&TARGETS[usize::from(input.tls12)]),
        server: Server::Honest(Box::new(server)),
        wire: Vec::new(),
        chunks: chunks.into_iter().cycle(),
        established: false,
        failure: None,
        honest: true,
        sent: 0,
        received: 0,
    };
    assert_eq!(bench.session.advance(NOW), Ok(Progress::Handshaking));
    for action in input.actions {
        bench.act(action);
    }
    bench.finish();
});

impl Bench {
    fn act(&mut self, action: Action) {
        match action {
            Action::Bytes(bytes) => self.forge(&bytes),
            Action::Record { kind, bytes } => self.forge(&record(kind, &bytes)),
            Action::Server { alter } => self.server_flight(alter),
            Action::ServerWrites(len) => {
                if let Server::Honest(server) = &mut self.server
                    && !server.is_handshaking()
                {
                    let written = std::io::Write::write(&mut server.writer(), &vec![0x5a; len.into()]);
                    self.sent += written.unwrap_or(0);
                }
            }
            Action::ServerUpdatesKeys => {
                if let Server::Honest(server) = &mut self.server {
                    // It errs before the handshake has ended, and in TLS 1.2. Too many in a row are the server's fault.
                    self.honest &= server.refresh_traffic_keys().is_err();
                }
            }
            Action::ServerCloses => {
                if let Server::Honest(server) = &mut self.server {
                    self.honest &= !server.is_handshaking();
                    server.send_close_notify();
                }
            }
            Action::Sealed { kind, bytes } => self.seal(kind, &bytes),
            Action::Message { kind, body } => {
                let [_, len @ ..] = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
                self.seal(22, &[&[kind], &len[..], &body].concat());
            }
            Action::Write(len) => {
                let data = vec![0xa5; len.into()];
                let take = |most: usize| Some(Piece::from(&data[..most.min(data.len())]));
                let sealed = self.session.seal(usize::from(len) / 2 + 1000, take);
                if let Some((taken, record)) = sealed.expect("few records are sealed") {
                    assert!(self.established && taken > 0 && taken <= usize::from(len));
                    assert!(record.len() > taken && record.len() <= taken + OVERHEAD_MAX);
                    self.wire.extend(record.bytes());
                }
            }
            Action::Close => self.session.close(),
            Action::Plaintext(len) => self.plaintext(len.into()),
        }
    }

    /// Gives the session what no server has sent.
    fn forge(&mut self, bytes: &[u8]) {
        self.honest &= bytes.is_empty();
        self.give(bytes);
    }

    /// Gives it a record under the server's keys.
    fn seal(&mut self, kind: u8, bytes: &[u8]) {
        if !self.established {
            return;
        }
        self.server = match std::mem::replace(&mut self.server, Server::Gone) {
            Server::Honest(server) if !server.is_handshaking() => forger(*server).unwrap_or(Server::Gone),
            other => other,
        };
        self.honest = false;
        let Server::Forger { sealer, seq } = &mut self.server else { return };
        let payload = &bytes[..bytes.len().min(1 << 14)];
        let message = OutboundPlainMessage {
            typ: kind.into(),
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(payload),
        };
        let Ok(record) = sealer.encrypt(message, *seq) else { return };
        *seq += 1;
        self.sent += if kind == 23 { payload.len() } else { 0 };
        self.give(&record.encode());
    }

    fn give(&mut self, mut bytes: &[u8]) {
        let mut stalled = 0;
        while !bytes.is_empty() && self.failure.is_none() {
            let chunk = usize::from(self.chunks.next().expect("it repeats")).clamp(1, bytes.len());
            match self.session.on_data(&bytes[..chunk]) {
                Ok(taken) => {
                    assert!(taken <= chunk);
                    stalled = if taken == 0 { stalled + 1 } else { 0 };
                    bytes = &bytes[taken..];
                }
                Err(failure) => return self.fail(failure),
            }
            self.advance();
            if stalled == 1 {
                self.plaintext(usize::MAX);
            } else if stalled > 1 {
                panic!("the session takes nothing and has nothing to be taken");
            }
        }
    }

    fn advance(&mut self) {
        match self.session.advance(NOW) {
            Ok(Progress::Handshaking) => assert!(!self.established && self.session.is_handshaking()),
            Ok(Progress::Established(_)) => {
                assert!(!self.established, "established is said once");
                self.established = true;
            }
            Ok(Progress::Open) => assert!(self.established),
            Err(failure) => self.fail(failure),
        }
    }

    fn fail(&mut self, failure: Failure) {
        assert_ne!(failure, Failure::Internal, "it is the server's fault");
        self.failure = Some(failure);
        assert_eq!(self.session.on_data(&[22]), Err(failure), "a session comes back to life");
        assert_eq!(self.session.advance(NOW), Err(failure), "a session comes back to life");
        assert_eq!(self.session.seal(usize::MAX, |_| Some(Piece::from(&b"late"[..]))), Ok(None));
    }

    fn server_flight(&mut self, alteration: Option<(u16, u8)>) {
        let mut answer = std::mem::take(&mut self.wire);
        let sealed = answer.len();
        self.session.poll_transmit(|bytes| {
            answer.extend_from_slice(bytes);
            bytes.len()
        });
        assert!(answer.len() - sealed <= HANDSHAKE_MAX && !self.session.has_output());
        let Server::Honest(server) = &mut self.server else { return };
        let mut flight = flight(server, &answer);
        self.honest &= alter(&mut flight, alteration);
        self.give(&flight);
    }

    fn plaintext(&mut self, most: usize) {
        let waiting = self.session.readable();
        let plaintext = self.session.take(most).unwrap_or_default();
        let total = plaintext.len();
        assert_eq!(total, waiting.min(most));
        assert!(total <= INPUT_MAX, "it keeps {total} bytes of plaintext");
        assert!(self.established || total == 0);
        self.received += total;
        assert!(self.received <= self.sent, "it decrypts what nobody sent");
    }

    fn finish(mut self) {
        // A server that is left to itself gets through.
        if self.honest && self.failure.is_none() {
            for _ in 0..5 {
                self.server_flight(None);
                self.plaintext(usize::MAX);
            }
            assert!(self.failure.is_none(), "an honest server fails: {:?}", self.failure);
            assert!(self.established);
            assert!(self.session.peer_has_closed() || self.received == self.sent, "bytes are missing");
        }
        self.plaintext(usize::MAX);
        self.session.poll_transmit(<[u8]>::len);
        assert!(!self.session.has_output());
    }
}

/// Takes the keys of a server away.
fn forger(server: ServerConnection) -> Option<Server> {
    let suite = server.negotiated_cipher_suite()?;
    let (seq, secrets) = server.dangerous_extract_secrets().ok()?.tx;
    let (key, iv): (AeadKey, Iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
        _ => return None,
    };
    let SupportedCipherSuite::Tls13(suite) = suite else { return None };
    Some(Server::Forger { sealer: suite.aead_alg.encrypter(key, iv), seq })
}
