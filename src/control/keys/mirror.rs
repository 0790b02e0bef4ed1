//! What an engine does about the cluster's ring, without IO: looks into etcd come in, what to write there goes out.
//!
//! ```text
//! PREFIX/ring            the ring, sealed; written by the leader, in a transaction in which it still leads and nobody has written since it looked
//! PREFIX/leader          the name of the engine that leads, for as long as its lease lives
//! PREFIX/engines/NAME    the version of the ring that the engine has in force on all lanes, for as long as its lease lives
//! ```
//!
//! A key is published as pending a rotation before it is due, and activated when every engine that lives has acknowledged a ring that holds it: no
//! engine seals with a key that another one cannot open. Nobody takes a ring that is older than its own, so that etcd may lose what it had: whoever
//! leads writes its own there again. A leader that sees an acknowledgement of a newer ring than its own steps back, for somebody else to lead.
//!
//! What an engine writes it does not use until it has seen it there.

use std::sync::Arc;

use super::alarm::{Alarm, Alarms};
use super::sealed::{self, KeyEncryptionKey};
use crate::base::{Duration, Instant, Random, UnixTime};
use crate::ticket::ring::{Fitness, State};
use crate::ticket::{Ring, Schedule};

/// Silence of etcd after which it counts as out of reach.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long after a rotation was due it is told who has not acknowledged the pending key.
pub const LATE_AFTER: Duration = Duration::from_secs(30);
/// How long an engine's own name may be somebody else's: when it comes back, its old lease lives on for a while.
pub const NAME_TAKEN_MAX: Duration = Duration::from_secs(30);

/// What one look into etcd shows, all of it at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The ring, if there is one.
    pub ring: Option<Stored>,
    /// Who leads.
    pub leader: Leader,
    /// Engines that live.
    pub engines: Vec<Peer>,
}

/// What etcd holds as the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// As it is there.
    pub bytes: Vec<u8>,
    /// Its modification revision.
    pub revision: i64,
}

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leader {
    /// Nobody.
    #[default]
    Nobody,
    /// This engine, by the lease that it has now.
    Own,
    /// Another one, or this one in an earlier life.
    Other,
}

/// An engine that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// The version that it has acknowledged.
    pub acknowledged: u64,
    /// Whether it is this engine, by the lease that it has now.
    pub is_own: bool,
}

/// What is to be written to etcd, each in one transaction.
#[derive(Clone, Debug)]
pub enum Action {
    /// Lead, if nobody does.
    Campaign,
    /// Lead no longer.
    Resign,
    /// Say that this engine lives and has this version in force.
    Acknowledge(u64),
    /// Put this ring there, if this engine leads and the revision is still this one; 0 stands for none.
    Write {
        /// The ring.
        ring: Box<Ring>,
        /// What it is written over.
        over: i64,
    },
}

/// What the ring in etcd was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// The newest ring.
    Newest,
    /// Not to be used, for this reason; and the version that it says it is of, if it is a ring at all.
    Refused(String, Option<u64>),
}

/// An engine's side of the mirror.
#[derive(Debug)]
pub struct Mirror {
    name: String,
    key: KeyEncryptionKey,
    cluster: [u8; 32],
    schedule: Schedule,
    random: Random,
    newest: Option<Arc<Ring>>,
    in_force: u64,
    /// The last ring that was looked at, and what it was.
    seen: Option<Vec<u8>>,
    found: Found,
    refusals: u64,
    last_refusal: String,
    leads: bool,
    engines: usize,
    late: Vec<String>,
    heard_at: Instant,
    name_taken_since: Option<Instant>,
    silent: bool,
}

/// What the mirror has come to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The newest ring.
    pub ring: Option<Arc<Ring>>,
    /// What is wrong, with what is known of it.
    pub alarms: Vec<(Alarm, String)>,
    /// How many rings were refused.
    pub refusals: u64,
    /// Why the last of them was: it may have been replaced already.
    pub last_refusal: String,
    /// Whether this engine leads.
    pub leads: bool,
    /// How many engines live.
    pub engines: usize,
}

impl Report {
    /// Which alarms are on.
    pub fn alarms(&self) -> Alarms {
        self.alarms.iter().map(|(alarm, _)| *alarm).collect()
    }
}

impl Mirror {
    /// An engine's side, with the ring that it has kept from an earlier life, if any.
    pub fn new(
        name: &str,
        key: KeyEncryptionKey,
        cluster: [u8; 32],
        schedule: Schedule,
        kept: Option<Arc<Ring>>,
        random: Random,
        at: Instant,
    ) -> Self {
        Self {
            name: name.to_owned(),
            key,
            cluster,
            schedule,
            random,
            newest: kept,
            in_force: 0,
            seen: None,
            found: Found::Nothing,
            refusals: 0,
            last_refusal: String::new(),
            leads: false,
            engines: 0,
            late: Vec::new(),
            heard_at: at,
            name_taken_since: None,
            silent: false,
        }
    }

    /// The version that every lane of this engine has.
    pub fn on_lanes(&mut self, version: u64) {
        self.in_force = version;
    }

    /// Takes a schedule that a reload changed.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        self.schedule = schedule;
    }

    /// A ring as etcd is to hold it.
    pub fn seal(&mut self, ring: &Ring) -> Vec<u8> {
        sealed::seal(ring, &self.key, &self.cluster, &mut self.random)
    }

    /// Nothing was heard of etcd.
    pub fn on_silence(&mut self, at: Instant) {
        self.leads = false;
        self.silent = at.since(self.heard_at) >= SILENCE_MAX;
    }

    /// Judges a look, and says what is to be done: at most one thing of each kind.
    pub fn on_look(&mut self, look: &Look, at: Instant, now: UnixTime) -> Vec<Action> {
        self.heard_at = at;
        self.silent = false;
        self.engines = look.engines.len();
        self.leads = look.leader == Leader::Own;
        self.late.clear();
        self.take(look.ring.as_ref());
        let mut actions = Vec::new();
        self.announce(look, at, &mut actions);
        match look.leader {
            Leader::Nobody if self.may_lead(look, now) => actions.push(Action::Campaign),
            Leader::Own if !self.may_lead(look, now) => actions.push(Action::Resign),
            Leader::Own => actions.extend(self.lead(look, now)),
            Leader::Nobody | Leader::Other => {}
        }
        actions
    }

    /// Takes the ring that etcd holds, if it follows the newest.
    fn take(&mut self, stored: Option<&Stored>) {
        let Some(stored) = stored else {
            (self.seen, self.found) = (None, Found::Nothing);
            return;
        };
        // The same bytes are the same ring, whatever revision etcd counts.
        if self.seen.as_ref() == Some(&stored.bytes) {
            return;
        }
        self.found = match sealed::open(&stored.bytes, &self.key, &self.cluster) {
            Ok(ring) => self.judge(ring),
            Err(refusal) => Found::Refused(refusal.to_string(), None),
        };
        if let Found::Refused(why, _) = &self.found {
            self.refusals = self.refusals.saturating_add(1);
            self.last_refusal = format!("the ring in etcd {why}");
        }
        self.seen = Some(stored.bytes.clone());
    }

    fn judge(&mut self, ring: Ring) -> Found {
        let new = ring.version();
        if let Some(newest) = &self.newest {
            let old = newest.version();
            if new < old {
                let why = format!("is stale: its version is {new}, and version {old} is in use");
                return Found::Refused(why, Some(new));
            }
            if let Some(id) = ring.purged_by(newest) {
                return Found::Refused(format!("brings back key {id}, which was purged"), Some(new));
            }
            if new == old {
                let [mut ours, mut theirs] =
                    [(); 2].map(|()| zeroize::Zeroizing::new(Vec::with_capacity(sealed::SIZE_MAX)));
                sealed::encode(newest, &mut ours);
                sealed::encode(&ring, &mut theirs);
                if ours == theirs {
                    return Found::Newest;
                }
                return Found::Refused(format!("has other keys under the version {old} that is in use"), Some(new));
            }
        }
        self.newest = Some(Arc::new(ring));
        Found::Newest
    }

    /// Says that this engine lives, and what it has in force.
    fn announce(&mut self, look: &Look, at: Instant, actions: &mut Vec<Action>) {
        let named = look.engines.iter().find(|peer| peer.name == self.name);
        self.name_taken_since = match named {
            Some(peer) if !peer.is_own => self.name_taken_since.or(Some(at)),
            Some(_) | None => None,
        };
        if named.is_none_or(|peer| !peer.is_own || peer.acknowledged != self.in_force) {
            actions.push(Action::Acknowledge(self.in_force));
        }
    }

    /// Not without a ring where there is one, nor with an older one than somebody else's, nor with one that this clock says is not yet.
    fn may_lead(&self, look: &Look, now: UnixTime) -> bool {
        match &self.newest {
            None => look.ring.is_none(),
            Some(newest) => {
                let is_behind = look.engines.iter().any(|peer| peer.acknowledged > newest.version());
                !is_behind && newest.fitness(now, &self.schedule) != Fitness::FromTheFuture
            }
        }
    }

    /// What the leader writes, if anything.
    fn lead(&mut self, look: &Look, now: UnixTime) -> Option<Action> {
        let over = look.ring.as_ref().map_or(0, |stored| stored.revision);
        let write = |ring| Some(Action::Write { ring: Box::new(ring), over });
        let Some(newest) = self.newest.clone() else {
            // The first of all: one key that seals, and one for the first rotation.
            return write(Ring::generate(now, &mut self.random).with_pending(now, &mut self.random));
        };
        match &self.found {
            Found::Nothing => return write(Ring::clone(&newest)),
            // Under a version that is above both, so that whoever has taken it takes this one.
            Found::Refused(_, Some(version)) if *version >= newest.version() => {
                return write(newest.reissued_above(*version, now));
            }
            Found::Refused(..) => return write(Ring::clone(&newest)),
            Found::Newest => {}
        }
        if !newest.entries().iter().any(|entry| entry.state == State::Pending) {
            return newest.staged(now, None, &mut self.random).ok().and_then(write);
        }
        let due = newest.rotation_due(&self.schedule);
        if now < due {
            return None;
        }
        let late = look.engines.iter().filter(|peer| peer.acknowledged < newest.version());
        let late: Vec<_> = late.map(|peer| peer.name.clone()).collect();
        if !late.is_empty() {
            if now > due + LATE_AFTER {
                self.late = late;
            }
            return None;
        }
        // A pending key may be there and have to wait; then there is nothing to activate yet.
        newest.activated(None, now, &self.schedule).ok()?;
        write(newest.rotate(now, &mut self.random, &self.schedule))
    }

    /// What it has come to.
    pub fn report(&self, at: Instant) -> Report {
        let mut alarms = Vec::new();
        if self.silent {
            alarms.push((Alarm::Unreachable, String::new()));
        }
        if matches!(self.found, Found::Refused(..)) {
            alarms.push((Alarm::Refused, self.last_refusal.clone()));
        }
        if !self.late.is_empty() {
            alarms.push((Alarm::Late, self.late.join(", ")));
        }
        if self.name_taken_since.is_some_and(|since| at.since(since) >= NAME_TAKEN_MAX) {
            alarms.push((Alarm::NameTaken, self.name.clone()));
        }
        Report {
            ring: self.newest.clone(),
            alarms,
            refusals: self.refusals,
            last_refusal: self.last_refusal.clone(),
            leads: self.leads,
            engines: self.engines,
        }
    }
}

#[cfg(test)]
mod tests;
