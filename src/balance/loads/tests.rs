//! Rows, limits that lanes race for, and reloads that change them.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::balance::{Algorithm, testing};

const FIRST: Slot = Slot(0);

/// A pool of one server with this limit, at the first slot.
fn limited_to(max: Option<u32>) -> Pool {
    let mut pool = testing::pool(Algorithm::RoundRobin, &[1]);
    pool.servers[0].max_connections = max;
    pool
}

fn lanes<const N: usize>(loads: &Arc<Loads>) -> [LaneLoads; N] {
    std::array::from_fn(|lane| LaneLoads::new(Arc::clone(loads), LaneId(u16::try_from(lane).unwrap())))
}

/// What control and lanes do at a reload, lanes in their order.
fn reload(loads: &Loads, lanes: &[LaneLoads], max: Option<u32>) {
    loads.set_limit(FIRST, max);
    let pool = limited_to(max);
    lanes.iter().for_each(|lane| lane.configure([&pool].into_iter()));
}

fn table(lanes: usize, slots: usize) -> Arc<Loads> {
    Arc::new(Loads::new(lanes, slots))
}

#[test]
fn a_servers_load_is_the_sum_over_lanes() {
    let loads = table(2, 40);
    let [first, second] = lanes(&loads);
    assert!(first.take(Slot(17)) && second.take(Slot(17)) && second.take(Slot(17)) && second.take(Slot(39)));
    assert_eq!(loads.total(Slot(17)), 3);
    second.give_back(Slot(17));
    assert_eq!(loads.total(Slot(17)), 2);
    assert_eq!(loads.total(Slot(39)), 1);
    assert_eq!(loads.total(Slot(16)), 0);
}

#[test]
fn a_place_given_back_twice_does_not_make_a_server_look_busy_or_free() {
    let loads = table(1, 1);
    let [lane] = lanes(&loads);
    lane.give_back(FIRST);
    assert_eq!(loads.total(FIRST), 0);
    reload(&loads, std::slice::from_ref(&lane), Some(1));
    assert!(lane.take(FIRST));
    lane.give_back(FIRST);
    lane.give_back(FIRST);
    assert!(lane.take(FIRST) && !lane.take(FIRST));
}

#[test]
fn lanes_and_slots_outside_the_table_count_nothing() {
    let loads = table(1, 1);
    let [_, second] = lanes(&loads);
    assert!(second.take(FIRST) && second.take(Slot(u32::MAX)));
    loads.set_limit(Slot(u32::MAX), Some(1));
    assert_eq!(loads.total(FIRST), 0);
    assert_eq!(loads.total(Slot(u32::MAX)), 0);
    assert!(!second.is_full(Slot(u32::MAX)) && !second.is_drained(Slot(u32::MAX)));
}

#[test]
fn rows_of_two_lanes_share_no_cache_line() {
    let loads = Loads::new(2, 1);
    let [first, second] = [0, 1].map(|lane| std::ptr::from_ref(loads.counter(LaneId(lane), FIRST).unwrap()).addr());
    assert!(first.abs_diff(second) >= 128, "{first:#x} {second:#x}");
}

#[test]
fn limits_of_two_servers_share_no_cache_line() {
    let loads = Loads::new(1, 2);
    let [first, second] = [Slot(0), Slot(1)].map(|slot| {
        loads.set_limit(slot, Some(1));
        std::ptr::from_ref(loads.limit_at(slot).unwrap()).addr()
    });
    assert!(first.abs_diff(second) >= 128, "{first:#x} {second:#x}");
}

#[test]
fn lanes_that_write_at_once_lose_nothing() {
    let loads = table(2, 4);
    std::thread::scope(|scope| {
        for lane in [LaneId(0), LaneId(1)] {
            let loads = Arc::clone(&loads);
            scope.spawn(move || {
                let lane = LaneLoads::new(loads, lane);
                for n in 0..30_000 {
                    assert!(lane.take(Slot(n % 4)));
                    if n % 3 == 0 {
                        lane.give_back(Slot(n % 4));
                    }
                }
            });
        }
    });
    assert_eq!((0..4).map(|slot| loads.total(Slot(slot))).sum::<u64>(), 2 * (30_000 - 10_000));
}

#[test]
fn p4_a_full_server_has_no_place_until_one_is_given_back() {
    let loads = table(2, 1);
    let lanes = lanes::<2>(&loads);
    reload(&loads, &lanes, Some(2));
    let [first, second] = &lanes;
    assert!(first.take(FIRST) && second.take(FIRST));
    assert!(first.is_full(FIRST) && second.is_full(FIRST));
    assert!(!first.take(FIRST) && !second.take(FIRST));
    first.give_back(FIRST);
    assert!(!second.is_full(FIRST));
    assert!(second.take(FIRST), "the place that the other lane gave back");
    assert_eq!(loads.total(FIRST), 2);
}

/// Two threads take and give back as fast as they can; how many have a place is counted beside. Both must have been turned away, or nothing raced.
#[test]
fn p4_lanes_that_race_never_exceed_the_limit_and_lose_no_place() {
    const LIMIT: usize = 3;
    const ROUNDS: usize = 200_000;
    let loads = table(2, 1);
    loads.set_limit(FIRST, Some(3));
    let (have, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = std::sync::Barrier::new(2);
    let turned_away: Vec<usize> = std::thread::scope(|scope| {
        let race = |lane| {
            let (loads, have, most, start) = (Arc::clone(&loads), &have, &most, &start);
            scope.spawn(move || {
                let lane = LaneLoads::new(loads, lane);
                lane.configure([&limited_to(Some(3))].into_iter());
                start.wait();
                let (mut held, mut turned_away) = (0, 0);
                for round in 0..ROUNDS {
                    if lane.take(FIRST) {
                        held += 1;
                        most.fetch_max(have.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    } else {
                        turned_away += 1;
                    }
                    // Not every round, so that the limit is reached; and all at times, so that it is not always.
                    let back = if round % 7 == 0 { held } else { held.min(round % 2) };
                    for _ in 0..back {
                        have.fetch_sub(1, Ordering::SeqCst);
                        lane.give_back(FIRST);
                    }
                    held -= back;
                }
                for _ in 0..held {
                    have.fetch_sub(1, Ordering::SeqCst);
                    lane.give_back(FIRST);
                }
                turned_away
            })
        };
        [LaneId(0), LaneId(1)].map(race).into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    assert_eq!(most.into_inner(), LIMIT, "the limit is reached and never exceeded");
    assert!(turned_away.iter().all(|count| *count > 0), "{turned_away:?}");
    assert_eq!(loads.total(FIRST), 0);
    assert_eq!(loads.limit_at(FIRST).unwrap().counts(), (0, 0));
}

#[test]
fn p4_a_limit_lowered_below_what_is_open_admits_none_until_it_has_fallen() {
    let loads = table(2, 1);
    let lanes = lanes::<2>(&loads);
    reload(&loads, &lanes, Some(4));
    let [first, second] = &lanes;
    assert!((0..2).all(|_| first.take(FIRST) && second.take(FIRST)));
    reload(&loads, &lanes, Some(2));
    for _ in 0..2 {
        assert!(!first.take(FIRST));
        second.give_back(FIRST);
    }
    assert!(!first.take(FIRST), "two are left, which is the limit");
    first.give_back(FIRST);
    assert!(second.take(FIRST) && !second.take(FIRST));
}

#[test]
fn p4_a_raised_limit_admits_at_once() {
    let loads = table(1, 1);
    let lanes = lanes::<1>(&loads);
    reload(&loads, &lanes, Some(1));
    assert!(lanes[0].take(FIRST) && !lanes[0].take(FIRST));
    loads.set_limit(FIRST, Some(2));
    assert!(lanes[0].take(FIRST) && !lanes[0].take(FIRST), "before the lane has its configuration");
}

#[test]
fn p4_a_limit_that_a_reload_brings_counts_what_is_open_and_one_that_it_lifts_is_gone() {
    let loads = table(2, 1);
    let lanes = lanes::<2>(&loads);
    let [first, second] = &lanes;
    assert!(first.take(FIRST) && second.take(FIRST) && second.take(FIRST));
    reload(&loads, &lanes, Some(4));
    assert!(first.take(FIRST) && !second.take(FIRST));
    reload(&loads, &lanes, None);
    assert!((0..10).all(|_| second.take(FIRST)));
    assert_eq!(loads.limit(FIRST), None);
    (0..10).for_each(|_| second.give_back(FIRST));
    reload(&loads, &lanes, Some(5));
    assert!(second.take(FIRST) && !first.take(FIRST), "what the lanes counted before was not counted twice");
    for (lane, count) in [(first, 2), (second, 3)] {
        (0..count).for_each(|_| lane.give_back(FIRST));
    }
    assert_eq!(loads.limit_at(FIRST).unwrap().counts(), (0, 0));
}

#[test]
fn p4_a_server_that_leaves_the_configuration_is_forgotten_and_counted_anew_when_it_returns() {
    let loads = table(1, 1);
    let lanes = lanes::<1>(&loads);
    let [lane] = &lanes;
    reload(&loads, &lanes, Some(2));
    assert!(lane.take(FIRST) && lane.take(FIRST));
    lane.configure(std::iter::empty());
    lane.give_back(FIRST);
    reload(&loads, &lanes, Some(2));
    assert!(lane.take(FIRST) && !lane.take(FIRST), "one of the old connections is still there");
}

#[test]
fn p4_nobody_overtakes_those_who_wait_and_the_queue_is_bounded() {
    let loads = table(2, 1);
    let lanes = lanes::<2>(&loads);
    let [first, second] = &lanes;
    reload(&loads, &lanes, Some(1));
    assert!(first.take(FIRST));
    assert!(first.wait(FIRST, 2) && second.wait(FIRST, 2) && !second.wait(FIRST, 2));
    assert_eq!(loads.waiting(FIRST), 2);
    assert!(!first.admit(FIRST));
    first.give_back(FIRST);
    assert!(second.is_full(FIRST) && !second.take(FIRST), "the place is for one who waits");
    assert!(second.admit(FIRST) && !first.admit(FIRST));
    first.leave(FIRST);
    second.give_back(FIRST);
    assert!(first.take(FIRST));
    assert_eq!((loads.waiting(FIRST), loads.total(FIRST)), (0, 1));
}

#[test]
fn p4_who_waits_is_admitted_when_the_limit_is_lifted() {
    let loads = table(1, 1);
    let lanes = lanes::<1>(&loads);
    let [lane] = &lanes;
    reload(&loads, &lanes, Some(1));
    assert!(lane.take(FIRST) && lane.wait(FIRST, 2) && lane.wait(FIRST, 2));
    loads.set_limit(FIRST, None);
    assert!(lane.admit(FIRST), "before the lane has its configuration");
    lane.configure([&limited_to(None)].into_iter());
    assert!(lane.admit(FIRST), "and after");
    assert_eq!((loads.waiting(FIRST), loads.total(FIRST)), (0, 3));
}

#[test]
fn nobody_waits_for_a_server_without_a_limit() {
    let loads = table(1, 1);
    assert!(!LaneLoads::new(loads, LaneId(0)).wait(FIRST, 10));
}
