//! `[engine.capture]`: what captures may hold.

use super::fault::{Report, wrong};
use super::model::Capture;
use super::reader::{Section, boolean};

/// Reads `[engine.capture]`.
pub(super) fn capture(report: &mut Report, engine: &mut Section<'_>) -> Capture {
    let Some(mut section) = engine.section(report, "capture") else { return Capture::default() };
    let tls_secrets = section.or(report, "tls_secrets", false, boolean);
    if tls_secrets.value {
        let what = "is true: whoever may use the API may record secrets by which what clients and servers say is read";
        let remedy = "take it out and reload when you have found what you look for";
        report.warning(tls_secrets.line, section.key("tls_secrets"), wrong(what, remedy));
    }
    section.finish(report);
    Capture { tls_secrets: tls_secrets.value }
}
