//! One capture on one lane: what control asks for, and the memory that goes to and fro between them.
//!
//! Control makes all memory, in chunks. The lane takes an empty one, writes frames into it as they are in a capture file, and gives it back filled; control
//! gives it back empty. Both queues are bounded and lock-free, so that whoever is slow makes the other leave frames out, and nobody wait.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crossbeam::queue::ArrayQueue;

use super::headers::{Headers, Network, TCP};
use super::{Filter, Side};
use crate::base::{Instant, LaneId, PortId};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of a chunk.
const CHUNK: usize = 64 << 10;
/// Chunks of a tap: 4 MiB. At 10 ms between two looks of control that is 400 MB/s.
pub const CHUNKS: usize = 64;

/// Least bytes that a capture keeps of a frame: what its filter looks at.
pub const SNAP_LEN_MIN: usize = 64;
/// Most bytes that it keeps: the longest frame there is, one that a port is to cut.
pub const SNAP_LEN_MAX: usize = crate::nic::LONG_FRAME_MAX;

/// Frames in the way in which they are in a file.
#[derive(Debug)]
pub struct Chunk(Vec<u8>);

impl Chunk {
    /// An empty one. Its memory is there already: a lane takes no page fault.
    fn empty() -> Box<Self> {
        let mut bytes = vec![0xff; CHUNK];
        bytes.clear();
        Box::new(Self(bytes))
    }

    /// The blocks that are in it.
    pub fn blocks(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn has_room(&self, len: usize) -> bool {
        self.0.capacity() - self.0.len() >= len
    }

    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

/// Which of an engine's ends a frame is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Where virtual services listen, in order.
    services: Box<[SocketAddr]>,
    /// Where servers are, in order.
    servers: Box<[IpAddr]>,
}

impl Ends {
    /// Of these services and servers.
    pub fn new(services: impl IntoIterator<Item = SocketAddr>, servers: impl IntoIterator<Item = IpAddr>) -> Self {
        let (mut services, mut servers): (Vec<_>, Vec<_>) =
            (services.into_iter().collect(), servers.into_iter().collect());
        services.sort_unstable();
        servers.sort_unstable();
        Self { services: services.into(), servers: servers.into() }
    }

    /// The side that a frame is of, if it is of one.
    pub fn side(&self, headers: &Headers, is_sent: bool) -> Option<Side> {
        let address = |number: u128| -> Option<IpAddr> {
            match headers.network {
                Network::Ip => u32::try_from(number).ok().map(|number| Ipv4Addr::from_bits(number).into()),
                Network::Ip6 => Some(Ipv6Addr::from_bits(number).into()),
                Network::Arp | Network::Other => None,
            }
        };
        let (source, destination) = headers.addresses?;
        let (own, peer) = if is_sent { (source, destination) } else { (destination, source) };
        let (own, peer) = (address(own)?, address(peer)?);
        if headers.protocol == Some(TCP)
            && let Some((source, destination)) = headers.ports
            && self.services.binary_search(&(own, if is_sent { source } else { destination }).into()).is_ok()
        {
            return Some(Side::Client);
        }
        self.servers.binary_search(&peer).is_ok().then_some(Side::Server)
    }
}

/// What a lane captures.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which frames.
    pub filter: Filter,
    /// Frames of one side only.
    pub side: Option<Side>,
    /// What the sides are.
    pub ends: Ends,
    /// Of which ports, in their order.
    pub ports: Box<[bool]>,
    /// Most bytes that are kept of a frame.
    pub snap_len: usize,
    /// Most frames a second.
    pub frames_per_second: u32,
    /// Most bytes a second, as they are in the file.
    pub bytes_per_second: u32,
    /// When the lane's clock started, in nanoseconds since 1970.
    pub epoch: u64,
}

crate::counters! {
    /// What a capture counts on one port of one lane.
    pub struct Counters {
        /// Frames that were looked at
        counter seen,
        /// Frames that the filter wanted
        counter wanted,
        /// Frames that went to control
        counter captured,
        /// Frames left out because control had not taken what was captured before
        counter left_out_full,
        /// Frames left out because there had been as many as there may be in this time
        counter left_out_frames,
        /// Frames left out because there had been as many bytes as there may be in this time
        counter left_out_bytes,
    }
}

impl Counters {
    /// Frames that were left out, for whatever reason.
    pub fn left_out(&self) -> u64 {
        self.left_out_full.value() + self.left_out_frames.value() + self.left_out_bytes.value()
    }
}

/// One capture on one lane, as both ends have it. Control keeps it until the lane has let it go: its memory is not for a lane to give back.
#[derive(Debug)]
pub struct Tap {
    /// Which lane.
    pub lane: LaneId,
    /// What is captured.
    pub settings: Settings,
    /// What the lane counts, by port.
    pub ports: Box<[Counters]>,
    empty: ArrayQueue<Box<Chunk>>,
    filled: ArrayQueue<Box<Chunk>>,
    /// Control wants no more.
    is_over: AtomicBool,
    /// The lane gives no more.
    has_ended: AtomicBool,
    /// What was captured until then is in `filled`, in nanoseconds of the lane's clock.
    filled_to: AtomicU64,
}

impl Tap {
    /// A tap with all its memory.
    pub fn new(lane: LaneId, settings: Settings) -> Self {
        let empty = ArrayQueue::new(CHUNKS);
        while empty.push(Chunk::empty()).is_ok() {}
        Self {
            lane,
            ports: settings.ports.iter().map(|_| Counters::default()).collect(),
            settings,
            empty,
            filled: ArrayQueue::new(CHUNKS),
            is_over: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            filled_to: AtomicU64::new(0),
        }
    }

    /// Control's: what the lane has filled, oldest first.
    pub fn take(&self) -> Option<Box<Chunk>> {
        self.filled.pop()
    }

    /// Control's: gives a chunk back that has been read.
    pub fn give_back(&self, mut chunk: Box<Chunk>) {
        chunk.0.clear();
        // There are as many places as chunks.
        let _full = self.empty.push(chunk);
    }

    /// Control's: has the lane stop.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether control wants no more.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Whether everything that the lane has captured can be taken, and nothing comes behind it.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Nanoseconds from 1970 to the last moment of which everything that was captured until then can be taken.
    pub fn filled_to(&self) -> u64 {
        self.settings.epoch.saturating_add(self.filled_to.load(Ordering::Acquire))
    }

    pub(super) fn take_empty(&self) -> Option<Box<Chunk>> {
        self.empty.pop()
    }

    /// The lane's: gives a chunk to control, if there is one, and says until when everything is there.
    pub(super) fn fill(&self, chunk: Option<Box<Chunk>>, now: Instant) {
        if let Some(chunk) = chunk {
            // There are as many places as chunks.
            let _full = self.filled.push(chunk);
        }
        self.filled_to.store(now.as_nanos(), Ordering::Release);
    }

    pub(super) fn let_go(&self) {
        self.has_ended.store(true, Ordering::Release);
    }

    pub(super) fn counters(&self, port: PortId) -> Option<&Counters> {
        let port = usize::from(port.0);
        if self.settings.ports.get(port).copied().unwrap_or(false) { self.ports.get(port) } else { None }
    }
}
