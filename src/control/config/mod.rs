//! The configuration: TOML in the words of `dpdk-config/tap.toml`, parsed into proof.
//!
//! [`load`] reads a file and gives either a [`Configuration`] in which everything holds, or every fault that it found, each with its line,
//! its key and what to write instead. A file that is not TOML is told its syntax errors only: what follows from them would mislead.
//!
//! What is proven beyond the type and the range of each value: names are unique and refer to something, keys fit their certificates,
//! cores exist, no two services share an address, every server and virtual address has a port of its family that leads there, keys
//! outlive the tickets under them. A virtual address may be a port's own address: the engine then answers there as at any other.
//! Everything has a bound, which is a constant here ([`FILE_MAX`], [`SERVICES_MAX`], [`SERVERS_MAX`], ...); more is a fault like any other.
//! Two ports may not have networks that overlap, for the way to a neighbour would depend on their order.

mod api;
mod capture;
mod client_certificates;
mod failover;
mod fault;
mod kernel;
mod keys;
mod model;
mod monitor_tls;
mod monitors;
mod named;
mod pools;
mod profiles;
mod reader;
mod sections;
mod servers_tls;
mod services;
mod sharing;
mod summary;
mod tcp;
mod trace;

use std::io::Read;
use std::path::Path;

use toml::de::DeTable;

pub use api::SOCKETS;
pub use fault::{Errors, Fault};
pub use model::{
    ADDRESSES_MAX, Announce, Api, ApiTcp, ApiTls, CERTIFICATES_MAX, CORES_MAX, Configuration, Device, Engine, FILE_MAX,
    Hugepages, Kernel, KeySource, Log, LogFormat, LogTo, POOLS_MAX, PORTS_MAX, Pool, Port, REVOCATION_FILES_MAX,
    SERVERS_MAX, SERVICES_MAX, SegmentationOffload, Server, TicketKeys, Trace, VirtualService,
};

use crate::base::UnixTime;
use fault::{Report, wrong};
use model::Fixed;
use reader::{Located, Section};

/// What a configuration is proven against beside itself.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The cores that this process may run on.
    pub cores: Vec<usize>,
    /// Bytes of memory.
    pub memory: u64,
    /// The wall clock, for the expiry of certificates.
    pub now: UnixTime,
}

impl Machine {
    /// This machine, now. Ask before any thread is pinned: a pinned thread sees its own core only.
    pub fn this() -> Self {
        let cores = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        // A machine that does not tell is not to blame for little.
        let memory = nix::sys::sysinfo::sysinfo().map_or(u64::MAX, |info| info.ram_total());
        Self { cores, memory, now: crate::control::clock::unix_time() }
    }
}

/// Reads and proves the configuration in `file`. Paths in it are relative to its directory.
///
/// # Errors
/// Every fault that was found.
pub fn load(file: &Path, machine: &Machine) -> Result<Configuration, Errors> {
    let unreadable = |what: String, remedy: &str| {
        Errors::one(Fault {
            file: file.to_owned(),
            line: 0,
            key: String::new(),
            wrong: what,
            remedy: remedy.to_owned(),
        })
    };
    let mut bytes = Vec::new();
    // One byte more than allowed shows that there is more.
    let most = FILE_MAX.saturating_add(1);
    std::fs::File::open(file)
        .and_then(|opened| opened.take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(&mut bytes))
        .map_err(|error| unreadable(format!("cannot be read ({error})"), "name a configuration file with --config"))?;
    if bytes.len() > FILE_MAX {
        return Err(unreadable(format!("is longer than {FILE_MAX} bytes"), "write a shorter file"));
    }
    let text = String::from_utf8(bytes).map_err(|_| unreadable("is not UTF-8 text".to_owned(), "save it as UTF-8"))?;
    parse(&text, file, machine)
}

/// The same for text that was read from `file`.
///
/// # Errors
/// Every fault that was found.
pub fn parse(text: &str, file: &Path, machine: &Machine) -> Result<Configuration, Errors> {
    let mut report = Report::new(file, text);
    let (table, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        for error in syntax {
            let line = report.line(error.span().map_or(0, |span| span.start));
            report.fault(
                line,
                "",
                wrong(
                    format!("is not TOML: {}", error.message().replace('\n', ", ")),
                    "correct the syntax on this line",
                ),
            );
        }
        return Err(report.conclude().err().unwrap_or_else(|| unexplained(file)));
    }
    let configuration = configuration(&mut report, table.get_ref(), file, machine);
    let warnings = report.conclude()?;
    // Whatever is missing has been reported; this is for the day on which somebody forgets to.
    configuration
        .map(|configuration| Configuration { warnings, text: text.to_owned(), ..configuration })
        .ok_or_else(|| unexplained(file))
}

fn unexplained(file: &Path) -> Errors {
    let wrong = "is refused and the reason was lost".to_owned();
    Errors::one(Fault {
        file: file.to_owned(),
        line: 0,
        key: String::new(),
        wrong,
        remedy: "report this as a defect of sealane".to_owned(),
    })
}

fn configuration(report: &mut Report, table: &DeTable<'_>, file: &Path, machine: &Machine) -> Option<Configuration> {
    let directory = file.parent().unwrap_or(Path::new(""));
    let mut root = Section::new("", table, 0);
    let engine_section = root.section(report, "engine");
    if engine_section.is_none() && !table.contains_key("engine") {
        report.fault(0, "engine", wrong("is missing", "add [engine] with name, cluster, cores and control_core"));
    }
    let engine_lines =
        engine_section.as_ref().map(|section| ENGINE_FIXED.map(|key| (key, section.line_of(report, key))));
    let tcp_lines = engine_section.as_ref().map(|section| tcp::lines(report, section));
    let trace_lines = engine_section.as_ref().map(|section| trace::lines(report, section));
    let api_lines = engine_section.as_ref().map(|section| api::lines(report, section));
    let announce_line = engine_section.as_ref().map_or(0, |section| section.line_of(report, "announce"));
    let engine = engine_section.and_then(|section| sections::engine(report, section, directory, machine));
    let faults = report.count();
    let ports = sections::ports(report, &mut root);
    prove_networks(report, &ports);
    kernel::prove_announce(report, engine.as_ref(), &ports, announce_line);
    // What cannot be reached over ports that are wrong themselves is not to blame.
    let proven_ports: &[Located<Port>] = if report.count() == faults { &ports } else { &[] };
    let monitors = monitors::monitors(report, &mut root, directory, machine);
    let profiles = profiles::profiles(report, &mut root);
    let pools = pools::pools(report, &mut root, &monitors, proven_ports, directory, machine);
    let around = services::Surroundings { directory, machine, ports: proven_ports, pools: &pools, profiles: &profiles };
    let services = services::services(report, &mut root, &around);
    let keys_section = root.section(report, "ticket_keys");
    let keys_line = keys_section.as_ref().map_or(0, |section| section.line);
    let ticket_keys = keys::ticket_keys(report, keys_section, directory, engine.as_ref(), machine.now);
    root.finish(report);
    let (engine, ticket_keys) = (engine?, ticket_keys?);
    let mut fixed = engine_fixed(&engine, &engine_lines?);
    fixed.extend(tcp::fixed(&engine.tcp, tcp_lines?));
    fixed.extend(trace::fixed(&engine.trace, &trace_lines?));
    fixed.extend(api::fixed(&engine.api, &engine.name, &api_lines?));
    fixed.extend(ports.iter().flat_map(port_fixed));
    fixed.extend(ports.iter().map(|port| kernel::fixed(&port.value, port.line)));
    let names = ports.iter().map(|port| port.value.name.as_str()).collect::<Vec<_>>().join(", ");
    fixed.push(Fixed { key: "port".to_owned(), line: ports.first().map_or(0, |port| port.line), value: names });
    fixed.push(Fixed {
        key: "ticket_keys.source".to_owned(),
        line: keys_line,
        value: format!("{:?}", ticket_keys.source),
    });
    let mut pools: Vec<_> = pools.into_values().collect();
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    Some(Configuration {
        file: file.to_owned(),
        text: String::new(),
        engine,
        ports: ports.into_iter().map(|port| port.value).collect(),
        services,
        pools,
        ticket_keys,
        warnings: Vec::new(),
        fixed,
    })
}

/// Keys of `[engine]` that cannot change while the engine runs.
const ENGINE_FIXED: [&str; 10] = [
    "name",
    "cluster",
    "cores",
    "control_core",
    "poll",
    "user",
    "admin",
    "hugepages",
    "buffers",
    "segmentation_offload",
];

fn engine_fixed(engine: &Engine, lines: &[(&'static str, usize); 10]) -> Vec<Fixed> {
    let values = [
        engine.name.clone(),
        engine.cluster.clone(),
        format!("{:?}", engine.cores),
        engine.control_core.to_string(),
        format!("{:?}", engine.poll).to_lowercase(),
        engine.user.clone().unwrap_or_else(|| "nobody else".to_owned()),
        engine.admin.to_string(),
        format!("{:?}", engine.hugepages).to_lowercase(),
        engine.buffers.to_string(),
        format!("{:?}", engine.segmentation_offload).to_lowercase(),
    ];
    lines
        .iter()
        .zip(values)
        .map(|((key, line), value)| Fixed { key: format!("engine.{key}"), line: *line, value })
        .collect()
}

fn port_fixed(port: &Located<Port>) -> [Fixed; 3] {
    let Located { value: Port { name, device, mtu, vlan, .. }, line } = port;
    let device = match device {
        Device::Pci(device) | Device::Virtual(device) => device,
    };
    let vlan = vlan.map_or_else(|| "none".to_owned(), |vlan| vlan.to_string());
    [("device", device.clone()), ("mtu", mtu.to_string()), ("vlan", vlan)].map(|(key, value)| Fixed {
        key: format!("port {name:?}, {key}"),
        line: *line,
        value,
    })
}

fn prove_networks(report: &mut Report, ports: &[Located<Port>]) {
    let mut seen: Vec<(usize, &str, ipnet::IpNet)> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        for network in &port.value.addresses {
            let other = seen.iter().find(|(at, _, other)| {
                *at != index && (other.contains(&network.trunc()) || network.contains(&other.trunc()))
                    || other.addr() == network.addr()
            });
            if let Some((_, name, other)) = other {
                let what = format!("has {network}, which overlaps with {other} of port {name:?}");
                report.fault(
                    port.line,
                    "port.addresses",
                    wrong(what, "give every port networks of its own, and every address once"),
                );
            }
            seen.push((index, &port.value.name, *network));
        }
    }
}

impl Configuration {
    /// Why this configuration cannot follow `old` while the engine runs.
    ///
    /// # Errors
    /// Every key that differs and cannot be changed.
    pub fn prove_successor_of(&self, old: &Self) -> Result<(), Errors> {
        let mut report = Report::new(&self.file, "");
        for fixed in &self.fixed {
            match old.fixed.iter().find(|other| other.key == fixed.key) {
                Some(other) if other.value != fixed.value => {
                    let what = format!("is now {} and cannot change while the engine runs", fixed.value);
                    report.fault(
                        fixed.line,
                        &fixed.key,
                        wrong(what, format!("write {} again, or restart the engine", other.value)),
                    );
                }
                // A port that is new is told by the list of ports.
                Some(_) | None => {}
            }
        }
        report.conclude().map(|_| ())
    }
}
