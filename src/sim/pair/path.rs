//! One direction of the way between two hosts: loses, repeats, delays, reorders, damages and marks packets, or swallows them all.

use std::collections::BTreeMap;

use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use crate::base::{Duration, Instant};
use crate::sim::pair::dice::Dice;
use crate::sim::router::Narrow;
use crate::wire::{Ecn, Packet};

/// Bytes of an IPv6 header before the first one that a TCP checksum covers (next header), and the one behind it (hop limit), which nothing covers.
const IPV6_UNCOVERED: usize = 6;
const IPV6_HOP_LIMIT: usize = 7;

/// What has become of a packet that the narrow link does not carry.
pub(super) const TOO_LONG: &str = "too long";

/// How the path treats packets. Shares are in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Every packet is lost.
    pub blackhole: bool,
    /// Packets lost.
    pub loss: u64,
    /// How many packets in a row a loss takes on average.
    pub burst: u64,
    /// Packets that come twice.
    pub duplicate: u64,
    /// Packets with one bit flipped.
    pub corrupt: u64,
    /// Packets marked of those that may be (RFC 3168).
    pub mark: u64,
    /// Packets that are held up, so that those behind them overtake.
    pub late: u64,
    /// For how long at most.
    pub lateness: Duration,
    /// The least time on the way.
    pub delay: Duration,
    /// What may be added to it.
    pub jitter: Duration,
    /// Bytes a second of the bottleneck; 0 for none.
    pub rate: u64,
    /// Bytes that wait for the bottleneck at most; what finds no room is lost.
    pub queue: u64,
    /// A link on the way that carries less than the hosts' own.
    pub narrow: Option<Narrow>,
    /// Packets whose payload is altered so that no checksum tells. No TCP can bear that: it is for showing that somebody notices.
    pub forge: u64,
}

impl Conditions {
    /// Nothing but delay.
    pub fn sound(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }
}

/// What a direction has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets that came while there was a blackhole.
    pub swallowed: u64,
    /// Packets that found the bottleneck's queue full.
    pub dropped: u64,
    /// Packets that were too long.
    pub too_long: u64,
    /// Messages of the router that says so.
    pub told: u64,
    /// Packets that came twice.
    pub repeated: u64,
    /// Packets damaged.
    pub corrupted: u64,
    /// Packets marked.
    pub marked: u64,
    /// Packets held up.
    pub held: u64,
    /// Packets that were overtaken by the one behind them.
    pub overtaken: u64,
}

/// A packet on its way.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    pub(super) bytes: Vec<u8>,
    /// One bit of it is wrong.
    pub(super) damaged: bool,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) conditions: Conditions,
    pub(super) faults: Faults,
    dice: Dice,
    /// In a burst of losses.
    losing: bool,
    /// When the bottleneck has sent what waits for it.
    free_at: Instant,
    number: u64,
    last_arrival: Instant,
    under_way: BTreeMap<(Instant, u64), Carried>,
}

impl Path {
    pub(super) fn new(dice: Dice) -> Self {
        Self {
            conditions: Conditions::default(),
            faults: Faults::default(),
            dice,
            losing: false,
            free_at: Instant::START,
            number: 0,
            last_arrival: Instant::START,
            under_way: BTreeMap::new(),
        }
    }

    /// Takes a packet that leaves at `now` and says what becomes of it. A router may have something to say to its sender.
    pub(super) fn send(&mut self, bytes: Vec<u8>, now: Instant) -> (&'static str, Option<Vec<u8>>) {
        let Conditions { blackhole, narrow, .. } = self.conditions;
        if blackhole {
            self.faults.swallowed += 1;
            return ("swallowed", None);
        }
        match narrow.filter(|narrow| !narrow.carries(&bytes)) {
            None => (self.pass(bytes, now), None),
            Some(narrow) => {
                let answer = narrow.answer(&bytes);
                self.faults.too_long += 1;
                self.faults.told += u64::from(answer.is_some());
                (TOO_LONG, answer)
            }
        }
    }

    /// Takes a packet that does not come over the narrow link.
    pub(super) fn send_short(&mut self, bytes: Vec<u8>, now: Instant) -> &'static str {
        if self.conditions.blackhole {
            self.faults.swallowed += 1;
            return "swallowed";
        }
        self.pass(bytes, now)
    }

    fn pass(&mut self, bytes: Vec<u8>, now: Instant) -> &'static str {
        let Conditions { loss, burst, duplicate, rate, queue, .. } = self.conditions;
        // Bursts are geometric: each begins with a share of loss / burst and goes on with one of 1 - 1 / burst.
        let goes_on = self.losing && burst > 1;
        let share = if goes_on { 1000 - 1000 / burst } else { loss.div_ceil(burst.max(1)) };
        self.losing = self.dice.permille(share);
        if self.losing {
            self.faults.lost += 1;
            return "lost";
        }
        let mut leaves = now;
        if rate > 0 {
            let time = |bytes: u64| Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
            leaves = self.free_at.max(now);
            if leaves.since(now) > time(queue) {
                self.faults.dropped += 1;
                return "dropped";
            }
            leaves = leaves + time(bytes.len() as u64);
            self.free_at = leaves;
        }
        if self.dice.permille(duplicate) {
            self.faults.repeated += 1;
            self.carry(bytes.clone(), leaves);
            self.carry(bytes, leaves);
            return "sent twice";
        }
        self.carry(bytes, leaves)
    }

    fn carry(&mut self, mut bytes: Vec<u8>, leaves: Instant) -> &'static str {
        let Conditions { corrupt, mark, late, lateness, delay, jitter, forge, .. } = self.conditions;
        let mut fate = "sent";
        let mut arrives = leaves + delay;
        if !jitter.is_zero() {
            arrives = arrives + self.upto(jitter);
        }
        if self.dice.permille(late) {
            self.faults.held += 1;
            arrives = arrives + self.upto(lateness);
            fate = "held up";
        }
        if self.dice.permille(mark) && set_mark(&mut bytes) {
            self.faults.marked += 1;
            fate = "marked";
        }
        if self.dice.permille(forge) {
            forge_payload(&mut bytes);
            fate = "forged";
        }
        let damaged = self.dice.permille(corrupt);
        if damaged {
            self.faults.corrupted += 1;
            self.damage(&mut bytes);
            fate = "damaged";
        }
        self.faults.overtaken += u64::from(arrives < self.last_arrival);
        self.last_arrival = self.last_arrival.max(arrives);
        self.number += 1;
        self.under_way.insert((arrives, self.number), Carried { bytes, damaged });
        fate
    }

    fn upto(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.dice.between(0, u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1)))
    }

    /// Flips one bit that a checksum covers: one alone is always noticed.
    fn damage(&mut self, bytes: &mut [u8]) {
        let v6 = bytes.first().is_some_and(|first| first >> 4 == 6);
        let first = if v6 { IPV6_UNCOVERED } else { 0 };
        let at = match self.dice.size(first, bytes.len() - 1) {
            IPV6_HOP_LIMIT if v6 => IPV6_UNCOVERED,
            at => at,
        };
        let bit = self.dice.between(0, 7);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    /// The next packet that has arrived.
    pub(super) fn arrive(&mut self, now: Instant) -> Option<Carried> {
        let entry = self.under_way.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }

    /// When the next packet arrives.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|((arrives, _), _)| *arrives)
    }
}

/// What a router does that is about to drop packets: marks this one, if it may be marked.
fn set_mark(bytes: &mut [u8]) -> bool {
    let Ok(Packet { ecn: Ecn::Ect0, source, .. }) = Packet::parse(bytes, false) else { return false };
    if source.is_ipv4() {
        let mut header = Ipv4Packet::new_unchecked(bytes);
        header.set_ecn(Ecn::Ce.bits());
        header.fill_checksum();
    } else {
        Ipv6Packet::new_unchecked(bytes).set_traffic_class(Ecn::Ce.bits());
    }
    true
}

/// Swaps the last two pairs of bytes that differ: the sum of all stays what it was.
fn forge_payload(bytes: &mut [u8]) {
    if let [.., a, b, c, d] = bytes
        && (*a, *b) != (*c, *d)
    {
        std::mem::swap(a, c);
        std::mem::swap(b, d);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(conditions: Conditions) -> Path {
        Path { conditions, ..Path::new(Dice::new(1)) }
    }

    #[test]
    fn faults_come_about_as_often_as_said() {
        let mut path = path(Conditions { loss: 100, burst: 4, duplicate: 50, ..Conditions::default() });
        for _ in 0..20_000 {
            path.send(vec![0x45; 40], Instant::START);
        }
        assert!((1700..2300).contains(&path.faults.lost), "{:?}", path.faults);
        assert!((750..1050).contains(&path.faults.repeated), "{:?}", path.faults);
    }

    #[test]
    fn a_bottleneck_takes_its_time_and_drops_what_finds_no_room() {
        let mut path = path(Conditions { rate: 1000, queue: 100, ..Conditions::default() });
        let fates: Vec<_> = (0..4).map(|_| path.send(vec![0x45; 100], Instant::START).0).collect();
        assert_eq!(fates, ["sent", "sent", "dropped", "dropped"]);
        assert_eq!(path.poll_at(), Some(Instant::from_nanos(100_000_000)));
        assert!(path.arrive(Instant::from_nanos(99_999_999)).is_none());
        assert!(path.arrive(Instant::from_nanos(100_000_000)).is_some());
    }
}
