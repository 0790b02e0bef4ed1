//! Shares in virtual time.

use super::*;
use crate::balance::testing::{pool, server};
use crate::balance::{Health, LaneLoads, Outcome};
use crate::base::LaneId;

const SECOND: Duration = Duration::from_secs(1);
const SLOW: Sharing = Sharing { slow_start: Some(Duration::from_secs(30)), passive: Passive::Off };
const PASSIVE: Sharing = Sharing { slow_start: None, passive: Passive::Share };

/// A pool's servers and two lanes that see how they fare.
struct Bench {
    board: Arc<Board>,
    lanes: [LaneLoads; 2],
    shares: Shares,
    pool: Arc<Pool>,
    now: Instant,
}

impl Bench {
    fn new(servers: usize, algorithm: Algorithm, sharing: Sharing) -> Self {
        let (board, loads) = (Arc::new(Board::new(64)), Arc::new(Loads::new(2, 64)));
        let lanes = [0, 1].map(|lane| LaneLoads::new(Arc::clone(&loads), LaneId(lane)));
        let pool = Arc::new(pool(algorithm, &vec![1; servers]).sharing(sharing));
        let mut shares = Shares::new(Arc::clone(&board), loads);
        let now = Instant::START + SECOND;
        shares.configure([&pool].into_iter(), now);
        Self { board, lanes, shares, pool, now }
    }

    fn reload(&mut self, change: impl FnOnce(&mut Pool)) {
        let mut pool = Pool::clone(&self.pool);
        change(&mut pool);
        self.pool = Arc::new(pool);
        self.shares.configure([&self.pool].into_iter(), self.now);
    }

    /// Time goes by, and every round is taken when it is due.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.shares.poll_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.shares.on_timeout(self.now);
        }
        self.now = end;
    }

    fn note(&self, server: u32, outcome: Outcome, count: usize) {
        (0..count).for_each(|n| self.lanes[n % 2].note(Slot(server), outcome));
    }

    fn percent(&self, server: u32) -> u16 {
        self.board.share(Slot(server)).parts() * 100 / 256
    }

    fn is_usable(&self, server: u32) -> bool {
        self.board.health(Slot(server)).is_usable()
    }
}

#[test]
fn a_pool_that_lowers_nothing_costs_no_timer() {
    let bench = Bench::new(3, Algorithm::RoundRobin, Sharing::default());
    assert_eq!(bench.shares.poll_at(), None);
}

#[test]
fn a_server_that_comes_up_gets_its_share_little_by_little() {
    let mut bench = Bench::new(2, Algorithm::RoundRobin, SLOW);
    assert_eq!((bench.percent(0), bench.percent(1)), (100, 100), "the engine has just started");
    bench.board.publish(Slot(0), Health::Down);
    bench.wait(10 * SECOND);
    assert_eq!(bench.percent(0), 6, "before anybody sees that it is up");
    bench.board.publish(Slot(0), Health::Up);
    bench.wait(SECOND / 4);
    let mut before = bench.percent(0);
    assert_eq!(before, 6);
    for (seconds, percent) in [(5, 16), (10, 50), (10, 83), (6, 100)] {
        bench.wait(seconds * SECOND);
        let now = bench.percent(0);
        assert!(now.abs_diff(percent) <= 2 && now > before, "{now} instead of {percent}");
        before = now;
    }
    assert_eq!(bench.percent(1), 100);
}

#[test]
fn a_server_that_a_reload_adds_or_enables_starts_slowly_and_one_that_stays_does_not() {
    let mut bench = Bench::new(2, Algorithm::RoundRobin, SLOW);
    bench.reload(|pool| pool.servers.push(server(2, 1)));
    assert_eq!([0, 1, 2].map(|server| bench.percent(server)), [100, 100, 6]);
    bench.wait(15 * SECOND);
    bench.reload(|pool| pool.servers[0].state = State::Disabled);
    assert_eq!(bench.percent(0), 100);
    assert!(bench.percent(2).abs_diff(50) <= 2, "it goes on: {}", bench.percent(2));
    bench.reload(|pool| pool.servers[0].state = State::Enabled);
    assert_eq!(bench.percent(0), 6);
}

#[test]
fn failures_lower_a_share_to_a_trickle_and_successes_restore_it() {
    let mut bench = Bench::new(2, Algorithm::RoundRobin, PASSIVE);
    bench.note(0, Outcome::Failed, 1);
    bench.wait(SECOND / 4);
    assert_eq!(bench.percent(0), 64, "one after a long time");
    for _ in 0..20 {
        bench.note(0, Outcome::Failed, 4);
        bench.wait(SECOND / 4);
    }
    assert_eq!((bench.percent(0), bench.percent(1)), (6, 100));
    assert!(bench.is_usable(0), "it is never down by itself");
    let mut before = bench.percent(0);
    for _ in 0..8 {
        bench.note(0, Outcome::Answered(SECOND / 100), 2);
        bench.wait(SECOND / 4);
        assert!(bench.percent(0) >= before);
        before = bench.percent(0);
    }
    assert!(before > 60, "{before}");
}

#[test]
fn a_server_at_which_half_fails_gets_about_a_quarter() {
    let mut bench = Bench::new(1, Algorithm::RoundRobin, PASSIVE);
    for _ in 0..40 {
        bench.note(0, Outcome::Failed, 10);
        bench.note(0, Outcome::Finished, 10);
        bench.wait(SECOND / 4);
    }
    assert!(bench.percent(0).abs_diff(25) <= 2, "{}", bench.percent(0));
}

#[test]
fn time_restores_a_share_where_nothing_fails_and_not_while_something_does() {
    let mut bench = Bench::new(1, Algorithm::RoundRobin, PASSIVE);
    for _ in 0..30 {
        bench.note(0, Outcome::Failed, 1);
        bench.wait(5 * SECOND);
    }
    assert_eq!(bench.percent(0), 6, "a failure every five seconds");
    bench.wait(4 * SECOND);
    assert_eq!(bench.percent(0), 6);
    bench.wait(32 * SECOND);
    assert!((20..40).contains(&bench.percent(0)), "{}", bench.percent(0));
    bench.wait(40 * SECOND);
    assert_eq!(bench.percent(0), 100);
}

#[test]
fn a_monitors_word_that_a_server_is_up_is_newer_than_what_failed_before() {
    let mut bench = Bench::new(1, Algorithm::RoundRobin, PASSIVE);
    bench.note(0, Outcome::Failed, 100);
    bench.wait(SECOND);
    assert_eq!(bench.percent(0), 6);
    bench.board.publish(Slot(0), Health::Down);
    bench.wait(SECOND);
    bench.board.publish(Slot(0), Health::Up);
    bench.wait(SECOND);
    assert_eq!(bench.percent(0), 100);
}

fn ejecting(percent_max: u8) -> Sharing {
    Sharing { slow_start: None, passive: Passive::Down(Ejection { time: 30 * SECOND, percent_max }) }
}

#[test]
fn seven_failures_in_a_row_take_a_server_out_for_a_time_that_grows() {
    let mut bench = Bench::new(2, Algorithm::RoundRobin, ejecting(50));
    for failure in 1..=7 {
        assert!(bench.is_usable(0), "after {} failures", failure - 1);
        bench.note(0, Outcome::Failed, 1);
        bench.wait(SECOND / 4);
    }
    assert!(!bench.is_usable(0) && bench.board.verdict(Slot(0)) == Health::Unknown);
    bench.wait(29 * SECOND);
    assert!(!bench.is_usable(0));
    bench.wait(2 * SECOND);
    assert_eq!((bench.is_usable(0), bench.percent(0)), (true, 25));
    for _ in 0..7 {
        bench.note(0, Outcome::Failed, 1);
        bench.wait(SECOND / 4);
    }
    bench.wait(50 * SECOND);
    assert!(!bench.is_usable(0), "twice as long");
    bench.wait(12 * SECOND);
    assert!(bench.is_usable(0));
    bench.wait(90 * SECOND);
    assert_eq!(bench.percent(0), 100);
}

#[test]
fn no_more_of_a_pool_is_taken_out_than_may_be() {
    for (servers, percent_max, most) in [(1, 50, 0), (2, 50, 1), (3, 50, 1), (10, 30, 3), (4, 100, 4)] {
        let mut bench = Bench::new(servers, Algorithm::RoundRobin, ejecting(percent_max));
        for _ in 0..40 {
            (0..servers).for_each(|server| bench.note(u32::try_from(server).unwrap(), Outcome::Failed, 5));
            bench.wait(SECOND / 4);
        }
        let out = (0..servers).filter(|server| !bench.is_usable(u32::try_from(*server).unwrap())).count();
        assert_eq!(out, most, "of {servers} servers, {percent_max} %");
    }
}

#[test]
fn a_reload_that_asks_for_no_more_lets_a_server_back_in() {
    let mut bench = Bench::new(2, Algorithm::RoundRobin, ejecting(50));
    bench.note(0, Outcome::Failed, 100);
    bench.wait(SECOND);
    assert!(!bench.is_usable(0));
    bench.reload(|pool| pool.sharing = PASSIVE);
    assert!(bench.is_usable(0));
    bench.reload(|pool| pool.sharing = ejecting(50));
    bench.note(0, Outcome::Failed, 100);
    bench.wait(SECOND);
    assert!(!bench.is_usable(0));
    bench.reload(|pool| pool.servers.remove(0).slot = Slot(0));
    assert_eq!((bench.is_usable(0), bench.percent(0)), (true, 100), "another server may get its place");
}

#[test]
fn who_answers_in_half_the_time_gets_twice_as_many() {
    let mut bench = Bench::new(4, Algorithm::Fastest, Sharing::default());
    for _ in 0..40 {
        for (server, millis) in [(0, 10), (1, 20), (2, 40)] {
            bench.note(server, Outcome::Answered(Duration::from_millis(millis)), 8);
        }
        bench.wait(SECOND / 4);
    }
    for (server, percent) in [(0, 100), (1, 50), (2, 25), (3, 100)] {
        assert!(
            bench.percent(server).abs_diff(percent) <= 1,
            "{server}: {} instead of {percent}",
            bench.percent(server)
        );
    }
    // The last becomes the fastest of all, the first the slowest.
    for _ in 0..80 {
        for (server, millis) in [(0, 400), (1, 20), (2, 5)] {
            bench.note(server, Outcome::Answered(Duration::from_millis(millis)), 8);
        }
        bench.wait(SECOND / 4);
    }
    for (server, percent) in [(0, 6), (1, 25), (2, 100)] {
        assert!(
            bench.percent(server).abs_diff(percent) <= 1,
            "{server}: {} instead of {percent}",
            bench.percent(server)
        );
    }
}

/// Servers that get slower the more they have: nobody is stampeded, and shares come to rest.
#[test]
fn a_server_that_gets_slower_under_load_finds_its_share_and_keeps_it() {
    let mut bench = Bench::new(3, Algorithm::Fastest, Sharing::default());
    let capacity = [4.0, 2.0, 1.0];
    let mut parts = [0.0; 3];
    for round in 0..400 {
        let parts_of = [0, 1, 2].map(|server| bench.board.share(Slot(server)).parts());
        let shares = parts_of.map(f64::from);
        let sum: f64 = shares.iter().sum();
        for (server, (share, capacity)) in (0..).zip(parts_of.into_iter().zip(capacity)) {
            let count = 60 * usize::from(share) / parts_of.map(usize::from).iter().sum::<usize>();
            let clients = 60.0 * f64::from(share) / sum;
            let time = Duration::from_secs_f64(0.001 * (1.0 + clients / capacity));
            bench.note(server, Outcome::Answered(time), count);
        }
        let before = std::mem::replace(&mut parts, shares.map(|share| share / sum));
        if round > 100 {
            assert!(before.iter().zip(&parts).all(|(before, now)| (before - now).abs() < 0.05), "{before:?} {parts:?}");
        }
        bench.wait(SECOND / 4);
    }
    assert!(parts[0] > parts[1] && parts[1] > parts[2], "{parts:?}");
    assert!(parts[0] < 0.6, "the fastest is not stampeded: {parts:?}");
}

#[test]
fn a_round_over_many_servers_is_cut_into_calls_of_bounded_work() {
    let (board, loads) = (Arc::new(Board::new(3000)), Arc::new(Loads::new(4, 3000)));
    let servers = (0..3000).map(|n| crate::balance::Server {
        id: crate::base::ServerId(n.into()),
        slot: Slot(n),
        ..server(0, 1)
    });
    let pool = Pool::new(PoolId(1), "many".into(), Algorithm::RoundRobin, servers.collect()).sharing(PASSIVE);
    let mut shares = Shares::new(board, Arc::clone(&loads));
    let now = Instant::START + SECOND;
    shares.configure([&Arc::new(pool)].into_iter(), now);
    let round = shares.poll_at().unwrap();
    let mut calls = 0;
    while shares.poll_at().is_some_and(|at| at <= round) {
        shares.on_timeout(round);
        calls += 1;
    }
    assert_eq!(calls, 3000_usize.div_ceil(ROWS_MAX / 4));
    assert_eq!(shares.poll_at(), Some(round + INTERVAL));
}
