//! What a flood of SYNs costs whom: the attacker to make each frame, a lane to read and answer it, a lane to drop it unread.
//!
//! A host with a lane's queue, link layer and TCP gets frames of its own making, in bursts; CPU time of the thread, so that it means something on a
//! busy machine. A lane survives a flood without losing others' frames while dropping one costs it less than making one costs the attacker.
//!
//! `cargo bench --no-default-features --bench flood`

#[path = "common/cpu.rs"]
mod cpu;

use sealane::base::{Duration, Flow, Instant, Random};
use sealane::sim::host::{Host, mac};
use sealane::wire::{Ecn, Flags, Outgoing, SegmentOptions, Seq};

use cpu::cpu;

const ROUNDS: usize = 300;
/// What a breath reads under pressure, and what a queue holds.
const READ: usize = 128;
const QUEUE: usize = 1024;
const LOCAL: ([u8; 4], u16) = ([198, 18, 0, 1], 443);
const ATTACKER: [u8; 4] = [198, 18, 0, 2];

fn frame(port: u16, seq: u32) -> Vec<u8> {
    let flow = Flow::new((ATTACKER, port).into(), LOCAL.into());
    let flags = Flags { syn: true, ..Flags::default() };
    let (options, ecn, payload) = (SegmentOptions::default(), Ecn::NotEct, (&[][..], &[][..]));
    let header = [mac(1).0.as_slice(), &mac(2).0, &[8, 0]].concat();
    let mut packet = vec![0; 100];
    let outgoing = Outgoing { flow: &flow, seq: Seq(seq), ack: None, flags, window: 9999, options, ecn, payload };
    let len = outgoing.emit(&mut packet, false).expect("it fits");
    header.into_iter().chain(packet.into_iter().take(len)).collect()
}

/// A host that knows its attacker's Ethernet address.
fn host(now: Instant) -> Host {
    let mut host = Host::new(1, &["198.18.0.1/24"], &mut Random::from_seed(1));
    host.listen(LOCAL.into());
    let neighbour = mac(2).0;
    let arp =
        [&[0xff; 6], neighbour.as_slice(), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &neighbour, &ATTACKER, &[0; 6], &LOCAL.0];
    host.wire.push(&arp.concat(), 0);
    breath(&mut host, now);
    host
}

fn breath(host: &mut Host, now: Instant) {
    host.station.receive(now);
    host.station.transmit(now);
}

/// Median nanoseconds of a burst: to push it, and of the breath that meets it.
fn burst(host: &mut Host, len: usize, now: Instant) -> [u64; 2] {
    let mut random = Random::from_seed(len as u64);
    let mut spent = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let port = |random: &mut Random| u16::try_from(1024 + random.below(60_000)).expect("a port");
        let frames: Vec<_> = (0..len).map(|_| frame(port(&mut random), random.next_u32())).collect();
        let began = cpu();
        for frame in &frames {
            assert!(host.wire.push(frame, 0));
        }
        let pushed = cpu();
        breath(host, now);
        let done = cpu();
        while host.wire.pop_with(|_| ()).is_some() {}
        for (spent, time) in spent.iter_mut().zip([pushed - began, done - pushed]) {
            spent.push(time);
        }
    }
    spent.map(|mut spent| {
        spent.sort_unstable();
        spent.get(ROUNDS / 2).copied().expect("a median")
    })
}

fn main() {
    let now = Instant::START + Duration::from_secs(1);
    let mut host = host(now);
    let [pushed, read] = burst(&mut host, READ, now);
    let [_, mixed] = burst(&mut host, QUEUE, now);
    let counters = &host.handle.counters;
    let unread = (QUEUE - READ) as u64;
    println!("nanoseconds a frame, median of {ROUNDS} bursts");
    println!("  given to the queue           {:5}", pushed / READ as u64);
    println!("  a SYN, read and answered     {:5}", read / READ as u64);
    println!("  a SYN, dropped unread        {:5}", mixed.saturating_sub(read) / unread);
    println!(
        "  ({} answered by cookies, {} unread, {} replies dropped)",
        counters.tcp.cookies_sent.value(),
        counters.lane.openings_dropped.value(),
        counters.tcp.replies_dropped.value()
    );
}
