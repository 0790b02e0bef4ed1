//! Times that one lane notes and the control core reads, in buckets whose bounds double: 1 µs, 2 µs, up to half a second.

use std::array;

use crate::base::{Counter, Duration};

/// Buckets with a bound. What is beyond the last one's is counted in one more.
pub const BOUNDED: usize = 20;

/// A histogram with one writer and any number of readers. Noting costs four loads and stores, without a locked instruction.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BOUNDED + 1],
    nanoseconds: Counter,
}

/// What a reader sees of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How many times were in each bucket, and in none with a smaller bound.
    pub buckets: [u64; BOUNDED + 1],
    /// The sum of all times.
    pub nanoseconds: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: array::from_fn(|_| Counter::default()), nanoseconds: Counter::default() }
    }
}

impl Histogram {
    /// Notes a time. Only the owning lane may call this.
    pub fn note(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(nanoseconds)) {
            bucket.increment();
        }
        self.nanoseconds.add(nanoseconds);
    }

    /// What has been noted, as any thread sees it.
    pub fn times(&self) -> Times {
        Times {
            buckets: array::from_fn(|bucket| self.buckets.get(bucket).map_or(0, Counter::value)),
            nanoseconds: self.nanoseconds.value(),
        }
    }
}

/// The upper bound of a bucket, which is in it; none of the last.
pub fn bound(bucket: usize) -> Option<Duration> {
    let doubled = u32::try_from(bucket).ok().filter(|_| bucket < BOUNDED)?;
    Some(Duration::from_micros(1 << doubled))
}

fn bucket_of(nanoseconds: u64) -> usize {
    let beyond = nanoseconds.saturating_sub(1) / 1000;
    // Up to 1 µs it is 0, up to 2 µs it is 1, up to 4 µs it is 2 or 3: as many bits as bounds have been passed.
    let passed = u64::BITS - beyond.leading_zeros();
    usize::try_from(passed).map_or(BOUNDED, |passed| passed.min(BOUNDED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_it_does_not_pass() {
        for bucket in 0..BOUNDED {
            let bound = u64::try_from(bound(bucket).unwrap().as_nanos()).unwrap();
            assert_eq!([bound - 1, bound, bound + 1].map(bucket_of), [bucket, bucket, bucket + 1]);
        }
        assert_eq!([0, 1, u64::MAX].map(bucket_of), [0, 0, BOUNDED]);
        assert_eq!(bound(BOUNDED), None);
        assert!(bound(BOUNDED - 1).is_some_and(|bound| bound > Duration::from_millis(500)));
    }

    #[test]
    fn what_is_noted_is_what_is_read() {
        let histogram = Histogram::default();
        for time in [Duration::ZERO, Duration::from_nanos(1500), Duration::from_nanos(2000), Duration::from_secs(9)] {
            histogram.note(time);
        }
        let times = histogram.times();
        assert_eq!((times.buckets[0], times.buckets[1], times.buckets[BOUNDED]), (1, 2, 1));
        assert_eq!(times.buckets.iter().sum::<u64>(), 4);
        assert_eq!(times.nanoseconds, 9_000_003_500);
    }
}
