//! The two endpoints of a TCP connection, as this engine sees them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A local and a remote endpoint of one address family, 36 bytes. IPv4 addresses are held IPv4-mapped (RFC 4291 2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    local: [u8; 16],
    remote: [u8; 16],
    local_port: u16,
    remote_port: u16,
}

impl Flow {
    /// The flow between two endpoints.
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local: pack(local.ip()),
            remote: pack(remote.ip()),
            local_port: local.port(),
            remote_port: remote.port(),
        }
    }

    /// This engine's endpoint.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(unpack(self.local), self.local_port)
    }

    /// This engine's address and port as bytes, to look it up by.
    pub fn local_key(&self) -> [u8; 18] {
        let mut key = [0; 18];
        let (address, port) = key.split_at_mut(16);
        address.copy_from_slice(&self.local);
        port.copy_from_slice(&self.local_port.to_be_bytes());
        key
    }

    /// The peer's address as bytes.
    pub fn remote_key(&self) -> [u8; 16] {
        self.remote
    }

    /// The peer's endpoint.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(unpack(self.remote), self.remote_port)
    }

    /// The same flow as the peer sees it.
    pub fn reversed(&self) -> Self {
        Self { local: self.remote, remote: self.local, local_port: self.remote_port, remote_port: self.local_port }
    }
}

impl std::hash::Hash for Flow {
    /// All of it at once: every segment costs at least one hash, and a keyed one takes its time over each piece.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 36];
        let (local, rest) = bytes.split_at_mut(16);
        let (remote, ports) = rest.split_at_mut(16);
        let (local_port, remote_port) = ports.split_at_mut(2);
        local.copy_from_slice(&self.local);
        remote.copy_from_slice(&self.remote);
        local_port.copy_from_slice(&self.local_port.to_be_bytes());
        remote_port.copy_from_slice(&self.remote_port.to_be_bytes());
        state.write(&bytes);
    }
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} <-> {}", self.local(), self.remote())
    }
}

fn pack(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn unpack(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_survive_packing() {
        for (local, remote) in [("198.18.0.1:443", "198.19.255.254:1"), ("[2001:db8::1]:443", "[2001:db8::2]:65535")] {
            let flow = Flow::new(local.parse().unwrap(), remote.parse().unwrap());
            assert_eq!(flow.local().to_string(), local);
            assert_eq!(flow.remote().to_string(), remote);
            assert_eq!(flow.reversed().reversed(), flow);
            assert_eq!(flow.reversed().local().to_string(), remote);
        }
    }
}
