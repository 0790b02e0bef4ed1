//! What monitors find, and the lanes that follow it.

use sealane::balance::Health;
use sealane::persistence::Reason;
use sealane::sim::{Setup, World};

use super::{few, record, worlds};

const LANES: u16 = 4;
const CLIENTS: usize = 16;

/// Every client visits at once; how many were at each of two servers.
fn visit_all(world: &mut World, seed: u64) -> [usize; 2] {
    let visits: Vec<_> = (0..CLIENTS).map(|client| (client, 10, 10)).collect();
    let servers: Vec<_> = world.transfer_all(&visits).into_iter().map(|outcome| outcome.served().server).collect();
    assert_eq!(servers.len(), CLIENTS, "seed {seed}");
    [0, 1].map(|number| servers.iter().filter(|server| **server == number).count())
}

#[test]
fn every_lane_follows_a_verdict_in_its_next_breath() {
    let mut lanes_used = vec![false; LANES.into()];
    for (seed, mut world) in worlds(Setup { lanes: LANES, servers: 2, clients: CLIENTS, ..Setup::default() }) {
        // Nothing but the board changes, and no time passes between that and the visits.
        for down in [0, 1, 0] {
            world.believe(0, down, Health::Down);
            world.believe(0, 1 - down, Health::Up);
            let served = visit_all(&mut world, seed);
            assert_eq!(served.get(usize::from(down)), Some(&0), "seed {seed}");
            assert_eq!(world.most_at_down(), 0, "seed {seed}");
        }
        for (used, handle) in lanes_used.iter_mut().zip(world.handles()) {
            *used |= handle.counters.relay.accepted.value() > 0;
        }
    }
    assert!(lanes_used.iter().all(|used| *used), "clients came on all lanes: {lanes_used:?}");
}

#[test]
fn p5_a_server_in_maintenance_gets_no_new_clients_and_keeps_what_is_open() {
    for (seed, mut world) in few(Setup { servers: 2, ..Setup::default() }) {
        let first = world.visit(0).served().server;
        let held = world.hold(0);
        world.take_records();
        world.believe(0, u16::try_from(first).unwrap(), Health::Maintenance);
        for client in 1..5 {
            assert_ne!(world.visit(client).served().server, first, "seed {seed}");
        }
        world.run_for(std::time::Duration::from_secs(1));
        world.take_records();
        // As its pool drains servers: nobody may come, not even its own.
        assert_ne!(world.visit(0).served().server, first, "seed {seed}");
        assert_eq!(record(&mut world).reason, Some(Reason::SwitchedDraining), "seed {seed}");
        assert_eq!(world.go_on(held).served().server, first, "seed {seed}");
    }
}
