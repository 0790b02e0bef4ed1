//! The next hop: ARP (RFC 826), NDP (RFC 4861), ICMP echo and errors (RFC 792, RFC 4443), routes. One [`Link`] is one lane's view of one port.
//!
//! Drive it so: give it ARP messages and ICMP packets with `on_*`, and every IP packet that is to leave with [`Link::send`];
//! then drain [`Link::poll_transmit`] and call [`Link::on_timeout`] when [`Link::poll_at`] has come.
//!
//! Every lane keeps its own neighbour table: an answer may arrive on any lane, so lanes hand each other what they learn ([`Link::poll_learned`]).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use smoltcp::wire::{ArpRepr, EthernetAddress};

use crate::base::{Flow, Instant};
use crate::nic::Frame;
use crate::wire::Packet;

/// A port's addresses and routes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The port's Ethernet address.
    pub mac: EthernetAddress,
    /// The engine's own addresses on this port, each with its on-link prefix.
    pub addresses: Vec<IpNet>,
    /// Addresses of virtual services that this port answers for.
    pub virtual_addresses: Vec<IpAddr>,
    /// Default routes, at most one a family.
    pub gateways: Vec<IpAddr>,
    /// Most neighbours remembered.
    pub neighbours_max: usize,
    /// Most packets kept a neighbour while it is being resolved.
    pub pending_max: usize,
}

/// What became of a packet given to [`Link::send`].
#[derive(Debug)]
pub enum Sent<F> {
    /// The Ethernet header is in place: transmit it.
    Ready(F),
    /// Kept until the next hop is resolved.
    Pending,
    /// Dropped and counted: no route, or the queue is full.
    Dropped,
}

/// A neighbour that one lane learned and the others should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its IP address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: EthernetAddress,
}

/// News for the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The network or the neighbour resolution says that a flow's peer cannot be reached.
    Unreachable(Flow),
}

/// One lane's link layer on one port. `F` is the NIC's frame.
#[derive(Debug)]
pub struct Link<F> {
    _frame: std::marker::PhantomData<F>,
}

impl<F: Frame> Link<F> {
    /// A link layer with no neighbours.
    pub fn new(settings: Settings, counters: Arc<Counters>) -> Self {
        let _ = (settings, counters);
        todo!()
    }

    /// Takes over changed addresses and routes; neighbours stay.
    pub fn configure(&mut self, settings: Settings) {
        let _ = settings;
        todo!()
    }

    /// Whether this engine answers at `address` on this port, as its own or a virtual one.
    pub fn is_local(&self, address: IpAddr) -> bool {
        let _ = address;
        todo!()
    }

    /// Whether there is a route to `address` over this port: on-link or by a gateway.
    pub fn routes_to(&self, address: IpAddr) -> bool {
        let _ = address;
        todo!()
    }

    /// The engine's own address from which to talk to `remote`, if this port has a route to it.
    pub fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        let _ = remote;
        todo!()
    }

    /// Takes an ARP message.
    pub fn on_arp(&mut self, arp: &ArpRepr, now: Instant) {
        let _ = (arp, now);
        todo!()
    }

    /// Takes an ICMP or ICMPv6 packet for this engine: echo, neighbour discovery, errors.
    pub fn on_icmp(&mut self, from: EthernetAddress, packet: &Packet<'_>, now: Instant) {
        let _ = (from, packet, now);
        todo!()
    }

    /// Takes a packet for this engine of a protocol that nobody here speaks; answers "protocol unreachable", rate-limited.
    pub fn on_unknown(&mut self, from: EthernetAddress, packet: &Packet<'_>, now: Instant) {
        let _ = (from, packet, now);
        todo!()
    }

    /// Takes what another lane learned.
    pub fn on_learned(&mut self, neighbour: Neighbour, now: Instant) {
        let _ = (neighbour, now);
        todo!()
    }

    /// Finds the next hop of the IP packet in `frame`, which starts behind 14 free bytes, and writes the Ethernet header into them.
    pub fn send(&mut self, frame: F, now: Instant) -> Sent<F> {
        let _ = (frame, now);
        todo!()
    }

    /// Retries and expires neighbours that are due.
    pub fn on_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// When [`on_timeout`](Self::on_timeout) is wanted next.
    pub fn poll_at(&self) -> Option<Instant> {
        todo!()
    }

    /// The next packet whose neighbour has been resolved, ready to transmit.
    pub fn poll_resolved(&mut self) -> Option<F> {
        todo!()
    }

    /// Writes the next frame of the link layer's own (ARP, NDP, ICMP), Ethernet header included, and gives its length.
    pub fn poll_transmit(&mut self, room: &mut [u8]) -> Option<usize> {
        let _ = room;
        todo!()
    }

    /// The next neighbour that the other lanes should hear of.
    pub fn poll_learned(&mut self) -> Option<Neighbour> {
        todo!()
    }

    /// The next piece of news.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }
}

crate::counters! {
    /// What a lane's link layer counts.
    pub struct Counters {
        /// ARP requests sent
        counter arp_requests,
    }
}
