//! The devices that a configuration names: drivers, nodes, what they demand.

use super::{Finding, Host};
use crate::control::config::{CORES_MAX, Configuration, Device, Port};

const ABOUT: &str = "port";

/// PCI vendors whose NICs keep their kernel driver under DPDK, which shares them with it.
const BIFURCATED: [&str; 1] = ["0x15b3"];

/// Everything about one port.
pub(super) fn examine(host: &Host, port: &Port, configuration: &Configuration) -> Vec<Finding> {
    match &port.device {
        Device::Pci(device) => {
            // Device arguments follow a comma.
            let address = device.split_once(',').map_or(device.as_str(), |(address, _)| address);
            pci(host, port, address, configuration)
        }
        Device::Virtual(device) => vec![virtual_device(host, port, device)],
    }
}

fn virtual_device(host: &Host, port: &Port, device: &str) -> Finding {
    let name = &port.name;
    let driver =
        device.split_once(',').map_or(device, |(driver, _)| driver).trim_end_matches(|c: char| c.is_ascii_digit());
    let steered = "frames are spread over lanes in software";
    match driver {
        "net_tap" if !host.has("/dev/net/tun") => Finding::bad(
            ABOUT,
            format!("{name}: there is no /dev/net/tun for {device}"),
            "modprobe tun (in a container: --device /dev/net/tun --cap-add NET_ADMIN)",
        ),
        "net_tap" => {
            Finding::good(ABOUT, format!("{name}: a tap ({device}); it says that it has RSS and has not: {steered}"))
        }
        "net_virtio_user" => Finding::good(
            ABOUT,
            format!(
                "{name}: {device}; needs hugepages, and the other side first; it says that it has RSS and has not: {steered}"
            ),
        ),
        _ => Finding::good(ABOUT, format!("{name}: {device}")),
    }
}

fn pci(host: &Host, port: &Port, address: &str, configuration: &Configuration) -> Vec<Finding> {
    let name = &port.name;
    let directory = format!("/sys/bus/pci/devices/{address}");
    if !host.has(&directory) {
        return vec![Finding::bad(
            ABOUT,
            format!("{name}: there is no PCI device {address}"),
            "lspci -Dnn | grep -i ethernet",
        )];
    }
    let identity = |file: &str| host.read(&format!("{directory}/{file}")).unwrap_or_default();
    let (vendor, device, class) = (identity("vendor"), identity("device"), identity("class"));
    let mut findings = vec![driver(host, port, address, &directory, &vendor)];
    let mut shown =
        format!("{name}: {address} is {}:{}", vendor.trim_start_matches("0x"), device.trim_start_matches("0x"));
    if let (Some(speed), Some(width)) =
        (host.read(&format!("{directory}/current_link_speed")), host.read(&format!("{directory}/current_link_width")))
    {
        shown.push_str(&format!(", PCIe {speed} x{width}"));
    }
    // What firmware and how many queues it has is asked of the driver, which is away when DPDK has the device.
    shown.push_str("; its firmware, queues and RSS functions are in the log of an engine that starts");
    findings.push(if class.starts_with("0x02") {
        Finding::good(ABOUT, shown)
    } else {
        Finding::bad(ABOUT, format!("{shown}; class {class} is no network controller"), "lspci -Dnn | grep -i ethernet")
    });
    findings.extend(node(host, port, &directory, configuration));
    findings
}

fn driver(host: &Host, port: &Port, address: &str, directory: &str, vendor: &str) -> Finding {
    let name = &port.name;
    let interfaces = host.list(&format!("{directory}/net")).join(", ");
    let bind = format!("scripts/bind {address}");
    match host.link(&format!("{directory}/driver")).as_deref() {
        Some("mlx5_core") => Finding::good(
            ABOUT,
            format!("{name}: {address} is with mlx5_core ({interfaces}), which shares it with DPDK"),
        ),
        driver if BIFURCATED.contains(&vendor) => {
            let driver = driver.unwrap_or("no driver");
            Finding::bad(
                ABOUT,
                format!("{name}: {address} is with {driver}, and an mlx5 NIC must stay with mlx5_core"),
                format!("driverctl unset-override {address}"),
            )
        }
        Some("vfio-pci")
            if host.read("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode").as_deref() == Some("Y") =>
        {
            Finding::weak(
                ABOUT,
                format!("{name}: {address} is with vfio-pci without an IOMMU: it can write anywhere in memory"),
                "switch the IOMMU on, see above",
            )
        }
        Some("vfio-pci") => Finding::good(ABOUT, format!("{name}: {address} is with vfio-pci")),
        Some("uio_pci_generic" | "igb_uio") => Finding::weak(
            ABOUT,
            format!("{name}: {address} is with uio, which no IOMMU confines"),
            format!("{bind} --driver vfio-pci, where there is an IOMMU"),
        ),
        None => Finding::bad(ABOUT, format!("{name}: {address} has no driver"), bind),
        Some(kernel) => Finding::bad(
            ABOUT,
            format!("{name}: {address} is with the kernel's {kernel} ({interfaces})"),
            format!("{bind}, if nobody is logged in over it"),
        ),
    }
}

fn node(host: &Host, port: &Port, directory: &str, configuration: &Configuration) -> Option<Finding> {
    let name = &port.name;
    let node = host.number(&format!("{directory}/numa_node")).filter(|node| *node >= 0)?;
    let near = host.cores(&format!("/sys/devices/system/node/node{node}/cpulist"), CORES_MAX);
    let far: Vec<_> =
        configuration.engine.cores.iter().filter(|core| !near.contains(core)).map(ToString::to_string).collect();
    if far.is_empty() {
        return Some(Finding::good(ABOUT, format!("{name}: on NUMA node {node}, where all lanes are")));
    }
    let what = format!(
        "{name}: on NUMA node {node}, and lanes on cores {} are not: every frame crosses between sockets",
        far.join(",")
    );
    Some(Finding::weak(
        ABOUT,
        what,
        format!(
            "choose engine.cores from /sys/devices/system/node/node{node}/cpulist: {}",
            host.read(&format!("/sys/devices/system/node/node{node}/cpulist")).unwrap_or_default()
        ),
    ))
}
