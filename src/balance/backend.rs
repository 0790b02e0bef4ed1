//! A pool as one lane uses it: where a client may go, and its place there.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::balance::balancer::Field;
use crate::balance::{Admission, Balancer, Board, Health, LaneLoads, Pool, Server, ServerIndex, State};
use crate::base::{PoolId, Random};

/// How often a lane chooses anew when another lane takes the last place of the server that it has chosen. Each time somebody else got a place, so more than a few in a
/// row take a lane that stands still; then the pool counts as full.
const CHOICES_MAX: usize = 16;

/// A pool as one lane uses it, made anew for each configuration snapshot and shared by the services that use the pool.
///
/// Whoever gets a server here holds a place at it, and gives it back exactly once.
#[derive(Debug)]
pub struct Backend {
    pool: Arc<Pool>,
    board: Arc<Board>,
    loads: Rc<LaneLoads>,
    balancer: RefCell<Balancer>,
    /// Where clients go while the pool is down.
    backup: Option<Rc<Backend>>,
    /// The pool that this one is the backup of.
    stands_in_for: Option<PoolId>,
}

/// What a server is to the clients that are persisted to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Up and enabled.
    Up,
    /// Up, drained, and still theirs.
    Draining,
    /// Drained, and theirs no more.
    Drained,
    /// Down.
    Down,
    /// Disabled by the operator.
    Disabled,
}

/// Why a new client gets no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Fewer than it needs are enabled and up.
    Down,
    /// All that are have no place.
    Full,
}

impl Backend {
    /// The pool as the lane of `loads` uses it, with `board` and the lane's own `random`.
    pub fn new(pool: Arc<Pool>, board: Arc<Board>, loads: Rc<LaneLoads>, random: Random) -> Self {
        let balancer = RefCell::new(Balancer::new(&pool, loads.lane(), random));
        Self { pool, board, loads, balancer, backup: None, stands_in_for: None }
    }

    /// The same with `backup` to take its clients while it is down.
    #[must_use]
    pub fn backed_by(self, backup: Arc<Pool>, random: Random) -> Self {
        let backup = Self::new(backup, Arc::clone(&self.board), Rc::clone(&self.loads), random);
        Self { backup: Some(Rc::new(Self { stands_in_for: Some(self.pool.id), ..backup })), ..self }
    }

    /// Where clients go now: here, or to the backup while this pool is down. Costs a pass over the servers until enough are found to be up, and nothing without
    /// a backup.
    pub fn in_force(self: &Rc<Self>) -> &Rc<Self> {
        self.backup.as_ref().filter(|_| self.is_down()).unwrap_or(self)
    }

    /// Whether this is the backup of that pool.
    pub fn stands_in_for(&self, pool: PoolId) -> bool {
        self.stands_in_for == Some(pool)
    }

    /// The pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A place for a new client from this address, at the server that the pool's algorithm names.
    pub fn choose(&self, client: IpAddr) -> Option<ServerIndex> {
        self.choose_other(client, &[])
    }

    /// The same, at none of the servers that were `tried`.
    pub fn choose_other(&self, client: IpAddr, tried: &[ServerIndex]) -> Option<ServerIndex> {
        let mut balancer = self.balancer.borrow_mut();
        for _ in 0..CHOICES_MAX {
            let server = balancer.choose(client, self.field(tried))?;
            if self.take(server) {
                balancer.on_taken(server, self.field(&[]));
                return Some(server);
            }
        }
        None
    }

    /// The server that [`choose`](Self::choose) would name, where no chance is in it.
    #[cfg(test)]
    pub(crate) fn next(&self, client: IpAddr) -> Option<ServerIndex> {
        self.balancer.borrow_mut().choose(client, self.field(&[]))
    }

    fn field<'a>(&'a self, tried: &'a [ServerIndex]) -> Field<'a> {
        Field { board: &self.board, loads: &self.loads, tried }
    }

    /// A place at this server, if it has one.
    pub fn take(&self, server: ServerIndex) -> bool {
        self.pool.server(server).is_some_and(|server| self.loads.take(server.slot))
    }

    /// Joins those who wait for a place at this server, unless `most` do so already.
    pub fn wait(&self, server: ServerIndex, most: u32) -> bool {
        self.pool.server(server).is_some_and(|server| self.loads.wait(server.slot, most))
    }

    /// What this server is to the clients that are persisted to it, its limit apart.
    pub fn standing(&self, server: &Server) -> Standing {
        let health = self.board.health(server.slot);
        match server.state {
            State::Disabled => Standing::Disabled,
            State::Draining(draining)
                if draining.admission == Admission::DisallowNew || self.loads.is_drained(server.slot) =>
            {
                Standing::Drained
            }
            State::Enabled | State::Draining(_) if health == Health::Down => Standing::Down,
            // Who is in maintenance is drained, for as long as it says so.
            State::Enabled if health == Health::Maintenance => match self.pool.drain_admission {
                Admission::DisallowNew => Standing::Drained,
                Admission::AllowPersisted => Standing::Draining,
            },
            State::Draining(_) => Standing::Draining,
            State::Enabled => Standing::Up,
        }
    }

    /// Whether fewer servers than the pool needs are enabled and up. It is up with one, if it does not say otherwise.
    pub fn is_down(&self) -> bool {
        let needed = usize::from(self.pool.failover.servers_up_min.max(1));
        self.usable().take(needed).count() < needed
    }

    /// Whether it is down though some server is up. Costs nothing in a pool that is up with one.
    pub fn is_short(&self) -> bool {
        self.pool.failover.servers_up_min > 1 && self.is_down()
    }

    fn usable(&self) -> impl Iterator<Item = &Server> {
        let is_usable = |server: &&Server| server.state == State::Enabled && self.board.health(server.slot).is_usable();
        self.pool.servers.iter().filter(is_usable)
    }

    /// Whether no new client gets a server here, and why. Costs a pass over the servers that are of no use.
    pub fn outage(&self) -> Option<Outage> {
        if self.is_down() {
            return Some(Outage::Down);
        }
        self.usable().all(|server| self.loads.is_full(server.slot)).then_some(Outage::Full)
    }
}

#[cfg(test)]
mod maintenance {
    use super::*;
    use crate::balance::testing::pool;
    use crate::balance::{Algorithm, Draining, Loads, Slot};
    use crate::base::LaneId;

    #[test]
    fn p5_a_server_in_maintenance_gets_no_new_clients_and_persisted_ones_as_its_pool_says() {
        for (admission, standing) in
            [(Admission::DisallowNew, Standing::Drained), (Admission::AllowPersisted, Standing::Draining)]
        {
            let (board, loads) = (Arc::new(Board::new(2)), Arc::new(Loads::new(1, 2)));
            let pool = Arc::new(pool(Algorithm::RoundRobin, &[1, 1]).drained_for(admission));
            let loads = Rc::new(LaneLoads::new(loads, LaneId(0)));
            let backend = Backend::new(Arc::clone(&pool), Arc::clone(&board), loads, Random::from_seed(1));
            let client = IpAddr::from([198, 18, 0, 7]);
            board.publish(Slot(0), Health::Maintenance);
            assert_eq!(backend.standing(&pool.servers[0]), standing);
            let chosen: Vec<_> = (0..4).map(|_| backend.choose(client)).collect();
            assert_eq!(chosen, [Some(ServerIndex(1)); 4], "new clients go elsewhere");
            board.publish(Slot(1), Health::Maintenance);
            assert_eq!((backend.choose(client), backend.outage()), (None, Some(Outage::Down)));
            board.publish(Slot(0), Health::Up);
            assert_eq!(backend.standing(&pool.servers[0]), Standing::Up, "it ends when it answers as before");
            // What the operator says goes before what the server says.
            board.publish(Slot(0), Health::Maintenance);
            let draining = Draining { admission: Admission::AllowPersisted, timeout: None };
            let drained = Server { state: State::Draining(draining), ..pool.servers[0].clone() };
            assert_eq!(backend.standing(&drained), Standing::Draining);
        }
    }
}
