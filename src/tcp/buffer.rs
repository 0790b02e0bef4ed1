//! A byte queue in pieces that stay where they are: what is received until it has been read, what is written until it has been acknowledged. A TLS record stays in the
//! buffer that it was sealed into until the peer has it.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::base::Piece;
use crate::tcp::memory::Memory;

/// A piece that is made here has room for so much at least, so that whoever writes byte by byte makes few.
const PIECE_MIN: usize = 256;

/// And for no more than so much unless it comes at once: as much as a TLS record holds. In between, four times what waits already, so
/// that room that is never used takes no more than a few times what bytes do; and nothing that would make memory scarce.
const PIECE_MAX: usize = 16_384;

/// The bytes of one segment, where they lie.
pub(super) type Payload<'a> = SmallVec<[&'a [u8]; 4]>;

/// A queue of pieces. It has no memory while it is empty; its owner bounds it.
#[derive(Debug, Default)]
pub(super) struct Buffer(Option<Box<Pieces>>);

#[derive(Debug, Default)]
struct Pieces {
    pieces: VecDeque<Held>,
    /// Of all bytes that the queue has ever had since it was last empty, how many have left it.
    begin: u64,
    /// And how many have come.
    end: u64,
    /// Bytes of memory that the pieces hold.
    held: usize,
}

#[derive(Debug)]
struct Held {
    piece: Piece,
    /// Where it ends, as in [`Pieces::end`].
    end: u64,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |all| usize::try_from(all.end - all.begin).unwrap_or(usize::MAX))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.0.as_ref().map_or(0, |all| all.held + all.pieces.capacity() * size_of::<Held>())
    }

    /// Appends a copy of bytes, to the last piece as far as it has room. Room for more that may come is made while there is plenty of memory.
    pub(super) fn push(&mut self, bytes: &[u8], memory: Memory) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().push(bytes, memory);
        }
    }

    /// Appends a piece as it is.
    pub(super) fn append(&mut self, piece: Piece) {
        if !piece.is_empty() {
            self.0.get_or_insert_default().append(piece);
        }
    }

    /// `len` bytes from `at` on; fewer where the queue ends.
    pub(super) fn payload(&self, at: usize, len: usize) -> Payload<'_> {
        self.0.as_ref().map_or_else(Payload::new, |all| all.payload(at as u64, len as u64))
    }

    /// What lies together at the front.
    pub(super) fn first(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |all| all.first())
    }

    /// Takes out what lies together at the front as it is, or a copy of its beginning if that is more than `most`.
    pub(super) fn take(&mut self, most: usize) -> Option<Piece> {
        let all = self.0.as_mut()?;
        let taken = match all.first() {
            first if first.len() <= most => all.pop()?,
            first => Piece::from(first.get(..most)?),
        };
        self.advance(taken.len());
        Some(taken)
    }

    /// Drops the first `len` bytes.
    pub(super) fn advance(&mut self, len: usize) {
        if let Some(all) = &mut self.0
            && !all.advance(len as u64)
        {
            self.0 = None;
        }
    }
}

impl Pieces {
    fn push(&mut self, bytes: &[u8], memory: Memory) {
        let mut rest = bytes;
        if let Some(last) = self.pieces.back_mut() {
            let fits;
            (fits, rest) = bytes.split_at(last.piece.room().min(bytes.len()));
            last.piece.extend(fits);
            last.end += fits.len() as u64;
            self.end = last.end;
        }
        if !rest.is_empty() {
            let waiting = index(self.end - self.begin);
            let ahead = match memory {
                Memory::Plenty { left } => (4 * waiting).clamp(PIECE_MIN, PIECE_MAX).min(left),
                Memory::Scarce | Memory::Exhausted => 0,
            };
            let mut piece = Piece::with_room(rest.len().max(ahead));
            piece.extend(rest);
            self.append(piece);
        }
    }

    fn append(&mut self, piece: Piece) {
        self.held += piece.memory();
        self.end += piece.len() as u64;
        self.pieces.push_back(Held { piece, end: self.end });
    }

    fn payload(&self, at: u64, len: u64) -> Payload<'_> {
        let from = self.begin + at;
        let to = (from + len).min(self.end);
        let first = self.pieces.partition_point(|held| held.end <= from);
        let mut payload = Payload::new();
        for held in self.pieces.range(first.min(self.pieces.len())..) {
            let begin = held.begin();
            if begin >= to {
                break;
            }
            let range = index(from.max(begin) - begin)..index(to.min(held.end) - begin);
            payload.extend(held.piece.bytes().get(range));
        }
        payload
    }

    fn first(&self) -> &[u8] {
        let first = self.pieces.front().and_then(|held| held.piece.bytes().get(index(self.begin - held.begin())..));
        first.unwrap_or_default()
    }

    /// The first piece, without what has left it already.
    fn pop(&mut self) -> Option<Piece> {
        let Held { mut piece, end } = self.pieces.pop_front()?;
        self.held -= piece.memory();
        let left = index(end - self.begin);
        piece.skip(piece.len() - left);
        Some(piece)
    }

    /// Whether anything is left.
    fn advance(&mut self, len: u64) -> bool {
        self.begin += len;
        while self.pieces.front().is_some_and(|first| first.end <= self.begin) {
            self.held -= self.pieces.pop_front().map_or(0, |first| first.piece.memory());
        }
        self.begin < self.end
    }
}

impl Held {
    fn begin(&self) -> u64 {
        self.end - self.piece.len() as u64
    }
}

/// A place in a piece, which is in memory.
fn index(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(buffer: &Buffer) -> Vec<u8> {
        buffer.payload(0, buffer.len()).concat()
    }

    #[test]
    fn a_piece_stays_where_it_is_until_its_last_byte_is_acknowledged() {
        let mut buffer = Buffer::default();
        let record = Piece::from(&[7; 16_406][..]);
        let place = record.bytes().as_ptr();
        buffer.push(b"flight", Memory::PLENTY);
        buffer.append(record);
        assert_eq!(buffer.payload(6, 1448)[0].as_ptr(), place);
        buffer.advance(6 + 16_405);
        assert_eq!(buffer.payload(0, 1448)[0].as_ptr(), place.wrapping_add(16_405));
        buffer.advance(1);
        assert_eq!((buffer.len(), buffer.memory()), (0, 0));
    }

    #[test]
    fn a_segment_may_span_any_number_of_pieces() {
        let mut buffer = Buffer::default();
        for byte in 0..10 {
            buffer.append(Piece::from(&[byte; 3][..]));
        }
        assert_eq!(buffer.payload(2, 9).concat(), [0, 1, 1, 1, 2, 2, 2, 3, 3]);
        assert_eq!(buffer.payload(29, 9).concat(), [9]);
        assert!(buffer.payload(30, 1).is_empty());
    }

    #[test]
    fn room_for_what_may_come_never_makes_memory_scarce() {
        for (memory, held_max) in [
            (Memory::Plenty { left: 3000 }, 1000 + 1000 + 3000),
            (Memory::Plenty { left: 1 }, 1000 + 1000 + 1000),
            (Memory::Scarce, 1000 + 1000 + 1000),
            (Memory::Exhausted, 1000 + 1000 + 1000),
        ] {
            let mut buffer = Buffer::default();
            buffer.push(&[1; 1000], Memory::Scarce);
            buffer.push(&[2; 1000], memory);
            buffer.push(&[3; 1000], Memory::Scarce);
            let held: usize = buffer.0.as_ref().unwrap().held;
            // Each piece has the same room around it, for what TLS puts there.
            let around = buffer.0.as_ref().unwrap().pieces.len() * (Piece::with_room(0).memory());
            assert!(held <= held_max + around, "{memory:?}: {held}");
            assert_eq!(buffer.len(), 3000);
        }
    }

    #[test]
    fn whoever_writes_byte_by_byte_has_few_pieces() {
        let mut buffer = Buffer::default();
        for _ in 0..100_000 {
            buffer.push(&[1], Memory::PLENTY);
        }
        assert_eq!(buffer.len(), 100_000);
        let held = buffer.memory();
        assert!(held < 120_000, "{held} bytes");
        assert!(all(&buffer).iter().all(|byte| *byte == 1));
    }

    proptest::proptest! {
        #[test]
        fn what_goes_in_comes_out(steps in proptest::collection::vec((0_u8..4, 0_usize..700), 1..60)) {
            let (mut buffer, mut model, mut next) = (Buffer::default(), Vec::<u8>::new(), 0_u8);
            for (kind, len) in steps {
                let bytes: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                match kind {
                    0 => { buffer.push(&bytes, Memory::PLENTY); model.extend(&bytes); }
                    1 => { model.extend(&bytes); buffer.append(Piece::from(&bytes[..])); }
                    2 => {
                        let first = buffer.first().len();
                        let taken = buffer.take(len).unwrap_or_default();
                        proptest::prop_assert_eq!(taken.len(), first.min(len));
                        proptest::prop_assert!(model.drain(..taken.len()).eq(taken.bytes().iter().copied()));
                    }
                    _ => { let len = len.min(model.len()); buffer.advance(len); model.drain(..len); }
                }
                proptest::prop_assert_eq!(&all(&buffer), &model);
                proptest::prop_assert_eq!(buffer.memory() == 0, model.is_empty());
                let at = model.len() / 3;
                proptest::prop_assert_eq!(buffer.payload(at, 100).concat(), &model[at..(at + 100).min(model.len())]);
            }
        }
    }
}
