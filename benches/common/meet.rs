//! A handshake in memory between rustls's client and a server, of which only the server's part is timed.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use crate::cpu::cpu;

/// Whom the server's certificate is for.
pub(crate) const NAME: &str = "shop.example";

/// A server that takes a flight and gives its answer.
pub(crate) trait Answer {
    fn answer(&mut self, flight: &[u8], answer: &mut Vec<u8>);
}

impl Answer for ServerConnection {
    fn answer(&mut self, mut flight: &[u8], answer: &mut Vec<u8>) {
        while !flight.is_empty() {
            self.read_tls(&mut flight).expect("there is room");
            self.process_new_packets().expect("the client is well-behaved");
        }
        while self.wants_write() {
            self.write_tls(answer).expect("a Vec takes all");
        }
    }
}

/// A connection after its handshake, and what the server's part of that took, in CPU time.
pub(crate) struct Met<S> {
    pub(crate) client: ClientConnection,
    pub(crate) server: S,
    pub(crate) nanos: u64,
}

/// Has a client and a server shake hands.
pub(crate) fn meet<S: Answer>(client: &Arc<ClientConfig>, server: impl FnOnce() -> S) -> Met<S> {
    let name = ServerName::try_from(NAME).expect("it is a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("the client is configured");
    let begin = cpu();
    let mut server = server();
    let mut nanos = cpu() - begin;
    let (mut flight, mut answer) = (Vec::with_capacity(8192), Vec::with_capacity(8192));
    loop {
        flight.clear();
        answer.clear();
        while client.wants_write() {
            client.write_tls(&mut flight).expect("a Vec takes all");
        }
        if flight.is_empty() {
            return Met { client, server, nanos };
        }
        let begin = cpu();
        server.answer(&flight, &mut answer);
        nanos += cpu() - begin;
        let mut input = answer.as_slice();
        while !input.is_empty() {
            client.read_tls(&mut input).expect("there is room");
            client.process_new_packets().expect("the server is well-behaved");
        }
    }
}

/// A server of rustls's.
pub(crate) fn rustls_of(config: &Arc<ServerConfig>) -> ServerConnection {
    ServerConnection::new(Arc::clone(config)).expect("the server is configured")
}
