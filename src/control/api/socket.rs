//! The Unix socket of the API: whoever may open it may change the engine, so nobody but its owner may.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket that listens. When it is dropped its file goes, unless somebody else has put another there.
#[derive(Debug)]
pub struct Bound {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum Unbound {
    /// Another process listens there.
    #[error("engine.api.socket: {0} is another running engine's; stop that engine, or write another socket")]
    Taken(PathBuf),
    /// There is something else.
    #[error("engine.api.socket: {0} is no socket; move it away, or write another path")]
    Other(PathBuf),
    /// The file system refuses.
    #[error(
        "engine.api.socket: {path} cannot be made ({error}); write a path in a directory of this user, or socket = false"
    )]
    Failed {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Listens at `path` with mode 0600. A directory that is missing is made with mode 0700; the socket of an engine that is dead is replaced.
///
/// # Errors
/// [`Unbound`] says why not.
pub fn bind(path: &Path) -> Result<Bound, Unbound> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(Unbound::Other(path.to_owned())),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(Unbound::Taken(path.to_owned())),
        // Nobody listens there any more, or nothing is there; whatever else is wrong will be told by the next steps.
        Ok(_) | Err(_) => {}
    }
    listen(path).map_err(|error| Unbound::Failed { path: path.to_owned(), error })
}

fn listen(path: &Path) -> io::Result<Bound> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Made where nobody else can reach it, and moved to its place with its mode: it is never open to others.
    let workshop = tempfile::Builder::new().prefix(".api").tempdir_in(directory)?;
    let made = workshop.path().join("s");
    let listener = UnixListener::bind(&made)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    let inode = std::fs::symlink_metadata(&made)?.ino();
    std::fs::rename(&made, path)?;
    Ok(Bound { listener, path: path.to_owned(), inode })
}

impl Bound {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listener, for whoever serves it while this lives.
    ///
    /// # Errors
    /// When there are no more file descriptors.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // What cannot be removed is stale, and replaced by the next engine.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_its_owners_alone_and_goes_with_its_engine() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/engine.sock");
        let bound = bind(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_living_engine_keeps_its_socket_and_a_dead_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engine.sock");
        let living = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(Unbound::Taken(_))));
        UnixStream::connect(&path).unwrap();
        // Without its destructor, as if the process had been killed.
        let Bound { .. } = &living;
        let dead = directory.path().join("dead.sock");
        drop(UnixListener::bind(&dead).unwrap());
        let replaced = bind(&dead).unwrap();
        UnixStream::connect(replaced.path()).unwrap();
    }

    #[test]
    fn what_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(bind(&path), Err(Unbound::Other(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        assert!(matches!(bind(&path.join("s.sock")), Err(Unbound::Failed { .. })));
    }
}
