//! TCP between two hosts and a bad path, seed after seed: see [`sealane::sim::pair`]. A seed that fails is printed, with what was wrong and what happened before.
//!
//! `cargo test --test tcp_simulation -- --seeds 100000 --from 7` lives through as many worlds from that seed on; `scripts/soak` does it in a release build.
#![allow(clippy::disallowed_methods, reason = "it says how long it takes")]

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sealane::sim::pair::{self, Failure, Tally};

/// Worlds of every run of the tests. With DPDK nothing in them is different, so there a few are enough.
const SEEDS: u64 = if cfg!(feature = "dpdk") { 100 } else { 10_000 };
/// Seeds that have failed stay.
const KEPT: &[u64] = &[134, 640, 1430, 8340];
/// Failures after which no other world is begun.
const FAILURES_MAX: usize = 3;
/// How often a long run says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);
/// What all worlds of a run of the tests together must have seen, or they prove little.
const SEEN: &[&str] = &[
    "packets lost",
    "packets swallowed",
    "packets dropped",
    "packets too long",
    "routers' messages",
    "path_mtu_lowered",
    "black_holes",
    "packets repeated",
    "packets damaged",
    "packets marked",
    "packets overtaken",
    "retransmission_timeouts",
    "fast_retransmits",
    "tail_probes",
    "duplicate_data_reported",
    "spurious_recoveries",
    "mark_reductions",
    "paws_dropped",
    "out_of_order",
    "window_probes",
    "keepalive_probes",
    "memory_full",
    "memory_dropped",
    "table_full",
    "cookies_accepted",
    "time_wait_recycled",
    "half_open_timed_out",
    "ends: finished",
    "ends: reset",
    "ends: refused",
    "ends: timed out",
    "ends: aborted",
    "ends: closed with something unread",
];

/// What the command line asks for.
struct Order {
    seeds: u64,
    from: u64,
    /// It names no seeds: what every run of the tests does.
    usual: bool,
}

fn main() -> ExitCode {
    let order = match order(std::env::args().skip(1)) {
        Ok(order) => order,
        Err(why) => {
            eprintln!("tcp_simulation: {why}");
            return ExitCode::from(2);
        }
    };
    // A panic of the engine is a failure like others, told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let kept = if order.usual { KEPT } else { &[] };
    let last = order.from.saturating_add(order.seeds);
    let seeds: Vec<u64> = kept.iter().copied().chain(order.from..last).collect();
    let (tally, failures) = live(&seeds, began);
    println!("{} worlds from seed {} on, and {} that once failed", tally.of("worlds"), order.from, kept.len());
    print_tally(&tally);
    println!("{:.1} s of ours for {} h of theirs", began.elapsed().as_secs_f64(), tally.of("seconds") / 3600);
    for failure in &failures {
        println!("\nFAILED: {failure}");
        println!(
            "repeat it with: cargo test --no-default-features --test tcp_simulation -- --seeds 1 --from {}",
            failure.plan.seed
        );
    }
    let unseen: Vec<_> = SEEN.iter().filter(|what| tally.of(what) == 0).collect();
    let checks =
        [("every world holds", failures.is_empty()), ("together they have seen everything", unseen.is_empty())];
    // A few worlds see little.
    let checks = if order.usual && failures.is_empty() && !cfg!(feature = "dpdk") { &checks[..] } else { &checks[..1] };
    for (check, holds) in checks {
        println!("test {check} ... {}", if *holds { "ok" } else { "FAILED" });
    }
    if checks.len() > 1 && !unseen.is_empty() {
        println!("nothing was seen of {unseen:?}");
    }
    let passed = checks.iter().filter(|(_, holds)| *holds).count();
    println!("simulation: {passed} passed; {} failed", checks.len() - passed);
    if passed == checks.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn order(mut arguments: impl Iterator<Item = String>) -> Result<Order, String> {
    let mut order = Order { seeds: SEEDS, from: 1, usual: true };
    while let Some(argument) = arguments.next() {
        let number = match argument.as_str() {
            "--seeds" => &mut order.seeds,
            "--from" => &mut order.from,
            // cargo's own, for tests that have a harness.
            _ => continue,
        };
        let value = arguments.next().and_then(|text| text.parse().ok());
        *number = value.ok_or(format!("{argument} takes a number"))?;
        order.usual = false;
    }
    Ok(order)
}

/// Lives through the worlds of these seeds, on all cores.
fn live(seeds: &[u64], began: Instant) -> (Tally, Vec<Failure>) {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (send, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            let (send, next, stop) = (send.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
                    let Some(seed) = seeds.get(at) else { return };
                    if send.send(pair::run(*seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let (mut tally, mut failures, mut said) = (Tally::default(), Vec::new(), began);
        for outcome in outcomes {
            match outcome {
                Ok(seen) => tally.add(&seen),
                Err(failure) => failures.push(*failure),
            }
            stop.store(failures.len() >= FAILURES_MAX, Ordering::Relaxed);
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                let worlds = tally.of("worlds");
                let rate = worlds as f64 / began.elapsed().as_secs_f64();
                println!("{worlds} of {} worlds, {} failed, {rate:.0} a second", seeds.len(), failures.len());
            }
        }
        (tally, failures)
    })
}

fn print_tally(tally: &Tally) {
    let Tally(counts) = tally;
    let seen: Vec<String> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{what} {count}")).collect();
    println!("they have seen: {}", seen.join(", "));
}
