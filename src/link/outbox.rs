//! The link layer's own frames, built in buffers that are used again, until the lane has room to transmit them.

use std::collections::VecDeque;
use std::net::IpAddr;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet,
    Ipv6Repr, checksum,
};

/// Most frames that wait. Lanes drain the outbox once a breath, and a burst of received frames asks for few.
pub(super) const OUTBOX_MAX: usize = 256;

/// ARP for IPv4 over Ethernet.
const ARP_LEN: usize = 28;

/// An Ethernet header with its type's two bytes.
pub(super) fn ethernet_header(to: EthernetAddress, from: EthernetAddress, ipv4: bool) -> [u8; 14] {
    header_of_type(to, from, if ipv4 { [0x08, 0x00] } else { [0x86, 0xdd] })
}

fn header_of_type(to: EthernetAddress, from: EthernetAddress, ethertype: [u8; 2]) -> [u8; 14] {
    let (EthernetAddress([a, b, c, d, e, f]), EthernetAddress([g, h, i, j, k, l])) = (to, from);
    let [m, n] = ethertype;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
}

/// Where an ICMP message goes, and as whose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    pub(super) from_mac: EthernetAddress,
    pub(super) to_mac: EthernetAddress,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hop_limit: u8,
}

/// Frames that wait to be transmitted, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.frames.len() >= OUTBOX_MAX
    }

    /// Gives the oldest frame to `take`, which says what became of it.
    pub(super) fn pop<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let mut frame = self.frames.pop_front()?;
        let taken = take(&frame);
        frame.clear();
        self.spare.push(frame);
        Some(taken)
    }

    /// Queues an ARP message; `false` when the outbox is full.
    pub(super) fn arp(&mut self, to: EthernetAddress, message: &ArpRepr) -> bool {
        let ArpRepr::EthernetIpv4 { source_hardware_addr, .. } = *message else { return false };
        let Some(frame) = self.begin() else { return false };
        let mut body = [0; ARP_LEN];
        message.emit(&mut ArpPacket::new_unchecked(&mut body[..]));
        frame.extend(header_of_type(to, source_hardware_addr, [0x08, 0x06]));
        frame.extend(body);
        true
    }

    /// Queues an ICMP or ICMPv6 message of `kind` and `code`, its second word, and what follows it; `false` when the outbox
    /// is full. Source and destination are of one family.
    pub(super) fn icmp(&mut self, envelope: Envelope, kind: u8, code: u8, word: [u8; 4], body: &[u8]) -> bool {
        let payload_len = 8 + body.len();
        let Ok(checked_len) = u32::try_from(payload_len) else { return false };
        let Some(frame) = self.begin() else { return false };
        let Envelope { from_mac, to_mac, source, destination, hop_limit } = envelope;
        frame.extend(ethernet_header(to_mac, from_mac, source.is_ipv4()));
        let mut sums = [0, checksum::data(&[kind, code]), checksum::data(&word), checksum::data(body)];
        match (source, destination) {
            (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
                let next_header = IpProtocol::Icmp;
                let mut header = [0; 20];
                let mut view = Ipv4Packet::new_unchecked(&mut header[..]);
                // The length, and with it the checksum, is set over an empty buffer: the view looks at no payload.
                Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit }
                    .emit(&mut view, &smoltcp::phy::ChecksumCapabilities::default());
                frame.extend(header);
            }
            (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
                let next_header = IpProtocol::Icmpv6;
                let mut header = [0; 40];
                Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit }
                    .emit(&mut Ipv6Packet::new_unchecked(&mut header[..]));
                frame.extend(header);
                let (source, destination) = (IpAddress::Ipv6(src_addr), IpAddress::Ipv6(dst_addr));
                sums[0] = checksum::pseudo_header(&source, &destination, next_header, checked_len);
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => unreachable!("one family"),
        }
        let [high, low] = (!checksum::combine(&sums)).to_be_bytes();
        frame.extend([kind, code, high, low]);
        frame.extend(word);
        frame.extend_from_slice(body);
        true
    }

    fn begin(&mut self) -> Option<&mut Vec<u8>> {
        if self.is_full() {
            return None;
        }
        self.frames.push_back(self.spare.pop().unwrap_or_default());
        self.frames.back_mut()
    }
}

/// An ARP message from `source`.
pub(super) fn arp_message(
    operation: ArpOperation,
    source: (EthernetAddress, std::net::Ipv4Addr),
    target: (EthernetAddress, std::net::Ipv4Addr),
) -> ArpRepr {
    ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: source.0,
        source_protocol_addr: source.1,
        target_hardware_addr: target.0,
        target_protocol_addr: target.1,
    }
}
