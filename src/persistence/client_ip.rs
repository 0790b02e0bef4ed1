//! Persistence by the client's address: a bounded table of client networks and the servers that they belong to.
//!
//! A [`Table`] has the clients of one virtual service whose [owner](Network::owner) is one lane. Ask it when a client has shaken hands, tell it what came of that,
//! and tell it when the connection is over:
//!
//! ```text
//! ask ──▶ Known ──────────────────────▶ settle, if the client was switched ──▶ close
//!   ├──▶ Decide ──(a server is chosen)─▶ settle ─────────────────────────────▶ close
//!   ├──▶ Wait ──(the other one settles)─▶ again ──▶ Known | Decide | Wait
//!   └──▶ Full: the client is not remembered, and nothing more is to be told
//! ```
//!
//! Of several connections that a new client opens at once, the first decides and the others wait for it: they all go to one server. A client is forgotten when
//! its last connection has been closed for the profile's timeout, or earlier, if the table is full: then whoever has been without a connection for longest goes.

use std::hash::Hasher;
use std::net::{IpAddr, Ipv6Addr};

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use slab::Slab;

use crate::base::{Duration, Instant, LaneId, Random};
use crate::ticket::Mapping;

/// Most clients that a lane remembers for one virtual service, whatever the configuration: half a GiB.
pub const ENTRIES_MAX: u32 = 4 << 20;

/// How long whoever is to decide may take before somebody else is to: a lane takes one breath, unless it has died.
pub const DECIDE_MAX: Duration = Duration::from_secs(1);

/// Clients beyond their timeout that are thrown away whenever one comes: two, so that they become fewer.
const EXPIRED_MAX: usize = 2;

crate::counters! {
    /// What a lane counts of persistence by the client's address.
    pub struct Counters {
        /// Connections whose client's mapping this lane keeps itself
        counter asked_here,
        /// Connections whose client's mapping was asked for at another lane
        counter asked_elsewhere,
        /// Answers of this lane's tables: the client is known
        counter answered_known,
        /// Answers of this lane's tables: the client is new
        counter answered_new,
        /// Answers of this lane's tables: all whom the table remembers have connections, so that the client cannot be remembered
        counter answered_full,
        /// Connections that waited until another one of their client had been given a server
        counter waited,
        /// Connections that were not remembered because too many waited so
        counter crowded_out,
        /// Clients forgotten before their time because a table was full
        counter forgotten,
        /// Connections that went on without a mapping because the ring of the lane that keeps it was full
        counter unasked,
        /// Connections that went on without a mapping because the lane that keeps it did not answer in time
        counter unanswered,
        /// Words for other lanes that were dropped because so many waited for room already
        counter words_dropped,
        /// Words for other lanes that wait for room
        gauge words_waiting,
        /// Clients that this lane's tables remember
        gauge entries,
    }
}

/// What a profile of this type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Leading bits of an IPv4 address that make two clients one, 1 to 32.
    pub ipv4_mask: u8,
    /// The same of an IPv6 address, 1 to 128.
    pub ipv6_mask: u8,
    /// How long a client is remembered after its last connection was closed. Whole seconds count.
    pub timeout: Duration,
    /// Most clients that each lane remembers for one virtual service, 1 to [`ENTRIES_MAX`].
    pub entries_max: u32,
}

impl Settings {
    /// The network that a client is in.
    pub fn network_of(&self, client: IpAddr) -> Network {
        let (address, spared) = match client {
            // An IPv4 address is the last 32 bits of its mapped one (RFC 4291 2.5.5.2), whose first 96 always count.
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 32_u32.saturating_sub(self.ipv4_mask.into())),
            IpAddr::V6(v6) => (v6, 128_u32.saturating_sub(self.ipv6_mask.into())),
        };
        let mask = u128::MAX.checked_shl(spared).unwrap_or(0);
        Network(Ipv6Addr::from(u128::from(address) & mask).octets())
    }
}

/// A client network, all of whose clients are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network([u8; 16]);

impl Network {
    /// The lane, of `lanes`, whose table has this network. All lanes agree on it without a word, so the hash has no secret; the tables' own do.
    pub fn owner(&self, lanes: u16) -> LaneId {
        let lane = hash(&SipHasher13::new(), self) % u64::from(lanes.max(1));
        LaneId(u16::try_from(lane).unwrap_or_default())
    }
}

/// A connection's hold on an entry, to be given back by [`Table::close`] once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    place: u32,
    /// An entry's, so that a lease on one that is gone holds nothing.
    serial: u32,
}

/// What a table says to whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The client belongs there.
    Known(Lease, Mapping),
    /// The client is new: choose a server, and [`settle`](Table::settle) at once.
    Decide(Lease),
    /// The client is new and another of its connections decides just now: ask [`again`](Table::again) when that has settled.
    Wait(Lease),
    /// There is no room: all the clients of the table have connections.
    Full,
}

/// One client network.
#[derive(Debug)]
struct Entry {
    network: Network,
    mapping: Option<Mapping>,
    /// Connections that have a lease on it.
    leases: u32,
    serial: u32,
    /// With leases and without a mapping: until when somebody decides. Without leases: since when it has had none.
    time: Instant,
    /// Seconds that it is kept without leases.
    timeout: u32,
    /// Neighbours among the entries without leases, by the time.
    older: u32,
    newer: u32,
}

/// No place.
const NONE: u32 = u32::MAX;

/// The clients of one virtual service that one lane remembers.
pub struct Table {
    hasher: SipHasher13,
    index: HashTable<u32>,
    entries: Slab<Entry>,
    max: usize,
    serial: u32,
    /// The ends of the list of entries without leases.
    oldest: u32,
    newest: u32,
    forgotten: u64,
}

impl Table {
    /// An empty table. It takes its address space at once, and memory as clients come.
    pub fn new(entries_max: u32, random: &mut Random) -> Self {
        let max = usize::try_from(entries_max.clamp(1, ENTRIES_MAX)).unwrap_or(1);
        let mut key = || u64::from_be_bytes(random.array());
        let (k0, k1) = (key(), key());
        Self {
            hasher: SipHasher13::new_with_keys(k0, k1),
            index: HashTable::with_capacity(max),
            entries: Slab::with_capacity(max),
            max,
            serial: 0,
            oldest: NONE,
            newest: NONE,
            forgotten: 0,
        }
    }

    /// Takes over another bound. Those who are too many then go as others come; for more, the table moves.
    pub fn set_max(&mut self, entries_max: u32) {
        self.max = usize::try_from(entries_max.clamp(1, ENTRIES_MAX)).unwrap_or(1);
        let more = self.max.saturating_sub(self.entries.len());
        self.entries.reserve(more);
        let Self { hasher, index, entries, .. } = self;
        index.reserve(more, |place| entries.get(*place as usize).map_or(0, |entry| hash(hasher, &entry.network)));
    }

    /// Clients that it remembers.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it remembers nobody.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Clients that were forgotten before their time because there was no room, since the last call.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    /// A connection of this network has shaken hands: where does it belong? `timeout` is the profile's.
    pub fn ask(&mut self, network: Network, timeout: Duration, now: Instant) -> Told {
        let found = self.index.find(hash(&self.hasher, &network), |place| self.is_at(*place, &network)).copied();
        let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        let place = match found {
            Some(place) => {
                self.take(place, seconds, now);
                place
            }
            None => match self.insert(network, seconds, now) {
                Some(place) => place,
                None => return Told::Full,
            },
        };
        let Some(entry) = self.entry(place) else { return Told::Full };
        entry.leases = entry.leases.saturating_add(1);
        let lease = Lease { place, serial: entry.serial };
        self.again(lease, now)
    }

    /// The same for a connection that has a lease and was told to wait.
    pub fn again(&mut self, lease: Lease, now: Instant) -> Told {
        let Some(entry) = self.leased(lease) else { return Told::Full };
        match entry.mapping {
            Some(mapping) => Told::Known(lease, mapping),
            None if now < entry.time => Told::Wait(lease),
            None => {
                entry.time = now + DECIDE_MAX;
                Told::Decide(lease)
            }
        }
    }

    /// A connection that was told `before` now belongs to `mapping`, or to nobody. Whoever has been told something that has changed since changes nothing: of
    /// two connections that are switched at once, one switches the client.
    pub fn settle(&mut self, lease: Lease, before: Option<Mapping>, mapping: Option<Mapping>, now: Instant) {
        let Some(entry) = self.leased(lease).filter(|entry| entry.mapping == before) else { return };
        entry.mapping = mapping;
        // With no mapping the next one is to decide.
        entry.time = now;
    }

    /// The connection is over.
    pub fn close(&mut self, lease: Lease, now: Instant) {
        let Some(entry) = self.leased(lease) else { return };
        entry.leases = entry.leases.saturating_sub(1);
        if entry.leases > 0 {
            return;
        }
        entry.time = now;
        if entry.mapping.is_some() {
            self.link(lease.place);
        } else {
            self.remove(lease.place);
        }
    }

    fn entry(&mut self, place: u32) -> Option<&mut Entry> {
        self.entries.get_mut(place as usize)
    }

    fn leased(&mut self, lease: Lease) -> Option<&mut Entry> {
        self.entry(lease.place).filter(|entry| entry.serial == lease.serial && entry.leases > 0)
    }

    fn is_at(&self, place: u32, network: &Network) -> bool {
        self.entries.get(place as usize).is_some_and(|entry| entry.network == *network)
    }

    /// An entry is asked for: it is idle no more, and if it has been for too long, it says nothing any more.
    fn take(&mut self, place: u32, timeout: u32, now: Instant) {
        let Some(entry) = self.entry(place) else { return };
        entry.timeout = timeout;
        if entry.leases > 0 {
            return;
        }
        if entry.is_over(now) {
            entry.mapping = None;
            entry.time = now;
        }
        self.unlink(place);
    }

    fn insert(&mut self, network: Network, timeout: u32, now: Instant) -> Option<u32> {
        for _ in 0..EXPIRED_MAX {
            let oldest = self.oldest;
            if self.entry(oldest).is_some_and(|entry| entry.is_over(now)) {
                self.forget(oldest);
            }
        }
        if self.entries.len() >= self.max && self.oldest == NONE {
            return None;
        }
        // Two, so that a bound that was lowered is reached.
        for _ in 0..EXPIRED_MAX {
            if self.entries.len() >= self.max && self.oldest != NONE {
                self.forget(self.oldest);
                self.forgotten += 1;
            }
        }
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let entry = Entry { network, mapping: None, leases: 0, serial, time: now, timeout, older: NONE, newer: NONE };
        let place = u32::try_from(self.entries.insert(entry)).ok()?;
        let Self { hasher, index, entries, .. } = self;
        index.insert_unique(hash(hasher, &network), place, |place| {
            entries.get(*place as usize).map_or(0, |entry| hash(hasher, &entry.network))
        });
        Some(place)
    }

    /// Forgets an idle entry.
    fn forget(&mut self, place: u32) {
        self.unlink(place);
        self.remove(place);
    }

    fn remove(&mut self, place: u32) {
        let Some(entry) = self.entries.try_remove(place as usize) else { return };
        if let Ok(found) = self.index.find_entry(hash(&self.hasher, &entry.network), |other| *other == place) {
            found.remove();
        }
    }

    /// Puts an entry at the new end of the idle ones.
    fn link(&mut self, place: u32) {
        let newest = std::mem::replace(&mut self.newest, place);
        if let Some(entry) = self.entry(place) {
            (entry.older, entry.newer) = (newest, NONE);
        }
        match self.entry(newest) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
    }

    fn unlink(&mut self, place: u32) {
        let Some(entry) = self.entry(place) else { return };
        let (older, newer) = (std::mem::replace(&mut entry.older, NONE), std::mem::replace(&mut entry.newer, NONE));
        match self.entry(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.entry(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }
}

impl Entry {
    /// Whether an idle entry has been so for longer than it is kept.
    fn is_over(&self, now: Instant) -> bool {
        now - self.time >= Duration::from_secs(self.timeout.into())
    }
}

impl std::fmt::Debug for Table {
    /// Names nobody.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("entries", &self.entries.len()).field("max", &self.max).finish_non_exhaustive()
    }
}

fn hash(hasher: &SipHasher13, network: &Network) -> u64 {
    let mut hasher = *hasher;
    hasher.write(&network.0);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::{Generation, PoolId, ServerId, UnixTime};

    const TIMEOUT: Duration = Duration::from_secs(300);

    fn settings(ipv4_mask: u8, ipv6_mask: u8) -> Settings {
        Settings { ipv4_mask, ipv6_mask, timeout: TIMEOUT, entries_max: 4 }
    }

    fn table(max: u32) -> Table {
        Table::new(max, &mut Random::from_seed(1))
    }

    fn network(number: u32) -> Network {
        settings(32, 128).network_of(IpAddr::V4((0xc612_0000 + number).into()))
    }

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(1000 + seconds)
    }

    fn mapping(server: u64) -> Mapping {
        Mapping { pool: PoolId(1), server: ServerId(server), generation: Generation(0), assigned: UnixTime(1) }
    }

    /// A new client comes and is given a server.
    fn visit(table: &mut Table, number: u32, server: u64, now: Instant) -> Lease {
        let Told::Decide(lease) = table.ask(network(number), TIMEOUT, now) else { panic!("it is known") };
        table.settle(lease, None, Some(mapping(server)), now);
        lease
    }

    /// The server of a client, which comes and goes.
    fn server_of(table: &mut Table, number: u32, now: Instant) -> Option<u64> {
        match table.ask(network(number), TIMEOUT, now) {
            Told::Known(lease, mapping) => {
                table.close(lease, now);
                Some(mapping.server.0)
            }
            Told::Decide(lease) | Told::Wait(lease) => {
                table.close(lease, now);
                None
            }
            Told::Full => None,
        }
    }

    #[test]
    fn a_mask_makes_neighbours_one_client_and_never_across_families() {
        let of =
            |ipv4_mask, ipv6_mask, address: &str| settings(ipv4_mask, ipv6_mask).network_of(address.parse().unwrap());
        assert_eq!(of(24, 64, "198.18.7.1"), of(24, 64, "198.18.7.254"));
        assert_ne!(of(24, 64, "198.18.7.1"), of(24, 64, "198.18.8.1"));
        assert_ne!(of(32, 64, "198.18.7.1"), of(32, 64, "198.18.7.2"));
        assert_eq!(of(32, 64, "2001:db8::1"), of(32, 64, "2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(of(32, 64, "2001:db8::1"), of(32, 64, "2001:db8:0:1::1"));
        assert_ne!(of(32, 128, "2001:db8::1"), of(32, 128, "2001:db8::2"));
        assert_eq!(of(1, 1, "198.18.7.1"), of(1, 1, "255.0.0.0"));
        assert_ne!(of(1, 1, "128.0.0.0"), of(1, 1, "8000::"));
    }

    #[test]
    fn all_lanes_have_their_share_of_networks() {
        let mut shares = [0; 4];
        for number in 0..4000 {
            shares[usize::from(network(number).owner(4).0)] += 1;
        }
        assert!(shares.iter().all(|share| (900..1100).contains(share)), "{shares:?}");
        assert_eq!(network(1).owner(1), LaneId(0));
    }

    #[test]
    fn a_client_is_remembered_from_the_end_of_its_last_connection_on() {
        let mut table = table(4);
        let first = visit(&mut table, 1, 7, at(0));
        let Told::Known(second, known) = table.ask(network(1), TIMEOUT, at(5)) else { panic!("it is not known") };
        assert_eq!(known, mapping(7));
        table.close(first, at(10));
        // However long the other one lasts.
        assert_eq!(server_of(&mut table, 1, at(5000)), Some(7));
        table.close(second, at(5000));
        assert_eq!(server_of(&mut table, 1, at(5299)), Some(7));
        assert_eq!(server_of(&mut table, 1, at(5599)), None);
        assert_eq!(table.len(), 0, "who has decided nothing leaves nothing");
    }

    #[test]
    fn of_connections_that_come_at_once_one_decides_and_all_go_there() {
        let mut table = table(4);
        let Told::Decide(first) = table.ask(network(1), TIMEOUT, at(0)) else { panic!("nobody decides") };
        let Told::Wait(second) = table.ask(network(1), TIMEOUT, at(0)) else { panic!("two decide") };
        assert_eq!(table.again(second, at(0)), Told::Wait(second));
        table.settle(first, None, Some(mapping(7)), at(0));
        assert_eq!(table.again(second, at(0)), Told::Known(second, mapping(7)));
    }

    #[test]
    fn where_the_first_gets_no_server_or_dies_the_next_decides() {
        let mut table = table(4);
        let Told::Decide(first) = table.ask(network(1), TIMEOUT, at(0)) else { panic!("nobody decides") };
        let Told::Wait(second) = table.ask(network(1), TIMEOUT, at(0)) else { panic!("two decide") };
        table.settle(first, None, None, at(0));
        assert_eq!(table.again(second, at(0)), Told::Decide(second));
        let Told::Wait(third) = table.ask(network(1), TIMEOUT, at(0)) else { panic!("two decide") };
        assert_eq!(table.again(third, at(0) + DECIDE_MAX), Told::Decide(third));
        for lease in [first, second, third] {
            table.close(lease, at(2));
        }
        assert!(table.is_empty());
    }

    #[test]
    fn of_two_connections_that_are_switched_at_once_one_switches_the_client() {
        let mut table = table(4);
        let leases = [visit(&mut table, 1, 7, at(0)), {
            let Told::Known(lease, _) = table.ask(network(1), TIMEOUT, at(1)) else { panic!("it is not known") };
            lease
        }];
        table.settle(leases[0], Some(mapping(7)), Some(mapping(8)), at(2));
        table.settle(leases[1], Some(mapping(7)), Some(mapping(9)), at(2));
        assert_eq!(server_of(&mut table, 1, at(3)), Some(8));
    }

    #[test]
    fn at_the_bound_whoever_was_idle_longest_goes_and_nobody_with_a_connection() {
        let mut table = table(3);
        let stays = visit(&mut table, 0, 70, at(0));
        for number in 1..3 {
            let lease = visit(&mut table, number, 7, at(number.into()));
            table.close(lease, at(10 + u64::from(number)));
        }
        // 1 comes again, so that 2 has been idle for longest.
        assert_eq!(server_of(&mut table, 1, at(20)), Some(7));
        let third = visit(&mut table, 3, 7, at(21));
        assert_eq!((table.len(), table.take_forgotten(), table.take_forgotten()), (3, 1, 0));
        assert_eq!(server_of(&mut table, 1, at(22)), Some(7));
        let fourth = visit(&mut table, 4, 7, at(23));
        assert_eq!((server_of(&mut table, 0, at(23)), table.take_forgotten()), (Some(70), 1));
        // All have connections now.
        assert_eq!(table.ask(network(5), TIMEOUT, at(24)), Told::Full);
        assert_eq!((table.len(), table.take_forgotten()), (3, 0));
        table.close(third, at(25));
        assert!(matches!(table.ask(network(5), TIMEOUT, at(26)), Told::Decide(_)));
        for lease in [stays, fourth] {
            table.close(lease, at(27));
        }
    }

    #[test]
    fn whoever_is_beyond_the_timeout_makes_room_before_anybody_else() {
        let mut table = table(3);
        for number in 0..3 {
            let lease = visit(&mut table, number, 7, at(0));
            table.close(lease, at(0));
        }
        visit(&mut table, 3, 7, at(300));
        assert_eq!((table.len(), table.take_forgotten()), (2, 0));
    }

    #[test]
    fn a_lowered_bound_is_reached_as_clients_come() {
        let mut table = table(10);
        for number in 0..10 {
            let lease = visit(&mut table, number, 7, at(0));
            table.close(lease, at(0));
        }
        table.set_max(2);
        for number in 10..18 {
            let lease = visit(&mut table, number, 7, at(1));
            table.close(lease, at(1));
        }
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_lease_on_what_is_gone_holds_nothing() {
        let mut table = table(1);
        let old = visit(&mut table, 1, 7, at(0));
        table.close(old, at(0));
        let new = visit(&mut table, 2, 8, at(1));
        assert_eq!(old.place, new.place);
        table.close(old, at(1));
        table.settle(old, Some(mapping(8)), Some(mapping(9)), at(1));
        assert_eq!((table.again(new, at(1)), table.again(old, at(1))), (Told::Known(new, mapping(8)), Told::Full));
    }

    #[test]
    fn a_table_that_is_full_has_not_grown() {
        let mut table = table(1000);
        let before = (table.index.allocation_size(), table.entries.capacity());
        for number in 0..2000 {
            let lease = visit(&mut table, number, 7, at(0));
            table.close(lease, at(0));
        }
        assert_eq!((table.index.allocation_size(), table.entries.capacity(), table.len()), (before.0, before.1, 1000));
    }

    proptest! {
        #[test]
        fn the_list_of_the_idle_holds_whoever_has_no_connection_and_nobody_else(steps in proptest::collection::vec((0..6_u32, 0..4_u8), 1..200)) {
            let mut table = table(4);
            let mut leases: Vec<Lease> = Vec::new();
            for (second, (number, what)) in (0..).zip(steps) {
                let now = at(second * 40);
                match what {
                    0 | 1 => match table.ask(network(number), TIMEOUT, now) {
                        Told::Known(lease, _) | Told::Wait(lease) => leases.push(lease),
                        Told::Decide(lease) => {
                            table.settle(lease, None, (what == 0).then(|| mapping(number.into())), now);
                            leases.push(lease);
                        }
                        Told::Full => prop_assert!(table.entries.iter().all(|(_, entry)| entry.leases > 0)),
                    },
                    _ if !leases.is_empty() => {
                        let lease = leases.swap_remove(number as usize % leases.len());
                        table.close(lease, now);
                    }
                    _ => {}
                }
                let mut idle = Vec::new();
                let mut at = table.oldest;
                while at != NONE {
                    idle.push(at);
                    at = table.entries[at as usize].newer;
                }
                let mut expected: Vec<u32> = table.entries.iter().filter(|(_, entry)| entry.leases == 0).map(|(place, _)| u32::try_from(place).unwrap()).collect();
                expected.sort_by_key(|place| idle.iter().position(|other| other == place));
                prop_assert_eq!(&idle, &expected);
                prop_assert!(idle.windows(2).all(|pair| table.entries[pair[0] as usize].time <= table.entries[pair[1] as usize].time));
                prop_assert_eq!(table.index.len(), table.entries.len());
                prop_assert!(table.entries.len() <= 4);
                let held: usize = table.entries.iter().map(|(_, entry)| entry.leases as usize).sum();
                prop_assert_eq!(held, leases.len());
            }
        }
    }
}
