//! Joins a client's TLS session to a connection to its server, in plain or in TLS again, with back-pressure both ways.
//!
//! A [`Relay`] is one such connection. Drive it so: tell it what happened to its legs with [`Relay::on_event`], then let it
//! [`work`](Relay::work) until it says [`Next::Wait`]; call [`Relay::on_timeout`] when [`Relay::deadline`] has come. It opens no
//! connection itself: it asks with [`Next::Connect`].

pub mod counters;
pub mod end;
pub mod legs;
pub mod proxy;
pub mod pump;
mod server_leg;
pub mod service;
pub mod tally;

mod patience;
mod timing;

pub use counters::Counters;
pub use end::{Doer, End};
pub use legs::{Next, Relay, Side};
pub use proxy::ProxyProtocol;
pub use service::{Service, Timeouts};
pub use tally::Tally;
pub use timing::Times;
