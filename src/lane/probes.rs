//! The health monitors of the engine, on the lane that runs them, over its own TCP.

use std::collections::HashMap;

use crate::base::Instant;
use crate::health::{Cause, Monitors, Probe, ProbeId};
use crate::lane::Lane;
use crate::lane::connect::NoConnection;
use crate::lane::work::Owner;
use crate::nic::QueuePair;
use crate::tcp::{Close, ConnectionId, Event};

/// Monitors and the connections of the probes that are under way.
#[derive(Debug)]
pub(super) struct Probes {
    pub(super) monitors: Monitors,
    connections: HashMap<ProbeId, ConnectionId>,
}

impl Probes {
    pub(super) fn new(monitors: Monitors) -> Self {
        Self { monitors, connections: HashMap::new() }
    }

    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.monitors.poll_at()
    }
}

impl<Q: QueuePair, C> Lane<Q, C> {
    pub(super) fn fire_probes(&mut self, now: Instant) {
        if let Some(probes) = &mut self.probes {
            probes.monitors.on_timeout(now);
        }
    }

    /// Opens and abandons the connections that the monitors ask for.
    pub(super) fn run_probes(&mut self, now: Instant) {
        while let Some(probe) = self.probes.as_mut().and_then(|probes| probes.monitors.poll_probe()) {
            match probe {
                Probe::Connect(id, server) => {
                    let opened = self.station.open_connection(server, Owner::Probe(id).token(), now);
                    let Some(probes) = &mut self.probes else { return };
                    match opened {
                        Ok(connection) => {
                            probes.connections.insert(id, connection);
                        }
                        Err(NoConnection::NoRoute) => probes.monitors.on_failed(id, Cause::Unreachable, now),
                        Err(NoConnection::NoResources) => probes.monitors.on_failed(id, Cause::NoResources, now),
                    }
                }
                Probe::Abandon(id) => self.end_probe(id, now),
            }
        }
        // What control has no room for waits, and is told as it is then.
        while !self.handle.verdicts.is_full()
            && let Some(verdict) = self.probes.as_mut().and_then(|probes| probes.monitors.poll_verdict(now))
        {
            let pushed = self.handle.verdicts.push(verdict);
            debug_assert!(pushed.is_ok(), "nobody else pushes");
        }
    }

    pub(super) fn on_probe_event(&mut self, id: ProbeId, event: Event, now: Instant) {
        let Some(probes) = &mut self.probes else { return };
        match event {
            Event::Connected => {
                probes.monitors.on_connected(id, now);
                self.end_probe(id, now);
            }
            Event::Closed(close) => {
                probes.connections.remove(&id);
                probes.monitors.on_failed(id, cause(close), now);
            }
            Event::Accepted | Event::Readable | Event::Writable => {}
        }
    }

    /// A reset instead of FIN leaves nothing in TIME-WAIT, here or at the server.
    fn end_probe(&mut self, id: ProbeId, now: Instant) {
        if let Some(connection) = self.probes.as_mut().and_then(|probes| probes.connections.remove(&id)) {
            self.station.stack.abort(connection, now);
        }
    }
}

fn cause(close: Close) -> Cause {
    match close {
        Close::Refused | Close::Reset | Close::Finished => Cause::Refused,
        Close::TimedOut => Cause::TimedOut,
        Close::Unreachable => Cause::Unreachable,
    }
}
