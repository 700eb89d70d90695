//! Whether this program runs in an agent's shell, as far as it can tell without the broker.
//!
//! The broker decides this for whoever reaches it. This is for the one thing that is done where it
//! cannot be reached: ending it by a signal. It is the same guard rail, and no authentication.

use std::collections::BTreeSet;
use std::path::Path;

use peer_client::process;

/// What clients set in the shells that they give their agents.
const VARIABLES: [&str; 3] = ["CLAUDECODE", "CLAUDE_CODE_SESSION_ID", "CODEX_THREAD_ID"];

/// Whether it is an agent's shell: the client says so in the environment, or is above this process
/// and has an adapter.
pub(crate) fn is_agents_shell() -> bool {
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    VARIABLES.iter().any(set) || has_client_above()
}

/// Whether a process above this one has exactly one adapter as its child. One with several is taken
/// for a launcher, as the broker takes it.
fn has_client_above() -> bool {
    let mut above = BTreeSet::new();
    let mut next = parent(std::process::id());
    while let Some(pid) = next.filter(|pid| *pid > 1 && above.insert(*pid)) {
        next = parent(pid);
    }
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let clients: Vec<u32> = pids
        .filter(|pid| is_adapter(*pid))
        .filter_map(parent)
        .filter(|pid| above.contains(pid))
        .collect();
    above.iter().any(|pid| clients.iter().filter(|client| *client == pid).count() == 1)
}

/// Whether a process is `peerctl mcp`.
fn is_adapter(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    let program =
        words.next().and_then(|program| std::str::from_utf8(program).ok()).unwrap_or_default();
    let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("peerctl") && words.any(|word| word == b"mcp")
}

/// The process that started a process.
fn parent(pid: u32) -> Option<u32> {
    process::stat(pid).map(|stat| stat.parent)
}
