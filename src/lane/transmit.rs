//! Frames out: what TCP and the link layers have to send, next hop found, in bursts.

use std::cmp::Reverse;
use std::net::IpAddr;

use smoltcp::wire::{IpVersion, Ipv4Packet, Ipv6Packet};

use crate::base::{Instant, PortId};
use crate::health::Ping;
use crate::lane::capture::Captures;
use crate::lane::connect::NoConnection;
use crate::lane::station::Port;
use crate::lane::{LaneCounters, Station};
use crate::link::Sent;
use crate::nic::kernel::KernelQueue;
use crate::nic::{Frame, QueuePair};
use crate::tcp::Train;
use crate::wire::icmp::Echo;

/// Most segments a breath sends; the last frame may go beyond by what it holds.
pub(super) const TRANSMIT_MAX: usize = 256;

/// The hop limit of echo requests (RFC 1700).
const HOP_LIMIT: u8 = 64;

/// Room for the Ethernet header in front of the packet that TCP writes.
const ETHERNET_HEADER: usize = 14;

impl<Q: QueuePair> Station<Q> {
    /// Sends some 256 segments at most, then what the link layers have of their own.
    pub fn transmit(&mut self, now: Instant) -> bool {
        let mut segments = 0;
        while segments < TRANSMIT_MAX
            && let Some(train) = self.transmit_train(now)
        {
            segments += train as usize;
        }
        let mut any = false;
        for (id, port) in (0..).map(PortId).zip(&mut self.ports) {
            any |= port.transmit(id, &self.counters, &mut self.captures, now);
            any |= port.kernel.as_mut().is_some_and(KernelQueue::flush);
        }
        any
    }

    /// Asks an address for an echo, whose reply comes to this lane. Lost where no packet buffer is free, as it may be on its way.
    ///
    /// # Errors
    /// [`NoConnection::NoRoute`] when no port has a route.
    pub(super) fn ask_for_echo(&mut self, to: IpAddr, ping: Ping, now: Instant) -> Result<(), NoConnection> {
        let echo = Echo { identifier: self.id.0, sequence: ping.sequence, token: ping.token };
        let port = self.way_to(to, None).and_then(|port| self.ports.get_mut(port)).ok_or(NoConnection::NoRoute)?;
        let source = port.link.source_for(to).ok_or(NoConnection::NoRoute)?;
        let Some(mut frame) = port.queue.allocate() else {
            self.counters.frames_unmade.increment();
            return Ok(());
        };
        let room = frame.room().get_mut(ETHERNET_HEADER..).unwrap_or_default();
        let Some(len) = echo.request(source, to, HOP_LIMIT, room) else { return Err(NoConnection::NoRoute) };
        frame.set_len(ETHERNET_HEADER + len);
        if let Sent::Ready(frame) = port.link.send(frame, now) {
            port.outgoing.push(frame);
        }
        Ok(())
    }

    /// Makes one frame of the next segment, or of several where ports cut them; how many it was.
    fn transmit_train(&mut self, now: Instant) -> Option<u32> {
        if !self.stack.wants_transmit() {
            return None;
        }
        let offloads = || self.ports.iter().map(|port| port.queue.port().offload);
        let offload = offloads().all(|offload| offload.transmit_checksum);
        let segmentation = offloads().all(|offload| offload.segmentation);
        let Some(mut frame) = self.ports.first_mut().and_then(|port| port.queue.allocate()) else {
            self.counters.frames_unmade.increment();
            return None;
        };
        let room = frame.room().get_mut(ETHERNET_HEADER..)?;
        let Train { len, payload, segments } = if segmentation {
            self.stack.poll_train(room, now)?
        } else {
            let len = self.stack.poll_transmit(room, offload, now)?;
            Train { len, payload: 0, segments: 1 }
        };
        let (source, destination, header_len) = room.get(..len).and_then(addresses)?;
        frame.set_len(ETHERNET_HEADER + len);
        if segments > 1 {
            frame.offload_segmentation(header_len, destination.is_ipv6(), payload);
        } else if offload {
            frame.offload_checksum(header_len, destination.is_ipv6());
        }
        // An only port is not asked whether it has a route: it finds out as it sends.
        let port = if self.ports.len() == 1 { Some(0) } else { self.way_to(destination, Some(source)) };
        let Some(port) = port.and_then(|port| self.ports.get_mut(port)) else {
            self.counters.no_route.increment();
            return Some(segments);
        };
        match port.link.send(frame, now) {
            Sent::Ready(frame) => port.outgoing.push(frame),
            Sent::Pending | Sent::Dropped => {}
        }
        Some(segments)
    }
}

impl<Q: QueuePair> Station<Q> {
    /// The port over which `destination` is reached: the one with the longest prefix that holds it, and of several, as where each has a gateway, the one that
    /// answers for `source`, so that a client's packets leave by where they came in. Else the first.
    pub(super) fn way_to(&self, destination: IpAddr, source: Option<IpAddr>) -> Option<usize> {
        let nearness = |(at, port): (usize, &Port<Q>)| {
            let prefix = port.link.prefix_to(destination)?;
            Some(((prefix, source.is_some_and(|source| port.link.is_local(source)), Reverse(at)), at))
        };
        self.ports.iter().enumerate().filter_map(nearness).max().map(|(_, at)| at)
    }
}

impl<Q: QueuePair> Port<Q> {
    /// Gives the queue what has been made for it, and what the link layer adds.
    fn transmit(&mut self, id: PortId, counters: &LaneCounters, captures: &mut Captures, now: Instant) -> bool {
        while let Some(frame) = self.link.poll_resolved() {
            self.outgoing.push(frame);
        }
        while self.link.wants_transmit() {
            let Some(mut frame) = self.queue.allocate() else {
                counters.frames_unmade.increment();
                break;
            };
            let Some(len) = self.link.poll_transmit(frame.room()) else { break };
            frame.set_len(len);
            self.outgoing.push(frame);
        }
        if self.outgoing.is_empty() {
            return false;
        }
        if !captures.is_empty() {
            captures.on_frames(id, &self.outgoing, true, counters, now);
        }
        let made = self.outgoing.len();
        let unsent = self.queue.transmit(&mut self.outgoing);
        counters.frames_sent.add(made.saturating_sub(unsent) as u64);
        counters.frames_unsent.add(unsent as u64);
        true
    }
}

/// From where to where a packet of our own goes, and how long its IP header is.
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr, usize)> {
    match IpVersion::of_packet(packet).ok()? {
        IpVersion::Ipv4 => {
            let header = Ipv4Packet::new_checked(packet).ok()?;
            Some((header.src_addr().into(), header.dst_addr().into(), usize::from(header.header_len())))
        }
        IpVersion::Ipv6 => {
            let header = Ipv6Packet::new_checked(packet).ok()?;
            Some((header.src_addr().into(), header.dst_addr().into(), header.header_len()))
        }
    }
}
