//! A tap in a network namespace: the kernel is the neighbour.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{self, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, thread};

use sealane::nic::dpdk::{Buffer, Engine, Hugepages, Queue};
use sealane::nic::{Frame, QueuePair, ReceivedChecksum};

use crate::bench::{CHILD, Deadline, PATIENCE, filled, fold, in_child, never, run, settings, sum};

/// A network namespace of this test's own.
struct Namespace(String);

impl Namespace {
    fn new(what: &str) -> Self {
        let name = format!("sealane-{what}-{}", process::id());
        run("ip", &["netns", "add", &name]);
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).output();
    }
}

/// The engine's end of the tap in these tests.
const ENGINE4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const ENGINE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

#[test]
fn a_tap_carries_frames_both_ways_and_disappears() {
    let child = env::var_os(CHILD).is_some();
    let namespace = (!child).then(|| Namespace::new("tap"));
    let wrap: Vec<&str> = namespace.iter().flat_map(|namespace| ["ip", "netns", "exec", &namespace.0]).collect();
    in_child("tap::a_tap_carries_frames_both_ways_and_disappears", &wrap, || {
        let mut settings = settings("net_tap0,iface=sl0", &[0, 1]);
        settings.ports[0].mtu = 1400;
        settings.buffers = 16_384;
        settings.hugepages = Hugepages::Auto;
        let engine = Engine::start(&settings).unwrap();
        let mac = engine.ports().next().unwrap().mac.to_string().replace('-', ":");
        let (stopper, deadline) = (engine.stopper(), Deadline::new());
        let solicited = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&solicited);
        let kernel = thread::spawn(move || {
            let outcome = std::panic::catch_unwind(|| talk(&mac, &seen, deadline));
            stopper.stop();
            if let Err(panic) = outcome {
                std::panic::resume_unwind(panic);
            }
        });
        let lane = |_| {
            let solicited = Arc::clone(&solicited);
            move |mut queues: Vec<Queue>| {
                let (mut arrived, mut out) = (Vec::new(), Vec::new());
                move || {
                    deadline.check("the kernel");
                    let queue = &mut queues[0];
                    queue.receive(&mut arrived);
                    out.extend(arrived.drain(..).filter_map(|frame| reply(queue, frame, &solicited)));
                    queue.transmit(&mut out);
                    thread::yield_now();
                }
            }
        };
        let lanes = (0..2).map(lane).collect();
        let ended = engine.run(lanes, never);
        kernel.join().unwrap();
        assert_eq!(ended.unwrap().in_use, 0);
        let link = Command::new("ip").args(["link", "show", "sl0"]).output().unwrap();
        assert!(!link.status.success(), "the tap is still there");
    });
}

/// The kernel's side of the conversation.
fn talk(mac: &str, solicited: &AtomicBool, deadline: Deadline) {
    run("ip", &["address", "add", "198.18.0.1/16", "dev", "sl0"]);
    run("ip", &["address", "add", "2001:db8::1/64", "dev", "sl0", "nodad"]);
    run("ip", &["link", "set", "sl0", "up"]);
    run("ip", &["neighbour", "replace", "198.18.0.2", "lladdr", mac, "dev", "sl0"]);
    run("ip", &["neighbour", "replace", "2001:db8::2", "lladdr", mac, "dev", "sl0"]);
    let link = Command::new("ip").args(["link", "show", "sl0"]).output().unwrap();
    let link = String::from_utf8_lossy(&link.stdout).into_owned();
    assert!(link.contains("mtu 1400"), "{link}");
    assert!(!link.contains(mac), "both ends of the tap have the address {mac}: {link}");

    for address in [SocketAddr::from((ENGINE4, 7)), SocketAddr::from((ENGINE6, 7))] {
        let local = if address.is_ipv4() { "198.18.0.1:0" } else { "[2001:db8::1]:0" };
        let socket = UdpSocket::bind(local).unwrap();
        socket.connect(address).unwrap();
        // The kernel drops what it is given before it has seen the carrier.
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let reaches = || socket.send(b"?").is_ok() && socket.recv(&mut [0; 9]).is_ok();
        while !reaches() {
            deadline.check("the first answer");
        }
        // From here on nothing may be lost.
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for number in (0..500u32).map(|n| (n % 50) as u8) {
            let sent = vec![number; 1 + usize::from(number) * 20];
            socket.send(&sent).unwrap();
            let mut back = [0; 2000];
            let mut len = socket.recv(&mut back).unwrap();
            while &back[..len] == b"?" {
                len = socket.recv(&mut back).unwrap();
            }
            assert_eq!(&back[..len], sent, "{address}");
        }
        // The lane answers with a RST whose checksum the port computes; with a wrong one the kernel would go on waiting.
        let refused = TcpStream::connect_timeout(&SocketAddr::new(address.ip(), 81), PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{address}");
    }

    // Nobody has this address, so the kernel asks by multicast.
    let socket = UdpSocket::bind("[2001:db8::1]:0").unwrap();
    socket.send_to(b"?", "[2001:db8::99]:7").unwrap();
    while !solicited.load(Ordering::Acquire) {
        deadline.check("a neighbour solicitation");
        thread::yield_now();
    }
}

/// What the lane answers: UDP as it came, a TCP SYN with a RST.
fn reply(queue: &mut Queue, mut frame: Buffer, solicited: &AtomicBool) -> Option<Buffer> {
    let bytes = frame.bytes().to_vec();
    if bytes[..4] == [0x33, 0x33, 0xff, 0x00] && bytes[54] == 135 {
        solicited.store(true, Ordering::Release);
    }
    let (ip_len, protocol, addresses, address_len) = match bytes[12..14] {
        [0x08, 0x00] => (20, bytes[23], 26, 4),
        [0x86, 0xdd] => (40, bytes[20], 22, 16),
        _ => return None,
    };
    let port = 14 + ip_len;
    if bytes.len() < port + 4 || !(bytes[port + 2..port + 4] == [0, 7] || bytes[port + 2..port + 4] == [0, 81]) {
        return None;
    }
    assert_ne!(frame.received_checksum(), ReceivedChecksum::Bad);
    let mut answer = bytes.clone();
    let mut swap = |at: usize, len: usize| {
        answer[at..at + len].copy_from_slice(&bytes[at + len..at + 2 * len]);
        answer[at + len..at + 2 * len].copy_from_slice(&bytes[at..at + len]);
    };
    swap(0, 6);
    swap(addresses, address_len);
    swap(port, 2);
    if protocol == 17 {
        // Swapping the ends changes no checksum.
        frame.room()[..answer.len()].copy_from_slice(&answer);
        return Some(frame);
    }
    let number = u32::from_be_bytes(bytes[port + 4..port + 8].try_into().unwrap()).wrapping_add(1);
    answer.truncate(port + 20);
    answer[port + 4..port + 8].fill(0);
    answer[port + 8..port + 12].copy_from_slice(&number.to_be_bytes());
    answer[port + 12] = 5 << 4;
    answer[port + 13] = 0x14;
    let total = if ip_len == 20 { 16..18 } else { 18..20 };
    let total_len = if ip_len == 20 { 40u16 } else { 20 };
    answer[total].copy_from_slice(&total_len.to_be_bytes());
    answer[port + 16..port + 18]
        .copy_from_slice(&pseudo_sum(&bytes[addresses..addresses + 2 * address_len]).to_be_bytes());
    if ip_len == 20 {
        answer[24..26].fill(0xaa);
    }
    let mut answer = filled(queue, &answer)?;
    assert!(queue.port().offload.transmit_checksum, "net_tap computes checksums");
    answer.offload_checksum(ip_len, ip_len == 40);
    Some(answer)
}

/// The folded sum of the pseudo header of a 20-byte TCP segment, not complemented.
fn pseudo_sum(addresses: &[u8]) -> u16 {
    fold(sum(addresses) + 6 + 20)
}
