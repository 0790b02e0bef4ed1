//! Captures of a running engine: begun and ended here, streamed by `session`, asked for by `sealane capture` (`command`).
//!
//! A capture is a tap on each of its lanes. Whoever streams it has it end when it is done, or goes away; the taps' memory is given back when the lanes have let
//! them go.

pub mod command;
mod secrets;
pub(super) mod session;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use utoipa::ToSchema;

use crate::control::Control;
use crate::lane::capture::filter::Wrong;
use crate::lane::capture::{CAPTURES_MAX, Ends, Filter, Settings, Tap, tap};
use crate::tls::secrets::Secrets;

/// The longest capture, in seconds: a connection to the API lasts little longer.
pub const SECONDS_MAX: u64 = 240;
/// How long one is without another word.
pub const SECONDS: u64 = 60;
/// Most frames of a capture.
pub const FRAMES_MAX: u64 = 100_000_000;
/// How many it has without another word.
pub const FRAMES: u64 = 1_000_000;
/// Most bytes of its file.
pub const BYTES_MAX: u64 = 64 << 30;
/// How many it has without another word.
pub const BYTES: u64 = 256 << 20;
/// Most frames a second of a lane.
pub const RATE_MAX: u32 = 2_000_000;
/// How many without another word.
pub const RATE: u32 = 20_000;
/// Most bytes a second of a lane.
pub const BYTE_RATE_MAX: u32 = 1 << 30;
/// How many without another word.
pub const BYTE_RATE: u32 = 32 << 20;

/// A side of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Between clients and virtual services
    Client,
    /// Between the engine and servers, health probes included
    Server,
    /// Both, and whatever is of neither, such as ARP
    Both,
}

/// What is to be captured.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) filter: String,
    pub(super) side: Side,
    /// Lanes by number; none for all.
    pub(super) lanes: Vec<u16>,
    /// Ports by name; none for all.
    pub(super) ports: Vec<String>,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) seconds: u64,
    pub(super) frames_per_second: u32,
    pub(super) bytes_per_second: u32,
    pub(super) snap_len: usize,
    pub(super) tls_secrets: bool,
}

/// Why nothing is captured.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Filter(#[from] Wrong),
    #[error("there is no lane {0}; this engine has lanes 0 to {1}")]
    NoLane(u16, usize),
    #[error("there is no port {0:?}; this engine has {1}")]
    NoPort(String, String),
    #[error("there are {CAPTURES_MAX} captures already, as many as may be; end one of them first")]
    TooMany,
    #[error(
        "this engine tells no TLS secrets; write tls_secrets = true in [engine.capture] of its configuration and reload: then whoever may use the API may read what \
         clients and servers say"
    )]
    NoSecrets,
    #[error("another capture is told the TLS secrets; end that one first")]
    SecretsTaken,
}

/// A capture.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) id: u64,
    pub(super) wanted: Wanted,
    /// Names and devices of the engine's ports.
    pub(super) ports: Vec<(String, String)>,
    pub(super) taps: Vec<Arc<Tap>>,
    /// Where lanes tell TLS secrets, if it is told them.
    pub(super) secrets: Vec<Arc<Secrets>>,
    /// Somebody wants it to end in order.
    pub(super) end: Notify,
}

impl Running {
    /// Has the lanes stop.
    pub(super) fn end_taps(&self) {
        self.taps.iter().for_each(|tap| tap.end());
    }

    /// Frames captured, and frames left out.
    pub(super) fn counts(&self) -> (u64, u64) {
        let all = self.taps.iter().flat_map(|tap| &tap.ports);
        all.fold((0, 0), |(captured, left_out), port| (captured + port.captured.value(), left_out + port.left_out()))
    }
}

/// The captures of an engine.
#[derive(Debug, Default)]
pub(super) struct Captures {
    last: u64,
    running: Vec<Arc<Running>>,
}

impl Captures {
    /// Every capture that goes on.
    pub(super) fn running(&self) -> impl Iterator<Item = &Arc<Running>> {
        self.running.iter().filter(|running| running.taps.iter().any(|tap| !tap.is_over()))
    }

    /// Gives back what neither a lane nor whoever streams it has any more.
    pub(super) fn give_back(&mut self) {
        let is_held = |running: &Arc<Running>| {
            Arc::strong_count(running) > 1 || running.taps.iter().any(|tap| Arc::strong_count(tap) > 1)
        };
        self.running.retain(is_held);
    }
}

impl Control {
    /// Begins a capture on its lanes.
    pub(super) fn begin_capture(&mut self, wanted: Wanted) -> Result<Arc<Running>, Refused> {
        let filter = Filter::parse(&wanted.filter)?;
        let lanes = self.lanes.len();
        if let Some(lane) = wanted.lanes.iter().find(|lane| usize::from(**lane) >= lanes) {
            return Err(Refused::NoLane(*lane, lanes.saturating_sub(1)));
        }
        let names: Vec<_> = self.configuration.ports.iter().map(|port| port.name.clone()).collect();
        if let Some(port) = wanted.ports.iter().find(|port| !names.contains(port)) {
            return Err(Refused::NoPort(port.clone(), names.join(", ")));
        }
        self.captures.give_back();
        if self.captures.running.len() >= CAPTURES_MAX {
            return Err(Refused::TooMany);
        }
        let secrets = if wanted.tls_secrets { self.secrets_for_capture()? } else { Vec::new() };
        let services = self.configuration.services.iter().flat_map(|service| service.addresses.iter().copied());
        let servers = self.configuration.pools.iter().flat_map(|pool| pool.servers.iter().map(|one| one.address.ip()));
        let settings = Settings {
            filter,
            side: match wanted.side {
                Side::Client => Some(crate::lane::capture::Side::Client),
                Side::Server => Some(crate::lane::capture::Side::Server),
                Side::Both => None,
            },
            ends: Ends::new(services, servers),
            ports: names.iter().map(|name| wanted.ports.is_empty() || wanted.ports.contains(name)).collect(),
            snap_len: wanted.snap_len.clamp(tap::SNAP_LEN_MIN, tap::SNAP_LEN_MAX),
            frames_per_second: wanted.frames_per_second,
            bytes_per_second: wanted.bytes_per_second,
            epoch: 0,
        };
        let mut taps = Vec::new();
        for lane in &mut self.lanes {
            let handle = &lane.handle;
            if wanted.lanes.is_empty() || wanted.lanes.contains(&handle.lane.0) {
                // All lanes of an engine share one clock, and so do their traces.
                let tap = Arc::new(Tap::new(handle.lane, Settings { epoch: handle.trace.epoch(), ..settings.clone() }));
                lane.outbox.capture(Arc::clone(&tap));
                taps.push(tap);
            }
        }
        self.flush();
        let device = |port: &crate::control::config::Port| match &port.device {
            crate::control::config::Device::Pci(device) | crate::control::config::Device::Virtual(device) => {
                device.clone()
            }
        };
        let ports = self.configuration.ports.iter().map(|port| (port.name.clone(), device(port))).collect();
        self.captures.last += 1;
        let running = Arc::new(Running { id: self.captures.last, wanted, ports, taps, secrets, end: Notify::new() });
        self.captures.running.push(Arc::clone(&running));
        self.counters.captures.increment();
        tracing::info!(capture = running.id, filter = running.wanted.filter, "capture begins");
        if running.wanted.tls_secrets {
            tracing::warn!(capture = running.id, "its file will hold TLS secrets: whoever has it reads what is said");
        }
        Ok(running)
    }

    /// Where every lane tells its secrets: a session's frames come to one lane and belong to another.
    fn secrets_for_capture(&self) -> Result<Vec<Arc<Secrets>>, Refused> {
        if !self.configuration.engine.capture.tls_secrets {
            return Err(Refused::NoSecrets);
        }
        let is_told = |running: &Arc<Running>| !running.secrets.is_empty() && Arc::strong_count(running) > 1;
        if self.captures.running.iter().any(is_told) {
            return Err(Refused::SecretsTaken);
        }
        Ok(self.shared.secrets.clone())
    }

    /// Has a capture end in order; whether there is one of this number.
    pub(super) fn end_capture(&mut self, id: u64) -> bool {
        let found = self.captures.running().find(|running| running.id == id);
        found.inspect(|running| running.end.notify_one()).is_some()
    }
}
