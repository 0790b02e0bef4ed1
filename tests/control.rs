//! Control over lanes that do not run: what reaches their inboxes, what becomes of their reports, what the admin API shows.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench that cannot be set up fails its test")]

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sealane::balance::{Board, Health, Loads, Slot};
use sealane::base::{Duration, Flow, Instant, LaneId, PortId, Random, UnixTime};
use sealane::control::config::{self, Machine};
use sealane::control::publish::{self, Shared};
use sealane::control::{Command, Control, Parts, admin, api, identity, keys, run};
use sealane::health::{Answer, Cause, Finding, Outcome, Verdict};
use sealane::lane::{self, Clock, Handle, Lane, Order, Record, Snapshot, Steering};
use sealane::nic::{self, memory};
use sealane::persistence::Reason;
use sealane::relay::{End, Times};
use sealane::tcp::{self, Stack, Token};
use sealane::ticket::{Ring, Schedule};
use smoltcp::wire::EthernetAddress;
use tempfile::TempDir;

const WALL: UnixTime = UnixTime(1_767_225_600);
/// When the lanes' clock started: 2026-01-01, in nanoseconds.
const EPOCH: u64 = 1_767_225_600_000_000_000;

fn at(milliseconds: u64) -> Instant {
    Instant::START + Duration::from_millis(milliseconds)
}

/// Control with two lanes, its configuration in a directory of its own.
struct Bench {
    directory: TempDir,
    control: Control,
    handles: Vec<Handle>,
    board: Arc<Board>,
    stopped: Arc<AtomicU32>,
}

impl Bench {
    fn new() -> Self {
        Self::with(&text())
    }

    fn with(text: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["shop.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        for name in ["shop-ecdsa", "shop-rsa"] {
            std::fs::write(directory.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(directory.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        let file = directory.path().join("sealane.toml");
        std::fs::write(&file, text).unwrap();
        let machine = Machine { cores: vec![0, 1], memory: 64 << 30, now: WALL };
        let configuration = config::load(&file, &machine).unwrap();
        let handles: Vec<_> = (0..2).map(|lane| Handle::new(LaneId(lane), 1).traced(trace(), EPOCH)).collect();
        let stopped = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&stopped);
        let shared = Shared::new(2);
        let board = Arc::clone(&shared.board);
        let parts = Parts {
            keys: run::keys_source(&configuration, WALL, Random::from_seed(1)).unwrap(),
            configuration,
            machine,
            handles: handles.clone(),
            macs: vec![EthernetAddress([2, 0, 0, 0, 0, 1])],
            shared,
            admin: admin::bind("127.0.0.1:0".parse().unwrap()).unwrap(),
            api: api::Listeners::default(),
            stop: Box::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            }),
        };
        Self { control: Control::new(parts, at(0)).unwrap(), directory, handles, board, stopped }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn reload(&mut self, text: &str) {
        std::fs::write(self.path("sealane.toml"), text).unwrap();
        self.control.on_command(Command::Reload, at(1), WALL);
    }

    /// Takes the orders that wait for a lane.
    fn orders(&self, lane: usize) -> Vec<Order> {
        std::iter::from_fn(|| self.handles[lane].inbox.pop()).collect()
    }

    /// The one configuration that waits for each lane.
    fn snapshots(&self) -> [Box<Snapshot>; 2] {
        [0, 1].map(|lane| {
            let mut found: Vec<_> = self
                .orders(lane)
                .into_iter()
                .filter_map(|order| match order {
                    Order::Configure(snapshot) => Some(snapshot),
                    Order::Ring(_) | Order::Capture(_) | Order::Drain => None,
                })
                .collect();
            assert_eq!(found.len(), 1);
            found.pop().unwrap()
        })
    }

    /// Makes both lanes look alive until `milliseconds`.
    fn breathe(&mut self, milliseconds: u64) {
        for handle in &self.handles {
            handle.counters.lane.breaths.increment();
            handle.counters.lane.configuration_version.set(1);
        }
        self.control.on_tick(at(milliseconds), WALL);
    }

    /// A connection on lane 1 that sends its SYN at `milliseconds`.
    fn connect(&self, milliseconds: u64) {
        let mut stack = Stack::new(tcp::Settings::default(), Random::from_seed(1), Arc::default());
        stack.trace_into(Arc::clone(&self.handles[1].trace));
        let flow = Flow::new("198.18.0.2:40000".parse().unwrap(), "198.18.0.1:8001".parse().unwrap());
        stack.connect(flow, Token(0), at(milliseconds)).unwrap();
        stack.poll_transmit(&mut [0; 1500], false, at(milliseconds)).unwrap();
    }

    fn metrics(&self) -> String {
        self.control.metrics().encode().unwrap()
    }

    fn unfit(&self) -> Option<String> {
        self.control.view().borrow().unfit.clone()
    }
}

fn trace() -> tcp::trace::Settings {
    tcp::trace::Settings { one_in: 1, records: 64 }
}

fn text() -> String {
    include_str!("../dpdk-config/tap.toml").replace("file = \"-\"", "file = \"records.log\"")
}

fn record() -> Record {
    Record {
        lane: LaneId(1),
        began: WALL,
        lasted: Duration::from_millis(5),
        times: Times::default(),
        client: "198.18.0.1:50000".parse().unwrap(),
        local: "198.18.0.10:443".parse().unwrap(),
        service: identity::service("shop"),
        server_name: None,
        client_subject: None,
        version: None,
        cipher: None,
        resumed: Some(true),
        key_id: None,
        issuer: Some(identity::engine("engine-1")),
        wanted: Some(identity::server("web", "a")),
        chosen: Some((identity::pool("web"), identity::server("web", "b"))),
        reason: Some(Reason::SwitchedDown),
        received: 1,
        sent: 2,
        end: End::Finished,
    }
}

#[test]
fn every_lane_finds_keys_and_a_configuration_of_its_own() {
    let bench = Bench::new();
    assert!(matches!(bench.handles[0].inbox.pop(), Some(Order::Ring(_))));
    let [first, second] = bench.snapshots();
    assert_eq!((first.version, second.version), (1, 1));
    assert!(!Arc::ptr_eq(&first.services[0], &second.services[0]));
    assert!(!Arc::ptr_eq(&first.services[0].tls, &second.services[0].tls));
    assert!(!Arc::ptr_eq(&first.pools[0].pool, &second.pools[0].pool));
    assert!(
        Arc::ptr_eq(&first.pools[0].pool, first.services[0].tls.pool()),
        "a service and its monitor mean the same pool"
    );
    let port = &first.ports[0];
    assert_eq!(port.mac, EthernetAddress([2, 0, 0, 0, 0, 1]));
    let virtual_addresses: Vec<_> = port.virtual_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(virtual_addresses, ["198.18.0.10", "2001:db8::10"]);
}

#[test]
fn a_reload_reaches_every_lane_and_servers_keep_their_place() {
    let mut bench = Bench::new();
    let [before, _] = bench.snapshots();
    bench.reload(&text().replacen("name = \"a\"", "name = \"c\"", 1));
    let [after, other] = bench.snapshots();
    assert_eq!((after.version, other.version), (2, 2));
    let slot = |snapshot: &Snapshot, name: &str| {
        snapshot.pools[0].pool.servers.iter().find(|server| server.name == name).map(|server| server.slot)
    };
    assert_eq!(slot(&before, "b"), slot(&after, "b"));
    assert_eq!(slot(&after, "a"), None);
    assert_ne!(slot(&after, "c"), slot(&before, "a"), "connections of before may be at the first");
    // The lane that had it has taken the next configuration, and all connections of before are over.
    let was = slot(&before, "a");
    drop(before);
    bench.reload(&text().replacen("name = \"a\"", "name = \"d\"", 1));
    assert_eq!(slot(&bench.snapshots()[0], "d"), was, "the place is free");
}

#[test]
fn a_bad_reload_changes_nothing() {
    let mut bench = Bench::new();
    bench.snapshots();
    for bad in [
        "",
        "[engine]\n",
        &text().replace("tickets = 2", "tickets = 9"),
        &text().replace("cores = [0, 1]", "cores = [0]"),
    ] {
        bench.reload(bad);
        assert!(bench.orders(0).is_empty() && bench.orders(1).is_empty(), "{bad}");
    }
    let metrics = bench.metrics();
    assert!(metrics.contains("sealane_control_reloads_refused_total 4\n"), "{metrics}");
    assert!(metrics.contains("sealane_control_configuration_version 1\n"), "{metrics}");
    bench.reload(&text());
    assert_eq!(bench.snapshots()[0].version, 2);
}

#[test]
fn a_reload_reads_certificates_again() {
    let mut bench = Bench::new();
    bench.snapshots();
    std::fs::write(bench.path("shop-ecdsa.pem"), "no longer a certificate").unwrap();
    bench.reload(&text());
    assert!(bench.orders(0).is_empty());
    assert!(bench.metrics().contains("sealane_control_reloads_refused_total 1\n"));
}

#[test]
fn the_newest_reload_waits_for_a_lane_whose_inbox_is_full() {
    let mut bench = Bench::new();
    bench.orders(0);
    while bench.handles[0].inbox.push(Order::Drain).is_ok() {}
    bench.reload(&text());
    bench.reload(&text());
    bench.orders(0);
    bench.control.on_tick(at(50), WALL);
    let orders = bench.orders(0);
    assert!(matches!(&orders[..], [Order::Configure(snapshot)] if snapshot.version == 3), "{orders:?}");
}

#[test]
fn k9_a_new_ring_is_given_to_every_lane_within_a_second_without_a_reload() {
    let mut bench = Bench::new();
    bench.orders(0);
    bench.orders(1);
    let tomorrow = WALL + Duration::from_secs(200 * 365 * 86_400);
    bench.control.on_tick(at(300), tomorrow);
    for lane in [0, 1] {
        assert!(matches!(&bench.orders(lane)[..], [Order::Ring(ring)] if ring.version() == 2));
    }
    assert_eq!(bench.control.view().borrow().ring_version, 2);
}

#[test]
fn k9_a_replaced_key_file_is_on_every_lane_within_a_second_without_a_reload() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("keys.ring");
    let (mut random, schedule) = (Random::from_seed(5), Schedule::default());
    let ring = Ring::generate(WALL, &mut random).with_pending(WALL, &mut random);
    keys::file::write(&path, &ring, false).unwrap();
    let source = format!("source = \"file\"\nfile = {path:?}\n");
    let mut bench = Bench::with(&text().replace("source = \"own\"", &source));
    for lane in [0, 1] {
        assert!(matches!(bench.orders(lane).first(), Some(Order::Ring(ring)) if ring.version() == 1));
    }
    keys::file::write(&path, &ring.rotate(WALL, &mut random, &schedule), true).unwrap();
    let mut took = [None; 2];
    for milliseconds in (50..=1000).step_by(50) {
        bench.control.on_tick(at(milliseconds), WALL);
        for (lane, took) in took.iter_mut().enumerate() {
            if matches!(&bench.orders(lane)[..], [Order::Ring(ring)] if ring.version() == 2) {
                *took = Some(milliseconds);
            }
        }
    }
    assert!(took.iter().all(|took| took.is_some_and(|took| took < 1000)), "{took:?}");
    let metrics = bench.metrics();
    for line in [
        "sealane_control_configuration_version 1",
        "sealane_ticket_ring_version 2",
        "sealane_ticket_keys{state=\"retiring\"} 1",
    ] {
        assert!(metrics.lines().any(|candidate| candidate == line), "no {line}\nin\n{metrics}");
    }
}

#[test]
fn k5_k7_what_is_wrong_with_keys_is_a_gauge_and_told_once() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("keys.ring");
    let mut random = Random::from_seed(5);
    let ring = Ring::generate(WALL, &mut random);
    keys::file::write(&path, &ring, false).unwrap();
    let source = format!("source = \"file\"\nfile = {path:?}\n");
    let mut bench = Bench::with(&text().replace("source = \"own\"", &source));
    let gauge = |bench: &Bench, alarm: &str| {
        let name = format!("sealane_ticket_alarm{{alarm=\"{alarm}\"}} ");
        let metrics = bench.metrics();
        metrics.lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned)).unwrap()
    };
    let day = WALL + Duration::from_secs(86_400);
    for turn in 1..4 {
        bench.control.on_tick(at(300 * turn), day);
    }
    assert_eq!([gauge(&bench, "stale"), gauge(&bench, "from-the-future")], ["1", "0"]);
    assert!(matches!(bench.orders(0).last(), Some(Order::Ring(ring)) if ring.active().is_none()));
    keys::file::write(&path, &ring.rotate(day + Duration::from_secs(61), &mut random, &Schedule::default()), true)
        .unwrap();
    bench.control.on_tick(at(1500), day);
    assert_eq!([gauge(&bench, "stale"), gauge(&bench, "from-the-future")], ["0", "1"]);
    bench.control.on_tick(at(1800), day + Duration::from_secs(1));
    assert_eq!([gauge(&bench, "stale"), gauge(&bench, "from-the-future")], ["0", "0"]);
    assert!(matches!(bench.orders(0).last(), Some(Order::Ring(ring)) if ring.active().is_some()));
    assert!(bench.metrics().contains("sealane_control_ring_alarms_total 2\n"));
}

#[test]
fn an_ended_connection_is_one_line_with_names_also_of_what_a_reload_removed() {
    let mut bench = Bench::new();
    bench.reload(&text().replacen("name = \"a\"", "name = \"c\"", 1));
    bench.handles[1].records.push(record()).unwrap();
    bench.control.on_tick(at(50), WALL);
    let log = std::fs::read_to_string(bench.path("records.log")).unwrap();
    let line: serde_json::Value = serde_json::from_str(&log).unwrap();
    assert_eq!(line["service"], "shop");
    assert_eq!(
        line["persistence"],
        serde_json::json!({
            "wanted": "web/a", "chosen": "web/b", "reason": Reason::SwitchedDown.name(), "key_id": null,
            "issuer": "engine-1", "resumed": true
        })
    );
}

#[test]
fn records_beyond_the_bound_are_counted() {
    let mut bench = Bench::new();
    bench.reload(&text().replace("# records_per_second = 1000", "records_per_second = 3"));
    for _ in 0..5 {
        bench.handles[1].records.push(record()).unwrap();
    }
    bench.control.on_tick(at(50), WALL);
    assert_eq!(std::fs::read_to_string(bench.path("records.log")).unwrap().lines().count(), 3);
    let metrics = bench.metrics();
    assert!(metrics.contains("sealane_control_records_written_total 3\n"), "{metrics}");
    assert!(metrics.contains("sealane_control_records_left_out_total 2\n"), "{metrics}");
}

#[test]
fn a_log_that_was_moved_away_is_opened_anew_by_a_reload() {
    let mut bench = Bench::new();
    std::fs::rename(bench.path("records.log"), bench.path("records.log.1")).unwrap();
    bench.reload(&text());
    bench.handles[0].records.push(record()).unwrap();
    bench.control.on_tick(at(50), WALL);
    assert_eq!(std::fs::read_to_string(bench.path("records.log")).unwrap().lines().count(), 1);
}

#[test]
fn the_engine_is_fit_while_every_lane_breathes() {
    let mut bench = Bench::new();
    bench.control.on_tick(at(250), WALL);
    assert_eq!(bench.unfit().as_deref(), Some("lane 0 has not started"));
    bench.breathe(500);
    assert_eq!(bench.unfit(), None);
    bench.handles[0].counters.lane.breaths.increment();
    bench.control.on_tick(at(1000), WALL);
    bench.handles[0].counters.lane.breaths.increment();
    bench.control.on_tick(at(1501), WALL);
    assert_eq!(bench.unfit().as_deref(), Some("lane 1 has not breathed for 1001 ms"));
    bench.breathe(1800);
    assert_eq!(bench.unfit(), None);
}

/// tap.toml with an interface of the kernel, and announcing.
fn beside() -> String {
    text()
        .replacen("\nmtu = 1500", "\nmtu = 1500\nkernel = { interface = \"front0\" }", 1)
        .replacen("[engine.log]", "[engine.announce]\n[engine.log]", 1)
        .replacen("# drain_delay = \"0s\"", "drain_delay = \"3s\"", 1)
}

impl Bench {
    /// What routing daemons are to find, as text.
    fn announced(&self) -> Vec<String> {
        self.control.wanted().borrow().routes.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn a_virtual_address_is_announced_while_the_engine_wants_clients_and_a_pool_of_its_is_up() {
    const BOTH: [&str; 2] = ["198.18.0.10 dev front0 table 198", "2001:db8::10 dev front0 table 198"];
    const NONE: [&str; 0] = [];
    let mut bench = Bench::with(&beside());
    let interfaces = bench.control.wanted().borrow().interfaces.clone();
    assert_eq!((interfaces.len(), interfaces[0].name.as_str(), interfaces[0].mtu), (1, "front0", 1500));
    assert_eq!(
        interfaces[0].addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["198.18.0.2/16", "2001:db8::2/64"]
    );
    bench.board.publish(Slot(0), Health::Up);
    bench.control.on_tick(at(250), WALL);
    assert_eq!(bench.announced(), NONE, "no lane has started");
    bench.breathe(500);
    assert_eq!(bench.announced(), BOTH);
    for (health, announced) in
        [(Health::Down, &NONE[..]), (Health::Up, &BOTH), (Health::Maintenance, &NONE), (Health::Unknown, &NONE)]
    {
        bench.board.publish(Slot(0), health);
        bench.control.on_tick(at(550), WALL);
        assert_eq!(bench.announced(), announced, "its servers are {health:?} and not looked at yet");
    }
    bench.board.publish(Slot(1), Health::Up);
    bench.control.on_tick(at(600), WALL);
    assert_eq!(bench.announced(), BOTH);
    bench.reload(&beside().replacen("[engine.announce]\n[", "[engine.announce]\ntable = 7\n[", 1));
    assert_eq!(bench.announced(), ["198.18.0.10 dev front0 table 7", "2001:db8::10 dev front0 table 7"]);
    bench.reload(&beside().replacen("# servers_up_min = 1", "servers_up_min = 2", 1));
    assert_eq!(bench.announced(), NONE, "one server is too few");
    bench.board.publish(Slot(0), Health::Up);
    bench.breathe(750);
    assert_eq!(bench.announced(), BOTH);
    bench.control.on_command(Command::Drain, at(800), WALL);
    assert_eq!(bench.announced(), NONE);
    assert!(bench.orders(0).iter().all(|order| !matches!(order, Order::Drain)), "connections are still taken");
}

#[test]
fn an_engine_that_does_not_announce_tells_the_kernel_nothing_but_its_interfaces() {
    let mut bench = Bench::with(&beside().replacen("[engine.announce]\n", "", 1));
    bench.breathe(500);
    assert_eq!(bench.announced(), [""; 0]);
    let mut bench = Bench::new();
    bench.breathe(500);
    assert_eq!(*bench.control.wanted().borrow(), sealane::control::kernel::Wanted::default());
}

#[test]
fn a_drain_ends_when_the_last_connection_does() {
    let mut bench = Bench::new();
    bench.orders(0);
    bench.handles[1].counters.relay.open.set(1);
    assert!(!bench.control.is_drained(at(0)));
    bench.control.on_command(Command::Drain, at(1000), WALL);
    assert!(matches!(&bench.orders(0)[..], [Order::Drain]));
    assert_eq!(bench.unfit().as_deref(), Some("draining"));
    assert!(!bench.control.is_drained(at(2000)));
    bench.handles[1].counters.relay.open.set(0);
    assert!(bench.control.is_drained(at(2001)));
    bench.handles[1].records.push(record()).unwrap();
    bench.control.stop(at(2001));
    assert_eq!(bench.stopped.load(Ordering::Relaxed), 1);
    assert_eq!(
        std::fs::read_to_string(bench.path("records.log")).unwrap().lines().count(),
        1,
        "the last record is kept"
    );
}

#[test]
fn connections_are_taken_on_while_a_drain_is_delayed() {
    let mut bench = Bench::new();
    bench.reload(&text().replacen("# drain_delay = \"0s\"", "drain_delay = \"3s\"", 1));
    bench.orders(0);
    bench.control.on_command(Command::Drain, at(1000), WALL);
    assert_eq!(bench.unfit().as_deref(), Some("draining"), "whoever sends clients is told at once");
    bench.control.on_tick(at(3999), WALL);
    assert!(bench.orders(0).is_empty() && !bench.control.is_drained(at(3999)));
    bench.control.on_tick(at(4000), WALL);
    assert!(matches!(&bench.orders(0)[..], [Order::Drain]));
    assert!(bench.control.is_drained(at(4200)));
}

#[test]
fn a_drain_ends_at_its_timeout_and_at_once_when_asked_twice() {
    let mut bench = Bench::new();
    bench.handles[0].counters.relay.open.set(1);
    bench.control.on_command(Command::Drain, at(0), WALL);
    assert!(!bench.control.is_drained(at(29_999)));
    assert!(bench.control.is_drained(at(30_000)));
    bench.control.on_command(Command::Drain, at(1), WALL);
    assert!(bench.control.is_drained(at(1)));
}

/// What the lane says of the server at a slot after a probe came to `last`.
fn verdict(slot: u32, last: Outcome, before: Health) -> Verdict {
    let health = if last.is_ok() { Health::Up } else { Health::Down };
    let lasted = Duration::from_secs(3);
    let findings = vec![Finding { monitor: "connect".into(), health, last: Some(last), lasted }];
    Verdict { pool: "web".into(), server: "a".into(), slot: Slot(slot), health, before, lasted, findings }
}

#[test]
fn the_newest_verdict_on_each_server_is_there_to_be_read_with_its_reasons_until_a_reload_takes_it_away() {
    let mut bench = Bench::new();
    for (slot, last) in [(0, Ok(Answer::Normal)), (1, Err(Cause::TimedOut)), (0, Err(Cause::Refused))] {
        bench.handles[0].verdicts.push(verdict(slot, last, Health::Unknown)).unwrap();
    }
    bench.breathe(250);
    let view = bench.control.view();
    let reasons = |slot| view.borrow().health.of(Slot(slot)).map(|seen| seen.verdict.reasons());
    assert_eq!(reasons(0).unwrap(), "connect: refused");
    assert_eq!(reasons(1).unwrap(), "connect: timed out");
    let metrics = bench.metrics();
    for line in [
        "sealane_server_probe_well{pool=\"web\",server=\"a\",monitor=\"connect\",last=\"refused\"} 0",
        "sealane_server_probe_since_seconds{pool=\"web\",server=\"a\",monitor=\"connect\"} 1767225597",
        "sealane_server_in_maintenance{pool=\"web\",server=\"a\"} 0",
    ] {
        assert!(metrics.lines().any(|candidate| candidate == line), "no {line}\nin\n{metrics}");
    }
    assert_eq!(view.borrow().health.of(Slot(0)).unwrap().since(), UnixTime(WALL.0 - 3));
    assert!(bench.metrics().contains("sealane_control_health_changes_total 3"));

    let gone =
        Verdict { health: Health::Unknown, findings: Vec::new(), ..verdict(0, Ok(Answer::Normal), Health::Down) };
    bench.handles[0].verdicts.push(gone).unwrap();
    bench.breathe(500);
    assert_eq!(reasons(0), None);
    assert!(bench.metrics().contains("sealane_control_health_changes_total 3"), "a server that left went nowhere");
}

#[test]
fn metrics_name_lanes_ports_and_servers() {
    let mut bench = Bench::new();
    bench.handles[1].counters.lane.busy_nanoseconds.add(1_500_000_000);
    bench.handles[0].counters.links[0].arp_requests_sent.add(3);
    bench.handles[0].verdicts.push(verdict(0, Err(Cause::Refused), Health::Up)).unwrap();
    bench.breathe(250);
    let metrics = bench.metrics();
    for line in [
        "# TYPE sealane_lane_busy_seconds counter",
        "# UNIT sealane_lane_busy_seconds seconds",
        "sealane_lane_busy_seconds_total{lane=\"1\"} 1.5",
        "sealane_link_arp_requests_sent_total{lane=\"0\",port=\"front\"} 3",
        "# TYPE sealane_relay_open gauge",
        "sealane_relay_open{lane=\"0\"} 0",
        "sealane_server_up{pool=\"web\",server=\"a\"} 1",
        "sealane_server_connections{pool=\"web\",server=\"b\"} 0",
        "sealane_control_configuration_version 1",
        "sealane_control_health_changes_total 1",
        "sealane_ticket_ring_version 1",
        concat!("sealane_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(metrics.lines().any(|candidate| candidate == line), "no {line}\nin\n{metrics}");
    }
    assert!(metrics.contains("sealane_ticket_active_key{key_id=\""), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));
    let mut families: Vec<_> = metrics.lines().filter(|line| line.starts_with("# TYPE")).collect();
    families.sort_unstable();
    let count = families.len();
    families.dedup();
    assert_eq!(families.len(), count, "OpenMetrics allows a family once");
}

/// A clock that stands where it is put.
#[derive(Clone)]
struct Standing(Rc<Cell<Instant>>);

impl Clock for Standing {
    fn read(&mut self) -> (Instant, UnixTime) {
        (self.0.get(), WALL)
    }

    fn sleep(&mut self, _rest: Duration) {}
}

#[test]
fn real_lanes_take_the_configuration_and_the_drain() {
    let mut bench = Bench::new();
    let clock = Standing(Rc::new(Cell::new(at(0))));
    let machine = Machine { cores: vec![0, 1], memory: 64 << 30, now: WALL };
    let configuration = config::load(&bench.path("sealane.toml"), &machine).unwrap();
    let ring = Arc::new(Ring::generate(WALL, &mut Random::from_seed(2)));
    let loads = Arc::new(Loads::new(2, 16));
    let (queues, wire) = memory::port(2, EthernetAddress([2, 0, 0, 0, 0, 1]), 1500);
    let mut lanes: Vec<_> = queues
        .into_iter()
        .zip(Steering::between(2))
        .zip(&bench.handles)
        .map(|((queue, steering), handle)| {
            let settings = lane::Settings {
                engine: configuration.engine.id,
                poll: configuration.engine.poll,
                tcp: publish::tcp_settings(&configuration),
                ring: Arc::clone(&ring),
                board: Arc::new(Board::new(16)),
                loads: Arc::clone(&loads),
                monitors: None,
            };
            let random = Random::from_seed(u64::from(handle.lane.0));
            Lane::new(settings, handle.clone(), steering, vec![queue], clock.clone(), random)
        })
        .collect();
    let mut turn = |bench: &mut Bench, milliseconds: u64| {
        clock.0.set(at(milliseconds));
        for lane in &mut lanes {
            lane.breath();
        }
        bench.control.on_tick(at(milliseconds), WALL);
    };
    turn(&mut bench, 250);
    assert_eq!(bench.unfit(), None);
    bench.reload(&text().replace("ratio = 1", "ratio = 3"));
    turn(&mut bench, 500);
    let versions: Vec<_> =
        bench.handles.iter().map(|handle| handle.counters.lane.configuration_version.value()).collect();
    assert_eq!(versions, [2, 2]);
    bench.control.on_command(Command::Drain, at(600), WALL);
    turn(&mut bench, 850);
    assert!(bench.control.is_drained(at(850)));
    drop(wire);
}

/// What an HTTP GET of `path` is answered with.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_admin_api_answers_over_a_socket() {
    let mut bench = Bench::new();
    let listener = admin::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::spawn(admin::serve(listener, admin::router(bench.control.metrics(), bench.control.view(), bench.control.traces())));
        let ask =
            |path: &'static str| async move { tokio::task::spawn_blocking(move || get(address, path)).await.unwrap() };
        bench.control.on_tick(at(250), WALL);
        let answer = ask("/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("lane 0 has not started\n"), "{answer}");
        bench.breathe(500);
        let answer = ask("/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
        let answer = ask("/metrics").await;
        assert!(
            answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
            "{answer}"
        );
        assert!(answer.contains("sealane_lane_breaths_total{lane=\"0\"} 1\n"), "{answer}");
        assert!(ask("/").await.starts_with("HTTP/1.1 404 "));
        bench.connect(1500);
        let show = move || sealane(&["trace", "--from", &address.to_string(), "--flow", "198.18.0.1:8001"]);
        let shown = tokio::task::spawn_blocking(show).await.unwrap();
        let line = "2026-01-01T00:00:01.500000Z +0.000000 lane 1 198.18.0.2:40000 198.18.0.1:8001 > S 0:0(0) win 65535 <mss 1460";
        assert!(shown.starts_with(line) && shown.lines().count() == 1, "{shown}");
    });
}

/// What the program says on standard output.
fn sealane(arguments: &[&str]) -> String {
    let ended = std::process::Command::new(env!("CARGO_BIN_EXE_sealane")).args(arguments).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn a_reload_changes_how_many_connections_are_traced() {
    let mut bench = Bench::new();
    let traced = |bench: &Bench| bench.control.traces().document().lanes[1].reading.written;
    bench.reload(&text().replace("[engine.log]", "[engine.trace]\none_in = 0\n[engine.log]"));
    bench.connect(1);
    assert_eq!(traced(&bench), 0);
    bench.reload(&text().replace("[engine.log]", "[engine.trace]\none_in = 1\n[engine.log]"));
    bench.connect(2);
    assert_eq!(traced(&bench), 1);
    // What is refused changes nothing.
    bench.reload(&text().replace("[engine.log]", "[engine.trace]\none_in = 0\nrecords = 1\n[engine.log]"));
    bench.connect(3);
    assert_eq!(traced(&bench), 2);
}

#[test]
fn an_engine_that_stops_or_panics_leaves_its_trace_behind() {
    let text = text().replace("[engine.log]", "[engine.trace]\nfile = \"engine.trace\"\n[engine.log]");
    let mut bench = Bench::with(&text);
    let file = bench.path("engine.trace");
    bench.connect(5);
    assert!(!file.exists());
    bench.control.stop(at(10));
    let lines = || sealane(&["trace", "--file", file.to_str().unwrap()]).lines().count();
    assert_eq!(lines(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    bench.connect(20);
    bench.control.traces().save_on_panic(file.clone());
    let lane = std::thread::spawn(|| panic!("as a lane may"));
    assert!(lane.join().is_err());
    assert_eq!(lines(), 2);
}

#[test]
fn an_admin_address_that_is_taken_is_told_by_key() {
    let taken = admin::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = admin::bind(taken.local_addr().unwrap()).unwrap_err().to_string();
    assert!(
        error.starts_with("engine.admin: cannot listen on 127.0.0.1:") && error.contains("write another address"),
        "{error}"
    );
}

#[test]
fn a_running_control_drains_and_ends() {
    let bench = Bench::new();
    let (commands, receiver) = tokio::sync::mpsc::channel(4);
    commands.blocking_send(Command::Drain).unwrap();
    let thread = bench.control.start(receiver).unwrap();
    thread.join().unwrap().unwrap();
    assert_eq!(bench.stopped.load(Ordering::Relaxed), 1);
}

/// One port that has lost a frame, and another that is gone.
#[derive(Debug)]
struct Ports;

impl nic::Reports for Ports {
    fn report(&self, port: PortId) -> Option<nic::Report> {
        (port == PortId(0)).then(|| nic::Report {
            driver: "net_ice".to_owned(),
            link_megabits: Some(100_000),
            counts: nic::Counts { missed: 1, ..nic::Counts::default() },
            extended: vec![("rx_q0_errors".to_owned(), 7)],
            ..nic::Report::default()
        })
    }
}

#[test]
fn what_a_port_reports_is_shown_and_what_it_hides_is_said() {
    let mut bench = Bench::new();
    assert!(!bench.metrics().contains("sealane_port_"), "without ports to ask");
    bench.control = bench.control.with_ports(Arc::new(Ports));
    let metrics = bench.metrics();
    for line in [
        "sealane_port_missed_total{port=\"front\"} 1",
        "sealane_port_link_up{port=\"front\"} 0",
        "sealane_port_link_speed_bytes{port=\"front\"} 12500000000",
        "sealane_port_reports{port=\"front\",statistic=\"missed\"} 1",
        "sealane_port_extended{port=\"front\",name=\"rx_q0_errors\"} 7",
    ] {
        assert!(metrics.lines().any(|candidate| candidate == line), "no {line}\nin\n{metrics}");
    }
}
