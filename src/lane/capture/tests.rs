//! Tests of captures: what a tap gets, and what it is told of the rest.

use super::*;
use crate::base::LaneId;
use crate::base::counter::Reading;

struct Bytes(Vec<u8>);

impl Frame for Bytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn set_len(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn received_checksum(&self) -> crate::nic::ReceivedChecksum {
        crate::nic::ReceivedChecksum::Unknown
    }

    fn offload_checksum(&mut self, _: usize, _: bool) {}

    fn offload_segmentation(&mut self, _: usize, _: bool, _: u16) {}
}

/// A frame of a TCP segment between a client's port 40000 and 198.18.0.10:443, of so many bytes.
fn frame(to_service: bool, len: usize) -> Bytes {
    let mut frame = vec![2; 12];
    frame.extend_from_slice(&[0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    let (client, service) = ([198, 18, 0, 1], [198, 18, 0, 10]);
    frame.extend_from_slice(&if to_service { [client, service] } else { [service, client] }.concat());
    let (client, service) = (40_000_u16.to_be_bytes(), 443_u16.to_be_bytes());
    frame.extend_from_slice(&if to_service { [client, service] } else { [service, client] }.concat());
    frame.resize(len, 7);
    Bytes(frame)
}

fn settings(filter: &str) -> Settings {
    Settings {
        filter: Filter::parse(filter).unwrap(),
        side: None,
        ends: Ends::new(["198.18.0.10:443".parse().unwrap()], ["198.18.1.1".parse().unwrap()]),
        ports: [true, false].into(),
        snap_len: 128,
        frames_per_second: 1_000_000,
        bytes_per_second: 1 << 30,
        epoch: 1_000_000_000,
    }
}

fn at(millis: u64) -> Instant {
    Instant::START + Duration::from_millis(millis)
}

struct Bench {
    tap: Arc<Tap>,
    captures: Captures,
    counters: LaneCounters,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let tap = Arc::new(Tap::new(LaneId(1), settings));
        let mut captures = Captures::none();
        captures.begin(Arc::clone(&tap), at(0));
        Self { tap, captures, counters: LaneCounters::default() }
    }

    fn see(&mut self, frames: &[Bytes], is_sent: bool, millis: u64) {
        self.captures.on_frames(PortId(0), frames, is_sent, &self.counters, at(millis));
    }

    /// Time, direction and length of what control can take now.
    fn taken(&self) -> Vec<(u64, bool, usize)> {
        let mut taken = Vec::new();
        while let Some(chunk) = self.tap.take() {
            let mut rest = chunk.blocks();
            while let Some((at, length)) = pcapng::next_packet(rest) {
                taken.push((at, pcapng::is_sent(rest).unwrap(), pcapng::kept(rest).unwrap().len()));
                rest = &rest[length..];
            }
            self.tap.give_back(chunk);
        }
        taken
    }

    fn count(&self, name: &str) -> u64 {
        let mut found = None;
        self.tap.ports[0].read(&mut |reading: Reading| {
            if reading.name == name {
                found = Some(reading.value);
            }
        });
        found.unwrap()
    }
}

#[test]
fn what_is_wanted_goes_to_control_in_order_and_cut_at_the_snap_length() {
    let mut bench = Bench::new(settings("port 443"));
    bench.see(&[frame(true, 60), frame(true, 1000)], false, 3);
    bench.see(&[frame(false, 64)], true, 5);
    bench.captures.on_breath(at(5));
    assert_eq!(bench.taken(), [], "it waits for more");
    bench.captures.on_breath(at(13));
    let ms = 1_000_000;
    let expected =
        [(1_000_000_000 + 3 * ms, false, 60), (1_000_000_000 + 3 * ms, false, 128), (1_000_000_000 + 5 * ms, true, 64)];
    assert_eq!(bench.taken(), expected);
    assert_eq!(bench.tap.filled_to(), 1_000_000_000 + 13 * ms);
    assert_eq!((bench.count("seen"), bench.count("captured"), bench.counters.frames_captured.value()), (3, 3, 3));
}

#[test]
fn other_frames_ports_and_sides_are_not_captured() {
    let mut bench = Bench::new(settings("udp"));
    bench.see(&[frame(true, 60)], false, 1);
    assert_eq!((bench.count("seen"), bench.count("wanted")), (1, 0));
    let mut bench = Bench::new(settings(""));
    bench.captures.on_frames(PortId(1), &[frame(true, 60)], false, &bench.counters, at(1));
    bench.captures.on_frames(PortId(2), &[frame(true, 60)], false, &bench.counters, at(1));
    assert_eq!(bench.count("seen"), 0);
    for (side, wanted) in [(Side::Client, 2), (Side::Server, 0)] {
        let mut bench = Bench::new(Settings { side: Some(side), ..settings("") });
        bench.see(&[frame(true, 60)], false, 1);
        bench.see(&[frame(false, 60)], true, 1);
        // The engine is a client here, of nobody that it knows.
        bench.see(&[frame(true, 60)], true, 1);
        assert_eq!(bench.count("wanted"), wanted, "{side:?}");
    }
}

#[test]
fn frames_and_bytes_beyond_the_rate_are_left_out_and_counted() {
    let mut bench = Bench::new(Settings { frames_per_second: 20, ..settings("") });
    for millis in [0, 50, 99, 100] {
        bench.see(&[frame(true, 60), frame(true, 60)], false, millis);
    }
    assert_eq!((bench.count("captured"), bench.count("left_out_frames")), (4, 4));
    let len = u32::try_from(pcapng::packet_len(60)).unwrap();
    let mut bench = Bench::new(Settings { bytes_per_second: 30 * len, ..settings("") });
    bench.see(&std::array::from_fn::<_, 5, _>(|_| frame(true, 60)), false, 0);
    assert_eq!((bench.count("captured"), bench.count("left_out_bytes")), (3, 2));
    assert_eq!((bench.count("wanted"), bench.counters.frames_not_captured.value()), (5, 2));
}

#[test]
fn a_slow_control_costs_frames_and_no_order() {
    let mut bench = Bench::new(Settings { snap_len: 1024, ..settings("") });
    let mut millis = 0;
    while bench.count("left_out_full") == 0 {
        bench.see(&[frame(true, 1024)], false, millis);
        bench.captures.on_breath(at(millis));
        millis += 1;
        assert!(millis < 1_000_000, "it never ends");
    }
    let captured = bench.count("captured");
    let taken = bench.taken();
    assert_eq!(taken.len() as u64, captured);
    assert!(taken.is_sorted());
    // Until when everything is there is never said of what is not.
    let told = bench.tap.filled_to();
    assert!(taken.iter().all(|(at, ..)| *at <= told));
    bench.see(&[frame(true, 1024)], false, millis);
    assert_eq!(bench.count("captured"), captured + 1, "there is room again");
}

#[test]
fn a_capture_that_is_over_gives_its_last_frames_and_lets_go() {
    let mut bench = Bench::new(settings(""));
    bench.see(&[frame(true, 60)], false, 1);
    bench.tap.end();
    assert!(!bench.tap.has_ended());
    bench.captures.on_breath(at(1));
    assert!(bench.tap.has_ended() && bench.captures.is_empty());
    assert_eq!(bench.taken().len(), 1);
    assert_eq!(Arc::strong_count(&bench.tap), 1);
}

#[test]
fn a_lane_has_no_more_captures_than_it_may() {
    let (mut captures, now) = (Captures::none(), at(0));
    let taps: Vec<_> = (0..=CAPTURES_MAX).map(|_| Arc::new(Tap::new(LaneId(0), settings("")))).collect();
    taps.iter().for_each(|tap| captures.begin(Arc::clone(tap), now));
    let ended: Vec<_> = taps.iter().map(|tap| tap.has_ended()).collect();
    assert_eq!(ended, [false, false, false, false, true]);
}
