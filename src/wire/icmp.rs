//! ICMP (RFC 792) and ICMPv6 (RFC 4443) messages: what their type and code mean, and whether their checksum is right.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet,
    Ipv6Repr, checksum,
};

use crate::wire::{Packet, Protocol};

/// What an ICMP message means to this engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Somebody asks for an echo.
    Echo,
    /// Somebody has echoed what we said.
    EchoReply,
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
            (Protocol::Icmp, 0, 0) | (Protocol::Icmpv6, 129, 0) => Self::EchoReply,
            // RFC 1191 4.
            (Protocol::Icmp, 3, 4) | (Protocol::Icmpv6, 2, _) => Self::PacketTooBig,
            (Protocol::Icmp, 3, _) | (Protocol::Icmpv6, 1, _) => Self::Unreachable,
            (Protocol::Icmpv6, 133..=137, _) => Self::Discovery,
            (Protocol::Icmp | Protocol::Icmpv6 | Protocol::Tcp | Protocol::Other(_), _, _) => Self::Other,
        }
    }
}

/// What an echo request of ours says. Its reply says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Identifier.
    pub identifier: u16,
    /// Sequence number.
    pub sequence: u16,
    /// The data, all of it.
    pub token: u64,
}

impl Echo {
    /// Reads what a message has behind its checksum; `None` for an echo that is none of ours.
    pub fn read(word: [u8; 4], data: &[u8]) -> Option<Self> {
        let [a, b, c, d] = word;
        let token = u64::from_be_bytes(data.try_into().ok()?);
        Some(Self { identifier: u16::from_be_bytes([a, b]), sequence: u16::from_be_bytes([c, d]), token })
    }

    /// Writes a request as a whole IP packet and gives its length; `None` where there is no room, or the addresses are of two families.
    pub fn request(&self, source: IpAddr, destination: IpAddr, hop_limit: u8, room: &mut [u8]) -> Option<usize> {
        let Self { identifier: ident, sequence: seq_no, token } = *self;
        let (data, checksums) = (&token.to_be_bytes()[..], ChecksumCapabilities::default());
        match (source, destination) {
            (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
                let message = Icmpv4Repr::EchoRequest { ident, seq_no, data };
                let payload_len = message.buffer_len();
                let next_header = IpProtocol::Icmp;
                let header = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
                let len = header.buffer_len() + payload_len;
                let mut packet = Ipv4Packet::new_unchecked(room.get_mut(..len)?);
                header.emit(&mut packet, &checksums);
                message.emit(&mut Icmpv4Packet::new_unchecked(packet.payload_mut()), &checksums);
                Some(len)
            }
            (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
                let message = Icmpv6Repr::EchoRequest { ident, seq_no, data };
                let payload_len = message.buffer_len();
                let next_header = IpProtocol::Icmpv6;
                let header = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
                let len = header.buffer_len() + payload_len;
                let mut packet = Ipv6Packet::new_unchecked(room.get_mut(..len)?);
                header.emit(&mut packet);
                let mut payload = Icmpv6Packet::new_unchecked(packet.payload_mut());
                message.emit(&src_addr, &dst_addr, &mut payload, &checksums);
                Some(len)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Frame;

    #[test]
    fn an_echo_request_is_a_packet_with_right_checksums_and_its_reply_reads_the_same() {
        let echo = Echo { identifier: 3, sequence: 0x1234, token: 0x0102_0304_0506_0708 };
        for (source, destination, len, protocol, kind) in [
            ("198.18.0.2", "198.18.0.1", 36, Protocol::Icmp, 8),
            ("2001:db8::2", "2001:db8::1", 56, Protocol::Icmpv6, 128),
        ] {
            let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
            let mut frame = vec![2; 14 + len];
            frame[12..14].copy_from_slice(&if source.is_ipv4() { [8, 0] } else { [0x86, 0xdd] });
            assert_eq!(echo.request(source, destination, 64, &mut frame[14..]), Some(len));
            let Ok(Frame::Ip { packet, .. }) = Frame::parse(&frame, false) else { panic!("it is no packet") };
            assert_eq!((packet.source, packet.destination, packet.protocol), (source, destination, protocol));
            assert!(checksum_holds(&packet));
            let [is, 0, _, _, a, b, c, d, data @ ..] = packet.payload else { panic!("it is too short") };
            assert_eq!((*is, Echo::read([*a, *b, *c, *d], data)), (kind, Some(echo)));
            assert_eq!(echo.request(source, destination, 64, &mut [0; 35]), None);
        }
        let mixed = ("198.18.0.2".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(echo.request(mixed.0, mixed.1, 64, &mut [0; 100]), None);
    }

    #[test]
    fn an_echo_of_other_data_is_none_of_ours() {
        assert_eq!(Echo::read([0; 4], &[0; 7]), None);
        assert_eq!(Echo::read([0; 4], &[0; 56]), None);
    }
}
