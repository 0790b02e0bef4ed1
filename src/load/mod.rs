//! The load generator: clients, and the servers behind whatever they load, in one loop on one thread.
//!
//! A [`Generator`] keeps a number of simulated clients busy, over our own TCP on any [`nic`](crate::nic) or over kernel sockets: it knows a
//! [`Transport`] only. Call [`Generator::breath`] until [`Generator::is_over`], then ask for the [`Report`].
//!
//! - `plan`: what to do; `schedule`: when, if arrivals do not wait for answers.
//! - `clients`: who they are to rustls, each with a ticket store of its own; `visit`: one connection of one of them.
//! - `server`: answers what the visits ask for; `http`: the little HTTP that both speak, so that HTTP proxies can stand between them.
//! - `packets`, `kernel`: the two transports.
//! - `tally`, `report`: what is counted and timed, and how it is told; `windows`: the same window by window; `watch`: what the machine took of the time.
//! - `command`: `sealane load`.
//!
//! One core does all of this. What the clients wait for their own turn is in their latencies; [`Report::busy`] says how near that is.

mod clients;
pub mod command;
mod generator;
pub mod http;
mod kernel;
mod packets;
mod plan;
mod report;
mod schedule;
mod server;
mod tally;
#[cfg(test)]
mod tests;
mod transport;
mod visit;
mod watch;
mod windows;

pub use clients::{Cipher, Clients, Group, Identity, Invalid, Version};
pub use generator::Generator;
pub use kernel::Kernel;
pub use packets::Packets;
pub use plan::{Mode, Plan};
pub use report::{Latency, Report};
pub use schedule::Arrivals;
pub use tally::Failure;
pub use transport::{Taken, Transport};
pub use watch::Gaps;
pub use windows::MedianWindow;
