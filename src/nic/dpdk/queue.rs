//! One lane's queue pair on a port, and the buffers that pass through it.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use capsule_ffi as ffi;
use smoltcp::wire::Ipv4Packet;

use super::engine::Shared;
use crate::nic::kernel::KernelQueue;
use crate::nic::long::{HEADERS_MAX, Headers, Part};
use crate::nic::{BURST, Buffers, Frame, LONG_FRAME_MAX, PortInfo, QueuePair, ReceivedChecksum, vlan};

/// A mempool that capsule made, one a NUMA node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool(NonNull<ffi::rte_mempool>);

// SAFETY: DPDK's mempools are made for many threads: the ring is multi-producer and multi-consumer (capsule asks for no other), and the caches
// belong to one lcore each. The pool outlives every user, see `Engine::run`.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// All pools that capsule made; it numbers their names.
    pub(super) fn all() -> Vec<Self> {
        (0..)
            .map_while(|number| {
                let name = std::ffi::CString::new(format!("mempool{number}")).ok()?;
                // SAFETY: the EAL is up, and the name is a C string.
                NonNull::new(unsafe { ffi::rte_mempool_lookup(name.as_ptr()) }).map(Self)
            })
            .collect()
    }

    /// The NUMA node of its memory.
    pub(super) fn node(self) -> i32 {
        // SAFETY: the pool lives, and nobody writes the field after creation.
        unsafe { (*self.0.as_ptr()).socket_id }
    }

    /// How full all pools are together.
    pub(super) fn fill(pools: &[Self]) -> Buffers {
        let mut buffers = Buffers { in_use: 0, capacity: 0 };
        for pool in pools {
            // SAFETY: the pool lives; the count may lag behind other lanes, which is all that is promised.
            buffers.in_use += unsafe { ffi::rte_mempool_in_use_count(pool.0.as_ptr()) } as usize;
            // SAFETY: the pool lives, and nobody writes the field after creation.
            buffers.capacity += unsafe { (*pool.0.as_ptr()).size } as usize;
        }
        buffers
    }
}

/// One lane's receive and transmit queue on one port.
#[derive(Debug)]
pub struct Queue {
    port: u16,
    queue: u16,
    info: PortInfo,
    /// What the port does for frames that leave, as `RTE_MBUF_F_TX_*`.
    able: u64,
    /// Frames of a burst that had longer ones than a buffer in it: those of [`BURST`] mbufs at most, of 64 KiB each.
    parted: VecDeque<Buffer>,
    pool: Pool,
    pools: Arc<[Pool]>,
    shared: Arc<Shared>,
    /// The way to the kernel's interface beside the port, until it is taken.
    kernel: Option<Box<KernelQueue<Queue>>>,
    /// A queue belongs to the thread of its lane: DPDK's queues are not locked.
    _pinned: PhantomData<*mut ()>,
}

/// What it takes to make a [`Queue`] on its lane's thread.
#[derive(Clone, Debug)]
pub(super) struct Seed {
    pub(super) port: u16,
    pub(super) queue: u16,
    pub(super) info: PortInfo,
    pub(super) able: u64,
    pub(super) is_jumbo_tap: bool,
    pub(super) pool: Pool,
    pub(super) pools: Arc<[Pool]>,
    pub(super) shared: Arc<Shared>,
    /// The same for the kernel's interface beside the port.
    pub(super) kernel: Option<Box<KernelSeed>>,
}

/// What it takes to make a [`KernelQueue`].
#[derive(Clone, Debug)]
pub(super) struct KernelSeed {
    pub(super) seed: Seed,
    /// Frames a second of this lane, each way.
    pub(super) rate: u32,
}

impl Seed {
    /// The queue, on the thread that will drive it. At most one is made of each port and queue number.
    pub(super) fn plant(self) -> Queue {
        self.shared.queue_made();
        let Self { port, queue, info, able, is_jumbo_tap: _, pool, pools, shared, kernel } = self;
        let kernel = kernel.map(|kernel| Box::new(KernelQueue::new(kernel.seed.plant(), kernel.rate)));
        Queue { port, queue, info, able, parted: VecDeque::new(), pool, pools, shared, kernel, _pinned: PhantomData }
    }

    /// Takes what waits in the receive queue and frees it, so that it is not left in a queue that closes. Gives up after 4,096 frames: a busy
    /// wire never runs dry.
    pub(super) fn drain(mut self) {
        if let Some(kernel) = self.kernel.take() {
            kernel.seed.drain();
        }
        let mut queue = self.plant();
        let mut frames = Vec::with_capacity(BURST);
        for _ in 0..4096 / BURST {
            queue.receive(&mut frames);
            if frames.is_empty() {
                break;
            }
            frames.clear();
        }
    }
}

impl Queue {
    /// What waits in the receive queue, in chains of mbufs where it is longer than one.
    fn receive_burst(&mut self, into: &mut Vec<Buffer>) {
        into.reserve(BURST);
        let room = into.spare_capacity_mut().as_mut_ptr().cast::<*mut ffi::rte_mbuf>();
        // SAFETY: `room` has place for BURST pointers, and a `Buffer` is such a pointer (repr(transparent)). This thread alone uses the queue.
        let received = unsafe { ffi::_rte_eth_rx_burst(self.port, self.queue, room, BURST_U16) };
        let len = into.len() + usize::from(received);
        // SAFETY: DPDK has written so many pointers to mbufs, which are ours now.
        unsafe { into.set_len(len) };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.queue_dropped();
    }
}

/// EtherType of IPv6 (RFC 2464 3), as a frame has it. An IPv6 header has no checksum.
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;

/// Whether a frame's IP header is right as far as a checksum can tell.
fn has_right_ip_header(frame: &[u8]) -> bool {
    if frame.get(12..ETHERNET_HEADER) == Some(&ETHERTYPE_IPV6) {
        return true;
    }
    let Some(packet) = frame.get(ETHERNET_HEADER..).filter(|packet| packet.len() >= 20) else { return false };
    // The rest of a long packet may lie in other buffers, so only the header must be here.
    let header_len = usize::from(Ipv4Packet::new_unchecked(packet).header_len());
    let header = packet.get(..header_len).filter(|header| header.len() >= 20);
    header.is_some_and(|header| Ipv4Packet::new_unchecked(header).verify_checksum())
}

/// Takes the tags out of the frames behind the first `before`, drops those of them that are not of this VLAN and says how many that were.
fn untag(frames: &mut Vec<Buffer>, before: usize, vlan: u16) -> usize {
    let (all, mut at) = (frames.len(), 0);
    frames.retain_mut(|frame| {
        at += 1;
        at <= before || frame.untag(vlan)
    });
    all - frames.len()
}

/// Puts a tag into each frame; drops those whose buffer has no room for it in front, and says how many.
fn tag(frames: &mut Vec<Buffer>, vlan: u16) -> usize {
    let all = frames.len();
    frames.retain_mut(|frame| frame.tag(vlan));
    all - frames.len()
}

/// Least room that drivers leave in front of what they receive: 128 bytes, of which net_virtio takes 12 for its own header.
const HEADROOM_MIN: usize = 116;

/// As an argument of DPDK.
const BURST_U16: u16 = 32;
const _: () = assert!(BURST_U16 as usize == BURST);
const _: () = assert!(ffi::LONG_FRAME_ROOM as usize == LONG_FRAME_MAX);
const TAG_LEN: u8 = 4;
const _: () = assert!(TAG_LEN as usize == vlan::TAG_LEN);

impl QueuePair for Queue {
    type Frame = Buffer;

    fn port(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, into: &mut Vec<Buffer>) -> usize {
        let mut of_other_vlans = 0;
        if self.parted.is_empty() {
            let before = into.len();
            self.receive_burst(into);
            if let Some(vlan) = self.info.vlan {
                of_other_vlans = untag(into, before, vlan);
            }
            let mut burst = into.get(before..).unwrap_or_default().iter();
            if burst.all(|frame| !frame.is_chained()) {
                return of_other_vlans;
            }
            into.drain(before..).for_each(|frame| frame.part(&mut self.parted));
        }
        let count = self.parted.len().min(BURST);
        into.extend(self.parted.drain(..count));
        of_other_vlans
    }

    fn allocate(&mut self) -> Option<Buffer> {
        // SAFETY: the pool lives while queues do.
        NonNull::new(unsafe { ffi::_rte_pktmbuf_alloc(self.pool.0.as_ptr()) }).map(Buffer)
    }

    fn transmit(&mut self, frames: &mut Vec<Buffer>) -> usize {
        let mut refused = self.info.vlan.map_or(0, |vlan| tag(frames, vlan));
        for burst in frames.chunks_mut(usize::from(u16::MAX)) {
            let count = u16::try_from(burst.len()).unwrap_or(u16::MAX);
            let mbufs = burst.as_mut_ptr().cast::<*mut ffi::rte_mbuf>();
            // SAFETY: `mbufs` are `count` mbufs that we own, of one segment each, and give away. This thread alone uses the queue.
            refused += usize::from(unsafe { ffi::sealane_transmit(self.port, self.queue, mbufs, count, self.able) });
        }
        // SAFETY: DPDK has taken all of them; they must not be dropped again.
        unsafe { frames.set_len(0) };
        refused
    }

    fn take_kernel(&mut self) -> Option<KernelQueue<Self>> {
        self.kernel.take().map(|kernel| *kernel)
    }

    fn buffers(&self) -> Option<Buffers> {
        Some(Pool::fill(&self.pools))
    }
}

/// A DPDK packet buffer with one frame: an mbuf of a single segment, with nobody else referring to it. Only between [`Queue::receive_burst`] and
/// [`Buffer::part`] it may be the first of a chain.
#[repr(transparent)]
#[derive(Debug)]
pub struct Buffer(NonNull<ffi::rte_mbuf>);

// SAFETY: the mbuf has one owner, this value, and nothing in it belongs to a thread. Freed on another lane it goes to that lane's cache of the
// mempool, freed on a thread that is no lcore to the pool's ring, which takes many producers. `Engine::run` does not free a pool of which a
// buffer is still out, so this holds on a thread that outlives the engine too.
unsafe impl Send for Buffer {}

impl Buffer {
    fn mbuf(&self) -> &ffi::rte_mbuf {
        // SAFETY: the mbuf is ours and alive, see the type.
        unsafe { self.0.as_ref() }
    }

    fn mbuf_mut(&mut self) -> &mut ffi::rte_mbuf {
        // SAFETY: the mbuf is ours alone and alive, see the type.
        unsafe { self.0.as_mut() }
    }

    /// Whether the frame goes on in other mbufs.
    fn is_chained(&self) -> bool {
        self.mbuf().nb_segs > 1
    }

    /// Makes a frame of each mbuf of a chain: headers go in front of what has none. What cannot be parted is cut to its first mbuf, which is then shorter than its
    /// IP header says, so whoever parses it refuses and counts it.
    fn part(mut self, into: &mut VecDeque<Self>) {
        let mut rest = self.unchain();
        // Software could not prove the checksum of a part.
        let is_proven = self.received_checksum() == ReceivedChecksum::Good;
        let parsed = Headers::of(self.bytes()).filter(|headers| is_proven && headers.len <= HEADROOM_MIN);
        let mut copy = [0; HEADERS_MAX];
        let copy = parsed.and_then(|headers| copy.get_mut(..headers.len));
        let (Some(headers), Some(copy)) = (parsed, copy) else { return into.push_back(self) };
        copy.copy_from_slice(self.bytes().get(..headers.len).unwrap_or_default());
        let mut offset = self.bytes().len() - headers.len;
        headers.write(self.room(), Part { offset: 0, len: offset, is_last: rest.is_none() });
        into.push_back(self);
        while let Some(mut part) = rest {
            rest = part.unchain();
            let len = part.bytes().len();
            let Some(room) = part.prepend(headers.len) else { return };
            room.copy_from_slice(copy);
            headers.write(room, Part { offset, len, is_last: rest.is_none() });
            into.push_back(part);
            offset += len;
        }
    }

    /// Makes the frame begin so many bytes earlier, if the memory does, and gives these.
    fn prepend(&mut self, len: usize) -> Option<&mut [u8]> {
        let len = u16::try_from(len).ok()?;
        let mbuf = self.mbuf_mut();
        mbuf.data_off = mbuf.data_off.checked_sub(len)?;
        mbuf.data_len += len;
        mbuf.pkt_len = u32::from(mbuf.data_len);
        self.room().get_mut(..usize::from(len))
    }

    /// Takes the tag out; false if there is none of this VLAN. The frame may be the first of a chain.
    fn untag(&mut self, vlan: u16) -> bool {
        if vlan::vlan_of(self.bytes()) != Some(vlan) {
            return false;
        }
        vlan::close(self.room());
        let mbuf = self.mbuf_mut();
        // A frame with a tag is longer than the tag.
        mbuf.data_off += u16::from(TAG_LEN);
        mbuf.data_len -= u16::from(TAG_LEN);
        mbuf.pkt_len -= u32::from(TAG_LEN);
        true
    }

    /// Puts a tag in; false if there is no room for it in front of the frame.
    fn tag(&mut self, vlan: u16) -> bool {
        if self.prepend(vlan::TAG_LEN).is_none() {
            return false;
        }
        vlan::open(self.room(), vlan);
        // SAFETY: the mbuf is ours.
        unsafe { ffi::sealane_lengthen_l2(self.0.as_ptr(), TAG_LEN) };
        true
    }

    /// Takes the rest of the chain off.
    fn unchain(&mut self) -> Option<Self> {
        // SAFETY: the chain is ours, and its rest becomes a chain of its own.
        NonNull::new(unsafe { ffi::sealane_unchain(self.0.as_ptr()) }).map(Self)
    }

    fn start(&self) -> *mut u8 {
        let mbuf = self.mbuf();
        // SAFETY: the data begins inside the mbuf's memory, as drivers and the allocator set it up.
        unsafe { mbuf.buf_addr.cast::<u8>().add(usize::from(mbuf.data_off)) }
    }

    /// Bytes from the frame's beginning to the memory's end.
    fn room_len(&self) -> usize {
        let mbuf = self.mbuf();
        usize::from(mbuf.buf_len.saturating_sub(mbuf.data_off))
    }
}

impl Frame for Buffer {
    fn bytes(&self) -> &[u8] {
        let len = usize::from(self.mbuf().data_len).min(self.room_len());
        // SAFETY: the first `len` bytes of the room belong to this mbuf, and DPDK's memory is zeroed when it is mapped.
        unsafe { slice::from_raw_parts(self.start(), len) }
    }

    fn room(&mut self) -> &mut [u8] {
        let len = self.room_len();
        // SAFETY: as in `bytes`, and `&mut self` makes us the only one.
        unsafe { slice::from_raw_parts_mut(self.start(), len) }
    }

    fn set_len(&mut self, len: usize) {
        assert!(len <= self.room_len(), "a frame of {len} bytes does not fit its buffer");
        let mbuf = self.mbuf_mut();
        // The room is as long as a u16 can say, so this never saturates.
        mbuf.data_len = u16::try_from(len).unwrap_or(u16::MAX);
        // `rx_descriptor_fields1` overlays it, so bindgen puts it into a union.
        mbuf.pkt_len = u32::from(mbuf.data_len);
    }

    fn received_checksum(&self) -> ReceivedChecksum {
        let flags = self.mbuf().ol_flags;
        let ip = flags & ffi::SEALANE_F_RX_IP_CKSUM_MASK;
        let transport = flags & ffi::SEALANE_F_RX_L4_CKSUM_MASK;
        if ip == ffi::SEALANE_F_RX_IP_CKSUM_BAD || transport == ffi::SEALANE_F_RX_L4_CKSUM_BAD {
            return ReceivedChecksum::Bad;
        }
        if transport == ffi::SEALANE_F_RX_L4_CKSUM_UNKNOWN {
            return ReceivedChecksum::Unknown;
        }
        // The transport's is GOOD, or NONE: the data is intact though the field is not filled in, as between virtual machines. Virtio says nothing of the
        // IPv4 header, and its 20 bytes are summed here: software that looked at the whole packet would refuse a field that is not filled in.
        let is_right = ip != ffi::SEALANE_F_RX_IP_CKSUM_UNKNOWN || has_right_ip_header(self.bytes());
        if is_right { ReceivedChecksum::Good } else { ReceivedChecksum::Bad }
    }

    fn finish_received(&mut self) {
        // SAFETY: the mbuf is ours; the function reads and writes inside its one segment.
        unsafe { ffi::sealane_finish_received(self.0.as_ptr()) };
    }

    fn offload_checksum(&mut self, ip_header_len: usize, ipv6: bool) {
        // A longer header is longer than the frame; the device would be told nonsense.
        let ip_header_len = u16::try_from(ip_header_len).unwrap_or(u16::MAX);
        assert!(usize::from(ip_header_len) < self.bytes().len(), "the IP header is longer than the frame");
        // SAFETY: the mbuf is ours, and its headers are inside the frame.
        unsafe { ffi::sealane_offload_checksum(self.0.as_ptr(), ip_header_len, ipv6) };
    }

    fn offload_segmentation(&mut self, ip_header_len: usize, ipv6: bool, payload: u16) {
        let ip_header_len = u16::try_from(ip_header_len).unwrap_or(u16::MAX);
        assert!(usize::from(ip_header_len) < self.bytes().len(), "the IP header is longer than the frame");
        // SAFETY: as above.
        unsafe { ffi::sealane_offload_segmentation(self.0.as_ptr(), ip_header_len, ipv6, payload) };
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: we own the mbuf, and its pool lives while buffers do.
        unsafe { ffi::_rte_pktmbuf_free(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_header_is_right_with_its_checksum_only() {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        // RFC 1071, by hand: 4500 + 0014 + 4006 + c612 + 0001 + c612 + 0002 = 2 1141, 1143, its complement eebc.
        frame.extend([0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0xee, 0xbc, 198, 18, 0, 1, 198, 18, 0, 2]);
        assert!(has_right_ip_header(&frame));
        frame[33] = 3;
        assert!(!has_right_ip_header(&frame));
        assert!(!has_right_ip_header(&frame[..30]));
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV6);
        assert!(has_right_ip_header(&frame));
    }
}
