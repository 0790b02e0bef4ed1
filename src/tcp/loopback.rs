//! Two stacks over a network that loses, doubles, delays and reorders, in virtual time: every byte arrives once and in order, and nothing is left behind.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::base::{Duration, Flow, Instant, Random};
use crate::tcp::{Close, ConnectionId, Counters, Event, Readable, Settings, Stack, Token};
use crate::wire::{Flags, Packet, Protocol, Segment, SegmentOptions, Seq, Timestamp};

/// One end: a stack and what its user has still to do.
struct End {
    stack: Stack,
    counters: Arc<Counters>,
    users: BTreeMap<u64, User>,
}

struct User {
    id: ConnectionId,
    sent: usize,
    to_send: usize,
    received: usize,
    finished_reading: bool,
    closed: Option<Close>,
}

fn byte(at: usize, salt: u64) -> u8 {
    u8::try_from((at as u64).wrapping_mul(2_654_435_761).wrapping_add(salt * 97) >> 7 & 0xff).unwrap()
}

impl End {
    fn new(settings: Settings, seed: u64) -> Self {
        let counters = Arc::new(Counters::default());
        let stack = Stack::new(settings, Random::from_seed(seed), counters.clone());
        Self { stack, counters, users: BTreeMap::new() }
    }

    fn on_events(&mut self, to_send: usize, random: &mut Random, now: Instant) {
        while let Some((id, token, event)) = self.stack.poll_event() {
            match event {
                Event::Accepted => {
                    let key = u64::from(self.stack.flow(id).unwrap().remote().port());
                    self.stack.set_token(id, Token(key));
                    let user = User { id, sent: 0, to_send, received: 0, finished_reading: false, closed: None };
                    assert!(self.users.insert(key, user).is_none());
                }
                Event::Connected | Event::Readable | Event::Writable => {}
                Event::Closed(close) => self.users.get_mut(&token.0).unwrap().closed = Some(close),
            }
        }
        for (key, user) in &mut self.users {
            if user.closed.is_some() {
                continue;
            }
            while let Readable::Data(data) = self.stack.readable(user.id) {
                // Readers are lazy now and then, so that windows close.
                if random.below(4) == 0 {
                    break;
                }
                let len = data.len();
                for (i, seen) in data.iter().enumerate() {
                    assert_eq!(*seen, byte(user.received + i, *key), "byte {} of {key}", user.received + i);
                }
                user.received += len;
                self.stack.consume(user.id, len, now);
            }
            user.finished_reading |= self.stack.readable(user.id) == Readable::Finished;
            if user.sent < user.to_send {
                let len = (user.to_send - user.sent).min(20_000);
                let data: Vec<u8> = (user.sent..user.sent + len).map(|at| byte(at, *key)).collect();
                user.sent += self.stack.write(user.id, &data, now);
            }
            if user.sent == user.to_send {
                self.stack.shutdown(user.id, now);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.users.values().all(|user| user.closed.is_some())
    }
}

fn packet(bytes: &[u8]) -> Packet<'_> {
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
    let (source, destination, header) = if bytes[0] >> 4 == 4 { (v4(12), v4(16), 20) } else { (v6(8), v6(24), 40) };
    Packet { source, destination, hop_limit: 64, protocol: Protocol::Tcp, bytes, payload: &bytes[header..] }
}

struct Network {
    loss_percent: u64,
    duplicate_percent: u64,
    jitter: Duration,
}

/// Runs `connections` transfers both ways and checks everything. Gives the two ends.
fn run(seed: u64, network: &Network, settings: &Settings, connections: u16, bytes: usize) -> [End; 2] {
    let mut random = Random::from_seed(seed);
    let mut ends = [End::new(settings.clone(), seed * 2), End::new(settings.clone(), seed * 2 + 1)];
    let mut now = Instant::from_nanos(random.below(1 << 40));
    let began = now;
    let (client, server) = if seed % 2 == 0 {
        (IpAddr::from([198, 18, 0, 1]), IpAddr::from([198, 18, 0, 2]))
    } else {
        (IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2]))
    };
    ends[1].stack.listen((server, 443).into(), Token(0)).unwrap();
    for port in 1000..1000 + connections {
        let flow = Flow::new((client, port).into(), (server, 443).into());
        let id = ends[0].stack.connect(flow, Token(port.into()), now).unwrap();
        let user = User { id, sent: 0, to_send: bytes, received: 0, finished_reading: false, closed: None };
        ends[0].users.insert(port.into(), user);
    }
    let mut wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let mut serial = 0;
    let mut room = [0; 1500];
    for _ in 0..2_000_000 {
        for (side, end) in ends.iter_mut().enumerate() {
            end.stack.on_timeout(now);
            end.on_events(bytes, &mut random, now);
            while let Some(len) = end.stack.poll_transmit(&mut room, false, now) {
                let copies = if random.below(100) < network.loss_percent {
                    0
                } else {
                    1 + u64::from(random.below(100) < network.duplicate_percent)
                };
                for _ in 0..copies {
                    let delay = Duration::from_millis(5)
                        + Duration::from_nanos(random.below(network.jitter.as_nanos() as u64 + 1));
                    serial += 1;
                    wire.insert((now + delay, serial), (1 - side, room[..len].to_vec()));
                }
            }
            assert!(end.counters.buffered_bytes.value() < 8 << 20, "seed {seed}: memory is bounded");
        }
        if ends.iter().all(End::is_done) && wire.is_empty() {
            break;
        }
        let arrival = wire.first_key_value().map(|((at, _), _)| *at);
        let due = ends.iter().filter_map(|end| end.stack.poll_at()).min();
        // The lazy reader looks again soon.
        let look = now + Duration::from_millis(50);
        now = arrival.into_iter().chain(due).chain([look]).min().unwrap().max(now);
        while let Some(entry) = wire.first_entry().filter(|entry| entry.key().0 <= now) {
            let (side, bytes) = entry.remove();
            let (flow, segment) = Segment::parse(&packet(&bytes), false).unwrap();
            ends[side].stack.on_segment(&flow, &segment, now);
        }
        assert!(now.since(began) < Duration::from_secs(4000), "seed {seed}: it takes for ever");
    }
    for (side, end) in ends.iter_mut().enumerate() {
        assert_eq!(end.users.len(), usize::from(connections), "seed {seed} side {side}");
        for (key, user) in &end.users {
            assert_eq!(user.closed, Some(Close::Finished), "seed {seed} side {side} connection {key}");
            assert_eq!((user.received, user.sent), (bytes, bytes), "seed {seed} side {side} connection {key}");
        }
        end.stack.on_timeout(now + Duration::from_secs(200));
        let counters = &end.counters;
        let left = [
            &counters.connections,
            &counters.half_open,
            &counters.time_wait,
            &counters.buffered_bytes,
            &counters.timers,
        ];
        assert_eq!(left.map(|gauge| gauge.value()), [0; 5], "seed {seed} side {side}: something is left");
        assert_eq!(end.stack.poll_at(), None);
        assert_eq!(end.stack.poll_event(), None);
        assert_eq!(end.stack.poll_transmit(&mut room, false, now), None);
    }
    ends
}

#[test]
fn a_clean_network_needs_no_retransmission() {
    let network = Network { loss_percent: 0, duplicate_percent: 0, jitter: Duration::ZERO };
    let ends = run(1, &network, &Settings::default(), 3, 300_000);
    for end in ends {
        assert_eq!(end.counters.retransmitted.value(), 0);
        assert_eq!(end.counters.out_of_order.value(), 0);
        assert_eq!(end.counters.resets_sent.value(), 0);
    }
}

#[test]
fn every_byte_arrives_once_and_in_order_whatever_the_network_does() {
    for seed in 1..=40 {
        let mut random = Random::from_seed(seed);
        let network = Network {
            loss_percent: random.below(20),
            duplicate_percent: random.below(20),
            jitter: Duration::from_millis(random.below(30)),
        };
        let settings = Settings {
            receive_buffer: 2000 << random.below(8),
            send_buffer: 2000 << random.below(8),
            timestamps: random.below(2) == 0,
            mtu: 576 + usize::try_from(random.below(925)).unwrap(),
            user_timeout: Duration::from_secs(3600),
            ..Settings::default()
        };
        run(seed, &network, &settings, 1 + u16::try_from(random.below(3)).unwrap(), 30_000);
    }
}

/// Throws segments at a stack that are nearly right, calls it as users do, and looks for panics and for anything left behind.
#[test]
fn no_sequence_of_segments_and_calls_breaks_a_stack() {
    for seed in 1..=60 {
        let mut random = Random::from_seed(seed);
        let counters = Arc::new(Counters::default());
        let settings = Settings {
            connections_max: 6,
            half_open_max: 3,
            time_wait_max: 2,
            receive_buffer: 3000,
            send_buffer: 3000,
            keepalive: Some(Duration::from_secs(5)),
            user_timeout: Duration::from_secs(20),
            timestamps: seed % 2 == 0,
            ..Settings::default()
        };
        let mut stack = Stack::new(settings, Random::from_seed(seed), counters.clone());
        let local = ([198, 18, 0, 1], 443).into();
        stack.listen(local, Token(0)).unwrap();
        let mut now = Instant::START;
        let mut live: Vec<ConnectionId> = Vec::new();
        // What each flow has last said, to aim near it: its next sequence number, and the acknowledgement it wants.
        let mut aims: BTreeMap<u16, (Seq, Seq)> = BTreeMap::new();
        let mut room = [0; 1500];
        for _ in 0..3000 {
            let port = u16::try_from(random.below(8)).unwrap() + 1;
            let flow = Flow::new(local, ([198, 18, 0, 2], port).into());
            match random.below(10) {
                0..6 => {
                    let near = |random: &mut Random, seq: Seq| match random.below(8) {
                        0..5 => seq,
                        5 => seq - 1,
                        6 => seq + u32::try_from(random.below(4000)).unwrap() - 2000,
                        _ => Seq(random.next_u32()),
                    };
                    let (ack, seq) = aims.get(&port).copied().unwrap_or_default();
                    let bits = random.next_u64();
                    let flags = Flags {
                        syn: bits % 8 == 0,
                        fin: bits >> 8 & 7 == 0,
                        rst: bits >> 16 & 31 == 0,
                        ..Flags::default()
                    };
                    let payload = [0; 1460];
                    let segment = Segment {
                        seq: near(&mut random, seq),
                        ack: (bits >> 24 & 7 != 0 && !(flags.syn && bits >> 25 & 1 == 0))
                            .then(|| near(&mut random, ack)),
                        flags,
                        window: [0, 1, 500, 65_535][usize::try_from(bits >> 32 & 3).unwrap()],
                        options: SegmentOptions {
                            mss: (bits >> 40 & 1 == 0).then_some((bits >> 41 & 0x7ff) as u16),
                            window_scale: (bits >> 53 & 1 == 0).then_some((bits >> 54 & 15) as u8),
                            timestamp: (bits >> 60 & 1 == 0).then(|| Timestamp {
                                value: (now.as_nanos() / 1_000_000) as u32,
                                echo: random.next_u32(),
                            }),
                            ..SegmentOptions::default()
                        },
                        payload: &payload[..usize::try_from(random.below(1461)).unwrap()],
                    };
                    stack.on_segment(&flow, &segment, now);
                }
                6 => now = now + Duration::from_millis(1 << random.below(12)),
                7 => {
                    if let Ok(id) = stack.connect(flow, Token(1), now) {
                        live.push(id);
                    }
                }
                _ if live.is_empty() => {}
                _ => {
                    let id = live[usize::try_from(random.below(live.len() as u64)).unwrap()];
                    match random.below(8) {
                        0..3 => drop(stack.write(id, &room[..usize::try_from(random.below(1500)).unwrap()], now)),
                        3..6 => stack.consume(id, usize::try_from(random.below(2000)).unwrap(), now),
                        6 => stack.shutdown(id, now),
                        _ => match random.below(4) {
                            0 => stack.abort(id, now),
                            _ => stack.on_unreachable(&flow, now),
                        },
                    }
                }
            }
            stack.on_timeout(now);
            while let Some(len) = stack.poll_transmit(&mut room, false, now) {
                let (flow, segment) = Segment::parse(&packet(&room[..len]), false).unwrap();
                assert!(segment.payload.len() <= 1460);
                let port = flow.local().port();
                let (seq, _) = aims.get(&port).copied().unwrap_or_default();
                let next = segment.seq + segment.sequence_len();
                aims.insert(port, (next, segment.ack.unwrap_or(seq)));
            }
            while let Some((id, _, event)) = stack.poll_event() {
                match event {
                    Event::Accepted => live.push(id),
                    Event::Closed(_) => assert_eq!(stack.flow(id), None),
                    Event::Connected | Event::Readable | Event::Writable => {}
                }
            }
            live.retain(|id| stack.flow(*id).is_some());
            assert!(counters.connections.value() <= 6 && counters.half_open.value() <= 3, "seed {seed}");
            assert!(counters.time_wait.value() <= 2 && counters.timers.value() <= 9, "seed {seed}");
            assert_eq!(counters.connections.value(), live.len() as u64, "seed {seed}: somebody was forgotten");
            assert!(counters.buffered_bytes.value() <= 6 * 2 * 4096, "seed {seed}");
            for id in &live {
                let inside = stack.inspect(*id).unwrap();
                assert!(inside.flight <= 3002 && inside.rcv_wnd <= 3000, "seed {seed}: {inside:?}");
                assert!(inside.cwnd >= inside.mss, "seed {seed}: {inside:?}");
            }
        }
        for id in live {
            stack.abort(id, now);
        }
        while stack.poll_transmit(&mut room, false, now).is_some() {}
        for _ in 0..200 {
            now = now + Duration::from_secs(1);
            stack.on_timeout(now);
            while stack.poll_transmit(&mut room, false, now).is_some() {}
        }
        let left = [
            &counters.connections,
            &counters.half_open,
            &counters.time_wait,
            &counters.buffered_bytes,
            &counters.timers,
        ];
        assert_eq!(left.map(|gauge| gauge.value()), [0; 5], "seed {seed}: something is left");
    }
}
