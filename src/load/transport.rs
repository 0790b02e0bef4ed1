//! What carries the connections of a load: our own TCP, or the kernel's.

use std::fmt::Debug;
use std::io;
use std::io::{IoSlice, Write};
use std::net::{IpAddr, SocketAddr};

use crate::base::{Duration, Instant};
use crate::lane::NoConnection;
use crate::tcp::{Event, Token};

/// What [`Transport::read`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// There was something; there may be more.
    Some,
    /// Nothing yet.
    Empty,
    /// Everything has been read and the peer has closed.
    Finished,
}

/// Connections with the events and the promises of [`tcp::Stack`](crate::tcp::Stack), whoever keeps them.
///
/// In a breath: [`receive`](Self::receive), drain [`poll_event`](Self::poll_event), work, [`transmit`](Self::transmit).
pub trait Transport {
    /// Names a connection until its [`Event::Closed`] has been given.
    type Connection: Copy + Debug;

    /// Accepts connections to `local`; they begin with this token.
    ///
    /// # Errors
    /// When the address is not ours or not free.
    fn listen(&mut self, local: SocketAddr, token: Token) -> io::Result<()>;

    /// Begins a connection, from this address of ours or from any.
    ///
    /// # Errors
    /// [`NoConnection`] says why there is none.
    fn connect(
        &mut self,
        from: Option<IpAddr>,
        to: SocketAddr,
        token: Token,
        now: Instant,
    ) -> Result<Self::Connection, NoConnection>;

    /// Takes what has come and fires what is due; whether there was anything.
    fn receive(&mut self, now: Instant) -> bool;

    /// The next event.
    fn poll_event(&mut self) -> Option<(Self::Connection, Token, Event)>;

    /// Sends what there is to send; whether there was anything.
    fn transmit(&mut self, now: Instant) -> bool;

    /// Nothing is to be done: rests for so long at most, or until something comes, where resting is possible.
    fn rest(&mut self, at_most: Duration);

    /// Sets the token of a connection.
    fn set_token(&mut self, connection: Self::Connection, token: Token);

    /// Shows the next bytes to `take`, which takes them all.
    fn read(&mut self, connection: Self::Connection, now: Instant, take: &mut dyn FnMut(&[u8])) -> Taken;

    /// Sends some of the bytes and says how many; less than all asks for [`Event::Writable`].
    fn write(&mut self, connection: Self::Connection, parts: &[IoSlice<'_>], now: Instant) -> usize;

    /// Closes our half.
    fn shutdown(&mut self, connection: Self::Connection, now: Instant);

    /// Ends a connection at once. No event follows.
    fn abort(&mut self, connection: Self::Connection, now: Instant);
}

/// A connection as something that rustls writes to.
pub(super) struct Output<'a, T: Transport> {
    pub(super) transport: &'a mut T,
    pub(super) connection: T::Connection,
    pub(super) now: Instant,
}

impl<T: Transport> Write for Output<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(self.transport.write(self.connection, parts, self.now))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
