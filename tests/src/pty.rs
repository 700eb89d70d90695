//! Pseudo-terminals whose ends no other process inherits.
//!
//! Tests run side by side in one process and start programs all the time. An end that such a
//! program inherited would stay open after the test closed its own, and the test that reads the
//! other end would never see its end. `openpty` opens both ends without close-on-exec, so it is not
//! used where the system has another way.

use std::fs::File;

/// Both ends of a new pseudo-terminal: the one that a test reads and writes, and the one that
/// programs run on.
///
/// # Panics
/// Where the system has none.
#[cfg(target_os = "linux")]
#[must_use]
pub fn pseudo_terminal() -> (File, File) {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::OpenOptionsExt;

    use nix::fcntl::OFlag;
    use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .expect("a pseudo-terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("open its other end to us");
    let path = ptsname_r(&master).expect("its other end has a name");
    let mut options = File::options();
    let slave = options
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(path)
        .expect("open its other end");
    (File::from(OwnedFd::from(master)), slave)
}

/// Both ends of a new pseudo-terminal. Between its two steps another thread may start a program
/// that inherits them.
///
/// # Panics
/// Where the system has none.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn pseudo_terminal() -> (File, File) {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    let pair = nix::pty::openpty(None, None).expect("a pseudo-terminal");
    for end in [&pair.master, &pair.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("keep it from other programs");
    }
    (File::from(pair.master), File::from(pair.slave))
}
