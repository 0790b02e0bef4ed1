//! rustls's `ProducesTickets` over our seal: the mapping travels beside rustls's own ticket.
//!
//! What rustls 0.23 does with us, read in its source (`server/tls12.rs`, `server/tls13.rs`):
//!
//! - TLS 1.3: while it handles a ClientHello it calls `decrypt` for each identity in turn, before the binder is checked, until one opens *and*
//!   fits the session (cipher suite, server name). It checks the binder of that one only and a wrong one ends the handshake. A client that
//!   does not offer `psk_dhe_ke` gets a full handshake even then. `encrypt` comes once a ticket, while it handles the client's Finished; for `None` that
//!   ticket is left out.
//! - TLS 1.2: `decrypt` comes once a ClientHello. If the ticket opens and fits, the session *is* resumed, and `encrypt` comes within the same call: its master
//!   secret proves itself in the Finished messages. In a full handshake `encrypt` comes while it handles the client's Finished. For `None` an
//!   empty NewSessionTicket is sent (RFC 5077 3.3), over which clients keep the ticket that they have.

use std::sync::Arc;

use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use crate::balance::Pool;
use crate::base::{Duration, Ledger, UnixTime};
use crate::persistence::{self, Profile, Reason};
use crate::ticket::ring::KEYS_MAX;
use crate::ticket::{self, Envelope, KeyId, Refusal, TICKET_MAX, TlsVersion};
use crate::tls::clients::{self, ClientCertificates, Stale};
use crate::tls::desk::{self, Opened, Papers};
use crate::tls::notes::{Shown, note, note_client};
use crate::tls::service::Tickets;

/// S4: tickets that cost cryptography, in one ClientHello. What the header alone refuses is not counted: it costs less than a hash.
pub const OPENS_MAX: u8 = 4;

/// K5: how far in the future a ticket may have been issued. More means that two engines' clocks disagree.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// RFC 8446 4.6.1: no ticket lives longer than a week.
const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

crate::counters! {
    /// What a lane's ticketers count.
    pub struct Counters {
        /// Tickets sealed
        counter sealed,
        /// Tickets not issued because the key ring may not seal
        counter withheld_ring,
        /// Tickets not issued because the connection was refused
        counter withheld_refused,
        /// Tickets not issued because the service has none for TLS 1.2
        counter withheld_tls12,
        /// Tickets not issued because they would be too long: the client's certificates do not fit
        counter withheld_length,
        /// Tickets opened
        counter opened,
        /// Tickets opened and then not selected by the handshake
        counter opened_not_selected,
        /// Tickets refused: too long or too short
        counter refused_length,
        /// Tickets refused: sealed in an unknown version, or not by a service engine
        counter refused_version,
        /// Tickets refused: sealed under a key that is not in the ring
        counter refused_unknown_key,
        /// Tickets refused: altered, or sealed for another cluster, service or security policy
        counter refused_forged,
        /// Tickets refused: sealed rightly, but the inside cannot be read
        counter refused_envelope,
        /// Tickets refused: older than the ticket lifetime
        counter refused_expired,
        /// Tickets refused: too long since the full handshake
        counter refused_session_aged,
        /// Tickets refused: issued in the future, so the clocks of two engines disagree
        counter refused_future,
        /// Tickets refused: of TLS 1.2, for which the service has none
        counter refused_tls12,
        /// Tickets refused: of a client whose certificate has expired
        counter refused_client_expired,
        /// Tickets refused: of a client whose certificate, or one of its path, has been revoked
        counter refused_client_revoked,
        /// Tickets refused: of a client of whose certificate's issuer there is no revocation list that holds
        counter refused_client_unknown,
        /// Tickets refused: of a client without a certificate where one is required, or with one where none is asked for
        counter refused_client_mode,
        /// Tickets refused: too many in one ClientHello
        counter refused_too_many,
        /// Handshakes completed in full
        counter handshakes_full,
        /// Handshakes completed by resumption
        counter handshakes_resumed,
        /// ClientHellos for a server name that no certificate covers, or for none where one is required
        counter server_names_unknown,
    }
}

/// Most engines whose tickets are counted by issuer. Those of others are counted together.
pub const ISSUERS_MAX: usize = 32;

/// What a lane counts of each ticket key and of each engine that issued tickets.
#[derive(Debug, Default)]
pub struct Ledgers {
    /// By key, in the order of [`Self::KEYS`]: those of the ring.
    pub keys: Ledger<KEYS_MAX, 3>,
    /// By issuer, in the order of [`Self::ISSUERS`].
    pub issuers: Ledger<ISSUERS_MAX, 2>,
}

impl Ledgers {
    /// What is counted of a key: its name, and what it means.
    pub const KEYS: [(&str, &str); 3] = [
        ("sealed", "Tickets sealed under the key"),
        ("opened", "Tickets opened that were sealed under the key"),
        ("refused", "Tickets refused that name the key: forged, too old, or of a client that may not come again"),
    ];
    /// What is counted of an issuer.
    pub const ISSUERS: [(&str, &str); 2] = [
        ("opened", "Tickets opened that the engine issued"),
        ("resumed", "Sessions resumed from tickets that the engine issued"),
    ];
    const SEALED: usize = 0;
    const OPENED: usize = 1;
    const REFUSED: usize = 2;
    const OPENED_OF: usize = 0;
    pub(super) const RESUMED_OF: usize = 1;

    fn count(&self, key: KeyId, column: usize) {
        self.keys.count(u64::from_be_bytes(key.0), column);
    }
}

/// Why a ticket that opens is not honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unhonoured {
    /// The service has no tickets for TLS 1.2.
    #[error("it is of TLS 1.2, for which this service has no tickets")]
    Tls12,
    /// K5: issued more than [`CLOCK_SKEW_MAX`] from now.
    #[error("it was issued in the future: the clocks of two engines disagree")]
    Future,
    /// H3: older than the ticket lifetime.
    #[error("it is older than the ticket lifetime")]
    Expired,
    /// H3: too long since the full handshake.
    #[error("its session's full handshake was too long ago")]
    SessionAged,
    /// H6: its client would not be taken without its certificates.
    #[error("{0}")]
    Client(Stale),
}

/// What a service's ticketer goes by. Shared with nobody outside of the lane.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) client_certificates: Option<Arc<ClientCertificates>>,
    pub(super) tickets: Tickets,
    pub(super) pool: Arc<Pool>,
    pub(super) profile: Option<Arc<Profile>>,
}

impl Terms {
    /// Whether a ticket that has been opened resumes its session now, as far as the engine is asked.
    pub(super) fn honour(&self, envelope: &Envelope, now: UnixTime) -> Result<(), Unhonoured> {
        if envelope.version == TlsVersion::Tls12 && !self.tickets.tls12 {
            return Err(Unhonoured::Tls12);
        }
        if envelope.issued > now + CLOCK_SKEW_MAX {
            return Err(Unhonoured::Future);
        }
        if now.since(envelope.issued) > self.tickets.lifetime {
            return Err(Unhonoured::Expired);
        }
        if now.since(envelope.original_handshake) > self.session_max(envelope.version) {
            return Err(Unhonoured::SessionAged);
        }
        // H6: whether its client may be taken again without its certificates.
        let stale = clients::refuse(self.client_certificates.as_deref(), envelope.client.as_ref(), now);
        stale.map_or(Ok(()), |stale| Err(Unhonoured::Client(stale)))
    }

    /// How long after its full handshake a session of `version` is resumed at most.
    fn session_max(&self, version: TlsVersion) -> Duration {
        match version {
            TlsVersion::Tls12 => self.tickets.session_max_tls12,
            TlsVersion::Tls13 => self.tickets.session_max,
        }
    }
}

/// One virtual service's tickets.
#[derive(Debug)]
pub(super) struct Ticketer {
    terms: Arc<Terms>,
}

impl Ticketer {
    pub(super) fn new(terms: Arc<Terms>) -> Self {
        Self { terms }
    }

    /// Opens a ticket, or counts why not.
    fn open(&self, papers: &mut Papers, ticket: &[u8]) -> Option<Vec<u8>> {
        let Papers { counters, ledgers, step, now, keys, .. } = papers;
        // S5: also by the seal, but a limit that comes first is checked first.
        if ticket.len() > TICKET_MAX {
            counters.refused_length.increment();
            return None;
        }
        if step.opens == OPENS_MAX {
            counters.refused_too_many.increment();
            return None;
        }
        let (envelope, key_id) = match ticket::open(keys.of(&self.terms.tickets.scope), ticket) {
            Ok(opened) => {
                step.opens += 1;
                opened
            }
            Err(refusal) => {
                match refusal {
                    Refusal::Length => counters.refused_length.increment(),
                    Refusal::Version => counters.refused_version.increment(),
                    Refusal::UnknownKey => counters.refused_unknown_key.increment(),
                    Refusal::Forged => {
                        step.opens += 1;
                        counters.refused_forged.increment();
                    }
                    Refusal::Envelope => {
                        step.opens += 1;
                        counters.refused_envelope.increment();
                    }
                }
                // A key that the ring has not is whatever its sender likes.
                let names_a_key = matches!(refusal, Refusal::Forged | Refusal::Envelope);
                if let Some(key) = ticket::seal::key_id(ticket).ok().filter(|_| names_a_key) {
                    ledgers.count(key, Ledgers::REFUSED);
                }
                return None;
            }
        };
        if let Err(why) = self.terms.honour(&envelope, *now) {
            let counter = match why {
                Unhonoured::Tls12 => &counters.refused_tls12,
                Unhonoured::Future => &counters.refused_future,
                Unhonoured::Expired => &counters.refused_expired,
                Unhonoured::SessionAged => &counters.refused_session_aged,
                Unhonoured::Client(Stale::Mode) => &counters.refused_client_mode,
                Unhonoured::Client(Stale::Expired) => &counters.refused_client_expired,
                Unhonoured::Client(Stale::Revoked) => &counters.refused_client_revoked,
                Unhonoured::Client(Stale::Unknown) => &counters.refused_client_unknown,
            };
            counter.increment();
            ledgers.count(key_id, Ledgers::REFUSED);
            return None;
        }
        counters.opened.increment();
        ledgers.count(key_id, Ledgers::OPENED);
        ledgers.issuers.count(envelope.issuer.0, Ledgers::OPENED_OF);
        // The last one wins: rustls tries no other after the one that it selects.
        let Envelope { version, mapping, original_handshake, issuer, issued, client, mut session } = envelope;
        note_client(client.map_or(Shown::Nothing, Shown::Credential));
        step.opened = Some(Opened { version, mapping, original_handshake, issued, issuer, key_id });
        Some(std::mem::take(&mut *session))
    }

    /// Seals a ticket around rustls's own, or counts why not.
    fn seal(&self, papers: &mut Papers, session: &[u8]) -> Option<Vec<u8>> {
        let opened = papers.step.opened;
        // Known before the call, but for a resumption in TLS 1.2, where it is that of the ticket which was just opened.
        let version = papers.step.version.or(opened.map(|opened| opened.version))?;
        if version == TlsVersion::Tls12 && !self.terms.tickets.tls12 {
            papers.counters.withheld_tls12.increment();
            return None;
        }
        let now = papers.now;
        let backend = papers.backend.clone()?;
        let decision = papers.step.decide(&self.terms, &backend, papers.engine, now);
        if decision.server.is_none() && decision.reason != Reason::Recalling {
            papers.counters.withheld_refused.increment();
            return None;
        }
        let shown = note(|notes| match &notes.client {
            Shown::Credential(credential) => Some(Some(credential.clone())),
            Shown::Nothing => Some(None),
            Shown::TooMuch => None,
        });
        let Some(client) = shown.unwrap_or(Some(None)) else {
            papers.counters.withheld_length.increment();
            return None;
        };
        let previous = opened.and_then(|opened| opened.mapping);
        let mapping = persistence::tls::mapping_to_seal(&decision, previous.as_ref(), backend.pool(), now);
        let envelope = Envelope {
            version,
            mapping,
            original_handshake: opened.map_or(now, |opened| opened.original_handshake),
            issued: now,
            issuer: papers.engine,
            client,
            session: Zeroizing::new(session.to_vec()),
        };
        let keys = papers.keys.of(&self.terms.tickets.scope);
        let ticket = ticket::seal(keys, &envelope, &mut papers.random);
        match (&ticket, keys.active()) {
            (Some(_), key) => {
                papers.counters.sealed.increment();
                if let Some(key) = key {
                    papers.ledgers.count(key, Ledgers::SEALED);
                }
            }
            (None, None) => papers.counters.withheld_ring.increment(),
            (None, Some(_)) => papers.counters.withheld_length.increment(),
        }
        ticket
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    /// Seconds that a client may keep the ticket which was sealed last: no longer than its session may be resumed, and its certificates are valid.
    fn lifetime(&self) -> u32 {
        let rest = desk::with(|papers| {
            let session = papers.step.opened.map(|opened| {
                self.terms.session_max(opened.version).saturating_sub(papers.now.since(opened.original_handshake))
            });
            let client = note(|notes| match &notes.client {
                Shown::Credential(credential) => Some(credential.not_after.since(papers.now)),
                Shown::Nothing | Shown::TooMuch => None,
            });
            session.into_iter().chain(client.flatten()).min()
        });
        let whole = self.terms.tickets.lifetime.min(LIFETIME_MAX);
        let lifetime = rest.flatten().map_or(whole, |rest| whole.min(rest));
        // RFC 5077 3.3: zero means "unspecified" to a TLS 1.2 client.
        u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).max(1)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        desk::with(|papers| self.seal(papers, plain)).flatten()
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        desk::with(|papers| self.open(papers, cipher)).flatten()
    }
}

/// A ticketer that alters what another one seals.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Altering {
    pub(super) honest: Arc<dyn ProducesTickets>,
    pub(super) alter: fn(Vec<u8>) -> Vec<u8>,
}

#[cfg(test)]
impl ProducesTickets for Altering {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.honest.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.honest.encrypt(plain).map(self.alter)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.honest.decrypt(cipher)
    }
}
