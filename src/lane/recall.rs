//! Persistence by the client's address, across lanes: a client's connections arrive on any lane, and its mapping is kept by one.
//!
//! When a client has shaken hands, its lane asks the [owner](crate::persistence::client_ip::Network::owner) of the client's network by a bounded lock-free ring, and goes on with others until
//! the answer has come, a breath of each lane later. Where the ring is full or the owner does not answer, the client gets a server as a new one would, and is
//! not remembered. The owner counts the client's connections, so that every answer is followed by one word that the connection is over: those words wait for
//! room where a ring has none.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crate::base::{Duration, Instant, LaneId, Random, ServiceId};
use crate::lane::Lane;
use crate::lane::work::Connection;
use crate::nic::QueuePair;
use crate::persistence::Method;
use crate::persistence::client_ip::{Lease, Network, Settings, Table, Told};
use crate::ticket::Mapping;

/// How long a connection waits for an answer: as long as many lanes' breaths, and not so long that anybody notices.
const ANSWER_MAX: Duration = Duration::from_millis(100);

/// Most connections that wait at an owner for another one of their client to be given a server.
const PARKED_MAX: usize = 256;

/// Most words that wait for room in one lane's ring. Only a lane that has died takes none for so long.
const OWED_MAX: usize = 65_536;

/// Most words that a breath takes.
const WORDS_A_BREATH: usize = 256;

/// Who asks: a connection, by its place and a number of its own, since places come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    lane: LaneId,
    index: usize,
    number: u64,
}

/// What lanes tell each other about clients' mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Where does this client belong?
    Ask { asker: Asker, service: ServiceId, network: Network, timeout: Duration },
    /// Nobody waits at the owner that is told so.
    Answer { owner: LaneId, asker: Asker, service: ServiceId, told: Told },
    /// Where it belongs now, if that is still what it was.
    Settle { service: ServiceId, lease: Lease, before: Option<Mapping>, mapping: Option<Mapping> },
    /// A connection of it is over.
    Close { service: ServiceId, lease: Lease },
}

/// What a connection has to do with its client's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recalled {
    /// Nothing.
    Nothing,
    /// It has asked, with this number.
    Asked(u64),
    /// It has a lease there.
    Held(LaneId, Lease),
}

/// A connection of another one's client that waits until that has been given a server.
#[derive(Debug)]
struct Parked {
    since: Instant,
    asker: Asker,
    service: ServiceId,
    lease: Lease,
}

/// A lane's part in it: its tables, and whom it waits for.
#[derive(Debug)]
pub(super) struct Recall {
    random: Random,
    /// By virtual service; only those whose clients are persisted so.
    tables: HashMap<ServiceId, Table>,
    numbered: u64,
    /// Who has asked and until when it waits, the first first. Some may have been answered.
    asked: VecDeque<(Instant, usize, u64)>,
    parked: VecDeque<Parked>,
    /// Words that wait for room, by lane.
    owed: Vec<VecDeque<Word>>,
    /// Words of this lane to itself, for the end of what it does now.
    own: VecDeque<Word>,
}

impl Recall {
    pub(super) fn new(lanes: u16, random: Random) -> Self {
        Self {
            random,
            tables: HashMap::new(),
            numbered: 0,
            asked: VecDeque::new(),
            parked: VecDeque::new(),
            owed: (0..lanes).map(|_| VecDeque::new()).collect(),
            own: VecDeque::new(),
        }
    }

    /// When somebody will have waited for too long.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        let parked = self.parked.front().map(|parked| parked.since + ANSWER_MAX);
        self.asked.front().map(|(until, ..)| *until).into_iter().chain(parked).min()
    }

    fn owes(&self) -> usize {
        self.owed.iter().map(VecDeque::len).sum()
    }
}

impl Connection {
    fn client_ip(&self) -> Option<Settings> {
        let profile = self.relay.service().tls.profile()?;
        match profile.method {
            Method::ClientIp(settings) => Some(settings),
            Method::Tls => None,
        }
    }
}

impl<Q: QueuePair, C> Lane<Q, C> {
    /// A new configuration: tables for the services that need one, and no others.
    pub(super) fn configure_recall(&mut self) {
        let method = |service: &ServiceId| {
            let profile = self.fronts.get(service)?.service.tls.profile()?;
            match profile.method {
                Method::ClientIp(settings) => Some(settings),
                Method::Tls => None,
            }
        };
        let recall = &mut self.recall;
        recall.tables.retain(|service, _| method(service).is_some());
        for service in self.fronts.keys() {
            let Some(settings) = method(service) else { continue };
            match recall.tables.get_mut(service) {
                Some(table) => table.set_max(settings.entries_max),
                None => {
                    let table = Table::new(settings.entries_max, &mut recall.random);
                    recall.tables.insert(*service, table);
                }
            }
        }
        let entries = recall.tables.values().map(Table::len).sum::<usize>();
        self.counters.client_ip.entries.set(entries as u64);
    }

    /// A connection has shaken hands: asks where its client belongs.
    pub(super) fn recall(&mut self, index: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let service = connection.relay.service().id;
        let Some(settings) = connection.client_ip() else {
            self.go_on_without(index, now);
            return;
        };
        let network = settings.network_of(connection.flow.remote().ip());
        let owner = network.owner(self.station.steering.lanes());
        self.recall.numbered += 1;
        let number = self.recall.numbered;
        connection.recalled = Recalled::Asked(number);
        self.recall.asked.push_back((now + ANSWER_MAX, index, number));
        let asker = Asker { lane: self.station.id, index, number };
        let ask = Word::Ask { asker, service, network, timeout: settings.timeout };
        let counters = &self.counters.client_ip;
        if owner == self.station.id {
            counters.asked_here.increment();
            self.recall.own.push_back(ask);
            self.settle_own(now);
        } else if self.station.steering.tell(owner, ask).is_ok() {
            counters.asked_elsewhere.increment();
        } else {
            counters.unasked.increment();
            self.go_on_without(index, now);
        }
    }

    /// Whoever waits for an answer no longer goes on; then this lane takes the words of others. Says whether there was anything.
    pub(super) fn take_words(&mut self, now: Instant) -> bool {
        let mut any = self.pay_debts();
        for _ in 0..WORDS_A_BREATH {
            let Some(word) = self.station.steering.next_word() else { break };
            any = true;
            self.on_word(word, now);
            self.settle_own(now);
        }
        while let Some((until, index, number)) = self.recall.asked.front().copied() {
            let waits = self.connections.get(index).is_some_and(|one| one.recalled == Recalled::Asked(number));
            if waits && until > now {
                break;
            }
            self.recall.asked.pop_front();
            if waits {
                any = true;
                self.counters.client_ip.unanswered.increment();
                self.go_on_without(index, now);
            }
        }
        // Those who have asked have given up by now.
        while self.recall.parked.front().is_some_and(|parked| parked.since + ANSWER_MAX <= now) {
            let Some(parked) = self.recall.parked.pop_front() else { break };
            any = true;
            self.recall.own.push_back(Word::Close { service: parked.service, lease: parked.lease });
        }
        self.settle_own(now);
        any
    }

    /// A connection is over.
    pub(super) fn let_go(&mut self, connection: &Connection, now: Instant) {
        if let Recalled::Held(owner, lease) = connection.recalled {
            self.say(owner, Word::Close { service: connection.relay.service().id, lease });
            self.settle_own(now);
        }
    }

    /// What this lane has to say to itself. Each word makes at most one other for each connection that waits for it.
    fn settle_own(&mut self, now: Instant) {
        while let Some(word) = self.recall.own.pop_front() {
            self.on_word(word, now);
        }
    }

    fn on_word(&mut self, word: Word, now: Instant) {
        match word {
            Word::Ask { asker, service, network, timeout } => {
                // A lane whose configuration is another one for the moment remembers nobody.
                let told = self.at_table(service, |table| table.ask(network, timeout, now)).unwrap_or(Told::Full);
                self.answer(asker, service, told, now);
            }
            Word::Answer { owner, asker, service, told } => self.on_answer(owner, asker, service, told, now),
            Word::Settle { service, lease, before, mapping } => {
                self.at_table(service, |table| table.settle(lease, before, mapping, now));
                self.unpark(service, lease, now);
            }
            Word::Close { service, lease } => {
                self.at_table(service, |table| table.close(lease, now));
            }
        }
    }

    /// Does something at a table, if there is one, and counts what has become of it.
    fn at_table<R>(&mut self, service: ServiceId, what: impl FnOnce(&mut Table) -> R) -> Option<R> {
        let table = self.recall.tables.get_mut(&service)?;
        let before = table.len() as u64;
        let result = what(table);
        let counters = &self.counters.client_ip;
        counters.entries.set((counters.entries.value() + table.len() as u64).saturating_sub(before));
        counters.forgotten.add(table.take_forgotten());
        Some(result)
    }

    fn answer(&mut self, asker: Asker, service: ServiceId, told: Told, now: Instant) {
        let counters = &self.counters.client_ip;
        let told = match told {
            Told::Wait(lease) if self.recall.parked.len() < PARKED_MAX => {
                counters.waited.increment();
                self.recall.parked.push_back(Parked { since: now, asker, service, lease });
                return;
            }
            Told::Wait(lease) => {
                counters.crowded_out.increment();
                self.at_table(service, |table| table.close(lease, now));
                Told::Full
            }
            Told::Known(..) => {
                counters.answered_known.increment();
                told
            }
            Told::Decide(_) => {
                counters.answered_new.increment();
                told
            }
            Told::Full => {
                counters.answered_full.increment();
                told
            }
        };
        self.say(asker.lane, Word::Answer { owner: self.station.id, asker, service, told });
    }

    /// A client has been given a server, or none: those of its connections that wait for that need not wait longer.
    fn unpark(&mut self, service: ServiceId, lease: Lease, now: Instant) {
        let mut at = 0;
        while let Some(parked) = self.recall.parked.get(at) {
            let is_of_it = parked.service == service && parked.lease == lease;
            let Some(told) = is_of_it.then(|| self.at_table(service, |table| table.again(lease, now))) else {
                at += 1;
                continue;
            };
            match told.unwrap_or(Told::Full) {
                // Another one decides now.
                Told::Wait(_) => at += 1,
                told @ (Told::Known(..) | Told::Decide(_) | Told::Full) => {
                    if let Some(parked) = self.recall.parked.remove(at) {
                        self.answer(parked.asker, service, told, now);
                    }
                }
            }
        }
    }

    fn on_answer(&mut self, owner: LaneId, asker: Asker, service: ServiceId, told: Told, now: Instant) {
        let connection = self.connections.get_mut(asker.index);
        let connection = connection.filter(|connection| connection.recalled == Recalled::Asked(asker.number));
        let (lease, before) = match told {
            Told::Known(lease, mapping) => (lease, Some(mapping)),
            Told::Decide(lease) => (lease, None),
            Told::Wait(_) | Told::Full => {
                if connection.is_some() {
                    self.go_on_without(asker.index, now);
                }
                return;
            }
        };
        let Some(connection) = connection else {
            // It has ended or gone on meanwhile.
            if before.is_none() {
                self.say(owner, Word::Settle { service, lease, before, mapping: None });
            }
            self.say(owner, Word::Close { service, lease });
            return;
        };
        connection.recalled = Recalled::Held(owner, lease);
        let mapping = self.go_on(asker.index, before, now);
        // Whoever was to decide says also that nobody was chosen.
        if mapping.is_some() || before.is_none() {
            self.say(owner, Word::Settle { service, lease, before, mapping });
        }
    }

    /// Goes on with a connection whose client is not known and will not be.
    fn go_on_without(&mut self, index: usize, now: Instant) {
        if let Some(connection) = self.connections.get_mut(index) {
            connection.recalled = Recalled::Nothing;
        }
        self.go_on(index, None, now);
    }

    /// Goes on with a connection whose client has this mapping, and gives the one that it has from now on, if that is another.
    fn go_on(&mut self, index: usize, mapping: Option<Mapping>, now: Instant) -> Option<Mapping> {
        let connection = self.connections.get_mut(index)?;
        if let Some(front) = self.fronts.get(&connection.relay.service().id) {
            connection.backend = Rc::clone(&front.backend);
        }
        let Connection { relay, backend, .. } = &mut **connection;
        let unix = self.desk.now();
        let kept = relay.on_recalled(mapping.as_ref(), backend, &self.counters.relay, unix, now);
        self.claim(index);
        self.wake(index);
        kept
    }

    /// Tells a lane something that must not get lost, behind what it has not been told yet.
    fn say(&mut self, to: LaneId, word: Word) {
        if to == self.station.id {
            self.recall.own.push_back(word);
            return;
        }
        let Some(owed) = self.recall.owed.get_mut(usize::from(to.0)) else { return };
        let word = match owed.is_empty() {
            true => self.station.steering.tell(to, word).err(),
            false => Some(word),
        };
        let counters = &self.counters.client_ip;
        match word {
            None => {}
            Some(word) if owed.len() < OWED_MAX => {
                owed.push_back(word);
                counters.words_waiting.set(self.recall.owes() as u64);
            }
            Some(_) => counters.words_dropped.increment(),
        }
    }

    /// Tells other lanes what they had no room for.
    fn pay_debts(&mut self) -> bool {
        let mut any = false;
        for (lane, owed) in (0..).map(LaneId).zip(&mut self.recall.owed) {
            while let Some(word) = owed.front() {
                if self.station.steering.tell(lane, *word).is_err() {
                    break;
                }
                owed.pop_front();
                any = true;
            }
        }
        if any {
            self.counters.client_ip.words_waiting.set(self.recall.owes() as u64);
        }
        any
    }
}

#[cfg(test)]
impl<Q: QueuePair, C> Lane<Q, C> {
    /// Leaves no room in the ring of a lane; gives how many words that took.
    pub(crate) fn fill_words(&mut self, lane: LaneId) -> usize {
        std::iter::from_fn(|| self.station.steering.tell(lane, Word::numbered(0)).ok()).count()
    }

    /// So many connections of one new client that another lane has ask this one at once; gives how many of them may wait at most.
    pub(crate) fn ask_at_once(&mut self, service: ServiceId, of: LaneId, count: u64, now: Instant) -> u64 {
        for number in 0..count {
            let asker = Asker { lane: of, index: 0, number };
            let (network, timeout) = (Network::default(), Duration::from_secs(60));
            self.on_word(Word::Ask { asker, service, network, timeout }, now);
        }
        PARKED_MAX as u64
    }

    /// Most words that a breath takes.
    pub(crate) fn words_a_breath(&self) -> usize {
        WORDS_A_BREATH
    }

    /// Says so many words to a lane that takes none, and gives how many wait at most.
    pub(crate) fn owe_words(&mut self, lane: LaneId, count: usize) -> usize {
        (0..count).for_each(|_| self.say(lane, Word::numbered(0)));
        OWED_MAX
    }
}

#[cfg(test)]
impl Word {
    /// A word that nobody minds.
    pub(super) fn numbered(index: usize) -> Self {
        let asker = Asker { lane: LaneId(0), index, number: 0 };
        Self::Ask { asker, service: ServiceId(0), network: Network::default(), timeout: Duration::ZERO }
    }
}
