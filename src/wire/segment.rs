//! TCP segments (RFC 9293 3.1) with the options of RFC 7323 and RFC 2018: parsed into proof, emitted behind an IP header.

use std::net::{IpAddr, SocketAddr};
use std::ops::{Add, Sub};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpOption, TcpPacket, TcpSeqNumber,
    checksum,
};

use crate::base::Flow;
use crate::wire::{Ecn, Malformed, Packet};

/// A sequence number: arithmetic modulo 2^32, order by RFC 9293 3.4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// Whether this number comes before `other`, both being less than 2^31 apart.
    pub fn before(self, other: Self) -> bool {
        // The sign bit of the difference is the whole rule.
        self.0.wrapping_sub(other.0) >> 31 == 1
    }

    /// Whether this number comes after `other`.
    pub fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// Whether this number is `other` or comes before it.
    pub fn at_or_before(self, other: Self) -> bool {
        !other.before(self)
    }

    /// Whether this number is `other` or comes after it.
    pub fn at_or_after(self, other: Self) -> bool {
        !self.before(other)
    }

    /// How far this number is behind `earlier`, which must not come after it.
    pub fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The earlier of two.
    pub fn min(self, other: Self) -> Self {
        if other.before(self) { other } else { self }
    }

    /// The later of two.
    pub fn max(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    fn add(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }
}

impl Sub<u32> for Seq {
    type Output = Self;

    fn sub(self, count: u32) -> Self {
        Self(self.0.wrapping_sub(count))
    }
}

/// The control bits that a segment carries beside ACK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Synchronize sequence numbers.
    pub syn: bool,
    /// No more data from sender.
    pub fin: bool,
    /// Reset the connection.
    pub rst: bool,
    /// Push.
    pub psh: bool,
    /// ECN echo (RFC 3168).
    pub ece: bool,
    /// Congestion window reduced (RFC 3168).
    pub cwr: bool,
}

/// The timestamps option (RFC 7323 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// TSval.
    pub value: u32,
    /// TSecr.
    pub echo: u32,
}

/// The options that the engine understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentOptions {
    /// Maximum segment size, on SYN only.
    pub mss: Option<u16>,
    /// Window scale shift, on SYN only.
    pub window_scale: Option<u8>,
    /// SACK permitted, on SYN only.
    pub sack_permitted: bool,
    /// SACK blocks: left edge, right edge (exclusive).
    pub sack: [Option<(Seq, Seq)>; 4],
    /// Timestamps.
    pub timestamp: Option<Timestamp>,
}

impl SegmentOptions {
    /// Bytes that the options take in a header, padding included.
    pub fn len(&self) -> usize {
        let sack = self.sack.iter().flatten().count();
        let len = self.mss.map_or(0, |_| 4)
            + self.window_scale.map_or(0, |_| 3)
            + if self.sack_permitted { 2 } else { 0 }
            + if sack > 0 { 2 + 8 * sack } else { 0 }
            + self.timestamp.map_or(0, |_| 10);
        len.next_multiple_of(4)
    }

    /// Whether there is no option at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn parse(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut options = Self::default();
        while !bytes.is_empty() {
            let (rest, option) = TcpOption::parse(bytes).map_err(|_| Malformed::Field)?;
            match option {
                TcpOption::EndOfList => break,
                TcpOption::NoOperation | TcpOption::Unknown { .. } => {}
                TcpOption::MaxSegmentSize(mss) => options.mss = Some(mss),
                TcpOption::WindowScale(shift) => options.window_scale = Some(shift),
                TcpOption::SackPermitted => options.sack_permitted = true,
                // smoltcp keeps three blocks; without timestamps there may be four, so they are read here.
                TcpOption::SackRange(_) => {
                    let len = bytes.len() - rest.len();
                    let blocks = bytes.get(2..len).unwrap_or_default().chunks_exact(8);
                    for (block, pair) in options.sack.iter_mut().zip(blocks) {
                        *block = pair
                            .split_first_chunk::<4>()
                            .and_then(|(left, right)| Some((*left, *right.first_chunk::<4>()?)))
                            .map(|(left, right)| (Seq(u32::from_be_bytes(left)), Seq(u32::from_be_bytes(right))));
                    }
                }
                TcpOption::TimeStamp { tsval, tsecr } => {
                    options.timestamp = Some(Timestamp { value: tsval, echo: tsecr });
                }
            }
            bytes = rest;
        }
        Ok(options)
    }

    /// Fills `bytes`, which is [`len`](Self::len) long.
    fn emit(&self, mut bytes: &mut [u8]) {
        // Zero is "end of options": the padding.
        bytes.fill(0);
        if let Some(mss) = self.mss {
            bytes = TcpOption::MaxSegmentSize(mss).emit(bytes);
        }
        if let Some(shift) = self.window_scale {
            bytes = TcpOption::WindowScale(shift).emit(bytes);
        }
        if self.sack_permitted {
            bytes = TcpOption::SackPermitted.emit(bytes);
        }
        if let Some(Timestamp { value, echo }) = self.timestamp {
            bytes = TcpOption::TimeStamp { tsval: value, tsecr: echo }.emit(bytes);
        }
        let blocks = self.sack.iter().flatten();
        let len = 2 + 8 * blocks.clone().count();
        if len > 2
            && let Some((head, rest)) = bytes.split_first_chunk_mut::<2>()
        {
            *head = [5, u8::try_from(len).unwrap_or(u8::MAX)];
            for ((left, right), pair) in blocks.zip(rest.chunks_exact_mut(8)) {
                pair.copy_from_slice(&((u64::from(left.0) << 32) | u64::from(right.0)).to_be_bytes());
            }
        }
    }
}

/// A TCP segment whose checksum and lengths have been proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// SEG.SEQ.
    pub seq: Seq,
    /// SEG.ACK, when the ACK bit is set.
    pub ack: Option<Seq>,
    /// The other control bits.
    pub flags: Flags,
    /// SEG.WND, unscaled.
    pub window: u16,
    /// Options.
    pub options: SegmentOptions,
    /// The ECN field of the packet that brought it.
    pub ecn: Ecn,
    /// The data.
    pub payload: &'a [u8],
}

/// Whether the address is that of many hosts.
fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

impl<'a> Segment<'a> {
    /// Parses the TCP segment in `packet` and the flow it belongs to, seen from this engine. With `verified`, the NIC has proven its checksum.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with it.
    pub fn parse(packet: &Packet<'a>, verified: bool) -> Result<(Flow, Self), Malformed> {
        let tcp = TcpPacket::new_checked(packet.payload).map_err(|_| Malformed::Truncated)?;
        // RFC 9293 3.1: port 0 names nobody.
        if tcp.src_port() == 0 || tcp.dst_port() == 0 {
            return Err(Malformed::Field);
        }
        if packet.source.is_ipv4() != packet.destination.is_ipv4() {
            return Err(Malformed::Field);
        }
        // RFC 1122 4.2.3.10: a connection has two ends. Not even a reset answers what was sent to a group.
        if is_group(packet.destination) {
            return Err(Malformed::Field);
        }
        if !verified && !tcp.verify_checksum(&packet.source.into(), &packet.destination.into()) {
            return Err(Malformed::Checksum);
        }
        let options = SegmentOptions::parse(tcp.options())?;
        let flow = Flow::new(
            SocketAddr::new(packet.destination, tcp.dst_port()),
            SocketAddr::new(packet.source, tcp.src_port()),
        );
        let segment = Self {
            seq: wrap(tcp.seq_number()),
            ack: tcp.ack().then(|| wrap(tcp.ack_number())),
            flags: Flags {
                syn: tcp.syn(),
                fin: tcp.fin(),
                rst: tcp.rst(),
                psh: tcp.psh(),
                ece: tcp.ece(),
                cwr: tcp.cwr(),
            },
            window: tcp.window_len(),
            options,
            ecn: packet.ecn,
            payload: tcp.payload(),
        };
        Ok((flow, segment))
    }

    /// SEG.LEN: what the segment takes of the sequence space, SYN and FIN included.
    pub fn sequence_len(&self) -> u32 {
        u32::try_from(self.payload.len()).unwrap_or(u32::MAX) + u32::from(self.flags.syn) + u32::from(self.flags.fin)
    }
}

/// A segment about to leave, with data that may lie in several pieces.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where it goes: from the local endpoint to the remote one.
    pub flow: &'a Flow,
    /// SEG.SEQ.
    pub seq: Seq,
    /// SEG.ACK and the ACK bit.
    pub ack: Option<Seq>,
    /// The other control bits.
    pub flags: Flags,
    /// SEG.WND, scaled.
    pub window: u16,
    /// Options.
    pub options: SegmentOptions,
    /// The ECN field of its packet.
    pub ecn: Ecn,
    /// The data, piece by piece.
    pub payload: &'a [&'a [u8]],
}

/// Hop limit of every packet that we send, as RFC 1700 recommends and Linux does.
const HOP_LIMIT: u8 = 64;

/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub const IPV6_HEADER: usize = 40;
/// Bytes of a TCP header without options.
pub const TCP_HEADER: usize = 20;

impl Outgoing<'_> {
    /// Writes the IP packet into `room` and gives its length; `None` when it does not fit there or into an IP packet.
    ///
    /// With `offload` the TCP checksum field holds the folded sum of the pseudo header only, for the NIC to add the rest.
    /// The IPv4 header's checksum is complete in either case.
    pub fn emit(&self, room: &mut [u8], offload: bool) -> Option<usize> {
        let (local, remote) = (self.flow.local(), self.flow.remote());
        let header = TCP_HEADER + self.options.len();
        let tcp_len = header + self.payload.iter().map(|piece| piece.len()).sum::<usize>();
        let (ip_header, repr) = match (local.ip(), remote.ip()) {
            (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => (
                IPV4_HEADER,
                IpRepr::Ipv4(Ipv4Repr {
                    src_addr,
                    dst_addr,
                    next_header: IpProtocol::Tcp,
                    payload_len: tcp_len,
                    hop_limit: HOP_LIMIT,
                }),
            ),
            (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => (
                IPV6_HEADER,
                IpRepr::Ipv6(Ipv6Repr {
                    src_addr,
                    dst_addr,
                    next_header: IpProtocol::Tcp,
                    payload_len: tcp_len,
                    hop_limit: HOP_LIMIT,
                }),
            ),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        let len = ip_header + tcp_len;
        if len > usize::from(u16::MAX) || header > 60 {
            return None;
        }
        let (ip, transport) = room.get_mut(..len)?.split_at_mut_checked(ip_header)?;
        match repr {
            // smoltcp sets "don't fragment" and identification 0, which RFC 6864 4.1 allows for such packets.
            IpRepr::Ipv4(repr) => {
                let mut ip = Ipv4Packet::new_unchecked(ip);
                repr.emit(&mut ip, &ChecksumCapabilities::default());
                if self.ecn != Ecn::NotEct {
                    ip.set_ecn(self.ecn.bits());
                    ip.fill_checksum();
                }
            }
            IpRepr::Ipv6(repr) => {
                let mut ip = Ipv6Packet::new_unchecked(ip);
                repr.emit(&mut ip);
                ip.set_traffic_class(self.ecn.bits());
            }
        }
        self.emit_tcp(transport, header, (local, remote), offload);
        Some(len)
    }

    fn emit_tcp(&self, transport: &mut [u8], header: usize, (local, remote): (SocketAddr, SocketAddr), offload: bool) {
        let tcp_len = u32::try_from(transport.len()).unwrap_or(u32::MAX);
        let mut tcp = TcpPacket::new_unchecked(transport);
        tcp.set_src_port(local.port());
        tcp.set_dst_port(remote.port());
        tcp.set_seq_number(unwrap(self.seq));
        tcp.set_ack_number(unwrap(self.ack.unwrap_or_default()));
        tcp.clear_flags();
        tcp.set_header_len(u8::try_from(header).unwrap_or(u8::MAX));
        tcp.set_ack(self.ack.is_some());
        tcp.set_syn(self.flags.syn);
        tcp.set_fin(self.flags.fin);
        tcp.set_rst(self.flags.rst);
        tcp.set_psh(self.flags.psh);
        tcp.set_ece(self.flags.ece);
        tcp.set_cwr(self.flags.cwr);
        tcp.set_window_len(self.window);
        tcp.set_urgent_at(0);
        self.options.emit(tcp.options_mut());
        let mut rest = tcp.payload_mut();
        for piece in self.payload {
            let Some((room, behind)) = rest.split_at_mut_checked(piece.len()) else { break };
            room.copy_from_slice(piece);
            rest = behind;
        }
        let (source, destination) = (IpAddress::from(local.ip()), IpAddress::from(remote.ip()));
        if offload {
            tcp.set_checksum(checksum::pseudo_header(&source, &destination, IpProtocol::Tcp, tcp_len));
        } else {
            tcp.fill_checksum(&source, &destination);
        }
    }
}

fn wrap(number: TcpSeqNumber) -> Seq {
    Seq(u32::from_ne_bytes(number.0.to_ne_bytes()))
}

fn unwrap(number: Seq) -> TcpSeqNumber {
    TcpSeqNumber(i32::from_ne_bytes(number.0.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Protocol;

    fn packet(bytes: &[u8]) -> Packet<'_> {
        let (source, destination, header): (IpAddr, IpAddr, usize) = if bytes[0] >> 4 == 4 {
            (
                <[u8; 4]>::try_from(&bytes[12..16]).unwrap().into(),
                <[u8; 4]>::try_from(&bytes[16..20]).unwrap().into(),
                20,
            )
        } else {
            (
                <[u8; 16]>::try_from(&bytes[8..24]).unwrap().into(),
                <[u8; 16]>::try_from(&bytes[24..40]).unwrap().into(),
                40,
            )
        };
        let ecn = Ecn::of(if header == 20 { bytes[1] } else { bytes[1] >> 4 });
        Packet { source, destination, hop_limit: 64, ecn, protocol: Protocol::Tcp, bytes, payload: &bytes[header..] }
    }

    fn v4() -> Flow {
        Flow::new("198.18.0.1:443".parse().unwrap(), "198.18.0.2:50000".parse().unwrap())
    }

    fn v6() -> Flow {
        Flow::new("[2001:db8::1]:443".parse().unwrap(), "[2001:db8::2]:50000".parse().unwrap())
    }

    fn golden(flow: &Flow) -> Outgoing<'_> {
        Outgoing {
            flow,
            seq: Seq(0x0102_0304),
            ack: Some(Seq(0xa0b0_c0d0)),
            flags: Flags { psh: true, ..Flags::default() },
            window: 0x1234,
            options: SegmentOptions { timestamp: Some(Timestamp { value: 1, echo: 2 }), ..SegmentOptions::default() },
            ecn: Ecn::NotEct,
            payload: &[b"ab", b"c"],
        }
    }

    #[test]
    fn golden_ipv4_segment() {
        let mut room = [0xff; 100];
        let flow = v4();
        let len = golden(&flow).emit(&mut room, false).unwrap();
        #[rustfmt::skip]
        let expected = [
            0x45, 0, 0, 55, 0, 0, 0x40, 0, 64, 6, 0xae, 0x9b, 198, 18, 0, 1, 198, 18, 0, 2,
            0x01, 0xbb, 0xc3, 0x50, 1, 2, 3, 4, 0xa0, 0xb0, 0xc0, 0xd0, 0x80, 0x18, 0x12, 0x34, 0x2c, 0xb4, 0, 0,
            8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, b'a', b'b', b'c',
        ];
        // Checksums by hand: the sum of the whole, folded, must be all ones.
        let (ip, tcp) = room[..len].split_at(20);
        let sum = |bytes: &[u8], start: u32| {
            let mut sum = start;
            for pair in bytes.chunks(2) {
                sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            }
            while sum > 0xffff {
                sum = (sum >> 16) + (sum & 0xffff);
            }
            sum
        };
        assert_eq!(sum(ip, 0), 0xffff);
        assert_eq!(sum(tcp, sum(&ip[12..20], 0) + 6 + 35), 0xffff);
        let mut masked = room;
        masked[10..12].copy_from_slice(&expected[10..12]);
        masked[36..38].copy_from_slice(&expected[36..38]);
        assert_eq!(masked[..len], expected);
    }

    #[test]
    fn golden_ecn_fields() {
        let (mut room, ipv4, ipv6) = ([0xff; 100], v4(), v6());
        // Without the field the checksum is 0xae99.
        for (ecn, octet, checksum) in
            [(Ecn::Ect1, 1, [0xae, 0x98]), (Ecn::Ect0, 2, [0xae, 0x97]), (Ecn::Ce, 3, [0xae, 0x96])]
        {
            Outgoing { ecn, ..golden(&ipv4) }.emit(&mut room, true).unwrap();
            assert_eq!((room[1], &room[10..12]), (octet, &checksum[..]));
            Outgoing { ecn, ..golden(&ipv6) }.emit(&mut room, true).unwrap();
            assert_eq!(room[..4], [0x60, octet << 4, 0, 0]);
        }
    }

    #[test]
    fn offload_leaves_the_pseudo_header_sum() {
        let mut room = [0; 100];
        for flow in [v4(), v6()] {
            let len = golden(&flow).emit(&mut room, true).unwrap();
            let start = if flow == v4() { 20 } else { 40 };
            let partial = TcpPacket::new_unchecked(&room[start..len]);
            assert!(partial.verify_partial_checksum(&flow.local().ip().into(), &flow.remote().ip().into()));
            assert!(Segment::parse(&packet(&room[..len]), true).is_ok());
            assert_eq!(Segment::parse(&packet(&room[..len]), false), Err(Malformed::Checksum));
        }
    }

    #[test]
    fn too_short_a_room_takes_nothing() {
        let flow = v4();
        assert_eq!(golden(&flow).emit(&mut [0; 54], false), None);
        assert_eq!(golden(&flow).emit(&mut [0; 55], false), Some(55));
    }

    #[test]
    fn malformed_segments_are_refused_by_reason() {
        let mut room = [0; 100];
        let flow = v4();
        let len = golden(&flow).emit(&mut room, false).unwrap();
        let with = |at: usize, value: u8, len: usize| {
            let mut bytes = room;
            bytes[at] = value;
            Segment::parse(&packet(&bytes[..len]), true).map(|_| ())
        };
        assert_eq!(with(20, 0x01, len), Ok(()));
        assert_eq!(with(20, 0x01, 39), Err(Malformed::Truncated));
        assert_eq!(with(32, 0xf0, len), Err(Malformed::Truncated));
        assert_eq!(with(32, 0x40, len), Err(Malformed::Truncated));
        // An option with length 0 (RFC 9293 3.1, MUST-7), and one longer than the header.
        assert_eq!(with(41, 0, len), Err(Malformed::Field));
        assert_eq!(with(41, 13, len), Err(Malformed::Field));
        let mut bytes = room;
        bytes[20..22].fill(0);
        assert_eq!(Segment::parse(&packet(&bytes[..len]), true), Err(Malformed::Field));
        bytes = room;
        bytes[50] ^= 1;
        assert_eq!(Segment::parse(&packet(&bytes[..len]), false), Err(Malformed::Checksum));
    }

    #[test]
    fn sequence_numbers_compare_across_the_wrap() {
        let (low, high) = (Seq(5), Seq(u32::MAX - 5));
        assert!(high.before(low) && low.after(high) && !low.before(high));
        assert!(low.at_or_before(low) && low.at_or_after(low) && !low.before(low));
        assert_eq!(low.since(high), 11);
        assert_eq!((high + 11, low - 11), (low, high));
        assert_eq!((low.max(high), low.min(high)), (low, high));
    }

    prop_compose! {
        fn options()(
            mss in any::<Option<u16>>(),
            window_scale in any::<Option<u8>>(),
            sack_permitted in any::<bool>(),
            blocks in prop::collection::vec(any::<(u32, u32)>(), 0..=3),
            timestamp in any::<Option<(u32, u32)>>(),
            syn in any::<bool>(),
        ) -> SegmentOptions {
            let mut sack = [None; 4];
            if !syn {
                for (slot, (left, right)) in sack.iter_mut().zip(blocks) {
                    *slot = Some((Seq(left), Seq(right)));
                }
            }
            SegmentOptions {
                mss: mss.filter(|_| syn),
                window_scale: window_scale.filter(|_| syn),
                sack_permitted: sack_permitted && syn,
                sack,
                timestamp: timestamp.map(|(value, echo)| Timestamp { value, echo }),
            }
        }
    }

    proptest! {
        #[test]
        fn parse_gives_back_what_emit_wrote(
            seq in any::<u32>(), ack in any::<Option<u32>>(), bits in any::<[bool; 6]>(), window in any::<u16>(),
            options in options(), data in prop::collection::vec(any::<u8>(), 0..1400), cut in any::<prop::sample::Index>(),
            ipv6 in any::<bool>(), ecn in 0u8..4,
        ) {
            let flow = if ipv6 { v6() } else { v4() };
            let [syn, fin, rst, psh, ece, cwr] = bits;
            let flags = Flags { syn, fin, rst, psh, ece, cwr };
            let (first, second) = data.split_at(cut.index(data.len() + 1));
            let payload: &[&[u8]] = &[first, second];
            let (seq, ack, ecn) = (Seq(seq), ack.map(Seq), Ecn::of(ecn));
            let mut room = [0xaa; 1600];
            let len = Outgoing { flow: &flow, seq, ack, flags, window, options, ecn, payload }.emit(&mut room, false).unwrap();
            let whole = Packet::parse(&room[..len], false).unwrap();
            prop_assert_eq!(whole, packet(&room[..len]));
            let (seen, segment) = Segment::parse(&whole, false).unwrap();
            prop_assert_eq!(seen, flow.reversed());
            prop_assert_eq!(segment, Segment { seq, ack, flags, window, options, ecn, payload: &data });
        }

        #[test]
        fn no_bytes_panic_the_parser(data in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = vec![0x45; 20];
            bytes.extend(data);
            let _ = Segment::parse(&packet(&bytes), true);
        }
    }
}
