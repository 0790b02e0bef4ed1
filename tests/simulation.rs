//! The engine in a deterministic world: two lanes, lossy links, virtual time. Every assertion names its seed.

use std::time::Duration;

use sealane::base::Generation;
use sealane::nic::Offload;
use sealane::persistence::{Reason, SelectNewServer};
use sealane::relay::End;
use sealane::sim::{Conditions, Identity, Narrow, Outcome, Setup, World};
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
        assert_eq!((record.end, record.reason), (End::Refused, Some(Reason::Refused)), "seed {seed}");
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
    for tls12 in [false, true] {
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
