//! The lane's side: what is worth a record, and what goes into it.

use std::cell::Cell;
use std::sync::Arc;

use super::{Cause, Inside, Kind, Reason, Record, Trace};
use crate::base::{Bucket, Flow, Instant};
use crate::tcp::Close;
use crate::tcp::connection::Connection;
use crate::tcp::stack::Reply;
use crate::wire::{Ecn, Flags, Segment, SegmentOptions, Seq};

/// Most events a second of connections outside the sample: what is rare for one connection may be common among a million, and must not
/// push the sample out of the ring.
const EVENTS_PER_SECOND: u32 = 100;

/// What a segment says that leaves.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Header {
    pub(in crate::tcp) seq: Seq,
    pub(in crate::tcp) ack: Option<Seq>,
    pub(in crate::tcp) flags: Flags,
    pub(in crate::tcp) window: u16,
    /// Bytes of data.
    pub(in crate::tcp) len: u32,
    pub(in crate::tcp) options: SegmentOptions,
    pub(in crate::tcp) ecn: Ecn,
}

/// Writes a stack's trace.
#[derive(Debug)]
pub(in crate::tcp) struct Tracer {
    trace: Arc<Trace>,
    events: Cell<Bucket>,
}

impl Tracer {
    pub(in crate::tcp) fn new(trace: Arc<Trace>) -> Self {
        Self { trace, events: Cell::new(Bucket::new(EVENTS_PER_SECOND, EVENTS_PER_SECOND)) }
    }

    /// Whether anything is traced.
    pub(in crate::tcp) fn is_on(&self) -> bool {
        self.trace.is_on()
    }

    /// Whether flows of this hash are in the sample.
    pub(in crate::tcp) fn takes(&self, hash: u32) -> bool {
        self.trace.takes(hash)
    }

    /// A connection has dealt with a segment.
    pub(in crate::tcp) fn received(&self, connection: &Connection, segment: &Segment<'_>, now: Instant) {
        if self.takes(connection.timestamp_offset) {
            self.write_received(&connection.flow, segment, Some(connection), now);
        }
    }

    /// A segment for no connection, of a flow in the sample.
    pub(in crate::tcp) fn received_alone(&self, flow: &Flow, segment: &Segment<'_>, now: Instant) {
        self.write_received(flow, segment, None, now);
    }

    #[cold]
    fn write_received(&self, flow: &Flow, segment: &Segment<'_>, connection: Option<&Connection>, now: Instant) {
        let Segment { seq, ack, flags, window, options, ecn, payload } = *segment;
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let inside = connection.map(inside);
        self.write(Record {
            number: 0,
            at: now,
            flow: *flow,
            kind: Kind::Received,
            seq,
            ack,
            flags,
            window,
            len,
            options,
            ecn,
            inside,
        });
    }

    /// A segment of a connection in the sample has left.
    #[cold]
    pub(in crate::tcp) fn sent(&self, connection: &Connection, header: Header, reason: Reason, now: Instant) {
        let Header { seq, ack, flags, window, len, options, ecn } = header;
        let (flow, kind, inside) = (connection.flow, Kind::Sent(reason), Some(inside(connection)));
        self.write(Record { number: 0, at: now, flow, kind, seq, ack, flags, window, len, options, ecn, inside });
    }

    /// A packet of no connection, of a flow in the sample, has left.
    pub(in crate::tcp) fn sent_alone(&self, reply: &Reply, now: Instant) {
        let Reply { flow, seq, ack, flags, window, options } = *reply;
        let kind = Kind::Sent(Reason::Turn);
        self.write(Record {
            number: 0,
            at: now,
            flow,
            kind,
            seq,
            ack,
            flags,
            window,
            len: 0,
            options,
            ecn: Ecn::NotEct,
            inside: None,
        });
    }

    /// The retransmission timer of a connection has fired, with `flight` bytes in flight.
    pub(in crate::tcp) fn timeout(&self, connection: &Connection, flight: u32, now: Instant) {
        self.event(connection, Kind::Timeout, flight, now);
    }

    /// Segments of a connection have become smaller or larger.
    pub(in crate::tcp) fn path_mtu(&self, connection: &Connection, cause: Cause, now: Instant) {
        // A path that is known is so for every connection to that host, which may be many.
        if cause != Cause::Known || self.takes(connection.timestamp_offset) {
            self.event(connection, Kind::PathMtu(cause), connection.sender.mss, now);
        }
    }

    /// We reset a connection.
    pub(in crate::tcp) fn aborted(&self, connection: &Connection, now: Instant) {
        self.event(connection, Kind::Aborted, connection.sender.flight(), now);
    }

    /// A connection has ended.
    pub(in crate::tcp) fn ended(&self, connection: &Connection, how: Close, now: Instant) {
        if how != Close::Finished || self.takes(connection.timestamp_offset) {
            self.event(connection, Kind::Ended(how), connection.sender.flight(), now);
        }
    }

    #[cold]
    fn event(&self, connection: &Connection, kind: Kind, len: u32, now: Instant) {
        if !self.is_on() || !(self.takes(connection.timestamp_offset) || self.may_tell(now)) {
            return;
        }
        self.write(Record {
            number: 0,
            at: now,
            flow: connection.flow,
            kind,
            seq: connection.sender.snd_una,
            ack: None,
            flags: Flags::default(),
            window: 0,
            len,
            options: SegmentOptions::default(),
            ecn: Ecn::NotEct,
            inside: Some(inside(connection)),
        });
    }

    fn may_tell(&self, now: Instant) -> bool {
        let mut events = self.events.get();
        let may = events.take(now);
        self.events.set(events);
        may
    }

    fn write(&self, record: Record) {
        self.trace.write(&record.encode());
    }
}

fn inside(connection: &Connection) -> Inside {
    let (cwnd, ssthresh) = connection.recovery.windows();
    Inside {
        state: connection.state,
        cwnd,
        ssthresh,
        flight: connection.sender.flight(),
        snd_wnd: connection.sender.snd_wnd,
        srtt: connection.rtt.srtt(),
        rto: connection.rtt.rto(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::base::{Duration, Random};
    use crate::tcp::loopback::packet;
    use crate::tcp::trace::Settings;
    use crate::tcp::{Counters, Event, Stack, State, Token};

    /// A stack that listens and traces, and its one peer.
    struct Bench {
        stack: Stack,
        trace: Arc<Trace>,
        now: Instant,
        flow: Flow,
    }

    impl Bench {
        fn new(one_in: u32) -> Self {
            let trace = Arc::new(Trace::new(Settings { one_in, records: 1024 }, 0));
            let settings = crate::tcp::Settings { sack: false, timestamps: false, ..crate::tcp::Settings::default() };
            let mut stack = Stack::new(settings, Random::from_seed(1), Arc::new(Counters::default()));
            stack.trace_into(Arc::clone(&trace));
            let local = SocketAddr::from(([198, 18, 0, 1], 443));
            stack.listen(local, Token(0)).unwrap();
            Self { stack, trace, now: Instant::START, flow: Flow::new(local, ([198, 18, 0, 2], 50_000).into()) }
        }

        fn receive(&mut self, flags: Flags, seq: u32, ack: Option<Seq>, payload: &[u8]) {
            let segment = Segment {
                seq: Seq(seq),
                ack,
                flags,
                window: 65_535,
                options: SegmentOptions::default(),
                ecn: Ecn::NotEct,
                payload,
            };
            self.stack.on_segment(&self.flow, &segment, self.now);
        }

        fn sent(&mut self) -> Option<Segment<'static>> {
            let mut room = [0; 1500];
            let len = self.stack.poll_transmit(&mut room, false, self.now)?;
            let (_, segment) = Segment::parse(&packet(&room[..len]), false).unwrap();
            Some(Segment { payload: &[], ..segment })
        }

        /// Lets time pass until there is something to send.
        fn wait(&mut self) {
            for _ in 0..20 {
                self.now = self.stack.poll_at().unwrap();
                self.stack.on_timeout(self.now);
                if self.stack.wants_transmit() {
                    return;
                }
            }
            panic!("nothing to send");
        }

        /// A handshake; gives the stack's first sequence number.
        fn open(&mut self) -> (crate::tcp::ConnectionId, Seq) {
            self.receive(Flags { syn: true, ..Flags::default() }, 100, None, &[]);
            let iss = self.sent().unwrap().seq;
            self.receive(Flags::default(), 101, Some(iss + 1), &[]);
            let Some((id, _, Event::Accepted)) = self.stack.poll_event() else { panic!("not accepted") };
            (id, iss)
        }

        fn kinds(&self) -> Vec<(Kind, u32, u32)> {
            let records = self.trace.read(usize::MAX).records;
            records.iter().map(|record| (record.kind, record.seq.0, record.len)).collect()
        }
    }

    #[test]
    fn a_segment_that_is_lost_is_seen_twice_and_its_timeout_between() {
        let mut bench = Bench::new(1);
        let (id, Seq(iss)) = bench.open();
        assert_eq!(bench.stack.write(id, &[7; 500], bench.now), 500);
        assert!(bench.sent().is_some() && bench.sent().is_none());
        bench.wait();
        assert!(bench.sent().is_some());
        assert_eq!(
            bench.kinds(),
            [
                (Kind::Received, 100, 0),
                (Kind::Sent(Reason::Turn), iss, 0),
                (Kind::Received, 101, 0),
                (Kind::Sent(Reason::Turn), iss + 1, 500),
                (Kind::Timeout, iss + 1, 500),
                (Kind::Sent(Reason::Again), iss + 1, 500),
            ]
        );
        let records = bench.trace.read(2).records;
        let inside = records[1].inside.unwrap();
        assert_eq!((records[0].at, records[1].at), (bench.now, bench.now));
        assert_eq!((inside.state, inside.flight, inside.cwnd), (State::Established, 500, 536));
        assert_eq!(records[1].flow, bench.flow);
    }

    #[test]
    fn outside_the_sample_only_what_is_rare_leaves_a_record() {
        let mut bench = Bench::new(u32::MAX);
        let (id, iss) = bench.open();
        bench.stack.write(id, &[7; 500], bench.now);
        assert!(bench.sent().is_some() && bench.sent().is_none());
        bench.wait();
        bench.receive(Flags { rst: true, ..Flags::default() }, 101, Some(iss + 1), &[]);
        assert_eq!(bench.kinds(), [(Kind::Timeout, iss.0 + 1, 500), (Kind::Ended(Close::Reset), iss.0 + 1, 0)]);
    }

    #[test]
    fn a_path_that_turns_out_narrow_is_told_of_every_connection() {
        let mut bench = Bench::new(u32::MAX);
        let (id, iss) = bench.open();
        bench.stack.write(id, &[7; 2000], bench.now);
        while bench.sent().is_some() {}
        // The peer takes 536 bytes a segment.
        bench.stack.on_packet_too_big(&bench.flow, iss + 1, 560, bench.now);
        let told = [(Kind::PathMtu(Cause::Message), iss.0 + 1, 520)];
        assert_eq!(bench.kinds(), told);
        // The next one that it is known to is nothing rare.
        bench.flow = Flow::new(bench.flow.local(), ([198, 18, 0, 2], 50_001).into());
        bench.open();
        assert_eq!((bench.stack.counters.path_mtu_known.value(), bench.kinds()), (1, told.to_vec()));
    }

    #[test]
    fn a_connection_that_we_reset_says_so() {
        let mut bench = Bench::new(u32::MAX);
        let (id, iss) = bench.open();
        bench.stack.abort(id, bench.now);
        assert_eq!(bench.kinds(), [(Kind::Aborted, iss.0 + 1, 0)]);
    }

    #[test]
    fn events_outside_the_sample_are_bounded() {
        let mut bench = Bench::new(u32::MAX);
        for _ in 0..2 * EVENTS_PER_SECOND {
            let (id, _) = bench.open();
            bench.stack.abort(id, bench.now);
            while bench.sent().is_some() {}
        }
        assert_eq!(bench.kinds().len(), EVENTS_PER_SECOND as usize);
        bench.now = bench.now + Duration::from_millis(10);
        let (id, _) = bench.open();
        bench.stack.abort(id, bench.now);
        assert_eq!(bench.kinds().len(), EVENTS_PER_SECOND as usize + 1);
    }

    #[test]
    fn a_stack_that_traces_nothing_writes_nothing() {
        let mut bench = Bench::new(0);
        let (id, _) = bench.open();
        bench.stack.abort(id, bench.now);
        assert_eq!(bench.kinds(), []);
    }
}
