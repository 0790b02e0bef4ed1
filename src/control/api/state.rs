//! How things are: what the API shows beside what the configuration says.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::document::{Body, Document};
use super::problem::{Fault, Problem};
use crate::balance::{self, Evidence, Health, Slot};
use crate::control::Control;
use crate::control::config::{Pool, Server, VirtualService};
use crate::control::health::Seen;
use crate::control::keys::file;
use crate::control::metrics::View;
use crate::control::publish::Placed;
use crate::health::Finding;

/// The engine.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct Status {
    /// `engine.name`
    pub(in crate::control) engine: String,
    /// `engine.cluster`
    pub(in crate::control) cluster: String,
    /// The program's version.
    pub(in crate::control) version: String,
    /// Why the engine should not be given clients; absent when it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::control) unfit: Option<String>,
    /// Whether it ends as soon as its connections have ended.
    pub(in crate::control) draining: bool,
    /// Connections that clients have open.
    pub(in crate::control) connections: u64,
    /// The configuration's file.
    pub(in crate::control) file: String,
    #[serde(flatten)]
    pub(in crate::control) configuration: Version,
}

/// Which configuration is in force.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct Version {
    /// How many configurations have been in force, this one included.
    pub(in crate::control) configuration_version: u64,
    /// This state of it, for `If-Match`: it is also the entity tag.
    pub(in crate::control) revision: String,
    /// Whether it is another one than its file said when it was read or saved last.
    pub(in crate::control) unsaved_changes: bool,
}

/// A change that has been made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct Changed {
    #[serde(flatten)]
    pub(in crate::control) configuration: Version,
    /// Whether every lane has it. If not, a lane is held up; it takes it as soon as it breathes again.
    pub(in crate::control) in_force: bool,
    /// Whether a reload has discarded changes that had not been saved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::control) discarded_unsaved_changes: bool,
    /// What an operator should know and what forbids nothing.
    pub(in crate::control) warnings: Vec<Fault>,
}

/// A pool.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct PoolShown {
    /// Its `[[pool]]`, as it is written.
    #[schema(value_type = Object)]
    pub(in crate::control) configuration: Body,
    pub(in crate::control) state: PoolState,
}

/// How a pool is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct PoolState {
    /// Servers that new clients may be sent to.
    pub(in crate::control) servers_usable: usize,
    /// Connections open to its servers.
    pub(in crate::control) connections: u64,
    /// The virtual services whose clients it serves.
    pub(in crate::control) virtual_services: Vec<String>,
    pub(in crate::control) servers: Vec<ServerState>,
}

/// A server.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct ServerShown {
    /// Its `[[pool.server]]`, as it is written.
    #[schema(value_type = Object)]
    pub(super) configuration: Body,
    pub(super) state: ServerState,
}

/// How a server is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct ServerState {
    pub(in crate::control) name: String,
    pub(in crate::control) address: String,
    /// What it may be used for: "enabled", "draining" or "disabled".
    pub(in crate::control) state: String,
    /// What its monitors say together: "up", "down", "maintenance", or "unknown" where none has looked yet.
    pub(in crate::control) health: String,
    /// Since when they have said so, to the second; absent where none has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::control) since: Option<String>,
    /// What each of its monitors has found.
    #[serde(default)]
    pub(in crate::control) findings: Vec<FindingState>,
    /// Whether new clients may be sent to it: enabled, not down, and below its limit.
    pub(in crate::control) usable: bool,
    /// Share of new clients.
    pub(in crate::control) ratio: u8,
    /// Connections open to it, over all lanes.
    pub(in crate::control) connections: u64,
    /// The most that it has at once; absent without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::control) connections_max: Option<u32>,
    /// Clients that wait for a place at it.
    pub(in crate::control) waiting: u32,
    /// Its incarnation.
    pub(in crate::control) generation: u32,
    /// What part of its ratio it gets of new clients, in percent: less while it warms up, or fails or slows down under live connections.
    #[serde(default = "whole")]
    pub(in crate::control) share_percent: u16,
    /// Whether it is taken out for failures of live connections.
    #[serde(default)]
    pub(in crate::control) out: bool,
    #[serde(default, flatten)]
    pub(in crate::control) outcomes: Outcomes,
}

/// Of servers of an engine that does not say so.
fn whole() -> u16 {
    100
}

/// What has become of connections to a server since it was placed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(in crate::control) struct Outcomes {
    /// Those that it has answered or ended in order.
    pub(in crate::control) successes: u64,
    /// Those that could not be made to it, or broke before its first byte.
    pub(in crate::control) failures: u64,
    /// Those whose first byte was timed.
    pub(in crate::control) answers: u64,
    /// What clients have waited for it together, in microseconds.
    pub(in crate::control) answer_microseconds: u64,
}

/// What one monitor has found out about a server.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct FindingState {
    pub(in crate::control) monitor: String,
    /// What it thinks of the server: "up", "down", "maintenance" or "unknown".
    pub(in crate::control) health: String,
    /// Why its last probe failed; absent if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::control) cause: Option<String>,
    /// Since when its probes have come to that, to the second.
    pub(in crate::control) since: String,
}

/// The word for a state of health.
fn word(health: Health) -> String {
    match health {
        Health::Unknown => "unknown",
        Health::Up => "up",
        Health::Maintenance => "maintenance",
        Health::Down => "down",
    }
    .to_owned()
}

/// A virtual service.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct ServiceShown {
    /// Its `[[virtual_service]]`, as it is written.
    #[schema(value_type = Object)]
    pub(in crate::control) configuration: Body,
    pub(in crate::control) state: ServiceState,
}

/// How a virtual service is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct ServiceState {
    /// Where clients connect.
    pub(in crate::control) addresses: Vec<String>,
    pub(in crate::control) pool: String,
    /// Servers of its pool that new clients may be sent to.
    pub(in crate::control) servers_usable: usize,
    pub(in crate::control) certificates: Vec<CertificateState>,
}

/// A certificate that is in use.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct CertificateState {
    /// Names that it covers.
    pub(in crate::control) names: Vec<String>,
    /// When it ends.
    pub(in crate::control) not_after: String,
}

/// Something that others refer to by its name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct ReferredShown {
    /// Its table, as it is written.
    #[schema(value_type = Object)]
    pub(in crate::control) configuration: Body,
    pub(in crate::control) state: ReferredState,
}

/// Who refers to it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct ReferredState {
    /// Pools by name, or virtual services.
    pub(in crate::control) used_by: Vec<String>,
}

/// What the configuration says and how it is, of one kind of thing.
pub(super) trait Shown: Sized {
    /// The array of tables.
    const KEY: &'static str;

    /// `configuration` with its state.
    fn of(control: &Control, document: &Document, configuration: Body) -> Option<Self>;
}

fn name(configuration: &Body) -> &str {
    configuration.get("name").and_then(|name| name.as_str()).unwrap_or_default()
}

impl Shown for PoolShown {
    const KEY: &'static str = "pool";

    fn of(control: &Control, _: &Document, configuration: Body) -> Option<Self> {
        let pool = control.configuration.pools.iter().find(|pool| pool.name == name(&configuration))?;
        let state = control.pool_state(pool);
        Some(Self { configuration, state })
    }
}

impl Shown for ServiceShown {
    const KEY: &'static str = "virtual_service";

    fn of(control: &Control, _: &Document, configuration: Body) -> Option<Self> {
        let service = control.configuration.services.iter().find(|service| service.name == name(&configuration))?;
        let state = service_state(service, control.pool_state(&service.pool).servers_usable);
        Some(Self { configuration, state })
    }
}

/// Whether any key of a table, or any list at one, names `wanted`.
fn refers(table: &Body, key: &str, wanted: &str) -> bool {
    table.get(key).is_some_and(|value| match value.as_array() {
        Some(names) => names.iter().any(|name| name.as_str() == Some(wanted)),
        None => value.as_str() == Some(wanted),
    })
}

/// A health monitor.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub(super) struct MonitorShown(ReferredShown);

impl Shown for MonitorShown {
    const KEY: &'static str = "health_monitor";

    fn of(_: &Control, document: &Document, configuration: Body) -> Option<Self> {
        let used_by = users(document, "pool", "health_monitor", name(&configuration));
        Some(Self(ReferredShown { configuration, state: ReferredState { used_by } }))
    }
}

/// A persistence profile.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub(super) struct ProfileShown(ReferredShown);

impl Shown for ProfileShown {
    const KEY: &'static str = "persistence_profile";

    fn of(_: &Control, document: &Document, configuration: Body) -> Option<Self> {
        let used_by = users(document, "virtual_service", "persistence_profile", name(&configuration));
        Some(Self(ReferredShown { configuration, state: ReferredState { used_by } }))
    }
}

fn users(document: &Document, kind: &str, key: &str, wanted: &str) -> Vec<String> {
    let users = document.all(kind).into_iter().filter(|table| refers(table, key, wanted));
    users.map(|table| name(&table).to_owned()).collect()
}

fn outcomes(evidence: Evidence) -> Outcomes {
    let Evidence { successes, failures, answers, answer_micros } = evidence;
    Outcomes { successes, failures, answers, answer_microseconds: answer_micros }
}

/// What each monitor has found.
fn findings(seen: &Seen) -> Vec<FindingState> {
    let finding = |finding: &Finding| FindingState {
        monitor: finding.monitor.clone(),
        health: word(finding.health),
        cause: finding.last.and_then(Result::err).map(|cause| cause.to_string()),
        since: file::date(seen.since_of(finding)),
    };
    seen.verdict.findings.iter().map(finding).collect()
}

/// Slots by pool and server.
pub(super) type Slots<'v> = HashMap<(&'v str, &'v str), Slot>;

pub(super) fn slots<'v>(placed: impl Iterator<Item = &'v Placed>) -> Slots<'v> {
    placed.map(|placed| ((placed.pool.as_str(), placed.server.as_str()), placed.slot)).collect()
}

/// How a virtual service is whose pool has so many usable servers.
pub(super) fn service_state(service: &VirtualService, servers_usable: usize) -> ServiceState {
    let certificates = service.certificates.iter().map(|certificate| CertificateState {
        names: certificate.names().to_vec(),
        not_after: file::date(certificate.not_after()),
    });
    ServiceState {
        addresses: service.addresses.iter().map(ToString::to_string).collect(),
        pool: service.pool.name.clone(),
        servers_usable,
        certificates: certificates.collect(),
    }
}

impl Control {
    pub(super) fn shown_version(&self) -> Version {
        let revision = self.revision();
        Version {
            configuration_version: revision.version,
            revision: revision.to_string(),
            unsaved_changes: self.has_unsaved_changes(),
        }
    }

    pub(super) fn status(&self) -> Status {
        let engine = &self.configuration.engine;
        Status {
            engine: engine.name.clone(),
            cluster: engine.cluster.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unfit: self.view.borrow().unfit.clone(),
            draining: self.drain.is_some(),
            connections: self.open(),
            file: self.configuration.file.display().to_string(),
            configuration: self.shown_version(),
        }
    }

    /// The document that is in force, to read or to change.
    pub(super) fn document(&self) -> Result<Document, Problem> {
        Ok(Document::parse(&self.configuration.text)?)
    }

    /// Everything of one kind.
    pub(super) fn all<T: Shown>(&self) -> Result<Vec<T>, Problem> {
        let document = self.document()?;
        let all = document.all(T::KEY);
        Ok(all.into_iter().filter_map(|configuration| T::of(self, &document, configuration)).collect())
    }

    pub(super) fn pool_state(&self, pool: &Pool) -> PoolState {
        let view = self.view.borrow();
        let placed = view.servers.iter().filter(|placed| placed.pool == pool.name);
        self.pool_state_by(&view, &slots(placed), pool)
    }

    /// The same where servers' slots are at hand.
    pub(super) fn pool_state_by(&self, view: &View, slots: &Slots<'_>, pool: &Pool) -> PoolState {
        let slot = |server: &Server| slots.get(&(pool.name.as_str(), server.name.as_str())).copied();
        let state = |server: &Server| self.server_state(view, server, slot(server));
        let servers: Vec<_> = pool.servers.iter().map(state).collect();
        let services = self.configuration.services.iter().filter(|service| service.pool.id == pool.id);
        PoolState {
            servers_usable: servers.iter().filter(|server| server.usable).count(),
            connections: servers.iter().map(|server| server.connections).sum(),
            virtual_services: services.map(|service| service.name.clone()).collect(),
            servers,
        }
    }

    fn server_state(&self, view: &View, server: &Server, slot: Option<Slot>) -> ServerState {
        let seen = slot.and_then(|slot| view.health.of(slot));
        let health = slot.map_or(Health::Unknown, |slot| self.shared.board.health(slot));
        let connections = slot.map_or(0, |slot| self.shared.loads.total(slot));
        let is_full = server.max_connections.is_some_and(|max| connections >= max.into());
        let state = match server.state {
            balance::State::Enabled => "enabled",
            balance::State::Draining(_) => "draining",
            balance::State::Disabled => "disabled",
        };
        ServerState {
            name: server.name.clone(),
            address: server.address.to_string(),
            state: state.to_owned(),
            health: word(health),
            since: seen.map(|seen| file::date(seen.since())),
            findings: seen.map(findings).unwrap_or_default(),
            usable: server.state == balance::State::Enabled && health.is_usable() && !is_full,
            ratio: server.ratio,
            connections,
            connections_max: server.max_connections,
            waiting: slot.map_or(0, |slot| self.shared.loads.waiting(slot)),
            generation: server.generation.0,
            share_percent: slot.map_or(100, |slot| self.shared.board.share(slot).percent()),
            out: slot.is_some_and(|slot| self.shared.board.is_out(slot)),
            outcomes: slot.map(|slot| outcomes(self.shared.loads.evidence(slot))).unwrap_or_default(),
        }
    }
}
