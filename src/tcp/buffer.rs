//! A byte queue that takes memory when bytes come and gives it back when the last one has left, so an idle connection holds none.

use std::collections::VecDeque;

/// A ring that doubles as it fills. Its owner bounds it.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "most connections have nothing in it, and eight bytes to say so")]
pub(super) struct Buffer(Option<Box<VecDeque<u8>>>);

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |ring| ring.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.0.as_ref().map_or(0, |ring| ring.capacity())
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().extend(bytes);
        }
    }

    /// `len` bytes from `at` on (fewer where the buffer ends), in two pieces.
    pub(super) fn slices(&self, at: usize, len: usize) -> (&[u8], &[u8]) {
        let Some(ring) = &self.0 else { return (&[], &[]) };
        let (first, second) = ring.as_slices();
        let end = (at + len).min(ring.len());
        let edge = first.len();
        (
            first.get(at.min(edge)..end.min(edge)).unwrap_or_default(),
            second.get(at.saturating_sub(edge)..end.saturating_sub(edge)).unwrap_or_default(),
        )
    }

    /// Drops the first `len` bytes.
    pub(super) fn advance(&mut self, len: usize) {
        match &mut self.0 {
            Some(ring) if len < ring.len() => drop(ring.drain(..len)),
            ring => *ring = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(buffer: &Buffer) -> Vec<u8> {
        let (first, second) = buffer.slices(0, buffer.len());
        [first, second].concat()
    }

    #[test]
    fn an_empty_buffer_holds_no_memory() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.memory(), 0);
        buffer.push(&[1; 5000]);
        buffer.advance(4999);
        assert!(buffer.memory() >= 5000);
        buffer.advance(1);
        assert_eq!((buffer.len(), buffer.memory()), (0, 0));
    }

    #[test]
    fn bytes_across_the_seam_are_found_again() {
        for shift in 0..60 {
            let mut buffer = Buffer::default();
            buffer.push(&[0; 60]);
            buffer.advance(shift);
            buffer.push(b"abcdef");
            assert!(all(&buffer).ends_with(b"abcdef"), "shift {shift}");
            let (first, second) = buffer.slices(buffer.len() - 5, 4);
            assert_eq!([first, second].concat(), b"bcde");
        }
    }
}
