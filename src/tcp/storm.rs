//! Segments that are nearly right and calls in any order, thrown at one stack: nothing panics, every bound holds, nothing is left behind.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::{Duration, Flow, Instant, Random};
use crate::tcp::loopback::packet;
use crate::tcp::stack::REPLIES_MAX;
use crate::tcp::{ConnectionId, Counters, EcnMode, Event, Settings, Stack, State, Token};
use crate::wire::{Ecn, Flags, Segment, SegmentOptions, Seq, Timestamp};

const LOCAL: ([u8; 4], u16) = ([198, 18, 0, 1], 443);
const PAYLOAD: [u8; 1460] = [0; 1460];

fn flow(port: u16) -> Flow {
    Flow::new(LOCAL.into(), ([198, 18, 0, 2], port).into())
}

struct Storm {
    stack: Stack,
    counters: Arc<Counters>,
    random: Random,
    now: Instant,
    live: Vec<ConnectionId>,
    /// What each flow has last said, to aim near it: its next sequence number, and what it has acknowledged.
    aims: BTreeMap<u16, (Seq, Seq)>,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let counters = Arc::new(Counters::default());
        let settings = Settings {
            connections_max: 6,
            half_open_max: 3,
            source_connections_max: (seed % 4 == 1).then_some(3),
            source_connections_per_second: (seed % 5 == 2).then_some(2),
            source_half_open_max: (seed % 3 == 1).then_some(2),
            time_wait_max: 2,
            receive_buffer: 3000,
            send_buffer: 3000,
            memory_max: if seed % 3 == 0 { 12_000 } else { 1 << 20 },
            keepalive: Some(Duration::from_secs(5)),
            user_timeout: Duration::from_secs(20),
            timestamps: seed % 2 == 0,
            ecn: [EcnMode::Off, EcnMode::Accept, EcnMode::Offer][usize::try_from(seed / 2 % 3).unwrap()],
            ..Settings::default()
        };
        let mut stack = Stack::new(settings, Random::from_seed(seed), counters.clone());
        stack.listen(SocketAddr::from(LOCAL), Token(0)).unwrap();
        let (random, now) = (Random::from_seed(seed), Instant::START);
        Self { stack, counters, random, now, live: Vec::new(), aims: BTreeMap::new() }
    }

    fn below(&mut self, bound: u16) -> u16 {
        u16::try_from(self.random.below(bound.into())).unwrap()
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.random.below(count) == 0
    }

    fn near(&mut self, seq: Seq) -> Seq {
        match self.below(8) {
            0..5 => seq,
            5 => seq - 1,
            6 => seq + u32::from(self.below(4000)) - 2000,
            _ => Seq(self.random.next_u32()),
        }
    }

    fn segment(&mut self, port: u16) {
        let (ack, seq) = self.aims.get(&port).copied().unwrap_or_default();
        let flags = Flags { syn: self.one_in(8), fin: self.one_in(8), rst: self.one_in(32), ..Flags::default() };
        let flags = Flags { ece: self.one_in(4), cwr: self.one_in(4), ..flags };
        let bare = self.one_in(8) || (flags.syn && self.one_in(2));
        let clock = u32::try_from((self.now.as_nanos() / 1_000_000) & 0xffff_ffff).unwrap();
        let mut sack = [None; 4];
        for block in sack.iter_mut().take(usize::from(self.below(10).saturating_sub(6))) {
            let left = self.near(ack) - u32::from(self.below(3000));
            *block = Some((left, left + u32::from(self.below(1500))));
        }
        let options = SegmentOptions {
            sack_permitted: flags.syn && self.one_in(2),
            sack: if flags.syn { [None; 4] } else { sack },
            mss: self.one_in(2).then(|| self.below(2048)),
            window_scale: self.one_in(2).then(|| u8::try_from(self.below(16)).unwrap()),
            timestamp: self.one_in(2).then(|| Timestamp { value: clock, echo: self.random.next_u32() }),
        };
        let segment = Segment {
            seq: self.near(seq),
            ack: (!bare).then(|| self.near(ack)),
            flags,
            window: [0, 1, 500, 65_535][usize::from(self.below(4))],
            options,
            ecn: Ecn::of(u8::try_from(self.below(4)).unwrap()),
            payload: &PAYLOAD[..usize::from(self.below(1461))],
        };
        self.stack.on_segment(&flow(port), &segment, self.now);
    }

    fn call(&mut self, port: u16) {
        if self.live.is_empty() {
            return;
        }
        let id = self.live[usize::try_from(self.random.below(self.live.len() as u64)).unwrap()];
        let len = usize::from(self.below(1460));
        match self.below(32) {
            0..12 => drop(self.stack.write(id, &PAYLOAD[..len], self.now)),
            12..24 => self.stack.consume(id, len, self.now),
            24..28 => self.stack.shutdown(id, self.now),
            28 => self.stack.abort(id, self.now),
            29 => self.stack.on_unreachable(&flow(port), self.now),
            _ => {
                let (next, _) = self.aims.get(&port).copied().unwrap_or_default();
                let (behind, mtu) = (self.below(6000), self.below(1501));
                let seq = self.near(next - u32::from(behind));
                self.stack.on_packet_too_big(&flow(port), seq, mtu.into(), self.now);
            }
        }
    }

    fn step(&mut self) {
        let port = self.below(8) + 1;
        match self.below(10) {
            0..6 => self.segment(port),
            6 => self.now = self.now + Duration::from_millis(1 << self.below(12)),
            7 => self.live.extend(self.stack.connect(flow(port), Token(1), self.now)),
            _ => self.call(port),
        }
        self.stack.on_timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        let mut room = [0; 1500];
        while let Some(len) = self.stack.poll_transmit(&mut room, false, self.now) {
            let (flow, segment) = Segment::parse(&packet(&room[..len]), false).unwrap();
            let port = flow.local().port();
            let (_, seq) = self.aims.get(&port).copied().unwrap_or_default();
            let next = segment.seq + segment.sequence_len();
            self.aims.insert(port, (next, segment.ack.unwrap_or(seq)));
        }
        while let Some((id, _, event)) = self.stack.poll_event() {
            match event {
                Event::Accepted => self.live.push(id),
                Event::Closed(_) => assert_eq!(self.stack.flow(id), None),
                Event::Connected | Event::Readable | Event::Writable => {}
            }
        }
        self.live.retain(|id| self.stack.flow(*id).is_some());
    }

    fn check(&self) {
        self.stack.audit(self.now).unwrap();
        let counters = &self.counters;
        assert_eq!(counters.connections.value(), self.live.len() as u64, "somebody was forgotten");
        assert!(counters.connections.value() <= 6 && counters.half_open.value() <= 3);
        assert!(counters.time_wait.value() <= 2 && counters.timers.value() <= 9);
        assert!(counters.buffered_bytes.value() <= 6 * 4 * 4096);
        for id in &self.live {
            let inside = self.stack.inspect(*id).unwrap();
            assert!(inside.flight <= 3002 && inside.rcv_wnd <= 3000 && inside.cwnd >= inside.mss, "{inside:?}");
        }
    }

    fn end(mut self) {
        for id in std::mem::take(&mut self.live) {
            self.stack.abort(id, self.now);
        }
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
            &counters.sources,
            &counters.buffered_bytes,
            &counters.timers,
        ];
        assert_eq!(left.map(|gauge| gauge.value()), [0; 6]);
    }
}

#[test]
fn no_sequence_of_segments_and_calls_breaks_a_stack() {
    for seed in 1..=60 {
        println!("seed {seed}");
        let mut storm = Storm::new(seed);
        for _ in 0..3000 {
            storm.step();
            storm.check();
        }
        storm.end();
    }
}

#[test]
fn replies_beyond_their_bound_are_dropped_and_counted() {
    let counters = Arc::new(Counters::default());
    let settings = Settings { source_half_open_max: None, ..Settings::default() };
    let mut stack = Stack::new(settings, Random::from_seed(1), counters.clone());
    stack.listen(SocketAddr::from(LOCAL), Token(0)).unwrap();
    let now = Instant::START;
    for port in 0..=u16::try_from(REPLIES_MAX).unwrap() {
        stack.on_segment(&flow(port + 1), &syn(), now);
    }
    assert_eq!(counters.replies_dropped.value(), 1);
    let mut room = [0; 1500];
    assert_eq!(std::iter::from_fn(|| stack.poll_transmit(&mut room, false, now)).count(), REPLIES_MAX);
    // The one that was dropped is sent again in its time, like the others.
    let later = now + Duration::from_secs(1);
    while stack.poll_at().is_some_and(|at| at <= later) {
        stack.on_timeout(later);
    }
    assert_eq!(counters.syn_acks_retransmitted.value(), REPLIES_MAX as u64 + 1);
}

#[test]
fn strangers_and_connections_send_in_turn() {
    let counters = Arc::new(Counters::default());
    let settings = Settings { half_open_max: 1, ..Settings::default() };
    let mut stack = Stack::new(settings, Random::from_seed(1), counters.clone());
    stack.listen(SocketAddr::from(LOCAL), Token(0)).unwrap();
    let now = Instant::START + Duration::from_secs(1);
    assert!(connects(&mut stack, 1, 1, now));
    let id = stack.connections.id(0).unwrap();
    // Five segments behind hundreds of answers to SYNs.
    for port in 2..500 {
        stack.on_segment(&flow(port), &syn(), now);
    }
    assert_eq!(stack.write(id, &[7; 7000], now), 7000);
    let mut room = [0; 1500];
    let sizes = std::iter::from_fn(|| stack.poll_transmit(&mut room, false, now)).map(|len| len > 100);
    let sizes: Vec<_> = sizes.collect();
    assert_eq!(sizes[..10], [false, true, false, true, false, true, false, true, false, true]);
    assert_eq!((sizes.len(), counters.replies_dropped.value()), (498 + 5, 0));
}

fn syn() -> Segment<'static> {
    Segment {
        seq: Seq(0),
        ack: None,
        flags: Flags { syn: true, ..Flags::default() },
        window: 1000,
        options: SegmentOptions::default(),
        ecn: Ecn::NotEct,
        payload: &[],
    }
}

/// What an honest client says to the flooded stack, through a stack of its own: gives whether it is connected at once.
fn connects(server: &mut Stack, port: u16, seed: u64, now: Instant) -> bool {
    let settings = Settings { timestamps: seed % 2 == 0, sack: seed % 3 == 0, ..Settings::default() };
    let mut client = Stack::new(settings, Random::from_seed(seed), Arc::new(Counters::default()));
    let id = client.connect(flow(port).reversed(), Token(0), now).unwrap();
    let mut room = [0; 1500];
    for _ in 0..3 {
        while let Some(len) = client.poll_transmit(&mut room, false, now) {
            let (flow, segment) = Segment::parse(&packet(&room[..len]), false).unwrap();
            server.on_segment(&flow, &segment, now);
        }
        while let Some(len) = server.poll_transmit(&mut room, false, now) {
            let (flow, segment) = Segment::parse(&packet(&room[..len]), false).unwrap();
            if flow == self::flow(port).reversed() {
                client.on_segment(&flow, &segment, now);
            }
        }
    }
    let accepted = std::iter::from_fn(|| server.poll_event()).any(|(_, _, event)| event == Event::Accepted);
    accepted && client.state(id) == Some(State::Established)
}

#[test]
fn under_a_flood_honest_clients_connect_and_forged_acknowledgements_do_not() {
    let counters = Arc::new(Counters::default());
    let settings = Settings { half_open_max: 100, resets_per_second: 10, ..Settings::default() };
    let mut stack = Stack::new(settings, Random::from_seed(1), counters.clone());
    stack.listen(SocketAddr::from(LOCAL), Token(0)).unwrap();
    let mut random = Random::from_seed(2);
    let mut now = Instant::START + Duration::from_secs(1000);
    let mut room = [0; 1500];
    let mut bare = Segment {
        seq: Seq(0),
        ack: None,
        flags: Flags::default(),
        window: 1000,
        options: SegmentOptions::default(),
        ecn: Ecn::NotEct,
        payload: &[],
    };
    for round in 0..100 {
        now = now + Duration::from_millis(10);
        for port in 1..=200 {
            let spoofed = flow(port + 200 * (round % 50));
            (bare.flags.syn, bare.seq, bare.ack) = (true, Seq(random.next_u32()), None);
            stack.on_segment(&spoofed, &bare, now);
            (bare.flags.syn, bare.seq, bare.ack) = (false, Seq(random.next_u32()), Some(Seq(random.next_u32())));
            stack.on_segment(&flow(port + 20_000), &bare, now);
        }
        while stack.poll_transmit(&mut room, false, now).is_some() {}
        assert!(connects(&mut stack, 50_000 + round, round.into(), now), "round {round}");
        assert_eq!(counters.half_open.value(), 100, "the flood keeps the table full");
    }
    assert_eq!((counters.accepted.value(), counters.cookies_accepted.value()), (100, 100));
    // The first hundred came before a cookie was out.
    assert_eq!(counters.cookies_refused.value(), 100 * 200 - 100);
    assert!(counters.cookies_sent.value() > 19_000);
}

#[test]
fn a_connection_at_rest_is_small() {
    assert!(size_of::<crate::tcp::connection::Connection>() <= 640);
}
