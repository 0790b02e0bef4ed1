//! What is the engine's and what the host's kernel's, where the kernel has an interface beside the port and shares its addresses.
//!
//! Addresses of virtual services are the engine's alone. At the port's own addresses the engine answers ARP, neighbour solicitations and echo requests, and has its
//! connections; all else there is the kernel's, and so is what goes to groups, to everybody, and to addresses that the engine does not have. Answers of neighbours, and errors
//! about packets from a shared address, are for both: each knows what it has asked and sent.

use std::net::IpAddr;

use smoltcp::wire::{ArpOperation, ArpRepr, Icmpv6Packet, NdiscRepr};

use super::{Link, destination_of, source_of};
use crate::nic::Frame;
use crate::nic::kernel::Origin;
use crate::wire::icmp::{Echo, Meaning};
use crate::wire::{Malformed, Packet};

/// Who is to have a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The engine.
    Ours,
    /// The kernel.
    Kernels,
    /// The engine first, then the kernel.
    Both,
}

impl<F: Frame> Link<F> {
    /// Whether an address is the engine's and none that it shares with the kernel: that of a virtual service.
    pub fn is_ours_alone(&self, address: IpAddr) -> bool {
        self.routes.is_local(address) && !self.routes.is_own(address)
    }

    /// From where a packet of this source comes.
    pub fn origin_of(&self, source: IpAddr) -> Origin {
        if self.routes.is_on_link(source) { Origin::Neighbour } else { Origin::Stranger }
    }

    /// Whose an ARP message is. Two do not answer one request.
    pub fn whose_arp(&self, arp: &ArpRepr) -> Whose {
        if let ArpRepr::EthernetIpv4 { operation: ArpOperation::Request, target_protocol_addr, .. } = arp
            && self.routes.is_local(IpAddr::V4(*target_protocol_addr))
        {
            return Whose::Ours;
        }
        Whose::Both
    }

    /// Whose an ICMP or ICMPv6 packet is.
    pub fn whose_icmp(&self, packet: &Packet<'_>) -> Whose {
        if self.is_ours_alone(packet.destination) {
            return Whose::Ours;
        }
        let [kind, code, _, _, a, b, c, d, ref body @ ..] = *packet.payload else { return Whose::Kernels };
        let is_own = self.routes.is_local(packet.destination);
        match Meaning::of(packet.protocol, kind, code) {
            Meaning::Echo if is_own => Whose::Ours,
            Meaning::EchoReply if is_own && Echo::read([a, b, c, d], body).is_some() => Whose::Both,
            Meaning::Unreachable | Meaning::PacketTooBig if is_own => Whose::Both,
            Meaning::Discovery if self.answers_solicitation(packet.payload) => Whose::Ours,
            Meaning::Discovery => Whose::Both,
            Meaning::Echo | Meaning::EchoReply | Meaning::Unreachable | Meaning::PacketTooBig | Meaning::Other => {
                Whose::Kernels
            }
        }
    }

    /// From where a frame comes that the engine makes nothing of, if the kernel may: fragments, and EtherTypes of others. The kernel never sees a packet for one
    /// of the engine's own addresses, which it would route.
    pub fn kernels_although(&self, malformed: Malformed, frame: &[u8]) -> Option<Origin> {
        match malformed {
            Malformed::Unsupported => Some(Origin::Neighbour),
            Malformed::Fragment => {
                let packet = frame.get(super::ETHERNET_LEN..)?;
                let is_ours = self.is_ours_alone(destination_of(packet)?);
                (!is_ours).then_some(self.origin_of(source_of(packet)?))
            }
            Malformed::Truncated | Malformed::Field | Malformed::Checksum | Malformed::Source => None,
        }
    }

    /// Whether a message asks for an address of the engine's.
    fn answers_solicitation(&self, message: &[u8]) -> bool {
        let repr = Icmpv6Packet::new_checked(message).ok().and_then(|packet| NdiscRepr::parse(&packet).ok());
        match repr {
            Some(NdiscRepr::NeighborSolicit { target_addr, .. }) => self.routes.is_local(IpAddr::V6(target_addr)),
            Some(
                NdiscRepr::NeighborAdvert { .. }
                | NdiscRepr::RouterSolicit { .. }
                | NdiscRepr::RouterAdvert { .. }
                | NdiscRepr::Redirect { .. },
            )
            | None => false,
        }
    }
}
