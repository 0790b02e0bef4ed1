//! Ticket key files: TOML of mode 0600, replaced as a whole.
//!
//! ```toml
//! version = 2                            # grows with each change
//! began = "2026-01-31T12:00:00Z"         # when version 1 was made; optional
//!
//! [[key]]
//! id = "00010203fcfdfeff"                # in the clear in every ticket
//! secret = "…"                           # 64 hexadecimal digits
//! state = "active"                       # "pending", "active" (exactly one) or "retiring"
//! created = "2026-01-31T12:00:00Z"
//! not_before = "2026-01-31T18:00:00Z"    # if it is pending: when it may begin to seal; when it was made, if left out
//! activated = "2026-01-31T18:00:00Z"     # unless it is pending
//! not_after = "2026-02-01T18:01:00Z"     # if it is retiring: when it may be destroyed
//!
//! [[purged]]                             # K8: was taken out before its time, and may not come back
//! id = "0102030405060708"
//! at = "2026-01-31T19:00:00Z"
//! ```

use std::fmt::Write as _;
use std::fs::{File, Metadata};
use std::io::{Read, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use toml::Spanned;
use zeroize::Zeroizing;

use super::finding::{Error, Finding};
use crate::base::UnixTime;
use crate::ticket::ring::{Entry, Invalid, Purged, State};
use crate::ticket::{Key, KeyId, Ring};

/// Longest key file that is read, in bytes: some hundred times a full ring.
pub const SIZE_MAX: u64 = 1 << 20;

/// The last second of the year 9999, behind which RFC 3339 has no dates.
const DATE_MAX: u64 = 253_402_300_799;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of what is at `path` now; `None` if nothing that can be looked at is.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Reads and proves a key file.
///
/// # Errors
/// [`Error`] lists all that is wrong with it, its mode included.
pub fn read(path: &Path) -> Result<Ring, Error> {
    let (text, mode) = read_text(path)?;
    match (parse(path, &text), mode) {
        (Ok(ring), None) => Ok(ring),
        (Ok(_), Some(mode)) => Err(mode.into()),
        (Err(mut error), mode) => {
            error.0.extend(mode);
            Err(error)
        }
    }
}

/// The file's text, and what is wrong with its mode.
pub(super) fn read_text(path: &Path) -> Result<(Zeroizing<String>, Option<Finding>), Finding> {
    let (file, size, open_to_others) = open(path)?;
    // Room for all of it and a bit: a string that grows leaves secrets behind.
    let mut text = Zeroizing::new(String::with_capacity(size.saturating_add(4096)));
    file.take(SIZE_MAX).read_to_string(&mut text).map_err(|error| unreadable(path, &error))?;
    Ok((text, open_to_others))
}

/// The bytes of a file that nobody else may touch.
pub(in crate::control) fn read_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (file, size, open_to_others) = open(path)?;
    if let Some(open_to_others) = open_to_others {
        return Err(open_to_others.into());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.saturating_add(4096)));
    file.take(SIZE_MAX).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Finding {
    Finding::error(path, format!("cannot be read: {error}"), "name a key file that this user may read")
}

/// The file, its size, and what is wrong with its mode.
fn open(path: &Path) -> Result<(File, usize, Option<Finding>), Finding> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() || metadata.len() > SIZE_MAX {
        let what = format!("is not a file of at most {SIZE_MAX} bytes");
        return Err(Finding::error(path, what, "name a key file that `sealane keys new` wrote"));
    }
    let mode = metadata.mode() & 0o7777;
    let open_to_others = (mode & 0o077 != 0).then(|| {
        let what = format!("has mode {mode:04o}, so that others than its owner may touch the keys");
        Finding::error(path, what, format!("run `chmod 600 {}`, and rotate if anyone may have read it", path.display()))
    });
    Ok((file, usize::try_from(metadata.len()).unwrap_or(0), open_to_others))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRing {
    version: u64,
    began: Option<Spanned<String>>,
    #[serde(default)]
    key: Vec<RawKey>,
    #[serde(default)]
    purged: Vec<RawPurged>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPurged {
    id: Spanned<String>,
    at: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    id: Spanned<String>,
    secret: Spanned<Secret>,
    state: Spanned<String>,
    created: Spanned<String>,
    not_before: Option<Spanned<String>>,
    activated: Option<Spanned<String>>,
    not_after: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(from = "String")]
struct Secret(Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Proves a key file's text. `path` is for messages only.
///
/// # Errors
/// [`Error`] lists all that is wrong.
pub fn parse(path: &Path, text: &str) -> Result<Ring, Error> {
    let raw: RawRing = toml::from_str(text).map_err(|error| {
        // Not Display: that shows the line, which may be a secret.
        let finding = Finding::error(path, error.message().trim_end(), "write it as `sealane keys new` does");
        finding.at(text, error.span().map_or(0, |span| span.start))
    })?;
    let mut findings = Vec::new();
    let mut reader = Reader { path, text, findings: &mut findings };
    let began = raw.began.as_ref().and_then(|began| reader.time("began", began));
    let entries: Vec<_> = raw.key.iter().filter_map(|key| reader.entry(key)).collect();
    let purged: Vec<_> = raw.purged.iter().filter_map(|purged| reader.purged(purged)).collect();
    if !findings.is_empty() {
        return Err(Error(findings));
    }
    let ring = Ring::new(raw.version, entries, purged).map_err(|invalid| {
        let (id, remedy) = match invalid {
            Invalid::Active(_) => (None, "set state = \"active\" for one key"),
            Invalid::TooMany(_) => (None, "remove the oldest retiring keys"),
            Invalid::TooManyPurged(_) => (None, "remove the first [[purged]]"),
            Invalid::Purged(id) => (Some(id), "remove the key: it was purged because nobody should trust it"),
            Invalid::DuplicateId(id) => (Some(id), "keep one of the two, or give the second a random id"),
            Invalid::DuplicateSecret(_, id) => (Some(id), "keep one of the two, or give the second a random secret"),
        };
        let finding = Finding::error(path, format!("the ring is invalid: {invalid}"), remedy);
        // The second of two is where somebody pasted.
        let line = id.and_then(|id| raw.key.iter().rev().find(|key| key.id.get_ref().parse() == Ok(id)));
        Error::from(match line {
            Some(key) => finding.at(text, key.id.span().start),
            None => finding,
        })
    });
    ring.map(|ring| ring.begun(began))
}

/// Reads what is in a ring and notes all that is wrong with it.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl Reader<'_> {
    fn id(&mut self, raw: &Spanned<String>) -> Option<KeyId> {
        let id = raw.get_ref().parse::<KeyId>().ok();
        if id.is_none() {
            self.note(raw.span().start, format!("{:?} is no key id", raw.get_ref()), "write 16 hexadecimal digits");
        }
        id
    }

    fn purged(&mut self, raw: &RawPurged) -> Option<Purged> {
        let (id, at) = (self.id(&raw.id), self.time(&format!("key {}", raw.id.get_ref()), &raw.at));
        Some(Purged { id: id?, at: at? })
    }

    fn entry(&mut self, raw: &RawKey) -> Option<Entry> {
        let id = self.id(&raw.id);
        let key = self.key(id.unwrap_or(KeyId([0; 8])), raw);
        let state = match raw.state.get_ref().as_str() {
            "pending" => Some(State::Pending),
            "active" => Some(State::Active),
            "retiring" => Some(State::Retiring),
            other => {
                let what = format!("key {}: there is no state {other:?}", raw.id.get_ref());
                self.note(raw.state.span().start, what, "write \"pending\", \"active\" or \"retiring\"");
                None
            }
        };
        let name = format!("key {}", raw.id.get_ref());
        let created = self.time(&name, &raw.created);
        let not_before = raw.not_before.as_ref().map_or(created, |time| self.time(&name, time));
        let activated = raw.activated.as_ref().map(|time| self.time(&name, time));
        let not_after = raw.not_after.as_ref().map(|time| self.time(&name, time));
        match (state, activated.is_some(), not_after.is_some()) {
            (Some(State::Pending), true, _) => self.times(raw, "is pending but was activated", "remove `activated`"),
            (Some(State::Active | State::Retiring), false, _) => {
                self.times(raw, "was never activated", "write `activated`, the time since which it seals");
            }
            (Some(State::Pending | State::Active), _, true) => {
                self.times(raw, "does not retire but has `not_after`", "remove `not_after`");
            }
            (Some(State::Retiring), true, false) => {
                self.times(raw, "retires without end", "write `not_after`, the time when its last ticket expires");
            }
            (None | Some(_), _, _) => {}
        }
        id?;
        Some(Entry {
            key: key?,
            state: state?,
            created: created?,
            not_before: not_before?,
            activated: match activated {
                Some(time) => Some(time?),
                None => None,
            },
            not_after: match not_after {
                Some(time) => Some(time?),
                None => None,
            },
        })
    }

    fn key(&mut self, id: KeyId, raw: &RawKey) -> Option<Key> {
        let name = raw.id.get_ref();
        let offset = raw.secret.span().start;
        let remedy = "draw 32 random bytes: `sealane keys new` or `sealane keys rotate` does";
        let Ok(secret) = hex::decode(raw.secret.get_ref().0.as_str()).map(Zeroizing::new) else {
            self.note(offset, format!("key {name}: the secret is not hexadecimal"), remedy);
            return None;
        };
        match Key::new(id, &secret) {
            Ok(key) => Some(key),
            Err(weak) => {
                self.note(offset, format!("key {name}: the secret is no key: {weak}"), remedy);
                None
            }
        }
    }

    fn time(&mut self, whose: &str, time: &Spanned<String>) -> Option<UnixTime> {
        let parsed = humantime::parse_rfc3339(time.get_ref()).ok();
        let since = parsed.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        if since.is_none() {
            let what = format!("{whose}: {:?} is no time", time.get_ref());
            self.note(time.span().start, what, "write it as \"2026-01-31T12:00:00Z\"");
        }
        since.map(|since| UnixTime(since.as_secs()))
    }

    fn times(&mut self, raw: &RawKey, what: &str, remedy: &str) {
        self.note(raw.state.span().start, format!("key {} {what}", raw.id.get_ref()), remedy);
    }

    fn note(&mut self, offset: usize, what: String, remedy: &str) {
        self.findings.push(Finding::error(self.path, what, remedy).at(self.text, offset));
    }
}

/// A time as RFC 3339 writes it, UTC.
pub fn date(time: UnixTime) -> String {
    let since = Duration::from_secs(time.0.min(DATE_MAX));
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

/// The name of a state in a key file.
pub fn state_name(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Active => "active",
        State::Retiring => "retiring",
    }
}

/// A ring as a key file's text.
pub fn render(ring: &Ring) -> Zeroizing<String> {
    // A full entry takes 300 bytes: a string that grows leaves secrets behind.
    let mut text = Zeroizing::new(String::with_capacity(512 + 512 * ring.entries().len()));
    text.push_str(
        "# Sealane ticket keys: secret. Whoever has them reads the sessions of every client that holds a ticket.\n",
    );
    // Writing to a string does not fail.
    let _ = writeln!(text, "version = {}", ring.version());
    if let Some(began) = ring.began() {
        let _ = writeln!(text, "began = \"{}\"", date(began));
    }
    for entry in ring.entries() {
        let mut digits = Zeroizing::new([0; 64]);
        hex::encode_to_slice(entry.key.secret(), &mut *digits).expect("32 bytes are 64 digits");
        let secret = std::str::from_utf8(&*digits).expect("digits are ASCII");
        let (id, state, created) = (entry.key.id(), state_name(entry.state), date(entry.created));
        let _ = writeln!(
            text,
            "\n[[key]]\nid = \"{id}\"\nsecret = \"{secret}\"\nstate = \"{state}\"\ncreated = \"{created}\""
        );
        let not_before = Some(entry.not_before).filter(|time| *time != entry.created);
        for (name, time) in [("not_before", not_before), ("activated", entry.activated), ("not_after", entry.not_after)]
        {
            if let Some(time) = time {
                let _ = writeln!(text, "{name} = \"{}\"", date(time));
            }
        }
    }
    // No secrets from here on.
    for Purged { id, at } in ring.purged() {
        let _ = writeln!(text, "\n[[purged]]\nid = \"{id}\"\nat = \"{}\"", date(*at));
    }
    text
}

/// Writes a key file so that a reader sees the old one or the new one: a temporary file of mode 0600 beside it, synced, renamed over it.
///
/// # Errors
/// When the directory cannot be written, or, without `replace`, when the file exists.
pub fn write(path: &Path, ring: &Ring, replace: bool) -> Result<(), Error> {
    write_bytes(path, render(ring).as_bytes(), replace)
}

/// The same for any bytes.
pub(super) fn write_bytes(path: &Path, bytes: &[u8], replace: bool) -> Result<(), Error> {
    let unwritable = |error: std::io::Error| {
        let what = format!("cannot be written: {error}");
        let remedy = if error.kind() == std::io::ErrorKind::AlreadyExists {
            "give another name, or remove it (`sealane keys new --force` does) and lose what it holds"
        } else {
            "name a file in a directory that this user may write"
        };
        Error::from(Finding::error(path, what, remedy))
    };
    // Behind a symbolic link it is the file that is replaced, not the link.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    // tempfile creates with mode 0600 and O_EXCL, and removes the file if anything below fails.
    let mut file = tempfile::Builder::new().prefix(".sealane-keys-").tempfile_in(directory).map_err(unwritable)?;
    file.write_all(bytes).map_err(unwritable)?;
    file.as_file().sync_all().map_err(unwritable)?;
    if replace {
        file.persist(path).map_err(|error| unwritable(error.error))?;
    } else {
        file.persist_noclobber(path).map_err(|error| unwritable(error.error))?;
    }
    // The rename itself survives a power cut only once its directory is synced.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(unwritable)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::base::Random;
    use crate::ticket::Schedule;

    fn ring() -> Ring {
        let mut random = Random::from_seed(1);
        let ring =
            Ring::generate(UnixTime(1_700_000_000), &mut random).with_pending(UnixTime(1_700_000_000), &mut random);
        ring.rotate(UnixTime(1_700_010_000), &mut random, &Schedule::default())
    }

    fn findings(text: &str) -> Vec<(Option<usize>, String)> {
        let error = parse(Path::new("keys.toml"), text).unwrap_err();
        error.0.into_iter().map(|finding| (finding.line, finding.what)).collect()
    }

    #[test]
    fn a_ring_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        write(&path, &ring(), false).unwrap();
        let read = read(&path).unwrap();
        assert_eq!(*render(&read), *render(&ring()));
        assert_eq!(read.version(), 2);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn an_existing_file_is_replaced_only_when_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        write(&path, &ring(), false).unwrap();
        let refused = write(&path, &ring(), false).unwrap_err().to_string();
        assert!(refused.contains("--force"), "{refused}");
        write(&path, &ring(), true).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_to_a_key_file_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let [path, link] = ["keys.toml", "link.toml"].map(|name| directory.path().join(name));
        write(&path, &ring(), false).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(write(&link, &ring(), false).is_err());
        let next = ring().rotate(UnixTime(1_700_020_000), &mut Random::from_seed(2), &Schedule::default());
        write(&link, &next, true).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&path).unwrap().version(), next.version());
    }

    #[test]
    fn k6_a_file_that_others_may_touch_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        write(&path, &ring(), false).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let refused = read(&path).unwrap_err().to_string();
            assert!(refused.contains("chmod 600"), "{refused}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(read(&path).is_ok());
    }

    #[test]
    fn k1_weak_keys_are_refused_with_their_lines() {
        let text = render(&ring());
        let secret_of_second = text.lines().filter(|line| line.starts_with("secret")).nth(1).unwrap();
        for (secret, reason) in
            [("00".repeat(32), "zeros"), ("ab".repeat(32), "pattern"), ("ab".repeat(16), "16 bytes")]
        {
            let weak = text.replace(secret_of_second, &format!("secret = {secret:?}"));
            let [(line, what)] = &findings(&weak)[..] else { panic!() };
            let expected = 1 + weak.lines().position(|line| line.contains(&secret)).unwrap();
            assert_eq!(*line, Some(expected));
            assert!(what.contains(reason) && !what.contains(&secret), "{what}");
        }
    }

    #[test]
    fn k1_duplicates_are_refused_at_the_second() {
        let text = render(&ring());
        let [first, second] = [0, 1].map(|n| text.lines().filter(|line| line.starts_with("id")).nth(n).unwrap());
        let doubled = text.replace(second, first);
        assert_eq!(
            findings(&doubled)[0].0,
            Some(1 + doubled.lines().collect::<Vec<_>>().iter().rposition(|l| *l == first).unwrap())
        );
        let [first, second] = [0, 1].map(|n| text.lines().filter(|line| line.starts_with("secret")).nth(n).unwrap());
        let [(line, what)] = &findings(&text.replace(second, first))[..] else { panic!() };
        assert!(line.is_some() && what.contains("same secret"), "{what}");
    }

    #[test]
    fn every_mistake_is_named_at_once_and_no_secret_is_shown() {
        let text = concat!(
            "version = 1\n",
            "[[key]]\nid = \"xyz\"\nsecret = \"tell nobody\"\nstate = \"sleeping\"\ncreated = \"yesterday\"\n",
        );
        let lines: Vec<_> = findings(text).iter().map(|(line, _)| line.unwrap()).collect();
        assert_eq!(lines, [3, 4, 5, 6]);
        assert!(findings(text).iter().all(|(_, what)| !what.contains("tell nobody")));
    }

    #[test]
    fn what_is_no_ring_is_refused() {
        for (text, line) in [
            ("", 1),
            ("version = 1\ncolour = \"red\"\n", 2),
            ("version = 1\nversion = 2\n", 2),
            ("version = -1\n", 1),
            ("version = 1\n[[key]]\nid = \"0001020304050607\n", 3),
            ("version = 1\n[[key]]\nid = \"0001020304050607\"\n", 2),
        ] {
            assert_eq!(findings(text)[0].0, Some(line), "{text}: {:?}", findings(text));
        }
        assert!(findings("version = 1\n")[0].1.contains("0 keys are active"));
    }

    #[test]
    fn times_must_fit_the_state() {
        let text = render(&ring());
        for (from, to, reason) in [
            ("state = \"pending\"", "state = \"retiring\"", "never activated"),
            ("state = \"retiring\"", "state = \"pending\"", "was activated"),
            ("state = \"active\"", "state = \"retiring\"", "without end"),
            ("state = \"retiring\"", "state = \"active\"", "does not retire"),
        ] {
            let found = findings(&text.replace(from, to));
            assert!(found[0].1.contains(reason), "{found:?}");
        }
    }
}
