//! The filter of a running broker, as the kernel has it: read out, and asked about each call.
#![cfg(target_os = "linux")]

use std::fmt::Write as _;
use std::io::Write as _;

use nix::errno::Errno;
use nix::libc::{self, sock_filter};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use peer_tests::Home;

/// What the kernel does with a call: the actions of `linux/seccomp.h`. An error stands in the lower
/// half.
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// This architecture's number in `struct seccomp_data`.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
const FOREIGN: [u32; 3] = [0x4000_0003, 0x4000_0028, 0xc000_00f3];

/// The numbers of the x32 ABI begin there.
const X32: i64 = 0x4000_0000;

#[allow(unsafe_code, reason = "nix has no wrapper of this request, nor of SEIZE without a child")]
fn ptrace(
    request: libc::c_uint,
    pid: Pid,
    address: usize,
    data: *mut sock_filter,
) -> nix::Result<i64> {
    // SAFETY: `data` is null, or as long as the kernel said that the filter of this number is.
    let result =
        unsafe { libc::ptrace(request as _, pid.as_raw(), address as *mut libc::c_void, data) };
    Errno::result(result)
}

/// The filters of a process, newest first; an error where this user may not read them.
fn filters_of(pid: Pid) -> nix::Result<Vec<Vec<sock_filter>>> {
    const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
    let nothing = std::ptr::null_mut();
    ptrace(libc::PTRACE_SEIZE as _, pid, 0, nothing)?;
    ptrace(libc::PTRACE_INTERRUPT as _, pid, 0, nothing)?;
    waitpid(pid, Some(WaitPidFlag::__WALL))?;
    let mut filters = Vec::new();
    let read = loop {
        let length = match ptrace(PTRACE_SECCOMP_GET_FILTER, pid, filters.len(), nothing) {
            Ok(length) => usize::try_from(length).expect("a length"),
            // No filter has that number any more. The kernel counts from the oldest on.
            Err(Errno::ENOENT) => {
                filters.reverse();
                break Ok(filters);
            }
            Err(error) => break Err(error),
        };
        let mut filter = vec![sock_filter { code: 0, jt: 0, jf: 0, k: 0 }; length];
        match ptrace(PTRACE_SECCOMP_GET_FILTER, pid, filters.len(), filter.as_mut_ptr()) {
            Ok(_) => filters.push(filter),
            Err(error) => break Err(error),
        }
    };
    ptrace(libc::PTRACE_DETACH as _, pid, 0, nothing)?;
    read
}

/// Runs one filter as the kernel does, for a call by its number with these arguments.
fn run(filter: &[sock_filter], architecture: u32, number: i64, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend((number as u32).to_ne_bytes());
    data.extend(architecture.to_ne_bytes());
    data.extend(0_u64.to_ne_bytes());
    data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
    let (mut at, mut a) = (0, 0_u32);
    loop {
        let step = filter[at];
        let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
        at += 1;
        match step.code {
            // LD W ABS
            0x20 => {
                let from = step.k as usize;
                a = u32::from_ne_bytes(data[from..from + 4].try_into().expect("four bytes"));
            }
            // ALU AND K
            0x54 => a &= step.k,
            // JA, JEQ, JGT, JGE, JSET with K
            0x05 => at += step.k as usize,
            0x15 => at += jump(a == step.k),
            0x25 => at += jump(a > step.k),
            0x35 => at += jump(a >= step.k),
            0x45 => at += jump(a & step.k != 0),
            // RET K
            0x06 => return step.k,
            other => panic!("an instruction that no filter of ours has: {other:#x}"),
        }
    }
}

/// What the kernel makes of all filters together: the strictest action, and of equal ones the
/// newest.
fn verdict(
    filters: &[Vec<sock_filter>],
    architecture: u32,
    number: i64,
    arguments: [u64; 6],
) -> u32 {
    let strictness = |result: u32| (result & 0xffff_0000).cast_signed();
    let mut verdict = ALLOW;
    for filter in filters {
        let result = run(filter, architecture, number, arguments);
        if strictness(result) < strictness(verdict) {
            verdict = result;
        }
    }
    verdict
}

fn error(errno: Errno) -> u32 {
    ERRNO | errno as u32
}

/// The filters of this home's broker. Nothing, and a word of it, where this user may not read them.
fn live_filters(home: &Home) -> Option<Vec<Vec<sock_filter>>> {
    let _ = home.peerctl(&["status"]).success();
    read_filters(home.broker_pid().expect("a broker runs"))
}

/// The process that another one forked before it had threads, which has not forked any other.
fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .expect("the kernel tells children");
    children.trim().parse().unwrap_or_else(|_| panic!("{pid} has not one child but {children:?}"))
}

fn read_filters(pid: u32) -> Option<Vec<Vec<sock_filter>>> {
    match filters_of(Pid::from_raw(pid.cast_signed())) {
        Ok(filters) => Some(filters),
        Err(why) => {
            let told = format!(
                "NOT RUN: this user may not read the filter of a process ({why}); root may\n"
            );
            std::io::stderr().write_all(told.as_bytes()).expect("say why");
            None
        }
    }
}

#[test]
fn the_running_broker_is_held_to_the_calls_that_it_makes() {
    let home = peer_tests::home!();
    let Some(filters) = live_filters(&home) else { return };
    let ask = |number: libc::c_long, arguments: [u64; 6]| {
        verdict(&filters, ARCHITECTURE, number, arguments)
    };
    let plain = |number: libc::c_long| ask(number, [0; 6]);

    // What leads to the network, to programs and to other processes, and what changes the view of
    // the machine.
    for number in [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_connect,
        libc::SYS_sendmsg,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_kill,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_chroot,
        libc::SYS_pivot_root,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_perf_event_open,
        libc::SYS_bpf,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_seccomp,
        libc::SYS_memfd_create,
        libc::SYS_setuid,
    ] {
        assert_eq!(plain(number), error(Errno::EPERM), "{number}");
    }
    for family in [
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
        libc::AF_PACKET,
        libc::AF_VSOCK,
        libc::AF_ALG,
    ] {
        // With anything in the upper half, which the kernel does not look at.
        for upper in [0, 1 << 32, u64::MAX << 32] {
            let arguments = [family as u64 | upper, libc::SOCK_STREAM as u64, 0, 0, 0, 0];
            assert_eq!(ask(libc::SYS_socket, arguments), error(Errno::EAFNOSUPPORT), "{family}");
            assert_eq!(
                ask(libc::SYS_socketpair, arguments),
                error(Errno::EAFNOSUPPORT),
                "{family}"
            );
        }
    }
    assert_eq!(ask(libc::SYS_socket, [libc::AF_UNIX as u64, 1, 0, 0, 0, 0]), ALLOW);
    // To whom it is connected, and no address.
    assert_eq!(plain(libc::SYS_sendto), ALLOW);
    for address in [1, 1 << 32] {
        assert_eq!(ask(libc::SYS_sendto, [5, 0, 0, 0, address, 16]), error(Errno::ENOSYS));
    }
    // A thread, and no process; with no namespace of its own.
    let thread = [
        libc::CLONE_THREAD as u64 | libc::CLONE_VM as u64 | libc::CLONE_SIGHAND as u64,
        0,
        0,
        0,
        0,
        0,
    ];
    assert_eq!(ask(libc::SYS_clone, thread), ALLOW);
    for flags in [
        libc::SIGCHLD,
        libc::CLONE_VM | libc::CLONE_VFORK,
        libc::CLONE_THREAD | libc::CLONE_NEWNET,
        libc::CLONE_NEWUSER,
    ] {
        assert_eq!(
            ask(libc::SYS_clone, [flags as u64, 0, 0, 0, 0, 0]),
            error(Errno::ENOSYS),
            "{flags:#x}"
        );
    }
    assert_eq!(plain(libc::SYS_clone3), error(Errno::ENOSYS));
    // Its limits are read and not set; a terminal is typed into by nobody.
    assert_eq!(ask(libc::SYS_prlimit64, [0, 7, 1, 0, 0, 0]), error(Errno::ENOSYS));
    assert_eq!(ask(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0]), error(Errno::ENOSYS));
    for number in [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_futex,
        libc::SYS_fdatasync,
        libc::SYS_accept4,
        libc::SYS_mmap,
    ] {
        assert_eq!(plain(number), ALLOW, "{number}");
    }
}

#[test]
fn whatever_stands_in_no_list_does_not_exist_for_the_running_broker() {
    let home = peer_tests::home!();
    let Some(filters) = live_filters(&home) else { return };
    let mut allowed = String::new();
    let mut count = 0;
    for number in 0..1_000 {
        match verdict(&filters, ARCHITECTURE, number, [0; 6]) {
            ALLOW => {
                count += 1;
                let _ = write!(allowed, " {number}");
            }
            refused => assert!(
                refused & 0xffff_0000 == ERRNO && refused & 0xffff != 0,
                "{number}: {refused:#x}"
            ),
        }
        // The x32 ABI has the same calls once more.
        let x32 =
            verdict(&filters, ARCHITECTURE, X32 | number, [libc::AF_INET as u64, 1, 0, 0, 0, 0]);
        assert_eq!(x32, error(Errno::ENOSYS), "x32 {number}");
        for architecture in FOREIGN {
            assert_eq!(
                verdict(&filters, architecture, number, [0; 6]),
                KILL_PROCESS,
                "{architecture:#x} {number}"
            );
        }
    }
    assert!(count <= 130, "{count} calls are allowed:{allowed}");
}

/// What has the search index open is held to the same list, without the calls for new sockets.
#[test]
fn the_running_search_process_opens_no_socket_no_program_and_no_process() {
    let home = peer_tests::home!();
    let _ = home.peerctl(&["send", "human", "--", "amber"]).success();
    let _ = home.peerctl(&["search", "amber"]).success();
    let search = child_of(child_of(home.broker_pid().expect("a broker runs")));
    let Some(filters) = read_filters(search) else { return };
    let ask = |number: libc::c_long, arguments: [u64; 6]| {
        verdict(&filters, ARCHITECTURE, number, arguments)
    };
    for number in [
        libc::SYS_execve,
        libc::SYS_connect,
        libc::SYS_ptrace,
        libc::SYS_kill,
        libc::SYS_seccomp,
        libc::SYS_sendmsg,
    ] {
        assert_eq!(ask(number, [0; 6]), error(Errno::EPERM), "{number}");
    }
    for number in [
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_accept4,
        libc::SYS_setsockopt,
        libc::SYS_clone3,
        libc::SYS_clone,
    ] {
        assert_eq!(ask(number, [0; 6]), error(Errno::ENOSYS), "{number}");
    }
    for number in [libc::SYS_socket, libc::SYS_socketpair] {
        assert_eq!(
            ask(number, [libc::AF_UNIX as u64, 1, 0, 0, 0, 0]),
            error(Errno::ENOSYS),
            "{number}"
        );
        assert_eq!(
            ask(number, [libc::AF_INET as u64, 1, 0, 0, 0, 0]),
            error(Errno::EAFNOSUPPORT),
            "{number}"
        );
    }
    assert_eq!(ask(libc::SYS_sendto, [5, 0, 0, 0, 1, 16]), error(Errno::ENOSYS), "to an address");
    // A process that died would be another one by now, and a process that works answers.
    let _ = home.peerctl(&["send", "human", "--", "amber again"]).success();
    let found = home.peerctl(&["search", "amber", "--json"]).success().json();
    assert_eq!(found.as_array().map(Vec::len), Some(2), "{found}");
    assert_eq!(child_of(child_of(home.broker_pid().expect("a broker runs"))), search);
    let mut allowed = 0;
    for number in 0..1_000 {
        match ask(number, [0; 6]) {
            ALLOW => allowed += 1,
            refused => assert!(
                refused & 0xffff_0000 == ERRNO && refused & 0xffff != 0,
                "{number}: {refused:#x}"
            ),
        }
        for architecture in FOREIGN {
            assert_eq!(
                verdict(&filters, architecture, number, [0; 6]),
                KILL_PROCESS,
                "{architecture:#x} {number}"
            );
        }
    }
    assert!(allowed <= 118, "{allowed} calls are allowed");
}
