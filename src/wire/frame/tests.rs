//! Frames and packets as they come from outside: golden, corrupt and arbitrary.

use proptest::prelude::*;
use smoltcp::wire::{ArpOperation, Ipv4Packet};

use super::*;

/// 198.18.0.1 to 198.18.0.2, protocol 253, 4 bytes of payload, then 2 bytes of padding.
const IPV4: [u8; 26] =
    [0x45, 0, 0, 24, 0, 1, 0x40, 0, 64, 253, 0xad, 0xc0, 198, 18, 0, 1, 198, 18, 0, 2, 0xde, 0xad, 0xbe, 0xef, 0, 0];

fn ipv4(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = IPV4.to_vec();
    change(&mut bytes);
    let mut view = Ipv4Packet::new_unchecked(&mut bytes);
    view.fill_checksum();
    bytes
}

/// 2001:db8::1 to 2001:db8::2.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, u8::try_from(payload.len()).unwrap(), next, 64];
    for last in [1, 2] {
        bytes.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    bytes.extend(payload);
    bytes
}

fn ethernet(to: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &[2, 0, 0, 0, 0, 9], &ethertype.to_be_bytes(), payload].concat()
}

fn error_of(bytes: &[u8]) -> Malformed {
    Packet::parse(bytes, false).unwrap_err()
}

#[test]
fn a_golden_ipv4_packet_is_read_and_its_padding_cut() {
    let packet = Packet::parse(&IPV4, false).unwrap();
    assert_eq!(packet.source.to_string(), "198.18.0.1");
    assert_eq!(packet.destination.to_string(), "198.18.0.2");
    assert_eq!((packet.hop_limit, packet.protocol), (64, Protocol::Other(253)));
    assert_eq!((packet.bytes, packet.payload), (&IPV4[..24], &[0xde, 0xad, 0xbe, 0xef][..]));
}

#[test]
fn ipv4_options_are_skipped() {
    let mut bytes = ipv4(|bytes| bytes[0] = 0x46);
    assert!(Packet::parse(&bytes, false).unwrap().payload.is_empty());
    bytes[0] = 0x47;
    assert_eq!(error_of(&bytes), Malformed::Truncated, "the header is longer than the packet");
}

#[test]
fn each_fault_of_an_ipv4_header_has_its_name() {
    let mut corrupt = IPV4;
    corrupt[8] ^= 1;
    assert_eq!(error_of(&corrupt), Malformed::Checksum);
    assert!(Packet::parse(&corrupt, true).is_ok(), "the NIC has looked at the checksum");

    for cut in 1..24 {
        assert_eq!(error_of(&IPV4[..cut]), Malformed::Truncated);
    }
    assert_eq!(error_of(&[]), Malformed::Truncated);
    assert_eq!(error_of(&ipv4(|bytes| bytes[0] = 0x44)), Malformed::Field);
    assert_eq!(error_of(&[0x55; 60]), Malformed::Field);
    assert_eq!(error_of(&ipv4(|bytes| bytes[6] = 0x20)), Malformed::Fragment);
    assert_eq!(error_of(&ipv4(|bytes| bytes[7] = 1)), Malformed::Fragment);
    for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
        assert_eq!(error_of(&ipv4(|bytes| bytes[12..16].copy_from_slice(&source))), Malformed::Source);
    }
    assert_eq!(error_of(&ipv4(|bytes| bytes[16..20].copy_from_slice(&[127, 0, 0, 1]))), Malformed::Field);
}

#[test]
fn upper_layers_are_told_apart_and_belong_to_their_family() {
    for (number, v4, v6) in [
        (6, Protocol::Tcp, Protocol::Tcp),
        (1, Protocol::Icmp, Protocol::Other(1)),
        (58, Protocol::Other(58), Protocol::Icmpv6),
        (17, Protocol::Other(17), Protocol::Other(17)),
        (59, Protocol::Other(59), Protocol::Other(59)),
    ] {
        assert_eq!(Packet::parse(&ipv4(|bytes| bytes[9] = number), false).unwrap().protocol, v4);
        assert_eq!(Packet::parse(&ipv6(number, &[0; 8]), false).unwrap().protocol, v6);
    }
}

#[test]
fn ipv6_extension_headers_are_skipped() {
    // Hop-by-hop with router alert and PadN, routing with nothing left, destination options of 16 bytes, then TCP.
    let payload = [
        &[43, 0, 5, 2, 0, 0, 1, 0][..],
        &[60, 0, 0, 0, 0, 0, 0, 0],
        &[6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        b"segment",
    ]
    .concat();
    let bytes = [ipv6(0, &payload), vec![0; 6]].concat();
    let packet = Packet::parse(&bytes, false).unwrap();
    assert_eq!((packet.protocol, packet.payload), (Protocol::Tcp, &b"segment"[..]));
    assert_eq!(packet.bytes.len(), bytes.len() - 6);
    assert_eq!(packet.source.to_string(), "2001:db8::1");
}

#[test]
fn each_fault_of_an_ipv6_chain_has_its_name() {
    let routing_with_a_segment_left = [6, 0, 0, 1, 0, 0, 0, 0];
    let hop_by_hop_in_second_place = [0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
    let jumbo = [6, 0, 0xc2, 4, 0, 1, 0, 0];
    let option_beyond_its_header = [6, 0, 1, 200, 0, 0, 0, 0];
    assert_eq!(error_of(&ipv6(43, &routing_with_a_segment_left)), Malformed::Field);
    assert_eq!(error_of(&ipv6(60, &hop_by_hop_in_second_place)), Malformed::Field);
    assert_eq!(error_of(&ipv6(0, &jumbo)), Malformed::Field);
    assert_eq!(error_of(&ipv6(60, &option_beyond_its_header)), Malformed::Field);
    assert_eq!(error_of(&ipv6(44, &[6, 0, 0, 0, 0, 0, 0, 0])), Malformed::Fragment);
    assert_eq!(error_of(&ipv6(60, &[6, 9, 0, 0, 0, 0, 0, 0])), Malformed::Truncated);
    assert_eq!(error_of(&ipv6(60, &[6])), Malformed::Truncated);

    let chain = |headers: usize| {
        let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(headers);
        payload[(headers - 1) * 8] = 6;
        Packet::parse(&ipv6(60, &payload), false).map(|packet| packet.protocol)
    };
    assert_eq!(chain(EXTENSION_HEADERS_MAX), Ok(Protocol::Tcp));
    assert_eq!(chain(EXTENSION_HEADERS_MAX + 1), Err(Malformed::Field));
}

#[test]
fn ipv6_addresses_that_no_sender_may_have_are_refused() {
    let with = |place: std::ops::Range<usize>, address: &str, next| {
        let mut bytes = ipv6(next, &[0; 8]);
        bytes[place].copy_from_slice(&address.parse::<std::net::Ipv6Addr>().unwrap().octets());
        Packet::parse(&bytes, false).map(|_| ())
    };
    for source in ["ff02::1", "::1", "::ffff:198.18.0.1", "::"] {
        assert_eq!(with(8..24, source, 6), Err(Malformed::Source), "{source}");
    }
    assert_eq!(with(8..24, "::", 58), Ok(()), "duplicate address detection asks without an address");
    for destination in ["::", "::1", "::ffff:198.18.0.1"] {
        assert_eq!(with(24..40, destination, 6), Err(Malformed::Field), "{destination}");
    }
}

#[test]
fn ethernet_frames_are_told_apart() {
    let us = [2, 0, 0, 0, 0, 1];
    let bytes = ethernet(us, 0x0800, &IPV4);
    let packet = Packet::parse(&IPV4, false).unwrap();
    assert_eq!(Frame::parse(&bytes, false), Ok(Frame::Ip { from: EthernetAddress([2, 0, 0, 0, 0, 9]), packet }));

    let error = |bytes: &[u8]| Frame::parse(bytes, false).unwrap_err();
    assert_eq!(error(&bytes[..13]), Malformed::Truncated);
    assert_eq!(error(&ethernet(us, 0x86dd, &IPV4)), Malformed::Field, "IPv4 in a frame that says IPv6");
    assert_eq!(error(&ethernet(us, 0x8100, &[0, 1, 8, 0])), Malformed::Unsupported, "VLAN tag");
    assert_eq!(error(&ethernet(us, 100, &IPV4)), Malformed::Unsupported, "802.3 length");
    assert_eq!(error(&ethernet([0xff; 6], 0x0800, &IPV4)), Malformed::Field, "one host's packet to everyone");
    let mut from_many = bytes;
    from_many[6] |= 1;
    assert_eq!(error(&from_many), Malformed::Source);
}

#[test]
fn arp_for_ipv4_is_read_and_other_flavours_are_not() {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress([2, 0, 0, 0, 0, 9]),
        source_protocol_addr: [198, 18, 0, 9].into(),
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: [198, 18, 0, 1].into(),
    };
    let mut arp = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut arp));
    assert_eq!(Frame::parse(&ethernet([0xff; 6], 0x0806, &arp), false), Ok(Frame::Arp(repr)));
    assert_eq!(Frame::parse(&ethernet([0xff; 6], 0x0806, &arp[..27]), false), Err(Malformed::Truncated));
    arp[3] ^= 0xff;
    assert_eq!(Frame::parse(&ethernet([0xff; 6], 0x0806, &arp), false), Err(Malformed::Unsupported));
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), verified: bool) {
        let _ = Frame::parse(&bytes, verified);
        let _ = Packet::parse(&bytes, verified);
    }

    #[test]
    fn almost_right_bytes_are_parsed_or_refused(
        payload in proptest::collection::vec(any::<u8>(), 0..120),
        next in prop::sample::select(vec![0u8, 6, 43, 44, 58, 60]),
        place in 0usize..60,
        value: u8,
    ) {
        let mut bytes = ipv6(next, &payload);
        if let Some(byte) = bytes.get_mut(place) {
            *byte = value;
        }
        if let Ok(packet) = Packet::parse(&bytes, false) {
            prop_assert!(packet.bytes.len() <= bytes.len() && packet.payload.len() <= packet.bytes.len() - 40);
        }
    }

    #[test]
    fn what_smoltcp_emits_is_read_back(
        source in 0x0100_0000u32..0x7eff_ffff,
        destination in 0x8000_0000u32..0xdfff_ffff,
        hop_limit: u8,
        payload in proptest::collection::vec(any::<u8>(), 0..100),
        padding in 0usize..40,
    ) {
        let repr = smoltcp::wire::Ipv4Repr {
            src_addr: source.into(),
            dst_addr: destination.into(),
            next_header: IpProtocol::Udp,
            payload_len: payload.len(),
            hop_limit,
        };
        let mut bytes = vec![0; 20 + payload.len() + padding];
        repr.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &smoltcp::phy::ChecksumCapabilities::default());
        bytes[20..20 + payload.len()].copy_from_slice(&payload);
        let packet = Packet::parse(&bytes, false).unwrap();
        prop_assert_eq!(packet.source, IpAddr::V4(source.into()));
        prop_assert_eq!(packet.destination, IpAddr::V4(destination.into()));
        prop_assert_eq!((packet.hop_limit, packet.payload), (hop_limit, &payload[..]));
        prop_assert_eq!(packet.protocol, Protocol::Other(17));
    }
}

#[test]
fn the_ecn_field_is_read_beside_any_class_of_traffic() {
    for (bits, ecn) in [(0, Ecn::NotEct), (1, Ecn::Ect1), (2, Ecn::Ect0), (3, Ecn::Ce)] {
        let v4 = ipv4(|bytes| bytes[1] = 0xb8 | ecn.bits());
        let mut v6 = ipv6(59, &[]);
        (v6[0], v6[1]) = (0x6b, 0x8f | (ecn.bits() << 4));
        assert_eq!((ecn.bits(), Packet::parse(&v4, false).unwrap().ecn), (bits, ecn));
        assert_eq!(Packet::parse(&v6, false).unwrap().ecn, ecn);
    }
}
