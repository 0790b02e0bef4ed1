//! Captures: what control asks a lane for frames by, and what the lane does as they pass.
//!
//! | part | what |
//! | --- | --- |
//! | `filter` | which frames |
//! | `headers` | what of a frame is looked at |
//! | `tap` | one capture on one lane, and its memory |
//!
//! Received frames are captured by the lane whose queue they came to, before anything else is done with them and not again when they are handed over; sent ones
//! when they are given to a port. Where nothing is captured a burst costs one branch.

pub mod filter;
pub mod headers;
pub mod tap;

use std::sync::Arc;

use crate::base::{Duration, Instant, PortId};
use crate::lane::LaneCounters;
use crate::nic::{Frame, pcapng};
pub use filter::Filter;
use headers::Headers;
pub use tap::{Chunk, Ends, Settings, Tap};

/// Most captures at once.
pub const CAPTURES_MAX: usize = 4;

/// How long a frame waits for others to fill its chunk.
const FILL_MAX: Duration = Duration::from_millis(10);

/// The time in which so much of a second's frames and bytes may be captured.
const WINDOW: Duration = Duration::from_millis(100);
const WINDOWS_PER_SECOND: u64 = 10;

/// A side of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Between clients and virtual services.
    Client,
    /// Between the engine and servers, health probes included.
    Server,
}

/// The captures of one lane.
#[derive(Debug, Default)]
pub(super) struct Captures(Vec<Capture>);

impl Captures {
    pub(super) fn none() -> Self {
        Self(Vec::with_capacity(CAPTURES_MAX))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Begins a capture. Control sees to it that there are no more than may be.
    pub(super) fn begin(&mut self, tap: Arc<Tap>, now: Instant) {
        if self.0.len() < CAPTURES_MAX {
            self.0.push(Capture { tap, chunk: None, began: now, window: Window::new(now) });
        } else {
            tap.let_go();
        }
    }

    /// Captures what is wanted of a burst.
    pub(super) fn on_frames<F: Frame>(
        &mut self,
        port: PortId,
        frames: &[F],
        is_sent: bool,
        counters: &LaneCounters,
        now: Instant,
    ) {
        for capture in &mut self.0 {
            for frame in frames {
                capture.on_frame(port, frame.bytes(), is_sent, counters, now);
            }
        }
    }

    /// At the end of a breath: gives what has waited long enough to control, and lets captures go that are over.
    pub(super) fn on_breath(&mut self, now: Instant) {
        self.0.retain_mut(|capture| {
            if capture.tap.is_over() {
                // What is dropped gives its last chunk away.
                return false;
            }
            if capture.chunk.is_none() || now - capture.began >= FILL_MAX {
                capture.tap.fill(capture.chunk.take(), now);
            }
            true
        });
    }
}

/// One capture.
#[derive(Debug)]
struct Capture {
    tap: Arc<Tap>,
    /// What is being filled.
    chunk: Option<Box<Chunk>>,
    /// When its first frame came.
    began: Instant,
    window: Window,
}

impl Capture {
    fn on_frame(&mut self, port: PortId, frame: &[u8], is_sent: bool, counters: &LaneCounters, now: Instant) {
        let Some(counts) = self.tap.counters(port) else { return };
        let settings = &self.tap.settings;
        counts.seen.increment();
        let headers = Headers::of(frame);
        let is_wanted = settings.filter.matches(&headers)
            && settings.side.is_none_or(|side| settings.ends.side(&headers, is_sent) == Some(side));
        if !is_wanted {
            return;
        }
        counts.wanted.increment();
        let kept = frame.get(..settings.snap_len).unwrap_or(frame);
        let len = pcapng::packet_len(kept.len());
        let left_out = match self.window.take(len, settings, now) {
            Err(Spent::Frames) => &counts.left_out_frames,
            Err(Spent::Bytes) => &counts.left_out_bytes,
            Ok(()) => match room(&self.tap, &mut self.chunk, &mut self.began, len, now) {
                None => &counts.left_out_full,
                Some(chunk) => {
                    let at = settings.epoch.saturating_add(now.as_nanos());
                    let packet = pcapng::Packet {
                        interface: port.0,
                        at,
                        is_sent,
                        queue: self.tap.lane.0,
                        original: frame.len(),
                    };
                    pcapng::packet(chunk.bytes(), &packet, kept);
                    counts.captured.increment();
                    counters.frames_captured.increment();
                    return;
                }
            },
        };
        left_out.increment();
        counters.frames_not_captured.increment();
    }
}

/// A chunk with room for so many bytes; one that is full goes to control.
fn room<'c>(
    tap: &Tap,
    chunk: &'c mut Option<Box<Chunk>>,
    began: &mut Instant,
    len: usize,
    now: Instant,
) -> Option<&'c mut Chunk> {
    if chunk.as_ref().is_some_and(|chunk| !chunk.has_room(len)) {
        // Of this moment there may be more to come: it is not told as filled.
        tap.fill(chunk.take(), *began);
    }
    if chunk.is_none() {
        *chunk = tap.take_empty();
        *began = now;
    }
    chunk.as_deref_mut()
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.chunk.is_some() {
            self.tap.fill(self.chunk.take(), self.began);
        }
        self.tap.let_go();
    }
}

/// What has been captured lately.
#[derive(Debug)]
struct Window {
    began: Instant,
    frames: u64,
    bytes: u64,
}

/// What there has been enough of.
enum Spent {
    Frames,
    Bytes,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { began: now, frames: 0, bytes: 0 }
    }

    fn take(&mut self, len: usize, settings: &Settings, now: Instant) -> Result<(), Spent> {
        if now - self.began >= WINDOW {
            *self = Self::new(now);
        }
        let of = |rate: u32| u64::from(rate).div_ceil(WINDOWS_PER_SECOND);
        if self.frames >= of(settings.frames_per_second) {
            return Err(Spent::Frames);
        }
        let bytes = self.bytes + len as u64;
        if bytes > of(settings.bytes_per_second) {
            return Err(Spent::Bytes);
        }
        self.frames += 1;
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
