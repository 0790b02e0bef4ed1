//! An engine gives up root's rights once its lanes run: it becomes the user that `engine.user` names, on all of its threads at once.
//!
//! What takes root is over by then: memory, ports and sockets are there. glibc gives every thread of the process a new user when one asks for
//! it (nptl(7)), and the kernel takes a thread's capabilities away with user 0 (capabilities(7), "Effect of user ID changes"). DPDK's own threads are among them.

use std::io;

use caps::{CapSet, CapsHashSet};
use nix::unistd::{self, User};

/// Why the engine is still who it was started as, or half of it is. It must not go on.
#[derive(Debug, thiserror::Error)]
pub enum Unbecome {
    /// Users cannot be looked up, or this one is gone.
    #[error("engine.user: {0:?} is not known to this machine; write one of its users, as `getent passwd` lists them")]
    Unknown(String),
    /// The kernel refuses.
    #[error(
        "engine.user: cannot become {user:?}: {step} ({error}); start the engine as root, or leave engine.user out"
    )]
    Refused {
        /// Whom.
        user: String,
        /// What the kernel refused.
        step: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A thread has kept what all should have lost.
    #[error("engine.user: thread {thread} still has capabilities {capabilities:x}")]
    Kept {
        /// Its id.
        thread: String,
        /// Which, as in proc(5).
        capabilities: u64,
    },
}

/// Makes every thread of this process `name`'s, in all of that user's groups, and leaves none of them any capability but those in `kept`, and these to the calling thread alone.
///
/// # Errors
/// [`Unbecome`]; the process should end then.
pub fn become_user(name: &str, kept: &CapsHashSet) -> Result<(), Unbecome> {
    let user = User::from_name(name).ok().flatten().ok_or_else(|| Unbecome::Unknown(name.to_owned()))?;
    let refused = |step| move |error: io::Error| Unbecome::Refused { user: name.to_owned(), step, error };
    let change = |step, done: nix::Result<()>| done.map_err(|error| refused(step)(error.into()));
    let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| Unbecome::Unknown(user.name.clone()))?;
    // Only of this thread: all others lose what they have with the user.
    change("keeping capabilities", nix::sys::prctl::set_keepcaps(true))?;
    change("initgroups", unistd::initgroups(&name, user.gid))?;
    change("setresgid", unistd::setresgid(user.gid, user.gid, user.gid))?;
    change("setresuid", unistd::setresuid(user.uid, user.uid, user.uid))?;
    // What is effective must be permitted: it is lowered first and raised last.
    for (set, capabilities) in
        [(CapSet::Effective, &CapsHashSet::new()), (CapSet::Permitted, kept), (CapSet::Effective, kept)]
    {
        caps::set(None, set, capabilities).map_err(|error| refused("capset")(io::Error::other(error.to_string())))?;
    }
    prove(kept).map_err(|proof| proof.unwrap_or_else(|error| refused("looking at /proc/self/task")(error)))
}

/// Does `work`, which makes files, as `name` would, and goes back: the files are that user's, who can then write them again, and made where that user may. Through a
/// link that the user has laid root would write anywhere.
///
/// # Errors
/// When there is no such user.
pub fn writing_as<T>(name: Option<&str>, work: impl FnOnce() -> T) -> Result<T, Unbecome> {
    let Some(name) = name else { return Ok(work()) };
    let user = User::from_name(name).ok().flatten().ok_or_else(|| Unbecome::Unknown(name.to_owned()))?;
    // Of this thread alone (setfsuid(2)); the capabilities that go by a file's owner come and go with it. Whoever is not root changes nothing.
    let (group, owner) = (unistd::setfsgid(user.gid), unistd::setfsuid(user.uid));
    let done = work();
    unistd::setfsuid(owner);
    unistd::setfsgid(group);
    Ok(done)
}

/// Looks at every thread whether it has lost everything but, on this one, `kept`.
fn prove(kept: &CapsHashSet) -> Result<(), io::Result<Unbecome>> {
    let here = unistd::gettid().to_string();
    let kept = kept.iter().fold(0, |all, capability| all | capability.bitmask());
    for entry in std::fs::read_dir("/proc/self/task").map_err(Err)? {
        let entry = entry.map_err(Err)?;
        let thread = entry.file_name().to_string_lossy().into_owned();
        // A thread may end meanwhile.
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let permitted = permitted(&status).ok_or_else(|| Err(io::Error::other("its status has no CapPrm")))?;
        let capabilities = permitted & !if thread == here { kept } else { 0 };
        if capabilities != 0 {
            return Err(Ok(Unbecome::Kept { thread, capabilities }));
        }
    }
    Ok(())
}

/// The capabilities that a thread may use, of its `status` in proc(5).
fn permitted(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_a_threads_status() {
        assert_eq!(permitted("Name:\tlane\nCapInh:\t0\nCapPrm:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(permitted("CapPrm:\t0000000000000000\n"), Some(0));
        assert_eq!(permitted("CapPrm:\tall\n"), None);
        assert_eq!(permitted(""), None);
    }

    #[test]
    fn files_are_made_as_the_user_and_only_where_that_user_may() {
        let nobody = User::from_name("nobody").unwrap().unwrap();
        if !unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let refused = writing_as(Some("nobody"), || std::fs::write(&path, "x")).unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        unistd::chown(directory.path(), Some(nobody.uid), None).unwrap();
        writing_as(Some("nobody"), || std::fs::write(&path, "x")).unwrap().unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&path.metadata().unwrap()), nobody.uid.as_raw());
        let mine = directory.path().join("mine");
        writing_as(None, || std::fs::write(&mine, "x")).unwrap().unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&mine.metadata().unwrap()), 0);
    }

    #[test]
    fn a_user_that_is_not_there_changes_nothing() {
        let before = (unistd::getresuid().unwrap().real, caps::read(None, CapSet::Permitted).unwrap());
        let error = become_user("no-such-user", &CapsHashSet::new()).unwrap_err();
        assert!(matches!(error, Unbecome::Unknown(name) if name == "no-such-user"));
        let after = (unistd::getresuid().unwrap().real, caps::read(None, CapSet::Permitted).unwrap());
        assert_eq!(before, after);
    }
}
