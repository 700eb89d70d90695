//! Finds out whether this program runs in an agent's shell, without asking the broker.
//!
//! Knows the clients' variables and `/proc`. Does not know the sessions: the broker, which does,
//! decides for every caller that reaches it. This module decides only on the one act without the
//! broker: ending it by a signal. It is the same guard rail, and not authentication.

use std::collections::BTreeSet;
use std::path::Path;

use peer_client::process;

/// Variables that clients set in the shells of their agents.
const VARIABLES: [&str; 3] = ["CLAUDECODE", "CLAUDE_CODE_SESSION_ID", "CODEX_THREAD_ID"];

/// Whether this is an agent's shell: a client's variable is set, or a client with an adapter is
/// above this process.
pub(crate) fn is_agents_shell() -> bool {
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    VARIABLES.iter().any(set) || has_client_above()
}

/// Whether a process above this one has exactly one adapter as its child. A process with several
/// counts as a launcher, as it does for the broker.
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
