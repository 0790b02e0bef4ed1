//! `rte_eth_dev_configure` with offloads and a known RSS key.

use std::ffi::{CStr, CString, c_int};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bindings::{self, rte_eth_conf, rte_eth_dev_info};

/// The Toeplitz key that every port hashes received flows with: the one of Microsoft's RSS specification, for which test vectors exist.
///
/// An IPv6 flow needs its first 40 bytes; some devices want a longer key, and what follows changes no hash.
pub static RSS_KEY: [u8; 52] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// What ports that are configured from now on are to do beyond checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Cut and join TCP segments, where they can.
    pub segmentation: bool,
    /// Let only frames of VLANs pass that `rte_eth_dev_vlan_filter` names. Some devices let no others pass whether this is wanted or not.
    pub vlan_filter: bool,
}

static SEGMENTATION: AtomicBool = AtomicBool::new(false);
static VLAN_FILTER: AtomicBool = AtomicBool::new(false);

/// Says what ports that are configured from now on are to do.
pub fn want(wanted: Wanted) {
    SEGMENTATION.store(wanted.segmentation, Ordering::Relaxed);
    VLAN_FILTER.store(wanted.vlan_filter, Ordering::Relaxed);
}

static PLAIN: OnceLock<Vec<String>> = OnceLock::new();

/// Names devices that are configured from now on and take no work over: whoever reads their frames finds every checksum in its place, and nothing joined. Said once.
pub fn want_plain(devices: Vec<String>) {
    let _said_before = PLAIN.set(devices);
}

fn is_plain(port: u16) -> bool {
    PLAIN.get().into_iter().flatten().any(|name| {
        let mut found = 0;
        let Ok(name) = CString::new(name.as_str()) else { return false };
        // SAFETY: `name` is a C string and `found` is ours.
        let answer = unsafe { bindings::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut found) };
        answer == 0 && found == port
    })
}

/// The work that a device takes over, as `RTE_ETH_RX_OFFLOAD_*` and `RTE_ETH_TX_OFFLOAD_*` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums of IPv4 headers and TCP on receipt, and leaving segments of a stream joined.
    pub receive: u64,
    /// Checksums of IPv4 headers and TCP on sending, and cutting long TCP segments.
    pub transmit: u64,
}

/// The work that [`rte_eth_dev_configure`] turns on for a device.
pub fn offloads(info: &rte_eth_dev_info) -> Offloads {
    let mut receive = bindings::SEALANE_RX_OFFLOAD_IPV4_CKSUM | bindings::SEALANE_RX_OFFLOAD_TCP_CKSUM;
    let mut transmit = bindings::SEALANE_TX_OFFLOAD_IPV4_CKSUM | bindings::SEALANE_TX_OFFLOAD_TCP_CKSUM;
    if VLAN_FILTER.load(Ordering::Relaxed) {
        receive |= bindings::SEALANE_RX_OFFLOAD_VLAN_FILTER;
    }
    if SEGMENTATION.load(Ordering::Relaxed) {
        // net_tap cuts in software, and still makes a system call a packet.
        if !driver_is(info, "net_tap") {
            transmit |= bindings::SEALANE_TX_OFFLOAD_TCP_TSO;
        }
        // Between virtual machines a long segment is what its sender made. A NIC that joins segments by itself guesses what may be joined.
        if driver_is(info, "net_virtio") || driver_is(info, "net_virtio_user") {
            receive |= bindings::SEALANE_RX_OFFLOAD_TCP_LRO;
        }
    }
    Offloads { receive: receive & info.rx_offload_capa, transmit: transmit & info.tx_offload_capa }
}

fn driver_is(info: &rte_eth_dev_info, name: &str) -> bool {
    // SAFETY: ethdev points to the driver's name, a static C string, or to nothing.
    !info.driver_name.is_null() && unsafe { CStr::from_ptr(info.driver_name) }.to_bytes() == name.as_bytes()
}

mod original {
    use std::ffi::c_int;

    use crate::bindings::rte_eth_conf;

    unsafe extern "C" {
        pub(super) fn rte_eth_dev_configure(port: u16, receive: u16, transmit: u16, conf: *const rte_eth_conf) -> c_int;
    }
}

/// Configures a port as asked, and beyond that: turns on the [`offloads`] that it has, sets [`RSS_KEY`] where it hashes at all, and
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

    if !is_plain(port) {
        let offloads = offloads(&info);
        conf.rxmode.offloads |= offloads.receive;
        conf.txmode.offloads |= offloads.transmit;
    }

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
