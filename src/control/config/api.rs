//! `[engine.api]`: where the API is served that changes the engine while it runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::fault::{Report, Wrong, wrong};
use super::model::{Api, ApiTcp, ApiTls, Fixed};
use super::reader::{Located, Section, parsed, text};
use crate::control::api::tcp::Access;

/// Where the sockets of engines are that say nothing else, one for each by its name.
pub const SOCKETS: &str = "/run/sealane";
/// The longest path of a socket: the kernel takes 107 bytes (unix(7)), and the socket is made in a directory of its own beside its place.
const SOCKET_MAX: usize = 90;

/// Reads `[engine.api]` of the engine of this name.
pub(super) fn api(report: &mut Report, engine: &mut Section<'_>, directory: &Path, name: Option<&str>) -> Api {
    let line = engine.line_of(report, "api");
    let socket = usual(name.unwrap_or_default());
    let Some(mut section) = engine.section(report, "api") else {
        return Api { socket: located(report, line, "engine.api", socket), tcp: None };
    };
    let written = section.or(report, "socket", Some(socket), socket_path(directory));
    let socket = written.value.and_then(|path| located(report, written.line, "engine.api.socket", path));
    let tcp = tcp(report, &mut section, directory);
    section.finish(report);
    Api { socket, tcp }
}

/// `listen` and what lets clients in there.
fn tcp(report: &mut Report, section: &mut Section<'_>, directory: &Path) -> Option<ApiTcp> {
    let listen: Option<Located<SocketAddr>> =
        section.optional(report, "listen", parsed("an address with a port", "127.0.0.1:9901"));
    let mut file = |key| section.optional(report, key, text(4096)).map(|file| directory.join(file.value));
    let [token_file, certificate, private_key, client_ca] =
        ["token_file", "certificate", "key", "client_ca"].map(&mut file);
    let Some(listen) = listen else {
        let files = [("token_file", &token_file), ("certificate", &certificate), ("client_ca", &client_ca)];
        for (key, _) in files.into_iter().filter(|(_, file)| file.is_some()) {
            let what = "is for clients over TCP, and nobody listens there";
            report.fault(
                section.line_of(report, key),
                section.key(key),
                wrong(what, "add listen = \"127.0.0.1:9901\""),
            );
        }
        return None;
    };
    let (address, line, key) = (listen.value, listen.line, section.key("listen"));
    let tls = match (certificate, private_key) {
        (Some(certificate), Some(private_key)) => {
            Some(ApiTls { certificate, private_key, client_ca: client_ca.clone() })
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let what = "has a certificate without its key, or the other way round";
            report.fault(line, key, wrong(what, "write both, or none"));
            return None;
        }
    };
    if token_file.is_none() && client_ca.is_none() {
        let what = format!("is {address}, where anybody who reaches it could change the engine");
        report.fault(line, key, wrong(what, "add token_file, or certificate, key and client_ca"));
        return None;
    }
    if client_ca.is_some() && tls.is_none() {
        let what = "has client_ca without TLS, in which clients show certificates";
        report.fault(line, key, wrong(what, "add certificate and key"));
        return None;
    }
    if !address.ip().is_loopback() && tls.is_none() {
        let what = format!("is {address}, and without TLS whoever is on the way there reads the token");
        report.fault(line, key, wrong(what, "add certificate and key, or write a loopback address"));
        return None;
    }
    let tcp = ApiTcp { listen: address, token_file, tls };
    if let Err(error) = Access::load(&tcp) {
        let line = section.line_of(report, error.key);
        report.fault(line, section.key(error.key), wrong(error.what, error.remedy));
        return None;
    }
    Some(tcp)
}

/// The socket of an engine that says nothing else.
fn usual(name: &str) -> PathBuf {
    Path::new(SOCKETS).join(format!("{name}.sock"))
}

/// A path relative to the configuration's directory, or `false`.
fn socket_path(directory: &Path) -> impl Fn(&DeValue<'_>) -> Result<Option<PathBuf>, Wrong> {
    move |value| {
        if value.as_bool() == Some(false) {
            return Ok(None);
        }
        let path = text(4096)(value).map_err(|wrong| wrong.or_instead("false, for no socket"))?;
        Ok(Some(directory.join(path)))
    }
}

/// The path, if the kernel takes it for a socket.
fn located(report: &mut Report, line: usize, key: &str, path: PathBuf) -> Option<PathBuf> {
    let length = path.as_os_str().as_bytes().len();
    if length > SOCKET_MAX {
        let what = format!("is {}, of {length} bytes, and a socket's path has {SOCKET_MAX} at most", path.display());
        report.fault(line, key, wrong(what, "write a shorter path, such as socket = \"/run/sealane.sock\""));
        return None;
    }
    Some(path)
}

/// Where the keys of `[engine.api]` stand.
pub(super) fn lines(report: &Report, engine: &Section<'_>) -> (usize, BTreeMap<String, usize>) {
    engine.lines_under(report, "api")
}

/// Keys that cannot change while the engine runs: all of them, for who asks should not lose the answer.
pub(super) fn fixed(api: &Api, name: &str, (table, lines): &(usize, BTreeMap<String, usize>)) -> Vec<Fixed> {
    let socket = match &api.socket {
        None => "false".to_owned(),
        // That the name cannot change is said of the name.
        Some(path) if *path == usual(name) => format!("{:?}", usual("NAME")),
        Some(path) => format!("{path:?}"),
    };
    let file = |file: Option<&PathBuf>| file.map_or_else(|| "none".to_owned(), |file| format!("{file:?}"));
    let tcp = api.tcp.as_ref();
    let tls = tcp.and_then(|tcp| tcp.tls.as_ref());
    [
        ("socket", socket),
        ("listen", tcp.map_or_else(|| "none".to_owned(), |tcp| tcp.listen.to_string())),
        ("token_file", file(tcp.and_then(|tcp| tcp.token_file.as_ref()))),
        ("certificate", file(tls.map(|tls| &tls.certificate))),
        ("key", file(tls.map(|tls| &tls.private_key))),
        ("client_ca", file(tls.and_then(|tls| tls.client_ca.as_ref()))),
    ]
    .map(|(key, value)| Fixed {
        key: format!("engine.api.{key}"),
        line: lines.get(key).copied().unwrap_or(*table),
        value,
    })
    .into()
}
