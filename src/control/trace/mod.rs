//! The lanes' traces: gathered for the admin API and for a file when the engine ends, and `sealane trace`, which shows them.

pub mod command;

use std::io::{self, Write};
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::lane::Handle;
use crate::tcp::trace::{Document, LaneTrace, Trace};

/// The rings of all lanes. Reading them never makes a lane wait.
#[derive(Clone, Debug)]
pub struct Traces(Vec<(u16, Arc<Trace>)>);

impl Traces {
    /// Of these lanes.
    pub fn of<'a>(handles: impl IntoIterator<Item = &'a Handle>) -> Self {
        Self(handles.into_iter().map(|handle| (handle.lane.0, Arc::clone(&handle.trace))).collect())
    }

    /// Traces one connection in `one_in` from now on; 0 for none.
    pub fn sample(&self, one_in: u32) {
        for (_, trace) in &self.0 {
            trace.sample(one_in);
        }
    }

    /// What the rings hold now; of rings that are too large together for a document, the last records.
    pub fn document(&self) -> Document {
        let most = Document::records_max(self.0.len());
        let lane = |(lane, trace): &(u16, Arc<Trace>)| LaneTrace { lane: *lane, reading: trace.read(most) };
        // All lanes of an engine share one clock.
        let epoch = self.0.first().map_or(0, |(_, trace)| trace.epoch());
        Document { epoch, lanes: self.0.iter().map(lane).collect() }
    }

    /// Writes what the rings hold to `file`, which is replaced as a whole and readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut temporary = tempfile::Builder::new().prefix(".sealane-trace-").tempfile_in(directory)?;
        temporary.write_all(&self.document().encode())?;
        temporary.persist(file)?;
        Ok(())
    }

    /// The same with what became of it in the event log.
    pub fn save_and_tell(&self, file: &Path) {
        match self.save(file) {
            Ok(()) => tracing::info!(file = %file.display(), "trace written; `sealane trace --file` shows it"),
            Err(error) => tracing::error!(file = %file.display(), "the trace cannot be written: {error}"),
        }
    }

    /// Writes `file` when a thread of this process panics, before anything is unwound. A process that is killed or runs into a signal writes none.
    pub fn save_on_panic(self, file: PathBuf) {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            before(panicked);
            self.save_and_tell(&file);
        }));
    }
}
