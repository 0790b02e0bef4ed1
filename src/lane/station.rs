//! What lies below the application on one core: queues, link layers, TCP, and the rings to the other cores.
//!
//! A [`Lane`](super::Lane) is a station with relays on top; a simulated host is one with a client or a server on top. Drive it in a
//! breath with [`receive`](Station::receive), [`fire_timers`](Station::fire_timers), whatever the application does with
//! [`stack`](Station::stack), and [`transmit`](Station::transmit).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use crate::base::{Instant, LaneId, Random};
use crate::lane::capture::Captures;
use crate::lane::transmit::TRANSMIT_MAX;
use crate::lane::{Handle, LaneCounters, Steering};
use crate::link::{self, Link};
use crate::nic::kernel::KernelQueue;
use crate::nic::{BURST, Buffers, PortInfo, QueuePair};
use crate::tcp::{self, Stack};
use crate::wire::icmp::Echo;

/// A port as one core uses it.
pub(super) struct Port<Q: QueuePair> {
    pub(super) queue: Q,
    pub(super) link: Link<Q::Frame>,
    /// The way to the kernel's interface beside it.
    pub(super) kernel: Option<KernelQueue<Q>>,
    /// Frames that leave at the end of this breath.
    pub(super) outgoing: Vec<Q::Frame>,
}

/// One core's network: queues `Q`, one a port, up to TCP.
pub struct Station<Q: QueuePair> {
    pub(super) id: LaneId,
    pub(super) counters: Arc<LaneCounters>,
    pub(super) steering: Steering<Q::Frame>,
    pub(super) ports: Vec<Port<Q>>,
    pub(super) received: Vec<Q::Frame>,
    pub(super) random: Random,
    /// Echoes that have come, for the health monitors to take.
    pub(super) echoes: VecDeque<(IpAddr, Echo)>,
    pub(super) captures: Captures,
    /// TCP, for the application to read from and write to.
    pub stack: Stack,
}

impl<Q: QueuePair> Station<Q> {
    /// A station without addresses. `queues` are its own, one a port, in the order of ports.
    pub fn new(
        handle: &Handle,
        steering: Steering<Q::Frame>,
        queues: Vec<Q>,
        tcp: tcp::Settings,
        mut random: Random,
    ) -> Self {
        let counters = &handle.counters;
        let mut stack = Stack::new(tcp, random.fork(), Arc::clone(&counters.tcp));
        stack.trace_into(Arc::clone(&handle.trace));
        let ports = queues
            .into_iter()
            .zip(counters.links.iter().zip(&counters.kernels))
            .map(|(mut queue, (counters, kernel_counters))| Port {
                link: Link::new(no_addresses(queue.port()), Arc::clone(counters)),
                kernel: queue.take_kernel().map(|kernel| kernel.counted_by(Arc::clone(kernel_counters))),
                queue,
                outgoing: Vec::with_capacity(TRANSMIT_MAX),
            })
            .collect();
        Self {
            id: handle.lane,
            counters: Arc::clone(&counters.lane),
            steering,
            ports,
            received: Vec::with_capacity(BURST),
            stack,
            random,
            echoes: VecDeque::new(),
            captures: Captures::none(),
        }
    }

    /// Takes over the addresses and routes of every port.
    pub fn configure(&mut self, ports: Vec<link::Settings>) {
        for (port, settings) in self.ports.iter_mut().zip(ports) {
            port.link.configure(settings);
            if self.id == LaneId(0) {
                port.link.announce();
            }
        }
    }

    /// Fires what is due in TCP and the link layers.
    pub fn fire_timers(&mut self, now: Instant) {
        self.stack.on_timeout(now);
        for port in &mut self.ports {
            port.link.on_timeout(now);
        }
    }

    /// At the end of a breath: what has been captured goes to control.
    pub(super) fn finish_captures(&mut self, now: Instant) {
        if !self.captures.is_empty() {
            self.captures.on_breath(now);
        }
    }

    /// When [`fire_timers`](Self::fire_timers) is wanted next.
    pub fn poll_at(&self) -> Option<Instant> {
        let links = self.ports.iter().filter_map(|port| port.link.poll_at()).min();
        [self.stack.poll_at(), links].into_iter().flatten().min()
    }

    /// Occupancy of the packet buffers.
    pub fn buffers(&self) -> Option<Buffers> {
        self.ports.first().and_then(|port| port.queue.buffers())
    }
}

/// A port before its first configuration: it answers for no address.
fn no_addresses(port: &PortInfo) -> link::Settings {
    link::Settings {
        mac: port.mac,
        addresses: Vec::new(),
        virtual_addresses: Vec::new(),
        gateways: Vec::new(),
        neighbours_max: 0,
        pending_max: 0,
    }
}
