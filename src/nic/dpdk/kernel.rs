//! Interfaces of the host's kernel beside ports: which device carries one, and its Ethernet address.
//!
//! The device is one more of DPDK's: virtio_user over the kernel's vhost-net, which copies without a system call a frame, or a tap where there is no /dev/vhost-net.

use std::io;
use std::path::Path;

use capsule_ffi as ffi;
use smoltcp::wire::EthernetAddress;

use super::settings::{Device, Plan};

/// Where the kernel offers vhost-net.
const VHOST_NET: &str = "/dev/vhost-net";

/// What the driver of a virtio_user device is called.
const VIRTIO_USER: &str = "net_virtio_user";

/// What that of a tap is.
const TAP: &str = "net_tap";

/// Whether the kernel offers vhost-net.
pub(super) fn has_vhost_net() -> bool {
    Path::new(VHOST_NET).exists()
}

/// The device that carries the kernel's `interface`, with a queue pair for each of `lanes`, named as none of `taken` is.
pub(super) fn device(interface: &str, lanes: usize, vhost_net: bool, taken: &[Device]) -> Device {
    let driver = if vhost_net { VIRTIO_USER } else { TAP };
    let is_free = |name: &String| taken.iter().all(|device| device.name != *name);
    let name = (0..=taken.len()).map(|number| format!("{driver}{number}")).find(is_free).unwrap_or_default();
    let arguments = if vhost_net {
        format!("path={VHOST_NET},iface={interface},queues={lanes},queue_size=1024")
    } else {
        format!("iface={interface}")
    };
    Device::of_driver(name, arguments)
}

/// Whether a device leads to this host's kernel by vhost-net, which reads our memory where it is.
pub(super) fn is_over_vhost_net(device: &Device) -> bool {
    let is_path = |argument| argument == format!("path={VHOST_NET}");
    device.is(VIRTIO_USER) && device.arguments.as_ref().is_some_and(|arguments| arguments.split(',').any(is_path))
}

impl Plan {
    /// Has taps carry the kernel's interfaces: vhost-net takes virtual addresses only, as virtio_user insists.
    pub(super) fn use_taps(&mut self) {
        for index in 0..self.devices.len() {
            let beside = self.beside.get(index).copied().flatten().and_then(|port| self.settings.ports.get(port));
            let Some(wanted) = beside.and_then(|port| port.kernel.as_ref()) else { continue };
            let tap = device(&wanted.interface, self.cores.len(), false, &self.devices);
            if let (Some(carrier), Some(port)) = (self.devices.get_mut(index), self.settings.ports.get_mut(index)) {
                port.device = tap.to_string();
                *carrier = tap;
            }
        }
    }
}

/// Gives the kernel's interface and the device that carries it an Ethernet address: that of the port, so that neighbours see one host.
pub(super) fn set_mac(device: u16, interface: &str, mac: EthernetAddress) -> io::Result<()> {
    let mut address = ffi::rte_ether_addr { addr_bytes: mac.0 };
    // ethdev gives the device whatever it has noted once more when the device starts, and a tap passes that on.
    // SAFETY: takes a number, and `address` is ours.
    let answer = unsafe { ffi::rte_eth_dev_default_mac_addr_set(device, &raw mut address) };
    if answer != 0 {
        return Err(io::Error::from_raw_os_error(-answer));
    }
    set_interface_mac(interface, mac)
}

fn set_interface_mac(interface: &str, mac: EthernetAddress) -> io::Result<()> {
    // SAFETY: makes a descriptor, or fails.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeros is a request of nothing.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The name's last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
    for (to, from) in address.sa_data.iter_mut().zip(mac.0) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_hwaddr = address;
    // SAFETY: the kernel reads `request` during the call.
    let answer = unsafe { libc::ioctl(socket, libc::SIOCSIFHWADDR, &raw const request) };
    let outcome = if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: the descriptor is ours, and nobody else has it.
    unsafe { libc::close(socket) };
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vhost_net_carries_the_interface_where_there_is_one_and_a_tap_elsewhere() {
        let taken: Vec<Device> = ["net_tap0,iface=sealane0", "net_virtio_user0,path=/run/vhost"]
            .map(|device| device.parse().unwrap())
            .into();
        let tap = device("front0", 2, false, &taken);
        assert_eq!(tap.to_string(), "net_tap1,iface=front0");
        assert!(tap.is("net_tap") && !is_over_vhost_net(&tap));
        let vhost = device("front0", 2, true, &taken);
        assert_eq!(vhost.to_string(), "net_virtio_user1,path=/dev/vhost-net,iface=front0,queues=2,queue_size=1024");
        assert!(is_over_vhost_net(&vhost) && !vhost.needs_hugepages() && !vhost.may_have_long_frames());
        assert!(!is_over_vhost_net(&taken[1]) && taken[1].needs_hugepages() && taken[1].may_have_long_frames());
    }

    #[test]
    fn an_interface_that_is_not_there_gets_no_address() {
        let error = set_interface_mac("sealane-is-no-such-interface", EthernetAddress([2, 0, 0, 0, 0, 1])).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
