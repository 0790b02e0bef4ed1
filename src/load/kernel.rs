//! Connections over kernel sockets, for services that live behind the kernel's TCP.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};

use mio::event::Event as Polled;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll};
use slab::Slab;
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use crate::base::{Duration, Instant};
use crate::lane::NoConnection;
use crate::load::{Taken, Transport};
use crate::tcp::{Close, Event, Token};

/// Most events that the kernel gives at once.
const EVENTS_MAX: usize = 1024;

/// Bytes of one read.
const READ: usize = 64 * 1024;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// mio's tokens of listeners; connections count from 0.
const LISTENERS: usize = usize::MAX / 2;

/// Names a connection. One that is gone names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketId {
    slot: usize,
    generation: u64,
}

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    token: Token,
    generation: u64,
    connected: bool,
    /// A write found no room: say when there is.
    wants_room: bool,
    received_end: bool,
    sent_end: bool,
    over: bool,
}

/// Kernel sockets. Every connection has at most four events waiting, one of each kind.
#[derive(Debug)]
pub struct Kernel {
    poll: Poll,
    polled: Events,
    listeners: Vec<(TcpListener, Token)>,
    sockets: Slab<Socket>,
    events: VecDeque<(SocketId, Event)>,
    room: Box<[u8]>,
    generations: u64,
}

impl Kernel {
    /// No sockets yet.
    ///
    /// # Errors
    /// When the kernel gives no epoll instance.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            polled: Events::with_capacity(EVENTS_MAX),
            listeners: Vec::new(),
            sockets: Slab::new(),
            events: VecDeque::new(),
            room: vec![0; READ].into_boxed_slice(),
            generations: 0,
        })
    }

    fn adopt(&mut self, mut stream: TcpStream, token: Token, connected: bool) -> io::Result<SocketId> {
        let entry = self.sockets.vacant_entry();
        let slot = entry.key();
        self.poll.registry().register(&mut stream, mio::Token(slot), Interest::READABLE | Interest::WRITABLE)?;
        self.generations += 1;
        let generation = self.generations;
        entry.insert(Socket {
            stream,
            token,
            generation,
            connected,
            wants_room: false,
            received_end: false,
            sent_end: false,
            over: false,
        });
        Ok(SocketId { slot, generation })
    }

    /// Takes what the kernel knows; waits for it for so long at most.
    fn poll(&mut self, at_most: Duration) -> bool {
        let mut polled = std::mem::replace(&mut self.polled, Events::with_capacity(0));
        // It is interrupted by signals: then there is nothing yet.
        let any = self.poll.poll(&mut polled, Some(at_most)).is_ok() && !polled.is_empty();
        if any {
            for event in &polled {
                match event.token().0.checked_sub(LISTENERS) {
                    Some(listener) => self.accept(listener),
                    None => self.on_polled(event.token().0, event),
                }
            }
        }
        self.polled = polled;
        any
    }

    /// The kernel tells of a listener once: takes all that waits, which its backlog bounds.
    fn accept(&mut self, listener: usize) {
        for _ in 0..BACKLOG {
            let Some((socket, token)) = self.listeners.get(listener) else { return };
            let token = *token;
            let Ok((stream, _)) = socket.accept() else { return };
            // Answers are whole: waiting for more to send would only cost time.
            let adopted = stream.set_nodelay(true).and_then(|()| self.adopt(stream, token, true));
            if let Ok(id) = adopted {
                self.events.push_back((id, Event::Accepted));
            }
        }
    }

    fn on_polled(&mut self, slot: usize, event: &Polled) {
        let Some(socket) = self.sockets.get_mut(slot).filter(|socket| !socket.over) else { return };
        let id = SocketId { slot, generation: socket.generation };
        let error = if event.is_error() { socket.stream.take_error().ok().flatten() } else { None };
        if !socket.connected {
            match (error, socket.stream.peer_addr()) {
                (Some(error), _) => return self.end(id, closed_by(&error)),
                (None, Ok(_)) => socket.connected = true,
                // An event of the socket that had this slot before.
                (None, Err(_)) => return,
            }
            self.events.push_back((id, Event::Connected));
        }
        if event.is_readable() || event.is_error() || event.is_read_closed() {
            self.events.push_back((id, Event::Readable));
        }
        if let Some(socket) = self.sockets.get_mut(slot)
            && event.is_writable()
            && std::mem::take(&mut socket.wants_room)
        {
            self.events.push_back((id, Event::Writable));
        }
    }

    fn find(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.sockets.get_mut(id.slot).filter(|socket| socket.generation == id.generation && !socket.over)
    }

    /// The connection is over: its user learns of it, then it is gone.
    fn end(&mut self, id: SocketId, close: Close) {
        if let Some(socket) = self.find(id) {
            socket.over = true;
            self.events.push_back((id, Event::Closed(close)));
        }
    }

    fn end_if_both_closed(&mut self, id: SocketId) {
        if self.find(id).is_some_and(|socket| socket.received_end && socket.sent_end) {
            self.end(id, Close::Finished);
        }
    }
}

/// How an error of a socket ended it.
fn closed_by(error: &io::Error) -> Close {
    #[expect(clippy::wildcard_enum_match_arm, reason = "there are forty more, and none of them is another end")]
    match error.kind() {
        ErrorKind::ConnectionRefused => Close::Refused,
        ErrorKind::TimedOut => Close::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Close::Unreachable,
        _ => Close::Reset,
    }
}

fn socket_for(address: SocketAddr) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Begins a connection.
fn begin(from: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket_for(to)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

impl Transport for Kernel {
    type Connection = SocketId;

    fn listen(&mut self, local: SocketAddr, token: Token) -> io::Result<()> {
        let socket = socket_for(local)?;
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let number = mio::Token(LISTENERS + self.listeners.len());
        self.poll.registry().register(&mut listener, number, Interest::READABLE)?;
        self.listeners.push((listener, token));
        Ok(())
    }

    fn connect(
        &mut self,
        from: Option<IpAddr>,
        to: SocketAddr,
        token: Token,
        _: Instant,
    ) -> Result<SocketId, NoConnection> {
        let begun = begin(from, to).and_then(|stream| self.adopt(stream, token, false));
        begun.map_err(|error| match closed_by(&error) {
            Close::Unreachable => NoConnection::NoRoute,
            Close::Finished | Close::Reset | Close::Refused | Close::TimedOut => NoConnection::NoResources,
        })
    }

    fn receive(&mut self, _: Instant) -> bool {
        !self.events.is_empty() || self.poll(Duration::ZERO)
    }

    fn poll_event(&mut self) -> Option<(SocketId, Token, Event)> {
        while let Some((id, event)) = self.events.pop_front() {
            let Some(socket) = self.sockets.get(id.slot).filter(|socket| socket.generation == id.generation) else {
                continue;
            };
            let token = socket.token;
            if let Event::Closed(_) = event {
                self.sockets.remove(id.slot);
            } else if socket.over {
                continue;
            }
            return Some((id, token, event));
        }
        None
    }

    /// The kernel sends by itself.
    fn transmit(&mut self, _: Instant) -> bool {
        false
    }

    fn rest(&mut self, at_most: Duration) {
        // epoll counts in milliseconds, and mio rounds up: what is due sooner is not waited for.
        if self.events.is_empty() && at_most >= Duration::from_millis(1) {
            self.poll(at_most);
        }
    }

    fn set_token(&mut self, id: SocketId, token: Token) {
        if let Some(socket) = self.find(id) {
            socket.token = token;
        }
    }

    fn read(&mut self, id: SocketId, _: Instant, take: &mut dyn FnMut(&[u8])) -> Taken {
        let mut room = std::mem::take(&mut self.room);
        let read = self.find(id).map(|socket| if socket.received_end { Ok(0) } else { socket.stream.read(&mut room) });
        let taken = match read {
            None => Taken::Finished,
            Some(Ok(0)) => {
                if let Some(socket) = self.find(id) {
                    socket.received_end = true;
                }
                self.end_if_both_closed(id);
                Taken::Finished
            }
            Some(Ok(len)) => {
                take(room.get(..len).unwrap_or_default());
                Taken::Some
            }
            Some(Err(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => Taken::Empty,
            Some(Err(error)) if error.kind() == ErrorKind::Interrupted => Taken::Some,
            Some(Err(error)) => {
                self.end(id, closed_by(&error));
                // Its end comes as an event, and says how.
                Taken::Empty
            }
        };
        self.room = room;
        taken
    }

    fn write(&mut self, id: SocketId, parts: &[IoSlice<'_>], _: Instant) -> usize {
        let wanted: usize = parts.iter().map(|part| part.len()).sum();
        let Some(socket) = self.find(id) else { return 0 };
        let written = socket.stream.write_vectored(parts);
        match written {
            Ok(len) => {
                // The kernel tells of room again only after it has said that there is none.
                if len < wanted {
                    socket.wants_room = true;
                }
                len
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                socket.wants_room = true;
                0
            }
            Err(error) => {
                self.end(id, closed_by(&error));
                0
            }
        }
    }

    fn shutdown(&mut self, id: SocketId, _: Instant) {
        let Some(socket) = self.find(id) else { return };
        if !std::mem::replace(&mut socket.sent_end, true) && socket.stream.shutdown(Shutdown::Write).is_err() {
            return self.end(id, Close::Reset);
        }
        self.end_if_both_closed(id);
    }

    fn abort(&mut self, id: SocketId, _: Instant) {
        if self.sockets.get(id.slot).is_some_and(|socket| socket.generation == id.generation) {
            self.sockets.remove(id.slot);
        }
    }
}
