//! Persistence by the mapping in the client's session ticket.

use crate::balance::{Board, Pool, ServerIndex};
use crate::base::UnixTime;
use crate::persistence::{Decision, Profile};
use crate::ticket::Mapping;

/// Where a client goes. `mapping` is what its ticket says, once the handshake really resumed; `candidate` the server that a new client would get.
pub fn decide(
    mapping: Option<&Mapping>,
    profile: Option<&Profile>,
    pool: &Pool,
    board: &Board,
    candidate: Option<ServerIndex>,
    now: UnixTime,
) -> Decision {
    let _ = (mapping, profile, pool, board, candidate, now);
    todo!()
}
