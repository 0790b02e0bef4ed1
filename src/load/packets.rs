//! Connections over our own TCP: a station on one port.

use std::io;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::base::{Duration, Instant, LaneId, Random};
use crate::lane::{Handle, NoConnection, Station, Steering};
use crate::link;
use crate::load::{Taken, Transport};
use crate::nic::{QueuePair, rss};
use crate::tcp::{self, ConnectionId, Event, Readable, Token};

/// Most connections, clients' and servers' together: a million idle ones, both ends.
const CONNECTIONS_MAX: usize = 1 << 21;

/// Neighbours that a load has: the engines and a router.
const NEIGHBOURS_MAX: usize = 64;

/// Packets that wait for one of them: the first SYNs of a run.
const PENDING_MAX: usize = 256;

/// Most source ports that are tried for a connection that is to reach one lane. One in as many as there are lanes does.
const TRIES_MAX: usize = 1024;

/// Our own TCP over a queue.
pub struct Packets<Q: QueuePair> {
    station: Station<Q>,
    /// The one of so many lanes that clients reach.
    reached: Option<(LaneId, u16)>,
}

impl<Q: QueuePair> Packets<Q> {
    /// A station with this address, more addresses that clients come from or servers answer on, and a router to everybody else.
    pub fn new(queue: Q, address: IpNet, more: Vec<IpAddr>, gateways: Vec<IpAddr>, mut random: Random) -> Self {
        let handle = Handle::new(LaneId(0), 1);
        let settings = tcp::Settings {
            connections_max: CONNECTIONS_MAX,
            // All that come, come from the one thing that is loaded.
            source_half_open_max: None,
            mtu: queue.port().mtu,
            ..tcp::Settings::default()
        };
        let port = link::Settings {
            mac: queue.port().mac,
            addresses: vec![address],
            virtual_addresses: more,
            gateways,
            neighbours_max: NEIGHBOURS_MAX,
            pending_max: PENDING_MAX,
        };
        let steering = Steering::between(1).remove(0);
        let mut station = Station::new(&handle, steering, vec![queue], settings, random.fork());
        station.configure(vec![port]);
        Self { station, reached: None }
    }

    /// The same with clients whose ports are such that all of their frames are one lane's of what is loaded, which has so many.
    ///
    /// # Panics
    /// When there are no lanes.
    #[must_use]
    pub fn reaching(self, lane: LaneId, lanes: u16) -> Self {
        assert!(lanes > 0, "something without lanes is reached by nobody");
        Self { reached: Some((lane, lanes)), ..self }
    }

    fn reaches(&self, connection: ConnectionId) -> bool {
        let Some((lane, lanes)) = self.reached else { return true };
        self.station.stack.flow(connection).is_some_and(|flow| rss::lane_of(&flow.reversed(), lanes) == lane)
    }
}

impl<Q: QueuePair> Transport for Packets<Q> {
    type Connection = ConnectionId;

    fn listen(&mut self, local: SocketAddr, token: Token) -> io::Result<()> {
        self.station.stack.listen(local, token).map_err(|_| io::ErrorKind::AddrInUse.into())
    }

    fn connect(
        &mut self,
        from: Option<IpAddr>,
        to: SocketAddr,
        token: Token,
        now: Instant,
    ) -> Result<ConnectionId, NoConnection> {
        for _ in 0..TRIES_MAX {
            let connection = match from {
                Some(from) => self.station.open_connection_from(from, to, token, now),
                None => self.station.open_connection(to, token, now),
            }?;
            if self.reaches(connection) {
                return Ok(connection);
            }
            // Nothing of it has been sent.
            self.station.stack.abort(connection, now);
        }
        Err(NoConnection::NoResources)
    }

    fn receive(&mut self, now: Instant) -> bool {
        let received = self.station.receive(now);
        let due = self.station.poll_at().is_some_and(|at| at <= now);
        if due {
            self.station.fire_timers(now);
        }
        received | due
    }

    fn poll_event(&mut self) -> Option<(ConnectionId, Token, Event)> {
        self.station.stack.poll_event()
    }

    fn transmit(&mut self, now: Instant) -> bool {
        self.station.transmit(now)
    }

    /// A NIC that is polled says nothing by itself.
    fn rest(&mut self, _: Duration) {}

    fn set_token(&mut self, connection: ConnectionId, token: Token) {
        self.station.stack.set_token(connection, token);
    }

    fn read(&mut self, connection: ConnectionId, now: Instant, take: &mut dyn FnMut(&[u8])) -> Taken {
        let len = match self.station.stack.readable(connection) {
            Readable::Data(bytes) => {
                take(bytes);
                bytes.len()
            }
            Readable::Empty => return Taken::Empty,
            Readable::Finished => return Taken::Finished,
        };
        self.station.stack.consume(connection, len, now);
        Taken::Some
    }

    fn write(&mut self, connection: ConnectionId, parts: &[IoSlice<'_>], now: Instant) -> usize {
        let mut taken = 0;
        for part in parts {
            let some = self.station.stack.write(connection, part, now);
            taken += some;
            if some < part.len() {
                break;
            }
        }
        taken
    }

    fn shutdown(&mut self, connection: ConnectionId, now: Instant) {
        self.station.stack.shutdown(connection, now);
    }

    fn abort(&mut self, connection: ConnectionId, now: Instant) {
        self.station.stack.abort(connection, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::memory;
    use crate::sim::host::mac;

    #[test]
    fn clients_that_are_to_reach_one_lane_reach_no_other() {
        for lane in [LaneId(0), LaneId(2)] {
            let (mut queues, _wire) = memory::port(1, mac(1), 1500);
            let address = "198.18.0.1/24".parse().unwrap();
            let packets = Packets::new(queues.remove(0), address, Vec::new(), Vec::new(), Random::from_seed(1));
            let mut packets = packets.reaching(lane, 3);
            let service = "198.18.0.10:443".parse().unwrap();
            for _ in 0..100 {
                let connection = packets.connect(None, service, Token(0), Instant::START).unwrap();
                let flow = packets.station.stack.flow(connection).unwrap();
                assert_eq!(rss::lane_of(&flow.reversed(), 3), lane);
            }
        }
    }
}
