//! PROXY protocol headers towards servers (HAProxy's `proxy-protocol.txt`, versions 1 and 2).

use std::net::SocketAddr;

/// Versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// A binary header.
    V2,
}

impl ProxyProtocol {
    /// The header for a connection that `client` opened to `service`.
    ///
    /// A virtual service's clients have its address family, so there is no mixed case.
    pub fn header(self, client: SocketAddr, service: SocketAddr) -> Vec<u8> {
        match self {
            Self::V1 => ppp::v1::Addresses::from((client, service)).to_string().into_bytes(),
            Self::V2 => v2(client, service),
        }
    }
}

fn v2(client: SocketAddr, service: SocketAddr) -> Vec<u8> {
    use ppp::v2::{Builder, Command, Protocol, Version};
    Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, (client, service))
        .build()
        .expect("addresses alone always fit a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_is_the_line_of_the_specification() {
        let header = ProxyProtocol::V1.header("198.18.0.1:51000".parse().unwrap(), "198.18.0.10:443".parse().unwrap());
        assert_eq!(header, b"PROXY TCP4 198.18.0.1 198.18.0.10 51000 443\r\n");
        let header = ProxyProtocol::V1.header("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::a]:443".parse().unwrap());
        assert_eq!(header, b"PROXY TCP6 2001:db8::1 2001:db8::a 1 443\r\n");
    }

    #[test]
    fn version_2_has_signature_family_length_and_addresses() {
        let header = ProxyProtocol::V2.header("198.18.0.1:258".parse().unwrap(), "198.18.0.10:443".parse().unwrap());
        assert_eq!(header, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc6\x12\x00\x01\xc6\x12\x00\x0a\x01\x02\x01\xbb");
        let header = ProxyProtocol::V2.header("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::a]:443".parse().unwrap());
        assert_eq!(header.get(12..16), Some(&[0x21, 0x21, 0, 36][..]));
        assert_eq!(header.len(), 52);
    }
}
