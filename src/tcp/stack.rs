//! One lane's TCP: what its user calls, and the bookkeeping after each call.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::{Bucket, Flow, Instant, Random, Wheel};
use crate::tcp::ahead::AHEAD;
use crate::tcp::connection::{Connection, Env};
use crate::tcp::cookie::Cookies;
use crate::tcp::depart::{Offload, Train};
use crate::tcp::half_open::HalfOpens;
use crate::tcp::index::{Index, Key, Place, READY_MAX};
use crate::tcp::isn::{Isn, Keyed};
use crate::tcp::memory::Memory;
use crate::tcp::paths::Paths;
use crate::tcp::queue::Queue;
use crate::tcp::source::{SourceId, Sources};
use crate::tcp::state::State;
use crate::tcp::table::Table;
use crate::tcp::time_wait::{TimeWait, TimeWaits};
use crate::tcp::trace::{Trace, Tracer};
use crate::tcp::{Close, ConnectionId, Counters, Event, Inspection, Refused, Settings, Token};
use crate::wire::{Ecn, Flags, Outgoing, SegmentOptions, Seq};

/// Segments that a connection sends before the next one has its turn.
const BURST: u32 = 8;
/// Timers that one call fires.
const TIMEOUTS_MAX: usize = 256;
/// Most packets of no connection (resets, SYN-ACKs, answers from TIME-WAIT) that wait to be sent. Beyond it they are dropped and counted.
pub(super) const REPLIES_MAX: usize = 1024;

/// Whose time has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alarm {
    Connection(u32),
    HalfOpen(u32),
}

/// A packet without data that no connection keeps.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) flow: Flow,
    pub(super) seq: Seq,
    pub(super) ack: Option<Seq>,
    pub(super) flags: Flags,
    pub(super) window: u16,
    pub(super) options: SegmentOptions,
}

/// One lane's TCP.
#[derive(Debug)]
pub struct Stack {
    pub(super) settings: Settings,
    pub(super) counters: Arc<Counters>,
    pub(super) isn: Isn,
    pub(super) cookies: Cookies,
    /// By [`Flow::local_key`].
    pub(super) listeners: HashMap<[u8; 18], Token, Keyed>,
    pub(super) index: Index,
    pub(super) connections: Table<Connection>,
    pub(super) half_open: HalfOpens,
    pub(super) time_wait: TimeWaits,
    pub(super) sources: Sources,
    pub(super) timers: Wheel<Alarm>,
    pub(super) replies: VecDeque<Reply>,
    /// Whose turn to send it is while there are replies and connections with something to send.
    reply_is_next: bool,
    pub(super) reset_limit: Bucket,
    /// Connections with something to send, in turn.
    pub(super) sending: Queue,
    /// What the connection in turn may still send.
    turn: u32,
    /// Connections with events to fetch.
    pub(super) news: Queue,
    pub(super) buffered: usize,
    pub(super) tracer: Tracer,
    pub(super) paths: Paths,
}

impl Stack {
    /// A stack without connections.
    pub fn new(settings: Settings, mut random: Random, counters: Arc<Counters>) -> Self {
        for (gauge, most) in [
            (&counters.connections_max, settings.connections_max),
            (&counters.half_open_max, settings.half_open_max),
            (&counters.time_wait_max, settings.time_wait_max),
            (&counters.buffered_bytes_max, settings.memory_max),
        ] {
            gauge.set(u64::try_from(most).unwrap_or(u64::MAX));
        }
        Self {
            isn: Isn::new(&mut random),
            cookies: Cookies::new(&mut random.fork()),
            listeners: HashMap::with_hasher(Keyed::new(&mut random)),
            index: Index::new(Keyed::new(&mut random), settings.flows_max()),
            connections: Table::new(),
            half_open: HalfOpens::new(),
            time_wait: TimeWaits::new(settings.time_wait),
            sources: Sources::new(&mut random),
            timers: Wheel::with_room(settings.flows_max().min(READY_MAX)),
            replies: VecDeque::new(),
            reply_is_next: true,
            reset_limit: Bucket::new(settings.resets_per_second, settings.resets_per_second),
            sending: Queue::with_room(settings.connections_max.min(READY_MAX)),
            turn: BURST,
            news: Queue::with_room(settings.connections_max.min(READY_MAX)),
            buffered: 0,
            tracer: Tracer::new(Arc::new(Trace::off())),
            paths: Paths::new(&mut random),
            settings,
            counters,
        }
    }

    /// Writes what connections do into `trace` from now on. Without, nothing is traced.
    pub fn trace_into(&mut self, trace: Arc<Trace>) {
        self.tracer = Tracer::new(trace);
    }

    /// Accepts connections to `local`.
    ///
    /// # Errors
    /// [`Refused::InUse`] when there is a listener already.
    pub fn listen(&mut self, local: SocketAddr, token: Token) -> Result<(), Refused> {
        let key = Flow::new(local, local).local_key();
        if self.listeners.contains_key(&key) {
            return Err(Refused::InUse);
        }
        self.listeners.insert(key, token);
        Ok(())
    }

    /// Accepts no more connections to `local`. Those that are open stay, and handshakes that have begun may end.
    pub fn unlisten(&mut self, local: SocketAddr) {
        self.listeners.remove(&Flow::new(local, local).local_key());
    }

    /// Begins a connection.
    ///
    /// # Errors
    /// [`Refused`] says why not.
    pub fn connect(&mut self, flow: Flow, token: Token, now: Instant) -> Result<ConnectionId, Refused> {
        let key = self.index.key(&flow);
        if self.place_with(key, &flow).is_some() {
            return Err(Refused::InUse);
        }
        if self.connections.len() >= self.settings.connections_max {
            self.counters.table_full.increment();
            return Err(Refused::TableFull);
        }
        if self.memory() == Memory::Exhausted {
            self.counters.memory_full.increment();
            return Err(Refused::TableFull);
        }
        let origin = self.isn.origin(&flow);
        let index = self.connections.insert(Connection::open(
            flow,
            token,
            origin.sequence(now),
            origin.timestamp_offset(),
            self.env(now),
        ));
        self.index.insert(key, Place::Connection(index));
        self.counters.connected.increment();
        self.settle(index, now);
        // The slot has just been filled.
        self.connections.id(index).ok_or(Refused::TableFull)
    }

    /// Whether connections to the flow's local end are accepted.
    pub fn listens(&self, flow: &Flow) -> bool {
        self.listeners.contains_key(&flow.local_key())
    }

    /// Whether a connection, half-open connection or TIME-WAIT entry has this flow.
    pub fn knows(&self, flow: &Flow) -> bool {
        self.place_of(flow).is_some()
    }

    /// The state of what has this flow, in whichever table it is. A handshake that a peer has begun is in SYN-RECEIVED.
    pub fn state_of(&self, flow: &Flow) -> Option<State> {
        match self.place_of(flow)? {
            Place::Connection(index) => Some(self.connections.at(index)?.state),
            Place::HalfOpen(_) => Some(State::SynReceived),
            Place::TimeWait(_) => Some(State::TimeWait),
        }
    }

    /// Takes the news that the network cannot deliver to a flow's peer (ICMP destination unreachable).
    ///
    /// It ends a connection that we are opening (RFC 5461). For one that is open it proves nothing (RFC 1122 4.2.3.9): retransmission decides.
    pub fn on_unreachable(&mut self, flow: &Flow, now: Instant) {
        let Some(Place::Connection(index)) = self.place_of(flow) else { return };
        let Some(connection) = self.connections.at_mut(index) else { return };
        if connection.state == State::SynSent {
            connection.end(Close::Unreachable);
            self.settle(index, now);
        } else {
            self.counters.soft_errors.increment();
        }
    }

    /// The same news with the sequence number of the segment that it quotes: taken only if that segment may be under way (RFC 5927 4.1), which
    /// somebody outside the path must guess.
    pub fn on_unreachable_segment(&mut self, flow: &Flow, seq: Seq, now: Instant) {
        let connection = match self.place_of(flow) {
            Some(Place::Connection(index)) => self.connections.at(index),
            Some(Place::HalfOpen(_) | Place::TimeWait(_)) | None => None,
        };
        if connection.is_some_and(|connection| connection.sender.is_under_way(seq)) {
            self.on_unreachable(flow, now);
        } else {
            self.counters.unreachables_ignored.increment();
        }
    }

    /// Takes the news that the packet with this segment of ours is too long for a link of this MTU (RFC 1191, RFC 8201); an MTU of 0 is one that the router
    /// does not know how to say. Like other errors it counts only where the segment may be under way, and not all that it says is believed (RFC 5927 7.2).
    pub fn on_packet_too_big(&mut self, flow: &Flow, seq: Seq, mtu: u32, now: Instant) {
        let (settings, counters, memory, tracer) = (&self.settings, &*self.counters, self.memory(), &self.tracer);
        let index = match self.place_of(flow) {
            Some(Place::Connection(index)) => Some(index),
            Some(Place::HalfOpen(_) | Place::TimeWait(_)) | None => None,
        };
        let connection = index.and_then(|index| Some((index, self.connections.at_mut(index)?)));
        let Some((index, connection)) = connection.filter(|(_, connection)| connection.sender.is_under_way(seq)) else {
            return counters.packets_too_big_ignored.increment();
        };
        connection.on_packet_too_big(seq, mtu, Env { settings, counters, now, memory, tracer });
        self.learn_path(index, now);
        self.settle(index, now);
    }

    /// What a connection has learned about its path is for all that follow it to the same host.
    fn learn_path(&mut self, index: u32, now: Instant) {
        let Some(connection) = self.connections.at_mut(index) else { return };
        if let Some(mtu) = connection.take_path_news()
            && self.paths.learn(connection.flow.remote().ip(), mtu, now)
        {
            self.counters.paths_recycled.increment();
        }
    }

    /// Fires the timers that are due and forgets what is in TIME-WAIT no more, 256 of each at most: if there are more,
    /// [`poll_at`](Self::poll_at) has come still. Between two calls, send what there is to send, or a million timers that fire at once delay everybody.
    pub fn on_timeout(&mut self, now: Instant) {
        for _ in 0..TIMEOUTS_MAX {
            match self.time_wait.oldest() {
                Some((index, entry)) if entry.expires_at <= now => self.forget_time_wait(index),
                Some(_) | None => break,
            }
        }
        self.sources.on_timeout(now);
        for _ in 0..TIMEOUTS_MAX / AHEAD {
            let due: SmallVec<[Alarm; AHEAD]> = std::iter::from_fn(|| self.timers.expire(now)).take(AHEAD).collect();
            if due.is_empty() {
                break;
            }
            self.touch(due.iter().filter_map(|alarm| match alarm {
                Alarm::Connection(index) => Some(*index),
                Alarm::HalfOpen(_) => None,
            }));
            for alarm in due {
                match alarm {
                    Alarm::HalfOpen(index) => self.on_half_open_timeout(index, now),
                    Alarm::Connection(index) => self.on_connection_timeout(index, now),
                }
            }
        }
        self.publish();
    }

    fn on_connection_timeout(&mut self, index: u32, now: Instant) {
        let (settings, counters, memory, tracer) = (&self.settings, &*self.counters, self.memory(), &self.tracer);
        if let Some(connection) = self.connections.at_mut(index) {
            connection.timer = None;
            connection.on_timeout(Env { settings, counters, now, memory, tracer });
            self.learn_path(index, now);
            self.settle(index, now);
        }
    }

    /// When [`on_timeout`](Self::on_timeout) is wanted next.
    pub fn poll_at(&self) -> Option<Instant> {
        let time_wait = self.time_wait.oldest().map(|(_, entry)| entry.expires_at);
        self.timers.poll_at().into_iter().chain(time_wait).chain(self.sources.poll_at()).min()
    }

    /// The next event. At most one of each kind waits for each connection, so their number is bounded by the table.
    pub fn poll_event(&mut self) -> Option<(ConnectionId, Token, Event)> {
        while let Some(index) = self.news.front() {
            let Some((id, connection)) = self.connections.id(index).zip(self.connections.at_mut(index)) else {
                self.news.remove(index);
                continue;
            };
            let token = connection.token;
            let news = &mut connection.news;
            let event = if std::mem::take(&mut news.accepted) {
                Event::Accepted
            } else if std::mem::take(&mut news.connected) {
                Event::Connected
            } else if std::mem::take(&mut news.readable) {
                Event::Readable
            } else if std::mem::take(&mut news.writable) {
                Event::Writable
            } else if let (Some(close), true) = (connection.over, connection.end_may_be_told()) {
                self.release(index);
                return Some((id, token, Event::Closed(close)));
            } else {
                self.news.remove(index);
                continue;
            };
            return Some((id, token, event));
        }
        self.publish();
        None
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) may have something to send: asks before a packet buffer is taken for it.
    pub fn wants_transmit(&self) -> bool {
        !self.replies.is_empty() || self.sending.front().is_some()
    }

    /// Writes the next IP packet to send into `room` (at least the MTU long) and gives its length.
    ///
    /// With `offload` the transport checksum field holds the pseudo header's sum only, for the NIC to finish. Packets of no connection and segments of
    /// connections take turns, so that a flood of strangers does not silence who is connected.
    pub fn poll_transmit(&mut self, room: &mut [u8], offload: bool, now: Instant) -> Option<usize> {
        self.poll(room, if offload { Offload::Checksum } else { Offload::None }, now).map(|train| train.len)
    }

    /// As [`poll_transmit`](Self::poll_transmit), for a NIC that cuts segments too: as many of one connection as fit `room` and may leave now.
    pub fn poll_train(&mut self, room: &mut [u8], now: Instant) -> Option<Train> {
        self.poll(room, Offload::Segmentation, now)
    }

    fn poll(&mut self, room: &mut [u8], offload: Offload, now: Instant) -> Option<Train> {
        let sent = if self.reply_is_next {
            let sent = self.transmit_reply(room, offload, now);
            self.reply_is_next = sent.is_none();
            sent.or_else(|| self.transmit_connection(room, offload, now))
        } else {
            self.reply_is_next = true;
            self.transmit_connection(room, offload, now).or_else(|| self.transmit_reply(room, offload, now))
        };
        if sent.is_none() {
            self.publish();
        }
        sent
    }

    fn transmit_reply(&mut self, room: &mut [u8], offload: Offload, now: Instant) -> Option<Train> {
        let reply = self.replies.pop_front()?;
        if self.is_traced(&reply.flow) {
            self.tracer.sent_alone(&reply, now);
        }
        let Reply { flow, seq, ack, flags, window, options } = reply;
        self.counters.segments_sent.increment();
        let reply = Outgoing { flow: &flow, seq, ack, flags, window, options, ecn: Ecn::NotEct, payload: &[] };
        Some(Train { len: reply.emit(room, offload != Offload::None)?, payload: 0, segments: 1 })
    }

    /// The next segment of the connection whose turn it is, or several.
    fn transmit_connection(&mut self, room: &mut [u8], offload: Offload, now: Instant) -> Option<Train> {
        let (settings, counters, memory, tracer) = (&self.settings, &*self.counters, self.memory(), &self.tracer);
        while let Some(index) = self.sending.front() {
            let plan = self.connections.at_mut(index).and_then(|connection| Some((connection.plan()?, connection)));
            let Some((plan, connection)) = plan else {
                self.sending.remove(index);
                self.turn = BURST;
                continue;
            };
            let train = connection.transmit(plan, room, offload, Env { settings, counters, now, memory, tracer })?;
            self.turn = self.turn.saturating_sub(train.segments);
            if self.turn == 0 {
                self.turn = BURST;
                self.sending.rotate(index);
            }
            self.settle(index, now);
            self.counters.segments_sent.add(train.segments.into());
            return Some(train);
        }
        None
    }

    /// Sets the token of a connection.
    pub fn set_token(&mut self, id: ConnectionId, token: Token) {
        if let Some(connection) = self.find_mut(id) {
            connection.token = token;
        }
    }

    /// The endpoints of a connection, while it lives.
    pub fn flow(&self, id: ConnectionId) -> Option<Flow> {
        Some(self.find(id)?.flow)
    }

    /// The state of a connection, while its id lives.
    pub fn state(&self, id: ConnectionId) -> Option<State> {
        Some(self.find(id)?.state)
    }

    /// The inside of a connection, while its id lives.
    pub fn inspect(&self, id: ConnectionId) -> Option<Inspection> {
        let connection = self.find(id)?;
        let (cwnd, ssthresh) = connection.recovery.windows();
        Some(Inspection {
            state: connection.state,
            srtt: connection.rtt.srtt(),
            rto: connection.rtt.rto(),
            cwnd,
            ssthresh,
            flight: connection.sender.flight(),
            snd_wnd: connection.sender.snd_wnd,
            rcv_wnd: connection.receiver.window(),
            mss: connection.sender.mss,
        })
    }

    /// Changes settings under way. It costs a look at every connection, as their timers may follow from them.
    pub(super) fn reconfigure(&mut self, now: Instant, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        for index in self.connections.indices() {
            self.settle(index, now);
        }
    }

    /// How much memory there is for buffers.
    pub(super) fn memory(&self) -> Memory {
        Memory::of(self.buffered, self.settings.memory_max)
    }

    pub(super) fn env(&self, now: Instant) -> Env<'_> {
        let memory = self.memory();
        Env { settings: &self.settings, counters: &self.counters, now, memory, tracer: &self.tracer }
    }

    /// Whether a flow without a connection is in the trace's sample: as it will be once it has one.
    pub(super) fn is_traced(&self, flow: &Flow) -> bool {
        self.tracer.is_on() && self.tracer.takes(self.isn.origin(flow).timestamp_offset())
    }

    /// Where a flow is.
    pub(super) fn place_of(&self, flow: &Flow) -> Option<Place> {
        self.place_with(self.index.key(flow), flow)
    }

    pub(super) fn place_with(&self, key: Key, flow: &Flow) -> Option<Place> {
        self.index.find(key, |place| self.flow_at(place) == Some(flow))
    }

    fn flow_at(&self, place: Place) -> Option<&Flow> {
        match place {
            Place::Connection(index) => self.connections.at(index).map(|connection| &connection.flow),
            Place::HalfOpen(index) => self.half_open.get(index as usize).map(|half| &half.flow),
            Place::TimeWait(index) => self.time_wait.at(index).map(|entry| &entry.flow),
        }
    }

    pub(super) fn find(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.at(self.connections.find(id)?)
    }

    pub(super) fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.at_mut(self.connections.find(id)?)
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        if self.replies.len() >= REPLIES_MAX {
            self.counters.replies_dropped.increment();
        } else {
            self.replies.push_back(reply);
        }
    }

    /// After every touch of a connection: queues what it wants, sets its timer, and takes it out of the index when it is over.
    pub(super) fn settle(&mut self, index: u32, now: Instant) {
        let (settings, counters, memory, tracer) = (&self.settings, &*self.counters, self.memory(), &self.tracer);
        let env = Env { settings, counters, now, memory, tracer };
        let Some(connection) = self.connections.at_mut(index) else { return };
        connection.rest();
        account(&mut self.buffered, connection);
        if connection.has_news() {
            self.news.push(index);
        }
        if connection.over.is_some() {
            return self.detach(index, now);
        }
        connection.watch_window(env);
        if connection.plan().is_some() {
            self.sending.push(index);
        } else {
            self.sending.remove(index);
        }
        // A timer that is early looks again when it fires, so one that is put off, as with every segment, costs nothing.
        match (connection.next_deadline(env), connection.timer) {
            (Some(deadline), Some((_, armed))) if armed <= deadline => {}
            (Some(deadline), armed) => {
                if let Some((timer, _)) = armed {
                    self.timers.cancel(timer);
                }
                connection.timer = Some((self.timers.arm(deadline, Alarm::Connection(index)), deadline));
            }
            (None, Some((timer, _))) => {
                self.timers.cancel(timer);
                connection.timer = None;
            }
            (None, None) => {}
        }
    }

    /// The connection is over: only its user knows it from now on.
    fn detach(&mut self, index: u32, now: Instant) {
        let (settings, counters, memory, tracer) = (&self.settings, &*self.counters, self.memory(), &self.tracer);
        let env = Env { settings, counters, now, memory, tracer };
        let Some(connection) = self.connections.at_mut(index) else { return };
        if std::mem::replace(&mut connection.detached, true) {
            return;
        }
        if let Some(how) = connection.over {
            tracer.ended(connection, how, now);
        }
        if let Some((timer, _)) = connection.timer.take() {
            self.timers.cancel(timer);
        }
        self.sending.remove(index);
        let (flow, source) = (connection.flow, connection.source.take());
        let key = self.index.key(&flow);
        self.index.remove(key, Place::Connection(index));
        if connection.state == State::TimeWait {
            let (seq, ack) = connection.last_numbers();
            let timestamp = connection.timestamp(env);
            let window = connection.receiver.advertise(true, memory);
            let ts_recent = connection.timestamps.map_or(0, |known| known.recent);
            let entry = TimeWait { expires_at: now, flow, snd_nxt: seq, rcv_nxt: ack, ts_recent };
            // The peer's FIN has just come: nobody else will acknowledge it.
            let options = SegmentOptions { timestamp, ..SegmentOptions::default() };
            if connection.receiver.ack_wanted() {
                self.reply(Reply { flow, seq, ack: Some(ack), flags: Flags::default(), window, options });
            }
            self.remember(entry, key, now);
        }
        self.leave_source(source, now);
    }

    /// A connection that its peer had opened is over.
    pub(super) fn leave_source(&mut self, source: Option<SourceId>, now: Instant) {
        if let Some(source) = source
            && self.sources.closed(source, now)
        {
            self.counters.sources_forgotten.increment();
        }
    }

    fn remember(&mut self, entry: TimeWait, key: Key, now: Instant) {
        if self.settings.time_wait_max == 0 {
            self.counters.time_wait_recycled.increment();
            return;
        }
        if self.time_wait.len() >= self.settings.time_wait_max
            && let Some((oldest, _)) = self.time_wait.oldest()
        {
            self.counters.time_wait_recycled.increment();
            self.forget_time_wait(oldest);
        }
        let place = Place::TimeWait(self.time_wait.insert(entry, now));
        self.index.insert(key, place);
    }

    pub(super) fn forget_time_wait(&mut self, index: u32) {
        if let Some(entry) = self.time_wait.remove(index) {
            self.index.remove(self.index.key(&entry.flow), Place::TimeWait(index));
        }
    }

    /// Frees a connection's slot.
    pub(super) fn release(&mut self, index: u32) {
        self.news.remove(index);
        self.sending.remove(index);
        if let Some(connection) = self.connections.remove(index) {
            self.buffered -= connection.accounted as usize;
            if let Some((timer, _)) = connection.timer {
                self.timers.cancel(timer);
            }
            if !connection.detached {
                self.index.remove(self.index.key(&connection.flow), Place::Connection(index));
            }
        }
    }

    /// Shows how full the tables are, after a burst and when there is nothing more to tell or to send.
    pub(super) fn publish(&self) {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.counters.connections.set(count(self.connections.len()));
        self.counters.half_open.set(count(self.half_open.len()));
        self.counters.time_wait.set(count(self.time_wait.len()));
        self.counters.sources.set(count(self.sources.len()));
        self.counters.buffered_bytes.set(count(self.buffered));
        self.counters.timers.set(count(self.timers.len()));
        self.counters.paths.set(count(self.paths.len()));
    }
}

/// Has `buffered` count what a connection holds now.
pub(super) fn account(buffered: &mut usize, connection: &mut Connection) {
    let held = connection.memory();
    *buffered = *buffered + held as usize - std::mem::replace(&mut connection.accounted, held) as usize;
}
