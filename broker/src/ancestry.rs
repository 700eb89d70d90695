//! Which processes stand above a connected one: what tells an agent's shell from the person's.
//!
//! It is a guard rail and no authentication: a process can leave its tree. Linux alone can tell it here; elsewhere nobody
//! has ancestors, and whoever asks treats that as unknown.

/// Longest chain that is followed: deeper trees are cut, and a chain that changes under our eyes ends.
const ANCESTORS_MAX: usize = 64;

/// `pid`, its parent, and so on, without process 1. Empty where it cannot be told.
#[cfg(target_os = "linux")]
pub(crate) fn of(pid: u32) -> Vec<u32> {
    let mut chain = Vec::new();
    let mut next = Some(pid);
    while let Some(pid) = next.filter(|pid| *pid > 1 && !chain.contains(pid) && chain.len() < ANCESTORS_MAX) {
        chain.push(pid);
        next = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| parent_in(&stat));
    }
    chain
}

/// Empty: this system's process tree is not read.
#[cfg(not(target_os = "linux"))]
pub(crate) fn of(_pid: u32) -> Vec<u32> {
    Vec::new()
}

/// The parent in a line of `/proc/PID/stat`. The second field is the program's name in parentheses and may itself hold
/// spaces and parentheses, so that only what follows the last one can be counted.
#[cfg(target_os = "linux")]
fn parent_in(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_move_the_parent() {
        assert_eq!(parent_in("42 (sh) S 7 42 42 0"), Some(7));
        assert_eq!(parent_in("42 (a) S 9 (b) R) S 7 42 42 0"), Some(7));
        assert_eq!(parent_in("42 (cut"), None);
    }

    #[test]
    fn the_chain_begins_with_the_process_and_its_parent() {
        let chain = of(std::process::id());
        assert_eq!(chain[0], std::process::id());
        let parent = std::os::unix::process::parent_id();
        assert_eq!(chain.get(1).copied().unwrap_or(1), parent.max(1));
        assert!(!chain.contains(&1) && !chain.contains(&0));
    }

    #[test]
    fn a_process_that_is_gone_has_no_parents() {
        // Beyond the largest pid that Linux gives.
        assert_eq!(of(4_194_305), [4_194_305]);
    }
}
