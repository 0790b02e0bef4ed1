//! Rules of the code that no compiler checks: who may name whom, where `unsafe` lives, what a file looks like.
//!
//! Every rule is a function over a file's text, so that each has a test which shows that it finds what it forbids.

#![expect(clippy::indexing_slicing, reason = "an index out of range is a failed test here")]

use std::fs;
use std::path::Path;

/// Who may name whom, from the first floor up. `base` and a module itself may always be named, nothing else may.
///
/// Tests inside a module keep to the same table.
const FLOORS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("nic", &[]),
    ("wire", &[]),
    ("ticket", &[]),
    ("balance", &[]),
    ("link", &["wire"]),
    ("tcp", &["wire"]),
    ("persistence", &["ticket", "balance"]),
    ("tls", &["ticket", "persistence"]),
    ("relay", &["tcp", "tls", "persistence", "balance"]),
    ("health", &["tcp", "tls", "persistence", "balance"]),
    ("lane", &["nic", "wire", "ticket", "balance", "link", "tcp", "persistence", "tls", "relay", "health"]),
    ("control", &["ticket", "persistence", "balance", "health", "lane"]),
    (
        "load",
        &["nic", "wire", "ticket", "balance", "link", "tcp", "persistence", "tls", "relay", "health", "lane", "sim"],
    ),
    (
        "sim",
        &["nic", "wire", "ticket", "balance", "link", "tcp", "persistence", "tls", "relay", "health", "lane", "load"],
    ),
];

/// What the floors do not allow and is right all the same: who, whom, why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("link", "nic", "it sends and receives frames of any kind, through nic's Frame trait"),
    ("tls", "balance", "persistence decides over a pool and a health board, which a TLS service hands to it"),
    ("relay", "ticket", "it counts and reports sessions by ticket's TlsVersion and KeyId"),
    ("control", "link", "a snapshot holds each port's link::Settings"),
    ("control", "relay", "a snapshot holds each virtual service as a relay::Service"),
    ("control", "tcp", "the configuration holds the tcp::Settings of lanes, and tcp::trace is shown and saved"),
    ("control", "nic", "`sealane trace` writes capture files through nic::pcap, and metrics show what ports report"),
    ("control", "tls", "a snapshot holds each service's certificates and tls::Settings"),
];

/// Crates that only these may name, by path below `src/` without `.rs`: a module, or one part of it.
const CRATES: &[(&str, &[&str])] = &[
    ("capsule", &["nic/dpdk"]),
    ("capsule_ffi", &["nic/dpdk"]),
    ("etcd_client", &["control/keys/client"]),
    // Its wire types only. A lane cuts packets to size, and control parses Ethernet addresses.
    ("smoltcp", &["nic", "wire", "link", "tcp", "lane", "control", "sim"]),
];

/// The one part of `src/` that may contain `unsafe`.
const UNSAFE: &str = "nic/dpdk";

/// Most lines of a file in `src/`.
const LINES_MAX: usize = 700;

/// Macros at the crate's root, which all may use. They are base's.
const MACROS: &[&str] = &["counters"];

/// One breach of a rule: the line, and what is wrong there.
#[derive(Debug, PartialEq, Eq)]
struct Breach(usize, String);

/// One word or sign of Rust, with its line. Comments are gone, and what a literal says is, too.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    line: usize,
    text: String,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

/// Cuts Rust's text into tokens. Every literal becomes one token that is no word, so that nothing in it is taken for code.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (length, is_code) = token_length(rest, first);
        let (token, after) = rest.split_at(length);
        if is_code {
            let text = token.strip_prefix("r#").filter(|_| !token.contains('"')).unwrap_or(token);
            let is_literal = token.contains('"') || token.len() > 1 && token.ends_with('\'');
            tokens.push(Token { line, text: if is_literal { "\"\"".into() } else { text.into() } });
        }
        line += token.matches('\n').count();
        rest = after;
    }
    tokens
}

/// How long the token at the start of `rest` is in bytes, and whether it is code.
fn token_length(rest: &str, first: char) -> (usize, bool) {
    if first.is_whitespace() {
        return (first.len_utf8(), false);
    }
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (block_comment_length(rest), false);
    }
    if let Some(length) = string_length(rest) {
        return (length, true);
    }
    if first == '\'' || rest.starts_with("b'") {
        return (quote_length(rest), true);
    }
    let word = rest.strip_prefix("r#").unwrap_or(rest);
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    if word.starts_with(is_part) {
        let prefix = rest.len() - word.len();
        return (prefix + word.find(|c| !is_part(c)).unwrap_or(word.len()), true);
    }
    (first.len_utf8(), true)
}

/// A block comment, which may hold others.
fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// A string literal of any kind, raw or not, with its prefix; `None` when `rest` begins with something else.
fn string_length(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c| !matches!(c, 'b' | 'c' | 'r'))?;
    let (kind, body) = rest.split_at_checked(prefix)?;
    if !matches!(kind, "" | "b" | "c" | "r" | "br" | "cr") {
        return None;
    }
    if kind.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let content = body.trim_start_matches('#').strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = content.find(&end).map_or(content.len(), |at| at + end.len());
        return Some(prefix + hashes + 1 + length);
    }
    let content = body.strip_prefix('"')?;
    Some(prefix + 1 + escaped_length(content, '"'))
}

/// What follows an opening quote, up to the closing one and with it.
fn escaped_length(content: &str, quote: char) -> usize {
    let mut characters = content.char_indices();
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if c == quote {
            return at + 1;
        }
    }
    content.len()
}

/// A character literal, or the quote of a lifetime alone.
fn quote_length(rest: &str) -> usize {
    let prefix = if rest.starts_with('b') { 2 } else { 1 };
    let content = rest.get(prefix..).unwrap_or_default();
    let mut characters = content.chars();
    match (characters.next(), characters.next()) {
        (Some('\\'), _) => prefix + escaped_length(content, '\''),
        (Some(c), Some('\'')) => prefix + c.len_utf8() + 1,
        _ => prefix,
    }
}

/// Where a file stands: its path below `src/`, without `.rs` and without `/mod`.
fn place(path: &str) -> &str {
    let path = path.strip_prefix("src/").unwrap_or(path);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    path.strip_suffix("/mod").unwrap_or(path)
}

/// Whether `place` is `part` or below it.
fn is_within(place: &str, part: &str) -> bool {
    place.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A module of the crate that a file names: the line, and the name.
fn named_modules(path: &str, text: &str) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let depth = place(path).split('/').count();
    let mut named = Vec::new();
    // Depths of braces in which an inline module began.
    let mut inline = Vec::new();
    let mut braces = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        let text = |offset: usize| tokens.get(at + offset).map_or("", |token| token.text.as_str());
        let is_path_start = !follows_path(&tokens[..at]);
        match token.text.as_str() {
            "{" => braces += 1,
            "}" => {
                if inline.last() == Some(&braces) {
                    inline.pop();
                }
                braces = braces.saturating_sub(1);
            }
            "mod" if text(2) == "{" => inline.push(braces + 1),
            "crate" if text(1) == ":" => named.extend(heads(&tokens[at + 1..])),
            "crate" if text(1) == "as" => named.push((token.line, "crate".into())),
            "super" if is_path_start => {
                let supers = tokens[at..].chunks(3).take_while(|part| is_super(part)).count();
                if supers >= depth + inline.len() {
                    named.extend(heads(&tokens[at + 3 * supers - 2..]));
                }
            }
            _ => {}
        }
    }
    named
}

/// Whether a path goes on after these tokens. `self::` changes nothing and counts as no path.
fn follows_path(before: &[Token]) -> bool {
    let [before @ .., first, second] = before else { return false };
    first.text == ":" && second.text == ":" && before.last().is_none_or(|word| word.text != "self")
}

fn is_super(part: &[Token]) -> bool {
    matches!(part, [word, first, second] if word.text == "super" && first.text == ":" && second.text == ":")
}

/// The first names of a path's rest, which begins with `::`: one name, or each of a group in braces.
fn heads(rest: &[Token]) -> Vec<(usize, String)> {
    let Some(first) = rest.get(2) else { return Vec::new() };
    if first.text != "{" {
        return vec![(first.line, first.text.clone())];
    }
    let mut heads = Vec::new();
    let mut depth = 0usize;
    let mut is_head = false;
    for token in &rest[2..] {
        match token.text.as_str() {
            "{" => {
                depth += 1;
                is_head = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return heads;
                }
            }
            "," => is_head = depth == 1,
            text if is_head => {
                heads.push((token.line, text.into()));
                is_head = false;
            }
            _ => {}
        }
    }
    heads
}

/// Modules that the file's own may not name.
fn layering(path: &str, text: &str) -> Vec<Breach> {
    let Some((module, _)) = place(path).split_once('/').or(Some((place(path), ""))) else { return Vec::new() };
    // The command line may name everything; the map only declares.
    if matches!(module, "main" | "run" | "lib") {
        return Vec::new();
    }
    let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == module) else {
        return vec![Breach(1, format!("`{module}` stands on no floor: give it one in tests/tidy.rs"))];
    };
    let is_allowed = |name: &str| {
        name == module
            || name == "base"
            || MACROS.contains(&name)
            || allowed.contains(&name)
            || EXCEPTIONS.iter().any(|(who, whom, _)| *who == module && *whom == name)
    };
    named_modules(path, text)
        .into_iter()
        .filter(|(_, name)| !is_allowed(name))
        .map(|(line, name)| Breach(line, format!("`{module}` may not name `{name}`")))
        .collect()
}

/// Crates that have one place, named elsewhere.
fn crates(path: &str, text: &str) -> Vec<Breach> {
    let place = place(path);
    let mut breaches = Vec::new();
    for token in tokens(text) {
        let home = CRATES.iter().find(|(name, _)| *name == token.text);
        if home.is_some_and(|(_, parts)| !parts.iter().any(|part| is_within(place, part))) {
            breaches.push(Breach(token.line, format!("`{}` may not be named here", token.text)));
        }
    }
    breaches
}

/// `unsafe` outside its one address.
fn unsafe_code(path: &str, text: &str) -> Vec<Breach> {
    if is_within(place(path), UNSAFE) {
        return Vec::new();
    }
    let found = tokens(text).into_iter().filter(|token| token.text == "unsafe");
    found.map(|token| Breach(token.line, format!("`unsafe` belongs in {UNSAFE}"))).collect()
}

/// A file without a first line that says what it is.
fn first_line(_path: &str, text: &str) -> Vec<Breach> {
    let says =
        text.lines().next().and_then(|line| line.strip_prefix("//!")).is_some_and(|line| !line.trim().is_empty());
    if says { Vec::new() } else { vec![Breach(1, "the first line is to say what the file is, after `//!`".into())] }
}

/// A file that is too long to read in one sitting.
fn length(_path: &str, text: &str) -> Vec<Breach> {
    let lines = text.lines().count();
    if lines <= LINES_MAX { Vec::new() } else { vec![Breach(lines, format!("more than {LINES_MAX} lines"))] }
}

/// Macros of unfinished work.
fn unfinished(_path: &str, text: &str) -> Vec<Breach> {
    let tokens = tokens(text);
    let pairs = tokens.windows(2).filter(|pair| pair[1].text == "!");
    let found = pairs.filter(|pair| matches!(pair[0].text.as_str(), "todo" | "unimplemented" | "dbg"));
    found.map(|pair| Breach(pair[0].line, format!("`{}!` is unfinished work", pair[0].text))).collect()
}

/// Tests that do not run.
fn ignored_tests(_path: &str, text: &str) -> Vec<Breach> {
    let tokens = tokens(text);
    let mut breaches = Vec::new();
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "[" if depth > 0 || tokens[..at].last().is_some_and(|before| before.text == "#") => depth += 1,
            "]" => depth = depth.saturating_sub(1),
            "ignore" if depth > 0 => breaches.push(Breach(token.line, "an ignored test proves nothing".into())),
            _ => {}
        }
    }
    breaches
}

/// Sleep. A lane's clock is the one place in `src/` that may, between breaths; tests may not at all.
fn sleeping(path: &str, text: &str) -> Vec<Breach> {
    if place(path) == "lane/clock" {
        return Vec::new();
    }
    let tokens = tokens(text);
    let words: Vec<_> = tokens.iter().filter(|token| token.is_word()).collect();
    let pairs = words.windows(2).filter(|pair| pair[0].text == "thread" && pair[1].text == "sleep");
    pairs.map(|pair| Breach(pair[1].line, "nothing here may sleep".into())).collect()
}

/// Every `.rs` file below `folder`, by path from the top of the repository, with its text.
fn files(folder: &str) -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![top.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(top).expect("it is below the top").to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).expect("a source file is text")));
            }
        }
    }
    found.sort();
    found
}

/// Fails with every breach of `rule` in these folders.
fn hold(rule: fn(&str, &str) -> Vec<Breach>, folders: &[&str]) {
    let files: Vec<_> = folders.iter().flat_map(|folder| files(folder)).collect();
    assert!(!files.is_empty(), "there is something to check");
    let mut report = String::new();
    for (path, text) in &files {
        for Breach(line, what) in rule(path, text) {
            report += &format!("\n{path}:{line}: {what}");
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn every_module_names_only_what_its_floor_allows() {
    hold(layering, &["src"]);
}

#[test]
fn crates_with_one_place_are_named_nowhere_else() {
    hold(crates, &["src"]);
}

#[test]
fn unsafe_has_one_address() {
    hold(unsafe_code, &["src", "tests", "benches"]);
}

#[test]
fn every_file_says_first_what_it_is() {
    hold(first_line, &["src", "tests", "benches", "dpdk-config"]);
}

#[test]
fn no_file_is_too_long() {
    hold(length, &["src"]);
}

#[test]
fn nothing_is_left_unfinished() {
    hold(unfinished, &["src"]);
}

#[test]
fn no_test_is_ignored() {
    hold(ignored_tests, &["src", "tests"]);
}

#[test]
fn nothing_sleeps() {
    hold(sleeping, &["src", "tests"]);
}

/// Lines that a rule reports.
fn lines(rule: fn(&str, &str) -> Vec<Breach>, path: &str, text: &str) -> Vec<usize> {
    rule(path, text).into_iter().map(|Breach(line, _)| line).collect()
}

#[test]
fn floors_hold_no_circle_and_name_only_each_other() {
    let names: Vec<_> = FLOORS.iter().map(|(name, _)| *name).collect();
    for (at, (module, allowed)) in FLOORS.iter().enumerate() {
        for name in *allowed {
            let stands = names.iter().position(|other| other == name);
            // `load` and `sim` share the top floor.
            assert!(stands.is_some_and(|stands| stands < at || *module == "load"), "{module} may name {name}");
        }
    }
    for (who, whom, why) in EXCEPTIONS {
        let stands = |module: &str| names.iter().position(|name| *name == module);
        assert!(stands(whom).is_some() && stands(whom) < stands(who) && !why.is_empty(), "{who} may name {whom}");
    }
}

#[test]
fn layering_finds_every_way_to_name_a_module() {
    let path = "src/wire/frame.rs";
    for breach in [
        "use crate::tcp::Segment;",
        "use crate::{base, tcp};",
        "use crate::{base::{Flow, Random}, tcp::{self, Seq}};",
        "use crate::{\n    base,\n    tcp,\n};",
        "fn f() -> crate::tcp::Seq { }",
        "use crate :: tcp;",
        "use crate::r#tcp;",
        "pub(crate) use crate::tcp;",
        "use super::super::tcp;",
        "mod tests { use super::super::super::tcp; }",
        "use crate::*;",
        "use crate as all;",
        "use std::x; fn f<'a>(a: &'a u8) { crate::tcp::f('\"') } // \"",
        "crate::tcp!(a)",
    ] {
        assert_eq!(layering(path, breach).len(), 1, "{breach}: {:?}", layering(path, breach));
    }
    assert_eq!(lines(layering, path, "use crate::{\n    base,\n    tcp,\n};"), [3]);
    assert_eq!(lines(layering, "src/wire/mod.rs", "use super::tcp;"), [1]);
    assert_eq!(lines(layering, "src/wire/mod.rs", "use self::super::tcp;"), [1]);
    assert_eq!(lines(layering, "src/wire/mod.rs", "use super::{base, tcp as other};"), [1]);
    assert_eq!(lines(layering, "src/wire/mod.rs", "mod a { fn f() {} }\nuse super::tcp;"), [2]);
    assert_eq!(lines(layering, "src/link/mod.rs", "use crate::tcp;\nuse crate::nic;\nuse crate::wire;"), [1]);
    assert_eq!(lines(layering, "src/sim/mod.rs", "use crate::control;"), [1]);
    assert_eq!(lines(layering, "src/novel/mod.rs", ""), [1]);
}

#[test]
fn layering_lets_pass_what_is_allowed_or_no_code() {
    let path = "src/wire/frame.rs";
    for fine in [
        "use crate::base::{Flow, tcp};",
        "use crate::{base::{tcp, Flow}, wire::tcp};",
        "pub(crate) fn tcp() {}",
        "// crate::tcp",
        "//! [`crate::tcp`]\n/// crate::tcp",
        "/* /* crate::tcp */ crate::tcp */",
        "const A: &str = \"crate::tcp \\\" crate::tcp\";",
        "const A: &str = r#\"\"crate::tcp\"#;",
        "const A: &[u8] = b\"crate::tcp\"; const B: u8 = b'\"'; const C: &str = \"crate::tcp\";",
        "const A: char = '\\''; const B: &str = \"crate::tcp\";",
        "use super::tcp;",
        "mod tests { use super::super::tcp; }",
        "use std::super_::tcp;",
        "crate::counters! { }",
    ] {
        assert_eq!(layering(path, fine), [], "{fine}");
    }
    assert_eq!(layering("src/wire/mod.rs", "mod tests { use super::tcp; }"), []);
    assert_eq!(layering("src/main.rs", "use crate::tcp;"), []);
}

#[test]
fn the_other_rules_find_what_they_forbid() {
    assert_eq!(lines(crates, "src/nic/memory.rs", "\nuse capsule::Mbuf;"), [2]);
    assert_eq!(lines(crates, "src/nic/memory.rs", "use capsule_ffi as ffi;"), [1]);
    assert_eq!(lines(crates, "src/nic/dpdkish.rs", "use capsule::Mbuf;"), [1]);
    assert_eq!(lines(crates, "src/balance/mod.rs", "use smoltcp::wire;"), [1]);
    assert_eq!(lines(unsafe_code, "src/nic/memory.rs", "fn f() {\n    unsafe { g() }\n}"), [2]);
    assert_eq!(lines(first_line, "src/a.rs", "use std::fs;"), [1]);
    assert_eq!(lines(first_line, "src/a.rs", "//!\nuse std::fs;"), [1]);
    assert_eq!(lines(first_line, "src/a.rs", ""), [1]);
    assert_eq!(lines(length, "src/a.rs", &"\n".repeat(LINES_MAX + 1)), [LINES_MAX + 1]);
    assert_eq!(lines(unfinished, "src/a.rs", "todo!()\nunimplemented!()\nstd::dbg!(x)"), [1, 2, 3]);
    assert_eq!(lines(ignored_tests, "src/a.rs", "#[test]\n#[ignore]\nfn f() {}"), [2]);
    assert_eq!(lines(ignored_tests, "src/a.rs", "#[ignore = \"slow\"]\n#[cfg_attr(a, ignore)]"), [1, 2]);
    assert_eq!(lines(sleeping, "tests/a.rs", "std::thread::sleep(x);\nuse std::thread::{sleep};"), [1, 2]);
}

#[test]
fn the_other_rules_let_pass_what_is_fine() {
    for path in ["src/nic/dpdk.rs", "src/nic/dpdk/mod.rs", "src/nic/dpdk/port.rs"] {
        assert_eq!(crates(path, "use capsule::Mbuf;"), []);
        assert_eq!(unsafe_code(path, "unsafe { f() }"), []);
    }
    assert_eq!(crates("src/wire/frame.rs", "use smoltcp::wire; // capsule"), []);
    assert_eq!(unsafe_code("src/a.rs", "#![deny(unsafe_code)] // unsafe"), []);
    assert_eq!(first_line("src/a.rs", "//! A file."), []);
    assert_eq!(length("src/a.rs", &"\n".repeat(LINES_MAX)), []);
    assert_eq!(unfinished("src/a.rs", "let todo = \"todo!()\"; // todo!()"), []);
    assert_eq!(ignored_tests("src/a.rs", "fn ignore(a: [u8; 2]) { ignore(a) }"), []);
    assert_eq!(sleeping("src/lane/clock.rs", "std::thread::sleep(rest)"), []);
    assert_eq!(sleeping("src/lane/mod.rs", "self.clock.sleep(rest)"), []);
}

#[test]
fn the_rules_reach_the_whole_tree() {
    let names: Vec<_> = files("src").into_iter().map(|(path, _)| path).collect();
    assert!(names.contains(&"src/lib.rs".into()) && names.contains(&"src/base/mod.rs".into()), "{names:?}");
}
