//! `[[pool]]` with its servers, `[[health_monitor]]` and `[[persistence_profile]]`: what virtual services refer to.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use toml::de::DeValue;

use super::fault::{Report, Wrong, wrong};
use super::model::{POOLS_MAX, Pool, Port, SERVERS_MAX, Server};
use super::reader::{Located, Section, choice, duration, integer, name, parsed, text};
use super::sections::duplicate;
use crate::balance::{Admission, Algorithm, Draining, State};
use crate::base::{Duration, Generation};
use crate::control::identity;
use crate::health::Monitor;
use crate::persistence::{Method, OnLimit, Profile, Queue, SelectNewServer, client_ip};

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Things that others refer to by name. One that is wrong keeps its name, so that whoever refers to it is not blamed.
#[derive(Debug)]
pub(super) struct Named<T> {
    all: HashMap<String, Option<T>>,
    /// Whether the name of each is known.
    is_whole: bool,
}

impl<T> Named<T> {
    /// Reads every table of the array `key`.
    fn read(
        report: &mut Report,
        root: &mut Section<'_>,
        key: &'static str,
        mut read: impl FnMut(&mut Report, &mut Section<'_>, Option<&str>) -> Option<T>,
    ) -> Self {
        let mut all = HashMap::new();
        let faults = report.count();
        let sections = root.sections(report, key, POOLS_MAX);
        let mut is_whole = report.count() == faults;
        for mut section in sections {
            let name = section.required(report, "name", "\"web\"", name);
            is_whole &= name.is_some();
            let value = read(report, &mut section, name.as_ref().map(|name| name.value.as_str()));
            if let Some(name) = name
                && all.insert(name.value.clone(), value).is_some()
            {
                report.fault(name.line, section.key("name"), duplicate(&name.value));
            }
            section.finish(report);
        }
        Self { all, is_whole }
    }

    /// What `name` refers to; notes a fault at `key` when nothing has that name.
    pub(super) fn find(&self, report: &mut Report, key: String, name: &Located<String>) -> Option<&T> {
        let found = self.all.get(&name.value);
        if found.is_none() && self.is_whole {
            let mut names: Vec<_> = self.all.keys().map(String::as_str).collect();
            names.sort_unstable();
            let remedy = if names.is_empty() {
                "there is none: add one".to_owned()
            } else {
                format!("choose from {}", names.join(", "))
            };
            report.fault(name.line, key, wrong(format!("refers to {:?}, which does not exist", name.value), remedy));
        }
        found?.as_ref()
    }

    /// All that are right.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.all.values().flatten()
    }

    /// The same, for good.
    pub(super) fn into_values(self) -> impl Iterator<Item = T> {
        self.all.into_values().flatten()
    }
}

/// Reads every `[[health_monitor]]`.
pub(super) fn monitors(report: &mut Report, root: &mut Section<'_>) -> Named<Monitor> {
    Named::read(report, root, "health_monitor", |report, section, name| {
        section.required(report, "type", "\"tcp\"", choice(&[("tcp", ())]));
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
        Some(Monitor {
            name: name?.to_owned(),
            interval: interval.value,
            timeout: timeout.value,
            successful_checks: successful_checks.value,
            failed_checks: failed_checks.value,
        })
    })
}

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

/// Reads every `[[pool]]`.
pub(super) fn pools(
    report: &mut Report,
    root: &mut Section<'_>,
    monitors: &Named<Monitor>,
    ports: &[Located<Port>],
) -> Named<Arc<Pool>> {
    let mut room = SERVERS_MAX;
    Named::read(report, root, "pool", |report, section, name| {
        let algorithm = section.or(
            report,
            "algorithm",
            Algorithm::RoundRobin,
            choice(&[("round-robin", Algorithm::RoundRobin), ("least-connections", Algorithm::LeastConnections)]),
        );
        let monitor = section.optional(report, "health_monitor", self::name);
        let monitor = monitor.map(|name| monitors.find(report, section.key("health_monitor"), &name).cloned());
        let draining = draining(report, section);
        let servers = servers(report, section, name.unwrap_or_default(), room, draining, ports);
        room = room.saturating_sub(servers.len());
        if !servers.is_empty() && servers.iter().all(|server| server.state != State::Enabled) {
            let what = "has no server that is enabled: new clients are turned away";
            let key = section.key("server");
            report.warning(section.line, key, wrong(what, "write state = \"enabled\" for one of them"));
        }
        let name = name?.to_owned();
        Some(Arc::new(Pool {
            id: identity::pool(&name),
            name,
            algorithm: algorithm.value,
            servers,
            monitor: monitor.flatten(),
        }))
    })
}

/// Most connections that a server may be limited to: more than all lanes together have.
const CONNECTIONS_MAX: i64 = 1 << 28;

/// What a server may be used for, as its configuration says it; how it is drained, its pool's does.
#[derive(Clone, Copy)]
enum Word {
    Enabled,
    Draining,
    Disabled,
}

const WORDS: &[(&str, Word)] =
    &[("enabled", Word::Enabled), ("draining", Word::Draining), ("disabled", Word::Disabled)];

impl Word {
    fn under(self, draining: Draining) -> State {
        match self {
            Self::Enabled => State::Enabled,
            Self::Draining => State::Draining(draining),
            Self::Disabled => State::Disabled,
        }
    }
}

/// How the pool's servers are drained.
fn draining(report: &mut Report, pool: &mut Section<'_>) -> Draining {
    let words = choice(&[("disallow-new", Admission::DisallowNew), ("allow-persisted", Admission::AllowPersisted)]);
    let admission = pool.or(report, "drain_admission", Admission::DisallowNew, words);
    let timeout = pool.or(report, "drain_timeout", None, drain_timeout);
    Draining { admission: admission.value, timeout: timeout.value }
}

/// A time from zero, or that there is none.
fn drain_timeout(value: &DeValue<'_>) -> Result<Option<Duration>, Wrong> {
    if ["never", "-1"].iter().any(|never| value.as_str() == Some(never)) {
        return Ok(None);
    }
    let time = duration(Duration::ZERO..=168 * HOUR)(value);
    time.map(Some).map_err(|wrong| wrong.or_instead("\"never\""))
}

fn servers(
    report: &mut Report,
    pool: &mut Section<'_>,
    pool_name: &str,
    room: usize,
    draining: Draining,
    ports: &[Located<Port>],
) -> Vec<Server> {
    let mut servers: Vec<Server> = Vec::new();
    let mut lines: HashMap<String, usize> = HashMap::new();
    let sections = pool.sections(report, "server", room);
    if sections.is_empty() {
        let remedy = "add a [[pool.server]] with name and address below it";
        report.fault(pool.line, pool.key("server"), wrong("is missing: the pool is empty", remedy));
    }
    for mut section in sections {
        let name = section.required(report, "name", "\"a\"", name);
        let address = section.required(report, "address", "\"198.18.0.1:8001\"", endpoint);
        let ratio = section.or(report, "ratio", 1, integer::<u8>(1..=20));
        let state = section.or(report, "state", Word::Enabled, choice(WORDS)).value.under(draining);
        let max_connections = section.or(report, "max_connections", 0, integer::<u32>(0..=CONNECTIONS_MAX)).value;
        let generation = section.or(report, "generation", 0, integer::<u32>(0..=i64::from(u32::MAX)));
        if let Some(address) = &address {
            prove_route(report, section.key("address"), address, ports);
            if let Some(other) = servers.iter().find(|server| server.address == address.value) {
                let what = format!("is {}, which server {:?} of this pool has", address.value, other.name);
                report.fault(
                    address.line,
                    section.key("address"),
                    wrong(what, "name a server once and give it a higher ratio"),
                );
            }
        }
        if let Some(name) = &name
            && lines.insert(name.value.clone(), name.line).is_some()
        {
            report.fault(name.line, section.key("name"), duplicate(&name.value));
        }
        section.finish(report);
        if let (Some(name), Some(address)) = (name, address) {
            servers.push(Server {
                id: identity::server(pool_name, &name.value),
                name: name.value,
                address: address.value,
                ratio: ratio.value,
                state,
                max_connections: Some(max_connections).filter(|max| *max > 0),
                generation: Generation(generation.value),
            });
        }
    }
    servers
}

fn prove_route(report: &mut Report, key: String, address: &Located<SocketAddr>, ports: &[Located<Port>]) {
    let ip = address.value.ip();
    let port_has = |port: &Located<Port>| port.value.addresses.iter().any(|network| network.addr() == ip);
    if ports.iter().any(port_has) {
        let what = format!("is {ip}, the engine's own address");
        report.fault(
            address.line,
            key,
            wrong(what, "write the server's address: the engine does not connect to itself"),
        );
    } else if !ports.is_empty() && !ports.iter().any(|port| port.value.routes_to(ip) && port.value.speaks_family_of(ip))
    {
        let what = format!("is {ip}, which no port has a route to");
        report.fault(address.line, key, wrong(what, "add an address of its network to a [[port]], or a gateway"));
    }
}

/// A unicast address and a port that a connection can go to.
pub(super) fn endpoint(value: &DeValue<'_>) -> Result<SocketAddr, Wrong> {
    let endpoint: SocketAddr = parsed("an address with a port", "198.18.0.1:8001")(value)?;
    let is_unicast = match endpoint.ip() {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast() && !v4.is_loopback(),
        // Link-local addresses mean nothing without an interface, and IPv4-mapped ones are IPv4's.
        IpAddr::V6(v6) => {
            !v6.is_unspecified()
                && !v6.is_multicast()
                && !v6.is_loopback()
                && !v6.is_unicast_link_local()
                && v6.to_ipv4_mapped().is_none()
        }
    };
    if !is_unicast || endpoint.port() == 0 {
        return Err(wrong(
            format!("is {endpoint}, which nobody can connect to"),
            "write a unicast address and a port from 1 to 65535",
        ));
    }
    Ok(endpoint)
}
