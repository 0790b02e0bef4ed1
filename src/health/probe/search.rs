//! Looks for a text in bytes that come in parts, and keeps no more of them than the text is long.

use std::sync::Arc;

use memchr::memmem;

/// A text that is looked for.
#[derive(Debug)]
pub(super) struct Search {
    text: Arc<[u8]>,
    /// The last bytes that have come, one fewer than the text has: the beginning of what may become it.
    tail: Vec<u8>,
    is_found: bool,
}

impl Search {
    pub(super) fn new(text: &Arc<[u8]>) -> Self {
        Self { text: Arc::clone(text), tail: Vec::new(), is_found: false }
    }

    /// Takes the next bytes. If the text is complete with them for the first time: how many of them it took.
    pub(super) fn on_data(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.is_found {
            return None;
        }
        let before = self.tail.len();
        self.tail.extend_from_slice(bytes);
        if let Some(at) = memmem::find(&self.tail, &self.text) {
            self.is_found = true;
            self.tail = Vec::new();
            return Some((at + self.text.len()).saturating_sub(before));
        }
        let kept = self.text.len().saturating_sub(1).min(self.tail.len());
        self.tail.drain(..self.tail.len() - kept);
        None
    }

    pub(super) fn is_found(&self) -> bool {
        self.is_found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_where_it_ends_however_the_bytes_come() {
        let bytes = b"a aab aaab aaaab";
        for (text, end) in
            [(&b"aaab"[..], Some(10)), (b"a", Some(1)), (b"aaaab", Some(16)), (b"b aaaab", Some(16)), (b"x", None)]
        {
            for split in 0..=bytes.len() {
                let mut search = Search::new(&text.into());
                let (one, two) = bytes.split_at(split);
                let found = search.on_data(one).or_else(|| search.on_data(two).map(|at| at + split));
                assert_eq!(found, end, "{text:?} split at {split}");
                assert_eq!(search.is_found(), end.is_some());
            }
        }
    }

    #[test]
    fn it_keeps_less_than_the_text() {
        let mut search = Search::new(&b"12345678"[..].into());
        for _ in 0..100 {
            assert_eq!(search.on_data(b"123456712345671234567"), None);
            assert_eq!(search.tail.len(), 7);
        }
    }
}
