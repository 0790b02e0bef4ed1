//! Control itself: hands configurations and keys to lanes, writes down what they report, and ends them in order.
//!
//! [`Control::on_command`] and [`Control::on_tick`] are all of it, with time as an argument; [`Control::start`] drives them on a thread of
//! its own, pinned to the control core, beside the admin API.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use smoltcp::wire::EthernetAddress;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::base::{Duration, Instant, Random, UnixTime};
use crate::control::announce::{self, Announcer};
use crate::control::capture::Captures;
use crate::control::change::Fingerprint;
use crate::control::config::{Configuration, KeySource, Machine};
use crate::control::drain::Drain;
use crate::control::kernel::{self, Wanted};
use crate::control::metrics::{Counters, Metrics, View};
use crate::control::outbox::Outbox;
use crate::control::publish::{self, Shared, Unpublishable};
use crate::control::records::{Names, Records, Written};
use crate::control::service_manager::ServiceManager;
use crate::control::trace::Traces;
use crate::control::user::{self, Unbecome};
use crate::control::{admin, api, clock, health, keys};
use crate::lane::Handle;
use crate::lane::handle::{RECORDS_MAX, VERDICTS_MAX};
use crate::nic::Reports;
use crate::ticket::Ring;

/// How often records are taken from lanes: their queues hold [`RECORDS_MAX`], so a lane may end 80,000 connections a second.
const TICK: Duration = Duration::from_millis(50);
/// How often keys and lanes are looked after.
const LOOK: Duration = Duration::from_millis(250);
/// Silence after which a lane counts as stuck.
const BREATH_MAX: Duration = Duration::from_secs(1);
/// What stopping may take beside the drain.
const STOP: Duration = Duration::from_secs(30);
/// How often it is told that records were left out.
const LEFT_OUT_TOLD: Duration = Duration::from_secs(5);

/// What a signal asks of control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read the configuration again.
    Reload,
    /// Let connections end, then stop. A second one stops at once.
    Drain,
}

/// What control is made of.
pub struct Parts {
    /// The configuration to begin with; a reload reads its file again.
    pub configuration: Configuration,
    /// The machine as it was found before any thread was pinned: a pinned thread sees its own core only.
    pub machine: Machine,
    /// Its lanes.
    pub handles: Vec<Handle>,
    /// Ethernet addresses of the ports, in their order.
    pub macs: Vec<EthernetAddress>,
    /// Boards and loads that the lanes have, too.
    pub shared: Shared,
    /// Where keys come from; see [`keys_source`].
    pub keys: keys::Source,
    /// The admin address; see [`admin::bind`].
    pub admin: TcpListener,
    /// Where the API is served; see [`api::bind`].
    pub api: api::Listeners,
    /// Ends the lanes. Called once, when connections have ended or the drain has timed out. It should return when the lanes have ended:
    /// control then writes their last records and ends, too.
    pub stop: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("configuration", &self.configuration).finish_non_exhaustive()
    }
}

/// Why control cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Unstartable {
    /// The configuration cannot be given to lanes.
    #[error(transparent)]
    Unpublishable(#[from] Unpublishable),
    /// There is no such user.
    #[error(transparent)]
    User(#[from] Unbecome),
    /// The connection log cannot be opened.
    #[error("engine.log: cannot be opened ({0}); name a file that this user may write")]
    Log(io::Error),
}

/// Opens the source of ticket keys that the configuration names; [`keys::Source::current`] is the ring to start lanes with.
///
/// # Errors
/// When a key file is missing or wrong.
pub fn keys_source(configuration: &Configuration, wall: UnixTime, random: Random) -> Result<keys::Source, keys::Error> {
    let settings = match &configuration.ticket_keys.source {
        KeySource::Own(state_file) => keys::SourceSettings::Own { state_file: state_file.clone() },
        KeySource::File(path) => keys::SourceSettings::File { path: path.clone() },
        KeySource::Etcd(settings) => keys::SourceSettings::Etcd(settings.clone()),
    };
    keys::Source::open(settings, configuration.ticket_keys.schedule, wall, random).map(|(source, _)| source)
}

/// The control core.
pub struct Control {
    pub(super) configuration: Configuration,
    pub(super) machine: Machine,
    pub(super) version: u64,
    pub(super) lanes: Vec<Lane>,
    /// The file's text when it was read or written last.
    pub(super) saved: Fingerprint,
    macs: Vec<EthernetAddress>,
    /// Whom to ask what the ports say of themselves, where they say anything.
    reports: Option<Arc<dyn Reports>>,
    pub(super) shared: Shared,
    pub(super) keys: keys::Source,
    pub(super) records: Records,
    names: Names,
    pub(super) counters: Arc<Counters>,
    pub(super) view: watch::Sender<View>,
    pub(super) captures: Captures,
    admin: Option<TcpListener>,
    api: api::Listeners,
    stop: Option<Box<dyn FnOnce() + Send>>,
    pub(super) drain: Option<Drain>,
    /// When the engine started.
    pub(super) began: Instant,
    announcer: Announcer,
    /// What the host's kernel is to have.
    kernel: watch::Sender<Wanted>,
    look_at: Instant,
    left_out_told: (Instant, u64),
    manager: ServiceManager,
    /// Whom to become once all lanes run.
    user: Option<String>,
    /// Why the engine must not go on.
    failed: Option<Unbecome>,
    alarms: keys::Alarms,
    /// Rings that some lane may still have: dropping the last reference to one gives locked memory back, which is not for lanes to do.
    old_rings: Vec<Arc<Ring>>,
}

/// Control's view of one lane.
pub(super) struct Lane {
    pub(super) handle: Handle,
    pub(super) outbox: Outbox,
    breaths: u64,
    breathed_at: Instant,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Control {
    /// Control over lanes that need not run yet: their first configuration and keys wait in their inboxes.
    ///
    /// # Errors
    /// [`Unstartable`] says why not.
    pub fn new(parts: Parts, now: Instant) -> Result<Self, Unstartable> {
        let Parts { configuration, machine, handles, macs, shared, keys, admin, api, stop } = parts;
        let user = configuration.engine.user.clone();
        let records = user::writing_as(user.as_deref(), || Records::open(&configuration.engine.log))?;
        let records = records.map_err(Unstartable::Log)?;
        let lane = |handle| Lane { handle, outbox: Outbox::default(), breaths: 0, breathed_at: now };
        let mut control = Self {
            version: 0,
            lanes: handles.into_iter().map(lane).collect(),
            macs,
            reports: None,
            shared,
            keys,
            records,
            names: Names::default(),
            counters: Arc::default(),
            view: watch::Sender::new(View { unfit: Some("the lanes have not started".to_owned()), ..View::default() }),
            captures: Captures::default(),
            admin: Some(admin),
            api,
            stop: Some(stop),
            drain: None,
            began: now,
            announcer: Announcer::default(),
            kernel: watch::Sender::new(Wanted::default()),
            look_at: now,
            left_out_told: (now, 0),
            manager: ServiceManager::of_environment(now),
            user,
            failed: None,
            alarms: keys::Alarms::new(),
            old_rings: Vec::new(),
            saved: Fingerprint::of(&configuration.text),
            machine,
            configuration,
        };
        control.publish_ring(&Arc::clone(control.keys.current()));
        control.publish_configuration()?;
        control.flush();
        Ok(control)
    }

    /// Shows what the ports say of themselves, too.
    #[must_use]
    pub fn with_ports(mut self, reports: Arc<dyn Reports>) -> Self {
        self.reports = Some(reports);
        self
    }

    /// Gives the configuration to every lane, under the next version.
    pub(super) fn publish_configuration(&mut self) -> Result<(), Unpublishable> {
        let version = self.version.saturating_add(1);
        let snapshots =
            publish::snapshots(&self.configuration, version, &self.macs, &mut self.shared, self.lanes.len())?;
        self.version = version;
        self.names.learn(&self.configuration);
        let servers = snapshots.first().map(publish::placed).unwrap_or_default();
        let pools = snapshots.first().map(publish::placed_pools).unwrap_or_default();
        let services = publish::placed_services(&self.configuration, &self.shared);
        let announcer = snapshots.first().map(|snapshot| Announcer::new(&self.configuration, snapshot));
        self.announcer = announcer.unwrap_or_default();
        self.tell_kernel();
        self.view.send_modify(|view| {
            view.configuration_version = version;
            view.announceable = self.announcer.addresses();
            view.health.keep(&servers);
            (view.servers, view.pools, view.services) = (servers, pools, services);
        });
        for (lane, snapshot) in self.lanes.iter_mut().zip(snapshots) {
            lane.outbox.configure(snapshot);
        }
        Ok(())
    }

    pub(super) fn publish_ring(&mut self, ring: &Arc<Ring>) {
        self.old_rings.push(Arc::clone(ring));
        for lane in &mut self.lanes {
            lane.outbox.ring(Arc::clone(ring));
        }
        self.counters.rings.increment();
        let active = ring.active().map(|entry| entry.key.id());
        let shown = active.map_or_else(|| "none".to_owned(), |id| hex::encode(id.0));
        tracing::info!(
            version = ring.version(),
            keys = ring.entries().len(),
            active = shown,
            "ticket key ring in force"
        );
        self.view.send_modify(|view| {
            view.ring_version = ring.version();
            view.active_key = active;
            view.keys = ring.entries().iter().map(|entry| (entry.key.id(), entry.state, entry.since())).collect();
        });
    }

    /// Acts on a signal.
    pub fn on_command(&mut self, command: Command, now: Instant, wall: UnixTime) {
        match command {
            Command::Reload => {
                self.manager.reloading();
                // What it says of itself is in the log: a signal has nobody to answer.
                drop(self.reload(wall));
                self.manager.reloaded();
            }
            Command::Drain => self.begin_drain(now),
        }
        self.flush();
    }

    pub(super) fn begin_drain(&mut self, now: Instant) {
        if let Some(drain) = &mut self.drain {
            tracing::warn!("asked to stop twice: stopping at once");
            drain.hurry();
            return;
        }
        let engine = &self.configuration.engine;
        let [delay, timeout] = [engine.drain_delay, engine.drain_timeout].map(humantime::format_duration);
        tracing::info!(connections = self.open(), %delay, %timeout, "draining");
        self.manager.stopping(engine.drain_delay.saturating_add(engine.drain_timeout).saturating_add(STOP));
        self.drain = Some(Drain::new(now, engine.drain_delay));
        self.close(now);
        self.view.send_modify(|view| view.unfit = Some("draining".to_owned()));
        self.tell_kernel();
    }

    /// Has the kernel show routing daemons which addresses are served here: none, unless this engine wants clients.
    fn tell_kernel(&mut self) {
        let is_fit = self.drain.is_none() && self.view.borrow().unfit.is_none();
        let routes = if is_fit { self.announcer.routes(&self.shared.board) } else { BTreeSet::new() };
        let next = Wanted { interfaces: announce::interfaces(&self.configuration), routes };
        self.kernel.send_if_modified(|wanted| {
            let changes = *wanted != next;
            *wanted = next;
            changes
        });
    }

    /// Does what has come due.
    pub fn on_tick(&mut self, now: Instant, wall: UnixTime) {
        self.close(now);
        self.flush();
        self.take_records(now);
        self.take_verdicts(wall);
        if now >= self.look_at {
            self.look_at = now + LOOK;
            self.look_after_keys(wall);
            self.look_after_lanes(now);
            self.captures.give_back();
            self.tell_left_out(now);
        }
        self.tell_kernel();
    }

    /// Why the engine must not go on, if it must not.
    pub fn failed(&self) -> Option<&Unbecome> {
        self.failed.as_ref()
    }

    /// Whether a drain is over, so that lanes may be stopped.
    pub fn is_drained(&self, now: Instant) -> bool {
        self.drain.is_some_and(|drain| drain.is_over(self.open(), self.configuration.engine.drain_timeout, now))
    }

    /// Has lanes take no more connections once it is time for that.
    fn close(&mut self, now: Instant) {
        if self.drain.as_mut().is_some_and(|drain| drain.closes(now)) {
            for lane in &mut self.lanes {
                lane.outbox.drain();
            }
        }
    }

    /// Connections that clients have open.
    pub(super) fn open(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.handle.counters.relay.open.value()).sum()
    }

    /// Stops the lanes and writes down the last of what they report.
    pub fn stop(&mut self, now: Instant) {
        tracing::info!(connections = self.open(), "stopping");
        if let Some(stop) = self.stop.take() {
            stop();
        }
        self.take_records(now);
        self.take_verdicts(clock::unix_time());
        if let Some(file) = &self.configuration.engine.trace.file {
            self.traces().save_and_tell(file);
        }
    }

    pub(super) fn flush(&mut self) {
        for lane in &mut self.lanes {
            if !lane.outbox.flush(&lane.handle.inbox) {
                self.counters.orders_delayed.increment();
            }
        }
    }

    fn take_records(&mut self, now: Instant) {
        for lane in &self.lanes {
            for _ in 0..RECORDS_MAX {
                let Some(record) = lane.handle.records.pop() else { break };
                match self.records.write(&record, &self.names, now) {
                    Written::Yes => self.counters.records_written.increment(),
                    Written::LeftOut => self.counters.records_left_out.increment(),
                    Written::Failed => self.counters.records_failed.increment(),
                }
            }
        }
    }

    fn take_verdicts(&mut self, wall: UnixTime) {
        let mut news = Vec::new();
        for lane in &self.lanes {
            for _ in 0..VERDICTS_MAX {
                let Some(verdict) = lane.handle.verdicts.pop() else { break };
                if health::tell(&verdict) {
                    self.counters.health_changes.increment();
                }
                news.push(verdict);
            }
        }
        if !news.is_empty() {
            self.view.send_modify(|view| news.into_iter().for_each(|verdict| view.health.note(verdict, wall)));
        }
    }

    fn look_after_keys(&mut self, wall: UnixTime) {
        self.poll_keys(wall);
        self.old_rings.retain(|ring| Arc::strong_count(ring) > 1);
        let alarms = self.keys.alarms(wall);
        let were = std::mem::replace(&mut self.alarms, alarms);
        for alarm in self.alarms.difference(&were) {
            self.counters.ring_alarms.increment();
            let detail = self.keys.detail(*alarm).unwrap_or_default();
            tracing::error!(alarm = alarm.name(), detail, "{}", alarm.meaning());
        }
        for alarm in were.difference(&self.alarms) {
            tracing::info!(alarm = alarm.name(), "ticket keys: what was wrong is right again");
        }
        let cluster = self.keys.cluster();
        self.view.send_if_modified(|view| {
            let changes = view.ring_alarms != self.alarms || view.ring_cluster != cluster;
            view.ring_alarms.clone_from(&self.alarms);
            view.ring_cluster = cluster;
            changes
        });
    }

    pub(super) fn poll_keys(&mut self, wall: UnixTime) {
        // A lane that has not started has no ring in force.
        let on_lanes = self.lanes.iter().map(|lane| lane.handle.counters.lane.ring_version.value()).min();
        self.keys.on_lanes(on_lanes.unwrap_or(0));
        match self.keys.poll(wall) {
            None => {}
            Some(Ok(ring)) => {
                self.publish_ring(&ring);
                self.flush();
            }
            Some(Err(error)) => {
                self.counters.rings_failed.increment();
                tracing::error!("the ticket key ring of before stays in force: {error}");
            }
        }
    }

    fn look_after_lanes(&mut self, now: Instant) {
        let mut unfit = self.drain.map(|_| "draining".to_owned());
        let mut all_breathe = true;
        for lane in &mut self.lanes {
            let (id, counters) = (lane.handle.lane.0, &lane.handle.counters.lane);
            let breaths = counters.breaths.value();
            if breaths != lane.breaths {
                lane.breaths = breaths;
                lane.breathed_at = now;
            }
            let silence = now.since(lane.breathed_at);
            all_breathe &= silence <= BREATH_MAX;
            let why = if breaths == 0 {
                Some(format!("lane {id} has not started"))
            } else if silence > BREATH_MAX {
                Some(format!("lane {id} has not breathed for {} ms", silence.as_millis()))
            } else if counters.configuration_version.value() == 0 {
                Some(format!("lane {id} has no configuration yet"))
            } else {
                None
            };
            unfit = unfit.or(why);
        }
        if all_breathe {
            self.manager.alive(now);
        }
        let changed = self.view.send_if_modified(|view| {
            let changed = view.unfit.is_some() != unfit.is_some();
            view.unfit.clone_from(&unfit);
            changed
        });
        match (changed, unfit) {
            (true, None) => self.on_ready(),
            (true, Some(why)) => {
                tracing::warn!("not ready: {why}");
                self.manager.unfit(&why);
            }
            (false, _) => {}
        }
    }

    fn on_ready(&mut self) {
        // Ports are started and lanes pinned: nothing that takes root is left to do.
        if let Some(user) = self.user.take() {
            // Interfaces and routes come and go as long as the engine lives.
            let is_beside_kernel = self.configuration.ports.iter().any(|port| port.kernel.is_some());
            let kept = is_beside_kernel.then_some(caps::Capability::CAP_NET_ADMIN);
            match user::become_user(&user, &kept.into_iter().collect()) {
                Ok(()) => tracing::info!(user, "root's rights are given up"),
                Err(error) => {
                    tracing::error!("{error}");
                    self.failed = Some(error);
                    return;
                }
            }
        }
        tracing::info!("ready");
        self.manager.ready();
    }

    fn tell_left_out(&mut self, now: Instant) {
        let left_out = self.counters.records_left_out.value();
        let (told_at, told) = self.left_out_told;
        if left_out != told && now.since(told_at) >= LEFT_OUT_TOLD {
            self.left_out_told = (now, left_out);
            tracing::warn!(
                records = left_out.saturating_sub(told),
                "left out of the connection log: see engine.log.records_per_second"
            );
        }
    }

    /// Metrics over everything that control and its lanes count.
    pub fn metrics(&self) -> Metrics {
        let handles: Vec<_> = self.lanes.iter().map(|lane| lane.handle.clone()).collect();
        let ports = self.configuration.ports.iter().map(|port| port.name.clone()).collect();
        let (board, loads) = (Arc::clone(&self.shared.board), Arc::clone(&self.shared.loads));
        let engine = (self.configuration.engine.id, self.configuration.engine.name.clone());
        Metrics::new(&handles, engine, ports, board, loads, Arc::clone(&self.counters), self.view.subscribe())
            .with_ports(self.reports.clone())
    }

    /// What the lanes' connections have just done.
    pub fn traces(&self) -> Traces {
        Traces::of(self.lanes.iter().map(|lane| &lane.handle))
    }

    /// The API over this control, which is asked through `asker`.
    pub fn api(&self, asker: api::Asker) -> api::Api {
        api::Api::new(asker, self.lanes.iter().map(|lane| Arc::clone(&lane.handle.counters)))
    }

    /// What the host's kernel is to have.
    pub fn wanted(&self) -> watch::Receiver<Wanted> {
        self.kernel.subscribe()
    }

    /// What the admin address shows of control.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Runs control on a thread of its own until a drain has ended. When `commands` is closed it goes on without.
    ///
    /// # Errors
    /// When there is no thread or no runtime to be had.
    pub fn start(self, commands: mpsc::Receiver<Command>) -> io::Result<JoinHandle<io::Result<()>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            let id = self.configuration.engine.control_core;
            if !core_affinity::set_for_current(core_affinity::CoreId { id }) {
                tracing::warn!(core = id, "control could not be pinned to its core");
            }
            runtime.block_on(self.run(commands))
        })
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> io::Result<()> {
        let (asker, mut requests) = api::queue();
        let api = self.api(asker);
        if let Some(listener) = self.admin.take() {
            let address = listener.local_addr()?;
            let router = admin::router(self.metrics(), self.view(), self.traces()).merge(api::shown(api.clone()));
            tokio::spawn(async move {
                if let Err(error) = admin::serve(listener, router).await {
                    tracing::error!("the admin API ended: {error}");
                }
            });
            tracing::info!(%address, "admin API is served");
        }
        if self.configuration.ports.iter().any(|port| port.kernel.is_some()) {
            let (wanted, view) = (self.wanted(), self.view.clone());
            tokio::spawn(kernel::keep(wanted, view, Arc::clone(&self.counters)));
        }
        self.api.serve(api)?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.failed.is_none() && !self.is_drained(clock::now()) {
            tokio::select! {
                Some(command) = commands.recv() => self.on_command(command, clock::now(), clock::unix_time()),
                Some(request) = requests.recv() => self.on_request(request, clock::now(), clock::unix_time()),
                _ = ticks.tick() => self.on_tick(clock::now(), clock::unix_time()),
            }
        }
        self.stop(clock::now());
        self.failed.map_or(Ok(()), |failed| Err(io::Error::other(failed)))
    }
}
