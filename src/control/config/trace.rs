//! `[engine.trace]`: what each lane keeps of what its connections have just done.

use std::collections::BTreeMap;
use std::path::Path;

use super::fault::Report;
use super::model::{Fixed, Trace};
use super::reader::{Section, integer, text};
use crate::tcp::trace::Settings;

/// Most records of a lane: 32 MiB.
const RECORDS_MAX: i64 = 1 << 18;

/// Reads `[engine.trace]`.
pub(super) fn trace(report: &mut Report, engine: &mut Section<'_>, directory: &Path) -> Trace {
    let mut trace = Trace { rings: Settings::default(), file: None };
    let Some(mut section) = engine.section(report, "trace") else { return trace };
    let rings = &mut trace.rings;
    rings.one_in = section.or(report, "one_in", rings.one_in, integer(0..=i64::from(u32::MAX))).value;
    rings.records = section.or(report, "records", rings.records, integer(0..=RECORDS_MAX)).value;
    trace.file = section.optional(report, "file", text(4096)).map(|file| directory.join(file.value));
    section.finish(report);
    trace
}

/// Where the keys of `[engine.trace]` stand.
pub(super) fn lines(report: &Report, engine: &Section<'_>) -> (usize, BTreeMap<String, usize>) {
    engine.lines_under(report, "trace")
}

/// Keys that cannot change while the engine runs: the rings are there, and whoever dies writes to the file that was named at first.
pub(super) fn fixed(trace: &Trace, (table, lines): &(usize, BTreeMap<String, usize>)) -> Vec<Fixed> {
    let file = trace.file.as_ref().map_or_else(|| "none".to_owned(), |file| file.display().to_string());
    [("records", trace.rings.records.to_string()), ("file", file)]
        .map(|(key, value)| Fixed {
            key: format!("engine.trace.{key}"),
            line: lines.get(key).copied().unwrap_or(*table),
            value,
        })
        .into()
}
