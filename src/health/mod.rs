//! Health monitors: probes over a lane's own TCP. Their verdicts go to the health board.
//!
//! A [`Monitors`] is sans-IO: drain [`Monitors::poll_probe`] and open those connections; tell it what becomes of each with `on_*`, and drain
//! [`Monitors::poll_transmit`] after that; call [`Monitors::on_timeout`] when [`Monitors::poll_at`] has come. One lane runs the monitors of the whole engine.
//!
//! A server is probed when its pool has a monitor and the operator has not disabled it; all others are
//! [`Unknown`](crate::balance::Health::Unknown) on the board, which is usable. Each monitor of its pool looks at it by itself: it sends its first probe within a
//! second, and that one decides alone; from then on it takes the monitor's number of equal results in a row to change the monitor's mind. The server is up
//! when as many monitors find it up as its pool asks for, all of them unless told otherwise.
//!
//! A server that says itself that it is in maintenance is drained: it gets no new clients, and those that are persisted to it come or go as its pool's drains say.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::balance::{Health, Pool, Slot};
use crate::base::Duration;
use crate::tls::client::Failure;

mod checks;
mod monitors;
pub mod probe;
mod streak;
#[cfg(test)]
mod tests;

pub use monitors::{Monitors, PROBES_MAX, TIMERS_MAX};
pub use probe::{Secure, http, tcp};

/// Most monitors of one pool.
pub const MONITORS_MAX: usize = 8;

/// A pool and how its servers are looked at.
#[derive(Clone, Debug)]
pub struct MonitoredPool {
    /// The pool.
    pub pool: Arc<Pool>,
    /// Its monitors, at most [`MONITORS_MAX`], each by its own name; none if it is not monitored.
    pub monitors: Vec<Arc<Monitor>>,
    /// How many of them must find a server up for it to be up. Taken as one where it is less, and as all where it is more.
    pub monitors_up_min: usize,
}

impl MonitoredPool {
    /// A pool that nobody looks at.
    pub fn unmonitored(pool: Arc<Pool>) -> Self {
        Self { pool, monitors: Vec::new(), monitors_up_min: 0 }
    }

    /// A pool all of whose monitors must find a server up.
    pub fn by_all(pool: Arc<Pool>, monitors: Vec<Arc<Monitor>>) -> Self {
        Self { monitors_up_min: monitors.len(), pool, monitors }
    }
}

/// A monitor of the configuration. Times below a millisecond and counts below one are taken as these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Name in the configuration.
    pub name: String,
    /// What it asks.
    pub kind: Kind,
    /// How it speaks TLS, if it does.
    pub tls: Option<Secure>,
    /// What a server says in an answer when it is in maintenance; empty: nothing does.
    pub maintenance_text: Arc<[u8]>,
    /// Where it looks, if that is not the server's own port.
    pub port: Option<u16>,
    /// Time between two probes of one server.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Successes in a row that bring a server up.
    pub successful_checks: u32,
    /// Failures in a row that take it down.
    pub failed_checks: u32,
}

/// What a monitor asks of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection, and maybe an answer on it.
    Tcp(tcp::Settings),
    /// An answer by HTTP.
    Http(Arc<http::Settings>),
    /// An echo.
    Ping,
}

/// What a probe that asks for an echo says, and must hear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ping {
    /// Sequence number.
    pub sequence: u16,
    /// Random bits, and which probe it is.
    pub token: u64,
}

impl Monitor {
    /// One that connects, at the times that a configuration has when it does not say others.
    pub fn connect(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: Kind::Tcp(tcp::Settings::default()),
            tls: None,
            maintenance_text: Arc::default(),
            port: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(4),
            successful_checks: 2,
            failed_checks: 2,
        }
    }

    /// Where it looks at a server with this address.
    pub fn target(&self, server: SocketAddr) -> SocketAddr {
        SocketAddr::new(server.ip(), self.port.unwrap_or(server.port()))
    }
}

/// Names one probe under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProbeId(pub u32);

/// Something for the lane to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Open a connection to this address.
    Connect(ProbeId, SocketAddr),
    /// Ask this address for an echo.
    Ping(ProbeId, IpAddr, Ping),
    /// The probe is over: abort its connection if it is still there.
    Abandon(ProbeId),
}

/// What a server has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// That it is well.
    Normal,
    /// That it is in maintenance.
    Maintenance,
}

/// Why a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Cause {
    /// The server answered with a reset.
    #[error("refused")]
    Refused,
    /// No connection in time.
    #[error("timed out")]
    TimedOut,
    /// A connection, and no whole answer in time.
    #[error("no answer in time")]
    NoAnswer,
    /// The server ended the connection before its answer was whole.
    #[error("closed")]
    Closed,
    /// An answer of a code that is not right.
    #[error("wrong code {0}")]
    WrongCode(u16),
    /// An answer without the text.
    #[error("text missing")]
    TextMissing,
    /// An answer that is no HTTP/1.1, or whose head is too long.
    #[error("not HTTP")]
    NotHttp,
    /// No TLS session came about, or it broke.
    #[error("TLS: {}", .0.name())]
    Tls(Failure),
    /// No route, no neighbour, or an ICMP error.
    #[error("unreachable")]
    Unreachable,
    /// The engine had no port or table entry left for the probe. That says nothing of the server: it changes no verdict.
    #[error("no resources")]
    NoResources,
}

/// What a probe came to.
pub type Outcome = Result<Answer, Cause>;

/// What the monitors think of a server, whenever that has changed: for the log, and for whoever asks why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Pool by name.
    pub pool: String,
    /// Server by name.
    pub server: String,
    /// Its place on the board.
    pub slot: Slot,
    /// What the board says.
    pub health: Health,
    /// What it said in the verdict before this one.
    pub before: Health,
    /// For how long it has said so.
    pub lasted: Duration,
    /// What each monitor of the pool has found.
    pub findings: Vec<Finding>,
}

/// What one monitor has found out about a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Monitor by name.
    pub monitor: String,
    /// What it thinks of the server.
    pub health: Health,
    /// What its last probe came to; `None` before the first has ended.
    pub last: Option<Outcome>,
    /// For how long its probes have come to that.
    pub lasted: Duration,
}

impl Verdict {
    /// The monitors whose last probe did not find the server well, with what each has found, for a person.
    pub fn reasons(&self) -> String {
        let reason = |finding: &Finding| match finding.last? {
            Ok(Answer::Normal) => None,
            Ok(Answer::Maintenance) => Some(format!("{}: maintenance", finding.monitor)),
            Err(cause) => Some(format!("{}: {cause}", finding.monitor)),
        };
        self.findings.iter().filter_map(reason).collect::<Vec<_>>().join(", ")
    }
}

crate::counters! {
    /// What the health monitors count.
    pub struct Counters {
        /// Probes begun
        counter probes,
        /// Probes that had to wait because too many were under way
        counter probes_delayed,
        /// Probes that were answered well
        counter successes,
        /// Probes that were answered by a server in maintenance
        counter maintenances,
        /// Probes that were answered with a reset
        counter failures_refused,
        /// Probes without a connection in time
        counter failures_timed_out,
        /// Probes with a connection, and without a whole answer in time
        counter failures_no_answer,
        /// Probes whose connection the server ended before its answer was whole
        counter failures_closed,
        /// Probes that were answered with a wrong code
        counter failures_code,
        /// Probes whose answer lacked the text
        counter failures_text,
        /// Probes that were answered by something else than HTTP
        counter failures_not_http,
        /// Probes that failed in TLS
        counter failures_tls,
        /// Probes that found no way to the server
        counter failures_unreachable,
        /// Probes that found no port or table entry in the engine
        counter failures_no_resources,
        /// Probes given up because their server or monitor left the configuration, changed or was disabled
        counter probes_dropped,
        /// Answers to probes that were over
        counter answers_late,
        /// Servers that came up
        counter went_up,
        /// Servers that went down
        counter went_down,
        /// Servers that went into maintenance
        counter went_into_maintenance,
        /// Servers that are up
        gauge servers_up,
        /// Servers that are in maintenance
        gauge servers_in_maintenance,
        /// Servers that are down
        gauge servers_down,
        /// Servers that are monitored and have no verdict yet
        gauge servers_unknown,
        /// Probes under way
        gauge probes_running,
        /// Probes that wait for others to end
        gauge probes_waiting,
    }
}
