//! Sessions between the engine as a client and rustls's server.

use std::io::{BufRead, Write};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{AlertDescription, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};

use crate::base::{Duration, Piece, UnixTime};
use crate::ticket::TlsVersion;
use crate::tls::Versions;
use crate::tls::certificate::Certificate;
use crate::tls::cipher::{OVERHEAD_MAX, PLAINTEXT_MAX};
use crate::tls::client::{Connector, Failure, Handshake, INPUT_MAX, Name, Progress, Session, Settings, Target, Trust};
use crate::tls::clients::Authorities;
use crate::tls::testing::{HOUR, NOW, TLS12, TLS13};

const NAME: &str = "web.internal";
const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [TLS12, TLS13];

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((NOW + 1000 * HOUR).0);
    params
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, PEM.
struct Identity {
    chain: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let (mut params, key) = (params(&[]), KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, names: &[&str], alter: impl FnOnce(&mut CertificateParams)) -> Identity {
        let (mut params, key) = (params(names), KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        alter(&mut params);
        Identity { chain: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn trust(&self) -> Trust {
        Trust::Authorities(Arc::new(Authorities::from_pem(self.pem.as_bytes()).unwrap()))
    }
}

fn settings(trust: Trust) -> Settings {
    Settings { trust, certificate: None, versions: Versions::Tls12And13, alpn: Vec::new(), resumption: true }
}

fn target(settings: &Settings, name: &str) -> Arc<Target> {
    Arc::new(Connector::new(settings).unwrap().target(&Name::parse(name).unwrap()))
}

fn server_config(
    versions: &[&'static SupportedProtocolVersion],
    identity: &Identity,
    clients: Option<&Authority>,
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let builder = match clients {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let chain = CertificateDer::pem_slice_iter(identity.chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.time_provider = Arc::new(StoppedClock);
    config
}

#[derive(Debug)]
struct StoppedClock;

impl rustls::time_provider::TimeProvider for StoppedClock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(NOW.0)))
    }
}

/// One connection.
struct Link {
    session: Session,
    server: ServerConnection,
    handshake: Option<Handshake>,
    failure: Option<Failure>,
    server_error: Option<rustls::Error>,
    /// Bytes that the server's segments have.
    segment: usize,
    now: UnixTime,
    /// What is on its way to the server.
    wire: Vec<u8>,
    plaintext: Vec<u8>,
    received: Vec<u8>,
}

impl Link {
    fn new(target: &Arc<Target>, server: &Arc<ServerConfig>) -> Self {
        Self {
            session: Session::new(target),
            server: ServerConnection::new(Arc::clone(server)).unwrap(),
            handshake: None,
            failure: None,
            server_error: None,
            segment: 1460,
            now: NOW,
            wire: Vec::new(),
            plaintext: Vec::new(),
            received: Vec::new(),
        }
    }

    fn connect(target: &Arc<Target>, server: &Arc<ServerConfig>) -> Self {
        let mut link = Self::new(target, server);
        link.begin();
        link.pump();
        link
    }

    fn begin(&mut self) {
        assert_eq!(self.session.advance(self.now), Ok(Progress::Handshaking));
        assert!(self.session.has_output(), "a ClientHello");
    }

    /// Moves bytes both ways until nobody has any.
    fn pump(&mut self) {
        for _ in 0..1000 {
            if !self.carry_to_server() & !self.carry_to_client() {
                return;
            }
        }
        panic!("the two talk without end");
    }

    fn transmit(&mut self) {
        self.session.poll_transmit(|chunk| {
            self.wire.extend_from_slice(chunk);
            chunk.len()
        });
        assert!(!self.session.has_output());
    }

    fn carry_to_server(&mut self) -> bool {
        self.transmit();
        let bytes = std::mem::take(&mut self.wire);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && self.server_error.is_none() {
            if self.server.read_tls(&mut rest).unwrap() == 0 {
                break;
            }
            self.server_error = self.server.process_new_packets().err();
            self.read();
        }
        !bytes.is_empty()
    }

    fn flight(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn carry_to_client(&mut self) -> bool {
        let bytes = self.flight();
        for segment in bytes.chunks(self.segment) {
            self.give(segment);
        }
        !bytes.is_empty()
    }

    /// Gives the session a segment and lets it work, taking its plaintext.
    fn give(&mut self, mut segment: &[u8]) {
        while !segment.is_empty() && self.failure.is_none() {
            let progress = self.session.on_data(segment).and_then(|taken| {
                segment = &segment[taken..];
                self.session.advance(self.now)
            });
            match progress {
                Ok(Progress::Established(handshake)) => {
                    assert!(self.handshake.replace(handshake).is_none(), "established is said once");
                }
                Ok(Progress::Handshaking) => assert!(self.handshake.is_none()),
                Ok(Progress::Open) => assert!(self.handshake.is_some()),
                Err(failure) => self.failure = Some(failure),
            }
            while let Some(piece) = self.session.take(usize::MAX) {
                self.plaintext.extend(piece.bytes());
            }
        }
    }

    fn seal(&mut self, data: &[u8], room: usize) -> Result<Option<(usize, Piece)>, Failure> {
        self.session.seal(room, |most| Some(Piece::from(&data[..most.min(data.len())])))
    }

    /// Has the session seal data, and gives how much of it; all, if it may.
    fn write(&mut self, data: &[u8]) -> usize {
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

    /// Reads what the server has received.
    fn read(&mut self) {
        while let Ok(chunk @ [_, ..]) = self.server.reader().fill_buf() {
            let len = chunk.len();
            self.received.extend_from_slice(chunk);
            self.server.reader().consume(len);
        }
    }

    /// What it has received since the last look.
    fn read_all(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }
}

/// A CA, a server of it and a target that trusts it.
fn world(versions: &[&'static SupportedProtocolVersion]) -> (Authority, Arc<ServerConfig>, Arc<Target>) {
    let authority = Authority::new("servers");
    let server = Arc::new(server_config(versions, &authority.sign(&[NAME], |_| {}), None));
    let target = target(&settings(authority.trust()), NAME);
    (authority, server, target)
}

#[test]
fn a_server_of_the_ca_and_the_name_is_believed_and_asked_for_by_its_name() {
    for versions in VERSIONS {
        let (_, server, target) = world(versions);
        let mut link = Link::connect(&target, &server);
        let handshake = link.handshake.clone().expect("the handshake succeeds");
        let version = if versions == TLS13 { TlsVersion::Tls13 } else { TlsVersion::Tls12 };
        assert_eq!((handshake.resumed, handshake.version, handshake.alpn), (false, version, None));
        assert_eq!(link.server.server_name(), Some(NAME));
        assert_eq!(link.write(b"ping"), 4);
        link.server.writer().write_all(b"pong").unwrap();
        link.pump();
        assert_eq!((link.read_all(), link.plaintext), (b"ping".to_vec(), b"pong".to_vec()));
    }
}

#[test]
fn a_handshake_may_come_in_any_pieces() {
    for versions in VERSIONS {
        for segment in [1, 7, 1 << 16] {
            let (_, server, target) = world(versions);
            let mut link = Link::new(&target, &server);
            link.segment = segment;
            link.begin();
            // In TLS 1.3 the server may send data with its Finished message.
            link.server.writer().write_all(b"early bird").unwrap();
            link.pump();
            assert!(link.handshake.is_some());
            assert_eq!(link.plaintext, b"early bird");
        }
    }
}

/// How a handshake fails, and what the server learns of it.
fn refused(settings: &Settings, name: &str, server: ServerConfig) -> (Option<Failure>, Option<rustls::Error>) {
    let mut link = Link::connect(&target(settings, name), &Arc::new(server));
    assert!(link.handshake.is_none());
    assert_eq!(link.session.advance(NOW), Err(link.failure.unwrap()), "it is said again");
    assert_eq!(link.session.on_data(b"more"), Err(link.failure.unwrap()));
    assert_eq!(link.write(b"no"), 0);
    (link.failure, link.server_error)
}

#[test]
fn whoever_is_not_the_server_is_told_so() {
    let alert = |description| Some(rustls::Error::AlertReceived(description));
    for versions in VERSIONS {
        let (ours, other) = (Authority::new("ours"), Authority::new("other"));
        let settings = settings(ours.trust());
        let refused_of = |identity: &Identity, name| refused(&settings, name, server_config(versions, identity, None));
        assert_eq!(
            refused_of(&other.sign(&[NAME], |_| {}), NAME),
            (Some(Failure::UnknownAuthority), alert(AlertDescription::UnknownCA))
        );
        assert_eq!(
            refused_of(&ours.sign(&["elsewhere.internal"], |_| {}), NAME),
            (Some(Failure::WrongName), alert(AlertDescription::BadCertificate))
        );
        let expired = ours.sign(&[NAME], |params| params.not_after = rcgen::date_time_ymd(2021, 1, 1));
        assert_eq!(refused_of(&expired, NAME), (Some(Failure::Expired), alert(AlertDescription::CertificateExpired)));
        let early = ours.sign(&[NAME], |params| {
            params.not_before = rcgen::date_time_ymd(2100, 1, 1);
            params.not_after = rcgen::date_time_ymd(2101, 1, 1);
        });
        assert_eq!(refused_of(&early, NAME).0, Some(Failure::Expired));
        let client_only = ours.sign(&[NAME], |params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        });
        assert_eq!(refused_of(&client_only, NAME).0, Some(Failure::InvalidCertificate));
        // A name is an address: the certificate must be for it, and no SNI is sent.
        assert_eq!(refused_of(&ours.sign(&[NAME], |_| {}), "198.18.1.1").0, Some(Failure::WrongName));
        let of_address = server_config(versions, &ours.sign(&["198.18.1.1"], |_| {}), None);
        let link = Link::connect(&target(&settings, "198.18.1.1"), &Arc::new(of_address));
        assert!(link.handshake.is_some());
        assert_eq!(link.server.server_name(), None);
    }
}

#[test]
fn a_clock_that_goes_on_sees_a_certificate_expire() {
    let (_, server, target) = world(TLS13);
    let mut link = Link::new(&target, &server);
    link.now = NOW + 1001 * HOUR;
    link.begin();
    link.pump();
    assert_eq!(link.failure, Some(Failure::Expired));
}

#[test]
fn anyone_is_believed_only_where_that_is_asked_for() {
    for versions in VERSIONS {
        let stranger = Authority::new("nobody").sign(&["elsewhere.internal"], |_| {});
        let server = Arc::new(server_config(versions, &stranger, None));
        assert!(Link::connect(&target(&settings(Trust::Anyone), NAME), &server).handshake.is_some());
    }
}

#[test]
fn a_server_without_a_version_or_protocol_in_common_is_refused() {
    let (authority, _, _) = world(TLS13);
    let identity = authority.sign(&[NAME], |_| {});
    let only13 = Settings { versions: Versions::Tls13, ..settings(authority.trust()) };
    // A server refuses by an alert, for which it does not matter what we say of it.
    assert_eq!(refused(&only13, NAME, server_config(TLS12, &identity, None)).0, Some(Failure::AlertReceived));
    let http = Settings { alpn: vec![b"http/1.1".to_vec()], ..settings(authority.trust()) };
    let mut h2 = server_config(TLS13, &identity, None);
    h2.alpn_protocols = vec![b"h2".to_vec()];
    assert_eq!(refused(&http, NAME, h2).0, Some(Failure::AlertReceived));
    let mut both = server_config(TLS13, &identity, None);
    both.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let link = Link::connect(&target(&http, NAME), &Arc::new(both));
    assert_eq!(link.handshake.unwrap().alpn.as_deref(), Some(&b"http/1.1"[..]));
}

#[test]
fn a_server_that_does_not_speak_tls_is_told_nothing() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"220 mail\r\n", b"\0"] {
        let (_, server, target) = world(TLS13);
        let mut link = Link::new(&target, &server);
        link.begin();
        link.transmit();
        link.give(answer);
        assert_eq!(link.failure, Some(Failure::NotTls));
        assert!(!link.session.has_output());
    }
}

#[test]
fn a_server_that_asks_for_a_certificate_is_shown_it() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let identity = authority.sign(&[NAME], |_| {});
    let ours = clients.sign(&["engine.internal"], |_| {});
    let certificate = Arc::new(Certificate::from_pem(ours.chain.as_bytes(), ours.key.as_bytes()).unwrap());
    for versions in VERSIONS {
        let server = Arc::new(server_config(versions, &identity, Some(&clients)));
        let with = Settings { certificate: Some(Arc::clone(&certificate)), ..settings(authority.trust()) };
        let with = target(&with, NAME);
        let mut link = Link::connect(&with, &server);
        assert!(link.handshake.is_some() && link.server_error.is_none());
        assert_eq!(link.server.peer_certificates().unwrap().len(), 1);
        assert_eq!(link.write(b"ping"), 4);
        link.pump();
        assert_eq!(link.read_all(), b"ping");
        // Once more, resumed: the server remembers it.
        let link = Link::connect(&with, &server);
        assert!(link.handshake.unwrap().resumed && link.server.peer_certificates().is_some());
        // In TLS 1.3 the refusal comes behind the end of our handshake.
        let link = Link::connect(&target(&settings(authority.trust()), NAME), &server);
        assert_eq!(link.handshake.is_some(), versions == TLS13);
        assert_eq!(link.failure, Some(Failure::CertificateRefused));
        // A certificate of a CA that the server does not know.
        let stranger = authority.sign(&["engine.internal"], |_| {});
        let stranger = Certificate::from_pem(stranger.chain.as_bytes(), stranger.key.as_bytes()).unwrap();
        let with = Settings { certificate: Some(Arc::new(stranger)), ..settings(authority.trust()) };
        let link = Link::connect(&target(&with, NAME), &server);
        assert_eq!(link.failure, Some(Failure::CertificateRefused));
    }
}

#[test]
fn sessions_are_resumed_by_each_target_for_itself() {
    for versions in VERSIONS {
        let (authority, server, target) = world(versions);
        for resumed in [false, true, true, true] {
            let mut link = Link::connect(&target, &server);
            assert_eq!(link.handshake.clone().map(|handshake| handshake.resumed), Some(resumed));
            assert_eq!(link.write(b"ping"), 4);
            link.server.writer().write_all(b"pong").unwrap();
            link.pump();
            assert_eq!((link.read_all(), link.plaintext), (b"ping".to_vec(), b"pong".to_vec()));
        }
        let connector = Connector::new(&settings(authority.trust())).unwrap();
        let other = Arc::new(connector.target(&Name::parse(NAME).unwrap()));
        assert!(!Link::connect(&other, &server).handshake.unwrap().resumed, "another target of the same name");
        let never = Settings { resumption: false, ..settings(authority.trust()) };
        let never = Arc::new(Connector::new(&never).unwrap().target(&Name::parse(NAME).unwrap()));
        for _ in 0..3 {
            assert!(!Link::connect(&never, &server).handshake.unwrap().resumed);
        }
    }
}

#[test]
fn sessions_of_a_server_that_has_forgotten_its_keys_begin_anew() {
    for versions in VERSIONS {
        let authority = Authority::new("servers");
        let identity = authority.sign(&[NAME], |_| {});
        let target = target(&settings(authority.trust()), NAME);
        for _ in 0..3 {
            let server = Arc::new(server_config(versions, &identity, None));
            assert!(!Link::connect(&target, &server).handshake.unwrap().resumed);
            assert!(Link::connect(&target, &server).handshake.unwrap().resumed);
        }
    }
}

#[test]
fn an_idle_session_keeps_nothing_but_its_keys() {
    for versions in VERSIONS {
        let (_, server, target) = world(versions);
        let link = Link::connect(&target, &server);
        assert!(matches!(link.session.state, super::session::State::Open(None)), "the ticket has been kept");
        assert!(size_of::<Session>() <= 160, "{}", size_of::<Session>());
        // And of a server that sends no tickets, once it has sent data.
        let mut silent = server_config(versions, &Authority::new("x").sign(&[NAME], |_| {}), None);
        silent.send_tls13_tickets = 0;
        let everyone = super::tests::target(&settings(Trust::Anyone), NAME);
        let mut link = Link::connect(&everyone, &Arc::new(silent));
        assert_eq!(matches!(link.session.state, super::session::State::Open(Some(_))), versions == TLS13);
        link.server.writer().write_all(b"x").unwrap();
        link.pump();
        assert!(matches!(link.session.state, super::session::State::Open(None)));
    }
}

#[test]
fn new_keys_of_the_server_are_followed_and_answered_by_our_own() {
    let (_, server, target) = world(TLS13);
    let mut link = Link::connect(&target, &server);
    for turn in 0..40_u8 {
        link.server.refresh_traffic_keys().unwrap();
        link.server.writer().write_all(&[turn; 3]).unwrap();
        link.pump();
        assert_eq!(std::mem::take(&mut link.plaintext), [turn; 3]);
        assert_eq!(link.write(&[turn; 5]), 5);
        link.pump();
        assert_eq!(link.read_all(), [turn; 5]);
    }
    // Our own, when they have sealed all they may.
    link.session.set_seal_max(5);
    for turn in 0..30_u8 {
        assert_eq!(link.write(&[turn]), 1);
        link.pump();
        assert_eq!(link.read_all(), [turn]);
    }
    assert_eq!((link.failure, link.server_error), (None, None));
}

#[test]
fn keys_that_have_sealed_all_they_may_end_a_tls12_session() {
    let (_, server, target) = world(TLS12);
    let mut link = Link::connect(&target, &server);
    link.session.set_seal_max(5);
    let written = (0..9).take_while(|turn| link.write(&[*turn]) == 1).count();
    assert_eq!((written, link.failure), (3, Some(Failure::KeysSpent)));
}

#[test]
fn data_of_any_length_arrives_and_what_waits_holds_the_server_back() {
    for versions in VERSIONS {
        let (_, server, target) = world(versions);
        let mut link = Link::connect(&target, &server);
        let data: Vec<u8> = (0..=250).cycle().take(60_000).collect();
        assert_eq!(link.write(&data), data.len());
        link.pump();
        assert!(link.read_all() == data);
        assert_eq!(link.seal(&data, OVERHEAD_MAX), Ok(None), "no room for a byte");
        let (taken, record) = link.seal(&data, 1 << 20).unwrap().unwrap();
        assert!(taken == PLAINTEXT_MAX && record.len() <= PLAINTEXT_MAX + OVERHEAD_MAX);

        link.server.writer().write_all(&data).unwrap();
        let wire = link.flight();
        let (mut sent, mut was_held_back) = (0, false);
        while link.plaintext.len() < data.len() {
            let taken = link.session.on_data(&wire[sent..]).unwrap();
            sent += taken;
            was_held_back |= taken == 0 && sent < wire.len();
            assert_eq!(link.session.advance(NOW), Ok(Progress::Open));
            assert!(sent - link.plaintext.len() <= 2 * INPUT_MAX, "what is kept is bounded");
            if taken == 0 || sent == wire.len() {
                let piece = link.session.take(1000).unwrap();
                link.plaintext.extend(piece.bytes());
            }
        }
        assert!(was_held_back && link.plaintext == data);
    }
}

#[test]
fn the_servers_close_is_told_from_a_truncation_and_ours_reaches_it() {
    for versions in VERSIONS {
        let (_, server, target) = world(versions);
        let mut link = Link::connect(&target, &server);
        link.server.writer().write_all(b"last").unwrap();
        link.pump();
        assert!(!link.session.peer_has_closed(), "were this the end of its stream, it would be truncated");
        link.server.send_close_notify();
        link.pump();
        assert!(link.session.peer_has_closed());
        assert_eq!(link.plaintext, b"last");
        assert_eq!(link.session.on_data(b"rubbish"), Ok(7), "what comes behind it is ignored");
        assert_eq!(link.write(b"bye"), 3);
        link.session.close();
        link.session.close();
        assert_eq!(link.write(b"later"), 0);
        link.pump();
        assert_eq!(link.read_all(), b"bye");
        let end = std::io::Read::read(&mut link.server.reader(), &mut [0]);
        assert_eq!(end.expect("close_notify makes it a clean end"), 0);
    }
}

#[test]
fn a_record_that_does_not_decrypt_ends_the_session_with_an_alert() {
    for versions in VERSIONS {
        let (_, server, target) = world(versions);
        let mut link = Link::connect(&target, &server);
        let mut bad = vec![23, 3, 3, 0, 40];
        bad.resize(45, 9);
        link.give(&bad);
        assert_eq!(link.failure, Some(Failure::Protocol));
        assert_eq!(link.write(b"no"), 0);
        link.pump();
        assert_eq!(link.server_error, Some(rustls::Error::AlertReceived(AlertDescription::BadRecordMac)));
    }
}

#[test]
fn a_handshake_that_is_altered_on_its_way_never_succeeds() {
    for versions in VERSIONS {
        let (_, server, target) = world(versions);
        let mut link = Link::new(&target, &server);
        link.begin();
        link.carry_to_server();
        let flight = link.flight();
        // Behind the first header; of that the two version bytes mean nothing.
        for at in (5..flight.len()).step_by(37) {
            let mut link = Link::new(&target, &server);
            link.begin();
            link.carry_to_server();
            let mut flight = link.flight();
            if let Some(byte) = flight.get_mut(at) {
                *byte ^= 0x40;
            }
            link.give(&flight);
            link.pump();
            assert!(link.handshake.is_none() || link.failure.is_some() || link.server_error.is_some(), "byte {at}");
        }
    }
}

#[test]
fn nothing_is_written_before_the_handshake_has_ended() {
    let (_, server, target) = world(TLS13);
    let mut link = Link::new(&target, &server);
    link.begin();
    link.transmit();
    assert_eq!(link.write(b"too early"), 0);
    link.session.close();
    assert!(!link.session.has_output());
}
