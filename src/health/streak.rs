//! One server's verdict: successive results count, and it takes a number of equal ones in a row to change it.

use crate::balance::Health;
use crate::health::{Answer, Monitor, Outcome};

/// ```text
///             success                    failed_checks failures in a row
///  Unknown ───────────► Up ──────────────────────────────────────────────► Down
///     │                  ▲       successful_checks successes in a row        │
///     │                  └───────────────────────────────────────────────────┤
///     └──────────────────────────────────────────────────────────────────────┘
///             failure
/// ```
///
/// Maintenance is a third state: as bad as a failure for a server that is up, and as good as a success for one that is down. Results count in a row that speak
/// against the verdict, each for what it likes; the last of them says what the verdict becomes.
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
    pub(super) fn on_result(&mut self, outcome: Outcome, monitor: &Monitor) -> Option<Health> {
        let wanted = match outcome {
            Ok(Answer::Normal) => Health::Up,
            Ok(Answer::Maintenance) => Health::Maintenance,
            Err(_) => Health::Down,
        };
        if wanted == self.health {
            self.against = 0;
            return None;
        }
        let needed = match (self.health, wanted) {
            (Health::Unknown, _) => 1,
            (Health::Down, _) | (Health::Maintenance, Health::Up) => monitor.successful_checks,
            (Health::Up | Health::Maintenance, _) => monitor.failed_checks,
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
    use crate::health::Cause;

    /// Verdict changes over a row of results: `+` success, `-` failure, `m` maintenance; `U` went up, `D` went down, `M` into maintenance, `.` neither.
    fn changes(successful_checks: u32, failed_checks: u32, results: &str) -> String {
        let monitor = Monitor { successful_checks, failed_checks, ..Monitor::connect("m") };
        let mut streak = Streak::NEW;
        let change = |result| match streak.on_result(outcome(result), &monitor) {
            None => '.',
            Some(Health::Maintenance) => 'M',
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

    fn outcome(result: char) -> Outcome {
        match result {
            '+' => Ok(Answer::Normal),
            'm' => Ok(Answer::Maintenance),
            _ => Err(Cause::Refused),
        }
    }

    #[test]
    fn maintenance_takes_as_long_to_begin_as_a_failure_and_to_end_as_a_success() {
        assert_eq!(changes(3, 2, "m"), "M");
        assert_eq!(changes(3, 2, "+mmm+++"), "U.M...U");
        assert_eq!(changes(3, 2, "-mmm--"), "D..M.D");
        assert_eq!(changes(3, 2, "+m+m-"), "U...D", "what speaks against the verdict counts, the last decides");
    }

    #[test]
    fn a_count_of_zero_is_taken_as_one() {
        assert_eq!(changes(0, 0, "+-+"), "UDU");
    }
}
