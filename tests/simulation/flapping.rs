//! Servers that come and go while clients do: what must hold in every breath, and what must add up in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use sealane::balance::{Admission, Ejection, Passive, Sharing, State};
use sealane::base::Random;
use sealane::persistence::{OnLimit, SelectNewServer};
use sealane::sim::{Outcome, Setup, World};

use super::{LOSSY, QUEUE, assert_clean, draining, identity};

/// Worlds, each with chances of its own.
const FLAPPING: std::ops::Range<u64> = 0..48;
/// Turns of fortune in each.
const ROUNDS: u64 = 12;
const SERVERS: u16 = 4;
const CLIENTS: usize = 8;

/// One world's chances: policies by its number, everything else by chance.
fn setup(seed: u64) -> Setup {
    let policy = match seed % 3 {
        0 => SelectNewServer::Immediate,
        1 => SelectNewServer::Never,
        _ => SelectNewServer::NeverEvenIfDown,
    };
    let on_limit = match (policy, seed / 3 % 4) {
        (SelectNewServer::Immediate, 0) => OnLimit::Switch,
        (SelectNewServer::Immediate, 1) => OnLimit::Spill,
        (_, 2) => QUEUE,
        (_, _) => OnLimit::Refuse,
    };
    let conditions = if seed % 2 == 0 { LOSSY } else { Setup::default().conditions };
    let passive = match seed / 2 % 3 {
        0 => Passive::Off,
        1 => Passive::Share,
        _ => Passive::Down(Ejection { time: Duration::from_secs(5), percent_max: 50 }),
    };
    let sharing = Sharing { slow_start: (seed % 4 < 2).then_some(Duration::from_secs(5)), passive };
    Setup {
        policy,
        on_limit,
        sharing,
        conditions,
        tls12: seed % 5 == 0,
        servers: SERVERS,
        clients: CLIENTS,
        ..Setup::default()
    }
}

/// Something happens to a server; `runs` says which of them do.
fn turn(world: &mut World, chance: &mut Random, runs: &mut [bool]) {
    let running = runs.iter().filter(|runs| **runs).count();
    let server = u16::try_from(chance.below(u64::from(SERVERS))).expect("few servers");
    let runs = runs.get_mut(usize::from(server)).expect("one of them");
    match chance.below(8) {
        0..6 if !*runs => {
            *runs = true;
            world.start_server(server);
        }
        // Two are enough to be full, and clients that are never served show little.
        0..6 if running > 2 => {
            *runs = false;
            world.stop_server(server);
        }
        6 => {
            let state = match chance.below(4) {
                0 => State::Enabled,
                1 => State::Disabled,
                2 => draining(Admission::AllowPersisted, Some(Duration::from_secs(1))),
                _ => draining(Admission::DisallowNew, None),
            };
            world.set_state(server, state);
        }
        _ => {}
    }
}

/// Every counter of the engine's relays.
fn counters(world: &World) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for handle in world.handles() {
        handle.counters.read(&mut |module, _, reading| {
            if module == "relay" {
                *sums.entry(reading.name).or_default() += reading.value;
            }
        });
    }
    sums
}

#[test]
fn servers_that_flap_cost_no_limit_get_nobody_while_down_and_every_counter_adds_up() {
    let identity = identity();
    let (mut served, mut retried, mut turned_away) = (0, 0, 0);
    for seed in FLAPPING {
        let setup = setup(seed);
        let mut world = World::new(seed, &identity, setup);
        let (mut chance, mut runs) = (Random::from_seed(!seed), vec![true; SERVERS.into()]);
        for server in 0..SERVERS {
            world.set_limit(server, (chance.below(3) > 0).then(|| u32::try_from(2 + chance.below(4)).unwrap()));
        }
        let (mut records, mut begun) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            turn(&mut world, &mut chance, &mut runs);
            let clients: Vec<_> = (0..CLIENTS).filter(|_| chance.below(2) == 0).collect();
            let held = world.hold_all(&clients);
            begun += clients.len();
            world.run_for(Duration::from_millis(chance.below(3000)));
            turn(&mut world, &mut chance, &mut runs);
            let visits: Vec<_> =
                (0..CLIENTS).filter(|_| chance.below(3) == 0).map(|client| (client, 2000, 3000)).collect();
            begun += visits.len();
            for outcome in world.transfer_all(&visits) {
                match outcome {
                    Outcome::Served(_) => served += 1,
                    Outcome::Cut(_) => turned_away += 1,
                    // A reset is sent once: who has nothing left to send never learns that it got lost.
                    Outcome::Lost if setup.conditions.loss_permille > 0 => turned_away += 1,
                    Outcome::Incomplete | Outcome::TlsFailed | Outcome::Lost => panic!("{outcome:?}, seed {seed}"),
                }
            }
            for number in 0..clients.len() {
                if world.outcome(held + number).is_none() {
                    match chance.below(3) {
                        0 => world.give_up(held + number),
                        1 => drop(world.go_on(held + number)),
                        // It is still open in the next round, and the ones after.
                        _ => {}
                    }
                }
            }
            records.extend(world.take_records());
        }
        assert_eq!(world.most_over_limit(), 0, "seed {seed}");
        if setup.policy != SelectNewServer::NeverEvenIfDown {
            assert_eq!(world.most_at_down(), 0, "seed {seed}");
        }
        assert_clean(&mut world, seed);
        records.extend(world.take_records());

        let counters = counters(&world);
        let sum =
            |prefix| counters.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum::<u64>();
        assert_eq!(counters["accepted"], sum("ended_"), "seed {seed}: {counters:?}");
        assert_eq!(counters["accepted"], records.len() as u64, "seed {seed}");
        assert_eq!(sum("handshakes_"), sum("decided_"), "seed {seed}: {counters:?}");
        assert_eq!((counters["open"], counters["waiting"]), (0, 0), "seed {seed}");
        assert_eq!(
            counters["bytes_received"],
            records.iter().map(|record| record.received).sum::<u64>(),
            "seed {seed}"
        );
        assert_eq!(counters["bytes_sent"], records.iter().map(|record| record.sent).sum::<u64>(), "seed {seed}");
        for (name, count) in counters.iter().filter(|(name, _)| name.starts_with("ended_")) {
            let with_end =
                |record: &&sealane::lane::Record| record.end.name().replace('-', "_") == name["ended_".len()..];
            assert_eq!(records.iter().filter(with_end).count() as u64, *count, "{name}, seed {seed}");
        }
        // Whoever's SYN was answered was accepted, unless the client had given up before.
        assert!(counters["accepted"] <= begun as u64, "seed {seed}");
        assert_eq!((0..SERVERS).map(|server| world.places(server)).sum::<u64>(), 0, "seed {seed}");
        retried += counters["connects_retried"];
    }
    // It would prove nothing about worlds in which nothing happens.
    assert!(
        served > 500 && retried > 50 && turned_away > 100,
        "{served} served, {retried} retried, {turned_away} turned away"
    );
}

#[test]
fn the_watch_sees_who_is_sent_to_a_server_that_is_down() {
    // The one policy that sends clients there, so that the other test can fail.
    let setup = Setup { policy: SelectNewServer::NeverEvenIfDown, ..Setup::default() };
    let mut world = World::new(0, &identity(), setup);
    let server = world.visit(0).served().server;
    world.stop_server(u16::try_from(server).unwrap());
    world.run_for(Duration::from_secs(6));
    assert_eq!(world.most_at_down(), 0);
    world.visit(0);
    assert_eq!(world.most_at_down(), 1);
}
