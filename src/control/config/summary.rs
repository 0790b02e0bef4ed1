//! What a configuration says, in a few lines for a person.

use std::fmt;

use super::model::{Configuration, KeySource};
use super::pools;
use crate::balance::PoolDownAction;
use crate::tls::client::Trust;

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = &self.engine;
        let lanes = engine.cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        writeln!(
            f,
            "engine {} of cluster {}: lanes on cores {lanes}, control on core {}",
            engine.name, engine.cluster, engine.control_core
        )?;
        for port in &self.ports {
            writeln!(f, "port {}: {}", port.name, list(&port.addresses))?;
        }
        for service in &self.services {
            let profile = service
                .profile
                .as_ref()
                .map_or("no persistence".to_owned(), |profile| format!("persistence {}", profile.name));
            let certificates = service.certificates.len();
            writeln!(
                f,
                "virtual service {}: {} to pool {}, {profile}, {certificates} certificate{}",
                service.name,
                list(&service.addresses),
                service.pool.name,
                if certificates == 1 { "" } else { "s" }
            )?;
        }
        for pool in &self.pools {
            let names = pool.monitors.iter().map(|monitor| monitor.name.as_str()).collect::<Vec<_>>().join(", ");
            let monitor = match pool.monitors.len() {
                0 => "not monitored".to_owned(),
                1 => format!("monitor {names}"),
                all if pool.monitors_up_min == all => format!("monitors {names}"),
                _ => format!("monitors {names}, {} of which must find a server up", pool.monitors_up_min),
            };
            let servers = pool
                .servers
                .iter()
                .map(|server| format!("{} {}", server.name, server.address))
                .collect::<Vec<_>>()
                .join(", ");
            let backup = match pool.failover.pool_down_action {
                PoolDownAction::BackupPool(backup) => self.pools.iter().find(|pool| pool.id == backup),
                PoolDownAction::Reset | PoolDownAction::TlsAlert => None,
            };
            let backup = backup.map_or(String::new(), |backup| format!("; backup pool {}", backup.name));
            let algorithm = pools::algorithm_name(pool.algorithm);
            let tls = match pool.tls.as_ref().map(|tls| &tls.settings.trust) {
                Some(Trust::Authorities(_)) => "; in TLS, verified",
                Some(Trust::Anyone) => "; in TLS, not verified",
                None => "",
            };
            writeln!(f, "pool {}: {servers}; {algorithm}, {monitor}{backup}{tls}", pool.name)?;
        }
        let keys = &self.ticket_keys;
        let source = match &keys.source {
            KeySource::Own(None) => "made by the engine, lost with a restart".to_owned(),
            KeySource::Own(Some(file)) => format!("made by the engine, kept in {}", file.display()),
            KeySource::File(file) => format!("read from {}", file.display()),
            KeySource::Etcd(etcd) => {
                format!("those of the cluster, in etcd at {} under {}", etcd.endpoints.join(" "), etcd.prefix)
            }
        };
        let [rotation, lifetime] = [keys.schedule.rotation(), keys.schedule.lifetime()].map(humantime::format_duration);
        write!(f, "ticket keys: {source}; rotated every {rotation}, tickets live {lifetime}")
    }
}

fn list<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
