//! The policy table, a test a cell. A world is one pool of three servers; the client's mapping names the second.

use super::*;
use crate::balance::{Algorithm, Health, Slot, testing};
use crate::base::{Duration, Generation, PoolId, ServerId};
use crate::persistence::Method;

const NOW: UnixTime = UnixTime(1_000_000);
const ASSIGNED: UnixTime = UnixTime(1_000_000 - 500);
const MINE: ServerIndex = ServerIndex(1);
const OTHER: ServerIndex = ServerIndex(2);

struct World {
    pool: Pool,
    board: Board,
    profile: Profile,
    mapping: Mapping,
    candidate: Option<ServerIndex>,
}

impl World {
    fn new(policy: SelectNewServer) -> Self {
        let pool = testing::pool(Algorithm::RoundRobin, &[1, 1, 1]);
        let server = &pool.servers[1];
        Self {
            board: Board::new(3),
            profile: Profile {
                name: "p".into(),
                method: Method::Tls,
                select_new_server_when_persistent_server_down: policy,
                max_mapping_age: None,
            },
            mapping: Mapping { pool: pool.id, server: server.id, generation: server.generation, assigned: ASSIGNED },
            candidate: Some(OTHER),
            pool,
        }
    }

    fn mine_is(self, health: Health) -> Self {
        self.board.publish(Slot(1), health);
        self
    }

    fn mine_disabled(mut self) -> Self {
        self.pool.servers[1].enabled = false;
        self
    }

    fn pool_down(mut self) -> Self {
        (0..3).for_each(|slot| self.board.publish(Slot(slot), Health::Down));
        self.candidate = None;
        self
    }

    fn age_max(mut self, seconds: u64) -> Self {
        self.profile.max_mapping_age = Some(Duration::from_secs(seconds));
        self
    }

    fn decide(&self, mapping: Option<&Mapping>) -> Decision {
        decide(mapping, Some(&self.profile), &self.pool, &self.board, self.candidate, NOW)
    }

    /// The returning client's decision, and the mapping that its new ticket carries.
    fn returns(&self) -> (Decision, Option<Mapping>) {
        let decision = self.decide(Some(&self.mapping));
        (decision, mapping_to_seal(&decision, Some(&self.mapping), &self.pool, NOW))
    }

    fn assert_same(&self, reason: Reason) {
        assert_eq!(self.returns(), (Decision { server: Some(MINE), reason }, Some(self.mapping)));
    }

    fn assert_switched(&self, reason: Reason) {
        assert_eq!(self.returns(), (Decision { server: Some(OTHER), reason }, Some(self.fresh(OTHER))));
    }

    fn assert_refused(&self, reason: Reason) {
        assert_eq!(self.returns(), (Decision { server: None, reason }, None));
    }

    /// What a client that begins at `index` now carries.
    fn fresh(&self, index: ServerIndex) -> Mapping {
        let server = self.pool.server(index).unwrap();
        Mapping { pool: self.pool.id, server: server.id, generation: server.generation, assigned: NOW }
    }
}

use Health::{Down, Unknown, Up};
use SelectNewServer::{Immediate, Never, NeverEvenIfDown};

const POLICIES: [SelectNewServer; 3] = [Immediate, Never, NeverEvenIfDown];

#[test]
fn p1_immediate_up_keeps_the_server() {
    World::new(Immediate).mine_is(Up).assert_same(Reason::Persisted);
}

#[test]
fn p1_never_up_keeps_the_server() {
    World::new(Never).mine_is(Up).assert_same(Reason::Persisted);
}

#[test]
fn p1_never_even_if_down_up_keeps_the_server() {
    World::new(NeverEvenIfDown).mine_is(Up).assert_same(Reason::Persisted);
}

#[test]
fn p1_a_server_without_a_verdict_counts_as_up() {
    for policy in POLICIES {
        World::new(policy).mine_is(Unknown).assert_same(Reason::Persisted);
    }
}

#[test]
fn p1_a_server_that_is_up_is_kept_though_no_other_is() {
    for policy in POLICIES {
        World { candidate: None, ..World::new(policy).mine_is(Up) }.assert_same(Reason::Persisted);
    }
}

#[test]
fn p1_immediate_down_switches() {
    World::new(Immediate).mine_is(Down).assert_switched(Reason::SwitchedDown);
}

#[test]
fn p1_never_down_refuses() {
    World::new(Never).mine_is(Down).assert_refused(Reason::Refused);
}

#[test]
fn p1_never_even_if_down_down_keeps_the_server() {
    World::new(NeverEvenIfDown).mine_is(Down).assert_same(Reason::PersistedThoughDown);
}

#[test]
fn p1_immediate_up_again_stays_on_the_new_server() {
    let world = World::new(Immediate).mine_is(Down);
    let (_, switched) = world.returns();
    let mut world = world.mine_is(Up);
    world.mapping = switched.unwrap();
    let decision = world.decide(Some(&world.mapping));
    assert_eq!(decision, Decision { server: Some(OTHER), reason: Reason::Persisted });
}

#[test]
fn p1_never_up_again_returns_to_the_server() {
    let world = World::new(Never).mine_is(Down);
    world.assert_refused(Reason::Refused);
    world.mine_is(Up).assert_same(Reason::Persisted);
}

#[test]
fn p1_never_even_if_down_up_again_keeps_the_server() {
    let world = World::new(NeverEvenIfDown).mine_is(Down);
    world.assert_same(Reason::PersistedThoughDown);
    world.mine_is(Up).assert_same(Reason::Persisted);
}

#[test]
fn p1_immediate_disabled_switches() {
    World::new(Immediate).mine_disabled().assert_switched(Reason::SwitchedDisabled);
}

#[test]
fn p1_never_disabled_refuses() {
    World::new(Never).mine_disabled().assert_refused(Reason::Refused);
}

#[test]
fn p1_never_even_if_down_disabled_refuses() {
    World::new(NeverEvenIfDown).mine_disabled().assert_refused(Reason::Refused);
}

#[test]
fn p1_disabled_comes_before_down() {
    World::new(Immediate).mine_is(Down).mine_disabled().assert_switched(Reason::SwitchedDisabled);
    World::new(NeverEvenIfDown).mine_is(Down).mine_disabled().assert_refused(Reason::Refused);
}

fn removed(policy: SelectNewServer) {
    let mut world = World::new(policy);
    world.mapping.server = ServerId(5);
    world.assert_switched(Reason::SwitchedRemoved);
}

fn recreated(policy: SelectNewServer) {
    let mut world = World::new(policy);
    let Generation(generation) = world.mapping.generation;
    world.mapping.generation = Generation(generation - 1);
    world.assert_switched(Reason::SwitchedRemoved);
}

#[test]
fn p1_immediate_removed_switches() {
    removed(Immediate);
}

#[test]
fn p1_never_removed_switches() {
    removed(Never);
}

#[test]
fn p1_never_even_if_down_removed_switches() {
    removed(NeverEvenIfDown);
}

#[test]
fn p1_immediate_recreated_switches() {
    recreated(Immediate);
}

#[test]
fn p1_never_recreated_switches() {
    recreated(Never);
}

#[test]
fn p1_never_even_if_down_recreated_switches() {
    recreated(NeverEvenIfDown);
}

#[test]
fn p1_immediate_pool_down_refuses() {
    World::new(Immediate).pool_down().assert_refused(Reason::PoolDown);
}

#[test]
fn p1_never_pool_down_refuses() {
    World::new(Never).pool_down().assert_refused(Reason::PoolDown);
}

#[test]
fn p1_never_even_if_down_pool_down_refuses() {
    World::new(NeverEvenIfDown).pool_down().assert_refused(Reason::PoolDown);
}

#[test]
fn p1_pool_down_refuses_a_removed_an_aged_and_a_disabled_mapping_too() {
    for policy in POLICIES {
        World::new(policy).pool_down().mine_disabled().assert_refused(Reason::PoolDown);
        World::new(policy).pool_down().age_max(1).assert_refused(Reason::PoolDown);
        let mut world = World::new(policy).pool_down();
        world.mapping.server = ServerId(5);
        world.assert_refused(Reason::PoolDown);
    }
}

#[test]
fn p2_immediate_switches_the_mapping_on_that_connection() {
    let world = World::new(Immediate).mine_is(Down);
    let (_, sealed) = world.returns();
    assert_eq!(sealed, Some(world.fresh(OTHER)));
    assert_eq!(sealed.unwrap().assigned, NOW, "the new server's time begins now");
}

#[test]
fn p3_a_refused_client_gets_no_mapping_to_seal() {
    for world in [
        World::new(Never).mine_is(Down),
        World::new(Never).mine_disabled(),
        World::new(NeverEvenIfDown).mine_disabled(),
        World::new(Immediate).pool_down(),
    ] {
        assert_eq!(world.returns().1, None);
    }
}

#[test]
fn p3_a_mapping_that_is_too_old_is_replaced_under_every_policy() {
    for policy in POLICIES {
        for health in [Up, Down] {
            World::new(policy).mine_is(health).age_max(499).assert_switched(Reason::SwitchedAged);
        }
    }
}

#[test]
fn p3_a_mapping_lives_through_the_last_second_of_its_age() {
    World::new(Immediate).age_max(500).assert_same(Reason::Persisted);
}

#[test]
fn p3_a_mapping_from_a_clock_ahead_of_ours_is_young() {
    let mut world = World::new(Immediate).age_max(1);
    world.mapping.assigned = UnixTime(NOW.0 + 60);
    world.assert_same(Reason::Persisted);
}

#[test]
fn p3_an_aged_client_that_gets_the_same_server_again_begins_anew() {
    let world = World { candidate: Some(MINE), ..World::new(Immediate).age_max(1) };
    let (decision, sealed) = world.returns();
    assert_eq!(decision, Decision { server: Some(MINE), reason: Reason::SwitchedAged });
    assert_eq!(sealed, Some(world.fresh(MINE)));
}

#[test]
fn p6_an_old_mapping_never_reaches_a_removed_or_recreated_server() {
    for policy in POLICIES {
        for health in [Up, Down, Unknown] {
            // The one that stands there now would be the candidate, too: even so it is reached as new, never as persisted.
            let mut world = World { candidate: Some(MINE), ..World::new(policy).mine_is(health) };
            world.mapping.generation = Generation(0);
            let (decision, sealed) = world.returns();
            assert_eq!(decision.reason, Reason::SwitchedRemoved);
            assert_eq!(sealed, Some(world.fresh(MINE)));
        }
    }
}

#[test]
fn p6_a_mapping_of_another_pool_counts_as_removed() {
    for policy in POLICIES {
        let mut world = World::new(policy);
        world.mapping.pool = PoolId(99);
        world.assert_switched(Reason::SwitchedRemoved);
    }
}

#[test]
fn p7_without_a_mapping_the_balancer_decides() {
    for policy in POLICIES {
        let world = World::new(policy).mine_is(Down);
        let decision = world.decide(None);
        assert_eq!(decision, Decision { server: Some(OTHER), reason: Reason::NoMapping });
        assert_eq!(mapping_to_seal(&decision, None, &world.pool, NOW), Some(world.fresh(OTHER)));
    }
}

#[test]
fn p7_without_a_mapping_and_with_the_pool_down_nobody_is_served() {
    let world = World::new(Immediate).pool_down();
    assert_eq!(world.decide(None), Decision { server: None, reason: Reason::PoolDown });
}

#[test]
fn without_a_profile_a_mapping_says_nothing_and_none_is_sealed() {
    let world = World::new(Immediate);
    let decision = decide(Some(&world.mapping), None, &world.pool, &world.board, Some(OTHER), NOW);
    assert_eq!(decision, Decision { server: Some(OTHER), reason: Reason::Off });
    assert_eq!(mapping_to_seal(&decision, Some(&world.mapping), &world.pool, NOW), None);
    let decision = decide(Some(&world.mapping), None, &world.pool, &world.board, None, NOW);
    assert_eq!(decision, Decision { server: None, reason: Reason::PoolDown });
}

#[test]
fn an_index_outside_the_pool_seals_nothing() {
    let world = World::new(Immediate);
    let decision = Decision { server: Some(ServerIndex(9)), reason: Reason::NoMapping };
    assert_eq!(mapping_to_seal(&decision, None, &world.pool, NOW), None);
}
