//! `client_certificates` of a virtual service: the CAs of its clients, and the revocation lists.

use std::sync::Arc;

use super::fault::{Report, wrong};
use super::model::REVOCATION_FILES_MAX;
use super::reader::{Located, Section, choice, text};
use super::services::{PEM_MAX, Surroundings, read, warn_of_expiry};
use crate::base::UnixTime;
use crate::tls::ClientCertificates;
use crate::tls::clients::{Authorities, Invalid, Mode};
use crate::tls::revocation::RevocationLists;

/// The longest file of revocation lists, in bytes: some hundred thousand revoked certificates.
const LISTS_MAX: u64 = 16 << 20;

/// Reads the table, if the service has it.
pub(super) fn client_certificates(
    report: &mut Report,
    service: &mut Section<'_>,
    around: &Surroundings<'_>,
) -> Option<Arc<ClientCertificates>> {
    let mut section = service.section(report, "client_certificates")?;
    let modes = choice(&[("optional", Mode::Optional), ("required", Mode::Required)]);
    let mode = section.required(report, "mode", "\"required\"", modes);
    let ca = section.required(report, "ca", "\"clients-ca.pem\"", text(4096));
    let crl = section.list(report, "crl", REVOCATION_FILES_MAX, text(4096)).unwrap_or_default();
    let (ca_key, crl_key) = (section.key("ca"), section.key("crl"));
    section.finish(report);
    let lists: Vec<_> = crl.iter().map(|file| revocation_lists(report, &crl_key, file, around)).collect();
    let ca = ca?;
    let authorities = authorities(report, &ca_key, &ca, around);
    let (mode, authorities, lists) = (mode?, authorities?, lists.into_iter().collect::<Option<Vec<_>>>()?);
    let line = crl.first().map_or(ca.line, |file| file.line);
    match ClientCertificates::new(mode.value, &authorities, &lists) {
        Ok(certificates) => {
            for name in certificates.without_list() {
                let what = format!("has no list of the CA {name:?}, so that nobody whose certificate is its is taken");
                report.warning(line, &crl_key, wrong(what, "add its revocation list, or leave the CA out"));
            }
            Some(Arc::new(certificates))
        }
        Err(Invalid::List(error)) => {
            report.fault(line, crl_key, wrong(format!("has a file which {error}"), LISTS_REMEDY));
            None
        }
        Err(error) => {
            report.fault(ca.line, ca_key, wrong(format!("is {:?}, which {error}", ca.value), AUTHORITIES_REMEDY));
            None
        }
    }
}

const AUTHORITIES_REMEDY: &str =
    "write a PEM file with the certificates of the CAs that sign your clients' certificates";
const LISTS_REMEDY: &str =
    "write a PEM file of revocation lists, version 2, complete and with the time of the next one (RFC 5280 5.1)";

fn authorities(
    report: &mut Report,
    key: &str,
    file: &Located<String>,
    around: &Surroundings<'_>,
) -> Option<Authorities> {
    let bytes = read(report, key.to_owned(), file, PEM_MAX, around.directory)?;
    match Authorities::from_pem(&bytes) {
        Ok(authorities) => {
            warn_of_expiry(report, key.to_owned(), file, authorities.not_after(), around.machine.now);
            Some(authorities)
        }
        Err(error) => {
            report.fault(file.line, key, wrong(format!("is {:?}, which {error}", file.value), AUTHORITIES_REMEDY));
            None
        }
    }
}

fn revocation_lists(
    report: &mut Report,
    key: &str,
    file: &Located<String>,
    around: &Surroundings<'_>,
) -> Option<RevocationLists> {
    let bytes = read(report, key.to_owned(), file, LISTS_MAX, around.directory)?;
    match RevocationLists::from_pem(&bytes) {
        Ok(lists) => {
            warn_of_end(report, key, file, lists.next_update(), around.machine.now);
            Some(lists)
        }
        Err(error) => {
            report.fault(file.line, key, wrong(format!("is {:?}, which {error}", file.value), LISTS_REMEDY));
            None
        }
    }
}

/// A list that has ended shuts everybody out. It is no fault: the engine must start on the day on which the CA is late.
fn warn_of_end(report: &mut Report, key: &str, file: &Located<String>, next_update: UnixTime, now: UnixTime) {
    if next_update <= now {
        let what = format!(
            "is {:?}, which should have been replaced by now: until then nobody is taken whose issuer it is of",
            file.value
        );
        report.warning(file.line, key, wrong(what, "fetch the CA's new list and reload"));
    }
}
