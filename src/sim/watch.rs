//! What is watched of every breath of every lane: places beyond a server's limit, and new ones at servers that were down before it.

use crate::balance::{Health, Slot};
use crate::sim::engine::{Backing, SiteServer};

/// What must not be, at its worst so far.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Places more than its limit that a server had taken after a breath.
    pub(super) most_over_limit: u64,
    /// Places more than before that a server had taken after a breath at whose beginning the board called it down.
    pub(super) most_at_down: u64,
    /// The servers that are down at the beginning of this breath, with the places taken there.
    down: Vec<(Slot, u64)>,
}

impl Watch {
    /// A lane of this engine is about to breathe.
    pub(super) fn before(&mut self, backing: &Backing, servers: &[SiteServer]) {
        let slots = servers.iter().map(SiteServer::slot);
        let down = slots.filter(|slot| backing.board.health(*slot) == Health::Down);
        self.down.clear();
        self.down.extend(down.map(|slot| (slot, backing.loads.total(slot))));
    }

    /// It has.
    pub(super) fn after(&mut self, backing: &Backing, servers: &[SiteServer]) {
        for server in servers {
            let over =
                server.max_connections.map_or(0, |max| backing.loads.total(server.slot()).saturating_sub(max.into()));
            self.most_over_limit = self.most_over_limit.max(over);
        }
        for (slot, before) in &self.down {
            self.most_at_down = self.most_at_down.max(backing.loads.total(*slot).saturating_sub(*before));
        }
    }
}
