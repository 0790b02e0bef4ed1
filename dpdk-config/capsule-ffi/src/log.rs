//! What DPDK logs, handed to a function of the application's choice.

use std::ffi::{c_char, c_int};
use std::slice;
use std::sync::OnceLock;

use crate::bindings;

/// Takes one message: DPDK's level (1 emergency … 4 error, 5 warning, 6 notice, 7 info, 8 debug) and the text without its line end.
pub type Sink = fn(level: u32, text: &str);

static SINK: OnceLock<Sink> = OnceLock::new();

/// Sends DPDK's messages to `sink` from now on. The first call in a process decides; call it before the EAL starts.
pub fn install(sink: Sink) {
    if SINK.set(sink).is_ok() {
        // SAFETY: has no preconditions. Without memory for a stream, DPDK goes on logging to standard error.
        let _ = unsafe { bindings::sealane_log_install() };
    }
}

/// Where `shims.c` brings a message.
#[unsafe(no_mangle)]
extern "C" fn sealane_log_line(level: c_int, text: *const c_char, len: usize) {
    let Some(sink) = SINK.get() else { return };
    // SAFETY: stdio hands `len` bytes at `text`, valid during the call.
    let bytes = unsafe { slice::from_raw_parts(text.cast::<u8>(), len) };
    sink(u32::try_from(level).unwrap_or(0), String::from_utf8_lossy(bytes).trim_end());
}
