//! What leaves a connection: which segment is next, and what its leaving changes.

use crate::tcp::buffer::Payload;
use crate::tcp::connection::{Connection, Env, mss_offered, shift_offered, window_offered};
use crate::tcp::isn;
use crate::tcp::selective::Selective;
use crate::tcp::send::Chunk;
use crate::tcp::state::State;
use crate::tcp::trace::{Header, Reason};
use crate::wire::segment::{IPV4_HEADER, IPV6_HEADER, TCP_HEADER};
use crate::wire::{Ecn, Flags, Outgoing, SegmentOptions, Seq, Timestamp};

/// Window probes in a row that may be as long as the window.
const LONG_PROBES: u8 = 3;

/// What the NIC does for a packet that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offload {
    None,
    Checksum,
    /// It computes checksums too.
    Segmentation,
}

/// An IP packet with one segment, or with several of one connection behind one set of headers, for the NIC to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train {
    /// Bytes of the packet.
    pub len: usize,
    /// Bytes of data in each segment but the last.
    pub payload: u16,
    /// How many segments it is.
    pub segments: u32,
}

/// A segment that wants to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// SYN or SYN-ACK.
    Syn,
    /// Data, FIN or both, sent before.
    Again(Chunk),
    /// What may tell of losses at the tail (RFC 8985 7).
    TailProbe(Chunk),
    /// Data, FIN or both, for the first time or after a timeout.
    Next(Chunk),
    /// What a closed window does not allow.
    WindowProbe(Chunk),
    /// An old sequence number, which the peer must answer.
    Keepalive,
    /// Nothing but an acknowledgement.
    Ack,
}

impl Connection {
    /// What would leave now.
    pub(super) fn plan(&self) -> Option<Plan> {
        if self.syn_wanted {
            return Some(Plan::Syn);
        }
        if matches!(self.state, State::SynSent | State::Closed) {
            return None;
        }
        // A full-sized segment has no room for SACK blocks, so they go alone and first.
        if self.sack && self.receiver.ack_wanted() && self.receiver.has_sack() {
            return Some(Plan::Ack);
        }
        if self.state.is_synchronized() && self.state != State::TimeWait {
            if self.retransmit
                && let Some(chunk) = self.sender.lost()
            {
                return Some(Plan::Again(chunk));
            }
            if let Some(plan) = self.selective_plan() {
                return Some(plan);
            }
            if self.sender.unsent()
                && let Some(chunk) = self.sender.next(if self.ecn.is_held() { 0 } else { self.budget() })
            {
                return Some(Plan::Next(chunk));
            }
            // A probe that brings no news may have been too long for its path, and the router silent (RFC 4821): one byte is short enough for any.
            let most = if self.persist_backoff > LONG_PROBES { 1 } else { u32::MAX };
            if self.window_probe
                && let Some(chunk) = self.sender.probe(most)
            {
                return Some(Plan::WindowProbe(chunk));
            }
            if self.keepalive_probe {
                return Some(Plan::Keepalive);
            }
        }
        self.receiver.ack_wanted().then_some(Plan::Ack)
    }

    fn selective_plan(&self) -> Option<Plan> {
        let board = &self.selective.as_ref()?.board;
        if board.probe_wanted {
            let probe = self.sender.next(self.sender.mss).or_else(|| board.tail().map(|tail| self.sender.again(tail)));
            return probe.map(Plan::TailProbe);
        }
        let chunk = self.sender.again(board.first_lost()?);
        // RFC 6675 5: what is lost goes before what is new.
        (chunk.len <= self.budget()).then_some(Plan::Again(chunk))
    }

    /// Writes the planned segment into `room` and takes note of it; with [`Offload::Segmentation`], also the segments that may follow it at once.
    pub(super) fn transmit(&mut self, plan: Plan, room: &mut [u8], offload: Offload, env: Env<'_>) -> Option<Train> {
        if plan == Plan::Syn {
            let len = self.transmit_syn(room, offload != Offload::None, env)?;
            return Some(Train { len, payload: 0, segments: 1 });
        }
        // RFC 5681 4.1: the window that was right before a pause is not right after it.
        if matches!(plan, Plan::Next(_)) && self.sender.flight() == 0 && env.now.since(self.last_sent) > self.rtt.rto()
        {
            self.recovery.on_idle();
        }
        let chunk = match plan {
            Plan::Next(chunk) => {
                // What fits may have shrunk with an idle restart.
                let chunk = self.sender.next(self.budget()).unwrap_or(chunk);
                self.widen(chunk, env)
            }
            Plan::Again(chunk) | Plan::TailProbe(chunk) | Plan::WindowProbe(chunk) => chunk,
            Plan::Keepalive => Chunk { seq: self.sender.snd_una - 1, len: 0, fin: false },
            Plan::Ack | Plan::Syn => Chunk { seq: self.sender.seq_without_data(), len: 0, fin: false },
        };
        let window = self.receiver.advertise(true, env.memory);
        if window == 0 {
            env.counters.zero_windows_sent.increment();
        }
        let ack = self.receiver.rcv_nxt;
        // RFC 3168 6.1.4 to 6.1.6: only new data may be marked, no acknowledgement, no retransmission, no probe; and only it says that the window is reduced.
        let new = matches!(plan, Plan::Next(_) | Plan::TailProbe(_)) && chunk.len > 0;
        let may_be_marked = self.ecn.may_be_marked() && new && chunk.seq.at_or_after(self.sender.snd_max);
        let cwr = may_be_marked && self.recovery.is_reduced();
        let options = self.options(plan, env);
        let whole = match plan {
            // A reduction is told once, and what may have been lost or is tried goes by itself.
            Plan::Next(_) if offload == Offload::Segmentation && !cwr && chunk.seq == self.sender.snd_max => {
                self.train(chunk, room.len(), &options)
            }
            Plan::Syn | Plan::Again(_) | Plan::TailProbe(_) | Plan::Next(_) => chunk,
            Plan::WindowProbe(_) | Plan::Keepalive | Plan::Ack => chunk,
        };
        let ece = self.ecn.echoes();
        let flags = Flags { fin: whole.fin, psh: self.sender.is_last(whole), ece, cwr, ..Flags::default() };
        let ecn = if may_be_marked { Ecn::Ect0 } else { Ecn::NotEct };
        let payload = if whole.len > 0 { self.sender.payload(whole) } else { Payload::new() };
        let outgoing = Outgoing {
            flow: &self.flow,
            seq: whole.seq,
            ack: Some(ack),
            flags,
            window,
            options,
            ecn,
            payload: &payload,
        };
        let len = outgoing.emit(room, offload != Offload::None);
        drop(payload);
        let len = len?;
        if cwr {
            self.recovery.on_reduction_told();
        }
        self.receiver.on_acknowledged();
        let header = Header { seq: whole.seq, ack: Some(ack), flags, window, len: whole.len, options, ecn };
        let segments = self.on_train_sent(plan, whole, chunk.len, header, env);
        Some(Train { len, payload: u16::try_from(chunk.len).unwrap_or(u16::MAX), segments })
    }

    /// A segment and as many behind it as may leave now and fit a packet of `room` bytes.
    fn train(&self, first: Chunk, room: usize, options: &SegmentOptions) -> Chunk {
        let ip_header = if self.flow.local().is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
        let room = room.min(u16::MAX.into()).saturating_sub(ip_header + TCP_HEADER + options.len());
        // One that is not full has nothing behind it, and one that is longer tries the path.
        if first.len != self.sender.mss || first.fin {
            return first;
        }
        self.sender.train(first, self.budget(), u32::try_from(room).unwrap_or(u32::MAX))
    }

    /// Takes note of what has left, segment by segment, and says how many it was.
    fn on_train_sent(&mut self, plan: Plan, whole: Chunk, size: u32, header: Header, env: Env<'_>) -> u32 {
        let traced = env.tracer.takes(self.timestamp_offset);
        let (mut sent, mut segments) = (0, 0);
        loop {
            let len = (whole.len - sent).min(size);
            let is_last = sent + len == whole.len;
            let chunk = Chunk { seq: whole.seq + sent, len, fin: whole.fin && is_last };
            let reason = traced.then(|| self.reason(plan, chunk.seq));
            self.on_sent(plan, chunk, env);
            if let Some(reason) = reason {
                let flags = Flags { fin: chunk.fin, psh: header.flags.psh && is_last, ..header.flags };
                env.tracer.sent(self, Header { seq: chunk.seq, flags, len, ..header }, reason, env.now);
            }
            sent += len;
            segments += 1;
            if is_last {
                return segments;
            }
        }
    }

    fn options(&self, plan: Plan, env: Env<'_>) -> SegmentOptions {
        let timestamp = self.timestamp(env);
        let sack = if self.sack && plan == Plan::Ack {
            self.receiver.sack_blocks(if timestamp.is_some() { 3 } else { 4 })
        } else {
            [None; 4]
        };
        SegmentOptions { timestamp, sack, ..SegmentOptions::default() }
    }

    fn transmit_syn(&mut self, room: &mut [u8], offload: bool, env: Env<'_>) -> Option<usize> {
        let answer = self.state == State::SynReceived;
        let settings = env.settings;
        let scale = !answer || self.receiver.shift > 0 || self.sender.shift > 0;
        let clock = isn::timestamp(self.timestamp_offset, env.now);
        let timestamp = if answer {
            self.timestamp(env)
        } else {
            settings.timestamps.then_some(Timestamp { value: clock, echo: 0 })
        };
        let again = self.sender.snd_max == self.sender.iss + 1;
        let offers = !answer && self.ecn.offer(settings.ecn, again);
        let header = Header {
            seq: self.sender.iss,
            ack: answer.then_some(self.receiver.rcv_nxt),
            flags: Flags { syn: true, ece: offers || self.ecn.is_capable(), cwr: offers, ..Flags::default() },
            window: window_offered(settings),
            len: 0,
            options: SegmentOptions {
                mss: Some(mss_offered(settings, &self.flow)),
                window_scale: scale.then(|| shift_offered(settings)),
                sack_permitted: if answer { self.sack } else { settings.sack },
                timestamp,
                ..SegmentOptions::default()
            },
            ecn: Ecn::NotEct,
        };
        let Header { seq, ack, flags, window, options, ecn, .. } = header;
        let outgoing = Outgoing { flow: &self.flow, seq, ack, flags, window, options, ecn, payload: &[] };
        let len = outgoing.emit(room, offload)?;
        let traced = env.tracer.takes(self.timestamp_offset).then(|| self.reason(Plan::Syn, self.sender.iss));
        self.syn_wanted = false;
        if answer {
            self.receiver.on_acknowledged();
        }
        let end = self.sender.iss + 1;
        // Karn: a SYN that has been sent before is not timed.
        if again {
            self.timing = None;
            self.retransmitted_at = Some(env.now);
        } else {
            self.timing = Some((end, env.now));
        }
        (self.sender.snd_nxt, self.sender.snd_max) = (end, end);
        self.last_sent = env.now;
        self.retransmit_at = Some(env.now + self.rtt.rto());
        self.unanswered_since.get_or_insert(env.now);
        if let Some(reason) = traced {
            env.tracer.sent(self, header, reason, env.now);
        }
        Some(len)
    }

    /// Why a segment from `seq` on leaves, as the trace says it.
    fn reason(&self, plan: Plan, seq: Seq) -> Reason {
        match plan {
            Plan::Keepalive => Reason::Keepalive,
            Plan::WindowProbe(_) => Reason::WindowProbe,
            Plan::TailProbe(_) => Reason::TailProbe,
            Plan::Syn | Plan::Again(_) | Plan::Next(_) if seq.before(self.sender.snd_max) => Reason::Again,
            Plan::Syn | Plan::Again(_) | Plan::Next(_) | Plan::Ack => Reason::Turn,
        }
    }

    fn on_sent(&mut self, plan: Plan, chunk: Chunk, env: Env<'_>) {
        let end = chunk.seq + chunk.len + u32::from(chunk.fin);
        let again = match plan {
            Plan::Syn | Plan::Ack => return,
            Plan::Keepalive => {
                self.keepalive_probe = false;
                env.counters.keepalive_probes.increment();
                return;
            }
            Plan::WindowProbe(_) => {
                self.window_probe = false;
                env.counters.window_probes.increment();
                // It may be dropped, so it does not count as sent; but it may also be acknowledged.
                self.sender.snd_max = self.sender.snd_max.max(end);
                // It may be too long for the path, like any other.
                self.path.on_sent(chunk.len, end);
                self.timing = None;
                self.unanswered_since.get_or_insert(env.now);
                return;
            }
            Plan::Again(_) => {
                self.retransmit = false;
                true
            }
            Plan::Next(_) | Plan::TailProbe(_) => {
                let again = chunk.seq.before(self.sender.snd_max);
                self.sender.snd_nxt = self.sender.snd_nxt.max(end);
                again
            }
        };
        if let Plan::TailProbe(_) = plan {
            env.counters.tail_probes.increment();
            self.timing = self.timing.filter(|_| !again);
        }
        self.path.on_sent(chunk.len, end);
        if again {
            env.counters.retransmitted.increment();
            self.retransmitted_at = Some(env.now);
        } else if self.timing.is_none() {
            self.timing = Some((end, env.now));
        }
        self.sender.snd_max = self.sender.snd_max.max(end);
        self.last_sent = env.now;
        self.on_sent_selectively(plan, chunk, env);
        self.retransmit_at.get_or_insert_with(|| env.now + self.rtt.rto());
        self.unanswered_since.get_or_insert(env.now);
        self.persist_at = None;
        self.window_probe = false;
    }

    fn on_sent_selectively(&mut self, plan: Plan, chunk: Chunk, env: Env<'_>) {
        if !self.sack {
            return;
        }
        let clock = isn::timestamp(self.timestamp_offset, env.now);
        let end = chunk.seq + chunk.len + u32::from(chunk.fin);
        let selective = self.selective.get_or_insert_with(|| Box::new(Selective::new(chunk.seq, self.learned)));
        let again = end.at_or_before(selective.board.end());
        if again {
            selective.board.on_sent_again(chunk.seq, end, env.now);
        } else {
            selective.board.on_sent(end, env.now);
        }
        selective.on_sent(end.since(chunk.seq), again.then_some(chunk.seq), clock);
        let rto_at = || env.now + self.rtt.rto();
        match plan {
            Plan::TailProbe(_) => {
                selective.board.on_probed(end, again);
                self.retransmit_at = Some(rto_at());
            }
            Plan::Next(_) => {
                let rto_at = self.retransmit_at.unwrap_or_else(rto_at);
                let recovering = selective.is_recovering();
                selective.board.schedule_probe(recovering, self.rtt.srtt(), rto_at, env.now);
            }
            Plan::Syn | Plan::Again(_) | Plan::WindowProbe(_) | Plan::Keepalive | Plan::Ack => {}
        }
    }

    /// The timestamps option of a segment that leaves now.
    pub(super) fn timestamp(&self, env: Env<'_>) -> Option<Timestamp> {
        let value = isn::timestamp(self.timestamp_offset, env.now);
        self.timestamps.map(|known| Timestamp { value, echo: known.recent })
    }

    /// SND.NXT and RCV.NXT, as whoever speaks for the connection after its end needs them.
    pub(super) fn last_numbers(&self) -> (Seq, Seq) {
        (self.sender.seq_without_data(), self.receiver.rcv_nxt)
    }
}
