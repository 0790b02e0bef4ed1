//! `[engine.api]`: where the API is served that changes the engine while it runs.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::fault::{Report, Wrong, wrong};
use super::model::{Api, Fixed};
use super::reader::{Section, text};

/// Where the sockets of engines are that say nothing else, one for each by its name.
pub const SOCKETS: &str = "/run/sealane";
/// The longest path of a socket: the kernel takes 107 bytes (unix(7)), and the socket is made in a directory of its own beside its place.
const SOCKET_MAX: usize = 90;

/// Reads `[engine.api]` of the engine of this name.
pub(super) fn api(report: &mut Report, engine: &mut Section<'_>, directory: &Path, name: Option<&str>) -> Api {
    let line = engine.line_of(report, "api");
    let socket = usual(name.unwrap_or_default());
    let Some(mut section) = engine.section(report, "api") else {
        return Api { socket: located(report, line, "engine.api", socket) };
    };
    let written = section.or(report, "socket", Some(socket), socket_path(directory));
    let socket = written.value.and_then(|path| located(report, written.line, "engine.api.socket", path));
    section.finish(report);
    Api { socket }
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
    [("socket", socket)]
        .map(|(key, value)| Fixed {
            key: format!("engine.api.{key}"),
            line: lines.get(key).copied().unwrap_or(*table),
            value,
        })
        .into()
}
