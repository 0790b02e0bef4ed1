//! What a `[[pool]]` does when its servers fail.

use std::sync::Arc;

use super::fault::{Report, wrong};
use super::model::{Pool, Server};
use super::named::Named;
use super::reader::{Located, Section, choice, integer, name};
use crate::balance::failover::RETRIES_MAX;
use crate::balance::{Failover, PoolDownAction, State};
use crate::control::identity;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Reset,
    TlsAlert,
    BackupPool,
}

/// Reads the pool's part; its backup pool is proven by [`prove_backups`] when all pools are known.
pub(super) fn failover(
    report: &mut Report,
    pool: &mut Section<'_>,
    servers: &[Server],
    backups: &mut Vec<Located<String>>,
) -> Failover {
    let connect_retries = pool.or(report, "connect_retries", 2, integer::<u8>(0..=i64::from(RETRIES_MAX)));
    let servers_up_min = pool.or(report, "servers_up_min", 1, integer::<u16>(1..=i64::from(u16::MAX)));
    let enabled = servers.iter().filter(|server| server.state == State::Enabled).count();
    if servers_up_min.value > 1 && usize::from(servers_up_min.value) > enabled {
        let what = format!("is {}, and {enabled} of the pool's servers are enabled", servers_up_min.value);
        report.warning(
            servers_up_min.line,
            pool.key("servers_up_min"),
            wrong(what, "the pool is down: write less, or enable more"),
        );
    }
    let words = choice(&[("reset", Word::Reset), ("tls-alert", Word::TlsAlert), ("backup-pool", Word::BackupPool)]);
    let action = pool.or(report, "pool_down_action", Word::Reset, words);
    let backup = pool.optional(report, "backup_pool", name);
    let pool_down_action = match (action.value, backup) {
        (Word::BackupPool, Some(backup)) => {
            let action = PoolDownAction::BackupPool(identity::pool(&backup.value));
            backups.push(backup);
            action
        }
        (Word::BackupPool, None) => {
            let remedy = "add backup_pool with the name of another pool";
            report.fault(
                action.line,
                pool.key("pool_down_action"),
                wrong("is \"backup-pool\", and none is named", remedy),
            );
            PoolDownAction::Reset
        }
        (Word::Reset | Word::TlsAlert, Some(backup)) => {
            let remedy = "write pool_down_action = \"backup-pool\", or leave it out";
            report.fault(backup.line, pool.key("backup_pool"), wrong("names a pool that nobody is sent to", remedy));
            PoolDownAction::Reset
        }
        (Word::Reset, None) => PoolDownAction::Reset,
        (Word::TlsAlert, None) => PoolDownAction::TlsAlert,
    };
    Failover { connect_retries: connect_retries.value, servers_up_min: servers_up_min.value, pool_down_action }
}

/// A backup is another pool, and one that has none itself: whoever is sent there goes no further.
pub(super) fn prove_backups(report: &mut Report, pools: &Named<Arc<Pool>>, backups: &[Located<String>]) {
    for backup in backups {
        let key = "pool.backup_pool".to_owned();
        let Some(pool) = pools.find(report, key.clone(), backup) else { continue };
        if matches!(pool.failover.pool_down_action, PoolDownAction::BackupPool(_)) {
            let what = format!("is {:?}, which has a backup itself", backup.value);
            report.fault(
                backup.line,
                key,
                wrong(what, "name a pool whose pool_down_action is \"reset\" or \"tls-alert\""),
            );
        }
    }
}
