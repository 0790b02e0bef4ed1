//! Which frames are captured, in the words of pcap-filter(7): `host 198.18.0.1 and (tcp port 443 or icmp)`.
//!
//! | words | what matches |
//! | --- | --- |
//! | `host A`, `net A/N` | frames from or to the address or network; in ARP, those about it |
//! | `port N`, `portrange N-M` | TCP, UDP and SCTP from or to these ports |
//! | `src`, `dst`, `src or dst`, `src and dst` | before those four: which end it is |
//! | `ip`, `ip6`, `arp`, `tcp`, `udp` | frames of these kinds; before the four, only those |
//! | `icmp`, `icmp6` | frames of these kinds |
//! | `not` or `!`, `and` or `&&`, `or` or `\|\|`, `( )` | `not` binds first; `and` and `or` bind alike, from left to right |
//!
//! A value that stands alone behind `and` or `or` has the words of the one before, as in `port 80 or 443`. No words match everything.
//!
//! Two things are otherwise than there. Frames with VLAN tags are looked into without being asked for, and a frame that is too short for what a word looks at
//! does not match this word, where libpcap's programs reject it whatever the others say.
//!
//! [`parse`](Filter::parse) is control's: it makes a list of steps. [`matches`](Filter::matches) is the lanes': it goes through them once, and allocates nothing.

mod parse;

use super::headers::{Headers, Network, TCP, UDP};

pub use parse::Wrong;

/// The longest filter, in bytes.
pub const TEXT_MAX: usize = 1024;
/// Most terms of a filter.
pub const TERMS_MAX: usize = 64;
/// Most brackets in each other: what a program of steps keeps must fit 64 bits.
pub const DEPTH_MAX: usize = 16;

/// ICMP's number.
const ICMP: u8 = 1;
/// ICMPv6's number.
const ICMP6: u8 = 58;

/// A filter that has been understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    text: String,
    /// In the order in which they are taken: terms leave a bit, the others take one or two and leave one.
    steps: Box<[Step]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Term(Term),
    Not,
    And,
    Or,
}

/// Which end of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Destination,
    Either,
    Both,
}

impl End {
    fn is<T>(self, (source, destination): (T, T), wanted: impl Fn(T) -> bool) -> bool {
        match self {
            Self::Source => wanted(source),
            Self::Destination => wanted(destination),
            Self::Either => wanted(source) || wanted(destination),
            Self::Both => wanted(source) && wanted(destination),
        }
    }
}

/// A kind of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ip,
    Ip6,
    Arp,
    Tcp,
    Udp,
    Icmp,
    Icmp6,
}

impl Kind {
    fn is_of(self, headers: &Headers) -> bool {
        let (network, protocol) = (headers.network, headers.protocol);
        match self {
            Self::Ip => network == Network::Ip,
            Self::Ip6 => network == Network::Ip6,
            Self::Arp => network == Network::Arp,
            Self::Tcp => protocol == Some(TCP),
            Self::Udp => protocol == Some(UDP),
            Self::Icmp => network == Network::Ip && protocol == Some(ICMP),
            Self::Icmp6 => network == Network::Ip6 && protocol == Some(ICMP6),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    Kind(Kind),
    /// An IPv4 network in packets or in ARP, or an IPv6 one in packets; of one kind only, if there is one.
    Network {
        kind: Option<Kind>,
        is_ipv6: bool,
        address: u128,
        mask: u128,
        end: End,
    },
    /// Ports from the first to the last; of one kind only, if there is one.
    Ports {
        kind: Option<Kind>,
        first: u16,
        last: u16,
        end: End,
    },
}

impl Term {
    fn matches(&self, headers: &Headers) -> bool {
        match *self {
            Self::Kind(kind) => kind.is_of(headers),
            Self::Network { kind, is_ipv6, address, mask, end } => {
                kind.is_none_or(|kind| kind.is_of(headers))
                    && match headers.network {
                        Network::Ip6 => is_ipv6,
                        Network::Ip | Network::Arp => !is_ipv6,
                        Network::Other => false,
                    }
                    && headers.addresses.is_some_and(|ends| end.is(ends, |one| one & mask == address))
            }
            Self::Ports { kind, first, last, end } => {
                kind.is_none_or(|kind| kind.is_of(headers))
                    && headers.ports.is_some_and(|ends| end.is(ends, |one| (first..=last).contains(&one)))
            }
        }
    }
}

impl Filter {
    /// Understands a filter.
    ///
    /// # Errors
    /// [`Wrong`] says where what is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(Self { text: text.trim().to_owned(), steps: parse::parse(text)? })
    }

    /// What was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a frame with these headers is wanted.
    pub fn matches(&self, headers: &Headers) -> bool {
        // One bit for each term that waits for its join, the newest lowest: no more than brackets and one.
        let mut bits: u64 = 0;
        for step in &self.steps {
            match step {
                Step::Term(term) => bits = bits << 1 | u64::from(term.matches(headers)),
                Step::Not => bits ^= 1,
                Step::And => bits = (bits >> 1) & (bits | !1),
                Step::Or => bits = (bits >> 1) | (bits & 1),
            }
        }
        self.steps.is_empty() || bits & 1 == 1
    }
}

#[cfg(test)]
mod tests;
