//! Syslog messages (RFC 5424) as datagrams: over a Unix socket such as /dev/log, or UDP (RFC 5426).
//!
//! Nothing here blocks: a socket whose other end is slow or gone loses the message, and whoever sends learns of it. There is no crate for it because there is so
//! little of it: a line in front of the message, and a send.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use crate::base::UnixTime;
use crate::control::records::rfc3339;

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// A Unix datagram socket.
    Unix(PathBuf),
    /// UDP, over the kernel.
    Udp(SocketAddr),
}

/// What a message is about, as far as who keeps it cares (RFC 5424 6.2.1). All of ours are informational.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(pub u8);

impl Facility {
    /// By the name that syslog daemons know.
    pub const NAMES: &'static [(&'static str, Self)] = &[
        ("daemon", Self(3)),
        ("local0", Self(16)),
        ("local1", Self(17)),
        ("local2", Self(18)),
        ("local3", Self(19)),
        ("local4", Self(20)),
        ("local5", Self(21)),
        ("local6", Self(22)),
        ("local7", Self(23)),
    ];
    /// The one that is used unless another is named.
    pub const USUAL: Self = Self(16);
}

/// Informational (RFC 5424 6.2.1).
const SEVERITY: u8 = 6;

/// Most bytes of a host's name in a message (RFC 5424 6).
const HOSTNAME_MAX: usize = 255;

/// A way to a receiver.
#[derive(Debug)]
pub(super) struct Syslog {
    socket: Socket,
    facility: Facility,
    host: String,
}

#[derive(Debug)]
enum Socket {
    /// Not connected: a receiver that was started anew is another one at the same path.
    Unix(UnixDatagram, PathBuf),
    Udp(UdpSocket, SocketAddr),
}

impl Syslog {
    /// A way to a receiver, who need not be there yet.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub(super) fn open(receiver: &Receiver, facility: Facility) -> io::Result<Self> {
        let socket = match receiver {
            Receiver::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                Socket::Unix(socket, path.clone())
            }
            Receiver::Udp(address) => {
                let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                socket.set_nonblocking(true)?;
                Socket::Udp(socket, *address)
            }
        };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Self { socket, facility, host: header_word(host.trim(), HOSTNAME_MAX) })
    }

    /// Sends a message about what was at `time`.
    ///
    /// # Errors
    /// When the receiver is not there, or has no room.
    pub(super) fn send(&self, message: &str, time: UnixTime) -> io::Result<()> {
        let packet = format(self.facility, time, &self.host, std::process::id(), message);
        let sent = match &self.socket {
            Socket::Unix(socket, path) => socket.send_to(packet.as_bytes(), path)?,
            Socket::Udp(socket, address) => socket.send_to(packet.as_bytes(), address)?,
        };
        if sent == packet.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// RFC 5424 6: `<PRI>VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG`.
fn format(facility: Facility, time: UnixTime, host: &str, process: u32, message: &str) -> String {
    let priority = facility.0 * 8 + SEVERITY;
    format!("<{priority}>1 {} {host} sealane {process} connection - {message}", rfc3339(time))
}

/// A word of the header: printable ASCII, or the nil value (RFC 5424 6).
fn header_word(word: &str, most: usize) -> String {
    let word: String = word.chars().filter(char::is_ascii_graphic).take(most).collect();
    if word.is_empty() { "-".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_begins_as_rfc_5424_says() {
        let message = format(Facility(16), UnixTime(1_767_225_600), "engine.example", 77, "{\"end\":\"finished\"}");
        let expected = "<134>1 2026-01-01T00:00:00Z engine.example sealane 77 connection - {\"end\":\"finished\"}";
        assert_eq!(message, expected);
        assert_eq!(header_word("a b\u{e9}c\n", 2), "ab");
        assert_eq!(header_word(" \n", 2), "-");
    }

    #[test]
    fn whoever_listens_at_the_socket_gets_it_also_after_a_restart_and_nobody_is_an_error() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("log");
        let syslog = Syslog::open(&Receiver::Unix(path.clone()), Facility::USUAL).unwrap();
        assert!(syslog.send("lost", UnixTime(0)).is_err());
        for turn in 0..2 {
            let daemon = UnixDatagram::bind(&path).unwrap();
            syslog.send(&format!("message {turn}"), UnixTime(0)).unwrap();
            let mut bytes = [0; 1000];
            let len = daemon.recv(&mut bytes).unwrap();
            assert!(bytes[..len].ends_with(format!(" - message {turn}").as_bytes()));
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_receiver_that_does_not_read_blocks_nobody() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("log");
        let _daemon = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::open(&Receiver::Unix(path), Facility::USUAL).unwrap();
        // The kernel keeps a few hundred datagrams for a reader (net.unix.max_dgram_qlen) and at most a sender's buffer of bytes.
        let failed = (0..100_000).find_map(|_| syslog.send(&"x".repeat(1000), UnixTime(0)).err());
        assert_eq!(failed.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn udp_reaches_its_receiver_over_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(daemon) = UdpSocket::bind(address) else { continue };
            let receiver = Receiver::Udp(daemon.local_addr().unwrap());
            Syslog::open(&receiver, Facility(3)).unwrap().send("here", UnixTime(0)).unwrap();
            let mut bytes = [0; 1000];
            let (len, _) = daemon.recv_from(&mut bytes).unwrap();
            assert!(bytes[..len].starts_with(b"<30>1 1970-01-01T00:00:00Z "));
        }
    }
}
