//! Feeds arbitrary text to `control::config::parse`, in a directory with a certificate and its key.
//!
//! A refusal names at least one fault, each on one line that exists. What is accepted keeps every bound, may follow itself, and can be
//! published to lanes: snapshots, TCP settings, ticket scopes.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use sealane::control::config::{
    ADDRESSES_MAX, CERTIFICATES_MAX, CORES_MAX, Configuration, Fault, Machine, POOLS_MAX, PORTS_MAX, SERVERS_MAX,
    SERVICES_MAX, parse,
};
use sealane::control::publish::{Shared, names, scopes, snapshots, tcp_settings};
use sealane_fuzz::{Host, IDENTITY, NOW};

/// `scripts/fuzz` removes its temporary directory, and with it this one.
static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = tempfile::TempDir::new().expect("there is a temporary directory").keep();
    for (name, text) in [("a.pem", &IDENTITY.chain), ("a.key", &IDENTITY.key)] {
        std::fs::write(directory.join(name), text).expect("it can be written");
    }
    directory
});

fuzz_target!(|text: &str| -> Corpus {
    // Files outside of the directory are none of the input's business.
    if text.contains("\"/") || text.contains("'/") || text.contains("..") {
        return Corpus::Reject;
    }
    let machine = Machine { cores: vec![0, 1], memory: 64 << 30, now: NOW };
    let lines = text.matches('\n').count() + 1;
    match parse(text, &DIRECTORY.join("sealane.toml"), &machine) {
        Ok(configuration) => check(&configuration, lines),
        Err(errors) => {
            assert!(!errors.faults().is_empty());
            check_faults(errors.faults(), lines);
        }
    }
    Corpus::Keep
});

fn check_faults(faults: &[Fault], lines: usize) {
    for fault in faults {
        assert!(fault.line <= lines, "there is no such line: {fault}");
        assert!(!fault.wrong.is_empty() && !fault.remedy.is_empty(), "it says nothing: {fault:?}");
        assert!(!fault.to_string().contains(['\n', '\r']), "one fault takes two lines: {fault:?}");
        assert_ne!(fault.wrong, "is refused and the reason was lost");
    }
}

fn check(configuration: &Configuration, lines: usize) {
    check_faults(&configuration.warnings, lines);
    let Configuration { engine, ports, services, pools, .. } = configuration;
    assert!((1..=CORES_MAX).contains(&engine.cores.len()));
    assert!((1..=PORTS_MAX).contains(&ports.len()) && services.len() <= SERVICES_MAX && pools.len() <= POOLS_MAX);
    assert!(pools.iter().map(|pool| pool.servers.len()).sum::<usize>() <= SERVERS_MAX);
    for port in ports {
        assert!(port.addresses.len() <= ADDRESSES_MAX);
    }
    for service in services {
        assert!((1..=ADDRESSES_MAX).contains(&service.addresses.len()));
        assert!((1..=CERTIFICATES_MAX).contains(&service.certificates.len()));
    }
    assert!(configuration.prove_successor_of(configuration).is_ok(), "it cannot follow itself");
    let tcp = tcp_settings(configuration);
    assert!(tcp.mtu >= 576 && tcp.receive_buffer > 0 && tcp.send_buffer > 0 && tcp.connections_max > 0);
    assert_eq!(scopes(configuration).len(), services.len());
    assert_eq!(names(configuration).pools.len(), pools.len(), "two pools have one identity");
    let macs: Vec<_> = (0..).take(ports.len()).map(Host::mac_of).collect();
    let mut shared = Shared::new(engine.cores.len());
    let published = snapshots(configuration, 1, &macs, &mut shared, engine.cores.len());
    assert_eq!(published.map(|snapshots| snapshots.len()).ok(), Some(engine.cores.len()), "it cannot be published");
}
