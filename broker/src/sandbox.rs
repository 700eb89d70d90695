//! The broker's sandbox: permits about a hundred system calls, and is applied before the socket
//! opens.
//!
//! On Linux a seccomp filter holds for all threads and cannot be undone. It permits the listed
//! calls, and all others fail. Sockets are of `AF_UNIX` alone, and connect to nobody. No other
//! program is started, and no other process is inspected. Calls with another architecture's numbers
//! end the process, and those of the x32 ABI do not exist. Core dumps and tracing by other
//! processes of the same user are also disabled, because texts and tokens pass through memory.
//! Elsewhere there is no such filter, and `status` reports this.

#[cfg(target_os = "linux")]
mod calls;

use thiserror::Error;

/// Applies the sandbox to the whole process. Returns whether the kernel now prevents it from
/// opening network sockets.
///
/// Afterwards `/proc/self` belongs to root, so read it before.
#[cfg(target_os = "linux")]
pub(crate) fn apply() -> Result<bool, SandboxError> {
    keep_memory_to_itself()?;
    for filter in filters(calls::connections()?)? {
        seccompiler::apply_filter_all_threads(&filter)?;
    }
    Ok(true)
}

/// Applies the sandbox of a process with one thread that reads and writes files, and uses the
/// sockets that it has open. It may open no socket, start no program and inspect no process.
#[cfg(target_os = "linux")]
pub(crate) fn apply_without_sockets() -> Result<(), SandboxError> {
    for filter in filters(calls::line()?)? {
        seccompiler::apply_filter(&filter)?;
    }
    Ok(())
}

/// Disables core dumps, and tracing by other processes of the same user.
#[cfg(target_os = "linux")]
pub(crate) fn keep_memory_to_itself() -> Result<(), SandboxError> {
    use nix::sys::prctl::set_dumpable;
    use nix::sys::resource::{Resource, setrlimit};

    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(SandboxError::Process)?;
    set_dumpable(false).map_err(SandboxError::Process)
}

/// This system has no sandbox.
#[cfg(not(target_os = "linux"))]
pub(crate) fn apply() -> Result<bool, SandboxError> {
    Ok(false)
}

/// Returns the filters of a process that may make these calls, and those that every process of the
/// broker makes. They are applied in this order. If several refuse a call, the newest one's error
/// is returned. The last one permits no further filter.
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

/// The reason why the process could not be confined.
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
        "`peerctl daemon run --no-sandbox` starts without it".to_owned()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
