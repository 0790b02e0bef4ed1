//! A virtual service, as one lane uses it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::{Duration, ServiceId};
use crate::relay::{ProxyProtocol, Tally};

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
    /// What this lane counts of it.
    pub tally: Arc<Tally>,
}

/// Times after which a service gives up on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the accepted connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From our SYN to the server's.
    pub connect: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
    /// After one side has closed, without a byte from the other.
    pub half_closed: Duration,
}
