//! The TCP segment of a packet of ours, or of its first bytes as an ICMP error quotes them (RFC 792, RFC 4443 2.4 (c)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::Flow;
use crate::wire::Seq;

const TCP: u8 = 6;

/// What eight bytes of a segment tell: which connection it belongs to, and which part of it this was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The flow as the segment's sender sees it: the packet's source is the local end.
    pub flow: Flow,
    /// SEG.SEQ.
    pub seq: Seq,
}

impl Quote {
    /// Reads a packet or its beginning. `None` when it is no TCP, or too short to say. Lengths and checksums are not looked at: routers change both.
    /// IPv6 extension headers are not looked behind: we send none.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        let (source, destination, segment): (IpAddr, IpAddr, &[u8]) = match first >> 4 {
            4 => {
                let (header, _) = packet.split_first_chunk::<20>()?;
                let [_, _, _, _, _, _, fragment, offset, _, protocol, _, _, a, b, c, d, e, f, g, h] = *header;
                if protocol != TCP || fragment & 0x1f != 0 || offset != 0 {
                    return None;
                }
                let segment = packet.get(usize::from(first & 0x0f).max(5) * 4..)?;
                (Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into(), segment)
            }
            6 => {
                let (header, segment) = packet.split_first_chunk::<40>()?;
                let ([_, _, _, _, _, _, TCP, _], addresses) = header.split_first_chunk::<8>()? else { return None };
                let (source, destination) = addresses.split_first_chunk::<16>()?;
                let (source, destination) =
                    (Ipv6Addr::from(*source), Ipv6Addr::from(<[u8; 16]>::try_from(destination).ok()?));
                // In a flow, these would be an IPv4 connection's endpoints.
                if source.to_ipv4_mapped().is_some() || destination.to_ipv4_mapped().is_some() {
                    return None;
                }
                (source.into(), destination.into(), segment)
            }
            _ => return None,
        };
        let ([a, b, c, d, seq @ ..], _) = segment.split_first_chunk::<8>()?;
        let (source_port, destination_port) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
        let flow = Flow::new(SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port));
        Some(Self { flow, seq: Seq(u32::from_be_bytes(*seq)) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ipv4() -> Vec<u8> {
        let header = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
        [&header[..], &443u16.to_be_bytes(), &50_000u16.to_be_bytes(), &[1, 2, 3, 4]].concat()
    }

    fn ipv6(source: &str) -> Vec<u8> {
        let addresses = [source, "2001:db8::2"].map(|address| address.parse::<Ipv6Addr>().unwrap().octets());
        [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &addresses.concat(), &[0x01, 0xbb, 0xc3, 0x50, 1, 2, 3, 4]].concat()
    }

    #[test]
    fn eight_bytes_of_a_segment_are_enough_to_know_it() {
        let flow = |packet: &[u8]| Quote::parse(packet).map(|quote| format!("{:?}", quote.flow));
        assert_eq!(Quote::parse(&ipv4()).unwrap().seq, Seq(0x0102_0304));
        assert_eq!(flow(&ipv4()).unwrap(), "198.18.0.1:443 <-> 198.18.0.2:50000");
        assert_eq!(flow(&ipv6("2001:db8::1")).unwrap(), "[2001:db8::1]:443 <-> [2001:db8::2]:50000");
        let mut with_options = ipv4();
        with_options[0] = 0x46;
        with_options.splice(20..20, [1; 4]);
        assert_eq!(flow(&with_options), flow(&ipv4()));
    }

    #[test]
    fn what_is_no_first_fragment_of_a_segment_is_not_known() {
        for (place, value) in [(0, 0x55), (6, 0x01), (7, 1), (9, 17), (0, 0x4f)] {
            let mut packet = ipv4();
            packet[place] = value;
            assert_eq!(Quote::parse(&packet), None, "byte {place}");
        }
        assert_eq!(Quote::parse(&ipv4()[..27]), None);
        assert_eq!(Quote::parse(&ipv6("2001:db8::1")[..47]), None);
        assert_eq!(Quote::parse(&ipv6("::ffff:198.18.0.1")), None, "an IPv4 connection is not quoted in IPv6");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_quote_or_none(first: u8, bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Quote::parse(&[&[first][..], &bytes].concat());
            let _ = Quote::parse(&bytes);
        }
    }
}
