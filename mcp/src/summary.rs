//! Makes a session's first summary, so that other peers see its work before its model has acted.
//!
//! The summary is made after registration, in an async task that no other code waits for. It comes
//! from git, without a network and without any program that a repository names; or from the program
//! in `PEERD_SUMMARIZER`.
//!
//! Knows git's plumbing and the interface of that program. Does not know how peers are shown.
//! Invariant: a summary that the session set itself is never overwritten.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use peer_proto::ids::PeerId;
use peer_proto::limits::SUMMARY_BYTES_MAX;
use peer_proto::request::{PeersQuery, Reply, Request};
use peer_proto::text::single_line;
use serde_json::json;
use tokio::process::Command;

use crate::child::{self, ChildError};
use crate::git::{Head, Repository};
use crate::render::counted;
use crate::session::Session;

/// How long the person's program may take, in milliseconds.
const SUMMARIZER_TIMEOUT_MS: u64 = 10_000;

/// How long one git command may take, in milliseconds. If it takes longer, the summary names only
/// the branch.
const GIT_TIMEOUT_MS: u64 = 5_000;

/// The number of bytes that are read of the program's output: one line, with room for unwanted
/// output before it.
const LINE_BYTES_MAX: usize = 4_096;

/// The number of bytes that are read of a list of files.
const LIST_BYTES_MAX: usize = 1024 * 1024;

/// The number of changed files whose times are read.
const TIMED_FILES_MAX: usize = 2_000;

/// The number of changed files that the person's program gets, newest first.
const TOLD_FILES_MAX: usize = 100;

/// The number of directories that our own sentence names, and the largest length of a name.
const NAMED_DIRECTORIES_MAX: usize = 3;
const DIRECTORY_CHARS_MAX: usize = 16;

/// The peer whose first summary is or was made, and whether that peer has set one itself meanwhile.
#[derive(Debug, Default)]
pub(crate) struct FirstSummary {
    peer: Option<PeerId>,
    is_said: bool,
}

impl FirstSummary {
    /// Whether this peer's summary was not begun yet; it counts as begun from now on.
    fn begin(&mut self, peer: PeerId) -> bool {
        let is_new = self.peer != Some(peer);
        if is_new {
            *self = Self { peer: Some(peer), is_said: false };
        }
        is_new
    }

    /// Records that the session itself set a summary.
    pub(crate) fn said(&mut self) {
        self.is_said = true;
    }

    /// Allows the next registration another attempt after a loss of the broker.
    fn lost(&mut self, peer: PeerId) {
        if self.peer == Some(peer) {
            self.peer = None;
        }
    }

    fn is_wanted(&self, peer: PeerId) -> bool {
        self.peer == Some(peer) && !self.is_said
    }
}

/// Begins the summary of the peer that this session has become, once for each.
pub(crate) fn begin(session: &Arc<Session>, peer: PeerId) {
    if session.state().first_summary.begin(peer) {
        let session = Arc::clone(session);
        tokio::spawn(async move {
            if make(&session, peer).await.is_none() {
                session.state().first_summary.lost(peer);
            }
        });
    }
}

/// Makes the summary; `None`: the broker was lost meanwhile.
async fn make(session: &Arc<Session>, peer: PeerId) -> Option<()> {
    // A peer that existed before keeps its summary.
    if has_summary(session, peer).await? {
        return Some(());
    }
    let facts = SummaryFacts::gather(session).await;
    let summary = match &session.environment.summarizer {
        Some(program) => {
            match facts.told_by(program).await {
                Ok(summary) => summary,
                Err(error) => {
                    session.notice(format!("PEERD_SUMMARIZER {error}; this session's first summary was made from git alone"));
                    facts.sentence()
                }
            }
        }
        None => facts.sentence(),
    };
    let Some(summary) = summary else { return Some(()) };
    // Between this check and the queued frame no other code runs: the session's own summary follows
    // it.
    let wanted = session.state().first_summary.is_wanted(peer);
    let connection = session.connected()?;
    if wanted {
        let told = connection.submit(Request::Describe {
            summary: Some(summary),
            state: None,
            task: None,
        });
        told.await.ok()?;
    }
    Some(())
}

/// Whether the peer has a summary already; `None`: the broker does not answer.
async fn has_summary(session: &Arc<Session>, peer: PeerId) -> Option<bool> {
    let before = PeerId(peer.0.checked_sub(1)?);
    let query = PeersQuery { all: true, after: Some(before), ..PeersQuery::default() };
    match session.request(Request::Peers(query)).await {
        Ok(Reply::Peers { peers, .. }) => {
            Some(!peers.iter().find(|found| found.id == peer)?.summary.is_empty())
        }
        _ => None,
    }
}

/// The facts for a summary.
#[derive(Debug, Default)]
struct SummaryFacts {
    head: Option<Head>,
    /// Changed files, the latest first; `None`: git does not report them.
    files: Option<Vec<String>>,
    cwd: String,
}

impl SummaryFacts {
    async fn gather(session: &Session) -> Self {
        let cwd = session.environment.directory();
        let Some(repository) = session.state().repository.clone() else {
            return Self { cwd, ..Self::default() };
        };
        let files = changed_files(&repository, &session.environment.home).await;
        Self { head: repository.head(), files, cwd }
    }

    /// Renders one line for other agents; `None` outside a repository.
    fn sentence(&self) -> Option<String> {
        let mut parts = Vec::new();
        match &self.head {
            Some(Head::Branch(name)) => parts.push(format!("on branch {name}")),
            Some(Head::Commit(id)) => parts.push(format!("on commit {id}")),
            None => {}
        }
        match self.files.as_deref() {
            None => {}
            Some([]) => parts.push("no changes".to_owned()),
            Some(files) => {
                let directories = directories(files);
                let place = if directories.is_empty() {
                    String::new()
                } else {
                    format!(" in {}", directories.join(", "))
                };
                parts.push(format!("{}{place}", counted(files.len(), "changed file")));
            }
        }
        fit(&parts.join(", "))
    }

    /// Runs the person's program with the facts, and returns its first line; `None`: it prints
    /// none.
    async fn told_by(&self, program: &str) -> Result<Option<String>, ChildError> {
        let branch = match &self.head {
            Some(Head::Branch(name)) => Some(name),
            Some(Head::Commit(_)) | None => None,
        };
        let files = self.files.as_deref().unwrap_or_default();
        let files = &files[..files.len().min(TOLD_FILES_MAX)];
        let facts = json!({"branch": branch, "files": files, "cwd": self.cwd}).to_string() + "\n";
        let mut command = Command::new("sh");
        // It may start an agent that runs this adapter as well, and that adapter must not start the
        // program again.
        command.args(["-c", program]).env("PEERD_ENABLED", "0").env_remove("PEERD_SUMMARIZER");
        let limit = Duration::from_millis(SUMMARIZER_TIMEOUT_MS);
        let output = child::run(command, facts.as_bytes(), limit, LINE_BYTES_MAX).await?;
        Ok(String::from_utf8_lossy(&output.bytes).lines().next().and_then(fit))
    }
}

/// Returns the first few top-level directories that contain the files. Only a short name of plain
/// letters counts: other peers read it, and in a stranger's repository a name may be an
/// instruction.
fn directories(files: &[String]) -> Vec<&str> {
    let is_word = |name: &&str| {
        (1..=DIRECTORY_CHARS_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    let mut named: Vec<&str> = Vec::new();
    for name in
        files.iter().filter_map(|file| file.split_once('/')).map(|(top, _)| top).filter(is_word)
    {
        if named.len() < NAMED_DIRECTORIES_MAX && !named.contains(&name) {
            named.push(name);
        }
    }
    named
}

/// Returns the files of the work tree that differ from the checked-out commit, the latest first. A
/// directory of new files counts as one. `None`: git does not report them.
async fn changed_files(repository: &Repository, home: &str) -> Option<Vec<String>> {
    let mut git = Git { root: &repository.root, home, without_filters: BTreeSet::new() };
    // If a file's time is not enough, git compares contents, by programs that the repository may
    // name.
    let filters = ["config", "--name-only", "-z", "--get-regexp", r"^filter\."];
    match git.ask(&filters).await {
        Ok(GitOutput { is_cut: false, entries }) => {
            git.without_filters = entries.iter().filter_map(section).collect();
        }
        // The configuration has none.
        Err(ChildError::Failed(_)) => {}
        // More than an honest configuration has.
        _ => return None,
    }

    let changed = ["diff-files", "--name-only", "-z", "--ignore-submodules=dirty"];
    let mut names = git.ask(&changed).await.ok()?.entries;
    let unknown =
        ["ls-files", "-z", "--others", "--exclude-standard", "--directory", "--no-empty-directory"];
    names.extend(git.ask(&unknown).await.ok()?.entries);
    // A repository without a first commit has nothing to compare with.
    let staged = ["diff-index", "--cached", "--name-only", "-z", "--ignore-submodules=all", "HEAD"];
    names.extend(git.ask(&staged).await.unwrap_or_default().entries);

    let root = repository.root.clone();
    tokio::task::spawn_blocking(move || newest_first(&root, names)).await.ok()
}

/// Returns the section of a key in git's configuration. It may contain any bytes, dots included.
fn section(key: &OsString) -> Option<OsString> {
    let key = key.as_bytes();
    let end = key.iter().rposition(|byte| *byte == b'.')?;
    Some(OsString::from_vec(key[..end].to_vec()))
}

/// Git in one work tree, for commands that list files or keys.
struct Git<'a> {
    root: &'a Path,
    home: &'a str,
    /// Sections of the configuration that name programs.
    without_filters: BTreeSet<OsString>,
}

/// A list from git.
#[derive(Default)]
struct GitOutput {
    entries: BTreeSet<OsString>,
    /// Whether there are more.
    is_cut: bool,
}

impl Git<'_> {
    async fn ask(&self, question: &[&str]) -> Result<GitOutput, ChildError> {
        let mut command = Command::new("git");
        command
            .args([
                "-c",
                "core.fsmonitor=false",
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "protocol.allow=never",
                "--no-pager",
            ])
            .args(question)
            .current_dir(self.root)
            .env_clear()
            .env("PATH", search_path())
            .env("HOME", self.home)
            .env("LC_ALL", "C")
            // It takes no lock that could delay the person's own git, and fetches no missing
            // objects of a partial clone.
            .envs([
                ("GIT_OPTIONAL_LOCKS", "0"),
                ("GIT_NO_LAZY_FETCH", "1"),
                ("GIT_TERMINAL_PROMPT", "0"),
            ]);
        let mut count = 0;
        for filter in &self.without_filters {
            for (key, value) in [(".clean", ""), (".process", ""), (".required", "false")] {
                let mut name = filter.clone();
                name.push(key);
                command
                    .env(format!("GIT_CONFIG_KEY_{count}"), name)
                    .env(format!("GIT_CONFIG_VALUE_{count}"), value);
                count += 1;
            }
        }
        command.env("GIT_CONFIG_COUNT", count.to_string());
        let child::ChildOutput { bytes, is_cut } =
            child::run(command, b"", Duration::from_millis(GIT_TIMEOUT_MS), LIST_BYTES_MAX).await?;
        // A name that the limit has cut does not count.
        let whole =
            bytes.iter().rposition(|byte| *byte == 0).map_or(&bytes[..0], |end| &bytes[..end]);
        let entries = whole.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
        Ok(GitOutput {
            entries: entries.map(|entry| OsString::from_vec(entry.to_vec())).collect(),
            is_cut,
        })
    }
}

/// Returns the search path for programs, without relative directories, which could be in the
/// repository.
fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let absolute = std::env::split_paths(&path).filter(|place| place.is_absolute());
    std::env::join_paths(absolute).unwrap_or_default()
}

fn newest_first(root: &Path, names: BTreeSet<OsString>) -> Vec<String> {
    let changed_at = |name: &OsString| -> Option<SystemTime> {
        root.join(name).symlink_metadata().ok()?.modified().ok()
    };
    let timed = names.into_iter().enumerate();
    let timed = timed.map(|(place, name)| {
        (if place < TIMED_FILES_MAX { changed_at(&name) } else { None }, name)
    });
    let mut timed: Vec<(Option<SystemTime>, OsString)> = timed.collect();
    timed.sort_by(|(one, _), (other, _)| other.cmp(one));
    timed.into_iter().map(|(_, name)| name.to_string_lossy().into_owned()).collect()
}

/// Returns the text in the form of a summary: one line without invisible characters, bounded;
/// `None`: nothing is left.
fn fit(text: &str) -> Option<String> {
    let mut text = single_line(text);
    let mut end = SUMMARY_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
