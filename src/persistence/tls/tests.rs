//! The policy table, a test a cell. A world is one pool of three servers on one lane; the client's mapping names the second, and a new client gets the first.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::balance::{
    Admission, Algorithm, Board, Draining, Health, LaneLoads, Loads, ServerIndex, Slot, State, testing,
};
use crate::base::{Duration, Generation, LaneId, PoolId, Random, ServerId};
use crate::persistence::{Method, Queue};

const NOW: UnixTime = UnixTime(1_000_000);
const ASSIGNED: UnixTime = UnixTime(1_000_000 - 500);
const MINE: ServerIndex = ServerIndex(1);
const OTHER: ServerIndex = ServerIndex(0);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));

struct World {
    pool: Pool,
    board: Arc<Board>,
    loads: Rc<LaneLoads>,
    table: Arc<Loads>,
    profile: Profile,
    mapping: Mapping,
    is_ours: bool,
}

impl World {
    fn new(policy: SelectNewServer) -> Self {
        let pool = testing::pool(Algorithm::RoundRobin, &[1, 1, 1]);
        let server = &pool.servers[1];
        let table = Arc::new(Loads::new(1, 3));
        Self {
            board: Arc::new(Board::new(3)),
            loads: Rc::new(LaneLoads::new(Arc::clone(&table), LaneId(0))),
            table,
            profile: Profile {
                name: "p".into(),
                method: Method::Tls,
                select_new_server_when_persistent_server_down: policy,
                on_limit: OnLimit::Refuse,
                max_mapping_age: None,
            },
            mapping: Mapping { pool: pool.id, server: server.id, generation: server.generation, assigned: ASSIGNED },
            is_ours: true,
            pool,
        }
    }

    fn mine_is(self, health: Health) -> Self {
        self.board.publish(Slot(1), health);
        self
    }

    fn mine(mut self, state: State) -> Self {
        self.pool.servers[1].state = state;
        self
    }

    fn mine_disabled(self) -> Self {
        self.mine(State::Disabled)
    }

    fn mine_draining(self, admission: Admission) -> Self {
        self.mine(State::Draining(Draining { admission, timeout: Some(Duration::from_secs(60)) }))
    }

    /// The client's server has one place, which another client has.
    fn mine_full(self) -> Self {
        self.full(&[1])
    }

    /// These servers have one place, which another client has.
    fn full(mut self, servers: &[usize]) -> Self {
        for server in servers {
            self.pool.servers[*server].max_connections = Some(1);
            self.table.set_limit(self.pool.servers[*server].slot, Some(1));
        }
        self.loads.configure([&self.pool].into_iter());
        assert!(servers.iter().all(|server| self.loads.take(self.pool.servers[*server].slot)));
        self
    }

    fn on_limit(mut self, on_limit: OnLimit) -> Self {
        self.profile.on_limit = on_limit;
        self
    }

    /// No other server is of use.
    fn alone(self) -> Self {
        [0, 2].iter().for_each(|slot| self.board.publish(Slot(*slot), Health::Down));
        self
    }

    fn other_down(self) -> Self {
        self.board.publish(Slot(0), Health::Down);
        self
    }

    fn pool_down(self) -> Self {
        self.alone().mine_is(Health::Down)
    }

    fn age_max(mut self, seconds: u64) -> Self {
        self.profile.max_mapping_age = Some(Duration::from_secs(seconds));
        self
    }

    fn returning(&self, mapping: &Mapping) -> Returning {
        Returning { mapping: *mapping, is_ours: self.is_ours }
    }

    /// There are other engines, whose monitors look this often, and one of them has given the client its server so many seconds ago.
    fn given_by_another(mut self, seconds: u64, interval: u64) -> Self {
        self.pool = self.pool.looked_at_every(Duration::from_secs(interval));
        self.is_ours = false;
        self.mapping.assigned = UnixTime(NOW.0 - seconds);
        self
    }

    fn backend(&self) -> Backend {
        Backend::new(Arc::new(self.pool.clone()), Arc::clone(&self.board), Rc::clone(&self.loads), Random::from_seed(1))
    }

    /// Whoever gets a server has a place there, unless it is to wait.
    fn decide(&self, mapping: Option<&Mapping>) -> Decision {
        let places = || [0, 1, 2].map(|slot| self.table.total(Slot(slot)));
        let (before, waiting) = (places(), self.table.waiting(Slot(1)));
        let decision = decide(
            mapping.map(|mapping| self.returning(mapping)).as_ref(),
            Some(&self.profile),
            &self.backend(),
            CLIENT,
            NOW,
        );
        let mut expected = before;
        if let Some(ServerIndex(server)) = decision.server.filter(|_| !decision.must_wait()) {
            expected[usize::from(server)] += 1;
        }
        assert_eq!(places(), expected, "{decision:?}");
        assert_eq!(self.table.waiting(Slot(1)), waiting + u32::from(decision.must_wait()));
        decision
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

const QUEUE: OnLimit = OnLimit::Queue(Queue { max: 1, timeout: Duration::from_secs(10) });

use Admission::{AllowPersisted, DisallowNew};
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
        World::new(policy).mine_is(Up).alone().assert_same(Reason::Persisted);
    }
}

#[test]
fn p1_immediate_down_switches() {
    World::new(Immediate).mine_is(Down).assert_switched(Reason::SwitchedDown);
}

#[test]
fn p1_never_down_refuses() {
    World::new(Never).mine_is(Down).assert_refused(Reason::RefusedDown);
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
    world.assert_refused(Reason::RefusedDown);
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
    World::new(Never).mine_disabled().assert_refused(Reason::RefusedDisabled);
}

#[test]
fn p1_never_even_if_down_disabled_refuses() {
    World::new(NeverEvenIfDown).mine_disabled().assert_refused(Reason::RefusedDisabled);
}

#[test]
fn p1_disabled_comes_before_down() {
    World::new(Immediate).mine_is(Down).mine_disabled().assert_switched(Reason::SwitchedDisabled);
    World::new(NeverEvenIfDown).mine_is(Down).mine_disabled().assert_refused(Reason::RefusedDisabled);
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
    let world = World::new(Immediate).age_max(1).alone();
    let (decision, sealed) = world.returns();
    assert_eq!(decision, Decision { server: Some(MINE), reason: Reason::SwitchedAged });
    assert_eq!(sealed, Some(world.fresh(MINE)));
}

#[test]
fn p6_an_old_mapping_never_reaches_a_removed_or_recreated_server() {
    for policy in POLICIES {
        for health in [Up, Unknown] {
            // The one that stands there now would be the candidate, too: even so it is reached as new, never as persisted.
            let mut world = World::new(policy).mine_is(health).alone();
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
    let decision = decide(Some(&world.returning(&world.mapping)), None, &world.backend(), CLIENT, NOW);
    assert_eq!(decision, Decision { server: Some(OTHER), reason: Reason::Off });
    assert_eq!(mapping_to_seal(&decision, Some(&world.mapping), &world.pool, NOW), None);
    let world = world.pool_down();
    let decision = decide(Some(&world.returning(&world.mapping)), None, &world.backend(), CLIENT, NOW);
    assert_eq!(decision, Decision { server: None, reason: Reason::PoolDown });
}

#[test]
fn an_index_outside_the_pool_seals_nothing() {
    let world = World::new(Immediate);
    let decision = Decision { server: Some(ServerIndex(9)), reason: Reason::NoMapping };
    assert_eq!(mapping_to_seal(&decision, None, &world.pool, NOW), None);
}

#[test]
fn p1_immediate_limit_switch_takes_another_and_the_mapping_with_it() {
    World::new(Immediate).on_limit(OnLimit::Switch).mine_full().assert_switched(Reason::SwitchedLimit);
}

#[test]
fn p1_immediate_limit_spill_takes_another_and_leaves_the_mapping_as_it_is() {
    let world = World::new(Immediate).on_limit(OnLimit::Spill).mine_full();
    assert_eq!(world.returns(), (Decision { server: Some(OTHER), reason: Reason::Spilled }, Some(world.mapping)));
    // When its server has a place again, the client returns to it.
    world.loads.give_back(Slot(1));
    world.assert_same(Reason::Persisted);
}

#[test]
fn p1_immediate_limit_queue_waits_and_keeps_the_mapping() {
    World::new(Immediate).on_limit(QUEUE).mine_full().assert_same(Reason::Queued);
}

#[test]
fn p1_immediate_limit_queue_refuses_one_more_than_may_wait() {
    for policy in POLICIES {
        let world = World::new(policy).on_limit(QUEUE).mine_full();
        world.assert_same(Reason::Queued);
        world.assert_refused(Reason::RefusedQueue);
    }
}

#[test]
fn p1_immediate_limit_refuse_refuses() {
    World::new(Immediate).on_limit(OnLimit::Refuse).mine_full().assert_refused(Reason::RefusedLimit);
}

#[test]
fn p1_never_limit_refuses() {
    World::new(Never).on_limit(OnLimit::Refuse).mine_full().assert_refused(Reason::RefusedLimit);
}

#[test]
fn p1_never_limit_queues() {
    World::new(Never).on_limit(QUEUE).mine_full().assert_same(Reason::Queued);
}

#[test]
fn p1_never_even_if_down_limit_refuses() {
    for health in [Up, Down] {
        let world = World::new(NeverEvenIfDown).on_limit(OnLimit::Refuse).mine_is(health).mine_full();
        world.assert_refused(Reason::RefusedLimit);
    }
}

#[test]
fn p1_never_even_if_down_limit_queues() {
    for health in [Up, Down] {
        World::new(NeverEvenIfDown).on_limit(QUEUE).mine_is(health).mine_full().assert_same(Reason::Queued);
    }
}

#[test]
fn p1_down_comes_before_the_limit() {
    for on_limit in [OnLimit::Switch, OnLimit::Spill, QUEUE, OnLimit::Refuse] {
        let world = World::new(Immediate).on_limit(on_limit).mine_is(Down).mine_full();
        world.assert_switched(Reason::SwitchedDown);
    }
    World::new(Never).on_limit(QUEUE).mine_is(Down).mine_full().assert_refused(Reason::RefusedDown);
}

#[test]
fn p1_draining_allow_persisted_keeps_the_server_under_every_policy() {
    for policy in POLICIES {
        World::new(policy).mine_draining(AllowPersisted).assert_same(Reason::PersistedDraining);
    }
}

#[test]
fn p1_draining_allow_persisted_and_down_is_as_down() {
    World::new(Immediate).mine_draining(AllowPersisted).mine_is(Down).assert_switched(Reason::SwitchedDown);
    World::new(Never).mine_draining(AllowPersisted).mine_is(Down).assert_refused(Reason::RefusedDown);
    World::new(NeverEvenIfDown).mine_draining(AllowPersisted).mine_is(Down).assert_same(Reason::PersistedThoughDown);
}

#[test]
fn p1_draining_allow_persisted_and_full_is_as_full() {
    World::new(Immediate)
        .on_limit(OnLimit::Switch)
        .mine_full()
        .mine_draining(AllowPersisted)
        .assert_switched(Reason::SwitchedLimit);
    World::new(Never).on_limit(QUEUE).mine_full().mine_draining(AllowPersisted).assert_same(Reason::Queued);
}

#[test]
fn p1_immediate_draining_disallow_new_switches() {
    World::new(Immediate).mine_draining(DisallowNew).assert_switched(Reason::SwitchedDraining);
}

#[test]
fn p1_never_draining_disallow_new_refuses() {
    World::new(Never).mine_draining(DisallowNew).assert_refused(Reason::RefusedDraining);
}

#[test]
fn p1_never_even_if_down_draining_disallow_new_refuses() {
    for health in [Up, Down] {
        World::new(NeverEvenIfDown).mine_draining(DisallowNew).mine_is(health).assert_refused(Reason::RefusedDraining);
    }
}

#[test]
fn p5_a_drain_that_is_over_lets_nobody_in_whatever_it_allowed_before() {
    for admission in [AllowPersisted, DisallowNew] {
        let world = World::new(Immediate).mine_draining(admission);
        world.loads.set_drained(Slot(1), true);
        world.assert_switched(Reason::SwitchedDraining);
        let world = World::new(Never).mine_draining(admission);
        world.loads.set_drained(Slot(1), true);
        world.assert_refused(Reason::RefusedDraining);
    }
}

#[test]
fn p1_pool_full_turns_away_whoever_needs_another_server() {
    let switched = World::new(Immediate).on_limit(OnLimit::Switch).full(&[0, 1, 2]);
    switched.assert_refused(Reason::PoolFull);
    let spilled = World::new(Immediate).on_limit(OnLimit::Spill).full(&[0, 1, 2]);
    spilled.assert_refused(Reason::PoolFull);
    World::new(Immediate).full(&[0, 2]).mine_is(Down).assert_refused(Reason::PoolFull);
    World::new(Immediate).full(&[0, 2]).mine_disabled().assert_refused(Reason::PoolFull);
    for policy in POLICIES {
        let mut removed = World::new(policy).full(&[0, 1, 2]);
        removed.mapping.server = ServerId(5);
        removed.assert_refused(Reason::PoolFull);
        let new = World::new(policy).full(&[0, 1, 2]);
        assert_eq!(new.decide(None), Decision { server: None, reason: Reason::PoolFull });
    }
}

#[test]
fn p1_pool_full_but_for_the_clients_server_keeps_it() {
    for policy in POLICIES {
        World::new(policy).full(&[0, 2]).assert_same(Reason::Persisted);
    }
}

#[test]
fn p1_pool_full_a_client_that_may_queue_waits_for_its_server() {
    for policy in POLICIES {
        World::new(policy).on_limit(QUEUE).full(&[0, 1, 2]).assert_same(Reason::Queued);
    }
}

#[test]
fn p1_pool_down_or_full_in_part_each_turns_away() {
    // One is down, the others are full.
    World::new(Immediate).on_limit(OnLimit::Switch).full(&[1, 2]).other_down().assert_refused(Reason::PoolFull);
    // One is full, the others are down.
    World::new(Immediate).on_limit(OnLimit::Switch).mine_full().alone().assert_refused(Reason::PoolFull);
}

#[test]
fn p4_new_clients_get_no_full_server() {
    let world = World::new(Immediate).full(&[0, 1]);
    assert_eq!(world.decide(None), Decision { server: Some(ServerIndex(2)), reason: Reason::NoMapping });
}

#[test]
fn p4_a_place_that_is_given_back_is_the_next_clients() {
    let world = World::new(Never).mine_full();
    world.assert_refused(Reason::RefusedLimit);
    world.loads.give_back(Slot(1));
    world.assert_same(Reason::Persisted);
    world.assert_refused(Reason::RefusedLimit);
}

#[test]
fn p3_a_client_refused_at_the_limit_or_a_drain_gets_no_mapping_to_seal() {
    for world in [
        World::new(Never).mine_full(),
        World::new(Immediate).mine_full(),
        World::new(Never).mine_draining(DisallowNew),
        World::new(Immediate).on_limit(OnLimit::Switch).full(&[0, 1, 2]),
    ] {
        assert_eq!(world.returns().1, None);
    }
}

#[test]
fn p11_a_server_that_is_down_here_is_kept_while_another_engines_word_for_it_is_fresh() {
    for seconds in [0, 10] {
        World::new(Immediate).mine_is(Down).given_by_another(seconds, 10).assert_same(Reason::Disputed);
    }
    World::new(Immediate).mine_is(Down).given_by_another(11, 10).assert_switched(Reason::SwitchedDown);
}

#[test]
fn p11_an_engine_that_has_given_the_server_itself_or_is_alone_knows_better() {
    let world = World { is_ours: true, ..World::new(Immediate).mine_is(Down).given_by_another(1, 10) };
    world.assert_switched(Reason::SwitchedDown);
    World::new(Immediate).mine_is(Down).given_by_another(0, 0).assert_switched(Reason::SwitchedDown);
}

#[test]
fn p11_nothing_but_down_is_disputed() {
    let given = |world: World| world.given_by_another(1, 10);
    given(World::new(Immediate).mine_is(Up)).assert_same(Reason::Persisted);
    given(World::new(Immediate).mine_disabled()).assert_switched(Reason::SwitchedDisabled);
    given(World::new(Immediate).mine_draining(DisallowNew)).assert_switched(Reason::SwitchedDraining);
    given(World::new(Never).mine_is(Down)).assert_refused(Reason::RefusedDown);
    given(World::new(NeverEvenIfDown).mine_is(Down)).assert_same(Reason::PersistedThoughDown);
    given(World::new(Immediate).mine_is(Down).on_limit(OnLimit::Switch).mine_full())
        .assert_switched(Reason::SwitchedLimit);
}
