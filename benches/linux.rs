//! Goodput beside Linux's CUBIC, through a bottleneck that loses and delays: our own relay between two TUN devices, the same for both.
//!
//! A cell is a share of lost packets and a round trip. In each, turn by turn, Linux sends to Linux, the engine sends to Linux, and Linux sends to the
//! engine, as fast as they can for a fixed time; goodput is what the reader has got by then, from the call that opens the connection on. The bottleneck
//! carries 100 Mbit/s and holds one bandwidth-delay product, 64 packets at least. Packets are lost at random on the way of the data only, by the same
//! dice for each of a round. Buffers on both sides are larger than any window here. The engine's packets take one hop more than Linux's.
//!
//! Where little passes, several connections run side by side, each through a relay of its own, and count with their mean.
//!
//! `cargo bench --no-default-features --bench linux`, as root, on a machine that does little else. `-- --json FILE` writes the rows to a file, too;
//! `-- --rounds 3 --seconds 4 --loss 1,3 --trip 20` measures less.
#![allow(clippy::disallowed_methods, reason = "goodput is about real time")]
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a bench may panic")]

#[path = "../tests/linux/engine.rs"]
mod engine;
#[path = "../tests/linux/namespace.rs"]
mod namespace;
#[path = "../tests/linux/relay.rs"]
mod relay;
#[path = "../tests/linux/world.rs"]
mod world;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use clap::Parser;
use engine::Application;
use nix::sys::socket::{getsockopt, sockopt};
use relay::{Impairment, Path, Tally};
use sealane::base::{Duration, Flow};
use sealane::tcp::{ConnectionId, Event, Readable, Settings, Stack, Token};
use serde_json::json;
use world::{ENGINE, Family, LEFT, World, address};

const LOSSES: [f64; 4] = [0.0, 0.1, 1.0, 3.0];
const TRIPS: [u64; 3] = [1, 20, 100];
const RATE: u64 = 100_000_000;
const QUEUE_MIN: u64 = 64 * 1500;
const PORT: u16 = 5001;
/// Of the engine, each way. Linux's grow to the same.
const BUFFER: usize = 16 << 20;
const CHUNK: usize = 256 << 10;
/// Above this share of packets that the relay sent on late, the machine was too busy for the figures to mean anything.
const TARDY_MAX: f64 = 0.01;

/// Who sends to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pair {
    LinuxToLinux,
    EngineToLinux,
    LinuxToEngine,
}

const PAIRS: [Pair; 3] = [Pair::LinuxToLinux, Pair::EngineToLinux, Pair::LinuxToEngine];

#[derive(Clone, Copy, Debug)]
struct Cell {
    /// In millionths.
    loss: u64,
    /// In milliseconds.
    trip: u64,
}

impl Cell {
    fn queue(self) -> u64 {
        (RATE / 8 * self.trip / 1000).max(QUEUE_MIN)
    }

    /// Connections side by side.
    fn worlds(self) -> u64 {
        match (self.loss, self.trip) {
            (0, _) | (_, 1) | (1_000, 20) => 1,
            _ => 4,
        }
    }
}

/// What is measured.
#[derive(Clone, Debug, Parser)]
struct Order {
    /// How often each pair has its turn.
    #[arg(long, default_value_t = 7)]
    rounds: u64,
    /// How long a transfer takes.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Per cent of packets lost, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = LOSSES)]
    loss: Vec<f64>,
    /// Milliseconds of a round trip, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = TRIPS)]
    trip: Vec<u64>,
    /// Also writes the rows to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    namespace::become_root().expect("network namespaces need root, or user namespaces");
    let order = Order::parse();
    let mut rows = Vec::new();
    let mut tardy = (0, 0);
    println!("| lost | round trip | Linux to Linux | engine to Linux | ratio | Linux to engine | ratio |");
    println!("| --: | --: | --: | --: | --: | --: | --: |");
    for loss in &order.loss {
        let cells: Vec<_> = order.trip.iter().map(|trip| Cell { loss: millionths(*loss), trip: *trip }).collect();
        // By cell, then pair, then round.
        let mut goodputs = vec![[const { Vec::new() }; 3]; cells.len()];
        for round in 0..order.rounds {
            for (at, pair) in PAIRS.into_iter().enumerate() {
                let measured = side_by_side(&cells, pair, order.seconds, round);
                for (goodputs, (goodput, tally)) in goodputs.iter_mut().zip(measured) {
                    goodputs[at].push(goodput);
                    tardy = (tardy.0 + tally.tardy, tardy.1 + tally.carried);
                }
            }
        }
        for (cell, goodputs) in cells.iter().zip(goodputs) {
            rows.extend(report(*cell, goodputs, order.rounds));
        }
    }
    let share = tardy.0 as f64 / tardy.1.max(1) as f64;
    println!(
        "\nMbit/s, medians of {} rounds of {} s; {:.2} % of packets left the relay late",
        order.rounds,
        order.seconds,
        share * 100.0
    );
    if share > TARDY_MAX {
        println!("The machine was too busy: measure again.");
    }
    if let Some(path) = order.json {
        std::fs::write(&path, serde_json::to_string_pretty(&rows).unwrap() + "\n").expect("the file can be written");
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 100")]
fn millionths(per_cent: f64) -> u64 {
    (per_cent * 10_000.0).round() as u64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// Prints a cell's line of the table and gives its rows.
fn report(cell: Cell, goodputs: [Vec<f64>; 3], rounds: u64) -> Vec<serde_json::Value> {
    let [linux, sends, receives] = goodputs.map(median);
    let loss = cell.loss as f64 / 10_000.0;
    println!(
        "| {loss} % | {} ms | {linux:.1} | {sends:.1} | {:.2} | {receives:.1} | {:.2} |",
        cell.trip,
        sends / linux,
        receives / linux
    );
    [("engine to Linux", sends), ("Linux to engine", receives)]
        .into_iter()
        .map(|(name, value)| {
            let name = format!("{name}, {loss} % lost, {} ms", cell.trip);
            json!({ "name": name, "value": value, "unit": "Mbit/s", "against": linux, "ratio": value / linux, "rounds": rounds })
        })
        .collect()
}

/// Measures these cells at once. Gives the mean goodput of each, and what its relays have done.
fn side_by_side(cells: &[Cell], pair: Pair, seconds: u64, round: u64) -> Vec<(f64, Tally)> {
    let one = |cell: Cell, number: u64| {
        let world = World::new();
        let seed = (round << 32) | (cell.loss << 8) | (cell.trip << 4) | number;
        move || transfer(&world, cell, pair, Duration::from_secs(seconds), seed)
    };
    // All worlds first, so that making one disturbs no transfer.
    let runs: Vec<Vec<_>> =
        cells.iter().map(|cell| (0..cell.worlds()).map(|number| one(*cell, number)).collect()).collect();
    thread::scope(|scope| {
        let threads: Vec<Vec<_>> =
            runs.into_iter().map(|runs| runs.into_iter().map(|run| scope.spawn(run)).collect()).collect();
        let mean = |threads: Vec<thread::ScopedJoinHandle<'_, (f64, Tally)>>| {
            let count = threads.len() as f64;
            threads.into_iter().map(|thread| thread.join().unwrap()).fold((0.0, Tally::default()), |sum, one| {
                let tally = Tally { carried: sum.1.carried + one.1.carried, tardy: sum.1.tardy + one.1.tardy, ..sum.1 };
                (sum.0 + one.0 / count, tally)
            })
        };
        threads.into_iter().map(mean).collect()
    })
}

/// One transfer. Gives goodput in Mbit/s.
fn transfer(world: &World, cell: Cell, pair: Pair, time: Duration, seed: u64) -> (f64, Tally) {
    let clean =
        Impairment { rate: RATE, queue: cell.queue(), ..Impairment::delay(Duration::from_micros(cell.trip * 500)) };
    let lossy = Impairment { loss: cell.loss, ..clean };
    let (mut data, mut acks) = (Path::new(lossy, seed), Path::new(clean, seed));
    let (there, back) = if pair == Pair::LinuxToEngine { (&mut acks, &mut data) } else { (&mut data, &mut acks) };
    let bytes = world.during(there, back, || {
        let until = Instant::now() + time;
        let settings = Settings { send_buffer: BUFFER, receive_buffer: BUFFER, ..Settings::default() };
        let (ready, is_ready) = mpsc::channel();
        let mut bulk = Bulk::new(pair, until, ready);
        thread::scope(|scope| {
            let receiver = (pair != Pair::LinuxToEngine).then(|| {
                let listener = world.left.enter(|| TcpListener::bind((address(LEFT, Family::Ipv4), PORT)).unwrap());
                scope.spawn(move || linux_receives(&listener, until))
            });
            match pair {
                Pair::LinuxToLinux => {
                    world.right.enter(|| linux_sends((address(LEFT, Family::Ipv4), PORT).into(), until))
                }
                Pair::EngineToLinux => drop(engine::run(settings, seed, &world.engine, &mut bulk)),
                Pair::LinuxToEngine => {
                    let sender = move || {
                        is_ready.recv().expect("the engine listens in its first turn");
                        world.left.enter(|| linux_sends((address(ENGINE, Family::Ipv4), PORT).into(), until));
                    };
                    scope.spawn(sender);
                    drop(engine::run(settings, seed, &world.engine, &mut bulk));
                }
            }
            receiver.map_or(bulk.received, |receiver| receiver.join().unwrap())
        })
    });
    let tally = Tally {
        carried: data.tally.carried + acks.tally.carried,
        tardy: data.tally.tardy + acks.tally.tardy,
        ..data.tally
    };
    (bytes as f64 * 8.0 / 1e6 / time.as_secs_f64(), tally)
}

/// Sends as much as the connection takes.
fn linux_sends(to: SocketAddr, until: Instant) {
    let mut stream = TcpStream::connect(to).expect("the other end listens");
    let congestion = getsockopt(&stream, sockopt::TcpCongestion).expect("a connection has one");
    assert_eq!(congestion.to_string_lossy().trim_end_matches('\0'), "cubic");
    let chunk = vec![0; CHUNK];
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        stream.set_write_timeout(Some(left)).expect("a time that is not zero");
        if let Err(why) = stream.write(&chunk) {
            assert!(is_late(&why), "{why}");
        }
    }
}

fn linux_receives(listener: &TcpListener, until: Instant) -> u64 {
    let (mut stream, _) = listener.accept().expect("the other end connects");
    let (mut bytes, mut room) = (0, vec![0; CHUNK]);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        stream.set_read_timeout(Some(left)).expect("a time that is not zero");
        match stream.read(&mut room) {
            Ok(0) => break,
            Ok(len) => bytes += len as u64,
            Err(why) => assert!(is_late(&why), "{why}"),
        }
    }
    bytes
}

fn is_late(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The engine's end of a transfer.
struct Bulk {
    sends: bool,
    until: Instant,
    id: Option<ConnectionId>,
    chunk: Vec<u8>,
    received: u64,
    /// Told once the engine listens.
    ready: mpsc::Sender<()>,
}

impl Bulk {
    fn new(pair: Pair, until: Instant, ready: mpsc::Sender<()>) -> Self {
        Self { sends: pair == Pair::EngineToLinux, until, id: None, chunk: vec![0; CHUNK], received: 0, ready }
    }
}

impl Application for Bulk {
    fn on_event(&mut self, stack: &mut Stack, id: ConnectionId, _: Token, event: Event, now: sealane::base::Instant) {
        assert!(!matches!(event, Event::Closed(_)), "{event:?}");
        while let Readable::Data(bytes) = stack.readable(id) {
            let len = bytes.len();
            self.received += len as u64;
            stack.consume(id, len, now);
        }
    }

    fn on_turn(&mut self, stack: &mut Stack, now: sealane::base::Instant) -> bool {
        let local = SocketAddr::new(address(ENGINE, Family::Ipv4), PORT);
        match self.id {
            None if self.sends => {
                let flow = Flow::new(local, SocketAddr::new(address(LEFT, Family::Ipv4), PORT));
                self.id = Some(stack.connect(flow, Token::default(), now).expect("the table is empty"));
            }
            Some(id) => while stack.writable(id) >= CHUNK && stack.write(id, &self.chunk, now) > 0 {},
            None if stack.listen(local, Token::default()).is_ok() => drop(self.ready.send(())),
            None => {}
        }
        Instant::now() < self.until
    }
}
