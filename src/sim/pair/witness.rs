//! What two hosts say to each other must make one story: numbers that only grow, bytes that stay what they were, promises that are kept.
//!
//! It sees every packet when it leaves, so before the path can do anything to it.

use std::collections::BTreeMap;

use crate::base::Flow;
use crate::sim::pair::user::stream;
use crate::tcp::Settings;
use crate::wire::segment::{IPV4_HEADER, IPV6_HEADER, TCP_HEADER};
use crate::wire::{Packet, Segment, SegmentOptions, Seq};

/// What a peer accepts that does not say (RFC 9293 3.7.1).
const MSS_DEFAULT: [u16; 2] = [536, 1220];
/// Ours never sends smaller segments than this, whatever the peer says.
const MSS_MIN: usize = 64;

macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}

/// What one side of a conversation has said so far.
#[derive(Debug, Default)]
struct Told {
    /// Every initial sequence number that it has offered. SYN cookies may make that more than one.
    offered: Vec<Seq>,
    /// The one that the other side has taken.
    isn: Option<Seq>,
    /// What its SYN says.
    syn: SegmentOptions,
    /// The window of its SYN, which is never scaled.
    first_window: u32,
    /// One past the highest number sent.
    end: Option<Seq>,
    /// Behind its FIN.
    fin: Option<Seq>,
    /// The highest acknowledgement.
    acknowledged: Option<Seq>,
    /// The right edge of the window that it has promised.
    edge: Option<Seq>,
    /// The newest timestamp.
    clock: Option<Seq>,
}

/// Both sides of a conversation.
#[derive(Debug, Default)]
struct Record {
    sides: [Told; 2],
    /// A late packet has opened the connection once more by its cookie (RFC 4987 3.6): what is said now has been said before.
    haunted: bool,
}

/// Knows what has been said in every conversation.
#[derive(Debug, Default)]
pub(super) struct Witness {
    records: BTreeMap<usize, Record>,
    totals: BTreeMap<usize, [usize; 2]>,
}

impl Witness {
    /// A conversation of so many bytes from either side.
    pub(super) fn expect(&mut self, conversation: usize, totals: [usize; 2]) {
        self.totals.insert(conversation, totals);
        self.records.insert(conversation, Record::default());
    }

    /// The server has accepted a connection for the second time.
    pub(super) fn haunt(&mut self, conversation: usize) {
        if let Some(record) = self.records.get_mut(&conversation) {
            record.haunted = true;
        }
    }

    /// A packet leaves `side`. An error says what it must not.
    pub(super) fn on_packet(
        &mut self,
        conversation: usize,
        side: usize,
        packet: &[u8],
        settings: &Settings,
    ) -> Result<(), String> {
        let parsed = Packet::parse(packet, false).map_err(|error| format!("{error:?}"))?;
        let (flow, segment) = Segment::parse(&parsed, false).map_err(|error| format!("{error:?}"))?;
        ensure!(packet.len() <= settings.mtu, "{} bytes, and its MTU is {}", packet.len(), settings.mtu);
        let (Some(record), Some(totals)) = (self.records.get_mut(&conversation), self.totals.get(&conversation)) else {
            return Err("a packet of no conversation".into());
        };
        // A reset speaks for whoever does not know the connection.
        if record.haunted || segment.flags.rst {
            return Ok(());
        }
        let total = if side == 0 { totals[0] } else { totals[1] };
        let [client, server] = &mut record.sides;
        let (us, them) = if side == 0 { (client, server) } else { (server, client) };
        if segment.flags.syn {
            return us.on_syn(them, &segment);
        }
        us.on_segment(them, &flow, &segment, stream(conversation, side, total), settings)
    }
}

impl Told {
    fn on_syn(&mut self, them: &mut Self, segment: &Segment<'_>) -> Result<(), String> {
        ensure!(segment.payload.is_empty() && !segment.flags.fin, "more than SYN in a SYN");
        if !self.offered.contains(&segment.seq) {
            self.offered.push(segment.seq);
        }
        self.syn = segment.options;
        self.first_window = u32::from(segment.window);
        if let Some(ack) = segment.ack {
            ensure!(them.offered.contains(&(ack - 1)), "it acknowledges a SYN that nobody sent");
            them.isn = Some(ack - 1);
            let options = segment.options;
            ensure!(!options.sack_permitted || them.syn.sack_permitted, "it permits SACK and was not asked");
            ensure!(options.timestamp.is_none() || them.syn.timestamp.is_some(), "it has timestamps, unasked");
            ensure!(options.window_scale.is_none() || them.syn.window_scale.is_some(), "it scales, unasked");
        }
        Ok(())
    }

    fn on_segment(
        &mut self,
        them: &mut Self,
        flow: &Flow,
        segment: &Segment<'_>,
        says: &[u8],
        settings: &Settings,
    ) -> Result<(), String> {
        let Some(ack) = segment.ack else { return Err("it acknowledges nothing".into()) };
        let theirs = match them.isn {
            Some(isn) => isn,
            None => {
                ensure!(them.offered.contains(&(ack - 1)), "it acknowledges a SYN that nobody sent");
                *them.isn.insert(ack - 1)
            }
        };
        // Somebody who does not know yet which of its SYN-ACKs was taken says nothing but that it is there.
        let bare = segment.payload.is_empty() && !segment.flags.fin;
        let is_unsure = self.isn.is_none_or(|isn| segment.seq != isn + 1);
        if bare && is_unsure && self.offered.contains(&(segment.seq - 1)) {
            return Ok(());
        }
        let Some(isn) = self.isn else { return Err("it speaks before the handshake is complete".into()) };
        self.check_data(them, isn, segment, says)?;
        self.check_length(them, flow, segment)?;
        self.check_acknowledgement(them, ack, theirs, segment)?;
        self.check_window(them, ack, segment, settings)?;
        self.check_timestamp(them, segment)
    }

    /// What it sends are the bytes that belong there, with no hole before them, and inside the window that it was promised.
    fn check_data(&mut self, them: &Self, isn: Seq, segment: &Segment<'_>, says: &[u8]) -> Result<(), String> {
        let seq = segment.seq;
        let sent = *self.end.get_or_insert(isn + 1);
        ensure!(seq.at_or_before(sent), "it begins at {seq:?}, and up to there only {sent:?} has been sent");
        // A keepalive probe begins one before what is unacknowledged, at the least at the SYN.
        ensure!(seq.at_or_after(isn), "it begins before its connection");
        let len = u32::try_from(segment.payload.len()).unwrap_or(u32::MAX);
        if len > 0 {
            let at = seq.since(isn + 1) as usize;
            let expected = says.get(at..at + segment.payload.len());
            ensure!(expected == Some(segment.payload), "its bytes from {at} on are not what was said");
        }
        let end = seq + segment.sequence_len();
        let last = isn + 1 + u32::try_from(says.len()).unwrap_or(u32::MAX);
        if segment.flags.fin {
            ensure!(seq + len == last, "FIN after {} of {} bytes", (seq + len).since(isn + 1), says.len());
            self.fin = Some(end);
        }
        // RFC 9293 3.8.6.1: one byte may probe a closed window, and the FIN comes with the last byte.
        let edge = them.edge.unwrap_or(isn + 1 + them.first_window);
        let excess = if (seq + len).after(edge) { (seq + len).since(edge) } else { 0 };
        ensure!(excess <= 1, "{excess} bytes beyond the window");
        ensure!(len > 0 || seq.at_or_before(edge), "it begins at {seq:?}, and the peer listens up to {edge:?}");
        self.end = Some(sent.max(end));
        Ok(())
    }

    fn check_length(&self, them: &Self, flow: &Flow, segment: &Segment<'_>) -> Result<(), String> {
        let v4 = flow.local().is_ipv4();
        let silent = if v4 { MSS_DEFAULT[0] } else { MSS_DEFAULT[1] };
        let mss = usize::from(them.syn.mss.unwrap_or(silent)).max(MSS_MIN);
        // RFC 6691: the MSS counts options in.
        let len = segment.payload.len() + segment.options.len();
        let header = TCP_HEADER + if v4 { IPV4_HEADER } else { IPV6_HEADER };
        ensure!(segment.payload.is_empty() || len <= mss, "{len} bytes behind {header}, and the peer takes {mss}");
        Ok(())
    }

    fn check_acknowledgement(
        &mut self,
        them: &Self,
        ack: Seq,
        theirs: Seq,
        segment: &Segment<'_>,
    ) -> Result<(), String> {
        let sent = them.end.unwrap_or(theirs + 1);
        ensure!(ack.at_or_before(sent), "it acknowledges {ack:?}, and only {sent:?} has been sent");
        let before = *self.acknowledged.get_or_insert(ack);
        ensure!(ack.at_or_after(before), "it takes back the acknowledgement of {before:?}");
        self.acknowledged = Some(ack);
        let permitted = self.syn.sack_permitted && them.syn.sack_permitted;
        for (number, (left, right)) in segment.options.sack.iter().flatten().enumerate() {
            ensure!(permitted, "SACK, and it was not agreed on");
            ensure!(left.before(*right), "a SACK block from {left:?} to {right:?}");
            ensure!(right.at_or_before(sent), "it has received {right:?}, and only {sent:?} has been sent");
            ensure!(left.after(theirs), "it has received what is before the stream");
            // RFC 2883 4: only the first one may say what came twice.
            ensure!(number == 0 || left.after(ack), "SACK block {number} from {left:?} on, acknowledged is {ack:?}");
        }
        Ok(())
    }

    /// RFC 9293 3.8.6: the right edge never moves back, as far as the scaled field can say it.
    fn check_window(
        &mut self,
        them: &Self,
        ack: Seq,
        segment: &Segment<'_>,
        settings: &Settings,
    ) -> Result<(), String> {
        let scaled = self.syn.window_scale.is_some() && them.syn.window_scale.is_some();
        let shift = self.syn.window_scale.filter(|_| scaled).unwrap_or(0);
        let window = u32::from(segment.window) << shift;
        ensure!(window as usize <= settings.receive_buffer, "a window of {window}");
        let edge = ack + window;
        // Behind the FIN there is nothing to promise.
        let over = them.fin.is_some_and(|fin| ack == fin);
        let before = *self.edge.get_or_insert(edge);
        let kept = edge + ((1 << shift) - 1);
        ensure!(over || kept.at_or_after(before), "it takes back its window from {before:?} to {edge:?}");
        self.edge = Some(before.max(edge));
        Ok(())
    }

    /// RFC 7323 3.2: once agreed on, in every segment, and never older than before.
    fn check_timestamp(&mut self, them: &Self, segment: &Segment<'_>) -> Result<(), String> {
        let agreed = self.syn.timestamp.is_some() && them.syn.timestamp.is_some();
        ensure!(agreed == segment.options.timestamp.is_some(), "timestamps are {agreed} and this is otherwise");
        if let Some(timestamp) = segment.options.timestamp {
            let value = Seq(timestamp.value);
            ensure!(self.clock.is_none_or(|clock| value.at_or_after(clock)), "its timestamps go back");
            self.clock = Some(value);
        }
        Ok(())
    }
}
