//! What is wrong with a key file: where, what, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Whether a finding keeps a key file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used, and somebody should look.
    Warning,
}

/// One thing that is wrong with a key file. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub path: PathBuf,
    /// The line, from 1, if it is about one.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    pub(super) fn error(path: &Path, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Error, path: path.into(), line: None, what: what.into(), remedy: remedy.into() }
    }

    pub(super) fn warning(path: &Path, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, what, remedy) }
    }

    /// Sets the line from an offset into the file's text.
    pub(super) fn at(mut self, text: &str, offset: usize) -> Self {
        self.line = text.get(..offset).map(|before| 1 + before.matches('\n').count());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, ": {severity}: {}; {}", self.what, self.remedy)
    }
}

/// Why a key file cannot be used: every reason, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub Vec<Finding>);

impl std::error::Error for Error {}

impl From<Finding> for Error {
    fn from(finding: Finding) -> Self {
        Self(vec![finding])
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            finding.fmt(f)?;
        }
        Ok(())
    }
}
