//! `[[health_monitor]]`: how the servers of pools are looked at.

use std::sync::Arc;

use super::fault::{Report, wrong};
use super::named::Named;
use super::reader::{Section, choice, duration, integer};

use super::sections::{HOUR, MILLISECOND};
use crate::base::Duration;
use crate::health::Monitor;

/// Reads every `[[health_monitor]]`.
pub(super) fn monitors(report: &mut Report, root: &mut Section<'_>) -> Named<Arc<Monitor>> {
    Named::read(report, root, "health_monitor", |report, section, name| {
        section.required(report, "type", "\"tcp\"", choice(&[("tcp", ())]));
        let interval = section.or(report, "interval", Duration::from_secs(10), duration(100 * MILLISECOND..=HOUR));
        let timeout = section.or(
            report,
            "timeout",
            Duration::from_secs(4).min(interval.value / 2),
            duration(10 * MILLISECOND..=HOUR),
        );
        let successful_checks = section.or(report, "successful_checks", 2, integer(1..=100));
        let failed_checks = section.or(report, "failed_checks", 2, integer(1..=100));
        if timeout.value >= interval.value {
            let interval = humantime::format_duration(interval.value);
            let what = format!("is not shorter than the interval, {interval}");
            report.fault(
                timeout.line,
                section.key("timeout"),
                wrong(what, "a probe must end before the next begins: write less"),
            );
        }
        let port = section.optional(report, "port", integer(1..=i64::from(u16::MAX)));
        Some(Arc::new(Monitor {
            name: name?.to_owned(),
            port: port.map(|port| port.value),
            interval: interval.value,
            timeout: timeout.value,
            successful_checks: successful_checks.value,
            failed_checks: failed_checks.value,
        }))
    })
}
