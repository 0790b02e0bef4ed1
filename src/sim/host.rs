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
