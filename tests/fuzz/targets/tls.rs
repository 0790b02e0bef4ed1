//! Feeds `tls::Session` arbitrary bytes, ClientHellos with arbitrary parts, and a real client's bytes altered, cut into any chunks.
//!
//! A session ends in a failure that it repeats, or waits. It takes no more than it is given, keeps a bounded amount, hands out plaintext only
//! that a client of an established session has sent, and everything that it has to transmit ends.

#![no_main]

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use sealane::balance::{Backend, Board, LaneLoads, Loads};
use sealane::base::{EngineId, LaneId, Piece, Random};
use sealane::ticket::Ring;
use sealane::tls::cipher::OVERHEAD_MAX;
use sealane::tls::session::{HANDSHAKE_MAX, INPUT_MAX};
use sealane::tls::{Desk, Failure, Progress, Service, Session};
use sealane_fuzz::{IDENTITY, NAME, NOW, alter, flight, pool, record, ring, tls_service};

/// What one drain may give: the engine's longest flight, and an alert for every record that fits into its input.
const DRAIN_MAX: usize = HANDSHAKE_MAX;

#[derive(Arbitrary, Debug)]
struct Input {
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
    /// A ClientHello with these cipher suites and extensions.
    Hello {
        suites: Vec<u16>,
        session_id: Vec<u8>,
        extensions: Vec<(u8, Vec<u8>)>,
    },
    /// A real client's next flight, with a byte altered.
    Client {
        tls12: bool,
        alter: Option<(u16, u8)>,
    },
    /// The real client writes so many bytes.
    ClientWrites(u16),
    ClientCloses,
    /// The engine writes so many bytes.
    Write(u16),
    Close,
    /// Only so many bytes are taken of what is to be transmitted.
    Transmit(u16),
    Plaintext(u16),
}

static SERVICE: LazyLock<Arc<Service>> = LazyLock::new(|| {
    let addresses = ["198.18.1.1:80", "198.18.1.2:80", "198.18.1.3:80"];
    tls_service(&pool(addresses.map(|address| address.parse().expect("an address"))))
});
static RING: LazyLock<Arc<Ring>> = LazyLock::new(|| Arc::new(ring()));
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

struct Bench {
    session: Session,
    desk: Desk,
    backend: Rc<Backend>,
    client: Option<ClientConnection>,
    /// Records on their way to the client.
    wire: Vec<u8>,
    chunks: std::iter::Cycle<std::vec::IntoIter<u16>>,
    established: bool,
    failure: Option<Failure>,
    /// Whether the client's bytes came as it sent them.
    honest: bool,
    sent: usize,
    received: usize,
}

fuzz_target!(|input: Input| {
    let mut chunks = input.chunks;
    chunks.push(1460);
    let desk = Desk::new(EngineId(1), Arc::clone(&RING), Random::from_seed(1), Arc::default());
    let loads = Rc::new(LaneLoads::new(Arc::new(Loads::new(1, 3)), LaneId(0)));
    let mut bench = Bench {
        session: Session::new(&SERVICE, Ipv4Addr::LOCALHOST.into()),
        desk,
        backend: Rc::new(Backend::new(Arc::clone(SERVICE.pool()), Arc::new(Board::new(3)), loads, Random::from_seed(2))),
        client: None,
        wire: Vec::new(),
        chunks: chunks.into_iter().cycle(),
        established: false,
        failure: None,
        honest: true,
        sent: 0,
        received: 0,
    };
    bench.desk.set_time(NOW);
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
            Action::Hello { suites, session_id, extensions } => {
                self.forge(&record(22, &hello(&suites, &session_id, &extensions)));
            }
            Action::Client { tls12, alter } => self.client_flight(tls12, alter),
            Action::ClientWrites(len) => {
                if let Some(client) = self.client.as_mut().filter(|client| !client.is_handshaking()) {
                    let written = std::io::Write::write(&mut client.writer(), &vec![0x5a; len.into()]);
                    // It errs once the client has failed.
                    self.sent += written.unwrap_or(0);
                }
            }
            Action::ClientCloses => {
                if let Some(client) = &mut self.client {
                    // Who closes in the midst of a handshake gives it up.
                    self.honest &= !client.is_handshaking();
                    client.send_close_notify();
                }
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
            Action::Transmit(len) => self.transmit(len.into()),
            Action::Plaintext(len) => self.plaintext(len.into()),
        }
    }

    /// Gives the session what no client has sent.
    fn forge(&mut self, bytes: &[u8]) {
        self.honest &= bytes.is_empty();
        self.give(bytes);
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
        match self.session.advance(&mut self.desk, &self.backend) {
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
        assert_ne!(failure, Failure::Internal, "it is the client's fault");
        self.failure = Some(failure);
        assert_eq!(self.session.on_data(&[22]), Err(failure), "a session comes back to life");
        let again = self.session.advance(&mut self.desk, &self.backend);
        assert_eq!(again, Err(failure), "a session comes back to life");
        assert_eq!(self.session.seal(usize::MAX, |_| Some(Piece::from(&b"late"[..]))), Ok(None));
    }

    fn client_flight(&mut self, tls12: bool, alteration: Option<(u16, u8)>) {
        let client = self.client.get_or_insert_with(|| {
            let name = ServerName::try_from(NAME).expect("it is a name");
            ClientConnection::new(Arc::clone(&CLIENTS[usize::from(tls12)]), name).expect("it is a client")
        });
        let mut answer = std::mem::take(&mut self.wire);
        let sealed = answer.len();
        self.session.poll_transmit(|bytes| {
            answer.extend_from_slice(bytes);
            bytes.len()
        });
        assert!(answer.len() - sealed <= DRAIN_MAX && !self.session.has_output());
        let mut flight = flight(client, &answer);
        self.honest &= alter(&mut flight, alteration);
        self.give(&flight);
    }

    fn transmit(&mut self, most: usize) {
        let mut room = most;
        let mut total = 0;
        self.session.poll_transmit(|bytes| {
            let taken = bytes.len().min(room);
            room -= taken;
            total += taken;
            taken
        });
        // What a client misses here it never gets.
        self.honest &= total == 0;
        assert!(total <= most.min(DRAIN_MAX), "it keeps {total} bytes to transmit");
    }

    fn plaintext(&mut self, most: usize) {
        let waiting = self.session.readable();
        let plaintext = self.session.take(most).unwrap_or_default();
        assert!(plaintext.bytes().iter().all(|byte| *byte == 0x5a), "it decrypts what nobody sent");
        let total = plaintext.len();
        assert_eq!(total, waiting.min(most));
        assert!(total <= INPUT_MAX, "it keeps {total} bytes of plaintext");
        assert!(self.established || total == 0);
        self.received += total;
        assert!(self.received <= self.sent, "it decrypts what nobody sent");
    }

    fn finish(mut self) {
        // A client that is left to itself gets through.
        if self.honest && self.failure.is_none() && self.client.is_some() {
            for _ in 0..5 {
                self.client_flight(false, None);
                self.plaintext(usize::MAX);
            }
            assert!(self.failure.is_none(), "an honest client fails: {:?}", self.failure);
            assert!(self.established);
            assert!(self.session.peer_has_closed() || self.received == self.sent, "bytes are missing");
        }
        self.plaintext(usize::MAX);
        self.transmit(usize::MAX);
        assert!(!self.session.has_output());
    }
}

/// A ClientHello whose lengths are right.
fn hello(suites: &[u16], session_id: &[u8], extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let session_id = &session_id[..session_id.len().min(32)];
    let mut body = [&[3, 3], &[7; 32][..]].concat();
    body.push(u8::try_from(session_id.len()).unwrap_or(0));
    body.extend(session_id);
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    extend_with_len(&mut body, &suites);
    body.extend([1, 0]);
    let mut all = Vec::new();
    for (kind, extension) in extensions {
        // Those that rustls knows have small numbers.
        all.extend(u16::from(*kind % 64).to_be_bytes());
        extend_with_len(&mut all, extension);
    }
    extend_with_len(&mut body, &all);
    let [_, len @ ..] = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
    [&[1], &len[..], &body].concat()
}

fn extend_with_len(bytes: &mut Vec<u8>, part: &[u8]) {
    let part = &part[..part.len().min(usize::from(u16::MAX))];
    bytes.extend(u16::try_from(part.len()).unwrap_or(0).to_be_bytes());
    bytes.extend(part);
}
