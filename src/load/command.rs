//! `sealane load`: makes load over a DPDK port or kernel sockets, and tells what it came to.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use ipnet::IpNet;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::base::Duration;
use crate::lane::SystemClock;
use crate::load::{Arrivals, Cipher, Clients, Generator, Group, Identity, Kernel, Mode, Plan, Report, Version};

/// `sealane load …`
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// The service that is loaded
    #[arg(value_name = "ADDRESS:PORT")]
    pub service: SocketAddr,
    /// A DPDK device to make load over, such as net_vhost0,iface=/run/sealane/vhost0
    #[arg(
        long,
        value_name = "DEVICE",
        conflicts_with = "kernel",
        required_unless_present = "kernel",
        requires = "address"
    )]
    pub port: Option<String>,
    /// Make load over the kernel's sockets
    #[arg(long)]
    pub kernel: bool,
    /// With --port: our own address, with its network
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    pub address: Option<IpNet>,
    /// With --port: the router to other networks
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Option<IpAddr>,
    /// Where clients come from, in turn: an address has 49,152 ports. As often as you like
    #[arg(long, value_name = "ADDRESS")]
    pub source: Vec<IpAddr>,
    /// Answer here as the service's server. As often as you like
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub serve: Vec<SocketAddr>,
    /// The core to run on
    #[arg(long, value_name = "NUMBER")]
    pub core: Option<usize>,
    /// With --port: packet buffers
    #[arg(long, value_name = "NUMBER", default_value_t = 16_384)]
    pub buffers: usize,
    /// With --port net_vhost…: its client takes long frames, which the driver cannot say
    #[arg(long)]
    pub long_frames: bool,
    /// What each client does
    #[arg(long, value_enum, default_value_t = Mode::Full)]
    pub mode: Mode,
    /// Clients, each with one connection at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 256)]
    pub connections: usize,
    /// Clients that come a second, whether those before have been served or not; with --mode full or resumed. Latencies count from when a client came
    #[arg(long, value_name = "NUMBER")]
    pub rate: Option<NonZeroU32>,
    /// With --rate: how they come
    #[arg(long, value_enum, default_value_t = Arrivals::Random)]
    pub arrivals: Arrivals,
    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// How long to make load before it is measured
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub warm_up: Duration,
    /// How long to wait for the service's first answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub patience: Duration,
    /// How long a connection may stand still
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Bytes of an answer, or of an upload
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub bytes: u64,
    /// The server name that clients ask for
    #[arg(long, value_name = "NAME", default_value = "shop.example")]
    pub name: String,
    /// The TLS version
    #[arg(long, value_enum, default_value_t = Version::Tls13)]
    pub tls: Version,
    /// The key exchange
    #[arg(long, value_enum, default_value_t = Group::X25519)]
    pub group: Group,
    /// The record cipher
    #[arg(long, value_enum, default_value_t = Cipher::Aes128)]
    pub cipher: Cipher,
    /// Trust these roots (PEM) and verify certificates. Without, clients verify nothing, which makes them cheaper than the service
    #[arg(long, value_name = "FILE")]
    pub verify: Option<PathBuf>,
    /// Report rates even if more than 0.1 % of the connections failed
    #[arg(long)]
    pub allow_failures: bool,
    /// Write the report as JSON; - for standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Say nothing while it runs
    #[arg(long)]
    pub quiet: bool,
}

/// Makes the load and tells what it came to.
///
/// # Errors
/// What is wrong with the arguments, or what they name.
pub fn run(arguments: &LoadArgs) -> anyhow::Result<ExitCode> {
    let plan = plan(arguments)?;
    let clients = Clients::new(&identity(arguments)?)?;
    let report =
        if arguments.kernel { over_kernel(arguments, plan, clients)? } else { over_port(arguments, plan, clients)? };
    tell(&report, arguments.json.as_deref())?;
    Ok(if report.refused.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn plan(arguments: &LoadArgs) -> anyhow::Result<Plan> {
    anyhow::ensure!(arguments.connections > 0, "--connections 0 is no load; write 1 or more");
    let one_request = matches!(arguments.mode, Mode::Full | Mode::Resumed);
    anyhow::ensure!(
        arguments.rate.is_none() || one_request,
        "--rate is for connections that come and go: --mode full or --mode resumed"
    );
    Ok(Plan {
        mode: arguments.mode,
        service: arguments.service,
        sources: arguments.source.clone(),
        connections: arguments.connections,
        rate: arguments.rate,
        arrivals: arguments.arrivals,
        patience: arguments.patience,
        warm_up: arguments.warm_up,
        duration: arguments.duration,
        timeout: arguments.timeout,
        bytes: arguments.bytes,
        serve: arguments.serve.clone(),
        allow_failures: arguments.allow_failures,
        progress: !arguments.quiet,
    })
}

fn identity(arguments: &LoadArgs) -> anyhow::Result<Identity> {
    let read = |file: &PathBuf| fs::read(file).with_context(|| format!("--verify {} cannot be read", file.display()));
    Ok(Identity {
        name: arguments.name.clone(),
        version: arguments.tls,
        group: arguments.group,
        cipher: arguments.cipher,
        roots: arguments.verify.as_ref().map(read).transpose()?,
    })
}

fn over_kernel(arguments: &LoadArgs, plan: Plan, clients: Clients) -> anyhow::Result<Report> {
    if let Some(id) = arguments.core {
        let pinned = core_affinity::set_for_current(core_affinity::CoreId { id });
        anyhow::ensure!(pinned, "--core {id} does not exist or is not allowed for this process");
    }
    let transport = Kernel::new().context("the kernel gives no epoll instance")?;
    let generator = Generator::new(plan, clients, transport, SystemClock::start());
    let mut generator = generator.context("an address of --serve is not ours or not free")?;
    let interrupted = interrupt()?;
    while !generator.is_over() {
        if interrupted.load(Ordering::Relaxed) {
            generator.stop();
        }
        generator.breath();
    }
    Ok(generator.report())
}

/// What the first Ctrl-C or SIGTERM sets, so that there is a report. A second one ends the process at once.
fn interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let at_once = flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupted));
        at_once.and_then(|_| flag::register(signal, Arc::clone(&interrupted))).context("signals cannot be heard")?;
    }
    Ok(interrupted)
}

#[cfg(not(feature = "dpdk"))]
fn over_port(_: &LoadArgs, _: Plan, _: Clients) -> anyhow::Result<Report> {
    anyhow::bail!("this sealane was built without the dpdk feature: it makes load with --kernel only")
}

#[cfg(feature = "dpdk")]
fn over_port(arguments: &LoadArgs, plan: Plan, clients: Clients) -> anyhow::Result<Report> {
    use std::sync::mpsc;

    use crate::base::Random;
    use crate::load::Packets;
    use crate::nic::dpdk::{Engine, Queue};

    let (Some(device), Some(address)) = (&arguments.port, arguments.address) else {
        anyhow::bail!("--port needs --address as well");
    };
    let mut random = Random::from_os().context("the operating system gives no randomness")?;
    let engine = Engine::start(&settings(device, arguments))?;

    let own = plan.serve.iter().map(SocketAddr::ip).chain(plan.sources.iter().copied());
    let more: Vec<IpAddr> = own.filter(|ip| *ip != address.addr()).collect();
    let gateways = arguments.gateway.into_iter().collect();
    let (stopper, interrupted) = (engine.stopper(), Arc::new(AtomicBool::new(false)));
    let (told, report) = mpsc::sync_channel(1);
    let ask = Arc::clone(&interrupted);
    let lane = move |queues: Vec<Queue>| -> Box<dyn FnMut()> {
        let queue = queues.into_iter().next().expect("there is one port");
        let transport = Packets::new(queue, address, more, gateways, random.fork());
        let mut generator = match Generator::new(plan, clients, transport, SystemClock::start()) {
            Ok(generator) => generator,
            Err(error) => {
                // There is room for one, and nobody else writes.
                let _ = told.try_send(Err(error));
                stopper.stop();
                return Box::new(|| {});
            }
        };
        Box::new(move || {
            if ask.load(Ordering::Relaxed) {
                generator.stop();
            }
            generator.breath();
            if generator.is_over() {
                // Later ones find no room, and say the same.
                let _ = told.try_send(Ok(generator.report()));
                stopper.stop();
            }
        })
    };
    engine.run(vec![lane], move |_| {
        interrupted.store(true, Ordering::Relaxed);
        false
    })?;
    report.try_recv().context("the load ended without a report")?.context("an address of --serve is given twice")
}

#[cfg(feature = "dpdk")]
fn settings(device: &str, arguments: &LoadArgs) -> crate::nic::dpdk::Settings {
    use crate::nic::dpdk::{Hugepages, PortSettings, Segmentation, Settings};

    let core = arguments.core.unwrap_or(0);
    Settings {
        lanes: vec![core],
        control_core: core,
        ports: vec![PortSettings {
            name: "load".to_owned(),
            device: device.to_owned(),
            mtu: 1500,
            vlan: None,
            kernel: None,
        }],
        hugepages: Hugepages::Auto,
        buffers: arguments.buffers,
        segmentation: if arguments.long_frames { Segmentation::Always } else { Segmentation::Auto },
        file_prefix: format!("sealane-load-{}", std::process::id()),
    }
}

fn tell(report: &Report, json: Option<&Path>) -> anyhow::Result<()> {
    match json {
        Some(file) if file == Path::new("-") => {
            println!("{}", serde_json::to_string(report)?);
            eprint!("{report}");
        }
        Some(file) => {
            fs::write(file, serde_json::to_string(report)?).with_context(|| format!("--json {}", file.display()))?;
            print!("{report}");
        }
        None => print!("{report}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn parse(line: &str) -> Result<LoadArgs, String> {
        let words = std::iter::once("load").chain(line.split(' '));
        Line::try_parse_from(words).map(|line| line.load).map_err(|error| error.to_string())
    }

    #[test]
    fn a_load_goes_over_a_port_or_over_the_kernel() {
        assert!(parse("198.18.0.10:443 --kernel").is_ok());
        assert!(parse("198.18.0.10:443 --port net_vhost0,iface=/x --address 198.18.0.1/16").is_ok());
        assert!(parse("198.18.0.10:443").unwrap_err().contains("--port"));
        assert!(parse("198.18.0.10:443 --port net_vhost0,iface=/x").unwrap_err().contains("--address"));
        assert!(parse("198.18.0.10:443 --kernel --port net_vhost0,iface=/x").unwrap_err().contains("--kernel"));
    }

    #[test]
    fn what_makes_no_load_is_refused_with_a_remedy() {
        let refusal = |line: &str| plan(&parse(line).unwrap()).unwrap_err().to_string();
        assert!(refusal("198.18.0.10:443 --kernel --connections 0").contains("write 1 or more"));
        assert!(refusal("198.18.0.10:443 --kernel --mode idle --rate 5").contains("--mode full"));
        let missing = parse("198.18.0.10:443 --kernel --verify /no/such/file").unwrap();
        assert!(format!("{:#}", identity(&missing).unwrap_err()).contains("--verify /no/such/file"));
    }

    #[test]
    fn a_plan_says_what_the_line_says() {
        let line = "198.18.0.10:443 --kernel --mode resumed --rate 500 --arrivals even --duration 2500ms --tls 1.2 --group p256 --bytes 7";
        let arguments = parse(line).unwrap();
        let plan = plan(&arguments).unwrap();
        assert_eq!((plan.mode, plan.rate, plan.bytes), (Mode::Resumed, NonZeroU32::new(500), 7));
        assert_eq!(plan.arrivals, Arrivals::Even);
        assert_eq!(plan.duration, Duration::from_millis(2500));
        let identity = identity(&arguments).unwrap();
        assert_eq!((identity.version, identity.group, identity.cipher), (Version::Tls12, Group::P256, Cipher::Aes128));
    }
}
