//! Tables of what an engine is made of, the same for a terminal and for plain text.

use std::cmp::Ordering;
use std::fmt::Write as _;

use super::app::{App, View};
use super::rates::Rates;
use super::words::{Tone, age, bytes, condition, percent, rate, seconds_between, span, whole, why};
use crate::control::api::shapes::{Overview, ServerState};

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Characters.
    pub(super) width: u16,
    pub(super) is_right: bool,
    /// Where there is no room for all, the highest go first; 0 stays.
    pub(super) rank: u8,
}

/// A cell.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
}

/// A table. The last of its columns takes what room there is.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
}

fn plain(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), tone: Tone::Plain }
}

fn toned(text: impl Into<String>, tone: Tone) -> Cell {
    Cell { text: text.into(), tone }
}

fn left(title: &'static str, width: u16, rank: u8) -> Column {
    Column { title, width, is_right: false, rank }
}

fn right(title: &'static str, width: u16, rank: u8) -> Column {
    Column { title, width, is_right: true, rank }
}

/// What is not known yet.
const UNKNOWN: &str = "-";

/// The rows of a view in the order that is chosen for it.
pub(super) fn sheet(view: View, app: &App, overview: &Overview) -> Sheet {
    let order = if view == app.view { app.order() } else { "" };
    let mut sheet = match view {
        View::Overview => Sheet { columns: Vec::new(), rows: Vec::new() },
        View::Lanes => lanes(overview, app.rates.as_ref(), order),
        View::Servers => servers(overview, app.rates.as_ref(), order),
        View::Services => services(overview, order),
        View::Keys => keys(overview),
    };
    if app.is_reversed && view == app.view {
        sheet.rows.reverse();
    }
    sheet
}

/// The highest first.
fn descending(one: f64, other: f64) -> Ordering {
    other.total_cmp(&one)
}

fn lanes(overview: &Overview, rates: Option<&Rates>, order: &str) -> Sheet {
    let mut all: Vec<_> = overview
        .lanes
        .iter()
        .enumerate()
        .map(|(at, lane)| (lane, rates.and_then(|rates| rates.lanes.get(at)).copied()))
        .collect();
    all.sort_by(|(one, own), (other, others)| {
        let (own, others) = (own.unwrap_or_default(), others.unwrap_or_default());
        match order {
            "busy" => descending(own.busy, others.busy),
            "handshakes" => descending(own.full + own.resumed, others.full + others.resumed),
            "connections" => other.connections.cmp(&one.connections),
            "drops" => other.traffic.frames_dropped.cmp(&one.traffic.frames_dropped),
            _ => one.lane.cmp(&other.lane),
        }
    });
    let rows = all.into_iter().map(|(lane, own)| {
        let shown = |of: &dyn Fn(super::rates::Lane) -> String| own.map_or_else(|| UNKNOWN.to_owned(), of);
        let dropping = own.is_some_and(|own| own.dropped > 0.0);
        vec![
            plain(lane.lane.to_string()),
            plain(lane.core.to_string()),
            toned(
                shown(&|own| percent(own.busy)),
                if own.is_some_and(|own| own.busy > 0.9) { Tone::Warn } else { Tone::Plain },
            ),
            plain(shown(&|own| rate(own.full))),
            plain(shown(&|own| rate(own.resumed))),
            plain(whole(lane.traffic.handshakes_waiting)),
            plain(whole(lane.connections)),
            plain(shown(&|own| bytes(own.received))),
            plain(shown(&|own| bytes(own.sent))),
            plain(shown(&|own| rate(own.frames))),
            toned(whole(lane.traffic.frames_dropped), if dropping { Tone::Bad } else { Tone::Plain }),
            plain(whole(lane.traffic.frames_malformed)),
        ]
    });
    let columns = vec![
        right("LANE", 4, 0),
        right("CORE", 4, 6),
        right("BUSY", 6, 0),
        right("FULL/S", 7, 1),
        right("RESUMED/S", 9, 1),
        right("WAITING", 7, 5),
        right("CONNECTIONS", 11, 1),
        right("IN/S", 8, 3),
        right("OUT/S", 8, 3),
        right("FRAMES/S", 8, 4),
        right("DROPS", 7, 2),
        right("MALFORMED", 9, 7),
    ];
    Sheet { columns, rows: rows.collect() }
}

fn servers(overview: &Overview, rates: Option<&Rates>, order: &str) -> Sheet {
    let mut all = Vec::new();
    for pool in &overview.pools {
        let weights: u64 = pool.state.servers.iter().map(weight).sum();
        for server in &pool.state.servers {
            let own = rates.and_then(|rates| rates.server(&pool.name, &server.name));
            all.push((pool.name.as_str(), server, own, weights));
        }
    }
    all.sort_by(|(_, one, own, _), (_, other, others, _)| {
        let (own, others) = (own.unwrap_or_default(), others.unwrap_or_default());
        match order {
            "state" => condition(one).1.cmp(&condition(other).1),
            "connections" => other.connections.cmp(&one.connections),
            "answers" => descending(own.successes, others.successes),
            "first byte" => descending(own.first_byte.unwrap_or(-1.0), others.first_byte.unwrap_or(-1.0)),
            "failed" => other.outcomes.failures.cmp(&one.outcomes.failures),
            _ => Ordering::Equal,
        }
    });
    let rows = all.into_iter().map(|(pool, server, own, weights)| {
        let (word, tone) = condition(server);
        let most = server.connections_max.map_or_else(String::new, |most| format!("/{}", whole(most.into())));
        let waiting = if server.waiting > 0 { format!("+{}", server.waiting) } else { String::new() };
        let share = if weights > 0 { percent(weight(server) as f64 / weights as f64) } else { UNKNOWN.to_owned() };
        let failing = own.is_some_and(|own| own.failures > 0.0);
        vec![
            plain(format!("{pool}/{}", server.name)),
            plain(server.address.clone()),
            toned(word, tone),
            plain(server.since.as_ref().map_or_else(|| UNKNOWN.to_owned(), |since| age(since, overview))),
            plain(format!("{}{most}{waiting}", whole(server.connections))),
            plain(own.map_or_else(|| UNKNOWN.to_owned(), |own| rate(own.successes))),
            plain(
                own.and_then(|own| own.first_byte).map_or_else(|| UNKNOWN.to_owned(), |wait| format!("{wait:.1} ms")),
            ),
            toned(whole(server.outcomes.failures), if failing { Tone::Bad } else { Tone::Plain }),
            plain(share),
            toned(why(server), Tone::Bad),
        ]
    });
    let columns = vec![
        left("POOL/SERVER", 18, 0),
        left("ADDRESS", 21, 5),
        left("STATE", 11, 0),
        right("SINCE", 9, 6),
        right("CONNECTIONS", 11, 1),
        right("ANSWERS/S", 9, 2),
        right("FIRST BYTE", 10, 4),
        right("FAILED", 7, 3),
        right("SHARE", 6, 5),
        left("WHY", 16, 1),
    ];
    Sheet { columns, rows: rows.collect() }
}

/// What part of new clients a server gets, as far as its ratio decides.
fn weight(server: &ServerState) -> u64 {
    let is_in = server.usable && !server.out;
    if is_in { u64::from(server.ratio) * u64::from(server.share_percent) } else { 0 }
}

fn services(overview: &Overview, order: &str) -> Sheet {
    // What has ended has no time left.
    let left_of = |service: &crate::control::api::shapes::NamedService| {
        let ends = service.state.certificates.iter();
        ends.map(|certificate| seconds_between(&overview.time, &certificate.not_after).unwrap_or(0)).min()
    };
    let mut all: Vec<_> = overview.virtual_services.iter().map(|service| (service, left_of(service))).collect();
    all.sort_by(|(one, own), (other, others)| match order {
        "usable" => one.state.servers_usable.cmp(&other.state.servers_usable),
        "certificate" => own.unwrap_or(u64::MAX).cmp(&others.unwrap_or(u64::MAX)),
        _ => Ordering::Equal,
    });
    let rows = all.into_iter().map(|(service, left)| {
        let state = &service.state;
        let (ends, tone) = match left {
            None => (UNKNOWN.to_owned(), Tone::Plain),
            Some(0) => ("expired".to_owned(), Tone::Bad),
            Some(left) => (format!("{} left", span(left)), if left < 14 * 86_400 { Tone::Warn } else { Tone::Plain }),
        };
        let usable = if state.servers_usable == 0 { Tone::Bad } else { Tone::Plain };
        vec![
            plain(service.name.clone()),
            plain(state.pool.clone()),
            toned(state.servers_usable.to_string(), usable),
            toned(ends, tone),
            plain(state.addresses.join(" ")),
        ]
    });
    let columns = vec![
        left("SERVICE", 18, 0),
        left("POOL", 16, 1),
        right("USABLE", 6, 0),
        left("CERTIFICATE", 14, 2),
        left("ADDRESSES", 18, 3),
    ];
    Sheet { columns, rows: rows.collect() }
}

fn keys(overview: &Overview) -> Sheet {
    let ring = &overview.ticket_keys;
    let rows = ring.keys.iter().map(|key| {
        let tone = match key.state.as_str() {
            "active" => Tone::Good,
            "retiring" => Tone::Warn,
            _ => Tone::Plain,
        };
        vec![
            plain(key.id.clone()),
            toned(key.state.clone(), tone),
            plain(age(&key.since, overview)),
            plain(key.since.clone()),
        ]
    });
    let columns = vec![left("KEY", 16, 0), left("STATE", 9, 0), right("AGE", 9, 1), left("SINCE", 20, 2)];
    Sheet { columns, rows: rows.collect() }
}

impl Sheet {
    /// Which columns have room in so many characters, one between each two.
    pub(super) fn fitting(&self, width: u16) -> Vec<usize> {
        let mut kept: Vec<usize> = (0..self.columns.len()).collect();
        let column = |at: &usize| self.columns.get(*at).copied();
        while kept.iter().filter_map(column).map(|column| usize::from(column.width) + 1).sum::<usize>()
            > usize::from(width) + 1
        {
            let rank = |at: &usize| column(at).map_or(0, |column| column.rank);
            let Some((last, rank)) =
                kept.iter().enumerate().map(|(at, column)| (at, rank(column))).max_by_key(|(at, rank)| (*rank, *at))
            else {
                break;
            };
            if rank == 0 {
                break;
            }
            kept.remove(last);
        }
        kept
    }

    /// All of it, two blanks between columns, each as wide as it has to be.
    pub(super) fn text(&self) -> String {
        let titles = self.columns.iter().map(|column| column.title.to_owned()).collect();
        let lines: Vec<Vec<String>> = std::iter::once(titles)
            .chain(self.rows.iter().map(|row| row.iter().map(|cell| printable(&cell.text)).collect()))
            .collect();
        let width = |at: usize| {
            lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for line in &lines {
            let cells = line.iter().zip(&widths).zip(&self.columns).map(|((cell, width), column)| {
                let width = *width;
                if column.is_right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        text
    }
}

/// The text with nothing in it that a terminal would take for an order.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
