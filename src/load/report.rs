//! What a load came to, as a table for people and as JSON for benches.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::base::Duration;
use crate::load::tally::{Tally, Times};
use crate::load::windows::Grid;
use crate::load::{Gaps, MedianWindow, Mode, Plan};

/// Of a thousand connections so many may fail before a rate says nothing: what fails costs the service less, or more.
const FAILED_PER_MILLE: u64 = 1;

/// What a generator knows of its run beside what it tallies.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// The time that was measured, as the plan has it.
    pub(super) measured: Duration,
    /// The same from breath to breath, and how much of it was busy.
    pub(super) elapsed: Duration,
    pub(super) busy: Duration,
    /// Connections that are held.
    pub(super) held: usize,
    /// Connections that were cut at the end.
    pub(super) unfinished: u64,
    /// Clients that had come and not had their turn when the time was over.
    pub(super) overdue: u64,
    /// The service never answered.
    pub(super) unreached: bool,
    /// What the machine took of the time that was measured.
    pub(super) gaps: Gaps,
}

/// Times of one kind, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many there are.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// 90 % are shorter.
    pub p90: f64,
    /// 99 % are shorter.
    pub p99: f64,
    /// 99.9 % are shorter.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// What they came to in the median window of the run, to which a moment without the machine does nothing.
    pub median_window: MedianWindow,
}

impl Latency {
    fn of(times: &Times, grid: &Grid) -> Self {
        let median_window = times.median_window(grid);
        let times = times.whole();
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        if times.is_empty() {
            return Self { median_window, ..Self::default() };
        }
        Self {
            count: times.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: times.max() as f64 / 1e3,
            median_window,
        }
    }
}

/// What happened a second, in the time that was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Full handshakes.
    pub full_handshakes: f64,
    /// Resumed handshakes.
    pub resumed_handshakes: f64,
    /// Answers.
    pub answers: f64,
    /// Bytes of answers' bodies.
    pub bytes_received: f64,
    /// Bytes of requests' bodies.
    pub bytes_sent: f64,
}

/// What a load came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What each client did.
    pub mode: &'static str,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Connections that were begun, in the whole run.
    pub attempts: u64,
    /// Connections that ended well, in the whole run.
    pub served: u64,
    /// Connections that failed, in the whole run.
    pub failed: u64,
    /// Why they did.
    pub failures: BTreeMap<&'static str, u64>,
    /// What rustls said the first time that TLS failed.
    pub first_tls_error: Option<String>,
    /// Connections that were cut at the end.
    pub unfinished: u64,
    /// Clients that had come and not had their turn at the end, with `--rate`.
    pub overdue: u64,
    /// Connections that were held at the end.
    pub held: usize,
    /// Full handshakes in the time that was measured.
    pub full_handshakes: u64,
    /// Resumed ones.
    pub resumed_handshakes: u64,
    /// Answers.
    pub answers: u64,
    /// Bytes of answers' bodies.
    pub bytes_received: u64,
    /// Bytes of requests' bodies.
    pub bytes_sent: u64,
    /// The same a second; none if too much failed.
    pub per_second: Option<Rates>,
    /// Why no rate is reported.
    pub refused: Option<String>,
    /// From a client's arrival to the end of TCP's handshake.
    pub connect: Latency,
    /// From there to the end of TLS's.
    pub handshake: Latency,
    /// From a client's arrival to the first byte of its first answer.
    pub first_byte: Latency,
    /// From a request to the end of its answer.
    pub answer: Latency,
    /// Milliseconds of the schedule that each window of the [median windows](Latency::median_window) covers.
    pub window_milliseconds: f64,
    /// The share of its time in which the generator had something to do. Near 1 it is what limits the rate.
    pub busy: f64,
    /// Where the generator's clock jumped: what the machine took of the time. It takes as much of the core that is loaded, at other times.
    pub gaps: Gaps,
}

impl Report {
    pub(super) fn new(plan: &Plan, tally: &Tally, run: &Run) -> Self {
        let seconds = run.measured.as_secs_f64();
        let a_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let refused = refusal(tally, run, plan.allow_failures);
        let rates = Rates {
            full_handshakes: a_second(tally.full),
            resumed_handshakes: a_second(tally.resumed),
            answers: a_second(tally.answers),
            bytes_received: a_second(tally.received),
            bytes_sent: a_second(tally.sent),
        };
        let elapsed = run.elapsed.as_secs_f64();
        Self {
            mode: name(plan.mode),
            seconds,
            attempts: tally.attempts,
            served: tally.served,
            failed: tally.failed_total(),
            failures: tally.failures.iter().map(|(failure, count)| (failure.name(), *count)).collect(),
            first_tls_error: tally.first_tls_error.clone(),
            unfinished: run.unfinished,
            overdue: run.overdue,
            held: run.held,
            full_handshakes: tally.full,
            resumed_handshakes: tally.resumed,
            answers: tally.answers,
            bytes_received: tally.received,
            bytes_sent: tally.sent,
            per_second: refused.is_none().then_some(rates),
            refused,
            connect: Latency::of(&tally.connect, &tally.grid),
            handshake: Latency::of(&tally.handshake, &tally.grid),
            first_byte: Latency::of(&tally.first_byte, &tally.grid),
            answer: Latency::of(&tally.answer, &tally.grid),
            window_milliseconds: tally.grid.width().as_secs_f64() * 1e3,
            busy: if elapsed > 0.0 { run.busy.as_secs_f64() / elapsed } else { 0.0 },
            gaps: run.gaps,
        }
    }
}

/// Why there is no rate to report.
fn refusal(tally: &Tally, run: &Run, allow_failures: bool) -> Option<String> {
    let why: Vec<String> =
        tally.failures.iter().map(|(failure, count)| format!("{} {count}", failure.name())).collect();
    let why = why.join(", ");
    if run.unreached {
        let why = if why.is_empty() { "nothing came back".to_owned() } else { why };
        return Some(format!("the service gave no answer at all: {why}"));
    }
    if run.measured.is_zero() {
        return Some("the load was stopped before anything was measured".to_owned());
    }
    let failed = tally.failed_total();
    if allow_failures || failed * 1000 <= tally.attempts * FAILED_PER_MILLE {
        return None;
    }
    Some(format!("{failed} of {} connections failed, more than 0.1 %: {why}", tally.attempts))
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Full => "full",
        Mode::Resumed => "resumed",
        Mode::Requests => "requests",
        Mode::Download => "download",
        Mode::Upload => "upload",
        Mode::Idle => "idle",
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} for {:.1} s, generator {:.0} % busy", self.mode, self.seconds, self.busy * 100.0)?;
        let Gaps { count, milliseconds } = self.gaps;
        writeln!(f, "clock        {count} gaps over 500 µs, together {milliseconds:.1} ms")?;
        writeln!(
            f,
            "connections  {} begun, {} served, {} failed, {} held, {} cut at the end, {} overdue",
            self.attempts, self.served, self.failed, self.held, self.unfinished, self.overdue
        )?;
        for (failure, count) in &self.failures {
            writeln!(f, "  failed     {failure} {count}")?;
        }
        if let Some(error) = &self.first_tls_error {
            writeln!(f, "  first      {error}")?;
        }
        if let Some(rates) = &self.per_second {
            writeln!(f, "handshakes   {:.0} full/s, {:.0} resumed/s", rates.full_handshakes, rates.resumed_handshakes)?;
            writeln!(f, "answers      {:.0}/s", rates.answers)?;
            let (received, sent) = (rates.bytes_received / 1e6, rates.bytes_sent / 1e6);
            writeln!(f, "bodies       {received:.1} MB/s received, {sent:.1} MB/s sent")?;
        }
        writeln!(f, "microseconds       count        p50        p90        p99      p99.9        max")?;
        let rows = [
            ("connect", self.connect),
            ("handshake", self.handshake),
            ("first byte", self.first_byte),
            ("answer", self.answer),
        ];
        for (name, Latency { count, p50, p90, p99, p999, max, .. }) in rows {
            writeln!(f, "{name:12} {count:>11} {p50:>10.0} {p90:>10.0} {p99:>10.0} {p999:>10.0} {max:>10.0}")?;
        }
        writeln!(
            f,
            "median window    windows        p50                   p99      p99.9  of {:.0} ms",
            self.window_milliseconds
        )?;
        for (name, Latency { median_window: MedianWindow { windows, p50, p99, p999 }, .. }) in rows {
            let [p50, p99, p999] =
                [p50, p99, p999].map(|time| time.map_or("-".to_owned(), |time| format!("{time:.0}")));
            writeln!(f, "{name:12} {windows:>11} {p50:>10} {:>10} {p99:>10} {p999:>10}", "")?;
        }
        if let Some(refused) = &self.refused {
            writeln!(f, "NO RATE      {refused}")?;
        }
        Ok(())
    }
}
