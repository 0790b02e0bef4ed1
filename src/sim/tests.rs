//! What a world shows only from inside the crate: lanes that do not answer each other.

use std::collections::HashSet;

use crate::base::{Duration, LaneId, ServiceId};
use crate::persistence::client_ip::Settings;
use crate::persistence::{Method, Reason};
use crate::sim::{Identity, Outcome, Setup, World};

mod kernel;

fn world(seed: u64) -> World {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(["shop.example".into()]).unwrap().self_signed(&key).unwrap();
    let identity = Identity { chain: certificate.pem(), key: key.serialize_pem(), root: certificate.der().clone() };
    let settings = Settings { ipv4_mask: 32, ipv6_mask: 128, timeout: Duration::from_secs(60), entries_max: 100 };
    World::new(seed, &identity, Setup { method: Method::ClientIp(settings), ..Setup::default() })
}

/// The sum of a counter of persistence by address over the lanes.
fn counted(world: &World, name: &str) -> u64 {
    let mut sum = 0;
    for handle in world.handles() {
        handle.counters.client_ip.read(&mut |reading| sum += if reading.name == name { reading.value } else { 0 });
    }
    sum
}

/// Each client visits until it is served, twice. Gives why they went where they went.
fn visits(world: &mut World) -> HashSet<Reason> {
    for client in 0..5 {
        for _ in 0..2 {
            // A connection that belongs to the lane that stands still comes to nothing.
            let served = (0..20).any(|_| matches!(world.visit(client), Outcome::Served(_)));
            assert!(served, "client {client} is not served");
        }
    }
    world.run_for(Duration::from_secs(1));
    world.take_records().iter().filter_map(|record| record.reason).collect()
}

#[test]
fn a_lane_that_does_not_answer_costs_its_clients_their_server_and_nothing_else() {
    for seed in 0..2 {
        let mut world = world(seed);
        world.halt_lane(1);
        let reasons = visits(&mut world);
        // Those whose mapping the other lane keeps are persisted as ever.
        assert_eq!(reasons, HashSet::from([Reason::NoMapping, Reason::Persisted]), "seed {seed}");
        let unanswered = counted(&world, "unanswered");
        assert!(unanswered >= 2, "{unanswered}, seed {seed}");
        assert_eq!(counted(&world, "unasked"), 0, "seed {seed}");
    }
}

#[test]
fn a_full_ring_costs_its_clients_their_server_and_nothing_else() {
    for seed in 0..2 {
        let mut world = world(seed);
        world.halt_lane(1);
        world.lanes()[0].fill_words(LaneId(1));
        let reasons = visits(&mut world);
        assert_eq!(reasons, HashSet::from([Reason::NoMapping, Reason::Persisted]), "seed {seed}");
        assert!(counted(&world, "unasked") > 0, "seed {seed}");
        assert_eq!(counted(&world, "unanswered"), 0, "seed {seed}");
    }
}

#[test]
fn words_that_must_not_get_lost_wait_for_room_up_to_their_bound() {
    let mut world = world(1);
    world.halt_lane(1);
    let lane = &mut world.lanes()[0];
    lane.fill_words(LaneId(1));
    let most = u64::try_from(lane.owe_words(LaneId(1), 70_000)).unwrap();
    assert_eq!((counted(&world, "words_waiting"), counted(&world, "words_dropped")), (most, 70_000 - most));
    assert!(most < 70_000);
}

#[test]
fn connections_that_wait_for_another_one_of_their_client_are_bounded_and_give_up() {
    let mut world = world(1);
    world.halt_lane(1);
    let now = world.now();
    let lane = &mut world.lanes()[0];
    let most = lane.ask_at_once(ServiceId(1), LaneId(1), 1000, now);
    assert!(most < 999);
    // The first decides, some wait, and the others go on as if nobody knew them.
    let told = |world: &World| ["answered_new", "waited", "crowded_out"].map(|name| counted(world, name));
    assert_eq!(told(&world), [1, most, 999 - most]);
    assert_eq!(counted(&world, "entries"), 1);
    // The first never says what it has decided. Those who wait have left by then, and whoever comes later decides.
    world.run_for(Duration::from_secs(2));
    let now = world.now();
    world.lanes()[0].ask_at_once(ServiceId(1), LaneId(1), 2, now);
    assert_eq!(told(&world), [2, most + 1, 999 - most]);
}

#[test]
fn a_breath_takes_a_bounded_number_of_words() {
    let mut world = world(1);
    let [first, second] = world.lanes().as_mut_slice() else { panic!("a world has two lanes") };
    second.fill_words(LaneId(0));
    first.breath();
    assert_eq!(second.fill_words(LaneId(0)), first.words_a_breath());
}
