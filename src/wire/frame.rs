//! Ethernet frames and IP packets (RFC 791, RFC 8200), as a lane receives them.

use std::net::IpAddr;

use smoltcp::wire::{ArpRepr, EthernetAddress};

/// A received Ethernet frame that is of some use to a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// An ARP message for IPv4 over Ethernet.
    Arp(ArpRepr),
    /// An IPv4 or IPv6 packet.
    Ip {
        /// Who sent the frame.
        from: EthernetAddress,
        /// What it carries.
        packet: Packet<'a>,
    },
}

/// An unfragmented IPv4 or IPv6 packet whose lengths and header checksum have been proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Source address; never multicast or broadcast.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// What `payload` is.
    pub protocol: Protocol,
    /// The packet from its IP header's first byte, without link-layer padding; ICMP errors quote it.
    pub bytes: &'a [u8],
    /// The part behind the IP header and any IPv6 extension headers.
    pub payload: &'a [u8],
}

/// The upper-layer protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// ICMP over IPv4.
    Icmp,
    /// ICMPv6.
    Icmpv6,
    /// Anything else, by its number.
    Other(u8),
}

/// Why bytes from outside are not what they claim to be. One counter each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Shorter than its headers or than a length field says.
    Truncated,
    /// A field with a value that the protocol does not allow.
    Field,
    /// A wrong checksum.
    Checksum,
    /// An IP fragment: Sealane does not reassemble, TCP sets "don't fragment".
    Fragment,
    /// A source address that no sender may have.
    Source,
    /// An EtherType or ARP flavour that a lane has no use for.
    Unsupported,
}

impl<'a> Frame<'a> {
    /// Parses an Ethernet frame. With `verified`, the NIC has already proven the IP header's checksum.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with it.
    pub fn parse(bytes: &'a [u8], verified: bool) -> Result<Self, Malformed> {
        let _ = (bytes, verified);
        todo!()
    }
}

impl<'a> Packet<'a> {
    /// Parses a packet from its IP header on; trailing link-layer padding is cut off.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with it.
    pub fn parse(bytes: &'a [u8], verified: bool) -> Result<Self, Malformed> {
        let _ = (bytes, verified);
        todo!()
    }
}
