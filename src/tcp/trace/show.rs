//! Records for people: as lines in the words of the dialogues in `tests/tcp`, and as the packets that they were.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::time::SystemTime;

use super::{Cause, Inside, Kind, Reason, Record};
use crate::base::{Duration, Flow, Instant};
use crate::tcp::Close;
use crate::wire::segment::{IPV4_HEADER, IPV6_HEADER};
use crate::wire::{Ecn, Flags, Outgoing, SegmentOptions, Seq};

/// Longest headers: IPv6's, and TCP's with all options.
const HEADERS_MAX: usize = 100;

/// Writes records as lines. It remembers where each connection's numbers start and when its last record was, so show it one lane's in their order.
#[derive(Debug)]
pub struct Show {
    epoch: u64,
    lane: u16,
    flows: HashMap<Flow, Seen>,
}

/// What the lines of a flow count from.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    ours: Option<Seq>,
    theirs: Option<Seq>,
}

impl Show {
    /// For the records of a lane whose clock started `epoch` nanoseconds after 1970.
    pub fn new(epoch: u64, lane: u16) -> Self {
        Self { epoch, lane, flows: HashMap::new() }
    }

    /// One line: when, since the flow's last record how long, which lane, our endpoint, the peer's, what, and the state of the sender after it.
    pub fn line(&mut self, record: &Record) -> String {
        let Record { at, flow, kind, .. } = *record;
        let known = self.flows.get(&flow).copied().unwrap_or(Seen { at, ours: None, theirs: None });
        let seen = known.with(record);
        self.flows.insert(flow, seen);
        let wall = SystemTime::UNIX_EPOCH + Duration::from_nanos(self.epoch.saturating_add(at.as_nanos()));
        let since = at.since(known.at);
        let (local, remote, lane) = (flow.local(), flow.remote(), self.lane);
        let mut line = format!(
            "{} +{}.{:06} lane {lane} {local} {remote} ",
            humantime::format_rfc3339_micros(wall),
            since.as_secs(),
            since.subsec_micros()
        );
        // Writing to a string does not fail.
        let _ = match kind {
            Kind::Received => seen.segment(&mut line, '<', record),
            Kind::Sent(reason) => seen.segment(&mut line, '>', record).and_then(|()| line.write_str(again(reason))),
            Kind::Timeout => {
                let (una, len) = (relative(record.seq, seen.ours), record.len);
                write!(line, "timeout {una}:{}({len})", una.wrapping_add(len))
            }
            Kind::PathMtu(cause) => write!(line, "mss {} {}", record.len, changed(cause)),
            Kind::Aborted => line.write_str("abort"),
            Kind::Ended(how) => write!(line, "closed {}", close(how)),
        };
        if let Some(inside) = record.inside {
            let _ = write_inside(&mut line, &inside);
        }
        line
    }
}

impl Seen {
    /// What is known after `record`: numbers count from a SYN, or so that the first ones that are seen are 1.
    fn with(self, record: &Record) -> Self {
        let Record { at, seq, ack, flags, .. } = *record;
        let first = |known: Option<Seq>| if flags.syn { Some(seq) } else { known.or(Some(seq - 1)) };
        let other = |known: Option<Seq>| known.or(ack.map(|ack| ack - 1));
        match record.kind {
            // A reset for nobody may have no number of its own.
            Kind::Received => Self { at, theirs: first(self.theirs), ours: other(self.ours) },
            Kind::Sent(_) => Self { at, ours: first(self.ours), theirs: other(self.theirs) },
            Kind::Timeout | Kind::PathMtu(_) | Kind::Aborted | Kind::Ended(_) => Self { at, ..self },
        }
    }

    fn segment(&self, line: &mut String, direction: char, record: &Record) -> fmt::Result {
        let (own, other) = if direction == '<' { (self.theirs, self.ours) } else { (self.ours, self.theirs) };
        let Flags { syn, fin, rst, psh, ece, cwr } = record.flags;
        let letters =
            [(syn, 'S'), (fin, 'F'), (rst, 'R'), (psh, 'P'), (ece, 'E'), (cwr, 'W'), (record.ack.is_some(), '.')];
        let letters: String = letters.iter().filter(|(on, _)| *on).map(|(_, letter)| *letter).collect();
        let letters = if letters.is_empty() { "-" } else { &letters };
        let (seq, len) = (relative(record.seq, own), record.len);
        write!(line, "{direction} {}{letters} {seq}:{}({len})", mark(record.ecn), seq.wrapping_add(len))?;
        if let Some(ack) = record.ack {
            write!(line, " ack {}", relative(ack, other))?;
        }
        write!(line, " win {}", record.window)?;
        let options = options(&record.options, other);
        if options.is_empty() { Ok(()) } else { write!(line, " <{options}>") }
    }
}

fn relative(seq: Seq, first: Option<Seq>) -> u32 {
    seq.since(first.unwrap_or_default())
}

fn options(options: &SegmentOptions, acknowledged: Option<Seq>) -> String {
    let SegmentOptions { mss, window_scale, sack_permitted, sack, timestamp } = options;
    let mut all: Vec<String> = Vec::new();
    all.extend(mss.map(|mss| format!("mss {mss}")));
    all.extend(sack_permitted.then(|| "sackOK".to_owned()));
    all.extend(window_scale.map(|scale| format!("wscale {scale}")));
    all.extend(timestamp.map(|timestamp| format!("ts {} {}", timestamp.value, timestamp.echo)));
    let blocks = sack.iter().flatten();
    let blocks: Vec<_> = blocks
        .map(|(left, right)| format!("{}:{}", relative(*left, acknowledged), relative(*right, acknowledged)))
        .collect();
    if !blocks.is_empty() {
        all.push(format!("sack {}", blocks.join(" ")));
    }
    all.join(",")
}

fn write_inside(line: &mut String, inside: &Inside) -> fmt::Result {
    let Inside { state, cwnd, ssthresh, flight, snd_wnd, srtt, rto } = inside;
    write!(line, " | {state} cwnd {cwnd}")?;
    match ssthresh {
        &u32::MAX => line.write_str(" ssthresh -")?,
        bytes => write!(line, " ssthresh {bytes}")?,
    }
    write!(line, " flight {flight} wnd {snd_wnd}")?;
    match srtt {
        None => line.write_str(" srtt -")?,
        Some(srtt) => write!(line, " srtt {srtt:?}")?,
    }
    write!(line, " rto {rto:?}")
}

fn again(reason: Reason) -> &'static str {
    match reason {
        Reason::Turn => "",
        Reason::Again => " again",
        Reason::TailProbe => " tail-probe",
        Reason::WindowProbe => " window-probe",
        Reason::Keepalive => " keepalive",
    }
}

fn changed(cause: Cause) -> &'static str {
    match cause {
        Cause::Message => "packet-too-big",
        Cause::Known => "known",
        Cause::Timeouts => "black-hole",
        Cause::Probe => "probe-arrived",
        Cause::Retry => "retry",
    }
}

fn mark(ecn: Ecn) -> &'static str {
    match ecn {
        Ecn::NotEct => "",
        Ecn::Ect1 => "[ect1] ",
        Ecn::Ect0 => "[ect0] ",
        Ecn::Ce => "[ce] ",
    }
}

fn close(how: Close) -> &'static str {
    match how {
        Close::Finished => "finished",
        Close::Reset => "reset",
        Close::Refused => "refused",
        Close::TimedOut => "timed-out",
        Close::Unreachable => "unreachable",
    }
}

/// A packet that a record stands for: its headers, and how long it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The IP and TCP headers, which give the whole packet's length. Where there was data the TCP checksum is not known and zero.
    pub bytes: Vec<u8>,
    /// Length of the packet in bytes, data included.
    pub original: usize,
}

impl Record {
    /// The packet that came or left; `None` for an event.
    pub fn headers(&self) -> Option<Headers> {
        let reversed = self.flow.reversed();
        let flow = match self.kind {
            Kind::Received => &reversed,
            Kind::Sent(_) => &self.flow,
            Kind::Timeout | Kind::PathMtu(_) | Kind::Aborted | Kind::Ended(_) => return None,
        };
        let Self { seq, ack, flags, window, options, ecn, .. } = *self;
        let outgoing = Outgoing { flow, seq, ack, flags, window, options, ecn, payload: &[] };
        let mut bytes = vec![0; HEADERS_MAX];
        let len = outgoing.emit(&mut bytes, false)?;
        bytes.truncate(len);
        let data = usize::try_from(self.len).ok()?;
        if data > 0 {
            announce(&mut bytes, flow, data)?;
        }
        Some(Headers { original: bytes.len() + data, bytes })
    }
}

/// Makes headers announce `data` bytes that do not follow them.
fn announce(bytes: &mut [u8], flow: &Flow, data: usize) -> Option<()> {
    let is_ipv4 = flow.local().is_ipv4();
    let header = if is_ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    let whole = bytes.len() + data;
    let checksum = header + 16;
    bytes.get_mut(checksum..checksum + 2)?.fill(0);
    if is_ipv4 {
        let mut ip = smoltcp::wire::Ipv4Packet::new_unchecked(bytes.get_mut(..header)?);
        ip.set_total_len(u16::try_from(whole).ok()?);
        ip.fill_checksum();
    } else {
        let mut ip = smoltcp::wire::Ipv6Packet::new_unchecked(bytes.get_mut(..header)?);
        ip.set_payload_len(u16::try_from(whole - header).ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tcp::State;
    use crate::tcp::trace::record::tests::records;
    use crate::wire::{Packet, Segment, Timestamp};

    fn record(kind: Kind, seq: u32, ack: Option<u32>, len: u32) -> Record {
        Record {
            number: 0,
            at: Instant::from_nanos(1_500_000_000),
            flow: Flow::new("198.18.0.10:443".parse().unwrap(), "198.18.0.1:40000".parse().unwrap()),
            kind,
            seq: Seq(seq),
            ack: ack.map(Seq),
            flags: Flags::default(),
            window: 512,
            len,
            options: SegmentOptions::default(),
            ecn: Ecn::NotEct,
            inside: None,
        }
    }

    #[test]
    fn a_handshake_and_a_loss_read_like_a_dialogue() {
        let syn = Flags { syn: true, ..Flags::default() };
        let options = SegmentOptions {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamp: Some(Timestamp { value: 5, echo: 0 }),
            ..SegmentOptions::default()
        };
        let inside = Inside {
            state: State::Established,
            cwnd: 14_600,
            ssthresh: u32::MAX,
            flight: 1460,
            snd_wnd: 65_536,
            srtt: Some(Duration::from_micros(1500)),
            rto: Duration::from_millis(200),
        };
        let sack = [Some((Seq(1461), Seq(2921))), None, None, None];
        let records = [
            Record { flags: syn, options, ..record(Kind::Received, u32::MAX, None, 0) },
            Record { flags: syn, ..record(Kind::Sent(Reason::Turn), 1000, Some(0), 0) },
            Record { inside: Some(inside), ..record(Kind::Sent(Reason::Again), 1001, Some(0), 1460) },
            Record {
                options: SegmentOptions {
                    sack: sack.map(|block| block.map(|(left, right)| (left + 1000, right + 1000))),
                    ..SegmentOptions::default()
                },
                at: Instant::from_nanos(1_501_000_000),
                ..record(Kind::Received, 0, Some(1001), 0)
            },
            record(Kind::Timeout, 1001, None, 2920),
            record(Kind::PathMtu(Cause::Message), 1001, None, 1300),
            record(Kind::Ended(Close::TimedOut), 1001, None, 0),
        ];
        let mut show = Show::new(1_000_000_000_000_000_000, 3);
        let lines: Vec<_> = records.iter().map(|record| show.line(record)).collect();
        let start = "2001-09-09T01:46:41.500000Z +0.000000 lane 3 198.18.0.10:443 198.18.0.1:40000";
        assert_eq!(
            lines,
            [
                format!("{start} < S 0:0(0) win 512 <mss 1460,sackOK,wscale 7,ts 5 0>"),
                format!("{start} > S. 0:0(0) ack 1 win 512"),
                format!(
                    "{start} > . 1:1461(1460) ack 1 win 512 again | ESTABLISHED cwnd 14600 ssthresh - flight 1460 wnd 65536 srtt 1.5ms rto 200ms"
                ),
                format!("{start} < . 1:1(0) ack 1 win 512 <sack 1461:2921>")
                    .replace(".500000Z +0.000000", ".501000Z +0.001000"),
                format!("{start} timeout 1:2921(2920)"),
                format!("{start} mss 1300 packet-too-big"),
                format!("{start} closed timed-out"),
            ]
        );
    }

    #[test]
    fn without_a_syn_numbers_count_from_the_first_that_are_seen() {
        let mut show = Show::new(0, 0);
        let line = show.line(&record(Kind::Received, 5000, Some(900), 10));
        assert!(line.ends_with("< . 1:11(10) ack 1 win 512"), "{line}");
        let line = show.line(&record(Kind::Sent(Reason::Turn), 900, Some(5010), 0));
        assert!(line.ends_with("> . 1:1(0) ack 11 win 512"), "{line}");
    }

    #[test]
    fn a_packet_without_its_data_says_how_long_it_was() {
        let headers = record(Kind::Received, 1, Some(2), 1000).headers().unwrap();
        assert_eq!((headers.bytes.len(), headers.original), (40, 1040));
        assert_eq!(headers.bytes[2..4], 1040_u16.to_be_bytes());
        assert_eq!(headers.bytes[12..20], [198, 18, 0, 1, 198, 18, 0, 10]);
        assert_eq!(record(Kind::Timeout, 1, None, 0).headers(), None);
    }

    proptest! {
        #[test]
        fn a_packet_without_data_is_what_its_record_says(record in records()) {
            let record = Record { len: 0, ..record };
            let (local, remote) = (record.flow.local(), record.flow.remote());
            prop_assume!(local.port() != 0 && remote.port() != 0);
            // Nothing is sent to a group.
            prop_assume!([local, remote].iter().all(|end| !end.ip().is_multicast() && end.ip().to_string() != "255.255.255.255"));
            if let Some(Headers { bytes, original }) = record.headers() {
                prop_assert_eq!(bytes.len(), original);
                if let Ok(packet) = Packet::parse(&bytes, false) {
                    let (flow, segment) = Segment::parse(&packet, false).unwrap();
                    let flow = if record.kind == Kind::Received { flow } else { flow.reversed() };
                    prop_assert_eq!((flow, segment.seq, segment.ack), (record.flow, record.seq, record.ack));
                    prop_assert_eq!((segment.flags, segment.window, segment.options), (record.flags, record.window, record.options));
                    prop_assert_eq!(segment.ecn, record.ecn);
                }
            }
        }

        #[test]
        fn any_records_have_lines_and_packets(records in proptest::collection::vec(records(), 0..5)) {
            let mut show = Show::new(u64::MAX, 0);
            for record in records {
                show.line(&record);
                if let Some(Headers { bytes, original }) = record.headers() {
                    prop_assert!(bytes.len() <= HEADERS_MAX && original >= bytes.len());
                }
            }
        }
    }
}
