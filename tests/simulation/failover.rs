//! What becomes of clients whose server does not connect, and of those whose whole pool is down.

use std::time::Duration;

use sealane::balance::{Failover, PoolDownAction};
use sealane::persistence::{Reason, SelectNewServer};
use sealane::relay::End;
use sealane::sim::engine::BACKUP;
use sealane::sim::{Outcome, Setup, World};
use sealane::tcp::Close;

use super::{BOTH, counted, few, record};

const RESET: Outcome = Outcome::Cut(Close::Reset);
const BOUND: [SelectNewServer; 2] = [SelectNewServer::Never, SelectNewServer::NeverEvenIfDown];

/// Long enough for the monitors to see what has become of every server.
fn let_monitors_look(world: &mut World) {
    world.run_for(Duration::from_secs(6));
    world.take_records();
}

#[test]
fn a_client_whose_server_does_not_connect_is_served_by_another_and_keeps_its_mapping() {
    for tls12 in BOTH {
        for (seed, mut world) in few(Setup { tls12, ..Setup::default() }) {
            let first = world.visit(0).served().server;
            world.run_for(Duration::from_secs(1));
            world.take_records();
            let server = u16::try_from(first).unwrap();
            world.stop_server(server);
            assert_ne!(world.visit(0).served().server, first, "seed {seed}");
            let moved = record(&mut world);
            assert_eq!((moved.reason, moved.end), (Some(Reason::Persisted), End::Finished), "seed {seed}");
            assert_ne!(moved.wanted, moved.chosen.map(|(_, server)| server), "seed {seed}");
            assert_eq!(counted(&world, "relay", "connects_retried"), 1, "seed {seed}");
            world.start_server(server);
            assert_eq!(world.visit(0).served().server, first, "seed {seed}");
            world.run_for(Duration::from_secs(1));
            assert_eq!((0..4).map(|server| world.places(server)).sum::<u64>(), 0, "seed {seed}");
        }
    }
}

#[test]
fn a_client_whose_server_says_nothing_is_served_by_another_when_the_time_to_connect_is_over() {
    for (seed, mut world) in few(Setup::default()) {
        let first = world.visit(0).served().server;
        world.silence_server(u16::try_from(first).unwrap());
        assert_ne!(world.visit(0).served().server, first, "seed {seed}");
        assert_eq!(counted(&world, "relay", "connects_retried"), 1, "seed {seed}");
    }
}

#[test]
fn who_may_have_no_other_server_is_tried_at_no_other() {
    for policy in BOUND {
        for (seed, mut world) in few(Setup { policy, ..Setup::default() }) {
            let first = world.visit(0).served().server;
            world.run_for(Duration::from_secs(1));
            world.take_records();
            world.stop_server(u16::try_from(first).unwrap());
            assert_eq!(world.visit(0), RESET, "seed {seed}");
            assert_eq!(record(&mut world).end, End::ServerRefused, "seed {seed}");
            assert_eq!(counted(&world, "relay", "connects_retried"), 0, "seed {seed}");
        }
    }
}

#[test]
fn a_client_is_tried_at_no_more_servers_than_its_pool_says_and_at_none_twice() {
    for (connect_retries, up, is_served) in [(0, 1, false), (2, 1, false), (3, 1, true), (10, 1, true), (10, 0, false)]
    {
        let failover = Failover { connect_retries, ..Failover::default() };
        for (seed, mut world) in few(Setup { lanes: 1, failover, ..Setup::default() }) {
            // In turn, after a whole round: the fourth one is the last that is tried.
            for client in 0..4 {
                world.visit(client).served();
            }
            world.run_for(Duration::from_secs(1));
            world.take_records();
            for server in 0..4 - up {
                world.stop_server(server);
            }
            let outcome = world.visit(4);
            let tried = if up == 0 { 3 } else { u64::from(connect_retries).min(3) };
            assert_eq!(counted(&world, "relay", "connects_retried"), tried, "seed {seed}");
            if is_served {
                assert_eq!(outcome.served().server, 3, "seed {seed}");
            } else {
                assert_eq!(outcome, RESET, "seed {seed}");
                assert_eq!(record(&mut world).end, End::ServerRefused, "seed {seed}");
            }
            world.run_for(Duration::from_secs(1));
            assert_eq!((0..4).map(|server| world.places(server)).sum::<u64>(), 0, "seed {seed}");
        }
    }
}

#[test]
fn a_pool_that_is_down_resets_its_clients_or_tells_them_by_an_alert() {
    for (pool_down_action, told) in [(PoolDownAction::Reset, RESET), (PoolDownAction::TlsAlert, Outcome::TlsFailed)] {
        let failover = Failover { pool_down_action, ..Failover::default() };
        for tls12 in BOTH {
            for (seed, mut world) in few(Setup { tls12, failover, ..Setup::default() }) {
                world.visit(0).served();
                (0..4).for_each(|server| world.stop_server(server));
                let_monitors_look(&mut world);
                for client in [0, 1] {
                    assert_eq!(world.visit(client), told, "client {client}, seed {seed}");
                    let record = record(&mut world);
                    assert_eq!((record.reason, record.end), (Some(Reason::PoolDown), End::NoServer), "seed {seed}");
                }
                (0..4).for_each(|server| world.start_server(server));
                let_monitors_look(&mut world);
                world.visit(0).served();
                world.run_for(Duration::from_secs(1));
                assert_eq!(world.open(), 0, "seed {seed}");
            }
        }
    }
}

#[test]
fn a_pool_with_fewer_servers_up_than_it_needs_is_down_for_everyone() {
    for policy in [SelectNewServer::Immediate, SelectNewServer::Never, SelectNewServer::NeverEvenIfDown] {
        let failover = Failover { servers_up_min: 3, ..Failover::default() };
        for (seed, mut world) in few(Setup { policy, failover, ..Setup::default() }) {
            let mine = world.visit(0).served().server;
            let others: Vec<_> = (0..4).filter(|server| u32::from(*server) != mine).collect();
            world.stop_server(others[0]);
            let_monitors_look(&mut world);
            assert_eq!(world.visit(0).served().server, mine, "three are up, seed {seed}");
            world.stop_server(others[1]);
            let_monitors_look(&mut world);
            for client in [0, 1] {
                assert_eq!(world.visit(client), RESET, "two are up, seed {seed}");
                assert_eq!(record(&mut world).reason, Some(Reason::PoolDown), "seed {seed}");
            }
            world.start_server(others[1]);
            let_monitors_look(&mut world);
            assert_eq!(world.visit(0).served().server, mine, "seed {seed}");
        }
    }
}

/// Four servers, the last two of which are the backup of the first two.
fn backed(policy: SelectNewServer) -> Setup {
    let failover = Failover { pool_down_action: PoolDownAction::BackupPool(BACKUP), ..Failover::default() };
    Setup { backups: 2, policy, failover, ..Setup::default() }
}

#[test]
fn clients_of_a_pool_that_is_down_go_to_its_backup_and_stay_at_their_server_there_until_it_is_up_again() {
    for (seed, mut world) in few(backed(SelectNewServer::Immediate)) {
        for client in 0..4 {
            assert!(world.visit(client).served().server < 2, "the pool is up, seed {seed}");
        }
        (0..2).for_each(|server| world.stop_server(server));
        let_monitors_look(&mut world);
        let mut servers = [0; 4];
        for (client, server) in servers.iter_mut().enumerate() {
            *server = world.visit(client).served().server;
            assert!(*server >= 2, "client {client}, seed {seed}");
            let again = world.visit(client).served();
            assert!(again.resumed && again.server == *server, "client {client}, seed {seed}");
        }
        assert!(servers.contains(&2) && servers.contains(&3), "{servers:?}, seed {seed}");
        world.start_server(0);
        let_monitors_look(&mut world);
        assert_eq!(world.visit(0).served().server, 0, "seed {seed}");
        assert_eq!(record(&mut world).reason, Some(Reason::SwitchedRemoved), "seed {seed}");
    }
}

#[test]
fn who_may_have_no_other_server_is_not_sent_to_the_backup_and_new_clients_are() {
    for policy in BOUND {
        for (seed, mut world) in few(backed(policy)) {
            let first = world.visit(0).served().server;
            (0..2).for_each(|server| world.stop_server(server));
            let_monitors_look(&mut world);
            assert_eq!(world.visit(0), RESET, "seed {seed}");
            assert_eq!(record(&mut world).reason, Some(Reason::RefusedDown), "seed {seed}");
            assert!(world.visit(1).served().server >= 2, "seed {seed}");
            (0..2).for_each(|server| world.start_server(server));
            let_monitors_look(&mut world);
            assert_eq!(world.visit(0).served().server, first, "seed {seed}");
        }
    }
}

#[test]
fn a_backup_that_is_down_too_turns_clients_away() {
    for (seed, mut world) in few(backed(SelectNewServer::Immediate)) {
        (0..4).for_each(|server| world.stop_server(server));
        let_monitors_look(&mut world);
        assert_eq!(world.visit(0), RESET, "seed {seed}");
        assert_eq!(record(&mut world).end, End::NoServer, "seed {seed}");
    }
}
