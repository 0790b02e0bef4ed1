//! Connections that the engine opens itself: to servers, for clients and for health probes.

use std::net::{IpAddr, SocketAddr};

use crate::base::{Flow, Instant};
use crate::lane::Station;
use crate::nic::{QueuePair, rss};
use crate::tcp::{ConnectionId, Refused, Token};

/// First of the source ports towards servers: IANA's dynamic ports (RFC 6335 6) and some below, as Linux does.
const PORT_MIN: u16 = 16_384;

/// Most source ports that are tried for one connection before the engine gives up: with a table that is nearly full, more would only cost time.
const PORTS_TRIED_MAX: usize = 64;

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoConnection {
    /// No port has a route to the server.
    NoRoute,
    /// No table entry or source port is free.
    NoResources,
}

impl<Q: QueuePair> Station<Q> {
    /// Opens a connection whose replies arrive on this lane.
    ///
    /// # Errors
    /// [`NoConnection`] says why there is none.
    pub fn open_connection(
        &mut self,
        remote: SocketAddr,
        token: Token,
        now: Instant,
    ) -> Result<ConnectionId, NoConnection> {
        let port = self.way_to(remote.ip(), None).and_then(|port| self.ports.get(port));
        let source = port.and_then(|port| port.link.source_for(remote.ip()));
        self.open_connection_from(source.ok_or(NoConnection::NoRoute)?, remote, token, now)
    }

    /// The same from an address of the caller's choice, one that a port answers for.
    ///
    /// # Errors
    /// [`NoConnection`] says why there is none.
    pub fn open_connection_from(
        &mut self,
        local: IpAddr,
        remote: SocketAddr,
        token: Token,
        now: Instant,
    ) -> Result<ConnectionId, NoConnection> {
        let span = u64::from(u16::MAX - PORT_MIN) + 1;
        let start = PORT_MIN + u16::try_from(self.random.below(span)).expect("the span has 16 bits");
        let ports = rss::local_ports_for(self.id, self.steering.lanes(), remote, local, start);
        for port in ports.take(PORTS_TRIED_MAX) {
            match self.stack.connect(Flow::new(SocketAddr::new(local, port), remote), token, now) {
                Ok(connection) => return Ok(connection),
                Err(Refused::InUse) => {}
                Err(Refused::TableFull) => break,
            }
        }
        Err(NoConnection::NoResources)
    }
}
