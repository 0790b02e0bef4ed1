//! What ethdev says of ports.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use capsule_ffi as ffi;

use super::engine::{Port, device_info};
use crate::base::PortId;
use crate::nic::{Counts, Report, Reports};

/// Most of a driver's own counts that are shown.
const EXTENDED_MAX: usize = 512;

/// Asks ethdev, from any thread, until the ports are closed.
#[derive(Debug)]
pub(super) struct PortReports {
    ports: Vec<(u16, String)>,
    gate: Arc<Gate>,
}

/// Keeps ports open while somebody asks them, and everybody out once they close.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_shut: AtomicBool,
    asking: AtomicUsize,
}

impl Gate {
    /// Runs `ask`, unless the gate is shut.
    fn through<R>(&self, ask: impl FnOnce() -> R) -> Option<R> {
        // Whoever shuts the gate looks at who is asking afterwards, and we look at the gate after we have said that we ask: one sees the other (SeqCst).
        self.asking.fetch_add(1, Ordering::SeqCst);
        let answer = if self.is_shut.load(Ordering::SeqCst) { None } else { Some(ask()) };
        self.asking.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    /// Lets nobody in any more, and waits for those who are: some microseconds.
    pub(super) fn shut(&self) {
        self.is_shut.store(true, Ordering::SeqCst);
        while self.asking.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
    }
}

impl PortReports {
    pub(super) fn new(ports: &[Port], gate: &Arc<Gate>) -> Self {
        let name = |port: &Port| {
            let device = device_info(port.id);
            // SAFETY: ethdev points to the driver's name, a static C string, or to nothing.
            let driver = (!device.driver_name.is_null()).then(|| unsafe { CStr::from_ptr(device.driver_name) });
            (port.id, driver.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
        };
        Self { ports: ports.iter().map(name).collect(), gate: Arc::clone(gate) }
    }
}

impl Reports for PortReports {
    fn report(&self, port: PortId) -> Option<Report> {
        let (id, driver) = self.ports.get(usize::from(port.0))?;
        self.gate.through(|| {
            let mut stats = ffi::rte_eth_stats::default();
            // SAFETY: the port is open, see `Gate`, and `stats` is ours. Drivers read their counters, which lanes go on writing.
            let answer = unsafe { ffi::rte_eth_stats_get(*id, &raw mut stats) };
            let mut link = ffi::rte_eth_link::default();
            // SAFETY: as above; it does not wait for a link.
            let linked = unsafe { ffi::rte_eth_link_get_nowait(*id, &raw mut link) };
            (answer == 0).then(|| Report {
                device: device_name(*id),
                driver: driver.clone(),
                link_is_up: linked == 0 && link.link_status() != 0,
                link_megabits: Some(link.link_speed).filter(|speed| linked == 0 && ![0, u32::MAX].contains(speed)),
                counts: Counts {
                    frames_received: stats.ipackets,
                    frames_sent: stats.opackets,
                    bytes_received: stats.ibytes,
                    bytes_sent: stats.obytes,
                    missed: stats.imissed,
                    receive_errors: stats.ierrors,
                    transmit_errors: stats.oerrors,
                    no_buffer: stats.rx_nombuf,
                },
                extended: extended(*id),
            })
        })?
    }
}

/// The device of a port.
fn device_name(id: u16) -> String {
    let mut name: [std::ffi::c_char; 64] = [0; 64];
    // SAFETY: ethdev writes at most RTE_ETH_NAME_MAX_LEN bytes, 64, which `name` has, and ends them with a zero.
    let answer = unsafe { ffi::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) };
    text(&name).filter(|_| answer == 0).unwrap_or_default()
}

/// What the driver counts under its own names. Ethdev begins the list with what it counts itself, for every driver.
fn extended(id: u16) -> Vec<(String, u64)> {
    // SAFETY: asks for the number of names only.
    let count = unsafe { ffi::rte_eth_xstats_get_names(id, std::ptr::null_mut(), 0) };
    let count = usize::try_from(count).unwrap_or(0);
    let (mut names, mut values) =
        (vec![ffi::rte_eth_xstat_name::default(); count], vec![ffi::rte_eth_xstat::default(); count]);
    let size = std::ffi::c_uint::try_from(count).unwrap_or(0);
    // SAFETY: both arrays have `size` places. Ethdev writes nothing where that is too few, and says how many it wants.
    let named = unsafe { ffi::rte_eth_xstats_get_names(id, names.as_mut_ptr(), size) };
    // SAFETY: as above.
    let read = unsafe { ffi::rte_eth_xstats_get(id, values.as_mut_ptr(), size) };
    let filled = usize::try_from(named.min(read)).unwrap_or(0).min(count);
    let of = |value: &ffi::rte_eth_xstat| {
        let name = names.get(usize::try_from(value.id).ok()?)?;
        Some((text(&name.name)?, value.value))
    };
    values.iter().take(filled.min(EXTENDED_MAX)).filter_map(of).collect()
}

/// A C string in an array.
#[expect(clippy::cast_sign_loss, reason = "a char is a byte")]
fn text(chars: &[std::ffi::c_char]) -> Option<String> {
    let bytes: Vec<u8> = chars.iter().map(|char| *char as u8).collect();
    CStr::from_bytes_until_nul(&bytes).ok().map(|name| name.to_string_lossy().into_owned())
}
