//! What lies between two hosts: a relay that loses, delays, reorders and repeats packets, behind a bottleneck with a queue.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::prctl;
use sealane::base::{Duration, Instant, Random};

use crate::namespace::{Clock, Tun, wait};

/// Packets that are taken from a device before the other one has its turn.
const BATCH: usize = 64;
/// How long the relay sleeps at most.
const WAIT_MAX: Duration = Duration::from_millis(20);
/// What a measurement at a round trip of one millisecond can bear.
const TARDY: Duration = Duration::from_micros(500);
/// A burst of losses is over once nothing has come for so long, whatever the dice say: a queue that overflows is empty by then. If it went on by the number of packets
/// alone, it would wait for the last connection of a path and eat twelve of its retransmissions, one timeout after the other: a minute and more of silence, which
/// no TCP can do anything about.
const BURST_GAP: Duration = Duration::from_millis(100);
/// How much late a wake-up may be.
const TIMER_SLACK_NANOS: u64 = 1_000;

/// How one direction of the path is. Shares are in millionths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Impairment {
    /// Bits per second of the bottleneck.
    pub(crate) rate: u64,
    /// Bytes that wait for the bottleneck at most; what finds no room is dropped.
    pub(crate) queue: u64,
    pub(crate) delay: Duration,
    /// Share of packets that are lost before the bottleneck.
    pub(crate) loss: u64,
    /// How many packets a loss takes in a row on average.
    pub(crate) burst: u64,
    /// Share of packets that come twice.
    pub(crate) duplicate: u64,
    /// Share of packets that are held up, and for how long at most. Those behind them overtake.
    pub(crate) late: u64,
    pub(crate) lateness: Duration,
}

impl Impairment {
    /// Nothing but delay.
    pub(crate) const fn delay(delay: Duration) -> Self {
        Self {
            rate: 1_000_000_000,
            queue: 4 << 20,
            delay,
            loss: 0,
            burst: 1,
            duplicate: 0,
            late: 0,
            lateness: Duration::ZERO,
        }
    }
}

/// What a direction has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) carried: u64,
    pub(crate) lost: u64,
    /// Found the queue full.
    pub(crate) dropped: u64,
    pub(crate) repeated: u64,
    pub(crate) held: u64,
    /// Left the relay more than [`TARDY`] after their time, because the machine was busy.
    pub(crate) tardy: u64,
}

/// One direction of the path.
#[derive(Debug)]
pub(crate) struct Path {
    impairment: Impairment,
    random: Random,
    /// When the bottleneck has sent all that waits for it.
    free_at: Instant,
    /// In a burst of losses.
    losing: bool,
    /// When the last packet came.
    came: Instant,
    number: u64,
    under_way: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    pub(crate) tally: Tally,
}

impl Path {
    pub(crate) fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            random: Random::from_seed(seed),
            free_at: Instant::START,
            losing: false,
            came: Instant::START,
            number: 0,
            under_way: BinaryHeap::new(),
            tally: Tally::default(),
        }
    }

    fn on_packet(&mut self, packet: &[u8], now: Instant) {
        // As many draws for each packet, so that what becomes of the n-th depends on the seed alone.
        let [loss, duplicate, late] = std::array::from_fn(|_| self.random.below(1_000_000));
        let lateness = self.random.below(1_000_000);
        let Impairment { rate, queue, delay, burst, .. } = self.impairment;
        // Bursts are geometric: each begins with a share of `loss / burst`, and goes on with one of `1 - 1 / burst`.
        let gap = now.since(std::mem::replace(&mut self.came, now));
        let goes_on = self.losing && burst > 1 && gap < BURST_GAP;
        self.losing = loss < if goes_on { 1_000_000 - 1_000_000 / burst } else { self.impairment.loss / burst };
        if self.losing {
            self.tally.lost += 1;
            return;
        }
        let time = |bytes: u64| Duration::from_nanos(bytes * 8 * 1_000_000_000 / rate);
        let begins = self.free_at.max(now);
        if begins.since(now) > time(queue) {
            self.tally.dropped += 1;
            return;
        }
        self.free_at = begins + time(packet.len() as u64);
        let mut arrives = self.free_at + delay;
        if late < self.impairment.late {
            self.tally.held += 1;
            arrives = arrives + self.impairment.lateness.mul_f64(lateness as f64 / 1e6);
        }
        self.push(arrives, packet);
        if duplicate < self.impairment.duplicate {
            self.tally.repeated += 1;
            self.push(arrives + Duration::from_micros(lateness / 1000), packet);
        }
    }

    fn push(&mut self, arrives: Instant, packet: &[u8]) {
        self.number += 1;
        self.under_way.push(Reverse((arrives, self.number, packet.to_vec())));
    }

    fn poll_at(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse((arrives, ..))| *arrives)
    }

    fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        let due = self.poll_at().filter(|at| *at <= now)?;
        self.tally.tardy += u64::from(now.since(due) > TARDY);
        let Reverse((_, _, packet)) = self.under_way.pop()?;
        self.tally.carried += 1;
        Some(packet)
    }
}

/// Carries packets between two devices until it is told to stop.
pub(crate) fn carry(left: &Tun, right: &Tun, there: &mut Path, back: &mut Path, stop: &AtomicBool) {
    prctl::set_timerslack(TIMER_SLACK_NANOS).expect("a thread may ask for exact timers");
    let clock = Clock::start();
    let mut room = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        for (from, to, path) in [(left, right, &mut *there), (right, left, &mut *back)] {
            for _ in 0..BATCH {
                let Some(len) = from.receive(&mut room) else { break };
                path.on_packet(&room[..len], clock.now());
            }
            while let Some(packet) = path.poll(clock.now()) {
                to.send(&packet);
            }
        }
        let next = there.poll_at().into_iter().chain(back.poll_at()).min();
        let limit = next.map_or(WAIT_MAX, |at| at.since(clock.now()).min(WAIT_MAX));
        wait([left, right], limit);
    }
}
