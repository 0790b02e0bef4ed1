//! `sealane trace`: shows what connections of an engine have just done, as lines or as a capture file.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context;

use crate::base::{Duration, Flow, Instant};
use crate::nic::pcap;
use crate::tcp::trace::{DOCUMENT_MAX, Document, Record, Show};

/// How long an engine may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// `sealane trace …`
#[derive(Clone, Debug, clap::Args)]
pub struct TraceArgs {
    /// Ask a running engine: its engine.admin
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9900")]
    pub from: String,
    /// Read a file: engine.trace.file of an engine that has ended, or what /trace has answered
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub file: Option<PathBuf>,
    /// Only connections with this end, ours or the peer's; twice for both ends
    #[arg(long = "flow", value_name = "ADDRESS[:PORT]")]
    pub ends: Vec<End>,
    /// Only this lane
    #[arg(long, value_name = "NUMBER")]
    pub lane: Option<u16>,
    /// Write the segments' headers to a capture file for tcpdump and Wireshark instead of printing lines
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
}

/// One end of a connection, or all ends at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    ip: IpAddr,
    port: Option<u16>,
}

impl FromStr for End {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = |address: SocketAddr| Self { ip: address.ip(), port: Some(address.port()) };
        let ip = |ip| Self { ip, port: None };
        let wrong = "write an address, or an address and a port such as 198.18.0.1:40000 or [2001:db8::1]:40000";
        text.parse().map(address).or_else(|_| text.parse().map(ip)).map_err(|_| wrong)
    }
}

impl End {
    fn is_of(self, flow: &Flow) -> bool {
        let is = |address: SocketAddr| address.ip() == self.ip && self.port.is_none_or(|port| port == address.port());
        is(flow.local()) || is(flow.remote())
    }
}

/// Runs the command: prints lines to standard output, or writes the capture file.
///
/// # Errors
/// When there is no trace to be had, or nowhere to put it.
pub fn run(arguments: &TraceArgs) -> anyhow::Result<ExitCode> {
    let bytes = match &arguments.file {
        Some(file) => read(file).with_context(|| format!("{} cannot be read", file.display()))?,
        None => fetch(&arguments.from)?,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    match execute(arguments, &bytes, &mut out, &mut io::stderr().lock()).and_then(|()| Ok(out.flush()?)) {
        // Whoever reads the lines has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done.map(|()| ExitCode::SUCCESS),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed shows that there is more.
    File::open(file)?.take(DOCUMENT_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > DOCUMENT_MAX {
        return Err(io::Error::other(format!("it is longer than {DOCUMENT_MAX} bytes")));
    }
    Ok(bytes)
}

fn fetch(from: &str) -> anyhow::Result<Vec<u8>> {
    let base = if from.contains("://") { from.trim_end_matches('/').to_owned() } else { format!("http://{from}") };
    let url = format!("{base}/trace");
    // An admin address is nobody's to fetch for us, whatever proxy the environment names.
    let agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER_MAX)).proxy(None).build().new_agent();
    let ask = || agent.get(&url).call()?.body_mut().with_config().limit(DOCUMENT_MAX as u64).read_to_vec();
    ask().with_context(|| format!("{url} gives no trace; name the engine's engine.admin with --from"))
}

/// Shows the document in `bytes`; tells what is missing from it on `told`.
fn execute(arguments: &TraceArgs, bytes: &[u8], out: &mut dyn Write, told: &mut dyn Write) -> anyhow::Result<()> {
    let document = Document::parse(bytes)?;
    for lane in &document.lanes {
        let (kept, written) = (lane.reading.records.len(), lane.reading.written);
        if written > kept as u64 {
            writeln!(told, "lane {}: the last {kept} of {written} records", lane.lane)?;
        }
    }
    let records = chosen(arguments, &document);
    if records.is_empty() {
        writeln!(told, "no records")?;
    }
    match &arguments.pcap {
        None => print(&document, &records, out),
        Some(file) => {
            let unwritable = || format!("{} cannot be written", file.display());
            capture(&document, &records, File::create(file).with_context(unwritable)?).with_context(unwritable)
        }
    }
}

/// The records that were asked for, in the order of time, each with the place of its lane in the document.
fn chosen<'a>(arguments: &TraceArgs, document: &'a Document) -> Vec<(usize, &'a Record)> {
    let is_chosen = |record: &Record| arguments.ends.iter().all(|end| end.is_of(&record.flow));
    let mut chosen: Vec<_> = document
        .lanes
        .iter()
        .enumerate()
        .filter(|(_, lane)| arguments.lane.is_none_or(|wanted| wanted == lane.lane))
        .flat_map(|(at, lane)| lane.reading.records.iter().map(move |record| (at, record)))
        .filter(|(_, record)| is_chosen(record))
        .collect();
    // All lanes of an engine share one clock. Stable: a lane's own order stays.
    chosen.sort_by_key(|(_, record)| record.at);
    chosen
}

fn print(document: &Document, records: &[(usize, &Record)], out: &mut dyn Write) -> anyhow::Result<()> {
    let mut shows: Vec<_> = document.lanes.iter().map(|lane| Show::new(document.epoch, lane.lane)).collect();
    for (lane, record) in records {
        if let Some(show) = shows.get_mut(*lane) {
            writeln!(out, "{}", show.line(record))?;
        }
    }
    Ok(())
}

fn capture(document: &Document, records: &[(usize, &Record)], file: impl Write) -> anyhow::Result<()> {
    let mut capture = pcap::Writer::of_packets(BufWriter::new(file))?;
    for (_, record) in records {
        if let Some(headers) = record.headers() {
            let at = Instant::from_nanos(document.epoch.saturating_add(record.at.as_nanos()));
            capture.write_part(at, &headers.bytes, headers.original)?;
        }
    }
    capture.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use std::sync::Arc;

    use crate::base::Random;
    use crate::tcp::trace::{LaneTrace, Settings, Trace};
    use crate::tcp::{Stack, Token};

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: TraceArgs,
    }

    fn arguments(line: &str) -> Result<TraceArgs, clap::Error> {
        Line::try_parse_from(format!("trace {line}").split_whitespace()).map(|line| line.arguments)
    }

    /// A lane that keeps `records`, connects from each of these ports at a time in milliseconds, and looks at its timers `last`.
    fn lane(lane: u16, records: usize, ports: &[(u16, u64)], last: u64) -> LaneTrace {
        let trace = Arc::new(Trace::new(Settings { one_in: 1, records }, 0));
        let mut stack = Stack::new(crate::tcp::Settings::default(), Random::from_seed(1), Arc::default());
        stack.trace_into(Arc::clone(&trace));
        let at = |millis| Instant::START + Duration::from_millis(millis);
        for (port, millis) in ports {
            let flow = Flow::new(([198, 18, 0, 2], *port).into(), "198.18.0.10:443".parse().unwrap());
            stack.connect(flow, Token(0), at(*millis)).unwrap();
            stack.poll_transmit(&mut [0; 1500], false, at(*millis)).unwrap();
        }
        stack.on_timeout(at(last));
        while stack.poll_transmit(&mut [0; 1500], false, at(last)).is_some() {}
        LaneTrace { lane, reading: trace.read(usize::MAX) }
    }

    /// Two lanes. A SYN of lane 0 has been sent again, behind a timeout; lane 1 has forgotten the first of its three.
    fn document() -> Vec<u8> {
        let first = lane(0, 8, &[(40_000, 1)], 1100);
        let second = lane(1, 2, &[(40_001, 2), (40_002, 502), (40_003, 503)], 503);
        Document { epoch: 1_000_000_000_000_000_000, lanes: vec![first, second] }.encode()
    }

    fn shown(line: &str) -> (Vec<String>, String) {
        let (mut out, mut told) = (Vec::new(), Vec::new());
        execute(&arguments(line).unwrap(), &document(), &mut out, &mut told).unwrap();
        let lines = String::from_utf8(out).unwrap().lines().map(str::to_owned).collect();
        (lines, String::from_utf8(told).unwrap())
    }

    #[test]
    fn lines_of_all_lanes_are_in_the_order_of_time_and_what_is_missing_is_told() {
        let (lines, told) = shown("");
        let place = |line: &String| {
            let words: Vec<_> = line.split(' ').collect();
            (words[3].to_owned(), words[4].trim_start_matches("198.18.0.2:").to_owned(), words[6].to_owned())
        };
        let places: Vec<_> = lines.iter().map(place).collect();
        let expected = [
            ("0", "40000", ">"),
            ("1", "40002", ">"),
            ("1", "40003", ">"),
            ("0", "40000", "timeout"),
            ("0", "40000", ">"),
        ];
        assert_eq!(places, expected.map(|(lane, port, what)| (lane.to_owned(), port.to_owned(), what.to_owned())));
        let start =
            "2001-09-09T01:46:40.001000Z +0.000000 lane 0 198.18.0.2:40000 198.18.0.10:443 > S 0:0(0) win 65535 <";
        assert!(lines[0].starts_with(start), "{}", lines[0]);
        assert_eq!(told, "lane 1: the last 2 of 3 records\n");
    }

    #[test]
    fn a_connection_or_a_lane_is_shown_alone() {
        assert_eq!(shown("--flow 198.18.0.2:40000").0.len(), 3);
        assert_eq!(shown("--flow 198.18.0.2").0.len(), 5);
        assert_eq!(shown("--flow 198.18.0.10:443 --flow 198.18.0.2:40002").0.len(), 1);
        assert_eq!(shown("--lane 1").0.len(), 2);
        assert!(shown("--flow 198.18.0.2:1").1.ends_with("\nno records\n"));
        let wrong = arguments("--flow nobody").unwrap_err().to_string();
        assert!(wrong.contains("write an address"), "{wrong}");
        assert!(arguments("--flow [2001:db8::1]:443").is_ok());
        assert!(arguments("--from 127.0.0.1:1 --file x").is_err());
    }

    #[test]
    fn a_capture_has_every_segment_with_its_time_and_no_event() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("out.pcap");
        let (lines, _) = shown(&format!("--pcap {}", file.display()));
        assert!(lines.is_empty());
        let bytes = std::fs::read(file).unwrap();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        // IPv4 and TCP headers, and the options of a SYN.
        let packet = 16 + 60;
        assert_eq!(bytes.len(), 24 + 4 * packet);
        // Seconds, nanoseconds, captured, original.
        assert_eq!([24, 28, 32, 36].map(word), [1_000_000_000, 1_000_000, 60, 60]);
        assert_eq!(word(24 + packet + 4), 502_000_000);
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        let told = execute(&arguments("").unwrap(), b"HTTP", &mut Vec::new(), &mut Vec::new()).unwrap_err();
        assert_eq!(told.to_string(), "this is no trace of sealane, or one of another version");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("long");
        File::create(&file).unwrap().set_len(DOCUMENT_MAX as u64 + 1).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("longer than"));
    }
}
