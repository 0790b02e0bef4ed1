//! Which addresses are ours, and the next hop for every other: the longest on-link prefix, then the family's gateway.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use smoltcp::wire::EthernetAddress;

use super::Settings;

/// How a packet to some address leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// To this neighbour.
    Neighbour(IpAddr),
    /// To the members of a multicast group.
    Group(EthernetAddress),
    /// Nowhere: the address is our own.
    Ourselves,
    /// Nowhere: there is no route.
    None,
}

/// A port's addresses and routes, arranged for looking up.
#[derive(Debug)]
pub(super) struct Routes {
    /// On-link prefixes with our own address in each, longest prefix first.
    on_link: Vec<IpNet>,
    local: HashSet<IpAddr>,
    in_order: Vec<IpAddr>,
    groups: HashSet<Ipv6Addr>,
    gateway_v4: Option<IpAddr>,
    gateway_v6: Option<IpAddr>,
}

impl Routes {
    pub(super) fn new(settings: &Settings) -> Self {
        let link_local = IpNet::V6(link_local(settings.mac));
        let mut on_link = settings.addresses.clone();
        on_link.push(link_local);
        on_link.sort_by_key(|prefix| std::cmp::Reverse(prefix.prefix_len()));
        let gateway = |v4| settings.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == v4);
        let in_order: Vec<_> =
            on_link.iter().map(IpNet::addr).chain(settings.virtual_addresses.iter().copied()).collect();
        let solicited = in_order.iter().filter_map(|address| match address {
            IpAddr::V6(address) => Some(solicited_node(*address)),
            IpAddr::V4(_) => None,
        });
        Self {
            groups: solicited.chain([ALL_NODES]).collect(),
            local: in_order.iter().copied().collect(),
            in_order,
            on_link,
            gateway_v4: gateway(true),
            gateway_v6: gateway(false),
        }
    }

    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        self.local.contains(&address)
    }

    /// Whether frames to `destination` are for us: one of our addresses, or a group that we listen to (RFC 4291 2.8).
    pub(super) fn listens_to(&self, destination: IpAddr) -> bool {
        let IpAddr::V6(group) = destination else { return self.is_local(destination) };
        if !group.is_multicast() {
            return self.is_local(destination);
        }
        self.groups.contains(&group)
    }

    /// Whether `address` is a host's on one of our links.
    pub(super) fn is_on_link(&self, address: IpAddr) -> bool {
        self.on_link.iter().any(|prefix| prefix.contains(&address)) && !self.is_broadcast(address)
    }

    /// Whether `address` may stand for a neighbour: on-link, or a gateway wherever it is.
    pub(super) fn is_neighbour(&self, address: IpAddr) -> bool {
        let gateway = Some(address) == self.gateway(address);
        (gateway || self.is_on_link(address)) && !self.is_local(address)
    }

    /// Whether `address` means all hosts of a link (RFC 1122 3.2.1.3).
    pub(super) fn is_broadcast(&self, address: IpAddr) -> bool {
        let IpAddr::V4(v4) = address else { return false };
        // RFC 3021: a /31 has no broadcast address, nor has a /32.
        let directed = |prefix: &IpNet| {
            prefix.prefix_len() < 31
                && (prefix.broadcast() == address || prefix.network() == address)
                && prefix.contains(&address)
        };
        v4.is_broadcast() || self.on_link.iter().any(directed)
    }

    pub(super) fn hop(&self, destination: IpAddr) -> Hop {
        if self.is_local(destination) {
            return Hop::Ourselves;
        }
        if destination.is_multicast() {
            return Hop::Group(group_mac(destination));
        }
        if self.is_broadcast(destination) || destination.is_unspecified() {
            return Hop::None;
        }
        if self.on_link.iter().any(|prefix| prefix.contains(&destination)) {
            return Hop::Neighbour(destination);
        }
        self.gateway(destination).map_or(Hop::None, Hop::Neighbour)
    }

    /// Our own address from which to talk to `remote`: the one on its link, or on its gateway's.
    pub(super) fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        let Hop::Neighbour(hop) = self.hop(remote) else { return None };
        let on_link = |of: IpAddr| self.on_link.iter().find(|prefix| prefix.contains(&of)).map(IpNet::addr);
        // A link-local address reaches nobody behind a gateway (RFC 6724 5, rule 2), so a global address serves then.
        let scoped = |source: &IpAddr| is_link_local(*source) == is_link_local(remote);
        on_link(hop).filter(scoped).or_else(|| {
            let same_family = |prefix: &&IpNet| prefix.addr().is_ipv4() == remote.is_ipv4();
            self.on_link.iter().filter(same_family).map(IpNet::addr).find(scoped)
        })
    }

    /// Our own address with which to ask for `neighbour`.
    pub(super) fn asking_source(&self, neighbour: IpAddr) -> Option<IpAddr> {
        let contains = |prefix: &&IpNet| prefix.contains(&neighbour);
        let same_family = |prefix: &&IpNet| prefix.addr().is_ipv4() == neighbour.is_ipv4();
        let found = self.on_link.iter().find(contains).or_else(|| self.on_link.iter().find(same_family));
        found.map(IpNet::addr)
    }

    /// Our addresses that `earlier` did not have, in the order of the settings.
    pub(super) fn added_since(&self, earlier: Option<&Self>) -> impl Iterator<Item = IpAddr> {
        let is_new = move |address: &IpAddr| !earlier.is_some_and(|earlier| earlier.is_local(*address));
        self.in_order.iter().copied().filter(is_new)
    }

    fn gateway(&self, destination: IpAddr) -> Option<IpAddr> {
        match destination {
            IpAddr::V4(_) => self.gateway_v4,
            IpAddr::V6(v6) if v6.is_unicast_link_local() => None,
            IpAddr::V6(_) => self.gateway_v6,
        }
    }
}

/// All nodes of a link (RFC 4291 2.7.1).
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The group that an address's owner listens to (RFC 4291 2.7.1).
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet address of a multicast group (RFC 1112 6.4, RFC 2464 7).
pub(super) fn group_mac(group: IpAddr) -> EthernetAddress {
    match group {
        IpAddr::V4(v4) => {
            let [_, b, c, d] = v4.octets();
            EthernetAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            EthernetAddress([0x33, 0x33, a, b, c, d])
        }
    }
}

/// The link-local address that an Ethernet address gives (RFC 4291 appendix A).
fn link_local(mac: EthernetAddress) -> Ipv6Net {
    let EthernetAddress([a, b, c, d, e, f]) = mac;
    let address = Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Net::new_assert(address, 64)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        // The engine treats 169.254/16 like any prefix: it has an address there only when configured.
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
