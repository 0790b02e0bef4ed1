//! A world: engines with one service between them, its servers, a host full of clients, and the network between them.

use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::balance::{Board, Failover, Health, Loads, Sharing, Slot, State};
use crate::base::{Duration, EngineId, Generation, Instant, Random};
use crate::lane::{Handle, Lane, Order, Record, Snapshot};
use crate::nic::Offload;
#[cfg(test)]
use crate::nic::memory;
use crate::persistence::{Method, OnLimit, SelectNewServer};
use crate::sim::client::{Client, Visiting};
use crate::sim::clock::Clock;
use crate::sim::engine::{Backing, Engine, IDLE, Identity, SERVICE_ADDRESS, SERVICE_PORT, Site, SiteServer};
use crate::sim::host::{Host, addresses, mac};
use crate::sim::network::{Conditions, Network};
use crate::sim::outcome::Outcome;
use crate::sim::router::Narrow;
use crate::sim::server::{Reencryption, Server};
use crate::sim::spread::{Spread, To};
use crate::sim::watch::Watch;
use crate::tcp::{self, ConnectionId, Token};
use crate::ticket::{Ring, Schedule};

/// How long a visit may take in virtual time before it counts as lost.
const VISIT_MAX: Duration = Duration::from_secs(300);

/// The first token of a visit that is held, above those of all others.
const HELD: u64 = 1 << 48;

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Engines, at most [`ENGINES_MAX`](super::spread::ENGINES_MAX).
    pub engines: u16,
    /// Lanes of each.
    pub lanes: u16,
    /// What the engine's NIC does by itself.
    pub offload: Offload,
    /// Servers.
    pub servers: u16,
    /// So many of them, the last ones, are in the backup pool.
    pub backups: u16,
    /// What the pool of the others does when they fail.
    pub failover: Failover,
    /// What lowers the shares of its servers.
    pub sharing: Sharing,
    /// Clients.
    pub clients: usize,
    /// The network's faults.
    pub conditions: Conditions,
    /// How a client is recognised. By address: then each has one of its own, and their number is bounded by what a neighbour table holds.
    pub method: Method,
    /// What happens to a client whose server is down.
    pub policy: SelectNewServer,
    /// What happens to a client whose server has no place.
    pub on_limit: OnLimit,
    /// Clients speak TLS 1.2 at most.
    pub tls12: bool,
    /// Clients close without close_notify.
    pub abrupt: bool,
    /// Servers are spoken to in TLS.
    pub reencryption: Option<Reencryption>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            engines: 1,
            lanes: 2,
            offload: Offload::default(),
            servers: 4,
            backups: 0,
            failover: Failover::default(),
            sharing: Sharing::default(),
            clients: 8,
            conditions: Conditions::default(),
            method: Method::Tls,
            policy: SelectNewServer::Immediate,
            on_limit: OnLimit::Refuse,
            tls12: false,
            abrupt: false,
            reencryption: None,
        }
    }
}

/// An engine of the cluster, and what its lanes share.
struct Member {
    number: u16,
    engine: Engine<Clock>,
    backing: Backing,
}

impl Member {
    /// An engine that knows nothing but the keys.
    fn new(number: u16, setup: &Setup, clock: &Clock, ring: Arc<Ring>, random: &mut Random) -> Self {
        let (board, loads) = (Arc::new(Board::new(64)), Arc::new(Loads::new(usize::from(setup.lanes), 64)));
        let backing = Backing { id: EngineId(u64::from(number) + 1), board, loads, ring };
        let engine = Engine::new(setup.lanes, setup.offload, &tcp::Settings::default(), clock, &backing, random);
        Self { number, engine, backing }
    }
}

/// The world.
pub struct World {
    setup: Setup,
    clock: Clock,
    random: Random,
    network: Network,
    members: Vec<Member>,
    spread: Spread,
    servers: Vec<(Host, Server)>,
    clients: Host,
    browsers: Vec<Client>,
    visits: Vec<Visiting>,
    /// A server that hears nothing.
    silent: Option<u16>,
    /// Visits that hold their connections, in the order in which they began.
    held: Vec<Visiting>,
    /// The lane of every engine that stands still.
    halted: Option<usize>,
    watch: Watch,
    /// Visits before these: a connection of theirs that still closes has a lower token.
    visits_before: u64,
    certificate: Identity,
    /// The newest ring, whoever has it.
    ring: Arc<Ring>,
    /// The servers that the configuration names.
    configured: Vec<SiteServer>,
    has_service: bool,
    version: u64,
    trace: Sha256,
}

impl World {
    /// A world in which everything that chance decides follows from `seed`.
    ///
    /// # Panics
    /// When `identity` is not a certificate with its key.
    pub fn new(seed: u64, identity: &Identity, setup: Setup) -> Self {
        let clock = Clock::default();
        let mut random = Random::from_seed(seed);
        let ports = (0..setup.servers + 2).map(mac).collect();
        let network = Network::new(ports, setup.conditions, random.fork());
        let ring = Ring::generate(clock.unix(), &mut random).with_pending(clock.unix(), &mut random);
        let ring = Arc::new(ring);
        let members =
            (0..setup.engines).map(|number| Member::new(number, &setup, &clock, Arc::clone(&ring), &mut random));
        let members = members.collect();
        let mut clients = Host::new(1, &["198.18.0.1/15"], &mut random);
        if setup.method != Method::Tls {
            let own: Vec<_> = (0..setup.clients).map(|client| format!("{}/15", client_address(client))).collect();
            let all: Vec<_> = std::iter::once("198.18.0.1/15").chain(own.iter().map(String::as_str)).collect();
            clients.station.configure(vec![addresses(1, &all)]);
        }
        let servers = (0..setup.servers)
            .map(|number| {
                let address = format!("198.19.0.{}/15", number + 1);
                let mut host = Host::new(number + 2, &[&address], &mut random);
                host.listen(server_address(number));
                (host, Server::new(number.into()).spoken_to(identity, setup.reencryption))
            })
            .collect();
        let mut world = Self {
            setup,
            network,
            members,
            spread: Spread::over(setup.engines),
            servers,
            clients,
            browsers: (0..setup.clients).map(|_| Client::new(&identity.root, setup.tls12, setup.abrupt)).collect(),
            visits: Vec::new(),
            silent: None,
            held: Vec::new(),
            halted: None,
            watch: Watch::default(),
            visits_before: 0,
            certificate: identity.clone(),
            ring,
            configured: (0..setup.servers).map(|number| site_server(number, &setup)).collect(),
            has_service: true,
            version: 0,
            trace: Sha256::new(),
            clock,
            random,
        };
        world.configure();
        // The monitors look at every server within their first second.
        world.run_for(Duration::from_secs(2));
        world
    }

    /// A client visits and asks for a little. Gives what came of it.
    pub fn visit(&mut self, client: usize) -> Outcome {
        self.transfer(client, 100, 1000)
    }

    /// A client sends and fetches so many bytes.
    ///
    /// # Panics
    /// When there is no such client.
    pub fn transfer(&mut self, client: usize, upload: usize, download: usize) -> Outcome {
        self.transfer_all(&[(client, upload, download)]).remove(0)
    }

    /// Several clients visit at once, each with so many bytes up and down.
    ///
    /// # Panics
    /// When there is no such client.
    pub fn transfer_all(&mut self, visits: &[(usize, usize, usize)]) -> Vec<Outcome> {
        self.begin(visits);
        self.finish_visits()
    }

    /// The same, but the engine is stopped when every visit is under way.
    ///
    /// # Panics
    /// When there is no such client.
    pub fn stop_engine_during(&mut self, visits: &[(usize, usize, usize)]) -> Vec<Outcome> {
        self.begin(visits);
        self.run_for(Duration::from_millis(4));
        self.members.iter_mut().for_each(|member| member.engine.lanes.clear());
        self.finish_visits()
    }

    /// The same, but a reload removes the service, address and all, when every visit is under way.
    ///
    /// # Panics
    /// When there is no such client.
    pub fn remove_service_during(&mut self, visits: &[(usize, usize, usize)]) -> Vec<Outcome> {
        self.begin(visits);
        self.run_for(Duration::from_millis(4));
        self.has_service = false;
        self.configure();
        self.finish_visits()
    }

    /// A client connects, shakes hands and says nothing. Gives the number of its visit, for [`outcome`](Self::outcome), [`go_on`](Self::go_on) and
    /// [`give_up`](Self::give_up).
    pub fn hold(&mut self, client: usize) -> usize {
        let number = self.hold_all(&[client]);
        self.run_for(Duration::from_millis(100));
        number
    }

    /// The same of several at once, who are under way only. Gives the number of the first; the others follow.
    ///
    /// # Panics
    /// When there is no such client.
    pub fn hold_all(&mut self, clients: &[usize]) -> usize {
        let (first, now) = (self.held.len(), self.clock.now());
        for client in clients {
            let token = Token(HELD + self.held.len() as u64);
            let connection = self.connect(*client, token, now);
            let browser = self.browsers.get(*client).expect("a client of this world");
            self.held.push(browser.begin(connection, 100, 1000).held());
        }
        first
    }

    /// What came of a visit that is or was held; `None` while its connection is open.
    pub fn outcome(&self, held: usize) -> Option<Outcome> {
        self.held.get(held)?.outcome
    }

    /// A visit that was held goes on to its end.
    ///
    /// # Panics
    /// When there is no such visit.
    pub fn go_on(&mut self, held: usize) -> Outcome {
        let deadline = self.clock.now() + VISIT_MAX;
        let visit = self.held.get_mut(held).expect("a visit that is held");
        visit.go_on(&mut self.clients.station, self.clock.now());
        while self.outcome(held).is_none() && self.clock.now() < deadline {
            self.step(deadline);
        }
        // The engine learns of its end, too.
        self.run_for(Duration::from_millis(100));
        self.outcome(held).unwrap_or(Outcome::Lost)
    }

    /// A client resets the connection of a visit that is held.
    pub fn give_up(&mut self, held: usize) {
        let now = self.clock.now();
        if let Some(visit) = self.held.get_mut(held) {
            visit.give_up(&mut self.clients.station, now);
        }
        self.run_for(Duration::from_millis(100));
    }

    fn begin(&mut self, visits: &[(usize, usize, usize)]) {
        let now = self.clock.now();
        self.visits_before += self.visits.len() as u64;
        self.visits.clear();
        for (index, (client, upload, download)) in visits.iter().enumerate() {
            let token = Token(self.visits_before + index as u64);
            let connection = self.connect(*client, token, now);
            let browser = self.browsers.get(*client).expect("a client of this world");
            self.visits.push(browser.begin(connection, *upload, *download));
        }
    }

    fn connect(&mut self, client: usize, token: Token, now: Instant) -> ConnectionId {
        let service = (SERVICE_ADDRESS, SERVICE_PORT).into();
        let station = &mut self.clients.station;
        let connection = match self.setup.method {
            Method::Tls => station.open_connection(service, token, now),
            Method::ClientIp(_) => station.open_connection_from(client_address(client), service, token, now),
        };
        connection.expect("the client host has ports")
    }

    /// From now on clients are recognised otherwise.
    pub fn set_method(&mut self, method: Method) {
        self.setup.method = method;
        self.configure();
    }

    fn finish_visits(&mut self) -> Vec<Outcome> {
        let deadline = self.clock.now() + VISIT_MAX;
        while self.visits.iter().any(|visit| visit.outcome.is_none()) && self.clock.now() < deadline {
            self.step(deadline);
        }
        self.visits.iter().map(|visit| visit.outcome.unwrap_or(Outcome::Lost)).collect()
    }

    /// A lane of every engine stands still from now on: it takes no breath, and what comes for it is lost.
    pub fn halt_lane(&mut self, lane: usize) {
        self.halted = Some(lane);
    }

    /// What time it is.
    #[cfg(test)]
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The lanes of the first engine.
    #[cfg(test)]
    pub(crate) fn lanes(&mut self) -> &mut Vec<Lane<memory::Queue, Clock>> {
        &mut self.members.first_mut().expect("a world has an engine").engine.lanes
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while self.clock.now() < end {
            self.step(end);
        }
    }

    /// A server stops: its connections are reset and new ones refused. Health monitors need a while to notice.
    pub fn stop_server(&mut self, number: u16) {
        let now = self.clock.now();
        if let Some((host, server)) = self.servers.get_mut(usize::from(number)) {
            server.stop(&mut host.station, now);
            host.station.stack.unlisten(server_address(number));
        }
    }

    /// A server hears nothing any more, of what is open and of what comes.
    pub fn silence_server(&mut self, number: u16) {
        self.silent = Some(number);
    }

    /// A stopped server serves again.
    pub fn start_server(&mut self, number: u16) {
        if let Some((host, _)) = self.servers.get_mut(usize::from(number)) {
            host.listen(server_address(number));
        }
    }

    /// The configuration names a server no longer.
    pub fn remove_server(&mut self, number: u16) {
        self.configured.retain(|server| server.number != number);
        self.configure();
    }

    /// The configuration names a server (again), as this generation.
    pub fn add_server(&mut self, number: u16, generation: Generation) {
        self.configured.retain(|server| server.number != number);
        self.configured.push(SiteServer { generation, ..site_server(number, &self.setup) });
        self.configure();
    }

    /// An engine believes of a server what its monitors would not say, until they change their mind.
    pub fn believe(&self, engine: u16, number: u16, health: Health) {
        if let Some(member) = self.members.get(usize::from(engine)) {
            member.backing.board.publish(Slot(number.into()), health);
        }
    }

    /// The configuration says what a server may be used for.
    pub fn set_state(&mut self, number: u16, state: State) {
        self.configured.iter_mut().filter(|server| server.number == number).for_each(|server| server.state = state);
        self.configure();
    }

    /// The configuration says how many connections a server has at most, on each engine.
    pub fn set_limit(&mut self, number: u16, max_connections: Option<u32>) {
        let servers = self.configured.iter_mut().filter(|server| server.number == number);
        servers.for_each(|server| server.max_connections = max_connections);
        self.configure();
    }

    /// Places that connections have at a server, over all lanes of all engines.
    pub fn places(&self, number: u16) -> u64 {
        let servers = self.configured.iter().filter(|server| server.number == number);
        let of = |slot| self.members.iter().map(|member| member.backing.loads.total(slot)).sum::<u64>();
        servers.map(|server| of(server.slot())).sum()
    }

    /// How many places more than its limit a server ever had taken on an engine, after any breath of any lane. Lowering a limit below what is open exceeds it.
    pub fn most_over_limit(&self) -> u64 {
        self.watch.most_over_limit
    }

    /// How many places a server ever got in a breath of a lane at whose beginning the engine's board called it down.
    pub fn most_at_down(&self) -> u64 {
        self.watch.most_at_down
    }

    /// Clients that wait for a place at a server, over all lanes of all engines.
    pub fn waiting(&self, number: u16) -> u32 {
        self.members.iter().map(|member| member.backing.loads.waiting(Slot(number.into()))).sum()
    }

    /// The ticket keys rotate, and every engine knows at once.
    pub fn rotate_keys(&mut self) {
        let ring = self.rotated();
        for engine in 0..self.setup.engines {
            self.deliver(engine, &ring);
        }
    }

    /// The ticket keys rotate, and nobody knows yet.
    pub fn rotated(&mut self) -> Arc<Ring> {
        self.ring = Arc::new(self.ring.rotate(self.clock.unix(), &mut self.random, &Schedule::default()));
        Arc::clone(&self.ring)
    }

    /// K8: the ticket key that seals is purged, on every engine.
    ///
    /// # Panics
    /// When no key seals.
    pub fn purge_active_key(&mut self) {
        let active = self.ring.active().expect("some key seals").key.id();
        let purged = self.ring.purged_of(active, self.clock.unix(), &mut self.random);
        self.ring = Arc::new(purged.expect("it is in the ring"));
        let ring = Arc::clone(&self.ring);
        for engine in 0..self.setup.engines {
            self.deliver(engine, &ring);
        }
    }

    /// A ring arrives at an engine, which takes it if it is newer than its own (K7).
    pub fn deliver(&mut self, engine: u16, ring: &Arc<Ring>) {
        let Some(member) = self.members.get_mut(usize::from(engine)) else { return };
        if ring.version() > member.backing.ring.version() {
            member.backing.ring = Arc::clone(ring);
            for handle in &member.engine.handles {
                handle.inbox.push(Order::Ring(Arc::clone(ring))).expect("lanes empty their inboxes");
            }
        }
    }

    /// Every engine stops without a word and another takes its place, with the same keys and nothing else.
    pub fn replace_engine(&mut self) {
        for engine in 0..self.setup.engines {
            self.restart(engine);
        }
        self.run_for(Duration::from_secs(2));
    }

    /// An engine stops without a word and starts again with the keys that it had. Its monitors need a moment.
    pub fn restart(&mut self, engine: u16) {
        if let Some(member) = self.members.get_mut(usize::from(engine)) {
            let ring = Arc::clone(&member.backing.ring);
            *member = Member::new(engine, &self.setup, &self.clock, ring, &mut self.random);
            self.configure();
        }
    }

    /// Connections that begin from now on meet another engine than they would have.
    pub fn rehash(&mut self) {
        self.spread.rehash(self.random.next_u64());
    }

    /// Takes an engine out of those that connections are spread over, or in again.
    pub fn set_hop(&mut self, engine: u16, is_hop: bool) {
        self.spread.set_hop(engine, is_hop);
    }

    /// A client loses its tickets.
    ///
    /// # Panics
    /// When there is no such client.
    pub fn forget_tickets(&mut self, client: usize) {
        self.browsers.get_mut(client).expect("a client of this world").forget();
    }

    /// Changes the network's faults.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.network.conditions = conditions;
    }

    /// Puts a link into every way that carries less than the hosts' ports, or takes it out again.
    pub fn set_narrow(&mut self, narrow: Option<Narrow>) {
        self.network.narrow = narrow;
    }

    /// Whether the engines believe, all of them, that a server is up.
    pub fn is_up(&self, number: u16) -> bool {
        self.members.iter().all(|member| member.backing.board.health(Slot(number.into())) == Health::Up)
    }

    /// Relayed connections that are open in the engines.
    pub fn open(&self) -> usize {
        self.members.iter().flat_map(|member| &member.engine.lanes).map(Lane::open).sum()
    }

    /// The engines' handles, lane by lane, for their counters.
    pub fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.members.iter().flat_map(|member| &member.engine.handles)
    }

    /// Records of connections that have ended since the last call, lane by lane.
    pub fn take_records(&self) -> Vec<Record> {
        self.handles().flat_map(|handle| std::iter::from_fn(|| handle.records.pop())).collect()
    }

    /// Packet buffers in use in the engines.
    pub fn buffers_in_use(&self) -> usize {
        self.members.iter().map(|member| member.engine.wire.buffers().in_use).sum()
    }

    /// A digest of everything that was sent: when, by whom, how long.
    pub fn trace(&self) -> [u8; 32] {
        self.trace.clone().finalize().into()
    }

    /// Does all that can be done now, then turns the clock to the next event, at most to `limit`.
    fn step(&mut self, limit: Instant) {
        let now = self.clock.now();
        while self.work(now) {}
        let moving = |(number, lane)| (self.halted != Some(number)).then_some(lane);
        let lanes = self.members.iter().flat_map(|member| member.engine.lanes.iter().enumerate().filter_map(moving));
        let lanes = lanes.filter_map(Lane::poll_at);
        let hosts = self.servers.iter().map(|(host, _)| host).chain([&self.clients]);
        let hosts = hosts.filter_map(|host| host.station.poll_at());
        let next = lanes.chain(hosts).chain(self.network.poll_at()).min().unwrap_or(limit);
        self.clock.turn(next.clamp(now + Duration::from_nanos(1), limit.max(now + Duration::from_nanos(1))));
    }

    /// One round over everybody; whether anybody did anything.
    fn work(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some((port, frame)) = self.network.deliver(now) {
            any = true;
            match port {
                0 => self.arrive(&frame),
                1 => drop(self.clients.wire.push(&frame, 0)),
                port => {
                    let is_silent = self.silent.is_some_and(|number| usize::from(number) == port - 2);
                    if let Some((host, _)) = self.servers.get(port - 2).filter(|_| !is_silent) {
                        host.wire.push(&frame, 0);
                    }
                }
            }
        }
        for Member { engine, backing, .. } in &mut self.members {
            let moving = engine.lanes.iter_mut().enumerate().filter(|(number, _)| self.halted != Some(*number));
            for (_, lane) in moving {
                self.watch.before(backing, &self.configured);
                any |= lane.breath();
                self.watch.after(backing, &self.configured);
            }
        }
        any |= self.clients.receive(now);
        any |= self.browse(now);
        any |= self.clients.station.transmit(now);
        for (host, server) in &mut self.servers {
            any |= host.receive(now);
            any |= server.work(&mut host.station, now);
            any |= host.station.transmit(now);
        }
        any | self.collect(now)
    }

    /// A frame for the engines.
    fn arrive(&mut self, frame: &[u8]) {
        let to = self.spread.to(frame);
        for member in self.members.iter().filter(|member| to == To::All || to == To::Engine(member.number)) {
            // A port without receive-side scaling: a frame arrives on any lane.
            let lane = usize::try_from(self.random.below(self.setup.lanes.into())).expect("few lanes");
            // The port of a lane that stands still takes nothing: then all arrives on another, which hands over what is not its own.
            let lane = if self.halted == Some(lane) { (lane + 1) % usize::from(self.setup.lanes) } else { lane };
            member.engine.wire.push(frame, lane);
        }
    }

    fn browse(&mut self, now: Instant) -> bool {
        let mut any = false;
        let unix = self.clock.unix();
        while let Some((_, token, event)) = self.clients.station.stack.poll_event() {
            any = true;
            let index = |first| token.0.checked_sub(first).and_then(|index| usize::try_from(index).ok());
            let held = index(HELD).and_then(|index| self.held.get_mut(index));
            let visit = held.or_else(|| index(self.visits_before).and_then(|index| self.visits.get_mut(index)));
            if let Some(visit) = visit {
                visit.on_event(event, &mut self.clients.station, unix, now);
            }
        }
        any
    }

    /// What everybody has transmitted goes into the network.
    fn collect(&mut self, now: Instant) -> bool {
        let mut any = false;
        let engines = self.members.iter().map(|member| (0_usize, &member.engine.wire));
        let servers = (2..).zip(self.servers.iter().map(|(host, _)| &host.wire));
        for (port, wire) in engines.chain([(1, &self.clients.wire)]).chain(servers) {
            while let Some(frame) = wire.pop() {
                any = true;
                self.trace.update(now.as_nanos().to_be_bytes());
                self.trace.update((port as u64).to_be_bytes());
                self.trace.update((frame.len() as u64).to_be_bytes());
                self.network.send(port, &frame, now);
            }
        }
        any
    }

    /// Gives every lane of every engine a snapshot of the configuration as it is now.
    fn configure(&mut self) {
        self.version += 1;
        for member in &self.members {
            for server in &self.configured {
                member.backing.loads.set_limit(server.slot(), server.max_connections);
            }
            for handle in &member.engine.handles {
                let order = Order::Configure(Box::new(self.snapshot(member)));
                handle.inbox.push(order).expect("lanes empty their inboxes");
            }
        }
        self.run_for(Duration::from_millis(1));
    }

    fn snapshot(&self, member: &Member) -> Snapshot {
        let mut port = addresses(0, &[&Spread::address(member.number)]);
        if self.has_service {
            port.virtual_addresses = vec![SERVICE_ADDRESS];
        }
        Site {
            identity: self.certificate.clone(),
            method: self.setup.method,
            policy: self.setup.policy,
            on_limit: self.setup.on_limit,
            servers: self.configured.clone(),
            failover: self.setup.failover,
            sharing: self.setup.sharing,
            is_reencrypting: self.setup.reencryption.is_some(),
            port,
            services: u32::from(self.has_service),
            idle: IDLE,
            probes: (Duration::from_secs(1), Duration::from_millis(500)),
        }
        .snapshot(self.version)
    }
}

/// The address of a client in a world in which that tells clients apart.
fn client_address(client: usize) -> IpAddr {
    let last = u8::try_from(client + 1).expect("as many clients as a neighbour table holds");
    IpAddr::from([198, 18, 1, last])
}

fn site_server(number: u16, setup: &Setup) -> SiteServer {
    let is_backup = number >= setup.servers - setup.backups;
    SiteServer { is_backup, ..SiteServer::new(number, server_address(number)) }
}

fn server_address(number: u16) -> std::net::SocketAddr {
    format!("198.19.0.{}:8000", number + 1).parse().expect("an address")
}
