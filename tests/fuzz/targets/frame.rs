//! Feeds arbitrary bytes to `wire::Frame`, `Packet` and `Segment`, and what they make of them back through `Outgoing::emit`; and to `nic::long::Headers`, cut in two.
//!
//! Parsed parts lie within the bytes, no address is one that nobody may have, the NIC's verdict changes nothing but trust, and a segment
//! that is emitted is parsed to itself.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use sealane::nic::long::{Headers, Part};
use sealane::wire::segment::{IPV4_HEADER, IPV6_HEADER, TCP_HEADER};
use sealane::wire::{Frame, Outgoing, Packet, Protocol, Segment};

fuzz_target!(|bytes: &[u8]| {
    let trusted = Frame::parse(bytes, true);
    if let Ok(frame) = Frame::parse(bytes, false) {
        assert_eq!(Ok(frame), trusted, "a verdict of the NIC changes what is parsed");
    }
    if let Ok(Frame::Ip { from, packet }) = trusted {
        assert!(from.is_unicast());
        check_packet(bytes.get(14..).expect("there is an Ethernet header"), &packet);
    }
    for verified in [false, true] {
        if let Ok(packet) = Packet::parse(bytes, verified) {
            check_packet(bytes, &packet);
        }
    }
    check_parts(bytes);
});

/// A frame that is a segment is two segments of the same data when it is cut in two.
fn check_parts(bytes: &[u8]) {
    let Some(headers) = Headers::of(bytes) else { return };
    let Ok(Frame::Ip { packet, .. }) = Frame::parse(bytes, true) else { return };
    let Ok((flow, whole)) = Segment::parse(&packet, true) else { return };
    assert!(bytes[headers.len..].starts_with(whole.payload), "the data is behind the headers");
    let middle = whole.payload.len() / 2;
    let mut seq = whole.seq;
    for (offset, data) in [(0, &whole.payload[..middle]), (middle, &whole.payload[middle..])] {
        let is_last = offset == middle;
        let mut part = bytes[..headers.len].to_vec();
        headers.write(&mut part, Part { offset, len: data.len(), is_last });
        part.extend_from_slice(data);
        let Ok(Frame::Ip { packet, .. }) = Frame::parse(&part, false) else { panic!("a part is no frame") };
        let (of, segment) = Segment::parse(&packet, true).expect("a part is a segment");
        assert_eq!((of, segment.seq, segment.payload), (flow, seq, data));
        assert_eq!(segment.flags.fin, whole.flags.fin && is_last);
        assert_eq!((segment.ack, segment.window, segment.options), (whole.ack, whole.window, whole.options));
        seq = seq + u32::try_from(data.len()).expect("a frame is short");
    }
}

fn check_packet(bytes: &[u8], packet: &Packet<'_>) {
    assert!(bytes.starts_with(packet.bytes));
    assert_eq!(packet.bytes.as_ptr_range().end, packet.payload.as_ptr_range().end, "the payload is the packet's end");
    assert_eq!(Packet::parse(packet.bytes, true).as_ref(), Ok(packet), "padding has a meaning");
    let Packet { source, destination, protocol, .. } = *packet;
    assert_eq!(source.is_ipv4(), destination.is_ipv4());
    assert!(!source.is_multicast() && !source.is_loopback() && source.to_canonical() == source);
    assert!(!source.is_unspecified() || protocol == Protocol::Icmpv6);
    assert!(!destination.is_unspecified() && !destination.is_loopback() && destination.to_canonical() == destination);
    if protocol != Protocol::Tcp {
        return;
    }
    let trusted = Segment::parse(packet, true);
    if let Ok(parsed) = Segment::parse(packet, false) {
        assert_eq!(Ok(parsed), trusted, "a verdict of the NIC changes what is parsed");
    }
    let Ok((flow, segment)) = trusted else { return };
    assert_eq!((flow.remote().ip(), flow.local().ip()), (source, destination));
    assert!(flow.local().port() != 0 && flow.remote().port() != 0);

    let back = flow.reversed();
    let Segment { seq, ack, flags, window, options, ecn, payload } = segment;
    let (first, second) = payload.split_at(payload.len() / 2);
    let split: &[&[u8]] = &[first, second];
    let outgoing = Outgoing { flow: &back, seq, ack, flags, window, options, ecn, payload: split };
    let ip_header = if matches!(source, IpAddr::V4(_)) { IPV4_HEADER } else { IPV6_HEADER };
    let size = ip_header + TCP_HEADER + options.len() + payload.len();
    let mut room = vec![0xa5; size + 7];
    for offload in [false, true] {
        assert_eq!(outgoing.emit(&mut room[..size - 1], offload), None, "it writes beyond its room");
        let len = outgoing.emit(&mut room, offload);
        if size > usize::from(u16::MAX) {
            assert_eq!(len, None);
            continue;
        }
        assert_eq!(len, Some(size), "what was received can be sent");
        assert_eq!(room[size..], [0xa5; 7], "it writes beyond its length");
        let emitted = Packet::parse(&room[..size], false).expect("an emitted packet is right");
        assert_eq!(Segment::parse(&emitted, offload), Ok((flow, segment)));
    }
}
