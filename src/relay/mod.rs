//! Joins a client's TLS session to a TCP connection to its server, with back-pressure both ways.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::{Duration, ServiceId};

/// A virtual service of a configuration snapshot, as one lane uses it.
#[derive(Clone, Debug)]
pub struct Service {
    /// Stable identity.
    pub id: ServiceId,
    /// Name in the configuration.
    pub name: String,
    /// Where clients connect.
    pub addresses: Vec<SocketAddr>,
    /// Its TLS side, which also knows its pool and persistence profile.
    pub tls: Arc<crate::tls::Service>,
    /// The PROXY protocol header that its servers expect.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Times after which it gives up.
    pub timeouts: Timeouts,
}

/// Versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// A binary header.
    V2,
}

/// Times after which a service gives up on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the client's SYN to the end of the TLS handshake.
    pub handshake: Duration,
    /// From our SYN to the server's.
    pub connect: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
    /// After one side has closed, without a byte from the other.
    pub half_closed: Duration,
}

crate::counters! {
    /// What a lane counts of its relayed connections.
    pub struct Counters {
        /// Connections accepted from clients
        counter accepted,
    }
}
