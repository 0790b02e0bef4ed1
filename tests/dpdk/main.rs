//! The real thing: engines over DPDK's ring and tap devices. Needs root; makes its own network namespaces.
//!
//! DPDK starts once a process, so each scenario runs in a child: the same test of the same executable, started again with [`CHILD`] set.
#![cfg(feature = "dpdk")]
#![expect(clippy::disallowed_methods, reason = "watches real devices against real deadlines")]
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::cast_possible_truncation, reason = "test patterns wrap")]

mod bench;
mod tap;

use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::{env, thread};

use bench::{CHILD, Deadline, PATIENCE, filled, fold, free_hugepages, in_child, never, pattern, run, settings, sum};
use sealane::nic::dpdk::{Buffer, Engine, Error, Hugepages, Queue, Segmentation, Settings, Signal, Stopper};
use sealane::nic::{Frame, QueuePair, ReceivedChecksum};

/// Names the vhost socket to a test's second half, which is its client.
const SOCKET: &str = "SEALANE_DPDK_TEST_SOCKET";

/// A lane that sends frames into its ring and expects them back in order; the last one to be done stops the engine.
fn echoes(engine: &Engine) -> Vec<impl FnOnce(Vec<Queue>) -> Box<dyn FnMut()> + Send + use<>> {
    const FRAMES: usize = 20_000;
    let left = Arc::new(AtomicUsize::new(engine.lanes()));
    let deadline = Deadline::new();
    let lane = |lane| {
        let (left, stopper) = (Arc::clone(&left), engine.stopper());
        move |mut queues: Vec<Queue>| {
            let (mut sent, mut received) = (0, 0);
            let (mut out, mut arrived) = (Vec::new(), Vec::new());
            Box::new(move || {
                deadline.check("the ring");
                let queue = &mut queues[0];
                while sent < FRAMES && sent - received < 100 {
                    out.extend(filled(queue, &pattern(lane, sent)));
                    sent += 1;
                }
                assert_eq!(queue.transmit(&mut out), 0, "the ring has room for 100 frames");
                queue.receive(&mut arrived);
                for frame in arrived.drain(..) {
                    assert_eq!(frame.bytes(), pattern(lane, received), "frame {received}");
                    received += 1;
                    if received == FRAMES {
                        assert!(queue.buffers().unwrap().in_use > 0, "this frame is one");
                        if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                            stopper.stop();
                        }
                    }
                }
                thread::yield_now();
            }) as Box<dyn FnMut()>
        }
    };
    (0..engine.lanes()).map(lane).collect()
}

#[test]
fn frames_come_back_intact_on_two_lanes_and_every_buffer_returns() {
    in_child("frames_come_back_intact_on_two_lanes_and_every_buffer_returns", &[], || {
        let engine = Engine::start(&settings("net_ring0", &[0, 1])).unwrap();
        assert_eq!(engine.buffers().capacity, 4096);
        let lanes = echoes(&engine);
        assert_eq!(engine.run(lanes, never).unwrap().in_use, 0);
    });
}

#[test]
fn one_lane_runs_on_the_control_core() {
    in_child("one_lane_runs_on_the_control_core", &[], || {
        let engine = Engine::start(&settings("net_ring0", &[0])).unwrap();
        let lanes = echoes(&engine);
        assert_eq!(engine.run(lanes, never).unwrap().in_use, 0);
    });
}

#[test]
fn a_lane_runs_beside_the_control_core() {
    in_child("a_lane_runs_beside_the_control_core", &[], || {
        let engine = Engine::start(&settings("net_ring0", &[1])).unwrap();
        let lanes = echoes(&engine);
        assert_eq!(engine.run(lanes, never).unwrap().in_use, 0);
    });
}

#[test]
fn an_exhausted_pool_gives_no_frame_and_recovers() {
    in_child("an_exhausted_pool_gives_no_frame_and_recovers", &[], || {
        let engine = Engine::start(&settings("net_null0", &[1])).unwrap();
        let stopper = engine.stopper();
        let lane = move |mut queues: Vec<Queue>| {
            move || {
                let mut frames = Vec::new();
                while let Some(frame) = queues[0].allocate() {
                    frames.push(frame);
                    assert!(frames.len() <= 4096, "more buffers than there are");
                }
                let buffers = queues[0].buffers().unwrap();
                assert_eq!(buffers.in_use, frames.len());
                assert!(
                    buffers.in_use + 2 * 192 >= buffers.capacity,
                    "only lanes' caches keep buffers back: {buffers:?}"
                );
                frames.truncate(10);
                assert_eq!(queues[0].buffers().unwrap().in_use, 10);
                assert!(queues[0].allocate().is_some());
                stopper.stop();
            }
        };
        assert_eq!(engine.run(vec![lane], never).unwrap().in_use, 0);
    });
}

#[test]
fn a_frame_that_outlives_the_engine_keeps_its_memory() {
    in_child("a_frame_that_outlives_the_engine_keeps_its_memory", &[], || {
        let engine = Engine::start(&settings("net_null0", &[1])).unwrap();
        let stopper = engine.stopper();
        let (keep, kept) = mpsc::channel();
        let lane = move |mut queues: Vec<Queue>| {
            move || {
                keep.send(filled(&mut queues[0], b"still here").unwrap()).unwrap();
                stopper.stop();
            }
        };
        assert_eq!(engine.run(vec![lane], never).unwrap().in_use, 1);
        let frame = kept.recv().unwrap();
        assert_eq!(frame.bytes(), b"still here");
    });
}

#[test]
fn signals_reach_control_and_a_stop_waits_for_every_lane() {
    in_child("signals_reach_control_and_a_stop_waits_for_every_lane", &[], || {
        struct Dropped(Arc<AtomicUsize>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::AcqRel);
            }
        }
        let engine = Engine::start(&settings("net_null0", &[0, 1])).unwrap();
        let (deadline, dropped) = (Deadline::new(), Arc::new(AtomicUsize::new(0)));
        let breathing = Arc::new(AtomicUsize::new(0));
        let lane = |_| {
            let (dropped, breathing) = (Dropped(Arc::clone(&dropped)), Arc::clone(&breathing));
            move |queues: Vec<Queue>| {
                breathing.fetch_add(1, Ordering::AcqRel);
                move || {
                    let _ = (&queues, &dropped);
                    deadline.check("a signal");
                    thread::yield_now();
                }
            }
        };
        let lanes = (0..2).map(lane).collect();
        let (signals, seen) = mpsc::channel();
        let control = thread::spawn(move || {
            // The handlers are in place once lanes breathe on the main thread's core.
            while breathing.load(Ordering::Acquire) < 2 {
                deadline.check("the lanes");
                thread::yield_now();
            }
            kill("-HUP");
            assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), Signal::Hangup);
            kill("-TERM");
            assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), Signal::Terminate);
        });
        let on_signal = move |signal| {
            signals.send(signal).unwrap();
            signal == Signal::Terminate
        };
        assert_eq!(engine.run(lanes, on_signal).unwrap().in_use, 0);
        assert_eq!(dropped.load(Ordering::Acquire), 2);
        control.join().unwrap();
    });
}

fn kill(signal: &str) {
    run("kill", &[signal, &process::id().to_string()]);
}

#[test]
fn a_stop_before_the_run_ends_it_at_once() {
    in_child("a_stop_before_the_run_ends_it_at_once", &[], || {
        let engine = Engine::start(&settings("net_null0", &[0, 1])).unwrap();
        engine.stopper().stop();
        let lane = |queues: Vec<Queue>| {
            move || {
                let _ = &queues;
            }
        };
        assert_eq!(engine.run(vec![lane, lane], never).unwrap().in_use, 0);
    });
}

#[test]
fn a_lane_that_panics_stops_the_engine_with_an_error() {
    in_child("a_lane_that_panics_stops_the_engine_with_an_error", &[], || {
        let engine = Engine::start(&settings("net_null0", &[0, 1])).unwrap();
        let deadline = Deadline::new();
        let lane = |number| {
            move |mut queues: Vec<Queue>| {
                let frame = queues[0].allocate();
                move || {
                    deadline.check("the other lane");
                    assert!(number == 0 || frame.is_none(), "as the test wants");
                    thread::yield_now();
                }
            }
        };
        let ended = engine.run((0..2).map(lane).collect(), never);
        assert!(matches!(ended, Err(Error::LanePanicked { lane: 1 })), "{ended:?}");
    });
}

#[test]
fn without_hugepages_the_engine_falls_back_unless_they_are_required() {
    // The child sees a kernel that has none, whatever this one has.
    let hide = "mount -t tmpfs none /sys/kernel/mm/hugepages && exec \"$@\"";
    let wrap = ["unshare", "--mount", "sh", "-c", hide, "sh"];
    in_child("without_hugepages_the_engine_falls_back_unless_they_are_required", &wrap, || {
        let with = |hugepages| Settings { hugepages, ..settings("net_ring0", &[0, 1]) };
        let error = Engine::start(&with(Hugepages::Require)).unwrap_err();
        assert!(error.to_string().contains("echo 37 > /sys/kernel/mm/hugepages/"), "{error}");
        let engine = Engine::start(&with(Hugepages::Auto)).unwrap();
        let lanes = echoes(&engine);
        assert_eq!(engine.run(lanes, never).unwrap().in_use, 0);
    });
}

#[test]
fn hugepages_are_used_where_the_kernel_has_them() {
    if free_hugepages() < 64 {
        eprintln!("not tested: this machine has no 64 free hugepages of 2 MiB; `scripts/setup` reserves some");
        return;
    }
    in_child("hugepages_are_used_where_the_kernel_has_them", &[], || {
        let settings = Settings { hugepages: Hugepages::Require, ..settings("net_ring0", &[0, 1]) };
        let engine = Engine::start(&settings).unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(maps.lines().any(|line| line.starts_with("KernelPageSize:") && line.contains("2048 kB")));
        let lanes = echoes(&engine);
        assert_eq!(engine.run(lanes, never).unwrap().in_use, 0);
    });
}

#[test]
fn a_port_that_computes_no_checksums_sends_right_ones_all_the_same() {
    in_child("a_port_that_computes_no_checksums_sends_right_ones_all_the_same", &[], || {
        let engine = Engine::start(&settings("net_ring0", &[1])).unwrap();
        assert!(!engine.ports().next().unwrap().offload.transmit_checksum);
        let (stopper, deadline) = (engine.stopper(), Deadline::new());
        let lane = move |mut queues: Vec<Queue>| {
            let mut frames = Vec::new();
            for segment in [tcp_frame(20), tcp_frame(40)] {
                let mut frame = filled(&mut queues[0], &segment).unwrap();
                let ip_len = segment.len() - 14 - 27;
                frame.offload_checksum(ip_len, ip_len == 40);
                frames.push(frame);
            }
            assert_eq!(queues[0].transmit(&mut frames), 0);
            move || {
                deadline.check("the ring");
                queues[0].receive(&mut frames);
                if frames.len() < 2 {
                    return;
                }
                for frame in &frames {
                    let bytes = frame.bytes();
                    let ip_len = bytes.len() - 14 - 27;
                    let addresses = if ip_len == 20 { &bytes[26..34] } else { &bytes[22..54] };
                    assert_eq!(fold(sum(addresses) + 6 + 27 + sum(&bytes[14 + ip_len..])), 0xffff);
                    assert!(ip_len == 40 || fold(sum(&bytes[14..34])) == 0xffff);
                }
                stopper.stop();
            }
        };
        assert_eq!(engine.run(vec![lane], never).unwrap().in_use, 0);
    });
}

/// A TCP segment with 7 bytes of data and no right checksum, under an IPv4 or an IPv6 header.
fn tcp_frame(ip_len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..14 + ip_len + 27).map(|at| at as u8).collect();
    if ip_len == 20 {
        frame[12..18].copy_from_slice(&[0x08, 0x00, 0x45, 0, 0, 47]);
        // A fragment has no checksum of its own.
        frame[20..22].fill(0);
        frame[23] = 6;
    } else {
        frame[12..21].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 27, 6]);
    }
    frame[14 + ip_len + 12] = 5 << 4;
    frame
}

#[test]
fn engines_meet_over_a_vhost_user_socket() {
    const TEST: &str = "engines_meet_over_a_vhost_user_socket";
    let with = |device: &str| Settings { hugepages: Hugepages::Require, ..settings(device, &[0, 1]) };
    if let Some(socket) = env::var_os(SOCKET) {
        // The client sends, and expects each frame back from the server, on whichever lane.
        let device = format!("net_virtio_user0,path={},queues=2,queue_size=256", socket.to_str().unwrap());
        let engine = Engine::start(&with(&device)).unwrap();
        let (back, deadline) = (Arc::new(AtomicUsize::new(0)), Deadline::new());
        let lane = |_| {
            let (back, stopper) = (Arc::clone(&back), engine.stopper());
            move |mut queues: Vec<Queue>| {
                let (mut out, mut arrived) = (Vec::new(), Vec::new());
                move || {
                    deadline.check("the server");
                    out.extend(filled(&mut queues[0], &pattern(0, 1000)));
                    queues[0].transmit(&mut out);
                    queues[0].receive(&mut arrived);
                    for frame in arrived.drain(..) {
                        assert_eq!(frame.bytes(), pattern(0, 1000));
                        if back.fetch_add(1, Ordering::AcqRel) == 2_000 {
                            stopper.stop();
                        }
                    }
                    thread::yield_now();
                }
            }
        };
        let lanes = (0..2).map(lane).collect();
        assert_eq!(engine.run(lanes, never).unwrap().in_use, 0);
        return;
    }
    if free_hugepages() < 160 {
        eprintln!("not tested: this machine has no 160 free hugepages of 2 MiB; `scripts/setup` reserves some");
        return;
    }
    in_child(TEST, &[], || {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("vhost");
        let device = format!("net_vhost0,iface={},queues=2", socket.to_str().unwrap());
        let engine = Engine::start(&with(&device)).unwrap();
        let (stopper, deadline) = (engine.stopper(), Deadline::new());
        let client = client_of(TEST, socket, stopper);
        let lane = |_| {
            move |mut queues: Vec<Queue>| {
                let mut frames = Vec::new();
                move || {
                    deadline.check("the client");
                    queues[0].receive(&mut frames);
                    queues[0].transmit(&mut frames);
                    thread::yield_now();
                }
            }
        };
        let ended = engine.run((0..2).map(lane).collect(), never);
        client.join().unwrap();
        assert_eq!(ended.unwrap().in_use, 0);
    });
}

#[test]
fn checksums_that_a_virtio_peer_leaves_out_count_as_good() {
    const TEST: &str = "checksums_that_a_virtio_peer_leaves_out_count_as_good";
    let with = |device: &str| Settings { hugepages: Hugepages::Require, ..settings(device, &[0]) };
    if let Some(socket) = env::var_os(SOCKET) {
        let engine = Engine::start(&with(&format!("net_virtio_user0,path={}", socket.to_str().unwrap()))).unwrap();
        assert!(engine.ports().next().unwrap().offload.transmit_checksum);
        let (stopper, deadline) = (engine.stopper(), Deadline::new());
        let lane = move |mut queues: Vec<Queue>| {
            let mut frames = Vec::new();
            move || {
                deadline.check("the server");
                for segment in [tcp_frame(20), tcp_frame(40)] {
                    let mut frame = filled(&mut queues[0], &segment).unwrap();
                    let ip_len = segment.len() - 14 - 27;
                    frame.offload_checksum(ip_len, ip_len == 40);
                    frames.push(frame);
                }
                queues[0].transmit(&mut frames);
                queues[0].receive(&mut frames);
                if !frames.is_empty() {
                    stopper.stop();
                }
                frames.clear();
                thread::yield_now();
            }
        };
        assert_eq!(engine.run(vec![lane], never).unwrap().in_use, 0);
        return;
    }
    if free_hugepages() < 160 {
        eprintln!("not tested: this machine has no 160 free hugepages of 2 MiB; `scripts/setup` reserves some");
        return;
    }
    in_child(TEST, &[], || {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("vhost");
        let engine = Engine::start(&with(&format!("net_vhost0,iface={}", socket.to_str().unwrap()))).unwrap();
        let (stopper, deadline) = (engine.stopper(), Deadline::new());
        let client = client_of(TEST, socket, stopper);
        let lane = move |mut queues: Vec<Queue>| {
            let (mut frames, mut good) = (Vec::new(), 0);
            move || {
                deadline.check("the client");
                queues[0].receive(&mut frames);
                for frame in frames.drain(..) {
                    assert_eq!(frame.received_checksum(), ReceivedChecksum::Good, "{:?}", frame.bytes());
                    good += 1;
                }
                // The client goes when it hears something.
                if good >= 2 {
                    frames.extend(filled(&mut queues[0], &pattern(0, 100)));
                    queues[0].transmit(&mut frames);
                }
                thread::yield_now();
            }
        };
        let ended = engine.run(vec![lane], never);
        client.join().unwrap();
        assert_eq!(ended.unwrap().in_use, 0);
    });
}

/// Data of a long frame.
const LONG: usize = 12_000;

/// A TCP segment with [`LONG`] bytes of data, under an IPv4 or an IPv6 header.
fn long_frame(ip_len: usize) -> Vec<u8> {
    let mut frame = tcp_frame(ip_len);
    frame.truncate(14 + ip_len + 20);
    let len = u16::try_from(20 + LONG).unwrap();
    if ip_len == 20 {
        frame[16..18].copy_from_slice(&(20 + len).to_be_bytes());
    } else {
        frame[18..20].copy_from_slice(&len.to_be_bytes());
    }
    // FIN, PSH and ACK, which the last part has.
    frame[14 + ip_len + 13] = 0x19;
    frame.extend((0..LONG).map(|at| (at / 7) as u8));
    frame
}

/// Takes long frames as the server of a vhost socket until `is_enough`, and then answers with one.
fn take_long_frames(
    test: &'static str,
    segmentation: Segmentation,
    mut is_enough: impl FnMut(Buffer) -> bool + Send + 'static,
) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("vhost");
    let device = format!("net_vhost0,iface={},tso=1", socket.to_str().unwrap());
    let settings = Settings { hugepages: Hugepages::Require, segmentation, ..settings(&device, &[0]) };
    let engine = Engine::start(&settings).unwrap();
    assert_eq!(engine.ports().next().unwrap().offload.segmentation, segmentation == Segmentation::Always);
    let (stopper, deadline) = (engine.stopper(), Deadline::new());
    let client = client_of(test, socket, stopper);
    let lane = move |mut queues: Vec<Queue>| {
        let (mut frames, mut enough) = (Vec::new(), false);
        move || {
            deadline.check("the client");
            queues[0].receive(&mut frames);
            frames.drain(..).for_each(|frame| enough = is_enough(frame));
            if enough {
                // The client goes when it hears something.
                let mut answer = if segmentation == Segmentation::Always { long_frame(20) } else { tcp_frame(20) };
                answer[14 + 20 + 4] = 77;
                let mut frame = filled(&mut queues[0], &answer).unwrap();
                frame.offload_checksum(20, false);
                if segmentation == Segmentation::Always {
                    frame.offload_segmentation(20, false, 1448);
                }
                frames.push(frame);
                queues[0].transmit(&mut frames);
            }
            thread::yield_now();
        }
    };
    let ended = engine.run(vec![lane], never);
    client.join().unwrap();
    assert_eq!(ended.unwrap().in_use, 0);
}

/// Sends long frames as the client of a vhost socket until one comes back.
fn send_long_frames(socket: &std::ffi::OsStr, answer_len: usize) {
    let device = format!("net_virtio_user0,path={}", socket.to_str().unwrap());
    let engine = Engine::start(&Settings { hugepages: Hugepages::Require, ..settings(&device, &[0]) }).unwrap();
    assert!(engine.ports().next().unwrap().offload.segmentation);
    let (stopper, deadline) = (engine.stopper(), Deadline::new());
    let lane = move |mut queues: Vec<Queue>| {
        let mut frames = Vec::new();
        move || {
            deadline.check("the server");
            for ip_len in [20, 40] {
                let mut frame = filled(&mut queues[0], &long_frame(ip_len)).unwrap();
                frame.offload_segmentation(ip_len, ip_len == 40, 1448);
                frames.push(frame);
            }
            queues[0].transmit(&mut frames);
            queues[0].receive(&mut frames);
            for frame in frames.drain(..) {
                assert_eq!((frame.bytes().len(), frame.bytes()[14 + 20 + 4]), (answer_len, 77));
                assert_eq!(frame.received_checksum(), ReceivedChecksum::Good);
                stopper.stop();
            }
            thread::yield_now();
        }
    };
    assert_eq!(engine.run(vec![lane], never).unwrap().in_use, 0);
}

#[test]
fn long_frames_pass_uncut_between_virtio_peers() {
    const TEST: &str = "long_frames_pass_uncut_between_virtio_peers";
    if let Some(socket) = env::var_os(SOCKET) {
        return send_long_frames(&socket, long_frame(20).len());
    }
    if free_hugepages() < 160 {
        eprintln!("not tested: this machine has no 160 free hugepages of 2 MiB; `scripts/setup` reserves some");
        return;
    }
    in_child(TEST, &[], || {
        let mut count = 0;
        take_long_frames(TEST, Segmentation::Always, move |frame| {
            let ip_len = frame.bytes().len() - 14 - 20 - LONG;
            assert_eq!(frame.bytes()[14 + ip_len + 20..], long_frame(ip_len)[14 + ip_len + 20..]);
            assert_eq!(frame.received_checksum(), ReceivedChecksum::Good);
            count += 1;
            count >= 2
        });
    });
}

#[test]
fn long_frames_come_in_parts_where_buffers_are_short() {
    const TEST: &str = "long_frames_come_in_parts_where_buffers_are_short";
    if let Some(socket) = env::var_os(SOCKET) {
        return send_long_frames(&socket, tcp_frame(20).len());
    }
    if free_hugepages() < 160 {
        eprintln!("not tested: this machine has no 160 free hugepages of 2 MiB; `scripts/setup` reserves some");
        return;
    }
    in_child(TEST, &[], || {
        // The data of the frame that is coming in, by the length of its IP header.
        let (mut data, mut whole) = ([Vec::new(), Vec::new()], [false; 2]);
        take_long_frames(TEST, Segmentation::Never, move |frame| {
            let bytes = frame.bytes();
            let ipv6 = bytes[14] >> 4 == 6;
            let ip_len = if ipv6 { 40 } else { 20 };
            let (header, original) = (&bytes[..14 + ip_len + 20], long_frame(ip_len));
            assert!(bytes.len() <= 2048 + 128, "{} bytes", bytes.len());
            assert_eq!(frame.received_checksum(), ReceivedChecksum::Good);
            let data = &mut data[usize::from(ipv6)];
            let sequence =
                |frame: &[u8]| u32::from_be_bytes(frame[14 + ip_len + 4..14 + ip_len + 8].try_into().unwrap());
            assert_eq!(sequence(header), sequence(&original) + u32::try_from(data.len()).unwrap());
            data.extend_from_slice(&bytes[14 + ip_len + 20..]);
            let is_last = header[14 + ip_len + 13] == 0x19;
            assert_eq!(is_last, data.len() == LONG);
            if is_last {
                assert_eq!(*data, original[14 + ip_len + 20..]);
                data.clear();
                whole[usize::from(ipv6)] = true;
            }
            whole == [true; 2]
        });
    });
}

/// Runs the same test once more, as the client of a vhost socket, and stops the engine when that has ended.
fn client_of(test: &'static str, socket: PathBuf, stopper: Stopper) -> JoinHandle<()> {
    thread::spawn(move || {
        let client = Command::new(env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(SOCKET, &socket)
            .output();
        stopper.stop();
        let client = client.unwrap();
        assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
    })
}

#[test]
fn a_device_that_does_not_exist_is_named_with_a_remedy() {
    in_child("a_device_that_does_not_exist_is_named_with_a_remedy", &[], || {
        let error = Engine::start(&settings("net_nonsense0", &[0])).unwrap_err();
        assert!(matches!(error, Error::NoSuchDevice { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("front") && text.contains("net_nonsense0") && text.contains("NIC guide"), "{text}");
    });
}

#[test]
fn a_tap_that_cannot_be_made_is_named_with_a_remedy() {
    in_child("a_tap_that_cannot_be_made_is_named_with_a_remedy", &["unshare", "--net"], || {
        let error = Engine::start(&settings("net_tap0,iface=longer-than-an-interface-name", &[0])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("net_tap0") && text.contains("at most 15 characters"), "{text}");
    });
}

#[test]
fn two_engines_run_at_once() {
    in_child("two_engines_run_at_once", &[], || {
        let engine = Engine::start(&settings("net_ring0", &[0, 1])).unwrap();
        // A second process with the same prefix, while this one is up.
        let executable = env::current_exe().unwrap();
        let test = "one_lane_runs_on_the_control_core";
        let status = Command::new(executable).args([test, "--exact"]).env(CHILD, "1").output().unwrap().status;
        assert!(status.success());
        let lanes = echoes(&engine);
        assert_eq!(engine.run(lanes, never).unwrap().in_use, 0);
    });
}

#[test]
fn a_device_with_too_few_queues_is_named() {
    in_child("a_device_with_too_few_queues_is_named", &[], || {
        // A pcap device has as many queues as it is given files.
        let error = Engine::start(&settings("net_pcap0,rx_iface=lo,tx_iface=lo", &[0, 1])).unwrap_err();
        assert!(matches!(error, Error::TooFewQueues { queues: 1, lanes: 2, .. }), "{error:?}");
    });
}
