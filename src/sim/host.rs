//! A host of a world: a station with its end of the network.

use std::net::SocketAddr;

use ipnet::IpNet;
use smoltcp::wire::EthernetAddress;

use crate::base::{Instant, LaneId, Random};
use crate::lane::{Handle, Station, Steering};
use crate::link;
use crate::nic::memory::{self, Wire};
use crate::tcp::{self, Token};

/// A host: the application drives its station, the network its wire.
pub struct Host {
    /// The host's own network, up to TCP.
    pub station: Station<memory::Queue>,
    /// The outside end of its port.
    pub wire: Wire,
    /// What the station counts.
    pub handle: Handle,
}

impl Host {
    /// A host at a port of the network, with these addresses.
    ///
    /// # Panics
    /// When an address is none.
    pub fn new(port: u16, networks: &[&str], random: &mut Random) -> Self {
        let (queues, wire) = memory::port(1, mac(port), 1500);
        let handle = Handle::new(LaneId(0), 1);
        let steering = Steering::between(1).remove(0);
        let mut station = Station::new(&handle, steering, queues, tcp::Settings::default(), random.fork());
        station.configure(vec![addresses(port, networks)]);
        Self { station, wire, handle }
    }

    /// Accepts connections to `address`.
    ///
    /// # Panics
    /// When the host does so already.
    pub fn listen(&mut self, address: SocketAddr) {
        let listening = self.station.stack.listen(address, Token(0));
        assert!(listening.is_ok(), "the server at {address} runs already");
    }

    /// Takes what has come and fires what is due; whether there was anything.
    pub fn receive(&mut self, now: Instant) -> bool {
        let received = self.station.receive(now);
        let due = self.station.poll_at().is_some_and(|at| at <= now);
        if due {
            self.station.fire_timers(now);
        }
        received | due
    }
}

/// The Ethernet address of a port of the network.
pub fn mac(port: u16) -> EthernetAddress {
    let [high, low] = port.to_be_bytes();
    EthernetAddress([2, 0, 0, 0, high, low])
}

/// A port's settings with these addresses, each with its network.
///
/// # Panics
/// When an address is none.
pub fn addresses(port: u16, networks: &[&str]) -> link::Settings {
    let networks = networks.iter().map(|network| network.parse::<IpNet>().expect("a network"));
    link::Settings {
        mac: mac(port),
        addresses: networks.collect(),
        virtual_addresses: Vec::new(),
        gateways: Vec::new(),
        neighbours_max: 64,
        pending_max: 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Duration, Flow};
    use crate::wire::{Ecn, Flags, Outgoing, Segment, SegmentOptions, Seq};

    const LOCAL: ([u8; 4], u16) = ([198, 18, 0, 1], 443);

    fn segment(port: u16, seq: u32, ack: Option<u32>, payload: &[u8]) -> Vec<u8> {
        let flow = Flow::new(([198, 18, 0, 2], port).into(), LOCAL.into());
        let flags = Flags { syn: ack.is_none(), ..Flags::default() };
        let (seq, ack, ecn, options) = (Seq(seq), ack.map(Seq), Ecn::NotEct, SegmentOptions::default());
        let mut frame = vec![0; 200];
        let (header, packet) = frame.split_at_mut(14);
        header.copy_from_slice(&[mac(1).0.as_slice(), &mac(2).0, &[8, 0]].concat());
        let outgoing = Outgoing { flow: &flow, seq, ack, flags, window: 9999, options, ecn, payload: (payload, &[]) };
        let len = outgoing.emit(packet, false).unwrap();
        frame.truncate(14 + len);
        frame
    }

    fn host() -> Host {
        let mut host = Host::new(1, &["198.18.0.1/24"], &mut Random::from_seed(1));
        host.listen(LOCAL.into());
        host
    }

    /// The answer that waits on the wire, if its neighbour is known.
    fn answer(host: &mut Host, now: Instant) -> Option<u32> {
        host.station.transmit(now);
        let mut seq = None;
        while let Some(frame) = host.wire.pop() {
            if let Ok(crate::wire::Frame::Ip { packet, .. }) = crate::wire::Frame::parse(&frame, false) {
                seq = seq.or(Segment::parse(&packet, false).ok().map(|(_, segment)| segment.seq.0));
            }
        }
        seq
    }

    #[test]
    fn behind_more_syns_than_a_breath_answers_connections_are_read_at_once() {
        let (mut host, now) = (host(), Instant::START + Duration::from_secs(1));
        // A neighbour that is known, and a connection.
        let neighbour = mac(2).0;
        let arp = [
            [0xff; 6].as_slice(),
            &neighbour,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &neighbour,
            &[198, 18, 0, 2],
            &[0; 6],
            &[198, 18, 0, 1],
        ];
        host.wire.push(&arp.concat(), 0);
        host.wire.push(&segment(1, 100, None, &[]), 0);
        host.receive(now);
        let iss = answer(&mut host, now).expect("SYN,ACK");
        for port in 4000..4200 {
            assert!(host.wire.push(&segment(port, 100, None, &[]), 0));
        }
        host.receive(now);
        for port in 1000..1900 {
            assert!(host.wire.push(&segment(port, 100, None, &[]), 0));
        }
        host.wire.push(&segment(1, 101, Some(iss.wrapping_add(1)), b"data"), 0);
        host.receive(now);
        let counters = host.handle.counters.clone();
        assert_eq!(counters.tcp.accepted.value(), 1);
        let half_open = 200 + 128;
        assert_eq!((counters.tcp.half_open.value(), counters.lane.openings_dropped.value()), (half_open, 900 - 128));
        // Those that were dropped come again, behind others that nobody has seen.
        for port in (3000..3200).chain(1890..1900) {
            assert!(host.wire.push(&segment(port, 100, None, &[]), 0));
        }
        host.receive(now + Duration::from_secs(1));
        assert_eq!((counters.lane.openings_again.value(), counters.tcp.half_open.value()), (10, half_open + 128 + 10));
    }
}
