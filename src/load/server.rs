//! The servers behind what is loaded: a request says how many bytes it wants, and gets them.

use std::collections::VecDeque;
use std::io::IoSlice;

use slab::Slab;

use crate::base::Instant;
use crate::load::http::{self, Request};
use crate::load::{Taken, Transport};
use crate::tcp::{Event, Token};

/// What answers are made of.
static BODY: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// Most requests and pieces of bodies that one connection has in a row before others have their turn.
const TURNS_MAX: usize = 16;

/// One client of the servers: whatever is loaded.
#[derive(Debug, Default)]
struct Exchange {
    /// What has come of the next request's head.
    head: Vec<u8>,
    /// The request that is being answered, and what of its body has not come.
    request: Option<Request>,
    body_left: u64,
    /// The answer's head, as far as it is not sent, and how much of the body is to be sent.
    answer_head: Vec<u8>,
    answer_left: u64,
    answering: bool,
    /// We have sent all that there was, and closed.
    closed: bool,
    malformed: bool,
    /// Waits for its turn.
    queued: bool,
}

impl Exchange {
    fn take(&mut self, mut bytes: &[u8]) {
        // Behind the last request there is nothing to say.
        if self.closed {
            return;
        }
        if self.request.is_some() {
            let body = usize::try_from(self.body_left).unwrap_or(usize::MAX).min(bytes.len());
            self.body_left -= body as u64;
            bytes = bytes.get(body..).unwrap_or_default();
        }
        self.head.extend_from_slice(bytes);
        self.next_request();
    }

    /// Reads the next request's head, if it is there, and takes what has come of its body.
    fn next_request(&mut self) {
        if self.request.is_some() || self.head.is_empty() {
            return;
        }
        match http::read_request(&self.head) {
            Ok(Some(request)) => {
                let body = usize::try_from(request.body).unwrap_or(usize::MAX);
                let come = body.min(self.head.len() - request.head);
                self.head.drain(..request.head + come);
                self.body_left = request.body - come as u64;
                self.request = Some(request);
            }
            Ok(None) => {}
            Err(http::Malformed) => self.malformed = true,
        }
    }

    /// Begins the answer once the request is complete.
    fn begin_answer(&mut self) {
        let Some(request) = self.request.filter(|_| self.body_left == 0 && !self.answering) else { return };
        self.answer_head = http::answer(request.answer, request.closes).into_bytes();
        self.answer_left = request.answer;
        self.answering = true;
    }

    /// Sends what it can of the answer; whether all of it is sent.
    fn send<T: Transport>(&mut self, transport: &mut T, connection: T::Connection, now: Instant) -> bool {
        while !self.answer_head.is_empty() || self.answer_left > 0 {
            let len = usize::try_from(self.answer_left).unwrap_or(usize::MAX).min(BODY.len());
            let body = BODY.get(..len).unwrap_or_default();
            let parts = [IoSlice::new(&self.answer_head), IoSlice::new(body)];
            let offered = self.answer_head.len() + len;
            let taken = transport.write(connection, &parts, now);
            let of_head = taken.min(self.answer_head.len());
            self.answer_head.drain(..of_head);
            self.answer_left -= (taken - of_head) as u64;
            if taken < offered {
                return false;
            }
        }
        true
    }
}

/// All servers of a load. They share what they are, but not the address that they answer on.
#[derive(Debug)]
pub(super) struct Server<C> {
    exchanges: Slab<(C, Exchange)>,
    /// Connections with something to do, each at most once.
    ready: VecDeque<usize>,
}

impl<C: Copy> Server<C> {
    pub(super) fn new() -> Self {
        Self { exchanges: Slab::new(), ready: VecDeque::new() }
    }

    /// Takes a connection that has been accepted; gives the number that its token should have.
    pub(super) fn on_accepted(&mut self, connection: C) -> usize {
        let number = self.exchanges.insert((connection, Exchange::default()));
        self.wake(number);
        number
    }

    /// Takes an event of a connection.
    pub(super) fn on_event(&mut self, number: usize, event: Event) {
        match event {
            Event::Closed(_) => drop(self.exchanges.try_remove(number)),
            Event::Accepted | Event::Connected | Event::Readable | Event::Writable => self.wake(number),
        }
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.exchanges.len()
    }

    /// Gives each connection with something to do a turn; whether there was one.
    pub(super) fn work<T: Transport<Connection = C>>(&mut self, transport: &mut T, now: Instant) -> bool {
        let turns = self.ready.len();
        for _ in 0..turns {
            let Some(number) = self.ready.pop_front() else { break };
            let Some((connection, exchange)) = self.exchanges.get_mut(number) else { continue };
            exchange.queued = false;
            match exchange.work(transport, *connection, now) {
                Next::Wait => {}
                Next::Again => self.wake(number),
                Next::Over => drop(self.exchanges.try_remove(number)),
            }
        }
        turns > 0
    }

    fn wake(&mut self, number: usize) {
        if let Some((_, exchange)) = self.exchanges.get_mut(number)
            && !std::mem::replace(&mut exchange.queued, true)
        {
            self.ready.push_back(number);
        }
    }
}

/// What an exchange wants after a turn.
enum Next {
    Wait,
    Again,
    Over,
}

impl Exchange {
    fn work<T: Transport>(&mut self, transport: &mut T, connection: T::Connection, now: Instant) -> Next {
        for _ in 0..TURNS_MAX {
            self.begin_answer();
            if self.answering {
                if !self.send(transport, connection, now) {
                    return Next::Wait;
                }
                self.end_answer(transport, connection, now);
                continue;
            }
            match transport.read(connection, now, &mut |bytes| self.take(bytes)) {
                Taken::Some if self.malformed => {
                    transport.abort(connection, now);
                    return Next::Over;
                }
                Taken::Some => {}
                Taken::Empty => return Next::Wait,
                Taken::Finished => {
                    // A connection without a request is a health probe, or a proxy that has let go of it.
                    transport.shutdown(connection, now);
                    return Next::Wait;
                }
            }
        }
        Next::Again
    }

    fn end_answer<T: Transport>(&mut self, transport: &mut T, connection: T::Connection, now: Instant) {
        self.answering = false;
        if self.request.take().is_some_and(|request| request.closes) {
            self.closed = true;
            transport.shutdown(connection, now);
        }
        self.next_request();
    }
}

/// Tokens of servers' connections and of their listener, apart from the clients': see [`Owner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A client, by number.
    Client(usize),
    /// A server's connection, by number.
    Server(usize),
}

/// What a server listens with.
pub(super) const LISTENER: Token = Token(u64::MAX);

impl Owner {
    pub(super) fn token(self) -> Token {
        match self {
            Self::Client(number) => Token((number as u64) << 1),
            Self::Server(number) => Token((number as u64) << 1 | 1),
        }
    }

    pub(super) fn of(token: Token) -> Self {
        let number = usize::try_from(token.0 >> 1).unwrap_or(usize::MAX);
        if token.0 & 1 == 0 { Self::Client(number) } else { Self::Server(number) }
    }
}
