//! Replays the TCP dialogues of `tests/tcp/*.pkt` against [`sealane::tcp::Stack`] in virtual time; those under `must-fail/` must fail.
//!
//! `cargo test --test tcp -- NAME` runs those with NAME in their name, `-- --list` prints what each shows, by RFC and section. A file is one test. It runs
//! over IPv4 and then over IPv6 with an MTU that is 20 bytes larger, as its header is, so that segments are equally long; unless it is about one of them.
//!
//! Its first line names the rule, `# RFC 9293 3.5: …`, or several, `# RFC 5681 4.1, RFC 9438 5.8: …`. Every other line may begin with `+seconds`, the time since the line before.
//!
//! | line | meaning |
//! | --- | --- |
//! | `< S. 0:0(0) ack 1 win 1000 <mss 1460>` | the peer sends this. Numbers count from each side's first SYN |
//! | `> . 1:1(0) ack 1` | the engine sends this, then and not before. What is not written (window, options, PSH) may be anything; `<>` is "no options" |
//! | `quiet` | the engine has sent nothing until now |
//! | `listen` `unlisten` `connect` `shutdown` `abort` `unreachable` | calls |
//! | `write 100` `write 100 takes 60` | the call, and how much it takes |
//! | `read 100` | there are so many bytes to read, and they are read |
//! | `expect readable` | the event has come. `accepted connected writable`, `closed finished` and so on likewise, `no readable` for the contrary |
//! | `readable 100` `readable finished` `readable empty` | what there is to read |
//! | `state FIN-WAIT-2` | the connection's state; `state none` when its id is stale |
//! | `count out_of_order 1` | a counter's or gauge's value |
//! | `connect refused in-use` | the call fails |
//! | `unreachable 1001` | an ICMP error that quotes the segment with this number |
//! | `too-big 1001 mtu 1340` | an ICMP error, "packet too big" or "fragmentation needed", that quotes this segment and names this MTU; over IPv6 one that is 20 bytes larger, but for 0 |
//! | `hold`, `release` | nothing is fetched from the engine in between |
//! | `flow 2` | from here on lines are about another peer port |
//! | `source 2`, `source 2 host 9` | from here on lines are about peers at another address: over IPv6 in another /64, and which host in it |
//! | `set time_wait 10` | a setting, before anything else |
//! | `set family ipv6` | it is about this family alone, and its MTU is what it says |
//! | `<! . 1:1(0) ack 1 <raw 2>` | the peer sends this, and it is malformed |
//! | `rto 0.3` `cwnd 10000` `ssthresh 7000` `mss 1300` | what the connection says of itself |
//! | `isn advanced 250000` | by how much this handshake's number is beyond that of the one before |
//!
//! Flags are `S`, `F`, `R`, `P`, `E` (ECE), `W` (CWR), `U` (URG, with `urg 5` for its pointer) and `.` (ACK), or `-` for none. `[ect0]`, `[ect1]` or `[ce]` before them is the IP header's ECN field;
//! without, it is zero, on either side.
//!
//! A SACK option is written `sack 11:21 31:41`, one that has no name here byte by byte, `raw fd 04 12 34`; it goes before the others. Timestamps, SACK and SYN cookies are off unless a script sets them on,
//! and congestion control is NewReno unless it says `set congestion cubic`.
//!
//! Data is the same pattern in both directions, and checked. Timestamps count from the engine's first.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a test may panic")]

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use sealane::base::{Duration, Flow, Instant, Random};
use sealane::tcp::{
    Congestion, ConnectionId, Counters, EcnMode, Event, Readable, Refused, Settings, Stack, State, Token,
};
use sealane::wire::segment::{IPV4_HEADER, IPV6_HEADER};
use sealane::wire::{Flags, Outgoing, Packet, Segment, Seq};

#[path = "tcp/script.rs"]
mod script;

use script::{MARKS, Written};

/// The peer's first sequence number: near the wrap, so that every dialogue crosses it.
const PEER_ISN: Seq = Seq(u32::MAX - 99);
/// How exact times are: the engine's timers tick every millisecond.
const TOLERANCE: Duration = Duration::from_millis(2);

type Outcome<T = ()> = Result<T, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tcp");
    if arguments.iter().any(|argument| argument == "--list") {
        list(&folder);
        return ExitCode::SUCCESS;
    }
    let filter: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let (mut failed, mut passed, mut again) = (0, 0, 0);
    for (files, must_fail) in [(scripts(&folder), false), (scripts(&folder.join("must-fail")), true)] {
        for file in files {
            let name = file.strip_prefix(&folder).unwrap().display().to_string();
            if !filter.is_empty() && !filter.iter().any(|part| name.contains(*part)) {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            let (first, second) = match family_of(&text) {
                Some(family) => (replay(&text, family, false), None),
                None => (replay(&text, Family::Ipv4, false), Some(replay(&text, Family::Ipv6, true))),
            };
            again += usize::from(second.is_some());
            let verdict = if must_fail {
                let all = first.is_err() && second.is_none_or(|second| second.is_err());
                all.then_some(()).ok_or("passed, though it must fail".to_owned())
            } else {
                first.and(second.unwrap_or(Ok(())).map_err(|why| format!("{why}, over IPv6")))
            };
            match verdict {
                Ok(()) => passed += 1,
                Err(why) => {
                    failed += 1;
                    println!("test {name} ... FAILED\n  {}:{why}", file.display());
                }
            }
        }
    }
    println!("\ndialogues: {passed} passed, {again} of them over IPv4 and IPv6; {failed} failed");
    // A wrong folder must not look like success.
    if failed == 0 && (passed > 0 || !filter.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the dialogues show, in the order of RFCs and their sections.
fn list(folder: &Path) {
    let mut lines = Vec::new();
    for file in scripts(folder) {
        let text = std::fs::read_to_string(&file).unwrap();
        let first = text.lines().next().unwrap_or_default();
        let says = first.split_once(": ").map_or("", |(_, says)| says);
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        lines.extend(script::rules(first).into_iter().map(|rule| (rule, format!("{name}: {says}"))));
    }
    lines.sort();
    let mut out = std::io::stdout().lock();
    for ((_, _, rule), line) in lines {
        // Who reads no further is no error.
        if writeln!(out, "{rule:<28} {line}").is_err() {
            return;
        }
    }
}

fn family_of(text: &str) -> Option<Family> {
    let about = text.lines().find_map(|line| line.strip_prefix("set family "))?;
    Some(if about.trim() == "ipv6" { Family::Ipv6 } else { Family::Ipv4 })
}

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "pkt")).collect();
    files.sort();
    files
}

/// With `wide`, segments are as long as over IPv4.
fn replay(text: &str, family: Family, wide: bool) -> Outcome {
    let first = text.lines().next().unwrap_or_default();
    if script::rules(first).is_empty() {
        return Err("1: the first line must name an RFC section".to_owned());
    }
    let mut settings = Settings {
        timestamps: false,
        sack: false,
        syn_cookies: false,
        congestion: Congestion::NewReno,
        receive_buffer: 65_535,
        send_buffer: 65_535,
        time_wait: Duration::from_secs(60),
        ..Settings::default()
    };
    let mut world = None;
    let mut last = 0;
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap().trim();
        if line.is_empty() {
            continue;
        }
        last = number + 1;
        let at = |why: String| format!("{last}: {line}\n    {why}");
        if let Some(setting) = line.strip_prefix("set ") {
            if world.is_some() {
                return Err(at("settings come first".to_owned()));
            }
            set(&mut settings, setting).map_err(at)?;
        } else {
            world.get_or_insert_with(|| World::new(settings.clone(), family, wide)).line(line).map_err(at)?;
        }
    }
    world.ok_or("nothing in it".to_owned())?.end().map_err(|why| format!("{last}: end of file\n    {why}"))
}

fn set(settings: &mut Settings, line: &str) -> Outcome {
    let (name, value) = line.split_once(' ').ok_or("a setting has a value")?;
    let seconds = || value.parse().map(Duration::from_secs_f64).map_err(|_| "seconds expected");
    let count = || value.parse::<usize>().map_err(|_| "a number expected");
    match name {
        "connections_max" => settings.connections_max = count()?,
        "half_open_max" => settings.half_open_max = count()?,
        "source_connections_max" => settings.source_connections_max = Some(count()? as u32),
        "source_connections_per_second" => settings.source_connections_per_second = Some(count()? as u32),
        "source_half_open_max" => settings.source_half_open_max = Some(count()? as u32),
        "time_wait_max" => settings.time_wait_max = count()?,
        "receive_buffer" => settings.receive_buffer = count()?,
        "send_buffer" => settings.send_buffer = count()?,
        "memory_max" => settings.memory_max = count()?,
        "time_wait" => settings.time_wait = seconds()?,
        "keepalive" => settings.keepalive = Some(seconds()?),
        "keepalive_interval" => settings.keepalive_interval = seconds()?,
        "keepalive_probes" => settings.keepalive_probes = count()? as u32,
        "user_timeout" => settings.user_timeout = seconds()?,
        "mtu" => settings.mtu = count()?,
        "timestamps" => settings.timestamps = value == "on",
        "sack" => settings.sack = value == "on",
        "syn_cookies" => settings.syn_cookies = value == "on",
        "family" if ["ipv4", "ipv6"].contains(&value) => {}
        "congestion" => {
            settings.congestion = match value {
                "cubic" => Congestion::Cubic,
                "newreno" => Congestion::NewReno,
                _ => return Err(format!("no congestion control {value}")),
            }
        }
        "ecn" => {
            settings.ecn = match value {
                "off" => EcnMode::Off,
                "accept" => EcnMode::Accept,
                "offer" => EcnMode::Offer,
                _ => return Err(format!("no mode of ECN {value}")),
            }
        }
        "mtu_probing" => settings.mtu_probing = value == "on",
        "resets_per_second" => settings.resets_per_second = count()? as u32,
        _ => return Err(format!("no setting {name}")),
    }
    Ok(())
}

/// One peer port: what the numbers of the script count from, and the connection.
#[derive(Default)]
struct Peer {
    id: Option<ConnectionId>,
    isn: Option<Seq>,
    /// The one of the handshake before.
    isn_before: Option<Seq>,
    clock: Option<u32>,
    events: VecDeque<Event>,
    written: usize,
    read: usize,
}

struct World {
    stack: Stack,
    counters: Arc<Counters>,
    now: Instant,
    peers: BTreeMap<SocketAddr, Peer>,
    current: SocketAddr,
    sent: VecDeque<(Instant, Vec<u8>)>,
    family: Family,
    mtu: usize,
    /// By how much packets are longer than the script says.
    wider: u32,
    held: bool,
}

fn pattern(offset: usize) -> u8 {
    (offset.wrapping_mul(31) >> 3) as u8
}

fn bytes(offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len).map(pattern).collect()
}

impl World {
    fn new(mut settings: Settings, family: Family, wide: bool) -> Self {
        let counters = Arc::new(Counters::default());
        let wider = if wide { IPV6_HEADER - IPV4_HEADER } else { 0 };
        settings.mtu += wider;
        let mtu = settings.mtu;
        let current = (address(family, 1, 2), 50_001).into();
        Self {
            stack: Stack::new(settings, Random::from_seed(1), counters.clone()),
            counters,
            now: Instant::START + Duration::from_secs(100),
            peers: BTreeMap::new(),
            current,
            sent: VecDeque::new(),
            family,
            mtu,
            wider: wider as u32,
            held: false,
        }
    }

    fn local(&self) -> SocketAddr {
        (address(self.family, 1, 1), 443).into()
    }

    fn flow(&self) -> Flow {
        Flow::new(self.local(), self.current)
    }

    fn peer(&mut self) -> &mut Peer {
        self.peers.entry(self.current).or_default()
    }

    fn id(&mut self) -> Outcome<ConnectionId> {
        self.peer().id.ok_or("there is no connection yet".to_owned())
    }

    /// Fetches what the engine wants to say now.
    fn drain(&mut self) -> Outcome {
        for _ in 0..if self.held { 0 } else { 100_000 } {
            let mut room = vec![0; self.mtu];
            let Some(len) = self.stack.poll_transmit(&mut room, false, self.now) else { break };
            room.truncate(len);
            self.sent.push_back((self.now, room));
        }
        for _ in 0..100_000 {
            let Some((id, _, event)) = self.stack.poll_event() else { return Ok(()) };
            let known = self.peers.iter().find(|(_, peer)| peer.id == Some(id)).map(|(remote, _)| *remote);
            let remote = match (known, self.stack.flow(id)) {
                (Some(remote), _) => remote,
                (None, Some(flow)) => flow.remote(),
                (None, None) => return Err(format!("{event:?} of an unknown connection")),
            };
            let peer = self.peers.entry(remote).or_default();
            peer.id = Some(id);
            peer.events.push_back(event);
        }
        Err("the engine does not become quiet".to_owned())
    }

    /// Lets time pass until `target`, or until the engine sends something when `stop` says so.
    fn pass(&mut self, target: Instant, stop: bool) -> Outcome {
        for _ in 0..100_000 {
            self.drain()?;
            if stop && !self.sent.is_empty() {
                return Ok(());
            }
            match self.stack.poll_at() {
                Some(at) if at <= target => {
                    self.now = self.now.max(at);
                    self.stack.on_timeout(self.now);
                }
                _ => {
                    self.now = target;
                    self.stack.on_timeout(self.now);
                    return self.drain();
                }
            }
        }
        Err("timers never end".to_owned())
    }

    fn line(&mut self, line: &str) -> Outcome {
        let (target, rest) = match line.strip_prefix('+') {
            Some(timed) => {
                let (seconds, rest) = timed.split_once(' ').unwrap_or((timed, "quiet"));
                let seconds = seconds.parse().map_err(|_| "seconds expected behind +")?;
                (self.now + Duration::from_secs_f64(seconds), rest.trim())
            }
            None => (self.now, line),
        };
        if let Some(expected) = rest.strip_prefix("> ") {
            return self.expect_segment(expected, target);
        }
        if let Some(which) = rest.strip_prefix("flow ") {
            let port: u16 = which.parse().map_err(|_| "a number expected")?;
            self.current.set_port(50_000 + port);
            return self.pass(target, false);
        }
        if let Some(which) = rest.strip_prefix("source ") {
            let (network, host) = which.split_once(" host ").unwrap_or((which, "2"));
            let [network, host] = [network, host].map(|number| number.parse().map_err(|_| "a number expected"));
            self.current.set_ip(address(self.family, network?, host?));
            return self.pass(target, false);
        }
        self.pass(target, false)?;
        if let Some((at, sent)) = self.sent.front() {
            let early = self.now.since(*at);
            return Err(format!("unexpected, {early:?} ago: {}", self.describe(&sent.clone())));
        }
        if let Some(segment) = rest.strip_prefix("< ") {
            self.deliver(segment)??;
        } else if let Some(segment) = rest.strip_prefix("<! ") {
            self.deliver(segment)?.err().ok_or("it is well formed")?;
        } else {
            self.call(rest)?;
        }
        self.drain()
    }

    fn call(&mut self, line: &str) -> Outcome {
        let words: Vec<&str> = line.split_whitespace().collect();
        let now = self.now;
        let number = |word: &str| word.parse::<usize>().map_err(|_| format!("a number expected, not {word}"));
        match words[..] {
            ["quiet"] => {}
            ["hold"] => self.held = true,
            ["release"] => self.held = false,
            ["listen"] => self.stack.listen(self.local(), Token(7)).map_err(|why| format!("{why:?}"))?,
            ["unlisten"] => self.stack.unlisten(self.local()),
            ["connect"] => {
                let id = self.stack.connect(self.flow(), Token(8), now).map_err(|why| format!("{why:?}"))?;
                let isn = self.peer().isn;
                *self.peer() = Peer { id: Some(id), isn, ..Peer::default() };
            }
            ["connect", "refused", why] => {
                let expected = match why {
                    "in-use" => Refused::InUse,
                    "table-full" => Refused::TableFull,
                    _ => return Err(format!("no refusal {why}")),
                };
                let got = self.stack.connect(self.flow(), Token(8), now);
                same(&Err(expected), &got)?;
            }
            ["write", len] => self.write(number(len)?, number(len)?)?,
            ["write", len, "takes", taken] => self.write(number(len)?, number(taken)?)?,
            ["read", len] => self.read(number(len)?)?,
            ["shutdown"] => {
                let id = self.id()?;
                self.stack.shutdown(id, now);
            }
            ["abort"] => {
                let id = self.id()?;
                self.stack.abort(id, now);
            }
            ["unreachable"] => {
                let flow = self.flow();
                self.stack.on_unreachable(&flow, now);
            }
            ["unreachable", seq] => {
                let flow = self.flow();
                let seq = self.peer().isn.unwrap_or_default() + number(seq)? as u32;
                self.stack.on_unreachable_segment(&flow, seq, now);
            }
            ["too-big", seq, "mtu", mtu] => {
                let flow = self.flow();
                let seq = self.peer().isn.unwrap_or_default() + number(seq)? as u32;
                let mtu = number(mtu)? as u32;
                self.stack.on_packet_too_big(&flow, seq, if mtu > 0 { mtu + self.wider } else { 0 }, now);
            }
            ["expect", "no", kind] => {
                if self.peer().events.iter().any(|event| name(*event).starts_with(kind)) {
                    return Err(format!("there is: {:?}", self.peer().events));
                }
            }
            ["expect", ref kind @ ..] => {
                let kind = kind.join(" ");
                let events = &mut self.peer().events;
                let place = events.iter().position(|event| name(*event) == kind);
                let place = place.ok_or_else(|| format!("got {events:?}"))?;
                events.remove(place);
            }
            ["readable", what] => self.readable(what)?,
            ["state", what] => {
                let id = self.id()?;
                let got = self.stack.state(id).map_or("none", State::name);
                same(&what, &got)?;
            }
            ["count", which, value] => {
                let mut got = None;
                self.counters.read(&mut |reading| {
                    if reading.name == which {
                        got = Some(reading.value as usize);
                    }
                });
                same(&Some(number(value)?), &got)?;
            }
            [what @ ("cwnd" | "ssthresh" | "mss" | "rto"), value] => self.inside(what, value)?,
            ["isn", "advanced", by] => {
                let (expected, peer) = (number(by)? as u32, self.peer());
                let (isn, before) = peer.isn.zip(peer.isn_before).ok_or("there were no two handshakes")?;
                // It counts every 4 microseconds.
                if isn.since(before).abs_diff(expected) > 1000 {
                    return Err(format!("it advanced by {}", isn.since(before)));
                }
            }
            ["unacknowledged", value] => {
                let id = self.id()?;
                same(&number(value)?, &self.stack.unacknowledged(id))?;
            }
            _ => return Err("not understood".to_owned()),
        }
        Ok(())
    }

    /// What the connection says of itself.
    fn inside(&mut self, what: &str, value: &str) -> Outcome {
        let id = self.id()?;
        let inside = self.stack.inspect(id).ok_or("the connection is gone")?;
        let got = match what {
            "cwnd" => inside.cwnd,
            "mss" => inside.mss,
            "ssthresh" => inside.ssthresh,
            _ => {
                let expected = Duration::from_secs_f64(value.parse().map_err(|_| "seconds expected")?);
                let near = expected.abs_diff(inside.rto) <= TOLERANCE;
                return if near { Ok(()) } else { Err(format!("it is {:?}", inside.rto)) };
            }
        };
        same(&value, &got.to_string().as_str())
    }

    fn write(&mut self, len: usize, takes: usize) -> Outcome {
        let (id, now) = (self.id()?, self.now);
        let data = bytes(self.peer().written, len);
        let taken = self.stack.write(id, &data, now);
        self.peer().written += taken;
        same(&takes, &taken)
    }

    fn read(&mut self, len: usize) -> Outcome {
        let (id, now) = (self.id()?, self.now);
        let mut left = len;
        while left > 0 {
            let Readable::Data(data) = self.stack.readable(id) else {
                return Err(format!("{} bytes less: {:?}", left, self.stack.readable(id)));
            };
            let data = data[..data.len().min(left)].to_vec();
            if data != bytes(self.peer().read, data.len()) {
                return Err("the data is not what was sent".to_owned());
            }
            self.stack.consume(id, data.len(), now);
            self.peer().read += data.len();
            left -= data.len();
        }
        Ok(())
    }

    fn readable(&mut self, what: &str) -> Outcome {
        let id = self.id()?;
        let got = match self.stack.readable(id) {
            Readable::Data(data) => data.len().to_string(),
            Readable::Empty => "empty".to_owned(),
            Readable::Finished => "finished".to_owned(),
        };
        same(&what, &got.as_str())
    }

    /// The inner outcome is that of the parser.
    fn deliver(&mut self, text: &str) -> Outcome<Outcome> {
        let written = Written::parse(text)?;
        let peer = self.peer();
        let (isn, clock) = (peer.isn.unwrap_or_default(), peer.clock.unwrap_or_default());
        let mut options = written.options.unwrap_or_default();
        if let Some(timestamp) = &mut options.timestamp {
            timestamp.echo = if timestamp.echo == 0 { 0 } else { clock.wrapping_add(timestamp.echo) };
        }
        for (left, right) in options.sack.iter_mut().flatten() {
            (*left, *right) = (isn + left.0, isn + right.0);
        }
        let start = (written.seq as usize).wrapping_sub(usize::from(!written.flags.syn));
        let payload: Vec<u8> = (0..written.len).map(|at| pattern(start.wrapping_add(at))).collect();
        let seq = PEER_ISN + written.seq;
        let ack = written.ack.map(|ack| isn + ack);
        let window = written.window.unwrap_or(65_535);
        // Through bytes and back, so that what is tested is what a wire would carry.
        let reversed = self.flow().reversed();
        let mut room = vec![0; 66_000];
        let (flags, ecn) = (written.flags, written.ecn);
        let outgoing = Outgoing { flow: &reversed, seq, ack, flags, window, options, ecn, payload: &[&payload] };
        let len = outgoing.emit(&mut room, false).ok_or("too long for a packet")?;
        let bytes = script::disfigure(&room[..len], &written.raw, written.urgent);
        Ok(match Segment::parse(&packet(&bytes), false) {
            Ok((flow, segment)) => {
                self.stack.on_segment(&flow, &segment, self.now);
                Ok(())
            }
            Err(why) => Err(format!("{why:?}")),
        })
    }

    fn expect_segment(&mut self, text: &str, target: Instant) -> Outcome {
        let written = Written::parse(text)?;
        self.pass(target + TOLERANCE, true)?;
        let Some((at, sent)) = self.sent.pop_front() else {
            return Err("nothing was sent".to_owned());
        };
        let got = self.describe(&sent);
        if at.max(target).since(at.min(target)) > TOLERANCE {
            return Err(format!(
                "at {:?} instead of {:?}: {got}",
                at.since(Instant::START),
                target.since(Instant::START)
            ));
        }
        // Time goes on from where the script says, however the ticks fell.
        self.now = at.max(self.now);
        let packet = packet(&sent);
        let (flow, segment) = Segment::parse(&packet, false).map_err(|why| format!("{why:?}"))?;
        let differs = |what: &str| Err(format!("{what} differs: {got}"));
        // RFC 1191 3: a packet that could be fragmented on its way would find out nothing. IPv6 knows no other packets.
        if sent[0] >> 4 == 4 && sent[6] & 0x40 == 0 {
            return differs("\"don't fragment\"");
        }
        if flow.reversed() != self.flow() {
            return differs("flow");
        }
        let peer = self.peer();
        if segment.flags.syn && peer.isn != Some(segment.seq) {
            peer.isn_before = peer.isn.replace(segment.seq);
        }
        if let (Some(timestamp), None) = (segment.options.timestamp, peer.clock) {
            peer.clock = Some(timestamp.value);
        }
        let isn = peer.isn.unwrap_or_default();
        let mut flags = segment.flags;
        flags.psh &= written.flags.psh;
        if flags != written.flags || segment.ack.is_some() != written.ack.is_some() {
            return differs("flags");
        }
        if segment.ecn != written.ecn {
            return differs("the ECN field");
        }
        if segment.seq != isn + written.seq || segment.payload.len() != written.len {
            return differs("sequence");
        }
        if written.ack.is_some_and(|ack| segment.ack != Some(PEER_ISN + ack)) {
            return differs("acknowledgement");
        }
        if written.window.is_some_and(|window| window != segment.window) {
            return differs("window");
        }
        if let Some(mut options) = written.options {
            if let Some(timestamp) = &mut options.timestamp {
                timestamp.value = timestamp.value.wrapping_add(peer.clock.unwrap_or_default());
            }
            for (left, right) in options.sack.iter_mut().flatten() {
                (*left, *right) = (PEER_ISN + left.0, PEER_ISN + right.0);
            }
            if options != segment.options {
                return differs("options");
            }
        }
        let offset = (written.seq as usize).wrapping_sub(1);
        let data = (0..written.len).map(|at| pattern(offset.wrapping_add(at)));
        if !segment.payload.iter().copied().eq(data) {
            return differs("data");
        }
        Ok(())
    }

    fn describe(&mut self, sent: &[u8]) -> String {
        let (flow, segment) = Segment::parse(&packet(sent), false).unwrap();
        let remote = flow.local();
        let peer = self.peers.entry(remote).or_default();
        let isn = if segment.flags.syn { segment.seq } else { peer.isn.unwrap_or_default() };
        let Flags { syn, fin, rst, psh, ece, cwr } = segment.flags;
        let ack = segment.ack.is_some();
        let letters = [(syn, 'S'), (fin, 'F'), (rst, 'R'), (psh, 'P'), (ece, 'E'), (cwr, 'W'), (ack, '.')];
        let letters: String = letters.iter().filter(|(on, _)| *on).map(|(_, letter)| *letter).collect();
        let seq = segment.seq.since(isn);
        let len = segment.payload.len();
        let ack = segment.ack.map(|ack| format!(" ack {}", ack.since(PEER_ISN))).unwrap_or_default();
        let end = seq.wrapping_add(len as u32);
        let mark = MARKS.iter().find(|(_, ecn)| *ecn == segment.ecn).map_or("", |(mark, _)| mark);
        format!("to {remote}: {mark} {letters} {seq}:{end}({len}){ack} win {} {:?}", segment.window, segment.options)
    }

    fn end(mut self) -> Outcome {
        self.drain()?;
        if let Some((_, sent)) = self.sent.pop_front() {
            return Err(format!("unexpected: {}", self.describe(&sent)));
        }
        for (remote, peer) in &self.peers {
            if let Some(event) = peer.events.iter().find(|event| matches!(event, Event::Closed(_))) {
                return Err(format!("{remote}: nobody expected {event:?}"));
            }
        }
        Ok(())
    }
}

fn address(family: Family, network: u8, host: u8) -> IpAddr {
    match family {
        Family::Ipv4 => [198, 18, network - 1, host].into(),
        Family::Ipv6 => [0x2001, 0xdb8, 0, u16::from(network) - 1, 0, 0, 0, host.into()].into(),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(expected: &T, got: &T) -> Outcome {
    if expected == got { Ok(()) } else { Err(format!("expected {expected:?}, got {got:?}")) }
}

fn name(event: Event) -> String {
    match event {
        Event::Closed(how) => format!("closed {how:?}").to_lowercase(),
        Event::Accepted | Event::Connected | Event::Readable | Event::Writable => format!("{event:?}").to_lowercase(),
    }
}

fn packet(bytes: &[u8]) -> Packet<'_> {
    Packet::parse(bytes, false).unwrap()
}
