//! TLS under a probe: a session with the server, in which the rest is said. Its handshake by itself is a probe, too.

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::{Piece, UnixTime};
use crate::health::{Cause, Outcome};
use crate::tls::client::{Connector, Failure, Name, Progress, Session, Settings};

/// The longest record that is made.
const RECORD_MAX: usize = 16 * 1024;

/// How a monitor speaks TLS.
#[derive(Clone, Debug)]
pub struct Secure {
    settings: Settings,
    connector: Arc<Connector>,
    server_name: Option<Name>,
}

impl PartialEq for Secure {
    fn eq(&self, other: &Self) -> bool {
        let [own, others] =
            [self, other].map(|secure| (&secure.settings.trust, &secure.settings.alpn, &secure.server_name));
        own == others
    }
}

impl Eq for Secure {}

impl Secure {
    /// TLS as these settings say, of which the connector was made. `server_name` is what a server is asked for by, and must show a certificate for; `None`: its
    /// address. Monitors show no certificate.
    pub fn new(settings: Settings, connector: Arc<Connector>, server_name: Option<Name>) -> Self {
        Self { settings, connector, server_name }
    }

    pub(super) fn begin(&self, server: IpAddr) -> Channel {
        let name = self.server_name.clone().unwrap_or_else(|| Name::of(server));
        Channel { session: Session::new(&Arc::new(self.connector.target(&name))), unsent: Vec::new() }
    }
}

/// A session of one probe.
#[derive(Debug)]
pub(super) struct Channel {
    session: Session,
    /// Of a record, what has not been taken.
    unsent: Vec<u8>,
}

/// What came of something that the server said.
pub(super) enum Heard {
    Nothing,
    /// The handshake has ended.
    Opened,
    /// The probe is over.
    Outcome(Outcome),
}

impl Channel {
    /// Says ClientHello.
    pub(super) fn begin(&mut self, unix: UnixTime) -> Result<(), Cause> {
        self.session.advance(unix).map(|_| ()).map_err(Cause::Tls)
    }

    pub(super) fn is_open(&self) -> bool {
        !self.session.is_handshaking()
    }

    /// Whether the server has said that it says no more.
    pub(super) fn has_ended(&self) -> bool {
        self.session.peer_has_closed()
    }

    /// Takes what came, and gives what it says in plain to `take` until that comes to an outcome.
    pub(super) fn on_data(
        &mut self,
        mut bytes: &[u8],
        unix: UnixTime,
        mut take: impl FnMut(&[u8]) -> Option<Outcome>,
    ) -> Result<Heard, Cause> {
        let mut heard = Heard::Nothing;
        while !bytes.is_empty() {
            let taken = self.session.on_data(bytes).map_err(Cause::Tls)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            let progress = self.session.advance(unix).map_err(Cause::Tls)?;
            if matches!(progress, Progress::Established(_)) {
                heard = Heard::Opened;
            }
            let mut has_taken = taken > 0;
            while let Some(piece) = self.session.take(usize::MAX) {
                has_taken = true;
                if let Some(outcome) = take(piece.bytes()) {
                    return Ok(Heard::Outcome(outcome));
                }
            }
            if !has_taken {
                return Err(Cause::Tls(Failure::Protocol));
            }
        }
        Ok(heard)
    }

    /// Hands handshake messages and then records of `plaintext` to `take`; how much of the plaintext has gone into records.
    pub(super) fn poll_transmit(
        &mut self,
        plaintext: &[u8],
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> Result<usize, Cause> {
        self.session.poll_transmit(&mut take);
        let mut sealed = 0;
        while !self.session.has_output() {
            if !self.unsent.is_empty() {
                let taken = take(&self.unsent);
                self.unsent.drain(..taken);
                if !self.unsent.is_empty() {
                    break;
                }
            }
            let left = plaintext.get(sealed..).filter(|left| !left.is_empty());
            let Some(left) = left.filter(|_| self.is_open()) else { break };
            let record = self.session.seal(RECORD_MAX, |most| {
                let mut piece = Piece::with_room(most.min(left.len()));
                piece.extend(left.get(..most).unwrap_or(left));
                Some(piece)
            });
            let Some((len, record)) = record.map_err(Cause::Tls)? else { break };
            sealed += len;
            self.unsent.extend_from_slice(record.bytes());
        }
        Ok(sealed)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection};

    use super::*;
    use crate::health::probe::Machine;
    use crate::health::{Answer, Kind, Monitor, Ping, http, tcp};
    use crate::tls::Versions;
    use crate::tls::client::Trust;
    use crate::tls::clients::Authorities;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nall is well";

    /// A CA, and a server with a certificate of its for this name.
    fn server(name: &str, alpn: &[u8]) -> (Trust, Arc<ServerConfig>) {
        let key = || KeyPair::generate().unwrap();
        let (mut ca, ca_key) = (CertificateParams::new(Vec::new()).unwrap(), key());
        ca.distinguished_name.push(DnType::CommonName, String::from_utf8_lossy(alpn));
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = ca.self_signed(&ca_key).unwrap().pem();
        let (params, own) = (CertificateParams::new(vec![name.to_owned()]).unwrap(), key());
        let chain = vec![params.signed_by(&own, &Issuer::new(ca, ca_key)).unwrap().der().clone()];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        (Trust::Authorities(Arc::new(Authorities::from_pem(pem.as_bytes()).unwrap())), Arc::new(config))
    }

    fn monitor(kind: Kind, trust: Trust, name: Option<&str>) -> Monitor {
        let alpn = vec![b"http/1.1".to_vec()];
        let settings = Settings { trust, certificate: None, versions: Versions::Tls12And13, alpn, resumption: false };
        let connector = Arc::new(Connector::new(&settings).unwrap());
        let name = name.map(|name| Name::parse(name).unwrap());
        Monitor { kind, tls: Some(Secure::new(settings, connector, name)), ..Monitor::connect("m") }
    }

    fn page() -> Kind {
        Kind::Http(Arc::new(http::Settings {
            method: "GET",
            path: "/".into(),
            host: None,
            codes: vec![200..=200],
            text: b"well"[..].into(),
            maintenance_codes: Vec::new(),
        }))
    }

    /// What comes of a probe whose server's segments have so many bytes. Every other time the connection takes nothing that is said.
    fn outcome(monitor: &Monitor, config: &Arc<ServerConfig>, segment: usize) -> Outcome {
        let mut machine = Machine::new(monitor, "198.18.0.1:443".parse().unwrap(), Ping::default());
        let mut server = ServerConnection::new(Arc::clone(config)).unwrap();
        if let Some(outcome) = machine.on_open(NOW) {
            return outcome;
        }
        let mut has_replied = false;
        for turn in 0..10_000 {
            let mut wire = Vec::new();
            let taken = machine.poll_transmit(|bytes| {
                let taken = if turn % 2 == 0 { 0 } else { bytes.len().min(700) };
                wire.extend_from_slice(&bytes[..taken]);
                taken
            });
            taken?;
            let mut wire = &wire[..];
            while !wire.is_empty() && server.read_tls(&mut wire).is_ok() {
                if server.process_new_packets().is_err() {
                    break;
                }
            }
            let mut request = [0; 1000];
            if !has_replied && server.reader().read(&mut request).is_ok_and(|len| len > 0) {
                has_replied = true;
                server.writer().write_all(REPLY).unwrap();
                server.send_close_notify();
            }
            let mut said = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut said).unwrap();
            }
            for part in said.chunks(segment) {
                if let Some(outcome) = machine.on_data(part, NOW) {
                    return outcome;
                }
            }
        }
        panic!("nothing comes of it");
    }

    #[test]
    fn a_handshake_is_enough_and_a_page_is_read_in_it_however_the_records_come() {
        let (trust, config) = server("web.internal", b"http/1.1");
        for segment in [1, 3, 100, 16_384] {
            for kind in [Kind::Tcp(tcp::Settings::default()), page()] {
                let monitor = monitor(kind, trust.clone(), Some("web.internal"));
                assert_eq!(outcome(&monitor, &config, segment), Ok(Answer::Normal), "{segment}");
            }
        }
    }

    #[test]
    fn a_server_that_is_not_believed_is_told_why() {
        let (trust, config) = server("web.internal", b"http/1.1");
        let (other, another) = server("web.internal", b"h2");
        for (trust, name, config, failure) in [
            (&trust, Some("another.internal"), &config, Failure::WrongName),
            (&trust, None, &config, Failure::WrongName),
            (&other, Some("web.internal"), &config, Failure::UnknownAuthority),
            (&other, Some("web.internal"), &another, Failure::AlertReceived),
        ] {
            let monitor = monitor(page(), trust.clone(), name);
            assert_eq!(outcome(&monitor, config, 1000), Err(Cause::Tls(failure)), "{failure:?}");
        }
        let anyone = monitor(page(), Trust::Anyone, None);
        assert_eq!(outcome(&anyone, &config, 1000), Ok(Answer::Normal));
    }

    #[test]
    fn what_is_no_tls_is_told_so_and_the_end_before_the_handshake_is_no_answer() {
        let monitor = monitor(page(), Trust::Anyone, None);
        let mut machine = Machine::new(&monitor, "198.18.0.1:443".parse().unwrap(), Ping::default());
        assert_eq!(machine.on_open(NOW), None);
        assert_eq!(machine.on_end(), Err(Cause::Closed));
        assert_eq!(machine.on_data(b"HTTP/1.1 400 Bad Request\r\n", NOW), Some(Err(Cause::Tls(Failure::NotTls))));
    }

    #[test]
    fn monitors_that_believe_the_same_are_the_same() {
        let (trust, _) = server("web.internal", b"h2");
        let one = || monitor(page(), trust.clone(), Some("web.internal"));
        assert_eq!(one(), one());
        assert_ne!(one(), monitor(page(), Trust::Anyone, Some("web.internal")));
        assert_ne!(one(), monitor(page(), trust.clone(), None));
    }
}
