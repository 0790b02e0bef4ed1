//! Bindings of DPDK 22.11 with the names that capsule 0.1.5 expects of 19.11.
//!
//! capsule's own FFI crate binds a private build of DPDK 19.11. This one takes its place through `[patch.crates-io]` and binds the DPDK that
//! Debian 12 packages. What 22.11 renamed is given its old name (`src/bindings.h`, `build.rs`), what it removed is a stub ([`kni`]), and three
//! functions do more than their originals: [`rte_eal_init`] understands the old arguments, [`rte_eth_dev_configure`] turns offloads on, and
//! [`rte_pktmbuf_pool_create`] makes buffers as long as those want them. `src/shims.h` documents the C functions.

#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unnecessary_transmutes,
    unsafe_op_in_unsafe_fn,
    unused,
    clippy::all,
    reason = "generated from DPDK's headers"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

mod eal;
mod ethdev;
pub mod kni;
pub mod log;
mod mempool;

pub use bindings::*;
pub use eal::{is_initialised, rte_eal_init};
pub use ethdev::{Offloads, RSS_KEY, Wanted, offloads, rte_eth_dev_configure, want, want_plain};
pub use kni::*;
pub use mempool::{LONG_FRAME_ROOM, rte_pktmbuf_pool_create, want_long_frames};

/// The size of the buffers that capsule asks for: 2,048 bytes of frame behind 128 bytes of headroom.
pub const RTE_MBUF_DEFAULT_BUF_SIZE: u32 = 2048 + RTE_PKTMBUF_HEADROOM;
