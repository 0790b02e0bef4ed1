//! The engine in a deterministic world: two lanes, lossy links, virtual time. Every assertion names its seed.

mod failover;
mod flapping;
mod health;
mod reencryption;

use std::time::Duration;

use sealane::balance::{Admission, Draining, Health, State};
use sealane::base::Generation;
use sealane::nic::Offload;
use sealane::persistence::client_ip::Settings;
use sealane::persistence::{Method, OnLimit, Queue, Reason, SelectNewServer};
use sealane::relay::End;
use sealane::sim::{Conditions, Identity, Narrow, Outcome, Setup, Visit, World};
use sealane::tcp::Close;

/// Seeds of every test. One that ever failed stays here.
const SEEDS: std::ops::Range<u64> = 0..20;

/// Lost, doubled, damaged and reordered frames.
const LOSSY: Conditions = Conditions {
    loss_permille: 20,
    duplicate_permille: 5,
    corrupt_permille: 2,
    delay: Duration::from_millis(1),
    jitter: Duration::from_millis(3),
};

fn identity() -> Identity {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let certificate = rcgen::CertificateParams::new(["shop.example".into()]).and_then(|leaf| leaf.self_signed(&key));
    let certificate = certificate.expect("a certificate");
    Identity { chain: certificate.pem(), key: key.serialize_pem(), root: certificate.der().clone() }
}

fn worlds(setup: Setup) -> impl Iterator<Item = (u64, World)> {
    let identity = identity();
    SEEDS.map(move |seed| (seed, World::new(seed, &identity, setup)))
}

/// Nothing is left of connections that have ended: no relay, no packet buffer.
fn assert_clean(world: &mut World, seed: u64) {
    world.set_conditions(Conditions::default());
    world.run_for(Duration::from_secs(400));
    assert_eq!(world.open(), 0, "relays are left, seed {seed}");
    assert_eq!(world.buffers_in_use(), 0, "packet buffers are left, seed {seed}");
}

#[test]
fn returning_clients_keep_their_server_over_a_lossy_network() {
    for (seed, mut world) in worlds(Setup { conditions: LOSSY, ..Setup::default() }) {
        for client in 0..8 {
            let first = world.visit(client).served();
            assert!(!first.resumed, "client {client} has no ticket yet, seed {seed}");
            for _ in 0..3 {
                let again = world.visit(client).served();
                assert!(again.resumed, "client {client} did not resume, seed {seed}");
                assert_eq!(again.server, first.server, "client {client} was moved, seed {seed}");
            }
        }
        assert_clean(&mut world, seed);
    }
}

#[test]
fn returning_tls12_clients_keep_their_server() {
    for (seed, mut world) in worlds(Setup { tls12: true, conditions: LOSSY, ..Setup::default() }) {
        for client in 0..4 {
            let first = world.visit(client).served();
            let again = world.visit(client).served();
            assert!(again.resumed && again.server == first.server, "seed {seed}: {first:?} then {again:?}");
        }
    }
}

/// The sum of a counter of a module over the engine's lanes.
fn counted(world: &World, of: &str, name: &str) -> u64 {
    let mut sum = 0;
    for handle in world.handles() {
        handle.counters.read(&mut |module, _, reading| {
            sum += if (module, reading.name) == (of, name) { reading.value } else { 0 };
        });
    }
    sum
}

#[test]
fn a_narrow_path_carries_transfers_both_ways_and_its_errors_reach_the_lane_whose_flow_it_is() {
    for (seed, mut world) in worlds(Setup::default()) {
        world.set_narrow(Some(Narrow { mtu: 1300, silent: false }));
        for client in 0..4 {
            world.transfer(client, 100_000, 100_000).served();
        }
        // Errors arrive on any lane. One that got lost would be made up for, and show here.
        // Once for the clients' host and for each server at least, and later connections of a lane know.
        assert!(counted(&world, "tcp", "path_mtu_lowered") >= 5, "seed {seed}");
        assert_eq!(
            (counted(&world, "tcp", "black_holes"), counted(&world, "tcp", "retransmission_timeouts")),
            (0, 0),
            "seed {seed}"
        );
        assert_clean(&mut world, seed);
    }
}

#[test]
fn a_path_that_swallows_large_packets_carries_transfers_both_ways() {
    // A damaged ARP message, which no checksum protects, sends a lane's frames astray for half a minute.
    let conditions = Conditions { corrupt_permille: 0, ..LOSSY };
    for (seed, mut world) in worlds(Setup { conditions, ..Setup::default() }) {
        world.visit(0).served();
        world.set_narrow(Some(Narrow { mtu: 1300, silent: true }));
        for client in 0..2 {
            world.transfer(client, 100_000, 100_000).served();
        }
        assert!(counted(&world, "tcp", "black_holes") > 0, "seed {seed}");
        world.set_narrow(None);
        world.transfer(0, 100_000, 100_000).served();
        assert_clean(&mut world, seed);
    }
}

#[test]
fn clients_without_a_ticket_are_spread() {
    for (seed, mut world) in worlds(Setup { clients: 40, ..Setup::default() }) {
        let mut visits = [0; 4];
        for client in 0..40 {
            visits[world.visit(client).served().server as usize] += 1;
        }
        assert!(visits.iter().all(|count| (7..=13).contains(count)), "{visits:?}, seed {seed}");
    }
}

#[test]
fn returning_client_keeps_its_server_across_key_rotation() {
    for (seed, mut world) in worlds(Setup::default()) {
        let first = world.visit(0).served();
        world.rotate_keys();
        let again = world.visit(0).served();
        assert!(again.resumed && again.server == first.server, "seed {seed}: {first:?} then {again:?}");
    }
}

/// The clients of a cluster come back, each meeting any engine and lane, and find their servers.
fn return_all(world: &mut World, servers: &[u32], seed: u64) {
    world.rehash();
    for (client, server) in servers.iter().enumerate() {
        let again = world.visit(client).served();
        assert!(again.resumed && again.server == *server, "client {client} of server {server}: {again:?}, seed {seed}");
    }
}

#[test]
fn p8_any_engine_gives_the_same_answer_in_whatever_order_keys_arrive() {
    let setup = Setup { engines: 3, clients: 6, conditions: LOSSY, ..Setup::default() };
    for (seed, mut world) in worlds(setup) {
        let servers: Vec<_> = (0..6).map(|client| world.visit(client).served().server).collect();
        return_all(&mut world, &servers, seed);
        let mut last = None;
        for turn in 0..4 {
            // No ring is made before everybody has the one before; that is what keeps the next key known everywhere.
            let ring = world.rotated();
            for place in 0..3 {
                // Each turn another order, and what comes late and again is no news.
                let engine = u16::try_from((place * (1 + (seed + turn) % 2) + seed + turn) % 3).unwrap();
                world.deliver(engine, &ring);
                last.iter().for_each(|old| world.deliver(engine, old));
                return_all(&mut world, &servers, seed);
            }
            last = Some(ring);
        }
        let resumed: Vec<_> = (0..3).map(|engine| resumed_by(&world, engine)).collect();
        assert!(resumed.iter().all(|count| *count > 0), "{resumed:?} sessions resumed by each engine, seed {seed}");
    }
}

#[test]
fn p9_clients_that_are_away_leave_nothing_at_the_engine() {
    let held = |world: &World| {
        ["connections", "half_open", "time_wait"].map(|name| counted(world, "tcp", name)).iter().sum::<u64>()
    };
    for (seed, mut world) in worlds(Setup { clients: 40, ..Setup::default() }).take(4) {
        // What the monitors' probes come to, now and until they are forgotten.
        world.run_for(Duration::from_secs(200));
        let probes = held(&world);
        let servers: Vec<_> = (0..40).map(|client| world.visit(client).served().server).collect();
        assert!(held(&world) >= probes + 10, "visits do not show, seed {seed}");
        world.run_for(Duration::from_secs(200));
        assert!(held(&world) < probes + 10, "{} and not {probes}, seed {seed}", held(&world));
        assert_eq!((world.open(), world.buffers_in_use()), (0, 0), "seed {seed}");
        return_all(&mut world, &servers, seed);
    }
}

/// How many sessions an engine of two lanes has resumed.
fn resumed_by(world: &World, engine: usize) -> u64 {
    let lanes = world.handles().skip(2 * engine).take(2);
    lanes.map(|handle| handle.counters.tickets.handshakes_resumed.value()).sum()
}

#[test]
fn p10_returning_clients_keep_their_server_while_engines_come_and_go() {
    for (seed, mut world) in worlds(Setup { engines: 3, clients: 6, ..Setup::default() }) {
        let servers: Vec<_> = (0..6).map(|client| world.visit(client).served().server).collect();
        // A rolling restart, which a rotation overtakes: the last engine comes back with keys from before it.
        for engine in 0..3 {
            world.set_hop(engine, false);
            return_all(&mut world, &servers, seed);
            world.restart(engine);
            world.run_for(Duration::from_secs(2));
            if engine == 1 {
                let ring = world.rotated();
                (0..2).for_each(|engine| world.deliver(engine, &ring));
            }
            world.set_hop(engine, true);
            return_all(&mut world, &servers, seed);
        }
    }
}

#[test]
fn p10_returning_client_keeps_its_server_across_the_loss_of_the_engine() {
    for (seed, mut world) in worlds(Setup::default()) {
        let first = world.visit(0).served();
        world.replace_engine();
        let again = world.visit(0).served();
        assert!(again.resumed && again.server == first.server, "seed {seed}: {first:?} then {again:?}");
    }
}

#[test]
fn immediate_moves_a_client_whose_server_is_down_and_does_not_fail_back() {
    for (seed, mut world) in worlds(Setup::default()) {
        let first = world.visit(0).served();
        let number = u16::try_from(first.server).unwrap();
        world.stop_server(number);
        world.run_for(Duration::from_secs(6));
        assert!(!world.is_up(number), "seed {seed}");
        let moved = world.visit(0).served();
        assert!(moved.resumed && moved.server != first.server, "seed {seed}: {first:?} then {moved:?}");
        world.start_server(number);
        world.run_for(Duration::from_secs(6));
        assert!(world.is_up(number), "seed {seed}");
        assert_eq!(world.visit(0).served().server, moved.server, "the client went back, seed {seed}");
    }
}

#[test]
fn never_refuses_a_client_whose_server_is_down_until_it_returns() {
    for (seed, mut world) in worlds(Setup { policy: SelectNewServer::Never, ..Setup::default() }) {
        let first = world.visit(0).served();
        let number = u16::try_from(first.server).unwrap();
        world.stop_server(number);
        world.run_for(Duration::from_secs(6));
        world.take_records();
        let refused = world.visit(0);
        assert!(matches!(refused, Outcome::Cut(_)), "seed {seed}: {refused:?}");
        let record = world.take_records().remove(0);
        assert_eq!((record.end, record.reason), (End::Refused, Some(Reason::RefusedDown)), "seed {seed}");
        world.start_server(number);
        world.run_for(Duration::from_secs(6));
        let again = world.visit(0).served();
        assert!(again.resumed && again.server == first.server, "seed {seed}: {first:?} then {again:?}");
    }
}

#[test]
fn never_even_if_down_keeps_sending_a_client_to_its_server() {
    for (seed, mut world) in worlds(Setup { policy: SelectNewServer::NeverEvenIfDown, ..Setup::default() }) {
        let first = world.visit(0).served();
        let number = u16::try_from(first.server).unwrap();
        world.stop_server(number);
        world.run_for(Duration::from_secs(6));
        world.take_records();
        let cut = world.visit(0);
        assert!(matches!(cut, Outcome::Cut(_)), "seed {seed}: {cut:?}");
        let record = world.take_records().remove(0);
        assert_eq!((record.end, record.reason), (End::ServerRefused, Some(Reason::PersistedThoughDown)), "seed {seed}");
    }
}

#[test]
fn p6_a_removed_or_recreated_server_is_never_reached_by_an_old_mapping() {
    for policy in [SelectNewServer::Immediate, SelectNewServer::Never, SelectNewServer::NeverEvenIfDown] {
        for (seed, mut world) in worlds(Setup { policy, ..Setup::default() }) {
            let first = world.visit(0).served();
            let number = u16::try_from(first.server).unwrap();
            world.remove_server(number);
            let moved = world.visit(0).served();
            assert!(moved.resumed && moved.server != first.server, "seed {seed}: {first:?} then {moved:?}");

            let second = world.visit(1).served();
            world.run_for(Duration::from_secs(1));
            world.take_records();
            world.add_server(u16::try_from(second.server).unwrap(), Generation(1));
            world.visit(1).served();
            world.run_for(Duration::from_secs(1));
            let record = world.take_records().remove(0);
            assert_eq!(record.reason, Some(Reason::SwitchedRemoved), "seed {seed}");
        }
    }
}

#[test]
fn clients_that_close_without_close_notify_leave_nothing_behind() {
    for tls12 in BOTH {
        for (seed, mut world) in worlds(Setup { abrupt: true, tls12, ..Setup::default() }) {
            for client in 0..4 {
                world.visit(client).served();
            }
            world.run_for(Duration::from_secs(1));
            assert_eq!(world.open(), 0, "relays are left, seed {seed}");
            let records = world.take_records();
            assert_eq!(records.len(), 4, "seed {seed}");
            assert!(records.iter().all(|record| record.end == End::Finished), "{records:?}, seed {seed}");
        }
    }
}

#[test]
fn an_engine_that_is_stopped_resets_what_is_open_and_records_it() {
    for (seed, mut world) in worlds(Setup::default()) {
        let outcomes = world.stop_engine_during(&[(0, 0, 5_000_000), (1, 5_000_000, 0)]);
        assert_eq!(outcomes, [Outcome::Cut(Close::Reset); 2], "seed {seed}");
        let ends: Vec<_> = world.take_records().iter().map(|record| record.end).collect();
        assert_eq!(ends, [End::Drained; 2], "seed {seed}");
    }
}

#[test]
fn a_connection_outlives_the_service_that_a_reload_removes() {
    for (seed, mut world) in worlds(Setup::default()) {
        for outcome in world.remove_service_during(&[(0, 0, 3_000_000), (1, 3_000_000, 0)]) {
            assert!(matches!(outcome, Outcome::Served(_)), "{outcome:?}, seed {seed}");
        }
        assert!(matches!(world.visit(2), Outcome::Cut(Close::TimedOut | Close::Unreachable)), "seed {seed}");
        assert_clean(&mut world, seed);
    }
}

#[test]
fn a_client_that_lost_its_tickets_is_a_new_client() {
    for (seed, mut world) in worlds(Setup::default()) {
        world.visit(0).served();
        world.forget_tickets(0);
        assert!(!world.visit(0).served().resumed, "seed {seed}");
    }
}

#[test]
fn bulk_transfers_arrive_whole_both_ways_over_a_lossy_network() {
    for (seed, mut world) in worlds(Setup { conditions: LOSSY, ..Setup::default() }) {
        world.transfer(0, 300_000, 10).served();
        world.transfer(1, 10, 300_000).served();
        world.transfer(2, 150_000, 150_000).served();
        let outcomes = world.transfer_all(&[(0, 50_000, 0), (1, 0, 50_000), (2, 1, 1), (3, 20_000, 20_000)]);
        for outcome in outcomes {
            assert!(matches!(outcome, Outcome::Served(_)), "{outcome:?}, seed {seed}");
        }
        assert_clean(&mut world, seed);
    }
}

#[test]
fn a_nic_that_cuts_segments_carries_transfers_both_ways_in_fewer_frames() {
    let offload = Offload { transmit_checksum: true, receive_checksum: true, segmentation: true };
    for (seed, mut world) in worlds(Setup { offload, conditions: LOSSY, ..Setup::default() }) {
        world.transfer(0, 300_000, 10).served();
        world.transfer(1, 10, 300_000).served();
        world.transfer(2, 150_000, 150_000).served();
        let (segments, frames) = (counted(&world, "tcp", "segments_sent"), counted(&world, "lane", "frames_sent"));
        assert!(segments > frames + 100, "{segments} segments in {frames} frames, seed {seed}");
        assert_clean(&mut world, seed);
    }
}

#[test]
fn a_hundred_clients_at_once_are_all_served_and_both_lanes_work() {
    for (seed, mut world) in worlds(Setup { clients: 100, ..Setup::default() }) {
        let visits: Vec<_> = (0..100).map(|client| (client, 100, 5000)).collect();
        for outcome in world.transfer_all(&visits) {
            assert!(matches!(outcome, Outcome::Served(_)), "{outcome:?}, seed {seed}");
        }
        for handle in world.handles() {
            let accepted = handle.counters.relay.accepted.value();
            assert!((30..=70).contains(&accepted), "{:?} accepted {accepted} of 100, seed {seed}", handle.lane);
            assert!(handle.counters.lane.frames_handed_over.value() > 0, "{:?} handed nothing over", handle.lane);
        }
        assert_clean(&mut world, seed);
    }
}

#[test]
fn a_world_repeats_itself_from_its_seed_and_another_seed_differs() {
    let identity = identity();
    let trace = |seed| {
        let mut world = World::new(seed, &identity, Setup { conditions: LOSSY, ..Setup::default() });
        for client in 0..4 {
            world.transfer(client, 5_000, 5_000).served();
        }
        world.trace()
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

/// The first few worlds: what takes many tests need not take all seeds in each.
fn few(setup: Setup) -> impl Iterator<Item = (u64, World)> {
    worlds(setup).take(3)
}

/// A world whose first client has visited and belongs to the server of this number, which has one place.
fn limited(setup: Setup) -> impl Iterator<Item = (u64, World, u16)> {
    few(setup).map(|(seed, mut world)| {
        let server = u16::try_from(world.visit(0).served().server).expect("few servers");
        world.run_for(Duration::from_secs(1));
        world.set_limit(server, Some(1));
        world.take_records();
        (seed, world, server)
    })
}

/// The only record of the only connection that has ended since records were last taken.
fn record(world: &mut World) -> sealane::lane::Record {
    world.run_for(Duration::from_secs(1));
    let mut records = world.take_records();
    assert_eq!(records.len(), 1, "{records:?}");
    records.remove(0)
}

const QUEUE: OnLimit = OnLimit::Queue(Queue { max: 2, timeout: Duration::from_secs(10) });

const BOTH: [bool; 2] = [false, true];

#[test]
fn p1_at_the_limit_switch_moves_a_client_for_good() {
    for tls12 in BOTH {
        for (seed, mut world, server) in limited(Setup { on_limit: OnLimit::Switch, tls12, ..Setup::default() }) {
            let held = world.hold(0);
            let moved = world.visit(0).served();
            assert!(moved.resumed && moved.server != u32::from(server), "seed {seed}: {moved:?}");
            assert_eq!(record(&mut world).reason, Some(Reason::SwitchedLimit), "seed {seed}");
            world.go_on(held).served();
            assert_eq!(world.places(server), 0, "seed {seed}");
            assert_eq!(world.visit(0).served().server, moved.server, "the client went back, seed {seed}");
            assert_eq!(world.most_over_limit(), 0, "seed {seed}");
        }
    }
}

#[test]
fn p1_at_the_limit_spill_moves_a_client_for_one_connection() {
    for tls12 in BOTH {
        for (seed, mut world, server) in limited(Setup { on_limit: OnLimit::Spill, tls12, ..Setup::default() }) {
            let held = world.hold(0);
            let spilled = world.visit(0).served();
            assert!(spilled.resumed && spilled.server != u32::from(server), "seed {seed}: {spilled:?}");
            assert_eq!(record(&mut world).reason, Some(Reason::Spilled), "seed {seed}");
            world.go_on(held).served();
            world.run_for(Duration::from_secs(1));
            world.take_records();
            assert_eq!(world.visit(0).served().server, u32::from(server), "the client did not go back, seed {seed}");
            assert_eq!(record(&mut world).reason, Some(Reason::Persisted), "seed {seed}");
            assert_eq!(world.most_over_limit(), 0, "seed {seed}");
        }
    }
}

#[test]
fn p1_at_the_limit_refuse_resets_a_client_until_there_is_a_place() {
    for policy in [SelectNewServer::Immediate, SelectNewServer::Never, SelectNewServer::NeverEvenIfDown] {
        for (seed, mut world, server) in limited(Setup { policy, on_limit: OnLimit::Refuse, ..Setup::default() }) {
            let held = world.hold(0);
            assert_eq!(world.visit(0), Outcome::Cut(Close::Reset), "seed {seed}");
            let refused = record(&mut world);
            assert_eq!((refused.end, refused.reason), (End::Refused, Some(Reason::RefusedLimit)), "seed {seed}");
            assert_eq!(refused.chosen, None);
            world.go_on(held).served();
            assert_eq!(world.visit(0).served().server, u32::from(server), "seed {seed}");
            assert_eq!(world.most_over_limit(), 0, "seed {seed}");
        }
    }
}

#[test]
fn p1_at_the_limit_a_client_that_queues_is_served_when_there_is_a_place_and_in_order() {
    for tls12 in BOTH {
        for policy in [SelectNewServer::Immediate, SelectNewServer::Never, SelectNewServer::NeverEvenIfDown] {
            let setup = Setup { lanes: 1, policy, on_limit: QUEUE, tls12, ..Setup::default() };
            for (seed, mut world, server) in limited(setup) {
                let held = world.hold(0);
                let [first, second] = [0, 0].map(|client| world.hold(client));
                assert_eq!((world.waiting(server), world.places(server)), (2, 1), "seed {seed}");
                assert_eq!(counted(&world, "relay", "waiting"), 2, "seed {seed}");
                // Nobody overtakes them, and no more than two wait.
                assert_eq!(world.visit(0), Outcome::Cut(Close::Reset), "seed {seed}");
                assert_eq!(record(&mut world).reason, Some(Reason::RefusedQueue), "seed {seed}");
                world.go_on(held).served();
                assert_eq!((world.waiting(server), world.places(server)), (1, 1), "seed {seed}");
                world.run_for(Duration::from_secs(1));
                world.take_records();
                assert_eq!(world.go_on(first).served().server, u32::from(server), "seed {seed}");
                let served = record(&mut world);
                assert_eq!((served.reason, served.end), (Some(Reason::Queued), End::Finished), "seed {seed}");
                assert_eq!((world.waiting(server), world.places(server)), (0, 1), "seed {seed}");
                assert_eq!(world.go_on(second).served().server, u32::from(server), "seed {seed}");
                // It has kept its mapping.
                assert_eq!(world.visit(0).served().server, u32::from(server), "seed {seed}");
                assert_eq!((world.most_over_limit(), counted(&world, "relay", "waiting")), (0, 0), "seed {seed}");
                assert_clean(&mut world, seed);
            }
        }
    }
}

#[test]
fn p1_at_the_limit_a_client_that_waits_too_long_is_refused_and_one_that_gives_up_leaves_its_turn() {
    for (seed, mut world, server) in limited(Setup { on_limit: QUEUE, ..Setup::default() }) {
        let held = world.hold(0);
        let [gone, waits] = [0, 0].map(|client| world.hold(client));
        world.give_up(gone);
        assert_eq!(world.waiting(server), 1, "seed {seed}");
        world.take_records();
        world.run_for(Duration::from_secs(9));
        assert_eq!(world.outcome(waits), None, "seed {seed}");
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.outcome(waits), Some(Outcome::Cut(Close::Reset)), "seed {seed}");
        let refused = record(&mut world);
        assert_eq!((refused.end, refused.reason, refused.chosen), (End::QueueTimedOut, Some(Reason::Queued), None));
        assert_eq!((world.waiting(server), world.places(server)), (0, 1), "seed {seed}");
        world.go_on(held).served();
        assert_eq!(world.visit(0).served().server, u32::from(server), "seed {seed}");
        assert_clean(&mut world, seed);
    }
}

#[test]
fn p4_clients_that_come_at_once_on_all_lanes_never_exceed_a_limit_and_each_place_is_used() {
    for on_limit in [OnLimit::Switch, OnLimit::Spill, OnLimit::Refuse, QUEUE] {
        for policy in [SelectNewServer::Immediate, SelectNewServer::NeverEvenIfDown] {
            let setup = Setup { lanes: 4, clients: 40, policy, on_limit, conditions: LOSSY, ..Setup::default() };
            for (seed, mut world) in few(setup) {
                (0..4).for_each(|server| world.set_limit(server, Some(3)));
                let clients: Vec<_> = (0..40).collect();
                let first = world.hold_all(&clients);
                world.run_for(Duration::from_secs(20));
                assert_eq!((0..4).map(|server| world.places(server)).collect::<Vec<_>>(), [3; 4], "seed {seed}");
                let mut served = Vec::new();
                for client in 0..40 {
                    match world.outcome(first + client) {
                        None => served.push((client, world.go_on(first + client).served().server)),
                        Some(outcome) => assert_eq!(outcome, Outcome::Cut(Close::Reset), "seed {seed}"),
                    }
                }
                assert_eq!(served.len(), 12, "seed {seed}");
                // All who are persisted come back, twice each and at once.
                let back: Vec<_> = served.iter().chain(&served).map(|(client, _)| (*client, 1000, 1000)).collect();
                world.transfer_all(&back);
                assert_eq!(world.most_over_limit(), 0, "{on_limit:?}, {policy:?}, seed {seed}");
                assert_clean(&mut world, seed);
                assert_eq!((0..4).map(|server| world.places(server)).sum::<u64>(), 0, "seed {seed}");
            }
        }
    }
}

#[test]
fn p4_a_place_is_given_back_however_a_connection_ends() {
    for tls12 in BOTH {
        for (seed, mut world, server) in limited(Setup { on_limit: OnLimit::Refuse, tls12, ..Setup::default() }) {
            let held = world.hold(0);
            assert_eq!(world.places(server), 1, "seed {seed}");
            world.give_up(held);
            assert_eq!(world.places(server), 0, "the client reset it, seed {seed}");
            let held = world.hold(0);
            world.stop_server(server);
            world.run_for(Duration::from_millis(100));
            assert_eq!(
                (world.outcome(held), world.places(server)),
                (Some(Outcome::Cut(Close::Reset)), 0),
                "seed {seed}"
            );
            // Not yet known to be down: the connection is refused, and goes to another server.
            assert_ne!(world.visit(0).served().server, u32::from(server), "seed {seed}");
            assert_eq!(world.places(server), 0, "seed {seed}");
            world.start_server(server);
            world.run_for(Duration::from_secs(6));
            assert_eq!(world.visit(0).served().server, u32::from(server), "seed {seed}");
            assert_clean(&mut world, seed);
            assert_eq!(world.places(server), 0, "seed {seed}");
        }
    }
}

#[test]
fn p4_health_probes_take_no_place() {
    for (seed, mut world, server) in limited(Setup::default()) {
        let held = world.hold(0);
        world.run_for(Duration::from_secs(10));
        assert!(world.is_up(server), "seed {seed}");
        assert_eq!(world.places(server), 1, "seed {seed}");
        world.go_on(held).served();
    }
}

#[test]
fn p4_a_reload_lowers_raises_and_lifts_a_limit_under_open_connections() {
    for (seed, mut world, server) in limited(Setup { on_limit: OnLimit::Refuse, ..Setup::default() }) {
        world.set_limit(server, None);
        let held: Vec<_> = (0..3).map(|_| world.hold(0)).collect();
        assert_eq!(world.places(server), 3, "seed {seed}");
        world.set_limit(server, Some(2));
        for (left, visit) in (0..3).rev().zip(held) {
            let before = world.outcome(visit);
            assert_eq!(
                (before, world.visit(0)),
                (None, Outcome::Cut(Close::Reset)),
                "{left} more are open, seed {seed}"
            );
            world.go_on(visit).served();
            assert_eq!(world.places(server), left, "seed {seed}");
            if left < 2 {
                break;
            }
        }
        world.visit(0).served();
        world.set_limit(server, Some(1));
        assert_eq!(world.visit(0), Outcome::Cut(Close::Reset), "seed {seed}");
        world.set_limit(server, Some(2));
        world.visit(0).served();
        world.set_limit(server, None);
        world.visit(0).served();
    }
}

#[test]
fn p1_a_full_pool_resets_new_clients_until_there_is_a_place() {
    for (seed, mut world) in few(Setup::default()) {
        (0..4).for_each(|server| world.set_limit(server, Some(1)));
        let held: Vec<_> = (0..4).map(|client| world.hold(client)).collect();
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.visit(4), Outcome::Cut(Close::Reset), "seed {seed}");
        let record = record(&mut world);
        assert_eq!((record.end, record.reason), (End::NoServer, Some(Reason::PoolFull)), "seed {seed}");
        let freed = world.go_on(held[2]).served().server;
        assert_eq!(world.visit(4).served().server, freed, "seed {seed}");
    }
}

#[test]
fn p1_a_pool_that_is_down_resets_everybody_under_every_policy() {
    for policy in [SelectNewServer::Immediate, SelectNewServer::Never, SelectNewServer::NeverEvenIfDown] {
        for (seed, mut world) in few(Setup { policy, ..Setup::default() }) {
            world.visit(0).served();
            (0..4).for_each(|server| world.stop_server(server));
            world.run_for(Duration::from_secs(6));
            for client in [0, 1] {
                world.take_records();
                assert_eq!(world.visit(client), Outcome::Cut(Close::Reset), "seed {seed}");
                let record = record(&mut world);
                assert_eq!((record.end, record.reason), (End::NoServer, Some(Reason::PoolDown)), "seed {seed}");
            }
        }
    }
}

fn draining(admission: Admission, timeout: Option<Duration>) -> State {
    State::Draining(Draining { admission, timeout })
}

#[test]
fn p5_a_drain_that_disallows_new_moves_clients_or_refuses_them_and_leaves_connections_alone() {
    let state = draining(Admission::DisallowNew, None);
    for (seed, mut world) in few(Setup::default()) {
        let first = world.visit(0).served();
        let held = world.hold(0);
        world.set_state(u16::try_from(first.server).unwrap(), state);
        let moved = world.visit(0).served();
        assert!(moved.resumed && moved.server != first.server, "seed {seed}: {first:?} then {moved:?}");
        for client in 1..8 {
            assert_ne!(world.visit(client).served().server, first.server, "seed {seed}");
        }
        // Never: also not after a week.
        assert_eq!(world.outcome(held), None, "seed {seed}");
        assert_eq!(world.go_on(held).served().server, first.server, "seed {seed}");
        world.set_state(u16::try_from(first.server).unwrap(), State::Enabled);
        assert_eq!(world.visit(0).served().server, moved.server, "the client went back, seed {seed}");
    }
    for (seed, mut world) in few(Setup { policy: SelectNewServer::Never, ..Setup::default() }) {
        let first = world.visit(0).served();
        world.run_for(Duration::from_secs(1));
        world.take_records();
        world.set_state(u16::try_from(first.server).unwrap(), state);
        assert_eq!(world.visit(0), Outcome::Cut(Close::Reset), "seed {seed}");
        assert_eq!(record(&mut world).reason, Some(Reason::RefusedDraining), "seed {seed}");
        world.set_state(u16::try_from(first.server).unwrap(), State::Enabled);
        assert_eq!(world.visit(0).served().server, first.server, "seed {seed}");
    }
}

#[test]
fn p5_a_drain_that_allows_persisted_clients_keeps_them_and_gets_no_new_ones_until_it_times_out() {
    let minute = Duration::from_secs(60);
    for (seed, mut world) in few(Setup::default()) {
        let first = world.visit(0).served();
        let server = u16::try_from(first.server).unwrap();
        world.set_state(server, draining(Admission::AllowPersisted, Some(minute)));
        world.take_records();
        assert_eq!(world.visit(0).served().server, first.server, "seed {seed}");
        world.run_for(Duration::from_secs(1));
        assert!(world.take_records().iter().any(|record| record.reason == Some(Reason::PersistedDraining)));
        for client in 1..8 {
            assert_ne!(world.visit(client).served().server, first.server, "seed {seed}");
        }
        let held = world.hold(0);
        world.run_for(minute);
        assert_eq!(world.outcome(held), Some(Outcome::Cut(Close::Reset)), "seed {seed}");
        let moved = world.visit(0).served();
        assert!(moved.resumed && moved.server != first.server, "seed {seed}: {first:?} then {moved:?}");
        assert_clean(&mut world, seed);
    }
}

#[test]
fn p5_what_is_open_is_reset_when_a_drain_times_out_and_nothing_else_and_not_before() {
    let minute = Duration::from_secs(60);
    for timeout in [Duration::ZERO, minute] {
        for (seed, mut world) in few(Setup { clients: 40, ..Setup::default() }) {
            let clients: Vec<_> = (0..40).collect();
            let first = world.hold_all(&clients);
            // Some segments of so many at once find a queue full.
            world.run_for(Duration::from_secs(5));
            assert_eq!(world.open(), 40, "seed {seed}");
            let there = world.places(1);
            world.set_state(1, draining(Admission::DisallowNew, Some(timeout)));
            if timeout > Duration::ZERO {
                world.run_for(timeout / 2);
                // Another reload does not begin it anew.
                world.set_limit(0, Some(1000));
                world.run_for(timeout / 2 - Duration::from_secs(1));
                assert_eq!((world.open(), world.places(1)), (40, there), "seed {seed}");
            }
            world.run_for(Duration::from_secs(1));
            assert_eq!(world.places(1), 0, "seed {seed}");
            let cut: Vec<_> = (0..40).filter(|client| world.outcome(first + client).is_some()).collect();
            assert_eq!(cut.len() as u64, there, "seed {seed}");
            let records = world.take_records();
            assert_eq!(records.len(), cut.len(), "seed {seed}");
            assert!(records.iter().all(|record| record.end == End::ServerDrained), "seed {seed}");
            for client in clients.into_iter().filter(|client| !cut.contains(client)) {
                assert_ne!(world.go_on(first + client).served().server, 1, "seed {seed}");
            }
        }
    }
}

#[test]
fn a_drain_resets_more_connections_than_a_breath_looks_at() {
    for (seed, mut world) in few(Setup { lanes: 1, clients: 600, servers: 2, ..Setup::default() }) {
        let clients: Vec<_> = (0..600).collect();
        world.hold_all(&clients);
        world.run_for(Duration::from_secs(5));
        assert_eq!((world.places(0), world.places(1)), (300, 300), "seed {seed}");
        world.set_state(0, draining(Admission::DisallowNew, Some(Duration::ZERO)));
        world.run_for(Duration::from_secs(1));
        assert_eq!((world.places(0), world.places(1), world.open()), (0, 300, 300), "seed {seed}");
    }
}

#[test]
fn p1_a_disabled_server_gets_nobody_and_what_is_open_is_reset_at_once() {
    for policy in [SelectNewServer::Immediate, SelectNewServer::Never, SelectNewServer::NeverEvenIfDown] {
        for (seed, mut world) in few(Setup { policy, ..Setup::default() }) {
            let first = world.visit(0).served();
            let held = world.hold(0);
            world.take_records();
            world.set_state(u16::try_from(first.server).unwrap(), State::Disabled);
            world.run_for(Duration::from_millis(100));
            assert_eq!(world.outcome(held), Some(Outcome::Cut(Close::Reset)), "seed {seed}");
            assert_eq!(record(&mut world).end, End::ServerDisabled, "seed {seed}");
            assert_eq!(world.places(u16::try_from(first.server).unwrap()), 0, "seed {seed}");
            if policy == SelectNewServer::Immediate {
                assert_ne!(world.visit(0).served().server, first.server, "seed {seed}");
            } else {
                world.take_records();
                assert_eq!(world.visit(0), Outcome::Cut(Close::Reset), "seed {seed}");
                assert_eq!(record(&mut world).reason, Some(Reason::RefusedDisabled), "seed {seed}");
            }
        }
    }
}

#[test]
fn p6_who_waits_for_a_server_that_a_reload_removes_disables_or_drains_is_refused() {
    let changes: [fn(&mut World, u16); 4] = [
        |world, server| world.set_state(server, State::Disabled),
        |world, server| world.remove_server(server),
        |world, server| world.add_server(server, Generation(1)),
        |world, server| world.set_state(server, draining(Admission::DisallowNew, None)),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for (seed, mut world, server) in limited(Setup { on_limit: QUEUE, ..Setup::default() }) {
            let (held, waits) = (world.hold(0), world.hold(0));
            assert_eq!(world.waiting(server), 1, "seed {seed}");
            change(&mut world, server);
            world.run_for(Duration::from_secs(1));
            assert_eq!(world.outcome(waits), Some(Outcome::Cut(Close::Reset)), "seed {seed}");
            assert_eq!(world.waiting(server), 0, "seed {seed}");
            if number == 0 {
                assert_eq!(world.outcome(held), Some(Outcome::Cut(Close::Reset)), "disabled, seed {seed}");
            } else {
                assert_eq!(world.go_on(held).served().server, u32::from(server), "seed {seed}");
            }
            assert_clean(&mut world, seed);
        }
    }
}

#[test]
fn who_waits_for_a_server_that_is_drained_with_its_persisted_clients_waits_on_until_the_time_is_up() {
    for (seed, mut world, server) in limited(Setup { on_limit: QUEUE, ..Setup::default() }) {
        let (held, waits) = (world.hold(0), world.hold(0));
        world.set_state(server, draining(Admission::AllowPersisted, Some(Duration::from_secs(5))));
        world.run_for(Duration::from_secs(4));
        assert_eq!((world.outcome(held), world.outcome(waits)), (None, None), "seed {seed}");
        world.run_for(Duration::from_secs(2));
        let cut = Some(Outcome::Cut(Close::Reset));
        assert_eq!((world.outcome(held), world.outcome(waits)), (cut, cut), "seed {seed}");
        assert_eq!((world.places(server), world.waiting(server)), (0, 0), "seed {seed}");
        assert_clean(&mut world, seed);
    }
}

#[test]
fn p4_a_client_that_goes_away_at_any_point_of_its_handshake_leaves_no_place_taken() {
    let conditions = Conditions { delay: Duration::from_millis(1), ..Conditions::default() };
    for tls12 in BOTH {
        for (seed, mut world, server) in limited(Setup { conditions, on_limit: QUEUE, tls12, ..Setup::default() }) {
            let mut most = 0;
            for half_milliseconds in 0..20 {
                let visits = world.hold_all(&[0, 0]);
                world.run_for(Duration::from_micros(500) * half_milliseconds);
                most = most.max(world.places(server) + u64::from(world.waiting(server)));
                world.give_up(visits);
                world.give_up(visits + 1);
                assert_eq!((world.places(server), world.waiting(server)), (0, 0), "seed {seed}");
            }
            assert_eq!(most, 2, "one had a place and one waited, seed {seed}");
            assert_eq!((world.most_over_limit(), world.open()), (0, 0), "seed {seed}");
        }
    }
}

/// Two engines of which each sees down what the other sees up, and a client who visits them in turn, ten times a second: the server of each visit.
fn visits_in_turn(world: &mut World, seconds: u32) -> Vec<u32> {
    world.believe(0, 0, Health::Down);
    world.believe(1, 1, Health::Down);
    let mut servers = Vec::new();
    for visit in 0..10 * seconds {
        world.set_hop(0, visit % 2 == 0);
        world.set_hop(1, visit % 2 == 1);
        servers.push(world.visit(0).served().server);
        world.run_for(Duration::from_millis(100));
    }
    servers
}

#[test]
fn p11_engines_that_disagree_on_health_do_not_bounce_a_client_more_than_once_an_interval() {
    for tls12 in BOTH {
        for (seed, mut world) in few(Setup { engines: 2, servers: 2, tls12, ..Setup::default() }) {
            let servers = visits_in_turn(&mut world, 20);
            let bounced: Vec<_> = (1..servers.len()).filter(|at| servers[at - 1] != servers[*at]).collect();
            // The monitors look once a second; a visit takes a few milliseconds beside the tenth of a second between two.
            assert!(bounced.windows(2).all(|two| two[1] - two[0] >= 10), "{bounced:?}, seed {seed}");
            assert!(
                bounced.len() >= 5,
                "each engine has its way once its word is the older one: {bounced:?}, seed {seed}"
            );
        }
    }
}

#[test]
fn p11_a_disputed_server_that_says_nothing_is_given_up_in_time() {
    let mut longest = Duration::ZERO;
    for (seed, mut world) in few(Setup { engines: 2, servers: 2, ..Setup::default() }) {
        world.set_hop(0, false);
        world.believe(1, 1, Health::Down);
        assert_eq!(world.visit(0).served().server, 0, "seed {seed}");
        world.run_for(Duration::from_millis(100));
        world.silence_server(0);
        world.believe(0, 0, Health::Down);
        world.set_hop(0, true);
        world.set_hop(1, false);
        world.run_for(Duration::from_millis(200));
        world.take_records();
        assert_eq!(world.visit(0).served().server, 1, "seed {seed}");
        world.run_for(Duration::from_secs(1));
        let record = world.take_records().remove(0);
        assert_eq!((record.reason, record.end), (Some(Reason::Disputed), End::Finished), "seed {seed}");
        longest = longest.max(record.lasted);
        assert_eq!((world.places(0), world.places(1), world.open()), (0, 0, 0), "seed {seed}");
    } // The service's connect timeout; a lane that has not met the server yet learns sooner that nobody has its address.
    assert!(longest >= Duration::from_secs(20), "{longest:?}");
}

#[test]
fn p11_a_disputed_server_that_does_not_answer_is_left_for_one_connection() {
    for (seed, mut world) in few(Setup { engines: 2, servers: 2, ..Setup::default() }) {
        // The second engine has given the client the first server a moment ago, which has stopped since. Only the first engine knows.
        world.set_hop(0, false);
        world.believe(1, 1, Health::Down);
        assert_eq!(world.visit(0).served().server, 0, "seed {seed}");
        world.stop_server(0);
        world.believe(0, 0, Health::Down);
        world.set_hop(0, true);
        world.set_hop(1, false);
        world.run_for(Duration::from_millis(200));
        world.take_records();
        let visit = world.visit(0).served();
        assert!(visit.resumed && visit.server == 1, "seed {seed}: {visit:?}");
        world.run_for(Duration::from_millis(100));
        let record = world.take_records().remove(0);
        assert_eq!((record.reason, record.end), (Some(Reason::Disputed), End::Finished), "seed {seed}");
        assert_ne!(record.wanted, record.chosen.map(|(_, server)| server), "seed {seed}");
        assert_eq!(counted(&world, "relay", "connects_retried"), 1, "seed {seed}");
        assert_eq!((world.places(0), world.places(1)), (0, 0), "seed {seed}");
        // The word of the other engine is old now.
        world.run_for(Duration::from_secs(3));
        world.take_records();
        assert_eq!(world.visit(0).served().server, 1, "seed {seed}");
        world.run_for(Duration::from_millis(100));
        assert_eq!(world.take_records().remove(0).reason, Some(Reason::SwitchedDown), "seed {seed}");
        assert_clean(&mut world, seed);
    }
}

#[test]
fn k8_a_purge_breaks_no_connection_and_makes_every_ticket_under_the_key_worthless() {
    for (seed, mut world) in worlds(Setup { engines: 2, conditions: LOSSY, ..Setup::default() }) {
        for client in 0..4 {
            world.visit(client).served();
        }
        let held = world.hold(0);
        world.purge_active_key();
        world.run_for(Duration::from_secs(1));
        world.go_on(held).served();
        // The first one may have been given its tickets after the purge.
        for client in 1..4 {
            let fresh = world.visit(client).served();
            assert!(!fresh.resumed, "client {client} resumed under a purged key, seed {seed}");
            let again = world.visit(client).served();
            assert!(again.resumed && again.server == fresh.server, "client {client}, seed {seed}: {again:?}");
        }
        assert_clean(&mut world, seed);
    }
}

/// Clients are told apart by their addresses, of which each has one, and each lane remembers so many.
fn by_address(entries_max: u32) -> Setup {
    let settings = Settings { ipv4_mask: 32, ipv6_mask: 128, timeout: Duration::from_secs(60), entries_max };
    Setup { lanes: 4, method: Method::ClientIp(settings), ..Setup::default() }
}

/// A visit of a client that has lost its tickets.
fn visit_anew(world: &mut World, client: usize, seed: u64) -> u32 {
    world.forget_tickets(client);
    world.run_for(Duration::from_secs(1));
    world.take_records();
    let outcome = world.visit(client);
    let Outcome::Served(visit) = outcome else { panic!("{outcome:?}: {:?}, seed {seed}", world.take_records()) };
    assert!(!visit.resumed, "it has no ticket, seed {seed}");
    visit.server
}

/// A visit of client 0, which has a ticket.
fn visit_with_ticket(world: &mut World) -> Visit {
    world.run_for(Duration::from_secs(1));
    world.take_records();
    world.visit(0).served()
}

/// Why the one connection that has ended since the records were taken went where it went.
fn reason(world: &mut World) -> Option<Reason> {
    world.run_for(Duration::from_secs(1));
    let records = world.take_records();
    let [record] = records.as_slice() else { panic!("not one: {records:?}") };
    record.reason
}

#[test]
fn clients_keep_their_server_by_their_address_whichever_lane_they_arrive_on() {
    // A damaged ARP message, which no checksum protects, sends a client's frames astray.
    let conditions = Conditions { corrupt_permille: 0, ..LOSSY };
    let mut asked = (0, 0);
    for tls12 in BOTH {
        for (seed, mut world) in few(Setup { conditions, tls12, ..by_address(100) }) {
            for client in 0..4 {
                let server = visit_anew(&mut world, client, seed);
                for _ in 0..3 {
                    assert_eq!(visit_anew(&mut world, client, seed), server, "client {client} was moved, seed {seed}");
                }
                let resumed = world.visit(client).served();
                assert!(resumed.resumed && resumed.server == server, "seed {seed}: {resumed:?}");
            }
            asked.0 += counted(&world, "client_ip", "asked_elsewhere");
            asked.1 += counted(&world, "client_ip", "asked_here");
            assert_eq!(counted(&world, "client_ip", "entries"), 4, "seed {seed}");
            assert_eq!(counted(&world, "client_ip", "unanswered"), 0, "seed {seed}");
            assert_clean(&mut world, seed);
        }
    }
    // Of four lanes three are others.
    assert!(asked.0 > 2 * asked.1 && asked.1 > 0, "{asked:?}");
}

#[test]
fn connections_that_a_new_client_opens_at_once_all_go_to_one_server() {
    let mut waited = 0;
    for (seed, mut world) in worlds(by_address(100)) {
        let outcomes = world.transfer_all(&[(0, 100, 1000); 12]);
        let servers: std::collections::HashSet<_> = outcomes.iter().map(|outcome| outcome.served().server).collect();
        assert_eq!(servers.len(), 1, "{outcomes:?}, seed {seed}");
        waited += counted(&world, "client_ip", "waited");
        world.run_for(Duration::from_secs(1));
        let reasons: Vec<_> = world.take_records().iter().map(|record| record.reason).collect();
        assert_eq!(reasons.iter().filter(|reason| **reason == Some(Reason::NoMapping)).count(), 1, "seed {seed}");
        assert_clean(&mut world, seed);
    }
    assert!(waited > 0, "in no world did one have to wait for another");
}

#[test]
fn a_client_is_forgotten_when_its_last_connection_has_been_closed_for_the_timeout() {
    for (seed, mut world) in worlds(by_address(100)) {
        let held = world.hold(0);
        world.run_for(Duration::from_secs(100));
        let server = visit_anew(&mut world, 0, seed);
        assert_eq!(reason(&mut world), Some(Reason::Persisted), "an open connection keeps it, seed {seed}");
        assert_eq!(world.go_on(held).served().server, server, "seed {seed}");
        world.run_for(Duration::from_secs(55));
        assert_eq!(visit_anew(&mut world, 0, seed), server, "seed {seed}");
        world.run_for(Duration::from_secs(62));
        visit_anew(&mut world, 0, seed);
        assert_eq!(reason(&mut world), Some(Reason::NoMapping), "seed {seed}");
    }
}

#[test]
fn where_a_lane_remembers_as_many_as_it_may_who_was_idle_longest_goes_and_nobody_with_a_connection() {
    for (seed, mut world) in few(Setup { lanes: 1, ..by_address(2) }) {
        let first = visit_anew(&mut world, 0, seed);
        visit_anew(&mut world, 1, seed);
        assert_eq!(visit_anew(&mut world, 0, seed), first, "seed {seed}");
        visit_anew(&mut world, 2, seed);
        assert_eq!(visit_anew(&mut world, 0, seed), first, "client 1 was idle for longer, seed {seed}");
        assert_eq!((counted(&world, "client_ip", "entries"), counted(&world, "client_ip", "forgotten")), (2, 1));
        visit_anew(&mut world, 1, seed);
        assert_eq!(reason(&mut world), Some(Reason::NoMapping), "seed {seed}");
        // Two that stay: a third is served all the same.
        let held = [world.hold(4), world.hold(5)];
        visit_anew(&mut world, 6, seed);
        visit_anew(&mut world, 6, seed);
        assert_eq!(reason(&mut world), Some(Reason::NoMapping), "seed {seed}");
        assert_eq!(counted(&world, "client_ip", "answered_full"), 2, "seed {seed}");
        for number in held {
            world.go_on(number).served();
        }
        visit_anew(&mut world, 6, seed);
        visit_anew(&mut world, 6, seed);
        assert_eq!(reason(&mut world), Some(Reason::Persisted), "seed {seed}");
    }
}

#[test]
fn no_way_to_end_leaves_a_connection_counted_so_that_every_client_can_be_forgotten() {
    for (seed, mut world) in few(Setup { conditions: LOSSY, abrupt: true, ..by_address(1) }) {
        for round in 0..3 {
            let visits: Vec<_> = (0..8).map(|client| (client, 100, 1000)).collect();
            world.transfer_all(&visits);
            let held = world.hold_all(&[0, 1, 2, 3]);
            world.run_for(Duration::from_millis(5 * round));
            for number in held..held + 4 {
                world.give_up(number);
            }
        }
        world.set_conditions(Conditions::default());
        world.run_for(Duration::from_secs(400));
        assert_eq!(world.open(), 0, "seed {seed}");
        // A lane that still counted somebody's connection would have no room for anybody else.
        for client in 0..8 {
            let server = visit_anew(&mut world, client, seed);
            assert_eq!(visit_anew(&mut world, client, seed), server, "client {client}, seed {seed}");
            assert_eq!(reason(&mut world), Some(Reason::Persisted), "client {client}, seed {seed}");
        }
    }
}

#[test]
fn p1_the_policies_are_the_same_for_clients_that_are_known_by_their_address() {
    use SelectNewServer::{Immediate, Never, NeverEvenIfDown};
    for (policy, while_down) in [
        (Immediate, Reason::SwitchedDown),
        (Never, Reason::RefusedDown),
        (NeverEvenIfDown, Reason::PersistedThoughDown),
    ] {
        for (seed, mut world) in few(Setup { policy, ..by_address(100) }) {
            let server = visit_anew(&mut world, 0, seed);
            let number = u16::try_from(server).unwrap();
            world.stop_server(number);
            world.run_for(Duration::from_secs(6));
            world.take_records();
            let outcome = world.visit(0);
            assert_eq!(matches!(outcome, Outcome::Served(_)), policy == Immediate, "{outcome:?}, seed {seed}");
            assert_eq!(reason(&mut world), Some(while_down), "seed {seed}");
            world.start_server(number);
            world.run_for(Duration::from_secs(6));
            let again = visit_anew(&mut world, 0, seed);
            assert_eq!(again == server, policy != Immediate, "seed {seed}");
            assert_eq!(reason(&mut world), Some(Reason::Persisted), "seed {seed}");
            // P6: removed is removed, whatever the policy.
            world.remove_server(u16::try_from(again).unwrap());
            assert_ne!(visit_anew(&mut world, 0, seed), again, "seed {seed}");
            assert_eq!(reason(&mut world), Some(Reason::SwitchedRemoved), "seed {seed}");
        }
    }
}

#[test]
fn a_change_of_the_method_forgets_what_the_other_one_remembered() {
    for tls12 in BOTH {
        let by_address = by_address(100);
        for (seed, mut world) in few(Setup { tls12, ..by_address }) {
            // From the address to the ticket: neither the table counts any more, nor has any ticket a mapping.
            world.visit(0).served();
            world.set_method(Method::Tls);
            assert!(visit_with_ticket(&mut world).resumed, "seed {seed}");
            assert_eq!(reason(&mut world), Some(Reason::NoMapping), "seed {seed}");
            let server = visit_with_ticket(&mut world).server;
            assert_eq!(reason(&mut world), Some(Reason::Persisted), "seed {seed}");
            // And back: the tickets do not count, and what was known of addresses before is forgotten.
            world.set_method(by_address.method);
            assert!(visit_with_ticket(&mut world).resumed, "seed {seed}");
            assert_eq!(reason(&mut world), Some(Reason::NoMapping), "server {server}, seed {seed}");
            let server = visit_with_ticket(&mut world).server;
            assert_eq!(reason(&mut world), Some(Reason::Persisted), "seed {seed}");
            // Established connections live on through a change, and are not missed at their end.
            let held = world.hold(0);
            world.set_method(Method::Tls);
            world.set_method(by_address.method);
            assert_eq!(world.go_on(held).served().server, server, "seed {seed}");
            assert_clean(&mut world, seed);
        }
    }
}
