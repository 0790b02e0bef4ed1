//! The engine against Linux's TCP, in both roles, through a relay of ours that loses, delays, reorders and repeats: every byte arrives, and both ends end well.
//!
//! Makes its own network namespaces, for which it needs root or user namespaces. `cargo test --test linux -- 10000 7` runs ten thousand transfers with
//! seed 7. The seed fixes the transfers and the relay's dice, but not what the kernel does in the meantime.
#![allow(clippy::disallowed_methods, reason = "the other end is Linux, and has a clock")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a test may panic")]

mod engine;
mod namespace;
mod relay;
mod transfer;
mod world;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use relay::{Impairment, Path, Tally};
use sealane::base::Duration;
use sealane::tcp::{Counters, Settings};
use transfer::{Ends, Plan, on_linux};
use world::World;

const TRANSFERS: u16 = 1000;
const SEED: u64 = 20_260_723;
/// Transfers at a time on each path.
const AT_A_TIME: usize = 12;
/// Failures after which a path tries nothing more: each may have cost a minute of waiting.
const FAILURES_MAX: usize = 3;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The paths, both directions alike.
const PATHS: [(&str, Impairment); 8] = [
    ("nothing happens", Impairment::delay(ms(1))),
    ("1 % lost", Impairment { loss: 10_000, ..Impairment::delay(ms(5)) }),
    ("5 % lost", Impairment { loss: 50_000, ..Impairment::delay(ms(2)) }),
    ("3 % lost in bursts of 4", Impairment { loss: 30_000, burst: 4, ..Impairment::delay(ms(10)) }),
    ("20 % late by up to 10 ms", Impairment { late: 200_000, lateness: ms(10), ..Impairment::delay(ms(5)) }),
    ("5 % twice", Impairment { duplicate: 50_000, ..Impairment::delay(ms(5)) }),
    ("10 Mbit/s, a queue of 20", Impairment { rate: 10_000_000, queue: 30_000, ..Impairment::delay(ms(10)) }),
    (
        "all of it",
        Impairment {
            rate: 50_000_000,
            queue: 100_000,
            delay: ms(20),
            loss: 20_000,
            burst: 2,
            duplicate: 20_000,
            late: 50_000,
            lateness: ms(30),
        },
    ),
];

fn main() -> ExitCode {
    if let Err(why) = namespace::become_root() {
        println!("linux: 0 passed; 1 failed: network namespaces need root, or user namespaces: {why}");
        return ExitCode::FAILURE;
    }
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let transfers = numbers.next().and_then(|number| u16::try_from(number).ok()).unwrap_or(TRANSFERS).min(40_000);
    let seed = numbers.next().unwrap_or(SEED);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let paths = PATHS.iter().enumerate().map(|(at, (_, impairment))| {
            let numbers = (0..transfers).filter(move |number| usize::from(*number) % PATHS.len() == at);
            let plans: Vec<_> = numbers.map(|number| Plan::new(number, seed)).collect();
            scope.spawn(move || travel(*impairment, &plans, seed + at as u64))
        });
        let threads: Vec<_> = paths.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut failed = 0;
    for ((name, _), outcome) in PATHS.iter().zip(&outcomes) {
        let verdict = if outcome.failures.is_empty() { "ok" } else { "FAILED" };
        println!("path {name:26} ... {verdict}  {outcome}");
        failed += usize::from(!outcome.failures.is_empty());
        outcome.failures.iter().for_each(|failure| println!("  {failure}"));
    }
    let bytes: usize = outcomes.iter().map(|outcome| outcome.bytes).sum();
    println!("\n{transfers} transfers of {} MiB in all, seed {seed}", bytes >> 20);
    println!("linux: {} passed; {failed} failed", PATHS.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What has become of a path's transfers.
struct Outcome {
    transfers: usize,
    bytes: usize,
    failures: Vec<String>,
    tally: [Tally; 2],
    counters: std::sync::Arc<Counters>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [there, back] = &self.tally;
        let counters = &self.counters;
        write!(
            to,
            "{} transfers, {} kB; carried {}+{}, lost {}+{}, dropped {}+{}, twice {}+{}, late {}+{}; engine sent again {}, timed out {}, probed {}",
            self.transfers,
            self.bytes / 1000,
            there.carried,
            back.carried,
            there.lost,
            back.lost,
            there.dropped,
            back.dropped,
            there.repeated,
            back.repeated,
            there.held,
            back.held,
            counters.retransmitted.value(),
            counters.retransmission_timeouts.value(),
            counters.tail_probes.value(),
        )
    }
}

/// Runs these transfers over one path, some at a time.
fn travel(impairment: Impairment, plans: &[Plan], seed: u64) -> Outcome {
    let world = World::new();
    let (mut there, mut back) = (Path::new(impairment, seed), Path::new(impairment, !seed));
    let (connect, connects) = mpsc::channel();
    let (outcome, outcomes) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut failures = Vec::new();
    // Where Linux has given up without a word, the engine finds out, too.
    let settings = Settings { keepalive: Some(ms(30_000)), ..Settings::default() };
    let counters = world.during(&mut there, &mut back, || {
        thread::scope(|scope| {
            let engine = scope.spawn(|| {
                let mut ends = Ends::new(plans, ready, connects, outcome);
                engine::run(settings, seed, &world.engine, &mut ends)
            });
            let worker = || {
                let mut failures = Vec::new();
                while failed.load(Ordering::Relaxed) < FAILURES_MAX
                    && let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let verdict = on_linux(plan, &connect);
                    if let Err(why) = verdict {
                        failures.push(format!("{plan:?}: {why}"));
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                failures
            };
            // A SYN that came before the engine's first turn would be reset.
            is_ready.recv().expect("the engine listens in its first turn");
            failures = world.left.enter(|| {
                thread::scope(|scope| {
                    let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(worker)).collect();
                    workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
                })
            });
            // Nothing more is to be opened; the engine ends when its last connection does.
            drop(connect);
            engine.join().unwrap()
        })
    });
    let mut ended = 0;
    for (plan, verdict) in outcomes {
        ended += 1;
        failures.extend(verdict.err().map(|why| format!("{plan:?}: {why}")));
    }
    if ended != plans.len() {
        failures.push(format!("{ended} of {} connections have ended at the engine", plans.len()));
    }
    for (share, count, what) in [
        (impairment.loss, there.tally.lost.min(back.tally.lost), "lost"),
        (impairment.duplicate, there.tally.repeated.min(back.tally.repeated), "repeated"),
        (impairment.late, there.tally.held.min(back.tally.held), "held up"),
    ] {
        if share > 0 && count == 0 {
            failures.push(format!("the relay has {what} nothing, which proves nothing"));
        }
    }
    let bytes = plans.iter().map(|plan| plan.from_engine + plan.from_linux).sum();
    Outcome { transfers: plans.len(), bytes, failures, tally: [there.tally, back.tally], counters }
}
