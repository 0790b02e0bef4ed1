//! What a load counts and times.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::base::{Duration, Instant};
use crate::load::windows::{Grid, MedianWindow, Windows};
use crate::tcp::Close;

/// The shortest and the longest time that is told apart, in nanoseconds, and to how many digits.
const SHORTEST: u64 = 1_000;
const LONGEST: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// Why a connection has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// No route, or the network said that there is no way.
    Unreachable,
    /// No source port or table entry was free here.
    NoResources,
    /// A reset answered the SYN.
    Refused,
    /// The connection was reset.
    Reset,
    /// It got no further for too long.
    TimedOut,
    /// TLS failed: an alert, or nonsense.
    Tls,
    /// It ended before the answer did.
    Ended,
    /// The answer was none, or not the one that was asked for.
    WrongAnswer,
    /// A client with a ticket was not resumed.
    NotResumed,
    /// A client got no ticket to come back with.
    NoTicket,
}

impl Failure {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::NoResources => "no_resources",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Tls => "tls",
            Self::Ended => "ended",
            Self::WrongAnswer => "wrong_answer",
            Self::NotResumed => "not_resumed",
            Self::NoTicket => "no_ticket",
        }
    }
}

impl From<Close> for Failure {
    fn from(close: Close) -> Self {
        match close {
            Close::Finished => Self::Ended,
            Close::Reset => Self::Reset,
            Close::Refused => Self::Refused,
            Close::TimedOut => Self::TimedOut,
            Close::Unreachable => Self::Unreachable,
        }
    }
}

/// Times of one kind.
#[derive(Clone, Debug)]
pub(super) struct Times {
    whole: Histogram<u64>,
    windows: Windows,
}

impl Times {
    fn new() -> Self {
        let whole = Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS).expect("the bounds are in order");
        Self { whole, windows: Windows::default() }
    }

    fn add(&mut self, time: Duration) {
        self.whole.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Those of the whole time that is measured.
    pub(super) fn whole(&self) -> &Histogram<u64> {
        &self.whole
    }

    /// Those of the median window of it.
    pub(super) fn median_window(&self, grid: &Grid) -> MedianWindow {
        self.windows.median(grid)
    }
}

/// Everything that a load counts. Numbers of what came to pass in the time that is measured; failures and attempts of the whole run. Times by window are of
/// what began in the time that is measured, though it may end later: those that the window's end cuts off would be its slow ones.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Whether what happens now counts.
    pub(super) measuring: bool,
    /// The windows of the time that is measured.
    pub(super) grid: Grid,
    /// From the client's arrival to the end of TCP's handshake.
    pub(super) connect: Times,
    /// From there to the end of TLS's.
    pub(super) handshake: Times,
    /// From the client's arrival to the first byte of its first answer.
    pub(super) first_byte: Times,
    /// From a request to the end of its answer.
    pub(super) answer: Times,
    pub(super) full: u64,
    pub(super) resumed: u64,
    pub(super) answers: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) attempts: u64,
    pub(super) served: u64,
    pub(super) failures: BTreeMap<Failure, u64>,
    /// What rustls said the first time that TLS failed.
    pub(super) first_tls_error: Option<String>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            measuring: false,
            grid: Grid::NONE,
            connect: Times::new(),
            handshake: Times::new(),
            first_byte: Times::new(),
            answer: Times::new(),
            full: 0,
            resumed: 0,
            answers: 0,
            received: 0,
            sent: 0,
            attempts: 0,
            served: 0,
            failures: BTreeMap::new(),
            first_tls_error: None,
        }
    }

    /// TCP's handshake has ended, of a client who came at `since`.
    pub(super) fn connected(&mut self, since: Instant, now: Instant) {
        self.connect.windows.add(&self.grid, since, now - since);
        if self.measuring {
            self.connect.add(now - since);
        }
    }

    /// TLS's has, which began at `since`.
    pub(super) fn shaken(&mut self, resumed: bool, since: Instant, now: Instant) {
        self.handshake.windows.add(&self.grid, since, now - since);
        if self.measuring {
            self.handshake.add(now - since);
            *(if resumed { &mut self.resumed } else { &mut self.full }) += 1;
        }
    }

    /// The first byte has come, for a client who came at `since`.
    pub(super) fn first_byte(&mut self, since: Instant, now: Instant) {
        self.first_byte.windows.add(&self.grid, since, now - since);
        if self.measuring {
            self.first_byte.add(now - since);
        }
    }

    /// An answer has, to what was asked at `since`.
    pub(super) fn answered(&mut self, since: Instant, now: Instant) {
        self.answer.windows.add(&self.grid, since, now - since);
        if self.measuring {
            self.answer.add(now - since);
            self.answers += 1;
        }
    }

    /// Bytes of bodies.
    pub(super) fn moved(&mut self, received: u64, sent: u64) {
        if self.measuring {
            self.received += received;
            self.sent += sent;
        }
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        *self.failures.entry(failure).or_default() += 1;
    }

    pub(super) fn failed_total(&self) -> u64 {
        self.failures.values().sum()
    }
}
