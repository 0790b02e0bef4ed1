//! A simulated server: says its number, takes what the client sends, gives what the client asks for.
//!
//! A request is two big-endian numbers of 32 bits, the bytes that follow it and the bytes wanted back. The answer is the server's number and a
//! count of the bytes that came right, 32 bits each, then the bytes wanted. The server closes behind them. It may want all of that in TLS.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};

use crate::base::Instant;
use crate::lane::Station;
use crate::nic::memory;
use crate::sim::Identity;
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
    secured: Option<Box<Secured>>,
}

/// How servers are spoken to in TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reencryption {
    /// They speak TLS 1.2 at most.
    pub tls12: bool,
    /// They close without close_notify.
    pub is_abrupt: bool,
}

impl Reencryption {
    fn config(self, identity: &Identity) -> Arc<ServerConfig> {
        let versions: &[_] = if self.tls12 { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.expect("the provider has both versions").with_no_client_auth();
        let chain = CertificateDer::pem_slice_iter(identity.chain.as_bytes()).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
        let (chain, key) = chain.and_then(|chain| Ok((chain, key?))).expect("the world's own certificate");
        Arc::new(builder.with_single_cert(chain, key).expect("it is the certificate's key"))
    }
}

/// TLS over one connection, by rustls and not by us.
#[derive(Debug)]
struct Secured {
    connection: ServerConnection,
    /// What is to be sent.
    wire: Vec<u8>,
    has_closed: bool,
    has_new_keys: bool,
}

impl Secured {
    fn new(config: &Arc<ServerConfig>) -> Self {
        let connection = ServerConnection::new(Arc::clone(config)).expect("the configuration is complete");
        Self { connection, wire: Vec::new(), has_closed: false, has_new_keys: false }
    }

    /// Takes what has come, and gives what was in it.
    fn read(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut plaintext = Vec::new();
        while !bytes.is_empty() {
            let has_read = self.connection.read_tls(&mut bytes).is_ok_and(|count| count > 0);
            if !has_read || self.connection.process_new_packets().is_err() {
                break;
            }
            while let Ok(chunk @ [_, ..]) = self.connection.reader().fill_buf() {
                let len = chunk.len();
                plaintext.extend_from_slice(chunk);
                self.connection.reader().consume(len);
            }
        }
        self.collect();
        plaintext
    }

    /// Sends some of an answer, under new keys from the middle of it on.
    fn write(&mut self, bytes: &[u8], answered: usize) {
        let is_tls13 = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        if is_tls13 && answered > 8192 && !std::mem::replace(&mut self.has_new_keys, true) {
            let _ = self.connection.refresh_traffic_keys();
        }
        let _ = self.connection.writer().write_all(bytes);
        self.collect();
    }

    fn close(&mut self) {
        if !std::mem::replace(&mut self.has_closed, true) {
            self.connection.send_close_notify();
            self.collect();
        }
    }

    fn collect(&mut self) {
        while self.connection.wants_write() && self.connection.write_tls(&mut self.wire).is_ok() {}
    }

    /// Whether all that is to be sent has been.
    fn flush(&mut self, connection: ConnectionId, station: &mut Station<memory::Queue>, now: Instant) -> bool {
        let taken = station.stack.write(connection, &self.wire, now);
        self.wire.drain(..taken.min(self.wire.len()));
        self.wire.is_empty()
    }
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
    secured: Option<Arc<ServerConfig>>,
    is_abrupt: bool,
    /// Connections accepted so far.
    pub accepted: u64,
}

impl Server {
    /// A server that calls itself `number`.
    pub fn new(number: u32) -> Self {
        Self { number, exchanges: HashMap::new(), secured: None, is_abrupt: false, accepted: 0 }
    }

    /// The same, which wants TLS so, if it does.
    #[must_use]
    pub fn spoken_to(self, identity: &Identity, how: Option<Reencryption>) -> Self {
        let is_abrupt = how.is_some_and(|how| how.is_abrupt);
        Self { secured: how.map(|how| how.config(identity)), is_abrupt, ..self }
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
                    let secured = self.secured.as_ref().map(|config| Box::new(Secured::new(config)));
                    self.exchanges.insert(connection, Exchange { secured, ..Exchange::default() });
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
            let len = bytes.len();
            match &mut exchange.secured {
                Some(secured) => {
                    let plaintext = secured.read(bytes);
                    exchange.take(&plaintext);
                }
                None => exchange.take(bytes),
            }
            station.stack.consume(connection, len, now);
        }
        if let Some(secured) = &mut exchange.secured
            && !secured.flush(connection, station, now)
        {
            return;
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
            let answered = exchange.answered;
            if let Some(secured) = &mut exchange.secured {
                match bytes.is_empty() {
                    true if self.is_abrupt => {}
                    true => secured.close(),
                    false => secured.write(&bytes, answered),
                }
                exchange.answered += bytes.len();
                if !secured.flush(connection, station, now) {
                    return;
                }
                if !bytes.is_empty() {
                    continue;
                }
            }
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
