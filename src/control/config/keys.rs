//! `[ticket_keys]`: where ticket keys come from, how often they rotate, and how long tickets live.

use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::fault::{Report, Wrong, wrong};
use super::model::{Engine, KeySource, TicketKeys};
use super::reader::{Located, Section, choice, duration, text};
use super::sections::{DAY, SECOND};
use crate::base::UnixTime;
use crate::control::identity;
use crate::control::keys::{self, etcd, lint, sealed};
use crate::ticket::Schedule;
use crate::ticket::schedule::{LIFETIME_MAX, ROTATION_MAX};

/// Most members of etcd that are named.
const ENDPOINTS_MAX: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Own,
    File,
    Etcd,
}

/// Reads `[ticket_keys]`; without it the engine makes keys of its own. `engine` is what `[engine]` says, if that is right.
pub(super) fn ticket_keys(
    report: &mut Report,
    section: Option<Section<'_>>,
    directory: &Path,
    engine: Option<&Engine>,
    now: UnixTime,
) -> Option<TicketKeys> {
    let defaults = TicketKeys { source: KeySource::Own(None), schedule: Schedule::default(), session_max: 7 * DAY };
    let Some(mut section) = section else { return Some(defaults) };
    let kinds = choice(&[("own", Kind::Own), ("file", Kind::File), ("etcd", Kind::Etcd)]);
    let kind = section.or(report, "source", Kind::Own, kinds).value;
    let etcd = if kind == Kind::Etcd { self::etcd(report, &mut section, directory, engine) } else { None };
    let file = if kind == Kind::Etcd { None } else { ring_file(report, &mut section, directory, kind == Kind::File) };
    let rotation = section.or(report, "rotation", defaults.schedule.rotation(), duration(SECOND..=ROTATION_MAX));
    // RFC 8446 4.6.1: no ticket lives longer than 7 days.
    let lifetime = section.or(report, "lifetime", defaults.schedule.lifetime(), duration(SECOND..=LIFETIME_MAX));
    let session_max = section.or(report, "session_max", defaults.session_max, duration(SECOND..=90 * DAY));
    // The ring must hold every key that a valid ticket may be under.
    let schedule = match Schedule::new(rotation.value, lifetime.value) {
        Ok(schedule) => Some(schedule),
        Err(error) => {
            let remedy = "write a longer rotation or a shorter lifetime";
            report.fault(rotation.line, section.key("rotation"), wrong(format!("does not do: {error}"), remedy));
            None
        }
    };
    if session_max.value < lifetime.value {
        let what = "is shorter than the lifetime of one ticket";
        let remedy = format!("write \"{}\" or more", humantime::format_duration(lifetime.value));
        report.fault(session_max.line, section.key("session_max"), wrong(what, remedy));
    }
    if kind == Kind::File && file.is_none() {
        let remedy = "add file = \"keys.ring\" and make it with: sealane keys new keys.ring";
        report.fault(section.line, section.key("file"), wrong("is missing", remedy));
    }
    if let (Some(file), Some(schedule)) = (&file, &schedule) {
        warn_of_ring(report, &section, file, schedule, now);
    }
    section.finish(report);
    let file = file.map(|file| file.value);
    let source = match kind {
        Kind::Own => KeySource::Own(file),
        Kind::File => KeySource::File(file?),
        Kind::Etcd => KeySource::Etcd(Box::new(etcd?)),
    };
    Some(TicketKeys { source, schedule: schedule?, session_max: session_max.value })
}

/// A path relative to the configuration's directory.
fn path(
    report: &mut Report,
    section: &mut Section<'_>,
    key: &'static str,
    directory: &Path,
) -> Option<Located<PathBuf>> {
    let found = section.optional(report, key, text(4096))?;
    Some(Located { value: directory.join(found.value), line: found.line })
}

/// The ring file, which must be right if it is there, and be there if `is_source`: a state file is made at the first start.
fn ring_file(
    report: &mut Report,
    section: &mut Section<'_>,
    directory: &Path,
    is_source: bool,
) -> Option<Located<PathBuf>> {
    let file = path(report, section, "file", directory)?;
    if (is_source || file.value.exists())
        && let Err(error) = keys::file::read(&file.value)
    {
        faults(report, section, "file", &file, error);
    }
    Some(file)
}

fn faults(report: &mut Report, section: &Section<'_>, key: &str, file: &Located<PathBuf>, error: keys::Error) {
    for finding in error.0 {
        let at = finding.line.map_or_else(String::new, |line| format!(" (line {line})"));
        let what = format!("is {}{at}: {}", file.value.display(), finding.what);
        report.fault(file.line, section.key(key), wrong(what, finding.remedy));
    }
}

/// K3: what is in the file should outlive the tickets under it.
fn warn_of_ring(
    report: &mut Report,
    section: &Section<'_>,
    file: &Located<PathBuf>,
    schedule: &Schedule,
    now: UnixTime,
) {
    let Ok(ring) = keys::file::read(&file.value) else { return };
    for finding in lint::retention(&file.value, &ring, schedule, now) {
        let what = format!("is {}: {}", file.value.display(), finding.what);
        report.warning(file.line, section.key("file"), wrong(what, finding.remedy));
    }
}

/// Reads what only `source = "etcd"` has.
fn etcd(
    report: &mut Report,
    section: &mut Section<'_>,
    directory: &Path,
    engine: Option<&Engine>,
) -> Option<etcd::Settings> {
    let endpoints = section.required_list(report, "endpoints", ENDPOINTS_MAX, "[\"http://127.0.0.1:2379\"]", endpoint);
    let is_tls = endpoints.iter().any(|endpoint| endpoint.value.starts_with("https://"));
    if let Some(other) = endpoints.iter().find(|endpoint| is_tls && !endpoint.value.starts_with("https://")) {
        let what = format!("has {} beside endpoints with https", other.value);
        report.fault(other.line, section.key("endpoints"), wrong(what, "write https for all, or for none"));
    }
    let prefix = section.optional(report, "prefix", text(256));
    let kek = if section.required(report, "key_encryption_key", "\"cluster.kek\"", text(4096)).is_some() {
        path(report, section, "key_encryption_key", directory)
    } else {
        None
    };
    if let Some(kek) = &kek
        && let Err(error) = sealed::KeyEncryptionKey::read(&kek.value)
    {
        faults(report, section, "key_encryption_key", kek, error);
    }
    let [ca, certificate, key, password_file, state_file] =
        ["ca", "certificate", "key", "password_file", "state_file"].map(|key| path(report, section, key, directory));
    let username = section.optional(report, "username", text(256));
    let pairs = [
        ("certificate", certificate.is_some(), "key", key.is_some()),
        ("username", username.is_some(), "password_file", password_file.is_some()),
    ];
    for (one, has_one, other, has_other) in pairs {
        if has_one != has_other {
            let (there, missing) = if has_one { (one, other) } else { (other, one) };
            let remedy = format!("add it, or remove {there}");
            report.fault(section.line, section.key(missing), wrong(format!("is missing beside {there}"), remedy));
        }
    }
    if is_tls && ca.is_none() {
        let remedy = "name the PEM file of the authority that etcd's certificate is from";
        report.fault(section.line, section.key("ca"), wrong("is missing beside endpoints with https", remedy));
    }
    if !is_tls && let Some(unused) = ca.as_ref().or(certificate.as_ref()) {
        let remedy = "write endpoints with https, or remove it";
        report.fault(unused.line, section.key("ca"), wrong("is of no use with endpoints without https", remedy));
    }
    let value = |path: Option<Located<PathBuf>>| path.map(|path| path.value);
    let Engine { name, cluster, control_core, .. } = engine?;
    Some(etcd::Settings {
        endpoints: endpoints.into_iter().map(|endpoint| endpoint.value).collect(),
        prefix: prefix.map_or_else(|| format!("/sealane/{cluster}"), |prefix| prefix.value),
        engine: name.clone(),
        cluster: identity::cluster(cluster),
        key_encryption_key: kek?.value,
        ca: value(ca),
        identity: value(certificate).zip(value(key)),
        user: username.map(|user| user.value).zip(value(password_file)),
        core: Some(*control_core),
        state_file: value(state_file),
    })
}

/// `http://host:port` or `https://host:port`.
fn endpoint(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = text(1024)(value)?;
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let port = host.and_then(|host| host.rsplit_once(':')).filter(|(host, _)| !host.is_empty());
    let is_right = port.is_some_and(|(host, port)| port.parse::<u16>().is_ok() && !host.contains(['/', '@', ' ']));
    if is_right {
        Ok(text)
    } else {
        Err(wrong(format!("is {text:?}, which is no endpoint"), "write it as \"http://127.0.0.1:2379\", https for TLS"))
    }
}
