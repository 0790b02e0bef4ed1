//! The desk: what a lane lays out before it calls into rustls, so that the ticketer, which rustls calls without any context, finds it.
//!
//! A lane runs one handshake step at a time. [`Session::advance`](super::Session::advance) moves the desk into a thread-local for the length of the call and
//! takes it back after, so that two lanes of a simulation share a thread but never a desk.

use std::sync::Arc;

use crate::base::{EngineId, Random, UnixTime};
use crate::ticket::Ring;

/// One lane's ticket desk.
#[derive(Debug)]
pub struct Desk {
    _todo: (EngineId, Random, UnixTime, Arc<Ring>),
}

impl Desk {
    /// A desk with the lane's own random generator.
    pub fn new(engine: EngineId, ring: Arc<Ring>, random: Random, counters: Arc<super::ticketer::Counters>) -> Self {
        let _ = (engine, ring, random, counters);
        todo!()
    }

    /// Takes over a new key ring.
    pub fn set_ring(&mut self, ring: Arc<Ring>) {
        let _ = ring;
        todo!()
    }

    /// Sets the wall clock, once a breath.
    pub fn set_time(&mut self, now: UnixTime) {
        let _ = now;
        todo!()
    }
}
