//! A real etcd of the test's own: on loopback, in a directory that goes with it, ended by its process id.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `done` again and again until it says yes; gives how long that took.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    #[expect(clippy::disallowed_methods, reason = "a real server is waited for")]
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    began.elapsed()
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An etcd.
pub(crate) struct Etcd {
    directory: TempDir,
    port: u16,
    peer_port: u16,
    certificates: Option<Certificates>,
    process: Option<Child>,
}

/// An authority, the server's certificate of it and a client's, all PEM files.
pub(crate) struct Certificates {
    directory: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = parameters.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("ca.pem"), ca.pem()).unwrap();
        let issuer = rcgen::Issuer::new(parameters, key);
        for name in ["server", "client"] {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            parameters.extended_key_usages =
                vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            let certificate = parameters.signed_by(&key, &issuer).unwrap();
            std::fs::write(directory.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            write_secret(&directory.path().join(format!("{name}.key")), &key.serialize_pem());
        }
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }
}

/// A file for its owner only.
pub(crate) fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

impl Etcd {
    pub(crate) fn start() -> Self {
        Self::with(None)
    }

    pub(crate) fn with_tls() -> Self {
        Self::with(Some(Certificates::new()))
    }

    fn with(certificates: Option<Certificates>) -> Self {
        let mut etcd = Self {
            directory: TempDir::new().unwrap(),
            port: free_port(),
            peer_port: free_port(),
            certificates,
            process: None,
        };
        etcd.restart();
        etcd
    }

    pub(crate) fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("{}://{}", if self.certificates.is_some() { "https" } else { "http" }, self.address())
    }

    /// Starts it, with what is in its directory, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        let (endpoint, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer_port));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.directory.path().join("data"));
        command.args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        // Alone it is elected as soon as it may be.
        command.args(["--heartbeat-interval", "20", "--election-timeout", "200", "--log-level", "error"]);
        if let Some(certificates) = &self.certificates {
            command.arg("--client-cert-auth");
            for (option, name) in
                [("--trusted-ca-file", "ca.pem"), ("--cert-file", "server.pem"), ("--key-file", "server.key")]
            {
                command.arg(option).arg(certificates.path(name));
            }
        }
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = spawned.unwrap_or_else(|error| {
            panic!("etcd cannot be started ({error}): install Debian's etcd-server, or run scripts/setup")
        });
        self.process = Some(process);
        until("etcd answers", || self.is_healthy());
    }

    fn is_healthy(&mut self) -> bool {
        let ended = self.process.as_mut().and_then(|process| process.try_wait().unwrap());
        assert!(ended.is_none(), "etcd ended: {ended:?}");
        if self.certificates.is_some() {
            return self.etcdctl(&["endpoint", "health"]).is_ok();
        }
        let Ok(mut stream) = TcpStream::connect(self.address()) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let asked = write!(stream, "GET /health HTTP/1.1\r\nhost: etcd\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains(r#""health":"true""#)
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Takes away all that it has kept.
    pub(crate) fn wipe(&self) {
        std::fs::remove_dir_all(self.directory.path().join("data")).unwrap();
    }

    /// Runs etcdctl; gives what it said.
    pub(crate) fn etcdctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.endpoint());
        if let Some(certificates) = &self.certificates {
            for (option, name) in [("--cacert", "ca.pem"), ("--cert", "client.pem"), ("--key", "client.key")] {
                command.arg(option).arg(certificates.path(name));
            }
        }
        let ended =
            command.args(arguments).output().expect("etcdctl: install Debian's etcd-client, or run scripts/setup");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if ended.status.success() { Ok(text(&ended.stdout)) } else { Err(text(&ended.stderr)) }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
