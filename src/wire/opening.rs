//! A look at a frame that proves nothing: whether it seems to be a SYN, and whose. It is for deciding what to read first when there is too much to read.

/// What a SYN (RFC 9293 3.5) and its retransmissions have in common, and no other: endpoints and sequence number, as bytes of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening<'a> {
    /// Both addresses.
    pub addresses: &'a [u8],
    /// Both ports and the sequence number.
    pub numbers: &'a [u8; 8],
}

const ETHERNET: usize = 14;
const IPV6: usize = 40;
const TCP: u8 = 6;
/// FIN, SYN, RST and ACK, and the one of them that a SYN has.
const FLAGS: u8 = 0x17;
const SYN: u8 = 0x02;

impl<'a> Opening<'a> {
    /// `None` for what is no SYN, and for a SYN behind IPv6 extension headers, which nobody honest sends.
    pub fn of(frame: &'a [u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET..)?;
        let (addresses, protocol, segment) = match frame.get(12..ETHERNET)? {
            [0x08, 0x00] => {
                let header = usize::from(packet.first()? & 0x0f) * 4;
                (packet.get(12..20)?, *packet.get(9)?, packet.get(header..)?)
            }
            [0x86, 0xdd] => (packet.get(8..40)?, *packet.get(6)?, packet.get(IPV6..)?),
            _ => return None,
        };
        let is_syn = protocol == TCP && segment.get(13)? & FLAGS == SYN;
        is_syn.then_some(Self { addresses, numbers: segment.first_chunk()? })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::base::Flow;
    use crate::wire::{Ecn, Flags, Outgoing, SegmentOptions, Seq};

    fn frame(remote: &str, seq: u32, flags: Flags, ack: Option<Seq>) -> Vec<u8> {
        let remote: SocketAddr = remote.parse().unwrap();
        let local = if remote.is_ipv4() { "198.18.0.1:443" } else { "[2001:db8::1]:443" };
        let flow = Flow::new(remote, local.parse().unwrap());
        let (options, ecn, payload) = (SegmentOptions::default(), Ecn::NotEct, (&[][..], &[][..]));
        let mut room = vec![0; 100];
        let outgoing = Outgoing { flow: &flow, seq: Seq(seq), ack, flags, window: 1, options, ecn, payload };
        let len = outgoing.emit(&mut room[14..], false).unwrap();
        room[12..14].copy_from_slice(if remote.is_ipv4() { &[8, 0] } else { &[0x86, 0xdd] });
        room.truncate(14 + len);
        room
    }

    const REMOTES: [&str; 3] = ["198.18.0.2:50000", "198.18.0.2:50001", "[2001:db8::2]:50000"];

    #[test]
    fn a_syn_is_known_by_its_endpoints_and_its_number() {
        let syn = Flags { syn: true, ..Flags::default() };
        let frames: Vec<_> =
            REMOTES.iter().flat_map(|remote| [1, 2].map(|seq| frame(remote, seq, syn, None))).collect();
        for (one, frame) in frames.iter().enumerate() {
            for (other, another) in frames.iter().enumerate() {
                assert!(Opening::of(frame).is_some());
                assert_eq!(Opening::of(frame) == Opening::of(&another.clone()), one == other);
            }
        }
        let ecn = Flags { ece: true, cwr: true, ..syn };
        assert_eq!(Opening::of(&frame(REMOTES[0], 1, ecn, None)), Opening::of(&frames[0]), "a SYN that offers ECN");
    }

    #[test]
    fn nothing_else_is_one() {
        let syn = Flags { syn: true, ..Flags::default() };
        for remote in REMOTES {
            assert_eq!(Opening::of(&frame(remote, 1, syn, Some(Seq(1)))), None);
            for flags in [Flags::default(), Flags { rst: true, ..syn }, Flags { fin: true, ..syn }] {
                assert_eq!(Opening::of(&frame(remote, 1, flags, None)), None);
            }
            let whole = frame(remote, 1, syn, None);
            assert!((0..48).all(|len| Opening::of(&whole[..len]).is_none()), "cut off before the flags");
        }
        let mut udp = frame(REMOTES[0], 1, syn, None);
        udp[14 + 9] = 17;
        let mut arp = frame(REMOTES[0], 1, syn, None);
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!((Opening::of(&udp), Opening::of(&arp)), (None, None));
    }
}
