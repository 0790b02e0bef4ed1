//! A server as its monitors see it: what each has found, and what that comes to.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::balance::{Health, Pool, ServerIndex, Slot};
use crate::base::Instant;
use crate::health::streak::Streak;
use crate::health::{Finding, Monitor, Outcome, ProbeId};

/// Names one monitor's look at one server, for as long as a configuration has both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CheckId(pub(super) u64);

/// A server with monitors.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) pool: Arc<Pool>,
    pub(super) index: ServerIndex,
    pub(super) address: SocketAddr,
    /// In the order of the pool's monitors.
    pub(super) checks: Vec<CheckId>,
    pub(super) monitors_up_min: usize,
    /// What the board says, and since when.
    pub(super) health: Health,
    pub(super) since: Instant,
    /// What the last verdict said that was taken.
    pub(super) told: Health,
    /// Waits for its verdict to be taken.
    pub(super) is_news: bool,
}

/// One monitor's look at one server.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) slot: Slot,
    pub(super) monitor: Arc<Monitor>,
    pub(super) streak: Streak,
    /// Its first probe has not ended yet.
    pub(super) first: bool,
    pub(super) phase: Phase,
    /// What its last probe came to.
    pub(super) last: Option<Outcome>,
    /// Since when its probes have come to that.
    pub(super) since: Instant,
}

/// Where a check is between two probes. `due` is when the probe should have begun.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Until `due`.
    Resting { due: Instant },
    /// For another probe to end.
    Waiting { due: Instant },
    /// A probe is under way.
    Probing { probe: ProbeId, due: Instant, deadline: Instant },
}

impl Watched {
    /// A server of which nothing is known.
    pub(super) fn new(pool: Arc<Pool>, index: ServerIndex, address: SocketAddr, now: Instant) -> Self {
        Self {
            pool,
            index,
            address,
            checks: Vec::new(),
            monitors_up_min: 0,
            health: Health::Unknown,
            since: now,
            told: Health::Unknown,
            is_news: false,
        }
    }
}

impl Check {
    /// Takes what a probe came to; whether that is news.
    pub(super) fn note(&mut self, outcome: Outcome, now: Instant) -> bool {
        let is_news = self.last != Some(outcome);
        if is_news {
            self.last = Some(outcome);
            self.since = now;
        }
        is_news
    }

    pub(super) fn finding(&self, now: Instant) -> Finding {
        Finding {
            monitor: self.monitor.name.clone(),
            health: self.streak.health(),
            last: self.last,
            lasted: now.since(self.since),
        }
    }
}

/// What a server is when its monitors find this; `None` while it takes those that have not looked yet to decide, and then it stays what it was.
///
/// Who is in maintenance answers, as who is up does; and one monitor that is told so is enough.
pub(super) fn joined(found: impl Iterator<Item = Health>, up_min: usize) -> Option<Health> {
    let (mut up, mut unknown, mut all) = (0, 0, 0);
    let mut best = Health::Up;
    for health in found {
        all += 1;
        match health {
            Health::Up => up += 1,
            Health::Maintenance => {
                up += 1;
                best = Health::Maintenance;
            }
            Health::Unknown => unknown += 1,
            Health::Down => {}
        }
    }
    let up_min = up_min.min(all).max(1);
    if up >= up_min {
        Some(best)
    } else if up + unknown < up_min {
        Some(Health::Down)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(found: &str, up_min: usize) -> Option<Health> {
        let health = |c| match c {
            'U' => Health::Up,
            'D' => Health::Down,
            'M' => Health::Maintenance,
            _ => Health::Unknown,
        };
        joined(found.chars().map(health), up_min)
    }

    #[test]
    fn a_server_is_up_when_as_many_monitors_as_are_asked_for_find_it_so() {
        assert_eq!(
            [of("UUU", 3), of("UDU", 3), of("UDU", 2), of("DDU", 2)],
            [Some(Health::Up), Some(Health::Down), Some(Health::Up), Some(Health::Down)]
        );
    }

    #[test]
    fn monitors_that_have_not_looked_leave_a_server_what_it_was_unless_they_cannot_matter() {
        assert_eq!(
            [of("U?", 2), of("U?", 1), of("D?", 2), of("D?", 1)],
            [None, Some(Health::Up), Some(Health::Down), None]
        );
    }

    #[test]
    fn a_server_that_is_up_and_tells_one_monitor_of_maintenance_is_in_it() {
        assert_eq!(
            [of("UM", 2), of("MD", 1), of("MD", 2), of("M?", 2), of("M?", 1)],
            [Some(Health::Maintenance), Some(Health::Maintenance), Some(Health::Down), None, Some(Health::Maintenance)]
        );
    }

    #[test]
    fn a_minimum_of_none_is_one_and_of_more_than_there_are_is_all() {
        assert_eq!(
            [of("DU", 0), of("DD", 0), of("UU", 9), of("UD", 9)],
            [Some(Health::Up), Some(Health::Down), Some(Health::Up), Some(Health::Down)]
        );
    }
}
