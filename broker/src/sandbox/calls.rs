//! The system calls that a process of the broker may make, and those that are refused by name.
//!
//! Found with strace under the whole test suite, and extended by calls that other C libraries use
//! for the same: another version of glibc, musl, another architecture. A call that is in no list
//! fails with `ENOSYS`. C libraries try new calls and fall back to older ones if the kernel does
//! not have them.

use nix::libc;
use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

/// A system call, and the permitted arguments. Without rules, any arguments are permitted.
pub(super) type Call = (libc::c_long, Vec<SeccompRule>);

/// Memory, threads, time, waiting and files: the calls that every process of the broker needs.
const ALWAYS: &[libc::c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munmap,
    // Threads, and the end of the process. The calls that start a thread are in `threads`.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // Signals to itself.
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Time and chance.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    // Descriptors.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // Files and directories.
    libc::SYS_copy_file_range,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    RENAMEAT,
];

/// The libc crate does not name it for every C library. Its number is that of all architectures but
/// x86.
#[cfg(not(target_arch = "x86_64"))]
const RENAMEAT: libc::c_long = 38;
#[cfg(target_arch = "x86_64")]
const RENAMEAT: libc::c_long = libc::SYS_renameat;

/// The same in calls that newer architectures do not have. musl makes them.
#[cfg(target_arch = "x86_64")]
const ALWAYS_HERE: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_getdents,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_HERE: &[libc::c_long] = &[];

/// The calls for the broker's socket and its connections. It never connects to anything.
const CONNECTIONS: &[libc::c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// Calls that are refused by name (`EPERM`), so that a log shows that they were refused and not
/// missing. None of them is in another list.
const REFUSED: &[libc::c_long] = &[
    // Another program.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Another socket, and calls that the filter cannot see into.
    libc::SYS_connect,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    // Other processes.
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tkill,
    // Another view of the machine.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // More rights, and ways into the kernel.
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_capset,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_memfd_create,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_seccomp,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setuid,
    libc::SYS_userfaultfd,
];

/// The calls of every process of the broker.
#[allow(
    clippy::unnecessary_cast,
    reason = "glibc and musl have different types for the requests of ioctl"
)]
pub(super) fn always() -> Result<Vec<Call>, BackendError> {
    let mut calls: Vec<Call> =
        ALWAYS.iter().chain(ALWAYS_HERE).map(|call| (*call, Vec::new())).collect();
    let own_process = u64::from(std::process::id());
    let (thread, name) = (libc::CLONE_THREAD as u64, libc::PR_SET_NAME as u64);
    let asks =
        [libc::FIONBIO, libc::FIOCLEX, libc::FIONREAD, libc::TCGETS].map(|request| request as u64);
    let namespaces = libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWUTS;
    calls.extend([
        // A thread, not a process, and in no namespace of its own. `clone3` hides its flags from
        // the filter, and C libraries work without it.
        (
            libc::SYS_clone,
            any_of([the(0, SeccompCmpOp::MaskedEq(thread | namespaces as u64), thread)?])?,
        ),
        // Ending itself, as abort does.
        (libc::SYS_tgkill, any_of([is(0, own_process)?])?),
        // The name of a thread, and the flag for no new privileges, which a filter needs.
        (libc::SYS_prctl, any_of([is(0, name)?, is(0, libc::PR_SET_NO_NEW_PRIVS as u64)?])?),
        // Reading limits, not setting them.
        (libc::SYS_prlimit64, any_of([is_null(2)?])?),
        // Whether a read waits, how much can be read, and whether it is a terminal. Not typing into
        // a terminal.
        (
            libc::SYS_ioctl,
            any_of([is(1, asks[0])?, is(1, asks[1])?, is(1, asks[2])?, is(1, asks[3])?])?,
        ),
        // The next filter, which refuses it.
        (libc::SYS_seccomp, Vec::new()),
    ]);
    Ok(calls)
}

/// The additional calls for a socket that is connected already.
pub(super) fn line() -> Result<Vec<Call>, BackendError> {
    // To the connected end, and to nobody else.
    Ok(vec![(libc::SYS_recvfrom, Vec::new()), (libc::SYS_sendto, any_of([is_null(4)?])?)])
}

/// The additional calls of a broker.
pub(super) fn connections() -> Result<Vec<Call>, BackendError> {
    let mut calls = line()?;
    calls.extend(CONNECTIONS.iter().map(|call| (*call, Vec::new())));
    let unix = libc::AF_UNIX as u64;
    calls.extend([
        (libc::SYS_socket, any_of([is(0, unix)?])?),
        (libc::SYS_socketpair, any_of([is(0, unix)?])?),
    ]);
    Ok(calls)
}

/// Sockets that no process of the broker opens, refused with the error of an unknown family.
pub(super) fn other_sockets() -> Result<Vec<Call>, BackendError> {
    let other = || the(0, SeccompCmpOp::Ne, libc::AF_UNIX as u64);
    Ok(vec![(libc::SYS_socket, any_of([other()?])?), (libc::SYS_socketpair, any_of([other()?])?)])
}

/// The calls that are refused by name.
pub(super) fn refused() -> Vec<Call> {
    REFUSED.iter().map(|call| (*call, Vec::new())).collect()
}

fn any_of<const N: usize>(
    conditions: [SeccompCondition; N],
) -> Result<Vec<SeccompRule>, BackendError> {
    conditions.into_iter().map(|condition| SeccompRule::new(vec![condition])).collect()
}

fn the(argument: u8, is: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    // Of an argument of 32 bits the kernel ignores the rest.
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value)
}

fn is(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    the(argument, SeccompCmpOp::Eq, value)
}

fn is_null(argument: u8) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
}
