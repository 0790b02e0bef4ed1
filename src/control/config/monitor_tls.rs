//! What a health monitor of type `tls` or `https` believes and asks for.

use std::path::Path;
use std::sync::Arc;

use super::Machine;
use super::fault::{Report, wrong};
use super::reader::{Section, text};
use super::servers_tls::{AUTHORITIES_REMEDY, server_name, trust};
use crate::health::Secure;
use crate::tls::Versions;
use crate::tls::client::{Connector, Settings};

/// Most application protocols that are offered.
const ALPN_MAX: usize = 8;

/// Reads the keys; `alpn` is offered unless the monitor says something else.
pub(super) fn monitor_tls(
    report: &mut Report,
    section: &mut Section<'_>,
    alpn: &[&str],
    directory: &Path,
    machine: &Machine,
) -> Option<Secure> {
    let trust = trust(report, section, directory, machine);
    let server_name = section.optional(report, "server_name", server_name);
    let offered = section.list(report, "alpn", ALPN_MAX, text(255));
    let alpn = match offered {
        Some(offered) => offered.into_iter().map(|protocol| protocol.value.into_bytes()).collect(),
        None => alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect(),
    };
    let settings =
        Settings { trust: trust?, certificate: None, versions: Versions::Tls12And13, alpn, resumption: false };
    match Connector::new(&settings) {
        Ok(connector) => Some(Secure::new(settings, Arc::new(connector), server_name.map(|name| name.value))),
        Err(error) => {
            let line = section.line_of(report, "ca");
            report.fault(line, section.key("ca"), wrong(error.to_string(), AUTHORITIES_REMEDY));
            None
        }
    }
}
