//! `kernel` of `[[port]]`, the interface of the host's kernel beside a port, and `[engine.announce]`, for which routing daemons look there.

use toml::de::DeValue;

use super::fault::{Report, Wrong, wrong};
use super::model::{Announce, Device, Engine, Fixed, Kernel, Port};
use super::reader::{Located, Section, boolean, integer, name};

/// The longest name of an interface: IFNAMSIZ of Linux counts a zero byte in.
const INTERFACE_MAX: usize = 15;
/// Frames a second each way, unless it is said: more than routing daemons and operators need, and less than a lane notices.
const RATE: u32 = 10_000;
/// Least and most of them. Each is a system call of the lane's where the interface is a tap.
const RATES: std::ops::RangeInclusive<i64> = 100..=1_000_000;

/// Reads what stands beside a port, if anything does.
pub(super) fn kernel(report: &mut Report, port: &mut Section<'_>) -> Option<Located<Kernel>> {
    let mut section = port.section(report, "kernel")?;
    let interface = section.required(report, "interface", "\"front0\"", interface);
    let rate = section.or(report, "rate", RATE, integer(RATES));
    let addresses = section.or(report, "addresses", true, boolean);
    section.finish(report);
    let Located { value: interface, line } = interface?;
    Some(Located { value: Kernel { interface, rate: rate.value, addresses: addresses.value }, line })
}

fn interface(value: &DeValue<'_>) -> Result<String, Wrong> {
    let interface = name(value)?;
    if interface.len() > INTERFACE_MAX || interface.chars().all(|c| c == '.') {
        let remedy = format!("write at most {INTERFACE_MAX} letters, digits, '.', '_' or '-'");
        return Err(wrong(format!("is {interface:?}, which no interface can be called"), remedy));
    }
    Ok(interface)
}

/// Complains of interfaces that are something else, too.
pub(super) fn prove_interfaces(report: &mut Report, ports: &[Located<Port>], lines: &[usize]) {
    let mut seen: Vec<&str> = ports.iter().filter_map(|port| made_by(&port.value.device)).collect();
    for (kernel, line) in ports.iter().filter_map(|port| port.value.kernel.as_ref()).zip(lines) {
        if seen.contains(&kernel.interface.as_str()) {
            let what = format!("is {:?}, which another port makes", kernel.interface);
            report.fault(*line, "port.kernel.interface", wrong(what, "give every interface a name of its own"));
        }
        seen.push(&kernel.interface);
    }
}

/// The interface that a device makes or takes.
fn made_by(device: &Device) -> Option<&str> {
    match device {
        Device::Pci(_) => None,
        Device::Virtual(device) => device.split(',').find_map(|argument| argument.strip_prefix("iface=")),
    }
}

/// The kernel's routing table with announced addresses, unless it is said. FRR imports those from 1 to 252.
const TABLE: u32 = 198;

/// Reads `[engine.announce]`.
pub(super) fn announce(report: &mut Report, engine: &mut Section<'_>) -> Option<Announce> {
    let mut section = engine.section(report, "announce")?;
    let table = section.or(report, "table", TABLE, integer(1..=252));
    section.finish(report);
    Some(Announce { table: table.value })
}

/// Complains of announcing what nobody would hear of, or not in time.
pub(super) fn prove_announce(report: &mut Report, engine: Option<&Engine>, ports: &[Located<Port>], line: usize) {
    let Some(engine) = engine.filter(|engine| engine.announce.is_some()) else { return };
    if !ports.is_empty() && ports.iter().all(|port| port.value.kernel.is_none()) {
        let what = "leads over interfaces of the kernel, and no port has one";
        let remedy = "add kernel = { interface = \"front0\" } to a [[port]], or leave this out";
        report.fault(line, "engine.announce", wrong(what, remedy));
    } else if engine.drain_delay.is_zero() {
        let what = "ends with connections being refused: drain_delay gives routers no time to hear of it first";
        report.warning(line, "engine.announce", wrong(what, "write drain_delay = \"5s\" or so"));
    }
}

/// Keys that cannot change while the engine runs.
pub(super) fn fixed(port: &Port, line: usize) -> Fixed {
    let value = port.kernel.as_ref().map_or_else(
        || "none".to_owned(),
        |Kernel { interface, rate, addresses }| format!("{interface}, rate {rate}, addresses {addresses}"),
    );
    Fixed { key: format!("port {:?}, kernel", port.name), line, value }
}
