//! `[[health_monitor]]`: how the servers of pools are looked at.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeValue;

use super::Machine;
use super::fault::{Report, Wrong, wrong};
use super::monitor_tls::monitor_tls;
use super::named::Named;
use super::reader::{Section, choice, duration, integer, text};
use super::sections::{HOUR, MILLISECOND};
use crate::base::Duration;
use crate::health::{Kind, Monitor, http, tcp};

/// The longest text that is sent or looked for, in bytes.
const TEXT_MAX: usize = 1024;

/// Most ranges of codes.
const CODES_MAX: usize = 32;

/// What a monitor does, by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Tcp,
    Tls,
    Http,
    Https,
    Ping,
}

const TYPES: &[(&str, Type)] =
    &[("tcp", Type::Tcp), ("tls", Type::Tls), ("http", Type::Http), ("https", Type::Https), ("ping", Type::Ping)];

/// Reads every `[[health_monitor]]`. Files are in `directory`.
pub(super) fn monitors(
    report: &mut Report,
    root: &mut Section<'_>,
    directory: &Path,
    machine: &Machine,
) -> Named<Arc<Monitor>> {
    Named::read(report, root, "health_monitor", |report, section, name| {
        let kind = section.required(report, "type", "\"tcp\"", choice(TYPES)).map(|kind| kind.value);
        let interval = section.or(report, "interval", Duration::from_secs(10), duration(100 * MILLISECOND..=HOUR));
        let timeout = section.or(
            report,
            "timeout",
            Duration::from_secs(4).min(interval.value / 2),
            duration(10 * MILLISECOND..=HOUR),
        );
        let successful_checks = section.or(report, "successful_checks", 2, integer(1..=100));
        let failed_checks = section.or(report, "failed_checks", 2, integer(1..=100));
        if timeout.value >= interval.value {
            let interval = humantime::format_duration(interval.value);
            let what = format!("is not shorter than the interval, {interval}");
            report.fault(
                timeout.line,
                section.key("timeout"),
                wrong(what, "a probe must end before the next begins: write less"),
            );
        }
        let (mut port, mut maintenance_text) = (None, None);
        if kind != Some(Type::Ping) {
            port = section.optional(report, "port", integer(1..=i64::from(u16::MAX)));
            maintenance_text = section.optional(report, "maintenance_text", bytes);
        }
        let asked = match kind {
            // Its other keys are not to be blamed for a type that is wrong.
            None => return None,
            Some(Type::Tcp | Type::Tls) => talk(report, section, maintenance_text.is_some()),
            Some(Type::Http | Type::Https) => page(report, section),
            Some(Type::Ping) => Kind::Ping,
        };
        let alpn: &[&str] = if kind == Some(Type::Https) { &["http/1.1"] } else { &[] };
        let tls = match kind {
            Some(Type::Tls | Type::Https) => Some(monitor_tls(report, section, alpn, directory, machine)?),
            Some(Type::Tcp | Type::Http | Type::Ping) | None => None,
        };
        Some(Arc::new(Monitor {
            name: name?.to_owned(),
            kind: asked,
            tls,
            maintenance_text: maintenance_text.map(|text| text.value).unwrap_or_default(),
            port: port.map(|port| port.value),
            interval: interval.value,
            timeout: timeout.value,
            successful_checks: successful_checks.value,
            failed_checks: failed_checks.value,
        }))
    })
}

/// What is said on a connection, and what must come.
fn talk(report: &mut Report, section: &mut Section<'_>, has_maintenance: bool) -> Kind {
    let send = section.optional(report, "send", bytes);
    let expect = section.optional(report, "expect", bytes);
    if expect.is_none() && !section.has("expect") && (send.is_some() || has_maintenance) {
        let key = if send.is_some() { "send" } else { "maintenance_text" };
        let what = "is of no use to a monitor that waits for no answer";
        let line = section.line_of(report, key);
        report.fault(line, section.key(key), wrong(what, "add expect = \"...\", what a good answer has"));
    }
    let [send, expect] = [send, expect].map(|text| text.map(|text| text.value).unwrap_or_default());
    Kind::Tcp(tcp::Settings { send, expect })
}

/// What is asked by HTTP, and what the answer must be.
fn page(report: &mut Report, section: &mut Section<'_>) -> Kind {
    let method =
        section.or(report, "method", "GET", choice(&[("GET", "GET"), ("HEAD", "HEAD"), ("OPTIONS", "OPTIONS")]));
    let path = section.optional(report, "path", path);
    let host = section.optional(report, "host", host);
    let expected = section.list(report, "codes", CODES_MAX, codes);
    let body = section.optional(report, "text", bytes);
    let maintenance_codes = section.list(report, "maintenance_codes", CODES_MAX, codes).unwrap_or_default();
    if let Some(text) = body.as_ref().filter(|_| method.value == "HEAD") {
        let what = "is looked for in a body, and an answer to HEAD has none";
        report.fault(text.line, section.key("text"), wrong(what, "write method = \"GET\""));
    }
    if expected.as_ref().is_some_and(Vec::is_empty) {
        let line = section.line_of(report, "codes");
        report.fault(line, section.key("codes"), wrong("is empty", "write at least one, such as codes = [200]"));
    }
    let codes = expected.map_or(vec![200..=399], |codes| codes.into_iter().map(|codes| codes.value).collect());
    Kind::Http(Arc::new(http::Settings {
        method: method.value,
        path: path.map_or_else(|| "/".to_owned(), |path| path.value),
        host: host.map(|host| host.value),
        codes,
        text: body.map(|text| text.value).unwrap_or_default(),
        maintenance_codes: maintenance_codes.into_iter().map(|codes| codes.value).collect(),
    }))
}

/// Any text that is not empty, control characters and all.
fn bytes(value: &DeValue<'_>) -> Result<Arc<[u8]>, Wrong> {
    let remedy = || format!("write 1 to {TEXT_MAX} bytes, between quotes");
    match value.as_str() {
        Some(text) if (1..=TEXT_MAX).contains(&text.len()) => Ok(text.as_bytes().into()),
        Some(text) => Err(wrong(format!("has {} bytes", text.len()), remedy())),
        None => Err(wrong(format!("is of type {}", value.type_str()), remedy())),
    }
}

/// One code, or the first and the last of a range.
fn codes(value: &DeValue<'_>) -> Result<RangeInclusive<u16>, Wrong> {
    const REMEDY: &str = "write a code such as 200, or a range such as \"200-299\"";
    let is_code = |code: &u16| (100..=599).contains(code);
    let range = match value.as_str() {
        None => integer::<u16>(100..=599)(value).map(|code| code..=code).ok(),
        Some(text) => text.split_once('-').and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?)),
    };
    range
        .filter(|range| is_code(range.start()) && is_code(range.end()) && !range.is_empty())
        .ok_or_else(|| wrong("is no code of HTTP and no range of codes", REMEDY))
}

/// A path as a request has it (RFC 9112 3.2.1).
fn path(value: &DeValue<'_>) -> Result<String, Wrong> {
    let path = text(TEXT_MAX)(value)?;
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong(
            format!("is {path:?}"),
            "write a path such as \"/health\", percent-encoded where it must be",
        ));
    }
    Ok(path)
}

/// A host as a request has it (RFC 9110 7.2).
fn host(value: &DeValue<'_>) -> Result<String, Wrong> {
    let host = text(253)(value)?;
    if !host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong(format!("is {host:?}"), "write a host such as \"shop.example\""));
    }
    Ok(host)
}
