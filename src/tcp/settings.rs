//! Bounds and times of a stack.

use crate::base::Duration;
use crate::tcp::connection::Connection;
use crate::tcp::half_open::HalfOpen;
use crate::tcp::index::Index;
use crate::tcp::source::{RESTING_MAX, Sources};
use crate::tcp::table::Table;
use crate::tcp::time_wait::TimeWait;

/// How the congestion window grows and shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Congestion {
    /// CUBIC (RFC 9438), with slow start that ends before losses (HyStart++, RFC 9406) where there is SACK.
    #[default]
    Cubic,
    /// RFC 5681.
    NewReno,
}

/// Explicit congestion notification (RFC 3168): routers that are about to drop packets mark them instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EcnMode {
    /// Neither offered nor accepted.
    Off,
    /// Accepted where the peer offers it, as Linux does.
    #[default]
    Accept,
    /// Offered with our SYN as well. There are paths on which that costs a second, until the SYN is sent again without it.
    Offer,
}

/// Bounds and times of a stack.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most connections in the table (half-open and TIME-WAIT not counted).
    pub connections_max: usize,
    /// Most connections that have not finished their handshake.
    pub half_open_max: usize,
    /// Most connections of one source (an IPv4 address or a /64 of IPv6) that peers have opened. More SYNs of it are dropped; a handshake that completes all
    /// the same is reset. `None` for no limit, here and below.
    pub source_connections_max: Option<u32>,
    /// Most connections a second that one source opens, and at once after a pause. More are answered likewise.
    pub source_connections_per_second: Option<u32>,
    /// Most connections of one source that have not finished their handshake. More SYNs are answered by cookies; without cookies there is no limit, as
    /// SYNs may be forged.
    pub source_half_open_max: Option<u32>,
    /// Most entries in TIME-WAIT.
    pub time_wait_max: usize,
    /// Bytes that a connection keeps for the reader; the advertised window never exceeds it.
    pub receive_buffer: usize,
    /// Bytes that a connection keeps until they are acknowledged.
    pub send_buffer: usize,
    /// Bytes of memory that the buffers of all connections together may take. From three quarters of it on, windows and writes shrink to two segments;
    /// at the bound new connections are refused, and connections that are open go on with two segments each way, which may exceed it.
    pub memory_max: usize,
    /// 2 MSL.
    pub time_wait: Duration,
    /// Silence before keepalive probes begin; `None` for no keepalive.
    pub keepalive: Option<Duration>,
    /// Between keepalive probes.
    pub keepalive_interval: Duration,
    /// Unanswered keepalive probes that end a connection, 255 at most.
    pub keepalive_probes: u32,
    /// How long unacknowledged data or an unanswered SYN is kept trying.
    pub user_timeout: Duration,
    /// The longest IP packet to send.
    pub mtu: usize,
    /// Whether to offer and accept the timestamps option (RFC 7323).
    pub timestamps: bool,
    /// Whether to offer and accept selective acknowledgements (RFC 2018).
    pub sack: bool,
    /// Whether SYNs are answered by cookies (RFC 4987) when there are too many half-open connections. Without, they are dropped.
    pub syn_cookies: bool,
    /// Whether new connections use explicit congestion notification.
    pub ecn: EcnMode,
    /// Congestion control of new connections.
    pub congestion: Congestion,
    /// Whether large segments that do not arrive are tried smaller without a router's word, and what the path lets through is searched for (RFC 4821). As Linux's
    /// `tcp_mtu_probing = 1`, it begins when three timeouts in a row have hit a large segment.
    pub mtu_probing: bool,
    /// Most resets a second that answer segments of no connection.
    pub resets_per_second: u32,
}

impl Settings {
    /// Bytes that the tables take when they are full, about. What connections buffer comes on top, up to `memory_max`.
    pub fn tables_bound(&self) -> usize {
        let entry = |count: usize, size: usize| count.saturating_mul(size);
        let counted = |limited: bool, most: usize| if limited { most } else { 0 };
        let rate = self.source_connections_per_second.is_some();
        let sources = counted(rate || self.source_connections_max.is_some(), self.connections_max)
            .saturating_add(counted(self.source_half_open_max.is_some(), self.half_open_max))
            .saturating_add(counted(rate, RESTING_MAX));
        entry(self.connections_max, Table::<Connection>::slot_bytes())
            .saturating_add(entry(sources, Sources::entry_bound()))
            .saturating_add(entry(self.half_open_max, size_of::<HalfOpen>()))
            .saturating_add(entry(self.time_wait_max, size_of::<TimeWait>()))
            .saturating_add(Index::bound(self.flows_max()))
    }

    /// Flows that all tables together may hold.
    pub(super) fn flows_max(&self) -> usize {
        self.connections_max.saturating_add(self.half_open_max).saturating_add(self.time_wait_max)
    }
}

impl Default for Settings {
    /// A lane of a middling machine: 262,144 connections, 16,384 half-open, 1,024 of them of one source, 65,536 in TIME-WAIT; 256 KiB each way a connection at most and 1 GiB for all;
    /// 2 MSL of 60 s and no keepalive, as Linux, and where it is switched on five probes 15 s apart; a user timeout of 120 s (RFC 9293 3.8.3 asks for 100 s at least); an Ethernet MTU; 1,000 resets a second.
    fn default() -> Self {
        Self {
            connections_max: 262_144,
            half_open_max: 16_384,
            source_connections_max: None,
            source_connections_per_second: None,
            source_half_open_max: Some(1024),
            time_wait_max: 65_536,
            receive_buffer: 256 * 1024,
            send_buffer: 256 * 1024,
            memory_max: 1024 * 1024 * 1024,
            time_wait: Duration::from_secs(60),
            keepalive: None,
            keepalive_interval: Duration::from_secs(15),
            keepalive_probes: 5,
            user_timeout: Duration::from_secs(120),
            mtu: 1500,
            timestamps: true,
            sack: true,
            syn_cookies: true,
            ecn: EcnMode::Accept,
            congestion: Congestion::Cubic,
            mtu_probing: true,
            resets_per_second: 1000,
        }
    }
}
