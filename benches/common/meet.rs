//! A handshake of rustls with itself, in memory.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use crate::cpu::cpu;

/// A connection after its handshake, and what the server's part of that took.
pub(crate) struct Met {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) nanos: u64,
}

/// Has a client and a server shake hands in memory, where only the server's calls are timed.
pub(crate) fn meet(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Met {
    let name = ServerName::try_from("shop.example").expect("it is a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("the client is configured");
    let begin = cpu();
    let mut server = ServerConnection::new(Arc::clone(server)).expect("the server is configured");
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
        let mut input = flight.as_slice();
        while !input.is_empty() {
            server.read_tls(&mut input).expect("there is room");
            server.process_new_packets().expect("the client is well-behaved");
        }
        while server.wants_write() {
            server.write_tls(&mut answer).expect("a Vec takes all");
        }
        nanos += cpu() - begin;
        let mut input = answer.as_slice();
        while !input.is_empty() {
            client.read_tls(&mut input).expect("there is room");
            client.process_new_packets().expect("the server is well-behaved");
        }
    }
}
