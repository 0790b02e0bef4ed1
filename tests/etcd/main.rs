//! Key rings of several engines in a real etcd: rotation, election, loss of either, and an etcd that lies.
//!
//! Needs Debian's etcd-server and etcd-client, which scripts/setup installs.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench that cannot be set up fails its test")]

mod relay;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use relay::Relay;
use sealane::base::{Random, UnixTime};
use sealane::control::keys::etcd::Settings;
use sealane::control::keys::sealed::KeyEncryptionKey;
use sealane::control::keys::{Alarm, Alarms, Error, Source, SourceSettings};
use sealane::control::{clock, identity};
use sealane::ticket::ring::State;
use sealane::ticket::{KeyId, Ring, Schedule};
use server::{Etcd, until, write_secret};
use tempfile::TempDir;

const SECOND: Duration = Duration::from_secs(1);

/// A case: its name and itself.
type Case = (&'static str, fn());

/// They wait more than they work, so that all of them run at once; with a word, those whose names hold it.
fn main() -> ExitCode {
    let word = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let cases: &[Case] = &[
        (
            "k2_keys_rotate_only_when_every_engine_that_lives_has_acknowledged_the_next_one",
            k2_keys_rotate_only_when_every_engine_that_lives_has_acknowledged_the_next_one,
        ),
        ("another_engine_leads_at_once_when_the_leader_stops", another_engine_leads_at_once_when_the_leader_stops),
        (
            "a_leader_that_is_cut_off_is_replaced_serves_on_and_catches_up",
            a_leader_that_is_cut_off_is_replaced_serves_on_and_catches_up,
        ),
        (
            "k7_an_etcd_that_dies_and_comes_back_empty_gets_the_ring_again",
            k7_an_etcd_that_dies_and_comes_back_empty_gets_the_ring_again,
        ),
        (
            "what_somebody_else_writes_below_the_prefix_is_not_in_the_way",
            what_somebody_else_writes_below_the_prefix_is_not_in_the_way,
        ),
        (
            "more_keys_of_engines_than_there_may_be_are_an_alarm_until_they_are_gone",
            more_keys_of_engines_than_there_may_be_are_an_alarm_until_they_are_gone,
        ),
        (
            "k7_garbage_and_rings_of_before_are_refused_and_the_leader_puts_its_own_back",
            k7_garbage_and_rings_of_before_are_refused_and_the_leader_puts_its_own_back,
        ),
        (
            "an_engine_does_not_start_without_a_ring_but_with_that_of_its_state_file",
            an_engine_does_not_start_without_a_ring_but_with_that_of_its_state_file,
        ),
        ("etcd_may_ask_for_a_certificate_and_a_password", etcd_may_ask_for_a_certificate_and_a_password),
        ("k8_a_key_is_purged_everywhere_by_a_command", k8_a_key_is_purged_everywhere_by_a_command),
        ("a_command_at_the_wrong_etcd_says_so", a_command_at_the_wrong_etcd_says_so),
    ];
    let chosen = cases.iter().filter(|(name, _)| name.contains(&word));
    let run = |(name, case): &Case| (*name, std::thread::Builder::new().name((*name).to_owned()).spawn(*case).unwrap());
    let running: Vec<_> = chosen.map(run).collect();
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in running {
        let verdict = if case.join().is_ok() {
            passed += 1;
            "ok"
        } else {
            failed += 1;
            "FAILED"
        };
        println!("test {name} ... {verdict}");
    }
    println!("etcd: {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A cluster's files.
struct Cluster {
    directory: TempDir,
    schedule: Schedule,
}

impl Cluster {
    fn new(rotation: Duration) -> Self {
        let directory = TempDir::new().unwrap();
        let mut random = Random::from_os().unwrap();
        KeyEncryptionKey::generate(&mut random).write(&directory.path().join("cluster.kek")).unwrap();
        Self { directory, schedule: Schedule::new(rotation, 20 * rotation).unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn settings(&self, name: &str, endpoint: &str) -> Settings {
        Settings {
            endpoints: vec![endpoint.to_owned()],
            prefix: "/sealane/test".to_owned(),
            engine: name.to_owned(),
            cluster: identity::cluster("test"),
            key_encryption_key: self.path("cluster.kek"),
            ca: None,
            identity: None,
            user: None,
            core: None,
            state_file: None,
        }
    }

    fn open(&self, settings: Settings) -> Result<Engine, Error> {
        let settings = SourceSettings::Etcd(Box::new(settings));
        let (source, _) = Source::open(settings, self.schedule, clock::unix_time(), Random::from_os().unwrap())?;
        Ok(Engine { source, is_stuck: false, refused: 0 })
    }

    fn engine(&self, name: &str, endpoint: &str) -> Engine {
        self.open(self.settings(name, endpoint)).unwrap()
    }
}

/// A source as control drives it, over lanes that take every ring at once unless they are stuck.
struct Engine {
    source: Source,
    is_stuck: bool,
    refused: u64,
}

impl Engine {
    fn turn(&mut self) {
        if let Some(Err(_)) = self.source.poll(clock::unix_time()) {
            self.refused += 1;
        }
        if !self.is_stuck {
            self.source.on_lanes(self.source.current().version());
        }
    }

    fn ring(&self) -> &Arc<Ring> {
        self.source.current()
    }

    fn version(&self) -> u64 {
        self.ring().version()
    }

    fn active(&self) -> Option<KeyId> {
        self.ring().active().map(|entry| entry.key.id())
    }

    fn alarms(&self) -> Alarms {
        self.source.alarms(clock::unix_time())
    }

    fn leads(&self) -> bool {
        self.source.cluster().is_some_and(|(leads, _)| leads)
    }
}

/// Turns all engines. None seals with a key that another one cannot open.
fn turn(engines: &mut [Engine]) {
    engines.iter_mut().for_each(Engine::turn);
    for one in engines.iter() {
        let Some(active) = one.active() else { continue };
        let opens = |ring: &Ring| ring.find(active).is_some() || ring.purged().iter().any(|purged| purged.id == active);
        assert!(engines.iter().all(|other| opens(other.ring())), "{active} is not everywhere");
    }
}

fn wait(what: &str, engines: &mut [Engine], done: impl Fn(&[Engine]) -> bool) -> Duration {
    until(what, || {
        turn(engines);
        done(engines)
    })
}

fn all_have(version: u64) -> impl Fn(&[Engine]) -> bool {
    move |engines| engines.iter().all(|engine| engine.version() >= version)
}

/// Turns all engines for a while in which something must not happen.
fn for_a_while(time: Duration, engines: &mut [Engine]) {
    let began = clock::now();
    wait("time passes", engines, |_| clock::now().since(began) >= time);
}

/// Writes bytes over the ring, as somebody who may write to etcd and knows no key.
fn overwrite(etcd: &Etcd, bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
        client.put("/sealane/test/ring", bytes, None).await.unwrap();
    });
}

/// Puts 1,100 keys there that no engine has written, or takes them away.
fn crowd(etcd: &Etcd, below: &str, is_there: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
        for number in 0..1100 {
            let key = format!("{below}{number}");
            if is_there {
                client.put(key, "garbage", None).await.unwrap();
            } else {
                client.delete(key, None).await.unwrap();
            }
        }
    });
}

fn stored(etcd: &Etcd) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
        client.get("/sealane/test/ring", None).await.unwrap().kvs()[0].value().to_vec()
    })
}

fn k2_keys_rotate_only_when_every_engine_that_lives_has_acknowledged_the_next_one() {
    let etcd = Etcd::start();
    let cluster = Cluster::new(2 * SECOND);
    let mut engines = ["a", "b", "c"].map(|name| cluster.engine(name, &etcd.endpoint()));
    engines[2].is_stuck = true;
    let keys: Vec<_> = engines.iter().map(|engine| (engine.version(), engine.active())).collect();
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]) && keys[0].0 == 1, "{keys:?}");
    let pending = engines[0].ring().entries().iter().find(|entry| entry.state == State::Pending).unwrap().key.id();
    wait("all live", &mut engines, |engines| engines[0].source.cluster().is_some_and(|(_, count)| count == 3));
    for_a_while(3 * SECOND, &mut engines);
    assert!(engines.iter().all(|engine| engine.version() == 1), "c has not acknowledged");
    engines[2].is_stuck = false;
    wait("a rotation", &mut engines, all_have(2));
    assert!(engines.iter().all(|engine| engine.ring().find(pending).unwrap().activated.is_some()));
    wait("two more", &mut engines, all_have(4));
    assert!(engines.iter().all(|engine| engine.alarms().is_empty()));
    assert_eq!(engines.iter().filter(|engine| engine.leads()).count(), 1);
}

fn another_engine_leads_at_once_when_the_leader_stops() {
    let etcd = Etcd::start();
    let cluster = Cluster::new(2 * SECOND);
    let mut engines: Vec<_> = ["a", "b"].map(|name| cluster.engine(name, &etcd.endpoint())).into();
    wait("a leader", &mut engines, |engines| engines.iter().any(Engine::leads));
    let leader = engines.iter().position(Engine::leads).unwrap();
    drop(engines.remove(leader));
    let took = wait("the other leads", &mut engines, |engines| engines[0].leads());
    assert!(took < 5 * SECOND, "its lease was given up, and did not have to expire: {took:?}");
    let version = engines[0].version();
    wait("rotation", &mut engines, all_have(version + 1));
}

fn a_leader_that_is_cut_off_is_replaced_serves_on_and_catches_up() {
    let etcd = Etcd::start();
    let cluster = Cluster::new(4 * SECOND);
    let relay = Relay::to(etcd.address());
    let mut engines = vec![cluster.engine("cut", &relay.endpoint())];
    wait("a leader", &mut engines, |engines| engines[0].leads());
    engines.push(cluster.engine("other", &etcd.endpoint()));
    wait("both live", &mut engines, |engines| engines[1].source.cluster().is_some_and(|(_, count)| count == 2));
    relay.cut(true);
    let before = engines[0].version();
    // What it has goes on sealing for two rotations, and the other one goes on opening what it seals.
    wait("it knows", &mut engines, |engines| engines[0].alarms().contains(&Alarm::Unreachable));
    assert!(!engines[0].leads());
    wait("the other rotates", &mut engines, |engines| engines[1].version() > before);
    assert!(engines[1].leads());
    wait("it seals no more", &mut engines[..1], |engines| engines[0].active().is_none());
    assert!(engines[0].alarms().contains(&Alarm::Stale));
    let last = engines[0].ring().entries().iter().find(|entry| entry.state == State::Active).unwrap().key.id();
    assert!(engines[1].ring().find(last).is_some());
    relay.cut(false);
    wait("it catches up", &mut engines, |engines| {
        engines[0].version() == engines[1].version() && engines[0].active().is_some() && engines[0].alarms().is_empty()
    });
}

fn k7_an_etcd_that_dies_and_comes_back_empty_gets_the_ring_again() {
    let mut etcd = Etcd::start();
    let cluster = Cluster::new(3600 * SECOND);
    let mut engines = ["a", "b"].map(|name| cluster.engine(name, &etcd.endpoint()));
    turn(&mut engines);
    let (version, active) = (engines[0].version(), engines[0].active());
    etcd.kill();
    wait("it is missed", &mut engines, |engines| {
        engines.iter().all(|engine| engine.alarms() == Alarms::from([Alarm::Unreachable]))
    });
    assert!(engines.iter().all(|engine| engine.version() == version && engine.active() == active));
    etcd.restart();
    let quiet = |engines: &[Engine]| engines.iter().all(|engine| engine.alarms().is_empty());
    wait("it is back", &mut engines, quiet);
    etcd.kill();
    etcd.wipe();
    wait("it is missed again", &mut engines, |engines| !quiet(engines));
    etcd.restart();
    wait("it is back, empty", &mut engines, |engines| quiet(engines) && engines.iter().any(Engine::leads));
    assert!(engines.iter().all(|engine| engine.version() == version && engine.active() == active));
    let late = cluster.engine("late", &etcd.endpoint());
    assert_eq!((late.version(), late.active()), (version, active), "whoever comes now gets it");
}

fn what_somebody_else_writes_below_the_prefix_is_not_in_the_way() {
    let etcd = Etcd::start();
    let cluster = Cluster::new(3 * SECOND);
    // Before all that engines write, in the order in which etcd gives keys.
    crowd(&etcd, "/sealane/test/a", true);
    let mut engines = vec![cluster.engine("a", &etcd.endpoint()), cluster.engine("b", &etcd.endpoint())];
    wait("a rotation", &mut engines, all_have(2));
}

fn more_keys_of_engines_than_there_may_be_are_an_alarm_until_they_are_gone() {
    let etcd = Etcd::start();
    let cluster = Cluster::new(60 * SECOND);
    let mut engines = vec![cluster.engine("a", &etcd.endpoint()), cluster.engine("b", &etcd.endpoint())];
    crowd(&etcd, "/sealane/test/engines/x", true);
    wait("the alarm", &mut engines, |engines| {
        engines.iter().all(|engine| engine.alarms().contains(&Alarm::Unreachable))
    });
    crowd(&etcd, "/sealane/test/engines/x", false);
    wait("its end", &mut engines, |engines| {
        engines.iter().all(|engine| engine.alarms().is_empty()) && engines.iter().any(Engine::leads)
    });
}

fn k7_garbage_and_rings_of_before_are_refused_and_the_leader_puts_its_own_back() {
    let etcd = Etcd::start();
    let cluster = Cluster::new(3 * SECOND);
    let first = cluster.engine("a", &etcd.endpoint());
    let old = stored(&etcd);
    let mut engines = vec![first, cluster.engine("b", &etcd.endpoint())];
    wait("a rotation", &mut engines, all_have(2));
    let mut altered = stored(&etcd);
    *altered.last_mut().unwrap() ^= 1;
    for bytes in [old, altered, b"garbage".to_vec(), Vec::new(), vec![1; 100_000]] {
        let refused = engines[0].refused;
        overwrite(&etcd, &bytes);
        wait("it is refused", &mut engines, |engines| engines[0].refused > refused);
        wait("it is replaced", &mut engines, |engines| engines.iter().all(|engine| engine.alarms().is_empty()));
        assert!(engines.iter().all(|engine| engine.version() >= 2));
    }
    let version = engines[0].version();
    wait("rotation goes on", &mut engines, all_have(version + 1));
}

fn an_engine_does_not_start_without_a_ring_but_with_that_of_its_state_file() {
    let mut etcd = Etcd::start();
    let cluster = Cluster::new(3600 * SECOND);
    let settings = Settings { state_file: Some(cluster.path("state")), ..cluster.settings("a", &etcd.endpoint()) };
    let engine = cluster.open(settings.clone()).unwrap();
    let active = engine.active();
    drop(engine);
    etcd.kill();
    let without = cluster.open(Settings { state_file: None, ..settings.clone() }).err().unwrap().to_string();
    assert!(without.contains(&etcd.endpoint()) && without.contains("name a state_file"), "{without}");
    let mut engines = [cluster.open(settings.clone()).unwrap()];
    assert_eq!(engines[0].active(), active);
    wait("the alarm", &mut engines, |engines| engines[0].alarms() == Alarms::from([Alarm::Unreachable]));
    etcd.restart();
    wait("etcd", &mut engines, |engines| engines[0].alarms().is_empty());
    // Sealed under another key, a state file is nothing to go by.
    let other = Cluster::new(3600 * SECOND);
    let strange = Settings { key_encryption_key: other.path("cluster.kek"), ..settings };
    let refused = cluster.open(strange.clone()).err().unwrap().to_string();
    assert!(refused.contains("state: error: was altered, or sealed under another key-encryption key"), "{refused}");
    let refused = cluster.open(Settings { state_file: None, ..strange }).err().unwrap().to_string();
    assert!(refused.contains("the ring in etcd was altered, or sealed under another"), "{refused}");
}

fn etcd_may_ask_for_a_certificate_and_a_password() {
    let etcd = Etcd::with_tls();
    for command in ["role add engine", "user add root:root", "user grant-role root root", "user add sealane:secret"] {
        etcd.etcdctl(&command.split(' ').collect::<Vec<_>>()).unwrap();
    }
    etcd.etcdctl(&["role", "grant-permission", "--prefix=true", "engine", "readwrite", "/sealane/test/"]).unwrap();
    etcd.etcdctl(&["user", "grant-role", "sealane", "engine"]).unwrap();
    etcd.etcdctl(&["auth", "enable"]).unwrap();
    let cluster = Cluster::new(3600 * SECOND);
    write_secret(&cluster.path("password"), "secret\n");
    write_secret(&cluster.path("wrong"), "guess\n");
    let certificates = etcd.certificates();
    let settings = |password: &str| Settings {
        ca: Some(certificates.path("ca.pem")),
        identity: Some((certificates.path("client.pem"), certificates.path("client.key"))),
        user: Some(("sealane".to_owned(), cluster.path(password))),
        ..cluster.settings("a", &etcd.endpoint())
    };
    let refused = cluster.open(settings("wrong")).err().unwrap().to_string();
    assert!(refused.contains("authentication failed") && !refused.contains("guess"), "{refused}");
    let mut engines = vec![cluster.open(settings("password")).unwrap()];
    engines.push(cluster.open(Settings { engine: "b".to_owned(), ..settings("password") }).unwrap());
    wait("both live", &mut engines, |engines| {
        engines.iter().all(|engine| engine.source.cluster().is_some_and(|(_, count)| count == 2))
    });
    assert!(engines.iter().all(|engine| engine.version() == 1 && engine.alarms().is_empty()));
    let nobody = Settings { identity: None, ..settings("password") };
    assert!(cluster.open(nobody).err().unwrap().to_string().contains("cannot be used"));
    let other = Settings { ca: Some(server::Certificates::new().path("ca.pem")), ..settings("password") };
    assert!(cluster.open(other).is_err(), "its authority is not ours");
}

fn k8_a_key_is_purged_everywhere_by_a_command() {
    let etcd = Etcd::start();
    let cluster = Cluster::new(6 * 3600 * SECOND);
    let mut engines = ["a", "b"].map(|name| cluster.engine(name, &etcd.endpoint()));
    turn(&mut engines);
    let leaked = engines[0].active().unwrap();
    let next = engines[0].ring().entries()[1].key.id();
    let configuration = configuration(&cluster, &etcd);
    let sealane = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sealane"));
        let ended = command.arg("keys").args(arguments).arg("--config").arg(&configuration).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if ended.status.success() { Ok(text(&ended.stdout)) } else { Err(text(&ended.stderr)) }
    };
    let listed = sealane(&["list"]).unwrap();
    assert!(listed.contains(&format!("{leaked}  active")), "{listed}");
    let purged = sealane(&["purge", "--key", &leaked.to_string()]).unwrap();
    assert!(purged.contains(&format!("{leaked}  purged")), "{purged}");
    wait("it is gone", &mut engines, |engines| {
        engines.iter().all(|engine| engine.ring().find(leaked).is_none() && engine.active() == Some(next))
    });
    let again = sealane(&["purge", "--key", &leaked.to_string()]).unwrap_err();
    assert!(again.contains("there is no key") && again.contains("sealane keys list --config"), "{again}");
    wait("another key is pending", &mut engines, |engines| {
        engines.iter().all(|engine| engine.ring().entries().iter().any(|entry| entry.state == State::Pending))
    });
}

/// A configuration file of an engine of the cluster.
fn configuration(cluster: &Cluster, etcd: &Etcd) -> PathBuf {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["shop.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    for name in ["shop-ecdsa", "shop-rsa"] {
        std::fs::write(cluster.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(cluster.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let source = format!(
        "source = \"etcd\"\nendpoints = [\"{}\"]\nkey_encryption_key = \"cluster.kek\"\nprefix = \"/sealane/test\"",
        etcd.endpoint()
    );
    let text = include_str!("../../dpdk-config/tap.toml").replace("source = \"own\"", &source);
    let text = text.replace("cluster = \"demo\"", "cluster = \"test\"").replace("cores = [0, 1]", "cores = [0]");
    let path = cluster.path("sealane.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn a_command_at_the_wrong_etcd_says_so() {
    let cluster = Cluster::new(3600 * SECOND);
    let settings = cluster.settings("a", &format!("http://127.0.0.1:{}", server::free_port()));
    let mut random = Random::from_os().unwrap();
    let refused = sealane::control::keys::etcd::purge(&settings, KeyId([1; 8]), UnixTime(0), &mut random)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("http://127.0.0.1:") && refused.contains("see that etcd runs"), "{refused}");
}
