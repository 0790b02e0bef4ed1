//! Every order of steps that the memory model allows, of a writer and lanes at the health board and the loads.
//!
//! `cargo test --manifest-path tests/loom/Cargo.toml --test models`

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use sealane_loom::balance::{Board, Health, LaneLoads, Loads, Outcome, Pool, Server, Share, Slot};
use sealane_loom::base::LaneId;

const SLOT: Slot = Slot(0);

fn limited_to(max: u32) -> Pool {
    Pool { servers: vec![Server { slot: SLOT, max_connections: Some(max) }] }
}

/// A lane's hand on the loads, which counts by this limit.
fn lane(loads: &Arc<Loads>, number: u16, max: u32) -> LaneLoads {
    let lane = LaneLoads::new(Arc::clone(loads), LaneId(number));
    lane.configure([&limited_to(max)].into_iter());
    lane
}

#[test]
fn who_sees_a_verdict_sees_what_its_writer_did_before_and_no_older_verdict_after() {
    loom::model(|| {
        let (board, done) = (Arc::new(Board::new(1)), Arc::new(AtomicU64::new(0)));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (board, done) = (Arc::clone(&board), Arc::clone(&done));
                thread::spawn(move || {
                    let first = board.health(SLOT);
                    let least = match first {
                        Health::Unknown => 0,
                        Health::Up => 1,
                        Health::Down => 2,
                        Health::Maintenance => panic!("nobody has said so"),
                    };
                    assert!(done.load(Ordering::Relaxed) >= least, "{first:?} overtook what came before it");
                    let second = board.health(SLOT);
                    let went_back = matches!(
                        (first, second),
                        (Health::Up, Health::Unknown) | (Health::Down, Health::Unknown | Health::Up)
                    );
                    assert!(!went_back, "{second:?} after {first:?}");
                })
            })
            .collect();
        for (step, health) in [(1, Health::Up), (2, Health::Down)] {
            done.store(step, Ordering::Relaxed);
            board.publish(SLOT, health);
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert_eq!(board.health(SLOT), Health::Down);
    });
}

#[test]
fn verdict_and_share_are_never_torn_apart_and_neither_is_lost() {
    loom::model(|| {
        let board = Arc::new(Board::new(2));
        let reader = {
            let board = Arc::clone(&board);
            thread::spawn(move || {
                // A server that comes up has its little share before anybody may use it.
                match board.usable_share(SLOT) {
                    None | Some(Share::LEAST) => {}
                    Some(share) => assert_eq!(share, Share::FULL, "before anything was said of it"),
                }
                if board.health(SLOT) == Health::Up {
                    assert_eq!(board.usable_share(SLOT), Some(Share::LEAST));
                }
                assert_eq!(board.health(Slot(1)), Health::Unknown, "nobody wrote there");
            })
        };
        board.publish(SLOT, Health::Down);
        board.publish_share(SLOT, Share::LEAST);
        board.publish(SLOT, Health::Up);
        reader.join().unwrap();
        assert_eq!((board.health(SLOT), board.share(SLOT)), (Health::Up, Share::LEAST));
    });
}

#[test]
fn lanes_that_race_for_the_last_place_never_both_have_it_and_it_is_not_lost() {
    loom::model(|| {
        let loads = Arc::new(Loads::new(2, 1));
        loads.set_limit(SLOT, Some(1));
        let have = Arc::new(AtomicU64::new(0));
        let racers: Vec<_> = (0..2)
            .map(|number| {
                let (loads, have) = (Arc::clone(&loads), Arc::clone(&have));
                thread::spawn(move || {
                    let lane = lane(&loads, number, 1);
                    let got = lane.take(SLOT);
                    if got {
                        assert_eq!(have.fetch_add(1, Ordering::SeqCst), 0, "two have the one place");
                        have.fetch_sub(1, Ordering::SeqCst);
                        lane.give_back(SLOT);
                    }
                    got
                })
            })
            .collect();
        let got: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
        assert!(got.contains(&true), "nobody got the place");
        assert_eq!(loads.total(SLOT), 0);
        assert!(lane(&loads, 0, 1).take(SLOT), "the place was lost");
    });
}

#[test]
fn a_place_that_is_given_back_goes_to_who_waits_and_to_nobody_else() {
    loom::model(|| {
        let loads = Arc::new(Loads::new(3, 1));
        loads.set_limit(SLOT, Some(1));
        let holder = lane(&loads, 0, 1);
        assert!(holder.take(SLOT));
        let waits = lane(&loads, 1, 1);
        assert!(waits.wait(SLOT, 1));
        let passer_by = {
            let loads = Arc::clone(&loads);
            thread::spawn(move || lane(&loads, 2, 1).take(SLOT))
        };
        holder.give_back(SLOT);
        assert!(waits.admit(SLOT), "the place is there, and it is for the one who waits");
        assert!(!passer_by.join().unwrap(), "somebody overtook the one who waits");
        assert_eq!((loads.total(SLOT), loads.waiting(SLOT)), (1, 0));
    });
}

#[test]
fn a_limit_that_is_lowered_meanwhile_admits_no_more_than_it_was() {
    loom::model(|| {
        let loads = Arc::new(Loads::new(2, 1));
        loads.set_limit(SLOT, Some(2));
        let racers: Vec<_> = (0..2)
            .map(|number| {
                let loads = Arc::clone(&loads);
                thread::spawn(move || lane(&loads, number, 2).take(SLOT))
            })
            .collect();
        loads.set_limit(SLOT, Some(1));
        let got = racers.into_iter().map(|racer| racer.join().unwrap()).filter(|got| *got).count();
        assert!((1..=2).contains(&got));
        assert_eq!(loads.total(SLOT), got as u64);
        assert!(!lane(&loads, 0, 1).take(SLOT), "one is the most now");
    });
}

#[test]
fn what_lanes_count_each_in_its_own_row_adds_up() {
    loom::model(|| {
        let loads = Arc::new(Loads::new(2, 1));
        let lanes: Vec<_> = (0..2)
            .map(|number| {
                let loads = Arc::clone(&loads);
                thread::spawn(move || {
                    let lane = LaneLoads::new(loads, LaneId(number));
                    assert!(lane.take(SLOT) && lane.take(SLOT));
                    lane.give_back(SLOT);
                })
            })
            .collect();
        assert!(loads.total(SLOT) <= 4);
        lanes.into_iter().for_each(|lane| lane.join().unwrap());
        assert_eq!(loads.total(SLOT), 2);
    });
}

#[test]
fn what_lanes_have_seen_of_a_server_adds_up_and_never_falls() {
    loom::model(|| {
        let loads = Arc::new(Loads::new(2, 1));
        let lanes: Vec<_> = (0..2)
            .map(|number| {
                let loads = Arc::clone(&loads);
                thread::spawn(move || {
                    let lane = LaneLoads::new(loads, LaneId(number));
                    lane.note(SLOT, Outcome::Failed);
                    lane.note(SLOT, Outcome::Finished);
                })
            })
            .collect();
        let first = loads.evidence(SLOT);
        let second = loads.evidence(SLOT);
        assert!(first.failures <= second.failures && first.successes <= second.successes);
        lanes.into_iter().for_each(|lane| lane.join().unwrap());
        let all = loads.evidence(SLOT);
        assert_eq!((all.failures, all.successes), (2, 2));
    });
}
