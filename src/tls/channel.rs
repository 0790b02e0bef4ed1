//! What either side of a session keeps: bytes that came, bytes to transmit, and once the handshake has ended its records.

use crate::base::Piece;
use crate::tls::cipher::{OVERHEAD_MAX, PLAINTEXT_MAX};
use crate::tls::input::Input;
use crate::tls::record::{Alert, Broken, Content, Records};

/// Both directions of a session, below whatever its handshake is.
#[derive(Default)]
pub(super) struct Channel {
    pub(super) input: Input,
    /// Handshake messages and alerts to transmit, and how much of them has been.
    pub(super) output: Vec<u8>,
    transmitted: usize,
    /// Once application data flows, until the session is over.
    records: Option<Box<Records>>,
    pub(super) peer_has_closed: bool,
    has_closed: bool,
}

impl Channel {
    /// The handshake has ended: from here on the records are ours. [`open_records`](Self::open_records) has work at once if data came with the last message.
    pub(super) fn begin_records(&mut self, records: Records) {
        self.records = Some(Box::new(records));
        self.input.begin_records();
    }

    pub(super) fn records(&mut self) -> Option<&mut Records> {
        self.records.as_deref_mut()
    }

    /// Takes bytes of an established session. What comes behind close_notify is taken and ignored (RFC 8446 6.1).
    pub(super) fn take_records(&mut self, bytes: &[u8]) -> usize {
        if self.peer_has_closed { bytes.len() } else { self.input.take_records(bytes) }
    }

    /// Opens all whole records that have come.
    pub(super) fn open_records(&mut self) -> Result<(), Broken> {
        let Some(records) = self.records.as_deref_mut() else { return Ok(()) };
        while !self.peer_has_closed {
            let Some((content, at)) = self.input.open_next(records)? else { break };
            match content {
                Content::Data(range) => self.input.add_plaintext(at + range.start..at + range.end),
                Content::Closed => self.peer_has_closed = true,
                Content::Renegotiation => self.output.extend(records.seal_alert(Alert::NoRenegotiation)?.bytes()),
                Content::Nothing => {}
            }
        }
        if self.peer_has_closed {
            self.input.forget_records();
        }
        self.input.release();
        Ok(())
    }

    pub(super) fn poll_transmit(&mut self, mut take: impl FnMut(&[u8]) -> usize) {
        let rest = self.output.get(self.transmitted..).unwrap_or_default();
        if !rest.is_empty() {
            self.transmitted += take(rest).min(rest.len());
        }
        if self.transmitted == self.output.len() {
            (self.output, self.transmitted) = (Vec::new(), 0);
        }
    }

    pub(super) fn has_output(&self) -> bool {
        self.transmitted < self.output.len()
    }

    /// Seals what `take` gives; see [`Session::seal`](super::Session::seal).
    pub(super) fn seal(
        &mut self,
        room: usize,
        take: impl FnOnce(usize) -> Option<Piece>,
    ) -> Result<Option<(usize, Piece)>, Broken> {
        let fits = room.saturating_sub(OVERHEAD_MAX).min(PLAINTEXT_MAX);
        let Some(records) = self.records.as_deref_mut() else { return Ok(None) };
        if self.has_closed || fits == 0 || self.transmitted < self.output.len() {
            return Ok(None);
        }
        if let Some(update) = records.update()? {
            self.output.extend(update.bytes());
            return Ok(None);
        }
        let Some(plaintext) = take(fits).filter(|plaintext| !plaintext.is_empty()) else { return Ok(None) };
        let taken = plaintext.len();
        Ok(Some((taken, records.seal_data(plaintext)?)))
    }

    /// Puts close_notify among the output, once.
    pub(super) fn close(&mut self) {
        if let Some(records) = self.records.as_deref_mut()
            && !std::mem::replace(&mut self.has_closed, true)
        {
            // It errs only where no record can be sealed at all.
            self.output.extend(records.seal_alert(Alert::CloseNotify).unwrap_or_default().bytes());
        }
    }

    /// A record has ended the session: its alert goes out under the session's keys.
    pub(super) fn fail(&mut self, broken: Broken) {
        if let (Some(records), Some(alert)) = (self.records.as_deref_mut(), broken.alert) {
            self.output.extend(records.seal_alert(alert).unwrap_or_default().bytes());
        }
        self.end();
    }

    /// The session is over: what was decrypted before may still be read, and the output transmitted.
    pub(super) fn end(&mut self) {
        self.records = None;
        self.input.forget_records();
    }
}
