//! How a returning client is recognised, and what happens when its server is down. One file a method.

use crate::balance::ServerIndex;
use crate::base::Duration;

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
    /// How long a client keeps its server at most, counted from the first assignment.
    pub max_mapping_age: Option<Duration>,
}

/// How a client is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By the mapping in its session ticket.
    Tls,
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

/// What persistence decided for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The server, or that there is none.
    pub server: Option<ServerIndex>,
    /// Why.
    pub reason: Reason,
}

/// Why a connection goes where it goes. Metrics and the connection log name these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The service has no persistence profile.
    Off,
    /// The client brought no mapping, or none that counts.
    NoMapping,
    /// The mapped server is up.
    Persisted,
    /// The mapped server is down and the profile keeps the client on it all the same.
    PersistedThoughDown,
    /// The mapped server is down; another was chosen.
    SwitchedDown,
    /// The mapped server was disabled by the operator; another was chosen.
    SwitchedDisabled,
    /// The mapped server is not in the pool any more, or another incarnation is; another was chosen.
    SwitchedRemoved,
    /// The mapping is older than the profile allows; another was chosen.
    SwitchedAged,
    /// The mapped server is down or disabled and the profile allows no other: refused.
    Refused,
    /// No server of the pool is usable.
    PoolDown,
}

impl Reason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 10] = [
        Self::Off,
        Self::NoMapping,
        Self::Persisted,
        Self::PersistedThoughDown,
        Self::SwitchedDown,
        Self::SwitchedDisabled,
        Self::SwitchedRemoved,
        Self::SwitchedAged,
        Self::Refused,
        Self::PoolDown,
    ];

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NoMapping => "no-mapping",
            Self::Persisted => "persisted",
            Self::PersistedThoughDown => "persisted-though-down",
            Self::SwitchedDown => "switched-down",
            Self::SwitchedDisabled => "switched-disabled",
            Self::SwitchedRemoved => "switched-removed",
            Self::SwitchedAged => "switched-aged",
            Self::Refused => "refused",
            Self::PoolDown => "pool-down",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_stands_at_its_place_with_a_name_of_its_own() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        assert_eq!(Reason::PoolDown as usize + 1, Reason::ALL.len());
        let names: HashSet<_> = Reason::ALL.into_iter().map(Reason::name).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
    }
}
