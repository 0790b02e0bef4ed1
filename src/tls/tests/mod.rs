//! Sessions between our service and rustls's client: see [`super::testing`].

mod certificates;
mod clients;
mod handshakes;
mod keys;
mod records;
mod tickets;
