//! `[[persistence_profile]]`: how clients come back to their servers.

use std::sync::Arc;

use super::fault::{Report, wrong};
use super::named::Named;
use super::reader::{Section, choice, duration, integer, text};
use super::sections::{HOUR, MILLISECOND};
use crate::base::Duration;
use crate::persistence::{Method, OnLimit, Profile, Queue, SelectNewServer, client_ip};

/// Reads every `[[persistence_profile]]`.
pub(super) fn profiles(report: &mut Report, root: &mut Section<'_>) -> Named<Arc<Profile>> {
    Named::read(report, root, "persistence_profile", |report, section, name| {
        section.optional(report, "description", text(1024));
        let method = method(report, section);
        let select = section.or(
            report,
            "select_new_server_when_persistent_server_down",
            SelectNewServer::Immediate,
            choice(&[
                ("immediate", SelectNewServer::Immediate),
                ("never", SelectNewServer::Never),
                ("never-even-if-down", SelectNewServer::NeverEvenIfDown),
            ]),
        );
        let on_limit = on_limit(report, section, select.value);
        let max_mapping_age =
            section.optional(report, "max_mapping_age", duration(Duration::from_secs(1)..=8760 * HOUR));
        Some(Arc::new(Profile {
            name: name?.to_owned(),
            method: method?,
            select_new_server_when_persistent_server_down: select.value,
            on_limit,
            max_mapping_age: max_mapping_age.map(|age| age.value),
        }))
    })
}

/// What a profile's clients do when their server is full. Only `immediate` may send them to another: the others promise that nobody does.
fn on_limit(report: &mut Report, section: &mut Section<'_>, select: SelectNewServer) -> OnLimit {
    #[derive(Clone, Copy, PartialEq)]
    enum Word {
        Switch,
        Spill,
        Queue,
        Refuse,
    }
    let default = match select {
        SelectNewServer::Immediate => Word::Switch,
        SelectNewServer::Never | SelectNewServer::NeverEvenIfDown => Word::Refuse,
    };
    let words =
        choice(&[("switch", Word::Switch), ("spill", Word::Spill), ("queue", Word::Queue), ("refuse", Word::Refuse)]);
    let word = section.or(report, "on_limit", default, words);
    let queue_max = section.optional(report, "queue_max", integer(1..=65_536));
    let timeouts = 100 * MILLISECOND..=Duration::from_secs(300);
    let queue_timeout = section.optional(report, "queue_timeout", duration(timeouts));
    if default == Word::Refuse && [Word::Switch, Word::Spill].contains(&word.value) {
        let what = "sends a client to another server, which this profile never does";
        let remedy = "write \"refuse\" or \"queue\", or select_new_server_when_persistent_server_down = \"immediate\"";
        report.fault(word.line, section.key("on_limit"), wrong(what, remedy));
    }
    if word.value != Word::Queue {
        let lines = [
            ("queue_max", queue_max.as_ref().map(|max| max.line)),
            ("queue_timeout", queue_timeout.as_ref().map(|time| time.line)),
        ];
        for (key, line) in lines.into_iter().filter_map(|(key, line)| Some((key, line?))) {
            let remedy = "write on_limit = \"queue\", or leave it out";
            report.fault(line, section.key(key), wrong("says how clients wait, and nobody waits here", remedy));
        }
    }
    match word.value {
        Word::Switch => OnLimit::Switch,
        Word::Spill => OnLimit::Spill,
        Word::Queue => OnLimit::Queue(Queue {
            max: queue_max.map_or(64, |max| max.value),
            timeout: queue_timeout.map_or(Duration::from_secs(10), |time| time.value),
        }),
        Word::Refuse => OnLimit::Refuse,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tls,
    ClientIp,
}

/// Keys of a profile of type client-ip.
const CLIENT_IP: [&str; 4] = ["ipv4_mask", "ipv6_mask", "timeout", "entries_max"];

fn method(report: &mut Report, section: &mut Section<'_>) -> Option<Method> {
    let kind =
        section.required(report, "type", "\"tls\"", choice(&[("tls", Kind::Tls), ("client-ip", Kind::ClientIp)]));
    let [ipv4_mask, ipv6_mask, timeout, entries_max] = CLIENT_IP;
    let settings = client_ip::Settings {
        ipv4_mask: section.or(report, ipv4_mask, 32, integer(1..=32)).value,
        ipv6_mask: section.or(report, ipv6_mask, 128, integer(1..=128)).value,
        timeout: section
            .or(report, timeout, Duration::from_secs(300), duration(Duration::from_secs(1)..=168 * HOUR))
            .value,
        entries_max: section.or(report, entries_max, 65_536, integer(1..=i64::from(client_ip::ENTRIES_MAX))).value,
    };
    match kind?.value {
        Kind::ClientIp => Some(Method::ClientIp(settings)),
        Kind::Tls => {
            for key in CLIENT_IP.into_iter().filter(|key| section.has(key)) {
                let what = "is a key of type = \"client-ip\": a ticket remembers one client, and lasts as long as [ticket_keys] says";
                report.fault(
                    section.line_of(report, key),
                    section.key(key),
                    wrong(what, "leave it out, or write type = \"client-ip\""),
                );
            }
            Some(Method::Tls)
        }
    }
}
