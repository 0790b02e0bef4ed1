//! When clients come that do not wait for each other: evenly, whether answers come or not.

use std::num::NonZeroU32;

use crate::base::Instant;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Arrivals at a fixed rate. A visit that begins late is timed from when it should have begun: a generator that waits for a slow server would otherwise
/// leave out the clients who suffer from it (coordinated omission).
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    per_second: NonZeroU32,
    began: Instant,
    taken: u64,
}

impl Schedule {
    pub(super) fn new(per_second: NonZeroU32, began: Instant) -> Self {
        Self { per_second, began, taken: 0 }
    }

    /// When the next client comes.
    pub(super) fn poll_at(&self) -> Instant {
        let nanos = u128::from(self.taken) * NANOS_PER_SECOND / u128::from(self.per_second.get());
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        Instant::from_nanos(self.began.as_nanos().saturating_add(nanos))
    }

    /// Takes the next client if it is there, and gives the time at which it came.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let at = self.poll_at();
        if at > now {
            return None;
        }
        self.taken += 1;
        Some(at)
    }

    /// Clients that have come and were not taken.
    pub(super) fn overdue(&self, now: Instant) -> u64 {
        let nanos = (now - self.began).as_nanos();
        let come = nanos * u128::from(self.per_second.get()) / NANOS_PER_SECOND + 1;
        u64::try_from(come).unwrap_or(u64::MAX).saturating_sub(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Duration;

    #[test]
    fn clients_come_evenly_from_the_first_moment_on() {
        let began = Instant::from_nanos(500);
        let mut schedule = Schedule::new(NonZeroU32::new(3).unwrap(), began);
        let second = began + Duration::from_secs(1);
        let times: Vec<_> = std::iter::from_fn(|| schedule.take(second)).map(|at| (at - began).as_nanos()).collect();
        assert_eq!(times, [0, 333_333_333, 666_666_666, 1_000_000_000]);
        assert_eq!(schedule.take(second), None);
    }

    #[test]
    fn clients_who_wait_keep_the_time_at_which_they_came() {
        let mut schedule = Schedule::new(NonZeroU32::new(1000).unwrap(), Instant::START);
        let late = Instant::START + Duration::from_millis(10);
        assert_eq!(schedule.overdue(late), 11);
        assert_eq!(schedule.take(late), Some(Instant::START));
        assert_eq!(schedule.take(late), Some(Instant::START + Duration::from_millis(1)));
        assert_eq!(schedule.overdue(late), 9);
    }
}
