//! One core's run-to-completion pipeline. Control holds a [`Handle`] of each lane: orders go in, counters and records come out.
//!
//! A [`Lane`] owns everything it touches: queues, neighbours, connections, sessions, timers, ports, random generator. Drive it with
//! [`Lane::breath`] and nothing else. A breath does a bounded amount of work in this order: orders, frames in (`receive`),
//! timers, clients that wait for a place (`queue`), words about clients' mappings (`recall`), servers that are drained (`drain`), connections (`work`), frames out (`transmit`), new clients (`work`), frames out.
//!
//! What is short goes first: relays that move bytes, then handshakes that are nearly over, and when all of that has left, the ClientHellos, which cost most. Clients
//! are answered in the order in which they came and wait once, not again before each step of their handshake. Nobody starves: every breath serves each of the
//! three queues, a bounded number of turns, and whoever has had one goes to the end.

pub mod capture;
pub mod clock;
pub mod handle;
pub mod inbox;
pub mod record;

mod connect;
mod drain;
mod kernel;
mod orders;
mod probes;
mod queue;
mod recall;
mod receive;
mod run_queue;
mod station;
mod steer;
mod transmit;
mod work;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use crate::balance::{Board, LaneLoads, Loads, Shares, Slot};
use crate::base::{Duration, EngineId, Instant, LaneId, Random, ServiceId, Wheel};
use crate::health::Monitors;
use crate::nic::QueuePair;
use crate::tcp;
use crate::ticket::Ring;
use crate::tls::Desk;
use crate::tls::client::Target;

pub use clock::{Clock, SystemClock};
pub use connect::NoConnection;
pub use handle::{Counters, Handle, LaneCounters};
pub use inbox::{Inbox, Order, Snapshot};
pub use record::Record;
pub use station::Station;
pub use steer::Steering;

use drain::Drains;
use probes::Probes;
use queue::Queue;
use recall::Recall;
use run_queue::RunQueue;
use work::{Connection, Front};

/// Most connections past their handshake that a breath works on.
const CONNECTIONS_MAX: usize = 64;

/// Most handshakes that a breath goes on with whose ClientHello has been answered, some 30 µs each.
const HANDSHAKE_STEPS_MAX: usize = 4;

/// As how many of those a step of a handshake with a server counts: to say ClientHello makes keys, and the answer's certificates are verified. So a breath takes one.
const SECURING_STEP: usize = HANDSHAKE_STEPS_MAX;

/// A breath answers one ClientHello, and one more for so many other connections that it works on. An answer costs some 100 µs and whatever else has come waits
/// for it, so a breath with nothing else to do goes back to the NIC after one; but when there is no end of other things, new clients have their share.
const CONNECTIONS_PER_HELLO: usize = 16;

/// Breaths without anything to do before an adaptive lane sleeps.
const IDLE_BREATHS: u32 = 64;

/// The longest sleep of an adaptive lane: what it may add to the first packet after a silence.
const SLEEP_MAX: Duration = Duration::from_micros(500);

/// The shortest time between two looks at the occupancy of the packet buffers.
const BUFFERS_INTERVAL: Duration = Duration::from_millis(100);

/// Whether a lane without work rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Never: lowest latency, a full core.
    Busy,
    /// Sleeps up to half a millisecond at a time while nothing happens.
    Adaptive,
}

/// What a lane is made of.
#[derive(Debug)]
pub struct Settings {
    /// The engine, as its tickets name it.
    pub engine: EngineId,
    /// Rest or not.
    pub poll: Poll,
    /// Bounds and times of its TCP.
    pub tcp: tcp::Settings,
    /// The keys to begin with.
    pub ring: Arc<Ring>,
    /// Which servers are up.
    pub board: Arc<Board>,
    /// Connections open to each server, shared by all lanes.
    pub loads: Arc<Loads>,
    /// The health monitors, on the one lane that runs them.
    pub monitors: Option<Monitors>,
}

/// One core's pipeline over the queues `Q` with the clock `C`.
pub struct Lane<Q: QueuePair, C> {
    station: Station<Q>,
    clock: C,
    poll: Poll,
    counters: Arc<Counters>,
    handle: Handle,
    desk: Box<Desk>,
    fronts: HashMap<ServiceId, Rc<Front>>,
    /// How servers are spoken to in TLS, those of pools that want that.
    targets: HashMap<Slot, Arc<Target>>,
    connections: Slab<Box<Connection>>,
    /// Clients whose ClientHello has not been answered.
    hellos: RunQueue,
    /// Clients whose ClientHello has, and those whose server shakes hands.
    handshakes: RunQueue,
    /// All others.
    ready: RunQueue,
    deadlines: Wheel<usize>,
    probes: Option<Probes>,
    /// On the lane that has the monitors.
    shares: Option<Shares>,
    board: Arc<Board>,
    loads: Rc<LaneLoads>,
    queue: Queue,
    recall: Recall,
    drains: Drains,
    draining: bool,
    idle_breaths: u32,
    breath_began: Instant,
    was_busy: bool,
    buffers_read: Instant,
}

impl<Q: QueuePair, C: Clock> Lane<Q, C> {
    /// A lane without a configuration: it answers nothing until [`Order::Configure`] comes. `queues` are its own, one a port, in the order of ports.
    pub fn new(
        settings: Settings,
        handle: Handle,
        steering: Steering<Q::Frame>,
        queues: Vec<Q>,
        mut clock: C,
        mut random: Random,
    ) -> Self {
        let counters = Arc::clone(&handle.counters);
        let (now, unix) = clock.read();
        counters.lane.ring_version.set(settings.ring.version());
        let desk = Desk::new(settings.engine, settings.ring, random.fork(), Arc::clone(&counters.tickets));
        let mut desk = Box::new(desk.with_ledgers(Arc::clone(&counters.ledgers)));
        desk.set_time(unix);
        let (lanes, recall_random) = (steering.lanes(), random.fork());
        let station = Station::new(&handle, steering, queues, settings.tcp, random);
        Self {
            station,
            clock,
            poll: settings.poll,
            counters,
            desk,
            fronts: HashMap::new(),
            targets: HashMap::new(),
            connections: Slab::new(),
            hellos: RunQueue::default(),
            handshakes: RunQueue::default(),
            ready: RunQueue::default(),
            deadlines: Wheel::new(),
            shares: settings
                .monitors
                .is_some()
                .then(|| Shares::new(Arc::clone(&settings.board), Arc::clone(&settings.loads))),
            probes: settings.monitors.map(Probes::new),
            board: settings.board,
            loads: Rc::new(LaneLoads::new(settings.loads, handle.lane)),
            queue: Queue::default(),
            recall: Recall::new(lanes, recall_random),
            drains: Drains::default(),
            draining: false,
            idle_breaths: 0,
            breath_began: now,
            was_busy: false,
            buffers_read: Instant::START,
            handle,
        }
    }

    /// One turn of the loop: whatever has arrived and is due, in bounded time. Says whether there was anything to do.
    pub fn breath(&mut self) -> bool {
        let (now, unix) = self.clock.read();
        self.account(now);
        self.desk.set_time(unix);

        let ordered = self.take_orders(now);
        let received = self.station.receive(now);
        let mut fired = self.fire_timers(now);
        fired |= self.admit_waiting(now);
        fired |= self.take_words(now);
        fired |= self.drain_servers(now);
        let (worked, turns) = self.work(now, unix);
        let mut sent = self.station.transmit(now);
        let answered = self.answer_hellos(1 + turns / CONNECTIONS_PER_HELLO, now);
        if answered {
            sent |= self.station.transmit(now);
        }
        self.station.finish_captures(now);

        self.was_busy = ordered | received | fired | worked | answered | sent;
        self.counters.lane.breaths.increment();
        self.publish_buffers(now);
        if self.was_busy {
            self.idle_breaths = 0;
        } else {
            self.rest(now);
        }
        self.was_busy
    }

    /// A breath that found something to do is busy from its clock read to the next one.
    fn account(&mut self, now: Instant) {
        let nanos = u64::try_from((now - self.breath_began).as_nanos()).unwrap_or(u64::MAX);
        let share =
            if self.was_busy { &self.counters.lane.busy_nanoseconds } else { &self.counters.lane.idle_nanoseconds };
        share.add(nanos);
        if self.was_busy {
            self.counters.times.breath.note(now - self.breath_began);
        }
        self.breath_began = now;
    }

    fn fire_timers(&mut self, now: Instant) -> bool {
        if self.poll_at().is_none_or(|at| at > now) {
            return false;
        }
        self.station.fire_timers(now);
        self.fire_probes(now);
        if let Some(shares) = &mut self.shares {
            shares.on_timeout(now);
        }
        self.fire_deadlines(now);
        true
    }

    /// When the lane wants its next breath if nothing arrives before.
    pub fn poll_at(&self) -> Option<Instant> {
        let probes = self.probes.as_ref().and_then(Probes::poll_at);
        let shares = self.shares.as_ref().and_then(Shares::poll_at);
        let all = [
            self.station.poll_at(),
            probes,
            shares,
            self.deadlines.poll_at(),
            self.drains.poll_at(),
            self.recall.poll_at(),
        ];
        all.into_iter().flatten().min()
    }

    /// Relayed connections that are open.
    pub fn open(&self) -> usize {
        self.connections.len()
    }

    fn publish_buffers(&mut self, now: Instant) {
        if self.station.id != LaneId(0) || now - self.buffers_read < BUFFERS_INTERVAL {
            return;
        }
        self.buffers_read = now;
        if let Some(buffers) = self.station.buffers() {
            self.counters.lane.buffers_in_use.set(buffers.in_use as u64);
            self.counters.lane.buffers.set(buffers.capacity as u64);
        }
    }

    fn rest(&mut self, now: Instant) {
        self.idle_breaths = self.idle_breaths.saturating_add(1);
        if self.poll == Poll::Busy || self.idle_breaths < IDLE_BREATHS {
            return;
        }
        let due = self.poll_at().map_or(SLEEP_MAX, |at| at - now);
        self.clock.sleep(due.min(SLEEP_MAX));
    }
}

impl<Q: QueuePair, C> Drop for Lane<Q, C> {
    /// Clients and servers of connections that are still open learn of the end by a reset, and control by a record.
    fn drop(&mut self) {
        let now = self.breath_began;
        self.cut_all(now);
        while self.station.stack.wants_transmit() && self.station.transmit(now) {}
    }
}
