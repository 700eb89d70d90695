//! Reads the system's facts about Codex's processes: the threads that one of them hosts, the
//! listener of a port, and the environment of a terminal's Codex. Linux only; elsewhere there are
//! no facts.
//!
//! Observed with 0.171.0: a process that hosts a thread holds
//! `<config>/thread-writer-locks/<thread>.lock` open, and the thread's record once it exists. Reads
//! `/proc`, never writes. Only processes of the same user can be read.
//!
//! Knows processes, files and sockets. Does not know which thread is this adapter's.

use std::path::{Path, PathBuf};

use peer_client::process;

/// The directory of the locks.
const LOCKS: &str = "thread-writer-locks";

/// A process, told apart from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostProcess {
    pid: u32,
    /// When it began, in ticks since the system did.
    began: u64,
}

impl HostProcess {
    /// Returns the process of this number, if it exists.
    pub(super) fn of(pid: u32) -> Option<Self> {
        began(pid).map(|began| Self { pid, began })
    }

    pub(super) fn pid(self) -> u32 {
        self.pid
    }

    /// Whether it still runs.
    pub(super) fn is_alive(self) -> bool {
        began(self.pid) == Some(self.began)
    }

    /// Returns once it has ended; never if that cannot be observed.
    pub(super) async fn ended(self) {
        if self.is_alive() {
            crate::parent::ended(self.pid).await;
        }
    }

    /// Returns its number and start time as one word.
    pub(super) fn word(self) -> String {
        format!("{}:{}", self.pid, self.began)
    }

    /// Returns a variable of the environment that it was started with.
    pub(super) fn variable(self, name: &str) -> Option<String> {
        let environment = std::fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        let value = environment.split(|byte| *byte == 0).find_map(|entry| {
            let (key, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
            (key == name).then(|| value.trim().to_owned())
        });
        value.filter(|value| !value.is_empty())
    }
}

/// The open files of a process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hosted {
    /// Codex's own directory.
    pub(super) config: Option<PathBuf>,
    /// The threads that it hosts, the oldest first.
    pub(super) threads: Vec<String>,
    /// The records that it writes.
    records: Vec<PathBuf>,
}

impl Hosted {
    /// Returns what `pid` hosts.
    pub(super) fn by(pid: u32) -> Self {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        Self::among(open.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok()))
    }

    fn among(open: impl Iterator<Item = PathBuf>) -> Self {
        let mut hosted = Self::default();
        for path in open {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(thread) =
                name.strip_suffix(".lock").filter(|thread| !thread.starts_with('.'))
                && path.parent().is_some_and(|directory| directory.ends_with(LOCKS))
            {
                hosted.threads.push(thread.to_owned());
                hosted.config = path.parent().and_then(Path::parent).map(Path::to_path_buf);
            } else if name.starts_with("rollout-") && name.ends_with(".jsonl") {
                hosted.records.push(path);
            }
        }
        // Their names begin with the time of their creation.
        hosted.threads.sort_unstable();
        hosted.threads.dedup();
        hosted
    }

    /// Returns the record of a thread, once it is written.
    pub(super) fn record(&self, thread: &str) -> Option<&Path> {
        let end = format!("-{thread}.jsonl");
        self.records
            .iter()
            .map(PathBuf::as_path)
            .find(|path| path.to_str().is_some_and(|path| path.ends_with(&end)))
    }
}

/// Returns the process of this user that listens on this port of the loopback address.
pub(super) fn listener(port: u16) -> Option<HostProcess> {
    let inode = listening_inode(&std::fs::read_to_string("/proc/net/tcp").ok()?, port)?;
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    let holds = |pid: u32| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok())
            .any(|link| link == socket)
    };
    all().find(|pid| holds(*pid)).and_then(HostProcess::of)
}

/// Whether this process is a server for other programs, and not a terminal's own.
pub(super) fn is_server(pid: u32) -> bool {
    command(pid).split(|byte| *byte == 0).any(|word| word == b"app-server")
}

/// Returns the words of its command, each followed by a zero byte.
fn command(pid: u32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// Returns the process that was started to resume this thread.
pub(super) fn resuming(thread: &str) -> Option<HostProcess> {
    let is_told = |pid: &u32| {
        let command = command(*pid);
        let mut words = command.split(|byte| *byte == 0);
        words.next().is_some_and(|program| program.ends_with(b"codex"))
            && words.any(|word| word == thread.as_bytes())
    };
    all().find(is_told).and_then(HostProcess::of)
}

/// Returns the numbers of all processes.
fn all() -> impl Iterator<Item = u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok())
}

/// Returns the inode of a listening socket. `table` is the system's table of TCP sockets.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    // 127.0.0.1, as the table writes it, and the state of a listening socket.
    let (address, listens) = (format!("0100007F:{port:04X}"), "0A");
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let fits = fields.get(1) == Some(&address.as_str()) && fields.get(3) == Some(&listens);
        fits.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

/// Returns when the process began. A process that has ended and was not reaped yet does not count.
fn began(pid: u32) -> Option<u64> {
    process::stat(pid).filter(|stat| !stat.is_over()).map(|stat| stat.started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_tell_the_threads_and_their_records() {
        let open = [
            "/h/.codex/thread-writer-locks/01a1fb61-5422-7090-baa1-abfc216d7656.lock",
            "/h/.codex/thread-writer-locks/01a1fb61-45aa-7411-a392-f011a4521f1e.lock",
            "/h/.codex/thread-writer-locks/.coordination.lock",
            "/h/.codex/app-server-daemon/daemon.lock",
            "/h/.codex/sessions/2026/11/20/rollout-2026-11-20T23-43-59-01a1fb61-45aa-7411-a392-f011a4521f1e.jsonl",
            "socket:[5170034]",
        ];
        let hosted = Hosted::among(open.into_iter().map(PathBuf::from));
        assert_eq!(hosted.config.as_deref(), Some(Path::new("/h/.codex")));
        assert_eq!(
            hosted.threads,
            ["01a1fb61-45aa-7411-a392-f011a4521f1e", "01a1fb61-5422-7090-baa1-abfc216d7656"]
        );
        assert!(hosted.record("01a1fb61-45aa-7411-a392-f011a4521f1e").is_some());
        assert_eq!(hosted.record("01a1fb61-5422-7090-baa1-abfc216d7656"), None);
    }

    #[test]
    fn only_a_socket_that_listens_on_the_machine_itself_counts() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:A5A5 0100007F:9F0E 01 00000000:00000000 00:00000000 00000000     0        0 100 1 0 20\n\
            1: 00000000:A5A5 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 200 1 0 100\n\
            2: 0100007F:A5A5 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 300 1 0 100\n";
        assert_eq!(listening_inode(table, 0xA5A5), Some(300));
        assert_eq!(listening_inode(table, 1), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_is_known_by_its_number_and_its_beginning() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = HostProcess::of(std::process::id()).unwrap();
        assert_eq!(listener(listening.local_addr().unwrap().port()), Some(ours));
        assert!(
            ours.is_alive()
                && ours.variable("PATH").is_some()
                && ours.variable("NO_SUCH_VARIABLE").is_none()
        );
        assert!(!HostProcess { began: ours.began + 1, ..ours }.is_alive());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = HostProcess::of(child.id());
        child.wait().unwrap();
        assert!(ended.is_none_or(|ended| !ended.is_alive()));
    }
}
