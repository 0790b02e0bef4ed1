//! Pictures of a recorded engine, in terminals of every size, and what keys and restarts do to them.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value as Json, json};

use super::app::{App, Link, POINTS_MAX, View, Wish};
use super::{draw, once};
use crate::base::{Duration, Instant};
use crate::control::api::shapes::Overview;

/// An engine with two lanes, one pool of three servers, of which one is down and one is drained, two services and two keys.
fn recorded(uptime_milliseconds: u64, counted: u64) -> Json {
    let lane = |number: u64| {
        json!({
            "lane": number, "core": number + 2, "breaths": 1, "configuration_version": 3, "ring_version": 7, "connections": 1200 + number,
            "busy_nanoseconds": counted * 250_000_000 * (number + 1), "idle_nanoseconds": counted * 250_000_000 * (3 - number),
            "accepted": counted * 100, "handshakes_full": counted * 40, "handshakes_resumed": counted * 60, "handshakes_waiting": 2,
            "bytes_received": counted * 1_000_000, "bytes_sent": counted * 20_000_000, "frames_received": counted * 9000,
            "frames_sent": counted * 8000, "frames_dropped": number * counted, "frames_malformed": 5
        })
    };
    let server = |name: &str, state: &str, health: &str, usable: bool| {
        let findings = if health == "down" {
            json!([{ "monitor": "connect", "health": "down", "cause": "refused", "since": "2026-01-01T00:00:00Z" }])
        } else {
            json!([])
        };
        json!({
            "name": name, "address": format!("198.18.1.1:80{}", name.len()), "state": state, "health": health, "since": "2026-01-01T00:00:00Z",
            "findings": findings, "usable": usable, "ratio": 1, "connections": 12, "connections_max": 500, "waiting": 0, "generation": 0,
            "share_percent": 100, "out": false, "successes": counted * 30, "failures": 4, "answers": counted * 30, "answer_microseconds": counted * 30 * 1500
        })
    };
    let servers = [
        server("a", "enabled", "up", true),
        server("bb", "enabled", "down", false),
        server("ccc", "draining", "up", false),
    ];
    let service = |name: &str, usable: u64| {
        json!({
            "name": name, "addresses": ["198.18.0.10:443", "[2001:db8::10]:443"], "pool": "web", "servers_usable": usable,
            "certificates": [{ "names": ["shop.test"], "not_after": "2026-01-04T00:00:00Z" }]
        })
    };
    json!({
        "uptime_milliseconds": uptime_milliseconds, "time": "2026-01-01T00:05:00Z",
        "engine": {
            "engine": "edge-1", "cluster": "north", "version": "1.2.3", "draining": false, "connections": 2401, "file": "sealane.toml",
            "configuration_version": 3, "revision": "3-0", "unsaved_changes": true
        },
        "lanes": [lane(0), lane(1)],
        "pools": [{ "name": "web", "servers_usable": 1, "connections": 36, "virtual_services": ["shop"], "servers": servers }],
        "virtual_services": [service("shop", 1), service("bank", 0)],
        "ticket_keys": {
            "version": 7, "source": "etcd", "in_force": true, "alarms": ["overdue"],
            "keys": [
                { "id": "0011223344556677", "state": "active", "since": "2026-01-01T00:00:00Z" },
                { "id": "8899aabbccddeeff", "state": "pending", "since": "2026-01-01T00:04:00Z" }
            ]
        }
    })
}

fn overview(uptime_milliseconds: u64, counted: u64) -> Overview {
    serde_json::from_value(recorded(uptime_milliseconds, counted)).unwrap()
}

fn at(seconds: u64) -> Instant {
    Instant::START + Duration::from_secs(seconds)
}

/// After two answers a second apart.
fn app() -> App {
    let mut app = App::new("/run/sealane/edge-1.sock".to_owned(), true);
    app.on_answer(overview(60_000, 60), at(0));
    app.on_answer(overview(61_000, 61), at(1));
    app
}

fn press(app: &mut App, codes: &[KeyCode]) {
    for code in codes {
        assert_eq!(app.on_key(KeyEvent::new(*code, KeyModifiers::NONE)), Wish::Stay, "{code:?}");
    }
}

/// What stands on a terminal of this size, a line each.
fn picture(app: &mut App, width: u16, height: u16, now: Instant) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, app, now)).unwrap();
    let buffer = terminal.backend().buffer();
    let cells: Vec<_> = buffer.content.iter().map(|cell| cell.symbol()).collect();
    cells.chunks(width.into()).map(|line| format!("{}\n", line.concat().trim_end())).collect()
}

fn shows(picture: &str, words: &[&str]) {
    for word in words {
        assert!(picture.contains(word), "{word:?} is missing:\n{picture}");
    }
}

#[test]
fn the_overview_shows_rates_curves_and_what_is_wrong_the_worst_first() {
    let picture = picture(&mut app(), 120, 30, at(1));
    shows(
        &picture,
        &[
            "edge-1 north  ready  up 1 min  connections 2401  configuration 3, not saved  version 1.2.3",
            " 1 Overview  2 Lanes  3 Servers  4 Services  5 Keys",
            "Handshakes/s  full 80  resumed 120",
            "Bytes/s  in 2.0 MB  out 40.0 MB",
            "Busy  38 %  most lane 1 50 %",
            "✕ ticket keys: overdue",
            "✕ service bank: no usable server in pool web",
            "✕ server web/bb: down (connect: refused)",
            "! server web/ccc: draining",
            "! configuration: has changes that are not saved",
            "█",
            "q quit",
        ],
    );
    assert!(picture.find("web/bb").unwrap() < picture.find("web/ccc").unwrap());
}

#[test]
fn lanes_servers_services_and_keys_have_tables() {
    let mut app = app();
    press(&mut app, &[KeyCode::Char('2')]);
    let lanes = picture(&mut app, 120, 12, at(1));
    shows(
        &lanes,
        &[
            "Busy, by lane",
            "lane 0 ",
            "lane 1 ",
            "LANE CORE   BUSY",
            "RESUMED/S",
            "   0    2   25 %      40        60       2        1200   1.0 MB  20.0 MB   17.0 k       0         5",
        ],
    );
    press(&mut app, &[KeyCode::Tab]);
    let servers = picture(&mut app, 140, 12, at(1));
    shows(
        &servers,
        &[
            "POOL/SERVER",
            "web/a",
            "198.18.1.1:801",
            "5 min",
            "12/500",
            "1.5 ms",
            "100 %",
            "draining",
            "connect: refused",
        ],
    );
    press(&mut app, &[KeyCode::Right]);
    shows(&picture(&mut app, 100, 12, at(1)), &["SERVICE", "bank", "2 d left", "198.18.0.10:443 [2001:db8::10]:443"]);
    press(&mut app, &[KeyCode::Char('5')]);
    let keys = picture(&mut app, 100, 12, at(1));
    shows(
        &keys,
        &[
            "ring version 7, source etcd, in force on all lanes",
            "alarm: overdue",
            "0011223344556677 active        5 min",
            "pending",
        ],
    );
    press(&mut app, &[KeyCode::Tab, KeyCode::BackTab, KeyCode::Left]);
    assert_eq!(app.view, View::Services);
}

#[test]
fn narrow_terminals_keep_the_columns_that_matter() {
    let mut app = app();
    press(&mut app, &[KeyCode::Char('3')]);
    let narrow = picture(&mut app, 48, 10, at(1));
    shows(&narrow, &["POOL/SERVER", "STATE", "web/bb", "down"]);
    assert!(!narrow.contains("ADDRESS") && !narrow.contains("SINCE"), "{narrow}");
    press(&mut app, &[KeyCode::Char('2')]);
    shows(&picture(&mut app, 20, 6, at(1)), &["LANE", "BUSY", "25 %"]);
}

#[test]
fn every_size_has_a_picture() {
    let mut apps = [App::new(String::new(), false), app()];
    apps[1].on_silence("no engine listens at /run/sealane/edge-1.sock".to_owned(), at(2));
    for app in &mut apps {
        for view in View::ALL {
            for is_help in [false, true] {
                (app.view, app.is_help) = (view, is_help);
                for width in [1, 2, 3, 5, 9, 20, 40, 59, 60, 80, 180] {
                    for height in [1, 2, 3, 4, 5, 6, 9, 14, 24, 48] {
                        picture(app, width, height, at(3));
                    }
                }
            }
        }
    }
}

#[test]
fn rows_stand_in_the_order_that_is_chosen() {
    let mut app = app();
    let lanes = |app: &mut App| -> Vec<char> {
        let picture = picture(app, 120, 8, at(1));
        picture.lines().skip(3).take(2).map(|line| line.trim_start().chars().next().unwrap()).collect()
    };
    press(&mut app, &[KeyCode::Char('2')]);
    assert_eq!(lanes(&mut app), ['0', '1']);
    press(&mut app, &[KeyCode::Char('s')]);
    assert_eq!((app.order(), lanes(&mut app)), ("busy", vec!['1', '0']));
    press(&mut app, &[KeyCode::Char('r')]);
    shows(&picture(&mut app, 120, 8, at(1)), &["by busy, reversed"]);
    assert_eq!(lanes(&mut app), ['0', '1']);
    press(&mut app, &[KeyCode::Char('r'), KeyCode::Char('3'), KeyCode::Char('s')]);
    let servers = picture(&mut app, 120, 8, at(1));
    assert!(servers.find("web/bb").unwrap() < servers.find("web/ccc").unwrap(), "the worst state first:\n{servers}");
    assert!(servers.find("web/ccc").unwrap() < servers.find("web/a ").unwrap(), "{servers}");
    // Each view has an order of its own, and after the last comes the first.
    press(&mut app, &[KeyCode::Char('2')]);
    assert_eq!(app.order(), "busy");
    press(&mut app, &[KeyCode::Char('s'); 4]);
    assert_eq!(app.order(), "lane");
}

#[test]
fn more_rows_than_lines_are_scrolled() {
    let mut many = recorded(60_000, 1);
    let service = many["virtual_services"][0].clone();
    let named = |number: u64| {
        let mut one = service.clone();
        one["name"] = format!("service-{number:03}").into();
        one
    };
    many["virtual_services"] = (0..100).map(named).collect();
    let mut app = App::new(String::new(), true);
    app.on_answer(serde_json::from_value(many).unwrap(), at(0));
    press(&mut app, &[KeyCode::Char('4')]);
    // Ten lines: head, views, titles, foot, and six of services.
    shows(&picture(&mut app, 80, 10, at(0)), &["service-000", "service-005", "↓ 94 more"]);
    press(&mut app, &[KeyCode::Down, KeyCode::PageDown]);
    shows(&picture(&mut app, 80, 10, at(0)), &["service-007", "↓ 87 more"]);
    press(&mut app, &[KeyCode::End]);
    let end = picture(&mut app, 80, 10, at(0));
    shows(&end, &["service-099"]);
    assert!(!end.contains("more"), "{end}");
    // A taller terminal shows what it has room for.
    shows(&picture(&mut app, 80, 60, at(0)), &["service-044", "service-099"]);
    press(&mut app, &[KeyCode::PageUp, KeyCode::Home]);
    shows(&picture(&mut app, 80, 10, at(0)), &["service-000"]);
}

#[test]
fn an_engine_that_goes_away_and_comes_back_is_told_of() {
    let mut app = app();
    assert_eq!(app.history.len(), 1);
    app.on_silence("no engine listens at /run/sealane/edge-1.sock".to_owned(), at(2));
    app.on_silence("no engine listens at /run/sealane/edge-1.sock".to_owned(), at(5));
    let lost = picture(&mut app, 120, 30, at(6));
    shows(&lost, &["no answer for 4 s, asking on: no engine listens at /run/sealane/edge-1.sock", "edge-1 north"]);
    app.on_answer(overview(62_000, 62), at(7));
    shows(&picture(&mut app, 120, 30, at(7)), &["the engine answers again"]);
    assert!(matches!(app.link, Link::Up) && app.rates.is_some());
    app.on_answer(overview(500, 0), at(8));
    shows(&picture(&mut app, 120, 30, at(8)), &["the engine has started again", "full -  resumed -"]);
    assert!(app.history.is_empty(), "curves of another life");
    shows(&picture(&mut app, 120, 30, at(30)), &["q quit"]);
    for second in 1..1000 {
        app.on_answer(overview(500 + 1000 * second, second), at(8 + second));
    }
    assert_eq!(app.history.len(), POINTS_MAX);
}

#[test]
fn whoever_has_seen_enough_quits() {
    let mut app = app();
    let mut wish = |code, modifiers| app.on_key(KeyEvent::new(code, modifiers));
    assert_eq!(wish(KeyCode::Char('c'), KeyModifiers::CONTROL), Wish::Quit);
    assert_eq!(wish(KeyCode::Char('q'), KeyModifiers::NONE), Wish::Quit);
    assert_eq!(wish(KeyCode::Esc, KeyModifiers::NONE), Wish::Quit);
    assert_eq!(wish(KeyCode::Char('q'), KeyModifiers::CONTROL), Wish::Stay);
    press(&mut app, &[KeyCode::Char('?')]);
    shows(&picture(&mut app, 100, 20, at(1)), &["Keys", "choose a view", "sealane ctl changes what is shown here."]);
    // Any key closes the help, and nothing else happens.
    press(&mut app, &[KeyCode::Esc]);
    assert!(!app.is_help);
}

#[test]
fn without_colours_words_say_it() {
    let coloured = |is_coloured: bool| {
        let mut app = app();
        app.is_coloured = is_coloured;
        press(&mut app, &[KeyCode::Char('3')]);
        let mut terminal = Terminal::new(TestBackend::new(120, 12)).unwrap();
        terminal.draw(|frame| draw::draw(frame, &mut app, at(1))).unwrap();
        terminal.backend().buffer().content.iter().any(|cell| cell.fg != ratatui::style::Color::Reset)
    };
    assert!(coloured(true) && !coloured(false));
}

#[test]
fn one_snapshot_is_plain_text() {
    let mut app = app();
    let text = once::text(&app);
    shows(
        &text,
        &[
            "edge-1 of cluster north, ready\n",
            "version 1.2.3, up 1 min, configuration 3 (not saved), 2401 connections\n",
            "handshakes 80/s full, 120/s resumed; bytes 2.0 MB/s from clients, 40.0 MB/s to clients; busy 38 %\n",
            "! server web/bb: down (connect: refused)\n",
            "\nLANE  CORE  BUSY  FULL/S  RESUMED/S  WAITING  CONNECTIONS",
            "\nweb/a        198.18.1.1:801  up        5 min       12/500         30      1.5 ms       4  100 %\n",
            "\nshop     web        1  2 d left     198.18.0.10:443 [2001:db8::10]:443\n",
            "\n0011223344556677  active   5 min  2026-01-01T00:00:00Z\n",
        ],
    );
    // An engine cannot make a terminal do anything.
    let mut evil = recorded(62_000, 62);
    evil["pools"][0]["servers"][0]["name"] = "\u{1b}]0;owned\u{7}".into();
    evil["engine"]["engine"] = "\u{1b}[2J".into();
    app.on_answer(serde_json::from_value(evil).unwrap(), at(2));
    let text = once::text(&app);
    assert!(text.contains("\u{fffd}[2J of cluster") && !text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    press(&mut app, &[KeyCode::Char('3')]);
    assert!(!picture(&mut app, 120, 12, at(2)).chars().any(|c| c.is_control() && c != '\n'));
}
