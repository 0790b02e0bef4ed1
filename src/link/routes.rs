//! Which addresses are ours, and the next hop for every other: the longest on-link prefix, then the family's gateway.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use smoltcp::wire::EthernetAddress;

use super::Settings;
use super::key::{Key, Keyed};

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

/// An on-link prefix with our own address in it.
#[derive(Clone, Copy, Debug)]
struct OnLink {
    own: IpAddr,
    network: u128,
    mask: u128,
    /// Whether it has broadcast addresses: IPv4, and no /31 or /32 (RFC 3021).
    broadcasts: bool,
}

impl OnLink {
    fn new(prefix: IpNet) -> Self {
        let Key(network) = Key::from(prefix.network());
        let hosts = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
        Self {
            own: prefix.addr(),
            network,
            mask: u128::MAX.checked_shl(hosts).unwrap_or(0),
            broadcasts: prefix.addr().is_ipv4() && hosts > 1,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        // An IPv6 prefix of length 0 would hold all IPv4-mapped addresses too.
        Key::from(address).0 & self.mask == self.network && self.own.is_ipv4() == address.is_ipv4()
    }

    /// Whether an address that it contains means all of its hosts.
    fn is_broadcast(&self, address: IpAddr) -> bool {
        let host = Key::from(address).0 & !self.mask;
        self.broadcasts && (host == 0 || host == !self.mask)
    }
}

/// A port's addresses and routes, arranged for looking up.
#[derive(Debug)]
pub(super) struct Routes {
    /// Longest prefix first.
    on_link: Vec<OnLink>,
    local: HashSet<Key, Keyed>,
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
            local: in_order.iter().copied().map(Key::from).collect(),
            in_order,
            on_link: on_link.into_iter().map(OnLink::new).collect(),
            gateway_v4: gateway(true),
            gateway_v6: gateway(false),
        }
    }

    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        self.local.contains(&Key::from(address))
    }

    /// Whether an address is the port's own, and not only one of virtual services.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.on_link.iter().any(|prefix| prefix.own == address)
    }

    /// Whether an address is in one of the port's networks.
    pub(super) fn is_on_link(&self, address: IpAddr) -> bool {
        self.on_link(address).is_some()
    }

    /// Whether frames to `destination` are for us: one of our addresses, or a group that we listen to (RFC 4291 2.8).
    pub(super) fn listens_to(&self, destination: IpAddr) -> bool {
        let IpAddr::V6(group) = destination else { return self.is_local(destination) };
        if !group.is_multicast() {
            return self.is_local(destination);
        }
        self.groups.contains(&group)
    }

    /// The longest on-link prefix with `address`.
    fn on_link(&self, address: IpAddr) -> Option<&OnLink> {
        self.on_link.iter().find(|prefix| prefix.contains(address))
    }

    /// How many bits of `address` its on-link prefix settles, the 96 included that make an IPv4 address one of IPv6; 0 if it has none.
    pub(super) fn prefix_of(&self, address: IpAddr) -> u32 {
        self.on_link(address).map_or(0, |prefix| prefix.mask.count_ones())
    }

    /// Whether `address` may stand for a neighbour: on-link, or a gateway wherever it is.
    pub(super) fn is_neighbour(&self, address: IpAddr) -> bool {
        let gateway = Some(address) == self.gateway(address);
        (gateway || self.on_link(address).is_some_and(|prefix| !prefix.is_broadcast(address)))
            && !self.is_local(address)
    }

    /// Whether `address` means all hosts of a link (RFC 1122 3.2.1.3).
    pub(super) fn is_broadcast(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(Ipv4Addr::BROADCAST)
            || self.on_link(address).is_some_and(|prefix| prefix.is_broadcast(address))
    }

    pub(super) fn hop(&self, destination: IpAddr) -> Hop {
        if self.is_local(destination) {
            return Hop::Ourselves;
        }
        if destination.is_multicast() {
            return Hop::Group(group_mac(destination));
        }
        match self.on_link(destination) {
            Some(prefix) if prefix.is_broadcast(destination) => Hop::None,
            Some(_) => Hop::Neighbour(destination),
            None if destination == IpAddr::V4(Ipv4Addr::BROADCAST) || destination.is_unspecified() => Hop::None,
            None => self.gateway(destination).map_or(Hop::None, Hop::Neighbour),
        }
    }

    /// Our own address from which to talk to `remote`: the one on its link, or on its gateway's.
    pub(super) fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        let Hop::Neighbour(hop) = self.hop(remote) else { return None };
        // A link-local address reaches nobody behind a gateway (RFC 6724 5, rule 2), so a global address serves then.
        let scoped = |source: &IpAddr| is_link_local(*source) == is_link_local(remote);
        self.on_link(hop).map(|prefix| prefix.own).filter(scoped).or_else(|| self.own_of_family(remote).find(scoped))
    }

    /// Our own address with which to ask for `neighbour`.
    pub(super) fn asking_source(&self, neighbour: IpAddr) -> Option<IpAddr> {
        self.on_link(neighbour).map(|prefix| prefix.own).or_else(|| self.own_of_family(neighbour).next())
    }

    fn own_of_family(&self, of: IpAddr) -> impl Iterator<Item = IpAddr> {
        self.on_link.iter().map(|prefix| prefix.own).filter(move |own| own.is_ipv4() == of.is_ipv4())
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
