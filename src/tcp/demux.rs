//! Which table a received segment belongs to, and what happens to those that belong to no connection (RFC 9293 3.10.7.1, 3.10.7.2).

use smallvec::SmallVec;

use crate::base::{Flow, Instant};
use crate::tcp::ahead::AHEAD;
use crate::tcp::arrive::Response;
use crate::tcp::connection::{Connection, Env, mss_accepted, mss_offered, shift_offered, window_offered};
use crate::tcp::cookie::Offer;
use crate::tcp::ecn::is_setup;
use crate::tcp::half_open::{HalfOpen, RETRIES};
use crate::tcp::index::{Key, Place};
use crate::tcp::isn::{self, Origin};
use crate::tcp::memory::Memory;
use crate::tcp::source::{Excess, Limits};
use crate::tcp::stack::{Alarm, Reply, Stack};
use crate::tcp::state::State;
use crate::tcp::time_wait::Answer;
use crate::tcp::{EcnMode, Token};
use crate::wire::{Flags, Segment, SegmentOptions, Seq, Timestamp};

impl Stack {
    /// Takes a burst of received segments. That is [`on_segment`](Self::on_segment) for each, but what the burst needs of the tables comes from memory all at
    /// once and not one after the other, which is what a segment costs with a million connections.
    pub fn on_segments(&mut self, burst: &[(Flow, Segment<'_>)], now: Instant) {
        if !self.should_look_ahead() {
            for (flow, segment) in burst {
                self.on_keyed_segment(flow, self.index.key(flow), segment, now);
            }
            return self.publish();
        }
        for burst in burst.chunks(AHEAD) {
            let mut keys: SmallVec<[Key; AHEAD]> = SmallVec::new();
            keys.extend(burst.iter().map(|(flow, _)| self.index.key(flow)));
            let places: SmallVec<[Option<Place>; AHEAD]> = keys.iter().map(|key| self.index.guess(*key)).collect();
            self.touch(places.iter().flatten().filter_map(|place| match *place {
                Place::Connection(index) => Some(index),
                Place::HalfOpen(_) | Place::TimeWait(_) => None,
            }));
            for ((flow, segment), key) in burst.iter().zip(&keys) {
                self.on_keyed_segment(flow, *key, segment, now);
            }
        }
        self.publish();
    }

    /// Takes one received segment.
    pub fn on_segment(&mut self, flow: &Flow, segment: &Segment<'_>, now: Instant) {
        self.on_keyed_segment(flow, self.index.key(flow), segment, now);
        self.publish();
    }

    fn on_keyed_segment(&mut self, flow: &Flow, key: Key, segment: &Segment<'_>, now: Instant) {
        self.counters.segments_received.increment();
        let place = self.place_with(key, flow);
        match place {
            Some(Place::Connection(index)) => self.on_connection(index, segment, now),
            Some(Place::HalfOpen(index)) => self.on_half_open(index, segment, now),
            Some(Place::TimeWait(index)) => self.on_time_wait(index, segment, now),
            None => self.on_stranger(flow, segment, None, now),
        }
        let is_connection = |place| matches!(place, Some(Place::Connection(_)));
        // A connection that has just come of it has traced the segment itself.
        if !is_connection(place) && self.is_traced(flow) && !is_connection(self.place_of(flow)) {
            self.tracer.received_alone(flow, segment, now);
        }
    }

    fn on_connection(&mut self, index: u32, segment: &Segment<'_>, now: Instant) {
        let (settings, counters, memory, tracer) = (&self.settings, &*self.counters, self.memory(), &self.tracer);
        let Some(connection) = self.connections.at_mut(index) else { return };
        let flow = connection.flow;
        let env = Env { settings, counters, now, memory, tracer };
        let opening = connection.state == State::SynSent;
        let response = connection.on_segment(segment, env);
        if opening
            && connection.state != State::SynSent
            && connection.over.is_none()
            && let Some(known) = self.paths.find(flow.remote().ip(), now)
        {
            connection.start_on_path(known, env);
        }
        tracer.received(connection, segment, now);
        match response {
            Response::None => {}
            Response::Reset(seq) => self.send_reset(&flow, seq, None, now),
        }
        self.settle(index, now);
    }

    /// A segment of a flow that nobody knows. `after` is the sequence number that a new connection must start behind.
    fn on_stranger(&mut self, flow: &Flow, segment: &Segment<'_>, after: Option<Seq>, now: Instant) {
        let counters = &self.counters;
        if segment.flags.rst {
            counters.strangers.increment();
            return;
        }
        let listener = self.listeners.get(&flow.local_key()).copied();
        let (Some(token), true, None) = (listener, segment.flags.syn, segment.ack) else {
            if segment.flags.syn && listener.is_none() {
                counters.no_listener.increment();
            } else if listener.is_some_and(|token| self.on_cookie(flow, token, segment, now)) {
                return;
            } else {
                self.counters.strangers.increment();
            }
            return self.refuse(flow, segment, now);
        };
        if self.connections.len() + self.half_open.len() >= self.settings.connections_max {
            counters.table_full.increment();
            return;
        }
        if self.memory() == Memory::Exhausted {
            counters.memory_full.increment();
            return;
        }
        // A SYN may be forged: it is not answered, so that nobody else is sent our resets, and whoever is honest sends it again.
        if let Err(excess) = self.sources.may_open(flow, Limits::of(&self.settings), now) {
            return self.count_excess(excess);
        }
        let origin = self.isn.origin(flow);
        let mut half = self.half_open_for(flow, token, segment, origin, now);
        if self.half_open.len() >= self.settings.half_open_max {
            self.counters.half_open_full.increment();
            return self.send_cookie(half, origin, after.is_some(), now);
        }
        // Where no cookie can answer there is no limit. A connection in TIME-WAIT has proven its address.
        let max = self.settings.source_half_open_max.filter(|_| self.settings.syn_cookies && after.is_none());
        match self.sources.begin(flow, max, now) {
            Ok(source) => half.source = source,
            Err(excess) => {
                self.count_excess(excess);
                return self.send_cookie(half, origin, false, now);
            }
        }
        self.remember_half_open(half, after, now);
    }

    fn half_open_for(
        &self,
        flow: &Flow,
        token: Token,
        segment: &Segment<'_>,
        origin: Origin,
        now: Instant,
    ) -> HalfOpen {
        let options = &segment.options;
        HalfOpen {
            flow: *flow,
            key: self.index.key(flow),
            token,
            iss: origin.sequence(now),
            irs: segment.seq,
            mss: mss_accepted(options, flow).min(mss_offered(&self.settings, flow)),
            window: segment.window,
            window_scale: options.window_scale,
            sack: options.sack_permitted && self.settings.sack,
            ecn: is_setup(segment) && self.settings.ecn != EcnMode::Off,
            timestamp: options.timestamp.filter(|_| self.settings.timestamps).map(|timestamp| timestamp.value),
            timestamp_offset: origin.timestamp_offset(),
            retries: 0,
            sent_at: Some(now),
            timer: None,
            source: None,
        }
    }

    fn remember_half_open(&mut self, mut half: HalfOpen, after: Option<Seq>, now: Instant) {
        if let Some(after) = after
            && half.iss.at_or_before(after)
        {
            // RFC 9293 3.6.1: a connection that follows one in TIME-WAIT starts behind its last sequence number.
            half.iss = after + 1_000_000;
        }
        let (key, deadline) = (half.key, half.next_retry(now));
        let index = u32::try_from(self.half_open.insert(half)).unwrap_or(u32::MAX);
        let timer = self.timers.arm(deadline, Alarm::HalfOpen(index));
        if let Some(half) = self.half_open.get_mut(index as usize) {
            half.timer = Some(timer);
        }
        self.index.insert(key, Place::HalfOpen(index));
        self.send_syn_ack(index, now);
    }

    /// Answers a SYN without keeping anything. One that follows a connection in TIME-WAIT needs a number of its own and is dropped.
    fn send_cookie(&mut self, mut half: HalfOpen, origin: Origin, follows: bool, now: Instant) {
        if follows || !self.settings.syn_cookies {
            return;
        }
        let timestamps = half.timestamp.is_some();
        // There is a bit for it only where the echo of a timestamp proves as much as the bit did.
        half.ecn &= timestamps;
        let offer = Offer { mss: half.mss, window_scale: half.window_scale, sack: half.sack, ecn: half.ecn };
        let Some(iss) = self.cookies.bake(origin, half.irs, offer, timestamps, now) else { return };
        half.iss = iss;
        self.counters.cookies_sent.increment();
        let reply = self.syn_ack(&half, now);
        self.reply(reply);
    }

    /// An acknowledgement to a listener, of a flow that nobody knows. Gives whether it was the answer to a cookie, or may be what follows one.
    fn on_cookie(&mut self, flow: &Flow, token: Token, segment: &Segment<'_>, now: Instant) -> bool {
        let Some(ack) = segment.ack.filter(|_| !segment.flags.syn && self.cookies.are_out(now)) else { return false };
        let (irs, iss) = (segment.seq - 1, ack - 1);
        let origin = self.isn.origin(flow);
        let timestamp = segment.options.timestamp.filter(|_| self.settings.timestamps);
        let Some(offer) = self.cookies.check(origin, irs, iss, timestamp, now) else {
            self.counters.cookies_refused.increment();
            // The first segment of an honest client may have been lost, with which this one would be right: the client sends it again, unless it is reset.
            return !segment.payload.is_empty();
        };
        if self.memory() == Memory::Exhausted {
            self.counters.memory_full.increment();
            return true;
        }
        self.counters.cookies_accepted.increment();
        let Offer { mss, window_scale, sack, ecn } = offer;
        let (window, timestamp) = (segment.window, timestamp.map(|timestamp| timestamp.value));
        // When SYN-ACK left, and how often the SYN came, is not known.
        let (retries, sent_at, timer) = (0, None, None);
        let flow = *flow;
        let half = HalfOpen {
            flow,
            key: self.index.key(&flow),
            token,
            iss,
            irs,
            mss,
            window,
            window_scale,
            sack,
            ecn,
            timestamp,
            timestamp_offset: origin.timestamp_offset(),
            retries,
            sent_at,
            timer,
            source: None,
        };
        self.promote(&half, segment, now);
        true
    }

    fn send_syn_ack(&mut self, index: u32, now: Instant) {
        let Some(half) = self.half_open.get(index as usize) else { return };
        let reply = self.syn_ack(half, now);
        self.reply(reply);
    }

    fn syn_ack(&self, half: &HalfOpen, now: Instant) -> Reply {
        let clock = isn::timestamp(half.timestamp_offset, now);
        Reply {
            flow: half.flow,
            seq: half.iss,
            ack: Some(half.irs + 1),
            flags: Flags { syn: true, ece: half.ecn, ..Flags::default() },
            window: window_offered(&self.settings),
            options: half.options(mss_offered(&self.settings, &half.flow), shift_offered(&self.settings), clock),
        }
    }

    /// SYN-RECEIVED of a passive open (RFC 9293 3.10.7.4).
    fn on_half_open(&mut self, index: u32, segment: &Segment<'_>, now: Instant) {
        let Some(half) = self.half_open.get_mut(index as usize) else { return };
        let (flow, iss, irs) = (half.flow, half.iss, half.irs);
        let rcv_nxt = irs + 1;
        let acceptable = segment.seq.at_or_after(rcv_nxt)
            && segment.seq.at_or_before(rcv_nxt + u32::from(window_offered(&self.settings)));
        if segment.flags.rst {
            if segment.seq == rcv_nxt {
                self.counters.half_open_reset.increment();
                self.forget_half_open(index, now);
            } else {
                self.counters.resets_ignored.increment();
            }
        } else if segment.flags.syn {
            if segment.seq == irs && segment.ack.is_none() {
                // The SYN came again: our answer was lost. One that does without ECN now means that (RFC 3168 6.1.1.1).
                half.ecn &= is_setup(segment);
                self.counters.syn_acks_retransmitted.increment();
                self.send_syn_ack(index, now);
            } else {
                self.challenge_half_open(index, now);
            }
        } else if !acceptable {
            self.counters.out_of_window.increment();
            self.challenge_half_open(index, now);
        } else if segment.ack != Some(iss + 1) {
            match segment.ack {
                Some(ack) => {
                    self.counters.bad_acks.increment();
                    self.send_reset(&flow, ack, None, now);
                }
                None => self.counters.without_ack.increment(),
            }
        } else {
            let half = half.clone();
            self.forget_half_open(index, now);
            self.promote(&half, segment, now);
        }
    }

    fn challenge_half_open(&mut self, index: u32, now: Instant) {
        let Some(half) = self.half_open.get(index as usize) else { return };
        let (flow, seq, ack) = (half.flow, half.iss + 1, half.irs + 1);
        let echo = half.timestamp;
        // Answers to strangers share the resets' limit: without it two confused ends could talk for ever.
        if !self.reset_limit.take(now) {
            self.counters.challenge_acks_limited.increment();
            return;
        }
        self.counters.challenge_acks.increment();
        let options = self.timestamp_option(&flow, echo, now);
        let window = window_offered(&self.settings) >> shift_offered(&self.settings);
        self.reply(Reply { flow, seq, ack: Some(ack), flags: Flags::default(), window, options });
    }

    fn timestamp_option(&self, flow: &Flow, echo: Option<u32>, now: Instant) -> SegmentOptions {
        let value = isn::timestamp(self.isn.origin(flow).timestamp_offset(), now);
        SegmentOptions { timestamp: echo.map(|echo| Timestamp { value, echo }), ..SegmentOptions::default() }
    }

    /// The handshake is complete.
    fn promote(&mut self, half: &HalfOpen, segment: &Segment<'_>, now: Instant) {
        if self.connections.len() >= self.settings.connections_max {
            // Connections that we opened have taken the places since the SYN came. The peer should know.
            self.counters.table_full.increment();
            return self.send_reset(&half.flow, half.iss + 1, None, now);
        }
        let source = match self.sources.open(&half.flow, Limits::of(&self.settings), now) {
            Ok(source) => source,
            Err(excess) => {
                // The peer takes the connection for open.
                self.count_excess(excess);
                return self.send_reset(&half.flow, half.iss + 1, None, now);
            }
        };
        let mut connection = Connection::accept(half, half.timestamp_offset, self.env(now));
        if let Some(known) = self.paths.find(half.flow.remote().ip(), now) {
            connection.start_on_path(known, self.env(now));
        }
        connection.source = source;
        connection.measure_handshake(segment, now);
        let index = self.connections.insert(connection);
        self.index.insert(half.key, Place::Connection(index));
        self.counters.accepted.increment();
        self.on_connection(index, segment, now);
    }

    fn count_excess(&self, excess: Excess) {
        let counters = &self.counters;
        let counter = match excess {
            Excess::Connections => &counters.source_connections_full,
            Excess::Rate => &counters.source_rate_full,
            Excess::HalfOpen => &counters.source_half_open_full,
        };
        counter.increment();
    }

    pub(super) fn on_half_open_timeout(&mut self, index: u32, now: Instant) {
        let Some(half) = self.half_open.get_mut(index as usize) else { return };
        half.timer = None;
        if half.retries >= RETRIES {
            self.counters.half_open_timed_out.increment();
            return self.forget_half_open(index, now);
        }
        half.retries += 1;
        half.timer = Some(self.timers.arm(half.next_retry(now), Alarm::HalfOpen(index)));
        self.counters.syn_acks_retransmitted.increment();
        self.send_syn_ack(index, now);
    }

    fn forget_half_open(&mut self, index: u32, now: Instant) {
        let Some(half) = self.half_open.try_remove(index as usize) else { return };
        if let Some(timer) = half.timer {
            self.timers.cancel(timer);
        }
        if let Some(source) = half.source
            && self.sources.ended(source, now)
        {
            self.counters.sources_forgotten.increment();
        }
        self.index.remove(half.key, Place::HalfOpen(index));
    }

    fn on_time_wait(&mut self, index: u32, segment: &Segment<'_>, now: Instant) {
        let Some(entry) = self.time_wait.at(index).copied() else { return };
        match entry.answer(segment) {
            Answer::Nothing => {}
            Answer::Ack => self.acknowledge_time_wait(index, now),
            Answer::AckAndRestart => {
                self.time_wait.restart(index, now);
                self.acknowledge_time_wait(index, now);
            }
            Answer::Reopen if self.listeners.contains_key(&entry.flow.local_key()) => {
                self.counters.time_wait_reopened.increment();
                self.forget_time_wait(index);
                self.on_stranger(&entry.flow, segment, Some(entry.snd_nxt), now);
            }
            Answer::Reopen => self.acknowledge_time_wait(index, now),
        }
    }

    fn acknowledge_time_wait(&mut self, index: u32, now: Instant) {
        let Some(&entry) = self.time_wait.at(index) else { return };
        if !self.reset_limit.take(now) {
            self.counters.challenge_acks_limited.increment();
            return;
        }
        let options = self.timestamp_option(&entry.flow, Some(entry.ts_recent).filter(|recent| *recent != 0), now);
        let (flow, seq, ack) = (entry.flow, entry.snd_nxt, Some(entry.rcv_nxt));
        self.reply(Reply { flow, seq, ack, flags: Flags::default(), window: 0, options });
    }

    /// RFC 9293 3.10.7.1: resets whoever sent this.
    fn refuse(&mut self, flow: &Flow, segment: &Segment<'_>, now: Instant) {
        match segment.ack {
            Some(ack) => self.send_reset(flow, ack, None, now),
            None => self.send_reset(flow, Seq(0), Some(segment.seq + segment.sequence_len()), now),
        }
    }

    fn send_reset(&mut self, flow: &Flow, seq: Seq, ack: Option<Seq>, now: Instant) {
        if !self.reset_limit.take(now) {
            self.counters.resets_limited.increment();
            return;
        }
        self.counters.resets_sent.increment();
        let flags = Flags { rst: true, ..Flags::default() };
        self.reply(Reply { flow: *flow, seq, ack, flags, window: 0, options: SegmentOptions::default() });
    }
}
