//! Makes snapshots for lanes of a configuration: one for each lane, so that lanes share no reference count.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use smoltcp::wire::EthernetAddress;

use crate::balance::{self, Board, Loads, Maglev, Slot, Slots, State, slots::SlotsFull};
use crate::base::{PoolId, ServiceId};
use crate::control::config::{Configuration, KeySource, Pool, Port, SERVERS_MAX, TicketKeys, VirtualService};
use crate::control::keys::inspect;
use crate::control::{config, identity};
use crate::health::{Monitor, MonitoredPool};
use crate::lane::Snapshot;
use crate::persistence::Profile;
use crate::relay::Tally;
use crate::ticket::{Schedule, Scope};
use crate::tls::client::{Connector, Target};
use crate::tls::secrets::Secrets;
use crate::{link, relay, tcp, tls};

/// Places on the health board: as many as one configuration may use, and as many again for servers that reloads bring while connections to others go on.
pub const SLOTS_MAX: usize = 2 * SERVERS_MAX;

/// Most neighbours that a lane remembers on one port.
const NEIGHBOURS_MAX: usize = 4096;
/// Most packets kept a neighbour while it is being resolved (RFC 1122 2.3.2.2 asks for one at least).
const PENDING_MAX: usize = 16;

/// What outlives every snapshot.
#[derive(Debug)]
pub struct Shared {
    /// Which servers are up.
    pub board: Arc<Board>,
    /// Connections open to each server.
    pub loads: Arc<Loads>,
    /// Which server has which place on both.
    pub slots: Slots,
    /// Tables of pools by [consistent hash](balance::Algorithm::ConsistentHash): one for all lanes, and the next snapshot's where nothing changes that it follows from.
    tables: HashMap<PoolId, Arc<Maglev>>,
    /// What lanes count of each virtual service, one a lane: the same across reloads, as long as the service is there or a connection to it is open.
    tallies: HashMap<ServiceId, Vec<Arc<Tally>>>,
    lanes: usize,
    /// Where each lane tells TLS secrets to captures, if the configuration allows that at all.
    pub(super) secrets: Vec<Arc<Secrets>>,
}

impl Shared {
    /// For an engine of `lanes` lanes.
    pub fn new(lanes: usize) -> Self {
        Self {
            board: Arc::new(Board::new(SLOTS_MAX)),
            loads: Arc::new(Loads::new(lanes, SLOTS_MAX)),
            slots: Slots::new(u32::try_from(SLOTS_MAX).unwrap_or(u32::MAX)),
            tables: HashMap::new(),
            tallies: HashMap::new(),
            lanes,
            secrets: Vec::new(),
        }
    }

    /// What `lane` counts of a virtual service.
    fn tally(&mut self, service: ServiceId, lane: usize) -> Arc<Tally> {
        let lanes = self.lanes;
        let tallies = self.tallies.entry(service).or_insert_with(|| (0..lanes).map(|_| Arc::default()).collect());
        tallies.get(lane).map(Arc::clone).unwrap_or_default()
    }

    /// What lanes count of a virtual service, one a lane.
    pub fn tallies(&self, service: ServiceId) -> &[Arc<Tally>] {
        self.tallies.get(&service).map_or(&[], Vec::as_slice)
    }
}

/// Why a configuration that holds by itself cannot be given to lanes.
#[derive(Debug, thiserror::Error)]
pub enum Unpublishable {
    /// Too many servers since the engine started.
    #[error(transparent)]
    Slots(#[from] SlotsFull),
    /// TLS towards a pool's servers stopped being possible after it had been proven.
    #[error("pool {pool:?}: {error}")]
    ServersTls {
        /// The pool.
        pool: String,
        /// What is wrong.
        error: tls::client::Invalid,
    },
    /// A service's TLS stopped being possible after it had been proven.
    #[error("virtual service {service:?}: {error}")]
    Tls {
        /// The virtual service.
        service: String,
        /// What is wrong.
        error: tls::service::Invalid,
    },
}

/// A server of the configuration in force and its place on the health board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Pool by name.
    pub pool: String,
    /// Server by name.
    pub server: String,
    /// Its place.
    pub slot: Slot,
    /// What the operator says of it.
    pub state: State,
}

/// A pool of the configuration in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedPool {
    /// Its name.
    pub name: String,
    /// It is down with fewer servers that are enabled and up.
    pub servers_up_min: u16,
    /// The places of its servers that are enabled.
    pub enabled: Vec<Slot>,
}

/// A virtual service of the configuration in force.
#[derive(Clone, Debug)]
pub struct PlacedService {
    /// Its name.
    pub name: String,
    /// Its pool by name.
    pub pool: String,
    /// What each lane counts of it.
    pub tallies: Vec<Arc<Tally>>,
}

/// One snapshot of `configuration` for each of `lanes` lanes. `macs` are the Ethernet addresses of its ports, in their order.
///
/// # Errors
/// [`Unpublishable`] says why there is none.
pub fn snapshots(
    configuration: &Configuration,
    version: u64,
    macs: &[EthernetAddress],
    shared: &mut Shared,
    lanes: usize,
) -> Result<Vec<Snapshot>, Unpublishable> {
    for slot in shared.slots.take_back() {
        shared.loads.forget(slot);
    }
    shared.tallies.retain(|_, tallies| tallies.iter().any(|tally| Arc::strong_count(tally) > 1));
    if configuration.engine.capture.tls_secrets {
        shared.secrets.resize_with(lanes, Arc::default);
    } else {
        shared.secrets.clear();
    }
    let snapshots: Vec<_> =
        (0..lanes).map(|lane| snapshot(configuration, version, macs, shared, lane)).collect::<Result<_, _>>()?;
    // Nothing can fail any more. A lane that counts by a limit follows it at once; one that a limit is new to begins to count with its snapshot.
    for pool in snapshots.iter().flat_map(|snapshot| &snapshot.pools).map(|monitored| &monitored.pool) {
        shared.slots.publish(pool);
        for server in &pool.servers {
            shared.loads.set_limit(server.slot, server.max_connections);
        }
    }
    Ok(snapshots)
}

fn snapshot(
    configuration: &Configuration,
    version: u64,
    macs: &[EthernetAddress],
    shared: &mut Shared,
    lane: usize,
) -> Result<Snapshot, Unpublishable> {
    let secrets = shared.secrets.get(lane).map(Arc::clone);
    let cluster = identity::cluster(&configuration.engine.cluster);
    let (mut pools, mut targets) = (Vec::new(), Vec::new());
    for pool in &configuration.pools {
        let placed = placed_pool(pool, &configuration.ticket_keys, shared)?;
        targets.extend(targets_of(pool, &placed, secrets.as_ref())?);
        let monitors = pool.monitors.iter().map(|monitor| Arc::new(Monitor::clone(monitor))).collect();
        pools.push(MonitoredPool { pool: Arc::new(placed), monitors, monitors_up_min: pool.monitors_up_min });
    }
    let mut services = Vec::new();
    for service in &configuration.services {
        let found = pools.iter().find(|monitored| monitored.pool.id == service.pool.id);
        let pool = match found {
            Some(monitored) => Arc::clone(&monitored.pool),
            None => Arc::new(placed_pool(&service.pool, &configuration.ticket_keys, shared)?),
        };
        let profile = service.profile.as_ref().map(|profile| Arc::new(Profile::clone(profile)));
        let tickets = tickets(service, &configuration.ticket_keys, cluster);
        let settings = tls_settings(service, tickets, pool, profile);
        let tls =
            tls::Service::new(settings).map_err(|error| Unpublishable::Tls { service: service.name.clone(), error })?;
        let tls = match &secrets {
            Some(secrets) => tls.telling(Arc::clone(secrets)),
            None => tls,
        };
        services.push(Arc::new(relay::Service {
            id: service.id,
            name: service.name.clone(),
            addresses: service.addresses.clone(),
            tls: Arc::new(tls),
            proxy_protocol: service.proxy_protocol,
            timeouts: service.timeouts,
            tally: shared.tally(service.id, lane),
        }));
    }
    let ports =
        configuration.ports.iter().zip(macs).map(|(port, mac)| link_settings(configuration, port, *mac)).collect();
    Ok(Snapshot { version, ports, services, pools, targets })
}

/// How to speak TLS to each server of the pool, if that is wanted. What is remembered of sessions with them begins anew.
fn targets_of(
    pool: &Pool,
    placed: &balance::Pool,
    secrets: Option<&Arc<Secrets>>,
) -> Result<Vec<(Slot, Arc<Target>)>, Unpublishable> {
    let Some(tls) = &pool.tls else { return Ok(Vec::new()) };
    let connector =
        Connector::new(&tls.settings).map_err(|error| Unpublishable::ServersTls { pool: pool.name.clone(), error })?;
    let connector = match secrets {
        Some(secrets) => connector.telling(Arc::clone(secrets)),
        None => connector,
    };
    let target = |server| Arc::new(connector.target(&tls.name_of(server)));
    Ok(pool.servers.iter().zip(&placed.servers).map(|(server, placed)| (placed.slot, target(server))).collect())
}

fn placed_pool(pool: &Pool, keys: &TicketKeys, shared: &mut Shared) -> Result<balance::Pool, SlotsFull> {
    let mut place = |server: &config::Server| {
        Ok(balance::Server {
            id: server.id,
            generation: server.generation,
            name: server.name.clone(),
            address: server.address,
            ratio: server.ratio,
            state: server.state,
            max_connections: server.max_connections,
            slot: shared.slots.assign(pool.id, server.id, server.generation)?,
        })
    };
    let servers = pool.servers.iter().map(&mut place).collect::<Result<_, SlotsFull>>()?;
    let table = shared.tables.get(&pool.id);
    let placed = balance::Pool::after(table, pool.id, pool.name.clone(), pool.algorithm, servers)
        .failing_over(pool.failover)
        .drained_for(pool.drain_admission)
        .sharing(pool.sharing);
    match placed.table() {
        Some(table) => shared.tables.insert(pool.id, Arc::clone(table)),
        None => shared.tables.remove(&pool.id),
    };
    let placed = if pool.tls.is_some() { placed.secured() } else { placed };
    // Keys that nobody else has are those of an engine that is alone.
    if matches!(keys.source, KeySource::Own(_)) {
        return Ok(placed);
    }
    let interval = pool.monitors.iter().map(|monitor| monitor.interval).max();
    Ok(placed.looked_at_every(interval.unwrap_or_default()))
}

/// Every server of a snapshot with its place.
pub fn placed(snapshot: &Snapshot) -> Vec<Placed> {
    let of_pool = |pool: &Arc<balance::Pool>| {
        let name = pool.name.clone();
        let place = move |server: &balance::Server| Placed {
            pool: name.clone(),
            server: server.name.clone(),
            slot: server.slot,
            state: server.state,
        };
        pool.servers.iter().map(place).collect::<Vec<_>>()
    };
    snapshot.pools.iter().flat_map(|monitored| of_pool(&monitored.pool)).collect()
}

/// Every pool of a snapshot.
pub fn placed_pools(snapshot: &Snapshot) -> Vec<PlacedPool> {
    let place = |pool: &balance::Pool| PlacedPool {
        name: pool.name.clone(),
        servers_up_min: pool.failover.servers_up_min,
        enabled: pool
            .servers
            .iter()
            .filter(|server| server.state == State::Enabled)
            .map(|server| server.slot)
            .collect(),
    };
    snapshot.pools.iter().map(|monitored| place(&monitored.pool)).collect()
}

/// Every virtual service of a configuration that has been published.
pub fn placed_services(configuration: &Configuration, shared: &Shared) -> Vec<PlacedService> {
    let place = |service: &VirtualService| PlacedService {
        name: service.name.clone(),
        pool: service.pool.name.clone(),
        tallies: shared.tallies(service.id).to_vec(),
    };
    configuration.services.iter().map(place).collect()
}

/// What a port answers for: its own addresses, and each virtual address that is in one of its networks. A virtual address in nobody's
/// network is routed to the engine by its neighbours; every port that speaks its family answers for it.
pub fn link_settings(configuration: &Configuration, port: &Port, mac: EthernetAddress) -> link::Settings {
    let is_somewhere_on_link = |address: IpAddr| configuration.ports.iter().any(|port| port.is_on_link(address));
    let mut virtual_addresses: Vec<IpAddr> = configuration
        .services
        .iter()
        .flat_map(|service| &service.addresses)
        .map(|address| address.ip())
        .filter(|ip| port.is_on_link(*ip) || (!is_somewhere_on_link(*ip) && port.speaks_family_of(*ip)))
        .collect();
    virtual_addresses.sort_unstable();
    virtual_addresses.dedup();
    link::Settings {
        mac,
        addresses: port.addresses.clone(),
        virtual_addresses,
        gateways: port.gateways.clone(),
        neighbours_max: NEIGHBOURS_MAX,
        pending_max: PENDING_MAX,
    }
}

fn tickets(service: &VirtualService, keys: &TicketKeys, cluster: [u8; 32]) -> tls::service::Tickets {
    let policy = tls::service::policy_hash(service.versions, service.client_certificates.as_deref());
    tls::service::Tickets {
        scope: Scope { cluster, service: service.id, policy },
        count: service.tickets,
        tls12: service.tls12_tickets,
        lifetime: keys.schedule.lifetime(),
        session_max: keys.session_max,
        // Every TLS 1.2 resumption reuses one master secret: not for longer than two rotations.
        session_max_tls12: keys.schedule.rotation().saturating_mul(2),
    }
}

fn tls_settings(
    service: &VirtualService,
    tickets: tls::service::Tickets,
    pool: Arc<balance::Pool>,
    profile: Option<Arc<Profile>>,
) -> tls::service::Settings {
    tls::service::Settings {
        // A service makes its own signers of them and keeps no reference.
        certificates: service.certificates.clone(),
        strict_sni: service.strict_sni,
        versions: service.versions,
        ciphers: service.ciphers.clone(),
        alpn: service.alpn.clone(),
        client_certificates: service.client_certificates.clone(),
        tickets,
        pool,
        profile,
    }
}

/// Bounds and times of a lane's TCP. One stack serves all ports, so that the smallest MTU of them counts.
pub fn tcp_settings(configuration: &Configuration) -> tcp::Settings {
    let mtu = configuration.ports.iter().map(|port| port.mtu).min().unwrap_or(configuration.engine.tcp.mtu);
    tcp::Settings { mtu, ..configuration.engine.tcp.clone() }
}

/// Where the tickets of each virtual service are valid, by the service's name: what `sealane ticket inspect` opens tickets with.
pub fn scopes(configuration: &Configuration) -> Vec<(String, Scope)> {
    let cluster = identity::cluster(&configuration.engine.cluster);
    let scope =
        |service: &VirtualService| (service.name.clone(), tickets(service, &configuration.ticket_keys, cluster).scope);
    configuration.services.iter().map(scope).collect()
}

/// The names behind the identities that tickets carry.
pub fn names(configuration: &Configuration) -> inspect::Names {
    let pools = &configuration.pools;
    let server = |pool: &Pool, server: &config::Server| (server.id, format!("{}/{}", pool.name, server.name));
    inspect::Names {
        engines: [(configuration.engine.id, configuration.engine.name.clone())].into(),
        pools: pools.iter().map(|pool| (pool.id, pool.name.clone())).collect(),
        servers: pools.iter().flat_map(|pool| pool.servers.iter().map(|one| server(pool, one))).collect(),
    }
}

/// Makes the service's TLS once and throws it away, to see that it can be made.
pub(super) fn prove_tls(service: &VirtualService) -> Result<(), tls::service::Invalid> {
    let pool = balance::Pool::new(service.pool.id, String::new(), service.pool.algorithm, Vec::new());
    let keys = TicketKeys {
        source: config::KeySource::Own(None),
        schedule: Schedule::default(),
        session_max: Schedule::default().lifetime(),
    };
    let tickets = tickets(service, &keys, [0; 32]);
    tls::Service::new(tls_settings(service, tickets, Arc::new(pool), None)).map(|_| ())
}
