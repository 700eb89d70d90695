//! What the search process may do: read and write the files of its index, and talk to the broker over what it has open.
//!
//! On Linux Landlock keeps it to the one directory, and a seccomp filter from sockets, from other programs and from other
//! processes. Elsewhere there is neither. A kernel without Landlock is no reason not to search: the filter holds there.

/// Confines this process for good. Says why where the kernel takes the filter not.
#[cfg(target_os = "linux")]
pub(super) fn confine(dir: &std::path::Path) -> Result<(), String> {
    use landlock::{ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr};
    use nix::sys::prctl::set_dumpable;
    use nix::sys::resource::{Resource, setrlimit};

    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|errno| errno.to_string())?;
    set_dumpable(false).map_err(|errno| errno.to_string())?;
    let all = AccessFs::from_all(ABI::V3);
    let index = PathFd::new(dir).map_err(|error| error.to_string())?;
    Ruleset::default()
        .handle_access(all)
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rule(PathBeneath::new(index, all)))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&filter().map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn confine(_dir: &std::path::Path) -> Result<(), String> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn filter() -> Result<seccompiler::BpfProgram, seccompiler::BackendError> {
    use nix::libc;
    use seccompiler::{SeccompAction, SeccompFilter};

    let refused = [
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_accept4,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_send_signal,
        libc::SYS_io_uring_setup,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_chroot,
        libc::SYS_pivot_root,
    ];
    let rules = refused.into_iter().map(|call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()
}
