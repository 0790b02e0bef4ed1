//! Health monitors: probes over a lane's own TCP. Their verdicts go to the health board.
//!
//! A [`Monitors`] is sans-IO: drain [`Monitors::poll_probe`] and open those connections; tell it how each ended with `on_*`;
//! call [`Monitors::on_timeout`] when [`Monitors::poll_at`] has come. One lane runs the monitors of the whole engine.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::balance::{Board, Pool};
use crate::base::{Duration, Instant, Random};

/// A TCP connect monitor of the configuration.
#[derive(Clone, Debug)]
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
    /// The engine had no port or table entry left for the probe.
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

/// All monitors of an engine.
#[derive(Debug)]
pub struct Monitors {}

impl Monitors {
    /// No monitors yet.
    pub fn new(board: Arc<Board>, random: Random, counters: Arc<Counters>) -> Self {
        let _ = (board, random, counters);
        todo!()
    }

    /// Takes over the pools of a new configuration with the monitor of each; servers that stay keep their state.
    pub fn configure(&mut self, pools: &[(Arc<Pool>, Option<Monitor>)], now: Instant) {
        let _ = (pools, now);
        todo!()
    }

    /// A probe's connection is established. The lane closes it.
    pub fn on_connected(&mut self, probe: ProbeId, now: Instant) {
        let _ = (probe, now);
        todo!()
    }

    /// A probe's connection failed.
    pub fn on_failed(&mut self, probe: ProbeId, cause: Cause, now: Instant) {
        let _ = (probe, cause, now);
        todo!()
    }

    /// Starts and times out the probes that are due.
    pub fn on_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// When [`on_timeout`](Self::on_timeout) is wanted next.
    pub fn poll_at(&self) -> Option<Instant> {
        todo!()
    }

    /// The next thing to do.
    pub fn poll_probe(&mut self) -> Option<Probe> {
        todo!()
    }

    /// The next change of state.
    pub fn poll_verdict(&mut self) -> Option<Verdict> {
        todo!()
    }
}

crate::counters! {
    /// What the health monitors count.
    pub struct Counters {
        /// Probes begun
        counter probes,
    }
}
