//! The retransmission timeout (RFC 6298).

use std::num::NonZeroU32;

use crate::base::Duration;

// RFC 6298 2.4 says 1 s. We use 200 ms, as Linux does: servers sit microseconds away.
pub(super) const RTO_MIN: Duration = Duration::from_millis(200);
/// RFC 6298 2.5 allows a maximum of 60 s or more.
pub(super) const RTO_MAX: Duration = Duration::from_secs(60);
/// RFC 6298 2.1: before the first measurement.
pub(super) const RTO_INITIAL: Duration = Duration::from_secs(1);
/// RFC 6298 5.7: where the SYN had to be sent again.
const AFTER_LOST_SYN_MICROS: u32 = 3_000_000;
/// RFC 6298 2.3: G, the resolution of our timers.
const GRANULARITY_MICROS: u64 = 1_000;

/// Round-trip time as measured, and the timeout that follows from it. In microseconds, which is what servers nearby take.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rtt {
    srtt: Option<NonZeroU32>,
    /// Before the first measurement, the least that the timeout is.
    rttvar: u32,
    backoff: u8,
}

impl Rtt {
    /// RFC 6298 2.2 and 2.3. The caller obeys Karn: no sample from a retransmitted segment.
    pub(super) fn on_sample(&mut self, sample: Duration) {
        let sample = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX);
        let srtt = match self.srtt {
            None => {
                self.rttvar = sample / 2;
                sample
            }
            Some(srtt) => {
                let srtt = srtt.get();
                self.rttvar = weighted(self.rttvar, srtt.abs_diff(sample), 4);
                weighted(srtt, sample, 8)
            }
        };
        self.srtt = NonZeroU32::new(srtt).or(Some(NonZeroU32::MIN));
        self.backoff = 0;
    }

    /// RFC 6298 5.5. Gives whether this is the first expiry since the last sample.
    pub(super) fn back_off(&mut self) -> bool {
        self.backoff = (self.backoff + 1).min(16);
        self.backoff == 1
    }

    /// RFC 6298 5.7: the handshake took more than one SYN. Unless it has been measured all the same, the path may be longer than the first timeout, and data
    /// must not pay for finding out.
    pub(super) fn on_syn_lost(&mut self) {
        if self.srtt.is_none() {
            (self.rttvar, self.backoff) = (AFTER_LOST_SYN_MICROS, 0);
        }
    }

    /// The timeout, doubled by each expiry since the last sample.
    pub(super) fn rto(&self) -> Duration {
        let base = match self.srtt {
            None => RTO_INITIAL.max(Duration::from_micros(self.rttvar.into())),
            Some(srtt) => {
                let micros = u64::from(srtt.get()) + u64::from(self.rttvar).saturating_mul(4).max(GRANULARITY_MICROS);
                Duration::from_micros(micros).max(RTO_MIN)
            }
        };
        base.saturating_mul(1 << self.backoff).min(RTO_MAX)
    }

    /// The smoothed round-trip time, once measured.
    pub(super) fn srtt(&self) -> Option<Duration> {
        self.srtt.map(|srtt| Duration::from_micros(srtt.get().into()))
    }
}

/// `old` moved towards `new` by one in `parts`.
fn weighted(old: u32, new: u32, parts: u32) -> u32 {
    let sum = u64::from(old) * u64::from(parts - 1) + u64::from(new);
    u32::try_from(sum / u64::from(parts)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rfc_6298() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.rto(), Duration::from_secs(1));
        rtt.on_sample(Duration::from_millis(400));
        assert_eq!(rtt.rto(), Duration::from_millis(400 + 4 * 200));
        rtt.on_sample(Duration::from_millis(400));
        assert_eq!(rtt.rto(), Duration::from_millis(400 + 4 * 150));
        rtt.back_off();
        assert_eq!(rtt.rto(), Duration::from_millis(2000));
        rtt.on_sample(Duration::from_millis(480));
        assert_eq!(rtt.srtt(), Some(Duration::from_millis(410)));
    }

    #[test]
    fn takes_twelve_bytes_and_any_sample() {
        assert!(size_of::<Rtt>() <= 12);
        let mut rtt = Rtt::default();
        rtt.on_sample(Duration::ZERO);
        assert_eq!(rtt.rto(), RTO_MIN);
        rtt.on_sample(Duration::MAX);
        assert_eq!(rtt.rto(), RTO_MAX);
    }

    #[test]
    fn a_lost_syn_raises_the_timeout_until_there_is_a_measurement() {
        let mut rtt = Rtt::default();
        rtt.back_off();
        rtt.on_syn_lost();
        assert_eq!(rtt.rto(), Duration::from_secs(3));
        rtt.on_sample(Duration::from_millis(400));
        assert_eq!(rtt.rto(), Duration::from_millis(400 + 4 * 200));
        rtt.on_syn_lost();
        assert_eq!(rtt.rto(), Duration::from_millis(400 + 4 * 200));
    }

    #[test]
    fn stays_between_floor_and_ceiling() {
        let mut rtt = Rtt::default();
        for _ in 0..20 {
            rtt.on_sample(Duration::from_micros(50));
        }
        assert_eq!(rtt.rto(), RTO_MIN);
        for _ in 0..40 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), RTO_MAX);
    }
}
