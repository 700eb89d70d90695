//! Checks the machine: the executable, the state directory, the disk, the configuration, and the
//! running adapters.
//!
//! Knows the file system and `/proc`. Does not ask the broker.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use peer_broker::config;
use peer_client::{Endpoint, process};
use peer_proto::limits::DISK_RESERVE_BYTES;
use peer_proto::location::Location;

use super::Findings;
use crate::error::Failure;
use crate::output::size;

/// Free bytes below which the disk is nearly full: ten times the broker's reserve, so that there is
/// time to act.
const DISK_LOW_BYTES: u64 = 10 * DISK_RESERVE_BYTES;

/// Checks this program, and a different one of the same name on `PATH`.
pub(super) fn executable(endpoint: &Endpoint, findings: &mut Findings) {
    let ours = &endpoint.executable;
    findings.good("executable", format!("{} {}", ours.display(), env!("CARGO_PKG_VERSION")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join("peerctl"))
        .find(|candidate| candidate.is_file());
    if let Some(other) = found.filter(|other| other.canonicalize().ok() != ours.canonicalize().ok())
    {
        let observed = format!("a shell would run another peerctl: {}", other.display());
        findings.note(
            "executable",
            observed,
            "the two copies may have different versions: remove one, or call the right one by its path",
        );
    }
}

/// Checks the state directory, its files, and the disk under it.
pub(super) fn directory(location: &Location, findings: &mut Findings) {
    let dir = location.dir();
    if dir.symlink_metadata().is_err() {
        return findings.note(
            "directory",
            format!("{} does not exist yet; the first broker creates it", dir.display()),
            "",
        );
    }
    if let Err(error) = peer_broker::examine(dir) {
        let fix = or(error.hint(), "move it away; the broker creates a new one");
        let expected = "a directory that belongs to you, with mode 0700, on a local disk";
        return findings.problem("directory", error.to_string(), expected, fix);
    }
    findings.good("directory", dir.display().to_string());
    for path in
        [location.socket(), location.database(), location.lock(), location.log(), location.config()]
    {
        private(&path, findings);
    }
    match peer_broker::free_bytes(dir) {
        Ok(free) if free < DISK_LOW_BYTES => findings.problem(
            "disk",
            format!("{} free on the file system of {}", size(free), dir.display()),
            format!(
                "at least {}; below {} every send is refused",
                size(DISK_LOW_BYTES),
                size(DISK_RESERVE_BYTES)
            ),
            "make room on that file system",
        ),
        Ok(free) => findings.good("disk", format!("{} free", size(free))),
        Err(error) => findings.note(
            "disk",
            format!(
                "reading the free space on the file system of {} failed: {error}",
                dir.display()
            ),
            "",
        ),
    }
}

/// The known next step, or else this one.
fn or(hint: String, otherwise: &str) -> String {
    if hint.is_empty() { otherwise.to_owned() } else { hint }
}

/// Checks that no other user can read one of our files.
fn private(path: &Path, findings: &mut Findings) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    let mode = metadata.mode() & 0o7777;
    if metadata.uid() != geteuid().as_raw() {
        let observed = format!("{} belongs to user {}", path.display(), metadata.uid());
        findings.problem(
            "modes",
            observed,
            "a file that belongs to you",
            format!("chown $(id -un) {}", path.display()),
        );
    } else if mode & 0o022 != 0
        || (mode & 0o077 != 0 && path.extension().is_none_or(|extension| extension != "toml"))
    {
        let observed = format!("{} has mode {mode:04o}", path.display());
        findings.problem(
            "modes",
            observed,
            "mode 0600, so that no other user can read messages",
            format!("chmod 600 {}", path.display()),
        );
    }
}

/// Checks `config.toml` as the broker reads it.
pub(super) fn config(location: &Location, findings: &mut Findings) {
    let path = location.config();
    match config::load(&path) {
        Ok(_) if path.exists() => findings.good("config", path.display().to_string()),
        Ok(_) => findings.good("config", "all defaults"),
        Err(error) => {
            let failure = Failure::of_broker(&error, error.hint());
            let fix = or(failure.hint, "fix the file; `peerctl config` reads it again");
            let expected =
                "a valid file; until then the settings of the last valid one are in force";
            findings.problem("config", failure.message, expected, fix);
        }
    }
}

/// Finds adapters that have the same client process as their parent. One of them has tools but gets
/// no mail.
pub(super) fn adapters(location: &Location, findings: &mut Findings) {
    let mut running: Vec<(u32, u32)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0);
        let program = arguments
            .next()
            .and_then(|program| std::str::from_utf8(program).ok())
            .unwrap_or_default();
        let is_adapter = Path::new(program)
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("peerctl"))
            && arguments.next() == Some(b"mcp");
        let own = entry.metadata().is_ok_and(|metadata| metadata.uid() == geteuid().as_raw());
        if !is_adapter || !own || !serves(pid, location) {
            continue;
        }
        if let Some(stat) = process::stat(pid) {
            running.push((stat.parent, pid));
        }
    }
    running.sort_unstable();
    for group in running.chunk_by(|one, other| one.0 == other.0) {
        let [(client, _), _, ..] = group else { continue };
        let name = fs::read_to_string(format!("/proc/{client}/comm")).unwrap_or_default();
        // One process of Codex hosts many sessions, each with its own adapter.
        if name.trim().starts_with("claude") {
            let pids: Vec<_> = group.iter().map(|(_, pid)| pid.to_string()).collect();
            findings.problem(
                "adapters",
                format!("one Claude Code session (pid {client}) runs {} adapters: pids {}", group.len(), pids.join(", ")),
                "one adapter per session",
                "`peerctl setup claude` keeps only the plugin; if a project's .mcp.json starts another adapter, remove it there",
            );
        }
    }
}

/// Whether a process has the environment of this broker's adapters.
fn serves(pid: u32, location: &Location) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variable = |name: &str| {
        let mut entries = environment
            .split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok());
        entries.find_map(|entry| entry.strip_prefix(name)?.strip_prefix('=').map(PathBuf::from))
    };
    Location::resolve(variable("PEERD_DIR").as_deref(), variable("HOME").as_deref()).as_ref()
        == Ok(location)
}
