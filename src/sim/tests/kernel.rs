//! A station of two lanes with the kernel's interface beside its port: a host in the kernel's place that has the same addresses, and a neighbour outside.

use std::net::{IpAddr, SocketAddr};

use crate::base::{Duration, Instant, LaneId, Random};
use crate::lane::{Handle, Station, Steering};
use crate::nic::memory::{self, Wire};
use crate::sim::host::{Host, addresses, mac};
use crate::tcp::{self, Event, State, Token};

const ENGINE: &str = "198.18.0.2";
const SHOP: &str = "198.18.0.10";
const NEIGHBOUR: &str = "198.18.0.1";
const LANES: u16 = 2;

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// All of them, and where frames go next.
struct World {
    lanes: Vec<Station<memory::Queue>>,
    handles: Vec<Handle>,
    wire: Wire,
    kernel_wire: Wire,
    kernel: Host,
    neighbour: Host,
    now: Instant,
    /// Frames are dealt out to lanes in turn: on half of them a segment comes to the wrong one.
    turn: usize,
}

impl World {
    fn new(rate: u32) -> Self {
        let mut random = Random::from_seed(7);
        let settings = memory::Settings::new(LANES.into(), mac(0), 1500);
        let (queues, wire, kernel_wire) = settings.port_beside_kernel(rate);
        let handles: Vec<_> = (0..LANES).map(|lane| Handle::new(LaneId(lane), 1)).collect();
        let stations = queues.into_iter().zip(Steering::between(LANES)).zip(&handles);
        let lanes = stations.map(|((queue, steering), handle)| {
            let mut station = Station::new(handle, steering, vec![queue], tcp::Settings::default(), random.fork());
            let mut port = addresses(0, &["198.18.0.2/24", "2001:db8::2/64"]);
            port.virtual_addresses = vec![SHOP.parse().unwrap(), "2001:db8::10".parse().unwrap()];
            station.configure(vec![port]);
            station.stack.listen(at(SHOP, 443), Token(1)).unwrap();
            station
        });
        let lanes = lanes.collect();
        let kernel = Host::new(0, &["198.18.0.2/24", "2001:db8::2/64"], &mut random.fork());
        let neighbour = Host::new(1, &["198.18.0.1/24", "2001:db8::1/64"], &mut random.fork());
        Self { lanes, handles, wire, kernel_wire, kernel, neighbour, now: Instant::START, turn: 0 }
    }

    /// Everything that happens within a second and a half.
    fn live(&mut self) {
        for _ in 0..150 {
            self.now = self.now + Duration::from_millis(10);
            for _ in 0..8 {
                self.breathe();
            }
        }
    }

    fn breathe(&mut self) {
        for lane in &mut self.lanes {
            lane.receive(self.now);
            lane.fire_timers(self.now);
            lane.transmit(self.now);
        }
        for host in [&mut self.kernel, &mut self.neighbour] {
            host.receive(self.now);
            host.station.transmit(self.now);
        }
        while let Some(frame) = self.neighbour.wire.pop() {
            self.turn = (self.turn + 1) % usize::from(LANES);
            self.wire.push(&frame, self.turn);
        }
        while let Some(frame) = self.wire.pop() {
            self.neighbour.wire.push(&frame, 0);
        }
        while let Some(frame) = self.kernel.wire.pop() {
            self.kernel_wire.push(&frame, self.turn);
        }
        while let Some(frame) = self.kernel_wire.pop() {
            self.kernel.wire.push(&frame, 0);
        }
    }

    fn sum(&self, read: impl Fn(&Handle) -> u64) -> u64 {
        self.handles.iter().map(read).sum()
    }

    /// What the neighbour sends, as a frame, to every lane in turn.
    fn arrive(&mut self, frame: &[u8]) -> (u64, u64) {
        let given = |world: &Self| world.sum(|handle| handle.counters.kernels[0].given.value());
        let before = given(self);
        while self.kernel.wire.pop().is_some() {}
        assert!(self.wire.push(frame, self.turn));
        for lane in &mut self.lanes {
            lane.receive(self.now);
            lane.transmit(self.now);
        }
        let arrived = std::iter::from_fn(|| self.kernel_wire.pop()).filter(|other| other == frame).count();
        let mut answers = 0;
        while self.wire.pop().is_some() {
            answers += 1;
        }
        assert_eq!(given(self) - before, arrived as u64);
        (arrived as u64, answers)
    }
}

fn events(station: &mut Station<memory::Queue>) -> Vec<Event> {
    std::iter::from_fn(|| station.stack.poll_event()).map(|(_, _, event)| event).collect()
}

#[test]
fn connections_to_one_address_go_to_whoever_listens_or_has_opened_them() {
    let mut world = World::new(100_000);
    let now = world.now;
    // To the service, to the kernel's listener on the shared address, and to a port at which nobody listens.
    world.kernel.listen(at(ENGINE, 22));
    world.neighbour.listen(at(NEIGHBOUR, 179));
    world.neighbour.listen(at(NEIGHBOUR, 8000));
    let opened: Vec<_> = [at(SHOP, 443), at(ENGINE, 22), at(ENGINE, 23), at(SHOP, 22)]
        .map(|to| world.neighbour.station.open_connection(to, Token(0), now).unwrap())
        .into();
    // From the engine's lanes and from the kernel to one server.
    for lane in &mut world.lanes {
        for _ in 0..4 {
            lane.open_connection(at(NEIGHBOUR, 8000), Token(2), now).unwrap();
        }
    }
    let from_kernel: Vec<_> =
        (0..4).map(|_| world.kernel.station.open_connection(at(NEIGHBOUR, 179), Token(3), now).unwrap()).collect();
    world.live();

    let states: Vec<_> =
        opened.iter().map(|id| world.neighbour.station.stack.inspect(*id).map(|seen| seen.state)).collect();
    assert_eq!(states[..2], [Some(State::Established); 2]);
    let refused = events(&mut world.neighbour.station);
    assert_eq!(refused.iter().filter(|event| matches!(event, Event::Closed(_))).count(), 2, "{refused:?}");
    let accepted: usize = world.lanes.iter_mut().flat_map(events).filter(|event| *event == Event::Accepted).count();
    assert_eq!(accepted, 1, "the service's");
    let kernels = events(&mut world.kernel.station);
    assert_eq!(kernels.iter().filter(|event| **event == Event::Accepted).count(), 1, "the listener's");
    assert_eq!(kernels.iter().filter(|event| **event == Event::Connected).count(), from_kernel.len());
    let connected = world.sum(|handle| handle.counters.tcp.connected.value());
    assert_eq!(connected, 8);
    let resets = world.sum(|handle| handle.counters.tcp.resets_sent.value());
    assert_eq!(resets, 1, "the engine resets strangers at its own address only");
    assert_eq!(world.kernel.handle.counters.tcp.resets_sent.value(), 1, "and the kernel at the shared one");
    assert_eq!(world.kernel.handle.counters.tcp.strangers.value(), 0, "no segment of the engine's reaches the kernel");
    assert!(world.sum(|handle| handle.counters.lane.frames_handed_over.value()) > 0);
}

#[test]
fn each_kind_of_frame_goes_where_it_belongs() {
    let mut world = World::new(100_000);
    world.live();
    let kinds: [(&str, Vec<u8>, (u64, u64)); 15] = [
        ("a datagram to the shared address", ipv4(ENGINE, 17, 0, &[0, 9, 0, 9, 0, 8, 0, 0]), (1, 0)),
        ("a datagram to a service's", ipv4(SHOP, 17, 0, &[0, 9, 0, 9, 0, 8, 0, 0]), (0, 1)),
        ("OSPF", ipv4("224.0.0.5", 89, 0, &[2, 1]), (1, 0)),
        ("a broadcast", ipv4("255.255.255.255", 17, 0, &[0; 8]), (1, 0)),
        ("to an address of the kernel's only", ipv4("198.18.0.77", 17, 0, &[0; 8]), (1, 0)),
        ("a fragment to the shared address", ipv4(ENGINE, 17, 0x2000, &[0; 8]), (1, 0)),
        ("a fragment to a service's", ipv4(SHOP, 17, 0x2000, &[0; 8]), (0, 0)),
        ("an echo request", ipv4(ENGINE, 1, 0, &echo(8)), (0, 1)),
        ("an echo reply", ipv4(ENGINE, 1, 0, &echo(0)), (1, 0)),
        ("an echo request to a service", ipv4(SHOP, 1, 0, &echo(8)), (0, 1)),
        ("who has the shared address", arp(1, ENGINE), (0, 1)),
        ("who has a service's", arp(1, SHOP), (0, 1)),
        ("who has another one", arp(1, "198.18.0.77"), (1, 0)),
        ("a neighbour's answer", arp(2, ENGINE), (1, 0)),
        ("an EtherType of others", [&head(0x88cc)[..], &[2; 46]].concat(), (1, 0)),
    ];
    for (what, frame, outcome) in kinds {
        for _ in 0..LANES {
            assert_eq!(world.arrive(&frame), outcome, "{what}");
            world.turn = (world.turn + 1) % usize::from(LANES);
        }
    }
    let mut bad = ipv4(ENGINE, 17, 0, &[0; 8]);
    bad[24] ^= 1;
    assert_eq!(world.arrive(&bad), (0, 0), "a wrong checksum");
    assert_eq!(world.wire.buffers().in_use, 0);
}

#[test]
fn what_the_kernel_sends_leaves_as_it_is_from_any_lane_until_the_rate_is_reached() {
    let mut world = World::new(100);
    while world.wire.pop().is_some() {}
    world.live();
    while world.wire.pop().is_some() {}
    let frame = ipv4("198.18.0.1", 47, 0, &[7; 300]);
    let (mut sent, mut left) = (0, 0);
    for round in 0..20 {
        for _ in 0..BATCH {
            sent += usize::from(world.kernel_wire.push(&frame, round % 2));
        }
        for lane in &mut world.lanes {
            lane.receive(world.now);
            lane.transmit(world.now);
        }
        left += std::iter::from_fn(|| world.wire.pop()).inspect(|out| assert_eq!(*out, frame)).count();
    }
    // A burst for each lane, and no more: no time passes.
    assert_eq!((sent, left), (20 * BATCH, 2 * 128));
    let limited = world.sum(|handle| handle.counters.kernels[0].taken_limited.value());
    assert_eq!(limited, (sent - left) as u64);
}

/// Frames in a round: what a lane takes of them in a breath.
const BATCH: usize = 32;

fn head(kind: u16) -> Vec<u8> {
    [&mac(0).0[..], &mac(1).0, &kind.to_be_bytes()].concat()
}

fn octets(address: &str) -> [u8; 4] {
    match address.parse().unwrap() {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => panic!("{address} is of IPv6"),
    }
}

/// A packet of the neighbour's as a frame.
fn ipv4(to: &str, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let [fh, fl] = fragment.to_be_bytes();
    let mut header = vec![0x45, 0, len[0], len[1], 0, 1, fh, fl, 64, protocol, 0, 0];
    header.extend(octets(NEIGHBOUR));
    header.extend(octets(to));
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    let mut frame = [&head(0x0800)[..], &header, payload].concat();
    let to = octets(to);
    if to == [255; 4] {
        frame[..6].fill(0xff);
    } else if to[0] == 224 {
        frame[..6].copy_from_slice(&[1, 0, 0x5e, to[1], to[2], to[3]]);
    }
    frame
}

fn echo(kind: u8) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0, 0, 1, 0, 1][..], &[9; 56]].concat();
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    message
}

fn arp(operation: u8, target: &str) -> Vec<u8> {
    let ask = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head(0x0806)[..], &ask, &mac(1).0, &octets(NEIGHBOUR), &[0; 6], &octets(target)].concat()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
