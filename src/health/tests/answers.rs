//! What servers answer to monitors that ask: good and bad answers, none, and maintenance.

use super::*;

fn page() -> Monitor {
    let settings = http::Settings {
        method: "GET",
        path: "/health".into(),
        host: Some("shop.example".into()),
        codes: vec![200..=299],
        text: b"well"[..].into(),
        maintenance_codes: vec![503..=503],
    };
    Monitor { kind: Kind::Http(Arc::new(settings)), maintenance_text: b"be back"[..].into(), ..monitor() }
}

fn ping_pong() -> Monitor {
    let settings = tcp::Settings { send: b"PING\r\n"[..].into(), expect: b"+PONG"[..].into() };
    Monitor { kind: Kind::Tcp(settings), ..monitor() }
}

const WELL: Manner = Manner::Says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell");
const LATER: Manner = Manner::Says("HTTP/1.1 503 Later\r\n\r\n");

#[test]
fn each_way_to_answer_badly_has_its_cause_and_its_counter() {
    for (monitor, manner, cause, counter) in [
        (
            page(),
            Manner::Says("HTTP/1.1 500 Oh\r\n"),
            Cause::NoAnswer,
            (|c| &c.failures_no_answer) as fn(&Counters) -> &Counter,
        ),
        (page(), Manner::Says("HTTP/1.1 500 Oh\r\n\r\n"), Cause::NoAnswer, |c| &c.failures_no_answer),
        (page(), Manner::SaysAndCloses("HTTP/1.1 500 Oh\r\n\r\n"), Cause::WrongCode(500), |c| &c.failures_code),
        (page(), Manner::SaysAndCloses("HTTP/1.1 200 OK\r\n\r\nill"), Cause::TextMissing, |c| &c.failures_text),
        (page(), Manner::SaysAndCloses("HTTP/1.1 200 OK\r\n"), Cause::Closed, |c| &c.failures_closed),
        (page(), Manner::Says("SSH-2.0\r\n"), Cause::NotHttp, |c| &c.failures_not_http),
        (page(), Manner::Refuses, Cause::Refused, |c| &c.failures_refused),
        (page(), Manner::Silent, Cause::TimedOut, |c| &c.failures_timed_out),
        (ping_pong(), Manner::Says("-ERR\r\n"), Cause::TextMissing, |c| &c.failures_text),
        (ping_pong(), Manner::Says(""), Cause::NoAnswer, |c| &c.failures_no_answer),
        (ping_pong(), Manner::SaysAndCloses(""), Cause::Closed, |c| &c.failures_closed),
    ] {
        let mut world = World::new(30, 1);
        world.set(0, manner);
        world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(monitor));
        world.run(4 * SECOND);
        assert_eq!(world.verdicts, [went_down(0, cause)], "{manner:?}");
        assert!(counter(&world.counters).value() >= 1, "{manner:?}");
    }
}

#[test]
fn a_server_that_answers_well_is_up_and_was_asked_what_the_monitor_says() {
    for (monitor, manner, asked) in [
        (page(), WELL, "GET /health HTTP/1.1\r\nHost: shop.example\r\n"),
        (ping_pong(), Manner::Says("+PONG\r\n"), "PING\r\n"),
    ] {
        let mut world = World::new(31, 1);
        world.set(0, manner);
        world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(monitor));
        world.run(30 * SECOND);
        assert_eq!(world.verdicts, [went_up(0)]);
        assert!(world.open.is_empty(), "nothing is left open");
        assert!(world.said.values().all(|said| said.starts_with(asked.as_bytes())));
        assert_eq!(world.value(|c| &c.successes), world.value(|c| &c.probes));
    }
}

#[test]
fn a_server_goes_into_maintenance_when_it_says_so_often_enough_and_comes_back_the_same_way() {
    let body = Manner::SaysAndCloses("HTTP/1.1 500 Oh\r\n\r\nwe will be back");
    for manner in [LATER, body] {
        let mut world = World::new(32, 1);
        world.set(0, WELL);
        world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(page()));
        world.run(10 * SECOND);
        world.set(0, manner);
        world.run(4 * SECOND);
        assert_eq!(world.health(0), Health::Up, "once is not enough");
        world.run(12 * SECOND);
        assert_eq!(world.health(0), Health::Maintenance);
        assert_eq!(world.told.last().unwrap().reasons(), "tcp: maintenance");
        assert_eq!(world.value(|c| &c.servers_in_maintenance), 1);
        assert_eq!(world.value(|c| &c.servers_up) + world.value(|c| &c.servers_down), 0);
        world.set(0, WELL);
        world.run(12 * SECOND);
        assert_eq!(world.health(0), Health::Up);
        world.set(0, manner);
        world.run(16 * SECOND);
        world.set(0, Manner::Refuses);
        world.run(16 * SECOND);
        assert_eq!(world.health(0), Health::Down);
        let healths: Vec<_> = world.verdicts.iter().map(|(_, health, _)| *health).collect();
        assert_eq!(healths, [Health::Up, Health::Maintenance, Health::Up, Health::Maintenance, Health::Down]);
        assert_eq!(world.value(|c| &c.went_into_maintenance), 2);
    }
}

#[test]
fn the_first_answer_decides_alone_when_it_is_maintenance() {
    let mut world = World::new(33, 1);
    world.set(0, LATER);
    world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(page()));
    world.run(SECOND + Duration::from_millis(1));
    assert_eq!(world.health(0), Health::Maintenance);
}

#[test]
fn what_another_probe_says_is_not_this_ones() {
    let mut world = World::new(34, 1);
    world.set(0, Manner::Silent);
    world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(page()));
    world.run(SECOND);
    let Some(&id) = world.open.keys().next() else { panic!("it is under way") };
    let stranger = ProbeId(id.0 + 1);
    world.monitors.on_connected(stranger, world.now, WALL);
    world.monitors.on_data(stranger, b"HTTP/1.1 200 OK\r\n\r\nwell", world.now, WALL);
    world.monitors.on_end(stranger, world.now);
    world.monitors.poll_transmit(stranger, world.now, |_| panic!("it has nothing to say"));
    assert_eq!(world.value(|c| &c.answers_late), 3);
    world.monitors.poll_transmit(id, world.now, |_| panic!("it is not connected"));
    assert_eq!(world.value(|c| &c.successes), 0);
}

/// A world in which one server is pinged, and its first ping.
fn pinged(seed: u64) -> (World, (ProbeId, IpAddr, Ping)) {
    let mut world = World::new(seed, 1);
    world.configure(&pool(Algorithm::RoundRobin, &[1]), Some(Monitor { kind: Kind::Ping, ..monitor() }));
    world.run(SECOND);
    let ping = world.pings[0];
    (world, ping)
}

#[test]
fn a_server_that_echoes_is_up_and_one_that_stops_is_down() {
    let (mut world, _) = pinged(35);
    let mut answered = 0;
    for _ in 0..100 {
        for (id, to, ping) in world.pings.split_off(0) {
            world.monitors.on_echo(to, ping, world.now);
            world.open.remove(&id);
            answered += 1;
        }
        world.run(Duration::from_millis(100));
    }
    assert_eq!(world.verdicts, [went_up(0)]);
    assert!(answered >= 2 && world.begun.is_empty(), "no connection is opened");
    world.run(20 * SECOND);
    assert_eq!(world.health(0), Health::Down);
    assert_eq!(world.told.last().unwrap().reasons(), "tcp: timed out");
}

#[test]
fn an_echo_that_was_not_asked_for_brings_nobody_up() {
    let (mut world, (id, to, ping)) = pinged(36);
    let other = address(0).ip();
    assert_eq!(to, other);
    for (from, ping) in [
        (to, Ping { sequence: ping.sequence ^ 1, ..ping }),
        (to, Ping { token: ping.token ^ 1 << 40, ..ping }),
        (to, Ping { token: ping.token ^ 1, ..ping }),
        ("198.18.9.9".parse().unwrap(), ping),
    ] {
        world.monitors.on_echo(from, ping, world.now);
        assert!(world.monitors.is_running(id));
    }
    assert_eq!(world.health(0), Health::Unknown);
    world.monitors.on_echo(to, ping, world.now);
    assert_eq!(world.health(0), Health::Up);
    let late = world.value(|c| &c.answers_late);
    world.monitors.on_echo(to, ping, world.now);
    assert_eq!(world.value(|c| &c.answers_late), late + 1, "it counts once");
}
