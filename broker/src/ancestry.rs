//! Finds the ancestors of a connected process, and whether a process has ended. This tells an
//! agent's shell from the person's, and a session that may come back from one that cannot.
//!
//! It is a guard rail and no security boundary: a process can leave its tree. Only Linux provides
//! this information. Elsewhere every process has no ancestors and none is known to have ended.
//! Callers treat both as unknown.

use peer_core::record::Process;
#[cfg(target_os = "linux")]
use peer_proto::process::Stat;

/// The longest chain that is followed. Deeper trees are cut, and a chain that changes during the
/// reading ends.
const ANCESTORS_MAX: usize = 64;

/// Returns `pid`, its parent, and so on, without process 1. It ends where the information is
/// missing.
#[cfg(target_os = "linux")]
pub(crate) fn of(pid: u32) -> Vec<Process> {
    let mut chain: Vec<Process> = Vec::new();
    let mut next = pid;
    while next > 1 && chain.iter().all(|above| above.pid != next) && chain.len() < ANCESTORS_MAX {
        let Some(found) = read_stat(next).ok().flatten() else { break };
        chain.push(Process { pid: next, started: found.started });
        next = found.parent;
    }
    chain
}

/// Whether a process is known to have ended: it is gone, it is a zombie, or another process has its
/// id.
#[cfg(target_os = "linux")]
pub(crate) fn has_ended(process: Process) -> bool {
    match read_stat(process.pid) {
        Ok(Some(found)) => found.is_over() || found.started != process.started,
        Ok(None) => false,
        // Without `/proc` no entry exists, and nothing is known.
        Err(error) => {
            error.kind() == std::io::ErrorKind::NotFound
                && std::fs::exists("/proc/self/stat").unwrap_or(false)
        }
    }
}

/// Always false: this system's processes are not read.
#[cfg(not(target_os = "linux"))]
pub(crate) fn has_ended(_process: Process) -> bool {
    false
}

/// Returns the kernel's line of a process, with a start that no other boot repeats.
#[cfg(target_os = "linux")]
fn read_stat(pid: u32) -> std::io::Result<Option<Stat>> {
    let stat = Stat::parse(&std::fs::read(format!("/proc/{pid}/stat"))?);
    Ok(stat.map(|mut stat| {
        stat.started ^= boot();
        stat
    }))
}

/// A number that differs from boot to boot, because a process's start is counted from the boot.
#[cfg(target_os = "linux")]
fn boot() -> u64 {
    static BOOT: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        u64::from_str_radix(&digits, 16).unwrap_or(0)
    })
}

/// Empty: this system's process tree is not read.
#[cfg(not(target_os = "linux"))]
pub(crate) fn of(_pid: u32) -> Vec<Process> {
    Vec::new()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_chain_begins_with_the_process_and_its_parent() {
        let chain: Vec<u32> =
            of(std::process::id()).into_iter().map(|process| process.pid).collect();
        assert_eq!(chain[0], std::process::id());
        let parent = std::os::unix::process::parent_id();
        assert_eq!(chain.get(1).copied().unwrap_or(1), parent.max(1));
        assert!(!chain.contains(&1) && !chain.contains(&0));
    }

    #[test]
    fn a_process_that_is_gone_has_no_parents() {
        // Beyond the largest pid that Linux gives.
        assert_eq!(of(4_194_305), []);
    }

    #[test]
    fn a_process_has_ended_when_it_is_gone_or_only_its_status_is_left_or_its_id_is_anothers() {
        let own = of(std::process::id())[0];
        assert!(!has_ended(own));
        assert!(has_ended(Process { started: own.started ^ 1, ..own }));
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = of(child.id())[0];
        assert!(!has_ended(process));
        // Its output ends with it, and nobody has asked for its status then: it is a zombie, or
        // about to be one.
        drop(child.stdin.take());
        while !has_ended(process) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(has_ended(process));
    }
}
