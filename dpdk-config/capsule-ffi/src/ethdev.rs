//! `rte_eth_dev_configure` with checksum offload and a known RSS key.

use std::ffi::c_int;

use crate::bindings::{self, rte_eth_conf, rte_eth_dev_info};

/// The Toeplitz key that every port hashes received flows with: the one of Microsoft's RSS specification, for which test vectors exist.
///
/// An IPv6 flow needs its first 40 bytes; some devices want a longer key, and what follows changes no hash.
pub static RSS_KEY: [u8; 52] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// The checksum work that a device offers, as `RTE_ETH_RX_OFFLOAD_*` and `RTE_ETH_TX_OFFLOAD_*` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumOffloads {
    /// Of IPv4 headers and TCP, on receipt.
    pub receive: u64,
    /// Of IPv4 headers and TCP, on sending.
    pub transmit: u64,
}

/// The checksum work that [`rte_eth_dev_configure`] turns on for a device.
pub fn checksum_offloads(info: &rte_eth_dev_info) -> ChecksumOffloads {
    let receive = bindings::SEALANE_RX_OFFLOAD_IPV4_CKSUM | bindings::SEALANE_RX_OFFLOAD_TCP_CKSUM;
    let transmit = bindings::SEALANE_TX_OFFLOAD_IPV4_CKSUM | bindings::SEALANE_TX_OFFLOAD_TCP_CKSUM;
    ChecksumOffloads { receive: receive & info.rx_offload_capa, transmit: transmit & info.tx_offload_capa }
}

mod original {
    use std::ffi::c_int;

    use crate::bindings::rte_eth_conf;

    unsafe extern "C" {
        pub(super) fn rte_eth_dev_configure(port: u16, receive: u16, transmit: u16, conf: *const rte_eth_conf) -> c_int;
    }
}

/// Configures a port as asked, and beyond that: turns on the checksum offloads that it has, sets [`RSS_KEY`] where it hashes at all, and
/// allows buffers of several pools in one transmit queue where the machine has several NUMA nodes.
///
/// # Safety
/// `conf` points to a configuration, and no other thread uses the port.
pub unsafe fn rte_eth_dev_configure(port: u16, receive: u16, transmit: u16, conf: *const rte_eth_conf) -> c_int {
    let mut info = rte_eth_dev_info::default();
    // SAFETY: `info` is ours; a port that does not exist is an error code.
    let answer = unsafe { bindings::rte_eth_dev_info_get(port, &raw mut info) };
    if answer != 0 {
        return answer;
    }
    // SAFETY: the caller vouches for `conf`.
    let mut conf = unsafe { *conf };

    let offloads = checksum_offloads(&info);
    conf.rxmode.offloads |= offloads.receive;
    conf.txmode.offloads |= offloads.transmit;

    // MBUF_FAST_FREE promises one pool a queue. capsule makes a pool a NUMA node, and frames move between lanes.
    // SAFETY: reads what the EAL found at start.
    if unsafe { bindings::rte_socket_count() } > 1 {
        conf.txmode.offloads &= !bindings::DEV_TX_OFFLOAD_MBUF_FAST_FREE;
    }

    let rss = &mut conf.rx_adv_conf.rss_conf;
    if rss.rss_hf & info.flow_type_rss_offloads == 0 {
        // capsule asks for RSS whenever there are two queues, and some drivers (virtio) refuse when they have none.
        conf.rxmode.mq_mode = bindings::rte_eth_rx_mq_mode::RTE_ETH_MQ_RX_NONE;
    } else if info.hash_key_size > 0 && usize::from(info.hash_key_size) <= RSS_KEY.len() {
        // DPDK keeps the pointer but never writes through it.
        rss.rss_key = RSS_KEY.as_ptr().cast_mut();
        rss.rss_key_len = info.hash_key_size;
    }

    // SAFETY: `conf` outlives the call, and the key is static.
    unsafe { original::rte_eth_dev_configure(port, receive, transmit, &raw const conf) }
}
