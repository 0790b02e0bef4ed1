//! Bindings of DPDK 22.11 with the names that capsule 0.1.5 expects of 19.11.
//!
//! capsule's own FFI crate binds a private build of DPDK 19.11. This one takes its place through `[patch.crates-io]` and binds the DPDK that
//! Debian 12 packages. What 22.11 renamed is given its old name (`src/bindings.h`, `build.rs`), what it removed is a stub ([`kni`]), and two
//! functions do more than their originals: [`rte_eal_init`] understands the old arguments, and [`rte_eth_dev_configure`] turns checksum
//! offload on. `src/shims.h` documents the C functions.

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

pub use bindings::*;
pub use eal::{is_initialised, rte_eal_init};
pub use ethdev::{ChecksumOffloads, RSS_KEY, checksum_offloads, rte_eth_dev_configure};
pub use kni::*;

/// The size of the buffers that capsule makes its mempools of: 2,048 bytes of frame behind 128 bytes of headroom.
pub const RTE_MBUF_DEFAULT_BUF_SIZE: u32 = 2048 + RTE_PKTMBUF_HEADROOM;
