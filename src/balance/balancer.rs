//! One lane's choice of a server for a client that has no mapping.

use crate::balance::{Board, Loads, Pool, ServerIndex};

/// One lane's state for one pool. Made anew for each configuration snapshot.
#[derive(Debug)]
pub struct Balancer {}

impl Balancer {
    /// A balancer for `pool`. `lane` offsets the turn, so that lanes do not all begin with the same server.
    pub fn new(pool: &Pool, lane: crate::base::LaneId) -> Self {
        let _ = (pool, lane);
        todo!()
    }

    /// The server that the next new client would get; `None` when none is usable. Changes nothing: see [`commit`](Self::commit).
    pub fn peek(&self, pool: &Pool, board: &Board, loads: &Loads) -> Option<ServerIndex> {
        let _ = (pool, board, loads);
        todo!()
    }

    /// Notes that a new client was given `server`, which [`peek`](Self::peek) named.
    pub fn commit(&mut self, pool: &Pool, board: &Board, server: ServerIndex) {
        let _ = (pool, board, server);
        todo!()
    }
}
