//! Times by window of the run: a moment in which the machine stood still spoils the window that it falls into, and not the figure of all of them.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::base::{Duration, Instant};

/// How long a window is, unless a run would have more of them than are kept.
const WIDTH: Duration = Duration::from_millis(100);

/// Most windows of a run; one that is longer than a minute has wider ones. A window's times take some 5 KiB.
const WINDOWS_MAX: u32 = 600;

/// The shortest and the longest time that is told apart in a window, in nanoseconds, and to how many digits.
const SHORTEST: u64 = 1_000;
const LONGEST: u64 = 60_000_000_000;
const DIGITS: u8 = 2;

/// How the time that is measured is cut into windows. What is left behind the last whole one belongs to none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    began: Instant,
    width: Duration,
    count: usize,
}

impl Grid {
    /// Before anything is measured: no windows.
    pub(super) const NONE: Self = Self { began: Instant::START, width: WIDTH, count: 0 };

    /// For a measurement that lasts so long.
    pub(super) fn new(began: Instant, lasts: Duration) -> Self {
        let width = WIDTH.max(lasts / WINDOWS_MAX);
        let count = (lasts.as_nanos() / width.as_nanos()).min(u128::from(WINDOWS_MAX));
        Self { began, width, count: usize::try_from(count).unwrap_or(0) }
    }

    pub(super) fn width(&self) -> Duration {
        self.width
    }

    /// The window that something belongs to which began, or should have, at `at`.
    fn window(&self, at: Instant) -> Option<usize> {
        if at < self.began {
            return None;
        }
        let number = (at - self.began).as_nanos() / self.width.as_nanos();
        usize::try_from(number).ok().filter(|number| *number < self.count)
    }
}

/// Times of one kind, window by window.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows(Vec<Histogram<u32>>);

impl Windows {
    /// Notes what took so long since `since`, which decides the window however late it has become.
    pub(super) fn add(&mut self, grid: &Grid, since: Instant, time: Duration) {
        let Some(window) = grid.window(since) else { return };
        if self.0.len() <= window {
            self.0.resize_with(window + 1, empty);
        }
        if let Some(times) = self.0.get_mut(window) {
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            // It grows as far as the longest time.
            times.record(nanos.clamp(SHORTEST, LONGEST)).expect("the bounds are kept");
        }
    }

    /// What the windows say.
    pub(super) fn median(&self, grid: &Grid) -> MedianWindow {
        MedianWindow {
            windows: grid.count,
            p50: self.median_of(grid, 0.5, 2),
            p99: self.median_of(grid, 0.99, 100),
            p999: self.median_of(grid, 0.999, 1000),
        }
    }

    /// The median of what a quantile is in each window with at least `enough` times: with fewer it would be the longest of them. None when half of the windows
    /// have not enough, for they might be the slow ones.
    fn median_of(&self, grid: &Grid, quantile: f64, enough: u64) -> Option<f64> {
        let told = self.0.iter().filter(|times| times.len() >= enough);
        let mut all: Vec<u64> = told.map(|times| times.value_at_quantile(quantile)).collect();
        if 2 * all.len() <= grid.count {
            return None;
        }
        all.sort_unstable();
        all.get(all.len() / 2).map(|nanos| *nanos as f64 / 1e3)
    }
}

fn empty() -> Histogram<u32> {
    let mut times = Histogram::new_with_bounds(SHORTEST, 2 * SHORTEST, DIGITS).expect("the bounds are in order");
    times.auto(true);
    times
}

/// The median over the windows of a run of what each window's times came to, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MedianWindow {
    /// How many windows the run had.
    pub windows: usize,
    /// The median window's median; none when most windows held next to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    /// In the median window 99 % are shorter; none when most windows held fewer than 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// In the median window 99.9 % are shorter; none when most windows held fewer than 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Instant = Instant::from_nanos(5_000_000_000);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn near(value: Option<f64>, expected: f64) -> bool {
        value.is_some_and(|value| (value / expected - 1.0).abs() < 0.02)
    }

    #[test]
    fn what_belongs_to_a_window_is_what_should_have_begun_in_it() {
        let grid = Grid::new(BEGAN, millis(250));
        let at = |after: u64| grid.window(BEGAN + millis(after));
        assert_eq!((at(0), at(99), at(100), at(199)), (Some(0), Some(0), Some(1), Some(1)));
        // The half window at the end, and what came before.
        assert_eq!((at(200), at(1_000_000)), (None, None));
        assert_eq!(grid.window(Instant::from_nanos(4_999_999_999)), None);
        assert_eq!(Grid::NONE.window(Instant::START), None);
    }

    #[test]
    fn a_long_run_has_wider_windows_and_not_more() {
        assert_eq!(Grid::new(BEGAN, Duration::from_secs(60)).count, 600);
        assert_eq!(Grid::new(BEGAN, Duration::from_secs(60)).width, WIDTH);
        for seconds in [61, 3_599, 86_401] {
            let grid = Grid::new(BEGAN, Duration::from_secs(seconds));
            assert_eq!(grid.count, 600);
            assert!(grid.width >= Duration::from_secs(seconds) / 600);
        }
        let (grid, mut windows) = (Grid::new(BEGAN, Duration::from_secs(86_401)), Windows::default());
        windows.add(&grid, BEGAN + Duration::from_secs(86_400), Duration::MAX);
        windows.add(&grid, BEGAN + Duration::from_secs(86_402), Duration::MAX);
        assert_eq!((windows.0.len(), windows.0[599].len()), (600, 1));
    }

    #[test]
    fn one_spoilt_window_does_not_change_the_median() {
        let (grid, mut windows) = (Grid::new(BEGAN, millis(500)), Windows::default());
        for number in 0..5 {
            for visit in 0..200 {
                let since = BEGAN + millis(100 * number) + Duration::from_micros(500 * visit);
                // 3 % of a window take 2 ms, in the third window 40 ms.
                let slow = if number == 2 { 40_000 } else { 2_000 };
                windows.add(&grid, since, Duration::from_micros(if visit < 6 { slow } else { 300 }));
            }
        }
        let median = windows.median(&grid);
        assert!(near(median.p50, 300.0) && near(median.p99, 2_000.0), "{median:?}");
        assert_eq!((median.windows, median.p999), (5, None));
    }

    #[test]
    fn what_most_windows_have_too_few_times_for_is_not_told() {
        let (grid, mut windows) = (Grid::new(BEGAN, millis(400)), Windows::default());
        let mut fill = |number: u64, times: u64| {
            (0..times).for_each(|_| windows.add(&grid, BEGAN + millis(100 * number), millis(1)));
            windows.median(&grid)
        };
        assert_eq!(fill(0, 1000).p50, None);
        assert_eq!(fill(1, 1000).p99, None, "two of four are not most");
        let third = fill(2, 999);
        assert!(near(third.p99, 1_000.0) && third.p999.is_none(), "{third:?}");
        assert!(near(fill(3, 1000).p999, 1_000.0));
    }
}
