//! Round robin and least connections: turns, smoothly weighted.

use crate::balance::ServerIndex;
use crate::balance::balancer::{Field, Member};

/// What each server is owed, which both algorithms go by.
///
/// With every new client each usable server is owed its weight more, and the one that gets the client is owed the sum of these weights less. The most owed
/// server is next, which spreads the turns of a server with a high ratio evenly. Least connections asks this only among servers of equal load for their weight.
///
/// A new client costs two passes over the pool's servers, with least connections three, one of them with a read a lane for each server. A look at who is next costs
/// none in plain turns, unless that one went down or became full meanwhile. A server that is full is for as long as that what one is that is down.
#[derive(Debug)]
pub(super) struct Turns {
    by_load: bool,
    /// By [`ServerIndex`].
    turns: Vec<Turn>,
    /// The sum of all weights of the pool. In plain turns and with weights that stay nobody is owed more. With least connections a slow server would be owed
    /// more and more, and get the client at every tie for a long time after; so this is the bound.
    owed_max: i32,
    /// Whose turn it was when the last client was taken, in plain turns.
    next: Option<ServerIndex>,
}

/// A server and its debt: 12 bytes, so that a pass over thousands is short.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Within plus and minus `owed_max`.
    owed: i32,
    member: Member,
}

impl Turns {
    /// Turns of `members`, `by_load` for least connections.
    pub(super) fn new(members: &[Member], by_load: bool) -> Self {
        let turns: Vec<_> = members.iter().map(|member| Turn { owed: 0, member: *member }).collect();
        // At most 65,535 servers times 20 times 256.
        let owed_max = turns.iter().map(|turn| turn.member.weight_max()).sum();
        Self { by_load, turns, owed_max, next: None }
    }

    /// The server that the next new client gets. Changes nothing: see [`commit`](Self::commit).
    pub(super) fn peek(&self, field: Field<'_>) -> Option<ServerIndex> {
        if self.by_load { self.least_loaded(field) } else { self.noted(field).or_else(|| self.in_turn(field)) }
    }

    /// Notes that a new client was given `server`, which [`peek`](Self::peek) named.
    pub(super) fn commit(&mut self, server: ServerIndex, field: Field<'_>) {
        let mut sum = 0;
        for (index, turn) in (0..=u16::MAX).map(ServerIndex).zip(&mut self.turns) {
            let weight = field.weight(index, turn.member);
            sum += weight;
            turn.owed = (turn.owed + weight).min(self.owed_max);
        }
        if let Some(turn) = self.turns.get_mut(usize::from(server.0)) {
            turn.owed = (turn.owed - sum).max(-self.owed_max);
        }
        self.next = if self.by_load { None } else { self.in_turn(field) };
    }

    /// Who is next as long as no client is taken. A server that has come up since then waits for the one after.
    fn noted(&self, field: Field<'_>) -> Option<ServerIndex> {
        self.next
            .filter(|next| self.turns.get(usize::from(next.0)).is_some_and(|turn| field.weight(*next, turn.member) > 0))
    }

    fn in_turn(&self, field: Field<'_>) -> Option<ServerIndex> {
        let mut best: Option<(i32, ServerIndex)> = None;
        for (index, turn, weight) in self.usable(field) {
            let due = turn.owed + weight;
            if best.is_none_or(|(most, _)| due > most) {
                best = Some((due, index));
            }
        }
        best.map(|(_, index)| index)
    }

    fn least_loaded(&self, field: Field<'_>) -> Option<ServerIndex> {
        struct Best {
            load: u128,
            weight: u128,
            due: i32,
            index: ServerIndex,
        }
        let mut best: Option<Best> = None;
        for (index, turn, weight) in self.usable(field) {
            let load = field.load(turn.member).into();
            let this = Best { load, weight: weight.unsigned_abs().into(), due: turn.owed + weight, index };
            let better = best.as_ref().is_none_or(|best| {
                // load / weight, without the division.
                let (ours, theirs) = (this.load * best.weight, best.load * this.weight);
                ours < theirs || (ours == theirs && this.due > best.due)
            });
            if better {
                best = Some(this);
            }
        }
        best.map(|best| best.index)
    }

    /// Servers that may get a new client, each with its weight.
    fn usable<'a>(&'a self, field: Field<'a>) -> impl Iterator<Item = (ServerIndex, &'a Turn, i32)> + 'a {
        let turns = (0..=u16::MAX).map(ServerIndex).zip(&self.turns);
        turns
            .map(move |(index, turn)| (index, turn, field.weight(index, turn.member)))
            .filter(|(.., weight)| *weight > 0)
    }

    /// Whether all debts are within their bound.
    #[cfg(test)]
    pub(super) fn is_bounded(&self) -> bool {
        self.turns.iter().all(|turn| turn.owed.abs() <= self.owed_max)
    }
}
