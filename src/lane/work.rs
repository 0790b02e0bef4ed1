//! Connections: events from TCP wake relays, relays work in turn, and what they come to is counted and recorded.

use std::rc::Rc;
use std::sync::Arc;

use crate::balance::{Backend, Fault, ServerIndex, Slot};
use crate::base::{Flow, Instant, ServiceId, TimerId, UnixTime};
use crate::health::ProbeId;
use crate::lane::connect::NoConnection;
use crate::lane::handle::Queue;
use crate::lane::recall::Recalled;
use crate::lane::{CONNECTIONS_MAX, HANDSHAKE_STEPS_MAX, Lane, Record, SECURING_STEP};
use crate::nic::QueuePair;
use crate::relay::pump::WORK_MAX;
use crate::relay::{End, Next, Relay, Service, Side};
use crate::tcp::{AHEAD, ConnectionId, Event, Token};

/// Bytes of a connection are counted in steps of so many and at its end: rows of services and servers are not touched for each segment.
const COUNTED_AT: u64 = WORK_MAX as u64;

/// A virtual service and where its clients go, both of one snapshot. Connections keep the service that they began with, and go where the snapshot says that is in
/// force when that is decided: no server that a reload removed, disabled or drains gets a client whose handshake was under way.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) service: Arc<Service>,
    pub(super) backend: Rc<Backend>,
}

/// A relayed connection and what the lane keeps beside it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) relay: Relay,
    /// Where its client may go, and once that is decided, what it was decided by.
    pub(super) backend: Rc<Backend>,
    /// Its client and own address, which TCP forgets when the leg is gone.
    pub(super) flow: Flow,
    began: UnixTime,
    /// Waits in this run queue since then. Time is read once a breath: whoever has its turn in the same one has not waited.
    queued: Option<(Queue, Instant)>,
    /// Bytes from and to the client that have been counted.
    counted: (u64, u64),
    /// Fires when its deadline, as it was when the timer was armed, has come.
    timer: Option<TimerId>,
    armed: Instant,
    pub(super) claim: Claim,
    pub(super) recalled: Recalled,
}

/// What a connection has at a server, from the decision for it to the end of the server's leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nothing is decided.
    Undecided,
    /// It waits for a place, under this number.
    Waiting(Slot, u64),
    /// It has a place.
    Place(Slot),
    /// Nothing, and it will have nothing any more.
    Gone,
}

impl Claim {
    pub(super) fn slot(self) -> Option<Slot> {
        match self {
            Self::Waiting(slot, _) | Self::Place(slot) => Some(slot),
            Self::Undecided | Self::Gone => None,
        }
    }
}

/// Whose a TCP connection is, as its token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A leg of the relay at this index.
    Leg(usize, Side),
    /// A health probe.
    Probe(ProbeId),
}

impl Owner {
    pub(super) fn token(self) -> Token {
        match self {
            Self::Leg(index, Side::Client) => Token((index as u64) << 2),
            Self::Leg(index, Side::Server) => Token((index as u64) << 2 | 1),
            Self::Probe(id) => Token(u64::from(id.0) << 2 | 2),
        }
    }

    fn of(token: Token) -> Self {
        let index = usize::try_from(token.0 >> 2).unwrap_or(usize::MAX);
        match token.0 & 3 {
            0 => Self::Leg(index, Side::Client),
            1 => Self::Leg(index, Side::Server),
            _ => Self::Probe(ProbeId(u32::try_from(index).unwrap_or(u32::MAX))),
        }
    }
}

impl<Q: QueuePair, C> Lane<Q, C> {
    /// Deals with TCP's events, then lets connections work on what is short. Says whether there was anything, and how many had a turn.
    pub(super) fn work(&mut self, now: Instant, unix: UnixTime) -> (bool, usize) {
        let mut any = false;
        while let Some((connection, token, event)) = self.station.stack.poll_event() {
            any = true;
            if event == Event::Accepted {
                self.on_accepted(connection, ServiceId(token.0), now, unix);
            } else {
                match Owner::of(token) {
                    Owner::Leg(index, side) => self.on_leg_event(index, side, event, now),
                    Owner::Probe(id) => self.on_probe_event(id, event, now, unix),
                }
            }
        }
        any |= self.run_probes(now, unix);
        let turns = self.ready.len().min(CONNECTIONS_MAX);
        for turn in 0..turns {
            if turn % AHEAD == 0 {
                self.look_ahead();
            }
            if let Some(index) = self.ready.pop() {
                self.run(index, now);
            }
        }
        let steps = self.take_handshake_steps(now);
        (any || turns + steps > 0, turns + steps)
    }

    /// Takes steps of handshakes, as many as may be in a breath; how many it took.
    fn take_handshake_steps(&mut self, now: Instant) -> usize {
        let (mut steps, mut left) = (0, HANDSHAKE_STEPS_MAX);
        for _ in 0..self.handshakes.len() {
            if left == 0 {
                break;
            }
            let Some(index) = self.handshakes.pop() else { break };
            let is_dear = self.connections.get(index).is_some_and(|connection| connection.relay.is_securing());
            left = left.saturating_sub(if is_dear { SECURING_STEP } else { 1 });
            steps += 1;
            self.run(index, now);
        }
        steps
    }

    /// Answers the ClientHellos of so many clients at most; whether there was one.
    pub(super) fn answer_hellos(&mut self, most: usize, now: Instant) -> bool {
        let answers = self.hellos.len().min(most);
        for _ in 0..answers {
            if let Some(index) = self.hellos.pop() {
                self.run(index, now);
            }
        }
        self.counters.lane.handshakes_waiting.set((self.hellos.len() + self.handshakes.len()) as u64);
        answers > 0
    }

    /// What a relay moves comes from one connection and goes to another, which nobody may have used for long.
    fn look_ahead(&self) {
        let relays = self.ready.iter().take(AHEAD).filter_map(|index| self.connections.get(index));
        self.station.stack.look_ahead(relays.flat_map(|connection| connection.relay.connections()));
    }

    fn on_accepted(&mut self, client: ConnectionId, service: ServiceId, now: Instant, unix: UnixTime) {
        let (Some(front), Some(flow)) = (self.fronts.get(&service), self.station.stack.flow(client)) else {
            // The service went away between the SYN and the end of TCP's handshake.
            self.station.stack.abort(client, now);
            return;
        };
        let tally = &front.service.tally.counters;
        tally.connections.increment();
        tally.open.increment();
        let relay = Relay::new(Arc::clone(&front.service), client, flow.remote().ip(), now);
        let backend = Rc::clone(&front.backend);
        let connection = Connection {
            relay,
            backend,
            flow,
            began: unix,
            queued: None,
            counted: (0, 0),
            timer: None,
            armed: now,
            claim: Claim::Undecided,
            recalled: Recalled::Nothing,
        };
        let index = self.connections.insert(Box::new(connection));
        self.station.stack.set_token(client, Owner::Leg(index, Side::Client).token());
        self.arm(index);
        self.counters.relay.accepted.increment();
        self.counters.relay.open.set(self.connections.len() as u64);
    }

    fn on_leg_event(&mut self, index: usize, side: Side, event: Event, now: Instant) {
        if let Some(connection) = self.connections.get_mut(index) {
            connection.relay.on_event(side, event, &mut self.station.stack, now);
            if side == Side::Server && matches!(event, Event::Closed(_)) {
                self.release(index);
            }
            self.wake(index);
        }
    }

    /// Puts a connection into its run queue, once.
    pub(super) fn wake(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        if connection.queued.is_none() {
            let relay = &connection.relay;
            let (queue, waiting) = match (relay.awaits_hello(), relay.is_handshaking()) {
                (true, _) => (Queue::Hellos, &mut self.hellos),
                (false, true) => (Queue::Handshakes, &mut self.handshakes),
                (false, false) => (Queue::Ready, &mut self.ready),
            };
            connection.queued = Some((queue, self.breath_began));
            waiting.push(index);
        }
    }

    fn run(&mut self, index: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        if let Some((queue, since)) = connection.queued.take() {
            self.counters.times.waits(queue).note(now - since);
        }
        let is_undecided = connection.claim == Claim::Undecided;
        if is_undecided && let Some(front) = self.fronts.get(&connection.relay.service().id) {
            connection.backend = Rc::clone(front.backend.in_force());
        }
        let Connection { relay, backend, .. } = &mut **connection;
        let next = relay.work(&mut self.station.stack, &mut self.desk, backend, &self.counters.relay, now);
        let has_done_with_server = relay.has_done_with_server();
        let (received, sent) = relay.bytes();
        if received + sent - (connection.counted.0 + connection.counted.1) >= COUNTED_AT {
            self.count_bytes(index);
        }
        if is_undecided {
            self.claim(index);
        }
        self.note_outcome(index);
        if has_done_with_server {
            self.release(index);
        }
        match next {
            Next::Wait => self.tighten(index),
            Next::Again => self.wake(index),
            Next::Recall => self.recall(index, now),
            Next::Connect(server) => self.connect(index, server, now),
            Next::TryOther => self.try_other(index, now),
            Next::Over(end) => self.finish(index, end, now),
        }
    }

    /// Opens the server's leg of a connection.
    fn connect(&mut self, index: usize, server: ServerIndex, now: Instant) {
        let Some(connection) = self.connections.get(index) else { return };
        let pool = connection.backend.pool();
        let Some((address, slot)) = pool.server(server).map(|server| (server.address, server.slot)) else { return };
        // Where servers are spoken to in TLS nothing is said in plain, not even to one that a reload has just removed.
        let target = pool.is_secured.then(|| self.targets.get(&slot).map(Arc::clone));
        let opened = match target {
            Some(None) => Err(NoConnection::NoRoute),
            Some(Some(_)) | None => self.station.open_connection(address, Owner::Leg(index, Side::Server).token(), now),
        };
        let Some(connection) = self.connections.get_mut(index) else { return };
        match opened {
            Ok(leg) => {
                self.loads.connected(slot);
                connection.relay.on_connecting(leg, target.flatten().as_ref(), now);
                self.arm(index);
            }
            Err(NoConnection::NoRoute) => connection.relay.on_no_connection(End::ServerUnreachable),
            Err(NoConnection::NoResources) => connection.relay.on_no_connection(End::NoResources),
        }
        self.wake(index);
    }

    /// Opens it to another server than those that were tried, at which the connection has no place any more.
    fn try_other(&mut self, index: usize, now: Instant) {
        self.release(index);
        let Some(connection) = self.connections.get_mut(index) else { return };
        let failed = connection.failing();
        let chosen = connection.backend.choose_other(connection.flow.remote().ip(), connection.relay.tried());
        connection.relay.on_other_server(chosen);
        match chosen.and_then(|server| Some((server, connection.backend.pool().server(server)?.slot))) {
            Some((server, slot)) => {
                connection.claim = Claim::Place(slot);
                // Where there is no other the connection's end says it.
                if let Some((slot, fault)) = failed {
                    self.loads.failed(slot, fault);
                }
                self.counters.relay.connects_retried.increment();
                self.connect(index, server, now);
            }
            None => self.wake(index),
        }
    }

    /// Arms the timer of a connection for its deadline as it is now.
    fn arm(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        if let Some(timer) = connection.timer.take() {
            self.deadlines.cancel(timer);
        }
        connection.armed = connection.relay.deadline();
        connection.timer = Some(self.deadlines.arm(connection.armed, index));
    }

    /// Arms the timer anew if the deadline has come nearer, as it does when one side closes.
    fn tighten(&mut self, index: usize) {
        let nearer =
            self.connections.get(index).is_some_and(|connection| connection.relay.deadline() < connection.armed);
        if nearer {
            self.arm(index);
        }
    }

    /// Deadlines move as bytes flow, timers do not: one that fires early is armed again for when the deadline really is.
    pub(super) fn fire_deadlines(&mut self, now: Instant) {
        while let Some(index) = self.deadlines.expire(now) {
            let Some(connection) = self.connections.get_mut(index) else { continue };
            connection.timer = None;
            if connection.relay.deadline() > now {
                self.arm(index);
            } else if connection.relay.gives_up_server(connection.backend.pool(), &mut self.station.stack, now) {
                self.release(index);
                self.wake(index);
            } else {
                let end = connection.relay.on_timeout(&mut self.station.stack, now);
                self.finish(index, end, now);
            }
        }
    }

    pub(super) fn finish(&mut self, index: usize, end: End, now: Instant) {
        if let Some(connection) = self.connections.get_mut(index) {
            connection.relay.on_over(now);
        }
        self.count_bytes(index);
        self.release(index);
        let Some(connection) = self.connections.try_remove(index) else { return };
        if let Some(timer) = connection.timer {
            self.deadlines.cancel(timer);
        }
        self.let_go(&connection, now);
        let counters = &self.counters.relay;
        counters.on_end(end);
        let tally = &connection.relay.service().tally;
        tally.counters.open.set(tally.counters.open.value().saturating_sub(1));
        tally.ended.count(end);
        if connection.relay.handshake().is_none() {
            self.counters.failed_handshakes.count(end);
            tally.failed.count(end);
        }
        if let Some((slot, fault)) = connection.server_slot().zip(end.fault()) {
            self.loads.failed(slot, fault);
        }
        counters.open.set(self.connections.len() as u64);
        if self.handle.records.push(self.record(&connection, end, now)).is_err() {
            self.counters.lane.records_dropped.increment();
        }
    }

    /// Counts the bytes that a connection has moved since they were counted last: the lane's, its service's and its server's.
    fn count_bytes(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let bytes = connection.relay.bytes();
        let before = std::mem::replace(&mut connection.counted, bytes);
        let (received, sent) = (bytes.0.saturating_sub(before.0), bytes.1.saturating_sub(before.1));
        let service = &connection.relay.service().tally.counters;
        let lane = &self.counters.relay;
        for counters in [(&lane.bytes_received, &lane.bytes_sent), (&service.bytes_received, &service.bytes_sent)] {
            counters.0.add(received);
            counters.1.add(sent);
        }
        if let Some(slot) = connection.server_slot().filter(|_| received + sent > 0) {
            self.loads.moved(slot, received, sent);
        }
    }

    /// Resets every connection that is still open, as at the end of a drain that timed out.
    pub(super) fn cut_all(&mut self, now: Instant) {
        for index in 0..self.connections.capacity() {
            if let Some(connection) = self.connections.get_mut(index) {
                let end = connection.relay.abandon(End::Drained, &mut self.station.stack, now);
                self.finish(index, end, now);
            }
        }
    }

    fn record(&self, connection: &Connection, end: End, now: Instant) -> Record {
        let relay = &connection.relay;
        let handshake = relay.handshake();
        let pool = connection.backend.pool();
        let chosen = relay.chosen().and_then(|server| pool.server(server));
        let (received, sent) = relay.bytes();
        Record {
            lane: self.station.id,
            began: connection.began,
            lasted: now - relay.began(),
            times: relay.times(),
            client: connection.flow.remote(),
            local: connection.flow.local(),
            service: relay.service().id,
            server_name: relay.server_name().map(Box::from),
            client_subject: handshake
                .and_then(|handshake| handshake.client.as_ref())
                .map(|client| client.subject.clone()),
            version: handshake.map(|handshake| handshake.version),
            cipher: handshake.map(|handshake| handshake.cipher),
            resumed: handshake.map(|handshake| handshake.resumed),
            key_id: handshake.and_then(|handshake| handshake.key_id),
            wanted: handshake.and_then(|handshake| handshake.wanted),
            issuer: handshake.and_then(|handshake| handshake.issuer),
            chosen: chosen.map(|server| (pool.id, server.id)),
            reason: handshake.map(|handshake| handshake.decision.reason),
            received,
            sent,
            end,
        }
    }
}

impl Connection {
    /// The place of the server that its client got, even when it has no claim there any more.
    fn server_slot(&self) -> Option<Slot> {
        self.backend.pool().server(self.relay.chosen()?).map(|server| server.slot)
    }

    /// The server that could not be connected to, and how it failed.
    fn failing(&self) -> Option<(Slot, Fault)> {
        self.server_slot().zip(self.relay.failed().and_then(End::fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whose_a_connection_is() {
        for owner in [
            Owner::Leg(0, Side::Client),
            Owner::Leg(7, Side::Server),
            Owner::Leg(1 << 40, Side::Client),
            Owner::Probe(ProbeId(u32::MAX)),
        ] {
            assert_eq!(Owner::of(owner.token()), owner);
        }
    }
}
