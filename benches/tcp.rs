//! What the TCP engine alone costs: each segment, each connection opened and closed, with few and with a million connections in the table.
//!
//! One stack is the server of all connections; the other ends are 16 bytes each here. Segments are made beforehand, parsed, a few bursts at a time,
//! from those 16 bytes: neither making nor parsing them is timed, only the stack's calls are, in CPU time of the thread, less what reading the clock
//! costs. A burst is 32 segments of different connections, as a NIC gives them.
//!
//! Each operation does the same work whatever the size of the table: a phase takes the next connections of a random order, each once; each receives a
//! segment, which is read; then time passes and each sends the delayed acknowledgement; then each writes a segment's data and sends it; then each takes the
//! acknowledgement. The order is one of all connections, of which 16,384 are under way together ("all, 16 k"), more than a table of 1,000 can have; or
//! 1,000 ("all, 1 k"), as in a table of 1,000, so that only the table differs; or it is one of 1,000 that lie scattered in the table while the others are
//! idle ("some, 1 k"). Sizes take turns within a round; a figure is nanoseconds an operation, as median and best over the rounds, and ratios are those of
//! the same round.
//!
//! Under attack are measured, beside 1,000 connections at rest: an attacker's segments, each of a flow of its own, taken and answered.
//!
//! Bytes an idle connection are the growth of this process's resident memory, all tables and free memory of the allocator included.
//!
//! Last, with 1,000 connections, what tracing adds: none traced, one in 64 as by default, and all, in turns within a round.
//!
//! `cargo bench --no-default-features --bench tcp`; `-- --rounds 1 --sizes 1000` measures less, `-- --attack` or `-- --trace` one of the last two alone.

#![expect(clippy::indexing_slicing, reason = "every index is a connection, a size or a round that this file has made")]

#[path = "common/cpu.rs"]
mod cpu;

use std::sync::Arc;

use clap::Parser;
use sealane::base::{Duration, Flow, Instant, Random};
use sealane::tcp::trace::{self, Trace};
use sealane::tcp::{ConnectionId, Counters, Event, Readable, Settings, Stack, Token};
use sealane::wire::{Ecn, Flags, Segment, SegmentOptions, Seq, Timestamp};

use cpu::cpu;

/// What is measured.
#[derive(Parser)]
struct Arguments {
    /// How often each size has its turn.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Connections in the table; ratios are those of the last size to the one of 1,000, or to the first.
    #[arg(long, value_delimiter = ',', default_value = "1,1000,100000,1000000")]
    sizes: Vec<usize>,
    /// Only what an attack costs.
    #[arg(long)]
    attack: bool,
    /// Only what tracing adds.
    #[arg(long)]
    trace: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Connections that are busy while all others are idle.
const SOME: usize = 1_000;
/// Segments of a burst, and bursts that are made at once.
const BURST: usize = 32;
const BURSTS: usize = 4;
/// Most connections of a phase: what a busy lane has under way within a round trip.
const PHASE_MAX: usize = 16_384;
/// Operations of a measurement.
const OPERATIONS: usize = 32_768;
/// Connections that a measurement opens and closes.
const OPENED: usize = 8_192;
/// Bytes of data in a small segment and a full one.
const PAYLOADS: [usize; 2] = [128, 1448];

const FULL: usize = 1448;
const OPERATION_NAMES: [&str; 5] = ["received", "delayed ack", "sent", "ack received", "opened+closed"];
const LOCAL: ([u8; 4], u16) = ([198, 18, 0, 1], 443);
static DATA: [u8; FULL] = [0x5a; FULL];

/// What reading the clock costs.
fn clock_cost() -> u64 {
    (0..1000).map(|_| cpu()).map(|began| cpu() - began).min().expect("it was read")
}

/// Bytes of memory that this process has in use.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("there is /proc");
    let pages =
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("its second field is a number");
    pages * 4096
}

/// The other end of a connection.
#[derive(Clone, Copy)]
struct Peer {
    id: Option<ConnectionId>,
    /// What it sends next and what it has received.
    seq: Seq,
    ack: Seq,
}

fn flow(number: usize) -> Flow {
    flow_to(LOCAL, number)
}

fn flow_to(local: ([u8; 4], u16), number: usize) -> Flow {
    let [.., a, b, c] = (number / 50_000).to_be_bytes();
    let port = u16::try_from(1024 + number % 50_000).expect("a port");
    Flow::new(local.into(), ([198, 19 ^ a, b, c], port).into())
}

/// Time spent, and on how many operations.
#[derive(Clone, Copy, Default)]
struct Spent {
    nanos: u64,
    count: usize,
}

impl Spent {
    fn each(self) -> f64 {
        self.nanos as f64 / self.count.max(1) as f64
    }
}

struct Bench {
    stack: Stack,
    counters: Arc<Counters>,
    peers: Vec<Peer>,
    orders: [Order; 3],
    now: Instant,
    clock: u64,
    opened: usize,
    room: [u8; 1514],
    payload: usize,
}

/// The engine's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whose turn it is: connections, the one before the next, and how many are under way together.
#[derive(Clone)]
struct Order {
    connections: Vec<u32>,
    next: usize,
    phase: usize,
}

const ORDERS: [&str; 3] = ["all, 16 k", "all, 1 k", "some, 1 k"];

type Received = (Flow, Segment<'static>);

/// Segments and whose they are.
struct Batch {
    peers: Vec<usize>,
    segments: Vec<Received>,
}

impl Bench {
    fn new(size: usize, clock: u64) -> Self {
        Self::with(Settings::default(), size, clock)
    }

    fn with(settings: Settings, size: usize, clock: u64) -> Self {
        let settings = Settings {
            connections_max: size + OPENED,
            memory_max: 16 << 30,
            send_buffer: 1 << 20,
            receive_buffer: 1 << 20,
            ..settings
        };
        let counters = Arc::new(Counters::default());
        let mut random = Random::from_seed(size as u64);
        let mut stack = Stack::new(settings, random.fork(), counters.clone());
        stack.listen(LOCAL.into(), Token(0)).expect("nobody listens yet");
        // Filled with something, or the kernel would give these pages later.
        let peers = vec![Peer { id: None, seq: Seq(1), ack: Seq(1) }; size + OPENED];
        let mut all: Vec<u32> = (0..u32::try_from(size).expect("a few million")).collect();
        for place in (1..size).rev() {
            all.swap(place, usize::try_from(random.below(place as u64 + 1)).expect("below"));
        }
        let some = all.iter().copied().take(SOME).collect();
        let now = Instant::START + Duration::from_secs(1);
        let each = Order { connections: all.clone(), next: 0, phase: SOME.min(size) };
        let orders = [
            Order { phase: PHASE_MAX.min(size), ..each.clone() },
            each,
            Order { connections: some, next: 0, phase: SOME.min(size) },
        ];
        Self { stack, counters, peers, orders, now, clock, opened: 0, room: [0; 1514], payload: FULL }
    }

    fn timestamp(&self) -> Option<Timestamp> {
        let value = u32::try_from((self.now.as_nanos() / 1_000_000) & 0xffff_ffff).expect("masked");
        // An echo of zero says nothing about the round trip.
        Some(Timestamp { value, echo: 0 })
    }

    fn segment(&self, peer: usize, flags: Flags, payload: &'static [u8]) -> Received {
        let Peer { seq, ack, .. } = self.peers[peer];
        let mut options = SegmentOptions { timestamp: self.timestamp(), ..SegmentOptions::default() };
        let syn = flags.syn;
        if syn {
            options = SegmentOptions { mss: Some(1460), window_scale: Some(8), sack_permitted: true, ..options };
        }
        let ack = (!syn).then_some(ack);
        (flow(peer), Segment { seq, ack, flags, window: 60_000, options, ecn: Ecn::NotEct, payload })
    }

    fn burst(&self, peers: impl Iterator<Item = usize>, flags: Flags) -> Vec<Received> {
        peers.map(|peer| self.segment(peer, flags, &[])).collect()
    }

    /// The next connections of an order, made into segments.
    fn batch(&mut self, order: usize, len: usize, payload: &'static [u8]) -> Batch {
        let Order { connections: order, next, .. } = &mut self.orders[order];
        let peers: Vec<usize> = (0..len)
            .map(|_| {
                *next = (*next + 1) % order.len();
                order[*next] as usize
            })
            .collect();
        let segments = peers.iter().map(|peer| self.segment(*peer, Flags::default(), payload)).collect();
        Batch { peers, segments }
    }

    fn timed<T>(&mut self, spent: &mut Spent, count: usize, work: impl FnOnce(&mut Self) -> T) -> T {
        let began = cpu();
        let result = work(self);
        spent.nanos += (cpu() - began).saturating_sub(self.clock);
        spent.count += count;
        result
    }

    fn receive(&mut self, burst: &[Received]) {
        self.stack.on_segments(burst, self.now);
    }

    /// Reads what has come. Gives how many bytes that was.
    fn read(&mut self) -> usize {
        let mut read = 0;
        while let Some((id, _, event)) = self.stack.poll_event() {
            if event == Event::Readable {
                while let Readable::Data(data) = self.stack.readable(id) {
                    let len = data.len();
                    read += len;
                    self.stack.consume(id, len, self.now);
                }
            }
        }
        read
    }

    fn transmit(&mut self) -> usize {
        std::iter::from_fn(|| self.stack.poll_transmit(&mut self.room, true, self.now)).count()
    }

    /// Every connection of a phase takes one segment and gives one: the four operations of a segment.
    fn phase(&mut self, order: usize, spent: &mut [Spent; 4]) {
        let payload = &DATA[..self.payload];
        let Order { phase: len, next: begin, .. } = self.orders[order];
        let [received, delayed, sent, acknowledged] = spent;
        self.each_batch(order, len, payload, |bench, batch| {
            let read = bench.timed(received, batch.peers.len(), |bench| {
                batch.segments.chunks(BURST).map(|burst| (bench.receive(burst), bench.read()).1).sum::<usize>()
            });
            assert_eq!(read, batch.peers.len() * payload.len());
            for peer in &batch.peers {
                bench.peers[*peer].seq = bench.peers[*peer].seq + length(payload);
            }
        });
        // Three times as long as an acknowledgement is held back.
        for _ in 0..3 {
            self.now = self.now + Duration::from_millis(40);
            let count = self.timed(delayed, 0, |bench| {
                let mut count = 0;
                while bench.stack.poll_at().is_some_and(|at| at <= bench.now) {
                    bench.stack.on_timeout(bench.now);
                    count += bench.transmit();
                }
                count
            });
            delayed.count += count;
        }
        self.orders[order].next = begin;
        self.each_batch(order, len, &[], |bench, batch| {
            let ids: Vec<ConnectionId> =
                batch.peers.iter().map(|peer| bench.peers[*peer].id.expect("it is open")).collect();
            let count = bench.timed(sent, ids.len(), |bench| {
                let bursts = ids.chunks(BURST).map(|burst| {
                    bench.stack.look_ahead(burst.iter().copied());
                    for id in burst {
                        assert_eq!(bench.stack.write(*id, payload, bench.now), payload.len());
                    }
                    bench.transmit()
                });
                bursts.sum::<usize>()
            });
            assert_eq!(count, ids.len());
            for peer in &batch.peers {
                bench.peers[*peer].ack = bench.peers[*peer].ack + length(payload);
            }
        });
        self.orders[order].next = begin;
        // The round trip.
        self.now = self.now + Duration::from_millis(1);
        self.each_batch(order, len, &[], |bench, batch| {
            bench.timed(acknowledged, batch.peers.len(), |bench| {
                for burst in batch.segments.chunks(BURST) {
                    bench.receive(burst);
                    assert_eq!((bench.read(), bench.transmit()), (0, 0));
                }
            });
        });
        assert_eq!(self.counters.buffered_bytes.value(), 0);
    }

    fn each_batch(
        &mut self,
        order: usize,
        len: usize,
        payload: &'static [u8],
        mut work: impl FnMut(&mut Self, &Batch),
    ) {
        for done in (0..len).step_by(BURST * BURSTS) {
            let batch = self.batch(order, (len - done).min(BURST * BURSTS), payload);
            work(self, &batch);
        }
    }

    /// Nanoseconds of each operation on a segment.
    fn segments(&mut self, order: usize, payload: usize) -> [f64; 4] {
        self.payload = payload;
        let len = self.orders[order].phase;
        // Once for the caches and predictors.
        self.phase(order, &mut [Spent::default(); 4]);
        let mut spent = [Spent::default(); 4];
        for _ in 0..(OPERATIONS / len).clamp(1, 2_000) {
            self.phase(order, &mut spent);
        }
        spent.map(Spent::each)
    }

    /// Opens connections up to `until`, a burst at a time.
    fn open(&mut self, until: usize, spent: &mut Spent) {
        while self.opened < until {
            let peers = self.opened..(self.opened + BURST).min(until);
            let syn = Flags { syn: true, ..Flags::default() };
            let burst = self.burst(peers.clone(), syn);
            self.timed(spent, burst.len(), |bench| bench.receive(&burst));
            for peer in peers.clone() {
                let mut room = self.room;
                let len = self.timed(spent, 0, |bench| bench.stack.poll_transmit(&mut room, true, bench.now));
                assert_eq!(len, Some(60), "SYN,ACK with its options");
                let iss = u32::from_be_bytes([room[24], room[25], room[26], room[27]]);
                self.peers[peer].ack = Seq(iss) + 1;
                self.peers[peer].seq = self.peers[peer].seq + 1;
            }
            let burst = self.burst(peers.clone(), Flags::default());
            self.timed(spent, 0, |bench| bench.receive(&burst));
            for peer in peers {
                let event = self.timed(spent, 0, |bench| bench.stack.poll_event());
                let Some((id, _, Event::Accepted)) = event else { panic!("it is not open") };
                self.peers[peer].id = Some(id);
            }
            self.opened = until.min(self.opened + BURST);
        }
    }

    /// Nanoseconds to open a connection and close it, the peer first.
    fn opened_and_closed(&mut self) -> f64 {
        let mut spent = Spent::default();
        let stay = self.opened;
        self.open(stay + OPENED, &mut spent);
        let peers: Vec<usize> = (stay..self.opened).collect();
        for peers in peers.chunks(BURST) {
            let fin = Flags { fin: true, ..Flags::default() };
            let burst = self.burst(peers.iter().copied(), fin);
            self.timed(&mut spent, 0, |bench| {
                bench.receive(&burst);
                while let Some((id, _, event)) = bench.stack.poll_event() {
                    assert_eq!((event, bench.stack.readable(id)), (Event::Readable, Readable::Finished));
                    bench.stack.shutdown(id, bench.now);
                }
                assert_eq!(bench.transmit(), peers.len());
            });
            for peer in peers {
                let Peer { seq, ack, .. } = self.peers[*peer];
                (self.peers[*peer].seq, self.peers[*peer].ack) = (seq + 1, ack + 1);
            }
            let burst = self.burst(peers.iter().copied(), Flags::default());
            let closed = self.timed(&mut spent, 0, |bench| {
                bench.receive(&burst);
                std::iter::from_fn(|| bench.stack.poll_event())
                    .filter(|event| matches!(event.2, Event::Closed(_)))
                    .count()
            });
            assert_eq!(closed, peers.len());
        }
        self.opened = stay;
        self.now = self.now + Duration::from_secs(1);
        while self.stack.poll_at().is_some_and(|at| at <= self.now) {
            self.stack.on_timeout(self.now);
        }
        spent.each()
    }
}

/// What one kind of an attacker's segments costs.
struct Attack {
    name: &'static str,
    local: ([u8; 4], u16),
    syn: bool,
    /// The first flow, which says whose the source is: the connections have those from 0 on.
    from: usize,
    /// Whether there is an answer.
    answered: bool,
}

const ATTACKS: [Attack; 4] = [
    Attack { name: "SYN, answered by a cookie", local: LOCAL, syn: true, from: 1_000_000, answered: true },
    Attack { name: "SYN, its source has enough", local: LOCAL, syn: true, from: SOME, answered: false },
    Attack { name: "ACK, no cookie", local: LOCAL, syn: false, from: 1_000_000, answered: false },
    Attack { name: "ACK, to a closed port", local: CLOSED, syn: false, from: 1_000_000, answered: false },
];
const CLOSED: ([u8; 4], u16) = ([198, 18, 0, 1], 81);

/// Nanoseconds for each kind of an attacker's segments, by round.
fn attacked(rounds: usize, clock: u64) -> Vec<Vec<Vec<f64>>> {
    let settings = Settings {
        half_open_max: BURST,
        source_connections_max: Some(u32::try_from(SOME).expect("a thousand")),
        resets_per_second: 0,
        ..Settings::default()
    };
    let mut bench = Bench::with(settings, SOME, clock);
    bench.open(SOME, &mut Spent::default());
    let measure = |bench: &mut Bench, attack: &Attack, count: usize| {
        let mut spent = Spent::default();
        for first in (0..count).step_by(BURST) {
            let flags = Flags { syn: attack.syn, ..Flags::default() };
            let flows = (first..first + BURST).map(|number| attack.from + number % 48_000);
            let burst: Vec<_> =
                flows.map(|number| (flow_to(attack.local, number), bench.segment(0, flags, &[]).1)).collect();
            let sent = bench.timed(&mut spent, BURST, |bench| (bench.receive(&burst), bench.transmit()).1);
            assert_eq!(sent, if attack.answered { BURST } else { 0 }, "{}", attack.name);
        }
        spent.each()
    };
    // The first burst finds a place in the table of handshakes.
    for attack in &ATTACKS {
        measure(&mut bench, attack, if attack.answered { BURST } else { 0 });
    }
    let rounds = |bench: &mut Bench, attack| (0..rounds).map(|_| vec![measure(bench, attack, OPERATIONS)]).collect();
    ATTACKS.iter().map(|attack| rounds(&mut bench, attack)).collect()
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a segment's")
}

/// Opens all connections of a bench, one by one where `watch` says so. Tells what that took.
fn fill(size: usize, clock: u64) -> Bench {
    let mut bench = Bench::new(size, clock);
    let before = resident();
    let (mut worst, mut sum) = (0, Spent::default());
    for number in 1..=size {
        let mut spent = Spent::default();
        bench.open(number, &mut spent);
        worst = worst.max(spent.nanos);
        (sum.nanos, sum.count) = (sum.nanos + spent.nanos, sum.count + 1);
    }
    let fresh = resident() - before;
    let mut ignored = [Spent::default(); 4];
    bench.payload = FULL;
    for _ in 0..size.div_ceil(PHASE_MAX) {
        bench.phase(0, &mut ignored);
    }
    let used = resident() - before;
    if size >= SOME {
        println!(
            "  {size:9} idle connections: {} bytes each when just opened, {} after a segment each way; opening one took {:.0} ns, {:.0} µs at worst",
            fresh / size,
            used / size,
            sum.each(),
            worst as f64 / 1000.0
        );
    }
    bench
}

/// Median and least of what `of` makes of each round.
fn median_and_best(rounds: &[Vec<f64>], of: impl Fn(&[f64]) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = rounds.iter().map(|round| of(round)).collect();
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0])
}

/// One line: what each size costs, and the ratio of the last to the one in place `base`.
fn line(name: &str, base: usize, rounds: &[Vec<f64>]) {
    let last = rounds[0].len() - 1;
    let costs = (0..=last).map(|size| median_and_best(rounds, |round| round[size]));
    let costs: String = costs.map(|(median, best)| format!("{median:7.0} {best:6.0}")).collect();
    let (ratio, best) = median_and_best(rounds, |round| round[last] / round[base]);
    println!("  {name:32}{costs}   {ratio:6.2} {best:6.2}");
}

/// What tracing costs a segment.
fn tracing(rounds: usize, clock: u64) {
    /// One connection in so many.
    const SAMPLES: [u32; 3] = [0, 64, 1];

    let mut bench = fill(SOME, clock);
    let trace = Arc::new(Trace::new(trace::Settings::default(), 0));
    bench.stack.trace_into(Arc::clone(&trace));
    let mut segments = vec![Vec::new(); PAYLOADS.len() * 4];
    for _ in 0..rounds {
        let mut round = vec![vec![0.0; SAMPLES.len()]; PAYLOADS.len() * 4];
        for (sample, one_in) in SAMPLES.into_iter().enumerate() {
            trace.sample(one_in);
            for (place, payload) in PAYLOADS.into_iter().enumerate() {
                for (operation, figure) in bench.segments(0, payload).into_iter().enumerate() {
                    round[place * 4 + operation][sample] = figure;
                }
            }
        }
        for (rounds, round) in segments.iter_mut().zip(round) {
            rounds.push(round);
        }
    }
    println!("  nanoseconds each, one connection traced in {SAMPLES:?}; and the last two over the first");
    for (place, payload) in PAYLOADS.iter().enumerate() {
        for operation in 0..4 {
            let rounds = &segments[place * 4 + operation];
            let costs: String = (0..SAMPLES.len())
                .map(|sample| median_and_best(rounds, |round| round[sample]))
                .map(|(median, best)| format!("{median:7.0} {best:6.0}"))
                .collect();
            let over = |sample: usize| median_and_best(rounds, |round| round[sample] / round[0]).0;
            println!(
                "  traced: {:24}{costs}   {:6.2} {:6.2}",
                format!("{} {payload} B", OPERATION_NAMES[operation]),
                over(1),
                over(2)
            );
        }
    }
}

fn main() {
    let arguments = Arguments::parse();
    let clock = clock_cost();
    println!("{} rounds, median and best; reading the clock costs {clock} ns, which is taken off", arguments.rounds);
    let Arguments { attack, trace, .. } = arguments;
    if !attack && !trace {
        sizes(&arguments, clock);
    }
    if attack || !trace {
        show_attacks(arguments.rounds, clock);
    }
    if trace || !attack {
        tracing(arguments.rounds, clock);
    }
}

fn sizes(arguments: &Arguments, clock: u64) {
    let (rounds, sizes) = (arguments.rounds, &arguments.sizes);
    let mut benches: Vec<Bench> = sizes.iter().map(|size| fill(*size, clock)).collect();
    let base = sizes.iter().position(|size| *size == SOME).unwrap_or(0);
    // By what is done, round and size.
    let mut segments = vec![vec![vec![0.0; sizes.len()]; rounds]; ORDERS.len() * PAYLOADS.len() * 4];
    let mut opened = vec![vec![0.0; sizes.len()]; rounds];
    for round in 0..rounds {
        for (size, bench) in benches.iter_mut().enumerate() {
            for order in 0..ORDERS.len() {
                for (place, payload) in PAYLOADS.into_iter().enumerate() {
                    let figures = bench.segments(order, payload);
                    for (operation, figure) in figures.into_iter().enumerate() {
                        segments[(order * PAYLOADS.len() + place) * 4 + operation][round][size] = figure;
                    }
                }
            }
            opened[round][size] = bench.opened_and_closed();
        }
    }
    let heads: String = sizes.iter().map(|size| format!("{size:14}")).collect();
    println!("  nanoseconds each{:16}{heads}   last / {}", "", sizes[base]);
    for (order, who) in ORDERS.iter().enumerate() {
        for (place, payload) in PAYLOADS.iter().enumerate() {
            for operation in 0..4 {
                let name = format!("{who}: {} {payload} B", OPERATION_NAMES[operation]);
                line(&name, base, &segments[(order * PAYLOADS.len() + place) * 4 + operation]);
            }
        }
    }
    line(OPERATION_NAMES[4], base, &opened);
}

fn show_attacks(rounds: usize, clock: u64) {
    println!("  nanoseconds each, under attack");
    for (attack, rounds) in ATTACKS.iter().zip(attacked(rounds, clock)) {
        let (median, best) = median_and_best(&rounds, |round| round[0]);
        println!("  {:32}{median:7.0} {best:6.0}", attack.name);
    }
}
