//! Feeds what servers may answer to health monitors that read it: over plain TCP with a text to be found, and by HTTP.
//!
//! An answer comes to the same whether it comes at once or byte by byte, whatever it is; and a monitor says no more than it has to.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sealane::balance::Board;
use sealane::base::{Duration, Instant, Random};
use sealane::health::{Answer, Kind, Monitor, MonitoredPool, Monitors, Outcome, Probe, http, tcp};
use sealane_fuzz::NOW;

/// What a monitor asks, and the answer.
#[derive(arbitrary::Arbitrary, Debug)]
struct Case<'a> {
    is_http: bool,
    is_head: bool,
    expects: bool,
    maintains: bool,
    closes: bool,
    answer: &'a [u8],
}

fuzz_target!(|case: Case<'_>| {
    let whole = outcome(&case, usize::MAX);
    assert_eq!(whole, outcome(&case, 1), "byte by byte it is another answer: {case:?}");
    assert_eq!(whole, outcome(&case, 7), "seven bytes at a time: {case:?}");
    if whole == Some(Ok(Answer::Maintenance)) {
        assert!(case.maintains, "nothing says maintenance");
    }
    assert!(whole.is_some() || !case.closes, "a connection that has ended ends its probe");
});

fn monitor(case: &Case<'_>) -> Monitor {
    let text = |is_there: bool, text: &[u8]| if is_there { text.into() } else { Arc::default() };
    let kind = if case.is_http {
        Kind::Http(Arc::new(http::Settings {
            method: if case.is_head { "HEAD" } else { "GET" },
            path: "/".to_owned(),
            host: None,
            codes: vec![200..=299],
            text: text(case.expects, b"ok"),
            maintenance_codes: if case.maintains { vec![503..=503] } else { Vec::new() },
        }))
    } else {
        Kind::Tcp(tcp::Settings { send: b"ok?"[..].into(), expect: b"ok"[..].into() })
    };
    Monitor { kind, maintenance_text: text(case.maintains, b"oo"), ..Monitor::connect("m") }
}

/// What a probe comes to whose answer comes in parts of so many bytes; `None` if it waits for more.
fn outcome(case: &Case<'_>, part: usize) -> Option<Outcome> {
    let address = |n: u8| ([198, 18, 0, n], 80).into();
    let pool = sealane_fuzz::pool([address(1), address(2), address(3)]);
    let mut monitors = Monitors::new(Arc::new(Board::new(3)), Random::from_seed(1), Arc::default());
    monitors.configure(&[MonitoredPool::by_all(pool, vec![Arc::new(monitor(case))])], Instant::START);
    while monitors.poll_verdict(Instant::START).is_some() {}
    let now = monitors.poll_at().expect("a probe is due");
    monitors.on_timeout(now);
    let Some(Probe::Connect(probe, _)) = monitors.poll_probe() else { panic!("it begins with a connection") };
    monitors.on_connected(probe, now, NOW);
    let mut said = 0;
    monitors.poll_transmit(probe, now, |bytes| {
        said += bytes.len();
        bytes.len()
    });
    for bytes in case.answer.chunks(part) {
        if !monitors.is_running(probe) {
            break;
        }
        monitors.on_data(probe, bytes, now, NOW);
        monitors.poll_transmit(probe, now, |_| panic!("everything has been said: {said} bytes"));
    }
    if case.closes && monitors.is_running(probe) {
        monitors.on_end(probe, now);
    }
    let verdict = monitors.poll_verdict(now)?;
    verdict.findings.first().map(|finding| {
        assert_eq!(finding.lasted, Duration::ZERO);
        finding.last.expect("a probe has ended")
    })
}
