//! Everything but the engine, on the other core: the attacker, honest clients, a server, and the wires between.

use std::collections::VecDeque;
use std::sync::Arc;

use sealane::base::{Bucket, Duration, Instant, Random};
use sealane::lane::{Clock, Handle};
use sealane::nic::memory::Wire;
use sealane::sim::client::{Client, Visiting};
use sealane::sim::engine::{SERVICE_ADDRESS, SERVICE_PORT};
use sealane::sim::host::{Host, mac};
use sealane::sim::server::Server;
use sealane::sim::{Identity, Outcome};
use sealane::tcp::{Event, Token};

use crate::attacker::{Attacker, Kind};
use crate::clock::Ahead;

/// Where the honest clients are; it is the engine's gateway, too.
pub(crate) const CLIENTS: [u8; 4] = [198, 18, 0, 1];
pub(crate) const SERVER: ([u8; 4], u16) = ([198, 18, 0, 20], 8000);
/// Frames that the attacker makes between two looks at everybody else.
const BURST: usize = 64;
/// Frames a second that one core brings to a lane over virtio_user and vhost; here without what that costs the core.
const RATE: f64 = 2e6;
/// And at most so many before each frame of an honest host: they meet the queue as full as the flood keeps it.
const BEFORE: u64 = 32;
/// Frames a second that the server's link carries: transfers last for as long as the floods.
const SERVER_LINK: u32 = 1000;

/// An honest client's visit.
pub(crate) struct Visit {
    pub(crate) began: Instant,
    pub(crate) connected: Option<Instant>,
    pub(crate) ended: Option<Instant>,
    pub(crate) visiting: Visiting,
}

impl Visit {
    pub(crate) fn is_served(&self) -> bool {
        matches!(self.visiting.outcome, Some(Outcome::Served(_)))
    }
}

/// Frames towards the engine, and how many of them its queue had no room for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) offered: u64,
    pub(crate) lost: u64,
}

pub(crate) struct Outside {
    pub(crate) clock: Ahead,
    engine: Wire,
    clients: Host,
    server: (Host, Server),
    browser: Client,
    pub(crate) visits: Vec<Visit>,
    pub(crate) attacker: Option<Attacker>,
    /// Frames of honest hosts that wait for their turn on the wire.
    waiting: VecDeque<Vec<u8>>,
    /// Frames of the server that wait for its link. Its windows bound them.
    serving: VecDeque<Vec<u8>>,
    pub(crate) server_link: Option<Bucket>,
    random: Random,
    pub(crate) flood: Carried,
    pub(crate) honest: Carried,
    /// Answers to forged sources.
    pub(crate) backscatter: u64,
    attacked_at: Instant,
    pub(crate) handle: Handle,
    seed: u64,
}

impl Outside {
    pub(crate) fn new(clock: Ahead, engine: Wire, handle: Handle, identity: &Identity) -> Self {
        let mut random = Random::from_seed(1);
        let clients = Host::new(1, &["198.18.0.1/24"], &mut random);
        let mut server = Host::new(2, &["198.18.0.20/24"], &mut random);
        server.listen(SERVER.into());
        let browser = Client::new(&identity.root, false, false);
        Self {
            clock,
            engine,
            clients,
            server: (server, Server::new(7)),
            browser,
            visits: Vec::new(),
            attacker: None,
            waiting: VecDeque::new(),
            serving: VecDeque::new(),
            server_link: Some(Bucket::new(SERVER_LINK, 8)),
            random,
            flood: Carried::default(),
            honest: Carried::default(),
            backscatter: 0,
            attacked_at: Instant::START,
            handle,
            seed: 1,
        }
    }

    pub(crate) fn attack(&mut self, kind: Option<Kind>) {
        self.seed += 1;
        self.attacker = kind.map(|kind| Attacker::new(kind, mac(1).0, mac(0).0, self.seed << 32));
        (self.flood, self.honest, self.backscatter) = Default::default();
        self.attacked_at = self.clock.now();
    }

    /// A client visits and asks for so many bytes.
    pub(crate) fn visit(&mut self, download: usize) {
        let began = self.clock.now();
        let service = (SERVICE_ADDRESS, SERVICE_PORT).into();
        let token = Token(self.visits.len() as u64);
        let connection = self.clients.station.open_connection(service, token, began).expect("there are ports");
        let visiting = self.browser.begin(connection, 100, download);
        self.visits.push(Visit { began, connected: None, ended: None, visiting });
    }

    /// One round over everybody.
    pub(crate) fn turn(&mut self) {
        self.flood();
        self.carry();
        let (now, unix) = self.clock.read();
        self.clients.receive(now);
        while let Some((_, token, event)) = self.clients.station.stack.poll_event() {
            let Some(visit) = usize::try_from(token.0).ok().and_then(|index| self.visits.get_mut(index)) else {
                continue;
            };
            if event == Event::Connected {
                visit.connected = Some(now);
            }
            visit.visiting.on_event(event, &mut self.clients.station, unix, now);
            if visit.visiting.outcome.is_some() {
                visit.ended.get_or_insert(now);
            }
        }
        self.clients.station.transmit(now);
        let (host, server) = &mut self.server;
        host.receive(now);
        server.work(&mut host.station, now);
        host.station.transmit(now);
    }

    /// Frames of honest hosts, each somewhere between those of the flood.
    fn flood(&mut self) {
        let mut made = 0;
        while let Some(frame) = self.waiting.pop_front() {
            let before = self.random.below(BEFORE);
            made += before;
            self.forge(before);
            self.honest.offered += 1;
            self.honest.lost += u64::from(!self.engine.push(&frame, 0));
        }
        let due = (self.clock.now() - self.attacked_at).as_secs_f64() * RATE;
        if (self.flood.offered as f64) < due {
            self.forge((BURST as u64).saturating_sub(made));
        }
    }

    fn forge(&mut self, count: u64) {
        let Some(attacker) = &mut self.attacker else { return };
        for _ in 0..count {
            self.flood.lost += u64::from(!self.engine.push(attacker.next(), 0));
        }
        self.flood.offered += count;
    }

    fn carry(&mut self) {
        for _ in 0..4 * BURST {
            let [clients, server] = [&self.clients.wire, &self.server.0.wire];
            let taken = self.engine.pop_with(|frame| {
                // Behind a forged source there is nobody who minds.
                if frame.get(12..14) == Some(&[8, 0]) && frame.get(30..33) != Some(&CLIENTS[..3]) {
                    return true;
                }
                deliver(frame, 1, clients);
                deliver(frame, 2, server);
                false
            });
            match taken {
                Some(forged) => self.backscatter += u64::from(forged),
                None => break,
            }
        }
        let (waiting, serving) = (&mut self.waiting, &mut self.serving);
        for (from, onwards) in [(&self.clients.wire, &mut *waiting), (&self.server.0.wire, serving)] {
            let mut carry = |frame: &[u8]| {
                deliver(frame, 1, &self.clients.wire);
                deliver(frame, 2, &self.server.0.wire);
                if is_for(frame, 0) {
                    onwards.push_back(frame.to_vec());
                }
            };
            while from.pop_with(&mut carry).is_some() {}
        }
        let now = self.clock.now();
        while !self.serving.is_empty() && self.server_link.as_mut().is_none_or(|link| link.take(now)) {
            self.waiting.extend(self.serving.pop_front());
        }
    }

    pub(crate) fn all_ended_of(&self, visits: std::ops::Range<usize>) -> bool {
        self.visits[visits].iter().all(|visit| visit.ended.is_some())
    }

    /// Whether every visit from `first` on has ended.
    pub(crate) fn all_ended(&self, first: usize) -> bool {
        self.visits.iter().skip(first).all(|visit| visit.ended.is_some())
    }

    pub(crate) fn run_for(&mut self, time: Duration, mut each: impl FnMut(&mut Self)) {
        let end = self.clock.now() + time;
        while self.clock.now() < end {
            self.turn();
            each(self);
        }
    }

    pub(crate) fn counters(&self) -> Arc<sealane::lane::Counters> {
        Arc::clone(&self.handle.counters)
    }
}

/// Gives a frame to a host if it is for it, or for everybody.
fn deliver(frame: &[u8], port: u16, wire: &Wire) {
    if is_for(frame, port) {
        wire.push(frame, 0);
    }
}

fn is_for(frame: &[u8], port: u16) -> bool {
    let Some((to, rest)) = frame.split_first_chunk::<6>() else { return false };
    let from_itself = rest.first_chunk::<6>() == Some(&mac(port).0);
    *to == mac(port).0 || (to[0] & 1 == 1 && !from_itself)
}
