//! DPDK's own messages: into our log, and the last errors kept so that a failure can say its reason.

use std::sync::OnceLock;

use crossbeam::queue::ArrayQueue;

/// Most error messages kept; older ones give way.
const KEPT_MAX: usize = 8;

static KEPT: OnceLock<ArrayQueue<String>> = OnceLock::new();

fn kept() -> &'static ArrayQueue<String> {
    KEPT.get_or_init(|| ArrayQueue::new(KEPT_MAX))
}

/// Routes DPDK's messages here from now on.
pub(super) fn install() {
    capsule_ffi::log::install(|level, text| match level {
        0..=4 => {
            kept().force_push(text.to_owned());
            tracing::warn!(target: "dpdk", "{text}");
        }
        5 => tracing::info!(target: "dpdk", "{text}"),
        _ => tracing::debug!(target: "dpdk", "{text}"),
    });
}

/// The errors that DPDK reported since the last call, in one line, or `otherwise`.
pub(super) fn take_errors(otherwise: &str) -> String {
    let errors: Vec<String> = std::iter::from_fn(|| kept().pop()).take(KEPT_MAX).collect();
    if errors.is_empty() { otherwise.to_owned() } else { errors.join("; ") }
}
