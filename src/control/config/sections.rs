//! `[engine]` and `[[port]]`: what the engine itself is.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

use ipnet::IpNet;
use toml::de::DeValue;

use super::Machine;
use super::fault::{Report, Wrong, wrong};
use super::model::{
    ADDRESSES_MAX, CORES_MAX, Device, Engine, Hugepages, Log, LogFormat, LogTo, PORTS_MAX, Port, SegmentationOffload,
};
use super::reader::{Located, Section, choice, duration, integer, name, parsed, text};
use super::{api, capture, kernel, tcp, trace};
use crate::base::Duration;
use crate::control::identity;
use crate::control::syslog::{Facility, Receiver};
use crate::lane::Poll;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// Reads `[engine]`.
pub(super) fn engine(
    report: &mut Report,
    mut section: Section<'_>,
    directory: &Path,
    machine: &Machine,
) -> Option<Engine> {
    let name_ = section.required(report, "name", "\"engine-1\"", name);
    let cluster = section.required(report, "cluster", "\"production\"", name);
    let cores = cores(report, &mut section, machine);
    let control_core = section.required(report, "control_core", "0", integer::<usize>(0..=i64::from(u16::MAX)));
    let poll =
        section.or(report, "poll", Poll::Adaptive, choice(&[("busy", Poll::Busy), ("adaptive", Poll::Adaptive)]));
    let user = section.optional(report, "user", user);
    let loopback = SocketAddr::from(([127, 0, 0, 1], 9900));
    let admin = section.or(report, "admin", loopback, parsed("an address with a port", "127.0.0.1:9900"));
    if !admin.value.ip().is_loopback() {
        let what =
            format!("is {}, where others than this machine may ask, and nobody is asked who they are", admin.value);
        report.warning(
            admin.line,
            section.key("admin"),
            wrong(what, "write a loopback address, or filter who may reach it"),
        );
    }
    let hugepages = section.or(
        report,
        "hugepages",
        Hugepages::Auto,
        choice(&[("auto", Hugepages::Auto), ("require", Hugepages::Require), ("never", Hugepages::Never)]),
    );
    // capsule hands mbufs out in bursts of 32 a queue; below a thousand an engine only drops.
    let buffers = section.or(report, "buffers", 16_384, integer(1024..=4_194_304));
    let segmentation_offload = section.or(
        report,
        "segmentation_offload",
        SegmentationOffload::Auto,
        choice(&[
            ("auto", SegmentationOffload::Auto),
            ("always", SegmentationOffload::Always),
            ("never", SegmentationOffload::Never),
        ]),
    );
    let drain_delay = section.or(report, "drain_delay", Duration::ZERO, duration(Duration::ZERO..=HOUR));
    let drain_timeout = section.or(report, "drain_timeout", 30 * SECOND, duration(Duration::ZERO..=DAY));
    let log = log(report, &mut section, directory);
    let tcp = tcp::tcp(report, &mut section, cores.len(), machine);
    let trace = trace::trace(report, &mut section, directory);
    let capture = capture::capture(report, &mut section);
    let announce = kernel::announce(report, &mut section);
    let api = api::api(report, &mut section, directory, name_.as_ref().map(|name| name.value.as_str()));
    if let Some(control) = &control_core {
        if !machine.cores.contains(&control.value) {
            report.fault(control.line, section.key("control_core"), no_such_core(control.value, machine));
        }
        if poll.value == Poll::Busy && cores.contains(&control.value) {
            let what = format!("is {}, where a lane polls without ever sleeping", control.value);
            let remedy = "name a core that no lane has, or write poll = \"adaptive\"";
            report.fault(control.line, section.key("control_core"), wrong(what, remedy));
        }
    }
    section.finish(report);
    let name = name_?.value;
    Some(Engine {
        id: identity::engine(&name),
        name,
        cluster: cluster?.value,
        cores,
        control_core: control_core?.value,
        poll: poll.value,
        user: user.map(|user| user.value),
        admin: admin.value,
        api,
        hugepages: hugepages.value,
        buffers: buffers.value,
        segmentation_offload: segmentation_offload.value,
        drain_delay: drain_delay.value,
        drain_timeout: drain_timeout.value,
        log,
        tcp,
        trace,
        capture,
        announce,
    })
}

/// A user that this machine has.
fn user(value: &DeValue<'_>) -> Result<String, Wrong> {
    let name = text(32)(value)?;
    let remedy = "write one of this machine's users, as `getent passwd` lists them; `useradd --system NAME` makes one";
    match nix::unistd::User::from_name(&name) {
        Ok(Some(_)) => Ok(name),
        Ok(None) => Err(wrong(format!("is {name:?}, whom this machine does not know"), remedy)),
        Err(error) => Err(wrong(format!("is {name:?}, and users cannot be looked up ({error})"), remedy)),
    }
}

fn cores(report: &mut Report, section: &mut Section<'_>, machine: &Machine) -> Vec<usize> {
    let list = section.required_list(report, "cores", CORES_MAX, "[0]", integer::<usize>(0..=i64::from(u16::MAX)));
    let mut cores = Vec::new();
    for Located { value, line } in list {
        if !machine.cores.contains(&value) {
            report.fault(line, section.key("cores"), no_such_core(value, machine));
        } else if cores.contains(&value) {
            let what = format!("names core {value} twice");
            report.fault(line, section.key("cores"), wrong(what, "name every core once: one lane runs on each"));
        } else {
            cores.push(value);
        }
    }
    cores
}

fn no_such_core(core: usize, machine: &Machine) -> Wrong {
    let all = machine.cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    wrong(format!("names core {core}, which this machine does not have"), format!("choose from {all}"))
}

fn log(report: &mut Report, engine: &mut Section<'_>, directory: &Path) -> Log {
    let mut log = Log { format: LogFormat::Json, to: LogTo::Output, records_per_second: 1000 };
    if let Some(mut section) = engine.section(report, "log") {
        log.format = section
            .or(report, "format", log.format, choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]))
            .value;
        let file = section.optional(report, "file", text(4096));
        let syslog = section.optional(report, "syslog", receiver);
        let is_told = section.has("facility");
        let facility = section.or(report, "facility", Facility::USUAL, choice(Facility::NAMES));
        if is_told && syslog.is_none() {
            let what = "is syslog's, and records do not go there";
            report.fault(facility.line, section.key("facility"), wrong(what, "add syslog = \"/dev/log\""));
        }
        log.to = match (file, syslog) {
            (Some(_), Some(syslog)) => {
                let what = "is a second place for records beside file";
                report.fault(syslog.line, section.key("syslog"), wrong(what, "write one of them"));
                LogTo::Output
            }
            (None, Some(syslog)) => LogTo::Syslog(syslog.value, facility.value),
            (Some(file), None) if file.value != "-" => LogTo::File(directory.join(file.value)),
            (Some(_) | None, None) => LogTo::Output,
        };
        log.records_per_second =
            section.or(report, "records_per_second", log.records_per_second, integer(0..=1_000_000)).value;
        section.finish(report);
    }
    log
}

/// A socket's absolute path, or an address with a port.
fn receiver(value: &DeValue<'_>) -> Result<Receiver, Wrong> {
    let text = text(4096)(value)?;
    if text.starts_with('/') {
        return Ok(Receiver::Unix(text.into()));
    }
    text.parse().map(Receiver::Udp).map_err(|_| {
        let what = format!("is {text:?}, neither a socket's absolute path nor an address with a port");
        wrong(what, "write \"/dev/log\" or, for UDP, \"127.0.0.1:514\"")
    })
}

/// Reads every `[[port]]`; the names of those that are wrong are known all the same.
pub(super) fn ports(report: &mut Report, root: &mut Section<'_>) -> Vec<Located<Port>> {
    let (mut ports, mut interfaces) = (Vec::new(), Vec::new());
    let mut names = HashSet::new();
    let mut devices = HashSet::new();
    let sections = root.sections(report, "port", PORTS_MAX);
    if sections.is_empty() {
        report.fault(0, "port", wrong("is missing", "add a [[port]] with name, device and addresses"));
    }
    for mut section in sections {
        let line = section.line;
        let name_ = section.required(report, "name", "\"front\"", name);
        let device = section.required(report, "device", "\"net_tap0,iface=sealane0\"", device);
        let faults = report.count();
        let addresses = section.required_list(report, "addresses", ADDRESSES_MAX, "[\"198.18.0.2/16\"]", own_address);
        let has_all = report.count() == faults;
        let gateways = section.list(report, "gateways", 2, parsed("an address", "198.18.0.1")).unwrap_or_default();
        let mtu = section.or(report, "mtu", 1500, integer(576..=9216));
        let vlan = section.optional(report, "vlan", integer(1..=4094)).map(|vlan| vlan.value);
        if let Some(name) = &name_
            && !names.insert(name.value.clone())
        {
            report.fault(name.line, section.key("name"), duplicate(&name.value));
        }
        if let Some(device) = &device
            && !devices.insert(device_name(&device.value).to_owned())
        {
            let what = format!("is {}, which another port has", device_name(&device.value));
            report.fault(device.line, section.key("device"), wrong(what, "give every port a device of its own"));
        }
        // RFC 8200 5: no link that carries IPv6 has a smaller MTU.
        if mtu.value < 1280 && addresses.iter().any(|network| network.value.addr().is_ipv6()) {
            let what = format!("is {}, too small for the port's IPv6 addresses", mtu.value);
            report.fault(mtu.line, section.key("mtu"), wrong(what, "write 1280 or more"));
        }
        let beside = kernel::kernel(report, &mut section);
        section.finish(report);
        if let (Some(name), Some(device)) = (name_, device) {
            interfaces.extend(beside.iter().map(|kernel| kernel.line));
            let port = Port {
                name: name.value,
                device: device.value,
                addresses: addresses.into_iter().map(|address| address.value).collect(),
                gateways: Vec::new(),
                mtu: mtu.value,
                vlan,
                kernel: beside.map(|kernel| kernel.value),
            };
            // A gateway is not to blame for the addresses that are missing.
            ports.push((Located { value: port, line }, if has_all { gateways } else { Vec::new() }));
        }
    }
    let ports: Vec<_> = ports.into_iter().map(|(port, gateways)| with_gateways(report, port, gateways)).collect();
    kernel::prove_interfaces(report, &ports, &interfaces);
    ports
}

fn with_gateways(
    report: &mut Report,
    mut port: Located<Port>,
    gateways: Vec<Located<std::net::IpAddr>>,
) -> Located<Port> {
    for Located { value: gateway, line } in gateways {
        let is_taken = port.value.gateways.iter().any(|other| other.is_ipv4() == gateway.is_ipv4());
        if is_taken {
            let what = format!("has {gateway} beside another gateway of its family");
            report.fault(line, "port.gateways", wrong(what, "keep one IPv4 and one IPv6 gateway at most"));
        } else if port.value.addresses.iter().any(|network| network.addr() == gateway) {
            let what = format!("has {gateway}, which is the port's own address");
            report.fault(line, "port.gateways", wrong(what, "write the router's address"));
        } else if !port.value.is_on_link(gateway) && !is_link_local(gateway) {
            let what = format!("has {gateway}, which is in no network of the port's addresses");
            report.fault(
                line,
                "port.gateways",
                wrong(what, "write a router of one of these networks, or correct the prefix length"),
            );
        }
        if !is_taken {
            port.value.gateways.push(gateway);
        }
    }
    port
}

fn is_link_local(address: std::net::IpAddr) -> bool {
    matches!(address, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// What the name of a duplicate is told.
pub(super) fn duplicate(name: &str) -> Wrong {
    wrong(format!("is {name:?}, which another one has"), "give every one a name of its own")
}

fn own_address(value: &DeValue<'_>) -> Result<IpNet, Wrong> {
    let network: IpNet = parsed("an address with a prefix length", "198.18.0.2/16")(value)?;
    let address = network.addr();
    let is_host = match network {
        // RFC 3021: both addresses of a /31 are hosts.
        IpNet::V4(v4) => v4.prefix_len() >= 31 || (v4.addr() != v4.network() && v4.addr() != v4.broadcast()),
        IpNet::V6(_) => true,
    };
    if address.is_unspecified()
        || address.is_multicast()
        || address.is_loopback()
        || !is_host
        || network.prefix_len() == 0
    {
        return Err(wrong(
            format!("is {network}, which no host can have"),
            "write the engine's own address and the length of its network's prefix",
        ));
    }
    Ok(network)
}

/// A PCI address, always with its domain, or a virtual device of DPDK.
fn device(value: &DeValue<'_>) -> Result<Device, Wrong> {
    let text = text(1024)(value)?;
    let remedy = "write a PCI address such as \"0000:3b:00.0\" or a virtual device such as \"net_tap0,iface=sealane0\"";
    let (driver, arguments) = text.split_once(',').map_or((text.as_str(), None), |(name, rest)| (name, Some(rest)));
    if let Some(address) = pci_address(driver) {
        let arguments = arguments.map_or(String::new(), |arguments| format!(",{arguments}"));
        return Ok(Device::Pci(address + &arguments));
    }
    let is_driver = driver.strip_prefix("net_").is_some_and(|rest| {
        rest.ends_with(|c: char| c.is_ascii_digit())
            && rest.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    });
    if is_driver {
        Ok(Device::Virtual(text))
    } else {
        Err(wrong(format!("is {text:?}, which is no device of DPDK"), remedy))
    }
}

/// `domain:bus:device.function` in hexadecimal, the domain optional as in lspci.
fn pci_address(text: &str) -> Option<String> {
    let is_hex = |part: &str, len: usize| part.len() == len && part.chars().all(|c| c.is_ascii_hexdigit());
    let (slot, function) = text.split_once('.')?;
    let (domain, bus, device) = match *slot.split(':').collect::<Vec<_>>() {
        [domain, bus, device] => (domain, bus, device),
        [bus, device] => ("0000", bus, device),
        _ => return None,
    };
    let in_range =
        u8::from_str_radix(device, 16).is_ok_and(|device| device < 32) && function.parse::<u8>().is_ok_and(|f| f < 8);
    let is_right = is_hex(domain, 4) && is_hex(bus, 2) && is_hex(device, 2) && function.len() == 1 && in_range;
    is_right.then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

fn device_name(device: &Device) -> &str {
    match device {
        Device::Pci(device) | Device::Virtual(device) => device.split_once(',').map_or(device, |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_told_from_what_looks_like_one() {
        assert_eq!(pci_address("0000:3B:00.0").as_deref(), Some("0000:3b:00.0"));
        assert_eq!(pci_address("3b:1f.7").as_deref(), Some("0000:3b:1f.7"));
        for text in
            ["3b:20.0", "3b:00.8", "3b:00", "0000:3b:00.0.0", "000:3b:00.0", "0000:3b:00.+1", "0:0:0.0", "a.b.c", ""]
        {
            assert_eq!(pci_address(text), None, "{text}");
        }
    }
}
