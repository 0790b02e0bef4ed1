//! The testbed's own tests: that it does what its calls say. What TCP does is tested by dialogues.

use proptest::prelude::*;
use smoltcp::wire::checksum;

use super::*;

const HERE: ([u8; 4], u16) = ([198, 18, 0, 1], 50_000);
const THERE: ([u8; 4], u16) = ([198, 18, 0, 2], 443);

fn carry(one: &mut Testbed, other: &mut Testbed) {
    loop {
        let (to_other, to_one) = (one.take(), other.take());
        if to_other.is_none() && to_one.is_none() {
            return;
        }
        to_other.iter().for_each(|packet| other.inject(packet).unwrap());
        to_one.iter().for_each(|packet| one.inject(packet).unwrap());
    }
}

/// A client and a server with a connection between them.
fn pair(settings: &Settings) -> (Testbed, ConnectionId, Testbed, ConnectionId) {
    let (mut client, mut server) = (Testbed::new(settings.clone(), 1), Testbed::new(settings.clone(), 2));
    let listener = server.listen(THERE.into()).unwrap();
    let ours = client.connect(HERE.into(), THERE.into()).unwrap();
    carry(&mut client, &mut server);
    let theirs = server.accept(listener).unwrap();
    (client, ours, server, theirs)
}

/// An ICMP error that quotes this packet.
fn icmp(kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    icmp_with(kind, code, [0; 2], quoted)
}

fn icmp_with(kind: u8, code: u8, [high, low]: [u8; 2], quoted: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0, 0, 0, high, low], &quoted[..28]].concat();
    let sum = !checksum::data(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 56, 0, 0, 0x40, 0, 64, 1, 0, 0, 198, 19, 0, 1, 198, 18, 0, 1];
    let sum = !checksum::data(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    [packet, message].concat()
}

#[test]
fn a_handshake_is_seen_in_every_state() {
    let (mut client, mut server) = (Testbed::new(Settings::default(), 1), Testbed::new(Settings::default(), 2));
    let listener = server.listen(THERE.into()).unwrap();
    assert_eq!(server.listen(THERE.into()), Err(OpenError::Refused(Refused::InUse)));
    let ours = client.connect(HERE.into(), THERE.into()).unwrap();
    server.inject(&client.take().unwrap()).unwrap();
    assert_eq!(server.state_of(THERE.into(), HERE.into()).map(State::name), Some("SYN-RECEIVED"));
    assert_eq!(server.accept(listener), None);
    carry(&mut client, &mut server);
    assert_eq!(server.state_of(THERE.into(), HERE.into()), Some(State::Established));
    assert_eq!(client.event(), Some((ours, Event::Connected)));
    assert_eq!((client.event(), client.take()), (None, None));
    server.unlisten(listener);
    let (nobody, port) = (client.connect(([198, 18, 0, 1], 50_001).into(), THERE.into()).unwrap(), 50_001);
    carry(&mut client, &mut server);
    assert_eq!(client.ended(nobody), Some(Close::Refused));
    assert_eq!(client.write(nobody, b"x"), Err(CallError::Ended(Close::Refused)));
    assert_eq!(client.state_of(([198, 18, 0, 1], port).into(), THERE.into()), None);
}

#[test]
fn endpoints_that_cannot_be_are_refused() {
    let mut bed = Testbed::new(Settings::default(), 1);
    for endpoint in ["0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "255.255.255.255:1", "198.18.0.2:0", "[2001:db8::1]:1"]
    {
        let endpoint = endpoint.parse().unwrap();
        assert_eq!(bed.connect(HERE.into(), endpoint), Err(OpenError::Endpoints), "{endpoint}");
    }
    assert_eq!(bed.listen("[::]:443".parse().unwrap()), Err(OpenError::Endpoints));
    assert_eq!((bed.take(), bed.next_timer()), (None, None));
}

#[test]
fn a_syn_to_a_group_is_dropped_and_not_even_reset() {
    let mut client = Testbed::new(Settings::default(), 1);
    client.connect(HERE.into(), THERE.into()).unwrap();
    let syn = client.take().unwrap();
    // The same SYN to somebody else, with right checksums.
    let to = |destination: [u8; 4]| {
        let mut packet = syn.clone();
        packet[16..20].copy_from_slice(&destination);
        let mut ip = smoltcp::wire::Ipv4Packet::new_unchecked(&mut packet[..]);
        ip.fill_checksum();
        let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
        smoltcp::wire::TcpPacket::new_unchecked(ip.payload_mut()).fill_checksum(&from, &to);
        packet
    };
    let mut bed = Testbed::new(Settings::default(), 2);
    for group in [[224, 0, 0, 1], [239, 255, 0, 1], [255, 255, 255, 255]] {
        assert!(bed.inject(&to(group)).is_err(), "{group:?}");
        assert_eq!(bed.take(), None, "{group:?}");
    }
    bed.inject(&to([198, 18, 0, 2])).unwrap();
    assert!(bed.take().is_some(), "a host is reset");
}

#[test]
fn what_leaves_while_time_passes_is_stamped_with_its_time() {
    let mut bed = Testbed::new(Settings::default(), 1);
    let connection = bed.connect(HERE.into(), THERE.into()).unwrap();
    bed.advance(Duration::from_secs(8));
    let times: Vec<u64> = std::iter::from_fn(|| bed.take_timed()).map(|(at, _)| at.as_nanos() / 1_000_000).collect();
    assert_eq!(times, [0, 1000, 3000, 7000]);
    // A suspended machine finds out late, and once.
    bed.jump_to(bed.now() + Duration::from_secs(60));
    assert_eq!(std::iter::from_fn(|| bed.take_timed()).count(), 1);
    bed.advance(Duration::from_secs(60));
    assert_eq!(bed.ended(connection), Some(Close::TimedOut));
    bed.advance_to(Instant::START);
    assert_eq!(bed.now(), Instant::START + Duration::from_secs(128));
}

#[test]
fn an_icmp_error_that_quotes_our_syn_ends_the_connection_and_others_do_nothing() {
    let mut bed = Testbed::new(Settings::default(), 1);
    let connection = bed.connect(HERE.into(), THERE.into()).unwrap();
    let syn = bed.take().unwrap();
    let mut stray = syn.clone();
    stray[24] ^= 1;
    bed.inject(&icmp(3, 1, &stray)).unwrap();
    assert_eq!((bed.state(connection), bed.counters().unreachables_ignored.value()), (State::SynSent, 1));
    let mut damaged = icmp(3, 1, &syn);
    damaged[30] ^= 1;
    assert_eq!(bed.inject(&damaged), Err(Malformed::Checksum));
    assert_eq!(bed.inject(&icmp(8, 0, &syn)), Err(Malformed::Unsupported));
    assert_eq!(bed.state(connection), State::SynSent);
    bed.inject(&icmp(3, 1, &syn)).unwrap();
    assert_eq!(bed.ended(connection), Some(Close::Unreachable));
}

#[test]
fn a_packet_that_was_too_big_is_sent_again_in_pieces() {
    let (mut client, ours, mut server, theirs) = pair(&Settings::default());
    client.write(ours, &[7; 2000]).unwrap();
    let first = client.take().unwrap();
    assert_eq!(first.len(), 1500);
    let second = client.take().unwrap();
    client.inject(&icmp_with(3, 4, 1300_u16.to_be_bytes(), &first)).unwrap();
    assert_eq!(client.inspect(ours).unwrap().mss, 1300 - 52);
    assert_eq!((client.counters().path_mtu_lowered.value(), client.audit()), (1, Ok(())));
    let again = client.take().unwrap();
    assert_eq!((again.len(), client.take()), (1300, None));
    server.inject(&again).unwrap();
    server.inject(&second).unwrap();
    carry(&mut client, &mut server);
    client.advance(Duration::from_millis(100));
    server.advance(Duration::from_millis(100));
    carry(&mut client, &mut server);
    assert_eq!(server.read(theirs, &mut [0; 3000]), Ok(Read::Bytes(2000)));
    assert_eq!((client.unacknowledged(ours), client.audit()), (0, Ok(())));
    client.inject(&icmp_with(3, 4, 600_u16.to_be_bytes(), &first)).unwrap();
    assert_eq!(client.counters().packets_too_big_ignored.value(), 1);
}

#[test]
fn close_resets_what_sends_on_and_shutdown_does_not() {
    for close in [false, true] {
        let (mut client, ours, mut server, theirs) = pair(&Settings::default());
        if close {
            client.close(ours)
        } else {
            client.shutdown(ours)
        }
        assert_eq!(client.write(ours, b"x"), Err(CallError::Closing));
        carry(&mut client, &mut server);
        assert_eq!(server.write(theirs, b"still here"), Ok(10));
        carry(&mut client, &mut server);
        if close {
            assert_eq!(client.read(ours, &mut [0; 20]), Err(CallError::Unknown));
            assert_eq!(server.ended(theirs), Some(Close::Reset));
        } else {
            assert_eq!(client.read(ours, &mut [0; 20]), Ok(Read::Bytes(10)));
            assert_eq!(client.read(ours, &mut [0; 20]), Ok(Read::Empty));
            assert_eq!(server.read(theirs, &mut [0; 20]), Ok(Read::Finished));
            server.close(theirs);
            carry(&mut client, &mut server);
            assert_eq!((client.state(ours), client.ended(ours)), (State::TimeWait, Some(Close::Finished)));
            client.advance(Duration::from_secs(60));
            assert_eq!((client.state(ours), client.next_timer()), (State::Closed, None));
        }
    }
}

#[test]
fn close_with_unread_data_resets() {
    let (mut client, ours, mut server, theirs) = pair(&Settings::default());
    client.write(ours, b"hello").unwrap();
    carry(&mut client, &mut server);
    server.close(theirs);
    carry(&mut client, &mut server);
    assert_eq!(client.ended(ours), Some(Close::Reset));
    server.abort(theirs);
    assert_eq!((server.take(), server.ended(theirs)), (None, None));
}

#[test]
fn options_change_timers_of_connections_that_are_open() {
    let (mut client, ours, _, _) = pair(&Settings::default());
    assert_eq!(client.next_timer(), None);
    client.set_options(|settings| {
        settings.keepalive = Some(Duration::from_secs(10));
        settings.keepalive_probes = 2;
    });
    client.advance(Duration::from_secs(10));
    assert_eq!(std::iter::from_fn(|| client.take()).count(), 1);
    client.advance(Duration::from_secs(30));
    assert_eq!(client.ended(ours), Some(Close::TimedOut));
}

#[test]
fn what_nobody_fetches_is_bounded() {
    let mut queue = VecDeque::new();
    assert!((0..KEPT_MAX).all(|item| keep(&mut queue, item).is_none()));
    assert_eq!((keep(&mut queue, KEPT_MAX), queue.len()), (Some(0), KEPT_MAX));
}

proptest! {
    #[test]
    fn any_bytes_are_taken_or_refused(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..8), at in 0usize..40, with: u8) {
        let (mut client, ours, mut server, _) = pair(&Settings::default());
        client.write(ours, b"hello").unwrap();
        let mut packet = client.take().unwrap();
        packet[at] = with;
        let _ = server.inject(&packet);
        for packet in packets {
            let _ = server.inject(&packet);
            let _ = server.inject(&[&[0x45, 0, 0, 40, 0, 0, 0, 0, 64], &packet[..]].concat());
        }
        server.advance(Duration::from_secs(1));
    }
}
