//! A router on the way whose link carries less than its neighbours': what it drops, and what it says about it (RFC 1191 4, RFC 4443 3.2).

use std::net::{Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, checksum};

/// Where the router's messages come from.
const IPV4: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);
const IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
const HOP_LIMIT: u8 = 64;

/// RFC 1812 4.3.2.3: an ICMP error is no longer than 576 bytes.
const IPV4_QUOTE_MAX: usize = 576 - 20 - 8;
/// RFC 4443 2.4 (c): an ICMPv6 error is no longer than the minimum MTU.
const IPV6_QUOTE_MAX: usize = 1280 - 40 - 8;

/// A link that carries packets of `mtu` bytes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Narrow {
    /// The longest IP packet that it carries.
    pub mtu: usize,
    /// Longer ones vanish without a word: a black hole.
    pub silent: bool,
}

impl Narrow {
    /// Whether the link carries this packet.
    pub fn carries(&self, packet: &[u8]) -> bool {
        packet.len() <= self.mtu
    }

    /// The IP packet that tells the sender of a packet which the link does not carry; none from a black hole, nor about what is no IP packet.
    pub fn answer(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let mtu = u32::try_from(self.mtu).ok().filter(|_| !self.silent)?;
        packet_too_big(packet, mtu)
    }
}

/// What a router sends back to the sender of `packet`, which is too long for a link of this MTU: an IP packet.
pub fn packet_too_big(packet: &[u8], mtu: u32) -> Option<Vec<u8>> {
    match packet.first()? >> 4 {
        4 => {
            let source = Ipv4Packet::new_checked(packet).ok()?.src_addr();
            let [a, b, c, d] = mtu.min(u16::MAX.into()).to_be_bytes();
            let message = message(3, 4, [a, b, c, d], packet.get(..IPV4_QUOTE_MAX).unwrap_or(packet), 0);
            let (next_header, payload_len) = (IpProtocol::Icmp, message.len());
            let mut header = [0; 20];
            Ipv4Repr { src_addr: IPV4, dst_addr: source, next_header, payload_len, hop_limit: HOP_LIMIT }
                .emit(&mut Ipv4Packet::new_unchecked(&mut header[..]), &ChecksumCapabilities::default());
            Some([&header[..], &message].concat())
        }
        6 => {
            let source = Ipv6Packet::new_checked(packet).ok()?.src_addr();
            let quoted = packet.get(..IPV6_QUOTE_MAX).unwrap_or(packet);
            let (next_header, payload_len) = (IpProtocol::Icmpv6, 8 + quoted.len());
            let checked_len = u32::try_from(payload_len).ok()?;
            let (from, to) = (IpAddress::Ipv6(IPV6), IpAddress::Ipv6(source));
            let pseudo = checksum::pseudo_header(&from, &to, next_header, checked_len);
            let message = message(2, 0, mtu.to_be_bytes(), quoted, pseudo);
            let mut header = [0; 40];
            Ipv6Repr { src_addr: IPV6, dst_addr: source, next_header, payload_len, hop_limit: HOP_LIMIT }
                .emit(&mut Ipv6Packet::new_unchecked(&mut header[..]));
            Some([&header[..], &message].concat())
        }
        _ => None,
    }
}

/// An ICMP or ICMPv6 message; `pseudo` is the sum of the pseudo header that its checksum covers.
fn message(kind: u8, code: u8, word: [u8; 4], quoted: &[u8], pseudo: u16) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0], &word[..], quoted].concat();
    let sum = !checksum::combine(&[pseudo, checksum::data(&message)]);
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Duration;
    use crate::tcp::testbed::{Read, Testbed};
    use crate::tcp::{ConnectionId, Settings};

    fn pair(settings: &Settings, v6: bool) -> [(Testbed, ConnectionId); 2] {
        let (here, there) = if v6 {
            ("[2001:db8::1]:50000".parse().unwrap(), "[2001:db8::2]:443".parse().unwrap())
        } else {
            ("198.18.0.1:50000".parse().unwrap(), "198.18.0.2:443".parse().unwrap())
        };
        let (mut client, mut server) = (Testbed::new(settings.clone(), 1), Testbed::new(settings.clone(), 2));
        let listener = server.listen(there).unwrap();
        let ours = client.connect(here, there).unwrap();
        server.inject(&client.take().unwrap()).unwrap();
        client.inject(&server.take().unwrap()).unwrap();
        server.inject(&client.take().unwrap()).unwrap();
        let theirs = server.accept(listener).unwrap();
        [(client, ours), (server, theirs)]
    }

    /// Carries packets over the link for up to a minute, and gives how many bytes each host has read.
    fn carry(hosts: &mut [(Testbed, ConnectionId); 2], narrow: Narrow) -> [usize; 2] {
        let mut read = [0; 2];
        for _ in 0..6000 {
            for side in 0..2 {
                while let Some(packet) = hosts[side].0.take() {
                    if narrow.carries(&packet) {
                        hosts[1 - side].0.inject(&packet).unwrap();
                    } else if let Some(answer) = narrow.answer(&packet) {
                        hosts[side].0.inject(&answer).unwrap();
                    }
                }
            }
            for (side, (bed, connection)) in hosts.iter_mut().enumerate() {
                if let Ok(Read::Bytes(len)) = bed.read(*connection, &mut [0; 100_000]) {
                    read[side] += len;
                }
                bed.advance(Duration::from_millis(10));
                bed.audit().unwrap();
            }
        }
        read
    }

    #[test]
    fn a_narrow_link_carries_transfers_both_ways_whether_it_speaks_or_not() {
        for case in 0..8 {
            let (v6, silent, sack) = (case & 1 > 0, case & 2 > 0, case & 4 > 0);
            let narrow = Narrow { mtu: 1300, silent };
            let mut hosts = pair(&Settings { sack, ..Settings::default() }, v6);
            for (bed, connection) in &mut hosts {
                assert_eq!(bed.write(*connection, &[7; 60_000]), Ok(60_000));
            }
            assert_eq!(carry(&mut hosts, narrow), [60_000; 2], "case {case}");
            for (bed, connection) in &hosts {
                let counters = bed.counters();
                let found = (counters.path_mtu_lowered.value(), counters.black_holes.value());
                assert_eq!(found, if silent { (0, 1) } else { (1, 0) }, "case {case}");
                let mss = usize::try_from(bed.inspect(*connection).unwrap().mss).unwrap();
                let room = 1300 - 52 - if v6 { 20 } else { 0 };
                assert!(if silent { (900..=room).contains(&mss) } else { mss == room }, "case {case}: {mss}");
            }
        }
    }

    #[test]
    fn a_black_hole_with_the_search_switched_off_carries_nothing_large() {
        let mut hosts = pair(&Settings { mtu_probing: false, ..Settings::default() }, false);
        let (bed, connection) = &mut hosts[0];
        assert_eq!(bed.write(*connection, &[7; 60_000]), Ok(60_000));
        assert_eq!(carry(&mut hosts, Narrow { mtu: 1300, silent: true }), [0; 2]);
    }

    #[test]
    fn what_is_no_ip_packet_is_not_answered() {
        assert_eq!((packet_too_big(&[], 1300), packet_too_big(&[0x45; 10], 1300)), (None, None));
        assert_eq!(packet_too_big(&[0xff; 2000], 1300), None);
    }
}
