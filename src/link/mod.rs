//! The next hop: ARP (RFC 826), NDP (RFC 4861), ICMP echo and errors (RFC 792, RFC 4443), routes. One [`Link`] is one lane's view of one port.
//!
//! Drive it so: give it ARP messages and ICMP packets with `on_*`, and every IP packet that is to leave with [`Link::send`];
//! then drain [`Link::poll_transmit`] and call [`Link::on_timeout`] when [`Link::poll_at`] has come.
//!
//! Every lane keeps its own neighbour table: an answer may arrive on any lane, so lanes hand each other what they learn ([`Link::poll_learned`]).
//! Only a lane that asked, or that was asked, makes a new entry (cache poisoning); what it hears beside that may only
//! change an entry that is there, or be the answer that another lane waits for.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use smoltcp::wire::EthernetAddress;

use crate::base::{Bucket, Flow, Instant};
use crate::nic::{Frame, LONG_FRAME_MAX};
use crate::wire::Quote;
use crate::wire::icmp::Echo;

mod arp;
mod icmp;
mod kernel;
mod key;
mod ndp;
mod neighbours;
mod outbox;
mod routes;

#[cfg(test)]
mod tests;

pub use kernel::Whose;
pub use neighbours::{Evidence, Neighbour};

use neighbours::{Due, Kept, Lookup, Neighbours};
use outbox::{Outbox, ethernet_header};
use routes::{Hop, Routes};

/// Echo replies a second and at once, a lane.
const ECHO_LIMIT: Bucket = Bucket::new(1000, 256);

/// ICMP errors sent a second and at once, a lane (RFC 4443 2.4 (f)).
const ERROR_LIMIT: Bucket = Bucket::new(100, 50);

/// Most news, and most learned neighbours, that wait for the lane to take them. A lane takes all of them each breath.
const NEWS_MAX: usize = 1024;

/// Bytes in front of the IP packet that [`Link::send`] fills.
const ETHERNET_LEN: usize = 14;

/// A port's addresses and routes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The port's Ethernet address.
    pub mac: EthernetAddress,
    /// The engine's own addresses on this port, each with its on-link prefix.
    pub addresses: Vec<IpNet>,
    /// Addresses of virtual services that this port answers for.
    pub virtual_addresses: Vec<IpAddr>,
    /// Default routes, at most one a family.
    pub gateways: Vec<IpAddr>,
    /// Most neighbours remembered.
    pub neighbours_max: usize,
    /// Most packets kept a neighbour while it is being resolved. Over all neighbours a lane keeps at most 512.
    pub pending_max: usize,
}

/// What became of a packet given to [`Link::send`].
#[derive(Debug)]
pub enum Sent<F> {
    /// The Ethernet header is in place: transmit it.
    Ready(F),
    /// Kept until the next hop is resolved.
    Pending,
    /// Dropped and counted: no route, or the queue is full.
    Dropped,
}

/// News for the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next hop to a flow's peer does not answer: this engine has seen that itself.
    Unresolved(Flow),
    /// Somebody says that a flow's peer cannot be reached, and quotes a segment. Whether that was sent is for TCP to judge.
    Unreachable(Quote),
    /// Somebody says that the quoted segment is too big for a link of this MTU; an MTU of 0 means that the router does not know how to say it (RFC 1191 5).
    PacketTooBig(Quote, u32),
    /// An address has echoed what looks like a request of this engine's. Its identifier is the lane that asked.
    Echoed(IpAddr, Echo),
}

/// One lane's link layer on one port. `F` is the NIC's frame.
#[derive(Debug)]
pub struct Link<F> {
    settings: Settings,
    routes: Routes,
    neighbours: Neighbours<F>,
    outbox: Outbox,
    /// Addresses that were added since the last [`announce`](Self::announce).
    added: Vec<IpAddr>,
    /// Addresses still to be announced.
    announcements: VecDeque<IpAddr>,
    resolved: VecDeque<F>,
    learned: VecDeque<Neighbour>,
    events: VecDeque<Event>,
    echo_limit: Bucket,
    error_limit: Bucket,
    counters: Arc<Counters>,
}

impl<F: Frame> Link<F> {
    /// A link layer with no neighbours.
    pub fn new(settings: Settings, counters: Arc<Counters>) -> Self {
        let routes = Routes::new(&settings);
        let added = routes.added_since(None).collect();
        Self {
            neighbours: Neighbours::new(settings.neighbours_max, settings.pending_max),
            routes,
            settings,
            outbox: Outbox::default(),
            added,
            announcements: VecDeque::new(),
            resolved: VecDeque::new(),
            learned: VecDeque::new(),
            events: VecDeque::new(),
            echo_limit: ECHO_LIMIT,
            error_limit: ERROR_LIMIT,
            counters,
        }
    }

    /// Takes over changed addresses and routes; neighbours stay, but for those that are none any more.
    pub fn configure(&mut self, settings: Settings) {
        let routes = Routes::new(&settings);
        self.added.retain(|address| routes.is_local(*address));
        self.added.extend(routes.added_since(Some(&self.routes)));
        (self.routes, self.settings) = (routes, settings);
        let gone: Vec<_> = self.neighbours.addresses().filter(|address| !self.routes.is_neighbour(*address)).collect();
        for address in gone {
            let pending = self.neighbours.forget(address);
            self.count_recycled(pending);
        }
        for pending in self.neighbours.set_bounds(self.settings.neighbours_max, self.settings.pending_max) {
            self.counters.neighbours_recycled.increment();
            self.count_recycled(Some(pending));
        }
        self.show_neighbours();
    }

    /// Announces the addresses that are new since the last call, or all (RFC 5227 3, RFC 4861 7.2.6), so that neighbours forget
    /// who had them before. Call it on one lane a port, after [`new`](Self::new) and each [`configure`](Self::configure).
    pub fn announce(&mut self) {
        self.announcements.extend(self.added.drain(..));
    }

    /// Whether this engine answers at `address` on this port, as its own or a virtual one. The port's IPv6 link-local
    /// address (EUI-64) is its own too.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.routes.is_local(address)
    }

    /// The length of the prefix by which the host `address` is reached over this port, 0 where it is by a gateway; `None` if there is no route. Of several
    /// ports the longest counts.
    pub fn prefix_to(&self, address: IpAddr) -> Option<u32> {
        match self.routes.hop(address) {
            Hop::Neighbour(_) => Some(self.routes.prefix_of(address)),
            Hop::Group(_) | Hop::Ourselves | Hop::None => None,
        }
    }

    /// The engine's own address from which to talk to `remote`, if this port has a route to it.
    pub fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        self.routes.source_for(remote)
    }

    /// Takes what another lane learned.
    pub fn on_learned(&mut self, neighbour: Neighbour, now: Instant) {
        self.counters.neighbours_heard.increment();
        self.take_in(neighbour, now);
    }

    /// Finds the next hop of the IP packet in `frame`, which starts behind 14 free bytes, and writes the Ethernet header into them.
    pub fn send(&mut self, frame: F, now: Instant) -> Sent<F> {
        let bytes = frame.bytes();
        let destination = bytes.get(ETHERNET_LEN..).and_then(destination_of);
        let Some(destination) = destination.filter(|_| bytes.len() <= LONG_FRAME_MAX) else {
            return self.drop_for(|counters| &counters.send_malformed);
        };
        let hop = match self.routes.hop(destination) {
            Hop::Neighbour(hop) => hop,
            Hop::Group(mac) => return Sent::Ready(self.address(frame, mac)),
            Hop::Ourselves => return self.drop_for(|counters| &counters.send_to_ourselves),
            Hop::None => return self.drop_for(|counters| &counters.no_route),
        };
        match self.neighbours.lookup(hop, now) {
            Lookup::Known(mac) => Sent::Ready(self.address(frame, mac)),
            Lookup::Stale(mac) => {
                self.ask(hop, Some(mac));
                Sent::Ready(self.address(frame, mac))
            }
            Lookup::Incomplete => self.keep(hop, frame),
            Lookup::Failed => {
                self.give_up(&frame);
                Sent::Dropped
            }
            Lookup::Unknown => {
                let recycled = self.neighbours.resolve(hop, now);
                self.note_recycled(recycled);
                self.show_neighbours();
                self.ask(hop, None);
                self.keep(hop, frame)
            }
        }
    }

    /// Retries and expires neighbours that are due.
    pub fn on_timeout(&mut self, now: Instant) {
        while let Some(due) = self.neighbours.next_due(now) {
            match due {
                Due::Ask(address, mac) => self.ask(address, mac),
                Due::Failed(pending) => {
                    self.counters.neighbours_unresolved.increment();
                    for frame in pending {
                        self.give_up(&frame);
                    }
                }
                Due::Lost => {
                    self.counters.neighbours_lost.increment();
                    self.show_neighbours();
                }
            }
        }
    }

    /// When [`on_timeout`](Self::on_timeout) is wanted next.
    pub fn poll_at(&self) -> Option<Instant> {
        self.neighbours.poll_at()
    }

    /// The next packet whose neighbour has been resolved, ready to transmit.
    pub fn poll_resolved(&mut self) -> Option<F> {
        self.resolved.pop_front()
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) may have something to send: asks before a packet buffer is taken for it.
    pub fn wants_transmit(&self) -> bool {
        !self.outbox.is_empty() || !self.announcements.is_empty()
    }

    /// Writes the next frame of the link layer's own (ARP, NDP, ICMP), Ethernet header included, and gives its length.
    ///
    /// `room` should be [`FRAME_MAX`](crate::nic::FRAME_MAX) bytes: a frame that does not fit is lost and counted.
    pub fn poll_transmit(&mut self, room: &mut [u8]) -> Option<usize> {
        loop {
            let written = self.outbox.pop(|frame| {
                let room = room.get_mut(..frame.len())?;
                room.copy_from_slice(frame);
                Some(frame.len())
            });
            match written {
                Some(Some(len)) => return Some(len),
                Some(None) => self.counters.transmit_too_long.increment(),
                // Announcements wait until there is nothing more urgent, one at a time.
                None => match self.announcements.pop_front()? {
                    address if !self.routes.is_local(address) => {}
                    IpAddr::V4(address) => self.announce_arp(address),
                    IpAddr::V6(address) => self.announce_ndp(address),
                },
            }
        }
    }

    /// The next neighbour that the other lanes should hear of.
    pub fn poll_learned(&mut self) -> Option<Neighbour> {
        self.learned.pop_front()
    }

    /// The next piece of news.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes in what a neighbour said on this lane, and tells the others what is new, or what one of them may wait for.
    fn learn(&mut self, neighbour: Neighbour, tell: bool, now: Instant) {
        let Some((news, awaited)) = self.take_in(neighbour, now) else { return };
        let is_reply = neighbour.evidence == Evidence::Reply;
        if !(news || is_reply || tell) {
            return;
        }
        if self.learned.len() >= NEWS_MAX {
            return self.counters.news_dropped.increment();
        }
        let evidence = if is_reply && awaited { Evidence::Answer } else { neighbour.evidence };
        self.learned.push_back(Neighbour { evidence, ..neighbour });
    }

    /// Whether it was news, and whether it was waited for; `None` when it cannot be a neighbour.
    fn take_in(&mut self, neighbour: Neighbour, now: Instant) -> Option<(bool, bool)> {
        let Neighbour { address, mac, .. } = neighbour;
        if !self.routes.is_neighbour(address) || !mac.is_unicast() || mac == self.settings.mac {
            self.counters.neighbours_refused.increment();
            return None;
        }
        let (learned, recycled) = self.neighbours.learn(neighbour, now);
        self.note_recycled(recycled);
        for frame in learned.pending {
            let frame = self.address(frame, mac);
            self.resolved.push_back(frame);
        }
        self.show_neighbours();
        Some((learned.news, learned.awaited))
    }

    fn ask(&mut self, address: IpAddr, mac: Option<EthernetAddress>) {
        match address {
            IpAddr::V4(address) => self.ask_arp(address, mac),
            IpAddr::V6(address) => self.ask_ndp(address, mac),
        }
    }

    fn keep(&mut self, hop: IpAddr, frame: F) -> Sent<F> {
        match self.neighbours.keep(hop, frame) {
            Kept::Waits => Sent::Pending,
            Kept::Instead(_oldest) => {
                self.counters.pending_full.increment();
                Sent::Pending
            }
            Kept::Refused(_frame) => self.drop_for(|counters| &counters.pending_full),
        }
    }

    /// Writes the Ethernet header.
    fn address(&self, mut frame: F, to: EthernetAddress) -> F {
        // send() has looked at the packet, so that there is a first byte.
        let ipv4 = frame.bytes().get(ETHERNET_LEN).is_some_and(|first| first >> 4 == 4);
        let header = ethernet_header(to, self.settings.mac, ipv4);
        if let Some(room) = frame.room().first_chunk_mut() {
            *room = header;
        }
        frame
    }

    /// Drops a packet whose next hop does not answer, and says whose it was.
    fn give_up(&mut self, frame: &F) {
        self.counters.send_unresolved.increment();
        if let Some(quote) = frame.bytes().get(ETHERNET_LEN..).and_then(Quote::parse) {
            self.tell(Event::Unresolved(quote.flow));
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() >= NEWS_MAX {
            return self.counters.news_dropped.increment();
        }
        self.events.push_back(event);
    }

    fn drop_for(&self, reason: impl Fn(&Counters) -> &crate::base::Counter) -> Sent<F> {
        reason(&self.counters).increment();
        Sent::Dropped
    }

    fn note_recycled(&self, pending: Option<VecDeque<F>>) {
        if pending.is_some() {
            self.counters.neighbours_recycled.increment();
        }
        self.count_recycled(pending);
    }

    fn count_recycled(&self, pending: Option<VecDeque<F>>) {
        let lost = pending.map_or(0, |pending| pending.len());
        self.counters.pending_recycled.add(u64::try_from(lost).unwrap_or(u64::MAX));
    }

    fn show_neighbours(&self) {
        self.counters.neighbours.set(u64::try_from(self.neighbours.len()).unwrap_or(u64::MAX));
    }
}

/// Where the IP packet goes.
fn destination_of(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..20)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into()),
        6 => packet.get(24..40)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into()),
        _ => None,
    }
}

/// Where the IP packet comes from.
fn source_of(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(12..16)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into()),
        6 => packet.get(8..24)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into()),
        _ => None,
    }
}

crate::counters! {
    /// What a lane's link layer counts.
    pub struct Counters {
        /// Neighbours in the table, unresolved ones included
        gauge neighbours,
        /// ARP requests sent
        counter arp_requests_sent,
        /// ARP requests received for one of our addresses
        counter arp_requests_received,
        /// ARP replies sent
        counter arp_replies_sent,
        /// ARP replies received
        counter arp_replies_received,
        /// ARP messages without use: impossible sender, unknown operation, our own
        counter arp_ignored,
        /// Neighbour solicitations sent
        counter ndp_solicitations_sent,
        /// Neighbour solicitations received for one of our addresses
        counter ndp_solicitations_received,
        /// Neighbour advertisements sent, announcements included
        counter ndp_advertisements_sent,
        /// Neighbour advertisements received
        counter ndp_advertisements_received,
        /// Neighbour discovery messages without use: malformed, forwarded, not for us, router messages
        counter ndp_ignored,
        /// Announcements of our own addresses sent
        counter announcements_sent,
        /// Messages in which somebody else claims one of our addresses
        counter address_conflicts,
        /// Neighbours that could not be asked for because we have no address of their family
        counter no_source,
        /// Neighbours that never answered
        counter neighbours_unresolved,
        /// Neighbours that stopped answering
        counter neighbours_lost,
        /// Neighbours forgotten because the table was full
        counter neighbours_recycled,
        /// Neighbours that other lanes told of
        counter neighbours_heard,
        /// Claims about addresses that cannot be neighbours, or to Ethernet addresses that cannot be theirs
        counter neighbours_refused,
        /// Packets dropped because too many waited for a neighbour
        counter pending_full,
        /// Packets dropped because the neighbour they waited for was forgotten
        counter pending_recycled,
        /// Packets dropped because their next hop did not answer
        counter send_unresolved,
        /// Packets dropped because there is no route
        counter no_route,
        /// Packets dropped because their destination is one of our own addresses
        counter send_to_ourselves,
        /// Packets given to send that are no IP packets or too long; always 0 unless there is a defect
        counter send_malformed,
        /// Echo requests received for one of our addresses
        counter echo_requests_received,
        /// Echo replies sent
        counter echo_replies_sent,
        /// Echo replies received that look like those to requests of ours
        counter echo_replies_received,
        /// Echo requests not answered because of the rate limit
        counter echo_rate_limited,
        /// Errors received that say a flow's peer is unreachable
        counter unreachable_received,
        /// Errors received that say a packet of a flow was too big
        counter packet_too_big_received,
        /// Errors received that quote no TCP packet of ours
        counter errors_not_ours,
        /// ICMP packets with a wrong checksum or too short
        counter icmp_malformed,
        /// ICMP packets to an address or group that is not ours, or from one that is
        counter icmp_for_others,
        /// ICMP messages without use
        counter icmp_ignored,
        /// Packets received of protocols that nobody here speaks
        counter unknown_protocols,
        /// Packets of unknown protocols that must not be answered
        counter unknown_ignored,
        /// ICMP errors sent
        counter errors_sent,
        /// ICMP errors not sent because of the rate limit
        counter errors_rate_limited,
        /// Frames of the link layer's own dropped because too many waited
        counter outbox_full,
        /// Frames of the link layer's own that did not fit the room given
        counter transmit_too_long,
        /// News for the lane or for other lanes dropped because too much waited
        counter news_dropped,
    }
}
