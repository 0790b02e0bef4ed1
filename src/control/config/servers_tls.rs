//! `[pool.tls]`: how the servers of a pool are spoken to in TLS.

use std::path::Path;
use std::sync::Arc;

use toml::de::DeValue;

use super::Machine;
use super::fault::{Report, Wrong, wrong};
use super::model::ServersTls;
use super::reader::{Located, Section, boolean, choice, text};
use super::services::{PEM_MAX, pair, read, warn_of_expiry};
use crate::tls;
use crate::tls::certificate::Certificate;
use crate::tls::client::{Connector, Invalid, Name, Settings, Trust};
use crate::tls::clients::Authorities;

pub(super) const AUTHORITIES_REMEDY: &str =
    "write a PEM file with the certificates of the CAs that sign your servers' certificates";

/// Reads the table, if the pool has it.
pub(super) fn servers_tls(
    report: &mut Report,
    pool: &mut Section<'_>,
    directory: &Path,
    machine: &Machine,
) -> Option<Arc<ServersTls>> {
    let mut section = pool.section(report, "tls")?;
    let trust = trust(report, &mut section, directory, machine);
    let server_name = section.optional(report, "server_name", server_name);
    let certificate = certificate(report, &mut section, directory, machine);
    let versions = section.or(
        report,
        "minimum_version",
        tls::Versions::Tls12And13,
        choice(&[("1.2", tls::Versions::Tls12And13), ("1.3", tls::Versions::Tls13)]),
    );
    let resumption = section.or(report, "resumption", true, boolean).value;
    let (line, ca_key) = (section.line_of(report, "ca"), section.key("ca"));
    section.finish(report);
    let settings = Settings { trust: trust?, certificate, versions: versions.value, alpn: Vec::new(), resumption };
    // Made once, to see that it can be made.
    match Connector::new(&settings) {
        Ok(_) => Some(Arc::new(ServersTls { settings, server_name: server_name.map(|name| name.value) })),
        Err(error @ (Invalid::Authorities(_) | Invalid::Certificate(_) | Invalid::Combination(_))) => {
            report.fault(line, ca_key, wrong(error.to_string(), AUTHORITIES_REMEDY));
            None
        }
    }
}

/// Whom to believe: CAs, or whoever answers. That the latter is meant must be said.
pub(super) fn trust(
    report: &mut Report,
    section: &mut Section<'_>,
    directory: &Path,
    machine: &Machine,
) -> Option<Trust> {
    let verify = section.or(report, "verify", true, boolean);
    let ca = section.optional(report, "ca", text(4096));
    let key = section.key("ca");
    match (ca, verify.value) {
        (Some(ca), true) => authorities(report, key, &ca, directory, machine),
        (Some(ca), false) => {
            let what = format!("is {:?}, and nothing is verified by it with verify = false", ca.value);
            report.fault(ca.line, key, wrong(what, "leave out one of the two"));
            None
        }
        (None, false) => Some(Trust::Anyone),
        // Blamed already.
        (None, true) if section.has("ca") => None,
        (None, true) => {
            let remedy =
                "add ca = \"servers-ca.pem\", or verify = false to believe whoever answers at a server's address";
            report.fault(section.line, key, wrong("is missing", remedy));
            None
        }
    }
}

fn authorities(
    report: &mut Report,
    key: String,
    file: &Located<String>,
    directory: &Path,
    machine: &Machine,
) -> Option<Trust> {
    let bytes = read(report, key.clone(), file, PEM_MAX, directory)?;
    match Authorities::from_pem(&bytes) {
        Ok(authorities) => {
            warn_of_expiry(report, key, file, authorities.not_after(), machine.now);
            Some(Trust::Authorities(Arc::new(authorities)))
        }
        Err(error) => {
            report.fault(file.line, key, wrong(format!("is {:?}, which {error}", file.value), AUTHORITIES_REMEDY));
            None
        }
    }
}

/// What servers are shown that ask for a certificate.
fn certificate(
    report: &mut Report,
    section: &mut Section<'_>,
    directory: &Path,
    machine: &Machine,
) -> Option<Arc<Certificate>> {
    let chain = section.optional(report, "certificate", text(4096));
    let key = section.optional(report, "key", text(4096));
    match (chain, key) {
        (Some(chain), Some(key)) => {
            let keys = [section.key("certificate"), section.key("key")];
            pair(report, keys, &chain, &key, directory, machine)
        }
        (Some(chain), None) if !section.has("key") => {
            report.fault(chain.line, section.key("key"), wrong("is missing", "add key = \"engine.key\""));
            None
        }
        (None, Some(key)) if !section.has("certificate") => {
            let remedy = "add certificate = \"engine.pem\"";
            report.fault(key.line, section.key("certificate"), wrong("is missing", remedy));
            None
        }
        // None, or one of them has been blamed already.
        (Some(_) | None, _) => None,
    }
}

/// A DNS name or an address.
pub(super) fn server_name(value: &DeValue<'_>) -> Result<Name, Wrong> {
    let text = text(253)(value)?;
    let remedy = "write a DNS name such as \"web.internal\", or an address, for which the server's certificate is";
    Name::parse(&text).ok_or_else(|| wrong(format!("is {text:?}"), remedy))
}
