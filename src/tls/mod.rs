//! TLS as a machine of bytes over rustls, and the only place where rustls meets tickets.
//!
//! Drive a [`Session`] so: give it ciphertext with [`Session::on_data`], let it work with [`Session::advance`] (a handshake step costs some
//! 100 µs: call it from a run queue), take its messages with [`Session::poll_transmit`] and plaintext with [`Session::plaintext`]; what is for the client goes through
//! [`Session::seal`]. The engine as a client of servers is [`client`].

pub mod certificate;
mod channel;
pub mod cipher;
pub mod client;
pub mod clients;
pub mod desk;
pub mod failure;
mod input;
mod messages;
mod notes;
pub mod provider;
mod record;
pub mod revocation;
pub mod secrets;
pub mod service;
pub mod session;
pub mod subject;
pub mod ticketer;
mod turn;

pub use clients::{Client, ClientCertificates};
pub use desk::Desk;
pub use failure::{ClientFault, Failure};
pub use service::{Service, Versions};
pub use session::{Handshake, Progress, Session};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
