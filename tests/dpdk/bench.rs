//! What the scenarios share: child processes, deadlines, frames, sums.

use std::env;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sealane::nic::dpdk::{Buffer, Hugepages, PortSettings, Queue, Segmentation, Settings, Signal};
use sealane::nic::{Frame, QueuePair};

pub(crate) const CHILD: &str = "SEALANE_DPDK_TEST_CHILD";
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `scenario` in a child process that `wrap` starts, and fails with it.
pub(crate) fn in_child(test: &str, wrap: &[&str], scenario: impl FnOnce()) {
    if env::var_os(CHILD).is_some() {
        return scenario();
    }
    let executable = env::current_exe().unwrap();
    let mut words: Vec<&str> = wrap.to_vec();
    words.push(executable.to_str().unwrap());
    words.extend([test, "--exact", "--nocapture", "--test-threads=1"]);
    let child = Command::new(words[0]).args(&words[1..]).env(CHILD, "1").stdin(Stdio::null()).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    // A name that no test has is a success to the harness.
    let passed = child.status.success() && said.contains("1 passed");
    assert!(passed, "{test} failed in its child: {}\n{said}\n{complained}", child.status);
}

pub(crate) fn settings(device: &str, lanes: &[usize]) -> Settings {
    Settings {
        lanes: lanes.to_vec(),
        control_core: 0,
        ports: vec![PortSettings { name: "front".into(), device: device.into(), mtu: 1500, vlan: None, kernel: None }],
        hugepages: Hugepages::Never,
        buffers: 4096,
        segmentation: Segmentation::Auto,
        file_prefix: "sealane-test".into(),
    }
}

/// A deadline that fails the test, by a panic in the lane that looks at it.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn new() -> Self {
        Self(Instant::now() + PATIENCE)
    }

    pub(crate) fn check(self, what: &str) {
        assert!(Instant::now() < self.0, "{what} took longer than {PATIENCE:?}");
    }
}

pub(crate) fn never(_: Signal) -> bool {
    false
}

/// A frame of a length and content that depend on the lane and a running number.
pub(crate) fn pattern(lane: usize, number: usize) -> Vec<u8> {
    let len = 60 + number % 1455;
    (0..len).map(|at| (at ^ number ^ (lane << 7)) as u8).collect()
}

pub(crate) fn filled(queue: &mut Queue, bytes: &[u8]) -> Option<Buffer> {
    let mut frame = queue.allocate()?;
    frame.room()[..bytes.len()].copy_from_slice(bytes);
    frame.set_len(bytes.len());
    Some(frame)
}

/// Free hugepages of 2 MiB.
pub(crate) fn free_hugepages() -> usize {
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    free.ok().and_then(|free| free.trim().parse().ok()).unwrap_or(0)
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The sum of 16-bit words, an odd byte padded with zero (RFC 1071).
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let word = |word: &[u8]| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    bytes.chunks(2).map(word).sum()
}

pub(crate) fn fold(sum: u32) -> u16 {
    let once = (sum >> 16) + (sum & 0xffff);
    ((once >> 16) + (once & 0xffff)) as u16
}
