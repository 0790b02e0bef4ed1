//! What lanes share without locks, over loom's atomics in place of the processor's: the same files as the engine's.

#![allow(missing_docs, dead_code, reason = "documented and used where they are the engine's")]

#[path = "."]
pub mod base {
    //! As much of the engine's `base` as these files name.

    pub mod atomic {
        //! The one place where atomics are named.

        pub use loom::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
    }

    #[path = "../../../src/base/counter.rs"]
    pub mod counter;
    #[path = "../../../src/base/identity.rs"]
    pub mod identity;

    pub use std::time::Duration;

    pub use counter::Counter;
    pub use identity::LaneId;
}

#[path = "."]
pub mod balance {
    //! As much of the engine's `balance`.

    #[path = "../../../src/balance/board.rs"]
    pub mod board;
    #[path = "../../../src/balance/evidence.rs"]
    pub mod evidence;
    #[path = "../../../src/balance/loads.rs"]
    pub mod loads;
    #[path = "../../../src/balance/traffic.rs"]
    pub mod traffic;

    pub use board::{Board, Health, Share, Slot};
    pub use evidence::{Evidence, Outcome};
    pub use loads::{LaneLoads, Loads};
    pub use traffic::{Fault, Traffic};

    /// What the loads look at of a server.
    pub struct Server {
        pub slot: Slot,
        pub max_connections: Option<u32>,
    }

    /// What the loads look at of a pool.
    pub struct Pool {
        pub servers: Vec<Server>,
    }
}
