//! The connection log: one line for each connection that ended, with the names of what it met and why it went where it went.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;

use serde::Serialize;

use crate::base::{Duration, EngineId, Instant, PoolId, ServerId, ServiceId, UnixTime};
use crate::control::config::{Configuration, Log, LogFormat, LogTo};
use crate::control::syslog::Syslog;
use crate::lane::Record;
use crate::ticket::TlsVersion;

/// Most names remembered of things that a reload removed. Beyond it the removed ones appear by number.
const NAMES_MAX: usize = 65_536;

/// Names of services, pools and servers by their identity, removed ones included: connections outlive configurations, and mappings outlive both.
#[derive(Debug, Default)]
pub struct Names {
    engines: HashMap<EngineId, String>,
    services: HashMap<ServiceId, String>,
    pools: HashMap<PoolId, String>,
    servers: HashMap<ServerId, String>,
}

impl Names {
    /// Learns the names of a configuration.
    pub fn learn(&mut self, configuration: &Configuration) {
        if self.services.len().saturating_add(self.pools.len()).saturating_add(self.servers.len()) > NAMES_MAX {
            *self = Self::default();
        }
        self.engines.insert(configuration.engine.id, configuration.engine.name.clone());
        self.services.extend(configuration.services.iter().map(|service| (service.id, service.name.clone())));
        for pool in &configuration.pools {
            self.pools.insert(pool.id, pool.name.clone());
            self.servers
                .extend(pool.servers.iter().map(|server| (server.id, format!("{}/{}", pool.name, server.name))));
        }
    }

    /// An engine; only this one has a name here.
    fn engine(&self, id: EngineId) -> String {
        self.engines.get(&id).cloned().unwrap_or_else(|| format!("{:016x}", id.0))
    }

    fn service(&self, id: ServiceId) -> String {
        self.services.get(&id).cloned().unwrap_or_else(|| format!("{:016x}", id.0))
    }

    fn pool(&self, id: PoolId) -> String {
        self.pools.get(&id).cloned().unwrap_or_else(|| format!("{:016x}", id.0))
    }

    /// A server as `pool/server`.
    fn server(&self, id: ServerId) -> String {
        self.servers.get(&id).cloned().unwrap_or_else(|| format!("{:016x}", id.0))
    }
}

/// A record with its names, as JSON has it. What is not known is null.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: String,
    lane: u16,
    client: SocketAddr,
    local: SocketAddr,
    service: String,
    pool: Option<String>,
    sni: Option<&'a str>,
    client_certificate: Option<&'a str>,
    version: Option<&'static str>,
    cipher: Option<&'static str>,
    client_rtt_ms: Option<f64>,
    handshake_ms: Option<f64>,
    connect_ms: Option<f64>,
    first_byte_ms: Option<f64>,
    duration_ms: f64,
    bytes_received: u64,
    bytes_sent: u64,
    persistence: Persistence,
    end: &'static str,
    ended_by: &'static str,
}

#[derive(Debug, Serialize)]
struct Persistence {
    wanted: Option<String>,
    chosen: Option<String>,
    reason: Option<&'static str>,
    key_id: Option<String>,
    issuer: Option<String>,
    resumed: Option<bool>,
}

impl<'a> Line<'a> {
    fn new(record: &'a Record, names: &Names) -> Self {
        Self {
            time: rfc3339(record.began),
            lane: record.lane.0,
            client: record.client,
            local: record.local,
            service: names.service(record.service),
            pool: record.chosen.map(|(pool, _)| names.pool(pool)),
            sni: record.server_name.as_deref(),
            client_certificate: record.client_subject.as_deref(),
            version: record.version.map(|version| match version {
                TlsVersion::Tls12 => "1.2",
                TlsVersion::Tls13 => "1.3",
            }),
            cipher: record.cipher,
            client_rtt_ms: record.times.client_rtt.map(milliseconds),
            handshake_ms: record.times.handshake.map(milliseconds),
            connect_ms: record.times.connect.map(milliseconds),
            first_byte_ms: record.times.first_byte.map(milliseconds),
            duration_ms: milliseconds(record.lasted),
            bytes_received: record.received,
            bytes_sent: record.sent,
            persistence: Persistence {
                wanted: record.wanted.map(|server| names.server(server)),
                chosen: record.chosen.map(|(_, server)| names.server(server)),
                reason: record.reason.map(crate::persistence::Reason::name),
                key_id: record.key_id.map(|id| hex::encode(id.0)),
                issuer: record.issuer.map(|engine| names.engine(engine)),
                resumed: record.resumed,
            },
            end: record.end.name(),
            ended_by: record.end.doer().name(),
        }
    }

    /// `key=value` pairs. What is not known is left out.
    fn text(&self) -> String {
        let mut text = self.time.clone();
        let mut pair = |key: &str, value: Option<String>| {
            let Some(value) = value else { return };
            let is_plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '=');
            // Writing to a string does not fail.
            let _ = if is_plain { write!(text, " {key}={value}") } else { write!(text, " {key}={value:?}") };
        };
        pair("lane", Some(self.lane.to_string()));
        pair("client", Some(self.client.to_string()));
        pair("local", Some(self.local.to_string()));
        pair("service", Some(self.service.clone()));
        pair("pool", self.pool.clone());
        pair("sni", self.sni.map(str::to_owned));
        pair("client_certificate", self.client_certificate.map(str::to_owned));
        pair("version", self.version.map(str::to_owned));
        pair("cipher", self.cipher.map(str::to_owned));
        for (key, time) in [
            ("client_rtt_ms", self.client_rtt_ms),
            ("handshake_ms", self.handshake_ms),
            ("connect_ms", self.connect_ms),
            ("first_byte_ms", self.first_byte_ms),
        ] {
            pair(key, time.map(|time| time.to_string()));
        }
        pair("duration_ms", Some(self.duration_ms.to_string()));
        pair("bytes_received", Some(self.bytes_received.to_string()));
        pair("bytes_sent", Some(self.bytes_sent.to_string()));
        pair("persistence.wanted", self.persistence.wanted.clone());
        pair("persistence.chosen", self.persistence.chosen.clone());
        pair("persistence.reason", self.persistence.reason.map(str::to_owned));
        pair("persistence.key_id", self.persistence.key_id.clone());
        pair("persistence.issuer", self.persistence.issuer.clone());
        pair("persistence.resumed", self.persistence.resumed.map(|resumed| resumed.to_string()));
        pair("end", Some(self.end.to_owned()));
        pair("ended_by", Some(self.ended_by.to_owned()));
        text
    }
}

/// Milliseconds, to the microsecond.
fn milliseconds(time: Duration) -> f64 {
    Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)).as_secs_f64() * 1000.0
}

/// RFC 3339, to the second.
pub(super) fn rfc3339(time: UnixTime) -> String {
    // humantime's calendar ends with the year 9999.
    let seconds = Duration::from_secs(time.0.min(253_402_300_799));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + seconds).to_string()
}

/// One line of the log, without its line feed.
pub fn line(record: &Record, names: &Names, format: LogFormat) -> String {
    let line = Line::new(record, names);
    match format {
        LogFormat::Text => line.text(),
        LogFormat::Json => serde_json::to_string(&line).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")),
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is in the log.
    Yes,
    /// There were too many in this second.
    LeftOut,
    /// The log could not be written.
    Failed,
}

/// Where lines go.
enum Out {
    Writer(Box<dyn Write + Send>),
    Syslog(Syslog),
}

/// The connection log.
pub struct Records {
    out: Out,
    format: LogFormat,
    per_second: u32,
    second: u64,
    written: u32,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records")
            .field("format", &self.format)
            .field("per_second", &self.per_second)
            .finish_non_exhaustive()
    }
}

impl Records {
    /// Opens the log that the configuration names; an existing file is appended to.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(log: &Log) -> io::Result<Self> {
        let out = match &log.to {
            LogTo::Output => Out::Writer(Box::new(io::stdout())),
            LogTo::File(file) => Out::Writer(Box::new(OpenOptions::new().create(true).append(true).open(file)?)),
            LogTo::Syslog(receiver, facility) => Out::Syslog(Syslog::open(receiver, *facility)?),
        };
        Ok(Self::into(out, log))
    }

    fn into(out: Out, log: &Log) -> Self {
        Self { out, format: log.format, per_second: log.records_per_second, second: 0, written: 0 }
    }

    /// A log to anything.
    pub fn new(out: Box<dyn Write + Send>, log: &Log) -> Self {
        Self::into(Out::Writer(out), log)
    }

    /// Writes a record, if this second has room for it. Each line is one write, so that lines of two writers do not mix.
    pub fn write(&mut self, record: &Record, names: &Names, now: Instant) -> Written {
        let second = now.since(Instant::START).as_secs();
        if second != self.second {
            self.second = second;
            self.written = 0;
        }
        if self.per_second > 0 && self.written >= self.per_second {
            return Written::LeftOut;
        }
        self.written = self.written.saturating_add(1);
        let line = line(record, names, self.format);
        let written = match &mut self.out {
            Out::Writer(out) => out.write_all((line + "\n").as_bytes()).and_then(|()| out.flush()),
            // A message is of when the connection ended.
            Out::Syslog(syslog) => syslog.send(&line, record.began + record.lasted),
        };
        if written.is_ok() { Written::Yes } else { Written::Failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::LaneId;
    use crate::persistence::Reason;
    use crate::relay::{End, Times};
    use crate::ticket::KeyId;

    fn names() -> Names {
        let mut names = Names::default();
        names.services.insert(ServiceId(1), "shop".to_owned());
        names.pools.insert(PoolId(2), "web".to_owned());
        names.servers.insert(ServerId(3), "web/a".to_owned());
        names
    }

    fn record() -> Record {
        Record {
            lane: LaneId(1),
            began: UnixTime(1_767_225_600),
            lasted: Duration::from_micros(1_234_567),
            times: Times {
                client_rtt: Some(Duration::from_micros(400)),
                handshake: Some(Duration::from_micros(2500)),
                connect: Some(Duration::from_micros(700)),
                first_byte: Some(Duration::from_micros(12_000)),
            },
            client: "198.18.0.1:50000".parse().unwrap(),
            local: "198.18.0.10:443".parse().unwrap(),
            service: ServiceId(1),
            server_name: Some("shop.test".into()),
            client_subject: Some("CN=alice,O=Shop".into()),
            version: Some(TlsVersion::Tls13),
            cipher: Some("TLS_AES_128_GCM_SHA256"),
            resumed: Some(true),
            key_id: Some(KeyId([1, 2, 3, 4, 5, 6, 7, 8])),
            issuer: Some(EngineId(4)),
            wanted: Some(ServerId(9)),
            chosen: Some((PoolId(2), ServerId(3))),
            reason: Some(Reason::SwitchedRemoved),
            received: 100,
            sent: 2000,
            end: End::Finished,
        }
    }

    #[test]
    fn json_line_names_everything_and_explains_persistence() {
        let expected = concat!(
            r#"{"time":"2026-01-01T00:00:00Z","lane":1,"client":"198.18.0.1:50000","local":"198.18.0.10:443","service":"shop","#,
            r#""pool":"web","sni":"shop.test","client_certificate":"CN=alice,O=Shop","version":"1.3","cipher":"TLS_AES_128_GCM_SHA256","#,
            r#""client_rtt_ms":0.4,"handshake_ms":2.5,"connect_ms":0.7,"first_byte_ms":12.0,"#,
            r#""duration_ms":1234.567,"bytes_received":100,"bytes_sent":2000,"#,
            r#""persistence":{"wanted":"0000000000000009","chosen":"web/a","reason":"switched-removed","key_id":"0102030405060708","#,
            r#""issuer":"0000000000000004","resumed":true},"end":"finished","ended_by":"both"}"#,
        );
        assert_eq!(line(&record(), &names(), LogFormat::Json), expected);
    }

    #[test]
    fn text_line_leaves_out_what_is_not_known() {
        let record = Record {
            times: Times::default(),
            server_name: Some("a \"b\"".into()),
            client_subject: None,
            version: None,
            cipher: None,
            resumed: None,
            key_id: None,
            issuer: None,
            wanted: None,
            chosen: None,
            reason: None,
            end: End::ClientGone,
            ..record()
        };
        let expected = concat!(
            "2026-01-01T00:00:00Z lane=1 client=198.18.0.1:50000 local=198.18.0.10:443 service=shop sni=\"a \\\"b\\\"\" ",
            "duration_ms=1234.567 bytes_received=100 bytes_sent=2000 end=client-gone ended_by=client"
        );
        assert_eq!(line(&record, &names(), LogFormat::Text), expected);
    }

    #[test]
    fn records_beyond_the_bound_of_a_second_are_left_out_until_the_next() {
        let log = Log { format: LogFormat::Json, to: LogTo::Output, records_per_second: 2 };
        let mut records = Records::new(Box::new(io::sink()), &log);
        let mut write = |nanos| records.write(&record(), &names(), Instant::from_nanos(nanos));
        assert_eq!([write(0), write(1), write(999_999_999)], [Written::Yes, Written::Yes, Written::LeftOut]);
        assert_eq!(write(1_000_000_000), Written::Yes);
    }

    #[test]
    fn without_a_bound_nothing_is_left_out() {
        let log = Log { format: LogFormat::Text, to: LogTo::Output, records_per_second: 0 };
        let mut records = Records::new(Box::new(io::sink()), &log);
        assert!((0..5000).all(|nanos| records.write(&record(), &names(), Instant::from_nanos(nanos)) == Written::Yes));
    }

    #[test]
    fn a_log_that_cannot_be_written_says_so() {
        let log = Log { format: LogFormat::Text, to: LogTo::Output, records_per_second: 0 };
        let mut full: Box<[u8]> = Box::new([0; 10]);
        let mut records = Records::new(Box::new(io::Cursor::new(std::mem::take(&mut full))), &log);
        assert_eq!(records.write(&record(), &names(), Instant::START), Written::Failed);
    }
}
