//! What must be true of a stack between any two calls, checked by looking at everything: for tests, simulation and fuzzing.

use std::fmt::Display;

use crate::base::Instant;
use crate::tcp::connection::{Connection, Env};
use crate::tcp::index::Place;
use crate::tcp::paths::PATHS_MAX;
use crate::tcp::receive::Receiver;
use crate::tcp::scoreboard::Scoreboard;
use crate::tcp::send::Sender;
use crate::tcp::stack::{Alarm, REPLIES_MAX, Stack};
use crate::tcp::state::State;
use crate::wire::Seq;

/// What is wrong, in words.
pub(super) type Verdict = Result<(), String>;

/// `ensure!(condition, format…)`: the words when the condition does not hold.
macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}

impl Stack {
    /// Looks at everything and names the first thing that must not be: numbers out of order, sums that are wrong, something to do that nobody will be
    /// woken for, a table or a timer that names what is gone. It costs time in proportion to everything there is, so it is for tests.
    ///
    /// # Errors
    /// The violation, in words. It is a bug in this engine, whatever the peer has sent.
    pub fn audit(&self, now: Instant) -> Result<(), String> {
        let env = self.env(now);
        for index in self.connections.indices() {
            let Some(connection) = self.connections.at(index) else { continue };
            let whose = |why: String| format!("{:?} in {}: {why}", connection.flow, connection.state);
            audit_connection(connection).map_err(whose)?;
            self.audit_place(index, connection).map_err(whose)?;
            self.audit_timer(index, connection, env).map_err(whose)?;
        }
        self.audit_sources()?;
        self.audit_half_open()?;
        self.audit_time_wait()?;
        self.audit_queues()?;
        self.audit_sums()
    }

    /// The index and the queues know the connection, as far as they have to.
    fn audit_place(&self, index: u32, connection: &Connection) -> Verdict {
        let found = self.place_of(&connection.flow);
        ensure!(connection.detached == connection.over.is_some(), "over and in the index, or out of it and not over");
        if connection.detached {
            ensure!(found != Some(Place::Connection(index)), "the index names a connection that is over");
        } else {
            ensure!(found == Some(Place::Connection(index)), "the index says {found:?}");
        }
        let wants = connection.over.is_none() && connection.plan().is_some();
        ensure!(!wants || self.sending.contains(index), "wants to send {:?} and is not queued", connection.plan());
        ensure!(!connection.detached || !self.sending.contains(index), "over, and queued to send");
        ensure!(!connection.has_news() || self.news.contains(index), "has news and is not queued");
        Ok(())
    }

    /// The connection has a timer that fires by its earliest deadline.
    fn audit_timer(&self, index: u32, connection: &Connection, env: Env<'_>) -> Verdict {
        let Some((timer, at)) = connection.timer else {
            let deadline = connection.next_deadline(env).filter(|_| connection.over.is_none());
            ensure!(deadline.is_none(), "no timer for the deadline at {deadline:?}");
            return Ok(());
        };
        ensure!(connection.over.is_none(), "over, and has a timer");
        let armed = self.timers.armed(timer);
        let ours = matches!(armed, Some((_, Alarm::Connection(owner))) if owner == index);
        ensure!(ours, "its timer is {armed:?}");
        let deadline = connection.next_deadline(env);
        ensure!(deadline.is_none_or(|deadline| at <= deadline), "its timer at {at:?} is later than {deadline:?}");
        Ok(())
    }

    fn audit_half_open(&self) -> Verdict {
        for (index, half) in &self.half_open {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let found = self.place_of(&half.flow);
            ensure!(found == Some(Place::HalfOpen(index)), "{:?} is half-open and the index says {found:?}", half.flow);
            let armed = half.timer.and_then(|timer| self.timers.armed(timer));
            let ours = matches!(armed, Some((_, Alarm::HalfOpen(owner))) if owner == index);
            ensure!(ours, "{:?} is half-open and its timer is {armed:?}", half.flow);
        }
        Ok(())
    }

    fn audit_time_wait(&self) -> Verdict {
        let mut last = Instant::START;
        let mut count = 0;
        for index in self.time_wait.in_order() {
            let Some(entry) = self.time_wait.at(index) else { return Err(format!("no TIME-WAIT entry {index}")) };
            let found = self.place_of(&entry.flow);
            ensure!(
                found == Some(Place::TimeWait(index)),
                "{:?} is in TIME-WAIT, the index says {found:?}",
                entry.flow
            );
            ensure!(entry.expires_at >= last, "{:?} is not in its turn in TIME-WAIT", entry.flow);
            last = entry.expires_at;
            count += 1;
        }
        ensure!(count == self.time_wait.len(), "{count} of {} TIME-WAIT entries in order", self.time_wait.len());
        Ok(())
    }

    /// Every source is known for what it holds, and held by whom it is known for.
    fn audit_sources(&self) -> Verdict {
        let connections = self.connections.indices().into_iter().filter_map(|index| self.connections.at(index));
        let connections = connections.map(|connection| (connection.flow, connection.source, false));
        let handshakes = self.half_open.iter().map(|(_, half)| (half.flow, half.source, true));
        self.sources.audit(connections.chain(handshakes))
    }

    fn audit_queues(&self) -> Verdict {
        for (name, queue) in [("sending", &self.sending), ("news", &self.news)] {
            for slot in queue.iter() {
                ensure!(self.connections.at(slot).is_some(), "slot {slot} is queued for {name} and empty");
            }
        }
        ensure!(self.replies.len() <= REPLIES_MAX, "{} replies wait", self.replies.len());
        Ok(())
    }

    /// Tables, index, timers and memory add up, and the gauges show them.
    fn audit_sums(&self) -> Verdict {
        let live: Vec<&Connection> =
            self.connections.indices().into_iter().filter_map(|index| self.connections.at(index)).collect();
        let sum = |of: fn(&Connection) -> usize| live.iter().map(|connection| of(connection)).sum::<usize>();
        same("connections", live.len(), self.connections.len())?;
        let indexed = sum(|connection| usize::from(!connection.detached)) + self.half_open.len() + self.time_wait.len();
        same("flows in the index", self.index.len(), indexed)?;
        let timers = sum(|connection| usize::from(connection.timer.is_some())) + self.half_open.len();
        same("timers", self.timers.len(), timers)?;
        same("accounted memory", self.buffered, sum(|connection| connection.accounted as usize))?;
        same("accounted memory", self.buffered, sum(|connection| connection.memory() as usize))?;
        same("paths in order", self.paths.in_order().len(), self.paths.len())?;
        ensure!(self.paths.len() <= PATHS_MAX, "{} paths are remembered", self.paths.len());
        for (name, gauge, value) in [
            ("connections", &self.counters.connections, live.len()),
            ("half_open", &self.counters.half_open, self.half_open.len()),
            ("time_wait", &self.counters.time_wait, self.time_wait.len()),
            ("sources", &self.counters.sources, self.sources.len()),
            ("buffered_bytes", &self.counters.buffered_bytes, self.buffered),
            ("timers", &self.counters.timers, timers),
            ("paths", &self.counters.paths, self.paths.len()),
        ] {
            same(name, gauge.value(), value as u64)?;
        }
        Ok(())
    }
}

fn same<T: PartialEq + Display>(what: &str, told: T, counted: T) -> Verdict {
    ensure!(told == counted, "{what}: told {told}, counted {counted}");
    Ok(())
}

fn audit_connection(connection: &Connection) -> Verdict {
    let (sender, receiver) = (&connection.sender, &connection.receiver);
    let over = matches!(connection.state, State::TimeWait | State::Closed);
    ensure!(over == connection.over.is_some(), "the end is {:?}", connection.over);
    if connection.over.is_some() {
        ensure!(sender.memory() == 0, "over, and {} bytes are still to be sent", sender.memory());
        return Ok(());
    }
    let (cwnd, _) = connection.recovery.windows();
    ensure!(sender.mss > 0 && cwnd >= sender.mss, "cwnd {cwnd} below a segment of {}", sender.mss);
    audit_sender(sender)?;
    // Before anything asks what would be sent, as that counts on the scoreboard.
    if let Some(selective) = &connection.selective {
        audit_scoreboard(&selective.board)?;
        let (start, end) = (selective.board.start(), selective.board.end());
        let (una, nxt) = (sender.snd_una, sender.snd_nxt);
        ensure!(
            (start, end) == (una, nxt),
            "the scoreboard holds {start:?} to {end:?}, in flight is {una:?} to {nxt:?}"
        );
    }
    audit_path(connection)?;
    if connection.state != State::SynSent {
        audit_receiver(receiver)?;
    }
    ensure!(
        receiver.finished == matches!(connection.state, State::CloseWait | State::Closing | State::LastAck),
        "the peer's FIN has been taken: {}",
        receiver.finished
    );
    let wakes = connection.retransmit_at.or(connection.persist_at).is_some() || connection.plan().is_some();
    ensure!(wakes || !sender.outstanding(), "something is out and nothing would send it again");
    ensure!(wakes || !connection.state.is_synchronized() || !sender.unsent(), "nothing would send what is queued");
    let told = receiver.ack_wanted() || receiver.ack_at.is_some();
    let owed = if connection.state.is_synchronized() { receiver.unacknowledged() } else { 0 };
    ensure!(told || owed == 0, "{owed} bytes would never be acknowledged");
    Ok(())
}

/// Segments are as long as the path is thought to let through, and what is being tried is out.
fn audit_path(connection: &Connection) -> Verdict {
    let (mss, path) = (connection.sender.mss, &connection.path);
    same("bytes of a segment", connection.recovery.mss(), mss)?;
    let (una, max) = (connection.sender.snd_una, connection.sender.snd_max);
    let is_out = |end: Seq| end.after(una) && end.at_or_before(max);
    ensure!(path.tried == 0 || path.tried > path.proven, "what has arrived is tried");
    ensure!(path.tried == 0 || is_out(path.tried_end), "what is tried is not out: {path:?}");
    let Some(narrow) = &path.narrow else { return Ok(()) };
    ensure!(mss <= narrow.ceiling.into(), "segments of {mss} bytes, and both ends take {}", narrow.ceiling);
    ensure!(
        narrow.pending.is_none_or(|(allowed, _)| u32::from(allowed) < mss),
        "a message waits that says nothing new"
    );
    ensure!(path.probe().is_none_or(|(_, end)| is_out(end)), "a probe is not out: {narrow:?}");
    ensure!(narrow.probe.is_none_or(|(_, len)| u32::from(len) > mss), "a probe that is no larger than others");
    Ok(())
}

/// RFC 9293 3.4: SND.UNA ≤ SND.NXT ≤ what was ever sent ≤ what there is to send.
fn audit_sender(sender: &Sender) -> Verdict {
    let Sender { iss, snd_una, snd_nxt, snd_max, first, .. } = *sender;
    let end = first + u32::try_from(sender.queued()).unwrap_or(u32::MAX) + u32::from(sender.fin);
    let numbers = format!("SND.UNA {snd_una:?}, SND.NXT {snd_nxt:?}, sent {snd_max:?}, end {end:?}");
    let ordered = [snd_una, snd_nxt, snd_max, end].is_sorted_by(|one, next| one.at_or_before(*next));
    ensure!(ordered, "{numbers}");
    let acknowledged = sender.fin && sender.queued() == 0 && snd_una == first + 1;
    let unopened = snd_una == iss && first == iss + 1;
    ensure!(snd_una == first || acknowledged || unopened, "the buffer begins at {first:?}: {numbers}");
    ensure!(sender.queued() <= sender.capacity as usize, "{} bytes queued", sender.queued());
    ensure!(sender.snd_wnd <= sender.max_window, "the window was never as large as it is");
    ensure!(!sender.blocked || sender.fin || sender.queued() > 0, "the writer waits and nothing would wake it");
    Ok(())
}

/// What waits behind gaps lies in the window that was promised, and there is room for all of that window.
fn audit_receiver(receiver: &Receiver) -> Verdict {
    let Receiver { rcv_nxt, rcv_adv, capacity, .. } = *receiver;
    ensure!(rcv_nxt.at_or_before(rcv_adv), "RCV.NXT {rcv_nxt:?} is beyond the window's edge {rcv_adv:?}");
    let (window, ready) = (receiver.window() as usize, receiver.ready());
    // The FIN has a place in the sequence space and none in the buffer.
    ensure!(window + ready <= capacity as usize, "{window} promised and {ready} unread of {capacity}");
    let mut left = rcv_nxt;
    for (start, end) in receiver.gaps.iter().flat_map(|gaps| gaps.pieces.ranges()) {
        ensure!(start.after(left), "a piece at {start:?} touches what ends at {left:?}");
        ensure!(end.after(start) && end.at_or_before(rcv_adv), "a piece to {end:?}, the edge is {rcv_adv:?}");
        left = end;
    }
    Ok(())
}

/// The scoreboard's sums are those of its segments.
pub(super) fn audit_scoreboard(board: &Scoreboard) -> Verdict {
    let mut left = board.start();
    let (mut sacked, mut count, mut lost, mut again) = (0, 0, 0, 0);
    for sent in &board.segments {
        ensure!(sent.end.after(left), "an empty segment at {left:?}");
        ensure!(!(sent.sacked && sent.lost), "what has arrived is lost at {left:?}");
        let len = sent.end.since(left);
        sacked += if sent.sacked { len } else { 0 };
        lost += if sent.lost { len } else { 0 };
        count += u32::from(sent.sacked);
        again += u32::from(sent.again);
        left = sent.end;
    }
    same("bytes sacked", board.sacked, sacked)?;
    same("bytes lost", board.lost, lost)?;
    same("segments sacked", board.sacked_count, count)?;
    same("segments sent again", board.again, again)?;
    ensure!(board.pipe() <= board.out(), "more in the pipe than out");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Duration, Flow};
    use crate::tcp::testbed::Testbed;
    use crate::tcp::{ConnectionId, Settings};

    const LOCAL: ([u8; 4], u16) = ([198, 18, 0, 1], 50_000);
    const REMOTE: ([u8; 4], u16) = ([198, 18, 0, 2], 443);

    fn opened() -> (Testbed, ConnectionId, Testbed, ConnectionId) {
        let (mut client, mut server) = (Testbed::new(Settings::default(), 1), Testbed::new(Settings::default(), 2));
        [&mut client, &mut server].into_iter().for_each(|bed| bed.advance(Duration::from_secs(1)));
        let listener = server.listen(REMOTE.into()).unwrap();
        let ours = client.connect(LOCAL.into(), REMOTE.into()).unwrap();
        server.inject(&client.take().unwrap()).unwrap();
        client.inject(&server.take().unwrap()).unwrap();
        server.inject(&client.take().unwrap()).unwrap();
        let theirs = server.accept(listener).unwrap();
        (client, ours, server, theirs)
    }

    /// A client with a hole in what it has in flight, and a server with unread data to send and a handshake that another connection has begun.
    fn busy() -> [Testbed; 2] {
        let (mut client, ours, mut server, theirs) = opened();
        client.connect(([198, 18, 0, 1], 50_001).into(), REMOTE.into()).unwrap();
        server.inject(&client.take().unwrap()).unwrap();
        server.take();
        client.write(ours, &[7; 9000]).unwrap();
        client.take();
        while let Some(packet) = client.take() {
            server.inject(&packet).unwrap();
        }
        server.write(theirs, b"unread").unwrap();
        while let Some(packet) = server.take() {
            client.inject(&packet).unwrap();
        }
        [client, server]
    }

    type Damage = fn(&mut Stack);

    fn connection(stack: &mut Stack) -> &mut Connection {
        stack.connections.at_mut(0).unwrap()
    }

    /// What the audit says after `damage` to a host that was sound before.
    fn said(side: usize, damage: Damage) -> Verdict {
        let mut bed = busy().into_iter().nth(side).unwrap();
        assert_eq!(bed.audit(), Ok(()));
        damage(&mut bed.stack);
        bed.stack.audit(bed.now())
    }

    #[test]
    fn every_kind_of_damage_is_noticed() {
        let cases: [(usize, &str, Damage); 29] = [
            (0, "SND.UNA", |stack| connection(stack).sender.snd_nxt = connection(stack).sender.snd_una - 1),
            (0, "sent", |stack| connection(stack).sender.snd_max = connection(stack).sender.snd_max + 100_000),
            (0, "the buffer begins", |stack| connection(stack).sender.snd_una = connection(stack).sender.snd_una + 1),
            (0, "bytes queued", |stack| connection(stack).sender.capacity = 1),
            (0, "never as large", |stack| connection(stack).sender.max_window = 0),
            (0, "cwnd", |stack| connection(stack).sender.mss = 1 << 30),
            (0, "send it again", |stack| stack.connections.at_mut(1).unwrap().retransmit_at = None),
            (0, "later than", |stack| connection(stack).retransmit_at = Some(Instant::START)),
            (0, "the scoreboard holds", |stack| {
                connection(stack).sender.snd_nxt = connection(stack).sender.snd_nxt - 1
            }),
            (0, "bytes sacked", |stack| connection(stack).selective.as_mut().unwrap().board.sacked += 1),
            (0, "never be acknowledged", |stack| connection(stack).receiver.ack_at = None),
            (0, "bytes of a segment", |stack| connection(stack).recovery.resize(100)),
            (0, "is not out", |stack| connection(stack).path.tried_end = connection(stack).sender.snd_una),
            (0, "the end is", |stack| connection(stack).state = State::TimeWait),
            (0, "FIN has been taken", |stack| connection(stack).receiver.finished = true),
            (0, "the index says None", |stack| stack.index.clear()),
            (0, "flows in the index", |stack| stack.index.insert(stack.index.key(&flow(1)), Place::Connection(0))),
            (0, "no timer", |stack| connection(stack).timer = None),
            (0, "its timer is", |stack| stack.timers.cancel(stack.connections.at(0).unwrap().timer.unwrap().0)),
            (0, "timers:", |stack| assert_ne!(Some(stack.timers.arm(Instant::START, Alarm::Connection(0))), None)),
            (0, "accounted memory", |stack| stack.buffered += 1),
            (0, "slot 9 is queued", |stack| stack.news.push(9)),
            (0, "is not queued", |stack| stack.sending.remove(0)),
            (1, "beyond the window", |stack| {
                connection(stack).receiver.rcv_adv = connection(stack).receiver.rcv_nxt - 1
            }),
            (1, "touches", |stack| connection(stack).receiver.rcv_nxt = connection(stack).receiver.rcv_nxt + 1460),
            (1, "which is not its source", |stack| {
                stack.half_open.iter_mut().for_each(|(_, half)| half.flow = half.flow.reversed())
            }),
            (1, "is held by", |stack| stack.half_open.iter_mut().for_each(|(_, half)| half.source = None)),
            (1, "sources: told", |stack| stack.counters.sources.set(7)),
            (1, "half-open and its timer", |stack| stack.half_open.iter_mut().for_each(|(_, half)| half.timer = None)),
        ];
        for (number, (side, words, damage)) in cases.into_iter().enumerate() {
            let said = said(side, damage);
            assert!(said.as_ref().is_err_and(|why| why.contains(words)), "damage {number}, {words}: {said:?}");
        }
    }

    fn flow(port: u16) -> Flow {
        Flow::new(([198, 18, 0, 1], port).into(), REMOTE.into())
    }

    #[test]
    fn a_forgotten_time_wait_is_noticed() {
        let (mut client, ours, mut server, theirs) = opened();
        client.close(ours);
        server.close(theirs);
        for _ in 0..2 {
            std::iter::from_fn(|| client.take()).for_each(|packet| server.inject(&packet).unwrap());
            std::iter::from_fn(|| server.take()).for_each(|packet| client.inject(&packet).unwrap());
        }
        assert_eq!((client.state(ours), client.audit(), server.audit()), (State::TimeWait, Ok(()), Ok(())));
        client.stack.index.clear();
        assert!(client.audit().unwrap_err().contains("is in TIME-WAIT, the index says None"));
    }
}
