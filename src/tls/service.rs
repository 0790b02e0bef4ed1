//! The TLS side of a virtual service: certificates, versions, ciphers, ALPN and tickets, made into a rustls configuration.

use std::sync::Arc;

use crate::balance::{Board, Pool};
use crate::base::Duration;
use crate::persistence::Profile;
use crate::ticket::Scope;

/// Protocol versions that a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// TLS 1.3 only.
    Tls13,
    /// TLS 1.3 and 1.2.
    Tls12And13,
}

/// How a service issues and honours tickets.
#[derive(Clone, Debug)]
pub struct Tickets {
    /// Where its tickets are valid.
    pub scope: Scope,
    /// How many a TLS 1.3 handshake issues, 0 to 6 (RFC 9149).
    pub count: usize,
    /// Whether TLS 1.2 sessions get and resume by tickets.
    pub tls12: bool,
    /// How long a ticket is honoured.
    pub lifetime: Duration,
    /// How long after its full handshake a TLS 1.3 session is resumed at most.
    pub session_max: Duration,
    /// The same for TLS 1.2, where every resumption reuses one master secret: two rotation periods.
    pub session_max_tls12: Duration,
}

/// What a service is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Certificate chains with their keys, PEM. The first is the default for an unknown server name.
    pub certificates: Vec<Arc<super::certificate::Certificate>>,
    /// Refuse a handshake for a server name that no certificate covers, instead of showing the default one.
    pub strict_sni: bool,
    /// Protocol versions.
    pub versions: Versions,
    /// Cipher suites by their IANA names, in order of preference; empty for the default.
    pub ciphers: Vec<String>,
    /// Application protocols, in order of preference; empty for none.
    pub alpn: Vec<Vec<u8>>,
    /// Tickets.
    pub tickets: Tickets,
    /// Where a client may go.
    pub pool: Arc<Pool>,
    /// How it comes back, if it does.
    pub profile: Option<Arc<Profile>>,
    /// Which servers are up.
    pub board: Arc<Board>,
}

/// A virtual service's TLS, ready to accept. One instance a lane, so that lanes share no reference count.
#[derive(Debug)]
pub struct Service {}

impl Service {
    /// Makes a service.
    ///
    /// # Errors
    /// [`Invalid`] says what is wrong with the settings.
    pub fn new(settings: Settings) -> Result<Self, Invalid> {
        let _ = settings;
        todo!()
    }

    /// The pool that its clients go to.
    pub fn pool(&self) -> &Arc<Pool> {
        todo!()
    }

    /// Which servers are up.
    pub fn board(&self) -> &Arc<Board> {
        todo!()
    }
}

/// What is wrong with a service's settings.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// No certificate was given.
    #[error("there is no certificate")]
    NoCertificate,
    /// Not a cipher suite, or not one that is offered.
    #[error("there is no cipher suite {name:?}; choose from {available}")]
    Cipher {
        /// What was asked for.
        name: String,
        /// Every name that works, separated by commas.
        available: String,
    },
    /// The cipher suites leave a protocol version without any.
    #[error("no cipher suite is left for TLS {0}")]
    NoCipher(&'static str),
}
