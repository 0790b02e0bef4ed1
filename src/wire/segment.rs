//! TCP segments (RFC 9293 3.1) with the options of RFC 7323 and RFC 2018: parsed into proof, emitted behind an IP header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::{Add, Range, Sub};

use smoltcp::wire::checksum;

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

/// The control bit that says that there is an acknowledgement.
const ACK: u8 = 0x10;

impl Flags {
    /// The flags in the header's octet of control bits (RFC 9293 3.1).
    fn of(bits: u8) -> Self {
        Self {
            fin: bits & 0x01 != 0,
            syn: bits & 0x02 != 0,
            rst: bits & 0x04 != 0,
            psh: bits & 0x08 != 0,
            ece: bits & 0x40 != 0,
            cwr: bits & 0x80 != 0,
        }
    }

    /// The octet of control bits, ACK left out.
    fn bits(self) -> u8 {
        let Self { syn, fin, rst, psh, ece, cwr } = self;
        u8::from(fin)
            | u8::from(syn) << 1
            | u8::from(rst) << 2
            | u8::from(psh) << 3
            | u8::from(ece) << 6
            | u8::from(cwr) << 7
    }
}

// Kinds of options (RFC 9293 3.2, RFC 7323, RFC 2018).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAX_SEGMENT_SIZE: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

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
        loop {
            let len = match *bytes {
                [] | [END_OF_OPTIONS, ..] => return Ok(options),
                [NO_OPERATION, ..] => 1,
                [_, len, ..] => usize::from(len),
                [_] => return Err(Malformed::Field),
            };
            let (option, rest) = bytes.split_at_checked(len).ok_or(Malformed::Field)?;
            match *option {
                [NO_OPERATION] => {}
                [TIMESTAMPS, 10, a, b, c, d, e, f, g, h] => {
                    let (value, echo) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
                    options.timestamp = Some(Timestamp { value, echo });
                }
                [MAX_SEGMENT_SIZE, 4, high, low] => options.mss = Some(u16::from_be_bytes([high, low])),
                [WINDOW_SCALE, 3, shift] => options.window_scale = Some(shift),
                [SACK_PERMITTED, 2] => options.sack_permitted = true,
                [SACK, _, ref blocks @ ..] if !blocks.is_empty() && blocks.len() % 8 == 0 => {
                    for (place, block) in options.sack.iter_mut().zip(blocks.chunks_exact(8)) {
                        let &[a, b, c, d, e, f, g, h] = block else { break };
                        let (left, right) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
                        *place = Some((Seq(left), Seq(right)));
                    }
                }
                // RFC 9293 3.1, MUST-7: an impossible length is an error.
                [] | [_] | [TIMESTAMPS | MAX_SEGMENT_SIZE | WINDOW_SCALE | SACK_PERMITTED | SACK, ..] => {
                    return Err(Malformed::Field);
                }
                [_, _, ..] => {}
            }
            bytes = rest;
        }
    }

    /// Fills `bytes`, which is [`len`](Self::len) long.
    fn emit(&self, mut bytes: &mut [u8]) {
        // Zero is "end of options": the padding.
        bytes.fill(END_OF_OPTIONS);
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            bytes = put(bytes, [MAX_SEGMENT_SIZE, 4, high, low]);
        }
        if let Some(shift) = self.window_scale {
            bytes = put(bytes, [WINDOW_SCALE, 3, shift]);
        }
        if self.sack_permitted {
            bytes = put(bytes, [SACK_PERMITTED, 2]);
        }
        if let Some(Timestamp { value, echo }) = self.timestamp {
            let ([a, b, c, d], [e, f, g, h]) = (value.to_be_bytes(), echo.to_be_bytes());
            bytes = put(bytes, [TIMESTAMPS, 10, a, b, c, d, e, f, g, h]);
        }
        let blocks = self.sack.iter().flatten();
        let len = 2 + 8 * blocks.clone().count();
        if len > 2 {
            bytes = put(bytes, [SACK, u8::try_from(len).unwrap_or(u8::MAX)]);
            for (left, right) in blocks {
                bytes = put(bytes, ((u64::from(left.0) << 32) | u64::from(right.0)).to_be_bytes());
            }
        }
    }
}

/// Writes an option in front and gives what is behind it.
fn put<const LEN: usize>(bytes: &mut [u8], option: [u8; LEN]) -> &mut [u8] {
    let Some((place, behind)) = bytes.split_first_chunk_mut() else { return &mut [] };
    *place = option;
    behind
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
        // All fields at once: a view that proves the bounds of each anew costs several times as much, with every segment.
        let (header, behind) = packet.payload.split_first_chunk::<TCP_HEADER>().ok_or(Malformed::Truncated)?;
        let [sh, sl, dh, dl, s0, s1, s2, s3, a0, a1, a2, a3, offset, bits, wh, wl, ..] = *header;
        let options = (usize::from(offset >> 4) * 4).checked_sub(TCP_HEADER).ok_or(Malformed::Truncated)?;
        let (options, payload) = behind.split_at_checked(options).ok_or(Malformed::Truncated)?;
        let (source_port, destination_port) = (u16::from_be_bytes([sh, sl]), u16::from_be_bytes([dh, dl]));
        // RFC 9293 3.1: port 0 names nobody.
        if source_port == 0 || destination_port == 0 {
            return Err(Malformed::Field);
        }
        if packet.source.is_ipv4() != packet.destination.is_ipv4() {
            return Err(Malformed::Field);
        }
        // RFC 1122 4.2.3.10: a connection has two ends. Not even a reset answers what was sent to a group.
        if is_group(packet.destination) {
            return Err(Malformed::Field);
        }
        if !verified {
            let pseudo = pseudo_header(packet.source, packet.destination, packet.payload.len());
            if checksum::combine(&[pseudo, checksum::data(packet.payload)]) != u16::MAX {
                return Err(Malformed::Checksum);
            }
        }
        let options = SegmentOptions::parse(options)?;
        let flow = Flow::new(
            SocketAddr::new(packet.destination, destination_port),
            SocketAddr::new(packet.source, source_port),
        );
        let segment = Self {
            seq: Seq(u32::from_be_bytes([s0, s1, s2, s3])),
            ack: (bits & ACK != 0).then_some(Seq(u32::from_be_bytes([a0, a1, a2, a3]))),
            flags: Flags::of(bits),
            window: u16::from_be_bytes([wh, wl]),
            options,
            ecn: packet.ecn,
            payload,
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
/// Bytes of the longest TCP header (RFC 9293 3.1: 15 words).
const HEADER_MAX: usize = 60;
/// Where in the header its checksum is.
const CHECKSUM: Range<usize> = 16..18;
/// TCP's number among the protocols over IP.
const TCP: u8 = 6;

impl Outgoing<'_> {
    /// Writes the IP packet into `room` and gives its length; `None` when it does not fit there or into an IP packet.
    ///
    /// With `offload` the TCP checksum field holds the folded sum of the pseudo header only, for the NIC to add the rest.
    /// The IPv4 header's checksum is complete in either case.
    pub fn emit(&self, room: &mut [u8], offload: bool) -> Option<usize> {
        let (local, remote) = (self.flow.local(), self.flow.remote());
        let header = TCP_HEADER + self.options.len();
        let tcp_len = header + self.payload.iter().map(|piece| piece.len()).sum::<usize>();
        let ip_header = if local.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
        let len = u16::try_from(ip_header + tcp_len).ok().filter(|_| header <= HEADER_MAX)?;
        let (ip, transport) = room.get_mut(..usize::from(len))?.split_at_mut_checked(ip_header)?;
        match (local.ip(), remote.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ip.copy_from_slice(&ipv4_header(source, destination, self.ecn, len));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ip.copy_from_slice(&ipv6_header(source, destination, self.ecn, u16::try_from(tcp_len).ok()?));
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        }
        self.emit_tcp(transport, header, (local, remote), offload)?;
        Some(usize::from(len))
    }

    fn emit_tcp(
        &self,
        transport: &mut [u8],
        header_len: usize,
        (local, remote): (SocketAddr, SocketAddr),
        offload: bool,
    ) -> Option<()> {
        let tcp_len = transport.len();
        let (header, behind) = transport.split_first_chunk_mut::<TCP_HEADER>()?;
        let (options, mut rest) = behind.split_at_mut_checked(header_len - TCP_HEADER)?;
        let ([sh, sl], [dh, dl]) = (local.port().to_be_bytes(), remote.port().to_be_bytes());
        let [s0, s1, s2, s3] = self.seq.0.to_be_bytes();
        let [a0, a1, a2, a3] = self.ack.unwrap_or_default().0.to_be_bytes();
        let bits = self.flags.bits() | if self.ack.is_some() { ACK } else { 0 };
        let offset = u8::try_from(header_len / 4).ok()? << 4;
        let [wh, wl] = self.window.to_be_bytes();
        *header = [sh, sl, dh, dl, s0, s1, s2, s3, a0, a1, a2, a3, offset, bits, wh, wl, 0, 0, 0, 0];
        self.options.emit(options);
        for piece in self.payload {
            let (room, behind) = rest.split_at_mut_checked(piece.len())?;
            room.copy_from_slice(piece);
            rest = behind;
        }
        let pseudo = pseudo_header(local.ip(), remote.ip(), tcp_len);
        let checksum = if offload { pseudo } else { !checksum::combine(&[pseudo, checksum::data(transport)]) };
        transport.get_mut(CHECKSUM)?.copy_from_slice(&checksum.to_be_bytes());
        Some(())
    }
}

/// An IPv4 header for TCP, as long as it is without options, in front of a packet of `len` bytes.
fn ipv4_header(source: Ipv4Addr, destination: Ipv4Addr, ecn: Ecn, len: u16) -> [u8; IPV4_HEADER] {
    let ([high, low], [a, b, c, d], [e, f, g, h]) = (len.to_be_bytes(), source.octets(), destination.octets());
    // "Don't fragment" and identification 0, which RFC 6864 4.1 allows for such packets.
    let with = |[ch, cl]: [u8; 2]| {
        [0x45, ecn.bits(), high, low, 0, 0, 0x40, 0, HOP_LIMIT, TCP, ch, cl, a, b, c, d, e, f, g, h]
    };
    with((!checksum::data(&with([0; 2]))).to_be_bytes())
}

/// An IPv6 header for TCP in front of `tcp_len` bytes.
fn ipv6_header(source: Ipv6Addr, destination: Ipv6Addr, ecn: Ecn, tcp_len: u16) -> [u8; IPV6_HEADER] {
    let mut header = [0; IPV6_HEADER];
    let (fixed, addresses) = header.split_at_mut(8);
    let ([high, low], (from, to)) = (tcp_len.to_be_bytes(), addresses.split_at_mut(16));
    fixed.copy_from_slice(&[0x60, ecn.bits() << 4, 0, 0, high, low, TCP, HOP_LIMIT]);
    from.copy_from_slice(&source.octets());
    to.copy_from_slice(&destination.octets());
    header
}

/// The sum of a segment's pseudo header (RFC 9293 3.1, RFC 8200 8.1).
fn pseudo_header(source: IpAddr, destination: IpAddr, tcp_len: usize) -> u16 {
    let sum_of = |address| match address {
        IpAddr::V4(v4) => checksum::data(&v4.octets()),
        IpAddr::V6(v6) => checksum::data(&v6.octets()),
    };
    // No IP packet is longer than its length field can say.
    let len = u16::try_from(tcp_len).unwrap_or(u16::MAX);
    checksum::combine(&[sum_of(source), sum_of(destination), u16::from(TCP), len])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use smoltcp::wire::{TcpOption, TcpPacket};

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
        fn smoltcp_reads_the_same_in_any_bytes(data in prop::collection::vec(prop_oneof![0u8..12, any::<u8>()], 0..100)) {
            let mut bytes = vec![0x45; 20];
            bytes.extend(data);
            let packet = packet(&bytes);
            let theirs = TcpPacket::new_checked(packet.payload).ok().filter(|tcp| {
                let mut options = tcp.options();
                while let Ok((rest, option)) = TcpOption::parse(options) && option != TcpOption::EndOfList {
                    // To smoltcp a timestamp of an impossible length is an option that it does not know.
                    if matches!(option, TcpOption::Unknown { kind: TIMESTAMPS, .. }) {
                        break;
                    }
                    options = rest;
                }
                options.is_empty() || options[0] == END_OF_OPTIONS
            });
            let theirs = theirs.filter(|tcp| tcp.src_port() != 0 && tcp.dst_port() != 0);
            let ours = Segment::parse(&packet, true).ok();
            prop_assert_eq!(ours.is_some(), theirs.is_some());
            let Some(((flow, segment), tcp)) = ours.zip(theirs) else { return Ok(()) };
            prop_assert_eq!((flow.remote().port(), flow.local().port()), (tcp.src_port(), tcp.dst_port()));
            prop_assert_eq!(segment.seq.0.cast_signed(), tcp.seq_number().0);
            prop_assert_eq!(segment.ack.map(|ack| ack.0.cast_signed()), tcp.ack().then(|| tcp.ack_number().0));
            prop_assert_eq!((segment.window, segment.payload), (tcp.window_len(), tcp.payload()));
            let Flags { syn, fin, rst, psh, ece, cwr } = segment.flags;
            prop_assert_eq!([syn, fin, rst], [tcp.syn(), tcp.fin(), tcp.rst()]);
            prop_assert_eq!([psh, ece, cwr], [tcp.psh(), tcp.ece(), tcp.cwr()]);
        }

        #[test]
        fn no_bytes_panic_the_parser(data in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = vec![0x45; 20];
            bytes.extend(data);
            let _ = Segment::parse(&packet(&bytes), true);
        }
    }
}
