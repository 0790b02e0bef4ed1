//! What net_tap does not do itself: its arrival signals reach one thread, and it carries jumbo frames.
//!
//! The driver reads a tap only after a realtime signal has told it that a frame arrived. The signal's handler adds one to a counter without a
//! lock, and the kernel may run it on several threads of the process at once: an update is lost, and a frame waits until the next one comes.
//! Signals that all go to one thread cannot overtake each other.

use std::ffi::c_char;
use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;

use capsule_ffi as ffi;

/// Directs the signals of every tap that this process has open to the calling thread. Says so in the log when it cannot.
pub(super) fn claim_signals() {
    let taps = open_taps();
    let claimed = taps.iter().filter(|&&tap| claim(tap)).count();
    if claimed < taps.len() {
        tracing::warn!(
            taps = taps.len(),
            claimed,
            "cannot direct a tap's signals to one thread: a frame may wait for the next one"
        );
    }
}

/// Has the driver send packets as long as the MTU on a port that is started.
///
/// # Panics
/// When the driver is not the one of DPDK 22.11.
pub(super) fn carry(port: u16, mtu: usize) {
    // SAFETY: the port is a tap, has been started, and is stopped only after its lanes have ended.
    let answer = unsafe { ffi::sealane_tap_mtu(port, u16::try_from(mtu).unwrap_or(u16::MAX)) };
    assert_eq!(answer, 0, "net_tap is not that of DPDK 22.11: it does not carry {mtu} bytes");
}

/// Sets the MTU of the interface at the kernel's end of a tap.
pub(super) fn set_mtu(interface: u32, mtu: usize) -> io::Result<()> {
    let mtu = libc::c_int::try_from(mtu).unwrap_or(libc::c_int::MAX);
    let mut request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_mtu: mtu } };
    let name: *mut c_char = request.ifr_name.as_mut_ptr();
    // SAFETY: `name` has room for IFNAMSIZ bytes, which is what the function writes at most.
    if unsafe { libc::if_indextoname(interface, name) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    // Any socket will do to speak to the interface.
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::]:0"))?;
    // SAFETY: the kernel reads `request` during the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU, &raw const request) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

// fcntl commands of Linux that the libc crate lacks, with the structure that they take.
const F_GETSIG: libc::c_int = 11;
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

#[repr(C)]
struct Owner {
    kind: libc::c_int,
    id: libc::pid_t,
}

/// Descriptors of tap queues that send signals.
fn open_taps() -> Vec<RawFd> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let number = |path: &Path| path.file_name()?.to_str()?.parse().ok();
    entries
        .filter_map(Result::ok)
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == Path::new("/dev/net/tun")))
        .filter_map(|entry| number(&entry.path()))
        // SAFETY: reads a number that the kernel keeps for the descriptor.
        .filter(|&tap| unsafe { libc::fcntl(tap, F_GETSIG) } > 0)
        .collect()
}

fn claim(tap: RawFd) -> bool {
    // SAFETY: has no preconditions.
    let id = unsafe { libc::gettid() };
    let owner = Owner { kind: F_OWNER_TID, id };
    // SAFETY: the kernel reads `owner` during the call.
    unsafe { libc::fcntl(tap, F_SETOWN_EX, &raw const owner) == 0 }
}
