//! The kernel NIC interface, which DPDK dropped: what capsule names of it, always "not supported".
//!
//! Sealane never asks capsule for it; these exist so that capsule links.

use std::ffi::{c_char, c_int, c_uint};
use std::ptr;

use crate::bindings::{rte_mbuf, rte_mempool};

/// Never exists.
#[allow(non_camel_case_types, reason = "capsule's name")]
#[derive(Debug)]
pub struct rte_kni {
    _private: (),
}

/// Settings of an interface.
#[allow(non_camel_case_types, reason = "capsule's name")]
#[derive(Clone, Copy, Debug, Default)]
pub struct rte_kni_conf {
    /// Its name.
    pub name: [c_char; 32],
    /// Its port.
    pub group_id: u16,
    /// Its Ethernet address.
    pub mac_addr: [u8; 6],
    /// Size of its buffers.
    pub mbuf_size: c_uint,
}

/// Callbacks of an interface.
#[allow(non_camel_case_types, reason = "capsule's name")]
#[derive(Clone, Copy, Debug, Default)]
pub struct rte_kni_ops {
    /// Its port.
    pub port_id: u16,
    /// Called when the MTU should change.
    pub change_mtu: Option<unsafe extern "C" fn(u16, c_uint) -> c_int>,
    /// Called when the link should change.
    pub config_network_if: Option<unsafe extern "C" fn(u16, u8) -> c_int>,
    /// Called when the address should change.
    pub config_mac_address: Option<unsafe extern "C" fn(u16, *mut u8) -> c_int>,
    /// Called when promiscuous mode should change.
    pub config_promiscusity: Option<unsafe extern "C" fn(u16, u8) -> c_int>,
}

/// Refuses.
///
/// # Safety
/// None needed.
pub unsafe fn rte_kni_init(_interfaces: c_uint) -> c_int {
    -libc::ENOTSUP
}

/// Does nothing.
///
/// # Safety
/// None needed.
pub unsafe fn rte_kni_close() {}

/// Refuses.
///
/// # Safety
/// None needed.
pub unsafe fn rte_kni_alloc(_: *mut rte_mempool, _: *const rte_kni_conf, _: *mut rte_kni_ops) -> *mut rte_kni {
    ptr::null_mut()
}

/// Refuses.
///
/// # Safety
/// None needed.
pub unsafe fn rte_kni_release(_: *mut rte_kni) -> c_int {
    -libc::ENOTSUP
}

/// Receives nothing.
///
/// # Safety
/// None needed.
pub unsafe fn rte_kni_rx_burst(_: *mut rte_kni, _: *mut *mut rte_mbuf, _: c_uint) -> c_uint {
    0
}

/// Sends nothing.
///
/// # Safety
/// None needed.
pub unsafe fn rte_kni_tx_burst(_: *mut rte_kni, _: *mut *mut rte_mbuf, _: c_uint) -> c_uint {
    0
}

/// Refuses.
///
/// # Safety
/// None needed.
pub unsafe fn rte_kni_handle_request(_: *mut rte_kni) -> c_int {
    -libc::ENOTSUP
}
