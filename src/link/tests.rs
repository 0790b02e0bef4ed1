//! Two hosts on one Ethernet segment, in virtual time, and a third party that makes things up.

use proptest::prelude::*;
use smoltcp::wire::{ArpOperation, ArpRepr};

use super::outbox::{Envelope, OUTBOX_MAX, arp_message};
use super::*;
use crate::base::Duration;
use crate::nic::{FRAME_MAX, QueuePair, memory};
use crate::wire;

mod icmp;

const SECOND: Duration = Duration::from_secs(1);
const STRANGER: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0x66]);

fn mac(number: u8) -> EthernetAddress {
    EthernetAddress([2, 0, 0, 0, 0, number])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn settings(number: u8) -> Settings {
    Settings {
        mac: mac(number),
        addresses: vec![
            format!("198.18.0.{number}/24").parse().unwrap(),
            format!("2001:db8::{number}/64").parse().unwrap(),
        ],
        virtual_addresses: vec![ip(&format!("198.18.9.{number}")), ip(&format!("2001:db8:9::{number}"))],
        gateways: vec![ip("198.18.0.2"), ip("2001:db8::2")],
        neighbours_max: 64,
        pending_max: 4,
    }
}

/// One lane of a host.
struct Host {
    link: Link<memory::Frame>,
    queue: memory::Queue,
}

impl Host {
    fn new(settings: Settings) -> Self {
        let (mut queues, _wire) = memory::port(1, settings.mac, 1500);
        Self { link: Link::new(settings, Arc::default()), queue: queues.remove(0) }
    }

    fn counters(&self) -> &Counters {
        &self.link.counters
    }

    /// A segment's first bytes in a frame that `send` can address.
    fn segment(&mut self, source: &str, destination: &str) -> memory::Frame {
        let segment = [&443u16.to_be_bytes()[..], &50_000u16.to_be_bytes(), &[0; 16]].concat();
        let mut frame = self.queue.allocate().unwrap();
        let packet = ip_packet(ip(source), ip(destination), 6, 64, &segment);
        frame.room()[14..14 + packet.len()].copy_from_slice(&packet);
        frame.set_len(14 + packet.len());
        frame
    }

    fn send(&mut self, destination: &str, now: Instant) -> Sent<memory::Frame> {
        let source = if ip(destination).is_ipv4() { "198.18.0.1" } else { "2001:db8::1" };
        let frame = self.segment(source, destination);
        self.link.send(frame, now)
    }

    fn receive(&mut self, frame: &[u8], now: Instant) {
        match wire::Frame::parse(frame, false).unwrap() {
            wire::Frame::Arp(arp) => self.link.on_arp(&arp, now),
            wire::Frame::Ip { from, packet } => match packet.protocol {
                wire::Protocol::Icmp | wire::Protocol::Icmpv6 => self.link.on_icmp(from, &packet, now),
                wire::Protocol::Tcp | wire::Protocol::Other(_) => self.link.on_unknown(from, &packet, now),
            },
        }
    }

    /// Everything of the link layer's own that is to be transmitted.
    fn transmitted(&mut self) -> Vec<Vec<u8>> {
        let mut room = [0; FRAME_MAX];
        std::iter::from_fn(|| self.link.poll_transmit(&mut room).map(|len| room[..len].to_vec())).collect()
    }

    fn resolved(&mut self) -> Vec<memory::Frame> {
        std::iter::from_fn(|| self.link.poll_resolved()).collect()
    }

    fn learned(&mut self) -> Vec<Neighbour> {
        std::iter::from_fn(|| self.link.poll_learned()).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.link.poll_event()).collect()
    }
}

/// Carries frames to and fro until both are silent. Gives how many there were.
fn exchange(a: &mut Host, b: &mut Host, now: Instant) -> usize {
    let mut count = 0;
    for _ in 0..10 {
        for frame in a.transmitted() {
            count += 1;
            b.receive(&frame, now);
        }
        for frame in b.transmitted() {
            count += 1;
            a.receive(&frame, now);
        }
    }
    count
}

/// Two hosts that know each other, and when.
fn acquainted() -> (Host, Host, Instant) {
    let (mut a, mut b, now) = (Host::new(settings(1)), Host::new(settings(2)), at(1));
    for destination in ["198.18.0.2", "2001:db8::2"] {
        assert!(matches!(a.send(destination, now), Sent::Pending));
        exchange(&mut a, &mut b, now);
    }
    assert_eq!(a.resolved().len(), 2);
    a.learned();
    (a, b, now)
}

fn at(seconds: u64) -> Instant {
    Instant::START + Duration::from_secs(seconds)
}

fn ip_packet(source: IpAddr, destination: IpAddr, protocol: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let start = [0x45, 0, 0, 20 + length, 0, 0, 0x40, 0, hop_limit, protocol, 0, 0];
            let mut header = [&start[..], &source.octets(), &destination.octets()].concat();
            smoltcp::wire::Ipv4Packet::new_unchecked(&mut header).fill_checksum();
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            [&[0x60, 0, 0, 0, 0, length, protocol, hop_limit][..], &source.octets(), &destination.octets()].concat()
        }
        _ => panic!("one family"),
    };
    packet.extend(payload);
    packet
}

/// A frame of any protocol to host 1.
fn frame_to_1(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let packet = ip_packet(ip(source), ip(destination), protocol, 64, payload);
    [&ethernet_header(mac(1), mac(2), ip(source).is_ipv4())[..], &packet].concat()
}

/// A frame with an ICMP message to host 1.
fn icmp_to_1(source: &str, destination: &str, hop_limit: u8, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    icmp_message((source, destination, hop_limit), kind, code, [0, 7, 0, 1], body)
}

fn icmp_message(
    (source, destination, hop_limit): (&str, &str, u8),
    kind: u8,
    code: u8,
    word: [u8; 4],
    body: &[u8],
) -> Vec<u8> {
    let mut outbox = Outbox::default();
    let (source, destination) = (ip(source), ip(destination));
    let envelope = Envelope { from_mac: mac(2), to_mac: mac(1), source, destination, hop_limit };
    assert!(outbox.icmp(envelope, kind, code, word, body));
    outbox.pop(<[u8]>::to_vec).unwrap()
}

fn arp(operation: ArpOperation, from: (EthernetAddress, &str), target: &str) -> ArpRepr {
    let IpAddr::V4(sender) = ip(from.1) else { panic!("ARP is for IPv4") };
    let IpAddr::V4(target) = ip(target) else { panic!("ARP is for IPv4") };
    arp_message(operation, (from.0, sender), (EthernetAddress([0; 6]), target))
}

fn destination_mac(frame: &memory::Frame) -> EthernetAddress {
    EthernetAddress::from_bytes(&frame.bytes()[..6])
}

#[test]
fn a_packet_waits_for_its_neighbour_and_leaves_when_it_answers() {
    for destination in ["198.18.0.2", "2001:db8::2"] {
        let (mut a, mut b) = (Host::new(settings(1)), Host::new(settings(2)));
        assert!(matches!(a.send(destination, at(1)), Sent::Pending));
        assert!(a.link.poll_resolved().is_none());
        assert_eq!(exchange(&mut a, &mut b, at(1)), 2, "one question, one answer");
        let resolved = a.resolved();
        assert_eq!(destination_mac(&resolved[0]), mac(2));
        assert_eq!(resolved[0].bytes()[6..12], mac(1).0);
        assert_eq!(resolved[0].bytes()[12..14], if ip(destination).is_ipv4() { [8, 0] } else { [0x86, 0xdd] });
        assert!(matches!(a.send(destination, at(2)), Sent::Ready(frame) if destination_mac(&frame) == mac(2)));
        assert_eq!(a.link.poll_at(), None, "an idle neighbour has no timer");
    }
}

#[test]
fn who_is_asked_learns_who_asks() {
    let (_a, mut b, now) = acquainted();
    for destination in ["198.18.0.1", "2001:db8::1"] {
        let source = if ip(destination).is_ipv4() { "198.18.0.2" } else { "2001:db8::2" };
        let frame = b.segment(source, destination);
        assert!(matches!(b.link.send(frame, now), Sent::Ready(frame) if destination_mac(&frame) == mac(1)));
    }
    assert_eq!(b.counters().neighbours.value(), 2);
}

#[test]
fn distant_packets_go_to_the_gateway_and_virtual_addresses_are_answered_for() {
    let (mut a, mut b, now) = acquainted();
    for destination in ["198.19.255.1", "2001:db8:ffff::1"] {
        assert!(matches!(a.send(destination, now), Sent::Ready(frame) if destination_mac(&frame) == mac(2)));
    }
    let mut wide = settings(3);
    wide.addresses = vec!["198.18.0.3/16".parse().unwrap(), "2001:db8::3/32".parse().unwrap()];
    let mut c = Host::new(wide);
    for destination in ["198.18.9.2", "2001:db8:9::2"] {
        let source = if ip(destination).is_ipv4() { "198.18.0.3" } else { "2001:db8::3" };
        let frame = c.segment(source, destination);
        assert!(matches!(c.link.send(frame, now), Sent::Pending));
        exchange(&mut c, &mut b, now);
        assert_eq!(destination_mac(&c.resolved()[0]), mac(2), "{destination}");
    }
}

#[test]
fn packets_without_a_way_are_dropped_and_counted() {
    let mut only = settings(1);
    only.gateways.clear();
    let mut a = Host::new(only);
    for (destination, counter) in [
        ("198.19.0.1", &a.link.counters.clone().no_route),
        ("2001:db8:1::1", &a.link.counters.clone().no_route),
        ("198.18.0.255", &a.link.counters.clone().no_route),
        ("255.255.255.255", &a.link.counters.clone().no_route),
        ("198.18.9.1", &a.link.counters.clone().send_to_ourselves),
        ("fe80::ff:fe00:1", &a.link.counters.clone().send_to_ourselves),
    ] {
        let before = counter.value();
        assert!(matches!(a.send(destination, at(1)), Sent::Dropped), "{destination}");
        assert_eq!(counter.value(), before + 1, "{destination}");
    }
    let mut empty = a.queue.allocate().unwrap();
    empty.set_len(20);
    assert!(matches!(a.link.send(empty, at(1)), Sent::Dropped));
    assert_eq!(a.counters().send_malformed.value(), 1);
    assert_eq!(a.queue.buffers().unwrap().in_use, 0);
    assert!(matches!(a.send("ff02::1:2", at(1)), Sent::Ready(frame) if frame.bytes()[..6] == [0x33, 0x33, 0, 1, 0, 2]));
}

#[test]
fn sources_and_routes_follow_the_longest_prefix() {
    let mut settings = settings(1);
    settings.addresses.push("198.18.0.129/25".parse().unwrap());
    settings.gateways = vec![ip("198.18.0.2"), ip("fe80::2")];
    let a = Host::new(settings);
    assert_eq!(a.link.source_for(ip("198.18.0.200")), Some(ip("198.18.0.129")));
    assert_eq!(a.link.source_for(ip("198.18.0.2")), Some(ip("198.18.0.1")));
    assert_eq!(a.link.source_for(ip("198.19.0.1")), Some(ip("198.18.0.1")), "as the gateway sees it");
    assert_eq!(a.link.source_for(ip("2001:db8:1::1")), Some(ip("2001:db8::1")), "not the link-local one");
    assert_eq!(a.link.source_for(ip("fe80::9")), Some(ip("fe80::ff:fe00:1")));
    assert_eq!(a.link.source_for(ip("198.18.9.1")), None);
    assert_eq!(a.link.prefix_to(ip("198.19.0.1")), Some(0), "by the gateway");
    assert!(a.link.prefix_to(ip("198.18.0.200")) > a.link.prefix_to(ip("198.18.0.2")), "the longer prefix is nearer");
    assert_eq!(a.link.prefix_to(ip("198.18.0.1")), None, "our own");
    assert_eq!((a.link.prefix_to(ip("198.18.0.255")), a.link.prefix_to(ip("ff02::5"))), (None, None));
    assert!(a.link.is_local(ip("198.18.9.1")) && !a.link.is_local(ip("198.18.9.2")));
}

#[test]
fn a_dead_next_hop_is_asked_three_times_a_second_apart_and_then_left_alone() {
    for destination in ["198.18.0.77", "2001:db8::77"] {
        let mut a = Host::new(settings(1));
        assert!(matches!(a.send(destination, at(1)), Sent::Pending));
        for second in 1..=3 {
            assert_eq!(a.transmitted().len(), 1);
            assert_eq!(a.link.poll_at(), Some(at(second + 1)));
            a.link.on_timeout(at(second) + SECOND / 2);
            assert_eq!(a.transmitted().len(), 0);
            a.link.on_timeout(at(second + 1));
        }
        assert_eq!((a.transmitted().len(), a.link.poll_at()), (0, None));
        let flow = match a.events()[..] {
            [Event::Unresolved(flow)] => flow,
            ref other => panic!("{other:?}"),
        };
        assert_eq!((flow.remote().ip(), flow.local().port()), (ip(destination), 443));

        // The negative answer is kept for three seconds.
        assert!(matches!(a.send(destination, at(5)), Sent::Dropped));
        assert_eq!((a.transmitted().len(), a.events().len()), (0, 1));
        assert_eq!(a.counters().send_unresolved.value(), 2);
        assert!(matches!(a.send(destination, at(7)), Sent::Pending));
        assert_eq!(a.transmitted().len(), 1);
    }
}

#[test]
fn a_silent_neighbour_is_probed_while_it_is_used_and_then_forgotten() {
    let (mut a, mut b, _) = acquainted();
    for destination in ["198.18.0.2", "2001:db8::2"] {
        assert!(matches!(a.send(destination, at(30)), Sent::Ready(_)));
        assert_eq!(a.transmitted().len(), 0, "still fresh");
        assert!(matches!(a.send(destination, at(31)), Sent::Ready(_)));
        assert!(matches!(a.send(destination, at(31)), Sent::Ready(_)));
        let probes = a.transmitted();
        assert_eq!(probes.len(), 1, "one probe, however many packets");
        assert_eq!(probes[0][..6], mac(2).0, "by unicast");
        b.receive(&probes[0], at(31));
        exchange(&mut b, &mut a, at(31));
        assert_eq!(a.link.poll_at(), None, "the answer ends the probing");
    }
    assert!(matches!(a.send("198.18.0.2", at(70)), Sent::Ready(_)));
    for second in 71..=73 {
        a.link.on_timeout(at(second));
    }
    assert_eq!(a.transmitted().len(), 3);
    assert_eq!(a.counters().neighbours_lost.value(), 1);
    assert!(matches!(a.send("198.18.0.2", at(74)), Sent::Pending), "found out anew");
}

#[test]
fn the_oldest_waiting_packet_makes_room_and_no_buffer_is_lost() {
    let mut a = Host::new(settings(1));
    for _ in 0..6 {
        assert!(matches!(a.send("198.18.0.77", at(1)), Sent::Pending));
    }
    assert_eq!(a.counters().pending_full.value(), 2);
    assert_eq!(a.queue.buffers().unwrap().in_use, 4);
    for second in 2..=4 {
        a.link.on_timeout(at(second));
    }
    assert_eq!(a.events().len(), 4);
    assert_eq!(a.queue.buffers().unwrap().in_use, 0);
}

#[test]
fn packets_that_wait_are_bounded_over_all_neighbours() {
    let mut a = Host::new(Settings { neighbours_max: 1000, ..settings(1) });
    for host in 0..=neighbours::PENDING_TOTAL_MAX {
        let kept = a.send(&format!("2001:db8::1:{host:x}"), at(1));
        assert_eq!(matches!(kept, Sent::Pending), host < neighbours::PENDING_TOTAL_MAX, "{host}");
    }
    assert_eq!(a.counters().pending_full.value(), 1);
    assert_eq!(a.transmitted().len(), OUTBOX_MAX);
    assert!(a.counters().outbox_full.value() > 0);
}

#[test]
fn strangers_that_do_not_exist_do_not_displace_neighbours_that_do() {
    let mut a = Host::new(Settings { neighbours_max: 8, ..settings(1) });
    for host in 10..14 {
        let request = arp(ArpOperation::Request, (mac(host), &format!("198.18.0.{host}")), "198.18.0.1");
        a.link.on_arp(&request, at(1));
    }
    for host in 100..200 {
        a.send(&format!("198.18.0.{host}"), at(2));
        a.transmitted();
    }
    assert_eq!(a.counters().neighbours.value(), 8);
    assert_eq!(a.counters().neighbours_recycled.value(), 96);
    assert_eq!(a.counters().pending_recycled.value(), 96);
    assert_eq!(a.queue.buffers().unwrap().in_use, 4);
    for host in 10..14 {
        assert!(matches!(a.send(&format!("198.18.0.{host}"), at(2)), Sent::Ready(_)));
    }
    // Real neighbours recycle one another: the one unconfirmed for longest goes.
    for host in 20..28 {
        let request = arp(ArpOperation::Request, (mac(host), &format!("198.18.0.{host}")), "198.18.0.1");
        a.link.on_arp(&request, at(3));
    }
    assert_eq!(a.counters().neighbours.value(), 8);
    assert!(matches!(a.send("198.18.0.27", at(3)), Sent::Ready(_)));
    assert!(!matches!(a.send("198.18.0.10", at(3)), Sent::Ready(_)));
}

#[test]
fn nobody_unasked_makes_an_entry() {
    let mut a = Host::new(settings(1));
    a.link.on_arp(&arp(ArpOperation::Reply, (STRANGER, "198.18.0.2"), "198.18.0.1"), at(1));
    a.link.on_arp(&arp(ArpOperation::Request, (STRANGER, "198.18.0.2"), "198.18.0.2"), at(1));
    a.link.on_arp(&arp(ArpOperation::Request, (STRANGER, "198.19.0.2"), "198.18.0.1"), at(1));
    let advertisement = |flags: u8, to: &str| {
        let body = [&[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 1][..], &STRANGER.0].concat();
        let mut outbox = Outbox::default();
        let (source, destination) = (ip("2001:db8::2"), ip(to));
        let envelope = Envelope { from_mac: STRANGER, to_mac: mac(1), source, destination, hop_limit: 255 };
        outbox.icmp(envelope, 136, 0, [flags, 0, 0, 0], &body);
        outbox.pop(<[u8]>::to_vec).unwrap()
    };
    a.receive(&advertisement(0x60, "2001:db8::1"), at(1));
    assert_eq!(a.counters().neighbours.value(), 0);
    assert_eq!(a.counters().neighbours_refused.value(), 1, "a neighbour that is on none of our links");

    // One that is known and waits for nothing is believed as far as RFC 4861 7.2.5 goes: use it, but ask.
    let (mut a, _b, now) = acquainted();
    a.link.on_arp(&arp(ArpOperation::Request, (STRANGER, "198.18.0.2"), "198.18.0.2"), now);
    assert!(matches!(a.send("198.18.0.2", now), Sent::Ready(frame) if destination_mac(&frame) == STRANGER));
    assert_eq!(a.transmitted()[0][..6], STRANGER.0, "a probe");
    a.receive(&advertisement(0x40, "2001:db8::1"), now);
    assert!(
        matches!(a.send("2001:db8::2", now), Sent::Ready(frame) if destination_mac(&frame) == mac(2)),
        "no override"
    );
    a.receive(&advertisement(0x20, "2001:db8::1"), now);
    assert!(matches!(a.send("2001:db8::2", now), Sent::Ready(frame) if destination_mac(&frame) == STRANGER));
}

#[test]
fn an_answer_that_arrives_on_another_lane_reaches_the_one_that_waits() {
    let (mut asking, mut other, mut b) = (Host::new(settings(1)), Host::new(settings(1)), Host::new(settings(2)));
    for destination in ["198.18.0.2", "2001:db8::2"] {
        assert!(matches!(asking.send(destination, at(1)), Sent::Pending));
        for question in asking.transmitted() {
            b.receive(&question, at(1));
        }
        for answer in b.transmitted() {
            other.receive(&answer, at(1));
        }
        assert!(!matches!(other.link.neighbours.lookup(ip(destination), at(1)), Lookup::Known(_)));
        let told = other.learned();
        assert_eq!(told.len(), 1);
        asking.link.on_learned(told[0], at(1));
        assert_eq!(asking.resolved().len(), 1);
        assert_eq!(asking.learned(), [], "nothing is echoed back");
        assert_eq!(asking.link.poll_at(), None);
    }
}

#[test]
fn what_a_lane_learned_the_others_know() {
    let (mut a, mut b) = (Host::new(settings(1)), Host::new(settings(2)));
    let mut other = Host::new(settings(1));
    a.send("198.18.0.2", at(1));
    exchange(&mut a, &mut b, at(1));
    for neighbour in a.learned().into_iter().chain(b.learned()) {
        other.link.on_learned(neighbour, at(1));
    }
    assert!(matches!(other.send("198.18.0.2", at(1)), Sent::Ready(_)));
    assert_eq!(other.transmitted().len(), 0, "confirmed by the other lane");
    assert_eq!(other.counters().neighbours_refused.value(), 1, "b's news of a is about other's own address");
}

#[test]
fn added_addresses_are_announced_once_and_change_what_others_know() {
    let mut a = Host::new(settings(1));
    assert_eq!(a.transmitted().len(), 0, "another lane does it");
    a.link.announce();
    assert_eq!(a.transmitted().len(), 5, "two own, two virtual, one link-local");
    assert_eq!(a.counters().announcements_sent.value(), 5);
    let mut more = settings(1);
    more.virtual_addresses.push(ip("198.18.0.50"));
    a.link.configure(more);
    a.link.announce();
    let announcements = a.transmitted();
    assert_eq!(announcements.len(), 1);
    assert_eq!(announcements[0][..6], [0xff; 6]);

    let mut b = Host::new(settings(2));
    let old_owner = arp(ArpOperation::Request, (STRANGER, "198.18.0.50"), "198.18.0.2");
    b.link.on_arp(&old_owner, at(1));
    b.receive(&announcements[0], at(1));
    let frame = b.segment("198.18.0.2", "198.18.0.50");
    assert!(matches!(b.link.send(frame, at(1)), Sent::Ready(frame) if destination_mac(&frame) == mac(1)));
}

#[test]
fn configuring_keeps_neighbours_that_still_are_and_forgets_the_rest() {
    let (mut a, _b, now) = acquainted();
    let mut changed = settings(1);
    changed.addresses.truncate(1);
    changed.gateways.clear();
    a.link.configure(changed);
    assert_eq!(a.counters().neighbours.value(), 1);
    assert!(matches!(a.send("198.18.0.2", now), Sent::Ready(_)));
    assert!(matches!(a.send("2001:db8::2", now), Sent::Dropped));
}

#[test]
fn somebody_with_our_address_is_noticed_and_changes_nothing() {
    let mut a = Host::new(settings(1));
    a.link.on_arp(&arp(ArpOperation::Request, (STRANGER, "198.18.9.1"), "198.18.9.1"), at(1));
    assert_eq!((a.counters().address_conflicts.value(), a.transmitted().len()), (1, 0));
    // RFC 5227 2.1.1: a probe for our address is answered, and nobody is learned from it.
    a.link.on_arp(&arp(ArpOperation::Request, (STRANGER, "0.0.0.0"), "198.18.9.1"), at(1));
    assert_eq!((a.counters().neighbours.value(), a.transmitted().len()), (0, 1));
}

#[test]
fn duplicate_address_detection_is_answered_to_all_nodes() {
    let mut a = Host::new(settings(1));
    let target = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    a.receive(&icmp_to_1("::", "ff02::1:ff00:1", 255, 135, 0, &target), at(1));
    let answers = a.transmitted();
    assert_eq!(answers[0][..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(answers[0][54], 136);
    assert_eq!(answers[0][58], 0x20, "override, not solicited");
    a.receive(&icmp_to_1("::", "2001:db8::1", 255, 135, 0, &target), at(1));
    a.receive(&icmp_to_1("2001:db8::2", "ff02::1:ff00:1", 254, 135, 0, &target), at(1));
    assert_eq!((a.transmitted().len(), a.counters().ndp_ignored.value()), (0, 2), "not to the group; forwarded");
}

#[test]
fn a_frame_that_does_not_fit_the_room_is_counted_and_the_next_one_comes() {
    let mut a = Host::new(settings(1));
    a.receive(&icmp_to_1("198.19.0.2", "198.18.0.1", 64, 8, 0, &[0; 100]), at(1));
    a.send("198.18.0.2", at(1));
    assert_eq!(a.link.poll_transmit(&mut [0; 60]), Some(42));
    assert_eq!(a.counters().transmit_too_long.value(), 1);
}

proptest! {
    /// Neither bound is ever exceeded, no buffer is lost and the timer never stands still, whatever the order of things.
    #[test]
    fn the_table_stays_consistent(steps in proptest::collection::vec((0u8..6, 0u8..12, 0u64..1500), 1..200)) {
        let mut a = Host::new(Settings { neighbours_max: 6, pending_max: 2, ..settings(1) });
        let mut now = at(1);
        for (action, host, millis) in steps {
            now = now + Duration::from_millis(millis);
            let address = format!("198.18.0.{}", 10 + host);
            match action {
                0 | 1 => drop(a.send(&address, now)),
                2 => a.link.on_arp(&arp(ArpOperation::Request, (mac(10 + host), &address), "198.18.0.1"), now),
                3 => a.link.on_arp(&arp(ArpOperation::Reply, (mac(10 + host), &address), "198.18.0.1"), now),
                4 => a.link.on_arp(&arp(ArpOperation::Request, (STRANGER, &address), &address), now),
                _ => {}
            }
            a.link.on_timeout(now);
            prop_assert!(a.link.poll_at().is_none_or(|due| due > now));
            prop_assert!(a.link.neighbours.len() <= 6);
            a.resolved();
            prop_assert!(a.queue.buffers().unwrap().in_use <= 12);
        }
        for second in 1..=4 {
            a.link.on_timeout(now + SECOND * second);
        }
        prop_assert_eq!(a.link.poll_at(), None);
        prop_assert_eq!(a.queue.buffers().unwrap().in_use, 0);
    }
}
