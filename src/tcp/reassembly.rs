//! Data that arrived out of order (RFC 9293 3.10.7.4), in pieces that take memory for their own bytes and not for the gaps between them.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::wire::Seq;

/// Most pieces a connection keeps. A segment that would make one more is dropped and counted.
pub(super) const PIECES_MAX: usize = 32;

/// What became of bytes that were to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Some of them were new.
    New,
    /// All of them had been kept before.
    Old,
    /// They touch no piece, and there are too many already.
    Refused,
}

#[derive(Debug)]
struct Piece {
    start: Seq,
    bytes: VecDeque<u8>,
    /// When it last grew, by the clock of its owner.
    touched: u32,
}

impl Piece {
    fn end(&self) -> Seq {
        self.start + u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// This piece and the adjacent one behind it. The shorter one moves, so that no order of arrival makes moving expensive.
    fn join(mut self, mut next: Self) -> Self {
        if self.bytes.len() >= next.bytes.len() {
            self.bytes.append(&mut next.bytes);
            return self;
        }
        next.prepend(self.bytes.into_iter());
        next.start = self.start;
        next
    }

    fn prepend(&mut self, bytes: impl DoubleEndedIterator<Item = u8> + ExactSizeIterator) {
        self.bytes.reserve(bytes.len());
        for byte in bytes.rev() {
            self.bytes.push_front(byte);
        }
    }
}

/// Ascending, disjoint, not adjacent. Their bytes together are bounded by the window that their owner offers.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    list: Vec<Piece>,
    clock: u32,
}

impl Pieces {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Where the pieces begin and end.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (Seq, Seq)> + '_ {
        self.list.iter().map(|piece| (piece.start, piece.end()))
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.list.iter().map(|piece| piece.bytes.capacity()).sum()
    }

    /// The pieces for a SACK option, the one that grew last first (RFC 2018 4).
    pub(super) fn newest(&self) -> SmallVec<[(Seq, Seq); 4]> {
        let mut newest: SmallVec<[&Piece; PIECES_MAX]> = self.list.iter().collect();
        newest.sort_unstable_by_key(|piece| self.clock.wrapping_sub(piece.touched));
        newest.into_iter().take(4).map(|piece| (piece.start, piece.end())).collect()
    }

    /// Keeps `bytes`, at least one, which begin at `start`. What is there already stays as it is.
    pub(super) fn insert(&mut self, start: Seq, bytes: &[u8]) -> Kept {
        let end = start + u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let first = self.list.partition_point(|piece| piece.end().before(start));
        let touching = self.list.iter().skip(first).take_while(|piece| piece.start.at_or_before(end)).count();
        self.clock = self.clock.wrapping_add(1);
        let part = |from: Seq, to: Seq| {
            let (from, to) = (from.since(start) as usize, to.since(start) as usize);
            bytes.get(from..to).unwrap_or_default()
        };
        if touching == 0 {
            if self.list.len() >= PIECES_MAX {
                return Kept::Refused;
            }
            self.list.insert(first, Piece { start, bytes: bytes.iter().copied().collect(), touched: self.clock });
            return Kept::New;
        }
        if let Some(piece) = self.list.get_mut(first).filter(|piece| piece.start.at_or_before(start))
            && piece.end().at_or_after(end)
        {
            piece.touched = self.clock;
            return Kept::Old;
        }
        let mut whole: Option<Piece> = None;
        for mut next in self.list.drain(first..first + touching) {
            whole = Some(match whole {
                None => {
                    if start.before(next.start) {
                        next.prepend(part(start, next.start).iter().copied());
                        next.start = start;
                    }
                    next
                }
                Some(mut before) => {
                    before.bytes.extend(part(before.end(), next.start));
                    before.join(next)
                }
            });
        }
        if let Some(mut whole) = whole {
            if whole.end().before(end) {
                whole.bytes.extend(part(whole.end(), end));
            }
            whole.touched = self.clock;
            self.list.insert(first, whole);
        }
        Kept::New
    }

    /// Everything before `end` has come. Takes out the first piece if it joins there: gives its bytes from `end` on and where they end.
    pub(super) fn take(&mut self, end: Seq) -> Option<(VecDeque<u8>, Seq)> {
        let first = self.list.first()?;
        if first.start.after(end) {
            return None;
        }
        let mut piece = self.list.remove(0);
        if self.list.is_empty() {
            // An empty list holds no memory.
            self.list = Vec::new();
        }
        let stop = piece.end().max(end);
        let known = (end.since(piece.start) as usize).min(piece.bytes.len());
        piece.bytes.drain(..known);
        Some((piece.bytes, stop))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Seq = Seq(u32::MAX - 300);

    fn stream(at: u32) -> u8 {
        u8::try_from((at.wrapping_mul(31) >> 3) & 0xff).unwrap()
    }

    fn bytes(at: u32, len: u32) -> Vec<u8> {
        (at..at + len).map(stream).collect()
    }

    proptest! {
        #[test]
        fn pieces_hold_what_was_put_in_and_nothing_else(
            steps in prop::collection::vec((0u32..800, 1u32..60), 1..80),
        ) {
            let mut pieces = Pieces::default();
            let mut have = [false; 900];
            for (at, len) in steps {
                let range = at as usize..(at + len) as usize;
                let known = have[range.clone()].iter().all(|have| *have);
                match pieces.insert(START + at, &bytes(at, len)) {
                    Kept::New => prop_assert!(!known),
                    Kept::Old => prop_assert!(known),
                    Kept::Refused => {
                        prop_assert_eq!(pieces.len(), PIECES_MAX);
                        continue;
                    }
                }
                have[range].fill(true);
                prop_assert!(pieces.len() <= PIECES_MAX);
                for pair in pieces.list.windows(2) {
                    prop_assert!(pair[0].end().before(pair[1].start), "adjacent or overlapping");
                }
            }
            let mut seen = [false; 900];
            for piece in &pieces.list {
                let at = piece.start.since(START);
                let expected = bytes(at, u32::try_from(piece.bytes.len()).unwrap());
                prop_assert!(piece.bytes.iter().eq(&expected));
                seen[at as usize..][..expected.len()].fill(true);
            }
            prop_assert_eq!(seen, have);
        }
    }

    #[test]
    fn memory_is_that_of_the_bytes_and_not_of_the_gaps() {
        let mut pieces = Pieces::default();
        for at in 0..PIECES_MAX {
            let at = u32::try_from(at * 1_000_000).unwrap();
            assert_eq!(pieces.insert(START + at, &[7]), Kept::New);
        }
        assert!(pieces.memory() <= 8 * PIECES_MAX);
        assert_eq!(pieces.insert(START + 500, &[7]), Kept::Refused);
        assert_eq!(pieces.insert(START + 1, &[7]), Kept::New);
    }

    #[test]
    fn segments_in_reverse_order_move_few_bytes() {
        // Each prepends to one growing piece: linear in what arrives, or this test takes for ever.
        let mut pieces = Pieces::default();
        for at in (0..400_000).rev() {
            pieces.insert(START + at, &[stream(at)]);
        }
        let (taken, end) = pieces.take(START + 1).unwrap();
        assert_eq!((taken.len(), end, pieces.memory()), (399_999, START + 400_000, 0));
        assert!(taken.iter().copied().eq((1..400_000).map(stream)));
    }
}
