//! Where a connection's time went: what its record says of it.

use crate::base::{Duration, Instant};

/// When a relay's connection did what.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timing {
    rtt: Option<Duration>,
    connecting: Option<Instant>,
    connected: Option<Instant>,
    asked: Option<Instant>,
    answered: Option<Duration>,
}

/// Where a connection's time went, as far as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The client's round trip, smoothed, as TCP knew it when the TLS handshake had ended.
    pub client_rtt: Option<Duration>,
    /// From the client's SYN, or what stood for it, to the end of its TLS handshake.
    pub handshake: Option<Duration>,
    /// From the first SYN to a server until one could be told something: after its SYN, or the TLS handshake with it. Servers that were tried in vain are counted in.
    pub connect: Option<Duration>,
    /// From the last of what the server was sent, or from its connection if that was nothing, until its first byte.
    pub first_byte: Option<Duration>,
}

impl Timing {
    pub(super) fn on_established(&mut self, rtt: Option<Duration>) {
        self.rtt = rtt;
    }

    pub(super) fn on_connecting(&mut self, now: Instant) {
        self.connecting.get_or_insert(now);
    }

    pub(super) fn on_connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// The server was sent something of the client's.
    pub(super) fn on_asked(&mut self, now: Instant) {
        if self.answered.is_none() {
            self.asked = Some(now);
        }
    }

    /// The server has sent something.
    pub(super) fn on_answered(&mut self, now: Instant) {
        if self.answered.is_none() {
            self.answered = self.asked.or(self.connected).map(|asked| now - asked);
        }
    }

    pub(super) fn times(&self, handshake: Option<Duration>) -> Times {
        let connect = self.connecting.zip(self.connected).map(|(connecting, connected)| connected - connecting);
        Times { client_rtt: self.rtt, handshake, connect, first_byte: self.answered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::START + Duration::from_millis(millis)
    }

    #[test]
    fn time_is_split_where_the_client_and_the_server_take_turns() {
        let mut timing = Timing::default();
        assert_eq!(timing.times(None), Times::default());
        timing.on_established(Some(Duration::from_millis(2)));
        timing.on_connecting(at(10));
        timing.on_connecting(at(15));
        timing.on_connected(at(17));
        timing.on_asked(at(30));
        timing.on_asked(at(40));
        timing.on_answered(at(45));
        timing.on_asked(at(50));
        timing.on_answered(at(99));
        let millis = |millis| Some(Duration::from_millis(millis));
        let expected = Times { client_rtt: millis(2), handshake: millis(6), connect: millis(7), first_byte: millis(5) };
        assert_eq!(timing.times(millis(6)), expected);
    }

    #[test]
    fn a_server_that_speaks_first_is_timed_from_its_connection() {
        let mut timing = Timing::default();
        timing.on_connecting(at(1));
        timing.on_connected(at(3));
        timing.on_answered(at(7));
        assert_eq!(timing.times(None).first_byte, Some(Duration::from_millis(4)));
    }
}
