//! What a load does.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use crate::base::Duration;
use crate::load::Arrivals;

/// What each client does, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// A connection with a full handshake, one request, its answer
    Full,
    /// The same with a resumed handshake, after one full handshake a client
    Resumed,
    /// Requests, one after the other, over a connection that is kept
    Requests,
    /// The same, counted in bytes of answers
    Download,
    /// The same with bytes in the requests
    Upload,
    /// A connection that is opened, used once and held until the end
    Idle,
}

impl Mode {
    /// Whether a connection ends with its first answer.
    pub(super) fn is_one_request(self) -> bool {
        matches!(self, Self::Full | Self::Resumed)
    }
}

/// What to do, to whom and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What each client does.
    pub mode: Mode,
    /// The service that is loaded.
    pub service: SocketAddr,
    /// Where clients come from, in turn; empty for the transport's choice.
    pub sources: Vec<IpAddr>,
    /// Clients, each with at most one connection.
    pub connections: usize,
    /// Clients that come a second, each at its time; without, each comes again as soon as it has been served.
    pub rate: Option<NonZeroU32>,
    /// How those come.
    pub arrivals: Arrivals,
    /// How long the service may take to give its first answer, before anything is counted.
    pub patience: Duration,
    /// How long load is made before anything is timed.
    pub warm_up: Duration,
    /// How long is timed.
    pub duration: Duration,
    /// How long a connection may get no further before it has failed.
    pub timeout: Duration,
    /// Bytes of an answer, or of an upload's request.
    pub bytes: u64,
    /// Addresses to answer on.
    pub serve: Vec<SocketAddr>,
    /// Whether to report rates however much fails.
    pub allow_failures: bool,
    /// Whether to say once a second, on standard error, how it goes.
    pub progress: bool,
}
