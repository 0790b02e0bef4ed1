//! How often keys rotate and how long tickets live, and what follows from the two.

use std::time::Duration;

use crate::ticket::ring::KEYS_MAX;

/// The longest life of a ticket, as RFC 8446 4.6.1 has it.
pub const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest time that one key seals.
pub const ROTATION_MAX: Duration = LIFETIME_MAX;

/// A rotation period and a ticket lifetime that fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    rotation: Duration,
    lifetime: Duration,
}

/// Why a period and a lifetime do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Below a second, which tickets cannot tell.
    #[error("the {0} is shorter than a second")]
    TooShort(&'static str),
    /// Beyond [`LIFETIME_MAX`] or [`ROTATION_MAX`].
    #[error("the {0} is longer than 7 days")]
    TooLong(&'static str),
    /// More keys than a ring holds.
    #[error(
        "tickets that live {} s and keys that rotate every {} s need {needed} keys, and a ring holds {KEYS_MAX}: rotate less often",
        lifetime.as_secs(),
        rotation.as_secs()
    )]
    TooManyKeys {
        /// What was asked for.
        lifetime: Duration,
        /// What was asked for.
        rotation: Duration,
        /// Keys that it takes.
        needed: u64,
    },
}

impl Schedule {
    /// A schedule; fractions of a second are dropped.
    ///
    /// # Errors
    /// [`Invalid`] says why not.
    pub fn new(rotation: Duration, lifetime: Duration) -> Result<Self, Invalid> {
        let limits = [("rotation period", rotation, ROTATION_MAX), ("ticket lifetime", lifetime, LIFETIME_MAX)];
        for (name, value, max) in limits {
            if value < Duration::from_secs(1) {
                return Err(Invalid::TooShort(name));
            }
            if value > max {
                return Err(Invalid::TooLong(name));
            }
        }
        let schedule = Self {
            rotation: Duration::from_secs(rotation.as_secs()),
            lifetime: Duration::from_secs(lifetime.as_secs()),
        };
        // Besides those that must be kept: one that pends, one whose end falls between two rotations, and one for an engine that goes on sealing with
        // a key for a rotation after it has retired (K7).
        let needed = schedule.keys_needed() + 3;
        if usize::try_from(needed).is_ok_and(|needed| needed <= KEYS_MAX) {
            Ok(schedule)
        } else {
            Err(Invalid::TooManyKeys { lifetime, rotation, needed })
        }
    }

    /// How long one key seals.
    pub fn rotation(&self) -> Duration {
        self.rotation
    }

    /// How long a ticket is honoured.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// K7: how long one key seals at most, on an engine that does not hear of rotations: two periods.
    pub fn sealing_max(&self) -> Duration {
        self.rotation.saturating_mul(2)
    }

    /// How many keys, the active one included, must be kept so that no valid ticket loses its key: ceil(lifetime / rotation) + 1.
    pub fn retention(&self) -> usize {
        usize::try_from(self.keys_needed()).expect("new() holds it below KEYS_MAX")
    }

    fn keys_needed(&self) -> u64 {
        self.lifetime.as_secs().div_ceil(self.rotation.as_secs()) + 1
    }
}

impl Default for Schedule {
    /// Rotation every 6 hours, tickets that live 24 hours.
    fn default() -> Self {
        Self { rotation: Duration::from_secs(6 * 3600), lifetime: Duration::from_secs(24 * 3600) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn k3_retention_is_the_lifetime_in_periods_rounded_up_and_one() {
        for (rotation, lifetime, keys) in [(6, 24, 5), (6, 25, 6), (24, 24, 2), (24, 1, 2), (1, 24, 25)] {
            assert_eq!(Schedule::new(HOUR * rotation, HOUR * lifetime).unwrap().retention(), keys);
        }
    }

    #[test]
    fn k3_a_schedule_that_needs_more_keys_than_a_ring_holds_is_refused() {
        let most = u32::try_from(KEYS_MAX).unwrap() - 4;
        assert!(Schedule::new(SECOND, SECOND * most).is_ok());
        let refused = Schedule::new(SECOND, SECOND * (most + 1)).unwrap_err();
        assert!(matches!(refused, Invalid::TooManyKeys { needed: 65, .. }), "{refused:?}");
    }

    #[test]
    fn k4_defaults_are_6_hours_and_24_hours() {
        let schedule = Schedule::default();
        assert_eq!((schedule.rotation(), schedule.lifetime()), (HOUR * 6, HOUR * 24));
        assert_eq!(Schedule::new(HOUR * 6, HOUR * 24), Ok(schedule));
    }

    #[test]
    fn k4_nothing_lives_longer_than_7_days_or_shorter_than_a_second() {
        let week = HOUR * 24 * 7;
        assert!(Schedule::new(week, week).is_ok());
        assert_eq!(Schedule::new(HOUR * 6, week + SECOND), Err(Invalid::TooLong("ticket lifetime")));
        assert_eq!(Schedule::new(week + SECOND, week), Err(Invalid::TooLong("rotation period")));
        assert_eq!(Schedule::new(HOUR, SECOND / 2), Err(Invalid::TooShort("ticket lifetime")));
        assert_eq!(Schedule::new(Duration::ZERO, HOUR), Err(Invalid::TooShort("rotation period")));
    }
}
