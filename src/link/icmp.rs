//! ICMP (RFC 792, RFC 1122 3.2.2) and ICMPv6 (RFC 4443): echo, and errors in both directions. All that is sent is rate-limited.

use std::net::IpAddr;

use smoltcp::wire::EthernetAddress;

use super::ndp::Discovery;
use super::outbox::Envelope;
use super::{Counters, Event, Link};
use crate::base::{Counter, Instant};
use crate::nic::Frame;
use crate::wire::icmp::{Echo, Meaning, checksum_holds, mtu};
use crate::wire::{Packet, Quote};

/// The hop limit of what we answer.
const HOP_LIMIT: u8 = 64;

/// RFC 4443 2.4 (c): an ICMPv6 error is no longer than the minimum MTU.
const V6_QUOTE_MAX: usize = 1280 - 40 - 8;

/// RFC 1812 4.3.2.3: an ICMP error is no longer than 576 bytes.
const V4_QUOTE_MAX: usize = 576 - 20 - 8;

impl<F: Frame> Link<F> {
    /// Takes an ICMP or ICMPv6 packet from `from`: echo, neighbour discovery, errors. Give it all of them, whatever their
    /// destination: neighbour solicitations go to groups, and what is not for us is counted and dropped here.
    pub fn on_icmp(&mut self, from: EthernetAddress, packet: &Packet<'_>, now: Instant) {
        if !self.routes.listens_to(packet.destination) || self.routes.is_local(packet.source) {
            return self.counters.icmp_for_others.increment();
        }
        if !checksum_holds(packet) {
            return self.counters.icmp_malformed.increment();
        }
        let [kind, code, _, _, a, b, c, d, ref body @ ..] = *packet.payload else {
            return self.counters.icmp_malformed.increment();
        };
        match Meaning::of(packet.protocol, kind, code) {
            Meaning::Echo => self.on_echo(from, packet, [a, b, c, d], body, now),
            Meaning::EchoReply => match Echo::read([a, b, c, d], body) {
                Some(echo) if self.routes.is_local(packet.destination) => {
                    self.counters.echo_replies_received.increment();
                    self.tell(Event::Echoed(packet.source, echo));
                }
                Some(_) | None => self.counters.icmp_ignored.increment(),
            },
            Meaning::Unreachable => {
                self.on_error(body, |counters| &counters.unreachable_received, Event::Unreachable);
            }
            Meaning::PacketTooBig => {
                let mtu = mtu(packet.protocol, [a, b, c, d]);
                let event = |quote| Event::PacketTooBig(quote, mtu);
                self.on_error(body, |counters| &counters.packet_too_big_received, event);
            }
            Meaning::Discovery => {
                let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else { return };
                let about = Discovery { from, source, destination, hop_limit: packet.hop_limit };
                self.on_ndp(about, packet.payload, now);
            }
            Meaning::Other => self.counters.icmp_ignored.increment(),
        }
    }

    /// Takes a packet for this engine of a protocol that nobody here speaks; answers "protocol unreachable", rate-limited.
    pub fn on_unknown(&mut self, from: EthernetAddress, packet: &Packet<'_>, now: Instant) {
        if !self.may_answer(packet) {
            return self.counters.unknown_ignored.increment();
        }
        self.counters.unknown_protocols.increment();
        if !self.error_limit.take(now) {
            return self.counters.errors_rate_limited.increment();
        }
        let (kind, code, word, max) = match packet.source {
            IpAddr::V4(_) => (3, 2, [0; 4], V4_QUOTE_MAX),
            // RFC 4443 3.4: parameter problem, unrecognised next header, with where that was.
            IpAddr::V6(_) => (4, 1, next_header_position(packet).to_be_bytes(), V6_QUOTE_MAX),
        };
        let quoted = packet.bytes.get(..max).unwrap_or(packet.bytes);
        if self.outbox.icmp(self.answer(from, packet), kind, code, word, quoted) {
            self.counters.errors_sent.increment();
        } else {
            self.counters.outbox_full.increment();
        }
    }

    fn on_echo(&mut self, from: EthernetAddress, packet: &Packet<'_>, word: [u8; 4], body: &[u8], now: Instant) {
        if !self.may_answer(packet) {
            return self.counters.icmp_ignored.increment();
        }
        self.counters.echo_requests_received.increment();
        if !self.echo_limit.take(now) {
            return self.counters.echo_rate_limited.increment();
        }
        let kind = if packet.source.is_ipv4() { 0 } else { 129 };
        if self.outbox.icmp(self.answer(from, packet), kind, 0, word, body) {
            self.counters.echo_replies_sent.increment();
        } else {
            self.counters.outbox_full.increment();
        }
    }

    /// RFC 5927 4: who has not seen a packet of ours cannot quote it, so one whose source is not ours is a forgery.
    fn on_error(&mut self, quoted: &[u8], counter: fn(&Counters) -> &Counter, event: impl FnOnce(Quote) -> Event) {
        match Quote::parse(quoted).filter(|quote| self.routes.is_local(quote.flow.local().ip())) {
            Some(quote) => {
                counter(&self.counters).increment();
                self.tell(event(quote));
            }
            None => self.counters.errors_not_ours.increment(),
        }
    }

    /// RFC 1122 3.2.2, RFC 4443 2.4 (e): never to or about more than one host, nor to ourselves.
    fn may_answer(&self, packet: &Packet<'_>) -> bool {
        self.routes.is_local(packet.destination)
            && !packet.source.is_unspecified()
            && !self.routes.is_local(packet.source)
            && !self.routes.is_broadcast(packet.source)
    }

    /// Back to where the packet came from: no neighbour needs to be known for it.
    fn answer(&self, from: EthernetAddress, packet: &Packet<'_>) -> Envelope {
        Envelope {
            from_mac: self.settings.mac,
            to_mac: from,
            source: packet.destination,
            destination: packet.source,
            hop_limit: HOP_LIMIT,
        }
    }
}

/// Where in an IPv6 packet the upper layer's protocol is named: in the IPv6 header or the last extension header.
fn next_header_position(packet: &Packet<'_>) -> u32 {
    let payload_at = packet.bytes.len() - packet.payload.len();
    let (mut position, mut header_at) = (6, 40);
    while header_at < payload_at {
        let Some(length) = packet.bytes.get(header_at + 1) else { break };
        position = header_at;
        header_at += (usize::from(*length) + 1) * 8;
    }
    u32::try_from(position).unwrap_or_default()
}
