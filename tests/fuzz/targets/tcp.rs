//! Feeds one `tcp::Stack` segments that are nearly right, calls of its user, and time.
//!
//! Every table, buffer and timer keeps its bound, `poll_transmit` and `poll_event` end, what is sent is a right segment, no connection is
//! forgotten, and nothing is left once all is closed.

#![no_main]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sealane::base::{Duration, Flow, Instant, Random};
use sealane::tcp::{ConnectionId, Counters, Event, Readable, Settings, Stack, Token};
use sealane::wire::{Ecn, Flags, Packet, Segment, SegmentOptions, Seq, Timestamp};

const LOCAL: ([u8; 4], u16) = ([198, 18, 0, 1], 443);
const PORTS: u8 = 8;
const PAYLOAD: [u8; 1460] = [0x5a; 1460];
const CONNECTIONS_MAX: u64 = 6;
const HALF_OPEN_MAX: u64 = 3;
const TIME_WAIT_MAX: u64 = 2;
const BUFFER: u32 = 3000;
/// A buffer's memory grows in powers of two.
const BUFFER_MEMORY: u64 = 4096;
/// Replies that wait, and what all connections may have in flight in the smallest segments.
const TRANSMIT_MAX: usize = 1024 + 6 * 3000;

#[derive(Arbitrary, Debug)]
enum Action {
    Segment {
        port: u8,
        seq: Near,
        ack: Option<Near>,
        flags: u8,
        window: u16,
        options: Options,
        payload: u16,
    },
    Connect {
        port: u8,
    },
    Write {
        connection: u8,
        len: u16,
    },
    Consume {
        connection: u8,
        len: u16,
    },
    Shutdown {
        connection: u8,
    },
    Abort {
        connection: u8,
    },
    Unreachable {
        port: u8,
    },
    /// A message that a packet was too big, about what is so far behind what comes next.
    PacketTooBig {
        port: u8,
        behind: u16,
        mtu: u16,
    },
    Wait {
        millis: u16,
    },
    /// Nothing is sent and no event fetched until the next one of these.
    Hold,
    Go,
}

/// A number relative to what the peer would say.
#[derive(Arbitrary, Debug)]
enum Near {
    Right,
    Off(i16),
    Anywhere(u32),
}

#[derive(Arbitrary, Debug)]
struct Options {
    mss: Option<u16>,
    window_scale: Option<u8>,
    sack_permitted: bool,
    sack: Option<[(i16, u16); 3]>,
    timestamp: Option<(i16, u32)>,
}

#[derive(Arbitrary, Debug)]
struct Input {
    timestamps: bool,
    keepalive: bool,
    small_mtu: bool,
    actions: Vec<Action>,
}

struct Bench {
    stack: Stack,
    counters: Arc<Counters>,
    now: Instant,
    holds: bool,
    live: Vec<ConnectionId>,
    /// What the stack has last said to each peer: its next sequence number, and what it has acknowledged.
    said: BTreeMap<u8, (Seq, Seq)>,
}

fuzz_target!(|input: Input| {
    let mut bench = Bench::new(&input);
    for action in input.actions {
        bench.act(&action);
        bench.stack.on_timeout(bench.now);
        assert!(bench.stack.poll_at().is_none_or(|at| at > bench.now), "a timer stands still");
        if !bench.holds {
            bench.drain();
        }
        bench.check();
    }
    bench.end();
});

fn flow(port: u8) -> Flow {
    Flow::new(LOCAL.into(), ([198, 18, 0, 2], u16::from(port % PORTS) + 1).into())
}

impl Near {
    fn to(&self, right: Seq) -> Seq {
        match self {
            Self::Right => right,
            Self::Off(by) => Seq(right.0.wrapping_add_signed((*by).into())),
            Self::Anywhere(seq) => Seq(*seq),
        }
    }
}

impl Bench {
    fn new(input: &Input) -> Self {
        let counters = Arc::new(Counters::default());
        let settings = Settings {
            connections_max: CONNECTIONS_MAX as usize,
            half_open_max: HALF_OPEN_MAX as usize,
            time_wait_max: TIME_WAIT_MAX as usize,
            receive_buffer: BUFFER as usize,
            send_buffer: BUFFER as usize,
            keepalive: input.keepalive.then_some(Duration::from_secs(5)),
            user_timeout: Duration::from_secs(20),
            mtu: if input.small_mtu { 576 } else { 1500 },
            timestamps: input.timestamps,
            ..Settings::default()
        };
        let mut stack = Stack::new(settings, Random::from_seed(1), Arc::clone(&counters));
        stack.listen(SocketAddr::from(LOCAL), Token(0)).expect("nobody listens yet");
        Self { stack, counters, now: Instant::START, holds: false, live: Vec::new(), said: BTreeMap::new() }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Segment { port, seq, ack, flags, window, options, payload } => {
                let (next, acknowledged) = self.said.get(&(port % PORTS)).copied().unwrap_or_default();
                let seq = seq.to(acknowledged);
                let segment = Segment {
                    seq,
                    ack: ack.as_ref().map(|ack| ack.to(next)),
                    flags: Flags {
                        syn: flags & 1 != 0,
                        fin: flags & 2 != 0,
                        rst: flags & 12 == 12,
                        psh: flags & 16 != 0,
                        ece: flags & 32 != 0,
                        cwr: flags & 64 != 0,
                    },
                    window: *window,
                    options: self.options(options, next),
                    ecn: Ecn::of(*flags >> 2),
                    payload: &PAYLOAD[..usize::from(*payload) % (PAYLOAD.len() + 1)],
                };
                self.stack.on_segment(&flow(*port), &segment, self.now);
            }
            Action::Connect { port } => self.live.extend(self.stack.connect(flow(*port), Token(1), self.now)),
            Action::Write { connection, len } => {
                let Some(id) = self.pick(*connection) else { return };
                let room = self.stack.writable(id);
                let bytes = &PAYLOAD[..usize::from(*len) % PAYLOAD.len()];
                assert_eq!(self.stack.write(id, bytes, self.now), bytes.len().min(room), "`writable` is wrong");
            }
            Action::Consume { connection, len } => {
                let Some(id) = self.pick(*connection) else { return };
                let shown = match self.stack.readable(id) {
                    Readable::Data(bytes) => {
                        assert!(!bytes.is_empty() && bytes.len() <= BUFFER as usize);
                        assert!(bytes.iter().all(|byte| *byte == 0x5a), "it shows what nobody sent");
                        bytes.len()
                    }
                    Readable::Empty | Readable::Finished => 0,
                };
                self.stack.consume(id, shown.min(usize::from(*len)), self.now);
            }
            Action::Shutdown { connection } => {
                if let Some(id) = self.pick(*connection) {
                    self.stack.shutdown(id, self.now);
                }
            }
            Action::Abort { connection } => {
                if let Some(id) = self.pick(*connection) {
                    self.stack.abort(id, self.now);
                    assert_eq!(self.stack.flow(id), None);
                    self.live.retain(|live| *live != id);
                }
            }
            Action::Unreachable { port } => self.stack.on_unreachable(&flow(*port), self.now),
            Action::PacketTooBig { port, behind, mtu } => {
                let (next, _) = self.said.get(&(port % PORTS)).copied().unwrap_or_default();
                self.stack.on_packet_too_big(&flow(*port), next - u32::from(*behind), (*mtu).into(), self.now);
            }
            Action::Wait { millis } => self.now = self.now + Duration::from_millis((*millis).into()),
            Action::Hold => self.holds = true,
            Action::Go => self.holds = false,
        }
    }

    fn options(&self, options: &Options, next: Seq) -> SegmentOptions {
        let mut sack = [None; 4];
        for (block, (left, len)) in sack.iter_mut().zip(options.sack.iter().flatten()) {
            let left = Near::Off(*left).to(next);
            *block = Some((left, left + u32::from(*len)));
        }
        // A peer's clock that counts milliseconds, more or less.
        let clock = u32::try_from(self.now.as_nanos() / 1_000_000).unwrap_or(u32::MAX);
        SegmentOptions {
            mss: options.mss,
            window_scale: options.window_scale,
            sack_permitted: options.sack_permitted,
            sack,
            timestamp: options
                .timestamp
                .map(|(off, echo)| Timestamp { value: clock.wrapping_add_signed(off.into()), echo }),
        }
    }

    fn pick(&self, connection: u8) -> Option<ConnectionId> {
        self.live.get(usize::from(connection) % self.live.len().max(1)).copied()
    }

    fn drain(&mut self) {
        let mut room = [0; 1500];
        let mut count = 0;
        while let Some(len) = self.stack.poll_transmit(&mut room, false, self.now) {
            let packet = Packet::parse(&room[..len], false).expect("what is sent is right");
            let (flow, segment) = Segment::parse(&packet, false).expect("what is sent is right");
            let port = u8::try_from(flow.local().port() - 1).expect("few ports");
            let (_, acknowledged) = self.said.get(&port).copied().unwrap_or_default();
            let next = segment.seq + segment.sequence_len();
            self.said.insert(port, (next, segment.ack.unwrap_or(acknowledged)));
            count += 1;
            assert!(count <= TRANSMIT_MAX, "`poll_transmit` does not end");
        }
        assert!(!self.stack.wants_transmit());
        let mut count = 0;
        while let Some((id, _, event)) = self.stack.poll_event() {
            match event {
                Event::Accepted => self.live.push(id),
                Event::Closed(_) => assert_eq!(self.stack.flow(id), None),
                Event::Connected | Event::Readable | Event::Writable => assert!(self.stack.flow(id).is_some()),
            }
            count += 1;
            assert!(count <= 5 * CONNECTIONS_MAX, "`poll_event` does not end");
        }
        self.live.retain(|id| self.stack.flow(*id).is_some());
        assert_eq!(self.counters.connections.value(), self.live.len() as u64, "somebody was forgotten");
    }

    fn check(&self) {
        assert_eq!(self.stack.audit(self.now), Ok(()));
        let counters = &self.counters;
        assert!(counters.connections.value() <= CONNECTIONS_MAX);
        assert!(counters.half_open.value() <= HALF_OPEN_MAX);
        assert!(counters.time_wait.value() <= TIME_WAIT_MAX);
        assert!(counters.timers.value() <= CONNECTIONS_MAX + HALF_OPEN_MAX);
        assert!(counters.buffered_bytes.value() <= CONNECTIONS_MAX * 2 * BUFFER_MEMORY);
        for id in &self.live {
            let Some(inside) = self.stack.inspect(*id) else { continue };
            // SYN and FIN are in flight, too.
            assert!(inside.flight <= BUFFER + 2 && inside.rcv_wnd <= BUFFER, "{inside:?}");
            assert!(inside.mss > 0 && inside.cwnd >= inside.mss, "{inside:?}");
            assert!(self.stack.unacknowledged(*id) <= BUFFER as usize);
        }
    }

    fn end(mut self) {
        self.drain();
        for id in std::mem::take(&mut self.live) {
            self.stack.abort(id, self.now);
        }
        // Longer than half-open connections are retried and TIME-WAIT lasts.
        for _ in 0..200 {
            self.drain();
            self.now = self.now + Duration::from_secs(1);
            self.stack.on_timeout(self.now);
        }
        let counters = &self.counters;
        let left = [
            &counters.connections,
            &counters.half_open,
            &counters.time_wait,
            &counters.buffered_bytes,
            &counters.timers,
        ];
        assert_eq!(left.map(|gauge| gauge.value()), [0; 5], "something is left");
        assert_eq!(self.stack.poll_at(), None);
    }
}
