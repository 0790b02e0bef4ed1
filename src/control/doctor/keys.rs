//! Where ticket keys come from: files that are right and private, an etcd that answers.

use super::{Finding, Host};
use crate::base::Random;
use crate::control::clock;
use crate::control::config::{Configuration, KeySource};
use crate::control::keys::finding::{self, Severity};
use crate::control::keys::{etcd, lint};

const ABOUT: &str = "ticket keys";

/// What is in files, as `sealane keys check` finds it.
pub(super) fn examine(host: &Host, configuration: &Configuration) -> Vec<Finding> {
    let keys = &configuration.ticket_keys;
    let path = match &keys.source {
        KeySource::Own(None) => {
            let what =
                "made by the engine and kept nowhere: a restart costs every client a full handshake and its server";
            return vec![Finding::weak(ABOUT, what, "write file = \"/var/lib/sealane/keys.ring\" in [ticket_keys]")];
        }
        // Made when the engine starts.
        KeySource::Own(Some(path)) if !path.exists() => {
            return vec![Finding::good(ABOUT, format!("{} is made when the engine starts", path.display()))];
        }
        KeySource::Own(Some(path)) | KeySource::File(path) => path,
        KeySource::Etcd(_) => return Vec::new(),
    };
    let mut findings: Vec<_> = lint::lint(path, &keys.schedule, clock::unix_time()).into_iter().map(shown).collect();
    if findings.is_empty() {
        findings.push(Finding::good(ABOUT, format!("{}: nothing is wrong", path.display())));
    }
    findings.extend(on_memory(host, path));
    findings
}

/// A file on a tmpfs is in memory that may be swapped out.
fn on_memory(host: &Host, path: &std::path::Path) -> Option<Finding> {
    let mounts = host.read("/proc/mounts")?;
    let path = path.canonicalize().ok()?;
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(place, _)| path.starts_with(place))
        .max_by_key(|(place, _)| place.len())?;
    let has_swap = host.read("/proc/swaps")?.lines().count() > 1;
    (mount.1 == "tmpfs" && has_swap).then(|| {
        let what = format!("{} is on a tmpfs ({}), and this machine swaps", path.display(), mount.0);
        Finding::bad(ABOUT, what, "swapoff --all, or keep the file on an encrypted disk")
    })
}

fn shown(finding: finding::Finding) -> Finding {
    let what = format!("{}: {}", finding.path.display(), finding.what);
    match finding.severity {
        Severity::Error => Finding::bad(ABOUT, what, finding.remedy),
        Severity::Warning => Finding::weak(ABOUT, what, finding.remedy),
    }
}

/// Asks etcd for the ring, where it comes from there.
pub(super) fn ask_etcd(configuration: &Configuration) -> Option<Finding> {
    let KeySource::Etcd(settings) = &configuration.ticket_keys.source else { return None };
    let asked = clock::now();
    let mut random = match Random::from_os() {
        Ok(random) => random,
        Err(error) => {
            return Some(Finding::bad(
                ABOUT,
                format!("the operating system gives no randomness ({error})"),
                "look at the kernel's log",
            ));
        }
    };
    Some(match etcd::read(settings, &mut random) {
        Ok(ring) => {
            let took = clock::now().since(asked).as_millis();
            Finding::good(
                ABOUT,
                format!(
                    "etcd has ring {} with {} keys, and gave it within {took} ms",
                    ring.version(),
                    ring.entries().len()
                ),
            )
        }
        Err(error) => Finding::bad(
            ABOUT,
            error.to_string(),
            "etcdctl --endpoints … endpoint status; an engine starts without etcd if ticket_keys.state_file holds a ring",
        ),
    })
}
