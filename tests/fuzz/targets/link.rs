//! Feeds ARP, NDP, ICMP and unknown protocols, calls and time to one lane's `link::Link` over frames in memory.
//!
//! Every queue is bounded and ends when it is drained, what is transmitted is a right frame of ours and no longer than `FRAME_MAX`, the
//! neighbour table keeps its bound, timers move on, and no packet buffer is lost.

#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sealane::base::{Duration, Instant};
use sealane::link::{Counters, Evidence, Link, Neighbour, Sent, Settings};
use sealane::nic::memory::{self, Queue, Wire};
use sealane::nic::{FRAME_MAX, Frame as _, QueuePair};
use sealane::wire::{Frame, Packet, Protocol};
use sealane_fuzz::{Host, frame, icmp_packet, ip_packet};
use smoltcp::wire::{ArpOperation, ArpRepr, IpProtocol};

const OWN: u8 = 0;
const NEIGHBOURS_MAX: usize = 8;
/// Frames that the outbox holds, and announcements that may wait behind them.
const OWN_FRAMES_MAX: usize = 256 + 1024;
/// News and learned neighbours that wait.
const NEWS_MAX: usize = 1024;

#[derive(Arbitrary, Debug)]
enum Action {
    Frame(Vec<u8>),
    Arp {
        reply: bool,
        source: (Host, Host),
        target: (Host, Host),
    },
    Icmp {
        v6: bool,
        from: Host,
        source: Host,
        destination: Host,
        near: bool,
        kind: u8,
        code: u8,
        rest: Vec<u8>,
    },
    /// A neighbour message with a target and perhaps its link-layer address option.
    Discovery {
        advertisement: bool,
        from: Host,
        source: Host,
        destination: Host,
        flags: u8,
        target: Host,
        option: Option<Host>,
    },
    /// An error that quotes a TCP packet from us.
    Error {
        v6: bool,
        from: Host,
        source: Host,
        peer: Host,
        kind: u8,
        code: u8,
        ports: [u8; 4],
    },
    Unknown {
        v6: bool,
        from: Host,
        source: Host,
        destination: Host,
        protocol: u8,
        payload: Vec<u8>,
    },
    Send {
        v6: bool,
        source: Host,
        destination: Host,
        many: u8,
    },
    Learned {
        v6: bool,
        address: Host,
        mac: Host,
        evidence: u8,
        replaces: bool,
    },
    Wait {
        millis: u16,
    },
    Configure {
        more: bool,
    },
    Announce,
    Drain,
}

struct Bench {
    link: Link<memory::Frame>,
    queue: Queue,
    wire: Wire,
    counters: Arc<Counters>,
    now: Instant,
}

fuzz_target!(|actions: Vec<Action>| {
    let mut bench = Bench::new();
    for action in actions {
        bench.act(action);
        bench.check();
    }
    bench.drain();
    let Bench { link, wire, .. } = bench;
    drop(link);
    assert_eq!(wire.buffers().in_use, 0, "a packet buffer is lost");
});

fn settings(more: bool) -> Settings {
    let mut addresses = vec!["198.18.0.1/24", "2001:db8::1/64"];
    if more {
        addresses.push("198.18.0.2/24");
    }
    Settings {
        mac: Host::mac_of(OWN),
        addresses: addresses.iter().map(|network| network.parse().expect("it is a network")).collect(),
        virtual_addresses: ["198.18.0.3", "2001:db8::3"].map(|address| address.parse().expect("an address")).to_vec(),
        gateways: ["198.18.0.9", "2001:db8::9"].map(|address| address.parse().expect("an address")).to_vec(),
        neighbours_max: if more { NEIGHBOURS_MAX } else { NEIGHBOURS_MAX / 2 },
        pending_max: 4,
    }
}

impl Bench {
    fn new() -> Self {
        let (mut queues, wire) = memory::port(1, Host::mac_of(OWN), 1500);
        let counters = Arc::new(Counters::default());
        let link = Link::new(settings(true), Arc::clone(&counters));
        Self { link, queue: queues.remove(0), wire, counters, now: Instant::START }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Frame(bytes) => self.receive(&bytes),
            Action::Arp { reply, source, target } => {
                let (std::net::IpAddr::V4(source_ip), std::net::IpAddr::V4(target_ip)) =
                    (source.1.address(false), target.1.address(false))
                else {
                    return;
                };
                let arp = ArpRepr::EthernetIpv4 {
                    operation: if reply { ArpOperation::Reply } else { ArpOperation::Request },
                    source_hardware_addr: source.0.mac(),
                    source_protocol_addr: source_ip,
                    target_hardware_addr: target.0.mac(),
                    target_protocol_addr: target_ip,
                };
                self.link.on_arp(&arp, self.now);
            }
            Action::Icmp { v6, from, source, destination, near, kind, code, rest } => {
                let hop_limit = if near { 255 } else { 64 };
                let packet = icmp_packet(source.address(v6), destination.address(v6), hop_limit, kind, code, &rest);
                self.receive_packet(from, packet);
            }
            Action::Discovery { advertisement, from, source, destination, flags, target, option } => {
                let std::net::IpAddr::V6(target) = target.address(true) else { return };
                let mut rest = [&[flags, 0, 0, 0], &target.octets()[..]].concat();
                if let Some(option) = option {
                    rest.extend([if advertisement { 2 } else { 1 }, 1]);
                    rest.extend(option.mac().as_bytes());
                }
                let kind = if advertisement { 136 } else { 135 };
                let packet = icmp_packet(source.address(true), destination.address(true), 255, kind, 0, &rest);
                self.receive_packet(from, packet);
            }
            Action::Error { v6, from, source, peer, kind, code, ports } => {
                let ours = source.address(v6);
                let tcp = [&ports[..], &[0; 16]].concat();
                let Some(quoted) = ip_packet(ours, peer.address(v6), IpProtocol::Tcp, 64, &tcp) else { return };
                let rest = [&[0; 4], quoted.as_slice()].concat();
                self.receive_packet(from, icmp_packet(peer.address(v6), ours, 64, kind, code, &rest));
            }
            Action::Unknown { v6, from, source, destination, protocol, payload } => {
                let packet = ip_packet(source.address(v6), destination.address(v6), protocol.into(), 64, &payload);
                self.receive_packet(from, packet);
            }
            Action::Send { v6, source, destination, many } => {
                for _ in 0..many {
                    self.send(v6, source, destination);
                }
            }
            Action::Learned { v6, address, mac, evidence, replaces } => {
                let evidence = [Evidence::Answer, Evidence::Request, Evidence::Reply, Evidence::Announcement]
                    [usize::from(evidence % 4)];
                let neighbour = Neighbour { address: address.address(v6), mac: mac.mac(), evidence, replaces };
                self.link.on_learned(neighbour, self.now);
            }
            Action::Wait { millis } => {
                self.now = self.now + Duration::from_millis(millis.into());
                self.link.on_timeout(self.now);
                assert!(self.link.poll_at().is_none_or(|at| at > self.now), "a timer stands still");
            }
            Action::Configure { more } => self.link.configure(settings(more)),
            // A lane announces at start and after a change, not in a loop.
            Action::Announce => {
                self.drain();
                self.link.announce();
            }
            Action::Drain => self.drain(),
        }
    }

    fn receive_packet(&mut self, from: Host, packet: Option<Vec<u8>>) {
        if let Some(packet) = packet {
            self.receive(&frame(Host::mac_of(OWN), from.mac(), &packet));
        }
    }

    /// As a lane does it.
    fn receive(&mut self, bytes: &[u8]) {
        if bytes.len() > FRAME_MAX {
            return;
        }
        match Frame::parse(bytes, false) {
            Ok(Frame::Arp(arp)) => self.link.on_arp(&arp, self.now),
            Ok(Frame::Ip { from, packet }) => match packet.protocol {
                Protocol::Icmp | Protocol::Icmpv6 => self.link.on_icmp(from, &packet, self.now),
                Protocol::Other(_) if self.link.is_local(packet.destination) => {
                    self.link.on_unknown(from, &packet, self.now);
                }
                Protocol::Tcp | Protocol::Other(_) => {}
            },
            Err(_) => {}
        }
    }

    fn send(&mut self, v6: bool, source: Host, destination: Host) {
        let packet = ip_packet(source.address(v6), destination.address(v6), IpProtocol::Tcp, 64, &[0x50; 20]);
        let (Some(packet), Some(mut frame)) = (packet, self.queue.allocate()) else { return };
        frame.room()[14..14 + packet.len()].copy_from_slice(&packet);
        frame.set_len(14 + packet.len());
        match self.link.send(frame, self.now) {
            Sent::Ready(frame) => assert_ours(frame.bytes(), false),
            Sent::Pending | Sent::Dropped => {}
        }
    }

    fn drain(&mut self) {
        let mut room = [0; FRAME_MAX];
        let mut count = 0;
        while let Some(len) = self.link.poll_transmit(&mut room) {
            assert_ours(&room[..len], true);
            count += 1;
            assert!(count <= OWN_FRAMES_MAX, "the outbox does not end");
        }
        assert!(!self.link.wants_transmit());
        while let Some(frame) = self.link.poll_resolved() {
            assert_ours(frame.bytes(), false);
        }
        assert!(std::iter::from_fn(|| self.link.poll_learned()).take(NEWS_MAX + 1).count() <= NEWS_MAX);
        assert!(std::iter::from_fn(|| self.link.poll_event()).take(NEWS_MAX + 1).count() <= NEWS_MAX);
    }

    fn check(&self) {
        assert!(self.counters.neighbours.value() <= NEIGHBOURS_MAX as u64);
        let buffers = self.wire.buffers();
        assert!(buffers.in_use <= buffers.capacity);
    }
}

/// A frame that leaves is from us and, where the link layer made it, one that we would parse.
fn assert_ours(bytes: &[u8], own: bool) {
    assert!(bytes.len() <= FRAME_MAX);
    assert_eq!(bytes.get(6..12), Some(Host::mac_of(OWN).as_bytes()));
    if own {
        match Frame::parse(bytes, false) {
            Ok(Frame::Arp(_)) => {}
            Ok(Frame::Ip { packet, .. }) => assert_eq!(Packet::parse(packet.bytes, false), Ok(packet)),
            Err(error) => panic!("it sends what it would not take: {error:?}"),
        }
    }
}
