//! Frames in, frames out. A lane owns one [`QueuePair`] on every port; nobody else touches it.
//!
//! Drive it so, once a breath: [`receive`](QueuePair::receive) a burst, work, [`allocate`](QueuePair::allocate) and fill frames,
//! [`transmit`](QueuePair::transmit) them. `dpdk` is the real NIC, `memory` a pair of ends for tests and simulation.

use smoltcp::wire::EthernetAddress;

#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod kernel;
pub mod long;
pub mod memory;
pub mod pcap;
pub mod pcapng;
pub mod report;
pub mod rss;
pub mod vlan;

pub use report::{Counts, Report, Reports};

/// The most frames one [`QueuePair::receive`] gives.
pub const BURST: usize = 32;

/// The longest packet that a port carries unless it is told of more.
pub const ETHERNET_MTU: usize = 1500;

/// The longest packet that a port may be told to carry: the longest jumbo frames that NICs and switches agree upon.
pub const MTU_MAX: usize = 9216;

/// The longest frame of a port with [`ETHERNET_MTU`], its Ethernet header included.
pub const FRAME_MAX: usize = 1514;

/// The longest frame that a port with [`Offload::segmentation`] is given to cut, and the room of its buffers and of those of a port with a longer MTU than
/// [`ETHERNET_MTU`].
pub const LONG_FRAME_MAX: usize = 16 * 1024;

/// MiB of hugepages that an engine with so many packet buffers needs; `long`: with room for [`LONG_FRAME_MAX`] bytes each.
#[must_use]
pub fn memory_mib(buffers: usize, long: bool) -> usize {
    // A buffer's header takes 128 bytes, its headroom 128, and the pool's bookkeeping about 200 more; queues and the EAL fit in the rest.
    const BESIDE_BYTES: usize = 512;
    const SHORT_BYTES: usize = 2_048;
    const REST_MIB: usize = 64;
    let bytes = BESIDE_BYTES + if long { LONG_FRAME_MAX } else { SHORT_BYTES };
    REST_MIB + (buffers * bytes).div_ceil(1 << 20)
}

/// One lane's receive and transmit queue on one port.
pub trait QueuePair {
    /// The buffer that holds a frame.
    type Frame: Frame;

    /// What the port is and can do.
    fn port(&self) -> &PortInfo;

    /// Appends at most [`BURST`] received frames, without their tags. Gives back how many it dropped because they were not of the port's VLAN.
    fn receive(&mut self, into: &mut Vec<Self::Frame>) -> usize;

    /// An empty frame with room for [`FRAME_MAX`] bytes, for [`LONG_FRAME_MAX`] with [`Offload::segmentation`] or a long MTU; `None` when the buffer pool is exhausted.
    fn allocate(&mut self) -> Option<Self::Frame>;

    /// Sends the frames in order, tagged where the port is in a VLAN, and empties `frames`. Gives back how many the queue had no room for; these are dropped.
    fn transmit(&mut self, frames: &mut Vec<Self::Frame>) -> usize;

    /// The way to the interface of the host's kernel that stands beside this port, where there is one. It is given once.
    fn take_kernel(&mut self) -> Option<kernel::KernelQueue<Self>>
    where
        Self: Sized,
    {
        None
    }

    /// How full the buffer pool is that all lanes share; `None` when buffers come from no bounded pool. It walks every core's cache: ask a few
    /// times a second, not every breath.
    fn buffers(&self) -> Option<Buffers>;
}

/// How many packet buffers there are, of all lanes and ports together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Held by lanes, or waiting in receive and transmit queues.
    pub in_use: usize,
    /// All there are.
    pub capacity: usize,
}

/// A buffer with one Ethernet frame. It may move to another lane.
pub trait Frame: Send + 'static {
    /// The frame's bytes.
    fn bytes(&self) -> &[u8];

    /// The whole room of the buffer, [`FRAME_MAX`] bytes or more, whatever the frame's length.
    fn room(&mut self) -> &mut [u8];

    /// Makes the first `len` bytes of the room the frame.
    ///
    /// # Panics
    /// When `len` is longer than the room.
    fn set_len(&mut self, len: usize);

    /// What the NIC found when it verified checksums on receipt: the transport's and, in IPv4, the IP header's.
    fn received_checksum(&self) -> ReceivedChecksum;

    /// Fills in the transport's checksum of a received frame that came without it, as between virtual machines, for whoever looks at it behind us.
    fn finish_received(&mut self) {}

    /// Leaves the IPv4 header's and TCP's checksum to the NIC, which [`Offload::transmit_checksum`] says it can. Call it when the frame is complete
    /// and its length set; the TCP checksum field already holds the pseudo header's sum, and `ip_header_len` counts extension headers in.
    fn offload_checksum(&mut self, ip_header_len: usize, ipv6: bool);

    /// Leaves to the NIC what [`offload_checksum`](Self::offload_checksum) does, and to cut TCP's data into segments of `payload` bytes, which
    /// [`Offload::segmentation`] says it can.
    fn offload_segmentation(&mut self, ip_header_len: usize, ipv6: bool, payload: u16);
}

/// A NIC's verdict on the checksums of a received frame: good when all of them are, bad when one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceivedChecksum {
    /// Not looked at: software must.
    Unknown,
    /// Right.
    Good,
    /// Wrong.
    Bad,
}

/// What a port is.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// Its Ethernet address.
    pub mac: EthernetAddress,
    /// The longest IP packet it carries, in bytes.
    pub mtu: usize,
    /// The VLAN that it is in: frames leave with its tag, and others than such do not arrive.
    pub vlan: Option<u16>,
    /// What it computes by itself.
    pub offload: Offload,
}

/// Work that the NIC does itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Fills in IPv4 header and TCP checksums of sent frames.
    pub transmit_checksum: bool,
    /// Verifies them on received frames.
    pub receive_checksum: bool,
    /// Cuts long TCP segments. Then it computes checksums too.
    pub segmentation: bool,
}
