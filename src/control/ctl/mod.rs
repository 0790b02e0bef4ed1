//! `sealane ctl`: shows and changes a running engine, over its API.
//!
//! | part | what |
//! | --- | --- |
//! | `client` | one request, and its answer |
//! | `show` | answers as tables for a person |

pub(super) mod client;
pub(super) mod show;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use hyper::Method;
use serde_json::{Value as Json, json};

use crate::control::config::{FILE_MAX, SOCKETS};
use crate::control::keys::inspect;
use client::{Address, Question, Target, TlsArgs};
use show::Shape;

/// Which engine.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct EngineArgs {
    /// The engine's Unix socket; the only one in /run/sealane, if left out
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Its TCP address instead, as in https://198.18.0.1:9901
    #[arg(long, value_name = "URL", conflicts_with = "socket", global = true)]
    url: Option<String>,
    /// With --url: the file with the token that the engine asks for
    #[arg(long, value_name = "FILE", requires = "url", global = true)]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
}

impl EngineArgs {
    /// Where it is.
    pub(super) fn target(&self) -> anyhow::Result<Target> {
        Ok(match (&self.url, &self.socket) {
            (Some(url), _) => Target::Address(Address::new(url, self.token_file.as_deref(), &self.tls)?),
            (None, Some(socket)) => Target::Socket(socket.clone()),
            (None, None) => Target::Socket(only_socket(Path::new(SOCKETS))?),
        })
    }
}

/// What `sealane ctl` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct CtlArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Show what the engine answers, as it answers it
    #[arg(long, global = true)]
    json: bool,
    /// Change nothing unless the configuration is at this revision still, as `status` shows it
    #[arg(long, value_name = "REVISION", global = true)]
    if_match: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// The engine, and which configuration is in force
    Status,
    /// Every lane
    Lanes,
    /// Every pool, and its servers
    Pools,
    /// Every virtual service
    Services,
    /// Every health monitor
    Monitors,
    /// Every persistence profile
    Profiles,
    /// A server, POOL/SERVER: how it is, or what shall become of it
    Server {
        /// POOL/SERVER
        #[arg(value_parser = server)]
        server: (String, String),
        #[command(subcommand)]
        change: Option<ServerChange>,
    },
    /// Show what is written under a name, and how it is
    Get {
        kind: Kind,
        /// Its name
        name: String,
    },
    /// Make something what a file says: the table in JSON, with the keys of the configuration file
    Put {
        kind: Kind,
        /// Its name
        name: String,
        /// The file; standard input if left out
        file: Option<PathBuf>,
    },
    /// Change some keys of something, as in '{"algorithm": "least-connections"}'; null takes a key out
    Set {
        kind: Kind,
        /// Its name
        name: String,
        /// A JSON object
        keys: String,
    },
    /// Take something out; connections live on
    Delete {
        kind: Kind,
        /// Its name
        name: String,
    },
    /// The configuration that is in force, as text
    Configuration,
    /// Put a whole configuration in force, without writing it to the engine's file
    Apply {
        /// The file; standard input if left out
        file: Option<PathBuf>,
    },
    /// Have the engine read its file again, and the files that it names; what was not saved is discarded
    Reload,
    /// Write what is in force to the engine's file
    Save {
        /// Also over what somebody else has written there
        #[arg(long)]
        force: bool,
    },
    /// Why a client would go where, now
    Explain {
        /// The virtual service that it comes to
        service: String,
        /// Its address
        client: std::net::IpAddr,
        /// Its session, as `openssl s_client -sess_out` wrote it, or a bare ticket; without, it is new
        #[arg(long, value_name = "FILE")]
        session: Option<PathBuf>,
    },
    /// The ticket keys that are in use
    #[command(subcommand)]
    Keys(Keys),
    /// Let connections end, then stop the engine; twice, and it stops at once
    Drain,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum ServerChange {
    /// New clients come to it
    Enable,
    /// Nobody comes to it
    Disable,
    /// No new clients; how open connections end, the pool's drain_timeout says
    Drain,
    /// Its share of new clients, 1 to 20
    Ratio { ratio: u8 },
    /// Most connections at once; 0 for no bound
    Limit { connections: u32 },
    /// Add it to its pool
    Add {
        /// Where it listens, as in 198.18.0.1:8001
        address: String,
        /// Its share of new clients, 1 to 20
        #[arg(long)]
        ratio: Option<u8>,
        /// "enabled", "draining" or "disabled"
        #[arg(long)]
        state: Option<String>,
    },
    /// Take it out of its pool; connections to it live on
    Remove,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Keys {
    /// Show their ids and states
    List,
    /// Have a new key seal; no client notices
    Rotate,
    /// Destroy a key at once and for good: tickets under it are worth nothing, connections go on
    Purge {
        /// The key
        key: String,
    },
}

/// What has a name.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    Pool,
    Service,
    Monitor,
    Profile,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Pool => "/v1/pools",
            Self::Service => "/v1/virtual_services",
            Self::Monitor => "/v1/health_monitors",
            Self::Profile => "/v1/persistence_profiles",
        }
    }

    fn one(self, name: &str) -> String {
        format!("{}/{}", self.path(), segment(name))
    }
}

/// POOL/SERVER
fn server(text: &str) -> Result<(String, String), String> {
    let (pool, server) = text.split_once('/').ok_or("write POOL/SERVER")?;
    Ok((pool.to_owned(), server.to_owned()))
}

/// A name as a segment of a path (RFC 3986 3.3): whatever is no letter of a name is escaped.
pub(super) fn segment(name: &str) -> String {
    let escaped = |byte: u8| {
        let is_plain = byte.is_ascii_alphanumeric() || [b'.', b'_', b'-'].contains(&byte);
        if is_plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    name.bytes().map(escaped).collect()
}

/// Asks an engine, and shows what it answers on standard output.
///
/// # Errors
/// When there is no engine, or it has refused.
pub fn run(args: &CtlArgs) -> anyhow::Result<ExitCode> {
    let target = args.engine.target()?;
    let (mut question, shape) = question(&args.command)?;
    question.if_match = args.if_match.as_ref().map(|revision| format!("\"{}\"", revision.trim_matches('"')));
    let answer = target.ask(question)?;
    let mut out = std::io::stdout().lock();
    if !answer.status.is_success() {
        if args.json {
            out.write_all(&answer.body)?;
            writeln!(out)?;
        }
        anyhow::bail!(show::problem(answer.status, &answer.body));
    }
    if args.json || matches!(shape, Shape::Text) {
        out.write_all(&answer.body)?;
        if args.json {
            writeln!(out)?;
        }
    } else {
        let json: Json = serde_json::from_slice(&answer.body).context("the engine answers in another form")?;
        write!(out, "{}", show::table(shape, &json))?;
    }
    // RFC 9110 15.3.3: accepted, and not done yet.
    Ok(if answer.status == hyper::StatusCode::ACCEPTED && matches!(shape, Shape::Changed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn question(command: &Command) -> anyhow::Result<(Question, Shape)> {
    let get = |path: String, shape| (Question::new(Method::GET, path), shape);
    let post = |path: String, shape| (Question::new(Method::POST, path), shape);
    Ok(match command {
        Command::Status => get("/v1/status".into(), Shape::Status),
        Command::Lanes => get("/v1/lanes".into(), Shape::Lanes),
        Command::Pools => get(Kind::Pool.path().into(), Shape::Pools),
        Command::Services => get(Kind::Service.path().into(), Shape::Services),
        Command::Monitors => get(Kind::Monitor.path().into(), Shape::Referred),
        Command::Profiles => get(Kind::Profile.path().into(), Shape::Referred),
        Command::Server { server: (pool, server), change } => {
            let path = format!("{}/servers/{}", Kind::Pool.one(pool), segment(server));
            match change {
                None => get(path, Shape::One),
                Some(change) => (server_change(path, change), Shape::Changed),
            }
        }
        Command::Get { kind, name } => get(kind.one(name), Shape::One),
        Command::Put { kind, name, file } => {
            let body = serde_json::from_slice(&read(file.as_deref())?).context("the table is not JSON")?;
            (Question::new(Method::PUT, kind.one(name)).json(&body), Shape::Changed)
        }
        Command::Set { kind, name, keys } => {
            let body = serde_json::from_str(keys).context("the keys are not JSON")?;
            (Question::new(Method::PATCH, kind.one(name)).json(&body), Shape::Changed)
        }
        Command::Delete { kind, name } => (Question::new(Method::DELETE, kind.one(name)), Shape::Changed),
        Command::Configuration => get("/v1/configuration".into(), Shape::Text),
        Command::Apply { file } => {
            let text = read(file.as_deref())?;
            (Question::new(Method::PUT, "/v1/configuration").toml(text), Shape::Changed)
        }
        Command::Reload => post("/v1/configuration/reload".into(), Shape::Changed),
        Command::Save { force } => post(format!("/v1/configuration/save?force={force}"), Shape::Version),
        Command::Explain { service, client, session } => {
            let ticket = match session {
                Some(file) => format!("&ticket={}", hex::encode(inspect::ticket_in(&read(Some(file))?)?)),
                None => String::new(),
            };
            get(format!("/v1/explain?service={}&client={client}{ticket}", segment(service)), Shape::Explained)
        }
        Command::Keys(Keys::List) => get("/v1/ticket_keys".into(), Shape::Keys),
        Command::Keys(Keys::Rotate) => post("/v1/ticket_keys/rotate".into(), Shape::Keys),
        Command::Keys(Keys::Purge { key }) => {
            let purge = Question::new(Method::POST, "/v1/ticket_keys/purge").json(&json!({ "key": key }));
            (purge, Shape::Keys)
        }
        Command::Drain => post("/v1/drain".into(), Shape::Status),
    })
}

fn server_change(path: String, change: &ServerChange) -> Question {
    let patch = |keys: Json| Question::new(Method::PATCH, path.clone()).json(&keys);
    match change {
        ServerChange::Enable => patch(json!({ "state": "enabled" })),
        ServerChange::Disable => patch(json!({ "state": "disabled" })),
        ServerChange::Drain => patch(json!({ "state": "draining" })),
        ServerChange::Ratio { ratio } => patch(json!({ "ratio": ratio })),
        ServerChange::Limit { connections } => patch(json!({ "max_connections": connections })),
        ServerChange::Add { address, ratio, state } => {
            let mut keys = serde_json::Map::from_iter([("address".to_owned(), Json::from(address.as_str()))]);
            keys.extend(ratio.map(|ratio| ("ratio".to_owned(), Json::from(ratio))));
            keys.extend(state.as_deref().map(|state| ("state".to_owned(), Json::from(state))));
            Question::new(Method::PUT, path).json(&Json::Object(keys))
        }
        ServerChange::Remove => Question::new(Method::DELETE, path),
    }
}

/// The socket of the only engine.
fn only_socket(directory: &Path) -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut sockets: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "sock")).collect();
    sockets.sort_unstable();
    match sockets.as_slice() {
        [socket] => Ok(socket.clone()),
        [] => anyhow::bail!("there is no socket in {}: name the engine's with --socket", directory.display()),
        several => {
            let all = several.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
            anyhow::bail!("there are several engines: choose one with --socket from {all}")
        }
    }
}

/// What a file says, or standard input.
fn read(file: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    let most = u64::try_from(FILE_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    match file {
        Some(file) => std::fs::File::open(file)
            .and_then(|opened| opened.take(most).read_to_end(&mut bytes))
            .with_context(|| format!("{} cannot be read", file.display()))?,
        None => std::io::stdin().take(most).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_socket_is_found_and_no_guess_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let found = || only_socket(directory.path());
        assert!(found().unwrap_err().to_string().contains("--socket"));
        std::fs::write(directory.path().join("one.sock"), "").unwrap();
        std::fs::write(directory.path().join("one.pid"), "").unwrap();
        assert_eq!(found().unwrap(), directory.path().join("one.sock"));
        std::fs::write(directory.path().join("two.sock"), "").unwrap();
        assert!(found().unwrap_err().to_string().contains("one.sock, "));
    }

    #[test]
    fn names_are_segments_whatever_they_hold() {
        assert_eq!(Kind::Pool.one("web.1_a-b"), "/v1/pools/web.1_a-b");
        assert_eq!(Kind::Pool.one("a/b?c é"), "/v1/pools/a%2Fb%3Fc%20%C3%A9");
        assert_eq!(server("web/a"), Ok(("web".into(), "a".into())));
        assert!(server("web").is_err());
    }
}
