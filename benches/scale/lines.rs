//! Which cache lines two lanes of an engine both touch, and one of them writes: found by tracing every load and store under valgrind.
//!
//! The program runs itself under `valgrind --tool=lackey --trace-mem=yes`. There a thread a lane takes turns with the other one: so many breaths of the one, so
//! many of the other. Lackey does not say which thread an access is of, so a store to a known place says whose breath begins, and another one that it is over;
//! between breaths nothing is counted. That is right however the machine schedules them, because valgrind runs one thread at a time, and the other one is
//! blocked by then: before its first breath a turn yields so often that valgrind's lock, which is fair here, has long let the other thread come to rest.
//! It takes minutes, most of them for what aws-lc does to find randomness.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStderr, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use clap::ValueEnum;
use crossbeam::utils::CachePadded;
use sealane::base::Duration;
use sealane::sim;
use sealane::sim::clock::Clock;

use crate::lanes::{Arrival, Parts, engine};
use crate::{HANDSHAKES, Handshake};

/// A cache line, as a power of two.
const LINE: u32 = 6;

/// Clients of each lane.
const CLIENTS: usize = 2;

/// Breaths that a lane takes in a row.
const BREATHS: u32 = 16;

/// Of so many times nothing is counted: buffers, tables and neighbours come to what they are in the steady path.
const WARM_UP: u32 = 3;

/// So many times are counted.
const STEADY: u32 = 3;

/// Handshakes that a lane must have come to in the steady part, or the trace says nothing.
const HANDSHAKES_MIN: u64 = 3;

/// Yields before the first breath in a row.
const YIELDS: u32 = 16;

/// What a breath takes.
const TURN: Duration = Duration::from_micros(300);

/// What stores to these say, by index: a breath of lane 0 begins, one of lane 1 does, a breath is over.
static MARKS: [CachePadded<AtomicU64>; 3] = [const { CachePadded::new(AtomicU64::new(0)) }; 3];
const OVER: usize = 2;

fn mark(index: usize) {
    if let Some(mark) = MARKS.get(index) {
        mark.fetch_add(1, Ordering::SeqCst);
    }
}

/// What runs under valgrind: two lanes in turn. Says where the marks are, and where the program is, before it begins.
pub(crate) fn traced(identity: &sim::Identity, handshake: &str, arrival: Arrival) {
    let handshake = HANDSHAKES.into_iter().find(|one| one.name == handshake).expect("there is such a handshake");
    let marks: Vec<_> = MARKS.iter().map(|mark| std::ptr::from_ref(&**mark).addr().to_string()).collect();
    println!("{} {}", program_begins(), marks.join(" "));
    let parts = engine(identity, 2, arrival);
    let handles: Vec<_> = parts.iter().map(Parts::handle).collect();
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..)
            .zip(parts)
            .map(|(number, parts)| {
                let (go, gone) = mpsc::sync_channel(0);
                let (report, reported) = mpsc::sync_channel(0);
                scope.spawn(move || take_turns(parts, handshake, number, &gone, &report));
                (go, reported)
            })
            .collect();
        let mut done = [0, 0];
        for time in 0..WARM_UP + STEADY {
            for ((go, reported), done) in lanes.iter().zip(&mut done) {
                go.send(time >= WARM_UP).expect("the lane is there");
                *done += reported.recv().expect("the lane is there");
            }
        }
        assert!(done.iter().all(|done| *done >= HANDSHAKES_MIN), "too few handshakes: {done:?}");
        let steered: u64 = handles.iter().map(|handle| handle.counters.lane.frames_handed_over.value()).sum();
        assert_eq!(steered > 0, arrival == Arrival::Any, "{steered} frames were handed over");
    });
}

/// Where this program has been loaded.
fn program_begins() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the kernel shows them");
    let program = std::env::current_exe().expect("it has a path");
    let line = maps.lines().find(|line| line.ends_with(&*program.to_string_lossy())).expect("the program is mapped");
    let begin = line.split('-').next().and_then(|begin| u64::from_str_radix(begin, 16).ok());
    begin.expect("a line begins with an address")
}

/// A lane's thread: a few breaths each time it is told, marked if they are to be counted. Gives the handshakes of those.
fn take_turns(
    parts: Parts,
    handshake: Handshake,
    number: usize,
    gone: &mpsc::Receiver<bool>,
    report: &mpsc::SyncSender<u64>,
) {
    let clock = Clock::default();
    let mut bench = parts.start(handshake, CLIENTS, clock.clone());
    while let Ok(counts) = gone.recv() {
        (0..YIELDS).for_each(|_| thread::yield_now());
        let before = bench.done();
        for _ in 0..BREATHS {
            clock.turn(clock.now() + TURN);
            bench.load();
            if counts {
                mark(number);
            }
            bench.breathe();
            if counts {
                mark(OVER);
            }
            bench.deliver();
        }
        let done = if counts { bench.done() - before } else { 0 };
        if report.send(done).is_err() {
            return;
        }
    }
}

/// What one lane did to a line: where in the program it was loaded and stored.
#[derive(Debug, Default)]
struct Touch {
    loads: BTreeSet<u64>,
    stores: BTreeSet<u64>,
}

/// All lines that lanes touched.
type Lines = HashMap<u64, [Touch; 2]>;

/// Runs itself under valgrind and says what is shared. Fails if code of ours is among what writes a line for both lanes, though nothing is handed over.
pub(crate) fn check(handshake: &str, arrival: Arrival) -> ExitCode {
    let (begins, lines) = trace(handshake, arrival);
    let shared: BTreeMap<_, _> = lines.iter().filter(|(_, touches)| is_shared(touches)).collect();
    let (mut written, mut ours) = (0, 0);
    for (line, touches) in &shared {
        let is_ours = describe(**line, touches, begins);
        if touches.iter().all(|touch| !touch.stores.is_empty()) {
            written += 1;
            ours += u32::from(is_ours);
        }
    }
    println!(
        "{handshake}, frames on {arrival:?} lane: {} lines touched, {} written by one lane and read by the other, {written} written by both, {ours} of these by our code",
        lines.len(),
        shared.len() - written
    );
    if arrival == Arrival::Right && ours > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Whether both touch it and one writes.
fn is_shared([first, second]: &[Touch; 2]) -> bool {
    let touched = |touch: &Touch| !touch.loads.is_empty() || !touch.stores.is_empty();
    touched(first) && touched(second) && !(first.stores.is_empty() && second.stores.is_empty())
}

/// Reads a pipe not more often than a few hundred times a second: valgrind writes each line by itself, and would wake an eager reader as often.
struct Seldom(ChildStderr);

impl Read for Seldom {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        thread::park_timeout(std::time::Duration::from_millis(1));
        self.0.read(buffer)
    }
}

/// Where the program was, and the lines that its lanes touched.
fn trace(handshake: &str, arrival: Arrival) -> (u64, Lines) {
    let arrives = arrival.to_possible_value().expect("clap knows it");
    let program = std::env::current_exe().expect("it has a path");
    let mut child = Command::new("valgrind")
        .args(["--tool=lackey", "--trace-mem=yes", "--basic-counts=no", "--fair-sched=yes"])
        .arg(program)
        .args(["traced", "--handshake", handshake, "--arrival", arrives.get_name()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind can be started: apt-get install valgrind binutils");
    let (trace, said) = (child.stderr.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
    // The trace fills its pipe long before the first mark.
    let addresses = thread::spawn(move || BufReader::new(said).lines().next());
    let mut lines = Lines::new();
    let mut reader = BufReader::with_capacity(1 << 20, Seldom(trace));
    let (mut line, mut addresses, mut places) = (Vec::new(), Some(addresses), None);
    let (mut at, mut lane, mut rest) = (0, None, String::new());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).expect("valgrind goes on") == 0 {
            break;
        }
        let Some((kind, address, size)) = parse(&line) else {
            rest.push_str(&String::from_utf8_lossy(&line));
            continue;
        };
        if addresses.as_ref().is_some_and(|said| said.is_finished()) {
            let said = addresses.take().and_then(|said| said.join().ok().flatten()).and_then(Result::ok);
            let numbers: Vec<u64> =
                said.iter().flat_map(|said| said.split(' ')).filter_map(|number| number.parse().ok()).collect();
            places = numbers.split_first().map(|(begins, marks)| (*begins, marks.to_vec()));
        }
        let Some((_, marks)) = &places else { continue };
        match (kind, marks.iter().position(|mark| *mark == address)) {
            (b'I', _) => at = address,
            (_, Some(index)) => lane = (index != OVER).then_some(index),
            (_, None) => {
                let Some(lane) = lane else { continue };
                for line in address >> LINE..=(address + size.max(1) - 1) >> LINE {
                    let touches = lines.entry(line).or_default();
                    let Some(touch) = touches.get_mut(lane) else { continue };
                    for (does, places) in [(kind != b'S', &mut touch.loads), (kind != b'L', &mut touch.stores)] {
                        if does {
                            places.insert(at);
                        }
                    }
                }
            }
        }
    }
    let status = child.wait().expect("it ends");
    assert!(status.success(), "{status}: {rest}");
    let (begins, _) = places.expect("the program says where it is");
    assert!(!lines.is_empty(), "no breath was seen: {rest}");
    (begins, lines)
}

/// A line of lackey's: the kind of access, its address and size.
fn parse(line: &[u8]) -> Option<(u8, u64, u64)> {
    let line = std::str::from_utf8(line).ok()?.trim_ascii();
    let kind = *line.as_bytes().first()?;
    let (address, size) = line.get(1..)?.trim_ascii_start().split_once(',')?;
    let known = matches!(kind, b'I' | b'L' | b'S' | b'M');
    known.then_some((kind, u64::from_str_radix(address, 16).ok()?, size.parse().ok()?))
}

/// Says who does what to a line, and whether code of ours writes it.
fn describe(line: u64, touches: &[Touch; 2], begins: u64) -> bool {
    let mut is_ours = false;
    println!("line {:#x}", line << LINE);
    for (lane, touch) in touches.iter().enumerate() {
        for (does, places) in [("stores", &touch.stores), ("loads", &touch.loads)] {
            for place in places {
                let name = name_of(place.wrapping_sub(begins));
                is_ours |= does == "stores" && name.contains("sealane");
                println!("  lane {lane} {does} {name}");
            }
        }
    }
    is_ours
}

/// The functions that an address of the program is in, the innermost first.
fn name_of(address: u64) -> String {
    let program = std::env::current_exe().expect("it has a path");
    let output = Command::new("addr2line")
        .args(["-C", "-f", "-i", "-s", "-e"])
        .arg(program)
        .arg(format!("{address:#x}"))
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let frames: Vec<_> = lines.chunks(2).map(|frame| frame.join(" ")).collect();
    // The C library is what else is loaded: locks of C code.
    if text.starts_with("??") { "code that is not in the program".to_owned() } else { frames.join(" < ") }
}
