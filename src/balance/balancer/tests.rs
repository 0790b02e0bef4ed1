//! What each algorithm makes of ratios, shares, limits and servers that are down.

use std::net::Ipv4Addr;

use super::*;
use crate::balance::testing::pool;
use crate::balance::{Admission, Draining, Health};

const TURNS: [Algorithm; 2] = [Algorithm::RoundRobin, Algorithm::LeastConnections];
const ALL: [Algorithm; 6] = [
    Algorithm::RoundRobin,
    Algorithm::LeastConnections,
    Algorithm::PowerOfTwo,
    Algorithm::Random,
    Algorithm::ConsistentHash,
    Algorithm::Fastest,
];
/// Whose choices are independent of each other: counts deviate by chance.
const BY_CHANCE: [Algorithm; 2] = [Algorithm::Random, Algorithm::ConsistentHash];

/// One pool as one or more lanes see it.
struct Bench {
    pool: Pool,
    board: Board,
    lanes: Vec<(LaneLoads, Balancer)>,
    /// How many clients there were, each from an address of its own.
    clients: u32,
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
            (loads, Balancer::new(&pool, lane, Random::from_seed(lane.0.into())))
        };
        let lanes = (0..lanes).map(LaneId).map(lane).collect();
        Self { board: Board::new(servers), pool, lanes, clients: 0 }
    }

    /// A new client on `lane`; its connection stays open.
    fn client(&mut self, lane: usize) -> Option<usize> {
        self.clients += 1;
        self.client_from(lane, client(self.clients))
    }

    fn client_from(&mut self, lane: usize, client: IpAddr) -> Option<usize> {
        let (loads, balancer) = &mut self.lanes[lane];
        let field = Field { board: &self.board, loads, tried: &[] };
        let server = balancer.choose(client, field)?;
        let place = &self.pool.servers[usize::from(server.0)];
        assert!(place.state == State::Enabled && self.board.health(place.slot).is_usable(), "{server:?} is of no use");
        assert!(loads.take(place.slot), "a server that is named has a place");
        balancer.on_taken(server, field);
        Some(server.0.into())
    }

    /// So many new clients, one after the other on all lanes, who leave at once.
    fn visits(&mut self, count: usize) -> Vec<usize> {
        let lanes = self.lanes.len();
        let visit = |n| {
            let server = self.client(n % lanes).unwrap();
            self.leave(n % lanes, server);
            server
        };
        (0..count).map(visit).collect()
    }

    fn leave(&mut self, lane: usize, server: usize) {
        self.lanes[lane].0.give_back(slot(server));
    }

    fn clients(&mut self, lane: usize, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.client(lane).unwrap()).collect()
    }
}

fn client(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 + number))
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
    for algorithm in TURNS {
        let ratios = [3, 1, 20, 7];
        let mut bench = Bench::new(algorithm, &ratios, 1);
        let choices = bench.clients(0, 31 * 10);
        assert_eq!(tally(4, &choices), [30, 10, 200, 70], "{algorithm:?}");
    }
}

#[test]
fn lanes_begin_with_different_servers_and_spread_well_together() {
    for algorithm in TURNS {
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
    for algorithm in TURNS {
        let mut pool = pool(algorithm, &[1, 1, 1, 3]);
        pool.servers[0].state = State::Disabled;
        let mut bench = Bench::of(pool, 1);
        bench.board.publish(Slot(1), Health::Down);
        assert_eq!(tally(4, &bench.clients(0, 40)), [0, 0, 10, 30], "{algorithm:?}");
    }
}

#[test]
fn p4_new_clients_pass_over_a_full_server_until_it_has_a_place_again() {
    for algorithm in TURNS {
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
    for algorithm in ALL {
        let mut pool = pool(algorithm, &[1, 1]);
        pool.servers.iter_mut().for_each(|server| server.max_connections = Some(1));
        let mut bench = Bench::of(pool, 1);
        assert_eq!(bench.clients(0, 2).len(), 2);
        assert_eq!(bench.client(0), None, "{algorithm:?}");
        bench.leave(0, 1);
        assert_eq!(bench.client(0), Some(1), "{algorithm:?}");
    }
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
    for algorithm in ALL {
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

/// Health, shares, limits, choices and departures at random: nobody unusable is ever chosen, nobody is turned away while a server is usable, and no debt leaves its bound.
#[test]
fn no_sequence_of_changes_breaks_the_bound_or_picks_an_unusable_server() {
    for seed in 0..300 {
        let mut random = Random::from_seed(seed);
        let algorithm = ALL[usize::try_from(seed).unwrap() % ALL.len()];
        let ratios: Vec<u8> = (0..=random.below(9)).map(|_| u8::try_from(1 + random.below(20)).unwrap()).collect();
        let mut pool = pool(algorithm, &ratios);
        for server in &mut pool.servers {
            server.max_connections = (random.below(3) == 0).then_some(2);
            server.state = if random.below(5) == 0 { State::Disabled } else { State::Enabled };
        }
        let mut bench = Bench::of(pool, 2);
        for _ in 0..300 {
            let server = usize::try_from(random.below(u64::try_from(ratios.len()).unwrap())).unwrap();
            let lane = usize::try_from(random.below(2)).unwrap();
            match random.below(5) {
                0 => bench.board.publish(slot(server), Health::Down),
                1 => bench.board.publish(slot(server), Health::Up),
                2 => bench.board.publish_share(slot(server), Share::of(random.below(100) as f64 / 100.0)),
                3 => bench.leave(lane, server),
                _ => {
                    let is_usable = |server: &Server| {
                        let loads = &bench.lanes[lane].0;
                        server.state == State::Enabled
                            && bench.board.health(server.slot).is_usable()
                            && !loads.is_full(server.slot)
                    };
                    let any = bench.pool.servers.iter().any(is_usable);
                    assert_eq!(bench.client(lane).is_some(), any, "seed {seed}");
                }
            }
            if let Kind::Turns(turns) = &bench.lanes[lane].1.0 {
                assert!(turns.is_bounded(), "seed {seed}: {turns:?}");
            }
        }
    }
}

#[test]
fn a_foreign_index_changes_no_debt_but_the_round() {
    let mut bench = Bench::new(Algorithm::RoundRobin, &[1, 1], 1);
    let (loads, balancer) = &mut bench.lanes[0];
    balancer.on_taken(ServerIndex(99), Field { board: &bench.board, loads, tried: &[] });
    assert_eq!(bench.clients(0, 4).len(), 4);
}

/// Whether each count is what its weight says, by chance: within five standard deviations, and some for what a table of so many entries is off.
fn assert_by_weight(counts: &[usize], weights: &[f64], about: &str) {
    let (visits, sum) = (counts.iter().sum::<usize>() as f64, weights.iter().sum::<f64>());
    for (count, weight) in counts.iter().zip(weights) {
        let part = weight / sum;
        let deviation = (visits * part * (1.0 - part)).sqrt();
        let off = (*count as f64 - visits * part).abs();
        assert!(off <= 5.0 * deviation + 0.01 * visits * part, "{about}: {counts:?} for {weights:?}");
    }
}

#[test]
fn all_algorithms_give_by_ratio_over_all_lanes() {
    for algorithm in ALL {
        // Connections end at once, so that for those that count them all servers are alike.
        let mut bench = Bench::new(algorithm, &[3, 1, 20, 7], 4);
        let counts = tally(4, &bench.visits(31_000));
        assert_by_weight(&counts, &[3.0, 1.0, 20.0, 7.0], &format!("{algorithm:?}"));
    }
}

#[test]
fn all_algorithms_give_the_rest_by_ratio_while_a_server_is_down_and_another_is_full() {
    for algorithm in ALL {
        let mut pool = pool(algorithm, &[4, 1, 6, 2, 5]);
        pool.servers[4].max_connections = Some(7);
        let mut bench = Bench::of(pool, 3);
        bench.board.publish(Slot(2), Health::Down);
        let full = bench.lanes[1].0.is_full(Slot(4));
        assert!(!full && (0..7).all(|_| bench.lanes[1].0.take(Slot(4))));
        let counts = tally(5, &bench.visits(14_000));
        if algorithm == Algorithm::ConsistentHash {
            // Whose server is gone goes to the one after it in the table, which is anyone by ratio.
            assert_eq!((counts[2], counts[4]), (0, 0));
        }
        assert_by_weight(&counts, &[4.0, 1.0, 0.0, 2.0, 0.0], &format!("{algorithm:?}"));
    }
}

#[test]
fn a_part_of_its_share_is_that_part_of_its_ratio_for_every_algorithm() {
    for algorithm in ALL {
        let mut bench = Bench::new(algorithm, &[4, 4, 8], 2);
        bench.board.publish_share(Slot(0), Share::of(0.25));
        let counts = tally(3, &bench.visits(26_000));
        // Clients of the hash that the server does not keep go on to the others by ratio.
        let rest = 26_000.0 / 13.0;
        let expected = match algorithm {
            Algorithm::ConsistentHash => [26_000.0 / 16.0, 0.0, 0.0],
            Algorithm::RoundRobin
            | Algorithm::LeastConnections
            | Algorithm::PowerOfTwo
            | Algorithm::Random
            | Algorithm::Fastest => [rest, 4.0 * rest, 8.0 * rest],
        };
        if algorithm == Algorithm::ConsistentHash {
            assert!((counts[0] as f64 - expected[0]).abs() < 250.0, "{counts:?}");
        } else {
            assert_by_weight(&counts, &expected, &format!("{algorithm:?}"));
        }
    }
}

#[test]
fn connections_that_stay_are_spread_by_ratio_by_those_that_count_them() {
    for algorithm in [Algorithm::LeastConnections, Algorithm::PowerOfTwo] {
        let mut bench = Bench::new(algorithm, &[1, 2, 5], 4);
        let choices: Vec<_> = (0..8_000).map(|n| bench.client(n % 4).unwrap()).collect();
        for (count, share) in tally(3, &choices).into_iter().zip([1000, 2000, 5000]) {
            assert!(count.abs_diff(share) <= 20, "{algorithm:?}: {count} instead of {share}");
        }
    }
}

#[test]
fn two_choices_leave_the_busiest_server_far_less_busy_than_one() {
    let most = |algorithm| {
        let mut bench = Bench::new(algorithm, &[1; 1000], 2);
        let choices: Vec<_> = (0..1000).map(|n| bench.client(n % 2).unwrap()).collect();
        tally(1000, &choices).into_iter().max().unwrap()
    };
    // Of a thousand balls in a thousand bins: ln n / ln ln n = 3.6 and some, and ln ln n / ln 2 = 2.8 and some.
    let (two, one) = (most(Algorithm::PowerOfTwo), most(Algorithm::Random));
    assert!(two <= 4 && two < one, "{two} and {one}");
}

#[test]
fn of_a_thousand_servers_the_few_that_are_up_are_found() {
    for algorithm in ALL {
        let mut bench = Bench::new(algorithm, &[1; 1000], 1);
        (0..1000).filter(|server| server % 250 != 7).for_each(|server| bench.board.publish(slot(server), Health::Down));
        let counts = tally(1000, &bench.visits(2_000));
        let up: Vec<_> = [7, 257, 507, 757].iter().map(|server| counts[*server]).collect();
        assert_eq!(up.iter().sum::<usize>(), 2_000, "{algorithm:?}");
        assert_by_weight(&up, &[1.0; 4], &format!("{algorithm:?}"));
    }
}

#[test]
fn lanes_draw_different_servers() {
    let mut bench = Bench::new(Algorithm::Random, &[1; 100], 2);
    let [first, second] = [0, 1].map(|lane| bench.clients(lane, 20));
    assert_ne!(first, second);
}

#[test]
fn choices_by_chance_are_all_that_counts_deviate_in() {
    for algorithm in TURNS {
        assert_eq!(tally(2, &Bench::new(algorithm, &[1, 1], 1).visits(1000)), [500, 500]);
    }
    for algorithm in BY_CHANCE {
        assert_by_weight(&tally(2, &Bench::new(algorithm, &[1, 1], 1).visits(1000)), &[1.0, 1.0], "two alike");
    }
}
