//! Echo and errors, as they arrive and as they are answered.

use super::*;
use crate::wire::Seq;

#[test]
fn own_and_virtual_addresses_answer_ping() {
    let mut a = Host::new(settings(1));
    let body = vec![0x5a; 200];
    for (source, destination, request, reply, at_byte) in [
        ("198.19.0.2", "198.18.0.1", 8, 0, 34),
        ("198.19.0.2", "198.18.9.1", 8, 0, 34),
        ("2001:db8:2::2", "2001:db8::1", 128, 129, 54),
        ("2001:db8:2::2", "2001:db8:9::1", 128, 129, 54),
        ("fe80::2", "fe80::ff:fe00:1", 128, 129, 54),
    ] {
        a.receive(&icmp_to_1(source, destination, 64, request, 0, &body), at(1));
        let answer = a.transmitted().remove(0);
        // The answer is as good a packet as the request was: host 2 would take it.
        let wire::Frame::Ip { from, packet } = wire::Frame::parse(&answer, false).unwrap() else { panic!() };
        assert_eq!((from, packet.source, packet.destination), (mac(1), ip(destination), ip(source)));
        assert_eq!((answer[at_byte], &packet.payload[4..8]), (reply, &[0, 7, 0, 1][..]));
        assert_eq!(packet.payload[8..], body);
        let mut b = Host::new(Settings { virtual_addresses: vec![ip(source)], ..settings(2) });
        b.receive(&answer, at(1));
        assert_eq!((b.counters().icmp_malformed.value(), b.counters().icmp_ignored.value()), (0, 1), "right checksum");
    }
    a.receive(&icmp_to_1("198.19.0.2", "198.18.9.9", 64, 8, 0, &body), at(1));
    a.receive(&icmp_to_1("198.18.0.255", "198.18.0.1", 64, 8, 0, &body), at(1));
    let mut corrupt = icmp_to_1("198.19.0.2", "198.18.0.1", 64, 8, 0, &body);
    *corrupt.last_mut().unwrap() ^= 1;
    a.receive(&corrupt, at(1));
    assert_eq!(a.transmitted().len(), 0);
    let counters = a.counters();
    let dropped = [&counters.icmp_for_others, &counters.icmp_ignored, &counters.icmp_malformed];
    assert_eq!(dropped.map(crate::base::Counter::value), [1, 1, 1]);
}

#[test]
fn a_flood_of_pings_is_answered_at_the_limit() {
    let mut a = Host::new(settings(1));
    let ping = icmp_to_1("198.19.0.2", "198.18.0.1", 64, 8, 0, b"x");
    let mut answered = 0;
    for _ in 0..300 {
        a.receive(&ping, at(1));
        answered += a.transmitted().len();
    }
    assert_eq!(answered, 256);
    assert_eq!(a.counters().echo_rate_limited.value(), 44);
    a.receive(&ping, at(2));
    assert_eq!(a.transmitted().len(), 1);
}

#[test]
fn an_error_about_our_flow_is_news_and_any_other_is_not() {
    let mut a = Host::new(settings(1));
    let segment = [&443u16.to_be_bytes()[..], &50_000u16.to_be_bytes(), &[1, 2, 3, 4]].concat();
    let quoted = |source: &str, destination: &str| ip_packet(ip(source), ip(destination), 6, 60, &segment);
    for (from, to, kind, ours, theirs) in [
        ("198.18.0.2", "198.18.9.1", 3, "198.18.9.1", "198.19.0.7"),
        ("2001:db8::2", "2001:db8::1", 1, "2001:db8::1", "2001:db8:7::7"),
    ] {
        a.receive(&icmp_to_1(from, to, 64, kind, 1, &quoted(ours, theirs)), at(1));
        let [Event::Unreachable(Quote { flow, seq: Seq(0x0102_0304) })] = a.events()[..] else { panic!("no event") };
        assert_eq!((flow.local().ip(), flow.remote().ip()), (ip(ours), ip(theirs)));
        assert_eq!((flow.local().port(), flow.remote().port()), (443, 50_000));
        a.receive(&icmp_to_1(from, to, 64, kind, 1, &quoted(theirs, ours)), at(1));
        assert_eq!(a.events(), []);
    }
    assert_eq!(a.counters().errors_not_ours.value(), 2);
    assert_eq!(a.counters().unreachable_received.value(), 2);
}

#[test]
fn a_message_that_a_packet_was_too_big_is_news_with_its_mtu() {
    let mut a = Host::new(settings(1));
    let segment = [&443u16.to_be_bytes()[..], &50_000u16.to_be_bytes(), &[1, 2, 3, 4]].concat();
    let quoted = |source: &str, destination: &str| ip_packet(ip(source), ip(destination), 6, 60, &segment);
    for (from, to, kind, code, ours, theirs, word, mtu) in [
        ("198.18.0.2", "198.18.9.1", 3, 4, "198.18.9.1", "198.19.0.7", [0, 0, 0x05, 0x14], 1300),
        // RFC 1191 4: the first two bytes are not used.
        ("198.18.0.2", "198.18.9.1", 3, 4, "198.18.9.1", "198.19.0.7", [9, 9, 0x05, 0x14], 1300),
        ("198.18.0.2", "198.18.9.1", 3, 4, "198.18.9.1", "198.19.0.7", [0; 4], 0),
        ("2001:db8::2", "2001:db8::1", 2, 0, "2001:db8::1", "2001:db8:7::7", [0, 0, 0x05, 0x14], 1300),
        ("2001:db8::2", "2001:db8::1", 2, 0, "2001:db8::1", "2001:db8:7::7", [0, 1, 0, 0], 65_536),
    ] {
        a.receive(&icmp_message((from, to, 64), kind, code, word, &quoted(ours, theirs)), at(1));
        let events = a.events();
        let [Event::PacketTooBig(quote, told)] = events[..] else { panic!("{events:?}") };
        assert_eq!((quote.flow.remote().ip(), quote.seq, told), (ip(theirs), Seq(0x0102_0304), mtu));
        a.receive(&icmp_message((from, to, 64), kind, code, word, &quoted(theirs, ours)), at(1));
        a.receive(&icmp_message((from, to, 64), kind, code, word, &[]), at(1));
        assert_eq!(a.events(), []);
    }
    assert_eq!((a.counters().packet_too_big_received.value(), a.counters().errors_not_ours.value()), (5, 10));
}

#[test]
fn unknown_protocols_are_refused_politely_and_not_too_often() {
    let mut a = Host::new(settings(1));
    a.receive(&frame_to_1("198.19.0.2", "198.18.9.1", 17, &[7; 100]), at(1));
    let answer = a.transmitted().remove(0);
    assert_eq!((answer[..6].to_vec(), answer[34], answer[35]), (mac(2).0.to_vec(), 3, 2));
    assert_eq!(answer[42..], frame_to_1("198.19.0.2", "198.18.9.1", 17, &[7; 100])[14..], "quotes the packet");

    // Behind 8 bytes of destination options: the pointer says where protocol 17 was named.
    let payload = [17, 0, 1, 4, 0, 0, 0, 0, 9, 9];
    a.receive(&frame_to_1("2001:db8:2::2", "2001:db8:9::1", 60, &payload), at(1));
    let answer = a.transmitted().remove(0);
    assert_eq!((answer[54], answer[55], &answer[58..62]), (4, 1, &[0, 0, 0, 40][..]));

    a.receive(&frame_to_1("198.19.0.2", "198.18.0.255", 17, &[7; 100]), at(1));
    assert_eq!(a.transmitted().len(), 0, "it was for everyone");
    let mut answered = 0;
    for _ in 0..100 {
        a.receive(&frame_to_1("198.19.0.2", "198.18.0.1", 17, &[7; 100]), at(1));
        answered += a.transmitted().len();
    }
    assert_eq!((answered, a.counters().errors_rate_limited.value()), (48, 52));
}

/// An ICMP message that is right but for what a property changes in it, with its checksum right again.
fn almost_icmp(v6: bool, kind: u8, code: u8, body: &[u8], group: bool) -> Vec<u8> {
    let (source, destination) = match (v6, group) {
        (false, _) => ("198.18.0.2", "198.18.0.1"),
        (true, false) => ("2001:db8::2", "2001:db8::1"),
        (true, true) => ("fe80::2", "ff02::1:ff00:1"),
    };
    icmp_to_1(source, destination, 255, kind, code, body)
}

proptest! {
    #[test]
    fn any_icmp_message_is_taken_or_dropped(
        v6: bool,
        group: bool,
        kind in prop_oneof![any::<u8>(), 0u8..9, 128u8..138],
        code in prop_oneof![Just(0u8), any::<u8>()],
        body in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), any::<u8>()], 0..120),
    ) {
        let mut a = Host::new(settings(1));
        a.receive(&almost_icmp(v6, kind, code, &body, group), at(1));
        a.transmitted();
        a.link.on_timeout(at(100));
    }

    #[test]
    fn any_payload_is_taken_or_dropped(
        v6: bool,
        payload in proptest::collection::vec(any::<u8>(), 0..40),
        protocol in prop_oneof![Just(1u8), Just(58), any::<u8>()],
    ) {
        let mut a = Host::new(settings(1));
        let (source, destination) =
            if v6 { ("2001:db8::2", "2001:db8::1") } else { ("198.18.0.2", "198.18.0.1") };
        let bytes = ip_packet(ip(source), ip(destination), protocol, 255, &payload);
        if let Ok(packet) = wire::Packet::parse(&bytes, false) {
            a.link.on_icmp(mac(2), &packet, at(1));
            a.link.on_unknown(mac(2), &packet, at(1));
        }
    }
}
