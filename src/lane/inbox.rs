//! What control sends to a lane: whole snapshots, picked up once a breath, never a half-changed configuration.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::balance::Slot;
use crate::health::MonitoredPool;
use crate::lane::capture::Tap;
use crate::link;
use crate::relay::Service;
use crate::ticket::Ring;
use crate::tls::client::Target;

/// A configuration, as one lane uses it. Control builds one for each lane, so that lanes share no reference count.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with every reload.
    pub version: u64,
    /// Addresses and routes of each port, by [`PortId`](crate::base::PortId).
    pub ports: Vec<link::Settings>,
    /// Virtual services.
    pub services: Vec<Arc<Service>>,
    /// Pools, each with its health monitors.
    pub pools: Vec<MonitoredPool>,
    /// How to speak TLS to each server of the pools that [want that](Pool::is_secured).
    pub targets: Vec<(Slot, Arc<Target>)>,
}

/// One message from control.
#[derive(Debug)]
pub enum Order {
    /// Use this configuration for new connections; those that are open keep theirs.
    Configure(Box<Snapshot>),
    /// Seal and open tickets with this key ring from now on.
    Ring(Arc<Ring>),
    /// Capture frames until the tap says that it is over.
    Capture(Arc<Tap>),
    /// Accept no more connections, and report when the last one is gone.
    Drain,
}

/// Most orders that wait for a lane. A lane takes all of them every breath, so control never waits long for room.
pub const ORDERS_MAX: usize = 16;

/// A lane's bounded mailbox: control pushes, the lane pops.
pub type Inbox = Arc<ArrayQueue<Order>>;

/// An empty inbox.
pub fn inbox() -> Inbox {
    Arc::new(ArrayQueue::new(ORDERS_MAX))
}
