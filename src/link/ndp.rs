//! Neighbour discovery (RFC 4861): answers for our addresses, learns from who asks us or answers us. Router advertisements
//! and redirects are ignored: routes come from the configuration.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::{EthernetAddress, Icmpv6Packet, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress};

use super::neighbours::Evidence;
use super::outbox::Envelope;
use super::routes::{ALL_NODES, group_mac, solicited_node};
use super::{Link, Neighbour};
use crate::base::Instant;
use crate::nic::Frame;

const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// A packet that has passed no router (RFC 4861 6.1, 7.1) arrives with this hop limit.
const NEVER_FORWARDED: u8 = 255;

/// A neighbour discovery message and the addresses it came with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Discovery {
    pub(super) from: EthernetAddress,
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) hop_limit: u8,
}

impl<F: Frame> Link<F> {
    /// Takes a neighbour discovery message whose checksum has been proven.
    pub(super) fn on_ndp(&mut self, about: Discovery, message: &[u8], now: Instant) {
        let parsed = Icmpv6Packet::new_checked(message).ok().filter(|packet| packet.msg_code() == 0);
        let repr = parsed.and_then(|packet| NdiscRepr::parse(&packet).ok());
        let Some(repr) = repr.filter(|_| about.hop_limit == NEVER_FORWARDED) else {
            return self.counters.ndp_ignored.increment();
        };
        match repr {
            NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
                self.on_solicitation(about, target_addr, lladdr.and_then(ethernet), now);
            }
            NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } => {
                self.on_advertisement(about, flags, target_addr, lladdr.and_then(ethernet), now);
            }
            NdiscRepr::RouterSolicit { .. } | NdiscRepr::RouterAdvert { .. } | NdiscRepr::Redirect { .. } => {
                self.counters.ndp_ignored.increment();
            }
        }
    }

    fn on_solicitation(&mut self, about: Discovery, target: Ipv6Addr, mac: Option<EthernetAddress>, now: Instant) {
        let probe = about.source.is_unspecified();
        let ours = self.routes.is_local(IpAddr::V6(target));
        // RFC 4861 7.1.1: duplicate address detection asks the target's group and names no Ethernet address.
        let valid = !probe || (about.destination == solicited_node(target) && mac.is_none());
        if !ours || !valid || self.routes.is_local(IpAddr::V6(about.source)) {
            return self.counters.ndp_ignored.increment();
        }
        self.counters.ndp_solicitations_received.increment();
        let (destination, to_mac) = if probe {
            (ALL_NODES, group_mac(IpAddr::V6(ALL_NODES)))
        } else {
            (about.source, mac.unwrap_or(about.from))
        };
        self.advertise(target, destination, to_mac, !probe);
        if let Some(mac) = mac {
            let address = IpAddr::V6(about.source);
            self.learn(Neighbour { address, mac, evidence: Evidence::Request, replaces: true }, false, now);
        }
    }

    fn on_advertisement(
        &mut self,
        about: Discovery,
        flags: NdiscNeighborFlags,
        target: Ipv6Addr,
        mac: Option<EthernetAddress>,
        now: Instant,
    ) {
        let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
        // RFC 4861 7.1.2.
        if target.is_multicast() || (about.destination.is_multicast() && solicited) {
            return self.counters.ndp_ignored.increment();
        }
        if self.routes.is_local(IpAddr::V6(target)) {
            // RFC 4862 5.4.4: somebody else uses our address.
            return self.counters.address_conflicts.increment();
        }
        self.counters.ndp_advertisements_received.increment();
        let evidence = if solicited { Evidence::Reply } else { Evidence::Announcement };
        // RFC 4861 7.2.4 lets the answer to a unicast question leave the address out: it is then the one it comes from.
        let mac = mac.unwrap_or(about.from);
        let replaces = flags.contains(NdiscNeighborFlags::OVERRIDE);
        self.learn(Neighbour { address: IpAddr::V6(target), mac, evidence, replaces }, true, now);
    }

    pub(super) fn ask_ndp(&mut self, target: Ipv6Addr, mac: Option<EthernetAddress>) {
        let Some(source) = self.routes.asking_source(IpAddr::V6(target)) else {
            return self.counters.no_source.increment();
        };
        let group = IpAddr::V6(solicited_node(target));
        let (destination, to_mac) = match mac {
            Some(mac) => (IpAddr::V6(target), mac),
            None => (group, group_mac(group)),
        };
        let envelope =
            Envelope { from_mac: self.settings.mac, to_mac, source, destination, hop_limit: NEVER_FORWARDED };
        let body = body(target, SOURCE_LINK_LAYER_ADDRESS, self.settings.mac);
        if self.outbox.icmp(envelope, NEIGHBOUR_SOLICITATION, 0, [0; 4], &body) {
            self.counters.ndp_solicitations_sent.increment();
        } else {
            self.counters.outbox_full.increment();
        }
    }

    /// RFC 4861 7.2.6: an advertisement that nobody asked for.
    pub(super) fn announce_ndp(&mut self, address: Ipv6Addr) {
        if self.advertise(address, ALL_NODES, group_mac(IpAddr::V6(ALL_NODES)), false) {
            self.counters.announcements_sent.increment();
        }
    }

    fn advertise(&mut self, target: Ipv6Addr, destination: Ipv6Addr, to_mac: EthernetAddress, solicited: bool) -> bool {
        let envelope = Envelope {
            from_mac: self.settings.mac,
            to_mac,
            source: IpAddr::V6(target),
            destination: IpAddr::V6(destination),
            hop_limit: NEVER_FORWARDED,
        };
        let mut flags = NdiscNeighborFlags::OVERRIDE;
        flags.set(NdiscNeighborFlags::SOLICITED, solicited);
        let body = body(target, TARGET_LINK_LAYER_ADDRESS, self.settings.mac);
        let sent = self.outbox.icmp(envelope, NEIGHBOUR_ADVERTISEMENT, 0, [flags.bits(), 0, 0, 0], &body);
        if sent {
            self.counters.ndp_advertisements_sent.increment();
        } else {
            self.counters.outbox_full.increment();
        }
        sent
    }
}

/// The target address and one link-layer address option (RFC 4861 4.6.1).
fn body(target: Ipv6Addr, option: u8, mac: EthernetAddress) -> Vec<u8> {
    [&target.octets()[..], &[option, 1], mac.as_bytes()].concat()
}

fn ethernet(address: RawHardwareAddress) -> Option<EthernetAddress> {
    let octets: [u8; 6] = address.as_bytes().try_into().ok()?;
    Some(EthernetAddress(octets)).filter(EthernetAddress::is_unicast)
}
