//! A NIC in memory: queue pairs of two or more lanes on one simulated port, for tests and simulation.
//!
//! [`port`] gives the lanes' ends and the [`Wire`] outside. Everything is bounded, as on a NIC: receive queues, the
//! transmit queue and the buffers. Nothing happens by itself, so one thread may drive all ends in an order of its own; the
//! ends may also live on threads of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;
use smoltcp::wire::{EthernetAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket};

use super::{BURST, Buffers, FRAME_MAX, Offload, PortInfo, QueuePair, ReceivedChecksum};

/// An Ethernet header's length.
const ETHERNET_LEN: usize = 14;

/// What a port in memory is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Queue pairs, one a lane.
    pub lanes: usize,
    /// The port's Ethernet address.
    pub mac: EthernetAddress,
    /// The longest IP packet, in bytes, up to 1500.
    pub mtu: usize,
    /// What the port pretends to compute in hardware. It does compute it: frames leave and verdicts come right.
    pub offload: Offload,
    /// Packet buffers over all lanes.
    pub buffers: usize,
    /// Most frames that wait in one lane's receive queue, and most that wait to be taken from the wire.
    pub queue_len: usize,
}

impl Settings {
    /// A port without offload, with 4096 buffers and queues of 1024.
    pub fn new(lanes: usize, mac: EthernetAddress, mtu: usize) -> Self {
        Self { lanes, mac, mtu, offload: Offload::default(), buffers: 4096, queue_len: 1024 }
    }

    /// Makes the port.
    ///
    /// # Panics
    /// When `queue_len` is 0 or the MTU does not fit a frame.
    pub fn port(self) -> (Vec<Queue>, Wire) {
        assert!(self.mtu + ETHERNET_LEN <= FRAME_MAX, "an MTU of {} does not fit a frame", self.mtu);
        let shared = Arc::new(Shared {
            info: PortInfo { mac: self.mac, mtu: self.mtu, offload: self.offload },
            receive: (0..self.lanes).map(|_| ArrayQueue::new(self.queue_len)).collect(),
            transmit: ArrayQueue::new(self.queue_len),
            pool: Arc::new(Pool { in_use: AtomicUsize::new(0), capacity: self.buffers }),
        });
        let queues = (0..self.lanes).map(|lane| Queue { lane, shared: Arc::clone(&shared) }).collect();
        (queues, Wire { shared })
    }
}

/// A port with `lanes` queue pairs and the defaults of [`Settings::new`], and the outside end of it.
pub fn port(lanes: usize, mac: EthernetAddress, mtu: usize) -> (Vec<Queue>, Wire) {
    Settings::new(lanes, mac, mtu).port()
}

/// One lane's queue pair.
#[derive(Debug)]
pub struct Queue {
    lane: usize,
    shared: Arc<Shared>,
}

/// The outside end of a port.
#[derive(Clone, Debug)]
pub struct Wire {
    shared: Arc<Shared>,
}

/// A frame in one of the port's buffers, which goes back to the pool when the frame is dropped.
#[derive(Debug)]
pub struct Frame {
    room: Box<[u8; FRAME_MAX]>,
    len: usize,
    checksum: ReceivedChecksum,
    offload: Option<usize>,
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Shared {
    info: PortInfo,
    receive: Vec<ArrayQueue<Frame>>,
    transmit: ArrayQueue<Frame>,
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    in_use: AtomicUsize,
    capacity: usize,
}

impl Pool {
    fn take(self: &Arc<Self>) -> Option<Frame> {
        let more = |in_use| (in_use < self.capacity).then_some(in_use + 1);
        self.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Frame {
            room: Box::new([0; FRAME_MAX]),
            len: 0,
            checksum: ReceivedChecksum::Unknown,
            offload: None,
            pool: Arc::clone(self),
        })
    }

    fn buffers(&self) -> Buffers {
        Buffers { in_use: self.in_use.load(Ordering::Relaxed), capacity: self.capacity }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.pool.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Wire {
    /// Delivers a frame to one lane's receive queue. `false` when the queue or the buffer pool is full, there is no such
    /// queue or the frame is too long: then it is lost.
    pub fn push(&self, bytes: &[u8], queue: usize) -> bool {
        let Some(queue) = self.shared.receive.get(queue) else { return false };
        let Some(mut frame) = self.shared.pool.take() else { return false };
        let Some(room) = frame.room.get_mut(..bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        frame.len = bytes.len();
        if self.shared.info.offload.receive_checksum {
            frame.checksum = verdict(bytes);
        }
        queue.push(frame).is_ok()
    }

    /// Takes the oldest frame that a lane transmitted.
    pub fn pop(&self) -> Option<Vec<u8>> {
        let mut frame = self.shared.transmit.pop()?;
        frame.finish_checksums();
        Some(super::Frame::bytes(&frame).to_vec())
    }

    /// Occupancy of the buffer pool. Frames that wait on the wire's side count.
    pub fn buffers(&self) -> Buffers {
        self.shared.pool.buffers()
    }
}

impl QueuePair for Queue {
    type Frame = Frame;

    fn port(&self) -> &PortInfo {
        &self.shared.info
    }

    fn receive(&mut self, into: &mut Vec<Frame>) {
        let Some(queue) = self.shared.receive.get(self.lane) else { return };
        into.extend(std::iter::from_fn(|| queue.pop()).take(BURST));
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.shared.pool.take()
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        frames.drain(..).filter_map(|frame| self.shared.transmit.push(frame).err()).count()
    }

    fn buffers(&self) -> Option<Buffers> {
        Some(self.shared.pool.buffers())
    }
}

impl super::Frame for Frame {
    fn bytes(&self) -> &[u8] {
        self.room.get(..self.len).unwrap_or_default()
    }

    fn room(&mut self) -> &mut [u8] {
        self.room.as_mut_slice()
    }

    fn set_len(&mut self, len: usize) {
        assert!(len <= FRAME_MAX, "{len} bytes do not fit the room");
        self.len = len;
    }

    fn received_checksum(&self) -> ReceivedChecksum {
        self.checksum
    }

    fn offload_checksum(&mut self, ip_header_len: usize, _ipv6: bool) {
        self.offload = Some(ip_header_len);
    }
}

impl Frame {
    /// Does what a NIC does on transmission: completes the IPv4 header's checksum and TCP's, whose field holds the pseudo
    /// header's sum.
    fn finish_checksums(&mut self) {
        let Some(header_len) = self.offload.take() else { return };
        let Some(packet) = self.room.get_mut(ETHERNET_LEN..self.len) else { return };
        if packet.first().is_some_and(|byte| byte >> 4 == 4) {
            if let Ok(mut ipv4) = Ipv4Packet::new_checked(&mut *packet) {
                ipv4.fill_checksum();
            }
        }
        let Some(segment) = packet.get_mut(header_len..) else { return };
        let sum = !ones_complement_sum(segment);
        if let Some(field) = segment.get_mut(16..18) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// RFC 1071.
fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let sum = bytes.chunks(2).fold(0u64, |sum, pair| {
        let high = pair.first().copied().unwrap_or_default();
        let low = pair.get(1).copied().unwrap_or_default();
        sum + u64::from(u16::from_be_bytes([high, low]))
    });
    // RFC 1071 4.1: the value modulo 2^16 - 1, with 0xffff for a nonzero sum's zero.
    if sum == 0 { 0 } else { u16::try_from((sum - 1) % 0xffff + 1).unwrap_or(u16::MAX) }
}

/// What a NIC says about the checksums of a received frame. It looks at TCP directly behind the IP header only.
fn verdict(frame: &[u8]) -> ReceivedChecksum {
    let Some(packet) = frame.get(ETHERNET_LEN..) else { return ReceivedChecksum::Unknown };
    let (header, next, source, destination, segment) = match frame.get(12..ETHERNET_LEN) {
        Some([0x08, 0x00]) => {
            let Ok(ipv4) = Ipv4Packet::new_checked(packet) else { return ReceivedChecksum::Unknown };
            (
                ipv4.verify_checksum(),
                ipv4.next_header(),
                ipv4.src_addr().into(),
                ipv4.dst_addr().into(),
                ipv4.payload(),
            )
        }
        Some([0x86, 0xdd]) => {
            let Ok(ipv6) = Ipv6Packet::new_checked(packet) else { return ReceivedChecksum::Unknown };
            (true, ipv6.next_header(), ipv6.src_addr().into(), ipv6.dst_addr().into(), ipv6.payload())
        }
        Some(_) | None => return ReceivedChecksum::Unknown,
    };
    match TcpPacket::new_checked(segment) {
        Ok(tcp) if next == IpProtocol::Tcp => {
            if header && tcp.verify_checksum(&source, &destination) {
                ReceivedChecksum::Good
            } else {
                ReceivedChecksum::Bad
            }
        }
        Ok(_) | Err(_) => ReceivedChecksum::Unknown,
    }
}
