//! TCP (RFC 9293 and its companions), sans-IO: one [`Stack`] is one lane's TCP.
//!
//! Drive it so: give it every segment with [`Stack::on_segment`] and call [`Stack::on_timeout`] when [`Stack::poll_at`] has come;
//! then drain [`Stack::poll_event`] and [`Stack::poll_transmit`] until they give nothing. It reads no clock and sends nothing itself.
//!
//! What is in here, from outside to inside:
//!
//! - `stack`: what comes in and goes out, and the bookkeeping after each call; `user`: reading, writing, closing.
//! - `demux`: which table a received segment belongs to; listeners, SYN-RECEIVED, TIME-WAIT, strangers.
//! - `table`, `half_open`, `time_wait`: the three tables, behind one `index` with a keyed hash.
//! - `queue`, `limit`: fair turns, rates; deadlines are in `base`'s wheel.
//! - `connection`: one connection; `state` its diagram, `arrive` what segments do to it, `depart` what it sends, `alarm` what time does to it.
//! - `receive`, `send`: its two halves; `buffer` and `reassembly` their memory, `memory` what they may take of it.
//! - `rtt`, `recovery`: when something is lost, and how much may be in flight; with SACK, `scoreboard` finds losses and `selective` answers them.
//! - `cubic`, `hystart`: how the congestion window grows; `ecn`: marks that say before a loss that it is too large.
//! - `path_mtu`: how long packets may be, by what routers say and by what arrives; `paths`: what is remembered of that for the next connection.
//! - `source`: what one source address may have of all this.
//! - `isn`: where sequence numbers start; `cookie`: where they start when the half-open table is full.
//! - [`testbed`]: all of it in a program's hands, with raw packets and a clock of its own; `audit`: what must be true between any two calls.
//! - [`trace`]: what connections have just done, for people, after the fact.
//!
//! Not there yet, and where it enters: pacing (`depart`).

mod ahead;
mod alarm;
mod arrive;
mod audit;
mod buffer;
mod connection;
mod cookie;
mod cubic;
mod demux;
mod depart;
mod ecn;
mod half_open;
mod hystart;
mod index;
mod isn;
#[cfg(test)]
mod loopback;
mod memory;
mod path_mtu;
mod paths;
mod queue;
mod reassembly;
mod receive;
mod recovery;
mod rtt;
mod scoreboard;
mod selective;
mod send;
mod settings;
mod source;
mod stack;
mod state;
#[cfg(test)]
mod storm;
mod table;
pub mod testbed;
mod time_wait;
pub mod trace;
mod user;

use crate::base::Duration;

pub use ahead::AHEAD;
pub use depart::Train;
pub use settings::{Congestion, EcnMode, Settings};
pub use stack::Stack;
pub use state::State;

/// Names one connection of a stack. A stale id (its connection is gone, the slot perhaps reused) names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

/// Whatever the user of a connection wants to find it by. The stack keeps it and gives it back with each event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// Something that the user of a connection may want to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer has opened this connection to a listening address. Its token is that of the listener.
    Accepted,
    /// The connection that [`Stack::connect`] began is established.
    Connected,
    /// There is data to read, or the peer has sent FIN.
    Readable,
    /// There is room to write again, after [`Stack::write`] took less than it was given.
    Writable,
    /// The connection is over and its id is stale. After [`Close::Finished`] everything has been read and acknowledged: the event waits until the reader
    /// has consumed the last byte, but not for 2 MSL. After any other end, what there was to read or write is gone.
    Closed(Close),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Close {
    /// Both sides sent FIN and everything was acknowledged.
    Finished,
    /// The peer reset it.
    Reset,
    /// The peer answered our SYN with a reset.
    Refused,
    /// Retransmissions, keepalive probes or the user timeout found no answer.
    TimedOut,
    /// The network said that there is no way to the peer.
    Unreachable,
}

/// The inside of a connection, for tests, traces and whoever looks at a running engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its state.
    pub state: State,
    /// Smoothed round-trip time, once measured.
    pub srtt: Option<Duration>,
    /// Retransmission timeout, backed off as it stands.
    pub rto: Duration,
    /// Congestion window in bytes.
    pub cwnd: u32,
    /// Slow-start threshold in bytes; `u32::MAX` before the first loss.
    pub ssthresh: u32,
    /// Bytes in flight.
    pub flight: u32,
    /// The peer's window in bytes.
    pub snd_wnd: u32,
    /// The window that the peer has been offered, in bytes.
    pub rcv_wnd: u32,
    /// Largest payload of a segment to the peer.
    pub mss: u32,
}

/// Why [`Stack::connect`] or [`Stack::listen`] said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The connection table is full, or the memory for buffers is.
    TableFull,
    /// There is a connection (or one in TIME-WAIT) with these endpoints.
    InUse,
}

/// What there is to read on a connection: see [`Stack::readable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable<'a> {
    /// The next bytes in order, at least one. [`Stack::consume`] takes them.
    Data(&'a [u8]),
    /// Nothing yet.
    Empty,
    /// Everything has been read and the peer has sent FIN.
    Finished,
}

crate::counters! {
    /// What a lane's TCP counts.
    pub struct Counters {
        /// TCP segments received
        counter segments_received,
        /// TCP segments sent
        counter segments_sent,
        /// Connections opened by peers
        counter accepted,
        /// Connections opened by us
        counter connected,
        /// SYNs that found too many handshakes going on: answered by a cookie or dropped
        counter half_open_full,
        /// SYNs answered by a cookie
        counter cookies_sent,
        /// Connections that a cookie has opened; they count as accepted too
        counter cookies_accepted,
        /// Acknowledgements that were no cookie while cookies were out
        counter cookies_refused,
        /// SYNs dropped and handshakes reset because their source had as many connections as one may have
        counter source_connections_full,
        /// SYNs dropped and handshakes reset because their source had opened connections as fast as one may
        counter source_rate_full,
        /// SYNs that found too many handshakes of their source going on: answered by a cookie
        counter source_half_open_full,
        /// Sources forgotten before their rate was earned again, to make room
        counter sources_forgotten,
        /// SYNs and connects refused because the connection table was full
        counter table_full,
        /// SYNs and connects refused because the buffers of all connections took all the memory they may
        counter memory_full,
        /// Segments with data dropped because the buffers of all connections took all the memory they may
        counter memory_dropped,
        /// TIME-WAIT entries forgotten early to make room
        counter time_wait_recycled,
        /// TIME-WAIT entries that gave way to a new connection of the same peer
        counter time_wait_reopened,
        /// Handshakes given up because SYN-ACK was not acknowledged
        counter half_open_timed_out,
        /// Handshakes that the peer reset
        counter half_open_reset,
        /// SYN-ACKs sent again
        counter syn_acks_retransmitted,
        /// SYNs to an address and port where nobody listens
        counter no_listener,
        /// Segments of no connection
        counter strangers,
        /// Resets sent
        counter resets_sent,
        /// Resets not sent because there were too many
        counter resets_limited,
        /// Resets that ended a connection
        counter resets_received,
        /// Resets outside the window
        counter resets_ignored,
        /// Packets of no connection that found their queue full
        counter replies_dropped,
        /// Challenge ACKs (RFC 5961)
        counter challenge_acks,
        /// Challenge ACKs not sent because there were too many
        counter challenge_acks_limited,
        /// Segments outside the window
        counter out_of_window,
        /// Segments beyond a closed window
        counter beyond_window,
        /// Segments whose acknowledgement number cannot be
        counter bad_acks,
        /// Segments of a connection without the ACK bit
        counter without_ack,
        /// Segments with an old timestamp (RFC 7323 5)
        counter paws_dropped,
        /// Segments that arrived out of order
        counter out_of_order,
        /// Out-of-order segments dropped because there were too many gaps
        counter reassembly_full,
        /// Segments with data that had all been received
        counter nothing_new,
        /// Duplicate acknowledgements received
        counter duplicate_acks,
        /// Segments retransmitted
        counter retransmitted,
        /// Losses noticed by duplicate or partial acknowledgements
        counter fast_retransmits,
        /// Probes of the tail (RFC 8985 7)
        counter tail_probes,
        /// Reports of peers that data came twice (RFC 2883)
        counter duplicate_data_reported,
        /// Recoveries taken back because nothing had been lost (RFC 3522)
        counter spurious_recoveries,
        /// Segments received with a router's mark of congestion (RFC 3168)
        counter marks_received,
        /// Reductions of the congestion window because a peer echoed a mark (RFC 3168)
        counter mark_reductions,
        /// Expiries of the retransmission timer
        counter retransmission_timeouts,
        /// Zero-window probes sent
        counter window_probes,
        /// Zero windows announced by peers
        counter zero_windows_received,
        /// Segments sent that announced a zero window
        counter zero_windows_sent,
        /// Keepalive probes sent
        counter keepalive_probes,
        /// Connections given up for lack of an answer
        counter timed_out,
        /// Connections given up because the peer held its window shut while memory was scarce (RFC 6429)
        counter shut_windows_ended,
        /// ICMP errors for established connections, which go on
        counter soft_errors,
        /// ICMP errors about segments that are not under way (RFC 5927)
        counter unreachables_ignored,
        /// Messages that a packet is too big which is not under way, or not larger than they allow
        counter packets_too_big_ignored,
        /// Messages that a packet is too big which name an MTU that no link has: taken for 552 bytes over IPv4, dropped over IPv6
        counter path_mtu_below_minimum,
        /// Path MTUs lowered because a router said so (RFC 1191, RFC 8201)
        counter path_mtu_lowered,
        /// Messages that contradict what has arrived: believed if a timeout confirms them (RFC 5927)
        counter path_mtu_doubted,
        /// Messages that waited to be confirmed while what they were about arrived
        counter path_mtu_disproved,
        /// Segments made smaller because large ones did not arrive and no router said why (RFC 4821)
        counter black_holes,
        /// Larger segments sent to find out whether they arrive (RFC 4821)
        counter path_probes_sent,
        /// Larger segments that arrived, so that others may be as large
        counter path_probes_arrived,
        /// Larger segments that were lost while everything else arrived
        counter path_probes_lost,
        /// Segments made as large as before ten minutes after a path MTU was lowered, where there is no SACK to search by
        counter path_mtu_retried,
        /// Connections that began with a path MTU which a router had named to one before
        counter path_mtu_known,
        /// Hosts whose path MTU was forgotten before its time to make room
        counter paths_recycled,
        /// Connections in the table
        gauge connections,
        /// Most connections that the table takes
        gauge connections_max,
        /// Handshakes that peers have begun
        gauge half_open,
        /// Most handshakes that the table takes; beyond it cookies answer
        gauge half_open_max,
        /// Connections in TIME-WAIT
        gauge time_wait,
        /// Most connections in TIME-WAIT that are remembered
        gauge time_wait_max,
        /// Source addresses that are counted against a limit
        gauge sources,
        /// Bytes of memory in send and receive buffers
        gauge buffered_bytes,
        /// Most bytes of memory in send and receive buffers
        gauge buffered_bytes_max,
        /// Timers armed
        gauge timers,
        /// Hosts whose path MTU is remembered
        gauge paths,
    }
}
