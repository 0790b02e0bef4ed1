//! One connection: its state and both halves. What arrives is in `arrive`, what leaves in `depart`, what time brings in `alarm`.

use crate::base::{Flow, Instant, TimerId};
use crate::tcp::ecn::Notification;
use crate::tcp::half_open::HalfOpen;
use crate::tcp::memory::Memory;
use crate::tcp::path_mtu::PathMtu;
use crate::tcp::receive::Receiver;
use crate::tcp::recovery::Recovery;
use crate::tcp::rtt::Rtt;
use crate::tcp::scoreboard::Learned;
use crate::tcp::selective::Selective;
use crate::tcp::send::Sender;
use crate::tcp::source::SourceId;
use crate::tcp::state::{State, Step};
use crate::tcp::trace::Tracer;
use crate::tcp::{Close, Counters, Settings, Token};
use crate::wire::segment::{IPV4_HEADER, IPV6_HEADER, TCP_HEADER};
use crate::wire::{SegmentOptions, Seq};

/// RFC 9293 3.7.1: what a peer that says nothing accepts.
const MSS_DEFAULT_IPV4: u16 = 536;
const MSS_DEFAULT_IPV6: u16 = 1220;
/// No peer may talk us into smaller segments than this.
const MSS_MIN: u16 = 64;
/// RFC 7323 2.3.
const SHIFT_MAX: u8 = 14;
/// Bytes that timestamps take in each segment.
pub(super) const TIMESTAMP_LEN: u32 = 12;

/// What every method of a connection needs of its stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Env<'a> {
    pub(super) settings: &'a Settings,
    pub(super) counters: &'a Counters,
    pub(super) now: Instant,
    pub(super) memory: Memory,
    pub(super) tracer: &'a Tracer,
}

/// Timestamps (RFC 7323), once both sides have offered them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timestamps {
    /// TS.Recent and when it was learned.
    pub(super) recent: u32,
    pub(super) recent_at: Instant,
}

/// Events that the user has not fetched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct News {
    pub(super) accepted: bool,
    pub(super) connected: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// What a segment in order needs comes first, cache line by cache line. A connection at rest holds no other memory, but for CUBIC's curve once its window
/// has been used, and for what is known of a path that is narrow.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Connection {
    // Two lines: sequence numbers and windows, and what is there to be read or sent.
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    /// With SACK, while something is in flight.
    pub(super) selective: Option<Box<Selective>>,
    pub(super) timestamp_offset: u32,
    pub(super) state: State,
    /// How it ended, if it has.
    pub(super) over: Option<Close>,
    pub(super) news: News,
    pub(super) ecn: Notification,
    /// Both sides may send SACK options (RFC 2018).
    pub(super) sack: bool,
    /// SYN or SYN-ACK is to be sent.
    pub(super) syn_wanted: bool,
    /// The segment at SND.UNA is to be sent again.
    pub(super) retransmit: bool,
    /// A window probe is to be sent.
    pub(super) window_probe: bool,
    /// A keepalive probe is to be sent.
    pub(super) keepalive_probe: bool,

    // One line: its clocks.
    pub(super) timestamps: Option<Timestamps>,
    pub(super) retransmit_at: Option<Instant>,
    pub(super) persist_at: Option<Instant>,
    /// Since when the oldest outstanding segment, SYN or window probe has had no answer.
    pub(super) unanswered_since: Option<Instant>,
    /// The stack's timer for the earliest deadline.
    pub(super) timer: Option<(TimerId, Instant)>,
    pub(super) token: Token,

    // One line: whose it is.
    pub(super) flow: Flow,
    /// Bytes of memory that the stack has accounted for.
    pub(super) accounted: u32,
    pub(super) rtt: Rtt,
    /// The stack has taken it out of the index.
    pub(super) detached: bool,
    pub(super) persist_backoff: u8,
    pub(super) keepalive_probes: u8,
    /// Expiries of the retransmission timer since SND.UNA moved.
    pub(super) timeouts: u8,

    // What is written without being read, and what only data in flight needs.
    pub(super) recovery: Recovery,
    pub(super) last_received: Instant,
    pub(super) last_sent: Instant,
    pub(super) learned: Learned,
    pub(super) path: PathMtu,
    /// The one segment whose round trip is being timed: the acknowledgement that ends it, and when it left.
    pub(super) timing: Option<(Seq, Instant)>,
    /// When something was last sent for the second time.
    pub(super) retransmitted_at: Option<Instant>,
    pub(super) challenge_allowed_at: Instant,
    /// The source that it counts against, if connections are and the peer has opened it.
    pub(super) source: Option<SourceId>,
}

impl Connection {
    /// An active open: SYN is wanted at once.
    pub(super) fn open(flow: Flow, token: Token, iss: Seq, offset: u32, env: Env<'_>) -> Self {
        let mss = u32::from(mss_offered(env.settings, &flow));
        Self {
            flow,
            token,
            state: State::SynSent,
            sender: Sender::new(iss, env.settings.send_buffer, mss),
            receiver: Receiver::new(env.settings.receive_buffer),
            rtt: Rtt::default(),
            recovery: Recovery::new(mss, env.settings.congestion),
            selective: None,
            path: PathMtu::default(),
            timeouts: 0,
            timestamps: None,
            sack: false,
            ecn: Notification::default(),
            timestamp_offset: offset,
            news: News::default(),
            over: None,
            detached: false,
            syn_wanted: true,
            retransmit: false,
            window_probe: false,
            keepalive_probe: false,
            timing: None,
            learned: Learned::default(),
            retransmitted_at: None,
            retransmit_at: None,
            persist_at: None,
            persist_backoff: 0,
            unanswered_since: Some(env.now),
            last_received: env.now,
            last_sent: env.now,
            keepalive_probes: 0,
            challenge_allowed_at: Instant::START,
            timer: None,
            source: None,
            accounted: 0,
        }
    }

    /// A passive open whose handshake the peer has just completed.
    pub(super) fn accept(half: &HalfOpen, offset: u32, env: Env<'_>) -> Self {
        let mut connection = Self::open(half.flow, half.token, half.iss, offset, env);
        connection.syn_wanted = false;
        connection.unanswered_since = None;
        connection.state = State::Established;
        let options = SegmentOptions {
            mss: Some(half.mss),
            window_scale: half.window_scale,
            sack_permitted: half.sack,
            timestamp: half.timestamp.map(|value| crate::wire::Timestamp { value, echo: 0 }),
            ..SegmentOptions::default()
        };
        connection.negotiate(half.irs, &options, env);
        let sender = &mut connection.sender;
        (sender.snd_nxt, sender.snd_max) = (half.iss + 1, half.iss + 1);
        sender.on_ack(half.iss + 1);
        sender.set_window(half.irs, u32::from(half.window));
        if half.retries > 0 {
            connection.recovery.on_syn_lost();
            connection.rtt.on_syn_lost();
        } else if let Some(sent_at) = half.sent_at {
            connection.rtt.on_sample(env.now.since(sent_at));
        }
        if half.ecn {
            connection.ecn.agree();
        }
        connection.receiver.last_ack_sent = half.irs + 1;
        connection.news.accepted = true;
        connection
    }

    /// Takes what the peer's SYN says.
    pub(super) fn negotiate(&mut self, irs: Seq, options: &SegmentOptions, env: Env<'_>) {
        let offered = mss_offered(env.settings, &self.flow);
        let mut mss = u32::from(mss_accepted(options, &self.flow).min(offered));
        if let (Some(timestamp), true) = (options.timestamp, env.settings.timestamps) {
            self.timestamps = Some(Timestamps { recent: timestamp.value, recent_at: env.now });
            mss -= TIMESTAMP_LEN;
        }
        self.sack = options.sack_permitted && env.settings.sack;
        if let Some(shift) = options.window_scale {
            self.sender.shift = shift.min(SHIFT_MAX);
            self.receiver.shift = shift_offered(env.settings);
        }
        self.sender.mss = mss;
        self.recovery.set_mss(mss);
        self.receiver.open(irs, u32::from(window_offered(env.settings)), mss);
    }

    /// Moves to the next state, and notices the end.
    pub(super) fn step(&mut self, step: Step) {
        self.state = self.state.after(step);
        if matches!(self.state, State::TimeWait | State::Closed) {
            self.over = Some(Close::Finished);
            self.quiet();
        }
    }

    /// Ends the connection without ceremony.
    pub(super) fn end(&mut self, how: Close) {
        self.state = State::Closed;
        self.over = Some(how);
        self.quiet();
        self.news.connected = false;
        self.news.readable = false;
        self.sender.clear();
        self.selective = None;
        self.receiver.clear();
    }

    fn quiet(&mut self) {
        self.news.writable = false;
        self.syn_wanted = false;
        self.retransmit = false;
        self.window_probe = false;
        self.keepalive_probe = false;
        self.retransmit_at = None;
        self.persist_at = None;
        self.receiver.ack_at = None;
        self.unanswered_since = None;
    }

    /// Bytes of memory held that grow with what is under way.
    pub(super) fn memory(&self) -> u32 {
        let board = self.selective.as_ref().map_or(0, |selective| selective.board.memory());
        u32::try_from(self.sender.memory() + self.receiver.memory() + board).unwrap_or(u32::MAX)
    }

    /// Gives back what is of use only while something is in flight.
    pub(super) fn rest(&mut self) {
        if let Some(selective) = self.selective.take_if(|selective| selective.is_at_rest()) {
            self.learned = selective.board.learned;
        }
    }

    /// Reads something of each cache line, in loads that do not wait for each other.
    pub(super) fn touch(&self) -> u64 {
        let (first, fifth) = (u64::from(self.sender.snd_una.0), self.last_sent.as_nanos());
        first
            ^ u64::from(self.sack)
            ^ self.token.0
            ^ u64::from(self.accounted)
            ^ fifth
            ^ u64::from(self.source.is_some())
    }

    /// The same for what [`touch`](Self::touch) has found the way to.
    pub(super) fn touch_further(&self) -> u64 {
        self.sender.touch() ^ self.selective.as_ref().map_or(0, |selective| selective.touch())
    }

    /// Bytes that congestion control lets go now.
    pub(super) fn budget(&self) -> u32 {
        let budget = match &self.selective {
            Some(selective) => self.recovery.windows().0.saturating_sub(selective.board.pipe()),
            None => self.recovery.window().saturating_sub(self.sender.flight()),
        };
        self.path.allowance(self.sender.mss).map_or(budget, |allowance| allowance.min(budget))
    }

    /// The end may be told: whatever can be read has been read (a reset leaves nothing to read).
    pub(super) fn end_may_be_told(&self) -> bool {
        self.over.is_some() && self.receiver.ready() == 0
    }

    /// An event waits to be fetched.
    pub(super) fn has_news(&self) -> bool {
        let News { accepted, connected, readable, writable } = self.news;
        accepted || connected || readable || writable || self.end_may_be_told()
    }
}

/// The MSS that our SYN announces: what fits into our MTU without options (RFC 6691).
pub(super) fn mss_offered(settings: &Settings, flow: &Flow) -> u16 {
    let header = TCP_HEADER + if flow.local().is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
    u16::try_from(settings.mtu.saturating_sub(header)).unwrap_or(u16::MAX).max(MSS_MIN)
}

/// The MSS that the peer's SYN allows us.
pub(super) fn mss_accepted(options: &SegmentOptions, flow: &Flow) -> u16 {
    let silent = if flow.local().is_ipv4() { MSS_DEFAULT_IPV4 } else { MSS_DEFAULT_IPV6 };
    options.mss.unwrap_or(silent).max(MSS_MIN)
}

/// The window scale that our SYN announces: just large enough for the receive buffer.
pub(super) fn shift_offered(settings: &Settings) -> u8 {
    (0..SHIFT_MAX).find(|shift| settings.receive_buffer >> shift <= usize::from(u16::MAX)).unwrap_or(SHIFT_MAX)
}

/// The window of our SYN, which is never scaled.
pub(super) fn window_offered(settings: &Settings) -> u16 {
    u16::try_from(settings.receive_buffer).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;
    use crate::tcp::table::Table;

    const LINE: usize = 64;

    #[test]
    fn the_hot_state_is_in_two_cache_lines_and_all_of_it_in_six() {
        // The slot begins at a line, and the connection in it.
        assert_eq!((offset_of!(Connection, sender), Table::<Connection>::slot_bytes()), (0, 6 * LINE));
        assert!(offset_of!(Connection, keepalive_probe) < 2 * LINE);
        assert!(offset_of!(Connection, timestamps) >= 2 * LINE && offset_of!(Connection, token) < 3 * LINE);
        assert!(offset_of!(Connection, flow) >= 3 * LINE && offset_of!(Connection, keepalive_probes) < 4 * LINE);
        assert!(size_of::<Connection>() <= 6 * LINE - size_of::<u32>());
    }
}
