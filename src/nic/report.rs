//! What ports say of themselves: counts of the driver's own, and the link. Control asks, not lanes.

use std::fmt;

use crate::base::PortId;

/// Whoever can ask the ports.
pub trait Reports: fmt::Debug + Send + Sync {
    /// What a port says now; `None` of one that is not there, or no longer.
    fn report(&self, port: PortId) -> Option<Report>;
}

/// What a port says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The device, as DPDK names it.
    pub device: String,
    /// Its driver.
    pub driver: String,
    /// Whether it has a link.
    pub link_is_up: bool,
    /// The link's speed in Mbit/s, where the driver knows it.
    pub link_megabits: Option<u32>,
    /// What every driver is asked for.
    pub counts: Counts,
    /// What this driver counts beside, under its own names. Some of it may go down again.
    pub extended: Vec<(String, u64)>,
}

/// What every driver is asked for. One that does not know says 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames received.
    pub frames_received: u64,
    /// Frames sent.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames lost because nobody took them out of the receive queue in time.
    pub missed: u64,
    /// Frames that arrived broken.
    pub receive_errors: u64,
    /// Frames that could not be sent.
    pub transmit_errors: u64,
    /// Times that no buffer was free for a frame that had come.
    pub no_buffer: u64,
}

/// Drivers of DPDK 22.11 that never count what they have missed: their queue is another's (a kernel's, a peer's), who drops and does not tell.
const BLIND: &[&str] = &["net_tap", "net_virtio", "net_virtio_user", "net_vhost", "net_ring", "net_null"];

impl Report {
    /// Whether [`Counts::missed`] means anything with this driver.
    pub fn knows_missed(&self) -> bool {
        !BLIND.contains(&self.driver.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_whose_queue_is_anothers_does_not_know_what_was_missed() {
        let of = |driver: &str| Report { driver: driver.into(), ..Report::default() };
        assert!(!of("net_tap").knows_missed() && of("net_ice").knows_missed());
    }
}
