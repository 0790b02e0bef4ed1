//! One snapshot as plain text, for scripts and for mail.

use std::fmt::Write as _;

use super::app::{App, View};
use super::sheet::{printable, sheet};
use super::words::{bytes, fitness, percent, rate, span, troubles, whole};

/// What an engine is and does; rates are of the time between its last two answers.
pub(super) fn text(app: &App) -> String {
    let Some(overview) = &app.latest else { return String::new() };
    let (engine, mut text) = (&overview.engine, String::new());
    let mut say = |line: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", printable(line));
    };
    let saved = if engine.configuration.unsaved_changes { "not saved" } else { "as in the file" };
    say(&format!("{} of cluster {}, {}", engine.engine, engine.cluster, fitness(engine).0));
    say(&format!(
        "version {}, up {}, configuration {} ({saved}), {} connections",
        engine.version,
        span(overview.uptime_milliseconds / 1000),
        engine.configuration.configuration_version,
        whole(engine.connections)
    ));
    if let Some(rates) = &app.rates {
        let total = rates.total();
        say(&format!(
            "handshakes {}/s full, {}/s resumed; bytes {}/s from clients, {}/s to clients; busy {}",
            rate(total.full),
            rate(total.resumed),
            bytes(total.received),
            bytes(total.sent),
            percent(total.busy)
        ));
    }
    for (trouble, _) in troubles(overview) {
        say(&format!("! {trouble}"));
    }
    for view in [View::Lanes, View::Servers, View::Services, View::Keys] {
        text += &format!("\n{}", sheet(view, app, overview).text());
    }
    text
}
