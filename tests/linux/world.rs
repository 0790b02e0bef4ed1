//! Two hosts and the path between them.
//!
//! ```text
//!  Linux ─ TUN ─ relay ─ TUN ─ Linux
//!                          └── forwards ─ TUN ─ engine
//! ```
//!
//! The host on the right answers for itself, by its kernel's TCP, and forwards what is for the engine to a second device, so that the engine's packets
//! take the same way through the same devices and the same relay, and one hop more.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::namespace::{Namespace, Tun};
use crate::relay::{self, Path};

/// Which of a host's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the bench, which shares this file, uses one")]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

pub(crate) const LEFT: [&str; 2] = ["198.18.0.1", "2001:db8::1"];
pub(crate) const RIGHT: [&str; 2] = ["198.18.0.2", "2001:db8::2"];
pub(crate) const ENGINE: [&str; 2] = ["198.18.1.1", "2001:db8:1::1"];

pub(crate) fn address(host: [&str; 2], family: Family) -> IpAddr {
    let text = if family == Family::Ipv4 { host[0] } else { host[1] };
    text.parse().expect("an address")
}

/// Bytes that Linux may buffer for a connection: more than any window here needs. The first two are Linux's own.
const LINUX_RECEIVE: &str = "4096 131072 33554432";
const LINUX_SEND: &str = "4096 16384 33554432";

/// Linux's congestion control.
const CONGESTION: &str = "cubic";

/// Two Linux hosts, of which the right one has an engine beside it.
pub(crate) struct World {
    pub(crate) left: Namespace,
    #[allow(dead_code, reason = "for the bench, which shares this file")]
    pub(crate) right: Namespace,
    left_wire: Tun,
    right_wire: Tun,
    pub(crate) engine: Tun,
}

impl World {
    pub(crate) fn new() -> Self {
        let (left, right) = (host(), host());
        let (left_wire, right_wire, engine) = (left.tun("wire"), right.tun("wire"), right.tun("engine"));
        for (namespace, [v4, v6]) in [(&left, LEFT), (&right, RIGHT)] {
            namespace.run(&format!("ip address add {v4}/32 dev wire"));
            namespace.run(&format!("ip address add {v6}/128 dev wire nodad"));
            // By the route, because a host may have another default that no namespace can change.
            namespace.run(&format!("ip route add 198.18.0.0/15 dev wire congctl {CONGESTION}"));
            namespace.run(&format!("ip route add 2001:db8::/32 dev wire congctl {CONGESTION}"));
        }
        right.run("ip route add 198.18.1.0/24 dev engine");
        right.run("ip route add 2001:db8:1::/64 dev engine");
        right.set("ipv4/ip_forward", "1");
        right.set("ipv6/conf/all/forwarding", "1");
        Self { left, right, left_wire, right_wire, engine }
    }

    /// Does something while the relay carries packets: `there` from right to left, `back` the other way.
    pub(crate) fn during<T>(&self, there: &mut Path, back: &mut Path, something: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| relay::carry(&self.right_wire, &self.left_wire, there, back, &stop));
            // The relay must end before a panic can leave the scope.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(something));
            stop.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

fn host() -> Namespace {
    let namespace = Namespace::new();
    namespace.set("ipv4/tcp_rmem", LINUX_RECEIVE);
    namespace.set("ipv4/tcp_wmem", LINUX_SEND);
    // What one connection has learned of the path is nothing that the next one knows.
    namespace.set("ipv4/tcp_no_metrics_save", "1");
    namespace
}
