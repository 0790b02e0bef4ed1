//! HyStart++ (RFC 9406): slow start ends when round trips grow, before there is a loss.

use crate::base::Duration;
use crate::wire::Seq;

// RFC 9406 4.3.
const RTT_THRESH_MIN: u32 = 4_000;
const RTT_THRESH_MAX: u32 = 16_000;
const SAMPLES_MIN: u8 = 8;
const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u8 = 5;

/// Round trips are in microseconds; `u32::MAX` is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct HyStart {
    /// The acknowledgement that ends this round.
    window_end: Option<Seq>,
    last_min: u32,
    current_min: u32,
    samples: u8,
    /// In conservative slow start: the round trip that began it, and its rounds.
    conservative: Option<(u32, u8)>,
}

impl HyStart {
    pub(super) fn new() -> Self {
        Self { window_end: None, last_min: u32::MAX, current_min: u32::MAX, samples: 0, conservative: None }
    }

    /// What `newly` acknowledged bytes add to the window in slow start.
    pub(super) fn growth(&self, newly: u32) -> u32 {
        if self.conservative.is_some() { newly / CSS_GROWTH_DIVISOR } else { newly }
    }

    /// An acknowledgement in slow start. Gives whether slow start is over.
    pub(super) fn on_ack(&mut self, ack: Seq, snd_max: Seq, round_trip: Option<Duration>) -> bool {
        if let Some(round_trip) = round_trip {
            self.current_min = self.current_min.min(u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX - 1));
            self.samples = self.samples.saturating_add(1);
        }
        if self.samples >= SAMPLES_MIN {
            self.conservative = match self.conservative {
                // RFC 9406 4.2: round trips have shrunk again, so what was seen was no queue.
                Some((baseline, _)) if self.current_min < baseline => None,
                None if self.has_grown() => Some((self.current_min, 0)),
                unchanged => unchanged,
            };
        }
        if self.window_end.is_some_and(|end| ack.before(end)) {
            return false;
        }
        self.window_end = Some(snd_max);
        (self.last_min, self.current_min, self.samples) = (self.current_min, u32::MAX, 0);
        let Some((_, rounds)) = &mut self.conservative else { return false };
        *rounds += 1;
        *rounds > CSS_ROUNDS
    }

    fn has_grown(&self) -> bool {
        let threshold = (self.last_min / 8).clamp(RTT_THRESH_MIN, RTT_THRESH_MAX);
        self.last_min != u32::MAX && self.current_min >= self.last_min.saturating_add(threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One round of ten acknowledgements.
    fn round(hystart: &mut HyStart, number: u32, millis: u64) -> bool {
        let mut over = false;
        for i in 1..=10 {
            // Far from zero, as sequence numbers are.
            let ack = Seq(0x9000_0000 + number * 10 + i);
            over |= hystart.on_ack(ack, ack + (20 - i), Some(Duration::from_millis(millis)));
        }
        over
    }

    #[test]
    fn steady_round_trips_change_nothing() {
        let mut hystart = HyStart::new();
        assert!((0..100).all(|number| !round(&mut hystart, number, 50 + u64::from(number % 3))));
        assert_eq!(hystart.growth(4000), 4000);
    }

    #[test]
    fn growing_round_trips_slow_the_growth_and_end_it_five_rounds_later() {
        let mut hystart = HyStart::new();
        for number in 0..4 {
            assert!(!round(&mut hystart, number, 50));
        }
        assert!(!round(&mut hystart, 4, 60));
        assert_eq!(hystart.growth(4000), 1000);
        let end = (5..20).find(|number| round(&mut hystart, *number, 62));
        assert_eq!(end, Some(9));
    }

    #[test]
    fn a_false_alarm_is_forgotten() {
        let mut hystart = HyStart::new();
        for number in 0..4 {
            round(&mut hystart, number, 50);
        }
        round(&mut hystart, 4, 60);
        assert!(!round(&mut hystart, 5, 50));
        assert_eq!(hystart.growth(4000), 4000);
    }
}
