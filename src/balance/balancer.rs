//! One lane's choice of a server for a client that has no mapping.

use std::sync::Arc;

use crate::balance::{Algorithm, Board, LaneLoads, Loads, Pool, Server, ServerIndex, Slot, State};
use crate::base::LaneId;

/// One lane's state for one pool. Made anew for each configuration snapshot.
///
/// Both algorithms share one state: what each server is owed. With every new client each usable server is owed its ratio more,
/// and the one that gets the client is owed the sum of these ratios less. The most owed server is next, which spreads the turns
/// of a server with a high ratio evenly. Least connections asks this only among servers of equal load for their ratio.
///
/// A new client costs two passes over the pool's servers, with least connections three, one of them with a read a lane for each server. A look at who is next costs
/// none in plain turns, unless that one went down or became full meanwhile. A server that is full is for as long as that what one is that is down.
#[derive(Debug)]
pub struct Balancer {
    /// By [`ServerIndex`].
    turns: Vec<Turn>,
    /// The sum of all ratios of the pool. In plain turns nobody is owed more. With least connections a slow server would be owed
    /// more and more, and get the client at every tie for a long time after; so this is the bound.
    owed_max: i32,
    /// Whose turn it was when the last client was taken, in plain turns.
    next: Option<ServerIndex>,
}

/// A server as its balancer sees it: 12 bytes, so that a pass over thousands is short.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Within plus and minus `owed_max`.
    owed: i32,
    slot: Slot,
    /// Its ratio; zero for one that gets no new clients.
    weight: u8,
}

/// Most turns that a lane is ahead of the first one.
const OFFSET_MAX: i32 = 256;

impl Balancer {
    /// A balancer for `pool`. `lane` offsets the turn, so that lanes do not all begin with the same server.
    pub fn new(pool: &Pool, lane: LaneId) -> Self {
        let weight = |server: &Server| match server.state {
            State::Enabled => server.weight(),
            State::Draining(_) | State::Disabled => 0,
        };
        let turns: Vec<_> =
            pool.servers.iter().map(|server| Turn { owed: 0, slot: server.slot, weight: weight(server) }).collect();
        // At most 65,535 servers times 255.
        let owed_max = turns.iter().map(|turn| i32::from(turn.weight)).sum();
        let mut balancer = Self { turns, owed_max, next: None };
        let (all, unlimited) = (Board::new(0), LaneLoads::new(Arc::new(Loads::new(0, 0)), lane));
        let ahead = if owed_max == 0 { 0 } else { i32::from(lane.0) % owed_max.min(OFFSET_MAX) };
        for _ in 0..ahead {
            if let Some(server) = balancer.in_turn(&all, &unlimited, &[]) {
                balancer.commit(pool, &all, &unlimited, server);
            }
        }
        balancer
    }

    /// The server that the next new client would get, one that is none of those `tried`; `None` when none is usable. Changes nothing: see
    /// [`commit`](Self::commit).
    pub fn peek(&self, pool: &Pool, board: &Board, loads: &LaneLoads, tried: &[ServerIndex]) -> Option<ServerIndex> {
        match pool.algorithm {
            Algorithm::RoundRobin => self.noted(board, loads, tried).or_else(|| self.in_turn(board, loads, tried)),
            Algorithm::LeastConnections => self.least_loaded(board, loads, tried),
        }
    }

    /// Notes that a new client was given `server`, which [`peek`](Self::peek) named.
    pub fn commit(&mut self, pool: &Pool, board: &Board, loads: &LaneLoads, server: ServerIndex) {
        let mut sum = 0;
        for turn in self.turns.iter_mut().filter(|turn| turn.is_usable(board, loads)) {
            sum += i32::from(turn.weight);
            turn.owed = (turn.owed + i32::from(turn.weight)).min(self.owed_max);
        }
        if let Some(turn) = self.turns.get_mut(usize::from(server.0)) {
            turn.owed = (turn.owed - sum).max(-self.owed_max);
        }
        self.next = match pool.algorithm {
            Algorithm::RoundRobin => self.in_turn(board, loads, &[]),
            Algorithm::LeastConnections => None,
        };
    }

    /// Who is next as long as no client is taken. A server that has come up since then waits for the one after.
    fn noted(&self, board: &Board, loads: &LaneLoads, tried: &[ServerIndex]) -> Option<ServerIndex> {
        self.next
            .filter(|next| !tried.contains(next))
            .filter(|next| self.turns.get(usize::from(next.0)).is_some_and(|turn| turn.is_usable(board, loads)))
    }

    fn in_turn(&self, board: &Board, loads: &LaneLoads, tried: &[ServerIndex]) -> Option<ServerIndex> {
        let mut best: Option<(i32, ServerIndex)> = None;
        for (index, turn) in self.usable(board, loads, tried) {
            if best.is_none_or(|(most, _)| turn.due() > most) {
                best = Some((turn.due(), index));
            }
        }
        best.map(|(_, index)| index)
    }

    fn least_loaded(&self, board: &Board, loads: &LaneLoads, tried: &[ServerIndex]) -> Option<ServerIndex> {
        struct Best {
            load: u128,
            weight: u128,
            due: i32,
            index: ServerIndex,
        }
        let mut best: Option<Best> = None;
        for (index, turn) in self.usable(board, loads, tried) {
            let this = Best { load: loads.total(turn.slot).into(), weight: turn.weight.into(), due: turn.due(), index };
            let better = best.as_ref().is_none_or(|best| {
                // load / weight, without the division.
                let (ours, theirs) = (this.load * best.weight, best.load * this.weight);
                ours < theirs || (ours == theirs && this.due > best.due)
            });
            if better {
                best = Some(this);
            }
        }
        best.map(|best| best.index)
    }

    /// Servers that may get a new client.
    fn usable<'a>(
        &'a self,
        board: &'a Board,
        loads: &'a LaneLoads,
        tried: &'a [ServerIndex],
    ) -> impl Iterator<Item = (ServerIndex, &'a Turn)> + 'a {
        let servers = (0..=u16::MAX).map(ServerIndex).zip(&self.turns);
        servers.filter(move |(index, turn)| turn.is_usable(board, loads) && !tried.contains(index))
    }
}

impl Turn {
    fn is_usable(&self, board: &Board, loads: &LaneLoads) -> bool {
        self.weight > 0 && board.health(self.slot).is_usable() && !loads.is_full(self.slot)
    }

    /// What it would be owed when the next client comes.
    fn due(&self) -> i32 {
        self.owed + i32::from(self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::pool;
    use crate::balance::{Admission, Draining, Health};
    use crate::base::Random;

    /// One pool as one or more lanes see it.
    struct Bench {
        pool: Pool,
        board: Board,
        lanes: Vec<(LaneLoads, Balancer)>,
    }

    impl Bench {
        fn new(algorithm: Algorithm, ratios: &[u8], lanes: u16) -> Self {
            Self::of(pool(algorithm, ratios), lanes)
        }

        fn of(pool: Pool, lanes: u16) -> Self {
            let servers = pool.servers.len();
            let loads = Arc::new(Loads::new(lanes.into(), servers));
            for server in &pool.servers {
                loads.set_limit(server.slot, server.max_connections);
            }
            let lane = |lane| {
                let loads = LaneLoads::new(Arc::clone(&loads), lane);
                loads.configure([&pool].into_iter());
                (loads, Balancer::new(&pool, lane))
            };
            let lanes = (0..lanes).map(LaneId).map(lane).collect();
            Self { board: Board::new(servers), pool, lanes }
        }

        /// A new client on `lane`; its connection stays open.
        fn client(&mut self, lane: usize) -> Option<usize> {
            let (loads, balancer) = &mut self.lanes[lane];
            let server = balancer.peek(&self.pool, &self.board, loads, &[])?;
            assert_eq!(balancer.peek(&self.pool, &self.board, loads, &[]), Some(server), "peek changes nothing");
            assert!(loads.take(Slot(server.0.into())), "a server that is named has a place");
            balancer.commit(&self.pool, &self.board, loads, server);
            Some(server.0.into())
        }

        fn leave(&mut self, lane: usize, server: usize) {
            self.lanes[lane].0.give_back(slot(server));
        }

        fn clients(&mut self, lane: usize, count: usize) -> Vec<usize> {
            (0..count).map(|_| self.client(lane).unwrap()).collect()
        }
    }

    fn slot(server: usize) -> Slot {
        Slot(u32::try_from(server).unwrap())
    }

    fn tally(servers: usize, choices: &[usize]) -> Vec<usize> {
        (0..servers).map(|server| choices.iter().filter(|choice| **choice == server).count()).collect()
    }

    #[test]
    fn round_robin_takes_turns() {
        let mut bench = Bench::new(Algorithm::RoundRobin, &[1, 1, 1], 1);
        assert_eq!(bench.clients(0, 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_high_ratio_has_its_turns_spread_evenly() {
        let mut bench = Bench::new(Algorithm::RoundRobin, &[3, 1, 1], 1);
        let choices = bench.clients(0, 10);
        assert_eq!(tally(3, &choices), [6, 2, 2]);
        assert!(!choices.windows(3).any(|three| three == [0, 0, 0]), "{choices:?}");
    }

    #[test]
    fn both_algorithms_give_by_ratio_over_every_cycle() {
        for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
            let ratios = [3, 1, 20, 7];
            let mut bench = Bench::new(algorithm, &ratios, 1);
            let choices = bench.clients(0, 31 * 10);
            assert_eq!(tally(4, &choices), [30, 10, 200, 70], "{algorithm:?}");
        }
    }

    #[test]
    fn lanes_begin_with_different_servers_and_spread_well_together() {
        for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
            let mut bench = Bench::new(algorithm, &[1, 1, 1, 1], 4);
            let first: Vec<_> = (0..4).map(|lane| bench.client(lane).unwrap()).collect();
            assert_eq!(tally(4, &first), [1, 1, 1, 1], "{algorithm:?}");

            let mut bench = Bench::new(algorithm, &[3, 1, 2], 4);
            let mut choices = Vec::new();
            for n in 0..6 * 100 {
                choices.push(bench.client(n % 4).unwrap());
            }
            for (count, share) in tally(3, &choices).into_iter().zip([300, 100, 200]) {
                assert!(count.abs_diff(share) <= 4, "{algorithm:?}: {count} instead of {share}");
            }
        }
    }

    #[test]
    fn down_and_disabled_servers_get_nobody_and_the_rest_share_by_ratio() {
        for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
            let mut pool = pool(algorithm, &[1, 1, 1, 3]);
            pool.servers[0].state = State::Disabled;
            let mut bench = Bench::of(pool, 1);
            bench.board.publish(Slot(1), Health::Down);
            assert_eq!(tally(4, &bench.clients(0, 40)), [0, 0, 10, 30], "{algorithm:?}");
        }
    }

    #[test]
    fn p4_new_clients_pass_over_a_full_server_until_it_has_a_place_again() {
        for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
            let mut pool = pool(algorithm, &[1, 1]);
            pool.servers[0].max_connections = Some(3);
            let mut bench = Bench::of(pool, 2);
            let choices: Vec<_> = (0..20).map(|n| bench.client(n % 2).unwrap()).collect();
            assert_eq!(tally(2, &choices), [3, 17], "{algorithm:?}");
            bench.leave(choices.iter().position(|server| *server == 0).unwrap() % 2, 0);
            assert_eq!(tally(2, &bench.clients(0, 10)), [1, 9], "{algorithm:?}");
        }
    }

    #[test]
    fn a_pool_whose_servers_are_full_gives_none() {
        let mut pool = pool(Algorithm::RoundRobin, &[1, 1]);
        pool.servers.iter_mut().for_each(|server| server.max_connections = Some(1));
        let mut bench = Bench::of(pool, 1);
        assert_eq!(bench.clients(0, 2).len(), 2);
        assert_eq!(bench.client(0), None);
        bench.leave(0, 1);
        assert_eq!(bench.client(0), Some(1));
    }

    #[test]
    fn p5_a_server_that_is_drained_gets_no_new_clients() {
        for admission in [Admission::DisallowNew, Admission::AllowPersisted] {
            let mut pool = pool(Algorithm::RoundRobin, &[1, 1, 1]);
            pool.servers[1].state = State::Draining(Draining { admission, timeout: None });
            assert_eq!(tally(3, &Bench::of(pool, 1).clients(0, 10)), [5, 0, 5]);
        }
    }

    #[test]
    fn a_server_that_comes_back_is_not_flooded_by_turns() {
        let mut bench = Bench::new(Algorithm::RoundRobin, &[1, 1], 1);
        bench.board.publish(Slot(0), Health::Down);
        bench.clients(0, 1000);
        bench.board.publish(Slot(0), Health::Up);
        assert!(tally(2, &bench.clients(0, 10))[0] <= 6);
    }

    #[test]
    fn a_server_that_goes_down_before_its_turn_is_passed_over_until_it_is_back() {
        let mut bench = Bench::new(Algorithm::RoundRobin, &[1, 1, 1], 1);
        assert_eq!(bench.client(0), Some(0), "and the next one is noted");
        bench.board.publish(Slot(1), Health::Down);
        assert!(!bench.clients(0, 6).contains(&1));
        bench.board.publish(Slot(1), Health::Up);
        assert!(bench.clients(0, 3).contains(&1));
    }

    #[test]
    fn a_pool_without_a_usable_server_gives_none() {
        for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
            assert_eq!(Bench::new(algorithm, &[], 3).client(2), None);
            let mut bench = Bench::new(algorithm, &[1, 1], 1);
            bench.board.publish(Slot(0), Health::Down);
            bench.board.publish(Slot(1), Health::Down);
            assert_eq!(bench.client(0), None);
            bench.board.publish(Slot(1), Health::Unknown);
            assert_eq!(bench.client(0), Some(1));
        }
    }

    #[test]
    fn least_connections_fills_the_emptiest_server_for_its_ratio() {
        let mut bench = Bench::new(Algorithm::LeastConnections, &[1, 3], 2);
        for (server, count) in [(0, 4), (1, 9)] {
            for _ in 0..count {
                assert!(bench.lanes[1].0.take(slot(server)));
            }
        }
        // 4/1 against 9/3: the second gets three, then both are level.
        assert_eq!(bench.clients(0, 3), [1, 1, 1]);
        bench.leave(1, 0);
        assert_eq!(bench.client(0), Some(0), "another lane's connection has ended");
    }

    #[test]
    fn least_connections_takes_turns_by_ratio_among_idle_servers() {
        let mut bench = Bench::new(Algorithm::LeastConnections, &[3, 1], 1);
        let mut choices = Vec::new();
        for _ in 0..40 {
            let server = bench.client(0).unwrap();
            bench.leave(0, server);
            choices.push(server);
        }
        assert_eq!(tally(2, &choices), [30, 10]);
    }

    #[test]
    fn a_server_that_was_slow_for_long_is_not_flooded_at_ties() {
        let mut bench = Bench::new(Algorithm::LeastConnections, &[1, 1], 1);
        assert!(bench.lanes[0].0.take(Slot(0)));
        for _ in 0..1000 {
            let server = bench.client(0).unwrap();
            assert_eq!(server, 1);
            bench.leave(0, server);
        }
        bench.leave(0, 0);
        let mut in_a_row = 0;
        while bench.client(0) == Some(0) {
            bench.leave(0, 0);
            in_a_row += 1;
            assert!(in_a_row <= 4, "the idle server gets every client");
        }
    }

    /// Health, choices and departures at random: nobody unusable is ever chosen, and no debt leaves its bound.
    #[test]
    fn no_sequence_of_changes_breaks_the_bound_or_picks_an_unusable_server() {
        for seed in 0..200 {
            let mut random = Random::from_seed(seed);
            let algorithm = if seed % 2 == 0 { Algorithm::RoundRobin } else { Algorithm::LeastConnections };
            let ratios: Vec<u8> = (0..=random.below(9)).map(|_| u8::try_from(1 + random.below(20)).unwrap()).collect();
            let mut bench = Bench::new(algorithm, &ratios, 2);
            for _ in 0..300 {
                let server = usize::try_from(random.below(u64::try_from(ratios.len()).unwrap())).unwrap();
                let lane = usize::try_from(random.below(2)).unwrap();
                match random.below(4) {
                    0 => bench.board.publish(slot(server), Health::Down),
                    1 => bench.board.publish(slot(server), Health::Up),
                    2 => bench.leave(lane, server),
                    _ => match bench.client(lane) {
                        Some(server) => assert!(bench.board.health(slot(server)).is_usable(), "seed {seed}"),
                        None => assert!((0..ratios.len()).all(|server| !bench.board.health(slot(server)).is_usable())),
                    },
                }
                let balancer = &bench.lanes[lane].1;
                assert!(
                    balancer.turns.iter().all(|turn| turn.owed.abs() <= balancer.owed_max),
                    "seed {seed}: {balancer:?}"
                );
            }
        }
    }

    #[test]
    fn a_foreign_index_changes_no_debt_but_the_round() {
        let mut bench = Bench::new(Algorithm::RoundRobin, &[1, 1], 1);
        let (loads, balancer) = &mut bench.lanes[0];
        balancer.commit(&bench.pool, &bench.board, loads, ServerIndex(99));
        assert_eq!(bench.clients(0, 4).len(), 4);
    }
}
