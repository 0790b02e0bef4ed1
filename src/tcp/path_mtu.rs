//! Path MTU discovery of one connection: what routers say (RFC 1191, RFC 8201) and how far it is believed (RFC 5927 7.2), paths that swallow large packets
//! without a word, and the search for what they let through (RFC 4821).
//!
//! Sizes are those of payloads: every data segment of a connection has the same headers, and our packets are never fragmented on their way.

use crate::base::{Duration, Instant};
use crate::tcp::connection::{Connection, Env, TIMESTAMP_LEN};
use crate::tcp::paths::Known;
use crate::tcp::selective::Selective;
use crate::tcp::send::Chunk;
use crate::tcp::trace::Cause;
use crate::wire::Seq;
use crate::wire::segment::{IPV4_HEADER, IPV6_HEADER, TCP_HEADER};

/// No message takes the packets of an IPv4 connection below this: whoever can forge one must not make us send our data in crumbs. RFC 791 promises no more
/// than 68 bytes, but links that carry less than this have gone; it is Linux's `min_pmtu`. A message that says less is taken to say this.
const IPV4_MTU_MIN: u32 = 552;
/// RFC 8201 4: a message that says less is dropped.
const IPV6_MTU_MIN: u32 = 1280;
/// RFC 1191 7: the MTUs of links when routers did not say theirs yet.
const PLATEAUS: [u32; 11] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// RFC 1191 6.3, RFC 8201 5.3: how long a path is left alone before something larger is tried. Both forbid less than five minutes.
const RETRY: Duration = Duration::from_secs(600);
/// Between a probe that was lost and the next (RFC 4821 7.3 leaves it to us): what a probe costs is one segment that is late by a round trip.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// RFC 4821 7.3: the search ends when no more than this is to be won, a hundredth of a segment.
const STEP: u16 = 16;
/// RFC 4821 7.4: segments that must follow a probe, so that its loss is seen by what arrives behind it.
const FOLLOWERS: u32 = 3;

/// Timeouts in a row from which on large segments are suspected: the threshold R1 of RFC 1122 4.2.3.5, as Linux (`tcp_retries1`).
const SUSPICION: u8 = 3;
/// Where timeouts are long, two are enough after so much time: what Linux takes for three retransmissions, whatever the timeout.
const SUSPICION_AFTER: Duration = Duration::from_secs(3);
/// RFC 4821 7.2 asks for an MTU of about 1024 bytes that works nearly everywhere. This is Linux's `tcp_base_mss`. IPv6 has an MTU that works everywhere.
const BASE: u16 = 1024;
/// RFC 4821 7.7 halves down to an MTU of 68 bytes. No path needs that, and segments so small cost us more than anybody else (CVE-2019-11479).
const BASE_MIN: u16 = 256;

/// What a connection knows of its path: a few numbers as long as everything arrives.
#[derive(Debug, Default)]
pub(super) struct PathMtu {
    /// The largest payload that has arrived (RFC 5927 7.2: maxsizeacked), as far as it counts.
    pub(super) proven: u16,
    /// The largest payload that has left, where that is more and it is still out; 0 if not (maxsizesent).
    pub(super) tried: u16,
    pub(super) tried_end: Seq,
    pub(super) narrow: Option<Box<Narrow>>,
}

/// What there is to know beside that of a path that may let less through than both ends could take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Narrow {
    /// What the ends could take.
    pub(super) ceiling: u16,
    /// What a message allows, and the number that it quotes: believed if a timeout confirms it.
    pub(super) pending: Option<(u16, Seq)>,
    /// The MTU that a router has said, until the stack has remembered it.
    news: Option<u32>,
    trial: Trial,
    /// The smallest payload that does not seem to arrive.
    high: u16,
    /// What is tried next, from when on.
    next: u16,
    next_at: Instant,
    /// A segment larger than all others that is out: where it begins, and its payload (RFC 4821 7.5).
    pub(super) probe: Option<(Seq, u16)>,
}

/// RFC 1191 6.4: what is sent again because of a message is one segment until something is acknowledged, as the new size may be wrong, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trial {
    #[default]
    None,
    Due,
    Out,
}

/// What a message about a segment that is under way leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heed {
    /// It says nothing new, or what cannot be.
    Ignore,
    /// Segments of that size have arrived before: it waits for a timeout.
    Wait,
    /// Segments become so small at once.
    Lower,
    /// It is about the probe.
    Probe,
}

impl PathMtu {
    /// `len` bytes have left that end at `end`.
    pub(super) fn on_sent(&mut self, len: u32, end: Seq) {
        let len = short(len);
        if len > self.proven && len > self.tried {
            (self.tried, self.tried_end) = (len, end);
        }
        if let Some(narrow) = &mut self.narrow
            && narrow.trial == Trial::Due
            && len > 0
        {
            narrow.trial = Trial::Out;
        }
    }

    /// How many bytes may be in flight beside what is, if there is a bound.
    pub(super) fn allowance(&self, mss: u32) -> Option<u32> {
        match self.narrow.as_ref()?.trial {
            Trial::None => None,
            Trial::Due => Some(mss),
            Trial::Out => Some(0),
        }
    }

    /// Where the probe begins and ends.
    pub(super) fn probe(&self) -> Option<(Seq, Seq)> {
        let (start, len) = self.narrow.as_ref()?.probe?;
        Some((start, start + u32::from(len)))
    }

    /// A message about the segment from `seq` on allows payloads of `allowed` bytes; they may have `mss` so far.
    fn heed(&self, allowed: u16, seq: Seq, mss: u16) -> Heed {
        // RFC 5927 7.2: nothing so large has been sent.
        if allowed >= self.proven.max(self.tried) {
            return Heed::Ignore;
        }
        if let Some((start, end)) = self.probe()
            && allowed >= mss
            && seq.at_or_after(start)
            && seq.before(end)
        {
            return Heed::Probe;
        }
        if allowed >= mss {
            Heed::Ignore
        } else if allowed >= self.proven {
            Heed::Lower
        } else {
            Heed::Wait
        }
    }

    fn narrow(&mut self, mss: u16, now: Instant) -> &mut Narrow {
        let narrow = Narrow {
            ceiling: mss,
            pending: None,
            news: None,
            trial: Trial::None,
            high: mss + 1,
            next: mss,
            next_at: now + RETRY,
            probe: None,
        };
        self.narrow.get_or_insert_with(|| Box::new(narrow))
    }

    /// Payloads shrink from `from` to `to` bytes.
    fn on_lowered(&mut self, from: u16, to: u16, cause: Cause, searches: bool, now: Instant) {
        self.forget_larger(to);
        self.proven = self.proven.min(to);
        let narrow = self.narrow(from, now);
        (narrow.pending, narrow.probe) = (None, None);
        narrow.next = narrow.ceiling;
        // A message names what does not fit. Timeouts may have been those of an outage, so what was right before is tried again first.
        let doubtful = cause == Cause::Timeouts && searches;
        (narrow.high, narrow.next_at) = if doubtful { (narrow.ceiling + 1, now) } else { (to + 1, now + RETRY) };
    }

    /// What was larger is no longer out.
    fn forget_larger(&mut self, than: u16) {
        if self.tried > than {
            self.tried = 0;
        }
    }

    /// SND.UNA has moved to `ack`: gives the size of a probe that has arrived, and whether a message that waited is disproved.
    fn on_ack(&mut self, ack: Seq, now: Instant) -> (Option<u16>, bool) {
        if self.tried > 0 && ack.at_or_after(self.tried_end) {
            self.proven = self.proven.max(std::mem::take(&mut self.tried));
        }
        let Some(narrow) = &mut self.narrow else { return (None, false) };
        narrow.trial = Trial::None;
        let disproved = narrow.pending.is_some_and(|(_, seq)| ack.after(seq));
        narrow.pending = narrow.pending.filter(|_| !disproved);
        let arrived = narrow.probe.filter(|(start, len)| ack.at_or_after(*start + u32::from(*len)));
        if let Some((_, len)) = arrived {
            narrow.probe = None;
            narrow.next_at = now;
            narrow.search(len, len.midpoint(narrow.high), now);
        }
        (arrived.map(|(_, len)| len), disproved)
    }

    /// Nothing is known any more that a fresh connection would not assume.
    fn on_settled(&mut self, mss: u16) {
        self.narrow = self.narrow.take().filter(|narrow| {
            mss < narrow.ceiling
                || narrow.news.is_some()
                || narrow.pending.is_some()
                || narrow.trial != Trial::None
                || narrow.probe.is_some()
        });
    }

    /// The probe, and nothing else, was lost; the message that says so allows `hint`.
    fn on_probe_lost(&mut self, mss: u16, hint: Option<u16>, now: Instant) {
        self.forget_larger(mss);
        let Some(narrow) = &mut self.narrow else { return };
        let Some((_, len)) = narrow.probe.take() else { return };
        narrow.high = hint.map_or(len, |hint| hint + 1);
        narrow.next_at = now + PROBE_INTERVAL;
        narrow.search(mss, hint.unwrap_or(mss.midpoint(len)), now);
    }

    /// RFC 4821 7.6.3, 7.6.4: more than the probe was lost, so that nothing is known.
    fn on_probe_unclear(&mut self, mss: u16, now: Instant) {
        if let Some(narrow) = &mut self.narrow
            && narrow.probe.take().is_some()
        {
            narrow.next_at = now + PROBE_INTERVAL;
            self.forget_larger(mss);
        }
    }

    /// What to try, if it is time to.
    fn wants(&self, mss: u16, now: Instant) -> Option<u16> {
        let narrow = self.narrow.as_ref()?;
        let free = narrow.probe.is_none() && narrow.trial == Trial::None && now >= narrow.next_at;
        (free && narrow.next > mss).then_some(narrow.next)
    }
}

impl Narrow {
    /// The search goes on with `next`, or ends for now where that is not worth it.
    fn search(&mut self, mss: u16, next: u16, now: Instant) {
        self.next = next;
        if next < mss.saturating_add(STEP) {
            (self.next, self.high) = (self.ceiling, self.ceiling + 1);
            self.next_at = now + RETRY;
        }
    }
}

fn short(len: u32) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

impl Connection {
    /// Bytes of headers in a packet with data.
    fn headers(&self) -> u32 {
        let header = TCP_HEADER + if self.flow.local().is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
        u32::try_from(header).unwrap_or_default() + if self.timestamps.is_some() { TIMESTAMP_LEN } else { 0 }
    }

    /// A router says that the packet with the segment from `seq` on is too long for a link of this MTU.
    pub(super) fn on_packet_too_big(&mut self, seq: Seq, mtu: u32, env: Env<'_>) {
        let (headers, mss) = (self.headers(), short(self.sender.mss));
        let largest = headers + u32::from(self.path.proven.max(self.path.tried));
        let mtu = match (self.flow.local().is_ipv4(), mtu) {
            // RFC 1191 5.
            (true, 0) => PLATEAUS.into_iter().find(|plateau| *plateau < largest).unwrap_or(IPV4_MTU_MIN),
            (_, mtu) => mtu,
        };
        let least = if self.flow.local().is_ipv4() { IPV4_MTU_MIN } else { IPV6_MTU_MIN };
        if mtu < least {
            env.counters.path_mtu_below_minimum.increment();
            if !self.flow.local().is_ipv4() {
                return;
            }
        }
        let allowed = short(mtu.max(least) - headers);
        match self.path.heed(allowed, seq, mss) {
            Heed::Ignore => env.counters.packets_too_big_ignored.increment(),
            Heed::Wait => {
                env.counters.path_mtu_doubted.increment();
                self.path.narrow(mss, env.now).pending = Some((allowed, seq));
            }
            Heed::Lower => {
                self.lower(allowed, Cause::Message, env);
                self.send_again_smaller(env);
            }
            Heed::Probe => {
                env.counters.path_probes_lost.increment();
                self.path.on_probe_lost(mss, Some(allowed), env.now);
                let mtu = self.headers() + u32::from(allowed);
                self.path.narrow(mss, env.now).news = Some(mtu);
                self.lose_larger();
            }
        }
    }

    /// The MTU that a router has said and that was believed, once.
    pub(super) fn take_path_news(&mut self) -> Option<u32> {
        self.path.narrow.as_mut()?.news.take()
    }

    /// The connection begins, and one before it has learned this about the path.
    pub(super) fn start_on_path(&mut self, known: Known, env: Env<'_>) {
        let (from, to) = (short(self.sender.mss), short(known.mtu.saturating_sub(self.headers())));
        if to >= from {
            return;
        }
        env.counters.path_mtu_known.increment();
        self.path.on_lowered(from, to, Cause::Known, self.sack, env.now);
        self.path.narrow(to, env.now).next_at = known.until;
        self.resize(to, Cause::Known, env);
        self.recovery.limit_to_initial_window();
    }

    /// Payloads shrink. What is larger and on its way will not arrive.
    fn lower(&mut self, to: u16, cause: Cause, env: Env<'_>) {
        match cause {
            Cause::Message => env.counters.path_mtu_lowered.increment(),
            Cause::Timeouts => env.counters.black_holes.increment(),
            Cause::Known | Cause::Probe | Cause::Retry => {}
        }
        self.path.on_lowered(short(self.sender.mss), to, cause, self.sack, env.now);
        if cause == Cause::Message {
            let mtu = self.headers() + u32::from(to);
            self.path.narrow(to, env.now).news = Some(mtu);
        }
        self.resize(to, cause, env);
        self.lose_larger();
    }

    fn resize(&mut self, mss: u16, cause: Cause, env: Env<'_>) {
        self.sender.mss = mss.into();
        self.recovery.resize(mss.into());
        self.timing = None;
        env.tracer.path_mtu(self, cause, env.now);
    }

    fn lose_larger(&mut self) {
        if let Some(selective) = &mut self.selective {
            selective.board.lose_larger(self.sender.mss);
        }
    }

    /// RFC 1191 6.4, RFC 8201 5.4: the message stands for a loss that is no congestion. Where nobody knows how the data was cut, all of it is sent again.
    fn send_again_smaller(&mut self, env: Env<'_>) {
        if let Some(narrow) = &mut self.path.narrow {
            narrow.trial = Trial::Due;
        }
        if self.selective.is_none() {
            self.recovery.on_resent(self.sender.snd_max);
            self.sender.snd_nxt = self.sender.snd_una;
            self.retransmit = false;
        }
        self.retransmit_at = Some(env.now + self.rtt.rto());
    }

    /// SND.UNA has moved to `ack`.
    pub(super) fn on_path_ack(&mut self, ack: Seq, env: Env<'_>) {
        self.timeouts = 0;
        let (arrived, disproved) = self.path.on_ack(ack, env.now);
        if disproved {
            env.counters.path_mtu_disproved.increment();
        }
        if let Some(len) = arrived {
            env.counters.path_probes_arrived.increment();
            self.resize(len, Cause::Probe, env);
        }
        if self.path.narrow.is_some() {
            self.path.on_settled(short(self.sender.mss));
        }
    }

    /// The scoreboard has found losses. Where only the probe is lost, that says nothing of congestion (RFC 4821 7.6.2).
    pub(super) fn on_path_loss(&mut self, only_the_probe: bool, env: Env<'_>) {
        let Some((start, _)) = self.path.probe() else { return };
        let mss = short(self.sender.mss);
        if only_the_probe {
            env.counters.path_probes_lost.increment();
            self.path.on_probe_lost(mss, None, env.now);
        } else if self.selective.as_ref().is_some_and(|selective| selective.board.is_lost(start)) {
            self.path.on_probe_unclear(mss, env.now);
        }
    }

    /// The retransmission timer has fired. Gives whether a message that waited explains it, so that it is no sign of congestion.
    pub(super) fn on_path_timeout(&mut self, env: Env<'_>) -> bool {
        self.timeouts = self.timeouts.saturating_add(1);
        let mss = short(self.sender.mss);
        self.path.on_probe_unclear(mss, env.now);
        let mut pending = None;
        if let Some(narrow) = &mut self.path.narrow {
            narrow.trial = Trial::None;
            pending = narrow.pending.take();
        }
        if let Some((allowed, seq)) = pending {
            if self.selective.as_ref().is_some_and(|selective| selective.board.is_sacked(seq)) {
                env.counters.path_mtu_disproved.increment();
            } else if allowed < mss {
                self.lower(allowed, Cause::Message, env);
                return true;
            }
        }
        let to = self.suspected(env.now);
        // Small segments that do not arrive are no fault of their size.
        if env.settings.mtu_probing && to < mss && self.first_out() > u32::from(to) {
            self.lower(to, Cause::Timeouts, env);
        }
        false
    }

    /// RFC 4821 7.7: what to come down to after so many timeouts.
    fn suspected(&self, now: Instant) -> u16 {
        let long = self.unanswered_since.is_some_and(|since| now.since(since) >= SUSPICION_AFTER);
        let suspicion = if long { SUSPICION - 1 } else { SUSPICION };
        let mss = short(self.sender.mss);
        // The peer's window may allow less.
        let size = mss.min(short(self.first_out()));
        let (base, least) = if self.flow.local().is_ipv4() {
            (BASE, BASE_MIN)
        } else {
            let everywhere = short(IPV6_MTU_MIN - self.headers());
            (everywhere, everywhere)
        };
        if self.timeouts < suspicion {
            mss
        } else if size > base {
            base
        } else if self.timeouts > SUSPICION {
            (size / 2).max(least)
        } else {
            mss
        }
    }

    /// The length of the segment at SND.UNA.
    fn first_out(&self) -> u32 {
        match &self.selective {
            Some(selective) => selective.board.first_len(),
            None => self.sender.lost().map_or(0, |chunk| chunk.len),
        }
    }

    /// A larger segment in place of this one, where it is time to try (RFC 4821 7.4, 7.5), and nothing else is amiss.
    pub(super) fn widen(&mut self, chunk: Chunk, env: Env<'_>) -> Chunk {
        let mss = short(self.sender.mss);
        let Some(size) = self.path.wants(mss, env.now).filter(|_| chunk.seq == self.sender.snd_max) else {
            return chunk;
        };
        if !self.sack {
            // Without SACK a lost probe could not be told from congestion: RFC 1191 6.3, all segments grow, and a message or a black hole shrinks them again.
            env.counters.path_mtu_retried.increment();
            self.path.narrow = None;
            self.resize(size, Cause::Retry, env);
            return self.sender.next(self.budget()).unwrap_or(chunk);
        }
        let amiss = |selective: &Selective| selective.is_recovering() || selective.board.has_holes();
        if self.selective.as_deref().is_some_and(amiss) {
            return chunk;
        }
        let followers = FOLLOWERS * self.sender.mss;
        let Some(larger) = self.sender.larger(size.into(), followers, self.budget()) else { return chunk };
        env.counters.path_probes_sent.increment();
        if let Some(narrow) = &mut self.path.narrow {
            narrow.probe = Some((larger.seq, size));
        }
        larger
    }
}
