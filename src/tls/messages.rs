//! What a server says behind its handshake in TLS 1.3 (RFC 8446 4.6): messages that may come in pieces, or several in a record.

use crate::tls::record::{Alert, Broken};

/// Most bytes of a message, as in rustls.
const MESSAGE_MAX: usize = 0xffff;

/// Most bytes of a NewSessionTicket that are kept. Tickets of OpenSSL that hold a chain of client certificates have some thousand; a longer one is passed over.
pub(super) const TICKET_MAX: usize = 16 * 1024;

/// Messages in a row without application data between them. A server sends a ticket or two.
const MESSAGES_MAX: u8 = 32;

/// Type and length.
const HEAD: usize = 4;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// The messages of one server, of which at most one ticket is kept: a session has use for no more than it has spent.
pub(super) struct Messages {
    head: [u8; HEAD],
    head_len: usize,
    /// Bytes of the body that are still to come.
    rest: usize,
    /// The body, if it is kept.
    body: Vec<u8>,
    wants_ticket: bool,
    ticket: Option<Vec<u8>>,
    left: u8,
}

impl Messages {
    pub(super) fn new(wants_ticket: bool) -> Self {
        Self { head: [0; HEAD], head_len: 0, rest: 0, body: Vec::new(), wants_ticket, ticket: None, left: MESSAGES_MAX }
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_within(&self) -> bool {
        self.head_len > 0
    }

    /// There was application data.
    pub(super) fn on_data(&mut self) {
        self.left = MESSAGES_MAX;
    }

    /// Keeps no ticket any more.
    pub(super) fn forget_tickets(&mut self) {
        self.wants_ticket = false;
    }

    /// The body of the first ticket, once.
    pub(super) fn take_ticket(&mut self) -> Option<Vec<u8>> {
        self.ticket.take()
    }

    /// Takes the payload of a record. `Some` is what a KeyUpdate asks for, which can only be the last in it (RFC 8446 5.1).
    pub(super) fn on_payload(&mut self, mut payload: &[u8]) -> Result<Option<u8>, Broken> {
        while !payload.is_empty() {
            payload = self.take_head(payload)?;
            if self.head_len < HEAD {
                break;
            }
            let (body, behind) = payload.split_at(self.rest.min(payload.len()));
            let [kind, ..] = self.head;
            let is_kept = kind == KEY_UPDATE || self.wants_ticket && self.len() <= TICKET_MAX;
            if is_kept {
                self.body.extend_from_slice(body);
            }
            self.rest -= body.len();
            payload = behind;
            if self.rest > 0 {
                break;
            }
            self.head_len = 0;
            let body = std::mem::take(&mut self.body);
            match (kind, body.as_slice()) {
                (KEY_UPDATE, [request]) if payload.is_empty() => return Ok(Some(*request)),
                (KEY_UPDATE, _) => return Err(Broken::by_peer(Alert::UnexpectedMessage)),
                _ if is_kept => {
                    self.wants_ticket = false;
                    self.ticket = Some(body);
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Takes what is missing of type and length, and gives what is behind them.
    fn take_head<'a>(&mut self, payload: &'a [u8]) -> Result<&'a [u8], Broken> {
        let (head, behind) = payload.split_at((HEAD - self.head_len).min(payload.len()));
        if head.is_empty() {
            return Ok(behind);
        }
        self.head.iter_mut().skip(self.head_len).zip(head).for_each(|(to, from)| *to = *from);
        self.head_len += head.len();
        // RFC 8446 4.6.2: no client of ours offers post_handshake_auth, so there is no CertificateRequest either.
        if ![NEW_SESSION_TICKET, KEY_UPDATE].contains(&self.head[0]) {
            return Err(Broken::by_peer(Alert::UnexpectedMessage));
        }
        if self.head_len == HEAD {
            self.rest = self.len();
            let [kind, ..] = self.head;
            if kind == KEY_UPDATE && self.rest != 1 {
                return Err(Broken::by_peer(Alert::UnexpectedMessage));
            }
            if self.rest == 0 || self.rest > MESSAGE_MAX {
                return Err(Broken::by_peer(Alert::DecodeError));
            }
            self.left = self.left.checked_sub(1).ok_or(Broken::by_peer(Alert::UnexpectedMessage))?;
        }
        Ok(behind)
    }

    fn len(&self) -> usize {
        let [_, a, b, c] = self.head;
        u32::from_be_bytes([0, a, b, c]) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind][..], &len[1..], body].concat()
    }

    const UNEXPECTED: Result<Option<u8>, Broken> = Err(Broken::by_peer(Alert::UnexpectedMessage));

    #[test]
    fn the_first_ticket_is_kept_in_whatever_pieces_it_comes() {
        let wire = [message(4, &[1; 300]), message(4, &[2; 300]), message(24, &[1])].concat();
        for piece in [1, 3, 7, 299, 5000] {
            let mut messages = Messages::new(true);
            let mut updates = Vec::new();
            for payload in wire.chunks(piece) {
                updates.extend(messages.on_payload(payload).unwrap());
            }
            assert_eq!(updates, [1]);
            assert!(!messages.is_within());
            assert_eq!(messages.take_ticket(), Some(vec![1; 300]));
            assert_eq!(messages.take_ticket(), None, "once");
        }
    }

    #[test]
    fn a_ticket_that_is_not_wanted_or_too_long_is_passed_over_and_takes_no_memory() {
        for (wanted, len) in [(false, 300), (true, TICKET_MAX + 1)] {
            let mut messages = Messages::new(wanted);
            for payload in message(4, &vec![1; len]).chunks(1000) {
                assert_eq!(messages.on_payload(payload), Ok(None));
                assert_eq!(messages.body.capacity(), 0);
            }
            assert!(!messages.is_within());
            assert_eq!(messages.take_ticket(), None);
        }
    }

    #[test]
    fn nothing_but_tickets_and_new_keys_may_come() {
        // HelloRequest, ServerHello, CertificateRequest, Finished.
        for kind in [0, 2, 13, 20] {
            assert_eq!(Messages::new(true).on_payload(&[kind]), UNEXPECTED);
        }
        assert_eq!(Messages::new(true).on_payload(&message(24, &[0, 0])), UNEXPECTED);
        assert_eq!(Messages::new(true).on_payload(&[message(24, &[0]), message(4, &[1])].concat()), UNEXPECTED);
        for length in [[0, 0, 0], [1, 0, 0]] {
            let payload = [&[4][..], &length].concat();
            assert_eq!(Messages::new(true).on_payload(&payload), Err(Broken::by_peer(Alert::DecodeError)));
        }
    }

    #[test]
    fn a_server_that_sends_nothing_but_tickets_is_given_up() {
        let mut messages = Messages::new(true);
        let count = (0..100).take_while(|_| messages.on_payload(&message(4, &[1])) == Ok(None)).count();
        assert_eq!(count, usize::from(MESSAGES_MAX));
        let mut messages = Messages::new(true);
        for _ in 0..100 {
            messages.on_data();
            assert_eq!(messages.on_payload(&message(4, &[1])), Ok(None));
        }
    }
}
