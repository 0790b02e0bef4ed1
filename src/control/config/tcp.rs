//! `[engine.tcp]`: the bounds and times of each lane's TCP. Its MTU is that of the ports.

use super::Machine;
use super::fault::{Report, wrong};
use super::model::Fixed;
use super::reader::{Located, Section, boolean, choice, duration, integer};
use super::sections::{DAY, HOUR, MINUTE, SECOND};
use crate::base::Duration;
use crate::tcp::{Congestion, EcnMode, Settings};

/// Connections that must find room for full buffers: with less memory the engine would live in scarcity.
const CONNECTIONS_MIN: usize = 8;
const MIB: i64 = 1 << 20;
const TIB: i64 = 1 << 40;
const ECN: [(&str, EcnMode); 3] = [("off", EcnMode::Off), ("accept", EcnMode::Accept), ("offer", EcnMode::Offer)];
const CONGESTION: [(&str, Congestion); 2] = [("cubic", Congestion::Cubic), ("new-reno", Congestion::NewReno)];

/// Reads `[engine.tcp]`; `lanes` lanes will each take so much.
pub(super) fn tcp(report: &mut Report, engine: &mut Section<'_>, lanes: usize, machine: &Machine) -> Settings {
    let mut tcp = Settings::default();
    let line = engine.line_of(report, "tcp");
    let Some(mut section) = engine.section(report, "tcp") else {
        prove_memory(report, &tcp, line, lanes, machine);
        return tcp;
    };
    bounds(report, &mut section, &mut tcp);
    times(report, &mut section, &mut tcp);
    tcp.timestamps = section.or(report, "timestamps", tcp.timestamps, boolean).value;
    tcp.sack = section.or(report, "sack", tcp.sack, boolean).value;
    tcp.syn_cookies = section.or(report, "syn_cookies", tcp.syn_cookies, boolean).value;
    tcp.ecn = section.or(report, "ecn", tcp.ecn, choice(&ECN)).value;
    tcp.mtu_probing = section.or(report, "mtu_probing", tcp.mtu_probing, boolean).value;
    tcp.congestion = section.or(report, "congestion", tcp.congestion, choice(&CONGESTION)).value;
    section.finish(report);
    prove_memory(report, &tcp, line, lanes, machine);
    tcp
}

fn bounds(report: &mut Report, section: &mut Section<'_>, tcp: &mut Settings) {
    tcp.connections_max = section.or(report, "connections_max", tcp.connections_max, integer(16..=4_194_304)).value;
    // SYNs beyond the bound of connections are dropped, so the cookies' turn must come before.
    let most = tcp.connections_max / 2;
    let Located { value: half_open_max, line } =
        section.or(report, "half_open_max", tcp.half_open_max.min(most), integer(8..=1_048_576));
    if half_open_max > most {
        let what = format!("is {half_open_max}, more than half of connections_max, {}", tcp.connections_max);
        let remedy = format!("write {most} or less: a flood of SYNs must not fill the table of connections");
        report.fault(line, section.key("half_open_max"), wrong(what, remedy));
    }
    tcp.half_open_max = half_open_max;
    sources(report, section, tcp);
    tcp.time_wait_max = section.or(report, "time_wait_max", tcp.time_wait_max, integer(16..=4_194_304)).value;
    tcp.receive_buffer = section.or(report, "receive_buffer", tcp.receive_buffer, integer(4096..=16_777_216)).value;
    tcp.send_buffer = section.or(report, "send_buffer", tcp.send_buffer, integer(4096..=16_777_216)).value;
    let memory = section.or(report, "memory_max", tcp.memory_max, integer(MIB..=TIB));
    let least = CONNECTIONS_MIN * (tcp.receive_buffer + tcp.send_buffer);
    if memory.value < least {
        let what = format!("is {}, too little for {CONNECTIONS_MIN} connections whose buffers are full", memory.value);
        let remedy = format!("write {least} or more, or smaller a receive_buffer and send_buffer");
        report.fault(memory.line, section.key("memory_max"), wrong(what, remedy));
    }
    tcp.memory_max = memory.value;
    tcp.resets_per_second =
        section.or(report, "resets_per_second", tcp.resets_per_second, integer(0..=1_000_000)).value;
}

/// The limits of one source. Zero is no limit.
fn sources(report: &mut Report, section: &mut Section<'_>, tcp: &mut Settings) {
    let mut limit = |key, default: Option<u32>, most| {
        let limit = section.or(report, key, default.unwrap_or(0), integer(0..=most)).value;
        Some(limit).filter(|limit| *limit > 0)
    };
    tcp.source_connections_max = limit("source_connections_max", tcp.source_connections_max, 4_194_304);
    tcp.source_connections_per_second =
        limit("source_connections_per_second", tcp.source_connections_per_second, 1_000_000);
    tcp.source_half_open_max = limit("source_half_open_max", tcp.source_half_open_max, 1_048_576);
}

fn times(report: &mut Report, section: &mut Section<'_>, tcp: &mut Settings) {
    tcp.time_wait = section.or(report, "time_wait", tcp.time_wait, duration(SECOND..=4 * MINUTE)).value;
    let keepalive =
        section.optional(report, "keepalive", duration(Duration::ZERO..=DAY)).map(|keepalive| keepalive.value);
    // "0s" turns keepalive off.
    tcp.keepalive = keepalive.map_or(tcp.keepalive, |keepalive| Some(keepalive).filter(|time| !time.is_zero()));
    tcp.keepalive_interval =
        section.or(report, "keepalive_interval", tcp.keepalive_interval, duration(SECOND..=HOUR)).value;
    tcp.keepalive_probes = section.or(report, "keepalive_probes", tcp.keepalive_probes, integer(1..=100)).value;
    tcp.user_timeout = section.or(report, "user_timeout", tcp.user_timeout, duration(SECOND..=HOUR)).value;
}

/// Bounds that the machine cannot keep are no bounds; but a table that never fills costs nothing, so this is for the operator to judge.
fn prove_memory(report: &mut Report, tcp: &Settings, line: usize, lanes: usize, machine: &Machine) {
    let each = tcp.memory_max.saturating_add(tcp.tables_bound());
    let all = each.saturating_mul(lanes);
    if u64::try_from(all).unwrap_or(u64::MAX) > machine.memory {
        let what = format!(
            "lets {lanes} lanes take {} MiB, {} MiB each, and this machine has {} MiB",
            all >> 20,
            each >> 20,
            machine.memory >> 20
        );
        report.warning(line, "engine.tcp", wrong(what, "lower memory_max, or the bounds of the tables"));
    }
}

/// Where the keys of `[engine.tcp]` stand.
pub(super) fn lines(report: &Report, engine: &Section<'_>) -> impl Fn(&str) -> usize + use<> {
    let (table, keys) = engine.lines_under(report, "tcp");
    move |key| keys.get(key).copied().unwrap_or(table)
}

/// Keys that cannot change while the engine runs: all of them.
pub(super) fn fixed(tcp: &Settings, line: impl Fn(&str) -> usize) -> Vec<Fixed> {
    let time = |time: Duration| humantime::format_duration(time).to_string();
    let limit = |limit: Option<u32>| limit.unwrap_or(0).to_string();
    let congestion = CONGESTION.iter().find(|(_, congestion)| *congestion == tcp.congestion);
    let ecn = ECN.iter().find(|(_, mode)| *mode == tcp.ecn);
    [
        ("connections_max", tcp.connections_max.to_string()),
        ("half_open_max", tcp.half_open_max.to_string()),
        ("source_connections_max", limit(tcp.source_connections_max)),
        ("source_connections_per_second", limit(tcp.source_connections_per_second)),
        ("source_half_open_max", limit(tcp.source_half_open_max)),
        ("time_wait_max", tcp.time_wait_max.to_string()),
        ("receive_buffer", tcp.receive_buffer.to_string()),
        ("send_buffer", tcp.send_buffer.to_string()),
        ("memory_max", tcp.memory_max.to_string()),
        ("time_wait", time(tcp.time_wait)),
        ("keepalive", time(tcp.keepalive.unwrap_or_default())),
        ("keepalive_interval", time(tcp.keepalive_interval)),
        ("keepalive_probes", tcp.keepalive_probes.to_string()),
        ("user_timeout", time(tcp.user_timeout)),
        ("timestamps", tcp.timestamps.to_string()),
        ("sack", tcp.sack.to_string()),
        ("syn_cookies", tcp.syn_cookies.to_string()),
        ("ecn", ecn.map_or_else(String::new, |(word, _)| format!("{word:?}"))),
        ("congestion", congestion.map_or_else(String::new, |(word, _)| format!("{word:?}"))),
        ("mtu_probing", tcp.mtu_probing.to_string()),
        ("resets_per_second", tcp.resets_per_second.to_string()),
    ]
    .map(|(key, value)| Fixed { key: format!("engine.tcp.{key}"), line: line(key), value })
    .into()
}
