//! Watches the client's own files: which session it is, whether it works, and what its model was
//! shown.
//!
//! Claude Code's registry is watched for as long as this adapter runs. It shows each begin and end
//! of a turn, and each new session id, also without hooks. A record is watched only while an offer
//! to the client lacks evidence. Knows the paths of these files. Does not know what follows from a
//! change. Invariant: between two changes nothing is read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peer_proto::hook::Activity;
use peer_proto::request::{Seat, SeatKind};
use tokio::time::Instant;

use super::{ClientKind, Session};
use crate::claude;
use crate::event::Event;
use crate::transcript::RecordNews;
use crate::watch::FileWatch;

/// How late a client writes its record, in milliseconds, with a margin: up to 100 were seen.
const RECORD_LAG_MS: u64 = 250;

/// How long Codex may take to write its last record lines, in milliseconds, on a busy machine. It
/// ends its servers before it has written them, and kills the remaining ones after two seconds.
const LAST_WORDS_MS: u64 = 1_500;

impl Session {
    /// Watches the client. Never returns.
    pub(super) async fn watch_client(self: Arc<Self>) {
        let mut watch = FileWatch::on(Vec::new());
        let mut said = None;
        loop {
            let files = self.files_to_watch();
            let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
            // The watch exists before the first read, so that no change is missed.
            if !watch.is_on(&paths) {
                watch = FileWatch::on(files.clone());
            }
            self.read_registry(&mut said).await;
            self.read_transcript();
            if self.files_to_watch() != files {
                continue;
            }
            tokio::select! {
                () = watch.changed() => {}
                () = self.given.notified() => {}
            }
        }
    }

    /// Searches the client's record of the session for evidence.
    pub(crate) fn read_transcript(self: &Arc<Self>) {
        let client = self.client().kind;
        let (looked, speaks) = {
            let state = &mut *self.state();
            let inbox = state.core.inbox();
            let (open, wanted) = (inbox.unsettled(), !inbox.unproved().is_empty());
            let Some(path) = state.core.record().map(Path::to_owned) else { return };
            (state.transcript.read_news(client, &path, &open, wanted), state.transcript.speaks())
        };
        let RecordNews { seen, withdrawn } = looked;
        self.handle(Event::Recorded { seen, withdrawn, speaks });
    }

    /// Waits for the client's record if a message would otherwise be repeated. Clients write their
    /// records a little late.
    pub(crate) async fn wait_for_record(self: &Arc<Self>) {
        let deadline = Instant::now() + Duration::from_millis(RECORD_LAG_MS);
        let mut watch = None;
        loop {
            self.read_transcript();
            let record = {
                let state = self.state();
                state
                    .core
                    .record()
                    .filter(|_| state.core.inbox().would_repeat_push())
                    .map(Path::to_owned)
            };
            let Some(record) = record else { return };
            let Some(watch) = &mut watch else {
                // Reads once more, now that no change is missed.
                watch = Some(FileWatch::on(vec![record]));
                continue;
            };
            if tokio::time::timeout_at(deadline, watch.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Reads the record a last time when the client ends this adapter. Without evidence, the mail
    /// goes to the next session.
    pub(crate) async fn last_look(self: &Arc<Self>) {
        let patience_ms = match self.client().kind {
            ClientKind::Codex => LAST_WORDS_MS,
            _ => RECORD_LAG_MS,
        };
        let deadline = Instant::now() + Duration::from_millis(patience_ms);
        let mut watch: Option<FileWatch> = None;
        let mut news = self.news();
        loop {
            self.read_transcript();
            let record = {
                let state = self.state();
                state
                    .core
                    .record()
                    .filter(|_| state.core.inbox().is_any_given())
                    .map(Path::to_owned)
            };
            let Some(record) = record.filter(|_| self.connected().is_some()) else { return };
            let Some(watch) = &mut watch else {
                watch = Some(FileWatch::on(vec![record]));
                continue;
            };
            let changed = async {
                tokio::select! {
                    () = watch.changed() => {}
                    // The broker may have confirmed evidence.
                    _ = news.changed() => {}
                }
            };
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return;
            }
        }
    }

    /// Whether a subagent made the tool call of this name, according to a hook or else the client's
    /// records.
    pub(crate) async fn is_subagents_call(self: &Arc<Self>, tool_use: &str) -> bool {
        let deadline = Instant::now() + Duration::from_millis(RECORD_LAG_MS);
        loop {
            let (told, record) = {
                let state = self.state();
                (state.core.is_subagents_call(tool_use), state.core.record().map(Path::to_owned))
            };
            if let Some(told) = told {
                return told;
            }
            let Some(record) = record.filter(|_| self.client().kind == ClientKind::Claude) else {
                return false;
            };
            let mut watched = claude::subagents(&record);
            // A new subagent makes a file here; its name does not matter.
            watched.extend([record.clone(), record.with_extension("").join("subagents/new")]);
            let mut watch = FileWatch::on(watched);
            if let Some(is_subagents) = claude::is_subagents_call(&record, tool_use) {
                self.handle(Event::CallerTold {
                    tool_use: Some(tool_use.to_owned()),
                    is_subagent: is_subagents,
                });
                return is_subagents;
            }
            if tokio::time::timeout_at(deadline, watch.changed()).await.is_err() {
                return false;
            }
        }
    }

    /// Whether Claude Code's registry has our client under this session id. Without an entry for
    /// our client, the caller is believed. The client changes the entry just before its hooks run.
    pub(super) async fn is_registered_as(&self, session: &str) -> bool {
        let (claude, pid) = (&self.environment.claude, self.environment.client_pid);
        let deadline = Instant::now() + Duration::from_millis(RECORD_LAG_MS);
        let mut watch = FileWatch::on(vec![claude.registry(pid)]);
        loop {
            if claude.registered(pid).is_none_or(|registered| registered.session == session) {
                return true;
            }
            if tokio::time::timeout_at(deadline, watch.changed()).await.is_err() {
                return false;
            }
        }
    }

    fn files_to_watch(&self) -> Vec<PathBuf> {
        let registry = (self.client().kind == ClientKind::Claude)
            .then(|| self.environment.claude.registry(self.environment.client_pid));
        let record = self.state().core.record_to_watch().map(Path::to_owned);
        registry.into_iter().chain(record).collect()
    }

    /// Applies Claude Code's registry entry of its session. `said`: the activity that it named last.
    async fn read_registry(self: &Arc<Self>, said: &mut Option<Activity>) {
        if self.client().kind != ClientKind::Claude {
            return;
        }
        let Some(registered) = self.environment.claude.registered(self.environment.client_pid)
        else {
            return;
        };
        let seat = Seat { kind: SeatKind::Claude, key: registered.session.clone() };
        if self.seat().as_ref() != Some(&seat) {
            // If this fails now, the next change or the next hook repeats it.
            let _ = self.rebind(seat).await;
        }
        // Evidence for earlier offers is in the old record; from now on the new record is read.
        let transcript = self
            .environment
            .claude
            .transcript(&registered.session, self.environment.cwd.as_deref());
        if let Some(transcript) = transcript {
            self.move_on_to(transcript);
        }
        self.see_ways();
        if let Some(activity) = registered.activity {
            let changed = said.replace(activity) != Some(activity);
            self.handle(Event::RegistrySays { activity, changed });
        }
    }

    fn move_on_to(self: &Arc<Self>, transcript: PathBuf) {
        let before = self.state().core.record().map(Path::to_owned);
        // A hook knows better where the record of this session will be; until it exists, our path
        // is a guess.
        if before.is_some_and(|before| {
            before.file_name() == transcript.file_name()
                && (before.exists() || !transcript.exists())
        }) {
            return;
        }
        self.read_transcript();
        self.handle(Event::RecordAt(transcript));
    }
}
