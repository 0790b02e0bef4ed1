//! Metrics of virtual services, pools and servers.

use std::collections::HashMap;
use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use crate::balance::{Fault, Health, Slot, State};
use crate::base::counter::{Kind, Reading};
use crate::control::metrics::family::{Families, Family, Labels};
use crate::control::metrics::{Everything, View};
use crate::control::publish::{Placed, PlacedPool, PlacedService};
use crate::health::Answer;
use crate::relay::tally::Ends;
use crate::relay::{End, Tally};

impl Everything {
    pub(super) fn encode_services(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let view = self.view.borrow();
        let pools: HashMap<_, _> = view.pools.iter().map(|pool| (pool.name.as_str(), pool)).collect();
        let mut families = Families::default();
        for service in &view.services {
            let labels = || vec![("service", service.name.clone())];
            let mut readings: Vec<Reading> = Vec::new();
            for tally in &service.tallies {
                let mut place = 0;
                tally.counters.read(&mut |reading| {
                    // Every lane's are in the same order.
                    match readings.get_mut(place) {
                        Some(sum) => sum.value = sum.value.saturating_add(reading.value),
                        None => readings.push(reading),
                    }
                    place += 1;
                });
            }
            readings.into_iter().for_each(|reading| families.note("service", labels(), reading));
            let mut add = |name: &str, help, kind, more: Labels, value| {
                families.add(format!("service_{name}"), help, kind, [labels(), more].concat(), value);
            };
            let is_up = pools.get(service.pool.as_str()).is_some_and(|pool| self.is_up(pool));
            let help = "Whether the service's pool is up, a backup not looked at";
            add("up", help, Kind::Gauge, Vec::new(), is_up.into());
            for (end, count) in happened(service, |tally| &tally.ended) {
                let more = vec![("by", end.doer().name().to_owned()), ("reason", end.name().to_owned())];
                add("ended", "Connections that ended, by whose doing and why", Kind::Counter, more, count);
            }
            for (end, count) in happened(service, |tally| &tally.failed) {
                let more = vec![("reason", end.name().to_owned())];
                add("handshakes_failed", "TLS handshakes that failed, by why", Kind::Counter, more, count);
            }
        }
        families.encode(encoder)
    }

    pub(super) fn encode_pools(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let view = self.view.borrow();
        let family = |help, value: &dyn Fn(&PlacedPool) -> u64| {
            Family::gauge(
                help,
                view.pools.iter().map(|pool| (vec![("pool", pool.name.clone())], value(pool))).collect(),
            )
        };
        family("Whether as many of the pool's servers are enabled and up as it needs", &|pool| self.is_up(pool).into())
            .encode("pool_up", encoder)?;
        let enabled = |pool: &PlacedPool| u64::try_from(pool.enabled.len()).unwrap_or(u64::MAX);
        family("Servers of the pool that are enabled", &enabled).encode("pool_servers_enabled", encoder)?;
        family("Servers of the pool that are enabled and up", &|pool| self.usable(pool))
            .encode("pool_servers_up", encoder)?;
        family("Servers that must be enabled and up for the pool to be up", &|pool| pool.servers_up_min.into())
            .encode("pool_servers_up_min", encoder)
    }

    fn usable(&self, pool: &PlacedPool) -> u64 {
        let is_usable = |slot: &&Slot| self.board.health(**slot).is_usable();
        u64::try_from(pool.enabled.iter().filter(is_usable).count()).unwrap_or(u64::MAX)
    }

    fn is_up(&self, pool: &PlacedPool) -> bool {
        self.usable(pool) >= u64::from(pool.servers_up_min.max(1))
    }

    pub(super) fn encode_servers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let view = self.view.borrow();
        let family = |help, value: &dyn Fn(&Placed) -> u64| {
            Family::gauge(help, view.servers.iter().map(|server| (labels(server), value(server))).collect())
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
        let state = |server: &Placed| {
            let name = match server.state {
                State::Enabled => "enabled",
                State::Draining(_) => "draining",
                State::Disabled => "disabled",
            };
            ([labels(server), vec![("state", name.to_owned())]].concat(), 1)
        };
        Family::gauge("What the operator says of the server", view.servers.iter().map(state).collect())
            .encode("server_state", encoder)?;
        encode_probes(&view, encoder)?;
        self.encode_shares(&view, encoder)?;
        self.encode_traffic(&view, encoder)?;
        self.encode_limits(&view, encoder)
    }

    fn encode_shares(&self, view: &View, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let values = |value: &dyn Fn(&Placed) -> u64| {
            view.servers.iter().map(|server| (labels(server), value(server))).collect::<Vec<_>>()
        };
        let share = |server: &Placed| u64::from(self.board.share(server.slot).parts()) * 100 / 256;
        Family::gauge("What part of its ratio the server gets of new clients, in percent", values(&share))
            .encode("server_share_percent", encoder)?;
        let is_out = |server: &Placed| u64::from(self.board.is_out(server.slot));
        Family::gauge("Whether the server is taken out for failures of live connections", values(&is_out))
            .encode("server_out", encoder)?;
        let evidence = |server: &Placed| self.loads.evidence(server.slot);
        let help = "Connections that the server has answered or ended in order";
        Family::counter(help, values(&|one| evidence(one).successes)).encode("server_successes", encoder)?;
        let help = "Connections that could not be made to the server, or broke before its first byte";
        Family::counter(help, values(&|one| evidence(one).failures)).encode("server_failures", encoder)?;
        let help = "Times to the server's first byte that were measured";
        Family::counter(help, values(&|one| evidence(one).answers)).encode("server_answers", encoder)?;
        let help = "What clients have waited for the server's first byte";
        Family::counter(help, values(&|one| evidence(one).answer_micros.saturating_mul(1000)))
            .encode("server_answer_nanoseconds", encoder)
    }

    fn encode_traffic(&self, view: &View, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (mut opened, mut bytes, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for server in view.servers.iter() {
            let traffic = self.loads.traffic(server.slot);
            let with = |key, value: &str| [labels(server), vec![(key, value.to_owned())]].concat();
            opened.push((labels(server), traffic.connections));
            bytes.push((with("direction", "to"), traffic.bytes_to));
            bytes.push((with("direction", "from"), traffic.bytes_from));
            faults.extend(
                Fault::ALL.iter().zip(traffic.faults).map(|(fault, count)| (with("reason", fault.name()), count)),
            );
        }
        Family::counter("Connections begun to the server for clients", opened)
            .encode("server_connections_opened", encoder)?;
        let help = "Bytes of application data that went to the server and came from it, counted in steps of 64 KiB and at a connection's end";
        Family::counter(help, bytes).encode("server_bytes", encoder)?;
        Family::counter("Connections that the server failed, and attempts at them, by how", faults)
            .encode("server_faults", encoder)
    }

    fn encode_limits(&self, view: &View, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let limit = |server: &Placed| Some((labels(server), self.loads.limit(server.slot)?.into()));
        let help = "Most connections that the server has at once, where it has a limit";
        Family::gauge(help, view.servers.iter().filter_map(limit).collect()).encode("server_connections_max", encoder)
    }
}

/// The ends that have ever happened, over all lanes: most never do.
fn happened(service: &PlacedService, ends: impl Fn(&Tally) -> &Ends) -> Vec<(End, u64)> {
    let mut sums = End::ALL.map(|end| (end, 0_u64));
    for tally in &service.tallies {
        for ((_, sum), (_, count)) in sums.iter_mut().zip(ends(tally).read()) {
            *sum = sum.saturating_add(count);
        }
    }
    sums.into_iter().filter(|(_, sum)| *sum > 0).collect()
}

fn labels(server: &Placed) -> Labels {
    vec![("pool", server.pool.clone()), ("server", server.server.clone())]
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
    Family::gauge("Whether the monitor's last probe found the server well, and what it found", found)
        .encode("server_probe_well", encoder)?;
    Family::gauge("Since when the monitor's probes have found the same, in seconds since 1970", since)
        .encode("server_probe_since_seconds", encoder)
}
