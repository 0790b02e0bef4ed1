//! A deterministic world: engines with their real lanes, clients and servers with the same TCP, and a network that loses, delays,
//! duplicates and reorders; a seed in, a trace out, no clock and no thread.
//!
//! [`World`] is the way in: build one from a seed, let clients [`visit`](World::visit), stop and start servers, rotate keys, and look at where the
//! visits went. What the seed does not decide is the bytes of TLS, as rustls draws its own randomness; lengths and times follow from the seed.
//!
//! [`pair`] is a world of its own: two hosts with nothing but TCP, small enough to live through ten thousand of them in half a minute.

pub mod client;
pub mod clock;
pub mod engine;
pub mod host;
pub mod network;
pub mod outcome;
pub mod pair;
pub mod router;
pub mod server;
pub mod spread;
mod watch;
pub mod world;

pub use engine::Identity;
pub use network::Conditions;
pub use outcome::{Outcome, Visit};
pub use router::Narrow;
pub use server::Reencryption;
pub use world::{Setup, World};

#[cfg(test)]
mod tests;
