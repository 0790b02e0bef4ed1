//! Engines that mirror one key ring, in virtual time: looks and writes are late, lost or half lost, engines are cut off, die and start again, etcd is
//! away or rolled back. Whoever holds a ticket that is still valid resumes. Every assertion names its seed.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a world that cannot be set up fails its test")]

use std::sync::Arc;
use std::time::Duration;

use sealane::base::{EngineId, Instant, Random, ServiceId, UnixTime};
use sealane::control::keys::mirror::{Action, Leader, Look, Mirror, Peer, Stored};
use sealane::control::keys::sealed::KeyEncryptionKey;
use sealane::ticket::ring::Fitness;
use sealane::ticket::{Envelope, Ring, Schedule, Scope, TlsVersion, open, seal};
use zeroize::Zeroizing;

/// Seeds of every test. One that ever failed stays here.
const SEEDS: std::ops::Range<u64> = 0..12;

const CLUSTER: [u8; 32] = [7; 32];
const SCOPE: Scope = Scope { cluster: CLUSTER, service: ServiceId(1), policy: [0; 32] };
const START: u64 = 1_700_000_000;
/// Seconds.
const ROTATION: u64 = 300;
const LIFETIME: u64 = 1200;
/// How long an engine lives on in etcd after it was last heard of.
const LEASE: u64 = 20;
/// How far one engine's clock is from another's at most.
const APART: u64 = 58;
/// How long an engine may be out of touch and still know every key: one is pending for a whole rotation. Two leaders' clocks may take some of it, and late
/// looks and lanes.
const IN_TOUCH: u64 = ROTATION - APART - 30;

/// What may happen beside delays and losses.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// Engines are cut off from etcd.
    cuts: bool,
    /// Engines die and start again without memory.
    deaths: bool,
    /// etcd is away.
    outages: bool,
    /// etcd forgets what was written last.
    rollbacks: bool,
    /// Engines are slow to give a ring to their lanes.
    hangs: bool,
}

/// etcd.
#[derive(Default)]
struct Store {
    history: Vec<Stored>,
    revision: i64,
    /// Lease of the leader.
    leader: Option<u64>,
    /// Name, lease, acknowledged version.
    engines: Vec<(String, u64, u64)>,
    /// When each lease was last renewed.
    leases: Vec<(u64, u64)>,
    away_until: u64,
    /// Whether the newest ring was forgotten, and not written again yet.
    forgot: bool,
}

impl Store {
    fn expire(&mut self, now: u64) {
        if now < self.away_until {
            // A lease does not run while nobody counts it.
            self.leases.iter_mut().for_each(|(_, renewed)| *renewed = now);
        }
        self.leases.retain(|(_, renewed)| now <= renewed + LEASE);
        let lives = |lease: u64| self.leases.iter().any(|(other, _)| *other == lease);
        self.engines.retain(|(_, lease, _)| lives(*lease));
        self.leader = self.leader.filter(|lease| lives(*lease));
    }

    fn renew(&mut self, lease: u64, now: u64) {
        self.leases.retain(|(other, _)| *other != lease);
        self.leases.push((lease, now));
    }

    fn look(&self, own: u64) -> Look {
        Look {
            ring: self.history.last().cloned(),
            leader: match self.leader {
                None => Leader::Nobody,
                Some(lease) if lease == own => Leader::Own,
                Some(_) => Leader::Other,
            },
            engines: self
                .engines
                .iter()
                .map(|(name, lease, acknowledged)| Peer {
                    name: name.clone(),
                    acknowledged: *acknowledged,
                    is_own: *lease == own,
                })
                .collect(),
        }
    }

    fn apply(&mut self, name: &str, own: u64, write: &Write) {
        match write {
            Write::Campaign => self.leader = self.leader.or(Some(own)),
            Write::Resign => self.leader = self.leader.filter(|lease| *lease != own),
            Write::Acknowledge(version) => {
                let taken = self.engines.iter().any(|(other, lease, _)| other == name && *lease != own);
                if !taken {
                    self.engines.retain(|(other, ..)| other != name);
                    self.engines.push((name.to_owned(), own, *version));
                }
            }
            Write::Ring(bytes, over) => {
                let revision = self.history.last().map_or(0, |stored| stored.revision);
                if self.leader == Some(own) && revision == *over {
                    self.revision += 1;
                    self.history.push(Stored { bytes: bytes.clone(), revision: self.revision });
                    self.forgot = false;
                }
            }
        }
    }
}

/// A transaction on its way.
enum Write {
    Campaign,
    Resign,
    Acknowledge(u64),
    Ring(Vec<u8>, i64),
}

struct Engine {
    name: String,
    mirror: Mirror,
    lease: u64,
    /// How far its clock is from the world's.
    skew: i64,
    /// What its lanes seal and open with.
    lanes: Option<Arc<Ring>>,
    /// A ring that is on its way to the lanes, and when it is there.
    coming: Option<(u64, Arc<Ring>)>,
    /// A look that has been taken, and when it is here.
    looking: Option<(u64, Option<Look>)>,
    /// Transactions, and when each is there.
    writing: Vec<(u64, Write)>,
    look_at: u64,
    /// Whether etcd answered, with a ring that the lanes may not have yet.
    heard: bool,
    /// When it last answered and the lanes had what it said.
    in_touch_at: u64,
    cut_until: u64,
    dead_until: u64,
}

struct World {
    seed: u64,
    random: Random,
    trouble: Trouble,
    schedule: Schedule,
    key: KeyEncryptionKey,
    store: Store,
    engines: Vec<Engine>,
    /// When each ticket was issued, by its issuer's clock, and the ticket.
    tickets: Vec<(u64, Vec<u8>)>,
    leases: u64,
    now: u64,
    returned: u64,
}

impl World {
    fn new(seed: u64, trouble: Trouble) -> Self {
        let mut random = Random::from_seed(seed);
        let key = KeyEncryptionKey::generate(&mut random);
        let schedule = Schedule::new(Duration::from_secs(ROTATION), Duration::from_secs(LIFETIME)).unwrap();
        let mut world = Self {
            seed,
            random,
            trouble,
            schedule,
            key,
            store: Store::default(),
            engines: Vec::new(),
            tickets: Vec::new(),
            leases: 0,
            now: START,
            returned: 0,
        };
        for number in 0..3 + world.random.below(3) {
            let skew = i64::try_from(world.random.below(APART + 1)).unwrap() - 29;
            let engine = world.born(&format!("engine-{number}"), skew);
            world.engines.push(engine);
        }
        world
    }

    /// An engine that knows nothing.
    fn born(&mut self, name: &str, skew: i64) -> Engine {
        self.leases += 1;
        let random = self.random.fork();
        Engine {
            name: name.to_owned(),
            mirror: Mirror::new(name, self.key.clone(), CLUSTER, self.schedule, None, random, Instant::START),
            lease: self.leases,
            skew,
            lanes: None,
            coming: None,
            looking: None,
            writing: Vec::new(),
            look_at: self.now,
            heard: false,
            in_touch_at: self.now,
            cut_until: 0,
            dead_until: 0,
        }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }

    /// One second.
    fn step(&mut self) {
        self.now += 1;
        self.happen();
        self.store.expire(self.now);
        for index in 0..self.engines.len() {
            if self.now >= self.engines[index].dead_until {
                self.turn(index);
            }
        }
        if self.now % 2 == 0 {
            self.visit();
        }
    }

    /// Trouble.
    fn happen(&mut self) {
        let Trouble { cuts, deaths, outages, rollbacks, hangs: _ } = self.trouble;
        let (now, index) = (self.now, usize::try_from(self.random.below(self.engines.len() as u64)).unwrap());
        if cuts && self.chance(1000) {
            self.engines[index].cut_until = now + 1 + self.random.below(3 * ROTATION);
        }
        // Who starts from an etcd that has lost something cannot know it.
        if deaths && !self.store.forgot && self.chance(1000) && self.store.history.len() > 1 {
            let (name, skew) = (self.engines[index].name.clone(), self.engines[index].skew);
            let dead_until = now + 1 + self.random.below(60);
            self.engines[index] = Engine { dead_until, ..self.born(&name, skew) };
        }
        if outages && self.chance(2000) {
            self.store.away_until = now + 1 + self.random.below(ROTATION);
        }
        let someone_starts = self.engines.iter().any(|engine| engine.lanes.is_none());
        if rollbacks && !someone_starts && self.store.history.len() > 2 && self.chance(3000) {
            let kept = self.store.history.len() - 1 - usize::try_from(self.random.below(2)).unwrap();
            let mut old = self.store.history[kept - 1].clone();
            // Written by somebody, or restored: etcd counts on.
            self.store.revision += 1;
            old.revision = self.store.revision;
            self.store.history.push(old);
            self.store.forgot = true;
        }
    }

    /// What one engine does in a second.
    fn turn(&mut self, index: usize) {
        let now = self.now;
        let reached = now >= self.engines[index].cut_until && now >= self.store.away_until;
        let (delay, lost, half_lost, stuck) = (self.random.below(4), self.chance(10), self.chance(10), self.chance(4));
        let engine = &mut self.engines[index];
        if let Some((_, ring)) = engine.coming.take_if(|(at, _)| now >= *at) {
            engine.lanes = Some(ring);
        }
        engine.mirror.on_lanes(engine.lanes.as_ref().map_or(0, |ring| ring.version()));
        // Transactions arrive, or do not; nobody hears which.
        let writing = std::mem::take(&mut engine.writing).into_iter();
        let (arrived, under_way): (Vec<_>, Vec<_>) = writing.partition(|(at, _)| now >= *at);
        engine.writing = under_way;
        for (_, write) in arrived {
            if reached && !half_lost {
                self.store.apply(&engine.name, engine.lease, &write);
            }
        }
        let wall = UnixTime(now.checked_add_signed(engine.skew).unwrap());
        let at = Instant::START + Duration::from_secs(now - START);
        if let Some((_, look)) = engine.looking.take_if(|(at, _)| now >= *at) {
            engine.look_at = now + 3 + delay;
            if let Some(look) = look {
                engine.heard = true;
                for action in engine.mirror.on_look(&look, at, wall) {
                    let write = match action {
                        Action::Campaign => Write::Campaign,
                        Action::Resign => Write::Resign,
                        Action::Acknowledge(version) => Write::Acknowledge(version),
                        Action::Write { ring, over } => Write::Ring(engine.mirror.seal(&ring), over),
                    };
                    engine.writing.push((now + delay, write));
                }
            } else {
                engine.mirror.on_silence(at);
            }
        } else if engine.looking.is_none() && now >= engine.look_at {
            let look = (reached && !lost).then(|| {
                if !self.store.leases.iter().any(|(lease, _)| *lease == engine.lease) {
                    self.leases += 1;
                    engine.lease = self.leases;
                }
                self.store.renew(engine.lease, now);
                if engine.lanes.is_none() {
                    self.store.apply(&engine.name, engine.lease, &Write::Acknowledge(0));
                }
                self.store.look(engine.lease)
            });
            engine.looking = Some((now + delay, look));
        }
        let Some(newest) = engine.mirror.report(at).ring else { return };
        let last = engine.coming.as_ref().map(|(_, ring)| ring).or(engine.lanes.as_ref());
        let seals = newest.fitness(wall, &self.schedule) == Fitness::Seals;
        if last.is_none_or(|last| last.version() != newest.version() || last.active().is_some() != seals) {
            // Control may hang for a whole rotation, while its engine lives: nobody may seal then with what the lanes do not have.
            let delay = if stuck && self.trouble.hangs { ROTATION + 20 } else { delay };
            engine.coming = Some((now + delay, Arc::new(newest.in_force(wall, &self.schedule))));
        }
        // Once its lanes have had the newest ring, an engine that lives is waited for.
        let has_newest = engine.lanes.as_ref().is_some_and(|ring| ring.version() == newest.version());
        if std::mem::take(&mut engine.heard) && (has_newest || now - engine.in_touch_at < LEASE) {
            engine.in_touch_at = now;
        }
    }

    /// A client comes to some engine with a ticket of some engine, and gets another.
    fn visit(&mut self) {
        let index = usize::try_from(self.random.below(self.engines.len() as u64)).unwrap();
        let (now, seed) = (self.now, self.seed);
        let engine = &self.engines[index];
        let Some(ring) = engine.lanes.as_ref().filter(|_| now >= engine.dead_until) else { return };
        let wall = now.checked_add_signed(engine.skew).unwrap();
        let keys = ring.for_service(&SCOPE);
        self.tickets.retain(|(issued, _)| issued + LIFETIME + 60 >= wall);
        if now - engine.in_touch_at <= IN_TOUCH && !self.tickets.is_empty() {
            let ticket = usize::try_from(self.random.below(self.tickets.len() as u64)).unwrap();
            let (issued, ticket) = &self.tickets[ticket];
            if wall <= issued + LIFETIME {
                let opened = open(&keys, ticket);
                assert!(opened.is_ok(), "seed {seed}, second {}: {} {:?}", now - START, engine.name, opened.err());
                self.returned += 1;
            }
        }
        let envelope = Envelope {
            version: TlsVersion::Tls13,
            mapping: None,
            original_handshake: UnixTime(wall),
            issued: UnixTime(wall),
            issuer: EngineId(1),
            client: None,
            session: Zeroizing::new(vec![1; 8]),
        };
        if let Some(ticket) = seal(&keys, &envelope, &mut self.random) {
            self.tickets.push((wall, ticket));
        }
    }

    /// The highest version that any engine has.
    fn version(&self) -> u64 {
        self.engines.iter().filter_map(|engine| engine.lanes.as_ref()).map(|ring| ring.version()).max().unwrap_or(0)
    }
}

/// Worlds of ten rotations with this trouble, and then of one without any: nobody who returns is turned away, and all engines end with one ring.
fn live(trouble: Trouble) {
    for seed in SEEDS {
        let mut world = World::new(seed, trouble);
        for _ in 0..10 * ROTATION {
            world.step();
        }
        world.trouble = Trouble::default();
        world.store.away_until = 0;
        world.engines.iter_mut().for_each(|engine| engine.cut_until = 0);
        let before = world.version();
        for _ in 0..2 * ROTATION {
            world.step();
        }
        assert!(world.returned > 500, "seed {seed}: {} visits", world.returned);
        assert!(world.version() > before, "seed {seed}: no rotation after {before}");
        let versions: Vec<_> = world.engines.iter().map(|engine| engine.lanes.as_ref().unwrap().version()).collect();
        // One of them may just have rotated.
        assert!(versions.iter().all(|version| world.version() - version <= 1), "seed {seed}: {versions:?}");
        let sealing = world.engines.iter().all(|engine| engine.lanes.as_ref().unwrap().active().is_some());
        assert!(sealing, "seed {seed}: somebody does not seal");
    }
}

#[test]
fn p8_returning_clients_resume_on_any_engine_however_late_keys_are() {
    live(Trouble::default());
}

#[test]
fn k2_returning_clients_resume_while_an_engine_takes_a_rotation_to_have_the_next_key() {
    live(Trouble { hangs: true, ..Trouble::default() });
}

#[test]
fn p8_returning_clients_resume_when_engines_are_cut_off() {
    live(Trouble { cuts: true, ..Trouble::default() });
}

#[test]
fn p10_returning_clients_resume_when_engines_die_and_start_again() {
    live(Trouble { deaths: true, ..Trouble::default() });
}

#[test]
fn k7_returning_clients_resume_when_etcd_is_away_or_forgets() {
    live(Trouble { outages: true, rollbacks: true, ..Trouble::default() });
}

#[test]
fn p10_returning_clients_resume_when_all_of_it_happens() {
    live(Trouble { cuts: true, deaths: true, outages: true, rollbacks: true, hangs: false });
}
