//! What is kept of sessions with one server, to resume them.

use std::sync::atomic::{AtomicU16, Ordering};

use crossbeam::queue::ArrayQueue;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Most tickets of TLS 1.3 that are kept of a server; the oldest goes first. Each is used once (RFC 8446 C.4), and every session gives one back, so there are
/// enough for that many connections that begin within a round trip, and the next ones shake hands in full. With each the chain of the server's certificates is kept.
pub const TICKETS_MAX: usize = 4;

/// No group: `0` is reserved (RFC 8446 4.2.7).
const NONE: u16 = 0;

/// The sessions of one lane with one server.
///
/// rustls asks for a store that threads could share. Only one ever does: every lane makes its targets for itself. So these are cells that need no lock and that
/// nobody contends for, and no name is looked at, for there is only one.
pub(super) struct Tickets {
    tls13: ArrayQueue<Tls13ClientSessionValue>,
    tls12: ArrayQueue<Tls12ClientSessionValue>,
    group: AtomicU16,
}

impl Default for Tickets {
    fn default() -> Self {
        Self { tls13: ArrayQueue::new(TICKETS_MAX), tls12: ArrayQueue::new(1), group: AtomicU16::new(NONE) }
    }
}

impl std::fmt::Debug for Tickets {
    /// Never shows a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("tls13", &self.tls13.len()).field("tls12", &self.tls12.len()).finish()
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.group.store(group.into(), Ordering::Relaxed);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        let group = self.group.load(Ordering::Relaxed);
        (group != NONE).then(|| group.into())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.tls12.force_push(value);
    }

    /// RFC 5077 lets a client use a TLS 1.2 ticket more than once.
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let session = self.tls12.pop()?;
        self.tls12.force_push(session.clone());
        Some(session)
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.tls12.pop();
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.tls13.force_push(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tls13.pop()
    }
}
