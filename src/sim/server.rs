//! A simulated server: says its number, takes what the client sends, gives what the client asks for.
//!
//! A request is two big-endian numbers of 32 bits, the bytes that follow it and the bytes wanted back. The answer is the server's number and a
//! count of the bytes that came right, 32 bits each, then the bytes wanted. The server closes behind them.

use std::collections::HashMap;

use crate::base::Instant;
use crate::lane::Station;
use crate::nic::memory;
use crate::tcp::{ConnectionId, Event, Readable};

/// Length of a request's head and of an answer's.
pub const HEAD: usize = 8;

/// The byte at a position of any stream: known to both ends, and never the same for long.
pub fn pattern(position: usize) -> u8 {
    u8::try_from((position ^ (position >> 8) ^ (position >> 16)) & 0xff).unwrap_or(0)
}

/// What a server remembers of one connection.
#[derive(Debug, Default)]
struct Exchange {
    head: Vec<u8>,
    received: usize,
    right: usize,
    answered: usize,
}

impl Exchange {
    fn request(&self) -> Option<(usize, usize)> {
        let (upload, rest) = self.head.split_first_chunk::<4>()?;
        let download = rest.first_chunk::<4>()?;
        Some((u32::from_be_bytes(*upload) as usize, u32::from_be_bytes(*download) as usize))
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.head.len() < HEAD {
                self.head.push(*byte);
            } else {
                self.right += usize::from(*byte == pattern(self.received));
                self.received += 1;
            }
        }
    }

    /// The answer's bytes from where it stands, at most a few thousand.
    fn answer(&self, number: u32, download: usize) -> Vec<u8> {
        let right = u32::try_from(self.right).unwrap_or(u32::MAX);
        let head = [number.to_be_bytes(), right.to_be_bytes()].concat();
        let end = (self.answered + 4096).min(HEAD + download);
        (self.answered..end)
            .map(|position| head.get(position).copied().unwrap_or_else(|| pattern(position - HEAD)))
            .collect()
    }
}

/// The application of one server host.
#[derive(Debug)]
pub struct Server {
    number: u32,
    exchanges: HashMap<ConnectionId, Exchange>,
    /// Connections accepted so far.
    pub accepted: u64,
}

impl Server {
    /// A server that calls itself `number`.
    pub fn new(number: u32) -> Self {
        Self { number, exchanges: HashMap::new(), accepted: 0 }
    }

    /// Forgets everything, as a server that is stopped does.
    pub fn stop(&mut self, station: &mut Station<memory::Queue>, now: Instant) {
        for (connection, _) in self.exchanges.drain() {
            station.stack.abort(connection, now);
        }
    }

    /// Answers whatever has come.
    pub fn work(&mut self, station: &mut Station<memory::Queue>, now: Instant) -> bool {
        let mut any = false;
        while let Some((connection, _, event)) = station.stack.poll_event() {
            any = true;
            match event {
                Event::Accepted => {
                    self.accepted += 1;
                    self.exchanges.insert(connection, Exchange::default());
                    self.serve(connection, station, now);
                }
                Event::Readable | Event::Writable => self.serve(connection, station, now),
                Event::Connected => {}
                Event::Closed(_) => {
                    self.exchanges.remove(&connection);
                }
            }
        }
        any
    }

    fn serve(&mut self, connection: ConnectionId, station: &mut Station<memory::Queue>, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(&connection) else { return };
        while let Readable::Data(bytes) = station.stack.readable(connection) {
            exchange.take(bytes);
            let len = bytes.len();
            station.stack.consume(connection, len, now);
        }
        if station.stack.readable(connection) == Readable::Finished
            && exchange.request().is_none_or(|(upload, _)| exchange.received < upload)
        {
            // A connection without a request is a health probe or a client that gave up.
            station.stack.shutdown(connection, now);
            return;
        }
        let Some((_, download)) = exchange.request().filter(|(upload, _)| exchange.received >= *upload) else { return };
        loop {
            let bytes = exchange.answer(self.number, download);
            if bytes.is_empty() {
                station.stack.shutdown(connection, now);
                return;
            }
            let taken = station.stack.write(connection, &bytes, now);
            exchange.answered += taken;
            if taken < bytes.len() {
                return;
            }
        }
    }
}
