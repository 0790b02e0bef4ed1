//! What the fuzz targets share: addresses, packets put together from their parts, and a virtual service with its tickets.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use sealane::balance::{Algorithm, Pool, Server, Slot, State};
use sealane::base::{Duration, Generation, PoolId, Random, ServerId, ServiceId, UnixTime};
use sealane::persistence::{Method, OnLimit, Profile, SelectNewServer};
use sealane::ticket::{Ring, Scope};
use sealane::tls::certificate::Certificate;
use sealane::tls::service::{Settings, Tickets, policy_hash};
use sealane::tls::{Service, Versions};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{EthernetAddress, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, checksum};

/// The wall clock of every target.
pub const NOW: UnixTime = UnixTime(1_800_000_000);

/// Where the targets' tickets are valid.
pub const SCOPE: Scope = Scope { cluster: [1; 32], service: ServiceId(2), policy: [3; 32] };

/// The name in the service's certificate.
pub const NAME: &str = "shop.example";

/// A self-signed certificate for [`NAME`], made anew by each process: no private key is kept in the repository.
pub struct Identity {
    /// PEM chain.
    pub chain: String,
    /// PEM key.
    pub key: String,
    /// DER of the certificate.
    pub der: rustls::pki_types::CertificateDer<'static>,
}

/// The identity of this process.
pub static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key can be generated");
    let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).expect("it is a name");
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    let certificate = params.self_signed(&key).expect("it can be signed");
    Identity { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
});

/// A key ring, always the same.
pub fn ring() -> Ring {
    Ring::generate(NOW, &mut Random::from_seed(1))
}

/// A pool of three servers at these addresses.
pub fn pool(addresses: [std::net::SocketAddr; 3]) -> Arc<Pool> {
    let servers = (0u32..).zip(addresses).map(|(number, address)| Server {
        id: ServerId(u64::from(number) + 100),
        generation: Generation(0),
        name: format!("server-{number}"),
        address,
        ratio: 1,
        state: State::Enabled,
        max_connections: None,
        slot: Slot(number),
    });
    Arc::new(Pool::new(PoolId(1), "web".into(), Algorithm::RoundRobin, servers.collect()))
}

/// The TLS side of a virtual service with persistence and tickets for both protocol versions.
pub fn tls_service(pool: &Arc<Pool>) -> Arc<Service> {
    let certificate =
        Certificate::from_pem(IDENTITY.chain.as_bytes(), IDENTITY.key.as_bytes()).expect("it has just been made");
    let profile = Profile {
        name: "sticky".into(),
        method: Method::Tls,
        select_new_server_when_persistent_server_down: SelectNewServer::Immediate,
        on_limit: OnLimit::Switch,
        max_mapping_age: None,
    };
    let versions = Versions::Tls12And13;
    let hour = Duration::from_secs(3600);
    let service = Service::new(Settings {
        certificates: vec![Arc::new(certificate)],
        strict_sni: false,
        client_certificates: None,
        versions,
        ciphers: Vec::new(),
        alpn: vec![b"http/1.1".to_vec()],
        tickets: Tickets {
            scope: Scope { policy: policy_hash(versions, None), ..SCOPE },
            count: 2,
            tls12: true,
            lifetime: 24 * hour,
            session_max: 72 * hour,
            session_max_tls12: 12 * hour,
        },
        pool: Arc::clone(pool),
        profile: Some(Arc::new(profile)),
    });
    Arc::new(service.expect("the settings are complete"))
}

/// An address out of few, so that inputs meet. Numbers 0 to 2 are a host's own in the targets that have one.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Host(u8);

impl Host {
    /// The Ethernet address of port `number`.
    pub const fn mac_of(number: u8) -> EthernetAddress {
        EthernetAddress([2, 0, 0, 0, 0, number])
    }

    /// Its Ethernet address; sometimes one that no host may have.
    pub fn mac(self) -> EthernetAddress {
        match self.0 {
            250.. => EthernetAddress::BROADCAST,
            240..250 => EthernetAddress([0x33, 0x33, 0, 0, 0, 1]),
            number => Self::mac_of(number % 16),
        }
    }

    /// Its IPv4 or IPv6 address; sometimes a group, a stranger or nobody.
    pub fn address(self, v6: bool) -> IpAddr {
        let text = match (self.0, v6) {
            (250.., false) => "255.255.255.255".to_owned(),
            (240..250, false) => "224.0.0.1".to_owned(),
            (230..240, false) => "0.0.0.0".to_owned(),
            (200..230, false) => format!("203.0.113.{}", self.0),
            (number, false) => format!("198.18.0.{}", number % 16),
            (250.., true) => "ff02::1".to_owned(),
            (240..250, true) => format!("ff02::1:ff00:{:x}", self.0 % 16),
            (230..240, true) => "::".to_owned(),
            (220..230, true) => format!("fe80::ff:fe00:{:x}", self.0 % 16),
            (200..220, true) => format!("2001:db8:f::{:x}", self.0),
            (number, true) => format!("2001:db8::{:x}", number % 16),
        };
        text.parse().expect("it is an address")
    }
}

/// An IP packet of an upper-layer `protocol`; `None` when the two ends are of different families or it would be too long.
pub fn ip_packet(
    source: IpAddr,
    destination: IpAddr,
    protocol: IpProtocol,
    hop_limit: u8,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let payload_len = payload.len();
    if payload_len > 1460 {
        return None;
    }
    match (source, destination) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let repr = Ipv4Repr { src_addr, dst_addr, next_header: protocol, payload_len, hop_limit };
            let mut packet = vec![0; 20 + payload_len];
            repr.emit(&mut Ipv4Packet::new_unchecked(&mut packet[..]), &ChecksumCapabilities::default());
            packet.get_mut(20..)?.copy_from_slice(payload);
            Some(packet)
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            let repr = Ipv6Repr { src_addr, dst_addr, next_header: protocol, payload_len, hop_limit };
            let mut packet = vec![0; 40 + payload_len];
            repr.emit(&mut Ipv6Packet::new_unchecked(&mut packet[..]));
            packet.get_mut(40..)?.copy_from_slice(payload);
            Some(packet)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// An ICMP or ICMPv6 packet with a right checksum.
pub fn icmp_packet(
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    kind: u8,
    code: u8,
    rest: &[u8],
) -> Option<Vec<u8>> {
    let mut message = [&[kind, code, 0, 0], rest].concat();
    let mut sums = [checksum::data(&message), 0];
    let protocol = if source.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
    if let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) {
        let len = u32::try_from(message.len()).ok()?;
        sums[1] = checksum::pseudo_header(&IpAddress::Ipv6(source), &IpAddress::Ipv6(destination), protocol, len);
    }
    message.get_mut(2..4)?.copy_from_slice(&(!checksum::combine(&sums)).to_be_bytes());
    ip_packet(source, destination, protocol, hop_limit, &message)
}

/// An Ethernet frame around an IP packet.
pub fn frame(to: EthernetAddress, from: EthernetAddress, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0x00] };
    [to.as_bytes(), from.as_bytes(), &ethertype, packet].concat()
}

/// A TLS record of this type.
pub fn record(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[kind, 3, 3], &len[..], bytes].concat()
}

/// What a real peer says to `heard`. It reads all the data that comes, and hears no more once it has failed.
pub fn flight<D: rustls::SideData>(peer: &mut rustls::ConnectionCommon<D>, mut heard: &[u8]) -> Vec<u8> {
    while !heard.is_empty() {
        if !matches!(peer.read_tls(&mut heard), Ok(1..)) || peer.process_new_packets().is_err() {
            break;
        }
        let mut reader = peer.reader();
        while let Ok(len @ 1..) = std::io::BufRead::fill_buf(&mut reader).map(<[u8]>::len) {
            std::io::BufRead::consume(&mut reader, len);
        }
    }
    let mut flight = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut flight).expect("a vector takes everything");
    }
    flight
}

/// Alters a byte; whether all is as it was.
pub fn alter(flight: &mut [u8], alteration: Option<(u16, u8)>) -> bool {
    let Some((at, bits)) = alteration.filter(|_| !flight.is_empty()) else { return true };
    let at = usize::from(at) % flight.len();
    flight[at] ^= bits;
    bits == 0
}
