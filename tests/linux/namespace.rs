//! Network namespaces without names, and TUN devices in them.
//!
//! A namespace lives as long as its file is open and the device as long as its descriptor, so nothing is left behind, however the process ends.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;
use std::thread;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::time::TimeSpec;
use nix::unistd::{Uid, getgid};
use sealane::base::{Duration, Instant};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Packets that a device holds for whoever reads it: so many that only the relay's own queues are ever full.
const QUEUE: u32 = 10_000;

/// Becomes root of a user namespace, where the process is not root already. Must come before the first thread.
pub(crate) fn become_root() -> io::Result<()> {
    let (uid, gid) = (Uid::effective(), getgid());
    if uid.is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let namespace = Self(made.join().expect("no panic").expect("root may make network namespaces"));
        namespace.run("ip link set lo up");
        namespace
    }

    /// Calls `inside` on a thread of this namespace, and waits for it. Threads that it starts are in there, too.
    pub(crate) fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("the namespace is open");
                inside()
            });
            thread.join().expect("no panic")
        })
    }

    /// Runs a command, which must succeed.
    pub(crate) fn run(&self, command: &str) {
        let words: Vec<_> = command.split(' ').collect();
        let output = self.enter(|| Command::new(words[0]).args(&words[1..]).output().expect("iproute2 is installed"));
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Sets a key of `/proc/sys/net`.
    pub(crate) fn set(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/net/{key}");
        self.enter(|| fs::write(&path, value)).unwrap_or_else(|why| panic!("{path}: {why}"));
    }

    /// Opens a TUN device of this name, which is up and has no address.
    pub(crate) fn tun(&self, name: &str) -> Tun {
        let device = self.enter(|| DeviceBuilder::new().name(name).build_sync().expect("/dev/net/tun works"));
        device.set_nonblocking(true).expect("a descriptor can be made so");
        self.run(&format!("ip link set {name} mtu 1500 txqueuelen {QUEUE} addrgenmode none up"));
        Tun(device)
    }
}

/// The other end of a TUN device: whole IP packets.
pub(crate) struct Tun(SyncDevice);

impl Tun {
    /// The next packet, if one is there.
    pub(crate) fn receive(&self, room: &mut [u8]) -> Option<usize> {
        match self.0.recv(room) {
            Ok(len) => Some(len),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => None,
            Err(why) => panic!("a TUN device cannot be read: {why}"),
        }
    }

    /// Gives a packet to the kernel.
    pub(crate) fn send(&self, packet: &[u8]) {
        self.0.send(packet).expect("a TUN device takes packets");
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of these can be read, for `limit` at most.
pub(crate) fn wait<const N: usize>(tuns: [&Tun; N], limit: Duration) {
    let mut fds = tuns.map(|tun| PollFd::new(tun.as_fd(), PollFlags::POLLIN));
    // A signal ends the wait early, which harms nobody.
    let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(limit)), None);
}

/// The monotonic clock of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::START + self.0.elapsed()
    }
}
