//! The neighbour table: a sound subset of RFC 4861 7.3's states, for ARP and NDP alike.
//!
//! ```text
//!              send                     answer
//! (no entry) ──────▶ Incomplete ──────────────────────▶ Reachable ──┐ 30 s
//!     ▲                  │ 3 tries, 1 s apart              ▲        ▼
//!     │ 3 s later        ▼                          answer │      Stale ◀── a request of theirs, an announcement
//!     └─────────────── Failed                              └─ Probe ◀┘ send
//!     └─────────────────────────────── 3 tries, 1 s apart ─────┘
//! ```
//! RFC 4861's DELAY is left out: a stale neighbour is probed, by unicast, as soon as it is used. It is used meanwhile.
//! Nothing but Incomplete and Probe has a timer; the rest is looked at when it is used.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use slab::Slab;
use smoltcp::wire::EthernetAddress;

use super::key::{Key, Keyed};
use crate::base::{Duration, Instant};

/// MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT (RFC 4861 10).
const TRIES_MAX: u8 = 3;

/// RETRANS_TIMER (RFC 4861 10).
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// REACHABLE_TIME (RFC 4861 10).
const REACHABLE_FOR: Duration = Duration::from_secs(30);

/// How long a neighbour that did not answer is not asked again.
const FAILED_FOR: Duration = Duration::from_secs(3);

/// Most packets kept over all neighbours of a table, so that strangers' addresses cannot empty the NIC's buffer pool.
pub(super) const PENDING_TOTAL_MAX: usize = 512;

/// How a neighbour's Ethernet address came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It answered a question of the lane that says so.
    Answer,
    /// It asked this engine for one of its addresses.
    Request,
    /// It answered this engine, but not a question of the lane that says so: perhaps another lane's.
    Reply,
    /// It said so to everyone.
    Announcement,
}

/// A neighbour that one lane learned and the others should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its IP address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: EthernetAddress,
    /// How that came to be known: what is worth an entry on one lane is not always worth one on the others.
    pub evidence: Evidence,
    /// Whether it displaces another Ethernet address that is already known (RFC 4861 4.4, the override flag).
    pub replaces: bool,
}

/// What the table knows about a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Send to this address.
    Known(EthernetAddress),
    /// Send to this address, and ask whether it still holds: the table now waits for the answer.
    Stale(EthernetAddress),
    /// The answer has not come yet.
    Incomplete,
    /// It did not answer, a short time ago.
    Failed,
    /// Never heard of. [`Neighbours::resolve`] begins to wait for it.
    Unknown,
}

/// What [`Neighbours::learn`] made of a piece of evidence.
#[derive(Debug)]
pub(super) struct Learned<F> {
    /// The entry is new or has changed.
    pub(super) news: bool,
    /// Somebody waited for it: evidence that this lane asked for.
    pub(super) awaited: bool,
    /// Packets that waited for it.
    pub(super) pending: VecDeque<F>,
}

/// What is to be done because time has passed.
#[derive(Debug)]
pub(super) enum Due<F> {
    /// Ask again: everyone, or the one that used to be it.
    Ask(IpAddr, Option<EthernetAddress>),
    /// It does not answer. These packets waited for it.
    Failed(VecDeque<F>),
    /// It does not answer any more; its entry is gone.
    Lost,
}

/// What became of a packet that was to wait.
#[derive(Debug)]
pub(super) enum Kept<F> {
    /// It waits.
    Waits,
    /// It waits, and the oldest one that waited for the same neighbour is dropped for it.
    Instead(F),
    /// Too many wait already.
    Refused(F),
}

/// One lane's neighbours on one port.
#[derive(Debug)]
pub(super) struct Neighbours<F> {
    max: usize,
    pending_max: usize,
    pending_total: usize,
    table: HashMap<Key, usize, Keyed>,
    entries: Slab<Entry<F>>,
    /// Entries with an Ethernet address, by when they were last confirmed.
    resolved: BTreeSet<(Instant, usize)>,
    /// Incomplete and failed entries, by when they were begun.
    unresolved: BTreeSet<(Instant, usize)>,
    timers: BTreeSet<(Instant, usize)>,
}

#[derive(Debug)]
struct Entry<F> {
    address: IpAddr,
    since: Instant,
    state: State,
    pending: VecDeque<F>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Incomplete { tries: u8, due: Instant },
    Failed { until: Instant },
    Reachable { mac: EthernetAddress, until: Instant },
    Stale { mac: EthernetAddress },
    Probe { mac: EthernetAddress, tries: u8, due: Instant },
}

impl State {
    fn due(self) -> Option<Instant> {
        match self {
            Self::Incomplete { due, .. } | Self::Probe { due, .. } => Some(due),
            Self::Failed { .. } | Self::Reachable { .. } | Self::Stale { .. } => None,
        }
    }

    fn mac(self) -> Option<EthernetAddress> {
        match self {
            Self::Reachable { mac, .. } | Self::Stale { mac } | Self::Probe { mac, .. } => Some(mac),
            Self::Incomplete { .. } | Self::Failed { .. } => None,
        }
    }
}

impl<F> Neighbours<F> {
    pub(super) fn new(max: usize, pending_max: usize) -> Self {
        Self {
            max: max.max(1),
            pending_max,
            pending_total: 0,
            table: HashMap::default(),
            entries: Slab::new(),
            resolved: BTreeSet::new(),
            unresolved: BTreeSet::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Takes over other bounds. Gives back how many entries had to go, with the packets that waited for them.
    pub(super) fn set_bounds(&mut self, max: usize, pending_max: usize) -> Vec<VecDeque<F>> {
        self.max = max.max(1);
        self.pending_max = pending_max;
        let mut recycled = Vec::new();
        while self.entries.len() > self.max {
            recycled.extend(self.recycle());
        }
        recycled
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When [`next_due`](Self::next_due) has something to say.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The way to a next hop. A stale one begins to be probed.
    pub(super) fn lookup(&mut self, address: IpAddr, now: Instant) -> Lookup {
        let Some((index, entry)) = self.find(address) else { return Lookup::Unknown };
        match entry.state {
            State::Probe { mac, .. } => Lookup::Known(mac),
            State::Reachable { mac, until } if now < until => Lookup::Known(mac),
            State::Reachable { mac, .. } | State::Stale { mac } => {
                let since = entry.since;
                self.set(index, State::Probe { mac, tries: 1, due: now + RETRY_AFTER }, since);
                Lookup::Stale(mac)
            }
            State::Incomplete { .. } => Lookup::Incomplete,
            State::Failed { until } if now < until => Lookup::Failed,
            State::Failed { .. } => Lookup::Unknown,
        }
    }

    /// Begins to wait for an unknown next hop. Gives back what waited for the entry that was recycled for it, if one was.
    pub(super) fn resolve(&mut self, address: IpAddr, now: Instant) -> Option<VecDeque<F>> {
        let (index, recycled) = self.find_or_insert(address, now);
        self.set(index, State::Incomplete { tries: 1, due: now + RETRY_AFTER }, now);
        recycled
    }

    /// Keeps a packet until its next hop answers.
    pub(super) fn keep(&mut self, address: IpAddr, packet: F) -> Kept<F> {
        let (max, total) = (self.pending_max, self.pending_total);
        let Some(index) = self.table.get(&Key::from(address)).copied() else { return Kept::Refused(packet) };
        let Some(entry) = self.entries.get_mut(index) else { return Kept::Refused(packet) };
        if max == 0 {
            return Kept::Refused(packet);
        }
        let oldest = if entry.pending.len() >= max { entry.pending.pop_front() } else { None };
        match oldest {
            Some(oldest) => {
                entry.pending.push_back(packet);
                Kept::Instead(oldest)
            }
            None if total >= PENDING_TOTAL_MAX => Kept::Refused(packet),
            None => {
                entry.pending.push_back(packet);
                self.pending_total += 1;
                Kept::Waits
            }
        }
    }

    /// Takes in where a neighbour is said to be. Gives back what waited for the entry that was recycled for it, too.
    pub(super) fn learn(&mut self, neighbour: Neighbour, now: Instant) -> (Learned<F>, Option<VecDeque<F>>) {
        let Neighbour { address, mac, evidence, replaces } = neighbour;
        let reachable = State::Reachable { mac, until: now + REACHABLE_FOR };
        let nothing = Learned { news: false, awaited: false, pending: VecDeque::new() };
        let Some((index, entry)) = self.find(address) else {
            // Only who was asked, or asks us, is worth an entry: anybody can announce anything.
            let state = match evidence {
                Evidence::Answer => reachable,
                Evidence::Request => State::Stale { mac },
                Evidence::Reply | Evidence::Announcement => return (nothing, None),
            };
            let (index, recycled) = self.find_or_insert(address, now);
            self.set(index, state, now);
            return (Learned { news: true, ..nothing }, recycled);
        };
        let (old, since) = (entry.state, entry.since);
        let same = old.mac() == Some(mac);
        if old.mac().is_some() && !same && !replaces {
            return (nothing, None);
        }
        let awaited = match old {
            State::Incomplete { .. } | State::Probe { .. } => true,
            State::Failed { .. } | State::Reachable { .. } | State::Stale { .. } => false,
        };
        let (state, since) = match evidence {
            Evidence::Answer => (reachable, now),
            Evidence::Reply if awaited => (reachable, now),
            Evidence::Reply | Evidence::Announcement | Evidence::Request if same => (old, since),
            // A failed neighbour that announces itself or asks is back.
            Evidence::Reply | Evidence::Announcement | Evidence::Request => (State::Stale { mac }, now),
        };
        self.set(index, state, since);
        (Learned { news: !same, awaited, pending: self.take_pending(index) }, None)
    }

    /// Forgets an address that is no neighbour's any more. Gives back what waited for it.
    pub(super) fn forget(&mut self, address: IpAddr) -> Option<VecDeque<F>> {
        let index = self.table.get(&Key::from(address)).copied()?;
        self.remove(index)
    }

    /// Every address with an entry.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.entries.iter().map(|(_, entry)| entry.address)
    }

    /// The next thing that is due. Each call moves a timer on, so that asking until there is nothing comes to an end.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Due<F>> {
        let (_, index) = self.timers.first().copied().filter(|(due, _)| *due <= now)?;
        let entry = self.entries.get(index)?;
        let (address, since, due) = (entry.address, entry.since, now + RETRY_AFTER);
        match entry.state {
            State::Incomplete { tries, .. } if tries < TRIES_MAX => {
                self.set(index, State::Incomplete { tries: tries + 1, due }, since);
                Some(Due::Ask(address, None))
            }
            State::Probe { mac, tries, .. } if tries < TRIES_MAX => {
                self.set(index, State::Probe { mac, tries: tries + 1, due }, since);
                Some(Due::Ask(address, Some(mac)))
            }
            State::Incomplete { .. } => {
                self.set(index, State::Failed { until: now + FAILED_FOR }, since);
                Some(Due::Failed(self.take_pending(index)))
            }
            // RFC 4861 7.3.3: the entry is deleted, so that next-hop determination begins anew.
            State::Probe { .. } | State::Failed { .. } | State::Reachable { .. } | State::Stale { .. } => {
                self.remove(index);
                Some(Due::Lost)
            }
        }
    }

    fn find(&self, address: IpAddr) -> Option<(usize, &Entry<F>)> {
        let index = self.table.get(&Key::from(address)).copied()?;
        Some((index, self.entries.get(index)?))
    }

    fn find_or_insert(&mut self, address: IpAddr, now: Instant) -> (usize, Option<VecDeque<F>>) {
        if let Some((index, _)) = self.find(address) {
            return (index, None);
        }
        let recycled = if self.entries.len() >= self.max { self.recycle() } else { None };
        let state = State::Failed { until: now };
        let index = self.entries.insert(Entry { address, since: now, state, pending: VecDeque::new() });
        self.table.insert(address.into(), index);
        self.unresolved.insert((now, index));
        (index, recycled)
    }

    /// Removes the stalest entry. Unresolved ones are taken first once they hold half of the table, so that somebody who
    /// makes us look for hosts that do not exist does not displace those that do (RFC 6583 7.1).
    fn recycle(&mut self) -> Option<VecDeque<F>> {
        let unresolved = self.unresolved.first().filter(|_| self.unresolved.len() * 2 >= self.max);
        let (_, index) = *unresolved.or(self.resolved.first()).or(self.unresolved.first())?;
        self.remove(index)
    }

    fn set(&mut self, index: usize, state: State, since: Instant) {
        self.unlist(index);
        let Some(entry) = self.entries.get_mut(index) else { return };
        (entry.state, entry.since) = (state, since);
        let ages = if state.mac().is_some() { &mut self.resolved } else { &mut self.unresolved };
        ages.insert((since, index));
        if let Some(due) = state.due() {
            self.timers.insert((due, index));
        }
    }

    fn unlist(&mut self, index: usize) {
        let Some(entry) = self.entries.get(index) else { return };
        let ages = if entry.state.mac().is_some() { &mut self.resolved } else { &mut self.unresolved };
        ages.remove(&(entry.since, index));
        if let Some(due) = entry.state.due() {
            self.timers.remove(&(due, index));
        }
    }

    fn remove(&mut self, index: usize) -> Option<VecDeque<F>> {
        self.unlist(index);
        let entry = self.entries.try_remove(index)?;
        self.table.remove(&Key::from(entry.address));
        self.pending_total -= entry.pending.len();
        Some(entry.pending)
    }

    fn take_pending(&mut self, index: usize) -> VecDeque<F> {
        let pending = self.entries.get_mut(index).map(|entry| std::mem::take(&mut entry.pending)).unwrap_or_default();
        self.pending_total -= pending.len();
        pending
    }
}
