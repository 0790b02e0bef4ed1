//! An attacker with a core of its own: frames from forged sources, as fast as they can be made.

use sealane::sim::engine::{SERVICE_ADDRESS, SERVICE_PORT};

use std::net::IpAddr;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SYNs to the service.
    Syn,
    /// Acknowledgements to the service, as if there had been a cookie.
    Ack,
    /// Resets to the service.
    Reset,
    /// Data to a port where nobody listens.
    Closed,
}

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const TCP: usize = 20;
const LEN: usize = ETHERNET + IPV4 + TCP;

/// Makes one frame after the other in place.
pub(crate) struct Attacker {
    frame: [u8; LEN],
    /// Sums of what never changes, for the checksums of IPv4 and TCP.
    sums: [u32; 2],
    state: u64,
}

impl Attacker {
    /// Frames from one Ethernet address to another.
    pub(crate) fn new(kind: Kind, from: [u8; 6], to: [u8; 6], seed: u64) -> Self {
        let IpAddr::V4(service) = SERVICE_ADDRESS else { panic!("the service has an IPv4 address") };
        let (flags, port) = match kind {
            Kind::Syn => (0x02, SERVICE_PORT),
            Kind::Ack => (0x10, SERVICE_PORT),
            Kind::Reset => (0x04, SERVICE_PORT),
            Kind::Closed => (0x10, 81),
        };
        let mut frame = [0; LEN];
        frame[0..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&from);
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
        frame[30..34].copy_from_slice(&service.octets());
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        frame[46..50].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
        let pseudo = sum(&service.octets()) + 6 + u32::try_from(TCP).unwrap();
        let sums = [sum(&frame[14..34]), sum(&frame[34..]) + pseudo];
        Self { frame, sums, state: seed | 1 }
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> &[u8] {
        let (first, second) = (self.random(), self.random());
        // 198.18.1.0 to 198.19.255.255: what the engine reaches through its gateway.
        let source = [198, 18 + (first[0] & 1), first[1].max(1), first[2]];
        self.frame[26..30].copy_from_slice(&source);
        self.frame[34..36].copy_from_slice(&[first[3], first[4] | 1]);
        self.frame[38..46].copy_from_slice(&second);
        let [ip, tcp] = self.sums;
        let source = sum(&source);
        let ip = finish(ip + source);
        let tcp = finish(tcp + source + sum(&self.frame[34..36]) + sum(&second));
        self.frame[24..26].copy_from_slice(&ip);
        self.frame[50..52].copy_from_slice(&tcp);
        &self.frame
    }

    /// Xorshift64*: it has to be fast.
    fn random(&mut self) -> [u8; 8] {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()
    }
}

/// RFC 1071, not folded yet.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn finish(sum: u32) -> [u8; 2] {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}
