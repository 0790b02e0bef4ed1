//! One lane's way to the host's kernel beside a port: a queue pair of a device whose other end is an interface of the kernel, rate-limited both ways.
//!
//! What the device is, virtio_user over vhost-net or a tap, is for `nic::dpdk` to choose; a lane sees this type only. Drive it so, once a breath: [`receive`] what
//! the kernel sends, [`give`] it what is not the engine's, and [`flush`].
//!
//! [`receive`]: KernelQueue::receive
//! [`give`]: KernelQueue::give
//! [`flush`]: KernelQueue::flush

use std::sync::Arc;

use super::{BURST, Frame, QueuePair};
use crate::base::{Bucket, Instant};

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;

/// What a frame may have beyond Ethernet header and MTU: an 802.1Q tag.
const TAG: usize = 4;

/// Frames that may come at once after a pause, at least: some bursts of a queue.
const BURST_MIN: u32 = 4 * 32;
const _: () = assert!(BURST == 32);

/// And at most: what waits for the end of a breath.
const BURST_MAX: u32 = 1024;

/// From where a frame comes that the kernel is to have. Each kind has the whole rate: whoever floods from beyond the routers must not end a
/// routing session with one of them, nor the answers to the kernel's ARP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the port's own networks, or not from an IP address at all.
    Neighbour,
    /// From anywhere else.
    Stranger,
}

/// One lane's way to the kernel and back.
#[derive(Debug)]
pub struct KernelQueue<Q: QueuePair> {
    queue: Q,
    incoming: Vec<Q::Frame>,
    outgoing: Vec<Q::Frame>,
    neighbours: Bucket,
    strangers: Bucket,
    back: Bucket,
    counters: Arc<Counters>,
}

impl<Q: QueuePair> KernelQueue<Q> {
    /// The way through `queue`, which belongs to this lane, for at most `rate` frames a second each way.
    pub fn new(queue: Q, rate: u32) -> Self {
        let bucket = Bucket::new(rate, (rate / 10).clamp(BURST_MIN, BURST_MAX));
        Self {
            queue,
            incoming: Vec::with_capacity(BURST),
            outgoing: Vec::with_capacity(BURST),
            neighbours: bucket,
            strangers: bucket,
            back: bucket,
            counters: Arc::default(),
        }
    }

    /// Counts here from now on.
    #[must_use]
    pub fn counted_by(self, counters: Arc<Counters>) -> Self {
        Self { counters, ..self }
    }

    /// Gives the kernel a frame that is not the engine's, as it is, with the next [`flush`](Self::flush); or drops it beyond the rate.
    pub fn give(&mut self, mut frame: Q::Frame, origin: Origin, now: Instant) {
        let (bucket, limited) = match origin {
            Origin::Neighbour => (&mut self.neighbours, &self.counters.neighbours_limited),
            Origin::Stranger => (&mut self.strangers, &self.counters.strangers_limited),
        };
        if !bucket.take(now) {
            return limited.increment();
        }
        frame.finish_received();
        self.outgoing.push(frame);
    }

    /// Hands the kernel what was given; whether there was anything.
    pub fn flush(&mut self) -> bool {
        if self.outgoing.is_empty() {
            return false;
        }
        let given = self.outgoing.len();
        let refused = self.queue.transmit(&mut self.outgoing);
        self.counters.given.add(given.saturating_sub(refused) as u64);
        self.counters.refused.add(refused as u64);
        true
    }

    /// Appends at most [`BURST`] frames that the kernel sends over the port, and drops those beyond the rate or of a length that the port does not carry.
    pub fn receive(&mut self, into: &mut Vec<Q::Frame>, now: Instant) -> bool {
        self.queue.receive(&mut self.incoming);
        let any = !self.incoming.is_empty();
        let lengths = ETHERNET_HEADER..=ETHERNET_HEADER + TAG + self.queue.port().mtu;
        for frame in self.incoming.drain(..) {
            if !lengths.contains(&frame.bytes().len()) {
                self.counters.taken_malformed.increment();
            } else if self.back.take(now) {
                self.counters.taken.increment();
                into.push(frame);
            } else {
                self.counters.taken_limited.increment();
            }
        }
        any
    }
}

crate::counters! {
    /// What a lane exchanges with the kernel's interface beside a port.
    pub struct Counters {
        /// Frames that were not ours and given to the kernel
        counter given,
        /// Frames of neighbours not given to the kernel because of the rate limit
        counter neighbours_limited,
        /// Frames from beyond the port's networks not given to the kernel because of the rate limit
        counter strangers_limited,
        /// Frames that the kernel's interface had no room for, or was not up for
        counter refused,
        /// Frames taken from the kernel and sent over the port
        counter taken,
        /// Frames of the kernel dropped because of the rate limit
        counter taken_limited,
        /// Frames of the kernel dropped because they are shorter than their header or longer than the port carries
        counter taken_malformed,
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::EthernetAddress;

    use super::*;
    use crate::base::Duration;
    use crate::nic::memory::{self, Wire};

    fn way(rate: u32) -> (KernelQueue<memory::Queue>, memory::Queue, Wire, Wire) {
        let mac = EthernetAddress([2, 0, 0, 0, 0, 1]);
        let settings = memory::Settings { queue_len: 4, ..memory::Settings::new(1, mac, 1500) };
        let (mut kernel, kernel_wire) = settings.clone().port();
        let (mut port, wire) = memory::Settings { queue_len: 4096, ..settings }.port();
        (KernelQueue::new(kernel.remove(0), rate), port.remove(0), wire, kernel_wire)
    }

    fn arrive(port: &mut memory::Queue, wire: &Wire, bytes: &[u8]) -> memory::Frame {
        assert!(wire.push(bytes, 0));
        let mut frames = Vec::new();
        port.receive(&mut frames);
        frames.remove(0)
    }

    #[test]
    fn what_is_given_leaves_as_it_is_and_what_finds_no_room_is_counted() {
        let (mut way, mut port, wire, kernel) = way(10_000);
        assert!(!way.flush(), "nothing was given");
        for number in 0..5 {
            let frame = arrive(&mut port, &wire, &[number; 60]);
            way.give(frame, Origin::Neighbour, Instant::START);
        }
        assert!(way.flush());
        let left: Vec<_> = std::iter::from_fn(|| kernel.pop()).collect();
        assert_eq!(left, (0..4).map(|number| vec![number; 60]).collect::<Vec<_>>());
        assert_eq!((way.counters.given.value(), way.counters.refused.value()), (4, 1));
        assert_eq!((wire.buffers().in_use, kernel.buffers().in_use), (0, 0), "every buffer came back");
    }

    #[test]
    fn strangers_at_their_bound_leave_neighbours_theirs() {
        let (mut way, mut port, wire, _) = way(10);
        let mut give = |way: &mut KernelQueue<_>, origin, count, now| {
            for _ in 0..count {
                let frame = arrive(&mut port, &wire, &[0; 60]);
                way.give(frame, origin, now);
            }
            std::mem::take(&mut way.outgoing).len()
        };
        let start = Instant::START + Duration::from_secs(1);
        assert_eq!(give(&mut way, Origin::Stranger, 1000, start), 128, "a burst");
        assert_eq!(give(&mut way, Origin::Stranger, 1000, start + Duration::from_secs(2)), 20, "then the rate");
        assert_eq!(give(&mut way, Origin::Neighbour, 100, start + Duration::from_secs(2)), 100);
        assert_eq!(way.counters.strangers_limited.value(), 2000 - 148);
        assert_eq!(way.counters.neighbours_limited.value(), 0);
        assert_eq!(give(&mut way, Origin::Neighbour, 1000, start + Duration::from_secs(2)), 28);
        assert_eq!(way.counters.neighbours_limited.value(), 972);
    }

    #[test]
    fn what_the_kernel_sends_is_bounded_in_rate_and_length() {
        let (mut way, _, _, kernel) = way(1);
        let mut taken = Vec::new();
        assert!(!way.receive(&mut taken, Instant::START), "nothing was sent");
        assert!(kernel.push(&[1; 13], 0) && kernel.push(&[2; 14], 0) && kernel.push(&[3; 1514], 0));
        assert!(way.receive(&mut taken, Instant::START));
        assert_eq!(taken.iter().map(|frame| frame.bytes().len()).collect::<Vec<_>>(), [14, 1514]);
        assert_eq!(way.counters.taken_malformed.value(), 1);
        for _ in 0..200 {
            assert!(kernel.push(&[4; 60], 0));
            way.receive(&mut taken, Instant::START);
        }
        assert_eq!(taken.len(), 128);
        assert_eq!((way.counters.taken.value(), way.counters.taken_limited.value()), (128, 74));
    }
}
