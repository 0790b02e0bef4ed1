//! What a session was given: one buffer, in which records become plaintext where they lie.

use std::ops::Range;

use crate::base::Piece;
use crate::tls::cipher::HEADER;
use crate::tls::record::{self, Broken, Content, RECORD_MAX, Records};

/// Records from here on come alone: to hand one on where it lies costs less than to copy it.
const LONG: usize = 4096;

/// What was received: plaintext that waits to be taken, then records.
#[derive(Default)]
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    plaintext: Range<usize>,
    /// Where the first record begins that was not opened.
    records: usize,
}

impl Input {
    /// Takes bytes as long as there are no more than `most`, and gives how many.
    pub(super) fn take(&mut self, bytes: &[u8], most: usize) -> usize {
        if self.bytes.len() + bytes.len() > most {
            self.close_gaps();
        }
        let fits = bytes.get(..most.saturating_sub(self.bytes.len())).unwrap_or(bytes);
        self.bytes.extend_from_slice(fits);
        fits.len()
    }

    /// Takes bytes of records as long as there are no more than the longest record has. A long record comes alone, so that what is in it can be
    /// [taken](Self::take_plaintext) where it lies.
    pub(super) fn take_records(&mut self, bytes: &[u8]) -> usize {
        let Some(end) = self.end_of_next(bytes).filter(|end| end - self.records >= LONG) else {
            return self.take(bytes, RECORD_MAX);
        };
        // Not for a header alone: whoever sends that has no more memory than bytes.
        if self.bytes.is_empty() && 4 * bytes.len() >= end {
            self.bytes.reserve_exact(end);
        }
        let missing = end.saturating_sub(self.bytes.len());
        self.take(bytes.get(..missing).unwrap_or(bytes), RECORD_MAX)
    }

    /// Where the next record ends, if its header has come, or comes with these bytes.
    fn end_of_next(&self, bytes: &[u8]) -> Option<usize> {
        let come = self.bytes.get(self.records..).unwrap_or_default();
        let mut header = [0; HEADER];
        let mut rest = come.iter().chain(bytes);
        for byte in &mut header {
            *byte = *rest.next()?;
        }
        Some(self.records + record::len(&header).ok()??)
    }

    /// Moves what waits to the front.
    fn close_gaps(&mut self) {
        let Range { start, end } = self.plaintext;
        let len = self.bytes.len();
        self.bytes.copy_within(start..end, 0);
        self.bytes.copy_within(self.records..len, end - start);
        self.bytes.truncate(end - start + len - self.records);
        (self.plaintext, self.records) = (0..end - start, end - start);
    }

    /// Everything that is here is records.
    pub(super) fn begin_records(&mut self) {
        (self.plaintext, self.records) = (0..0, 0);
    }

    pub(super) fn plaintext(&self) -> &[u8] {
        self.bytes.get(self.plaintext.clone()).unwrap_or_default()
    }

    /// Takes out the plaintext where it lies, or a copy of its beginning if that is more than `most`.
    pub(super) fn take_plaintext(&mut self, most: usize) -> Option<Piece> {
        if self.plaintext.is_empty() || most == 0 {
            return None;
        }
        if let Some(first) = self.plaintext().get(..most).filter(|_| most < self.plaintext.len()) {
            let piece = Piece::from(first);
            self.plaintext.start += most;
            return Some(piece);
        }
        let rest = self.bytes.get(self.records..).unwrap_or_default().to_vec();
        let memory = std::mem::replace(&mut self.bytes, rest);
        self.records = 0;
        Some(Piece::cut(memory, std::mem::take(&mut self.plaintext)))
    }

    /// Opens the next record if it is whole, and says where it began.
    pub(super) fn open_next(&mut self, records: &mut Records) -> Result<Option<(Content, usize)>, Broken> {
        let begin = self.records;
        let rest = self.bytes.get_mut(begin..).unwrap_or_default();
        let Some(record) = record::len(rest)?.and_then(|len| rest.get_mut(..len)) else { return Ok(None) };
        let len = record.len();
        let content = records.open(record)?;
        self.records += len;
        Ok(Some((content, begin)))
    }

    /// What lies there is plaintext behind that which waits already.
    pub(super) fn add_plaintext(&mut self, range: Range<usize>) {
        if self.plaintext.is_empty() {
            self.plaintext = range;
        } else {
            let len = range.len();
            self.bytes.copy_within(range, self.plaintext.end);
            self.plaintext.end += len;
        }
    }

    pub(super) fn forget_records(&mut self) {
        self.bytes.truncate(self.plaintext.end);
        self.records = self.plaintext.end;
        self.release();
    }

    /// Gives the memory back once nothing waits: an idle session has none.
    pub(super) fn release(&mut self) {
        if self.plaintext.is_empty() && self.records >= self.bytes.len() {
            *self = Self::default();
        }
    }
}
