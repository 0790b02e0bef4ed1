//! Long frames: TCP data of several segments behind one set of headers, as a stack leaves it to a NIC to cut (TSO), and as virtual machines pass it to one
//! another uncut (LRO). What becomes of the headers when such a frame is taken apart.

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber};

/// Bytes of an Ethernet header.
const ETHERNET_LEN: usize = 14;

/// The longest headers of a frame that can be taken apart: Ethernet, IPv6 without extensions or IPv4 with all its options, TCP with all of its.
pub const HEADERS_MAX: usize = ETHERNET_LEN + 60 + 60;

/// Where the headers of a TCP frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    ipv6: bool,
    /// Where TCP's begins.
    tcp: usize,
    /// Bytes of all of them.
    pub len: usize,
}

/// A part of a long frame's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where in the data it begins.
    pub offset: usize,
    /// Bytes of it.
    pub len: usize,
    /// Nothing comes after it.
    pub is_last: bool,
}

impl Headers {
    /// Those of a frame, of which the first [`HEADERS_MAX`] bytes are enough; `None` if it is not TCP right behind IPv4 or IPv6, whole in what is given.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET_LEN..)?;
        let (ipv6, ip_len, next) = match frame.get(12..ETHERNET_LEN)? {
            // `new_checked` wants the whole packet; a header is at least its fixed part.
            [0x08, 0x00] if packet.len() >= 20 => {
                let ip = Ipv4Packet::new_unchecked(packet);
                (false, usize::from(ip.header_len()).max(20), ip.next_header())
            }
            [0x86, 0xdd] if packet.len() >= 40 => (true, 40, Ipv6Packet::new_unchecked(packet).next_header()),
            _ => return None,
        };
        let segment = packet.get(ip_len..).filter(|segment| segment.len() >= 20 && next == IpProtocol::Tcp)?;
        let tcp_len = usize::from(TcpPacket::new_unchecked(segment).header_len());
        let (tcp, len) = (ETHERNET_LEN + ip_len, ETHERNET_LEN + ip_len + tcp_len);
        (tcp_len >= 20 && len <= frame.len()).then_some(Self { ipv6, tcp, len })
    }

    /// Makes a copy of the headers those of one part: lengths and sequence number; FIN and PSH belong to the last part, CWR to the first (RFC 3168 6.1.2 tells
    /// of a reduction once). The IPv4 header's checksum is right, TCP's is left as it is.
    pub fn write(&self, headers: &mut [u8], part: Part) {
        let Some((packet, segment)) = headers.split_at_mut_checked(self.tcp) else { return };
        let Some(packet) = packet.get_mut(ETHERNET_LEN..) else { return };
        let tcp_len = self.len - self.tcp + part.len;
        if self.ipv6 {
            Ipv6Packet::new_unchecked(packet).set_payload_len(u16::try_from(tcp_len).unwrap_or(u16::MAX));
        } else {
            let total = u16::try_from(self.tcp - ETHERNET_LEN + tcp_len).unwrap_or(u16::MAX);
            let mut ip = Ipv4Packet::new_unchecked(packet);
            ip.set_total_len(total);
            ip.fill_checksum();
        }
        let mut tcp = TcpPacket::new_unchecked(segment);
        // Sequence numbers wrap, and smoltcp keeps them as the i32 of the same bits.
        let offset = u32::try_from(part.offset).unwrap_or(u32::MAX);
        let number = u32::from_ne_bytes(tcp.seq_number().0.to_ne_bytes()).wrapping_add(offset);
        tcp.set_seq_number(TcpSeqNumber(i32::from_ne_bytes(number.to_ne_bytes())));
        if !part.is_last {
            tcp.set_fin(false);
            tcp.set_psh(false);
        }
        if part.offset > 0 {
            tcp.set_cwr(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{IpAddress, IpRepr, TcpControl, TcpRepr, TcpTimestampRepr};

    use super::*;

    const FIRST: u32 = u32::MAX - 100;

    /// A frame with timestamps, FIN, PSH and CWR, that begins a few bytes before sequence numbers wrap.
    fn frame(ipv6: bool, data: &[u8]) -> Vec<u8> {
        let (source, destination): (IpAddress, IpAddress) = if ipv6 {
            (IpAddress::v6(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), IpAddress::v6(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2))
        } else {
            (IpAddress::v4(198, 18, 0, 1), IpAddress::v4(198, 18, 0, 2))
        };
        let tcp = TcpRepr {
            src_port: 443,
            dst_port: 5000,
            control: TcpControl::Fin,
            seq_number: TcpSeqNumber(FIRST.cast_signed()),
            ack_number: Some(TcpSeqNumber(7)),
            window_len: 500,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: Some(TcpTimestampRepr::new(1, 2)),
            payload: data,
        };
        let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp.buffer_len(), 64);
        let mut frame = vec![2; ETHERNET_LEN + ip.buffer_len()];
        frame[12..14].copy_from_slice(if ipv6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
        let all = ChecksumCapabilities::default();
        ip.emit(&mut frame[ETHERNET_LEN..], &all);
        let mut segment = TcpPacket::new_unchecked(&mut frame[ETHERNET_LEN + ip.header_len()..]);
        tcp.emit(&mut segment, &source, &destination, &all);
        segment.set_psh(true);
        segment.set_cwr(true);
        frame
    }

    /// The TCP segment in a frame whose lengths and IPv4 checksum are right.
    fn segment(ipv6: bool, frame: &[u8]) -> TcpPacket<&[u8]> {
        let packet = &frame[ETHERNET_LEN..];
        let segment = if ipv6 {
            Ipv6Packet::new_checked(packet).unwrap().payload()
        } else {
            let ip = Ipv4Packet::new_checked(packet).unwrap();
            assert!(ip.verify_checksum());
            ip.payload()
        };
        TcpPacket::new_checked(segment).unwrap()
    }

    proptest! {
        #[test]
        fn the_parts_together_are_the_whole(ipv6: bool, size in 1_usize..500, data in proptest::collection::vec(any::<u8>(), 1..2000)) {
            let whole = frame(ipv6, &data);
            let headers = Headers::of(&whole[..whole.len().min(HEADERS_MAX)]).unwrap();
            prop_assert_eq!(&whole[headers.len..], &data[..]);
            let (mut together, parts) = (Vec::<u8>::new(), data.len().div_ceil(size));
            for (number, piece) in data.chunks(size).enumerate() {
                let is_last = number + 1 == parts;
                let mut part = whole[..headers.len].to_vec();
                headers.write(&mut part, Part { offset: number * size, len: piece.len(), is_last });
                part.extend(piece);
                let segment = segment(ipv6, &part);
                let seq = FIRST.wrapping_add(u32::try_from(together.len()).unwrap());
                prop_assert_eq!(segment.seq_number().0.cast_unsigned(), seq);
                prop_assert_eq!((segment.fin(), segment.psh(), segment.cwr()), (is_last, is_last, number == 0));
                prop_assert_eq!((segment.ack_number().0, segment.window_len(), segment.ack()), (7, 500, true));
                prop_assert_eq!(segment.options(), self::segment(ipv6, &whole).options());
                prop_assert_eq!(segment.payload(), piece);
                together.extend(segment.payload());
            }
            prop_assert_eq!(together, data);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..150), offset: usize, len: usize, is_last: bool) {
            if let Some(headers) = Headers::of(&bytes) {
                prop_assert!(headers.len <= bytes.len() && headers.len <= HEADERS_MAX);
                headers.write(&mut bytes.clone()[..headers.len], Part { offset, len: len % 65_536, is_last });
            }
        }
    }

    #[test]
    fn only_tcp_right_behind_ip_is_taken_apart() {
        let whole = frame(true, b"data");
        let headers = Headers::of(&whole).unwrap();
        assert_eq!(Headers::of(&whole[..headers.len - 1]), None);
        let mut other = whole;
        other[14 + 6] = 17;
        assert_eq!(Headers::of(&other), None);
        assert_eq!(Headers::of(&[0; 60]), None);
    }
}
