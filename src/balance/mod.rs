//! Pools: which servers there are, which of them are up, and which one the next client gets.
//!
//! A [`Pool`] is an immutable part of a configuration snapshot. A [`Board`] outlives snapshots: one writer publishes each server's health and
//! all lanes read it without locks. [`Loads`] counts connections a server, one row a lane, and keeps the limits of those that have one; [`LaneLoads`] is one lane's hand on
//! it. A [`Backend`] is a pool as one lane uses it: it gives a client a place at a server. Its [`Balancer`] knows whose turn it is.
//! [`Slots`] is control's: it gives each server incarnation its place on the board and in the loads.

pub mod backend;
pub mod balancer;
pub mod board;
pub mod evidence;
pub mod failover;
pub mod loads;
pub mod maglev;
pub mod pool;
pub mod shares;
pub mod slots;
pub mod traffic;

mod draw;
mod turns;

pub use backend::{Backend, Outage, Standing};
pub use balancer::Balancer;
pub use board::{Board, Health, Share, Slot};
pub use evidence::{Evidence, Outcome};
pub use failover::{Failover, PoolDownAction};
pub use loads::{LaneLoads, Loads};
pub use maglev::Maglev;
pub use pool::{Admission, Algorithm, Draining, Pool, Server, ServerIndex, State};
pub use shares::{Ejection, Passive, Shares, Sharing};
pub use slots::{Slots, SlotsFull};
pub use traffic::{Fault, Traffic};

#[cfg(test)]
pub(crate) mod testing {
    //! Pools for tests.

    use super::{Algorithm, Pool, Server, Slot, State};
    use crate::base::{Generation, PoolId, ServerId};

    /// The `n`th server: its identity, address and slot follow from `n`.
    pub(crate) fn server(n: u16, ratio: u8) -> Server {
        Server {
            id: ServerId(1000 - u64::from(n)),
            generation: Generation(7),
            name: format!("s{n}"),
            address: ([198, 18, 1, 1], 8000 + n).into(),
            ratio,
            state: State::Enabled,
            max_connections: None,
            slot: Slot(u32::from(n)),
        }
    }

    /// A pool of one server for each ratio.
    pub(crate) fn pool(algorithm: Algorithm, ratios: &[u8]) -> Pool {
        let servers = (0..).zip(ratios).map(|(n, &ratio)| server(n, ratio)).collect();
        Pool::new(PoolId(1), "pool".into(), algorithm, servers)
    }
}
