//! TCP (RFC 9293 and its companions), sans-IO: one [`Stack`] is one lane's TCP.
//!
//! Drive it so: give it every segment with [`Stack::on_segment`] and call [`Stack::on_timeout`] when [`Stack::poll_at`] has come;
//! then drain [`Stack::poll_event`] and [`Stack::poll_transmit`] until they give nothing. It reads no clock and sends nothing itself.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::{Duration, Flow, Instant, Random};
use crate::wire::Segment;

/// Names one connection of a stack. A stale id (its connection is gone, the slot perhaps reused) names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

/// Whatever the user of a connection wants to find it by. The stack keeps it and gives it back with each event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// Something that the user of a connection may want to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer has opened this connection to a listening address. Its token is that of the listener.
    Accepted,
    /// The connection that [`Stack::connect`] began is established.
    Connected,
    /// There is data to read, or the peer has sent FIN.
    Readable,
    /// There is room to write again, after [`Stack::write`] took less than it was given.
    Writable,
    /// The connection is over, whatever there was to read or write is gone, and its id is stale.
    Closed(Close),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Close {
    /// Both sides sent FIN and everything was acknowledged.
    Finished,
    /// The peer reset it.
    Reset,
    /// The peer answered our SYN with a reset.
    Refused,
    /// Retransmissions, keepalive probes or the user timeout found no answer.
    TimedOut,
    /// The network said that there is no way to the peer.
    Unreachable,
}

/// Why [`Stack::connect`] or [`Stack::listen`] said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The connection table is full.
    TableFull,
    /// There is a connection (or one in TIME-WAIT) with these endpoints.
    InUse,
}

/// What [`Stack::read`]-side callers see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable<'a> {
    /// The next bytes in order, at least one. [`Stack::consume`] takes them.
    Data(&'a [u8]),
    /// Nothing yet.
    Empty,
    /// Everything has been read and the peer has sent FIN.
    Finished,
}

/// Bounds and times of a stack.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most connections in the table (half-open and TIME-WAIT not counted).
    pub connections_max: usize,
    /// Most connections that have not finished their handshake.
    pub half_open_max: usize,
    /// Most entries in TIME-WAIT.
    pub time_wait_max: usize,
    /// Bytes that a connection keeps for the reader; the advertised window never exceeds it.
    pub receive_buffer: usize,
    /// Bytes that a connection keeps until they are acknowledged.
    pub send_buffer: usize,
    /// 2 MSL.
    pub time_wait: Duration,
    /// Silence before keepalive probes begin; `None` for no keepalive.
    pub keepalive: Option<Duration>,
    /// How long unacknowledged data or an unanswered SYN is kept trying.
    pub user_timeout: Duration,
    /// The longest IP packet to send.
    pub mtu: usize,
}

/// One lane's TCP.
#[derive(Debug)]
pub struct Stack {}

impl Stack {
    /// A stack without connections.
    pub fn new(settings: Settings, random: Random, counters: Arc<Counters>) -> Self {
        let _ = (settings, random, counters);
        todo!()
    }

    /// Accepts connections to `local`.
    ///
    /// # Errors
    /// [`Refused::InUse`] when there is a listener already.
    pub fn listen(&mut self, local: SocketAddr, token: Token) -> Result<(), Refused> {
        let _ = (local, token);
        todo!()
    }

    /// Accepts no more connections to `local`. Those that are open stay.
    pub fn unlisten(&mut self, local: SocketAddr) {
        let _ = local;
        todo!()
    }

    /// Begins a connection.
    ///
    /// # Errors
    /// [`Refused`] says why not.
    pub fn connect(&mut self, flow: Flow, token: Token, now: Instant) -> Result<ConnectionId, Refused> {
        let _ = (flow, token, now);
        todo!()
    }

    /// Whether a connection, half-open connection or TIME-WAIT entry has this flow.
    pub fn knows(&self, flow: &Flow) -> bool {
        let _ = flow;
        todo!()
    }

    /// Takes one received segment.
    pub fn on_segment(&mut self, flow: &Flow, segment: &Segment<'_>, now: Instant) {
        let _ = (flow, segment, now);
        todo!()
    }

    /// Takes the news that the network cannot deliver to a flow's peer (ICMP destination unreachable).
    pub fn on_unreachable(&mut self, flow: &Flow, now: Instant) {
        let _ = (flow, now);
        todo!()
    }

    /// Fires the timers that are due.
    pub fn on_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// When [`on_timeout`](Self::on_timeout) is wanted next.
    pub fn poll_at(&self) -> Option<Instant> {
        todo!()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<(ConnectionId, Token, Event)> {
        todo!()
    }

    /// Writes the next IP packet to send into `room` (at least the MTU long) and gives its length.
    ///
    /// With `offload` the transport checksum field holds the pseudo header's sum only, for the NIC to finish.
    pub fn poll_transmit(&mut self, room: &mut [u8], offload: bool, now: Instant) -> Option<usize> {
        let _ = (room, offload, now);
        todo!()
    }

    /// Sets the token of a connection.
    pub fn set_token(&mut self, id: ConnectionId, token: Token) {
        let _ = (id, token);
        todo!()
    }

    /// The endpoints of a connection, while it lives.
    pub fn flow(&self, id: ConnectionId) -> Option<Flow> {
        let _ = id;
        todo!()
    }

    /// What there is to read. An unknown connection has finished.
    pub fn readable(&self, id: ConnectionId) -> Readable<'_> {
        let _ = id;
        todo!()
    }

    /// Takes `len` bytes that [`readable`](Self::readable) showed out of the receive buffer; the peer's window opens accordingly.
    pub fn consume(&mut self, id: ConnectionId, len: usize, now: Instant) {
        let _ = (id, len, now);
        todo!()
    }

    /// How many bytes [`write`](Self::write) would take now.
    pub fn writable(&self, id: ConnectionId) -> usize {
        let _ = id;
        todo!()
    }

    /// Queues bytes to send and gives how many it took; less than all asks for an [`Event::Writable`] later.
    pub fn write(&mut self, id: ConnectionId, bytes: &[u8], now: Instant) -> usize {
        let _ = (id, bytes, now);
        todo!()
    }

    /// Bytes written and not yet acknowledged.
    pub fn unacknowledged(&self, id: ConnectionId) -> usize {
        let _ = id;
        todo!()
    }

    /// Sends FIN behind what is queued. Reading goes on.
    pub fn shutdown(&mut self, id: ConnectionId, now: Instant) {
        let _ = (id, now);
        todo!()
    }

    /// Sends RST and forgets the connection at once. No event follows.
    pub fn abort(&mut self, id: ConnectionId, now: Instant) {
        let _ = (id, now);
        todo!()
    }
}

crate::counters! {
    /// What a lane's TCP counts.
    pub struct Counters {
        /// TCP segments received
        counter segments_received,
        /// TCP segments sent
        counter segments_sent,
        /// Connections in the table
        gauge connections,
    }
}
