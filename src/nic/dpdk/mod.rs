//! The real NIC: ports and queues through capsule on DPDK. The only module that names capsule, and the only one with `unsafe`.
//!
//! [`Engine::start`] takes [`Settings`], brings the EAL and the ports up and says what is wrong when it cannot. [`Engine::run`] then makes a
//! lane on each core and blocks until it is stopped, by a [`Stopper`] or by the answer to a [`Signal`]:
//!
//! ```no_run
//! # use sealane::nic::dpdk::{Engine, Error, Settings};
//! # fn example(settings: &Settings) -> Result<(), Error> {
//! let engine = Engine::start(settings)?;
//! let stopper = engine.stopper(); // for the control thread, once the lanes are drained
//! let lanes = (0..engine.lanes()).map(|_| |queues| move || { let _ = &queues; /* one breath */ });
//! let buffers = engine.run(lanes.collect(), |signal| { let _ = signal; true })?;
//! assert_eq!(buffers.in_use, 0);
//! # drop(stopper);
//! # Ok(())
//! # }
//! ```
//!
//! A process starts an engine once: the EAL does not come up a second time.
#![allow(unsafe_code, reason = "calls DPDK; each block says who guarantees what")]

mod engine;
mod hugepages;
mod kernel;
mod lane;
mod log;
mod pci;
mod queue;
mod report;
mod settings;
mod tap;

pub use engine::{Engine, Signal, Stopper};
pub use queue::{Buffer, Queue};
pub use settings::{Error, Hugepages, KernelSettings, PortSettings, Segmentation, Settings};
