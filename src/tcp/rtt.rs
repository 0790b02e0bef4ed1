//! The retransmission timeout (RFC 6298).

use crate::base::Duration;

// RFC 6298 2.4 says 1 s. We use 200 ms, as Linux does: servers sit microseconds away.
pub(super) const RTO_MIN: Duration = Duration::from_millis(200);
/// RFC 6298 2.5 allows a maximum of 60 s or more.
pub(super) const RTO_MAX: Duration = Duration::from_secs(60);
/// RFC 6298 2.1: before the first measurement.
pub(super) const RTO_INITIAL: Duration = Duration::from_secs(1);
/// RFC 6298 5.7: where the SYN had to be sent again.
const RTO_AFTER_LOST_SYN: Duration = Duration::from_secs(3);

/// Round-trip time as measured, and the timeout that follows from it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rtt {
    srtt: Option<Duration>,
    /// Before the first measurement, the least that the timeout is.
    rttvar: Duration,
    backoff: u32,
}

impl Rtt {
    /// RFC 6298 2.2 and 2.3. The caller obeys Karn: no sample from a retransmitted segment.
    pub(super) fn on_sample(&mut self, sample: Duration) {
        match self.srtt {
            None => {
                self.srtt = Some(sample);
                self.rttvar = sample / 2;
            }
            Some(srtt) => {
                self.rttvar = (self.rttvar * 3 + srtt.abs_diff(sample)) / 4;
                self.srtt = Some((srtt * 7 + sample) / 8);
            }
        }
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
            (self.rttvar, self.backoff) = (RTO_AFTER_LOST_SYN, 0);
        }
    }

    /// The timeout, doubled by each expiry since the last sample.
    pub(super) fn rto(&self) -> Duration {
        let base = match self.srtt {
            None => RTO_INITIAL.max(self.rttvar),
            Some(srtt) => (srtt + (self.rttvar * 4).max(Duration::from_millis(1))).max(RTO_MIN),
        };
        base.saturating_mul(1 << self.backoff).min(RTO_MAX)
    }

    /// The smoothed round-trip time, once measured.
    pub(super) fn srtt(&self) -> Option<Duration> {
        self.srtt
    }
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
