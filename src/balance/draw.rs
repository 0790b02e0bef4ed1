//! Random choice and the power of two choices: servers are drawn by ratio, whatever the size of the pool.

use crate::balance::ServerIndex;
use crate::balance::balancer::{Field, Member};
use crate::base::Random;

/// How often a lane draws anew when it has drawn a server that is of no use now. Only where most of a pool is down or full does that not do; then all servers are
/// looked at.
const DRAWS_MAX: usize = 32;

/// One lane's urn of a pool's servers.
///
/// A draw costs the same in a pool of three and of three thousand, where most servers are of use: two looks at the board with [`Self::by_load`] and a read a
/// lane for each of the two servers. Else it costs two passes over the pool.
#[derive(Debug)]
pub(super) struct Draw {
    /// Whether two are drawn and the one with fewer connections for its weight is taken: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.
    by_load: bool,
    members: Vec<Member>,
    /// Each server as often as its ratio says: 40 bytes at most.
    urn: Vec<ServerIndex>,
    random: Random,
}

impl Draw {
    /// An urn of `members`, `by_load` for the power of two choices.
    pub(super) fn new(members: Vec<Member>, by_load: bool, random: Random) -> Self {
        let indices = (0..=u16::MAX).map(ServerIndex);
        let urn =
            indices.zip(&members).flat_map(|(index, member)| std::iter::repeat_n(index, member.ratio.into())).collect();
        Self { by_load, members, urn, random }
    }

    /// A server for a new client.
    pub(super) fn choose(&mut self, field: Field<'_>) -> Option<ServerIndex> {
        let first = self.draw(None, field)?;
        if !self.by_load {
            return Some(first);
        }
        let Some(second) = self.draw(Some(first), field) else { return Some(first) };
        let (load, weight) = self.measure(first, field);
        let (other_load, other_weight) = self.measure(second, field);
        // load / weight, without the division. One that has just gone down weighs nothing and loses.
        Some(if load * other_weight <= other_load * weight { first } else { second })
    }

    /// Draws a usable server by weight, another one than `not`.
    fn draw(&mut self, not: Option<ServerIndex>, field: Field<'_>) -> Option<ServerIndex> {
        let tickets = u64::try_from(self.urn.len()).ok().filter(|tickets| *tickets > 0)?;
        for _ in 0..DRAWS_MAX {
            let index = usize::try_from(self.random.below(tickets)).ok().and_then(|ticket| self.urn.get(ticket))?;
            let member = *self.members.get(usize::from(index.0))?;
            if Some(*index) == not {
                continue;
            }
            // The urn has drawn by ratio: what is left is to refuse as often as its share lacks.
            let weight = field.weight(*index, member);
            if weight == member.weight_max()
                || self.random.below(u64::from(member.weight_max().unsigned_abs())) < u64::from(weight.unsigned_abs())
            {
                return Some(*index);
            }
        }
        self.draw_of_all(not, field)
    }

    /// The same by a look at every server.
    fn draw_of_all(&mut self, not: Option<ServerIndex>, field: Field<'_>) -> Option<ServerIndex> {
        let usable = || {
            let all = (0..=u16::MAX).map(ServerIndex).zip(&self.members).filter(move |(index, _)| Some(*index) != not);
            all.map(|(index, member)| (index, u64::from(field.weight(index, *member).unsigned_abs())))
                .filter(|(_, weight)| *weight > 0)
        };
        let sum: u64 = usable().map(|(_, weight)| weight).sum();
        if sum == 0 {
            return None;
        }
        let mut left = self.random.below(sum);
        let mut last = None;
        for (index, weight) in usable() {
            last = Some(index);
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => break,
            }
        }
        // Where servers went down between the passes, the last one that did not.
        last
    }

    /// Connections and weight of a server.
    fn measure(&self, index: ServerIndex, field: Field<'_>) -> (u128, u128) {
        let Some(member) = self.members.get(usize::from(index.0)) else { return (u128::MAX >> 64, 0) };
        (field.load(*member).into(), field.weight(index, *member).unsigned_abs().into())
    }
}
