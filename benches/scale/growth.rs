//! One lane in memory, in virtual time, small and large in turn: more connections held, more services, more servers.

use sealane::sim;

use crate::world::{Size, World};
use crate::{HANDSHAKES, Pair};

/// Connections that the small table holds, and every table in which something else grows.
const HELD: usize = 1000;

/// Clients at once: more than a breath has handshake steps for.
const CLIENTS: usize = 64;

/// Stretches of a measurement.
const STRETCHES: u32 = 20;

const UNIT: &str = "microseconds a handshake";

/// Ever more connections held, beside a thousand.
pub(crate) fn connections(identity: &sim::Identity, rounds: u32, most: usize) {
    // A server's address and port takes 49,152 connections of one address of the engine's: so many of them that ports are easily found.
    let size = Size { services: 1, servers: 128 };
    let mut small = World::new(identity, size, HELD);
    let mut large = World::new(identity, size, HELD);
    let mut held = HELD;
    while held * 10 <= most {
        eprintln!("opening {} connections", with_commas(held * 9));
        large.hold(held * 9);
        held *= 10;
        let name = format!("{} held", with_commas(held));
        compare(&mut small, &mut large, rounds, CLIENTS, &name, "1,000 held");
    }
}

/// A thousand virtual services, all of them used, beside one.
pub(crate) fn services(identity: &sim::Identity, rounds: u32) {
    let mut one = World::new(identity, Size { services: 1, servers: 3 }, HELD);
    let mut many = World::new(identity, Size { services: 1000, servers: 3 }, HELD);
    compare(&mut one, &mut many, rounds, 1000, "1,000 services", "1 service");
}

/// A pool of three thousand servers, all monitored, beside one of three.
pub(crate) fn servers(identity: &sim::Identity, rounds: u32) {
    let mut few = World::new(identity, Size { services: 1, servers: 3 }, HELD);
    let mut many = World::new(identity, Size { services: 1, servers: 3000 }, HELD);
    compare(&mut few, &mut many, rounds, CLIENTS, "3,000 servers", "3 servers");
}

fn compare(small: &mut World, large: &mut World, rounds: u32, clients: usize, name: &str, against: &str) {
    for round in 0..rounds {
        for handshake in HANDSHAKES {
            let mut here = small.begin(handshake, clients);
            let mut there = large.begin(handshake, clients);
            for stretch in 0..STRETCHES {
                // Each is first in every other stretch.
                if stretch % 2 == 0 {
                    small.go_on(&mut here);
                    large.go_on(&mut there);
                } else {
                    large.go_on(&mut there);
                    small.go_on(&mut here);
                }
            }
            let (value, other) = (large.end(there), small.end(here));
            let name = format!("{}, {name}", handshake.name);
            Pair { round, name, unit: UNIT, value, against, other, less_is_better: true }.say();
        }
    }
}

fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
