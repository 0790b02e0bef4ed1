//! `rte_pktmbuf_pool_create` with buffers for frames that a port cuts, or has put together.

use std::ffi::{c_char, c_int, c_uint};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bindings::{RTE_PKTMBUF_HEADROOM, rte_mempool};

/// Bytes of frame in a long buffer. Ten TCP segments and more of an Ethernet fit, or a whole TLS record, and no NIC's descriptor is too small for it.
pub const LONG_FRAME_ROOM: u16 = 16 * 1024;

static LONG_FRAMES: AtomicBool = AtomicBool::new(false);

/// Whether this process wants frames of up to [`LONG_FRAME_ROOM`] bytes: pools that are made from now on hold such.
pub fn want_long_frames(wanted: bool) {
    LONG_FRAMES.store(wanted, Ordering::Relaxed);
}

fn long_frames_are_wanted() -> bool {
    LONG_FRAMES.load(Ordering::Relaxed)
}

mod original {
    use std::ffi::{c_char, c_int, c_uint};

    use crate::bindings::rte_mempool;

    unsafe extern "C" {
        pub(super) fn rte_pktmbuf_pool_create(
            name: *const c_char,
            count: c_uint,
            cache: c_uint,
            private: u16,
            room: u16,
            node: c_int,
        ) -> *mut rte_mempool;
    }
}

/// Makes a pool as asked, but of long buffers if this process wants long frames.
///
/// # Safety
/// `name` is a C string, and the EAL is up.
pub unsafe fn rte_pktmbuf_pool_create(
    name: *const c_char,
    count: c_uint,
    cache: c_uint,
    private: u16,
    room: u16,
    node: c_int,
) -> *mut rte_mempool {
    let headroom = u16::try_from(RTE_PKTMBUF_HEADROOM).unwrap_or(u16::MAX);
    let room = if long_frames_are_wanted() { LONG_FRAME_ROOM.saturating_add(headroom) } else { room };
    // SAFETY: the caller vouches for `name` and the EAL.
    unsafe { original::rte_pktmbuf_pool_create(name, count, cache, private, room, node) }
}
