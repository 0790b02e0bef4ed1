//! The TLS secrets of a capture: of sessions whose ClientHello is in it, and of no others.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::lane::capture::headers::Headers;
use crate::nic::pcapng;
use crate::tls::secrets::{LINE_MAX, RANDOM, SECRETS_MAX, Secret, Secrets, Wanted};

/// How long frames wait for the secrets that they are read with: a server's ServerHello comes before its secrets, and lies in a run queue meanwhile.
pub(super) const HOLD: Duration = Duration::from_millis(250);
/// How long a secret waits for its ClientHello, which a lane may give later than another one the secret.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Most sessions of a capture that secrets are told of.
const SESSIONS_MAX: usize = 1 << 17;

/// The secrets of a capture.
pub(super) struct Told {
    lanes: Vec<Wanted>,
    /// Secrets left out on each lane before it began.
    before: Vec<u64>,
    /// Sessions whose ClientHello has been captured.
    sessions: HashSet<[u8; RANDOM]>,
    /// Secrets without one, oldest first, each with its lane and the time.
    waiting: VecDeque<(usize, Box<Secret>, Instant)>,
    /// Secrets of sessions beyond the bound.
    left_out: u64,
}

impl Told {
    pub(super) fn new(secrets: &[Arc<Secrets>]) -> Self {
        let lanes: Vec<_> = secrets.iter().map(Secrets::begin).collect();
        let before = lanes.iter().map(Wanted::left_out).collect();
        Self { lanes, before, sessions: HashSet::new(), waiting: VecDeque::new(), left_out: 0 }
    }

    /// Looks for a ClientHello in what is kept of a frame.
    pub(super) fn see(&mut self, frame: &[u8]) {
        let random = Headers::of(frame).tcp_payload(frame).and_then(client_random);
        if let Some(random) = random {
            if self.sessions.len() < SESSIONS_MAX {
                self.sessions.insert(random);
            } else {
                self.left_out += 1;
            }
        }
    }

    /// The block of what can be told now. It is overwritten when it is dropped.
    pub(super) fn block(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        let now = Instant::now();
        for (number, lane) in self.lanes.iter().enumerate() {
            for _ in 0..SECRETS_MAX {
                let Some(secret) = lane.take() else { break };
                self.waiting.push_back((number, secret, now));
            }
        }
        let count = self.waiting.iter().filter(|(_, secret, _)| self.sessions.contains(secret.client_random())).count();
        // No more lines than a block may have; the others wait for the next look. With room for all of them nothing is left behind in memory that was outgrown.
        let most = count.min(pcapng::BLOCK_MAX / 2 / LINE_MAX);
        let mut lines = Zeroizing::new(Vec::with_capacity(most * LINE_MAX));
        let mut told = 0;
        for _ in 0..self.waiting.len() {
            let Some((number, secret, since)) = self.waiting.pop_front() else { break };
            let is_known = self.sessions.contains(secret.client_random());
            if is_known && told < most {
                secret.write_line(&mut lines);
                told += 1;
            } else if is_known || now - since < WAIT_MAX {
                self.waiting.push_back((number, secret, since));
                continue;
            }
            self.give_back(number, secret);
        }
        if lines.is_empty() {
            return None;
        }
        let mut block = Zeroizing::new(Vec::with_capacity(lines.len() + 64));
        pcapng::secrets(&mut block, &lines);
        Some(block)
    }

    /// Secrets that were left out.
    pub(super) fn left_out(&self) -> u64 {
        let lanes = self.lanes.iter().zip(&self.before).map(|(lane, before)| lane.left_out() - before);
        lanes.sum::<u64>() + self.left_out
    }

    fn give_back(&self, lane: usize, secret: Box<Secret>) {
        if let Some(lane) = self.lanes.get(lane) {
            lane.give_back(secret);
        }
    }
}

/// The random of the ClientHello that a connection begins with, perhaps behind a PROXY header.
fn client_random(payload: &[u8]) -> Option<[u8; RANDOM]> {
    let hello = match payload {
        [b'\r', b'\n', b'\r', b'\n', 0, b'\r', b'\n', b'Q', b'U', b'I', b'T', b'\n', _, _, high, low, rest @ ..] => {
            rest.get(usize::from(u16::from_be_bytes([*high, *low]))..)?
        }
        [b'P', b'R', b'O', b'X', b'Y', b' ', ..] => {
            let end = payload.windows(2).take(107).position(|two| two == b"\r\n")?;
            payload.get(end + 2..)?
        }
        other => other,
    };
    // RFC 8446 5.1, 4 and 4.1.2: a record of handshake messages, a ClientHello, its length, the legacy version.
    match hello {
        [22, 3, _, _, _, 1, _, _, _, 3, _, rest @ ..] => rest.first_chunk().copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_hello_is_found_behind_proxy_headers_and_nothing_else_is_one() {
        let mut hello = vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
        hello.extend_from_slice(&[0x5a; 40]);
        assert_eq!(client_random(&hello), Some([0x5a; 32]));
        let v1 = [b"PROXY TCP4 198.18.0.1 198.18.0.10 40000 443\r\n", &hello[..]].concat();
        assert_eq!(client_random(&v1), Some([0x5a; 32]));
        let v2 = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x03abc", &hello[..]].concat();
        assert_eq!(client_random(&v2), Some([0x5a; 32]));
        assert_eq!(client_random(&hello[..42]), None);
        hello[5] = 2;
        assert_eq!(client_random(&hello), None);
        for other in [&b""[..], b"GET / HTTP/1.1", b"PROXY UNKNOWN", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"] {
            assert_eq!(client_random(other), None);
        }
    }
}
