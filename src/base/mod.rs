//! Plain values that every module may name: time, flows, identities, randomness, counters.

pub mod atomic;
pub mod bucket;
pub mod counter;
pub mod flow;
pub mod histogram;
pub mod identity;
pub mod ledger;
pub mod piece;
pub mod random;
pub mod time;
pub mod wheel;

pub use bucket::Bucket;
pub use counter::Counter;
pub use flow::Flow;
pub use histogram::Histogram;
pub use identity::{EngineId, Generation, LaneId, PoolId, PortId, ServerId, ServiceId};
pub use ledger::Ledger;
pub use piece::Piece;
pub use random::Random;
pub use time::{Duration, Instant, UnixTime};
pub use wheel::{TimerId, Wheel};
