//! Frames out: what TCP and the link layers have to send, next hop found, in bursts.

use std::net::IpAddr;

use smoltcp::wire::{IpVersion, Ipv4Packet, Ipv6Packet};

use crate::base::Instant;
use crate::lane::station::Port;
use crate::lane::{LaneCounters, Station};
use crate::link::Sent;
use crate::nic::{Frame, QueuePair};

/// Most segments a breath sends.
pub(super) const TRANSMIT_MAX: usize = 256;

/// Room for the Ethernet header in front of the packet that TCP writes.
const ETHERNET_HEADER: usize = 14;

impl<Q: QueuePair> Station<Q> {
    /// Sends at most 256 segments, then what the link layers have of their own.
    pub fn transmit(&mut self, now: Instant) -> bool {
        for _ in 0..TRANSMIT_MAX {
            if !self.transmit_segment(now) {
                break;
            }
        }
        let mut any = false;
        for port in &mut self.ports {
            any |= port.transmit(&self.counters);
        }
        any
    }

    /// Makes one frame of the next segment; whether there may be more.
    fn transmit_segment(&mut self, now: Instant) -> bool {
        if !self.stack.wants_transmit() {
            return false;
        }
        let offload = self.ports.iter().all(|port| port.queue.port().offload.transmit_checksum);
        let Some(mut frame) = self.ports.first_mut().and_then(|port| port.queue.allocate()) else {
            self.counters.frames_unmade.increment();
            return false;
        };
        let Some(room) = frame.room().get_mut(ETHERNET_HEADER..) else { return false };
        let Some(len) = self.stack.poll_transmit(room, offload, now) else { return false };
        let Some((destination, header_len)) = room.get(..len).and_then(destination) else { return false };
        frame.set_len(ETHERNET_HEADER + len);
        if offload {
            frame.offload_checksum(header_len, destination.is_ipv6());
        }
        // An only port is not asked whether it has a route: it finds out as it sends.
        let is_only = self.ports.len() == 1;
        let Some(port) = self.ports.iter_mut().find(|port| is_only || port.link.routes_to(destination)) else {
            self.counters.no_route.increment();
            return true;
        };
        match port.link.send(frame, now) {
            Sent::Ready(frame) => port.outgoing.push(frame),
            Sent::Pending | Sent::Dropped => {}
        }
        true
    }
}

impl<Q: QueuePair> Port<Q> {
    /// Gives the queue what has been made for it, and what the link layer adds.
    fn transmit(&mut self, counters: &LaneCounters) -> bool {
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
        let made = self.outgoing.len();
        let unsent = self.queue.transmit(&mut self.outgoing);
        counters.frames_sent.add(made.saturating_sub(unsent) as u64);
        counters.frames_unsent.add(unsent as u64);
        true
    }
}

/// Where a packet of our own goes, and how long its IP header is.
fn destination(packet: &[u8]) -> Option<(IpAddr, usize)> {
    match IpVersion::of_packet(packet).ok()? {
        IpVersion::Ipv4 => {
            let header = Ipv4Packet::new_checked(packet).ok()?;
            Some((header.dst_addr().into(), usize::from(header.header_len())))
        }
        IpVersion::Ipv6 => {
            let header = Ipv6Packet::new_checked(packet).ok()?;
            Some((header.dst_addr().into(), header.header_len()))
        }
    }
}
