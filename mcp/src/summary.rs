//! A session's first summary, so that others see what it works on before its model has said a word.
//!
//! It is made after registration, in a task of its own that nothing waits for: from git, without a network and without
//! running any program that a repository names; or by the program in `PEERD_SUMMARIZER`. Knows git's plumbing and how that
//! program is spoken to. Invariant: what a session said of itself is never overwritten.

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

/// How long git may take over one question, in milliseconds. In a work tree where it takes longer, the branch has to do.
const GIT_TIMEOUT_MS: u64 = 5_000;

/// As much of the person's program's output as is read: one line, and room for what it should not have printed before.
const LINE_BYTES_MAX: usize = 4_096;

/// As much of a list of files as is read.
const LIST_BYTES_MAX: usize = 1024 * 1024;

/// Changed files whose times are looked at.
const TIMED_FILES_MAX: usize = 2_000;

/// Changed files that the person's program is told, newest first.
const TOLD_FILES_MAX: usize = 100;

/// Directories that our own sentence names, and how long the name of one may be.
const NAMED_DIRECTORIES_MAX: usize = 3;
const DIRECTORY_CHARS_MAX: usize = 16;

/// Which peer's first summary is made or was made, and whether that peer has said one itself meanwhile.
#[derive(Debug, Default)]
pub(crate) struct FirstSummary {
    peer: Option<PeerId>,
    is_said: bool,
}

impl FirstSummary {
    /// Whether this peer's summary was not looked after yet; it is from now on.
    fn begin(&mut self, peer: PeerId) -> bool {
        let is_new = self.peer != Some(peer);
        if is_new {
            *self = Self { peer: Some(peer), is_said: false };
        }
        is_new
    }

    /// The session itself has said what it does.
    pub(crate) fn said(&mut self) {
        self.is_said = true;
    }

    /// The broker was lost: the next registration makes another attempt.
    fn lost(&mut self, peer: PeerId) {
        if self.peer == Some(peer) {
            self.peer = None;
        }
    }

    fn is_wanted(&self, peer: PeerId) -> bool {
        self.peer == Some(peer) && !self.is_said
    }
}

/// Looks after the summary of the peer that this session has become, once for each.
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

/// None where the broker was lost on the way.
async fn make(session: &Arc<Session>, peer: PeerId) -> Option<()> {
    // A peer that was here before keeps what it said.
    if has_summary(session, peer).await? {
        return Some(());
    }
    let facts = Facts::gather(session).await;
    let summary = match &session.surroundings.summarizer {
        Some(program) => match facts.told_by(program).await {
            Ok(summary) => summary,
            Err(error) => {
                session.notice(format!("PEERD_SUMMARIZER {error}; this session's first summary was made from git alone"));
                facts.sentence()
            }
        },
        None => facts.sentence(),
    };
    let Some(summary) = summary else { return Some(()) };
    // Between this look and the frame's place in the queue nothing else runs: what the session says itself comes after it.
    let wanted = session.state().first_summary.is_wanted(peer);
    let connection = session.connected()?;
    if wanted {
        let told = connection.submit(Request::Describe { summary: Some(summary), state: None, task: None });
        told.await.ok()?;
    }
    Some(())
}

/// Whether the peer has a summary already; none where the broker does not say.
async fn has_summary(session: &Arc<Session>, peer: PeerId) -> Option<bool> {
    let before = PeerId(peer.0.checked_sub(1)?);
    let query = PeersQuery { all: true, after: Some(before), ..PeersQuery::default() };
    match session.request(Request::Peers(query)).await {
        Ok(Reply::Peers { peers, .. }) => Some(!peers.iter().find(|found| found.id == peer)?.summary.is_empty()),
        _ => None,
    }
}

/// What a summary is made from.
#[derive(Debug, Default)]
struct Facts {
    head: Option<Head>,
    /// Changed files, those that changed last first; none where git does not say.
    files: Option<Vec<String>>,
    cwd: String,
}

impl Facts {
    async fn gather(session: &Session) -> Self {
        let cwd = session.surroundings.directory();
        let Some(repository) = session.state().repository.clone() else { return Self { cwd, ..Self::default() } };
        let files = changed_files(&repository, &session.surroundings.home).await;
        Self { head: repository.head(), files, cwd }
    }

    /// In one line, for other agents; none outside a repository.
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
                let place = if directories.is_empty() { String::new() } else { format!(" in {}", directories.join(", ")) };
                parts.push(format!("{}{place}", counted(files.len(), "changed file")));
            }
        }
        fit(&parts.join(", "))
    }

    /// What the person's program makes of it: its first line, none where it prints none.
    async fn told_by(&self, program: &str) -> Result<Option<String>, ChildError> {
        let branch = match &self.head {
            Some(Head::Branch(name)) => Some(name),
            Some(Head::Commit(_)) | None => None,
        };
        let files = self.files.as_deref().unwrap_or_default();
        let files = &files[..files.len().min(TOLD_FILES_MAX)];
        let facts = json!({"branch": branch, "files": files, "cwd": self.cwd}).to_string() + "\n";
        let mut command = Command::new("sh");
        // It may ask an agent that runs this adapter as well, and that one must not ask in turn.
        command.args(["-c", program]).env("PEERD_ENABLED", "0").env_remove("PEERD_SUMMARIZER");
        let limit = Duration::from_millis(SUMMARIZER_TIMEOUT_MS);
        let output = child::run(command, facts.as_bytes(), limit, LINE_BYTES_MAX).await?;
        Ok(String::from_utf8_lossy(&output.bytes).lines().next().and_then(fit))
    }
}

/// The directories at the top of the work tree that the files lie in, the first few. Only those whose name is a short word of
/// plain letters: others read it, and in a repository of anybody's a name may be an instruction.
fn directories(files: &[String]) -> Vec<&str> {
    let is_word =
        |name: &&str| (1..=DIRECTORY_CHARS_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    let mut named: Vec<&str> = Vec::new();
    for name in files.iter().filter_map(|file| file.split_once('/')).map(|(top, _)| top).filter(is_word) {
        if named.len() < NAMED_DIRECTORIES_MAX && !named.contains(&name) {
            named.push(name);
        }
    }
    named
}

/// The files of the work tree that differ from what is checked out, those that changed last first; a directory of new
/// files counts as one. None where git does not say.
async fn changed_files(repository: &Repository, home: &str) -> Option<Vec<String>> {
    let mut git = Git { root: &repository.root, home, without_filters: BTreeSet::new() };
    // Where a file's time does not tell, git compares contents, by programs that the repository may name.
    let filters = ["config", "--name-only", "-z", "--get-regexp", r"^filter\."];
    match git.ask(&filters).await {
        Ok(Answer { is_cut: false, entries }) => {
            git.without_filters = entries.iter().filter_map(section).collect();
        }
        // There are none.
        Err(ChildError::Failed(_)) => {}
        // More than an honest configuration has.
        _ => return None,
    }

    let changed = ["diff-files", "--name-only", "-z", "--ignore-submodules=dirty"];
    let mut names = git.ask(&changed).await.ok()?.entries;
    let unknown = ["ls-files", "-z", "--others", "--exclude-standard", "--directory", "--no-empty-directory"];
    names.extend(git.ask(&unknown).await.ok()?.entries);
    // A repository without a first commit has nothing to compare with.
    let staged = ["diff-index", "--cached", "--name-only", "-z", "--ignore-submodules=all", "HEAD"];
    names.extend(git.ask(&staged).await.unwrap_or_default().entries);

    let root = repository.root.clone();
    tokio::task::spawn_blocking(move || newest_first(&root, names)).await.ok()
}

/// The section of the configuration that a key stands in, in git's notation. It may have any bytes in it, dots included.
fn section(key: &OsString) -> Option<OsString> {
    let key = key.as_bytes();
    let end = key.iter().rposition(|byte| *byte == b'.')?;
    Some(OsString::from_vec(key[..end].to_vec()))
}

/// Git in one work tree, for questions whose answers are lists.
struct Git<'a> {
    root: &'a Path,
    home: &'a str,
    /// Sections of the configuration that name programs.
    without_filters: BTreeSet<OsString>,
}

/// What git lists.
#[derive(Default)]
struct Answer {
    entries: BTreeSet<OsString>,
    /// There are more.
    is_cut: bool,
}

impl Git<'_> {
    async fn ask(&self, question: &[&str]) -> Result<Answer, ChildError> {
        let mut command = Command::new("git");
        command
            .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never", "--no-pager"])
            .args(question)
            .current_dir(self.root)
            .env_clear()
            .env("PATH", search_path())
            .env("HOME", self.home)
            .env("LC_ALL", "C")
            // It takes no lock that the person's own git would meet, and fetches nothing that a partial clone lacks.
            .envs([("GIT_OPTIONAL_LOCKS", "0"), ("GIT_NO_LAZY_FETCH", "1"), ("GIT_TERMINAL_PROMPT", "0")]);
        let mut count = 0;
        for filter in &self.without_filters {
            for (key, value) in [(".clean", ""), (".process", ""), (".required", "false")] {
                let mut name = filter.clone();
                name.push(key);
                command.env(format!("GIT_CONFIG_KEY_{count}"), name).env(format!("GIT_CONFIG_VALUE_{count}"), value);
                count += 1;
            }
        }
        command.env("GIT_CONFIG_COUNT", count.to_string());
        let child::Output { bytes, is_cut } =
            child::run(command, b"", Duration::from_millis(GIT_TIMEOUT_MS), LIST_BYTES_MAX).await?;
        // What the bound has cut off is no entry.
        let whole = bytes.iter().rposition(|byte| *byte == 0).map_or(&bytes[..0], |end| &bytes[..end]);
        let entries = whole.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
        Ok(Answer { entries: entries.map(|entry| OsString::from_vec(entry.to_vec())).collect(), is_cut })
    }
}

/// Where programs are looked for: a relative place would be one in the repository.
fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let absolute = std::env::split_paths(&path).filter(|place| place.is_absolute());
    std::env::join_paths(absolute).unwrap_or_default()
}

fn newest_first(root: &Path, names: BTreeSet<OsString>) -> Vec<String> {
    let changed_at = |name: &OsString| -> Option<SystemTime> { root.join(name).symlink_metadata().ok()?.modified().ok() };
    let timed = names.into_iter().enumerate();
    let timed = timed.map(|(place, name)| (if place < TIMED_FILES_MAX { changed_at(&name) } else { None }, name));
    let mut timed: Vec<(Option<SystemTime>, OsString)> = timed.collect();
    timed.sort_by(|(one, _), (other, _)| other.cmp(one));
    timed.into_iter().map(|(_, name)| name.to_string_lossy().into_owned()).collect()
}

/// The text as a summary may be: one line without what is invisible, of bounded length; none where nothing is left.
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
