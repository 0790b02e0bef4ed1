//! Ethernet frames and IP packets (RFC 791, RFC 8200), as a lane receives them.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv6Packet, checksum,
};

use crate::wire::segment::IPV4_HEADER;

/// Most IPv6 extension headers that a packet may have. Hosts use one or two; a longer chain is an attempt to cost time.
const EXTENSION_HEADERS_MAX: usize = 8;

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
    /// Source address: never multicast, broadcast, loopback or IPv4-mapped; unspecified in ICMPv6 only (RFC 4862 5.4).
    pub source: IpAddr,
    /// Destination address; never unspecified, loopback or IPv4-mapped.
    pub destination: IpAddr,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// What the network has to say about congestion.
    pub ecn: Ecn,
    /// What `payload` is.
    pub protocol: Protocol,
    /// The packet from its IP header's first byte, without link-layer padding; ICMP errors quote it.
    pub bytes: &'a [u8],
    /// The part behind the IP header and any IPv6 extension headers.
    pub payload: &'a [u8],
}

/// The ECN field of an IP header (RFC 3168 5): the low two bits of IPv4's type of service and of IPv6's traffic class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The transport does not understand marks: a router in trouble drops the packet.
    #[default]
    NotEct,
    /// The transport understands marks, ECT(1).
    Ect1,
    /// The transport understands marks, ECT(0).
    Ect0,
    /// Congestion experienced: a router's mark.
    Ce,
}

impl Ecn {
    /// The codepoint in the low two bits of `octet`.
    pub fn of(octet: u8) -> Self {
        match octet & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The two bits.
    pub fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0,
            Self::Ect1 => 1,
            Self::Ect0 => 2,
            Self::Ce => 3,
        }
    }
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
    /// A frame to everyone (Ethernet broadcast or multicast) that holds a packet to one host is refused as
    /// [`Malformed::Field`] (RFC 1122 3.3.6): whoever answers packets need not ask how they came.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with it.
    pub fn parse(bytes: &'a [u8], verified: bool) -> Result<Self, Malformed> {
        let frame = EthernetFrame::new_checked(bytes).map_err(|_| Malformed::Truncated)?;
        let from = frame.src_addr();
        if !from.is_unicast() {
            return Err(Malformed::Source);
        }
        let version = match frame.ethertype() {
            EthernetProtocol::Arp => return parse_arp(frame.payload()).map(Self::Arp),
            EthernetProtocol::Ipv4 => 4,
            EthernetProtocol::Ipv6 => 6,
            // 802.1Q tags, 802.3 lengths and everything else.
            EthernetProtocol::Unknown(_) => return Err(Malformed::Unsupported),
        };
        let packet = Packet::parse(frame.payload(), verified)?;
        if packet.destination.is_ipv4() != (version == 4) {
            return Err(Malformed::Field);
        }
        if !frame.dst_addr().is_unicast() && !is_to_many(packet.destination) {
            return Err(Malformed::Field);
        }
        Ok(Self::Ip { from, packet })
    }
}

impl<'a> Packet<'a> {
    /// Parses a packet from its IP header on; trailing link-layer padding is cut off.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with it.
    pub fn parse(bytes: &'a [u8], verified: bool) -> Result<Self, Malformed> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => parse_ipv4(bytes, verified),
            Some(6) => parse_ipv6(bytes),
            Some(_) => Err(Malformed::Field),
            None => Err(Malformed::Truncated),
        }
    }
}

fn parse_arp(bytes: &[u8]) -> Result<ArpRepr, Malformed> {
    let packet = ArpPacket::new_checked(bytes).map_err(|_| Malformed::Truncated)?;
    ArpRepr::parse(&packet).map_err(|_| Malformed::Unsupported)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other number is some upper layer's")]
fn parse_ipv4(bytes: &[u8], verified: bool) -> Result<Packet<'_>, Malformed> {
    // IHL below 5 makes the lengths meaningless; say so rather than "truncated".
    if bytes.first().is_some_and(|first| first & 0x0f < 5) {
        return Err(Malformed::Field);
    }
    // All fields at once, as in `segment`: every packet passes here.
    let header = bytes.first_chunk::<IPV4_HEADER>().ok_or(Malformed::Truncated)?;
    let [version, service, lh, ll, _, _, fh, fl, hop_limit, protocol, _, _, a, b, c, d, e, f, g, h] = *header;
    let header_len = usize::from(version & 0x0f) * 4;
    let bytes = bytes.get(..usize::from(u16::from_be_bytes([lh, ll]))).ok_or(Malformed::Truncated)?;
    let (header, payload) = bytes.split_at_checked(header_len).ok_or(Malformed::Truncated)?;
    if !verified && checksum::data(header) != u16::MAX {
        return Err(Malformed::Checksum);
    }
    // More fragments, or not the first one.
    if u16::from_be_bytes([fh, fl]) & 0x3fff != 0 {
        return Err(Malformed::Fragment);
    }
    let (source, destination) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
    // RFC 1122 3.2.1.3: none of these may be a source.
    if source.is_unspecified() || source.is_loopback() || source.is_multicast() || source.is_broadcast() {
        return Err(Malformed::Source);
    }
    if destination.is_unspecified() || destination.is_loopback() {
        return Err(Malformed::Field);
    }
    let protocol = match protocol.into() {
        IpProtocol::Tcp => Protocol::Tcp,
        IpProtocol::Icmp => Protocol::Icmp,
        other => Protocol::Other(other.into()),
    };
    Ok(Packet {
        source: source.into(),
        destination: destination.into(),
        hop_limit,
        ecn: Ecn::of(service),
        protocol,
        bytes,
        payload,
    })
}

fn parse_ipv6(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    let packet = Ipv6Packet::new_checked(bytes).map_err(|_| Malformed::Truncated)?;
    let (protocol, payload) = skip_extension_headers(packet.next_header(), packet.payload())?;
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    // An IPv4-mapped address on the wire would name the flow of an IPv4 peer (RFC 4942 2.2).
    if source.is_multicast() || source.is_loopback() || source.to_ipv4_mapped().is_some() {
        return Err(Malformed::Source);
    }
    if source.is_unspecified() && protocol != Protocol::Icmpv6 {
        return Err(Malformed::Source);
    }
    if destination.is_unspecified() || destination.is_loopback() || destination.to_ipv4_mapped().is_some() {
        return Err(Malformed::Field);
    }
    Ok(Packet {
        source: source.into(),
        destination: destination.into(),
        hop_limit: packet.hop_limit(),
        ecn: Ecn::of(packet.traffic_class()),
        protocol,
        bytes: bytes.get(..packet.total_len()).ok_or(Malformed::Truncated)?,
        payload,
    })
}

/// Walks the extension headers (RFC 8200 4) to the upper layer's.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other number is some upper layer's")]
fn skip_extension_headers(first: IpProtocol, payload: &[u8]) -> Result<(Protocol, &[u8]), Malformed> {
    let (mut next, mut rest) = (first, payload);
    for index in 0..=EXTENSION_HEADERS_MAX {
        let protocol = match next {
            IpProtocol::Tcp => return Ok((Protocol::Tcp, rest)),
            IpProtocol::Icmpv6 => return Ok((Protocol::Icmpv6, rest)),
            // RFC 8200 4.1: nowhere but directly behind the IPv6 header.
            IpProtocol::HopByHop if index > 0 => return Err(Malformed::Field),
            IpProtocol::HopByHop | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route => next,
            IpProtocol::Ipv6Frag => return Err(Malformed::Fragment),
            other => return Ok((Protocol::Other(other.into()), rest)),
        };
        let [following, length, ..] = *rest else { return Err(Malformed::Truncated) };
        let len = (usize::from(length) + 1) * 8;
        let (header, behind) = rest.split_at_checked(len).ok_or(Malformed::Truncated)?;
        let acceptable = match (protocol, header) {
            // RFC 8200 4.4: a routing header is ignored only when nothing is left of its route.
            (IpProtocol::Ipv6Route, [_, _, _, segments_left, ..]) => *segments_left == 0,
            (_, [_, _, options @ ..]) => options_may_be_ignored(options),
            (_, _) => false,
        };
        if !acceptable {
            return Err(Malformed::Field);
        }
        (next, rest) = (following.into(), behind);
    }
    Err(Malformed::Field)
}

/// Whether no option demands that a node which does not know it discards the packet (RFC 8200 4.2). We know padding only;
/// a jumbo payload (RFC 2675) is refused here.
fn options_may_be_ignored(mut options: &[u8]) -> bool {
    loop {
        options = match *options {
            [] => return true,
            [0, ref rest @ ..] => rest,
            [kind, len, ref rest @ ..] if kind & 0xc0 == 0 => match rest.get(usize::from(len)..) {
                Some(rest) => rest,
                None => return false,
            },
            [..] => return false,
        };
    }
}

/// Whether packets to `destination` rightly travel in Ethernet multicast or broadcast frames.
fn is_to_many(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

#[cfg(test)]
mod tests;
