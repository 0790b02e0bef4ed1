//! Rates: what grew between two answers of an engine, by the second.

use std::collections::HashMap;

use crate::control::api::shapes::{LaneShown, Overview, ServerState};

/// What came in a second of the time between two overviews.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// In the order of the lanes.
    pub(super) lanes: Vec<Lane>,
    /// By pool and server.
    servers: HashMap<(String, String), Server>,
}

/// Of one lane, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Lane {
    /// What part of the time it was busy, 0 to 1.
    pub(super) busy: f64,
    pub(super) full: f64,
    pub(super) resumed: f64,
    pub(super) received: f64,
    pub(super) sent: f64,
    pub(super) frames: f64,
    pub(super) dropped: f64,
}

/// Of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Server {
    pub(super) successes: f64,
    pub(super) failures: f64,
    /// Milliseconds to the first byte, where any was timed.
    pub(super) first_byte: Option<f64>,
}

impl Rates {
    /// `None` where no time has passed: it is another engine's answer, or the same one's after a restart.
    pub(super) fn between(then: &Overview, now: &Overview) -> Option<Self> {
        let passed = now.uptime_milliseconds.checked_sub(then.uptime_milliseconds).filter(|passed| *passed > 0)?;
        let seconds = passed as f64 / 1000.0;
        let lanes = now.lanes.iter().zip(&then.lanes).map(|(now, then)| Lane::between(then, now, seconds));
        let mut were = HashMap::new();
        for pool in &then.pools {
            were.extend(pool.state.servers.iter().map(|server| ((pool.name.as_str(), server.name.as_str()), server)));
        }
        let mut servers = HashMap::new();
        for pool in &now.pools {
            for server in &pool.state.servers {
                let Some(was) = were.get(&(pool.name.as_str(), server.name.as_str())) else { continue };
                servers.insert((pool.name.clone(), server.name.clone()), Server::between(was, server, seconds));
            }
        }
        Some(Self { lanes: lanes.collect(), servers })
    }

    pub(super) fn server(&self, pool: &str, server: &str) -> Option<Server> {
        self.servers.get(&(pool.to_owned(), server.to_owned())).copied()
    }

    /// All lanes together; `busy` is their mean.
    pub(super) fn total(&self) -> Lane {
        let sum = |of: fn(&Lane) -> f64| self.lanes.iter().map(of).sum::<f64>();
        Lane {
            busy: sum(|lane| lane.busy) / self.lanes.len().max(1) as f64,
            full: sum(|lane| lane.full),
            resumed: sum(|lane| lane.resumed),
            received: sum(|lane| lane.received),
            sent: sum(|lane| lane.sent),
            frames: sum(|lane| lane.frames),
            dropped: sum(|lane| lane.dropped),
        }
    }
}

/// What a counter grew by in a second. One that was begun anew has not grown.
fn grew(then: u64, now: u64, seconds: f64) -> f64 {
    now.saturating_sub(then) as f64 / seconds
}

impl Lane {
    fn between(then: &LaneShown, now: &LaneShown, seconds: f64) -> Self {
        let (was, is) = (&then.traffic, &now.traffic);
        let busy = grew(then.busy_nanoseconds, now.busy_nanoseconds, seconds);
        let idle = grew(then.idle_nanoseconds, now.idle_nanoseconds, seconds);
        Self {
            busy: if busy > 0.0 { busy / (busy + idle) } else { 0.0 },
            full: grew(was.handshakes_full, is.handshakes_full, seconds),
            resumed: grew(was.handshakes_resumed, is.handshakes_resumed, seconds),
            received: grew(was.bytes_received, is.bytes_received, seconds),
            sent: grew(was.bytes_sent, is.bytes_sent, seconds),
            frames: grew(was.frames_received, is.frames_received, seconds)
                + grew(was.frames_sent, is.frames_sent, seconds),
            dropped: grew(was.frames_dropped, is.frames_dropped, seconds),
        }
    }
}

impl Server {
    fn between(then: &ServerState, now: &ServerState, seconds: f64) -> Self {
        let (was, is) = (&then.outcomes, &now.outcomes);
        let answers = is.answers.saturating_sub(was.answers);
        let waited = is.answer_microseconds.saturating_sub(was.answer_microseconds);
        Self {
            successes: grew(was.successes, is.successes, seconds),
            failures: grew(was.failures, is.failures, seconds),
            first_byte: (answers > 0).then(|| waited as f64 / answers as f64 / 1000.0),
        }
    }
}
