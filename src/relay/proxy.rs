//! PROXY protocol headers towards servers (HAProxy's `proxy-protocol.txt`, versions 1 and 2).

use std::net::SocketAddr;

use ppp::v2::Type;

use crate::ticket::TlsVersion;
use crate::tls::Handshake;

/// The longest header: version 2 with IPv6 addresses, TLS version and common name.
pub const HEADER_MAX: usize = 16 + 36 + (3 + 5) + (3 + 7) + (3 + crate::tls::subject::COMMON_NAME_MAX);

/// Versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// A binary header.
    V2,
    /// The same with PP2_TYPE_SSL (2.2.6 there): TLS version, whether the client has proven who it is, and the common name in its certificate.
    V2Ssl,
}

impl ProxyProtocol {
    /// The header, at most [`HEADER_MAX`] bytes, for a connection that `client` opened to `service` and what its handshake came to.
    ///
    /// A virtual service's clients have its address family, so there is no mixed case.
    pub fn header(self, client: SocketAddr, service: SocketAddr, handshake: Option<&Handshake>) -> Vec<u8> {
        match self {
            Self::V1 => ppp::v1::Addresses::from((client, service)).to_string().into_bytes(),
            Self::V2 => v2(client, service, None),
            Self::V2Ssl => v2(client, service, handshake),
        }
    }
}

fn v2(client: SocketAddr, service: SocketAddr, handshake: Option<&Handshake>) -> Vec<u8> {
    use ppp::v2::{Builder, Command, Protocol, Version};
    let header = Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, (client, service));
    let header = match handshake {
        Some(handshake) => header.write_tlv(Type::SSL, &ssl(handshake)),
        None => Ok(header),
    };
    header.and_then(Builder::build).expect("HEADER_MAX bytes fit a header")
}

/// PP2_CLIENT_SSL, PP2_CLIENT_CERT_CONN and PP2_CLIENT_CERT_SESS.
const OVER_TLS: u8 = 1;
const CERTIFICATE_NOW: u8 = 2;
const CERTIFICATE_IN_SESSION: u8 = 4;

/// The value of PP2_TYPE_SSL: client(1) | verify(4), zero for a certificate that was right | TLVs of its own.
fn ssl(handshake: &Handshake) -> Vec<u8> {
    let flags = match (&handshake.client, handshake.resumed) {
        (None, _) => OVER_TLS,
        (Some(_), false) => OVER_TLS | CERTIFICATE_NOW | CERTIFICATE_IN_SESSION,
        (Some(_), true) => OVER_TLS | CERTIFICATE_IN_SESSION,
    };
    let mut value = vec![flags];
    value.extend(u32::from(handshake.client.is_none()).to_be_bytes());
    let mut tlv = |kind: Type, text: &str| {
        value.push(kind.into());
        value.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
        value.extend_from_slice(text.as_bytes());
    };
    tlv(
        Type::SSLVersion,
        match handshake.version {
            TlsVersion::Tls12 => "TLSv1.2",
            TlsVersion::Tls13 => "TLSv1.3",
        },
    );
    if let Some(name) = handshake.client.as_ref().and_then(|client| client.common_name.as_deref()) {
        tlv(Type::SSLCommonName, name);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::{Decision, Reason};
    use crate::tls::Client;

    fn handshake(client: Option<Client>, resumed: bool) -> Handshake {
        Handshake {
            resumed,
            version: TlsVersion::Tls13,
            cipher: "TLS_AES_128_GCM_SHA256",
            server_name: None,
            alpn: None,
            client,
            decision: Decision { server: None, reason: Reason::Off },
            wanted: None,
            key_id: None,
            issuer: None,
        }
    }

    #[test]
    fn version_2_with_ssl_tells_whom_the_client_has_proven_to_be() {
        let [client, service] = ["[2001:db8::1]:1", "[2001:db8::a]:443"].map(|address| address.parse().unwrap());
        let ssl = |handshake: &Handshake| {
            let header = ProxyProtocol::V2Ssl.header(client, service, Some(handshake));
            assert_eq!(header.get(14..16), Some(&u16::try_from(header.len() - 16).unwrap().to_be_bytes()[..]));
            header.get(52..).unwrap().to_vec()
        };
        let named = |len: usize| Some(Client { subject: "CN=...".into(), common_name: Some("x".repeat(len).into()) });
        assert_eq!(ssl(&handshake(None, true)), b"\x20\0\x0f\x01\0\0\0\x01\x21\0\x07TLSv1.3");
        assert_eq!(ssl(&handshake(named(2), false)), b"\x20\0\x14\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x02xx");
        assert_eq!(ssl(&handshake(named(2), true)), b"\x20\0\x14\x05\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x02xx");
        let longest = ssl(&handshake(named(crate::tls::subject::COMMON_NAME_MAX), true));
        assert_eq!(longest.len() + 52, HEADER_MAX);
    }

    #[test]
    fn version_1_is_the_line_of_the_specification() {
        let header =
            ProxyProtocol::V1.header("198.18.0.1:51000".parse().unwrap(), "198.18.0.10:443".parse().unwrap(), None);
        assert_eq!(header, b"PROXY TCP4 198.18.0.1 198.18.0.10 51000 443\r\n");
        let header =
            ProxyProtocol::V1.header("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::a]:443".parse().unwrap(), None);
        assert_eq!(header, b"PROXY TCP6 2001:db8::1 2001:db8::a 1 443\r\n");
    }

    #[test]
    fn version_2_has_signature_family_length_and_addresses() {
        let header =
            ProxyProtocol::V2.header("198.18.0.1:258".parse().unwrap(), "198.18.0.10:443".parse().unwrap(), None);
        assert_eq!(header, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc6\x12\x00\x01\xc6\x12\x00\x0a\x01\x02\x01\xbb");
        let header =
            ProxyProtocol::V2.header("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::a]:443".parse().unwrap(), None);
        assert_eq!(header.get(12..16), Some(&[0x21, 0x21, 0, 36][..]));
        assert_eq!(header.len(), 52);
    }
}
