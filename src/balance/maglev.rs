//! Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4): where clients belong by their address.
//!
//! Each server fills entries of a table in an order of its own, as many as its ratio says, and a client belongs to the server of the entry that its address falls
//! on. What the table says follows from the servers' identities and ratios alone, so that all engines of a cluster and all their lanes agree, in whatever
//! order their configurations name the servers. A server that comes or goes moves its own clients and a few others; one that is down, full, drained or
//! disabled stays in the table, and its clients go on to the next entries, so that nobody else is moved.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::balance::balancer::{Field, Member};
use crate::balance::{Server, ServerIndex};
use crate::base::ServerId;

/// Entries of a pool's table, 131 kB, shared by all lanes. A prime, as the servers' orders need it, and the paper's: a hundred entries for each of 655 servers.
pub const ENTRIES: usize = 65_537;

/// Entries of the table of a pool with more servers than [`SERVERS_SMALL_MAX`], 1.3 MB: a pool that grows beyond moves its clients once.
pub const ENTRIES_LARGE: usize = 655_373;

/// Most servers of a pool with the smaller table.
pub const SERVERS_SMALL_MAX: usize = 655;

/// Most entries that a client goes on from one to the next before all servers are looked at. As many in a row are of no use only where most of a pool is.
const STEPS_MAX: usize = 64;

/// A pool's table. Made by control for each configuration that changes servers or ratios; lanes read it.
pub struct Maglev {
    /// What it follows from, by [`ServerIndex`].
    servers: Box<[(ServerId, u8)]>,
    entries: Box<[ServerIndex]>,
}

impl Maglev {
    /// The table of these servers.
    pub fn new(servers: &[Server]) -> Self {
        Self::of(servers.iter().map(|server| (server.id, server.weight())).collect())
    }

    /// The same, or `before` if that is it.
    pub fn after(before: Option<&Arc<Self>>, servers: &[Server]) -> Arc<Self> {
        let holds = |table: &&Arc<Self>| {
            table.servers.iter().copied().eq(servers.iter().map(|server| (server.id, server.weight())))
        };
        before.filter(holds).map_or_else(|| Arc::new(Self::new(servers)), Arc::clone)
    }

    fn of(servers: Box<[(ServerId, u8)]>) -> Self {
        let size = match servers.len() {
            0 => 0,
            1..=SERVERS_SMALL_MAX => ENTRIES,
            _ => ENTRIES_LARGE,
        };
        let entries = populate(&servers, size);
        Self { servers, entries }
    }

    /// The server of this client: of `members`, those that the table was made of, as they are now.
    pub(super) fn choose(&self, client: IpAddr, members: &[Member], field: Field<'_>) -> Option<ServerIndex> {
        let hash = hash_of(client);
        let size = u64::try_from(self.entries.len()).ok().filter(|size| *size > 0)?;
        let start = usize::try_from(hash % size).ok()?;
        for index in self.entries.iter().cycle().skip(start).take(STEPS_MAX) {
            let member = *members.get(usize::from(index.0))?;
            let weight = field.weight(*index, member);
            // A server with half its share keeps the same half of its clients everywhere, and as the share grows, whoever has come back stays.
            let keeps = || {
                self.mixed(hash, *index) % u64::from(member.weight_max().unsigned_abs().max(1))
                    < u64::from(weight.unsigned_abs())
            };
            if weight > 0 && (weight == member.weight_max() || keeps()) {
                return Some(*index);
            }
        }
        self.choose_of_all(hash, members, field)
    }

    /// By the highest of hashes, as many for each usable server as its ratio: whoever's server stays in use keeps it, here too (rendezvous hashing: Thaler and
    /// Ravishankar, 1998).
    fn choose_of_all(&self, hash: u64, members: &[Member], field: Field<'_>) -> Option<ServerIndex> {
        let usable =
            (0..=u16::MAX).map(ServerIndex).zip(members).filter(|(index, member)| field.weight(*index, **member) > 0);
        let highest = |(index, member): (ServerIndex, &Member)| {
            let of_server = self.mixed(hash, index);
            let hashes = (0..u64::from(member.ratio)).map(|n| mix(of_server.wrapping_add(n)));
            Some((hashes.max()?, index))
        };
        usable.filter_map(highest).max().map(|(_, index)| index)
    }

    /// A hash of client and server, unlike that by which the client finds its entry.
    fn mixed(&self, hash: u64, index: ServerIndex) -> u64 {
        let id = self.servers.get(usize::from(index.0)).map_or(0, |(id, _)| id.0);
        mix(hash ^ mix(id))
    }
}

/// Fills the table. In a round each server whose turn it is takes the next entry of its order that nobody has; the one with the highest ratio has a turn in every round.
fn populate(servers: &[(ServerId, u8)], size: usize) -> Box<[ServerIndex]> {
    struct Filling {
        index: ServerIndex,
        ratio: u32,
        credit: u32,
        next: u64,
        skip: u64,
    }
    let modulus = u64::try_from(size).unwrap_or(u64::MAX);
    // By identity, so that the order in which a configuration names them does not matter.
    let in_order: BTreeSet<_> =
        (0..=u16::MAX).map(ServerIndex).zip(servers).map(|(index, (id, ratio))| (*id, index, *ratio)).collect();
    let filling = |(id, index, ratio): (ServerId, ServerIndex, u8)| Filling {
        index,
        ratio: ratio.into(),
        credit: 0,
        next: keyed(OFFSET_KEY, &id.0.to_be_bytes()) % modulus,
        skip: keyed(SKIP_KEY, &id.0.to_be_bytes()) % (modulus - 1) + 1,
    };
    let highest = servers.iter().map(|(_, ratio)| u32::from(*ratio)).max().unwrap_or(1);
    let mut all: Vec<_> = in_order.into_iter().map(filling).collect();
    let mut entries: Vec<Option<ServerIndex>> = vec![None; size];
    let mut left = size;
    while left > 0 && !all.is_empty() {
        for server in &mut all {
            server.credit += server.ratio;
            if server.credit < highest || left == 0 {
                continue;
            }
            server.credit -= highest;
            // Its order goes through every entry, the size being prime: there is a free one.
            while let Some(entry) = usize::try_from(server.next).ok().and_then(|at| entries.get_mut(at)) {
                server.next = (server.next + server.skip) % modulus;
                if entry.is_none() {
                    *entry = Some(server.index);
                    left -= 1;
                    break;
                }
            }
        }
    }
    entries.into_iter().flatten().collect()
}

/// Keys of the hashes. They are no secrets: engines of different makes must agree.
const CLIENT_KEY: u64 = 0;
const OFFSET_KEY: u64 = 1;
const SKIP_KEY: u64 = 2;

fn keyed(key: u64, bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(u64::from_be_bytes(*b"sealane\0"), key);
    hasher.write(bytes);
    hasher.finish()
}

/// An IPv4 address and the same mapped into IPv6 are one client.
fn hash_of(client: IpAddr) -> u64 {
    let address = match client {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    keyed(CLIENT_KEY, &address.octets())
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl std::fmt::Debug for Maglev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maglev").field("servers", &self.servers).field("entries", &self.entries.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::balance::testing::{pool, server};
    use crate::balance::{Algorithm, Board, Health, LaneLoads, Loads, Share, Slot, State};
    use crate::base::LaneId;

    const CLIENTS: u32 = 20_000;

    /// A table with its servers as they are now.
    struct Bench {
        servers: Vec<Server>,
        table: Maglev,
        board: Board,
        loads: LaneLoads,
    }

    impl Bench {
        fn new(servers: Vec<Server>) -> Self {
            let slots = servers.iter().map(|server| server.slot.0 as usize + 1).max().unwrap_or(0);
            let loads = LaneLoads::new(Arc::new(Loads::new(1, slots)), LaneId(0));
            Self { table: Maglev::new(&servers), servers, board: Board::new(slots), loads }
        }

        fn of_ratios(ratios: &[u8]) -> Self {
            Self::new((0..).zip(ratios).map(|(n, ratio)| server(n, *ratio)).collect())
        }

        fn member(server: &Server) -> Member {
            Member { slot: server.slot, ratio: if server.state == State::Enabled { server.ratio } else { 0 } }
        }

        /// The server of each client, by its identity.
        fn all(&self) -> Vec<Option<ServerId>> {
            let members: Vec<_> = self.servers.iter().map(Self::member).collect();
            let field = Field { board: &self.board, loads: &self.loads, tried: &[] };
            let choose = |n| {
                let client = IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 + n));
                self.table.choose(client, &members, field).map(|index| self.servers[usize::from(index.0)].id)
            };
            (0..CLIENTS).map(choose).collect()
        }
    }

    /// What part of the clients who had another server than `gone` has another one now.
    fn moved(before: &[Option<ServerId>], after: &[Option<ServerId>], gone: Option<ServerId>) -> f64 {
        let others: Vec<_> = before.iter().zip(after).filter(|(before, _)| **before != gone).collect();
        others.iter().filter(|(before, after)| before != after).count() as f64 / others.len() as f64
    }

    #[test]
    fn every_entry_is_taken_and_each_server_has_its_part_of_them() {
        for ratios in [&[1][..], &[1, 1, 1], &[20, 1, 7], &[3; 655]] {
            let table = Bench::of_ratios(ratios).table;
            assert_eq!(table.entries.len(), ENTRIES);
            let sum: usize = ratios.iter().map(|ratio| usize::from(*ratio)).sum();
            for (index, ratio) in (0..).map(ServerIndex).zip(ratios) {
                let entries = table.entries.iter().filter(|entry| **entry == index).count();
                let part = ENTRIES * usize::from(*ratio) / sum;
                assert!(entries.abs_diff(part) <= 20, "{entries} instead of {part} of {ratios:?}");
            }
        }
    }

    #[test]
    fn a_pool_of_many_servers_has_the_larger_table() {
        assert_eq!(Bench::of_ratios(&[1; SERVERS_SMALL_MAX + 1]).table.entries.len(), ENTRIES_LARGE);
        assert_eq!(Bench::of_ratios(&[]).table.entries.len(), 0);
    }

    #[test]
    fn engines_that_name_the_servers_in_another_order_agree() {
        let servers: Vec<_> = (0..7).map(|n| server(n, 1 + u8::try_from(n).unwrap())).collect();
        let mut other = servers.clone();
        other.reverse();
        assert_eq!(Bench::new(servers).all(), Bench::new(other).all());
    }

    /// What other makes of engine would have to agree with, and what an upgrade must not change.
    #[test]
    fn the_table_is_what_it_has_always_been() {
        let table = Bench::of_ratios(&[1, 2, 3]).table;
        let head: Vec<_> = table.entries.iter().take(24).map(|index| index.0).collect();
        assert_eq!(head, HEAD);
        assert_eq!(hash_of("198.18.0.1".parse().unwrap()), HASH);
        assert_eq!(hash_of("::ffff:198.18.0.1".parse().unwrap()), HASH);
    }

    #[test]
    fn a_server_that_goes_down_or_is_full_drained_or_disabled_moves_its_own_clients_and_nobody_else() {
        let mut bench = Bench::of_ratios(&[1, 2, 3, 1, 5]);
        let (before, gone) = (bench.all(), Some(bench.servers[2].id));
        bench.board.publish(Slot(2), Health::Down);
        let after = bench.all();
        assert_eq!(moved(&before, &after, gone), 0.0);
        assert!(!after.contains(&gone) && !after.contains(&None));
        bench.servers[2].state = State::Disabled;
        bench.board.publish(Slot(2), Health::Up);
        assert_eq!(bench.all(), after, "disabled is the same as down");
        bench.servers[2].state = State::Enabled;
        assert_eq!(bench.all(), before, "and all come back");
    }

    #[test]
    fn a_server_that_is_added_or_removed_moves_few_clients_of_others() {
        for count in [3_u16, 10, 50] {
            let few = Bench::new((0..count).map(|n| server(n, 1)).collect());
            let more = Bench::new((0..=count).map(|n| server(n, 1)).collect());
            let (with, without) = (more.all(), few.all());
            let added = more.servers.last().map(|server| server.id);
            let taken = with.iter().filter(|server| **server == added).count() as f64 / f64::from(CLIENTS);
            let fair = 1.0 / f64::from(count + 1);
            assert!((taken - fair).abs() < 0.1 * fair, "{count}: {taken} instead of {fair}");
            let others = moved(&with, &without, added);
            println!("{count} servers and one more: {others}");
            assert!(others < DISRUPTION_MAX, "{count}: {others}");
        }
    }

    #[test]
    fn a_ratio_that_changes_moves_few_clients_beyond_what_it_must() {
        let before = Bench::of_ratios(&[10, 10, 10, 10]).all();
        let after = Bench::of_ratios(&[10, 10, 10, 11]).all();
        // The fourth's part grows from 10/40 to 11/41.
        let least = 11.0 / 41.0 - 10.0 / 40.0;
        let all = moved(&before, &after, None);
        assert!((0.9 * least..least + DISRUPTION_MAX).contains(&all), "{all} instead of {least}");
    }

    #[test]
    fn as_a_share_grows_clients_come_back_and_stay() {
        let bench = Bench::of_ratios(&[1, 1, 1]);
        let (own, whole) = (Some(bench.servers[0].id), bench.all());
        let mut before: Vec<_> = vec![None; whole.len()];
        for part in [0.0625, 0.25, 0.5, 0.75, 1.0] {
            bench.board.publish_share(Slot(0), Share::of(part));
            let now = bench.all();
            let kept = now.iter().filter(|server| **server == own).count() as f64;
            let expected = part * f64::from(CLIENTS) / 3.0;
            assert!((kept - expected).abs() < 0.1 * expected, "{part}: {kept} instead of {expected}");
            assert!(before.iter().zip(&now).all(|(before, now)| *before != own || *now == own), "somebody left again");
            before = now;
        }
        assert_eq!(before, whole);
    }

    #[test]
    fn where_most_servers_are_down_clients_of_the_others_stay_and_the_rest_is_spread() {
        let bench = Bench::of_ratios(&[1; 600]);
        (4..600).for_each(|slot| bench.board.publish(Slot(slot), Health::Down));
        let before = bench.all();
        bench.board.publish(Slot(3), Health::Down);
        let after = bench.all();
        let gone = Some(bench.servers[3].id);
        assert_eq!(moved(&before, &after, gone), 0.0);
        for server in &bench.servers[..3] {
            let clients = after.iter().filter(|id| **id == Some(server.id)).count() as f64;
            assert!((clients / f64::from(CLIENTS) - 1.0 / 3.0).abs() < 0.02, "{clients}");
        }
    }

    #[test]
    fn a_table_is_kept_while_servers_and_ratios_stay() {
        let mut pool = pool(Algorithm::ConsistentHash, &[1, 2]);
        let table = Arc::clone(pool.table().unwrap());
        pool.servers[0].state = State::Disabled;
        assert!(Arc::ptr_eq(&table, &Maglev::after(Some(&table), &pool.servers)));
        pool.servers[0].ratio = 2;
        assert!(!Arc::ptr_eq(&table, &Maglev::after(Some(&table), &pool.servers)));
    }

    const DISRUPTION_MAX: f64 = 0.01;
    const HEAD: [u16; 24] = [2, 1, 0, 1, 2, 2, 1, 2, 2, 1, 2, 1, 1, 2, 2, 2, 1, 1, 2, 2, 2, 2, 1, 1];
    const HASH: u64 = 10_011_799_624_623_166_500;
}
