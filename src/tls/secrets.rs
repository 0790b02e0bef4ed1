//! Secrets of TLS sessions on their way into a capture, for Wireshark to decrypt it: the lines of NSS's key log (draft-ietf-tls-keylogfile).
//!
//! Only where the configuration allows it there is such a thing at all, and only while control wants secrets a lane tells any. As with frames, control makes the
//! memory, and a lane that finds none leaves secrets out. Whatever held one is overwritten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Most secrets of a lane that wait for control: four a TLS 1.3 session.
pub const SECRETS_MAX: usize = 1024;

/// Bytes of the longest secret: a hash of 512 bits.
const SECRET: usize = 64;
/// Bytes of a client random (RFC 8446 4.1.2).
pub const RANDOM: usize = 32;

/// The secrets that a record of a session can be read with; what else rustls tells is not for records.
const LABELS: [&str; 5] = [
    "CLIENT_RANDOM",
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_TRAFFIC_SECRET_0",
];

/// Bytes of the longest line.
pub const LINE_MAX: usize = 32 + 1 + 2 * RANDOM + 1 + 2 * SECRET + 1;

/// One secret of a session.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    #[zeroize(skip)]
    label: &'static str,
    client_random: [u8; RANDOM],
    len: usize,
    secret: [u8; SECRET],
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    fn empty() -> Box<Self> {
        Box::new(Self { label: "", client_random: [0; RANDOM], len: 0, secret: [0; SECRET] })
    }

    /// Of which session: the random of its ClientHello.
    pub fn client_random(&self) -> &[u8; RANDOM] {
        &self.client_random
    }

    /// Adds its line to a key log. It allocates nothing where there is room for [`LINE_MAX`].
    pub fn write_line(&self, into: &mut Vec<u8>) {
        let secret = self.secret.get(..self.len).unwrap_or_default();
        into.extend_from_slice(self.label.as_bytes());
        for part in [&self.client_random[..], secret] {
            into.push(b' ');
            for byte in part {
                into.extend([byte >> 4, byte & 15].map(|half| if half < 10 { b'0' + half } else { b'a' + half - 10 }));
            }
        }
        into.push(b'\n');
    }
}

/// One lane's secrets, as both ends have them.
#[derive(Debug)]
pub struct Secrets {
    is_wanted: AtomicBool,
    empty: ArrayQueue<Box<Secret>>,
    filled: ArrayQueue<Box<Secret>>,
    left_out: AtomicU64,
}

impl Default for Secrets {
    fn default() -> Self {
        let empty = ArrayQueue::new(SECRETS_MAX);
        while empty.push(Secret::empty()).is_ok() {}
        Self {
            is_wanted: AtomicBool::new(false),
            empty,
            filled: ArrayQueue::new(SECRETS_MAX),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Secrets {
    /// Control's: has the lane tell the secrets of sessions that are established from now on.
    pub fn begin(self: &Arc<Self>) -> Wanted {
        // What somebody may have told just after the last one ended.
        while let Some(secret) = self.filled.pop() {
            self.give_back(secret);
        }
        self.is_wanted.store(true, Ordering::Relaxed);
        Wanted(Arc::clone(self))
    }

    /// The lane's: tells one.
    pub(super) fn tell(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return;
        }
        let Some(label) = LABELS.iter().find(|known| **known == label) else { return };
        let (Ok(client_random), true) = (client_random.try_into(), secret.len() <= SECRET) else { return };
        let Some(mut slot) = self.empty.pop() else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        };
        slot.label = label;
        slot.client_random = client_random;
        slot.len = secret.len();
        if let Some(room) = slot.secret.get_mut(..secret.len()) {
            room.copy_from_slice(secret);
        }
        // There are as many places as slots.
        let _full = self.filled.push(slot);
    }

    fn give_back(&self, mut secret: Box<Secret>) {
        secret.zeroize();
        let _full = self.empty.push(secret);
    }
}

/// Secrets are told for as long as this is there.
#[derive(Debug)]
pub struct Wanted(Arc<Secrets>);

impl Wanted {
    /// The oldest secret.
    pub fn take(&self) -> Option<Box<Secret>> {
        self.0.filled.pop()
    }

    /// Gives the memory of one back, overwritten.
    pub fn give_back(&self, secret: Box<Secret>) {
        self.0.give_back(secret);
    }

    /// Secrets that found no memory, since the engine started.
    pub fn left_out(&self) -> u64 {
        self.0.left_out.load(Ordering::Relaxed)
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.is_wanted.store(false, Ordering::Relaxed);
        while let Some(secret) = self.take() {
            self.give_back(secret);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_while_they_are_wanted_as_lines_of_a_key_log() {
        let secrets = Arc::new(Secrets::default());
        secrets.tell("CLIENT_RANDOM", &[0xab; 32], &[0x0f; 48]);
        let wanted = secrets.begin();
        assert!(wanted.take().is_none(), "nobody wanted that one");
        secrets.tell("EXPORTER_SECRET", &[0xab; 32], &[1; 32]);
        secrets.tell("CLIENT_RANDOM", &[0xab; 31], &[1; 48]);
        secrets.tell("CLIENT_RANDOM", &[0xab; 32], &[1; 65]);
        secrets.tell("SERVER_TRAFFIC_SECRET_0", &[0xab; 32], &[0x0f; 32]);
        let secret = wanted.take().unwrap();
        let mut line = Vec::new();
        secret.write_line(&mut line);
        let expected = format!("SERVER_TRAFFIC_SECRET_0 {} {}\n", "ab".repeat(32), "0f".repeat(32));
        assert_eq!(String::from_utf8(line).unwrap(), expected);
        assert_eq!((secret.client_random(), wanted.take().is_none()), (&[0xab; 32], true));
        assert_eq!(format!("{secret:?}"), "Secret");
        wanted.give_back(secret);
        drop(wanted);
        secrets.tell("CLIENT_RANDOM", &[0xab; 32], &[1; 48]);
        assert!(secrets.filled.is_empty() && secrets.empty.len() == SECRETS_MAX);
    }

    #[test]
    fn the_longest_line_is_as_long_as_is_said_and_memory_is_overwritten() {
        let secrets = Arc::new(Secrets::default());
        let wanted = secrets.begin();
        for number in 0..=SECRETS_MAX {
            secrets.tell("CLIENT_HANDSHAKE_TRAFFIC_SECRET", &[7; 32], &[number.to_le_bytes()[0] | 1; 64]);
        }
        assert_eq!(wanted.left_out(), 1);
        let mut line = Vec::new();
        while let Some(secret) = wanted.take() {
            line.clear();
            secret.write_line(&mut line);
            assert!(line.len() <= LINE_MAX);
            wanted.give_back(secret);
        }
        let slot = secrets.empty.pop().unwrap();
        assert_eq!((slot.len, slot.secret, slot.client_random), (0, [0; 64], [0; 32]));
    }
}
