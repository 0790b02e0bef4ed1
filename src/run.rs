//! `sealane run`: puts DPDK, lanes and control together, and takes them apart in order.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc as blocking;

use anyhow::Context;
use sealane::base::{LaneId, Random};
use sealane::control::config::{self, Configuration, Machine};
use sealane::control::publish::{self, Shared};
use sealane::control::run::{Command, Control, Parts, keys_source};
use sealane::control::trace::Traces;
use sealane::control::{admin, api, clock, events, user};
use sealane::health::Monitors;
use sealane::lane::{self, Handle, Lane, Steering, SystemClock};
use sealane::nic::dpdk::{Engine, Hugepages, KernelSettings, PortSettings, Segmentation, Settings, Signal};
use sealane::ticket::Ring;
use tokio::sync::mpsc;

/// Signals that wait for control: it takes them within milliseconds, and more of the same say nothing new.
const COMMANDS_MAX: usize = 16;

/// Runs an engine until it is told to stop.
pub(crate) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    // Before any thread is pinned: a pinned thread sees its own core only.
    let machine = Machine::this();
    let configuration = crate::load(file)?;
    events::init(configuration.engine.log.format);
    let mut random = Random::from_os().context("the operating system gives no randomness")?;
    let open_keys = || keys_source(&configuration, clock::unix_time(), random.fork());
    let keys = user::writing_as(configuration.engine.user.as_deref(), open_keys)??;
    let admin = admin::bind(configuration.engine.admin)?;
    let api = api::bind(&configuration.engine.api)?;
    let engine = Engine::start(&settings(&configuration))?;

    let macs = engine.ports().map(|port| port.mac).collect();
    let shared = Shared::new(engine.lanes());
    let clock = SystemClock::start();
    let trace = &configuration.engine.trace;
    let handle = |lane| Handle::new(lane, configuration.ports.len()).traced(trace.rings, clock.epoch());
    let handles: Vec<_> = (0..).map(LaneId).take(engine.lanes()).map(handle).collect();
    if let Some(file) = &trace.file {
        Traces::of(&handles).save_on_panic(file.clone());
    }
    let (lanes_ended, wait_for_lanes) = blocking::channel::<()>();
    let lanes = make_lanes(&configuration, &handles, &shared, keys.current(), clock, &mut random, &lanes_ended);
    drop(lanes_ended);

    let (stopper, reports) = (engine.stopper(), engine.reports());
    let stop = Box::new(move || {
        stopper.stop();
        // Every lane holds a sender: this ends when the last of them is gone.
        while wait_for_lanes.recv().is_ok() {}
    });
    let control =
        Control::new(Parts { configuration, machine, handles, macs, shared, keys, admin, api, stop }, clock::now())?;
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let control = control.with_ports(reports).start(inbox).context("the control core cannot start")?;

    let buffers = engine.run(lanes, move |signal| {
        let command = match signal {
            Signal::Hangup => Command::Reload,
            Signal::Interrupt | Signal::Terminate => Command::Drain,
        };
        // Without control nobody else would end the lanes.
        matches!(commands.try_send(command), Err(mpsc::error::TrySendError::Closed(_)))
    })?;
    if let Ok(ended) = control.join() {
        ended.context("the control core failed")?;
    }
    if buffers.in_use > 0 {
        tracing::warn!(buffers = buffers.in_use, "packet buffers were not given back");
    }
    Ok(ExitCode::SUCCESS)
}

/// One closure a lane: called on the lane's own thread, it makes the lane and gives its breath.
fn make_lanes(
    configuration: &Configuration,
    handles: &[Handle],
    shared: &Shared,
    ring: &Arc<Ring>,
    clock: SystemClock,
    random: &mut Random,
    ended: &blocking::Sender<()>,
) -> Vec<impl FnOnce(Vec<sealane::nic::dpdk::Queue>) -> Box<dyn FnMut()> + Send + use<>> {
    let lanes = u16::try_from(handles.len()).expect("the configuration has fewer cores than that");
    let make = |(handle, steering): (&Handle, Steering<_>)| {
        let handle = handle.clone();
        let monitors = (handle.lane == LaneId(0))
            .then(|| Monitors::new(Arc::clone(&shared.board), random.fork(), Arc::clone(&handle.counters.health)));
        let settings = lane::Settings {
            engine: configuration.engine.id,
            poll: configuration.engine.poll,
            tcp: publish::tcp_settings(configuration),
            ring: Arc::clone(ring),
            board: Arc::clone(&shared.board),
            loads: Arc::clone(&shared.loads),
            monitors,
        };
        let (random, ended) = (random.fork(), ended.clone());
        move |queues| {
            let mut lane = Lane::new(settings, handle, steering, queues, clock, random);
            let breath = move || {
                let _ended = &ended;
                lane.breath();
            };
            Box::new(breath) as Box<dyn FnMut()>
        }
    };
    handles.iter().zip(Steering::between(lanes)).map(make).collect()
}

fn settings(configuration: &Configuration) -> Settings {
    let engine = &configuration.engine;
    let port = |port: &config::Port| PortSettings {
        name: port.name.clone(),
        device: match &port.device {
            config::Device::Pci(device) | config::Device::Virtual(device) => device.clone(),
        },
        mtu: port.mtu,
        vlan: port.vlan,
        kernel: port
            .kernel
            .as_ref()
            .map(|kernel| KernelSettings { interface: kernel.interface.clone(), rate: kernel.rate }),
    };
    Settings {
        lanes: engine.cores.clone(),
        control_core: engine.control_core,
        ports: configuration.ports.iter().map(port).collect(),
        hugepages: match engine.hugepages {
            config::Hugepages::Auto => Hugepages::Auto,
            config::Hugepages::Require => Hugepages::Require,
            config::Hugepages::Never => Hugepages::Never,
        },
        buffers: engine.buffers,
        segmentation: match engine.segmentation_offload {
            config::SegmentationOffload::Auto => Segmentation::Auto,
            config::SegmentationOffload::Always => Segmentation::Always,
            config::SegmentationOffload::Never => Segmentation::Never,
        },
        file_prefix: format!("sealane-{}", std::process::id()),
    }
}
