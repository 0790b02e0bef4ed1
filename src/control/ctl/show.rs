//! Answers of the API as tables for a person. `--json` shows them whole.

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::control::api::shapes::{
    Changed, Explained, LaneShown, PoolShown, Problem, ReferredShown, RingShown, ServerState, ServiceShown, Status,
    Version,
};

/// What an answer is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Status,
    Version,
    Changed,
    Lanes,
    Pools,
    Services,
    Referred,
    Explained,
    Keys,
    /// Something of which all is shown.
    One,
    /// No JSON.
    Text,
}

/// The answer for a person; one of a newer engine, which this program does not know, as it is.
pub(super) fn table(shape: Shape, answer: &Json) -> String {
    let shown = match shape {
        Shape::Status => read(answer).map(status),
        Shape::Version => read(answer).map(|version| self::version(&version)),
        Shape::Changed => read(answer).map(changed),
        Shape::Lanes => read(answer).map(lanes),
        Shape::Pools => read(answer).map(pools),
        Shape::Services => read(answer).map(services),
        Shape::Referred => read(answer).map(referred),
        Shape::Explained => read(answer).map(explained),
        Shape::Keys => read(answer).map(keys),
        Shape::One | Shape::Text => None,
    };
    shown.unwrap_or_else(|| format!("{answer:#}\n"))
}

fn read<T: DeserializeOwned>(answer: &Json) -> Option<T> {
    T::deserialize(answer).ok()
}

/// A refusal, each fault on a line of its own.
pub(in crate::control) fn problem(status: StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) if problem.faults().is_empty() => format!("refused: {}", problem.detail()),
        Ok(problem) => {
            let faults = problem.faults().iter().map(|fault| {
                let (file, line, key) = (&fault.file, fault.line, &fault.key);
                format!("\n{file}:{line}: {key}: {}; {}", fault.wrong, fault.remedy)
            });
            format!("refused, and nothing has changed:{}", faults.collect::<String>())
        }
        Err(_) => format!("refused with {status}"),
    }
}

fn status(status: Status) -> String {
    let fit = match (&status.unfit, status.draining) {
        (_, true) => "draining".to_owned(),
        (None, false) => "ready".to_owned(),
        (Some(why), false) => format!("not ready: {why}"),
    };
    let rows = [
        ["engine".to_owned(), format!("{} of cluster {}, {fit}", status.engine, status.cluster)],
        ["version".to_owned(), status.version],
        ["connections".to_owned(), status.connections.to_string()],
        ["file".to_owned(), status.file],
    ];
    format!("{}{}", columns(&rows), version(&status.configuration))
}

fn version(version: &Version) -> String {
    let saved = if version.unsaved_changes { "not saved" } else { "as in the file" };
    let rows = [
        ["configuration", &format!("version {}, {saved}", version.configuration_version)],
        ["revision", &version.revision],
    ];
    columns(&rows.map(|row| row.map(str::to_owned)))
}

fn changed(changed: Changed) -> String {
    let mut text = String::new();
    if changed.discarded_unsaved_changes {
        text += "changes that had not been saved are discarded\n";
    }
    for warning in &changed.warnings {
        let (file, line, key) = (&warning.file, warning.line, &warning.key);
        text += &format!("warning: {file}:{line}: {key}: {}; {}\n", warning.wrong, warning.remedy);
    }
    let lanes = if changed.in_force { "in force on all lanes" } else { "not in force on every lane yet" };
    text += &format!("{lanes}\n{}", version(&changed.configuration));
    text
}

fn lanes(lanes: Vec<LaneShown>) -> String {
    let mut rows = vec![["LANE", "CORE", "BUSY", "CONNECTIONS", "CONFIGURATION", "KEYS"].map(str::to_owned)];
    rows.extend(lanes.iter().map(|lane| {
        let all = lane.busy_nanoseconds.saturating_add(lane.idle_nanoseconds).max(1);
        let busy = u128::from(lane.busy_nanoseconds) * 100 / u128::from(all);
        [
            lane.lane.to_string(),
            lane.core.to_string(),
            format!("{busy} %"),
            lane.connections.to_string(),
            lane.configuration_version.to_string(),
            lane.ring_version.to_string(),
        ]
    }));
    columns(&rows)
}

fn pools(pools: Vec<PoolShown>) -> String {
    let head = ["POOL/SERVER", "ADDRESS", "STATE", "HEALTH", "RATIO", "CONNECTIONS", "WAITING", "WHY"];
    let mut rows = vec![head.map(str::to_owned)];
    for pool in &pools {
        let name = pool.configuration.get("name").and_then(Json::as_str).unwrap_or_default();
        rows.extend(pool.state.servers.iter().map(|server| server_row(name, server)));
    }
    columns(&rows)
}

fn server_row(pool: &str, server: &ServerState) -> [String; 8] {
    let causes = server.findings.iter().filter_map(|finding| Some((&finding.monitor, finding.cause.as_ref()?)));
    let why = causes.map(|(monitor, cause)| format!("{monitor}: {cause}"));
    let most = server.connections_max.map_or_else(String::new, |max| format!(" of {max}"));
    [
        format!("{pool}/{}", server.name),
        server.address.clone(),
        server.state.clone(),
        server.health.clone(),
        server.ratio.to_string(),
        format!("{}{most}", server.connections),
        server.waiting.to_string(),
        why.collect::<Vec<_>>().join(", "),
    ]
}

fn services(services: Vec<ServiceShown>) -> String {
    let mut rows = vec![["SERVICE", "ADDRESSES", "POOL", "USABLE", "CERTIFICATES UNTIL"].map(str::to_owned)];
    rows.extend(services.iter().map(|service| {
        let until = service.state.certificates.iter().map(|certificate| certificate.not_after.as_str());
        [
            service.configuration.get("name").and_then(Json::as_str).unwrap_or_default().to_owned(),
            service.state.addresses.join(" "),
            service.state.pool.clone(),
            service.state.servers_usable.to_string(),
            until.collect::<Vec<_>>().join(" "),
        ]
    }));
    columns(&rows)
}

fn referred(all: Vec<ReferredShown>) -> String {
    let mut rows = vec![["NAME", "TYPE", "USED BY"].map(str::to_owned)];
    rows.extend(all.iter().map(|one| {
        let text = |key: &str| one.configuration.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        [text("name"), text("type"), one.state.used_by.join(" ")]
    }));
    columns(&rows)
}

fn explained(explained: Explained) -> String {
    let to = explained.server.unwrap_or_else(|| "decided when it comes, or nowhere".to_owned());
    let rows = [
        ["service", &format!("{}, pool {}", explained.service, explained.pool)],
        ["handshake", &explained.handshake],
        ["server", &to],
        ["reason", &explained.reason],
        ["why", &explained.why],
    ];
    let servers: Vec<_> = explained.servers.iter().map(|server| server_row(&explained.pool, server)).collect();
    format!("{}{}", columns(&rows.map(|row| row.map(str::to_owned))), columns(&servers))
}

fn keys(ring: RingShown) -> String {
    let mut rows = vec![["KEY", "STATE", "SINCE"].map(str::to_owned)];
    rows.extend(ring.keys.into_iter().map(|key| [key.id, key.state, key.since]));
    let lanes = if ring.in_force { "in force on all lanes" } else { "not in force on every lane yet" };
    let alarms: String = ring.alarms.iter().map(|alarm| format!("alarm: {alarm}\n")).collect();
    format!("ring version {}, source {}, {lanes}\n{alarms}{}", ring.version, ring.source, columns(&rows))
}

/// Rows with their columns below each other, two blanks between.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pools_stand_in_columns() {
        let server = |name: &str, max: Option<u32>| {
            let mut server = json!({ "name": name, "address": "198.18.0.1:8001", "state": "draining", "health": "up", "usable": false,
                "ratio": 1, "connections": 12, "waiting": 0, "generation": 0 });
            if let Some(max) = max {
                server["connections_max"] = max.into();
                server["findings"] =
                    json!([{ "monitor": "connect", "health": "up", "cause": "timed out", "since": "now" }]);
            }
            server
        };
        let servers = [server("a", None), server("longer", Some(20))];
        let state = json!({ "servers_usable": 0, "connections": 24, "virtual_services": [], "servers": servers });
        let answer = json!([{ "configuration": { "name": "web" }, "state": state }]);
        let expected = "\
POOL/SERVER  ADDRESS          STATE     HEALTH  RATIO  CONNECTIONS  WAITING  WHY
web/a        198.18.0.1:8001  draining  up      1      12           0
web/longer   198.18.0.1:8001  draining  up      1      12 of 20     0        connect: timed out
";
        assert_eq!(table(Shape::Pools, &answer), expected);
    }

    #[test]
    fn what_a_newer_engine_answers_is_shown_as_it_is() {
        assert_eq!(table(Shape::Pools, &json!({ "new": 1 })), "{\n  \"new\": 1\n}\n");
    }

    #[test]
    fn a_refusal_says_each_fault() {
        let fault = json!({ "file": "sealane.toml", "line": 7, "key": "pool.server.ratio", "wrong": "is 21, which is out of range",
            "remedy": "write a number from 1 to 20" });
        let body = json!({ "type": "t", "title": "T", "status": 422, "detail": "d", "faults": [fault] }).to_string();
        let told = problem(StatusCode::UNPROCESSABLE_ENTITY, body.as_bytes());
        assert!(told.ends_with(
            "\nsealane.toml:7: pool.server.ratio: is 21, which is out of range; write a number from 1 to 20"
        ));
        assert_eq!(problem(StatusCode::BAD_GATEWAY, b"<html>"), "refused with 502 Bad Gateway");
    }
}
