//! The user of one end of a connection: says its bytes, listens, parts, and notices every byte that is not the one that was said.

use std::sync::LazyLock;

use crate::base::{Instant, Random};
use crate::sim::pair::plan::{Ending, Script};
use crate::tcp::testbed::{CallError, Read, Testbed};
use crate::tcp::{Close, ConnectionId};

/// Streams begin somewhere in the first half of this.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut noise = vec![0; 1 << 18];
    Random::from_seed(1).fill(&mut noise);
    noise
});
/// Bytes that a user reads at a time, however large a piece it may.
const ROOM: usize = 4096;
/// Between the beginnings of two streams.
const STRIDE: usize = 4099;

/// The stream that one side of a conversation says: random bytes, so that no piece of it looks like another one.
pub(super) fn stream(conversation: usize, side: usize, total: usize) -> &'static [u8] {
    let begins = (conversation * 2 + side) * STRIDE;
    NOISE.get(begins..begins + total).unwrap_or_default()
}

/// How it ended for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As its TCP told it.
    Told(Close),
    /// It has aborted.
    Aborted,
    /// It has closed with something left to hear, which is answered by a reset.
    ClosedUnread,
    /// Its TCP would not open the connection.
    NotOpened,
}

/// One user.
#[derive(Debug)]
pub(super) struct User {
    pub(super) script: Script,
    says: &'static [u8],
    hears: &'static [u8],
    pub(super) connection: Option<ConnectionId>,
    /// When its connection began.
    pub(super) since: Instant,
    pub(super) said: usize,
    pub(super) heard: usize,
    pub(super) fin_said: bool,
    fin_heard: bool,
    closed: bool,
    /// It does not listen before.
    rests_until: Instant,
    pub(super) end: Option<End>,
    pub(super) ended_at: Instant,
    /// When it wants to be asked next.
    pub(super) looks_at: Option<Instant>,
}

impl User {
    pub(super) fn new(script: Script, says: &'static [u8], hears: &'static [u8]) -> Self {
        Self {
            script,
            says,
            hears,
            connection: None,
            since: Instant::START,
            said: 0,
            heard: 0,
            fin_said: false,
            fin_heard: false,
            closed: false,
            rests_until: Instant::START,
            end: None,
            ended_at: Instant::START,
            looks_at: None,
        }
    }

    /// Its connection exists from `now` on.
    pub(super) fn begin(&mut self, connection: ConnectionId, now: Instant) {
        self.connection = Some(connection);
        self.since = now;
        self.rests_until = now + self.script.reader.deaf;
        self.looks_at = Some(self.rests_until);
    }

    pub(super) fn finish(&mut self, end: End, now: Instant) {
        self.end = Some(end);
        self.ended_at = now;
        self.looks_at = None;
    }

    /// Does whatever it can at `now`. An error says what it must never see.
    pub(super) fn act(&mut self, bed: &mut Testbed, now: Instant) -> Result<(), String> {
        let (Some(connection), None) = (self.connection, self.end) else { return Ok(()) };
        self.looks_at = None;
        if let Ending::AbortAt(after) = self.script.ending {
            if now >= self.since + after {
                return self.abort(bed, connection, now);
            }
            self.look(self.since + after);
        }
        if !self.closed {
            self.listen(bed, connection, now)?;
            self.speak(bed, connection)?;
            self.part(bed, connection, now);
        }
        self.notice_end(bed, connection, now)
    }

    fn look(&mut self, at: Instant) {
        self.looks_at = Some(self.looks_at.map_or(at, |before| before.min(at)));
    }

    pub(super) fn abort(&mut self, bed: &mut Testbed, connection: ConnectionId, now: Instant) -> Result<(), String> {
        bed.abort(connection);
        self.finish(End::Aborted, now);
        Ok(())
    }

    fn listen(&mut self, bed: &mut Testbed, connection: ConnectionId, now: Instant) -> Result<(), String> {
        if now < self.rests_until {
            self.look(self.rests_until);
            return Ok(());
        }
        let reader = self.script.reader;
        let mut room = [0; ROOM];
        let mut left = reader.piece;
        while !self.fin_heard && left > 0 {
            let most = left.min(ROOM);
            match bed.read(connection, room.get_mut(..most).unwrap_or_default()) {
                Ok(Read::Bytes(len)) => {
                    self.hear(room.get(..len).unwrap_or_default())?;
                    left -= len;
                }
                Ok(Read::Empty) => return Ok(()),
                Ok(Read::Finished) => {
                    self.fin_heard = true;
                    if self.heard != self.hears.len() {
                        return Err(format!("FIN came after {} of {} bytes", self.heard, self.hears.len()));
                    }
                }
                // Whether it may have is asked later.
                Err(CallError::Ended(_)) => return Ok(()),
                Err(error @ (CallError::Closing | CallError::Unknown)) => return Err(format!("reading: {error:?}")),
            }
        }
        if !self.fin_heard {
            self.rests_until = now + reader.rests;
            self.look(self.rests_until);
        }
        Ok(())
    }

    /// Every byte is the next one of what the peer says.
    fn hear(&mut self, bytes: &[u8]) -> Result<(), String> {
        let expected = self.hears.get(self.heard..self.heard + bytes.len());
        if expected != Some(bytes) {
            let len = self.hears.len();
            let same = |(one, other): &(&u8, &u8)| one == other;
            let right = self.hears.iter().skip(self.heard).zip(bytes).take_while(same).count();
            return Err(format!("byte {} of {len} is not what was said", self.heard + right));
        }
        self.heard += bytes.len();
        Ok(())
    }

    fn speak(&mut self, bed: &mut Testbed, connection: ConnectionId) -> Result<(), String> {
        while self.heard >= self.script.after && self.said < self.says.len() {
            let end = (self.said + self.script.piece).min(self.says.len());
            let piece = self.says.get(self.said..end).unwrap_or_default();
            match bed.write(connection, piece) {
                Ok(taken) => {
                    self.said += taken;
                    if taken < piece.len() {
                        return Ok(());
                    }
                }
                Err(CallError::Ended(_)) => return Ok(()),
                Err(error @ (CallError::Closing | CallError::Unknown)) => return Err(format!("writing: {error:?}")),
            }
        }
        Ok(())
    }

    fn part(&mut self, bed: &mut Testbed, connection: ConnectionId, now: Instant) {
        let all = self.said == self.says.len();
        match self.script.ending {
            Ending::Abort(heard) if self.heard >= heard => {
                bed.abort(connection);
                self.finish(End::Aborted, now);
            }
            Ending::Close(heard) if all && self.heard >= heard => {
                self.closed = true;
                self.fin_said = true;
                self.looks_at = None;
                bed.close(connection);
            }
            Ending::Shutdown | Ending::AbortAt(_) if all && !self.fin_said => self.shutdown(bed, connection),
            Ending::Answer if all && self.fin_heard && !self.fin_said => self.shutdown(bed, connection),
            Ending::Shutdown | Ending::Answer | Ending::Close(_) | Ending::Abort(_) | Ending::AbortAt(_) => {}
        }
    }

    fn shutdown(&mut self, bed: &mut Testbed, connection: ConnectionId) {
        self.fin_said = true;
        bed.shutdown(connection);
    }

    fn notice_end(&mut self, bed: &Testbed, connection: ConnectionId, now: Instant) -> Result<(), String> {
        if self.end.is_some() {
            return Ok(());
        }
        match bed.ended(connection) {
            Some(Close::Finished) if self.heard != self.hears.len() || self.said != self.says.len() => Err(format!(
                "finished, but heard {} of {} and said {} of {}",
                self.heard,
                self.hears.len(),
                self.said,
                self.says.len()
            )),
            Some(Close::Finished) if !self.fin_said => Err("finished without our FIN".into()),
            Some(close) => {
                self.finish(End::Told(close), now);
                Ok(())
            }
            None if bed.flow(connection).is_none() && self.closed && self.heard < self.hears.len() => {
                self.finish(End::ClosedUnread, now);
                Ok(())
            }
            None if bed.flow(connection).is_none() => Err("the connection is gone and nobody was told".into()),
            None => Ok(()),
        }
    }
}
