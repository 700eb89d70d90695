//! What the broker forbids itself before its socket opens: all but some hundred system calls.
//!
//! On Linux a seccomp filter holds for all threads, for good. It lets through what stands in a list; everything else fails.
//! Sockets are of `AF_UNIX` alone, and connect to nobody; no other program and no other process is started or looked into.
//! Calls by another architecture's numbers end the process, those of the x32 ABI do not exist. Core dumps and tracing by
//! others of the same user are switched off as well, because texts and tokens pass through memory. Elsewhere there is no
//! such filter, and `status` says so.

#[cfg(target_os = "linux")]
mod calls;

use thiserror::Error;

/// Applies the sandbox to the whole process. Says whether the kernel now keeps it from opening network sockets.
///
/// Afterwards `/proc/self` belongs to root: whatever must be read there is read before.
#[cfg(target_os = "linux")]
pub(crate) fn apply() -> Result<bool, SandboxError> {
    keep_memory_to_itself()?;
    for filter in filters(calls::connections()?)? {
        seccompiler::apply_filter_all_threads(&filter)?;
    }
    Ok(true)
}

/// Applies the sandbox of a process that has one thread, reads and writes files, and talks over what it has open: it opens no
/// socket at all, and no other program and no other process either.
#[cfg(target_os = "linux")]
pub(crate) fn apply_without_sockets() -> Result<(), SandboxError> {
    for filter in filters(calls::line()?)? {
        seccompiler::apply_filter(&filter)?;
    }
    Ok(())
}

/// Switches core dumps, and tracing by others of the same user, off.
#[cfg(target_os = "linux")]
pub(crate) fn keep_memory_to_itself() -> Result<(), SandboxError> {
    use nix::sys::prctl::set_dumpable;
    use nix::sys::resource::{Resource, setrlimit};

    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(SandboxError::Process)?;
    set_dumpable(false).map_err(SandboxError::Process)
}

/// There is no sandbox on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn apply() -> Result<bool, SandboxError> {
    Ok(false)
}

/// The filters of a process that may make these calls, and those that every process of the broker's makes. They are applied
/// in this order: where several refuse a call, the error is the newest one's. The last one lets no further one in.
#[cfg(target_os = "linux")]
fn filters(more: Vec<calls::Call>) -> Result<[seccompiler::BpfProgram; 3], SandboxError> {
    use nix::libc;
    use seccompiler::{SeccompAction, SeccompFilter};

    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = |calls: Vec<calls::Call>, these: SeccompAction, others: SeccompAction| {
        SeccompFilter::new(calls.into_iter().collect(), others, these, architecture)?.try_into()
    };
    let error = |errno: i32| SeccompAction::Errno(errno as u32);
    let allowed = calls::always()?.into_iter().chain(more).collect();
    Ok([
        filter(allowed, SeccompAction::Allow, error(libc::ENOSYS))?,
        filter(calls::other_sockets()?, error(libc::EAFNOSUPPORT), SeccompAction::Allow)?,
        filter(calls::refused(), error(libc::EPERM), SeccompAction::Allow)?,
    ])
}

/// Why the process could not be confined.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// Core dumps or tracing could not be switched off.
    #[cfg(target_os = "linux")]
    #[error("cannot switch off core dumps and tracing")]
    Process(#[source] nix::errno::Errno),
    /// The filter could not be built for this machine.
    #[cfg(target_os = "linux")]
    #[error("cannot build the system call filter for this machine")]
    Build(#[from] seccompiler::BackendError),
    /// The kernel does not take the filter.
    #[cfg(target_os = "linux")]
    #[error("the kernel refuses the system call filter")]
    Apply(#[from] seccompiler::Error),
}

impl SandboxError {
    /// The next step, the same for all of them.
    #[must_use]
    pub fn hint(&self) -> String {
        "`peerctl daemon run --no-sandbox` does without".to_owned()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
