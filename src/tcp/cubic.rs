//! CUBIC (RFC 9438): in congestion avoidance the window is a cubic function of the time since the last congestion, whatever the round trip.

use crate::base::{Duration, Instant};

/// RFC 9438 4.6.
const BETA: f64 = 0.7;
/// RFC 9438 5, in segments per cubic second.
const C: f64 = 0.4;
/// RFC 9438 4.3: what lets the Reno-friendly window grow as Reno's, which halves.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// Since the first acknowledgement after a congestion.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    began: Instant,
    /// Seconds until the window is back at W_max.
    k: f32,
    /// W_max of this epoch and W_est, in bytes.
    w_max: f32,
    w_est: f32,
}

/// Windows are in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cubic {
    w_max: u32,
    cwnd_prior: u32,
    epoch: Option<Epoch>,
}

impl Cubic {
    /// Something was lost of `flight` bytes with this window. Gives ssthresh before its lower bound.
    pub(super) fn on_congestion(&mut self, cwnd: u32, flight: u32) -> u32 {
        // RFC 9438 4.7, fast convergence: a flow that loses before it is back where it was leaves room for others.
        self.w_max = if cwnd < self.w_max { bytes(f64::from(cwnd) * (1.0 + BETA) / 2.0) } else { cwnd };
        self.cwnd_prior = cwnd;
        self.epoch = None;
        bytes(f64::from(flight) * BETA)
    }

    /// The window has been changed by something else: the curve starts anew (RFC 9438 5.8).
    pub(super) fn restart(&mut self) {
        self.epoch = None;
    }

    /// The window after `newly` bytes have been acknowledged in congestion avoidance (RFC 9438 4.2 to 4.5).
    pub(super) fn grow(&mut self, cwnd: u32, newly: u32, mss: u32, srtt: Duration, now: Instant) -> u32 {
        let (window, acked, segment) = (f64::from(cwnd), f64::from(newly), f64::from(mss));
        let epoch = self.epoch.get_or_insert_with(|| {
            let w_max = f64::from(self.w_max.max(cwnd));
            let k = ((w_max - window) / segment / C).cbrt();
            Epoch { began: now, k: narrow(k), w_max: narrow(w_max), w_est: narrow(window) }
        });
        let curve = |seconds: f64| C * (seconds - f64::from(epoch.k)).powi(3) * segment + f64::from(epoch.w_max);
        let elapsed = now.since(epoch.began).as_secs_f64();
        let alpha = if epoch.w_est < narrow(f64::from(self.cwnd_prior)) { ALPHA } else { 1.0 };
        let w_est = f64::from(epoch.w_est) + alpha * acked * segment / window;
        let grown = if curve(elapsed) < w_est {
            window.max(w_est)
        } else {
            let target = curve(elapsed + srtt.as_secs_f64()).clamp(window, window * 1.5);
            window + (target - window) * acked / window
        };
        epoch.w_est = narrow(w_est);
        bytes(grown)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
fn bytes(value: f64) -> u32 {
    value as u32
}

#[expect(clippy::cast_possible_truncation, reason = "half the memory, and seven digits are enough")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;
    const RTT: Duration = Duration::from_millis(100);

    /// Lets round trips pass in which the whole window is acknowledged. Gives the window after each.
    fn rounds(cubic: &mut Cubic, mut cwnd: u32, rtt: Duration, count: u32) -> Vec<u32> {
        let mut now = Instant::START + Duration::from_secs(5);
        let mut windows = Vec::new();
        for _ in 0..count {
            for _ in 0..cwnd / MSS {
                cwnd = cubic.grow(cwnd, MSS, MSS, rtt, now);
            }
            now = now + rtt;
            windows.push(cwnd);
        }
        windows
    }

    #[test]
    fn the_window_returns_to_where_it_was_slows_down_there_and_goes_on() {
        let mut cubic = Cubic::default();
        let start = cubic.on_congestion(1000 * MSS, 1000 * MSS);
        assert_eq!(start, 700 * MSS);
        let windows = rounds(&mut cubic, start, RTT, 200);
        assert!(windows.windows(2).all(|pair| pair[0] <= pair[1]), "it shrinks");
        // K = cbrt(300 / 0.4) = 9.09 s.
        let k = 91;
        assert!((985..=1001).contains(&(windows[k] / MSS)), "{}", windows[k] / MSS);
        let step = |at: usize| windows[at + 5] - windows[at - 5];
        assert!(step(k) < step(20) && step(k) < step(160));
        assert!(windows[180] > 1200 * MSS);
    }

    #[test]
    fn short_round_trips_get_what_reno_gets() {
        let mut cubic = Cubic::default();
        let start = cubic.on_congestion(20 * MSS, 20 * MSS);
        let windows = rounds(&mut cubic, start, Duration::from_millis(1), 20);
        // 0.53 segments a round trip up to the former window, then one.
        assert!((19_000..20_500).contains(&windows[10]), "{windows:?}");
        assert!((27_500..28_500).contains(&windows[19]), "{windows:?}");
    }

    #[test]
    fn a_second_loss_on_the_way_back_leaves_room() {
        let mut cubic = Cubic::default();
        cubic.on_congestion(1000 * MSS, 1000 * MSS);
        cubic.on_congestion(800 * MSS, 800 * MSS);
        assert_eq!(cubic.w_max, 680 * MSS);
    }
}
