//! The health monitors of the engine, on the lane that runs them, over its own TCP.

use std::collections::{HashMap, VecDeque};

use crate::base::{Instant, UnixTime};
use crate::health::{Cause, Monitors, Ping, Probe, ProbeId};
use crate::lane::Lane;
use crate::lane::connect::NoConnection;
use crate::lane::work::Owner;
use crate::nic::QueuePair;
use crate::tcp::{Close, ConnectionId, Event, Readable};
use crate::wire::icmp::Echo;

/// Most probes that a breath works on: a step of TLS's handshake costs some 100 µs.
const TURNS_MAX: usize = 4;

/// Monitors and the connections of the probes that are under way.
#[derive(Debug)]
pub(super) struct Probes {
    pub(super) monitors: Monitors,
    connections: HashMap<ProbeId, Line>,
    /// Probes whose connection has something to read or room to write, each once.
    ready: VecDeque<ProbeId>,
}

/// A probe's connection.
#[derive(Debug)]
struct Line {
    connection: ConnectionId,
    is_ready: bool,
}

impl Probes {
    pub(super) fn new(monitors: Monitors) -> Self {
        Self { monitors, connections: HashMap::new(), ready: VecDeque::new() }
    }

    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.monitors.poll_at()
    }

    /// A probe waits for a turn.
    fn wake(&mut self, id: ProbeId) {
        if let Some(line) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut line.is_ready, true)
        {
            self.ready.push_back(id);
        }
    }
}

impl<Q: QueuePair, C> Lane<Q, C> {
    pub(super) fn fire_probes(&mut self, now: Instant) {
        if let Some(probes) = &mut self.probes {
            probes.monitors.on_timeout(now);
        }
    }

    /// Gives a few probes a turn, and opens and abandons the connections that the monitors ask for. Whether there was anything to do.
    pub(super) fn run_probes(&mut self, now: Instant, unix: UnixTime) -> bool {
        let mut any = self.hear_echoes(now);
        for _ in 0..TURNS_MAX {
            let Some(id) = self.probes.as_mut().and_then(|probes| probes.ready.pop_front()) else { break };
            any = true;
            self.run_probe(id, now, unix);
        }
        while let Some(probe) = self.probes.as_mut().and_then(|probes| probes.monitors.poll_probe()) {
            any = true;
            match probe {
                Probe::Connect(id, server) => {
                    let opened = self.station.open_connection(server, Owner::Probe(id).token(), now);
                    let Some(probes) = &mut self.probes else { return any };
                    match opened {
                        Ok(connection) => {
                            probes.connections.insert(id, Line { connection, is_ready: false });
                        }
                        Err(NoConnection::NoRoute) => probes.monitors.on_failed(id, Cause::Unreachable, now),
                        Err(NoConnection::NoResources) => probes.monitors.on_failed(id, Cause::NoResources, now),
                    }
                }
                Probe::Ping(id, to, ping) => {
                    let asked = self.station.ask_for_echo(to, ping, now);
                    if let (Err(_), Some(probes)) = (asked, &mut self.probes) {
                        probes.monitors.on_failed(id, Cause::Unreachable, now);
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
        any
    }

    /// Gives the monitors the echoes that have come.
    fn hear_echoes(&mut self, now: Instant) -> bool {
        let any = !self.station.echoes.is_empty();
        for (from, Echo { identifier: _, sequence, token }) in self.station.echoes.drain(..) {
            if let Some(probes) = &mut self.probes {
                probes.monitors.on_echo(from, Ping { sequence, token }, now);
            }
        }
        any
    }

    pub(super) fn on_probe_event(&mut self, id: ProbeId, event: Event, now: Instant, unix: UnixTime) {
        let Some(probes) = &mut self.probes else { return };
        match event {
            Event::Connected => {
                probes.monitors.on_connected(id, now, unix);
                if probes.monitors.is_running(id) {
                    probes.wake(id);
                } else {
                    self.end_probe(id, now);
                }
            }
            Event::Readable | Event::Writable => probes.wake(id),
            Event::Closed(close) => {
                probes.connections.remove(&id);
                match close {
                    Close::Refused => probes.monitors.on_failed(id, Cause::Refused, now),
                    Close::TimedOut => probes.monitors.on_failed(id, Cause::TimedOut, now),
                    Close::Unreachable => probes.monitors.on_failed(id, Cause::Unreachable, now),
                    Close::Reset => probes.monitors.on_failed(id, Cause::Closed, now),
                    Close::Finished => probes.monitors.on_end(id, now),
                }
            }
            Event::Accepted => {}
        }
    }

    /// A turn of a probe: it hears what has come, and says what it has to.
    fn run_probe(&mut self, id: ProbeId, now: Instant, unix: UnixTime) {
        let Some(probes) = &mut self.probes else { return };
        let Some(line) = probes.connections.get_mut(&id) else { return };
        line.is_ready = false;
        let connection = line.connection;
        let heard = match self.station.stack.readable(connection) {
            Readable::Data(bytes) => {
                probes.monitors.on_data(id, bytes, now, unix);
                bytes.len()
            }
            Readable::Empty => 0,
            Readable::Finished => {
                probes.monitors.on_end(id, now);
                0
            }
        };
        if heard > 0 {
            self.station.stack.consume(connection, heard, now);
        }
        let stack = &mut self.station.stack;
        probes.monitors.poll_transmit(id, now, |bytes| stack.write(connection, bytes, now));
        if !probes.monitors.is_running(id) {
            self.end_probe(id, now);
        } else if heard > 0 && self.station.stack.readable(connection) != Readable::Empty {
            probes.wake(id);
        }
    }

    /// A reset instead of FIN leaves nothing in TIME-WAIT, here or at the server.
    fn end_probe(&mut self, id: ProbeId, now: Instant) {
        if let Some(line) = self.probes.as_mut().and_then(|probes| probes.connections.remove(&id)) {
            self.station.stack.abort(line.connection, now);
        }
    }
}
