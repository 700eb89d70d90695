//! The system's data about other processes: whether one is suspended, holds a lock, or may be a
//! broker.
//!
//! Knows `/proc`. Does not know the broker's protocol. On a system without `/proc`, most answers
//! are unknown.

use nix::unistd::geteuid;
use peer_proto::process::Stat;

/// The process's line in `/proc`. `None`: the process has ended, or the system has no such line.
#[must_use]
pub fn stat(pid: u32) -> Option<Stat> {
    Stat::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether a signal stopped the process, such as `kill -STOP` or Ctrl-Z. False if that is unknown.
pub(crate) fn is_suspended(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.is_suspended())
}

/// The process that holds a lock on the file with this inode, from the kernel's list. `None`: the
/// list does not have it, as for a process of another pid namespace.
#[cfg(target_os = "linux")]
pub(crate) fn lock_holder(inode: u64) -> Option<u32> {
    // A line reads `1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF`; the line of a waiting process
    // has an arrow in it.
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let inode = inode.to_string();
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = fields.as_slice() else { return None };
        let held = file.rsplit(':').next() == Some(&inode);
        pid.parse().ok().filter(|pid| held && *pid > 1)
    })
}

/// The process that holds a lock: unknown on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lock_holder(_inode: u64) -> Option<u32> {
    None
}

/// Whether a process belongs to this user and may be a broker or serve links, as far
/// as the system shows that.
pub(crate) fn may_hold_lock(pid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;

    let process = std::path::PathBuf::from(format!("/proc/{pid}"));
    match (process.metadata(), std::fs::read(process.join("cmdline"))) {
        (Ok(found), Ok(line)) => {
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).skip(1).take(2).collect();
            let of_ours = [[b"daemon", b"run".as_slice()], [b"link", b"run".as_slice()]];
            found.uid() == geteuid().as_raw() && of_ours.iter().any(|ours| words == ours)
        }
        // Without `/proc`, only its owner and its life can be checked.
        _ if !std::path::Path::new("/proc/self").exists() => {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), None).is_ok()
        }
        _ => false,
    }
}
