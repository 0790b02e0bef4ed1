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
            // No hop: nobody is there to take it.
            let place = hash.finish().checked_rem(self.hops.len() as u64).unwrap_or_default();
            let hop = usize::try_from(place).ok().and_then(|place| self.hops.get(place));
            return hop.map_or(To::All, |hop| To::Engine(*hop));
        }
        let own =
            |engine: &u16| packet.destination == IpAddr::V4(Ipv4Addr::from_bits(0xc612_0002 + u32::from(*engine)));
        (0..self.engines).find(own).map_or(To::All, To::Engine)
    }
}
