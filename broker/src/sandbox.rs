//! What the broker forbids itself before its socket opens: network sockets, and whatever leads around that.
//!
//! On Linux a seccomp filter holds for all threads, for good. It refuses `socket` for any domain but `AF_UNIX`, io_uring
//! (which could open sockets past the filter), and the calls that look into other processes. Core dumps and tracing by
//! others of the same user are switched off as well, because texts and tokens pass through memory. Elsewhere there is no
//! such filter, and `status` says so.

use thiserror::Error;

/// Applies the sandbox to the whole process. Says whether the kernel now keeps it from opening network sockets.
///
/// Afterwards `/proc/self` belongs to root: whatever must be read there is read before.
#[cfg(target_os = "linux")]
pub(crate) fn apply() -> Result<bool, SandboxError> {
    use nix::sys::prctl::set_dumpable;
    use nix::sys::resource::{Resource, setrlimit};

    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(SandboxError::Process)?;
    set_dumpable(false).map_err(SandboxError::Process)?;
    seccompiler::apply_filter_all_threads(&filter()?)?;
    Ok(true)
}

/// There is no sandbox on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn apply() -> Result<bool, SandboxError> {
    Ok(false)
}

#[cfg(target_os = "linux")]
fn filter() -> Result<seccompiler::BpfProgram, SandboxError> {
    use nix::libc;
    use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

    let network = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, libc::AF_UNIX as u64)?;
    let always = Vec::new;
    let rules = [
        (libc::SYS_socket, vec![SeccompRule::new(vec![network])?]),
        (libc::SYS_io_uring_setup, always()),
        (libc::SYS_ptrace, always()),
        (libc::SYS_process_vm_readv, always()),
        (libc::SYS_process_vm_writev, always()),
        (libc::SYS_bpf, always()),
    ];
    let refused = SeccompAction::Errno(libc::EAFNOSUPPORT as u32);
    let filter = SeccompFilter::new(rules.into(), SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

/// Why the process could not be confined.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// Core dumps or tracing could not be switched off.
    #[cfg(target_os = "linux")]
    #[error("cannot switch off core dumps and tracing; `peerctl daemon run --no-sandbox` does without")]
    Process(#[source] nix::errno::Errno),
    /// The filter could not be built for this machine.
    #[cfg(target_os = "linux")]
    #[error("cannot build the system call filter for this machine; `peerctl daemon run --no-sandbox` does without")]
    Build(#[from] seccompiler::BackendError),
    /// The kernel does not take the filter.
    #[cfg(target_os = "linux")]
    #[error("the kernel refuses the system call filter; `peerctl daemon run --no-sandbox` does without")]
    Apply(#[from] seccompiler::Error),
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

    #[test]
    fn a_confined_thread_opens_unix_sockets_and_no_others() {
        // The filter holds for this one thread here: the other tests of this process need theirs.
        let confined = std::thread::spawn(|| {
            seccompiler::apply_filter(&filter().unwrap()).unwrap();
            for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Netlink, AddressFamily::Vsock] {
                let refused = socket(family, SockType::Datagram, SockFlag::empty(), None).map(drop);
                assert_eq!(refused, Err(Errno::EAFNOSUPPORT), "{family:?}");
            }
            socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).map(drop).unwrap();
            std::os::unix::net::UnixStream::pair().map(drop).unwrap();
        });
        confined.join().unwrap();
    }
}
