//! What of `[[pool]]` lowers its servers' shares: slow start and passive health.

use super::fault::{Report, wrong};
use super::reader::{Section, choice, duration, integer};
use super::sections::{HOUR, SECOND};
use crate::balance::{Ejection, Passive, Sharing};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Off,
    Share,
    Down,
}

const WORDS: &[(&str, Word)] = &[("share", Word::Share), ("down", Word::Down), ("off", Word::Off)];

/// Reads what lowers the shares of a pool's servers.
pub(super) fn sharing(report: &mut Report, pool: &mut Section<'_>) -> Sharing {
    let slow_start = pool.optional(report, "slow_start", duration(SECOND..=HOUR));
    let passive = pool.or(report, "passive_health", Word::Share, choice(WORDS));
    let time = pool.or(report, "passive_down_time", 30 * SECOND, duration(SECOND..=HOUR));
    let percent_max = pool.or(report, "passive_down_percent_max", 50, integer::<u8>(1..=100));
    for (key, line) in [("passive_down_time", time.line), ("passive_down_percent_max", percent_max.line)] {
        if passive.value != Word::Down && pool.has(key) {
            let what = "says how servers are taken out, and passive_health takes none out";
            report.fault(line, pool.key(key), wrong(what, "write passive_health = \"down\", or leave this out"));
        }
    }
    let passive = match passive.value {
        Word::Off => Passive::Off,
        Word::Share => Passive::Share,
        Word::Down => Passive::Down(Ejection { time: time.value, percent_max: percent_max.value }),
    };
    Sharing { slow_start: slow_start.map(|time| time.value), passive }
}
