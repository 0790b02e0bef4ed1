//! One client's TLS session, server side.

use std::sync::Arc;

use crate::balance::ServerIndex;
use crate::persistence::Decision;
use crate::ticket::{KeyId, TlsVersion};
use crate::tls::{Desk, Service};

/// A client's TLS session.
#[derive(Debug)]
pub struct Session {}

/// What [`Session::advance`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The handshake goes on: transmit, then wait for the client.
    Handshaking,
    /// The handshake has just ended. Said once.
    Established(Handshake),
    /// Application data flows.
    Open,
}

/// What is known once a handshake has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Whether the session was really resumed.
    pub resumed: bool,
    /// Protocol version.
    pub version: TlsVersion,
    /// Cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// Server name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// Application protocol that was agreed on.
    pub alpn: Option<Box<[u8]>>,
    /// Where the client goes, and why.
    pub decision: Decision,
    /// The key of the ticket that was resumed.
    pub key_id: Option<KeyId>,
}

/// Why a session failed. A counter and a log reason each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The first bytes are not TLS, for example a plain HTTP request.
    NotTls,
    /// No certificate for the server name, and the service is strict.
    UnknownServerName,
    /// No protocol version, cipher suite, key share or signature scheme in common.
    NothingInCommon,
    /// The client sent a fatal alert.
    AlertReceived,
    /// A message that TLS does not allow here, or that does not decrypt.
    Protocol,
}

impl Session {
    /// A session that waits for a ClientHello.
    pub fn new(service: &Arc<Service>) -> Self {
        let _ = service;
        todo!()
    }

    /// Takes ciphertext and gives how many bytes it took; fewer than all while plaintext waits to be taken.
    ///
    /// # Errors
    /// [`Failure`] when the session is over; [`poll_transmit`](Self::poll_transmit) then still has the alert to send.
    pub fn on_data(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let _ = bytes;
        todo!()
    }

    /// Works on what it was given. `candidate` is the server that a new client would get now; see [`Handshake::decision`].
    ///
    /// # Errors
    /// [`Failure`] when the session is over; [`poll_transmit`](Self::poll_transmit) then still has the alert to send.
    pub fn advance(&mut self, desk: &mut Box<Desk>, candidate: Option<ServerIndex>) -> Result<Progress, Failure> {
        let _ = (desk, candidate);
        todo!()
    }

    /// Whether the handshake has not ended yet.
    pub fn is_handshaking(&self) -> bool {
        todo!()
    }

    /// Hands ciphertext to `take`, which gives how many bytes it took, until it takes less than it is given or nothing is left.
    pub fn poll_transmit(&mut self, take: impl FnMut(&[u8]) -> usize) {
        let _ = take;
        todo!()
    }

    /// Whether ciphertext waits to be transmitted.
    pub fn has_output(&self) -> bool {
        todo!()
    }

    /// Hands decrypted data to `take`, which gives how many bytes it took, until it takes less than it is given or nothing is left.
    pub fn plaintext(&mut self, take: impl FnMut(&[u8]) -> usize) {
        let _ = take;
        todo!()
    }

    /// Encrypts data for the client and gives how many bytes it took: it keeps a bounded amount of ciphertext.
    pub fn write(&mut self, plaintext: &[u8]) -> usize {
        let _ = plaintext;
        todo!()
    }

    /// Sends close_notify behind what was written.
    pub fn close(&mut self) {
        todo!()
    }

    /// Whether the client has sent close_notify. Without it, the end of its stream is a truncation.
    pub fn peer_has_closed(&self) -> bool {
        todo!()
    }
}
