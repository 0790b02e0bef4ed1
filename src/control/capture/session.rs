//! One capture's way from its lanes to whoever has asked for it: frames of all lanes in the order of time, as a file in pieces.
//!
//! Nothing here makes a lane wait, or control: a client that is slow holds chunks, and a lane without an empty one leaves frames out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::Running;
use super::secrets::{HOLD, Told};
use crate::control::clock;
use crate::lane::capture::{Chunk, Tap};
use crate::nic::pcapng::{self, Interface, Statistics};

/// Most pieces that wait for the client.
pub(in crate::control) const PIECES_MAX: usize = 4;
/// A piece is sent when it has so many bytes, and one frame more at most.
const PIECE: usize = 256 << 10;
/// How often lanes are looked after.
const LOOK: Duration = Duration::from_millis(10);
/// How long lanes have to take a capture up, and to let it go.
const LANES_MAX: Duration = Duration::from_secs(1);
/// Looks after which a lane that has not moved is no longer waited for: a second.
const SILENT_LOOKS_MAX: u32 = 100;
/// How long the last pieces may take.
const LAST_MAX: Duration = Duration::from_secs(10);

/// Why a capture ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Asked,
    Seconds,
    Count,
    Bytes,
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Seconds => "seconds",
            Self::Count => "count",
            Self::Bytes => "bytes",
        }
    }
}

/// Streams a capture until it is at one of its bounds, somebody ends it, or nobody wants it any more.
pub(in crate::control) async fn stream(running: Arc<Running>, pieces: mpsc::Sender<Bytes>) {
    let most = Duration::from_secs(running.wanted.seconds) + LANES_MAX + LAST_MAX;
    let (id, mut session) = (running.id, Session::new(running));
    let done = tokio::time::timeout(most, session.run(&pieces)).await;
    let (captured, left_out) = session.running.counts();
    match done {
        Ok(Some(end)) => tracing::info!(capture = id, captured, left_out, ended = end.word(), "capture ended"),
        Ok(None) | Err(_) => {
            tracing::info!(
                capture = id,
                captured,
                left_out,
                "capture ended: whoever wanted it is gone, or takes nothing"
            );
        }
    }
}

/// What a lane has given.
struct Lane {
    tap: Arc<Tap>,
    chunks: VecDeque<Box<Chunk>>,
    /// How much of the first has been read.
    read: usize,
    /// Everything until then is here.
    filled_to: u64,
    /// Looks since that last grew.
    silent: u32,
    has_ended: bool,
}

struct Session {
    running: Arc<Running>,
    lanes: Vec<Lane>,
    out: Vec<u8>,
    frames: u64,
    bytes: u64,
    /// Frames of each port.
    delivered: Vec<u64>,
    end: Option<End>,
    /// The secrets, if it is told them.
    told: Option<Told>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.running.end_taps();
    }
}

impl Session {
    fn new(running: Arc<Running>) -> Self {
        let lane = |tap: &Arc<Tap>| Lane {
            tap: Arc::clone(tap),
            chunks: VecDeque::new(),
            read: 0,
            filled_to: 0,
            silent: 0,
            has_ended: false,
        };
        Self {
            lanes: running.taps.iter().map(lane).collect(),
            out: Vec::new(),
            frames: 0,
            bytes: 0,
            delivered: vec![0; running.ports.len()],
            end: None,
            told: (!running.secrets.is_empty()).then(|| Told::new(&running.secrets)),
            running,
        }
    }

    /// Gives why it ended, unless the client has gone.
    async fn run(&mut self, pieces: &mpsc::Sender<Bytes>) -> Option<End> {
        let running = Arc::clone(&self.running);
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = tokio::time::Instant::now();
        // Whoever has the first piece knows that every lane captures.
        while !self.lanes.iter().all(Lane::has_begun) && began.elapsed() < LANES_MAX {
            ticks.tick().await;
        }
        self.head();
        self.send(pieces).await?;
        let until = tokio::time::Instant::now() + Duration::from_secs(running.wanted.seconds);
        loop {
            tokio::select! {
                () = pieces.closed() => return None,
                () = running.end.notified(), if self.end.is_none() => self.end = Some(End::Asked),
                () = tokio::time::sleep_until(until), if self.end.is_none() => self.end = Some(End::Seconds),
                _ = ticks.tick() => {}
            }
            if self.end.is_some() {
                running.end_taps();
            }
            let filled_to = self.look();
            while let Some(block) = self.told.as_mut().and_then(Told::block) {
                self.bytes += block.len() as u64;
                pieces.send(Bytes::from_owner(block)).await.ok()?;
            }
            while self.merge(filled_to) {
                self.send(pieces).await?;
            }
            self.send(pieces).await?;
            let is_full = matches!(self.end, Some(End::Count | End::Bytes));
            if is_full || self.end.is_some() && self.lanes.iter().all(|lane| lane.has_ended || lane.is_silent()) {
                break;
            }
        }
        running.end_taps();
        self.tail();
        self.send(pieces).await?;
        self.end
    }

    /// Gives the client what there is.
    async fn send(&mut self, pieces: &mpsc::Sender<Bytes>) -> Option<()> {
        if self.out.is_empty() {
            return Some(());
        }
        self.bytes += self.out.len() as u64;
        pieces.send(std::mem::take(&mut self.out).into()).await.ok()
    }

    fn head(&mut self) {
        pcapng::section(&mut self.out, concat!("sealane ", env!("CARGO_PKG_VERSION")));
        let wanted = &self.running.wanted;
        for (name, device) in &self.running.ports {
            let interface = Interface { name, description: device, filter: &wanted.filter, snap_len: wanted.snap_len };
            pcapng::interface(&mut self.out, &interface);
        }
    }

    /// Takes what lanes have given. Until the time that it gives, in nanoseconds from 1970, nothing more will come.
    fn look(&mut self) -> u64 {
        let mut until = u64::MAX;
        for lane in &mut self.lanes {
            let known = lane.chunks.len();
            until = until.min(lane.look());
            let Some(told) = &mut self.told else { continue };
            for chunk in lane.chunks.iter().skip(known) {
                let mut rest = chunk.blocks();
                while let Some((_, length)) = pcapng::next_packet(rest) {
                    told.see(pcapng::kept(rest).unwrap_or_default());
                    rest = rest.get(length..).unwrap_or_default();
                }
            }
        }
        let is_all = until == u64::MAX;
        match &self.told {
            Some(_) if !is_all => until.saturating_sub(u64::try_from(HOLD.as_nanos()).unwrap_or(0)),
            Some(_) | None => until,
        }
    }

    /// Adds frames from before `until`, the oldest first. Gives whether there are more than a piece holds.
    fn merge(&mut self, until: u64) -> bool {
        while self.out.len() < PIECE {
            let oldest = self.lanes.iter_mut().filter_map(|lane| Some((lane.next()?, lane))).min_by_key(|(at, _)| *at);
            let Some((_, lane)) = oldest.filter(|(at, _)| *at < until) else { return false };
            let Some(block) = lane.take() else { return false };
            let wanted = &self.running.wanted;
            let is_at_bytes = self.bytes + (self.out.len() + block.len()) as u64 > wanted.bytes;
            if is_at_bytes || self.frames >= wanted.frames {
                self.end = Some(if is_at_bytes { End::Bytes } else { End::Count });
                return false;
            }
            self.frames += 1;
            if let Some(count) = pcapng::interface_of(block).and_then(|port| self.delivered.get_mut(port)) {
                *count += 1;
            }
            self.out.extend_from_slice(block);
            if self.frames == wanted.frames {
                self.end = Some(End::Count);
                return false;
            }
        }
        true
    }

    /// What was counted, port by port.
    fn tail(&mut self) {
        let end = self.end.map_or("gone", End::word);
        for (number, (port, delivered)) in (0u16..).zip(self.delivered.iter().enumerate()) {
            let counters: Vec<_> = self.running.taps.iter().filter_map(|tap| tap.ports.get(port)).collect();
            let sum =
                |count: fn(&crate::lane::capture::tap::Counters) -> u64| counters.iter().map(|one| count(one)).sum();
            let (full, frames, bytes): (u64, u64, u64) = (
                sum(|one| one.left_out_full.value()),
                sum(|one| one.left_out_frames.value()),
                sum(|one| one.left_out_bytes.value()),
            );
            // Secrets are of no port: the first tells of them.
            let secrets = self.told.as_ref().filter(|_| port == 0).map_or(0, Told::left_out);
            let statistics = Statistics {
                at: clock::unix_time().0.saturating_mul(1_000_000_000),
                received: sum(|one| one.seen.value()),
                accepted: sum(|one| one.wanted.value()),
                left_out: full + frames + bytes,
                delivered: *delivered,
                comment: format!(
                    "ended={end} left_out_slow={full} left_out_rate={frames} left_out_byte_rate={bytes} left_out_secrets={secrets}"
                ),
            };
            pcapng::statistics(&mut self.out, number, &statistics);
        }
    }
}

impl Lane {
    fn has_begun(&self) -> bool {
        self.tap.filled_to() > self.tap.settings.epoch || self.tap.has_ended()
    }

    fn is_silent(&self) -> bool {
        self.silent > SILENT_LOOKS_MAX
    }

    /// Takes what there is. Gives until when that is everything; of a lane that is silent it is what there is.
    fn look(&mut self) -> u64 {
        // What is known before the chunks are taken holds for them.
        self.has_ended = self.tap.has_ended();
        let filled_to = self.tap.filled_to();
        self.chunks.extend(std::iter::from_fn(|| self.tap.take()));
        self.silent = if filled_to > self.filled_to { 0 } else { self.silent.saturating_add(1) };
        self.filled_to = filled_to;
        if self.has_ended || self.is_silent() { u64::MAX } else { filled_to }
    }

    /// When the next frame was captured.
    fn next(&mut self) -> Option<u64> {
        loop {
            let chunk = self.chunks.front()?;
            if let Some((at, _)) = pcapng::next_packet(chunk.blocks().get(self.read..).unwrap_or_default()) {
                return Some(at);
            }
            self.read = 0;
            if let Some(chunk) = self.chunks.pop_front() {
                self.tap.give_back(chunk);
            }
        }
    }

    /// The next frame's block.
    fn take(&mut self) -> Option<&[u8]> {
        let rest = self.chunks.front()?.blocks().get(self.read..)?;
        let (_, length) = pcapng::next_packet(rest)?;
        self.read += length;
        rest.get(..length)
    }
}
