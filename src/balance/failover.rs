//! What a pool does when its servers fail.

use crate::base::PoolId;

/// What a pool does when its servers fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// How many other servers a client is tried at that the first one's does not connect to, at most [`RETRIES_MAX`].
    pub connect_retries: u8,
    /// The pool is down when fewer servers than this are enabled and up.
    pub servers_up_min: u16,
    /// What becomes of clients while it is.
    pub pool_down_action: PoolDownAction,
}

/// Most [`Failover::connect_retries`].
pub const RETRIES_MAX: u8 = 10;

/// What becomes of the clients of a pool that is down. Where it is up and full, they are told so, too, and otherwise reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolDownAction {
    /// Their connections are reset.
    #[default]
    Reset,
    /// They are told by a fatal internal_error alert (RFC 8446 6.2), so that they can tell it from a fault of the network.
    TlsAlert,
    /// They go to this pool.
    BackupPool(PoolId),
}

impl Default for Failover {
    fn default() -> Self {
        Self { connect_retries: 2, servers_up_min: 1, pool_down_action: PoolDownAction::default() }
    }
}
