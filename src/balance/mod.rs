//! Pools: which servers there are, which of them are up, and which one the next client gets.
//!
//! A [`Pool`] is an immutable part of a configuration snapshot. A [`Board`] outlives snapshots: one writer publishes each server's health and
//! all lanes read it without locks. A [`Balancer`] is one lane's own state for one pool. [`Loads`] counts connections a server, one row a lane.
//! [`Slots`] is control's: it gives each server incarnation its place on the board and in the loads.

pub mod balancer;
pub mod board;
pub mod loads;
pub mod pool;
pub mod slots;

pub use balancer::Balancer;
pub use board::{Board, Health, Slot};
pub use loads::Loads;
pub use pool::{Algorithm, Pool, Server, ServerIndex};
pub use slots::{Slots, SlotsFull};

#[cfg(test)]
pub(crate) mod testing {
    //! Pools for tests.

    use super::{Algorithm, Pool, Server, Slot};
    use crate::base::{Generation, PoolId, ServerId};

    /// The `n`th server: its identity, address and slot follow from `n`.
    pub(crate) fn server(n: u16, ratio: u8) -> Server {
        Server {
            id: ServerId(1000 - u64::from(n)),
            generation: Generation(7),
            name: format!("s{n}"),
            address: ([198, 18, 1, 1], 8000 + n).into(),
            ratio,
            enabled: true,
            slot: Slot(u32::from(n)),
        }
    }

    /// A pool of one server for each ratio.
    pub(crate) fn pool(algorithm: Algorithm, ratios: &[u8]) -> Pool {
        let servers = (0..).zip(ratios).map(|(n, &ratio)| server(n, ratio)).collect();
        Pool::new(PoolId(1), "pool".into(), algorithm, servers)
    }
}
