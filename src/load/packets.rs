//! Connections over our own TCP: a station on one port.

use std::io;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::base::{Duration, Instant, LaneId, Random};
use crate::lane::{Handle, NoConnection, Station, Steering};
use crate::link;
use crate::load::{Taken, Transport};
use crate::nic::QueuePair;
use crate::tcp::{self, ConnectionId, Event, Readable, Token};

/// Most connections, clients' and servers' together: a million idle ones, both ends.
const CONNECTIONS_MAX: usize = 1 << 21;

/// Neighbours that a load has: the engines and a router.
const NEIGHBOURS_MAX: usize = 64;

/// Packets that wait for one of them: the first SYNs of a run.
const PENDING_MAX: usize = 256;

/// Our own TCP over a queue.
pub struct Packets<Q: QueuePair> {
    station: Station<Q>,
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
        Self { station }
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
        match from {
            Some(from) => self.station.open_connection_from(from, to, token, now),
            None => self.station.open_connection(to, token, now),
        }
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
