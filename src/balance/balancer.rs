//! One lane's choice of a server for a client that has no mapping: which algorithm asks whom.

use std::net::IpAddr;
use std::sync::Arc;

use crate::balance::draw::Draw;
use crate::balance::turns::Turns;
use crate::balance::{Algorithm, Board, LaneLoads, Loads, Maglev, Pool, Server, ServerIndex, Share, Slot, State};
use crate::base::{LaneId, Random};

/// One lane's state for one pool. Made anew for each configuration snapshot.
///
/// Every algorithm weighs a server by its ratio times its share on the board, and passes over those that are down, disabled, drained or full.
#[derive(Debug)]
pub struct Balancer(Kind);

#[derive(Debug)]
enum Kind {
    Turns(Turns),
    Draw(Box<Draw>),
    Hash(Option<Arc<Maglev>>, Vec<Member>),
}

/// A server as a balancer sees it: 8 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) slot: Slot,
    /// Zero for one that gets no new clients.
    pub(super) ratio: u8,
}

impl Member {
    fn of(server: &Server) -> Self {
        let ratio = match server.state {
            State::Enabled => server.weight(),
            State::Draining(_) | State::Disabled => 0,
        };
        Self { slot: server.slot, ratio }
    }

    /// What it weighs with its whole share.
    pub(super) fn weight_max(self) -> i32 {
        i32::from(self.ratio) * i32::from(Share::FULL.parts())
    }
}

/// What a choice goes by: the servers as they are now, as one lane knows them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) board: &'a Board,
    pub(super) loads: &'a LaneLoads,
    /// Servers that this client has been to, in vain.
    pub(super) tried: &'a [ServerIndex],
}

impl Field<'_> {
    /// What a server weighs for the next new client: its ratio times its share, zero when it gets none.
    pub(super) fn weight(self, index: ServerIndex, member: Member) -> i32 {
        if self.tried.contains(&index) {
            return 0;
        }
        match self.board.usable_share(member.slot) {
            Some(share) if member.ratio > 0 && !self.loads.is_full(member.slot) => {
                i32::from(member.ratio) * i32::from(share.parts())
            }
            Some(_) | None => 0,
        }
    }

    /// Connections of all lanes to it.
    pub(super) fn load(self, member: Member) -> u64 {
        self.loads.total(member.slot)
    }
}

/// Most turns that a lane is ahead of the first one.
const OFFSET_MAX: i32 = 256;

impl Balancer {
    /// A balancer for `pool`. `lane` offsets the turn, so that lanes do not all begin with the same server; `random` is the lane's own.
    pub fn new(pool: &Pool, lane: LaneId, random: Random) -> Self {
        let members: Vec<_> = pool.servers.iter().map(Member::of).collect();
        Self(match pool.algorithm {
            // How fast they are is in their shares.
            Algorithm::RoundRobin | Algorithm::Fastest => Kind::Turns(turns(&members, false, lane)),
            Algorithm::LeastConnections => Kind::Turns(turns(&members, true, lane)),
            Algorithm::Random => Kind::Draw(Box::new(Draw::new(members, false, random))),
            Algorithm::PowerOfTwo => Kind::Draw(Box::new(Draw::new(members, true, random))),
            Algorithm::ConsistentHash => Kind::Hash(pool.table().cloned(), members),
        })
    }

    /// A server for a new client; `None` when none is usable. It counts once it is [taken](Self::on_taken).
    pub(super) fn choose(&mut self, client: IpAddr, field: Field<'_>) -> Option<ServerIndex> {
        match &mut self.0 {
            Kind::Turns(turns) => turns.peek(field),
            Kind::Draw(draw) => draw.choose(field),
            Kind::Hash(table, members) => table.as_ref()?.choose(client, members, field),
        }
    }

    /// The client got `server`, which [`choose`](Self::choose) named.
    pub(super) fn on_taken(&mut self, server: ServerIndex, field: Field<'_>) {
        match &mut self.0 {
            Kind::Turns(turns) => turns.commit(server, field),
            Kind::Draw(_) | Kind::Hash(..) => {}
        }
    }
}

fn turns(members: &[Member], by_load: bool, lane: LaneId) -> Turns {
    let mut turns = Turns::new(members, by_load);
    let (all, unlimited) = (Board::new(0), LaneLoads::new(Arc::new(Loads::new(0, 0)), lane));
    let field = Field { board: &all, loads: &unlimited, tried: &[] };
    let ratios: i32 = members.iter().map(|member| i32::from(member.ratio)).sum();
    let ahead = if ratios == 0 { 0 } else { i32::from(lane.0) % ratios.min(OFFSET_MAX) };
    for _ in 0..ahead {
        if let Some(server) = turns.peek(field) {
            turns.commit(server, field);
        }
    }
    turns
}

#[cfg(test)]
mod tests;
