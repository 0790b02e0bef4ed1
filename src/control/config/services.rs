//! `[[virtual_service]]`: what clients connect to.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeValue;
use zeroize::Zeroizing;

use super::fault::{Report, Wrong, wrong};
use super::model::{ADDRESSES_MAX, CERTIFICATES_MAX, Pool, Port, SERVICES_MAX, VirtualService};
use super::named::Named;
use super::pools::endpoint;
use super::reader::{Located, Section, boolean, choice, duration, integer, name, text};
use super::sections::{MILLISECOND, MINUTE, duplicate};
use super::{Machine, client_certificates};
use crate::base::{Duration, UnixTime};
use crate::control::{identity, publish};
use crate::persistence::{Method, Profile};
use crate::relay::{ProxyProtocol, Timeouts};
use crate::tls;
use crate::tls::certificate::{Certificate, Invalid};

/// The longest certificate or key file, in bytes.
pub(super) const PEM_MAX: u64 = 1 << 20;
/// How long before its end a certificate is warned of.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);

const DAY: Duration = Duration::from_secs(86_400);

/// What a service may refer to, and what it is proven against.
pub(super) struct Surroundings<'a> {
    pub(super) directory: &'a Path,
    pub(super) machine: &'a Machine,
    pub(super) ports: &'a [Located<Port>],
    pub(super) pools: &'a Named<Arc<Pool>>,
    pub(super) profiles: &'a Named<Arc<Profile>>,
}

/// Reads every `[[virtual_service]]`.
pub(super) fn services(report: &mut Report, root: &mut Section<'_>, around: &Surroundings<'_>) -> Vec<VirtualService> {
    let mut services = Vec::new();
    let mut names = HashSet::new();
    let mut taken = HashMap::new();
    let sections = root.sections(report, "virtual_service", SERVICES_MAX);
    if sections.is_empty() {
        let remedy = "add a [[virtual_service]] with name, addresses, pool and certificates";
        report.fault(0, "virtual_service", wrong("is missing: there is nothing to serve", remedy));
    }
    for mut section in sections {
        let name = section.required(report, "name", "\"shop\"", name);
        if let Some(name) = &name
            && !names.insert(name.value.clone())
        {
            report.fault(name.line, section.key("name"), duplicate(&name.value));
        }
        let service = service(report, &mut section, name, &mut taken, around);
        section.finish(report);
        services.extend(service);
    }
    services
}

fn service(
    report: &mut Report,
    section: &mut Section<'_>,
    name_: Option<Located<String>>,
    taken: &mut HashMap<SocketAddr, String>,
    around: &Surroundings<'_>,
) -> Option<VirtualService> {
    let label = name_.as_ref().map_or("without a name", |name| &name.value).to_owned();
    let addresses = addresses(report, section, &label, taken, around);
    let pool = section.required(report, "pool", "\"web\"", name);
    let pool = pool.and_then(|name| around.pools.find(report, section.key("pool"), &name).cloned());
    let profile = section.optional(report, "persistence_profile", name);
    let profile =
        profile.and_then(|name| around.profiles.find(report, section.key("persistence_profile"), &name).cloned());
    let certificates = certificates(report, section, around);
    let strict_sni = section.or(report, "strict_sni", false, boolean).value;
    let versions = section.or(
        report,
        "minimum_version",
        tls::Versions::Tls12And13,
        choice(&[("1.2", tls::Versions::Tls12And13), ("1.3", tls::Versions::Tls13)]),
    );
    let ciphers = section.list(report, "ciphers", 32, text(64)).unwrap_or_default();
    let alpn = section.list(report, "alpn", 16, protocol).unwrap_or_default();
    let client_certificates = client_certificates::client_certificates(report, section, around);
    let tickets = section.or(report, "tickets", 2, integer(0..=6));
    prove_method(report, section, profile.as_deref(), &tickets);
    let tickets = tickets.value;
    let tls12_tickets = section.or(report, "tls12_tickets", true, boolean).value;
    let versions_of_proxy =
        choice(&[("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2), ("v2-ssl", ProxyProtocol::V2Ssl)]);
    let proxy_protocol = section.optional(report, "proxy_protocol", versions_of_proxy);
    let timeouts = timeouts(report, section);
    let ciphers_line = section.line_of(report, "ciphers");
    let name = name_?.value;
    let service = VirtualService {
        id: identity::service(&name),
        name,
        addresses,
        pool: pool?,
        profile,
        certificates,
        strict_sni,
        versions: versions.value,
        ciphers: ciphers.into_iter().map(|cipher| cipher.value).collect(),
        alpn: alpn.into_iter().map(|protocol| protocol.value).collect(),
        client_certificates,
        tickets,
        tls12_tickets,
        proxy_protocol: proxy_protocol.map(|version| version.value),
        timeouts,
    };
    prove_tls(report, section, ciphers_line, &service);
    Some(service)
}

/// A client can only come back by what it was given.
fn prove_method(report: &mut Report, section: &Section<'_>, profile: Option<&Profile>, tickets: &Located<usize>) {
    let Some(profile) = profile.filter(|profile| profile.method == Method::Tls && tickets.value == 0) else { return };
    let what = format!("is 0, and persistence profile {:?} keeps the client's server in tickets", profile.name);
    report.fault(
        tickets.line,
        section.key("tickets"),
        wrong(what, "write 1 to 6, or name a profile of type = \"client-ip\", or none"),
    );
}

fn addresses(
    report: &mut Report,
    section: &mut Section<'_>,
    service: &str,
    taken: &mut HashMap<SocketAddr, String>,
    around: &Surroundings<'_>,
) -> Vec<SocketAddr> {
    let key = section.key("addresses");
    let list = section.required_list(report, "addresses", ADDRESSES_MAX, "[\"198.18.0.10:443\"]", endpoint);
    for Located { value: address, line } in &list {
        if let Some(other) = taken.insert(*address, service.to_owned()) {
            let what = format!("has {address}, where virtual service {other:?} is already");
            report.fault(*line, &key, wrong(what, "give every virtual service an address or a port of its own"));
        }
        let ip = address.ip();
        let ports = around.ports;
        if !ports.is_empty() && !ports.iter().any(|port| port.value.speaks_family_of(ip)) {
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let what = format!("has {address}, and no port has an {family} address");
            report.fault(*line, &key, wrong(what, format!("add an {family} address to a [[port]]")));
        }
        if ports.iter().any(|port| port.value.gateways.contains(&ip)) {
            let what = format!("has {address}, which is the address of a gateway");
            report.fault(*line, &key, wrong(what, "choose an address that nobody else has"));
        }
        let servers = around.pools.values().flat_map(|pool| pool.servers.iter().map(move |server| (pool, server)));
        if let Some((pool, server)) = servers.into_iter().find(|(_, server)| server.address.ip() == ip) {
            let what =
                format!("has {address}, and server {:?} of pool {:?} is at {}", server.name, pool.name, server.address);
            report.fault(
                *line,
                &key,
                wrong(what, "choose an address that nobody else has: the engine does not connect to itself"),
            );
        }
    }
    list.into_iter().map(|address| address.value).collect()
}

fn timeouts(report: &mut Report, section: &mut Section<'_>) -> Timeouts {
    let mut time = |key, default, most| section.or(report, key, default, duration(100 * MILLISECOND..=most)).value;
    Timeouts {
        handshake: time("handshake_timeout", Duration::from_secs(10), 5 * MINUTE),
        connect: time("connect_timeout", Duration::from_secs(5), 5 * MINUTE),
        idle: time("idle_timeout", 5 * MINUTE, 7 * DAY),
        half_closed: time("half_closed_timeout", MINUTE, DAY),
    }
}

/// An application protocol: 1 to 255 bytes (RFC 7301 3.1).
fn protocol(value: &DeValue<'_>) -> Result<Vec<u8>, Wrong> {
    text(255)(value).map(String::into_bytes)
}

fn certificates(report: &mut Report, section: &mut Section<'_>, around: &Surroundings<'_>) -> Vec<Arc<Certificate>> {
    let mut certificates = Vec::new();
    let sections = section.sections(report, "certificates", CERTIFICATES_MAX);
    if sections.is_empty() {
        let remedy = "add certificates = [{ certificate = \"shop.pem\", key = \"shop.key\" }]";
        report.fault(section.line, section.key("certificates"), wrong("has no certificate", remedy));
    }
    for mut section in sections {
        let chain = section.required(report, "certificate", "\"shop.pem\"", text(4096));
        let key = section.required(report, "key", "\"shop.key\"", text(4096));
        let keys = [section.key("certificate"), section.key("key")];
        section.finish(report);
        if let (Some(chain), Some(key)) = (&chain, &key) {
            certificates.extend(pair(report, keys, chain, key, around.directory, around.machine));
        }
    }
    certificates
}

/// Reads a certificate and its key, which stand under `keys`.
pub(super) fn pair(
    report: &mut Report,
    [chain_key, key_key]: [String; 2],
    chain: &Located<String>,
    key: &Located<String>,
    directory: &Path,
    machine: &Machine,
) -> Option<Arc<Certificate>> {
    let chain_bytes = read(report, chain_key.clone(), chain, PEM_MAX, directory);
    let key_bytes = read(report, key_key.clone(), key, PEM_MAX, directory);
    match Certificate::from_pem(&chain_bytes?, &key_bytes?) {
        Ok(certificate) => {
            warn_of_expiry(report, chain_key, chain, certificate.not_after(), machine.now);
            return Some(Arc::new(certificate));
        }
        Err(error @ (Invalid::NoCertificate | Invalid::Certificate(_) | Invalid::KeyUsage)) => {
            let what = format!("is {:?}, which {error}", chain.value);
            report.fault(chain.line, chain_key, wrong(what, "write a PEM file with the chain, leaf first"));
        }
        Err(error @ (Invalid::NoKey | Invalid::Key(_))) => {
            let what = format!("is {:?}, which {error}", key.value);
            report.fault(key.line, key_key, wrong(what, "write a PEM file with an ECDSA, RSA or Ed25519 private key"));
        }
        Err(error @ Invalid::Mismatch) => {
            let what = format!("is {:?}, which {error} in {:?}", key.value, chain.value);
            let remedy = "write the key that the certificate was made for, and the leaf first in the chain";
            report.fault(key.line, key_key, wrong(what, remedy));
        }
    }
    None
}

/// Reads a file of at most `most` bytes.
pub(super) fn read(
    report: &mut Report,
    key: String,
    file: &Located<String>,
    most: u64,
    directory: &Path,
) -> Option<Zeroizing<Vec<u8>>> {
    let path = directory.join(&file.value);
    let bytes = match std::fs::metadata(&path) {
        Ok(data) if data.len() > most => Err(format!("has {} bytes, and {most} are the most", data.len())),
        Ok(data) if !data.is_file() => Err("is not a file".to_owned()),
        Ok(_) => std::fs::read(&path).map_err(|error| format!("cannot be read ({error})")),
        Err(error) => Err(format!("cannot be read ({error})")),
    };
    match bytes {
        Ok(bytes) => Some(Zeroizing::new(bytes)),
        Err(why) => {
            let what = format!("is {:?}, which {why}", file.value);
            report.fault(file.line, key, wrong(what, format!("put a PEM file at {}", path.display())));
            None
        }
    }
}

pub(super) fn warn_of_expiry(
    report: &mut Report,
    key: String,
    file: &Located<String>,
    not_after: UnixTime,
    now: UnixTime,
) {
    let left = not_after.since(now);
    if left < EXPIRY_WARNING {
        let when = if left.is_zero() {
            "has expired".to_owned()
        } else {
            format!("expires in {} hours", left.as_secs() / 3600)
        };
        report.warning(file.line, key, wrong(format!("is {:?}, which {when}", file.value), "renew it and reload"));
    }
}

/// Makes the service's TLS once, to see that it can be made.
fn prove_tls(report: &mut Report, section: &Section<'_>, ciphers_line: usize, service: &VirtualService) {
    match publish::prove_tls(service) {
        // A service without a certificate that is right has been blamed already.
        Ok(()) | Err(tls::service::Invalid::NoCertificate) => {}
        Err(error @ (tls::service::Invalid::Tickets(_) | tls::service::Invalid::Certificate(_))) => {
            report.fault(section.line, section.key("certificates"), wrong(error.to_string(), "replace it"));
        }
        Err(error @ tls::service::Invalid::Cipher { .. }) => {
            report.fault(
                ciphers_line,
                section.key("ciphers"),
                wrong("names a cipher suite that is not offered", error.to_string()),
            );
        }
        Err(error @ tls::service::Invalid::NoCipher(_)) => {
            let remedy = "add a suite of that version, or raise minimum_version";
            report.fault(ciphers_line, section.key("ciphers"), wrong(error.to_string(), remedy));
        }
    }
}
