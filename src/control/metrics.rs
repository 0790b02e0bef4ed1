//! `/metrics`: every counter that lanes keep, and what control knows beside, as OpenMetrics.
//!
//! A lane's number is `sealane_<module>_<name>` with labels `lane` and, for the link layer, `port`; a counter's name ends in `_total`, and
//! what a lane counts in nanoseconds is shown in seconds. The numbers are read when somebody asks, so that asking is all that metrics cost.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use crate::balance::{Board, Health, Loads};
use crate::base::counter::{Kind, Reading};
use crate::base::{LaneId, PortId, UnixTime};
use crate::control::health;
use crate::control::keys::{Alarm, Alarms, file};
use crate::control::publish::Placed;
use crate::health::Answer;
use crate::lane::{self, Handle};
use crate::ticket::KeyId;
use crate::ticket::ring::State;

/// The media type of what [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

crate::counters! {
    /// What control counts.
    pub struct Counters {
        /// Reloads that put a new configuration in force
        counter reloads,
        /// Reloads that were refused
        counter reloads_refused,
        /// Changes over the API that are in force
        counter changes,
        /// Changes over the API that were refused
        counter changes_refused,
        /// Connection records written to the log
        counter records_written,
        /// Connection records left out of the log because there were too many in one second
        counter records_left_out,
        /// Connection records lost because the log could not be written
        counter records_failed,
        /// Orders that a lane's inbox had no room for at once
        counter orders_delayed,
        /// Ticket key rings that were given to lanes
        counter rings,
        /// Times that the source of ticket keys had no good ring to give
        counter rings_failed,
        /// Alarms about ticket keys that were raised
        counter ring_alarms,
        /// Changes of a server's health
        counter health_changes,
    }
}

/// What control shows to whoever asks, as of its last look.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The configuration that is in force.
    pub configuration_version: u64,
    /// Its servers.
    pub servers: Vec<Placed>,
    /// What their monitors say of them.
    pub health: health::Table,
    /// The version of the ticket key ring.
    pub ring_version: u64,
    /// The key that seals.
    pub active_key: Option<KeyId>,
    /// Every key of it, its state, and when it was activated or else made.
    pub keys: Vec<(KeyId, State, UnixTime)>,
    /// What is wrong with the ring.
    pub ring_alarms: Alarms,
    /// Whether this engine leads the mirror of keys, and how many engines live; `None` where there is none.
    pub ring_cluster: Option<(bool, usize)>,
    /// Why the engine should not be given clients; `None` when it should.
    pub unfit: Option<String>,
}

/// Everything that `/metrics` shows.
pub struct Metrics {
    registry: Registry,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Metrics over lanes, servers and control itself. `ports` are the names of the ports in their order.
    pub fn new(
        handles: &[Handle],
        ports: Vec<String>,
        board: Arc<Board>,
        loads: Arc<Loads>,
        counters: Arc<Counters>,
        view: watch::Receiver<View>,
    ) -> Self {
        let lanes = handles.iter().map(|handle| (handle.lane, Arc::clone(&handle.counters))).collect();
        let mut registry = Registry::with_prefix("sealane");
        registry.register_collector(Box::new(Everything { lanes, ports, board, loads, counters, view }));
        Self { registry }
    }

    /// The metrics as text, now.
    ///
    /// # Errors
    /// None that is known: writing to a string does not fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct Everything {
    lanes: Vec<(LaneId, Arc<lane::Counters>)>,
    ports: Vec<String>,
    board: Arc<Board>,
    loads: Arc<Loads>,
    counters: Arc<Counters>,
    view: watch::Receiver<View>,
}

type Labels = Vec<(&'static str, String)>;

/// One metric with its values. A family must stand together, while lanes are read one after the other.
struct Family {
    help: &'static str,
    kind: Kind,
    values: Vec<(Labels, u64)>,
}

impl Collector for Everything {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_lanes(&mut encoder)?;
        self.encode_servers(&mut encoder)?;
        self.encode_control(&mut encoder)
    }
}

impl Everything {
    fn encode_lanes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut note = |module: &str, labels: Labels, reading: Reading| {
            let Reading { name, help, kind, value } = reading;
            let family = families.entry(format!("{module}_{name}"));
            family.or_insert(Family { help, kind, values: Vec::new() }).values.push((labels, value));
        };
        for (lane, counters) in &self.lanes {
            counters.read(&mut |module, port, reading| {
                let mut labels = vec![("lane", lane.0.to_string())];
                labels.extend(port.map(|port| ("port", self.port(port))));
                note(module, labels, reading);
            });
        }
        self.counters.read(&mut |reading| note("control", Vec::new(), reading));
        families.iter().try_for_each(|(name, family)| family.encode(name, encoder))
    }

    fn port(&self, port: PortId) -> String {
        self.ports.get(usize::from(port.0)).cloned().unwrap_or_else(|| port.0.to_string())
    }

    fn encode_servers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let view = self.view.borrow();
        let family = |help, value: &dyn Fn(&Placed) -> u64| Family {
            help,
            kind: Kind::Gauge,
            values: view
                .servers
                .iter()
                .map(|server| (vec![("pool", server.pool.clone()), ("server", server.server.clone())], value(server)))
                .collect(),
        };
        let is_up = |server: &Placed| u64::from(self.board.health(server.slot).is_usable());
        let is_known = |server: &Placed| u64::from(self.board.verdict(server.slot) != Health::Unknown);
        let connections = |server: &Placed| self.loads.total(server.slot);
        let is_maintained = |server: &Placed| u64::from(self.board.health(server.slot) == Health::Maintenance);
        family("Whether new clients may be sent to the server", &is_up).encode("server_up", encoder)?;
        family("Whether the server says that it is in maintenance", &is_maintained)
            .encode("server_in_maintenance", encoder)?;
        family("Whether a health monitor has judged the server", &is_known).encode("server_monitored", encoder)?;
        let waiting = |server: &Placed| self.loads.waiting(server.slot).into();
        family("Connections open to the server", &connections).encode("server_connections", encoder)?;
        family("Clients that wait for a place at the server", &waiting).encode("server_waiting", encoder)?;
        encode_probes(&view, encoder)?;
        self.encode_shares(&view.servers, encoder)?;
        self.encode_limits(&view.servers, encoder)
    }

    fn encode_shares(&self, servers: &[Placed], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let family = |help, kind, value: &dyn Fn(&Placed) -> u64| {
            let labels = |server: &Placed| vec![("pool", server.pool.clone()), ("server", server.server.clone())];
            Family { help, kind, values: servers.iter().map(|server| (labels(server), value(server))).collect() }
        };
        let (gauge, counter) = (Kind::Gauge, Kind::Counter);
        let share = |server: &Placed| u64::from(self.board.share(server.slot).parts()) * 100 / 256;
        family("What part of its ratio the server gets of new clients, in percent", gauge, &share)
            .encode("server_share_percent", encoder)?;
        let is_out = |server: &Placed| u64::from(self.board.is_out(server.slot));
        family("Whether the server is taken out for failures of live connections", gauge, &is_out)
            .encode("server_out", encoder)?;
        let evidence = |server: &Placed| self.loads.evidence(server.slot);
        family("Connections that the server has answered or ended in order", counter, &|one| evidence(one).successes)
            .encode("server_successes", encoder)?;
        let help = "Connections that could not be made to the server, or broke before its first byte";
        family(help, counter, &|one| evidence(one).failures).encode("server_failures", encoder)?;
        family("Times to the server's first byte that were measured", counter, &|one| evidence(one).answers)
            .encode("server_answers", encoder)?;
        let help = "What clients have waited for the server's first byte";
        family(help, counter, &|one| evidence(one).answer_micros.saturating_mul(1000))
            .encode("server_answer_nanoseconds", encoder)
    }

    fn encode_limits(&self, servers: &[Placed], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let limit = |server: &Placed| {
            let labels = vec![("pool", server.pool.clone()), ("server", server.server.clone())];
            Some((labels, self.loads.limit(server.slot)?.into()))
        };
        let help = "Most connections that the server has at once, where it has a limit";
        Family { help, kind: Kind::Gauge, values: servers.iter().filter_map(limit).collect() }
            .encode("server_connections_max", encoder)
    }

    fn encode_control(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let view = self.view.borrow();
        let gauge = |help, labels, value| Family { help, kind: Kind::Gauge, values: vec![(labels, value)] };
        gauge("Configuration version that control has published", Vec::new(), view.configuration_version)
            .encode("control_configuration_version", encoder)?;
        gauge("Whether the engine should be given clients", Vec::new(), u64::from(view.unfit.is_none()))
            .encode("control_fit", encoder)?;
        gauge("Version of the ticket key ring", Vec::new(), view.ring_version)
            .encode("ticket_ring_version", encoder)?;
        let active = view.active_key.map(|id| (vec![("key_id", hex::encode(id.0))], 1));
        Family { help: "The ticket key that seals", kind: Kind::Gauge, values: active.into_iter().collect() }
            .encode("ticket_active_key", encoder)?;
        self.encode_keys(&view, encoder)?;
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        let mut build = encoder.encode_descriptor("build", "What is running", None, MetricType::Info)?;
        build.encode_info(&version)
    }
}

impl Everything {
    fn encode_keys(&self, view: &View, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let family = |help, values: Vec<(Labels, u64)>| Family { help, kind: Kind::Gauge, values };
        let states = [State::Pending, State::Active, State::Retiring].map(|state| {
            let count = view.keys.iter().filter(|(_, other, _)| *other == state).count();
            (vec![("state", file::state_name(state).to_owned())], u64::try_from(count).unwrap_or(u64::MAX))
        });
        family("Ticket keys in the ring", states.into()).encode("ticket_keys", encoder)?;
        let since = view.keys.iter().map(|(id, state, since)| {
            (vec![("key_id", hex::encode(id.0)), ("state", file::state_name(*state).to_owned())], since.0)
        });
        family("When the ticket key was activated, or made if it never was, in seconds since 1970", since.collect())
            .encode("ticket_key_since_seconds", encoder)?;
        let cluster = |value: &dyn Fn((bool, usize)) -> u64| {
            view.ring_cluster.map(|cluster| (Labels::new(), value(cluster))).into_iter().collect::<Vec<_>>()
        };
        let engines = |(_, engines)| u64::try_from(engines).unwrap_or(u64::MAX);
        family("Whether this engine rotates the cluster's ticket keys", cluster(&|(leads, _)| u64::from(leads)))
            .encode("ticket_leader", encoder)?;
        family("Engines that mirror the cluster's ticket keys", cluster(&engines)).encode("ticket_engines", encoder)?;
        let alarms = Alarm::ALL
            .map(|alarm| (vec![("alarm", alarm.name().to_owned())], u64::from(view.ring_alarms.contains(&alarm))));
        family("Whether something is wrong with ticket keys, while clients are served all the same", alarms.into())
            .encode("ticket_alarm", encoder)
    }
}

/// What each monitor last found of each server, and since when.
fn encode_probes(view: &View, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (mut found, mut since) = (Vec::new(), Vec::new());
    for seen in view.servers.iter().filter_map(|server| view.health.of(server.slot)) {
        let server = [("pool", seen.verdict.pool.clone()), ("server", seen.verdict.server.clone())];
        for finding in &seen.verdict.findings {
            let monitor = ("monitor", finding.monitor.clone());
            let labels = || server.iter().cloned().chain([monitor.clone()]);
            let (is_well, last) = match finding.last {
                None => (0, "nothing yet".to_owned()),
                Some(Ok(Answer::Normal)) => (1, "well".to_owned()),
                Some(Ok(Answer::Maintenance)) => (0, "maintenance".to_owned()),
                Some(Err(cause)) => (0, cause.to_string()),
            };
            found.push((labels().chain([("last", last)]).collect(), is_well));
            since.push((labels().collect(), seen.since_of(finding).0));
        }
    }
    let family = |help, values| Family { help, kind: Kind::Gauge, values };
    family("Whether the monitor's last probe found the server well, and what it found", found)
        .encode("server_probe_well", encoder)?;
    family("Since when the monitor's probes have found the same, in seconds since 1970", since)
        .encode("server_probe_since_seconds", encoder)
}

impl Family {
    fn encode(&self, name: &str, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, is_time) = name.strip_suffix("_nanoseconds").map_or((name, false), |name| (name, true));
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        };
        let unit = is_time.then_some(&Unit::Seconds);
        let mut metric = encoder.encode_descriptor(name, self.help, unit, kind)?;
        for (labels, value) in &self.values {
            // A family of no labels would be written with empty braces.
            if labels.is_empty() {
                self.encode_value(&mut metric, *value, is_time)?;
            } else {
                self.encode_value(&mut metric.encode_family(labels)?, *value, is_time)?;
            }
        }
        Ok(())
    }

    fn encode_value(&self, metric: &mut MetricEncoder<'_>, value: u64, is_time: bool) -> fmt::Result {
        match (self.kind, is_time) {
            (Kind::Counter, false) => metric.encode_counter::<NoLabelSet, u64, u64>(&value, None),
            (Kind::Counter, true) => metric.encode_counter::<NoLabelSet, f64, u64>(&seconds(value), None),
            (Kind::Gauge, false) => metric.encode_gauge(&value),
            (Kind::Gauge, true) => metric.encode_gauge(&seconds(value)),
        }
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    std::time::Duration::from_nanos(nanoseconds).as_secs_f64()
}
