//! Frames in: parsed once, taken by the layer that they are for, or handed to the lane that owns their flow.

use std::collections::VecDeque;
use std::net::IpAddr;

use smallvec::SmallVec;

use crate::base::{Counter, Flow, Instant, LaneId, PortId};
use crate::health::PROBES_MAX;
use crate::lane::steer::Handover;
use crate::lane::transmit::TRANSMIT_MAX;
use crate::lane::{LaneCounters, Station};
use crate::link::{self, Whose};
use crate::nic::kernel::Origin;
use crate::nic::{BURST, Frame as _, QueuePair, ReceivedChecksum, rss};
use crate::tcp::Stack;
use crate::wire::icmp::Echo;
use crate::wire::{Frame, Malformed, Packet, Protocol, Quote, Segment};

/// Most bursts that a breath takes from a port: as many frames as it sends segments, so that a flood of SYNs is not read faster than it is answered.
const BURSTS_MAX: usize = TRANSMIT_MAX / BURST;

/// Most echoes that wait for the health monitors. Lanes take all of them each breath.
const ECHOES_MAX: usize = PROBES_MAX;

/// What became of a frame.
pub(super) enum Taken<'f> {
    /// It has been dealt with or dropped.
    Here,
    /// TCP takes it with the rest of its burst.
    Segment(Flow, Segment<'f>),
    /// It is somebody else's, or somebody else's too.
    Not(Fate),
}

/// What becomes of a frame when its burst has been read.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    /// Nothing more: it has been dealt with or dropped.
    Over,
    /// It is another lane's.
    Lane(LaneId),
    /// The kernel is to have it.
    Kernel(Origin),
}

impl<Q: QueuePair> Station<Q> {
    /// Takes what other lanes handed over and what waits at every port.
    pub fn receive(&mut self, now: Instant) -> bool {
        let taken_over = self.take_over(now);
        let mut any = taken_over;
        for port in (0..self.ports.len()).rev() {
            for _ in 0..BURSTS_MAX {
                let taken = self.receive_burst(port, now);
                any |= taken > 0;
                // Only a burst that is full can have left something behind.
                if taken < BURST {
                    break;
                }
            }
        }
        any | self.receive_from_kernel(now) | self.share_news(now)
    }

    /// Takes one burst from a port and gives how many frames it had.
    fn receive_burst(&mut self, port: usize, now: Instant) -> usize {
        let mut received = std::mem::take(&mut self.received);
        let of_other_vlans = self.ports.get_mut(port).map_or(0, |port| port.queue.receive(&mut received));
        if of_other_vlans > 0 {
            self.counters.frames_of_other_vlans.add(of_other_vlans as u64);
        }
        let taken = received.len();
        if taken > 0 {
            self.counters.frames_received.add(taken as u64);
            let port = PortId(u16::try_from(port).expect("port ids have 16 bits"));
            if !self.captures.is_empty() {
                self.captures.on_frames(port, &received, false, &self.counters, now);
            }
            let mut fates = [Fate::Over; BURST];
            self.on_burst(received.iter().map(|frame| (port, frame)), false, &mut fates, now);
            for (frame, fate) in received.drain(..).zip(fates) {
                self.let_go(port, frame, fate, now);
            }
        }
        self.received = received;
        taken + of_other_vlans
    }

    fn take_over(&mut self, now: Instant) -> bool {
        if !self.steering.has_any() {
            return false;
        }
        let mut frames: SmallVec<[(PortId, Q::Frame); BURST]> = SmallVec::new();
        let mut taken = 0;
        while taken < BURST * usize::from(self.steering.lanes()) {
            let Some(item) = self.steering.take_over() else { break };
            taken += 1;
            match item {
                Handover::Frame(port, frame) => {
                    self.counters.frames_taken_over.increment();
                    frames.push((port, frame));
                }
                Handover::Neighbour(port, neighbour) => {
                    if let Some(port) = self.ports.get_mut(usize::from(port.0)) {
                        port.link.on_learned(neighbour, now);
                    }
                }
                Handover::News(event) => tell(&mut self.stack, &mut self.echoes, event, now),
            }
            if frames.len() == BURST {
                self.on_taken_over(&mut frames, now);
            }
        }
        self.on_taken_over(&mut frames, now);
        taken > 0
    }

    fn on_taken_over(&mut self, frames: &mut SmallVec<[(PortId, Q::Frame); BURST]>, now: Instant) {
        let mut fates = [Fate::Over; BURST];
        self.on_burst(frames.iter().map(|(port, frame)| (*port, frame)), true, &mut fates, now);
        for ((port, frame), fate) in frames.drain(..).zip(fates) {
            self.let_go(port, frame, fate, now);
        }
    }

    /// Hands on a frame whose burst has been read, or drops it.
    fn let_go(&mut self, port: PortId, frame: Q::Frame, fate: Fate, now: Instant) {
        match fate {
            Fate::Over => {}
            Fate::Lane(owner) => {
                let handed_over = self.steering.hand_over(owner, Handover::Frame(port, frame));
                let counters = &self.counters;
                if handed_over { &counters.frames_handed_over } else { &counters.frames_not_handed_over }.increment();
            }
            Fate::Kernel(origin) => self.give_to_kernel(port, frame, origin, now),
        }
    }

    /// One burst: each frame is parsed once and taken by the layer that it is for, TCP last and all its segments together. Notes in `fates`, frame by frame,
    /// who should have it if that is another lane or the kernel. `steered`: another lane has found that it belongs here.
    fn on_burst<'f>(
        &mut self,
        frames: impl Iterator<Item = (PortId, &'f Q::Frame)>,
        steered: bool,
        fates: &mut [Fate],
        now: Instant,
    ) where
        Q::Frame: 'f,
    {
        let mut segments: SmallVec<[(Flow, Segment<'f>); BURST]> = SmallVec::new();
        for ((port, frame), fate) in frames.zip(fates) {
            match self.on_frame(port, frame, steered, now) {
                Ok(Taken::Here) => {}
                Ok(Taken::Segment(flow, segment)) => segments.push((flow, segment)),
                Ok(Taken::Not(other)) => *fate = other,
                Err(malformed) => malformed_counter(&self.counters, malformed).increment(),
            }
        }
        self.stack.on_segments(&segments, now);
    }

    fn on_frame<'f>(
        &mut self,
        port_id: PortId,
        frame: &'f Q::Frame,
        steered: bool,
        now: Instant,
    ) -> Result<Taken<'f>, Malformed> {
        let verified = match frame.received_checksum() {
            ReceivedChecksum::Good => true,
            ReceivedChecksum::Unknown => false,
            ReceivedChecksum::Bad => return Err(Malformed::Checksum),
        };
        let Some(port) = self.ports.get_mut(usize::from(port_id.0)) else { return Ok(Taken::Here) };
        let parsed = match Frame::parse(frame.bytes(), verified) {
            Ok(parsed) => parsed,
            Err(malformed) => return port.although(malformed, frame.bytes()),
        };
        let (from, packet) = match parsed {
            Frame::Arp(arp) => {
                port.link.on_arp(&arp, now);
                return Ok(port.share_arp(&arp));
            }
            Frame::Ip { from, packet } => (from, packet),
        };
        let kernels = port.shares(packet.destination).then(|| Fate::Kernel(port.link.origin_of(packet.source)));
        match (packet.protocol, kernels) {
            (Protocol::Tcp, _) => {
                let local = port.link.is_local(packet.destination);
                return self.on_tcp(&packet, local, kernels, verified, steered);
            }
            (Protocol::Icmp | Protocol::Icmpv6, None) => port.link.on_icmp(from, &packet, now),
            (Protocol::Icmp | Protocol::Icmpv6, Some(kernel)) => {
                let whose = port.link.whose_icmp(&packet);
                if whose != Whose::Kernels {
                    port.link.on_icmp(from, &packet, now);
                }
                if whose != Whose::Ours {
                    return Ok(Taken::Not(kernel));
                }
            }
            (Protocol::Other(_), Some(kernel)) => return Ok(Taken::Not(kernel)),
            (Protocol::Other(_), None) if port.link.is_local(packet.destination) => {
                port.link.on_unknown(from, &packet, now);
            }
            (Protocol::Other(_), None) => self.counters.not_local.increment(),
        }
        Ok(Taken::Here)
    }

    /// A segment for an address that is not `local` is none of ours, unless its connection was opened while a configuration still named the address. Where the
    /// kernel shares the address, what belongs to no connection and no listener of ours is the `kernels`.
    fn on_tcp<'f>(
        &self,
        packet: &Packet<'f>,
        local: bool,
        kernels: Option<Fate>,
        verified: bool,
        steered: bool,
    ) -> Result<Taken<'f>, Malformed> {
        let (flow, segment) = match (Segment::parse(packet, verified), kernels) {
            (Ok(parsed), _) => parsed,
            // What is wrong with it is for the kernel to say: it may know options of which we know nothing.
            (Err(_), Some(kernel)) => return Ok(Taken::Not(kernel)),
            (Err(malformed), None) => return Err(malformed),
        };
        if !steered {
            let owner = rss::lane_of(&flow, self.steering.lanes());
            if owner != self.id {
                return Ok(Taken::Not(Fate::Lane(owner)));
            }
        }
        if let Some(kernel) = kernels {
            let is_ours = self.stack.knows(&flow) || (local && self.stack.listens(&flow));
            return Ok(if is_ours { Taken::Segment(flow, segment) } else { Taken::Not(kernel) });
        }
        if local || self.stack.knows(&flow) {
            return Ok(Taken::Segment(flow, segment));
        }
        self.counters.not_local.increment();
        Ok(Taken::Here)
    }

    /// What the link layers have learned goes to all lanes, and errors to the lane whose flow they concern.
    fn share_news(&mut self, now: Instant) -> bool {
        let mut any = false;
        for (id, port) in (0..).map(PortId).zip(&mut self.ports) {
            while let Some(neighbour) = port.link.poll_learned() {
                any = true;
                for lane in self.steering.others() {
                    if !self.steering.hand_over(lane, Handover::Neighbour(id, neighbour)) {
                        self.counters.news_not_handed_over.increment();
                    }
                }
            }
            // An error arrives on any lane, for its addresses are a router's: the quoted flow says whose it is.
            while let Some(event) = port.link.poll_event() {
                any = true;
                let owner = owner(&event, self.steering.lanes());
                if owner == self.id {
                    tell(&mut self.stack, &mut self.echoes, event, now);
                } else if !self.steering.hand_over(owner, Handover::News(event)) {
                    self.counters.news_not_handed_over.increment();
                }
            }
        }
        any
    }
}

/// Whose news it is, of so many lanes: the lane's that has the flow, or that asked for the echo.
fn owner(event: &link::Event, lanes: u16) -> LaneId {
    match event {
        link::Event::Unresolved(flow) => rss::lane_of(flow, lanes),
        link::Event::Unreachable(quote) | link::Event::PacketTooBig(quote, _) => rss::lane_of(&quote.flow, lanes),
        link::Event::Echoed(_, echo) => LaneId(echo.identifier),
    }
}

/// What the network says about a flow of this lane, or an echo that it asked for. Echoes are dropped by a lane that has asked for none.
fn tell(stack: &mut Stack, echoes: &mut VecDeque<(IpAddr, Echo)>, event: link::Event, now: Instant) {
    match event {
        link::Event::Echoed(from, echo) => {
            // Nobody is asked more often than that: the oldest was forged, or is late.
            if echoes.len() >= ECHOES_MAX {
                echoes.pop_front();
            }
            echoes.push_back((from, echo));
        }
        link::Event::Unresolved(flow) => stack.on_unreachable(&flow, now),
        link::Event::Unreachable(Quote { flow, seq }) => stack.on_unreachable_segment(&flow, seq, now),
        link::Event::PacketTooBig(Quote { flow, seq }, mtu) => stack.on_packet_too_big(&flow, seq, mtu, now),
    }
}

fn malformed_counter(counters: &LaneCounters, malformed: Malformed) -> &Counter {
    match malformed {
        Malformed::Truncated => &counters.malformed_truncated,
        Malformed::Field => &counters.malformed_field,
        Malformed::Checksum => &counters.malformed_checksum,
        Malformed::Fragment => &counters.malformed_fragment,
        Malformed::Source => &counters.malformed_source,
        Malformed::Unsupported => &counters.unsupported,
    }
}
