//! A host's TCP in a program's hands, for conformance tools, simulation and fuzzing: the program owns the clock and carries every packet.
//!
//! A [`Testbed`] has no thread, no I/O and no clock of its own, and nothing that it is given makes it panic. It holds any address: what is injected
//! is for it, and what it sends comes from wherever a call said. Equal calls on beds of equal settings and seed give equal packets.
//!
//! Time stands still between two calls. What the host wants to send leaves at once: [`take`](Testbed::take) gives it, and what was not taken when the
//! clock moves waits with the time at which it left ([`take_timed`](Testbed::take_timed)).
//!
//! # Two hosts shake hands, talk and part
//! ```
//! use std::net::SocketAddr;
//! use std::time::Duration;
//!
//! use sealane::tcp::testbed::{OpenError, Read, Testbed};
//! use sealane::tcp::{Settings, State};
//!
//! /// Carries packets to and fro until neither host has more to say.
//! fn carry(one: &mut Testbed, other: &mut Testbed) {
//!     loop {
//!         let packets = (one.take(), other.take());
//!         if let (None, None) = packets {
//!             return;
//!         }
//!         for (packet, to) in [(packets.0, &mut *other), (packets.1, &mut *one)] {
//!             if let Some(packet) = packet {
//!                 to.inject(&packet).expect("hosts send whole packets");
//!             }
//!         }
//!     }
//! }
//!
//! fn main() -> Result<(), OpenError> {
//!     let (here, there): (SocketAddr, SocketAddr) = (([198, 18, 0, 1], 50_000).into(), ([198, 18, 0, 2], 443).into());
//!     let mut client = Testbed::new(Settings::default(), 1);
//!     let mut server = Testbed::new(Settings { sack: false, ..Settings::default() }, 2);
//!
//!     let listener = server.listen(there)?;
//!     let ours = client.connect(here, there)?;
//!     assert_eq!(client.state(ours).name(), "SYN-SENT");
//!     carry(&mut client, &mut server);
//!     let theirs = server.accept(listener).expect("the handshake is complete");
//!     assert_eq!((client.state(ours), server.state(theirs)), (State::Established, State::Established));
//!
//!     assert_eq!(client.write(ours, b"hello"), Ok(5));
//!     carry(&mut client, &mut server);
//!     let mut room = [0; 100];
//!     assert_eq!(server.read(theirs, &mut room), Ok(Read::Bytes(5)));
//!     assert_eq!(room.get(..5), Some(&b"hello"[..]));
//!
//!     // The acknowledgement of a lone small segment is delayed: its timer is what comes next.
//!     let due = server.next_timer().expect("an acknowledgement is owed");
//!     server.advance_to(due);
//!     client.advance(Duration::from_millis(20));
//!     assert!(client.inspect(ours).is_some_and(|inside| inside.flight == 5));
//!     carry(&mut client, &mut server);
//!     assert!(client.inspect(ours).is_some_and(|inside| inside.flight == 0 && inside.ssthresh == u32::MAX));
//!
//!     client.close(ours);
//!     carry(&mut client, &mut server);
//!     assert_eq!((client.state(ours), server.state(theirs)), (State::FinWait2, State::CloseWait));
//!     server.close(theirs);
//!     carry(&mut client, &mut server);
//!     assert_eq!((client.state(ours), server.state(theirs)), (State::TimeWait, State::Closed));
//!     client.advance(Settings::default().time_wait);
//!     assert_eq!((client.state(ours), client.counters().time_wait.value()), (State::Closed, 0));
//!     assert_eq!((client.audit(), server.audit()), (Ok(()), Ok(())));
//!     Ok(())
//! }
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::base::{Duration, Flow, Instant, Random};
use crate::tcp::{Close, ConnectionId, Counters, Event, Inspection, Readable, Refused, Settings, Stack, State, Token};
use crate::wire::icmp::{Meaning, checksum_holds, mtu};
use crate::wire::{Malformed, Packet, Protocol, Quote, Segment};

/// Events, ends, accepted connections and packets that are kept for whoever asks; beyond it the oldest is forgotten.
pub const KEPT_MAX: usize = 65_536;

/// The longest IP packet.
const PACKET_MAX: usize = u16::MAX as usize;

/// A host's TCP, its clock and its packets: see the [module](self).
#[derive(Debug)]
pub struct Testbed {
    pub(super) stack: Stack,
    counters: Arc<Counters>,
    now: Instant,
    listeners: Vec<Listening>,
    events: VecDeque<(ConnectionId, Event)>,
    /// The endpoints of connections that live.
    flows: HashMap<ConnectionId, Flow>,
    ends: HashMap<ConnectionId, End>,
    ends_in_order: VecDeque<ConnectionId>,
    /// Connections that nobody reads any more.
    closing: HashSet<ConnectionId>,
    /// What left before the clock moved on.
    left: VecDeque<(Instant, Vec<u8>)>,
    room: Vec<u8>,
}

#[derive(Debug)]
struct Listening {
    local: SocketAddr,
    accepted: VecDeque<ConnectionId>,
}

/// How a connection ended, and whose it was.
#[derive(Clone, Copy, Debug)]
struct End {
    close: Close,
    flow: Option<Flow>,
}

/// Names a listening address of one bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listener(usize);

/// Why [`Testbed::listen`] or [`Testbed::connect`] did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenError {
    /// The stack said no.
    Refused(Refused),
    /// These endpoints cannot be a connection's: of two families, unspecified, loopback, multicast, or with port 0.
    Endpoints,
}

/// Why a call on a connection did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallError {
    /// The connection has ended, and how.
    Ended(Close),
    /// We have closed it, so it takes no more data (RFC 9293 3.10.2).
    Closing,
    /// There is no such connection: it was aborted, or ended too long ago.
    Unknown,
}

/// What [`Testbed::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// So many bytes, at least one if there was room for one.
    Bytes(usize),
    /// Nothing yet.
    Empty,
    /// Everything has been read and the peer has sent FIN.
    Finished,
}

impl Testbed {
    /// A host without connections whose clock stands at [`Instant::START`]; [`advance_to`](Self::advance_to) sets it. `seed` decides everything that is
    /// random: initial sequence numbers, timestamps, the keys of hashes and cookies. An `mtu` beyond 65,535 means that.
    pub fn new(mut settings: Settings, seed: u64) -> Self {
        settings.mtu = settings.mtu.min(PACKET_MAX);
        let counters = Arc::new(Counters::default());
        Self {
            stack: Stack::new(settings, Random::from_seed(seed), Arc::clone(&counters)),
            counters,
            now: Instant::START,
            listeners: Vec::new(),
            events: VecDeque::new(),
            flows: HashMap::new(),
            ends: HashMap::new(),
            ends_in_order: VecDeque::new(),
            closing: HashSet::new(),
            left: VecDeque::new(),
            room: vec![0; PACKET_MAX],
        }
    }

    /// Changes settings of the running host. What applies when:
    ///
    /// | setting | from when on |
    /// | --- | --- |
    /// | `keepalive`, `keepalive_interval`, `keepalive_probes`, `user_timeout` | at once, for every connection |
    /// | `connections_max`, `half_open_max`, `time_wait_max`, `memory_max`, `syn_cookies`, `mtu_probing` | at once; what is there already stays |
    /// | `timestamps`, `sack`, `mtu`, `congestion`, `send_buffer`, `receive_buffer` and whatever else a SYN negotiates | for connections that are opened later; change them while no handshake is going on, or its two halves say different things |
    /// | `time_wait`, `resets_per_second` | never: they are what they were in [`new`](Self::new) |
    pub fn set_options(&mut self, change: impl FnOnce(&mut Settings)) {
        self.stack.reconfigure(self.now, |settings| {
            change(settings);
            settings.mtu = settings.mtu.min(PACKET_MAX);
        });
        self.collect();
    }

    /// Accepts connections to `local`.
    ///
    /// # Errors
    /// [`OpenError`] says why not.
    pub fn listen(&mut self, local: SocketAddr) -> Result<Listener, OpenError> {
        if !is_host(local) {
            return Err(OpenError::Endpoints);
        }
        let number = self.listeners.len();
        self.stack.listen(local, Token(number as u64)).map_err(OpenError::Refused)?;
        self.listeners.push(Listening { local, accepted: VecDeque::new() });
        Ok(Listener(number))
    }

    /// Accepts no more connections there; those that are open stay.
    pub fn unlisten(&mut self, listener: Listener) {
        if let Some(listening) = self.listeners.get(listener.0) {
            self.stack.unlisten(listening.local);
        }
    }

    /// The next connection that a peer has opened to `listener`. It may have ended meanwhile.
    pub fn accept(&mut self, listener: Listener) -> Option<ConnectionId> {
        self.listeners.get_mut(listener.0)?.accepted.pop_front()
    }

    /// Begins a connection: a SYN leaves.
    ///
    /// # Errors
    /// [`OpenError`] says why not.
    pub fn connect(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<ConnectionId, OpenError> {
        let flow = Flow::new(local, remote);
        if !is_host(local) || !is_host(remote) || flow.local().is_ipv4() != flow.remote().is_ipv4() {
            return Err(OpenError::Endpoints);
        }
        let connection = self.stack.connect(flow, Token(u64::MAX), self.now).map_err(OpenError::Refused)?;
        self.flows.insert(connection, flow);
        Ok(connection)
    }

    /// Reads into `room`.
    ///
    /// # Errors
    /// When the connection is gone: what it had received has been read, or has gone with it.
    pub fn read(&mut self, connection: ConnectionId, room: &mut [u8]) -> Result<Read, CallError> {
        let mut len = 0;
        if self.stack.state(connection).is_none() {
            return Err(self.why_not(connection));
        }
        // What is there may lie in two pieces.
        while let Some(free) = room.get_mut(len..).filter(|free| !free.is_empty()) {
            let taken = match self.stack.readable(connection) {
                Readable::Data(data) => {
                    let taken = data.len().min(free.len());
                    if let (Some(to), Some(from)) = (free.get_mut(..taken), data.get(..taken)) {
                        to.copy_from_slice(from);
                    }
                    taken
                }
                Readable::Finished if len == 0 => return Ok(Read::Finished),
                Readable::Empty if len == 0 => return Ok(Read::Empty),
                Readable::Finished | Readable::Empty => break,
            };
            len += taken;
            self.stack.consume(connection, taken, self.now);
        }
        self.collect();
        Ok(Read::Bytes(len))
    }

    /// Queues bytes to send and gives how many it took: as many as there is room for in the send buffer.
    ///
    /// # Errors
    /// When the connection is gone or has been closed by us.
    pub fn write(&mut self, connection: ConnectionId, bytes: &[u8]) -> Result<usize, CallError> {
        match self.stack.state(connection) {
            None => Err(self.why_not(connection)),
            Some(State::SynSent | State::SynReceived | State::Established | State::CloseWait) => {
                let taken = self.stack.write(connection, bytes, self.now);
                self.collect();
                Ok(taken)
            }
            Some(
                State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck | State::TimeWait | State::Closed,
            ) => Err(CallError::Closing),
        }
    }

    /// Sends FIN behind what is queued. Reading goes on.
    pub fn shutdown(&mut self, connection: ConnectionId) {
        self.stack.shutdown(connection, self.now);
        self.collect();
    }

    /// Sends FIN behind what is queued and reads no more: data that is unread, or still comes, is answered by a reset (RFC 1122 4.2.2.13).
    pub fn close(&mut self, connection: ConnectionId) {
        if self.stack.state(connection).is_none() {
            return;
        }
        self.stack.shutdown(connection, self.now);
        self.closing.insert(connection);
        self.read_no_more(connection);
        self.collect();
    }

    /// Sends RST and forgets the connection. No event follows.
    pub fn abort(&mut self, connection: ConnectionId) {
        self.forget(connection);
        self.collect();
    }

    /// Takes a packet from its IP header on, as if it had just arrived: a TCP segment, or an ICMP error that quotes a segment of ours. Of errors those count
    /// that say that a destination is unreachable (ICMP type 3, ICMPv6 type 1), or that a packet was too big, and how long one may be (type 3 code 4 with
    /// RFC 1191's next-hop MTU, or 0; ICMPv6 type 2). An error is taken if the segment that it quotes may be under way, whoever it comes from; otherwise it
    /// is counted ([`counters`](Self::counters): `unreachables_ignored`, `packets_too_big_ignored`). What a packet that was too big leads to is seen in
    /// [`Inspection::mss`] and the counters `path_mtu_lowered` and `path_mtu_doubted`.
    ///
    /// # Errors
    /// [`Malformed`] says why a lane would have dropped it, too; then nothing has changed. [`Malformed::Unsupported`] is a packet that is right and
    /// nothing that TCP has a use for.
    pub fn inject(&mut self, packet: &[u8]) -> Result<(), Malformed> {
        let packet = Packet::parse(packet, false)?;
        match packet.protocol {
            Protocol::Tcp => {
                let (flow, segment) = Segment::parse(&packet, false)?;
                self.stack.on_segment(&flow, &segment, self.now);
            }
            Protocol::Icmp | Protocol::Icmpv6 => self.on_icmp(&packet)?,
            Protocol::Other(_) => return Err(Malformed::Unsupported),
        }
        self.collect();
        Ok(())
    }

    fn on_icmp(&mut self, packet: &Packet<'_>) -> Result<(), Malformed> {
        if !checksum_holds(packet) {
            return Err(Malformed::Checksum);
        }
        let [kind, code, _, _, a, b, c, d, ref quoted @ ..] = *packet.payload else { return Err(Malformed::Truncated) };
        let meaning = Meaning::of(packet.protocol, kind, code);
        match (meaning, Quote::parse(quoted)) {
            (Meaning::Unreachable, Some(Quote { flow, seq })) => {
                self.stack.on_unreachable_segment(&flow, seq, self.now);
                Ok(())
            }
            (Meaning::PacketTooBig, Some(Quote { flow, seq })) => {
                self.stack.on_packet_too_big(&flow, seq, mtu(packet.protocol, [a, b, c, d]), self.now);
                Ok(())
            }
            (Meaning::Unreachable | Meaning::PacketTooBig, None)
            | (Meaning::Echo | Meaning::EchoReply | Meaning::Discovery | Meaning::Other, _) => {
                Err(Malformed::Unsupported)
            }
        }
    }

    /// The next packet that the host has sent, from its IP header on.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        Some(self.take_timed()?.1)
    }

    /// The next packet that the host has sent, and when.
    pub fn take_timed(&mut self) -> Option<(Instant, Vec<u8>)> {
        self.left.pop_front().or_else(|| self.transmit())
    }

    fn transmit(&mut self) -> Option<(Instant, Vec<u8>)> {
        let len = self.stack.poll_transmit(&mut self.room, false, self.now)?;
        self.collect();
        Some((self.now, self.room.get(..len)?.to_vec()))
    }

    /// The host's time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// When a timer wants to be looked at next, and may find that it has been put off. Ask when everything has been taken: sending starts timers.
    pub fn next_timer(&self) -> Option<Instant> {
        self.stack.poll_at()
    }

    /// Lets time pass, and every timer fire in its time.
    pub fn advance(&mut self, time: Duration) {
        self.advance_to(self.now + time);
    }

    /// Lets time pass until `then`, and every timer fire in its time. A moment that has passed changes nothing.
    pub fn advance_to(&mut self, then: Instant) {
        self.send();
        while let Some(due) = self.next_timer().filter(|due| *due < then) {
            self.jump_to(due);
            self.send();
        }
        self.jump_to(then);
    }

    /// The clock jumps to `then`, as after a machine was suspended: timers that were due in between fire now, all at once.
    pub fn jump_to(&mut self, then: Instant) {
        if then > self.now {
            self.send();
        }
        self.now = self.now.max(then);
        while self.next_timer().is_some_and(|due| due <= self.now) {
            self.stack.on_timeout(self.now);
        }
        self.collect();
    }

    /// What wants to leave leaves now.
    fn send(&mut self) {
        while let Some(packet) = self.transmit() {
            keep(&mut self.left, packet);
        }
    }

    /// The next event, if anybody wants to know: connections work without. Of events that nobody fetches, [`KEPT_MAX`] are kept.
    pub fn event(&mut self) -> Option<(ConnectionId, Event)> {
        self.events.pop_front()
    }

    /// The state of a connection, and after its end CLOSED, or TIME-WAIT for as long as its endpoints are in that.
    pub fn state(&self, connection: ConnectionId) -> State {
        let ended = || self.ends.get(&connection)?.flow.and_then(|flow| self.stack.state_of(&flow));
        match self.stack.state(connection) {
            Some(state) => state,
            None if ended() == Some(State::TimeWait) => State::TimeWait,
            None => State::Closed,
        }
    }

    /// The state of whatever there is between two endpoints; a handshake that a peer has begun is in SYN-RECEIVED before it can be accepted.
    pub fn state_of(&self, local: SocketAddr, remote: SocketAddr) -> Option<State> {
        self.stack.state_of(&Flow::new(local, remote))
    }

    /// The inside of a connection, until it ends.
    pub fn inspect(&self, connection: ConnectionId) -> Option<Inspection> {
        self.stack.inspect(connection)
    }

    /// The endpoints of a connection, until it ends.
    pub fn flow(&self, connection: ConnectionId) -> Option<Flow> {
        self.stack.flow(connection)
    }

    /// How many bytes [`write`](Self::write) would take now.
    pub fn writable(&self, connection: ConnectionId) -> usize {
        self.stack.writable(connection)
    }

    /// Bytes written and not yet acknowledged.
    pub fn unacknowledged(&self, connection: ConnectionId) -> usize {
        self.stack.unacknowledged(connection)
    }

    /// How a connection ended, once it has. One that we aborted has not.
    pub fn ended(&self, connection: ConnectionId) -> Option<Close> {
        Some(self.ends.get(&connection)?.close)
    }

    /// Looks at everything that the stack holds: see [`Stack::audit`].
    ///
    /// # Errors
    /// What is wrong, in words: a bug in the engine, whatever was injected.
    pub fn audit(&self) -> Result<(), String> {
        // Gauges are shown once a burst, and a host may be asked at any time.
        self.stack.publish();
        self.stack.audit(self.now)
    }

    /// What the host counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn why_not(&self, connection: ConnectionId) -> CallError {
        self.ended(connection).map_or(CallError::Unknown, CallError::Ended)
    }

    /// Fetches the stack's events.
    fn collect(&mut self) {
        while let Some((connection, token, event)) = self.stack.poll_event() {
            match event {
                Event::Accepted => {
                    self.flows.extend(self.stack.flow(connection).map(|flow| (connection, flow)));
                    let number = usize::try_from(token.0).unwrap_or(usize::MAX);
                    if let Some(listening) = self.listeners.get_mut(number) {
                        keep(&mut listening.accepted, connection);
                    }
                }
                Event::Readable if self.closing.contains(&connection) => self.read_no_more(connection),
                Event::Closed(close) => {
                    self.closing.remove(&connection);
                    let flow = self.flows.remove(&connection);
                    self.ends.insert(connection, End { close, flow });
                    if let Some(forgotten) = keep(&mut self.ends_in_order, connection) {
                        self.ends.remove(&forgotten);
                    }
                }
                Event::Connected | Event::Readable | Event::Writable => {}
            }
            keep(&mut self.events, (connection, event));
        }
    }

    /// Nobody will read what has come.
    fn read_no_more(&mut self, connection: ConnectionId) {
        if let Readable::Data(_) = self.stack.readable(connection) {
            self.forget(connection);
        }
    }

    fn forget(&mut self, connection: ConnectionId) {
        self.flows.remove(&connection);
        self.closing.remove(&connection);
        self.stack.abort(connection, self.now);
    }
}

/// Appends to a queue of at most [`KEPT_MAX`] and gives what had to go.
fn keep<T>(queue: &mut VecDeque<T>, item: T) -> Option<T> {
    queue.push_back(item);
    if queue.len() > KEPT_MAX { queue.pop_front() } else { None }
}

/// Whether an endpoint can be that of one host's connection.
fn is_host(endpoint: SocketAddr) -> bool {
    let address = endpoint.ip();
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    endpoint.port() != 0 && !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast)
}

#[cfg(test)]
mod tests;
