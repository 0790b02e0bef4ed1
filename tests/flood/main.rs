//! A lane under attack: floods from one core, as fast as it can make them, at a whole lane on the other, and honest clients that share its queue.
//!
//! The lane is the engine's own, with TLS, over a port in memory whose queues are as bounded as a NIC's: what the lane does not take out in time is lost,
//! whoever sent it. Honest clients then do what clients do, they send again. Time is real, because load is; what is asserted is what becomes of the
//! clients, not how fast anything is. `cargo test --release --no-default-features --test flood`.
//!
//! The other core makes what it could bring to a lane over virtio, two million frames a second. Into memory it could write seven million, which no port
//! delivers: beyond what a lane takes out of its queue frames are lost whoever sent them, and nothing behind the queue can help.
//!
//! Where other processes leave the lane less than four fifths of its core, the flood has more than the other core: then half of the clients must do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a test may panic")]

mod attacker;
mod clock;
#[path = "../../benches/common/cpu.rs"]
mod cpu;
mod outside;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use sealane::base::{Duration, Instant, Random};
use sealane::lane::{Counters, Handle};
use sealane::nic::memory::Wire;
use sealane::sim::Identity;
use sealane::sim::engine::Engine;
use sealane::tcp::Settings;

use attacker::Kind;
use clock::Ahead;
use outside::{CLIENTS, Outside, SERVER, Visit};

/// How long a client tries to connect: its SYN is sent again after 1, 2 and 4 s.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long the last clients of a flood may take to be served: each loss of a tail costs a retransmission timeout.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many of a hundred clients must connect, and be served, TLS and all: where the lane has so much of its core, and where it has less.
const GOOD_PERCENT: [usize; 2] = [90, 50];
const CORE: f64 = 0.8;
/// Breaths between two looks at how much time the lane has had.
const BREATHS: u64 = 16;
/// Between two visits, and for how long they begin.
const EVERY: Duration = Duration::from_millis(50);
const TRANSFERS: usize = 3;
const TRANSFER: usize = 6 << 20;

type Outcome = Result<String, String>;

fn main() -> ExitCode {
    if cfg!(feature = "dpdk") {
        println!("flood: 0 passed; 0 failed: no DPDK is in it, it runs with --no-default-features");
        return ExitCode::SUCCESS;
    }
    if cfg!(debug_assertions) {
        println!("flood: 0 passed; 0 failed: what a lane can take it says in a release build only");
        return ExitCode::SUCCESS;
    }
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(["shop.example".into()]).unwrap().self_signed(&key).unwrap();
    let identity = Identity { chain: certificate.pem(), key: key.serialize_pem(), root: certificate.der().clone() };
    let clock = Ahead::start();
    let settings = Settings { memory_max: 64 << 20, ..Settings::default() };
    let mut random = Random::from_seed(20_261_125);
    let mut engine = Engine::serving(&identity, SERVER.into(), vec![CLIENTS.into()], &settings, &clock, &mut random);
    let spent = AtomicU64::new(0);
    let (stop, handle, wire) = (AtomicBool::new(false), engine.handles.remove(0), engine.wire.clone());
    let mut lane = engine.lanes.remove(0);
    let outcomes = thread::scope(|scope| {
        let outside = scope.spawn(|| {
            let outside = Outside::new(clock.clone(), wire.clone(), handle.clone(), &identity);
            let outcomes = besiege(outside, Watch::new(&settings, handle, wire.clone(), &spent), &wire);
            stop.store(true, Ordering::Relaxed);
            outcomes
        });
        while !stop.load(Ordering::Relaxed) && !outside.is_finished() {
            for _ in 0..BREATHS {
                lane.breath();
            }
            spent.store(cpu::cpu(), Ordering::Relaxed);
        }
        outside.join().unwrap()
    });
    let mut failed = 0;
    for (name, outcome) in &outcomes {
        match outcome {
            Ok(how) => println!("test {name} ... ok\n  {how}"),
            Err(why) => println!("test {name} ... FAILED\n  {why}"),
        }
        failed += usize::from(outcome.is_err());
    }
    println!("flood: {} passed; {failed} failed", outcomes.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Everything that happens, in turn.
fn besiege(mut outside: Outside, mut watch: Watch<'_>, wire: &Wire) -> Vec<(&'static str, Outcome)> {
    let mut outcomes = vec![("a lane without an attack serves", peace(&mut outside))];
    let first = outside.visits.len();
    (0..TRANSFERS).for_each(|_| outside.visit(TRANSFER));
    outside.run_for(Duration::from_millis(300), |_| {});
    let transfers = first..outside.visits.len();
    for (kind, name, lasts) in [
        (Kind::Syn, "under a flood of SYNs honest clients are served", 6),
        (Kind::Ack, "under a flood of forged acknowledgements honest clients are served", 2),
        (Kind::Reset, "under a flood of resets honest clients are served", 2),
        (Kind::Closed, "under a flood of data to a closed port honest clients are served", 2),
    ] {
        outcomes.push((name, flood(&mut outside, kind, Duration::from_secs(lasts), &mut watch, transfers.clone())));
    }
    outside.attack(None);
    outside.server_link = None;
    outcomes.push(("transfers that were established before arrive intact", intact(&mut outside, transfers)));
    outcomes.push(("every bound held at any time", watch.outcome()));
    outcomes.push(("after the floods nothing is left of them", drained(&mut outside, wire)));
    outcomes
}

fn peace(outside: &mut Outside) -> Outcome {
    // The monitor has looked at the server by then.
    outside.run_for(Duration::from_secs(5), |_| {});
    outside.visit(1000);
    let end = outside.clock.now() + PATIENCE;
    while !outside.all_ended(0) && outside.clock.now() < end {
        outside.turn();
    }
    let visit = &outside.visits[0];
    if visit.is_served() {
        Ok(format!("served in {:?}", visit.ended.unwrap() - visit.began))
    } else {
        Err(format!("{:?}", visit.visiting.outcome))
    }
}

fn flood(
    outside: &mut Outside,
    kind: Kind,
    lasts: Duration,
    watch: &mut Watch<'_>,
    transfers: std::ops::Range<usize>,
) -> Outcome {
    let received = |outside: &Outside| -> Vec<usize> {
        outside.visits[transfers.clone()].iter().map(|visit| visit.visiting.received()).collect()
    };
    let before = received(outside);
    let counters = outside.counters();
    let lane = &counters.lane;
    let read = || [&lane.frames_received, &lane.breaths].map(|counter| counter.value());
    let earlier = read();
    let spent = watch.spent.load(Ordering::Relaxed);
    let first = outside.visits.len();
    outside.attack(Some(kind));
    let began = outside.clock.now();
    let mut next = began;
    outside.run_for(lasts, |outside| {
        watch.look();
        if outside.clock.now() >= next {
            outside.visit(1000);
            next = next + EVERY;
        }
    });
    let end = outside.clock.now() + PATIENCE;
    while !outside.all_ended(first) && outside.clock.now() < end {
        outside.turn();
        watch.look();
    }
    let now = outside.clock.now();
    let took = (now - began).as_secs_f64();
    let visits = &outside.visits[first..];
    let connected = percentiles(visits, |visit| visit.connected);
    let served = percentiles(visits, |visit| visit.ended.filter(|_| visit.is_served()));
    let progress: Vec<_> = received(outside).iter().zip(&before).map(|(now, before)| (now - before) >> 10).collect();
    let share = (watch.spent.load(Ordering::Relaxed) - spent) as f64 / 1e9 / took;
    let rate = |count: u64| count as f64 / took / 1000.0;
    let others: Vec<_> = visits.iter().filter(|visit| !visit.is_served()).map(|visit| visit.visiting.outcome).collect();
    let counted: Vec<_> = read().iter().zip(earlier).map(|(now, earlier)| now - earlier).collect();
    let told = format!(
        "{took:.1} s, the lane had {:.0} % of a core: {:.0} k/s offered, {:.0} k/s of them lost at the full queue, {:.0} k/s answered\n  the lane took {:.0} k/s in {:.0} k breaths/s; of {} honest frames {} were lost\n  {} visits: connected {connected}\n  served {served}, and {others:?}; transfers got {progress:?} KiB",
        share * 100.0,
        rate(outside.flood.offered),
        rate(outside.flood.lost),
        rate(outside.backscatter),
        rate(counted[0]),
        rate(counted[1]),
        outside.honest.offered,
        outside.honest.lost,
        visits.len(),
    );
    let needed = GOOD_PERCENT[usize::from(share < CORE)];
    let enough = |good: &dyn Fn(&Visit) -> bool| {
        visits.iter().filter(|visit| good(visit)).count() * 100 >= visits.len() * needed
    };
    let in_time = |visit: &Visit| visit.connected.is_some_and(|connected| connected - visit.began <= CONNECT_MAX);
    let goes_on = progress.iter().sum::<usize>() > 0 || outside.all_ended_of(transfers);
    if goes_on && enough(&in_time) && enough(&Visit::is_served) { Ok(told) } else { Err(told) }
}

/// Of those that came to it, when.
fn percentiles(visits: &[Visit], when: impl Fn(&Visit) -> Option<Instant>) -> String {
    let mut times: Vec<_> =
        visits.iter().filter_map(|visit| Some((when(visit)? - visit.began).as_secs_f64() * 1000.0)).collect();
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    format!("{} (ms: median {:.1}, 90 % {:.1}, 99 % {:.1}, most {:.1})", times.len(), at(50), at(90), at(99), at(100))
}

fn intact(outside: &mut Outside, transfers: std::ops::Range<usize>) -> Outcome {
    let end = outside.clock.now() + PATIENCE;
    while !outside.all_ended(0) && outside.clock.now() < end {
        outside.turn();
    }
    let outcomes: Vec<_> = outside.visits[transfers].iter().map(|visit| visit.visiting.outcome).collect();
    let good = outcomes.iter().filter(|outcome| matches!(outcome, Some(sealane::sim::Outcome::Served(_)))).count();
    if good == TRANSFERS { Ok(format!("{good} of {} MiB each", TRANSFER >> 20)) } else { Err(format!("{outcomes:?}")) }
}

fn drained(outside: &mut Outside, wire: &Wire) -> Outcome {
    let counters = outside.counters();
    let tcp = &counters.tcp;
    let before = tcp.half_open.value();
    // SYN-ACK is sent for a minute, and TIME-WAIT lasts as long.
    for _ in 0..8 {
        outside.clock.skip(10);
        outside.run_for(Duration::from_millis(300), |_| {});
    }
    let left = [&tcp.half_open, &tcp.connections, &tcp.time_wait, &tcp.buffered_bytes, &tcp.sources]
        .map(|gauge| gauge.value());
    let told = format!(
        "{before} handshakes half-open, then half-open, connections, TIME-WAIT, bytes, sources: {left:?}; {} packet buffers",
        wire.buffers().in_use
    );
    // A health probe may be under way.
    if left[0] == 0 && left[1] <= 1 && left[3] == 0 { Ok(told) } else { Err(told) }
}

/// Looks at what is bounded, again and again.
struct Watch<'a> {
    settings: Settings,
    counters: Arc<Counters>,
    wire: Wire,
    /// Nanoseconds of CPU that the lane has had.
    spent: &'a AtomicU64,
    most: [u64; 6],
}

impl<'a> Watch<'a> {
    fn new(settings: &Settings, handle: Handle, wire: Wire, spent: &'a AtomicU64) -> Self {
        Self { settings: settings.clone(), counters: handle.counters, wire, spent, most: [0; 6] }
    }

    fn look(&mut self) {
        let tcp = &self.counters.tcp;
        let buffers = self.wire.buffers().in_use as u64;
        let now = [&tcp.half_open, &tcp.connections, &tcp.time_wait, &tcp.buffered_bytes, &tcp.sources]
            .map(|gauge| gauge.value());
        for (most, now) in self.most.iter_mut().zip(now.into_iter().chain([buffers])) {
            *most = now.max(*most);
        }
    }

    fn outcome(&self) -> Outcome {
        let settings = &self.settings;
        let bounds = [
            settings.half_open_max,
            settings.connections_max,
            settings.time_wait_max,
            settings.memory_max,
            settings.half_open_max,
            self.wire.buffers().capacity,
        ];
        let told = format!(
            "at most, of: half-open, connections, TIME-WAIT, bytes, sources, packet buffers: {:?} of {bounds:?}",
            self.most
        );
        let held = self.most.iter().zip(bounds).all(|(most, bound)| *most <= bound as u64);
        if held { Ok(told) } else { Err(told) }
    }
}
