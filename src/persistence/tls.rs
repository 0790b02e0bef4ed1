//! Persistence by the mapping in the client's session ticket: the policy table of the specification, as one `match`.

use crate::balance::{Board, Pool, Server, ServerIndex};
use crate::base::UnixTime;
use crate::persistence::{Decision, Profile, Reason, SelectNewServer};
use crate::ticket::Mapping;

/// Where a client goes. `mapping` is what its ticket says, once the handshake really resumed; `candidate` the server that a new client would get.
///
/// `candidate` is `None` when no server of the pool is usable. The client is then refused under every policy, but for one whose
/// own server is up.
pub fn decide(
    mapping: Option<&Mapping>,
    profile: Option<&Profile>,
    pool: &Pool,
    board: &Board,
    candidate: Option<ServerIndex>,
    now: UnixTime,
) -> Decision {
    let other = |reason| match candidate {
        Some(server) => Decision { server: Some(server), reason },
        None => Decision { server: None, reason: Reason::PoolDown },
    };
    let Some(profile) = profile else { return other(Reason::Off) };
    let Some(mapping) = mapping else { return other(Reason::NoMapping) };
    let (server, standing) = match standing(mapping, pool, board) {
        Mapped::Removed => return other(Reason::SwitchedRemoved),
        Mapped::Here(server, standing) => (server, standing),
    };
    if profile.max_mapping_age.is_some_and(|max| now.since(mapping.assigned) > max) {
        return other(Reason::SwitchedAged);
    }
    let same = |reason| Decision { server: Some(server), reason };
    let refused = || match candidate {
        Some(_) => Decision { server: None, reason: Reason::Refused },
        None => Decision { server: None, reason: Reason::PoolDown },
    };
    match (standing, profile.select_new_server_when_persistent_server_down) {
        (Standing::Up, SelectNewServer::Immediate | SelectNewServer::Never | SelectNewServer::NeverEvenIfDown) => {
            same(Reason::Persisted)
        }
        (Standing::Down, SelectNewServer::Immediate) => other(Reason::SwitchedDown),
        (Standing::Down, SelectNewServer::Never) => refused(),
        (Standing::Down, SelectNewServer::NeverEvenIfDown) => match candidate {
            Some(_) => same(Reason::PersistedThoughDown),
            // The whole pool is down: that row of the table is the same under every policy.
            None => refused(),
        },
        (Standing::Disabled, SelectNewServer::Immediate) => other(Reason::SwitchedDisabled),
        (Standing::Disabled, SelectNewServer::Never | SelectNewServer::NeverEvenIfDown) => refused(),
    }
}

/// The mapping that the tickets of this connection carry: `None` without a profile, or when the client gets no server.
///
/// A client that keeps its server by its mapping keeps the time of its first assignment; anyone else begins at `now`, also one
/// whose mapping was too old and who got the same server again.
pub fn mapping_to_seal(decision: &Decision, previous: Option<&Mapping>, pool: &Pool, now: UnixTime) -> Option<Mapping> {
    let server = pool.server(decision.server?)?;
    let assigned = match decision.reason {
        Reason::Off | Reason::Refused | Reason::PoolDown => return None,
        Reason::Persisted | Reason::PersistedThoughDown => {
            previous.filter(|mapping| names(mapping, pool, server)).map_or(now, |mapping| mapping.assigned)
        }
        Reason::NoMapping
        | Reason::SwitchedDown
        | Reason::SwitchedDisabled
        | Reason::SwitchedRemoved
        | Reason::SwitchedAged => now,
    };
    Some(Mapping { pool: pool.id, server: server.id, generation: server.generation, assigned })
}

/// What became of the server that a mapping names.
enum Mapped {
    /// Not in this pool, or another incarnation is.
    Removed,
    /// In the pool.
    Here(ServerIndex, Standing),
}

/// Whether a server takes its persisted clients. A row of the policy table each: a limit or draining is another variant.
#[derive(Clone, Copy)]
enum Standing {
    Up,
    Down,
    Disabled,
}

fn standing(mapping: &Mapping, pool: &Pool, board: &Board) -> Mapped {
    if mapping.pool != pool.id {
        return Mapped::Removed;
    }
    let Some(index) = pool.find(mapping.server, mapping.generation) else { return Mapped::Removed };
    let Some(server) = pool.server(index) else { return Mapped::Removed };
    let standing = if !server.enabled {
        Standing::Disabled
    } else if board.health(server.slot).is_usable() {
        Standing::Up
    } else {
        Standing::Down
    };
    Mapped::Here(index, standing)
}

fn names(mapping: &Mapping, pool: &Pool, server: &Server) -> bool {
    mapping.pool == pool.id && mapping.server == server.id && mapping.generation == server.generation
}

#[cfg(test)]
mod tests;
