//! What control knows of servers' health: the newest verdict on each, as the lane that runs the monitors tells it.
//!
//! The lane says through a bounded queue ([`Handle::verdicts`](crate::lane::Handle)) whenever a server's state or the outcome of one of its monitors is another
//! than before, and control takes all of it with every tick. So the newest [`Seen`] of each server is at most a tick old, and nobody waits for a lock of a lane's.

use std::collections::{BTreeMap, BTreeSet};

use crate::balance::{Health, Slot};
use crate::base::{Duration, UnixTime};
use crate::control::publish::Placed;
use crate::health::{Finding, Verdict};

/// The newest verdict on each server that is monitored, by its place on the board.
#[derive(Clone, Debug, Default)]
pub struct Table(BTreeMap<Slot, Seen>);

/// A verdict, and when it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the monitors say.
    pub verdict: Verdict,
    /// When they said it.
    pub at: UnixTime,
}

impl Table {
    /// The newest verdict on the server at `slot`; `None` where no monitor looks at it.
    pub fn of(&self, slot: Slot) -> Option<&Seen> {
        self.0.get(&slot)
    }

    pub(super) fn note(&mut self, verdict: Verdict, at: UnixTime) {
        if verdict.findings.is_empty() {
            self.0.remove(&verdict.slot);
        } else {
            self.0.insert(verdict.slot, Seen { verdict, at });
        }
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, servers: &[Placed]) {
        let named: BTreeSet<Slot> = servers.iter().map(|server| server.slot).collect();
        self.0.retain(|slot, _| named.contains(slot));
    }
}

impl Seen {
    /// Since when the server is what it is, to the second.
    pub fn since(&self) -> UnixTime {
        self.before(self.verdict.lasted)
    }

    /// Since when the probes of a monitor have come to what they come to.
    pub fn since_of(&self, finding: &Finding) -> UnixTime {
        self.before(finding.lasted)
    }

    fn before(&self, lasted: Duration) -> UnixTime {
        UnixTime(self.at.0.saturating_sub(lasted.as_secs()))
    }
}

/// Whether a verdict is a change of a server's state; writes it to the log if so.
pub(super) fn tell(verdict: &Verdict) -> bool {
    let Verdict { pool, server, .. } = verdict;
    let is_change = verdict.health != verdict.before;
    match verdict.health {
        Health::Up if is_change => tracing::info!(pool, server, "server is up"),
        Health::Down if is_change => {
            tracing::warn!(pool, server, cause = verdict.reasons(), "server is down");
        }
        Health::Maintenance if is_change => {
            tracing::warn!(pool, server, cause = verdict.reasons(), "server is in maintenance");
        }
        // A server that left the configuration or was disabled.
        Health::Unknown => return false,
        Health::Up | Health::Maintenance | Health::Down => {}
    }
    is_change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Cause;

    fn verdict(slot: u32, findings: usize) -> Verdict {
        let finding = Finding {
            monitor: "m".into(),
            health: Health::Down,
            last: Some(Err(Cause::Refused)),
            lasted: Duration::from_secs(5),
        };
        Verdict {
            pool: "web".into(),
            server: "a".into(),
            slot: Slot(slot),
            health: Health::Down,
            before: Health::Up,
            lasted: Duration::from_millis(2900),
            findings: vec![finding; findings],
        }
    }

    #[test]
    fn the_newest_verdict_is_kept_with_its_times_until_nobody_looks() {
        let mut table = Table::default();
        table.note(verdict(1, 1), UnixTime(100));
        table.note(verdict(2, 1), UnixTime(100));
        table.note(verdict(1, 2), UnixTime(200));
        let seen = table.of(Slot(1)).unwrap();
        assert_eq!((seen.since(), seen.since_of(&seen.verdict.findings[1])), (UnixTime(198), UnixTime(195)));
        table.note(verdict(1, 0), UnixTime(300));
        assert_eq!(table.of(Slot(1)), None, "monitored no more");
        table.keep(&[Placed {
            pool: "web".into(),
            server: "a".into(),
            slot: Slot(3),
            state: crate::balance::State::Enabled,
        }]);
        assert_eq!(table.of(Slot(2)), None, "removed");
    }
}
