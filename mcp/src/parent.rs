//! Waits for the end of the client's process, or of another one.
//!
//! The end of our input usually shows that the client died, but a descendant of the client may hold
//! the same pipe open. On Linux a descriptor of the kernel becomes readable when the process ends.
//! Elsewhere only the pipe shows it. Knows process ids. Does not know why an end matters.

/// Returns once the process that started this one has ended; never if that cannot be observed.
pub(crate) async fn gone() {
    #[cfg(target_os = "linux")]
    if linux::watch().await.is_some() {
        return;
    }
    std::future::pending().await
}

/// Returns once the process of this number has ended; never if that cannot be observed.
pub(crate) async fn ended(pid: u32) {
    #[cfg(target_os = "linux")]
    if linux::watch_process(pid).await.is_some() {
        return;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = pid;
    std::future::pending().await
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::{FromRawFd, OwnedFd, RawFd};

    use nix::libc;
    use nix::unistd::getppid;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// Returns `Some` once the parent has ended, `None` if the kernel does not let us watch it.
    pub(super) async fn watch() -> Option<()> {
        let parent = getppid();
        // A parent in another pid namespace has the number 0; an orphan's parent is init, which
        // does not end.
        if parent.as_raw() <= 1 {
            return None;
        }
        let process = open(parent.as_raw())?;
        if getppid() != parent {
            // It ended before the descriptor existed, which may thus stand for another process.
            return Some(());
        }
        let watched = watch_for_reading(process)?;
        let ended = watched.readable().await.is_ok();
        ended.then_some(())
    }

    /// Returns `Some` once it has ended, `None` if the kernel does not let us watch it.
    pub(super) async fn watch_process(pid: u32) -> Option<()> {
        let watched = watch_for_reading(open(i32::try_from(pid).ok()?)?)?;
        let ended = watched.readable().await.is_ok();
        ended.then_some(())
    }

    #[allow(unsafe_code)]
    fn watch_for_reading(descriptor: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
        // SAFETY: an OwnedFd is the same open descriptor for as long as it lives, and it lives
        // inside the AsyncFd.
        unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.ok()
    }

    /// Returns a descriptor that becomes readable when the process ends.
    #[allow(unsafe_code)]
    fn open(pid: libc::pid_t) -> Option<OwnedFd> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours; it has no safe
        // wrapper in nix.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let descriptor = RawFd::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0)?;
        // SAFETY: the kernel has just returned this descriptor, with close-on-exec set, and no
        // other code has it.
        Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}
