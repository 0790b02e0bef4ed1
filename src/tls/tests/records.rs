//! Application data, back-pressure and the end of a session.

use std::io::{Read, Write};

use crate::tls::cipher::{OVERHEAD_MAX, PLAINTEXT_MAX};
use crate::tls::session::INPUT_MAX;
use crate::tls::testing::{Engine, Link, NAME, TLS12, TLS13, client, established, ring, settings};
use crate::tls::{Failure, Progress};

#[test]
fn data_flows_both_ways() {
    for versions in [TLS12, TLS13] {
        let (mut engine, mut link) = established(versions);
        link.client.writer().write_all(b"ping").unwrap();
        link.pump(&mut engine);
        assert_eq!(link.received(), b"ping");
        assert_eq!(link.write(b"pong"), 4);
        link.pump(&mut engine);
        assert_eq!(link.read_all(), b"pong");
    }
}

#[test]
fn data_that_comes_with_the_finished_message_is_not_lost() {
    for versions in [TLS12, TLS13] {
        let mut engine = Engine::new(settings(), &ring(1), 1);
        let mut link = Link::new(&engine, &client(versions), NAME);
        // rustls's client sends it as soon as it may.
        link.client.writer().write_all(b"early bird").unwrap();
        link.segment = 1 << 14;
        link.pump(&mut engine);
        assert!(link.handshake.is_some());
        assert_eq!(link.received(), b"early bird");
    }
}

#[test]
fn a_record_is_no_longer_than_its_room() {
    for versions in [TLS12, TLS13] {
        let (_engine, mut link) = established(versions);
        let data: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        assert_eq!(link.seal(&data, OVERHEAD_MAX), Ok(None), "no room for a byte");
        for (room, taken) in [(OVERHEAD_MAX + 1, 1), (1000, 1000 - OVERHEAD_MAX), (1 << 20, PLAINTEXT_MAX)] {
            let (sealed, record) = link.seal(&data, room).unwrap().expect("there is room");
            assert_eq!(sealed, taken);
            assert!(record.len() <= room && record.len() > taken, "{} for {taken} bytes", record.len());
        }
    }
}

#[test]
fn data_of_any_length_arrives() {
    for versions in [TLS12, TLS13] {
        let (mut engine, mut link) = established(versions);
        for len in [1, 16_383, 16_384, 16_385] {
            let data: Vec<u8> = (0..=255).cycle().take(len).collect();
            assert_eq!(link.write(&data), len);
            link.pump(&mut engine);
            assert!(link.read_all() == data);
        }
    }
}

#[test]
fn handshake_messages_may_be_taken_in_any_portions() {
    for portion in [1, 7, 1000] {
        let mut engine = Engine::new(settings(), &ring(1), 1);
        let mut link = Link::new(&engine, &client(TLS13), NAME);
        link.carry_to_server(&mut engine);
        let mut wire = Vec::new();
        while link.session.has_output() {
            link.session.poll_transmit(|chunk| {
                let n = chunk.len().min(portion);
                wire.extend_from_slice(&chunk[..n]);
                n
            });
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            link.client.read_tls(&mut rest).unwrap();
            link.client.process_new_packets().unwrap();
        }
        link.pump(&mut engine);
        assert!(link.handshake.is_some());
    }
}

#[test]
fn plaintext_may_be_taken_in_any_portions_and_what_waits_holds_the_client_back() {
    for versions in [TLS12, TLS13] {
        let (mut engine, mut link) = established(versions);
        let data: Vec<u8> = (0..=250).cycle().take(60_000).collect();
        link.client.writer().write_all(&data).unwrap();
        let mut wire = Vec::new();
        while link.client.wants_write() {
            link.client.write_tls(&mut wire).unwrap();
        }
        let (mut sent, mut received, mut was_held_back) = (0, Vec::<u8>::new(), false);
        while received.len() < data.len() {
            let taken = link.session.on_data(&wire[sent..]).unwrap();
            sent += taken;
            was_held_back |= sent < wire.len() && taken == 0;
            assert_eq!(link.session.advance(&mut engine.desk, &engine.backend), Ok(Progress::Open));
            assert!(sent - received.len() < 64 * 1024, "what is kept is bounded");
            if taken == 0 || sent == wire.len() {
                let waiting = link.session.readable();
                let portion = link.session.take(1000).unwrap_or_default();
                assert_eq!((portion.len(), link.session.readable()), (waiting.min(1000), waiting.saturating_sub(1000)));
                received.extend(portion.bytes());
            }
        }
        assert!(was_held_back && received == data);
    }
}

#[test]
fn a_session_keeps_no_more_than_a_record_of_what_it_was_given() {
    for versions in [TLS12, TLS13] {
        let (mut engine, mut link) = established(versions);
        link.client.writer().write_all(&[7; 40_000]).unwrap();
        let wire = link.flight();
        let record = 5 + usize::from(u16::from_be_bytes([wire[3], wire[4]]));
        assert_eq!(link.session.on_data(&wire), Ok(record), "a long record comes alone");
        assert_eq!(link.session.on_data(&wire[record..]), Ok(0));
        link.session.advance(&mut engine.desk, &engine.backend).unwrap();
        // Behind what waits to be taken there is room for more, up to the longest record.
        assert_eq!(link.session.on_data(&wire[record..]), Ok(INPUT_MAX - PLAINTEXT_MAX));
        assert_eq!(link.session.on_data(&wire[record + INPUT_MAX - PLAINTEXT_MAX..]), Ok(0), "it is full");
        assert_eq!(link.received(), [7; PLAINTEXT_MAX]);
        assert!(link.session.on_data(&wire[record + INPUT_MAX - PLAINTEXT_MAX..]).unwrap() > 10_000);
    }
}

#[test]
fn nothing_is_written_before_the_handshake_has_ended() {
    let engine = Engine::new(settings(), &ring(1), 1);
    let mut link = Link::new(&engine, &client(TLS13), NAME);
    assert_eq!(link.write(b"too early"), 0);
    assert!(!link.session.has_output());
}

#[test]
fn our_close_reaches_the_client_behind_the_data() {
    for versions in [TLS12, TLS13] {
        let (mut engine, mut link) = established(versions);
        assert_eq!(link.write(b"last"), 4);
        link.session.close();
        link.session.close();
        assert_eq!(link.write(b"later"), 0);
        link.pump(&mut engine);
        let mut text = String::new();
        link.client.reader().read_to_string(&mut text).expect("close_notify makes it a clean end");
        assert_eq!(text, "last");
        // The client may still send: half-close.
        link.client.writer().write_all(b"thanks").unwrap();
        link.pump(&mut engine);
        assert_eq!(link.received(), b"thanks");
        assert!(!link.session.peer_has_closed());
    }
}

#[test]
fn garbage_behind_our_close_ends_the_session_and_nothing_else() {
    for versions in [TLS12, TLS13] {
        let (mut engine, mut link) = established(versions);
        link.session.close();
        link.give(&mut engine, &[23, 3, 3, 0, 4, 1, 2, 3, 4]);
        assert_eq!(link.failure, Some(Failure::Protocol));
    }
}

#[test]
fn the_clients_close_is_told_from_a_truncation() {
    for versions in [TLS12, TLS13] {
        let (mut engine, mut link) = established(versions);
        link.client.writer().write_all(b"last").unwrap();
        link.pump(&mut engine);
        assert!(!link.session.peer_has_closed(), "were this the end of its stream, it would be truncated");
        link.client.send_close_notify();
        link.pump(&mut engine);
        assert!(link.session.peer_has_closed());
        assert_eq!(link.received(), b"last");
        // RFC 8446 6.1: what comes behind it is ignored.
        assert_eq!(link.session.on_data(b"rubbish"), Ok(7));
        assert_eq!(link.session.advance(&mut engine.desk, &engine.backend), Ok(Progress::Open));
        // And we may still send.
        assert_eq!(link.write(b"bye"), 3);
        link.pump(&mut engine);
        assert_eq!(link.read_all(), b"bye");
    }
}

#[test]
fn a_record_that_does_not_decrypt_ends_the_session_with_an_alert() {
    for versions in [TLS12, TLS13] {
        let (mut engine, mut link) = established(versions);
        link.client.writer().write_all(b"good").unwrap();
        link.pump(&mut engine);
        let mut bad = vec![23, 3, 3, 0, 40];
        bad.resize(45, 9);
        link.give(&mut engine, &bad);
        assert_eq!(link.failure, Some(Failure::Protocol));
        assert_eq!(link.session.on_data(b"more"), Err(Failure::Protocol));
        assert_eq!(link.received(), b"good", "what came before is still there");
        assert_eq!(link.write(b"no"), 0);
        link.carry_to_client();
        assert_eq!(link.client_error, Some(rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac)));
    }
}

#[test]
fn renegotiation_is_refused() {
    // H4. rustls answers a ClientHello within a TLS 1.2 session by a no_renegotiation warning and goes on; here it is a forged one, which does not even decrypt.
    let (mut engine, mut link) = established(TLS12);
    link.give(&mut engine, b"\x16\x03\x03\x00\x04\x01\x00\x00\x00");
    assert_eq!(link.failure, Some(Failure::Protocol));
}
