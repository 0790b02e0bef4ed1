//! The reference of all keys, `dpdk-config/reference.md`, made of what `tap.toml` says of each and of what the parser says when a key is wrong or missing.
//!
//! `UPDATE=1 cargo test --no-default-features --test configuration reference` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use super::{TAP, directory, parse};

/// What no key may be: the parser then says what it may be.
const WRONG: &str = "1979-05-27";

/// A line of tap.toml that says something of a key.
struct Entry<'t> {
    line: usize,
    key: &'t str,
    value: &'t str,
    says: &'t str,
}

/// A table of tap.toml, with what is said of it.
struct Table<'t> {
    line: usize,
    header: &'t str,
    is_commented: bool,
    entries: Vec<Entry<'t>>,
    notes: Vec<&'t str>,
}

/// `key = value   # says`, with a `#` in front or not.
fn entry(line: usize, text: &str) -> Option<Entry<'_>> {
    let (key, rest) = text.strip_prefix("# ").unwrap_or(text).split_once(" = ")?;
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return None;
    }
    let mut in_quotes = false;
    let comment = rest.char_indices().find(|(_, c)| {
        in_quotes ^= *c == '"';
        *c == '#' && !in_quotes
    });
    let (value, says) = comment.map_or((rest, ""), |(at, _)| (&rest[..at], rest[at + 1..].trim()));
    Some(Entry { line, key, value: value.trim(), says })
}

fn header(text: &str) -> Option<(&str, bool)> {
    let line = text.strip_prefix("# ").unwrap_or(text);
    let end = line.rfind(']').filter(|_| line.starts_with('['))?;
    Some((&line[..=end], text.starts_with('#')))
}

fn tables() -> Vec<Table<'static>> {
    let mut tables: Vec<Table<'_>> = Vec::new();
    for (line, text) in TAP.lines().enumerate() {
        if let Some((header, is_commented)) = header(text) {
            tables.push(Table { line, header, is_commented, entries: Vec::new(), notes: Vec::new() });
        } else if let Some(table) = tables.last_mut() {
            match entry(line, text) {
                Some(entry) => table.entries.push(entry),
                None => table.notes.extend(text.strip_prefix('#')),
            }
        }
    }
    tables
}

/// tap.toml with this table in force, and with these lines in place of its own.
fn with(table: &Table<'_>, changes: &[(usize, Option<String>)]) -> String {
    let mut lines: Vec<Option<String>> = TAP.lines().map(|line| Some(line.to_owned())).collect();
    if table.is_commented {
        let own = [table.line].into_iter().chain(table.entries.iter().map(|entry| entry.line));
        for line in own {
            if let Some(Some(text)) = lines.get_mut(line) {
                *text = text.trim_start_matches("# ").to_owned();
            }
        }
    }
    for (line, text) in changes {
        if let Some(place) = lines.get_mut(*line) {
            place.clone_from(text);
        }
    }
    // A line that is taken out stays as an empty one, so that lines keep their numbers.
    lines.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join("\n")
}

/// What the parser wants for the key.
fn wanted(table: &Table<'_>, entry: &Entry<'_>, directory: &Path) -> String {
    let text = with(table, &[(entry.line, Some(format!("{} = {WRONG}", entry.key)))]);
    let Err(errors) = parse(&text, directory) else { panic!("tap.toml takes {} = {WRONG}", entry.key) };
    let fault = errors.faults().iter().find(|fault| fault.line == entry.line + 1);
    let remedy = fault.map_or(String::new(), |fault| fault.remedy.clone());
    match remedy.strip_prefix("write ").unwrap_or(&remedy) {
        "it between quotes" => "text, between quotes".to_owned(),
        wanted => wanted.to_owned(),
    }
}

/// What holds without the key.
fn default(table: &Table<'_>, entry: &Entry<'_>, directory: &Path) -> String {
    let shown = |text: &str| {
        parse(text, directory)
            .map(|all| format!("{:?}", (all.engine, all.ports, all.services, all.pools, all.ticket_keys)))
    };
    let written = shown(&with(table, &[(entry.line, Some(format!("{} = {}", entry.key, entry.value)))]));
    match (written, shown(&with(table, &[(entry.line, None)]))) {
        (Ok(written), Ok(without)) if written == without => format!("`{}`", entry.value),
        (_, Err(errors))
            if errors
                .faults()
                .iter()
                .any(|fault| fault.to_string().contains(&format!("{}: is missing", entry.key))) =>
        {
            "needed".to_owned()
        }
        _ => String::new(),
    }
}

fn reference() -> String {
    let directory = directory();
    let mut text = "# Configuration reference\n\n\
        Every key, by table. Made of `tap.toml` and of what `sealane check` says: what a key takes is what the parser wants when it is wrong, and a default is what\n\
        changes nothing when it is written. \"needed\" keys have none; where nothing stands, the key may be left out, and the column on the right says what it does.\n\
        Keys with a ↻ need a restart.\n"
        .to_owned();
    let mut seen = BTreeSet::new();
    for table in tables() {
        // A table that is shown twice shows other keys the second time.
        let entries: Vec<_> = table.entries.iter().filter(|entry| seen.insert((table.header, entry.key))).collect();
        if entries.is_empty() && table.notes.is_empty() {
            continue;
        }
        writeln!(text, "\n## `{}`\n", table.header).unwrap();
        if !entries.is_empty() {
            text.push_str("| key | takes | default | what |\n| --- | --- | --- | --- |\n");
        }
        for entry in entries {
            let restart = entry.says.strip_prefix("restart").map(|rest| rest.trim_start_matches([';', ' ']));
            let mark = if restart.is_some() { " ↻" } else { "" };
            let cells = [
                wanted(&table, entry, directory.path()),
                default(&table, entry, directory.path()),
                restart.unwrap_or(entry.says).to_owned(),
            ];
            writeln!(text, "| `{}`{mark} | {} |", entry.key, cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
                .unwrap();
        }
        if table.notes.iter().any(|note| !note.trim().is_empty()) {
            writeln!(text, "\n```text\n{}\n```", table.notes.join("\n").trim_end()).unwrap();
        }
    }
    text
}

#[test]
fn the_reference_is_what_the_parser_and_tap_toml_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config/reference.md");
    let made = reference();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == made, "dpdk-config/reference.md says something else; UPDATE=1 writes it anew");
}

#[test]
fn a_line_of_tap_toml_is_taken_apart() {
    let one = entry(7, "# file = \"a#b\"   # restart; where").unwrap();
    assert_eq!((one.line, one.key, one.value, one.says), (7, "file", "\"a#b\"", "restart; where"));
    assert!(entry(0, "# A server that says so = as often").is_none());
    assert_eq!(header("# [engine.tcp]                 # restart; bounds"), Some(("[engine.tcp]", true)));
    assert_eq!(header("[[port]]"), Some(("[[port]]", false)));
    assert_eq!(header("#   tls, https  ca [x]"), None);
}

/// Every key that the parser knows stands in tap.toml: whoever asks for one that does not exist is shown the others.
#[test]
fn tap_toml_names_every_key_that_the_parser_knows() {
    let directory = directory();
    let named: BTreeSet<_> =
        TAP.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect();
    for table in tables().iter().filter(|table| !table.entries.is_empty()) {
        let unknown = with(table, &[(table.entries[0].line, Some("q_x_z_j = 1".to_owned()))]);
        let Err(errors) = parse(&unknown, directory.path()) else {
            panic!("{} takes a key that does not exist", table.header)
        };
        let fault = errors.faults().iter().find(|fault| fault.key.ends_with("q_x_z_j"));
        let known = fault.and_then(|fault| fault.remedy.strip_prefix("choose from ")).unwrap_or_default();
        assert!(!known.is_empty(), "{}: {:?}", table.header, errors.faults());
        for key in known.split(", ") {
            assert!(named.contains(key), "tap.toml says nothing of {key} in {}", table.header);
        }
    }
}
