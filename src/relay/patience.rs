//! What a relay's server keeps its client waiting for: what a connection says of its server, each connection once.

use crate::balance::Outcome;
use crate::base::{Duration, Instant};
use crate::tcp::Close;

/// What the client waits for.
#[derive(Clone, Copy, Debug)]
enum Wait {
    /// Nothing of a server's.
    Nothing,
    /// The server's SYN, since we sent ours.
    Connection { since: Instant },
    /// Its first byte. `connect` is how long its SYN took; since `asked` it has all that the client had to say so far, if it has said anything.
    Answer { connect: Duration, asked: Instant, has_asked: bool },
}

/// A client's patience with its server. The time that the client thinks is not in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    wait: Wait,
    outcome: Option<Outcome>,
}

impl Patience {
    pub(super) const NEW: Self = Self { wait: Wait::Nothing, outcome: None };

    /// A connection to a server is under way.
    pub(super) fn on_connecting(&mut self, now: Instant) {
        self.wait = Wait::Connection { since: now };
    }

    pub(super) fn on_connected(&mut self, now: Instant) {
        if let Wait::Connection { since } = self.wait {
            self.wait = Wait::Answer { connect: now - since, asked: now, has_asked: false };
        }
    }

    /// There is no way to the server.
    pub(super) fn on_no_way(&mut self) {
        self.settle(Outcome::Failed);
    }

    /// It does not answer in time, or does not shake hands: whoever waits for it waits in vain.
    pub(super) fn on_failed(&mut self) {
        match self.wait {
            Wait::Nothing => {}
            Wait::Connection { .. } | Wait::Answer { .. } => self.settle(Outcome::Failed),
        }
    }

    /// The server was sent something of the client's.
    pub(super) fn on_asked(&mut self, now: Instant) {
        if let Wait::Answer { asked, has_asked, .. } = &mut self.wait {
            (*asked, *has_asked) = (now, true);
        }
    }

    /// The server has sent something.
    pub(super) fn on_answered(&mut self, now: Instant) {
        if let Wait::Answer { connect, asked, .. } = self.wait {
            self.settle(Outcome::Answered(connect + (now - asked)));
        }
    }

    /// The connection to the server has ended so.
    pub(super) fn on_closed(&mut self, close: Close) {
        match (self.wait, close) {
            (Wait::Nothing, _) => {}
            (Wait::Answer { .. }, Close::Finished) => self.settle(Outcome::Finished),
            (Wait::Connection { .. } | Wait::Answer { .. }, _) => self.settle(Outcome::Failed),
        }
    }

    /// The whole connection is over.
    pub(super) fn on_over(&mut self, now: Instant) {
        match self.wait {
            Wait::Answer { connect, asked, has_asked: true } => {
                self.settle(Outcome::Unanswered(connect + (now - asked)));
            }
            Wait::Nothing | Wait::Connection { .. } | Wait::Answer { has_asked: false, .. } => {}
        }
    }

    pub(super) fn take(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    fn settle(&mut self, outcome: Outcome) {
        self.wait = Wait::Nothing;
        self.outcome = Some(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::START + Duration::from_millis(millis)
    }

    /// Connected after 3 ms, and asked twice, the second time after 100 ms.
    fn asked() -> Patience {
        let mut patience = Patience::NEW;
        patience.on_connecting(at(0));
        patience.on_connected(at(3));
        patience.on_asked(at(50));
        patience.on_asked(at(100));
        patience
    }

    #[test]
    fn the_time_to_an_answer_is_the_servers_own() {
        let mut patience = asked();
        patience.on_answered(at(107));
        patience.on_answered(at(500));
        assert_eq!(patience.take(), Some(Outcome::Answered(Duration::from_millis(3 + 7))));
        patience.on_closed(Close::Reset);
        patience.on_over(at(600));
        assert_eq!(patience.take(), None, "it has answered");
    }

    #[test]
    fn a_server_that_speaks_first_is_timed_from_its_connection() {
        let mut patience = Patience::NEW;
        patience.on_connecting(at(0));
        patience.on_connected(at(3));
        patience.on_answered(at(5));
        assert_eq!(patience.take(), Some(Outcome::Answered(Duration::from_millis(5))));
    }

    #[test]
    fn what_breaks_before_the_first_byte_has_failed() {
        for close in [Close::Refused, Close::Reset, Close::TimedOut, Close::Unreachable] {
            let mut patience = Patience::NEW;
            patience.on_connecting(at(0));
            patience.on_closed(close);
            assert_eq!(patience.take(), Some(Outcome::Failed));
            let mut patience = asked();
            patience.on_closed(close);
            assert_eq!(patience.take(), Some(Outcome::Failed));
        }
        let mut patience = Patience::NEW;
        patience.on_connecting(at(0));
        patience.on_failed();
        assert_eq!(patience.take(), Some(Outcome::Failed));
    }

    #[test]
    fn who_was_asked_and_said_nothing_is_told_apart_from_who_was_not() {
        let mut patience = asked();
        patience.on_over(at(2100));
        assert_eq!(patience.take(), Some(Outcome::Unanswered(Duration::from_millis(2003))));
        let mut patience = asked();
        patience.on_closed(Close::Finished);
        assert_eq!(patience.take(), Some(Outcome::Finished));
        let mut patience = Patience::NEW;
        patience.on_connecting(at(0));
        patience.on_connected(at(3));
        patience.on_over(at(2000));
        assert_eq!(patience.take(), None);
    }
}
