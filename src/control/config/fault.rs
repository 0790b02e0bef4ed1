//! What is wrong with a configuration file: every fault with its line, its key and what to write instead.

use std::fmt;
use std::path::{Path, PathBuf};

/// One fault. It reads `file:line: key: what is wrong; what to write instead`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The configuration file.
    pub file: PathBuf,
    /// Line in it, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// The key, with the tables that it is in, for example `virtual_service.tickets`.
    pub key: String,
    /// What is wrong with it.
    pub wrong: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}; {}", self.wrong, self.remedy)
    }
}

/// Everything that is wrong with a configuration, in the order of its lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Errors(Vec<Fault>);

impl Errors {
    /// One fault, of which there is no more to say.
    pub(super) fn one(fault: Fault) -> Self {
        Self(vec![fault])
    }

    /// Every fault.
    pub fn faults(&self) -> &[Fault] {
        &self.0
    }
}

/// What a value is and what to write instead, before it is known where the value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    what: String,
    instead: String,
}

impl Wrong {
    /// The same with something else that may be written.
    pub(super) fn or_instead(self, other: &str) -> Self {
        Self { instead: format!("{}, or {other}", self.instead), ..self }
    }
}

/// Puts a [`Wrong`] together.
pub(super) fn wrong(what: impl Into<String>, instead: impl Into<String>) -> Wrong {
    Wrong { what: what.into(), instead: instead.into() }
}

/// Collects the faults of one file.
#[derive(Debug)]
pub(super) struct Report {
    file: PathBuf,
    line_starts: Vec<usize>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Report {
    pub(super) fn new(file: &Path, text: &str) -> Self {
        let line_starts = text.match_indices('\n').map(|(at, _)| at.saturating_add(1)).collect();
        Self { file: file.to_owned(), line_starts, faults: Vec::new(), warnings: Vec::new() }
    }

    /// The line, from 1, of a byte of the file.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).saturating_add(1)
    }

    /// How many faults were noted so far.
    pub(super) fn count(&self) -> usize {
        self.faults.len()
    }

    /// Notes something that forbids the configuration.
    pub(super) fn fault(&mut self, line: usize, key: impl Into<String>, wrong: Wrong) {
        let fault = self.describe(line, key.into(), wrong);
        self.faults.push(fault);
    }

    /// Notes something that an operator should know and that forbids nothing.
    pub(super) fn warning(&mut self, line: usize, key: impl Into<String>, wrong: Wrong) {
        let fault = self.describe(line, key.into(), wrong);
        self.warnings.push(fault);
    }

    /// A quoted key may hold line ends and escape sequences, which are not for a terminal.
    fn describe(&self, line: usize, key: String, Wrong { what, instead }: Wrong) -> Fault {
        let key = if key.contains(char::is_control) { key.escape_debug().to_string() } else { key };
        Fault { file: self.file.clone(), line, key, wrong: what, remedy: instead }
    }

    /// The warnings, if there was no fault.
    pub(super) fn conclude(mut self) -> Result<Vec<Fault>, Errors> {
        if self.faults.is_empty() {
            return Ok(self.warnings);
        }
        self.faults.sort_by_key(|fault| fault.line);
        Err(Errors(self.faults))
    }
}
