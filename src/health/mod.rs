//! Health monitors: probes over a lane's own TCP. Their verdicts go to the health board.
//!
//! A [`Monitors`] is sans-IO: drain [`Monitors::poll_probe`] and open those connections; tell it how each ended with `on_*`;
//! call [`Monitors::on_timeout`] when [`Monitors::poll_at`] has come. One lane runs the monitors of the whole engine.
//!
//! A server is probed when its pool has a monitor and the operator has not disabled it; all others are
//! [`Unknown`](crate::balance::Health::Unknown) on the board, which is usable. A new server gets its first probe within a second, and that one decides alone;
//! from then on it takes the monitor's number of equal results in a row to change the verdict.

use std::net::SocketAddr;

use crate::base::Duration;

mod monitors;
mod streak;
#[cfg(test)]
mod tests;

pub use monitors::{Monitors, PROBES_MAX, TIMERS_MAX};

/// A TCP connect monitor of the configuration. Times below a millisecond and counts below one are taken as these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Name in the configuration.
    pub name: String,
    /// Time between two probes of one server.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Successes in a row that bring a server up.
    pub successful_checks: u32,
    /// Failures in a row that take it down.
    pub failed_checks: u32,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The server answered with a reset.
    Refused,
    /// No answer in time.
    TimedOut,
    /// No route, no neighbour, or an ICMP error.
    Unreachable,
    /// The engine had no port or table entry left for the probe. That says nothing of the server: it changes no verdict.
    NoResources,
}

/// A server's change of state, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Pool by name.
    pub pool: String,
    /// Server by name.
    pub server: String,
    /// Whether it is up now.
    pub up: bool,
    /// The last probe's failure, when down.
    pub cause: Option<Cause>,
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
        /// Probes given up because their server left the configuration or was disabled
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
