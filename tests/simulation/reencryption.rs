//! Servers that are spoken to in TLS, over a lossy network.

use std::time::Duration;

use sealane::relay::End;
use sealane::sim::{Outcome, Reencryption, Setup};
use sealane::tcp::Close;

use super::{BOTH, LOSSY, assert_clean, counted, few, record, worlds};

fn reencrypting(tls12: bool) -> Setup {
    Setup { reencryption: Some(Reencryption { tls12, is_abrupt: false }), ..Setup::default() }
}

#[test]
fn bytes_arrive_whole_both_ways_through_both_sessions_over_a_lossy_network() {
    for tls12 in BOTH {
        for (seed, mut world) in worlds(Setup { conditions: LOSSY, tls12, ..reencrypting(!tls12) }).take(8) {
            // The servers' keys change in the midst of what they send.
            for client in 0..3 {
                world.transfer(client, 60_000, 60_000).served();
            }
            let outcomes = world.transfer_all(&[(0, 20_000, 1), (1, 1, 100_000), (2, 0, 0), (3, 5_000, 40_000)]);
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Served(_))), "seed {seed}: {outcomes:?}");
            assert_clean(&mut world, seed);
        }
    }
}

#[test]
fn returning_clients_keep_their_server_and_the_engine_resumes_its_own_sessions_with_it() {
    for tls12 in BOTH {
        for (seed, mut world) in few(reencrypting(tls12)) {
            for client in 0..8 {
                let first = world.visit(client).served();
                assert_eq!(world.visit(client).served().server, first.server, "seed {seed}");
            }
            let (full, resumed) = (
                counted(&world, "relay", "server_handshakes_full"),
                counted(&world, "relay", "server_handshakes_resumed"),
            );
            // Each of two lanes has shaken hands in full with each of four servers at most once.
            assert_eq!(full + resumed, 16, "seed {seed}");
            assert!((4..=8).contains(&full), "seed {seed}: {full} in full");
        }
    }
}

#[test]
fn a_server_that_closes_without_close_notify_has_been_cut_short_and_its_client_is_reset() {
    for tls12 in BOTH {
        let reencryption = Some(Reencryption { tls12, is_abrupt: true });
        for (seed, mut world) in few(Setup { reencryption, ..Setup::default() }) {
            assert_eq!(world.transfer(0, 10, 5_000), Outcome::Cut(Close::Reset), "seed {seed}");
            assert_eq!(record(&mut world).end, End::ServerTruncated, "seed {seed}");
            assert_clean(&mut world, seed);
        }
    }
}

#[test]
fn a_server_that_stops_in_the_midst_of_it_is_given_up_for_another() {
    for tls12 in BOTH {
        for (seed, mut world) in few(reencrypting(tls12)) {
            let first = world.visit(0).served().server;
            world.run_for(Duration::from_secs(1));
            world.stop_server(u16::try_from(first).unwrap());
            assert_ne!(world.visit(0).served().server, first, "seed {seed}");
        }
    }
}
