//! How long a client waits for the first byte of its answer on a lane that is 30, 60 and 80 % busy: what the lane's queues add, and nothing that a machine does.
//!
//! A lane and the load generator have a core each in virtual time: whoever is behind has its turn, and a frame arrives when the breath that sent it has ended.
//! A lane's breath lasts as long as what it did costs, by the table below, so every run comes to the same. Clients and servers take no time. The rates are
//! shares of what the lane does in a busy second when there is always something to do.
//!
//! `cargo bench --no-default-features --bench latency`

use std::collections::VecDeque;
use std::num::NonZeroU32;

use sealane::base::{Duration, Instant, Random};
use sealane::lane;
use sealane::load::{
    Arrivals, Cipher, Clients, Generator, Group, Identity, Latency, Mode, Packets, Plan, Report, Version,
};
use sealane::nic::memory::{self, Wire};
use sealane::sim;
use sealane::sim::clock::Clock;
use sealane::sim::engine::{Engine, SERVICE_ADDRESS, SERVICE_PORT};
use sealane::sim::host::mac;

// That of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ADDRESS: &str = "198.18.0.1/24";
const SERVER: &str = "198.18.0.1:8000";
/// What a full handshake of TLS 1.3 with P-256 costs a lane, as `--bench lane` has it on a Zen 3: the answer to a ClientHello, what follows it, and each frame.
/// A breath that finds nothing costs as much as a frame.
const HELLO: Duration = Duration::from_micros(75);
const FINISHED: Duration = Duration::from_micros(22);
const FRAME: Duration = Duration::from_nanos(500);
/// Connections that keep a lane busy, and those that may be open at a rate.
const CLOSED: usize = 128;
const OPEN: usize = 4096;
const SHARES: [u32; 3] = [30, 60, 80];

/// One end of the wire: its clock, and what is on its way to it.
#[derive(Default)]
struct End {
    clock: Clock,
    coming: VecDeque<(Instant, Vec<u8>)>,
}

impl End {
    /// Puts what has arrived into its queue; how much that was.
    fn deliver(&mut self, wire: &Wire) -> u32 {
        let mut count = 0;
        while self.coming.front().is_some_and(|(at, _)| *at <= self.clock.now()) {
            if let Some((_, frame)) = self.coming.pop_front() {
                wire.push(&frame, 0);
                count += 1;
            }
        }
        count
    }
}

struct Bench {
    engine: Engine<Clock>,
    generator: Generator<Packets<memory::Queue>, Clock>,
    wire: Wire,
    lane: End,
    load: End,
    busy: Duration,
    hellos: u32,
}

impl Bench {
    fn new(identity: &sim::Identity, arrivals: Arrivals, rate: Option<NonZeroU32>, duration: Duration) -> Self {
        let mut random = Random::from_seed(1);
        let (lane, load) = (End::default(), End::default());
        let server = SERVER.parse().expect("an address");
        let tcp = sealane::tcp::Settings { source_half_open_max: None, ..sealane::tcp::Settings::default() };
        let engine = Engine::serving(identity, server, Vec::new(), &tcp, &lane.clock, &mut random);
        let (mut queues, wire) = memory::port(1, mac(1), 1500);
        let address = ADDRESS.parse().expect("an address");
        let transport = Packets::new(queues.remove(0), address, Vec::new(), Vec::new(), random);
        let client = Identity {
            name: "shop.example".into(),
            version: Version::Tls13,
            group: Group::X25519,
            cipher: Cipher::Aes128,
            roots: None,
        };
        let plan = Plan {
            mode: Mode::Full,
            service: (SERVICE_ADDRESS, SERVICE_PORT).into(),
            sources: Vec::new(),
            connections: if rate.is_some() { OPEN } else { CLOSED },
            rate,
            arrivals,
            patience: Duration::from_secs(5),
            warm_up: Duration::from_millis(500),
            duration,
            timeout: Duration::from_secs(10),
            bytes: 1,
            serve: vec![server],
            allow_failures: false,
            progress: false,
        };
        let clients = Clients::new(&client).expect("it is a client");
        let generator = Generator::new(plan, clients, transport, load.clock.clone()).expect("nothing can be refused");
        Self { engine, generator, wire, lane, load, busy: Duration::ZERO, hellos: 0 }
    }

    /// The turn of whoever is behind.
    fn turn(&mut self) {
        if self.load.clock.now() <= self.lane.clock.now() {
            self.load.deliver(&self.wire);
            self.generator.breath();
            self.load.clock.turn(self.load.clock.now() + FRAME);
            while let Some(frame) = self.wire.pop() {
                self.lane.coming.push_back((self.load.clock.now(), frame));
            }
            return;
        }
        let mut frames = self.lane.deliver(&self.engine.wire);
        let finished = self.handshakes();
        let was_busy = self.engine.lanes.first_mut().is_some_and(|lane| lane.breath());
        let sent: Vec<_> = std::iter::from_fn(|| self.engine.wire.pop()).collect();
        frames += u32::try_from(sent.len()).expect("a breath sends a few hundred");
        let hellos = sent.iter().filter(|frame| is_server_hello(frame)).count();
        let hellos = u32::try_from(hellos).expect("a breath sends a few hundred");
        self.hellos += hellos;
        let spent = HELLO * hellos + FINISHED * (self.handshakes() - finished) + FRAME * frames.max(1);
        if was_busy {
            self.busy += spent;
        }
        self.lane.clock.turn(self.lane.clock.now() + spent);
        self.load.coming.extend(sent.into_iter().map(|frame| (self.lane.clock.now(), frame)));
    }

    /// Handshakes that have come to their end.
    fn handshakes(&self) -> u32 {
        let full = |handle: &lane::Handle| handle.counters.relay.handshakes_tls13_full.value();
        u32::try_from(self.engine.handles.first().map_or(0, full)).expect("a run has some ten thousand")
    }

    /// Until the load is over: its report, handshakes a busy second of the lane, and the busy share of its time.
    fn run(mut self) -> (Report, f64, f64) {
        while !self.generator.is_over() {
            self.turn();
        }
        let report = self.generator.report();
        assert_eq!(report.failed, 0, "{report}");
        let busy = self.busy.as_secs_f64();
        let share = busy / (self.lane.clock.now() - Instant::START).as_secs_f64();
        // Each hello has been seen.
        assert!(self.hellos.abs_diff(self.handshakes()) <= 1, "{} {}", self.hellos, self.handshakes());
        (report, f64::from(self.handshakes()) / busy, share)
    }
}

fn main() {
    let key = rcgen::KeyPair::generate().expect("there is randomness");
    let params = rcgen::CertificateParams::new(vec!["shop.example".to_owned()]).expect("it is a name");
    let certificate = params.self_signed(&key).expect("the key signs");
    let identity =
        sim::Identity { chain: certificate.pem(), key: key.serialize_pem(), root: certificate.der().clone() };
    let (_, most, _) = Bench::new(&identity, Arrivals::Even, None, Duration::from_secs(1)).run();
    println!("TLS 1.3 full, {most:.0} handshakes a busy second. Microseconds to the first byte:");
    for (arrivals, name) in [(Arrivals::Even, "evenly"), (Arrivals::Random, "at random")] {
        println!("clients come {name}");
        tell(&identity, arrivals, most);
    }
}

fn tell(identity: &sim::Identity, arrivals: Arrivals, most: f64) {
    let mut calm = None;
    for share in SHARES {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a rate of handshakes")]
        let rate = NonZeroU32::new((most * f64::from(share) / 100.0).round() as u32);
        let (report, _, busy) = Bench::new(identity, arrivals, rate, Duration::from_secs(3)).run();
        let Latency { p50, p99, p999, median_window, .. } = report.first_byte;
        let calm = *calm.get_or_insert(p50);
        let window = median_window.p99.unwrap_or(f64::NAN);
        println!(
            "  at {share} %, {:.0} % busy: p50 {p50:4.0}, p99 {p99:4.0}, p99.9 {p999:4.0}, p99 of the median window {window:4.0}; \
             p99 / p50 at {} % {:.2}",
            busy * 100.0,
            SHARES[0],
            p99 / calm,
        );
    }
}

/// Whether a frame begins with a ServerHello: it alone is not encrypted (RFC 8446 5.1: a handshake record is type 22). Behind Ethernet and IPv4 comes TCP's header,
/// whose length is in its 13th byte.
fn is_server_hello(frame: &[u8]) -> bool {
    let header = frame.get(46).map_or(0, |offset| usize::from(offset >> 4) * 4);
    frame.get(34 + header) == Some(&22)
}
