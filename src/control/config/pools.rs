//! `[[pool]]` with its servers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use toml::de::DeValue;

use super::Machine;
use super::failover::{failover, prove_backups};
use super::fault::{Report, Wrong, wrong};
use super::model::{Pool, Port, SERVERS_MAX, Server};
use super::named::Named;
use super::reader::{Located, Section, choice, duration, integer, name, parsed};
use super::sections::{HOUR, duplicate};
use super::servers_tls::{server_name, servers_tls};
use super::sharing::sharing;
use crate::balance::{Admission, Algorithm, Draining, State};
use crate::base::{Duration, Generation};
use crate::control::identity;
use crate::health::{MONITORS_MAX, Monitor};

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("round-robin", Algorithm::RoundRobin),
    ("least-connections", Algorithm::LeastConnections),
    ("power-of-two", Algorithm::PowerOfTwo),
    ("consistent-hash", Algorithm::ConsistentHash),
    ("fastest", Algorithm::Fastest),
    ("random", Algorithm::Random),
];

/// What an algorithm is called here.
pub(super) fn algorithm_name(algorithm: Algorithm) -> &'static str {
    ALGORITHMS.iter().find(|(_, known)| *known == algorithm).map_or("", |(name, _)| name)
}

/// Reads every `[[pool]]`.
pub(super) fn pools(
    report: &mut Report,
    root: &mut Section<'_>,
    monitors: &Named<Arc<Monitor>>,
    ports: &[Located<Port>],
    directory: &Path,
    machine: &Machine,
) -> Named<Arc<Pool>> {
    let mut room = SERVERS_MAX;
    let mut backups = Vec::new();
    let pools = Named::read(report, root, "pool", |report, section, name| {
        let algorithm = section.or(report, "algorithm", Algorithm::RoundRobin, choice(ALGORITHMS));
        let (monitors, monitors_up_min) = monitored_by(report, section, monitors);
        let draining = draining(report, section);
        let tls = servers_tls(report, section, directory, machine);
        let servers = servers(report, section, name.unwrap_or_default(), room, draining, ports);
        room = room.saturating_sub(servers.len());
        if !servers.is_empty() && servers.iter().all(|server| server.state != State::Enabled) {
            let what = "has no server that is enabled: new clients are turned away";
            let key = section.key("server");
            report.warning(section.line, key, wrong(what, "write state = \"enabled\" for one of them"));
        }
        let sharing = sharing(report, section);
        let failover = failover(report, section, &servers, &mut backups);
        let name = name?.to_owned();
        Some(Arc::new(Pool {
            id: identity::pool(&name),
            name,
            algorithm: algorithm.value,
            servers,
            drain_admission: draining.admission,
            monitors,
            monitors_up_min,
            failover,
            tls,
            sharing,
        }))
    });
    prove_backups(report, &pools, &backups);
    pools
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

/// The monitors that look at the pool's servers, and how many of them must find one up.
fn monitored_by(
    report: &mut Report,
    pool: &mut Section<'_>,
    monitors: &Named<Arc<Monitor>>,
) -> (Vec<Arc<Monitor>>, usize) {
    let names = pool.one_or_more(report, "health_monitor", MONITORS_MAX, name).unwrap_or_default();
    let mut found: Vec<Arc<Monitor>> = Vec::new();
    for name in &names {
        if names.iter().filter(|other| other.value == name.value && other.line <= name.line).count() > 1 {
            let what = format!("has {:?} twice", name.value);
            report.fault(name.line, pool.key("health_monitor"), wrong(what, "name each monitor once"));
            break;
        }
        found.extend(monitors.find(report, pool.key("health_monitor"), name).cloned());
    }
    let all = names.len();
    let most = i64::try_from(MONITORS_MAX).unwrap_or(i64::MAX);
    let up_min = pool.or(report, "monitors_up_min", all, integer(1..=most));
    if up_min.value > all {
        let what = format!("is {}, and the pool has {all} health monitors", up_min.value);
        let remedy = "write no more than that, or leave it out for all of them";
        report.fault(up_min.line, pool.key("monitors_up_min"), wrong(what, remedy));
    }
    (found, up_min.value)
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
        let server_name = section.optional(report, "server_name", server_name);
        if let Some(server_name) = server_name.as_ref().filter(|_| !pool.has("tls")) {
            let what =
                format!("is {:?}, and the pool's servers are not spoken to in TLS", server_name.value.to_string());
            let remedy = "add [pool.tls] to the pool, or leave the name out";
            report.fault(server_name.line, section.key("server_name"), wrong(what, remedy));
        }
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
                server_name: server_name.map(|name| name.value),
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
