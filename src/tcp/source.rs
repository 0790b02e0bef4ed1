//! What one source address may have: connections at a time, new ones a second, handshakes that are going on.
//!
//! A source is an IPv4 address, or a /64 of IPv6: whoever has one address of it can have them all (RFC 4291 2.5.1, RFC 7721). Whatever refuses somebody
//! counts completed handshakes only, so that SYNs with a forged source lock nobody out of it. Handshakes that are going on may be forged; beyond their
//! limit a source's SYNs are answered by cookies, which need no place, so that whoever is honest behind the same address still gets in.
//!
//! A source is known while it holds a connection or a handshake, and for the second after that in which its rate is still spent: so there are never more
//! of them than connections, handshakes and [`RESTING_MAX`].

use std::collections::HashMap;
use std::num::NonZeroU32;

use slab::Slab;

use crate::base::{Duration, Flow, Instant, Random};
use crate::tcp::Settings;
use crate::tcp::isn::Keyed;
use crate::tcp::queue::Queue;

/// Most sources that are known for their spent rate alone. Beyond it the one that has rested longest is forgotten early, and may begin its second anew.
pub(super) const RESTING_MAX: usize = 16_384;
/// A source may spend the rate of so long at once.
const SPENDABLE: Duration = Duration::from_secs(1);

/// An address as it is counted.
type Key = [u8; 16];

/// The place of a source whose connection or handshake holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceId(NonZeroU32);

/// Which limit a source has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// It has as many connections as one may have.
    Connections,
    /// It has opened connections as fast as one may.
    Rate,
    /// It has as many handshakes going on as one may.
    HalfOpen,
}

/// The limits, each with `None` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) connections: Option<u32>,
    /// Connections a second.
    pub(super) rate: Option<u32>,
}

impl Limits {
    pub(super) fn of(settings: &Settings) -> Self {
        Self { connections: settings.source_connections_max, rate: settings.source_connections_per_second }
    }

    fn any(self) -> bool {
        self.connections.is_some() || self.rate.is_some()
    }

    /// Whether a source may open one more.
    fn allow(self, source: &Source, now: Instant) -> Result<(), Excess> {
        if self.connections.is_some_and(|max| source.connections >= max) {
            return Err(Excess::Connections);
        }
        let spent = source.spent_until.max(now);
        if self.rate.is_some_and(|rate| spent + cost(rate) > now + SPENDABLE) { Err(Excess::Rate) } else { Ok(()) }
    }
}

/// How long a rate takes to earn one connection.
fn cost(rate: u32) -> Duration {
    SPENDABLE / rate.max(1)
}

/// One source, 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    key: Key,
    pub(super) connections: u32,
    pub(super) half_open: u32,
    /// When its rate will have been earned again; in the past when it is.
    spent_until: Instant,
}

impl Source {
    fn holds_nothing(&self) -> bool {
        self.connections == 0 && self.half_open == 0
    }
}

/// All that are known.
#[derive(Debug)]
pub(super) struct Sources {
    index: HashMap<Key, SourceId, Keyed>,
    entries: Slab<Source>,
    /// Those that hold nothing, in the order in which they came to that.
    resting: Queue,
    resting_len: usize,
}

impl Sources {
    pub(super) fn new(random: &mut Random) -> Self {
        let index = HashMap::with_hasher(Keyed::new(random));
        Self { index, entries: Slab::new(), resting: Queue::new(), resting_len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes that one takes at most: here, in the queue and in the index, which doubles when it is seven eighths full.
    pub(super) const fn entry_bound() -> usize {
        size_of::<(usize, Source)>() + 2 * size_of::<u32>() + (size_of::<(Key, SourceId)>() + 1) * 16 / 7
    }

    /// Whether the source of a flow may open one more connection, as it is now. It holds no place yet.
    pub(super) fn may_open(&self, flow: &Flow, limits: Limits, now: Instant) -> Result<(), Excess> {
        if !limits.any() {
            return Ok(());
        }
        let source = self.index.get(&key(flow)).and_then(|id| self.at(*id));
        source.map_or(Ok(()), |source| limits.allow(source, now))
    }

    /// Counts a connection whose handshake is complete. Without limits nothing is counted.
    pub(super) fn open(&mut self, flow: &Flow, limits: Limits, now: Instant) -> Result<Option<SourceId>, Excess> {
        if !limits.any() {
            return Ok(None);
        }
        let id = self.find_or_insert(key(flow));
        let Some(source) = self.at_mut(id) else { return Ok(None) };
        if let Err(excess) = limits.allow(source, now) {
            // What has no right to a place must not leave one behind either.
            self.leave(id, now);
            return Err(excess);
        }
        source.connections += 1;
        if let Some(rate) = limits.rate {
            source.spent_until = source.spent_until.max(now) + cost(rate);
        }
        Ok(Some(id))
    }

    /// A connection is gone. Gives whether a resting source had to be forgotten early.
    pub(super) fn closed(&mut self, id: SourceId, now: Instant) -> bool {
        if let Some(source) = self.at_mut(id) {
            source.connections -= 1;
        }
        self.leave(id, now)
    }

    /// Counts a handshake that is going on, if there is a limit to them.
    pub(super) fn begin(&mut self, flow: &Flow, max: Option<u32>, now: Instant) -> Result<Option<SourceId>, Excess> {
        let Some(max) = max else { return Ok(None) };
        let id = self.find_or_insert(key(flow));
        let Some(source) = self.at_mut(id) else { return Ok(None) };
        if source.half_open >= max {
            self.leave(id, now);
            return Err(Excess::HalfOpen);
        }
        source.half_open += 1;
        Ok(Some(id))
    }

    /// A handshake is over, however it ended. Gives whether a resting source had to be forgotten early.
    pub(super) fn ended(&mut self, id: SourceId, now: Instant) -> bool {
        if let Some(source) = self.at_mut(id) {
            source.half_open -= 1;
        }
        self.leave(id, now)
    }

    /// Forgets those whose rest is over.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        while let Some((id, until)) = self.oldest()
            && until <= now
        {
            self.forget(id);
        }
    }

    /// When [`on_timeout`](Self::on_timeout) is wanted next.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.oldest().map(|(_, until)| until)
    }

    /// The one that has rested longest, and until when it has to. One behind it may be due earlier; it waits less than a second more.
    fn oldest(&self) -> Option<(SourceId, Instant)> {
        let id = id_of(self.resting.front()?);
        Some((id, self.at(id)?.spent_until))
    }

    pub(super) fn at(&self, id: SourceId) -> Option<&Source> {
        self.entries.get(slot_of(id) as usize)
    }

    fn at_mut(&mut self, id: SourceId) -> Option<&mut Source> {
        self.entries.get_mut(slot_of(id) as usize)
    }

    fn find_or_insert(&mut self, key: Key) -> SourceId {
        if let Some(id) = self.index.get(&key).copied() {
            self.wake(id);
            return id;
        }
        let source = Source { key, connections: 0, half_open: 0, spent_until: Instant::START };
        let id = id_of(u32::try_from(self.entries.insert(source)).expect("fewer than 2^32 sources"));
        self.index.insert(key, id);
        id
    }

    fn wake(&mut self, id: SourceId) {
        if self.resting.contains(slot_of(id)) {
            self.resting.remove(slot_of(id));
            self.resting_len -= 1;
        }
    }

    /// Lets a source that holds nothing rest until its rate is earned, or go.
    fn leave(&mut self, id: SourceId, now: Instant) -> bool {
        let Some(source) = self.at(id).copied().filter(Source::holds_nothing) else { return false };
        if source.spent_until <= now {
            self.forget(id);
            return false;
        }
        self.resting.push(slot_of(id));
        self.resting_len += 1;
        let early = self.resting_len > RESTING_MAX;
        if early && let Some((oldest, _)) = self.oldest() {
            self.forget(oldest);
        }
        early
    }

    fn forget(&mut self, id: SourceId) {
        self.wake(id);
        if let Some(source) = self.entries.try_remove(slot_of(id) as usize) {
            self.index.remove(&source.key);
        }
    }

    /// What does not add up, for the audit: `held` gives the source of each connection and of each handshake with its flow.
    pub(super) fn audit(&self, held: impl Iterator<Item = (Flow, Option<SourceId>, bool)>) -> Result<(), String> {
        let mut counts: HashMap<Key, (u32, u32)> = HashMap::new();
        for (flow, id, half_open) in held.filter_map(|(flow, id, half_open)| Some((flow, id?, half_open))) {
            if self.at(id).is_none_or(|source| source.key != key(&flow)) {
                return Err(format!("{flow:?} holds {:?}, which is not its source", self.at(id)));
            }
            let count = counts.entry(key(&flow)).or_default();
            if half_open { count.1 += 1 } else { count.0 += 1 }
        }
        let mut resting = 0;
        for (slot, source) in &self.entries {
            let slot = u32::try_from(slot).unwrap_or(u32::MAX);
            let (connections, half_open) = counts.get(&source.key).copied().unwrap_or_default();
            if (source.connections, source.half_open) != (connections, half_open) {
                return Err(format!("{source:?} is held by {connections} connections and {half_open} handshakes"));
            }
            if self.index.get(&source.key) != Some(&id_of(slot)) {
                return Err(format!("{source:?} is not in the index"));
            }
            if self.resting.contains(slot) != source.holds_nothing() {
                return Err(format!("{source:?} rests, and holds something; or it does neither"));
            }
            resting += usize::from(source.holds_nothing());
        }
        if (self.index.len(), self.resting_len) != (self.entries.len(), resting) || resting > RESTING_MAX {
            let indexed = self.index.len();
            return Err(format!("{} sources, {indexed} in the index, {resting} at rest", self.entries.len()));
        }
        Ok(())
    }
}

fn key(flow: &Flow) -> Key {
    let mut key = flow.remote_key();
    if flow.remote().is_ipv6() {
        let (_, interface) = key.split_at_mut(8);
        interface.fill(0);
    }
    key
}

fn id_of(slot: u32) -> SourceId {
    SourceId(NonZeroU32::MIN.saturating_add(slot))
}

fn slot_of(id: SourceId) -> u32 {
    id.0.get() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(remote: &str) -> Flow {
        let remote = std::net::SocketAddr::new(remote.parse().unwrap(), 50_000);
        let local = if remote.is_ipv4() { "198.18.0.1:443" } else { "[2001:db8::1]:443" };
        Flow::new(local.parse().unwrap(), remote)
    }

    fn number(number: u32) -> Flow {
        let [_, a, b, c] = number.to_be_bytes();
        flow(&format!("10.{a}.{b}.{c}"))
    }

    fn sources() -> Sources {
        Sources::new(&mut Random::from_seed(1))
    }

    const NOW: Instant = Instant::from_nanos(5_000_000_000);
    const RATE: Limits = Limits { connections: None, rate: Some(4) };

    #[test]
    fn a_source_is_an_ipv4_address_or_a_64() {
        let same = |one: &str, other: &str| key(&flow(one)) == key(&flow(other));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("198.18.0.2", "198.18.0.2") && !same("198.18.0.2", "198.18.0.3"));
    }

    #[test]
    fn without_limits_nothing_is_known() {
        let mut sources = sources();
        assert_eq!(sources.open(&number(1), Limits::default(), NOW), Ok(None));
        assert_eq!((sources.begin(&number(1), None, NOW), sources.len()), (Ok(None), 0));
    }

    #[test]
    fn connections_are_counted_until_they_are_gone() {
        let (mut sources, limits) = (sources(), Limits { connections: Some(2), rate: None });
        let first = sources.open(&number(1), limits, NOW).unwrap().unwrap();
        let second = sources.open(&number(1), limits, NOW).unwrap().unwrap();
        assert_eq!(sources.may_open(&number(1), limits, NOW), Err(Excess::Connections));
        assert_eq!(sources.open(&number(1), limits, NOW), Err(Excess::Connections));
        assert_eq!(sources.may_open(&number(2), limits, NOW), Ok(()));
        sources.closed(first, NOW);
        assert_eq!(sources.may_open(&number(1), limits, NOW), Ok(()));
        sources.closed(second, NOW);
        assert_eq!((sources.len(), sources.poll_at()), (0, None));
    }

    #[test]
    fn a_rate_is_spent_at_once_and_earned_evenly() {
        let mut sources = sources();
        let mut opened = |after: u64| {
            let now = NOW + Duration::from_millis(after);
            let ids = std::iter::from_fn(|| sources.open(&number(1), RATE, now).ok().flatten());
            let ids: Vec<_> = ids.collect();
            for id in &ids {
                sources.closed(*id, now);
            }
            ids.len()
        };
        assert_eq!([0, 249, 250, 500, 1250, 60_000].map(&mut opened), [4, 0, 1, 1, 3, 4]);
        assert_eq!(sources.poll_at(), Some(NOW + Duration::from_secs(61)));
        sources.on_timeout(NOW + Duration::from_millis(60_999));
        assert_eq!(sources.len(), 1);
        sources.on_timeout(NOW + Duration::from_secs(61));
        assert_eq!((sources.len(), sources.poll_at()), (0, None));
    }

    #[test]
    fn sources_at_rest_are_bounded() {
        let mut sources = sources();
        let mut early = 0;
        let most = u32::try_from(RESTING_MAX).unwrap();
        for source in 0..most + 10 {
            let id = sources.open(&number(source), RATE, NOW).unwrap().unwrap();
            early += u32::from(sources.closed(id, NOW));
        }
        assert_eq!((early, sources.len()), (10, RESTING_MAX));
        // A source that comes back leaves its place in the queue to the next.
        let id = sources.open(&number(most), RATE, NOW).unwrap().unwrap();
        let other = sources.open(&number(most + 10), RATE, NOW).unwrap().unwrap();
        assert_eq!((sources.closed(other, NOW), sources.closed(id, NOW)), (false, true));
        assert_eq!(sources.audit(std::iter::empty()), Ok(()));
        sources.on_timeout(NOW + Duration::from_secs(1));
        assert_eq!((sources.len(), sources.audit(std::iter::empty())), (0, Ok(())));
    }

    #[test]
    fn handshakes_are_counted_beside_connections() {
        let mut sources = sources();
        let first = sources.begin(&number(1), Some(2), NOW).unwrap().unwrap();
        let second = sources.begin(&number(1), Some(2), NOW).unwrap().unwrap();
        assert_eq!((first, sources.begin(&number(1), Some(2), NOW)), (second, Err(Excess::HalfOpen)));
        let limits = Limits { connections: Some(1), rate: None };
        assert_eq!(sources.may_open(&number(1), limits, NOW), Ok(()), "handshakes refuse nobody");
        let id = sources.open(&number(1), limits, NOW).unwrap().unwrap();
        sources.ended(first, NOW);
        assert_eq!(sources.begin(&number(1), Some(2), NOW), Ok(Some(first)));
        for _ in 0..2 {
            sources.ended(first, NOW);
        }
        assert_eq!(sources.len(), 1);
        sources.closed(id, NOW);
        assert_eq!(sources.len(), 0);
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!((size_of::<Source>(), size_of::<Option<SourceId>>()), (32, 4));
    }
}
