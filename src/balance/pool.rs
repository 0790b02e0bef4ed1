//! A pool and its servers, as the configuration names them.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::balance::{Failover, Maglev, Sharing, Slot};
use crate::base::{Duration, Generation, PoolId, ServerId};

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
    /// The one of two, drawn by ratio, that has fewer connections for its ratio.
    PowerOfTwo,
    /// Drawn by ratio.
    Random,
    /// In turn, by ratio and by how fast a server answers.
    Fastest,
    /// By the client's address, the same on every lane and engine.
    ConsistentHash,
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
    /// What the operator lets it be used for.
    pub state: State,
    /// Most connections at once, over all lanes.
    pub max_connections: Option<u32>,
    /// Its place on the health board and in the loads.
    pub slot: Slot,
}

/// What the operator lets a server be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Everything.
    #[default]
    Enabled,
    /// Its open connections end by themselves or at a timeout, and it gets no new clients.
    Draining(Draining),
    /// Nothing. Connections that are open are reset.
    Disabled,
}

/// How a server is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    /// Who may still connect to it.
    pub admission: Admission,
    /// When connections that are still open are reset, from when the lane learned of the drain; `None`: never.
    pub timeout: Option<Duration>,
}

/// Who may still connect to a server that is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Nobody.
    #[default]
    DisallowNew,
    /// Its persisted clients, until the drain times out.
    AllowPersisted,
}

impl Server {
    /// Its ratio as a weight to count with, never zero.
    pub(super) fn weight(&self) -> u8 {
        self.ratio.clamp(1, RATIO_MAX)
    }
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
    /// How long another engine's word that a server is up counts against this one's that it is down: until both have looked again. Zero where there is no other.
    pub disagreement_max: Duration,
    /// What it does when its servers fail.
    pub failover: Failover,
    /// Whether its servers are spoken to in TLS.
    pub is_secured: bool,
    /// Who may still connect to a server that says that it is in maintenance.
    pub drain_admission: Admission,
    /// What lowers its servers' shares.
    pub sharing: Sharing,
    /// The servers, at most [`SERVERS_MAX`]. Not to be changed once the pool is made: [`find`](Self::find) would not follow.
    pub servers: Vec<Server>,
    /// Where clients belong by their address, where the algorithm is [`Algorithm::ConsistentHash`].
    table: Option<Arc<Maglev>>,
    /// Where each incarnation stands, sorted.
    index: Vec<(ServerId, Generation, ServerIndex)>,
}

/// The highest ratio. A higher one counts as this.
pub const RATIO_MAX: u8 = 20;

/// Most servers of one pool.
pub const SERVERS_MAX: usize = 65_535;

impl Pool {
    /// A pool of `servers`. Of two servers with the same identity and generation only the first can be found by a mapping.
    ///
    /// # Panics
    /// When there are more than [`SERVERS_MAX`] servers: the configuration is to refuse them.
    pub fn new(id: PoolId, name: String, algorithm: Algorithm, servers: Vec<Server>) -> Self {
        Self::after(None, id, name, algorithm, servers)
    }

    /// The same where a table of before may still hold: making one goes through all of its entries, some of them often.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn after(
        table: Option<&Arc<Maglev>>,
        id: PoolId,
        name: String,
        algorithm: Algorithm,
        servers: Vec<Server>,
    ) -> Self {
        assert!(servers.len() <= SERVERS_MAX, "a pool has {} servers, more than {SERVERS_MAX}", servers.len());
        let mut index: Vec<_> = (0..=u16::MAX)
            .map(ServerIndex)
            .zip(&servers)
            .map(|(at, server)| (server.id, server.generation, at))
            .collect();
        index.sort_unstable();
        index.dedup_by_key(|(id, generation, _)| (*id, *generation));
        let table = (algorithm == Algorithm::ConsistentHash).then(|| Maglev::after(table, &servers));
        Self {
            id,
            name,
            algorithm,
            disagreement_max: Duration::ZERO,
            drain_admission: Admission::default(),
            failover: Failover::default(),
            is_secured: false,
            sharing: Sharing::default(),
            servers,
            table,
            index,
        }
    }

    /// The same pool in a cluster of engines whose monitors look at servers this often.
    #[must_use]
    pub fn looked_at_every(self, interval: Duration) -> Self {
        Self { disagreement_max: interval, ..self }
    }

    /// The same pool, which does this when its servers fail.
    #[must_use]
    pub fn failing_over(self, failover: Failover) -> Self {
        Self { failover, ..self }
    }

    /// The same pool, whose servers are spoken to in TLS.
    #[must_use]
    pub fn secured(self) -> Self {
        Self { is_secured: true, ..self }
    }

    /// The same pool, whose servers' shares these lower.
    #[must_use]
    pub fn sharing(self, sharing: Sharing) -> Self {
        Self { sharing, ..self }
    }

    /// The table of where clients belong by their address, for [`after`](Self::after).
    pub fn table(&self) -> Option<&Arc<Maglev>> {
        self.table.as_ref()
    }

    /// The same pool with servers in maintenance to which these may connect.
    #[must_use]
    pub fn drained_for(self, drain_admission: Admission) -> Self {
        Self { drain_admission, ..self }
    }

    /// The server at `index`, if this snapshot has it.
    pub fn server(&self, index: ServerIndex) -> Option<&Server> {
        self.servers.get(usize::from(index.0))
    }

    /// Where the server that a mapping names stands in this snapshot; `None` when it was removed or another incarnation stands
    /// there, which is the same to a mapping. Costs a binary search.
    pub fn find(&self, id: ServerId, generation: Generation) -> Option<ServerIndex> {
        let at = self.index.binary_search_by_key(&(id, generation), |(id, generation, _)| (*id, *generation)).ok()?;
        self.index.get(at).map(|(_, _, index)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::{pool, server};

    #[test]
    fn every_server_of_thousands_is_found_where_it_stands() {
        // Identities are hashes, so they come in no order.
        let servers: Vec<_> = (0..5000u64)
            .map(|n| Server { id: ServerId(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), ..server(0, 1) })
            .collect();
        let pool = Pool::new(PoolId(1), "many".into(), Algorithm::RoundRobin, servers);
        for (at, server) in (0..).map(ServerIndex).zip(&pool.servers) {
            assert_eq!(pool.find(server.id, server.generation), Some(at));
            assert_eq!(pool.server(at).unwrap().id, server.id);
        }
    }

    #[test]
    fn another_incarnation_and_a_stranger_are_not_found() {
        let pool = pool(Algorithm::RoundRobin, &[1, 1]);
        let Server { id, generation: Generation(generation), .. } = pool.servers[1];
        assert_eq!(pool.find(id, Generation(generation)), Some(ServerIndex(1)));
        assert_eq!(pool.find(id, Generation(generation + 1)), None);
        assert_eq!(pool.find(ServerId(u64::MAX), Generation(generation)), None);
        assert!(pool.server(ServerIndex(2)).is_none());
    }

    #[test]
    fn two_incarnations_side_by_side_are_told_apart() {
        let old = server(0, 1);
        let new = Server { generation: Generation(old.generation.0 + 1), slot: Slot(1), ..old.clone() };
        let pool = Pool::new(PoolId(1), "p".into(), Algorithm::RoundRobin, vec![new.clone(), old.clone()]);
        assert_eq!(pool.find(new.id, new.generation), Some(ServerIndex(0)));
        assert_eq!(pool.find(old.id, old.generation), Some(ServerIndex(1)));
    }

    #[test]
    fn an_empty_pool_finds_nothing() {
        assert_eq!(pool(Algorithm::RoundRobin, &[]).find(ServerId(0), Generation(0)), None);
    }

    #[test]
    #[should_panic(expected = "more than 65535")]
    fn more_servers_than_an_index_can_name_are_a_programmers_error() {
        Pool::new(PoolId(1), "p".into(), Algorithm::RoundRobin, vec![server(0, 1); SERVERS_MAX + 1]);
    }
}
