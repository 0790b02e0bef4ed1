//! Two stacks over a network that loses, doubles, delays and reorders, in virtual time: every byte arrives once and in order, and nothing is left behind.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use crate::base::{Duration, Flow, Instant, Piece, Random};
use crate::tcp::{Close, Congestion, ConnectionId, Counters, EcnMode, Event, Readable, Settings, Stack, Token, Train};
use crate::wire::{Ecn, Packet, Quote, Segment};

/// One end: a stack and what its user has still to do.
struct End {
    stack: Stack,
    counters: Arc<Counters>,
    users: BTreeMap<u64, User>,
    /// How long it took until everybody was done.
    took: Duration,
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
        Self { stack, counters, users: BTreeMap::new(), took: Duration::ZERO }
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
                user.sent += if random.below(2) == 0 {
                    self.stack.write(user.id, &data, now)
                } else {
                    append(&mut self.stack, user.id, data, now)
                };
            }
            if user.sent == user.to_send {
                self.stack.shutdown(user.id, now);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.users.values().all(|user| user.closed.is_some())
    }

    /// Everybody has sent and received so many bytes, and nothing is left of it.
    fn check_all_is_done(&mut self, bytes: usize, now: Instant, whose: &str) {
        for (key, user) in &self.users {
            assert_eq!(user.closed, Some(Close::Finished), "{whose} connection {key}");
            assert_eq!((user.received, user.sent), (bytes, bytes), "{whose} connection {key}");
        }
        self.stack.on_timeout(now + Duration::from_secs(200));
        let counters = &self.counters;
        let left = [
            &counters.connections,
            &counters.half_open,
            &counters.time_wait,
            &counters.buffered_bytes,
            &counters.timers,
        ];
        assert_eq!(left.map(|gauge| gauge.value()), [0; 5], "{whose}: something is left");
        assert_eq!(self.stack.poll_at(), None);
        assert_eq!(self.stack.poll_event(), None);
        assert_eq!(self.stack.poll_transmit(&mut [0; 1500], false, now), None);
    }
}

/// A stack's own packet, as the other end's lane sees it.
pub(super) fn packet(bytes: &[u8]) -> Packet<'_> {
    Packet::parse(bytes, false).unwrap()
}

/// What a router does that is about to drop packets: marks this one if it may be marked.
fn mark(bytes: &mut [u8]) {
    if packet(bytes).ecn != Ecn::Ect0 {
        return;
    }
    if bytes[0] >> 4 == 4 {
        let mut header = Ipv4Packet::new_unchecked(bytes);
        header.set_ecn(Ecn::Ce.bits());
        header.fill_checksum();
    } else {
        Ipv6Packet::new_unchecked(bytes).set_traffic_class(Ecn::Ce.bits());
    }
}

#[derive(Default)]
struct Network {
    loss_percent: u64,
    /// What may be marked and is.
    mark_percent: u64,
    duplicate_percent: u64,
    jitter_micros: u64,
    /// Whether sequence numbers begin just before they wrap.
    near_wrap: bool,
    narrow: Option<Narrow>,
    /// Whether both ends leave it to the network to cut segments, which passes them whole.
    trains: bool,
}

/// A link on the way that carries less than both ends, from so long after the start on.
#[derive(Clone, Copy)]
struct Narrow {
    mtu: usize,
    from: Duration,
    /// It drops what is too long without a word.
    silent: bool,
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
    let flow = |port: u16| Flow::new((client, port).into(), (server, 443).into());
    let first = if network.near_wrap {
        let near =
            |port: &u16| (u32::MAX - 200_000..).contains(&ends[0].stack.isn.origin(&flow(*port)).sequence(now).0);
        let Some(port) = (1..60_000).find(near) else { return ends };
        port
    } else {
        1000
    };
    for port in first..first + connections {
        let flow = flow(port);
        let id = ends[0].stack.connect(flow, Token(port.into()), now).unwrap();
        let user = User { id, sent: 0, to_send: bytes, received: 0, finished_reading: false, closed: None };
        ends[0].users.insert(port.into(), user);
    }
    let mut wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let mut errors: VecDeque<(Instant, usize, Quote, u32)> = VecDeque::new();
    let mut serial = 0;
    let mut room = [0; 16_000];
    for rounds in 0..2_000_000 {
        for (side, end) in ends.iter_mut().enumerate() {
            end.stack.on_timeout(now);
            end.on_events(bytes, &mut random, now);
            while let Some(len) = if network.trains {
                end.stack.poll_train(&mut room, now).map(|train| check_train(&train, settings.mtu, room.len()))
            } else {
                end.stack.poll_transmit(&mut room, false, now)
            } {
                if let Some(narrow) =
                    network.narrow.filter(|narrow| len > narrow.mtu && now.since(began) >= narrow.from)
                {
                    let quote = Quote::parse(&room[..len]).unwrap();
                    let mtu = u32::try_from(narrow.mtu).unwrap();
                    errors.extend((!narrow.silent).then_some((now + Duration::from_millis(3), side, quote, mtu)));
                    continue;
                }
                let copies = if random.below(100) < network.loss_percent {
                    0
                } else {
                    1 + u64::from(random.below(100) < network.duplicate_percent)
                };
                for _ in 0..copies {
                    let delay =
                        Duration::from_millis(5) + Duration::from_micros(random.below(network.jitter_micros + 1));
                    serial += 1;
                    let mut copy = room[..len].to_vec();
                    if random.below(100) < network.mark_percent {
                        mark(&mut copy);
                    }
                    wire.insert((now + delay, serial), (1 - side, copy));
                }
            }
            if rounds % 16 == 0 {
                end.stack.audit(now).unwrap();
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
        let error = errors.front().map(|(at, ..)| *at);
        now = arrival.into_iter().chain(error).chain(due).chain([look]).min().unwrap().max(now);
        while let Some(entry) = wire.first_entry().filter(|entry| entry.key().0 <= now) {
            let (side, bytes) = entry.remove();
            let (flow, segment) = Segment::parse(&packet(&bytes), network.trains).unwrap();
            ends[side].stack.on_segment(&flow, &segment, now);
        }
        while let Some((_, side, quote, mtu)) = errors.front().copied().filter(|(at, ..)| *at <= now) {
            errors.pop_front();
            ends[side].stack.on_packet_too_big(&quote.flow, quote.seq, mtu, now);
        }
        assert!(now.since(began) < Duration::from_secs(4000), "seed {seed}: it takes for ever");
    }
    for (side, end) in ends.iter_mut().enumerate() {
        assert_eq!(end.users.len(), usize::from(connections), "seed {seed} side {side}");
        end.took = now.since(began);
        end.check_all_is_done(bytes, now, &format!("seed {seed} side {side}"));
    }
    ends
}

/// Proves that a packet holds as many segments as it says, none of them too long, and gives its length.
fn check_train(train: &Train, mtu: usize, room: usize) -> usize {
    let Train { len, payload, segments } = *train;
    let (payload, segments) = (usize::from(payload), segments as usize);
    assert!(len <= room && payload + 40 <= mtu, "{train:?}");
    let last = len.checked_sub(payload * (segments - 1)).unwrap();
    assert!(
        (40 + usize::from(segments > 1)..=mtu).contains(&last),
        "{train:?}: the last is neither empty nor too long"
    );
    len
}

/// Queues as much of the data as there is room for, in one piece, and gives how much that was.
fn append(stack: &mut Stack, id: ConnectionId, mut data: Vec<u8>, now: Instant) -> usize {
    let room = stack.room_for(id, data.len());
    assert!(room == 0 || room <= stack.writable(id));
    data.truncate(room);
    assert_eq!(stack.append(id, Piece::from(&data[..]), now), Ok(()));
    room
}

fn sevens(len: usize) -> Piece {
    Piece::from(&vec![7; len][..])
}

#[test]
fn a_piece_longer_than_the_room_comes_back_and_its_writer_hears_of_room() {
    let now = Instant::START;
    let flow = Flow::new("198.18.0.1:1".parse().unwrap(), "198.18.0.2:2".parse().unwrap());
    let mut ends = [1, 2].map(|seed| End::new(Settings { send_buffer: 16_384, ..Settings::default() }, seed));
    ends[1].stack.listen(flow.remote(), Token(0)).unwrap();
    let id = ends[0].stack.connect(flow, Token(1), now).unwrap();
    assert_eq!(ends[0].stack.append(id, sevens(16_385), now), Err(sevens(16_385)));
    assert_eq!(ends[0].stack.room_for(id, 1 << 20), 16_384, "all there is, where it is a quarter at least");
    assert_eq!(ends[0].stack.append(id, sevens(12_289), now), Ok(()));
    assert_eq!(ends[0].stack.room_for(id, 4095), 4095);
    assert_eq!(ends[0].stack.room_for(id, 4096), 0, "less than that, and less than a quarter");
    let mut events = Vec::new();
    for _ in 0..20 {
        for side in [0, 1] {
            let mut room = [0; 1500];
            while let Some(len) = ends[side].stack.poll_transmit(&mut room, false, now) {
                let (flow, segment) = Segment::parse(&packet(&room[..len]), false).unwrap();
                ends[1 - side].stack.on_segment(&flow, &segment, now);
            }
        }
        events.extend(std::iter::from_fn(|| ends[0].stack.poll_event()).map(|(_, _, event)| event));
        while let Some((reader, ..)) = ends[1].stack.poll_event() {
            while let Readable::Data(data) = ends[1].stack.readable(reader) {
                let len = data.len();
                ends[1].stack.consume(reader, len, now);
            }
        }
    }
    assert!(events.contains(&Event::Writable), "{events:?}");
    assert_eq!(ends[0].stack.room_for(id, 1 << 20), 16_384);
    ends[0].stack.abort(id, now);
    assert_eq!(ends[0].stack.room_for(id, 1), 0);
    assert_eq!(ends[0].stack.append(id, sevens(1), now), Err(sevens(1)));
}

#[test]
fn a_call_fires_256_timers_and_the_rest_are_due_still() {
    let mut end = End::new(Settings::default(), 1);
    for port in 1..=600_u16 {
        let flow = Flow::new(format!("198.18.0.1:{port}").parse().unwrap(), "198.18.0.2:2".parse().unwrap());
        end.stack.connect(flow, Token(u64::from(port)), Instant::START).unwrap();
    }
    let sent = |end: &mut End, now| std::iter::from_fn(|| end.stack.poll_transmit(&mut [0; 100], false, now)).count();
    assert_eq!(sent(&mut end, Instant::START), 600);
    // RFC 6298 2.1: all SYNs are sent again after a second.
    let now = Instant::START + Duration::from_secs(2);
    for left in [344, 88, 0] {
        let before = end.counters.retransmission_timeouts.value();
        end.stack.on_timeout(now);
        assert_eq!(end.counters.retransmission_timeouts.value() - before, if left > 0 { 256 } else { 88 });
        assert_eq!(end.stack.poll_at().unwrap() <= now, left > 0);
    }
    assert_eq!(sent(&mut end, now), 600);
}

#[test]
fn a_clean_network_needs_no_retransmission() {
    let network =
        Network { loss_percent: 0, mark_percent: 0, duplicate_percent: 0, jitter_micros: 0, ..Network::default() };
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
            mark_percent: random.below(20),
            duplicate_percent: random.below(20),
            jitter_micros: random.below(30_000),
            trains: random.below(2) == 0,
            ..Network::default()
        };
        let settings = Settings {
            receive_buffer: 2000 << random.below(8),
            send_buffer: 2000 << random.below(8),
            timestamps: random.below(2) == 0,
            sack: random.below(3) > 0,
            congestion: if random.below(2) == 0 { Congestion::Cubic } else { Congestion::NewReno },
            ecn: [EcnMode::Off, EcnMode::Accept, EcnMode::Offer][usize::try_from(random.below(3)).unwrap()],
            mtu: 576 + usize::try_from(random.below(925)).unwrap(),
            user_timeout: Duration::from_secs(3600),
            ..Settings::default()
        };
        run(seed, &network, &settings, 1 + u16::try_from(random.below(3)).unwrap(), 30_000);
    }
}

#[test]
fn sequence_numbers_wrap_in_the_midst_of_a_transfer() {
    let network = Network {
        loss_percent: 3,
        mark_percent: 3,
        duplicate_percent: 3,
        jitter_micros: 9000,
        near_wrap: true,
        ..Network::default()
    };
    // With most seeds some port's first number is near the wrap.
    let wrapped = (1..=6).filter(|seed| !run(*seed, &network, &Settings::default(), 1, 250_000)[0].users.is_empty());
    assert!(wrapped.count() >= 2);
}

#[test]
fn marks_slow_a_sender_down_without_a_loss() {
    let network =
        Network { loss_percent: 0, mark_percent: 5, duplicate_percent: 0, jitter_micros: 0, ..Network::default() };
    for (seed, sack) in [(1, true), (2, false), (3, true), (4, false)] {
        let settings = Settings { sack, ecn: EcnMode::Offer, ..Settings::default() };
        for end in run(seed, &network, &settings, 1, 600_000) {
            let counters = &end.counters;
            assert!(counters.marks_received.value() > 10 && counters.mark_reductions.value() > 3, "seed {seed}");
            assert!(counters.mark_reductions.value() <= counters.marks_received.value() * 2, "seed {seed}");
            assert_eq!(counters.retransmitted.value(), 0, "seed {seed}");
        }
        let settings = Settings { ecn: EcnMode::Accept, ..settings };
        assert!(run(seed, &network, &settings, 1, 100_000).iter().all(|end| end.counters.marks_received.value() == 0));
    }
}

/// A path that lets 1,300 bytes through, in the midst of a transfer, with and without routers that say so.
fn narrow(seed: u64, silent: bool, from: u64, sack: bool, loss_percent: u64) -> [End; 2] {
    let narrow = Some(Narrow { mtu: 1300, from: Duration::from_millis(from), silent });
    let network = Network { loss_percent, narrow, ..Network::default() };
    run(seed, &network, &Settings { sack, user_timeout: Duration::from_secs(3600), ..Settings::default() }, 1, 400_000)
}

#[test]
fn routers_make_segments_smaller_and_congestion_control_does_not_notice() {
    for (seed, sack) in [(1, true), (2, true), (3, false), (4, false)] {
        for end in narrow(seed, false, 0, sack, 0) {
            let counters = &end.counters;
            assert_eq!((counters.path_mtu_lowered.value(), counters.black_holes.value()), (1, 0), "seed {seed}");
            assert_eq!(counters.retransmission_timeouts.value(), 0, "seed {seed}");
            assert_eq!(counters.fast_retransmits.value(), 0, "seed {seed}");
            assert!(end.took < Duration::from_secs(2), "seed {seed}: {:?}", end.took);
        }
        // When segments of the size have arrived, the first timeout confirms what the router says.
        for end in narrow(seed, false, 30, sack, 0) {
            let counters = &end.counters;
            assert_eq!((counters.path_mtu_lowered.value(), counters.black_holes.value()), (1, 0), "seed {seed}");
            assert!(counters.path_mtu_doubted.value() > 0, "seed {seed}");
            // Acknowledgements ride on data: the other side's first timeout may be about what had arrived, and disproves the message.
            assert!((1..=2).contains(&counters.retransmission_timeouts.value()), "seed {seed}");
        }
    }
}

#[test]
fn a_path_that_swallows_large_packets_is_found_out_and_searched() {
    for (seed, sack) in [(1, true), (2, true), (3, false), (4, false)] {
        for from in [0, 30] {
            for end in narrow(seed, true, from, sack, 0) {
                let counters = &end.counters;
                assert_eq!((counters.path_mtu_lowered.value(), counters.black_holes.value()), (0, 1), "seed {seed}");
                assert!(end.took < Duration::from_secs(12), "seed {seed}: {:?}", end.took);
                // Over IPv6 the smallest MTU is so near to the path's that there is little to search for.
                assert_eq!(counters.path_probes_sent.value() > 0, sack, "seed {seed}");
            }
        }
    }
}

#[test]
fn a_lossy_path_that_is_narrow_still_carries_everything() {
    for seed in 1..=40 {
        let ends = narrow(seed, seed % 3 == 0, seed % 4 * 20, seed % 5 > 0, seed % 7);
        let smaller = ends.iter().map(|end| end.counters.path_mtu_lowered.value() + end.counters.black_holes.value());
        assert!(smaller.sum::<u64>() >= 2, "seed {seed}");
    }
}

/// What transfers over a lossy network have cost: milliseconds, segments sent, segments sent again, timeouts.
fn cost(loss_percent: u64, sack: bool) -> [u64; 4] {
    let network =
        Network { loss_percent, mark_percent: 0, duplicate_percent: 0, jitter_micros: 0, ..Network::default() };
    let settings = Settings { sack, ..Settings::default() };
    let mut sums = [0; 4];
    for end in (1..=6).flat_map(|seed| run(seed, &network, &settings, 1, 600_000)) {
        let counters = &end.counters;
        let counts = [&counters.segments_sent, &counters.retransmitted, &counters.retransmission_timeouts];
        let took = u64::try_from(end.took.as_millis()).unwrap();
        let values = [took].into_iter().chain(counts.map(|counter| counter.value()));
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
        }
    }
    sums
}

#[test]
fn with_sack_a_lossy_network_costs_little_time_and_only_what_was_lost_is_sent_again() {
    for loss_percent in [1, 3, 8] {
        let [time, sent, again, timeouts] = cost(loss_percent, true);
        let [time_without, _, _, timeouts_without] = cost(loss_percent, false);
        assert!(time * 3 < time_without * 2, "{time} ms, {time_without} ms without, at {loss_percent} %");
        assert!(timeouts * 4 < timeouts_without, "{timeouts} of {timeouts_without} timeouts, at {loss_percent} %");
        assert!(again * 100 < sent * loss_percent * 5 / 4, "{again} of {sent} sent again, at {loss_percent} %");
    }
}
