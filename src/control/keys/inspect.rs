//! `sealane ticket inspect`: opens a ticket offline and says what it holds, secrets excepted, and what each engine would do with it.
//!
//! A ticket comes as what `openssl s_client -sess_out` wrote (PEM or DER of OpenSSL's `SSL_SESSION`, whose field 10 is the ticket), or bare: raw bytes,
//! hexadecimal or base64.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use x509_parser::asn1_rs::{Any, Class, FromDer, OctetString, Tag};
use x509_parser::pem::Pem;
use zeroize::Zeroizing;

use super::file;
use crate::base::{EngineId, PoolId, ServerId, UnixTime};
use crate::control::config::Configuration;
use crate::control::{explain, publish};
use crate::ticket::ring::State;
use crate::ticket::{Envelope, KeyId, Refusal, Ring, Scope, TICKET_MAX, TlsVersion, open, seal};

/// What OpenSSL writes above a session.
const PEM_LABEL: &str = "SSL SESSION PARAMETERS";

/// Longest input that is read: a session with a certificate chain and a ticket, in hexadecimal, many times over.
const INPUT_MAX: u64 = 1 << 20;

/// `sealane ticket …`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum TicketCommand {
    /// Open a ticket offline: header, times, mapping
    Inspect(InspectArgs),
}

/// What `sealane ticket inspect` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArgs {
    /// The ticket key file
    #[arg(long)]
    pub keys: PathBuf,
    /// The configuration of an engine: it says where the ticket is valid, and what this engine would do with it now. As often as there are engines
    #[arg(long, required = true)]
    pub config: Vec<PathBuf>,
    /// What `openssl s_client -sess_out` wrote, or a bare ticket; standard input if not given
    #[arg(long)]
    pub session: Option<PathBuf>,
    /// Show the TLS session too: with it, the connection that it is of can be read
    #[arg(long)]
    pub show_secrets: bool,
}

/// The names behind the ids that a ticket carries.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Engines.
    pub engines: BTreeMap<EngineId, String>,
    /// Pools.
    pub pools: BTreeMap<PoolId, String>,
    /// Servers.
    pub servers: BTreeMap<ServerId, String>,
}

/// Runs the command for engines of these configurations. Exit code 1 when the ticket opens for none of them.
///
/// # Errors
/// When the keys or the session cannot be read.
pub fn run(args: &InspectArgs, configurations: &[Configuration]) -> anyhow::Result<ExitCode> {
    #[expect(clippy::disallowed_methods, reason = "a command reads the clock where it starts")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let ring = file::read(&args.keys)?;
    let input = read_input(args.session.as_deref())?;
    let ticket = ticket_in(&input)?;
    let mut names = Names::default();
    configurations.iter().for_each(|configuration| names.extend(publish::names(configuration)));
    let inspected = |configuration| inspect(&ring, &publish::scopes(configuration), &ticket);
    let inspections: Vec<_> =
        configurations.iter().map(|configuration| (configuration, inspected(configuration))).collect();
    let opened = inspections.iter().find(|(_, inspection)| inspection.outcome.is_ok());
    let mut out = std::io::stdout().lock();
    if let Some((_, inspection)) = opened.or(inspections.first()) {
        write!(out, "{}", inspection.shown(&ring, &names, args.show_secrets))?;
    }
    for (configuration, inspection) in &inspections {
        let ticket = inspection.outcome.as_ref().ok().map(|(service, envelope)| (service.as_str(), envelope));
        let reported = ticket.and_then(|_| explain::ask(configuration));
        writeln!(out, "{}", explain::explain(configuration, ticket, reported.as_deref(), UnixTime(now.as_secs()))?)?;
    }
    Ok(if opened.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Names {
    fn extend(&mut self, more: Self) {
        self.engines.extend(more.engines);
        self.pools.extend(more.pools);
        self.servers.extend(more.servers);
    }
}

fn read_input(path: Option<&Path>) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut input = Zeroizing::new(Vec::new());
    match path {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(INPUT_MAX).read_to_end(&mut input))
            .with_context(|| format!("{}: the session cannot be read", path.display()))?,
        None => std::io::stdin().lock().take(INPUT_MAX).read_to_end(&mut input).context("standard input")?,
    };
    Ok(input)
}

/// Why there is no ticket in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTicket {
    /// Nothing to look at.
    #[error("the input is empty; give what `openssl s_client -sess_out FILE` wrote")]
    Empty,
    /// PEM of something else, or not what OpenSSL writes.
    #[error("this is PEM but no session; give what `openssl s_client -sess_out FILE` wrote")]
    NotASession,
    /// A session that the server gave no ticket for.
    #[error(
        "the session has no ticket: the server sent none, or the client left before it came (with TLS 1.3 it comes after the handshake)"
    )]
    SessionWithoutTicket,
    /// Neither a session, nor hexadecimal, nor base64, nor a ticket's own bytes.
    #[error("this is neither a session nor a ticket in raw bytes, hexadecimal or base64")]
    Unknown,
}

/// The ticket's bytes in what the user gave.
///
/// # Errors
/// [`NoTicket`] says why there is none.
pub fn ticket_in(input: &[u8]) -> Result<Vec<u8>, NoTicket> {
    if input.trim_ascii().is_empty() {
        return Err(NoTicket::Empty);
    }
    // The bytes of a session or a ticket may be any, those of a PEM header included: text comes last.
    if let Some(found) = ticket_of_session(input) {
        return found;
    }
    if seal::key_id(input).is_ok() {
        return Ok(input.to_vec());
    }
    if input.windows(11).any(|window| window == b"-----BEGIN ") {
        let block = Pem::iter_from_buffer(input).flatten().find(|block| block.label == PEM_LABEL);
        let contents = Zeroizing::new(block.ok_or(NoTicket::NotASession)?.contents);
        return ticket_of_session(&contents).ok_or(NoTicket::NotASession)?;
    }
    let text: Vec<u8> = input.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let decoded = hex::decode(&text).ok();
    decoded.or_else(|| data_encoding::BASE64.decode(&text).ok()).ok_or(NoTicket::Unknown)
}

/// The ticket in the DER of an `SSL_SESSION`; `None` if it is none.
fn ticket_of_session(der: &[u8]) -> Option<Result<Vec<u8>, NoTicket>> {
    let (_, session) = Any::from_der(der).ok()?;
    if session.tag() != Tag::Sequence {
        return None;
    }
    let mut rest = session.data;
    let mut fields = 0;
    while !rest.is_empty() {
        let (after, field) = Any::from_der(rest).ok()?;
        // SSL_SESSION_ASN1 in OpenSSL: version, TLS version, cipher, session id and master key, then tagged fields.
        let expected = [Tag::Integer, Tag::Integer, Tag::OctetString, Tag::OctetString, Tag::OctetString];
        match expected.get(fields) {
            Some(tag) if field.class() != Class::Universal || field.tag() != *tag => return None,
            Some(_) => {}
            None if field.class() == Class::ContextSpecific && field.tag() == Tag(10) => {
                let (_, ticket) = OctetString::from_der(field.data).ok()?;
                return Some(Ok(ticket.as_ref().to_vec()));
            }
            None => {}
        }
        rest = after;
        fields += 1;
    }
    (fields >= 5).then_some(Err(NoTicket::SessionWithoutTicket))
}

/// What a ticket came to.
#[derive(Debug)]
pub struct Inspection {
    /// Bytes.
    pub size: usize,
    /// The key that it names, if it is a ticket at all.
    pub key_id: Result<KeyId, Refusal>,
    /// The virtual service for which it is valid, and what it says there.
    pub outcome: Result<(String, Envelope), Refusal>,
}

/// Opens a ticket under the first of these scopes for which it is valid.
pub fn inspect(ring: &Ring, scopes: &[(String, Scope)], ticket: &[u8]) -> Inspection {
    let mut outcome = Err(Refusal::Forged);
    for (service, scope) in scopes {
        outcome = open(&ring.for_service(scope), ticket).map(|(envelope, _)| (service.clone(), envelope));
        if outcome.is_ok() || outcome == Err(Refusal::Envelope) {
            break;
        }
    }
    Inspection { size: ticket.len(), key_id: seal::key_id(ticket), outcome }
}

impl Inspection {
    /// For a terminal, a fact a line.
    pub fn shown<'a>(&'a self, ring: &'a Ring, names: &'a Names, secrets: bool) -> impl fmt::Display + 'a {
        Shown { inspection: self, ring, names, secrets }
    }
}

struct Shown<'a> {
    inspection: &'a Inspection,
    ring: &'a Ring,
    names: &'a Names,
    secrets: bool,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inspection, ring, names, secrets } = self;
        writeln!(f, "ticket           {} bytes", inspection.size)?;
        if let Ok(id) = inspection.key_id {
            let state = match ring.find(id).map(|entry| (entry.state, entry.activated)) {
                None => "not in the key file".into(),
                Some((State::Pending, _)) => "pending".into(),
                Some((state, since)) => {
                    format!("{}, sealing since {}", file::state_name(state), file::date(since.unwrap_or_default()))
                }
            };
            writeln!(f, "key              {id}, {state}")?;
        }
        let (service, envelope) = match &inspection.outcome {
            Ok(opened) => opened,
            Err(refusal) => return writeln!(f, "refused          {}", explained(*refusal)),
        };
        let version = match envelope.version {
            TlsVersion::Tls12 => "1.2",
            TlsVersion::Tls13 => "1.3",
        };
        writeln!(f, "virtual service  {service}")?;
        writeln!(f, "TLS version      {version}")?;
        writeln!(f, "full handshake   {}", file::date(envelope.original_handshake))?;
        write!(f, "issued           {} by ", file::date(envelope.issued))?;
        named(f, "engine", names.engines.get(&envelope.issuer), envelope.issuer.0)?;
        write!(f, "\nmapping          ")?;
        match &envelope.mapping {
            None => f.write_str("none")?,
            Some(mapping) => {
                named(f, "pool", names.pools.get(&mapping.pool), mapping.pool.0)?;
                f.write_str(", ")?;
                named(f, "server", names.servers.get(&mapping.server), mapping.server.0)?;
                write!(f, ", generation {}, assigned {}", mapping.generation.0, file::date(mapping.assigned))?;
            }
        }
        if let Some(client) = &envelope.client {
            let count = client.certificates.len();
            write!(
                f,
                "\nclient           has shown {count} certificates, valid until {}",
                file::date(client.not_after)
            )?;
        }
        write!(f, "\nTLS session      {} bytes, secret", envelope.session.len())?;
        if *secrets {
            write!(f, ": {}", *Zeroizing::new(hex::encode(&*envelope.session)))?;
        }
        writeln!(f)
    }
}

fn named(f: &mut fmt::Formatter<'_>, what: &str, name: Option<&String>, id: u64) -> fmt::Result {
    match name {
        Some(name) => write!(f, "{what} {name}"),
        None => write!(f, "{what} {id:016x} (not in the configuration)"),
    }
}

fn explained(refusal: Refusal) -> String {
    match refusal {
        Refusal::Length => format!("no ticket is as short as this, or longer than {TICKET_MAX} bytes"),
        Refusal::Version => "it has no seal version that this program reads: not our ticket, or a newer program's".into(),
        Refusal::UnknownKey => "the key file does not have its key: another cluster's, or rotated away".into(),
        Refusal::Forged => {
            "it is not valid for any virtual service of this configuration: altered, of another service or cluster, or from before a change of TLS policy"
                .into()
        }
        Refusal::Envelope => "it opens, but a newer program wrote what is inside".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::base::{Random, ServiceId, UnixTime};
    use crate::ticket::envelope::tests::sample;

    const SCOPE: Scope = Scope { cluster: [1; 32], service: ServiceId(2), policy: [3; 32] };

    fn ring() -> Ring {
        Ring::generate(UnixTime(1_700_000_000), &mut Random::from_seed(1))
    }

    fn ticket() -> Vec<u8> {
        seal(&ring().for_service(&SCOPE), &sample(145), &mut Random::from_seed(2)).unwrap()
    }

    fn scopes() -> Vec<(String, Scope)> {
        vec![("shop".into(), Scope { service: ServiceId(1), ..SCOPE }), ("www".into(), SCOPE)]
    }

    fn names() -> Names {
        Names {
            engines: [(EngineId(4), "se-1".into())].into(),
            pools: [(PoolId(1), "web".into())].into(),
            servers: [(ServerId(2), "s2".into())].into(),
        }
    }

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        let length: &[u8] = match content.len() {
            0..128 => &[low],
            128..256 => &[0x81, low],
            _ => &[0x82, high, low],
        };
        [&[tag], length, content].concat()
    }

    /// OpenSSL's `SSL_SESSION` for TLS 1.3, with or without a ticket.
    fn session(ticket: Option<&[u8]>) -> Vec<u8> {
        let mut fields = vec![
            der(2, &[1]),
            der(2, &[3, 4]),
            der(4, &[0x13, 1]),
            der(4, &[7; 32]),
            der(4, &[8; 32]),
            der(0xa1, &der(2, &[0x65, 0x53, 0xf1, 0])),
            der(0xa2, &der(2, &[0x1c, 0x20])),
            der(0xa4, &der(4, &[])),
        ];
        fields.extend(ticket.map(|ticket| der(0xaa, &der(4, ticket))));
        der(0x30, &fields.concat())
    }

    fn pem(der: &[u8]) -> String {
        let base64 = data_encoding::BASE64.encode(der);
        let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {PEM_LABEL}-----\n{}\n-----END {PEM_LABEL}-----\n", lines.join("\n"))
    }

    #[test]
    fn a_ticket_that_holds_a_pem_header_by_chance_is_found_all_the_same() {
        let mut ticket = ticket();
        ticket[40..51].copy_from_slice(b"-----BEGIN ");
        assert_eq!(ticket_in(&ticket).as_ref(), Ok(&ticket));
        let session = session(Some(&ticket));
        assert_eq!(ticket_in(&session).as_ref(), Ok(&ticket));
        assert_eq!(ticket_in(pem(&session).as_bytes()).as_ref(), Ok(&ticket));
    }

    #[test]
    fn a_ticket_is_found_in_every_form() {
        let ticket = ticket();
        let session = session(Some(&ticket));
        let hexadecimal = hex::encode(&ticket);
        let base64 = data_encoding::BASE64.encode(&ticket);
        let forms: [Vec<u8>; 6] = [
            pem(&session).into(),
            format!("some text before\n{}", pem(&session)).into(),
            session,
            ticket.clone(),
            format!("{}\n{}\n", &hexadecimal[..100], &hexadecimal[100..]).into(),
            format!("{base64}\n").into(),
        ];
        for form in forms {
            assert_eq!(ticket_in(&form).as_ref(), Ok(&ticket));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>, at in 0..400_usize, byte: u8) {
            let _ = ticket_in(&bytes);
            let mut altered = session(Some(&ticket()));
            altered.iter_mut().skip(at).take(1).for_each(|there| *there = byte);
            let _ = ticket_in(&altered).map(|ticket| inspect(&ring(), &scopes(), &ticket));
        }
    }

    #[test]
    fn what_holds_no_ticket_is_explained() {
        assert_eq!(ticket_in(b" \n"), Err(NoTicket::Empty));
        assert_eq!(ticket_in(b"what is this?"), Err(NoTicket::Unknown));
        assert_eq!(ticket_in(pem(&session(None)).as_bytes()), Err(NoTicket::SessionWithoutTicket));
        let certificate = pem(&session(None)).replace(PEM_LABEL, "CERTIFICATE");
        assert_eq!(ticket_in(certificate.as_bytes()), Err(NoTicket::NotASession));
        assert_eq!(ticket_in(pem(b"0").as_bytes()), Err(NoTicket::NotASession));
    }

    #[test]
    fn a_session_that_openssl_wrote_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let [ours, theirs] = ["ours.pem", "theirs.pem"].map(|name| directory.path().join(name));
        std::fs::write(&ours, pem(&session(Some(&ticket())))).unwrap();
        // OpenSSL reads the session and writes it anew with its own encoder, as `s_client -sess_out` does.
        let mut openssl = Command::new("openssl");
        openssl
            .args(["sess_id", "-in"])
            .arg(&ours)
            .arg("-out")
            .arg(&theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match openssl.status() {
            Ok(status) => assert!(status.success(), "openssl refused the session"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => panic!("{error}"),
        }
        assert_eq!(ticket_in(&std::fs::read(&theirs).unwrap()), Ok(ticket()));
    }

    #[test]
    fn an_open_ticket_shows_its_facts_and_no_secret() {
        let ring = ring();
        let inspection = inspect(&ring, &scopes(), &ticket());
        let shown = inspection.shown(&ring, &names(), false).to_string();
        let id = ring.active().unwrap().key.id();
        let expected = format!(
            "ticket           305 bytes\n\
             key              {id}, active, sealing since 2023-11-14T22:13:20Z\n\
             virtual service  www\n\
             TLS version      1.3\n\
             full handshake   2023-11-14T22:13:21Z\n\
             issued           2023-11-14T22:13:22Z by engine se-1\n\
             mapping          pool web, server s2, generation 3, assigned 2023-11-14T22:13:20Z\n\
             TLS session      145 bytes, secret\n"
        );
        assert_eq!(shown, expected);
        let session = hex::encode(&*inspection.outcome.as_ref().unwrap().1.session);
        assert!(inspection.shown(&ring, &names(), true).to_string().contains(&session), "only when it is asked for");
        let unnamed = inspection.shown(&ring, &Names::default(), false).to_string();
        assert!(unnamed.contains("server 0000000000000002 (not in the configuration)"), "{unnamed}");
    }

    #[test]
    fn a_ticket_of_a_client_with_certificates_says_until_when_they_are_valid() {
        let id = crate::ticket::CertificateId::new(b"issuer", &[1]);
        let client = crate::ticket::Credential {
            not_after: UnixTime(1_700_000_000),
            certificates: [id, id].into_iter().collect(),
        };
        let envelope = Envelope { client: Some(client), ..sample(145) };
        let ticket = seal(&ring().for_service(&SCOPE), &envelope, &mut Random::from_seed(2)).unwrap();
        let shown = inspect(&ring(), &scopes(), &ticket).shown(&ring(), &names(), false).to_string();
        assert!(
            shown.contains("\nclient           has shown 2 certificates, valid until 2023-11-14T22:13:20Z\n"),
            "{shown}"
        );
    }

    #[test]
    fn a_refused_ticket_shows_its_header_and_why() {
        let ring = ring();
        let shown = |ring: &Ring, scopes: &[_], ticket: &[u8]| {
            let inspection = inspect(ring, scopes, ticket);
            assert!(inspection.outcome.is_err());
            inspection.shown(ring, &names(), false).to_string()
        };
        let forged = shown(&ring, &scopes()[..1], &ticket());
        assert!(forged.contains("active") && forged.contains("not valid for any virtual service"), "{forged}");
        assert!(shown(&ring, &[], &ticket()).contains("not valid for any"));
        let other = Ring::generate(UnixTime(0), &mut Random::from_seed(5));
        assert!(shown(&other, &scopes(), &ticket()).contains("not in the key file"));
        assert!(shown(&ring, &scopes(), b"short").contains("no ticket is as short"));
        assert!(shown(&ring, &scopes(), &[9; 300]).contains("no seal version"));
    }
}
