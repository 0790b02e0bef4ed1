//! What a capture looks at of a frame, found once. Nothing is proven here: frames that a lane refuses are captured, too.

/// Bytes of an Ethernet header without tags.
const ETHERNET_LEN: usize = 14;
/// Most VLAN tags (IEEE 802.1Q, 802.1ad) that are looked past.
const TAGS_MAX: usize = 2;

/// TCP's number.
pub(super) const TCP: u8 = 6;
/// UDP's number.
pub(super) const UDP: u8 = 17;
/// SCTP's number: it has ports where TCP has them.
const SCTP: u8 = 132;
/// IPv6's fragment header (RFC 8200 4.5).
const FRAGMENT: u8 = 44;

/// What an Ethernet frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Network {
    /// Nothing of the others.
    #[default]
    Other,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// ARP.
    Arp,
}

/// What a frame says in its headers, as far as it says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    pub(super) network: Network,
    /// Source and destination; those of ARP's sender and target. IPv4's are in the low 32 bits.
    pub(super) addresses: Option<(u128, u128)>,
    /// IPv4's protocol or IPv6's next header; a fragment's is that of its packet. Other extension headers are not looked past, as in pcap-filter(7).
    pub(super) protocol: Option<u8>,
    /// Source and destination, where the protocol has ports and this is no later fragment.
    pub(super) ports: Option<(u16, u16)>,
    /// Where in the frame TCP's header begins.
    tcp: Option<usize>,
}

impl Headers {
    /// Those of a frame.
    pub fn of(frame: &[u8]) -> Self {
        let mut at = ETHERNET_LEN - 2;
        let mut kind = two(frame, at);
        for _ in 0..TAGS_MAX {
            if !matches!(kind, Some(0x8100 | 0x88a8)) {
                break;
            }
            at += 4;
            kind = two(frame, at);
        }
        let begin = at + 2;
        match kind {
            Some(0x0800) => Self::of_ip(frame, begin),
            Some(0x86dd) => Self::of_ip6(frame, begin),
            Some(0x0806) => Self {
                network: Network::Arp,
                addresses: four(frame, begin + 14).zip(four(frame, begin + 24)),
                ..Self::default()
            },
            Some(_) | None => Self::default(),
        }
    }

    fn of_ip(frame: &[u8], begin: usize) -> Self {
        let protocol = frame.get(begin + 9).copied();
        let length = frame.get(begin).map(|first| usize::from(first & 0x0f) * 4);
        // RFC 791 3.1: the offset of a fragment that is not the first.
        let is_first = two(frame, begin + 6).is_some_and(|word| word & 0x1fff == 0);
        let transport = length.filter(|_| is_first).map(|length| begin + length);
        Self {
            network: Network::Ip,
            addresses: four(frame, begin + 12).zip(four(frame, begin + 16)),
            protocol,
            ..Self::default()
        }
        .with_ports(frame, transport)
    }

    fn of_ip6(frame: &[u8], begin: usize) -> Self {
        let next = frame.get(begin + 6).copied();
        let headers = Self {
            network: Network::Ip6,
            addresses: sixteen(frame, begin + 8).zip(sixteen(frame, begin + 24)),
            protocol: next,
            ..Self::default()
        };
        if next == Some(FRAGMENT) {
            return Self { protocol: frame.get(begin + 40).copied(), ..headers };
        }
        headers.with_ports(frame, Some(begin + 40))
    }

    fn with_ports(mut self, frame: &[u8], transport: Option<usize>) -> Self {
        if let (Some(TCP | UDP | SCTP), Some(begin)) = (self.protocol, transport) {
            self.ports = two(frame, begin).zip(two(frame, begin + 2));
            self.tcp = (self.protocol == Some(TCP)).then_some(begin);
        }
        self
    }

    /// TCP's data in the frame that these are the headers of.
    pub fn tcp_payload<'f>(&self, frame: &'f [u8]) -> Option<&'f [u8]> {
        let begin = self.tcp?;
        let length = usize::from(frame.get(begin + 12)? >> 4) * 4;
        frame.get(begin + length..)
    }
}

fn two(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn four(frame: &[u8], at: usize) -> Option<u128> {
    frame.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes).into())
}

fn sixteen(frame: &[u8], at: usize) -> Option<u128> {
    frame.get(at..)?.first_chunk().map(|bytes| u128::from_be_bytes(*bytes))
}
