//! Finds the process that holds a lock of the state directory: the broker's, or that of links.
//!
//! Knows the lock file and the kernel's list of locks. Does not connect to the broker. The process
//! writes its pid into the lock file ([`Holding`]), but that process may have ended, and another
//! may have its number. Invariant: the pid counts only if the kernel also reports the lock as held.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_proto::location::{Holding, Location, Phase};

use crate::process;

/// Most bytes of the lock file, which has one short line.
const LINE_BYTES_MAX: u64 = 256;

/// The pauses between two checks of a lock that will be released, in milliseconds; each is twice
/// the one before. The end of a process that is not a child is not announced.
const LOOK_MS_MIN: u64 = 5;
const LOOK_MS_MAX: u64 = 100;

/// The process that holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id, if it is certain.
    pub pid: Option<u32>,
    /// The phase that it wrote into the lock file, if any.
    pub phase: Option<Phase>,
}

/// The holder of the broker's lock now; `None` if no process holds it.
#[must_use]
pub fn look(location: &Location) -> Option<Holder> {
    look_at(&location.lock())
}

/// The holder of a lock file now; `None` if no process holds it.
#[must_use]
pub fn look_at(lock: &Path) -> Option<Holder> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = File::options().read(true).custom_flags(flags).open(lock).ok()?;
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let by_kernel = process::lock_holder(metadata.ino());
    if by_kernel.is_none() {
        // Shared, so that two checks do not block each other. Closing the file releases it.
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            Ok(()) | Err(TryLockError::Error(_)) => return None,
        }
    }
    let mut text = String::new();
    // A file that cannot be read has no pid.
    let _ = (&mut file).take(LINE_BYTES_MAX).read_to_string(&mut text);
    let said = Holding::read(&text);
    Some(match (by_kernel, said) {
        (Some(pid), Some(said)) if said.pid == pid => {
            Holder { pid: Some(pid), phase: Some(said.phase) }
        }
        (Some(pid), _) => Holder { pid: Some(pid), phase: None },
        (None, Some(said)) if process::may_hold_lock(said.pid) => {
            Holder { pid: Some(said.pid), phase: Some(said.phase) }
        }
        (None, _) => Holder { pid: None, phase: None },
    })
}

/// Asks a broker that cannot be reached to end, and waits until its lock is free. The broker then
/// ends as usual: accepted messages are on disk. Returns false if it still holds the lock after
/// `patience`.
pub async fn end(location: &Location, pid: u32, patience: Duration) -> bool {
    end_at(&location.lock(), pid, patience).await
}

/// Asks the holder of a lock file to end, and waits until the lock is free. Returns false if it
/// still holds the lock after `patience`.
pub async fn end_at(lock: &Path, pid: u32, patience: Duration) -> bool {
    let process = Pid::from_raw(pid.cast_signed());
    // It is not a failure if the process has ended already. A suspended process gets the signal
    // once it continues.
    let _ = kill(process, Signal::SIGTERM);
    let _ = kill(process, Signal::SIGCONT);
    let released = async {
        let mut pause_ms = LOOK_MS_MIN;
        while look_at(lock).is_some_and(|holder| holder.pid.is_none_or(|holder| holder == pid)) {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (2 * pause_ms).min(LOOK_MS_MAX);
        }
    };
    tokio::time::timeout(patience, released).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Location) {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::resolve(Some(dir.path()), None).unwrap();
        (dir, location)
    }

    #[test]
    fn a_lock_that_nobody_holds_has_no_holder_whatever_stands_in_it() {
        let (_dir, location) = place();
        assert_eq!(look(&location), None, "no file");
        std::fs::write(
            location.lock(),
            Holding { pid: std::process::id(), phase: Phase::Serving }.line(),
        )
        .unwrap();
        assert_eq!(look(&location), None);
    }

    #[test]
    fn the_holder_of_a_lock_is_told_by_the_kernel_and_believed_only_then() {
        let (_dir, location) = place();
        let ours = std::process::id();
        std::fs::write(location.lock(), Holding { pid: ours, phase: Phase::Serving }.line())
            .unwrap();
        let file = File::open(location.lock()).unwrap();
        file.try_lock().unwrap();
        if process::lock_holder(file.metadata().unwrap().ino()).is_none() {
            // This system does not tell who holds a lock, and a test is no broker.
            assert_eq!(look(&location), Some(Holder { pid: None, phase: None }));
            return;
        }
        assert_eq!(look(&location), Some(Holder { pid: Some(ours), phase: Some(Phase::Serving) }));
        // The number of somebody else, such as a process that is gone.
        std::fs::write(location.lock(), Holding { pid: ours + 1, phase: Phase::Serving }.line())
            .unwrap();
        assert_eq!(look(&location), Some(Holder { pid: Some(ours), phase: None }));
    }
}
