//! Load in memory, in virtual time: a real lane between the clients and the servers of a generator, and kernel sockets on loopback.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ServerConfig, ServerConnection};

use crate::base::{Duration, Instant, Random};
use crate::lane::{Order, SystemClock};
use crate::load::http;
use crate::load::{
    Arrivals, Cipher, Clients, Generator, Group, Identity, Invalid, Kernel, Mode, Packets, Plan, Report, Version,
};
use crate::nic::memory::{self, Wire};
use crate::sim;
use crate::sim::clock::Clock;
use crate::sim::engine::{Engine, SERVICE_ADDRESS, SERVICE_PORT};
use crate::sim::host::mac;
use crate::tcp;
use crate::ticket::Ring;

/// Where clients and servers are, the engine's router too.
const ADDRESS: &str = "198.18.0.1/24";
const SERVER: &str = "198.18.0.1:8000";
/// What a round of everybody takes.
const ROUND: Duration = Duration::from_micros(50);

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn plan(mode: Mode) -> Plan {
    Plan {
        mode,
        service: (SERVICE_ADDRESS, SERVICE_PORT).into(),
        sources: Vec::new(),
        connections: 8,
        rate: None,
        arrivals: Arrivals::Random,
        patience: seconds(5.0),
        warm_up: seconds(0.02),
        duration: seconds(0.1),
        timeout: seconds(5.0),
        bytes: 100,
        serve: vec![SERVER.parse().unwrap()],
        allow_failures: false,
        progress: false,
    }
}

fn clients(version: Version) -> Clients {
    let identity =
        Identity { name: "shop.example".into(), version, group: Group::X25519, cipher: Cipher::Aes128, roots: None };
    Clients::new(&identity).unwrap()
}

/// A certificate with its key, self-signed.
fn certificate() -> sim::Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["shop.example".into()]).unwrap().self_signed(&key).unwrap();
    sim::Identity { chain: certificate.pem(), key: key.serialize_pem(), root: certificate.der().clone() }
}

/// An engine of one lane and a generator, with a wire between them.
struct Bench {
    clock: Clock,
    engine: Engine<Clock>,
    wire: Wire,
    generator: Generator<Packets<memory::Queue>, Clock>,
}

impl Bench {
    fn new(plan: Plan, clients: Clients) -> Self {
        let mut random = Random::from_seed(1);
        let clock = Clock::default();
        let server = SERVER.parse().unwrap();
        let engine =
            Engine::serving(&certificate(), server, Vec::new(), &tcp::Settings::default(), &clock, &mut random);
        let (mut queues, wire) = memory::port(1, mac(1), 1500);
        let transport = Packets::new(queues.remove(0), ADDRESS.parse().unwrap(), Vec::new(), Vec::new(), random);
        let generator = Generator::new(plan, clients, transport, clock.clone()).unwrap();
        Self { clock, engine, wire, generator }
    }

    /// Until the load is over, in 20 virtual seconds.
    fn run(&mut self) -> Report {
        self.run_with(|_| {})
    }

    fn run_with(&mut self, mut each: impl FnMut(&mut Self)) -> Report {
        let end = Instant::START + seconds(20.0);
        while !self.generator.is_over() {
            assert!(self.clock.now() < end, "it does not come to an end");
            self.clock.turn(self.clock.now() + ROUND);
            self.generator.breath();
            self.engine.lanes[0].breath();
            while self.wire.pop_with(|frame| self.engine.wire.push(frame, 0)).is_some() {}
            while self.engine.wire.pop_with(|frame| self.wire.push(frame, 0)).is_some() {}
            each(self);
        }
        self.generator.report()
    }
}

fn run(mode: Mode, version: Version) -> Report {
    let report = Bench::new(plan(mode), clients(version)).run();
    assert_eq!(report.failed, 0, "{report}");
    assert_eq!(report.refused, None, "{report}");
    report
}

#[test]
fn full_handshakes_are_full_and_each_is_answered() {
    for version in [Version::Tls12, Version::Tls13] {
        let report = run(Mode::Full, version);
        assert!(report.full_handshakes > 50, "{report}");
        assert_eq!(report.resumed_handshakes, 0, "{report}");
        assert!(report.answers.abs_diff(report.full_handshakes) <= 8, "{report}");
        assert!(report.bytes_received.abs_diff(report.answers * 100) <= 800, "{report}");
        assert!((report.seconds - 0.1).abs() < 0.001, "{report}");
    }
}

#[test]
fn resumed_handshakes_are_resumed_by_the_engines_own_count() {
    for version in [Version::Tls12, Version::Tls13] {
        let mut bench = Bench::new(plan(Mode::Resumed), clients(version));
        let report = bench.run();
        assert_eq!((report.failed, report.full_handshakes), (0, 0), "{report}");
        assert!(report.resumed_handshakes > 50, "{report}");
        let relay = &bench.engine.handles[0].counters.relay;
        let (full, resumed) = match version {
            Version::Tls12 => (&relay.handshakes_tls12_full, &relay.handshakes_tls12_resumed),
            Version::Tls13 => (&relay.handshakes_tls13_full, &relay.handshakes_tls13_resumed),
        };
        assert_eq!(full.value(), 8, "one a client, {version:?}");
        assert!(resumed.value() >= report.resumed_handshakes, "{version:?}");
    }
}

#[test]
fn requests_share_a_connection() {
    let report = run(Mode::Requests, Version::Tls13);
    assert_eq!(report.attempts, 8, "{report}");
    assert!(report.answers > 500, "{report}");
    assert_eq!(report.served, 8, "{report}");
}

#[test]
fn bulk_goes_both_ways_and_is_counted() {
    for (mode, version) in [
        (Mode::Download, Version::Tls13),
        (Mode::Upload, Version::Tls13),
        (Mode::Download, Version::Tls12),
        (Mode::Upload, Version::Tls12),
    ] {
        let bulk = Plan { bytes: 50_000, connections: 2, duration: seconds(0.01), ..plan(mode) };
        let report = Bench::new(bulk, clients(version)).run();
        assert_eq!((report.failed, &report.refused), (0, &None), "{report}");
        let moved = if mode == Mode::Download { report.bytes_received } else { report.bytes_sent };
        assert!(report.answers > 4 && moved > 150_000, "{report}");
        assert!(moved.abs_diff(report.answers * 50_000) <= 2 * 50_000, "{report}");
    }
}

#[test]
fn idle_connections_are_all_held_to_the_end_and_then_closed() {
    let mut bench = Bench::new(Plan { connections: 300, ..plan(Mode::Idle) }, clients(Version::Tls13));
    let mut most = 0;
    let report = bench.run_with(|bench| most = most.max(bench.engine.lanes[0].open()));
    assert_eq!((report.held, report.failed, report.served, report.unfinished), (300, 0, 300, 0), "{report}");
    assert_eq!(most, 300);
    assert_eq!(bench.generator.served(), 0, "servers' connections are left");
}

#[test]
fn a_crowd_shares_a_ticket_and_holds_all_the_same() {
    let crowd = clients(Version::Tls12).crowd(1);
    let mut bench = Bench::new(Plan { connections: 300, ..plan(Mode::Idle) }, crowd);
    let report = bench.run();
    assert_eq!((report.held, report.failed, report.served, report.unfinished), (300, 0, 300, 0), "{report}");
    let tickets = &bench.engine.handles[0].counters.tickets;
    assert_eq!((tickets.handshakes_full.value(), tickets.handshakes_resumed.value()), (1, 299));
}

#[test]
fn clients_on_a_schedule_come_as_scheduled() {
    let rate = NonZeroU32::new(2000);
    let report = Bench::new(Plan { rate, connections: 64, ..plan(Mode::Full) }, clients(Version::Tls13)).run();
    assert_eq!(report.failed, 0, "{report}");
    // The standard deviation of such a number is 14.
    assert!(report.full_handshakes.abs_diff(200) <= 42, "{report}");
    assert!(report.overdue <= 1, "{report}");
    assert!(report.first_byte.p99 < 5_000.0, "{report}");
}

#[test]
fn waiting_for_a_turn_is_part_of_the_latency() {
    // One client at a time, and each takes longer than the time between two.
    let rate = NonZeroU32::new(10_000);
    let plan = Plan { rate, connections: 1, warm_up: Duration::ZERO, ..plan(Mode::Full) };
    let report = Bench::new(plan, clients(Version::Tls13)).run();
    assert_eq!(report.failed, 0, "{report}");
    assert!(report.overdue > 500, "{report}");
    // A visit takes a few rounds, and the last one has waited for nearly the whole run.
    assert!(report.handshake.max < 2_000.0, "{report}");
    assert!(report.first_byte.max > 50_000.0, "{report}");
}

#[test]
fn a_machine_that_stands_still_spoils_the_whole_run_and_not_its_median_window() {
    let rate = NonZeroU32::new(2000);
    let plan = Plan { rate, connections: 128, duration: seconds(0.4), ..plan(Mode::Full) };
    let report = Bench::new(plan, clients(Version::Tls13)).run_with(|bench| {
        if bench.clock.now() == Instant::START + seconds(0.15) {
            bench.clock.turn(bench.clock.now() + seconds(0.025));
        }
    });
    assert_eq!((report.failed, report.overdue), (0, 0), "{report}");
    // The stop, and the round after it.
    assert_eq!((report.gaps.count, report.gaps.milliseconds), (1, 25.05), "{report}");
    // Some fifty of 800 came while it stood still.
    assert!(report.first_byte.p99 > 15_000.0, "{report}");
    let window = report.first_byte.median_window;
    assert_eq!((window.windows, report.window_milliseconds), (4, 100.0), "{report}");
    assert!(window.p99.is_some_and(|p99| p99 < 5_000.0) && window.p999.is_none(), "{report}");
    assert!(window.p50.is_some_and(|p50| (p50 / report.first_byte.p50 - 1.0).abs() < 0.2), "{report}");
    for kind in [report.connect, report.handshake, report.answer] {
        assert!(kind.median_window.p99.is_some_and(|p99| p99 < 5_000.0), "{report}");
    }
}

#[test]
fn who_comes_in_time_and_is_served_after_the_end_counts_in_a_window() {
    let rate = NonZeroU32::new(2000);
    let plan = Plan { rate, connections: 128, warm_up: Duration::ZERO, ..plan(Mode::Full) };
    let mut stopped = false;
    let report = Bench::new(plan, clients(Version::Tls13)).run_with(|bench| {
        // Shortly before the end of what is measured, for longer than is left.
        if bench.clock.now() >= Instant::START + seconds(0.09) && !std::mem::replace(&mut stopped, true) {
            bench.clock.turn(bench.clock.now() + seconds(0.03));
        }
    });
    assert_eq!(report.failed, 0, "{report}");
    assert_eq!(report.first_byte.median_window.windows, 1, "{report}");
    assert!(report.first_byte.max < 1_000.0, "the whole run ends before they are served: {report}");
    assert!(report.first_byte.median_window.p99.is_some_and(|p99| p99 > 10_000.0), "{report}");
}

#[test]
fn a_ticket_that_is_not_honoured_is_a_failure() {
    // A client of TLS 1.3 keeps two tickets and tries both, but one that is being served when the keys are lost gets new ones.
    for (version, failed) in [(Version::Tls12, 8..=8), (Version::Tls13, 9..=16)] {
        let mut bench = Bench::new(plan(Mode::Resumed), clients(version));
        let report = bench.run_with(|bench| {
            if bench.clock.now() == Instant::START + seconds(0.08) {
                // An engine that has lost its keys.
                let ring = Arc::new(Ring::generate(bench.clock.unix(), &mut Random::from_seed(2)));
                bench.engine.handles[0].inbox.push(Order::Ring(ring)).unwrap();
            }
        });
        let failures: Vec<_> = report.failures.into_iter().collect();
        assert!(
            matches!(failures[..], [("not_resumed", count)] if failed.contains(&count)),
            "{version:?} {failures:?}"
        );
        assert!(report.refused.is_some());
    }
}

#[test]
fn a_rate_is_refused_when_too_much_fails_unless_asked_for() {
    for allow_failures in [false, true] {
        let mut bench = Bench::new(Plan { allow_failures, ..plan(Mode::Full) }, clients(Version::Tls13));
        let report = bench.run_with(|bench| {
            if bench.clock.now() == Instant::START + seconds(0.08) {
                bench.engine.handles[0].inbox.push(Order::Drain).unwrap();
            }
        });
        assert!(report.failures.contains_key("refused"), "{report}");
        assert_eq!(report.refused.is_none(), allow_failures, "{report}");
        assert_eq!(report.per_second.is_some(), allow_failures, "{report}");
        assert!(report.answers > 0, "{report}");
    }
}

#[test]
fn a_service_that_never_answers_is_said_to() {
    let nobody = "198.18.0.77:443".parse().unwrap();
    let plan = Plan { service: nobody, patience: seconds(4.0), ..plan(Mode::Full) };
    let report = Bench::new(plan, clients(Version::Tls13)).run();
    assert!(report.refused.as_ref().is_some_and(|why| why.contains("unreachable")), "{report}");
    assert_eq!(report.answers, 0, "{report}");
}

#[test]
fn an_identity_that_cannot_be_is_refused() {
    let identity = Identity {
        name: "not a name".into(),
        version: Version::Tls12,
        group: Group::X25519mlkem768,
        cipher: Cipher::Aes128,
        roots: None,
    };
    assert!(matches!(Clients::new(&identity), Err(Invalid::Name(_))));
    let named = Identity { name: "shop.example".into(), ..identity };
    let roots = Some(b"nothing".to_vec());
    assert!(matches!(Clients::new(&Identity { roots, ..named }), Err(Invalid::Roots(_))));
}

/// A proxy over kernel sockets that ends TLS, a thread a connection, for so many connections.
struct Proxy {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Proxy {
    fn start(identity: &sim::Identity, server: SocketAddr) -> Self {
        let chain = vec![identity.root.clone()];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let provider = Arc::new(crate::tls::provider::provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let (mut client, mut tls) = (client.unwrap(), ServerConnection::new(Arc::clone(&config)).unwrap());
                thread::spawn(move || relay(&mut rustls::Stream::new(&mut tls, &mut client), server));
            }
        });
        Self { address, stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        self.thread.join().unwrap();
    }
}

/// One request with its body, one answer, and so on until the client or the server closes.
fn relay(client: &mut rustls::Stream<'_, ServerConnection, TcpStream>, server: SocketAddr) -> Option<()> {
    let mut server = TcpStream::connect(server).ok()?;
    let mut piece = vec![0; 65_536];
    loop {
        let (mut head, mut left) = (Vec::new(), 0);
        while left == 0 {
            let len = client.read(&mut piece).ok().filter(|len| *len > 0)?;
            server.write_all(&piece[..len]).ok()?;
            head.extend_from_slice(&piece[..len]);
            if let Ok(Some(request)) = http::read_request(&head) {
                left = request.head + usize::try_from(request.body).ok()? - head.len();
                break;
            }
        }
        while left > 0 {
            let len = client.read(&mut piece).ok().filter(|len| *len > 0)?;
            server.write_all(&piece[..len]).ok()?;
            left -= len;
        }
        let closes = relay_answer(client, &mut server)?;
        if closes {
            // As nginx, which closes when the client has said goodbye, too.
            client.conn.send_close_notify();
            client.flush().ok()?;
            while client.read(&mut piece).ok()? > 0 {}
            return client.sock.shutdown(Shutdown::Write).ok();
        }
    }
}

fn relay_answer(client: &mut rustls::Stream<'_, ServerConnection, TcpStream>, server: &mut TcpStream) -> Option<bool> {
    let (mut answer, mut piece) = (Vec::new(), vec![0; 65_536]);
    loop {
        let len = server.read(&mut piece).ok().filter(|len| *len > 0)?;
        client.write_all(&piece[..len]).ok()?;
        answer.extend_from_slice(&piece[..len]);
        match http::read_answer(&answer) {
            Ok(Some(read)) if read.body == (answer.len() - read.head) as u64 => return Some(read.closes),
            Ok(_) => {}
            Err(http::Malformed) => return None,
        }
    }
}

/// Load over kernel sockets through a proxy on loopback, until so many answers have come.
fn run_over_kernel(mode: Mode, version: Version, verify: bool) -> Report {
    let certificate = certificate();
    // A port that is free now.
    let server = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::start(&certificate, server);
    let plan =
        Plan { service: proxy.address, serve: vec![server], duration: seconds(0.5), bytes: 100_000, ..plan(mode) };
    let roots = verify.then(|| certificate.chain.clone().into_bytes());
    let name = "shop.example".into();
    let identity = Identity { name, version, group: Group::P256, cipher: Cipher::Aes256, roots };
    let clients = Clients::new(&identity).unwrap();
    let mut generator = Generator::new(plan, clients, Kernel::new().unwrap(), SystemClock::start()).unwrap();
    while !generator.is_over() {
        generator.breath();
    }
    proxy.stop();
    generator.report()
}

#[test]
fn kernel_sockets_carry_the_same_load() {
    for version in [Version::Tls12, Version::Tls13] {
        let report = run_over_kernel(Mode::Full, version, true);
        assert_eq!((report.failed, &report.refused), (0, &None), "{report}");
        assert!(report.full_handshakes > 0 && report.answers > 0, "{report}");
        let report = run_over_kernel(Mode::Resumed, version, false);
        assert_eq!((report.failed, &report.refused), (0, &None), "{report}");
        // On a machine with other things to do, a client may come for the first time after the warm-up.
        assert!(report.full_handshakes < 8 && report.resumed_handshakes > 0 && report.bytes_received > 0, "{report}");
    }
}

#[test]
fn kernel_sockets_carry_bulk_both_ways() {
    for (mode, version) in [(Mode::Download, Version::Tls13), (Mode::Upload, Version::Tls13)] {
        // More than a turn moves, and more than sockets hold.
        let report = run_over_kernel(mode, version, false);
        assert_eq!((report.failed, &report.refused), (0, &None), "{report}");
        assert!(report.answers > 0 && report.bytes_received + report.bytes_sent > 0, "{report}");
    }
}

#[test]
fn kernel_sockets_tell_why_there_is_no_connection() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plan = Plan { service: nobody, serve: Vec::new(), patience: seconds(0.2), ..plan(Mode::Full) };
    let transport = Kernel::new().unwrap();
    let mut generator = Generator::new(plan, clients(Version::Tls13), transport, SystemClock::start()).unwrap();
    while !generator.is_over() {
        generator.breath();
    }
    let report = generator.report();
    assert!(report.refused.as_ref().is_some_and(|why| why.contains("refused")), "{report}");
}
