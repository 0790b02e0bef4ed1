//! What `sealane doctor` sees of a machine: files of /proc and /sys, below a root that tests make up.

use std::fs;
use std::path::{Path, PathBuf};

/// Most bytes of one such file that are looked at.
const FILE_MAX: usize = 256 * 1024;

/// A machine.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// This one.
    pub fn this() -> Self {
        Self::at(Path::new("/"))
    }

    /// One whose /proc and /sys are below `root`.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What a file says, without the white space around it; `None` when it is not there.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        let text = String::from_utf8_lossy(bytes.get(..FILE_MAX).unwrap_or(&bytes)).trim().to_owned();
        Some(text)
    }

    /// The number in a file.
    pub(super) fn number(&self, path: &str) -> Option<i64> {
        self.read(path)?.parse().ok()
    }

    /// The names in a directory, in order; none when it is not there.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The last part of what a symbolic link leads to.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        Some(fs::read_link(self.path(path)).ok()?.file_name()?.to_string_lossy().into_owned())
    }

    /// Whether there is such a file or directory.
    pub(super) fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The numbers of a list as the kernel writes it, "0-3,8"; none of what is no such list, and no more than `max`.
    pub(super) fn cores(&self, path: &str, max: usize) -> Vec<usize> {
        let text = self.read(path).unwrap_or_default();
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        };
        text.split(',')
            .filter_map(range)
            .flat_map(|range: std::ops::RangeInclusive<usize>| range.take(max))
            .take(max)
            .collect()
    }
}
