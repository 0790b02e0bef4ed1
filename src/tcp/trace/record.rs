//! One record: what a segment said, or what happened, and the state of the sender afterwards. 128 bytes, two cache lines.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::base::{Duration, Flow, Instant};
use crate::tcp::{Close, State};
use crate::wire::{Ecn, Flags, SegmentOptions, Seq, Timestamp};

/// 64-bit words of a record. The first is its number.
pub(super) const WORDS: usize = 16;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A segment came.
    Received,
    /// A segment left.
    Sent(Reason),
    /// The retransmission timer fired.
    Timeout,
    /// Segments have become smaller or larger.
    PathMtu(Cause),
    /// We reset the connection.
    Aborted,
    /// The connection ended.
    Ended(Close),
}

/// Why segments have become smaller or larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A router said that they are too long (RFC 1191, RFC 8201).
    Message,
    /// A router had said so to a connection before (RFC 1191 6.2).
    Known,
    /// Large ones did not arrive (RFC 4821 7.7).
    Timeouts,
    /// A larger one has arrived (RFC 4821 7.6.1).
    Probe,
    /// The path may have changed in ten minutes (RFC 1191 6.3).
    Retry,
}

/// Why a segment left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// In turn: new data, an acknowledgement, an answer.
    Turn,
    /// It had been sent before.
    Again,
    /// To learn of losses at the tail (RFC 8985 7).
    TailProbe,
    /// To learn of the peer's window.
    WindowProbe,
    /// To learn whether the peer lives.
    Keepalive,
}

/// The sender of a connection, when the record was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The connection's state.
    pub state: State,
    /// Congestion window in bytes.
    pub cwnd: u32,
    /// Slow-start threshold in bytes; `u32::MAX` before the first loss.
    pub ssthresh: u32,
    /// Bytes in flight.
    pub flight: u32,
    /// The peer's window in bytes.
    pub snd_wnd: u32,
    /// Smoothed round-trip time in whole microseconds, once measured.
    pub srtt: Option<Duration>,
    /// Retransmission timeout in whole microseconds.
    pub rto: Duration,
}

/// What a lane keeps of a segment or an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// How many the lane had written before.
    pub number: u64,
    /// When, by the lane's clock.
    pub at: Instant,
    /// Whose.
    pub flow: Flow,
    /// What.
    pub kind: Kind,
    /// SEG.SEQ; of an event, SND.UNA.
    pub seq: Seq,
    /// SEG.ACK.
    pub ack: Option<Seq>,
    /// The control bits beside ACK.
    pub flags: Flags,
    /// SEG.WND, as in the header.
    pub window: u16,
    /// Bytes of data in the segment; of an event, bytes in flight; of a change of the path MTU, the most data that a segment has from now on.
    pub len: u32,
    /// The options. A fourth SACK block is kept only where there is no timestamp, and there is no room in a header for both either.
    pub options: SegmentOptions,
    /// The ECN field of the IP header.
    pub ecn: Ecn,
    /// The connection, if there is one.
    pub inside: Option<Inside>,
}

/// Window scales above this mean the same (RFC 7323 2.3), so that four bits hold one; this one says that there is none.
const NO_SCALE: u64 = 15;

impl Record {
    /// The record's words but for the first.
    pub(super) fn encode(&self) -> [u64; WORDS - 1] {
        let (local, remote) = (self.flow.local(), self.flow.remote());
        let [local_high, local_low] = address(local.ip());
        let [remote_high, remote_low] = address(remote.ip());
        let (kind, detail) = code(self.kind);
        let options = &self.options;
        let bits = u64::from(self.ecn.bits()) << 6
            | u64::from(options.timestamp.is_some()) << 5
            | u64::from(options.sack_permitted) << 4
            | options.window_scale.map_or(NO_SCALE, |scale| u64::from(scale.min(14)));
        let block = |block: Option<(Seq, Seq)>| block.map_or(0, |(left, right)| pair(left.0, right.0));
        let [first, second, third, fourth] = options.sack.map(block);
        let inside = self.inside.map(|inside| {
            let srtt = inside.srtt.map_or(0, |srtt| micros(srtt).max(1));
            let times = pair(srtt, micros(inside.rto));
            [pair(inside.cwnd, inside.ssthresh), pair(inside.flight, inside.snd_wnd), times]
        });
        let [windows, flights, times] = inside.unwrap_or_default();
        [
            self.at.as_nanos(),
            local_high,
            local_low,
            remote_high,
            remote_low,
            u64::from(local.port()) << 48
                | u64::from(remote.port()) << 32
                | u64::from(kind) << 24
                | u64::from(detail) << 16
                | u64::from(self.inside.map_or(0, |inside| state_code(inside.state))) << 8
                | u64::from(self.control_bits()),
            pair(self.seq.0, self.ack.unwrap_or_default().0),
            u64::from(self.len.min(0xff_ffff)) << 40
                | u64::from(self.window) << 24
                | u64::from(options.mss.unwrap_or(0)) << 8
                | bits,
            options.timestamp.map_or(fourth, |timestamp| pair(timestamp.value, timestamp.echo)),
            first,
            second,
            third,
            windows,
            flights,
            times,
        ]
    }

    /// The record with this number and these words behind it; `None` when no writer of ours wrote them.
    pub(super) fn decode(number: u64, words: &[u64; WORDS - 1]) -> Option<Self> {
        let &[at, local_high, local_low, remote_high, remote_low, what, numbers, segment, stamp, ..] = words;
        let &[.., first, second, third, windows, flights, times] = words;
        let flow = Flow::new(
            SocketAddr::new(unpack(local_high, local_low), low16(what >> 48)),
            SocketAddr::new(unpack(remote_high, remote_low), low16(what >> 32)),
        );
        if flow.local().is_ipv4() != flow.remote().is_ipv4() {
            return None;
        }
        let kind = kind(low8(what >> 24), low8(what >> 16))?;
        let inside = match low8(what >> 8) {
            0 => None,
            code => Some(inside(state(code)?, windows, flights, times)),
        };
        let bits = low8(what);
        let on = |bit: u8| bits & bit != 0;
        let timestamp = (segment & 1 << 5 != 0).then(|| Timestamp { value: high32(stamp), echo: low32(stamp) });
        let fourth = if timestamp.is_some() { 0 } else { stamp };
        let block = |word: u64| (word != 0).then(|| (Seq(high32(word)), Seq(low32(word))));
        let options = SegmentOptions {
            mss: Some(low16(segment >> 8)).filter(|mss| *mss != 0),
            window_scale: Some(low8(segment & 15)).filter(|scale| u64::from(*scale) != NO_SCALE),
            sack_permitted: segment & 1 << 4 != 0,
            sack: [first, second, third, fourth].map(block),
            timestamp,
        };
        Some(Self {
            number,
            at: Instant::from_nanos(at),
            flow,
            kind,
            seq: Seq(high32(numbers)),
            ack: on(0x10).then(|| Seq(low32(numbers))),
            flags: Flags { fin: on(0x01), syn: on(0x02), rst: on(0x04), psh: on(0x08), ece: on(0x40), cwr: on(0x80) },
            window: low16(segment >> 24),
            len: high32(segment) >> 8,
            options,
            ecn: Ecn::of(low8(segment >> 6)),
            inside,
        })
    }

    /// The control bits as in a header (RFC 9293 3.1).
    fn control_bits(&self) -> u8 {
        let Flags { syn, fin, rst, psh, ece, cwr } = self.flags;
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        bit(fin, 0x01)
            | bit(syn, 0x02)
            | bit(rst, 0x04)
            | bit(psh, 0x08)
            | bit(self.ack.is_some(), 0x10)
            | bit(ece, 0x40)
            | bit(cwr, 0x80)
    }
}

fn inside(state: State, windows: u64, flights: u64, times: u64) -> Inside {
    let time = |micros: u32| Duration::from_micros(micros.into());
    Inside {
        state,
        cwnd: high32(windows),
        ssthresh: low32(windows),
        flight: high32(flights),
        snd_wnd: low32(flights),
        srtt: Some(high32(times)).filter(|micros| *micros != 0).map(time),
        rto: time(low32(times)),
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

fn code(kind: Kind) -> (u8, u8) {
    match kind {
        Kind::Received => (0, 0),
        Kind::Sent(Reason::Turn) => (1, 0),
        Kind::Sent(Reason::Again) => (1, 1),
        Kind::Sent(Reason::TailProbe) => (1, 2),
        Kind::Sent(Reason::WindowProbe) => (1, 3),
        Kind::Sent(Reason::Keepalive) => (1, 4),
        Kind::Timeout => (2, 0),
        Kind::Aborted => (3, 0),
        Kind::Ended(Close::Finished) => (4, 0),
        Kind::Ended(Close::Reset) => (4, 1),
        Kind::Ended(Close::Refused) => (4, 2),
        Kind::Ended(Close::TimedOut) => (4, 3),
        Kind::Ended(Close::Unreachable) => (4, 4),
        Kind::PathMtu(Cause::Message) => (5, 0),
        Kind::PathMtu(Cause::Timeouts) => (5, 1),
        Kind::PathMtu(Cause::Probe) => (5, 2),
        Kind::PathMtu(Cause::Retry) => (5, 3),
        Kind::PathMtu(Cause::Known) => (5, 4),
    }
}

/// Every kind, for [`kind`] to find.
const KINDS: [Kind; 18] = [
    Kind::Received,
    Kind::Sent(Reason::Turn),
    Kind::Sent(Reason::Again),
    Kind::Sent(Reason::TailProbe),
    Kind::Sent(Reason::WindowProbe),
    Kind::Sent(Reason::Keepalive),
    Kind::Timeout,
    Kind::Aborted,
    Kind::Ended(Close::Finished),
    Kind::Ended(Close::Reset),
    Kind::Ended(Close::Refused),
    Kind::Ended(Close::TimedOut),
    Kind::Ended(Close::Unreachable),
    Kind::PathMtu(Cause::Message),
    Kind::PathMtu(Cause::Timeouts),
    Kind::PathMtu(Cause::Probe),
    Kind::PathMtu(Cause::Retry),
    Kind::PathMtu(Cause::Known),
];

fn kind(major: u8, minor: u8) -> Option<Kind> {
    KINDS.into_iter().find(|kind| code(*kind) == (major, minor))
}

/// States in the order of their codes, which begin at 1.
const STATES: [State; 10] = [
    State::SynSent,
    State::SynReceived,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
    State::Closed,
];

fn state_code(state: State) -> u8 {
    match state {
        State::SynSent => 1,
        State::SynReceived => 2,
        State::Established => 3,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        State::CloseWait => 6,
        State::Closing => 7,
        State::LastAck => 8,
        State::TimeWait => 9,
        State::Closed => 10,
    }
}

fn state(code: u8) -> Option<State> {
    STATES.into_iter().find(|state| state_code(*state) == code)
}

fn address(ip: IpAddr) -> [u64; 2] {
    let octets = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let bits = octets.to_bits();
    [high64(bits), high64(bits << 64)]
}

fn unpack(high: u64, low: u64) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).to_canonical()
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn high64(bits: u128) -> u64 {
    (bits >> 64) as u64
}

fn high32(word: u64) -> u32 {
    (word >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn low32(word: u64) -> u32 {
    word as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lowest bits are what is wanted")]
fn low16(word: u64) -> u16 {
    word as u16
}

#[expect(clippy::cast_possible_truncation, reason = "the lowest bits are what is wanted")]
fn low8(word: u64) -> u8 {
    word as u8
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any record that a lane might write.
    pub(in crate::tcp::trace) fn records() -> impl Strategy<Value = Record> {
        let block = (any::<u32>(), 1..=u32::MAX).prop_map(|(left, right)| (Seq(left), Seq(right)));
        let options = (
            proptest::option::of(1..=u16::MAX),
            proptest::option::of(0..=14_u8),
            any::<bool>(),
            proptest::collection::vec(block, 0..=4),
            proptest::option::of(any::<(u32, u32)>()),
        )
            .prop_map(|(mss, window_scale, sack_permitted, blocks, timestamp)| {
                let timestamp = timestamp.map(|(value, echo)| Timestamp { value, echo });
                let most = if timestamp.is_some() { 3 } else { 4 };
                let mut sack = [None; 4];
                for (place, block) in sack.iter_mut().zip(blocks.into_iter().take(most)) {
                    *place = Some(block);
                }
                SegmentOptions { mss, window_scale, sack_permitted, sack, timestamp }
            });
        let inside = (0..STATES.len(), any::<[u32; 4]>(), proptest::option::of(1..=u32::MAX), 1..=u32::MAX).prop_map(
            |(state, [cwnd, ssthresh, flight, snd_wnd], srtt, rto)| Inside {
                state: STATES[state],
                cwnd,
                ssthresh,
                flight,
                snd_wnd,
                srtt: srtt.map(|micros| Duration::from_micros(micros.into())),
                rto: Duration::from_micros(rto.into()),
            },
        );
        let flow = (any::<bool>(), any::<[u8; 8]>(), any::<(u16, u16)>()).prop_map(|(v6, bytes, (local, remote))| {
            let [a, b, c, d, e, f, g, h] = bytes;
            let ip = |low: [u8; 4]| {
                if v6 { IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, low[0].into(), low[3].into()]) } else { low.into() }
            };
            Flow::new((ip([a, b, c, d]), local).into(), (ip([e, f, g, h]), remote).into())
        });
        let header = (
            any::<u64>(),
            any::<u32>(),
            proptest::option::of(any::<u32>()),
            any::<[bool; 6]>(),
            any::<u16>(),
            0..1_u32 << 24,
            0..4_u8,
        );
        (flow, 0..KINDS.len(), header, options, proptest::option::of(inside)).prop_map(
            |(flow, kind, (at, seq, ack, [syn, fin, rst, psh, ece, cwr], window, len, ecn), options, inside)| Record {
                number: 7,
                at: Instant::from_nanos(at),
                flow,
                kind: KINDS[kind],
                seq: Seq(seq),
                ack: ack.map(Seq),
                flags: Flags { syn, fin, rst, psh, ece, cwr },
                window,
                len,
                options,
                ecn: Ecn::of(ecn),
                inside,
            },
        )
    }

    #[test]
    fn a_record_is_two_cache_lines() {
        assert_eq!(WORDS * size_of::<u64>(), 128);
    }

    proptest! {
        #[test]
        fn a_record_survives_its_words(record in records()) {
            prop_assert_eq!(Record::decode(7, &record.encode()), Some(record));
        }

        #[test]
        fn any_words_are_a_record_or_none(words in any::<[u64; WORDS - 1]>()) {
            if let Some(record) = Record::decode(0, &words) {
                let encoded = record.encode();
                prop_assert_eq!(Record::decode(0, &encoded), Some(record));
            }
        }
    }
}
