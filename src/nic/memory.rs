//! A NIC in memory: queue pairs of two or more lanes on one simulated port, for tests and simulation.
//!
//! [`port`] gives the lanes' ends and the [`Wire`] outside. Everything is bounded, as on a NIC: receive queues, the
//! transmit queue and the buffers. Nothing happens by itself, so one thread may drive all ends in an order of its own; the
//! ends may also live on threads of their own.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use crossbeam::queue::ArrayQueue;
use smoltcp::wire::{EthernetAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket};

use super::kernel::KernelQueue;
use super::long::{Headers, Part};
use super::{
    BURST, Buffers, ETHERNET_MTU, FRAME_MAX, LONG_FRAME_MAX, MTU_MAX, Offload, PortInfo, QueuePair, ReceivedChecksum,
};

/// An Ethernet header's length.
const ETHERNET_LEN: usize = 14;

/// What a port in memory is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Queue pairs, one a lane.
    pub lanes: usize,
    /// The port's Ethernet address.
    pub mac: EthernetAddress,
    /// The longest IP packet, in bytes, up to [`MTU_MAX`].
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
        assert!(self.mtu <= MTU_MAX, "an MTU of {} does not fit a frame", self.mtu);
        let is_long = self.offload.segmentation || self.mtu > ETHERNET_MTU;
        let shared = Arc::new(Shared {
            info: PortInfo { mac: self.mac, mtu: self.mtu, vlan: None, offload: self.offload },
            receive: (0..self.lanes).map(|_| ArrayQueue::new(self.queue_len)).collect(),
            transmit: ArrayQueue::new(self.queue_len),
            pool: Arc::new(Pool {
                in_use: AtomicUsize::new(0),
                capacity: self.buffers,
                room: if is_long { LONG_FRAME_MAX } else { FRAME_MAX },
            }),
        });
        let queues = (0..self.lanes).map(|lane| Queue { lane, shared: Arc::clone(&shared), kernel: None }).collect();
        (queues, Wire { shared })
    }

    /// Makes the port with an interface of the kernel beside it, of the same kind, which takes and gives so many frames a second. Gives the kernel's end last.
    ///
    /// # Panics
    /// As [`port`](Self::port) does.
    pub fn port_beside_kernel(self, rate: u32) -> (Vec<Queue>, Wire, Wire) {
        let (kernels, kernel) = self.clone().port();
        let (queues, wire) = self.port();
        let beside = |(queue, kernel)| Queue { kernel: Some(Box::new(KernelQueue::new(kernel, rate))), ..queue };
        (queues.into_iter().zip(kernels).map(beside).collect(), wire, kernel)
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
    kernel: Option<Box<KernelQueue<Queue>>>,
}

/// The outside end of a port.
#[derive(Clone, Debug)]
pub struct Wire {
    shared: Arc<Shared>,
}

/// A frame in one of the port's buffers, which goes back to the pool when the frame is dropped.
#[derive(Debug)]
pub struct Frame {
    /// There until the frame is dropped.
    room: Option<Room>,
    len: usize,
    checksum: ReceivedChecksum,
    offload: Option<Task>,
    pool: Arc<Pool>,
}

/// What is left to the NIC.
#[derive(Clone, Copy, Debug)]
struct Task {
    ip_header_len: usize,
    /// Bytes of data a segment, where they are to be cut.
    payload: Option<u16>,
}

type Room = Box<[u8]>;

/// Rooms of dropped frames that are not long, for the next ones. A thread keeps [`ROOMS_KEPT`] of its own and exchanges whole stacks of them with the others, as DPDK's pools
/// do: buffers that one thread fills and another one empties cost no allocation.
static ROOMS: LazyLock<ArrayQueue<Vec<Room>>> = LazyLock::new(|| ArrayQueue::new(ROOMS_STACKS));
const ROOMS_KEPT: usize = 64;
const ROOMS_STACKS: usize = 256;

thread_local! {
    static OWN_ROOMS: RefCell<Vec<Room>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Shared {
    info: PortInfo,
    receive: Vec<ArrayQueue<Frame>>,
    transmit: ArrayQueue<Frame>,
    pool: Arc<Pool>,
}

/// On cache lines of its own: a lane may have a pool to itself, and is then to have its counts to itself.
#[derive(Debug)]
#[repr(align(64))]
struct Pool {
    in_use: AtomicUsize,
    capacity: usize,
    /// Bytes of a buffer.
    room: usize,
}

impl Pool {
    fn take(self: &Arc<Self>) -> Option<Frame> {
        let more = |in_use| (in_use < self.capacity).then_some(in_use + 1);
        self.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Frame {
            room: Some(take_room(self.room)),
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

fn take_room(len: usize) -> Room {
    if len != FRAME_MAX {
        return vec![0; len].into();
    }
    let kept = OWN_ROOMS.try_with(|own| {
        let mut own = own.borrow_mut();
        if own.is_empty()
            && let Some(more) = ROOMS.pop()
        {
            *own = more;
        }
        own.pop()
    });
    kept.ok().flatten().unwrap_or_else(|| vec![0; FRAME_MAX].into())
}

fn keep_room(room: Room) {
    if room.len() != FRAME_MAX {
        return;
    }
    // A thread that ends has nowhere to keep it, and a full store lets it go.
    let _ended = OWN_ROOMS.try_with(|own| {
        let mut own = own.borrow_mut();
        own.push(room);
        if own.len() >= 2 * ROOMS_KEPT {
            let _full = ROOMS.push(own.split_off(ROOMS_KEPT));
        }
    });
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.pool.in_use.fetch_sub(1, Ordering::Relaxed);
        if let Some(room) = self.room.take() {
            keep_room(room);
        }
    }
}

impl Wire {
    /// Delivers a frame to one lane's receive queue. `false` when the queue or the buffer pool is full, there is no such
    /// queue or the frame is too long: then it is lost.
    pub fn push(&self, bytes: &[u8], queue: usize) -> bool {
        let Some(queue) = self.shared.receive.get(queue) else { return false };
        let Some(mut frame) = self.shared.pool.take() else { return false };
        let Some(room) = super::Frame::room(&mut frame).get_mut(..bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        frame.len = bytes.len();
        if self.shared.info.offload.receive_checksum {
            frame.checksum = verdict(bytes);
        }
        queue.push(frame).is_ok()
    }

    /// Takes the oldest frame that a lane transmitted.
    pub fn pop(&self) -> Option<Vec<u8>> {
        self.pop_with(<[u8]>::to_vec)
    }

    /// Takes the oldest frame that a lane transmitted and shows it to `see`.
    pub fn pop_with<R>(&self, see: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let mut frame = self.shared.transmit.pop()?;
        frame.finish_checksums();
        Some(see(super::Frame::bytes(&frame)))
    }

    /// Occupancy of the buffer pool. Frames that wait on the wire's side count.
    pub fn buffers(&self) -> Buffers {
        self.shared.pool.buffers()
    }
}

impl Queue {
    /// Puts a frame on the wire, or what it is to be cut into; how many frames there was no room for.
    fn send(&self, mut frame: Frame) -> usize {
        let payload = frame.offload.and_then(|task| task.payload);
        let Some(parts) = payload.and_then(|payload| frame.cut(payload.into())) else {
            return usize::from(self.shared.transmit.push(frame).is_err());
        };
        frame.offload = None;
        parts.into_iter().filter(|part| !self.send_part(part)).count()
    }

    fn send_part(&self, part: &[u8]) -> bool {
        let Some(mut frame) = self.shared.pool.take() else { return false };
        let Some(room) = super::Frame::room(&mut frame).get_mut(..part.len()) else { return false };
        room.copy_from_slice(part);
        frame.len = part.len();
        self.shared.transmit.push(frame).is_ok()
    }
}

impl QueuePair for Queue {
    type Frame = Frame;

    fn port(&self) -> &PortInfo {
        &self.shared.info
    }

    fn receive(&mut self, into: &mut Vec<Frame>) -> usize {
        let Some(queue) = self.shared.receive.get(self.lane) else { return 0 };
        into.extend(std::iter::from_fn(|| queue.pop()).take(BURST));
        0
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.shared.pool.take()
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        frames.drain(..).map(|frame| self.send(frame)).sum()
    }

    fn take_kernel(&mut self) -> Option<KernelQueue<Self>> {
        self.kernel.take().map(|kernel| *kernel)
    }

    fn buffers(&self) -> Option<Buffers> {
        Some(self.shared.pool.buffers())
    }
}

impl super::Frame for Frame {
    fn bytes(&self) -> &[u8] {
        self.room.as_ref().and_then(|room| room.get(..self.len)).unwrap_or_default()
    }

    fn room(&mut self) -> &mut [u8] {
        self.room.as_deref_mut().unwrap_or_default()
    }

    fn set_len(&mut self, len: usize) {
        assert!(len <= self.pool.room, "{len} bytes do not fit the room");
        self.len = len;
    }

    fn received_checksum(&self) -> ReceivedChecksum {
        self.checksum
    }

    fn offload_checksum(&mut self, ip_header_len: usize, _ipv6: bool) {
        self.offload = Some(Task { ip_header_len, payload: None });
    }

    fn offload_segmentation(&mut self, ip_header_len: usize, _ipv6: bool, payload: u16) {
        self.offload = Some(Task { ip_header_len, payload: Some(payload) });
    }
}

impl Frame {
    /// The frames that it becomes when its data is cut into segments of `size` bytes; `None` when it is one segment.
    fn cut(&self, size: usize) -> Option<Vec<Vec<u8>>> {
        let bytes = super::Frame::bytes(self);
        let headers = Headers::of(bytes)?;
        let (copy, data) = bytes.split_at_checked(headers.len)?;
        let count = data.len().div_ceil(size);
        let part = |(number, piece): (usize, &[u8])| {
            let mut frame = copy.to_vec();
            headers.write(&mut frame, Part { offset: number * size, len: piece.len(), is_last: number + 1 == count });
            frame.extend(piece);
            fill_checksum(&mut frame);
            frame
        };
        (count > 1).then(|| data.chunks(size).enumerate().map(part).collect())
    }

    /// Does what a NIC does on transmission: completes the IPv4 header's checksum and TCP's, whose field holds the pseudo
    /// header's sum.
    fn finish_checksums(&mut self) {
        let Some(Task { ip_header_len, .. }) = self.offload.take() else { return };
        let len = self.len;
        let Some(packet) = super::Frame::room(self).get_mut(ETHERNET_LEN..len) else { return };
        if packet.first().is_some_and(|byte| byte >> 4 == 4) {
            if let Ok(mut ipv4) = Ipv4Packet::new_checked(&mut *packet) {
                ipv4.fill_checksum();
            }
        }
        let Some(segment) = packet.get_mut(ip_header_len..) else { return };
        let sum = !ones_complement_sum(segment);
        if let Some(field) = segment.get_mut(16..18) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// Computes a part's TCP checksum, whose field holds the sum of the whole's pseudo header.
fn fill_checksum(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(ETHERNET_LEN..) else { return };
    if packet.first().is_some_and(|byte| byte >> 4 == 4) {
        let Ok(mut ip) = Ipv4Packet::new_checked(packet) else { return };
        let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
        TcpPacket::new_unchecked(ip.payload_mut()).fill_checksum(&source, &destination);
    } else if let Ok(mut ip) = Ipv6Packet::new_checked(packet) {
        let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
        TcpPacket::new_unchecked(ip.payload_mut()).fill_checksum(&source, &destination);
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
            (ipv4.verify_checksum(), ipv4.next_header(), ipv4.src_addr().into(), ipv4.dst_addr().into(), ipv4.payload())
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

#[cfg(test)]
mod tests {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{IpAddress, Ipv4Repr, TcpControl, TcpRepr, TcpSeqNumber};

    use super::*;
    use crate::nic::Frame as _;

    const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);

    fn settings() -> Settings {
        Settings { buffers: 8, queue_len: 4, ..Settings::new(2, MAC, 1500) }
    }

    /// A TCP segment over IPv4. Without `filled`, as a stack leaves it to the NIC.
    fn segment(filled: bool) -> Vec<u8> {
        let (source, destination) = ([198, 18, 0, 1].into(), [198, 18, 0, 2].into());
        let tcp = TcpRepr {
            src_port: 443,
            dst_port: 50_000,
            control: TcpControl::Psh,
            seq_number: TcpSeqNumber(7),
            ack_number: Some(TcpSeqNumber(8)),
            window_len: 1000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: b"odd",
        };
        let ipv4 = Ipv4Repr {
            src_addr: source,
            dst_addr: destination,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let mut frame = vec![0; 34 + tcp.buffer_len()];
        frame[12..14].copy_from_slice(&[8, 0]);
        let all = ChecksumCapabilities::default();
        let none = ChecksumCapabilities::ignored();
        ipv4.emit(&mut Ipv4Packet::new_unchecked(&mut frame[14..]), if filled { &all } else { &none });
        let (source, destination) = (IpAddress::from(source), IpAddress::from(destination));
        let mut view = TcpPacket::new_unchecked(&mut frame[34..]);
        tcp.emit(&mut view, &source, &destination, if filled { &all } else { &none });
        if !filled {
            let pseudo = [198, 18, 0, 1, 198, 18, 0, 2, 0, 6, 0, u8::try_from(tcp.buffer_len()).unwrap()];
            view.set_checksum(ones_complement_sum(&pseudo));
        }
        frame
    }

    #[test]
    fn a_frame_reaches_the_queue_it_was_pushed_to_and_no_other() {
        let (mut queues, wire) = port(2, MAC, 1500);
        assert!(wire.push(&[1; 60], 1));
        assert!(!wire.push(&[1; 60], 2), "there is no such queue");
        let mut frames = Vec::new();
        queues[0].receive(&mut frames);
        assert!(frames.is_empty());
        queues[1].receive(&mut frames);
        assert_eq!(frames[0].bytes(), [1; 60]);
        assert_eq!(frames[0].received_checksum(), ReceivedChecksum::Unknown);
    }

    #[test]
    fn a_full_receive_queue_refuses_and_a_burst_is_bounded() {
        let (_queues, wire) = settings().port();
        for _ in 0..4 {
            assert!(wire.push(&[0; 60], 0));
        }
        assert!(!wire.push(&[0; 60], 0));
        assert!(wire.push(&[0; 60], 1), "the other lane's queue has room");
        assert!(!wire.push(&[0; FRAME_MAX + 1], 1), "longer than any frame");
        assert_eq!(wire.buffers(), Buffers { in_use: 5, capacity: 8 }, "what was refused holds no buffer");

        let (mut queues, wire) = port(1, MAC, 1500);
        for _ in 0..=BURST {
            assert!(wire.push(&[0; 60], 0));
        }
        let mut frames = Vec::new();
        queues[0].receive(&mut frames);
        assert_eq!(frames.len(), BURST);
    }

    #[test]
    fn an_exhausted_pool_gives_nothing_until_a_frame_is_dropped() {
        let (mut queues, wire) = settings().port();
        let mut held: Vec<_> = std::iter::from_fn(|| queues[0].allocate()).collect();
        assert_eq!(held.len(), 8);
        assert!(queues[1].allocate().is_none() && !wire.push(&[0; 60], 1));
        held.pop();
        assert!(wire.push(&[0; 60], 1));
        held.clear();
        queues[1].receive(&mut held);
        held.clear();
        assert_eq!(queues[0].buffers(), Some(Buffers { in_use: 0, capacity: 8 }));
    }

    #[test]
    fn transmitted_frames_leave_in_order_and_a_full_queue_says_how_many_it_lost() {
        let (mut queues, wire) = settings().port();
        for (lane, marks) in [(0, 0..3u8), (1, 3..6)] {
            let mut frames = Vec::new();
            for mark in marks {
                let mut frame = queues[lane].allocate().unwrap();
                frame.room()[..2].copy_from_slice(&[mark, mark]);
                frame.set_len(2);
                frames.push(frame);
            }
            assert_eq!(queues[lane].transmit(&mut frames), if lane == 0 { 0 } else { 2 });
            assert!(frames.is_empty());
        }
        for mark in 0..4u8 {
            assert_eq!(wire.pop(), Some(vec![mark, mark]));
        }
        assert_eq!(wire.pop(), None);
        assert_eq!(wire.buffers().in_use, 0);
    }

    #[test]
    fn offload_completes_checksums_as_software_would_have() {
        let (mut queues, wire) = port(1, MAC, 1500);
        let mut frame = queues[0].allocate().unwrap();
        let unfinished = segment(false);
        frame.room()[..unfinished.len()].copy_from_slice(&unfinished);
        frame.set_len(unfinished.len());
        frame.offload_checksum(20, false);
        queues[0].transmit(&mut vec![frame]);
        assert_ne!(unfinished, segment(true));
        assert_eq!(wire.pop(), Some(segment(true)));
    }

    #[test]
    fn receive_offload_tells_right_from_wrong_from_unknown() {
        let offload = Offload { receive_checksum: true, ..Offload::default() };
        let (mut queues, wire) = Settings { offload, ..settings() }.port();
        let good = segment(true);
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        let mut bad_header = good.clone();
        bad_header[22] ^= 1;
        for frame in [&good[..], &bad, &bad_header, &good[..40]] {
            assert!(wire.push(frame, 0));
        }
        let mut frames = Vec::new();
        queues[0].receive(&mut frames);
        let verdicts: Vec<_> = frames.iter().map(|frame| frame.received_checksum()).collect();
        use ReceivedChecksum::{Bad, Good, Unknown};
        assert_eq!(verdicts, [Good, Bad, Bad, Unknown]);
    }

    #[test]
    fn frames_cross_threads_and_all_buffers_come_back() {
        let (mut queues, wire) = settings().port();
        let mut queue = queues.remove(1);
        let echo = std::thread::spawn(move || {
            let (mut echoed, mut frames) = (0, Vec::new());
            while echoed < 1000 {
                queue.receive(&mut frames);
                echoed += frames.len() - queue.transmit(&mut frames);
            }
        });
        let (mut pushed, mut popped) = (0u32, 0);
        while popped < 1000 {
            // Never more under way than a queue holds, so none is lost.
            if pushed < 1000 && pushed - popped < 4 && wire.push(&pushed.to_be_bytes(), 1) {
                pushed += 1;
            }
            if let Some(frame) = wire.pop() {
                assert_eq!(frame, popped.to_be_bytes());
                popped += 1;
            }
        }
        echo.join().unwrap();
        assert_eq!(wire.buffers().in_use, 0);
    }
}
