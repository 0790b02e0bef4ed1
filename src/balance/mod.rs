//! Pools: which servers there are, which of them are up, and which one the next client gets.
//!
//! A [`Pool`] is an immutable part of a configuration snapshot. A [`Board`] outlives snapshots: one writer publishes each server's health and
//! all lanes read it without locks. A [`Balancer`] is one lane's own state for one pool. [`Loads`] counts connections a server, one row a lane.

pub mod balancer;
pub mod board;
pub mod loads;
pub mod pool;

pub use balancer::Balancer;
pub use board::{Board, Health, Slot};
pub use loads::Loads;
pub use pool::{Algorithm, Pool, Server, ServerIndex};
