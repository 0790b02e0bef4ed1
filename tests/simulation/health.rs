//! What monitors find, and the lanes that follow it.

use sealane::balance::Health;
use sealane::sim::{Setup, World};

use super::worlds;

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
