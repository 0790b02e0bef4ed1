//! What an engine is told, what can be wrong with it, and how the EAL and capsule are told in turn.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use capsule_ffi::Wanted;
use serde_json::{Value, json};

use super::hugepages::Memory;
use super::kernel;
use super::pci::Holder;
use crate::nic::vlan::VLANS;
use crate::nic::{ETHERNET_MTU, MTU_MAX};

/// The shortest MTU that IPv6 allows (RFC 8200 section 5).
const MTU_MIN: usize = 1280;

/// The least number of packet buffers.
const BUFFERS_MIN: usize = 2048;

/// Most descriptors of a queue.
const DESCRIPTORS_MAX: usize = 1024;

/// Everything that an engine needs to start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cores that run a lane each, by the number that the kernel gives them. Lanes are numbered in ascending order of core.
    pub lanes: Vec<usize>,
    /// The core of the thread that waits for signals. When it is also a lane's core, that lane runs on the thread that calls [`Engine::run`](super::Engine::run).
    pub control_core: usize,
    /// The ports, each with a queue pair for every lane.
    pub ports: Vec<PortSettings>,
    /// Whether to use hugepages.
    pub hugepages: Hugepages,
    /// Packet buffers, shared by all lanes (of one NUMA node, where there are several); 2,048 or more.
    pub buffers: usize,
    /// Whether ports cut and join TCP segments.
    pub segmentation: Segmentation,
    /// What tells this engine from other DPDK processes of the machine; letters, digits, `-` and `_`.
    pub file_prefix: String,
}

/// One port.
#[derive(Clone, Debug)]
pub struct PortSettings {
    /// Its name in the configuration.
    pub name: String,
    /// A DPDK virtual device with its arguments, such as `net_tap0,iface=sealane0`, or a PCI address, such as `0000:3b:00.0`.
    pub device: String,
    /// The longest IP packet that it sends and receives, 1280 to [`MTU_MAX`] bytes. With more than 1500 all packet buffers have room for 16 KiB.
    pub mtu: usize,
    /// The VLAN that it is in, 1 to 4094: frames leave with its tag, and no others are received.
    pub vlan: Option<u16>,
    /// The interface of the host's kernel beside it, if there is to be one.
    pub kernel: Option<KernelSettings>,
}

/// An interface of the host's kernel beside a port.
#[derive(Clone, Debug)]
pub struct KernelSettings {
    /// Its name there, at most 15 bytes.
    pub interface: String,
    /// Most frames that all lanes together give it a second, and most that they take from it; an equal part each.
    pub rate: u32,
}

/// Whether the engine's memory is in hugepages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hugepages {
    /// Yes where there are enough, else ordinary pages where the device can live with them.
    Auto,
    /// Yes, or the engine does not start.
    Require,
    /// No.
    Never,
}

/// Whether ports cut long TCP segments that the engine sends, and leave joined what they receive so. Packet buffers then have room for 16 KiB instead of 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmentation {
    /// Where the device offers it. A tap's is not used: it is software, and no faster.
    Auto,
    /// Also on net_vhost, whose driver cannot say whether its client takes long frames. One that does not gets frames that it cannot read.
    Always,
    /// No.
    Never,
}

/// Why an engine does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no core to run on.
    #[error("no core is given for a lane; name one in `cores`")]
    NoLanes,
    /// There is nothing to receive from.
    #[error("no port is given; add a `[[port]]`")]
    NoPorts,
    /// The machine has no such core, or this process may not use it.
    #[error("core {core} does not exist or is not allowed for this process; use some of {usable:?}")]
    NoSuchCore {
        /// The core.
        core: usize,
        /// Those that can be used.
        usable: Vec<usize>,
    },
    /// A core can run one lane.
    #[error("core {core} is given twice; a core runs one lane")]
    CoreTwice {
        /// The core.
        core: usize,
    },
    /// Two ports have the same name or device.
    #[error("port {port}: its name or device `{device}` is used by an earlier port; each port needs its own")]
    PortTwice {
        /// The later port.
        port: String,
        /// Its device.
        device: String,
    },
    /// A device that DPDK could not name.
    #[error(
        "device `{device}`: {reason}; write a virtual device such as `net_tap0,iface=sealane0` or a PCI address such as `0000:3b:00.0`"
    )]
    BadDevice {
        /// As written.
        device: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An MTU that frames do not fit, or IPv6 does not allow.
    #[error("port {port}: an MTU of {mtu} is not possible; choose {MTU_MIN} to {MTU_MAX}")]
    BadMtu {
        /// The port.
        port: String,
        /// The MTU.
        mtu: usize,
    },
    /// A VLAN that cannot be.
    #[error("port {port}: there is no VLAN {vlan}; choose {} to {}, or leave it out", VLANS.start(), VLANS.end())]
    BadVlan {
        /// The port.
        port: String,
        /// The VLAN.
        vlan: u16,
    },
    /// Too few buffers.
    #[error("{buffers} packet buffers are too few; set `buffers` to {minimum} or more")]
    TooFewBuffers {
        /// As set.
        buffers: usize,
        /// The least that these lanes and ports need.
        minimum: usize,
    },
    /// A prefix that is no file name.
    #[error("file prefix `{prefix}` is not usable; use letters, digits, `-` and `_`")]
    BadPrefix {
        /// As set.
        prefix: String,
    },
    /// Hugepages are required and there are not enough.
    #[error("{needed_mib} MiB of hugepages are required and {free_mib} MiB are free; reserve them with `{}`", reserve(*.pages))]
    TooFewHugepages {
        /// What the engine needs.
        needed_mib: usize,
        /// What the kernel has.
        free_mib: usize,
        /// As 2 MiB pages.
        pages: usize,
    },
    /// The device cannot do without hugepages and there are not enough.
    #[error("device `{device}` needs {needed_mib} MiB of hugepages and {free_mib} MiB are free; reserve them with `{}`", reserve(*.pages))]
    DeviceNeedsHugepages {
        /// The device.
        device: String,
        /// What the engine needs.
        needed_mib: usize,
        /// What the kernel has.
        free_mib: usize,
        /// As 2 MiB pages.
        pages: usize,
    },
    /// The device cannot do without hugepages, and the configuration forbids them.
    #[error("device `{device}` needs hugepages; set `hugepages = \"auto\"`")]
    HugepagesForbidden {
        /// The device.
        device: String,
    },
    /// DPDK's environment does not come up.
    #[error("DPDK does not start: {reason}; an engine needs root and `scripts/setup`, and starts once a process")]
    Environment {
        /// What DPDK said.
        reason: String,
    },
    /// DPDK made no port of the device.
    #[error("port {port}: DPDK makes no port of device `{device}`: {reason}; {remedy}")]
    NoSuchDevice {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// What DPDK said.
        reason: String,
        /// What may help.
        remedy: &'static str,
    },
    /// A PCI device that has no driver for DPDK.
    #[error(
        "port {port}: DPDK cannot use device `{device}`: {objection}; `scripts/bind --status` lists the NICs, `scripts/bind {device}` gives it to DPDK"
    )]
    NotBound {
        /// The port.
        port: String,
        /// Its address.
        device: String,
        /// Who has it.
        objection: String,
    },
    /// The device has fewer queues than there are lanes.
    #[error(
        "port {port}: device `{device}` has {queues} queue pairs, and {lanes} lanes need one each; use fewer `cores` or give the device more queues"
    )]
    TooFewQueues {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// The queue pairs it has.
        queues: u16,
        /// The lanes.
        lanes: usize,
    },
    /// The port refuses its MTU.
    #[error(
        "port {port}: device `{device}` refuses an MTU of {mtu}: {reason}; set its `mtu` to what its network carries"
    )]
    MtuRefused {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// The MTU.
        mtu: usize,
        /// What DPDK said.
        reason: String,
    },
    /// The kernel's interface beside a port cannot be made what it must be.
    #[error(
        "port {port}: interface `{interface}` of the kernel does not take the port's Ethernet address: {reason}; it needs root, and a name that is free"
    )]
    KernelInterface {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// Something else between the EAL and started ports.
    #[error("the ports do not start: {reason}")]
    Start {
        /// What capsule and DPDK said.
        reason: String,
    },
    /// A lane panicked; the engine stopped.
    #[error("lane {lane} panicked; the message is on standard error")]
    LanePanicked {
        /// Its number.
        lane: usize,
    },
}

fn reserve(pages: usize) -> String {
    format!("echo {pages} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
}

/// A device that DPDK can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// What ethdev calls it: a virtual device's name, or a PCI address in full and lower case.
    pub(super) name: String,
    /// The driver's arguments.
    pub(super) arguments: Option<String>,
    pci: bool,
}

impl Device {
    /// Whether the driver hands its memory to hardware or to another process, which ordinary pages do not allow.
    pub(super) fn needs_hugepages(&self) -> bool {
        let drivers = ["net_virtio_user", "net_vhost", "net_memif"];
        self.pci || (drivers.iter().any(|driver| self.is(driver)) && !kernel::is_over_vhost_net(self))
    }

    /// Whether the device may cut or join TCP segments.
    pub(super) fn may_have_long_frames(&self) -> bool {
        let drivers = ["net_virtio_user", "net_vhost"];
        self.pci || (drivers.iter().any(|driver| self.is(driver)) && !kernel::is_over_vhost_net(self))
    }

    /// A virtual device with these arguments.
    pub(super) fn of_driver(name: String, arguments: String) -> Self {
        Self { name, arguments: Some(arguments), pci: false }
    }

    /// Whether it is a virtual device of this driver.
    pub(super) fn is(&self, driver: &str) -> bool {
        !self.pci && self.name.strip_prefix(driver).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// Whether the kernel's end of the device has the Ethernet address that the device reports as ours. A tap that mirrors a `remote` interface
    /// has that interface's address, which its hardware filters by.
    pub(super) fn shares_its_address(&self) -> bool {
        self.is("net_tap") && !self.arguments.as_ref().is_some_and(|arguments| arguments.contains("remote="))
    }

    /// What to look at when DPDK makes no port of it.
    pub(super) fn remedy(&self) -> &'static str {
        if self.pci {
            "`scripts/bind --status` says how it is bound, dpdk-config/pci.toml how it should be"
        } else if self.is("net_tap") {
            "a tap needs root, /dev/net/tun and an interface name that is free and at most 15 characters long"
        } else {
            "look at its spelling and arguments in DPDK's NIC guide"
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.arguments.iter().try_for_each(|arguments| write!(f, ",{arguments}"))
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(device: &str) -> Result<Self, Error> {
        let bad = |reason| Error::BadDevice { device: device.to_owned(), reason };
        // capsule splits the EAL's arguments at white space.
        if device.is_empty() || !device.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("it is empty or has spaces or characters beyond ASCII"));
        }
        let (name, arguments) = match device.split_once(',') {
            Some((name, arguments)) => (name, Some(arguments.to_owned())),
            None => (device, None),
        };
        if let Some(name) = pci_address(name) {
            return Ok(Self { name, arguments, pci: true });
        }
        // RTE_ETH_NAME_MAX_LEN counts a zero byte in.
        if !name.starts_with("net_") || name.len() >= 64 {
            return Err(bad("it is neither a network device of DPDK, `net_…`, nor a PCI address"));
        }
        Ok(Self { name: name.to_owned(), arguments, pci: false })
    }
}

/// A PCI address in full and lower case, of one that may lack its domain.
fn pci_address(text: &str) -> Option<String> {
    let full = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.to_owned() };
    let groups: Vec<&str> = full.split([':', '.']).collect();
    let hexadecimal = groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    (hexadecimal && lengths == [4, 2, 2, 1]).then(|| full.to_ascii_lowercase())
}

/// Settings that have been proven possible, as far as that goes without starting anything.
#[derive(Debug)]
pub(super) struct Plan {
    /// Lanes' cores in ascending order: lane `i` runs on the `i`th and owns queue `i` of every port, since that is the order in which capsule makes queues.
    pub(super) cores: Vec<usize>,
    /// The core of the main thread.
    pub(super) control_core: usize,
    /// Devices of the ports, in order of configuration, then those that carry the kernel's interfaces.
    pub(super) devices: Vec<Device>,
    /// What the EAL is told about addresses of memory, if anything.
    iova_mode: Option<&'static str>,
    /// The settings themselves, with a port more for each interface of the kernel.
    pub(super) settings: Settings,
    /// For each device which of the ports it stands beside, if it carries an interface of the kernel.
    pub(super) beside: Vec<Option<usize>>,
}

impl Plan {
    /// Proves the settings, on a machine with these cores.
    pub(super) fn new(settings: &Settings, usable: &[usize]) -> Result<Self, Error> {
        let cores = prove_cores(settings, usable)?;
        let mut devices = prove_ports(&settings.ports)?;
        let mut settings = settings.clone();
        let mut beside = vec![None; devices.len()];
        let (lanes, vhost_net) = (cores.len(), kernel::has_vhost_net());
        for (index, port) in settings.ports.clone().into_iter().enumerate() {
            let Some(wanted) = port.kernel else { continue };
            let device = kernel::device(&wanted.interface, lanes, vhost_net, &devices);
            // No name in a configuration has a space.
            let name = format!("{} kernel", port.name);
            settings.ports.push(PortSettings {
                name,
                device: device.to_string(),
                mtu: port.mtu,
                vlan: None,
                kernel: None,
            });
            devices.push(device);
            beside.push(Some(index));
        }
        let prefix = &settings.file_prefix;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        {
            return Err(Error::BadPrefix { prefix: prefix.clone() });
        }
        // A queue holds 64 descriptors or more, and queues get at most a quarter of the buffers.
        let minimum = BUFFERS_MIN.max(cores.len() * devices.len() * 64 * 4);
        if settings.buffers < minimum {
            return Err(Error::TooFewBuffers { buffers: settings.buffers, minimum });
        }
        Ok(Self { cores, control_core: settings.control_core, devices, iova_mode: None, settings, beside })
    }

    /// Proves that DPDK can use the PCI devices, by the drivers that `holder` says they have.
    pub(super) fn look_at_drivers(&mut self, holder: impl Fn(&str) -> Holder) -> Result<(), Error> {
        let mut holders = Vec::new();
        for (port, device) in self.settings.ports.iter().zip(&self.devices).filter(|(_, device)| device.pci) {
            let holder = holder(&device.name);
            if let Some(objection) = holder.objection() {
                return Err(Error::NotBound { port: port.name.clone(), device: device.name.clone(), objection });
            }
            holders.push(holder);
        }
        self.iova_mode = Holder::iova_mode(holders.iter());
        if self.iova_mode.is_some() {
            self.use_taps();
        }
        Ok(())
    }

    /// Whether packet buffers are long.
    pub(super) fn has_long_frames(&self) -> bool {
        self.wanted().segmentation || self.settings.ports.iter().any(|port| port.mtu > ETHERNET_MTU)
    }

    /// What ports are to do beyond checksums.
    pub(super) fn wanted(&self) -> Wanted {
        let may_cut = self.devices.iter().any(Device::may_have_long_frames);
        Wanted {
            segmentation: self.settings.segmentation != Segmentation::Never && may_cut,
            vlan_filter: self.settings.ports.iter().any(|port| port.vlan.is_some()),
        }
    }

    /// Descriptors of a receive or transmit queue: a power of two, so that all receive queues together hold a quarter of the buffers at most.
    fn descriptors(&self) -> usize {
        let share = self.settings.buffers / 4 / (self.cores.len() * self.devices.len());
        DESCRIPTORS_MAX.min(1 << share.max(1).ilog2())
    }

    /// Arguments for the EAL beyond those that capsule makes.
    fn eal_arguments(&self, memory: Memory) -> String {
        // Nothing is shared with another process, so nothing is left behind in /dev/hugepages and /run when we are killed.
        let private = if memory == Memory::Huge { "--in-memory" } else { "--no-shconf" };
        let mut arguments = vec![private.to_owned(), "--no-telemetry".to_owned()];
        arguments.extend(self.iova_mode.map(str::to_owned));
        let mut pci = self.devices.iter().filter(|device| device.pci).peekable();
        if pci.peek().is_none() {
            // Else DPDK takes every PCI NIC that it has a driver for, the one you are logged in over included.
            arguments.push("--no-pci".to_owned());
        }
        // capsule allows the devices itself but leaves their arguments out; the later mention counts.
        for device in pci.filter(|device| device.arguments.is_some()) {
            arguments.extend(["-a".to_owned(), device.to_string()]);
        }
        if let Memory::Ordinary(mib) = memory {
            arguments.extend(["--no-huge".to_owned(), "-m".to_owned(), mib.to_string()]);
        } else if self.devices.iter().any(|device| device.is("net_virtio_user")) {
            // The other side of a vhost-user socket maps our memory, a file descriptor a segment, and takes few of them.
            arguments.push("--single-file-segments".to_owned());
        }
        if self.devices.iter().any(|device| device.is("net_ring")) {
            // net_ring makes a queue pair for each lcore that the EAL knows, and capsule tells it of one.
            let cores: BTreeSet<usize> = self.cores.iter().copied().chain([self.control_core]).collect();
            let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
            arguments.extend(["-l".to_owned(), cores.join(",")]);
        }
        arguments.join(" ")
    }

    /// capsule's configuration, in the form that it deserialises.
    pub(super) fn runtime_config(&self, memory: Memory) -> Value {
        let ports = self.settings.ports.iter().zip(&self.devices).map(|(port, device)| {
            let args = device.arguments.as_ref().filter(|_| !device.pci);
            json!({
                "name": port.name,
                "device": device.name,
                "args": args,
                "cores": self.cores,
                "rxd": self.descriptors(),
                "txd": self.descriptors(),
                // Neighbour discovery arrives by multicast.
                "multicast": true,
                "promiscuous": false,
            })
        });
        json!({
            "app_name": self.settings.file_prefix,
            "master_core": self.control_core,
            "mempool": { "capacity": self.settings.buffers, "cache_size": 128 },
            "ports": ports.collect::<Vec<_>>(),
            "dpdk_args": self.eal_arguments(memory),
        })
    }
}

fn prove_cores(settings: &Settings, usable: &[usize]) -> Result<Vec<usize>, Error> {
    if settings.lanes.is_empty() {
        return Err(Error::NoLanes);
    }
    for &core in settings.lanes.iter().chain([&settings.control_core]) {
        if !usable.contains(&core) {
            return Err(Error::NoSuchCore { core, usable: usable.to_vec() });
        }
    }
    let mut cores = BTreeSet::new();
    for &core in &settings.lanes {
        if !cores.insert(core) {
            return Err(Error::CoreTwice { core });
        }
    }
    Ok(cores.into_iter().collect())
}

fn prove_ports(ports: &[PortSettings]) -> Result<Vec<Device>, Error> {
    if ports.is_empty() {
        return Err(Error::NoPorts);
    }
    let mut devices: Vec<Device> = Vec::with_capacity(ports.len());
    let mut names = BTreeSet::new();
    for port in ports {
        let device: Device = port.device.parse()?;
        if !names.insert(&port.name) || devices.iter().any(|earlier| earlier.name == device.name) {
            return Err(Error::PortTwice { port: port.name.clone(), device: device.name });
        }
        if !(MTU_MIN..=MTU_MAX).contains(&port.mtu) {
            return Err(Error::BadMtu { port: port.name.clone(), mtu: port.mtu });
        }
        if let Some(vlan) = port.vlan.filter(|vlan| !VLANS.contains(vlan)) {
            return Err(Error::BadVlan { port: port.name.clone(), vlan });
        }
        devices.push(device);
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(device: &str) -> Settings {
        Settings {
            lanes: vec![1, 0],
            control_core: 0,
            ports: vec![PortSettings {
                name: "front".into(),
                device: device.into(),
                mtu: 1500,
                vlan: None,
                kernel: None,
            }],
            hugepages: Hugepages::Auto,
            buffers: 16_384,
            segmentation: Segmentation::Auto,
            file_prefix: "engine-1".into(),
        }
    }

    fn arguments(device: &str, memory: Memory) -> String {
        Plan::new(&settings(device), &[0, 1]).unwrap().eal_arguments(memory)
    }

    #[test]
    fn no_pci_device_is_probed_unless_one_is_named() {
        assert!(arguments("net_tap0,iface=x", Memory::Huge).contains("--no-pci"));
        assert!(!arguments("0000:3b:00.0", Memory::Huge).contains("--no-pci"));
        assert!(arguments("3B:00.0,queues=4", Memory::Huge).ends_with("-a 0000:3b:00.0,queues=4"));
    }

    #[test]
    fn a_pci_device_must_have_a_driver_for_dpdk() {
        let plan = |holder: Holder| {
            let mut plan = Plan::new(&settings("0000:3b:00.0"), &[0, 1]).unwrap();
            plan.look_at_drivers(|_| holder.clone()).map(|()| plan.eal_arguments(Memory::Huge))
        };
        assert!(plan(Holder::Uio).unwrap().contains("--iova-mode=pa"));
        assert!(!plan(Holder::Vfio).unwrap().contains("--iova-mode"));
        let refused = plan(Holder::Kernel("ixgbe".into())).unwrap_err().to_string();
        assert!(
            refused.contains("port front")
                && refused.contains("driver ixgbe")
                && refused.contains("scripts/bind 0000:3b:00.0"),
            "{refused}"
        );
        assert!(plan(Holder::Missing).unwrap_err().to_string().contains("no such PCI device"));
    }

    #[test]
    fn ordinary_pages_and_shared_segments_are_asked_for_where_needed() {
        assert!(arguments("net_tap0", Memory::Ordinary(104)).ends_with("--no-huge -m 104"));
        assert!(arguments("net_virtio_user0,path=/run/vhost", Memory::Huge).ends_with("--single-file-segments"));
        assert!(arguments("net_ring0", Memory::Ordinary(104)).ends_with("-l 0,1"));
    }

    #[test]
    fn buffers_are_long_for_devices_that_may_cut_segments_only() {
        let long = |settings: Settings| Plan::new(&settings, &[0, 1]).unwrap().has_long_frames();
        assert!(long(settings("net_virtio_user0,path=/run/vhost")) && long(settings("0000:3b:00.0")));
        assert!(!long(settings("net_tap0")) && !long(settings("net_ring0")));
        assert!(!long(Settings { segmentation: Segmentation::Never, ..settings("0000:3b:00.0") }));
        let mut jumbo = settings("net_tap0");
        jumbo.ports[0].mtu = 9000;
        let plan = Plan::new(&jumbo, &[0, 1]).unwrap();
        assert!(
            plan.has_long_frames() && !plan.wanted().segmentation,
            "jumbo frames fill long buffers, and nobody cuts"
        );
    }

    #[test]
    fn an_interface_of_the_kernel_is_one_more_device() {
        let mut settings = settings("net_tap0,iface=y");
        settings.ports[0].kernel = Some(KernelSettings { interface: "front0".into(), rate: 1000 });
        let plan = Plan::new(&settings, &[0, 1]).unwrap();
        let [port, kernel] = &plan.devices[..] else { panic!("there are two devices") };
        assert_eq!(port.to_string(), "net_tap0,iface=y");
        assert!(kernel.to_string().contains("iface=front0") && kernel.name != port.name);
        assert_eq!(plan.beside, [None, Some(0)]);
        assert_eq!(plan.runtime_config(Memory::Huge)["ports"][1]["name"], "front kernel");
        assert!(!plan.has_long_frames());
        settings.ports[0].device = "0000:3b:00.0".into();
        let mut plan = Plan::new(&settings, &[0, 1]).unwrap();
        plan.look_at_drivers(|_| Holder::Uio).unwrap();
        assert!(plan.devices[1].is("net_tap"), "vhost-net cannot be told physical addresses");
        assert_eq!(plan.runtime_config(Memory::Huge)["ports"][1]["args"], "iface=front0");
    }

    #[test]
    fn lanes_are_numbered_in_ascending_order_of_core() {
        assert_eq!(Plan::new(&settings("net_tap0"), &[0, 1]).unwrap().cores, [0, 1]);
    }

    #[test]
    fn receive_queues_hold_a_quarter_of_the_buffers_at_most() {
        for buffers in [2_048, 4_096, 16_384, 100_000] {
            let settings = Settings { buffers, ..settings("net_tap0") };
            let descriptors = Plan::new(&settings, &[0, 1]).unwrap().descriptors();
            assert!(descriptors.is_power_of_two() && descriptors * 2 <= buffers / 4, "{descriptors} of {buffers}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_starts() {
        let refused = |settings: &Settings| Plan::new(settings, &[0, 1]).unwrap_err().to_string();
        let with = |device: &str| settings(device);
        let tap = with("net_tap0");
        assert!(refused(&Settings { lanes: vec![], ..tap.clone() }).contains("`cores`"));
        assert!(refused(&Settings { lanes: vec![0, 7], ..tap.clone() }).contains("core 7 does not exist"));
        assert!(refused(&Settings { control_core: 9, ..tap.clone() }).contains("core 9 does not exist"));
        assert!(refused(&Settings { lanes: vec![1, 1], ..tap.clone() }).contains("core 1 is given twice"));
        assert!(refused(&Settings { ports: vec![], ..tap.clone() }).contains("[[port]]"));
        assert!(refused(&Settings { buffers: 100, ..tap.clone() }).contains("2048 or more"));
        assert!(refused(&Settings { file_prefix: "../x".into(), ..tap.clone() }).contains("`../x`"));
        assert!(refused(&with("eth0")).contains("`eth0`"));
        assert!(refused(&with("net_tap0 --no-huge")).contains("spaces"));
        let mut twice = tap.clone();
        let (name, device) = ("back".into(), "net_tap0,iface=y".into());
        twice.ports.push(PortSettings { name, device, mtu: 1500, vlan: None, kernel: None });
        assert!(refused(&twice).contains("port back"));
        let mut jumbo = tap.clone();
        jumbo.ports[0].mtu = 9217;
        assert!(refused(&jumbo).contains("MTU of 9217"));
        let mut nowhere = tap;
        nowhere.ports[0].vlan = Some(4095);
        assert!(refused(&nowhere).contains("no VLAN 4095"));
    }

    #[test]
    fn pci_addresses_are_recognised_with_and_without_a_domain() {
        assert_eq!("3B:00.1".parse::<Device>().unwrap().name, "0000:3b:00.1");
        assert_eq!("0000:02:00.0".parse::<Device>().unwrap().to_string(), "0000:02:00.0");
        assert!("3b:00".parse::<Device>().is_err());
        assert!("00:3b:00.0".parse::<Device>().is_err());
    }
}
