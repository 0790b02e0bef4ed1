//! One switch that all hosts hang on, with the faults of a real network.

use std::collections::BTreeMap;

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol};

use crate::base::{Duration, Instant, Random};
use crate::sim::router::Narrow;

/// How the network treats each frame, by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Frames lost, per thousand.
    pub loss_permille: u64,
    /// Frames delivered twice, per thousand.
    pub duplicate_permille: u64,
    /// Frames with one bit flipped, per thousand.
    pub corrupt_permille: u64,
    /// The least time on the way.
    pub delay: Duration,
    /// What may be added to it; more than the time between two frames reorders them.
    pub jitter: Duration,
}

impl Default for Conditions {
    /// A sound network, 100 µs across.
    fn default() -> Self {
        Self {
            loss_permille: 0,
            duplicate_permille: 0,
            corrupt_permille: 0,
            delay: Duration::from_micros(100),
            jitter: Duration::ZERO,
        }
    }
}

/// A frame on its way to the port at this index.
#[derive(Clone, Debug)]
struct Transit {
    to: usize,
    frame: Vec<u8>,
}

/// The switch.
#[derive(Debug)]
pub struct Network {
    /// What befalls frames from now on.
    pub conditions: Conditions,
    /// A link on every way that carries less than the ports do.
    pub narrow: Option<Narrow>,
    ports: Vec<EthernetAddress>,
    transits: BTreeMap<(Instant, u64), Transit>,
    sent: u64,
    random: Random,
}

impl Network {
    /// A switch with a port for each of these addresses.
    pub fn new(ports: Vec<EthernetAddress>, conditions: Conditions, random: Random) -> Self {
        Self { conditions, narrow: None, ports, transits: BTreeMap::new(), sent: 0, random }
    }

    /// Takes a frame that the host at port `from` sends.
    pub fn send(&mut self, from: usize, frame: &[u8], now: Instant) {
        let Ok(header) = EthernetFrame::new_checked(frame) else { return };
        let destination = header.dst_addr();
        let narrow = self.narrow.filter(|narrow| is_ip(header.ethertype()) && !narrow.carries(header.payload()));
        if let Some(narrow) = narrow {
            if let Some(answer) = narrow.answer(header.payload()) {
                let ether_type = frame.get(12..14).unwrap_or_default();
                let back = [header.src_addr().as_bytes(), destination.as_bytes(), ether_type, &answer].concat();
                self.carry(from, &back, now);
            }
            return;
        }
        for (to, mac) in self.ports.clone().into_iter().enumerate() {
            if to != from && (!destination.is_unicast() || destination == mac) {
                let copies = 1 + usize::from(self.chance(self.conditions.duplicate_permille));
                for _ in 0..copies {
                    self.carry(to, frame, now);
                }
            }
        }
    }

    fn carry(&mut self, to: usize, frame: &[u8], now: Instant) {
        if self.chance(self.conditions.loss_permille) {
            return;
        }
        let mut frame = frame.to_vec();
        if self.chance(self.conditions.corrupt_permille) {
            self.corrupt(&mut frame);
        }
        let jitter = u64::try_from(self.conditions.jitter.as_nanos()).unwrap_or(u64::MAX - 1);
        let arrival = now + self.conditions.delay + Duration::from_nanos(self.random.below(jitter + 1));
        self.sent += 1;
        self.transits.insert((arrival, self.sent), Transit { to, frame });
    }

    /// Flips one bit behind the Ethernet header, whose own checksum a NIC would have seen fail.
    fn corrupt(&mut self, frame: &mut [u8]) {
        let Some(packet) = frame.get_mut(14..) else { return };
        let bit = self.random.below(packet.len() as u64 * 8);
        let byte = usize::try_from(bit / 8).expect("a frame is short");
        if let Some(byte) = packet.get_mut(byte) {
            *byte ^= 1 << (bit % 8);
        }
    }

    fn chance(&mut self, permille: u64) -> bool {
        self.random.below(1000) < permille
    }

    /// The next frame that has arrived by `now`, and the port it arrives at.
    pub fn deliver(&mut self, now: Instant) -> Option<(usize, Vec<u8>)> {
        let entry = self.transits.first_entry().filter(|entry| entry.key().0 <= now)?;
        let transit = entry.remove();
        Some((transit.to, transit.frame))
    }

    /// When the next frame arrives.
    pub fn poll_at(&self) -> Option<Instant> {
        self.transits.first_key_value().map(|((arrival, _), _)| *arrival)
    }
}

fn is_ip(protocol: EthernetProtocol) -> bool {
    matches!(protocol, EthernetProtocol::Ipv4 | EthernetProtocol::Ipv6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: u8) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, to]);
        frame
    }

    fn network(conditions: Conditions) -> Network {
        let ports = (0..3).map(|port| EthernetAddress([2, 0, 0, 0, 0, port])).collect();
        Network::new(ports, conditions, Random::from_seed(1))
    }

    fn arrivals(network: &mut Network) -> Vec<usize> {
        let late = Instant::START + Duration::from_secs(1);
        std::iter::from_fn(|| network.deliver(late)).map(|(port, _)| port).collect()
    }

    #[test]
    fn a_frame_goes_to_its_address_and_a_broadcast_to_all_others() {
        let mut network = network(Conditions::default());
        network.send(0, &frame(2), Instant::START);
        assert_eq!(arrivals(&mut network), [2]);
        let mut broadcast = frame(0);
        broadcast[..6].fill(0xff);
        network.send(1, &broadcast, Instant::START);
        assert_eq!(arrivals(&mut network), [0, 2]);
    }

    #[test]
    fn a_frame_takes_its_time() {
        let mut network = network(Conditions::default());
        network.send(0, &frame(1), Instant::START);
        assert_eq!(network.deliver(Instant::START + Duration::from_micros(99)), None);
        assert_eq!(network.poll_at(), Some(Instant::START + Duration::from_micros(100)));
        assert!(network.deliver(Instant::START + Duration::from_micros(100)).is_some());
    }

    #[test]
    fn what_a_narrow_link_does_not_carry_comes_back_as_an_error_or_not_at_all() {
        let mut network = network(Conditions::default());
        let packet = |len: u8| [&[0x45, 0, 0, len][..], &vec![0; usize::from(len) - 4]].concat();
        let ipv4 = |len: u8| [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0, 8, 0][..], &packet(len)].concat();
        for (silent, len, to) in
            [(false, 100, vec![2]), (false, 101, vec![0]), (true, 100, vec![2]), (true, 101, vec![])]
        {
            network.narrow = Some(Narrow { mtu: 100, silent });
            network.send(0, &ipv4(len), Instant::START);
            assert_eq!(arrivals(&mut network), to, "{len} bytes, silent: {silent}");
        }
        // What is no IP packet is no router's business.
        network.send(0, &frame(2).repeat(3), Instant::START);
        assert_eq!(arrivals(&mut network), [2]);
    }

    #[test]
    fn faults_come_about_as_often_as_said() {
        let mut network = network(Conditions { loss_permille: 100, duplicate_permille: 50, ..Conditions::default() });
        for _ in 0..10_000 {
            network.send(0, &frame(1), Instant::START);
        }
        let arrived = arrivals(&mut network).len();
        assert!((9_300..9_600).contains(&arrived), "{arrived} of 10,000");
    }
}
