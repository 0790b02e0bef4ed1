//! Numbers, times and states in as few letters as say them.

use crate::control::api::shapes::{Overview, ServerState, Status};

/// A count, with k, M, G or T from ten thousand on.
pub(super) fn count(n: f64) -> String {
    if n < 10_000.0 { format!("{n:.0}") } else { scaled(n, &["", "k", "M", "G", "T"]) }
}

/// The same of a whole number.
pub(super) fn whole(n: u64) -> String {
    count(n as f64)
}

/// What comes in a second: small ones with a decimal.
pub(super) fn rate(n: f64) -> String {
    if n > 0.0 && n < 10.0 { format!("{n:.1}") } else { count(n) }
}

/// Bytes.
pub(super) fn bytes(n: f64) -> String {
    scaled(n, &["B", "kB", "MB", "GB", "TB"])
}

/// A part of the whole.
pub(super) fn percent(part: f64) -> String {
    let percent = part * 100.0;
    if percent > 0.0 && percent < 10.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

fn scaled(mut n: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    let mut digits = 0;
    while n >= 1000.0 {
        let Some(next) = units.next() else { break };
        (n, unit) = (n / 1000.0, next);
        digits = usize::from(n < 100.0);
    }
    format!("{n:.digits$} {unit}").trim_end().to_owned()
}

/// A time that has passed.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Seconds from one of the engine's dates to another; `None` where they are none, or the other way round.
pub(super) fn seconds_between(from: &str, to: &str) -> Option<u64> {
    let [from, to] = [from, to].map(|date| humantime::parse_rfc3339(date).ok());
    Some(to?.duration_since(from?).ok()?.as_secs())
}

/// How long something has been so by the engine's clock.
pub(super) fn age(since: &str, overview: &Overview) -> String {
    seconds_between(since, &overview.time).map_or_else(|| "-".to_owned(), span)
}

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    Bad,
    Warn,
    Plain,
    Good,
}

/// Whether the engine should be given clients.
pub(super) fn fitness(status: &Status) -> (String, Tone) {
    match (&status.unfit, status.draining) {
        (_, true) => ("draining".to_owned(), Tone::Warn),
        (Some(why), false) => (format!("not ready: {why}"), Tone::Bad),
        (None, false) => ("ready".to_owned(), Tone::Good),
    }
}

/// How a server is, in a word.
pub(super) fn condition(server: &ServerState) -> (&str, Tone) {
    match (server.state.as_str(), server.health.as_str()) {
        ("enabled", "down") => ("down", Tone::Bad),
        ("enabled", "up" | "unknown") if server.out => ("taken out", Tone::Bad),
        ("enabled", "up" | "unknown") if !server.usable => ("full", Tone::Warn),
        ("enabled", "up") => ("up", Tone::Good),
        ("enabled", "unknown") => ("unknown", Tone::Plain),
        ("enabled", health) => (health, Tone::Warn),
        ("disabled", _) => ("disabled", Tone::Plain),
        (state, _) => (state, Tone::Warn),
    }
}

/// What its monitors say of it.
pub(super) fn why(server: &ServerState) -> String {
    let causes = server.findings.iter().filter_map(|finding| Some((&finding.monitor, finding.cause.as_ref()?)));
    causes.map(|(monitor, cause)| format!("{monitor}: {cause}")).collect::<Vec<_>>().join(", ")
}

/// What an operator should look at, the worst first.
pub(super) fn troubles(overview: &Overview) -> Vec<(String, Tone)> {
    let mut all = Vec::new();
    let (fit, tone) = fitness(&overview.engine);
    if tone != Tone::Good {
        all.push((format!("engine: {fit}"), tone));
    }
    all.extend(overview.ticket_keys.alarms.iter().map(|alarm| (format!("ticket keys: {alarm}"), Tone::Bad)));
    for service in overview.virtual_services.iter().filter(|service| service.state.servers_usable == 0) {
        all.push((format!("service {}: no usable server in pool {}", service.name, service.state.pool), Tone::Bad));
    }
    for pool in &overview.pools {
        for server in &pool.state.servers {
            let (word, tone) = condition(server);
            if matches!(tone, Tone::Bad | Tone::Warn) || server.state == "disabled" {
                let why =
                    Some(why(server)).filter(|why| !why.is_empty()).map_or_else(String::new, |why| format!(" ({why})"));
                all.push((format!("server {}/{}: {word}{why}", pool.name, server.name), tone));
            }
        }
    }
    for lane in overview
        .lanes
        .iter()
        .filter(|lane| lane.configuration_version < overview.engine.configuration.configuration_version)
    {
        all.push((format!("lane {}: has configuration {} still", lane.lane, lane.configuration_version), Tone::Warn));
    }
    if overview.engine.configuration.unsaved_changes {
        all.push(("configuration: has changes that are not saved".to_owned(), Tone::Warn));
    }
    all.sort_by_key(|(_, tone)| *tone);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_short() {
        assert_eq!(
            [0.0, 999.0, 9999.0, 12_345.0, 1.5e6, 2.5e15].map(count),
            ["0", "999", "9999", "12.3 k", "1.5 M", "2500 T"]
        );
        assert_eq!([0.0, 0.25, 9.9, 10.4].map(rate), ["0", "0.2", "9.9", "10"]);
        assert_eq!([0.0, 999.0, 1234.0, 123_456.0].map(bytes), ["0 B", "999 B", "1.2 kB", "123 kB"]);
        assert_eq!([0.0, 0.034, 0.5, 1.0].map(percent), ["0 %", "3.4 %", "50 %", "100 %"]);
        assert_eq!([59, 60, 3725, 200_000].map(span), ["59 s", "1 min", "1 h 2 min", "2 d"]);
        let between = |from, to| seconds_between(from, to);
        assert_eq!(between("2026-01-01T00:00:00Z", "2026-01-01T00:01:05Z"), Some(65));
        assert_eq!(between("2026-01-01T00:01:00Z", "2026-01-01T00:00:05Z"), None);
        assert_eq!(between("yesterday", "2026-01-01T00:00:05Z"), None);
    }
}
