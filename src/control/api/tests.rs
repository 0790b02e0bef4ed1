//! Every route over a control in memory: what it shows, what it changes, what it refuses and leaves as it was.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::{Value as Json, json};
use smoltcp::wire::EthernetAddress;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tower::ServiceExt;

use super::{Api, Asker, Listeners, Question, queue, router};
use crate::balance::{Health, State};
use crate::base::{Duration, Instant, LaneId, Random, UnixTime};
use crate::control::config::{self, Machine};
use crate::control::publish::{self, Shared};
use crate::control::{Command, Control, Parts, admin, keys, run};
use crate::health::{Cause, Finding, Verdict};
use crate::lane::{Handle, Order, Snapshot};
use crate::ticket::envelope::tests::sample;
use crate::ticket::{Envelope, Mapping, Ring, seal};

const WALL: UnixTime = UnixTime(1_767_225_600);

/// A control with two lanes that have everything in force as soon as it is told, and the API over it.
struct Bench {
    directory: TempDir,
    control: Control,
    handles: Vec<Handle>,
    asker: Asker,
    questions: mpsc::Receiver<Question>,
    is_impatient: bool,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// A refusal of this status, in the shape that all have.
    fn refused(&self, status: u16) -> Json {
        let problem = self.json();
        assert_eq!(self.status.as_u16(), status, "{problem:#}");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(problem["status"], status);
        problem
    }

    fn changed(&self) -> Json {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        let changed = self.json();
        assert_eq!(self.headers[header::ETAG], format!("{:?}", changed["revision"].as_str().unwrap()));
        changed
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(&include_str!("../../../dpdk-config/tap.toml").replace("file = \"-\"", "file = \"records.log\""))
    }

    fn with(text: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["shop.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        for name in ["shop-ecdsa", "shop-rsa"] {
            std::fs::write(directory.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(directory.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        let file = directory.path().join("sealane.toml");
        std::fs::write(&file, text).unwrap();
        let machine = Machine { cores: vec![0, 1], memory: 64 << 30, now: WALL };
        let configuration = config::load(&file, &machine).unwrap();
        let handles: Vec<_> = (0..2).map(|lane| Handle::new(LaneId(lane), 1)).collect();
        for handle in &handles {
            handle.counters.lane.configuration_version.set(u64::MAX);
            handle.counters.lane.ring_version.set(u64::MAX);
        }
        let parts = Parts {
            keys: run::keys_source(&configuration, WALL, Random::from_seed(1)).unwrap(),
            configuration,
            machine,
            handles: handles.clone(),
            macs: vec![EthernetAddress([2, 0, 0, 0, 0, 1])],
            shared: Shared::new(2),
            admin: admin::bind("127.0.0.1:0".parse().unwrap()).unwrap(),
            api: Listeners::default(),
            stop: Box::new(|| ()),
        };
        let (asker, questions) = queue();
        let control = Control::new(parts, Instant::START).unwrap();
        let bench = Self { directory, control, handles, asker, questions, is_impatient: false };
        bench.snapshot();
        bench
    }

    fn api(&self) -> Api {
        let api = self.control.api(self.asker.clone());
        if self.is_impatient { api.impatient() } else { api }
    }

    fn ask(&mut self, request: Request<Body>) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let router = router(self.api());
        let (control, questions) = (&mut self.control, &mut self.questions);
        runtime.block_on(async {
            let answer = router.oneshot(request);
            tokio::pin!(answer);
            let response = loop {
                tokio::select! {
                    answer = &mut answer => break answer.unwrap(),
                    Some(question) = questions.recv() => control.on_request(question, Instant::START, WALL),
                }
            };
            let (status, headers) = (response.status(), response.headers().clone());
            let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            Answer { status, headers, text: String::from_utf8(bytes.into()).unwrap() }
        })
    }

    fn get(&mut self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).unwrap())
    }

    fn send(&mut self, method: Method, path: &str, body: &Json) -> Answer {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        self.ask(request.body(Body::from(body.to_string())).unwrap())
    }

    fn put(&mut self, path: &str, body: &Json) -> Answer {
        self.send(Method::PUT, path, body)
    }

    fn patch(&mut self, path: &str, body: &Json) -> Answer {
        self.send(Method::PATCH, path, body)
    }

    fn delete(&mut self, path: &str) -> Answer {
        self.ask(Request::delete(path).body(Body::empty()).unwrap())
    }

    fn post(&mut self, path: &str) -> Answer {
        self.ask(Request::post(path).body(Body::empty()).unwrap())
    }

    fn put_text(&mut self, text: &str) -> Answer {
        let request = Request::put("/v1/configuration").header(header::CONTENT_TYPE, "application/toml");
        self.ask(request.body(Body::from(text.to_owned())).unwrap())
    }

    /// The configuration that waits for both lanes, the same for both, if one does.
    fn snapshot(&self) -> Option<Box<Snapshot>> {
        let mut found = self.handles.iter().map(|handle| {
            let orders = std::iter::from_fn(|| handle.inbox.pop());
            let snapshots = orders.filter_map(|order| match order {
                Order::Configure(snapshot) => Some(snapshot),
                Order::Ring(_) | Order::Capture(_) | Order::Drain => None,
            });
            snapshots.last()
        });
        let (first, second) = (found.next().unwrap(), found.next().unwrap());
        assert_eq!(first.as_ref().map(|one| one.version), second.as_ref().map(|one| one.version));
        first
    }

    /// The servers of the pool `web` that lanes have just been given: name, ratio, state.
    fn servers(&self) -> Vec<(String, u8, State)> {
        let snapshot = self.snapshot().expect("every lane is given a configuration");
        let web = snapshot.pools.iter().find(|monitored| monitored.pool.name == "web").unwrap();
        web.pool.servers.iter().map(|server| (server.name.clone(), server.ratio, server.state)).collect()
    }

    fn text(&mut self) -> String {
        self.get("/v1/configuration").text
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("sealane.toml")
    }

    /// Requires that a request is refused so, and that nothing has changed.
    fn refuses(&mut self, status: u16, request: impl FnOnce(&mut Self) -> Answer) -> Json {
        let (before, revision) = (self.text(), self.control.revision());
        let problem = request(self).refused(status);
        assert!(self.snapshot().is_none(), "lanes were given something");
        assert_eq!((self.text(), self.control.revision()), (before, revision));
        problem
    }
}

#[test]
fn a_server_is_drained_weighted_and_enabled_on_every_lane_at_once() {
    let mut bench = Bench::new();
    let changed = bench.patch("/v1/pools/web/servers/a", &json!({ "state": "disabled", "ratio": 5 })).changed();
    assert_eq!((&changed["configuration_version"], &changed["in_force"]), (&json!(2), &json!(true)));
    assert_eq!(changed["unsaved_changes"], true);
    assert_eq!(bench.servers()[0], ("a".to_owned(), 5, State::Disabled));
    let shown = bench.get("/v1/pools/web/servers/a").json();
    assert_eq!((&shown["state"]["state"], &shown["state"]["usable"]), (&json!("disabled"), &json!(false)));
    bench.patch("/v1/pools/web/servers/a", &json!({ "state": "draining" })).changed();
    assert!(matches!(bench.servers()[0], (_, 5, State::Draining(_))));
    bench.patch("/v1/pools/web/servers/a", &json!({ "state": null, "ratio": null })).changed();
    assert_eq!(bench.servers()[0], ("a".to_owned(), 1, State::Enabled));
}

#[test]
fn why_a_server_is_down_is_shown() {
    let mut bench = Bench::new();
    let slot = bench.control.view().borrow().servers[1].slot;
    bench.control.shared.board.publish(slot, Health::Down);
    let finding = Finding {
        monitor: "connect".to_owned(),
        health: Health::Down,
        last: Some(Err(Cause::TimedOut)),
        lasted: Duration::from_secs(60),
    };
    let verdict = Verdict {
        pool: "web".to_owned(),
        server: "b".to_owned(),
        slot,
        health: Health::Down,
        before: Health::Up,
        lasted: Duration::from_secs(30),
        findings: vec![finding],
    };
    bench.handles[0].verdicts.push(verdict).unwrap();
    bench.control.on_tick(Instant::START, WALL);
    let state = bench.get("/v1/pools/web/servers/b").json()["state"].take();
    assert_eq!((&state["health"], &state["usable"]), (&json!("down"), &json!(false)));
    assert_eq!(state["since"], "2025-12-31T23:59:30Z");
    let found =
        json!([{ "monitor": "connect", "health": "down", "cause": "timed out", "since": "2025-12-31T23:59:00Z" }]);
    assert_eq!(state["findings"], found);
    assert_eq!(bench.get("/v1/virtual_services/shop").json()["state"]["servers_usable"], 1);
}

#[test]
fn servers_come_and_go_and_the_answer_says_which() {
    let mut bench = Bench::new();
    let server = json!({ "address": "198.18.0.1:8009", "ratio": 2 });
    assert_eq!(bench.put("/v1/pools/web/servers/c", &server).status, StatusCode::CREATED);
    assert_eq!(bench.servers()[2], ("c".to_owned(), 2, State::Enabled));
    assert_eq!(bench.put("/v1/pools/web/servers/c", &server).status, StatusCode::OK);
    bench.servers();
    bench.delete("/v1/pools/web/servers/a").changed();
    let names: Vec<_> = bench.servers().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["b", "c"]);
    let last = ["b", "c"].map(|name| format!("/v1/pools/web/servers/{name}"));
    bench.delete(&last[0]).changed();
    bench.snapshot();
    let problem = bench.refuses(422, |bench| bench.delete(&last[1]));
    assert_eq!(problem["faults"][0]["key"], "pool.server");
}

#[test]
fn what_is_wrong_is_told_as_of_the_file_and_nothing_changes() {
    let mut bench = Bench::new();
    let problem = bench.refuses(422, |bench| bench.patch("/v1/pools/web/servers/a", &json!({ "ratio": 21 })));
    let fault = &problem["faults"][0];
    let text = bench.text();
    let line = text.lines().position(|line| line.starts_with("ratio = 1 ")).unwrap() + 1;
    assert_eq!((&fault["line"], &fault["key"]), (&json!(line), &json!("pool.server.ratio")));
    assert_eq!(fault["remedy"], "write a number from 1 to 20, without quotes");
    assert_eq!(fault["file"], bench.file().display().to_string());
    // Both faults are told, and the half that is right is not made either.
    let both = json!({ "state": "asleep", "ratio": 3, "wait": 5 });
    let problem = bench.refuses(422, |bench| bench.patch("/v1/pools/web/servers/a", &both));
    assert_eq!(problem["faults"].as_array().unwrap().len(), 2);
    // Who is needed cannot go.
    let problem = bench.refuses(422, |bench| bench.delete("/v1/pools/web"));
    assert_eq!(problem["faults"][0]["key"], "virtual_service.pool");
    // What cannot change while the engine runs is told so.
    let renamed = bench.text().replace("name = \"engine-1\"", "name = \"engine-2\"");
    let problem = bench.refuses(422, |bench| bench.put_text(&renamed));
    assert_eq!(problem["faults"][0]["key"], "engine.name");
    assert_eq!(bench.control.counters.changes_refused.value(), 4);
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut bench = Bench::new();
    for path in ["/v1/pools/web/servers/z", "/v1/pools/none/servers/a", "/v1/pools/none", "/v1/health_monitors/x"] {
        bench.get(path).refused(404);
        bench.refuses(404, |bench| bench.delete(path));
        bench.refuses(404, |bench| bench.patch(path, &json!({})));
    }
    bench.refuses(404, |bench| bench.put("/v1/pools/none/servers/a", &json!({ "address": "198.18.0.1:80" })));
    bench.get("/v2/pools").refused(404);
    bench.post("/v1/pools").refused(405);
}

#[test]
fn a_body_of_another_form_is_refused() {
    let mut bench = Bench::new();
    let path = "/v1/pools/web/servers/a";
    let body = |media_type: &'static str, text: &str| {
        Request::patch(path).header(header::CONTENT_TYPE, media_type).body(Body::from(text.to_owned())).unwrap()
    };
    for text in ["", "[]", "null", "{\"ratio\":", "{\"ratio\": 1} 2", "\u{0}"] {
        bench.refuses(400, |bench| bench.ask(body("application/json", text)));
    }
    bench.refuses(415, |bench| bench.ask(body("text/plain", "{}")));
    bench.refuses(415, |bench| bench.ask(Request::patch(path).body(Body::from("{}")).unwrap()));
    let long = format!("{{\"ratio\": \"{}\"}}", "x".repeat(2 << 20));
    bench.refuses(413, |bench| bench.ask(body("application/json", &long)));
    bench.refuses(422, |bench| bench.patch(path, &json!({ "name": "b" })));
    bench.refuses(422, |bench| bench.put(path, &json!({ "address": null })));
    bench.refuses(400, |bench| bench.get("/v1/pools/%ff"));
    bench.refuses(400, |bench| bench.post("/v1/configuration/save?force=perhaps"));
    let request = Request::put("/v1/configuration").header(header::CONTENT_TYPE, "application/toml");
    bench.refuses(400, |bench| bench.ask(request.body(Body::from(vec![0xff])).unwrap()));
    bench.refuses(413, |bench| bench.put_text(&"#".repeat(config::FILE_MAX + 1)));
    bench.refuses(422, |bench| bench.put_text("[engine"));
}

#[test]
fn whoever_was_overtaken_changes_nothing() {
    let mut bench = Bench::new();
    let conditional = |tag: &str| {
        let request = Request::patch("/v1/pools/web/servers/a").header(header::CONTENT_TYPE, "application/json");
        request.header(header::IF_MATCH, tag).body(Body::from("{\"ratio\": 3}")).unwrap()
    };
    let tag = bench.get("/v1/pools").headers[header::ETAG].to_str().unwrap().to_owned();
    bench.ask(conditional(&tag)).changed();
    bench.snapshot();
    let problem = bench.refuses(412, |bench| bench.ask(conditional(&tag)));
    assert_eq!(problem["type"], "urn:sealane:problem:overtaken");
    bench.refuses(412, |bench| bench.ask(conditional("W/\"2\"")));
    bench.ask(conditional("*")).changed();
    let tag = bench.get("/v1/configuration").headers[header::ETAG].to_str().unwrap().to_owned();
    bench.ask(conditional(&format!("\"other\", {tag}"))).changed();
}

#[test]
fn a_revision_of_before_a_restart_counts_if_it_says_the_same() {
    let text = Bench::new().text();
    let tag = |bench: &mut Bench| bench.get("/v1/status").json()["revision"].clone();
    let mut again = Bench::with(&text);
    assert_eq!(tag(&mut Bench::with(&text)), tag(&mut again));
    assert_ne!(tag(&mut Bench::with(&format!("{text}# other\n"))), tag(&mut again));
}

#[test]
fn a_lane_that_is_held_up_is_not_waited_for_longer_than_a_change_may_take() {
    let mut bench = Bench::new();
    bench.is_impatient = true;
    bench.handles[1].counters.lane.configuration_version.set(1);
    let answer = bench.patch("/v1/pools/web/servers/a", &json!({ "ratio": 2 }));
    assert_eq!((answer.status, &answer.changed()["in_force"]), (StatusCode::ACCEPTED, &json!(false)));
    bench.handles[1].counters.lane.configuration_version.set(3);
    let answer = bench.patch("/v1/pools/web/servers/a", &json!({ "ratio": 3 }));
    assert_eq!((answer.status, &answer.changed()["in_force"]), (StatusCode::OK, &json!(true)));
}

#[test]
fn everything_that_has_a_name_is_made_shown_changed_and_taken_out() {
    let mut bench = Bench::new();
    let pool = json!({ "server": [{ "name": "x", "address": "198.18.0.1:9001" }], "health_monitor": "quick" });
    let service = json!({ "addresses": ["198.18.0.99:443"], "pool": "new", "persistence_profile": "wait",
        "certificates": [{ "certificate": "shop-ecdsa.pem", "key": "shop-ecdsa.key" }] });
    let things = [
        (
            "/v1/health_monitors/quick",
            json!({ "type": "tcp", "interval": "1s", "timeout": "500ms" }),
            json!({ "failed_checks": 3 }),
        ),
        ("/v1/persistence_profiles/wait", json!({ "type": "tls" }), json!({ "max_mapping_age": "1h" })),
        ("/v1/pools/new", pool, json!({ "algorithm": "least-connections" })),
        ("/v1/virtual_services/new", service, json!({ "tickets": 4 })),
    ];
    for (path, made, change) in &things {
        let answer = bench.put(path, made);
        assert_eq!(answer.status, StatusCode::CREATED, "{path}: {}", answer.text);
        bench.patch(path, change).changed();
        let mut shown = bench.get(path).json();
        let (list, name) = path.rsplit_once('/').unwrap();
        assert!(bench.get(list).json().as_array().unwrap().contains(&shown), "{path}");
        let mut expected = made.clone();
        let more =
            json!({ "name": name }).as_object().unwrap().clone().into_iter().chain(change.as_object().unwrap().clone());
        expected.as_object_mut().unwrap().extend(more);
        assert_eq!(shown["configuration"].take(), expected, "{path}");
    }
    assert_eq!(bench.get("/v1/health_monitors/quick").json()["state"]["used_by"], json!(["new"]));
    assert_eq!(bench.get("/v1/persistence_profiles/wait").json()["state"]["used_by"], json!(["new"]));
    let service = bench.get("/v1/virtual_services/new").json();
    assert_eq!(service["state"]["certificates"][0]["names"], json!(["shop.test"]));
    assert_eq!(bench.get("/v1/pools/new").json()["state"]["virtual_services"], json!(["new"]));
    let snapshot = bench.snapshot().unwrap();
    assert!(snapshot.services.iter().any(|service| service.name == "new"));
    for (path, ..) in things.iter().rev() {
        bench.delete(path).changed();
    }
    assert!(!bench.snapshot().unwrap().services.iter().any(|service| service.name == "new"));
    assert_eq!(bench.text(), std::fs::read_to_string(bench.file()).unwrap(), "and all is as it was");
}

#[test]
fn a_change_lasts_until_the_file_is_read_again_unless_it_is_saved() {
    let mut bench = Bench::new();
    bench.patch("/v1/pools/web/servers/a", &json!({ "ratio": 7 })).changed();
    assert_eq!(bench.servers()[0].1, 7);
    let reloaded = bench.post("/v1/configuration/reload").changed();
    assert_eq!((&reloaded["discarded_unsaved_changes"], &reloaded["unsaved_changes"]), (&json!(true), &json!(false)));
    assert_eq!(bench.servers()[0].1, 1);
    assert_eq!(bench.post("/v1/configuration/reload").changed().get("discarded_unsaved_changes"), None);

    bench.patch("/v1/pools/web/servers/a", &json!({ "ratio": 8 })).changed();
    assert_eq!(bench.post("/v1/configuration/save").json()["unsaved_changes"], false);
    assert!(std::fs::read_to_string(bench.file()).unwrap().contains("ratio = 8 "));
    bench.control.on_command(Command::Reload, Instant::START, WALL);
    assert_eq!(bench.servers()[0].1, 8);
}

#[test]
fn a_save_keeps_mode_and_link_and_nobody_elses_words_are_lost() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mut bench = Bench::new();
    let file = bench.file();
    let real = bench.directory.path().join("real.toml");
    std::fs::rename(&file, &real).unwrap();
    std::os::unix::fs::symlink(&real, &file).unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    bench.patch("/v1/pools/web/servers/a", &json!({ "ratio": 8 })).changed();
    assert_eq!(bench.post("/v1/configuration/save").status, StatusCode::OK);
    assert!(std::fs::symlink_metadata(&file).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&real).unwrap().mode() & 0o7777, 0o640);

    let theirs = std::fs::read_to_string(&real).unwrap() + "# mine\n";
    std::fs::write(&real, &theirs).unwrap();
    bench.patch("/v1/pools/web/servers/a", &json!({ "ratio": 9 })).changed();
    bench.snapshot();
    bench.refuses(409, |bench| bench.post("/v1/configuration/save"));
    assert_eq!(std::fs::read_to_string(&real).unwrap(), theirs);
    assert_eq!(bench.post("/v1/configuration/save?force=true").status, StatusCode::OK);
    assert_eq!(std::fs::read_to_string(&real).unwrap(), bench.text());
}

#[test]
fn a_reload_that_is_refused_says_why_and_keeps_what_was_not_saved() {
    let mut bench = Bench::new();
    bench.patch("/v1/pools/web/servers/a", &json!({ "ratio": 8 })).changed();
    bench.snapshot();
    std::fs::write(bench.file(), "[engine]\n").unwrap();
    let problem = bench.refuses(422, |bench| bench.post("/v1/configuration/reload"));
    assert!(!problem["faults"].as_array().unwrap().is_empty());
    assert_eq!(bench.get("/v1/status").json()["unsaved_changes"], true);
}

#[test]
fn certificates_are_read_again_with_whatever_is_put() {
    let mut bench = Bench::new();
    let service = bench.get("/v1/virtual_services/shop").json();
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["new.test".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    std::fs::write(bench.directory.path().join("shop-ecdsa.pem"), certificate.pem()).unwrap();
    let problem = bench.refuses(422, |bench| bench.put("/v1/virtual_services/shop", &service["configuration"]));
    assert!(problem["faults"][0]["key"].as_str().unwrap().contains("certificate"), "without its key: {problem}");
    std::fs::write(bench.directory.path().join("shop-ecdsa.key"), key.serialize_pem()).unwrap();
    bench.put("/v1/virtual_services/shop", &service["configuration"]).changed();
    let shown = bench.get("/v1/virtual_services/shop").json();
    assert_eq!(shown["state"]["certificates"][0]["names"], json!(["new.test"]));
}

#[test]
fn the_engine_and_its_lanes_are_shown_and_drained() {
    let mut bench = Bench::new();
    let status = bench.get("/v1/status").json();
    assert_eq!((&status["engine"], &status["draining"]), (&json!("engine-1"), &json!(false)));
    bench.handles[1].counters.relay.open.set(3);
    let lanes = bench.get("/v1/lanes").json();
    assert_eq!((&lanes[1]["lane"], &lanes[1]["core"], &lanes[1]["connections"]), (&json!(1), &json!(1), &json!(3)));
    let answer = bench.post("/v1/drain");
    assert_eq!((answer.status, &answer.json()["draining"]), (StatusCode::ACCEPTED, &json!(true)));
    for handle in &bench.handles {
        assert!(std::iter::from_fn(|| handle.inbox.pop()).any(|order| matches!(order, Order::Drain)));
    }
}

#[test]
fn the_overview_says_what_each_part_of_it_says_by_itself() {
    let mut bench = Bench::new();
    let lane = &bench.handles[1].counters;
    lane.relay.handshakes_tls12_full.add(2);
    lane.relay.handshakes_tls13_full.add(3);
    lane.relay.handshakes_tls13_resumed.add(7);
    lane.lane.frames_unsent.add(1);
    lane.lane.malformed_checksum.add(4);
    let overview = bench.get("/v1/overview").json();
    assert_eq!((&overview["uptime_milliseconds"], &overview["time"]), (&json!(0), &json!("2026-01-01T00:00:00Z")));
    assert_eq!(overview["engine"], bench.get("/v1/status").json());
    assert_eq!(overview["lanes"], bench.get("/v1/lanes").json());
    assert_eq!(overview["ticket_keys"], bench.get("/v1/ticket_keys").json());
    for (part, path) in [("pools", "/v1/pools"), ("virtual_services", "/v1/virtual_services")] {
        let parts = bench.get(path).json().as_array().unwrap().clone();
        assert!(!parts.is_empty());
        for mut one in parts {
            let name = one["configuration"]["name"].take();
            let shown = overview[part].as_array().unwrap().iter().find(|shown| shown["name"] == name).unwrap();
            one["state"]["name"] = name;
            assert_eq!(shown, &one["state"]);
        }
    }
    let lane = &overview["lanes"][1];
    let counted = ["handshakes_full", "handshakes_resumed", "frames_dropped", "frames_malformed"];
    assert_eq!(counted.map(|name| lane[name].as_u64().unwrap()), [5, 7, 1, 4]);
    assert_eq!(bench.get("/v1/overview").headers[header::CACHE_CONTROL], "no-store");
}

#[test]
fn k8_keys_are_shown_without_secrets_rotated_and_purged_on_every_lane() {
    let mut bench = Bench::new();
    let ring = |bench: &Bench| {
        let orders = std::iter::from_fn(|| bench.handles[1].inbox.pop());
        let rings = orders.filter_map(|order| match order {
            Order::Ring(ring) => Some(ring.version()),
            Order::Configure(_) | Order::Capture(_) | Order::Drain => None,
        });
        rings.last()
    };
    let before = bench.get("/v1/ticket_keys").json();
    assert_eq!((&before["source"], before["keys"].as_array().unwrap().len()), (&json!("own"), 1));
    let first = before["keys"][0]["id"].as_str().unwrap().to_owned();
    let secret = hex::encode(bench.control.keys.current().active().unwrap().key.secret());
    assert!(!before.to_string().contains(&secret));

    let rotated = bench.post("/v1/ticket_keys/rotate").json();
    assert_eq!((&rotated["version"], &rotated["in_force"]), (&json!(2), &json!(true)));
    let state = |ring: &Json, id: &str| {
        let keys = ring["keys"].as_array().unwrap();
        keys.iter().find(|key| key["id"] == id).map(|key| key["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(state(&rotated, &first).as_deref(), Some("retiring"));
    assert_eq!(ring(&bench), Some(2));

    let purged = bench.send(Method::POST, "/v1/ticket_keys/purge", &json!({ "key": first })).json();
    assert_eq!((state(&purged, &first), &purged["version"]), (None, &json!(3)));
    assert_eq!(ring(&bench), Some(3));
    for (status, body) in [
        (404, json!({ "key": first })),
        (400, json!({ "key": "no key" })),
        (400, json!({ "key": 5 })),
        (400, json!({})),
        (400, json!({ "key": first, "force": true })),
    ] {
        bench.refuses(status, |bench| bench.send(Method::POST, "/v1/ticket_keys/purge", &body));
        assert_eq!(ring(&bench), None);
    }
}

#[test]
fn keys_that_are_somebody_elses_are_not_changed_here() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("keys.ring");
    keys::file::write(&file, &Ring::generate(WALL, &mut Random::from_seed(3)), false).unwrap();
    let text = include_str!("../../../dpdk-config/tap.toml").replace("file = \"-\"", "file = \"records.log\"");
    let mut bench = Bench::with(&text.replace("source = \"own\" ", &format!("file = {file:?}\nsource = \"file\" ")));
    let key = bench.get("/v1/ticket_keys").json()["keys"][0]["id"].clone();
    let problem = bench.refuses(409, |bench| bench.post("/v1/ticket_keys/rotate"));
    assert!(problem["detail"].as_str().unwrap().contains("sealane keys"), "{problem}");
    bench.refuses(409, |bench| bench.send(Method::POST, "/v1/ticket_keys/purge", &json!({ "key": key })));
}

#[test]
fn it_is_explained_where_a_client_would_go() {
    let mut bench = Bench::new();
    let path = "/v1/explain?service=shop&client=198.18.0.1";
    let either = bench.get(path).json();
    assert_eq!(
        (&either["handshake"], &either["reason"], either.get("server")),
        (&json!("full"), &json!("no-mapping"), None)
    );
    let why = either["why"].as_str().unwrap();
    assert!(why.contains("round-robin from a with 0 connections and 1 of 2 shares, b with"), "{why}");
    bench.patch("/v1/pools/web", &json!({ "algorithm": "consistent-hash" })).changed();
    let hashed = bench.get(path).json();
    let home = hashed["server"].as_str().unwrap().to_owned();
    bench.patch(&format!("/v1/pools/{}", home.replace('/', "/servers/")), &json!({ "state": "draining" })).changed();
    let other = bench.get(path).json();
    assert_ne!(other["server"], home);
    assert!(other["why"].as_str().unwrap().contains("is the only server"), "{other}");

    // A ticket that the engine has made.
    let service = bench.control.configuration.services.iter().find(|service| service.name == "shop").unwrap();
    let server = &service.pool.servers[if home == "web/a" { 0 } else { 1 }];
    let mapping = Mapping { pool: service.pool.id, server: server.id, generation: server.generation, assigned: WALL };
    let envelope = Envelope { mapping: Some(mapping), original_handshake: WALL, issued: WALL, ..sample(100) };
    let (_, scope) = publish::scopes(&bench.control.configuration).remove(0);
    let ticket = seal(&bench.control.keys.current().for_service(&scope), &envelope, &mut Random::from_seed(5)).unwrap();
    let returning = format!("{path}&ticket={}", hex::encode(&ticket));
    let explained = bench.get(&returning).json();
    assert_eq!((&explained["handshake"], &explained["reason"]), (&json!("resumed"), &json!("switched-draining")));
    bench.patch(&format!("/v1/pools/{}", home.replace('/', "/servers/")), &json!({ "state": "enabled" })).changed();
    let explained = bench.get(&returning).json();
    assert_eq!((&explained["server"], &explained["reason"]), (&json!(home), &json!("persisted")));
    // In maintenance it is drained, and not down.
    let slot = {
        let view = bench.control.view();
        let placed = view
            .borrow()
            .servers
            .iter()
            .find(|placed| home == format!("{}/{}", placed.pool, placed.server))
            .map(|placed| placed.slot);
        placed.unwrap()
    };
    bench.control.shared.board.publish(slot, Health::Maintenance);
    assert_eq!(bench.get(&returning).json()["reason"], "switched-draining");
    bench.control.shared.board.publish(slot, Health::Down);
    assert_eq!(bench.get(&returning).json()["reason"], "switched-down");
    bench.control.shared.board.publish(slot, Health::Up);
    let forged = format!("{path}&ticket={}00", hex::encode(&ticket[..ticket.len() - 1]));
    let explained = bench.get(&forged).json();
    assert_eq!((&explained["handshake"], &explained["reason"]), (&json!("full"), &json!("no-mapping")));
    assert!(explained["why"].as_str().unwrap().contains("Forged"), "{explained}");

    bench.get("/v1/explain?service=none&client=198.18.0.1").refused(404);
    for wrong in ["service=shop", "service=shop&client=here", "service=shop&client=::1&ticket=what%3F"] {
        bench.get(&format!("/v1/explain?{wrong}")).refused(400);
    }
}

#[test]
fn who_asks_an_engine_that_has_ended_is_told_so() {
    let bench = Bench::new();
    let router = router(bench.api());
    drop(bench);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let request = Request::get("/v1/status").body(Body::empty()).unwrap();
    let response = runtime.block_on(router.oneshot(request)).unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[test]
fn the_openapi_document_names_every_operation_once_with_all_that_it_answers() {
    let mut bench = Bench::new();
    let document = bench.get("/openapi.json").json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut ids = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
            let statuses = operation["responses"].as_object().unwrap();
            assert!(statuses.contains_key("503") && statuses.keys().any(|status| status.starts_with('2')), "{path}");
            // What is captured, or ends, is no change of the configuration.
            let changes = method != "get" && path != "/v1/drain" && !path.starts_with("/v1/captures");
            assert_eq!(statuses.contains_key("412"), changes, "{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{path}");
        }
    }
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"].get(reference).is_some(), "nothing says what {reference} is");
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), count >= 30), (count, true), "{ids:?}");
}
