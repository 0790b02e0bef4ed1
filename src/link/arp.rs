//! ARP (RFC 826) with the manners of RFC 5227: answers for our addresses, learns from who asks us or answers us.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{ArpOperation, ArpRepr, EthernetAddress};

use super::neighbours::Evidence;
use super::outbox::arp_message;
use super::{Link, Neighbour};
use crate::base::Instant;
use crate::nic::Frame;

const NOBODY: EthernetAddress = EthernetAddress([0; 6]);

impl<F: Frame> Link<F> {
    /// Takes an ARP message, whomever it is for.
    pub fn on_arp(&mut self, arp: &ArpRepr, now: Instant) {
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: mac,
            source_protocol_addr: sender,
            target_protocol_addr: target,
            ..
        } = *arp
        else {
            return;
        };
        if !mac.is_unicast() || sender.is_multicast() || sender.is_broadcast() || sender.is_loopback() {
            return self.counters.arp_ignored.increment();
        }
        if mac == self.settings.mac {
            // A frame of ours that came back.
            return self.counters.arp_ignored.increment();
        }
        if self.routes.is_local(IpAddr::V4(sender)) {
            // RFC 5227 2.4: somebody else uses our address. It stays ours; the operator should know.
            return self.counters.address_conflicts.increment();
        }
        let for_us = self.routes.is_local(IpAddr::V4(target));
        let evidence = match operation {
            ArpOperation::Request if for_us => {
                self.counters.arp_requests_received.increment();
                let reply = arp_message(ArpOperation::Reply, (self.settings.mac, target), (mac, sender));
                if self.outbox.arp(mac, &reply) {
                    self.counters.arp_replies_sent.increment();
                } else {
                    self.counters.outbox_full.increment();
                }
                Evidence::Request
            }
            ArpOperation::Reply if for_us => {
                self.counters.arp_replies_received.increment();
                Evidence::Reply
            }
            // RFC 826, the merge flag: what is said to others changes what we know, but makes us know nobody new.
            ArpOperation::Request | ArpOperation::Reply => Evidence::Announcement,
            ArpOperation::Unknown(_) => return self.counters.arp_ignored.increment(),
        };
        // RFC 5227 1.1: a probe has no sender address.
        if !sender.is_unspecified() {
            let neighbour = Neighbour { address: IpAddr::V4(sender), mac, evidence, replaces: true };
            self.learn(neighbour, sender == target, now);
        }
    }

    pub(super) fn ask_arp(&mut self, target: Ipv4Addr, mac: Option<EthernetAddress>) {
        let Some(IpAddr::V4(source)) = self.routes.asking_source(IpAddr::V4(target)) else {
            return self.counters.no_source.increment();
        };
        let request = arp_message(ArpOperation::Request, (self.settings.mac, source), (NOBODY, target));
        if self.outbox.arp(mac.unwrap_or(EthernetAddress::BROADCAST), &request) {
            self.counters.arp_requests_sent.increment();
        } else {
            self.counters.outbox_full.increment();
        }
    }

    /// RFC 5227 3: an announcement is a request for one's own address.
    pub(super) fn announce_arp(&mut self, address: Ipv4Addr) {
        let request = arp_message(ArpOperation::Request, (self.settings.mac, address), (NOBODY, address));
        if self.outbox.arp(EthernetAddress::BROADCAST, &request) {
            self.counters.announcements_sent.increment();
        } else {
            self.counters.outbox_full.increment();
        }
    }
}
