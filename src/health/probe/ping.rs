//! The probe that asks for an echo (RFC 792, RFC 4443 4): any answer that gives back what was said is good.

use std::net::IpAddr;

use crate::health::{Answer, Outcome, Ping};

/// One probe.
#[derive(Debug)]
pub(super) struct Talk {
    to: IpAddr,
    ping: Ping,
}

impl Talk {
    pub(super) fn new(to: IpAddr, ping: Ping) -> Self {
        Self { to, ping }
    }

    /// An echo has come from this address. Who cannot see what was asked cannot guess it.
    pub(super) fn on_echo(&self, from: IpAddr, ping: Ping) -> Option<Outcome> {
        ((from, ping) == (self.to, self.ping)).then_some(Ok(Answer::Normal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_counts_from_whom_it_was_asked_with_what_was_said() {
        let (to, other) = ("198.18.0.1".parse().unwrap(), "198.18.0.9".parse().unwrap());
        let ping = Ping { sequence: 7, token: 1 << 40 };
        let talk = Talk::new(to, ping);
        assert_eq!(talk.on_echo(to, ping), Some(Ok(Answer::Normal)));
        for (from, sequence, token) in [(other, 7, 1 << 40), (to, 8, 1 << 40), (to, 7, 1 << 41)] {
            assert_eq!(talk.on_echo(from, Ping { sequence, token }), None);
        }
    }
}
