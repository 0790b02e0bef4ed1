//! Replays the TCP dialogues of `tests/tcp/*.pkt` against [`sealane::tcp::Stack`] in virtual time; those under `must-fail/` must fail.
//!
//! A file is one test. Its first line names the rule, `# RFC 9293 3.5: …`. Every other line may begin with `+seconds`, the time since the line before.
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
//! | `hold`, `release` | nothing is fetched from the engine in between |
//! | `flow 2` | from here on lines are about another peer port |
//! | `set time_wait 10` | a setting, before anything else |
//!
//! Flags are `S`, `F`, `R`, `P`, `E` (ECE), `W` (CWR) and `.` (ACK), or `-` for none. `[ect0]`, `[ect1]` or `[ce]` before them is the IP header's ECN field;
//! without, it is zero, on either side.
//!
//! A SACK option is written `sack 11:21 31:41`. Timestamps, SACK and SYN cookies are off unless a script sets them on,
//! and congestion control is NewReno unless it says `set congestion cubic`. `cwnd 10000` and `ssthresh 7000` are what the connection says of itself.
//!
//! Data is the same pattern in both directions, and checked. Timestamps count from the engine's first.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a test may panic")]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use sealane::base::{Duration, Flow, Instant, Random};
use sealane::tcp::{
    Congestion, ConnectionId, Counters, EcnMode, Event, Readable, Refused, Settings, Stack, State, Token,
};
use sealane::wire::{Ecn, Flags, Outgoing, Packet, Segment, SegmentOptions, Seq, Timestamp};

/// The peer's first sequence number: near the wrap, so that every dialogue crosses it.
const PEER_ISN: Seq = Seq(u32::MAX - 99);
/// How exact times are: the engine's timers tick every millisecond.
const TOLERANCE: Duration = Duration::from_millis(2);

type Outcome<T = ()> = Result<T, String>;

fn main() -> ExitCode {
    let filter: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tcp");
    let mut failed = 0;
    let mut passed = 0;
    for (files, must_fail) in [(scripts(&folder), false), (scripts(&folder.join("must-fail")), true)] {
        for file in files {
            let name = file.strip_prefix(&folder).unwrap().display().to_string();
            if !filter.is_empty() && !filter.iter().any(|part| name.contains(part)) {
                continue;
            }
            let outcome = replay(&std::fs::read_to_string(&file).unwrap());
            let verdict = match (outcome, must_fail) {
                (Ok(()), false) | (Err(_), true) => Ok(()),
                (Ok(()), true) => Err("passed, though it must fail".to_owned()),
                (Err(why), false) => Err(why),
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
    println!("\ndialogues: {passed} passed; {failed} failed");
    // A wrong folder must not look like success.
    if failed == 0 && (passed > 0 || !filter.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "pkt")).collect();
    files.sort();
    files
}

fn replay(text: &str) -> Outcome {
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("# RFC ") {
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
            world.get_or_insert_with(|| World::new(settings.clone())).line(line).map_err(at)?;
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
    clock: Option<u32>,
    events: VecDeque<Event>,
    written: usize,
    read: usize,
}

struct World {
    stack: Stack,
    counters: Arc<Counters>,
    now: Instant,
    peers: BTreeMap<u16, Peer>,
    current: u16,
    sent: VecDeque<(Instant, Vec<u8>)>,
    mtu: usize,
    held: bool,
}

fn pattern(offset: usize) -> u8 {
    (offset.wrapping_mul(31) >> 3) as u8
}

fn bytes(offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len).map(pattern).collect()
}

impl World {
    fn new(settings: Settings) -> Self {
        let counters = Arc::new(Counters::default());
        let mtu = settings.mtu;
        Self {
            stack: Stack::new(settings, Random::from_seed(1), counters.clone()),
            counters,
            now: Instant::START + Duration::from_secs(100),
            peers: BTreeMap::new(),
            current: 1,
            sent: VecDeque::new(),
            mtu,
            held: false,
        }
    }

    fn local() -> SocketAddr {
        ([198, 18, 0, 1], 443).into()
    }

    fn flow(&self) -> Flow {
        Flow::new(Self::local(), ([198, 18, 0, 2], 50_000 + self.current).into())
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
            let known = self.peers.iter().find(|(_, peer)| peer.id == Some(id)).map(|(port, _)| *port);
            let port = match (known, self.stack.flow(id)) {
                (Some(port), _) => port,
                (None, Some(flow)) => flow.remote().port() - 50_000,
                (None, None) => return Err(format!("{event:?} of an unknown connection")),
            };
            let peer = self.peers.entry(port).or_default();
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
            self.current = which.parse().map_err(|_| "a number expected")?;
            return self.pass(target, false);
        }
        self.pass(target, false)?;
        if let Some((at, sent)) = self.sent.front() {
            let early = self.now.since(*at);
            return Err(format!("unexpected, {early:?} ago: {}", self.describe(&sent.clone())));
        }
        if let Some(segment) = rest.strip_prefix("< ") {
            self.deliver(segment)?;
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
            ["listen"] => self.stack.listen(Self::local(), Token(7)).map_err(|why| format!("{why:?}"))?,
            ["unlisten"] => self.stack.unlisten(Self::local()),
            ["connect"] => {
                let id = self.stack.connect(self.flow(), Token(8), now).map_err(|why| format!("{why:?}"))?;
                *self.peer() = Peer { id: Some(id), ..Peer::default() };
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
            ["cwnd" | "ssthresh", value] => {
                let id = self.id()?;
                let inside = self.stack.inspect(id).ok_or("the connection is gone")?;
                let got = if words[0] == "cwnd" { inside.cwnd } else { inside.ssthresh };
                same(&number(value)?, &(got as usize))?;
            }
            ["unacknowledged", value] => {
                let id = self.id()?;
                same(&number(value)?, &self.stack.unacknowledged(id))?;
            }
            _ => return Err("not understood".to_owned()),
        }
        Ok(())
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

    fn deliver(&mut self, text: &str) -> Outcome {
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
        let outgoing = Outgoing { flow: &reversed, seq, ack, flags, window, options, ecn, payload: (&payload, &[]) };
        let len = outgoing.emit(&mut room, false).ok_or("too long for a packet")?;
        let (flow, segment) = Segment::parse(&packet(&room[..len]), false).map_err(|why| format!("{why:?}"))?;
        self.stack.on_segment(&flow, &segment, self.now);
        Ok(())
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
        if flow.reversed() != self.flow() {
            return differs("flow");
        }
        let peer = self.peer();
        if segment.flags.syn {
            peer.isn = Some(segment.seq);
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
        let port = flow.local().port() - 50_000;
        let peer = self.peers.entry(port).or_default();
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
        format!("flow {port}: {mark} {letters} {seq}:{end}({len}){ack} win {} {:?}", segment.window, segment.options)
    }

    fn end(mut self) -> Outcome {
        self.drain()?;
        if let Some((_, sent)) = self.sent.pop_front() {
            return Err(format!("unexpected: {}", self.describe(&sent)));
        }
        for (port, peer) in &self.peers {
            if let Some(event) = peer.events.iter().find(|event| matches!(event, Event::Closed(_))) {
                return Err(format!("flow {port}: nobody expected {event:?}"));
            }
        }
        Ok(())
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

/// How scripts write the ECN field.
const MARKS: [(&str, Ecn); 3] = [("[ect1]", Ecn::Ect1), ("[ect0]", Ecn::Ect0), ("[ce]", Ecn::Ce)];

/// A segment as a script writes it.
struct Written {
    ecn: Ecn,
    flags: Flags,
    seq: u32,
    len: usize,
    ack: Option<u32>,
    window: Option<u16>,
    options: Option<SegmentOptions>,
}

impl Written {
    fn parse(text: &str) -> Outcome<Self> {
        let (head, options) = match text.split_once('<') {
            Some((head, options)) => {
                let list = options.strip_suffix('>').ok_or("> expected")?;
                (head, Some(parse_options(list)?))
            }
            None => (text, None),
        };
        let mut words = head.split_whitespace();
        let mut letters = words.next().ok_or("flags expected")?;
        let mark = MARKS.iter().find(|(mark, _)| *mark == letters);
        if mark.is_some() {
            letters = words.next().ok_or("flags expected")?;
        }
        let ecn = mark.map_or(Ecn::NotEct, |(_, ecn)| *ecn);
        let mut flags = Flags::default();
        for letter in letters.chars() {
            match letter {
                'S' => flags.syn = true,
                'F' => flags.fin = true,
                'R' => flags.rst = true,
                'P' => flags.psh = true,
                'E' => flags.ece = true,
                'W' => flags.cwr = true,
                '.' | '-' => {}
                _ => return Err(format!("no flag {letter}")),
            }
        }
        let range = words.next().ok_or("first:last(length) expected")?;
        let (seq, len) = parse_range(range).ok_or_else(|| format!("first:last(length) expected, not {range}"))?;
        let mut written = Self { ecn, flags, seq, len, ack: None, window: None, options };
        while let Some(word) = words.next() {
            let value: u32 = words.next().and_then(|value| value.parse().ok()).ok_or("a number expected")?;
            match word {
                "ack" => written.ack = Some(value),
                "win" => written.window = Some(u16::try_from(value).map_err(|_| "the field has 16 bits")?),
                _ => return Err(format!("no field {word}")),
            }
        }
        if letters.contains('.') != written.ack.is_some() {
            return Err("`.` and `ack` go together".to_owned());
        }
        Ok(written)
    }
}

fn parse_range(text: &str) -> Option<(u32, usize)> {
    let (first, rest) = text.split_once(':')?;
    let (last, len) = rest.strip_suffix(')')?.split_once('(')?;
    let (first, last, len): (i64, i64, i64) = (first.parse().ok()?, last.parse().ok()?, len.parse().ok()?);
    (last - first == len).then_some(((first & 0xffff_ffff) as u32, len as usize))
}

fn parse_options(list: &str) -> Outcome<SegmentOptions> {
    let mut options = SegmentOptions::default();
    for option in list.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        let words: Vec<&str> = option.split_whitespace().collect();
        let number = |word: &str| word.parse::<u32>().map_err(|_| format!("a number expected, not {word}"));
        match words[..] {
            ["mss", mss] => options.mss = Some(number(mss)? as u16),
            ["wscale", shift] => options.window_scale = Some(number(shift)? as u8),
            ["sackOK"] => options.sack_permitted = true,
            ["ts", value, echo] => options.timestamp = Some(Timestamp { value: number(value)?, echo: number(echo)? }),
            ["sack", ref ranges @ ..] if ranges.len() <= 4 => {
                for (block, range) in options.sack.iter_mut().zip(ranges) {
                    let (left, right) = range.split_once(':').ok_or("left:right expected")?;
                    *block = Some((Seq(number(left)?), Seq(number(right)?)));
                }
            }
            _ => return Err(format!("no option {option}")),
        }
    }
    Ok(options)
}
