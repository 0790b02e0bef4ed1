//! A typed walk over a spanned TOML tree that notes a fault and goes on, where serde would stop at the first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::de::{DeTable, DeValue};

use super::fault::{Report, Wrong, wrong};
use crate::base::Duration;

/// The longest name of anything, in bytes.
const NAME_MAX: usize = 64;

/// A value and the line that it stands on.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// One TOML table being read. Each key that is asked for is known; [`finish`](Self::finish) complains of all others.
#[derive(Debug)]
pub(super) struct Section<'t> {
    path: String,
    table: &'t DeTable<'t>,
    /// The line that the table begins on.
    pub(super) line: usize,
    known: BTreeSet<&'static str>,
}

impl<'t> Section<'t> {
    pub(super) fn new(path: impl Into<String>, table: &'t DeTable<'t>, line: usize) -> Self {
        Self { path: path.into(), table, line, known: BTreeSet::new() }
    }

    /// `key` with the tables that it is in.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn value(&mut self, report: &Report, key: &'static str) -> Option<(&'t DeValue<'t>, usize)> {
        self.known.insert(key);
        self.table.get(key).map(|value| (value.get_ref(), report.line(value.span().start)))
    }

    /// Whether the table has `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The line of `key`, or of the table when it does not have it.
    pub(super) fn line_of(&self, report: &Report, key: &str) -> usize {
        self.table.get(key).map_or(self.line, |value| report.line(value.span().start))
    }

    /// The line of the table `key`, or of this one when it does not have it, and those of its keys.
    pub(super) fn lines_under(&self, report: &Report, key: &str) -> (usize, BTreeMap<String, usize>) {
        let table = self.table.get(key).and_then(|value| value.get_ref().as_table());
        let keys = table.into_iter().flat_map(|table| table.iter());
        let lines = keys.map(|(key, value)| (key.get_ref().to_string(), report.line(value.span().start))).collect();
        (self.line_of(report, key), lines)
    }

    /// The value of `key`, if there is one and it is right.
    pub(super) fn optional<T>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<Located<T>> {
        let (value, line) = self.value(report, key)?;
        match convert(value) {
            Ok(value) => Some(Located { value, line }),
            Err(wrong) => {
                report.fault(line, self.key(key), wrong);
                None
            }
        }
    }

    /// The value of `key`, or `default` when there is none or it is wrong.
    pub(super) fn or<T>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        default: T,
        convert: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Located<T> {
        let line = self.line_of(report, key);
        self.optional(report, key, convert).unwrap_or(Located { value: default, line })
    }

    /// The value of `key`, which must be there; `example` is what a right one looks like.
    pub(super) fn required<T>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        example: &str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<Located<T>> {
        self.expect(report, key, example).then(|| self.optional(report, key, convert))?
    }

    /// The values of the list `key`, those that are right; `None` without the key.
    pub(super) fn list<T>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        max: usize,
        convert: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<Vec<Located<T>>> {
        let mut right = Vec::new();
        for (value, line) in self.elements(report, key, max)? {
            match convert(value) {
                Ok(value) => right.push(Located { value, line }),
                Err(wrong) => report.fault(line, self.key(key), wrong),
            }
        }
        Some(right)
    }

    /// The value of `key`, or the values where it is a list, those that are right; `None` without the key.
    pub(super) fn one_or_more<T>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        max: usize,
        convert: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<Vec<Located<T>>> {
        if self.value(report, key)?.0.is_array() {
            return self.list(report, key, max, convert);
        }
        Some(self.optional(report, key, convert).into_iter().collect())
    }

    /// The values of the list `key`, which must be there and have at least one.
    pub(super) fn required_list<T>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        max: usize,
        example: &str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Vec<Located<T>> {
        if !self.expect(report, key, example) {
            return Vec::new();
        }
        let empty =
            self.table.get(key).and_then(|value| value.get_ref().as_array()).is_some_and(|list| list.is_empty());
        if empty {
            let line = self.line_of(report, key);
            report.fault(
                line,
                self.key(key),
                wrong("is empty", format!("write at least one, such as {key} = {example}")),
            );
        }
        self.list(report, key, max, convert).unwrap_or_default()
    }

    /// The table `key`.
    pub(super) fn section(&mut self, report: &mut Report, key: &'static str) -> Option<Section<'t>> {
        let (value, line) = self.value(report, key)?;
        let path = self.key(key);
        let Some(table) = value.as_table() else {
            report.fault(line, &path, wrong(is_not(value, "a table"), format!("write [{path}] on a line of its own")));
            return None;
        };
        Some(Section::new(path, table, line))
    }

    /// The tables of the array `key`.
    pub(super) fn sections(&mut self, report: &mut Report, key: &'static str, max: usize) -> Vec<Section<'t>> {
        let path = self.key(key);
        let mut sections = Vec::new();
        for (value, line) in self.elements(report, key, max).unwrap_or_default() {
            match value.as_table() {
                Some(table) => sections.push(Section::new(path.clone(), table, line)),
                None => report.fault(
                    line,
                    &path,
                    wrong(is_not(value, "a table"), "write key = value pairs between { and }"),
                ),
            }
        }
        sections
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self, report: &mut Report) {
        for (key, _) in self.table.iter() {
            let name = key.get_ref().as_ref();
            if self.known.contains(name) {
                continue;
            }
            let line = report.line(key.span().start);
            report.fault(line, self.key(name), wrong("is not a key that exists here", self.suggestion(name)));
        }
    }

    fn suggestion(&self, name: &str) -> String {
        let nearest = self
            .known
            .iter()
            .map(|known| (strsim::jaro_winkler(known, name), known))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match nearest {
            Some((likeness, known)) if likeness > 0.8 => format!("did you mean {known}?"),
            _ => format!("choose from {}", self.known.iter().copied().collect::<Vec<_>>().join(", ")),
        }
    }

    /// Notes when `key` is missing.
    fn expect(&mut self, report: &mut Report, key: &'static str, example: &str) -> bool {
        let is_there = self.value(report, key).is_some();
        if !is_there {
            report.fault(self.line, self.key(key), wrong("is missing", format!("add {key} = {example}")));
        }
        is_there
    }

    fn elements(
        &mut self,
        report: &mut Report,
        key: &'static str,
        max: usize,
    ) -> Option<Vec<(&'t DeValue<'t>, usize)>> {
        let (value, line) = self.value(report, key)?;
        let Some(list) = value.as_array() else {
            let remedy = if value.is_table() {
                format!("write [[{}]] with two brackets", self.key(key))
            } else {
                format!("write {key} = [ ... ]")
            };
            report.fault(line, self.key(key), wrong(is_not(value, "a list"), remedy));
            return None;
        };
        if list.len() > max {
            let what = format!("has {} entries, and {max} is the most", list.len());
            report.fault(line, self.key(key), wrong(what, "leave some out"));
        }
        Some(list.iter().take(max).map(|value| (value.get_ref(), report.line(value.span().start))).collect())
    }
}

fn is_not(value: &DeValue<'_>, wanted: &str) -> String {
    let article = if value.type_str().starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("is {article} {}, not {wanted}", value.type_str())
}

fn string<'v>(value: &'v DeValue<'_>, instead: &str) -> Result<&'v str, Wrong> {
    value.as_str().ok_or_else(|| wrong(is_not(value, "a string"), instead))
}

/// Free text of at most `max` bytes, not empty.
pub(super) fn text(max: usize) -> impl Fn(&DeValue<'_>) -> Result<String, Wrong> {
    move |value| {
        let text = string(value, "write it between quotes")?;
        if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
            return Err(wrong(
                format!("is {text:?}, which is empty, too long or has control characters"),
                format!("write 1 to {max} printable bytes"),
            ));
        }
        Ok(text.to_owned())
    }
}

/// A name, as it appears in logs and metrics.
pub(super) fn name(value: &DeValue<'_>) -> Result<String, Wrong> {
    let remedy = || format!("write 1 to {NAME_MAX} letters, digits, '.', '_' or '-', between quotes");
    let name = string(value, &remedy())?;
    let is_right = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_right) {
        return Err(wrong(format!("is {name:?}, which is no name"), remedy()));
    }
    Ok(name.to_owned())
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| wrong(is_not(value, "a boolean"), "write true or false, without quotes"))
}

/// A whole number within `range`.
pub(super) fn integer<T: TryFrom<i64>>(range: RangeInclusive<i64>) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| {
        let remedy = || format!("write a number from {} to {}, without quotes", range.start(), range.end());
        let integer = value.as_integer().ok_or_else(|| wrong(is_not(value, "an integer"), remedy()))?;
        i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| wrong(format!("is {integer}, which is out of range"), remedy()))
    }
}

/// A time such as "10s" or "1h 30m" within `range`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&DeValue<'_>) -> Result<Duration, Wrong> {
    move |value| {
        let [least, most] = [range.start(), range.end()].map(|bound| humantime::format_duration(*bound));
        let remedy = format!("write a time from \"{least}\" to \"{most}\", with its unit and between quotes");
        let text = string(value, &remedy)?;
        let time = humantime::parse_duration(text)
            .map_err(|error| wrong(format!("is {text:?}, which is no time ({error})"), &remedy))?;
        if range.contains(&time) { Ok(time) } else { Err(wrong(format!("is {text:?}, which is out of range"), remedy)) }
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| {
        let all = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
        let text = string(value, &format!("write {all}"))?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| wrong(format!("is {text:?}"), format!("write {all}")))
    }
}

/// Whatever parses; `what` says what was wanted and `example` shows one.
pub(super) fn parsed<T: FromStr>(
    what: &'static str,
    example: &'static str,
) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| {
        let remedy = format!("write {what} such as {example:?}");
        let text = string(value, &remedy)?;
        text.parse().map_err(|_| wrong(format!("is {text:?}, which is not {what}"), remedy))
    }
}
