//! The keys of an established session, and what may be sent under them: by a client of rustls's, and by one that has the keys and no manners.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::AlertDescription::{
    BadRecordMac, CloseNotify, DecodeError, IllegalParameter, NoRenegotiation, RecordOverflow, UnexpectedMessage,
};
use rustls::crypto::cipher::{AeadKey, Iv, MessageDecrypter, MessageEncrypter};
use rustls::crypto::cipher::{InboundOpaqueMessage, OutboundChunks, OutboundPlainMessage};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ExtractedSecrets, ProtocolVersion, SupportedCipherSuite,
    SupportedProtocolVersion,
};

use crate::tls::service::Settings;
use crate::tls::testing::{
    Engine, Identity, Link, NAME, SHOP, TLS12, TLS13, client, client_by, client_of, established, ring, settings,
};
use crate::tls::{Failure, Progress};

const ALERT: ContentType = ContentType::Alert;
const DATA: ContentType = ContentType::ApplicationData;
const HANDSHAKE: ContentType = ContentType::Handshake;
const CHANGE_CIPHER_SPEC: ContentType = ContentType::ChangeCipherSpec;

#[test]
fn every_cipher_suite_carries_data_both_ways() {
    let suites = rustls::crypto::aws_lc_rs::default_provider().cipher_suites;
    assert_eq!(suites.len(), 9);
    let rsa = Identity::rsa(&[NAME]);
    for suite in suites {
        let certificates = vec![SHOP.certificate(), rsa.certificate()];
        let mut engine = Engine::new(Settings { certificates, ..settings() }, &ring(1), 1);
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites = vec![suite];
        let version = if suite.tls13().is_some() { TLS13 } else { TLS12 };
        let mut link = engine.connect(&Arc::new(client_by(provider, version, &[&SHOP, &rsa])), NAME);
        assert!(link.handshake.is_some(), "{suite:?}");
        for turn in 0..3_u8 {
            link.client.writer().write_all(&[turn; 5000]).unwrap();
            link.pump(&mut engine);
            assert_eq!(link.received(), [turn; 5000], "{suite:?}");
            assert_eq!(link.write(&[turn; 7000]), 7000);
            link.pump(&mut engine);
            assert_eq!(link.read_all(), [turn; 7000], "{suite:?}");
            if suite.tls13().is_some() {
                // The next turn is under new keys, both ways.
                link.client.refresh_traffic_keys().unwrap();
            }
        }
    }
}

#[test]
fn new_keys_of_the_client_are_followed_and_answered_by_our_own() {
    let (mut engine, mut link) = established(TLS13);
    // RFC 8446 4.6.3: rustls's client asks for an answer each time. More than may come in a row, but there is data between them.
    for turn in 0..40_u8 {
        link.client.refresh_traffic_keys().unwrap();
        link.client.writer().write_all(&[turn; 3]).unwrap();
        link.pump(&mut engine);
        assert_eq!(link.received(), [turn; 3]);
        assert_eq!(link.write(&[turn; 5]), 5);
        link.pump(&mut engine);
        assert_eq!(link.read_all(), [turn; 5]);
    }
    assert_eq!((link.failure, link.client_error), (None, None));
}

#[test]
fn several_requests_for_new_keys_are_answered_once() {
    let (mut engine, mut link) = established(TLS13);
    for _ in 0..32 {
        link.client.refresh_traffic_keys().unwrap();
    }
    link.pump(&mut engine);
    assert!(!link.session.has_output(), "nothing is said before there is data");
    assert_eq!(link.seal(b"pong", 1000), Ok(None), "new keys go first");
    let mut len = 0;
    link.session.poll_transmit(|chunk| {
        len = chunk.len();
        0
    });
    assert_eq!(len, 5 + 5 + 1 + 16, "one KeyUpdate");
    assert_eq!(link.write(b"pong"), 4);
    link.pump(&mut engine);
    assert_eq!(link.read_all(), b"pong");
    // The 33rd in a row is one too many.
    link.client.refresh_traffic_keys().unwrap();
    link.pump(&mut engine);
    assert_eq!(link.failure, Some(Failure::Protocol));
}

#[test]
fn keys_that_have_sealed_all_they_may_are_changed_in_tls13() {
    let (mut engine, mut link) = established(TLS13);
    link.session.set_seal_max(5);
    let mut read = Vec::new();
    for turn in 0..30_u8 {
        assert_eq!(link.write(&[turn]), 1);
        link.pump(&mut engine);
        read.extend(link.read_all());
    }
    assert_eq!(read, (0..30).collect::<Vec<_>>());
    assert_eq!((link.failure, link.client_error), (None, None));
}

#[test]
fn keys_that_have_sealed_all_they_may_end_a_tls12_session() {
    let (mut engine, mut link) = established(TLS12);
    link.session.set_seal_max(5);
    // One is the Finished message, and one more is kept for the alert.
    let written = (0..9).take_while(|turn| link.write(&[*turn]) == 1).count();
    assert_eq!((written, link.failure), (3, Some(Failure::KeysSpent)));
    assert_eq!(link.seal(b"no", 1000), Ok(None));
    link.pump(&mut engine);
    let mut read = Vec::new();
    link.client.reader().read_to_end(&mut read).expect("close_notify makes it a clean end");
    assert_eq!(read, [0, 1, 2]);
}

/// A client that seals what it likes.
struct Forger {
    engine: Engine,
    link: Link,
    sealer: Box<dyn MessageEncrypter>,
    opener: Box<dyn MessageDecrypter>,
    seal_seq: u64,
    open_seq: u64,
}

impl Forger {
    fn new(versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut config = client_of(versions, &[&SHOP]);
        config.enable_secret_extraction = true;
        // This provider's ciphers do not mind where the numbers begin.
        let suites = rustls::crypto::ring::default_provider().cipher_suites;
        let mut engine = Engine::new(settings(), &ring(1), 1);
        let mut link = engine.connect(&Arc::new(config), NAME);
        let suite = link.client.negotiated_cipher_suite().unwrap().suite();
        let suite = *suites.iter().find(|other| other.suite() == suite).unwrap();
        let other = rustls::ClientConnection::new(client(versions), NAME.try_into().unwrap()).unwrap();
        let connection = std::mem::replace(&mut link.client, other);
        let ExtractedSecrets { tx, rx } = connection.dangerous_extract_secrets().unwrap();
        let (sealer, opener) = ciphers(suite, tx.1, rx.1);
        Self { engine, link, sealer, opener, seal_seq: tx.0, open_seq: rx.0 }
    }

    fn seal(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.sealer.encrypt(message, self.seal_seq).unwrap().encode();
        self.seal_seq += 1;
        record
    }

    /// Sends a record, and gives what became of the session and the alert that came back.
    fn send(&mut self, typ: ContentType, payload: &[u8]) -> (Option<Failure>, Option<AlertDescription>) {
        let record = self.seal(typ, payload);
        self.send_raw(&record)
    }

    fn send_raw(&mut self, record: &[u8]) -> (Option<Failure>, Option<AlertDescription>) {
        let progress = self.link.session.on_data(record).and_then(|taken| {
            assert_eq!(taken, record.len());
            self.link.session.advance(&mut self.engine.desk, &self.engine.backend)
        });
        let failure = match progress {
            Ok(progress) => {
                assert_eq!(progress, Progress::Open);
                None
            }
            Err(failure) => Some(failure),
        };
        let mut answer = Vec::new();
        self.link.session.poll_transmit(|chunk| {
            answer.extend_from_slice(chunk);
            chunk.len()
        });
        let Some(([kind, ..], body)) = answer.split_first_chunk_mut::<5>() else { return (failure, None) };
        let message = InboundOpaqueMessage::new(ContentType::from(*kind), ProtocolVersion::TLSv1_2, body);
        let opened = self.opener.decrypt(message, self.open_seq).unwrap();
        self.open_seq += 1;
        assert_eq!((opened.typ, opened.payload.len()), (ALERT, 2));
        let is_fatal = opened.payload[0] == 2;
        let alert = AlertDescription::from(opened.payload[1]);
        assert_eq!(is_fatal, ![CloseNotify, NoRenegotiation].contains(&alert), "{alert:?}");
        (failure, Some(alert))
    }
}

fn ciphers(
    suite: SupportedCipherSuite,
    tx: ConnectionTrafficSecrets,
    rx: ConnectionTrafficSecrets,
) -> (Box<dyn MessageEncrypter>, Box<dyn MessageDecrypter>) {
    let parts = |secrets| -> (AeadKey, Iv) {
        match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => unreachable!("there are no others"),
        }
    };
    let ((seal_key, seal_iv), (open_key, open_iv)) = (parts(tx), parts(rx));
    match suite {
        SupportedCipherSuite::Tls13(suite) => {
            (suite.aead_alg.encrypter(seal_key, seal_iv), suite.aead_alg.decrypter(open_key, open_iv))
        }
        SupportedCipherSuite::Tls12(suite) => {
            let fixed = suite.aead_alg.key_block_shape().fixed_iv_len;
            let (salt, explicit) = seal_iv.as_ref().split_at(fixed);
            let opener = suite.aead_alg.decrypter(open_key, &open_iv.as_ref()[..fixed]);
            (suite.aead_alg.encrypter(seal_key, salt, explicit), opener)
        }
    }
}

type Case<'a> = (&'a [&'static SupportedProtocolVersion], ContentType, &'a [u8], Option<AlertDescription>);

#[test]
fn what_may_not_be_sent_ends_the_session_with_an_alert() {
    let both = [TLS12[0], TLS13[0]];
    let cases: [Case<'_>; 13] = [
        (&both, ALERT, &[2], Some(DecodeError)),
        (&both, ALERT, &[2, 40, 0], Some(DecodeError)),
        (&both, HANDSHAKE, &[], Some(UnexpectedMessage)),
        (&both, ALERT, &[], Some(UnexpectedMessage)),
        // A Certificate; a KeyUpdate that is none; one that is not alone in its record; one that asks for the impossible.
        (&both, HANDSHAKE, &[11, 0, 0, 0], Some(UnexpectedMessage)),
        (TLS13, HANDSHAKE, &[24, 0, 0, 2, 0, 0], Some(UnexpectedMessage)),
        (TLS13, HANDSHAKE, &[24, 0, 0, 1, 0, 24], Some(UnexpectedMessage)),
        (TLS13, HANDSHAKE, &[24, 0, 0, 1, 2], Some(IllegalParameter)),
        // A ClientHello of TLS 1.3, and in TLS 1.2 one that is not whole and two in one.
        (TLS13, HANDSHAKE, &[1, 0, 0, 0], Some(UnexpectedMessage)),
        (TLS12, HANDSHAKE, &[1, 0, 0, 1], Some(UnexpectedMessage)),
        (TLS12, HANDSHAKE, &[1, 0, 0, 0, 1, 0, 0, 0], Some(UnexpectedMessage)),
        (&both, CHANGE_CIPHER_SPEC, &[1], Some(UnexpectedMessage)),
        (&both, ContentType::Heartbeat, &[1, 0, 0], None),
    ];
    for (versions, typ, payload, alert) in cases {
        for version in versions {
            let mut forger = Forger::new(&[version]);
            let (failure, told) = forger.send(typ, payload);
            assert_eq!(failure, Some(Failure::Protocol), "{typ:?} {payload:?} {version:?}");
            assert_eq!(told, alert.or(told.filter(|it| [UnexpectedMessage, DecodeError].contains(it))));
        }
    }
}

#[test]
fn alerts_are_taken_for_what_they_say() {
    for versions in [TLS12, TLS13] {
        let mut forger = Forger::new(versions);
        assert_eq!(forger.send(ALERT, &[2, 40]), (Some(Failure::AlertReceived), None));
        let mut forger = Forger::new(versions);
        assert_eq!(forger.send(ALERT, &[3, 40]), (Some(Failure::AlertReceived), Some(IllegalParameter)));
        let mut forger = Forger::new(versions);
        assert_eq!(forger.send(ALERT, &[1, 0]), (None, None));
        assert!(forger.link.session.peer_has_closed());
    }
    // RFC 8446 6: TLS 1.3 has no warnings but user_canceled. Four are borne.
    let mut forger = Forger::new(TLS13);
    assert_eq!(forger.send(ALERT, &[1, 100]), (Some(Failure::AlertReceived), Some(DecodeError)));
    for (versions, description) in [(TLS12, 100), (TLS13, 90)] {
        let mut forger = Forger::new(versions);
        for _ in 0..4 {
            assert_eq!(forger.send(ALERT, &[1, description]), (None, None));
        }
        assert_eq!(forger.send(ALERT, &[1, description]), (Some(Failure::Protocol), Some(UnexpectedMessage)));
    }
}

#[test]
fn a_renegotiation_is_refused_once_and_then_ends_the_session() {
    let mut forger = Forger::new(TLS12);
    assert_eq!(forger.send(HANDSHAKE, &[1, 0, 0, 2, 3, 3]), (None, Some(NoRenegotiation)));
    assert_eq!(forger.send(DATA, b"more"), (None, None));
    assert_eq!(forger.link.received(), b"more");
    assert_eq!(forger.send(HANDSHAKE, &[1, 0, 0, 0]), (Some(Failure::Protocol), Some(UnexpectedMessage)));
}

#[test]
fn records_without_content_are_borne_up_to_a_number_in_a_row() {
    for versions in [TLS12, TLS13] {
        let mut forger = Forger::new(versions);
        for _ in 0..3 {
            for _ in 0..32 {
                assert_eq!(forger.send(DATA, b""), (None, None));
            }
            assert_eq!(forger.send(DATA, b"x"), (None, None));
        }
        assert_eq!(forger.link.received(), b"xxx");
        for _ in 0..32 {
            forger.send(DATA, b"");
        }
        assert_eq!(forger.send(DATA, b""), (Some(Failure::Protocol), Some(UnexpectedMessage)));
    }
}

#[test]
fn a_key_update_may_come_in_pieces_with_nothing_between_them() {
    for cut in 1..5 {
        let mut forger = Forger::new(TLS13);
        let (first, second) = [24, 0, 0, 1, 0].split_at(cut);
        assert_eq!(forger.send(HANDSHAKE, first), (None, None));
        assert_eq!(forger.send(HANDSHAKE, second), (None, None), "cut at {cut}");
        // The old keys are of no use any more.
        assert_eq!(forger.send(DATA, b"x"), (Some(Failure::Protocol), Some(BadRecordMac)));

        let mut forger = Forger::new(TLS13);
        assert_eq!(forger.send(HANDSHAKE, first), (None, None));
        assert_eq!(forger.send(DATA, b"x"), (Some(Failure::Protocol), Some(UnexpectedMessage)));
    }
}

#[test]
fn a_header_that_is_none_ends_the_session() {
    for versions in [TLS12, TLS13] {
        let cases: [(&[u8], AlertDescription); 5] = [
            (&[99, 3, 3, 0, 1], DecodeError),
            (&[23, 2, 3, 0, 1], DecodeError),
            (&[22, 3, 3, 0, 0], DecodeError),
            (&[23, 3, 3, 0x48, 0x01], DecodeError),
            (&[20, 3, 3, 0, 1, 1], UnexpectedMessage),
        ];
        for (header, alert) in cases {
            let mut forger = Forger::new(versions);
            assert_eq!(forger.send_raw(header), (Some(Failure::Protocol), Some(alert)), "{header:?}");
        }
    }
}

#[test]
fn a_record_may_be_full_and_no_fuller() {
    for versions in [TLS12, TLS13] {
        let mut forger = Forger::new(versions);
        let full = vec![7; 1 << 14];
        assert_eq!(forger.send(DATA, &full), (None, None));
        assert_eq!(forger.link.received(), full);
        let over = vec![7; (1 << 14) + 1];
        assert_eq!(forger.send(DATA, &over), (Some(Failure::Protocol), Some(RecordOverflow)));
    }
}
