//! What stands in front of several engines with one service address: it spreads connections over them by a hash, as routers do for equal-cost paths (RFC 2992).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};

use crate::sim::engine::SERVICE_ADDRESS;
use crate::wire::{Frame, Protocol};

/// Most engines of a world: their own addresses come before [`SERVICE_ADDRESS`].
pub const ENGINES_MAX: u16 = 8;

/// Where a frame for the engines goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// To one.
    Engine(u16),
    /// To each of them: ARP, ICMP errors, what is damaged.
    All,
    /// To nobody: no engine is a next hop.
    Nowhere,
}

/// How connections are spread.
#[derive(Clone, Debug)]
pub struct Spread {
    engines: u16,
    /// The next hops.
    hops: Vec<u16>,
    salt: u64,
}

impl Spread {
    /// Over all of so many engines.
    ///
    /// # Panics
    /// When there are none, or more than [`ENGINES_MAX`].
    pub fn over(engines: u16) -> Self {
        assert!((1..=ENGINES_MAX).contains(&engines), "{engines} engines, not 1 to {ENGINES_MAX}");
        Self { engines, hops: (0..engines).collect(), salt: 0 }
    }

    /// The own address of an engine, with its network.
    pub fn address(engine: u16) -> String {
        format!("198.18.0.{}/15", engine + 2)
    }

    /// Hashes in another way from now on: connections that go on may find themselves at another engine.
    pub fn rehash(&mut self, salt: u64) {
        self.salt = salt;
    }

    /// Takes an engine out, or in again.
    pub fn set_hop(&mut self, engine: u16, is_hop: bool) {
        self.hops.retain(|hop| *hop != engine);
        if is_hop {
            self.hops.push(engine);
            self.hops.sort_unstable();
        }
    }

    /// Where a frame goes.
    pub fn to(&self, frame: &[u8]) -> To {
        let Ok(Frame::Ip { packet, .. }) = Frame::parse(frame, false) else { return To::All };
        if packet.destination == SERVICE_ADDRESS && packet.protocol == Protocol::Tcp {
            let mut hash = DefaultHasher::new();
            (self.salt, packet.source, packet.payload.get(..2)).hash(&mut hash);
            let place = hash.finish().checked_rem(self.hops.len() as u64);
            let hop = place.and_then(|place| self.hops.get(usize::try_from(place).ok()?));
            return hop.map_or(To::Nowhere, |hop| To::Engine(*hop));
        }
        let own =
            |engine: &u16| packet.destination == IpAddr::V4(Ipv4Addr::from_bits(0xc612_0002 + u32::from(*engine)));
        (0..self.engines).find(own).map_or(To::All, To::Engine)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::base::Flow;
    use crate::wire::{Flags, Outgoing, SegmentOptions, Seq};

    /// A frame with a segment from a client's port to `destination`.
    fn frame(port: u16, destination: IpAddr) -> Vec<u8> {
        let flow = Flow::new(([198, 18, 0, 1], port).into(), SocketAddr::new(destination, 443));
        let mut segment = vec![0; 100];
        let outgoing = Outgoing {
            flow: &flow,
            seq: Seq(1),
            ack: None,
            flags: Flags { syn: true, ..Flags::default() },
            window: 1000,
            options: SegmentOptions::default(),
            ecn: crate::wire::Ecn::NotEct,
            payload: &[],
        };
        let len = outgoing.emit(&mut segment, false).unwrap();
        [&[2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 8, 0][..], &segment[..len]].concat()
    }

    fn engines(spread: &Spread) -> Vec<To> {
        (1000..1100).map(|port| spread.to(&frame(port, SERVICE_ADDRESS))).collect()
    }

    #[test]
    fn a_connection_stays_where_it_is_until_it_is_hashed_anew_and_every_engine_gets_some() {
        let mut spread = Spread::over(3);
        let before = engines(&spread);
        assert_eq!(engines(&spread), before);
        for engine in 0..3 {
            assert!(before.contains(&To::Engine(engine)));
        }
        spread.rehash(1);
        assert_ne!(engines(&spread), before);
    }

    #[test]
    fn an_engine_that_is_no_hop_gets_no_connection_and_without_any_nobody_does() {
        let mut spread = Spread::over(2);
        spread.set_hop(0, false);
        assert!(engines(&spread).iter().all(|to| *to == To::Engine(1)));
        // Its own address is its own all the same.
        assert_eq!(spread.to(&frame(1000, [198, 18, 0, 2].into())), To::Engine(0));
        spread.set_hop(1, false);
        assert!(engines(&spread).iter().all(|to| *to == To::Nowhere));
        spread.set_hop(1, true);
        assert!(engines(&spread).iter().all(|to| *to == To::Engine(1)));
    }

    #[test]
    fn what_is_nobodys_connection_goes_to_all() {
        assert_eq!(Spread::over(2).to(&[0xff; 60]), To::All);
        assert_eq!(Spread::over(2).to(&frame(1000, [198, 18, 0, 77].into())), To::All);
    }
}
