//! Health monitors: probes over a lane's own TCP. Their verdicts go to the health board.
//!
//! A [`Monitors`] is sans-IO: drain [`Monitors::poll_probe`] and open those connections; tell it how each ended with `on_*`;
//! call [`Monitors::on_timeout`] when [`Monitors::poll_at`] has come. One lane runs the monitors of the whole engine.
//!
//! A server is probed when its pool has a monitor and the operator has not disabled it; all others are
//! [`Unknown`](crate::balance::Health::Unknown) on the board, which is usable. Each monitor of its pool looks at it by itself: it sends its first probe within a
//! second, and that one decides alone; from then on it takes the monitor's number of equal results in a row to change the monitor's mind. The server is up
//! when as many monitors find it up as its pool asks for, all of them unless told otherwise.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::balance::{Health, Pool, Slot};
use crate::base::Duration;

mod checks;
mod monitors;
mod streak;
#[cfg(test)]
mod tests;

pub use monitors::{Monitors, PROBES_MAX, TIMERS_MAX};

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

/// A TCP connect monitor of the configuration. Times below a millisecond and counts below one are taken as these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Name in the configuration.
    pub name: String,
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

impl Monitor {
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
    /// The probe is over: abort its connection if it is still there.
    Abandon(ProbeId),
}

/// Why a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Cause {
    /// The server answered with a reset.
    #[error("refused")]
    Refused,
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// No route, no neighbour, or an ICMP error.
    #[error("unreachable")]
    Unreachable,
    /// The engine had no port or table entry left for the probe. That says nothing of the server: it changes no verdict.
    #[error("no resources")]
    NoResources,
}

/// What a probe came to.
pub type Outcome = Result<(), Cause>;

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
    /// The monitors whose last probe failed, with the cause of each, for a person.
    pub fn reasons(&self) -> String {
        let failed = |finding: &Finding| Some(format!("{}: {}", finding.monitor, finding.last?.err()?));
        self.findings.iter().filter_map(failed).collect::<Vec<_>>().join(", ")
    }
}

crate::counters! {
    /// What the health monitors count.
    pub struct Counters {
        /// Probes begun
        counter probes,
        /// Probes that had to wait because too many were under way
        counter probes_delayed,
        /// Probes that were answered
        counter successes,
        /// Probes that were answered with a reset
        counter failures_refused,
        /// Probes without an answer in time
        counter failures_timed_out,
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
        /// Servers that are up
        gauge servers_up,
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
