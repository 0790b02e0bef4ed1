//! Starting, running and stopping capsule's runtime, with a lane on each core.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, mem, thread};

use capsule::config::RuntimeConfig;
use capsule::{Runtime, UnixSignal};
use capsule_ffi as ffi;
use crossbeam::atomic::AtomicCell;
use serde::Deserialize;
use smoltcp::wire::EthernetAddress;

use super::hugepages::{self, Memory};
use super::kernel;
use super::lane::Lane;
use super::log;
use super::pci::Holder;
use super::queue::{KernelSeed, Pool, Queue, Seed};
use super::report::{Gate, PortReports};
use super::settings::{Device, Error, Plan, PortSettings, Segmentation, Settings};
use super::tap;
use crate::nic::{Buffers, ETHERNET_MTU, Offload, PortInfo, Reports, memory_mib};

/// A signal to the process, on which [`Engine::run`] asks what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: reload.
    Hangup,
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// SIGTERM: drain and end.
    Terminate,
}

/// Stops an engine from any thread: every lane finishes the breath it is in, then [`Engine::run`] returns. Before `run`, it makes `run` return at once.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Shared>);

impl Stopper {
    /// Stops the engine; more than once is no error.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// What the main thread and the lanes tell each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    stopping: AtomicBool,
    /// Lanes that have not ended.
    running: AtomicUsize,
    /// Queues that exist.
    queues: AtomicUsize,
    /// One more than the lane that panicked last.
    panicked: AtomicUsize,
}

impl Shared {
    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn lane_ended(&self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn lane_panicked(&self, lane: usize) {
        self.panicked.store(lane + 1, Ordering::Release);
        self.stop();
    }

    pub(super) fn queue_made(&self) {
        self.queues.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn queue_dropped(&self) {
        self.queues.fetch_sub(1, Ordering::AcqRel);
    }

    fn all_lanes_ended(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
    }
}

/// Ports that are configured and cores that wait for their lanes.
#[derive(Debug)]
pub struct Engine {
    runtime: Runtime,
    cores: Vec<usize>,
    control_core: usize,
    ports: Vec<Port>,
    pools: Arc<[Pool]>,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
}

/// A port of ethdev.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) id: u16,
    info: PortInfo,
    /// What it does for frames that leave, as `RTE_MBUF_F_TX_*`.
    able: u64,
    /// It is a tap whose driver must be told of its MTU once it is started.
    is_jumbo_tap: bool,
    /// The device of the kernel's interface beside it, and the frames a second that it takes and gives.
    kernel: Option<(Box<Port>, u32)>,
}

impl Engine {
    /// Proves the settings, initialises DPDK and configures the ports. Pins the calling thread to the control core: start other threads before, or
    /// let them choose their core.
    ///
    /// # Errors
    /// What is wrong and what mends it. An engine that did not start leaves DPDK half up; the process should end.
    pub fn start(settings: &Settings) -> Result<Self, Error> {
        let mut plan = Plan::new(settings, &usable_cores())?;
        plan.look_at_drivers(Holder::of)?;
        let needed_mib = memory_mib(settings.buffers, plan.has_long_frames());
        let memory = hugepages::choose(settings.hugepages, &hugepages::free(), needed_mib, &plan.devices)?;
        ffi::want_long_frames(plan.has_long_frames());
        ffi::want(plan.wanted());
        let kernels = plan.devices.iter().zip(&plan.beside).filter(|(_, beside)| beside.is_some());
        ffi::want_plain(kernels.map(|(device, _)| device.name.clone()).collect());

        log::install();
        let config = RuntimeConfig::deserialize(plan.runtime_config(memory))
            .map_err(|error| Error::Start { reason: error.to_string() })?;
        let runtime = Runtime::build(config).map_err(|error| explain(&plan, &error))?;

        let ports = plan.settings.ports.iter().zip(&plan.devices);
        let adopt = |(port, device)| adopt(port, device, settings.segmentation);
        let adopted: Vec<Port> = ports.map(adopt).collect::<Result<_, _>>()?;
        let ports = join_kernels(adopted, &plan)?;
        let pools: Arc<[Pool]> = Pool::all().into();
        tracing::info!(
            lanes = plan.cores.len(),
            ports = ports.len(),
            hugepages = (memory == Memory::Huge),
            "DPDK is up"
        );
        Ok(Self {
            runtime,
            cores: plan.cores,
            control_core: plan.control_core,
            ports,
            pools,
            shared: Arc::default(),
            gate: Arc::default(),
        })
    }

    /// How many lanes [`run`](Self::run) wants.
    pub fn lanes(&self) -> usize {
        self.cores.len()
    }

    /// What each port is, in order of configuration.
    pub fn ports(&self) -> impl ExactSizeIterator<Item = &PortInfo> {
        self.ports.iter().map(|port| &port.info)
    }

    /// How many packet buffers there are and how many are in use, waiting in receive queues included.
    pub fn buffers(&self) -> Buffers {
        Pool::fill(&self.pools)
    }

    /// Whom to ask what ports say of themselves, while the engine lives and after.
    pub fn reports(&self) -> Arc<dyn Reports> {
        Arc::new(PortReports::new(&self.ports, &self.gate))
    }

    /// A handle that stops the engine.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.shared))
    }

    /// Starts the ports, makes each lane on the thread of its core and calls the breath that it gave, over and over, until the engine stops.
    ///
    /// `lanes[i]` gets a queue of every port, in order of configuration, and runs on the `i`th core in ascending order. `on_signal` is called on
    /// this thread; true stops the engine at once. The order of the end: every lane is dropped on its own thread, with its frames; what waits in
    /// its receive queues is freed; ports stop and close (a tap interface disappears); memory is freed. Gives back the buffers that are still
    /// in use after the ports are closed: 0, unless someone outside the lanes holds frames, whose memory then stays.
    ///
    /// # Panics
    /// When there are not as many `lanes` as [`lanes`](Self::lanes) says.
    ///
    /// # Errors
    /// When a port does not start, or a lane panicked.
    pub fn run<M, B>(mut self, lanes: Vec<M>, on_signal: impl Fn(Signal) -> bool + 'static) -> Result<Buffers, Error>
    where
        M: FnOnce(Vec<Queue>) -> B + Send + 'static,
        B: FnMut() + 'static,
    {
        assert_eq!(lanes.len(), self.cores.len(), "one lane a core");
        self.shared.running.store(lanes.len(), Ordering::Release);
        self.listen(on_signal)?;
        for (index, make) in lanes.into_iter().enumerate() {
            self.install(index, make)?;
        }
        let executed = self.runtime.execute();
        let panicked = self.shared.panicked.load(Ordering::Acquire).checked_sub(1);
        let buffers = self.close();
        match (executed, panicked) {
            (Err(error), _) => Err(Error::Start { reason: log::take_errors(&format!("{error:#}")) }),
            (Ok(()), Some(lane)) => Err(Error::LanePanicked { lane }),
            (Ok(()), None) => Ok(buffers),
        }
    }

    /// Has capsule ask `on_signal`, and stop when the last lane has ended rather than before.
    ///
    /// capsule stops on a signal only, and frees a lane of the main thread after the memory that its frames are in. So a stop first ends the
    /// lanes, and when none is left a task on the main thread raises SIGTERM, whose answer is then true.
    fn listen(&mut self, on_signal: impl Fn(Signal) -> bool + 'static) -> Result<(), Error> {
        const LOOK_EVERY: Duration = Duration::from_millis(10);

        let shared = Arc::clone(&self.shared);
        self.runtime.set_on_signal(move |signal| {
            if shared.all_lanes_ended() {
                return true;
            }
            let signal = match signal {
                UnixSignal::SIGHUP => Signal::Hangup,
                UnixSignal::SIGINT => Signal::Interrupt,
                UnixSignal::SIGTERM => Signal::Terminate,
            };
            if on_signal(signal) {
                shared.stop();
            }
            false
        });

        let shared = Arc::clone(&self.shared);
        let raised = AtomicBool::new(false);
        let raise = move || {
            if shared.all_lanes_ended() && !raised.swap(true, Ordering::AcqRel) {
                // The handler is in place: this task runs while capsule waits for signals. Raising fails for invalid signals only.
                let _ = nix::sys::signal::raise(nix::sys::signal::SIGTERM);
            }
        };
        self.runtime
            .add_periodic_task_to_core(self.control_core, raise, LOOK_EVERY)
            .map(drop)
            .map_err(|error| Error::Start { reason: format!("{error:#}") })
    }

    fn install<M, B>(&mut self, index: usize, make: M) -> Result<(), Error>
    where
        M: FnOnce(Vec<Queue>) -> B + Send + 'static,
        B: FnMut() + 'static,
    {
        let core = self.cores.get(index).copied().unwrap_or_default();
        // SAFETY: asks libnuma about a number; the answer for a core that it does not know is -1.
        let node = unsafe { ffi::numa_node_of_cpu(i32::try_from(core).unwrap_or(-1)) };
        let pool = self.pools.iter().find(|pool| pool.node() == node).or(self.pools.first()).copied();
        let no_pool = || Error::Start { reason: "there is no packet buffer pool".to_owned() };
        let pool = pool.ok_or_else(no_pool)?;
        let seed = |port: &Port| Seed {
            port: port.id,
            // RTE_MAX_QUEUES_PER_PORT is 1,024.
            queue: u16::try_from(index).unwrap_or(u16::MAX),
            info: port.info.clone(),
            able: port.able,
            is_jumbo_tap: port.is_jumbo_tap,
            pool,
            pools: Arc::clone(&self.pools),
            shared: Arc::clone(&self.shared),
            kernel: None,
        };
        let lanes = u32::try_from(self.cores.len()).unwrap_or(u32::MAX).max(1);
        let kernel = |(port, rate): &(Box<Port>, u32)| KernelSeed { seed: seed(port), rate: rate.div_ceil(lanes) };
        let both = |port: &Port| Seed { kernel: port.kernel.as_ref().map(kernel).map(Box::new), ..seed(port) };
        let seeds: Vec<Seed> = self.ports.iter().map(both).collect();
        let shared = Arc::clone(&self.shared);
        // capsule wants its installer to be Sync, though one thread calls it, once.
        let parts = AtomicCell::new(Some((make, seeds, shared)));
        let installer = move |_| {
            let (make, seeds, shared) = parts.take().unwrap_or_else(|| unreachable!("an installer is called once"));
            Lane::new(index, make, seeds, shared)
        };
        let installed = self.runtime.add_pipeline_to_core(core, installer).map(drop);
        installed.map_err(|error| Error::Start { reason: format!("{error:#}") })
    }

    /// Closes the ports, and frees the memory unless someone still holds a part of it.
    fn close(self) -> Buffers {
        self.gate.shut();
        let kernels = self.ports.iter().filter_map(|port| port.kernel.as_ref()).map(|(kernel, _)| &**kernel);
        for port in self.ports.iter().chain(kernels) {
            // SAFETY: capsule has stopped the port, and its lanes are gone. capsule closes it again, which ethdev answers with an error.
            unsafe { ffi::rte_eth_dev_close(port.id) };
        }
        let buffers = Pool::fill(&self.pools);
        let queues = self.shared.queues.load(Ordering::Acquire);
        if buffers.in_use == 0 && queues == 0 {
            // The EAL makes a directory for files that it then does not make, and leaves it behind.
            // SAFETY: the EAL is up and gives a C string of its own.
            let directory = unsafe { CStr::from_ptr(ffi::rte_eal_get_runtime_dir()) }.to_string_lossy().into_owned();
            drop(self.runtime);
            // Not empty or in use by another engine of this name: then it stays.
            let _ = fs::remove_dir(directory);
        } else {
            // Freeing it would pull the memory away under their holders.
            tracing::warn!(
                in_use = buffers.in_use,
                queues,
                "packet buffers or queues outlive their lanes; their memory stays until the process ends"
            );
            mem::forget(self.runtime);
        }
        buffers
    }
}

/// Cores that this process can run on. Being pinned elsewhere at the moment, by whoever started it, is no obstacle; a container's limit is.
fn usable_cores() -> Vec<usize> {
    /// Cores that the C library's set has room for.
    const CORES_MAX: usize = 1024;

    let try_all =
        || (0..CORES_MAX).filter(|&id| core_affinity::set_for_current(core_affinity::CoreId { id })).collect();
    // On a thread of its own, since trying is moving.
    thread::spawn(try_all).join().unwrap_or_default()
}

/// Makes an error of capsule's say which device it is about, as far as ethdev can still tell.
fn explain(plan: &Plan, error: &impl std::fmt::Display) -> Error {
    let reason = log::take_errors(&format!("{error:#}"));
    if !ffi::is_initialised() {
        // The EAL gives up at once on a virtual device without a driver, and says its name.
        let mut ports = plan.settings.ports.iter().zip(&plan.devices);
        return match ports.find(|(_, device)| reason.contains(&device.name)) {
            Some((port, device)) => {
                let (port, device, remedy) = (port.name.clone(), device.to_string(), device.remedy());
                Error::NoSuchDevice { port, device, reason, remedy }
            }
            None => Error::Environment { reason },
        };
    }
    for (port, device) in plan.settings.ports.iter().zip(&plan.devices) {
        let Some(id) = port_id(device) else {
            let (port, device, remedy) = (port.name.clone(), device.to_string(), device.remedy());
            return Error::NoSuchDevice { port, device, reason, remedy };
        };
        let info = device_info(id);
        let queues = info.max_rx_queues.min(info.max_tx_queues);
        if usize::from(queues) < plan.cores.len() {
            let (port, device, lanes) = (port.name.clone(), device.to_string(), plan.cores.len());
            return Error::TooFewQueues { port, device, queues, lanes };
        }
    }
    Error::Start { reason }
}

/// The number that ethdev gave to a device.
fn port_id(device: &Device) -> Option<u16> {
    let name = CString::new(device.name.as_str()).ok()?;
    let mut id = 0;
    // SAFETY: the EAL is up, `name` is a C string and `id` is ours.
    let answer = unsafe { ffi::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut id) };
    (answer == 0).then_some(id)
}

pub(super) fn device_info(id: u16) -> ffi::rte_eth_dev_info {
    let mut info = ffi::rte_eth_dev_info::default();
    // SAFETY: `info` is ours; on an error it stays empty, a device without abilities.
    let _ = unsafe { ffi::rte_eth_dev_info_get(id, &raw mut info) };
    info
}

fn driver_name(info: &ffi::rte_eth_dev_info) -> String {
    if info.driver_name.is_null() {
        return "unknown".to_owned();
    }
    // SAFETY: ethdev points it at the driver's own name, a C string that lives as long as the driver.
    unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy().into_owned()
}

/// The version of a port's firmware, as far as its driver tells.
fn firmware(id: u16) -> String {
    const LENGTH_MAX: usize = 128;
    let mut text = [0_u8; LENGTH_MAX];
    // SAFETY: `text` is ours and has as many bytes as it is said to have.
    let answer = unsafe { ffi::rte_eth_dev_fw_version_get(id, text.as_mut_ptr().cast(), LENGTH_MAX) };
    match (answer, CStr::from_bytes_until_nul(&text)) {
        (0, Ok(text)) => text.to_string_lossy().into_owned(),
        _ => "not told".to_owned(),
    }
}

fn node(id: u16) -> i32 {
    // SAFETY: takes a number; the answer for a port without a node is -1.
    unsafe { ffi::rte_eth_dev_socket_id(id) }
}

/// Sets the MTU of a port that capsule has configured, lets its VLAN pass, and learns what the port is.
fn adopt(port: &PortSettings, device: &Device, segmentation: Segmentation) -> Result<Port, Error> {
    let Some(id) = port_id(device) else {
        let reason = log::take_errors("it is gone");
        return Err(Error::NoSuchDevice {
            port: port.name.clone(),
            device: device.to_string(),
            reason,
            remedy: device.remedy(),
        });
    };
    let PortSettings { mtu, vlan, .. } = *port;
    set_mtu(port, device, id)?;
    if let Some(vlan) = vlan {
        // SAFETY: takes numbers only. A device that filters nothing answers with an error, and software looks at tags in any case.
        let _ = unsafe { ffi::rte_eth_dev_vlan_filter(id, vlan, 1) };
    }
    let mut mac = ffi::rte_ether_addr::default();
    // SAFETY: `mac` is ours.
    let _ = unsafe { ffi::rte_eth_macaddr_get(id, &raw mut mac) };
    let mut mac = EthernetAddress(mac.addr_bytes);
    if device.shares_its_address() {
        // The kernel's end of a tap has the port's address, and a station does not talk to itself. The port filters nothing, so we take the next one.
        mac.0[5] ^= 1;
    }
    let info = device_info(id);
    let offloads = ffi::offloads(&info);
    // SAFETY: maps bits to bits.
    let mut able = unsafe { ffi::sealane_transmit_flags(offloads.transmit) };
    if segmentation == Segmentation::Always && device.is("net_vhost") {
        able |= ffi::SEALANE_F_TX_TCP_SEG;
    }
    let offload = Offload {
        transmit_checksum: offloads.transmit & ffi::SEALANE_TX_OFFLOAD_TCP_CKSUM != 0,
        receive_checksum: offloads.receive & ffi::SEALANE_RX_OFFLOAD_TCP_CKSUM != 0,
        segmentation: able & ffi::SEALANE_F_TX_TCP_SEG != 0,
    };
    tracing::info!(port = port.name, device = %device, %mac, mtu, vlan, ?offload, "port is ready");
    // What it says of itself: a tap says that it spreads flows, and does not.
    tracing::info!(
        port = port.name,
        driver = driver_name(&info),
        firmware = firmware(id),
        receive_queues_max = info.max_rx_queues,
        transmit_queues_max = info.max_tx_queues,
        rss_functions = format!("{:#x}", info.flow_type_rss_offloads),
        rss_entries = info.reta_size,
        numa_node = node(id),
        "port's driver"
    );
    let is_jumbo_tap = is_jumbo_tap(port, device);
    Ok(Port { id, info: PortInfo { mac, mtu, vlan, offload }, able, is_jumbo_tap, kernel: None })
}

fn is_jumbo_tap(port: &PortSettings, device: &Device) -> bool {
    device.is("net_tap") && port.mtu > ETHERNET_MTU
}

/// Sets the MTU of a port that is configured and not started.
fn set_mtu(port: &PortSettings, device: &Device, id: u16) -> Result<(), Error> {
    let refused = |answer: i32| {
        let reason = log::take_errors(&std::io::Error::from_raw_os_error(answer).to_string());
        Error::MtuRefused { port: port.name.clone(), device: device.to_string(), mtu: port.mtu, reason }
    };
    if is_jumbo_tap(port, device) {
        // The driver says that it takes no more than 1,522 bytes, which is not so, and ethdev believes it. The rest is `tap::carry`'s, after the start.
        return tap::set_mtu(device_info(id).if_index, port.mtu)
            .map_err(|error| refused(error.raw_os_error().unwrap_or(libc::EINVAL)));
    }
    // SAFETY: takes numbers only; the port is configured and not started.
    let answer = unsafe { ffi::rte_eth_dev_set_mtu(id, u16::try_from(port.mtu).unwrap_or(u16::MAX)) };
    // A device in memory has no MTU to set and carries whatever fits a buffer.
    if answer != 0 && answer != -libc::ENOTSUP {
        return Err(refused(-answer));
    }
    Ok(())
}

/// Puts the devices of the kernel's interfaces beside their ports, with their ports' Ethernet addresses.
fn join_kernels(adopted: Vec<Port>, plan: &Plan) -> Result<Vec<Port>, Error> {
    let mut ports: Vec<Port> = Vec::new();
    for (device, beside) in adopted.into_iter().zip(&plan.beside) {
        let Some(beside) = *beside else {
            ports.push(device);
            continue;
        };
        let settings = plan.settings.ports.get(beside);
        let wanted = settings.and_then(|port| Some((&port.name, port.kernel.as_ref()?)));
        let (Some(port), Some((name, wanted))) = (ports.get_mut(beside), wanted) else { continue };
        kernel::set_mac(device.id, &wanted.interface, port.info.mac).map_err(|error| Error::KernelInterface {
            port: name.clone(),
            interface: wanted.interface.clone(),
            reason: error.to_string(),
        })?;
        // The kernel looks at checksums itself, and computes its own.
        port.kernel = Some((Box::new(Port { able: 0, ..device }), wanted.rate));
    }
    Ok(ports)
}
