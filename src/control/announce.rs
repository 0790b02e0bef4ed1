//! Which virtual addresses an engine announces: those of which at least one service can be served, while it wants clients at all.
//!
//! A service can be served while its pool has as many servers enabled and up as it needs, or, where that is what `pool_down_action` says, its backup has. A server that
//! monitors look at is up when they have found it so, not before they have looked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::balance::{Board, Health, PoolDownAction, Slot, State};
use crate::base::PoolId;
use crate::control::config::Configuration;
use crate::control::kernel::{Interface, Route};
use crate::lane::Snapshot;

/// What a configuration announces, and what that depends on.
#[derive(Debug, Default)]
pub struct Announcer {
    routes: Vec<(Route, PoolId)>,
    pools: BTreeMap<PoolId, Pool>,
}

#[derive(Debug)]
struct Pool {
    servers_up_min: usize,
    /// Servers that are enabled, and whether any monitor looks at them.
    servers: Vec<(Slot, bool)>,
    backup: Option<PoolId>,
}

impl Announcer {
    /// For a configuration and the snapshot that was made of it.
    pub fn new(configuration: &Configuration, snapshot: &Snapshot) -> Self {
        let Some(announce) = &configuration.engine.announce else { return Self::default() };
        let pools = snapshot.pools.iter().map(|monitored| {
            let is_monitored = !monitored.monitors.is_empty();
            let enabled = monitored.pool.servers.iter().filter(|server| server.state == State::Enabled);
            let failover = &monitored.pool.failover;
            let pool = Pool {
                servers_up_min: usize::from(failover.servers_up_min.max(1)),
                servers: enabled.map(|server| (server.slot, is_monitored)).collect(),
                backup: match failover.pool_down_action {
                    PoolDownAction::BackupPool(backup) => Some(backup),
                    PoolDownAction::Reset | PoolDownAction::TlsAlert => None,
                },
            };
            (monitored.pool.id, pool)
        });
        let mut routes = Vec::new();
        for service in &configuration.services {
            for address in service.addresses.iter().map(|address| address.ip()) {
                let interface = interface_for(configuration, address);
                let route = |interface| Route { address, interface, table: announce.table };
                routes.extend(interface.map(|interface| (route(interface), service.pool.id)));
            }
        }
        Self { routes, pools: pools.collect() }
    }

    /// What is to be announced while servers are as the board says.
    pub fn routes(&self, board: &Board) -> BTreeSet<Route> {
        let served: BTreeSet<PoolId> = self.pools.keys().copied().filter(|pool| self.is_served(*pool, board)).collect();
        self.routes.iter().filter(|(_, pool)| served.contains(pool)).map(|(route, _)| route.clone()).collect()
    }

    /// Every address that may be announced.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.routes.iter().map(|(route, _)| route.address).collect()
    }

    fn is_served(&self, id: PoolId, board: &Board) -> bool {
        let Some(pool) = self.pools.get(&id) else { return false };
        // A backup has no backup of its own.
        pool.is_up(board)
            || pool.backup.and_then(|backup| self.pools.get(&backup)).is_some_and(|backup| backup.is_up(board))
    }
}

impl Pool {
    fn is_up(&self, board: &Board) -> bool {
        let is_up = |(slot, is_monitored): &&(Slot, bool)| match board.health(*slot) {
            Health::Up => true,
            Health::Unknown => !is_monitored,
            Health::Maintenance | Health::Down => false,
        };
        self.servers.iter().filter(is_up).take(self.servers_up_min).count() >= self.servers_up_min
    }
}

/// The kernel's interface beside the port that answers for an address: the one in whose networks it is, else the first of its family.
fn interface_for(configuration: &Configuration, address: IpAddr) -> Option<String> {
    let beside = || configuration.ports.iter().filter_map(|port| Some((port, port.kernel.as_ref()?)));
    let is_on_link = configuration.ports.iter().any(|port| port.is_on_link(address));
    let found =
        beside().find(|(port, _)| if is_on_link { port.is_on_link(address) } else { port.speaks_family_of(address) });
    found.map(|(_, kernel)| kernel.interface.clone())
}

/// Interfaces beside ports that the engine brings up itself.
pub fn interfaces(configuration: &Configuration) -> Vec<Interface> {
    let beside = configuration.ports.iter().filter_map(|port| Some((port, port.kernel.as_ref()?)));
    beside
        .filter(|(_, kernel)| kernel.addresses)
        .map(|(port, kernel)| Interface {
            name: kernel.interface.clone(),
            mtu: port.mtu,
            addresses: port.addresses.clone(),
        })
        .collect()
}
