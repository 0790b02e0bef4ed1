//! A pool and its servers, as the configuration names them.

use std::net::SocketAddr;

use crate::balance::Slot;
use crate::base::{Generation, PoolId, ServerId};

/// A server's place in one snapshot of its pool. Never leaves the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerIndex(pub u16);

/// How a pool chooses the server of a client that has no mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// In turn, smoothly weighted by ratio.
    #[default]
    RoundRobin,
    /// The fewest connections for its ratio.
    LeastConnections,
}

/// One server of a pool.
#[derive(Clone, Debug)]
pub struct Server {
    /// Stable identity, as tickets carry it.
    pub id: ServerId,
    /// Incarnation, as tickets carry it.
    pub generation: Generation,
    /// Name in the configuration.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Share of new clients, 1 to 20.
    pub ratio: u8,
    /// Whether the operator lets it be used at all.
    pub enabled: bool,
    /// Its place on the health board and in the loads.
    pub slot: Slot,
}

/// A pool of servers.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Stable identity, as tickets carry it.
    pub id: PoolId,
    /// Name in the configuration.
    pub name: String,
    /// How to choose.
    pub algorithm: Algorithm,
    /// The servers, at most 65,535.
    pub servers: Vec<Server>,
}

impl Pool {
    /// The server at `index`, if this snapshot has it.
    pub fn server(&self, index: ServerIndex) -> Option<&Server> {
        self.servers.get(usize::from(index.0))
    }

    /// Where the server that a mapping names stands in this snapshot.
    pub fn find(&self, id: ServerId, generation: Generation) -> Option<ServerIndex> {
        let _ = (id, generation);
        todo!()
    }
}
