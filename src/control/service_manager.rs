//! Tells the service manager how the engine does, by sd_notify(3): ready, reloading, stopping, alive. Without one nobody is told.
//!
//! `systemctl start` comes back when the engine is ready. With `WatchdogSec=` in its unit systemd kills an engine of which a lane is stuck for
//! so long, and starts it anew.

use sd_notify::NotifyState;

use crate::base::{Duration, Instant};

/// What the service manager has been told.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// It wants to hear of the engine so often; half of the time that it is patient for.
    interval: Option<Duration>,
    told_at: Instant,
    /// A message that could not be sent has been told in the log.
    failed: bool,
}

impl ServiceManager {
    /// The one that started this process, as the environment says.
    pub(super) fn of_environment(now: Instant) -> Self {
        Self { interval: sd_notify::watchdog_enabled().map(|patience| patience / 2), told_at: now, failed: false }
    }

    /// Clients may be sent here.
    pub(super) fn ready(&mut self) {
        self.tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
    }

    /// Clients should be sent elsewhere.
    pub(super) fn unfit(&mut self, why: &str) {
        self.tell(&[NotifyState::Status(why)]);
    }

    /// The configuration is read again; [`reloaded`](Self::reloaded) follows.
    pub(super) fn reloading(&mut self) {
        // What the clock cannot say is not needed by Type=notify.
        match NotifyState::monotonic_usec_now() {
            Ok(since) => self.tell(&[NotifyState::Reloading, since]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// It has been read, and is in force or refused.
    pub(super) fn reloaded(&mut self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// The engine drains. It takes `longest` at most, which may be more than its unit allows for stopping.
    pub(super) fn stopping(&mut self, longest: Duration) {
        let longest = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::Stopping, NotifyState::Status("draining"), NotifyState::ExtendTimeoutUsec(longest)]);
    }

    /// Every lane has breathed just now.
    pub(super) fn alive(&mut self, now: Instant) {
        if self.interval.is_some_and(|interval| now.since(self.told_at) >= interval) {
            self.told_at = now;
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    fn tell(&mut self, news: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(news)
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::warn!("the service manager cannot be told how the engine does ({error})");
        }
    }
}
