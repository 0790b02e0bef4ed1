//! The configuration file: what a shipped profile says, and what a wrong one is told.

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up fails its test")]

#[path = "configuration/reference.rs"]
mod reference;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use sealane::balance::{Admission, Draining, State};
use sealane::base::{Random, UnixTime};
use sealane::control::config::{self, Configuration, Device, Errors, KeySource, Machine};
use sealane::control::keys::file;
use sealane::control::keys::sealed::KeyEncryptionKey;
use sealane::control::publish;
use sealane::persistence::{OnLimit, Queue};
use sealane::ticket::{Ring, Schedule};
use smoltcp::wire::EthernetAddress;
use tempfile::TempDir;

const TAP: &str = include_str!("../dpdk-config/tap.toml");

/// A directory with the certificates that the profiles name.
fn directory() -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, algorithm) in [
        ("shop-ecdsa", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("shop-rsa", &rcgen::PKCS_RSA_SHA256),
        ("other", &rcgen::PKCS_ECDSA_P256_SHA256),
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["shop.test".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2035, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap();
        std::fs::write(directory.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(directory.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    clients(directory.path());
    let kek = KeyEncryptionKey::generate(&mut Random::from_seed(1));
    kek.write(&directory.path().join("cluster.kek")).unwrap();
    let broken = directory.path().join("broken.ring");
    std::fs::write(&broken, "version = 1\n").unwrap();
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    directory
}

/// A CA of clients, its revocation list, one that has ended, and a client's certificate.
fn clients(directory: &Path) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "clients");
    parameters.not_after = rcgen::date_time_ymd(2035, 1, 1);
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&key).unwrap();
    std::fs::write(directory.join("clients-ca.pem"), authority.pem()).unwrap();
    let mut leaf = parameters.clone();
    leaf.is_ca = rcgen::IsCa::ExplicitNoCa;
    std::fs::write(directory.join("client.pem"), leaf.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(parameters, key);
    for (name, year) in [("clients.crl", 2035), ("ended.crl", 2025)] {
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(year, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        std::fs::write(directory.join(name), list.signed_by(&issuer).unwrap().pem().unwrap()).unwrap();
    }
}

fn machine() -> Machine {
    // 2026-01-01
    Machine { cores: vec![0, 1], memory: 64 << 30, now: UnixTime(1_767_225_600) }
}

fn parse(text: &str, directory: &Path) -> Result<Configuration, Errors> {
    config::parse(text, &directory.join("sealane.toml"), &machine())
}

/// The number of the first line of tap.toml that begins so.
fn line_of(beginning: &str) -> usize {
    TAP.lines().position(|line| line.starts_with(beginning)).unwrap() + 1
}

/// Every fault of `text` as its line says it, the directory left out.
fn faults(text: &str, directory: &Path) -> Vec<String> {
    let prefix = format!("{}/", directory.display());
    match parse(text, directory) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.faults().iter().map(|fault| fault.to_string().replace(&prefix, "")).collect(),
    }
}

/// One case of `faults.txt`: a sentence, lines of tap.toml to take out (`-`), what to put in for the last (`+`), what is said (`=`), about which line: the first that is put
/// in is `+1`. Words between braces are the beginning of a line of tap.toml.
struct Case {
    sentence: String,
    text: String,
    expected: Vec<String>,
}

fn cases() -> Vec<Case> {
    include_str!("configuration/faults.txt").split("\n\n").map(case).collect()
}

fn case(paragraph: &str) -> Case {
    let all = |mark: &str| {
        paragraph.lines().filter_map(|line| line.strip_prefix(mark)).map(str::to_owned).collect::<Vec<_>>()
    };
    let (out, into) = (all("- "), all("+ "));
    let mut text: Vec<String> = TAP.lines().map(str::to_owned).collect();
    let mut at = 0;
    for line in &out {
        at = text
            .iter()
            .position(|candidate| candidate.starts_with(line))
            .unwrap_or_else(|| panic!("tap.toml has no line {line:?}"));
        text.remove(at);
    }
    text.splice(at..at, into);
    let sentence = paragraph.lines().next().unwrap().to_owned();
    Case { sentence, text: text.join("\n"), expected: all("= ").iter().map(|fault| numbered(fault, at)).collect() }
}

/// A fault with the number of its line, which is given from the line behind the first `lines`.
fn numbered(fault: &str, lines: usize) -> String {
    let parts = fault.strip_prefix("sealane.toml:").and_then(|rest| rest.split_once(": "));
    let Some((from_there, what)) = parts else { return fault.to_owned() };
    if let Some(beginning) = from_there.strip_prefix('{').and_then(|words| words.strip_suffix('}')) {
        return format!("sealane.toml:{}: {what}", line_of(beginning));
    }
    let line = lines.checked_add_signed(from_there.parse().unwrap()).unwrap();
    format!("sealane.toml:{line}: {what}")
}

#[test]
fn each_fault_is_told_with_its_line_its_key_and_the_remedy() {
    let directory = directory();
    let mut wrong = String::new();
    for Case { sentence, text, expected } in cases() {
        let faults = faults(&text, directory.path());
        if faults != expected || faults.is_empty() {
            wrong += &format!("{sentence}\n= {}\n\n", faults.join("\n= "));
        }
    }
    assert!(wrong.is_empty(), "these say something else:\n{wrong}");
}

#[test]
fn etcd_is_named_with_all_that_it_takes() {
    let directory = directory();
    let source = concat!(
        "source = \"etcd\"\nendpoints = [\"https://127.0.0.1:2379\", \"https://[2001:db8::1]:2379\"]\n",
        "key_encryption_key = \"cluster.kek\"\nca = \"ca.pem\"\ncertificate = \"engine.pem\"\nkey = \"engine.key\"\n",
        "username = \"sealane\"\npassword_file = \"password\"\nstate_file = \"ring.sealed\"\n"
    );
    let configuration = parse(&TAP.replace("source = \"own\"", source), directory.path()).unwrap();
    let KeySource::Etcd(etcd) = &configuration.ticket_keys.source else { panic!() };
    assert_eq!((etcd.prefix.as_str(), etcd.engine.as_str()), ("/sealane/demo", "engine-1"));
    let at = |name: &str| directory.path().join(name);
    assert_eq!((&etcd.ca, &etcd.state_file), (&Some(at("ca.pem")), &Some(at("ring.sealed"))));
    assert_eq!(etcd.identity, Some((at("engine.pem"), at("engine.key"))));
    assert_eq!(etcd.user, Some(("sealane".to_owned(), at("password"))));
}

#[test]
fn k3_a_ring_from_outside_whose_keys_end_before_their_tickets_is_told() {
    let directory = directory();
    let (mut random, now) = (Random::from_seed(1), machine().now);
    let ring = Ring::generate(UnixTime(now.0 - 60), &mut random).rotate(now, &mut random, &Schedule::default());
    let mut entries = ring.entries().to_vec();
    entries.iter_mut().filter(|entry| entry.not_after.is_some()).for_each(|entry| entry.not_after = Some(now));
    let ring = Ring::new(2, entries, Vec::new()).unwrap();
    file::write(&directory.path().join("keys.ring"), &ring, false).unwrap();
    let text = TAP.replace("source = \"own\"", "source = \"file\"\nfile = \"keys.ring\"");
    let warnings = parse(&text, directory.path()).unwrap().warnings;
    let told = warnings.iter().map(ToString::to_string).collect::<String>();
    assert!(told.contains(": ticket_keys.file: is ") && told.contains("when its last ticket expires"), "{told}");
}

#[test]
fn all_faults_of_a_file_are_told_at_once_in_the_order_of_lines() {
    let directory = directory();
    let text = include_str!("configuration/many.toml");
    let expected: Vec<_> = include_str!("configuration/many.txt").lines().collect();
    assert_eq!(faults(text, directory.path()), expected);
}

#[test]
fn every_shipped_profile_is_right() {
    let directory = directory();
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config");
    let is_profile = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let files: Vec<_> =
        std::fs::read_dir(profiles).unwrap().map(|entry| entry.unwrap().path()).filter(is_profile).collect();
    let names: HashSet<_> = files.iter().map(|file| file.file_stem().unwrap().to_str().unwrap()).collect();
    for name in ["tap", "virtio-user", "vhost", "pci", "virtio", "ice", "i40e", "ixgbe", "mlx5", "ena"] {
        assert!(names.contains(name), "there is no profile {name}.toml");
    }
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let machine = Machine { cores: (0..64).collect(), memory: 1 << 40, ..machine() };
        let configuration = config::parse(&text, &directory.path().join("sealane.toml"), &machine);
        let configuration = configuration.unwrap_or_else(|errors| panic!("{}:\n{errors}", file.display()));
        assert!(configuration.warnings.is_empty(), "{:?}", configuration.warnings);
    }
}

#[test]
fn a_right_file_becomes_typed_values() {
    let directory = directory();
    std::fs::write(directory.path().join("sealane.toml"), TAP).unwrap();
    let configuration = config::load(&directory.path().join("sealane.toml"), &machine()).unwrap();
    assert_eq!(configuration.engine.cores, [0, 1]);
    assert_eq!(configuration.engine.drain_timeout, Duration::from_secs(30));
    assert_eq!(configuration.ports[0].device, Device::Virtual("net_tap0,iface=sealane0".to_owned()));
    let service = &configuration.services[0];
    assert_eq!(service.pool.servers[1].address.to_string(), "198.18.0.1:8002");
    assert_eq!(service.pool.monitors[0].timeout, Duration::from_secs(4));
    assert_eq!(service.profile.as_ref().unwrap().name, "sticky");
    assert_eq!((service.tickets, service.certificates.len()), (2, 2));
    assert_eq!(service.alpn, [b"http/1.1"]);
    assert_eq!(configuration.ticket_keys.schedule, sealane::ticket::Schedule::default());
    let summary = configuration.to_string();
    assert!(
        summary.contains(
            "virtual service shop: 198.18.0.10:443 [2001:db8::10]:443 to pool web, persistence sticky, 2 certificates"
        ),
        "{summary}"
    );
}

#[test]
fn p1_limits_drains_and_what_a_full_server_does_become_typed_values_and_their_comments_are_the_defaults() {
    let directory = directory();
    let defaults = parse(TAP, directory.path()).unwrap();
    let commented = ["max_connections", "drain_admission", "drain_timeout", "on_limit"];
    let written =
        commented.iter().fold(TAP.to_owned(), |text, key| text.replace(&format!("# {key} ="), &format!("{key} =")));
    let written = parse(&written, directory.path()).unwrap();
    for configuration in [&defaults, &written] {
        let server = &configuration.services[0].pool.servers[0];
        assert_eq!((server.state, server.max_connections), (State::Enabled, None));
        assert_eq!(configuration.services[0].profile.as_ref().unwrap().on_limit, OnLimit::Switch);
    }
    let text = TAP
        .replacen("state = \"enabled\"", "state = \"draining\"", 1)
        .replace("# max_connections = 0", "max_connections = 7")
        .replace("# on_limit = \"switch\"", "on_limit = \"queue\"");
    let state = |text: &str| parse(text, directory.path()).unwrap().services[0].pool.servers[0].state;
    let drained = |admission, timeout| State::Draining(Draining { admission, timeout });
    let configuration = parse(&text, directory.path()).unwrap();
    assert_eq!(configuration.services[0].pool.servers[0].max_connections, Some(7));
    let queue = Queue { max: 64, timeout: Duration::from_secs(10) };
    assert_eq!(configuration.services[0].profile.as_ref().unwrap().on_limit, OnLimit::Queue(queue));
    configuration.prove_successor_of(&defaults).unwrap();
    assert_eq!(state(&text), drained(Admission::DisallowNew, None));
    let persisted = text.replace("# drain_admission = \"disallow-new\"", "drain_admission = \"allow-persisted\"");
    assert_eq!(state(&persisted), drained(Admission::AllowPersisted, None));
    for (word, timeout) in [("-1", None), ("0s", Some(Duration::ZERO)), ("90s", Some(Duration::from_secs(90)))] {
        let text = text.replace("# drain_timeout = \"never\"", &format!("drain_timeout = {word:?}"));
        assert_eq!(state(&text), drained(Admission::DisallowNew, timeout));
    }
    let never = text.replace("on_limit = \"queue\"", "").replace("down = \"immediate\"", "down = \"never\"");
    assert_eq!(
        parse(&never, directory.path()).unwrap().services[0].profile.as_ref().unwrap().on_limit,
        OnLimit::Refuse
    );
}

#[test]
fn a_pool_whose_servers_are_all_drained_or_disabled_is_a_warning() {
    let directory = directory();
    let text = TAP.replace("state = \"enabled\"", "state = \"disabled\"");
    assert!(parse(&text, directory.path()).unwrap().warnings.is_empty());
    let text = text.replace("name = \"b\"", "name = \"b\"\nstate = \"draining\"");
    let warning = parse(&text, directory.path()).unwrap().warnings[0].to_string();
    assert!(warning.contains("pool.server: has no server that is enabled: new clients are turned away"), "{warning}");
}

#[test]
fn a_pci_device_gets_its_domain() {
    let directory = directory();
    let text = TAP.replace("net_tap0,iface=sealane0", "3b:00.1");
    assert_eq!(parse(&text, directory.path()).unwrap().ports[0].device, Device::Pci("0000:3b:00.1".to_owned()));
}

#[test]
fn ports_answer_for_virtual_addresses_in_their_networks_and_all_for_those_in_none() {
    let directory = directory();
    let back = "mtu = 1500\n[[port]]\nname = \"back\"\ndevice = \"net_tap1\"\naddresses = [\"198.19.0.2/16\"]\n";
    let text = TAP.replacen("mtu = 1500", back, 1).replace("198.18.0.10:443", "198.19.0.10:443\", \"203.0.113.1:443");
    let configuration = parse(&text, directory.path()).unwrap();
    let answers = |port: usize| {
        let settings = publish::link_settings(&configuration, &configuration.ports[port], EthernetAddress::default());
        settings.virtual_addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(answers(0), ["203.0.113.1", "2001:db8::10"]);
    assert_eq!(answers(1), ["198.19.0.10", "203.0.113.1"]);
}

#[test]
fn an_admin_address_that_others_reach_is_a_warning() {
    let directory = directory();
    let configuration = parse(&TAP.replace("127.0.0.1:9900", "0.0.0.0:9900"), directory.path()).unwrap();
    assert!(configuration.warnings[0].to_string().contains("engine.admin: is 0.0.0.0:9900, where others"));
    let configuration = parse(&TAP.replace("admin = ", "# admin = "), directory.path()).unwrap();
    assert_eq!(configuration.engine.admin.to_string(), "127.0.0.1:9900");
}

#[test]
fn every_bound_of_tcp_is_a_key_and_none_changes_at_run_time() {
    let directory = directory();
    let old = parse(TAP, directory.path()).unwrap();
    let keys: Vec<_> = TAP
        .lines()
        .skip_while(|line| !line.starts_with("# [engine.tcp]"))
        .skip(1)
        .map_while(|line| line.strip_prefix("# "))
        .map(|line| line.split_once('#').map_or(line, |(key, _)| key).trim_end())
        .collect();
    assert!(keys.contains(&"memory_max = 1073741824") && keys.len() > 15, "{keys:?}");
    let with = |keys: &[String]| {
        let text = TAP.replace("[engine.log]", &format!("[engine.tcp]\n{}\n[engine.log]", keys.join("\n")));
        parse(&text, directory.path()).unwrap_or_else(|errors| panic!("{errors}"))
    };
    // The comments are the defaults: written out, they change nothing.
    let same: Vec<_> = keys.iter().map(ToString::to_string).collect();
    with(&same).prove_successor_of(&old).unwrap();
    assert_eq!(format!("{:?}", with(&same).engine.tcp), format!("{:?}", old.engine.tcp));
    for key in keys {
        let other = match key.split_once(" = ").unwrap() {
            (name, "true") => format!("{name} = false"),
            (name, "\"accept\"") => format!("{name} = \"offer\""),
            (name, "\"cubic\"") => format!("{name} = \"new-reno\""),
            (name, time) if time.starts_with('"') => format!("{name} = \"7s\""),
            (name, number) => format!("{name} = {}", number.parse::<u64>().unwrap() ^ 1),
        };
        let name = key.split(' ').next().unwrap();
        let told = with(&[other]).prove_successor_of(&old).unwrap_err();
        let told: Vec<_> = told.faults().iter().map(|fault| (fault.line, fault.key.clone())).collect();
        assert_eq!(told, [(line_of("[engine.log]") + 1, format!("engine.tcp.{name}"))]);
    }
}

#[test]
fn the_api_is_at_a_socket_of_the_engines_name_unless_another_or_none_is_written() {
    let directory = directory();
    let old = parse(TAP, directory.path()).unwrap();
    let usual = Path::new("/run/sealane/engine-1.sock");
    assert_eq!(old.engine.api.socket.as_deref(), Some(usual));
    let with = |keys: &str| {
        let text = TAP.replace("[engine.log]", &format!("[engine.api]\n{keys}\n[engine.log]"));
        parse(&text, directory.path()).unwrap_or_else(|errors| panic!("{errors}"))
    };
    let same = with("socket = \"/run/sealane/engine-1.sock\"");
    assert_eq!(same.engine.api, old.engine.api);
    same.prove_successor_of(&old).unwrap();
    assert_eq!(with("socket = \"api.sock\"").engine.api.socket, Some(directory.path().join("api.sock")));
    for other in ["socket = false", "socket = \"api.sock\""] {
        let other = with(other);
        assert_eq!(other.engine.api.socket.is_none(), other.text.contains("socket = false"));
        assert_eq!(other.prove_successor_of(&old).unwrap_err().faults()[0].key, "engine.api.socket");
    }
}

#[test]
fn connections_are_traced_unless_it_is_switched_off_and_the_sample_may_change_at_run_time() {
    let directory = directory();
    let old = parse(TAP, directory.path()).unwrap();
    assert_eq!((old.engine.trace.rings.one_in, old.engine.trace.rings.records), (64, 8192));
    assert_eq!(old.engine.trace.file, None);
    let with = |keys: &str| {
        let text = TAP.replace("[engine.log]", &format!("[engine.trace]\n{keys}\n[engine.log]"));
        parse(&text, directory.path()).unwrap_or_else(|errors| panic!("{errors}"))
    };
    let commented = TAP.lines().skip_while(|line| !line.starts_with("# [engine.trace]")).skip(1).take(2);
    let defaults: Vec<_> = commented.map(|line| line.trim_start_matches("# ")).collect();
    assert_eq!(with(&defaults.join("\n")).engine.trace, old.engine.trace);
    let off = with("one_in = 0");
    assert_eq!(off.engine.trace.rings.one_in, 0);
    off.prove_successor_of(&old).unwrap();
    let other = with("records = 0\nfile = \"engine.trace\"");
    assert_eq!(other.engine.trace.file, Some(directory.path().join("engine.trace")));
    let told = other.prove_successor_of(&old).unwrap_err();
    let told: Vec<_> = told.faults().iter().map(|fault| (fault.line, fault.key.as_str())).collect();
    let first = line_of("[engine.log]") + 1;
    assert_eq!(told, [(first, "engine.trace.records"), (first + 1, "engine.trace.file")]);
}

#[test]
fn fewer_connections_mean_fewer_handshakes_unless_they_are_named() {
    let directory = directory();
    let text = TAP.replace("[engine.log]", "[engine.tcp]\nconnections_max = 1000\n[engine.log]");
    assert_eq!(parse(&text, directory.path()).unwrap().engine.tcp.half_open_max, 500);
}

#[test]
fn bounds_beyond_the_memory_of_the_machine_are_a_warning() {
    let directory = directory();
    let small = Machine { memory: 2 << 30, ..machine() };
    let configuration = config::parse(TAP, &directory.path().join("sealane.toml"), &small).unwrap();
    let warning = configuration.warnings[0].to_string();
    assert!(warning.contains("engine.tcp: lets 2 lanes take ") && warning.contains("has 2048 MiB"), "{warning}");
}

#[test]
fn an_expired_certificate_is_a_warning() {
    let directory = directory();
    let machine = Machine { now: UnixTime(4_000_000_000), ..machine() };
    let configuration = config::parse(TAP, &directory.path().join("sealane.toml"), &machine).unwrap();
    let warning = configuration.warnings[0].to_string();
    assert!(
        warning.contains("virtual_service.certificates.certificate: is \"shop-ecdsa.pem\", which has expired"),
        "{warning}"
    );
}

#[test]
fn client_certificates_are_read_with_their_lists_and_what_shuts_clients_out_is_a_warning() {
    let directory = directory();
    let commented = "# client_certificates = ";
    let with = |text: &str| parse(&text.replacen(commented, &commented[2..], 1), directory.path()).unwrap();
    let configuration = with(TAP);
    assert!(configuration.services[0].client_certificates.is_some() && configuration.warnings.is_empty());
    assert!(parse(TAP, directory.path()).unwrap().services[0].client_certificates.is_none());
    let ended = with(&TAP.replace("clients.crl\"", "ended.crl\"")).warnings;
    assert_eq!(ended.len(), 1);
    let told = "virtual_service.client_certificates.crl: is \"ended.crl\", which should have been replaced by now";
    assert!(ended[0].to_string().contains(told), "{}", ended[0]);
    let other = with(&TAP.replace("ca = \"clients-ca.pem\"", "ca = \"shop-ecdsa.pem\"")).warnings;
    let told = "virtual_service.client_certificates.crl: has no list of the CA \"CN=rcgen self signed cert\"";
    assert!(other[0].to_string().contains(told), "{}", other[0]);
    let machine = Machine { now: UnixTime(2_100_000_000), ..machine() };
    let text = TAP.replacen(commented, &commented[2..], 1);
    let late = config::parse(&text, &directory.path().join("sealane.toml"), &machine).unwrap().warnings;
    let expired = |fault: &config::Fault| fault.to_string().contains("ca: is \"clients-ca.pem\", which has expired");
    assert!(late.iter().any(expired), "{late:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_name() {
    let errors = config::load(Path::new("/nonexistent/sealane.toml"), &machine()).unwrap_err();
    assert!(errors.to_string().starts_with("/nonexistent/sealane.toml: cannot be read"), "{errors}");
}

#[test]
fn a_file_beyond_the_bound_is_refused_before_it_is_parsed() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("sealane.toml");
    std::fs::write(&file, "#".repeat(config::FILE_MAX + 1)).unwrap();
    let errors = config::load(&file, &machine()).unwrap_err();
    assert!(errors.to_string().contains("is longer than"), "{errors}");
    std::fs::write(&file, "#".repeat(config::FILE_MAX)).unwrap();
    let errors = config::load(&file, &machine()).unwrap_err();
    assert!(errors.to_string().contains("engine: is missing"), "{errors}");
}

#[test]
fn more_servers_than_the_bound_are_refused() {
    let directory = directory();
    let server = |n: usize| format!("[[pool.server]]\nname = \"s{n}\"\naddress = \"198.18.1.1:{}\"\n", n + 1000);
    let pool = |count: usize| format!("[[pool]]\nname = \"big\"\n{}", (0..count).map(server).collect::<String>());
    // tap.toml has two already.
    let most = config::SERVERS_MAX - 2;
    assert!(faults(&(TAP.to_owned() + &pool(most)), directory.path()).is_empty());
    let told = faults(&(TAP.to_owned() + &pool(most + 1)), directory.path());
    assert!(told[0].contains("pool.server: has 8191 entries, and 8190 is the most"), "{told:?}");
}

#[test]
fn what_cannot_change_at_run_time_is_told_by_key() {
    let directory = directory();
    let old = parse(TAP, directory.path()).unwrap();
    let same = parse(&TAP.replace("ratio = 1", "ratio = 2"), directory.path()).unwrap();
    same.prove_successor_of(&old).unwrap();
    let text = TAP.replace("cores = [0, 1]", "cores = [1]").replace("iface=sealane0", "iface=sealane1");
    let told = parse(&text, directory.path()).unwrap().prove_successor_of(&old).unwrap_err();
    let told: Vec<_> =
        told.faults().iter().map(|fault| (fault.line, fault.key.as_str(), fault.remedy.as_str())).collect();
    assert_eq!(
        told,
        [
            (line_of("cores"), "engine.cores", "write [0, 1] again, or restart the engine"),
            (
                line_of("[[port]]"),
                "port \"front\", device",
                "write net_tap0,iface=sealane0 again, or restart the engine"
            ),
        ]
    );
}

const BESIDE: &str = "mtu = 1500\nkernel = { interface = \"front0\" }";

#[test]
fn a_port_may_have_an_interface_of_the_kernel_beside_it_that_never_changes() {
    let directory = directory();
    let none = parse(TAP, directory.path()).unwrap();
    assert_eq!((&none.ports[0].kernel, none.engine.announce), (&None, None));
    let beside = parse(&TAP.replacen("mtu = 1500", BESIDE, 1), directory.path()).unwrap();
    let kernel = config::Kernel { interface: "front0".into(), rate: 10_000, addresses: true };
    assert_eq!(beside.ports[0].kernel, Some(kernel));
    let told = beside.prove_successor_of(&none).unwrap_err();
    assert_eq!(told.faults()[0].key, "port \"front\", kernel");
    assert_eq!(
        told.faults()[0].wrong,
        "is now front0, rate 10000, addresses true and cannot change while the engine runs"
    );
}

#[test]
fn announcing_without_time_for_routers_to_hear_of_a_drain_is_a_warning() {
    let directory = directory();
    let text = TAP.replacen("mtu = 1500", BESIDE, 1).replace("[engine.log]", "[engine.announce]\n[engine.log]");
    let hasty = parse(&text, directory.path()).unwrap();
    assert_eq!(hasty.engine.announce, Some(config::Announce { table: 198 }));
    assert_eq!(hasty.warnings[0].key, "engine.announce");
    assert_eq!(hasty.warnings[0].line, text.lines().take_while(|line| *line != "[engine.announce]").count() + 1);
    let text = text.replace("[engine]\n", "[engine]\ndrain_delay = \"5s\"\n");
    assert!(parse(&text, directory.path()).unwrap().warnings.is_empty());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = parse(&String::from_utf8_lossy(&bytes), Path::new("/nonexistent"));
    }

    #[test]
    fn no_damage_to_a_right_file_panics(at in 0..TAP.len(), len in 0..40_usize, junk in "[ -~\n]{0,20}") {
        let mut text = TAP.as_bytes().to_vec();
        let end = (at + len).min(text.len());
        text.splice(at..end, junk.bytes());
        let _ = parse(&String::from_utf8_lossy(&text), Path::new("/nonexistent"));
    }
}

#[test]
fn persistence_by_address_is_read_with_its_defaults_and_needs_no_tickets() {
    use sealane::persistence::{Method, client_ip::Settings};
    let directory = directory();
    let commented: Vec<_> = TAP
        .lines()
        .skip_while(|line| !line.starts_with("# [[persistence_profile]]"))
        .map_while(|line| line.strip_prefix("# "))
        .collect();
    assert!(commented.len() > 5, "{commented:?}");
    let with = |profile: &str| {
        let text = TAP.replacen("\"sticky\"", "\"by-address\"", 1).replacen("tickets = 2", "tickets = 0", 1);
        let configuration =
            parse(&(text + "\n" + profile), directory.path()).unwrap_or_else(|errors| panic!("{errors}"));
        configuration.services[0].profile.as_ref().unwrap().method
    };
    let defaults = with(&commented.join("\n"));
    let timeout = Duration::from_secs(300);
    assert_eq!(defaults, Method::ClientIp(Settings { ipv4_mask: 32, ipv6_mask: 128, timeout, entries_max: 65_536 }));
    assert_eq!(with("[[persistence_profile]]\nname = \"by-address\"\ntype = \"client-ip\""), defaults);
    let timeout = Duration::from_secs(1);
    let other = with(
        "[[persistence_profile]]\nname = \"by-address\"\ntype = \"client-ip\"\nipv4_mask = 24\nipv6_mask = 56\ntimeout = \"1s\"\nentries_max = 1",
    );
    assert_eq!(other, Method::ClientIp(Settings { ipv4_mask: 24, ipv6_mask: 56, timeout, entries_max: 1 }));
}
