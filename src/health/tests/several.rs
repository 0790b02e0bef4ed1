//! Several monitors a pool, ports of their own, and what is told of what they find.

use super::*;

/// A monitor of its own name that looks at a port of its own.
fn at_port(name: &str, port: u16) -> Monitor {
    Monitor { name: name.into(), port: Some(port), ..monitor() }
}

fn port_of(server: u16, port: u16) -> SocketAddr {
    SocketAddr::new(address(server).ip(), port)
}

#[test]
fn a_monitor_looks_at_its_own_port() {
    let mut world = World::new(20, 1);
    world.manners.insert(port_of(0, 9000), Manner::Refuses);
    world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(at_port("own", 9000)));
    world.run(2 * SECOND);
    assert_eq!(world.health(0), Health::Down);
    assert!(world.probes_of(0).is_empty() && world.begun.iter().all(|(_, to)| *to == port_of(0, 9000)));
}

#[test]
fn all_monitors_of_a_pool_must_find_a_server_up_or_as_many_as_it_asks_for() {
    for (up_min, bad, expected) in [
        (3, 0, Health::Up),
        (3, 1, Health::Down),
        (2, 1, Health::Up),
        (2, 2, Health::Down),
        (1, 2, Health::Up),
        (1, 3, Health::Down),
    ] {
        let mut world = World::new(21, 1);
        for port in 0..bad {
            world.manners.insert(port_of(0, 9000 + port), Manner::Refuses);
        }
        let monitors = (0..3).map(|n| at_port(&format!("m{n}"), 9000 + n)).collect();
        world.configure_with(&pool(Algorithm::RoundRobin, &[1]), monitors, up_min);
        world.run(10 * SECOND);
        assert_eq!(world.health(0), expected, "{up_min} of 3 with {bad} bad");
    }
}

#[test]
fn with_several_monitors_every_one_looks_by_itself_and_its_reason_is_kept() {
    let mut world = World::new(22, 1);
    world.manners.insert(port_of(0, 9001), Manner::Refuses);
    world.manners.insert(port_of(0, 9002), Manner::Silent);
    let monitors = (0..3).map(|n| at_port(&format!("m{n}"), 9000 + n)).collect();
    world.configure_with(&pool(Algorithm::RoundRobin, &[1]), monitors, 3);
    world.run(30 * SECOND);
    for port in 9000..9003 {
        let times: Vec<_> = world.begun.iter().filter(|(_, to)| *to == port_of(0, port)).map(|(at, _)| *at).collect();
        assert!(times[0] <= Instant::START + SECOND, "the first round is quick");
        assert!(times[1..].windows(2).all(|pair| pair[1].since(pair[0]) == 4 * SECOND), "{times:?}");
    }
    let last = world.told.last().unwrap();
    let found: Vec<_> = last.findings.iter().map(|finding| (finding.monitor.as_str(), finding.health)).collect();
    assert_eq!(found, [("m0", Health::Up), ("m1", Health::Down), ("m2", Health::Down)]);
    assert_eq!(last.reasons(), "m1: refused, m2: timed out");
    // What did not change was not told again.
    assert!(world.told.len() <= 5, "{:#?}", world.told);
    world.manners.insert(port_of(0, 9001), Manner::Unreachable);
    world.run(5 * SECOND);
    let last = world.told.last().unwrap();
    assert_eq!(last.reasons(), "m1: unreachable, m2: timed out", "a new reason is news, though the state is the same");
    assert_eq!((last.health, last.before), (Health::Down, Health::Down));
}

#[test]
fn a_monitor_that_a_reload_adds_or_takes_away_decides_when_it_has_looked_and_not_before() {
    let mut world = World::new(23, 1);
    let one = pool(Algorithm::RoundRobin, &[1]);
    world.manners.insert(port_of(0, 9001), Manner::Refuses);
    world.configure_with(&one, vec![at_port("a", 9000)], 1);
    world.run(10 * SECOND);
    world.configure_with(&one, vec![at_port("b", 9001), at_port("a", 9000)], 2);
    assert_eq!(world.health(0), Health::Up);
    world.run(2 * SECOND);
    assert_eq!(world.health(0), Health::Down);
    world.configure_with(&one, vec![at_port("a", 9000)], 1);
    assert_eq!(world.health(0), Health::Up, "nobody says that it is down any more");
    // Another one altogether keeps the verdict until it has looked.
    world.configure_with(&one, vec![at_port("c", 9001)], 1);
    assert_eq!(world.health(0), Health::Up);
    world.run(2 * SECOND);
    assert_eq!(world.health(0), Health::Down);
    assert_eq!(world.monitors.checks.len(), 1, "nothing is left of the others");
    world.configure(&one, None);
    assert_eq!(world.health(0), Health::Unknown);
    assert!(world.monitors.checks.is_empty() && world.monitors.gone.is_empty());
    assert!(world.told.last().unwrap().findings.is_empty(), "whoever keeps verdicts hears of it");
}

#[test]
fn verdicts_that_nobody_takes_are_one_a_server_and_the_newest() {
    let mut world = World::new(24, 2);
    let one = pool(Algorithm::RoundRobin, &[1]);
    world.configure(&one, Some(monitor()));
    for manner in [Manner::Answers, Manner::Refuses, Manner::Unreachable, Manner::Answers, Manner::Refuses] {
        world.set(0, manner);
        for _ in 0..20 {
            world.now = world.now + SECOND;
            world.monitors.on_timeout(world.now);
            while let Some(probe) = world.monitors.poll_probe() {
                if let Probe::Connect(id, _) = probe {
                    let cause = if manner == Manner::Refuses { Cause::Refused } else { Cause::Unreachable };
                    if manner == Manner::Answers {
                        world.monitors.on_connected(id, world.now, WALL);
                    } else {
                        world.monitors.on_failed(id, cause, world.now);
                    }
                }
            }
        }
    }
    assert_eq!(world.monitors.news.len(), 1);
    let verdict = world.monitors.poll_verdict(world.now).unwrap();
    assert_eq!((verdict.health, verdict.before), (Health::Down, Health::Unknown));
    assert_eq!(verdict.reasons(), "tcp: refused");
    assert_eq!(world.monitors.poll_verdict(world.now), None);
}
