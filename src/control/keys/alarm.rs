//! What somebody should know about ticket keys while clients are served all the same.

use std::collections::BTreeSet;

/// One thing that is wrong. It is told when it begins and when it ends, and is a gauge in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alarm {
    /// K7: the active key has sealed for two rotation periods. No tickets are issued.
    Stale,
    /// K5: a key is from the future. No tickets are issued.
    FromTheFuture,
    /// The source has a ring that cannot be used; the one of before is.
    Refused,
    /// The kernel does not let key memory be locked, so that it may be swapped out.
    Unlocked,
    /// etcd cannot be reached. Keys do not rotate.
    Unreachable,
    /// A rotation is due, and some engine that lives has not acknowledged the pending key.
    Late,
    /// Another engine of the cluster lives under this one's name.
    NameTaken,
}

/// Those that are on.
pub type Alarms = BTreeSet<Alarm>;

impl Alarm {
    /// All that there are.
    pub const ALL: [Self; 7] = [
        Self::Stale,
        Self::FromTheFuture,
        Self::Refused,
        Self::Unlocked,
        Self::Unreachable,
        Self::Late,
        Self::NameTaken,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::FromTheFuture => "from-the-future",
            Self::Refused => "refused",
            Self::Unlocked => "unlocked",
            Self::Unreachable => "unreachable",
            Self::Late => "late",
            Self::NameTaken => "name-taken",
        }
    }

    /// What it means, and what to do about it.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Stale => {
                "the active ticket key has sealed for two rotation periods: no tickets are issued until a newer ring comes; \
                 see that whatever rotates the keys runs and reaches this engine"
            }
            Self::FromTheFuture => {
                "a ticket key is from the future by more than 60 s: no tickets are issued until its time comes; set the clock of this engine, or that \
                 of whoever made the key"
            }
            Self::Refused => {
                "the source of ticket keys has a ring that cannot be used: the one of before stays in force; see the error above"
            }
            Self::Unlocked => {
                "ticket keys may be swapped out, for this process may lock too little memory; raise its limit (`ulimit -l`, LimitMEMLOCK=), or give it \
                 CAP_IPC_LOCK"
            }
            Self::Unreachable => {
                "etcd cannot be reached: the ring that this engine has stays in force, and no key rotates; see that etcd runs, and \
                 ticket_keys.endpoints, ca, certificate, key, username and password_file"
            }
            Self::Late => {
                "a rotation of ticket keys is due, and an engine that lives has not acknowledged the pending key: no key rotates until it has; see to \
                 that engine, or stop it"
            }
            Self::NameTaken => {
                "another engine of the cluster lives under this one's name; give every engine a name of its own (engine.name)"
            }
        }
    }
}
