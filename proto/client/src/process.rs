//! Whether the broker's process is suspended: then it is there, and answers nothing until somebody lets it go on.
//!
//! Linux tells. Elsewhere a broker that is suspended is one that says nothing.

/// Whether the process was stopped by a signal, such as `kill -STOP` or Ctrl-Z. Not known is no.
#[cfg(target_os = "linux")]
pub(crate) fn is_suspended(pid: u32) -> bool {
    // The state stands behind the name, which is in brackets and may contain anything.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('T'))
}

/// Whether the process was stopped by a signal: not known.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_suspended(_pid: u32) -> bool {
    false
}
