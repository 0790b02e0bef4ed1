//! Bytes with room around them.

use std::ops::Range;

/// Room in front of the bytes of a new piece: header and explicit nonce of a TLS record are 13.
const FRONT: usize = 16;

/// Room behind them that is kept for what is put there last: content type and tag of a TLS record are 17.
const BACK: usize = 24;

/// Bytes that lie together, and can be given a header and a trailer where they are: received data becomes a TLS record without being copied.
#[derive(Clone, Default)]
pub struct Piece {
    /// What is in front of `begin` is of no value.
    memory: Vec<u8>,
    begin: usize,
}

impl Piece {
    /// An empty one with [room](Self::room) for so many bytes.
    pub fn with_room(len: usize) -> Self {
        let mut memory = Vec::with_capacity(FRONT + len + BACK);
        memory.resize(FRONT, 0);
        Self { memory, begin: FRONT }
    }

    /// Those of the bytes in `memory` that are in the range.
    pub fn cut(mut memory: Vec<u8>, range: Range<usize>) -> Self {
        memory.truncate(range.end);
        let begin = range.start.min(memory.len());
        Self { memory, begin }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.begin..).unwrap_or_default()
    }

    /// The bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.begin..).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.memory.len() - self.begin
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many can be [put behind](Self::extend) them so that there is still room for a trailer, without a move of the others.
    pub fn room(&self) -> usize {
        (self.memory.capacity() - self.memory.len()).saturating_sub(BACK)
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.memory.capacity()
    }

    /// Puts bytes behind the others; moves them where there is no room.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
    }

    /// Puts bytes in front of the others; moves them where there is no room.
    pub fn prepend(&mut self, bytes: &[u8]) {
        if let Some(begin) = self.begin.checked_sub(bytes.len())
            && let Some(front) = self.memory.get_mut(begin..self.begin)
        {
            front.copy_from_slice(bytes);
            self.begin = begin;
        } else {
            self.memory.splice(..self.begin, bytes.iter().copied());
            self.begin = 0;
        }
    }

    /// Drops bytes at the front.
    pub fn skip(&mut self, len: usize) {
        self.begin = (self.begin + len).min(self.memory.len());
    }
}

impl From<&[u8]> for Piece {
    /// A copy.
    fn from(bytes: &[u8]) -> Self {
        let mut piece = Self::with_room(bytes.len());
        piece.extend(bytes);
        piece
    }
}

impl PartialEq for Piece {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Piece {}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bytes().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_trailer_find_room_without_a_move() {
        let mut piece = Piece::with_room(100);
        piece.extend(&[1; 60]);
        assert_eq!((piece.len(), piece.room()), (60, 40));
        piece.extend(&[1; 40]);
        let (place, memory) = (piece.bytes().as_ptr(), piece.memory());
        piece.prepend(&[2; 13]);
        piece.extend(&[3; 17]);
        assert_eq!(piece.bytes().as_ptr().wrapping_add(13), place);
        assert_eq!((piece.len(), piece.room(), piece.memory()), (130, 0, memory));
    }

    #[test]
    fn a_cut_is_where_it_was() {
        let memory = vec![1, 2, 3, 4, 5];
        let place = memory.as_ptr();
        let piece = Piece::cut(memory, 1..3);
        assert_eq!((piece.bytes(), piece.bytes().as_ptr()), (&[2, 3][..], place.wrapping_add(1)));
        assert!(Piece::cut(vec![1], 5..7).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn bytes_keep_their_order(steps in proptest::collection::vec((0_u8..3, 0_usize..40), 0..20)) {
            let (mut piece, mut model) = (Piece::default(), Vec::<u8>::new());
            for (number, (kind, len)) in (0..).zip(steps) {
                let bytes = vec![number; len];
                match kind {
                    0 => { piece.extend(&bytes); model.extend(&bytes); }
                    1 => { piece.prepend(&bytes); model.splice(..0, bytes); }
                    _ => { piece.skip(len); model.drain(..len.min(model.len())); }
                }
                proptest::prop_assert_eq!(piece.bytes(), &model[..]);
                proptest::prop_assert_eq!(piece.is_empty(), model.is_empty());
            }
        }
    }
}
