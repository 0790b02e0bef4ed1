//! Makes net_tap's arrival signals reach one thread.
//!
//! The driver reads a tap only after a realtime signal has told it that a frame arrived. The signal's handler adds one to a counter without a
//! lock, and the kernel may run it on several threads of the process at once: an update is lost, and a frame waits until the next one comes.
//! Signals that all go to one thread cannot overtake each other.

use std::fs;
use std::os::fd::RawFd;
use std::path::Path;

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
