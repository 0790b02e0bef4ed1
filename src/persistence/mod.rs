//! How a returning client is recognised, and what happens when its server is down. One file a method.

use crate::balance::ServerIndex;
use crate::base::Duration;

pub mod client_ip;
pub mod tls;

/// A persistence profile of the configuration.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Name in the configuration.
    pub name: String,
    /// How a client is recognised.
    pub method: Method,
    /// What happens to a client whose server is down.
    pub select_new_server_when_persistent_server_down: SelectNewServer,
    /// What happens to a client whose server has no place.
    pub on_limit: OnLimit,
    /// How long a client keeps its server at most, counted from the first assignment.
    pub max_mapping_age: Option<Duration>,
}

/// How a client is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By the mapping in its session ticket.
    Tls,
    /// By its address.
    ClientIp(client_ip::Settings),
}

/// What happens to a persisted client whose server is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SelectNewServer {
    /// A new server at once; the mapping is switched to it.
    #[default]
    Immediate,
    /// None: the client is refused until its server returns.
    Never,
    /// None: the client is sent to that server all the same.
    NeverEvenIfDown,
}

/// What happens to a persisted client whose server is at its connection limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLimit {
    /// Another server; the mapping is switched to it.
    #[default]
    Switch,
    /// Another server for this connection; the mapping stays.
    Spill,
    /// The client waits for a place.
    Queue(Queue),
    /// It is refused.
    Refuse,
}

/// How clients wait for a place at their server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Most that wait for one server, over all lanes. One more is refused.
    pub max: u32,
    /// How long one waits at most from the end of its handshake, and is then refused.
    pub timeout: Duration,
}

/// What persistence decided for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The server, or that there is none.
    pub server: Option<ServerIndex>,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    /// Whether the client has to wait for a place at its server. Whoever does not and has a server has a place there.
    pub fn must_wait(&self) -> bool {
        self.reason == Reason::Queued
    }
}

/// What became of a client's mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The client goes to the server of its mapping, or waits for it.
    Hit,
    /// It goes to another one.
    Switched,
    /// It goes nowhere, for its mapping forbids any other.
    Refused,
    /// It brought none.
    New,
    /// There was nowhere to go for anybody.
    TurnedAway,
}

impl Outcome {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Switched => "switched",
            Self::Refused => "refused",
            Self::New => "new",
            Self::TurnedAway => "turned-away",
        }
    }
}

impl Reason {
    /// What became of the mapping; `None` where no persistence decided, or has not yet.
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Off | Self::Recalling => None,
            Self::NoMapping => Some(Outcome::New),
            Self::Persisted | Self::PersistedThoughDown | Self::Disputed | Self::PersistedDraining | Self::Queued => {
                Some(Outcome::Hit)
            }
            Self::Spilled
            | Self::SwitchedDown
            | Self::SwitchedDraining
            | Self::SwitchedDisabled
            | Self::SwitchedLimit
            | Self::SwitchedRemoved
            | Self::SwitchedAged => Some(Outcome::Switched),
            Self::RefusedDown
            | Self::RefusedDraining
            | Self::RefusedDisabled
            | Self::RefusedLimit
            | Self::RefusedQueue => Some(Outcome::Refused),
            Self::PoolDown | Self::PoolFull => Some(Outcome::TurnedAway),
        }
    }
}

/// Declares the reasons, each with its name.
macro_rules! reasons {
    ($($(#[doc = $about:literal])+ $reason:ident = $name:literal),+ $(,)?) => {
        /// Why a connection goes where it goes. Metrics and the connection log name these.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $about])+ $reason,)+
        }

        impl Reason {
            /// Every reason, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$reason),+];

            /// Its name in logs and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)+
                }
            }
        }
    };
}

reasons! {
    /// The service has no persistence profile.
    Off = "off",
    /// Nothing yet: the client's mapping is asked for at the lane that keeps it.
    Recalling = "recalling",
    /// The client brought no mapping, or none that counts.
    NoMapping = "no-mapping",
    /// The mapped server is up.
    Persisted = "persisted",
    /// The mapped server is down and the profile keeps the client on it all the same.
    PersistedThoughDown = "persisted-though-down",
    /// The mapped server is down here, and another engine has only just given the client to it: kept there if it answers, else another for this connection.
    Disputed = "disputed",
    /// The mapped server is drained and its persisted clients stay.
    PersistedDraining = "persisted-draining",
    /// The mapped server has no place: the client waits for one.
    Queued = "queued",
    /// The mapped server has no place: another was chosen for this connection, and the mapping stays.
    Spilled = "spilled",
    /// The mapped server is down; another was chosen.
    SwitchedDown = "switched-down",
    /// The mapped server is drained; another was chosen.
    SwitchedDraining = "switched-draining",
    /// The mapped server was disabled by the operator; another was chosen.
    SwitchedDisabled = "switched-disabled",
    /// The mapped server has no place; another was chosen.
    SwitchedLimit = "switched-limit",
    /// The mapped server is not in the pool any more, or another incarnation is; another was chosen.
    SwitchedRemoved = "switched-removed",
    /// The mapping is older than the profile allows; another was chosen.
    SwitchedAged = "switched-aged",
    /// The mapped server is down and the profile allows no other: refused.
    RefusedDown = "refused-down",
    /// The mapped server is drained and the profile allows no other: refused.
    RefusedDraining = "refused-draining",
    /// The mapped server was disabled by the operator and the profile allows no other: refused.
    RefusedDisabled = "refused-disabled",
    /// The mapped server has no place and the profile allows no other: refused.
    RefusedLimit = "refused-limit",
    /// The mapped server has no place and too many wait for one: refused.
    RefusedQueue = "refused-queue",
    /// No server of the pool is usable.
    PoolDown = "pool-down",
    /// No server of the pool has a place.
    PoolFull = "pool-full",
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
    }
}
