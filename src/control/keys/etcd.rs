//! The ring in etcd: a thread that looks there a few times a second for a [`Mirror`], and writes what it says.
//!
//! It looks instead of being told: three small reads at one revision show everything, so that a connection that was lost, a history that was
//! compacted and an etcd that was rolled back need no care of their own. Nothing here is waited for by control: it takes the newest [`Report`] whenever
//! it likes. The thread runs on control's core.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::finding::{Error, Finding};
use super::mirror::{Mirror, Report};
use super::sealed::{self, KeyEncryptionKey};
use super::{client, file};
use crate::base::{Duration, Random, UnixTime};
use crate::control::clock;
use crate::ticket::{Ring, Schedule};
use client::{Client, Failed};

/// How often etcd is looked into, give or take a quarter.
const LOOK: Duration = Duration::from_millis(400);
/// How often the lease is renewed: three times in its life, and once more.
const RENEW: Duration = Duration::from_secs(client::LEASE_SECONDS / 4);
/// How long after a failure the next connection is tried: twice as long each time, give or take half.
const BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];
/// How long an engine that starts waits for its first ring.
const START_MAX: Duration = Duration::from_secs(10);
/// The same for one that has a ring in its state file.
const START_WITH_STATE_MAX: Duration = Duration::from_secs(3);

/// Where etcd is, and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `http://` or `https://` with a host and a port.
    pub endpoints: Vec<String>,
    /// What all keys of this cluster in etcd begin with.
    pub prefix: String,
    /// This engine's name.
    pub engine: String,
    /// SHA-256 of the cluster's name.
    pub cluster: [u8; 32],
    /// The file with the key that seals the ring.
    pub key_encryption_key: PathBuf,
    /// Certificates of authorities that etcd's certificate is to be from, PEM.
    pub ca: Option<PathBuf>,
    /// A certificate to show to etcd and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// A user of etcd, and the file with its password.
    pub user: Option<(String, PathBuf)>,
    /// The core that the thread runs on.
    pub core: Option<usize>,
    /// Where the last ring is kept, sealed, for a start while etcd is away.
    pub state_file: Option<PathBuf>,
}

impl Settings {
    /// What messages name: the first endpoint and the prefix.
    pub(super) fn place(&self) -> PathBuf {
        Path::new(self.endpoints.first().map_or("etcd", String::as_str)).join(self.prefix.trim_start_matches('/'))
    }
}

/// What control tells the thread.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Orders {
    on_lanes: u64,
    schedule: Schedule,
    stop: bool,
}

/// The thread's handle. Dropping it ends the thread, which gives up its lease, and with it the lead, within a second.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    orders: watch::Sender<Orders>,
    reports: watch::Receiver<Report>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread and waits until there is a ring: etcd's, or after a while that of the state file.
    ///
    /// # Errors
    /// [`Error`] says why there is none.
    pub fn start(settings: Settings, schedule: Schedule, mut random: Random) -> Result<Self, Error> {
        let key = KeyEncryptionKey::read(&settings.key_encryption_key)?;
        let connector = client::Connector::new(&settings)?;
        let kept = match &settings.state_file {
            Some(path) => read_state(path, &key, &settings.cluster)?.map(Arc::new),
            None => None,
        };
        let patience = if kept.is_some() { START_WITH_STATE_MAX } else { START_MAX };
        let has_kept = kept.is_some();
        let (orders, inbox) = watch::channel(Orders { on_lanes: 0, schedule, stop: false });
        let (outbox, reports) = watch::channel(Report { ring: kept.clone(), ..Report::default() });
        let (started, wait) = blocking::sync_channel(1);
        let state = settings.state_file.clone();
        let mirror =
            Mirror::new(&settings.engine, key.clone(), settings.cluster, schedule, kept, random.fork(), clock::now());
        let keeping =
            Keeping { connector, mirror, random, inbox, outbox, started: Some(started), state, kept_version: 0 };
        let unstartable = |error: std::io::Error| {
            Finding::error(
                &settings.place(),
                format!("cannot be mirrored: {error}"),
                "let this process have one more thread",
            )
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(unstartable)?;
        let core = settings.core;
        let run = move || {
            if let Some(id) = core
                && !core_affinity::set_for_current(core_affinity::CoreId { id })
            {
                tracing::warn!(core = id, "the mirror of ticket keys could not be pinned to its core");
            }
            runtime.block_on(keeping.run());
        };
        let thread = std::thread::Builder::new().name("etcd".to_owned()).spawn(run).map_err(unstartable)?;
        let keeper = Self { settings, orders, reports, thread: Some(thread) };
        match wait.recv_timeout(patience) {
            Ok(Ok(())) => Ok(keeper),
            // Whatever is wrong with etcd, there is a ring to go on with.
            Ok(Err(_)) | Err(_) if has_kept => Ok(keeper),
            Ok(Err(why)) => Err(keeper.unstarted(&why)),
            Err(_) => Err(keeper.unstarted(&format!("did not give a ring within {} s", patience.as_secs()))),
        }
    }

    pub(super) fn unstarted(&self, why: &str) -> Error {
        let remedy =
            "see that etcd runs and is what ticket_keys says, or name a state_file that an earlier run has written";
        Finding::error(&self.settings.place(), format!("cannot be used: {why}"), remedy).into()
    }

    /// The newest report.
    pub fn report(&self) -> Report {
        self.reports.borrow().clone()
    }

    /// The version that every lane has.
    pub fn on_lanes(&self, version: u64) {
        self.orders.send_if_modified(|orders| std::mem::replace(&mut orders.on_lanes, version) != version);
    }

    /// Takes a schedule that a reload changed.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.orders.send_if_modified(|orders| std::mem::replace(&mut orders.schedule, schedule) != schedule);
    }

    /// Where etcd is, and what is there.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders.send_modify(|orders| orders.stop = true);
        if let Some(thread) = self.thread.take() {
            // It ends within the bounds of one request. If it panicked there is nothing left to end.
            let _ = thread.join();
        }
    }
}

/// The ring of a state file; `None` if there is no file.
fn read_state(path: &Path, key: &KeyEncryptionKey, cluster: &[u8; 32]) -> Result<Option<Ring>, Error> {
    if !path.try_exists().unwrap_or(true) {
        return Ok(None);
    }
    let remedy = "remove it if etcd has the ring, or put the key-encryption key back that it was written under";
    let bytes = file::read_bytes(path)?;
    let ring = sealed::open(&bytes, key, cluster);
    ring.map(Some).map_err(|refusal| Finding::error(path, refusal.to_string(), remedy).into())
}

/// What the thread is made of.
struct Keeping {
    connector: client::Connector,
    mirror: Mirror,
    random: Random,
    inbox: watch::Receiver<Orders>,
    outbox: watch::Sender<Report>,
    /// Told once, when there is a ring or it is known why there cannot be one.
    started: Option<blocking::SyncSender<Result<(), String>>>,
    state: Option<PathBuf>,
    kept_version: u64,
}

impl Keeping {
    async fn run(mut self) {
        let mut backoff = BACKOFF[0];
        while !self.inbox.borrow().stop {
            let began = clock::now();
            let failed = match self.connector.connect().await {
                Ok(client) => self.keep(client).await,
                Err(failed) => Some(failed),
            };
            let Some(failed) = failed else { return };
            self.mirror.on_silence(clock::now());
            self.report(Some(&failed));
            backoff = if clock::now().since(began) > BACKOFF[1] { BACKOFF[0] } else { BACKOFF[1].min(2 * backoff) };
            self.pause(backoff / 2, backoff).await;
        }
    }

    /// Looks and writes for as long as that goes well; `None` when it is to end.
    async fn keep(&mut self, mut client: Client) -> Option<Failed> {
        let mut renewed_at = clock::now();
        loop {
            if self.inbox.borrow().stop {
                client.leave().await;
                return None;
            }
            if clock::now().since(renewed_at) >= RENEW {
                if let Err(failed) = client.renew().await {
                    return Some(failed);
                }
                renewed_at = clock::now();
            }
            match self.look(&mut client).await {
                Err(failed) => return Some(failed),
                // What was done shows at once.
                Ok(true) => continue,
                Ok(false) => {}
            }
            self.pause(LOOK * 3 / 4, LOOK / 2).await;
        }
    }

    /// One look and what follows from it. Gives whether anything was written.
    async fn look(&mut self, client: &mut Client) -> Result<bool, Failed> {
        let Orders { on_lanes, schedule, .. } = *self.inbox.borrow_and_update();
        self.mirror.set_schedule(schedule);
        self.mirror.on_lanes(on_lanes);
        if self.started.is_some() {
            // Whoever leads waits for an engine from when it has said that it lives, so that it says so before it looks for the ring.
            client.acknowledge(0).await?;
        }
        let look = client.look().await?;
        let actions = self.mirror.on_look(&look, clock::now(), clock::unix_time());
        self.report(None);
        let mut wrote = false;
        for action in actions {
            wrote |= client.act(action, &mut self.mirror).await?;
        }
        Ok(wrote)
    }

    fn report(&mut self, failed: Option<&Failed>) {
        let mut report = self.mirror.report(clock::now());
        for (alarm, detail) in &mut report.alarms {
            if *alarm == super::Alarm::Unreachable {
                *detail = failed.map(ToString::to_string).unwrap_or_default();
            }
        }
        if let Some(ring) = &report.ring {
            self.keep_state(&Arc::clone(ring));
        }
        let refused = report.alarms.iter().find(|(alarm, _)| *alarm == super::Alarm::Refused);
        let verdict = match (failed, &report.ring, refused) {
            (None, Some(_), _) => Some(Ok(())),
            // A ring that cannot be opened will not open later.
            (None, None, Some((_, why))) => Some(Err(why.clone())),
            (Some(failed), None, _) if failed.is_final() => Some(Err(failed.to_string())),
            (_, _, _) => None,
        };
        self.outbox.send_replace(report);
        if let Some(verdict) = verdict
            && let Some(started) = self.started.take()
        {
            // Nobody waits any more if it took too long.
            let _ = started.try_send(verdict);
        }
    }

    /// Keeps the newest ring for a start without etcd.
    fn keep_state(&mut self, ring: &Ring) {
        let Some(path) = &self.state else { return };
        if ring.version() == self.kept_version {
            return;
        }
        self.kept_version = ring.version();
        let bytes = self.mirror.seal(ring);
        if let Err(error) = file::write_bytes(path, &bytes, true) {
            tracing::error!("the ring is not kept for a start without etcd: {error}");
        }
    }

    /// Waits for `least` and up to `spread` more, but not for longer than there is nothing to be said or done.
    async fn pause(&mut self, least: Duration, spread: Duration) {
        let spread = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1);
        let time = least + Duration::from_nanos(self.random.below(spread));
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            changed = self.inbox.changed() => if changed.is_err() {
                // Control is gone without a word.
                tokio::time::sleep(time).await;
            }
        }
    }
}

/// Takes one key out of the cluster's ring, everywhere (K8). Gives the ring that is in etcd then.
///
/// # Errors
/// [`Error`] says why it was not done; then nothing was.
pub fn purge(
    settings: &Settings,
    key: crate::ticket::KeyId,
    now: UnixTime,
    random: &mut Random,
) -> Result<Ring, Error> {
    edit(settings, random, |ring, random| {
        ring.purged_of(key, now, random).map(Some).map_err(|refused| {
            Finding::error(&settings.place(), refused.to_string(), "choose from `sealane keys list --config FILE`")
                .into()
        })
    })
}

/// The ring that is in etcd.
///
/// # Errors
/// [`Error`] says why it cannot be told.
pub fn read(settings: &Settings, random: &mut Random) -> Result<Ring, Error> {
    edit(settings, random, |_, _| Ok(None))
}

/// Reads the ring, and writes what `step` makes of it, if anything and if nobody has written meanwhile.
fn edit(
    settings: &Settings,
    random: &mut Random,
    step: impl FnOnce(&Ring, &mut Random) -> Result<Option<Ring>, Error>,
) -> Result<Ring, Error> {
    let place = settings.place();
    let unusable =
        |why: String| Error::from(Finding::error(&place, why, "see that etcd runs and is what ticket_keys says"));
    let key = KeyEncryptionKey::read(&settings.key_encryption_key)?;
    let connector = client::Connector::new(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| unusable(error.to_string()))?;
    runtime.block_on(async {
        let mut client = connector.visit().await.map_err(|failed| unusable(failed.to_string()))?;
        let look = client.look().await.map_err(|failed| unusable(failed.to_string()))?;
        let Some(stored) = look.ring else { return Err(unusable("has no ring yet".to_owned())) };
        let ring = sealed::open(&stored.bytes, &key, &settings.cluster)
            .map_err(|refusal| unusable(format!("has a ring that {refusal}")))?;
        let Some(next) = step(&ring, random)? else { return Ok(ring) };
        let bytes = sealed::seal(&next, &key, &settings.cluster, random);
        match client.replace(bytes, stored.revision).await {
            Ok(true) => Ok(next),
            Ok(false) => {
                Err(Finding::error(&place, "was written by somebody else meanwhile, and nothing was done", "try again")
                    .into())
            }
            Err(failed) => Err(unusable(format!("{failed}; whether it was done is not known, so look"))),
        }
    })
}
