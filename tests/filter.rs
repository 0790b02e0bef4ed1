//! Filters of captures against libpcap's: Debian's tcpdump filters the same frames by the same words.

#![expect(clippy::indexing_slicing, reason = "an index out of range is a failed test here")]

use std::io::Write;
use std::process::{Command, Stdio};

use sealane::base::{Instant, Random};
use sealane::lane::capture::Filter;
use sealane::lane::capture::headers::Headers;
use sealane::nic::pcap;

/// Frames of all kinds that filters tell apart, whole: where words look there is something, or tcpdump rejects a frame whatever the words say.
fn frames(random: &mut Random) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for _ in 0..400 {
        let mut frame = vec![2; 12];
        match random.below(8) {
            0 => arp(&mut frame, random),
            1..=4 => ip(&mut frame, random),
            5 | 6 => ip6(&mut frame, random),
            _ => frame.extend_from_slice(&[0x88, 0xcc]),
        }
        frame.resize(frame.len().max(60) + 60, 0);
        frames.push(frame);
    }
    frames
}

fn one<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[usize::try_from(random.below(of.len() as u64)).expect("it is below a length")]
}

const HOSTS: [[u8; 4]; 4] = [[198, 18, 0, 1], [198, 18, 0, 10], [198, 19, 7, 1], [192, 0, 2, 1]];
const HOSTS6: [[u8; 4]; 3] = [[0, 0, 0, 1], [0, 0, 0, 10], [0, 7, 0, 1]];
const PORTS: [u16; 5] = [53, 80, 443, 8000, 40_000];
const PROTOCOLS: [u8; 6] = [6, 6, 17, 132, 1, 58];

fn transport(frame: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..2 {
        frame.extend_from_slice(&one(random, &PORTS).to_be_bytes());
    }
}

fn arp(frame: &mut Vec<u8>, random: &mut Random) {
    frame.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2]);
    frame.extend_from_slice(&one(random, &HOSTS));
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&one(random, &HOSTS));
}

fn ip(frame: &mut Vec<u8>, random: &mut Random) {
    let words = one(random, &[0x45, 0x45, 0x46, 0x4f]);
    // Most are no fragments; some are first ones, some later.
    let fragment = one(random, &[[0x40, 0], [0, 0], [0x20, 0], [0x20, 7], [0, 9]]);
    let protocol = one(random, &PROTOCOLS);
    frame.extend_from_slice(&[0x08, 0, words, 0, 0, 100, 0, 0, fragment[0], fragment[1], 64, protocol, 0, 0]);
    frame.extend_from_slice(&one(random, &HOSTS));
    frame.extend_from_slice(&one(random, &HOSTS));
    frame.resize(14 + usize::from(words & 0x0f) * 4, 1);
    transport(frame, random);
}

fn ip6(frame: &mut Vec<u8>, random: &mut Random) {
    let protocol = one(random, &PROTOCOLS);
    // A fragment header, or hop-by-hop options, which neither looks past.
    let next = one(random, &[protocol, protocol, protocol, 44, 0]);
    frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, next, 64]);
    for _ in 0..2 {
        frame.extend_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(&one(random, &HOSTS6));
    }
    if next == protocol {
        transport(frame, random);
    } else {
        frame.extend_from_slice(&[protocol, 0, 0, 1, 0, 0, 0, 7]);
        transport(frame, random);
    }
}

/// Words of every kind, with joins and brackets.
fn words(random: &mut Random, depth: u64) -> String {
    let mut text = term(random, depth);
    for _ in 0..random.below(3) {
        let join = one(random, &["and", "or", "&&", "||"]);
        text = format!("{text} {join} {}", term(random, depth));
    }
    text
}

fn term(random: &mut Random, depth: u64) -> String {
    let not = one(random, &["", "", "", "not ", "! "]);
    if depth > 0 && random.below(4) == 0 {
        return format!("{not}( {} )", words(random, depth - 1));
    }
    let end = one(random, &["", "", "src ", "dst ", "src or dst ", "src and dst ", "dst or src "]);
    let host = one(random, &HOSTS).map(|octet| octet.to_string()).join(".");
    let host6 = one(random, &["2001:db8::1", "2001:db8::a", "2001:db8::7:0:1"]);
    let port = one(random, &PORTS);
    let term = match random.below(12) {
        0 => one(random, &["tcp", "udp", "icmp", "icmp6", "arp", "ip", "ip6"]).to_owned(),
        1 => format!("{end}host {host}"),
        2 => format!("{end}host {host6}"),
        3 => format!("{}{end}host {host}", one(random, &["ip ", "arp "])),
        4 => format!("ip6 {end}host {host6}"),
        5 => {
            format!("{end}net {}", one(random, &["198.18.0.0/15", "198.18.0.0/24", "198.18", "198.18.0", "192.0.2.1"]))
        }
        6 => format!("{end}net {}", one(random, &["2001:db8::/32", "2001:db8::/127", "2001:db8:1::/48"])),
        7 => format!("{end}port {port}"),
        8 => format!("{}{end}port {port}", one(random, &["tcp ", "udp "])),
        9 => format!("{end}portrange {}", one(random, &["53-80", "1-65535", "443-443", "8000-40000"])),
        // A value alone has the words of the one before.
        10 => format!("{end}port {port} or {}", one(random, &PORTS)),
        _ => format!("{end}host ({host} or {})", one(random, &HOSTS).map(|octet| octet.to_string()).join(".")),
    };
    format!("{not}{term}")
}

/// The numbers of the frames that tcpdump lets pass.
fn by_tcpdump(file: &[u8], text: &str) -> Vec<usize> {
    let mut command = Command::new("tcpdump");
    // As root it gives its rights away, and with them a pipe.
    command.args(["-Z", "root", "-r", "-", "-w", "-", "--time-stamp-precision=nano", text]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("tcpdump is not there: run scripts/setup");
    let mut input = child.stdin.take().expect("it is piped");
    let file = file.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&file));
    let output = child.wait_with_output().expect("it is a child");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let written = writer.join().expect("it does not panic");
    if told.contains("expression rejects all packets") {
        return Vec::new();
    }
    assert!(output.status.success(), "{text}: {told}");
    written.expect("tcpdump reads all of it");
    let mut rest = &output.stdout[24..];
    let mut numbers = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| usize::from(rest[at]) | usize::from(rest[at + 1]) << 8 | usize::from(rest[at + 2]) << 16;
        // Each frame's time is its number.
        numbers.push(word(4));
        rest = &rest[16 + word(8)..];
    }
    numbers
}

#[test]
fn a_filter_takes_the_frames_that_tcpdump_takes() {
    let mut random = Random::from_seed(7);
    let frames = frames(&mut random);
    let mut writer = pcap::Writer::new(Vec::new()).unwrap();
    for (number, frame) in (0..).zip(&frames) {
        writer.write(Instant::from_nanos(number), frame).unwrap();
    }
    let file = writer.finish().unwrap();
    let (mut some, mut all) = (0, 0);
    for _ in 0..200 {
        let text = words(&mut random, 2);
        let filter = Filter::parse(&text).unwrap_or_else(|wrong| panic!("{wrong}"));
        let ours: Vec<_> = (0..frames.len()).filter(|number| filter.matches(&Headers::of(&frames[*number]))).collect();
        assert_eq!(ours, by_tcpdump(&file, &text), "{text}");
        all += 1;
        some += usize::from(!ours.is_empty() && ours.len() < frames.len());
    }
    // Filters that take all or nothing show little.
    assert!(some * 2 > all, "{some} of {all}");
}
