//! A configuration that has been proven: names are resolved, numbers are in range, certificates fit their keys.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use super::fault::Fault;
use crate::balance::{Admission, Algorithm, Failover, Sharing, State};
use crate::base::{Duration, EngineId, Generation, PoolId, ServerId, ServiceId};
use crate::control::keys::etcd;
use crate::control::syslog::{Facility, Receiver};
use crate::health::Monitor;
use crate::lane::Poll;
use crate::persistence::Profile;
use crate::relay::{ProxyProtocol, Timeouts};
use crate::tcp;
use crate::ticket::Schedule;
use crate::tls::{self, ClientCertificates, certificate::Certificate, client};

/// The longest configuration file, in bytes.
pub const FILE_MAX: usize = 4 << 20;
/// Most lanes of an engine.
pub const CORES_MAX: usize = 128;
/// Most ports of an engine.
pub const PORTS_MAX: usize = 16;
/// Most addresses of a port or of a virtual service.
pub const ADDRESSES_MAX: usize = 64;
/// Most virtual services.
pub const SERVICES_MAX: usize = 1024;
/// Most certificates of a virtual service.
pub const CERTIFICATES_MAX: usize = 64;
/// Most files of revocation lists of a virtual service.
pub const REVOCATION_FILES_MAX: usize = 64;
/// Most pools, monitors and profiles, each.
pub const POOLS_MAX: usize = 1024;
/// Most servers of all pools together.
pub const SERVERS_MAX: usize = 8192;

/// A whole configuration.
#[derive(Debug)]
pub struct Configuration {
    /// The file that it was read from.
    pub file: PathBuf,
    /// What it was made of: the file's text, or what the API has made of that since.
    pub text: String,
    /// The engine itself.
    pub engine: Engine,
    /// Ports, by [`PortId`](crate::base::PortId).
    pub ports: Vec<Port>,
    /// Virtual services.
    pub services: Vec<VirtualService>,
    /// Pools, those that no service names included: their servers are monitored.
    pub pools: Vec<Arc<Pool>>,
    /// Ticket keys.
    pub ticket_keys: TicketKeys,
    /// What an operator should know and what forbids nothing.
    pub warnings: Vec<Fault>,
    /// What cannot change while the engine runs.
    pub(super) fixed: Vec<Fixed>,
}

/// A key that cannot change while the engine runs, where it stands and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: String,
}

/// `[engine]`
#[derive(Clone, Debug)]
pub struct Engine {
    /// Goes into tickets as the issuer.
    pub name: String,
    /// The same, as tickets carry it.
    pub id: EngineId,
    /// Tickets are valid within one cluster.
    pub cluster: String,
    /// Cores, one lane on each.
    pub cores: Vec<usize>,
    /// The core that control runs on.
    pub control_core: usize,
    /// What a lane does when there is nothing to do.
    pub poll: Poll,
    /// Whom the engine becomes once its lanes run; `None`: it stays who it was started as.
    pub user: Option<String>,
    /// Where `/metrics`, `/healthz` and `/trace` are served.
    pub admin: SocketAddr,
    /// Where the API is served, which changes things.
    pub api: Api,
    /// Whether packet buffers are in hugepages.
    pub hugepages: Hugepages,
    /// Packet buffers, shared by all lanes.
    pub buffers: usize,
    /// Whether ports cut and join TCP segments.
    pub segmentation_offload: SegmentationOffload,
    /// How long connections are taken after the engine was asked to stop.
    pub drain_delay: Duration,
    /// How long a drain waits for connections to end.
    pub drain_timeout: Duration,
    /// The connection log.
    pub log: Log,
    /// Bounds and times of each lane's TCP; the MTU is the ports' and not here.
    pub tcp: tcp::Settings,
    /// What its lanes keep of what their connections have just done.
    pub trace: Trace,
    /// What captures may hold.
    pub capture: Capture,
    /// Where virtual addresses are announced to routing daemons, if they are.
    pub announce: Option<Announce>,
}

/// `[engine.announce]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The kernel's routing table that has a route to every address that is served.
    pub table: u32,
}

/// `[engine.api]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The Unix socket, unless there is none.
    pub socket: Option<PathBuf>,
    /// The TCP address, if there is one.
    pub tcp: Option<ApiTcp>,
}

/// Where the API is served over TCP, and to whom. There is a token, or a CA of clients, or both; away from loopback there is TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTcp {
    /// The address.
    pub listen: SocketAddr,
    /// The file with the token that clients show.
    pub token_file: Option<PathBuf>,
    /// TLS, if it is spoken.
    pub tls: Option<ApiTls>,
}

/// PEM files for TLS at the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTls {
    /// The engine's certificate with its chain.
    pub certificate: PathBuf,
    /// Its key, mode 0600.
    pub private_key: PathBuf,
    /// The authorities that clients' certificates must be from; `None`: clients are asked for none.
    pub client_ca: Option<PathBuf>,
}

/// `[engine.capture]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// Whether captures may hold TLS secrets.
    pub tls_secrets: bool,
}

/// `[engine.trace]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Each lane's ring.
    pub rings: tcp::trace::Settings,
    /// Where the rings are written when the engine ends, one way or another.
    pub file: Option<PathBuf>,
}

/// Whether packet buffers are in hugepages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hugepages {
    /// Where there are some; else the engine says so and goes on without.
    Auto,
    /// Or the engine does not start.
    Require,
    /// Not even where there are some.
    Never,
}

/// Whether ports cut the TCP segments that the engine sends, and leave joined those that they receive so. Packet buffers then take 16 KiB instead of 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentationOffload {
    /// Where the device offers it.
    Auto,
    /// Also on net_vhost, which cannot say whether its client takes long frames.
    Always,
    /// No.
    Never,
}

/// `[engine.log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a record is written.
    pub format: LogFormat,
    /// Where to.
    pub to: LogTo,
    /// Most records written a second; 0 for no bound.
    pub records_per_second: u32,
}

/// Where connections' records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// Standard output.
    Output,
    /// A file, appended to.
    File(PathBuf),
    /// A syslog daemon.
    Syslog(Receiver, Facility),
}

/// How a connection's record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[[port]]`
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// What it is.
    pub device: Device,
    /// The engine's own addresses, each with its on-link prefix.
    pub addresses: Vec<IpNet>,
    /// Default routes, at most one a family.
    pub gateways: Vec<IpAddr>,
    /// The longest IP packet, in bytes.
    pub mtu: usize,
    /// The VLAN of its frames, 1 to 4094; `None`: they have no tag.
    pub vlan: Option<u16>,
    /// The interface of the host's kernel beside it, if there is one.
    pub kernel: Option<Kernel>,
}

/// `kernel` of `[[port]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// What the interface is called.
    pub interface: String,
    /// Most frames a second each way, over all lanes.
    pub rate: u32,
    /// Whether the engine brings the interface up with the port's addresses and MTU.
    pub addresses: bool,
}

impl Port {
    /// Whether `address` can be reached over this port, on-link or by a gateway.
    pub fn routes_to(&self, address: IpAddr) -> bool {
        self.is_on_link(address) || self.gateways.iter().any(|gateway| gateway.is_ipv4() == address.is_ipv4())
    }

    /// Whether `address` is in the network of one of the port's own.
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|network| network.contains(&address))
    }

    /// Whether the port has an address of the family of `address`.
    pub fn speaks_family_of(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|network| network.addr().is_ipv4() == address.is_ipv4())
    }
}

/// What DPDK drives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A PCI address, in full and lower case, with the driver's arguments behind a comma if there are any.
    Pci(String),
    /// A virtual device with its arguments.
    Virtual(String),
}

/// `[[virtual_service]]`
#[derive(Debug)]
pub struct VirtualService {
    /// Its name.
    pub name: String,
    /// The same, as tickets are bound to it.
    pub id: ServiceId,
    /// Where clients connect.
    pub addresses: Vec<SocketAddr>,
    /// Where they go.
    pub pool: Arc<Pool>,
    /// How they come back, if they do.
    pub profile: Option<Arc<Profile>>,
    /// Certificate chains with their keys; the first is the default.
    pub certificates: Vec<Arc<Certificate>>,
    /// Whether a name that no certificate covers is refused.
    pub strict_sni: bool,
    /// Protocol versions.
    pub versions: tls::Versions,
    /// Cipher suites by their IANA names; empty for the default.
    pub ciphers: Vec<String>,
    /// Application protocols; empty for none.
    pub alpn: Vec<Vec<u8>>,
    /// Whether and how its clients authenticate themselves.
    pub client_certificates: Option<Arc<ClientCertificates>>,
    /// How many tickets a TLS 1.3 handshake issues.
    pub tickets: usize,
    /// Whether TLS 1.2 sessions get tickets.
    pub tls12_tickets: bool,
    /// The header that its servers expect.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Times after which it gives up.
    pub timeouts: Timeouts,
}

/// `[[pool]]`
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The same, as tickets carry it.
    pub id: PoolId,
    /// How a new client's server is chosen.
    pub algorithm: Algorithm,
    /// Servers, at least one.
    pub servers: Vec<Server>,
    /// What lowers their shares of new clients.
    pub sharing: Sharing,
    /// What it does when they fail.
    pub failover: Failover,
    /// How they are spoken to in TLS, if they are.
    pub tls: Option<Arc<ServersTls>>,
    /// Who may still connect to one that is drained or says that it is in maintenance.
    pub drain_admission: Admission,
    /// How they are monitored, if they are.
    pub monitors: Vec<Arc<Monitor>>,
    /// How many monitors must find a server up.
    pub monitors_up_min: usize,
}

/// `[pool.tls]`
#[derive(Clone, Debug)]
pub struct ServersTls {
    /// What is believed, shown and offered.
    pub settings: client::Settings,
    /// The name of every server that has none of its own; `None` names each by its address.
    pub server_name: Option<client::Name>,
}

impl ServersTls {
    /// What a server is asked for by, and must show a certificate for.
    pub fn name_of(&self, server: &Server) -> client::Name {
        let name = server.server_name.as_ref().or(self.server_name.as_ref());
        name.cloned().unwrap_or_else(|| client::Name::of(server.address.ip()))
    }
}

/// `[[pool.server]]`
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// The same with its pool's, as tickets carry it.
    pub id: ServerId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Share of new clients, 1 to 20.
    pub ratio: u8,
    /// What it may be used for.
    pub state: State,
    /// Most connections at once; `None` for no bound.
    pub max_connections: Option<u32>,
    /// Incarnation.
    pub generation: Generation,
    /// Its name in TLS, if it has one of its own.
    pub server_name: Option<client::Name>,
}

/// `[ticket_keys]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketKeys {
    /// Where keys come from.
    pub source: KeySource,
    /// How often keys rotate and how long tickets live.
    pub schedule: Schedule,
    /// How long after its full handshake a TLS 1.3 session is resumed at most.
    pub session_max: Duration,
}

/// Where ticket keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// This engine makes them, and keeps them in the file if there is one.
    Own(Option<PathBuf>),
    /// A ring file, watched for changes.
    File(PathBuf),
    /// etcd, with all engines of the cluster.
    Etcd(Box<etcd::Settings>),
}
