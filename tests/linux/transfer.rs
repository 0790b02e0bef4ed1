//! A transfer between the engine and Linux: who opens, how much goes each way and in which order, and both ends of it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sealane::base::{Duration, Flow, Instant, Random};
use sealane::tcp::{Close, ConnectionId, Event, Readable, Stack, Token};
use sha2::{Digest, Sha256};

use crate::engine::Application;
use crate::world::{ENGINE, Family, LEFT, address};

/// Transfer n has this port and n; the engine's own ports are as many.
const PORT: u16 = 20_000;
/// What may be silence at most.
const PATIENCE: Duration = Duration::from_secs(60);
const CHUNK: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Engine,
    Linux,
}

/// A transfer, as its number and seed say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) number: u16,
    pub(crate) family: Family,
    pub(crate) opens: Side,
    /// Who sends first, until its FIN, while the other only listens; `None` where both send at once.
    pub(crate) first: Option<Side>,
    pub(crate) from_engine: usize,
    pub(crate) from_linux: usize,
}

impl Plan {
    pub(crate) fn new(number: u16, seed: u64) -> Self {
        let mut random = Random::from_seed(seed ^ (u64::from(number) << 32));
        let mut pick = |bound: u64| random.below(bound);
        Self {
            number,
            family: if pick(2) == 0 { Family::Ipv4 } else { Family::Ipv6 },
            opens: if pick(2) == 0 { Side::Engine } else { Side::Linux },
            first: [None, None, Some(Side::Engine), Some(Side::Linux)][pick(4) as usize],
            from_engine: size(&mut pick),
            from_linux: size(&mut pick),
        }
    }

    fn port(&self) -> u16 {
        PORT + self.number
    }

    fn begins(&self, side: Side) -> bool {
        self.first.is_none_or(|first| first == side)
    }
}

/// Mostly small, sometimes nothing, at most three mebibytes.
fn size(pick: &mut impl FnMut(u64) -> u64) -> usize {
    let bound = match pick(20) {
        0 | 1 => 1,
        2..=9 => 3_000,
        10..=16 => 64 << 10,
        17 | 18 => 512 << 10,
        _ => 3 << 20,
    };
    pick(bound) as usize
}

/// The bytes that a side sends.
#[derive(Clone, Debug)]
struct Source {
    state: u64,
    left: usize,
}

impl Source {
    fn new(plan: &Plan, from: Side) -> Self {
        let len = if from == Side::Engine { plan.from_engine } else { plan.from_linux };
        Self { state: (u64::from(plan.number) << 1 | u64::from(from == Side::Engine)) + 1, left: len }
    }

    /// The next bytes; empty at the end.
    fn next(&mut self) -> Vec<u8> {
        let len = self.left.min(CHUNK);
        self.left -= len;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            // Marsaglia's xorshift64.
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            bytes.extend(self.state.to_be_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// What a side has received.
#[derive(Clone, Debug, Default)]
struct Sink {
    hash: Sha256,
    len: usize,
}

impl Sink {
    fn take(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += bytes.len();
    }

    /// Whether it is what the other side sends.
    fn judge(self, plan: &Plan, from: Side) -> Result<(), String> {
        let mut source = Source::new(plan, from);
        let mut expected = Self::default();
        loop {
            let bytes = source.next();
            if bytes.is_empty() {
                break;
            }
            expected.take(&bytes);
        }
        if expected.len != self.len {
            return Err(format!("{} of {} bytes from {from:?}", self.len, expected.len));
        }
        let same = expected.hash.finalize() == self.hash.finalize();
        if same { Ok(()) } else { Err(format!("{} bytes from {from:?} are not those that were sent", self.len)) }
    }
}

/// Linux's end of a transfer, on a thread of Linux's namespace. `connect` tells the engine to open it.
pub(crate) fn on_linux(plan: &Plan, connect: &Sender<Plan>) -> Result<(), String> {
    let stream = match plan.opens {
        Side::Linux => {
            TcpStream::connect_timeout(&SocketAddr::new(address(ENGINE, plan.family), plan.port()), PATIENCE)
        }
        Side::Engine => accept(plan, connect),
    };
    let stream = stream.map_err(|why| format!("Linux's end does not open: {why}"))?;
    exchange(plan, stream).map_err(|why| format!("Linux's end: {why}"))?.judge(plan, Side::Engine)
}

fn accept(plan: &Plan, connect: &Sender<Plan>) -> io::Result<TcpStream> {
    let listener = TcpListener::bind((address(LEFT, plan.family), plan.port()))?;
    connect.send(*plan).expect("the engine runs");
    ready(&listener, PollFlags::POLLIN)?;
    Ok(listener.accept()?.0)
}

/// Waits until one of these is possible.
fn ready(socket: &impl AsFd, flags: PollFlags) -> io::Result<()> {
    let patience = PollTimeout::try_from(PATIENCE).expect("it fits");
    match poll(&mut [PollFd::new(socket.as_fd(), flags)], patience)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Sends and receives what the plan says, until both have ended.
fn exchange(plan: &Plan, mut stream: TcpStream) -> io::Result<Sink> {
    stream.set_nonblocking(true)?;
    let (mut source, mut sink) = (Source::new(plan, Side::Linux), Sink::default());
    let (mut waiting, mut room) = (Vec::new(), vec![0; CHUNK]);
    let (mut sends, mut sent_all, mut received_all) = (plan.begins(Side::Linux), false, false);
    while !(sent_all && received_all) {
        let mut flags = if received_all { PollFlags::empty() } else { PollFlags::POLLIN };
        if sends && !sent_all {
            flags |= PollFlags::POLLOUT;
        }
        ready(&stream, flags)?;
        match if received_all { Err(io::ErrorKind::WouldBlock.into()) } else { stream.read(&mut room) } {
            Ok(0) => (received_all, sends) = (true, true),
            Ok(len) => sink.take(&room[..len]),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            Err(why) => return Err(why),
        }
        if !sends || sent_all {
            continue;
        }
        if waiting.is_empty() {
            waiting = source.next();
        }
        if waiting.is_empty() {
            stream.shutdown(Shutdown::Write)?;
            sent_all = true;
            continue;
        }
        match stream.write(&waiting) {
            Ok(len) => drop(waiting.drain(..len)),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            Err(why) => return Err(why),
        }
    }
    Ok(sink)
}

/// The engine's end of a connection.
#[derive(Debug)]
struct End {
    plan: Plan,
    source: Source,
    sink: Sink,
    waiting: Vec<u8>,
    sends: bool,
}

/// The engine's ends of all transfers.
pub(crate) struct Ends {
    /// Transfers that the engine is to open.
    connect: Receiver<Plan>,
    /// Where the outcome of each goes.
    outcome: Sender<(Plan, Result<(), String>)>,
    /// All transfers, by number.
    plans: HashMap<u16, Plan>,
    open: HashMap<ConnectionId, End>,
    /// Told once the engine listens.
    ready: Option<Sender<()>>,
}

impl Ends {
    pub(crate) fn new(
        plans: &[Plan],
        ready: Sender<()>,
        connect: Receiver<Plan>,
        outcome: Sender<(Plan, Result<(), String>)>,
    ) -> Self {
        let plans = plans.iter().map(|plan| (plan.number, *plan)).collect();
        Self { connect, outcome, plans, open: HashMap::new(), ready: Some(ready) }
    }

    fn add(&mut self, id: ConnectionId, plan: Plan) {
        let source = Source::new(&plan, Side::Engine);
        let end = End { plan, source, sink: Sink::default(), waiting: Vec::new(), sends: plan.begins(Side::Engine) };
        self.open.insert(id, end);
    }
}

impl Application for Ends {
    fn on_event(&mut self, stack: &mut Stack, id: ConnectionId, token: Token, event: Event, now: Instant) {
        if event == Event::Accepted {
            let plan = self.plans[&u16::try_from(token.0).expect("it is a transfer's number")];
            self.add(id, plan);
        }
        if let Event::Closed(close) = event {
            let Some(end) = self.open.remove(&id) else { return };
            let verdict = match close {
                Close::Finished => end.sink.judge(&end.plan, Side::Linux),
                Close::Reset | Close::Refused | Close::TimedOut | Close::Unreachable => {
                    Err(format!("ended by {close:?} after {} bytes", end.sink.len))
                }
            };
            let verdict = verdict.map_err(|why| format!("the engine's end: {why}"));
            self.outcome.send((end.plan, verdict)).expect("the test waits for it");
            return;
        }
        let Some(end) = self.open.get_mut(&id) else { return };
        loop {
            match stack.readable(id) {
                Readable::Data(bytes) => {
                    let len = bytes.len();
                    end.sink.take(bytes);
                    stack.consume(id, len, now);
                }
                Readable::Finished => {
                    end.sends = true;
                    break;
                }
                Readable::Empty => break,
            }
        }
        while end.sends {
            if end.waiting.is_empty() {
                end.waiting = end.source.next();
            }
            if end.waiting.is_empty() {
                // A second call does nothing.
                stack.shutdown(id, now);
                break;
            }
            let len = stack.write(id, &end.waiting, now);
            if len == 0 {
                break;
            }
            end.waiting.drain(..len);
        }
    }

    fn on_turn(&mut self, stack: &mut Stack, now: Instant) -> bool {
        if let Some(ready) = self.ready.take() {
            for plan in self.plans.values().filter(|plan| plan.opens == Side::Linux) {
                let local = SocketAddr::new(address(ENGINE, plan.family), plan.port());
                stack.listen(local, Token(plan.number.into())).expect("the port is free");
            }
            ready.send(()).expect("Linux waits for it");
        }
        loop {
            match self.connect.try_recv() {
                Ok(plan) => {
                    let local = SocketAddr::new(address(ENGINE, plan.family), plan.port());
                    let flow = Flow::new(local, SocketAddr::new(address(LEFT, plan.family), plan.port()));
                    let id = stack.connect(flow, Token(plan.number.into()), now).expect("the flow is free");
                    self.add(id, plan);
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return !self.open.is_empty(),
            }
        }
    }
}
