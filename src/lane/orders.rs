//! Orders from control: taken once a breath, each as a whole.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::balance::{Backend, Pool, PoolDownAction};
use crate::base::{Instant, PoolId};
use crate::health::MonitoredPool;
use crate::lane::work::Front;
use crate::lane::{Lane, Order, Snapshot};
use crate::nic::QueuePair;
use crate::relay::Service;
use crate::tcp::Token;

impl<Q: QueuePair, C> Lane<Q, C> {
    pub(super) fn take_orders(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(order) = self.handle.inbox.pop() {
            any = true;
            match order {
                Order::Configure(snapshot) => self.configure(*snapshot, now),
                Order::Ring(ring) => {
                    self.counters.lane.ring_version.set(ring.version());
                    self.desk.set_ring(ring);
                }
                Order::Capture(tap) => self.station.captures.begin(tap, now),
                Order::Drain => self.drain(),
            }
        }
        any
    }

    fn configure(&mut self, snapshot: Snapshot, now: Instant) {
        self.station.configure(snapshot.ports);
        self.loads.configure(snapshot.pools.iter().map(|monitored| &*monitored.pool));
        self.begin_drains(&snapshot.pools, now);
        self.turn_away_waiting(&snapshot.pools, now);
        self.targets = snapshot.targets.into_iter().collect();
        let backends = self.backends(&snapshot.pools);
        let old = std::mem::take(&mut self.fronts);
        for address in old.values().flat_map(|front| &front.service.addresses) {
            if !snapshot.services.iter().any(|service| service.addresses.contains(address)) {
                self.station.stack.unlisten(*address);
            }
        }
        for service in snapshot.services {
            if let Some(backend) = backends.get(&service.tls.pool().id) {
                self.listen(&service);
                self.fronts.insert(service.id, Rc::new(Front { backend: Rc::clone(backend), service }));
            }
        }
        self.configure_recall();
        if let Some(shares) = &mut self.shares {
            shares.configure(snapshot.pools.iter().map(|monitored| &monitored.pool), now);
        }
        if let Some(probes) = &mut self.probes {
            probes.monitors.configure(&snapshot.pools, now);
        }
        self.counters.lane.configuration_version.set(snapshot.version);
    }

    /// Every pool as this lane uses it.
    fn backends(&mut self, pools: &[MonitoredPool]) -> HashMap<PoolId, Rc<Backend>> {
        let mut backend = |pool: &Arc<Pool>| {
            let random = self.station.random.fork();
            let backend = Backend::new(Arc::clone(pool), Arc::clone(&self.board), Rc::clone(&self.loads), random);
            let backup = match pool.failover.pool_down_action {
                PoolDownAction::BackupPool(backup) => pools.iter().find(|monitored| monitored.pool.id == backup),
                PoolDownAction::Reset | PoolDownAction::TlsAlert => None,
            };
            match backup {
                Some(backup) => backend.backed_by(Arc::clone(&backup.pool), self.station.random.fork()),
                None => backend,
            }
        };
        pools.iter().map(|MonitoredPool { pool, .. }| (pool.id, Rc::new(backend(pool)))).collect()
    }

    /// An address may have moved from one service to another: its listener carries the service's identity.
    fn listen(&mut self, service: &Arc<Service>) {
        if self.draining {
            return;
        }
        for address in &service.addresses {
            self.station.stack.unlisten(*address);
            let listening = self.station.stack.listen(*address, Token(service.id.0));
            debug_assert!(listening.is_ok(), "control lets no two services have one address");
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        for address in self.fronts.values().flat_map(|front| &front.service.addresses) {
            self.station.stack.unlisten(*address);
        }
    }
}
