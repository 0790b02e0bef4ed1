//! Control's end of a lane: orders go in, counters and records come out.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::base::counter::Reading;
use crate::base::histogram::{Histogram, Times};
use crate::base::{LaneId, PortId};
use crate::lane::{Inbox, Record, inbox};
use crate::nic::kernel;
use crate::{health, link, persistence, relay, tcp, tls};

/// Most ended connections that wait for control to log them. Beyond it records are dropped and counted.
pub const RECORDS_MAX: usize = 4096;

/// Most verdicts on servers that wait for control. Beyond it they wait in the monitors, the newest of each server.
pub const VERDICTS_MAX: usize = 1024;

/// Control's end of one lane.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Which lane.
    pub lane: LaneId,
    /// Orders to it.
    pub inbox: Inbox,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Ended connections, oldest first.
    pub records: Arc<ArrayQueue<Record>>,
    /// What is new of servers' health, oldest first, from the lane that runs the monitors, the only one that pushes.
    pub verdicts: Arc<ArrayQueue<health::Verdict>>,
    /// What its TCP connections have just done, for control to read at any time.
    pub trace: Arc<tcp::trace::Trace>,
}

impl Handle {
    /// A handle for a lane that drives `ports` ports and traces nothing.
    pub fn new(lane: LaneId, ports: usize) -> Self {
        Self {
            lane,
            inbox: inbox::inbox(),
            counters: Arc::new(Counters::new(ports)),
            records: Arc::new(ArrayQueue::new(RECORDS_MAX)),
            verdicts: Arc::new(ArrayQueue::new(VERDICTS_MAX)),
            trace: Arc::new(tcp::trace::Trace::off()),
        }
    }

    /// The same for a lane that traces its connections. `epoch` says when its clock started, in nanoseconds since 1970.
    #[must_use]
    pub fn traced(self, settings: tcp::trace::Settings, epoch: u64) -> Self {
        Self { trace: Arc::new(tcp::trace::Trace::new(settings, epoch)), ..self }
    }
}

/// Everything that one lane counts, by module.
#[derive(Debug)]
pub struct Counters {
    /// The loop itself.
    pub lane: Arc<LaneCounters>,
    /// The link layer, one a port.
    pub links: Vec<Arc<link::Counters>>,
    /// The kernel's interfaces, one a port; zeros where a port has none beside it.
    pub kernels: Vec<Arc<kernel::Counters>>,
    /// TCP.
    pub tcp: Arc<tcp::Counters>,
    /// Times of the loop itself.
    pub times: Arc<LaneTimes>,
    /// Tickets.
    pub tickets: Arc<tls::ticketer::Counters>,
    /// Tickets by key and by issuer.
    pub ledgers: Arc<tls::ticketer::Ledgers>,
    /// Relayed connections.
    pub relay: Arc<relay::Counters>,
    /// How connections ended whose TLS handshake never did.
    pub failed_handshakes: Arc<relay::tally::Ends>,
    /// Persistence by the client's address.
    pub client_ip: Arc<persistence::client_ip::Counters>,
    /// Health monitors; zeros on lanes that run none.
    pub health: Arc<health::Counters>,
}

impl Counters {
    fn new(ports: usize) -> Self {
        Self {
            lane: Arc::default(),
            links: (0..ports).map(|_| Arc::default()).collect(),
            kernels: (0..ports).map(|_| Arc::default()).collect(),
            tcp: Arc::default(),
            times: Arc::default(),
            tickets: Arc::default(),
            ledgers: Arc::default(),
            relay: Arc::default(),
            failed_handshakes: Arc::default(),
            client_ip: Arc::default(),
            health: Arc::default(),
        }
    }

    /// Shows every number to `visit` with its module's name and, where it is a port's, the port.
    pub fn read(&self, visit: &mut dyn FnMut(&'static str, Option<PortId>, Reading)) {
        self.lane.read(&mut |reading| visit("lane", None, reading));
        for (port, link) in (0..).map(PortId).zip(&self.links) {
            link.read(&mut |reading| visit("link", Some(port), reading));
        }
        for (port, kernel) in (0..).map(PortId).zip(&self.kernels) {
            kernel.read(&mut |reading| visit("kernel", Some(port), reading));
        }
        self.tcp.read(&mut |reading| visit("tcp", None, reading));
        self.tickets.read(&mut |reading| visit("ticket", None, reading));
        self.relay.read(&mut |reading| visit("relay", None, reading));
        self.client_ip.read(&mut |reading| visit("client_ip", None, reading));
        self.health.read(&mut |reading| visit("health", None, reading));
    }
}

/// Times that a lane's loop notes.
#[derive(Debug, Default)]
pub struct LaneTimes {
    /// How long breaths took that found something to do.
    pub breath: Histogram,
    /// How long connections waited for their turn, by queue in the order of [`Queue::ALL`].
    waits: [Histogram; Queue::ALL.len()],
}

/// The queues in which connections wait for their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Clients whose ClientHello has not been answered.
    Hellos,
    /// Clients whose ClientHello has, and those whose server shakes hands.
    Handshakes,
    /// All others.
    Ready,
}

impl Queue {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hellos, Self::Handshakes, Self::Ready];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hellos => "hellos",
            Self::Handshakes => "handshakes",
            Self::Ready => "ready",
        }
    }
}

impl LaneTimes {
    /// Where waits in a queue are noted.
    pub fn waits(&self, queue: Queue) -> &Histogram {
        let [hellos, handshakes, ready] = &self.waits;
        match queue {
            Queue::Hellos => hellos,
            Queue::Handshakes => handshakes,
            Queue::Ready => ready,
        }
    }

    /// What breaths took.
    pub fn breaths(&self) -> Times {
        self.breath.times()
    }
}

crate::counters! {
    /// What a lane's loop counts.
    pub struct LaneCounters {
        /// Breaths taken
        counter breaths,
        /// Time in breaths that found something to do, each from its clock read to the next
        counter busy_nanoseconds,
        /// Time in breaths that found nothing to do, sleep included
        counter idle_nanoseconds,
        /// Frames received from ports
        counter frames_received,
        /// Frames that were not of their port's VLAN
        counter frames_of_other_vlans,
        /// Frames given to ports
        counter frames_sent,
        /// Frames that the transmit queue had no room for
        counter frames_unsent,
        /// Frames that could not be made because no packet buffer was free
        counter frames_unmade,
        /// Frames handed over to the lane that owns their flow
        counter frames_handed_over,
        /// Frames for another lane whose ring was full
        counter frames_not_handed_over,
        /// Frames taken over from other lanes
        counter frames_taken_over,
        /// Neighbours and errors that another lane's ring had no room for
        counter news_not_handed_over,
        /// Frames shorter than their headers or length fields say
        counter malformed_truncated,
        /// Frames with a field value that the protocol does not allow
        counter malformed_field,
        /// Frames with a wrong checksum
        counter malformed_checksum,
        /// IP fragments
        counter malformed_fragment,
        /// Packets from a source address that no sender may have
        counter malformed_source,
        /// Frames of an EtherType or ARP flavour that is not spoken here
        counter unsupported,
        /// Packets for addresses that are not this engine's
        counter not_local,
        /// Packets to send for which none of several ports has a route; an only port counts its own
        counter no_route,
        /// Frames that captures have taken, once for each
        counter frames_captured,
        /// Frames that a capture wanted and left out, once for each: it was slow, or at its bound
        counter frames_not_captured,
        /// Handshakes that wait for their turn
        gauge handshakes_waiting,
        /// Connection records that found the queue to control full
        counter records_dropped,
        /// Configuration version in force
        gauge configuration_version,
        /// Version of the ticket key ring in force
        gauge ring_version,
        /// Packet buffers in use by all lanes and queues, as lane 0 last saw it
        gauge buffers_in_use,
        /// Packet buffers that there are, as lane 0 last saw it
        gauge buffers,
    }
}
