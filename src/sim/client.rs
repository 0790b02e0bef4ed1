//! A simulated client: a browser with a session cache of its own that visits the service again and again.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::client::Resumption;
use rustls::pki_types::{self, CertificateDer, ServerName};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

use crate::base::{Duration, Instant, UnixTime};
use crate::lane::Station;
use crate::nic::memory;
use crate::sim::outcome::{Outcome, Visit};
use crate::sim::server::{HEAD, pattern};
use crate::tcp::{Close, ConnectionId, Event, Readable};

/// Wall time for rustls, set from the world's clock before each call.
#[derive(Debug, Default)]
struct WallClock(AtomicU64);

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<pki_types::UnixTime> {
        Some(pki_types::UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

/// A client and what it remembers between visits.
#[derive(Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    clock: Arc<WallClock>,
    abrupt: bool,
}

impl Client {
    /// A client that trusts `root` and has visited nobody. `tls12`: it speaks nothing newer than TLS 1.2. `abrupt`: it
    /// closes without close_notify, as many real clients do.
    ///
    /// # Panics
    /// When `root` is no certificate.
    pub fn new(root: &CertificateDer<'_>, tls12: bool, abrupt: bool) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned()).expect("the world's own root certificate");
        let clock = Arc::new(WallClock::default());
        let versions: &[_] = if tls12 { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::clone(&clock) as Arc<dyn TimeProvider>)
            .with_protocol_versions(versions)
            .expect("the provider has both versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(8);
        Self { config: Arc::new(config), clock, abrupt }
    }

    /// Forgets all tickets.
    pub fn forget(&mut self) {
        let mut config = (*self.config).clone();
        config.resumption = Resumption::in_memory_sessions(8);
        self.config = Arc::new(config);
    }

    /// Begins a visit over a connection that is being opened.
    ///
    /// # Panics
    /// When a stream is 4 GiB long.
    pub fn begin(&self, connection: ConnectionId, upload: usize, download: usize) -> Visiting {
        let name = ServerName::try_from("shop.example").expect("a host name");
        let tls = ClientConnection::new(Arc::clone(&self.config), name).expect("the configuration is complete");
        let request = [upload, download].map(|len| u32::try_from(len).expect("a stream below 4 GiB").to_be_bytes());
        Visiting {
            connection,
            tls: Box::new(tls),
            clock: Arc::clone(&self.clock),
            abrupt: self.abrupt,
            request: request.concat(),
            upload,
            download,
            held: false,
            sent: 0,
            head: Vec::new(),
            received: 0,
            wrong: 0,
            outcome: None,
        }
    }
}

/// A visit that goes on.
pub struct Visiting {
    connection: ConnectionId,
    tls: Box<ClientConnection>,
    clock: Arc<WallClock>,
    abrupt: bool,
    request: Vec<u8>,
    upload: usize,
    download: usize,
    /// Says nothing behind its handshake.
    held: bool,
    sent: usize,
    head: Vec<u8>,
    received: usize,
    wrong: usize,
    /// What came of it, once something has.
    pub outcome: Option<Outcome>,
}

impl Visiting {
    /// The same, of a client that shakes hands and then says nothing.
    #[must_use]
    pub fn held(self) -> Self {
        Self { held: true, ..self }
    }

    /// Goes on with a visit that was held.
    pub fn go_on(&mut self, station: &mut Station<memory::Queue>, now: Instant) {
        self.held = false;
        self.exchange(station, now);
    }

    /// The client resets its connection.
    pub fn give_up(&mut self, station: &mut Station<memory::Queue>, now: Instant) {
        station.stack.abort(self.connection, now);
    }

    /// Bytes of the answer that have come.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Takes an event of its connection.
    pub fn on_event(&mut self, event: Event, station: &mut Station<memory::Queue>, unix: UnixTime, now: Instant) {
        self.clock.0.store(unix.0, Ordering::Relaxed);
        match event {
            Event::Closed(close) => self.on_closed(close),
            Event::Connected | Event::Readable | Event::Writable => self.exchange(station, now),
            Event::Accepted => {}
        }
    }

    fn on_closed(&mut self, close: Close) {
        self.outcome.get_or_insert(Outcome::Cut(close));
    }

    fn exchange(&mut self, station: &mut Station<memory::Queue>, now: Instant) {
        loop {
            // rustls keeps a bounded amount; TCP says when it has room again only if it ran out of it.
            while self.upload() + self.flush(station, now) > 0 {}
            let taken = match station.stack.readable(self.connection) {
                Readable::Data(mut bytes) => self.tls.read_tls(&mut bytes).unwrap_or(0),
                Readable::Empty => return,
                Readable::Finished => return self.finish(station, now),
            };
            station.stack.consume(self.connection, taken, now);
            if self.tls.process_new_packets().is_err() {
                self.outcome.get_or_insert(Outcome::TlsFailed);
                self.flush(station, now);
                station.stack.abort(self.connection, now);
                return;
            }
            self.download();
            if taken == 0 {
                return;
            }
        }
    }

    /// Everything the server had to say has been said: says goodbye and takes stock.
    fn finish(&mut self, station: &mut Station<memory::Queue>, now: Instant) {
        if !self.abrupt {
            self.tls.send_close_notify();
            self.flush(station, now);
        }
        station.stack.shutdown(self.connection, now);
        let outcome = match self.head.first_chunk::<HEAD>() {
            Some([a, b, c, d, right @ ..])
                if self.received == self.download
                    && self.wrong == 0
                    && u32::from_be_bytes(*right) as usize == self.upload =>
            {
                Outcome::Served(Visit {
                    server: u32::from_be_bytes([*a, *b, *c, *d]),
                    resumed: self.tls.handshake_kind() == Some(HandshakeKind::Resumed),
                })
            }
            _ => Outcome::Incomplete,
        };
        self.outcome.get_or_insert(outcome);
    }

    /// Gives rustls more of the request and says how much it took.
    fn upload(&mut self) -> usize {
        if self.tls.is_handshaking() || self.held {
            return 0;
        }
        let head = self.request.len();
        let end = (self.sent + 4096).min(head + self.upload);
        let bytes: Vec<u8> = (self.sent..end)
            .map(|position| self.request.get(position).copied().unwrap_or_else(|| pattern(position - head)))
            .collect();
        let taken = self.tls.writer().write(&bytes).unwrap_or(0);
        self.sent += taken;
        taken
    }

    fn download(&mut self) {
        let mut reader = self.tls.reader();
        while let Ok(bytes) = reader.fill_buf() {
            if bytes.is_empty() {
                return;
            }
            for byte in bytes {
                if self.head.len() < HEAD {
                    self.head.push(*byte);
                } else {
                    self.wrong += usize::from(*byte != pattern(self.received));
                    self.received += 1;
                }
            }
            let len = bytes.len();
            reader.consume(len);
        }
    }

    /// Gives TCP what rustls has made and says how much it took.
    fn flush(&mut self, station: &mut Station<memory::Queue>, now: Instant) -> usize {
        let mut flushed = 0;
        // A write that takes nothing is what asks TCP to say when there is room again.
        while self.tls.wants_write() {
            let mut output = Output { station, connection: self.connection, now };
            match self.tls.write_tls(&mut output) {
                Ok(taken) if taken > 0 => flushed += taken,
                Ok(_) | Err(_) => break,
            }
        }
        flushed
    }
}

/// rustls writes here.
struct Output<'a> {
    station: &'a mut Station<memory::Queue>,
    connection: ConnectionId,
    now: Instant,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(self.station.stack.write(self.connection, bytes, self.now))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
