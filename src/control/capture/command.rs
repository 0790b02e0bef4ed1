//! `sealane capture`: frames of a running engine, into a file or a pipe that tcpdump, tshark and Wireshark read.

use std::collections::BTreeMap;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;

use super::{BYTE_RATE, BYTES, FRAMES, RATE, SECONDS, Side};
use crate::control::api::shapes::CAPTURE_ID;
use crate::control::ctl::client::{Question, Target};
use crate::control::ctl::{EngineArgs, segment, show};
use crate::lane::capture::Filter;
use crate::lane::capture::tap::SNAP_LEN_MAX;
use crate::nic::pcapng::{Block, Reader};

/// `sealane capture …`
#[derive(Clone, Debug, clap::Args)]
pub struct CaptureArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Which frames, in the words of pcap-filter(7), as in 'host 198.18.0.1 and port 443'; all without
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    filter: String,
    /// The file to write; - for standard output, as in: sealane capture -w - | tshark -r -
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    file: PathBuf,
    /// Which side
    #[arg(long, value_enum, default_value = "both")]
    side: Side,
    /// Only these lanes
    #[arg(long = "lane", value_name = "NUMBER", value_delimiter = ',')]
    lanes: Vec<u16>,
    /// Only these ports, by the names in the configuration
    #[arg(long = "port-name", value_name = "NAME", value_delimiter = ',')]
    ports: Vec<String>,
    /// Most frames
    #[arg(long, value_name = "FRAMES", default_value_t = FRAMES)]
    count: u64,
    /// Most bytes of the file, but for its end
    #[arg(long, value_name = "BYTES", default_value_t = BYTES)]
    bytes: u64,
    /// How long
    #[arg(long, value_name = "SECONDS", default_value_t = SECONDS)]
    seconds: u64,
    /// Most frames a second of each lane; what is beyond is left out and counted
    #[arg(long, value_name = "FRAMES", default_value_t = RATE)]
    rate: u32,
    /// Most bytes a second of each lane; likewise
    #[arg(long, value_name = "BYTES", default_value_t = BYTE_RATE)]
    byte_rate: u32,
    /// Most bytes that are kept of a frame
    #[arg(long, value_name = "BYTES", default_value_t = SNAP_LEN_MAX)]
    snaplen: usize,
    /// Put TLS secrets into the file, so that Wireshark decrypts sessions that are established meanwhile; where engine.capture.tls_secrets allows it
    #[arg(long)]
    tls_secrets: bool,
}

impl CaptureArgs {
    fn path(&self) -> String {
        let mut path = format!(
            "/v1/captures?filter={}&side={}&count={}&bytes={}&seconds={}&rate={}&byte_rate={}&snap_len={}&tls_secrets={}",
            segment(&self.filter),
            match self.side {
                Side::Client => "client",
                Side::Server => "server",
                Side::Both => "both",
            },
            self.count,
            self.bytes,
            self.seconds,
            self.rate,
            self.byte_rate,
            self.snaplen,
            self.tls_secrets
        );
        if !self.lanes.is_empty() {
            let lanes = self.lanes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            path.push_str(&format!("&lanes={lanes}"));
        }
        if !self.ports.is_empty() {
            path.push_str(&format!("&ports={}", segment(&self.ports.join(","))));
        }
        path
    }
}

/// Runs the command until the capture ends; Ctrl-C ends it, too.
///
/// # Errors
/// When there is no engine, it refuses, or there is nowhere to write.
pub fn run(arguments: &CaptureArgs) -> anyhow::Result<ExitCode> {
    // Known here already, so that a slip costs no file.
    Filter::parse(&arguments.filter)?;
    let is_standard = arguments.file == Path::new("-");
    if is_standard && io::stdout().is_terminal() {
        anyhow::bail!(
            "standard output is a terminal, which shows no frames; write to a file, or into a pipe: sealane capture -w - | tshark -r -"
        );
    }
    let target = arguments.engine.target()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let summary = runtime.block_on(capture(&target, arguments, is_standard))?;
    eprintln!("{summary}");
    Ok(if summary.is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn capture(target: &Target, arguments: &CaptureArgs, is_standard: bool) -> anyhow::Result<Summary> {
    let response = target.open(Question::new(Method::POST, arguments.path())).await?;
    if !response.status().is_success() {
        let status = response.status();
        let body = response.into_body().collect().await.context("the engine refuses and does not say why")?.to_bytes();
        anyhow::bail!(show::problem(status, &body));
    }
    let id = response.headers().get(CAPTURE_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    // Only now: what was in the file is not lost to a refusal.
    let mut out: Box<dyn Write> = if is_standard { Box::new(io::stdout()) } else { Box::new(create(&arguments.file)?) };
    let mut summary = Summary::default();
    let copied = copy(target, id, response.into_body(), &mut out, &mut summary).await;
    match copied.and_then(|()| Ok(out.flush()?)) {
        // Whoever reads the frames has seen enough.
        Err(error) if is_broken_pipe(&error) => summary.is_whole = true,
        done => done.with_context(|| format!("{} cannot be written", arguments.file.display()))?,
    }
    Ok(summary)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A file that nobody but its owner may read: frames hold what clients say.
fn create(file: &Path) -> anyhow::Result<std::fs::File> {
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
    let made = made.with_context(|| format!("{} cannot be written", file.display()))?;
    // One that was there may have been for others to read.
    if made.metadata()?.is_file() {
        made.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(made)
}

async fn copy(
    target: &Target,
    id: Option<String>,
    mut body: Incoming,
    out: &mut dyn Write,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminations = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut reader = Reader::default();
    let mut is_asked = false;
    loop {
        let heard = tokio::select! {
            frame = body.frame() => Some(frame),
            _ = interrupts.recv() => None,
            _ = terminations.recv() => None,
        };
        let frame = match heard {
            Some(frame) => frame,
            // Asked twice, we go at once.
            None if is_asked => break,
            None => {
                // The engine ends it in order, and says what was left out.
                is_asked = true;
                let id = id.as_deref().unwrap_or_default();
                let ended = target.open(Question::new(Method::DELETE, format!("/v1/captures/{id}"))).await;
                ended.context("the engine does not end the capture")?;
                continue;
            }
        };
        // At its end, or when the engine is gone.
        let Some(Ok(frame)) = frame else { break };
        let Ok(piece) = frame.into_data() else { continue };
        if summary.bytes == 0 {
            eprintln!("capturing; Ctrl-C ends it");
        }
        summary.bytes += piece.len() as u64;
        let read = reader.on_data(&piece, |block| summary.see(block));
        read.context("the engine answers in another form")?;
        out.write_all(&piece)?;
        out.flush()?;
    }
    summary.is_whole = summary.ended.is_some() && reader.is_between_blocks();
    Ok(())
}

/// What is told at the end.
#[derive(Debug, Default)]
struct Summary {
    frames: u64,
    bytes: u64,
    secrets: u64,
    /// By reason.
    left_out: BTreeMap<String, u64>,
    /// Why the engine has ended it.
    ended: Option<String>,
    is_whole: bool,
}

impl Summary {
    fn see(&mut self, block: Block) {
        match block {
            Block::Packet => self.frames += 1,
            Block::Secrets => self.secrets += 1,
            Block::Statistics(comment) => {
                for (key, value) in comment.split(' ').filter_map(|part| part.split_once('=')) {
                    if key == "ended" {
                        self.ended = Some(value.to_owned());
                    } else if let (Some(reason), Ok(count)) = (key.strip_prefix("left_out_"), value.parse::<u64>()) {
                        *self.left_out.entry(reason.replace('_', " ")).or_default() += count;
                    }
                }
            }
            Block::Other => {}
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { frames, bytes, .. } = self;
        write!(f, "{frames} frames, {bytes} bytes")?;
        if self.secrets > 0 {
            f.write_str(", with TLS secrets")?;
        }
        let why = match self.ended.as_deref() {
            Some("asked") => "it was ended",
            Some("seconds") => "its time was up",
            Some("count") => "it has as many frames as it may",
            Some("bytes") => "it has as many bytes as it may",
            Some(_) | None => "the engine or its reader went away: the file has no end",
        };
        write!(f, "; {why}; left out: ")?;
        let mut is_first = true;
        for (reason, count) in self.left_out.iter().filter(|(_, count)| **count > 0) {
            write!(f, "{}{count} by {reason}", if is_first { "" } else { ", " })?;
            is_first = false;
        }
        if is_first { f.write_str(if self.ended.is_some() { "none" } else { "unknown" }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_told_by_reason_over_all_ports() {
        let mut summary = Summary { frames: 3, bytes: 400, ..Summary::default() };
        assert!(summary.to_string().ends_with("left out: unknown"), "{summary}");
        for rate in [2, 5] {
            summary.see(Block::Statistics(format!(
                "ended=count left_out_slow=0 left_out_rate={rate} left_out_byte_rate=1"
            )));
        }
        let told = "3 frames, 400 bytes; it has as many frames as it may; left out: 2 by byte rate, 7 by rate";
        assert_eq!(summary.to_string(), told);
    }

    #[test]
    fn a_capture_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("frames");
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        for path in [&file, &directory.path().join("fresh")] {
            let made = create(path).unwrap().metadata().unwrap();
            assert_eq!((made.permissions().mode() & 0o7777, made.len()), (0o600, 0));
        }
    }
}
