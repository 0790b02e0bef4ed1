//! What a received segment does to a connection (RFC 9293 3.10.7, with RFC 5961).

use crate::base::{Duration, Instant};
use crate::tcp::Close;
use crate::tcp::connection::{Connection, Env, Timestamps};
use crate::tcp::receive::Taken;
use crate::tcp::recovery::Verdict;
use crate::tcp::selective::Ack;
use crate::tcp::state::{State, Step};
use crate::wire::{Ecn, Segment, Seq};

/// RFC 5961 7 wants challenge ACKs limited. Ours are limited for each connection alone: a limit that connections share tells an
/// outsider what happens on others (CVE-2016-5696).
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);
/// RFC 7323 5.5: after so long a silence TS.Recent proves nothing.
const TIMESTAMP_VALID: Duration = Duration::from_secs(24 * 24 * 3600);

/// What the stack must send in answer, beside what the connection wants to send by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// Nothing.
    None,
    /// A reset with this sequence number and no acknowledgement.
    Reset(Seq),
}

impl Connection {
    pub(super) fn on_segment(&mut self, segment: &Segment<'_>, env: Env<'_>) -> Response {
        if self.state == State::SynSent {
            return self.on_segment_in_syn_sent(segment, env);
        }
        let mut segment = *segment;
        // RFC 9293 figure 8: the SYN,ACK of a simultaneous open repeats a SYN that we have taken.
        if self.state == State::SynReceived && segment.flags.syn && segment.seq + 1 == self.receiver.rcv_nxt {
            self.ecn.on_syn(&segment);
            (segment.flags.syn, segment.flags.ece, segment.flags.cwr) = (false, false, false);
            segment.seq = segment.seq + 1;
        }
        if !self.is_acceptable(&mut segment, env) {
            return Response::None;
        }
        self.learn_timestamp(&segment, env);
        self.last_received = env.now;
        self.keepalive_probes = 0;
        if segment.flags.rst {
            self.on_reset(&segment, env);
            return Response::None;
        }
        if segment.flags.syn {
            // RFC 5961 4.2: whoever really lost this connection will answer the challenge with a reset.
            self.challenge(env);
            return Response::None;
        }
        let Some(ack) = segment.ack else {
            env.counters.without_ack.increment();
            return Response::None;
        };
        if self.state == State::SynReceived {
            if !(ack.after(self.sender.snd_una) && ack.at_or_before(self.sender.snd_max)) {
                return Response::Reset(ack);
            }
            let window = u32::from(segment.window) << self.sender.shift;
            self.sender.set_window(segment.seq, window);
            self.establish();
        }
        if !self.on_ack(ack, &segment, env) {
            return Response::None;
        }
        if self.over.is_none() && self.state.receives() {
            self.on_marks(&segment, env);
            self.on_payload(&segment, env);
        }
        Response::None
    }

    fn on_segment_in_syn_sent(&mut self, segment: &Segment<'_>, env: Env<'_>) -> Response {
        if let Some(ack) = segment.ack
            && (ack.at_or_before(self.sender.iss) || ack.after(self.sender.snd_max))
        {
            env.counters.bad_acks.increment();
            return if segment.flags.rst { Response::None } else { Response::Reset(ack) };
        }
        if segment.flags.rst {
            // RFC 5961 3.2 in SYN-SENT: only one that acknowledges our SYN.
            if segment.ack.is_some() {
                env.counters.resets_received.increment();
                self.end(Close::Refused);
            }
            return Response::None;
        }
        if !segment.flags.syn {
            return Response::None;
        }
        self.last_received = env.now;
        let lost = self.rtt.rto() > crate::tcp::rtt::RTO_INITIAL;
        self.negotiate(segment.seq, &segment.options, env);
        self.ecn.on_syn(segment);
        if lost {
            self.recovery.on_syn_lost();
        }
        let window = u32::from(segment.window);
        let Some(ack) = segment.ack else {
            self.sender.set_window(segment.seq, window);
            self.state = State::SynReceived;
            self.syn_wanted = true;
            return Response::None;
        };
        self.sender.set_window(segment.seq, window);
        self.on_progress(ack, segment, env);
        if lost {
            self.rtt.on_syn_lost();
        }
        self.receiver.request_ack();
        self.establish();
        // RFC 9293 3.10.7.3: data and FIN may come with the SYN.
        if !segment.payload.is_empty() || segment.flags.fin {
            let data = Segment { seq: segment.seq + 1, ..*segment };
            self.on_payload(&data, env);
        }
        Response::None
    }

    fn establish(&mut self) {
        self.state = State::Established;
        // Both have opened, and our SYN,ACK waits to leave: something else must acknowledge the peer's SYN.
        if std::mem::take(&mut self.syn_wanted) {
            self.receiver.request_ack();
        }
        self.news.connected = true;
        if self.sender.fin {
            self.step(Step::Shutdown);
        }
    }

    /// RFC 9293 3.10.7.4, first: the segment must touch the window. One that is to be dropped is answered here.
    fn is_acceptable(&mut self, segment: &mut Segment<'_>, env: Env<'_>) -> bool {
        let (len, window) = (segment.sequence_len(), self.receiver.window());
        let (seq, rcv_nxt) = (segment.seq, self.receiver.rcv_nxt);
        let edge = rcv_nxt + window;
        let inside = |number: Seq| number.at_or_after(rcv_nxt) && number.before(edge);
        if self.is_old_by_timestamp(segment, env) {
            env.counters.paws_dropped.increment();
            self.answer_unacceptable(segment, env);
            return false;
        }
        let acceptable = match (len, window) {
            (0, 0) => seq == rcv_nxt,
            (0, _) => inside(seq) || (seq == edge && !segment.flags.rst),
            (_, 0) => false,
            (_, _) => inside(seq) || inside(seq + (len - 1)) || (seq.before(rcv_nxt) && (seq + len).after(edge)),
        };
        if acceptable {
            return true;
        }
        if segment.flags.rst {
            env.counters.resets_ignored.increment();
            return false;
        }
        // RFC 9293 3.10.7.4: with a closed window, acknowledgements are still heard. What they carry is not taken.
        if window == 0 && seq == rcv_nxt && !segment.flags.syn {
            env.counters.beyond_window.increment();
            segment.payload = &[];
            segment.flags.fin = false;
            self.receiver.request_ack();
            return true;
        }
        env.counters.out_of_window.increment();
        // RFC 7323 4.3: the echo of what was sent again must be its own, or its sender takes the whole outage for a round trip.
        let recent = (seq + len).at_or_before(rcv_nxt) && rcv_nxt.since(seq) as usize <= env.settings.receive_buffer;
        if recent && segment.ack.is_some_and(|ack| self.ack_is_possible(ack)) {
            self.learn_timestamp(segment, env);
        }
        // A keepalive probe is a sign of life.
        if seq + 1 == rcv_nxt {
            self.last_received = env.now;
        }
        self.answer_unacceptable(segment, env);
        false
    }

    /// Retransmitted data means that our ACK was lost. Anything else could be half of an endless exchange of ACKs.
    fn answer_unacceptable(&mut self, segment: &Segment<'_>, env: Env<'_>) {
        if segment.payload.is_empty() && !segment.flags.fin {
            self.challenge(env);
        } else {
            self.receiver.note_duplicate(segment.seq, u32::try_from(segment.payload.len()).unwrap_or(u32::MAX));
            self.receiver.request_ack();
        }
    }

    /// PAWS (RFC 7323 5.3). A reset is not judged by its timestamp.
    fn is_old_by_timestamp(&self, segment: &Segment<'_>, env: Env<'_>) -> bool {
        let (Some(known), Some(timestamp)) = (self.timestamps, segment.options.timestamp) else { return false };
        let valid = env.now.since(known.recent_at) < TIMESTAMP_VALID;
        valid && !segment.flags.rst && Seq(timestamp.value).before(Seq(known.recent))
    }

    /// TS.Recent's update (RFC 7323 4.3): only by segments inside the window, or anybody could poison it.
    fn learn_timestamp(&mut self, segment: &Segment<'_>, env: Env<'_>) {
        if let (Some(known), Some(timestamp)) = (&mut self.timestamps, segment.options.timestamp)
            && segment.seq.at_or_before(self.receiver.last_ack_sent)
            && !segment.flags.rst
        {
            *known = Timestamps { recent: timestamp.value, recent_at: env.now };
        }
    }

    /// RFC 5961 3.2: only the exact sequence number resets at once.
    fn on_reset(&mut self, segment: &Segment<'_>, env: Env<'_>) {
        if segment.seq != self.receiver.rcv_nxt {
            return self.challenge(env);
        }
        env.counters.resets_received.increment();
        self.end(if self.state == State::SynReceived { Close::Refused } else { Close::Reset });
    }

    /// Acknowledges what we have, for the peer to think again.
    pub(super) fn challenge(&mut self, env: Env<'_>) {
        if env.now < self.challenge_allowed_at {
            env.counters.challenge_acks_limited.increment();
            return;
        }
        self.challenge_allowed_at = env.now + CHALLENGE_INTERVAL;
        env.counters.challenge_acks.increment();
        self.receiver.request_ack();
    }

    /// RFC 5961 5.2.
    fn ack_is_possible(&self, ack: Seq) -> bool {
        let oldest = self.sender.snd_una - self.sender.max_window;
        ack.at_or_before(self.sender.snd_max) && ack.at_or_after(oldest)
    }

    /// Gives whether the segment may be processed further.
    fn on_ack(&mut self, ack: Seq, segment: &Segment<'_>, env: Env<'_>) -> bool {
        if !self.ack_is_possible(ack) {
            env.counters.bad_acks.increment();
            self.challenge(env);
            return false;
        }
        if ack.after(self.sender.snd_una) {
            self.sender.on_window(segment.seq, ack, segment.window);
            self.on_progress(ack, segment, env);
            return true;
        }
        let before = self.sender.snd_wnd;
        let updated = ack == self.sender.snd_una && self.sender.on_window(segment.seq, ack, segment.window);
        if updated && before == 0 {
            self.on_window_open(env.now);
        }
        if updated && self.sender.snd_wnd == 0 {
            env.counters.zero_windows_received.increment();
        }
        // RFC 5681 2: what a duplicate acknowledgement is. The answer to a window probe is none: the probe is not in flight.
        let duplicate = ack == self.sender.snd_una
            && !updated
            && self.sender.flight() > 0
            && segment.payload.is_empty()
            && !segment.flags.fin;
        if duplicate {
            env.counters.duplicate_acks.increment();
        }
        if self.selective.is_some() {
            self.on_selective_ack(ack, segment, duplicate && segment.options.sack[0].is_none(), env);
        } else if duplicate {
            let (una, max) = (self.sender.snd_una, self.sender.snd_max);
            if self.recovery.on_duplicate(una, max, self.sender.flight()) == Verdict::Retransmit {
                env.counters.fast_retransmits.increment();
                self.retransmit = true;
                self.timing = None;
            }
        }
        if self.selective.is_none() && ack == self.sender.snd_una {
            self.on_echo(ack, segment, self.sender.flight(), env);
        }
        // The peer answers a probe: it lives, whatever its window says (RFC 9293 3.8.6.1).
        if self.persist_at.is_some() {
            self.unanswered_since = None;
        }
        true
    }

    /// SND.UNA moves.
    fn on_progress(&mut self, ack: Seq, segment: &Segment<'_>, env: Env<'_>) {
        let flight = self.sender.flight().max(ack.since(self.sender.snd_una));
        let newly = ack.since(self.sender.snd_una);
        let handshake = self.sender.snd_una == self.sender.iss;
        self.sender.on_ack(ack);
        self.on_path_ack(ack, env);
        self.measure(ack, segment, env.now);
        if self.selective.is_some() {
            self.on_selective_ack(ack, segment, false, env);
        } else if !handshake
            && self.recovery.on_ack(ack, newly, flight, self.rtt.srtt(), self.ecn.is_echo(segment), env.now)
                == Verdict::Retransmit
        {
            env.counters.fast_retransmits.increment();
            self.retransmit = true;
            self.timing = None;
        } else {
            self.retransmit = false;
        }
        // RFC 6298 5.2 and 5.3.
        let outstanding = self.sender.outstanding();
        self.retransmit_at = (outstanding || self.ecn.is_held()).then(|| env.now + self.rtt.rto());
        self.schedule_probe(env.now);
        self.unanswered_since = outstanding.then_some(env.now);
        if self.selective.is_none() {
            self.on_echo(ack, segment, flight, env);
        }
        self.persist_backoff = 0;
        self.persist_at = None;
        if self.sender.unblock(env.memory) {
            self.news.writable = true;
        }
        if self.sender.fin_acknowledged() {
            self.step(Step::FinAcknowledged);
        }
    }

    /// What an acknowledgement says where there is SACK.
    fn on_selective_ack(&mut self, ack: Seq, segment: &Segment<'_>, bare: bool, env: Env<'_>) {
        let Some(selective) = &mut self.selective else { return };
        let echo = segment.options.timestamp.filter(|_| self.timestamps.is_some()).map(|timestamp| timestamp.echo);
        let clock = crate::tcp::isn::timestamp(self.timestamp_offset, env.now);
        let age = echo.filter(|echo| *echo != 0);
        let age = age.map(|echo| Duration::from_millis(clock.wrapping_sub(echo).into()));
        let (blocks, srtt) = (&segment.options.sack, self.rtt.srtt());
        let moves = ack.after(selective.board.start());
        let echo_of_mark = self.ecn.is_echo(segment) && ack.at_or_after(selective.board.start());
        let smallest = self.recovery.is_smallest();
        let probe = self.path.probe();
        let ack = Ack { ack, blocks, moves, bare, echo, age, srtt, echo_of_mark, probe };
        let answer = selective.on_ack(ack, &mut self.recovery, env);
        if answer.lost {
            self.timing = None;
            self.on_path_loss(answer.only_the_probe, env);
        }
        if answer.marked && smallest {
            self.hold(env);
        }
    }

    /// The same of marks where there is no SACK; `flight` bytes were out.
    fn on_echo(&mut self, ack: Seq, segment: &Segment<'_>, flight: u32, env: Env<'_>) {
        let smallest = self.recovery.is_smallest();
        if self.ecn.is_echo(segment) && self.recovery.on_echo(ack, self.sender.snd_max, flight) {
            env.counters.mark_reductions.increment();
            if smallest {
                self.hold(env);
            }
        }
    }

    /// RFC 3168 6.1.2: a window of one segment shrinks by waiting for the retransmission timer.
    fn hold(&mut self, env: Env<'_>) {
        self.ecn.hold();
        self.retransmit_at = Some(env.now + self.rtt.rto());
    }

    /// RFC 3168 6.1.3: whoever receives a marked segment says so in every acknowledgement until the sender has reduced its window.
    fn on_marks(&mut self, segment: &Segment<'_>, env: Env<'_>) {
        if !self.ecn.is_capable() {
            return;
        }
        let with_data = !segment.payload.is_empty();
        if segment.flags.cwr {
            self.ecn.on_reduced();
            // The peer's window may be so small that it waits for this acknowledgement alone.
            if with_data {
                self.receiver.request_ack();
            }
        }
        if segment.ecn == Ecn::Ce && with_data {
            env.counters.marks_received.increment();
            if self.ecn.on_mark() {
                self.receiver.request_ack();
            }
        }
    }

    fn schedule_probe(&mut self, now: Instant) {
        if let (Some(selective), Some(rto_at)) = (&mut self.selective, self.retransmit_at) {
            let recovering = selective.is_recovering();
            selective.board.schedule_probe(recovering, self.rtt.srtt(), rto_at, now);
        }
    }

    fn measure(&mut self, ack: Seq, segment: &Segment<'_>, now: Instant) {
        if let Some((end, sent_at)) = self.timing {
            if ack.at_or_after(end) {
                self.rtt.on_sample(now.since(sent_at));
                self.timing = None;
            }
        } else if let (Some(timestamp), Some(_), false) =
            (segment.options.timestamp, self.timestamps, segment.flags.syn)
        {
            // Nothing is being timed, so something was sent twice: only the echo tells which one this answers (RFC 7323 4). A SYN,ACK tells
            // nothing: its sender repeats it by its own clock, with the same echo, and a wrong first sample weighs most.
            let clock = crate::tcp::isn::timestamp(self.timestamp_offset, now);
            let age = Duration::from_millis(clock.wrapping_sub(timestamp.echo).into());
            // An echo from before the last retransmission may mean a long way or a lost ACK, so it is no sample.
            let behind = self.retransmitted_at.is_some_and(|at| age > now.since(at) + Duration::from_millis(1));
            if timestamp.echo != 0 && !behind {
                self.rtt.on_sample(age);
            }
        }
    }

    /// The acknowledgement of our SYN,ACK has come. Where that was sent twice, or by a cookie, its time is not known, and the echo tells it (RFC 7323 4).
    pub(super) fn measure_handshake(&mut self, segment: &Segment<'_>, now: Instant) {
        let echo = self.timestamps.and(segment.options.timestamp).map_or(0, |timestamp| timestamp.echo);
        let clock = crate::tcp::isn::timestamp(self.timestamp_offset, now);
        let age = Duration::from_millis(clock.wrapping_sub(echo).into());
        // What is older than the timeout without a measurement is worth less: its answer may have been lost.
        if self.rtt.srtt().is_none() && echo != 0 && age < self.rtt.rto() {
            self.rtt.on_sample(age);
        }
    }

    fn on_window_open(&mut self, now: Instant) {
        // A crack that lets nothing through is none: opening and shutting it again must not put off the probes.
        if self.sender.next(self.budget()).is_some() {
            self.persist_at = None;
            self.persist_backoff = 0;
        }
        self.unanswered_since = self.sender.outstanding().then_some(now);
    }

    fn on_payload(&mut self, segment: &Segment<'_>, env: Env<'_>) {
        if segment.payload.is_empty() && !segment.flags.fin {
            return;
        }
        match self.receiver.on_data(segment.seq, segment.payload, segment.flags.fin, env.now, env.memory) {
            Taken::InOrder => self.news.readable = true,
            Taken::OutOfOrder => env.counters.out_of_order.increment(),
            Taken::Refused => env.counters.reassembly_full.increment(),
            Taken::Starved => {
                env.counters.memory_dropped.increment();
                // Not each time: a peer that takes the answer for the sign of a loss would send the same again at once, for as long as there is no memory.
                self.challenge(env);
            }
            Taken::Nothing => env.counters.nothing_new.increment(),
        }
        if self.receiver.finished {
            self.step(Step::Fin);
        }
    }
}
