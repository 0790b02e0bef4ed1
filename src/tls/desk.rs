//! The desk: what a lane lays out before it calls into rustls, so that the ticketer, which rustls calls without any context, finds it.
//!
//! A lane runs one handshake step at a time. [`Session::advance`](super::Session::advance) moves the desk's papers into a thread-local for the length of
//! the call and takes them back after, so that two lanes of a simulation share a thread but never a desk. Only a pointer moves.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use crate::balance::Backend;
use crate::base::{EngineId, Random, ServiceId, UnixTime};
use crate::persistence::tls::Returning;
use crate::persistence::{self, Decision, Method, Reason};
use crate::ticket::vault::Vault;
use crate::ticket::{KeyId, Mapping, Ring, Scope, ServiceKeys, TlsVersion};
use crate::tls::notes::{self, Notes};
use crate::tls::ticketer::{Counters, Ledgers, Terms};

thread_local! {
    static LAID_OUT: RefCell<Option<Box<Papers>>> = const { RefCell::new(None) };
}

/// One lane's ticket desk.
#[derive(Debug)]
pub struct Desk {
    /// Away only while rustls runs.
    papers: Option<Box<Papers>>,
    counters: Arc<Counters>,
    ledgers: Arc<Ledgers>,
}

impl Desk {
    /// A desk with the lane's own random generator.
    pub fn new(engine: EngineId, ring: Arc<Ring>, random: Random, counters: Arc<Counters>) -> Self {
        let ledgers = Arc::<Ledgers>::default();
        let papers = Papers {
            engine,
            keys: Keys::new(ring),
            random,
            now: UnixTime::default(),
            counters: Arc::clone(&counters),
            ledgers: Arc::clone(&ledgers),
            step: Step::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            backend: None,
        };
        Self { papers: Some(Box::new(papers)), counters, ledgers }
    }

    /// Has it count in these ledgers.
    #[must_use]
    pub fn with_ledgers(mut self, ledgers: Arc<Ledgers>) -> Self {
        self.papers().ledgers = Arc::clone(&ledgers);
        self.ledgers = ledgers;
        self
    }

    /// Takes over a new key ring.
    pub fn set_ring(&mut self, ring: Arc<Ring>) {
        let ids: Vec<_> = ring.entries().iter().map(|entry| u64::from_be_bytes(entry.key.id().0)).collect();
        self.ledgers.keys.retain(|id| ids.contains(&id));
        self.papers().keys.replace(ring);
    }

    /// Sets the wall clock, once a breath. Until then it is 1970, and tickets issued then are too old at once.
    pub fn set_time(&mut self, now: UnixTime) {
        self.papers().now = now;
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn ledgers(&self) -> &Ledgers {
        &self.ledgers
    }

    /// Runs `call` into rustls with the papers, one session's `step`, its `notes` and its `backend` laid out.
    pub(super) fn during<R>(
        &mut self,
        step: &mut Step,
        notes: &mut Option<Box<Notes>>,
        backend: &Rc<Backend>,
        call: impl FnOnce() -> R,
    ) -> R {
        let mut papers = self.papers.take().expect("a desk runs one call at a time");
        papers.step = *step;
        papers.step.opens = 0;
        papers.backend = Some(Rc::clone(backend));
        LAID_OUT.set(Some(papers));
        let result = notes::during(notes, call);
        let mut papers = LAID_OUT.take().expect("nobody else takes the papers");
        *step = papers.step;
        papers.backend = None;
        self.papers = Some(papers);
        result
    }

    /// The wall clock.
    pub fn now(&mut self) -> UnixTime {
        self.papers().now
    }

    /// Decides where the session of `step` goes, unless that is decided already.
    pub(super) fn decide(&mut self, step: &mut Step, terms: &Terms, backend: &Backend) -> Decision {
        let papers = self.papers();
        step.decide(terms, backend, papers.engine, papers.now)
    }

    fn papers(&mut self) -> &mut Papers {
        self.papers.as_mut().expect("a desk runs one call at a time")
    }
}

/// Gives `use_them` the papers that are laid out; `None` outside of a call by [`Desk::during`].
pub(super) fn with<R>(use_them: impl FnOnce(&mut Papers) -> R) -> Option<R> {
    LAID_OUT.with_borrow_mut(|papers| papers.as_mut().map(|papers| use_them(papers)))
}

/// What lies on a desk.
#[derive(Debug)]
pub(super) struct Papers {
    pub(super) engine: EngineId,
    pub(super) keys: Keys,
    pub(super) random: Random,
    pub(super) now: UnixTime,
    pub(super) counters: Arc<Counters>,
    pub(super) ledgers: Arc<Ledgers>,
    pub(super) step: Step,
    /// Where the session's client may go.
    pub(super) backend: Option<Rc<Backend>>,
}

/// Most services whose keys are kept; at one more, all are derived anew. A lane rarely serves as many.
const SERVICES_MAX: usize = 4096;

/// The ring's keys as each service uses them, derived when a service first needs them: some µs once a ring and service.
#[derive(Debug)]
pub(super) struct Keys {
    ring: Arc<Ring>,
    services: HashMap<ServiceId, ServiceKeys>,
    /// Memory of keys that are gone, for those that come: a lane makes no system calls for it. At most [`SERVICES_MAX`].
    spare: Vec<Vault>,
}

impl Keys {
    fn new(ring: Arc<Ring>) -> Self {
        Self { ring, services: HashMap::new(), spare: Vec::new() }
    }

    fn replace(&mut self, ring: Arc<Ring>) {
        self.ring = ring;
        self.clear();
    }

    fn clear(&mut self) {
        self.spare.extend(self.services.drain().map(|(_, keys)| keys.into_vault()));
    }

    /// The keys for `scope`.
    pub(super) fn of(&mut self, scope: &Scope) -> &ServiceKeys {
        if self.services.len() >= SERVICES_MAX && !self.services.contains_key(&scope.service) {
            self.clear();
        }
        let Self { ring, services, spare } = self;
        let mut derive = || match spare.pop() {
            Some(vault) => ring.for_service_in(scope, vault),
            None => ring.for_service(scope),
        };
        let keys = services.entry(scope.service).or_insert_with(&mut derive);
        // A reload may have changed the service's policy under the same ring.
        if keys.scope() != scope {
            let before = std::mem::replace(keys, derive());
            spare.push(before.into_vault());
        }
        keys
    }
}

/// What one session's handshake has come to, as far as tickets are concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Where the client connects from.
    pub(super) client: IpAddr,
    /// Protocol version, once it is known before a call.
    pub(super) version: Option<TlsVersion>,
    /// The last ticket that opened. It counts only once the session is resumed (H1), and is dropped as soon as it is not (H9).
    pub(super) opened: Option<Opened>,
    /// Where the session goes, once that is decided: from then on it has a place there, or waits for one.
    pub(super) decision: Option<Decision>,
    /// Tickets opened in this call; rustls handles at most one ClientHello a call.
    pub(super) opens: u8,
}

impl Step {
    /// The session of a client that connects from this address.
    pub(super) fn new(client: IpAddr) -> Self {
        Self { client, version: None, opened: None, decision: None, opens: 0 }
    }

    /// Where the session goes. Decided once: every ticket of a handshake and the connection itself follow the same decision.
    pub(super) fn decide(&mut self, terms: &Terms, backend: &Backend, engine: EngineId, now: UnixTime) -> Decision {
        let (opened, client) = (self.opened, self.client);
        *self.decision.get_or_insert_with(|| {
            // The lane that keeps the client's mapping is asked when the handshake has ended. What a ticket says, from before the method changed, does not count.
            if terms.profile.as_ref().is_some_and(|profile| matches!(profile.method, Method::ClientIp(_))) {
                return Decision { server: None, reason: Reason::Recalling };
            }
            let returning = opened.and_then(|opened| opened.returning(engine));
            persistence::tls::decide(returning.as_ref(), terms.profile.as_deref(), backend, client, now)
        })
    }
}

/// What is kept of a ticket that was opened. Its secrets went to rustls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub(super) version: TlsVersion,
    pub(super) mapping: Option<Mapping>,
    pub(super) original_handshake: UnixTime,
    pub(super) issued: UnixTime,
    pub(super) issuer: EngineId,
    pub(super) key_id: KeyId,
}

impl Opened {
    /// What it says of its client's server, to this engine.
    fn returning(&self, engine: EngineId) -> Option<Returning> {
        self.mapping.map(|mapping| Returning::new(mapping, self.issuer, self.issued, engine))
    }
}

/// rustls's clock: the wall clock of the desk that is laid out, so that no lane reads a clock and a simulation runs in virtual time.
#[derive(Debug)]
pub(super) struct DeskClock;

impl rustls::time_provider::TimeProvider for DeskClock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let now = with(|papers| papers.now)?;
        Some(rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.0)))
    }
}
