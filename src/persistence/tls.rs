//! Persistence by the mapping in the client's session ticket: the policy table of the specification.

use std::net::IpAddr;

use crate::balance::{Backend, Outage, Pool, Server, ServerIndex, Standing};
use crate::base::{EngineId, UnixTime};
use crate::persistence::{Decision, OnLimit, Profile, Reason, SelectNewServer};
use crate::ticket::Mapping;

/// What a client's ticket says, once the handshake really resumed, or what a table says of its address.
#[derive(Clone, Copy, Debug)]
pub struct Returning {
    /// Its server.
    pub mapping: Mapping,
    /// Whether this engine has given it that server, by this ticket.
    pub is_ours: bool,
}

impl Returning {
    /// What a ticket that `issuer` issued at `issued` says to this engine. One that was issued with the assignment is of who made it; what came later may carry
    /// somebody else's.
    pub fn new(mapping: Mapping, issuer: EngineId, issued: UnixTime, engine: EngineId) -> Self {
        Self { mapping, is_ours: issuer == engine && issued == mapping.assigned }
    }
}

/// Where a client that connects from `client` goes.
///
/// Whoever gets a server has a place there from now on, or waits for one: see [`Decision::must_wait`]. Who decides this gives back either.
pub fn decide(
    returning: Option<&Returning>,
    profile: Option<&Profile>,
    backend: &Backend,
    client: IpAddr,
    now: UnixTime,
) -> Decision {
    let other = |reason| other(backend, client, reason);
    if backend.is_short() {
        return Decision { server: None, reason: Reason::PoolDown };
    }
    let Some(profile) = profile else { return other(Reason::Off) };
    let Some(returning) = returning else { return other(Reason::NoMapping) };
    let mapping = &returning.mapping;
    // Its server's pool is down, and this is the backup of that.
    if backend.stands_in_for(mapping.pool)
        && profile.select_new_server_when_persistent_server_down != SelectNewServer::Immediate
    {
        return refused(backend, Reason::RefusedDown);
    }
    let Some((index, server)) = mapped(mapping, backend.pool()) else { return other(Reason::SwitchedRemoved) };
    if profile.max_mapping_age.is_some_and(|max| now.since(mapping.assigned) > max) {
        return other(Reason::SwitchedAged);
    }
    let same = |reason| same(index, reason, profile, backend, client);
    match (backend.standing(server), profile.select_new_server_when_persistent_server_down) {
        (Standing::Up, SelectNewServer::Immediate | SelectNewServer::Never | SelectNewServer::NeverEvenIfDown) => {
            same(Reason::Persisted)
        }
        (
            Standing::Draining,
            SelectNewServer::Immediate | SelectNewServer::Never | SelectNewServer::NeverEvenIfDown,
        ) => same(Reason::PersistedDraining),
        (Standing::Down, SelectNewServer::Immediate) if is_disputed(returning, backend, now) => same(Reason::Disputed),
        (Standing::Down, SelectNewServer::Immediate) => other(Reason::SwitchedDown),
        (Standing::Down, SelectNewServer::Never) => refused(backend, Reason::RefusedDown),
        // The whole pool is down: that row of the table is the same under every policy.
        (Standing::Down, SelectNewServer::NeverEvenIfDown) if backend.outage() == Some(Outage::Down) => {
            refused(backend, Reason::RefusedDown)
        }
        (Standing::Down, SelectNewServer::NeverEvenIfDown) => same(Reason::PersistedThoughDown),
        (Standing::Drained, SelectNewServer::Immediate) => other(Reason::SwitchedDraining),
        (Standing::Drained, SelectNewServer::Never | SelectNewServer::NeverEvenIfDown) => {
            refused(backend, Reason::RefusedDraining)
        }
        (Standing::Disabled, SelectNewServer::Immediate) => other(Reason::SwitchedDisabled),
        (Standing::Disabled, SelectNewServer::Never | SelectNewServer::NeverEvenIfDown) => {
            refused(backend, Reason::RefusedDisabled)
        }
    }
}

/// P11: whether another engine saw the server up less than an interval ago, for it gave the client to it then. Two engines of which each sees down what the other
/// sees up would else send a client to and fro with every visit. Both times are whole seconds, so an interval must have passed by their count and one second more.
fn is_disputed(returning: &Returning, backend: &Backend, now: UnixTime) -> bool {
    let interval = backend.pool().disagreement_max;
    !returning.is_ours && !interval.is_zero() && now.since(returning.mapping.assigned) <= interval
}

/// Another server, as for a new client.
fn other(backend: &Backend, client: IpAddr, reason: Reason) -> Decision {
    match backend.choose(client) {
        Some(server) => Decision { server: Some(server), reason },
        None => Decision { server: None, reason: out_of(backend.outage()) },
    }
}

/// The server of the mapping, or what the profile says where that has no place.
fn same(server: ServerIndex, reason: Reason, profile: &Profile, backend: &Backend, client: IpAddr) -> Decision {
    if backend.take(server) {
        return Decision { server: Some(server), reason };
    }
    match profile.on_limit {
        OnLimit::Switch => other(backend, client, Reason::SwitchedLimit),
        OnLimit::Spill => other(backend, client, Reason::Spilled),
        // Also where the rest of the pool is full: it is a place at this server that the client waits for.
        OnLimit::Queue(queue) if backend.wait(server, queue.max) => {
            Decision { server: Some(server), reason: Reason::Queued }
        }
        OnLimit::Queue(_) => Decision { server: None, reason: Reason::RefusedQueue },
        OnLimit::Refuse => Decision { server: None, reason: Reason::RefusedLimit },
    }
}

/// No server; that the whole pool is of no use is the better reason.
fn refused(backend: &Backend, reason: Reason) -> Decision {
    let reason = match backend.outage() {
        Some(Outage::Down) => Reason::PoolDown,
        Some(Outage::Full) | None => reason,
    };
    Decision { server: None, reason }
}

/// A place may have been given back since there was none.
fn out_of(outage: Option<Outage>) -> Reason {
    match outage {
        Some(Outage::Down) => Reason::PoolDown,
        Some(Outage::Full) | None => Reason::PoolFull,
    }
}

/// The mapping that the tickets of this connection carry, or that is remembered of its client's address: `None` without a profile, or when the client gets no server.
///
/// A client that keeps its server by its mapping keeps the time of its first assignment; anyone else begins at `now`, also one
/// whose mapping was too old and who got the same server again.
pub fn mapping_to_seal(decision: &Decision, previous: Option<&Mapping>, pool: &Pool, now: UnixTime) -> Option<Mapping> {
    let server = pool.server(decision.server?)?;
    let assigned = match decision.reason {
        Reason::Off
        | Reason::Recalling
        | Reason::RefusedDown
        | Reason::RefusedDraining
        | Reason::RefusedDisabled
        | Reason::RefusedLimit
        | Reason::RefusedQueue
        | Reason::PoolDown
        | Reason::PoolFull => return None,
        Reason::Spilled => return previous.copied(),
        Reason::Persisted
        | Reason::PersistedThoughDown
        | Reason::Disputed
        | Reason::PersistedDraining
        | Reason::Queued => {
            previous.filter(|mapping| names(mapping, pool, server)).map_or(now, |mapping| mapping.assigned)
        }
        Reason::NoMapping
        | Reason::SwitchedDown
        | Reason::SwitchedDraining
        | Reason::SwitchedDisabled
        | Reason::SwitchedLimit
        | Reason::SwitchedRemoved
        | Reason::SwitchedAged => now,
    };
    Some(Mapping { pool: pool.id, server: server.id, generation: server.generation, assigned })
}

/// The server that a mapping names; `None` when it is not in this pool, or another incarnation is.
fn mapped<'a>(mapping: &Mapping, pool: &'a Pool) -> Option<(ServerIndex, &'a Server)> {
    if mapping.pool != pool.id {
        return None;
    }
    let index = pool.find(mapping.server, mapping.generation)?;
    Some((index, pool.server(index)?))
}

fn names(mapping: &Mapping, pool: &Pool, server: &Server) -> bool {
    mapping.pool == pool.id && mapping.server == server.id && mapping.generation == server.generation
}

#[cfg(test)]
mod tests;
