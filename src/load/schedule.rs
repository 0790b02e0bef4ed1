//! When clients come that do not wait for each other, whether answers come or not.

use std::num::NonZeroU32;

use crate::base::{Duration, Instant, Random};

/// Every run draws the same times, so that runs at one rate can be compared.
const SEED: u64 = 1;

/// 2⁵³: how many numbers of 53 bits there are, all of which a float holds.
const FLOATS: f64 = 9_007_199_254_740_992.0;

/// How clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// Each independent of all others, as those of the world do: a Poisson process, with bursts
    Random,
    /// One after the other, evenly, as many load generators have it: they hardly ever meet, and what is left of a latency is no matter of chance
    Even,
}

/// Arrivals at a rate.
///
/// A visit that begins late is timed from when it should have begun: a generator that waits for a slow server would otherwise leave out the clients who
/// suffer from it (coordinated omission).
#[derive(Debug)]
pub(super) struct Schedule {
    arrivals: Arrivals,
    per_second: f64,
    began: Instant,
    /// When the next client comes, in mean times between two clients since it began.
    next: f64,
    random: Random,
}

impl Schedule {
    pub(super) fn new(arrivals: Arrivals, per_second: NonZeroU32, began: Instant) -> Self {
        let (per_second, random) = (per_second.get().into(), Random::from_seed(SEED));
        let mut schedule = Self { arrivals, per_second, began, next: 0.0, random };
        schedule.draw();
        schedule
    }

    /// When the next client comes.
    pub(super) fn poll_at(&self) -> Instant {
        self.began + Duration::from_secs_f64(self.next / self.per_second)
    }

    /// Takes the next client if it is there, and gives the time at which it came.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let at = self.poll_at();
        if at > now {
            return None;
        }
        self.draw();
        Some(at)
    }

    /// Takes all clients that have come, and says how many.
    pub(super) fn take_overdue(&mut self, now: Instant) -> u64 {
        let mut overdue = 0;
        while self.take(now).is_some() {
            overdue += 1;
        }
        overdue
    }

    /// The time between two independent arrivals is distributed exponentially: the logarithm of a number above 0 and up to 1.
    fn draw(&mut self) {
        self.next += match self.arrivals {
            Arrivals::Random => -(((self.random.next_u64() >> 11) + 1) as f64 / FLOATS).ln(),
            Arrivals::Even => 1.0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Instant = Instant::from_nanos(500);

    fn schedule(per_second: u32) -> Schedule {
        Schedule::new(Arrivals::Random, NonZeroU32::new(per_second).unwrap(), BEGAN)
    }

    /// Arrivals of each millisecond of ten seconds, 4 of them expected.
    fn counts() -> Vec<u64> {
        let mut schedule = schedule(4000);
        (1..=10_000).map(|millisecond| schedule.take_overdue(BEGAN + Duration::from_millis(millisecond))).collect()
    }

    #[test]
    fn clients_come_at_the_rate_that_was_asked_for() {
        // The standard deviation is 200.
        assert!(counts().iter().sum::<u64>().abs_diff(40_000) < 600);
    }

    #[test]
    fn clients_come_in_bursts_as_independent_ones_do() {
        let counts = counts();
        // Of a Poisson distribution the variance is the mean; evenly spaced arrivals have none.
        let variance = counts.iter().map(|count| (*count as f64 - 4.0).powi(2)).sum::<f64>() / counts.len() as f64;
        assert!((3.7..4.3).contains(&variance), "{variance}");
        // e⁻⁴ of the milliseconds are empty, and as many as eleven or more come in 0.3 % of them.
        let share = |wanted: &dyn Fn(u64) -> bool| counts.iter().filter(|count| wanted(**count)).count();
        assert!((140..230).contains(&share(&|count| count == 0)));
        assert!((12..50).contains(&share(&|count| count > 10)));
    }

    #[test]
    fn clients_come_evenly_if_they_are_to() {
        let mut schedule = Schedule::new(Arrivals::Even, NonZeroU32::new(3).unwrap(), BEGAN);
        let second = BEGAN + Duration::from_millis(1_001);
        let times: Vec<_> = std::iter::from_fn(|| schedule.take(second)).map(|at| (at - BEGAN).as_millis()).collect();
        assert_eq!(times, [333, 666, 1_000]);
    }

    #[test]
    fn every_run_draws_the_same_times() {
        let times = || {
            let mut schedule = schedule(1000);
            std::iter::from_fn(move || schedule.take(BEGAN + Duration::from_secs(1))).collect::<Vec<_>>()
        };
        assert_eq!(times(), times());
        assert!(times().len() > 900);
    }

    #[test]
    fn clients_who_wait_keep_the_time_at_which_they_came() {
        let mut schedule = schedule(1000);
        let late = BEGAN + Duration::from_secs(1);
        let (first, second) = (schedule.take(late).unwrap(), schedule.take(late).unwrap());
        assert!(BEGAN < first && first < second && second < BEGAN + Duration::from_millis(50));
        assert!(schedule.take_overdue(late).abs_diff(1000) < 100);
        assert!(schedule.poll_at() > late);
        assert_eq!(schedule.take_overdue(late), 0);
    }
}
