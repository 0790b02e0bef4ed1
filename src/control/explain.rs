//! What an engine would do with a ticket now: `sealane ticket inspect` asks it for each configuration that it is given.
//!
//! The engine's own code decides, over what the configuration says and what a running engine says of its servers' health. Nothing runs and no place is taken.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use crate::balance::{Backend, Health, LaneLoads, Pool};
use crate::base::{Duration, LaneId, Random, UnixTime};
use crate::control::config::Configuration;
use crate::control::publish::{self, Shared, Unpublishable};
use crate::persistence::tls::Returning;
use crate::persistence::{self, Method, Reason};
use crate::ticket::Envelope;
use crate::tls;
use crate::tls::ticketer::Unhonoured;

/// Longest page of metrics that is read: thousands of servers have some 300 bytes each.
const METRICS_MAX: u64 = 64 << 20;
/// An engine that runs answers at once.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What a running engine says of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The pool's name.
    pub pool: String,
    /// The server's.
    pub server: String,
    /// What its monitors think of it.
    pub health: Health,
    /// Connections open to it.
    pub connections: u64,
}

/// What would become of a returning client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The engine has no virtual service for which the ticket is valid.
    Invalid,
    /// A full handshake.
    Full(Unhonoured),
    /// A resumed one.
    Resumed {
        /// `None` when no server takes the client.
        server: Option<Server>,
        /// Why.
        reason: Reason,
    },
}

/// Where a client would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// To its own, named as `pool/server`.
    Same(String),
    /// To another one: which, is a matter of whose turn it is. Named is one of them.
    Another(String),
}

/// What one engine would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The engine's name.
    pub engine: String,
    /// The address at which it was asked how its servers are, and whether it has answered.
    pub asked: (String, bool),
    /// What it would do.
    pub answer: Answer,
}

/// What the engine of `configuration` would do at `now` with a ticket that opens for its virtual service of this name, or for none. `reported` is what it says of its servers; whoever is not in it
/// is taken as up.
///
/// # Errors
/// When the configuration cannot be given to a lane.
pub fn explain(
    configuration: &Configuration,
    ticket: Option<(&str, &Envelope)>,
    reported: Option<&[Reported]>,
    now: UnixTime,
) -> Result<Explanation, Unpublishable> {
    let answer = match ticket {
        None => Answer::Invalid,
        Some((service, envelope)) => {
            let mut shared = Shared::new(1);
            let snapshots = publish::snapshots(configuration, 1, &[], &mut shared, 1)?;
            let services = snapshots.iter().flat_map(|snapshot| &snapshot.services);
            let service = services.into_iter().find(|found| found.name == service);
            service.map_or(Answer::Invalid, |service| {
                let returning = envelope
                    .mapping
                    .map(|mapping| Returning::new(mapping, envelope.issuer, envelope.issued, configuration.engine.id));
                answer(&service.tls, envelope, returning.as_ref(), &shared, reported.unwrap_or_default(), now)
            })
        }
    };
    let asked = (configuration.engine.admin.to_string(), reported.is_some());
    Ok(Explanation { engine: configuration.engine.name.clone(), asked, answer })
}

fn answer(
    service: &tls::Service,
    envelope: &Envelope,
    returning: Option<&Returning>,
    shared: &Shared,
    reported: &[Reported],
    now: UnixTime,
) -> Answer {
    if let Err(why) = service.would_resume(envelope, now) {
        return Answer::Full(why);
    }
    let pool = service.pool();
    let profile = service.profile().map(|profile| &**profile);
    if profile.is_some_and(|profile| profile.method != Method::Tls) {
        return Answer::Resumed { server: None, reason: Reason::Recalling };
    }
    // Whom another server would be given to is not known: neither its address nor what the engine's lanes will draw.
    let client = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let backend = backend(pool, shared, reported);
    let decision = persistence::tls::decide(returning, profile, &backend, client, now);
    let server = decision.server.and_then(|index| pool.server(index)).map(|server| {
        let name = format!("{}/{}", pool.name, server.name);
        let is_its_own = envelope
            .mapping
            .is_some_and(|mapping| (mapping.server, mapping.generation) == (server.id, server.generation));
        if is_its_own { Server::Same(name) } else { Server::Another(name) }
    });
    Answer::Resumed { server, reason: decision.reason }
}

/// The pool as a lane would use it while its servers are as `reported`.
fn backend(pool: &Arc<Pool>, shared: &Shared, reported: &[Reported]) -> Backend {
    let loads = Rc::new(LaneLoads::new(Arc::clone(&shared.loads), LaneId(0)));
    loads.configure([&**pool].into_iter());
    for server in &pool.servers {
        let said = reported.iter().find(|one| (&one.pool, &one.server) == (&pool.name, &server.name));
        shared.board.publish(server.slot, said.map_or(Health::Up, |said| said.health));
        // A server without a limit is as good with connections as without.
        let taken = said.map_or(0, |said| said.connections).min(server.max_connections.unwrap_or(0).into());
        for _ in 0..taken {
            loads.take(server.slot);
        }
    }
    Backend::new(Arc::clone(pool), Arc::clone(&shared.board), loads, Random::from_seed(0))
}

/// The server, named as `pool/server`, that the address of a new client leads to where the virtual service's pool goes by that.
///
/// # Errors
/// When the configuration cannot be given to a lane.
pub fn hashed(
    configuration: &Configuration,
    service: &str,
    client: IpAddr,
    reported: &[Reported],
) -> Result<Option<String>, Unpublishable> {
    let mut shared = Shared::new(1);
    let snapshots = publish::snapshots(configuration, 1, &[], &mut shared, 1)?;
    let mut services = snapshots.iter().flat_map(|snapshot| &snapshot.services);
    let Some(found) = services.find(|found| found.name == service) else { return Ok(None) };
    let pool = found.tls.pool();
    let server = backend(pool, &shared, reported).choose(client).and_then(|index| pool.server(index));
    Ok(server.map(|server| format!("{}/{}", pool.name, server.name)))
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:<13} ", self.engine)?;
        match &self.answer {
            Answer::Invalid => {
                return f.write_str("full handshake: it has no virtual service for which this ticket is valid");
            }
            Answer::Full(why) => return write!(f, "full handshake: {why}"),
            Answer::Resumed { server: Some(Server::Same(name)), reason } => {
                write!(f, "resumed, to {name} ({})", reason.name())?
            }
            Answer::Resumed { server: Some(Server::Another(name)), reason } => {
                write!(f, "resumed, to whose turn it is, as {name} ({})", reason.name())?;
            }
            Answer::Resumed { server: None, reason: Reason::Recalling } => {
                return f.write_str("resumed, to where its address belongs: the ticket does not count for that");
            }
            Answer::Resumed { server: None, reason } => write!(f, "resumed, and reset ({})", reason.name())?,
        }
        match &self.asked {
            (address, true) => write!(f, "; health as {address} has it"),
            (address, false) => write!(f, "; nobody answers at {address}, so every server is taken as up"),
        }
    }
}

/// What a running engine says of its servers at its admin address; `None` when nobody answers there, or somebody else.
pub fn ask(configuration: &Configuration) -> Option<Vec<Reported>> {
    let url = format!("http://{}/metrics", configuration.engine.admin);
    let agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER_MAX)).proxy(None).build().new_agent();
    let page = agent.get(&url).call().ok()?.body_mut().with_config().limit(METRICS_MAX).read_to_string().ok()?;
    let reported = read(&page);
    (!reported.is_empty()).then_some(reported)
}

/// The servers in a page of metrics. Names of pools and servers have no character that OpenMetrics would escape.
pub fn read(page: &str) -> Vec<Reported> {
    let samples = |family: &'static str| {
        page.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(family)?.strip_prefix('{')?.rsplit_once("} ")?;
            let label = |name: &str| {
                let mut labels = labels.split(',').filter_map(|label| label.split_once('='));
                labels.find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"').to_owned())
            };
            Some((label("pool")?, label("server")?, value.parse::<u64>().ok()?))
        })
    };
    let all = |family| -> HashMap<(String, String), u64> {
        samples(family).map(|(pool, server, value)| ((pool, server), value)).collect()
    };
    let (connections, maintenance) = (all("sealane_server_connections"), all("sealane_server_in_maintenance"));
    let reported = |(pool, server, up): (String, String, u64)| {
        let of = (pool, server);
        let connections = connections.get(&of).copied().unwrap_or(0);
        let health = match (up, maintenance.get(&of)) {
            (1, _) => Health::Up,
            (_, Some(1)) => Health::Maintenance,
            (_, _) => Health::Down,
        };
        Reported { connections, health, pool: of.0, server: of.1 }
    };
    samples("sealane_server_up").map(reported).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_clients_are_known_by_their_address_a_ticket_is_not_asked() {
        let explanation = Explanation {
            engine: "one".to_owned(),
            asked: ("127.0.0.1:9900".to_owned(), true),
            answer: Answer::Resumed { server: None, reason: Reason::Recalling },
        };
        let told = "at one           resumed, to where its address belongs: the ticket does not count for that";
        assert_eq!(explanation.to_string(), told);
    }

    #[test]
    fn what_an_engine_says_of_its_servers_is_read_from_its_metrics() {
        let page = "# HELP sealane_server_up Whether clients may be sent to the server.\n\
                    sealane_server_up{pool=\"web\",server=\"a\"} 1\n\
                    sealane_server_up{pool=\"web\",server=\"b\"} 0\n\
                    sealane_server_up{pool=\"web\",server=\"c\"} 0\n\
                    sealane_server_in_maintenance{pool=\"web\",server=\"b\"} 0\n\
                    sealane_server_in_maintenance{pool=\"web\",server=\"c\"} 1\n\
                    sealane_server_connections{pool=\"web\",server=\"b\"} 7\n\
                    sealane_server_connections_max{pool=\"web\",server=\"b\"} 9\n# EOF\n";
        let reported = |server: &str, health, connections| Reported {
            pool: "web".into(),
            server: server.into(),
            health,
            connections,
        };
        let [up, down, maintained] = [("a", Health::Up, 0), ("b", Health::Down, 7), ("c", Health::Maintenance, 0)];
        let expected =
            [up, down, maintained].map(|(server, health, connections)| reported(server, health, connections));
        assert_eq!(read(page), expected);
    }

    proptest::proptest! {
        #[test]
        fn any_page_is_read(page: String, value: String) {
            let _ = read(&page);
            let _ = read(&format!("sealane_server_up{{pool=\"{page}\",server={value}}} {value}"));
        }
    }
}
