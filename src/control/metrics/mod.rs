//! `/metrics`: every counter that lanes keep, and what control knows beside, as OpenMetrics.
//!
//! A lane's number is `sealane_<module>_<name>` with labels `lane` and, for the link layer, `port`; a counter's name ends in `_total`, and
//! what a lane counts in nanoseconds is shown in seconds. Counters that are reasons of one thing are one metric with a label `reason`, which is
//! what the connection log says, too. What is counted of virtual services and servers is shown as the sum over lanes. The numbers are read when
//! somebody asks, so that asking is all that metrics cost.

mod family;
mod ports;
mod servers;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::balance::{Board, Loads};
use crate::base::counter::Kind;
use crate::base::{EngineId, LaneId, PortId, UnixTime};
use crate::control::health;
use crate::control::keys::{Alarm, Alarms, file};
use crate::control::metrics::family::{Families, Family, Labels, encode_times};
use crate::control::publish::{Placed, PlacedPool, PlacedService};
use crate::lane::handle::Queue;
use crate::lane::{self, Handle};
use crate::nic::Reports;
use crate::relay::Doer;
use crate::ticket::KeyId;
use crate::ticket::ring::State;
use crate::tls::ticketer::Ledgers;

/// The media type of what [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of what [`classic`] makes of it.
pub const CLASSIC_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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
        /// Captures begun
        counter captures,
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
        /// Times that the kernel refused an interface or a route
        counter kernel_refusals,
    }
}

/// What control shows to whoever asks, as of its last look.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The configuration that is in force.
    pub configuration_version: u64,
    /// Its virtual services.
    pub services: Vec<PlacedService>,
    /// Its pools.
    pub pools: Vec<PlacedPool>,
    /// Its servers.
    pub servers: Vec<Placed>,
    /// What their monitors say of them.
    pub health: health::Table,
    /// Virtual addresses that it announces to routing daemons while they are served.
    pub announceable: BTreeSet<IpAddr>,
    /// Those that it announces now.
    pub announced: BTreeSet<IpAddr>,
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
    everything: Everything,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Metrics over lanes, servers and control itself. `ports` are the names of the ports in their order, `engine` is this one.
    pub fn new(
        handles: &[Handle],
        engine: (EngineId, String),
        ports: Vec<String>,
        board: Arc<Board>,
        loads: Arc<Loads>,
        counters: Arc<Counters>,
        view: watch::Receiver<View>,
    ) -> Self {
        let lanes = handles.iter().map(|handle| (handle.lane, Arc::clone(&handle.counters))).collect();
        Self { everything: Everything { lanes, engine, ports, reports: None, board, loads, counters, view } }
    }

    /// And over what the ports say of themselves.
    #[must_use]
    pub fn with_ports(mut self, reports: Option<Arc<dyn Reports>>) -> Self {
        self.everything.reports = reports;
        self
    }

    /// The metrics as text, now.
    ///
    /// # Errors
    /// None that is known: writing to a string does not fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let mut registry = Registry::with_prefix("sealane");
        registry.register_collector(Box::new(self.everything.clone()));
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// OpenMetrics in the text format of before, for those who read nothing else: there a counter's name has its `_total` wherever it stands, and nothing is an
/// `info` or has a unit.
pub fn classic(text: &str) -> String {
    let counters: HashSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (mark, kind, name, rest) = (words.next(), words.next(), words.next(), words.next().unwrap_or_default());
        match (mark, kind, name) {
            (Some("#"), Some("EOF" | "UNIT"), _) => {}
            (Some("#"), Some("TYPE"), Some(name)) if rest == "info" => lines.push(format!("# TYPE {name}_info gauge")),
            (Some("#"), Some(kind), Some(name)) if counters.contains(name) => {
                lines.push(format!("# {kind} {name}_total {rest}"));
            }
            (Some("#"), Some("HELP"), Some("sealane_build")) => lines.push(format!("# HELP sealane_build_info {rest}")),
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

#[derive(Clone, Debug)]
struct Everything {
    lanes: Vec<(LaneId, Arc<lane::Counters>)>,
    engine: (EngineId, String),
    ports: Vec<String>,
    reports: Option<Arc<dyn Reports>>,
    board: Arc<Board>,
    loads: Arc<Loads>,
    counters: Arc<Counters>,
    view: watch::Receiver<View>,
}

impl Collector for Everything {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_lanes(&mut encoder)?;
        self.encode_lane_times(&mut encoder)?;
        self.encode_services(&mut encoder)?;
        self.encode_pools(&mut encoder)?;
        self.encode_servers(&mut encoder)?;
        self.encode_ports(&mut encoder)?;
        self.encode_control(&mut encoder)
    }
}

impl Everything {
    fn encode_lanes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::default();
        for (lane, counters) in &self.lanes {
            let of_lane = || vec![("lane", lane.0.to_string())];
            counters.read(&mut |module, port, reading| {
                let mut labels = of_lane();
                labels.extend(port.map(|port| ("port", self.port(port))));
                families.note(module, labels, reading);
            });
            self.note_ledgers(&mut families, &of_lane(), &counters.ledgers);
            // Shown also when they have never happened, so that the first one of a kind is seen as one.
            let may_fail = |doer| [Doer::Client, Doer::Engine].contains(&doer);
            for (end, count) in counters.failed_handshakes.read().filter(|(end, _)| may_fail(end.doer())) {
                let labels = [of_lane(), vec![("reason", end.name().to_owned())]].concat();
                let help = "TLS handshakes of clients that failed, by why";
                families.add("relay_handshakes_failed".to_owned(), help, Kind::Counter, labels, count);
            }
        }
        self.counters.read(&mut |reading| families.note("control", Vec::new(), reading));
        families.encode(encoder)
    }

    /// Tickets by key and by issuer. A key of which nothing is counted yet has no row.
    fn note_ledgers(&self, families: &mut Families, lane: &Labels, ledgers: &Ledgers) {
        let mut note = |family: &str, column: (&str, &'static str), label: (&'static str, String), count| {
            let labels = [lane.clone(), vec![label]].concat();
            families.add(format!("ticket_{family}_{}", column.0), column.1, Kind::Counter, labels, count);
        };
        ledgers.keys.read(&mut |key, counts| {
            // As many rows as a ring has keys: there are no others.
            let Some(key) = key else { return };
            for (column, count) in Ledgers::KEYS.into_iter().zip(counts) {
                note("key", column, ("key_id", hex::encode(key.to_be_bytes())), count);
            }
        });
        ledgers.issuers.read(&mut |issuer, counts| {
            for (column, count) in Ledgers::ISSUERS.into_iter().zip(counts) {
                note("issuer", column, ("issuer", self.issuer(issuer)), count);
            }
        });
    }

    /// An engine by name, as far as it is known here, as in the connection log.
    fn issuer(&self, id: Option<u64>) -> String {
        match id {
            None => "other".to_owned(),
            Some(id) if id == self.engine.0.0 => self.engine.1.clone(),
            Some(id) => format!("{id:016x}"),
        }
    }

    fn encode_lane_times(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let lane = |lane: &LaneId| ("lane", lane.0.to_string());
        let breaths: Vec<_> =
            self.lanes.iter().map(|(id, counters)| (vec![lane(id)], counters.times.breaths())).collect();
        let help = "How long breaths took that found something to do";
        encode_times("lane_breath", help, &breaths, encoder)?;
        let waits = self.lanes.iter().flat_map(|(id, counters)| {
            let waits = |queue: Queue| {
                (vec![lane(id), ("queue", queue.name().to_owned())], counters.times.waits(queue).times())
            };
            Queue::ALL.map(waits)
        });
        let help = "How long connections waited for their turn, from the breath in which they had something to do to that of their turn";
        encode_times("lane_run_queue_delay", help, &waits.collect::<Vec<_>>(), encoder)
    }

    fn port(&self, port: PortId) -> String {
        self.ports.get(usize::from(port.0)).cloned().unwrap_or_else(|| port.0.to_string())
    }

    fn encode_control(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let view = self.view.borrow();
        let gauge = |help, labels, value| Family::gauge(help, vec![(labels, value)]);
        gauge("Configuration version that control has published", Vec::new(), view.configuration_version)
            .encode("control_configuration_version", encoder)?;
        gauge("Whether the engine should be given clients", Vec::new(), u64::from(view.unfit.is_none()))
            .encode("control_fit", encoder)?;
        gauge("Version of the ticket key ring", Vec::new(), view.ring_version)
            .encode("ticket_ring_version", encoder)?;
        let active = view.active_key.map(|id| (vec![("key_id", hex::encode(id.0))], 1));
        Family::gauge("The ticket key that seals", active.into_iter().collect())
            .encode("ticket_active_key", encoder)?;
        let announced = view
            .announceable
            .iter()
            .map(|address| (vec![("address", address.to_string())], u64::from(view.announced.contains(address))));
        Family::gauge("Whether the virtual address is announced to routing daemons", announced.collect())
            .encode("announced", encoder)?;
        self.encode_keys(&view, encoder)?;
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        let mut build = encoder.encode_descriptor("build", "What is running", None, MetricType::Info)?;
        build.encode_info(&version)
    }
}

impl Everything {
    fn encode_keys(&self, view: &View, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let family = Family::gauge;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_before_has_the_same_samples() {
        let text = "# HELP sealane_a What.\n# TYPE sealane_a counter\nsealane_a_total{reason=\"x y\"} 1\n\
                    # HELP sealane_t_seconds Time.\n# TYPE sealane_t_seconds histogram\n# UNIT sealane_t_seconds seconds\n\
                    sealane_t_seconds_sum 1.0\n# HELP sealane_build What is running.\n# TYPE sealane_build info\n\
                    sealane_build_info{version=\"1\"} 1\n# EOF\n";
        let expected = "# HELP sealane_a_total What.\n# TYPE sealane_a_total counter\nsealane_a_total{reason=\"x y\"} 1\n\
                        # HELP sealane_t_seconds Time.\n# TYPE sealane_t_seconds histogram\n\
                        sealane_t_seconds_sum 1.0\n# HELP sealane_build_info What is running.\n# TYPE sealane_build_info gauge\n\
                        sealane_build_info{version=\"1\"} 1\n";
        assert_eq!(classic(text), expected);
    }
}
