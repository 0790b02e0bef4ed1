//! One server's verdict: successive results count, and it takes a number of equal ones in a row to change it.

use crate::balance::Health;
use crate::health::Monitor;

/// ```text
///             success                    failed_checks failures in a row
///  Unknown ───────────► Up ──────────────────────────────────────────────► Down
///     │                  ▲       successful_checks successes in a row        │
///     │                  └───────────────────────────────────────────────────┤
///     └──────────────────────────────────────────────────────────────────────┘
///             failure
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) struct Streak {
    health: Health,
    /// Results in a row that speak against `health`.
    against: u32,
}

impl Streak {
    /// A server that was never probed.
    pub(super) const NEW: Self = Self { health: Health::Unknown, against: 0 };

    pub(super) fn health(self) -> Health {
        self.health
    }

    /// Counts anew towards a change, under another monitor, with the same verdict.
    pub(super) fn restart(&mut self) {
        self.against = 0;
    }

    /// Takes a probe's result; the new verdict, if it changes.
    pub(super) fn on_result(&mut self, success: bool, monitor: &Monitor) -> Option<Health> {
        let (wanted, needed) = match (self.health, success) {
            (Health::Up, true) | (Health::Down, false) => {
                self.against = 0;
                return None;
            }
            (Health::Unknown, true) => (Health::Up, 1),
            (Health::Unknown, false) => (Health::Down, 1),
            (Health::Down, true) => (Health::Up, monitor.successful_checks),
            (Health::Up, false) => (Health::Down, monitor.failed_checks),
        };
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return None;
        }
        *self = Self { health: wanted, against: 0 };
        Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Duration;

    /// Verdict changes over a row of results: `+` success, `-` failure; `U` went up, `D` went down, `.` neither.
    fn changes(successful_checks: u32, failed_checks: u32, results: &str) -> String {
        let (interval, timeout) = (Duration::from_secs(1), Duration::from_secs(1));
        let monitor = Monitor { name: "m".into(), port: None, interval, timeout, successful_checks, failed_checks };
        let mut streak = Streak::NEW;
        let change = |result| match streak.on_result(result == '+', &monitor) {
            None => '.',
            Some(Health::Up) => 'U',
            Some(Health::Down) => 'D',
            Some(Health::Unknown) => '?',
        };
        results.chars().map(change).collect()
    }

    #[test]
    fn the_first_result_decides_alone() {
        assert_eq!(changes(3, 3, "+"), "U");
        assert_eq!(changes(3, 3, "-"), "D");
    }

    #[test]
    fn it_takes_results_in_a_row_to_change_a_verdict() {
        assert_eq!(changes(2, 3, "+--+---++"), "U.....D.U");
        assert_eq!(changes(2, 3, "-+-++--+---"), "D...U.....D");
    }

    #[test]
    fn a_count_of_zero_is_taken_as_one() {
        assert_eq!(changes(0, 0, "+-+"), "UDU");
    }
}
