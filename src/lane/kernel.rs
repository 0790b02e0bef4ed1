//! Frames between a port and the kernel's interface beside it, which any lane exchanges over queues of its own.

use std::net::IpAddr;

use smoltcp::wire::ArpRepr;

use crate::base::{Instant, PortId};
use crate::lane::Station;
use crate::lane::receive::{Fate, Taken};
use crate::lane::station::Port;
use crate::link::Whose;
use crate::nic::QueuePair;
use crate::nic::kernel::Origin;
use crate::wire::Malformed;

impl<Q: QueuePair> Port<Q> {
    /// Whether the kernel may have packets for an address.
    pub(super) fn shares(&self, address: IpAddr) -> bool {
        self.kernel.is_some() && !self.link.is_ours_alone(address)
    }

    /// What becomes of an ARP message that the engine has read.
    pub(super) fn share_arp<'f>(&self, arp: &ArpRepr) -> Taken<'f> {
        if self.kernel.is_none() {
            return Taken::Here;
        }
        match self.link.whose_arp(arp) {
            Whose::Ours => Taken::Here,
            Whose::Kernels | Whose::Both => Taken::Not(Fate::Kernel(Origin::Neighbour)),
        }
    }

    /// What becomes of a frame that the engine makes nothing of.
    pub(super) fn although<'f>(&self, malformed: Malformed, frame: &[u8]) -> Result<Taken<'f>, Malformed> {
        let origin = self.kernel.as_ref().and_then(|_| self.link.kernels_although(malformed, frame));
        origin.map(|origin| Taken::Not(Fate::Kernel(origin))).ok_or(malformed)
    }
}

impl<Q: QueuePair> Station<Q> {
    /// Gives the kernel a frame that has come over a port.
    pub(super) fn give_to_kernel(&mut self, port: PortId, frame: Q::Frame, origin: Origin, now: Instant) {
        if let Some(kernel) = self.ports.get_mut(usize::from(port.0)).and_then(|port| port.kernel.as_mut()) {
            kernel.give(frame, origin, now);
        }
    }

    /// Takes a burst of what the kernel sends over each port, which leaves as it is with what the engine sends.
    pub(super) fn receive_from_kernel(&mut self, now: Instant) -> bool {
        let mut any = false;
        for port in &mut self.ports {
            if let Some(kernel) = &mut port.kernel {
                any |= kernel.receive(&mut port.outgoing, now);
            }
        }
        any
    }
}
