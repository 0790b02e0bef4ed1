//! One relayed connection: the client's leg with its TLS session, the server's leg, and the bytes between them.
//!
//! ```text
//!     ┌──persisted by address──▶ Recalling ──recalled──┐
//!     │                            ┌──has to wait──▶ Queued ──admitted──┐
//! Handshake ──established──────────┴─▶ Connecting ◀────────────────────┘ ──connected──▶ Open ──both closed──▶ over
//!     │                                            └──connected──▶ Securing ──secured──▲
//!     └──────TLS failure──▶ Closing (the alert is on its way) ─────────────────▶ over
//! ```

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::balance::{Backend, Outcome, Pool, PoolDownAction, ServerIndex};
use crate::base::{Duration, Instant, UnixTime};
use crate::persistence::tls::Returning;
use crate::persistence::{self, Decision, OnLimit, Reason, SelectNewServer};
use crate::relay::patience::Patience;
use crate::relay::pump::{drop_input, read};
use crate::relay::server_leg::{Secured, Step};
use crate::relay::timing::{Times, Timing};
use crate::relay::{Counters, End, Service};
use crate::tcp::{self, Close, ConnectionId, Readable, Stack};
use crate::ticket::Mapping;
use crate::tls::client::Target;
use crate::tls::{Desk, Failure, Handshake, Progress, Session};

/// Which of a relay's two TCP connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Client,
    /// The server's.
    Server,
}

/// What a relay wants after it has worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Something must happen first: an event, or its deadline.
    Wait,
    /// There is more to do at once.
    Again,
    /// The mapping of the client's address: answer with [`Relay::on_recalled`].
    Recall,
    /// A connection to this server: answer with [`Relay::on_connecting`] or [`Relay::on_no_connection`].
    Connect(ServerIndex),
    /// A connection to another server than those that it [has tried](Relay::tried) in vain: answer with [`Relay::on_other_server`].
    TryOther,
    /// Nothing more: it has ended so, and neither leg exists any longer.
    Over(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshake,
    /// The mapping of the client's address is asked for.
    Recalling,
    /// The client waits for a place at its server.
    Queued,
    Connecting,
    /// TLS with the server shakes hands.
    Securing,
    Open,
    /// A session has failed: its alert goes out, whatever comes in is dropped.
    Closing,
}

/// One relayed connection.
#[derive(Debug)]
pub struct Relay {
    service: Arc<Service>,
    pub(super) session: Session,
    stage: Stage,
    pub(super) client: Option<ConnectionId>,
    /// Where the client connects from.
    address: IpAddr,
    pub(super) server: Option<ConnectionId>,
    /// TLS with the server, where its pool wants that.
    pub(super) secured: Option<Box<Secured>>,
    /// The client's stream has ended and the server has been told.
    pub(super) upstream_closed: bool,
    /// The server's stream has ended and the client has been told.
    pub(super) downstream_closed: bool,
    end: Option<End>,
    handshake: Option<Handshake>,
    /// A client that had to wait has its place.
    admitted: bool,
    /// How the last connection to a server failed, until there is another.
    failed: Option<End>,
    /// Servers that were connected to in vain.
    tried: Vec<ServerIndex>,
    pub(super) patience: Patience,
    pub(super) timing: Timing,
    began: Instant,
    established: Option<Instant>,
    pub(super) moved: Instant,
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Relay {
    /// A relay for a client that has just connected, from this address.
    pub fn new(service: Arc<Service>, client: ConnectionId, address: IpAddr, now: Instant) -> Self {
        Self {
            session: Session::new(&service.tls, address),
            address,
            service,
            stage: Stage::Handshake,
            client: Some(client),
            server: None,
            secured: None,
            upstream_closed: false,
            downstream_closed: false,
            end: None,
            handshake: None,
            admitted: false,
            failed: None,
            tried: Vec::new(),
            patience: Patience::NEW,
            timing: Timing::default(),
            began: now,
            established: None,
            moved: now,
            received: 0,
            sent: 0,
        }
    }

    /// The virtual service that the client connected to.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// What the TLS handshake came to, once it has ended.
    pub fn handshake(&self) -> Option<&Handshake> {
        self.handshake.as_ref()
    }

    /// Where the client goes, once that is decided: from then on it has a place at that server or waits for one, for whoever drives the relay to give back.
    pub fn decision(&self) -> Option<Decision> {
        let decision =
            self.handshake.as_ref().map_or_else(|| self.session.decision(), |handshake| Some(handshake.decision));
        decision.filter(|decision| decision.reason != Reason::Recalling)
    }

    /// Whether its server's leg is over, or will never be, though the client's may go on.
    pub fn has_done_with_server(&self) -> bool {
        let is_past = match self.stage {
            Stage::Open | Stage::Closing => true,
            Stage::Handshake | Stage::Recalling | Stage::Queued | Stage::Connecting | Stage::Securing => false,
        };
        is_past && self.server.is_none()
    }

    /// The server that the client got, once it has got one.
    pub fn chosen(&self) -> Option<ServerIndex> {
        let decision = self.handshake.as_ref()?.decision;
        decision.server.filter(|_| self.admitted || !decision.must_wait())
    }

    /// The TCP connections of its legs that are open.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> + use<> {
        self.client.into_iter().chain(self.server)
    }

    /// The server name that the client asks for, once its ClientHello has come.
    pub fn server_name(&self) -> Option<&str> {
        let handshake = self.handshake.as_ref().and_then(|handshake| handshake.server_name.as_deref());
        handshake.or_else(|| self.session.server_name())
    }

    /// Whether a TLS handshake goes on, the client's or the server's: then [`work`](Self::work) may take a step of it.
    pub fn is_handshaking(&self) -> bool {
        [Stage::Handshake, Stage::Securing].contains(&self.stage)
    }

    /// Whether it is the server's: each step of that is dear.
    pub fn is_securing(&self) -> bool {
        self.stage == Stage::Securing
    }

    /// Whether the client's ClientHello is still to be worked on: that is the dear step.
    pub fn awaits_hello(&self) -> bool {
        self.stage == Stage::Handshake && self.session.awaits_hello()
    }

    /// When the client connected.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Where its time went so far.
    pub fn times(&self) -> Times {
        self.timing.times(self.established.map(|established| established - self.began))
    }

    /// How the last connection to a server failed, until there is another.
    pub fn failed(&self) -> Option<End> {
        self.failed
    }

    /// Bytes of application data from and to the client.
    pub fn bytes(&self) -> (u64, u64) {
        (self.received, self.sent)
    }

    /// Takes an event of one of its connections. [`work`](Self::work) is wanted after it.
    pub fn on_event(&mut self, side: Side, event: tcp::Event, stack: &mut Stack, now: Instant) {
        match event {
            tcp::Event::Closed(close) => self.on_closed(side, close),
            tcp::Event::Connected => self.on_connected(stack, now),
            tcp::Event::Accepted | tcp::Event::Readable | tcp::Event::Writable => {}
        }
    }

    fn on_closed(&mut self, side: Side, close: Close) {
        let end = match (side, close) {
            (_, Close::Finished) => None,
            (Side::Client, Close::Reset | Close::Refused) => Some(End::ClientReset),
            (Side::Client, Close::TimedOut | Close::Unreachable) => Some(End::ClientTimedOut),
            (Side::Server, Close::Refused) => Some(End::ServerRefused),
            (Side::Server, Close::Reset) => Some(End::ServerReset),
            (Side::Server, Close::TimedOut) => Some(End::ServerTimedOut),
            (Side::Server, Close::Unreachable) => Some(End::ServerUnreachable),
        };
        match side {
            Side::Client => self.client = None,
            Side::Server => {
                self.server = None;
                self.patience.on_closed(close);
            }
        }
        if side == Side::Server && self.is_connecting() {
            // One that ends in order all the same has not shaken hands.
            self.failed = self.failed.or(end).or(Some(End::ServerTruncated));
        } else {
            self.end = self.end.or(end);
        }
    }

    /// Whether nothing of the client's has been said to a server yet.
    fn is_connecting(&self) -> bool {
        [Stage::Connecting, Stage::Securing].contains(&self.stage)
    }

    /// Whether a server that cannot be connected to is not the end: nothing has been said to it, the client may go to another one, and not too many have been
    /// tried. The mapping stays: tickets left with the handshake.
    fn may_try_other(&self, pool: &Pool) -> bool {
        let Some(handshake) = self.handshake.as_ref().filter(|_| self.is_connecting()) else { return false };
        let retries = pool.failover.connect_retries;
        let most = if handshake.decision.reason == Reason::Disputed {
            // Another engine says that it is up: that is not worth more than one try.
            retries.max(1)
        } else if self.is_bound_to_server() {
            0
        } else {
            retries
        };
        self.tried.len() < usize::from(most)
    }

    /// Whether the profile allows its clients no other server than theirs: from the first connection on, whose tickets name it.
    fn is_bound_to_server(&self) -> bool {
        let select = self.service.tls.profile().map(|profile| profile.select_new_server_when_persistent_server_down);
        select.is_some_and(|select| select != SelectNewServer::Immediate)
    }

    /// Whether a server that has not answered in time is given up for another one: [`work`](Self::work) is wanted then.
    pub fn gives_up_server(&mut self, pool: &Pool, stack: &mut Stack, now: Instant) -> bool {
        let gives_up = self.may_try_other(pool);
        if gives_up {
            self.failed = Some(End::ServerTimedOut);
            self.patience.on_failed();
            self.moved = now;
            if let Some(server) = self.server.take() {
                stack.abort(server, now);
            }
        }
        gives_up
    }

    /// The server cannot be connected to: another one, or the end.
    fn on_failed(&mut self, end: End, pool: &Pool, stack: &mut Stack, now: Instant) -> Next {
        if end.blames_server() {
            self.patience.on_failed();
        }
        if !self.may_try_other(pool) {
            self.fail_server(end, stack, now);
            return Next::Wait;
        }
        if let Some(server) = self.server.take() {
            stack.abort(server, now);
        }
        let server = self.handshake.as_ref().and_then(|handshake| handshake.decision.server);
        self.tried.extend(server);
        Next::TryOther
    }

    /// The servers that were connected to in vain.
    pub fn tried(&self) -> &[ServerIndex] {
        &self.tried
    }

    /// What [`Next::TryOther`] asked for: a server with a place for this connection, if there is one.
    pub fn on_other_server(&mut self, server: Option<ServerIndex>) {
        let failed = self.failed.take();
        match (server, &mut self.handshake) {
            (Some(server), Some(handshake)) => handshake.decision.server = Some(server),
            (Some(_) | None, _) => self.end = self.end.or(failed),
        }
    }

    fn on_connected(&mut self, stack: &mut Stack, now: Instant) {
        let Some(server) = self.server else { return };
        self.stage = if self.secured.is_some() { Stage::Securing } else { Stage::Open };
        self.moved = now;
        if self.stage == Stage::Open {
            self.patience.on_connected(now);
            self.timing.on_connected(now);
        }
        let flow = self.client.and_then(|client| stack.flow(client));
        if let (Some(version), Some(flow)) = (self.service.proxy_protocol, flow) {
            // A fresh connection has room for a header of at most `proxy::HEADER_MAX` bytes.
            let header = version.header(flow.remote(), flow.local(), self.handshake.as_ref());
            stack.write(server, &header, now);
        }
    }

    /// The connection that [`Next::Connect`] asked for is under way, to a server that is spoken to in TLS so, or in plain.
    pub fn on_connecting(&mut self, server: ConnectionId, target: Option<&Arc<Target>>, now: Instant) {
        let alpn = self.handshake.as_ref().and_then(|handshake| handshake.alpn.as_deref());
        self.secured = target.map(|target| Box::new(Secured::new(target, alpn)));
        self.patience.on_connecting(now);
        self.timing.on_connecting(now);
        self.server = Some(server);
        self.stage = Stage::Connecting;
        self.moved = now;
    }

    /// The client, which had to wait, has a place at its server. [`work`](Self::work) is wanted after it.
    pub fn on_admitted(&mut self, now: Instant) {
        self.admitted = true;
        self.moved = now;
    }

    /// There will be no connection to this server.
    pub fn on_no_connection(&mut self, end: End) {
        if end.blames_server() {
            self.patience.on_no_way();
        }
        self.failed = Some(end);
    }

    /// Does what can be done now, in bounded time: at most one handshake step, at most [`WORK_MAX`] bytes each way.
    ///
    /// `backend` is where the client may go now; it matters while the handshake goes on.
    pub fn work(
        &mut self,
        stack: &mut Stack,
        desk: &mut Box<Desk>,
        backend: &Rc<Backend>,
        counters: &Counters,
        now: Instant,
    ) -> Next {
        let next = match self.stage {
            _ if self.end.is_some() && self.stage != Stage::Closing => Next::Wait,
            Stage::Handshake => self.shake(stack, desk, backend, counters, now),
            Stage::Queued => self.go_on(backend, stack, now),
            Stage::Connecting | Stage::Securing => match self.failed {
                Some(end) => self.on_failed(end, backend.pool(), stack, now),
                None => self.secure(stack, desk, counters, now),
            },
            Stage::Recalling => Next::Wait,
            Stage::Open => self.pump(stack, desk, backend, now),
            Stage::Closing => {
                drop_input(self.client, stack, now);
                drop_input(self.server, stack, now);
                Next::Wait
            }
        };
        self.conclude(next, stack, now)
    }

    /// One handshake step.
    fn shake(
        &mut self,
        stack: &mut Stack,
        desk: &mut Box<Desk>,
        backend: &Rc<Backend>,
        counters: &Counters,
        now: Instant,
    ) -> Next {
        let taken = match read(stack, self.client) {
            Readable::Data(bytes) => self.session.on_data(bytes),
            Readable::Empty => return Next::Wait,
            Readable::Finished => {
                self.end = Some(End::ClientGone);
                return Next::Wait;
            }
        };
        let progress = taken.and_then(|taken| {
            if let Some(client) = self.client {
                stack.consume(client, taken, now);
            }
            self.session.advance(desk, backend)
        });
        self.flush(stack, now);
        match progress {
            Ok(Progress::Handshaking | Progress::Open) if self.session.peer_has_closed() => {
                self.end = Some(End::ClientGone);
                Next::Wait
            }
            // The session's buffer is full of a message that does not end in it: nothing that the client sends can help.
            Ok(Progress::Handshaking | Progress::Open) if taken == Ok(0) => {
                self.fail(End::Tls(Failure::Protocol), stack, now);
                Next::Again
            }
            Ok(Progress::Handshaking | Progress::Open) => Next::Again,
            Ok(Progress::Established(handshake)) => {
                counters.on_handshake(&handshake);
                self.service.tally.on_handshake(handshake.resumed);
                self.on_established(handshake, backend, stack, now)
            }
            Err(failure) => {
                self.fail(End::Tls(failure), stack, now);
                Next::Again
            }
        }
    }

    fn on_established(&mut self, handshake: Handshake, backend: &Backend, stack: &mut Stack, now: Instant) -> Next {
        let decision = handshake.decision;
        self.handshake = Some(handshake);
        self.established = Some(now);
        self.timing.on_established(self.client.and_then(|client| stack.inspect(client)?.srtt));
        self.moved = now;
        if decision.reason == Reason::Recalling {
            self.stage = Stage::Recalling;
            return Next::Recall;
        }
        self.stage = Stage::Queued;
        self.go_on(backend, stack, now)
    }

    /// What [`Next::Recall`] asked for: decides where the client goes. Gives the mapping that it has from now on, if it has another one than before.
    /// [`work`](Self::work) is wanted after it.
    pub fn on_recalled(
        &mut self,
        mapping: Option<&Mapping>,
        backend: &Backend,
        counters: &Counters,
        unix: UnixTime,
        now: Instant,
    ) -> Option<Mapping> {
        let is_waiting = self.stage == Stage::Recalling && self.end.is_none();
        let handshake = self.handshake.as_mut().filter(|_| is_waiting)?;
        let profile = self.service.tls.profile();
        // No other engine has a say in a table.
        let returning = mapping.map(|mapping| Returning { mapping: *mapping, is_ours: true });
        let profile = profile.map(|profile| &**profile);
        let decision = persistence::tls::decide(returning.as_ref(), profile, backend, self.address, unix);
        handshake.decision = decision;
        handshake.wanted = mapping.map(|mapping| mapping.server);
        counters.on_decided(decision.reason);
        self.moved = now;
        self.stage = Stage::Queued;
        let kept = persistence::tls::mapping_to_seal(&decision, mapping, backend.pool(), unix);
        kept.filter(|kept| mapping != Some(kept))
    }

    /// There is no server for the client. It learns of it by a reset, or by an alert where its pool is down and says so: a reset can come from anybody.
    fn turn_away(&mut self, reason: Reason, backend: &Backend, stack: &mut Stack, now: Instant) {
        if ![Reason::PoolDown, Reason::PoolFull].contains(&reason) {
            self.end = Some(End::Refused);
        } else if backend.pool().failover.pool_down_action == PoolDownAction::TlsAlert {
            self.session.turn_away();
            self.fail(End::NoServer, stack, now);
        } else {
            self.end = Some(End::NoServer);
        }
    }

    /// It is decided where the client goes: asks for the connection to the server, if the client has a place there.
    fn go_on(&mut self, backend: &Backend, stack: &mut Stack, now: Instant) -> Next {
        if let Some(server) = self.chosen() {
            self.stage = Stage::Connecting;
            return Next::Connect(server);
        }
        let decision = self.handshake.as_ref().map(|handshake| handshake.decision);
        if let Some(Decision { server: None, reason }) = decision {
            self.turn_away(reason, backend, stack, now);
        }
        Next::Wait
    }

    /// One step of the TLS handshake with the server.
    fn secure(&mut self, stack: &mut Stack, desk: &mut Desk, counters: &Counters, now: Instant) -> Next {
        let (Stage::Securing, Some(server), Some(secured)) = (self.stage, self.server, &mut self.secured) else {
            return Next::Wait;
        };
        match secured.shake(server, stack, desk.now(), now) {
            Ok(Step::Wait) => return Next::Wait,
            Ok(Step::Again) => {}
            Ok(Step::Established { resumed }) => {
                counters.on_server_handshake(resumed);
                self.stage = Stage::Open;
                self.patience.on_connected(now);
                self.timing.on_connected(now);
                self.moved = now;
            }
            Err(end) => self.failed = Some(end),
        }
        Next::Again
    }

    /// The server has failed, and the client learns of it by a reset. What TLS has to tell the server goes out, then FIN, so that it arrives.
    pub(super) fn fail_server(&mut self, end: End, stack: &mut Stack, now: Instant) {
        self.end = self.end.or(Some(end));
        if let (End::ServerTls(_), Some(server), Some(secured)) = (end, self.server, &mut self.secured) {
            self.stage = Stage::Closing;
            self.moved = now;
            secured.give_up(server, stack, now);
            if let Some(client) = self.client.take() {
                stack.abort(client, now);
            }
        }
    }

    /// The session has failed: the alert, then FIN, so that the alert arrives; the server learns of it by a reset.
    pub(super) fn fail(&mut self, end: End, stack: &mut Stack, now: Instant) {
        self.end = self.end.or(Some(end));
        self.stage = Stage::Closing;
        self.moved = now;
        self.flush(stack, now);
        if let Some(client) = self.client {
            stack.shutdown(client, now);
        }
        if let Some(server) = self.server.take() {
            stack.abort(server, now);
        }
    }

    /// Passes a leg's failure on to the other leg, and says when the relay is over.
    fn conclude(&mut self, next: Next, stack: &mut Stack, now: Instant) -> Next {
        if self.end.is_some() && self.stage != Stage::Closing {
            // A reset is mapped to a reset, and so is everything else that is not an orderly end.
            for leg in [self.client.take(), self.server.take()].into_iter().flatten() {
                stack.abort(leg, now);
            }
        }
        match (self.client, self.server) {
            (None, None) => Next::Over(self.end.unwrap_or(End::Finished)),
            (Some(_), _) | (_, Some(_)) => next,
        }
    }

    /// When [`on_timeout`](Self::on_timeout) is wanted; moves into the future as bytes flow.
    pub fn deadline(&self) -> Instant {
        let timeouts = &self.service.timeouts;
        match self.stage {
            Stage::Handshake | Stage::Recalling => self.began + timeouts.handshake,
            Stage::Queued => self.moved + self.patience(),
            // Once for TCP's handshake, and once more for that of TLS.
            Stage::Connecting | Stage::Securing => self.moved + timeouts.connect,
            Stage::Open if self.upstream_closed || self.downstream_closed => self.moved + timeouts.half_closed,
            Stage::Open => self.moved + timeouts.idle,
            Stage::Closing => self.moved + timeouts.half_closed,
        }
    }

    /// How long the client may wait for a place.
    fn patience(&self) -> Duration {
        match self.service.tls.profile().map(|profile| profile.on_limit) {
            Some(OnLimit::Queue(queue)) => queue.timeout,
            // Nobody waits without a queue.
            Some(OnLimit::Switch | OnLimit::Spill | OnLimit::Refuse) | None => Duration::ZERO,
        }
    }

    /// Its deadline has come: gives up. The end, once both legs are gone.
    pub fn on_timeout(&mut self, stack: &mut Stack, now: Instant) -> End {
        let end = match self.stage {
            Stage::Handshake | Stage::Recalling => End::HandshakeTimedOut,
            Stage::Queued => End::QueueTimedOut,
            Stage::Connecting | Stage::Securing => {
                self.patience.on_failed();
                End::ServerTimedOut
            }
            Stage::Open | Stage::Closing => End::IdleTimedOut,
        };
        self.abandon(end, stack, now)
    }

    /// What it has come to say of its server, once.
    pub fn take_outcome(&mut self) -> Option<Outcome> {
        self.patience.take()
    }

    /// Nothing more will come.
    pub fn on_over(&mut self, now: Instant) {
        self.patience.on_over(now);
    }

    /// Resets both legs. Gives the end, which is an earlier one if there was one.
    pub fn abandon(&mut self, end: End, stack: &mut Stack, now: Instant) -> End {
        for leg in [self.client.take(), self.server.take()].into_iter().flatten() {
            stack.abort(leg, now);
        }
        *self.end.get_or_insert(end)
    }
}
