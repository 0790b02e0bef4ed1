//! ICMP (RFC 792) and ICMPv6 (RFC 4443) messages: what their type and code mean, and whether their checksum is right.

use std::net::IpAddr;

use smoltcp::wire::{IpAddress, IpProtocol, checksum};

use crate::wire::{Packet, Protocol};

/// What an ICMP message means to this engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Somebody asks for an echo.
    Echo,
    /// A packet could not be delivered; it is quoted.
    Unreachable,
    /// A packet was too long for a link on its way; it is quoted.
    PacketTooBig,
    /// A message of neighbour discovery.
    Discovery,
    /// Nothing that we have a use for.
    Other,
}

impl Meaning {
    /// What a message of this type and code means.
    pub fn of(protocol: Protocol, kind: u8, code: u8) -> Self {
        match (protocol, kind, code) {
            (Protocol::Icmp, 8, 0) | (Protocol::Icmpv6, 128, 0) => Self::Echo,
            // RFC 1191 4.
            (Protocol::Icmp, 3, 4) | (Protocol::Icmpv6, 2, _) => Self::PacketTooBig,
            (Protocol::Icmp, 3, _) | (Protocol::Icmpv6, 1, _) => Self::Unreachable,
            (Protocol::Icmpv6, 133..=137, _) => Self::Discovery,
            (Protocol::Icmp | Protocol::Icmpv6 | Protocol::Tcp | Protocol::Other(_), _, _) => Self::Other,
        }
    }
}

/// The MTU of the link that a packet was too big for, from the four bytes behind the checksum (RFC 1191 4, RFC 4443 3.2). Routers older than RFC 1191 say 0.
pub fn mtu(protocol: Protocol, [a, b, c, d]: [u8; 4]) -> u32 {
    match protocol {
        Protocol::Icmpv6 => u32::from_be_bytes([a, b, c, d]),
        Protocol::Icmp | Protocol::Tcp | Protocol::Other(_) => u16::from_be_bytes([c, d]).into(),
    }
}

/// Whether the checksum of a packet that is ICMP or ICMPv6 is right.
pub fn checksum_holds(packet: &Packet<'_>) -> bool {
    let sum = checksum::data(packet.payload);
    match (packet.source, packet.destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let Ok(len) = u32::try_from(packet.payload.len()) else { return false };
            let (source, destination) = (IpAddress::Ipv6(source), IpAddress::Ipv6(destination));
            let pseudo = checksum::pseudo_header(&source, &destination, IpProtocol::Icmpv6, len);
            checksum::combine(&[pseudo, sum]) == u16::MAX
        }
        (IpAddr::V4(_), IpAddr::V4(_) | IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => sum == u16::MAX,
    }
}
