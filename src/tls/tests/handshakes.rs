//! Handshakes apart from tickets: versions, ciphers, application protocols, and what is not TLS.

use std::sync::Arc;

use rustls::AlertDescription;

use crate::balance::ServerIndex;
use crate::ticket::TlsVersion;
use crate::tls::service::{Invalid, Settings};
use crate::tls::testing::{CLIENT, Engine, Link, NAME, SHOP, TLS12, TLS13, client, client_of, ring, settings};
use crate::tls::{Failure, Service, Session, Versions};

fn engine(settings: Settings) -> Engine {
    Engine::new(settings, &ring(1), 1)
}

fn with_ciphers(names: &[&str]) -> Settings {
    Settings { ciphers: names.iter().map(ToString::to_string).collect(), ..settings() }
}

#[test]
fn a_client_hello_may_come_byte_by_byte() {
    for versions in [TLS12, TLS13] {
        let mut engine = engine(settings());
        let client = client(versions);
        for resumed in [false, true] {
            let mut link = Link::new(&engine, &client, NAME);
            link.segment = 1;
            link.pump(&mut engine);
            assert_eq!(link.handshake.map(|handshake| handshake.resumed), Some(resumed));
        }
    }
}

#[test]
fn both_versions_say_what_they_agreed_on() {
    for (versions, version, cipher) in [
        (TLS12, TlsVersion::Tls12, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        (TLS13, TlsVersion::Tls13, "TLS_AES_128_GCM_SHA256"),
    ] {
        let mut engine = engine(with_ciphers(&["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]));
        let handshake = engine.visit(&client(versions));
        assert_eq!((handshake.version, handshake.cipher), (version, cipher));
        assert_eq!(handshake.server_name.as_deref(), Some(NAME));
        assert_eq!(handshake.alpn, None);
    }
}

#[test]
fn the_cipher_list_is_in_our_order_of_preference() {
    let chacha = "TLS_CHACHA20_POLY1305_SHA256";
    let mut first =
        engine(with_ciphers(&[chacha, "TLS_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"]));
    assert_eq!(first.visit(&client(TLS13)).cipher, chacha);
    assert_eq!(first.visit(&client(TLS12)).cipher, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256");
}

#[test]
fn a_cipher_list_that_cannot_work_is_refused() {
    let Err(Invalid::Cipher { name, available }) = Service::new(with_ciphers(&["TLS_RSA_WITH_RC4_128_MD5"])) else {
        panic!("there is no such cipher")
    };
    assert_eq!(name, "TLS_RSA_WITH_RC4_128_MD5");
    assert!(available.contains("TLS_AES_128_GCM_SHA256, "), "{available}");
    assert!(available.contains("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"), "{available}");
    assert!(matches!(Service::new(with_ciphers(&["TLS_AES_128_GCM_SHA256"])), Err(Invalid::NoCipher("1.2"))));
    let only_old = with_ciphers(&["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]);
    assert!(matches!(Service::new(only_old.clone()), Err(Invalid::NoCipher("1.3"))));
    // Not offered where TLS 1.2 is not spoken.
    assert!(matches!(Service::new(Settings { versions: Versions::Tls13, ..only_old }), Err(Invalid::Cipher { .. })));
}

#[test]
fn a_client_below_the_minimum_version_is_refused() {
    let mut engine = engine(Settings { versions: Versions::Tls13, ..settings() });
    let link = engine.connect(&client(TLS12), NAME);
    assert_eq!(link.failure, Some(Failure::NothingInCommon));
    assert_eq!(link.client_error, Some(rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)));
    assert_eq!(engine.visit(&client(TLS13)).version, TlsVersion::Tls13);
}

#[test]
fn the_application_protocol_is_the_first_of_ours_that_the_client_knows() {
    let ours = || Settings { alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()], ..settings() };
    for versions in [TLS12, TLS13] {
        let mut engine = engine(ours());
        let offers = |protocols: &[&str]| {
            let mut config = client_of(versions, &[&SHOP]);
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
            Arc::new(config)
        };
        assert_eq!(engine.visit(&offers(&["http/1.1", "h2"])).alpn.as_deref(), Some(b"h2".as_slice()));
        assert_eq!(engine.visit(&offers(&["http/1.1"])).alpn.as_deref(), Some(b"http/1.1".as_slice()));
        assert_eq!(engine.visit(&offers(&[])).alpn, None);
        let stranger = engine.connect(&offers(&["imap"]), NAME);
        assert_eq!(stranger.failure, Some(Failure::NothingInCommon));
        assert_eq!(stranger.client_error, Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)));
    }
}

#[test]
fn without_protocols_of_ours_any_offer_is_passed_over() {
    let mut engine = engine(settings());
    let mut config = client_of(TLS13, &[&SHOP]);
    config.alpn_protocols = vec![b"imap".to_vec()];
    assert_eq!(engine.visit(&Arc::new(config)).alpn, None);
}

#[test]
fn a_hello_retry_request_changes_nothing_for_tickets() {
    // The client's first key share is of a group that no server here knows.
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups =
        vec![rustls::crypto::aws_lc_rs::kx_group::MLKEM768, rustls::crypto::aws_lc_rs::kx_group::X25519];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(SHOP.der.clone()).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(TLS13)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.time_provider = Arc::clone(&client_of(TLS13, &[]).time_provider);
    let client = Arc::new(config);
    let mut engine = engine(settings());
    let first = engine.connect(&client, NAME);
    assert_eq!(first.client.handshake_kind(), Some(rustls::HandshakeKind::FullWithHelloRetryRequest));
    assert!(!first.handshake.unwrap().resumed);
    engine.next_is(ServerIndex(2));
    let again = engine.visit(&client);
    assert_eq!((again.resumed, again.decision.server), (true, Some(ServerIndex(0))));
}

#[test]
fn plain_http_is_not_tls() {
    let mut engine = engine(settings());
    let mut session = Session::new(&engine.service, CLIENT);
    assert_eq!(session.on_data(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"), Err(Failure::NotTls));
    assert!(!session.has_output(), "no alert is sent to who does not read alerts");
    assert_eq!(session.on_data(b"more"), Err(Failure::NotTls));
    assert_eq!(session.advance(&mut engine.desk, &engine.backend), Err(Failure::NotTls));
    assert!(!session.is_handshaking());
}

#[test]
fn rubbish_in_a_handshake_record_is_answered_by_an_alert() {
    let mut engine = engine(settings());
    for rubbish in [
        b"\x16\x03\x01\x00\x05hello".as_slice(),
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x99\x99\x00\x05hello",
        b"\x16\x03\x01\x00\x00",
    ] {
        let mut session = Session::new(&engine.service, CLIENT);
        let failure = session.on_data(rubbish).and_then(|_| session.advance(&mut engine.desk, &engine.backend));
        if let Err(failure) = failure {
            assert_eq!(failure, Failure::Protocol, "{rubbish:x?}");
            let mut alert = Vec::new();
            // An alert that is taken byte by byte comes whole.
            while session.has_output() {
                session.poll_transmit(|chunk| {
                    alert.extend(chunk.first());
                    1
                });
            }
            assert!(alert.is_empty() || (alert.len() == 7 && alert.first() == Some(&21)), "{rubbish:x?}: {alert:x?}");
        }
    }
}

#[test]
fn a_client_hello_longer_than_64_kib_is_refused() {
    let mut engine = engine(settings());
    let mut session = Session::new(&engine.service, CLIENT);
    // A handshake message of 1 MiB, in records of 16 KiB.
    let mut message = vec![1, 0x10, 0, 0];
    message.resize(1 << 20, 0);
    let mut taken = 0;
    for record in message.chunks(16_384) {
        let length = u16::try_from(record.len()).unwrap().to_be_bytes();
        let bytes: Vec<u8> = [22, 3, 1].into_iter().chain(length).chain(record.iter().copied()).collect();
        match session.on_data(&bytes).and_then(|n| {
            taken += n;
            session.advance(&mut engine.desk, &engine.backend)
        }) {
            Ok(_) => assert!(taken <= 65_536, "{taken} bytes are kept"),
            Err(failure) => return assert_eq!(failure, Failure::Protocol),
        }
    }
    panic!("{taken} bytes were taken");
}

#[test]
fn an_alert_of_the_client_ends_the_handshake() {
    // It does not trust the certificate.
    let stranger = Arc::new(client_of(TLS13, &[&crate::tls::testing::Identity::ecdsa(&[NAME])]));
    let mut engine = engine(settings());
    let link = engine.connect(&stranger, NAME);
    assert_eq!(link.failure, Some(Failure::AlertReceived));
    assert_eq!((engine.count("handshakes_full"), engine.count("sealed")), (0, 0));
}
