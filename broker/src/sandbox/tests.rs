//! The kernel's answers to a thread under the filter. The filter holds for that thread alone,
//! because the other tests of this process need theirs.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{calls, filters};

/// Runs `act` under the broker's filter.
fn confined<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        for filter in filters(calls::connections().unwrap()).unwrap() {
            seccompiler::apply_filter(&filter).unwrap();
        }
        act()
    });
    thread.join().unwrap()
}

/// Makes a system call with invalid arguments. The filter answers before the call can use them.
#[allow(unsafe_code, reason = "most of these calls have no wrapper, and some numbers have no name")]
fn call(number: libc::c_long) -> Errno {
    // SAFETY: every pointer is null, and every call that would use one is refused before.
    let result = unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
    assert_eq!(result, -1, "{number} was let through");
    Errno::last()
}

#[test]
fn a_confined_thread_opens_unix_sockets_and_no_others() {
    confined(|| {
        for family in [
            AddressFamily::Inet,
            AddressFamily::Inet6,
            AddressFamily::Netlink,
            AddressFamily::Vsock,
        ] {
            let refused = socket(family, SockType::Datagram, SockFlag::empty(), None).map(drop);
            assert_eq!(refused, Err(Errno::EAFNOSUPPORT), "{family:?}");
        }
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).map(drop).unwrap();
        UnixStream::pair().map(drop).unwrap();
        assert!(TcpListener::bind("127.0.0.1:0").is_err());
    });
}

#[test]
fn a_confined_thread_does_what_a_broker_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let client = std::thread::spawn({
        let socket = path.join("s");
        move || {
            let mut stream = loop {
                match UnixStream::connect(&socket) {
                    Ok(stream) => break stream,
                    Err(_) => std::thread::yield_now(),
                }
            };
            stream.write_all(b"hello").unwrap();
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).unwrap();
            answer
        }
    });
    confined(move || {
        let listener = UnixListener::bind(path.join("s")).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 5];
        stream.read_exact(&mut asked).unwrap();
        // Threads start, work and end; their names are set.
        let threads: Vec<_> = (0..4)
            .map(|n| std::thread::Builder::new().name(format!("t{n}")).spawn(move || n).unwrap())
            .collect();
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<i32>(), 6);
        // Files and directories.
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        std::fs::write(path.join("a/b/c"), b"text").unwrap();
        std::fs::rename(path.join("a/b/c"), path.join("a/b/d")).unwrap();
        std::fs::copy(path.join("a/b/d"), path.join("a/e")).unwrap();
        let file = std::fs::File::options().write(true).open(path.join("a/e")).unwrap();
        file.set_len(1 << 20).unwrap();
        file.sync_all().unwrap();
        file.lock().unwrap();
        assert_eq!(std::fs::read_dir(path.join("a")).unwrap().count(), 2);
        std::fs::remove_dir_all(path.join("a")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
        // Much memory, moved as it grows.
        let much: Vec<u64> = (0..4_000_000).collect();
        assert_eq!(much.len(), 4_000_000);
        stream.write_all(b"ok").unwrap();
    });
    assert_eq!(&client.join().unwrap(), b"ok");
}

#[test]
fn a_confined_thread_starts_no_program_and_no_process() {
    confined(|| {
        assert!(Command::new("/bin/true").status().is_err());
        assert_eq!(call(libc::SYS_execve), Errno::EPERM);
        assert_eq!(call(libc::SYS_execveat), Errno::EPERM);
        // Without the flag of a thread it would be a process.
        assert_eq!(call(libc::SYS_clone), Errno::ENOSYS);
        assert_eq!(call(libc::SYS_clone3), Errno::ENOSYS);
        #[cfg(target_arch = "x86_64")]
        for call_of_old in [libc::SYS_fork, libc::SYS_vfork] {
            assert_eq!(call(call_of_old), Errno::ENOSYS);
        }
    });
}

#[test]
fn what_is_refused_by_name_is_refused_with_a_word() {
    confined(|| {
        for (number, rules) in calls::refused() {
            assert!(rules.is_empty());
            assert_eq!(call(number), Errno::EPERM, "{number}");
        }
        // With unrelated arguments, and numbers that no kernel has.
        assert_eq!(call(libc::SYS_prctl), Errno::ENOSYS);
        assert_eq!(call(libc::SYS_ioctl), Errno::ENOSYS);
        assert_eq!(call(libc::SYS_tgkill), Errno::ENOSYS);
        assert_eq!(call(9_999), Errno::ENOSYS);
    });
}

/// The x32 ABI of x86-64 has all calls once more, under its own numbers.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_calls_of_x32_do_not_exist() {
    const X32: libc::c_long = 0x4000_0000;
    confined(|| {
        for number in 0..600 {
            assert_eq!(call(X32 | number), Errno::ENOSYS, "{number}");
        }
    });
}

#[test]
fn what_is_allowed_and_what_is_refused_by_name_are_two_lists() {
    let mut allowed: Vec<_> =
        calls::always().unwrap().into_iter().chain(calls::connections().unwrap()).collect();
    let count = allowed.len();
    allowed.sort_by_key(|(number, _)| *number);
    allowed.dedup_by_key(|(number, _)| *number);
    assert_eq!(allowed.len(), count, "no call stands there twice");
    for (number, _) in calls::refused() {
        // The next filter is permitted by the filter that another one follows.
        let both = allowed.iter().any(|(allowed, _)| *allowed == number);
        assert!(!both || number == libc::SYS_seccomp, "{number} stands in both lists");
    }
}
