//! What has been written and not been acknowledged, in the pieces in which it came: a TLS record stays in the buffer that it was sealed into until the peer has it.

use std::collections::VecDeque;

use smallvec::SmallVec;

/// A piece that is made here has room for so much, so that whoever writes byte by byte makes few.
const PIECE_MIN: usize = 256;

/// The bytes of one segment, where they lie.
pub(super) type Payload<'a> = SmallVec<[&'a [u8]; 4]>;

/// A queue of pieces. It has no memory while it is empty; its owner bounds it.
#[derive(Debug, Default)]
pub(super) struct Outbox(Option<Box<Pieces>>);

#[derive(Debug, Default)]
struct Pieces {
    pieces: VecDeque<Piece>,
    /// Of all bytes that the queue has ever had since it was last empty, how many have left it.
    begin: u64,
    /// And how many have come.
    end: u64,
    /// Bytes of memory that the pieces hold.
    held: usize,
}

#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    /// Where it ends, as in [`Pieces::end`].
    end: u64,
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |all| usize::try_from(all.end - all.begin).unwrap_or(usize::MAX))
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.0.as_ref().map_or(0, |all| all.held + all.pieces.capacity() * size_of::<Piece>())
    }

    /// Appends a copy of bytes, to the last piece as far as it has room.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().push(bytes);
        }
    }

    /// Appends a piece as it is.
    pub(super) fn append(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().append(bytes);
        }
    }

    /// `len` bytes from `at` on; fewer where the queue ends.
    pub(super) fn payload(&self, at: usize, len: usize) -> Payload<'_> {
        self.0.as_ref().map_or_else(Payload::new, |all| all.payload(at as u64, len as u64))
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
    fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if let Some(last) = self.pieces.back_mut() {
            let room = last.bytes.capacity() - last.bytes.len();
            let fits;
            (fits, rest) = bytes.split_at(room.min(bytes.len()));
            last.bytes.extend_from_slice(fits);
            last.end += fits.len() as u64;
            self.end = last.end;
        }
        if !rest.is_empty() {
            let mut piece = Vec::with_capacity(rest.len().max(PIECE_MIN));
            piece.extend_from_slice(rest);
            self.append(piece);
        }
    }

    fn append(&mut self, bytes: Vec<u8>) {
        self.held += bytes.capacity();
        self.end += bytes.len() as u64;
        self.pieces.push_back(Piece { bytes, end: self.end });
    }

    fn payload(&self, at: u64, len: u64) -> Payload<'_> {
        let from = self.begin + at;
        let to = (from + len).min(self.end);
        let first = self.pieces.partition_point(|piece| piece.end <= from);
        let mut payload = Payload::new();
        for piece in self.pieces.range(first.min(self.pieces.len())..) {
            let begin = piece.begin();
            if begin >= to {
                break;
            }
            let range = index(from.max(begin) - begin)..index(to.min(piece.end) - begin);
            payload.extend(piece.bytes.get(range));
        }
        payload
    }

    /// Whether anything is left.
    fn advance(&mut self, len: u64) -> bool {
        self.begin += len;
        while self.pieces.front().is_some_and(|first| first.end <= self.begin) {
            self.held -= self.pieces.pop_front().map_or(0, |first| first.bytes.capacity());
        }
        self.begin < self.end
    }
}

impl Piece {
    fn begin(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }
}

/// A place in a piece, which is in memory.
fn index(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(outbox: &Outbox) -> Vec<u8> {
        outbox.payload(0, outbox.len()).concat()
    }

    #[test]
    fn a_piece_stays_where_it_is_until_its_last_byte_is_acknowledged() {
        let mut outbox = Outbox::default();
        let record = vec![7; 16_406];
        let place = record.as_ptr();
        outbox.push(b"flight");
        outbox.append(record);
        assert_eq!(outbox.payload(6, 1448)[0].as_ptr(), place);
        outbox.advance(6 + 16_405);
        assert_eq!(outbox.payload(0, 1448)[0].as_ptr(), place.wrapping_add(16_405));
        outbox.advance(1);
        assert_eq!((outbox.len(), outbox.memory()), (0, 0));
    }

    #[test]
    fn a_segment_may_span_any_number_of_pieces() {
        let mut outbox = Outbox::default();
        for byte in 0..10 {
            outbox.append(vec![byte; 3]);
        }
        assert_eq!(outbox.payload(2, 9).concat(), [0, 1, 1, 1, 2, 2, 2, 3, 3]);
        assert_eq!(outbox.payload(29, 9).concat(), [9]);
        assert!(outbox.payload(30, 1).is_empty());
    }

    #[test]
    fn whoever_writes_byte_by_byte_has_few_pieces() {
        let mut outbox = Outbox::default();
        for _ in 0..100_000 {
            outbox.push(&[1]);
        }
        assert_eq!(outbox.len(), 100_000);
        let held = outbox.memory();
        assert!(held < 120_000, "{held} bytes");
        assert!(all(&outbox).iter().all(|byte| *byte == 1));
    }

    proptest::proptest! {
        #[test]
        fn what_goes_in_comes_out(steps in proptest::collection::vec((0_u8..3, 0_usize..700), 1..60)) {
            let (mut outbox, mut model, mut next) = (Outbox::default(), Vec::<u8>::new(), 0_u8);
            for (kind, len) in steps {
                let bytes: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                match kind {
                    0 => { outbox.push(&bytes); model.extend(&bytes); }
                    1 => { model.extend(&bytes); outbox.append(bytes); }
                    _ => { let len = len.min(model.len()); outbox.advance(len); model.drain(..len); }
                }
                proptest::prop_assert_eq!(&all(&outbox), &model);
                proptest::prop_assert_eq!(outbox.memory() == 0, model.is_empty());
                let at = model.len() / 3;
                proptest::prop_assert_eq!(outbox.payload(at, 100).concat(), &model[at..(at + 100).min(model.len())]);
            }
        }
    }
}
